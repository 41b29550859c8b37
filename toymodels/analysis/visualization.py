r"""Feature visualisation: inputs that make a unit most active, and its response to each feature.

A *unit* is a function $f$ of ONE example that returns a number: a neuron, the coordinate along a
direction, or a latent of an autoencoder.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from toymodels import checks
from toymodels.analysis import inputs
from toymodels.errors import InputError

__all__ = [
    "Examples",
    "activation_maximum",
    "linear_activation_maximum",
    "maximally_activating_examples",
    "response_curves",
]


def activation_maximum(
    function: Callable[[Array], Array],
    start: Float[Array, " features"],
    *,
    penalty: Float[Array, ""] | float = 0.0,
    learning_rate: float = 0.1,
    steps: int = 200,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Array, " features"]:
    r"""Return the example that maximises $f(x) - \lambda \sum_i |x_i|$ on a box.

    Gradient ascent is projected onto the box after each step, so that the example stays on the
    support of the features. The penalty keeps features out that add little: of a linear unit
    $w \cdot x$ only those with $w_i > \lambda$ remain; see `linear_activation_maximum`.

    Args:
        function: a function of ONE example that returns a number.
        start: the example where the ascent begins. Where $f$ is flat, as behind a closed ReLU,
            the ascent cannot leave it: begin at an example for which the unit is active.
        penalty: the factor $\lambda \ge 0$ of the regulariser.
        learning_rate: the length of a step along the gradient.
        steps: the number of steps.
        low: the lower end of the box, the smallest value of a feature.
        high: the upper end of the box, the largest value of a feature.

    Returns:
        The last example of the ascent, a local maximum if the ascent has converged.

    References:
        Erhan et al. (2009), "Visualizing Higher-Layer Features of a Deep Network".
    """
    checks.count("steps", steps)
    checks.interval("penalty", penalty, low=0, remedy="give a factor of 0 or more")
    if not low < high:
        raise InputError(f"the box is from {low:g} to {high:g}: give low below high")
    start = inputs.floats("start", start, rank=1)

    def objective(example: Array) -> Array:
        return function(example) - penalty * jnp.sum(jnp.abs(example))

    def step(example: Array, _: None) -> tuple[Array, None]:
        return jnp.clip(example + learning_rate * jax.grad(objective)(example), low, high), None

    example, _ = lax.scan(step, jnp.clip(start, low, high), length=steps)
    return example


def linear_activation_maximum(
    weights: Float[Array, " features"],
    *,
    penalty: Float[Array, ""] | float = 0.0,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Array, " features"]:
    r"""Return the exact maximiser of $w \cdot x - \lambda \sum_i |x_i|$ on a box that holds 0.

    Feature $i$ is `high` if $w_i > \lambda$, `low` if $w_i < -\lambda$, and 0 otherwise. An
    increasing nonlinearity around $w \cdot x$ leaves the maximiser as it is.

    Args:
        weights: the weights $w$ of the unit.
        penalty: the factor $\lambda \ge 0$ of the regulariser.
        low: the lower end of the box, at most 0.
        high: the upper end of the box, at least 0.
    """
    if not low <= 0 <= high:
        raise InputError(f"the box is from {low:g} to {high:g}: give one that holds 0")
    weights = inputs.floats("weights", weights, rank=1)
    chosen = jnp.where(weights > penalty, high, jnp.where(weights < -penalty, low, 0.0))
    return jnp.where(jnp.isfinite(weights), chosen, jnp.nan).astype(weights.dtype)


class Examples(NamedTuple):
    """The examples of a batch that make a unit most active.

    Attributes:
        indices: the indices of the examples, the most activating one first.
        activation: the activations of the unit.
    """

    indices: Int[Array, " number"]
    activation: Float[Array, " number"]


def maximally_activating_examples(
    function: Callable[[Array], Array], examples: Float[Array, "examples features"], number: int
) -> Examples:
    """Return the examples of a batch that make a unit most active.

    Args:
        function: a function of ONE example that returns a number.
        examples: the batch, with an example in each row.
        number: the number of examples to return.
    """
    examples = inputs.floats("examples", examples, rank=2)
    checks.count("number", number)
    if number > len(examples):
        raise InputError(f"number is {number}: the batch has {len(examples)} examples")
    activation, index = lax.top_k(jax.vmap(function)(examples), number)
    return Examples(index, activation)


def response_curves(
    function: Callable[[Array], Float[Array, " units"]],
    num_features: int,
    values: Float[Array, " values"],
) -> Float[Array, "features units values"]:
    """Return the response of every unit to every feature alone, all other features being 0.

    Args:
        function: a function of ONE example that returns the activations of some units.
        num_features: the number of features of an example.
        values: the values that each feature takes in turn.
    """
    checks.count("num_features", num_features)
    values = inputs.floats("values", values, rank=1)
    alone = values[None, :, None] * jnp.eye(num_features)[:, None, :]
    return jnp.swapaxes(jax.vmap(jax.vmap(function))(alone), 1, 2)
