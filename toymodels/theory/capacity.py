r"""The quadratic model of Scherlis et al., solved: how features share a model's capacity.

The model $y = x^\top W^\top W x + b$ with $m$ hidden dimensions has the target
$\sum_i v_i x_i^2$, where the features are independent with mean 0, variance 1 and kurtosis
$k = E x_i^4$. (For another variance $\sigma^2$, replace $v$ by $\sigma^2 v$ and $W$ by
$\sigma W$.) The loss depends on no other property of their distribution: see `quadratic_loss`.

**Optimum.** With $M = W^\top W$, the capacity of feature $i$ is
$C_i = M_{ii}^2 / \sum_j M_{ij}^2$, measured by `analysis.geometry.feature_dimensionality`. So
$M_{ii}^2 (1 / C_i - 1)$ is the interference in its row, and the best $M_{ii}$ leaves the loss
$v_i^2 F(C_i)$: see `feature_loss`. Since $\sum_i C_i \le \operatorname{rank} W$, by
Cauchy-Schwarz,

$$\min_W L \ge \min \Big\{ \sum_i v_i^2 F(C_i) : 0 \le C_i \le 1, \sum_i C_i \le m \Big\}.$$

**It is attained.** At the right-hand optimum all features that share ($0 < C_i < 1$) have the
same $M_{ii} / C_i = s$, and their capacities add up to a whole number $d$. By the theorem of Schur
and Horn there is a projection $P$ of rank $d$ with diagonal $C_i$. Then $M = sP$ has exactly these
capacities, because $P^2 = P$, and a feature of $C_i = 1$ has a dimension for itself:
`optimal_weights`. All projections with that diagonal have the same loss: to divide the shared block
into smaller ones neither lowers nor raises it.

Both steps hold for every symmetric $M$ of rank $m$, so negative eigenvalues would not help.

References:
    Scherlis et al. (2022), "Polysemanticity and Capacity in Neural Networks".
    Bendel and Mickey (1978), "Population correlation matrices for sampling experiments", and
    Dhillon et al. (2005), "Generalized finite algorithms for constructing Hermitian matrices
    with prescribed diagonals and spectrum", for the construction.
"""

from typing import Any, Final, TypeAlias

import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory.features import Numbers

SIGN_KURTOSIS: Final = 1.0
"""The kurtosis of a random sign, the smallest of all distributions."""

UNIFORM_KURTOSIS: Final = 9 / 5
"""The kurtosis of the uniform distribution on $[-1, 1]$: `SignedSparseUniform` when active."""

GAUSSIAN_KURTOSIS: Final = 3.0
"""The kurtosis of the normal distribution. Features share dimensions only above it."""

Coefficients: TypeAlias = Float[Array | np.ndarray, " features"]


def sparse_kurtosis(density: Numbers, active: Numbers) -> Numbers:
    r"""Return the kurtosis of a feature that is zero with probability $1 - p$.

    It is $k = k_\text{active} / p$, because $E x^2$ and $E x^4$ are both proportional to $p$. A
    sparse sign has $1/p$, `SignedSparseUniform` $9/(5p)$, and a sparse Gaussian $3/p$.

    Args:
        density: $p$, in $(0, 1]$.
        active: $k_\text{active}$, the kurtosis of the feature when it is not zero, about a mean of
            zero; for instance `UNIFORM_KURTOSIS`.

    Returns:
        A number of at least `active`.
    """
    checks.density(density)
    _check_kurtosis(active, varies=False)
    return active / density


