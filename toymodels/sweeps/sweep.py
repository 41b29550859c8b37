"""A pure function over labelled axes and seeds, as an `xarray.Dataset`.

A *cell* is a function of a key and a few numbers that returns named arrays. A sweep runs it
at every point of a grid with every seed. The key of seed `s` is
`jax.random.key(s, impl="threefry2x32")`, which is `jax.random.key(s)` unless JAX was told of
another generator, wherever the cell stands: cells of one seed share their noise, a refined grid
keeps its old cells, and error bars are over seeds. A cell's numbers are the same to the last bit
in every sweep that holds it (`blocks` says for what).
"""

import contextlib
import inspect
import itertools
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.core import Tracer
from jaxtyping import Int

from toymodels import checks
from toymodels.errors import InputError
from toymodels.sweeps import blocks, cells, datasets, grids
from toymodels.sweeps.progress import Report, bar
from toymodels.sweeps.store import rows
from toymodels.sweeps.store.store import Store

_MOST_CELLS = 2**31  # in one sweep, whose results are all in memory


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep. What was finished is in `results`; the rest is NaN there."""

    def __init__(self, message: str, results: xr.Dataset):
        """Keep the partial results."""
        super().__init__(message)
        self.results = results

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes with the results."""
        return type(self), (str(self), self.results)


class SweepError(RuntimeError):
    """A block failed, or could not be stored. What was finished is in `results`, as above."""

    def __init__(self, message: str, results: xr.Dataset):
        """Keep the partial results."""
        super().__init__(message)
        self.results = results

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes with the results."""
        return type(self), (str(self), self.results)


def sweep(
    cell: blocks.Cell,
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
    """Run `cell` at every point of a grid, with every seed.

    Args:
        cell: a pure function of a key and numbers by keyword, to a dict of arrays or of nested
            dicts and tuples of arrays, such as parameters. It is called twice, with numbers
            that are traced, and must do the same both times.
        axes: name to numbers; the grid is their product. A tuple of names with tuples of
            numbers is one axis along which several numbers move together, named after the
            first. Compiled once for all numbers, which reach the cell as floats that take the
            precision of the arrays that they meet.
        static: name to values that change shapes or structure, compiled one by one: numbers
            or strings, or a dict of label to any object.
        num_seeds: seeds 0, 1, ..., each with the key
            `jax.random.key(seed, impl="threefry2x32")`; one by default.
        seeds: which seeds instead, such as `[3, 7]`. A cell is the same under either.
        dims: output name to the names of its own dimensions. The default is `name_0`, ...;
            required where a static axis changes a shape: shorter ones are padded with NaN. An
            output named like a dimension of others, the same in every cell, is its coordinate.
        units: name of an output or an axis to its unit, kept as an attribute.
        width: cells per compiled block, at least 2; another width may change the last bits of
            all numbers. The default depends on the size of the cell and the kind of device.
            A block takes as long for one cell as for so many.
        store: a file that keeps finished cells, made if missing. Cells that are in it are not
            run again: after a crash, on a larger grid, with more seeds. Cells of another
            program, width, processor or version stay in it and are not used; a warning says
            what changed.
        executor: any `concurrent.futures.Executor` of workers that can import toymodels, on
            this machine or others; they need not see the file of the cell. The default is
            all cores, or all devices, of this process.
        progress: whether to show on standard error what is being done.

    Returns:
        One variable per output, with the dimensions: static axes, axes, `seed`, its own.
        Arrays inside an output are variables named `output.name`; `toymodels.params` puts them
        together again. A dimension that is padded has its true lengths in the coordinate
        `<dimension>_size`.

        A cell with trained parameters (of `train`, `fit`, `fit_autoencoder`) that are not
        finite has diverged: it is NaN in every output, and a warning names it. Of other cells
        each output is as it came, NaN or infinite ones too, which a warning counts. Where a
        cell trains in another way its parameters are not known, and any output that is not
        finite makes it one that diverged.

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
    chosen = _seeds(num_seeds, seeds)
    if width is not None:
        checks.count("width", width, least=2)
    if not isinstance(executor, Executor | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"executor is {executor!r}: give a concurrent.futures.Executor")
    grid = grids.Grid(axes or {})
    static_axes = {
        name: grids.choices(f"static axis {name!r}", values)
        for name, values in (static or {}).items()
    }
    cells.check_arguments(cell, [*static_axes, *grid.coords])
    variants = list(itertools.product(*static_axes.values()))
    if (count := len(chosen) * grid.size * len(variants)) >= _MOST_CELLS:
        raise InputError(f"{count} cells are too many for one sweep: split it into several")
    taken = [*static_axes, *grid.coords, "seed"]
    started = time.perf_counter()
    programs: list[str] = []
    failure: BaseException | None = None
    with bar(visible=progress) as report, contextlib.ExitStack() as stack:
        report.stage(f"{cells.title(cell)}: tracing")
        # All that can be wrong with names and numbers comes to light before a block runs.
        first = {name: column[0] for name, (_, column) in grid.coords.items()}
        traced: list[cells.Traced] = []
        for variant in variants:
            fixed = {n: value for n, (_, value) in zip(static_axes, variant, strict=True)}
            traced.append(cells.trace(cell, fixed, first))
        layout = datasets.layout(
            [each.outputs for each in traced],
            dims or {},
            taken,
            lambda variant, name: cells.constant(traced[variant], name),
        )
        for name in (units or {}).keys() - layout.dims.keys() - grid.coords.keys():
            raise InputError(f"units names {name!r}: the cell returns {', '.join(layout.dims)}")
        for each in traced:
            cells.check_numbers(each, grid.values)
        opened = stack.enter_context(Store(store)) if store is not None else None
        lanes = np.repeat(chosen, grid.size)
        values = {name: np.tile(numbers, len(chosen)) for name, numbers in grid.values.items()}
        finished = [datasets.nothing(each.kept, len(lanes)) for each in traced]
        widths = [width or blocks.default_width(each.largest) for each in traced]
        try:
            for variant, each, lanes_each, part in zip(
                variants, traced, widths, finished, strict=True
            ):
                labels = zip(static_axes, (label for label, _ in variant), strict=True)
                title = " ".join([cells.title(cell), *(f"{n}={label}" for n, label in labels)])
                report.stage(f"{title}: compiling")
                program = _compiled(each, grid, lanes_each)
                programs.append((program.identity or {}).get("program", "calls back to Python"))
                _finish(program, title, lanes, values, part, opened, executor, report)
        except (KeyboardInterrupt, Exception) as error:
            # A store whose file is made read-only meanwhile, or a variant that cannot be
            # compiled, must not cost what has run.
            expected = isinstance(error, KeyboardInterrupt | blocks.BlockError | OSError)
            if not expected and not any(part.done.any() for part in finished):
                raise
            failure = error
    results = datasets.assemble(finished, chosen.tolist(), grid, static_axes, layout)
    for name, unit in (units or {}).items():
        results[name].attrs["units"] = unit
    results.attrs.update(
        blocks.environment(),
        python=platform.python_version(),
        program=" ".join(programs),
        block_width=widths[0] if len(set(widths)) == 1 else widths,
        source=cells.source(cell),
        seconds=round(time.perf_counter() - started, 3),
    )
    if failure is None:
        return results
    done = sum(int(part.done.sum()) for part in finished)
    message = (
        f"{done} of {len(lanes) * len(finished)} cells finished: they are in the `results` of this "
        "exception (in a notebook: `import sys; sys.last_value.results`), the others are NaN there"
    )
    if store is not None:
        message += f"; run the same sweep again to go on with those that are in {store}"
    if isinstance(failure, KeyboardInterrupt):
        raise SweepInterrupted(f"interrupted; {message}", results) from failure
    raise SweepError(f"{str(failure) or repr(failure)}; {message}", results) from failure


