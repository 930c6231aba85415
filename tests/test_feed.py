"""Batches on their way to a device: all rows once and in order, the next one asked for before the last one is used."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import assert_eigenpairs, difference, planted

from spec_repro import Gaussian, compare
from spec_repro.base import rows as room
from spec_repro.base.rows import _double_buffered, as_rows, feed, slices

X = np.arange(46.0).reshape(23, 2)
Y = np.arange(69.0, dtype="float32").reshape(23, 3)
CPU = torch.device("cpu")


@pytest.fixture
def pretended(monkeypatch):
    """Streams, events and pinned memory that do nothing but tell what was asked of them."""
    told = []
    stream = SimpleNamespace(
        record_event=lambda: "copied",
        wait_event=lambda event: told.append(("wait", event)),
        wait_stream=lambda other: told.append(("after", other is stream)),
    )
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda part: told.append(("pin", len(part))) or part)
    monkeypatch.setattr(room, "page_locked", lambda shape, dtype: torch.full(shape, torch.nan, dtype=dtype))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda part, stream: told.append(("keep", len(part))))
    return told


def batches(found):
    return [(rows, [part.numpy().copy() for part in parts]) for rows, parts in found]


@pytest.mark.parametrize("size", [1, 10, 23, 100])
def test_double_buffering_gives_the_batches_of_plain_reading(pretended, size):
    stored = torch.from_numpy(X), Y.astype(np.float16)[::-1][::-1], np.asfortranarray(Y)
    sources = [as_rows(X, "x"), as_rows(Y, "y"), *(as_rows(z, "z") for z in stored)]
    plain = batches(feed(sources, size, CPU, torch.float32))
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(3) as copiers:
        buffered = batches(_double_buffered(reader, copiers, sources, slices(23, size), CPU, torch.float32))
    assert [rows for rows, _ in buffered] == [rows for rows, _ in plain]
    for (_, found), (_, expected) in zip(buffered, plain, strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == np.float32
    assert np.concatenate([parts[0] for _, parts in buffered]).tolist() == X.tolist()
    assert pretended.count(("wait", "copied")) == len(plain)


def test_the_next_batch_is_on_its_way_before_one_is_used(pretended):
    sources = [as_rows(X, "x"), as_rows(Y, "y")]
    asked = []

    def submit(read, rows):
        asked.append(rows.start)
        return SimpleNamespace(result=lambda: read(rows))

    copiers = SimpleNamespace(map=map)
    found = _double_buffered(SimpleNamespace(submit=submit), copiers, sources, slices(23, 10), CPU, torch.float32)
    assert next(found)[0] == slice(0, 10)
    assert asked == [0, 10]
    assert next(found)[0] == slice(10, 20)
    assert asked == [0, 10, 20]
    assert [rows for rows, _ in found] == [slice(20, 23)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("frequencies", [0, 300])
def test_a_gpu_gives_what_the_cpu_gives(memory, frequencies):
    x, y = (planted(2_000, d, split=(s,), seed=s)[0].astype("float32") for d, s in ((30, 1), (20, 3)))
    kernels = {"kernel_x": Gaussian(2.0), "kernel_y": Gaussian(3.0)}
    options = {"frequencies": frequencies, "memory": memory, "batch_size": 300, "solver": "krylov", "k": 5, **kernels}
    here, there = (compare(x, y, device=device, **options) for device in ("cpu", "cuda"))
    for a, b in ((here.x_only, there.x_only), (here.y_only, there.y_only)):
        np.testing.assert_allclose(b.eigenvalues, a.eigenvalues, atol=1e-5 * here.spec_diff)
    if not frequencies:
        assert_eigenpairs(there, difference(x, y, *kernels.values()), "float32", 5)
