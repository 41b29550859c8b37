r"""What training could at best find: minima of the exact expected loss, from many starts.

Quasi-Newton descent (BFGS) in float64 from random and from structured starts, all at once. A
minimum is known by its loss: rotations of the hidden space and permutations of equal features
leave it as it is, and so does moving along a flat valley. Nothing here proves that the lowest
minimum found is the global one; structured starts and the frequency of each basin say how far to
trust it.

References:
    Elhage et al. (2022), "Toy Models of Superposition", for the model.
    Chen et al. (2023), "Dynamical versus Bayesian Phase Transitions in a Toy Model of
    Superposition", for the minima in the limit of one active feature.
    Nocedal and Wright (2006), "Numerical Optimization", chapter 6.
"""

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from toymodels import checks, compiling
from toymodels.errors import InputError
from toymodels.theory import loss as exact
from toymodels.theory.frames import direct_sums

PerFeature: TypeAlias = Float[Array | np.ndarray, "..."] | float
ModelLoss: TypeAlias = Callable[[Any, Any, Any, Any], Any]

MOST_STEPS: Final = 1000
GROUP: Final = 16
"""Descents that go side by side, each until the slowest is done."""
SAME_LOSS: Final = 1e-8
"""Minima whose losses differ by less, relative to that of no features at all, are one."""
LEAST_DENSITY: Final = 1e-4
"""Sparser features make the loss too stiff: a positive bias costs most of the time."""
FLAT: Final = 1e-5
"""A curvature below this share of the largest is a zero mode."""


class Minimum(NamedTuple):
    r"""A local minimum of the expected loss, one of its copies under rotation and permutation.

    Attributes:
        weights: feature directions, one per column.
        bias: one per output.
        loss: exact.
        curvatures: eigenvalues of the Hessian in all weights and biases, rising.
        zero_modes: how many curvatures are zero; $d (d - 1) / 2$ of them turn a $W$ of rank $d =
            m$, others are flat valleys.
        frequency: share of the random starts that fall into it; 0 if only structured starts did.
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
        weights: feature directions, one per column.
        bias: one per output.
        loss: exact.
        minima: every distinct minimum, the lowest first.
    """

    weights: Float[np.ndarray, "hidden features"]
    bias: Float[np.ndarray, " features"]
    loss: float
    minima: tuple[Minimum, ...]


class Descended(NamedTuple):
    """Where descents ended.

    Attributes:
        weights: feature directions, one per column.
        bias: one per output.
        loss: exact.
        slope: largest component of the gradient, over the loss of no features at all; above 1e-6
            the descent did not converge.
    """

    weights: Float[Array | np.ndarray, "*starts hidden features"]
    bias: Float[Array | np.ndarray, "*starts features"]
    loss: Float[Array | np.ndarray, "*starts"]
    slope: Float[Array | np.ndarray, "*starts"]


def optimum(
    num_features: int,
    hidden: int,
    density: PerFeature,
    importance: PerFeature = 1.0,
    *,
    num_starts: int = 64,
    seed: int = 0,
    loss: ModelLoss = exact.expected_loss,
) -> Optimum:
    r"""Minima over $W$ and $b$ of the exact loss of $y = \mathrm{ReLU}(W^\top W x + b)$.

    Measured on two busy cores: 17 s for (5, 2), of which 14 to compile, once for each shape; 6 s
    for (6, 2) after 37; half a minute for (8, 3) from 8 random starts. Kinds of minima are told
    apart by their weights: in a pentagon `analysis.geometry.feature_dimensionality` is 2/5.

    Args:
        num_features: $n$.
        hidden: $m$.
        density: $p$, in $[0, 1]$; one number, or one per feature. None below 1e-4 but 0: the loss
            is then too stiff to descend, and `optimum_one_active` is what it tends to.
        importance: $I \ge 0$; one number, or one per feature.
        num_starts: random starts, besides the structured ones of `starts`.
        seed: of the random starts.
        loss: a function of weights, bias, density and importance, such as
            `expected_loss_signed`; differentiable.

    Returns:
        The lowest minimum found, and every other that was: frequencies of one start mean that
        more are unseen, as with unequal importances, which make different features different.
        Losses to about 1e-14.

    Raises:
        ValueError: what `loss` refuses, such as a density outside $[0, 1]$ or too many features.
    """
    checks.count("num_features", num_features)
    checks.count("hidden", hidden)
    checks.count("num_starts", num_starts)
    shape = (num_features,)
    sparse = np.asarray(density, float)
    if ((sparse > 0) & (sparse < LEAST_DENSITY)).any():
        raise InputError(
            f"density is {sparse[sparse > 0].min():g}, below {LEAST_DENSITY:g}, where descents "
            "stall: take optimum_one_active, the limit of sparse features"
        )
    # The loss checks plain numbers; in the descent they are traced.
    nothing = loss(np.zeros((hidden, num_features)), np.zeros(shape), density, importance)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        numbers = [np.broadcast_to(np.asarray(x, float), shape) for x in (density, importance)]
        density, importance = map(jnp.asarray, numbers)
        begin = starts(jax.random.key(seed), hidden, density, importance, num_starts)
        ends = _descend_all(loss, begin, numbers)
        minima = list(_distinct(ends, num_starts, float(nothing), loss, numbers))
    if not minima:
        raise InputError(
            f"none of the descents from {len(ends.loss)} starts came to rest: raise num_starts"
        )
    best = minima[0]
    return Optimum(best.weights, best.bias, best.loss, tuple(minima))


