r"""Dictionaries of growing size, when features are manifolds that any number of latents may tile.

Feature $i$ is present with a probability proportional to $p_i = i^{-(1 + \alpha)}$. With $n$
latents of its own it is reconstructed with the error $g(n)$, which starts at $g(0) = 1$, falls and
is convex. The next latent always goes where it gains most, so that feature $i$ has all latents with
$p_i\, (g(n - 1) - g(n)) \ge \mu$ for one threshold $\mu$: that is optimal for the total error.

For $g \sim n^{-\beta}$ and $N$ latents, $D$ features have a latent, and the error is $L$:

| | features found | error |
|---|---|---|
| $\beta > \alpha$ | $D \sim N$ | $L \sim N^{-\alpha}$ |
| $\beta < \alpha$ | $D \sim N^{(1 + \beta) / (1 + \alpha)}$ | $L \sim N^{-\beta}$ |

In the second case frequent manifolds take nearly all latents.

References:
    Michaud, Gorton, McGrath (2025), "Understanding Sparse Autoencoder Scaling in the Presence of
    Feature Manifolds".
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from toymodels import checks
from toymodels.errors import InputError


class Allocation(NamedTuple):
    """The best division of latents among features.

    Attributes:
        latents: the number $N$ of latents.
        found: the number $D$ of features that have one or more of them.
        loss: the error $L$, summed over features.
    """

    latents: int
    found: int
    loss: float


def circle_error(latents: int) -> float:
    r"""Return the error of points on a circle, each written by the best ONE of $n$ directions.

    A point at the angle $t$ from a direction has the error $\sin^2 t$. For $n$ directions at equal
    distances $t$ is uniform on $[0, \pi / n]$, and the mean error is

    $$\frac12 - \frac{n}{4 \pi} \sin \frac{2 \pi}{n} \sim \frac{\pi^2}{3 n^2}.$$

    No other directions from the centre are better, because the error of an arc is convex in its
    length. Directions from another point, which the bias of an autoencoder can choose, can be.

    Args:
        latents: $n \ge 2$. Latents are not negative, so that none writes two opposite directions.

    Returns:
        The mean squared error, in $(0, 1/2]$, in units of the squared radius.
    """
    checks.count("latents", latents, minimum=2)
    return 0.5 - latents / (4 * math.pi) * math.sin(2 * math.pi / latents)


def allocation(gains: Float[np.ndarray, " latents"], alpha: float, threshold: float) -> Allocation:
    r"""Return the best division of latents among infinitely many features.

    Feature $i$ has latent $n$ if $i \le I_n = (\Delta_n / \mu)^{1 / (1 + \alpha)}$, with the gains
    $\Delta_n = g(n - 1) - g(n)$. So $N = \sum_n \lfloor I_n \rfloor$, $D = \lfloor I_1 \rfloor$ and
    $L = \sum_n \Delta_n \sum_{i > I_n} p_i$, whose inner sum is Hurwitz's zeta function.

    Args:
        gains: $\Delta_1 \ge \Delta_2 \ge \dots > 0$, up to a $\Delta_n$ below the threshold. The
            loss leaves out what is left after the last one.
        alpha: $\alpha > 0$.
        threshold: $\mu > 0$, the least gain for which a latent is spent.

    Raises:
        ValueError: gains that rise, or end above the threshold.
    """
    checks.interval("alpha", alpha, low=0, open_low=True, remedy="frequencies must have a sum")
    checks.interval("threshold", threshold, low=0, open_low=True, remedy="a gain is positive")
    gains = np.asarray(gains, np.float64)
    if np.any(np.diff(gains) > 0) or gains[-1] >= threshold:
        raise InputError(
            f"gains end at {gains[-1]:g}: give falling gains, up to one below {threshold:g}"
        )
    # A ratio that rounding puts just below a whole number still counts as that number.
    last = np.floor((gains / threshold) ** (1 / (1 + alpha)) * (1 + 1e-12))
    loss = float(np.sum(gains * special.zeta(1 + alpha, last + 1)))
    return Allocation(int(last.sum()), int(last[0]), loss)


def power_gains(beta: float, count: int) -> Float[np.ndarray, " latents"]:
    r"""Return the gains of the error $g(n) = (1 + n)^{-\beta}$ for $n$ from 1 to `count`."""
    checks.interval("beta", beta, low=0, open_low=True, remedy="the error must fall")
    errors = np.arange(1.0, count + 2) ** -beta
    return errors[:-1] - errors[1:]
