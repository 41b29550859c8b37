r"""The Persian rug: features that share their dimensions evenly, with Gaussian noise between them.

Let $n$ equal features of density $p$ share $m = r n$ hidden dimensions. Output $i$ of
$y = \mathrm{ReLU}(W_\text{out} W_\text{in} x + b)$ sees its own feature with a gain $a$, and
all others together as Gaussian noise:

$$y_i = \mathrm{ReLU}\big(a\,(x_i + \sigma z) + b\big), \qquad
  \sigma^2 = v \left(\tfrac1r - 1\right), \qquad v = \tfrac p3 - \tfrac{p^2}4,$$

where $z$ is standard normal and independent of $x_i$, and $v$ is the variance of a feature. A
projection $P$ of rank $m$ with equal diagonal, $W_\text{out} W_\text{in} = \tfrac ar P$, has this
noise. No matrix of rank $m$ with diagonal $a$ has less on average over outputs, because
$\lVert W \rVert_F^2 \ge (\operatorname{tr} W)^2 / m$. Only two numbers of the model are left to
choose: $a$ and $b$.

**Losses here are the MEAN over features**, as in the paper. Everywhere else in this package losses
are summed over features: multiply by $n$.

**Validity.** The noise is Gaussian if many features are active at once, $n p \gg 1$, and no term
dominates. The simulated loss of `hadamard_weights` is within 0.5 % of this theory at $n p = 400$,
1.5 % at 50 and 7 % at 20. The solution is optimal among those with Gaussian noise only: for a rival
see `loss_of_pairs`.

References:
    Cowsik, Dolev and Infanger (2024), "The Persian Rug: solving toy models of superposition using
    large-scale symmetries".
"""

from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory import rug_optimum
from toymodels.theory.features import feature_variance
from toymodels.theory.precision import in_float64
from toymodels.theory.rug_optimum import Rug

Scalar: TypeAlias = Float[Array | np.ndarray, ""] | float


class RugWeights(NamedTuple):
    """Weights with exactly the mean and variance of the noise in the theory.

    Attributes:
        weights_in: the encoder, with entries +1 and -1.
        weights_out: the decoder.
        bias: one per output, all equal.
    """

    weights_in: Float[np.ndarray, "hidden features"]
    weights_out: Float[np.ndarray, "features hidden"]
    bias: Float[np.ndarray, " features"]


def rug_loss(gain: Scalar, bias: Scalar, density: Scalar, ratio: Scalar) -> Scalar:
    r"""Return the expected squared error of one output of the Gaussian model in the module.

    With $g = \mathrm{ReLU}(x + \beta + \sigma z)$ and $\beta = b/a$,

    $$L = \tfrac p3 - 2 a\, E[x g] + a^2 E[g^2].$$

    Let $M_k(\mu) = E\,\mathrm{ReLU}(\mu + \sigma z)^k / k!$, so that $M_k' = M_{k-1}$. Then
    antiderivatives integrate over the uniform $x$, too:

    $$E[x g] = p\,\big[M_2(1 + \beta) - M_3(1 + \beta) + M_3(\beta)\big], \quad
      E[g^2] = 2 (1-p) M_2(\beta) + 2 p\,\big[M_3(1 + \beta) - M_3(\beta)\big].$$

    Args:
        gain: $a > 0$.
        bias: $b$.
        density: $p$, in $(0, 1]$.
        ratio: $r = m/n$, in $(0, 1]$.

    Returns:
        The mean over features: at least 0, up to rounding of $10^{-16} (1 + \beta^2 + \sigma^2)$.
        Plain numbers give float64; under `jit`, `grad` and `vmap` the inputs decide.
    """
    _check(density, ratio)
    checks.when_known(_check_digits, density, ratio, elementwise=True)
    checks.interval(
        "gain",
        gain,
        low=0,
        open_low=True,
        remedy="with no gain, an output does not see its feature",
    )
    checks.interval("bias", bias, remedy="give a finite number")
    return in_float64(rug_optimum.loss, gain, bias, density, ratio)


def best_rug(density: Scalar, ratio: Scalar) -> Rug:
    r"""Return the minimum of `rug_loss` over gain and bias.

    For any $\beta = b/a$ the best gain is $a = E[x g] / E[g^2]$, which leaves

    $$L = \min_\beta \left[\tfrac p3 - \frac{E[x g]^2}{E[g^2]}\right].$$

    That function of $\beta$ had one minimum at each of 4800 pairs from $p = 10^{-6}$ to 1 and
    $r = 10^{-5}$ to 1. A grid finds it, and one step of Newton's method gives the last digits.
    Derivatives of the result are those of the optimum.

    Args:
        density: $p$, in $(0, 1]$.
        ratio: $r = m/n$, in $(0, 1]$.

    Returns:
        The loss falls with $r$, from $v$ (as $r \to 0$) to 0 (at $r = 1$). It is never above
        `loss_of_linear`, because targets are not negative and the ReLU can only improve an output.
        Plain numbers give float64; under `jit`, `grad` and `vmap` the inputs decide.
    """
    _check(density, ratio)
    checks.when_known(_check_digits, density, ratio, elementwise=True)
    return in_float64(rug_optimum.best, density, ratio)


