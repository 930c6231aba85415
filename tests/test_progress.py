"""The bar of a pass: the rows left and done, closed when the pass ends or is left; none off a terminal."""

import contextlib
import sys

import numpy as np
import pytest
import tqdm

from spec_repro import Gaussian, compare
from spec_repro.base.rows import progress


@pytest.fixture
def bars(monkeypatch):
    made = []

    class Bar(contextlib.AbstractContextManager):
        def __init__(self, total, desc, **look):
            self.total, self.desc, self.look, self.n, self.closed = total, desc, look, 0, False
            made.append(self)

        def update(self, count):
            self.n += count

        def __exit__(self, *problem):
            self.closed = True

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    return made


def run(rows=600):
    x = np.random.default_rng(0).normal(size=(rows, 5))
    kernels = Gaussian(2.0), Gaussian(2.0)
    return compare(x, x[:, :3] + x[:, 2:], kernels, frequencies=20, batch_size=100)


def test_each_pass_has_a_bar_over_all_rows(bars):
    run()
    assert bars
    assert all((bar.n, bar.total, bar.closed) == (600, 600, True) for bar in bars)
    assert [bar.desc.split(", pass ")[1] for bar in bars] == [str(i + 1) for i in range(len(bars))]
    assert all(bar.look["delay"] == 2 for bar in bars)  # short passes show nothing
    assert all(bar.look["disable"] is None for bar in bars)  # tqdm's word for: silent off a terminal


def test_only_the_first_process_shows_a_bar(bars):
    progress(10, "pass", silent=True)
    assert bars[0].look["disable"] is True


def test_nothing_is_shown_off_a_terminal(capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with progress(10, "pass") as bar:
        assert bar.disable
        bar.update(3)
    assert capsys.readouterr() == ("", "")


def test_the_core_runs_without_tqdm(monkeypatch):
    expected = run()
    monkeypatch.setitem(sys.modules, "tqdm", None)  # its import fails
    np.testing.assert_array_equal(run().x_only.eigenvectors, expected.x_only.eigenvectors)


def test_a_pass_that_is_left_closes_its_bar(bars):
    def interrupted():
        with progress(10, "pass") as bar:
            bar.update(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(bar.n, bar.closed) for bar in bars] == [(3, True)]
