"""Command line: ``spec-repro COMMAND``, or ``python -m spec_repro COMMAND``; ``EXAMPLES`` has some of each command.

``compare``, ``embed`` and ``align`` run in one process or in those that ``torchrun`` starts, as in
``torchrun --nproc-per-node 4 -m spec_repro compare clip dinov2 --data imagenet``.
"""

import contextlib
import io
import json
import os
import re
import signal
import sys
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

import spec_repro
from spec_repro.base.errors import InvalidInput, SpecError
from spec_repro.headless.experiments import PROFILES, find_experiment, load_experiments, the_paper
from spec_repro.headless.notebooks import lines_with, parse_overrides

SETTINGS = "a notebook's parameter, an argument of compare() or match_bandwidths(), or one of AlignSettings"
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


EXAMPLES = {  # of each command, as `--help` shows them; a test parses all
    "list": ["list", "list --json"],
    "doctor": ["doctor", "doctor --json"],
    "run": [
        "run theory",
        "run theory power --jobs 2 -p seed=1",
        'run your_data -p data=folder:photos -p \'embeddings=["hog", "color-histogram"]\' --name photos',
    ],
    "new": ['new my_figure --from your_data -p data=digits -p \'embeddings=["hog", "pixels"]\''],
    "fetch": ["fetch --profile laptop"],
    "check": ["check", "check --json", "check --renew"],
    "report": ["report", "report --profile paper"],
    "compare": [
        "compare a.npy b.npy --out found.npz",
        "compare hog color-histogram --data folder:photos -p k=5 --top 12",
        "compare clip dinov2 --data imagenet -p frequencies=3000 -p noise_floor=True",
    ],
    "embed": ["embed hog minilm --data csv:notes.csv --on-error skip", "embed clip --data imagenet --split val"],
    "align": [
        "align mini-clip --data captioned-pictograms --reference mini-dino --out data/runs/mini -p steps=150",
        "align open_clip:ViT-B-32/laion2b_e16 --data coco-captions --reference dinov2 --out data/runs/mine",
    ],
}
COMMANDS = " ".join(EXAMPLES)
SETTING = {"dest": "settings", "action": "append", "default": []}
ARGUMENTS = (
    ("list doctor check", "--json", {"action": "store_true", "help": "for programs: JSON on one line"}),
    ("run fetch check report", "--profile", {"choices": PROFILES, "default": "mini", "help": "mini if none"}),
    ("run fetch", "names", {"nargs": "*", "metavar": "NAME", "help": "experiments by name or alias; all if none"}),
    ("run", "--plan", {"action": "store_true", "help": "print what would run, its time and downloads, and stop"}),
    ("run", "--yes", {"action": "store_true", "help": "start without a question"}),
    ("run", "--jobs", {"type": count, "default": 1, "help": "notebooks at a time"}),
    ("run", "--force", {"action": "store_true", "help": "run what is current, too"}),
    ("run", "--name", {"default": "", "help": "of results on data of your own, results/own/NAME; else from the data"}),
    ("run", "--save-outputs", {"action": "store_true", "help": "store the outputs in notebooks/"}),
    ("new", "name", {"help": "of the experiment: small letters, digits and _"}),
    ("new", "--from", {"dest": "old", "default": "your_data", "metavar": "NAME", "help": "what to start from"}),
    ("new", "--module", {"default": "", "help": "that the notebook imports first: FILE of notebooks/FILE.py"}),
    ("check", "--renew", {"action": "store_true", "help": "take the results as the new reference"}),
    ("compare", "x", {"help": "file of vectors (.npy, .npz, .safetensors); with --data also the name of an embedding"}),
    ("compare", "y", {"help": "the same, of the same samples in the same order"}),
    ("compare", "--kernels", {"nargs": 2, "type": kernel, "help": "bandwidths, or cosine; matched by default"}),
    ("compare", "--top", {"type": count, "default": 9, "help": "members to print of each cluster"}),
    ("compare", "--out", {"metavar": "FILE.npz", "help": "eigenpairs, residuals and margins of both directions"}),
    ("embed", "names", {"nargs": "+", "metavar": "EMBEDDING", "help": "names, as load_embedding takes them"}),
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
    ("run new compare align", "-p", {**SETTING, "metavar": "NAME=VALUE", "help": SETTINGS}),
    (COMMANDS, "--debug", {"action": "store_true", "help": "show the traceback of an error"}),
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if all went well, 1 if a notebook or the check failed, 2 for a wrong request."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The terminal may not have every letter of an id; in a log each line is there when it is told.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
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
    parser = ArgumentParser(prog="spec-repro", description="SPEC: the experiments, and your own comparisons.")
    said = f"spec_repro {spec_repro.__version__}"
    parser.add_argument("--version", help="print it and end", action="version", version=said)
    commands, subs = parser.add_subparsers(required=True, metavar="COMMAND"), {}
    for command in (_list, _doctor, _run, _new, _fetch, _check, _report, _compare, _embed, _align):
        name, look = command.__name__[1:], {"formatter_class": RawDescriptionHelpFormatter}
        look["epilog"] = "\n".join(["examples:", *(f"  spec-repro {example}" for example in EXAMPLES[name])])
        subs[name] = commands.add_parser(name, help=command.__doc__, description=command.__doc__, **look)
        subs[name].set_defaults(command=command)
    for names, flag, more in ARGUMENTS:
        for name in names.split():
            subs[name].add_argument(*flag.split(), **more)
    return parser


def _list(options: Namespace) -> None:
    """names and aliases, the notebook, its YAML and the lines that draw, and what each profile needs"""
    items, lost = load_experiments().values(), [each for each in the_paper()["not recoverable"] if "target" in each]
    if options.json:
        keys = ("name", "aliases", "title", "reference", "cards")
        known = [{key: getattr(item, key) for key in keys} | {"notebook": item.path.name} for item in items]
        print(json.dumps({"experiments": known, "not recoverable": lost}))
        return
    for item in items:
        print(f"{', '.join([item.name, *item.aliases])}: {item.title} ({item.reference})")
        print(f"    notebooks/{item.path.name}\n    notebooks/{item.path.stem}.yml")
        for cell, line in lines_with("record.figure(", item.path) or lines_with("record.table(", item.path):
            print(f"    cell {cell}: {line}")
        for profile, card in item.cards.items():
            print(f"    {profile}: {'{data}; {models}; {device}, {minutes:g} min, {memory}'.format(**card)}")
    for entry in lost:
        print(f"{entry['target']}: {entry['what']} is not recoverable. {entry['why']}")


def _doctor(options: Namespace) -> None:
    """which data sets and models are here, and how to get the others"""
    from spec_repro.headless import doctor

    print(json.dumps(doctor.entries()) if options.json else doctor.report())


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


def _new(options: Namespace) -> None:
    """a notebook and its YAML for an experiment of your own, from those of another one"""
    from spec_repro.headless.skeleton import skeleton

    for path in skeleton(options.name, find_experiment(options.old), options.settings, options.module):
        print(path)


def _check(options: Namespace) -> int:
    """compare results/PROFILE with results/reference/PROFILE, which is committed; fails if it moved"""
    from spec_repro.headless import drift

    if options.renew:
        print(drift.renew(options.profile))
        return 0
    moves, summary = drift.compare_with_reference(options.profile)
    fails = any(move.fails for move in moves)
    told = {"failed": fails, "summary": summary, "moves": [move._asdict() for move in moves]}
    print(json.dumps(told) if options.json else "\n".join([*map(str, moves), summary]))
    return int(fails)


def _report(options: Namespace) -> None:
    """write results/PROFILE/report.html, its pages and REPORT.md; prints how many claims have each verdict"""
    from spec_repro.headless import report

    counts, page = report.write_report(options.profile)
    print(f"{', '.join(f'{count} {verdict}' for verdict, count in counts.items())}: {page}")


def _compare(options: Namespace) -> None:
    """clusters of samples that one embedding sees and the other does not"""
    from spec_repro.headless.comparison import compare_and_tell

    compare_and_tell(options, lambda: _dataset(options))


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
