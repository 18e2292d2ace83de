"""What the arguments of public functions are made of, checked in one way.

Each check returns the value in Python's own type, or raises a ValueError that names the argument,
its value and what is allowed. NumPy's and torch's numbers are numbers, on any device; a bool is
none.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Choice = TypeVar("Choice")


def as_table(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """The values in float64, of whatever shape; ValueError unless they are real numbers."""
    try:
        table = np.array(_plain(values))
        if table.dtype.kind in "iufO":  # O holds numbers of other libraries, or no numbers
            return table.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{name} is {values!r:.60}; it must be one row of numbers.")


def check_number(
    name: str,
    value: object,
    good: Callable[[float], bool] = math.isfinite,
    rule: str = "and finite",
) -> float:
    """The value as a float; ValueError unless it is a number for which ``good`` is true."""
    number = _plain(value)
    whole = _is_integer(number) and abs(number) <= sys.float_info.max
    if not (whole or isinstance(number, float)) or not good(number):
        raise ValueError(f"{name} is {number!r:.60}; it must be a number {rule}.")
    return float(number)


def check_integer(
    name: str, value: object, least: int = 1, most: int | None = None, why: str = ""
) -> int:
    """The value as an int; ValueError, with the reason, unless it is from ``least`` to ``most``."""
    number = _plain(value)
    if not _is_integer(number) or number < least or (most is not None and number > most):
        allowed = f"an integer of at least {least}" if most is None else f"one of {least}..{most}"
        raise ValueError(f"{name} is {number!r:.60}; it must be {allowed}{why}.")
    return int(number)


def check_integers(
    name: str, values: object, least: int = 1, most: int | None = None, why: str = ""
) -> list[int]:
    """The values as a list of ints; ValueError unless each is one that `check_integer` takes."""
    row = _plain(values)
    if not isinstance(row, Sequence) or isinstance(row, str):
        raise ValueError(f"{name} is {row!r:.60}; it must be a sequence of integers.")
    return [check_integer(f"{name}[{i}]", value, least, most, why) for i, value in enumerate(row)]


def check_choice(name: str, value: object, choices: Mapping[str, Choice]) -> Choice:
    """What the choices hold under that name; ValueError if it is none of their names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r:.60}; it must be one of {', '.join(choices)}.")
    return choices[value]


def check_callable(name: str, value: object, call: str) -> None:
    """Raise ValueError, with how it is called, unless the value can be called."""
    if not callable(value):
        raise ValueError(f"{name} is {value!r:.60}; it must be callable, as {call}.")


def _is_integer(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _plain(value: Any) -> Any:
    """Python's own numbers, or lists of them, for those of NumPy and torch."""
    return value.tolist() if hasattr(value, "tolist") else value
