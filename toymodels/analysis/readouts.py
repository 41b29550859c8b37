r"""The best readouts of features from noisy activations, which no probe can exceed.

Activations are $h = W x + \varepsilon$ with independent features $x$ and Gaussian noise
$\varepsilon$. `decoding_directions` is the best linear readout, and the AUROC of
`posterior_log_odds` is the best possible one.
"""

import jax.numpy as jnp
import jax.scipy as jsp
from jaxtyping import Array, Bool, Float

from toymodels import checks
from toymodels.analysis import inputs
from toymodels.errors import InputError

__all__ = ["binary_states", "decoding_directions", "posterior_log_odds"]


def decoding_directions(
    weights: Float[Array, "hidden features"],
    variances: Float[Array, " features"],
    *,
    noise: Float[Array, ""] | float,
) -> Float[Array, "hidden features"]:
    r"""Return the best linear readout of each independent feature from $h = W x + \varepsilon$.

    $$(W V W^\top + \sigma^2 1)^{-1} W V, \qquad V = \operatorname{diag}(\operatorname{Var} x_j),$$

    the population's least squares. Column $i$ is along $\operatorname{Cov}(h)^{-1} W_i$, to which
    `probing.mass_mean` and, without penalty, `probing.ridge` converge for every label that depends
    on $x_i$ alone.

    Args:
        weights: $W$.
        variances: $\operatorname{Var} x_j$ of independent features.
        noise: $\sigma > 0$, the standard deviation of each coordinate of $\varepsilon$.

    Returns:
        One column per feature, zero for a zero column of `weights`.

    Raises:
        ValueError: noise that is not positive.
    """
    weights = inputs.floats("weights", weights, rank=2)
    variances = inputs.floats("variances", variances, rank=1)
    checks.same_size("features", weights=weights.shape[1], variances=variances.size)
    _check_noise(noise)
    signal = weights * variances[None, :]
    covariance = signal @ weights.T + noise**2 * jnp.eye(weights.shape[0])
    return jsp.linalg.cho_solve(jsp.linalg.cho_factor(covariance), signal)


def posterior_log_odds(
    hidden: Float[Array, "examples hidden"],
    centres: Float[Array, "states hidden"],
    log_weights: Float[Array, " states"],
    labels: Bool[Array, " states"],
    *,
    noise: Float[Array, ""] | float,
) -> Float[Array, " examples"]:
    r"""Return the log odds of the label given activations with Gaussian noise, the optimal score.

    A state $k$ of probability $\pi_k$ has the label $y_k$ and the activation
    $h = c_k + \varepsilon$, $\varepsilon \sim N(0, \sigma^2 1)$:

    $$\log \frac{P(y \mid h)}{P(\bar y \mid h)} =
      \log \frac{\sum_{k: y_k} \pi_k e^{-\lVert h - c_k \rVert^2 / 2 \sigma^2}}
                {\sum_{k: \bar y_k} \pi_k e^{-\lVert h - c_k \rVert^2 / 2 \sigma^2}}.$$

    By the Neyman-Pearson lemma no score of $h$, linear or not, has a larger expected AUROC. It is
    exact for features of finitely many values (`binary_states`). Otherwise take $K$ fresh samples
    as states, all of equal weight. Two AUROCs then enclose the largest possible one, in
    expectation. On activations of other samples the AUROC is not larger, because this is one score
    among all scores. On noisy activations of the $K$ states themselves it is not smaller, because
    this score knows which $K$ samples occur. Both converge to the largest possible AUROC with $K$.

    Args:
        hidden: $h$, noise included.
        centres: $c_k$, such as $W x_k$.
        log_weights: $\log \pi_k$, up to a constant.
        labels: $y_k$.
        noise: $\sigma > 0$.

    Returns:
        Infinite where the density of one class vanishes in floating point, or has no state.

    Raises:
        ValueError: noise that is not positive.
    """
    hidden = inputs.floats("hidden", hidden, rank=2)
    centres = inputs.floats("centres", centres, rank=2)
    log_weights = inputs.floats("log_weights", log_weights, rank=1)
    labels = inputs.labels("labels", labels, rank=1)
    checks.same_size("dimensions", hidden=hidden.shape[1], centres=centres.shape[1])
    checks.same_size("states", centres=len(centres), labels=labels.size, weights=log_weights.size)
    _check_noise(noise)
    # Leave |h|^2 out, because it is equal for all states.
    logits = (hidden @ centres.T - jnp.sum(centres**2, axis=1)[None, :] / 2) / noise**2
    logits = logits + log_weights[None, :]
    likelihood = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    positive = likelihood @ jnp.where(labels, 1.0, 0.0)
    negative = likelihood @ jnp.where(labels, 0.0, 1.0)
    return jnp.log(positive) - jnp.log(negative)


def binary_states(
    density: Float[Array, " features"],
) -> tuple[Bool[Array, "states features"], Float[Array, " states"]]:
    r"""Return all $2^n$ vectors of independent features 0 and 1, and their log probabilities.

    Args:
        density: $p_i$, the probability of 1, above 0 and below 1.

    Raises:
        ValueError: more than 16 features.
    """
    density = inputs.floats("density", density, rank=1)
    num_features = density.size
    if num_features > 16:
        raise InputError(f"{num_features} features have 2^{num_features} states: give 16 or fewer")
    states = (jnp.arange(2**num_features)[:, None] >> jnp.arange(num_features)[None, :]) % 2 == 1
    each = jnp.where(states, jnp.log(density)[None, :], jnp.log1p(-density)[None, :])
    return states, jnp.sum(each, axis=1)


def _check_noise(noise: Float[Array, ""] | float) -> None:
    remedy = "without noise all states with different activations are told apart"
    checks.interval("noise", noise, low=0, open_low=True, remedy=remedy)
