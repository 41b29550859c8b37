"""From finished blocks to a labelled `xarray.Dataset`."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import xarray as xr
from jaxtyping import Bool
from numpy.typing import NDArray

from toymodels import grids
from toymodels.errors import InputError

Shapes: TypeAlias = Mapping[str, jax.ShapeDtypeStruct]


class Finished(NamedTuple):
    """The cells of one choice of the static axes, filled as they finish.

    Attributes:
        outputs: name to an array of cells x the output's own shape. Cells are seeds x points.
        done: which cells have finished.
    """

    outputs: dict[str, NDArray[Any]]
    done: Bool[np.ndarray, " cells"]


def nothing(outputs: Shapes, cells: int) -> Finished:
    """Room for so many cells, none of which has finished."""
    arrays = {
        name: np.zeros((cells, *output.shape), output.dtype) for name, output in outputs.items()
    }
    return Finished(arrays, np.zeros(cells, bool))


def own_dims(
    variants: Sequence[Shapes], dims: Mapping[str, Sequence[str]], taken: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The names of the dimensions that each output brings along.

    Args:
        variants: shapes of the outputs for each choice of the static axes.
        dims: names given by the user.
        taken: names of the axes and of the seed.

    Raises:
        InputError: names that do not fit the outputs, or outputs that do not fit each other.
    """
    names = [list(shapes) for shapes in variants]
    if any(set(other) != set(names[0]) for other in names):
        raise InputError(f"the cell returns different names along a static axis: {names}")
    for name in dims.keys() - set(names[0]):
        raise InputError(f"dims names {name!r}: the cell returns {', '.join(names[0])}")
    for name in names[0]:
        if name in taken:
            raise InputError(f"output {name!r} has the name of an axis: give it another")
    named: dict[str, tuple[str, ...]] = {}
    lengths: dict[str, int] = {}
    for name in names[0]:
        shapes = {variant[name].shape for variant in variants}
        ranks = sorted({len(shape) for shape in shapes})
        if len(ranks) > 1:
            raise InputError(f"output {name!r} has {ranks} dimensions along a static axis")
        if name not in dims and len(shapes) > 1:
            raise InputError(
                f"output {name!r} changes its shape along a static axis, {sorted(shapes)}: "
                f"name its dimensions, dims={{{name!r}: (...)}}"
            )
        named[name] = tuple(dims.get(name, [f"{name}_{axis}" for axis in range(ranks[0])]))
        if len(named[name]) != ranks[0]:
            raise InputError(f"dims of {name!r} is {named[name]}: it has {ranks[0]} dimensions")
        if len({*named[name], *taken}) < ranks[0] + len(taken):
            raise InputError(
                f"dims of {name!r} is {named[name]}: give each a name of its own, none of "
                f"{', '.join(taken)}"
            )
        for dimension, sizes in zip(named[name], zip(*shapes, strict=True), strict=True):
            if lengths.setdefault(dimension, max(sizes)) != max(sizes):
                raise InputError(
                    f"dimension {dimension!r} has length {lengths[dimension]} and, in output "
                    f"{name!r}, {max(sizes)}: name them apart with dims="
                )
    return named


def assemble(
    finished: Sequence[Finished],
    seeds: int,
    grid: grids.Grid,
    static_axes: Mapping[str, Sequence[tuple[Any, Any]]],
    own: Mapping[str, tuple[str, ...]],
) -> xr.Dataset:
    """Label the outputs; NaN for what did not run, diverged, or is longer elsewhere."""
    outer = [len(choices) for choices in static_axes.values()]
    leading = [*static_axes, *grid.shape, "seed"]
    valid = np.stack([_finite(part) for part in finished])  # variants x cells
    done = np.stack([part.done for part in finished])

    def arranged(parts: NDArray[Any]) -> NDArray[Any]:
        """From variants x (seeds x points) x own to static x axes x seeds x own."""
        variants, _, *own = parts.shape
        moved = np.moveaxis(parts.reshape(variants, seeds, grid.size, *own), 1, 2)
        return moved.reshape(*outer, *grid.shape.values(), seeds, *own)

    variables: dict[str, Any] = {}
    for name, dims in own.items():
        parts = [part.outputs[name] for part in finished]
        longest = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
        stacked = np.stack([grids.padded(part, longest) for part in parts])
        if not valid.all():
            mask = valid.reshape(*valid.shape, *[1] * (stacked.ndim - 2))
            missing = np.asarray(np.nan, np.result_type(stacked, np.float32))
            stacked = np.where(mask, stacked, missing)
        variables[name] = ((*leading, *dims), arranged(stacked))
    coords: dict[str, Any] = {
        **{name: [label for label, _ in choices] for name, choices in static_axes.items()},
        **{name: (along, list(numbers)) for name, (along, numbers) in grid.coords.items()},
        "seed": range(seeds),
    }
    results = xr.Dataset(variables, coords)
    diverged = xr.DataArray(
        arranged(done & ~valid), dims=leading, coords={name: results[name] for name in leading}
    )
    _warn_of_diverged(diverged)
    return results.assign_attrs(diverged_cells=int(diverged.sum()))


def _finite(part: Finished) -> NDArray[Any]:
    """Which cells ran and gave finite numbers only."""
    finite = part.done.copy()
    for output in part.outputs.values():
        finite &= np.isfinite(output).all(axis=tuple(range(1, output.ndim)))
    return finite


def _warn_of_diverged(diverged: xr.DataArray) -> None:
    if not diverged.any():
        return
    flat = diverged.stack(cell=diverged.dims)
    named = [
        " ".join(f"{n}={v}" for n, v in zip(diverged.dims, label, strict=True))
        for label in flat.cell.values[flat.values][:3]
    ]
    warnings.warn(
        f"{int(diverged.sum())} of {diverged.size} cells diverged and are NaN: "
        f"{'; '.join(named)}{'; ...' if diverged.sum() > 3 else ''}",
        stacklevel=4,
    )
