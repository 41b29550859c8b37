r"""Scores of a dictionary against the known directions of the features.

A dictionary $D$ is hidden x latents, and the true weights $W$ are hidden x features; columns are
directions. Cosines are absolute, because principal and independent components have no sign. These
are pure functions of ONE dictionary; `vmap` over a sweep.

**Matching.** Two ways are in use, and they answer different questions. `mcc`, and by `match` every
function with an argument `matching`, pairs features and latents one to one. In `mean_max_cosine`
and `uniqueness` each column chooses its best partner, and several may choose the same one.

Where a share is 0/0, the docstring gives its value. Inputs that are not finite give NaN.

References:
    Kuhn (1955), "The Hungarian method for the assignment problem".
    Sharkey, Braun, Millidge (2022), "Taking features out of superposition with sparse
    autoencoders", for the mean of the maximal cosines (MMCS).
"""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from toymodels import checks
from toymodels.analysis import geometry, inputs, units
from toymodels.errors import InputError

__all__ = [
    "absorption_rate",
    "hedging_degree",
    "match",
    "matched_cosines",
    "mcc",
    "mean_max_cosine",
    "uniqueness",
]


def match(
    dictionary: Float[Array, "hidden latents"], weights: Float[Array, "hidden features"]
) -> Int[Array, " features"]:
    r"""Match features and latents one to one, with the largest sum of $|\cos|$.

    Returns:
        The number of the latent of each feature. All are different, except that features without a
        latent have -1 if there are fewer latents than features. A feature or latent of length 0 has
        cosine 0 with all others and gets any partner that is left. All are -1 if traced numbers are
        not finite.

    Raises:
        ValueError: numbers that are not finite, because an index cannot be NaN.
    """
    dictionary, weights = _pair(dictionary, weights)
    inputs.refuse_missing("dictionary", dictionary)
    inputs.refuse_missing("weights", weights)
    return _match(dictionary, weights)


def _match(
    dictionary: Float[Array, "hidden latents"], weights: Float[Array, "hidden features"]
) -> Int[Array, " features"]:
    similarity = _cosines(weights, dictionary)
    # The search needs finite numbers.
    cost = -jnp.where(jnp.isfinite(similarity), similarity, 0.0)
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    columns = jnp.where(jnp.isfinite(similarity).all(), columns, -1)
    return jnp.full(weights.shape[1], -1).at[rows].set(columns)


def mcc(
    dictionary: Float[Array, "hidden latents"], weights: Float[Array, "hidden features"]
) -> Float[Array, ""]:
    r"""Return the mean $|\cos|$ of the best one-to-one matching ("mean correlation coefficient").

    $$\mathrm{MCC} = \frac1{\min(k, n)} \max_{\text{matchings}} \sum_{(i, l)}
      |\cos(W_i, D_l)|.$$

    The mean is over the $\min(k, n)$ matched pairs, as is usual, so it ignores the features that a
    dictionary with fewer latents misses. Multiply it by $\min(k, n)/n$ to count a missed feature as
    0.

    Returns:
        A number in $[0, 1]$: 1 for a dictionary that holds all features, in any order, length or
        sign, and for one that holds only features, each once.
    """
    dictionary, weights = _pair(dictionary, weights)
    cosines = matched_cosines(dictionary, weights, _match(dictionary, weights))
    return jnp.sum(cosines) / min(dictionary.shape[1], weights.shape[1])


def matched_cosines(
    dictionary: Float[Array, "hidden latents"],
    weights: Float[Array, "hidden features"],
    matching: Int[Array, " features"],
) -> Float[Array, " features"]:
    r"""Return $|\cos(W_i, D_l)|$ of each feature and its matched latent.

    Args:
        dictionary: $D$.
        weights: $W$.
        matching: the latent of each feature, from `match`.

    Returns:
        Numbers in $[0, 1]$: 0 for a feature without a latent. All are NaN if an input is not
        finite.
    """
    dictionary, weights = _pair(dictionary, weights)
    matching = _checked(matching, dictionary, weights)
    similarity = _cosines(weights, dictionary)
    matched = similarity[jnp.arange(weights.shape[1]), matching]
    return inputs.unless_missing(jnp.where(matching >= 0, matched, 0.0), dictionary, weights)


