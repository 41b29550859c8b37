"""The dimensions of outputs: their names, their lengths, and the outputs that label one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

from toymodels.errors import InputError
from toymodels.sweeps import grids

Shapes: TypeAlias = Mapping[str, jax.ShapeDtypeStruct]


class Layout(NamedTuple):
    """The names and labels of the dimensions that outputs bring along.

    Attributes:
        dims: the dimensions of each output.
        coords: the labels of each dimension that an output of its name labels.
        sizes: the length of each dimension for each combination of the static axes, where the
            lengths differ.
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

    Axes, static axes, `seed`, dimensions and outputs share one set of names. An output that has
    one dimension, and the name of a dimension that other outputs have too, is its coordinate.

    Args:
        variants: the shapes of the outputs for each combination of the static axes.
        dims: the names that the user gave.
        taken: the names of the axes and of the seed.
        constant: returns the value of an output of a variant if all cells have the same value,
            else None.

    Raises:
        InputError: names that do not fit the outputs, or outputs that do not fit each other.
    """
    names = _output_names(variants, dims, taken)
    used = {str(dim) for given in dims.values() for dim in given}
    own: dict[str, tuple[str, ...]] = {}
    for name in names:
        rank = _rank(name, variants)
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


def _output_names(
    variants: Sequence[Shapes], dims: Mapping[str, Sequence[str]], taken: Sequence[str]
) -> list[str]:
    """Return the names of the outputs, which must be those of every variant."""
    names = [list(shapes) for shapes in variants]
    if any(set(other) != set(names[0]) for other in names):
        raise InputError(f"the cell returns different names along a static axis: {names}")
    for name in dims.keys() - set(names[0]):
        raise InputError(f"dims names {name!r}: the cell returns {', '.join(names[0])}")
    for name in names[0]:
        if name in taken:
            raise InputError(f"output {name!r} has the name of an axis: give it another")
    return names[0]


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
    """Return the length of each dimension for each combination of the static axes."""
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
    """Return the labels of a dimension, which the output of its name gives."""
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
