r"""The exact expected loss of features in sets, present all together or one at a time.

Given which features are present, their values are independent. So the loss is a mean of the losses
of independent features, over the cases $a$ of which features are present:

$$L = \sum_a \Pr(a)\, L(p^{(a)}), \qquad p^{(a)} \in \{0, 1\}^n.$$

Conventions, precision and bad input are those of `toymodels.theory.loss`, except that a density is
the probability that a SET is present, as in `CorrelatedSets` and `AnticorrelatedSets`.

References:
    Elhage et al. (2022), "Toy Models of Superposition", section "The Geometry of Non-Uniform
    Superposition".
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory.features import Numbers
from toymodels.theory.loss import (
    MAX_FEATURES,
    Bias,
    Loss,
    Weights,
    check_model,
    expected_loss,
)
from toymodels.theory.precision import in_float64


def expected_loss_correlated(
    weights: Weights, bias: Bias, density: Numbers, importance: Numbers = 1.0, *, num_sets: int
) -> Loss:
    r"""Return the exact loss of $y = \mathrm{ReLU}(W^\top W x + b)$ for `CorrelatedSets`.

    The loss is $E \sum_i I_i (x_i - y_i)^2$. A set is present or absent as a whole, so $s$ sets
    have $2^s$ cases. All cases together take little more time than one `expected_loss`.

    Args:
        weights: one model, the features of a set side by side; `vmap` over several.
        bias: one per output.
        density: $p$, in $[0, 1]$, the probability that a set is present; one number, one per set,
            or one per feature, the same for all of a set.
        importance: $I \ge 0$; one number, or one per feature.
        num_sets: $s$, all of the same size.

    Returns:
        At least 0, up to rounding of about 1e-16 for each output.

    Raises:
        ValueError: more than `MAX_FEATURES` features, features that do not make `num_sets` equal
            sets, shapes that do not fit, a density outside $[0, 1]$, a negative importance, or
            numbers that are not finite.
    """
    size = _size(weights, bias, density, importance, num_sets)
    ways = np.ones((1, size), int)
    return _sets_loss(weights, bias, density, importance, num_sets, ways)


def expected_loss_anticorrelated(
    weights: Weights, bias: Bias, density: Numbers, importance: Numbers = 1.0, *, num_sets: int
) -> Loss:
    r"""Return the exact loss of $y = \mathrm{ReLU}(W^\top W x + b)$ for `AnticorrelatedSets`.

    The loss is $E \sum_i I_i (x_i - y_i)^2$. One member of a set is present, each as likely, or
    none, so $s$ sets of $k$ members have $(k + 1)^s$ cases.

    Args:
        weights: one model, the features of a set side by side; `vmap` over several.
        bias: one per output.
        density: $p$, in $[0, 1]$, the probability that a set is present; one number, one per set,
            or one per feature, the same for all of a set. A feature is present with $p / k$.
        importance: $I \ge 0$; one number, or one per feature.
        num_sets: $s$, all of the same size.

    Returns:
        At least 0, up to rounding of about 1e-16 for each output.

    Raises:
        ValueError: the errors of `expected_loss_correlated`.
    """
    size = _size(weights, bias, density, importance, num_sets)
    return _sets_loss(weights, bias, density, importance, num_sets, np.eye(size, dtype=int))


def _sets_loss(
    weights: Weights,
    bias: Bias,
    density: Numbers,
    importance: Numbers,
    num_sets: int,
    ways: Int[np.ndarray, "ways size"],
) -> Loss:
    """Return the loss if a present set is active in one of `ways`, all equally likely."""
    if np.shape(density) == np.shape(bias):
        density = density[:: ways.shape[1]]  # pyright: ignore[reportIndexIssue]
    states = np.vstack([np.zeros_like(ways[:1]), ways])
    cases = np.array([*itertools.product(range(len(states)), repeat=num_sets)])
    active = states[cases].reshape(len(cases), -1)
    mean = functools.partial(_mean_over, cases, active, len(ways))
    return in_float64(mean, weights, bias, density, importance)


@jax.jit
def _mean_over(
    cases: Any,
    active: Any,
    num_ways: Any,
    weights: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    density: Float[Array, "..."],
    importance: Float[Array, "..."],
) -> Float[Array, ""]:
    """Return the mean loss over all cases of which features are present.

    Args:
        cases: the number of the way in which each set is present, 0 for absent: cases x sets.
        active: 1 for a feature that is present, else 0: cases x features.
        num_ways: the number of ways in which a set can be present, all equally likely.
        weights: one model.
        bias: one per output.
        density: the probability that a set is present; one number, or one per set.
        importance: one number, or one per feature.
    """
    density = jnp.broadcast_to(density, cases.shape[1:])[None]
    chances = jnp.where(cases > 0, density / num_ways, 1 - density).prod(axis=1)

    def loss_of_case(active: Any) -> Any:
        return expected_loss(weights, bias, active, importance)

    # Only the densities differ between cases, so the costly means over boxes are computed once.
    return chances @ jax.vmap(loss_of_case)(active.astype(weights.dtype))


def _size(weights: Any, bias: Any, density: Any, importance: Any, num_sets: int) -> int:
    """Return the number of features of a set, or raise `InputError` for numbers that do not fit."""
    checks.count("num_sets", num_sets)
    check_model(weights, bias, 1.0, importance)
    num_features = np.size(bias)
    if num_features > MAX_FEATURES:
        raise InputError(
            f"{num_features} features are more than the {MAX_FEATURES} that the exact loss can "
            "take: estimate it from samples with toymodels.evaluate"
        )
    if num_features % num_sets:
        raise InputError(
            f"{num_features} features do not make {num_sets} equal sets: give a num_sets that "
            "divides them"
        )
    size = num_features // num_sets
    if np.shape(density) not in ((), (num_sets,), (num_features,)):
        raise InputError(
            f"density has shape {np.shape(density)}: give one number or {num_sets}, one per set"
        )
    if np.shape(density) == (num_features,) and not isinstance(density, Tracer):
        sets = np.asarray(density, float).reshape(num_sets, size)
        if (sets != sets[:, :1]).any():
            raise InputError(
                f"density is {np.asarray(density).tolist()}, not the same for all features of a "
                "set: give one number per set"
            )
    checks.density(density, each="set", positive=False)
    return size
