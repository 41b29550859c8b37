r"""Shrinkage: what an L1 penalty leaves of one feature, by how much its error matters.

A feature $x$ is uniform on $(0, 1)$ with probability $p$, and else 0. One latent and a bias
rebuild it, and the loss weights the error by the importance $I$ of the feature:

$$L = I\, E (x - z - b)^2 + \lambda\, E z, \qquad z \ge 0.$$

An autoencoder of the usual kind has $I = 1$ for every feature whose direction has length 1. One
that is trained end to end has the importance of the feature to the output of the model.

References:
    Braun et al. (2024), "Identifying Functionally Important Features with End-to-End Sparse
    Dictionary Learning".
"""

import math
from typing import NamedTuple

from toymodels import checks


class Shrunk(NamedTuple):
    """The best latent and bias of one feature."""

    smallest: float
    """The latent fires if the feature is above this number. It never fires if this is 1."""
    bias: float
    firing: float
    """The probability that the latent fires."""
    squared_error: float
    """The mean squared error, not weighted by the importance."""


def shrunk_feature(importance: float, density: float, penalty: float) -> Shrunk:
    r"""Return the latent and the bias of the lowest loss.

    The loss is convex in the codes of all examples and the bias together. The best code of an
    example is $z = \max(0, x - s)$ with $s = b + \lambda / 2 I$, and the best bias is the mean of
    what is missing, $b = p\, E \min(x, s)$ over the values of a feature that is present. Together,

    $$\tfrac p2 s^2 + (1 - p) s = \frac\lambda{2 I}, \qquad
      E (x - z - b)^2 = p \left(s^2 - \tfrac23 s^3\right) - b^2.$$

    At $\lambda = I (2 - p)$ and above, $s = 1$: the latent never fires, and the bias is the mean
    $p / 2$ of the feature. The encoder of a `ReLUAutoencoder` can compute this code.

    Args:
        importance: $I > 0$.
        density: $p$, above 0 and at most 1.
        penalty: $\lambda \ge 0$.
    """
    remedy = "give a positive number"
    checks.interval("importance", importance, low=0, open_low=True, remedy=remedy)
    remedy = "it is the probability that the feature is not 0"
    checks.interval("density", density, low=0, high=1, open_low=True, remedy=remedy)
    checks.interval("penalty", penalty, low=0, remedy="give a factor of 0 or more")
    shift = min(penalty / (2 * importance), 1 - density / 2)
    root = math.sqrt((1 - density) ** 2 + 2 * density * shift)
    smallest = 2 * shift / (1 - density + root) if shift > 0 else 0.0
    bias = density * (smallest - smallest**2 / 2)
    square = density * (smallest**2 - 2 * smallest**3 / 3) - bias**2
    return Shrunk(smallest, bias, density * (1 - smallest), square)
