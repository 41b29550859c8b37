r"""Loss against width: with one dimension for each feature, and with random directions for all.

A tied model $y = \mathrm{ReLU}(W^\top W x + b)$ of $m$ dimensions meets $n > m$ sparse features.
Without superposition the $m$ most frequent features have a dimension each, and the loss is the
variance of the others. In strong superposition all features have directions of nearly one length;
here these are independent and uniform on a sphere, which is the start of training.

References:
    Liu, Liu and Gore (2025), "Superposition Yields Robust Neural Scaling". The loss of random
    directions is derived here.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory.features import feature_variance
from toymodels.theory.quadrature import gauss_legendre

__all__ = [
    "RandomDirections",
    "best_random_directions",
    "loss_without_superposition",
    "random_directions_loss",
]

_RESOLUTION = 64  # steps of the grid of the noise for each standard deviation of an overlap


class RandomDirections(NamedTuple):
    """The best model of random directions.

    Attributes:
        gain: the squared length $a$ of all directions.
        bias: the bias $b$ of all outputs.
        loss: the expected loss, summed over outputs.
    """

    gain: float
    bias: float
    loss: float


def loss_without_superposition(density: Any, kept: int) -> float:
    r"""Return the loss if some features are perfect and all others have the best constant.

    $$\sum_{i > k} \operatorname{Var} x_i = \sum_{i > k} \Bigl(\frac{p_i}3 - \frac{p_i^2}4\Bigr).$$

    Args:
        density: the densities $p_i$ of the features, the most frequent first.
        kept: the number $k$ of features that are perfect, from 0 to all.
    """
    density = np.asarray(density, np.float64)
    if density.ndim != 1:
        raise InputError(f"density has shape {density.shape}: give one number for each feature")
    checks.density(density)
    checks.count("kept", kept, minimum=0)
    checks.interval("kept", kept, high=density.size, remedy="no more features can be kept")
    return float(np.sum(feature_variance(density[kept:])))


def random_directions_loss(
    gain: float, bias: float, density: float, *, num_features: int, hidden: int
) -> float:
    r"""Return the expected loss of a tied model with independent random directions.

    All directions have the squared length $a$ and all outputs the bias $b$. The overlaps $c_j$ of
    one direction with the others are independent, with $(1 + c_j) / 2$ from the beta distribution
    of parameters $\frac{m-1}2$, $\frac{m-1}2$. So each output sees its own feature $x$ and the
    noise $\zeta$ of $n - 1$ independent jumps $c_j x_j$, and the loss is exactly

    $$n\, E\,\bigl(x - \mathrm{ReLU}(a (x + \zeta) + b)\bigr)^2.$$

    It is a mean over inputs and over directions. With $a = 1$ and $b = 0$, outputs whose feature
    is absent contribute $n (1-p) (n-1) \frac{p}{6m}$, because $\zeta$ is symmetric.

    Args:
        gain: the squared length $a$.
        bias: the bias $b$.
        density: the density $p$ of all features.
        num_features: the number $n$ of features.
        hidden: the number $m$ of dimensions, at least 2.

    Returns:
        The loss summed over outputs, with a relative error of some 0.1 %: the noise is on a grid.
    """
    noise, chance = _noise(density, num_features, hidden)
    return _loss(gain, bias, density, num_features, noise, chance)


def best_random_directions(density: float, *, num_features: int, hidden: int) -> RandomDirections:
    """Return the best length and bias for random directions; see `random_directions_loss`.

    Args:
        density: the density of all features.
        num_features: the number of features.
        hidden: the number of dimensions, at least 2.
    """
    noise, chance = _noise(density, num_features, hidden)

    def loss(numbers: np.ndarray) -> float:
        gain, bias = numbers
        return _loss(gain, bias, density, num_features, noise, chance)

    starts = ([1.0, -0.1], [0.1, 0.0])
    found = [optimize.minimize(loss, start, method="Nelder-Mead") for start in starts]
    best = min(found, key=lambda each: each.fun)
    gain, bias = map(float, best.x)
    return RandomDirections(gain, bias, float(best.fun))


def _noise(
    density: float, num_features: int, hidden: int
) -> tuple[Float[np.ndarray, " grid"], Float[np.ndarray, " grid"]]:
    """Return the values of the noise on a grid, and their chances."""
    checks.density(density)
    checks.count("num_features", num_features)
    checks.count("hidden", hidden, minimum=2)
    step = hidden**-0.5 / _RESOLUTION
    spread = (num_features * density / (3 * hidden)) ** 0.5
    size = 1 << int((4 + 16 * spread) / step).bit_length()
    middle = (np.arange(2000) + 0.5) / 2000
    overlap = 2 * stats.beta.ppf(middle, (hidden - 1) / 2, (hidden - 1) / 2) - 1
    feature, weight = gauss_legendre(64)
    place = np.ravel(overlap[:, None] * feature) / step
    share = np.ravel(np.broadcast_to(weight, (2000, 64))) / 2000
    below = np.floor(place)  # a jump is shared between the two next points of the grid
    jump = np.bincount(below.astype(int) % size, share * (1 - place + below), size)
    jump += np.bincount((below.astype(int) + 1) % size, share * (place - below), size)
    spectrum = (1 - density + density * np.fft.rfft(jump)) ** (num_features - 1)
    chance = np.fft.irfft(spectrum, size)
    return step * np.fft.fftfreq(size, 1 / size), chance


def _loss(
    gain: float,
    bias: float,
    density: float,
    num_features: int,
    noise: Float[np.ndarray, " grid"],
    chance: Float[np.ndarray, " grid"],
) -> float:
    """Return the loss for these values and chances of the noise."""
    feature, weight = gauss_legendre(32)
    absent = np.maximum(gain * noise + bias, 0) ** 2
    output = np.maximum(gain * (feature + noise[:, None]) + bias, 0)
    present = (feature - output) ** 2 @ weight
    return float(num_features * chance @ ((1 - density) * absent + density * present))
