r"""Tests of features of several dimensions for independent parts and for mixtures.

A feature $f$ with values in $\mathbb R^2$, say, is reducible if it is a pair of independent
features (`separability_index` near 0) or a mixture of features that do not occur together
(`mixture_index` near 1). A circle is neither. These are pure functions of the values of ONE
feature, one example a row; `vmap` over a sweep.

References:
    Engels, Michaud, Liao, Gurnee and Tegmark (2025), "Not All Language Model Features Are
    One-Dimensionally Linear".
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from toymodels import checks
from toymodels.analysis import inputs, units
from toymodels.errors import InputError

__all__ = ["mixture_index", "separability_index"]


def separability_index(
    values: Float[Array, "examples 2"], angles: Float[Array, " angles"], *, num_bins: int
) -> Float[Array, ""]:
    r"""Return the smallest mutual information of the two coordinates, over rotations of the plane.

    $$S = \min_\theta I(a_\theta; b_\theta), \qquad
      (a_\theta, b_\theta) = R_\theta f,$$

    in bits, from a histogram with `num_bins` equal bins between the extremes of each coordinate. It
    depends on the number of bins, so report that number: for a circle it is 1.50, 2.21 and 3.03
    bits with 10, 20 and 40 bins, and grows without bound.

    Args:
        values: $f$.
        angles: $\theta$ in radians. A quarter turn only swaps the coordinates.
        num_bins: the number of bins per coordinate.

    Returns:
        A number in $[0, \log_2 \text{bins}]$ up to rounding. It is 0 if some rotation makes the
        coordinates independent, as all rotations do for an isotropic Gaussian, up to the bias of
        the histogram of about $(\text{bins} - 1)^2 / (2 \ln 2 \cdot \text{examples})$ bits. It is
        NaN if a value is not finite.
    """
    values = inputs.floats("values", values, rank=2)
    angles = inputs.floats("angles", angles, rank=1)
    if values.shape[1] != 2:
        raise InputError(f"values have {values.shape[1]} dimensions: give 2, a feature in a plane")
    checks.count("num_bins", num_bins)

    def information(angle: Float[Array, ""]) -> Float[Array, ""]:
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        first = _bins(cosine * values[:, 0] - sine * values[:, 1], num_bins)
        second = _bins(sine * values[:, 0] + cosine * values[:, 1], num_bins)
        counts = jnp.zeros((num_bins, num_bins), values.dtype).at[first, second].add(1.0)
        return _mutual_information(counts / values.shape[0])

    # Counts would hide a value that is not finite.
    return inputs.unless_missing(jnp.min(jax.vmap(information)(angles)), values, angles)


def mixture_index(
    values: Float[Array, "examples hidden"],
    directions: Float[Array, "directions hidden"],
    offsets: Float[Array, " offsets"],
    *,
    epsilon: Float[Array, ""] | float = 0.1,
) -> Float[Array, ""]:
    r"""Return the largest probability that a projection of the feature is nearly zero ("off").

    $$M_\epsilon = \max_{v, c} P\Bigl(|v \cdot f + c| < \epsilon
      \sqrt{\mathbb E (v \cdot f + c)^2}\Bigr),$$

    over the given $v$ and $c$ only, so the maximum over all $v$ and $c$ may be larger. A mixture
    with a component on a hyperplane, of probability $q$, has $M_\epsilon \ge q$. With
    $\epsilon = 0.1$ a Gaussian has 0.0797 ($c = 0$). A circle of radius 1 has 0.2187
    ($c = \pm 0.8866$, near the edge, where projections are dense) and 0.0451 with $c = 0$.

    Args:
        values: $f$.
        directions: $v$, one per row, of any length but 0.
        offsets: $c$, in units of $v \cdot f$.
        epsilon: $\epsilon$ in $(0, 1]$, the width around 0 that counts as off.

    Returns:
        A number in $[0, 1]$; NaN if a value is not finite.
    """
    values = inputs.floats("values", values, rank=2)
    directions = inputs.floats("directions", directions, rank=2)
    offsets = inputs.floats("offsets", offsets, rank=1)
    checks.interval(
        "epsilon",
        epsilon,
        low=0.0,
        high=1.0,
        open_low=True,
        remedy="it is a share of the root mean square",
    )

    def share_off(direction: Float[Array, " hidden"]) -> Float[Array, " offsets"]:
        projections = jnp.sort(values @ direction)
        mean_square = jnp.var(projections) + (jnp.mean(projections) + offsets) ** 2
        width = epsilon * jnp.sqrt(mean_square)
        below = jnp.searchsorted(projections, width - offsets, side="left")
        return (below - jnp.searchsorted(projections, -width - offsets, side="right")) / len(values)

    # Counts would hide a value that is not finite.
    index = jnp.max(jax.vmap(share_off)(directions))
    return inputs.unless_missing(index, values, directions, offsets)


def _bins(coordinate: Float[Array, " examples"], num_bins: int) -> Int[Array, " examples"]:
    """Return the number of the bin of each example, among equal bins between the extremes."""
    low = jnp.min(coordinate)
    width = (jnp.max(coordinate) - low) / num_bins
    index = jnp.floor((coordinate - low) / units.positive(width))
    return jnp.clip(index, 0, num_bins - 1).astype(int)  # the largest one is in the last bin


def _mutual_information(joint: Float[Array, "bins bins"]) -> Float[Array, ""]:
    """Return the mutual information of rows and columns, in bits, of joint probabilities."""
    independent = jnp.outer(jnp.sum(joint, axis=1), jnp.sum(joint, axis=0))
    occurs = joint > 0
    ratio = jnp.where(occurs, joint / jnp.where(occurs, independent, 1.0), 1.0)
    return jnp.sum(joint * jnp.log2(ratio))
