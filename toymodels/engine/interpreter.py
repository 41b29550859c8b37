"""Evaluation of a traced program with a change to its primitives and inner programs."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
from jax.extend import core

# Takes an equation, its primitive with all parameters, and the operands; returns the outputs.
Bind: TypeAlias = Callable[[core.JaxprEqn, Callable[..., Any], list[Any]], Any]
Step: TypeAlias = Callable[[core.JaxprEqn, list[Any]], Sequence[Any]]
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

    def step(equation: core.JaxprEqn, operands: list[Any]) -> Sequence[Any]:
        primitive = equation.primitive
        params = {name: _changed(value, inner) for name, value in equation.params.items()}
        bound = functools.partial(primitive.bind, **primitive.get_bind_params(params))
        with equation.ctx.manager:
            outputs = bind(equation, bound, operands)
        return outputs if primitive.multiple_results else [outputs]

    jaxpr = program.jaxpr
    inputs = zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *arguments], strict=True)
    return walk(jaxpr.eqns, dict(inputs), jaxpr.outvars, step)


def walk(
    equations: Iterable[core.JaxprEqn],
    values: Mapping[core.Var, Any],
    outputs: Sequence[core.Var | core.Literal],
    step: Step,
    literal: Callable[[Any], Any] = lambda value: value,
) -> list[Any]:
    """Evaluate equations in order and return the values of `outputs`.

    Args:
        equations: equations of a traced program.
        values: the values of all variables that the equations take from outside.
        outputs: variables or literals.
        step: takes an equation and its operands, and returns its outputs as a sequence.
        literal: makes an operand of the number of a literal.
    """
    known = dict(values)
    for equation in equations:
        results = step(equation, _read(equation.invars, known, literal))
        known.update(zip(equation.outvars, results, strict=True))
    return _read(outputs, known, literal)


def _read(
    atoms: Iterable[core.Var | core.Literal],
    known: Mapping[core.Var, Any],
    literal: Callable[[Any], Any],
) -> list[Any]:
    """Return the values of variables and literals."""
    return [literal(atom.val) if isinstance(atom, core.Literal) else known[atom] for atom in atoms]


def bind(equation: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
    """Call the primitive of an equation and return its outputs as a sequence."""
    primitive = equation.primitive
    outputs = primitive.bind(*operands, **primitive.get_bind_params(equation.params))
    return outputs if primitive.multiple_results else [outputs]


def shape(value: Any) -> jax.ShapeDtypeStruct:
    """Return the shape and the type of an input, which is all that tracing needs."""
    return jax.ShapeDtypeStruct(value.shape, value.dtype, weak_type=value.weak_type)


def _changed(value: Any, inner: Change) -> Any:
    """Apply `inner` to the programs in a parameter of an equation."""
    if isinstance(value, core.ClosedJaxpr):
        return inner(value)
    if isinstance(value, core.Jaxpr):  # `jax.checkpoint` holds one, without constants
        return inner(core.ClosedJaxpr(value, [])).jaxpr
    if isinstance(value, tuple) and any(map(_is_program, value)):
        programs = [_changed(element, inner) for element in value]
        return type(value)(*programs) if hasattr(value, "_fields") else tuple(programs)
    return value


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
