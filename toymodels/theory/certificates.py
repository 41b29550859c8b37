r"""Certificates: rigorous bounds on the lowest loss that any weights and biases can reach.

`toymodels.theory.optimum` searches, and a search proves nothing. `certify` proves: it divides a box
that holds the weights and biases of a global minimum until each part either cannot hold one or
has a loss that is almost the lowest one known (interval branch and bound).

**A box** of $W$ and $b$ is discarded if its loss is above the lowest one known, or if a slope of
the whole loss has one sign in it. Its lower bound is the sum of those of its outputs, or the mean
value form $L(c) - \sum_k \max\lvert\partial_k L\rvert\, r_k$ at its centre $c$ with half widths
$r$. Each bias matters to one output alone, so its interval is cut into slices, and the slices that
cannot hold the minimum are cut off. Then the box is halved where the mean value form loses most.
`toymodels.theory.enclosures` has these bounds. All kinks of the loss are concave, so that no
minimum lies on one, and every slope is zero at a minimum.

**The first box** is proven, not assumed. Whatever the others do, output $i$ costs at least
$\tfrac{p_i}3 \left(\frac{a - 1}{a + 1}\right)^2$ if $a = \lVert W_i \rVert^2 \ge 1$: that is the
best fit of $u$, uniform on $(0, 1]$, by $\mathrm{ReLU}(b + a u)$ with any $b$. The other outputs
cost at least $1 - p_i$ times what they would cost without feature $i$. This bounds $a$. An output
that is always silent can have the bias at which it just becomes so, and a bias with $z \ge 1$
everywhere is too large. Rotations and reflections of the hidden space make $W$ upper triangular
with a diagonal that is not negative, and equal features are ordered by their lengths.

**Assumed** are arithmetic of IEEE 754 in float64, the bound on rounding errors of
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
"""The largest number of features of `certify`; boxes of more are too many for minutes."""
SLICES: Final = 8
"""The number of slices into which the interval of a bias is cut."""
NARROW: Final = 1 / 16
"""Boxes whose weights vary by more are divided further, so that the remaining ones say where."""
TOGETHER: Final = 2048
"""The number of boxes that are computed at once, so that their arrays fit a cache."""
MOST_WITHOUT: Final = 100_000
"""The largest number of boxes for the loss without a feature."""


class Certificate(NamedTuple):
    """The proven bounds of the lowest loss, and where it can be reached.

    Attributes:
        lower: no weights and biases have a loss below it.
        upper: the loss of `weights` and `bias`, rounded up.
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
    low: Any  # box x hidden x feature
    high: Any
    bias_low: Any  # box x feature
    bias_high: Any
    bound: Any  # no loss in the box is below it
    halve: Any  # the weight or bias to halve next, -1 if all are too narrow

    def take(self, chosen: Any) -> "_Boxes":
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


