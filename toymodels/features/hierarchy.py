"""Features in trees, in which a child is present only if its parent is."""

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
    r"""Features in trees: "dog" is present only if "mammal" is, and "mammal" only if "animal" is.

    Feature $i$ is present with probability $p_i$ if its parent is present, and otherwise absent; a
    root has no parent. So its density is the product of the $p$ from its root down to it. The
    values of present features are independent and uniform on (`smallest`, 1].

    One random word decides both presence and value. Feature $i$ is present if $u \sim U[0, 1)$
    falls into the interval $[s_i, s_i + p_i)$, and the place of $u$ in it gives the value. Usually
    each feature has a word of its own and $s_i = 0$. With `exclusive`, siblings share one word, and
    their intervals lie side by side.

    Attributes:
        parents: the index of each feature's parent, or -1 for a root. A parent stands before its
            children: `(-1, 0, 0)` is a root with two children. See `balanced_tree`.
        density: the probability $p_i$ that a feature is present GIVEN that its parent is, in
            $[10^{-7}, 1]$; one number, or one for each feature.
        exclusive: whether at most one child of a parent is present. The $p_i$ of siblings must
            then add up to at most 1. Roots are independent in any case.
        smallest: the lower end of the values, in $[0, 1]$. With 1 every present feature is 1.

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
        """The number of features of all trees."""
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
            # Exclusive siblings share the word of the first of them. The interval of each begins
            # where the intervals of its elder siblings end.
            siblings = (parents[:, None] == parents[None, :]) & ~root[:, None]
            word = np.where(root, word, siblings.argmax(axis=1))
            elder = np.tril(siblings, -1)
            start = elder.astype(density.dtype) @ density
            if isinstance(self.density, Tracer):
                _check_siblings(density[:, 0], elder.astype(density.dtype))
            else:  # known numbers stay in NumPy: as traced numbers they would pass
                _check_siblings(np.broadcast_to(self.density, len(parents)), elder)
        place = (base.uniform(key, batch, self.num_features)[word] - start) / density
        present = (place >= 0) & (place < 1)
        for _ in range(depth):  # each pass settles one more level of the trees
            present = present & (root[:, None] | present[parents])
        return jnp.where(present, 1 - (1 - self.smallest) * place, 0.0).T


def _check_siblings(density: Array | np.ndarray, elder: np.ndarray) -> None:
    """Check that the intervals of exclusive siblings fit into one word and are wide enough.

    Args:
        density: the density of each feature given its parent.
        elder: whether the feature of the column is an elder sibling of the feature of the row.
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
    """Return the parents of trees in which every feature above the last level has children.

    Args:
        num_roots: the number of trees.
        branching: the number of children of each such feature.
        depth: the number of levels below the roots. With 0 there are only roots.

    Returns:
        The index of each feature's parent, as `Hierarchy` takes it, level by level: the roots
        come first.
    """
    checks.count("num_roots", num_roots)
    checks.count("branching", branching)
    checks.count("depth", depth, minimum=0)
    parents = [-1] * num_roots
    level = range(num_roots)
    for _ in range(depth):
        children = [parent for parent in level for _ in range(branching)]
        level = range(len(parents), len(parents) + len(children))
        parents += children
    return tuple(parents)


def _depth(parents: tuple[int, ...]) -> int:
    """Return the number of levels below the roots, after a check of the order."""
    depths: list[int] = []
    for feature, parent in enumerate(parents):
        if not -1 <= parent < feature:
            raise InputError(
                f"the parent of feature {feature} is {parent}: give -1 for a root, or a feature "
                "that stands before it"
            )
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return max(depths)
