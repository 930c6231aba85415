"""Command line: ``python -m spec_repro list | doctor | run NAME... | check | report | compare | embed | align``.

The last three run in one process or in those that ``torchrun`` starts::

    python -m spec_repro compare a.npy b.npy -p frequencies=3000 --out found.npz
    torchrun --nproc-per-node 4 -m spec_repro compare clip dinov2 --data imagenet -p frequencies=3000
    torchrun --nproc-per-node 4 -m spec_repro embed clip dinov2 --data imagenet
    torchrun --nproc-per-node 4 -m spec_repro align open_clip:ViT-B-32/laion2b_e16 --data coco-captions \\
        --reference dinov2 --out data/runs/mine -p batch_size=128
"""

import os
import signal
import sys
from argparse import ArgumentParser, Namespace

import numpy as np

from spec_repro import Cosine, Gaussian, compare, match_bandwidths
from spec_repro.base.errors import InvalidInput, SpecError
from spec_repro.base.files import atomic_path
from spec_repro.headless.experiments import PROFILES, find_experiment, load_experiments, the_paper
from spec_repro.headless.notebooks import lines_with, parse_overrides

SETTINGS = "NAME=VALUE: a parameter of the notebook, an argument of compare(), or a field of AlignSettings"
OWN = {"kernel_x", "kernel_y", "names", "device", "processes"}  # arguments of compare() that are not given by -p


def kernel(text: str) -> Cosine | Gaussian:
    """``cosine``, or a Gaussian kernel by its bandwidth."""
    return Cosine() if text == "cosine" else Gaussian(float(text))


ARGUMENTS = (
    ("run check report", "--profile", {"choices": PROFILES, "default": "mini"}),
    ("run", "names", {"nargs": "*", "metavar": "NAME", "help": "experiments by name or alias; all if none"}),
    ("run", "--jobs", {"type": int, "default": 1, "help": "notebooks at a time"}),
    ("run", "--force", {"action": "store_true", "help": "run what is current, too"}),
    ("run", "--save-outputs", {"action": "store_true", "help": "store the outputs in notebooks/"}),
    ("compare", "x", {"help": "file of vectors (.npy, .npz, .safetensors); with --data also the name of an embedding"}),
    ("compare", "y", {"help": "the same, of the same samples in the same order"}),
    ("compare", "--kernels", {"nargs": 2, "type": kernel, "help": "bandwidths, or cosine; matched by default"}),
    ("compare", "--top", {"type": int, "default": 9, "help": "members to print of each cluster"}),
    ("compare", "--out", {"metavar": "FILE.npz", "help": "eigenpairs, residuals and margins of both directions"}),
    ("embed", "names", {"nargs": "+", "metavar": "EMBEDDING"}),
    ("align", "model", {"help": "mini-clip, or open_clip:MODEL/TAG-or-PATH"}),
    ("align", "--reference", {"required": True, "metavar": "EMBEDDING", "help": "the embedding to align to"}),
    ("align", "--text", {"default": "caption", "help": "column with the texts"}),
    ("align", "--out", {"required": True, "metavar": "FOLDER", "help": "of the run; the same call resumes there"}),
    ("compare embed align", "--data", {"metavar": "NAME", "help": "data set, as load_data takes it"}),
    ("compare embed align", "--n", {"type": int, "help": "number of its samples; all by default"}),
    ("compare embed align", "--split", {"help": "part of it"}),
    ("compare embed", "--device", {"default": "auto", "help": "auto, cpu, cuda, ..."}),
    ("run compare align", "-p", {"dest": "settings", "action": "append", "default": [], "help": SETTINGS}),
)


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
    parser = ArgumentParser(prog="python -m spec_repro", description="SPEC: the experiments, and your own comparisons.")
    commands, subs = parser.add_subparsers(required=True, metavar="COMMAND"), {}
    for command in (_list, _doctor, _run, _check, _report, _compare, _embed, _align):
        name = command.__name__[1:]
        subs[name] = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        subs[name].set_defaults(command=command)
    for names, flag, more in ARGUMENTS:
        for name in names.split():
            subs[name].add_argument(flag, **more)
    return parser


