r"""Certificates: rigorous bounds on the lowest loss that any weights and biases can reach.

`toymodels.theory.optimum` searches, and a search proves nothing. `certify` proves: it divides a box
that holds the weights and biases of a global minimum until each part either cannot hold one or
has a loss that is almost the lowest one known (interval branch and bound).

**A box** of $W$ and $b$ is discarded if a lower bound of its loss is above the lowest loss known,
or if some slope of the loss has one sign in the whole box. The lower bound is the larger of two:
the sum of the bounds of the outputs, and the mean value form
$L(c) - \sum_k \max\lvert\partial_k L\rvert\, r_k$ at the centre $c$ of the box, whose half widths
are $r_k$. Each bias matters to one output alone, so its interval is cut into slices, and slices at
either end that cannot hold the minimum are dropped. Then the box is halved along the weight or bias
that lowers the mean value form most. `toymodels.theory.enclosures` computes the bounds. All kinks
of the loss are concave, so no minimum lies on one, and every slope is zero at a minimum.

**The first box** is proven, not assumed. Whatever the other features do, output $i$ costs at least
$\tfrac{p_i}3 \left(\frac{a - 1}{a + 1}\right)^2$ if $a = \lVert W_i \rVert^2 \ge 1$: that is the
best fit of $u$, uniform on $(0, 1]$, by $\mathrm{ReLU}(b + a u)$ with any $b$. The other outputs
cost at least $1 - p_i$ times what they would cost without feature $i$. This bounds $a$. An output
that is always silent costs the same with the largest bias that keeps it silent, so lower biases
need not be searched, and a bias that makes $z \ge 1$ everywhere is too large. Rotations and
reflections of the hidden space make $W$ upper triangular with a diagonal that is not negative, and
equal features are ordered by their lengths.

**Assumed** are the arithmetic of IEEE 754 in float64, the bound on rounding errors of
`toymodels.theory.enclosures`, and that the program has no mistake.

References:
    Moore, Kearfott and Cloud (2009), "Introduction to Interval Analysis".
"""

from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory import enclosures
from toymodels.theory.enclosures import GRID, Problem, flat, on_grid
from toymodels.theory.features import Numbers, feature_variance
from toymodels.theory.loss import check_model

__all__ = ["Certificate", "certify"]

MAX_FEATURES: Final = 3
"""The largest number of features of `certify`; minutes do not suffice for the boxes of more."""
SLICES: Final = 8
"""The number of slices into which the interval of a bias is cut."""
NARROW: Final = 1 / 16
"""Boxes whose weights vary by more are halved further, so that those that remain are small."""
TOGETHER: Final = 2048
"""The number of boxes that are computed at once, so that their arrays fit a cache."""
MAX_BOXES_WITHOUT: Final = 100_000
"""The largest number of boxes in the search for the lowest loss without one of the features."""


class Certificate(NamedTuple):
    """The proven bounds of the lowest loss, and where it can be reached.

    Attributes:
        lower: no weights and biases have a loss below it.
        upper: the loss of `weights` and `bias`, rounded up; the lowest loss is not above it.
        weights: the best weights known: those given, or better ones that were found on the way.
        bias: their biases, one per output.
        remaining: the low and the high corners of boxes of weights. Every global minimum lies in
            one of them, up to rotations and reflections of the hidden space and permutations of
            equal features.
        examined: the number of boxes that were examined.
    """

    lower: float
    upper: float
    weights: Float[np.ndarray, "hidden features"]
    bias: Float[np.ndarray, " features"]
    remaining: Float[np.ndarray, "boxes 2 hidden features"]
    examined: int


class _Boxes(NamedTuple):
    """Many boxes of weights and biases, along the first axis.

    Attributes:
        low: the smallest weights, box x hidden x feature.
        high: the largest weights.
        bias_low: the smallest biases, box x feature.
        bias_high: the largest biases.
        bound: no loss in the box is below it.
        halve: the number of the weight or bias to halve next; -1 if all are too narrow.
    """

    low: Any
    high: Any
    bias_low: Any
    bias_high: Any
    bound: Any
    halve: Any

    def take(self, chosen: Any) -> "_Boxes":
        """Return the chosen boxes: a slice, indices or a mask."""
        return _Boxes(*(part[chosen] for part in self))


