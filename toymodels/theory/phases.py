r"""Superposition as a phase change in closed form, for one feature more than hidden dimensions.

The ReLU-output model $y = \mathrm{ReLU}(W^\top W x + b)$ with $n = m + 1$ reconstructs
independent features of density $p$, uniform on $(0, 1]$ where they are not zero. The last one is
the *extra* feature, of relative importance $r$; the others have importance 1. Simple solutions
compete: one feature is ignored, or two share a dimension. The bias of an ignored feature is its
mean, which is optimal. The bias of a pair is zero, although a small positive one would be better.

For every $m \ge 2$ four solutions compete. Three features at 120 degrees in two dimensions are left
out, as in the paper, although their loss is lower near $r = 1$ for $p$ from 0.55 to 0.8:
`toymodels.theory.optimum` finds all arrangements.

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
    """The ways to treat the extra feature, with $W$ and $b$ for one or two hidden dimensions."""

    NOT_REPRESENTED = 0
    """Ignored: $W = [1, 0]$, $b = (0, p/2)$."""
    DEDICATED = 1
    """It has a hidden dimension, and another feature is ignored: $W = [0, 1]$, $b = (p/2, 0)$."""
    SUPERPOSITION = 2
    """It forms an antipodal pair with another feature: $W = [1, -1]$, $b = 0$."""
    DEDICATED_BESIDE_PAIR = 3
    """It has a hidden dimension, and two others are a pair: $W = [[1, -1, 0], [0, 0, 1]]$, $b = 0$.
    This needs two hidden dimensions."""


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
r"""The density, within 0.001, above which the optimal $W$ and $b$ leave superposition, by $r$.

Training can choose any $W$ and $b$, so it should find these densities, and not the lower ones of
`boundary`. Exchanging the features maps $r$ to $1/r$.

BFGS minimised the exact expected loss (Gauss-Legendre on the pieces where it is a polynomial,
float64) from 15 to 35 starts, and bisection found the density at which the lowest minimum leaves
the antipodal branch. It jumps at each of these $r$, so the boundary is sharp:
$\min_i \lVert W_i \rVert$ falls from between 0.64 and 0.76 to 0 for $r \le 0.5$. For larger $r$ it
falls to a weak antipodal remainder, 0.15 at $r = 0.6$ and 0.52 at $r = 1$, which then shrinks.
"""


def losses(
    density: Float[Array, ""] | float,
    relative_importance: Float[Array, ""] | float,
    *,
    hidden: int = 1,
) -> Float[Array, " phases"]:
    r"""Return the expected loss of each simple solution, summed over the outputs.

    $$L_\text{not represented} = r \left(\tfrac p3 - \tfrac{p^2}4\right), \quad
      L_\text{dedicated} = \tfrac p3 - \tfrac{p^2}4, \quad
      L_\text{superposition} = (1 + r) \tfrac{p^2}6, \quad
      L_\text{beside pair} = \tfrac{p^2}3.$$

    An ignored feature costs its variance, because its bias is its mean. An antipodal pair is exact
    unless both features are active; then the error of each output is the smaller of the two.

    Args:
        density: $p$, in $(0, 1]$.
        relative_importance: $r \ge 0$.
        hidden: $m$, at least 1; there are $m + 1$ features.

    Returns:
        Losses of at least 0, in the order of `Phase`: three for one hidden dimension, else four.
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
    r"""Return the simple solution of the lowest expected loss.

    Args:
        density: $p$, in $(0, 1]$.
        relative_importance: $r \ge 0$.
        hidden: $m$, at least 1; there are $m + 1$ features.

    Returns:
        A value of `Phase`. Among equal losses the first one counts, which is `NOT_REPRESENTED` for
        $r = 1$ above the triple point $p = 4/7$.
    """
    return jnp.argmin(losses(density, relative_importance, hidden=hidden))


def boundary(relative_importance: Float[Array, ""] | float, *, hidden: int = 1) -> Float[Array, ""]:
    r"""Return the density above which a pair costs more than ignoring its less important feature.

    $$p^* = \frac{4 \min(r, 1)}{2 (1 + r) + 3 \min(r, 1)} =
      \begin{cases} 4r / (2 + 5r) & r \le 1 \\ 4 / (5 + 2r) & r \ge 1. \end{cases}$$

    With $m \ge 2$ and $r \ge 1$ the pair consists of two other features, of importance 1, so
    $p^* = 4/7$. The losses cross with different slopes, which is a first-order transition. For
    $p > p^*$ the phase is `NOT_REPRESENTED` if $r < 1$ and `DEDICATED` if $r > 1$.

    Args:
        relative_importance: $r \ge 0$.
        hidden: $m$, at least 1; there are $m + 1$ features.

    Returns:
        A number in $[0, 4/7]$: 0 at $r = 0$, and largest at the triple point $r = 1$. For $m = 1$
        it is equal at $r$ and $1/r$.
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
