r"""Measures of superposition and interference: pure functions of ONE model, beside `geometry`.

`weights` is hidden x features: column $i$ is the direction $W_i$ of feature $i$, and row $k$ holds
the input weights of neuron $k$. $\hat W_i = W_i / \lVert W_i \rVert$ and $G = W^\top W$. `vmap`
over a sweep.

Gradients are finite at zero columns and zero rows. If features that are not represented must not
count, set their columns to zero.

Features per dimension, $\lVert W \rVert_F^2 / m$, are `1 / geometry.dimensions_per_feature`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from toymodels.analysis import geometry, inputs, units
from toymodels.theory import bounds

__all__ = [
    "absolute_interference",
    "capacity_saturation",
    "coherence",
    "effective_features",
    "effective_number",
    "effective_rank",
    "excess_coherence",
    "feature_polysemanticity",
    "neuron_polysemanticity",
    "participation_ratio",
    "squared_interference",
    "squared_neuron_polysemanticity",
]


def absolute_interference(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""Return the largest effect of the other features on each output: $\sum_{j \ne i} |G_{ij}|$.

    It is the largest change of preactivation $i$ of a tied model by features in $[-1, 1]$. Features
    in $[0, 1]$ attain it only if all $G_{ij}$, $j \ne i$, have one sign.

    Returns:
        Numbers of at least 0: exactly 0 if the feature is orthogonal to all others.
    """
    weights = inputs.floats("weights", weights, rank=2)
    return jnp.sum(jnp.abs(_without_diagonal(geometry.gram(weights))), axis=1)


