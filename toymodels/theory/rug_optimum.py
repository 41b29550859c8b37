r"""The best gain and bias of an output with Gaussian noise, as `persian_rug` defines it.

The expected squared error of an output and its derivatives are sums of the moments of a ReLU of a
normal variable. A grid finds the best bias in units of the noise, and one step of Newton's method
gives its last digits and the derivative of the result.
"""

from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from toymodels.theory.features import feature_variance

_MIN_NOISE: Final = 1e-15
r"""The smallest $\sigma$ that is computed with, so that $r = 1$ needs no special case."""

_LOWEST_SHIFT: Final = -12.0
r"""The lowest $\beta / \sigma$ that is searched. The best one is above $-\sqrt{2 \ln(1/p)}$, so
this is low enough for $p > 10^{-31}$."""


class Rug(NamedTuple):
    """The best symmetric solution.

    Attributes:
        loss: the mean over features.
        gain: $a$, from a feature to its own output.
        bias: $b$, for noise of mean zero.
    """

    loss: Float[Array | np.ndarray, ""]
    gain: Float[Array | np.ndarray, ""]
    bias: Float[Array | np.ndarray, ""]


def _noise(density: Array, ratio: Array) -> Array:
    r"""Return the standard deviation $\sigma$ of the noise, in units of the feature."""
    variance = feature_variance(density) * (1 / ratio - 1)
    return jnp.sqrt(jnp.maximum(variance, _MIN_NOISE**2))


def _moments(mean: Array, noise: Array) -> tuple[Array, Array, Array, Array]:
    """Return $M_0$ to $M_3$ of `persian_rug.rug_loss`."""
    positive = lax.erfc(-mean / noise / np.sqrt(2)) / 2  # the probability of a positive value
    bell = noise * jnp.exp(-((mean / noise) ** 2) / 2) / np.sqrt(2 * np.pi)
    first = mean * positive + bell
    second = (mean**2 + noise**2) * positive + mean * bell
    third = (mean**2 + 3 * noise**2) * mean * positive + (mean**2 + 2 * noise**2) * bell
    return positive, first, second / 2, third / 6


def _products(
    shift: Array, density: Array, noise: Array, derivative: int = 0
) -> tuple[Array, Array]:
    r"""Return $E[x g]$ and $E[g^2]$ of `persian_rug.rug_loss`, or derivatives by the shift $\beta$.

    A derivative replaces each $M_k$ by $M_{k-1}$, so that one list of moments gives all of them.
    """
    silent = _moments(shift, noise)[: 4 - derivative]
    largest = _moments(1 + shift, noise)[: 4 - derivative]
    active = largest[-1] - silent[-1]
    return (
        density * (largest[-2] - active),
        2 * ((1 - density) * silent[-2] + density * active),
    )


@jax.jit
def loss(gain: Array, bias: Array, density: Array, ratio: Array) -> Array:
    """Return the expected squared error of an output; see `persian_rug.rug_loss`."""
    product, square = _products(bias / gain, density, _noise(density, ratio))
    return density / 3 - 2 * gain * product + gain**2 * square


@jax.jit
def best(density: Array, ratio: Array) -> Rug:
    """Return the minimum over gain and bias; see `persian_rug.best_rug`."""
    noise = _noise(density, ratio)
    shift = _polished(_best_shift_of_grid(density, ratio, noise), density, noise)
    product, square = _products(shift, density, noise)
    gain = product / square
    return Rug(density / 3 - gain * product, gain, gain * shift)


def _best_shift_of_grid(density: Array, ratio: Array, noise: Array) -> Array:
    r"""Return the best $\beta$ of a grid that is refined five times; it has no derivative."""

    def shift(place: Array) -> Array:  # even steps of `place` are fine near 0 and coarse far away
        return noise * jnp.sinh(place)

    def loss_at(place: Array) -> Array:
        product, square = _products(shift(place), density, noise)
        return density / 3 - product**2 / square

    def zoom(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        places = low + (high - low) * jnp.linspace(0.0, 1.0, 129)
        middle = jnp.clip(jnp.argmin(jax.vmap(loss_at)(places)), 1, 127)
        return places[middle - 1], places[middle + 1]

    # Search far enough: the best shift of a linear model is half of the second term.
    highest = 4 + density * (1 / ratio - 1) / noise
    ends = (jnp.full_like(highest, np.arcsinh(_LOWEST_SHIFT)), jnp.arcsinh(highest))
    low, high = lax.stop_gradient(lax.fori_loop(0, 5, zoom, ends))
    return shift((low + high) / 2)


def _polished(shift: Array, density: Array, noise: Array) -> Array:
    r"""Take one step of Newton's method towards the $\beta$ of the largest $E[x g]^2 / E[g^2]$.

    The step gives the last digits, and it gives the result its derivative: the grid has none, and
    that of $\beta - s(\beta, p) / s'$ with $s'$ held fixed is $-\partial_p s / s'$, which is the
    derivative of the root of the slope $s$.
    """
    (product, square), (product_1, square_1), (product_2, square_2) = (
        _products(shift, density, noise, derivative) for derivative in range(3)
    )
    # The slope of E[x g]^2 / E[g^2] is this one times a positive factor.
    slope = 2 * product_1 * square - product * square_1
    curvature = 2 * product_2 * square + product_1 * square_1 - product * square_2
    # At a maximum the curvature is negative. The bound keeps the step shorter than the noise.
    curvature = jnp.minimum(curvature, -jnp.abs(slope) / noise)
    return shift - slope / lax.stop_gradient(curvature)


@jax.jit
def ratio_of_half_loss(density: Array) -> Array:
    """Return the ratio at which `best` loses half of the variance, by bisection."""
    half = feature_variance(density) / 2

    def bisect(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = jnp.sqrt(low * high)
        over = best(density, middle).loss > half
        return jnp.where(over, middle, low), jnp.where(over, high, middle)

    low, high = lax.fori_loop(0, 60, bisect, (density / 10, jnp.ones_like(density)))
    return jnp.sqrt(low * high)


@jax.jit
def sparse_limit(load: Array) -> Array:
    """Return the limit of the loss of sparse features; see `persian_rug.sparse_limit`."""
    kept = 1 - jnp.sqrt(2 / (3 * jnp.maximum(load, 2 / 3)))
    return 1 - kept * (3 - kept) ** 2 / 4
