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

__all__ = ["MAX_POINTS", "expected_value", "gauss_legendre"]

MAX_POINTS: Final = 100_000
"""The largest number of points at which a function is evaluated."""


def gauss_legendre(
    nodes: int,
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    r"""Return the places $x_i$ and the weights $w_i$ of the rule of Gauss and Legendre on [0, 1].

    $\int_0^1 f(x)\, dx = \sum_i w_i f(x_i)$ for polynomials $f$ of degree at most $2 k - 1$.

    Args:
        nodes: $k$.
    """
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return (places + 1) / 2, weights / 2


def expected_value(
    function: Callable[[Any], Any],
    density: Float[Array, ""] | float,
    *,
    num_features: int,
    nodes: int = 32,
) -> Any:
    r"""Return $E f(x)$ for independent features, uniform on $(0, 1]$ with probability $p$, else 0.

    The distribution is that of `SparseUniform`. Each feature is 0 with the weight $1 - p$, or at
    one of $k$ nodes in $[0, 1]$ with $p$ times the weight of the node, so that $f$ is evaluated at
    $(k + 1)^n$ points. The function takes any output of any model; `expected_loss` takes only a
    ReLU.

    Args:
        function: $f$ of ONE vector of features, such as `lambda x: task.loss(x, model(x))`; it
            returns one number. It is mapped over the points.
        density: $p$, in $[0, 1]$.
        num_features: $n$.
        nodes: $k$.

    Returns:
        The mean. It is exact if $f$ is a polynomial of degree at most $2 k - 1$ in each feature. If
        the slope of $f$ has a step, the error is of the order of the step divided by $k^2$.

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
    places, node_weights = gauss_legendre(nodes)
    values = np.append(0.0, places)
    chances = jnp.append(1 - jnp.asarray(density), density * node_weights)
    points = np.stack(np.meshgrid(*[values] * num_features, indexing="ij"), axis=-1)
    weights = functools.reduce(jnp.multiply, jnp.ix_(*[chances] * num_features))
    return jnp.sum(weights.ravel() * jax.vmap(function)(jnp.asarray(points).reshape(count, -1)))
