"""Sparse features given how many of them are active: exactly one, or at least one."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Key

from toymodels import checks


@struct.dataclass
class OneActive:
    r"""Features of which exactly one is active, with a value uniform on $(0, 1]$.

    All features are equally likely. The distribution is the limit $p \to 0$ of `SparseUniform`,
    given that an example is not empty. Its exact loss is
    `toymodels.theory.expected_loss_one_active`.

    Attributes:
        num_features: the number $n$ of features, at least 1.

    References:
        Chen et al. (2023), "Dynamical versus Bayesian Phase Transitions in a Toy Model of
        Superposition".
    """

    num_features: int = struct.field(pytree_node=False)

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        checks.count("num_features", self.num_features)
        checks.count("batch", batch)
        key_which, key_size = jax.random.split(key)
        which = jax.random.randint(key_which, (batch,), 0, self.num_features)
        size = 1 - jax.random.uniform(key_size, (batch, 1))
        return size * jax.nn.one_hot(which, self.num_features)


@struct.dataclass
class SomeActive:
    r"""The examples of `SignedSparseUniform` in which at least one feature is active.

    If features are very sparse, nearly every example is empty and teaches nothing. With
    $q = 1 - (1 - p)^n$, the expected loss over all examples is $q$ times the expected loss over
    the examples drawn here, plus $1 - q$ times the loss of the empty example.

    Attributes:
        num_features: the number $n$ of features, at least 1.
        density: the probability $p$ that a feature is active in `SignedSparseUniform`, in $(0, 1]$.
    """

    num_features: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    @property
    def probability(self) -> Float[Array, ""]:
        """The probability $q$ that at least one of independent features is active."""
        return -jnp.expm1(self.num_features * self._log_inactive())

    def _log_inactive(self) -> Float[Array, ""]:
        """Return the logarithm of the probability that a feature is not active.

        It is finite for density 1, too.
        """
        return jnp.log1p(-jnp.minimum(self.density, 1 - 2.0**-24))

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`.

        The number of the first active feature is geometric, cut off at $n$. The features after it
        are active independently, with probability $p$ each.
        """
        checks.count("num_features", self.num_features)
        checks.count("batch", batch)
        checks.density(self.density)
        key_first, key_value = jax.random.split(key)
        tail = 1 - self.probability * jax.random.uniform(key_first, (1, batch))
        first = jnp.floor(jnp.log(tail) / self._log_inactive())
        first = jnp.minimum(first, self.num_features - 1)  # rounding can make it n
        place = jnp.arange(self.num_features)[:, None]
        value = jax.random.uniform(key_value, (self.num_features, batch), minval=-1.0)
        later = jnp.sign(value) * jnp.maximum(0.0, 1 - jnp.abs(value) / self.density)
        return jnp.where(place < first, 0.0, jnp.where(place == first, value, later)).T
