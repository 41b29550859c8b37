"""Phases of trained models, read from ONE weight matrix."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from toymodels.analysis import geometry
from toymodels.theory.phases import Phase


def phase(weights: Float[Array, "hidden features"]) -> Int[Array, ""]:
    r"""What became of the extra feature, the LAST column of `weights`.

    `NOT_REPRESENTED` if its norm is below 1/2; else `SUPERPOSITION` if the other features
    reach into its direction with $\sum_{j \ne i} (\hat W_i \cdot W_j)^2 \ge 1/2$; else
    `DEDICATED`. In the solutions of `toymodels.theory.phases` both numbers are 0 or 1, and
    1/2 lies half way.

    They are not each other's mirror image: in $W = [w_1, w_2]$ superposition is $w_1^2$, so
    the first feature counts from $|w_1| = 0.71$ on, the extra one from $|w_2| = 0.5$. It
    matters little: for $r$ from 0.1 to 10, read from the free optimum, the label changes
    within 0.01 in density of `FREE_OPTIMUM_BOUNDARY`.

    Args:
        weights: hidden x features: 1 x 2 for the phase diagram of two features. Signs are
            not read: $[1, 1]$ counts as superposition like $[1, -1]$.

    Returns:
        A value of `toymodels.theory.phases.Phase`.
    """
    norm = geometry.feature_norms(weights)[-1]
    shared = geometry.superposition(weights)[-1] >= 1 / 2
    represented = jnp.where(shared, int(Phase.SUPERPOSITION), int(Phase.DEDICATED))
    return jnp.where(norm < 1 / 2, int(Phase.NOT_REPRESENTED), represented)
