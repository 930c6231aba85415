"""Command line: ``python -m spec_repro list | doctor | run NAME... | check | report | compare | embed | align``."""

import argparse
import signal
import sys

from spec_repro.base.errors import SpecError
from spec_repro.headless.experiments import PROFILES, find_experiment, load_experiments
from spec_repro.headless.shell import add_commands


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if all went well, 1 if a notebook failed or a verdict changed, 2 for a wrong request."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return options.command(options)
    except SpecError as error:
        print(f"spec_repro: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("spec_repro: interrupted; finished results are whole", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    about = "Run, check and report the experiments; compare, embed and align on one process or several."
    parser = argparse.ArgumentParser(prog="python -m spec_repro", description=about)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in {"list": _list, "doctor": _doctor, "run": _run, "check": _check, "report": _report}.items():
        sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        if name not in ("list", "doctor"):
            sub.add_argument("--profile", choices=PROFILES, default="mini")
        if name == "run":
            sub.add_argument("names", nargs="*", metavar="NAME", help="experiments by name or alias; all if none")
            sub.add_argument("-p", dest="overrides", action="append", default=[], metavar="NAME=VALUE")
            sub.add_argument("--jobs", type=int, default=1, help="notebooks at a time")
            sub.add_argument("--force", action="store_true", help="run what is current, too")
            sub.add_argument("--save-outputs", action="store_true", help="store the outputs in notebooks/")
    add_commands(commands)
    return parser


def _list(options) -> int:
    """names, aliases, and what each profile needs"""
    for item in load_experiments().values():
        names = ", ".join([item.name, *item.aliases])
        print(f"{names}: {item.title} ({item.reference})")
        for profile, card in item.cards.items():
            print(f"    {profile}: {card.data}; {card.models}; {card.device}, {card.minutes:g} min, {card.memory}")
    return 0


def _doctor(options) -> int:
    """which data sets and models are here, how to get the others, what of the paper profile could run"""
    from spec_repro.headless import doctor

    print(doctor.report())
    return 0


def _run(options) -> int:
    """execute notebooks headlessly and write results/PROFILE/NAME"""
    from spec_repro.headless import runner

    chosen = [find_experiment(name) for name in options.names] or [
        item for item in load_experiments().values() if options.profile in item.profiles
    ]
    unique = {item.name: item for item in chosen}.values()
    plans = [runner.plan(item, options.profile, options.overrides) for item in unique]
    lacks = {plan.experiment.name: lacking for plan in plans if (lacking := plan.missing())}
    if lacks:
        from spec_repro.headless import doctor

        print(f"spec_repro: {doctor.told(lacks)}", file=sys.stderr)
        plans = [plan for plan in plans if plan.experiment.name not in lacks]
    outcomes = runner.run(plans, jobs=options.jobs, force=options.force, save_outputs=options.save_outputs)
    failed = [outcome.name for outcome in outcomes if outcome.status == "failed"]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 2 if lacks and not plans else int(bool(failed or lacks))


def _check(options) -> int:
    """compare results/PROFILE with the committed copy; fails if a verdict changed"""
    from spec_repro.headless import drift

    moved = drift.compare_with_committed(options.profile)
    for line in moved.lines or ["nothing moved"]:
        print(line)
    return int(moved.verdict_changed)


def _report(options) -> int:
    """write results/PROFILE/REPORT.md and report.html"""
    from spec_repro.headless import report

    print(report.write_report(options.profile))
    return 0


if __name__ == "__main__":
    sys.exit(main())
