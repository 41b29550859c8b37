"""Features in sets: present together, or one of a set at a time."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.features import base


@struct.dataclass
class CorrelatedSets:
    r"""Sets of features that are present or absent together, independent of other sets.

    With probability $p_s$ all members of set $s$ are uniform on $(0, 1]$, each with a value of its
    own; else all are zero. So a member has density $p_s$, and two of a set
    $E x_i x_j = p_s / 4$.

    Attributes:
        num_sets: at least 1.
        size: features of a set, side by side; at least 1. Sets of one are `SparseUniform`.
        density: $p$, the probability that a set is present, in $[10^{-7}, 1]$; one number,
            or one per set.

    References:
        Elhage et al. (2022), section "The Geometry of Non-Uniform Superposition".
    """

    num_sets: int = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    @property
    def num_features(self) -> int:
        """All members of all sets."""
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
    r"""Sets of features of which at most one is present, independent of other sets.

    With probability $p_s$ one member of set $s$, each as likely, is uniform on $(0, 1]$; all others
    are zero. So a member has density $p_s / \text{size}$, and two of a set $E x_i x_j = 0$.

    One random word makes set, member and value: with $t = u \cdot \text{size} / p_s$ for
    $u \sim U[0, 1)$, member $\lfloor t \rfloor$ has the value $1 - (t - \lfloor t \rfloor)$.

    Attributes:
        num_sets: at least 1.
        size: features of a set, side by side; at least 1. Sets of one are `SparseUniform`.
        density: $p$, the probability that a SET is present; one number, or one per set. In
            $(0, 1]$, and at least $10^{-7}$ for a member.

    References:
        Elhage et al. (2022), section "The Geometry of Non-Uniform Superposition".
    """

    num_sets: int = struct.field(pytree_node=False)
    size: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    @property
    def num_features(self) -> int:
        """All members of all sets."""
        return self.num_sets * self.size

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        checks.count("size", self.size)
        density = base.density(self.density, self.num_sets, each="set", values=self.size)
        place = base.uniform(key, batch, self.num_sets) * (self.size / density)
        member = jnp.tile(jnp.arange(self.size, dtype=place.dtype), self.num_sets)
        since = jnp.repeat(place, self.size, axis=0) - member[:, None]
        return jnp.where((since >= 0) & (since < 1), 1 - since, 0.0).T


@struct.dataclass
class Concepts:
    r"""Concepts that each take one of their values: "royal or common", "man or woman".

    Concept $c$ has $k_c$ features, one for each value, of which exactly one is 1, each as likely;
    with probability $1 - p_c$ the concept does not apply and all are 0. Concepts are independent.
    So a value has density $p_c / k_c$. About their mean, the $k$ one-hot vectors of a concept that
    always applies form a regular simplex: their cosines are $-1/(k-1)$.

    Attributes:
        sizes: $k_c$, values of each concept, at least 1. Their features are side by side.
        density: $p_c$, the probability that the concept applies; one number, or one per concept.
            In $(0, 1]$, and at least $10^{-7}$ for a value.

    References:
        Park, Choe, Jiang, Veitch (2024), "The Geometry of Categorical and Hierarchical Concepts
        in Large Language Models".
    """

    sizes: tuple[int, ...] = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    @property
    def num_features(self) -> int:
        """All values of all concepts."""
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
        since = place[concept] - jnp.asarray(value, place.dtype)[:, None]
        return jnp.where((since >= 0) & (since < 1), 1.0, 0.0).T
