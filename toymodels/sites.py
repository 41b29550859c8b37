"""Named places inside any model where an activation is read and replaced.

A model passes its intermediate values through a named `Site`, an identity. `activations` reads
the value at every site, and `intervene` replaces some of them.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors
from jaxtyping import PyTree

from toymodels.errors import InputError

Patch: TypeAlias = Callable[[Any], Any]


class Site(nn.Module):
    """A named place in a model where an activation can be read and replaced."""

    @nn.compact
    def __call__(self, value: PyTree) -> PyTree:
        """Return the value unchanged: an array, or a pytree of arrays."""
        return value


@contextlib.contextmanager
def explained(model: nn.Module, params: PyTree, example: PyTree) -> Generator[None]:
    """Turn an error of Flax in `model.apply({"params": params}, example)` into one plain line."""
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"the model is of type {type(model).__name__}: give a Linen module first, and then its "
            "parameters"
        )
    if isinstance(example, list) and all(isinstance(entry, int | float) for entry in example):
        raise InputError("the example is a list of numbers: give an array, jnp.asarray(example)")
    try:
        yield
    except errors.FlaxError as error:
        reason = _reason(error, model, params, example)
        if reason is None:
            raise
        raise InputError(reason) from error


def _reason(
    error: errors.FlaxError, model: nn.Module, params: PyTree, example: PyTree
) -> str | None:
    """Return why the model cannot be applied, with the remedy, or None if that is not known."""
    if isinstance(error, errors.InvalidRngError):
        return (
            "the model draws random numbers, as dropout does, but a model must be a function of "
            "parameters and ONE example: switch that off (deterministic=True), or give `fit` "
            "examples that each hold a key"
        )
    try:
        expected = jax.eval_shape(model.init, jax.random.key(0), example)
    except (TypeError, ValueError):
        return (
            f"the model cannot take an input of shape {_shape(example)}: give ONE example, and "
            "use jax.vmap for a batch"
        )
    if state := sorted(expected.keys() - {"params"}):
        return (
            f"the model keeps state beside its parameters ({', '.join(state)}), as batch "
            "normalisation does, but a model must be a function of parameters and ONE example: "
            "take the state out"
        )
    own, needed = (_shapes(tree) for tree in (params, expected.get("params", {})))
    if own.keys() != needed.keys():
        return (
            f"params has {', '.join(own) or 'no parameters'}, but the model needs "
            f"{', '.join(needed)}: give parameters of this model, as `train` leaves them"
        )
    for name, shape in needed.items():
        if own[name] != shape and own[name] == shape[::-1]:
            return (
                f"parameter {name!r} has shape {own[name]}, but the model needs {shape}: "
                "transpose it"
            )
        if own[name] != shape:
            return (
                f"parameter {name!r} has shape {own[name]}, but for an input of shape "
                f"{_shape(example)} the model needs {shape}: give parameters of this model, and "
                "ONE example of it, with jax.vmap for a batch"
            )
    return None


def _shapes(params: PyTree) -> dict[str, tuple[int, ...]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(leaf)
        for path, leaf in flat
    }


def _shape(example: PyTree) -> Any:
    """Return the shape of an array, or a pytree of shapes."""
    return jax.tree.map(jnp.shape, example)


def activations(model: nn.Module, params: PyTree, features: PyTree) -> dict[str, Any]:
    """Return the value at every site of a model for ONE example.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model, as in `Trained.params`.
        features: ONE example; use `jax.vmap` for a batch.

    Returns:
        A dictionary from the names of the sites to their values. A site inside a submodule has
        the name `submodule/site`. If a site is called twice, its last value is returned.

    Raises:
        ValueError: a site is inside an `nn.vmap` or `nn.scan` that does not hand its value out.
    """
    values, called = _sites(model, params, features)
    if missing := sorted(called - values.keys()):
        raise InputError(
            f"site {missing[0]!r} is inside a transformed module that keeps its values to itself: "
            "give nn.vmap or nn.scan variable_axes={..., 'intermediates': 0}"
        )
    return values


def value_at(values: Mapping[str, Any], name: str) -> Any:
    """Return the value at one site, out of the values that `activations` returned.

    Raises:
        ValueError: the model has no such site.
    """
    if not isinstance(name, str) or name not in values:  # pyright: ignore
        raise InputError(f"no site {name!r} in this model: it has {', '.join(sorted(values))}")
    return values[name]


def _sites(model: nn.Module, params: PyTree, example: PyTree) -> tuple[dict[str, Any], set[str]]:
    """Return the values of the sites, and the names of all sites that were called."""
    called: set[str] = set()

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, Site):
            called.add("/".join(context.module.path))
        return call(*args, **kwargs)

    with nn.intercept_methods(note), explained(model, params, example):
        _, state = model.apply(
            {"params": params},
            example,
            capture_intermediates=lambda module, _: isinstance(module, Site),  # pyright: ignore
        )
    return dict(_values(state.get("intermediates") or {}, ())), called


def _values(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the last value of each site; Flax captures one value for each call."""
    for name, branch in tree.items():
        if name == "__call__":
            yield "/".join(path), branch[-1]
        else:
            yield from _values(branch, (*path, name))


def intervene(
    model: nn.Module, params: PyTree, features: PyTree, patches: Mapping[str, Patch]
) -> Any:
    """Return the output for ONE example after the values at some sites are replaced.

    Replacing a value by itself changes no bit of the output. A patch may itself call a model, for
    example on another input; what that call computes is not patched.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        features: ONE example; use `jax.vmap` for a batch.
        patches: a dictionary from the names of sites to functions. Each function takes the value
            at its site and returns the new value, which must have the shape of the old one.

    Raises:
        ValueError: the model has no such site, or a patch returns another shape.
    """
    for name, patch in patches.items():
        if not callable(patch):  # pyright: ignore[reportUnnecessaryComparison]
            raise InputError(
                f"the patch of site {name!r} is of type {type(patch).__name__}: give a function of "
                "the site's value, such as lambda value: 0 * value"
            )
    called: set[str] = set()
    patching = False

    def patched(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal patching
        value = call(*args, **kwargs)
        if patching or not isinstance(context.module, Site):
            return value
        name = "/".join(context.module.path)
        called.add(name)
        if name not in patches:
            return value
        patching = True
        try:
            replaced = patches[name](value)
        finally:
            patching = False
        if _shape(replaced) != _shape(value):
            raise InputError(
                f"the patch of site {name!r} gives shape {_shape(replaced)}: it must keep "
                f"{_shape(value)}"
            )
        return replaced

    with nn.intercept_methods(patched), explained(model, params, features):
        output = model.apply({"params": params}, features)
    for name in patches:
        if name not in called:
            raise InputError(
                f"no site {name!r} in this model: it has {', '.join(sorted(called)) or 'none'}"
            )
    return output
