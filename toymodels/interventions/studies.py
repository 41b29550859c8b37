"""Studies over a batch: the damage of lesions, and the response to stimulation.

A *lesion study* removes parts of a model one at a time and measures the damage. A *stimulation
study* adds more and more of a part and measures the response, as neuroscience does.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from toymodels import checks
from toymodels.errors import InputError
from toymodels.interventions import batches, edits
from toymodels.interventions.batches import Metric
from toymodels.interventions.parts import Part, check_parts


def damage(
    model: nn.Module,
    params: PyTree,
    examples: PyTree,
    loss: Callable[[PyTree, Any], Array],
    *made: edits.Edit,
) -> Float[Array, "*shape"]:
    """Return how much the mean loss over a batch rises under some edits.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        examples: a batch of examples along the leading axis.
        loss: a function of ONE example and the output for it that returns a number, such as
            `task.loss`, or several, such as the squared error of each output.
        *made: the edits, which are made together.
    """
    batches.length(examples=examples)
    checks.function("loss", loss, remedy="give a function of ONE example and its output")

    def mean_loss(*made: edits.Edit) -> Array:
        def one(example: PyTree) -> Array:
            return loss(example, edits.run(model, params, example, *made))

        return jnp.mean(jax.vmap(one)(examples), axis=0)

    return mean_loss(*made) - mean_loss()


def lesions(
    model: nn.Module,
    params: PyTree,
    examples: PyTree,
    parts: Part,
    ablation: Callable[[Part], edits.Edit],
    loss: Callable[[PyTree, Any], Array],
) -> Float[Array, "parts *shape"]:
    """Return the damage of removing each of a batch of parts alone.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        examples: a batch of examples along the leading axis.
        parts: a batch of parts, such as `interventions.directions("hidden", weights)` or
            `interventions.places(model, params, example)["hidden"]`.
        ablation: a function from a part to the edit that removes it, such as `interventions.zero`,
            or `lambda part: interventions.mean(part, reference)`.
        loss: see `damage`.
    """
    check_parts("parts", parts)
    checks.function("ablation", ablation, remedy="give a function of a part, interventions.zero")
    return jax.vmap(lambda part: damage(model, params, examples, loss, ablation(part)))(parts)


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
    metric, amounts = batches.number_from(metric), jnp.asarray(amounts, jnp.result_type(float))
    batches.length(examples=examples)
    if amounts.ndim != 1:
        raise InputError(f"amounts has shape {amounts.shape}: give one axis of numbers")

    def response(amount: Array) -> Array:
        edit = edits.add(part, amount)
        return jax.vmap(lambda example: metric(edits.run(model, params, example, edit)))(examples)

    return jax.vmap(response)(amounts)
