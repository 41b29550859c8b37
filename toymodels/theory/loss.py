r"""The exact expected loss of a toy model, without samples, grids or cancellation.

Feature $j$ is zero with probability $1-p_j$, else uniform. With $G = W^\top W$, or $V^\top W$ with
a decoder $V$ of its own, the preactivation of output $i$ is $z_i = b_i + \sum_j G_{ij} x_j$. Since
$E\,x_i \mathrm{ReLU}(z_i) = \tfrac12\, \partial_{G_{ii}} E\,\mathrm{ReLU}(z_i)^2$, the loss follows
from one function, the mean square of an output:

$$L = \sum_i I_i \left[\tfrac{p_i}3 + (1 - \partial_{G_{ii}})\, E\,\mathrm{ReLU}(z_i)^2\right].$$

`toymodels.theory.boxes` computes that mean square exactly.

**Bad input** is refused if the numbers are plain. The values of traced numbers are not known, but a
sweep checks its axes before it runs. Weights that are not finite have a loss of NaN.

**Precision.** Plain numbers are computed in float64, whatever the settings of JAX, and the
result is a NumPy array. Under `jit`, `grad` and `vmap` the inputs decide: work inside
`with jax.enable_x64(True)` for all digits. The first and second derivatives are exact. Where a
preactivation is exactly zero with positive probability, the second derivative does not exist; the
result is then the one for a slightly larger preactivation.

References:
    Elhage et al. (2022), "Toy Models of Superposition", section 2, for the model.
    Chen et al. (2023), "Dynamical versus Bayesian Phase Transitions in a Toy Model of
    Superposition", for the limit of one active feature.
"""

import functools
from typing import Any, Final, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory.boxes import Boxes, all_boxes, mean_square
from toymodels.theory.features import Numbers, feature_variance
from toymodels.theory.precision import in_float64

MAX_FEATURES: Final = 12
"""The largest number of features of `expected_loss`, whose cost grows as $n^2 3^n$."""

MAX_SIGNED_FEATURES: Final = 10
"""The largest number of features of `expected_loss_signed`, whose cost grows as $n^2 4^n$."""

FEW_FEATURES: Final = 6
"""Up to this number of features, it takes longer to compile the loss than to minimise it."""

Weights: TypeAlias = Float[Array | np.ndarray, "hidden features"]
Bias: TypeAlias = Float[Array | np.ndarray, " features"]
Loss: TypeAlias = Float[Array | np.ndarray, ""]


def expected_loss(
    weights: Weights,
    bias: Bias,
    density: Numbers,
    importance: Numbers = 1.0,
    *,
    decoder: Weights | None = None,
) -> Loss:
    r"""Return the exact $E \sum_i I_i (x_i - y_i)^2$ of $y = \mathrm{ReLU}(W^\top W x + b)$.

    The features are independent and uniform on $(0, 1]$ where they are not zero: the distribution
    is `SparseUniform`, the model `ReLUOutput`. `toymodels.theory.boxes` computes the mean over
    $3^n$ boxes for each output.

    Time measured on two cores: 0.3 ms for $n = 5$, 2 ms for 8, 30 ms for 10 and 0.6 s for 12. The
    gradient takes 0.6 ms, 9 ms, 0.1 s, and 1.3 s with 1 GB of memory. To compile takes a second
    or two before, and 3 to 7 seconds for the gradient.

    Args:
        weights: one model; `vmap` over several.
        bias: one per output.
        density: $p$, in $[0, 1]$; one number, or one per feature.
        importance: $I \ge 0$; one number, or one per feature.
        decoder: $V$ of an untied model $y = \mathrm{ReLU}(V^\top W x + b)$, of the shape of
            `weights`, one column per output; by default $V = W$.

    Returns:
        At least 0, up to rounding of about 1e-16 for each output.

    Raises:
        ValueError: more than `MAX_FEATURES` features, shapes that do not fit, a density outside
            $[0, 1]$, a negative importance, or numbers that are not finite.
    """
    return _exact_loss(weights, bias, density, importance, decoder, signed=False)


