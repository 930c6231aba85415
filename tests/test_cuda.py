"""On a GPU: what the CPU gives. Each part against float64 on the CPU, scikit-learn, or itself without interruption.

``python -m pytest tests/test_cuda.py tests/test_feed.py tests/test_loss.py -m gpu``; skipped where there is no CUDA.
What needs open_clip, datasets or accelerate is skipped where these are missing.
"""

import numpy as np
import pytest
import torch
from support import assert_eigenpairs, planted

from spec_repro import Cosine, Gaussian, compare, match_bandwidths
from spec_repro.base import rows
from spec_repro.base.rows import as_pair
from spec_repro.core.compare import carry
from spec_repro.core.operators import kernel_difference

GPU = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
KERNELS = Gaussian(2.0), Gaussian(3.0)
N, K = 700, 5


@pytest.fixture(scope="module")
def pair():
    """Two embeddings in float64, each of which sees one group that the other does not."""
    return tuple(planted(N, d, split=(s,), seed=s)[0] for d, s in ((30, 1), (20, 3)))


def oracle(pair, kernels, frequencies, centred):
    """Lambda, (n, n), in float64 on the CPU."""
    settings = {"frequencies": frequencies, "seed": 0, "independent": False, "centred": False}
    settings |= {"device": "cpu", "batch_size": None, "memory": None}
    matrix = kernel_difference(as_pair(*pair), kernels, **settings).matrix(torch.float64).numpy()
    h = np.eye(N) - centred / N
    return h @ matrix @ h


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(
    ("kernels", "frequencies", "solver"),
    [
        (KERNELS, 0, "krylov"), (KERNELS, 0, "dense"), ((Cosine(), Gaussian(3.0)), 0, "auto"),
        (KERNELS, 500, "krylov"), (KERNELS, 500, "covariance"), (KERNELS, 3_000, "auto"),
        ((Cosine(), Cosine()), 0, "auto"),
    ],
)  # fmt: skip
def test_compare(pair, kernels, frequencies, solver, centred, precision):
    given = tuple(z.astype(precision) for z in pair)
    found = compare(*given, kernels, k=K, frequencies=frequencies, solver=solver, centred=centred, device=GPU)
    wide = tuple(z.astype(np.float64) for z in given)
    assert_eigenpairs(found, oracle(wide, kernels, frequencies, centred), precision, K)


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("frequencies", [0, 500])
def test_memmaps_in_batches(pair, frequencies, memory, tmp_path):
    stored = []
    for name, z in zip("xy", pair, strict=True):
        np.save(tmp_path / f"{name}.npy", z.astype(np.float32))
        stored.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    options = {"k": K, "frequencies": frequencies, "memory": memory, "batch_size": 90, "solver": "krylov"}
    found = compare(*stored, KERNELS, device=GPU, **options)
    assert_eigenpairs(found, oracle([z.astype(np.float64) for z in stored], KERNELS, frequencies, 0), "float32", K)


def test_tensors_on_the_gpu_and_half_precision(pair):
    half = [z.astype(np.float16) for z in pair]
    there = [torch.from_numpy(z).to(GPU) for z in half]
    found = compare(*there, KERNELS, k=K)
    assert_eigenpairs(found, oracle([z.astype(np.float64) for z in half], KERNELS, 0, 0), "float32", K)


def test_equal_embeddings_have_no_cluster(pair):
    found = compare(pair[0], pair[0], (KERNELS[0], KERNELS[0]), device=GPU)
    assert [len(side) for side in found] == [0, 0]
    x = pair[0].astype(np.float32)
    matched = match_bandwidths(x, 10 * x + 1, device=GPU)
    assert [len(side) for side in compare(x, 10 * x + 1, matched, device=GPU)] == [0, 0]


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_bandwidths(pair, scale):
    """Also of rows so far out that products are measured in float64."""
    given = [(z * scale).astype(np.float32) for z in pair]
    given[1][:3] += 2_000
    here, there = (match_bandwidths(*given, device=device) for device in ("cpu", GPU))
    sigmas = [[found.kernel_x.sigma, found.kernel_y.sigma] for found in (here, there)]
    np.testing.assert_allclose(sigmas[1], sigmas[0], rtol=1e-4)
    np.testing.assert_allclose(there[2:], here[2:], atol=1e-5)
    assert abs(there.eigenvalue_x - there.eigenvalue_y) <= 0.01  # the contract


@pytest.mark.parametrize("frequencies", [0, 500])
@pytest.mark.parametrize("centred", [False, True])
def test_carry(pair, frequencies, centred):
    """To the old rows, where it gives the eigenvectors, and to new ones."""
    x, y = (z.astype(np.float32) for z in pair)
    found = compare(x, y, KERNELS, k=3, frequencies=frequencies, centred=centred, tol=1e-5, device=GPU)
    for side, scores in zip(found, carry(found, x, y, x, y, device=GPU), strict=True):
        np.testing.assert_allclose(scores, side.eigenvectors, atol=2e-4)
    new = x[:50] + 0.1, y[:50] - 0.1
    here, there = (carry(found, x, y, *new, device=device) for device in ("cpu", GPU))
    for a, b in zip(here, there, strict=True):
        assert np.abs(a).max() > 0.01
        np.testing.assert_allclose(b, a, atol=2e-5)


def test_surrogate(pair, monkeypatch):
    from spec_repro.agreement import surrogate

    x, y = (z.astype(np.float32) for z in pair)
    found = compare(x, y, KERNELS, k=3, device="cpu")
    there, null = surrogate(x, y, found, repeats=19, runs=0)
    monkeypatch.setattr(rows, "own_gpu", lambda: None)
    here, expected = surrogate(x, y, found, repeats=19, runs=0)
    np.testing.assert_allclose(null.spec_diffs, expected.spec_diffs, rtol=1e-4)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(b.p_values, a.p_values)
        assert b.beyond.any()


