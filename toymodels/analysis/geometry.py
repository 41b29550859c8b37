r"""Geometry of feature directions: pure functions of ONE weight matrix.

`weights` is hidden x features: column $i$ is the direction $W_i$ of feature $i$, and
$\hat W_i = W_i / \lVert W_i \rVert$. `vmap` over a sweep.

`weights` may have more hidden dimensions than features, so nothing can notice a transposed matrix:
one that is features x hidden, as in the notebook of the paper, is to be given as `weights.T`.

Every function has a finite gradient at a column of 0, except that of a zero matrix in
`dimensions_per_feature`. Shortly above, up to norms of about 1e-9, gradients may overflow. Values
do not: squares and fourth powers are computed in units of the numbers themselves.

References:
    Elhage et al. (2022), "Toy Models of Superposition", sections "Demonstrating
    Superposition" and "The Geometry of Superposition".
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.analysis import inputs, units

__all__ = [
    "dimensions_per_feature",
    "eigenvector_residual",
    "feature_dimensionality",
    "feature_norms",
    "gram",
    "num_represented",
    "superposition",
    "unit_columns",
]


def gram(weights: Float[Array, "hidden features"]) -> Float[Array, "features features"]:
    r"""All dot products of feature directions, $G = W^\top W$.

    With a linear output, $G_{ij}$ is what feature $j$ writes into output $i$: the diagonal is
    signal, the rest interference.

    Returns:
        Symmetric, positive semidefinite, of the rank of `weights`.
    """
    weights = inputs.floats("weights", weights, rank=2)
    return weights.T @ weights


def feature_norms(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""How strongly each feature is represented, $\lVert W_i \rVert$.

    Near 1 for a feature that the model reconstructs, near 0 for one that it ignores.

    Returns:
        At least 0. The norm has no derivative at a zero column; the gradient there is 0.
    """
    weights = inputs.floats("weights", weights, rank=2)
    scaled, scale = units.scaled(weights, axis=0)
    squared_norms = jnp.sum(scaled**2, axis=0)
    zero = squared_norms == 0  # NaN stays NaN
    # Two `where`s: reverse mode differentiates the branch that is not taken as well.
    return scale * jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squared_norms)))


def unit_columns(weights: Float[Array, "hidden features"]) -> Float[Array, "hidden features"]:
    r"""Return the directions $\hat W_i = W_i / \lVert W_i \rVert$ of all features.

    Returns:
        Columns of length 1, and a zero column for a zero column. A column is NaN if one of its
        entries is.
    """
    weights = inputs.floats("weights", weights, rank=2)
    norms = feature_norms(weights)
    return weights / jnp.where(norms == 0, 1.0, norms)[None, :]


