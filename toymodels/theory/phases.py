r"""Superposition as a phase change: two features, one hidden dimension, in closed form.

The ReLU-output model $y = \mathrm{ReLU}(W^\top W x + b)$ with $n = 2$, $m = 1$ reconstructs
independent features of density $p$, uniform on $(0, 1]$ where they are not zero. The first
feature has importance 1, the second, the *extra* one, relative importance $r$. Three simple
solutions compete. An ignored feature has its best bias, the mean; a pair has none, though a
small positive one would be better.

References:
    Elhage et al. (2022), "Toy Models of Superposition", section "Superposition as a Phase
    Change", and its notebook "Exploring Exact Toy Models" (wattenberg/superposition), which
    names $p$ "sparsity".
"""

import enum
from collections.abc import Mapping
from typing import Final

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from toymodels import checks


class Phase(enum.IntEnum):
    """What becomes of the extra feature."""

    NOT_REPRESENTED = 0
    """Ignored: $W = [1, 0]$, $b = (0, p/2)$."""
    DEDICATED = 1
    """It has the hidden dimension, and the first is ignored: $W = [0, 1]$, $b = (p/2, 0)$."""
    SUPERPOSITION = 2
    """Both share it as an antipodal pair: $W = [1, -1]$, $b = 0$."""


FREE_OPTIMUM_BOUNDARY: Final[Mapping[float, float]] = {
    0.1: 0.181,
    0.15: 0.244,
    0.2: 0.296,
    0.3: 0.376,
    0.4: 0.436,
    0.5: 0.485,
    0.6: 0.526,
    0.7: 0.562,
    0.8: 0.597,
    0.9: 0.637,
    1.0: 0.706,
}
r"""Where superposition gives way if $W$ and $b$ are free: $r$ to density, within 0.001.

Training may choose any $W$ and $b$, so it should meet these densities, not the lower ones of
`boundary`. Exchanging the features maps $r$ to $1/r$.

The exact expected loss (Gauss-Legendre on the pieces where it is a polynomial, float64) was
minimised by BFGS from 15 to 35 starts, and the density bisected at which the lowest minimum
leaves the antipodal branch. It does so by a jump at each of these $r$, a sharp boundary:
$\min_i \lVert W_i \rVert$ falls from between 0.64 and 0.76 to 0 for $r \le 0.5$, and to a
weak antipodal remainder, 0.15 at $r = 0.6$ and 0.52 at $r = 1$, which then shrinks.
"""


def losses(
    density: Float[Array, ""] | float, relative_importance: Float[Array, ""] | float
) -> Float[Array, "phases"]:
    r"""Expected loss of each simple solution, summed over the two outputs.

    $$L_\text{not represented} = r \left(\tfrac p3 - \tfrac{p^2}4\right), \quad
      L_\text{dedicated} = \tfrac p3 - \tfrac{p^2}4, \quad
      L_\text{superposition} = (1 + r) \tfrac{p^2}6.$$

    An ignored feature costs its variance, for its bias is its mean. An antipodal pair is
    exact unless both are active, and then each output misses by the smaller of the two.

    Args:
        density: $p$, in $(0, 1]$.
        relative_importance: $r \ge 0$.

    Returns:
        Three losses of at least 0, ordered as `Phase`.
    """
    _check(density, relative_importance)
    variance = density / 3 - density**2 / 4
    return jnp.stack(
        [
            jnp.asarray(relative_importance * variance),
            jnp.asarray(variance),
            jnp.asarray((1 + relative_importance) * density**2 / 6),
        ]
    )


def phase(
    density: Float[Array, ""] | float, relative_importance: Float[Array, ""] | float
) -> Int[Array, ""]:
    r"""The simple solution of the lowest expected loss.

    Args:
        density: $p$, in $(0, 1]$.
        relative_importance: $r \ge 0$.

    Returns:
        A value of `Phase`; among equals the first, so `NOT_REPRESENTED` for $r = 1$ above the
        triple point $p = 4/7$.
    """
    return jnp.argmin(losses(density, relative_importance))


def boundary(relative_importance: Float[Array, ""] | float) -> Float[Array, ""]:
    r"""Density above which superposition costs more than ignoring the lesser feature.

    $$p^* = \frac{4 \min(r, 1)}{2 (1 + r) + 3 \min(r, 1)} =
      \begin{cases} 4r / (2 + 5r) & r \le 1 \\ 4 / (5 + 2r) & r \ge 1. \end{cases}$$

    The losses cross there with different slopes: a first-order transition. For
    $p > p^*$ the phase is `NOT_REPRESENTED` if $r < 1$ and `DEDICATED` if $r > 1$.

    Args:
        relative_importance: $r \ge 0$.

    Returns:
        In $[0, 4/7]$: 0 at $r = 0$, greatest at the triple point $r = 1$, the same for $r$
        and $1/r$.
    """
    _check_importance(relative_importance)
    lesser = jnp.minimum(relative_importance, 1.0)
    return 4 * lesser / (2 * (1 + relative_importance) + 3 * lesser)


def _check(density: Array | float, relative_importance: Array | float) -> None:
    checks.interval(
        "density",
        density,
        low=0.0,
        high=1.0,
        open_low=True,
        remedy="it is the probability 1 - S that a feature is not zero",
    )
    _check_importance(relative_importance)


def _check_importance(relative_importance: Array | float) -> None:
    checks.interval(
        "relative importance",
        relative_importance,
        low=0.0,
        remedy="it is the importance of the extra feature over that of the first",
    )
