r"""The geometry of feature directions: pure functions of ONE weight matrix.

`weights` is hidden x features: column $i$ is the direction $W_i$ of feature $i$, and
$\hat W_i = W_i / \lVert W_i \rVert$. `vmap` over a sweep.

`weights` may have more hidden dimensions than features, so no function can notice a transposed
matrix. Give a matrix that is features x hidden, as in the notebook of the paper, as `weights.T`.

Every function has a finite gradient at a zero column, except `dimensions_per_feature` at a zero
matrix. Gradients can overflow at columns with norms below about 1e-9. Values do not overflow,
because squares and fourth powers are computed in units of the numbers themselves.

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
    r"""Return all dot products of feature directions, $G = W^\top W$.

    With a linear output, $G_{ij}$ is the effect of feature $j$ on output $i$: the diagonal is
    signal, the rest is interference.

    Returns:
        A symmetric, positive semidefinite matrix of the rank of `weights`.
    """
    weights = inputs.floats("weights", weights, rank=2)
    return weights.T @ weights


def feature_norms(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""Return how strongly each feature is represented, $\lVert W_i \rVert$.

    The norm is near 1 for a feature that the model reconstructs, and near 0 for one that it
    ignores.

    Returns:
        Numbers of at least 0. The norm has no derivative at a zero column; its gradient is set to 0
        there.
    """
    weights = inputs.floats("weights", weights, rank=2)
    scaled, scale = units.scaled(weights, axis=0)
    squared_norms = jnp.sum(scaled**2, axis=0)
    zero = squared_norms == 0  # NaN stays NaN
    # The root is of 1 where it is not used, because its derivative at 0 is infinite.
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
    r"""Return how far the other features reach into the direction of each feature.

    $$\sum_{j \ne i} (\hat W_i \cdot W_j)^2$$

    The paper's notebook colours its bars by the square root, "polysemanticity".

    Returns:
        Numbers of at least 0: exactly 0 if the feature is orthogonal to all others, and 1 for both
        features of an antipodal pair of unit length. At 1 the others together move this direction
        as much as the feature itself does. A zero column has 0, where the formula reads 0/0.
    """
    weights = inputs.floats("weights", weights, rank=2)
    overlaps = _overlaps(weights)
    itself = jnp.eye(overlaps.shape[0], dtype=bool)
    return jnp.sum(jnp.where(itself, 0.0, overlaps**2), axis=1)


def feature_dimensionality(
    weights: Float[Array, "hidden features"],
) -> Float[Array, " features"]:
    r"""Return the fraction of a hidden dimension that each feature has to itself.

    $$D_i = \frac{\lVert W_i \rVert^2}{\sum_j (\hat W_i \cdot W_j)^2},$$

    where the sum includes $j = i$. $D_i$ is at most the $i$-th leverage score
    $W_i^\top (W W^\top)^+ W_i$, and these add up to the rank of $W$. So
    $\sum_i D_i \le \operatorname{rank} W$, with equality if and only if every $W_i$ is an
    eigenvector of $W W^\top$: the features form tight frames, orthogonal to each other. A
    frame of $k$ equally long features in $d$ dimensions gives $D_i = d/k$ to each.

    Returns:
        Numbers in $[0, 1]$ that do not depend on the scale of `weights`: 1 for a feature
        orthogonal to all others, and 1/2 for both features of an antipodal pair of equal length. A
        zero column has 0, where the formula reads 0/0.

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
    r"""Return how far each feature is from an eigenvector of $F = W W^\top$.

    $$\frac{\lVert F W_i - \lambda_i W_i \rVert}{\lVert F W_i \rVert}, \qquad
      \lambda_i = \frac{W_i^\top F W_i}{\lVert W_i \rVert^2},$$

    This is the sine of the angle between $W_i$ and $F W_i$: it measures the interference that is
    not along $W_i$. The feature dimensionalities add up to the rank of `weights` if and only if all
    residuals are 0.

    Returns:
        Numbers in $[0, 1)$: 0 in tight frames that are orthogonal to each other, and for a zero
        column. The residual is a norm, so its gradient at 0 is set to 0.
    """
    weights = inputs.floats("weights", weights, rank=2)
    norms = feature_norms(weights)
    directions = unit_columns(weights)
    # In units of the longest column, F neither overflows nor underflows.
    longest = jnp.max(norms, initial=0.0)
    scaled = weights / units.positive(longest)
    moved = scaled @ (scaled.T @ directions)
    residual = moved - directions * jnp.sum(directions * moved, axis=0)[None, :]
    lengths = feature_norms(moved)
    return feature_norms(residual) / units.positive(lengths)


def dimensions_per_feature(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Return the number of hidden dimensions of a represented feature, on average.

    $$D^* = \frac{m}{\lVert W \rVert_F^2},$$

    because $\lVert W \rVert_F^2 = \sum_i \lVert W_i \rVert^2$ counts the features of norm 1.

    Returns:
        A positive number: 1 if each of $m$ features has its own dimension, 1/2 for antipodal pairs,
        infinity for a zero matrix, which represents no feature. It is NaN if a weight is not
        finite.
    """
    weights = inputs.floats("weights", weights, rank=2)
    scaled, unit = units.scaled(weights)
    ratio = weights.shape[0] / jnp.sum(scaled**2) / unit / unit
    return inputs.unless_missing(ratio, weights)


def num_represented(
    weights: Float[Array, "hidden features"], *, threshold: Float[Array, ""] | float = 0.5
) -> Float[Array, ""]:
    """Return the number of features with a norm above `threshold`.

    Args:
        weights: the feature directions, one per column.
        threshold: a number of at least 0. Trained norms gather near 0 and 1, so the default is 1/2.

    Returns:
        A whole number from 0 to the number of features, as a float. It is NaN if a norm is NaN.
    """
    weights = inputs.floats("weights", weights, rank=2)
    checks.interval(
        "threshold", threshold, low=0.0, remedy="norms are near 0 or near 1: give a number between"
    )
    return inputs.unless_missing(jnp.sum(feature_norms(weights) > threshold), weights)


def _overlaps(weights: Float[Array, "hidden features"]) -> Float[Array, "features features"]:
    r"""Return $\hat W_i \cdot W_j$ in row $i$ and column $j$, and zeros for a zero column $W_i$."""
    scaled, scale = units.scaled(weights, axis=0)
    norms = feature_norms(scaled)
    return gram(scaled) / units.positive(norms)[:, None] * scale[None, :]
