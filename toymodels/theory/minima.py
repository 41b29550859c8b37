r"""Minima of the exact expected loss, found from many starts: the best that training can reach.

Descents (`theory.descent`) in float64 begin at random and at structured starts, all at once. Minima
of equal loss count as one, because rotations of the hidden space, permutations of equal features
and moves along a flat valley do not change the loss. Nothing here proves that the lowest minimum
found is the global one; structured starts and the frequency of each minimum say how far to trust
it.

References:
    Elhage et al. (2022), "Toy Models of Superposition", for the model.
    Chen et al. (2023), "Dynamical versus Bayesian Phase Transitions in a Toy Model of
    Superposition", for the minima in the limit of one active feature.
"""

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.engine import compiling
from toymodels.errors import InputError
from toymodels.theory import loss as exact
from toymodels.theory.descent import MAX_STEPS, bfgs, check_float64, minimise
from toymodels.theory.features import Numbers, feature_variance
from toymodels.theory.frames import direct_sums

ModelLoss: TypeAlias = Callable[[Any, Any, Any, Any], Any]

GROUP: Final = 16
"""The number of descents that run side by side, until the slowest of them is done."""
SAME_LOSS: Final = 1e-8
"""Minima count as one if their losses differ by less than this share of the loss of no features."""
STIFF: Final = 1e-3
r"""Below this density $p$, descents measure positive biases in units of $\sqrt{p / 10^{-3}}$.

A positive bias costs its square in every example, a feature only where it is active, with
probability $p$. So the loss rises ever more steeply with a positive bias, until descents stall."""
RARE: Final = 1e-4
"""`optimum` refuses features that are rarer than this share of the most frequent one, because they
hardly matter for the loss."""
_QUICKLY: Final = {"xla_backend_optimization_level": 1}  # takes a third off the time to compile
FLAT: Final = 1e-5
"""Curvatures below this share of the largest one count as zero modes."""
APART: Final = 1e-6
"""A curvature is the difference of the slopes at this distance on both sides of a minimum."""


class Minimum(NamedTuple):
    r"""A local minimum of the expected loss, one of its copies under rotation and permutation.

    Attributes:
        weights: the feature directions, one per column.
        bias: one per output.
        loss: the exact loss.
        curvatures: the eigenvalues of the Hessian in all weights and biases, rising; the mean of
            both sides where a second derivative jumps. For densities below `STIFF` a positive bias
            is measured in the unit given there.
        zero_modes: the number of curvatures that are zero. Of these, $d (d - 1) / 2$ are rotations
            of a $W$ of rank $d = m$; the others are flat valleys.
        frequency: the share of the random starts that end in it; 0 if only structured starts do.
    """

    weights: Float[np.ndarray, "hidden features"]
    bias: Float[np.ndarray, " features"]
    loss: float
    curvatures: Float[np.ndarray, " parameters"]
    zero_modes: int
    frequency: float


class Optimum(NamedTuple):
    """The lowest minimum found, and all others.

    Attributes:
        weights: the feature directions of the lowest minimum, one per column.
        bias: its biases, one per output.
        loss: its exact loss.
        minima: all distinct minima, the lowest first.
    """

    weights: Float[np.ndarray, "hidden features"]
    bias: Float[np.ndarray, " features"]
    loss: float
    minima: tuple[Minimum, ...]


class FreeOptimum(NamedTuple):
    """The lowest minimum of `free_optimum`.

    Attributes:
        weights: the feature directions, one per column.
        bias: one per output.
        loss: the exact loss.
        slope: the slope of `Descended`.
        frequency: the share of the random starts that end as low, up to `SAME_LOSS`. If no or only
            one random start does, a lower minimum may have been missed: raise `num_random`.
    """

    weights: Float[Array | np.ndarray, "*cells hidden features"]
    bias: Float[Array | np.ndarray, "*cells features"]
    loss: Float[Array | np.ndarray, "*cells"]
    slope: Float[Array | np.ndarray, "*cells"]
    frequency: Float[Array | np.ndarray, "*cells"]


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


