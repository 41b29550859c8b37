r"""The Persian rug: features that share their dimensions evenly, and a Gaussian noise between them.

Let $n$ equal features of density $p$ share $m = r n$ hidden dimensions so that output $i$ of
$y = \mathrm{ReLU}(W_\text{out} W_\text{in} x + b)$ sees its own feature with a gain $a$, and
all others together as Gaussian noise:

$$y_i = \mathrm{ReLU}\big(a\,(x_i + \sigma z) + b\big), \qquad
  \sigma^2 = v \left(\tfrac1r - 1\right), \qquad v = \tfrac p3 - \tfrac{p^2}4,$$

$z$ standard normal and independent of $x_i$, $v$ the variance of a feature. That is the noise of
a projection $P$ of rank $m$ with equal diagonal, $W_\text{out} W_\text{in} = \tfrac ar P$. No
matrix of rank $m$ with diagonal $a$ has less on average over outputs, for
$\lVert W \rVert_F^2 \ge (\operatorname{tr} W)^2 / m$. Of the model, two numbers are left.

**Losses here are the MEAN over features**, as in the paper; everywhere else in this package they
are summed: multiply by $n$.

**Validity.** The noise is Gaussian if many features are active at once, $n p \gg 1$, and none
of its terms dominates. The simulated loss of `hadamard_weights` is within 0.5 % of this one at
$n p = 400$, 1.5 % at 50 and 7 % at 20. It is the best with Gaussian noise, not the best of all:
see `loss_of_pairs`.

References:
    Cowsik, Dolev, Infanger (2024), "The Persian Rug: solving toy models of superposition using
    large-scale symmetries".
"""

from typing import Any, Final, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory.features import feature_variance
from toymodels.theory.precision import in_float64

Scalar: TypeAlias = Float[Array | np.ndarray, ""] | float

_MIN_NOISE: Final = 1e-15
"""So that $r = 1$ is no special case."""

_LOWEST_SHIFT: Final = -12.0
r"""In units of the noise. The best is above $-\sqrt{2 \ln(1/p)}$: enough for $p > 10^{-31}$."""


class Rug(NamedTuple):
    """The best symmetric solution.

    Attributes:
        loss: mean over features.
        gain: $a$, of a feature to its own output.
        bias: $b$, where the noise has mean zero.
    """

    loss: Float[Array | np.ndarray, ""]
    gain: Float[Array | np.ndarray, ""]
    bias: Float[Array | np.ndarray, ""]


class RugWeights(NamedTuple):
    """Weights whose noise has exactly the mean and variance of the theory.

    Attributes:
        weights_in: encoder, of +1 and -1.
        weights_out: decoder.
        bias: one per output, all the same.
    """

    weights_in: Float[np.ndarray, "hidden features"]
    weights_out: Float[np.ndarray, "features hidden"]
    bias: Float[np.ndarray, " features"]


def rug_loss(gain: Scalar, bias: Scalar, density: Scalar, ratio: Scalar) -> Scalar:
    r"""Expected squared error of one output of the Gaussian model; see the module.

    With $g = \mathrm{ReLU}(x + \beta + \sigma z)$ and $\beta = b/a$,

    $$L = \tfrac p3 - 2 a\, E[x g] + a^2 E[g^2].$$

    Let $M_k(\mu) = E\,\mathrm{ReLU}(\mu + \sigma z)^k / k!$, so $M_k' = M_{k-1}$. Then the
    uniform $x$ is integrated by antiderivatives, too:

    $$E[x g] = p\,\big[M_2(1 + \beta) - M_3(1 + \beta) + M_3(\beta)\big], \quad
      E[g^2] = 2 (1-p) M_2(\beta) + 2 p\,\big[M_3(1 + \beta) - M_3(\beta)\big].$$

    Args:
        gain: $a > 0$.
        bias: $b$.
        density: $p$, in $(0, 1]$.
        ratio: $r = m/n$, in $(0, 1]$.

    Returns:
        Mean over features; at least 0, up to rounding of $10^{-16} (1 + \beta^2 + \sigma^2)$.
        Plain numbers give float64; under `jit`, `grad` and `vmap` the inputs decide.
    """
    _check(density, ratio)
    checks.when_known(_check_digits, density, ratio)
    checks.interval("gain", gain, low=0, open_low=True, remedy="without a gain, nothing is seen")
    checks.interval("bias", bias, remedy="give a finite number")
    return in_float64(_loss, gain, bias, density, ratio)


