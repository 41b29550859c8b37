"""Features with a chosen correlation between any two of them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.features import base


@struct.dataclass
class GaussianCopula:
    r"""Features that each are distributed as in `SparseUniform`, joined by a Gaussian copula.

    Let $z$ be standard normal and $g = A z$, whose entries have variance 1. Then
    $u_i = \Phi(g_i)$ is uniform, and $x_i = \max(0, 1 - u_i/p_i)$: feature $i$ is present if $g_i$
    is small. Two features are present together with probability
    $\Phi_2(\Phi^{-1}(p_i), \Phi^{-1}(p_j); \rho_{ij})$ with $\rho = A A^\top$, which is more than
    $p_i p_j$ if $\rho_{ij} > 0$ and less if $\rho_{ij} < 0$. The values of features that are
    present together are correlated with the same sign.

    Attributes:
        density: the probability $p$ that a feature is not zero, in $[5 \cdot 10^{-5}, 1]$; one
            number, or one for each feature.
        mixing: the matrix $A$, features x sources, with rows of length 1. For a given correlation
            matrix, give its Cholesky factor; for a few common causes, give their loadings beside
            a diagonal matrix. The identity gives independent features.
        smallest: the lower end of the values, in $[0, 1]$. With 1 every present feature is 1.
    """

    density: Float[Array | np.ndarray, "*densities"] | float
    mixing: Float[Array | np.ndarray, "*cells features sources"]
    smallest: Float[Array | np.ndarray, "*values"] | float = 0.0

    @property
    def num_features(self) -> int:
        """The number of rows of `mixing`."""
        return self.mixing.shape[-2]

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        # Normal numbers are made of 23 bits, so smaller densities would be wrong.
        density = base.density(self.density, self.num_features, minimum=5e-5)
        checks.count("batch", batch)
        checks.interval("smallest", self.smallest, low=0, high=1, remedy="values end at 1")
        mixing = jnp.asarray(self.mixing, density.dtype)
        # Known numbers stay in NumPy: as traced numbers they would pass the check.
        rows = mixing if isinstance(self.mixing, Tracer) else np.asarray(self.mixing)
        checks.interval(
            "length of a row of mixing",
            (rows**2).sum(axis=1) ** 0.5,
            low=1 - 1e-3,
            high=1 + 1e-3,
            remedy="divide each row by its length",
        )
        sources = jax.random.normal(key, (mixing.shape[1], batch), density.dtype)
        place = jax.scipy.special.ndtr(mixing @ sources) / density
        return jnp.where(place < 1, 1 - (1 - self.smallest) * place, 0.0).T