def quadratic_loss(
    weights: Float[Array | np.ndarray, "hidden features"],
    coefficients: Float[Array | np.ndarray, " coefficients"],
    kurtosis: Numbers,
) -> Float[Array | np.ndarray, ""] | float:
    r"""Return the exact $E (x^\top W^\top W x + b - \sum_i v_i x_i^2)^2$ at the best bias $b$.

    With $M = W^\top W$, the best bias is $b = \sum_i (v_i - M_{ii})$, which leaves the variance

    $$L = (k - 1) \sum_i (M_{ii} - v_i)^2 + 2 \sum_{i \ne j} M_{ij}^2
        = (k - 3) \sum_i (M_{ii} - v_i)^2 + 2 \lVert M - \operatorname{diag} v \rVert_F^2.$$

    Another bias adds the square of its distance from the best one.

    Args:
        weights: one model; `vmap` over several. Plain numbers are computed in float64.
        coefficients: $v$, one per feature.
        kurtosis: $k \ge 1$.

    Returns:
        The loss of the only output, at least 0.
    """
    _check_kurtosis(kurtosis, varies=False)
    if np.shape(coefficients) != weights.shape[1:]:
        raise InputError(
            f"coefficients has shape {np.shape(coefficients)}: give {weights.shape[1:]}, one per "
            "feature"
        )
    if not any(isinstance(value, Tracer) for value in (weights, coefficients, kurtosis)):
        weights, coefficients, kurtosis = (
            np.asarray(value, np.float64) for value in (weights, coefficients, kurtosis)
        )
    overlaps = weights.T @ weights
    interference = overlaps * (1 - np.eye(weights.shape[1]))
    missing = overlaps.diagonal() - coefficients
    return (kurtosis - 1) * (missing**2).sum() + 2 * (interference**2).sum()


def feature_loss(capacity: Numbers, kurtosis: Numbers) -> Numbers:
    r"""Return the lowest loss of a feature of unit coefficient, given its capacity.

    $$F(C) = \min_g \Big[ (k-1)(g-1)^2 + 2 g^2 \big(\tfrac1C - 1\big) \Big]
           = \frac{2 (k-1) (1-C)}{2 + (k-3) C}, \qquad
      g = \frac{(k-1) C}{2 + (k-3) C}.$$

    $F$ is convex for $k > 3$: returns diminish, so features share. It is linear for $k = 3$ and
    concave for $k < 3$: a feature gets all or nothing.

    Args:
        capacity: $C$, in $[0, 1]$.
        kurtosis: $k > 1$.

    Returns:
        A number from $k - 1$ at $C = 0$ down to 0 at $C = 1$.
    """
    _check(capacity, kurtosis)
    return 2 * (kurtosis - 1) * (1 - capacity) / (2 + (kurtosis - 3) * capacity)


def marginal_benefit(capacity: Numbers, kurtosis: Numbers) -> Numbers:
    r"""Return the decrease of the loss per capacity of a feature of unit coefficient.

    $$-F'(C) = \frac{2 (k-1)^2}{(2 + (k-3) C)^2}$$

    At an optimum, $v_i^2 (-F'(C_i))$ is equal for all features that share a dimension. It is no
    larger for features with $C_i = 0$, and no smaller for those with $C_i = 1$.

    Args:
        capacity: $C$, in $[0, 1]$.
        kurtosis: $k > 1$.

    Returns:
        A number from $(k-1)^2 / 2$ at $C = 0$ to 2 at $C = 1$. It falls with $C$ for $k > 3$ and
        rises for $k < 3$.
    """
    _check(capacity, kurtosis)
    return 2 * (kurtosis - 1) ** 2 / (2 + (kurtosis - 3) * capacity) ** 2


def sharing_ratio(kurtosis: Numbers) -> Numbers:
    r"""Return the phase boundary, the ratio of coefficients above which there is superposition.

    With $v_1 \ge v_2 \ge \dots$ and $m$ hidden dimensions, the optimum superposes features
    if and only if

    $$\frac{v_{m+1}}{v_m} > \frac{2}{k-1}.$$

    Below the boundary, the first $m$ features have a dimension each, and the others none. For
    $n = 2$, $m = 1$ it is the ratio at which
    $C_1 = \big((k-1) v_1 - 2 v_2\big) / \big((k-3) (v_1 + v_2)\big)$ falls below 1, which is a
    second-order transition.

    For $k < 3$ the boundary is above 1. Any $m$ features with a dimension each are then a local
    minimum, unless another coefficient exceeds one of theirs by this factor.

    Args:
        kurtosis: $k > 1$.

    Returns:
        A positive number. For $k \le 3$ it is at least 1, so no ratio exceeds it.
    """
    _check_kurtosis(kurtosis, varies=True)
    return 2 / (kurtosis - 1)


