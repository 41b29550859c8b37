"""The labelled grid of a sweep: axes of numbers, alone or zipped, and axes of structure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from toymodels.errors import InputError

Axes: TypeAlias = Mapping[str | tuple[str, ...], Any]
Static: TypeAlias = Mapping[str, Any]


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
            alone = isinstance(key, str)
            names = (key,) if alone else key
            named = isinstance(names, tuple)  # pyright: ignore[reportUnnecessaryIsInstance]
            if not named or not names or not all(map(_is_name, names)):
                raise InputError(
                    f"an axis is named {key!r}: give text, or a tuple of texts where several "
                    "numbers move together"
                )
            rows = _members(f"axis {key!r}", values, most=1 if alone else 2)
            rows = [[value] if alone else value for value in rows]
            if not rows:
                raise InputError(f"axis {names[0]!r} is empty: give at least one number")
            rows = [_row(key, len(names), row) for row in rows]
            for name, column in zip(names, zip(*rows, strict=True), strict=True):
                if name in self.coords:
                    raise InputError(f"axis {name!r} is given twice: give it once")
                self.coords[name] = (names[0], [_number(name, value) for value in column])
            if alone:  # a place of several numbers is not selected by its label
                _check_different(f"axis {key!r}", self.coords[names[0]][1])
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


def choices(axis: str, values: Any) -> list[tuple[Any, Any]]:
    """Label and value of each choice of an axis, given as values or as label to value.

    Labels are all text, all numbers or all booleans, for they stand in one array, and in files.

    Args:
        axis: what it is called in messages, such as "static axis 'hidden'".
        values: of the user.
    """
    if isinstance(values, Mapping):
        labelled = [(_plain(label), value) for label, value in values.items()]
        remedy = "give labels that are numbers or text"
    else:
        labelled = [(_plain(value), _plain(value)) for value in _members(axis, values)]
        remedy = "give a dict of label to value"
    if not labelled:
        raise InputError(f"{axis} is empty: give at least one value")
    labels = [label for label, _ in labelled]
    for label in labels:
        if not isinstance(label, int | float | str) or label != label:
            shown = " ".join(repr(label).split())  # that of a key has two lines
            raise InputError(f"{axis} holds {shown}, which is no label: {remedy}")
        if isinstance(label, str) and not is_text(label):
            raise InputError(f"{axis} holds {label!r}, which no file can hold: {remedy}")
    kinds = {_kind(label) for label in labels}
    if len(kinds) > 1:
        raise InputError(
            f"{axis} has labels of different types, {', '.join(map(repr, labels))}: "
            "make all of them text or all of them numbers, with a dict of label to value"
        )
    if np.asarray(labels).dtype.kind not in "biufU":
        raise InputError(f"{axis} has a label beyond 64 bits: {remedy}")
    _check_different(axis, labels)
    return labelled


def _is_name(name: Any) -> bool:
    return isinstance(name, str)


def is_text(name: str) -> bool:
    """Whether files can hold a name: no null character, and no half of a character."""
    return "\0" not in name and name.encode(errors="replace").decode() == name


def padded(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """`array` in the first corner of an array of `shape`, NaN elsewhere."""
    if array.shape == tuple(shape):
        return array
    output = np.full(shape, np.nan, np.result_type(array, np.float32))
    output[tuple(slice(size) for size in array.shape)] = array
    return output


def _members(axis: str, values: Any, most: int = 1) -> list[Any]:
    """The values of an axis; one number or text is an axis of one value."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return [values]
    ndim = getattr(values, "ndim", None)  # of arrays, labelled or not
    if ndim == 0:
        return [_plain(values)]
    if ndim is not None and ndim > most:
        raise InputError(f"{axis} is an array of {ndim} dimensions: give it one")
    return list(values)


def _row(key: str | tuple[str, ...], length: int, row: Any) -> tuple[Any, ...]:
    """The numbers of one place of an axis, one for each of its names."""
    if not isinstance(row, Iterable) or isinstance(row, str) or getattr(row, "ndim", 1) == 0:
        raise InputError(f"axis {key!r} holds {row!r}: give {length} numbers for each place")
    numbers = tuple(row)
    if len(numbers) != length:
        raise InputError(f"axis {key!r} holds {numbers!r}: give {length} numbers for each place")
    return numbers


def _plain(value: Any) -> Any:
    """A number of NumPy, JAX or xarray as a number of Python.

    A float of 32 bits becomes the shortest decimal that rounds to it, 0.1 and not
    0.10000000149, so that `.sel` finds it by that.
    """
    if value is np.ma.masked or getattr(value, "ndim", None) != 0 or not hasattr(value, "dtype"):
        return value
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):  # a key
        return value
    array = np.asarray(value)
    return float(str(array[()])) if array.dtype == np.float32 else array.item()


def _kind(label: Any) -> str:
    if isinstance(label, bool):
        return "boolean"
    return "text" if isinstance(label, str) else "number"


def _check_different(axis: str, places: Sequence[Any]) -> None:
    seen: set[Any] = set()
    for place in places:
        if place in seen:
            raise InputError(f"{axis} holds {place!r} twice: give every value once")
        seen.add(place)


def _number(name: str, value: Any) -> int | float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"axis {name!r} holds {value!r}, which is not a number: sweep it with static="
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"axis {name!r} holds {value}: give finite numbers")
    dtype = np.dtype(jnp.result_type(float))
    bits = 8 * dtype.itemsize
    least, most = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    if abs(value) > most or 0 < abs(value) < least:
        shown = f"{value:g}" if isinstance(value, float) else f"{str(value)[:9]}..."
        raise InputError(
            f"axis {name!r} holds {shown}, which floats of {bits} bits cannot hold: give 0 or "
            f"numbers from {least:.0e} to {most:.0e}, or sweep the logarithm"
        )
    if isinstance(value, int) and int(dtype.type(value)) != value:
        raise InputError(
            f"axis {name!r} holds {value}, which floats of {bits} bits round to "
            f"{int(dtype.type(value))}: sweep it with static="
        )
    return value
