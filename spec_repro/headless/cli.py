"""Command line: ``python -m spec_repro list | doctor | run | fetch | check | report | compare | embed | align``.

The last three run in one process or in those that ``torchrun`` starts::

    python -m spec_repro compare a.npy b.npy -p frequencies=3000 --out found.npz
    torchrun --nproc-per-node 4 -m spec_repro compare clip dinov2 --data imagenet -p frequencies=3000
    torchrun --nproc-per-node 4 -m spec_repro embed clip dinov2 --data imagenet
    torchrun --nproc-per-node 4 -m spec_repro align open_clip:ViT-B-32/laion2b_e16 --data coco-captions \\
        --reference dinov2 --out data/runs/mine -p batch_size=128
"""

import contextlib
import io
import os
import re
import signal
import sys
import traceback
import zipfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import BinaryIO

import spec_repro
from spec_repro.base.content import regular
from spec_repro.base.errors import InvalidInput, SpecError
from spec_repro.base.files import atomic_path, given_path
from spec_repro.headless.experiments import PROFILES, find_experiment, load_experiments, the_paper
from spec_repro.headless.notebooks import lines_with, parse_overrides

SETTINGS = "NAME=VALUE: a notebook's parameter, an argument of compare() or match_bandwidths(), or one of AlignSettings"
OWN = {"kernel_x", "kernel_y", "names", "device", "processes"}  # arguments that are not given by -p
SPENT = "no memory left ({}); take fewer samples (--n), or a smaller -p memory= or -p batch_size="
TOLD = (  # of the error that ends a command: the exit status and the line
    (KeyboardInterrupt, 130, "interrupted; finished results are whole"),
    (BrokenPipeError, 141, ""),  # the reader of the output has seen enough
    (SpecError, 2, "{}"),
    (OSError, 2, "the system refused: {}"),
    (MemoryError, 2, SPENT),
    (RecursionError, 2, "something given is nested too deeply"),
    (Exception, 1, "a mistake of this package: {}; please report it, --debug shows the traceback"),
)


