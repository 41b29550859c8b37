"""Trace a user's cell, and refuse whatever is wrong with it before any block runs.

A cell is called twice with a traced key and traced numbers: once to record its program, and once
more to check that it does the same again. All later work is done on the traced program.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core
from jaxtyping import Array

from toymodels import checks
from toymodels.engine import marks, programs
from toymodels.errors import InputError
from toymodels.sweeps import failures, grids
from toymodels.sweeps.datasets import FINITE
from toymodels.sweeps.program import Cell


class Traced(NamedTuple):
    """A cell as a program of arrays.

    Attributes:
        program: takes a key and numbers; returns the outputs of the cell, and after them the
            values that are to be checked.
        outputs: the shape and type of each output of the cell, by name.
        trains: whether the cell trains parameters, so that there is the output `FINITE`.
        postponed: the checks of those values. None stands where a check takes one of them.
    """

    program: core.ClosedJaxpr
    outputs: dict[str, jax.ShapeDtypeStruct]
    trains: bool
    postponed: list[checks.Postponed]

    @property
    def all_outputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shape and type of the outputs of the cell, and of `FINITE` if the cell trains."""
        finite = {FINITE: jax.ShapeDtypeStruct((), np.bool_)} if self.trains else {}
        return {**self.outputs, **finite}

    def __call__(self, key: Any, /, **numbers: Any) -> dict[str, Any]:
        """Return the outputs of the cell, flat, and `FINITE` if the cell trains."""
        arguments = jax.tree.leaves((key, numbers))
        if not self.trains:
            outputs = core.jaxpr_as_fun(self.program)(*arguments)
            return dict(zip(self.outputs, outputs, strict=False))
        outputs, finite = marks.evaluate(self.program, arguments)
        return {**dict(zip(self.outputs, outputs, strict=False)), FINITE: finite}


def trace(cell: Cell, fixed: Mapping[str, Any], numbers: Mapping[str, float]) -> Traced:
    """Trace `cell` as a function of a key and of one number for each axis.

    The traced numbers are weakly typed, as the plain numbers of Python are: where they meet an
    array of 16 bits, for example, the result has 16 bits.

    Args:
        cell: a function of a key and numbers.
        fixed: the static arguments, which are not traced.
        numbers: one number for each axis, for a message about a cell that cannot be traced.

    Raises:
        InputError: the cell does what no sweep can run, is not a pure function, or returns
            outputs that cannot be labelled or kept.
    """
    try:
        traced = _trace_once(cell, fixed, numbers)
    except InputError:
        raise
    except Exception as error:
        reason = failures.explain(error, cell, lambda: _needed(cell, fixed, numbers))
        if reason is None:
            raise
        raise InputError(reason) from error
    _check_pure(traced, _trace_once(cell, fixed, numbers), cell)
    return traced


def _check_pure(traced: Traced, again: Traced, cell: Cell) -> None:
    """Check that the cell did the same in both traces."""
    if (before := list(traced.outputs)) != (after := list(again.outputs)):
        raise InputError(
            f"the cell is not a pure function: it returns {', '.join(before)}, and "
            f"{', '.join(after)} when called again: return the same names each time"
        )
    different = programs.first_difference(traced.program, again.program)
    if different is not None:
        raise InputError(
            f"{failures.place_of_equation(different, cell)}the cell is not a pure function: when "
            "it is called again it is another program, as with random numbers of NumPy, the time "
            "or a counter: draw with jax.random from the key, or draw once outside of the cell"
        )


def check_numbers(traced: Traced, grid: grids.Grid) -> None:
    """Check the numbers at every point of the grid.

    Checks that were postponed while the cell was traced are made now. A value that depends on
    the key, or on a loop, stays unchecked.
    """
    jaxpr = traced.program.jaxpr
    places = iter(jaxpr.outvars[len(traced.outputs) :])
    for postponed in traced.postponed:
        wanted = [next(places) for value in postponed.values if value is None]
        known = programs.at_all_points(traced.program, wanted, grid.coords, grid.numbers_of)
        if known is None:
            continue
        # Values that depend on a number of the grid have a leading axis of its points.
        at_once = postponed.elementwise or known[0].ndim == wanted[0].aval.ndim
        for values in [known] if at_once else zip(*known, strict=True):
            rest = iter(values)
            postponed.check(*(next(rest) if v is None else v for v in postponed.values))


def constant(traced: Traced, name: str) -> Any:
    """Return the value of an output that is the same in every cell, or None.

    The value is the same if it depends neither on the key nor on any number.
    """
    place = list(traced.outputs).index(name)
    wanted = [traced.program.jaxpr.outvars[place]]
    known = programs.at_all_points(traced.program, wanted, [], lambda _: {})
    return None if known is None else known[0]


def title(cell: Cell) -> str:
    """Return the name of the function, with the module that it was imported from."""
    named = inspect.unwrap(cell)
    while isinstance(inner := getattr(named, "func", None), Callable):  # a functools.partial
        named = inner
    if not (name := getattr(named, "__qualname__", None)):
        named, name = type(named), type(named).__qualname__
    module = getattr(named, "__module__", None) or "__main__"
    parts = [] if module == "__main__" else [module.rpartition(".")[2]]
    return ".".join([*parts, name.replace(".<locals>", "")])


