"""Checks of the inputs of measures, which are real numbers of ONE model.

Whole numbers and truth values become floats, because sums of bytes would wrap around. Labels have
to be truth values. A measure of numbers that are not finite is NaN; it is never a count that hides
them. A measure whose answer cannot be NaN, such as a mask or an index, refuses these numbers.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from toymodels.errors import InputError


def floats(name: str, value: Any, *, rank: int) -> Float[Array, "..."]:
    """Return an array in floating point: in its own precision, but in that of at least 32 bits.

    Args:
        name: the name of the argument, as the user knows it.
        value: anything that JAX takes for an array, or a labelled array of a sweep.
        rank: the number of dimensions that the array has for ONE model.

    Raises:
        ValueError: a value that is no array, another number of dimensions, or complex numbers.
    """
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} is of type {type(value).__name__}: give one array of numbers"
        ) from error
    if array.ndim != rank:
        raise InputError(
            f"{name} has shape {array.shape}, and one model has {rank} dimension"
            f"{'s' * (rank != 1)} here: map the measure over the others with jax.vmap, or over the "
            "results of a sweep with tm.apply"
        )
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise InputError(f"{name} holds complex numbers ({array.dtype}): give real ones")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(float)
    return array if jnp.finfo(array.dtype).bits >= 32 else array.astype(jnp.float32)


def labels(name: str, value: Any, *, rank: int) -> Bool[Array, "..."]:
    """Return an array of truth values as it is.

    Raises:
        ValueError: numbers, because 1 and -1, or the values of a feature, would all count as true;
            another number of dimensions.
    """
    array = jnp.asarray(value)
    if array.dtype != bool:
        raise InputError(f"{name} are {array.dtype}: give truth values, such as {name} > 0")
    if array.ndim != rank:
        raise InputError(f"{name} has shape {array.shape}: give {rank} dimensions, or use jax.vmap")
    return array


def indices(name: str, value: Any, *, latents: int) -> Int[Array, " entries"]:
    """Return the latent of each feature, or -1 for none, as it is.

    Raises:
        ValueError: an array that is no vector of whole numbers, or that names a latent that does
            not exist: JAX would take the last one, or NaN. Traced numbers pass.
    """
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer) or array.ndim != 1:
        raise InputError(
            f"{name} is of {array.dtype} and shape {array.shape}: give the indices from `match`"
        )
    if not isinstance(array, Tracer):
        numbers = np.asarray(array)
        unknown = numbers[(numbers < -1) | (numbers >= latents)]
        if unknown.size:
            raise InputError(
                f"{name} holds {unknown[0]}, but there are {latents} latents: give the indices "
                "from `match` of this dictionary"
            )
    return array


def refuse_missing(name: str, value: Any) -> None:
    """Raise `InputError` if a concrete array holds NaN or infinity; a traced one passes."""
    if not isinstance(value, Tracer) and not np.isfinite(value).all():
        raise InputError(
            f"{name} holds NaN or infinity: training diverged (lower the learning rate), or a "
            "sweep over shapes padded it with NaN (drop the padding, as .dropna does)"
        )


def unless_missing(result: Array, *arrays: Array) -> Array:
    """Return the result as floats, or NaN if a number in one of the arrays is not finite."""
    if any(isinstance(array, Tracer) for array in (result, *arrays)):
        finite = jnp.stack([jnp.isfinite(array).all() for array in arrays]).all()
    else:  # JAX would compile two programs for each shape
        finite = all(np.isfinite(array).all() for array in arrays)
    dtype = result.dtype if jnp.issubdtype(result.dtype, jnp.floating) else arrays[0].dtype
    return jnp.where(finite, result.astype(dtype), jnp.nan)
