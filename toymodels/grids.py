"""The labelled grid of a sweep: axes of numbers, alone or zipped, and axes of structure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

from toymodels.errors import InputError

Axes: TypeAlias = Mapping[str | tuple[str, ...], Iterable[Any]]
Static: TypeAlias = Mapping[str, Iterable[Any] | Mapping[str, Any]]


class Grid:
    """The product of axes of numbers.

    Attributes:
        coords: axis name to its numbers as given, with the dimension they lie along.
        shape: dimension to its length.
    """

    def __init__(self, axes: Axes):
        """Check and unpack `axes`; see `toymodels.sweep`."""
        self.coords: dict[str, tuple[str, list[int | float]]] = {}
        self.shape: dict[str, int] = {}
        for key, values in axes.items():
            names = (key,) if isinstance(key, str) else key
            rows = [(row,) if isinstance(key, str) else tuple(row) for row in values]
            if not rows:
                raise InputError(f"axis {names[0]!r} is empty: give at least one number")
            for row in rows:
                if len(row) != len(names):
                    raise InputError(f"axis {key!r} holds {row!r}: give {len(names)} numbers")
            for name, column in zip(names, zip(*rows, strict=True), strict=True):
                if name in self.coords:
                    raise InputError(f"axis {name!r} is given twice: give it once")
                self.coords[name] = (names[0], [_number(name, value) for value in column])
            self.shape[names[0]] = len(rows)

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.shape.values())

    @property
    def values(self) -> dict[str, NDArray[Any]]:
        """Name to the number at every point, flat, in the type that the device sees."""
        dimensions = list(self.shape)
        flat: dict[str, NDArray[Any]] = {}
        for name, (dimension, numbers) in self.coords.items():
            own = [-1 if other == dimension else 1 for other in dimensions]
            # Never whole numbers: one axis in two grids must not differ in type.
            column = np.asarray(numbers, float).reshape(own)
            flat[name] = np.broadcast_to(column, tuple(self.shape.values())).ravel()
        return flat

    def ends(self) -> tuple[dict[str, np.float64], dict[str, np.float64]]:
        """The lowest and the highest number of every axis, with what arrays have, too."""
        numbers = {name: column for name, (_, column) in self.coords.items()}
        return (
            {name: np.float64(min(column)) for name, column in numbers.items()},
            {name: np.float64(max(column)) for name, column in numbers.items()},
        )


def choices(name: str, values: Iterable[Any] | Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Label and value of each choice of a static axis."""
    if isinstance(values, Mapping):
        labelled = list(values.items())
    else:
        labelled = [(value, value) for value in values]
        for value, _ in labelled:
            if not isinstance(value, int | float | str):
                raise InputError(
                    f"static axis {name!r} holds {value!r}, which has no label: "
                    "give a dict of label to value"
                )
    if not labelled:
        raise InputError(f"static axis {name!r} is empty: give at least one value")
    return labelled


def padded(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """`array` in the first corner of an array of `shape`, NaN elsewhere."""
    if array.shape == tuple(shape):
        return array
    output = np.full(shape, np.nan, np.result_type(array, np.float32))
    output[tuple(slice(size) for size in array.shape)] = array
    return output


def _number(name: str, value: Any) -> int | float:
    if isinstance(value, np.generic | jax.Array) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"axis {name!r} holds {value!r}, which is not a number: sweep it with static="
        )
    if not math.isfinite(value):
        raise InputError(f"axis {name!r} holds {value}: give finite numbers")
    if isinstance(value, int) and int(np.float32(value)) != value:
        raise InputError(
            f"axis {name!r} holds {value}, which 32-bit floats round to {int(np.float32(value))}: "
            "sweep it with static="
        )
    return value
