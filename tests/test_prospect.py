"""What runs cost and the plan before them: counts by hand, limits over all cards, machines that lack something."""

import inspect

import pytest
from huggingface_hub import constants

from spec_repro.__main__ import main
from spec_repro.base.errors import InvalidInput
from spec_repro.data import LOADERS
from spec_repro.embeddings import EMBEDDINGS
from spec_repro.headless import cost, prospect, runner
from spec_repro.headless.cost import Subset
from spec_repro.headless.experiments import load_experiments, merged

LAPTOP = [item for item in load_experiments().values() if "laptop" in item.cards]
TWO = {"images": 4, "embed_seconds": 5.0}
NOT_IN_LAPTOP = {"scaling", "power", "your_data"}  # without the paper's models: the mini profile has them on the CPU


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with room and nothing on it: no data, no weights, no GPU, no token."""
    import datasets

    for name in ("SPEC_CACHE", "SPEC_RESULTS", "SPEC_DATA_ROOT", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr(prospect, "on_gpu", lambda: False)
    monkeypatch.setattr(prospect, "free_at", lambda path: 1e15)


def plans(profile, *names):
    items = [item for item in load_experiments().values() if profile in item.cards]
    return [runner.plan(item, profile) for item in items if not names or item.name in names]


def test_uses_of_nested_groups_are_those_counted_by_hand():
    found = cost.uses(
        {
            "studies": [
                {"name": "afhq", "n": 7, "comparisons": [["dinov2", "clip"], ["clip", "dinov2"]]},
                {"name": "ffhq", "n": 0, "comparisons": [["inception?x=1", "hog"]]},
            ],
            "methods": ["umap"],
            "n_samples": 5,
        }
    )
    afhq, ffhq = Subset("afhq", 7), Subset("ffhq", 0)
    assert found.rows == {afhq, ffhq}
    assert found.embedded == {(afhq, "dinov2"), (afhq, "clip"), (ffhq, "inception?x=1")}
    assert found.models == {"dinov2", "clip", "inception?x=1"}


def test_draws_words_and_texts_made_here_count():
    drawn = cost.uses({"base": "imagenette", "n_samples": 9, "embeddings": ["clip"], "seeds": [0, 1]})
    assert drawn.embedded == {(Subset("imagenette", 9, "", i, "base"), "clip") for i in (0, 1)}
    assert cost.uses({"n_samples": 9, "embeddings": ["e5"]}).embedded == {(Subset("", 9), "e5")}
    two = {
        "data": ["imagenette"],
        "n_train": 3,
        "n_test": 4,
        "train_split": "train",
        "test_split": "val",
        "train_seed": 5,
    }
    both = {Subset("imagenette", 3, "train", 5), Subset("imagenette", 4, "val")}
    assert cost.uses(two | {"embeddings": {"A": "dinov2"}}).embedded == {(each, "dinov2") for each in both}


def test_the_usual_split_is_that_of_the_loader():
    for name in cost.on_hub():
        usual = inspect.signature(LOADERS[name].function).parameters["split"].default
        assert usual == ("train" if name in cost.TRAIN else "all")
        assert cost.uses({"data": name}).rows == {Subset(name, 0, "train" if usual == "train" else "")}


def test_a_training_counts_its_steps_and_a_checkpoint_is_no_download():
    found = cost.uses(
        {
            "model": "open_clip:ViT-B-32-quickgelu/openai",
            "reference": "dinov2",
            "training": {"name": "coco", "split": "train", "n": 10, "captions": True},
            "held_out_data": {"name": "typographic", "base": "imagenette", "n": 6},
            "settings": {"steps": 4, "batch_size": 5, "evaluate_every": 2},
        }
    )
    coco, words = Subset("coco", 10, "train"), Subset("imagenette", 6, kind="base")
    assert found.embedded == {(coco, "dinov2"), (words, "dinov2")}
    assert found.rows == {coco, words, Subset("coco-captions", 0, "train")}
    assert found.passes == {"a pair, image": 20, "clip": 30}
    made = cost.uses({"embeddings": {"aligned": "open_clip:ViT-B-32/data/cache/alignment/x/aligned.safetensors"}})
    assert (made.models, made.checkpoints) == (frozenset(), {"data/cache/alignment/x/aligned.safetensors"})


def test_seconds_and_sizes_are_rates_times_counts(monkeypatch):
    rates = {"clip": {"an image": 2.0}, "e5": {"a sentence": 3.0, "a chunk": 5.0}, "align": {"a pair, image": 7.0}}
    monkeypatch.setattr(cost, "measured", {"models.json": {"seconds": rates}, "embed-vit-b-32.json": TWO}.get)
    pairs = {(Subset("afhq", 10), "clip"), (Subset("wikitext", 10, "train"), "e5"), (Subset("", 10), "e5")}
    used = cost.Uses(embedded=frozenset(pairs), passes={"a pair, image": 10, "clip": 1})
    assert cost.speed_up() == 1.6  # 2 seconds an image alone, 1.25 on both cores
    assert cost.seconds(used) == (20 + 50 + 30 + 70 + 2) / 1.6
    assert cost.seconds(used | used) == (172 + 72) / 1.6  # the same rows are embedded once, and trained twice


def test_each_laptop_run_takes_twenty_minutes_at_most_all_three_hours_and_four_gigabytes(bare):
    assert {item.name for item in load_experiments().values()} - {item.name for item in LAPTOP} == NOT_IN_LAPTOP
    assert {item.name: item.cards["laptop"]["minutes"] for item in LAPTOP if item.cards["laptop"]["minutes"] > 20} == {}
    found = prospect.prospect(plans("laptop"))
    assert found.seconds <= 3 * 3600
    assert 3 < sum(found.downloads.values()) <= 4  # its models alone are 3 GB
    assert found.problems == []


def test_the_laptop_profile_has_the_papers_models_few_rows_and_the_exact_kernel():
    models = frozenset().union(*(cost.uses(item.parameters("laptop")).models for item in LAPTOP))
    assert {cost.registered(name) for name in models} == {
        "clip", "clip-text", "dinov2", "swav", "inception", "roberta", "e5",
    }  # fmt: skip
    for item in LAPTOP:
        parameters = item.parameters("laptop")
        assert parameters.get("frequencies", 0) == 0 or item.name in ("sensitivity", "theory")
        assert all(0 < rows.n <= 2000 for rows, _ in cost.uses(parameters).embedded), item.name
        assert item.cards["laptop"]["device"] == "CPU"
        assert item.claims_of("laptop"), item.name
        wanted, stated = item.parameters("paper"), item.changes["laptop"]
        assert any(wanted[name] != value for name, value in stated.items())


def test_merged_replaces_keys_one_by_one_and_leaves_out_what_is_none():
    base = {"a": {"n": 3, "name": "x"}, "b": [1, 2], "c": 1, "d": {"e": 1, "f": 2}}
    differs = {"a": {"n": 1}, "b": [3], "d": {"e": None}}
    assert merged(base, differs) == {"a": {"n": 1, "name": "x"}, "b": [3], "c": 1, "d": {"f": 2}}


def test_the_plan_names_order_sums_and_what_is_lacking(bare, monkeypatch):
    found = prospect.prospect(plans("paper"))
    names = [line.split()[1] for line in found.lines]
    assert names.index("fig05") < names.index("fig18")
    assert sorted(names) == sorted(item.experiment.name for item in plans("paper"))
    slow = [item.experiment.name for item in plans("paper") if item.card["device"] == "GPU"]
    assert set(found.problems[0].removeprefix("no GPU, which ").partition(" need")[0].split(", ")) == set(slow)
    assert "imagenet is gated on the hub: accept its terms there, then set HF_TOKEN" in found.problems
    assert [line.split()[0] for line in found.problems if "coco-instances" in line] == ["fig10", "fig14"]
    assert found.downloads["imagenet"] > 100
    assert [name for name in found.downloads if "fhq" in name] == ["afhq", "ffhq"]  # whole, once
    assert found.disk > sum(found.downloads.values())
    monkeypatch.setattr(prospect, "free_at", lambda path: 1e9)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = prospect.prospect(plans("laptop", "fig03", "fig18"))
    assert found.problems[0].startswith("fig18 reads data/cache")
    assert "1.0 GB are free at" in found.problems[1]
    assert found.problems[2].startswith("HF_HUB_OFFLINE is set, and these are not here: imagenette, 1,000 rows")
    text = found.text()
    assert "  1 fig03" in text
    assert "not possible here: fig18 reads" in text


def test_what_several_embed_is_counted_once(bare):
    one, two = (prospect.prospect(plans("laptop", *names)) for names in (["fig02"], ["fig02", "theory"]))
    assert one.downloads == two.downloads
    assert two.seconds - one.seconds == pytest.approx(60 * load_experiments()["theory"].cards["mini"]["minutes"])


def test_nothing_starts_without_a_yes_that_this_machine_cannot_do(bare, monkeypatch):
    said, fig03 = [], plans("paper", "fig03")
    with pytest.raises(InvalidInput, match="nothing was started; add --yes"):
        prospect.agreed(fig03, False, say=said.append)
    assert "not possible here: no GPU, which fig03 need" in said[0]
    assert prospect.agreed(fig03, True, say=said.append)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda: True}))
    for answer, starts in (("y", True), ("", False)):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert prospect.agreed(fig03, False, say=said.append) == starts
    assert prospect.agreed(plans("laptop", "fig03"), False, say=said.append)
    assert prospect.agreed([], False)


def test_the_shell_prints_the_plan_alone_or_asks(bare, monkeypatch, capsys):
    monkeypatch.setattr(runner, "run", lambda *given, **options: pytest.fail("started"))
    assert main(["run", "--plan", "--profile", "laptop"]) == 0
    said = capsys.readouterr().out
    assert "fig05" in said.partition("fig18")[0]
    assert "GB to download" in said
    assert main(["run", "fig02", "--profile", "paper"]) == 2
    assert "add --yes" in capsys.readouterr().err


def test_fetch_gets_what_is_not_here_and_names_what_cannot_be_had(bare, monkeypatch):
    got = []

    def load_data(name, **options):
        got.append((name, options))
        if name == "ffhq":
            raise OSError("no route")

    monkeypatch.setattr("spec_repro.data.load_data", load_data)
    monkeypatch.setattr(
        type(EMBEDDINGS["clip"].about), "found", lambda facts, download=False: download and got.append(facts)
    )
    said = []
    failed = prospect.fetch(plans("laptop", "fig12"), say=said.append)
    assert got[:2] == [(name, {"n": 1000, "split": None, "seed": 0}) for name in ("afhq", "ffhq")]
    assert {facts.source for facts in got[2:]} == {EMBEDDINGS[name].about.source for name in ("clip", "dinov2")}
    assert len(failed) == 1
    assert failed[0].startswith("ffhq: ")
    assert said[0].splitlines()[0].startswith("afhq, 1,000 rows: 0.")
