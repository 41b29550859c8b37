"""The request of a user for a sweep, checked before the cell is called."""

import inspect
import math
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from toymodels import checks
from toymodels.errors import InputError
from toymodels.sweeps import grids
from toymodels.sweeps.program import Cell

_MAX_CELLS = 2**31 - 1  # the limit of a sweep whose results are all in memory
_MAX_WIDTH = 2**20


class Request(NamedTuple):
    """A request for a sweep, after checks of its names and numbers.

    Attributes:
        cell: the function.
        grid: the axes of numbers.
        static_axes: the label and the value of each choice of each static axis.
        seeds: the seeds.
        width: the width that the user gave.
    """

    cell: Cell
    grid: grids.Grid
    static_axes: dict[str, list[tuple[Any, Any]]]
    seeds: Int[np.ndarray, " seeds"]
    width: int | None

    @property
    def num_cells(self) -> int:
        """The number of cells, which are all choices of the static axes, points and seeds."""
        choices = math.prod(map(len, self.static_axes.values()))
        return choices * self.grid.size * len(self.seeds)


def check_request(
    cell: Cell,
    axes: grids.Axes,
    static: grids.Static,
    *,
    num_seeds: int | None,
    seeds: Any,
    width: int | None,
    on_disk: bool,
) -> Request:
    """Check all names and numbers that can be checked without calling the cell.

    The arguments are those of `toymodels.sweep`; `on_disk` says whether it has a folder.
    """
    chosen = _seeds(num_seeds, seeds)
    if width is not None:
        checks.count("width", width, minimum=2)
        if width > _MAX_WIDTH:
            raise InputError(
                f"width is {width}: give at most 2**20, or leave it out for a width that suits "
                "the cell"
            )
    grid = grids.Grid(axes)
    static_axes = {
        name: grids.choices(f"static axis {name!r}", values) for name, values in static.items()
    }
    _check_arguments(cell, [*static_axes, *grid.coords])
    request = Request(cell, grid, static_axes, chosen, width)
    if request.num_cells > _MAX_CELLS and not on_disk:
        raise InputError(
            f"{request.num_cells} cells are too many for the memory: keep them in files with "
            "folder="
        )
    return request


def _seeds(count: int | None, seeds: Any) -> Int[np.ndarray, " seeds"]:
    """Return the seeds of a sweep, from their number or from a list of them."""
    if seeds is None:
        checks.count("num_seeds", 1 if count is None else count)
        if count is not None and count > _MAX_CELLS:
            raise InputError(f"num_seeds is {count}: a sweep has fewer than 2**31 cells")
        return np.arange(1 if count is None else count)
    if count is not None:
        raise InputError("num_seeds and seeds are both given: give one of them")
    if np.ndim(seeds) == 0 and not isinstance(seeds, Iterable):
        raise InputError(
            f"seeds is {seeds!r}: give a list such as [{seeds!r}], or num_seeds={seeds!r} for as "
            "many"
        )
    chosen = [label for label, _ in grids.choices("seeds", seeds)]
    for seed in chosen:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise InputError(f"seeds holds {seed!r}: give whole numbers from 0 to 2**32 - 1")
    return np.asarray(chosen, np.int64)


def _check_arguments(cell: Cell, names: Collection[str]) -> None:
    """Check that the names of the axes and the keyword arguments of the cell match one to one."""
    _check_names(names)
    first, *parameters = _parameters(cell, names)
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


def _check_names(names: Collection[str]) -> None:
    """Check that the names of the axes can be arguments of one function."""
    for name in names:
        if not name.isidentifier():
            raise InputError(
                f"axis {name!r} cannot be an argument of a function: give it another name"
            )
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise InputError(f"axis {twice[0]!r} is given twice, in axes or in static: give it once")
    if "seed" in names:
        raise InputError("an axis is named 'seed', the name of the seeds: give it another")


def _parameters(cell: Cell, names: Collection[str]) -> list[inspect.Parameter]:
    """Return the parameters of the cell, of which the first takes the key."""
    if not callable(cell):
        raise InputError(f"the cell is {cell!r}: give a function of a key")
    try:
        parameters = list(inspect.signature(cell).parameters.values())
    except ValueError as error:
        raise InputError(f"{error}: give a function of a key, written in Python") from error
    if not parameters or parameters[0].kind in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    ):
        form = f"def cell(key, *, {', '.join(names) or 'density'})"
        raise InputError(f"the cell takes no key: its first argument must be one, {form}")
    return parameters
