"""What a key alone decides, apart from what else a sample depends on.

The cells of a sweep that share a seed share their random words; only what is made of the
words differs with, say, the density. Splitting a sampler in the two lets a training loop
draw the words of a step for all those cells at once, one step ahead.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
from jax.extend import core
from jaxtyping import Array, Key, PyTree

Draws: TypeAlias = list[Array]


def split(
    sample: Callable[[Key[Array, ""]], PyTree], key: Key[Array, ""]
) -> tuple[Callable[[Key[Array, ""]], Draws], Callable[[Draws], PyTree]]:
    """Factor `sample` into `finish` after `draw`: `finish(draw(key))` is `sample(key)`.

    Args:
        sample: a pure function of a key; may close over traced numbers.
        key: any key of the kind that it will be called with.

    Returns:
        `draw`, every operation on what comes from the key alone, and `finish`, all others.
    """
    traced, shape = jax.make_jaxpr(lambda key: sample(key), return_shape=True)(key)
    # Traced once more, with calls to jitted functions spelled out: `jax.random.bernoulli`,
    # say, takes key and density into one call.
    closed = jax.make_jaxpr(lambda key, captured: _call(traced.jaxpr, captured, [key]))(
        key, traced.consts
    )
    jaxpr = closed.jaxpr
    key_variable, *captured_variables = jaxpr.invars
    constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known = {key_variable, *constants}
    first: list[core.JaxprEqn] = []
    second: list[core.JaxprEqn] = []
    for equation in jaxpr.eqns:
        if {atom for atom in equation.invars if isinstance(atom, core.Var)} <= known:
            first.append(equation)
            known |= set(equation.outvars)
        else:
            second.append(equation)
    # What only rearranges the words is left to the reader of them: a transpose, done while
    # drawing, would make the counters jump and the draw four times slower.
    while first and first[-1].primitive.name in ("broadcast_in_dim", "reshape", "transpose"):
        second.insert(0, first.pop())
        known -= set(second[0].outvars)
    used = [*(atom for equation in second for atom in equation.invars), *jaxpr.outvars]
    cut = list(dict.fromkeys(v for v in used if isinstance(v, core.Var) and v in known))

    def draw(key: Key[Array, ""]) -> Draws:
        return _evaluate(first, {**constants, key_variable: key}, cut)

    def finish(drawn: Draws) -> PyTree:
        captured = zip(captured_variables, traced.consts, strict=True)
        outputs = _evaluate(second, dict([*captured, *zip(cut, drawn, strict=True)]), jaxpr.outvars)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return draw, finish


def _call(jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    values = zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True)
    return _evaluate(jaxpr.eqns, dict(values), jaxpr.outvars)


def _evaluate(
    equations: Sequence[core.JaxprEqn],
    inputs: Mapping[core.Var, Any],
    outputs: Sequence[core.Var | core.Literal],
) -> list[Any]:
    values = dict(inputs)

    def read(atom: core.Var | core.Literal) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in equations:
        operands = [read(atom) for atom in equation.invars]
        if equation.primitive.name in ("jit", "pjit"):
            inner = equation.params["jaxpr"]
            results = _call(inner.jaxpr, inner.consts, operands)
        else:
            params = equation.primitive.get_bind_params(equation.params)
            results = equation.primitive.bind(*operands, **params)
            results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in outputs]