def _list(options: Namespace) -> None:
    """names and aliases, the notebook, its YAML and the lines that draw, and what each profile needs"""
    for item in load_experiments().values():
        print(f"{', '.join([item.name, *item.aliases])}: {item.title} ({item.reference})")
        print(f"    notebooks/{item.path.name}\n    notebooks/{item.path.stem}.yml")
        for cell, line in lines_with("record.figure(", item.path) or lines_with("record.table(", item.path):
            print(f"    cell {cell}: {line}")
        for profile, card in item.cards.items():
            print(f"    {profile}: {'{data}; {models}; {device}, {minutes:g} min, {memory}'.format(**card)}")
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
    plans = [runner.plan(item, options.profile, options.settings) for item in chosen.values()]
    outcomes = runner.run(plans, jobs=options.jobs, force=options.force, save_outputs=options.save_outputs)
    if failed := [outcome.name for outcome in outcomes if outcome.status == "failed"]:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _check(options: Namespace) -> int:
    """compare results/PROFILE with the committed copy; fails if a verdict changed"""
    from spec_repro.headless import drift

    lines, changed = drift.compare_with_committed(options.profile)
    print("\n".join(lines or ["nothing moved"]))
    return int(changed)


def _report(options: Namespace) -> None:
    """write results/PROFILE/REPORT.md and report.html"""
    from spec_repro.headless import report

    print(report.write_report(options.profile))


def _compare(options: Namespace) -> None:
    """clusters of samples that one embedding sees and the other does not"""
    from spec_repro import embed
    from spec_repro.base.processes import launched
    from spec_repro.embeddings.arrays import read_array

    declared = {name: value for name, value in compare.__kwdefaults__.items() if name not in OWN}
    settings = parse_overrides(declared, options.settings, "compare")
    if options.data or options.n or options.split:
        dataset, names = _dataset(options), [options.x, options.y]
        ids, arrays = dataset["id"], [embed(dataset, name, device=options.device) for name in names]
    else:
        files = [read_array(name.removeprefix("file:")) for name in (options.x, options.y)]
        ids, names, arrays = None, [path.stem for path, *_ in files], [array for _, array, _ in files]
    kernels = options.kernels or match_bandwidths(*arrays, device=options.device, seed=settings.get("seed", 0))
    with launched() as processes:
        settings |= {"device": options.device, "names": names, "processes": processes}
        found = compare(*arrays, kernels, **settings)
    if not _first():
        return
    print(f"{found}\n{found.settings['kernel_x']}, {found.settings['kernel_y']}")
    for side in found:
        print(f"\n{side.name}: eigenvalue and first members of each cluster")
        for j, row in enumerate(side.top(min(options.top, len(side.eigenvectors)))):
            members = " ".join(str(i if ids is None else ids[int(i)]) for i in row)
            print(f"{j + 1:3}  {side.eigenvalues[j]:.4f}{side.marks(j)}  {members}")
    if options.out:
        parts = ("eigenvalues", "eigenvectors", "residuals", "margin")
        arrays = {f"{side.key}_{part}": getattr(side, part) for side in found for part in parts}
        with atomic_path(options.out) as path, open(path, "wb") as file:
            np.savez(file, spec_diff=found.spec_diff, **arrays)


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

    # Names and words alone are parsed here: AlignSettings checks types and ranges itself.
    settings = AlignSettings.of(parse_overrides(dict.fromkeys(vars(AlignSettings())), options.settings, "align"))
    dataset, clip = _dataset(options), trainable_clip(options.model)
    rows = ImageTexts(dataset, clip.prepare, clip.tokenize, text=options.text)
    goal = Reference(rows.ids, embed(dataset, options.reference))
    run = align(clip.model, rows, goal, settings, out=options.out, card=clip.card)
    if _first():
        print(run.weights)


def _dataset(options: Namespace):
    from spec_repro import load_data

    if not options.data:
        raise InvalidInput("expected --data NAME, the data set that --n and --split choose from.")
    return load_data(options.data, n=options.n, split=options.split)


def _first() -> bool:
    """Whether this is the first of the processes that ``torchrun`` started, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0
