r"""How much superposition: pure functions of ONE model, next to those in `geometry`.

`weights` is hidden x features: column $i$ is the direction $W_i$ of feature $i$, row $k$ what
neuron $k$ takes from each feature. $\hat W_i = W_i / \lVert W_i \rVert$ and $G = W^\top W$. `vmap`
over a sweep.

Gradients are finite at zero columns and zero rows, which are those of `geometry`. Where features
that are not represented must not count, set their columns to zero.

Features per dimension, $\lVert W \rVert_F^2 / m$, are `1 / geometry.dimensions_per_feature`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from toymodels import checks
from toymodels.analysis import geometry, inputs, units
from toymodels.theory import bounds

__all__ = [
    "VirtualWeights",
    "absolute_interference",
    "capacity_saturation",
    "coherence",
    "effective_features",
    "effective_number",
    "effective_rank",
    "excess_coherence",
    "feature_polysemanticity",
    "loss_contributions",
    "neuron_polysemanticity",
    "participation_ratio",
    "real_and_interference",
    "squared_interference",
    "squared_neuron_polysemanticity",
]


def absolute_interference(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""What the others can do to each output at worst: $\sum_{j \ne i} |G_{ij}|$.

    The most that features in $[-1, 1]$ move pre-activation $i$ of a tied model. Features in
    $[0, 1]$ attain it only where all $G_{ij}$, $j \ne i$, have one sign.

    Returns:
        At least 0, and 0 exactly if the feature is orthogonal to all others.
    """
    weights = inputs.floats("weights", weights, rank=2)
    return jnp.sum(jnp.abs(_without_diagonal(geometry.gram(weights))), axis=1)


