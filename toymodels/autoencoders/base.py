r"""Sparse autoencoders: one activation vector as a sparse sum of learned directions.

Linen modules on ONE activation $h$, all of the form

$$\pi = W_e (h - b_d) + b_e, \qquad z = \text{sparse}(\pi) \ge 0, \qquad \hat h = D z + b_d,$$

with the *latents* $z$ and the *dictionary* $D$ (hidden x latents), whose columns are those of the
parameter `decoder` at length 1: latents are lengths along unit directions, so that no penalty
can be escaped by long columns, and no constraint is needed. Losses are SUMMED over hidden
dimensions and latents and averaged over examples.

Parameters: `encoder` $W_e$ (latents x hidden; start: the transpose of the decoder),
`encoder_bias` $b_e$ (start: 0), `decoder` (start: random directions of length 1), `decoder_bias`
$b_d$ (start: 0), and what an architecture adds. Sites, for `activations` and `intervene`:
`preactivation` $\pi$, `latents` $z$, `output` $\hat h$.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.sites import Site

Number = Float[Array, ""] | float | int
Parameters = Mapping[str, Array]


NAMES = ("decoder", "decoder_bias", "encoder", "encoder_bias")
"""The parameters that all architectures have."""


class Decomposition(NamedTuple):
    r"""An activation as a sparse sum.

    Attributes:
        latents: $z \ge 0$.
        reconstruction: $\hat h$.
    """

    latents: Float[Array, "*examples latents"]
    reconstruction: Float[Array, "*examples hidden"]


def dictionary(params: Parameters) -> Float[Array, "hidden latents"]:
    """The directions of an autoencoder: the columns of its `decoder` at length 1, or zero."""
    decoder = params["decoder"]
    squares = jnp.sum(decoder**2, axis=0, keepdims=True)
    return decoder * lax.rsqrt(jnp.where(squares > 0, squares, 1.0))


def start(module: nn.Module, latents: int, hidden: int) -> Parameters:
    """The parameters that all architectures have."""
    checks.count("latents", latents)

    def directions(key: Key[Array, ""]) -> Float[Array, "hidden latents"]:
        return dictionary({"decoder": jax.random.normal(key, (hidden, latents))})

    decoder = module.param("decoder", directions)
    zeros = nn.initializers.zeros
    return {
        "decoder": decoder,
        "decoder_bias": module.param("decoder_bias", zeros, (hidden,)),
        "encoder": module.param("encoder", lambda _: decoder.T),
        "encoder_bias": module.param("encoder_bias", zeros, (latents,)),
    }


def preactivation(
    params: Parameters, activation: Float[Array, " hidden"]
) -> Float[Array, " latents"]:
    r"""$\pi = W_e (h - b_d) + b_e$."""
    return params["encoder"] @ (activation - params["decoder_bias"]) + params["encoder_bias"]


def decode(params: Parameters, latents: Float[Array, " latents"]) -> Decomposition:
    r"""$\hat h = D z + b_d$."""
    latents = Site(name="latents")(latents)
    reconstruction = Site(name="output")(dictionary(params) @ latents + params["decoder_bias"])
    return Decomposition(latents, reconstruction)


def squares(
    activation: Float[Array, "*shape"], reconstruction: Float[Array, "*shape"]
) -> Float[Array, ""]:
    """Squared error, summed over all entries."""
    return jnp.sum((activation - reconstruction) ** 2)
