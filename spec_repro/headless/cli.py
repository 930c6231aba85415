"""Command line: ``python -m spec_repro list | doctor | run NAME... | check | report | compare | embed | align``.

The last three run in one process or in those that ``torchrun`` starts::

    python -m spec_repro compare a.npy b.npy --frequencies 3000 --out found.npz
    torchrun --nproc-per-node 4 -m spec_repro compare clip dinov2 --data imagenet --frequencies 3000
    torchrun --nproc-per-node 4 -m spec_repro embed clip dinov2 --data imagenet
    torchrun --nproc-per-node 4 -m spec_repro align open_clip:ViT-B-32/laion2b_e16 --data coco-captions \\
        --reference dinov2 --out data/runs/mine -p batch_size=128
"""

import ast
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np

from spec_repro.base.errors import InvalidInput, ParameterError, SpecError
from spec_repro.base.files import atomic_path
from spec_repro.headless.experiments import PROFILES, find_experiment, load_experiments, the_paper
from spec_repro.headless.notebooks import lines_with


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if all went well, 1 if a notebook failed or a verdict changed, 2 for a wrong request."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.command(options) or 0
    except SpecError as error:
        print(f"spec_repro: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("spec_repro: interrupted; finished results are whole", file=sys.stderr)
        return 130


def _parser() -> ArgumentParser:
    about = "Run, check and report the experiments; compare, embed and align on one process or several."
    parser = ArgumentParser(prog="python -m spec_repro", description=about)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (_list, _doctor, _run, _check, _report, _compare, _embed, _align):
        name = command.__name__[1:]
        sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        if name in ("run", "check", "report"):
            sub.add_argument("--profile", choices=PROFILES, default="mini")
        if name in ("compare", "embed", "align"):
            sub.add_argument(
                "--data", required=name != "compare", metavar="NAME", help="data set, as load_data takes it"
            )
            sub.add_argument("--n", type=int, help="number of its samples; all by default")
            sub.add_argument("--split", help="part of it")
        if name in ("compare", "embed"):
            sub.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
        for flags, more in ARGUMENTS.get(name, {}).items():
            sub.add_argument(*flags.split(), **more)
    return parser


ARGUMENTS = {
    "run": {
        "names": {"nargs": "*", "metavar": "NAME", "help": "experiments by name or alias; all if none"},
        "-p": {"dest": "overrides", "action": "append", "default": [], "metavar": "NAME=VALUE"},
        "--jobs": {"type": int, "default": 1, "help": "notebooks at a time"},
        "--force": {"action": "store_true", "help": "run what is current, too"},
        "--save-outputs": {"action": "store_true", "help": "store the outputs in notebooks/"},
    },
    "compare": {
        "x": {"help": "file of vectors (.npy, .npz, .safetensors); with --data also the name of an embedding"},
        "y": {"help": "the same, of the same samples in the same order"},
        "--kernel": {"choices": ("gaussian", "cosine"), "default": "gaussian"},
        "--sigma": {"type": float, "nargs": 2, "metavar": ("X", "Y"), "help": "bandwidths; matched by default"},
        "--frequencies": {"type": int, "default": 0, "metavar": "M", "help": "random Fourier frequencies; 0: exact"},
        "-k": {"type": int, "default": 10, "help": "clusters of each direction"},
        "--top": {"type": int, "default": 9, "help": "members to print of each cluster"},
        "--solver": {"choices": ("auto", "covariance", "krylov", "dense"), "default": "auto"},
        "--seed": {"type": int, "default": 0},
        "--noise-floor": {"action": "store_true", "help": "what the random features alone contribute"},
        "--batch-size": {"type": int, "help": "rows of one product"},
        "--memory": {"type": float, "metavar": "GB", "help": "for features or a kernel matrix; a quarter by default"},
        "--out": {"metavar": "FILE.npz", "help": "eigenvalues, eigenvectors, residuals and margins of both sides"},
    },
    "embed": {"names": {"nargs": "+", "metavar": "EMBEDDING"}},
    "align": {
        "model": {"help": "mini-clip, or open_clip:MODEL/TAG-or-PATH"},
        "--reference": {"required": True, "metavar": "EMBEDDING", "help": "the embedding to align to"},
        "--text": {"default": "caption", "help": "column with the texts"},
        "--out": {"required": True, "metavar": "FOLDER", "help": "of the run; the same call resumes there"},
        "-p": {"dest": "settings", "action": "append", "default": [], "metavar": "NAME=VALUE",
               "help": "of AlignSettings; Table 1 by default"},
    },
}  # fmt: skip


def _list(options: Namespace) -> None:
    """names and aliases, the notebook, its YAML and the lines that draw, and what each profile needs"""
    for item in load_experiments().values():
        print(f"{', '.join([item.name, *item.aliases])}: {item.title} ({item.reference})")
        for path in (item.path, item.path.with_suffix(".yml")):
            print(f"    {path.parent.name}/{path.name}")
        for cell, line in lines_with("record.figure(", item.path):
            print(f"    cell {cell}: {line}")
        for profile, card in item.cards.items():
            print(f"    {profile}: {card.data}; {card.models}; {card.device}, {card.minutes:g} min, {card.memory}")
    for entry in the_paper()["not recoverable"]:
        if "target" in entry:
            print(f"{entry['target']}: {entry['what']} is not recoverable. {entry['why']}")


def _doctor(options: Namespace) -> None:
    """which data sets and models are here, and how to get the others"""
    from spec_repro.headless import doctor

    print(doctor.report())


def _run(options: Namespace) -> int:
    """execute notebooks headlessly and write results/PROFILE/NAME"""
    from spec_repro.headless import runner

    every = [item for item in load_experiments().values() if options.profile in item.cards]
    chosen = {item.name: item for item in [find_experiment(name) for name in options.names] or every}
    plans = [runner.plan(item, options.profile, options.overrides) for item in chosen.values()]
    outcomes = runner.run(plans, jobs=options.jobs, force=options.force, save_outputs=options.save_outputs)
    failed = [outcome.name for outcome in outcomes if outcome.status == "failed"]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _check(options: Namespace) -> int:
    """compare results/PROFILE with the committed copy; fails if a verdict changed"""
    from spec_repro.headless import drift

    moved = drift.compare_with_committed(options.profile)
    print("\n".join(moved.lines or ["nothing moved"]))
    return int(moved.verdict_changed)


def _report(options: Namespace) -> None:
    """write results/PROFILE/REPORT.md and report.html"""
    from spec_repro.headless import report

    print(report.write_report(options.profile))


def _compare(options: Namespace) -> None:
    """clusters of samples that one embedding sees and the other does not"""
    from spec_repro import Cosine, Gaussian, compare, embed, match_bandwidths
    from spec_repro.base.processes import launched
    from spec_repro.embeddings.arrays import stored_array

    names, ids = (options.x, options.y), None
    if options.data is not None:
        dataset = _dataset(options)
        ids = dataset["id"]
        arrays = [embed(dataset, name, device=options.device) for name in names]
    elif options.n is not None or options.split is not None:
        raise InvalidInput("--n and --split choose samples of a data set; give --data too, or leave them out.")
    else:
        arrays = [stored_array(name.removeprefix("file:")).array for name in names]
    if options.kernel == "cosine":
        kernels = Cosine(), Cosine()
    elif options.sigma:
        kernels = tuple(map(Gaussian, options.sigma))
    else:
        kernels = match_bandwidths(*arrays, device=options.device, seed=options.seed)
    given = ("k", "frequencies", "solver", "device", "batch_size", "seed", "noise_floor")
    settings = {name: getattr(options, name) for name in given}
    settings["memory"] = None if options.memory is None else int(options.memory * 2**30)
    with launched() as processes:
        found = compare(*arrays, kernels, names=[Path(name).stem for name in names], processes=processes, **settings)
    if _first():
        _show(found, options, ids)


def _show(found, options: Namespace, ids) -> None:
    """Print the comparison and the first members of each cluster, and keep what ``--out`` asks for."""
    print(found)
    print(f"{found.settings['kernel_x']}, {found.settings['kernel_y']}")
    for side in found:
        print(f"\n{side.name}: eigenvalue and first members of each cluster")
        for j, row in enumerate(side.top(min(options.top, len(side.eigenvectors)))):
            members = " ".join(str(i) if ids is None else str(ids[int(i)]) for i in row)
            print(f"{j + 1:3}  {side.eigenvalues[j]:.4f}{' (two-sided)' * bool(side.two_sided[j])}  {members}")
    if options.out:
        parts = ("eigenvalues", "eigenvectors", "residuals", "margin")
        sides = {"x_only": found.x_only, "y_only": found.y_only}
        arrays = {f"{name}_{part}": getattr(side, part) for name, side in sides.items() for part in parts}
        with atomic_path(options.out) as path, open(path, "wb") as file:
            np.savez(file, spec_diff=found.spec_diff, **arrays)
        print(f"\n{options.out}")


def _embed(options: Namespace) -> None:
    """vectors of a data set, cached; prints the file of each embedding"""
    from spec_repro import embed

    dataset = _dataset(options)
    for name in options.names:
        vectors = embed(dataset, name, device=options.device)
        if _first():
            print(f"{name}: {len(vectors):,} x {vectors.shape[1]}, {getattr(vectors, 'filename', 'in memory')}")


def _align(options: Namespace) -> None:
    """fine-tune a CLIP towards another embedding by SPEC-diff"""
    from spec_repro import embed
    from spec_repro.align import AlignSettings, ImageTexts, Reference, align, trainable_clip

    settings = AlignSettings.of(dict(map(_setting, options.settings)))
    dataset = _dataset(options)
    clip = trainable_clip(options.model)
    rows = ImageTexts(dataset, clip.prepare, clip.tokenize, text=options.text)
    goal = Reference(rows.ids, embed(dataset, options.reference))
    run = align(clip.model, rows, goal, settings, out=options.out, card=clip.card)
    if _first():
        print(run.weights)


def _setting(given: str) -> tuple[str, object]:
    name, _, value = given.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError) as error:
        raise ParameterError(f"-p {given}: expected NAME=LITERAL, such as lr=1e-5 or tower='text'.") from error


def _dataset(options: Namespace):
    from spec_repro import load_data

    return load_data(options.data, n=options.n, split=options.split)


def _first() -> bool:
    """Whether this is the first of the processes that ``torchrun`` started, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0
