"""`sweep`: run one function of a key and numbers over labelled axes and seeds."""

import contextlib
import inspect
import os
import platform
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeAlias

import jax
import xarray as xr
from jax.core import Tracer

from toymodels.engine.compiling import environment
from toymodels.errors import InputError
from toymodels.sweeps import cells, datasets, grids, parts, variants, watching
from toymodels.sweeps.parts import Folder, Piece
from toymodels.sweeps.program import Cell
from toymodels.sweeps.progress import Report, bar
from toymodels.sweeps.requests import Request, check_request
from toymodels.sweeps.store.store import Store

_Path: TypeAlias = str | os.PathLike[str]


class _Stopped(BaseException):
    """An exception that stopped a sweep, with the results of the cells that had finished."""

    def __init__(self, message: str, results: xr.Dataset):
        """Keep the partial results."""
        super().__init__(message)
        self.results = results

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the exception travel between processes with its results."""
        return type(self), (str(self), self.results)


class SweepInterrupted(_Stopped, KeyboardInterrupt):
    """Ctrl-C stopped a sweep.

    Attributes:
        results: the results as `sweep` returns them. Cells that did not finish are NaN.
    """


class SweepError(_Stopped, RuntimeError):
    """A block of a sweep failed, or its outputs could not be stored.

    Attributes:
        results: the results as `sweep` returns them. Cells that did not finish are NaN.
    """


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
    store: _Path | None = None,
    folder: _Path | None = None,
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
            kind of device.
        store: a file that keeps finished cells; it is made if it does not exist. Cells that it
            holds are not run again: after a crash, on a larger grid, or with more seeds. Cells of
            another program, width, processor or version stay in the file and are not used; a
            warning says what changed.
        folder: a folder that keeps the results in files, part by part, so that the memory does
            not grow with the number of cells. The dataset that is returned reads them when they
            are needed. Parts that it holds are not run again. It is made if it does not exist,
            and it holds one sweep.
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
    if isinstance(jax.device_put(0.0), Tracer):  # any operation of JAX would compile a program
        raise InputError("sweep was called inside jit or scan: call it from plain Python")
    if not isinstance(executor, Executor | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"executor is {executor!r}: give a concurrent.futures.Executor")
    if isinstance(cell, jax.stages.Wrapped):  # made by tm.jit; a sweep compiles the cell itself
        cell = inspect.unwrap(cell)
    request = check_request(
        cell,
        axes or {},
        static or {},
        num_seeds=num_seeds,
        seeds=seeds,
        width=width,
        on_disk=folder is not None,
    )
    if watching.is_on():
        store = folder = None  # no cell will run whose outputs they could keep
    began = time.perf_counter()
    with bar(visible=progress) as report, contextlib.ExitStack() as stack:
        report.stage(f"{cells.title(cell)}: tracing")
        traced, layout = variants.trace(request, dims or {}, units or {})
        opened = stack.enter_context(Store(store)) if store is not None else None

        def run(part: Request, report: Report) -> Piece:
            nonlocal began
            again = folder is not None
            ran = variants.run(traced, part, opened, executor, report, again=again)
            results, remarks = datasets.assemble(
                ran.outputs, part.seeds.tolist(), part.grid, part.static_axes, layout
            )
            for name, unit in (units or {}).items():
                results[name].attrs["units"] = unit
            now = time.perf_counter()
            results.attrs.update(_provenance(cell, traced, ran), seconds=round(now - began, 3))
            began = now
            finished = sum(int(room.finished.sum()) for room in ran.outputs)
            return Piece(results, remarks, finished, ran.failure)

        if folder is None:
            piece = run(request, report)
        else:
            piece = parts.run(Folder(folder, request, traced, layout, units or {}), run, report)
    for remark in piece.remarks:
        warnings.warn(remark, stacklevel=2)
    if piece.failure is not None:
        raise _stopped(piece, request.num_cells, store, folder) from piece.failure
    return piece.results


def _provenance(
    cell: Cell, traced: Sequence[variants.Variant], ran: variants.Ran
) -> dict[str, Any]:
    """Return what is needed to get the numbers again, as attributes of the results."""
    widths = [variant.width for variant in traced]
    return {
        **environment(),
        "python": platform.python_version(),
        "program": " ".join(ran.programs),
        "block_width": widths[0] if len(set(widths)) == 1 else widths,
        "source": cells.source(cell),
    }


def _stopped(
    piece: Piece, total: int, store: _Path | None, folder: _Path | None
) -> SweepInterrupted | SweepError:
    """Return the exception that carries the partial results and says how to go on."""
    message = (
        f"{piece.finished} of {total} cells finished: they are in the `results` of this exception "
        "(in a notebook: `import sys; sys.last_value.results`), the others are NaN there"
    )
    kept = " and ".join(str(place) for place in (store, folder) if place is not None)
    if kept:
        message += f"; run the same sweep again to go on with those that are in {kept}"
    failure = piece.failure
    if isinstance(failure, KeyboardInterrupt):
        return SweepInterrupted(f"interrupted; {message}", piece.results)
    return SweepError(f"{str(failure) or repr(failure)}; {message}", piece.results)
