r"""Measures of linear representation: how far sums of features are sums in the hidden space.

These are pure functions of ONE encoder, one array of representations or one weight matrix; `vmap`
over a sweep. Representations are rows here, but the directions in `weights` are columns.

References:
    Park, Choe and Veitch (2024), "The Linear Representation Hypothesis and the Geometry of Large
    Language Models".
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from toymodels import checks, sites
from toymodels.analysis import geometry, inputs, reconstruction, units

__all__ = [
    "additivity",
    "analogy_accuracy",
    "parallelogram_error",
    "scaling",
    "side_effects",
    "steer",
    "steering_effects",
    "steering_vectors",
]


def additivity(
    encode: Callable[[Float[Array, " features"]], Float[Array, " hidden"]],
    features: Float[Array, "examples features"],
) -> Float[Array, ""]:
    r"""Return the share of the variance of $h(x)$ that the features explain one by one.

    $$R^2 = 1 - \frac{\sum_x \lVert h(x) - \hat h(x) \rVert^2}
                     {\sum_x \lVert h(x) - \bar h \rVert^2}, \qquad
      \hat h(x) = h(0) + \sum_i \bigl(h(x_i e_i) - h(0)\bigr).$$

    Nothing is fitted. For one neuron $h = \mathrm{ReLU}(x_1 - x_2)$ the error is
    $\min(x_1, x_2)$, so $R^2$ falls from 1 to -2 as uniform features go from sparse to dense.

    Args:
        encode: $h$, a function from one feature vector to one hidden vector.
        features: $x$, one example a row.

    Returns:
        A number of at most 1: exactly 1 for affine encoders and for examples with one active
        feature, and negative if the mean of $h$ is a better guess. If no $h(x)$ differs from the
        mean, it is 1 or minus infinity.
    """
    features = inputs.floats("features", features, rank=2)
    origin = encode(jnp.zeros_like(features[0]))

    def one_by_one(example: Float[Array, " features"]) -> Float[Array, " hidden"]:
        return origin + jnp.sum(jax.vmap(encode)(jnp.diag(example)) - origin[None, :], axis=0)

    hidden, predicted = jax.vmap(encode)(features), jax.vmap(one_by_one)(features)
    return reconstruction.explained_variance(hidden, predicted, centred=True)


def scaling(
    encode: Callable[[Float[Array, " features"]], Float[Array, " hidden"]],
    direction: Float[Array, " features"],
    scales: Float[Array, " scales"],
) -> Float[Array, ""]:
    r"""Return the share of the variance of $h(s v)$ that is linear in the scale $s$.

    It is the $R^2$ of the least squares fit $h(s v) \approx a + s b$ with vectors $a$ and $b$. For
    a feature $v = e_i$ it tells whether a larger value gives a longer vector of equal direction.

    Args:
        encode: a function from one feature vector to one hidden vector.
        direction: $v$.
        scales: the values of $s$, with equal weights.

    Returns:
        A number in $[0, 1]$: 1 for affine encoders, for `ReLUHidden` on scales of one sign, and if
        $h$ does not change.

    Raises:
        ValueError: all scales are equal.
    """
    direction = inputs.floats("direction", direction, rank=1)
    scales = inputs.floats("scales", scales, rank=1)
    checks.interval(
        "range of scales", jnp.ptp(scales), low=0.0, open_low=True, remedy="give different scales"
    )
    hidden = jax.vmap(lambda scale: encode(scale * direction))(scales)
    centred = scales - jnp.mean(scales)
    slope = centred @ hidden / jnp.sum(centred**2)
    predicted = jnp.mean(hidden, axis=0)[None, :] + jnp.outer(centred, slope)
    return reconstruction.explained_variance(hidden, predicted, centred=True)


def parallelogram_error(
    representations: Float[Array, "values_a values_b hidden"],
) -> Float[Array, ""]:
    r"""Return how much the change from one value of $a$ to another depends on $b$.

    $$\epsilon = \sqrt{\frac{\mathbb E \lVert (h_{ab} - h_{a'b}) - (h_{ab'} - h_{a'b'})
      \rVert^2}{\mathbb E \lVert h_{ab} - h_{a'b} \rVert^2}}, \qquad a \ne a',\ b \ne b',$$

    the closing error of "king - man = queen - woman" relative to a side. The sum over
    quadruples is computed from the interactions $r_{ab} = h_{ab} - \bar h_a - \bar h_b + \bar h$:
    $\epsilon^2 = 2 B \sum \lVert r_{ab} \rVert^2 / (B - 1) \sum \lVert h_{ab} - \bar h_b \rVert^2$
    with $B$ values of $b$.

    Args:
        representations: $h_{ab}$, one for each pair of values of two attributes $a$ and $b$.

    Returns:
        A number in $[0, 2]$: 0 for additive representations $h_{ab} = u_a + v_b$, and if nothing
        depends on $a$; near $\sqrt 2$ for independent random ones; 2 for $h_{ab} = s_a t_b u$ if
        $s$ and $t$ have two opposite values each.

    Raises:
        ValueError: an attribute has only one value.
    """
    representations = _at_least_two_values(representations)
    num_b = representations.shape[1]
    representations, _ = units.scaled(representations)
    changes = representations - jnp.mean(representations, axis=0, keepdims=True)
    interactions = changes - jnp.mean(changes, axis=1, keepdims=True)
    sides = jnp.sum(changes**2)
    ratio = 2 * num_b * jnp.sum(interactions**2) / jnp.where(sides > 0, (num_b - 1) * sides, 1.0)
    return jnp.sqrt(ratio)


def analogy_accuracy(
    representations: Float[Array, "values_a values_b hidden"], *, exclude_inputs: bool
) -> Float[Array, ""]:
    r"""Return how often "king - man + woman" is nearest to "queen".

    It is the share of all quadruples with $a \ne a'$ and $b \ne b'$ for which $h_{ab'}$ has a
    larger cosine with $h_{ab} - h_{a'b} + h_{a'b'}$ than any other representation.

    Args:
        representations: $h_{ab}$, one for each pair of values of two attributes.
        exclude_inputs: whether the three given representations cannot be the answer, as is usual.
            This raises the result: with $N$ representations in all, independent random ones reach
            $1 / (N - 3)$, which is 1 for two values of each attribute. If the given ones can be the
            answer, random representations reach 0 in high dimensions.

    Returns:
        A number in $[0, 1]$: 1 for additive representations without parallel ones. Ties are
        failures. It is NaN if a representation is not finite.

    Raises:
        ValueError: an attribute has only one value.
    """
    representations = _at_least_two_values(representations)
    num_a, num_b, hidden = representations.shape
    a, other_a, b, other_b = np.indices((num_a, num_a, num_b, num_b)).reshape(4, -1)
    proper = (a != other_a) & (b != other_b)
    corners = [(a, b), (other_a, b), (other_a, other_b), (a, other_b)]
    king, man, woman, queen = (np.asarray(i * num_b + j)[proper] for i, j in corners)

    words = jnp.reshape(representations, (num_a * num_b, hidden))
    words, _ = units.scaled(words)
    # The length of a query does not change which candidate is nearest.
    cosines = (words[king] - words[man] + words[woman]) @ geometry.unit_columns(words.T)
    queries = np.arange(queen.size)
    rivals = cosines.at[queries, queen].set(-jnp.inf)
    if exclude_inputs:
        rivals = rivals.at[queries[:, None], np.stack([king, man, woman], axis=1)].set(-jnp.inf)
    accuracy = jnp.mean(cosines[queries, queen] > jnp.max(rivals, axis=1))
    # Comparisons would count numbers that are not finite as failures.
    return inputs.unless_missing(accuracy, words)


def steering_vectors(weights: Float[Array, "hidden features"]) -> Float[Array, "hidden features"]:
    r"""Return the shortest change of $h$ that raises each $W_i \cdot h$ by 1.

    It is $W_i / \lVert W_i \rVert^2$.

    Returns:
        One column per feature: a zero column for a zero column.
    """
    weights = inputs.floats("weights", weights, rank=2)
    scaled, unit = units.scaled(weights, axis=0)
    squared_norms = jnp.sum(scaled**2, axis=0)
    return scaled / units.positive(squared_norms)[None, :] / unit[None, :]


def steering_effects(
    weights: Float[Array, "hidden features"],
    preactivation: Float[Array, " features"],
    amount: Float[Array, ""] | float,
    *,
    activation: Callable[[Array], Array],
) -> Float[Array, "features features"]:
    r"""Return the effect of steering each feature by $\alpha$ on all outputs of a tied model.

    Adding $\alpha W_i / \lVert W_i \rVert^2$ to $h$ changes output $j$ by

    $$f\Bigl(z_j + \alpha \frac{W_i \cdot W_j}{\lVert W_i \rVert^2}\Bigr) - f(z_j), \qquad
      z = W^\top h + b.$$

    Args:
        weights: $W$, which encodes and decodes.
        preactivation: $z$ before steering.
        amount: $\alpha$.
        activation: $f$, elementwise: ReLU for `ReLUOutput`, the identity for `LinearOutput`.

    Returns:
        A matrix with the effect of steering feature $i$ on output $j$ in row $i$ and column $j$.
        With a linear output the diagonal is $\alpha$ and the rest is interference. The row of a
        feature that is not represented is 0.
    """
    weights = inputs.floats("weights", weights, rank=2)
    preactivation = inputs.floats("preactivation", preactivation, rank=1)
    checks.same_size("features", weights=weights.shape[1], preactivation=preactivation.size)
    moved = preactivation[None, :] + amount * (steering_vectors(weights).T @ weights)
    return activation(moved) - activation(preactivation)[None, :]


def steer(
    model: nn.Module,
    params: PyTree,
    examples: Float[Array, "examples features"],
    amounts: Float[Array, " amounts"],
) -> Float[Array, "amounts examples features outputs"]:
    r"""Steer each feature in turn, and return the changes of all outputs.

    Steering feature $i$ by $\alpha$ adds $\alpha$ times its `steering_vectors` column to the hidden
    vector of an example.

    Args:
        model: a model of ONE example with a site "hidden".
        params: its parameters, with `weights`.
        examples: the inputs.
        amounts: the amounts $\alpha$ to steer by.

    Returns:
        The change of each output, by the amount, the example and the steered feature.
    """
    examples = inputs.floats("examples", examples, rank=2)
    amounts = inputs.floats("amounts", amounts, rank=1)
    directions = steering_vectors(params["weights"]).T

    def steered(amount: Array, example: Array, direction: Array) -> Array:
        moved = {"hidden": lambda hidden: hidden + amount * direction}
        return sites.intervene(model, params, example, moved)

    by_feature = jax.vmap(steered, (None, None, 0))
    each = jax.vmap(jax.vmap(by_feature, (None, 0, None)), (0, None, None))
    plain = jax.vmap(lambda example: jnp.asarray(model.apply({"params": params}, example)))(
        examples
    )
    return each(amounts, examples, directions) - plain[None, :, None, :]


def side_effects(
    effects: Float[Array, "examples features features"],
) -> Float[Array, " features"]:
    r"""Return the root mean square change of all other outputs over that of the steered output.

    It is $\sqrt{1/D_i - 1}$ for a linear output, with $D_i$ the feature dimensionality.

    Args:
        effects: changes of the outputs (last axis) by steering each feature (second axis).

    Returns:
        Numbers of at least 0. Where the steered output does not change, it is the change of the
        other outputs itself.
    """
    effects = inputs.floats("effects", effects, rank=3)
    checks.same_size("features", steered=effects.shape[1], outputs=effects.shape[2])
    squares = jnp.mean(effects**2, axis=0)
    aimed = jnp.diagonal(squares)
    others = jnp.sum(squares, axis=1) - aimed
    return jnp.sqrt(others / units.positive(aimed))


def _at_least_two_values(
    representations: Any,
) -> Float[Array, "values_a values_b hidden"]:
    representations = inputs.floats("representations", representations, rank=3)
    for size in representations.shape[:2]:
        checks.count("number of values of an attribute", size, minimum=2)
    return representations