def _search(problem: Problem, known: list[Any], gap: float, max_boxes: int) -> Certificate:
    upper, best = min(
        ((_upper(problem, *model), model) for model in known), key=lambda each: each[0]
    )
    active, done, examined = _first_box(problem, upper), [], 0
    while active.bound.size and examined < max_boxes:
        halves = _halves(active)
        parts: list[_Boxes] = []
        for first in range(0, halves.bound.size, TOGETHER):
            part = _narrowed(problem, halves.take(slice(first, first + TOGETHER)), upper)
            if part.bound.size:
                part, centre = _bounded(problem, part, upper)
                found = _upper(problem, *centre)
                upper, best = (found, centre) if found < upper else (upper, best)
            parts.append(part)
        examined += halves.bound.size
        active = _joined(parts)
        active = active.take(active.bound <= upper)
        narrow = (active.high - active.low).max(axis=(1, 2)) <= NARROW
        finished = narrow & (active.bound >= upper * (1 - gap)) | (active.halve < 0)
        done.append(active.take(finished))
        active = active.take(~finished)
    rest = _joined([*done, active])
    rest = rest.take(rest.bound <= upper)
    lower = max(0.0, float(min([upper, *rest.bound])))
    remaining = np.stack([rest.low, rest.high], axis=1)
    return Certificate(lower, upper, best[0], best[1], remaining, examined)


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
        without = (1 - p) * _lowest_without(i, problem) if p < 1 else 0.0
        share = (upper - without) / (importance * p / 3)
        if share >= 1:
            raise InputError(
                f"the loss {upper:g} is so high that weights of any length could be better: "
                "give better weights, or importances that are less unequal"
            )
        root = max(share, 0.0) ** 0.5
        lengths.append(np.ceil(4 * ((1 + root) / (1 - root)) ** 0.5 + 1e-9) / 4)
    longest = np.array(lengths)
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
    return _search(smaller, [_dedicated(smaller)], 0.05, MOST_WITHOUT).lower


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
    at = np.arange(len(low)), boxes.halve
    middle = on_grid((low[at] + high[at]) / 2, np.where(boxes.halve < size, GRID, GRID**2))
    below, above = high.copy(), low.copy()
    below[at] = above[at] = middle
    low, high = np.concatenate([low, above]), np.concatenate([below, high])
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
    at = enclosures.corners(*boxes[:4])
    slack = at.slack(problem)
    least = np.maximum(at.bias_low, -np.maximum(at.high, 0).sum(axis=1))
    most = np.minimum(at.bias_high, 1 - np.minimum(at.low, 0).sum(axis=1))
    shares = np.linspace(0, 1, SLICES + 1)
    edges = on_grid(least[..., None] + (most - least)[..., None] * shares, GRID**2)
    losses: list[Any] = []
    for i, importance in enumerate(problem.importance):
        loss, down, up = enclosures.sliced(problem, i, at.low[i], at.high[i], edges[i])
        turns = (down <= slack[:, None]) & (up >= -slack[:, None])
        point = edges[i, :, 1:] == edges[i, :, :-1]
        losses.append(np.where(turns | point, importance * loss, np.inf))
    every = np.stack(losses)
    lowest = every.min(axis=2)
    bound = lowest.sum(axis=0) - slack
    place = np.arange(len(at.low))
    longer, shorter = at.high[place, place][:-1], at.low[place, place][1:]
    ordered = (longer >= shorter).all(axis=0) | (not problem.alike)
    inside = (bound <= upper) & (most >= least).all(axis=0) & ordered
    # A slice of an output is possible if it costs no more than the other outputs leave.
    left = upper - np.where(inside, bound, np.inf) + np.where(inside, lowest, 0.0)
    possible = every <= left[..., None]
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
    at = enclosures.corners(*boxes[:4])
    down, up = enclosures.slopes(problem, boxes.low, boxes.high, at)
    turns = (((down <= 0) & (up >= 0)) | (high == low)).all(axis=1)
    weights = on_grid((boxes.low + boxes.high) / 2, GRID)
    bias = on_grid((boxes.bias_low + boxes.bias_high) / 2, GRID**2)
    middle = flat(weights, bias)
    loss, _ = enclosures.loss(problem, weights, bias)
    lost = np.maximum(-down, up) * np.maximum(high - middle, middle - low)
    bound = loss - lost.sum(axis=1) - 2 * at.slack(problem)
    # Slices narrow the biases already, and what is lost falls as the square of a width.
    size = weights[0].size
    weighed = np.where(np.arange(len(low[0])) < size, 1.0, SLICES**-2) * lost
    weighed = np.where(high - low > 4 * GRID, weighed, -1.0)
    halve = np.where(weighed.max(axis=1) >= 0, weighed.argmax(axis=1), -1)
    boxes = boxes._replace(bound=np.maximum(boxes.bound, bound), halve=halve)
    best = int(loss.argmin())
    return boxes.take(turns & (boxes.bound <= upper)), (weights[best], bias[best])


def _joined(parts: list[_Boxes]) -> _Boxes:
    return _Boxes(*map(np.concatenate, zip(*parts, strict=True)))
