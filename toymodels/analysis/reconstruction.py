"""Measures of a reconstruction: how much it explains, and how long it is.

These are pure functions of the activations of ONE model and of their reconstruction, such as that
of an autoencoder; `vmap` over a sweep.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.analysis import geometry, inputs, units
from toymodels.errors import InputError

__all__ = ["explained_variance", "shrinkage"]


def explained_variance(
    activations: Float[Array, "examples hidden"],
    reconstruction: Float[Array, "examples hidden"],
    *,
    centred: bool,
) -> Float[Array, ""]:
    r"""Return the share of the activations' variance that a reconstruction explains.

    $$1 - \frac{\sum_x \lVert h - \hat h \rVert^2}{\sum_x \lVert h - c \rVert^2}$$

    This is 1 minus the fraction of variance unexplained (FVU), over all dimensions together.

    Args:
        activations: $h$.
        reconstruction: $\hat h$.
        centred: whether $c$ is the mean of $h$, as in $R^2$. Otherwise it is 0, which gives a
            higher number.

    Returns:
        A number of at most 1: 0 for a reconstruction by $c$, and less for worse ones. If the
        activations do not vary, it is 1 for a perfect reconstruction and minus infinity for any
        other; a sweep treats minus infinity as a cell that diverged.
    """
    activations, reconstruction = _pair(activations, reconstruction)
    unit = units.power_of_two(jnp.max(jnp.abs(activations), initial=0.0))
    residual = jnp.sum(((activations - reconstruction) / unit) ** 2)
    centre = jnp.mean(activations, axis=0) if centred else jnp.zeros_like(activations[0])
    total = jnp.sum(((activations - centre[None, :]) / unit) ** 2)
    return 1 - residual / jnp.where(residual == 0, 1.0, total)


def shrinkage(
    activations: Float[Array, "examples hidden"], reconstruction: Float[Array, "examples hidden"]
) -> Float[Array, ""]:
    r"""Return the mean of $\lVert \hat h \rVert / \lVert h \rVert$, how long reconstructions are.

    Returns:
        A number that is 1 without shrinkage, and smaller with an $L_1$ penalty. The mean is over
        the examples with $h \ne 0$; without any it is 0. It is NaN if a number is not finite.
    """
    activations, reconstruction = _pair(activations, reconstruction)
    lengths = geometry.feature_norms(activations.T)
    ratios = geometry.feature_norms(reconstruction.T) / jnp.where(lengths > 0, lengths, jnp.inf)
    mean = jnp.sum(ratios) / jnp.maximum(jnp.sum(lengths > 0), 1)
    return inputs.unless_missing(mean, activations, reconstruction)


def _pair(
    activations: Any, reconstruction: Any
) -> tuple[Float[Array, "examples hidden"], Float[Array, "examples hidden"]]:
    """Return both as floats, for equal examples: one row would count as that of all examples."""
    activations = inputs.floats("activations", activations, rank=2)
    reconstruction = inputs.floats("reconstruction", reconstruction, rank=2)
    for axis, what in enumerate(("examples", "dimensions")):
        sizes = {
            "activations": activations.shape[axis],
            "reconstruction": reconstruction.shape[axis],
        }
        checks.same_size(what, **sizes)
    if not len(activations):
        raise InputError(f"activations has shape {activations.shape}: give one example or more")
    return activations, reconstruction
