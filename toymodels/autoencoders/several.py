"""Autoencoders of several activations of ONE example: crosscoders and skip transcoders."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toymodels.autoencoders import base
from toymodels.autoencoders.base import Decomposition, Number, Parameters
from toymodels.errors import InputError
from toymodels.sites import Site


class Crosscoder(nn.Module):
    r"""A ReLU autoencoder of several activations whose latents pay for the decoder of each.

    The parts $s$ of an activation are those of several models or layers, as `SideBySide` writes
    them. The loss is

    $$\lVert h - \hat h\rVert^2 + \lambda \sum_i z_i \sum_s \lVert D_{s, i} \rVert$$

    with the part $D_{s, i}$ of the direction of latent $i$. The whole direction has length 1, so
    that `ReLUAutoencoder` pays for its length instead, and with `BatchTopKAutoencoder` nothing
    is paid. A sum of lengths takes away the shorter part first:
    `theory.failures.crosscoder_ratio` says by how much.

    Attributes:
        latents: the size of the dictionary.
        sizes: the lengths of the parts, in order.

    References:
        Lindsey et al. (2024), "Sparse Crosscoders for Cross-Layer Features and Model Diffing".
        Minder et al. (2025), "Robustly Identifying Concepts Introduced During Chat Fine-Tuning
        Using Crosscoders".
    """

    latents: int
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """Return the latents and the reconstruction of one activation."""
        if sum(self.sizes) != activation.size:
            raise InputError(
                f"sizes {self.sizes} add up to {sum(self.sizes)} and the activation has length "
                f"{activation.size}: give the length of each part"
            )
        return base.rectified(self, self.latents, activation)

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Return the loss of one activation; `penalty` is $\lambda$."""
        latents, reconstruction = self(activation)
        prices = jnp.sum(part_lengths(self.variables["params"], self.sizes), axis=0)
        error = base.squared_error(activation, reconstruction)
        return error + penalty * jnp.vdot(latents, prices)


def part_lengths(params: Parameters, sizes: tuple[int, ...]) -> Float[Array, "parts latents"]:
    r"""Return the length $\lVert D_{s, i} \rVert$ of each part of each direction.

    The squares of a column add up to 1, or to 0 if the column is 0.

    Args:
        params: the parameters of any autoencoder.
        sizes: the lengths of the parts, in order.
    """
    parts = jnp.split(base.dictionary(params), np.cumsum(sizes)[:-1])
    squares = jnp.stack([jnp.sum(part**2, axis=0) for part in parts])
    # The root has no derivative at 0, where a decoder of length 0 stays.
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


class SkipTranscoder(nn.Module):
    r"""A ReLU autoencoder with a linear path beside the latents: $\hat h = D z + b_d + S h$.

    The parameter `skip`, $S$, is 0 at the start, and the penalty does not count it. Give a
    `wiring`, which lets $S$ lead from what is only read to what is written; else $S$ would copy.

    Attributes:
        latents: the size of the dictionary.

    References:
        Paulo, Shabalin, Belrose (2025), "Transcoders Beat Sparse Autoencoders for
        Interpretability".
    """

    latents: int

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """Return the latents and the reconstruction of one activation."""
        size = activation.size
        skip = self.param("skip", nn.initializers.zeros, (size, size))
        params = base.start(self, self.latents, size)
        latents = nn.relu(Site(name="preactivation")(base.preactivation(params, activation)))
        latents = Site(name="latents")(latents)
        output = base.dictionary(params) @ latents + params["decoder_bias"] + skip @ activation
        return Decomposition(latents, Site(name="output")(output))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Return $\lVert h - \hat h\rVert^2 + \lambda \sum_i z_i$; `penalty` is $\lambda$."""
        latents, reconstruction = self(activation)
        return base.squared_error(activation, reconstruction) + penalty * jnp.sum(latents)
