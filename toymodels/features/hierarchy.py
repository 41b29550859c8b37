"""Features in trees: a child is present only if its parent is."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.errors import InputError
from toymodels.features import base


@struct.dataclass
class Hierarchy:
    r"""Features in trees: "animal", and only where there is one, "mammal", "dog".

    Feature $i$ is present with probability $p_i$ if its parent is, else absent; a root has no
    parent. So its density is the product of the $p$ from its root down to it. Values of present
    features are independent and uniform on (`smallest`, 1].

    One random word makes presence and value: feature $i$ takes the stretch $[s_i, s_i + p_i)$ of
    $u \sim U[0, 1)$ and the place of $u$ in it gives the value. All $s_i = 0$ with a word each,
    or, where `exclusive`, siblings share a word and lie side by side.

    Attributes:
        parents: index of each feature's parent, -1 for a root; a parent stands before its
            children. `(-1, 0, 0)` is one parent of two. See `balanced_tree`.
        density: $p_i$, the probability that a feature is present GIVEN its parent, in
            $[10^{-7}, 1]$; one number, or one per feature.
        exclusive: whether at most one child of a parent is present. The $p_i$ of siblings
            then add up to at most 1. Roots are independent in any case.
        smallest: in $[0, 1]$. With 1 every present feature is exactly 1.

    References:
        Chanin et al. (2024), "A is for Absorption: Studying Feature Splitting and Absorption in
        Sparse Autoencoders".
    """

    parents: tuple[int, ...] = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*densities"] | float
    exclusive: bool = struct.field(pytree_node=False)
    smallest: Float[Array | np.ndarray, "*values"] | float = 0.0

    @property
    def num_features(self) -> int:
        """All features of all trees."""
        return len(self.parents)

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = base.density(self.density, self.num_features)
        depth = _depth(self.parents)
        checks.interval("smallest", self.smallest, low=0, high=1, remedy="values end at 1")
        parents = np.asarray(self.parents)
        root = parents < 0

        word, start = np.arange(self.num_features), jnp.zeros_like(density)
        if self.exclusive:
            # Before a feature lie its elder siblings, in the word of the first of them.
            siblings = (parents[:, None] == parents[None, :]) & ~root[:, None]
            word = np.where(root, word, siblings.argmax(axis=1))
            elder = np.tril(siblings, -1)
            start = elder.astype(density.dtype) @ density
            if isinstance(self.density, Tracer):
                _check_siblings(density[:, 0], elder.astype(density.dtype))
            else:  # in NumPy, for traced numbers would pass
                _check_siblings(np.broadcast_to(self.density, len(parents)), elder)
        place = (base.uniform(key, batch, self.num_features)[word] - start) / density
        present = (place >= 0) & (place < 1)
        for _ in range(depth):  # each turn settles one level more
            present = present & (root[:, None] | present[parents])
        return jnp.where(present, 1 - (1 - self.smallest) * place, 0.0).T


def _check_siblings(density: Array | np.ndarray, elder: np.ndarray) -> None:
    """Whether the stretches of exclusive siblings fit on one word, and are told apart there.

    Args:
        density: of each feature.
        elder: whether the second is an elder sibling of the first.
    """
    start = elder @ density
    checks.interval(
        "sum of the densities of siblings",
        start + density,
        high=1 + 1e-6,
        remedy="at most one of exclusive siblings is present: give smaller densities",
    )
    # A word is read with 24 bits: on 2^-16 of it, a feature is right to 2^-8.
    checks.interval(
        "density of a feature over that of its elder siblings and itself",
        density / (start + density),
        low=2.0**-16,
        remedy="random numbers are too coarse for less: put rare siblings first",
    )


def balanced_tree(num_roots: int, *, branching: int, depth: int) -> tuple[int, ...]:
    """The parents of trees in which every feature but the last ones has `branching` children.

    Args:
        num_roots: number of trees.
        branching: children of a feature.
        depth: levels below the roots. With 0 there are only roots.

    Returns:
        For `Hierarchy`: level by level, so the roots come first.
    """
    checks.count("num_roots", num_roots)
    checks.count("branching", branching)
    checks.count("depth", depth, least=0)
    parents = [-1] * num_roots
    level = range(num_roots)
    for _ in range(depth):
        children = [parent for parent in level for _ in range(branching)]
        level = range(len(parents), len(parents) + len(children))
        parents += children
    return tuple(parents)


def _depth(parents: tuple[int, ...]) -> int:
    """Levels below the roots, after a check of the order."""
    depths: list[int] = []
    for feature, parent in enumerate(parents):
        if not -1 <= parent < feature:
            raise InputError(
                f"the parent of feature {feature} is {parent}: give -1 for a root, or a feature "
                "that stands before it"
            )
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return max(depths)
