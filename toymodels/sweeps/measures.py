"""`apply`: call a function of one model with every model of labelled results."""

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from toymodels.engine.decompositions import one_at_a_time
from toymodels.errors import InputError
from toymodels.sweeps.datasets import CELL_DIMS
from toymodels.sweeps.padding import padded, true_sizes, unpadded


def apply(
    measure: Callable[..., Any],
    *arrays: xr.DataArray,
    model_dims: Sequence[str] | None = None,
    dims: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    float64: bool = False,
) -> Any:
    """Call a function of ONE model with each model in labelled arrays.

    `apply(geometry.feature_dimensionality, results.weights)` calls the measure with the weights
    of each cell, without padding, all in one compiled program, and labels what comes back.

    Args:
        measure: a function of the arrays of one model, which JAX can compile. Give its keyword
            arguments with a lambda or `functools.partial`.
        *arrays: arrays of the models, or numbers of their cells, such as `results.density`. They
            are matched by their dimensions.
        model_dims: the dimensions of one model, in the order in which the measure takes them.
            With an empty tuple the measure is called with numbers alone. The default is the
            dimensions that each output of the sweep has of its own.
        dims: the names of the dimensions of what the measure returns; for several outputs, the
            names by the name of the output. The default is the dimension of `arrays` with which a
            length grows, or else `<output>_0`, ...
        float64: whether to compute in double precision, as `toymodels.theory` does.

    Returns:
        A `DataArray` if the measure returns one array, a `Dataset` if it returns several (a
        `NamedTuple` or a dict). A model with any NaN gives NaN.

    Raises:
        InputError: the arrays do not fit each other, or the names do not fit what the measure
            returns.
    """
    _check(measure, arrays)
    own = _model_dims(arrays, model_dims)
    if float64:
        arrays = tuple(a.astype(float) if a.dtype.kind in "fiu" else a for a in arrays)
    static_axes = _padding_axes(arrays, own)
    with jax.enable_x64(True) if float64 else contextlib.nullcontext():
        pieces: list[xr.Dataset] = []
        for place in np.ndindex(*static_axes.values()):
            chosen = dict(zip(static_axes, place, strict=True))
            alike = [
                unpadded(array.isel({d: [i] for d, i in chosen.items() if d in array.dims}))
                for array in arrays
            ]
            pieces.append(_measured(measure, alike, own, dims))
    joined = _joined(pieces, static_axes)
    leading = [dim for array in arrays for dim in array.dims if dim not in own]
    joined = joined.transpose(*dict.fromkeys(leading), ...)
    sizes = {size.name: size for array in arrays for size in true_sizes(array).values()}
    kept = {n: size for n, size in sizes.items() if str(n).removesuffix("_size") in joined.dims}
    joined = joined.assign_coords({n: size.reset_coords(drop=True) for n, size in kept.items()})
    return joined[""].rename(None) if list(joined.data_vars) == [""] else joined


def _check(measure: Any, arrays: Sequence[Any]) -> None:
    if not callable(measure):
        raise InputError(
            f"measure is of type {type(measure).__name__}: give the function itself, and then the "
            "arrays"
        )
    if not arrays:
        raise InputError("apply was given no array: give those that the measure takes")
    for array in arrays:
        if not isinstance(array, xr.DataArray):
            raise InputError(
                f"an array of apply is of type {type(array).__name__}: give a labelled array of a "
                "sweep, such as results.weights"
            )
        if not array.size:
            raise InputError(f"apply was given {array.name!r} without any model: select some")


def _model_dims(arrays: Sequence[xr.DataArray], given: Sequence[str] | None) -> list[str]:
    """Return the dimensions of one model."""
    if given is not None:
        found = [given] if isinstance(given, str) else list(given)
    else:
        recorded = [json.loads(a.attrs[CELL_DIMS]) for a in arrays if CELL_DIMS in a.attrs]
        found = list(dict.fromkeys(dim for dims in recorded for dim in dims))
    known = {str(dim) for array in arrays for dim in array.dims}
    if missing := [dim for dim in found if dim not in known]:
        raise InputError(
            f"{missing[0]!r} is no dimension of the arrays: name those of one model with "
            f"model_dims=, of {', '.join(sorted(known))}"
        )
    if not found and given is None:
        raise InputError(
            "the arrays do not say which dimensions make one model: name them with model_dims=, "
            f"of {', '.join(sorted(known)) or 'none'}"
        )
    return found


def _padding_axes(arrays: Sequence[xr.DataArray], own: Sequence[str]) -> dict[str, int]:
    """Return the static axes that decide the length of a dimension, with their own lengths."""
    sizes = [size for array in arrays for size in true_sizes(array).values()]
    axes = {str(dim): length for size in sizes for dim, length in size.sizes.items()}
    if clash := axes.keys() & set(own):
        raise InputError(f"{sorted(clash)[0]!r} is a static axis: leave it out of model_dims=")
    return axes


class _Models(NamedTuple):
    """Models of one shape.

    Attributes:
        leading: the dimensions along which the models lie, with their lengths.
        sizes: the length of every dimension.
        values: for each array, its values as models x the dimensions of one model.
    """

    leading: dict[str, int]
    sizes: dict[str, int]
    values: list[NDArray[Any]]

    @property
    def has_nan(self) -> NDArray[Any]:
        """Say for each model, along the leading dimensions, whether it has any NaN."""
        nan = [_has_nan(values) for values in self.values]
        return np.any(nan, axis=0).reshape([*self.leading.values()])


