"""A pure function over labelled axes and seeds, as an `xarray.Dataset`.

A *cell* is a function of a key and a few numbers that returns named arrays. A sweep runs it
at every point of a grid with every seed. The key of seed `s` is `jax.random.key(s)`
wherever the cell stands: cells of one seed share their noise, a refined grid keeps its old
cells, and error bars are over seeds. A cell's numbers are the same to the last bit in every
sweep that holds it (`blocks` says for what).
"""

import inspect
import itertools
import math
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import xarray as xr
from jax.core import Tracer

from toymodels import blocks, datasets, grids
from toymodels.errors import InputError
from toymodels.progress import bar

_NEEDS_PYTHON_NUMBER = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep. What was finished is in `results`; the rest is NaN there."""

    def __init__(self, message: str, results: xr.Dataset):
        """Keep the partial results."""
        super().__init__(message)
        self.results = results


def sweep(
    cell: blocks.Cell,
    *,
    axes: grids.Axes | None = None,
    static: grids.Static | None = None,
    num_seeds: int = 1,
    dims: Mapping[str, Sequence[str]] | None = None,
    units: Mapping[str, str] | None = None,
    width: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run `cell` at every point of a grid, with every seed.

    Args:
        cell: a pure function of a key and numbers by keyword, to a dict of arrays.
        axes: name to numbers; the grid is their product. A tuple of names with tuples of
            numbers is one axis along which several numbers move together, named after the
            first. Compiled once for all numbers, which reach the cell as floats.
        static: name to values that change shapes or structure, compiled one by one: numbers
            or strings, or a dict of label to any object.
        num_seeds: seeds 0, 1, ..., each with the key `jax.random.key(seed)`. A block holds one
            seed, so a grid of fewer points than `width` costs as much as one of `width`.
        dims: output name to the names of its own dimensions. The default is `name_0`, ...;
            required where a static axis changes a shape: shorter ones are padded with NaN.
        units: name of an output or an axis to its unit, kept as an attribute.
        width: lanes per compiled block, at least 2; changes the last bits of all numbers.
        progress: whether to show a bar on standard error.

    Returns:
        One variable per output, with the dimensions: static axes, axes, `seed`, its own. A
        cell with any output that is not finite has diverged: it is NaN in every output, and
        a warning names it.

    Raises:
        ValueError: an axis that is empty, unknown to the cell or not of numbers; outputs
            that are not named arrays of fixed shape; whatever the cell itself refuses.
        SweepInterrupted: on Ctrl-C, after the blocks that were running.
    """
    if isinstance(jnp.zeros(()), Tracer):
        raise InputError("sweep was called inside jit or scan: call it from plain Python")
    if num_seeds < 1:
        raise InputError(f"num_seeds is {num_seeds}: give 1 or more")
    if width is not None and width < 2:
        raise InputError(f"width is {width}: give 2 or more lanes per block")
    width = width or blocks.default_width()
    grid = grids.Grid(axes or {})
    static_axes = {name: grids.choices(name, values) for name, values in (static or {}).items()}
    _check_arguments(cell, [*static_axes, *grid.coords])
    variants = list(itertools.product(*static_axes.values()))
    fixed = [
        {name: value for name, (_, value) in zip(static_axes, variant, strict=True)}
        for variant in variants
    ]
    # All that can be wrong with names and shapes comes to light before the first block runs.
    shapes = [_checked_shapes(cell, numbers, grid) for numbers in fixed]
    taken = [*static_axes, *grid.coords, "seed"]
    own_dims = datasets.own_dims(shapes, dims or {}, taken)
    for name in (units or {}).keys() - own_dims.keys() - grid.coords.keys():
        raise InputError(f"units names {name!r}: the cell returns {', '.join(own_dims)}")
    started = time.perf_counter()
    finished: list[blocks.Finished] = []
    for variant, numbers, outputs in zip(variants, fixed, shapes, strict=True):
        if finished and not finished[-1].done.all():  # interrupted
            finished.append(blocks.nothing(outputs, num_seeds, grid.size))
            continue
        program = _compiled(cell, numbers, grid, width)
        labels = [f"{name}={choice[0]}" for name, choice in zip(static_axes, variant, strict=True)]
        with bar(
            " ".join([_title(cell), *labels]),
            cells=num_seeds * grid.size,
            steps_per_cell=program.steps,
            visible=progress,
        ) as report:
            finished.append(blocks.run(program, range(num_seeds), grid.values, report))
    results = datasets.assemble(finished, grid, static_axes, own_dims)
    for name, unit in (units or {}).items():
        results[name].attrs["units"] = unit
    results.attrs.update(
        provenance(), block_width=width, seconds=round(time.perf_counter() - started, 3)
    )
    done = sum(int(part.done.sum()) for part in finished)
    total = sum(part.done.size for part in finished)
    if done < total:
        raise SweepInterrupted(
            f"interrupted with {done} of {total} cells finished: they are in the `results` of "
            "this exception, the other cells are NaN there",
            results,
        )
    return results


