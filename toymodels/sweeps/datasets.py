"""From finished blocks to a labelled `xarray.Dataset`."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import xarray as xr
from jaxtyping import Bool
from numpy.typing import NDArray

from toymodels.errors import InputError
from toymodels.sweeps import grids

Shapes: TypeAlias = Mapping[str, jax.ShapeDtypeStruct]

FINITE = "trained parameters are finite"
"""The output that a program has beside those of the cell, if the cell trains."""
CELL_DIMS = "cell_dims"
"""The attribute of a variable that names the dimensions of one cell, as JSON."""


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


class Layout(NamedTuple):
    """How the outputs of a cell stand in the results.

    Attributes:
        dims: name of each variable to those of its own dimensions.
        coords: dimension to its labels, which an output of the same name has given.
        sizes: dimension to its length for each choice of the static axes, where they differ.
    """

    dims: dict[str, tuple[str, ...]]
    coords: dict[str, NDArray[Any]]
    sizes: dict[str, list[int]]


def layout(
    variants: Sequence[Shapes],
    dims: Mapping[str, Sequence[str]],
    taken: Sequence[str],
    constant: Callable[[int, str], NDArray[Any] | None],
) -> Layout:
    """Name the dimensions that each output brings along, and find those that label one.

    Axes, static axes, `seed`, dimensions and outputs share one set of names. An output of one
    dimension that other outputs have too, and that has its name, is the coordinate of it.

    Args:
        variants: shapes of the outputs for each choice of the static axes.
        dims: names given by the user.
        taken: names of the axes and of the seed.
        constant: of a choice and an output, its value if it is the same in every cell.

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
    ranks = {name: _rank(name, variants) for name in names[0]}
    used = {str(dim) for given in dims.values() for dim in given}
    own: dict[str, tuple[str, ...]] = {}
    for name, rank in ranks.items():
        labels = rank == 1 and name not in dims and name in used
        default = [name] if labels else [f"{name}_{axis}" for axis in range(rank)]
        own[name] = _checked_dims(name, rank, dims.get(name, default), taken)
    sizes = _sizes(variants, own, dims)
    coords: dict[str, NDArray[Any]] = {}
    for name in sizes.keys() & own.keys():
        coords[name] = _labels(name, own[name], [constant(i, name) for i in range(len(variants))])
        del own[name]
    if not own:
        raise InputError(f"the cell returns {', '.join(coords)} alone, the labels of a dimension")
    varying = {dim: lengths for dim, lengths in sizes.items() if len(set(lengths)) > 1}
    for dim in varying:
        if (size := f"{dim}_size") in {*taken, *own, *sizes}:
            raise InputError(f"{size!r} is to hold the lengths of {dim!r}: rename one of them")
    return Layout(own, coords, varying)


def _rank(name: str, variants: Sequence[Shapes]) -> int:
    ranks = sorted({len(variant[name].shape) for variant in variants})
    if len(ranks) > 1:
        raise InputError(f"output {name!r} has {ranks} dimensions along a static axis")
    return ranks[0]


def _checked_dims(
    name: str, rank: int, dims: Sequence[str], taken: Sequence[str]
) -> tuple[str, ...]:
    if isinstance(dims, str) or not all(str(dim).strip() for dim in dims):
        raise InputError(f"dims of {name!r} is {dims!r}: give a tuple of names, ('feature',)")
    dims = tuple(map(str, dims))
    if len(dims) != rank:
        raise InputError(f"dims of {name!r} is {dims}: it has {rank} dimensions")
    if any("/" in dim or not grids.is_text(dim) for dim in dims):
        raise InputError(f"dims of {name!r} is {dims}: files cannot hold a name with / or \\0")
    if clash := [dim for dim in dims if dim in taken]:
        raise InputError(
            f"dims of {name!r} is {dims}: {clash[0]!r} is an axis of the sweep already, so give "
            f"each a name of its own, none of {', '.join(taken)}"
        )
    if len(set(dims)) < rank:
        raise InputError(f"dims of {name!r} is {dims}: give each a name of its own")
    return dims


def _sizes(
    variants: Sequence[Shapes],
    own: Mapping[str, tuple[str, ...]],
    given: Mapping[str, Sequence[str]],
) -> dict[str, list[int]]:
    """Dimension to its length for each choice of the static axes."""
    sizes: dict[str, list[int]] = {}
    for name, dims in own.items():
        shapes = [variant[name].shape for variant in variants]
        if name not in given and len(set(shapes)) > 1 and (name,) != dims:
            raise InputError(
                f"output {name!r} changes its shape along a static axis, {sorted(set(shapes))}: "
                f"name its dimensions, dims={{{name!r}: (...)}}"
            )
        for dim, lengths in zip(dims, zip(*shapes, strict=True), strict=True):
            other = sizes.setdefault(dim, list(lengths))
            differing = [(a, b) for a, b in zip(other, lengths, strict=True) if a != b]
            if differing:
                raise InputError(
                    f"dimension {dim!r} has length {differing[0][0]} and, in output {name!r}, "
                    f"{differing[0][1]}: name them apart with dims="
                )
    return sizes