def optimum(
    num_features: int,
    hidden: int,
    density: Numbers,
    importance: Numbers = 1.0,
    *,
    num_starts: int = 64,
    seed: int = 0,
    loss: ModelLoss = exact.expected_loss,
) -> Optimum:
    r"""Find the minima over $W$ and $b$ of the exact loss of $y = \mathrm{ReLU}(W^\top W x + b)$.

    In a new process it takes 2 seconds for (2, 1) and 5 for (5, 2), and half a minute for (8, 3)
    from 8 random starts. Half of that goes into compiling, once for each shape; a new process
    compiles again only if there is no cache. The weights tell what kind of minimum it is: in a
    pentagon `analysis.geometry.feature_dimensionality` is 2/5.

    Args:
        num_features: $n$.
        hidden: $m$.
        density: $p$, in $[0, 1]$; one number, or one per feature, of which the smallest but 0 is
            at least $10^{-4}$ times the largest. As $p \to 0$, the loss is $n p$ times that of
            `optimum_one_active`.
        importance: $I \ge 0$; one number, or one per feature.
        num_starts: the number of random starts, besides the structured ones of `starts`.
        seed: the seed of the random starts.
        loss: a differentiable function of weights, bias, density and importance, such as
            `expected_loss_signed`. It is always called with one density and one importance per
            feature. For sets of features, give
            `functools.partial(expected_loss_correlated, num_sets=2)`.

    Returns:
        All distinct minima found, the lowest first, with losses to about 1e-14. Minima that a
        single start reached suggest that others were missed. Expect that if importances differ,
        because permuted copies are then different minima. Raise `num_starts`.

    Raises:
        ValueError: numbers that `loss` refuses, such as a density outside $[0, 1]$ or too many
            features, or densities too far apart.
    """
    checks.count("num_features", num_features)
    checks.count("hidden", hidden)
    checks.count("num_starts", num_starts)
    shape = (num_features,)
    some = np.ravel(density)[np.ravel(density) > 0]
    if some.size and some.min() < RARE * some.max():
        raise InputError(
            f"density is {some.min():g} for one feature and {some.max():g} for another, too rare "
            "to matter beside it: leave the rare feature out"
        )
    for name, value in (("density", density), ("importance", importance)):
        if np.shape(value) not in ((), shape):
            raise InputError(
                f"{name} has shape {np.shape(value)}: give one number or {num_features}, one per "
                "feature"
            )
    numbers = [np.broadcast_to(np.asarray(x, float), shape) for x in (density, importance)]

    def search() -> tuple[int, list[Minimum]]:
        with jax.enable_x64(True):
            model = np.zeros((hidden, num_features)), np.zeros(shape)
            # The loss checks plain numbers; in the descent they are traced.
            jax.eval_shape(lambda weights, bias: loss(weights, bias, *numbers), *model)
            key = jax.random.key(seed, impl="threefry2x32")
            begin = _starts(key, hidden, *numbers, num_starts)
            problem = _Problem(loss, hidden, *numbers)
            ends = problem.descend(*map(np.asarray, begin))
            return len(ends.loss), list(_distinct(ends, num_starts, problem))

    # A thread of its own traces programs also while the caller's thread traces something else.
    with ThreadPoolExecutor(1) as alone:
        count, minima = alone.submit(search).result()
    if not minima:
        raise InputError(f"none of the descents from {count} starts came to rest: raise num_starts")
    best = minima[0]
    return Optimum(best.weights, best.bias, best.loss, tuple(minima))


def optimum_one_active(
    num_features: int,
    hidden: int,
    importance: Numbers = 1.0,
    *,
    num_starts: int = 64,
    seed: int = 0,
) -> Optimum:
    r"""Find the minima of the potential $H$, the limit $p \to 0$ of `optimum`.

    Exactly one feature is active: see `theory.expected_loss_one_active`.

    Args:
        num_features: $c$ in the paper.
        hidden: $r$ in the paper.
        importance: $I \ge 0$; one number, or one per feature.
        num_starts: the number of random starts, besides the structured ones of `starts`.
        seed: the seed of the random starts.

    Returns:
        All distinct minima found, the lowest first. A bias far below zero silences its output; the
        potential is flat in all parameters of a silent output.
    """
    return optimum(
        num_features, hidden, 0.0, importance, num_starts=num_starts, seed=seed, loss=_one_active
    )