def best_of(results: xr.Dataset, by: str, *, over: str = "seed") -> xr.Dataset:
    """For each cell the member along `over` with the lowest `by`.

    A cell that diverged is never chosen; where all did, the result is NaN.

    Args:
        results: as `sweep` returns them.
        by: a variable that has `over` among its dimensions and no dimension of its own.
        over: the dimension to choose along, usually `seed`.

    Returns:
        `results` without the dimension `over`, whose chosen label is kept as a coordinate.
    """
    if by not in results or over not in results[by].dims:
        candidates = [str(name) for name in results if over in results[name].dims]
        raise InputError(
            f"cannot choose by {by!r} over {over!r}: variables along {over!r} are "
            f"{', '.join(candidates) or 'none'}"
        )
    own = sorted(str(dim) for dim in results[by].dims if dim not in results.coords)
    if own:
        raise InputError(f"{by!r} is not one number per cell: it has dimensions {own}")
    lowest = results[by].fillna(math.inf).argmin(over)
    best = results.isel({over: lowest})
    return best.assign_attrs(selection=f"lowest {by} of {results.sizes[over]} over {over}")


def provenance() -> dict[str, str]:
    """What the last bits of a number depend on, beside the program: software and device."""
    packages = ("toymodels", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "versions": " ".join(f"{name}={metadata.version(name)}" for name in packages),
        "python": platform.python_version(),
        "device": f"{jax.default_backend()} {jax.local_devices()[0].device_kind}",
    }


def _check_arguments(cell: blocks.Cell, names: Sequence[str]) -> None:
    """The axes and the cell's keyword arguments match one to one."""
    if len(set(names)) < len(names):
        raise InputError(f"an axis is both static and not: {', '.join(names)}")
    if "seed" in names:
        raise InputError("an axis is named 'seed', the name of the seeds: give it another")
    _, *parameters = inspect.signature(cell).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for name in names:
        if name not in known:
            raise InputError(
                f"the cell has no argument {name!r}: it takes {', '.join(known) or 'only a key'}"
            )
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in names:
            raise InputError(
                f"the cell needs {parameter.name!r}: add it to axes or static, or give it a default"
            )


def _checked_shapes(
    cell: blocks.Cell, fixed: Mapping[str, Any], grid: grids.Grid
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the outputs, from both ends of every axis.

    The ends are plain numbers, so that the checks inside the cell see them.
    """
    key = jax.random.key(0)
    ends: list[dict[str, jax.ShapeDtypeStruct]] = []
    for numbers in grid.ends():
        outputs = jax.eval_shape(lambda key, n=numbers: cell(key, **fixed, **n), key)
        if not isinstance(outputs, Mapping) or not outputs:
            raise InputError(
                f"the cell returns {type(outputs).__name__}: return a dict of name to array"
            )
        for name, output in outputs.items():
            if not isinstance(output, jax.ShapeDtypeStruct):
                raise InputError(
                    f"output {name!r} of the cell is a {type(output).__name__}: return one array "
                    "per name, such as trained.params['weights']"
                )
            if jnp.issubdtype(output.dtype, jax.dtypes.prng_key):
                raise InputError(f"output {name!r} of the cell is a key: return arrays of numbers")
        ends.append(dict(outputs))
    low, high = ends
    for name in low.keys() | high.keys():
        shapes = [end[name].shape if name in end else "missing" for end in ends]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"output {name!r} has shape {shapes[0]} at one end of the axes and {shapes[1]} at "
                "the other: sweep what changes it with static="
            )
    return low


def _compiled(
    cell: blocks.Cell, fixed: Mapping[str, Any], grid: grids.Grid, width: int
) -> blocks.Program:
    def one(key: Any, **numbers: Any) -> Mapping[str, Any]:
        return cell(key, **fixed, **numbers)

    try:
        return blocks.Program(one, grid.values, width=width)
    except _NEEDS_PYTHON_NUMBER as error:
        low, _ = grid.ends()

        def fails(name: str) -> bool:
            """Whether the cell cannot be traced with this axis alone traced."""
            try:
                jax.eval_shape(
                    lambda key, number: one(key, **{**low, name: number}),
                    jax.random.key(0),
                    jnp.asarray(low[name]),
                )
            except _NEEDS_PYTHON_NUMBER:
                return True
            return False

        names = ", ".join(repr(name) for name in grid.coords if fails(name))
        raise InputError(
            f"the cell needs a plain number for axis {names}, as Optax does for the length of a "
            "schedule: sweep it with static="
        ) from error


def _title(cell: blocks.Cell) -> str:
    try:
        return Path(inspect.getsourcefile(cell) or "sweep").stem
    except TypeError:  # neither function nor method: a partial, say
        return "sweep"
