"""Models read back from labelled results: the best seed, and the parameters of one model."""

import json
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from toymodels import checks
from toymodels.errors import InputError
from toymodels.sweeps.datasets import CELL_DIMS
from toymodels.sweeps.padding import unpadded


def best_of(results: xr.Dataset, by: str, *, over: str = "seed") -> xr.Dataset:
    """Choose the member along `over` with the lowest `by`, in each cell.

    A cell that diverged is never chosen; if all members diverged, the result is NaN. Choose by a
    loss that is exact, or that was evaluated on examples that all members share, as the loss of
    `train` is. If each member were evaluated on examples of its own, the lowest estimate would
    be the luckiest one, and would tend to lie below the true loss of every member.

    Args:
        results: the results of a sweep.
        by: a variable that has `over` among its dimensions and no dimension of its own.
        over: the dimension to choose along, usually `seed`.

    Returns:
        `results` without the dimension `over`. The label that was chosen is kept as a
        coordinate.
    """
    _check_choice(results, by, over)
    lowest = results[by].fillna(math.inf).argmin(over)
    best = results.isel({over: lowest})
    return best.assign_attrs(selection=f"lowest {by} of {results.sizes[over]} over {over}")


def mean_without_worst(
    results: xr.Dataset, by: str, *, of: int, over: str = "seed", seed: int = 0
) -> xr.Dataset:
    """Average `of` random members along `over`, less the one of the highest `by`, in each cell.

    The paper's phase diagrams show it, with ten members. Members are drawn anew in each cell, so
    that the members of neighbouring cells do not share their starts, as those of a sweep do.

    Args:
        results: the results of a sweep, without the variables that are not to be averaged.
        by: a variable that has `over` among its dimensions and no dimension of its own.
        of: the number of members that are drawn, 2 or more; all if there are fewer.
        over: the dimension to average along, usually `seed`.
        seed: decides the draw.

    Returns:
        `results` without the dimension `over`. A member that diverged is left out, too. If several
        members share the highest `by`, one of them is left out.
    """
    _check_choice(results, by, over)
    checks.count("of", of, minimum=2)
    ranked = results[by].transpose(..., over)
    members = np.broadcast_to(np.arange(ranked.sizes[over]), ranked.shape)
    drawn = np.random.default_rng(seed).permuted(members, axis=-1)[..., :of]
    chosen = results.isel({over: xr.DataArray(drawn, dims=(*ranked.dims[:-1], "_drawn"))})
    worst = chosen[by].fillna(-math.inf).argmax("_drawn")
    places = xr.DataArray(np.arange(drawn.shape[-1]), dims="_drawn")
    return chosen.where(chosen[by].notnull() & (places != worst)).mean("_drawn")


def params(results: xr.Dataset, name: str = "params") -> PyTree:
    """Return the arrays of one nested output of a cell, as the cell returned them.

    If the cell returns `{"params": trained.params, ...}` and one cell is selected,
    `params(results.sel(density=0.1, seed=0))` returns the parameters that `toymodels.activations`,
    `toymodels.intervene` and `model.apply({"params": ...}, x)` take.

    Args:
        results: the results of a sweep. One choice of every static axis that changes a shape must
            be selected.
        name: the name of the output.

    Returns:
        Dicts in dicts of arrays, without padding. Dimensions of the sweep that were not selected
        come first; map over them with `vmap`. Tuples have become dicts with the keys "0", "1", ...
    """
    _check_dataset(results)
    tree: dict[str, Any] = {}
    for variable in map(str, results.data_vars):
        first, *inner = variable.split(".")
        if first != name or not inner:
            continue
        array = unpadded(results[variable])
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


def _check_choice(results: xr.Dataset, by: str, over: str) -> None:
    """Refuse to choose by what is not one number per cell."""
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


def _check_dataset(results: Any) -> None:
    if not isinstance(results, xr.Dataset):
        raise InputError(
            f"results is of type {type(results).__name__}: give the xarray.Dataset of a sweep"
        )