def superposition(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""How far the other features reach into the direction of each.

    $$\sum_{j \ne i} (\hat W_i \cdot W_j)^2$$

    The paper's notebook colours its bars by the square root, "polysemanticity".

    Returns:
        At least 0, and 0 exactly if the feature is orthogonal to all others. From 1 on, the
        others together move this direction as much as the feature itself does; each of an
        antipodal pair of unit length has 1. 0 for a zero column, where the formula
        reads 0/0.
    """
    weights = inputs.floats("weights", weights, rank=2)
    overlaps = _overlaps(weights)
    itself = jnp.eye(overlaps.shape[0], dtype=bool)
    return jnp.sum(jnp.where(itself, 0.0, overlaps**2), axis=1)


def feature_dimensionality(
    weights: Float[Array, "hidden features"],
) -> Float[Array, " features"]:
    r"""Fraction of a hidden dimension that each feature has to itself.

    $$D_i = \frac{\lVert W_i \rVert^2}{\sum_j (\hat W_i \cdot W_j)^2},$$

    where the sum includes $j = i$. $D_i$ is at most the $i$-th leverage score
    $W_i^\top (W W^\top)^+ W_i$, and these add up to the rank of $W$. So
    $\sum_i D_i \le \operatorname{rank} W$, with equality if and only if every $W_i$ is an
    eigenvector of $W W^\top$: the features form tight frames, orthogonal to each other. A
    frame of $k$ equally long features in $d$ dimensions gives $D_i = d/k$ to each.

    Returns:
        In $[0, 1]$, whatever the scale of `weights`: 1 for a feature orthogonal to all
        others, 1/2 for each of an antipodal pair of equal length. 0 for a zero column, where
        the formula reads 0/0.

    References:
        Elhage et al. (2022), section "The Geometry of Superposition".
        Scherlis et al. (2022), "Polysemanticity and Capacity in Neural Networks": $D_i$ is
        their capacity.
    """
    weights = inputs.floats("weights", weights, rank=2)
    scaled, scale = units.scaled(weights, axis=0)
    overlaps = _overlaps(weights)
    overlaps, unit = units.scaled(overlaps, axis=1)
    shared = jnp.sum(overlaps**2, axis=1)
    squared_norms = jnp.sum(scaled**2, axis=0) * (scale / unit) ** 2
    return squared_norms / units.positive(shared)


def eigenvector_residual(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""How far each feature is from an eigenvector of $F = W W^\top$.

    $$\frac{\lVert F W_i - \lambda_i W_i \rVert}{\lVert F W_i \rVert}, \qquad
      \lambda_i = \frac{W_i^\top F W_i}{\lVert W_i \rVert^2},$$

    the sine of the angle between $W_i$ and $F W_i$: all interference that is not along $W_i$. The
    feature dimensionalities add up to the rank of `weights` if and only if all are 0.

    Returns:
        In $[0, 1)$: 0 in tight frames that are orthogonal to each other, and for a zero column.
        It is a norm, so its gradient is that of no length at 0.
    """
    weights = inputs.floats("weights", weights, rank=2)
    norms = feature_norms(weights)
    directions = unit_columns(weights)
    # Whatever the scale, F neither overflows nor underflows.
    longest = jnp.max(norms, initial=0.0)
    scaled = weights / units.positive(longest)
    moved = scaled @ (scaled.T @ directions)
    residual = moved - directions * jnp.sum(directions * moved, axis=0)[None, :]
    lengths = feature_norms(moved)
    return feature_norms(residual) / units.positive(lengths)


def dimensions_per_feature(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Hidden dimensions that a represented feature has on average.

    $$D^* = \frac{m}{\lVert W \rVert_F^2},$$

    since $\lVert W \rVert_F^2 = \sum_i \lVert W_i \rVert^2$ counts the features of norm 1.

    Returns:
        Positive: 1 if each of $m$ features has its own dimension, 1/2 for antipodal pairs.
        Infinite for a zero matrix, which represents none. NaN if a weight is not finite.
    """
    weights = inputs.floats("weights", weights, rank=2)
    scaled, unit = units.scaled(weights)
    ratio = weights.shape[0] / jnp.sum(scaled**2) / unit / unit
    return inputs.unless_missing(ratio, weights)


def num_represented(
    weights: Float[Array, "hidden features"], *, threshold: Float[Array, ""] | float = 0.5
) -> Float[Array, ""]:
    """How many features have a norm above `threshold`.

    Args:
        weights: feature directions, one per column.
        threshold: at least 0. Trained norms gather near 0 and near 1, so it is half-way.

    Returns:
        A whole number from 0 to the number of features, as a float: NaN if a norm is.
    """
    weights = inputs.floats("weights", weights, rank=2)
    checks.interval(
        "threshold", threshold, low=0.0, remedy="norms are near 0 or near 1: give a number between"
    )
    return inputs.unless_missing(jnp.sum(feature_norms(weights) > threshold), weights)


def _overlaps(weights: Float[Array, "hidden features"]) -> Float[Array, "features features"]:
    r"""$\hat W_i \cdot W_j$ in row $i$ and column $j$; a row of 0 for a zero column $W_i$."""
    scaled, scale = units.scaled(weights, axis=0)
    norms = feature_norms(scaled)
    return gram(scaled) / units.positive(norms)[:, None] * scale[None, :]