def expected_loss_signed(
    weights: Weights,
    bias: Bias,
    density: Numbers,
    importance: Numbers = 1.0,
    *,
    decoder: Weights | None = None,
) -> Loss:
    r"""Return `expected_loss` for features uniform on $[-1, 1]$: `SignedSparseUniform`.

    An inactive feature stands in the middle of its edge, and not at an end, so there are $4^n$
    boxes for each output. Time measured on two cores: 0.4 ms for $n = 5$, 0.14 s for 9 and 0.7 s
    for 10.

    Args:
        weights: one model; `vmap` over several.
        bias: one per output.
        density: $p$, in $[0, 1]$; one number, or one per feature.
        importance: $I \ge 0$; one number, or one per feature.
        decoder: $V$ of an untied model $y = \mathrm{ReLU}(V^\top W x + b)$, of the shape of
            `weights`, one column per output; by default $V = W$.

    Returns:
        At least 0, up to rounding of about 1e-16 for each output.

    Raises:
        ValueError: the errors of `expected_loss`, with `MAX_SIGNED_FEATURES`.
    """
    return _exact_loss(weights, bias, density, importance, decoder, signed=True)


def expected_loss_linear(
    weights: Weights, bias: Bias, density: Numbers, importance: Numbers = 1.0
) -> Loss:
    r"""Return the exact $E \sum_i I_i (x_i - y_i)^2$ of the linear model $y = W^\top W x + b$.

    With $A = 1 - W^\top W$, and the mean $\mu_j = p_j/2$ and variance
    $\sigma_j^2 = p_j/3 - p_j^2/4$ of `SparseUniform`,

    $$L = \sum_i I_i \Big[ \sum_j A_{ij}^2 \sigma_j^2 +
      \Big(\sum_j A_{ij} \mu_j - b_i\Big)^2 \Big].$$

    Args:
        weights: one model of any size; `vmap` over several.
        bias: one per output.
        density: $p$, in $[0, 1]$; one number, or one per feature.
        importance: $I \ge 0$; one number, or one per feature.

    Returns:
        At least 0.

    Raises:
        ValueError: as `expected_loss`, but for the number of features.
    """
    check_model(weights, bias, density, importance)
    return in_float64(_linear_loss, weights, bias, *per_feature(bias, density, importance))


def expected_loss_one_active(weights: Weights, bias: Bias, importance: Numbers = 1.0) -> Loss:
    r"""Return the potential $H$ of Chen et al.: exactly one feature is active, each as likely.

    With $x = \lambda e_j$, $j$ uniform on the $n$ features and $\lambda$ on $(0, 1]$,

    $$H = \frac1n \sum_{ij} I_i \int_0^1
      \big(\lambda\delta_{ij} - \mathrm{ReLU}(G_{ij} \lambda + b_i)\big)^2 d\lambda.$$

    The sparse limit of `expected_loss` is $H$ and the cost of the input without any feature:
    $L = (1-p)^n \sum_i I_i \mathrm{ReLU}(b_i)^2 + n p H + O(p^2)$.

    Args:
        weights: one model of any size; `vmap` over several.
        bias: one per output.
        importance: $I \ge 0$; one number, or one per feature.

    Returns:
        At least 0.

    Raises:
        ValueError: as `expected_loss`, but for the number of features.
    """
    check_model(weights, bias, 0.0, importance)
    return in_float64(_one_active_loss, weights, bias, *per_feature(bias, importance))


def _exact_loss(
    weights: Weights,
    bias: Bias,
    density: Numbers,
    importance: Numbers,
    decoder: Weights | None,
    *,
    signed: bool,
) -> Loss:
    check_model(weights, bias, density, importance)
    decoder = weights if decoder is None else decoder
    if np.shape(decoder) != np.shape(weights):
        raise InputError(
            f"the decoder has shape {np.shape(decoder)} and weights {np.shape(weights)}: give both "
            "as hidden x features"
        )
    checks.interval("a weight of the decoder", decoder, remedy="the loss is that of finite numbers")
    num_features = np.shape(weights)[-1]
    most = MAX_SIGNED_FEATURES if signed else MAX_FEATURES
    if num_features > most:
        remedy = (
            "estimate it from samples with toymodels.evaluate"
            if signed
            else "estimate it with toymodels.theory.expected_loss_sampled (any weights) or "
            "expected_loss_gaussian (many weak couplings)"
        )
        raise InputError(
            f"{num_features} features are more than the {most} that the exact loss can take: "
            f"{remedy}"
        )
    boxes = all_boxes(num_features, 3 if signed else 2)
    loss = functools.partial(_signed_loss if signed else _unsigned_loss, boxes=boxes)
    return in_float64(loss, weights, decoder, bias, *per_feature(bias, density, importance))


