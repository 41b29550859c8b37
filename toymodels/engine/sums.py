"""Sums of many numbers that come one by one, without the drift of one running sum.

A running sum of n equal float32 numbers is off by up to n roundings of the whole sum. Here
sixteen numbers make a sum of the first level, sixteen of these one of the second, and so on,
so that each number takes part in few additions. Compensated sums are no alternative: under
the engine's compiler options algebra removes the compensation.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int, Num

LENGTH = 16
"""The number of summands of one running sum."""


def empty(like: Any, most: int) -> Num[Array, "levels *shape"]:
    """Return the sum of no numbers.

    Args:
        like: an array, or its shape and type, as each of the numbers has them.
        most: the maximum number of numbers.
    """
    levels = 1
    while LENGTH**levels < most:
        levels += 1
    return jnp.zeros((levels, *like.shape), like.dtype)


def add(sums: Array, number: Any, index: Int[Array, ""]) -> Array:
    """Return the sums after one more number, whose index counts from 0.

    The last of sixteen sums of one level is added to the next level, and that level starts at 0
    again. The sum of all numbers is the sum over the levels.
    """
    levels = [sums[0] + number, *sums[1:]]
    for level in range(1, len(levels)):
        full = (index + 1) % LENGTH**level == 0
        levels[level] = levels[level] + jnp.where(full, levels[level - 1], 0)
        levels[level - 1] = jnp.where(full, 0, levels[level - 1])
    return jnp.stack(levels)
