r"""Points on a sphere that repel each other: generalised Thomson problems of toy models.

Without a bias and with features of length 1, the loss of one active feature is a sum over pairs of
features of how much they overlap. So its minima are arrangements of points on a sphere that repel
each other, as electric charges do, though by another force.

Potentials are functions of the Gram matrix $G = W^\top W$ and return the slope in every $G_{ij}$,
too. The descents are SciPy's BFGS in float64.

References:
    Elhage et al. (2022), "Toy Models of Superposition", section "Mathematical Understanding".
    Thomson (1904), "On the structure of the atom".
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from jaxtyping import Float
from scipy import optimize

from toymodels.theory.frames import regular_polygon

Gram = Float[np.ndarray, "features features"]
Points = Float[np.ndarray, "hidden features"]
Vector = Float[np.ndarray, " features"]

PRECISE: Final = {"gtol": 1e-9, "maxiter": 3000}
"""The options with which SciPy's BFGS descends to nearly all digits."""

# Energies of 2 to 12 charges on a unit sphere, as tabulated.
_TABULATED = """
0.5 1.732050808 3.674234614 6.474691495 9.985281374 14.452977414 19.675287861 25.759986531
32.716949460 40.596450510 49.165253058
"""
CHARGE_ENERGIES: Final = dict(enumerate(map(float, _TABULATED.split()), 2))
"""The lowest energy of 2 to 12 electric charges on a unit sphere."""

SEPARATIONS: Final = {
    7: 77.86954,
    8: 74.85849,
    9: 70.52878,
    10: 66.14682,
    11: 63.43495,
    12: 63.43495,
}
"""The largest possible smallest angle, in degrees, between any two of 7 to 12 points on a sphere.

This is the problem of Tammes, solved by Fejes Tóth (1943), Schütte and van der Waerden (1951), and
Danzer (1986).
"""


def rectified(gram: Gram) -> tuple[float, Gram]:
    r"""Return $\sum_{i \ne j} \int_0^1 \mathrm{ReLU}(G_{ij} x)^2 dx$, and its slopes.

    For unit vectors the sum is $n$ times `expected_loss_one_active` without biases.
    """
    overlap = np.maximum(gram, 0) * (1 - np.eye(len(gram)))
    return float((overlap**2).sum() / 3), 2 * overlap / 3


def electric(gram: Gram) -> tuple[float, Gram]:
    r"""Return $\sum_{i < j} 1 / \lVert W_i - W_j \rVert$ for unit vectors, and its slopes."""
    others = 1 - np.eye(len(gram))
    inverse = others / np.sqrt(2 - 2 * gram * others)
    return float(inverse.sum() / 2), inverse**3 / 2


def one_active(gram: Gram, bias: Vector) -> tuple[float, Gram, Vector]:
    r"""Return $n$ times `expected_loss_one_active`, and its slopes in $G$ and in the biases.

    Where the preactivation $G_{ij} x + b_i$ is positive it is linear, so that only moments of $x$
    over that part of $[0, 1]$ are needed.
    """
    itself, bias = np.eye(len(gram)), np.broadcast_to(bias[:, None], gram.shape)
    kink = np.clip(-bias / np.where(gram == 0, 1.0, gram), 0, 1)
    low = np.where(gram > 0, kink, 0.0)
    high = np.select([gram > 0, gram < 0], [1.0, kink], np.where(bias > 0, 1.0, 0.0))
    length, first, second = ((high**k - low**k) / k for k in (1, 2, 3))
    product, output = gram * second + bias * first, gram * first + bias * length
    loss = (gram * product + bias * output - 2 * itself * product).sum() + len(gram) / 3
    slopes = 2 * product - 2 * itself * second
    return float(loss), slopes, 2 * (output - itself * first).sum(axis=1)


def on_sphere(
    potential: Callable[[Gram], tuple[float, Gram]], start: Points
) -> tuple[float, Points]:
    """Return the minimum over unit vectors that BFGS reaches from a start, and its vectors."""

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        free = flat.reshape(start.shape)
        lengths = np.linalg.norm(free, axis=0)
        unit = free / lengths
        energy, slopes = potential(unit.T @ unit)
        slopes = unit @ (slopes + slopes.T)
        return energy, ((slopes - unit * (slopes * unit).sum(axis=0)) / lengths).ravel()

    found = optimize.minimize(value, start.ravel(), jac=True, method="BFGS", options=PRECISE)
    free = found.x.reshape(start.shape)
    return float(found.fun), free / np.linalg.norm(free, axis=0)


def with_bias(start: Points) -> tuple[float, Points]:
    """Return the minimum of `one_active` that BFGS reaches from a start, and the weights there."""
    size = start.size

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat[:size].reshape(start.shape)
        loss, slopes, bias_slopes = one_active(weights.T @ weights, flat[size:])
        return loss, np.concatenate([(weights @ (slopes + slopes.T)).ravel(), bias_slopes])

    # Weights a little longer than 1, and biases that hide small overlaps, lose few features.
    unit = start / np.linalg.norm(start, axis=0)
    begin = np.concatenate([1.2 * unit.ravel(), np.full(start.shape[1], -0.3)])
    found = optimize.minimize(value, begin, jac=True, method="BFGS", options=PRECISE)
    return float(found.fun), found.x[:size].reshape(start.shape)


def polygon_energy(vertices: int) -> float:
    """Return the `rectified` energy of a regular polygon."""
    polygon = regular_polygon(vertices)
    return rectified(polygon.T @ polygon)[0]


def antiprism_energy() -> float:
    r"""Return the `rectified` energy of the best square antiprism.

    Each vertex of a square of radius $r$ overlaps by $1 - r^2$ with its two neighbours in the
    square, and by $(1 + \sqrt{1/2})\, r^2 - 1$ with two vertices of the other square.
    """
    factor = 1 + 0.5**0.5
    radius_squared = (1 + factor) / (1 + factor**2)  # the best one
    return 16 / 3 * ((1 - radius_squared) ** 2 + (factor * radius_squared - 1) ** 2)