def free_optimum(
    key: Array,
    hidden: int,
    density: Float[Array, " features"],
    importance: Float[Array, " features"],
    *,
    num_random: int = 8,
    loss: ModelLoss = exact.expected_loss,
) -> FreeOptimum:
    r"""Find the lowest minimum alone, by a pure function: for `vmap` and for cells of `sweep`.

    Work inside `with jax.enable_x64(True)`, because a descent cannot converge in float32. No search
    proves that there is no lower minimum: `frequency` says how easily this one was found. Tried on
    36 problems of 3 and 4 features in 1 dimension and of 4 in 2, with equal and unequal features:
    one of the first 1 to 20 random starts found the lowest minimum of 192 starts, and so did at
    least one structured start.

    Args:
        key: decides the random starts.
        hidden: $m$.
        density: $p$, one per feature.
        importance: $I$, one per feature.
        num_random: the number of random starts, besides the structured ones.
        loss: the loss, see `optimum`.

    Returns:
        The lowest end of all descents, and the share of random starts that end as low.

    Raises:
        ValueError: numbers that are not in float64.
    """
    checks.count("hidden", hidden)
    checks.count("num_random", num_random)
    density, importance = jnp.asarray(density), jnp.asarray(importance)
    check_float64(density)
    begin = starts(key, hidden, density, importance, num_random)
    ends = jax.vmap(lambda w, b: descend(w, b, density, importance, loss=loss))(*begin)
    best = jax.tree.map(lambda values: values[jnp.nanargmin(ends.loss)], ends)
    weights, bias = begin
    nothing = loss(0 * weights[0], 0 * bias[0], density, importance)
    same = ends.loss[:num_random] <= best.loss + SAME_LOSS * nothing
    frequency = jnp.where(jnp.isfinite(best.loss), same.astype(best.loss.dtype).mean(), jnp.nan)
    return FreeOptimum(best.weights, best.bias, best.loss, best.slope, frequency)


def descend(
    weights: Float[Array | np.ndarray, "hidden features"],
    bias: Float[Array | np.ndarray, " features"],
    density: Float[Array | np.ndarray, " features"],
    importance: Float[Array | np.ndarray, " features"],
    *,
    loss: ModelLoss = exact.expected_loss,
) -> Descended:
    r"""Return the minimum that BFGS reaches from one start, by a pure function.

    Work inside `with jax.enable_x64(True)`.

    Args:
        weights: the first weights. The descent keeps every symmetry that the start and the loss
            share.
        bias: the first biases.
        density: $p$, one per feature.
        importance: $I$, one per feature.
        loss: the loss, see `optimum`.

    Raises:
        ValueError: numbers that are not in float64.
    """
    start = jnp.asarray(weights), jnp.asarray(bias)
    check_float64(start[0])
    # Tolerances are absolute, so the loss must not depend on the scale of density and importance.
    nothing = loss(0 * start[0], 0 * start[1], density, importance)
    scale = jnp.where(nothing > 0, nothing, 1.0)
    unit = bias_unit(density)

    def placed(params: Any) -> Any:
        return loss(params[0], _biases(params[1], unit), density, importance)

    begin = start[0], _places(start[1], unit)
    (weights, places), end, slope = minimise(placed, begin, scale=scale)
    return Descended(weights, _biases(places, unit), end, slope)


def bias_unit(density: Float[Array | np.ndarray, " features"]) -> Float[Array, ""]:
    """Return the unit in which descents measure positive biases, which is 1 above `STIFF`."""
    largest = jnp.max(density, initial=0.0)
    return jnp.sqrt(jnp.where((largest > 0) & (largest < STIFF), largest / STIFF, 1.0))