def squared_interference(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""What the others do to each output on average: $\sum_{j \ne i} G_{ij}^2$.

    Times $\operatorname{Var} x$ it is the variance that independent features, all of the same
    variance, bring into pre-activation $i$ of a tied model. It is $\lVert W_i \rVert^2$ times
    `geometry.superposition`, which reads along a unit vector.

    Returns:
        At least 0; with equal norms the same order of features as `geometry.superposition`.
    """
    weights = inputs.floats("weights", weights, rank=2)
    return jnp.sum(_without_diagonal(geometry.gram(weights)) ** 2, axis=1)


def feature_polysemanticity(weights: Float[Array, "hidden features"]) -> Float[Array, " features"]:
    r"""How far the others reach into the direction of each feature, as a length.

    $$\sqrt{\sum_{j \ne i} (\hat W_i \cdot W_j)^2},$$

    by which the notebook of the paper colours features; `geometry.superposition` is its square.

    Returns:
        At least 0, and 1 for each of an antipodal pair of unit length. 0 for a zero column. It is a
        norm, so its gradient is that of no length at 0.

    References:
        Elhage et al. (2022), "Toy Models of Superposition", notebook.
    """
    weights = inputs.floats("weights", weights, rank=2)
    squares = geometry.superposition(weights)
    apart = squares == 0  # NaN stays NaN
    # Two `where`s: reverse mode differentiates the branch that is not taken as well.
    return jnp.where(apart, 0.0, jnp.sqrt(jnp.where(apart, 1.0, squares)))


def neuron_polysemanticity(weights: Float[Array, "neurons features"]) -> Float[Array, " neurons"]:
    r"""Share of each neuron that is not its main feature: $1 - \max_i |W_{ki}| / \sum_i |W_{ki}|$.

    Needs a privileged basis: rotations of the hidden space change it.

    Args:
        weights: the rows of neurons, or their activations on each feature alone.

    Returns:
        In $[0, 1 - 1/n]$: 0 for a neuron of one feature, $1 - 1/k$ for one of $k$ features alike.
        0 for a neuron without weights.

    References:
        Jermyn, Schiefer and Hubinger (2022), "Engineering Monosemanticity in Toy Models": one minus
        their monosemanticity, of activations.
    """
    weights = inputs.floats("weights", weights, rank=2)
    return _share_of_the_others(jnp.abs(weights))


def squared_neuron_polysemanticity(
    weights: Float[Array, "neurons features"],
) -> Float[Array, " neurons"]:
    r"""The same of variance: $1 - \max_i W_{ki}^2 / \sum_i W_{ki}^2$.

    What its main feature does not explain of the variance of neuron $k$ before its activation
    function, if features are independent and of the same variance.

    Returns:
        In $[0, 1 - 1/n]$, at most `neuron_polysemanticity` and equal to it where the neuron has one
        feature, or several alike.
    """
    weights = inputs.floats("weights", weights, rank=2)
    largest = jnp.max(jnp.abs(weights), axis=1, keepdims=True, initial=0.0)
    # Divided before it is squared: small weights would underflow.
    return _share_of_the_others((weights / units.positive(largest)) ** 2)


def effective_number(amounts: Float[Array, " parts"]) -> Float[Array, ""]:
    r"""How many parts there are, if uneven ones count less: the exponential of an entropy.

    $$e^H, \qquad H = -\sum_i p_i \ln p_i, \qquad p_i = \frac{a_i}{\sum_j a_j}.$$

    Args:
        amounts: $a_i \ge 0$; whether they are is not checked.

    Returns:
        From 1, all in one part, to the number of positive amounts, where these are equal. Neither
        scale nor zeros matter; splitting every part into two alike doubles it. 0 if all are 0. A
        new part raises it with infinite slope: the gradient at an amount of 0 leaves that out.
    """
    amounts = inputs.floats("amounts", amounts, rank=1)
    amounts, _ = units.scaled(amounts)
    total = jnp.sum(amounts)
    shares = amounts / units.positive(total)
    logarithms = jnp.log(units.positive(shares))
    return jnp.where(total == 0, 0.0, jnp.exp(-jnp.sum(shares * logarithms)))


def effective_features(latents: Float[Array, "examples latents"]) -> Float[Array, ""]:
    r"""How many features a dictionary's activations amount to: `effective_number` of $E |z_i|$.

    A property of activations, not of weights: with a dictionary of unit directions that finds all
    features, $z_i = \lVert W_i \rVert x_i$, it is that of $\lVert W_i \rVert E |x_i|$. More than
    hidden dimensions is superposition: the paper's $\psi$ is the number per dimension.

    Args:
        latents: $z$, activations of a sparse autoencoder, or of the true features.

    Returns:
        In $[1, \text{latents}]$; 0 if nothing is active. Rare features count little, unlike in
        $\lVert W \rVert_F^2$, and a feature split over two latents counts twice.

    References:
        Bereska et al. (2025), "Superposition as Lossy Compression: Measure with Sparse Autoencoders
        and Connect to Adversarial Vulnerability".
    """
    latents = inputs.floats("latents", latents, rank=2)
    return effective_number(jnp.mean(jnp.abs(latents), axis=0))


def effective_rank(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""How many dimensions are used: `effective_number` of the singular values of $W$.

    Returns:
        In $[1, \operatorname{rank} W]$, the rank if and only if $W$ is a tight frame of its span; 0
        for a zero matrix. At least `participation_ratio`.

    References:
        Roy and Vetterli (2007), "The effective rank: a measure of effective dimensionality".
    """
    weights = inputs.floats("weights", weights, rank=2)
    return effective_number(jnp.linalg.svd(weights, compute_uv=False))


def participation_ratio(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""How many dimensions are used, by squares, with $\lambda$ the eigenvalues of $W W^\top$.

    $$\frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}
      = \frac{\lVert W \rVert_F^4}{\lVert G \rVert_F^2}$$

    The denominator is the frame potential: `theory.bounds.min_frame_potential` bounds the ratio
    from above, given the norms. Of centred activations, in columns, it is that of their covariance.

    Returns:
        As `effective_rank`, and less sensitive to small directions.
    """
    weights = inputs.floats("weights", weights, rank=2)
    largest = jnp.max(jnp.abs(weights), initial=0.0)
    scaled = weights / units.positive(largest)  # fourth powers would underflow
    potential = jnp.sum(geometry.gram(scaled) ** 2)
    return jnp.sum(scaled**2) ** 2 / units.positive(potential)


def capacity_saturation(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Share of the hidden dimensions that features have to themselves: $\sum_i D_i / m$.

    Returns:
        In $[0, \operatorname{rank} W / m]$. 1 if and only if the rank is $m$ and every feature is
        an eigenvector of $W W^\top$: where it is less, `geometry.eigenvector_residual` says which
        features are not.

    References:
        Ivanov et al. (2026), "Spectral Superposition: A Theory of Feature Geometry".
        Scherlis et al. (2022), "Polysemanticity and Capacity in Neural Networks".
    """
    weights = inputs.floats("weights", weights, rank=2)
    return jnp.sum(geometry.feature_dimensionality(weights)) / weights.shape[0]


def coherence(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""The closest two directions: $\max_{i \ne j} |\hat W_i \cdot \hat W_j|$.

    Returns:
        In $[0, 1]$ up to rounding. Zero columns have no direction, so do not count; 0 if fewer than
        two are left.
    """
    weights = inputs.floats("weights", weights, rank=2)
    cosines = geometry.gram(geometry.unit_columns(weights))
    return jnp.max(jnp.abs(_without_diagonal(cosines)), initial=0.0)


def excess_coherence(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Coherence between the best possible and the worst.

    $$\frac{\mu - \mu_{\min}}{1 - \mu_{\min}},$$

    with $\mu$ the `coherence` and $\mu_{\min}$ the `theory.bounds.min_coherence` of as many
    features as have a direction: the Welch bound, or that of Rankin where it is greater.

    Returns:
        In $[0, 1]$ up to rounding: 0 for equiangular tight frames, simplices among them, and for
        orthogonal features; 1 if two are on one line. 0 in one dimension, where all are.
    """
    weights = inputs.floats("weights", weights, rank=2)
    hidden, num_features = weights.shape
    least = [bounds.min_coherence(count, hidden) for count in range(1, num_features + 1)]
    count = jnp.sum(geometry.feature_norms(weights) > 0)
    bound = jnp.asarray([0.0, *least], weights.dtype)[count]
    room = 1 - bound
    excess = (coherence(weights) - bound) / units.positive(room)
    return inputs.unless_missing(jnp.where(room > 0, excess, 0.0), weights)


class VirtualWeights(NamedTuple):
    r"""Virtual weights $V = c T + N$, with $T$ the true map and $\sum_{kj} T_{kj} N_{kj} = 0$.

    Attributes:
        gain: $c$, less than 1 where the model shrinks its outputs.
        real: $c T$.
        interference: $N$.
        explained: $\lVert c T \rVert_F^2 / \lVert V \rVert_F^2$ in $[0, 1]$, the squared cosine of
            $V$ and $T$; 0 if either is zero.
    """

    gain: Float[Array, ""]
    real: Float[Array, "outputs features"]
    interference: Float[Array, "outputs features"]
    explained: Float[Array, ""]


def real_and_interference(
    virtual: Float[Array, "outputs features"], true_map: Float[Array, "outputs features"]
) -> VirtualWeights:
    r"""Virtual weights as a multiple of the true map and the rest, orthogonal to it.

    $$c = \frac{\sum_{kj} T_{kj} V_{kj}}{\lVert T \rVert_F^2}, \qquad N = V - c\, T.$$

    The source calls $V - T$ interference, its first definition, if $T$ is what training without a
    bottleneck finds. That counts shrinkage as well:
    $\lVert V - T \rVert_F^2 = (c - 1)^2 \lVert T \rVert_F^2 + \lVert N \rVert_F^2$.

    Args:
        virtual: $V = W_b^\top A W_a$, what features of one layer do to those of another, from their
            directions $W_a$ and $W_b$ and the map $A$ between hidden spaces; $G$ in a tied model.
        true_map: $T$, what the model is to compute; the identity for reconstruction.

    References:
        Olah, Turner and Conerly (2025), "A Toy Model of Interference Weights".
    """
    virtual = inputs.floats("virtual", virtual, rank=2)
    true_map = inputs.floats("true_map", true_map, rank=2)
    checks.same_size("outputs", virtual=virtual.shape[0], true_map=true_map.shape[0])
    checks.same_size("features", virtual=virtual.shape[1], true_map=true_map.shape[1])
    # Squares in units of the greatest entries neither overflow nor underflow.
    direction, of_map = units.scaled(true_map)
    scaled, of_virtual = units.scaled(virtual)
    size = jnp.sum(direction**2)
    along = jnp.sum(direction * scaled) / units.positive(size)
    gain = along * of_virtual / of_map
    real = along * direction * of_virtual
    total = jnp.sum(scaled**2)
    explained = jnp.sum((along * direction) ** 2) / units.positive(total)
    return VirtualWeights(gain, real, virtual - real, explained)


def loss_contributions(
    virtual: Float[Array, "outputs features"],
    loss: Callable[[Float[Array, "outputs features"]], Float[Array, ""]],
) -> Float[Array, "outputs features"]:
    r"""What each virtual weight is worth: the loss without it minus the loss with it.

    Real weights are those that improve the loss, interference weights the rest: the second
    definition of the source. For a linear output and independent features of mean 0 and
    variance $v$, it is $v V_{kj} (2 T_{kj} - V_{kj})$: positive for $0 < V_{kj} / T_{kj} < 2$.

    Args:
        virtual: $V$.
        loss: of all virtual weights, with biases as they are: one evaluation per weight.

    Returns:
        Of either sign; 0 for a weight of 0. All are NaN where the loss is.

    References:
        Olah, Turner and Conerly (2025), "A Toy Model of Interference Weights".
    """
    virtual = inputs.floats("virtual", virtual, rank=2)
    outputs, num_features = virtual.shape

    def without(output: Int[Array, ""], feature: Int[Array, ""]) -> Float[Array, ""]:
        return loss(virtual.at[output, feature].set(0.0))

    def row(output: Int[Array, ""]) -> Float[Array, " features"]:
        return jax.vmap(without, (None, 0))(output, jnp.arange(num_features))

    # Row by row: all at once would hold the square of the number of weights.
    return jax.lax.map(row, jnp.arange(outputs)) - loss(virtual)


def _without_diagonal(
    matrix: Float[Array, "features features"],
) -> Float[Array, "features features"]:
    return jnp.where(jnp.eye(matrix.shape[0], dtype=bool), 0.0, matrix)


def _share_of_the_others(amounts: Float[Array, "neurons features"]) -> Float[Array, " neurons"]:
    total = jnp.sum(amounts, axis=1)
    others = total - jnp.max(amounts, axis=1, initial=0.0)
    return others / units.positive(total)
