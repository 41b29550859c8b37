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


@struct.dataclass
class CorrelatedSets:
    r"""Sets of features that are present or absent together, independent of other sets.

    With probability $p_s$ all members of set $s$ are uniform on $(0, 1]$, each with a value of its
    own; else all are zero. So a member has density $p_s$, and two of a set
    $E x_i x_j = p_s / 4$.

    Attributes:
        num_sets: at least 1.
        size: features of a set, side by side; at least 1. Sets of one are `SparseUniform`.
        density: $p$, the probability that a set is present, in $(0, 1]$; one number, or one per
            set.

    References:
        Elhage et al. (2022), section "The Geometry of Non-Uniform Superposition".
    """

    num_sets: int = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)
    density: Float[Array, "*cells"] | float

    @property
    def num_features(self) -> int:
        """All members of all sets."""
        return self.num_sets * self.size

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = _density(self.density, self.num_sets, each="set")
        checks.count("size", self.size)
        uniform = _uniform(key, batch, self.num_sets + self.num_features)
        present = uniform[: self.num_sets] < density
        members = jnp.repeat(present, self.size, axis=0)
        return jnp.where(members, 1 - uniform[self.num_sets :], 0.0).T


@struct.dataclass
class AnticorrelatedSets:
    r"""Sets of features of which at most one is present, independent of other sets.

    With probability $p_s$ one member of set $s$, each as likely, is uniform on $(0, 1]$; all others
    are zero. So a member has density $p_s / \text{size}$, and two of a set $E x_i x_j = 0$.

    One random word makes set, member and value: with $t = u \cdot \text{size} / p_s$ for
    $u \sim U[0, 1)$, member $\lfloor t \rfloor$ has the value $1 - (t - \lfloor t \rfloor)$.

    Attributes:
        num_sets: at least 1.
        size: features of a set, side by side; at least 1. Sets of one are `SparseUniform`.
        density: $p$, the probability that a SET is present, in $(0, 1]$; one number, or one per
            set.

    References:
        Elhage et al. (2022), section "The Geometry of Non-Uniform Superposition".
    """

    num_sets: int = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)
    density: Float[Array, "*cells"] | float

    @property
    def num_features(self) -> int:
        """All members of all sets."""
        return self.num_sets * self.size

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = _density(self.density, self.num_sets, each="set")
        checks.count("size", self.size)
        place = _uniform(key, batch, self.num_sets) * (self.size / density)
        member = jnp.tile(jnp.arange(self.size, dtype=place.dtype), self.num_sets)
        since = jnp.repeat(place, self.size, axis=0) - member[:, None]
        return jnp.where((since >= 0) & (since < 1), 1 - since, 0.0).T


def _density(density: Array | float, count: int, each: str = "feature") -> Float[Array, "count 1"]:
    checks.count(f"num_{each}s", count)
    checks.interval(
        "density",
        density,
        low=0,
        high=1,
        open_low=True,
        remedy=f"it is the probability 1 - S that a {each} is not zero",
    )
    density = jnp.asarray(density)
    if density.shape not in ((), (count,)):
        raise InputError(
            f"density has shape {density.shape}: give one number or {count}, one per {each}"
        )
    return jnp.broadcast_to(density, (count,))[:, None]


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
