"""The activations inside a model, as a distribution that another model is trained on."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key, PyTree

from toymodels import sites
from toymodels.errors import InputError
from toymodels.features import base


@struct.dataclass
class Activations:
    """The distribution of the value at a site of a model, for examples drawn from its features.

    A sparse autoencoder that is trained on it decomposes what the model represents. To see
    features and activations side by side, draw from `features` and call `toymodels.activations`.

    Attributes:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model. They may be traced: a cell can train the model first.
        features: the distribution of the model's inputs.
        site: the name of the site, which is "hidden" for all models of this package. If it holds
            more than one vector, as in a model of sequences, each sample is one of them, drawn
            uniformly.
    """

    model: nn.Module = struct.field(pytree_node=False)
    params: PyTree
    features: base.Features
    site: str = struct.field(pytree_node=False)

    @property
    def num_features(self) -> int:
        """The length of the vectors at the site."""
        return self._shape()[-1]

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch hidden"]:
        """Draw `batch` independent vectors with one use of `key`."""
        shape = self._shape()
        num_vectors = math.prod(shape[:-1])
        if num_vectors == 1:
            return self._values(key, batch).reshape(batch, -1)
        key_features, key_choice = jax.random.split(key)
        chosen = jax.random.randint(key_choice, (batch,), 0, num_vectors)
        vectors = self._values(key_features, batch).reshape(batch, num_vectors, -1)
        return jnp.take_along_axis(vectors, chosen[:, None, None], axis=1)[:, 0]

    def _values(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch *site"]:
        """Return the value at the site for each of `batch` examples."""

        def value(example: PyTree) -> Float[Array, "*site"]:
            return sites.activations(self.model, self.params, example)[self.site]

        return jax.vmap(value)(self.features.sample(key, batch))

    def _shape(self) -> tuple[int, ...]:
        """Return the shape of the value at the site, after checks."""

        def values() -> dict[str, Any]:
            examples = self.features.sample(jax.random.key(0), 1)
            example = jax.tree.map(lambda leaf: leaf[0], examples)
            return sites.activations(self.model, self.params, example)

        found = jax.eval_shape(values)
        if self.site not in found:
            raise InputError(
                f"no site {self.site!r} in this model: it has {', '.join(sorted(found))}"
            )
        value = found[self.site]
        if not isinstance(value, jax.ShapeDtypeStruct) or not value.shape:
            shape = jax.tree.map(jnp.shape, value)
            raise InputError(f"site {self.site!r} has shape {shape}: choose one that holds vectors")
        return value.shape


@struct.dataclass
class SideBySide:
    """Vectors of several distributions, which are drawn with one key and written in one row.

    The `Activations` of several sites or models with equal `features` are those of the SAME
    examples, because equal keys draw equal features. So a row holds the input and the output of a
    layer, as a transcoder needs them, or the activations of two models, as a crosscoder does.

    Attributes:
        parts: the distributions, in order. An `Activations` among them must have a site that holds
            one vector, or all of them must draw from the same number of vectors.
    """

    parts: tuple[base.Features, ...]

    @property
    def num_features(self) -> int:
        """The length of a row."""
        return sum(part.num_features for part in self.parts)

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent rows with one use of `key`."""
        return jnp.concatenate([part.sample(key, batch) for part in self.parts], axis=1)
