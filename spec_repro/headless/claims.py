"""A claim: one sentence of the paper in a form that can be measured, and the rule that gives its verdict.

The rules are a small closed set. A rule looks at the whole interval of a measurement, not at its middle: *held* means
that every value of the interval meets it, *differs* that none does, *inconclusive* that the bound lies inside. A number
without an interval decides alone. The report counts all of them as results.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spec_repro.base.errors import InvalidInput, among

VERDICTS = ("held", "differs", "inconclusive", "not run", "observed")
TINY = 1e-4  # below, only the order of magnitude is of interest

# The numbers that follow a rule's name in YAML, how the report says the rule, and the least and most that meet it.
RULES = {
    "at_least": (("bound",), "at least {}", lambda bound: (bound, math.inf)),
    "at_most": (("bound",), "at most {}", lambda bound: (-math.inf, bound)),
    "between": (("low", "high"), "between {} and {}", lambda low, high: (low, high)),
    "greater_than": (("margin",), "first minus second above {}", lambda gap: (math.nextafter(gap, math.inf), math.inf)),
    "near": (("value", "tolerance"), "{} within {}", lambda value, apart: (value - apart, value + apart)),
    "observed": ((), "no bound, reported as it is", lambda: (-math.inf, math.inf)),
}

# What of a claim is real, by the words that say on which data and models it is measured.
REAL = {
    "real model": r"minilm|\b(Open)?CLIP\b|DINOv2|SwAV|Inception|RoBERTa|\bE5\b|T5-XL",
    "real text": r"docstrings|language reference|WikiText|captions of MS-COCO",
    "real images": r"digits|AFHQ|FFHQ|ImageNet|Imagenette|ImageWoof|(?<!captions of )MS-COCO",
}
KINDS = (*REAL, "stand-in")


def kind_of(data: str) -> tuple[str, ...]:
    """The kinds of a claim, from the words on what it is measured ("2,000 docstrings; minilm − lsa").

    What is real is named: a model that others have trained and use, prose, pictures that are not generated. Where the
    model or the data are not, or stand-ins are named beside them, the claim is on a stand-in, too.
    """
    named = re.sub(r"\(stand-in[^)]*\)", "", data)  # what it stands for is not what it is
    kinds = [kind for kind, words in REAL.items() if re.search(words, named)]
    both = "real model" in kinds and len(kinds) > 1 and "stand-in" not in data
    return tuple(kinds) if both else (*kinds, "stand-in")


def show(value, digits: int | None = 3) -> str:
    """A number, a pair or a list as text: ``digits`` decimals (None: as given), or a power of ten where they would show
    nothing; no minus zero, ``-`` for nothing.
    """
    if isinstance(value, list | tuple):
        return ", ".join(show(item, digits) for item in value)
    if value is None or digits is None or isinstance(value, str | bool | int):
        return "-" if value is None else str(value)
    shown = f"{value:.0e}" if 0 < abs(value) < TINY else f"{round(float(value), digits) + 0.0:.{digits}f}"
    return re.sub("^-", "−", shown)


def show_measured(row: Mapping, digits: int = 3) -> str:
    """What was measured for a claim (a row of claims.json), with its interval."""
    measured, interval = row.get("measured"), row.get("interval")
    text, pair = show(measured, digits), "difference " if isinstance(measured, list | tuple) else ""
    return text + (f" ({pair}{show(interval[0], digits)} to {show(interval[1], digits)})" if interval else "")


def came_out(rows: Sequence[Mapping], findings: Mapping[str, str]) -> list[str]:
    """The statements of measured claims (rows of claims.json) in words: verdict, statement, number, criterion.

    findings: by claim id, the sentence that explains why it differs or is inconclusive.
    """
    said = []
    for row in rows:
        rule = "" if row["verdict"] in ("observed", "not run") else f"; asked for: {row['rule']}"
        found = row["reason"] if row["verdict"] == "not run" else f"{show_measured(row, 2)}{rule}"
        why = findings.get(row["id"], "") if row["verdict"] in ("differs", "inconclusive") else ""
        said.append(f"**{row['verdict']}**: {row['statement'].rstrip('.')} ({found}). {why}".rstrip())
    return said


@dataclass(frozen=True)
class Rule:
    """What a measurement has to meet: ``kind`` (a key of ``RULES``) and its ``numbers``.

    at_least, at_most: the bound. between: both bounds. greater_than: the margin by which the first of two measured
    values must exceed the second; the interval is that of their difference. near: value and tolerance.
    """

    kind: str
    numbers: tuple[float, ...] = ()

    @classmethod
    def parse(cls, entry, where: str, printed=None) -> "Rule":
        """From ``observed``, ``{at_least: 0.8}``, ``{between: [0, 1]}``, ``{near: {value: 0.68, tolerance: 0.1}}``.

        ``near`` takes the paper's ``printed`` value if none is given, and ``share`` of the value as the tolerance.
        """
        kind, given = next(iter(entry.items())) if isinstance(entry, Mapping) and len(entry) == 1 else (entry, [])
        if not isinstance(kind, str):
            raise InvalidInput(f"{where}: a rule is one name, or one name with its numbers; found {entry!r}.")
        among(f"rule of {where}", kind, RULES)
        names = RULES[kind][0]
        if kind == "near" and isinstance(given, Mapping) and printed is not None:
            share = given.get("share")
            given = {"value": printed, **given} if share is None else {"value": printed, "tolerance": share * printed}
        if isinstance(given, Mapping) and set(given) == set(names):
            given = [given[name] for name in names]
        numbers = tuple(given) if isinstance(given, list) else (given,)
        if len(numbers) != len(names) or not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
            raise InvalidInput(f"{where}: {kind} takes {' and '.join(names) or 'no number'}, found {entry!r}.")
        return cls(kind, numbers)

    def __str__(self) -> str:
        return RULES[self.kind][1].format(*(f"{number:g}" for number in self.numbers))

    def judge(self, measured, interval=None) -> tuple[str, str]:
        """Verdict and its reason for a measured value and its interval, which replaces the value."""
        if self.kind == "observed":
            return "observed", ""
        if self.kind == "greater_than":
            if not isinstance(measured, list | tuple) or len(measured) != 2:
                raise InvalidInput(f"greater_than compares two values, found {measured!r}; give (first, second).")
            measured = measured[0] - measured[1]
        elif isinstance(measured, list | tuple):
            raise InvalidInput(f"{self.kind} judges one value, found {measured!r}.")
        low, high = interval or (measured, measured)
        least, most = RULES[self.kind][2](*self.numbers)
        if least <= low and high <= most:
            return "held", ""
        found = show(measured) if interval is None else f"the interval {show(low)} to {show(high)}"
        outside = high < least or most < low
        return "differs" if outside else "inconclusive", f"found {found}, expected {self}"


@dataclass(frozen=True)
class Claim:
    """One checkable statement of an experiment.

    ``statement`` and ``data`` (on what it is measured) are keyed by the profiles that measure the claim. ``why`` is the
    reason for the rule's bound or tolerance; ``where`` and ``value`` are the paper's place and number, if it has one.
    ``tolerance`` is by how much the value may move against the reference, if the default of its kind does not fit, and
    ``tolerance_why`` the reason.
    """

    id: str
    statement: Mapping[str, str]
    rule: Rule
    why: str
    data: Mapping[str, str]
    where: str = ""
    value: object = None
    tolerance: float | None = None
    tolerance_why: str = ""

    def row(self, profile: str, verdict: str, reason: str, measured=None, interval=None) -> dict:
        """The claim with its measurement, as claims.json and the report have it."""
        row = {"id": self.id, "statement": self.statement[profile], "paper": {"where": self.where, "value": self.value}}
        row |= {"data": self.data[profile], "rule": str(self.rule), "why": self.why}
        return row | {"measured": measured, "interval": interval, "verdict": verdict, "reason": reason}
