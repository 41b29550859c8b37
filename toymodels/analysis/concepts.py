r"""Concepts as directions: differences of words, and an inner product for angles between them.

A word $w$ has an unembedding $\gamma(w)$, one row of an array, and a context has an embedding
$\lambda$ such that $P(w \mid \lambda) \propto \exp(\lambda \cdot \gamma(w))$. Every invertible $A$
gives the same probabilities with $A \gamma$ and $A^{-\top} \lambda$, so the Euclidean angle between
two unembeddings means nothing by itself. These are pure functions of ONE model or one set of
words; `vmap` over a sweep.

References:
    Park, Choe and Veitch (2024), "The Linear Representation Hypothesis and the Geometry of Large
    Language Models".
    Park, Choe, Jiang and Veitch (2024), "The Geometry of Categorical and Hierarchical Concepts in
    Large Language Models".
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.analysis import geometry, inputs, units

__all__ = [
    "causal_metric",
    "cosines",
    "held_out_cosines",
    "hierarchy_cosines",
    "simplex_deviation",
]


def held_out_cosines(differences: Float[Array, "pairs hidden"]) -> Float[Array, " pairs"]:
    r"""Return the cosine of each difference of two words with the mean of the other differences.

    Pair $i$ has the difference $d_i = \gamma(w_i') - \gamma(w_i)$, and the mean of the others is
    the direction of the concept, fitted without pair $i$. The cosine is large if all pairs differ
    in one way, as "king" and "queen" differ like "man" and "woman".

    Args:
        differences: $d_i$, one row per pair.

    Returns:
        Numbers in $[-1, 1]$: 1 for parallel differences, 0 for orthogonal ones, -1 if all
        differences add up to 0, and 0 for a difference of 0.

    Raises:
        ValueError: fewer than two pairs.
    """
    differences = inputs.floats("differences", differences, rank=2)
    checks.count("number of pairs", differences.shape[0], minimum=2)
    differences, _ = units.scaled(differences)
    others = jnp.sum(differences, axis=0)[None, :] - differences
    return jnp.sum(_directions(differences) * _directions(others), axis=1)


def _directions(rows: Float[Array, "rows hidden"]) -> Float[Array, "rows hidden"]:
    """Return rows of length 1, and zero rows for zero rows."""
    lengths = geometry.feature_norms(rows.T)
    return rows / jnp.where(lengths == 0, 1.0, lengths)[:, None]  # NaN stays NaN


def causal_metric(unembeddings: Float[Array, "words hidden"]) -> Float[Array, "hidden hidden"]:
    r"""Return the inner product in which concepts that vary independently are orthogonal.

    $$M = \operatorname{Cov}(\gamma)^-, \qquad \langle u, v \rangle_C = u^\top M v,$$

    with the covariance over all words, equally weighted. If words span fewer dimensions, $M$ is a
    generalised inverse; all of these give equal products of differences of words. The result does
    not depend on the units of the coordinates.

    If $\gamma(w) = \sum_i c_i(w) a_i$ with uncorrelated concepts $c_i$ of variance 1 and linearly
    independent $a_i$, then $a_i^\top M a_j = \delta_{ij}$ at any angles of the $a_i$. In the space
    of unembeddings the direction $a_i$ measures a concept. Adding $M a_i$ to an embedding changes
    this concept and no other.

    Args:
        unembeddings: $\gamma(w)$, one row per word.

    Returns:
        A symmetric, positive semidefinite matrix of the rank of the covariance; 0 along coordinates
        in which the words do not differ.
    """
    unembeddings = inputs.floats("unembeddings", unembeddings, rank=2)
    root = units.whitening(units.centred(unembeddings))
    return root @ root.T


def cosines(
    directions: Float[Array, "directions hidden"], metric: Float[Array, "hidden hidden"]
) -> Float[Array, "directions directions"]:
    r"""Return all cosines in an inner product, $u^\top M v / \lVert u \rVert_M \lVert v \rVert_M$.

    Args:
        directions: one per row.
        metric: $M$, which is `causal_metric`, or the identity for ordinary angles.

    Returns:
        A symmetric matrix in $[-1, 1]$ with 1 on the diagonal; 0 for a direction of length 0.
    """
    directions = inputs.floats("directions", directions, rank=2)
    metric = inputs.floats("metric", metric, rank=2)
    checks.same_size("dimensions", directions=directions.shape[1], metric=metric.shape[0])
    # The length of a direction does not change an angle.
    directions, _ = units.scaled(directions, axis=1)
    products = directions @ metric @ directions.T
    squared_lengths = jnp.diagonal(products)
    lengths = jnp.sqrt(jnp.where(squared_lengths > 0, squared_lengths, jnp.inf))
    return products / lengths[:, None] / lengths[None, :]


def simplex_deviation(
    categories: Float[Array, "categories hidden"], metric: Float[Array, "hidden hidden"]
) -> Float[Array, ""]:
    r"""Return how far $k$ categories are from a regular simplex.

    It is the root mean square of $\cos(v_i, v_j) + 1 / (k - 1)$ over $i \ne j$, where the $v_i$ are
    the categories minus their mean. Exclusive and interchangeable categories form a regular
    simplex, whose deviation is 0.

    Args:
        categories: one vector per row.
        metric: the inner product: `causal_metric`, or the identity for ordinary angles.

    Returns:
        A number of at least 0. Two categories always have 0, because they are opposite about their
        mean.

    Raises:
        ValueError: fewer than two categories.
    """
    categories = inputs.floats("categories", categories, rank=2)
    metric = inputs.floats("metric", metric, rank=2)
    size = categories.shape[0]
    checks.count("number of categories", size, minimum=2)
    angles = cosines(categories - jnp.mean(categories, axis=0)[None, :], metric)
    pairs = 1 - jnp.eye(size, dtype=angles.dtype)
    return jnp.sqrt(jnp.sum(pairs * (angles + 1 / (size - 1)) ** 2) / (size * (size - 1)))


def hierarchy_cosines(
    parent: Float[Array, " hidden"],
    children: Float[Array, "children hidden"],
    metric: Float[Array, "hidden hidden"],
) -> Float[Array, " children"]:
    r"""Return the cosine of a parent category with what each child adds to it.

    It is the cosine of $\ell_p$ with $\ell_c - \ell_p$, where $\ell$ is the vector of a category:
    "mammal", and what a dog has beyond being a mammal. In a hierarchy that is represented
    orthogonally it is 0, because the properties of all mammals do not tell mammals apart.

    Args:
        parent: $\ell_p$.
        children: $\ell_c$, one per row.
        metric: the inner product: `causal_metric`, or the identity for ordinary angles.

    Returns:
        Numbers in $[-1, 1]$: 0 for a child that equals its parent.
    """
    parent = inputs.floats("parent", parent, rank=1)
    children = inputs.floats("children", children, rank=2)
    metric = inputs.floats("metric", metric, rank=2)
    beyond = children - parent[None, :]
    return cosines(jnp.concatenate([parent[None, :], beyond]), metric)[0, 1:]
