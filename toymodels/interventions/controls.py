"""Effects over a batch: intervals for their means, and controls to compare them with."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from toymodels import checks
from toymodels.errors import InputError
from toymodels.interventions import batches
from toymodels.interventions.parts import Part


class Interval(NamedTuple):
    """An estimate with a bootstrap interval.

    Attributes:
        estimate: the mean over the batch.
        low: the lower end of the interval.
        high: the upper end of the interval.
    """

    estimate: Float[Array, "*shape"]
    low: Float[Array, "*shape"]
    high: Float[Array, "*shape"]


def bootstrap(
    key: Key[Array, ""],
    values: Float[Array, "examples *shape"],
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return the mean over a batch with a percentile bootstrap interval.

    Args:
        key: decides the resamples.
        values: one value for each example of the batch, such as `Patching.sufficiency`.
        num_resamples: the number of resamples, each of as many examples as the batch.
        level: the probability that the interval aims to cover the mean with.

    References:
        Efron, Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.
    """
    checks.count("num_resamples", num_resamples)
    checks.interval("level", level, low=0, high=1, open_low=True, remedy="it is a probability")
    values = jnp.asarray(values, jnp.result_type(float))
    if not values.ndim or not len(values):
        raise InputError(f"values has shape {values.shape}: give one value or more to resample")
    flat = values.reshape(len(values), -1)

    def resampled(key: Key[Array, ""]) -> Array:
        counts = jax.random.randint(key, (len(flat),), 0, len(flat))
        weights = jnp.zeros(len(flat)).at[counts].add(1.0) / len(flat)
        return weights @ flat

    means = jax.lax.map(resampled, jax.random.split(key, num_resamples))
    ends = jnp.quantile(means, jnp.asarray([(1 - level) / 2, (1 + level) / 2]), axis=0)
    low, high = (end.reshape(values.shape[1:]) for end in ends)
    return Interval(jnp.mean(values, axis=0), low, high)


class Controlled(NamedTuple):
    """The mean effect over a batch, and what it is where there should be none.

    Attributes:
        effect: the effect of the part in the model.
        random_direction: the effect of a random part of the same size at the same site.
        new_model: the effect of the part in a model with new initial parameters.
        permuted_labels: the effect of the part with the label of another example.
    """

    effect: Interval
    random_direction: Interval
    new_model: Interval
    permuted_labels: Interval


def controlled(
    key: Key[Array, ""],
    effect: Callable[[PyTree, Part, PyTree, PyTree], Array],
    params: PyTree,
    part: Part,
    examples: PyTree,
    labels: PyTree,
    initial: Callable[[Key[Array, ""]], PyTree],
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Controlled:
    """Return the mean of an effect over a batch beside three controls, each with its interval.

    Every example has a random part and a new model of its own, so that the interval of a control
    covers the choice of them, too.

    Args:
        key: decides the random parts, the new models, the permutation and the resamples.
        effect: a function of parameters, a part, ONE example (or pair of examples) and its label
            that returns a number, such as a field of `patching` or `mediation`.
        params: the parameters of the model.
        part: a direction or a subspace.
        examples: a batch of examples, or of pairs of examples, along the leading axis.
        labels: what the effect should be about in each example, such as the output that is read.
        initial: a function of a key that returns new parameters, such as
            `lambda key: model.init(key, x)["params"]`.
        num_resamples: see `bootstrap`.
        level: see `bootstrap`.
    """
    number = batches.length(examples=examples, labels=labels)
    checks.function("initial", initial, remedy="give a function of a key that returns parameters")
    key_part, key_model, key_labels, key_intervals = jax.random.split(key, 4)

    def in_random_part(key: Key[Array, ""], example: PyTree, label: PyTree) -> Array:
        return effect(params, _random_part(key, part), example, label)

    def in_new_model(key: Key[Array, ""], example: PyTree, label: PyTree) -> Array:
        return effect(initial(key), part, example, label)

    order = jax.random.permutation(key_labels, number)
    permuted = jax.tree.map(lambda leaf: leaf[order], labels)
    keys_part, keys_model = (jax.random.split(each, number) for each in (key_part, key_model))
    own = jax.vmap(lambda example, label: effect(params, part, example, label))
    values = (
        own(examples, labels),
        jax.vmap(in_random_part)(keys_part, examples, labels),
        jax.vmap(in_new_model)(keys_model, examples, labels),
        own(examples, permuted),
    )
    stacked = jnp.stack(values, axis=1)
    ends = bootstrap(key_intervals, stacked, num_resamples=num_resamples, level=level)
    return Controlled(*(Interval(*each) for each in zip(*ends, strict=True)))


def _random_part(key: Key[Array, ""], part: Part) -> Part:
    """Return a part of the same site and size whose span is uniformly random.

    A column of zeros, which adds no dimension, stays zero.
    """
    if part.basis is None:
        raise InputError(
            f"the part of site {part.site!r} has no directions that a random one could replace: "
            "give direction(...) or subspace(...)"
        )
    normal = jax.random.normal(key, part.basis.shape)
    used = jnp.any(jnp.asarray(part.basis) != 0, axis=0, keepdims=True)
    return Part(part.site, part.index, jnp.linalg.qr(normal)[0] * used)
