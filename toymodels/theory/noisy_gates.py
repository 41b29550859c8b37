r"""Errors of Boolean circuits that are written into fewer dimensions than they have variables.

The network is that of `toymodels.circuits.boolean`. Operand $a$ of a gate is read from a residual
stream as its value and noise $\sum_v (d_a \cdot d_v)\, x_v$ of all other variables $v$. In layer
$\ell$ the variance of this noise is $\nu_\ell = s^2 K_\ell$ with $K_\ell = E \sum_v x_v^2$, the
number of true variables in the stream, and $s^2$ the mean squared overlap of the directions.

A gate is AND, OR or XOR with the probability 1/3 each, and its two operands are outputs of the
layer before. A small change $\delta$ of the sum of the operands changes the gate by $0$,
$\pm\delta$, $\max(\delta, 0)$ or $\min(\delta, 0)$, depending on its kind and on the number of its
true operands. Whatever this number, the mean square of the change over the three kinds is
$\frac23 E \delta^2$ for symmetric $\delta$. So the mean squared error $e_\ell$ of the gates obeys,
whatever the share of true variables,

$$e_\ell = \tfrac43 (e_{\ell-1} + \nu_{\ell-1}), \qquad e_0 = 0,$$

and grows by a third with each layer even where there is no new noise.

A threshold $T(u) = \min(\max(2u - \frac12, 0), 1)$ on each operand removes noise below 1/4. A rare
error of size $r$ on one operand becomes an error of size $r$ of the gate for two of the three
kinds, whatever the number of true operands, and is positive if the gate is false. An operand with
an error $r$ from the layer before has the error $T(r + \sqrt\nu z)$ after the threshold, with a
standard normal $z$. So errors of a gate have the sizes of these errors, with 4/3 of their
probability. Small errors are forgotten; flipped bits multiply.

References:
    Hänni et al. (2024), "Mathematical Models of Computation in Superposition", for layers that
    correct errors. The equations are derived here: for Gaussian noise, for small errors without a
    threshold, and for rare errors with one.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from toymodels import checks
from toymodels.theory import bounds

__all__ = ["corrected", "errors", "errors_corrected", "mean_squared_overlap", "width_for"]


def mean_squared_overlap(variables: int, width: int) -> float:
    r"""Return $s^2 = (V - m) / (m (V - 1))$, the smallest mean squared overlap of unit vectors.

    It is 0 if there are as many dimensions as variables.

    Args:
        variables: the number $V$ of variables, at least 2.
        width: the number $m$ of dimensions of the stream.
    """
    checks.count("variables", variables, minimum=2)
    if width >= variables:
        return 0.0
    potential = bounds.min_frame_potential(np.ones(variables), width)
    return (potential - variables) / (variables * (variables - 1))


def errors(noise: Any) -> Float[np.ndarray, " layers"]:
    r"""Return the mean squared error of the gates of each layer without a threshold.

    Args:
        noise: the variances $\nu_0, \dots, \nu_{L-1}$ of the noise on the operands of each layer.
    """
    noise = _variances(noise)
    found = [0.0]
    for variance in noise:
        found.append(4 / 3 * (found[-1] + variance))
    return np.array(found[1:])


def errors_corrected(noise: Any) -> Float[np.ndarray, " layers"]:
    r"""Return the mean squared error of the gates of each layer with a threshold.

    The error of the first layer is $\frac43 \tau^2(\nu_0)$ with $\tau^2$ from `corrected`. The
    result holds while errors are rare, up to about one gate in ten.

    Args:
        noise: the variances $\nu_0, \dots, \nu_{L-1}$ of the noise on the operands of each layer.

    Returns:
        Exact up to a grid of 300 sizes of errors.
    """
    sizes = np.linspace(0, 1, 301)
    edges = (sizes[:-1] + sizes[1:]) / 2
    # The chance of each size of an error: the inputs have no errors.
    chance = np.where(sizes == 0, 1.0, 0.0)
    found = []
    for variance in _variances(noise):
        # An operand with the error r stays below the size y if r + noise is below y / 2 + 1/4.
        deviation = max(variance, 1e-30) ** 0.5
        below = stats.norm.cdf((edges / 2 + 0.25 - sizes[:, None]) / deviation)
        operand = np.diff(chance @ below, prepend=0.0, append=1.0)
        chance = np.minimum(4 / 3 * operand, 1.0)
        chance[0] = max(1 - chance[1:].sum(), 0.0)
        found.append(chance @ sizes**2)
    return np.array(found)


def corrected(noise: Any) -> Float[np.ndarray, " layers"]:
    r"""Return the mean square $\tau^2$ of what a threshold leaves of noise on a false operand.

    By symmetry it is that of a true operand. With $\sigma = \sqrt\nu$, the density $\phi$ and the
    tail $Q$ of a standard normal variable, $\alpha = \frac1{4\sigma}$ and $\beta = 3 \alpha$,

    $$\tau^2 = 4 \sigma^2 \left[(1 + \alpha^2)(Q(\alpha) - Q(\beta)) - \alpha \phi(\alpha)
      + (2\alpha - \beta) \phi(\beta)\right] + Q(\beta).$$

    Args:
        noise: the variances $\nu$ of the noise.
    """
    noise = _variances(noise)
    deviation = np.sqrt(np.maximum(noise, 1e-30))
    low, high = 0.25 / deviation, 0.75 / deviation
    tails, density = stats.norm.sf, stats.norm.pdf
    middle = (1 + low**2) * (tails(low) - tails(high))
    middle = middle - low * density(low) + (2 * low - high) * density(high)
    return np.maximum(4 * deviation**2 * middle, 0.0) + tails(high)


def width_for(chance: float, true: float, variables: int) -> float:
    r"""Return the width at which noise is above 1/4 with a given chance on one operand.

    With $\sigma = \frac14 / Q^{-1}(\epsilon)$ it is the width at which $s^2 K = \sigma^2$,

    $$m = \frac{V}{1 + (V - 1) \sigma^2 / K},$$

    which has a limit for many variables: $16\, Q^{-1}(\epsilon)^2 K \approx 32 K \ln(1/\epsilon)$.

    Args:
        chance: the chance $\epsilon$ that one operand is above 1/4, in (0, 1/2].
        true: the number $K$ of true variables in the stream.
        variables: the number $V$ of variables.
    """
    remedy = "it is the tail of a normal variable"
    checks.interval("chance", chance, low=0, high=0.5, open_low=True, remedy=remedy)
    checks.interval("true", true, low=0, open_low=True, remedy="without any there is no noise")
    checks.count("variables", variables, minimum=2)
    variance = (0.25 / stats.norm.isf(chance)) ** 2
    return float(variables / (1 + (variables - 1) * variance / true))


def _variances(noise: Any) -> Float[np.ndarray, " layers"]:
    """Return the variances of the noise as one number for each layer, after a check."""
    noise = np.atleast_1d(np.asarray(noise, np.float64))
    checks.interval("noise", noise, low=0, remedy="give variances")
    return noise
