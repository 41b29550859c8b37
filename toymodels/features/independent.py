"""Features that are independent of each other."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.features import base


@struct.dataclass
class SparseUniform:
    r"""Independent features, each zero with probability $1-p_i$, else uniform on $(0, 1]$.

    One random word decides whether the feature is zero and its value: with $u \sim U[0, 1)$,
    $x_i = \max(0, 1 - u/p_i)$ is positive exactly if $u < p_i$, and then it is uniform. So
    $E x_i = p_i/2$ and $E x_i^2 = p_i/3$. Since $u$ has 32 random bits, a feature is not zero with
    probability $\lceil p_i 2^{32}\rceil / 2^{32}$, which is at most 0.23 % too large.

    Attributes:
        num_features: the number $n$ of features, at least 1.
        density: the probability $p = 1 - S$ that a feature is not zero, in $[10^{-7}, 1]$; one
            number, or one for each feature.

    References:
        Elhage et al. (2022), "Toy Models of Superposition", section 2.
    """

    num_features: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = base.density(self.density, self.num_features)
        return jnp.maximum(0.0, 1 - base.uniform(key, batch, self.num_features) / density).T


@struct.dataclass
class SignedSparseUniform:
    r"""Independent features, each zero with probability $1-p_i$, else uniform on $[-1, 1]$.

    With $v \sim U[-1, 1)$, $|x_i| = \max(0, 1 - |v|/p_i)$ is positive exactly if $|v| < p_i$, and
    then it is uniform; $x_i$ has the sign of $v$. So $E x_i = 0$ and $E x_i^2 = p_i/3$.

    Attributes:
        num_features: the number $n$ of features, at least 1.
        density: the probability $p$ that a feature is not zero, in $[10^{-7}, 1]$; one number, or
            one for each feature.

    References:
        Elhage et al. (2022), section "Computation in Superposition".
    """

    num_features: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = base.density(self.density, self.num_features)
        signed = lax.bitcast_convert_type(base.words(key, batch, self.num_features), jnp.int32)
        signed = signed.astype(jnp.result_type(float)) * 2.0**-31
        size = jnp.maximum(0.0, 1 - jnp.abs(signed) / density)
        return jnp.where(signed < 0, -size, size).T


@struct.dataclass
class Binary:
    r"""Independent features, each 1 with probability $p_i$, else 0.

    Attributes:
        num_features: the number $n$ of features, at least 1.
        density: the probability $p$ that a feature is 1, in $[10^{-7}, 1]$; one number, or one for
            each feature.
    """

    num_features: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = base.density(self.density, self.num_features)
        uniform = base.uniform(key, batch, self.num_features)
        return jnp.where(uniform < density, 1.0, 0.0).T


@struct.dataclass
class StandardisedSparse:
    r"""Independent sparse features of mean 0, variance 1 and a chosen kurtosis.

    They are the features of `SignedSparseUniform`, or their signs, divided by their standard
    deviation. If a feature that is always active has kurtosis $\kappa_1$, then at density $p$ it
    has kurtosis $\kappa_1 / p$. So the density is $p = \kappa_1 / \kappa$, with
    $\kappa_1 = 9/5$ for uniform values and 1 for signs.

    Attributes:
        num_features: the number $n$ of features, at least 1.
        kurtosis: the kurtosis $\kappa = E x_i^4 / (E x_i^2)^2$, at least $\kappa_1$.
        signs: whether an active feature is 1 or -1 before the division, and not uniform on
            $[-1, 1]$.
    """

    num_features: int = struct.field(pytree_node=False)
    kurtosis: Float[Array | np.ndarray, "*cells"] | float
    signs: bool = struct.field(pytree_node=False)

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = (1.0 if self.signs else 9 / 5) / self.kurtosis
        drawn = SignedSparseUniform(self.num_features, density).sample(key, batch)
        return (jnp.sign(drawn) if self.signs else drawn * 3**0.5) / density**0.5


def zipf_density(
    num_features: int, *, largest: Float[Array, ""] | float, exponent: Float[Array, ""] | float
) -> Float[Array, " features"]:
    r"""Return the densities of a power law, $p_i = p_1 i^{-a}$ for $i = 1, \dots, n$.

    Args:
        num_features: the number $n$ of features.
        largest: the first and largest density $p_1$, in $(0, 1]$.
        exponent: the exponent $a \ge 0$: 0 gives equal densities, 1 gives Zipf's law of words.
    """
    checks.count("num_features", num_features)
    checks.interval(
        "largest density", largest, low=0, high=1, open_low=True, remedy="it is a probability"
    )
    checks.interval("exponent", exponent, low=0, remedy="give 0 or more: the first is the largest")
    ranks = jnp.arange(1, num_features + 1, dtype=jnp.result_type(float))
    return jnp.asarray(largest, ranks.dtype) * ranks ** -jnp.asarray(exponent, ranks.dtype)
