"""A finite list of examples as a distribution."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Key

from toymodels import checks


@struct.dataclass
class FiniteData:
    """A fixed data set: each sample is one of its examples, all as likely, with replacement.

    For training on the whole set at every step, no draw is needed: hand
    `sample=lambda key, batch: examples` to `fit`, with their number as `batch`.

    Attributes:
        examples: at least one, the features of each in a row.
    """

    examples: Float[Array | np.ndarray, "*cells examples features"]

    @property
    def num_features(self) -> int:
        """Columns of `examples`."""
        return self.examples.shape[-1]

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent examples with one use of `key`."""
        checks.count("batch", batch)
        size = self.examples.shape[-2]
        checks.count("number of examples", size)
        return jnp.asarray(self.examples)[jax.random.randint(key, (batch,), 0, size)]
