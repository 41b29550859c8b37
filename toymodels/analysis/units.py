r"""Arithmetic in convenient units, which neither overflows nor loses small coordinates.

References:
    Yamamoto, Nakatsukasa, Yanagisawa, Fukaya (2015), "Roundoff error analysis of the CholeskyQR2
    algorithm", for why whitening twice is more accurate than whitening once.
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
    """Return the power of two at or below each positive size; 1 for 0, infinity and NaN.

    Division by a power of two does not round. So a result that is computed in these units and
    multiplied back has the bits of the plain computation, unless that overflows or underflows. The
    units have no derivative, because they are arbitrary.
    """
    sizes = lax.stop_gradient(sizes)
    ordinary = (sizes > 0) & jnp.isfinite(sizes)
    _, exponent = jnp.frexp(jnp.where(ordinary, sizes, 1.0))
    return jnp.where(ordinary, jnp.ldexp(jnp.ones_like(sizes), exponent - 1), 1.0)


def scaled(
    array: Float[Array, "*any"], axis: int | None = None
) -> tuple[Float[Array, "*any"], Float[Array, "..."]]:
    """Return an array in units of the power of two below its largest entries, and these units.

    Args:
        array: an array of any shape.
        axis: the axis whose slices have a unit each; without it, the whole array has one.
    """
    unit = power_of_two(jnp.max(jnp.abs(array), axis=axis, initial=0.0))
    quotient = array / (unit if axis is None else jnp.expand_dims(unit, axis))
    # Finite arrays always give the quotient. The comparison keeps fast math from moving the units
    # out of sums of products again.
    return jnp.where(jnp.abs(quotient) <= 2, quotient, array), unit


def centred(rows: Float[Array, "examples hidden"]) -> Float[Array, "examples hidden"]:
    """Return rows minus their mean, exactly 0 in a coordinate in which no row differs."""
    moved = rows - rows[:1]  # exactly 0 in a coordinate in which no row differs
    return moved - jnp.mean(moved, axis=0)[None, :]


def whitening(centred: Float[Array, "examples hidden"]) -> Float[Array, "hidden hidden"]:
    r"""Return $K$ such that $K K^\top$ is a generalised inverse of the covariance of the examples.

    First, coordinates are divided by their spreads. Rounding hides variances below $\epsilon$ of
    the largest one, a spread of 3e-4 in float32. So the examples are whitened twice: the second
    time resolves directions that are still narrow after the first.

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
    # Keep all directions here, because rounding cannot yet be told from a small variance.
    first = axes / jnp.sqrt(jnp.maximum(variances, rounding * variances[-1:]))[None, :]
    first = jnp.where(variances[-1] == 0, 0.0, first)
    rows = rows @ first
    variances, axes = jnp.linalg.eigh(rows.T @ rows / examples)
    seen = variances > 10 * rounding * variances[-1]
    seen = seen | jnp.isnan(variances)
    second = jnp.where(seen[None, :], axes / jnp.sqrt(jnp.where(seen, variances, 1.0))[None, :], 0)
    return (first @ second) * jnp.where(spread == 0, 0.0, 1 / unit)[:, None]
