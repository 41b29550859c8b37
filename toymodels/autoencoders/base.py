r"""The common form of all sparse autoencoders: an activation as a sparse sum of directions.

Each is a Linen module of ONE activation $h$ of the form

$$\pi = W_e (h - b_d) + b_e, \qquad z = \text{sparse}(\pi) \ge 0, \qquad \hat h = D z + b_d,$$

with the *latents* $z$ and the *dictionary* $D$ (hidden x latents). The columns of $D$ are those
of the parameter `decoder`, divided by their lengths. So latents are lengths along unit
directions: long columns cannot escape a penalty, and no constraint is needed. Losses are SUMMED
over hidden dimensions and latents and averaged over examples.

The parameters are `encoder` $W_e$ (latents x hidden; at the start the transpose of the decoder),
`encoder_bias` $b_e$ (at the start 0), `decoder` (at the start random directions of length 1),
`decoder_bias` $b_d$ (at the start 0), and what an architecture adds. The sites, for `activations`
and `intervene`, are `preactivation` $\pi$, `latents` $z$ and `output` $\hat h$.

A model of a user's own needs one method, `loss(activation, penalty)`, for ONE activation. A model
whose latents depend on a whole batch has the methods of `OnBatch` instead.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, cast, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.errors import InputError
from toymodels.sites import Site

Number = Float[Array, ""] | float | int
Parameters = Mapping[str, Array]


NAMES = ("decoder", "decoder_bias", "encoder", "encoder_bias")
"""The parameters that all architectures have."""


class Decomposition(NamedTuple):
    r"""An activation as a sparse sum of directions.

    Attributes:
        latents: the latents $z \ge 0$.
        reconstruction: the reconstruction $\hat h$.
    """

    latents: Float[Array, "*examples latents"]
    reconstruction: Float[Array, "*examples hidden"]


def dictionary(params: Parameters) -> Float[Array, "hidden latents"]:
    """Return the directions of an autoencoder: the columns of its `decoder` at length 1.

    A column of zeros stays zero.
    """
    decoder = params["decoder"]
    squared_lengths = jnp.sum(decoder**2, axis=0, keepdims=True)
    return decoder * lax.rsqrt(jnp.where(squared_lengths > 0, squared_lengths, 1.0))


def with_dictionary(model: nn.Module, directions: Float[Array, "hidden latents"]) -> Parameters:
    """Return parameters that read and write given directions, as the start of a fit.

    Args:
        model: an autoencoder with a latent for each direction.
        directions: the columns of the decoder, which are the rows of the encoder, too.

    Returns:
        The parameters, with biases as `init` leaves them.
    """
    directions = jnp.asarray(directions, jnp.result_type(float))
    if directions.ndim != 2:
        raise InputError(f"directions has shape {directions.shape}: give hidden x latents")
    params = cast(Parameters, model.init(jax.random.key(0), directions[:, 0])["params"])
    if (needed := params["decoder"].shape) != directions.shape:
        raise InputError(
            f"directions has shape {directions.shape}, but the model has {needed[1]} latents: give "
            "hidden x latents, with a direction for each latent"
        )
    return {**params, "decoder": directions, "encoder": directions.T}


@runtime_checkable
class OnBatch(Protocol):
    """An autoencoder whose latents depend on the whole batch of an update."""

    def on_batch(self, batch: Float[Array, "examples hidden"]) -> Decomposition:
        """Return the latents and the reconstructions of all activations of a batch."""
        ...

    def batch_loss(self, batch: Float[Array, "examples hidden"], penalty: Number) -> Array:
        """Return the loss of a batch, averaged over its activations."""
        ...

    def settled(
        self,
        key: Key[Array, ""],
        params: Parameters,
        sample: Callable[[Key[Array, ""]], Array],
    ) -> Parameters:
        """Return the parameters after training, with all that ONE activation needs.

        Args:
            key: decides the batches.
            params: the parameters at the end of training.
            sample: a function of a key that returns a fresh batch of activations.
        """
        ...


def start(module: nn.Module, latents: int, hidden: int) -> Parameters:
    """Declare and return the parameters that all architectures have."""
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
    r"""Return the preactivations $\pi = W_e (h - b_d) + b_e$ of one activation."""
    return params["encoder"] @ (activation - params["decoder_bias"]) + params["encoder_bias"]


def decode(params: Parameters, latents: Float[Array, " latents"]) -> Decomposition:
    r"""Return the latents with their reconstruction $\hat h = D z + b_d$."""
    latents = Site(name="latents")(latents)
    reconstruction = Site(name="output")(dictionary(params) @ latents + params["decoder_bias"])
    return Decomposition(latents, reconstruction)


def rectified(
    module: nn.Module, latents: int, activation: Float[Array, " hidden"]
) -> Decomposition:
    r"""Declare the parameters, and return the latents $\mathrm{ReLU}(\pi)$ of one activation."""
    params = start(module, latents, activation.size)
    found = nn.relu(Site(name="preactivation")(preactivation(params, activation)))
    return decode(params, found)


def squared_error(
    activation: Float[Array, "*shape"], reconstruction: Float[Array, "*shape"]
) -> Float[Array, ""]:
    """Return the squared error, summed over all entries."""
    return jnp.sum((activation - reconstruction) ** 2)