def test_probe():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from spec_repro.probe import linear_probe

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 40))
    y, y_new = rng.integers(6, size=2_000), rng.integers(6, size=500)
    x, x_new = ((centres[c] + 2 * rng.normal(size=(len(c), 40))).astype(np.float32) for c in (y, y_new))
    found = linear_probe(x, y, x_new, y_new, l2_grid=[1e-2], device=GPU)
    scaler = StandardScaler().fit(x.astype(float))
    model = LogisticRegression(C=1 / (len(x) * 1e-2), tol=1e-8, max_iter=5_000).fit(scaler.transform(x), y)
    scores = np.sort(model.decision_function(scaler.transform(x_new)), axis=1)
    clear = scores[:, -1] - scores[:, -2] > 0.01
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found.correct[clear], (model.predict(scaler.transform(x_new)) == y_new)[clear])
    assert 0.3 < found.accuracy < 0.99


MODELS = ["dinov2", "convnext", "swav", "inception", "clip", "clip-text", "bert", "roberta", "t5"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Load a small random model in the official format of a real one, or the real architecture at random."""
    pytest.importorskip("datasets")
    open_clip = pytest.importorskip("open_clip")
    import small_models

    from spec_repro import load_embedding

    root = tmp_path_factory.mktemp("models")
    open_clip.factory._MODEL_CONFIGS["small"] = small_models.CLIP | {"quick_gelu": False}

    def load(name):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            if name.startswith("clip"):
                small_models.clip(root / name, small_models.CLIP)
                tower = "text" if name == "clip-text" else "image"
                return load_embedding(f"open_clip:small/{root / name / 'open_clip_model.safetensors'}", tower=tower)
            getattr(small_models, name)(root / name)
        if name in ("swav", "inception", "dinov2"):
            return load_embedding(name, weights=root / name)
        return load_embedding(f"hf:{root / name}", pooling="mean", normalize=True) if name == "bert" else (
            load_embedding(f"hf:{root / name}")
        )  # fmt: skip

    yield load
    del open_clip.factory._MODEL_CONFIGS["small"]


@pytest.mark.parametrize("name", MODELS)
def test_embed(name, small, tmp_path):
    """In float16, T5 in bfloat16, and in float32 (convolutions in TF32, as torch has them), by loader processes too."""
    import small_models
    from datasets import Dataset

    from spec_repro import embed, load_data

    model, texts = small(name), small_models.TEXTS * 2
    words = Dataset.from_dict({"id": [f"row {i}" for i in range(len(texts))], "text": texts})
    dataset = words if model.modality == "text" else load_data("pictograms", n=12)
    options = {"root": tmp_path, "batch_size": 5}
    exact = embed(dataset, model, device="cpu", precision="float32", workers=0, **options)
    spread = np.linalg.norm(exact - exact.mean(axis=0))
    assert spread > 1e-3 * np.linalg.norm(exact)
    for precision, near in (("auto", 0.1 if name == "t5" else 0.03), ("float32", 0.01)):
        found = embed(dataset, model, device=GPU, precision=precision, workers=2, **options)
        assert found.dtype == np.float32
        assert np.linalg.norm(found - exact) < near * spread  # of what tells the samples apart


def aligned(out, **change):
    from align_support import Rows, card_of, reference_of, tiny_clip

    from spec_repro.align import AlignSettings, align

    options = {"device": change.pop("device", "auto"), "stop_after": change.pop("stop_after", None)}
    settings = AlignSettings(**{"batch_size": 32, "steps": 8, "lr": 1e-4, "weight": 0.5, "evaluate_every": 4, **change})
    clip, data = tiny_clip(), Rows(64)
    return clip, align(clip, data, reference_of(data), settings, out=out, card=card_of(clip), **options)


def moved(first, second):
    """The distance of the weights of two models, (p,)."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return torch.cat([(a.cpu() - b.cpu()).flatten() for a, b in pairs]).norm()


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_an_interrupted_alignment_goes_on(precision, tmp_path):
    """Its weights are those of an uninterrupted one, to the rounding of atomics; those of other rows are far away."""
    for module in ("open_clip", "accelerate", "datasets"):
        pytest.importorskip(module)
    start, whole = aligned(tmp_path / "whole", precision=precision)
    _, half = aligned(tmp_path / "halves", precision=precision, stop_after=4)
    assert half.metrics["step"].max() == 3
    _, halves = aligned(tmp_path / "halves", precision=precision)
    _, other = aligned(tmp_path / "other", precision=precision, seed=1)
    way = moved(start, whole.model)
    assert next(whole.model.parameters()).device.type == GPU
    assert moved(whole.model, halves.model) < 0.02 * way
    assert moved(whole.model, other.model) > 0.2 * way
    np.testing.assert_allclose(halves.metrics["total"], whole.metrics["total"], rtol=1e-3)
    if precision == "no":
        _, here = aligned(tmp_path / "cpu", device="cpu")
        np.testing.assert_allclose(whole.metrics["spec_diff"], here.metrics["spec_diff"], rtol=1e-2)
        np.testing.assert_allclose(whole.metrics["contrastive"], here.metrics["contrastive"], rtol=1e-2)


def test_the_scaler_is_part_of_the_checkpoint(tmp_path):
    for module in ("open_clip", "accelerate", "datasets"):
        pytest.importorskip(module)
    from align_support import history_of

    aligned(tmp_path, precision="fp16", stop_after=4)
    assert history_of(tmp_path)["scaler"]["scale"] >= 1
    assert history_of(tmp_path)["scaler"]["_growth_tracker"] + history_of(tmp_path)["scaler"]["scale"] != 2.0**16
