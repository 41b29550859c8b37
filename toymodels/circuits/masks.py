r"""Masks of subcomponents of a chain of layers, $h_{k+1} = f_k(W_k h_k + b_k)$, and what they cost.

Each matrix is a sum of subcomponents of rank one, $W_k \approx \sum_c l_c r_c^\top$. In each matrix
a small network for each subcomponent, the gate, reads the inner activation $r_c \cdot h_k$ and says
how important the subcomponent is for this input. A mask multiplies a subcomponent by a number from
its importance to 1.

References:
    Bushnaq, Braun, Sharkey (2025), "Stochastic Parameter Decomposition". The code of its successor,
    param-decomp (2026), has adversarial masks, which gradients make worse.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.circuits.gates import LEAK, Gates, gate_logits, hard_sigmoid

__all__ = [
    "Adversary",
    "DecomposedLayer",
    "Layer",
    "MasksLoss",
    "layers_importances",
    "masked_output",
    "masks_loss",
]


class Layer(NamedTuple):
    r"""One layer, $f(W h + b)$.

    Attributes:
        weights: $W$.
        bias: $b$, a vector or 0.
        activation: $f$; None for a linear layer.
    """

    weights: Float[Array, "outputs inputs"]
    bias: Float[Array, " outputs"] | float = 0.0
    activation: Callable[[Any], Any] | None = None

    def __call__(self, hidden: Array) -> Array:
        """Return the output for one input."""
        return self.finish(self.weights @ hidden)

    def finish(self, product: Array) -> Array:
        """Return the output for a product of the weights and an input."""
        shifted = product + self.bias
        return shifted if self.activation is None else self.activation(shifted)


class DecomposedLayer(NamedTuple):
    r"""One matrix as a sum of subcomponents, $\sum_c l_c r_c^\top$.

    Attributes:
        left: $l$, what each subcomponent writes.
        right: $r$, what each subcomponent reads.
        gates: the gates, which read $r_c \cdot h$.
    """

    left: Float[Array, "*cells parts outputs"]
    right: Float[Array, "*cells parts inputs"]
    gates: Gates


@struct.dataclass
class Adversary:
    r"""Masks that gradients make worse, for the `adversary` of a decomposition.

    From random numbers $r$ in $[0, 1]$ it goes up the reconstruction error of ONE input: each step
    adds the sign of the gradient times `step`, and cuts off at 0 and 1.

    Attributes:
        ascents: the number of steps.
        step: the length of a step; 1 goes to a corner at once.
    """

    ascents: int = struct.field(pytree_node=False)
    step: float

    def worse(self, error: Callable[[Array], Array], uniform: Array) -> Array:
        """Return the numbers after all steps, without a gradient of their own."""
        checks.count("ascents", self.ascents, minimum=0)
        checks.interval("step", self.step, low=0, open_low=True, remedy="give a length above 0")

        def ascend(_: Any, masks: Array) -> Array:
            return jnp.clip(masks + self.step * jnp.sign(jax.grad(error)(masks)), 0.0, 1.0)

        uniform = lax.fori_loop(0, self.ascents, ascend, uniform)
        return lax.stop_gradient(uniform)


class MasksLoss(NamedTuple):
    r"""The cost of masks at one input.

    Attributes:
        reconstruction: the mean over outputs of the squared change of the output with masks in
            all matrices, plus the average of the changes with masks in one matrix only.
        importance: the sum of the importances $|g|$ over the subcomponents of all matrices.
    """

    reconstruction: Float[Array, ""]
    importance: Float[Array, ""]

    def penalized(self, minimality: Float[Array, ""] | float) -> Float[Array, ""]:
        """Return the reconstruction plus a factor times the importance."""
        return self.reconstruction + minimality * self.importance


def masks_loss(
    found: Sequence[DecomposedLayer],
    layers: Sequence[Layer],
    x: Float[Array, " inputs"],
    uniform: Float[Array, " parts"],
    *,
    adversary: Adversary | None = None,
) -> MasksLoss:
    r"""Return what masks $g + (1 - g) r$ cost at ONE input.

    The importance $g$ is the output of the gate, cut off at 0 and 1. To let gradients through, it
    keeps a slope of 0.01 below 0 in masks, and above 1 in the sum of importances.

    Args:
        found: the decompositions of all matrices.
        layers: the layers.
        x: the input.
        uniform: $r$ in $[0, 1]$, for the subcomponents of all matrices in turn.
        adversary: what makes the masks worse, if anything does.
    """
    hidden, output = _activations(layers, x)
    logits = _logits(found, hidden)
    low = jnp.concatenate([hard_sigmoid(each, leak_below=LEAK) for each in logits])

    def error(uniform: Array) -> Float[Array, ""]:
        masks = _of_matrices(found, low + (1 - low) * uniform)
        together, apart = x, []
        for own, layer, mask, clean in zip(found, layers, masks, hidden, strict=True):
            together = _masked(own, layer, mask, together)
            apart.append(_masked(own, layer, mask, clean))
        apart = [_activations(layers[k + 1 :], each)[1] for k, each in enumerate(apart)]
        alone = sum(jnp.mean((each - output) ** 2) for each in apart)
        return jnp.mean((together - output) ** 2) + alone / len(layers)

    if adversary is not None:
        uniform = adversary.worse(error, uniform)
    important = sum(jnp.sum(jnp.abs(hard_sigmoid(each, leak_above=LEAK))) for each in logits)
    return MasksLoss(error(uniform), jnp.asarray(important))


def masked_output(
    found: Sequence[DecomposedLayer],
    layers: Sequence[Layer],
    x: Float[Array, " inputs"],
    masks: Float[Array, " parts"],
) -> Float[Array, " outputs"]:
    """Return the output for ONE input when each subcomponent is multiplied by its mask.

    Args:
        found: the decompositions of all matrices.
        layers: the layers.
        x: the input.
        masks: numbers for the subcomponents of all matrices in turn; 0 takes one away.
    """
    for own, layer, mask in zip(found, layers, _of_matrices(found, masks), strict=True):
        x = _masked(own, layer, mask, x)
    return x


def layers_importances(
    found: Sequence[DecomposedLayer], layers: Sequence[Layer], x: Float[Array, " inputs"]
) -> tuple[Float[Array, " parts"], ...]:
    """Return the importances in [0, 1] of the subcomponents of all matrices for ONE input."""
    hidden, _ = _activations(layers, x)
    return tuple(hard_sigmoid(each) for each in _logits(found, hidden))


def _activations(layers: Sequence[Layer], x: Array) -> tuple[list[Array], Array]:
    """Return the inputs of all layers, and the output of the last."""
    hidden = [x]
    for layer in layers:
        hidden.append(layer(hidden[-1]))
    return hidden[:-1], hidden[-1]


def _logits(found: Sequence[DecomposedLayer], hidden: Sequence[Array]) -> list[Array]:
    pairs = zip(found, hidden, strict=True)
    return [gate_logits(own.gates, own.right @ each) for own, each in pairs]


def _masked(own: DecomposedLayer, layer: Layer, mask: Array, hidden: Array) -> Array:
    return layer.finish(own.left.T @ (mask * (own.right @ hidden)))


def _of_matrices(found: Sequence[DecomposedLayer], masks: Array) -> list[Array]:
    """Return the masks of each matrix."""
    ends = itertools.accumulate(len(own.left) for own in found)
    return jnp.split(masks, list(ends)[:-1])
