r"""The exact loss of models at one density and importance, evaluated at many points at once.

A `Landscape` descends from many starts, and gives slopes and curvatures, in one compiled program
that runs on all cores.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toymodels.engine import compiling
from toymodels.engine.devices import num_cores
from toymodels.theory import loss as exact
from toymodels.theory.descent import MAX_STEPS, bfgs

ModelLoss: TypeAlias = Callable[[Any, Any, Any, Any], Any]

GROUP: Final = 16
"""The number of descents that run side by side, until the slowest of them is done."""
STIFF: Final = 1e-3
r"""Below this density $p$, descents measure positive biases in units of $\sqrt{p / 10^{-3}}$.

A positive bias costs its square in every example, a feature only where it is active, with
probability $p$. So the loss rises ever more steeply with a positive bias, until descents stall."""
QUICKLY: Final = {"xla_backend_optimization_level": 1}
"""Options of the compiler that take a third off its time."""
APART: Final = 1e-6
"""A curvature is the difference of the slopes at this distance on both sides of a minimum."""


class Descended(NamedTuple):
    """The points at which descents ended.

    Attributes:
        weights: the feature directions, one per column.
        bias: one per output.
        loss: the exact loss.
        slope: the largest component of the gradient, divided by the loss of no features. A descent
            with a slope above 1e-6 did not converge. For densities below `STIFF` the slope along a
            positive bias is measured in the unit given there.
    """

    weights: Float[Array | np.ndarray, "*starts hidden features"]
    bias: Float[Array | np.ndarray, "*starts features"]
    loss: Float[Array | np.ndarray, "*starts"]
    slope: Float[Array | np.ndarray, "*starts"]


def bias_unit(density: Float[Array | np.ndarray, " features"]) -> Float[Array, ""]:
    """Return the unit in which descents measure positive biases, which is 1 above `STIFF`."""
    largest = jnp.max(density, initial=0.0)
    return jnp.sqrt(jnp.where((largest > 0) & (largest < STIFF), largest / STIFF, 1.0))


def biases(places: Any, unit: Any) -> Any:
    """Return the biases of a point, whose positive ones are measured in a unit of their own."""
    array = np if isinstance(places, np.ndarray) else jnp
    return array.where(places > 0, unit * places, places)


def places_of(bias: Any, unit: Any) -> Any:
    """Return the places of biases in a point: those that `biases` reads."""
    array = np if isinstance(bias, np.ndarray) else jnp
    return array.where(bias > 0, bias / unit, bias)


class Landscape(NamedTuple):
    """A loss at one density and importance, evaluated at many points on all cores.

    A point is all weights, and then all biases, positive ones in units of `bias_unit`. One program
    descends and also evaluates, because it takes longer to compile than to run.

    Attributes:
        loss: a differentiable function of weights, bias, density and importance.
        hidden: the number of hidden dimensions.
        density: one per feature.
        importance: one per feature.
    """

    loss: ModelLoss
    hidden: int
    density: Any
    importance: Any

    def bias_unit(self) -> float:
        """Return the unit of positive biases."""
        return float(bias_unit(self.density))

    def points(self, weights: Any, bias: Any) -> Any:
        """Return the points of several models."""
        places = places_of(bias, self.bias_unit())
        return np.concatenate([weights.reshape(len(weights), -1), places], axis=1)

    def descend(self, weights: Any, bias: Any) -> Descended:
        """Descend from every start."""
        nothing = self.nothing()
        scale = nothing if nothing > 0 else 1.0
        point, value, slopes = self._run(self.points(weights, bias), scale, MAX_STEPS)
        finite = np.isfinite(value)
        slope = np.where(finite, np.abs(slopes).max(axis=1), np.nan)
        size = self.hidden * len(self.density)
        return Descended(
            weights=point[:, :size].reshape(-1, self.hidden, len(self.density)),
            bias=biases(point[:, size:], self.bias_unit()),
            loss=np.where(finite, value * scale, np.nan),
            slope=slope,
        )

    def at(self, points: Any) -> tuple[Any, Any]:
        """Return the loss and its slopes at many points."""
        _, value, slopes = self._run(points, 1.0, 1)
        return value, slopes

    def nothing(self) -> float:
        """Return the loss without any feature."""
        size = (self.hidden + 1) * len(self.density)
        return float(self.at(np.zeros((1, size)))[0][0])

    def hessian(self, point: Any) -> Any:
        """Return the second derivatives at a point, from differences of the slopes."""
        steps = APART * np.eye(point.size)
        slopes = self.at(np.concatenate([point + steps, point - steps]))[1]
        second = (slopes[: point.size] - slopes[point.size :]) / (2 * APART)
        return (second + second.T) / 2

    def _run(self, points: Any, scale: float, steps: int) -> tuple[Any, ...]:
        """Run the program in groups of a fixed size, which share it."""
        program, count = _program(self.loss, len(self.density)), len(points)
        points = points[np.minimum(np.arange(-(-count // GROUP) * GROUP), count - 1)]
        hidden = np.empty(self.hidden)  # its size decides the shape of the weights

        def group(first: int) -> Any:
            with jax.enable_x64(True):  # each thread has its own setting
                part, numbers = points[first : first + GROUP], (self.density, self.importance)
                ends = program(part, hidden, *numbers, self.bias_unit(), scale, steps)
                return jax.tree.map(np.asarray, ends)

        with ThreadPoolExecutor(num_cores()) as pool:
            groups = list(pool.map(group, range(0, len(points), GROUP)))
        return tuple(np.concatenate(parts)[:count] for parts in zip(*groups, strict=True))


@functools.lru_cache(maxsize=32)
def _program(loss: ModelLoss, num_features: int) -> Any:
    """Return a program that descends from many starts, side by side."""

    def from_one(
        start: Any, hidden: Any, density: Any, importance: Any, unit: Any, scale: Any, steps: Any
    ):
        size, shape = hidden.size * density.size, (hidden.size, density.size)

        def scaled(flat: Any) -> Any:
            model = flat[:size].reshape(shape), biases(flat[size:], unit)
            return loss(*model, density, importance) / scale

        end = bfgs(jax.value_and_grad(scaled), start, steps)
        return end.point, end.value, end.slopes

    compiling.ensure_compilation_cache()
    quick = num_features <= exact.FEW_FEATURES
    side_by_side = jax.vmap(from_one, (0, *[None] * 6))
    return jax.jit(side_by_side, compiler_options=QUICKLY if quick else None)
