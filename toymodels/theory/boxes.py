r"""The mean square of a rectified sum of uniform variables, some of them silent: a box spline.

Let $z = b + \sum_j G_j x_j$, where $x_j$ is zero with probability $1 - p_j$, else uniform. Given
the set $A$ of active features, $z$ is linear on a box with one edge for each of them, and lies
between its values $l$ and $h$ at two corners. The conditional mean
$\Phi_A = E[\mathrm{ReLU}(z)^2 \mid A]$ is a box spline. If $l \ge 0$, it is the squared mean plus
the variance of $z$, and if $h < 0$ it is 0. Otherwise $\Phi_A$ obeys (Euler's theorem for a
function of degree 2 in $b$ and $G$, and integration by parts along each edge)

$$(|A| + 2)\, \Phi_A = \sum_{j \in A} \frac{h\, \Phi_A^{j \to \text{high}}
  - l\, \Phi_A^{j \to \text{low}}}{h - l},$$

where feature $j$ is fixed at its higher or lower end. This is a weighted mean of terms that are not
negative, and no term is divided by a coupling, so that small couplings and zero are no special
cases. The textbook formula divides a signed sum over corners by $\prod_j G_{ij}$: it loses all
digits at small couplings.

**Storage.** A box has *open* edges (features that are active and integrated over) and *closed* ones
(features that stand at an end). Level $k$ holds all boxes with $k$ open edges as an array of shape
sets x corners, with one row for each set of $k$ features and one column for each choice of ends of
the others.

Example: two features with two ends, low (0) and high (1). Level 0 has one set, the empty one, and
four corners. Feature 0 at end $e_0$ and feature 1 at end $e_1$ make the corner $e_0 + 2 e_1$. Level
1 has the sets {0} and {1} with two corners each, one for each end of the other feature. The box
with feature 0 open and feature 1 at its high end is computed from the boxes 2 (0 low, 1 high) and 3
(0 high, 1 high) of level 0. Level 2 has one set, {0, 1}, and one corner.

References:
    de Boor and Höllig (1982), "Recurrence relations for multivariate B-splines".
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class Boxes(NamedTuple):
    """All boxes of a number of features.

    Attributes:
        levels: for each number of open edges, from 1, the boxes of the level below in which one of
            the open edges is closed, first at its low end and then at its high end.
        active: which features are open edges, for each set of all levels, the empty set first.
        places: the stride of each closed feature in the numbers of the corners of a set, and 0 for
            each open feature.
        first: the number of the first box of each set, where all boxes of all levels are counted.
        subset: the number of the set of each box.
        low: the corner of level 0 at which all open edges of a box are at their low end.
        high: the corner at which all of them are at their high end.
    """

    levels: tuple[Int[np.ndarray, "2 edges boxes"], ...]
    active: Bool[np.ndarray, "subsets features"]
    places: Int[np.ndarray, "subsets features"]
    first: Int[np.ndarray, " subsets"]
    subset: Int[np.ndarray, " boxes"]
    low: Int[np.ndarray, " boxes"]
    high: Int[np.ndarray, " boxes"]


@functools.cache
def all_boxes(num_features: int, ends: int) -> Boxes:
    """Return all boxes whose closed edges stand at one of `ends` places.

    Place 0 is the low end, 1 the high end, and 2, if there is one, the middle, where an inactive
    feature of either sign is silent. See the module for an example.
    """
    levels: list[Int[np.ndarray, "2 edges boxes"]] = []
    below: dict[tuple[int, ...], int] = {(): 0}
    subsets: list[tuple[int, ...]] = [()]
    for edges in range(1, num_features + 1):
        sets = list(itertools.combinations(range(num_features), edges))
        rows = [
            [below[chosen[:edge] + chosen[edge + 1 :]] for chosen in sets] for edge in range(edges)
        ]
        # Before feature j of the set, at place `edge`, there are j - edge closed features. Corners
        # count in base `ends`, so each of these multiplies the stride of feature j by `ends`.
        strides = [[ends ** (chosen[edge] - edge) for chosen in sets] for edge in range(edges)]
        row, stride = np.array(rows)[..., None], np.array(strides)[..., None]
        corners = np.arange(ends ** (num_features - edges))
        # To close feature j at its low end, insert the digit 0 into the number of the corner: the
        # digits before it keep their value, those after it move up by one place.
        before, after = corners % stride, corners // stride
        low = row * corners.size * ends + after * stride * ends + before
        levels.append(np.stack([low, low + stride]).reshape(2, edges, -1).astype(np.int32))
        below = {chosen: index for index, chosen in enumerate(sets)}
        subsets += sets
    active = np.array([[j in chosen for j in range(num_features)] for chosen in subsets])
    closed_before = np.cumsum(~active, axis=1) - ~active
    places = np.where(active, 0, ends**closed_before)
    low, high = [np.arange(ends**num_features)], [np.arange(ends**num_features)]
    for level in levels:
        low.append(low[-1][level[0, 0]])
        high.append(high[-1][level[1, 0]])
    count = ends ** (~active).sum(axis=1)
    return Boxes(
        levels=tuple(levels),
        active=active,
        places=places.astype(np.int32),
        first=(np.cumsum(count) - count).astype(np.int32),
        subset=np.repeat(np.arange(len(subsets)), count).astype(np.int32),
        low=np.concatenate(low).astype(np.int32),
        high=np.concatenate(high).astype(np.int32),
    )


def mean_square(
    couplings: Float[Array, " features"],
    bias: Float[Array, ""],
    density: Float[Array, " features"],
    boxes: Boxes,
    *,
    signed: bool,
) -> Float[Array, ""]:
    r"""Return $E\,\mathrm{ReLU}(z)^2$ of one output.

    Args:
        couplings: $G_j$.
        bias: $b$.
        density: $p_j$.
        boxes: from `all_boxes`, with 3 ends for signed features, else 2.
        signed: whether active features are uniform on $[-1, 1]$, else on $(0, 1]$.
    """
    # With `minimum` or `abs`, a coupling of zero would have another derivative at each end.
    positive = couplings > 0
    if signed:
        size = jnp.where(positive, couplings, -couplings)
        ends = jnp.stack([-size, size, jnp.zeros_like(size)])
        silent = jnp.full(couplings.shape, 2)
    else:
        ends = jnp.stack([jnp.where(positive, 0.0, couplings), jnp.where(positive, couplings, 0.0)])
        silent = jnp.where(positive, 0, 1)
    corners = bias[None]
    for steps in ends.T:
        corners = (steps[:, None] + corners[None, :]).ravel()
    edge_variances = (ends[1] - ends[0]) ** 2 / 12
    variances = jnp.where(boxes.active, edge_variances[None, :], 0.0).sum(axis=1)
    # The terms are computed for all boxes at once, because a program for each level would take
    # long to compile. What remains is linear: each level adds two boxes of the level below.
    terms = _terms(corners, variances, boxes)
    ends_of_levels = np.cumsum([corners.size, *(level.shape[-1] for level in boxes.levels[:-1])])
    known, of_low, of_high = (jnp.split(term, ends_of_levels) for term in terms)
    squares = known[:1]
    for number, level in enumerate(boxes.levels, 1):
        at_low, at_high = squares[-1][level].sum(axis=1)
        squares.append(known[number] + of_low[number] * at_low + of_high[number] * at_high)
    silent_boxes = boxes.first + (boxes.places * silent[None, :]).sum(axis=1)
    chances = jnp.where(boxes.active, density[None, :], 1 - density[None, :]).prod(axis=1)
    return chances @ jnp.concatenate(squares)[silent_boxes]


def _terms(
    corners: Float[Array, " corners"], variances: Float[Array, " subsets"], boxes: Boxes
) -> tuple[Float[Array, " boxes"], Float[Array, " boxes"], Float[Array, " boxes"]]:
    """Return the part of each mean that needs no other box, and the factors of the two it needs."""
    low, high = corners[boxes.low], corners[boxes.high]
    whole = ((low + high) / 2) ** 2 + variances[boxes.subset]
    # The square of a width below `narrowest` underflows, and the box adds nothing.
    narrowest = float(jnp.finfo(low.dtype).tiny) ** 0.5
    kinked = (low < 0) & (high >= 0) & (high - low > narrowest)
    # The divisor is 1 where the quotient is not used: its derivative must not be NaN there.
    width = jnp.where(kinked, high - low, 1.0)
    # The unit cancels. Without it, derivatives would divide by the square of the width.
    unit = lax.stop_gradient(width)
    divisor = (boxes.active.sum(axis=1)[boxes.subset] + 2) * (width / unit)
    of_low, of_high = -low / unit / divisor, high / unit / divisor
    known = jnp.where(low >= 0, whole, 0.0)
    return known, jnp.where(kinked, of_low, 0.0), jnp.where(kinked, of_high, 0.0)


def mean_output(
    couplings: Float[Array, " features"],
    bias: Float[Array, ""],
    density: Float[Array, " features"],
    boxes: Boxes,
    *,
    signed: bool,
) -> Float[Array, ""]:
    r"""Return $E\,\mathrm{ReLU}(z)$ of one output, half the slope in $b$ of `mean_square`.

    The arguments are those of `mean_square`.
    """
    slope = jax.jacfwd(lambda b: mean_square(couplings, b, density, boxes, signed=signed))
    return slope(bias) / 2
