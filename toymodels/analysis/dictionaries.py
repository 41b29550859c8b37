r"""Scores of a dictionary against known directions: does it hold the features?

A dictionary $D$ is hidden x latents, the true weights $W$ hidden x features; columns are
directions. Cosines are absolute: principal and independent components have no sign. Latents $z$ are
examples x latents, and one *fires* where it is not 0. Pure functions of ONE dictionary; `vmap` over
a sweep.

**Which matching.** Three are in use, and they answer different questions: `mcc`, and by `match`
whatever takes a `matching`, pair features and latents one to one; `mean_max_cosine` and
`uniqueness` let each column choose its best, and several may choose the same.

All numbers are finite for finite input, except an `explained_variance` of what does not vary: where
a share is 0/0, the docstring says what it reads. Of what is not finite they are NaN.

References:
    Kuhn (1955), "The Hungarian method for the assignment problem".
    Sharkey, Braun, Millidge (2022), "Taking features out of superposition with sparse
    autoencoders", for the mean of the maximal cosines (MMCS).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from toymodels import checks
from toymodels.analysis import geometry, inputs, units

__all__ = [
    "Firing",
    "absorption_rate",
    "dead_fraction",
    "explained_variance",
    "firing",
    "hedging_degree",
    "l0",
    "match",
    "matched_cosines",
    "mcc",
    "mean_max_cosine",
    "shrinkage",
    "uniqueness",
]


class Firing(NamedTuple):
    """How well latents that fire tell which features are active, each in [0, 1]."""

    precision: Float[Array, " features"]
    recall: Float[Array, " features"]
    f1: Float[Array, " features"]


def match(
    dictionary: Float[Array, "hidden latents"], weights: Float[Array, "hidden features"]
) -> Int[Array, " features"]:
    r"""The latent of each feature: one to one, with the greatest sum of $|\cos|$.

    Returns:
        Numbers of latents, all different, but -1 for the features that are left over if there are
        fewer latents than features. A feature or latent of length 0 has cosine 0 with all, and is
        matched with whatever is left. All are -1 where traced numbers are not finite.

    Raises:
        ValueError: numbers that are not finite, for an index cannot say so.
    """
    dictionary, weights = _pair(dictionary, weights)
    inputs.refuse_missing("dictionary", dictionary)
    inputs.refuse_missing("weights", weights)
    return _match(dictionary, weights)


def _match(
    dictionary: Float[Array, "hidden latents"], weights: Float[Array, "hidden features"]
) -> Int[Array, " features"]:
    similarity = _cosines(weights, dictionary)
    # The search is not made for what is not finite.
    cost = -jnp.where(jnp.isfinite(similarity), similarity, 0.0)
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    columns = jnp.where(jnp.isfinite(similarity).all(), columns, -1)
    return jnp.full(weights.shape[1], -1).at[rows].set(columns)


def mcc(
    dictionary: Float[Array, "hidden latents"], weights: Float[Array, "hidden features"]
) -> Float[Array, ""]:
    r"""Mean $|\cos|$ under the best one-to-one matching ("mean correlation coefficient").

    $$\mathrm{MCC} = \frac1{\min(k, n)} \max_{\text{matchings}} \sum_{(i, l)}
      |\cos(W_i, D_l)|.$$

    The mean is over the $\min(k, n)$ matched pairs, as it is usual: of a dictionary with fewer
    latents than features it does not say what is missed. Times $\min(k, n)/n$ it counts a
    missed feature as 0.

    Returns:
        In $[0, 1]$: 1 for a dictionary that holds all features, in any order, length or sign, or
        holds nothing but features, each once.
    """
    dictionary, weights = _pair(dictionary, weights)
    cosines = matched_cosines(dictionary, weights, _match(dictionary, weights))
    return jnp.sum(cosines) / min(dictionary.shape[1], weights.shape[1])


def matched_cosines(
    dictionary: Float[Array, "hidden latents"],
    weights: Float[Array, "hidden features"],
    matching: Int[Array, " features"],
) -> Float[Array, " features"]:
    r"""$|\cos(W_i, D_l)|$ of each feature and its matched latent.

    Args:
        dictionary: $D$.
        weights: $W$.
        matching: the latent of each feature, from `match`.

    Returns:
        In $[0, 1]$; 0 for a feature without a latent. NaN if a weight or the dictionary is.
    """
    dictionary, weights = _pair(dictionary, weights)
    matching = inputs.indices("matching", matching)
    similarity = _cosines(weights, dictionary)
    matched = similarity[jnp.arange(weights.shape[1]), matching]
    return inputs.unless_missing(jnp.where(matching >= 0, matched, 0.0), dictionary, weights)


def mean_max_cosine(
    sought: Float[Array, "hidden sought"], among: Float[Array, "hidden among"]
) -> Float[Array, ""]:
    r"""Mean over the columns of the first of their best $|\cos|$ in the second (MMCS).

    With the true weights first it is a kind of recall: has every feature a latent? With the
    dictionary first it is a kind of precision: is every latent a feature?

    Returns:
        In $[0, 1]$, and at least `mcc` where the first has no more columns than the second. A
        column of length 0 counts as 0. NaN if a number is.
    """
    sought = inputs.floats("sought", sought, rank=2)
    among = inputs.floats("among", among, rank=2)
    best = jnp.mean(jnp.max(_cosines(sought, among), axis=1))
    return inputs.unless_missing(best, sought, among)


def uniqueness(
    dictionary: Float[Array, "hidden latents"], weights: Float[Array, "hidden features"]
) -> Float[Array, ""]:
    """How many different features are the nearest of some latent, per latent.

    Returns:
        In [0, 1]: 1 if no two latents have the same nearest feature, by |cos|. At most features /
        latents. A latent of length 0 has none; of two as near the first one counts. NaN if a
        number is.
    """
    dictionary, weights = _pair(dictionary, weights)
    similarity = _cosines(weights, dictionary).T
    found = jnp.zeros(weights.shape[1]).at[jnp.argmax(similarity, axis=1)]
    count = jnp.sum(found.max(jnp.sign(jnp.max(similarity, axis=1))))
    return inputs.unless_missing(count / dictionary.shape[1], dictionary, weights)


def firing(
    latents: Float[Array, "examples latents"],
    active: Bool[Array, "examples features"],
    matching: Int[Array, " features"],
) -> Firing:
    r"""How well each feature's matched latent, where it fires, tells that the feature is active.

    Precision is the share of the examples where the latent fires in which the feature is active,
    recall the share of those where the feature is active in which the latent fires, and
    $F_1 = 2 TP / (2 TP + FP + FN)$ their harmonic mean.

    Args:
        latents: of `examples`.
        active: which features are in each example, $x_i \ne 0$.
        matching: the latent of each feature, from `match`; some code lets two latents share a
            feature here instead, which gives other numbers.

    Returns:
        All 0 for a feature without a latent or whose latent never fires. For a feature that no
        example has recall and $F_1$ are 0 as well, though nothing was asked: leave it out. NaN
        for all features if a latent is not finite.
    """
    latents = inputs.floats("latents", latents, rank=2)
    active = inputs.labels("active", active, rank=2)
    matching = inputs.indices("matching", matching)
    checks.same_size("examples", latents=latents.shape[0], active=active.shape[0])
    fires = (jnp.take(latents, matching, axis=1) != 0) & (matching >= 0)[None, :]
    hits = jnp.sum(fires & active, axis=0)
    fired, present = jnp.sum(fires, axis=0), jnp.sum(active, axis=0)
    shares = (
        hits / jnp.maximum(fired, 1),
        hits / jnp.maximum(present, 1),
        2 * hits / jnp.maximum(fired + present, 1),
    )
    return Firing(*(inputs.unless_missing(share, latents) for share in shares))


def l0(latents: Float[Array, "examples latents"]) -> Float[Array, ""]:
    """How many latents fire in an example, on average; NaN if one is not finite."""
    latents = inputs.floats("latents", latents, rank=2)
    return inputs.unless_missing(jnp.mean(jnp.sum(latents != 0, axis=1)), latents)


def dead_fraction(latents: Float[Array, "examples latents"]) -> Float[Array, ""]:
    """Share of the latents that fire in no example. It falls with the number of examples.

    Returns:
        In [0, 1]; NaN if a latent is not finite.
    """
    latents = inputs.floats("latents", latents, rank=2)
    return inputs.unless_missing(jnp.mean(jnp.all(latents == 0, axis=0)), latents)


def explained_variance(
    activations: Float[Array, "examples hidden"],
    reconstruction: Float[Array, "examples hidden"],
    *,
    centred: bool,
) -> Float[Array, ""]:
    r"""Share of the activations that a reconstruction explains, all dimensions together.

    $$1 - \frac{\sum_x \lVert h - \hat h \rVert^2}{\sum_x \lVert h - c \rVert^2},$$

    1 minus the fraction of variance unexplained (FVU).

    Args:
        activations: $h$.
        reconstruction: $\hat h$.
        centred: whether $c$ is the mean of $h$, as in $R^2$, or 0, which gives a higher number.

    Returns:
        At most 1; 0 for a reconstruction by $c$, less for worse ones. 1 for a perfect
        reconstruction of activations that do not vary, minus infinity for any other: a sweep
        takes that for a cell that diverged.
    """
    activations = inputs.floats("activations", activations, rank=2)
    reconstruction = inputs.floats("reconstruction", reconstruction, rank=2)
    sizes = {"activations": activations.shape[1], "reconstruction": reconstruction.shape[1]}
    checks.same_size("dimensions", **sizes)
    unit = units.power_of_two(jnp.max(jnp.abs(activations), initial=0.0))
    residual = jnp.sum(((activations - reconstruction) / unit) ** 2)
    centre = jnp.mean(activations, axis=0) if centred else jnp.zeros_like(activations[0])
    total = jnp.sum(((activations - centre[None, :]) / unit) ** 2)
    return 1 - residual / jnp.where(residual == 0, 1.0, total)


def shrinkage(
    activations: Float[Array, "examples hidden"], reconstruction: Float[Array, "examples hidden"]
) -> Float[Array, ""]:
    r"""How long reconstructions are: mean of $\lVert \hat h \rVert / \lVert h \rVert$.

    Returns:
        1 if nothing shrinks; an $L_1$ penalty makes it less. The mean is over the examples with
        $h \ne 0$; 0 if there is none. NaN if a number is not finite.
    """
    activations = inputs.floats("activations", activations, rank=2)
    reconstruction = inputs.floats("reconstruction", reconstruction, rank=2)
    sizes = {"activations": activations.shape[1], "reconstruction": reconstruction.shape[1]}
    checks.same_size("dimensions", **sizes)
    lengths = geometry.feature_norms(activations.T)
    ratios = geometry.feature_norms(reconstruction.T) / jnp.where(lengths > 0, lengths, jnp.inf)
    mean = jnp.sum(ratios) / jnp.maximum(jnp.sum(lengths > 0), 1)
    return inputs.unless_missing(mean, activations, reconstruction)


def absorption_rate(
    latents: Float[Array, "examples latents"],
    dictionary: Float[Array, "hidden latents"],
    features: Float[Array, "examples features"],
    weights: Float[Array, "hidden features"],
    matching: Int[Array, " features"],
    *,
    min_share: float,
) -> Float[Array, " features"]:
    r"""How often a feature is active, its own latent silent, and other latents stand in for it.

    The latents that fire add up to $D z = W c + \ldots$ with $c = W^+ D z$, so that
    $c_i = \sum_l (W^+ D)_{il} z_l$ is what they supply of feature $i$. An example of feature $i$
    is absorbed if its matched latent is silent and still $c_i \ge \text{min\_share} \cdot x_i$: the
    latent of a child, say, contains the parent. Where both are missing the feature is just missed.

    The coefficients are of columns of length 1 and divided by the lengths, so that the units of the
    features do not matter: $W^+$ for independent columns.

    With the direction of the parent, and the sum of both directions in place of the child, every
    example with the child is absorbed: the rate is P(child | parent).

    Args:
        latents: $z$, of `examples`.
        dictionary: $D$, with the lengths that decode the latents.
        features: $x$, not negative; 0 where a feature is not active.
        weights: $W$. The coefficients are exact for independent columns; in superposition they are
            those that make up the directions with the least sum of squares.
        matching: the latent of each feature, from `match`.
        min_share: the share of $x_i$ that others have to supply, in $(0, 1]$.

    Returns:
        Share of the examples with $x_i \ne 0$, in $[0, 1]$; 0 if there are none. NaN if a number is
        not finite.

    References:
        Chanin et al. (2024), "A is for Absorption", whose measure has a probe in place of $x_i$,
        and the ablation of latents in place of $c_i$.
    """
    latents = inputs.floats("latents", latents, rank=2)
    features = inputs.floats("features", features, rank=2)
    dictionary, weights = _pair(dictionary, weights)
    matching = inputs.indices("matching", matching)
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
    r"""How much of other features is in the latent of each feature.

    A direction is $\sum_j c_j \hat W_j$ plus what no feature has, $c = \hat W^+ D_l$, and the
    degree of the latent $l$ matched with feature $i$ is

    $$\sqrt{\sum_{j \ne i} c_j^2 \Big/ \sum_j c_j^2}.$$

    For orthogonal features it is the sine of an angle: see
    `theory.dictionaries.hedging_angle`.

    Args:
        dictionary: $D$: the decoder, or the transposed encoder, where hedging between features
            that exclude one another shows with the other sign.
        weights: $W$. The coefficients are exact for independent columns; in superposition they are
            those of least length, and not 0 for the features themselves.
        matching: the latent of each feature, from `match`.

    Returns:
        In $[0, 1]$: 0 for the feature itself, and without a latent or any part of a feature. NaN if
        a number is not finite.

    References:
        Chanin et al. (2025), "Feature Hedging: Correlated Features Break Narrow Sparse
        Autoencoders", whose degree is of dictionaries without known features.
    """
    dictionary, weights = _pair(dictionary, weights)
    matching = inputs.indices("matching", matching)
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
    dictionary = inputs.floats("dictionary", dictionary, rank=2)
    weights = inputs.floats("weights", weights, rank=2)
    checks.same_size("dimensions", weights=weights.shape[0], dictionary=dictionary.shape[0])
    return dictionary, weights


def _cosines(
    first: Float[Array, "hidden first"], second: Float[Array, "hidden second"]
) -> Float[Array, "first second"]:
    """Absolute cosines of all pairs of columns, 0 where a length is 0."""
    checks.same_size("dimensions", weights=first.shape[0], dictionary=second.shape[0])
    cosines = geometry.unit_columns(first).T @ geometry.unit_columns(second)
    return jnp.minimum(jnp.abs(cosines), 1.0)
