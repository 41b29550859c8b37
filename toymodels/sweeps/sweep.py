"""`sweep`: run one function of a key and numbers over labelled axes and seeds."""

import contextlib
import inspect
import itertools
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.core import Tracer
from jaxtyping import Int

from toymodels.engine import programs
from toymodels.engine.compiling import environment
from toymodels.errors import InputError
from toymodels.sweeps import blocks, cells, datasets, grids, layouts
from toymodels.sweeps.program import Arrays, Cell, Numbers, Program, compile_program, default_width
from toymodels.sweeps.progress import Report, bar
from toymodels.sweeps.requests import Request, check_request
from toymodels.sweeps.store.store import Store
from toymodels.sweeps.stored import StoredCells


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped a sweep.

    Attributes:
        results: the results as `sweep` returns them. Cells that did not finish are NaN.
    """

    def __init__(self, message: str, results: xr.Dataset):
        """Keep the partial results."""
        super().__init__(message)
        self.results = results

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the exception travel between processes with its results."""
        return type(self), (str(self), self.results)


class SweepError(RuntimeError):
    """A block of a sweep failed, or its outputs could not be stored.

    Attributes:
        results: the results as `sweep` returns them. Cells that did not finish are NaN.
    """

    def __init__(self, message: str, results: xr.Dataset):
        """Keep the partial results."""
        super().__init__(message)
        self.results = results

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the exception travel between processes with its results."""
        return type(self), (str(self), self.results)


def sweep(
    cell: Cell,
    *,
    axes: grids.Axes | None = None,
    static: grids.Static | None = None,
    num_seeds: int | None = None,
    seeds: Iterable[int] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    units: Mapping[str, str] | None = None,
    width: int | None = None,
    store: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run `cell` at every point of a grid, with every seed, and label the outputs.

    The key of seed $s$ is `jax.random.key(s, impl="threefry2x32")`, which is
    `jax.random.key(s)` unless JAX was told to use another generator. So cells of one seed share
    their random numbers, a refined grid keeps the outputs of the old cells, and error bars are
    taken over seeds. The outputs of a cell are equal to the last bit in every sweep that holds
    the cell; `toymodels.sweeps.program` says on which conditions.

    Args:
        cell: a pure function of a key and of numbers by keyword. It returns a dict of arrays, or
            of nested dicts and tuples of arrays, such as trained parameters. It is called twice,
            with traced numbers, and must do the same both times.
        axes: the numbers of each axis, by the name of the argument of the cell. The grid is the
            product of the axes. A tuple of names with a list of tuples of numbers is one axis,
            along which several numbers move together; its first name names the axis. The cell is
            compiled once for all numbers. It receives floats that take the precision of the
            arrays that they meet.
        static: the values of each static axis, by the name of the argument. Give here what
            changes shapes or structure: numbers, text, or a dict of label to any object. The
            cell is compiled once for each combination.
        num_seeds: how many seeds there are: 0, 1, ... The default is one.
        seeds: the seeds themselves, such as `[3, 7]`, instead of `num_seeds`. A cell gives the
            same outputs under either.
        dims: the names of the dimensions of each output, by the name of the output. The default
            is `name_0`, `name_1`, ... Names are required where a static axis changes the shape of
            an output; shorter outputs are padded with NaN. An output that has the name of a
            dimension of other outputs, and the same value in every cell, becomes its coordinate.
        units: the unit of an output or an axis, by its name. It is kept as an attribute.
        width: how many cells a compiled block holds, from 2 to 2**20. Another width may change
            the last bits of all outputs. The default depends on the size of the cell and on the
            kind of device. A block that is not full takes as long as a full one.
        store: a file that keeps finished cells; it is made if it does not exist. Cells that it
            holds are not run again: after a crash, on a larger grid, or with more seeds. Cells of
            another program, width, processor or version stay in the file and are not used; a
            warning says what changed.
        executor: a `concurrent.futures.Executor` that runs the blocks, on this machine or on
            others. Its workers must be able to import toymodels; they do not need the file of
            the cell. The default is all cores, or all devices, of this process.
        progress: whether to show on standard error what is being done.

    Returns:
        A dataset with one variable for each output. Its dimensions are the static axes, the
        axes, `seed`, and the dimensions of the output. An array inside a nested output is a
        variable `output.name`; `toymodels.params` puts such arrays together again. A padded
        dimension has its true lengths in the coordinate `<dimension>_size`.

        A cell diverged if it trained parameters (with `train`, `fit` or `fit_autoencoder`) that
        are not finite. All its outputs are then NaN, and a warning names it. The outputs of
        other cells are kept as they are; if some are not finite, a warning counts them. If the
        cell trains in another way, its parameters are unknown to the sweep; it then counts as
        diverged if any output is not finite.

    Raises:
        InputError: an axis is empty, is unknown to the cell or does not hold numbers; the outputs
            are not named arrays of fixed shape; or the cell itself refuses its numbers.
        SweepInterrupted: the user pressed Ctrl-C. The blocks that were running were finished.
        SweepError: a block failed (out of memory, a worker died) or could not be stored.
    """
    if isinstance(jnp.zeros(()), Tracer):
        raise InputError("sweep was called inside jit or scan: call it from plain Python")
    if not isinstance(executor, Executor | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"executor is {executor!r}: give a concurrent.futures.Executor")
    if isinstance(cell, jax.stages.Wrapped):  # made by tm.jit; a sweep compiles the cell itself
        cell = inspect.unwrap(cell)
    request = check_request(
        cell, axes or {}, static or {}, num_seeds=num_seeds, seeds=seeds, width=width
    )
    started = time.perf_counter()
    with bar(visible=progress) as report, contextlib.ExitStack() as stack:
        report.stage(f"{cells.title(cell)}: tracing")
        variants, layout = _trace(request, dims or {}, units or {})
        opened = stack.enter_context(Store(store)) if store is not None else None
        hashes, failure = _run_variants(variants, request, opened, executor, report)
    outputs = [variant.outputs for variant in variants]
    results = datasets.assemble(
        outputs, request.seeds.tolist(), request.grid, request.static_axes, layout
    )
    for name, unit in (units or {}).items():
        results[name].attrs["units"] = unit
    widths = [variant.width for variant in variants]
    results.attrs.update(
        environment(),
        python=platform.python_version(),
        program=" ".join(hashes),
        block_width=widths[0] if len(set(widths)) == 1 else widths,
        source=cells.source(cell),
        seconds=round(time.perf_counter() - started, 3),
    )
    if failure is not None:
        raise _stopped(failure, results, outputs, store) from failure
    return results


