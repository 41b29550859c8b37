"""A pure function over labelled axes and seeds, as an `xarray.Dataset`.

A *cell* is a function of a key and a few numbers that returns named arrays. A sweep runs it
at every point of a grid with every seed. The key of seed `s` is `jax.random.key(s)`
wherever the cell stands: cells of one seed share their noise, a refined grid keeps its old
cells, and error bars are over seeds. A cell's numbers are the same to the last bit in every
sweep that holds it (`blocks` says for what).
"""

import contextlib
import inspect
import itertools
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.core import Tracer
from jaxtyping import Int

from toymodels import blocks, checks, datasets, grids, rows
from toymodels.errors import InputError
from toymodels.progress import bar
from toymodels.store import Store, StoreError

_NEEDS_PYTHON_NUMBER = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep. What was finished is in `results`; the rest is NaN there."""

    def __init__(self, message: str, results: xr.Dataset):
        """Keep the partial results."""
        super().__init__(message)
        self.results = results


class SweepError(RuntimeError):
    """A block failed, or could not be stored. What was finished is in `results`, as above."""

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
    store: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
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
        num_seeds: seeds 0, 1, ..., each with the key `jax.random.key(seed)`.
        dims: output name to the names of its own dimensions. The default is `name_0`, ...;
            required where a static axis changes a shape: shorter ones are padded with NaN.
        units: name of an output or an axis to its unit, kept as an attribute.
        width: cells per compiled block, at least 2; another width may change the last bits of
            all numbers. The default depends on the size of the cell and the kind of device.
        store: a file that keeps finished cells, made if missing. Cells that are in it are not
            run again: after a crash, on a larger grid, with more seeds. Cells of another
            program, width, processor or version stay in it and are not used; a warning says
            what changed.
        executor: any `concurrent.futures.Executor` of workers that can import toymodels, on
            this machine or others; they need not see the file of the cell. The default is
            all cores, or all devices, of this process.
        progress: whether to show a bar on standard error.

    Returns:
        One variable per output, with the dimensions: static axes, axes, `seed`, its own. A
        cell with any output that is not finite has diverged: it is NaN in every output, and
        a warning names it.

    Raises:
        ValueError: an axis that is empty, unknown to the cell or not of numbers; outputs
            that are not named arrays of fixed shape; whatever the cell itself refuses.
        SweepInterrupted: on Ctrl-C, after the blocks that were running.
        SweepError: a block failed (out of memory, a worker died) or could not be stored.
    """
    if isinstance(jnp.zeros(()), Tracer):
        raise InputError("sweep was called inside jit or scan: call it from plain Python")
    if isinstance(cell, jax.stages.Wrapped):  # of tm.jit; a sweep compiles by itself
        cell = inspect.unwrap(cell)
    checks.count("num_seeds", num_seeds)
    if width is not None:
        checks.count("width", width, least=2)
    grid = grids.Grid(axes or {})
    static_axes = {name: grids.choices(name, values) for name, values in (static or {}).items()}
    _check_arguments(cell, [*static_axes, *grid.coords])
    variants = list(itertools.product(*static_axes.values()))
    fixed = [
        {name: value for name, (_, value) in zip(static_axes, variant, strict=True)}
        for variant in variants
    ]
    # All that can be wrong with names and shapes comes to light before the first block runs.
    checked = [_checked(cell, numbers, grid) for numbers in fixed]
    for numbers in fixed:
        _check_traceable(cell, numbers, grid)
    shapes = [outputs for outputs, _ in checked]
    taken = [*static_axes, *grid.coords, "seed"]
    own_dims = datasets.own_dims(shapes, dims or {}, taken)
    for name in (units or {}).keys() - own_dims.keys() - grid.coords.keys():
        raise InputError(f"units names {name!r}: the cell returns {', '.join(own_dims)}")
    seeds = np.repeat(np.arange(num_seeds), grid.size)
    values = {name: np.tile(numbers, num_seeds) for name, numbers in grid.values.items()}
    started = time.perf_counter()
    finished = [datasets.nothing(outputs, len(seeds)) for outputs in shapes]
    widths = [width or blocks.default_width(largest) for _, largest in checked]
    programs: list[str] = []
    failure: BaseException | None = None
    with Store(store) if store is not None else contextlib.nullcontext() as opened:
        try:
            for variant, numbers, lanes, part in zip(
                variants, fixed, widths, finished, strict=True
            ):
                program = _compiled(cell, numbers, grid, lanes)
                programs.append((program.identity or {}).get("program", "calls back to Python"))
                labels = zip(static_axes, (label for label, _ in variant), strict=True)
                title = " ".join([_title(cell), *(f"{name}={label}" for name, label in labels)])
                _finish(program, title, seeds, values, part, opened, executor, progress)
        except (KeyboardInterrupt, InputError, blocks.BlockError, StoreError) as error:
            # A store whose file is made read-only meanwhile, say, must not cost what has run.
            if isinstance(error, InputError) and not any(part.done.any() for part in finished):
                raise
            failure = error
    results = datasets.assemble(finished, num_seeds, grid, static_axes, own_dims)
    for name, unit in (units or {}).items():
        results[name].attrs["units"] = unit
    results.attrs.update(
        blocks.environment(),
        python=platform.python_version(),
        program=" ".join(programs),
        block_width=widths[0] if len(set(widths)) == 1 else widths,
        source=_source(cell),
        seconds=round(time.perf_counter() - started, 3),
    )
    if failure is None:
        return results
    done = sum(int(part.done.sum()) for part in finished)
    message = (
        f"{done} of {len(seeds) * len(finished)} cells finished: they are in the `results` of this "
        "exception, the others are NaN there"
    )
    if store is not None:
        message += f"; run the same sweep again to go on with those that are in {store}"
    if isinstance(failure, KeyboardInterrupt):
        raise SweepInterrupted(f"interrupted; {message}", results) from failure
    raise SweepError(f"{failure}; {message}", results) from failure


