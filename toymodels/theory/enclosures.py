r"""Enclosures of the exact loss and of its slopes over boxes of weights and biases.

**Loss of an output.** With $z = b + \sum_j g_j x_j$, the loss $E(x_i - \mathrm{ReLU}(z))^2$ is the
sum of an overshoot $E\,\mathrm{ReLU}(z - x_i)^2$, which rises with $b$ and with every $g_j$, and an
undershoot, which falls. So over a box of $(g, b)$ the loss is at least the overshoot at the lowest
corner plus the undershoot at the highest one. The slopes are differences of two moments that rise,

$$\partial_b = 2 M_1[0] - 2 M_0[e_i], \qquad \partial_{g_j} = 2 M_1[e_j] - 2 M_0[e_i + e_j],$$

so two corners enclose them, too; see `toymodels.theory.moments`.

**Rounding.** Weights are multiples of `GRID`, couplings and biases of its square, so that sums of
them are exact in float64. All other rounding errors together are less than `ROUNDING` times the
square of `Corners.size`. Bounds are moved outwards by that.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from toymodels.theory.moments import Moment, moments

GRID: Final = 2.0**-20
"""Weights are multiples of this number, couplings and biases are multiples of its square."""
LARGEST: Final = 2.0**11
"""Sums of couplings and a bias are exact as long as they stay below this."""
ROUNDING: Final = 1e-13
"""All rounding errors of a bound are below this, by a factor of more than 10; see above."""


class Problem(NamedTuple):
    """The numbers that define the loss, which is then a function of weights and biases.

    Attributes:
        density: $p$, one per feature.
        importance: $I$, one per feature.
        hidden: $m$.
        alike: whether all features have one density and one importance.
    """

    density: Any
    importance: Any
    hidden: int
    alike: bool


class Corners(NamedTuple):
    """The corners of boxes of couplings and biases, the boxes along the last axis.

    Attributes:
        low: the smallest couplings, output x feature x box.
        high: the largest couplings.
        bias_low: the smallest biases, output x box.
        bias_high: the largest biases.
        size: 1 + the largest bias + the largest sum of couplings of an output, for each box.
    """

    low: Any
    high: Any
    bias_low: Any
    bias_high: Any
    size: Any

    def slack(self, problem: Problem) -> Any:
        """Return a bound on all rounding errors of a loss or a slope."""
        return ROUNDING * self.size**2 * max(1.0, problem.importance.sum())


def corners(low: Any, high: Any, bias_low: Any, bias_high: Any) -> Corners:
    r"""Return the corners of $G = W^\top W$ over boxes of weights: box x hidden x feature."""
    low, high = np.moveaxis(low, 0, 2), np.moveaxis(high, 0, 2)
    products = np.stack([a[:, :, None] * b[:, None] for a in (low, high) for b in (low, high)])
    smallest, largest = products.min(axis=0), products.max(axis=0)
    # The square of a weight whose interval holds 0 is not negative.
    each = np.arange(low.shape[1])
    holds_zero = (low <= 0) & (high >= 0)
    smallest[:, each, each] = np.where(holds_zero, 0.0, np.minimum(low**2, high**2))
    smallest, largest = smallest.sum(axis=0), largest.sum(axis=0)
    bias_low, bias_high = bias_low.T, bias_high.T
    couplings = np.maximum(-smallest, largest).sum(axis=1).max(axis=0)
    size = 1 + couplings + np.maximum(-bias_low, bias_high).max(axis=0)
    return Corners(smallest, largest, bias_low, bias_high, size)


def loss(problem: Problem, weights: Any, bias: Any) -> tuple[Any, Any]:
    """Return the exact losses of models on the grid, and bounds on their rounding errors."""
    features, at = len(problem.density), corners(weights, weights, bias, bias)
    total: Any = 0.0
    for i, (p, importance) in enumerate(zip(problem.density, problem.importance, strict=True)):
        wanted = [Moment((0,) * features, 2), Moment(_unit(i, features), 1)]
        square, mixed = _moments(at.low[i], at.bias_low[i, :, None], problem, wanted)
        total = total + importance * (p / 3 + square - 2 * mixed)[:, 0]
    return total, at.slack(problem)


def sliced(problem: Problem, i: int, low: Any, high: Any, edges: Any) -> tuple[Any, Any, Any]:
    """Return bounds of the loss of an output whose bias lies in slices.

    Args:
        problem: the numbers of the loss.
        i: the output.
        low: its smallest couplings, feature x box.
        high: its largest couplings.
        edges: the edges of the slices of its bias, box x edge.

    Returns:
        For each box and slice: a lower bound of the loss, and both bounds of its slope in the bias.
    """
    itself, none = _unit(i, len(low)), (0,) * len(low)
    own, p = np.array(itself)[:, None], problem.density[i]
    slope = [Moment(none, 1), Moment(itself, 0)]
    above, below = edges[:, 1:], edges[:, :-1]
    rise_low, fall_low = _moments(low, below, problem, slope)
    wanted = [*slope, Moment(none, 2), Moment(itself, 1)]
    rise_high, fall_high, square, mixed = _moments(high, above, problem, wanted)
    (over_low,) = _moments(low - own, below, problem, [Moment(none, 2)])
    (over_high,) = _moments(high - own, above, problem, [Moment(none, 2)])
    # The undershoot is the whole squared error less the overshoot.
    under_high = np.maximum(p / 3 + square - 2 * mixed - over_high, 0.0)
    # Whatever other features do, the error is at least that of the best fit of u, uniform on
    # (0, 1], by ReLU(b + a u) with a >= 1.
    longer = np.maximum(low[i], 1.0)
    best_fit = p / 3 * ((longer - 1) / (longer + 1)) ** 2
    lowest = np.maximum(under_high + over_low, best_fit[:, None])
    return lowest, 2 * (rise_low - fall_high), 2 * (rise_high - fall_low)


def slopes(problem: Problem, low: Any, high: Any, at: Corners) -> tuple[Any, Any]:
    r"""Return bounds of all slopes of the loss over boxes, those in the biases last.

    With $d_{ij} = I_i\, \partial L_i / \partial G_{ij}$,
    $\partial L / \partial W_{kj} = \sum_i (d_{ij} + d_{ji}) W_{ki}$.

    Args:
        problem: the numbers of the loss.
        low: the smallest weights, box x hidden x feature.
        high: the largest weights.
        at: the corners of these boxes.
    """
    features, slack = len(problem.density), at.slack(problem)
    bounds = np.zeros((2, features, features + 1, len(low)))
    for i, importance in enumerate(problem.importance):
        rise_low, fall_low = _parts(problem, i, at.low[i], at.bias_low[i])
        rise_high, fall_high = _parts(problem, i, at.high[i], at.bias_high[i])
        bounds[0, i] = importance * (rise_low - fall_high) - slack
        bounds[1, i] = importance * (rise_high - fall_low) + slack
    in_couplings = bounds[:, :, :-1] + bounds[:, :, :-1].swapaxes(1, 2)
    ends = [np.moveaxis(each, 2, 0)[:, None] for each in in_couplings]
    products = np.stack([end * part[:, :, None] for end in ends for part in (low, high)])
    down, up = products.min(axis=0).sum(axis=-1), products.max(axis=0).sum(axis=-1)
    return flat(down, bounds[0, :, -1].T), flat(up, bounds[1, :, -1].T)


def flat(weights: Any, bias: Any) -> Any:
    """Return weights and biases of many models as one row for each model."""
    return np.concatenate([weights.reshape(len(weights), -1), bias], axis=1)


def on_grid(values: Any, grid: Any) -> Any:
    """Return the nearest multiples of `grid`."""
    return np.round(np.asarray(values, float) / grid) * grid


def _parts(problem: Problem, i: int, couplings: Any, bias: Any) -> tuple[Any, Any]:
    """Return the rising and the falling part of each slope: in the couplings, and last the bias."""
    features = len(couplings)
    units = [*(_unit(j, features) for j in range(features)), (0,) * features]
    mixed = [tuple(int(power) for power in np.add(units[i], unit)) for unit in units]
    wanted = [*(Moment(unit, 1) for unit in units), *(Moment(powers, 0) for powers in mixed)]
    found = np.stack([part[:, 0] for part in _moments(couplings, bias[:, None], problem, wanted)])
    return 2 * found[: features + 1], 2 * found[features + 1 :]


def _moments(couplings: Any, bias: Any, problem: Problem, wanted: list[Moment]) -> list[Any]:
    """Return the moments of an output for each box and each of its biases, box x bias."""
    return moments([each[:, None] for each in couplings], bias, problem.density, wanted)


def _unit(feature: int, features: int) -> tuple[int, ...]:
    """Return the powers of one feature alone: 1 for this feature, and 0 for all others."""
    return tuple(int(j == feature) for j in range(features))