def starts(
    key: Array,
    hidden: int,
    density: Float[Array, " features"],
    importance: Float[Array, " features"],
    num_random: int,
) -> tuple[Float[Array, "starts hidden features"], Float[Array, "starts features"]]:
    r"""Return weights and biases to descend from, the random ones first.

    A random start has $W_{ij} \sim N(0, 1/m)$ and $b_i \sim N(\bar b, 0.1^2)$, where $\bar b$ is
    uniform on $(-1/2, 1/4)$, so that some starts have silent outputs. A structured start is a
    direct sum of dedicated features, simplices and regular polygons of unit length. It fills the
    dimensions with the features of the largest $I_i \operatorname{Var} x_i$; the other columns are
    zero, with the mean of the feature as bias. Each structured start comes twice, disturbed by 0.02
    and by 0.3, because an optimum of sparse features may have weak features beside a pair.
    """
    if not (density.ndim == 1 and density.shape == importance.shape):
        raise InputError(
            f"density has shape {density.shape} and importance {importance.shape}: give both one "
            "number per feature"
        )
    num_features, dtype = density.size, density.dtype
    frames = np.stack(list(direct_sums(num_features, hidden)))
    key_normal, key_level = jax.random.split(key)
    # Draw all normal numbers at once, because each draw has to be compiled.
    rows = num_random * (hidden + 1) + 2 * len(frames) * hidden
    normal = jax.random.normal(key_normal, (rows, num_features), dtype)
    parts = jnp.split(normal, [num_random, num_random * (hidden + 1)])
    level = jax.random.uniform(key_level, (num_random, 1), dtype, -0.5, 0.25)
    bias = level + 0.1 * parts[0]
    weights = parts[1].reshape(num_random, hidden, num_features) / np.sqrt(hidden)

    scale = np.repeat([0.02, 0.3], len(frames))[:, None, None]
    disturbance = scale * parts[2].reshape(2 * len(frames), hidden, num_features)
    dropped = jnp.asarray(np.tile((frames**2).sum(axis=1) == 0, (2, 1)))
    order = jnp.argsort(-importance * feature_variance(density))
    rank = jnp.argsort(order)
    structured = (jnp.asarray(np.tile(frames, (2, 1, 1)), dtype) + disturbance)[:, :, rank]
    means = jnp.where(dropped[:, rank], density / 2, 0.0)
    return jnp.concatenate([weights, structured]), jnp.concatenate([bias, means])


_starts = jax.jit(starts, static_argnums=(1, 4), compiler_options=_QUICKLY)


class _Problem(NamedTuple):
    """A loss at one density and importance, evaluated at many points on all cores.

    A point is all weights, and then all biases, positive ones in units of `bias_unit`.

    One program descends and also evaluates, because it takes longer to compile than to run.
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
        places = _places(bias, self.bias_unit())
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
            bias=_biases(point[:, size:], self.bias_unit()),
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

        with ThreadPoolExecutor(os.cpu_count()) as pool:
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
            model = flat[:size].reshape(shape), _biases(flat[size:], unit)
            return loss(*model, density, importance) / scale

        end = bfgs(jax.value_and_grad(scaled), start, steps)
        return end.point, end.value, end.slopes

    compiling.ensure_compilation_cache()
    quick = num_features <= exact.FEW_FEATURES
    side_by_side = jax.vmap(from_one, (0, *[None] * 6))
    return jax.jit(side_by_side, compiler_options=_QUICKLY if quick else None)


def _biases(places: Any, unit: Any) -> Any:
    """Return the biases of a point, whose positive ones are measured in a unit of their own."""
    array = np if isinstance(places, np.ndarray) else jnp
    return array.where(places > 0, unit * places, places)


def _places(bias: Any, unit: Any) -> Any:
    """Return biases as `_biases` reads them."""
    array = np if isinstance(bias, np.ndarray) else jnp
    return array.where(bias > 0, bias / unit, bias)


def _distinct(ends: Descended, num_random: int, problem: _Problem) -> Iterator[Minimum]:
    """Yield one minimum for each loss at which descents converged, the lowest first, no saddles."""
    order = np.argsort(ends.loss)
    order = order[ends.slope[order] <= 1e-6]
    apart = np.diff(ends.loss[order]) > SAME_LOSS * problem.nothing()
    groups = np.split(order, 1 + np.flatnonzero(apart))
    for group in groups if order.size else ():
        lowest = group[0]
        weights, bias = np.asarray(ends.weights[lowest]), np.asarray(ends.bias[lowest])
        (point,) = problem.points(weights[None], bias[None])
        curvatures, directions = np.linalg.eigh(problem.hessian(point))
        flat = np.abs(curvatures) <= FLAT * curvatures[-1]
        step = 1e-3 * directions[:, 0]
        if (
            not flat[0]
            and problem.at(np.stack([point - step, point + step]))[0].min() < (ends.loss[lowest])
        ):
            continue  # a saddle
        yield Minimum(
            weights=weights,
            bias=bias,
            loss=float(ends.loss[lowest]),
            curvatures=curvatures,
            zero_modes=int(flat.sum()),
            frequency=float((group < num_random).sum() / num_random),
        )


def _one_active(weights: Any, bias: Any, density: Any, importance: Any) -> Any:
    del density  # its limit is 0
    return exact.expected_loss_one_active(weights, bias, importance)
