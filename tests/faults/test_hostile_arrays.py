"""Hostile arrays and arguments for the functions of the core: the value of numpy in float64, or a typed error."""

import json
import shutil

import pytest
from faults.oracle import CONTAINERS, NAMED, VALUES
from faults.workshop import SEED, WHOLE
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SHARES = {"compare": 500, "match": 250, "spec_diff": 200, "carry": 120, "settings": 150}
NAMES = st.sampled_from(sorted(NAMED))
POWER = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 12, 18])
ODD = st.one_of(
    st.none(), st.integers(-3, 3), st.floats(-2, 2), NAMES, st.just("a"), st.just(""), st.lists(st.integers(0, 3))
)
SIGMA = st.sampled_from(["cosine", "cosine", 0.1, 1.0, 2.0, 30.0, 1e-6, 1e6])
USUAL, ANY = st.sampled_from(["float32", "float32", "float64"]), st.sampled_from(CONTAINERS)
NORMAL, KINDS = st.sampled_from(["normal", "clusters"]), st.sampled_from(VALUES)


def arrays(container, kind):
    return st.fixed_dictionaries({
        "container": container, "values": kind, "d": st.integers(1, 12),
        "n": st.one_of(st.integers(2, 60), st.integers(20, 60)), "seed": st.integers(0, 999), "power": POWER,
    })  # fmt: skip


@st.composite
def pairs(draw, odd: bool):
    """x and y of as many rows; at most one of them odd, so that no error hides another."""
    x = draw(arrays(draw(st.sampled_from([USUAL, ANY])), draw(st.sampled_from([NORMAL, KINDS])))) if odd else None
    x, y = x or draw(arrays(USUAL, NORMAL)), draw(arrays(USUAL, st.sampled_from([*VALUES[:3], "placeholder"])))
    y["n"] = x["n"] if draw(st.integers(0, 19)) else y["n"]
    return dict(zip("xy", draw(st.permutations([x, y])), strict=True))


def some(**options):
    """A few of the options, the others left out."""
    return st.lists(st.sampled_from(sorted(options)), max_size=2, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: options[name] for name in names})
    )


K = st.one_of(st.integers(1, 5), ODD)
OPTIONS = {
    "compare": st.builds(
        lambda sigmas, more: {"sigmas": sigmas, "k": 2, **more},
        st.tuples(SIGMA, SIGMA),
        some(k=K, frequencies=st.one_of(st.integers(0, 30), ODD), batch_size=st.one_of(st.integers(1, 99), ODD),
             solver=st.sampled_from(["dense", "krylov", "covariance", "x"]), tol=ODD, seed=ODD, memory=ODD, names=ODD,
             sign=ODD, device=ODD, noise_floor=ODD, independent=ODD, centred=ODD, processes=ODD),
    ),
    "match": some(target=st.one_of(st.floats(0.05, 0.9), ODD), sigma=ODD, sample=st.one_of(st.integers(2, 99), ODD),
                  seed=ODD, device=ODD),
    "spec_diff": st.fixed_dictionaries({"sigmas": st.tuples(SIGMA, SIGMA)}),
    "carry": st.fixed_dictionaries({
        "sigmas": st.tuples(SIGMA, SIGMA),
        "way": st.sampled_from(["same", "other", "swapped", "permuted", "short", *["hostile"] * 3])}),
    "settings": st.dictionaries(
        st.sampled_from(["weight", "lr", "weight_decay", "batch_size", "epochs", "steps", "warmup", "precision", "seed",
                         "tower", "kernel", "every", "subset", "mispaired", "frozen_towers", "frozen_blocks", "workers",
                         "wieght"]),
        ODD, max_size=3),
}  # fmt: skip


@pytest.mark.parametrize("call", SHARES)
def test_hostile_arrays(call, workshop, tmp_path, tally):
    tally.row = f"hostile arguments: {call}"
    examples = SHARES[call] if WHOLE else max(4, SHARES[call] // 50)

    @seed(SEED)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(pairs(odd=call != "settings"), OPTIONS[call])
    def tried(pair, options):
        recipe = {"call": call, **pair, "options": options}
        folder = tmp_path / "here"
        folder.mkdir()
        ended = workshop.run(folder, call="oracle.judge", **{"with": recipe})
        shutil.rmtree(folder)
        lines = [line for line in ended.out.splitlines() if line.startswith("[")]
        verdict, why = json.loads(lines[-1]) if lines else ("untyped", f"the process ended: {ended.brief()}")
        if ended.verdict in ("hang", "memory"):
            verdict, why = ended.verdict, ended.brief()
        brief = {"call": call, "options": options} | ({} if call == "settings" else pair)
        kind = why.split(":")[0] + why[why.find(" at ") :] if verdict == "untyped" else why[:25]
        tally.add(verdict, json.dumps(brief), why, kind)

    tried()
    tally.close(allowed=0.01)
