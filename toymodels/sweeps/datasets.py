"""Lay out the outputs of cells as a labelled `xarray.Dataset`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from toymodels.sweeps import grids
from toymodels.sweeps.layouts import Layout, Shapes

FINITE = "trained parameters are finite"
"""The name of the output that a program has besides those of the cell, if the cell trains."""
CELL_DIMS = "cell_dims"
"""The attribute of a variable that names the dimensions of one cell, as JSON."""


class Outputs(NamedTuple):
    """The outputs of all cells of one variant, filled in as the cells finish.

    Attributes:
        arrays: for each output, an array of cells x the shape of the output. The cells are
            seeds x points of the grid.
        finished: which cells have finished.
    """

    arrays: dict[str, NDArray[Any]]
    finished: Bool[np.ndarray, " cells"]

    def fill(self, cells: Int[np.ndarray, " finished"], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put in the outputs of these cells, which have finished."""
        for name, array in arrays.items():
            self.arrays[name][cells] = array
        self.finished[cells] = True


def empty_outputs(shapes: Shapes, cells: int) -> Outputs:
    """Return room for the outputs of so many cells, of which none has finished."""
    arrays = {name: np.zeros((cells, *out.shape), out.dtype) for name, out in shapes.items()}
    return Outputs(arrays, np.zeros(cells, bool))


class _Cells(NamedTuple):
    """The cells of a sweep: their order in `Outputs`, and the dimensions that they have."""

    static_axes: Mapping[str, Sequence[tuple[Any, Any]]]
    grid: grids.Grid
    seeds: Sequence[int]

    @property
    def dims(self) -> list[str]:
        """The static axes, the axes, and `seed`."""
        return [*self.static_axes, *self.grid.shape, "seed"]

    @property
    def coords(self) -> dict[str, Any]:
        """The labels along these dimensions."""
        return {
            **{name: [label for label, _ in made] for name, made in self.static_axes.items()},
            **{name: (dim, list(numbers)) for name, (dim, numbers) in self.grid.coords.items()},
            "seed": list(self.seeds),
        }

    def unravelled(self, values: NDArray[Any]) -> NDArray[Any]:
        """Reshape variants x (seeds x points) x own to static axes x axes x seeds x own."""
        variants, _, *own = values.shape
        split = values.reshape(variants, len(self.seeds), self.grid.size, *own)
        moved = np.moveaxis(split, 1, 2)
        return moved.reshape(*self.static_shape, *self.grid.shape.values(), len(self.seeds), *own)

    @property
    def static_shape(self) -> list[int]:
        """The number of choices of each static axis."""
        return [len(choices) for choices in self.static_axes.values()]

    def labelled(self, values: NDArray[Any]) -> xr.DataArray:
        """Label an array of variants x cells."""
        return xr.DataArray(self.unravelled(values), dims=self.dims, coords=self.coords)


def assemble(
    variants: Sequence[Outputs],
    seeds: Sequence[int],
    grid: grids.Grid,
    static_axes: Mapping[str, Sequence[tuple[Any, Any]]],
    layout: Layout,
) -> tuple[xr.Dataset, list[str]]:
    """Label the outputs of all cells.

    Cells that did not run or diverged are NaN, and so is the padding of shorter outputs.

    Returns:
        The dataset, and warnings of cells that diverged or are not finite.
    """
    cells = _Cells(static_axes, grid, seeds)
    finished = np.stack([variant.finished for variant in variants])  # variants x cells
    valid = finished & np.stack([_converged(variant.arrays) for variant in variants])
    variables: dict[str, Any] = {}
    not_finite: dict[str, NDArray[Any]] = {}
    for name, dims in layout.dims.items():
        arrays = [variant.arrays[name] for variant in variants]
        attributes = {CELL_DIMS: json.dumps(dims)} if dims else {}
        values = cells.unravelled(_joined(arrays, valid))
        variables[name] = ((*cells.dims, *dims), values, attributes)
        not_finite[name] = valid & ~np.stack([_finite(array) for array in arrays])
    results = xr.Dataset(variables, coordinates(seeds, grid, static_axes, layout))
    diverged = cells.labelled(finished & ~valid)
    remedy = "try a lower learning rate, or look for NaN in the data"
    anywhere = cells.labelled(np.any([*not_finite.values()], axis=0))
    names = ", ".join(name for name, where in not_finite.items() if where.any())
    warned = [
        *_remarks(diverged, f"diverged and are NaN ({remedy})"),
        *_remarks(anywhere, f"have outputs that are not finite ({names})"),
    ]
    counts = {"diverged_cells": int(diverged.sum()), "not_finite_cells": int(anywhere.sum())}
    return results.assign_attrs(counts), warned


def coordinates(
    seeds: Sequence[int],
    grid: grids.Grid,
    static_axes: Mapping[str, Sequence[tuple[Any, Any]]],
    layout: Layout,
) -> dict[str, Any]:
    """Return the labels of all dimensions of the results, and the lengths of those that vary."""
    cells = _Cells(static_axes, grid, seeds)
    sizes = {
        f"{dim}_size": ([*static_axes], np.reshape(lengths, cells.static_shape))
        for dim, lengths in layout.sizes.items()
    }
    return {**cells.coords, **layout.coords, **sizes}


def _joined(arrays: Sequence[NDArray[Any]], valid: Bool[np.ndarray, "variants cells"]) -> Any:
    """Stack one output of all variants, padded to one shape; NaN where a cell is not valid."""
    longest = [max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    stacked = np.stack([_padded(array, longest) for array in arrays])
    if valid.all():
        return stacked
    mask = valid.reshape(*valid.shape, *[1] * (stacked.ndim - 2))
    return np.where(mask, stacked, np.asarray(np.nan, np.result_type(stacked, np.float32)))


def _padded(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Put `array` into the first corner of an array of NaN of this shape."""
    if array.shape == tuple(shape):
        return array
    output = np.full(shape, np.nan, np.result_type(array, np.float32))
    output[tuple(slice(size) for size in array.shape)] = array
    return output


def _converged(outputs: Mapping[str, NDArray[Any]]) -> Bool[np.ndarray, " cells"]:
    """Return which cells have finite parameters or, if none are known, finite outputs."""
    if FINITE in outputs:
        return outputs[FINITE]
    return np.asarray(np.all([_finite(output) for output in outputs.values()], axis=0))


def _finite(output: NDArray[Any]) -> Bool[np.ndarray, " cells"]:
    """Return for which cells all elements of an output are finite."""
    return np.asarray(np.isfinite(output).all(axis=tuple(range(1, output.ndim))))


def _remarks(cells: xr.DataArray, what: str) -> list[str]:
    """Say that something is the case for the cells that are true, if any, and name three."""
    if not cells.any():
        return []
    flat = cells.stack(cell=cells.dims)
    named = [
        " ".join(f"{n}={v}" for n, v in zip(cells.dims, label, strict=True))
        for label in flat.cell.values[flat.values][:3]
    ]
    rest = "; ..." if cells.sum() > 3 else ""
    return [f"{int(cells.sum())} of {cells.size} cells {what}: {'; '.join(named)}{rest}"]