def _seeds(count: int | None, seeds: Any) -> Int[np.ndarray, " seeds"]:
    """The seeds of a sweep, from how many there are or from a list of them."""
    if seeds is None:
        checks.count("num_seeds", 1 if count is None else count)
        if count is not None and count >= _MOST_CELLS:
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


def _finish(
    program: blocks.Program,
    title: str,
    seeds: Int[np.ndarray, " cells"],
    values: blocks.Values,
    part: datasets.Finished,
    store: Store | None,
    executor: Executor | None,
    report: Report,
) -> None:
    """Fill `part`: from the store where it has a cell, else by running it."""
    keep = None if store is None else _kept(store, program, title, seeds, values, part)
    (missing,) = np.nonzero(~part.done)
    if not len(missing):
        report.stage(f"{title}: all {len(seeds)} cells are in the store")
        return
    report.start(title, len(missing), program.steps)

    def deliver(start: int, stop: int, outputs: blocks.Arrays) -> None:
        places = missing[start:stop]
        for name, output in outputs.items():
            part.outputs[name][places] = output
        part.done[places] = True
        if keep is not None:
            keep(places)
        report.advance(stop - start)

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

    def keep(places: Int[np.ndarray, " cells"]) -> None:
        records = np.zeros(len(places), layout)
        for name, output in part.outputs.items():
            records[name] = output[places]
        store.write(identity, seeds[places], points[places], records)

    return keep


def _compiled(traced: cells.Traced, grid: grids.Grid, width: int) -> blocks.Program:
    try:
        return blocks.Program(traced, grid.values, width=width)
    except jax.errors.JaxRuntimeError as error:
        raise blocks.BlockError(f"a block of {width} cells cannot be compiled: {error}") from error
