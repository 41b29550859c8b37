r"""Concept erasure by the smallest change after which no linear probe finds the concept.

References:
    Belrose et al. (2023), "LEACE: Perfect Linear Concept Erasure in Closed Form".
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.analysis import geometry, inputs, units

__all__ = ["Eraser", "features_lost", "least_squares_eraser", "moments"]


class Eraser(NamedTuple):
    r"""The affine map $x' = A x + c$.

    Attributes:
        matrix: $A$, an oblique projection: $A^2 = A$.
        offset: $c$, which keeps the mean unchanged.
    """

    matrix: Float[Array, "hidden hidden"]
    offset: Float[Array, " hidden"]


def least_squares_eraser(
    mean: Float[Array, " hidden"],
    covariance: Float[Array, "hidden hidden"],
    cross_covariance: Float[Array, "hidden concepts"],
) -> Eraser:
    r"""Return the affine map that erases a concept with the smallest change of $x$ (LEACE).

    With $\Sigma$ the covariance of $x$, $\Sigma_{xz}$ its cross-covariance with the concept $z$
    and $V = (\Sigma^{1/2})^+$,

    $$x' = x - \Sigma_{xz} (V \Sigma_{xz})^+ V (x - \mu).$$

    $\operatorname{Cov}(x', z) = 0$, so no affine probe of $x'$ predicts $z$ with a convex loss
    better than a constant does; among all affine maps for which this holds it has the smallest
    $\mathbb E \lVert x' - x \rVert^2$ and, as whitening shows, the smallest in any other metric.

    So the units of the coordinates of $x$ and of $z$ do not matter. All coordinates are divided by
    their spreads before a threshold decides which variances are only rounding.

    Args:
        mean: $\mu$.
        covariance: $\Sigma$, positive semidefinite, of any rank.
        cross_covariance: $\Sigma_{xz}$, one column per coordinate of $z$, of any rank. A concept
            with classes has one-hot coordinates. The columns lie in the range of $\Sigma$, as for
            every cross-covariance.

    Returns:
        The map: the identity if the cross-covariance is zero. Directions count as constant if their
        variance is below the rounding of the largest one, in coordinates of variance 1. All numbers
        are NaN if an input is not finite.
    """
    mean = inputs.floats("mean", mean, rank=1)
    covariance = inputs.floats("covariance", covariance, rank=2)
    cross_covariance = inputs.floats("cross_covariance", cross_covariance, rank=2)
    checks.same_size(
        "dimensions",
        mean=mean.size,
        covariance=covariance.shape[0],
        cross_covariance=cross_covariance.shape[0],
    )
    diagonal = jnp.diagonal(covariance)
    spread = jnp.sqrt(units.positive(diagonal))
    variances, axes = jnp.linalg.eigh(covariance / spread[:, None] / spread[None, :])
    rounding = jnp.finfo(covariance.dtype).eps * variances.size * jnp.max(variances)
    varies = variances > rounding
    scales = jnp.where(varies, 1 / jnp.sqrt(jnp.where(varies, variances, 1.0)), 0.0)
    whitening = (axes * scales[None, :]) @ axes.T / spread[None, :]
    white = whitening @ cross_covariance
    lengths = geometry.feature_norms(white)
    unit = jnp.where(lengths == 0, 1.0, lengths)[None, :]
    removed = (cross_covariance / unit) @ jnp.linalg.pinv(white / unit) @ whitening
    eraser = (jnp.eye(mean.size, dtype=mean.dtype) - removed, removed @ mean)
    return Eraser(*(inputs.unless_missing(p, mean, covariance, cross_covariance) for p in eraser))


def moments(
    hidden: Float[Array, "examples hidden"], concept: Float[Array, "examples concepts"]
) -> tuple[Float[Array, " hidden"], Float[Array, "hidden hidden"], Float[Array, "hidden concepts"]]:
    """Return mean, covariance and cross-covariance of examples for `least_squares_eraser`."""
    centred = hidden - jnp.mean(hidden, axis=0)[None, :]
    count = len(hidden)
    return jnp.mean(hidden, axis=0), centred.T @ centred / count, centred.T @ concept / count


def features_lost(
    hidden: Float[Array, "examples hidden"], features: Float[Array, "examples features"]
) -> Float[Array, " features"]:
    r"""Return how many readable features the erasure of each feature takes from the others.

    A linear probe reads the share $R^2_j$ of feature $j$; the result for feature $i$ is the sum
    over $j \ne i$ of what $R^2_j$ falls by where feature $i$ is erased. Uncorrelated features of
    equal variance in a linear encoder $h = W x$ lose $1 - P_{ii}$, with $P$ the projector on the
    rows of $W$.

    Args:
        hidden: hidden vectors of examples.
        features: features of these examples, each of some variance.
    """
    mean, covariance, _ = moments(hidden, features)
    centred = features - jnp.mean(features, axis=0)[None, :]
    cross = hidden.T @ centred / len(hidden)
    variances = jnp.var(features, axis=0)

    def readable(matrix: Float[Array, "hidden hidden"]) -> Float[Array, " features"]:
        seen = matrix @ cross
        inverse = jnp.linalg.pinv(matrix @ covariance @ matrix.T, rtol=1e-5, hermitian=True)
        return jnp.sum(seen * (inverse @ seen), axis=0) / variances

    before = readable(jnp.eye(mean.size))

    def of(feature: Array) -> Float[Array, ""]:
        eraser = least_squares_eraser(mean, covariance, cross[:, feature][:, None])
        fall = before - readable(eraser.matrix)
        return jnp.sum(fall) - fall[feature]

    return lax.map(of, jnp.arange(variances.size))
