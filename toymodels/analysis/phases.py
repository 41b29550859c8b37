"""Phases of trained models, read from ONE weight matrix."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from toymodels.analysis import geometry, inputs
from toymodels.theory.phases import Phase

__all__ = ["Phase", "phase"]


def phase(weights: Float[Array, "hidden features"]) -> Float[Array, ""]:
    r"""Return the phase of the extra feature, the LAST column of `weights`.

    The phase is `NOT_REPRESENTED` if the norm of the extra feature is below 1/2. Else it is
    `SUPERPOSITION` if the other features reach into its direction with
    $\sum_{j \ne i} (\hat W_i \cdot W_j)^2 \ge 1/4$. Else it is `DEDICATED_BESIDE_PAIR` if two of
    the other features reach as far into the direction of one another, and `DEDICATED` if not. In
    the solutions of `toymodels.theory.phases` norms and sums are 0 or 1.

    In $W = [w_1, w_2]$ the sum is $w_1^2$, so the norm of 1/2 decides for both features. So the
    phases at the relative importances $r$ and $1/r$ mirror each other.

    Args:
        weights: hidden x features: 1 x 2 or 2 x 3 for the phase diagrams of the paper. Signs do not
            matter: $[1, 1]$ counts as superposition like $[1, -1]$.

    Returns:
        A value of `toymodels.theory.phases.Phase` as a float; `Phase(int(...))` is its name. It is
        NaN if a weight is not finite.
    """
    weights = inputs.floats("weights", weights, rank=2)
    norm = geometry.feature_norms(weights)[-1]
    shared = geometry.superposition(weights)[-1] >= 1 / 4
    others_share = jnp.any(geometry.superposition(weights[:, :-1]) >= 1 / 4)
    dedicated = jnp.where(others_share, int(Phase.DEDICATED_BESIDE_PAIR), int(Phase.DEDICATED))
    represented = jnp.where(shared, int(Phase.SUPERPOSITION), dedicated)
    found = jnp.where(norm < 1 / 2, int(Phase.NOT_REPRESENTED), represented)
    return inputs.unless_missing(found, weights)
