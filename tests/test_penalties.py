"""A penalty on activations, and what it leaves of a feature, of a pair, and of a whole model."""

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory import expected_loss, feature_variance, penalties


@pytest.mark.parametrize("strength", [0.0, 0.05, 0.2, 0.33, 0.35, 0.9])
def test_a_feature_under_the_penalty_is_the_lowest_of_all_lengths(strength):
    importance, density = 0.55, 0.2
    variance = feature_variance(density)

    def objective(norm):
        return importance * variance * (1 - norm**2) ** 2 + strength * norm * density / 2

    grid = np.linspace(0, 1.2, 2_000_001)
    values = objective(grid)
    best = grid[values.argmin()]
    loss, found = penalties.dedicated(density, importance, strength)
    assert found == pytest.approx(values.min(), rel=1e-9)
    assert loss == pytest.approx(importance * variance * (1 - best**2) ** 2, abs=1e-6)
    # 0.33 and 0.35 are on either side of the threshold.
    assert (best > 0) == (strength < penalties.threshold(density, importance))
    assert best == 0 or best > (2 / 3) ** 0.5 - 1e-6


@pytest.mark.parametrize("norm", [0.0, 0.6, 0.9])
def test_the_loss_of_a_feature_with_its_best_bias(norm):
    density = 0.2

    def loss(bias):
        return float(expected_loss(np.array([[norm]]), np.array([bias]), density))

    best = (1 - norm**2) * density / 2
    expected = feature_variance(density) * (1 - norm**2) ** 2
    assert loss(best) == pytest.approx(expected, rel=1e-12)
    assert min(loss(best - 1e-3), loss(best + 1e-3)) > loss(best)


@pytest.mark.as_users_compile  # it computes more than it compiles
def test_a_pair_costs_its_penalty_less_than_two_features_do(x64):
    # The activation of both features at once, |x_1 - x_2|, is 1/3 on average and not 1.
    for density in (0.05, 0.3):
        ratio = penalties.pair_threshold(density) / penalties.threshold(density)
        assert 1 < ratio < 1.1


def test_a_model_without_superposition_is_the_sum_of_its_features():
    """Each of three features has an axis or not; the second and third cannot both be kept."""
    density, importance, penalty = 0.2, np.array([1.0, 0.5, 0.2]), np.array([0.0, 0.1, 0.5])
    found = penalties.without_superposition(2, density, importance, penalty)
    for number, strength in enumerate(penalty):
        kept = [penalties.dedicated(density, each, strength) for each in importance[:2]]
        dropped = 0.2 * feature_variance(density)
        np.testing.assert_allclose(found.loss[number], sum(part.loss for part in kept) + dropped)
        expected = sum(part.objective for part in kept) + dropped
        np.testing.assert_allclose(found.objective[number], expected)
    alone = penalties.without_superposition(2, density, importance, 0.0)
    np.testing.assert_allclose(alone, 0.2 * feature_variance(density))  # only the third is lost


def test_no_density_and_no_penalty_are_refused():
    with pytest.raises(InputError, match="density is 0"):
        penalties.threshold(0.0)
    with pytest.raises(InputError, match="penalty is -1"):
        penalties.dedicated(0.1, 1.0, -1.0)
