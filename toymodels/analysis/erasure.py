r"""Concept erasure by the smallest change after which no linear probe finds the concept.

References:
    Belrose et al. (2023), "LEACE: Perfect Linear Concept Erasure in Closed Form".
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.analysis import geometry, inputs, units
from toymodels.errors import InputError

__all__ = [
    "PROBES",
    "Eraser",
    "features_lost",
    "least_squares_auroc",
    "least_squares_eraser",
    "moments",
    "presence_auroc",
]

PROBES: Final = ("before", "linear", "quadratic")
"""The probes of `presence_auroc`: a linear one before the erasure, and two after it."""
EQUAL: Final = 1e-3
"""Scores count as equal if they differ by less than this share of their standard deviation."""


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
    unit = jnp.where(lengths == 0, 1.0, lengths)[None, :]  # makes the units of z cancel
    left, sizes, right = jnp.linalg.svd(white / unit, full_matrices=False)
    # Whitening magnifies the rounding of the cross-covariance, which must not add to its rank.
    magnified = jnp.max(geometry.feature_norms(cross_covariance / spread[:, None]) / unit[0])
    rounded = 10 * white.size * jnp.finfo(white.dtype).eps * jnp.max(scales) * magnified
    kept = jnp.where(sizes > rounded * sizes[0], sizes, jnp.inf)
    inverse = right.T @ (left.T / kept[:, None])
    removed = (cross_covariance / unit) @ inverse @ whitening
    eraser = (jnp.eye(mean.size, dtype=mean.dtype) - removed, removed @ mean)
    return Eraser(*(inputs.unless_missing(p, mean, covariance, cross_covariance) for p in eraser))


def moments(
    hidden: Float[Array, "examples hidden"], concept: Float[Array, "examples concepts"]
) -> tuple[Float[Array, " hidden"], Float[Array, "hidden hidden"], Float[Array, "hidden concepts"]]:
    """Return mean, covariance and cross-covariance of examples for `least_squares_eraser`.

    Args:
        hidden: hidden vectors of examples.
        concept: coordinates of the concept in these examples.
    """
    hidden, concept = _examples(hidden=hidden, concept=concept)
    centred = hidden - jnp.mean(hidden, axis=0)[None, :]
    count = len(hidden)
    results = (jnp.mean(hidden, axis=0), centred.T @ centred / count, centred.T @ concept / count)
    mean, covariance, cross = (inputs.unless_missing(part, hidden, concept) for part in results)
    return mean, covariance, cross


def features_lost(
    hidden: Float[Array, "examples hidden"], features: Float[Array, "examples features"]
) -> Float[Array, " features"]:
    r"""Return how much less linear probes read of the other features once a feature is erased.

    A linear probe explains the share $R^2_j$ of the variance of feature $j$. The result for feature
    $i$ is the sum over $j \ne i$ of the fall of $R^2_j$ when feature $i$ is erased, so it counts
    whole features. For uncorrelated features of equal variance in a linear encoder $h = W x$ it is
    $1 - P_{ii}$, with $P$ the projector on the rows of $W$.

    Args:
        hidden: hidden vectors of examples.
        features: features of these examples. A feature that is constant loses nothing.
    """
    hidden, features = _examples(hidden=hidden, features=features)
    mean, covariance, _ = moments(hidden, features)
    centred = features - jnp.mean(features, axis=0)[None, :]
    cross = hidden.T @ centred / len(hidden)
    variances = jnp.var(features, axis=0)

    def readable(matrix: Float[Array, "hidden hidden"]) -> Float[Array, " features"]:
        """Return R^2 of each feature after this linear map of the hidden space."""
        seen = matrix @ cross
        inverse = jnp.linalg.pinv(matrix @ covariance @ matrix.T, rtol=1e-5, hermitian=True)
        return jnp.sum(seen * (inverse @ seen), axis=0) / units.positive(variances)

    before = readable(jnp.eye(mean.size))

    def lost(feature: Array) -> Float[Array, ""]:
        eraser = least_squares_eraser(mean, covariance, cross[:, feature][:, None])
        fall = before - readable(eraser.matrix)
        return jnp.sum(fall) - fall[feature]

    return inputs.unless_missing(lax.map(lost, jnp.arange(variances.size)), hidden, features)


def least_squares_auroc(
    fitted_on: Float[Array, "examples hidden"], tested_on: Float[Array, "examples hidden"]
) -> Float[Array, ""]:
    """Return the AUROC of a least squares probe that is fitted and tested on different examples.

    The first half of the examples of each array has the concept, and the second half has not.

    Scores that differ by less than a thousandth of their standard deviation count as equal, because
    equal scores can differ by rounding. Rounding all scores to a grid would not do: where most
    examples have one score, it can lie at an edge of the grid.

    Args:
        fitted_on: hidden vectors to which the probe is fitted.
        tested_on: hidden vectors that it scores.

    Returns:
        A number in $[0, 1]$: 1/2 if nothing is left of the concept.
    """
    fitted_on, tested_on = _examples(fitted_on=fitted_on, tested_on=tested_on)
    if len(fitted_on) % 2:
        raise InputError(f"{len(fitted_on)} examples have no halves: give an even number of them")
    _, covariance, cross = moments(fitted_on, _first_half(len(fitted_on) // 2))
    probe = jnp.linalg.pinv(covariance, rtol=1e-5, hermitian=True) @ cross
    scores = (tested_on @ probe)[:, 0]
    positives, negatives = jnp.split(scores / jnp.maximum(jnp.std(scores), 1e-12), 2)
    margins = positives[:, None] - negatives[None, :]
    auroc = jnp.mean(jnp.where(jnp.abs(margins) < EQUAL, 0.5, margins > 0))
    return inputs.unless_missing(auroc, fitted_on, tested_on)


def presence_auroc(
    encode: Callable[[Float[Array, " features"]], Float[Array, " hidden"]],
    examples: Float[Array, "sets=3 pairs features"],
    sizes: Float[Array, "sets=3 pairs"],
) -> Float[Array, "features probes=3"]:
    """Return how well probes tell the presence of each feature before and after its erasure.

    Each example becomes a pair, with and without the feature. The eraser is fitted on the first
    set. The probes are fitted on the second set and tested on the third: a linear probe before the
    erasure, and after it a linear probe and one that also sees all products of two coordinates.

    Args:
        encode: a function from one feature vector to one hidden vector.
        examples: three sets of examples, of which one feature at a time is replaced.
        sizes: the values of that feature where it is present.

    Returns:
        The AUROC of each probe of `PROBES`.
    """
    each = jax.vmap(jax.vmap(encode))
    concept = _first_half(sizes.shape[1])

    def of_feature(feature: Array) -> Float[Array, " probes"]:
        present = each(examples.at[:, :, feature].set(sizes))
        absent = each(examples.at[:, :, feature].set(0.0))
        sets = jnp.concatenate([present, absent], axis=1)
        eraser = least_squares_eraser(*moments(sets[0], concept))
        left = sets[1:] @ eraser.matrix.T + eraser.offset[None, None, :]
        pairs = (sets[1:], left, jax.vmap(_quadratic)(left))
        return jnp.stack([least_squares_auroc(*pair) for pair in pairs])

    return lax.map(of_feature, jnp.arange(examples.shape[2]))


def _first_half(count: int) -> Float[Array, "examples 1"]:
    """Return 1 for each of the first `count` examples, and 0 for as many others."""
    return jnp.concatenate([jnp.ones((count, 1)), jnp.zeros((count, 1))])


def _quadratic(hidden: Float[Array, "examples hidden"]) -> Float[Array, "examples products"]:
    """Return hidden vectors, and all products of two coordinates."""
    rows, columns = np.triu_indices(hidden.shape[1])
    return jnp.concatenate([hidden, hidden[:, rows] * hidden[:, columns]], axis=1)


def _examples(**examples: Any) -> list[Float[Array, "examples columns"]]:
    """Return arrays of equally many examples in floating point."""
    arrays = [inputs.floats(name, array, rank=2) for name, array in examples.items()]
    checks.same_size("examples", **{n: len(a) for n, a in zip(examples, arrays, strict=True)})
    return arrays