def mean_max_cosine(
    sought: Float[Array, "hidden sought"], among: Float[Array, "hidden among"]
) -> Float[Array, ""]:
    r"""Return the mean over the columns of `sought` of their largest $|\cos|$ in `among` (MMCS).

    With the true weights as `sought` it is a kind of recall: does every feature have a latent? With
    the dictionary as `sought` it is a kind of precision: is every latent a feature?

    Returns:
        A number in $[0, 1]$, and at least `mcc` if `sought` has no more columns than `among`. A
        column of length 0 counts as 0. It is NaN if a number is not finite.
    """
    sought, among = _columns("sought", sought), _columns("among", among)
    checks.same_size("dimensions", sought=sought.shape[0], among=among.shape[0])
    best = jnp.mean(jnp.max(_cosines(sought, among), axis=1))
    return inputs.unless_missing(best, sought, among)


def uniqueness(
    dictionary: Float[Array, "hidden latents"], weights: Float[Array, "hidden features"]
) -> Float[Array, ""]:
    """Return the number of features that are nearest to some latent, divided by that of latents.

    Returns:
        A number in [0, 1], at most features / latents: 1 if no two latents have the same nearest
        feature, by |cos|. A latent of length 0 has no nearest feature; among equally near features
        the first one counts. It is NaN if a number is not finite.
    """
    dictionary, weights = _pair(dictionary, weights)
    similarity = _cosines(weights, dictionary).T
    found = jnp.zeros(weights.shape[1]).at[jnp.argmax(similarity, axis=1)]
    count = jnp.sum(found.max(jnp.sign(jnp.max(similarity, axis=1))))
    return inputs.unless_missing(count / dictionary.shape[1], dictionary, weights)


def absorption_rate(
    latents: Float[Array, "examples latents"],
    dictionary: Float[Array, "hidden latents"],
    features: Float[Array, "examples features"],
    weights: Float[Array, "hidden features"],
    matching: Int[Array, " features"],
    *,
    min_share: float,
) -> Float[Array, " features"]:
    r"""Return how often an active feature is absorbed: other latents replace its silent latent.

    The latents that fire add up to $D z = W c + \ldots$ with $c = W^+ D z$, so they contribute
    $c_i = \sum_l (W^+ D)_{il} z_l$ of feature $i$. An example of feature $i$ is absorbed if its
    matched latent is silent and $c_i \ge \text{min\_share} \cdot x_i$: for instance, the latent of
    a child contains its parent. If $c_i$ is smaller, the feature is only missed.

    The coefficients are computed for columns of length 1 and divided by the lengths, so that the
    units of the features do not matter. For independent columns this is $W^+$.

    If a dictionary holds the direction of the parent, and the sum of both directions in place of
    the child, every example with the child is absorbed: the rate is P(child | parent).

    Args:
        latents: $z$, one row per example.
        dictionary: $D$, with the lengths that decode the latents.
        features: $x \ge 0$; 0 where a feature is not active.
        weights: $W$. The coefficients are exact for independent columns. In superposition they are
            the solution with the smallest sum of squares.
        matching: the latent of each feature, from `match`.
        min_share: the share of $x_i$ that other latents have to contribute, in $(0, 1]$.

    Returns:
        The share of the examples with $x_i \ne 0$ that are absorbed, in $[0, 1]$; 0 without such
        examples. It is NaN if a number is not finite.

    References:
        Chanin et al. (2024), "A is for Absorption", who use a probe in place of $x_i$ and the
        ablation of latents in place of $c_i$.
    """
    latents = inputs.floats("latents", latents, rank=2)
    features = inputs.floats("features", features, rank=2)
    dictionary, weights = _pair(dictionary, weights)
    matching = _checked(matching, dictionary, weights)
    checks.same_size("latents", latents=latents.shape[1], dictionary=dictionary.shape[1])
    checks.same_size("features", features=features.shape[1], weights=weights.shape[1])
    checks.same_size("examples", latents=latents.shape[0], features=features.shape[0])
    checks.interval(
        "min_share", min_share, low=0, high=1, open_low=True, remedy="it is a share of x_i"
    )
    own = (jnp.take(latents, matching, axis=1) != 0) & (matching >= 0)[None, :]
    lengths = geometry.feature_norms(weights)
    parts = jnp.linalg.pinv(geometry.unit_columns(weights)) @ dictionary
    supplied = latents @ (parts / units.positive(lengths)[:, None]).T
    active = features != 0
    absorbed = active & ~own & (supplied >= min_share * features)
    share = jnp.sum(absorbed, axis=0) / jnp.maximum(jnp.sum(active, axis=0), 1)
    return inputs.unless_missing(share, latents, dictionary, features, weights)