def _models(arrays: Sequence[xr.DataArray], own: Sequence[str]) -> _Models:
    """Broadcast arrays against each other, and flatten all dimensions but those of one model."""
    sizes: dict[str, int] = {}
    labels: dict[str, Any] = {}
    for array in arrays:
        for dim, length in array.sizes.items():
            if sizes.setdefault(str(dim), length) != length:
                raise InputError(f"the arrays differ in length along {dim!r}: select the same part")
            if dim in array.indexes:
                if dim in labels and not array.indexes[dim].equals(labels[str(dim)].to_index()):
                    raise InputError(f"the arrays differ in labels along {dim!r}: select the same")
                labels[str(dim)] = array.coords[dim]
    leading = {dim: length for dim, length in sizes.items() if dim not in own}
    values: list[NDArray[Any]] = []
    for array in arrays:
        mine = [dim for dim in own if dim in array.dims]
        broad = array.variable.set_dims({**leading, **{dim: sizes[dim] for dim in mine}})
        ordered = broad.transpose(*leading, *mine).values
        values.append(ordered.reshape(math.prod(leading.values()), *(sizes[d] for d in mine)))
    return _Models(leading, sizes, values)


def _measured(
    measure: Callable[..., Any],
    arrays: Sequence[xr.DataArray],
    own: Sequence[str],
    dims: Mapping[str, Sequence[str]] | Sequence[str] | None,
) -> xr.Dataset:
    """Call the measure with each model, where all models have the same shape."""
    models = _models(arrays, own)
    mapped = jax.jit(one_at_a_time(jax.vmap(measure)))
    outputs = _by_name(mapped(*map(jnp.asarray, models.values)))
    if not outputs:
        raise InputError("the measure returns nothing: return an array, or a dict of arrays")
    variables: dict[str, xr.Variable] = {}
    for name, output in outputs.items():
        given = dims.get(name) if isinstance(dims, Mapping) else dims
        names = given if given is not None else _grown(measure, arrays, own, models.sizes)[name]
        variables[name] = _labelled(name, np.asarray(output), list(names), models)
    dimensions = {dim for variable in variables.values() for dim in variable.dims}
    coords = {
        name: coord.variable
        for array in arrays
        for name, coord in array.coords.items()
        if set(coord.dims) <= dimensions and not str(name).endswith("_size")
    }
    return xr.Dataset(variables, coords)


def _labelled(name: str, output: NDArray[Any], dims: list[str], models: _Models) -> xr.Variable:
    """Name the dimensions of one output, and make it NaN where a model has NaN."""
    values = output.reshape((*models.leading.values(), *output.shape[1:]))
    own = values.ndim - len(models.leading)
    if len(dims) != own:
        raise InputError(
            f"the measure gives {name or 'an array'} of {own} dimensions of its own: name them "
            f"with dims=, not {tuple(dims)}"
        )
    twice = {dim for dim in dims if dims.count(dim) > 1}
    if clash := {name, *dims}.intersection(models.leading) or twice:
        raise InputError(
            f"{sorted(clash)[0]!r} is a dimension of the models already: give what the measure "
            "returns other names"
        )
    if (broken := models.has_nan).any():
        mask = broken.reshape(*broken.shape, *[1] * own)
        values = np.where(mask, np.asarray(np.nan, np.result_type(values, np.float32)), values)
    attributes = {CELL_DIMS: json.dumps(dims)} if dims else {}
    return xr.Variable((*models.leading, *dims), values, attributes)


def _joined(pieces: Sequence[xr.Dataset], static_axes: Mapping[str, int]) -> xr.Dataset:
    """Concatenate the datasets of all choices of the static axes, padded to one length."""
    parts = padded(pieces, static_axes)
    for dim, length in reversed([*static_axes.items()]):
        rows = [parts[start : start + length] for start in range(0, len(parts), length)]
        parts = [
            xr.concat(
                row,
                dim,
                data_vars="minimal",
                coords="minimal",
                compat="override",
                join="override",
                combine_attrs="override",
            )
            for row in rows
        ]
    return parts[0]


def _by_name(outputs: Any) -> dict[str, Any]:
    """Return the arrays that a measure returns, by name; a single array has the name ""."""
    leaves = jax.tree_util.tree_leaves_with_path(outputs)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _has_nan(values: NDArray[Any]) -> NDArray[Any]:
    """Return for each row whether it has any NaN."""
    if not np.issubdtype(values.dtype, np.inexact):
        return np.zeros(len(values), bool)
    return np.asarray(np.isnan(values).any(axis=tuple(range(1, values.ndim))))


def _grown(
    measure: Callable[..., Any],
    arrays: Sequence[xr.DataArray],
    own: Sequence[str],
    sizes: Mapping[str, int],
) -> dict[str, list[str]]:
    """Name the dimensions of each output.

    The measure is traced once as it is, and once with each dimension of a model one longer. A
    dimension of an output that grows with a dimension of the model takes its name.
    """

    def shapes(longer: str | None) -> dict[str, Any]:
        lengths = {dim: sizes[dim] + (dim == longer) for dim in own}
        models = [
            jax.ShapeDtypeStruct(
                [lengths[dim] for dim in own if dim in array.dims],
                jax.dtypes.canonicalize_dtype(array.dtype),
            )
            for array in arrays
        ]
        return {name: out.shape for name, out in _by_name(jax.eval_shape(measure, *models)).items()}

    before = shapes(None)
    names = {name: [f"{name}_{i}" for i in range(len(shape))] for name, shape in before.items()}
    for dim in own:
        try:
            after = shapes(dim)
        except Exception:  # the measure works for this length alone
            continue
        for name in before:
            for place, lengths in enumerate(zip(before[name], after[name], strict=True)):
                if lengths[0] != lengths[1]:
                    names[name][place] = f"{dim}_{place}" if dim in names[name] else dim
    return names
