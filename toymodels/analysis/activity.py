"""Measures of the activity of latents: how many fire, how many never do, and for which features.

Latents are examples x latents, and a latent *fires* if it is not 0. These are pure functions of the
latents of ONE dictionary; `vmap` over a sweep. Inputs that are not finite give NaN.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from toymodels import checks
from toymodels.analysis import inputs
from toymodels.errors import InputError

__all__ = ["Firing", "dead_fraction", "firing", "l0"]


class Firing(NamedTuple):
    """The quality of a prediction of active features by the firing of latents, from 0 to 1.

    Attributes:
        precision: the share of the examples in which the latent fires that have the feature.
        recall: the share of the examples with the feature in which the latent fires.
        f1: the harmonic mean of both.
    """

    precision: Float[Array, " features"]
    recall: Float[Array, " features"]
    f1: Float[Array, " features"]


def firing(
    latents: Float[Array, "examples latents"],
    active: Bool[Array, "examples features"],
    matching: Int[Array, " features"],
) -> Firing:
    r"""Return how well the firing of each feature's matched latent predicts the feature.

    With $TP$ the number of examples with the feature in which the latent fires, $FP$ of those
    without the feature in which it fires, and $FN$ of those with the feature in which it does not,
    precision is $TP / (TP + FP)$, recall is $TP / (TP + FN)$ and $F_1 = 2 TP / (2 TP + FP + FN)$.

    Args:
        latents: the latents of each example.
        active: which features are active in each example, $x_i \ne 0$.
        matching: the latent of each feature, from `dictionaries.match`, which gives each feature a
            latent of its own. Some authors let features share one, which gives other numbers.

    Returns:
        Three scores for each feature. All are 0 for a feature without a latent, or whose latent
        never fires. Leave out a feature that is active in no example: its recall and $F_1$ are 0
        but mean nothing. All scores are NaN if a latent is not finite.
    """
    latents = _examples(latents)
    active = inputs.labels("active", active, rank=2)
    matching = inputs.indices("matching", matching, latents=latents.shape[1])
    checks.same_size("examples", latents=latents.shape[0], active=active.shape[0])
    checks.same_size("features", matching=matching.size, active=active.shape[1])
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
    """Return the mean number of latents that fire in an example; NaN if a latent is not finite."""
    latents = _examples(latents)
    return inputs.unless_missing(jnp.mean(jnp.sum(latents != 0, axis=1)), latents)


def dead_fraction(latents: Float[Array, "examples latents"]) -> Float[Array, ""]:
    """Return the share of latents that fire in no example; it falls with the number of examples.

    Returns:
        A number in [0, 1]; NaN if a latent is not finite.
    """
    latents = _examples(latents)
    return inputs.unless_missing(jnp.mean(jnp.all(latents == 0, axis=0)), latents)


def _examples(latents: Any) -> Float[Array, "examples latents"]:
    """Return the latents of one example or more; without any, every latent would be dead."""
    latents = inputs.floats("latents", latents, rank=2)
    if not latents.size:
        raise InputError(
            f"latents has shape {latents.shape}: give one example and one latent or more"
        )
    return latents
