"""What every distribution over features is, and what they are made of.

A new distribution is a `flax.struct.dataclass` with `num_features` and `sample`; nothing
else needs to know of it. Its numbers may be swept, its static fields may not.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key, UInt32

from toymodels import checks
from toymodels.errors import InputError


@runtime_checkable
class Features(Protocol):
    """A distribution over vectors of features."""

    @property
    def num_features(self) -> int:
        """How many features a sample has."""
        ...

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        ...


LEAST_DENSITY = 1e-7
r"""Least probability $p$ that 32 random bits tell apart.

A number from one random word is below $p$ with probability $\lceil p\,2^{32}\rceil / 2^{32}$:
here at most 0.23 % too often, and more so below.
"""


def density(
    density: Array | np.ndarray | float,
    count: int,
    each: str = "feature",
    *,
    values: Any = 1,
    least: float = LEAST_DENSITY,
) -> Float[Array, "count 1"]:
    """One density for each of `count` features, or of what `each` names, after checks.

    Args:
        density: one number, or one for each.
        count: how many.
        each: what has the density.
        values: among how many, as likely, a random word that says "present" chooses.
        least: least probability that the random numbers tell apart.
    """
    checks.count(f"num_{each}s", count)
    checks.interval(
        "density",
        density,
        low=0,
        high=1,
        open_low=True,
        remedy=f"it is the probability 1 - S that a {each} is not zero",
    )
    shape = np.shape(density)
    if shape not in ((), (count,)):
        raise InputError(f"density has shape {shape}: give one number or {count}, one per {each}")
    # In NumPy where the numbers are there: traced, they would pass.
    plain = density if isinstance(density, Tracer) else np.asarray(density, np.float64)
    checks.interval(
        f"density of a {each}" + (" over its number of values" if np.any(values != 1) else ""),
        plain / values,
        low=least * (1 - 2e-7),  # roundings of 32 bits
        high=1,
        remedy="random numbers are too coarse for less; for the limit of one active feature "
        "there is toymodels.theory.expected_loss_one_active",
    )
    density = jnp.asarray(density, jnp.result_type(float))
    return jnp.broadcast_to(density, (count,))[:, None]


def words(key: Key[Array, ""], batch: int, num_features: int) -> UInt32[Array, "features batch"]:
    """One random word for each feature of each example.

    Features-major, here and until the end of every `sample`: processors vectorise along the
    innermost axis, so it should be the long one.
    """
    checks.count("batch", batch)
    return jax.random.bits(key, (num_features, batch), jnp.uint32)


def uniform(key: Key[Array, ""], batch: int, num_features: int) -> Float[Array, "features batch"]:
    """Uniform on [0, 1), from all 32 bits of a word, so that small values are fine."""
    dtype = jnp.result_type(float)
    uniform = words(key, batch, num_features).astype(dtype) * 2.0**-32
    return jnp.minimum(uniform, 1 - jnp.finfo(dtype).epsneg)  # the last words round to 1
