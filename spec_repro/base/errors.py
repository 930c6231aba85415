"""Typed errors. Each message says what was expected, what came, and what to do next.

Every class also derives from the built-in error that a caller would catch without knowing this package.
"""

import contextlib
import difflib
import math
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from numbers import Integral, Real
from typing import Any


class SpecError(Exception):
    """Base class of all errors of this package."""


class InvalidInput(SpecError, ValueError):
    """A value outside its range, or an array of the wrong shape or type."""


class TooFewSamples(InvalidInput):
    """A data set has fewer samples than were asked for."""


class EmbeddingMismatch(InvalidInput):
    """Two embeddings that are not of the same samples in the same order."""


class NonFiniteInput(InvalidInput):
    """NaN or infinity in an embedding; the count and the first rows are named."""


class ParameterError(InvalidInput):
    """A notebook parameter that is unknown, of another type, or not a literal."""


class NotConverged(SpecError, ArithmeticError):
    """An iteration ended above its tolerance, or a training step produced NaN."""


class UnknownName(SpecError, LookupError):
    """A name that no registry knows; the nearest known name is given."""


class DataMissing(SpecError, FileNotFoundError):
    """A data set or weights that are not on disk: what to get, from where, into which layout, under which licence."""


class DiskFull(SpecError, OSError):
    """No room for what is to be written; what was written is whole."""


class NotWritable(SpecError, OSError):
    """A place where nothing can be written: missing, read-only, forbidden, or of another kind."""


class Busy(SpecError, TimeoutError):
    """Another process is at work at the same place, or one that was waited for gives no answer."""


class GatedData(DataMissing):
    """A hub repository whose licence must be accepted and for which a token is needed."""


class UnreadableItem(SpecError, OSError):
    """One sample that cannot be read; its id and path are named."""


class CheckpointError(SpecError, RuntimeError):
    """Weights or a cache that are truncated, of another architecture, or of another data set."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """The error for an unknown ``name`` of a ``kind`` ("data set", "embedding", ...), with the near miss named."""
    known = sorted(known)
    like = {other: difflib.SequenceMatcher(None, other.casefold(), str(name).casefold()).ratio() for other in known}
    # Of equally near names the first: difflib's own choice would answer a figure's 8 with 18.
    near = min((other for other in known if like[other] >= 0.6), key=lambda other: (-like[other], other), default=None)
    hint = f"; did you mean {near!r}?" if near else "."
    return UnknownName(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}.")


def among(kind: str, name: Any, known: Collection[str]) -> None:
    """Raises UnknownName with the near miss unless ``name`` is one of the ``known``."""
    if name not in known:
        raise unknown_name(kind, str(name), known)


def whole(value: Any, low: float = 0, high: float = 2**62) -> bool:
    """Whether it is an integer in low..high, Python's or numpy's; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= value <= high


def real(value: Any, low: float, high: float = math.inf) -> bool:
    """Whether it is a number between ``low`` and ``high``, exclusive; a bool is none."""
    return isinstance(value, Real) and not isinstance(value, bool) and low < value < high


def expect(*checks: tuple[str, Any, bool, str]) -> None:
    """InvalidInput for the first ``(name, value, whether it is fine, what was expected)`` that is not fine."""
    for name, value, fine, expected in checks:
        if not fine:
            raise InvalidInput(f"{name}={value!r}: expected {expected}.")


def shown(name: object) -> str:
    """A name as a person can see it: with its code points where it has a line end, or letters that look alike."""
    text = str(name)
    return text if text.isprintable() and unicodedata.is_normalized("NFC", text) else ascii(text)


@contextlib.contextmanager
def readable(
    expected: str, found="what does not read", advice="Repair or remove it.", kind: type[SpecError] = UnreadableItem
) -> Iterator[None]:
    """Surrounds the reading of a file: whatever a parser raises becomes a typed error with ``expected`` in front."""
    try:
        yield
    except SpecError:
        raise
    except Exception as error:  # what parsers raise on damaged files has no common class
        raise kind(f"expected {expected}, found {found}: {brief(error)}. {advice}") from error


def brief(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(".: ")