def source(cell: Cell) -> str:
    """Return the source text of the function, or "unknown" if it is in no file or notebook."""
    try:
        return inspect.getsource(inspect.unwrap(cell))
    except (OSError, TypeError):  # it was typed in, or is neither a function nor a method
        return "unknown"


def _trace_once(cell: Cell, fixed: Mapping[str, Any], names: Iterable[str]) -> Traced:
    recorded: list[tuple[list[str], list[checks.Postponed]]] = []

    def flat(key: Any, numbers: dict[str, Any]) -> Any:
        with checks.postponed() as found:
            outputs = _named_arrays(cell(key, **fixed, **numbers))
        values, postponed = _values_to_check(found, key)
        recorded.append(([*outputs], postponed))
        return [*outputs.values()], values

    key = jax.ShapeDtypeStruct((), jax.random.key_dtype("threefry2x32"))
    number = jax.ShapeDtypeStruct((), jnp.result_type(float), weak_type=True)
    numbers = dict.fromkeys(names, number)
    program, (shapes, _) = jax.make_jaxpr(flat, return_shape=True)(key, numbers)
    ((output_names, postponed),) = recorded
    outputs = dict(zip(output_names, shapes, strict=True))
    return Traced(program, outputs, marks.any_in(program.jaxpr), postponed)


def _values_to_check(
    found: Iterable[checks.Postponed], key: Any
) -> tuple[list[Any], list[checks.Postponed]]:
    """Take the traced values out of postponed checks, because none may outlive its trace.

    Checks of values that are traced inside a loop of the cell are dropped: the values are known
    only there.

    Returns:
        The values, and the checks with None in the place of each value.
    """
    values: list[Any] = []
    postponed: list[checks.Postponed] = []
    for check, arguments, elementwise in found:
        traced = [value for value in arguments if isinstance(value, Tracer)]
        if all(_trace(value) is _trace(key) for value in traced):
            values += traced
            known = (None if isinstance(value, Tracer) else value for value in arguments)
            postponed.append(checks.Postponed(check, tuple(known), elementwise))
    return values, postponed


def _trace(value: Any) -> Any:
    """Return the trace of a value: that of the cell itself, or of a loop or function inside it."""
    return value._trace


def _needed(cell: Cell, fixed: Mapping[str, Any], numbers: Mapping[str, float]) -> list[str]:
    """Return the axes whose plain numbers the cell needs.

    Each axis is tried alone: only its number is traced, and that of all others is a plain one.
    """
    plain = {name: int(x) if float(x).is_integer() else x for name, x in numbers.items()}

    def fails(name: str) -> bool:
        others = {other: number for other, number in plain.items() if other != name}
        try:
            _trace_once(cell, {**fixed, **others}, [name])
        except Exception as error:
            return failures.needs_plain_numbers(error)
        return False

    return [name for name in numbers if fails(name)]


def _named_arrays(outputs: Any) -> dict[str, Array]:
    """Return the arrays that a cell returns; an array inside another output is `outer.inner`."""
    if not isinstance(outputs, Mapping):
        kind = "an array" if isinstance(outputs, jax.Array) else f"a {type(outputs).__name__}"
        raise InputError(f"the cell returns {kind}: return a dict of name to array")
    if not outputs:
        raise InputError("the cell returns an empty dict: return name to array")
    named: dict[str, Array] = {}
    for name, output in outputs.items():
        if not isinstance(name, str):
            raise InputError(
                f"an output of the cell is named {name!r}: give it a name that is text"
            )
        leaves = jax.tree_util.tree_leaves_with_path(output)
        if not leaves:
            raise InputError(f"output {name!r} of the cell is {output!r}: return arrays of numbers")
        for path, leaf in leaves:
            steps = [jax.tree_util.keystr((step,), simple=True) for step in path]
            if any("." in step for step in steps):
                raise InputError(
                    f"output {name!r} has the name {steps!r} inside it: points stand between the "
                    "names of nested outputs, so give it one without"
                )
            full = ".".join([name, *steps])
            if full in named:
                raise InputError(f"two outputs are named {full!r}: rename one of them")
            named[full] = _array(full, leaf)
    return named


def _array(name: str, leaf: Any) -> Array:
    """Convert an output to an array of a type that files can hold."""
    if "/" in name or not name.strip(". ") or not grids.is_text(name) or name == FINITE:
        raise InputError(f"output {name!r} cannot be saved under that name: give it another")
    try:
        array = jnp.asarray(leaf)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"output {name!r} of the cell is a {type(leaf).__name__}: return arrays of numbers"
        ) from error
    if jnp.issubdtype(array.dtype, jax.dtypes.extended):
        raise InputError(f"output {name!r} of the cell is a key: return arrays of numbers")
    if array.dtype.kind in "biufc":
        return array
    # No file format knows bfloat16 and shorter types; these longer types hold all their values.
    return array.astype(jnp.float32 if jnp.issubdtype(array.dtype, jnp.floating) else jnp.int8)
