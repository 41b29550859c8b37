"""Evaluation of a traced program with a change to its primitives and inner programs."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
from jax.extend import core

# Takes an equation, its primitive with all parameters, and the operands; returns the outputs.
Bind: TypeAlias = Callable[[core.JaxprEqn, Callable[..., Any], list[Any]], Any]
Change: TypeAlias = Callable[[core.ClosedJaxpr], core.ClosedJaxpr]


def evaluate(
    program: core.ClosedJaxpr, arguments: Sequence[Any], *, bind: Bind, inner: Change
) -> list[Any]:
    """Evaluate a program, equation by equation.

    Args:
        program: a traced program from `jax.make_jaxpr`.
        arguments: one for each input.
        bind: called in place of each primitive.
        inner: applied to the programs of loops, branches and calls.

    Returns:
        The outputs, flat.
    """
    jaxpr = program.jaxpr
    names = [*jaxpr.constvars, *jaxpr.invars]
    values = dict(zip(names, [*program.consts, *arguments], strict=True))

    def read(atom: core.Var | core.Literal) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        params = {name: _changed(value, inner) for name, value in equation.params.items()}
        bound = equation.primitive.get_bind_params(params)
        with equation.ctx.manager:
            outputs = bind(
                equation,
                lambda *operands, e=equation, b=bound: e.primitive.bind(*operands, **b),
                [read(atom) for atom in equation.invars],
            )
        if not equation.primitive.multiple_results:
            outputs = [outputs]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def shape(value: Any) -> jax.ShapeDtypeStruct:
    """Return the shape and the type of an input, which is all that tracing needs."""
    return jax.ShapeDtypeStruct(value.shape, value.dtype, weak_type=value.weak_type)


def _changed(value: Any, inner: Change) -> Any:
    """Apply `inner` to the programs in a parameter of an equation."""
    if isinstance(value, core.ClosedJaxpr):
        return inner(value)
    if isinstance(value, core.Jaxpr):  # of `jax.checkpoint`, which takes no constants
        return inner(core.ClosedJaxpr(value, [])).jaxpr
    if isinstance(value, tuple) and any(map(_is_program, value)):
        programs = [_changed(element, inner) for element in value]
        return type(value)(*programs) if hasattr(value, "_fields") else tuple(programs)
    return value


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
