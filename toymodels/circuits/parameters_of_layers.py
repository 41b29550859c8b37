r"""Stochastic parameter decomposition of two layers, $y = U\,\mathrm{ReLU}(V x)$.

Each matrix is a sum of subcomponents of rank one of its own, with gates that read their inner
activations; see `toymodels.circuits.parameters` for the idea. In a network that computes one
function of each feature with fewer neurons than features, the authors find one subcomponent for
each feature in $V$, and one for each neuron in $U$.

References:
    Bushnaq, Braun, Sharkey (2025), "Stochastic Parameter Decomposition", the residual networks.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.circuits.parameters import LEAK, Gates, gate_logits, hard_sigmoid, random_gates
from toymodels.training.train import fit

__all__ = [
    "DecomposedLayer",
    "DecomposedLayers",
    "decompose_layers",
    "layers_importances",
    "layers_loss",
]


class DecomposedLayer(NamedTuple):
    r"""One matrix as a sum of subcomponents, $\sum_c l_c r_c^\top$.

    Attributes:
        left: $l$, what each subcomponent writes.
        right: $r$, what each subcomponent reads.
        gates: the gates, which read $r_c \cdot x$.
    """

    left: Float[Array, "*cells parts outputs"]
    right: Float[Array, "*cells parts inputs"]
    gates: Gates


class DecomposedLayers(NamedTuple):
    """The decompositions of the two matrices.

    Attributes:
        first: the subcomponents of $V$.
        second: the subcomponents of $U$.
    """

    first: DecomposedLayer
    second: DecomposedLayer


def decompose_layers(
    key: Key[Array, ""],
    first: Float[Array, "neurons inputs"],
    second: Float[Array, "outputs neurons"],
    sample: Callable[[Key[Array, ""], int], Float[Array, "examples inputs"]],
    *,
    parts: tuple[int, int],
    gate_units: int,
    minimality: Float[Array, ""] | float,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
) -> DecomposedLayers:
    r"""Decompose two matrices into subcomponents that are rarely needed.

    It minimises the mean of `layers_loss` over inputs and masks.

    Args:
        key: decides the start, the data and the masks.
        first: $V$.
        second: $U$.
        sample: a function of a key and a batch size that returns inputs, such as
            `tm.SignedSparseUniform(5, 0.05).sample`.
        parts: the numbers of subcomponents of $V$ and of $U$. Give several times as many as you
            expect: those that are too many become unimportant.
        gate_units: the hidden units of each gate.
        minimality: $\beta \ge 0$.
        optimizer: an Optax transformation.
        steps: the number of updates.
        batch: the number of inputs of each update.

    Raises:
        InputError: sizes that do not fit, counts below 1, or a negative factor.
    """
    for count in parts:
        checks.count("parts", count)
    checks.count("gate_units", gate_units)
    checks.interval("minimality", minimality, low=0, remedy="give a factor of 0 or more")
    checks.same_size("neurons", first=first.shape[0], second=second.shape[1])
    key_first, key_second, key_data = jax.random.split(key, 3)

    def inputs_and_masks(key: Key[Array, ""], batch: int) -> tuple[Array, Array]:
        key_inputs, key_masks = jax.random.split(key)
        return sample(key_inputs, batch), jax.random.uniform(key_masks, (batch, sum(parts)))

    def loss(found: DecomposedLayers, example: tuple[Array, Array]) -> Float[Array, ""]:
        x, uniform = example
        return layers_loss(found, first, second, x, uniform, minimality=minimality)

    start = DecomposedLayers(
        _start(key_first, first, parts[0], gate_units),
        _start(key_second, second, parts[1], gate_units),
    )
    fitted = fit(
        key_data, start, loss, inputs_and_masks, optimizer=optimizer, steps=steps, batch=batch
    )
    return fitted.params


def layers_loss(
    found: DecomposedLayers,
    first: Float[Array, "neurons inputs"],
    second: Float[Array, "outputs neurons"],
    x: Float[Array, " inputs"],
    uniform: Float[Array, " parts"],
    *,
    minimality: Float[Array, ""] | float,
) -> Float[Array, ""]:
    r"""Return the loss of a decomposition at ONE input with masks $g + (1 - g) r$.

    It is the sum of

    - faithfulness: for each matrix the mean of its squared differences from its subcomponents;
    - reconstruction: the mean over outputs of the squared change of the output with masks in both
      matrices, plus the average of the two changes with masks in one matrix;
    - minimality: $\beta$ times the sum of $|g|$ over the subcomponents of both matrices.

    Args:
        found: the decomposition.
        first: $V$.
        second: $U$.
        x: the input.
        uniform: $r$ in $[0, 1]$, for the subcomponents of $V$ and then for those of $U$.
        minimality: $\beta$.
    """
    hidden = jax.nn.relu(first @ x)
    output = second @ hidden
    logits = _logits(found, x, hidden)
    uniforms = jnp.split(uniform, [found.first.right.shape[0]])
    low = [hard_sigmoid(each, leak_below=LEAK) for each in logits]
    mask_first, mask_second = (g + (1 - g) * r for g, r in zip(low, uniforms, strict=True))

    masked = jax.nn.relu(_apply(found.first, mask_first, x))
    outputs = (
        _apply(found.second, mask_second, masked),
        second @ masked,
        _apply(found.second, mask_second, hidden),
    )
    both, only_first, only_second = (jnp.mean((each - output) ** 2) for each in outputs)
    unfaithful = sum(
        jnp.mean((weights - layer.left.T @ layer.right) ** 2)
        for weights, layer in ((first, found.first), (second, found.second))
    )
    important = sum(jnp.sum(jnp.abs(hard_sigmoid(each, leak_above=LEAK))) for each in logits)
    return unfaithful + both + (only_first + only_second) / 2 + minimality * important


def layers_importances(
    found: DecomposedLayers, first: Float[Array, "neurons inputs"], x: Float[Array, " inputs"]
) -> tuple[Float[Array, " parts"], Float[Array, " others"]]:
    """Return the importances in [0, 1] of the subcomponents of both matrices for ONE input."""
    of_first, of_second = _logits(found, x, jax.nn.relu(first @ x))
    return hard_sigmoid(of_first), hard_sigmoid(of_second)


def _logits(found: DecomposedLayers, x: Array, hidden: Array) -> tuple[Array, Array]:
    return (
        gate_logits(found.first.gates, found.first.right @ x),
        gate_logits(found.second.gates, found.second.right @ hidden),
    )


def _apply(layer: DecomposedLayer, mask: Array, x: Array) -> Array:
    return layer.left.T @ (mask * (layer.right @ x))


def _start(key: Key[Array, ""], weights: Array, parts: int, units: int) -> DecomposedLayer:
    key_left, key_right, key_gates = jax.random.split(key, 3)
    outputs, inputs = weights.shape
    return DecomposedLayer(
        left=jax.random.normal(key_left, (parts, outputs)) / jnp.sqrt(parts),
        right=jax.random.normal(key_right, (parts, inputs)) / jnp.sqrt(outputs),
        gates=random_gates(key_gates, parts, units),
    )
