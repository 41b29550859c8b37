"""Features in sets, which are present together or one at a time."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.features import base


@struct.dataclass
class CorrelatedSets:
    r"""Independent sets of features; the features of a set are present or absent together.

    With probability $p_s$ all features of set $s$ are uniform on $(0, 1]$, each with a value of
    its own; otherwise all are zero. So a feature has density $p_s$, and two features of a set have
    $E x_i x_j = p_s / 4$.

    Attributes:
        num_sets: the number of sets, at least 1.
        size: the number of features of a set, which are neighbours; at least 1. Sets of one
            feature are `SparseUniform`.
        density: the probability $p_s$ that a set is present, in $[10^{-7}, 1]$; one number, or one
            for each set.

    References:
        Elhage et al. (2022), section "The Geometry of Non-Uniform Superposition".
    """

    num_sets: int = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    @property
    def num_features(self) -> int:
        """The number of features of all sets."""
        return self.num_sets * self.size

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = base.density(self.density, self.num_sets, each="set")
        checks.count("size", self.size)
        uniform = base.uniform(key, batch, self.num_sets + self.num_features)
        present = uniform[: self.num_sets] < density
        members = jnp.repeat(present, self.size, axis=0)
        return jnp.where(members, 1 - uniform[self.num_sets :], 0.0).T


@struct.dataclass
class AnticorrelatedSets:
    r"""Independent sets of features; at most one feature of a set is present.

    With probability $p_s$ one feature of set $s$ is uniform on $(0, 1]$, and each is equally
    likely; all others are zero. So a feature has density $p_s / \text{size}$, and two features of a
    set have $E x_i x_j = 0$.

    One random word decides the presence of the set, the feature and its value: with
    $t = u \cdot \text{size} / p_s$ and $u \sim U[0, 1)$, feature $\lfloor t \rfloor$ of the set has
    the value $1 - (t - \lfloor t \rfloor)$.

    Attributes:
        num_sets: the number of sets, at least 1.
        size: the number of features of a set, which are neighbours; at least 1. Sets of one
            feature are `SparseUniform`.
        density: the probability $p_s$ that a SET is present, in $(0, 1]$; one number, or one for
            each set. The density of a feature must be at least $10^{-7}$.

    References:
        Elhage et al. (2022), section "The Geometry of Non-Uniform Superposition".
    """

    num_sets: int = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    @property
    def num_features(self) -> int:
        """The number of features of all sets."""
        return self.num_sets * self.size

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        checks.count("size", self.size)
        density = base.density(self.density, self.num_sets, each="set", values=self.size)
        place = base.uniform(key, batch, self.num_sets) * (self.size / density)
        member = jnp.tile(jnp.arange(self.size, dtype=place.dtype), self.num_sets)
        fraction = jnp.repeat(place, self.size, axis=0) - member[:, None]
        return jnp.where((fraction >= 0) & (fraction < 1), 1 - fraction, 0.0).T


@struct.dataclass
class Concepts:
    r"""Independent concepts that each take one of their values, as "man or woman" does.

    Concept $c$ has $k_c$ features, one for each of its values. With probability $p_c$ the concept
    applies: exactly one of its features is 1, and each is equally likely. Otherwise all are 0. So
    a feature has density $p_c / k_c$. About their mean, the $k$ one-hot vectors of a concept that
    always applies form a regular simplex: their cosines are $-1/(k-1)$.

    Attributes:
        sizes: the number $k_c$ of values of each concept, at least 1. The features of a concept
            are neighbours.
        density: the probability $p_c$ that a concept applies, in $(0, 1]$; one number, or one for
            each concept. The density of a feature must be at least $10^{-7}$.

    References:
        Park, Choe, Jiang, Veitch (2024), "The Geometry of Categorical and Hierarchical Concepts
        in Large Language Models".
    """

    sizes: tuple[int, ...] = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    @property
    def num_features(self) -> int:
        """The number of values of all concepts."""
        return sum(self.sizes)

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        for size in self.sizes:
            checks.count("size of a concept", size)
        values = np.asarray(self.sizes)
        density = base.density(self.density, len(self.sizes), each="concept", values=values)
        concept = np.repeat(np.arange(len(self.sizes)), self.sizes)
        value = np.concatenate([np.arange(size) for size in self.sizes])
        sizes = jnp.asarray(self.sizes, density.dtype)[:, None]
        place = base.uniform(key, batch, len(self.sizes)) * (sizes / density)
        fraction = place[concept] - jnp.asarray(value, place.dtype)[:, None]
        return jnp.where((fraction >= 0) & (fraction < 1), 1.0, 0.0).T
