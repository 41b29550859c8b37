r"""Regular polygons as critical points of the potential of one active feature, and their geometry.

Two hidden dimensions, $c$ features, exactly one of them active: $x = \lambda e_j$ with $j$ uniform
and $\lambda \sim U(0, 1]$. The potential is the expected squared error, SUMMED over outputs,

$$H(W, b) = E \lVert x - \mathrm{ReLU}(W^\top W x + b) \rVert^2,$$

which is `toymodels.theory.expected_loss_one_active` with importance 1. The configuration $k^{s+}$
has $k$ columns at the vertices of a regular polygon, all of the same length and bias. The other
$c - k$ are *dead*, $W_i = 0$: $s$ of them with the positive bias $1/(2c)$, which is best for an
output that knows nothing, and the rest with any negative bias, so that they are silent.

**Critical.** The symmetries of the polygon fix a gradient up to the length and the bias of a
vertex, and those are optimal; for $k \ge 2$ its rotations leave a dead column no gradient. For
$k = 1$ a dead column of positive bias is pushed away from the vertex.

**Minimum.** Write $b = 1/(2c)$, $P$ for the sum of dead columns with positive bias, and $S$ for the
sum of all displacements of columns. To second order the dead outputs cost $b\,P \cdot S$ and

* $k \le 3$: a polygon that bends at no cost moves $S$; a minimum only for $s = 0$, where all
  live features are exact, as for $k = 4$.
* $k = 4$: the vertices that a dead column $w$ leans towards hold it by $\lVert w \rVert^2 / 3$.
  That is enough, but two or more silent ones can act together against a positive one; then it
  depends on all three numbers.
* $5 \le k \le 9$: a silent column costs nothing at all, so beside a positive one it slides away
  from it: $s = 0$ and $s = c - k$ are minima, the rest saddles.
* $k \ge 10$: the polygon itself is a saddle, seen up to $k = 12$.

Vertices whose own bias is so negative that they are silent (a third kind of dead column in Chen et
al.) are not covered.

**Learning coefficient.** Where $H - H_0$ is positive and of degree 2 on $d$ directions, smooth or
not, and constant on the rest, the volume where it is below $\epsilon$ goes as
$\epsilon^{d/2}$, so $\lambda = d/2$. Hence count the directions that are not flat.

* A vertex: its length and bias, always. Its angle is free for $k \le 3$ as the gaps have slack,
  and held for $k \ge 4$ up to one common rotation.
* A silent column: its bias is flat. Its two weights are flat for $k \le 2$ and $k \ge 5$ and
  held for $k = 3, 4$, where each direction is towards some vertex of bias 0. (An antipodal pair
  holds it along its axis, but as soon as the pair bends to one side, no more: the flat part has
  positive measure, and that is what the volume counts.)
* A dead column of positive bias: all three are held.

References:
    Chen, Lau, Mendel, Wei and Murfet (2023), "Dynamical versus Bayesian Phase Transitions in a Toy
    Model of Superposition".
    Watanabe (2009), "Algebraic Geometry and Statistical Learning Theory", for the free energy.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

from toymodels import checks
from toymodels.errors import InputError

MAX_SETTLED_VERTICES: Final = 12
"""For polygons with more, nobody has looked whether they are minima."""


class Polygon(NamedTuple):
    """The best regular polygon.

    Attributes:
        length: of its columns; 1 up to four vertices.
        bias: of its outputs; 0 up to four vertices, negative beyond.
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
    r"""Length and bias that minimise the loss of a regular polygon.

    With squared length $N$, bias $-\beta N$ and $c_m = \cos(2\pi m/k)$ the loss of one vertex is
    quadratic in $N$,

    $$\tfrac13 - 2 N A + N^2 D, \quad A = \tfrac16 (1 - \beta)^2 (2 + \beta), \quad
      D = \tfrac13 (1 - \beta)^3 + \sum_{0 < m < k,\, c_m > 0} \frac{(c_m - \beta)_+^3}{3 c_m},$$

    so $N = A/D$ and $E_k = k (1/3 - \max_\beta A^2/D)$: one number to find, in
    $[0, \cos(2\pi/k))$.

    Args:
        vertices: $k$, at least 1.

    Returns:
        Lengths and biases to about 1e-10. $E_k = 0$ exactly for $k \le 4$.
    """
    checks.count("vertices", vertices)
    if vertices <= 4:
        return Polygon(length=1.0, bias=0.0, loss=0.0)
    angles = 2 * np.pi * np.arange(1, vertices) / vertices
    cosines = np.cos(angles)[np.cos(angles) > 1e-12]  # those at right angles do not see each other

    def terms(beta: float) -> tuple[float, float]:
        others = np.sum(np.maximum(cosines - beta, 0) ** 3 / (3 * cosines))
        return (1 - beta) ** 2 * (2 + beta) / 6, float((1 - beta) ** 3 / 3 + others)

    def slope(beta: float) -> float:
        """Half the derivative of log(A^2/D)."""
        first, second = terms(beta)
        others = np.sum(np.maximum(cosines - beta, 0) ** 2 / cosines)
        return float((beta**2 - 1) / 2 / first + ((1 - beta) ** 2 + others) / 2 / second)

    # The highest of all humps first, then its top to full precision.
    places = np.linspace(0, cosines.max(), 2001)
    gains = [first**2 / second for first, second in map(terms, places)]
    top = int(np.argmax(gains))
    beta = float(optimize.brentq(slope, places[top - 1], places[top + 1], xtol=1e-15))  # pyright: ignore
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
    r"""The critical point $k^{s+}$: vertices first, then the dead of positive bias.

    Args:
        num_features: $c$.
        vertices: $k$, 0 to $c$.
        positive: $s$, 0 to $c - k$; 0 if $k = 1$.
        dead_bias: of the other dead columns, negative. The potential does not depend on it.
    """
    _check(num_features, vertices, positive)
    if not dead_bias < 0:
        raise InputError(f"dead bias is {dead_bias:g}: a silent output has a negative one")
    weights, bias = np.zeros((2, num_features)), np.full(num_features, float(dead_bias))
    if vertices:
        best = polygon(vertices)
        angles = 2 * np.pi * np.arange(vertices) / vertices
        weights[:, :vertices] = best.length * np.stack([np.cos(angles), np.sin(angles)])
        bias[:vertices] = best.bias
    bias[vertices : vertices + positive] = 1 / (2 * num_features)
    return Configuration(weights, bias)


