"""Expected values by quadrature, against moments and the exact loss."""

import jax.numpy as jnp
import numpy as np
import pytest
from arrangements import random_model

from toymodels.errors import InputError
from toymodels.theory import expected_loss, expected_loss_linear, expected_value
from toymodels.theory.quadrature import gauss_legendre


def test_the_rule_of_k_nodes_integrates_powers_below_2k():
    """The integral of x^d from 0 to 1 is 1 / (d + 1)."""
    places, weights = gauss_legendre(3)
    powers = np.arange(6)
    np.testing.assert_allclose(
        weights @ places[:, None] ** powers[None, :], 1 / (powers + 1), rtol=1e-13
    )
    assert abs(weights @ places**6 - 1 / 7) > 1e-5


@pytest.mark.parametrize("num_features", [1, 3])
def test_moments_of_independent_features_are_exact(num_features):
    """E x^3 = p / 4, and the expected product of all features is (p / 2)^n."""
    rule = {"density": 0.3, "num_features": num_features, "nodes": 4}
    np.testing.assert_allclose(expected_value(lambda x: x[-1] ** 3, **rule), 0.3 / 4, rtol=1e-5)
    product = expected_value(jnp.prod, **rule)
    np.testing.assert_allclose(product, 0.15**num_features, rtol=1e-5)
    np.testing.assert_allclose(expected_value(lambda x: 1.0 + 0 * x[0], **rule), 1, rtol=1e-6)


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_quadrature_gives_the_exact_loss_of_linear_and_of_relu_models(density, x64):
    weights, bias, _, importance = map(jnp.asarray, random_model(0, 2, 1))

    def loss(activation):
        return lambda x: jnp.sum(
            importance * (x - activation(weights.T @ (weights @ x) + bias)) ** 2
        )

    linear = expected_value(loss(lambda y: y), density, num_features=2)
    exact = expected_loss_linear(weights, bias, density, importance)
    np.testing.assert_allclose(linear, exact, rtol=1e-12)
    relu = expected_value(loss(lambda y: jnp.maximum(y, 0)), density, num_features=2)
    exact = expected_loss(weights, bias, density, importance)
    np.testing.assert_allclose(relu, exact, rtol=2e-3)  # of the kink


def test_too_many_points_are_refused():
    with pytest.raises(InputError, match="nodes is 32 for 5 features, which makes 39135393 points"):
        expected_value(jnp.sum, 0.1, num_features=5)
