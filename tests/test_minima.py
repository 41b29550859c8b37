"""Optima against tables made without our code, theorems about optima, and limits."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodels.theory import k_gons, phases
from toymodels.theory.correlated import expected_loss_correlated
from toymodels.theory.loss import (
    expected_loss,
    expected_loss_linear,
    expected_loss_one_active,
)
from toymodels.theory.minima import optimum, optimum_one_active

FEW = {"num_starts": 16}
"""A quarter of the usual number of random starts, from which these optima are found, too."""


def norms(weights):
    return np.linalg.norm(weights, axis=0)


@pytest.mark.parametrize(
    ("density", "loss", "length", "bias"),
    [  # minimised by SciPy's BFGS on a quadrature of the loss, from 40 starts each
        (0.2, 0.07958805, 1.03337, -0.13203),
        (0.1, 0.02630513, 1.10045, -0.20993),
        (0.05, 0.00890359, 1.13462, -0.24633),
        (0.01, 0.00100148, 1.16311, -0.27508),
    ],
)
def test_five_sparse_features_in_two_dimensions_are_a_pentagon(density, loss, length, bias):
    found = optimum(5, 2, density, **FEW)
    np.testing.assert_allclose(found.loss, loss, rtol=0, atol=1e-8)
    np.testing.assert_allclose(norms(found.weights), length, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.bias, bias, rtol=0, atol=1e-5)
    angles = np.sort(np.angle(found.weights[0] + 1j * found.weights[1]))
    np.testing.assert_allclose(np.diff(angles), 2 * np.pi / 5, rtol=1e-5)
    assert found.minima[0].zero_modes == 1  # rotation


def test_denser_ones_are_two_antipodal_pairs():
    found = optimum(5, 2, 0.3)
    np.testing.assert_allclose(found.loss, 0.13612071, rtol=0, atol=1e-8)
    *pairs, dropped = np.argsort(-norms(found.weights))
    np.testing.assert_allclose(norms(found.weights)[pairs], 1.010, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.weights[:, dropped], 0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.bias[dropped], 0.15, rtol=1e-6)  # its mean
    pentagon = [minimum.loss for minimum in found.minima if norms(minimum.weights).min() > 0.9]
    np.testing.assert_allclose(pentagon, [0.14760745], rtol=0, atol=1e-8)


def test_the_pentagon_gives_way_where_it_should():
    below, above = optimum(5, 2, 0.22487, **FEW), optimum(5, 2, 0.22488, **FEW)
    assert norms(below.weights).min() > 0.9
    assert norms(above.weights).min() < 1e-6


@pytest.mark.parametrize(
    ("density", "loss", "length", "bias"),
    [
        (0.7, 0.10810636, 0.7591, 0.3286),
        (0.5, 0.07628245, 0.969, 0.0977),
        (0.3, 0.02931036, 1.0104, 0.0178),
        (0.1, 0.00331948, 1.0058, 0.0012),
        (0.01, 0.00003332, 1.0006, 0.0),
    ],
)
def test_two_features_in_one_dimension_are_an_antipodal_pair(density, loss, length, bias):
    pairs = [
        minimum
        for minimum in optimum(2, 1, density).minima
        if minimum.weights.prod() < 0 and np.ptp(np.abs(minimum.weights)) < 1e-6
    ]
    assert len(pairs) == 1
    np.testing.assert_allclose(pairs[0].loss, loss, rtol=0, atol=1e-8)
    np.testing.assert_allclose(norms(pairs[0].weights), length, rtol=0, atol=1e-4)
    np.testing.assert_allclose(pairs[0].bias, bias, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("density", "importance"),
    [
        (0.5, 0.53574),
        (0.3, 0.20470),
        (0.2, 0.11382),
        (0.1, 0.04872),
        (0.05, 0.02274),
        (0.02, 0.00875),
        (0.01, 0.00432),
    ],
)
def test_a_pair_is_worth_it_from_a_critical_importance_on(density, importance):
    below = optimum(2, 1, density, np.array([1.0, importance - 2e-5]))
    above = optimum(2, 1, density, np.array([1.0, importance + 2e-5]))
    np.testing.assert_allclose(below.weights[0, 1], 0, rtol=0, atol=1e-6)
    assert above.weights.prod() < -0.3


def test_one_active_feature_of_six_has_ten_minima():
    found = optimum_one_active(6, 2, num_starts=256)
    expected = [0.048192, 0.061799, 0.068744, 0.097222, 0.104167]
    expected += [1 / 9, 1 / 6, 2 / 9, 5 / 18]
    losses = [minimum.loss for minimum in found.minima if minimum.loss < 0.33]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-6)
    # Rotation alone for a hexagon; a dead output leaves its bias free and its column, too.
    assert [minimum.zero_modes for minimum in found.minima[:3]] == [1, 1, 4]
    # The tenth is silence, a plateau to which hardly a start leads.
    silent = expected_loss_one_active(0.1 * np.ones((2, 6)), -np.ones(6))
    np.testing.assert_allclose(silent, 1 / 3, rtol=1e-6)


def test_a_rectifier_helps_even_without_sparsity():
    """One of two principal components loses 1/12.

    A slanted one that is clipped at zero loses less.
    """
    found = optimum(2, 1, 1.0)
    points = (np.arange(400) + 0.5) / 400
    x = np.stack(np.meshgrid(points, points)).reshape(2, -1)
    output = np.maximum(found.weights.T @ (found.weights @ x) + found.bias[:, None], 0)
    midpoint_rule = ((x - output) ** 2).sum(axis=0).mean()
    np.testing.assert_allclose(found.loss, midpoint_rule, rtol=0, atol=1e-6)  # 400^-2 / 12
    assert found.loss < 1 / 12 - 7e-5


numbers = st.floats(0.05, 0.95)
properties = settings(max_examples=12)


@properties
@given(st.tuples(numbers, numbers, numbers), st.tuples(numbers, numbers, numbers))
def test_the_linear_model_has_the_principal_components(density, importance):
    """The optimum keeps the features of most importance times variance, and never mixes."""
    density, importance = np.array(density), np.array(importance)
    dropped = np.sort(importance * (density / 3 - density**2 / 4))[:-1]
    found = optimum(3, 1, density, importance, loss=expected_loss_linear, **FEW)
    np.testing.assert_allclose(found.loss, dropped.sum(), rtol=1e-8)


@properties
@given(numbers, st.tuples(numbers, numbers, numbers))
def test_more_dimensions_never_hurt(density, importance):
    importance = np.array(importance)
    losses = [optimum(3, hidden, density, importance, **FEW).loss for hidden in (1, 2)]
    variance = density / 3 - density**2 / 4
    assert losses[0] <= np.sum(importance) * variance + 1e-12  # no feature at all
    assert losses[1] <= losses[0] + 1e-12


@properties
@given(numbers, st.floats(0.1, 10))
def test_simple_solutions_are_no_better(density, importance):
    importances = np.array([1.0, 1.0, importance])
    two = optimum(2, 1, density, importances[1:], **FEW)
    three = optimum(3, 2, density, importances, **FEW)
    scale = 1 + 1e-6  # they are in float32
    assert two.loss <= scale * phases.losses(density, importance).min()
    assert three.loss <= scale * phases.losses(density, importance, hidden=2).min()
    # A dimension of its own for one feature, and the rest share the other.
    assert three.loss <= two.loss + 1e-12


@properties
@given(numbers, st.tuples(numbers, numbers, numbers), st.floats(-12, 12).map(lambda k: 10**k))
def test_importance_is_relative(density, importance, scale):
    importance = np.array(importance)
    once, scaled = (
        optimum(3, 1, density, values, **FEW) for values in (importance, scale * importance)
    )
    np.testing.assert_allclose(scaled.loss, scale * once.loss, rtol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 2, 1.5), "density is 1.5"),
        ((5, 2, 0.5, -1.0), "importance is -1"),
        ((13, 2, 0.5), "13 features are more than the 12"),
        ((5, 0, 0.5), "hidden is 0"),
        ((0, 1, 0.5), "num_features is 0"),
        ((2, 1, np.array([0.1, 0.2, 0.3])), "density has shape"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimum(*arguments)


def test_no_starts_are_refused():
    with pytest.raises(ValueError, match="num_starts is 0"):
        optimum(2, 1, 0.5, num_starts=0)


@pytest.mark.parametrize("density", [1e-3, 1e-4, 1e-6])
def test_very_sparse_features_are_a_pair(density):
    """The pair has nearly unit length and no bias.

    Each feature is wrong by p^2/6, if both are active.
    """
    np.testing.assert_allclose(optimum(2, 1, density).loss, density**2 / 3, rtol=density)


@pytest.mark.parametrize("density", [1e-5, 1e-8])
def test_the_rarest_features_have_the_loss_of_one_active_feature(density):
    """The pentagon of Chen et al. in closed form, and each of its features active in turn.

    Two features of five are active with a probability below 10 p^2.
    """
    found = optimum(5, 2, density, **FEW)
    one_active = density * k_gons.polygon(5).loss
    np.testing.assert_allclose(found.loss, one_active, rtol=1e-12, atol=10 * density**2)
    np.testing.assert_allclose(found.bias, k_gons.polygon(5).bias, rtol=1e-4)
    assert found.minima[0].zero_modes == 1  # the rotation
    assert found.minima[0].frequency > 0.25  # of the random starts


def test_features_too_rare_to_matter_are_refused():
    with pytest.raises(ValueError, match=r"density is 1e-06 for one feature and 0\.5 for another"):
        optimum(2, 1, np.array([0.5, 1e-6]))


def test_a_loss_of_ones_own_gets_one_number_per_feature():
    def pair(weights, bias, density, importance):
        return expected_loss(weights, bias, density[0], importance[1])

    found = optimum(2, 1, 0.5, loss=pair)
    np.testing.assert_allclose(found.loss, 0.07628245, rtol=0, atol=1e-8)


def test_the_optimum_of_features_in_sets():
    """Two sets of one are two independent features."""
    loss = functools.partial(expected_loss_correlated, num_sets=2)
    found = optimum(2, 1, 0.5, loss=loss)
    np.testing.assert_allclose(found.loss, 0.07628245, rtol=0, atol=1e-8)
