r"""Two features in one hidden dimension without a bias: $y = \mathrm{ReLU}(W^\top W x)$.

Two solutions compete. An antipodal pair is clipped; features that point the same way, the
"confused feature", are not, so that their model is linear.

References:
    McGrath, comment on Elhage et al. (2022), "Toy Models of Superposition".
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize

from toymodels import checks
from toymodels.theory.loss import expected_loss

__all__ = ["Solution", "antipodal", "crossing", "same_direction"]


class Solution(NamedTuple):
    """The weights of both features, and their exact loss."""

    weights: Float[np.ndarray, "2"]
    loss: float


def same_direction(density: float, importance: float = 1.0) -> Solution:
    r"""Return the best model whose features point the same way.

    Nothing is clipped there, so $y_i = w_i (w_1 x_1 + w_2 x_2)$ and the loss is a polynomial in
    the moments $E x_i^2 = p / 3$, $E x_1 x_2 = p^2 / 4$. For equal importances it is
    $p/3 - p^2/4$, with both weights $1/\sqrt2$.

    Args:
        density: $p$, in (0, 1].
        importance: the importance $r > 0$ of the second feature; that of the first is 1.
    """
    checks.density(density)
    square, mixed = density / 3, density**2 / 4

    def loss(weights: Any) -> float:
        first, second = np.abs(weights)
        seen = square * (first**2 + second**2) + 2 * mixed * first * second
        with_first, with_second = square * first + mixed * second, square * second + mixed * first
        return (square - 2 * first * with_first + first**2 * seen) + importance * (
            square - 2 * second * with_second + second**2 * seen
        )

    starts = ([0.7, 0.7], [1.0, 0.1], [0.1, 1.0])
    best = min((optimize.minimize(loss, start, tol=1e-10) for start in starts), key=lambda f: f.fun)
    return Solution(np.abs(best.x), float(best.fun))


def antipodal(density: float) -> Solution:
    """Return the best antipodal pair of two features of equal importance.

    Args:
        density: $p$, in (0, 1].
    """
    checks.density(density)

    def loss(length: float) -> float:
        return float(expected_loss(length * np.array([[1.0, -1.0]]), np.zeros(2), density))

    best: Any = optimize.minimize_scalar(loss, bounds=(0.5, 1.5), method="bounded")
    return Solution(float(best.x) * np.array([1.0, -1.0]), float(best.fun))


def crossing() -> float:
    """Return the density above which features of equal importance had better point the same way.

    It is near 4/7, which it would be if the length of the pair were 1.
    """
    found: Any = optimize.root_scalar(
        lambda p: antipodal(p).loss - same_direction(p).loss, bracket=(0.4, 0.8), xtol=1e-6
    )
    return float(found.root)
