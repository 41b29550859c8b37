"""Contents of a page: the axes, numbers, models and curves of results, and what is left out.

The dimensions of results are of two kinds. *Axes* of the sweep, such as `density` and `seed`, have
one label for each cell. *Inner* dimensions belong to one cell: they have no labels, or a sweep
recorded them as dimensions of a cell, or they are those of a weight matrix. The inner dimensions
of a variable decide which part of the page it is:

| inner dimensions  | part                                                 |
|-------------------|------------------------------------------------------|
| none              | a number of each cell: a colour of the map           |
| hidden, feature   | a model: vectors, Gram matrix, feature dimensionality |
| feature           | a number of each feature                             |
| one with labels   | a curve, such as a loss over `step`                  |

A model, or a number of each feature, can have one more inner dimension with labels, such as `step`.
"""

import json
from collections import Counter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Float

from toymodels.analysis.polytopes import identify
from toymodels.errors import InputError
from toymodels.sweeps.datasets import CELL_DIMS
from toymodels.theory.phases import Phase

__all__ = ["MAX_NUMBERS", "Contents", "Inner", "pack"]

_Parts: TypeAlias = dict[str, list[dict[str, Any]]]  # the entries of each part of a page

MAX_NUMBERS = 4_000_000
"""The most numbers that a page holds, which are 16 MB.

Of larger results it shows every second value of the longest axis, or fewer.
"""
MAX_NAMED = 5_000
"""The most models whose geometry is named."""
MAX_FEATURES = 64
"""A matrix with more columns than this is not drawn as a model."""
SELECTING = ("exact_loss", "loss")
"""The variables by which the best seed is chosen, the one with the lowest value.

The first of these that the results have is taken.
"""


class Inner(NamedTuple):
    """The names of the dimensions of a weight matrix.

    A dimension `hidden` is also found as `set_hidden` or `hidden_dimension`.
    """

    hidden: str = "hidden"
    feature: str = "feature"

    def part(self, dim: str) -> str | None:
        """Return "hidden" or "feature" if a dimension is one of them, or else None."""
        for part, name in zip(self._fields, self, strict=True):
            if dim == name or dim.endswith(f"_{name}") or dim.startswith(f"{name}_"):
                return part
        return None


class Contents(NamedTuple):
    """The contents of a page.

    Attributes:
        description: axes, numbers, models, curves and notes, as JSON can hold them.
        numbers: the arrays of all variables one after another, in the order of their dimensions.
    """

    description: dict[str, Any]
    numbers: Float[np.ndarray, " numbers"]