def _relu_loss(
    weights: Float[Array, "hidden features"],
    decoder: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    density: Float[Array, "..."],
    importance: Float[Array, "..."],
    boxes: Boxes,
    *,
    signed: bool,
) -> Float[Array, ""]:
    density = jnp.broadcast_to(density, bias.shape)
    importance = jnp.broadcast_to(importance, bias.shape)

    def output_loss(output: Any) -> Float[Array, ""]:
        couplings, own, bias, density_own = output
        mean, slope = jax.jvp(
            lambda couplings: mean_square(couplings, bias, density, boxes, signed=signed),
            (couplings,),
            (own,),
        )
        return density_own / 3 - slope + mean

    own = jnp.eye(bias.size, dtype=weights.dtype)
    outputs = decoder.T @ weights, own, bias, density
    # With many features, take one output at a time, and compute its boxes again for the gradient,
    # because those of all outputs together would not fit a cache. With few, take all at once,
    # because the gradient of a loop takes longer to compile.
    few = bias.size <= FEW_FEATURES
    losses = (
        jax.vmap(output_loss)(outputs) if few else lax.map(jax.checkpoint(output_loss), outputs)
    )
    return _finite(weights, bias, _finite(decoder, bias, importance @ losses))


_unsigned_loss = jax.jit(functools.partial(_relu_loss, signed=False))
_signed_loss = jax.jit(functools.partial(_relu_loss, signed=True))


@jax.jit
def _linear_loss(
    weights: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    density: Float[Array, "..."],
    importance: Float[Array, "..."],
) -> Float[Array, ""]:
    density = jnp.broadcast_to(density, bias.shape)
    missing = jnp.eye(bias.size, dtype=weights.dtype) - weights.T @ weights
    variance = missing**2 @ feature_variance(density)
    return jnp.broadcast_to(importance, bias.shape) @ (
        variance + (missing @ (density / 2) - bias) ** 2
    )


@jax.jit
def _one_active_loss(
    weights: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    importance: Float[Array, "..."],
) -> Float[Array, ""]:
    couplings = weights.T @ weights
    edge = all_boxes(1, 2)
    active = jnp.ones(1, weights.dtype)

    def of_pair(coupling: Float[Array, ""], bias: Float[Array, ""]) -> Float[Array, ""]:
        return mean_square(coupling[None], bias, active, edge, signed=False)

    pairs = jax.vmap(jax.vmap(of_pair, (0, None)), (0, 0))(couplings, bias)
    slopes = jax.vmap(jax.grad(of_pair))(jnp.diagonal(couplings), bias)
    losses = pairs.sum(axis=1) + 1 / 3 - slopes
    mean = jnp.broadcast_to(importance, bias.shape) @ losses / bias.size
    return _finite(weights, bias, mean)


def _finite(weights: Array, bias: Array, loss: Array) -> Array:
    """Return the loss, or NaN for weights that are not finite: comparisons would hide these."""
    finite = jnp.isfinite(weights).all() & jnp.isfinite(bias).all()
    return jnp.where(finite, loss, jnp.nan)


def per_feature(bias: Bias, *values: Numbers) -> tuple[Any, ...]:
    """Return plain values as one per feature, so that all of them share a compiled program."""
    return tuple(
        value if isinstance(value, Tracer) else np.broadcast_to(value, np.shape(bias))
        for value in values
    )


def check_model(weights: Any, bias: Any, density: Any, importance: Any) -> None:
    """Raise `InputError` for shapes that do not fit and for impossible densities or importances."""
    if len(np.shape(weights)) != 2 or 0 in np.shape(weights)[1:]:
        raise InputError(
            f"weights have shape {np.shape(weights)}: give hidden x features of one model, with at "
            "least one feature; vmap over several"
        )
    num_features = np.shape(weights)[-1]
    if np.shape(bias) != (num_features,):
        raise InputError(
            f"bias has shape {np.shape(bias)}: give ({num_features},), one for each column of "
            "weights, which are hidden x features"
        )
    for name, value in (("density", density), ("importance", importance)):
        shape = np.shape(value)
        if shape not in ((), (num_features,)):
            raise InputError(
                f"{name} has shape {shape}: give one number or {num_features}, one per feature"
            )
    for name, value in (("a weight", weights), ("a bias", bias)):
        checks.interval(name, value, remedy="the loss is that of finite numbers")
    checks.density(density, positive=False)
    checks.interval(
        "importance", importance, low=0, remedy="it weighs the squared error of an output"
    )