def optimum_one_active(
    num_features: int,
    hidden: int,
    importance: PerFeature = 1.0,
    *,
    num_starts: int = 64,
    seed: int = 0,
) -> Optimum:
    r"""`optimum` in the limit $p \to 0$, where one feature is active: of the potential $H$.

    Args:
        num_features: $c$ in the paper.
        hidden: $r$ in the paper.
        importance: $I \ge 0$; one number, or one per feature.
        num_starts: random starts, besides the structured ones of `starts`.
        seed: of the random starts.

    Returns:
        The lowest minimum found, and every other that was. A bias far below zero silences its
        output: a dead one is flat in every direction.
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
) -> Descended:
    r"""The lowest minimum alone, as a pure function to trace: for `vmap` and as a cell of `sweep`.

    Work inside `with jax.enable_x64(True)`, for in float32 a descent cannot converge. 1e4 cells of
    the phase diagram of (2, 1) took 70 s of processor time, those of (3, 2) 10 minutes.

    Args:
        key: of the random starts.
        hidden: $m$.
        density: $p$, one per feature.
        importance: $I$, one per feature.
        num_random: random starts, besides the structured ones.
        loss: as in `optimum`.

    Raises:
        ValueError: outside of float64.
    """
    checks.count("hidden", hidden)
    density, importance = jnp.asarray(density), jnp.asarray(importance)
    _check_float64(density)
    begin = starts(key, hidden, density, importance, num_random)
    ends = jax.vmap(lambda w, b: descend(w, b, density, importance, loss=loss))(*begin)
    best = jnp.argmin(ends.loss)
    return jax.tree.map(lambda values: values[best], ends)


def descend(
    weights: Float[Array | np.ndarray, "hidden features"],
    bias: Float[Array | np.ndarray, " features"],
    density: Float[Array | np.ndarray, " features"],
    importance: Float[Array | np.ndarray, " features"],
    *,
    loss: ModelLoss = exact.expected_loss,
) -> Descended:
    r"""The minimum below one start, by BFGS: pure, to trace, inside `with jax.enable_x64(True)`.

    Args:
        weights: where to start; a symmetry of the start is kept.
        bias: where to start.
        density: $p$, one per feature.
        importance: $I$, one per feature.
        loss: as in `optimum`.

    Raises:
        ValueError: outside of float64.
    """
    _check_float64(jnp.asarray(weights))
    import optimistix  # takes half a second, and only descents need it

    start = jnp.asarray(weights), jnp.asarray(bias)
    # Tolerances are absolute, so the loss must not depend on the scale of density and importance.
    nothing = loss(0 * start[0], 0 * start[1], density, importance)
    unit = jnp.where(nothing > 0, nothing, 1.0)

    def value(parameters: Any, _: Any) -> Any:
        return loss(parameters[0], parameters[1], density, importance) / unit

    # Gradients down to 1e-9: at a kink or in a flat valley the step gets small first.
    solver = optimistix.BFGS(rtol=1e-10, atol=1e-12, norm=optimistix.max_norm)
    found = optimistix.minimise(value, solver, start, max_steps=MOST_STEPS, throw=False)
    lowest, slopes = jax.value_and_grad(value)(found.value, None)
    slope = jnp.maximum(*(jnp.abs(slope).max() for slope in slopes))
    return Descended(found.value[0], found.value[1], lowest * unit, slope)


def _check_float64(values: Array) -> None:
    if values.dtype != jnp.float64:
        raise InputError(
            f"descents need float64, not {values.dtype}: work inside `with jax.enable_x64(True)`"
        )


def starts(
    key: Array,
    hidden: int,
    density: Float[Array, " features"],
    importance: Float[Array, " features"],
    num_random: int,
) -> tuple[Float[Array, "starts hidden features"], Float[Array, "starts features"]]:
    r"""Weights and biases to descend from, the random ones first.

    Random: $W_{ij} \sim N(0, 1/m)$ and $b_i \sim N(\bar b, 0.1^2)$, where $\bar b$ of a start is
    uniform on $(-1/2, 1/4)$, so that some begin with silent outputs. Structured: direct sums of
    dedicated features, simplices and regular polygons of unit length, which fill the dimensions
    with the features of the largest $I_i \operatorname{Var} x_i$, a little disturbed; the other
    features are dropped, with their mean as bias.
    """
    if not (density.ndim == 1 and density.shape == importance.shape):
        raise InputError(
            f"density has shape {density.shape} and importance {importance.shape}: give both one "
            "number per feature"
        )
    key_weights, key_bias, key_level, key_disturbance = jax.random.split(key, 4)
    num_features, dtype = density.size, density.dtype
    shape = (num_random, hidden, num_features)
    weights = jax.random.normal(key_weights, shape, dtype) / np.sqrt(hidden)
    level = jax.random.uniform(key_level, (num_random, 1), dtype, -0.5, 0.25)
    bias = level + 0.1 * jax.random.normal(key_bias, (num_random, num_features), dtype)

    frames = np.stack(list(direct_sums(num_features, hidden)))
    structured = jnp.asarray(frames, dtype)
    disturbance = jax.random.normal(key_disturbance, frames.shape, dtype)
    dropped = jnp.asarray((frames**2).sum(axis=1) == 0)
    order = jnp.argsort(-importance * (density / 3 - density**2 / 4))
    rank = jnp.argsort(order)
    structured = (structured + 0.02 * disturbance)[:, :, rank]
    means = jnp.where(dropped[:, rank], density / 2, 0.0)
    return jnp.concatenate([weights, structured]), jnp.concatenate([bias, means])


@functools.lru_cache(maxsize=32)
def _programs(loss: ModelLoss) -> tuple[Any, Any]:
    """All descents at once, and the Hessian at a point, compiled once for a shape."""

    def hessian(point: Any, shape: Any, *numbers: Any) -> Any:
        def flat(parameters: Any) -> Any:
            return loss(*_unflattened(parameters, shape), *numbers)

        # A row at a time: `jax.hessian` vectorises over rows, and takes twice as long to compile.
        slopes = jax.grad(flat)
        return lax.map(lambda row: jax.jvp(slopes, (point,), (row,))[1], jnp.eye(point.size))

    def side_by_side(weights: Any, bias: Any, density: Any, importance: Any) -> Descended:
        return jax.vmap(lambda w, b: descend(w, b, density, importance, loss=loss))(weights, bias)

    compiling.use_cache()
    return jax.jit(side_by_side), jax.jit(hessian, static_argnums=1)


def _descend_all(loss: ModelLoss, begin: tuple[Any, Any], numbers: list[Any]) -> Descended:
    """From every start, in groups of a fixed size: one program for any number, on all cores."""
    side_by_side = _programs(loss)[0]
    count = len(begin[1])
    filled = np.minimum(np.arange(-(-count // GROUP) * GROUP), count - 1)
    weights, bias = (np.asarray(part)[filled] for part in begin)

    def group(first: int) -> Any:
        with jax.enable_x64(True):  # a setting of the thread
            part = slice(first, first + GROUP)
            return jax.tree.map(np.asarray, side_by_side(weights[part], bias[part], *numbers))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        groups = list(pool.map(group, range(0, len(filled), GROUP)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *groups)


def _unflattened(parameters: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    size = shape[0] * shape[1]
    return parameters[:size].reshape(shape), parameters[size:]


def _distinct(
    ends: Descended, num_random: int, scale: float, loss: ModelLoss, numbers: list[Any]
) -> Iterator[Minimum]:
    shape = ends.weights.shape[1:]
    hessian = _programs(loss)[1]
    order = np.argsort(ends.loss)
    order = order[ends.slope[order] <= 1e-6]
    groups = np.split(order, 1 + np.flatnonzero(np.diff(ends.loss[order]) > SAME_LOSS * scale))
    for group in groups:
        lowest = group[0]
        weights, bias = np.asarray(ends.weights[lowest]), np.asarray(ends.bias[lowest])
        point = np.concatenate([weights.ravel(), bias])
        curvatures, directions = np.linalg.eigh(hessian(point, shape, *numbers))
        flat = np.abs(curvatures) <= FLAT * curvatures[-1]
        step = 1e-3 * directions[:, 0]
        beside = [loss(*_unflattened(point + sign * step, shape), *numbers) for sign in (-1, 1)]
        if not flat[0] and min(beside) < ends.loss[lowest]:
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
    del density  # it goes to 0
    return exact.expected_loss_one_active(weights, bias, importance)
