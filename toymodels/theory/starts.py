r"""Starts of the searches for minima: random ones, and ones in the shape of known structures."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toymodels.errors import InputError
from toymodels.theory.features import feature_variance
from toymodels.theory.frames import direct_sums


def starts(
    key: Array,
    hidden: int,
    density: Float[Array, " features"],
    importance: Float[Array, " features"],
    num_random: int,
) -> tuple[Float[Array, "starts hidden features"], Float[Array, "starts features"]]:
    r"""Return weights and biases to descend from, the random ones first.

    A random start has $W_{ij} \sim N(0, 1/m)$ and $b_i \sim N(\bar b, 0.1^2)$, where $\bar b$ is
    uniform on $(-1/2, 1/4)$, so that some starts have silent outputs. A structured start is a
    direct sum of dedicated features, simplices and regular polygons of unit length. It fills the
    dimensions with the features of the largest $I_i \operatorname{Var} x_i$; the other columns are
    zero, with the mean of the feature as bias. Each structured start comes twice, disturbed by 0.02
    and by 0.3, because an optimum of sparse features may have weak features beside a pair.
    """
    if not (density.ndim == 1 and density.shape == importance.shape):
        raise InputError(
            f"density has shape {density.shape} and importance {importance.shape}: give both one "
            "number per feature"
        )
    num_features, dtype = density.size, density.dtype
    frames = np.stack(list(direct_sums(num_features, hidden)))
    key_normal, key_level = jax.random.split(key)
    # Draw all normal numbers at once, because each draw has to be compiled.
    rows = num_random * (hidden + 1) + 2 * len(frames) * hidden
    normal = jax.random.normal(key_normal, (rows, num_features), dtype)
    parts = jnp.split(normal, [num_random, num_random * (hidden + 1)])
    level = jax.random.uniform(key_level, (num_random, 1), dtype, -0.5, 0.25)
    bias = level + 0.1 * parts[0]
    weights = parts[1].reshape(num_random, hidden, num_features) / np.sqrt(hidden)

    scale = np.repeat([0.02, 0.3], len(frames))[:, None, None]
    disturbance = scale * parts[2].reshape(2 * len(frames), hidden, num_features)
    dropped = jnp.asarray(np.tile((frames**2).sum(axis=1) == 0, (2, 1)))
    order = jnp.argsort(-importance * feature_variance(density))
    rank = jnp.argsort(order)
    structured = (jnp.asarray(np.tile(frames, (2, 1, 1)), dtype) + disturbance)[:, :, rank]
    means = jnp.where(dropped[:, rank], density / 2, 0.0)
    return jnp.concatenate([weights, structured]), jnp.concatenate([bias, means])