def certify(
    weights: Float[np.ndarray, "hidden features"],
    bias: Float[np.ndarray, " features"],
    density: Numbers,
    importance: Numbers = 1.0,
    *,
    gap: float = 1e-3,
    max_boxes: int = 300_000,
) -> Certificate:
    r"""Enclose the lowest exact loss of $y = \mathrm{ReLU}(W^\top W x + b)$ over all $W$ and $b$.

    Features are those of `SparseUniform`. Two features in one dimension take about a second, three
    in one dimension some seconds for a gap of 0.01, three in two dimensions minutes for 0.05.

    Args:
        weights: weights that are thought to be optimal, as of `optimum`. Worse ones are refuted:
            the certificate then has better ones.
        bias: their biases.
        density: $p$, in $(0, 1]$; one number, or one per feature.
        importance: $I > 0$; one number, or one per feature.
        gap: the search ends when the bounds differ by less than this share of the upper one.
        max_boxes: the search also ends when it has examined so many boxes.

    Returns:
        Bounds that hold, also where the search ended early; then they are further apart.

    Raises:
        ValueError: more than `MAX_FEATURES` features, as many dimensions as features, shapes that
            do not fit, a density outside $(0, 1]$, an importance that is not positive, or a loss so
            high that weights of any length could be better.
    """
    check_model(weights, bias, density, importance)
    checks.density(density)
    checks.interval("importance", importance, low=0, open_low=True, remedy="leave the output out")
    checks.interval("gap", gap, low=0, open_low=True, remedy="it is a share of the lowest loss")
    checks.count("max_boxes", max_boxes)
    hidden, features = np.shape(weights)
    if features > MAX_FEATURES:
        raise InputError(
            f"{features} features are more than the {MAX_FEATURES} that a certificate can take: "
            "search with toymodels.theory.optimum, which proves nothing"
        )
    if hidden >= features:
        raise InputError(
            f"{hidden} hidden dimensions hold {features} features: the lowest loss is 0"
        )
    numbers = [np.broadcast_to(np.asarray(x, float), features) for x in (density, importance)]
    alike = all((x == x[0]).all() for x in numbers)
    problem = Problem(density=numbers[0], importance=numbers[1], hidden=hidden, alike=alike)
    given = on_grid(weights, GRID), on_grid(bias, GRID**2)
    return _search(problem, [given, _dedicated(problem)], gap, max_boxes)


def _search(problem: Problem, models: list[Any], gap: float, max_boxes: int) -> Certificate:
    """Halve and discard boxes until the bounds are close; `models` are some that are known."""
    upper, best = min(
        ((_upper(problem, *model), model) for model in models), key=lambda each: each[0]
    )
    open_boxes, closed, examined = _first_box(problem, upper), [], 0
    while open_boxes.bound.size and examined < max_boxes:
        halves = _halves(open_boxes)
        parts: list[_Boxes] = []
        for first in range(0, halves.bound.size, TOGETHER):
            part = _narrowed(problem, halves.take(slice(first, first + TOGETHER)), upper)
            if part.bound.size:
                part, centre = _bounded(problem, part, upper)
                loss = _upper(problem, *centre)
                upper, best = (loss, centre) if loss < upper else (upper, best)
            parts.append(part)
        examined += halves.bound.size
        open_boxes = _joined(parts)
        open_boxes = open_boxes.take(open_boxes.bound <= upper)
        narrow = (open_boxes.high - open_boxes.low).max(axis=(1, 2)) <= NARROW
        finished = narrow & (open_boxes.bound >= upper * (1 - gap)) | (open_boxes.halve < 0)
        closed.append(open_boxes.take(finished))
        open_boxes = open_boxes.take(~finished)
    rest = _joined([*closed, open_boxes])
    rest = rest.take(rest.bound <= upper)
    return Certificate(
        lower=max(0.0, float(min([upper, *rest.bound]))),
        upper=upper,
        weights=best[0],
        bias=best[1],
        remaining=np.stack([rest.low, rest.high], axis=1),
        examined=examined,
    )