def best_of(results: xr.Dataset, by: str, *, over: str = "seed") -> xr.Dataset:
    """For each cell the member along `over` with the lowest `by`.

    A cell that diverged is never chosen; where all did, the result is NaN. Choose by a loss that
    is exact or on examples common to all members, as that of `train` is: of independent estimates
    the lowest is the luckiest, and lies below the true loss of any.

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


def _finish(
    program: blocks.Program,
    title: str,
    seeds: Int[np.ndarray, " cells"],
    values: blocks.Values,
    part: datasets.Finished,
    store: Store | None,
    executor: Executor | None,
    progress: bool,
) -> None:
    """Fill `part`: from the store where it has a cell, else by running it."""
    keep = None if store is None else _kept(store, program, title, seeds, values, part)
    (missing,) = np.nonzero(~part.done)
    if not len(missing):
        return
    with bar(title, cells=len(missing), steps_per_cell=program.steps, visible=progress) as report:

        def deliver(start: int, stop: int, outputs: blocks.Arrays) -> None:
            cells = missing[start:stop]
            for name, output in outputs.items():
                part.outputs[name][cells] = output
            part.done[cells] = True
            if keep is not None:
                keep(cells)
            report(stop - start)

        lanes = {name: numbers[missing] for name, numbers in values.items()}
        blocks.run(program, seeds[missing], lanes, deliver, executor=executor)


def _kept(
    store: Store,
    program: blocks.Program,
    title: str,
    seeds: Int[np.ndarray, " cells"],
    values: blocks.Values,
    part: datasets.Finished,
) -> Callable[[Int[np.ndarray, " cells"]], None]:
    """Fill `part` with what is stored; a function that stores some of its cells."""
    if program.identity is None:
        raise InputError(
            "the cell calls back to Python (jax.debug.print?), so that its numbers could depend "
            "on anything: take that out, or sweep without store="
        )
    layout = np.dtype([(n, o.dtype, o.shape) for n, o in program.outputs.items()])
    identity = rows.Program.of(program.identity, title=title, axes=[*values], layout=layout)
    points = np.stack([*values.values()], -1) if values else np.zeros((len(seeds), 0))
    if difference := store.differences(identity):
        changes = "; ".join(
            f"{name} was {before}, is {now}" for name, (before, now) in difference.changed.items()
        )
        warnings.warn(
            f"{store.path} holds {difference.cells} cells of {title!r} that are kept and not used, "
            f"for something changed: {changes}",
            stacklevel=4,
        )
    part.done[:], records = store.read(identity, seeds, points)
    for name, output in part.outputs.items():
        output[part.done] = records[name][part.done]

    def keep(cells: Int[np.ndarray, " cells"]) -> None:
        records = np.zeros(len(cells), layout)
        for name, output in part.outputs.items():
            records[name] = output[cells]
        store.write(identity, seeds[cells], points[cells], records)

    return keep


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


def _checked(
    cell: blocks.Cell, fixed: Mapping[str, Any], grid: grids.Grid
) -> tuple[dict[str, jax.ShapeDtypeStruct], int]:
    """Shapes of the outputs, from both ends of every axis; bytes of the largest array of a cell.

    The ends are plain numbers, so that the checks inside the cell see them.
    """
    key = jax.random.key(0)
    ends: list[dict[str, jax.ShapeDtypeStruct]] = []
    largest = 0
    for numbers in grid.ends():
        with np.errstate(all="ignore"):  # 1 / a, say, where an axis starts at 0
            traced, outputs = jax.make_jaxpr(
                lambda key, n=numbers: cell(key, **fixed, **n), return_shape=True
            )(key)
        largest = max(largest, blocks.largest_array(traced.jaxpr))
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
    return low, largest


def _check_traceable(cell: blocks.Cell, fixed: Mapping[str, Any], grid: grids.Grid) -> None:
    """The cell takes arrays in place of the numbers of every axis."""
    low, _ = grid.ends()

    def fails(names: Iterable[str]) -> bool:
        """Whether the cell cannot be traced with these axes traced."""
        traced = {name: jnp.asarray(low[name]) for name in names}
        try:
            jax.eval_shape(
                lambda key, numbers: cell(key, **fixed, **{**low, **numbers}),
                jax.random.key(0),
                traced,
            )
        except _NEEDS_PYTHON_NUMBER:
            return True
        return False

    if fails(low):
        names = ", ".join(repr(name) for name in low if fails([name]))
        raise InputError(
            f"the cell needs a plain number for axis {names}, as Optax does for the length of a "
            "schedule: sweep it with static="
        )


def _compiled(
    cell: blocks.Cell, fixed: Mapping[str, Any], grid: grids.Grid, width: int
) -> blocks.Program:
    def one(key: Any, **numbers: Any) -> Mapping[str, Any]:
        return cell(key, **fixed, **numbers)

    try:
        return blocks.Program(one, grid.values, width=width)
    except jax.errors.JaxRuntimeError as error:
        raise blocks.BlockError(f"a block of {width} cells cannot be compiled: {error}") from error


def _title(cell: blocks.Cell) -> str:
    try:
        return Path(inspect.getsourcefile(cell) or "sweep").stem
    except TypeError:  # neither function nor method: a partial, say
        return "sweep"


def _source(cell: blocks.Cell) -> str:
    try:
        return inspect.getsource(cell)
    except (OSError, TypeError):  # typed in, or neither function nor method
        return "unknown"