def potential(num_features: int, vertices: int, positive: int) -> float:
    r"""$H$ of $k^{s+}$, in closed form but for $E_k$ of `polygon`.

    $$H = \frac1c \left[E_k + s \left(\frac13 - \frac1{4c}\right) + \frac{c - k - s}3\right]$$

    Summed over outputs, mean over which feature is active.

    Args:
        num_features: $c$.
        vertices: $k$, 0 to $c$.
        positive: $s$, 0 to $c - k$; 0 if $k = 1$.

    Returns:
        In $[0, 1/3]$.
    """
    _check(num_features, vertices, positive)
    live = polygon(vertices).loss if vertices else 0.0
    dead = (num_features - vertices) / 3 - positive / (4 * num_features)
    return (live + dead) / num_features


def is_minimum(num_features: int, vertices: int, positive: int) -> bool:
    r"""Return whether $k^{s+}$ is a local minimum of $H$; the module says why.

    A minimum with silent outputs is not strict: where their biases rise to 0, a ridge ends.

    Args:
        num_features: $c$.
        vertices: $k$, 0 to $c$.
        positive: $s$, 0 to $c - k$; 0 if $k = 1$.

    Raises:
        ValueError: also where it is not settled: a square with positive and two or more silent
            dead columns, and polygons of more than `MAX_SETTLED_VERTICES`.
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
    r"""Local learning coefficient $\lambda$ of the minimum $k^{s+}$, by counting directions.

    | $k$ | 0 | 1 | 2 | 3 | 4 | 5 to 9 |
    |---|---|---|---|---|---|---|
    | $\lambda$ | 0 | 1 | 2 | $c$ | $(2c + 3 + s)/2$ | $(3k - 1 + 3s)/2$ |

    The module says why. Silent biases are taken to be far below 0, three vertices to be the regular
    triangle (at right angles it is next to a square).

    Args:
        num_features: $c$.
        vertices: $k$, 0 to $c$.
        positive: $s$, 0 to $c - k$.

    Returns:
        At most half the number of parameters, $3c/2$. Its multiplicity is 1.

    Raises:
        ValueError: not a minimum, or `is_minimum` cannot say.
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


def free_energy(
    potential: Float[np.ndarray, "*cells"] | float,
    coefficient: Float[np.ndarray, "*cells"] | float,
    num_examples: Float[np.ndarray, "*cells"] | float,
    *,
    noise_variance: float,
) -> Float[np.ndarray, "*cells"]:
    r"""What the posterior pays for a phase, $F = n H / (2 \sigma^2) + \lambda \log n$.

    The likelihood is $p(x \mid w) \propto \exp(-\lVert x - f_w(x) \rVert^2 / (2 \sigma^2))$, so
    $\sigma^2 = 1$ is half the squared error and $\sigma^2 = 1/2$ is all of it. Up to a term of
    order 1: number of copies, volume of flat directions, prior.

    Args:
        potential: $H$.
        coefficient: $\lambda$.
        num_examples: $n \ge 1$.
        noise_variance: $\sigma^2 > 0$.
    """
    _check_noise(noise_variance)
    checks.interval("num_examples", num_examples, low=1, remedy="it is the size of a data set")
    examples = np.asarray(num_examples, np.float64)
    return examples * potential / (2 * noise_variance) + coefficient * np.log(examples)


def crossover(
    potentials: tuple[float, float], coefficients: tuple[float, float], *, noise_variance: float
) -> float:
    r"""Number of examples from which the posterior prefers the second of two phases.

    The larger root of $n = a \log n$ with $a = 2 \sigma^2 \Delta\lambda / \Delta H$, that is
    $n = -a W_{-1}(-1/a)$ with the lower branch of Lambert's function.

    Args:
        potentials: $H$ of the simpler and of the more accurate phase: decreasing.
        coefficients: their $\lambda$: not decreasing.
        noise_variance: $\sigma^2 > 0$, as in `free_energy`.

    Returns:
        Above $e$, or 1 where the second is preferred for every $n$: $a \le e$.

    Raises:
        ValueError: the potentials do not decrease, or the coefficients do.
    """
    _check_noise(noise_variance)
    gain, price = potentials[0] - potentials[1], coefficients[1] - coefficients[0]
    if not (gain > 0 and price >= 0):
        raise InputError(
            f"potentials {potentials} and coefficients {coefficients} do not cross: give first the "
            "phase of the higher potential and of the lower coefficient"
        )
    ratio = 2 * noise_variance * price / gain
    if ratio <= np.e:
        return 1.0
    return float(-ratio * special.lambertw(-1 / ratio, -1).real)


def _check_noise(noise_variance: float) -> None:
    checks.interval(
        "noise variance", noise_variance, low=0, open_low=True, remedy="it is that of the outputs"
    )


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