def _upper(problem: Problem, weights: Any, bias: Any) -> float:
    """Return the loss of one model on the grid, rounded up."""
    loss, slack = enclosures.loss(problem, weights[None], bias[None])
    return float((loss + slack)[0])


def _first_box(problem: Problem, upper: float) -> _Boxes:
    """Return one box that holds the weights and biases of a global minimum."""
    features, lengths = len(problem.density), []
    for i, (p, importance) in enumerate(zip(problem.density, problem.importance, strict=True)):
        if i and problem.alike:
            lengths.append(lengths[0])
            continue
        others = (1 - p) * _lowest_without(i, problem) if p < 1 else 0.0
        share = (upper - others) / (importance * p / 3)  # at least ((a - 1) / (a + 1))^2
        if share >= 1:
            raise InputError(
                f"the loss {upper:g} is so high that weights of any length could be better: "
                "give better weights, or importances that are less unequal"
            )
        root = max(share, 0.0) ** 0.5
        lengths.append(np.ceil(4 * ((1 + root) / (1 - root)) ** 0.5 + 1e-9) / 4)
    longest = np.array(lengths)
    # The weights are upper triangular, with a diagonal that is not negative.
    high = np.broadcast_to(longest, (problem.hidden, features)).copy()
    low = -high
    for j in range(problem.hidden):
        low[j, j], low[j + 1 :, j], high[j + 1 :, j] = 0, 0, 0
    bias = 1 + np.outer(longest, longest).sum(axis=1)
    if 2 * bias.max() > enclosures.LARGEST:
        raise InputError(
            f"weights of a length up to {longest.max():g} could be optimal, which is too long for "
            "exact sums: give better weights and biases, or fewer features"
        )
    return _Boxes(low[None], high[None], -bias[None], bias[None], np.zeros(1), np.array([0]))


def _lowest_without(removed: int, problem: Problem) -> float:
    """Return a lower bound of the loss of the model without a feature."""
    kept = np.arange(len(problem.density)) != removed
    if kept.sum() <= problem.hidden:
        return 0.0
    density, importance = problem.density[kept], problem.importance[kept]
    smaller = problem._replace(density=density, importance=importance)
    return _search(smaller, [_dedicated(smaller)], 0.05, MAX_BOXES_WITHOUT).lower


def _dedicated(problem: Problem) -> tuple[Any, Any]:
    """Return the model that represents the most important features alone, and ignores the rest."""
    features = len(problem.density)
    order = np.argsort(-problem.importance * feature_variance(problem.density), kind="stable")
    weights, bias = np.zeros((problem.hidden, features)), on_grid(problem.density / 2, GRID**2)
    for place, feature in enumerate(order[: problem.hidden]):
        weights[place, feature], bias[feature] = 1.0, 0.0
    return weights, bias


def _halves(boxes: _Boxes) -> _Boxes:
    """Return both halves of each box."""
    shape, size = boxes.low.shape[1:], boxes.low[0].size
    low, high = flat(boxes.low, boxes.bias_low), flat(boxes.high, boxes.bias_high)
    side = np.arange(len(low)), boxes.halve  # the side of each box that is cut in two
    middle = on_grid((low[side] + high[side]) / 2, np.where(boxes.halve < size, GRID, GRID**2))
    high_of_first, low_of_second = high.copy(), low.copy()
    high_of_first[side] = low_of_second[side] = middle
    low, high = np.concatenate([low, low_of_second]), np.concatenate([high_of_first, high])
    return _Boxes(
        low=low[:, :size].reshape(-1, *shape),
        high=high[:, :size].reshape(-1, *shape),
        bias_low=low[:, size:],
        bias_high=high[:, size:],
        bound=np.tile(boxes.bound, 2),
        halve=np.tile(boxes.halve, 2),
    )


