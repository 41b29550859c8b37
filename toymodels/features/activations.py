"""What a model computes inside, as a distribution to train another model on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key, PyTree

from toymodels import models
from toymodels.errors import InputError
from toymodels.features import base


@struct.dataclass
class Activations:
    """The value at a site of a model, for examples drawn from its features.

    A sparse autoencoder trained on it decomposes what the model represents. To see features
    and activations side by side, draw from `features` and ask `toymodels.activations`.

    Attributes:
        model: any Linen module of ONE example with `Site`s.
        params: its parameters. They may be traced: a cell can train the model first.
        features: the distribution of the model's inputs.
        site: where to look, "hidden" for all models of this package; a vector.
    """

    model: nn.Module = struct.field(pytree_node=False)
    params: PyTree
    features: base.Features
    site: str = struct.field(pytree_node=False)

    @property
    def num_features(self) -> int:
        """Width of the site."""
        example = jnp.zeros(self.features.num_features)
        sites = jax.eval_shape(lambda: models.activations(self.model, self.params, example))
        if self.site not in sites:
            raise InputError(
                f"no site {self.site!r} in this model: it has {', '.join(sorted(sites))}"
            )
        shape = sites[self.site].shape
        if len(shape) != 1:
            raise InputError(f"site {self.site!r} has shape {shape}: choose one that is a vector")
        return shape[0]

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch hidden"]:
        """Draw `batch` independent vectors with one use of `key`."""
        _ = self.num_features  # for its checks

        def value(example: Float[Array, " features"]) -> Float[Array, " hidden"]:
            return models.activations(self.model, self.params, example)[self.site]

        return jax.vmap(value)(self.features.sample(key, batch))
