"""Inputs of the benchmarks: clusters that SPEC finds in a few passes, and a spectrum that decays slowly."""

from pathlib import Path

import numpy as np
import torch


def planted_centres(d: int, seed: int, groups: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(groups, d)).astype(np.float32)


def planted(n: int, d: int, seed: int, start: int = 0, groups: int = 12) -> np.ndarray:
    """``(n, d)`` float32 rows around group centres of unequal frequency (ratio 0.85); ``start`` tells slices apart."""
    centres = planted_centres(d, seed, groups)
    rng = np.random.default_rng([seed, start])
    share = 0.85 ** np.arange(groups)
    group = rng.choice(groups, size=n, p=share / share.sum())
    return centres[group] + 0.5 * rng.standard_normal((n, d), dtype=np.float32)


def hard(n: int, d: int, seed: int, start: int = 0) -> np.ndarray:
    """``(n, d)`` float32 rows of a Gaussian with power-law covariance, eigenvalue j of size 1/j: no gap anywhere."""
    rows = np.random.default_rng([seed, start]).standard_normal((n, d), dtype=np.float32)
    return rows * np.arange(1, d + 1, dtype=np.float32) ** -0.5


MAKERS = {"planted": planted, "hard": hard}
SPECTRA = tuple(MAKERS)


def pair(spectrum: str, n: int, dims: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two embeddings of n samples; ``spectrum`` is one of ``SPECTRA``."""
    x, y = (MAKERS[spectrum](n, d, seed) for seed, d in enumerate(dims, start=1))
    return x, y


def partly(n: int, dims: tuple[int, int], lost: tuple[int, ...] = (0, 2, 3, 5, 7, 8, 10)) -> list[np.ndarray]:
    """Two embeddings of twelve groups, of which the second scatters seven: these are real for x, none for y."""
    share = 0.85 ** np.arange(12)
    group = np.random.default_rng(0).choice(12, size=n, p=share / share.sum())
    found = []
    for seed, d in enumerate(dims, start=1):
        centres, rng = planted_centres(d, seed), np.random.default_rng([seed, 0])
        rows = centres[group] + 0.5 * rng.standard_normal((n, d), dtype=np.float32)
        found.append(rows)
    scattered = np.isin(group, lost)
    found[1][scattered] = 1.1 * rng.standard_normal((scattered.sum(), dims[1]), dtype=np.float32)
    return found


def drawn_on(device: torch.device, n: int, d: int, seed: int, start: int) -> np.ndarray:
    """Rows like those of ``planted``, drawn by a device: thirty times as fast by a GPU."""
    generator = torch.Generator(device).manual_seed(1_000_003 * seed + start)
    centres = planted_centres(d, seed)
    share = 0.85 ** torch.arange(len(centres), device=device)
    group = torch.multinomial(share, n, replacement=True, generator=generator)
    noise = torch.randn(n, d, device=device, generator=generator)
    return torch.from_numpy(centres).to(device)[group].add_(noise, alpha=0.5).cpu().numpy()


def on_disk(
    folder: Path, spectrum: str, n: int, dims: tuple[int, int], device: torch.device | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The same as read-only memmaps below ``folder``, written in slices and kept for the next call.

    With a ``device`` planted rows are drawn there.
    """
    found = []
    for seed, d in enumerate(dims, start=1):
        path = folder / f"{device.type if device else spectrum}-{n}-{d}-{seed}.npy"
        if not path.is_file():
            out = np.lib.format.open_memmap(path.with_suffix(".part"), "w+", np.float32, (n, d))
            for start in range(0, n, 10_000):
                rows = min(10_000, n - start)
                place = rows, d, seed, start
                out[start : start + rows] = drawn_on(device, *place) if device else MAKERS[spectrum](*place)
            out.flush()
            path.with_suffix(".part").rename(path)
        found.append(np.load(path, mmap_mode="r"))
    return found[0], found[1]
