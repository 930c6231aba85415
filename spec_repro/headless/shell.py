"""``compare``, ``embed`` and ``align`` from the shell, in one process or in those that ``torchrun`` starts::

    python -m spec_repro compare a.npy b.npy --features 3000 --out found.npz
    python -m spec_repro compare clip dinov2 --data imagenet --features 3000
    torchrun --nproc-per-node 4 -m spec_repro compare clip dinov2 --data imagenet --features 3000
    torchrun --nproc-per-node 4 -m spec_repro embed clip dinov2 --data imagenet
    torchrun --nproc-per-node 4 -m spec_repro align open_clip:ViT-B-32/laion2b_e16 --data coco-captions \\
        --reference dinov2 --out data/runs/mine -p batch_size=128
"""

import ast
import os
from argparse import ArgumentParser
from collections.abc import Sequence

import numpy as np

from spec_repro.base.errors import InvalidInput, ParameterError
from spec_repro.base.files import atomic_path
from spec_repro.base.processes import launched

__all__ = ["add_commands"]


def add_commands(commands) -> None:
    """The three commands, added to the subparsers of ``python -m spec_repro``."""
    for name, command in {"compare": _compare, "embed": _embed, "align": _align}.items():
        sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        if name == "compare":
            _compare_arguments(sub)
        elif name == "embed":
            sub.add_argument("names", nargs="+", metavar="EMBEDDING")
        else:
            sub.add_argument("model", help="mini-clip, or open_clip:MODEL/TAG-or-PATH")
            sub.add_argument("--reference", required=True, metavar="EMBEDDING", help="the embedding to align to")
            sub.add_argument("--text", default="caption", help="column with the texts")
            sub.add_argument("--out", required=True, metavar="FOLDER", help="of the run; the same call goes on there")
            sub.add_argument("-p", dest="settings", action="append", default=[], metavar="NAME=VALUE",
                             help="of AlignSettings; Table 1 by default")  # fmt: skip
        sub.add_argument("--data", required=name != "compare", metavar="NAME", help="data set, as load_data takes it")
        sub.add_argument("--n", type=int, help="number of its samples; all by default")
        sub.add_argument("--split", help="part of it")
        if name != "align":
            sub.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")


def _compare_arguments(sub: ArgumentParser) -> None:
    sub.add_argument("x", help="file of vectors (.npy, .npz, .safetensors); with --data also the name of an embedding")
    sub.add_argument("y", help="the same, of the same samples in the same order")
    sub.add_argument("--kernel", choices=("gaussian", "cosine"), default="gaussian")
    sub.add_argument("--sigma", type=float, nargs=2, metavar=("X", "Y"), help="bandwidths; matched by default")
    sub.add_argument("--features", type=int, metavar="M", help="random Fourier frequencies; exact kernels by default")
    sub.add_argument("-k", type=int, default=10, help="groups of each direction")
    sub.add_argument("--top", type=int, default=9, help="members to print of each group")
    sub.add_argument("--solver", choices=("auto", "covariance", "krylov", "dense"), default="auto")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--noise-floor", action="store_true", help="what the random features alone contribute")
    sub.add_argument("--batch-size", type=int, help="rows of one product")
    sub.add_argument("--memory", type=float, metavar="GB", help="for features or a kernel matrix; a quarter by default")
    sub.add_argument("--out", metavar="FILE.npz", help="eigenvalues, eigenvectors, residuals and margins of both sides")


def _compare(options) -> int:
    """groups of samples that one embedding sees and the other does not"""
    from spec_repro import Cosine, Gaussian, compare, match_bandwidths

    ids, arrays = _vectors(options)
    if options.kernel == "cosine":
        kernels = Cosine(), Cosine()
    elif options.sigma:
        kernels = tuple(map(Gaussian, options.sigma))
    else:
        kernels = match_bandwidths(*arrays, device=options.device, seed=options.seed)[:2]
    with launched() as processes:
        found = compare(
            *arrays,
            kernel_x=kernels[0],
            kernel_y=kernels[1],
            k=options.k,
            frequencies=options.features or 0,
            solver=options.solver,
            device=options.device,
            batch_size=options.batch_size,
            seed=options.seed,
            noise_floor=options.noise_floor,
            memory=None if options.memory is None else int(options.memory * 2**30),
            processes=processes,
        )
        if processes.rank == 0:
            _tell(found, options, ids)
            if options.out:
                _save(found, options.out)
    return 0


