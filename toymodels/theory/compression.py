r"""Two numbers in one: the nonlinear compression $t = (\lfloor Z x \rfloor + y) / Z$ by a network.

The floor cuts $[0, 1]$ into $Z$ segments, and it jumps between them. A network is continuous, so it
has a ramp in place of each jump. The ramp ends at the jump, in the encoder and in the decoder, and
its width $e$ is a share of a segment. There are ramps at the $Z - 1$ jumps inside $[0, 1]$; with
`last_ramp` the last segment ends in one, too, and the code is clipped to $[0, 1]$.

Errors are mean squared errors for independent $x$ and $y$, uniform on $[0, 1]$, summed over both.
The best linear compression keeps one of the two numbers, and its error is 1/12, the variance of the
other one.

References:
    Elhage et al. (2022), "Toy Models of Superposition", appendix "Nonlinear Compression".
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from toymodels import checks
from toymodels.theory.quadrature import gauss_legendre

__all__ = ["Network", "decode", "encode", "network", "squared_error", "squared_error_by_quadrature"]


def encode(x: Any, y: Any, width: float, segments: int, *, last_ramp: bool = False) -> Any:
    """Return the code $t$ in $[0, 1]$ of two numbers in $[0, 1]$, or of arrays of them.

    Args:
        x: the number whose place within its segment is lost.
        y: the number that is kept up to the ramps.
        width: $e$, in (0, 1].
        segments: $Z$, at least 2.
        last_ramp: whether the last segment ends in a ramp, too.
    """
    _check(width, segments)
    steps = _stairs(segments * np.asarray(x), width, segments - 1 + last_ramp)
    return np.minimum((steps + y) / segments, 1.0)


def decode(code: Any, width: float, segments: int, *, last_ramp: bool = False) -> tuple[Any, Any]:
    """Return both numbers of a code, the first one as the middle of its segment; see `encode`."""
    _check(width, segments)
    steps = _stairs(segments * np.asarray(code), width, segments - 1 + last_ramp)
    return (steps + 0.5) / segments, segments * code - steps


def _stairs(values: Any, width: float, ramps: int) -> Any:
    r"""Return $\lfloor u \rfloor$ of $u \ge 0$, with ramps that end at the jumps 1 to `ramps`."""
    steps = np.floor(values)
    rising = np.clip((values - steps - 1) / width + 1, 0, 1) * (steps < ramps)
    return np.minimum(steps, ramps) + rising


def squared_error(width: float, segments: int, *, last_ramp: bool = False) -> float:
    r"""Return the mean squared error, a polynomial in the width $e$ and in $1/Z$.

    Write $x = (k + a)/Z$, $r$ for how far $a$ has climbed its ramp, from 0 to 1, and $F$ for the
    steps of the decoder at $v = r + y$. Then the errors are $(a - 1/2 - F)/Z$ and $F - r$. In a
    segment with ramps around it they have the mean squares $A/Z^2$ and $B$,

    $$A = \tfrac1{12} + \tfrac13 (e + e^2 + e^3), \quad
      B = \tfrac12 (e - e^2) + \tfrac13 e^3.$$

    On a ramp, $v$ is uniform modulo 1 for every $r$, which makes all moments elementary. The last
    segments differ. With jumps inside, the error of the last one is $1/(12 Z^2)$ and the one before
    it has no ramp above it. With a ramp in every segment, the code is clipped in the last one.

    Args:
        width: $e$, in [0, 1]; at 0 the error is $1/(12 Z^2)$, the limit of true jumps.
        segments: $Z$, at least 2.
        last_ramp: whether the last segment ends in a ramp, too.
    """
    _check(width, segments)
    e, z = width, segments
    first = 1 / 12 + (e + e**2 + e**3) / 3
    second = (e - e**2) / 2 + e**3 / 3
    if last_ramp:
        first = first - e * (e**2 / 4 + e**4 / 12) / z
        second = second + e * (1 / 6 - e**2 / 12 - e**3 / 12) / z
    else:
        first = ((z - 1) * first + 1 / 12 - e**3 / 4 - e**5 / 12) / z
        second = ((z - 1) * second - e**3 / 12 - e**4 / 12) / z
    return first / z**2 + second


def squared_error_by_quadrature(width: float, segments: int, *, last_ramp: bool = False) -> float:
    """Return `squared_error` by Gauss's rule, which is exact on every polynomial piece.

    The arguments are those of `squared_error`.
    """
    _check(width, segments)
    places, place_weights = gauss_legendre(6)

    def rule(breaks: Any) -> tuple[Any, Any]:
        """Return the points and the weights of Gauss's rule on each piece between two breaks."""
        low, high = breaks[..., :-1, None], breaks[..., 1:, None]
        points = low + (high - low) * places
        weights = np.broadcast_to((high - low) * place_weights, points.shape)
        flat = (*breaks.shape[:-1], -1)
        return points.reshape(flat), weights.reshape(flat)

    # The code meets kinks in x; the kinks in y cross each other or the border at some x, too.
    ends = np.array([0.0, 1 - width, 1 - width * width, 1 - width * (1 - width), 1.0])
    x, chance_x = rule(np.unique((np.arange(segments)[:, None] + ends) / segments))
    climbed = _stairs(segments * x, width, segments - 1 + last_ramp) % 1
    kinks = np.array([0.0, 1 - width, 1.0, 2 - width]) - climbed[:, None]
    bounds = np.tile([0.0, 1.0], (x.size, 1))
    y, chance_y = rule(np.sort(np.hstack([bounds, np.clip(kinks, 0, 1)]), axis=1))
    code = encode(x[:, None], y, width, segments, last_ramp=last_ramp)
    x_out, y_out = decode(code, width, segments, last_ramp=last_ramp)
    squares = (x_out - x[:, None]) ** 2 + (y_out - y) ** 2
    return float(chance_x @ (squares * chance_y).sum(axis=1))


