"""From labelled results back to arrays: the best seed, the parameters of a model, its measures."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree
from numpy.typing import NDArray

from toymodels.engine.decompositions import one_at_a_time
from toymodels.errors import InputError
from toymodels.sweeps.datasets import CELL_DIMS


def best_of(results: xr.Dataset, by: str, *, over: str = "seed") -> xr.Dataset:
    """For each cell the member along `over` with the lowest `by`.

    A cell that diverged is never chosen; where all did, the result is NaN. Choose by a loss that
    is exact or on examples common to all members, as that of `train` is: of independent estimates
    the lowest is the luckiest, and tends to lie below the true loss of every member.

    Args:
        results: as `sweep` returns them.
        by: a variable that has `over` among its dimensions and no dimension of its own.
        over: the dimension to choose along, usually `seed`.

    Returns:
        `results` without the dimension `over`, whose chosen label is kept as a coordinate.
    """
    _check_dataset(results)
    if by not in results or over not in results[by].dims:
        candidates = [str(name) for name in results if over in results[name].dims]
        raise InputError(
            f"cannot choose by {by!r} over {over!r}: variables along {over!r} are "
            f"{', '.join(candidates) or 'none'}"
        )
    recorded = json.loads(results[by].attrs.get(CELL_DIMS, "[]"))
    own = sorted(str(d) for d in results[by].dims if d not in results.coords or d in recorded)
    if own:
        raise InputError(f"{by!r} is not one number per cell: it has dimensions {own}")
    lowest = results[by].fillna(math.inf).argmin(over)
    best = results.isel({over: lowest})
    return best.assign_attrs(selection=f"lowest {by} of {results.sizes[over]} over {over}")


def params(results: xr.Dataset, name: str = "params") -> PyTree:
    """The arrays of one nested output of a cell, as the cell returned them.

    Where the cell returns `{"params": trained.params, ...}` and one cell is selected,
    `params(results.sel(density=0.1, seed=0))` is what `toymodels.activations`, `intervene` and
    `model.apply({"params": ...}, x)` take.

    Args:
        results: of a sweep; a choice of every static axis that changes a shape must be selected.
        name: of the output.

    Returns:
        Dicts in dicts of arrays, without padding. Dimensions of the sweep that are left come
        first; `vmap` over them. Tuples have become dicts of "0", "1", ...
    """
    _check_dataset(results)
    tree: dict[str, Any] = {}
    for variable in map(str, results.data_vars):
        first, *inner = variable.split(".")
        if first != name or not inner:
            continue
        array = _cut(results[variable])
        node = tree
        for step in inner[:-1]:
            node = node.setdefault(step, {})
        node[inner[-1]] = jnp.asarray(array.values)
    if not tree:
        nested = sorted({str(v).split(".")[0] for v in results.data_vars if "." in str(v)})
        raise InputError(
            f"no output {name!r} holds arrays: return {{{name!r}: trained.params}} from the cell; "
            f"those that do are {', '.join(nested) or 'none'}"
        )
    return tree


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
        measure: a function of arrays of one model, that JAX can compile. Give its keyword
            arguments with a lambda or `functools.partial`.
        *arrays: of the models, or numbers of their cells, such as `results.density`. They are
            matched by their dimensions.
        model_dims: the dimensions of one model, in the order in which the measure takes them;
            an empty one calls the measure with numbers alone. The default are the own dimensions
            of each output of a sweep.
        dims: names of the dimensions of what the measure returns; of several outputs, name to
            names. The default is the dimension of `arrays` with which a length grows, or else
            `<output>_0`, ...
        float64: compute in double precision, as theory does.

    Returns:
        A `DataArray` of one output, a `Dataset` of several (a `NamedTuple`, a dict). A model
        with any NaN gives NaN.
    """
    if not callable(measure):  # pyright: ignore[reportUnnecessaryComparison]
        raise InputError(
            f"measure is of type {type(measure).__name__}: give the function itself, and then the "
            "arrays"
        )
    if not arrays:
        raise InputError("apply was given no array: give those that the measure takes")
    for array in arrays:
        if not isinstance(array, xr.DataArray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"an array of apply is of type {type(array).__name__}: give a labelled array of a "
                "sweep, such as results.weights"
            )
        if not array.size:
            raise InputError(f"apply was given {array.name!r} without any model: select some")
    own = _model_dims(arrays, model_dims)
    if float64:
        arrays = tuple(a.astype(float) if a.dtype.kind in "fiu" else a for a in arrays)
        with jax.enable_x64(True):
            return apply(measure, *arrays, model_dims=own, dims=dims)
    along = _padding_axes(arrays, own)
    pieces = [
        _mapped(measure, [_cut(array) for array in piece], own, dims)
        for piece in _unpadded(arrays, along)
    ]
    joined = _joined(pieces, along)
    leading = [dim for array in arrays for dim in array.dims if dim not in own]
    joined = joined.transpose(*dict.fromkeys(leading), ...)
    sizes = {size.name: size for array in arrays for size in _sizes(array).values()}
    kept = {name: size for name, size in sizes.items() if str(name)[:-5] in joined.dims}
    joined = joined.assign_coords(
        {name: size.reset_coords(drop=True) for name, size in kept.items()}
    )
    return joined[""].rename(None) if list(joined.data_vars) == [""] else joined


