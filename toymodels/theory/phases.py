r"""Superposition as a phase change: one feature more than hidden dimensions, in closed form.

The ReLU-output model $y = \mathrm{ReLU}(W^\top W x + b)$ with $n = m + 1$ reconstructs
independent features of density $p$, uniform on $(0, 1]$ where they are not zero. The last one is
the *extra* feature, of relative importance $r$; the others have importance 1. Simple solutions
compete: one feature is ignored, or two share a dimension. An ignored feature has its best bias,
the mean; a pair has none, though a small positive one would be better.

For $m \ge 2$ the same four compete, whatever $m$. Three features at 120 degrees in two
dimensions are left out, as in the paper, though near $r = 1$ and $p$ from 0.55 to 0.8 they do
better: `toymodels.theory.optimum` finds them all.

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
from toymodels.errors import InputError
from toymodels.theory.features import feature_variance


class Phase(enum.IntEnum):
    """What becomes of the extra feature; $W$ and $b$ as they are for one and two dimensions."""

    NOT_REPRESENTED = 0
    """Ignored: $W = [1, 0]$, $b = (0, p/2)$."""
    DEDICATED = 1
    """It has a hidden dimension, and another is ignored: $W = [0, 1]$, $b = (p/2, 0)$."""
    SUPERPOSITION = 2
    """It shares a dimension with another as an antipodal pair: $W = [1, -1]$, $b = 0$."""
    DEDICATED_BESIDE_PAIR = 3
    """It has a hidden dimension, and two others are a pair: $W = [[1, -1, 0], [0, 0, 1]]$, $b = 0$.
    Needs two hidden dimensions."""


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
    density: Float[Array, ""] | float,
    relative_importance: Float[Array, ""] | float,
    *,
    hidden: int = 1,
) -> Float[Array, " phases"]:
    r"""Expected loss of each simple solution, summed over the outputs.

    $$L_\text{not represented} = r \left(\tfrac p3 - \tfrac{p^2}4\right), \quad
      L_\text{dedicated} = \tfrac p3 - \tfrac{p^2}4, \quad
      L_\text{superposition} = (1 + r) \tfrac{p^2}6, \quad
      L_\text{beside pair} = \tfrac{p^2}3.$$

    An ignored feature costs its variance, for its bias is its mean. An antipodal pair is
    exact unless both are active, and then each output misses by the smaller of the two.

    Args:
        density: $p$, in $(0, 1]$.
        relative_importance: $r \ge 0$.
        hidden: $m$, at least 1; there are $m + 1$ features.

    Returns:
        Losses of at least 0, ordered as `Phase`: three for one hidden dimension, else four.
    """
    _check(density, relative_importance, hidden)
    variance = feature_variance(density)
    candidates = [
        relative_importance * variance,
        variance,
        (1 + relative_importance) * density**2 / 6,
        density**2 / 3,
    ]
    return jnp.stack([jnp.asarray(loss) for loss in candidates[: 3 if hidden == 1 else 4]])


def phase(
    density: Float[Array, ""] | float,
    relative_importance: Float[Array, ""] | float,
    *,
    hidden: int = 1,
) -> Int[Array, ""]:
    r"""The simple solution of the lowest expected loss.

    Args:
        density: $p$, in $(0, 1]$.
        relative_importance: $r \ge 0$.
        hidden: $m$, at least 1; there are $m + 1$ features.

    Returns:
        A value of `Phase`; among equals the first, so `NOT_REPRESENTED` for $r = 1$ above the
        triple point $p = 4/7$.
    """
    return jnp.argmin(losses(density, relative_importance, hidden=hidden))


def boundary(relative_importance: Float[Array, ""] | float, *, hidden: int = 1) -> Float[Array, ""]:
    r"""Density above which two features in one dimension cost more than ignoring the lesser one.

    $$p^* = \frac{4 \min(r, 1)}{2 (1 + r) + 3 \min(r, 1)} =
      \begin{cases} 4r / (2 + 5r) & r \le 1 \\ 4 / (5 + 2r) & r \ge 1. \end{cases}$$

    With $m \ge 2$ and $r \ge 1$ two others are the pair, whose importance is 1, so $p^* = 4/7$.
    The losses cross there with different slopes: a first-order transition. For
    $p > p^*$ the phase is `NOT_REPRESENTED` if $r < 1$ and `DEDICATED` if $r > 1$.

    Args:
        relative_importance: $r \ge 0$.
        hidden: $m$, at least 1; there are $m + 1$ features.

    Returns:
        In $[0, 4/7]$: 0 at $r = 0$, greatest at the triple point $r = 1$; the same for $r$
        and $1/r$ if $m = 1$.
    """
    _check_rest(relative_importance, hidden)
    lesser = jnp.minimum(relative_importance, 1.0)
    partner = relative_importance if hidden == 1 else lesser
    return 4 * lesser / (2 * (1 + partner) + 3 * lesser)


def _check(density: Array | float, relative_importance: Array | float, hidden: int) -> None:
    _check_single("density", density)
    checks.density(density)
    _check_rest(relative_importance, hidden)


def _check_rest(relative_importance: Array | float, hidden: int) -> None:
    checks.count("hidden", hidden)
    _check_single("relative importance", relative_importance)
    checks.interval(
        "relative importance",
        relative_importance,
        low=0.0,
        remedy="it is the importance of the extra feature over that of the others",
    )


def _check_single(name: str, value: Array | float) -> None:
    if jnp.ndim(value):
        raise InputError(f"{name} has shape {jnp.shape(value)}: give one number; vmap over a grid")
