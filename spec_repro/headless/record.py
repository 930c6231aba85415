"""The record of a run: what one notebook measured and from what, written as a whole or not at all.

A ``Record`` collects figures, tables, arrays and claims in a folder beside ``results/<profile>/<experiment>/``, which
replaces that folder on ``close()``. Deterministic files (``run.json``, ``claims.json``, tables, pictures, arrays) and
``timing.json`` are separate, so that two runs differ only where a result does. The stamp has the hashes of all of them,
and the state of the data that were read; what it does not name is not ours, and stays.
"""

import contextlib
import functools
import math
import os
import re
import shutil
import textwrap
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from spec_repro.base import files
from spec_repro.base.content import READ
from spec_repro.base.errors import InvalidInput, SpecError, among
from spec_repro.headless.circumstances import processor, timing, versions
from spec_repro.headless.claims import VERDICTS, Claim, came_out, show, show_measured
from spec_repro.headless.experiments import Experiment, find_experiment, plain_name
from spec_repro.headless.notebooks import check_parameters, show_outcome

DPI = 220  # twice what a plain screen shows; the reference, which is committed, has half of it
OWN_RESULTS = "own"  # beside the profiles: results on data that are not a profile's
WORDED = ("id", "statement", "data", "rule", "why", "reason")  # texts of a claim
STAMP = ".stamp.json"  # never committed: a fresh clone has none, and computes everything
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet compute a cell of text
SCORES = {"ami": "ami", "nmi": "nmi", "distance": "distances"}  # of an evidence table, and their words in claim ids


def results_root() -> Path:
    """The folder of all results: ``SPEC_RESULTS`` if set, else ``results`` in the checkout."""
    return files.given_path(os.environ.get("SPEC_RESULTS") or files.project_root() / "results")


def results_folder(*names: str) -> Path:
    """``results/<profile>/<name>``, a folder or a file; the older folder after a run that was killed within `close`.

    Raises InvalidInput for a name, or a link there, that leads out of the results.
    """
    root = results_root()
    path = root.joinpath(*(plain_name(name, "results") for name in names))
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise InvalidInput(f"{path} is a link that leads out of {root}; set SPEC_RESULTS to where results should be.")
    files.recovered(path)
    return path


def write_stamp(folder: Path, stamp: Mapping) -> None:
    """Keep ``stamp`` with the results, and its digest: a damaged one is none."""
    files.write_json(folder / STAMP, {"stamp": stamp, "sha256": files.fingerprint(stamp)})


def read_stamp(folder: Path) -> dict:
    """Hashes of the "files" of results, the state of the data that were "read", the runner's "key"; {} if damaged."""
    with contextlib.suppress(SpecError, OSError, LookupError, TypeError):
        found = files.read_json(folder / STAMP)
        if found["sha256"] == files.fingerprint(found["stamp"]):
            return found["stamp"]
    return {}


def place_of(experiment: Experiment, parameters: Mapping[str, object], name: str = "") -> tuple[str, str]:
    """Profile and experiment, the folders of a run's results; ``own`` and a name if the data are not the profile's.

    By default the name is that of the data, of a file or folder its last part, and the experiment's.
    """
    data, usual = (_set_of(values.get("data")) for values in (parameters, experiment.parameters(parameters["profile"])))
    if data == usual:
        return parameters["profile"], experiment.name
    names = [Path(str(each).rpartition(":")[2]).stem for each in (data if isinstance(data, list) else [data])]
    words = re.sub(r"[^\w-]+", "-", "-".join(names)).strip("-")[:60]
    return OWN_RESULTS, name or f"{words or 'data'}-{experiment.name}"


def _set_of(data):
    """The data set alone, or each of several, where a parameter has its options, too."""
    if isinstance(data, list):
        return [_set_of(each) for each in data]
    return data.get("name") if isinstance(data, Mapping) else data


def damaged(folder: Path, stamp: Mapping) -> list[str]:
    """The files that are not as the stamp has them."""
    return [name for name, digest in stamp.get("files", {}).items() if _sha256(folder / name) != digest]


def _writes(method: Callable) -> Callable:
    """A method that writes into the staged folder: a full or forbidden disk is a typed error in the notebook, too."""

    @functools.wraps(method)
    def wrapped(self, *args, **options):
        with files.writing(self.place):
            return method(self, *args, **options)

    return wrapped


