"""Attributions against their axioms and closed forms."""

import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toymodels as tm
from toymodels.analysis import attribution
from toymodels.theory import frames

WEIGHTS = jnp.asarray(frames.regular_polygon(5))
GRAM = WEIGHTS.T @ WEIGHTS
BIAS = -0.1
X = jnp.asarray([0.9, 0.3, 0.4, 0.8, 0.2])
BASELINE = jnp.asarray([0.0, 0.1, 0.0, 0.3, 0.0])


def output(x):
    """The first output of a pentagon."""
    return jax.nn.relu(GRAM[0] @ x + BIAS)


def linear(x):
    return GRAM[0] @ x + BIAS


def every(function, x, baseline):
    return {
        "gradient": attribution.gradient_times_input(function, x, baseline),
        "integrated": attribution.integrated_gradients(function, x, baseline, num_steps=2000),
        "shapley": attribution.shapley_values(function, x, baseline),
    }


def test_all_agree_on_a_linear_function():
    for values in every(linear, X, BASELINE).values():
        np.testing.assert_allclose(values, GRAM[0] * (X - BASELINE), atol=1e-5)


@pytest.mark.parametrize("name", ["integrated", "shapley"])
def test_integrated_gradients_and_shapley_values_are_complete(name):
    values = every(output, X, BASELINE)[name]
    np.testing.assert_allclose(values.sum(), output(X) - output(BASELINE), atol=1e-4)


def test_shapley_values_are_the_mean_over_all_orders():
    """The mean over all 120 orders of five features, in float64, is an independent route."""
    gram, x, baseline = (np.asarray(a, float) for a in (GRAM, X, BASELINE))

    def value(inside):
        return max(0.0, gram[0] @ np.where(inside, x, baseline) + BIAS)

    total = np.zeros(5)
    for order in itertools.permutations(range(5)):
        inside = np.zeros(5, bool)
        for feature in order:
            before = value(inside)
            inside[feature] = True
            total[feature] += value(inside) - before
    expected = total / math.factorial(5)
    np.testing.assert_allclose(attribution.shapley_values(output, X, BASELINE), expected, atol=1e-6)


def test_a_feature_that_is_not_used_has_no_share_and_equal_features_share_equally():
    def function(x):
        return jax.nn.relu(x[0] + x[1] - 1.0)

    values = attribution.shapley_values(function, jnp.asarray([0.8, 0.8, 0.5]))
    np.testing.assert_allclose(values, [0.3, 0.3, 0.0], atol=1e-6)


def test_sampled_shapley_values_agree_within_their_errors():
    exact = attribution.shapley_values(output, X, BASELINE)
    found = attribution.sampled_shapley_values(
        jax.random.key(0), output, X, BASELINE, num_orders=4000
    )
    assert (abs(found.mean - exact) <= 4 * found.standard_error + 1e-6).all()
    np.testing.assert_allclose(found.mean.sum(), output(X) - output(BASELINE), atol=1e-4)


numbers = st.floats(-1, 1, allow_subnormal=False, width=32)


@settings(max_examples=30)
@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=2, max_size=2), numbers)
def test_the_closed_form_of_one_relu_is_the_limit_of_integrated_gradients(rows, bias):
    weights, x, baseline = (jnp.asarray(column, jnp.float32) for column in zip(*rows, strict=True))
    exact = attribution.relu_integrated_gradients(weights, bias, x, baseline)
    steps = attribution.integrated_gradients(
        lambda x: jax.nn.relu(weights @ x + bias), x, baseline, num_steps=2000
    )
    np.testing.assert_allclose(exact, steps, atol=2e-3)


@pytest.mark.parametrize("bias", [0.3, 100.0])
def test_features_that_cancel_have_their_weights_where_the_relu_is_open(bias):
    """The ReLU is open all the way, so that each feature has its own term; they sum to 0."""
    weights = jnp.array([0.1, -0.3, 0.2])
    exact = attribution.relu_integrated_gradients(weights, bias, jnp.ones(3))
    np.testing.assert_allclose(exact, weights, rtol=1e-6)
    closed = attribution.relu_integrated_gradients(weights, -bias, jnp.ones(3))
    np.testing.assert_array_equal(closed, 0)


def test_a_function_without_a_gradient_is_refused():
    with pytest.raises(tm.InputError, match="bool, which has no gradient"):
        attribution.gradient_times_input(lambda x: x[0] > 0, X)


def test_the_closed_form_is_complete():
    exact = attribution.relu_integrated_gradients(GRAM[0], BIAS, X, BASELINE)
    np.testing.assert_allclose(exact.sum(), output(X) - output(BASELINE), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attribution.shapley_values(jnp.sum, jnp.ones(13)), "sampled_shapley_values"),
        (
            lambda: inspect.unwrap(attribution.shapley_values)(jnp.sum, X, jnp.ones(3)),
            "baseline has shape",
        ),
        (lambda: attribution.integrated_gradients(jnp.sum, X, num_steps=0), "num_steps is 0"),
        (
            lambda: attribution.sampled_shapley_values(jax.random.key(0), jnp.sum, X, num_orders=1),
            "num_orders is 1",
        ),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(call, message):
    with pytest.raises(tm.InputError, match=message):
        call()