def _narrowed(problem: Problem, boxes: _Boxes, upper: float) -> _Boxes:
    """Bound boxes by the losses of their outputs, discard some, and cut slices off the biases."""
    corners = enclosures.corners(*boxes[:4])
    slack = corners.slack(problem)
    # A lower bias keeps the output silent as well; with a higher one, all of it is above 1.
    bias_low = np.maximum(corners.bias_low, -np.maximum(corners.high, 0).sum(axis=1))
    bias_high = np.minimum(corners.bias_high, 1 - np.minimum(corners.low, 0).sum(axis=1))
    shares = np.linspace(0, 1, SLICES + 1)
    edges = on_grid(bias_low[..., None] + (bias_high - bias_low)[..., None] * shares, GRID**2)
    losses: list[Any] = []
    for i, importance in enumerate(problem.importance):
        loss, slope_low, slope_high = enclosures.sliced(
            problem, i, corners.low[i], corners.high[i], edges[i]
        )
        may_be_zero = (slope_low <= slack[:, None]) & (slope_high >= -slack[:, None])
        point = edges[i, :, 1:] == edges[i, :, :-1]
        losses.append(np.where(may_be_zero | point, importance * loss, np.inf))
    loss_of_slice = np.stack(losses)
    lowest = loss_of_slice.min(axis=2)
    bound = lowest.sum(axis=0) - slack
    # Equal features are in the order of their lengths, the longest first.
    each = np.arange(len(corners.low))
    longer, shorter = corners.high[each, each][:-1], corners.low[each, each][1:]
    ordered = (longer >= shorter).all(axis=0) | (not problem.alike)
    inside = (bound <= upper) & (bias_high >= bias_low).all(axis=0) & ordered
    # A slice of an output is possible if it costs no more than the other outputs leave.
    budget = upper - np.where(inside, bound, np.inf) + np.where(inside, lowest, 0.0)
    possible = loss_of_slice <= budget[..., None]
    first = possible.argmax(axis=2)[..., None]
    last = SLICES - possible[..., ::-1].argmax(axis=2)[..., None]
    return boxes._replace(
        bias_low=np.take_along_axis(edges, first, axis=2)[..., 0].T,
        bias_high=np.take_along_axis(edges, last, axis=2)[..., 0].T,
        bound=np.maximum(boxes.bound, bound),
    ).take(inside)


def _bounded(problem: Problem, boxes: _Boxes, upper: float) -> tuple[_Boxes, Any]:
    """Bound boxes by their slopes, discard some, and return the best of their centres, too."""
    low, high = flat(boxes.low, boxes.bias_low), flat(boxes.high, boxes.bias_high)
    corners = enclosures.corners(*boxes[:4])
    slope_low, slope_high = enclosures.slopes(problem, boxes.low, boxes.high, corners)
    may_be_minimum = (((slope_low <= 0) & (slope_high >= 0)) | (high == low)).all(axis=1)
    weights = on_grid((boxes.low + boxes.high) / 2, GRID)
    bias = on_grid((boxes.bias_low + boxes.bias_high) / 2, GRID**2)
    centre = flat(weights, bias)
    loss, _ = enclosures.loss(problem, weights, bias)
    # The mean value form: how far the loss can fall from the centre along each weight and bias.
    fall = np.maximum(-slope_low, slope_high) * np.maximum(high - centre, centre - low)
    bound = loss - fall.sum(axis=1) - 2 * corners.slack(problem)
    # Slices narrow the biases already, and the fall is proportional to the square of a width.
    size = weights[0].size
    weighed = np.where(np.arange(len(low[0])) < size, 1.0, SLICES**-2) * fall
    weighed = np.where(high - low > 4 * GRID, weighed, -1.0)
    halve = np.where(weighed.max(axis=1) >= 0, weighed.argmax(axis=1), -1)
    boxes = boxes._replace(bound=np.maximum(boxes.bound, bound), halve=halve)
    best = int(loss.argmin())
    return boxes.take(may_be_minimum & (boxes.bound <= upper)), (weights[best], bias[best])


def _joined(parts: list[_Boxes]) -> _Boxes:
    """Return all boxes of the parts."""
    return _Boxes(*map(np.concatenate, zip(*parts, strict=True)))
