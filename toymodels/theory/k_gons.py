r"""Regular polygons as critical points of the potential of one active feature.

Of $c$ features in two hidden dimensions exactly one is active: $x = \lambda e_j$ with $j$ uniform
and $\lambda \sim U(0, 1]$. The potential is the expected squared error, SUMMED over outputs,

$$H(W, b) = E \lVert x - \mathrm{ReLU}(W^\top W x + b) \rVert^2,$$

which is `toymodels.theory.expected_loss_one_active` with importance 1. The configuration $k^{s+}$
has $k$ columns at the vertices of a regular polygon, all of equal length and bias. The other
$c - k$ columns are *dead*, $W_i = 0$: $s$ of them have the positive bias $1/(2c)$, which is optimal
for a constant output, and the rest have any negative bias, so that they are silent.

**Critical points.** By the symmetries of the polygon, a gradient can only change the length and the
bias of all vertices together, and these are optimal. For $k \ge 2$ the rotations of the polygon
leave no gradient for a dead column. For $k = 1$ the gradient pushes a dead column of positive bias
away from the vertex.

**Minima.** Write $b = 1/(2c)$, $P$ for the sum of dead columns with positive bias, and $S$ for the
sum of all displacements of columns. To second order the dead outputs cost $b\,P \cdot S$. So

* for $k \le 3$, $S$ moves because the polygon can bend at no cost. Only $s = 0$ is a minimum; all
  live features are then exact, as for $k = 4$.
* for $k = 4$, the vertices that a dead column $w$ leans towards hold it by $\lVert w \rVert^2 / 3$.
  That is enough unless two or more silent columns act together against a positive one; then it
  depends on all three numbers.
* for $5 \le k \le 9$, a silent column costs nothing, so it slides away from a positive one:
  $s = 0$ and $s = c - k$ are minima, and the other points are saddles.
* for $k \ge 10$, the polygon itself is a saddle, as far as $k = 12$, which was tried.

Vertices whose own bias is so negative that they are silent (a third kind of dead column in Chen et
al.) are not covered.

**Learning coefficient.** Let $H - H_0$ be positive and of degree 2 in $d$ directions, smooth or
not, and constant in the others. Then the volume where it is below $\epsilon$ goes as
$\epsilon^{d/2}$, so $\lambda = d/2$. Hence count the directions that are not flat.

* Of a vertex, length and bias are never flat. Its angle is flat for $k \le 3$, because the gaps
  have slack. For $k \ge 4$ only one common rotation is flat.
* Of a silent column, the bias is flat. Its two weights are flat for $k \le 2$ and $k \ge 5$. They
  are not flat for $k = 3, 4$, where every direction leans towards some vertex of bias 0. (An
  antipodal pair holds the column along its axis, but not if the pair bends to one side. That part
  has positive measure, so the volume counts the direction as flat.)
* Of a dead column of positive bias, weights and bias are not flat.

References:
    Chen, Lau, Mendel, Wei and Murfet (2023), "Dynamical versus Bayesian Phase Transitions in a Toy
    Model of Superposition".
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import jax
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int
from scipy import optimize

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory.loss import expected_loss_one_active

MAX_SETTLED_VERTICES: Final = 12
"""The largest number of vertices for which minima are known; larger polygons were not tried."""


class Polygon(NamedTuple):
    """The best regular polygon.

    Attributes:
        length: the length of its columns; 1 up to four vertices.
        bias: the bias of its outputs; 0 up to four vertices, negative beyond.
        loss: $E_k$, summed over outputs and over which of the $k$ features is active.
    """

    length: float
    bias: float
    loss: float


class Configuration(NamedTuple):
    """Parameters of `ReLUOutput` with two hidden dimensions."""

    weights: Float[np.ndarray, "2 features"]
    bias: Float[np.ndarray, " features"]


def polygon(vertices: int) -> Polygon:
    r"""Return the length and the bias that minimise the loss of a regular polygon.

    With squared length $N$, bias $-\beta N$ and $c_m = \cos(2\pi m/k)$ the loss of one vertex is
    quadratic in $N$,

    $$\tfrac13 - 2 N A + N^2 D, \quad A = \tfrac16 (1 - \beta)^2 (2 + \beta), \quad
      D = \tfrac13 (1 - \beta)^3 + \sum_{0 < m < k,\, c_m > 0} \frac{(c_m - \beta)_+^3}{3 c_m},$$

    so $N = A/D$ and $E_k = k (1/3 - \max_\beta A^2/D)$. Only $\beta$ in $[0, \cos(2\pi/k))$ is left
    to be found.

    Args:
        vertices: $k$, at least 1.

    Returns:
        Lengths and biases with errors of about 1e-10. $E_k = 0$ exactly for $k \le 4$.
    """
    checks.count("vertices", vertices)
    if vertices <= 4:
        return Polygon(length=1.0, bias=0.0, loss=0.0)
    angles = 2 * np.pi * np.arange(1, vertices) / vertices
    cosines = np.cos(angles)[np.cos(angles) > 1e-12]  # right angles give no interference

    def terms(beta: float) -> tuple[float, float]:
        """Return A and D."""
        others = np.sum(np.maximum(cosines - beta, 0) ** 3 / (3 * cosines))
        return (1 - beta) ** 2 * (2 + beta) / 6, float((1 - beta) ** 3 / 3 + others)

    def slope(beta: float) -> float:
        """Return half the derivative of log(A^2/D)."""
        first, second = terms(beta)
        others = np.sum(np.maximum(cosines - beta, 0) ** 2 / cosines)
        return float((beta**2 - 1) / 2 / first + ((1 - beta) ** 2 + others) / 2 / second)

    # A grid finds the highest of several maxima, and its neighbours there enclose the root.
    grid = np.linspace(0, cosines.max(), 2001)
    gains = [first**2 / second for first, second in map(terms, grid)]
    top = int(np.argmax(gains))
    beta = float(optimize.brentq(slope, grid[top - 1], grid[top + 1], xtol=1e-15))  # pyright: ignore
    first, second = terms(beta)
    squared_length = first / second
    return Polygon(
        length=squared_length**0.5,
        bias=-beta * squared_length,
        loss=vertices * (1 / 3 - first**2 / second),
    )


def configuration(
    num_features: int, vertices: int, positive: int, *, dead_bias: float
) -> Configuration:
    r"""Return the critical point $k^{s+}$: first the vertices, then dead columns of positive bias.

    Args:
        num_features: $c$.
        vertices: $k$, 0 to $c$.
        positive: $s$, 0 to $c - k$; 0 if $k = 1$.
        dead_bias: the bias of the other dead columns, negative. The potential does not depend on
            it.
    """
    _check(num_features, vertices, positive)
    if not dead_bias < 0:
        raise InputError(f"dead_bias is {dead_bias:g}: give a negative one, so that it is silent")
    weights, bias = np.zeros((2, num_features)), np.full(num_features, float(dead_bias))
    if vertices:
        best = polygon(vertices)
        angles = 2 * np.pi * np.arange(vertices) / vertices
        weights[:, :vertices] = best.length * np.stack([np.cos(angles), np.sin(angles)])
        bias[:vertices] = best.bias
    bias[vertices : vertices + positive] = 1 / (2 * num_features)
    return Configuration(weights, bias)


def potential(num_features: int, vertices: int, positive: int) -> float:
    r"""Return $H$ of $k^{s+}$, in closed form except for $E_k$ of `polygon`.

    $$H = \frac1c \left[E_k + s \left(\frac13 - \frac1{4c}\right) + \frac{c - k - s}3\right]$$

    It is summed over outputs and averaged over which feature is active.

    Args:
        num_features: $c$.
        vertices: $k$, 0 to $c$.
        positive: $s$, 0 to $c - k$; 0 if $k = 1$.

    Returns:
        A number in $[0, 1/3]$.
    """
    _check(num_features, vertices, positive)
    live = polygon(vertices).loss if vertices else 0.0
    dead = (num_features - vertices) / 3 - positive / (4 * num_features)
    return (live + dead) / num_features


def is_minimum(num_features: int, vertices: int, positive: int) -> bool:
    r"""Return whether $k^{s+}$ is a local minimum of $H$, for the reasons in the module.

    A minimum with silent outputs is not strict, because their biases are flat below 0.

    Args:
        num_features: $c$.
        vertices: $k$, 0 to $c$.
        positive: $s$, 0 to $c - k$; 0 if $k = 1$.

    Raises:
        ValueError: impossible numbers, and the cases that are not settled: a square with positive
            and two or more silent dead columns, and more than `MAX_SETTLED_VERTICES` vertices.
    """
    _check(num_features, vertices, positive)
    silent = num_features - vertices - positive
    if (vertices == 4 and positive and silent >= 2) or vertices > MAX_SETTLED_VERTICES:
        raise InputError(
            f"whether {vertices} vertices with {positive} positive of "
            f"{num_features - vertices} dead columns are a minimum is not settled: minimise from "
            "there, or ask for a square with fewer silent columns"
        )
    if vertices <= 3:
        return positive == 0
    if vertices == 4:
        return True
    return vertices <= 9 and (positive == 0 or silent == 0)


def learning_coefficient(num_features: int, vertices: int, positive: int) -> float:
    r"""Return the local learning coefficient $\lambda$ of the minimum $k^{s+}$.

    | $k$ | 0 | 1 | 2 | 3 | 4 | 5 to 9 |
    |---|---|---|---|---|---|---|
    | $\lambda$ | 0 | 1 | 2 | $c$ | $(2c + 3 + s)/2$ | $(3k - 1 + 3s)/2$ |

    It counts directions, as the module explains. The biases of silent outputs are far below 0, and
    three vertices form the regular triangle (at right angles they would be next to a square).

    Args:
        num_features: $c$.
        vertices: $k$, 0 to $c$.
        positive: $s$, 0 to $c - k$.

    Returns:
        A number of at most $3c/2$, half the number of parameters. Its multiplicity is 1.

    Raises:
        ValueError: a point that is no minimum, or for which `is_minimum` is not settled.
    """
    if not is_minimum(num_features, vertices, positive):
        raise InputError(
            f"{vertices} vertices with {positive} positive dead columns are a saddle for "
            f"{num_features} features: learning coefficients are counted for minima only"
        )
    if vertices <= 2:
        return float(vertices)
    silent = num_features - vertices - positive
    held_per_vertex = 2 if vertices == 3 else 3
    rotation = 0 if vertices == 3 else 1
    held_per_silent = 2 if vertices <= 4 else 0
    directions = held_per_vertex * vertices - rotation + 3 * positive + held_per_silent * silent
    return directions / 2


def critical_points(num_features: int) -> list[tuple[int, int]]:
    """Return the numbers of vertices and of positive dead columns of all $k^{s+}$."""
    checks.count("num_features", num_features)
    pairs = [(k, s) for k in range(num_features + 1) for s in range(num_features - k + 1)]
    return [(vertices, positive) for vertices, positive in pairs if vertices != 1 or not positive]


def minima(num_features: int) -> list[tuple[int, int]]:
    """Return the numbers of vertices and of positive dead columns of the minima, lowest first.

    Raises:
        ValueError: seven features or more, because `is_minimum` is not settled for all their
            squares.
    """
    found = [each for each in critical_points(num_features) if is_minimum(num_features, *each)]
    return sorted(found, key=lambda each: potential(num_features, *each))


class Nearest(NamedTuple):
    """The critical points whose potentials are nearest to given ones.

    Attributes:
        place: the place of the nearest point in the list, from 0.
        deviation: the relative distance of the potential from that of the point.
    """

    place: Int[np.ndarray, "*any"]
    deviation: Float[np.ndarray, "*any"]


def nearest(num_features: int, potentials: Any, listed: Sequence[tuple[int, int]]) -> Nearest:
    """Return the nearest of the listed points, such as `minima(num_features)`, by the potential."""
    exact = np.array([potential(num_features, *point) for point in listed])
    deviations = np.abs(np.asarray(potentials)[..., None] / exact - 1)
    return Nearest(deviations.argmin(axis=-1), deviations.min(axis=-1))


def potential_below(
    weights: Float[Array, "2 features"], bias: Float[Array, " features"], *, steps: int
) -> Float[Array, ""]:
    """Return the potential of the minimum below a model, by gradient descent with momentum.

    Steps of rate 0.2 with momentum 0.9 and gradients of norm 1 at most do not leave the basin of
    attraction on kinks, on which quasi-Newton descents are slow.
    """
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.2, momentum=0.9))

    def value(params: Any) -> Any:
        return expected_loss_one_active(params["weights"], params["bias"], 1.0)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(value)(params), state)
        return (optax.apply_updates(params, updates), state), None

    start = {"weights": weights, "bias": bias}
    (params, _), _ = lax.scan(step, (start, optimizer.init(start)), length=steps)
    return value(params)


def _check(num_features: int, vertices: int, positive: int) -> None:
    checks.count("num_features", num_features)
    checks.count("vertices", vertices, minimum=0)
    checks.count("positive", positive, minimum=0)
    if vertices + positive > num_features:
        raise InputError(
            f"{vertices} vertices and {positive} positive dead columns are more than "
            f"{num_features} features: lower one"
        )
    if vertices == 1 and positive:
        raise InputError(
            f"one vertex with {positive} positive dead columns is no critical point: it pushes "
            "them away; give positive=0"
        )
