"""Feature visualisation against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from toymodels.analysis import visualization

WEIGHTS = jnp.asarray([0.9, -0.4, 0.2, 0.05])


@pytest.mark.parametrize("penalty", [0.0, 0.1, 0.5])
def test_ascent_finds_the_exact_maximum_of_a_linear_unit(penalty):
    found = visualization.activation_maximum(
        lambda x: WEIGHTS @ x, jnp.full(4, 0.5), penalty=penalty
    )
    exact = visualization.linear_activation_maximum(WEIGHTS, penalty=penalty)
    np.testing.assert_allclose(found, exact, atol=1e-5)
    np.testing.assert_array_equal(exact, jnp.where(penalty < WEIGHTS, 1.0, 0.0))


def test_the_exact_maximum_is_the_best_corner_of_the_box():
    corners = jnp.asarray(np.indices((3,) * 4).reshape(4, -1).T - 1.0)  # -1, 0 and 1
    values = corners @ WEIGHTS - 0.3 * jnp.abs(corners).sum(axis=1)
    exact = visualization.linear_activation_maximum(WEIGHTS, penalty=0.3, low=-1.0)
    np.testing.assert_allclose(
        WEIGHTS @ exact - 0.3 * jnp.abs(exact).sum(), values.max(), atol=1e-6
    )


def test_a_polysemantic_unit_is_maximised_by_a_mixture_of_its_features():
    """A neuron that serves two features in a trained code is most active when both are present."""
    code = jnp.asarray([[0.9, 0.9, 0.0], [0.0, 0.0, 1.0]])
    both = visualization.activation_maximum(
        lambda x: jax.nn.relu(code @ x)[0], jnp.full(3, 0.1), penalty=0.1
    )
    np.testing.assert_allclose(both, [1, 1, 0], atol=1e-5)


def test_maximally_activating_examples_are_sorted():
    examples = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 4)), jnp.float32)
    found = visualization.maximally_activating_examples(lambda x: WEIGHTS @ x, examples, 5)
    order = np.argsort(-(np.asarray(examples, float) @ np.asarray(WEIGHTS, float)))[:5]
    np.testing.assert_array_equal(found.indices, order)
    assert (np.diff(found.activation) <= 0).all()


def test_response_curves_are_ramps_with_the_slopes_of_the_weights():
    weights = jnp.asarray([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]])  # three units, two features
    values = jnp.linspace(0, 1, 5)
    curves = visualization.response_curves(lambda x: jax.nn.relu(weights @ x), 2, values)
    assert curves.shape == (2, 3, 5)
    np.testing.assert_allclose(curves, jnp.maximum(0, weights.T)[:, :, None] * values[None, None])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: visualization.activation_maximum(jnp.sum, jnp.ones(2), low=1.0), "low below"),
        (lambda: visualization.linear_activation_maximum(WEIGHTS, low=0.5), "holds 0"),
        (
            lambda: visualization.maximally_activating_examples(jnp.sum, jnp.ones((2, 3)), 3),
            "the batch has 2",
        ),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(call, message):
    with pytest.raises(tm.InputError, match=message):
        call()
