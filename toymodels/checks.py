"""Checks of numbers at the place where they are used: concrete ones are checked, tracers pass.

A sweep hands its numbers to a cell as tracers, so it also traces the cell once with the
lowest and once with the highest value of every axis, as plain numbers, for these to see.
"""

import math
from typing import Any

import numpy as np
from jax.core import Tracer

from toymodels.errors import InputError


def interval(
    name: str,
    value: Any,
    *,
    low: float | int = -math.inf,
    high: float | int = math.inf,
    open_low: bool = False,
    remedy: str,
) -> None:
    """Raise `InputError` unless every element of `value` lies between `low` and `high`.

    Args:
        name: what the value is, as the user knows it.
        value: a number or an array; a traced one is not checked. NaN and infinity never pass.
        low: least allowed value, itself allowed unless `open_low`.
        high: greatest allowed value.
        open_low: whether `low` itself is refused.
        remedy: what to do instead.
    """
    if isinstance(value, Tracer):
        return
    numbers = np.asarray(value, np.float64)
    above = numbers > low if open_low else numbers >= low
    wrong = numbers[~(above & (numbers <= high) & np.isfinite(numbers))]
    if wrong.size and math.isinf(low) and math.isinf(high):
        raise InputError(f"{name} is {wrong[0]:g}, not a finite number: {remedy}")
    if wrong.size:
        bounds = f"{'(' if open_low else '['}{low:g}, {high:g}]"
        raise InputError(f"{name} is {wrong[0]:g}, outside {bounds}: {remedy}")


def count(name: str, value: Any, *, least: int = 1) -> None:
    """Raise `InputError` unless `value` is a whole Python number of at least `least`."""
    if isinstance(value, Tracer):
        raise InputError(
            f"{name} decides shapes, so it cannot be an axis of numbers: sweep it with static="
        )
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        # A whole float is most likely the end of an axis.
        hint = (
            ", or sweep it with static=" if isinstance(value, float) and value.is_integer() else ""
        )
        shown = value.item() if isinstance(value, np.generic) else value
        raise InputError(f"{name} is {shown!r}: give a whole number, {least} or more{hint}")


def same_size(what: str, **sizes: int) -> None:
    """Raise `InputError` unless all sizes are equal.

    Args:
        what: is counted, such as "dimensions".
        sizes: how many of them each array has, by the name of the argument.
    """
    if len(set(sizes.values())) > 1:
        found = " and ".join(f"{name} has {size}" for name, size in sizes.items())
        raise InputError(f"{found} {what}: give arrays of the same {what}")
