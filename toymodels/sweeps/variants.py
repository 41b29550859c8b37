"""The variants of a cell, one for each combination of the static axes: traced, compiled and run."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from toymodels.engine import memory_maps, programs
from toymodels.engine.garbage import no_garbage_collection
from toymodels.errors import InputError
from toymodels.sweeps import blocks, cells, datasets, layouts, watching
from toymodels.sweeps.program import Arrays, Numbers, Program, compile_program, default_width
from toymodels.sweeps.progress import Report
from toymodels.sweeps.requests import Request
from toymodels.sweeps.store.store import Store
from toymodels.sweeps.stored import StoredCells


@dataclasses.dataclass(eq=False)
class Variant:
    """The cell for one combination of the static axes.

    Attributes:
        title: the name of the cell and the labels of the combination.
        traced: the cell as a traced program.
        width: how many cells a block holds.
        numbers: one number for each axis; only the types matter.
    """

    title: str
    traced: cells.Traced
    width: int
    numbers: Numbers
    _program: Program | None = dataclasses.field(default=None, init=False)

    @property
    def is_compiled(self) -> bool:
        """True if the program is in memory, as after another part of the grid."""
        return self._program is not None

    def compiled(self) -> Program:
        """Return the program of a block, which is compiled unless it is in memory."""
        if self._program is None:
            try:
                self._program = compile_program(self.traced, self.numbers, width=self.width)
            except jax.errors.JaxRuntimeError as error:
                raise blocks.BlockError(
                    f"a block of {self.width} cells cannot be compiled: {error}"
                ) from error
        return self._program

    def forget(self) -> None:
        """Free the memory of the program. It is compiled again if it is needed again."""
        self._program = None


class Ran(NamedTuple):
    """The cells of some seeds and points of a grid after all variants have run.

    Attributes:
        outputs: the outputs of all cells, for each variant.
        programs: the hash of each program that was compiled.
        failure: the error that stopped the sweep, if any.
    """

    outputs: list[datasets.Outputs]
    programs: list[str]
    failure: BaseException | None


@no_garbage_collection()
def trace(
    request: Request, dims: Mapping[str, Sequence[str]], units: Mapping[str, str]
) -> tuple[list[Variant], layouts.Layout]:
    """Trace the cell for each combination of the static axes, and check its outputs.

    After this, nothing can be wrong with names or numbers: all mistakes in them come to light
    before a block runs.
    """
    grid, variants = request.grid, list(variants_of(request))
    layout = layouts.layout(
        [variant.traced.outputs for variant in variants],
        dims,
        [*request.static_axes, *grid.coords, "seed"],
        lambda variant, name: cells.constant(variants[variant].traced, name),
    )
    for name in units.keys() - layout.dims.keys() - grid.coords.keys():
        raise InputError(f"units names {name!r}: the cell returns {', '.join(layout.dims)}")
    for variant in variants:
        cells.check_numbers(variant.traced, grid)
    return variants, layout


def variants_of(request: Request) -> Iterator[Variant]:
    """Trace the cell for each combination of the static axes, without a check of its outputs."""
    grid, names = request.grid, request.static_axes
    first = {name: numbers[0] for name, (_, numbers) in grid.coords.items()}
    first_point = grid.part(dict.fromkeys(grid.shape, slice(1)))
    for choices in itertools.product(*names.values()):
        fixed = {name: value for name, (_, value) in zip(names, choices, strict=True)}
        labels = [f"{name}={label}" for name, (label, _) in zip(names, choices, strict=True)]
        cell = cells.trace(request.cell, fixed, first)
        width = request.width or default_width(programs.largest_array(cell.program.jaxpr))
        title = " ".join([cells.title(request.cell), *labels])
        yield Variant(title, cell, width, first_point.numbers)


def run(
    variants: Sequence[Variant],
    request: Request,
    store: Store | None,
    executor: Executor | None,
    report: Report,
    *,
    again: bool,
) -> Ran:
    """Run each variant at every point of the grid of a request, with every seed of it.

    Args:
        variants: the variants of the cell.
        request: the points and the seeds.
        store: a store that keeps finished cells.
        executor: where to run the blocks instead of here.
        report: is told what is being done.
        again: whether the variants will run once more, for other cells. If not, or if there are too
            many, the program of a variant, which takes 10 MB on each device, is forgotten after it
            has run.
    """
    grid = request.grid
    seeds = np.repeat(request.seeds, grid.size)
    numbers = {name: np.tile(column, len(request.seeds)) for name, column in grid.numbers.items()}
    outputs = [datasets.empty_outputs(each.traced.all_outputs, len(seeds)) for each in variants]
    if watching.watched(request):
        return Ran(outputs, [], None)  # no cell has finished
    hashes: list[str] = []
    try:
        for variant, room in zip(variants, outputs, strict=True):
            if not variant.is_compiled:
                report.stage(f"{variant.title}: compiling")
            provenance = variant.compiled().provenance
            hashes.append((provenance or {}).get("program", "calls back to Python"))
            _run(variant, room, seeds, numbers, store, executor, report)
            if not again or memory_maps.are_scarce():
                variant.forget()
    except (KeyboardInterrupt, Exception) as error:
        # An error such as a store that has become read-only, or a later variant that cannot be
        # compiled, must not cost the cells that have finished.
        # Any other error is raised as it is if there are no such cells.
        expected = isinstance(error, KeyboardInterrupt | blocks.BlockError | OSError)
        if not expected and not any(room.finished.any() for room in outputs):
            raise
        return Ran(outputs, hashes, error)
    return Ran(outputs, hashes, None)


def _run(
    variant: Variant,
    outputs: datasets.Outputs,
    seeds: Int[np.ndarray, " cells"],
    numbers: Numbers,
    store: Store | None,
    executor: Executor | None,
    report: Report,
) -> None:
    """Fill in the outputs of a variant: from the store if it has a cell, else by running it."""
    title, program, stored = variant.title, variant.compiled(), None
    if store is not None:
        stored = StoredCells(store, program, title, seeds, numbers)
        stored.warn_of_changes(stacklevel=5)
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
