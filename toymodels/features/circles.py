"""Features that need two dimensions, such as angles."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Key

from toymodels.features import base


@struct.dataclass
class Circles:
    r"""Independent points on circles, such as the day of the week, as pairs of coordinates.

    With probability $p_c$ circle $c$ is present, at $(\cos\theta, \sin\theta)$ with $\theta$
    uniform; otherwise it is $(0, 0)$. So a coordinate has $E x_i = 0$ and $E x_i^2 = p_c / 2$, and
    the two coordinates of a circle are uncorrelated but dependent.

    Attributes:
        num_circles: the number of circles, at least 1. Circle $c$ has the coordinates $2c$ and
            $2c + 1$.
        density: the probability $p_c$ that a circle is present, in $[10^{-7}, 1]$; one number, or
            one for each circle.

    References:
        Engels et al. (2024), "Not All Language Model Features Are Linear".
    """

    num_circles: int = struct.field(pytree_node=False)
    density: Float[Array | np.ndarray, "*cells"] | float

    @property
    def num_features(self) -> int:
        """The number of coordinates, two for each circle."""
        return 2 * self.num_circles

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch features"]:
        """Draw `batch` independent vectors with one use of `key`."""
        density = base.density(self.density, self.num_circles, each="circle")
        place = base.uniform(key, batch, self.num_circles) / density
        points = jnp.stack([jnp.cos(2 * np.pi * place), jnp.sin(2 * np.pi * place)], axis=1)
        return jnp.where(place[:, None] < 1, points, 0.0).reshape(self.num_features, batch).T
