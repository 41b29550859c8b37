r"""The lowest loss of features at the vertices of a polytope, and their gain per hidden dimension.

Let $k$ features of density $p$ and importance 1 at the vertices of a polytope in $d$ dimensions
have the loss $L$, SUMMED over outputs. A feature that is not represented costs its variance
$v = p/3 - p^2/4$. The gain per dimension is

$$G = \frac{k v - L}{d v}.$$

A dimension dedicated to one feature has the gain 1.

**Who wins.** Features of orthogonal subspaces do not interfere, so the losses of a direct sum add
up. Polytopes that fill $m$ dimensions, with the rest of $n$ features ignored, have

$$L = n v - v \sum_b d_b G_b \ge (n - m \max_b G_b)\, v, \qquad \sum_b d_b \le m.$$

Equality holds if copies of the best polytope fill all dimensions, which needs a $d$ that divides
$m$ and enough features. In other cases the best choice is a knapsack problem, and this is its
linear relaxation. Hence, for $n \gg m$, the polytope with the largest $G$ wins among direct sums of
the polytopes considered. The value $(n - m G) v$ is attained, so it is an upper bound on the
optimal loss. It is no lower bound: other arrangements can gain more, such as a square pyramid
around $1/p = 1.5$, and trained models for $1/p > 6$.

**Symmetry.** Rotations that exchange the vertices keep the family of a `Polytope`. So a minimum
within the family is a critical point among all weights and biases (Palais's principle). There is
such a minimum at every density, and it has $G \ge 1$: for $W W^\top = 1$ the loss without the
rectifier is $(k - d) v$, and clipping negative outputs can only lower it. It need not be a minimum
among all weights and biases. By the Hessian it is one for $1/p > 1.41$ (digon), for all $1/p$ from
1 to 4 (triangle, tetrahedron), for $1/p > 3.31$ and at 1.6, but not at 2 (pentagon), and from 3.6
on, but not at 3.3 (antiprism).

References:
    Elhage et al. (2022), "Toy Models of Superposition", section "The Geometry of Superposition".
    Palais (1979), "The principle of symmetric criticality".
"""

import functools
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import optimize

from toymodels import checks
from toymodels.engine import compiling
from toymodels.errors import InputError
from toymodels.theory.features import feature_variance
from toymodels.theory.frames import regular_polygon, simplex
from toymodels.theory.loss import expected_loss


class Polytope(NamedTuple):
    r"""Arrangements of equal features, $W = \operatorname{diag}(s)\, V$ with one bias for all.

    Attributes:
        vertices: $V$, one per column.
        stretch: the number of the group of each axis, from 0; axes of a group have equal $s$. All
            axes are in one group unless the symmetries allow other proportions.
    """

    vertices: Float[np.ndarray, "dimensions vertices"]
    stretch: tuple[int, ...]


class Arrangement(NamedTuple):
    """The best arrangement of a `Polytope`.

    Attributes:
        weights: the feature directions, one per column.
        bias: the bias of every output.
        loss: the exact loss, summed over the outputs.
        gain: $G$, at least 1.
    """

    weights: Float[np.ndarray, "dimensions vertices"]
    bias: float
    loss: float
    gain: float


def _square_antiprism() -> Float[np.ndarray, "3 8"]:
    """Return the antiprism with edges of equal length: two squares, turned by 45 degrees."""
    radius = (1 + 2**0.5 / 4) ** -0.5
    angles = np.pi / 4 * np.arange(8)
    height = (1 - radius**2) ** 0.5 * np.tile([1.0, -1.0], 4)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles), height])


DEDICATED: Final = Polytope(np.ones((1, 1)), (0,))
DIGON: Final = Polytope(simplex(1), (0,))
TRIANGLE: Final = Polytope(simplex(2), (0, 0))
TETRAHEDRON: Final = Polytope(simplex(3), (0, 0, 0))
PENTAGON: Final = Polytope(regular_polygon(5), (0, 0))
SQUARE_ANTIPRISM: Final = Polytope(_square_antiprism(), (0, 0, 1))


def arrangement(polytope: Polytope, density: float) -> Arrangement:
    r"""Return the lengths and the bias of the lowest expected loss, by BFGS in float64.

    The descent starts at $W W^\top = 1$, the optimum of a linear output. Starts at other lengths
    and biases led to the same minimum, from $1/p = 1$ to 20.

    Time measured on one core, after 1 to 6 seconds of compilation: 0.01 s for a digon, 0.3 s for
    eight vertices.

    Args:
        polytope: a polytope with at most 12 vertices.
        density: $p$, in $(0, 1]$.

    Returns:
        Losses to about 1e-14, lengths and bias to about 1e-7.

    Raises:
        ValueError: a density outside $(0, 1]$, or too many vertices.
    """
    checks.density(density)
    vertices, stretch = polytope
    dimensions, count = vertices.shape
    if len(stretch) != dimensions or set(stretch) != set(range(len(set(stretch)))):
        raise InputError(
            f"stretch is {stretch}: give the group of each of {dimensions} axes, from 0 without gap"
        )
    compiling.ensure_compilation_cache()
    unit = count * feature_variance(density)

    def value(parameters: Any) -> tuple[float, Any]:
        with jax.enable_x64(True):
            loss, slopes = _loss_and_slopes(parameters, vertices, density, stretch=stretch)
            return float(loss) / unit, np.asarray(slopes) / unit

    tight = 1 / np.linalg.norm(vertices, axis=1)
    lengths = [tight[stretch.index(group)] for group in range(len(set(stretch)))]
    start = np.array([*lengths, (1 - dimensions / count) * density / 2])
    # A relative slope of 1e-9; rounding may end the descent just before, which costs no digits.
    found = optimize.minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    loss = unit * float(found.fun)
    return Arrangement(
        weights=found.x[list(stretch), None] * vertices,
        bias=float(found.x[-1]),
        loss=loss,
        gain=(count - loss / unit * count) / dimensions,
    )


def crossing(first: Polytope, second: Polytope, *, between: tuple[float, float]) -> float:
    """Return the density at which two polytopes have an equal gain per dimension.

    Args:
        first: the polytope with the larger gain at one of the densities `between`.
        second: the polytope with the larger gain at the other one.
        between: two densities; the gains cross once between them.

    Returns:
        The density, to about 1e-9.

    Raises:
        ValueError: one polytope has the larger gain at both densities.
    """

    @functools.cache  # the search asks for both ends once more
    def lead(density: float) -> float:
        return arrangement(first, density).gain - arrangement(second, density).gain

    low, high = between
    if lead(low) * lead(high) > 0:
        raise InputError(f"the same polytope wins at densities {low} and {high}: give others")
    return float(optimize.brentq(lead, low, high, xtol=1e-9))  # pyright: ignore


@functools.partial(jax.jit, static_argnames="stretch")
def _loss_and_slopes(
    parameters: Float[Any, " parameters"],
    vertices: Float[Any, "dimensions vertices"],
    density: Any,
    *,
    stretch: tuple[int, ...],
) -> Any:
    def loss(parameters: Any) -> Any:
        weights = parameters[np.array(stretch), None] * vertices
        bias = jnp.full(vertices.shape[1], parameters[-1])
        return expected_loss(weights, bias, density, 1.0)

    def along(direction: Any) -> Any:
        return jax.jvp(loss, (parameters,), (direction,))

    # Forwards: few parameters, and half the time to compile.
    return jax.vmap(along, out_axes=(None, 0))(jnp.eye(parameters.size))
