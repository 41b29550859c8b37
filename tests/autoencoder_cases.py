"""One small autoencoder of each kind, with parameters and activations of any values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from haste import in_haste

from toymodels import autoencoders

jit = in_haste
HIDDEN, LATENTS = 4, 6
ALL = {
    "ReLU": autoencoders.ReLUAutoencoder(LATENTS),
    "TopK": autoencoders.TopKAutoencoder(LATENTS, 2),
    "BatchTopK": autoencoders.BatchTopKAutoencoder(LATENTS, 2),
    "JumpReLU": autoencoders.JumpReLUAutoencoder(LATENTS, bandwidth=0.1, start=0.05),
    "Gated": autoencoders.GatedAutoencoder(LATENTS),
    "Matryoshka": autoencoders.MatryoshkaAutoencoder(LATENTS, (2, LATENTS)),
}
each = pytest.mark.parametrize("model", ALL.values(), ids=ALL)


def random_params(model, seed, hidden=HIDDEN):
    """Random parameters, none of which is at its initial value."""
    params = model.init(jax.random.key(0), jnp.zeros(hidden))["params"]
    random = np.random.default_rng(seed)
    return {
        name: jnp.asarray(0.7 * random.normal(size=leaf.shape), jnp.float32)
        for name, leaf in params.items()
    }


def numbers(seed, *shape):
    return jnp.asarray(np.random.default_rng([seed, 1]).normal(size=shape), jnp.float32)
