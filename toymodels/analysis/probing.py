r"""Linear probes, which read ONE binary label from hidden activations, and their baselines.

A fit turns activations and labels into a `Probe`; `vmap` it over labels, or over a sweep. A score
alone says little. Compare it with the fit to permuted labels (`selectivity`), with the fit to
activations of an untrained model, with a `Probe` of random direction, with the chance of fitting
random labels (`toymodels.theory.memorisation`), and with the best possible readout, the AUROC
(`classification.auroc`) of `readouts.posterior_log_odds`.

With independent features, $h = W x + \varepsilon$ and a label $y$ that depends on $x_i$ alone,
$\operatorname{Cov}(h, y) = W_i \operatorname{Cov}(x_i, y)$ exactly. So `difference_of_means` points
along $W_i$ for any other features, and `mass_mean`, `ridge` and least squares point along
`readouts.decoding_directions`, $\operatorname{Cov}(h)^{-1} W_i$.

Labels are truth values. Numbers, such as 1 and -1 or the values of a feature, are refused.

References:
    Alain and Bengio (2016), "Understanding Intermediate Layers Using Linear Classifier Probes".
    Hewitt, Liang (2019), "Designing and Interpreting Probes with Control Tasks".
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import jax.scipy as jsp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key

from toymodels import checks
from toymodels.analysis import inputs, units
from toymodels.errors import InputError

__all__ = [
    "Fit",
    "Measure",
    "Probe",
    "difference_of_means",
    "logistic",
    "mass_mean",
    "ridge",
    "scores",
    "selectivity",
]

NEWTON_STEPS = 20
"""The number of steps of Newton's method. Separable data need the most: 16 in float32 with a
penalty of 1e-7, and 12 with 1e-3."""
HALVINGS = 3
"""The number of times that a step of Newton's method is halved while it would raise the loss. Only
data with heavy tails need it."""


class Probe(NamedTuple):
    r"""A linear probe. Its score is $w \cdot h + b$, and it predicts true if the score is positive.

    Attributes:
        direction: $w$.
        intercept: $b$.
    """

    direction: Float[Array, " hidden"]
    intercept: Float[Array, ""]


Fit: TypeAlias = Callable[[Float[Array, "examples hidden"], Bool[Array, " examples"]], Probe]
Measure: TypeAlias = Callable[
    [Float[Array, " examples"], Bool[Array, " examples"]], Float[Array, ""]
]


def difference_of_means(
    hidden: Float[Array, "examples hidden"], labels: Bool[Array, " examples"]
) -> Probe:
    r"""Fit the difference of the means of the classes, $w = \mu_+ - \mu_-$, with score 0 half-way.

    Returns:
        A probe. It is NaN for traced labels of one class.

    Raises:
        ValueError: labels of one class.
    """
    hidden, labels = _examples(hidden, labels)
    positive, negative = _means(hidden, labels)
    direction = positive - negative
    return Probe(direction, -direction @ (positive + negative) / 2)


def mass_mean(hidden: Float[Array, "examples hidden"], labels: Bool[Array, " examples"]) -> Probe:
    r"""Fit the mass-mean probe, which is linear discriminant analysis.

    $$w = \Sigma^{-1} (\mu_+ - \mu_-), \qquad
      b = -w \cdot \frac{\mu_+ + \mu_-}{2} + \log \frac{n_+}{n_-},$$

    where $\Sigma$ is the covariance of the examples about the mean of their class. The score is the
    posterior log odds of two Gaussian classes of equal covariance. Invertible affine maps of $h$ do
    not change scores, so units of coordinates do not matter. Directions need a spread above
    rounding (about 1e-4 of the largest one in float32, if each coordinate has a spread of 1).

    Returns:
        A probe. It is NaN for traced labels of one class, 0 along coordinates in which no
        activation differs, and large but finite along directions in which only the classes differ.

    Raises:
        ValueError: labels of one class; fewer than `hidden` + 2 examples, for which $\Sigma$ has
            no inverse.

    References:
        Marks and Tegmark (2023), "The Geometry of Truth".
    """
    hidden, labels = _examples(hidden, labels)
    examples, dimensions = hidden.shape
    if examples < dimensions + 2:
        raise InputError(
            f"{examples} examples have no invertible covariance within two classes in {dimensions} "
            f"dimensions: give {dimensions + 2} or more, or fit ridge or logistic"
        )
    positive, negative = _means(hidden, labels)
    centred = units.centred(hidden)
    above, below = _means(centred, labels)
    share = jnp.mean(labels, dtype=hidden.dtype)
    # Whiten with the covariance of all examples, which is that within classes plus a term along the
    # difference of the means. The term changes only the length of the direction, and it keeps the
    # covariance regular if each class is constant.
    root = units.whitening(centred)
    white = root.T @ (above - below)
    within = 1 - share * (1 - share) * (white @ white)
    direction = root @ white / jnp.maximum(within, jnp.finfo(hidden.dtype).eps)
    prior = jnp.log(share) - jnp.log1p(-share)
    return Probe(direction, prior - direction @ (positive + negative) / 2)


def ridge(
    hidden: Float[Array, "examples hidden"],
    labels: Bool[Array, " examples"],
    *,
    penalty: Float[Array, ""] | float,
) -> Probe:
    r"""Fit labels of 1 and -1 by least squares with a penalty $\lambda \lVert w \rVert^2$.

    The squares are summed over examples. The intercept is free of the penalty.

    Args:
        hidden: $h$.
        labels: of the examples.
        penalty: $\lambda > 0$.

    Returns:
        A probe. Its direction tends to that of `mass_mean` as $\lambda \to 0$, and to that of
        `difference_of_means` as $\lambda \to \infty$. It is NaN for traced labels of one class.

    Raises:
        ValueError: labels of one class; a penalty that is not positive.
    """
    hidden, labels = _examples(hidden, labels)
    _check_penalty(penalty)
    targets = jnp.where(labels, 1.0, -1.0)
    centre, mean = jnp.mean(hidden, axis=0), jnp.mean(targets)
    centred = hidden - centre[None, :]
    normal = centred.T @ centred + penalty * jnp.eye(centre.size)
    direction = _solve(normal, centred.T @ (targets - mean))
    return _unless_one_class(labels, Probe(direction, mean - direction @ centre))


def logistic(
    hidden: Float[Array, "examples hidden"],
    labels: Bool[Array, " examples"],
    *,
    penalty: Float[Array, ""] | float,
) -> Probe:
    r"""Fit logistic regression by Newton's method.

    $$\min_{w, b} \sum_k \log\bigl(1 + e^{-y_k (w \cdot h_k + b)}\bigr)
      + \frac{\lambda}{2} \lVert w \rVert^2, \qquad y_k = \pm 1,$$

    summed over examples, without a penalty on the intercept, as in scikit-learn's
    `LogisticRegression(C=1 / penalty)`.

    Args:
        hidden: $h$.
        labels: of the examples.
        penalty: $\lambda > 0$, which keeps the weights finite if the data are separable. As it goes
            to 0 the margin becomes the largest possible one.

    Returns:
        A probe. It is NaN for traced labels of one class.

    Raises:
        ValueError: labels of one class; a penalty that is not positive.
    """
    hidden, labels = _examples(hidden, labels)
    _check_penalty(penalty)
    # Subtracting the mean only moves the intercept, and it makes the equations well conditioned.
    centre = jnp.mean(hidden, axis=0)
    design = jnp.concatenate(
        [hidden - centre[None, :], jnp.ones((labels.size, 1), hidden.dtype)], axis=1
    )
    signs = jnp.where(labels, 1.0, -1.0)
    penalties = jnp.full(centre.size + 1, penalty, design.dtype).at[-1].set(0.0)
    lengths = 0.5 ** jnp.arange(HALVINGS + 1, dtype=design.dtype)
    rounding = 8 * jnp.finfo(design.dtype).eps

    def loss(coefficients: Array, margins: Array) -> Array:
        misfit = jnp.sum(jax.nn.softplus(-margins))
        return misfit + jnp.sum(penalties * coefficients**2) / 2

    def step(_: Int[Array, ""], coefficients: Array) -> Array:
        margins = signs * (design @ coefficients)
        wrong = jax.nn.sigmoid(-margins)
        gradient = penalties * coefficients - design.T @ (signs * wrong)
        curvature = wrong * jax.nn.sigmoid(margins)
        hessian = design.T @ (curvature[:, None] * design) + jnp.diag(penalties)
        # If rounding makes the Hessian singular, use a damped one. The optimum stays the same.
        diagonal = jnp.diagonal(hessian)  # 0 for an intercept that every example is far from
        filled = jnp.where(diagonal > 0, diagonal, jnp.max(diagonal))
        damping = rounding * gradient.size * jnp.diag(filled)
        # Solve both in one call: two independent calls can block each other on a CPU.
        both = jnp.stack([hessian, hessian + damping])
        plain, damped = jax.vmap(_solve, (0, None))(both, gradient)
        newton = -jnp.where(jnp.isfinite(plain).all(), plain, damped)
        change = signs * (design @ newton)
        losses = jax.vmap(lambda t: loss(coefficients + t * newton, margins + t * change))(lengths)
        # Take the longest step that does not raise the loss. Near the optimum losses are equal
        # within rounding while the gradient still improves.
        longest = jnp.argmax(losses <= loss(coefficients, margins) * (1 + rounding))
        return coefficients + lengths[longest] * newton

    found = lax.fori_loop(0, NEWTON_STEPS, step, jnp.zeros(centre.size + 1, design.dtype))
    direction = found[:-1]
    return _unless_one_class(labels, Probe(direction, found[-1] - direction @ centre))


def scores(probe: Probe, hidden: Float[Array, "examples hidden"]) -> Float[Array, " examples"]:
    r"""Return the score of each example, $w \cdot h + b$.

    Raises:
        ValueError: the probe was fitted to activations of another width.
    """
    hidden = inputs.floats("hidden", hidden, rank=2)
    if hidden.shape[1] != probe.direction.size:
        raise InputError(
            f"the probe reads {probe.direction.size} dimensions and the activations have "
            f"{hidden.shape[1]}: fit it to activations of this site"
        )
    return hidden @ probe.direction + probe.intercept


def selectivity(
    key: Key[Array, ""],
    fit: Fit,
    measure: Measure,
    hidden: Float[Array, "examples hidden"],
    labels: Bool[Array, " examples"],
) -> Float[Array, ""]:
    r"""Return the score of a probe on labels minus its score on the permuted labels.

    Both scores are measured on the examples of the fit, because a control task measures how much a
    probe can memorise: on examples that it has not seen, permuted labels would score at chance.

    Args:
        key: decides the permutation.
        fit: a function of activations and labels, such as `difference_of_means`.
        measure: a function of scores and labels, such as `classification.accuracy`.
        hidden: $h$.
        labels: the labels of the examples.

    Returns:
        A number in $[-1, 1]$, about 0 for labels that do not depend on $h$.

    References:
        Hewitt, Liang (2019), "Designing and Interpreting Probes with Control Tasks".
    """
    hidden, labels = _examples(hidden, labels)

    def fitted(labels: Bool[Array, " examples"]) -> Float[Array, ""]:
        return measure(scores(fit(hidden, labels), hidden), labels)

    return fitted(labels) - fitted(jax.random.permutation(key, labels))


def _solve(matrix: Array, right: Array) -> Array:
    """Solve linear equations by Cholesky factors: all matrices here are positive definite."""
    return jsp.linalg.cho_solve(jsp.linalg.cho_factor(matrix), right)


def _means(
    hidden: Float[Array, "examples hidden"], labels: Bool[Array, " examples"]
) -> tuple[Float[Array, " hidden"], Float[Array, " hidden"]]:
    """Return the mean of the positive examples, and that of the negative ones."""
    positive = jnp.where(labels, 1.0, 0.0)
    negative = 1 - positive
    return positive @ hidden / jnp.sum(positive), negative @ hidden / jnp.sum(negative)


def _unless_one_class(labels: Bool[Array, " examples"], probe: Probe) -> Probe:
    """Return the probe, or NaN if all labels are of one class, where the best probe is constant."""
    both = jnp.any(labels) & ~jnp.all(labels)
    return Probe(*(jnp.where(both, part, jnp.nan) for part in probe))


def _examples(
    hidden: Any, labels: Any
) -> tuple[Float[Array, "examples hidden"], Bool[Array, " examples"]]:
    hidden = inputs.floats("hidden", hidden, rank=2)
    labels = inputs.labels("labels", labels, rank=1)
    checks.same_size("examples", hidden=hidden.shape[0], labels=labels.size)
    checks.count("number of examples", labels.size)
    if not isinstance(labels, Tracer) and bool(jnp.all(labels == labels[0])):
        raise InputError(
            f"all labels are {bool(labels[0])}: a probe needs examples of both classes"
        )
    return hidden, labels


def _check_penalty(penalty: Float[Array, ""] | float) -> None:
    checks.interval("penalty", penalty, low=0, open_low=True, remedy="give a positive penalty")
