"""The padding of results: which part of an array a model really has, and how to take it out."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from toymodels.errors import InputError


def true_sizes(array: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return the true lengths of each dimension that a static axis pads.

    They are the coordinate `<dimension>_size`, along the static axes.
    """
    names = {str(dim): f"{dim}_size" for dim in array.dims}
    return {dim: array.coords[size] for dim, size in names.items() if size in array.coords}


def unpadded(array: xr.DataArray) -> xr.DataArray:
    """Cut the padding off an array of which one choice of each static axis was selected.

    Raises:
        InputError: the array has models of different sizes, or it was reordered so that the
            padding no longer stands at the end.
    """
    for dim, sizes in true_sizes(array).items():
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


def padded(pieces: Sequence[xr.Dataset], fixed: Mapping[str, int]) -> list[xr.Dataset]:
    """Pad datasets with NaN to one length along every dimension that is not in `fixed`."""
    longest = {dim: max(piece.sizes[dim] for piece in pieces) for dim in pieces[0].sizes}
    result: list[xr.Dataset] = []
    for piece in pieces:
        missing = {
            dim: (0, length - piece.sizes[dim])
            for dim, length in longest.items()
            if dim not in fixed and length > piece.sizes[dim]
        }
        if missing:
            # A truth value cannot be missing, and xarray would make it a Python object.
            piece = piece.map(lambda a: a.astype(np.float32) if a.dtype == bool else a)
            piece = piece.pad(missing)
        result.append(piece)
    return result
