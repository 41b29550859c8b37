"""The grid of a sweep: axes of numbers, alone or moving together, and axes of structure."""

import copy
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from toymodels.errors import InputError

# A mapping is invariant in its keys, so that a dictionary of plain names needs a type of its own.
Axes: TypeAlias = (
    Mapping[str, Any] | Mapping[tuple[str, ...], Any] | Mapping[str | tuple[str, ...], Any]
)
Static: TypeAlias = Mapping[str, Any]


class Grid:
    """The product of axes of numbers.

    An axis is one dimension of the grid. It has the numbers of one name or of several names,
    which move together; its first name names the dimension.

    Attributes:
        coords: for each name, the dimension that it lies along and its numbers as given.
        shape: the length of each dimension, by its name.
    """

    def __init__(self, axes: Axes):
        """Check the axes and unpack them; see `toymodels.sweep`."""
        self.coords: dict[str, tuple[str, list[int | float]]] = {}
        self.shape: dict[str, int] = {}
        for key, values in axes.items():
            names = _names(key)
            rows = _rows(key, len(names), values)
            if not rows:
                raise InputError(f"axis {names[0]!r} is empty: give at least one number")
            for name, column in zip(names, zip(*rows, strict=True), strict=True):
                if name in self.coords:
                    raise InputError(f"axis {name!r} is given twice: give it once")
                self.coords[name] = (names[0], [_number(name, value) for value in column])
            if isinstance(key, str):  # numbers that move together may occur twice
                _check_different(f"axis {key!r}", self.coords[key][1])
            self.shape[names[0]] = len(rows)

    @property
    def size(self) -> int:
        """The number of points."""
        return math.prod(self.shape.values())

    @property
    def numbers(self) -> dict[str, NDArray[Any]]:
        """The number at every point, flat, for each name, as floats of Python."""
        return self.numbers_of(self.coords)

    def numbers_of(self, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """Return the numbers of some names at every point that these names tell apart, flat.

        Whole numbers are floats, too: a cell must not depend on whether its axis holds a
        fraction elsewhere.
        """
        apart = {self.coords[name][0] for name in names}
        lengths = {name: length for name, length in self.shape.items() if name in apart}
        flat: dict[str, NDArray[Any]] = {}
        for name in names:
            dimension, numbers = self.coords[name]
            shape = [-1 if other == dimension else 1 for other in lengths]
            column = np.asarray(numbers, float).reshape(shape)
            flat[name] = np.broadcast_to(column, tuple(lengths.values())).ravel()
        return flat

    def part(self, places: Mapping[str, slice]) -> "Grid":
        """Return the grid of the numbers at these places of each dimension."""
        part = copy.copy(self)
        part.coords = {
            name: (dimension, numbers[places[dimension]])
            for name, (dimension, numbers) in self.coords.items()
        }
        part.shape = {dimension: len(part.coords[dimension][1]) for dimension in self.shape}
        return part


def choices(axis: str, values: Any) -> list[tuple[Any, Any]]:
    """Return the label and the value of each choice of an axis.

    All labels are text, all are numbers or all are booleans, because they stand in one array and
    in files.

    Args:
        axis: the name of the axis in messages, such as "static axis 'hidden'".
        values: the values that the user gave, or a dict of label to value.
    """
    if isinstance(values, Mapping):
        labelled = [(_plain(label), value) for label, value in values.items()]
        remedy = "give labels that are numbers or text"
    else:
        labelled = [(_plain(value), _plain(value)) for value in _members(axis, values)]
        remedy = "give a dict of label to value"
    if not labelled:
        raise InputError(f"{axis} is empty: give at least one value")
    _check_labels(axis, [label for label, _ in labelled], remedy)
    return labelled


def is_text(name: str) -> bool:
    """Return whether files can hold a name: it has no null character and no half of a character."""
    return "\0" not in name and name.encode(errors="replace").decode() == name


def _check_labels(axis: str, labels: Sequence[Any], remedy: str) -> None:
    for label in labels:
        if not isinstance(label, int | float | str) or label != label:
            shown = " ".join(repr(label).split())  # the text of a key has two lines
            raise InputError(f"{axis} holds {shown}, which is no label: {remedy}")
        if isinstance(label, str) and not is_text(label):
            raise InputError(f"{axis} holds {label!r}, which no file can hold: {remedy}")
    if len({_kind(label) for label in labels}) > 1:
        raise InputError(
            f"{axis} has labels of different types, {', '.join(map(repr, labels))}: "
            "make all of them text or all of them numbers, with a dict of label to value"
        )
    if np.asarray(labels).dtype.kind not in "biufU":
        raise InputError(f"{axis} has a label beyond 64 bits: {remedy}")
    _check_different(axis, labels)


def _names(key: Any) -> tuple[str, ...]:
    """Return the names that a key of `axes` holds."""
    names = (key,) if isinstance(key, str) else key
    if not isinstance(names, tuple) or not names or not all(isinstance(n, str) for n in names):
        raise InputError(
            f"an axis is named {key!r}: give text, or a tuple of texts where several "
            "numbers move together"
        )
    return names


def _rows(key: str | tuple[str, ...], length: int, values: Any) -> list[tuple[Any, ...]]:
    """Return the numbers at each place of an axis, one for each of its names."""
    if isinstance(key, str):
        return [(value,) for value in _members(f"axis {key!r}", values)]
    return [_row(key, length, row) for row in _members(f"axis {key!r}", values, max_ndim=2)]


def _row(key: tuple[str, ...], length: int, row: Any) -> tuple[Any, ...]:
    if not isinstance(row, Iterable) or isinstance(row, str) or getattr(row, "ndim", 1) == 0:
        raise InputError(f"axis {key!r} holds {row!r}: give {length} numbers for each place")
    numbers = tuple(row)
    if len(numbers) != length:
        raise InputError(f"axis {key!r} holds {numbers!r}: give {length} numbers for each place")
    return numbers


def _members(axis: str, values: Any, max_ndim: int = 1) -> list[Any]:
    """Return the values of an axis; one number or text is an axis of one value."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return [values]
    ndim = getattr(values, "ndim", None)  # arrays have it, labelled or not
    if ndim == 0:
        return [_plain(values)]
    if ndim is not None and ndim > max_ndim:
        raise InputError(f"{axis} is an array of {ndim} dimensions: give it one")
    return list(values)


def _plain(value: Any) -> Any:
    """Convert a number of NumPy, JAX or xarray to a number of Python.

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


def _check_different(axis: str, values: Sequence[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise InputError(f"{axis} holds {value!r} twice: give every value once")
        seen.add(value)


def _number(name: str, value: Any) -> int | float:
    """Return a number of an axis as a number of Python that the floats of JAX can hold."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"axis {name!r} holds {value!r}, which is not a number: sweep it with static="
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"axis {name!r} holds {value}: give finite numbers")
    dtype = np.dtype(jnp.result_type(float))
    bits = 8 * dtype.itemsize
    smallest, largest = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    if abs(value) > largest or 0 < abs(value) < smallest:
        shown = f"{value:g}" if isinstance(value, float) else f"{str(value)[:9]}..."
        raise InputError(
            f"axis {name!r} holds {shown}, which floats of {bits} bits cannot hold: give 0 or "
            f"numbers from {smallest:.0e} to {largest:.0e}, or sweep the logarithm"
        )
    if isinstance(value, int) and int(dtype.type(value)) != value:
        raise InputError(
            f"axis {name!r} holds {value}, which floats of {bits} bits round to "
            f"{int(dtype.type(value))}: sweep it with static="
        )
    return value
