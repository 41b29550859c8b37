"""Features that come from a place on a manifold: words around a topic, and convex mixtures."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.errors import InputError


@struct.dataclass
class BagsOfWords:
    r"""Words that are present or not; words near the topic of the text are likelier.

    Word $i$ has the place $v_i$. The topic $z$ of an example is one of these places, all equally
    likely; given the topic, words are independent, and word $i$ is 1 with probability
    $\sigma(\beta\, v_i \cdot z + c)$, else 0. Places on a circle, at equal angles, give a circulant
    covariance; places on any other manifold give words with the geometry of that manifold.
    `toymodels.theory.embeddings` has the covariance in closed form.

    Attributes:
        places: the places $v_i$ of the words, words x dimensions, at least one.
        sharpness: the factor $\beta$; with 0 all words are independent.
        offset: the number $c$, which makes words frequent or rare.

    References:
        Prieto et al. (2026), "From Data Statistics to Feature Geometry".
    """

    places: Float[Array | np.ndarray, "*cells words dimensions"]
    sharpness: Float[Array | np.ndarray, "*cells"] | float
    offset: Float[Array | np.ndarray, "*cells"] | float = 0.0

    @property
    def num_features(self) -> int:
        """The number of rows of `places`."""
        return self.places.shape[-2]

    @property
    def chances(self) -> Float[Array, "topics words"]:
        """The probability of each word given each topic."""
        places = _checked_places(self.places)
        for name, value in (("sharpness", self.sharpness), ("offset", self.offset)):
            checks.interval(name, value, remedy="give a finite number")
        return jax.nn.sigmoid(self.sharpness * (places @ places.T) + self.offset)

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        checks.count("batch", batch)
        key_topic, key_words = jax.random.split(key)
        topic = jax.random.randint(key_topic, (batch,), 0, self.num_features)
        uniform = jax.random.uniform(key_words, (self.num_features, batch))
        return jnp.where(uniform < self.chances.T[:, topic], 1.0, 0.0).T


def _checked_places(places: Any) -> Float[Array, "words dimensions"]:
    """Return the places as an array, after a check that they are a finite table."""
    if np.ndim(places) != 2 or 0 in np.shape(places):
        raise InputError(f"places has shape {np.shape(places)}: give words x dimensions")
    if not isinstance(places, Tracer):
        checks.interval("places", places, remedy="give finite places")
    return jnp.asarray(places, jnp.result_type(float))


@struct.dataclass
class ConvexMixtures:
    r"""Shares that are at least 0 and add up to 1, from the symmetric Dirichlet distribution.

    They are points of a simplex. With the concentration $a$ for each of $n$ features,
    $E x_i = 1/n$ and

    $$\operatorname{Cov}(x_i, x_j) = \frac{[i = j] / n - 1/n^2}{n a + 1}.$$

    A small $a$ gives examples that are nearly one vertex, $a = 1$ the uniform distribution on the
    simplex, and a large $a$ nearly equal shares.

    Attributes:
        num_features: the number $n$ of vertices, at least 2.
        concentration: the parameter $a > 0$ of the distribution.
    """

    num_features: int = struct.field(pytree_node=False)
    concentration: Float[Array | np.ndarray, "*cells"] | float

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        checks.count("num_features", self.num_features, minimum=2)
        checks.count("batch", batch)
        checks.interval(
            "concentration", self.concentration, low=0, open_low=True, remedy="give more than 0"
        )
        concentration = jnp.full(self.num_features, self.concentration)
        return jax.random.dirichlet(key, concentration, (batch,))