class _Variant(NamedTuple):
    """The cell for one combination of the static axes.

    Attributes:
        title: the name of the cell and the labels of the combination.
        traced: the cell as a traced program.
        width: how many cells a block holds.
        outputs: the outputs of all cells, filled in as they finish.
    """

    title: str
    traced: cells.Traced
    width: int
    outputs: datasets.Outputs


def _trace(
    request: Request, dims: Mapping[str, Sequence[str]], units: Mapping[str, str]
) -> tuple[list[_Variant], layouts.Layout]:
    """Trace the cell for each combination of the static axes, and check its outputs.

    After this, nothing can be wrong with names or numbers: all mistakes in them come to light
    before a block runs.
    """
    cell, grid, static_axes, seeds, width = request
    first = {name: numbers[0] for name, (_, numbers) in grid.coords.items()}
    combinations = list(itertools.product(*static_axes.values()))
    traced: list[cells.Traced] = []
    for combination in combinations:
        fixed = {n: value for n, (_, value) in zip(static_axes, combination, strict=True)}
        traced.append(cells.trace(cell, fixed, first))
    layout = layouts.layout(
        [each.outputs for each in traced],
        dims,
        [*static_axes, *grid.coords, "seed"],
        lambda variant, name: cells.constant(traced[variant], name),
    )
    for name in units.keys() - layout.dims.keys() - grid.coords.keys():
        raise InputError(f"units names {name!r}: the cell returns {', '.join(layout.dims)}")
    variants: list[_Variant] = []
    for each, combination in zip(traced, combinations, strict=True):
        cells.check_numbers(each, grid.numbers)
        labels = [f"{n}={label}" for n, (label, _) in zip(static_axes, combination, strict=True)]
        fitting = width or default_width(programs.largest_array(each.program.jaxpr))
        outputs = datasets.empty_outputs(each.all_outputs, len(seeds) * grid.size)
        variants.append(_Variant(" ".join([cells.title(cell), *labels]), each, fitting, outputs))
    return variants, layout


