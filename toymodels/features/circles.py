"""Features of two dimensions that do not come apart: angles."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Key

from toymodels.features import base


@struct.dataclass
class Circles:
    r"""Points on circles, such as days of the week: two numbers that mean nothing alone.

    With probability $p_c$ circle $c$ is present, at $(\cos\theta, \sin\theta)$ with $\theta$
    uniform; else it is $(0, 0)$. Circles are independent. So a coordinate has $E x_i = 0$ and
    $E x_i^2 = p_c / 2$, and the two of a circle are uncorrelated yet dependent.

    Attributes:
        num_circles: at least 1. Circle $c$ has the coordinates $2c$ and $2c + 1$.
        density: $p_c$, in $[10^{-7}, 1]$; one number, or one per circle.

    References:
        Engels et al. (2024), "Not All Language Model Features Are Linear".
    """

    num_circles: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    @property
    def num_features(self) -> int:
        """Two coordinates a circle."""
        return 2 * self.num_circles

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = base.density(self.density, self.num_circles, each="circle")
        place = base.uniform(key, batch, self.num_circles) / density
        points = jnp.stack([jnp.cos(2 * np.pi * place), jnp.sin(2 * np.pi * place)], axis=1)
        return jnp.where(place[:, None] < 1, points, 0.0).reshape(self.num_features, batch).T
