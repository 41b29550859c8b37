r"""Parameter decomposition: matrices of a chain of layers as sums of rarely needed subcomponents.

Each matrix is a sum of subcomponents of rank one, of which each input should need few: see `masks`.
One that is unimportant must not change the output, however much of it is taken away: a random part
in stochastic parameter decomposition (SPD), and the worst part with an adversary.

References:
    Bushnaq, Braun, Sharkey (2025), "Stochastic Parameter Decomposition". The code of its successor,
    param-decomp (2026), has adversarial masks, which gradients make worse.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.circuits.gates import random_gates
from toymodels.circuits.masks import Adversary, DecomposedLayer, Layer, masks_loss
from toymodels.errors import InputError
from toymodels.training.train import fit

__all__ = ["decompose_layers", "unfaithfulness"]


def decompose_layers(
    key: Key[Array, ""],
    layers: Sequence[Layer],
    sample: Callable[[Key[Array, ""], int], Float[Array, "examples inputs"]],
    *,
    parts: Sequence[int],
    gate_units: int,
    minimality: Float[Array, ""] | float,
    adversary: Adversary | None = None,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
) -> tuple[DecomposedLayer, ...]:
    r"""Decompose the matrices of a chain of layers into subcomponents that are rarely needed.

    It minimises `unfaithfulness` plus the mean over inputs and masks of the reconstruction of
    `masks_loss` and $\beta$ times its importance.

    Args:
        key: decides the start, the data and the masks.
        layers: the layers, the first one first.
        sample: a function of a key and a batch size that returns inputs, such as
            `tm.SignedSparseUniform(5, 0.05).sample`. Their sparsity decides which subcomponents
            are rare.
        parts: the number of subcomponents of each matrix. Give several times as many as you
            expect: those that are too many become unimportant.
        gate_units: the hidden units of each gate; the authors have 16.
        minimality: $\beta \ge 0$.
        adversary: what makes the masks worse, if anything does.
        optimizer: an Optax transformation.
        steps: the number of updates.
        batch: the number of inputs of each update.

    Raises:
        InputError: sizes that do not fit, counts below 1, or a negative factor.
    """
    if not np.ndim(parts):
        raise InputError(f"parts is {parts}: give a number for each layer, such as ({parts}, ...)")
    for count in parts:
        checks.count("parts", count)
    for layer in layers:
        if not isinstance(layer, Layer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"a layer is of type {type(layer).__name__}: give a list of circuits.Layer(weights)"
            )
    checks.count("gate_units", gate_units)
    checks.same_size("layers", layers=len(layers), parts=len(parts))
    for before, after in itertools.pairwise(layers):
        checks.same_size("dimensions", before=before.weights.shape[0], after=after.weights.shape[1])
    inputs = jax.eval_shape(lambda: sample(key, 1)).shape[-1]
    checks.same_size("inputs", sample=inputs, weights=layers[0].weights.shape[1])
    *keys, key_data = jax.random.split(key, len(layers) + 1)

    def loss(found: tuple[DecomposedLayer, ...], x: Array, uniform: Array) -> Float[Array, ""]:
        rest = masks_loss(found, layers, x, uniform, adversary=adversary)
        return unfaithfulness(found, layers) + rest.penalized(minimality)

    start = tuple(
        _start(key, layer.weights, count, gate_units)
        for key, layer, count in zip(keys, layers, parts, strict=True)
    )
    how = {"optimizer": optimizer, "steps": steps, "batch": batch}
    return fit_subcomponents(key_data, start, loss, sample, sum(parts), minimality, how)


def fit_subcomponents(
    key: Key[Array, ""],
    start: Any,
    loss: Callable[[Any, Array, Array], Float[Array, ""]],
    sample: Callable[[Key[Array, ""], int], Float[Array, "examples inputs"]],
    masks: int,
    minimality: Float[Array, ""] | float,
    how: dict[str, Any],
) -> Any:
    """Fit any decomposition to a loss of itself, an input and as many random numbers as masks.

    `how` holds the optimizer, the steps and the batch.
    """
    checks.interval("minimality", minimality, low=0, remedy="give a factor of 0 or more")

    def inputs_and_masks(key: Key[Array, ""], batch: int) -> tuple[Array, Array]:
        key_inputs, key_masks = jax.random.split(key)
        return sample(key_inputs, batch), jax.random.uniform(key_masks, (batch, masks))

    def of_example(found: Any, example: tuple[Array, Array]) -> Float[Array, ""]:
        return loss(found, *example)

    return fit(key, start, of_example, inputs_and_masks, **how).params


def unfaithfulness(found: Sequence[DecomposedLayer], layers: Sequence[Layer]) -> Float[Array, ""]:
    """Return the mean squared differences of subcomponents from matrices, summed over matrices."""
    differences = [
        jnp.mean((layer.weights - own.left.T @ own.right) ** 2)
        for own, layer in zip(found, layers, strict=True)
    ]
    return jnp.sum(jnp.stack(differences))


def _start(key: Key[Array, ""], weights: Array, parts: int, units: int) -> DecomposedLayer:
    key_left, key_right, key_gates = jax.random.split(key, 3)
    outputs, inputs = weights.shape
    return DecomposedLayer(
        left=jax.random.normal(key_left, (parts, outputs)) / jnp.sqrt(parts),
        right=jax.random.normal(key_right, (parts, inputs)) / jnp.sqrt(outputs),
        gates=random_gates(key_gates, parts, units),
    )