class Network(NamedTuple):
    """Two layers of ReLUs with one number between them.

    Attributes:
        weights_in: the weights from both numbers to the first ReLUs.
        weights_to_code: the weights from these ReLUs to the code.
        weights_from_code: the weights from the code to the second ReLUs.
        weights_out: the weights from these ReLUs to both numbers.
        bias: the bias of the ReLUs, equal in both layers.
        bias_out: the bias of both numbers.
    """

    weights_in: Float[np.ndarray, "relus 2"]
    weights_to_code: Float[np.ndarray, "1 relus"]
    weights_from_code: Float[np.ndarray, "relus 1"]
    weights_out: Float[np.ndarray, "2 relus"]
    bias: Float[np.ndarray, "relus"]
    bias_out: Float[np.ndarray, "2"]

    @property
    def num_relus(self) -> int:
        """The number of ReLUs in both layers, 4 Z - 2."""
        return 2 * self.bias.size

    def __call__(self, inputs: Float[np.ndarray, "2 examples"]) -> Float[np.ndarray, "2 examples"]:
        """Return both numbers after compression, one column for each column of inputs."""
        code = self.weights_to_code @ np.maximum(self.weights_in @ inputs + self.bias[:, None], 0)
        back = np.maximum(self.weights_from_code @ code + self.bias[:, None], 0)
        return self.weights_out @ back + self.bias_out[:, None]


def network(width: float, segments: int) -> Network:
    """Return the network that encodes and decodes exactly, with ramps at the jumps inside.

    In each layer one ReLU starts each ramp and one ends it, and one more passes on a number that is
    never negative.

    Args:
        width: $e$, in (0, 1].
        segments: $Z$, at least 2.
    """
    _check(width, segments)
    jumps = np.arange(1, segments)
    kinks = np.concatenate([jumps - width, jumps])
    climb = np.repeat([1.0, -1.0], segments - 1) / width
    return Network(
        weights_in=np.stack(
            [np.repeat([segments, 0.0], [kinks.size, 1]), np.append(0 * kinks, 1.0)], 1
        ),
        weights_to_code=np.append(climb, 1.0)[None] / segments,
        weights_from_code=np.full((kinks.size + 1, 1), float(segments)),
        weights_out=np.array([np.append(climb, 0.0) / segments, np.append(-climb, 1.0)]),
        bias=-np.append(kinks, 0.0),
        bias_out=np.array([0.5 / segments, 0.0]),
    )


def _check(width: float, segments: int) -> None:
    checks.interval(
        "width", width, low=0.0, high=1.0, remedy="it is the share of a segment that a ramp takes"
    )
    checks.count("segments", segments, minimum=2)