def hedging_degree(
    dictionary: Float[Array, "hidden latents"],
    weights: Float[Array, "hidden features"],
    matching: Int[Array, " features"],
) -> Float[Array, " features"]:
    r"""Return how much of other features is in the latent of each feature.

    A direction is $\sum_j c_j \hat W_j$ with $c = \hat W^+ D_l$, plus a part outside all features.
    The hedging degree of the latent $l$ matched with feature $i$ is

    $$\sqrt{\sum_{j \ne i} c_j^2 \Big/ \sum_j c_j^2}.$$

    For orthogonal features it is the sine of an angle: see
    `theory.dictionaries.hedging_angle`.

    Args:
        dictionary: $D$: the decoder, or the transposed encoder. In the encoder, hedging between
            features that exclude one another has the opposite sign.
        weights: $W$. The coefficients are exact for independent columns. In superposition they are
            the shortest solution, which gives even the true directions a degree above 0.
        matching: the latent of each feature, from `match`.

    Returns:
        Numbers in $[0, 1]$: 0 for the direction of the feature itself, for a feature without a
        latent, and for a latent without a part of any feature. All are NaN if a number is not
        finite.

    References:
        Chanin et al. (2025), "Feature Hedging: Correlated Features Break Narrow Sparse
        Autoencoders", who define a degree for dictionaries without known features.
    """
    dictionary, weights = _pair(dictionary, weights)
    matching = _checked(matching, dictionary, weights)
    directions = geometry.unit_columns(weights)
    parts = (jnp.linalg.pinv(directions) @ geometry.unit_columns(dictionary)) ** 2
    parts = jnp.take(parts, matching, axis=1) * (matching >= 0)[None, :]
    total = jnp.sum(parts, axis=0)
    others = jnp.sum(parts * (1 - jnp.eye(weights.shape[1])), axis=0)
    degree = jnp.sqrt(others / units.positive(total))
    return inputs.unless_missing(degree, dictionary, weights)


def _pair(
    dictionary: Any, weights: Any
) -> tuple[Float[Array, "hidden latents"], Float[Array, "hidden features"]]:
    dictionary, weights = _columns("dictionary", dictionary), _columns("weights", weights)
    checks.same_size("dimensions", weights=weights.shape[0], dictionary=dictionary.shape[0])
    return dictionary, weights


def _columns(name: str, value: Any) -> Float[Array, "hidden columns"]:
    """Return a matrix of one column or more."""
    matrix = inputs.floats(name, value, rank=2)
    if not matrix.shape[1]:
        raise InputError(f"{name} has shape {matrix.shape}: give one direction or more, as columns")
    return matrix


def _checked(matching: Any, dictionary: Array, weights: Array) -> Int[Array, " features"]:
    matching = inputs.indices("matching", matching, latents=dictionary.shape[1])
    checks.same_size("features", matching=matching.size, weights=weights.shape[1])
    return matching


def _cosines(
    first: Float[Array, "hidden first"], second: Float[Array, "hidden second"]
) -> Float[Array, "first second"]:
    """Return the absolute cosines of all pairs of columns; 0 if a length is 0."""
    cosines = geometry.unit_columns(first).T @ geometry.unit_columns(second)
    return jnp.minimum(jnp.abs(cosines), 1.0)
