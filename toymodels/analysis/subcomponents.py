r"""Scores of a decomposition of weights into subcomponents of rank one, against the known answer.

A decomposition of the weights $W$ of a toy model is $\sum_c U_c V_c^\top$. The right one has a
subcomponent $W_i e_i^\top$ for each feature $i$. See `toymodels.circuits.parameters`.

References:
    Bushnaq, Braun, Sharkey (2025), "Stochastic Parameter Decomposition".
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy import stats

from toymodels import checks
from toymodels.analysis import geometry, inputs
from toymodels.theory.quadrature import gauss_legendre

__all__ = [
    "chance_cosine",
    "column_cosines",
    "identity_error",
    "length_ratios",
    "lengths",
    "pair_errors",
    "recovery_errors",
    "sum_error",
]


def column_cosines(
    left: Float[Array, "parts hidden"],
    right: Float[Array, "parts features"],
    weights: Float[Array, "hidden features"],
) -> Float[Array, " features"]:
    r"""Return $\max_c \cos(U_c V_{ci}, W_i)$ for each feature; the mean is the MMCS.

    It looks at one column of each subcomponent, and says nothing of the others: a subcomponent
    with many features may have cosine 1 with each of them. In the plane even random subcomponents
    have a high MMCS: see `chance_cosine`.

    Returns:
        Numbers in [-1, 1]; a column of length 0 has cosine 0.
    """
    return jnp.max(_cosines(*_checked(left, right, weights)), axis=0)


def chance_cosine(parts: int, hidden: int) -> float:
    r"""Return the expected largest cosine of random directions with a given one.

    $$\mathbb E \max_c \cos\alpha_c = 1 - \int_{-1}^1 F(t)^C\, dt,$$

    because all $C$ cosines are below $t$ with probability $F(t)^C$. In $m$ dimensions
    $(1 + \cos) / 2$ has the distribution $\mathrm{Beta}((m - 1) / 2, (m - 1) / 2)$. It is the MMCS
    of random subcomponents: 0 for $C = 1$; for $C = 20$ it is 0.979 in the plane and 0.568 in ten
    dimensions.

    Args:
        parts: the number $C$ of directions.
        hidden: the number $m$ of dimensions, at least 2.
    """
    checks.count("parts", parts)
    checks.count("hidden", hidden, minimum=2)
    # The angle as the variable makes the integrand smooth at both ends.
    shares, weights = gauss_legendre(parts // 2 + 40)
    angles = np.pi * shares
    below = stats.beta.cdf((1 + np.cos(angles)) / 2, (hidden - 1) / 2, (hidden - 1) / 2)
    return float(1 - np.pi * weights @ (below**parts * np.sin(angles)))


def length_ratios(
    left: Float[Array, "parts hidden"],
    right: Float[Array, "parts features"],
    weights: Float[Array, "hidden features"],
) -> Float[Array, " features"]:
    r"""Return $\lVert U_c V_{ci}\rVert / \lVert W_i\rVert$ of the subcomponent of `column_cosines`.

    The mean is the ML2R, the mean ratio of lengths. It is 1 if one subcomponent holds all of a
    feature, and less if several share it.

    Returns:
        Numbers of 0 or more; 0 for a feature of length 0.
    """
    left, right, weights = _checked(left, right, weights)
    best = jnp.argmax(_cosines(left, right, weights), axis=0)
    held = jnp.linalg.norm(left, axis=1)[best] * jnp.abs(right[best, jnp.arange(best.size)])
    return _in_units_of(geometry.feature_norms(weights), held)


def recovery_errors(
    left: Float[Array, "parts hidden"],
    right: Float[Array, "parts features"],
    weights: Float[Array, "hidden features"],
) -> Float[Array, " features"]:
    r"""Return $\min_c \lVert U_c V_c^\top - W_i e_i^\top\rVert_F / \lVert W_i\rVert$.

    It compares whole subcomponents with whole features.

    Returns:
        Numbers of 0 or more: 0 if a subcomponent is the feature and nothing else, and 1 if all
        subcomponents have length 0; also 0 for a feature of length 0.
    """
    left, right, weights = _checked(left, right, weights)
    features = jnp.einsum("hf,fg->fhg", weights, jnp.eye(weights.shape[1]))
    return jax.vmap(lambda one: _error_of_nearest(left, right, one))(features)


def pair_errors(
    left: Float[Array, "parts hidden"],
    right: Float[Array, "parts features"],
    weights: Float[Array, "hidden features"],
) -> Float[Array, "features features"]:
    r"""Return the relative error of the subcomponent nearest to each pair of features.

    It is $\min_c \lVert U_c V_c^\top - W_i e_i^\top - W_j e_j^\top\rVert_F$ over
    $\sqrt{\lVert W_i\rVert^2 + \lVert W_j\rVert^2}$. An antipodal pair in one subcomponent has 0.

    Returns:
        Numbers of 0 or more, symmetric in $i$ and $j$. On the diagonal, where there is no pair,
        they are infinite, and they are 0 for two features of length 0.
    """
    left, right, weights = _checked(left, right, weights)
    features = jnp.einsum("hf,fg->fhg", weights, jnp.eye(weights.shape[1]))

    def of_pair(one: Array, other: Array) -> Array:
        return _error_of_nearest(left, right, one + other)

    errors = jax.vmap(jax.vmap(of_pair, (None, 0)), (0, None))(features, features)
    no_pair = (jnp.eye(len(errors)) > 0) & ~jnp.isnan(errors)
    return jnp.where(no_pair, jnp.inf, errors)


def sum_error(
    left: Float[Array, "parts hidden"],
    right: Float[Array, "parts features"],
    weights: Float[Array, "hidden features"],
) -> Float[Array, ""]:
    r"""Return $\lVert W - \sum_c U_c V_c^\top \rVert_F / \lVert W \rVert_F$, which should be small.

    Returns:
        A number of 0 or more; 0 if subcomponents add up to the weights. It is NaN or infinite if
        all weights are 0.
    """
    left, right, weights = _checked(left, right, weights)
    return jnp.linalg.norm(weights - left.T @ right) / jnp.linalg.norm(weights)


def lengths(
    left: Float[Array, "parts hidden"], right: Float[Array, "parts features"]
) -> Float[Array, " parts"]:
    r"""Return the length $\lVert U_c \rVert \lVert V_c \rVert$ of each subcomponent."""
    left, right = inputs.floats("left", left, rank=2), inputs.floats("right", right, rank=2)
    return jnp.linalg.norm(left, axis=1) * jnp.linalg.norm(right, axis=1)


def identity_error(
    importance: Float[Array, "features parts"], *, tolerance: float = 0.1
) -> Float[Array, ""]:
    """Return how many importances are wrong: each feature should need a subcomponent of its own.

    Features and subcomponents are matched one to one, so that the matched importances have the
    largest sum. A matched importance should be 1 and all others 0; one that is off by more than the
    tolerance counts as wrong.

    Returns:
        A whole number from 0 to features x parts, as a float. If all importances are 0 it is the
        number of features, and if all are 1 it is features x (parts - 1), for parts >= features.
        It is NaN if an importance is NaN.
    """
    importance = inputs.floats("importance", importance, rank=2)
    rows, columns = optax.assignment.hungarian_algorithm(-importance)
    target = jnp.zeros_like(importance).at[rows, columns].set(1.0)
    wrong = jnp.sum(jnp.abs(importance - target) > tolerance)
    return inputs.unless_missing(wrong, importance)


def _checked(left: Any, right: Any, weights: Any) -> tuple[Array, Array, Array]:
    """Return the arrays in floating point, after a check that their shapes agree."""
    left = inputs.floats("left", left, rank=2)
    right = inputs.floats("right", right, rank=2)
    weights = inputs.floats("weights", weights, rank=2)
    checks.same_size("parts", left=left.shape[0], right=right.shape[0])
    checks.same_size("features", right=right.shape[1], weights=weights.shape[1])
    checks.same_size("dimensions", left=left.shape[1], weights=weights.shape[0])
    return left, right, weights


def _in_units_of(lengths: Array, numbers: Array) -> Array:
    """Return numbers divided by lengths, but undivided where a length is 0; NaN stays NaN."""
    return numbers / jnp.where(lengths == 0, 1.0, lengths)


def _error_of_nearest(
    left: Float[Array, "parts hidden"],
    right: Float[Array, "parts features"],
    matrix: Float[Array, "hidden features"],
) -> Float[Array, ""]:
    """Return the distance of the nearest subcomponent in units of the matrix; 0 if that is 0."""
    rest = jnp.einsum("ch,cf->chf", left, right) - matrix[None]
    nearest = jnp.min(jnp.linalg.norm(rest, axis=(1, 2)))
    length = jnp.linalg.norm(matrix)
    return _in_units_of(length, jnp.where(length == 0, 0.0, nearest))


def _cosines(
    left: Float[Array, "parts hidden"],
    right: Float[Array, "parts features"],
    weights: Float[Array, "hidden features"],
) -> Float[Array, "parts features"]:
    """Return the cosine of each column of each subcomponent with the column of the weights."""
    return jnp.sign(right) * (geometry.unit_columns(left.T).T @ geometry.unit_columns(weights))
