"""The precision of the theory: float64 for plain numbers, that of the arguments under tracing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array


def in_float64(function: Callable[..., Any], *numbers: Any) -> Any:
    """Call `function` in float64 on plain numbers, or in the given precision on traced ones.

    Args:
        function: a function of arrays that returns a pytree of arrays.
        *numbers: its arguments, arrays or numbers. If one of them is traced, all count as traced.

    Returns:
        For plain numbers, NumPy arrays: these keep their digits in arithmetic outside of
        `jax.enable_x64`, where arrays of JAX would lose them.
    """
    if any(isinstance(value, Tracer) for value in numbers):
        return function(*map(floating, numbers))
    # Plain numbers have plain results, also while something else is traced.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return jax.tree.map(np.asarray, function(*(np.asarray(v, np.float64) for v in numbers)))


def floating(value: Any) -> Array:
    """Return a traced value, with whole numbers as floats of the default precision."""
    return jnp.asarray(value, jnp.result_type(value, float))