def _run_variants(
    variants: Sequence[_Variant],
    request: Request,
    store: Store | None,
    executor: Executor | None,
    report: Report,
) -> tuple[list[str], BaseException | None]:
    """Compile and run each variant.

    Returns:
        The hash of each program that was compiled, and the error that stopped the sweep, if any.
    """
    grid = request.grid
    seeds = np.repeat(request.seeds, grid.size)
    numbers = {name: np.tile(column, len(request.seeds)) for name, column in grid.numbers.items()}
    hashes: list[str] = []
    try:
        for variant in variants:
            report.stage(f"{variant.title}: compiling")
            program = _compile(variant, numbers)
            hashes.append((program.provenance or {}).get("program", "calls back to Python"))
            _run(program, variant, seeds, numbers, store, executor, report)
    except (KeyboardInterrupt, Exception) as error:
        # An error such as a store that has become read-only, or a later variant that cannot be
        # compiled, must not cost the cells that have finished.
        expected = isinstance(error, KeyboardInterrupt | blocks.BlockError | OSError)
        if not expected and not any(variant.outputs.finished.any() for variant in variants):
            raise
        return hashes, error
    return hashes, None


def _compile(variant: _Variant, numbers: Numbers) -> Program:
    try:
        return compile_program(variant.traced, numbers, width=variant.width)
    except jax.errors.JaxRuntimeError as error:
        raise blocks.BlockError(
            f"a block of {variant.width} cells cannot be compiled: {error}"
        ) from error


def _run(
    program: Program,
    variant: _Variant,
    seeds: Int[np.ndarray, " cells"],
    numbers: Numbers,
    store: Store | None,
    executor: Executor | None,
    report: Report,
) -> None:
    """Fill in the outputs of a variant: from the store if it has a cell, else by running it."""
    title, outputs = variant.title, variant.outputs
    stored = None
    if store is not None:
        stored = StoredCells(store, program, title, seeds, numbers)
        stored.warn_of_changes(stacklevel=4)
        stored.load_into(outputs)
    (missing,) = np.nonzero(~outputs.finished)
    if not len(missing):
        report.stage(f"{title}: all {len(seeds)} cells are in the store")
        return
    report.start(title, len(missing), program.steps)

    def deliver(block: slice, arrays: Arrays) -> None:
        outputs.fill(missing[block], arrays)
        if stored is not None:
            stored.save(missing[block], outputs)
        report.advance(len(missing[block]))

    missing_numbers = {name: column[missing] for name, column in numbers.items()}
    blocks.run(program, seeds[missing], missing_numbers, deliver, executor=executor)


def _stopped(
    failure: BaseException,
    results: xr.Dataset,
    outputs: Sequence[datasets.Outputs],
    store: str | os.PathLike[str] | None,
) -> SweepInterrupted | SweepError:
    """Return the exception that carries the partial results and says how to go on."""
    finished = sum(int(each.finished.sum()) for each in outputs)
    total = sum(len(each.finished) for each in outputs)
    message = (
        f"{finished} of {total} cells finished: they are in the `results` of this exception (in a "
        "notebook: `import sys; sys.last_value.results`), the others are NaN there"
    )
    if store is not None:
        message += f"; run the same sweep again to go on with those that are in {store}"
    if isinstance(failure, KeyboardInterrupt):
        return SweepInterrupted(f"interrupted; {message}", results)
    return SweepError(f"{str(failure) or repr(failure)}; {message}", results)
