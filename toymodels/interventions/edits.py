"""Edits: changes of parts of a model's activations, which compose.

An edit is a site and a function of its value. `run` applies edits in the order in which they are
given: at one site, a later edit sees what the earlier ones have left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from toymodels import sites
from toymodels.errors import InputError
from toymodels.interventions.parts import Part, check_part


class Edit(NamedTuple):
    """A change of the value at one site.

    Attributes:
        site: the name of the site.
        change: a function of the value at the site that returns the new value.
    """

    site: str
    change: Callable[[Any], Any]


def run(model: nn.Module, params: PyTree, example: PyTree, *edits: Edit) -> Any:
    """Return the output of a model for ONE example under some edits.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        example: ONE example; use `jax.vmap` for a batch.
        *edits: the edits, in the order in which they are made at a site.

    Raises:
        ValueError: the model has no such site, or an edit changes the shape of a value.
    """
    return sites.intervene(model, params, example, _patches(edits))


def activations(model: nn.Module, params: PyTree, example: PyTree, *edits: Edit) -> dict[str, Any]:
    """Return the value at every site for ONE example under some edits.

    The value at an edited site is the value after the edits.
    """
    read: dict[str, Any] = {}
    patches = _patches(edits)

    def keep(name: str) -> Callable[[Any], Any]:
        def patch(value: Any) -> Any:
            read[name] = patches[name](value) if name in patches else value
            return read[name]

        return patch

    names = jax.eval_shape(lambda: sites.activations(model, params, example)).keys()
    sites.intervene(model, params, example, {name: keep(name) for name in names | patches.keys()})
    return read


def zero(part: Part) -> Edit:
    """Return the edit that sets the coordinates of a part to 0 (zero ablation)."""
    return set_to(part, 0.0)


def set_to(part: Part, coordinates: Any) -> Edit:
    """Return the edit that sets the coordinates of a part, one number or an array."""
    check_part("part", part)

    def change(value: Array) -> Array:
        return part.write(value, _like(coordinates, part.read(value), part.site))

    return Edit(part.site, change)


def add(part: Part, amount: Any) -> Edit:
    """Return the edit that adds an amount to the coordinates of a part (steering).

    Along a direction of length 1, `amount` is the distance by which the value is moved.
    """
    check_part("part", part)

    def change(value: Array) -> Array:
        coordinates = part.read(value)
        return part.write(value, coordinates + _like(amount, coordinates, part.site))

    return Edit(part.site, change)


def patch(part: Part, source: PyTree) -> Edit:
    """Return the edit that copies a part from another run (activation patching).

    Args:
        part: the part that is copied.
        source: the activations of the other run, as `activations` returns them.
    """
    check_part("part", part)
    value = _at(source, part.site)
    return set_to(part, part.read(value))


def mean(part: Part, reference: PyTree) -> Edit:
    """Return the edit that sets a part to its mean over a reference batch (mean ablation).

    Args:
        part: the part that is set.
        reference: the activations of a batch of examples along a leading axis, as
            `jax.vmap(lambda x: tm.activations(model, params, x))(examples)` returns them.
    """
    return _from_batch(part, reference, lambda values: jnp.mean(values, axis=0))


def resample(key: Key[Array, ""], part: Part, reference: PyTree) -> Edit:
    """Return the edit that sets a part to its value in a random example of a reference batch.

    Args:
        key: decides the example.
        part: the part that is set.
        reference: the activations of a batch of examples along a leading axis; see `mean`.
    """

    def one(values: Array) -> Array:
        return values[jax.random.randint(key, (), 0, len(values))]

    return _from_batch(part, reference, one)


def _patches(edits: tuple[Edit, ...]) -> dict[str, Callable[[Any], Any]]:
    """Return one function for each site that makes its edits one after the other."""
    patches: dict[str, Callable[[Any], Any]] = {}
    for edit in edits:
        if not isinstance(edit, Edit):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"an edit is of type {type(edit).__name__}: give edits such as "
                "interventions.zero(part)"
            )
        patches[edit.site] = _after(patches.get(edit.site), edit.change)
    return patches


def _after(
    first: Callable[[Any], Any] | None, second: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    return second if first is None else lambda value: second(first(value))


def _at(values: PyTree, site: str) -> Array:
    if not isinstance(values, dict) or site not in values:
        names = ", ".join(sorted(values)) if isinstance(values, dict) else type(values).__name__
        raise InputError(
            f"the other run has no site {site!r} (it has {names}): give the activations that "
            "tm.activations returns"
        )
    return values[site]


def _from_batch(
    part: Part, reference: PyTree, coordinates: Callable[[Float[Array, "examples *part"]], Array]
) -> Edit:
    """Return the edit that sets a part to a function of its coordinates in a reference batch."""
    check_part("part", part)
    values = jnp.asarray(_at(reference, part.site))
    shape = f"the reference batch of site {part.site!r} has shape {values.shape}"
    remedy = "give the activations of one example or more along the first axis"
    if not values.ndim or not len(values):
        raise InputError(f"{shape}: {remedy}")

    def change(value: Array) -> Array:
        if values.shape[1:] != value.shape:
            raise InputError(f"{shape}, and the site has {value.shape}: {remedy}")
        return part.write(value, coordinates(jax.vmap(part.read)(values)))

    return Edit(part.site, change)


def _like(given: Any, coordinates: Array, site: str) -> Array:
    array = jnp.asarray(given, coordinates.dtype)
    if array.shape not in ((), coordinates.shape):
        raise InputError(
            f"the new coordinates of site {site!r} have shape {array.shape}: give one number or "
            f"shape {coordinates.shape}"
        )
    return jnp.broadcast_to(array, coordinates.shape)
