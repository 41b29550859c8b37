"""Whole runs at a glance: the effect of patching every place of a model.

A *place* of a site is an entry along its first axis: a unit of a vector, a position of a sequence,
or a head.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from toymodels import sites
from toymodels.errors import InputError
from toymodels.interventions.batches import Metric
from toymodels.interventions.effects import Patching, patching
from toymodels.interventions.parts import Part, check_parts


def places(model: nn.Module, params: PyTree, example: PyTree) -> dict[str, Part]:
    """Return all places of each site of a model, as one batch of parts by the name of the site.

    `jax.vmap(lambda part: ...)(places(model, params, example)["hidden"])` goes over the units of
    the hidden layer. Sites that do not hold one array with an axis are left out.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        example: ONE example.
    """
    values = jax.eval_shape(lambda: sites.activations(model, params, example))
    found = {
        site: Part(site, (jnp.arange(value.shape[0]),))
        for site, value in values.items()
        if isinstance(value, jax.ShapeDtypeStruct) and value.shape
    }
    if not found:
        raise InputError(
            "no site of this model holds an array with an axis: name its values with Site(name=...)"
        )
    return found


def patching_map(
    model: nn.Module,
    params: PyTree,
    clean: PyTree,
    corrupt: PyTree,
    metric: Metric,
    *,
    parts: Mapping[str, Part] | None = None,
) -> dict[str, Patching]:
    """Return the effects of patching each of many parts alone, in one compiled call.

    `label` makes a labelled array of the result, ready for a heat map. The function is pure, so
    that `jax.vmap` goes over pairs, and a sweep over models.

    The arguments are those of `patching`, but for `parts`: batches of parts by any names, such as
    `{"features": interventions.directions("hidden", weights)}`. The default is all `places`.

    Returns:
        The effects by the names of the batches, one along the leading axis for each part.
    """
    chosen = places(model, params, clean) if parts is None else parts
    if not isinstance(chosen, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"parts is of type {type(chosen).__name__}: give a dictionary from any names to "
            "batches of parts"
        )
    for name, batch in chosen.items():
        check_parts(f"parts[{name!r}]", batch)

    @jax.jit
    def effects(params: PyTree, clean: PyTree, corrupt: PyTree, parts: PyTree) -> PyTree:
        def one(part: Part) -> Patching:
            return patching(model, params, clean, corrupt, part, metric)

        return {name: jax.vmap(one)(batch) for name, batch in parts.items()}

    return effects(params, clean, corrupt, dict(chosen))


def label(effects: Mapping[str, Patching], *dims: str) -> xr.Dataset:
    """Return the effects of `patching_map` as labelled arrays over sites and places.

    `plotting.heat_map(axes, label(effects).sufficiency, x="place", y="site")` draws them.

    Args:
        effects: what `patching_map` returns, under `jax.vmap` or not.
        *dims: the names of the leading axes that `jax.vmap` added, such as "pair".

    Returns:
        One variable for each field of `Patching`, over `dims`, `site` and `place`. It is NaN where
        a site has fewer places than another.
    """
    if not isinstance(effects, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"the effects are of type {type(effects).__name__}: give what patching_map returns"
        )
    if not effects:
        raise InputError("there are no effects to label: give what patching_map returns")
    if taken := [dim for dim in dims if dim in ("site", "place") or dims.count(dim) > 1]:
        raise InputError(
            f"{taken[0]!r} names another axis already: give each leading axis a name of its own, "
            'such as "pair"'
        )
    longest = 0
    for name, effect in effects.items():
        shape = np.shape(effect.denoised)
        if len(shape) != len(dims) + 1:
            raise InputError(
                f"the effects of {name!r} have {len(shape) - 1} axes before that of the places: "
                f"name each of them, not {', '.join(map(repr, dims)) or 'none'}"
            )
        longest = max(longest, shape[-1])

    def padded(values: PyTree) -> np.ndarray:
        array = np.asarray(values, float)
        widths = [(0, 0)] * (array.ndim - 1) + [(0, longest - array.shape[-1])]
        return np.pad(array, widths, constant_values=np.nan)

    variables = {
        field: (
            (*dims, "site", "place"),
            np.stack([padded(getattr(effect, field)) for effect in effects.values()], axis=-2),
        )
        for field in Patching._fields
    }
    return xr.Dataset(variables, {"site": list(effects), "place": np.arange(longest)})
