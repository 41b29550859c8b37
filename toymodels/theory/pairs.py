r"""Pairs of correlated features in two hidden dimensions: polygons, and how pairs collapse.

The two mates of a pair are present together, with probability $p$. While $p$ is small, the features
of $k$ pairs are the corners of a polygon with $2k$ corners, mates side by side. As $p$ grows, pairs
collapse, one after the other: both mates get one direction, which then holds their principal
component $(a + b) / \sqrt 2$. In the end the solution is that of PCA.

`weights` is 2 x features, the mates of a pair side by side. The loss is that of
`expected_loss_correlated` with importance 1, in float64.

References:
    Elhage et al. (2022), "Toy Models of Superposition", sections "Organization of Correlated and
    Anticorrelated Features" and "Collapsing of Correlated Features".
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory.correlated import expected_loss_correlated
from toymodels.theory.frames import regular_polygon


class Solution(NamedTuple):
    """A model of pairs.

    Attributes:
        weights: the feature directions, one per column.
        bias: the bias of each output.
        loss: the exact loss, summed over the outputs.
    """

    weights: Float[np.ndarray, "2 features"]
    bias: Float[np.ndarray, " features"]
    loss: float


def mate_angles(
    weights: Float[np.ndarray, "*models hidden features"],
) -> Float[np.ndarray, "*models pairs"]:
    """Return the angle between the mates of each pair, in degrees from 0 to 180.

    The angle is 90 where a mate has no direction.
    """
    first, second = weights[..., ::2], weights[..., 1::2]
    lengths = np.linalg.norm(first, axis=-2) * np.linalg.norm(second, axis=-2)
    cosine = (first * second).sum(axis=-2) / np.maximum(lengths, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def collapsed(
    weights: Float[np.ndarray, "*models hidden features"],
) -> Bool[np.ndarray, "*models pairs"]:
    """Return which pairs have mates less than 30 degrees apart, half-way to those of a hexagon."""
    return mate_angles(weights) < 30


def descend(
    weights: Float[np.ndarray, "2 features"], bias: Float[np.ndarray, " features"], density: float
) -> Solution:
    """Return the minimum of the exact loss that BFGS reaches from a start.

    Args:
        weights: the first weights; BFGS keeps every symmetry that they share with the loss.
        bias: the first biases.
        density: $p$, in $(0, 1]$.
    """
    checks.density(density, each="pair")
    start = np.vstack([weights, bias]).astype(float)

    def value(parameters: Any) -> tuple[float, Any]:
        with jax.enable_x64(True):
            loss, slopes = _loss_and_slopes(parameters.reshape(start.shape), density)
            return float(loss) / density, np.asarray(slopes).ravel() / density

    found = optimize.minimize(value, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-8})
    end = found.x.reshape(start.shape)
    return Solution(end[:-1], end[-1], float(density * found.fun))


@jax.jit
def _loss_and_slopes(parameters: Any, density: Any) -> Any:
    """Return the loss and its slopes; `parameters` are the weights and, as a last row, the bias."""

    def loss(parameters: Any) -> Any:
        weights, bias = parameters[:-1], parameters[-1]
        return expected_loss_correlated(weights, bias, density, num_sets=bias.size // 2)

    return jax.value_and_grad(loss)(parameters)


def arrangement(
    num_pairs: int, num_collapsed: int, num_corners: int
) -> Float[np.ndarray, "2 features"]:
    """Return the corners of a regular polygon, where each collapsed pair shares one corner.

    Features take the corners in order. Collapsed pairs come last, and both of their mates have the
    norm 0.707. All weights are disturbed by about 0.001, in every call by the same numbers, so that
    a descent from there keeps no symmetry.
    """
    corners = regular_polygon(num_corners)
    alone = 2 * (num_pairs - num_collapsed)  # so many features have a corner of their own
    shared = np.repeat(corners[:, alone : alone + num_collapsed], 2, axis=1) / np.sqrt(2)
    disturbance = 1e-3 * np.random.default_rng(0).standard_normal((2, 2 * num_pairs))
    return np.hstack([corners[:, :alone], shared]) + disturbance


def branch(num_pairs: int, num_collapsed: int, density: float) -> Solution:
    """Return the lowest minimum found in which so many pairs have collapsed.

    Descents begin at the polygon with one corner for each direction, and at a square if there are
    fewer than four directions.

    Args:
        num_pairs: $k$, from 1 to 6.
        num_collapsed: how many of them have collapsed, from 0 to $k$.
        density: $p$, in $(0, 1]$.

    Returns:
        The solution. Its loss is NaN if the descents left the arrangement, so that there seems to
        be no such minimum.
    """
    checks.count("num_pairs", num_pairs)
    checks.count("num_collapsed", num_collapsed, minimum=0)
    if num_collapsed > num_pairs:
        raise InputError(f"{num_collapsed} of {num_pairs} pairs cannot collapse: give fewer")
    directions, bias = 2 * num_pairs - num_collapsed, np.full(2 * num_pairs, -0.1)
    found = [
        descend(arrangement(num_pairs, num_collapsed, corners), bias, density)
        for corners in sorted({directions, max(directions, 4)})
    ]
    kept = [each for each in found if collapsed(each.weights).sum() == num_collapsed]
    return min(kept, key=lambda each: each.loss) if kept else found[0]._replace(loss=np.nan)


def optimum(num_pairs: int, density: float) -> Solution:
    """Return the lowest of all branches; no search proves that there is nothing lower."""
    found = [branch(num_pairs, number, density) for number in range(num_pairs + 1)]
    return min(found, key=lambda each: np.nan_to_num(each.loss, nan=np.inf))


def crossing(num_pairs: int, fewer: int, *, between: tuple[float, float]) -> float:
    """Return the density at which branches of `fewer` collapsed pairs and of one more are equal.

    Args:
        num_pairs: $k$, from 1 to 6.
        fewer: how many pairs have collapsed at the lower density, less than $k$.
        between: two densities. At the first one the branch with `fewer` collapsed pairs has the
            lower loss, at the second one the branch with one more.

    Returns:
        A density to within 0.001, or NaN if the branches do not cross there.
    """

    def gap(density: float) -> float:
        return branch(num_pairs, fewer, density).loss - branch(num_pairs, fewer + 1, density).loss

    low, high = between
    crosses = gap(low) < 0 < gap(high)
    return float(optimize.brentq(gap, low, high, xtol=1e-3)) if crosses else np.nan  # pyright: ignore


def pca_loss(num_pairs: int, density: Any) -> Any:
    r"""Return the loss of the best linear model with two hidden dimensions and a bias.

    The covariance of a pair has the eigenvalues $7p/12 - p^2/2$, along the sum of its mates, and
    $p/12$, along their difference. The model holds two of the first, so that of $k \ge 2$ pairs

    $$L = (k - 2) \left(\frac{7p}{12} - \frac{p^2}{2}\right) + \frac{k p}{12}.$$

    Args:
        num_pairs: $k$, at least 2.
        density: $p$, in $[0, 1]$; one number or an array.
    """
    checks.count("num_pairs", num_pairs, minimum=2)
    return (num_pairs - 2) * (7 * density / 12 - density**2 / 2) + num_pairs * density / 12
