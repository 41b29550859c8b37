r"""Stochastic parameter decomposition (SPD) of the tied model $y = \mathrm{ReLU}(W^\top W x + b)$.

The weights become a sum of subcomponents of rank one, $W \approx \sum_c U_c V_c^\top$, of which
each input should need few. The model has two matrices: subcomponent $c$ of $W$ is $U_c V_c^\top$,
and that of $W^\top$ is its transpose. In each of the two a small network, the gate, reads the inner
activation of the subcomponent ($V_c \cdot x$ in $W$, and $U_c \cdot W x$ in $W^\top$) and says how
important it is for this input. A subcomponent that is unimportant must not change the output,
however much of it is taken away.

The answer is known for toy models: one subcomponent $W_i e_i^\top$ for each feature $i$.

References:
    Bushnaq, Braun, Sharkey (2025), "Stochastic Parameter Decomposition".
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.circuits.decomposition import fit_subcomponents, unfaithfulness
from toymodels.circuits.gates import Gates, gate_logits, hard_sigmoid, random_gates
from toymodels.circuits.masks import Adversary, DecomposedLayer, Layer, masks_loss

__all__ = ["Subcomponents", "decompose_parameters", "importances"]


class Subcomponents(NamedTuple):
    """A decomposition of the weights of a tied model.

    Attributes:
        left: $U$, the direction in the hidden layer of each subcomponent.
        right: $V$, the weights of the features in each subcomponent.
        encoder: the gates of the subcomponents of $W$.
        decoder: the gates of the subcomponents of the transpose.
    """

    left: Float[Array, "*cells parts hidden"]
    right: Float[Array, "*cells parts features"]
    encoder: Gates
    decoder: Gates

    def layers(self) -> tuple[DecomposedLayer, DecomposedLayer]:
        """Return the decompositions of the two matrices, as `masks_loss` takes them."""
        return (
            DecomposedLayer(self.left, self.right, self.encoder),
            DecomposedLayer(self.right, self.left, self.decoder),
        )


def decompose_parameters(
    key: Key[Array, ""],
    weights: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    sample: Callable[[Key[Array, ""], int], Float[Array, "examples features"]],
    *,
    parts: int,
    gate_units: int,
    minimality: Float[Array, ""] | float,
    adversary: Adversary | None = None,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
) -> Subcomponents:
    r"""Decompose the weights of a tied model into subcomponents that are rarely needed.

    It is `decompose_layers` of the two matrices, but their subcomponents are shared, so that the
    difference from the weights counts once. The authors draw masks afresh for each of the three
    reconstructions; here they share them.

    Args:
        key: decides the start, the data and the masks.
        weights: $W$.
        bias: $b$.
        sample: the inputs, as in `decompose_layers`.
        parts: the number of subcomponents.
        gate_units: the hidden units of each gate.
        minimality: $\beta \ge 0$; the authors have 3e-3 for 5 features in 2 dimensions.
        adversary: what makes the masks worse, if anything does.
        optimizer: an Optax transformation.
        steps: the number of updates.
        batch: the number of inputs of each update.

    Raises:
        InputError: sizes that do not fit, counts below 1, or a negative factor.
    """
    checks.count("parts", parts)
    checks.count("gate_units", gate_units)
    checks.same_size("features", weights=weights.shape[1], bias=bias.size)
    key_start, key_data = jax.random.split(key)

    def loss(found: Subcomponents, x: Array, uniform: Array) -> Float[Array, ""]:
        layers = Layer(weights), Layer(weights.T, bias, jax.nn.relu)
        rest = masks_loss(found.layers(), layers, x, uniform, adversary=adversary)
        return unfaithfulness(found.layers()[:1], layers[:1]) + rest.penalized(minimality)

    start = _start(key_start, parts, gate_units, *weights.shape)
    how = {"optimizer": optimizer, "steps": steps, "batch": batch}
    return fit_subcomponents(key_data, start, loss, sample, 2 * parts, minimality, how)


def _start(
    key: Key[Array, ""], parts: int, units: int, hidden: int, features: int
) -> Subcomponents:
    key_left, key_right, key_encoder, key_decoder = jax.random.split(key, 4)
    return Subcomponents(
        left=jax.random.normal(key_left, (parts, hidden)) / jnp.sqrt(parts),
        right=jax.random.normal(key_right, (parts, features)) / jnp.sqrt(hidden),
        encoder=random_gates(key_encoder, parts, units),
        decoder=random_gates(key_decoder, parts, units),
    )


def importances(
    found: Subcomponents, weights: Float[Array, "hidden features"], *, value: float
) -> Float[Array, "2 features parts"]:
    """Return the importance in [0, 1] of each subcomponent when ONE feature is active.

    Args:
        found: the decomposition.
        weights: $W$.
        value: the value of the active feature; the authors take 0.75.

    Returns:
        First those in $W$, then those in its transpose.
    """
    encoder = jax.vmap(lambda inner: gate_logits(found.encoder, inner))(value * found.right.T)
    inner = value * weights.T @ found.left.T
    decoder = jax.vmap(lambda inner: gate_logits(found.decoder, inner))(inner)
    return hard_sigmoid(jnp.stack([encoder, decoder]))