def _labels(
    name: str, dims: tuple[str, ...], values: Sequence[NDArray[Any] | None]
) -> NDArray[Any]:
    """The labels of a dimension, from the output that has its name."""
    if dims != (name,):
        raise InputError(
            f"output {name!r} has the name of a dimension and not its length alone: rename one "
            "of them"
        )
    first = values[0]
    if first is None or any(v is None or not np.array_equal(first, v) for v in values):
        raise InputError(
            f"output {name!r} has the name of a dimension and is not the same in every cell, as "
            "its labels must be: rename one of them"
        )
    return first


def assemble(
    finished: Sequence[Finished],
    seeds: Sequence[int],
    grid: grids.Grid,
    static_axes: Mapping[str, Sequence[tuple[Any, Any]]],
    layout: Layout,
) -> xr.Dataset:
    """Label the outputs; NaN for what did not run, diverged, or is longer elsewhere."""
    outer = [len(choices) for choices in static_axes.values()]
    leading = [*static_axes, *grid.shape, "seed"]
    done = np.stack([part.done for part in finished])  # variants x cells
    valid = done & np.stack([_converged(part) for part in finished])

    def arranged(parts: NDArray[Any]) -> NDArray[Any]:
        """From variants x (seeds x points) x own to static x axes x seeds x own."""
        variants, _, *own = parts.shape
        moved = np.moveaxis(parts.reshape(variants, len(seeds), grid.size, *own), 1, 2)
        return moved.reshape(*outer, *grid.shape.values(), len(seeds), *own)

    coords: dict[str, Any] = {
        **{name: [label for label, _ in choices] for name, choices in static_axes.items()},
        **{name: (along, list(numbers)) for name, (along, numbers) in grid.coords.items()},
        "seed": list(seeds),
        **layout.coords,
        **{
            f"{dim}_size": ([*static_axes], np.reshape(lengths, outer))
            for dim, lengths in layout.sizes.items()
        },
    }
    variables: dict[str, Any] = {}
    partial: dict[str, NDArray[Any]] = {}
    for name, dims in layout.dims.items():
        parts = [part.outputs[name] for part in finished]
        longest = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
        stacked = np.stack([grids.padded(part, longest) for part in parts])
        if not valid.all():
            mask = valid.reshape(*valid.shape, *[1] * (stacked.ndim - 2))
            missing = np.asarray(np.nan, np.result_type(stacked, np.float32))
            stacked = np.where(mask, stacked, missing)
        attributes = {CELL_DIMS: json.dumps(dims)} if dims else {}
        variables[name] = ((*leading, *dims), arranged(stacked), attributes)
        partial[name] = valid & ~np.stack([_finite(part) for part in parts])
    results = xr.Dataset(variables, coords)

    def cells(which: NDArray[Any]) -> xr.DataArray:
        labels = {name: results[name] for name in leading}
        return xr.DataArray(arranged(which), dims=leading, coords=labels)

    diverged = cells(done & ~valid)
    remedy = "try a lower learning rate, or look for NaN in the data"
    _warn(diverged, f"diverged and are NaN ({remedy})")
    not_finite = np.any([*partial.values()], axis=0)
    names = ", ".join(name for name, where in partial.items() if where.any())
    _warn(cells(not_finite), f"have outputs that are not finite ({names})")
    return results.assign_attrs(
        diverged_cells=int(diverged.sum()), not_finite_cells=int(not_finite.sum())
    )


def _converged(part: Finished) -> NDArray[Any]:
    """Which cells have finite parameters; if none are known, finite outputs."""
    if FINITE in part.outputs:
        return part.outputs[FINITE]
    finite = [_finite(output) for output in part.outputs.values()]
    return np.asarray(np.all(finite, axis=0))


def _finite(output: NDArray[Any]) -> NDArray[Any]:
    """Which rows are finite."""
    return np.asarray(np.isfinite(output).all(axis=tuple(range(1, output.ndim))))


def _warn(which: xr.DataArray, what: str) -> None:
    if not which.any():
        return
    flat = which.stack(cell=which.dims)
    named = [
        " ".join(f"{n}={v}" for n, v in zip(which.dims, label, strict=True))
        for label in flat.cell.values[flat.values][:3]
    ]
    warnings.warn(
        f"{int(which.sum())} of {which.size} cells {what}: "
        f"{'; '.join(named)}{'; ...' if which.sum() > 3 else ''}",
        stacklevel=4,
    )
