r"""The distance of causal scrubbing, in closed form.

The hypothesis "output $i$ depends on $x_i$ alone" replaces $y_i$ by the output $y_i^s$ for another
input that has the same $x_i$ and independent other features. Given $x_i$ the two are independent
and have one distribution, so the distance is

$$E \sum_i (y_i - y_i^s)^2 = 2 \sum_i E\,\mathrm{Var}(y_i \mid x_i)
  = 2 \sum_i \left( E y_i^2 - E\,m_i(x_i)^2 \right), \qquad m_i(x) = E[y_i \mid x_i = x].$$

It is 0 if and only if each output depends on its own feature alone. So it sees superposition, to
which the loss recovered by scrubbing is blind. `toymodels.interventions.scrub` measures it.
"""

import functools
from typing import Any, Final, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from toymodels.errors import InputError
from toymodels.theory.boxes import Boxes, all_boxes, mean_square
from toymodels.theory.features import Numbers, feature_variance
from toymodels.theory.loss import check_model, per_feature
from toymodels.theory.precision import in_float64
from toymodels.theory.quadrature import gauss_legendre

__all__ = ["MAX_FEATURES", "scrubbing_distance", "scrubbing_distance_linear"]

MAX_FEATURES: Final = 8
"""The largest number of features of `scrubbing_distance`, whose cost grows as $n^2 6^n$."""

Weights: TypeAlias = Float[Array | np.ndarray, "hidden features"]
Bias: TypeAlias = Float[Array | np.ndarray, " features"]
Distance: TypeAlias = Float[Array | np.ndarray, ""]


def scrubbing_distance(weights: Weights, bias: Bias, density: Numbers) -> Distance:
    r"""Return the exact distance $2 \sum_i E\,\mathrm{Var}(y_i \mid x_i)$ of `ReLUOutput`.

    The features are those of `SparseUniform`. With $z_i = b_i + \sum_j G_{ij} x_j$ the conditional
    mean is $m_i(x) = \frac12 \partial_{b_i} E[\mathrm{ReLU}(z_i)^2 \mid x_i = x]$, and
    `toymodels.theory.boxes` computes the mean square. As a function of $x$ it is a polynomial of
    degree $n$ or less between the places where a corner of the box of the other features has
    $z_i = 0$. So Gauss's rule with $n + 1$ points on each piece integrates $m_i(x)^2$ exactly.

    Args:
        weights: one model; `vmap` over several.
        bias: one per output.
        density: $p$, in $[0, 1]$; one number, or one per feature.

    Returns:
        At least 0, up to rounding.

    Raises:
        ValueError: more than `MAX_FEATURES` features, shapes that do not fit, a density outside
            $[0, 1]$, or numbers that are not finite.
    """
    check_model(weights, bias, density, 1.0)
    num_features = np.shape(weights)[-1]
    if num_features > MAX_FEATURES:
        raise InputError(
            f"{num_features} features are more than the {MAX_FEATURES} that the exact distance can "
            "take: measure it with toymodels.interventions.scrub"
        )
    distance = functools.partial(_relu_distance, boxes=all_boxes(num_features, 2))
    return in_float64(distance, weights, bias, *per_feature(bias, density))


def scrubbing_distance_linear(weights: Weights, density: Numbers) -> Distance:
    r"""Return the exact distance $2 \sum_{i \ne j} G_{ij}^2 \mathrm{Var}(x_j)$ of `LinearOutput`.

    It is also the distance of the preactivations of `ReLUOutput`: twice the interference.

    Args:
        weights: one model of any size; `vmap` over several.
        density: $p$, in $[0, 1]$; one number, or one per feature.

    Returns:
        At least 0; 0 if the feature directions are orthogonal.

    Raises:
        ValueError: as `scrubbing_distance`, but for the number of features.
    """
    bias = np.zeros(np.shape(weights)[-1:])
    check_model(weights, bias, density, 1.0)
    return in_float64(_linear_distance, weights, *per_feature(bias, density))


@jax.jit
def _linear_distance(
    weights: Float[Array, "hidden features"], density: Float[Array, "..."]
) -> Float[Array, ""]:
    gram = weights.T @ weights
    couplings = gram - jnp.diag(jnp.diagonal(gram))
    variance = jnp.broadcast_to(feature_variance(density), couplings.shape[:1])
    return 2 * jnp.sum(couplings**2 @ variance)


@jax.jit
def _relu_distance(
    weights: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    density: Float[Array, "..."],
    boxes: Boxes,
) -> Float[Array, ""]:
    """Return twice the sum over outputs of the variance that their own features do not explain."""
    density = jnp.broadcast_to(density, bias.shape)
    points, node_weights = map(jnp.asarray, gauss_legendre(bias.size + 1))

    def unexplained(output: Any) -> Float[Array, ""]:
        couplings, own, bias, density_own = output
        slope, others = own @ couplings, jnp.where(own > 0, 0.0, couplings)

        def square(couplings: Array, bias: Array) -> Array:
            return mean_square(couplings, bias, density, boxes, signed=False)

        def mean(x: Array) -> Array:
            return jax.grad(square, 1)(others, bias + slope * x) / 2

        edges = _edges(others, bias, slope)
        widths = jnp.diff(edges)
        nodes = edges[:-1, None] + widths[:, None] * points[None, :]
        squares = jax.vmap(mean)(nodes.ravel()).reshape(nodes.shape) ** 2
        active = widths @ (squares @ node_weights)
        silent = mean(jnp.zeros_like(bias)) ** 2
        return square(couplings, bias) - density_own * active - (1 - density_own) * silent

    own = jnp.eye(bias.size, dtype=weights.dtype)
    return 2 * jnp.sum(lax.map(unexplained, (weights.T @ weights, own, bias, density)))


def _edges(
    others: Float[Array, " features"], bias: Float[Array, ""], slope: Float[Array, ""]
) -> Float[Array, " edges"]:
    """Return 0, 1, and the places between them where a corner of the others has $z_i = 0$."""
    corners = bias[None]
    for coupling in others:
        corners = (corners[:, None] + jnp.stack([jnp.zeros_like(coupling), coupling])[None]).ravel()
    moves = slope != 0
    places = jnp.where(moves, -corners / jnp.where(moves, slope, 1.0), 0.0)
    # The coupling of the output's own feature is 0 here, so each corner stands here twice.
    inside = jnp.sort(jnp.clip(places, 0.0, 1.0))[::2]
    return jnp.concatenate([jnp.zeros(1), inside, jnp.ones(1)]).astype(bias.dtype)
