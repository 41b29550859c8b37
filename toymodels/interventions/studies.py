"""Studies over a batch: lesions, stimulation, and intervals for means.

A *lesion study* removes parts of a model one at a time and measures the damage. A *stimulation
study* adds more and more of a part and measures the response, as neuroscience does.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from toymodels import checks
from toymodels.errors import InputError
from toymodels.interventions import edits
from toymodels.interventions.effects import Metric
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


def lesions(
    model: nn.Module,
    params: PyTree,
    examples: PyTree,
    ablations: Sequence[edits.Edit] | Callable[[Part], edits.Edit],
    loss: Callable[[PyTree, Any], Array],
    *,
    parts: Part | None = None,
) -> Float[Array, " parts"]:
    """Return how much the mean loss over a batch rises by each of some ablations.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        examples: a batch of examples along the leading axis.
        ablations: a list of edits, one for each lesion; or, with `parts`, a function from a part
            to its edit, such as `interventions.zero`.
        loss: a function of ONE example and the output for it that returns a number, such as
            `task.loss`.
        parts: a batch of parts, as `interventions.directions` returns it.
    """

    def mean_loss(*made: edits.Edit) -> Array:
        def one(example: PyTree) -> Array:
            return loss(example, edits.run(model, params, example, *made))

        return jnp.mean(jax.vmap(one)(examples))

    if parts is not None and callable(ablations):
        ablate = ablations
        lesioned = jax.vmap(lambda part: mean_loss(ablate(part)))(parts)
    elif parts is None and not callable(ablations):
        lesioned = jnp.stack([mean_loss(edit) for edit in ablations])
    else:
        raise InputError("give a list of edits, or parts= and a function such as zero")
    return lesioned - mean_loss()


def stimulation(
    model: nn.Module,
    params: PyTree,
    examples: PyTree,
    part: Part,
    amounts: Float[Any, " amounts"],
    metric: Metric,
) -> Float[Array, "amounts examples"]:
    """Return the dose-response curve: the metric after adding each amount along a part.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        examples: a batch of examples along the leading axis.
        part: the part, such as a direction.
        amounts: the amounts that are added to its coordinates; 0 gives the metric without edit.
        metric: a function of the output that returns a number.
    """

    def response(amount: Array) -> Array:
        edit = edits.add(part, amount)
        return jax.vmap(lambda example: metric(edits.run(model, params, example, edit)))(examples)

    return jax.vmap(response)(jnp.asarray(amounts, jnp.result_type(float)))
