"""Minimise any smooth loss over any parameters by quasi-Newton descent (BFGS) in float64.

References:
    Nocedal and Wright (2006), "Numerical Optimization", chapter 6.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from toymodels.errors import InputError

__all__ = ["MAX_STEPS", "Minimised", "check_float64", "minimise"]

MAX_STEPS: Final = 1000
"""A descent evaluates the loss at most so many times."""


class Minimised(NamedTuple):
    """The end of one descent.

    Attributes:
        params: the parameters, shaped like the start.
        loss: the loss there; NaN if the loss at the start is not finite.
        slope: the largest component of the gradient there, divided by `scale`. A descent with a
            slope above 1e-6 did not converge.
    """

    params: PyTree
    loss: Float[Array | np.ndarray, "*starts"]
    slope: Float[Array | np.ndarray, "*starts"]


def minimise(
    loss: Callable[[Any], Any], start: PyTree, *, scale: Float[Array, ""] | float = 1.0
) -> Minimised:
    """Return the local minimum that BFGS reaches from a start.

    Plain numbers are minimised in float64 at once. For many starts, compile the call once: inside
    `with jax.enable_x64(True)`, `jax.jit(jax.vmap(lambda start: minimise(loss, start)))(starts)`;
    or hand it to `toymodels.apply` with `float64=True`.

    Args:
        loss: a differentiable function of the parameters that returns one number.
        start: the first parameters, a pytree of float arrays. BFGS keeps every symmetry that the
            start shares with the loss.
        scale: the size of a typical loss. The descent stops where the gradient is below 1e-13 of
            it, or where rounding hides all further progress.

    Returns:
        The parameters, the loss and the slope at the end of the descent.

    Raises:
        ValueError: a traced start that is not in float64.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((start, scale))):
        return _minimise(loss, start, scale)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        plain = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), start)
        found = jax.jit(lambda begin: _minimise(loss, begin, scale))(plain)
        return jax.tree.map(np.asarray, found)


def _minimise(loss: Callable[[Any], Any], start: PyTree, scale: Any) -> Minimised:
    begin, unflatten = ravel_pytree(start)
    check_float64(begin)
    end = bfgs(jax.value_and_grad(lambda flat: loss(unflatten(flat)) / scale), begin, MAX_STEPS)
    finite = jnp.isfinite(end.value)
    slope = jnp.where(finite, jnp.abs(end.slopes).max(), jnp.nan)
    return Minimised(unflatten(end.point), jnp.where(finite, end.value * scale, jnp.nan), slope)


def check_float64(values: Array) -> None:
    """Refuse values that are not in float64, where a descent cannot converge."""
    if values.dtype != jnp.float64:
        raise InputError(
            f"descents need float64, not {values.dtype}: work inside `with jax.enable_x64(True)`"
        )


class Descent(NamedTuple):
    """The state of a descent.

    Attributes:
        point: the best parameters so far.
        value: the loss there.
        slopes: the gradient there.
        inverse: the approximate inverse of the Hessian.
        trial: the step to try next.
        tried: the number of steps that were tried.
        moved: the number of steps that were taken.
        done: whether the descent has ended.
    """

    point: Any
    value: Any
    slopes: Any
    inverse: Any
    trial: Any
    tried: Any
    moved: Any
    done: Any


def bfgs(value_and_slopes: Any, start: Any, steps: Any) -> Descent:
    """Descend until the gradient is zero, or lost in rounding, or all steps are used up.

    The evaluation of the loss and its slopes at the start counts as one step. A step that does not
    lead low enough is tried again, shorter. The loop evaluates the loss in one place only, because
    the program takes longer to compile than to run.
    """
    identity = np.eye(start.size, dtype=start.dtype)

    def move(now: Descent) -> Descent:
        value, slopes = value_and_slopes(now.point + now.trial)
        expected = now.slopes @ now.trial
        low_enough = value <= now.value + 1e-4 * expected
        smallest = 1e-12 + 1e-10 * jnp.abs(now.point).max()
        small = (now.tried > 0) & (jnp.abs(now.trial).max() <= smallest)
        accepted = _accepted(now, value, slopes, expected, small, identity)
        refused = _refused(now, value, expected, small)
        return jax.tree.map(lambda new, old: jnp.where(low_enough, new, old), accepted, refused)

    # The first step has the length zero, so that it evaluates the loss at the start.
    none, zero = np.zeros(start.shape, start.dtype), np.zeros((), int)
    infinite = np.full((), np.inf, start.dtype)
    begin = Descent(start, infinite, none, identity, none, zero, zero, np.array(False))
    return lax.while_loop(lambda now: ~now.done & (now.tried < steps), move, begin)


def _accepted(
    now: Descent, value: Any, slopes: Any, expected: Any, small: Any, identity: Any
) -> Descent:
    """Take the step, learn the curvature along it, and choose the next one."""
    step, first = now.trial, now.tried == 0
    inverse = _updated(now, slopes - now.slopes)
    direction = -inverse @ slopes
    downhill = direction @ slopes < 0
    # Without a Hessian, go down the gradient, but no coordinate by more than 0.1.
    steepest = -slopes * jnp.minimum(1.0, 0.1 / jnp.maximum(jnp.abs(slopes).max(), 0.1))
    direction = jnp.where(downhill & ~first, direction, steepest)
    too_short = slopes @ step < 0.9 * expected  # the loss falls nearly as fast as before the step
    return Descent(
        point=now.point + step,
        value=value,
        slopes=slopes,
        inverse=jnp.where(downhill, inverse, identity),
        trial=jnp.where(too_short, 2 * step, direction),
        tried=now.tried + 1,
        moved=now.moved + 1,
        done=small | (jnp.abs(slopes).max() <= 1e-13),
    )


def _updated(now: Descent, turn: Any) -> Any:
    """Update the inverse Hessian by `turn`, the change of the gradient along the step."""
    step = now.trial
    curved = step @ turn
    known = curved > 1e-12 * jnp.sqrt((step @ step) * (turn @ turn))
    # Where the curvature is not known, the divisor is 1: zero would make NaN.
    per = 1 / jnp.where(known, curved, 1.0)
    scaled = jnp.where(now.moved > 1, 1.0, curved / jnp.where(known, turn @ turn, 1.0))
    inverse = jnp.where(known, scaled * now.inverse, now.inverse)
    image = inverse @ turn
    # Nocedal and Wright, equation 6.17, multiplied out.
    across = step[:, None] * image[None, :]
    along = step[:, None] * step[None, :]
    update = (1 + per * (turn @ image)) * per * along - per * (across + across.T)
    return inverse + jnp.where(known, update, 0.0)


def _refused(now: Descent, value: Any, expected: Any, small: Any) -> Descent:
    """Stay, and next try a step to the minimum of the parabola through both values and slope."""
    above = value - now.value - expected
    share = jnp.where(above > 0, -expected / (2 * jnp.where(above > 0, above, 1.0)), 0.5)
    trial = jnp.clip(share, 0.1, 0.5) * now.trial
    return now._replace(trial=trial, tried=now.tried + 1, done=(now.tried == 0) | small)
