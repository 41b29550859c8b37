"""Checks of batches and of functions that the user gives."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from toymodels import checks
from toymodels.errors import InputError

Metric: TypeAlias = Callable[[Any], Array]
"""A function of the output of a model for ONE example that returns a number."""


def length(**batches: PyTree) -> int:
    """Return the number of examples of some batches, which all their arrays share.

    Args:
        **batches: batches of examples along the leading axis, by the names of the arguments.

    Raises:
        ValueError: a batch is empty, or its arrays or two batches have different lengths.
    """
    lengths: dict[str, int] = {}
    for name, batch in batches.items():
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
        found = {shape[:1] for shape in shapes}
        if len(found) != 1 or found <= {(), (0,)}:
            raise InputError(
                f"{name} has shapes {', '.join(map(str, shapes)) or 'none'}: give a batch of one "
                "example or more along the first axis of every array"
            )
        lengths[name] = shapes[0][0]
    checks.same_size("entries along the leading axis", **lengths)
    return next(iter(lengths.values()))


def number_from(metric: Metric) -> Metric:
    """Return the metric with a check that it gives one number for the output of ONE example.

    A truth value, such as whether an answer is right, becomes 1 or 0.
    """
    value_of = _checked(metric)
    return lambda output: checks.as_number(value_of(output))


def with_gradient(metric: Metric) -> Metric:
    """Return the metric with a check that it gives one number, and one that has a gradient."""
    value_of = _checked(metric)

    def number(output: Any) -> Array:
        value = value_of(output)
        remedy = "give a number that changes with the output, such as the difference of two outputs"
        checks.has_gradient("the metric", value, remedy=remedy)
        return value

    return number


def _checked(metric: Metric) -> Metric:
    checks.function(
        "metric", metric, remedy="give a function of the output, such as lambda y: y[0]"
    )

    def value_of(output: Any) -> Array:
        value = jnp.asarray(metric(output))
        if value.shape:
            raise InputError(
                f"the metric returns shape {value.shape}: give a function of the output that "
                "returns one number, such as lambda y: y[0]"
            )
        return value

    return value_of