def count(text: str) -> int:
    """A number of samples, members or notebooks."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def kernel(text: str):
    """``cosine``, or a Gaussian kernel by its bandwidth."""
    return spec_repro.Cosine() if text == "cosine" else spec_repro.Gaussian(float(text))


COMMANDS = "list doctor run fetch check report compare embed align"
SETTING = {"dest": "settings", "action": "append", "default": []}
ARGUMENTS = (
    ("run fetch check report", "--profile", {"choices": PROFILES, "default": "mini"}),
    ("run fetch", "names", {"nargs": "*", "metavar": "NAME", "help": "experiments by name or alias; all if none"}),
    ("run", "--plan", {"action": "store_true", "help": "print what would run, its time and downloads, and stop"}),
    ("run", "--yes", {"action": "store_true", "help": "start without a question"}),
    ("run", "--jobs", {"type": count, "default": 1, "help": "notebooks at a time"}),
    ("run", "--force", {"action": "store_true", "help": "run what is current, too"}),
    ("run", "--name", {"default": "", "help": "of results on data of your own, results/own/NAME; else from the data"}),
    ("run", "--save-outputs", {"action": "store_true", "help": "store the outputs in notebooks/"}),
    ("check", "--renew", {"action": "store_true", "help": "take the results as the new reference"}),
    ("compare", "x", {"help": "file of vectors (.npy, .npz, .safetensors); with --data also the name of an embedding"}),
    ("compare", "y", {"help": "the same, of the same samples in the same order"}),
    ("compare", "--kernels", {"nargs": 2, "type": kernel, "help": "bandwidths, or cosine; matched by default"}),
    ("compare", "--top", {"type": count, "default": 9, "help": "members to print of each cluster"}),
    ("compare", "--out", {"metavar": "FILE.npz", "help": "eigenpairs, residuals and margins of both directions"}),
    ("embed", "names", {"nargs": "+", "metavar": "EMBEDDING"}),
    ("align", "model", {"help": "mini-clip, or open_clip:MODEL/TAG-or-PATH"}),
    ("align", "--reference", {"required": True, "metavar": "EMBEDDING", "help": "the embedding to align to"}),
    ("align", "--text", {"default": "caption", "help": "column with the texts"}),
    ("align", "--out", {"required": True, "metavar": "FOLDER", "help": "of the run; the same call resumes there"}),
    ("compare embed align", "--data", {"metavar": "NAME", "help": "data set, as load_data takes it"}),
    ("compare", "--target", {**SETTING, "type": "target={}".format, "metavar": "LEVEL", "help": "of matched kernels"}),
    ("compare embed", "--on-error", {"choices": ("stop", "skip"), "default": "stop", "help": "at what cannot be read"}),
    ("compare embed align", "--n --samples", {"type": count, "help": "number of its samples; all by default"}),
    ("compare embed align", "--split", {"help": "part of it"}),
    ("compare embed", "--device", {"default": "auto", "help": "auto, cpu, cuda, ..."}),
    ("run compare align", "-p", {**SETTING, "help": SETTINGS}),
    (COMMANDS, "--debug", {"action": "store_true", "help": "show the traceback of an error"}),
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if all went well, 1 if a notebook failed or a verdict changed, 2 for a wrong request."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may not have every letter of an id
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = options.command(options) or 0
        print(end="", flush=True)
        return status
    except (Exception, KeyboardInterrupt) as error:
        status, line = next((status, line) for kind, status, line in TOLD if isinstance(error, kind))
        text = str(error) if isinstance(error, SpecError) else " ".join(f"{type(error).__name__}: {error}".split())
        if re.search("out of memory|can't allocate memory", text):  # of torch
            status, line = 2, SPENT
        with contextlib.suppress(OSError):
            if options.debug:
                traceback.print_exc()
            print(end=line and f"spec_repro: {line.format(text)}\n", file=sys.stderr, flush=True)
            print(end="", flush=True)
            return status
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still to be printed goes nowhere
        return status


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m spec_repro", description="SPEC: the experiments, and your own comparisons.")
    parser.add_argument("--version", action="version", version=f"spec_repro {spec_repro.__version__}")
    commands, subs = parser.add_subparsers(required=True, metavar="COMMAND"), {}
    for command in (_list, _doctor, _run, _fetch, _check, _report, _compare, _embed, _align):
        name = command.__name__[1:]
        subs[name] = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        subs[name].set_defaults(command=command)
    for names, flag, more in ARGUMENTS:
        for name in names.split():
            subs[name].add_argument(*flag.split(), **more)
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

    plans = _plans(options)
    if options.plan or options.profile != "mini":
        from spec_repro.headless import prospect

        due = plans if options.force else [item for item in plans if not item.current(lambda line: None)]
        if options.plan or not prospect.agreed(due, options.yes):
            print(prospect.prospect(due).text() if options.plan else "nothing was started")
            return 0
    outcomes = runner.run(plans, jobs=options.jobs, force=options.force, save_outputs=options.save_outputs)
    if failed := [outcome.name for outcome in outcomes if outcome.status in ("failed", "not run")]:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _plans(options: Namespace) -> list:
    """The plans of the experiments that are named, or of all in the profile."""
    from spec_repro.headless import runner

    every = [item for item in load_experiments().values() if options.profile in item.cards]
    chosen = {item.name: item for item in [find_experiment(name) for name in options.names] or every}
    settings, name = getattr(options, "settings", ()), getattr(options, "name", "")
    return [runner.plan(item, options.profile, settings, name) for item in chosen.values()]


def _fetch(options: Namespace) -> int:
    """download what a profile needs and is not here: rows of data sets, weights of models"""
    from spec_repro.headless import prospect

    failed = prospect.fetch(_plans(options))
    print("\n".join(f"not to be had: {each}" for each in failed), end="\n" * bool(failed))
    return int(bool(failed))


def _check(options: Namespace) -> int:
    """compare results/PROFILE with results/reference/PROFILE, which is committed; fails if a verdict changed"""
    from spec_repro.headless import drift

    if options.renew:
        print(drift.renew(options.profile))
        return 0
    lines, changed = drift.compare_with_reference(options.profile)
    print("\n".join(lines or ["nothing moved against the reference"]))
    return int(changed)


def _report(options: Namespace) -> None:
    """write results/PROFILE/report.html, its pages and REPORT.md; prints how many claims have each verdict"""
    from spec_repro.headless import report

    counts, page = report.write_report(options.profile)
    print(f"{', '.join(f'{count} {verdict}' for verdict, count in counts.items())}: {page}")


def _compare(options: Namespace) -> None:
    """clusters of samples that one embedding sees and the other does not"""
    import numpy as np

    from spec_repro.base.processes import world

    declared = {**spec_repro.match_bandwidths.__kwdefaults__, **spec_repro.compare.__kwdefaults__}
    settings = parse_overrides({name: declared[name] for name in declared.keys() - OWN}, options.settings, "compare")
    first = world()[0] == 0
    keeps = first and options.out is not None
    with _kept(options.out, (options.x, options.y)) if keeps else contextlib.nullcontext() as file:
        found, ids = _found(options, settings)
        if file:
            parts = ("eigenvalues", "eigenvectors", "residuals", "margin", "resolved")
            arrays = {f"{side.key}_{part}": getattr(side, part) for side in found for part in parts}
            arrays |= {} if ids is None else {"ids": np.array(ids, dtype=str)}
            np.savez(file, spec_diff=found.spec_diff, **arrays)
    if not first:
        return
    print(f"{found}\n{found.settings['kernel_x']}, {found.settings['kernel_y']}")
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


def _found(options: Namespace, settings: dict):
    """The comparison, and the ids of its samples if they have any."""
    import numpy as np

    from spec_repro.base.processes import launched
    from spec_repro.embeddings.arrays import joined

    matched = spec_repro.match_bandwidths.__kwdefaults__.keys() - OWN - {"seed"}
    matching = {name: settings.pop(name) for name in matched & settings.keys()}
    if options.kernels and matching:
        raise InvalidInput(f"--kernels leaves nothing to match: leave out {', '.join(matching)}.")
    if options.data or options.n is not None or options.split:
        dataset, names = _dataset(options), [options.x, options.y]
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


def _embed(options: Namespace) -> None:
    """vectors of a data set, cached; prints the file of each embedding"""
    from spec_repro.base.processes import world

    dataset = _dataset(options)
    for name in options.names:
        vectors = spec_repro.embed(dataset, name, device=options.device, on_error=options.on_error)
        if world()[0] == 0:
            print(f"{name}: {len(vectors):,} x {vectors.shape[1]}, {getattr(vectors, 'filename', 'in memory')}")


def _align(options: Namespace) -> None:
    """fine-tune a CLIP towards another embedding by SPEC-diff"""
    from spec_repro.align import AlignSettings, ImageTexts, Reference, align, trainable_clip
    from spec_repro.base.processes import world

    # Names and words alone are parsed here: AlignSettings checks types and ranges itself.
    settings = AlignSettings.of(parse_overrides(dict.fromkeys(vars(AlignSettings())), options.settings, "align"))
    dataset, clip = _dataset(options), trainable_clip(options.model)
    rows = ImageTexts(dataset, clip.prepare, clip.tokenize, text=options.text)
    goal = Reference(rows.ids, spec_repro.embed(dataset, options.reference))
    run = align(clip.model, rows, goal, settings, out=options.out, card=clip.card)
    if world()[0] == 0:
        print(run.weights)


def _dataset(options: Namespace):
    if not options.data:
        raise InvalidInput("expected --data NAME, the data set that --n and --split choose from.")
    return spec_repro.load_data(options.data, n=options.n, split=options.split)
