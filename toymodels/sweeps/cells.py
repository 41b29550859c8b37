"""From a user's cell to one traced program, with every refusal that needs no number to be run.

A cell is called twice: with a key and numbers that are traced, and once more to see that it
does the same again. All later work is on the program that this gives.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
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
from toymodels.sweeps import blocks, failures, grids
from toymodels.sweeps.datasets import FINITE


class Traced(NamedTuple):
    """A cell as a program of arrays.

    Attributes:
        program: of a key and numbers, to the outputs of the cell and values to be checked.
        outputs: name to shape and type of each output of the cell.
        trains: whether it has trained parameters of which `FINITE` can be told.
        postponed: checks of values in it, None here, which are its outputs after the cell's.
    """

    program: core.ClosedJaxpr
    outputs: dict[str, jax.ShapeDtypeStruct]
    trains: bool
    postponed: list[checks.Postponed]

    @property
    def kept(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and type of all that is kept of a cell: its outputs, and `FINITE` if it trains."""
        told = {FINITE: jax.ShapeDtypeStruct((), np.bool_)} if self.trains else {}
        return {**self.outputs, **told}

    @property
    def largest(self) -> int:
        """Bytes of the largest array of one cell; see `blocks.largest_array`."""
        return blocks.largest_array(self.program.jaxpr)

    def __call__(self, key: Any, /, **numbers: Any) -> dict[str, Any]:
        """What the cell returns, flat, and `FINITE` if it trains."""
        arguments = jax.tree.leaves((key, numbers))
        if not self.trains:
            outputs = core.jaxpr_as_fun(self.program)(*arguments)
            return dict(zip(self.outputs, outputs, strict=False))
        outputs, finite = marks.evaluate(self.program, arguments)
        return {**dict(zip(self.outputs, outputs, strict=False)), FINITE: finite}


def check_arguments(cell: blocks.Cell, names: Collection[str]) -> None:
    """The axes and the cell's keyword arguments match one to one."""
    for name in names:
        if not name.isidentifier():
            raise InputError(
                f"axis {name!r} cannot be an argument of a function: give it another name"
            )
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise InputError(f"axis {twice[0]!r} is given twice, in axes or in static: give it once")
    if "seed" in names:
        raise InputError("an axis is named 'seed', the name of the seeds: give it another")
    if not callable(cell):
        raise InputError(f"the cell is {cell!r}: give a function of a key")
    try:
        parameters = list(inspect.signature(cell).parameters.values())
    except ValueError as error:
        raise InputError(f"{error}: give a function of a key, written in Python") from error
    form = f"def cell(key, *, {', '.join(names) or 'density'})"
    if not parameters or parameters[0].kind in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    ):
        raise InputError(f"the cell takes no key: its first argument must be one, {form}")
    first, *parameters = parameters
    if first.kind is not first.VAR_POSITIONAL and first.name in names:
        raise InputError(
            f"the first argument of the cell, {first.name!r}, is given the key and is an axis as "
            "well: give the key an argument of its own, the first one"
        )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in names:
        if name not in known:
            raise InputError(
                f"the cell has no argument {name!r}: it takes {', '.join(known) or 'only a key'}"
            )
    for parameter in parameters:
        needed = parameter.default is parameter.empty and parameter.kind is not first.VAR_POSITIONAL
        if needed and parameter.name not in names:
            raise InputError(
                f"the cell needs {parameter.name!r}: add it to axes or static, or give it a default"
            )


def trace(cell: blocks.Cell, fixed: Mapping[str, Any], numbers: Mapping[str, float]) -> Traced:
    """Trace `cell` with the names of `numbers` open and all in `fixed` as they are.

    The numbers have no type of their own, as plain numbers of Python: where they meet an array
    of 16 bits, say, the result has 16 bits.

    Args:
        cell: a function of a key and numbers.
        fixed: the static arguments.
        numbers: one number for each axis, for a message about what cannot be traced.

    Raises:
        InputError: whatever the cell does that no sweep can run, and its outputs that cannot
            be labelled or kept.
    """
    try:
        traced = _once(cell, fixed, numbers)
    except InputError:
        raise
    except Exception as error:
        reason = failures.explain(error, cell, lambda: _needed(cell, fixed, numbers))
        if reason is None:
            raise
        raise InputError(reason) from error
    again = _once(cell, fixed, numbers)
    if (before := list(traced.outputs)) != (after := list(again.outputs)):
        raise InputError(
            f"the cell is not a pure function: it returns {', '.join(before)}, and "
            f"{', '.join(after)} when called again: return the same names each time"
        )
    different = programs.first_difference(traced.program, again.program)
    if different is not None:
        raise InputError(
            f"{failures.place_of_equation(different, cell)}the cell is not a pure function, for "
            "called again it is another program, as with random numbers of NumPy, the time or a "
            "counter: draw with jax.random from the key, or draw once outside of the cell"
        )
    return traced


