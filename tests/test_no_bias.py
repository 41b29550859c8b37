"""Two features without a bias, against the exact loss of any weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory import no_bias
from toymodels.theory.loss import expected_loss


def loss_of(weights, density, importance=1.0):
    return expected_loss(weights[None], np.zeros(2), density, np.array([1.0, importance]))


@pytest.mark.parametrize(("density", "importance"), [(0.9, 1.0), (0.7, 0.3), (0.8, 4.0)])
def test_same_direction_is_the_lowest_of_all_weights_of_one_sign(density, importance, x64):
    found = no_bias.same_direction(density, importance)
    np.testing.assert_allclose(loss_of(found.weights, density, importance), found.loss, rtol=1e-9)
    line = np.linspace(0, 1.5, 31)
    importances = jnp.array([1.0, importance])

    def loss(first, second):
        return expected_loss(jnp.stack([first, second])[None], jnp.zeros(2), density, importances)

    losses = jax.vmap(jax.vmap(loss, (None, 0)), (0, None))(jnp.asarray(line), jnp.asarray(line))
    assert found.loss < losses.min() + 1e-12


def test_equal_features_lie_at_half_a_right_angle_and_cost_one_variance():
    found = no_bias.same_direction(0.8)
    np.testing.assert_allclose(found.weights, np.sqrt(1 / 2), atol=1e-5)
    np.testing.assert_allclose(found.loss, 0.8 / 3 - 0.8**2 / 4, rtol=1e-9)


def test_the_pair_is_the_lowest_of_all_lengths():
    found = no_bias.antipodal(0.4)
    lengths = found.weights[0] + np.array([-0.05, -0.01, 0.01, 0.05])
    assert all(loss_of(length * np.array([1.0, -1.0]), 0.4) > found.loss for length in lengths)


def test_the_losses_cross_near_four_sevenths():
    """A pair of unit length has the loss p^2 / 3, which crosses p/3 - p^2/4 at 4/7."""
    crossing = no_bias.crossing()
    assert abs(crossing - 4 / 7) < 0.02
    for density, lower in ((crossing - 0.01, "antipodal"), (crossing + 0.01, "same_direction")):
        losses = {
            name: getattr(no_bias, name)(density).loss for name in ("antipodal", "same_direction")
        }
        assert min(losses, key=losses.get) == lower


def test_no_density_is_refused():
    with pytest.raises(InputError, match="density is 2"):
        no_bias.antipodal(2.0)