def optimal_capacities(
    coefficients: Coefficients, hidden: int, kurtosis: float
) -> Float[np.ndarray, " features"]:
    r"""Return the capacity of each feature at the global optimum, by water filling.

    For $k > 3$, with the level $s$ at which the capacities add up to $m$,

    $$C_i = \operatorname{clip}\left(\frac{(k-1) v_i / s - 2}{k-3}, 0, 1\right):$$

    a feature with $v_i \ge s$ has a dimension for itself, one with $v_i \le 2s/(k-1)$ has no
    capacity, and the features between share. For $k \le 3$ the $m$ largest have a dimension each.

    Args:
        coefficients: $v_i \ge 0$, in any order.
        hidden: $m$, from 0 to the number of features.
        kurtosis: $k > 1$.

    Returns:
        Numbers in $[0, 1]$ that add up to $m$, or to the number of positive coefficients if that
        is smaller. They are unique except for ties at $k \le 3$: then the first of equal features
        are chosen, although at $k = 3$ they could also share.
    """
    checks.interval(
        "a coefficient", coefficients, low=0, remedy="tied weights can only add squares of features"
    )
    numbers = np.asarray(coefficients, np.float64)
    checks.count("hidden", hidden, minimum=0)
    if hidden > numbers.size:
        raise InputError(
            f"hidden is {hidden}, more than the {numbers.size} coefficients: give at most as many, "
            "because one dimension per feature leaves no loss"
        )
    _check_kurtosis(kurtosis, varies=True)
    if kurtosis <= GAUSSIAN_KURTOSIS or np.count_nonzero(numbers) <= hidden or hidden == 0:
        capacities = np.zeros(numbers.size)
        greatest = np.argsort(-numbers, kind="stable")[:hidden]
        capacities[greatest] = numbers[greatest] > 0
        return capacities
    return _water_filling(numbers, hidden, kurtosis)


def optimal_loss(coefficients: Coefficients, hidden: int, kurtosis: float) -> float:
    r"""Return the minimum of `quadratic_loss` over all weights, $\sum_i v_i^2 F(C_i)$.

    For $k \le 3$ it is $(k-1) \sum_{i > m} v_i^2$ with $v$ in falling order. For equal $v$ and
    $k > 3$ it is $n v^2 F(m/n)$.

    Args:
        coefficients: $v_i \ge 0$, in any order.
        hidden: $m$, from 0 to the number of features.
        kurtosis: $k > 1$.

    Returns:
        A number from 0, if each positive coefficient has a dimension, to $(k-1) \sum_i v_i^2$.
    """
    capacities = optimal_capacities(coefficients, hidden, kurtosis)
    squares = np.asarray(coefficients, np.float64) ** 2
    return float(squares @ feature_loss(capacities, kurtosis))