def ratio_of_half_loss(density: Scalar) -> Scalar:
    r"""Return the $r$ at which `best_rug` loses half of the variance: $L = v / 2$.

    As $p \to 0$ it approaches $\tfrac{2 + \sqrt3}3\, p \ln \tfrac1p$: see `sparse_limit`.

    Args:
        density: $p$, in $(0, 1]$.

    Returns:
        A number in $(0, 1/2)$; a linear model needs 1/2. Plain numbers give float64.
    """
    _check(density, 1.0)
    return in_float64(rug_optimum.ratio_of_half_loss, density)


def sparse_limit(load: Scalar) -> Scalar:
    r"""Return the limit of $L / v$ as $p \to 0$ with $\kappa = r / (p \ln \tfrac1p)$ fixed.

    The noise must stay below a threshold $t$ except in a share of outputs much smaller than $p$:
    $t = \sigma \sqrt{2 \ln(1/p)} = \sqrt{2 / 3\kappa}$. Features smaller than $t$ are lost, and the
    others come back as $a (x - t)$. With $w = 1 - t$ the best gain $a = 1 + 3t/2w$ leaves

    $$\frac Lv \to 1 - \frac{w (3 - w)^2}4, \qquad w = 1 - \sqrt{2 / 3\kappa}.$$

    For $\kappa \le 2/3$ the model learns nothing. It loses half of the variance at
    $\kappa = (2 + \sqrt3)/3$, and for large $\kappa$ the loss is $L \approx p^2 \ln(1/p) / 6r$. The
    loss approaches this limit as slowly as $1 / \ln(1/p)$ vanishes.

    Args:
        load: $\kappa \ge 0$, the dimensions per feature in units of $p \ln \tfrac1p$.

    Returns:
        A number in $[0, 1]$.
    """
    checks.interval("load", load, low=0, remedy="it is a ratio of dimensions")
    return in_float64(rug_optimum.sparse_limit, load)


def loss_of_linear(density: Scalar, ratio: Scalar) -> Scalar:
    r"""Return the loss of the best linear model: principal components, centred by the bias.

    $$L = (1 - r) \left(\tfrac p3 - \tfrac{p^2}4\right)$$

    Args:
        density: $p$, in $(0, 1]$.
        ratio: $r = m/n$, in $(0, 1]$.

    Returns:
        The mean over features.
    """
    _check(density, ratio)
    return (1 - ratio) * feature_variance(density)


def loss_of_pairs(density: Scalar, ratio: Scalar) -> Scalar:
    r"""Return the loss of a rival without the symmetry: antipodal pairs.

    The features outside pairs are dropped, or have a dimension each. A pair costs $p^2/6$ for each
    of its features, a dropped feature $v$, and a dedicated one 0:

    $$L = \max\left\{v - r \left(2 v - \tfrac{p^2}3\right), (1 - r) \tfrac{p^2}3\right\},
      \qquad p < \tfrac47,$$

    The first term is larger for $r < 1/2$, where features are dropped. For $p \ge 4/7$ pairs cost
    more than they gain, and the result is `loss_of_linear`. The loss of pairs is below `best_rug`
    for $p$ from 0.1 to 0.35 at every $r$, and at $r = 1/2$ for all $p < 0.549$. It is above
    `best_rug` for sparse features with $r$ from about $1.1 p$ to almost 1/2. A model can be a
    direct sum of smaller ones, so pairs are possible at any large $n$.

    Args:
        density: $p$, in $(0, 1]$.
        ratio: $r = m/n$, in $(0, 1]$.

    Returns:
        The mean over features.
    """
    _check(density, ratio)
    variance = feature_variance(density)
    both = density**2 / 3  # the loss of an antipodal pair
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
    r"""Return a model of random rows of Sylvester's Hadamard matrix, which looks like a rug.

    Let $A$ be $m$ random rows of $H_{kj} = (-1)^{k \cdot j}$, where $k \cdot j$ is the number of
    binary digits that are 1 in both $k$ and $j$. Then

    $$W_\text{in} = A, \quad W_\text{out} = \tfrac am A^\top, \quad b_i = b + \tfrac{a p}2.$$

    $A A^\top = n$, so $W_\text{out} W_\text{in}$ is $a/r$ times a projection and has the diagonal
    $a$. Rows that are not constant sum to zero, so the couplings to other features sum to $-a$.
    Their noise has the mean $-a p/2$, which the bias cancels.

    Args:
        generator: chooses the rows, without replacement.
        num_features: $n$, a power of two.
        hidden: $m$, from 1 to $n - 1$, because the constant row is left out.
        density: $p$, which the bias depends on.
        gain: $a$, see `best_rug`.
        bias: $b$, see `best_rug`.

    Raises:
        ValueError: a number of features that is no power of two, too many hidden dimensions, or a
            density outside $(0, 1]$.
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


def _check(density: Any, ratio: Any) -> None:
    checks.density(density)
    checks.interval(
        "ratio", ratio, low=0, high=1, open_low=True, remedy="it is hidden dimensions per feature"
    )


def _check_digits(density: Any, ratio: Any) -> None:
    lowest = 1e-4 * np.asarray(feature_variance(density), np.float64)
    if (np.asarray(ratio) < lowest).any():
        raise InputError(
            f"ratio is {np.min(ratio):g}, below {np.max(lowest):g} at this density, where rounding "
            "would hide what so few dimensions gain: take loss_of_linear, which is close"
        )
