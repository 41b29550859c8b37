"""A finite list of examples as a distribution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Key, PyTree

from toymodels import checks
from toymodels.errors import InputError


@struct.dataclass
class FiniteData:
    """A fixed data set, from which samples are drawn with replacement.

    To train on the whole set at every update, no draw is needed: give `fit` the function
    `sample=lambda key, batch: examples`, and their number as `batch`.

    Attributes:
        examples: an array with the examples along its first axis, at least one. An example is a
            row of features or has any other shape. A pytree of such arrays holds, say, inputs
            with labels. Whole numbers and truth values of a single array become floats, because
            models compute with them; in a pytree they stay as they are, because they may be
            labels.
    """

    examples: PyTree

    @property
    def num_features(self) -> int:
        """The number of columns of `examples`."""
        if not isinstance(self.examples, np.ndarray | jax.Array):
            raise InputError("these examples are a pytree: they have no number of features")
        return self.examples.shape[-1]

    def sample(self, key: Key[Array, ""], batch: int) -> Any:
        """Draw `batch` independent examples with one use of `key`.

        Raises:
            ValueError: there are no examples, the arrays hold different numbers of them, or an
                example is not finite.
        """
        checks.count("batch", batch)
        leaves = jax.tree.leaves(self.examples)
        if len({np.shape(leaf)[:1] for leaf in leaves}) != 1 or np.ndim(leaves[0]) == 0:
            shapes = ", ".join(sorted({str(np.shape(leaf)) for leaf in leaves})) or "none"
            raise InputError(
                f"shapes of the examples are {shapes}: give arrays with the examples along the "
                "first axis, as many in each"
            )
        size = np.shape(leaves[0])[0]
        checks.count("number of examples", size)
        chosen = jax.random.randint(key, (batch,), 0, size)
        for leaf in leaves:
            if not isinstance(leaf, Tracer) and not np.isfinite(np.asarray(leaf, float)).all():
                raise InputError("the examples hold NaN or infinity: take these examples out")
        single_array = jax.tree.structure(self.examples) == jax.tree.structure(0)

        def rows(leaf: Any) -> Array:
            array = jnp.asarray(leaf)
            if single_array and not jnp.issubdtype(array.dtype, jnp.inexact):
                array = array.astype(jnp.result_type(float))
            return array[chosen]

        return jax.tree.map(rows, self.examples)