def best_rug(density: Scalar, ratio: Scalar) -> Rug:
    r"""Minimum of `rug_loss` over gain and bias.

    For any $\beta = b/a$ the best gain is $a = E[x g] / E[g^2]$, which leaves

    $$L = \min_\beta \left[\tfrac p3 - \frac{E[x g]^2}{E[g^2]}\right].$$

    That function had one minimum at each of 4800 pairs from $p = 10^{-6}$ to 1 and
    $r = 10^{-5}$ to 1. It is found on a grid and polished by Newton's method; derivatives are
    those of the optimum.

    Args:
        density: $p$, in $(0, 1]$.
        ratio: $r = m/n$, in $(0, 1]$.

    Returns:
        Loss from $v$ (as $r \to 0$) to 0 (at $r = 1$), never above `loss_of_linear`: targets are
        not negative, so the ReLU can only improve an output. It falls with $r$. Plain numbers
        give float64; under `jit`, `grad` and `vmap` the inputs decide.
    """
    _check(density, ratio)
    checks.when_known(_check_digits, density, ratio)
    return in_float64(_best, density, ratio)


def ratio_of_half_loss(density: Scalar) -> Scalar:
    r"""The $r$ at which `best_rug` loses half of the variance: $L = v / 2$.

    As $p \to 0$ it approaches $\tfrac{2 + \sqrt3}3\, p \ln \tfrac1p$: see `sparse_limit`.

    Args:
        density: $p$, in $(0, 1]$.

    Returns:
        In $(0, 1/2)$, for a linear model needs 1/2. Plain numbers give float64.
    """
    _check(density, 1.0)
    return in_float64(_ratio_of_half_loss, density)


def sparse_limit(load: Scalar) -> Scalar:
    r"""The limit of $L / v$ as $p \to 0$ with $\kappa = r / (p \ln \tfrac1p)$ fixed.

    The noise must stay below a threshold $t$ but for a share of outputs much less than $p$:
    $t = \sigma \sqrt{2 \ln(1/p)} = \sqrt{2 / 3\kappa}$. Features smaller than $t$ are lost, the
    others come back as $a (x - t)$, and with $w = 1 - t$ the best gain $a = 1 + 3t/2w$ leaves

    $$\frac Lv \to 1 - \frac{w (3 - w)^2}4, \qquad w = 1 - \sqrt{2 / 3\kappa}.$$

    Nothing is learned for $\kappa \le 2/3$; half of the variance is at
    $\kappa = (2 + \sqrt3)/3$; for large $\kappa$, $L \approx p^2 \ln(1/p) / 6r$. The approach is
    as slow as a logarithm.

    Args:
        load: $\kappa \ge 0$, dimensions per feature over what sparsity asks for.

    Returns:
        In $[0, 1]$.
    """
    checks.interval("load", load, low=0, remedy="it is a ratio of dimensions")
    return in_float64(_sparse_limit, load)


def loss_of_linear(density: Scalar, ratio: Scalar) -> Scalar:
    r"""The best linear model: principal components, centred by the bias.

    $$L = (1 - r) \left(\tfrac p3 - \tfrac{p^2}4\right)$$

    Args:
        density: $p$, in $(0, 1]$.
        ratio: $r = m/n$, in $(0, 1]$.

    Returns:
        Mean over features.
    """
    _check(density, ratio)
    return (1 - ratio) * feature_variance(density)