def _check_dataset(results: Any) -> None:
    if not isinstance(results, xr.Dataset):
        raise InputError(
            f"results is of type {type(results).__name__}: give the xarray.Dataset of a sweep"
        )


def _model_dims(arrays: Sequence[xr.DataArray], given: Sequence[str] | None) -> list[str]:
    """The dimensions of one model."""
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


def _sizes(array: xr.DataArray) -> dict[str, xr.DataArray]:
    """Dimension to its true lengths, of those that a static axis pads."""
    dims = {str(dim): f"{dim}_size" for dim in array.dims}
    return {dim: array.coords[size] for dim, size in dims.items() if size in array.coords}


def _padding_axes(arrays: Sequence[xr.DataArray], own: Sequence[str]) -> dict[str, int]:
    """The static axes that decide the length of a dimension, and how many choices each has."""
    sizes = [size for array in arrays for size in _sizes(array).values()]
    along = {str(dim): length for size in sizes for dim, length in size.sizes.items()}
    if clash := along.keys() & set(own):
        raise InputError(f"{sorted(clash)[0]!r} is a static axis: leave it out of model_dims=")
    return along


def _unpadded(
    arrays: Sequence[xr.DataArray], along: Mapping[str, int]
) -> Iterator[list[xr.DataArray]]:
    """The arrays for each choice of these axes."""
    for place in np.ndindex(*along.values()):
        here = dict(zip(along, place, strict=True))
        yield [array.isel({d: [i] for d, i in here.items() if d in array.dims}) for array in arrays]