def _vectors(options) -> tuple[Sequence | None, list[np.ndarray]]:
    """The ids of the samples, where they have any, and the vectors of both sides."""
    if options.data is not None:
        dataset = _dataset(options)
        return dataset["id"], [_embedded(dataset, name, options) for name in (options.x, options.y)]
    if options.n is not None or options.split is not None:
        raise InvalidInput("--n and --split choose samples of a data set; give --data too, or leave them out.")
    from spec_repro.embeddings.arrays import stored_array

    return None, [stored_array(name.removeprefix("file:")).array for name in (options.x, options.y)]


def _tell(found, options, ids: Sequence | None) -> None:
    floor = "" if found.noise_floor is None else f", noise floor {found.noise_floor:.4f}"
    print(f"SPEC-diff {found.spec_diff:.4f}{floor} ({found.settings['n']:,} samples, {found.solver})")
    for name, kernel in ((options.x, "kernel_x"), (options.y, "kernel_y")):
        print(f"{name}: {found.settings[kernel]}")
    for side, names in ((found.x_only, (options.x, options.y)), (found.y_only, (options.y, options.x))):
        print(f"\n{names[0]} - {names[1]}: eigenvalue and first members of each group")
        members = side.top(min(options.top, len(side.eigenvectors)))
        for j, row in enumerate(members):
            marks = " (two-sided)" if side.two_sided[j] else ""
            shown = [str(i) if ids is None else str(ids[int(i)]) for i in row]
            print(f"{j + 1:3}  {side.eigenvalues[j]:.4f}{marks}  {' '.join(shown)}")


def _save(found, path: str) -> None:
    arrays = {"spec_diff": found.spec_diff}
    for name, side in (("x_only", found.x_only), ("y_only", found.y_only)):
        for part in ("eigenvalues", "eigenvectors", "residuals", "margin"):
            arrays[f"{name}_{part}"] = getattr(side, part)
    with atomic_path(path) as room, open(room, "wb") as file:
        np.savez(file, **arrays)
    print(f"\n{path}")


def _embed(options) -> int:
    """vectors of a data set, cached; prints the file of each embedding"""
    dataset = _dataset(options)
    for name in options.names:
        vectors = _embedded(dataset, name, options)
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"{name}: {len(vectors):,} x {vectors.shape[1]}, {getattr(vectors, 'filename', 'in memory')}")
    return 0


def _align(options) -> int:
    """fine-tune a CLIP towards another embedding by SPEC-diff"""
    from spec_repro import embed, load_embedding
    from spec_repro.align import AlignSettings, ImageTexts, Reference, align, trainable_clip

    settings = AlignSettings.of(dict(map(_setting, options.settings)))
    dataset = _dataset(options)
    clip = trainable_clip(options.model)
    rows = ImageTexts(dataset, clip.prepare, clip.tokenize, text=options.text)
    goal = Reference(rows.ids, embed(dataset, load_embedding(options.reference)))
    run = align(clip.model, rows, goal, settings, out=options.out, card=clip.card)
    if int(os.environ.get("RANK", 0)) == 0:
        print(run.weights)
    return 0


def _setting(given: str) -> tuple[str, object]:
    name, _, value = given.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError) as error:
        raise ParameterError(f"-p {given}: expected NAME=LITERAL, such as lr=1e-5 or tower='text'.") from error


def _dataset(options):
    from spec_repro import load_data

    return load_data(options.data, n=options.n, split=options.split)


def _embedded(dataset, name: str, options) -> np.ndarray:
    from spec_repro import embed, load_embedding

    return embed(dataset, load_embedding(name), device=options.device)