def loss_of_pairs(density: Scalar, ratio: Scalar) -> Scalar:
    r"""The rival that breaks the symmetry: antipodal pairs, the rest dropped or dedicated.

    A pair costs $p^2/6$ for each of its features, a dropped feature $v$, a dedicated one 0:

    $$L = \max\left\{v - r \left(2 v - \tfrac{p^2}3\right), (1 - r) \tfrac{p^2}3\right\},
      \qquad p < \tfrac47,$$

    the former for $r < 1/2$, where features are dropped. For $p \ge 4/7$ pairs do not pay, and
    `loss_of_linear` is left. It is below `best_rug` for $p$ from 0.1 to 0.35 whatever $r$, and
    at $r = 1/2$ for all $p < 0.549$; above it for sparse features with $r$ from about $1.1 p$ to
    almost 1/2. A model may be a direct sum of smaller ones, so this is within reach of any large
    $n$, however Gaussian the noise of a symmetric solution.

    Args:
        density: $p$, in $(0, 1]$.
        ratio: $r = m/n$, in $(0, 1]$.

    Returns:
        Mean over features.
    """
    _check(density, ratio)
    variance = feature_variance(density)
    both = density**2 / 3  # of an antipodal pair, against that of one dropped feature
    dropping = variance - ratio * (2 * variance - both)
    traced = any(isinstance(number, Tracer) for number in (density, ratio))
    library: Any = jnp if traced else np
    pairs = library.maximum(dropping, (1 - ratio) * both)
    return library.minimum(pairs, (1 - ratio) * variance)


def hadamard_weights(
    generator: np.random.Generator,
    num_features: int,
    hidden: int,
    *,
    density: float,
    gain: float,
    bias: float,
) -> RugWeights:
    r"""Random rows of Sylvester's Hadamard matrix as a model: the weights that look like a rug.

    With $A$ the $m$ chosen rows of $H_{kj} = (-1)^{k \cdot j}$, the number of common binary
    digits in the exponent,

    $$W_\text{in} = A, \quad W_\text{out} = \tfrac am A^\top, \quad b_i = b + \tfrac{a p}2.$$

    $A A^\top = n$, so $W_\text{out} W_\text{in}$ is $a/r$ times a projection, of diagonal $a$.
    Rows that are not constant sum to zero: the couplings to other features sum to $-a$, and
    their noise has mean $-a p/2$, which the bias takes back.

    Args:
        generator: chooses the rows, without replacement.
        num_features: $n$, a power of two.
        hidden: $m$, from 1 to $n - 1$, for the constant row is left out.
        density: $p$, for the bias.
        gain: $a$, see `best_rug`.
        bias: $b$, see `best_rug`.

    Raises:
        ValueError: numbers that cannot be.
    """
    checks.count("hidden", hidden)
    checks.count("num_features", num_features, minimum=2)
    if num_features & (num_features - 1):
        raise InputError(
            f"num_features is {num_features}: Sylvester's matrices need a power of two"
        )
    if hidden >= num_features:
        raise InputError(
            f"hidden is {hidden}: give at most {num_features - 1}, the rows that are not constant"
        )
    _check(density, hidden / num_features)
    rows = 1 + generator.choice(num_features - 1, hidden, replace=False)
    common = np.bitwise_count(rows[:, None] & np.arange(num_features)[None, :])
    weights = 1.0 - 2.0 * (common % 2)
    return RugWeights(
        weights, gain / hidden * weights.T, np.full(num_features, bias + gain * density / 2)
    )


def _noise(density: Array, ratio: Array) -> Array:
    variance = feature_variance(density) * (1 / ratio - 1)
    return jnp.sqrt(jnp.maximum(variance, _MIN_NOISE**2))


def _moments(mean: Array, noise: Array) -> tuple[Array, Array, Array, Array]:
    """$M_0$ to $M_3$."""
    chance = lax.erfc(-mean / noise / np.sqrt(2)) / 2
    bump = noise * jnp.exp(-((mean / noise) ** 2) / 2) / np.sqrt(2 * np.pi)
    first = mean * chance + bump
    second = (mean**2 + noise**2) * chance + mean * bump
    third = (mean**2 + 3 * noise**2) * mean * chance + (mean**2 + 2 * noise**2) * bump
    return chance, first, second / 2, third / 6


