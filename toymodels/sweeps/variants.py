"""The variants of a cell, one for each combination of the static axes: traced, compiled and run."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from toymodels.engine import programs
from toymodels.engine.compiling import no_garbage_collection
from toymodels.errors import InputError
from toymodels.sweeps import blocks, cells, datasets, layouts, watching
from toymodels.sweeps.program import Arrays, Numbers, Program, compile_program, default_width
from toymodels.sweeps.progress import Report
from toymodels.sweeps.requests import Request
from toymodels.sweeps.store.store import Store
from toymodels.sweeps.stored import StoredCells


@dataclasses.dataclass(frozen=True, eq=False)
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

    @property
    def is_compiled(self) -> bool:
        """True if `program` was used before, for another part of the grid."""
        return "program" in vars(self)

    @functools.cached_property
    def program(self) -> Program:
        """The compiled program of a block."""
        try:
            return compile_program(self.traced, self.numbers, width=self.width)
        except jax.errors.JaxRuntimeError as error:
            raise blocks.BlockError(
                f"a block of {self.width} cells cannot be compiled: {error}"
            ) from error


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
    cell, grid, static_axes, _, width = request
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
    first_point = grid.part(dict.fromkeys(grid.shape, slice(1)))
    variants: list[Variant] = []
    for each, combination in zip(traced, combinations, strict=True):
        cells.check_numbers(each, grid)
        labels = [f"{n}={label}" for n, (label, _) in zip(static_axes, combination, strict=True)]
        fitting = width or default_width(programs.largest_array(each.program.jaxpr))
        title = " ".join([cells.title(cell), *labels])
        variants.append(Variant(title, each, fitting, first_point.numbers))
    return variants, layout


def run(
    variants: Sequence[Variant],
    request: Request,
    store: Store | None,
    executor: Executor | None,
    report: Report,
) -> Ran:
    """Run each variant at every point of the grid of a request, with every seed of it."""
    grid = request.grid
    seeds = np.repeat(request.seeds, grid.size)
    numbers = {name: np.tile(column, len(request.seeds)) for name, column in grid.numbers.items()}
    outputs = [datasets.empty_outputs(each.traced.all_outputs, len(seeds)) for each in variants]
    if watching.watched(request):
        return Ran(outputs, [], None)
    hashes: list[str] = []
    try:
        for variant, room in zip(variants, outputs, strict=True):
            if not variant.is_compiled:
                report.stage(f"{variant.title}: compiling")
            provenance = variant.program.provenance
            hashes.append((provenance or {}).get("program", "calls back to Python"))
            _run(variant, room, seeds, numbers, store, executor, report)
    except (KeyboardInterrupt, Exception) as error:
        # An error such as a store that has become read-only, or a later variant that cannot be
        # compiled, must not cost the cells that have finished.
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
    title, program, stored = variant.title, variant.program, None
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
