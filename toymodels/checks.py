"""Checks of numbers at the place where they are used: concrete ones are checked at once.

A traced number has no value yet. Whoever traces with many values in mind, as a sweep does,
collects the checks of traced numbers with `postponed` and makes them when it has the values.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer

from toymodels.errors import InputError


class Postponed(NamedTuple):
    """A check of values that were traced: `check(*values)`, once they are known."""

    check: Callable[..., None]
    values: tuple[Any, ...]


_postponed: contextvars.ContextVar[list[Postponed] | None] = contextvars.ContextVar(
    "postponed", default=None
)


@contextlib.contextmanager
def postponed() -> Generator[list[Postponed]]:
    """Collect the checks of traced values that are met inside."""
    collected: list[Postponed] = []
    token = _postponed.set(collected)
    try:
        yield collected
    finally:
        _postponed.reset(token)


def when_known(check: Callable[..., None], *values: Any) -> None:
    """Call `check(*values)`, now or, if one of them is traced, when a sweep knows the values.

    Args:
        check: raises `InputError` for what it refuses. It is called with arrays of the same
            shapes for every point of a sweep.
        *values: numbers or arrays. Traced ones pass outside a sweep.
    """
    if not any(isinstance(value, Tracer) for value in values):
        check(*values)
    elif (collected := _postponed.get()) is not None:
        collected.append(Postponed(check, values))


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
        value: a number or an array; see `when_known`. NaN and infinity never pass.
        low: least allowed value, itself allowed unless `open_low`.
        high: greatest allowed value.
        open_low: whether `low` itself is refused.
        remedy: what to do instead.
    """

    def check(value: Any) -> None:
        numbers = np.asarray(value, np.float64)
        above = numbers > low if open_low else numbers >= low
        wrong = numbers[~(above & (numbers <= high) & np.isfinite(numbers))]
        if wrong.size and math.isinf(low) and math.isinf(high):
            raise InputError(f"{name} is {wrong[0]:g}, not a finite number: {remedy}")
        if wrong.size:
            bounds = f"{'(' if open_low else '['}{low:g}, {high:g}]"
            raise InputError(f"{name} is {wrong[0]:g}, outside {bounds}: {remedy}")

    when_known(check, value)


def count(name: str, value: Any, *, least: int = 1) -> None:
    """Raise `InputError` unless `value` is a whole Python number of at least `least`."""
    if isinstance(value, Tracer):
        raise InputError(
            f"{name} decides shapes, so it cannot be an axis of numbers: sweep it with static="
        )
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        shown = value.item() if isinstance(value, np.generic) else value
        raise InputError(f"{name} is {shown!r}: give a whole number, {least} or more")


def same_size(what: str, **sizes: int) -> None:
    """Raise `InputError` unless all sizes are equal.

    Args:
        what: is counted, such as "dimensions".
        sizes: how many of them each array has, by the name of the argument.
    """
    if len(set(sizes.values())) > 1:
        found = " and ".join(f"{name} has {size}" for name, size in sizes.items())
        raise InputError(f"{found} {what}: give arrays of the same {what}")