def _products(
    shift: Array, density: Array, noise: Array, derivative: int = 0
) -> tuple[Array, Array]:
    """$E[x g]$ and $E[g^2]$, or their derivatives by the shift: each takes $M_k$ to $M_{k-1}$."""
    silent = _moments(shift, noise)[: 4 - derivative]
    largest = _moments(1 + shift, noise)[: 4 - derivative]
    active = largest[-1] - silent[-1]
    return (
        density * (largest[-2] - active),
        2 * ((1 - density) * silent[-2] + density * active),
    )


@jax.jit
def _loss(gain: Array, bias: Array, density: Array, ratio: Array) -> Array:
    product, square = _products(bias / gain, density, _noise(density, ratio))
    return density / 3 - 2 * gain * product + gain**2 * square


@jax.jit
def _best(density: Array, ratio: Array) -> Rug:
    noise = _noise(density, ratio)

    def shift(place: Array) -> Array:
        return noise * jnp.sinh(place)

    def loss(place: Array) -> Array:
        product, square = _products(shift(place), density, noise)
        return density / 3 - product**2 / square

    def zoom(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        places = low + (high - low) * jnp.linspace(0.0, 1.0, 129)
        middle = jnp.clip(jnp.argmin(jax.vmap(loss)(places)), 1, 127)
        return places[middle - 1], places[middle + 1]

    # To beyond the best linear model, whose shift is half of this.
    highest = 4 + density * (1 / ratio - 1) / noise
    ends = (jnp.full_like(highest, np.arcsinh(_LOWEST_SHIFT)), jnp.arcsinh(highest))
    low, high = lax.stop_gradient(lax.fori_loop(0, 5, zoom, ends))
    # Newton's step to where the derivative of product^2 / square is zero: for the last digits,
    # and for the derivative of the optimum.
    best = shift((low + high) / 2)
    (product, square), (product_1, square_1), (product_2, square_2) = (
        _products(best, density, noise, derivative) for derivative in range(3)
    )
    slope = 2 * product_1 * square - product * square_1
    curvature = 2 * product_2 * square + product_1 * square_1 - product * square_2
    best = best - slope / lax.stop_gradient(jnp.minimum(curvature, -jnp.abs(slope) / noise))
    product, square = _products(best, density, noise)
    gain = product / square
    return Rug(density / 3 - gain * product, gain, gain * best)


@jax.jit
def _ratio_of_half_loss(density: Array) -> Array:
    half = feature_variance(density) / 2

    def bisect(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = jnp.sqrt(low * high)
        over = _best(density, middle).loss > half
        return jnp.where(over, middle, low), jnp.where(over, high, middle)

    low, high = lax.fori_loop(0, 60, bisect, (density / 10, jnp.ones_like(density)))
    return jnp.sqrt(low * high)


@jax.jit
def _sparse_limit(load: Array) -> Array:
    kept = 1 - jnp.sqrt(2 / (3 * jnp.maximum(load, 2 / 3)))
    return 1 - kept * (3 - kept) ** 2 / 4


def _check(density: Any, ratio: Any) -> None:
    checks.density(density)
    checks.interval(
        "ratio", ratio, low=0, high=1, open_low=True, remedy="it is hidden dimensions per feature"
    )


def _check_digits(density: Any, ratio: Any) -> None:
    least = 1e-4 * np.asarray(feature_variance(density), np.float64)
    if (np.asarray(ratio) < least).any():
        raise InputError(
            f"ratio is {np.min(ratio):g}, below {np.max(least):g} at this density: rounding would "
            "hide the loss of so few dimensions, which is the variance p/3 - p^2/4 to within its "
            "share; see loss_of_linear"
        )
