"""Features with any correlation between any two of them."""

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
    r"""Features that each are as in `SparseUniform`, joined by a Gaussian copula.

    With $z$ standard normal and $g = A z$, whose entries have variance 1, $u_i = \Phi(g_i)$ is
    uniform and $x_i = \max(0, 1 - u_i/p_i)$: feature $i$ is present where $g_i$ is small. Two
    features are present together with probability $\Phi_2(\Phi^{-1}(p_i), \Phi^{-1}(p_j);
    \rho_{ij})$, where $\rho = A A^\top$: more often than $p_i p_j$ if $\rho_{ij} > 0$, and less if
    it is negative. Values of features that are present together are correlated alike.

    Attributes:
        density: $p$, in $(0, 1]$, at least 5e-5; one number, or one per feature.
        mixing: $A$, features x sources, with rows of length 1. For a given correlation matrix,
            its Cholesky factor; for a few common causes, their loadings beside a diagonal. The
            identity gives independent features.
        smallest: in $[0, 1]$: present features lie on (`smallest`, 1]. With 1 they are exactly 1.
    """

    density: Float[Array | np.ndarray, "*densities"] | float
    mixing: Float[Array | np.ndarray, "*cells features sources"]
    smallest: Float[Array | np.ndarray, "*values"] | float = 0.0

    @property
    def num_features(self) -> int:
        """Rows of `mixing`."""
        return self.mixing.shape[-2]

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        # Normal numbers are made of 23 bits.
        density = base.density(self.density, self.num_features, least=5e-5)
        checks.count("batch", batch)
        checks.interval("smallest", self.smallest, low=0, high=1, remedy="values end at 1")
        mixing = jnp.asarray(self.mixing, density.dtype)
        # In NumPy where the numbers are there: traced, they would pass.
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
