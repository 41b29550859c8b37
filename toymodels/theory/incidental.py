r"""Incidental polysemanticity: features that share a neuron although there is room for all.

Features are one-hot inputs of $\mathrm{ReLU}(W^\top W x)$, and the weights have the penalty
$\lambda \lVert W \rVert_1$. Each feature ends in one of $2m$ places, which are a neuron and a sign.
Two features of one sign in one neuron repel each other through the ReLU, so no place is taken
twice. The ReLU hides two features of opposite signs from each other, so they stay.

References:
    Lecomte et al. (2023), "Incidental Polysemanticity".
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import integrate

from toymodels import checks
from toymodels.errors import InputError

__all__ = ["Sparsified", "collisions", "collisions_without_repulsion", "sparsified"]


def collisions(features: int, neurons: int) -> float:
    r"""Return the expected number of neurons with two features, of opposite signs.

    If the features are in distinct places, and all such arrangements are equally likely, it is

    $$m \frac{n (n - 1)}{2m (2m - 1)} = \frac{n (n - 1)}{2 (2m - 1)},$$

    which is nearly $n^2 / 4m$ for $n$ from a few to $m$.

    Args:
        features: the number $n$ of features, at most $2m$.
        neurons: the number $m$ of neurons.
    """
    checks.count("neurons", neurons)
    checks.count("features", features)
    checks.interval("features", features, high=2 * neurons, remedy="there are 2 m places")
    return features * (features - 1) / (2 * (2 * neurons - 1))


def collisions_without_repulsion(features: int, neurons: int) -> float:
    r"""Return the expected number of neurons with features of both signs, at independent places.

    It is $m (1 - 2 (1 - \frac{1}{2m})^n + (1 - \frac1m)^n)$, which is nearly $n^2 / 4m$ for
    $n \ll m$, but only $0.155\,m$ for $n = m$.

    Args:
        features: the number $n$ of features.
        neurons: the number $m$ of neurons.
    """
    checks.count("neurons", neurons)
    checks.count("features", features)
    one, both = (1 - 1 / (2 * neurons)) ** features, (1 - 1 / neurons) ** features
    return neurons * (1 - 2 * one + both)


class Sparsified(NamedTuple):
    r"""The weights of one feature while a penalty makes them sparse.

    Attributes:
        norm: the sum of absolute weights $\lVert w \rVert_1$, where $\lVert w \rVert_2 = 1$.
        survivors: the number of weights that are not zero.
    """

    norm: Float[np.ndarray, "*times"] | float
    survivors: Int[np.ndarray, "*times"] | np.integer[Any]


def sparsified(start: Any, times: Any, penalty: float) -> Sparsified:
    r"""Return the weights of a lone feature under gradient flow, from any start.

    The reconstruction keeps $\lVert w \rVert_2 = 1$, so each weight follows
    $\dot w = \alpha w - \lambda \operatorname{sign} w$. The solution is the start after soft
    thresholding, rescaled to length 1, and the largest weight of the start wins:

    $$w(t) = \frac{S_\theta}{\lVert S_\theta \rVert_2}, \quad
      S_\theta = \operatorname{sign}(w(0)) (|w(0)| - \theta)_+, \quad
      \lambda t = \int_0^\theta \frac{d\vartheta}{\lVert S_\vartheta \rVert_2}.$$

    Lecomte et al. estimate $\lVert w \rVert_1$ by $(1/\sqrt m + \lambda t)^{-1}$, which begins at
    $\sqrt m$ in place of $\sqrt{2m/\pi}$, the sum for $m$ normal weights.

    Args:
        start: the weights $w(0)$; their length is divided out.
        times: the times $t$ at which the weights are wanted, at least 0.
        penalty: the penalty $\lambda > 0$, small enough that the length stays 1.

    Returns:
        Exact up to a grid of 4000 thresholds.
    """
    sizes = np.abs(np.asarray(start, np.float64))
    if sizes.ndim != 1 or not sizes.any():
        raise InputError(f"start has shape {sizes.shape}: give weights, and not all of them 0")
    checks.interval("times", times, low=0, remedy="the flow begins at time 0")
    checks.interval("penalty", penalty, low=0, open_low=True, remedy="no weight dies without it")
    sizes = sizes / np.linalg.norm(sizes)
    # Dense towards the largest weight, which the threshold reaches only after infinite time.
    threshold = sizes.max() * (1 - np.geomspace(1, 1e-12, 4001))
    remaining = np.maximum(sizes - threshold[:, None], 0)
    l1_norm, l2_norm = remaining.sum(axis=1), np.sqrt((remaining**2).sum(axis=1))
    clock = integrate.cumulative_trapezoid(1 / l2_norm, threshold, initial=0.0)  # lambda t
    wanted = penalty * np.asarray(times, np.float64)
    reached = np.interp(wanted, clock, threshold)
    return Sparsified(
        norm=np.interp(wanted, clock, l1_norm / l2_norm),
        survivors=(sizes > reached[..., None]).sum(axis=-1),
    )