class Record:
    """Results of one run of ``experiment``, a name or alias, or the `Experiment` itself.

    ``values`` are the notebook's ``globals()``: those that its parameters cell names are recorded, and ``profile`` is
    one of them. A parameter that ``values`` lacks is as the profile has it.

    The results folder is untouched before ``close()``; without it the old results stay as they are.
    """

    def __init__(self, experiment: str | Experiment, values: Mapping[str, object] | None = None):
        self.experiment = find_experiment(experiment) if isinstance(experiment, str) else experiment
        values = values or {}
        usual = self.experiment.parameters(values.get("profile", "mini"))
        self.parameters = {name: values.get(name, default) for name, default in usual.items()}
        check_parameters(self.experiment.declared, self.parameters, self.experiment.path.name)
        self.profile = self.parameters["profile"]
        self.run_id = files.fingerprint([self.experiment.name, self.parameters])[:12]
        self._claims, self._arrays, self._captions, self._used = {}, {}, {}, {"data": [], "models": []}
        self._conclusion = []
        self._started = time.perf_counter()
        self._swap = contextlib.ExitStack()
        place = place_of(self.experiment, self.parameters, os.environ.get("SPEC_NAME", ""))
        self.place = results_folder(*place)
        ours = functools.partial(_ours, self.experiment.path.stem)
        self._folder = self._swap.enter_context(files.atomic_folder(self.place, ours))
        # A kernel that ends before close() leaves no half-filled folder.
        weakref.finalize(self, shutil.rmtree, self._folder.parent, ignore_errors=True)

    def uses(self, *things) -> None:
        """Note the identity of each data set, embedding (or its name) or mapping."""
        for thing in things:
            found = _identity(thing)
            self._used["models" if "modality" in found else "data"].append(found)

    @_writes
    def figure(self, figure, name: str):
        """Save a matplotlib figure as ``<name>.png`` and ``<name>.pdf``, without dates, and return it.

        Its label and titles become its caption in the report.
        """
        figure.savefig(self._path(f"{name}.png"), dpi=DPI, metadata={"Software": None, "Run": self.run_id})
        figure.set_layout_engine("none")  # the layout stays, and is not found again for each format
        dates = {"CreationDate": None, "ModDate": None}
        figure.savefig(self._path(f"{name}.pdf"), metadata={"Subject": f"run {self.run_id}", **dates})
        self._captions[name] = _caption(figure)
        return figure

    @_writes
    def table(self, frame, name: str):
        """Save a data frame as ``tables/<name>.csv``, numbers to six digits, and return it.

        Of a mapping, the frame of each direction by its name, one table is made. The index is kept unless it only
        counts rows. Text that a spreadsheet would compute gets an apostrophe.
        """
        if isinstance(frame, Mapping):
            import pandas as pd

            frame = pd.concat(frame, names=["direction"]).droplevel(1)
        numbered, path = type(frame.index).__name__ == "RangeIndex", self._path(f"tables/{name}.csv")
        safe = frame.apply(lambda column: column.map(_inert) if column.dtype.kind == "O" else column)
        safe = safe.rename(index=_inert, columns=_inert)
        safe.to_csv(path, index=not numbered, float_format="%.6g", lineterminator="\n")
        return frame

    @_writes
    def export(self, frame, name: str) -> None:
        """Save a large data frame as ``<name>.parquet``, for other tools; it is neither compared nor committed."""
        frame.to_parquet(self._path(f"{name}.parquet"), index=False)

    def arrays(self, **arrays) -> None:
        """Keep arrays for ``arrays.npz``. Coordinates of 2-D maps take the prefix ``map_``: they are never compared."""
        self._path("arrays.npz")
        for name, array in arrays.items():
            self._arrays[name] = np.asarray(array)
            if self._arrays[name].dtype.hasobject:
                raise InvalidInput(f"arrays.npz takes numbers and fixed-width text, {name!r} holds Python objects.")

    def claim(self, claim: str, measured=None, interval=None, reason: str = "") -> None:
        """Measure a claim of this experiment; its rule gives the verdict.

        measured: a number, (first, second) for ``greater_than``, a list for ``observed``; None for *not run*, which
        needs a ``reason``. interval: low and high end over what could have been drawn otherwise, rows or seeds (of
        first minus second for a pair). A claim of other profiles alone is passed over.
        """
        self._path("claims.json")
        claims = {item.id: item for item in self.experiment.claims}
        among(f"claim of {self.experiment.name}", claim, claims)
        if self.profile not in claims[claim].data:
            return
        if measured is None and not reason:
            raise InvalidInput(f"claim {claim!r} has no measured value; give the reason why it was not run.")
        measured, interval = _plain(measured, claim), _plain(interval, claim)
        if interval is not None and (not isinstance(interval, list) or len(interval) != 2 or interval[0] > interval[1]):
            raise InvalidInput(f"claim {claim!r}: an interval is (low, high), found {interval!r}.")
        judge = claims[claim].rule.judge
        verdict, cause = ("not run", "") if measured is None else judge(measured, interval)
        reasons = "; ".join(text for text in (cause, reason) if text)
        self._claims[claim] = self._row(claims[claim], verdict, reasons, measured, interval)

    def verdicts(self, table, prefix: str, keys: Mapping[str, str] | None = None, score: str = "ami") -> None:
        """Measure those claims of this experiment that read an `agreement.evidence` table.

        ``<prefix>-ami-<key>``, ``-nmi-`` and ``-distances-`` judge the gap on rows that SPEC has not seen, the same id
        with ``-gaussian`` its p-value. Of ``score`` alone, ``<prefix>-<key>-own`` and ``-other`` measure the agreement
        itself, ``<prefix>-clusters-<key>`` the number of clusters beyond Gaussian pairs. ``keys`` gives other words for
        the keys of the table's directions; a direction without a word is passed over.
        """
        known = {claim.id for claim in self.experiment.claims}
        for row in table.itertuples():
            key = row.key if keys is None else keys.get(row.key)
            name, pairs = f"{prefix}-{SCORES[row.score]}-{key}", f"{row.null:.2f}, at most {row.null_high:.2f}"
            judged = {name: (row.out, (row.out_low, row.out_high), f"on all rows, which SPEC has seen, {row.gap:.2f}")}
            judged[f"{name}-gaussian"] = row.p, None, f"the gap is {row.gap:.2f}, that of Gaussian pairs {pairs}"
            if row.score == score:
                judged[f"{prefix}-{key}-own"] = row.own, (row.own_low, row.own_high)
                judged[f"{prefix}-{key}-other"] = row.other, (row.other_low, row.other_high)
                judged[f"{prefix}-clusters-{key}"] = row.beyond, None, f"of {row.clusters} pairs"
            for claim in judged.keys() & known:
                self.claim(claim, *judged[claim])

    def eigenvalues(self, prefix: str, sides, out, choices) -> None:
        """Measure ``<prefix>-eigenvalue-<key>``, with what `agreement.held_out` and `other_choices` gave beside it."""
        from spec_repro.agreement import choices_note

        for side in sides:
            claim, beside = f"{prefix}-eigenvalue-{side.key}", choices_note(choices, side.name)
            self.claim(claim, side.largest, interval=out.first_eigenvalue(side.key), reason=beside)

    def conclude(self, sentences: Sequence[str]) -> None:
        """What came out beside the claims, in sentences of Markdown: `close` shows them, and `run` prints them."""
        self._path("run.json")
        self._conclusion = list(sentences)

    def show_claims(self) -> None:
        """Print verdicts and numbers to two decimals, for a cell marked ``# NBVAL_CHECK_OUTPUT``.

        nbval compares the verdicts (``tests/nbval.cfg``); ``make check`` compares the numbers, with tolerances.
        """
        rows = [("claim", "verdict", "ours", "criterion")]
        rows += [(row["id"], row["verdict"], show_measured(row, 2), row["rule"]) for row in self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())

    @_writes
    def close(self) -> None:
        """Write claims, arrays and the run record, replace the older results, and say in words what came out."""
        self._path("run.json")
        rows = self._rows()
        run = {"experiment": self.experiment.name, "profile": self.profile, "run": self.run_id}
        run |= {"parameters": self.parameters, **self._used, "versions": versions(), "figures": self._captions}
        run |= {"processor": processor(), "conclusion": self._conclusion}
        if os.environ.get("SPEC_REHEARSAL"):  # fixture files and random weights: the report says so, loudly
            run["rehearsal"] = True
        files.write_json(self._folder / "claims.json", rows)
        files.write_json(self._folder / "run.json", run)
        files.write_json(self._folder / "timing.json", timing(time.perf_counter() - self._started))
        if self._arrays:
            np.savez_compressed(self._folder / "arrays.npz", **dict(sorted(self._arrays.items())))
        found = [file for file in self._folder.rglob("*") if file.is_file()]
        hashes = {file.relative_to(self._folder).as_posix(): files.sha256(file) for file in sorted(found)}
        write_stamp(self._folder, {"key": None, "files": hashes, "read": READ})
        self._folder = None
        self._swap.close()
        verdicts = [row["verdict"] for row in rows]
        counts = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts)) or "none"
        print(f"{'/'.join(self.place.parts[-2:])}: run {self.run_id}, claims: {counts}")
        show_outcome([*self._conclusion, *came_out(rows, self.experiment.findings.get(self.profile, {}))])

    def _rows(self) -> list[dict]:
        """One row for each claim of this profile, in the order of the experiment's YAML."""
        claims, missing = self.experiment.claims_of(self.profile), "the notebook did not measure it"
        return [self._claims.get(claim.id) or self._row(claim, "not run", missing) for claim in claims]

    def _row(self, claim: Claim, *measurement) -> dict:
        """The claim as measured; parameters other than the profile's are named with the data."""
        row = claim.row(self.profile, *measurement)
        if changed := self.experiment.changed(self.parameters):
            values = ", ".join(f"{name}={textwrap.shorten(repr(value), 80)}" for name, value in changed.items())
            row["data"] += f"; here with {values}"
        return row

    def _path(self, name: str) -> Path:
        """The staged file ``name``; refuses a closed record and names that are not plain file names."""
        if self._folder is None:
            raise InvalidInput(f"this record of {self.experiment.name} is closed; make a new one to add {name}.")
        if not re.fullmatch(r"(tables/)?[a-z0-9][a-z0-9_-]*\.[a-z]+", name):
            raise InvalidInput(f"expected a name of a-z, 0-9, - and _, found {name!r}.")
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        return path


