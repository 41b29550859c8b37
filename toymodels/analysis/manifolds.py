r"""Feature directions compared with the manifold on which the features lie.

`distances` is features x features: how far the features are from each other on their manifold.
These are pure functions of the weights of ONE model.

References:
    Modell et al. (2025), "The Origins of Representation Manifolds in Large Language Models".
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toymodels.analysis import geometry, inputs
from toymodels.errors import InputError

__all__ = ["cosine_by_distance", "distortion"]


def cosine_by_distance(
    weights: Float[Array, "hidden features"], distances: Any, *, digits: int = 6
) -> Float[Array, ""]:
    r"""Return to what extent the cosine of two feature directions is a function of their distance.

    Pairs of features at equal distances form a group. The result is the share of the variance of
    the cosines, over all pairs, that lies between groups.

    Args:
        weights: feature directions, one per column, none of them zero.
        distances: features x features; they cannot be traced, because they decide the groups.
        digits: the number of decimal digits to which distances are compared.

    Returns:
        A number in $[0, 1]$: 1 if the cosine is a function of the distance. It is 1 for any
        weights if no two pairs have equal distances.
    """
    weights, first, second, each = _pairs(weights, distances)
    directions = weights / jnp.linalg.norm(weights, axis=0, keepdims=True)
    cosines = geometry.gram(directions)[first, second]
    _, group = np.unique(np.round(each, digits), return_inverse=True)
    members = np.bincount(group)
    means = jnp.zeros(len(members)).at[group].add(cosines) / members
    within = jnp.sum((cosines - means[group]) ** 2)
    return 1 - within / jnp.sum((cosines - cosines.mean()) ** 2)


def distortion(weights: Float[Array, "hidden features"], distances: Any) -> Float[Array, ""]:
    r"""Return how far distances between feature directions are from proportional to the given ones.

    With $r_{ij} = \lVert W_i - W_j \rVert / d_{ij}$ it is the standard deviation of $r$ over its
    mean, over all pairs.

    Args:
        weights: feature directions, one per column.
        distances: $d$, features x features, above 0 off the diagonal.

    Returns:
        A number of at least 0: 0 if all distances are proportional, as for an isometry.
    """
    weights, first, second, each = _pairs(weights, distances)
    if (each <= 0).any():
        raise InputError("two features have the distance 0: give features at distinct places")
    ratio = jnp.linalg.norm(weights[:, first] - weights[:, second], axis=0) / each
    return jnp.std(ratio) / jnp.mean(ratio)


def _pairs(weights: Any, distances: Any) -> Any:
    """Return the weights, both features of each pair, and their distances, after checks."""
    weights = inputs.floats("weights", weights, rank=2)
    distances = np.asarray(distances, np.float64)
    count = weights.shape[1]
    if distances.shape != (count, count):
        raise InputError(
            f"distances has shape {distances.shape}: give {count} x {count}, one row per feature"
        )
    first, second = np.triu_indices(count, 1)
    return weights, first, second, distances[first, second]
