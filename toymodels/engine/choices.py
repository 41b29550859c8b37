"""Maxima and minima whose derivatives select by comparing the candidates with each other.

XLA may compute one number in several loops, each time rounded in another way: a product and
a sum become one operation here and two there. The derivatives that JAX gives to `max` and its
kind ask whether a candidate EQUALS the largest, which is then false for every candidate, and
the gradient is lost. Here both value and derivative select by `x > y` and `x < y`. One of two
different candidates then always gets the whole gradient. Another rounding changes the choice only
between candidates that differ by a rounding, and then either choice is right. Equal candidates
share the gradient alike, as in JAX.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jaxtyping import Array

from toymodels.engine import interpreter

Function: TypeAlias = Callable[..., Array]
# A comparison that says whether the first of two candidates is chosen before the second.
Before: TypeAlias = Callable[[Any, Any], Array]

_BEFORE: dict[str, Before] = {
    "cummax": lax.gt,
    "cummin": lax.lt,
    "max": lax.gt,
    "min": lax.lt,
    "reduce_max": lax.gt,
    "reduce_min": lax.lt,
    "scatter-max": lax.gt,
    "scatter-min": lax.lt,
}
# Primitives that call another program, or several, and the parameter that holds it.
_PROGRAMS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "cond": "branches",
    "remat2": "jaxpr",
    "scan": "jaxpr",
    "while": "body_jaxpr",
}


def compared(program: core.ClosedJaxpr, *, declared: bool = False) -> core.ClosedJaxpr:
    """Return the program with derivatives of maxima and minima that compare the candidates.

    Programs inside loops and branches are changed, too. A function that declares its own
    derivative, as `jax.custom_jvp` does, keeps it.

    Args:
        program: not differentiated yet.
        declared: True leaves the values to the primitives of JAX, and declares the comparisons
            as their derivative, as `jax.custom_jvp` does. The fused loop is faster so. Inside
            `scan`, `while` and `cond` the values are written as comparisons all the same, because
            JAX forgets declared derivatives of a loop that it differentiates twice.
    """
    if not any(map(_chooses, program.jaxpr.eqns)):
        return program
    consts, jaxpr = program.consts, program.jaxpr
    shapes = [variable.aval for variable in (*jaxpr.constvars, *jaxpr.invars)]
    traced = jax.make_jaxpr(
        lambda *inputs: _evaluate(jaxpr, inputs[: len(consts)], inputs[len(consts) :], declared)
    )(*shapes)
    captured, arguments = (
        traced.jaxpr.invars[: len(consts)],
        traced.jaxpr.invars[len(consts) :],
    )
    return core.ClosedJaxpr(
        traced.jaxpr.replace(constvars=[*traced.jaxpr.constvars, *captured], invars=arguments),
        [*traced.consts, *consts],
    )


def _evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], declared: bool
) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))
    differentiated = _differentiated(jaxpr)

    def step(equation: core.JaxprEqn, operands: list[Any]) -> Sequence[Any]:
        primitive, params = equation.primitive, equation.params
        if primitive.name in ("jit", "pjit"):
            inner = params["jaxpr"]
            return _evaluate(inner.jaxpr, inner.consts, operands, declared)
        if primitive.name in _BEFORE and differentiated.intersection(equation.outvars):
            choice = functools.partial(_choice, primitive.name, params)
            # The loop over examples has no cumulative primitives.
            if declared and not primitive.name.startswith("cum"):
                choice = _declared(functools.partial(primitive.bind, **params), choice)
            return [choice(*map(jnp.asarray, operands))]
        if primitive.name not in _PROGRAMS or not _chooses(equation):
            return interpreter.bind(equation, operands)
        program = _PROGRAMS[primitive.name]
        changed = equation.replace(params={**params, program: _rewritten(params[program])})
        return interpreter.bind(changed, operands)

    return interpreter.walk(jaxpr.eqns, values, jaxpr.outvars, step)


def _differentiated(jaxpr: core.Jaxpr) -> set[core.Var]:
    """Find the variables through which a derivative of the outputs flows.

    Most maxima need no rewriting, because they reach the outputs only through `stop_gradient`.
    """
    found: set[core.Var] = set(filter(_is_smooth, jaxpr.outvars))
    for equation in reversed(jaxpr.eqns):
        if equation.primitive.name != "stop_gradient" and found.intersection(equation.outvars):
            found |= set(filter(_is_smooth, equation.invars))
    return found


def _is_smooth(atom: core.Var | core.Literal) -> TypeGuard[core.Var]:
    kind: Any = atom.aval
    return isinstance(atom, core.Var) and jnp.issubdtype(kind.dtype, jnp.floating)


def _chooses(equation: core.JaxprEqn) -> bool:
    """Say whether an equation, or one in a program that it calls, chooses among candidates."""
    name = equation.primitive.name
    programs = equation.params[_PROGRAMS[name]] if name in _PROGRAMS else ()
    programs = programs if isinstance(programs, tuple) else (programs,)
    inner = (e for program in programs for e in getattr(program, "jaxpr", program).eqns)
    return name in _BEFORE or any(map(_chooses, inner))


def _rewritten(program: Any) -> Any:
    """Rewrite a closed program, a program without constants, or a tuple of programs."""
    if isinstance(program, tuple):
        return tuple(map(_rewritten, program))
    if isinstance(program, core.ClosedJaxpr):
        return compared(program)
    return compared(core.ClosedJaxpr(program, [])).jaxpr


def _declared(value: Function, derivative: Function) -> Function:
    @jax.custom_jvp
    def function(*operands: Array) -> Array:
        return value(*operands)

    @function.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        return function(*primals), jax.jvp(derivative, primals, tangents)[1]

    return function


def _choice(name: str, params: dict[str, Any], *operands: Array) -> Array:
    before = _BEFORE[name]

    def of_two(left: Array, right: Array) -> Array:
        return _of_two(before, left, right, left / 2 + right / 2)

    match name:
        case "max" | "min":
            return of_two(*operands)
        case "cummax" | "cummin":  # as JAX has it where it is differentiated
            return lax.associative_scan(of_two, operands[0], **params)
        case "reduce_max" | "reduce_min":
            return _of_all(before, operands[0], params["axes"])
        case _:
            operand, indices, updates = operands
            return _at_indices(name, operand, indices, updates, params)


def _of_two(before: Before, left: Array, right: Array, neither: Array) -> Array:
    return jnp.where(before(left, right), left, jnp.where(before(right, left), right, neither))


def _of_all(before: Before, values: Array, axes: Sequence[int]) -> Array:
    """Choose among all by a tree of choices of two; equal candidates get equal shares.

    Each round halves the axis: entry i meets the entry in the same place of the other half. A
    candidate that ties with another stands for both from then on, and `counts` says for how many.
    """
    counts = jnp.ones_like(values)
    for axis in sorted(axes, reverse=True):
        while (size := values.shape[axis]) > 1:
            x, y = _halves(values, axis)
            n, k = _halves(counts, axis)
            # This is x, because x and y are equal where it is used, and its derivative gives y
            # the share k / (n + k). The difference of two infinities would be NaN.
            shared = x + jnp.where(jnp.isinf(y), 0, y - x) * (k / (n + k))
            chosen = [_of_two(before, x, y, shared)]
            counts_chosen = [jnp.where(before(x, y), n, jnp.where(before(y, x), k, n + k))]
            if size % 2:
                middle = (size // 2, size // 2 + 1)
                chosen.append(lax.slice_in_dim(values, *middle, axis=axis))
                counts_chosen.append(lax.slice_in_dim(counts, *middle, axis=axis))
            values = lax.concatenate(chosen, axis)
            counts = lax.concatenate(counts_chosen, axis)
    return lax.squeeze(values, axes)


def _halves(array: Array, axis: int) -> tuple[Array, Array]:
    """Return both halves of an axis; the middle of an odd number is in neither."""
    size = array.shape[axis]
    left = lax.slice_in_dim(array, 0, size // 2, axis=axis)
    return left, lax.slice_in_dim(array, size - size // 2, size, axis=axis)


def _at_indices(
    name: str, operand: Array, indices: Array, updates: Array, params: dict[str, Any]
) -> Array:
    """Scatter with the derivative that JAX gives at the ranks of the values.

    Ranks are whole numbers, which are never rounded, so that comparing them for equality is safe.
    """
    scatter = lax.scatter_max if name == "scatter-max" else lax.scatter_min
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    wide = jnp.promote_types(operand.dtype, jnp.float32)

    @jax.custom_jvp
    def at(operand: Array, indices: Array, updates: Array) -> Array:
        return scatter(operand, indices, updates, **{name: params[name] for name in names})

    @at.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        operand, indices, updates = primals
        values = jnp.concatenate([operand.ravel(), updates.ravel()])
        ordered, order = lax.sort((values, jnp.arange(values.size)), num_keys=1)
        steps = jnp.append(jnp.zeros(1, bool), ordered[1:] > ordered[:-1])
        ranks = jnp.zeros(values.shape, wide).at[order].set(jnp.cumsum(steps, dtype=wide))
        first, second = jnp.split(ranks, [operand.size])
        _, tangent = jax.jvp(
            lambda operand, updates: at.fun(operand, indices, updates),
            (first.reshape(operand.shape), second.reshape(updates.shape)),
            (tangents[0].astype(wide), tangents[2].astype(wide)),
        )
        return at(*primals), tangent.astype(operand.dtype)

    return at(operand, indices, updates)
