"""Checks of numbers at the place where they are used, with a remedy in each message.

A number that is known is checked at once. A traced number has no value yet: a sweep collects the
checks of such numbers with `postponed`, and makes them for all its points before it runs.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from toymodels.errors import InputError


class Postponed(NamedTuple):
    """A check of traced values, `check(*values)`, to be made when the values are known.

    Attributes:
        check: the check.
        values: the values.
        elementwise: whether the check looks at each number alone.
    """

    check: Callable[..., None]
    values: tuple[Any, ...]
    elementwise: bool


_postponed: contextvars.ContextVar[list[Postponed] | None] = contextvars.ContextVar(
    "postponed", default=None
)


@contextlib.contextmanager
def postponed() -> Generator[list[Postponed]]:
    """Collect the checks of traced values that are reached inside the `with` block."""
    collected: list[Postponed] = []
    token = _postponed.set(collected)
    try:
        yield collected
    finally:
        _postponed.reset(token)


def when_known(check: Callable[..., None], *values: Any, elementwise: bool = False) -> None:
    """Call `check(*values)` now, or, if a value is traced, when a sweep knows the values.

    Args:
        check: a function that raises `InputError` for values that it refuses. A sweep calls it
            once for every point, with arrays of the traced shapes.
        *values: numbers or arrays. Outside a sweep, traced values are not checked.
        elementwise: whether the check looks at each number alone. A sweep then calls it only once,
            with the numbers of all points.
    """
    if not any(isinstance(value, Tracer) for value in values):
        check(*values)
    elif (collected := _postponed.get()) is not None:
        collected.append(Postponed(check, values, elementwise))


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
        name: the name of the value, as the user knows it.
        value: a number or an array; see `when_known`. NaN and infinity never pass.
        low: the smallest allowed value.
        high: the largest allowed value.
        open_low: whether `low` itself is refused.
        remedy: what the user can do instead.
    """
    check = functools.partial(
        _refuse_outside, name=name, low=low, high=high, open_low=open_low, remedy=remedy
    )
    when_known(check, value, elementwise=True)


def _refuse_outside(
    value: Any, *, name: str, low: float, high: float, open_low: bool, remedy: str
) -> None:
    """Raise the error of `interval`.

    Inside `interval` it would be a new function at each call, and the tests would prepare the check
    of its types again each time, which takes a millisecond.
    """
    numbers = np.asarray(value, np.float64)
    above = numbers > low if open_low else numbers >= low
    wrong = numbers[~(above & (numbers <= high) & np.isfinite(numbers))]
    if wrong.size and math.isinf(low) and math.isinf(high):
        raise InputError(f"{name} is {wrong[0]:g}, not a finite number: {remedy}")
    if wrong.size:
        bounds = f"{'(' if open_low else '['}{low:g}, {high:g}]"
        raise InputError(f"{name} is {wrong[0]:g}, outside {bounds}: {remedy}")


def density(value: Any, *, each: str = "feature", positive: bool = True) -> None:
    """Raise `InputError` unless every element of `value` is the density of a feature.

    Args:
        value: one number or an array.
        each: what has the density: a feature, a set or a concept.
        positive: whether zero is refused, too.
    """
    remedy = f"it is the probability 1 - S that a {each} is not zero"
    interval("density", value, low=0, high=1, open_low=positive, remedy=remedy)


def count(name: str, value: Any, *, minimum: int = 1) -> None:
    """Raise `InputError` unless `value` is a whole Python number of at least `minimum`."""
    if isinstance(value, Tracer):
        raise InputError(
            f"{name} decides shapes, so it cannot be an axis of numbers: sweep it with static="
        )
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        shown = value.item() if isinstance(value, np.generic) else value
        raise InputError(f"{name} is {shown!r}: give a whole number, {minimum} or more")


def function(name: str, value: Any, *, remedy: str) -> None:
    """Raise `InputError` unless `value` is a function.

    Args:
        name: the name of the argument.
        value: what was given.
        remedy: what the user should give instead.
    """
    if not callable(value):
        raise InputError(f"{name} is of type {type(value).__name__}, not a function: {remedy}")


def has_gradient(name: str, value: Any, *, remedy: str) -> None:
    """Raise `InputError` unless `value` is made of floats, the only numbers with a gradient.

    Args:
        name: the name of the function that returned the value.
        value: an array.
        remedy: what the user can do instead.
    """
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(f"{name} returns {value.dtype}, which has no gradient: {remedy}")


def as_number(value: Any) -> Array:
    """Return an array in which truth values, such as whether an answer is right, are 1 or 0."""
    array = jnp.asarray(value)
    return array.astype(float) if array.dtype == bool else array


def same_size(what: str, **sizes: int) -> None:
    """Raise `InputError` unless all sizes are equal.

    Args:
        what: what is counted, such as "dimensions".
        sizes: the number that each argument has, by the name of the argument.
    """
    if len(set(sizes.values())) > 1:
        found = " and ".join(f"{name} has {size}" for name, size in sizes.items())
        raise InputError(f"{found} {what}: give arrays with equal numbers of {what}")
