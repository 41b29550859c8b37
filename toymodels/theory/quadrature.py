"""The expected value of any function of a few features, by a rule of Gauss and Legendre."""

import functools
from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError

__all__ = ["MAX_POINTS", "expected_value"]

MAX_POINTS: Final = 100_000
"""The largest number of points at which a function is evaluated."""


def expected_value(
    function: Callable[[Any], Any],
    density: Float[Array, ""] | float,
    *,
    num_features: int,
    nodes: int = 32,
) -> Any:
    r"""Return $E f(x)$ for independent features that are 0, or with probability $p$ uniform.

    The distribution is that of `SparseUniform`. Each feature is 0 with the weight $1 - p$, or at
    one of $k$ nodes in $[0, 1]$ with $p$ times its weight, so that $f$ is evaluated at
    $(k + 1)^n$ points. It takes any output of any model, where `expected_loss` takes ReLU alone.

    Args:
        function: $f$ of ONE vector of features, such as `lambda x: task.loss(x, model(x))`; it
            returns one number. It is mapped over the points.
        density: $p$, in $[0, 1]$.
        num_features: $n$.
        nodes: $k$.

    Returns:
        Exact for polynomials up to degree $2 k - 1$ in each feature; with a kink the error is of
        order $1 / k^2$ of its step in slope.

    Raises:
        ValueError: more than `MAX_POINTS` points, or a density outside $[0, 1]$.
    """
    checks.density(density, positive=False)
    checks.count("num_features", num_features)
    checks.count("nodes", nodes)
    if (count := (nodes + 1) ** num_features) > MAX_POINTS:
        raise InputError(
            f"nodes is {nodes} for {num_features} features, which makes {count} points, more than "
            f"{MAX_POINTS}: take fewer nodes, or estimate from samples"
        )
    places, shares = (np.polynomial.legendre.leggauss(nodes) + np.array([[1.0], [0.0]])) / 2
    values = np.append(0.0, places)
    chances = jnp.append(1 - jnp.asarray(density), density * shares)
    points = np.stack(np.meshgrid(*[values] * num_features, indexing="ij"), axis=-1)
    weights = functools.reduce(jnp.multiply, jnp.ix_(*[chances] * num_features))
    return jnp.sum(weights.ravel() * jax.vmap(function)(jnp.asarray(points).reshape(count, -1)))
