"""The bar of a pass: none for a short one, with the rest to do for a long one, closed where the pass is left."""

import numpy as np
import pytest
import tqdm.auto
from spec_repro.base.progress import Progress

from spec_repro import Gaussian, compare


@pytest.fixture
def bars(monkeypatch):
    made = []

    class Bar:
        def __init__(self, total, initial, desc, **look):
            self.total, self.n, self.desc, self.closed = total, initial, desc, False
            made.append(self)

        def update(self, count):
            self.n += count

        def close(self):
            self.closed = True

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    monkeypatch.delenv("SPEC_PROGRESS", raising=False)
    return made


def run(rows=600):
    x = np.random.default_rng(0).normal(size=(rows, 5))
    return compare(x, x[:, :3] + x[:, 2:], kernel_x=Gaussian(2.0), kernel_y=Gaussian(2.0), features=20, batch_size=100)


def test_short_passes_make_no_bar(bars):
    run()
    assert bars == []


def test_long_passes_show_what_is_done_and_what_is_left(bars, monkeypatch):
    monkeypatch.setattr(Progress, "DELAY", 0.0)
    run()
    assert bars
    assert all((bar.n, bar.total, bar.closed) == (600, 600, True) for bar in bars)
    assert [bar.desc.split(", pass ")[1] for bar in bars] == [str(i + 1) for i in range(len(bars))]


def test_the_switch_silences(bars, monkeypatch):
    monkeypatch.setattr(Progress, "DELAY", 0.0)
    monkeypatch.setenv("SPEC_PROGRESS", "0")
    run()
    assert bars == []


def test_a_pass_that_is_left_closes_its_bar(bars, monkeypatch):
    monkeypatch.setattr(Progress, "DELAY", 0.0)

    def interrupted():
        with Progress(10, "pass") as bar:
            bar.update(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(bar.n, bar.closed) for bar in bars] == [(3, True)]
