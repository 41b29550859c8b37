r"""Attribution: how much each input contributes to one number that a function computes.

The function $f$ takes ONE example $x$ of $n$ features and returns a number, such as one output of
a model. Each attribution $a$ compares the example with a *baseline* $x'$, at which nothing is
attributed. Integrated gradients and Shapley values are *complete*: $\sum_i a_i = f(x) - f(x')$.
For a linear function all three are equal, $a_i = w_i (x_i - x'_i)$.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.analysis import inputs
from toymodels.errors import InputError

__all__ = [
    "MAX_FEATURES",
    "Estimate",
    "gradient_times_input",
    "integrated_gradients",
    "relu_integrated_gradients",
    "sampled_shapley_values",
    "shapley_values",
]

MAX_FEATURES = 12
"""The largest number of features of exact Shapley values: $2^{12}$ calls of the function."""


def gradient_times_input(
    function: Callable[[Array], Array],
    example: Float[Array, " features"],
    baseline: Float[Array, " features"] | float = 0.0,
) -> Float[Array, " features"]:
    r"""Return $a_i = (x_i - x'_i) \, \partial f / \partial x_i$ at the example.

    Args:
        function: a function of ONE example that returns a number.
        example: the example $x$.
        baseline: the baseline $x'$, one number or one for each feature.

    Returns:
        The attributions, which are complete only if $f$ is linear between baseline and example.
    """
    example, baseline = _pair(example, baseline)
    return (example - baseline) * _slope(function)(example)


def integrated_gradients(
    function: Callable[[Array], Array],
    example: Float[Array, " features"],
    baseline: Float[Array, " features"] | float = 0.0,
    *,
    num_steps: int,
) -> Float[Array, " features"]:
    r"""Return $a_i = (x_i - x'_i) \int_0^1 \partial f / \partial x_i (x' + t (x - x'))\,dt$.

    The integral is computed as the mean over the midpoints $t = (k + 1/2) / N$.

    Args:
        function: a function of ONE example that returns a number.
        example: the example $x$.
        baseline: the baseline $x'$, one number or one for each feature.
        num_steps: the number $N$ of gradients.

    Returns:
        The attributions. They are complete up to the error of this mean. It is 0 if $f$ is linear
        between baseline and example, and of order $1/N$ if there is a kink between them.

    References:
        Sundararajan et al. (2017), "Axiomatic Attribution for Deep Networks".
    """
    checks.count("num_steps", num_steps)
    example, baseline = _pair(example, baseline)
    midpoints = (jnp.arange(num_steps) + 0.5) / num_steps
    change, gradient = example - baseline, _slope(function)
    gradients = jax.vmap(lambda t: gradient(baseline + t * change))(midpoints)
    return change * jnp.mean(gradients, axis=0)


def relu_integrated_gradients(
    weights: Float[Array, " features"],
    bias: Float[Array, ""] | float,
    example: Float[Array, " features"],
    baseline: Float[Array, " features"] | float = 0.0,
) -> Float[Array, " features"]:
    r"""Return the exact integrated gradients of $f(x) = \mathrm{ReLU}(w \cdot x + b)$.

    With $z' = w \cdot x' + b$ and $z = w \cdot x + b$ they are

    $$a_i = w_i (x_i - x'_i) \, \frac{\mathrm{ReLU}(z) - \mathrm{ReLU}(z')}{z - z'},$$

    where the fraction is the share of the path on which the ReLU is open. For output $j$ of
    `ReLUOutput`, $w$ is column $j$ of $W^\top W$.

    Args:
        weights: the weights $w$.
        bias: the bias $b$.
        example: the example $x$.
        baseline: the baseline $x'$, one number or one for each feature.

    Returns:
        The attributions. If $z = z'$ the share is 1 for $z > 0$ and 0 otherwise. They are NaN for
        numbers that are not finite.
    """
    example, baseline = _pair(example, baseline)
    weights = inputs.floats("weights", weights, rank=1)
    terms = weights * (example - baseline)
    start = weights @ baseline + bias
    change = jnp.sum(terms)
    end = start + change
    # A quotient of differences would be rounding alone where the terms cancel and both ends agree.
    crosses = (start > 0) != (end > 0)
    part = jnp.maximum(start, end) / jnp.where(crosses, jnp.abs(change), 1.0)
    opened = jnp.where(crosses, part, jnp.where(start > 0, 1.0, 0.0))
    return inputs.unless_missing(terms * opened, terms, start)


def shapley_values(
    function: Callable[[Array], Array],
    example: Float[Array, " features"],
    baseline: Float[Array, " features"] | float = 0.0,
) -> Float[Array, " features"]:
    r"""Return the exact Shapley values by calls of the function on all $2^n$ coalitions.

    In a coalition $S$ the features of $S$ have the values of the example, and the others those of
    the baseline. With $v(S)$ the value of the function,

    $$a_i = \sum_{S \not\ni i} \frac{|S|!\,(n - |S| - 1)!}{n!} \bigl(v(S \cup i) - v(S)\bigr).$$

    Args:
        function: a function of ONE example that returns a number.
        example: the example $x$, of at most `MAX_FEATURES` features.
        baseline: the baseline $x'$, one number or one for each feature.

    References:
        Shapley (1953), "A Value for n-Person Games".
    """
    example, baseline = _pair(example, baseline)
    function, number = _scalar(function), example.size
    if number > MAX_FEATURES:
        raise InputError(
            f"the example has {number} features, and exact Shapley values are for {MAX_FEATURES} "
            "at most: use sampled_shapley_values"
        )
    members = (np.arange(2**number)[:, None] >> np.arange(number)) & 1 == 1
    sizes = members.sum(axis=1)
    # A coalition with feature i is S plus i, and has one member more than S.
    others = np.where(members, sizes[:, None] - 1, sizes[:, None])
    factorial = np.array([math.factorial(k) for k in range(number + 1)], float)
    last = np.clip(number - 1 - others, 0, None)
    weight = factorial[np.clip(others, 0, number)] * factorial[last] / factorial[number]
    signed = jnp.asarray(np.where(members, weight, -weight), example.dtype)
    values = jax.vmap(lambda inside: function(jnp.where(inside, example, baseline)))(
        jnp.asarray(members)
    )
    return jnp.sum(signed * values[:, None], axis=0)


class Estimate(NamedTuple):
    """Attributions with their standard errors.

    Attributes:
        mean: the attributions.
        standard_error: the standard error of each.
    """

    mean: Float[Array, " features"]
    standard_error: Float[Array, " features"]


def sampled_shapley_values(
    key: Key[Array, ""],
    function: Callable[[Array], Array],
    example: Float[Array, " features"],
    baseline: Float[Array, " features"] | float = 0.0,
    *,
    num_orders: int,
) -> Estimate:
    """Estimate the Shapley values by adding the features in random orders.

    The Shapley value of a feature is the mean, over all orders, of the change of the function when
    the feature joins the features before it. Each order calls the function n + 1 times, and each
    order's changes add up to f(x) - f(x').

    Args:
        key: decides the orders.
        function: a function of ONE example that returns a number.
        example: the example.
        baseline: the baseline, one number or one for each feature.
        num_orders: the number of orders, at least 2.

    References:
        Castro et al. (2009), "Polynomial Calculation of the Shapley Value Based on Sampling".
    """
    checks.count("num_orders", num_orders, minimum=2)
    example, baseline = _pair(example, baseline)
    function, number = _scalar(function), example.size

    def changes(key: Key[Array, ""]) -> Array:
        order = jax.random.permutation(key, number)
        place = jnp.argsort(order)  # when each feature joins
        joined = place[None, :] < jnp.arange(number + 1)[:, None]
        values = jax.vmap(lambda inside: function(jnp.where(inside, example, baseline)))(joined)
        return (values[1:] - values[:-1])[place]

    each = jax.vmap(changes)(jax.random.split(key, num_orders))
    error = jnp.std(each, axis=0, ddof=1) / num_orders**0.5
    return Estimate(jnp.mean(each, axis=0), error)


def _scalar(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return the function with a check that it gives one number for ONE example."""

    def checked(example: Array) -> Array:
        value = jnp.asarray(function(example))
        if value.shape:
            raise InputError(
                f"the function returns shape {value.shape}: give one that returns one number, such "
                "as one output of the model"
            )
        return value

    return checked


def _slope(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return the gradient of a function, after a check that it has one."""
    scalar = _scalar(function)

    def checked(example: Array) -> Array:
        value = scalar(example)
        remedy = "give one that changes with the example, or use shapley_values"
        checks.has_gradient("the function", value, remedy=remedy)
        return value

    return jax.grad(checked)


def _pair(
    example: Any, baseline: Any
) -> tuple[Float[Array, " features"], Float[Array, " features"]]:
    """Return the example and the baseline as arrays of one shape, after checks."""
    example = inputs.floats("example", example, rank=1)
    baseline = jnp.asarray(baseline, example.dtype)
    if baseline.shape not in ((), example.shape):
        raise InputError(
            f"baseline has shape {baseline.shape} and example {example.shape}: give one number, "
            "or one for each feature"
        )
    return example, jnp.broadcast_to(baseline, example.shape)