def check_numbers(traced: Traced, values: blocks.Values) -> None:
    """Make the postponed checks at every point of the grid, where the key does not matter."""
    jaxpr = traced.program.jaxpr
    places = iter(jaxpr.outvars[len(traced.outputs) :])
    for postponed in traced.postponed:
        wanted = [next(places) for value in postponed.values if value is None]
        known = programs.at_all_points(traced.program, wanted, values)
        if known is not None:
            rest = iter(known)
            postponed.check(*(next(rest) if v is None else v for v in postponed.values))


def constant(traced: Traced, name: str) -> Any:
    """An output that depends neither on the key nor on any number; None for any other."""
    place = list(traced.outputs).index(name)
    known = programs.at_all_points(traced.program, [traced.program.jaxpr.outvars[place]], {})
    return None if known is None else known[0]


def title(cell: blocks.Cell) -> str:
    """The name of the function, with the module that it was imported from."""
    named = inspect.unwrap(cell)
    while isinstance(inner := getattr(named, "func", None), Callable):  # of a partial
        named = inner
    if not (name := getattr(named, "__qualname__", None)):
        named, name = type(named), type(named).__qualname__
    module = getattr(named, "__module__", None) or "__main__"
    parts = [] if module == "__main__" else [module.rpartition(".")[2]]
    return ".".join([*parts, name.replace(".<locals>", "")])


def source(cell: blocks.Cell) -> str:
    """The text of the function, if it is in a file or a notebook."""
    try:
        return inspect.getsource(inspect.unwrap(cell))
    except (OSError, TypeError):  # typed in, or neither function nor method
        return "unknown"


def _once(cell: blocks.Cell, fixed: Mapping[str, Any], names: Iterable[str]) -> Traced:
    named: list[str] = []
    postponed: list[checks.Postponed] = []

    def flat(key: Any, numbers: dict[str, Any]) -> Any:
        with checks.postponed() as found:
            outputs = _named(cell(key, **fixed, **numbers))
        named.extend(outputs)
        traced: list[Any] = []
        for check, values in found:
            mine = [value for value in values if isinstance(value, Tracer)]
            # Of what is traced inside a loop of the cell there is no value here.
            if all(_trace(value) is _trace(key) for value in mine):
                traced += mine
                # Nothing that is traced may outlive its trace.
                known = (None if isinstance(value, Tracer) else value for value in values)
                postponed.append(checks.Postponed(check, tuple(known)))
        return [*outputs.values()], traced

    key = jax.random.key(0, impl="threefry2x32")
    number = jax.ShapeDtypeStruct((), jnp.result_type(float), weak_type=True)
    program, (shapes, _) = jax.make_jaxpr(flat, return_shape=True)(
        key, dict.fromkeys(names, number)
    )
    outputs = dict(zip(named, shapes, strict=True))
    return Traced(program, outputs, marks.any_in(program.jaxpr), postponed)


def _trace(value: Any) -> Any:
    """What a traced value belongs to: the cell itself, or a loop or function inside it."""
    return value._trace


def _needed(cell: blocks.Cell, fixed: Mapping[str, Any], numbers: Mapping[str, float]) -> list[str]:
    """The axes whose plain numbers the cell needs: it fails if they alone are traced."""
    plain = {name: int(x) if float(x).is_integer() else x for name, x in numbers.items()}

    def fails(name: str) -> bool:
        others = {other: number for other, number in plain.items() if other != name}
        try:
            _once(cell, {**fixed, **others}, [name])
        except Exception as error:
            return failures.needs_plain_numbers(error)
        return False

    return [name for name in numbers if fails(name)]


def _named(outputs: Any) -> dict[str, Array]:
    """The arrays that a cell returns; those inside another are named `outer.inner`."""
    if not isinstance(outputs, Mapping):
        kind = "an array" if isinstance(outputs, jax.Array) else f"a {type(outputs).__name__}"
        raise InputError(f"the cell returns {kind}: return a dict of name to array")
    if not outputs:
        raise InputError("the cell returns an empty dict: return name to array")
    named: dict[str, Array] = {}
    for name, output in outputs.items():
        if not isinstance(name, str):
            raise InputError(f"an output of the cell is named {name!r}: give it a name of text")
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
    """An output as numbers of a type that files can hold."""
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
    # bfloat16 and shorter ones: no file format knows them, and a longer type has all their values.
    return array.astype(jnp.float32 if jnp.issubdtype(array.dtype, jnp.floating) else jnp.int8)
