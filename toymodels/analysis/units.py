r"""Units that do not matter: arithmetic that neither overflows nor forgets small coordinates.

References:
    Yamamoto, Nakatsukasa, Yanagisawa, Fukaya (2015), "Roundoff error analysis of the CholeskyQR2
    algorithm": why whitening twice reaches what whitening once cannot.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def positive(divisors: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Return the divisors with 1 in place of those that are not positive.

    A quotient by them is finite where the plain one would be 0/0. The replacement stands inside
    the quotient and not around it: reverse mode differentiates both branches of a `where`, so the
    gradient of a plain quotient would be NaN even where another branch is taken.
    """
    return jnp.where(divisors > 0, divisors, 1.0)


def power_of_two(sizes: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """The power of two at or below each positive size; 1 for 0 and for what is not finite.

    Dividing by a power of two rounds nothing, so what is computed in these units and multiplied
    back has the same bits wherever the plain computation neither overflows nor underflows. It has
    no derivative: the units are arbitrary.
    """
    sizes = lax.stop_gradient(sizes)
    ordinary = (sizes > 0) & jnp.isfinite(sizes)
    _, exponent = jnp.frexp(jnp.where(ordinary, sizes, 1.0))
    return jnp.where(ordinary, jnp.ldexp(jnp.ones_like(sizes), exponent - 1), 1.0)


def scaled(
    array: Float[Array, "*any"], axis: int | None = None
) -> tuple[Float[Array, "*any"], Float[Array, "..."]]:
    """An array in units of the power of two below its greatest entries, and these units.

    Args:
        array: of any shape.
        axis: along which the greatest entry is sought, if not among all.
    """
    unit = power_of_two(jnp.max(jnp.abs(array), axis=axis, initial=0.0))
    quotient = array / (unit if axis is None else jnp.expand_dims(unit, axis))
    # Always the quotient where all is finite. Without the question fast math may take the units out
    # of sums of products again.
    return jnp.where(jnp.abs(quotient) <= 2, quotient, array), unit


def centred(rows: Float[Array, "examples hidden"]) -> Float[Array, "examples hidden"]:
    """Rows about their mean: exactly 0 in a coordinate in which no row differs."""
    moved = rows - rows[:1]
    return moved - jnp.mean(moved, axis=0)[None, :]


def whitening(centred: Float[Array, "examples hidden"]) -> Float[Array, "hidden hidden"]:
    r"""A matrix $K$ with $K K^\top$ a generalised inverse of the covariance of centred examples.

    Coordinates are first divided by their spreads. Eigenvalues of what is left are variances, of
    which rounding leaves nothing below $\epsilon$ of the largest, or a spread of 3e-4 in float32:
    so the examples are whitened, and what is then still small is whitened once more.

    Returns:
        Columns of 0 for directions in which no example differs, up to rounding: spreads below some
        $10 m \epsilon$ of the largest, after each coordinate has got a spread of 1.
    """
    examples, hidden = centred.shape
    rounding = hidden * jnp.finfo(centred.dtype).eps
    own, largest = scaled(centred, axis=0)
    spread = largest * jnp.sqrt(jnp.mean(own**2, axis=0))
    unit = positive(spread)  # NaN gives 1, and the rows are NaN
    rows = centred / unit[None, :]
    variances, axes = jnp.linalg.eigh(rows.T @ rows / examples)
    # Nothing is left out here: no variance says whether it is rounding.
    first = axes / jnp.sqrt(jnp.maximum(variances, rounding * variances[-1:]))[None, :]
    first = jnp.where(variances[-1] == 0, 0.0, first)
    rows = rows @ first
    variances, axes = jnp.linalg.eigh(rows.T @ rows / examples)
    seen = variances > 10 * rounding * variances[-1]
    seen = seen | jnp.isnan(variances)
    second = jnp.where(seen[None, :], axes / jnp.sqrt(jnp.where(seen, variances, 1.0))[None, :], 0)
    return (first @ second) * jnp.where(spread == 0, 0.0, 1 / unit)[:, None]
