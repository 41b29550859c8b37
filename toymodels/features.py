"""Distributions over feature vectors: what the world looks like.

A new distribution is a `flax.struct.dataclass` with `num_features` and `sample`; nothing
else needs to know of it. Its numbers may be swept, its static fields may not.
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
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


@struct.dataclass
class SparseUniform:
    r"""Independent features, each zero with probability $1-p_i$, else uniform on $(0, 1]$.

    One random word makes mask and value: with $u \sim U[0, 1)$, $x_i = \max(0, 1 - u/p_i)$
    is positive exactly if $u < p_i$ and then uniform. So $E x_i = p_i/2$, $E x_i^2 = p_i/3$.

    Attributes:
        num_features: $n$, at least 1.
        density: $p = 1 - S$, the probability that a feature is not zero, in $(0, 1]$; one
            number, or one per feature.

    References:
        Elhage et al. (2022), "Toy Models of Superposition", section 2.
    """

    num_features: int = struct.field(pytree_node=False)
    density: Float[Array, "*cells"] | float

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = _density(self.density, self.num_features)
        return jnp.maximum(0.0, 1 - _uniform(key, batch, self.num_features) / density).T


@struct.dataclass
class SignedSparseUniform:
    r"""Independent features, each zero with probability $1-p_i$, else uniform on $[-1, 1]$.

    With $v \sim U[-1, 1)$, $|x_i| = \max(0, 1 - |v|/p_i)$ is positive exactly if $|v| < p_i$ and
    then uniform; $x_i$ has the sign of $v$. So $E x_i = 0$, $E x_i^2 = p_i/3$.

    Attributes:
        num_features: $n$, at least 1.
        density: $p$, in $(0, 1]$; one number, or one per feature.

    References:
        Elhage et al. (2022), section "Computation in Superposition".
    """

    num_features: int = struct.field(pytree_node=False)
    density: Float[Array, "*cells"] | float

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = _density(self.density, self.num_features)
        signed = lax.bitcast_convert_type(_words(key, batch, self.num_features), jnp.int32)
        signed = signed.astype(jnp.result_type(float)) * 2.0**-31
        size = jnp.maximum(0.0, 1 - jnp.abs(signed) / density)
        return jnp.where(signed < 0, -size, size).T


@struct.dataclass
class Binary:
    r"""Independent features, each 1 with probability $p_i$, else 0.

    Attributes:
        num_features: $n$, at least 1.
        density: $p$, in $(0, 1]$; one number, or one per feature.
    """

    num_features: int = struct.field(pytree_node=False)
    density: Float[Array, "*cells"] | float

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = _density(self.density, self.num_features)
        uniform = _uniform(key, batch, self.num_features)
        return jnp.where(uniform < density, 1.0, 0.0).T


def _density(density: Array | float, num_features: int) -> Float[Array, "features 1"]:
    checks.count("num_features", num_features)
    checks.interval(
        "density",
        density,
        low=0,
        high=1,
        open_low=True,
        remedy="it is the probability 1 - S that a feature is not zero",
    )
    density = jnp.asarray(density)
    if density.shape not in ((), (num_features,)):
        raise InputError(
            f"density has shape {density.shape}: give one number or {num_features}, one per feature"
        )
    return jnp.broadcast_to(density, (num_features,))[:, None]


def _words(key: Key[Array, ""], batch: int, num_features: int) -> UInt32[Array, "features batch"]:
    """One random word for each feature of each example.

    Features-major, here and until the end of every `sample`: processors vectorise along the
    innermost axis, so it should be the long one.
    """
    checks.count("batch", batch)
    return jax.random.bits(key, (num_features, batch), jnp.uint32)


def _uniform(key: Key[Array, ""], batch: int, num_features: int) -> Float[Array, "features batch"]:
    """Uniform on [0, 1), from all 32 bits of a word, so that small values are fine."""
    dtype = jnp.result_type(float)
    uniform = _words(key, batch, num_features).astype(dtype) * 2.0**-32
    return jnp.minimum(uniform, 1 - jnp.finfo(dtype).epsneg)  # the last words round to 1
