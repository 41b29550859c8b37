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
from toymodels.training.train import fit

__all__ = [
    "Gates",
    "Subcomponents",
    "decompose_parameters",
    "decomposition_loss",
    "hard_sigmoid",
    "importances",
]

LEAK = 0.01  # the slope of the hard sigmoid where it would be flat


class Gates(NamedTuple):
    r"""One network for each subcomponent: $a_c \cdot \mathrm{GELU}(w_c h + b_c) + d_c$.

    Attributes:
        weights_in: $w$.
        bias_in: $b$.
        weights_out: $a$.
        bias_out: $d$.
    """

    weights_in: Float[Array, "*cells parts units"]
    bias_in: Float[Array, "*cells parts units"]
    weights_out: Float[Array, "*cells parts units"]
    bias_out: Float[Array, "*cells parts"]


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


def decompose_parameters(
    key: Key[Array, ""],
    weights: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    sample: Callable[[Key[Array, ""], int], Float[Array, "examples features"]],
    *,
    parts: int,
    gate_units: int,
    minimality: Float[Array, ""] | float,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
) -> Subcomponents:
    r"""Decompose the weights of a tied model into subcomponents that are rarely needed.

    It minimises the mean of `decomposition_loss` over inputs and masks.

    Args:
        key: decides the start, the data and the masks.
        weights: $W$.
        bias: $b$.
        sample: a function of a key and a batch size that returns inputs, such as
            `tm.SparseUniform(5, 0.05).sample`. Their sparsity decides which subcomponents are rare.
        parts: the number of subcomponents; those that are too many become unimportant.
        gate_units: the hidden units of each gate; the authors have 16.
        minimality: $\beta \ge 0$; the authors have 3e-3 for 5 features in 2 dimensions.
        optimizer: an Optax transformation.
        steps: the number of updates.
        batch: the number of inputs of each update.

    Raises:
        InputError: sizes that do not fit, counts below 1, or a negative factor.
    """
    checks.count("parts", parts)
    checks.count("gate_units", gate_units)
    checks.interval("minimality", minimality, low=0, remedy="give a factor of 0 or more")
    checks.same_size("features", weights=weights.shape[1], bias=bias.size)
    key_start, key_data = jax.random.split(key)

    def inputs_and_masks(key: Key[Array, ""], batch: int) -> tuple[Array, Array]:
        key_inputs, key_masks = jax.random.split(key)
        return sample(key_inputs, batch), jax.random.uniform(key_masks, (batch, 2, parts))

    def loss(found: Subcomponents, example: tuple[Array, Array]) -> Float[Array, ""]:
        x, uniform = example
        return decomposition_loss(found, weights, bias, x, uniform, minimality=minimality)

    start = _start(key_start, parts, gate_units, *weights.shape)
    fitted = fit(
        key_data, start, loss, inputs_and_masks, optimizer=optimizer, steps=steps, batch=batch
    )
    return fitted.params


def decomposition_loss(
    found: Subcomponents,
    weights: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    x: Float[Array, " features"],
    uniform: Float[Array, "2 parts"],
    *,
    minimality: Float[Array, ""] | float,
) -> Float[Array, ""]:
    r"""Return the loss of a decomposition at ONE input with masks $g + (1 - g) r$.

    With the importances $g$ and random numbers $r$ of the two matrices it is the sum of

    - faithfulness: the mean of $(W - \sum_c U_c V_c^\top)^2$ over the weights;
    - reconstruction: the mean over outputs of the squared change of the output with masks in both
      matrices, plus the average of the two changes with masks in one matrix;
    - minimality: $\beta$ times the sum of $|g|$ over the subcomponents of both matrices.

    The authors draw masks afresh for each of the three reconstructions; here they share them.

    Args:
        found: the decomposition.
        weights: $W$.
        bias: $b$.
        x: the input.
        uniform: $r$ in $[0, 1]$, for $W$ and for its transpose.
        minimality: $\beta$.
    """
    hidden = weights @ x
    output = jax.nn.relu(weights.T @ hidden + bias)
    gates = jnp.stack(
        [
            gate_logits(found.encoder, found.right @ x),
            gate_logits(found.decoder, found.left @ hidden),
        ]
    )
    low = hard_sigmoid(gates, leak_below=LEAK)
    mask_in, mask_out = low + (1 - low) * uniform

    def error(preactivation: Float[Array, " features"]) -> Float[Array, ""]:
        return jnp.mean((jax.nn.relu(preactivation + bias) - output) ** 2)

    def decoded(hidden: Float[Array, " hidden"]) -> Float[Array, " features"]:
        return found.right.T @ (mask_out * (found.left @ hidden))

    masked = found.left.T @ (mask_in * (found.right @ x))
    unfaithful = jnp.mean((weights - found.left.T @ found.right) ** 2)
    layerwise = (error(weights.T @ masked) + error(decoded(hidden))) / 2
    important = jnp.sum(jnp.abs(hard_sigmoid(gates, leak_above=LEAK)))
    return unfaithful + error(decoded(masked)) + layerwise + minimality * important


def hard_sigmoid(
    logits: Float[Array, "*shape"], *, leak_below: float = 0.0, leak_above: float = 0.0
) -> Float[Array, "*shape"]:
    r"""Return the logits cut off at 0 and 1, with a slope outside so that gradients get through."""
    inside = jnp.clip(logits, 0.0, 1.0)
    return inside + leak_below * jnp.minimum(logits, 0) + leak_above * jnp.maximum(logits - 1, 0)


def gate_logits(gates: Gates, inner: Float[Array, " parts"]) -> Float[Array, " parts"]:
    """Return what the gates say of the inner activations, before the hard sigmoid."""
    units = jax.nn.gelu(gates.weights_in * inner[:, None] + gates.bias_in)
    return jnp.sum(gates.weights_out * units, axis=1) + gates.bias_out


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


def random_gates(key: Key[Array, ""], parts: int, units: int) -> Gates:
    """Return the gates of a start."""
    key_in, key_out = jax.random.split(key)
    weights_in = jnp.sqrt(2.0) * jax.random.normal(key_in, (parts, units))
    weights_out = jax.random.normal(key_out, (parts, units)) / jnp.sqrt(units)
    return Gates(weights_in, jnp.zeros((parts, units)), weights_out, jnp.zeros(parts))


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
