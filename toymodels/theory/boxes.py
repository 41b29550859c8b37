r"""Mean square of a rectified sum of uniform variables, some of them silent: a box spline.

With $x_j$ zero with probability $1 - p_j$, else uniform, let $z = b + \sum_j G_j x_j$. Given the
set $A$ of active features, $z$ lies between the values $l$ and $h$ at two corners of
a box, and $\Phi_A = E[\mathrm{ReLU}(z)^2 \mid A]$ is a box spline. If $l \ge 0$ it is mean square
plus variance, and if $h < 0$ it is 0. Otherwise $\Phi_A$, homogeneous of degree 2 in $b$
and $G$, obeys (Euler's theorem, and integration by parts along each edge)

$$(|A| + 2)\, \Phi_A = \sum_{j \in A} \frac{h\, \Phi_A^{j \to \text{high}}
  - l\, \Phi_A^{j \to \text{low}}}{h - l},$$

where feature $j$ is fixed at its higher or lower end. This is a mean of terms that are not
negative, and nothing is divided by a coupling, so none may be too small, and zero is no special
case. The textbook sum over corners, signed and over $\prod_j G_{ij}$, loses all digits there.

References:
    de Boor and Höllig (1982), "Recurrence relations for multivariate B-splines".
"""

import functools
import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class Level(NamedTuple):
    """The boxes with the same number of open edges; all other features stand at an end.

    Attributes:
        low: index in the level below with one open edge closed at its low end.
        high: the same, at its high end.
    """

    low: Int[np.ndarray, "edges sets corners"]
    high: Int[np.ndarray, "edges sets corners"]


class Boxes(NamedTuple):
    """All boxes; sets of open edges in the order of their number.

    Attributes:
        levels: by number of open edges, from 1.
        active: which features the open edges are.
        places: the stride of each of the other features in the corners of their level.
    """

    levels: tuple[Level, ...]
    active: Bool[np.ndarray, "subsets features"]
    places: Int[np.ndarray, "subsets features"]


@functools.cache
def all_boxes(num_features: int, ends: int) -> Boxes:
    """Every box; a closed edge stands at one of `ends` places: low, high and perhaps silent."""
    levels: list[Level] = []
    below: dict[tuple[int, ...], int] = {(): 0}
    subsets: list[tuple[int, ...]] = [()]
    for edges in range(1, num_features + 1):
        sets = list(itertools.combinations(range(num_features), edges))
        rows = [
            [below[chosen[:edge] + chosen[edge + 1 :]] for chosen in sets] for edge in range(edges)
        ]
        # A feature has as many closed ones before it as its number less its place in the set.
        strides = [[ends ** (chosen[edge] - edge) for chosen in sets] for edge in range(edges)]
        row, stride = np.array(rows)[..., None], np.array(strides)[..., None]
        corners = np.arange(ends ** (num_features - edges))
        low = row * corners.size * ends + corners // stride * stride * ends + corners % stride
        levels.append(Level(low.astype(np.int32), (low + stride).astype(np.int32)))
        below = {chosen: index for index, chosen in enumerate(sets)}
        subsets += sets
    active = np.array([[j in chosen for j in range(num_features)] for chosen in subsets])
    closed_before = np.cumsum(~active, axis=1) - ~active
    places = np.where(active, 0, ends**closed_before)
    return Boxes(tuple(levels), active, places.astype(np.int32))


def mean_square(
    couplings: Float[Array, " features"],
    bias: Float[Array, ""],
    density: Float[Array, " features"],
    boxes: Boxes,
    *,
    signed: bool,
) -> Float[Array, ""]:
    r"""$E\,\mathrm{ReLU}(z)^2$ of one output."""
    # Not `minimum` or `abs`: at zero the two ends must keep one another's derivative.
    positive = couplings > 0
    if signed:
        size = jnp.where(positive, couplings, -couplings)
        ends = jnp.stack([-size, size, jnp.zeros_like(size)])
        silent = jnp.full(couplings.shape, 2)
    else:
        ends = jnp.stack([jnp.where(positive, 0.0, couplings), jnp.where(positive, couplings, 0.0)])
        silent = jnp.where(positive, 0, 1)
    low = bias[None]
    for steps in ends.T:
        low = (steps[:, None] + low[None, :]).ravel()
    edge_variances = (ends[1] - ends[0]) ** 2 / 12
    variances = jnp.where(boxes.active, edge_variances[None, :], 0.0).sum(axis=1)
    columns = (boxes.places * silent[None, :]).sum(axis=1)

    least = float(jnp.finfo(low.dtype).tiny) ** 0.5
    high = low = low[None, :]
    squares = jnp.where(low >= 0, low**2, 0.0)
    means = [squares[0, columns[:1]]]
    done = 1
    for level in boxes.levels:
        edges, sets, _ = level.low.shape
        here = slice(done, done + sets)
        done += sets
        low, high = low.ravel()[level.low[0]], high.ravel()[level.high[0]]
        squares = squares.ravel()
        at_low, at_high = squares[level.low].sum(axis=0), squares[level.high].sum(axis=0)
        # Two `where`s: reverse mode differentiates the branch that is not taken as well.
        # Below `least` its square underflows, and there is nothing to add.
        kinked = (low < 0) & (high >= 0) & (high - low > least)
        width = jnp.where(kinked, high - low, 1.0)
        # A constant that cancels: derivatives would divide by the square of the width.
        unit = lax.stop_gradient(width)
        part = (high / unit * at_high - low / unit * at_low) / ((edges + 2) * (width / unit))
        whole = ((low + high) / 2) ** 2 + variances[here, None]
        squares = jnp.where(low >= 0, whole, jnp.where(kinked, part, 0.0))
        means.append(jnp.take_along_axis(squares, columns[here, None], axis=1)[:, 0])
    chances = jnp.where(boxes.active, density[None, :], 1 - density[None, :]).prod(axis=1)
    return chances @ jnp.concatenate(means)
