"""``spec-repro compare``: two embeddings, of files or of a data set, from the shell."""

import contextlib
import os
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
from datasets import Dataset

import spec_repro
from spec_repro.base.content import regular
from spec_repro.base.errors import InvalidInput
from spec_repro.base.files import atomic_path, given_path
from spec_repro.base.processes import launched, world
from spec_repro.embeddings.arrays import joined
from spec_repro.headless.notebooks import parse_overrides

OWN = {"kernel_x", "kernel_y", "names", "device", "processes"}  # arguments that are not given by -p


def compare_and_tell(options: Namespace, load: Callable[[], Dataset]) -> None:
    """Print the clusters of both directions, and keep the result if ``options`` name a file for it.

    load: gives the data set that ``options`` name, if they name one.
    """
    declared = {**spec_repro.match_bandwidths.__kwdefaults__, **spec_repro.compare.__kwdefaults__}
    settings = parse_overrides({name: declared[name] for name in declared.keys() - OWN}, options.settings, "compare")
    first = world()[0] == 0
    keeps = first and options.out is not None
    with _kept(options.out, (options.x, options.y)) if keeps else contextlib.nullcontext() as file:
        found, ids = _found(options, settings, load)
        if file:
            parts = ("eigenvalues", "eigenvectors", "residuals", "margin", "resolved")
            arrays = {f"{side.key}_{part}": getattr(side, part) for side in found for part in parts}
            arrays |= {} if ids is None else {"ids": np.array(ids, dtype=str)}
            np.savez(file, spec_diff=found.spec_diff, **arrays)
    if not first:
        return
    print(f"{found.summary}\n{found.settings['kernel_x']}, {found.settings['kernel_y']}")
    for side in found:
        print(f"\n{side.name}: eigenvalue and first members of each cluster")
        for j, row in enumerate(side.top(min(options.top, len(side.eigenvectors)))):
            words = [str(i if ids is None else ids[int(i)]) for i in row]
            members = " ".join(word if word.isprintable() else repr(word) for word in words)
            print(f"{j + 1:3}  {side.eigenvalues[j]:.4f}{side.marks(j)}  {members}")


@contextlib.contextmanager
def _kept(out: str, inputs: tuple[str, str]) -> Iterator[BinaryIO]:
    """The file for the result, open before anything is computed. Nothing is replaced but an older result."""
    path = given_path(out)
    named = [given_path(re.sub(end, "", name)) for name in inputs for end in ("^file:", r"^file:|:[^:/\\]+$")]
    if any(each.exists() and path.exists() and path.samefile(each) for each in named):
        raise InvalidInput(f"--out {out} is a file that is compared; give the result another name.")
    if out.endswith(("/", os.sep)) or (os.path.lexists(path) and not _is_result(path)):
        raise InvalidInput(f"--out {out} is not a result of compare, and stays; give the name of a new file.")
    with atomic_path(path) as staged, open(staged, "wb") as file:
        yield file


def _is_result(path) -> bool:
    with contextlib.suppress(Exception), zipfile.ZipFile(regular(path)) as archive:
        return "spec_diff.npy" in archive.namelist()
    return False


def _found(options: Namespace, settings: dict, load: Callable[[], Dataset]):
    """The comparison, and the ids of its samples if they have any."""
    matched = spec_repro.match_bandwidths.__kwdefaults__.keys() - OWN - {"seed"}
    matching = {name: settings.pop(name) for name in matched & settings.keys()}
    if options.kernels and matching:
        raise InvalidInput(f"--kernels leaves nothing to match: leave out {', '.join(matching)}.")
    if options.data or options.n is not None or options.split:
        dataset, names = load(), [options.x, options.y]
        look = {"device": options.device, "on_error": options.on_error}
        arrays = [spec_repro.embed(dataset, name, **look) for name in names]
        ids = np.array(dataset["id"][:])
        if options.on_error == "skip":
            kept = ~np.isnan([array[:, 0] for array in arrays]).any(axis=0)
            ids, arrays = ids[kept], [array[kept] for array in arrays]
    else:
        names, arrays, ids = joined((options.x, options.y))
    seed = settings.get("seed", 0)
    kernels = options.kernels or spec_repro.match_bandwidths(*arrays, device=options.device, seed=seed, **matching)
    with launched() as processes:
        settings |= {"device": options.device, "names": names, "processes": processes}
        return spec_repro.compare(*arrays, kernels, **settings), ids
