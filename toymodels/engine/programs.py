"""Questions about traced programs: the value of a variable, and whether two are equal."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core
from numpy.typing import NDArray

from toymodels.engine.decompositions import one_at_a_time


def at_all_points(
    program: core.ClosedJaxpr,
    wanted: Sequence[Any],
    names: Collection[str],
    numbers_of: Callable[[Collection[str]], Mapping[str, NDArray[Any]]],
) -> list[Any] | None:
    """Return values in a traced program at every point; None if they need the key or a loop.

    A loop could be the work of the cell itself, which is not to be done twice.

    Args:
        program: of a key and of numbers in the order of their names.
        wanted: variables of it.
        names: the names of the numbers; fewer than all if the others do not matter.
        numbers_of: takes some of the names and returns the numbers of each at every point.

    Returns:
        Each variable's values on a new leading axis, once for all points that it cannot tell
        apart; without that axis if it depends on no number.
    """
    jaxpr = program.jaxpr
    needed = {atom for atom in wanted if isinstance(atom, core.Var)}
    equations: list[core.JaxprEqn] = []
    for equation in reversed(jaxpr.eqns):
        if not needed.isdisjoint(equation.outvars):
            if _has_loop(equation):
                return None
            equations.insert(0, equation)
            needed.update(atom for atom in equation.invars if isinstance(atom, core.Var))
    arguments = dict(zip(jaxpr.invars[1:], sorted(names), strict=False))
    if not needed.isdisjoint(set(jaxpr.invars) - arguments.keys()):
        return None
    constants = dict(zip(jaxpr.constvars, program.consts, strict=True))
    used = {variable: name for variable, name in arguments.items() if variable in needed}

    def at(point: dict[Any, Any]) -> list[Any]:
        known = {**constants, **point}

        def read(atom: Any) -> Any:
            return jnp.asarray(atom.val if isinstance(atom, core.Literal) else known[atom])

        for equation in equations:
            bind = equation.primitive.bind
            parameters = equation.primitive.get_bind_params(equation.params)
            outputs = bind(*map(read, equation.invars), **parameters)
            outputs = outputs if equation.primitive.multiple_results else [outputs]
            known.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in wanted]

    if not used:
        return [np.asarray(value) for value in at({})]
    columns = numbers_of([*used.values()])
    points = np.unique(np.stack([columns[name] for name in used.values()], -1), axis=0)
    arrays = [np.asarray(column, jnp.result_type(float)) for column in points.T]
    evaluate = jax.vmap(lambda *point: at(dict(zip(used, point, strict=True))))
    if not equations:
        return [np.asarray(value) for value in evaluate(*arrays)]
    return [np.asarray(value) for value in jax.jit(one_at_a_time(evaluate))(*arrays)]


def _has_loop(equation: core.JaxprEqn) -> bool:
    inner = core.jaxprs_in_params(equation.params)
    return equation.primitive.name in ("scan", "while") or any(
        _has_loop(eqn) for sub in inner for eqn in sub.eqns
    )


def largest_array(jaxpr: core.Jaxpr) -> int:
    """Return the bytes of the largest array of a traced program.

    If the program has loops, only arrays inside the loops count. Arrays that a loop reads from
    step by step, such as the numbers of the steps, do not count.
    """
    loops = [
        inner
        for equation in jaxpr.eqns
        for inner in core.jaxprs_in_params(equation.params)
        if equation.primitive.name in ("scan", "while")
    ]
    return max(map(_largest, loops or [jaxpr]))


def _largest(jaxpr: core.Jaxpr) -> int:
    outputs = [_size(variable.aval) for equation in jaxpr.eqns for variable in equation.outvars]
    inner = [
        _largest(inner)
        for equation in jaxpr.eqns
        for inner in core.jaxprs_in_params(equation.params)
    ]
    return max([0, *outputs, *inner])


def _size(array: Any) -> int:
    """The bytes of an array; 0 for a value that is no array, such as a token."""
    return getattr(array, "size", 0) * getattr(getattr(array, "dtype", None), "itemsize", 0)


def longest_loop(jaxpr: core.Jaxpr) -> int:
    """Return the iterations of the longest `scan` of a traced program; 1 if there is none.

    Loops inside a loop do not count.
    """
    lengths = [1]
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            lengths.append(equation.params["length"])
        else:
            lengths += map(longest_loop, core.jaxprs_in_params(equation.params))
    return max(lengths)


def first_difference(left: core.ClosedJaxpr, right: core.ClosedJaxpr) -> Any:
    """Return the first equation in which two programs differ, or None if they are equal."""
    pairs = itertools.zip_longest(_tokens(left), _tokens(right), fillvalue=(None, None))
    for (equation, token), (other, other_token) in pairs:
        if token != other_token:
            return equation if equation is not None else other
    return None


def _tokens(program: core.ClosedJaxpr) -> Iterator[tuple[Any, Any]]:
    """Yield each equation of a program and of its inner programs, with all that decides numbers.

    Functions that a program holds, such as rules for `vmap`, are left out: each tracing makes
    new ones.
    """
    jaxpr = program.jaxpr
    numbered: dict[Any, int] = {}
    users = {atom: equation for equation in jaxpr.eqns[::-1] for atom in _variables(equation)}
    for variable, const in zip(jaxpr.constvars, program.consts, strict=True):
        numbered[variable] = len(numbered)
        yield users.get(variable, jaxpr.eqns[0] if jaxpr.eqns else None), _bytes(const)
    for variable in jaxpr.invars:
        numbered[variable] = len(numbered)
    for equation in jaxpr.eqns:
        inputs = tuple(_name(atom, numbered) for atom in equation.invars)
        outputs = tuple((_name(v, numbered), v.aval) for v in equation.outvars)
        inner: list[core.ClosedJaxpr] = []
        parameters = tuple((k, _parameter(v, inner)) for k, v in sorted(equation.params.items()))
        yield equation, (equation.primitive.name, inputs, outputs, parameters)
        for sub in inner:
            yield from ((equation, token) for _, token in _tokens(sub))
    last = jaxpr.eqns[-1] if jaxpr.eqns else None
    yield last, tuple(_name(atom, numbered) for atom in jaxpr.outvars)


def _name(atom: Any, numbered: dict[Any, int]) -> Any:
    """Return the number of a variable, which is the next one if it has none, or a literal."""
    if isinstance(atom, core.Literal):
        return atom.aval, _bytes(atom.val)
    return numbered.setdefault(atom, len(numbered))


def _parameter(value: Any, inner: list[core.ClosedJaxpr]) -> Any:
    """Return a parameter of an equation in a comparable form; programs go to `inner`."""
    if isinstance(value, core.ClosedJaxpr):
        inner.append(value)
    elif isinstance(value, core.Jaxpr):
        inner.append(core.ClosedJaxpr(value, [None] * len(value.constvars)))
    elif isinstance(value, tuple | list):
        return tuple(_parameter(part, inner) for part in value)
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        return _bytes(value)
    elif isinstance(value, bool | int | float | complex | str | None):
        return repr(value)
    return type(value).__name__


def _bytes(value: Any) -> Any:
    if value is None or isinstance(value, Tracer):
        return None
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    return array.dtype.str, array.shape, array.tobytes()


def _variables(equation: core.JaxprEqn) -> list[Any]:
    return [atom for atom in equation.invars if isinstance(atom, core.Var)]