def _caption(figure) -> str:
    """What a figure shows, in words: its label and the titles of its parts; without a label, what its axes are."""
    drawn = [ax for ax in figure.axes if ax.axison]
    titles = [part.get_suptitle() for part in (figure, *figure.subfigs)]
    titles = list(filter(None, titles)) or [ax.get_title() or ax.get_title("left") for ax in drawn]
    axes = [" against ".join(filter(None, (ax.get_ylabel(), ax.get_xlabel()))) for ax in drawn]
    parts = [*([] if figure.get_label() else axes), *titles]
    text = ": ".join(filter(None, [figure.get_label(), "; ".join(dict.fromkeys(filter(None, parts)))]))
    return " ".join(re.sub(r"\\hat|[$\\{}]", "", text).split())


def _ours(stem: str, folder: Path) -> set[str]:
    """What of the older results of a notebook goes with them."""
    names = STAMP, "claims.json", "run.json", "timing.json", f"{stem}.ipynb", f"{stem}.html"
    return {*names, *read_stamp(folder).get("files", ())}


def _sha256(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return files.sha256(path) if path.is_file() else None


def _inert(cell):
    """A cell of text that no spreadsheet takes for a formula, and no reader of CSV for two rows; a number stays one."""
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r\n", "\n").replace("\r", "\n")
    with contextlib.suppress(ValueError):
        return text if not cell.startswith(FORMULA) or math.isfinite(float(cell)) else f"'{text}"
    return f"'{text}"


def _plain(value, claim: str):
    """Python numbers of six digits and lists of them. Raises ``InvalidInput`` for NaN and infinity."""
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    if isinstance(value, list | tuple):
        return [_plain(item, claim) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if not math.isfinite(value):
        raise InvalidInput(f"claim {claim!r}: measured {value!r}; give None and the reason why there is no number.")
    return float(f"{float(value):.6g}")


def read_claims(path: Path) -> list[dict]:
    """Measured claims, if they have what the report shows."""
    rows = files.read_json(path)
    for row in rows if isinstance(rows, list) else [rows]:
        show_measured(row), show(row["paper"]["value"], None)
        texts = [row["paper"]["where"], *(row[key] for key in WORDED)]
        if row["verdict"] not in VERDICTS or not all(isinstance(text, str) for text in texts):
            raise InvalidInput(f"{path}: expected a claim, found {row!r}.")
    return rows


def _identity(thing) -> dict:
    """What identifies a data set or an embedding: names, revisions, hashes; a mapping is taken as it is."""
    if isinstance(thing, Mapping):
        return dict(thing)
    if hasattr(thing, "column_names"):
        from spec_repro.data import identity

        return identity(thing) | {key: getattr(thing.info, key) for key in ("homepage", "license")}
    from spec_repro.embeddings import EMBEDDINGS, embedding_identity

    found = embedding_identity(thing)
    name = found["name"].partition("?")[0]  # without its options
    about = EMBEDDINGS[name].about if name in EMBEDDINGS else None
    return found | ({"homepage": " or ".join(filter(None, [about.wheel, about.source]))} if about else {})
