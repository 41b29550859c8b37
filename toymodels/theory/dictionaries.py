r"""Absorption and hedging in closed form: the optimal dictionaries of two features.

A parent $v_1$ and a child $v_2$ are unit vectors at the angle $\theta$. An example is $v_1$ with
probability $a$ (parent alone), $v_1 + v_2$ with $r$ (both), $v_2$ with $s$ (child alone), else 0. A
dictionary of unit vectors with ideal codes $z \ge 0$ has the loss

$$L = E \min_{z \ge 0} \lVert x - D z \rVert^2 + \lambda \sum_l z_l.$$

**Absorption.** If the child never occurs alone, $D = \{v_1, b\}$ with the bisector $b$ needs one
latent for each example. No dictionary has a smaller $L_1$ norm, because
$\sum_l z_l \ge \lVert D z \rVert$. It *absorbs* the parent into the child at every angle, and saves
$2 r (1 - \cos(\theta/2))$ of the $L_1$ norm of the true pair as $\lambda \to 0$. If the child
sometimes occurs alone, the true pair is the only optimum of two latents in that limit, because
exact codes are linear and have a norm of at least 1 for $v_1$ and for $v_2$. A dictionary with a
third latent, $\{v_1, v_2, b\}$, again has the smallest norm. And at finite $\lambda$ the optimum
reconstructs a child alone badly if it is rare: `absorption_boundary`.

**Hedging.** A single latent for two features has the lowest error between them: `hedging_angle`.

References:
    Chanin et al. (2024), "A is for Absorption: Studying Feature Splitting and Absorption in Sparse
    Autoencoders".
    Chanin et al. (2025), "Feature Hedging: Correlated Features Break Narrow Sparse Autoencoders".
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize

from toymodels import checks
from toymodels.errors import InputError


class Pair(NamedTuple):
    """The best dictionary of two latents."""

    angles: tuple[float, float]
    r"""The angles of the latents from $v_1$ towards $v_2$, in radians, increasing."""
    loss: float


def true_loss(
    angle: float, parent_alone: float, both: float, child_alone: float, penalty: float
) -> float:
    r"""Return the loss $L$ of the true dictionary $\{v_1, v_2\}$ with ideal codes.

    $$L = (a + s)\Big(\lambda - \frac{\lambda^2}4\Big) +
          r \Big(2\lambda - \frac{\lambda^2}{2 (1 + \cos\theta)}\Big).$$

    The penalty shrinks every code, by $\lambda / 2$ if one latent fires. $L / \lambda$ tends to the
    $L_1$ norm $a + s + 2r$ as $\lambda \to 0$.

    Args:
        angle: $\theta$, in $(0, \pi)$.
        parent_alone: $a$.
        both: $r$.
        child_alone: $s$.
        penalty: $\lambda$, above 0 and at most $\min(2c, 4c^2)$ with $c = \cos(\theta/2)$. A larger
            one would silence latents.

    Returns:
        A number of at least 0; the squared error in it is summed over dimensions.
    """
    _check(angle, parent_alone, both, child_alone, penalty)
    alone = penalty - penalty**2 / 4
    together = 2 * penalty - penalty**2 / (2 * (1 + math.cos(angle)))
    return (parent_alone + child_alone) * alone + both * together


def absorbed_loss(
    angle: float, parent_alone: float, both: float, child_alone: float, penalty: float
) -> float:
    r"""Return the loss $L$ of the dictionary $\{v_1, b\}$ that absorbs the parent.

    The codes are ideal.

    With $c = \cos(\theta / 2)$ the cosine of $b$ and $v_2$,

    $$L = a \Big(\lambda - \frac{\lambda^2}4\Big) + r \Big(2 c \lambda - \frac{\lambda^2}4\Big) +
          s \Big(1 - \Big(c - \frac\lambda 2\Big)^2\Big).$$

    The latent $b$ alone reconstructs a child alone, badly, because $v_1$ would make it worse.

    Args:
        angle: $\theta$, in $(0, \pi)$.
        parent_alone: $a$.
        both: $r$.
        child_alone: $s$.
        penalty: $\lambda$, above 0 and at most $\min(2c, 4c^2)$.

    Returns:
        A number of at least 0. $L / \lambda$ tends to $a + 2 r c$ as $\lambda \to 0$ if $s = 0$,
        else to infinity.
    """
    _check(angle, parent_alone, both, child_alone, penalty)
    cosine = math.cos(angle / 2)
    return (
        parent_alone * (penalty - penalty**2 / 4)
        + both * (2 * cosine * penalty - penalty**2 / 4)
        + child_alone * (1 - (cosine - penalty / 2) ** 2)
    )


def absorption_boundary(angle: float, penalty: float) -> float:
    r"""Return the ratio $s / r$ of child alone to both below which absorption has the lower loss.

    Where `absorbed_loss` and `true_loss` are equal,

    $$\frac sr = \frac{2\lambda (1 - c) - (1/c^2 - 1) \lambda^2/4}{1 - c^2 - \lambda (1 - c)}
      = \frac{2\lambda - (1 + c) \lambda^2 / 4 c^2}{1 + c - \lambda},
      \qquad c = \cos\frac\theta 2,$$

    for any probability of the parent. It is 0 for $\lambda \to 0$ and grows like
    $2 \lambda / (1 + c)$. Other pairs of latents can have a lower loss than both: see `best_pair`.

    Args:
        angle: $\theta$, in $(0, \pi)$.
        penalty: $\lambda$, above 0 and at most $\min(2c, 4c^2)$.

    Returns:
        A positive number. It can be above 1 near the largest penalty.
    """
    _check(angle, 0.0, 0.0, 0.0, penalty)
    cosine = math.cos(angle / 2)
    saved = 2 * penalty - (1 + cosine) * (penalty / cosine) ** 2 / 4
    return saved / (1 + cosine - penalty)


def ideal_codes(
    dictionary: Float[np.ndarray, "hidden latents"],
    examples: Float[np.ndarray, "examples hidden"],
    penalty: float,
) -> Float[np.ndarray, "examples latents"]:
    r"""Return the exact $z \ge 0$ that minimise $\lVert x - D z \rVert^2 + \lambda \sum_l z_l$.

    For independent columns there is a $y$ with $D^\top y = D^\top x - \lambda / 2$. With $y$ in
    place of $x$, the problem is one of least squares in $z \ge 0$.

    Raises:
        ValueError: the columns are dependent.
    """
    dictionary = np.asarray(dictionary, np.float64)
    if np.linalg.matrix_rank(dictionary) < dictionary.shape[1]:
        raise InputError(
            f"the {dictionary.shape[1]} columns of the dictionary are dependent: their codes are "
            "not unique, see analysis.sparse_coding"
        )
    shift = np.linalg.pinv(dictionary).T @ np.full(dictionary.shape[1], penalty / 2)
    rows = np.asarray(examples, np.float64) - shift
    return np.stack([optimize.nnls(dictionary, row)[0] for row in rows])


def coding_loss(
    dictionary: Float[np.ndarray, "hidden latents"],
    examples: Float[np.ndarray, "examples hidden"],
    penalty: float,
) -> Float[np.ndarray, " examples"]:
    r"""Return $\lVert x - D z \rVert^2 + \lambda \sum_l z_l$ of each example, with ideal $z$."""
    codes = ideal_codes(dictionary, examples, penalty)
    squares = np.sum((examples - codes @ dictionary.T) ** 2, axis=1)
    return squares + penalty * codes.sum(axis=1)


def best_pair(
    angle: float, parent_alone: float, both: float, child_alone: float, penalty: float
) -> Pair:
    r"""Return the two unit vectors of the lowest loss $L$, by a local search over their angles.

    The true pair has the angles $(0, \theta)$. Absorption of the parent into the child has
    $(0, \theta / 2)$, and that of the child into the parent $(\theta / 2, \theta)$.

    Args:
        angle: $\theta$, in $(0, \pi)$.
        parent_alone: $a$.
        both: $r$.
        child_alone: $s$.
        penalty: $\lambda$, above 0 and at most $\min(2c, 4c^2)$.
    """
    _check(angle, parent_alone, both, child_alone, penalty)
    parent, child = np.array([1.0, 0.0]), np.array([math.cos(angle), math.sin(angle)])
    examples = np.stack([parent, parent + child, child])
    chances = np.array([parent_alone, both, child_alone])

    def loss(angles: Any) -> float:
        if abs(math.sin(angles[1] - angles[0])) < 1e-6:  # one direction twice
            return math.inf
        pair = np.stack([np.cos(angles), np.sin(angles)])
        return float(chances @ coding_loss(pair, examples, penalty))

    # This search starts at the true pair. Searches that started at a bisector never ended lower.
    simplex = np.array([(0.0, angle), (0.1 * angle, angle), (0.0, 0.9 * angle)])
    best = optimize.minimize(
        loss,
        simplex[0],
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-7, "fatol": 1e-12},
    )
    low, high = sorted(float(each) for each in best.x)
    return Pair((low, high), float(best.fun))


def hedging_angle(parent_alone: float, both: float) -> float:
    r"""Return the angle of a single latent between orthogonal features: $\tan 2t = 2 r / a$.

    It minimises `hedging_loss`. The latent is the first principal component (not centred) of the
    examples, so a child that accompanies the parent in some examples is mixed into its latent.

    Args:
        parent_alone: $a$, the probability of $v_1$.
        both: $r$, the probability of $v_1 + v_2$.

    Returns:
        The angle from the parent towards the child, in $[0, \pi/4]$: $\pi/4$ if the parent is never
        alone, and 0 if the child never occurs.
    """
    _check_chances(parent_alone, both)
    return math.atan2(2 * both, parent_alone) / 2


def centred_hedging_angle(parent_alone: float, both: float) -> float:
    r"""Return the angle of a single latent of an autoencoder with biases.

    It is that of the first principal component of the CENTRED examples. There are three different
    examples, and they are affinely independent: with biases their codes can be any numbers, and the
    best codes are projections to the best line. With $p = a + r$ the variances are $p (1 - p)$ and
    $r (1 - r)$, and the covariance is $r (1 - p)$, so

    $$\tan 2t = \frac{2 r (1 - p)}{p (1 - p) - r (1 - r)}.$$

    Args:
        parent_alone: $a$, the probability of $v_1$.
        both: $r$, the probability of $v_1 + v_2$.

    Returns:
        The angle from the parent towards the child, in $[0, \pi/2]$: `hedging_angle` where both are
        rare, and $\pi/2$ where the parent is always present.
    """
    _check_chances(parent_alone, both)
    parent = parent_alone + both
    difference = parent * (1 - parent) - both * (1 - both)
    return math.atan2(2 * both * (1 - parent), difference) / 2


def hedging_loss(angle: float, parent_alone: float, both: float) -> float:
    r"""Return the error of a single tied latent of unit length between orthogonal features.

    $$E \lVert x - u u^\top x \rVert^2 = a \sin^2 t + r (1 - \sin 2t).$$

    Args:
        angle: $t$, from the parent towards the child.
        parent_alone: $a$, the probability of $v_1$.
        both: $r$, the probability of $v_1 + v_2$.

    Returns:
        A number of at least 0, summed over dimensions: $r$ at the parent, $a + r$ at the child.
    """
    _check_chances(parent_alone, both)
    return parent_alone * math.sin(angle) ** 2 + both * (1 - math.sin(2 * angle))


def _check(
    angle: float, parent_alone: float, both: float, child_alone: float, penalty: float
) -> None:
    checks.interval(
        "angle", angle, low=0, high=math.pi, open_low=True, remedy="it is between two directions"
    )
    _check_chances(parent_alone, both, child_alone)
    cosine = math.cos(angle / 2)
    highest = min(2 * cosine, 4 * cosine**2)
    remedy = "a larger penalty than min(2 c, 4 c^2), c = cos(angle / 2), silences latents"
    checks.interval("penalty", penalty, low=0, high=highest, open_low=True, remedy=remedy)


def _check_chances(*chances: float) -> None:
    for chance in chances:
        checks.interval("probability", chance, low=0, high=1, remedy="all together are at most 1")
    total = math.fsum(chances)
    # Numbers that were divided by their sum add up to 1 only within rounding, 1e-7 in float32.
    if total > 1 + 1e-6:
        raise InputError(f"probabilities add up to {total!r}: all together are at most 1")