def optimal_weights(
    coefficients: Coefficients, hidden: int, kurtosis: float
) -> Float[np.ndarray, "hidden features"]:
    r"""Return weights that minimise `quadratic_loss`; their capacities are `optimal_capacities`.

    $W = U D^{1/2}$, where $U$ has orthonormal rows and columns of squared length $C_i$. The entry
    $D_{ii} = (k-1) v_i / (2 + (k-3) C_i)$ is $v_i$ for a feature with a dimension for itself, and
    $s$ for all features that share. At most $n - 1$ plane rotations make $U$.

    There are many optima: any rotation of $W$ from the left, and any other $U$ of these lengths.

    Args:
        coefficients: $v_i \ge 0$, in any order.
        hidden: $m$, from 0 to the number of features.
        kurtosis: $k > 1$.

    Returns:
        The weights; some rows are zero if there are fewer positive coefficients than dimensions.
    """
    capacities = optimal_capacities(coefficients, hidden, kurtosis)
    numbers = np.asarray(coefficients, np.float64)
    scale = (kurtosis - 1) * numbers / (2 + (kurtosis - 3) * capacities)
    return _orthonormal_rows(capacities, hidden) * np.sqrt(scale)


def _water_filling(
    coefficients: Float[np.ndarray, " features"], hidden: int, kurtosis: float
) -> Float[np.ndarray, " features"]:
    """Return capacities for a kurtosis above 3 and fewer dimensions than positive coefficients."""
    positive = coefficients[coefficients > 0]
    # Between two of these levels every capacity is linear in 1/s, so the total is as well.
    levels = -np.sort(-np.concatenate([positive, positive * (kurtosis - 1) / 2]))
    with np.errstate(over="ignore"):
        shares = (kurtosis - 1) * (coefficients[None, :] / levels[:, None]) - 2
    capacities = np.clip(shares / (kurtosis - 3), 0.0, 1.0)
    totals = capacities.sum(axis=1)
    after = max(int(np.searchsorted(totals, hidden)), 1)
    fraction = (hidden - totals[after - 1]) / (totals[after] - totals[after - 1])
    return capacities[after - 1] + fraction * (capacities[after] - capacities[after - 1])


def _orthonormal_rows(
    squared_lengths: Float[np.ndarray, " features"], hidden: int
) -> Float[np.ndarray, "hidden features"]:
    r"""Return a matrix of columns of these lengths whose rows are orthonormal, or zero.

    Start from unit and zero columns. A rotation of two columns in their plane keeps the rows
    orthonormal and moves squared length from one column to the other. One of the two has not been
    rotated before, so they are orthogonal, and every division of their lengths can be reached. The
    longest columns come first, so that columns of length 1 or 0 are never rotated and stay exact.
    """
    order = np.argsort(-squared_lengths, kind="stable")
    wanted = squared_lengths[order]
    rank = round(float(wanted.sum()))
    present = np.where(np.arange(wanted.size) < rank, 1.0, 0.0)
    rows = np.eye(hidden, wanted.size) * present
    giver, taker = 0, rank
    while giver < rank and taker < wanted.size:
        surplus, need = present[giver] - wanted[giver], wanted[taker] - present[taker]
        moved = min(surplus, need)
        if moved > 0:
            sine_squared = moved / (present[giver] - present[taker])
            cosine, sine = np.sqrt(1 - sine_squared), np.sqrt(sine_squared)
            turn = np.array([[cosine, sine], [-sine, cosine]])
            rows[:, [giver, taker]] = rows[:, [giver, taker]] @ turn
            present[giver] -= moved
            present[taker] += moved
        if surplus <= need:
            giver += 1
        else:
            taker += 1
    columns = np.empty_like(rows)
    columns[:, order] = rows
    return columns


def _check(capacity: Any, kurtosis: Any) -> None:
    checks.interval(
        "capacity", capacity, low=0, high=1, remedy="it is a feature's share of a hidden dimension"
    )
    _check_kurtosis(kurtosis, varies=True)


def _check_kurtosis(kurtosis: Any, *, varies: bool) -> None:
    """Refuse a kurtosis below 1, or equal to 1 if the squares of the features have to vary."""
    checks.interval(
        "kurtosis",
        kurtosis,
        low=1,
        open_low=varies,
        remedy="E x^4 / (E x^2)^2 is at least 1, and 1 only if x^2 is constant, so that a bias "
        "predicts it: give that of the features, see sparse_kurtosis",
    )
