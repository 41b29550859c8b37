"""Gates of a parameter decomposition: how important a subcomponent is for one input.

References:
    Bushnaq, Braun, Sharkey (2025), "Stochastic Parameter Decomposition".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

__all__ = ["LEAK", "Gates", "gate_logits", "hard_sigmoid", "random_gates"]

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


def random_gates(key: Key[Array, ""], parts: int, units: int) -> Gates:
    """Return the gates of a start."""
    key_in, key_out = jax.random.split(key)
    weights_in = jnp.sqrt(2.0) * jax.random.normal(key_in, (parts, units))
    weights_out = jax.random.normal(key_out, (parts, units)) / jnp.sqrt(units)
    return Gates(weights_in, jnp.zeros((parts, units)), weights_out, jnp.zeros(parts))
