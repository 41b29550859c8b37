"""One example of a batch: a maker of whole batches, made to work on a single example.

A sampler makes a batch of random arrays with operations on whole arrays. If each of these works on
every example alone, they also make one example of the random numbers of that example.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array

from toymodels.engine import elements, interpreter
from toymodels.engine.elements import NotFusableError


def axis(shape: Sequence[int], batch: int) -> int:
    """Return the axis of an array along which the examples of a batch lie.

    Raises:
        NotFusableError: no axis, or more than one, has as many entries as the batch.
    """
    found = [place for place, size in enumerate(shape) if size == batch]
    if len(found) != 1:
        raise NotFusableError(
            f"{len(found)} axes of an array of shape {tuple(shape)} are as long as the batch: "
            "examples are not known from other entries"
        )
    return found[0]


def of_one(finish: core.ClosedJaxpr, batch: int) -> Callable[[Sequence[Array]], list[Array]]:
    """Return the maker of a batch as a function of the random numbers of ONE example.

    Args:
        finish: a traced function of random arrays to the arrays of a batch, each with the examples
            along its first axis.
        batch: the number of examples.

    Returns:
        A function of the random arrays without their axis of examples, to the arrays of that
        example.

    Raises:
        NotFusableError: an operation could mix examples.
    """
    for const in finish.consts:
        if batch in np.shape(const):
            raise NotFusableError("the sampler captures an array as long as the batch")
    for equation in finish.jaxpr.eqns:
        _check(equation, batch)
    axes = [axis(aval.shape, batch) for aval in finish.in_avals]

    def narrow(shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(1 if size == batch else size for size in shape)

    def bind(equation: core.JaxprEqn, bound: Callable[..., Any], operands: list[Any]) -> Any:
        """Apply an operation to arrays that have one example where they had all."""
        resized = _RESIZING.get(equation.primitive.name)
        if resized is None:
            return bound(*operands)
        params = equation.params
        return equation.primitive.bind(*operands, **params | {resized: narrow(params[resized])})

    def one(example: Sequence[Array]) -> list[Array]:
        rows = [jnp.expand_dims(leaf, place) for leaf, place in zip(example, axes, strict=True)]
        outputs = interpreter.evaluate(finish, rows, bind=bind, inner=lambda program: program)
        return [output[0] for output in outputs]

    return one


# Operations that change shapes, and the parameter that holds the new one.
_RESIZING = {"broadcast_in_dim": "shape", "reshape": "new_sizes"}


def _check(equation: core.JaxprEqn, batch: int) -> None:
    """Raise `NotFusableError` unless an operation works on each example alone."""
    name = equation.primitive.name
    before, after = (
        [_shape(atom) for atom in atoms] for atoms in (equation.invars, equation.outvars)
    )
    alone = name in elements.ELEMENTWISE or name in ("broadcast_in_dim", "squeeze", "transpose")
    if name == "reshape":  # it may add or drop axes of one entry
        alone = _long(before[0]) == _long(after[0])
    if not alone:
        raise NotFusableError(f"the sampler makes examples by '{name}', which could mix them")
    for shape in (*before, *after):
        if batch in shape:
            axis(shape, batch)


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(atom.aval.shape)


def _long(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]
