r"""Networks that add modulo $p$: their margin, their frequencies and their phases.

The networks are those of `toymodels.theory.modular_addition`: neuron $i$ reads $u_{i,a}$ and
$v_{i,b}$ and writes the square of their sum times $w_i$. `first`, `second` and `out` are $u$, $v$
and $w$ of ONE network, neurons x numbers.

References:
    Morwani et al. (2024), "Feature Emergence via Margin Maximization: Case Studies in Algebraic
    Tasks".
    Nanda et al. (2023), "Progress Measures for Grokking via Mechanistic Interpretability".
"""

from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from toymodels import checks
from toymodels.analysis import inputs

__all__ = ["logits", "norm", "normalised_margin", "restricted", "spectrum"]

Vectors: TypeAlias = Float[Array | np.ndarray, "neurons numbers"]
"""One vector of each neuron of ONE network."""


def logits(
    first: Vectors,
    second: Vectors,
    out: Vectors,
) -> Float[Array, "numbers numbers numbers"]:
    r"""Return $f(a, b)_c = \sum_i (u_{i,a} + v_{i,b})^2 w_{i,c}$ for all $a$, $b$ and $c$."""
    first, second, out = _vectors(first, second, out)
    return jnp.einsum("iab,ic->abc", (first[:, :, None] + second[:, None, :]) ** 2, out)


def norm(
    first: Vectors,
    second: Vectors,
    out: Vectors,
) -> Float[Array, ""]:
    r"""Return $\lVert\theta\rVert_{2,3}$, the 3-norm over neurons of the length of a neuron."""
    first, second, out = _vectors(first, second, out)
    squares = jnp.sum(first**2 + second**2 + out**2, axis=1)
    return jnp.sum(squares**1.5) ** (1 / 3)


def normalised_margin(
    first: Vectors,
    second: Vectors,
    out: Vectors,
) -> Float[Array, ""]:
    r"""Return the margin of a network divided by the third power of its norm.

    The margin is the smallest lead of the logit of $a + b \bmod p$ over another logit, for any
    $a$ and $b$.

    Returns:
        A number of at most `toymodels.theory.modular_addition.max_margin`. It is negative if some
        sum is wrong, and NaN if all vectors are 0. It does not depend on the scale of the network.
    """
    first, second, out = _vectors(first, second, out)
    by_error = _by_error(logits(first, second, out))
    leads = by_error[:, :, :1] - by_error[:, :, 1:]
    return jnp.min(leads) / norm(first, second, out) ** 3


def restricted(
    logits: Float[Array | np.ndarray, "numbers numbers numbers"],
) -> Float[Array, "numbers numbers numbers"]:
    r"""Return the part of logits that depends on the error $c - a - b \bmod p$ alone.

    It is the mean over all $a, b$ for each error: the projection of the logits on the waves
    $\cos(2\pi k (a + b - c) / p)$ of all frequencies $k$. The mean cross-entropy of this part, the
    restricted loss, is never above that of the logits, because cross-entropy is convex.
    """
    logits = inputs.floats("logits", logits, rank=3)
    number = jnp.arange(logits.shape[0])
    error = number[None, None] - number[:, None, None] - number[None, :, None]
    return jnp.mean(_by_error(logits), axis=(0, 1))[error % logits.shape[0]]


def spectrum(vectors: Vectors) -> Complex[Array, "neurons frequencies"]:
    r"""Return the waves of each neuron, of frequencies $1, \dots, (p - 1) / 2$.

    With $z_k = \frac{2}{p} \sum_a u_a e^{-2\pi i k a / p}$, a vector of an odd length $p$ is its
    mean plus the waves $\lvert z_k\rvert \cos(2\pi k a / p + \arg z_k)$. A wave has the share
    $\lvert z_k\rvert^2 / \sum_j \lvert z_j\rvert^2$ of the variance of the vector.
    """
    vectors = inputs.floats("vectors", vectors, rank=2)
    numbers = vectors.shape[1]
    return jnp.fft.rfft(vectors, axis=1)[:, 1 : (numbers + 1) // 2] * (2 / numbers)


def _by_error(logits: Array) -> Array:
    """Return logits by $a$, $b$ and the error $c - a - b$ instead of $c$."""
    number = jnp.arange(logits.shape[0])
    wanted = number[:, None, None] + number[None, :, None] + number[None, None]
    return jnp.take_along_axis(logits, wanted % logits.shape[0], axis=2)


def _vectors(first: Any, second: Any, out: Any) -> list[Array]:
    """Return the three arrays in floating point, after a check that their shapes agree."""
    given = {"first": first, "second": second, "out": out}
    arrays = {name: inputs.floats(name, value, rank=2) for name, value in given.items()}
    checks.same_size("neurons", **{name: array.shape[0] for name, array in arrays.items()})
    checks.same_size("numbers", **{name: array.shape[1] for name, array in arrays.items()})
    return list(arrays.values())
