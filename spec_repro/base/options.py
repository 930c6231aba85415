"""Options that callers give: what is a whole number or a real one, and the error for what is not."""

import math
from numbers import Integral, Real
from typing import Any

from spec_repro.base.errors import InvalidInput


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