def squared_interference(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""Return the squared effect of the other features on each output: $\sum_{j \ne i} G_{ij}^2$.

    Multiplied by $\operatorname{Var} x$ it is the variance of preactivation $i$ of a tied model
    that comes from the other features, if features are independent with equal variances. It is
    $\lVert W_i \rVert^2$ times `geometry.superposition`.

    Returns:
        Numbers of at least 0.
    """
    weights = inputs.floats("weights", weights, rank=2)
    return jnp.sum(_without_diagonal(geometry.gram(weights)) ** 2, axis=1)


def feature_polysemanticity(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""Return how far the other features reach into the direction of each feature, as a length.

    $$\sqrt{\sum_{j \ne i} (\hat W_i \cdot W_j)^2}.$$

    The notebook of the paper colours features by it; `geometry.superposition` is its square.

    Returns:
        Numbers of at least 0: 1 for both features of an antipodal pair of unit length, and 0 for a
        zero column. It is a norm, so its gradient at 0 is set to 0.

    References:
        Elhage et al. (2022), "Toy Models of Superposition", notebook.
    """
    weights = inputs.floats("weights", weights, rank=2)
    squares = geometry.superposition(weights)
    apart = squares == 0  # NaN stays NaN
    # The root is of 1 where it is not used, because its derivative at 0 is infinite.
    return jnp.where(apart, 0.0, jnp.sqrt(jnp.where(apart, 1.0, squares)))


def neuron_polysemanticity(weights: Float[Array, "neurons features"]) -> Float[Array, " neurons"]:
    r"""Return the share of each neuron's weights outside its main feature.

    $$1 - \max_i |W_{ki}| / \sum_i |W_{ki}|.$$

    It needs a privileged basis, because rotations of the hidden space change it.

    Args:
        weights: the rows of neurons, or their activations on each feature alone.

    Returns:
        Numbers in $[0, 1 - 1/n]$: 0 for a neuron of one feature, $1 - 1/k$ for one of $k$ equal
        features, and 0 for a neuron without weights.

    References:
        Jermyn, Schiefer and Hubinger (2022), "Engineering Monosemanticity in Toy Models": it is one
        minus their monosemanticity, which they measure on activations.
    """
    weights = inputs.floats("weights", weights, rank=2)
    return _share_of_the_others(jnp.abs(weights))


def squared_neuron_polysemanticity(
    weights: Float[Array, "neurons features"],
) -> Float[Array, " neurons"]:
    r"""Return the share of each neuron's variance outside its main feature.

    $$1 - \max_i W_{ki}^2 / \sum_i W_{ki}^2.$$

    It is the share of the variance of neuron $k$, before its activation function, that its main
    feature does not explain, if features are independent with equal variances.

    Returns:
        Numbers in $[0, 1 - 1/n]$: at most `neuron_polysemanticity`, and equal to it if the neuron
        has one feature, or several with equal weights.
    """
    weights = inputs.floats("weights", weights, rank=2)
    largest = jnp.max(jnp.abs(weights), axis=1, keepdims=True, initial=0.0)
    # Divide before squaring, because squares of small weights would underflow.
    return _share_of_the_others((weights / units.positive(largest)) ** 2)


def effective_number(amounts: Float[Array, " parts"]) -> Float[Array, ""]:
    r"""Return the effective number of parts, the exponential of an entropy.

    $$e^H, \qquad H = -\sum_i p_i \ln p_i, \qquad p_i = \frac{a_i}{\sum_j a_j}.$$

    Args:
        amounts: $a_i \ge 0$. Their signs are not checked.

    Returns:
        A number from 1, if one part has all, to the number of positive amounts, if these are equal.
        It does not depend on scale or on zeros, and doubles if every part is split in half. It is 0
        if all amounts are 0. Its slope at an amount of 0 is infinite; the gradient is set to a
        finite one there.
    """
    amounts = inputs.floats("amounts", amounts, rank=1)
    amounts, _ = units.scaled(amounts)
    total = jnp.sum(amounts)
    shares = amounts / units.positive(total)
    logarithms = jnp.log(units.positive(shares))
    return jnp.where(total == 0, 0.0, jnp.exp(-jnp.sum(shares * logarithms)))


def effective_features(latents: Float[Array, "examples latents"]) -> Float[Array, ""]:
    r"""Return the `effective_number` of $E |z_i|$, the effective features of a dictionary.

    It depends on activations and not on weights alone: a dictionary of unit directions that finds
    all features has $z_i = \lVert W_i \rVert x_i$, so the amounts are $\lVert W_i \rVert E |x_i|$.
    If it exceeds the number of hidden dimensions, there is superposition; the paper's $\psi$ is the
    number per dimension.

    Args:
        latents: $z$, activations of a sparse autoencoder, or of the true features.

    Returns:
        A number in $[1, \text{latents}]$, or 0 if no latent is active. Rare features count little,
        unlike in $\lVert W \rVert_F^2$, and a feature split over two latents counts twice.

    References:
        Bereska et al. (2025), "Superposition as Lossy Compression: Measure with Sparse Autoencoders
        and Connect to Adversarial Vulnerability".
    """
    latents = inputs.floats("latents", latents, rank=2)
    return effective_number(jnp.mean(jnp.abs(latents), axis=0))


def effective_rank(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Return the `effective_number` of the singular values of $W$, the dimensions in use.

    Returns:
        A number in $[1, \operatorname{rank} W]$: the rank if and only if $W$ is a tight frame of
        its span, and 0 for a zero matrix. It is at least `participation_ratio`.

    References:
        Roy and Vetterli (2007), "The effective rank: a measure of effective dimensionality".
    """
    weights = inputs.floats("weights", weights, rank=2)
    return effective_number(jnp.linalg.svd(weights, compute_uv=False))


def participation_ratio(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Return the participation ratio of the eigenvalues $\lambda$ of $W W^\top$.

    $$\frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}
      = \frac{\lVert W \rVert_F^4}{\lVert G \rVert_F^2}$$

    The denominator is the frame potential, so `theory.bounds.min_frame_potential` bounds the ratio
    from above, given the norms. For centred activations, in columns, it is the participation ratio
    of their covariance.

    Returns:
        A number in $[1, \operatorname{rank} W]$, with the cases of `effective_rank`. Small
        directions count less than in `effective_rank`.
    """
    weights = inputs.floats("weights", weights, rank=2)
    largest = jnp.max(jnp.abs(weights), initial=0.0)
    scaled = weights / units.positive(largest)  # fourth powers would underflow
    potential = jnp.sum(geometry.gram(scaled) ** 2)
    return jnp.sum(scaled**2) ** 2 / units.positive(potential)


def capacity_saturation(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Return $\sum_i D_i / m$, the share of hidden dimensions that features have to themselves.

    Returns:
        A number in $[0, \operatorname{rank} W / m]$. It is 1 if and only if the rank is $m$ and
        every feature is an eigenvector of $W W^\top$; `geometry.eigenvector_residual` tells which
        features are not.

    References:
        Ivanov et al. (2026), "Spectral Superposition: A Theory of Feature Geometry".
        Scherlis et al. (2022), "Polysemanticity and Capacity in Neural Networks".
    """
    weights = inputs.floats("weights", weights, rank=2)
    return jnp.sum(geometry.feature_dimensionality(weights)) / weights.shape[0]


def coherence(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Return the largest overlap of two directions: $\max_{i \ne j} |\hat W_i \cdot \hat W_j|$.

    Returns:
        A number in $[0, 1]$ up to rounding. Zero columns have no direction and do not count. It is
        0 if fewer than two columns are left.
    """
    weights = inputs.floats("weights", weights, rank=2)
    cosines = geometry.gram(geometry.unit_columns(weights))
    return jnp.max(jnp.abs(_without_diagonal(cosines)), initial=0.0)


def excess_coherence(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Return the coherence on a scale from its lower bound, 0, to its maximum, 1.

    $$\frac{\mu - \mu_{\min}}{1 - \mu_{\min}},$$

    where $\mu$ is the `coherence` and $\mu_{\min}$ the `theory.bounds.min_coherence` of the columns
    that are not zero: the bound of Welch, or that of Rankin if it is larger.

    Returns:
        A number in $[0, 1]$ up to rounding: 0 for equiangular tight frames, such as simplices, and
        for orthogonal features; 1 if two features are on one line. It is 0 in one dimension, where
        all features are on one line.
    """
    weights = inputs.floats("weights", weights, rank=2)
    hidden, num_features = weights.shape
    lowest = [bounds.min_coherence(count, hidden) for count in range(1, num_features + 1)]
    count = jnp.sum(geometry.feature_norms(weights) > 0)
    bound = jnp.asarray([0.0, *lowest], weights.dtype)[count]
    room = 1 - bound
    excess = (coherence(weights) - bound) / units.positive(room)
    return inputs.unless_missing(jnp.where(room > 0, excess, 0.0), weights)


def _without_diagonal(
    matrix: Float[Array, "features features"],
) -> Float[Array, "features features"]:
    return jnp.where(jnp.eye(matrix.shape[0], dtype=bool), 0.0, matrix)


def _share_of_the_others(amounts: Float[Array, "neurons features"]) -> Float[Array, " neurons"]:
    total = jnp.sum(amounts, axis=1)
    others = total - jnp.max(amounts, axis=1, initial=0.0)
    return others / units.positive(total)