class _Block:
    """One long array that grows by the arrays of the variables."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.length = 0

    def put(self, values: xr.DataArray) -> dict[str, Any]:
        """Append an array; return where it begins, and its dimensions with their sizes."""
        flat = np.asarray(values.values, np.float32).ravel()
        place = {"offset": self.length, "dims": list(map(str, values.dims)), "shape": values.shape}
        self.arrays.append(flat)
        self.length += flat.size
        return place


def pack(results: xr.Dataset, title: str, inner: Inner) -> Contents:
    """Sort the variables of results into the parts of a page.

    Raises:
        ValueError: no variable holds a number for each cell, so that there is no map to draw.
    """
    kinds, left_out = _sort(results, inner)
    there_are = ", ".join(map(str, results)) or "none"
    results, notes = _thin(results[list(kinds)], kinds)
    block = _Block()
    parts: _Parts = {"numbers": [], "models": [], "features": [], "curves": []}
    for name, kind in kinds.items():
        values = results[name].transpose(*kind.axes, *kind.inner)
        parts[kind.part].append({"name": name, "label": _label(values), **block.put(values)})
        if kind.part == "numbers" and (labels := _phase_labels(name, values)):
            parts["numbers"][-1]["labels"] = labels
    notes += _add_geometries(parts, results, kinds, block)
    if not parts["numbers"]:
        _add_ends_of_curves(parts, results, block)
    if not parts["numbers"]:
        raise InputError(
            f"no variable has one number for each cell (variables are {there_are}): give results "
            "with a loss, or another number, for each cell"
        )
    named = {dim for kind in kinds.values() for dim in kind.axes}
    labelled = {dim for kind in kinds.values() for dim in kind.inner if dim in results.coords}
    description = {
        "title": title,
        "axes": [_axis(results[dim]) for dim in map(str, results.dims) if dim in named],
        "inner": [_axis(results[dim]) for dim in map(str, results.dims) if dim in labelled],
        "best_by": _selecting(kinds),
        "left_out": left_out,
        "notes": notes,
        "about": {str(name): str(value)[:400] for name, value in results.attrs.items()},
        **parts,
    }
    return Contents(description, np.concatenate(block.arrays))


def _add_geometries(
    parts: _Parts, results: xr.Dataset, kinds: dict[str, "_Kind"], block: _Block
) -> list[str]:
    """Add the geometry of each weight matrix to the numbers; return notes on what is not named."""
    notes: list[str] = []
    for name, kind in kinds.items():
        if kind.part != "models" or len(kind.inner) != 2:
            continue
        geometry, note = _geometry(results[name].transpose(*kind.axes, *kind.inner), kind)
        notes += note
        if geometry is not None:
            label = f"geometry of {name}"
            entry = {"name": label, "label": label, **block.put(geometry)}
            parts["numbers"].append(entry | {"labels": geometry.attrs["labels"]})
    return notes


def _add_ends_of_curves(parts: _Parts, results: xr.Dataset, block: _Block) -> None:
    """Add the last value of every curve to the numbers."""
    for entry in parts["curves"]:
        end = results[entry["name"]].isel({entry["dims"][-1]: -1})
        label = f"{entry['label']} at the end"
        parts["numbers"].append({"name": label, "label": label, **block.put(end)})


class _Kind(NamedTuple):
    """The part of the page that a variable is, with its axes and its inner dimensions."""

    part: str
    axes: tuple[str, ...]
    inner: tuple[str, ...]


def _sort(results: xr.Dataset, inner: Inner) -> tuple[dict[str, _Kind], list[tuple[str, str]]]:
    """Return the part of every variable that can be shown, and why others cannot."""
    recorded = set(json.loads(results.attrs.get(CELL_DIMS, "[]")))
    for values in results.data_vars.values():
        recorded |= set(json.loads(values.attrs.get(CELL_DIMS, "[]")))
    kinds: dict[str, _Kind] = {}
    left_out: list[tuple[str, str]] = []
    candidates = {**results.data_vars, **{
        name: values for name, values in results.coords.items() if name not in results.dims
    }}  # fmt: skip
    for name, values in candidates.items():
        kind = _kind(values, recorded, inner)
        if isinstance(kind, str):
            left_out.append((str(name), kind))
        else:
            kinds[str(name)] = kind
    return kinds, left_out


def _kind(values: xr.DataArray, recorded: set[str], inner: Inner) -> _Kind | str:
    """Return the part that a variable plays, or the reason why it plays none."""
    if values.dtype.kind not in "fiub":
        return f"it holds {values.dtype.name} and not real numbers"
    dims = list(map(str, values.dims))
    parts = {dim: inner.part(dim) for dim in dims}
    curve = [dim for dim in dims if dim in values.coords and (dim in recorded or dim == "step")]
    own = [dim for dim in dims if parts[dim] or dim in curve or dim not in values.coords]  # inner
    axes = tuple(dim for dim in dims if dim not in own)
    of_model = sorted((dim for dim in own if parts[dim]), key=lambda dim: parts[dim] != "hidden")
    found = [parts[dim] for dim in of_model]  # "hidden" comes before "feature"
    others = [dim for dim in own if not parts[dim]]
    # The rows of a matrix can have any name, such as "neuron", if they have no labels.
    if found == ["feature"] and len(others) == 1 and others[0] not in values.coords:
        found, of_model, others = ["hidden", "feature"], [*others, *of_model], []
    if len(others) > 1 or others != [dim for dim in others if dim in curve]:
        return f"the page draws no array with the dimensions {', '.join(own)}"
    if not own:
        return _Kind("numbers", axes, ()) if axes else "it is one number for all cells"
    if found == ["hidden", "feature"]:
        if values.sizes[of_model[1]] > MAX_FEATURES:
            return f"it has more than {MAX_FEATURES} features"
        return _Kind("models", axes, (*others, *of_model))
    if found == ["feature"]:
        return _Kind("features", axes, (*others, *of_model))
    if not found:
        return _Kind("curves", axes, tuple(others))
    return f"the page draws no array with the dimensions {', '.join(own)}"


def _thin(results: xr.Dataset, kinds: dict[str, _Kind]) -> tuple[xr.Dataset, list[str]]:
    """Leave out cells until a page can hold the rest, and say which ones."""
    axes = {dim for kind in kinds.values() for dim in kind.axes}
    steps = dict.fromkeys(axes, 1)
    while sum(values.size for values in results.values()) > MAX_NUMBERS:
        longest = max(axes, key=lambda dim: results.sizes[dim])
        if results.sizes[longest] < 2:
            raise InputError(
                f"one cell holds {sum(values.size for values in results.values()):,} numbers, and "
                f"a page at most {MAX_NUMBERS:,}: select some variables"
            )
        results = results.isel({longest: slice(None, None, 2)})
        steps[longest] *= 2
    notes = [
        f"The page shows every {step}th value of {dim}, because a page holds at most "
        f"{MAX_NUMBERS:,} numbers."
        for dim, step in steps.items()
        if step > 1
    ]
    return results, [note.replace("2th", "2nd") for note in notes]


def _axis(labels: xr.DataArray) -> dict[str, Any]:
    """Return name and labels of an axis; labels that are not finite numbers are words."""
    values = labels.values
    numeric = values.dtype.kind in "fiu" and bool(np.isfinite(values).all())
    return {
        "name": str(labels.name),
        "label": _label(labels),
        "values": values.tolist() if numeric else [str(value) for value in values],
        "numeric": numeric,
    }


def _label(values: xr.DataArray) -> str:
    """Return what the page calls a variable: its `long_name` with `units`, or its name."""
    known = {"density": "density p = 1 - S"}
    name = str(values.attrs.get("long_name") or known.get(str(values.name)) or values.name)
    units = values.attrs.get("units")
    return name.replace("_", " ") + (f", {units}" if units else "")


def _selecting(kinds: dict[str, _Kind]) -> str | None:
    """Return the name of the number by which the best seed is chosen, if there is one."""
    for name in SELECTING:
        if name in kinds and kinds[name].part == "numbers" and "seed" in kinds[name].axes:
            return name
    return None


def _phase_labels(name: str, values: xr.DataArray) -> list[str] | None:
    """Return the names of the phases, if the values are those of `theory.phases.Phase`."""
    known = values.values[np.isfinite(values.values)]
    if name.split("_")[-1] != "phase" or not np.isin(known, list(Phase)).all():
        return None
    return [phase.name.lower().replace("_", " ") for phase in Phase]


def _geometry(weights: xr.DataArray, kind: _Kind) -> tuple[xr.DataArray | None, list[str]]:
    """Return the geometry of every model as the number of a label, or a note that says why not."""
    models = weights.values.reshape(-1, *weights.shape[-2:])
    if len(models) > MAX_NAMED:
        why = f"there are {len(models):,} models, and {MAX_NAMED:,} are the most that it names"
        return None, [f"The page does not name the geometry of {weights.name}, because {why}."]
    names = [_name(model) for model in models]
    labels = [name for name, _ in Counter(names).most_common() if name]
    numbers = {name: number for number, name in enumerate(labels)} | {"": np.nan}
    values = np.array([numbers[name] for name in names]).reshape(weights.shape[:-2])
    coords = {dim: weights[dim] for dim in kind.axes}
    return xr.DataArray(values, coords, kind.axes, attrs={"labels": labels}), []


def _name(weights: Float[np.ndarray, "hidden features"]) -> str:
    """Return the polytopes of a model in words, such as "digon x 2, triangle", or "" for NaN."""
    if not np.isfinite(weights).all():
        return ""
    found = identify(weights)
    shapes = [component.shape.value for component in found.components]
    counts = [
        *Counter(sorted(shapes)).most_common(),
        ("not represented", len(found.not_represented)),
    ]
    return ", ".join(f"{name} x {count}" if count > 1 else name for name, count in counts if count)
