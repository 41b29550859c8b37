"""The interface of every distribution of features, and the pieces that they share.

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
    """A distribution of vectors of features."""

    @property
    def num_features(self) -> int:
        """The number of features of a sample."""
        ...

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        ...


MIN_DENSITY = 1e-7
r"""The smallest density $p$ that 32 random bits represent well.

A uniform number from one random word is below $p$ with probability
$\lceil p\,2^{32}\rceil / 2^{32}$. At this density that is at most 0.23 % too large.
"""


def density(
    density: Array | np.ndarray | float,
    count: int,
    each: str = "feature",
    *,
    values: Any = 1,
    minimum: float = MIN_DENSITY,
) -> Float[Array, "count 1"]:
    """Return one density for each of `count` features, after checks.

    Args:
        density: one number, or one number for each feature.
        count: the number of features.
        each: what has the density, such as "feature" or "set".
        values: the number of equally likely values that a present feature takes.
        minimum: the smallest probability that the random numbers represent well.
    """
    checks.count(f"num_{each}s", count)
    checks.density(density, each=each)
    shape = np.shape(density)
    if shape not in ((), (count,)):
        raise InputError(f"density has shape {shape}: give one number or {count}, one per {each}")
    # Known numbers stay in NumPy: as traced numbers they would pass the check.
    plain = density if isinstance(density, Tracer) else np.asarray(density, np.float64)
    checks.interval(
        f"density of a {each}" + (" over its number of values" if np.any(values != 1) else ""),
        plain / values,
        low=minimum * (1 - 2e-7),  # roundings of 32 bits
        high=1,
        remedy="random numbers are too coarse for less; for the limit of one active feature "
        "there is toymodels.theory.expected_loss_one_active",
    )
    density = jnp.asarray(density, jnp.result_type(float))
    return jnp.broadcast_to(density, (count,))[:, None]


def words(key: Key[Array, ""], batch: int, num_features: int) -> UInt32[Array, "features batch"]:
    """Return one random word for each feature of each example.

    Examples are along the last axis, here and until the end of every `sample`, because processors
    vectorise along the last axis and it should be the long one.
    """
    checks.count("batch", batch)
    return jax.random.bits(key, (num_features, batch), jnp.uint32)


def uniform(key: Key[Array, ""], batch: int, num_features: int) -> Float[Array, "features batch"]:
    """Return uniform numbers on [0, 1) made of 32 bits, so that small values are precise."""
    dtype = jnp.result_type(float)
    uniform = words(key, batch, num_features).astype(dtype) * 2.0**-32
    return jnp.minimum(uniform, 1 - jnp.finfo(dtype).epsneg)  # the last words round to 1
