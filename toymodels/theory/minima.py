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

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory import loss as exact
from toymodels.theory.descent import check_float64, minimise
from toymodels.theory.features import Numbers
from toymodels.theory.landscape import (
    QUICKLY,
    Descended,
    Landscape,
    ModelLoss,
    bias_unit,
    biases,
    places_of,
)
from toymodels.theory.starts import starts

SAME_LOSS: Final = 1e-8
"""Minima count as one if their losses differ by less than this share of the loss of no features."""
RARE: Final = 1e-4
"""`optimum` refuses features that are rarer than this share of the most frequent one, because they
hardly matter for the loss."""
FLAT: Final = 1e-5
"""Curvatures below this share of the largest one count as zero modes."""

_starts = jax.jit(starts, static_argnums=(1, 4), compiler_options=QUICKLY)


class Minimum(NamedTuple):
    r"""A local minimum of the expected loss, one of its copies under rotation and permutation.

    Attributes:
        weights: the feature directions, one per column.
        bias: one per output.
        loss: the exact loss.
        curvatures: the eigenvalues of the Hessian in all weights and biases, rising; the mean of
            both sides where a second derivative jumps. For densities below
            `landscape.STIFF` a positive bias is measured in the unit given there.
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
            problem = Landscape(loss, hidden, *numbers)
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
        return loss(params[0], biases(params[1], unit), density, importance)

    begin = start[0], places_of(start[1], unit)
    (weights, places), end, slope = minimise(placed, begin, scale=scale)
    return Descended(weights, biases(places, unit), end, slope)


def _distinct(ends: Descended, num_random: int, problem: Landscape) -> Iterator[Minimum]:
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
