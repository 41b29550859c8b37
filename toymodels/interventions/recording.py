"""Recording: the value at every site of a model for a whole batch, as a labelled Dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from toymodels.errors import InputError
from toymodels.interventions import batches, edits


def record(
    model: nn.Module,
    params: PyTree,
    examples: PyTree,
    *made: edits.Edit,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> xr.Dataset:
    """Return the value at every site of a model for a batch of examples, under some edits.

    All examples run in one compiled program.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model, as in `Trained.params`.
        examples: a batch of examples along the leading axis, an array or a pytree of arrays.
        *made: edits of the model, such as `interventions.zero(part)`. The value at an edited site
            is the value after the edits.
        dims: the names of the dimensions of a site's value, by the name of its variable. The
            default is `<variable>_0`, ...

    Returns:
        A Dataset with one variable for each site, over `example` and the dimensions of the site's
        value. The variable of a site inside a submodule is named `submodule.site`, because a file
        cannot hold a name with a slash. A site that holds a pytree has a variable for each of its
        arrays, named `site.key`.

    Raises:
        ValueError: the model has no site, the examples are not a batch, or `dims` does not fit.
    """
    number = batches.length(examples=examples)
    _check_one(model, params, examples, made)
    read = jax.jit(jax.vmap(lambda example: edits.activations(model, params, example, *made)))
    leaves, _ = jax.tree_util.tree_flatten_with_path(read(examples))
    values = {
        jax.tree_util.keystr(path, simple=True, separator=".").replace("/", "."): np.asarray(leaf)
        for path, leaf in leaves
    }
    if not values:
        raise InputError(
            f"the model {type(model).__name__} has no site to record: pass its values through "
            "toymodels.Site"
        )
    given = dict(dims or {})
    if unknown := sorted(given.keys() - values.keys()):
        raise InputError(
            f"dims names {unknown[0]!r}, but what is recorded is {', '.join(sorted(values))}"
        )
    variables = {
        name: (_dims(name, given.get(name), value), value) for name, value in values.items()
    }
    _check_names(variables)
    return xr.Dataset(variables, {"example": np.arange(number)})


def _check_names(variables: Mapping[str, tuple[list[str], np.ndarray]]) -> None:
    """Raise `InputError` if two axes of different lengths, or an axis and a site, share a name."""
    lengths: dict[str, int] = {}
    for name, (dims, value) in variables.items():
        for dim, length in zip(dims, value.shape, strict=True):
            again = dims.count(dim) > 1 or lengths.setdefault(dim, length) != length
            if again or dim in variables:
                other = "another axis" if again else "what is recorded at a site"
                raise InputError(
                    f"dims[{name!r}] has the name {dim!r}, which is that of {other}: give the axis "
                    "a name of its own"
                )


def _check_one(
    model: nn.Module, params: PyTree, examples: PyTree, made: tuple[edits.Edit, ...]
) -> None:
    """Raise an error that says what is wrong with one example, before anything is compiled."""

    def shapes(example: PyTree) -> Any:
        return jax.eval_shape(lambda x: edits.activations(model, params, x, *made), example)

    try:
        shapes(jax.tree.map(lambda leaf: leaf[0], examples))
    except Exception as error:
        try:
            shapes(examples)
        except Exception:
            raise error from None
        raise InputError(
            f"the examples have shape {jax.tree.map(np.shape, examples)}, which is ONE example of "
            "this model: give a batch, such as example[None]"
        ) from error


def _dims(name: str, given: Sequence[str] | None, value: np.ndarray) -> list[str]:
    own = [f"{name}_{i}" for i in range(value.ndim - 1)] if given is None else list(given)
    if isinstance(given, str) or len(own) != value.ndim - 1:
        raise InputError(
            f"dims[{name!r}] is {given!r}, but an example has a value of shape {value.shape[1:]}: "
            "give a list with one name for each axis"
        )
    return ["example", *own]