def _joined(pieces: Sequence[xr.Dataset], along: Mapping[str, int]) -> xr.Dataset:
    """One dataset of those of each choice, padded with NaN where they differ in length."""
    longest = {dim: max(piece.sizes[dim] for piece in pieces) for dim in pieces[0].sizes}
    padded: list[xr.Dataset] = []
    for piece in pieces:
        short = {dim: (0, length - piece.sizes[dim]) for dim, length in longest.items()}
        short = {dim: widths for dim, widths in short.items() if widths[1] and dim not in along}
        if short:  # a truth value cannot be missing, and xarray would make an object of it
            piece = piece.map(
                lambda array: array.astype(np.float32) if array.dtype == bool else array
            )
            piece = piece.pad(short)
        padded.append(piece)
    for dim, length in reversed([*along.items()]):
        rows = [padded[start : start + length] for start in range(0, len(padded), length)]
        padded = [
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
    return padded[0]


def _cut(array: xr.DataArray) -> xr.DataArray:
    """One choice of the static axes without its padding."""
    for dim, sizes in _sizes(array).items():
        lengths = np.unique(sizes.values)
        if len(lengths) > 1:
            axes = ", ".join(map(str, sizes.dims))
            raise InputError(f"{array.name!r} is padded along {dim!r}: select one {axes}")
        length = int(lengths[0])
        if array.isel({dim: slice(length, None)}).notnull().any():
            raise InputError(
                f"{array.name!r} has numbers beyond its true length {length} along {dim!r}: "
                f"put no part of {dim!r} in another place before the padding is taken off"
            )
        array = array.isel({dim: slice(length)})
    return array


def _mapped(
    measure: Callable[..., Any],
    arrays: Sequence[xr.DataArray],
    own: Sequence[str],
    dims: Mapping[str, Sequence[str]] | Sequence[str] | None,
) -> xr.Dataset:
    """The measure of each model, where all have the same shape."""
    shapes: dict[str, int] = {}
    labels: dict[str, Any] = {}
    for array in arrays:
        for dim, length in array.sizes.items():
            if shapes.setdefault(str(dim), length) != length:
                raise InputError(f"the arrays differ in length along {dim!r}: select the same part")
            if dim in array.indexes:
                if dim in labels and not array.indexes[dim].equals(labels[str(dim)].to_index()):
                    raise InputError(f"the arrays differ in labels along {dim!r}: select the same")
                labels[str(dim)] = array.coords[dim]
    leading = {dim: length for dim, length in shapes.items() if dim not in own}
    models = math.prod(leading.values())
    flat: list[NDArray[Any]] = []
    for array in arrays:
        mine = [dim for dim in own if dim in array.dims]
        broad = array.variable.set_dims({**leading, **{dim: shapes[dim] for dim in mine}})
        values = broad.transpose(*leading, *mine).values
        flat.append(values.reshape(models, *(shapes[dim] for dim in mine)))
    outputs = _named(jax.jit(one_at_a_time(jax.vmap(measure)))(*map(jnp.asarray, flat)))
    if not outputs:
        raise InputError("the measure returns nothing: return an array, or a dict of arrays")
    broken = np.any([_has_nan(values) for values in flat], axis=0).reshape([*leading.values()])
    variables: dict[str, Any] = {}
    for name, output in outputs.items():
        values = np.asarray(output).reshape((*leading.values(), *output.shape[1:]))
        given = dims.get(name) if isinstance(dims, Mapping) else dims
        names = given if given is not None else _grown(measure, arrays, own, shapes)[name]
        if len(names) != values.ndim - len(leading):
            raise InputError(
                f"the measure gives {name or 'an array'} of {values.ndim - len(leading)} "
                f"dimensions of its own: name them with dims=, not {tuple(names)}"
            )
        if clash := {name, *names}.intersection(leading) or _twice(names):
            raise InputError(
                f"{sorted(clash)[0]!r} is a dimension of the models already: give what the measure "
                "returns other names"
            )
        if broken.any():
            mask = broken.reshape(*broken.shape, *[1] * len(names))
            values = np.where(mask, np.asarray(np.nan, np.result_type(values, np.float32)), values)
        attributes = {CELL_DIMS: json.dumps(list(names))} if names else {}
        variables[name] = ((*leading, *names), values, attributes)
    kept = {d for names, *_ in variables.values() for d in names}
    coords: dict[Any, Any] = {}
    for array in arrays:
        for name, coord in array.coords.items():
            if set(coord.dims) <= kept and not str(name).endswith("_size"):
                coords[name] = coord.variable
    return xr.Dataset(variables, coords)


def _twice(names: Sequence[str]) -> set[str]:
    return {name for name in names if list(names).count(name) > 1}


def _named(outputs: Any) -> dict[str, Any]:
    """Name to array of what a measure returns; the only array has no name."""
    leaves = jax.tree_util.tree_leaves_with_path(outputs)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _has_nan(values: NDArray[Any]) -> NDArray[Any]:
    floats = np.issubdtype(values.dtype, np.inexact)
    wrong = np.isnan(values) if floats else np.zeros(values.shape, bool)
    return np.asarray(wrong.any(axis=tuple(range(1, values.ndim))))


def _grown(
    measure: Callable[..., Any],
    arrays: Sequence[xr.DataArray],
    own: Sequence[str],
    shapes: Mapping[str, int],
) -> dict[str, list[str]]:
    """The dimensions of each output, found by tracing with each dimension one longer."""

    def traced(longer: str | None) -> dict[str, Any]:
        lengths = {dim: shapes[dim] + (dim == longer) for dim in own}
        models = [
            jax.ShapeDtypeStruct(
                [lengths[dim] for dim in own if dim in array.dims],
                jax.dtypes.canonicalize_dtype(array.dtype),
            )
            for array in arrays
        ]
        return _named(jax.eval_shape(measure, *models))

    as_is = traced(None)
    names = {n: [f"{n}_{i}" for i in range(len(out.shape))] for n, out in as_is.items()}
    for dim in own:
        try:
            grown = traced(dim)
        except Exception:  # a measure of this length alone
            continue
        for name, output in as_is.items():
            for place, (before, after) in enumerate(
                zip(output.shape, grown[name].shape, strict=True)
            ):
                if before != after:
                    names[name][place] = f"{dim}_{place}" if dim in names[name] else dim
    return names
