"""Theory is computed in float64, unless JAX is tracing: then the arguments decide."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array


def in_float64(function: Callable[..., Any], *numbers: Any) -> Any:
    """Call `function` in float64 on plain numbers, or as it is if one of them is traced.

    Args:
        function: of as many arrays, to a tree of arrays.
        *numbers: arrays or numbers.

    Returns:
        Of plain numbers, NumPy arrays, which keep their digits in arithmetic outside of
        `jax.enable_x64`, as arrays of JAX would not.
    """
    if any(isinstance(value, Tracer) for value in numbers):
        return function(*map(floating, numbers))
    # Plain numbers have plain results, also while something else is traced.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return jax.tree.map(np.asarray, function(*(np.asarray(v, np.float64) for v in numbers)))


def floating(value: Any) -> Array:
    """A traced value, whole numbers as floats of the default precision."""
    return jnp.asarray(value, jnp.result_type(value, float))
