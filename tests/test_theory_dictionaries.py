"""Absorption and hedging: the closed forms against other routes to the same optimum."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from sklearn.linear_model import Lasso

from toymodels import errors
from toymodels.theory import dictionaries

properties = settings(max_examples=30)
angles = st.floats(0.2, 2.6)
chances = st.floats(0.01, 0.33)
fractions = st.floats(0.01, 1)


def pair(*angles):
    return np.stack([np.cos(angles), np.sin(angles)])


def examples(angle):
    parent, child = pair(0, angle).T
    return np.stack([parent, parent + child, child])


def greatest(angle):
    return min(2 * math.cos(angle / 2), 4 * math.cos(angle / 2) ** 2)


@properties
@given(angles, chances, chances, chances, fractions)
def test_losses_are_those_of_ideal_codes(angle, alone, both, solo, fraction):
    penalty = fraction * greatest(angle)
    losses = [
        dictionaries.coding_loss(atoms, examples(angle), penalty) @ [alone, both, solo]
        for atoms in (pair(0, angle), pair(0, angle / 2))
    ]
    arguments = (angle, alone, both, solo, penalty)
    np.testing.assert_allclose(dictionaries.true_loss(*arguments), losses[0], rtol=1e-9)
    np.testing.assert_allclose(dictionaries.absorbed_loss(*arguments), losses[1], rtol=1e-9)


@properties
@given(st.integers(0, 1000), fractions)
def test_coding_is_the_lasso_of_scikit_learn(seed, penalty):
    rng = np.random.default_rng(seed)
    dictionary, rows = rng.normal(size=(5, 3)), rng.normal(size=(4, 5))
    # Scikit-learn minimises half the mean over dimensions.
    lasso = Lasso(penalty / 10, positive=True, fit_intercept=False, tol=1e-10, max_iter=100_000)
    codes = np.stack([lasso.fit(dictionary, row).coef_ for row in rows])
    expected = ((rows - codes @ dictionary.T) ** 2).sum(axis=1) + penalty * codes.sum(axis=1)
    actual = dictionaries.coding_loss(dictionary, rows, penalty)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def l1_norms(dictionary, rows):
    """Return the L1 norms of the shortest exact nonnegative codes, by linear programmes.

    They are infinite if there is no such code.
    """
    ones = np.ones(dictionary.shape[1])
    found = [optimize.linprog(ones, A_eq=dictionary, b_eq=row) for row in rows]
    return np.array([each.fun if each.status == 0 else math.inf for each in found])


@properties
@given(angles, chances, chances, st.floats(-2, 0), st.floats(0, 3))
def test_absorption_is_as_short_as_can_be_without_a_solo_child(angle, alone, both, low, width):
    rows = examples(angle)[:2]
    weights = np.array([alone, both])
    absorbed = l1_norms(pair(0, angle / 2), rows) @ weights
    np.testing.assert_allclose(absorbed, alone + 2 * both * math.cos(angle / 2), rtol=1e-9)
    true = l1_norms(pair(0, angle), rows) @ weights
    np.testing.assert_allclose(true - absorbed, 2 * both * (1 - math.cos(angle / 2)), rtol=1e-6)
    assert l1_norms(pair(low, low + width), rows) @ weights >= absorbed - 1e-9
    # The limit of small penalties.
    arguments = (angle, alone, both, 0.0, 1e-6)
    for loss, norm in [(dictionaries.absorbed_loss, absorbed), (dictionaries.true_loss, true)]:
        np.testing.assert_allclose(loss(*arguments) / 1e-6, norm, rtol=1e-5)


def test_the_saving_of_orthogonal_features():
    saved = dictionaries.true_loss(math.pi / 2, 0.5, 0.2, 0, 1e-6) - dictionaries.absorbed_loss(
        math.pi / 2, 0.5, 0.2, 0, 1e-6
    )
    np.testing.assert_allclose(saved / 1e-6, (2 - math.sqrt(2)) * 0.2, rtol=1e-5)


@properties
@given(angles, chances, chances, chances, st.floats(-1.5, 0), st.floats(0, 1.5))
def test_with_a_solo_child_the_true_pair_is_the_shortest_of_two(angle, alone, both, solo, low, up):
    weights = np.array([alone, both, solo])
    true = l1_norms(pair(0, angle), examples(angle)) @ weights
    np.testing.assert_allclose(true, alone + 2 * both + solo, rtol=1e-9)
    other = l1_norms(pair(low, angle + up), examples(angle))
    if angle + up - low < 3:  # less than half a turn, so that there are nonnegative codes
        assert other @ weights >= true - 1e-9
    assert l1_norms(pair(0, angle / 2), examples(angle))[2] == math.inf
    # A third latent makes room for the bisector again.
    three = l1_norms(pair(0, angle / 2, angle), examples(angle)) @ weights
    np.testing.assert_allclose(true - three, 2 * both * (1 - math.cos(angle / 2)), rtol=1e-6)


@properties
@given(angles, fractions)
def test_losses_cross_at_the_boundary(angle, fraction):
    penalty = fraction * greatest(angle)
    ratio = dictionaries.absorption_boundary(angle, penalty)
    assert ratio > 0
    both = 0.4 / (1 + ratio)

    def excess(solo):
        arguments = (angle, 0.1, both, solo, penalty)
        return dictionaries.absorbed_loss(*arguments) - dictionaries.true_loss(*arguments)

    assert abs(excess(ratio * both)) < 1e-12
    assert excess(0.9 * ratio * both) < 0 < excess(1.1 * ratio * both)
    small = dictionaries.absorption_boundary(angle, 1e-7) / 1e-7
    np.testing.assert_allclose(small, 2 / (1 + math.cos(angle / 2)), rtol=1e-5)


@pytest.mark.parametrize("angle", [0.8, math.pi / 2, 2.0])
def test_the_best_pair_is_absorption_without_and_the_truth_with_many_solo_children(angle):
    absorbed = dictionaries.best_pair(angle, 0.2, 0.1, 0.0, 0.01)
    np.testing.assert_allclose(absorbed.angles, (0, angle / 2), atol=1e-3)
    expected = dictionaries.absorbed_loss(angle, 0.2, 0.1, 0.0, 0.01)
    np.testing.assert_allclose(absorbed.loss, expected, rtol=1e-6)
    true = dictionaries.best_pair(angle, 0.2, 0.1, 0.2, 0.001)
    np.testing.assert_allclose(true.angles, (0, angle), atol=2e-3)
    # The child into the parent, if it is the parent that is never alone.
    other = dictionaries.best_pair(angle, 0.0, 0.1, 0.2, 0.01)
    np.testing.assert_allclose(other.angles, (angle / 2, angle), atol=1e-3)


@pytest.mark.parametrize("alone", [0.01, 0.2])
def test_no_pair_on_a_grid_is_better_than_the_best(alone):
    grid = np.linspace(-0.3, 2, 24)
    pairs = [(low, high) for low in grid for high in grid[grid > low]]
    losses = np.array(
        [dictionaries.coding_loss(pair(*each), examples(math.pi / 2), 0.1) for each in pairs]
    )
    for solo in (0.0, 0.003, 0.01, 0.03, 0.1):
        best = dictionaries.best_pair(math.pi / 2, alone, 0.1, solo, 0.1).loss
        least = (losses @ [alone, 0.1, solo]).min()
        assert best <= least + 1e-12
        assert least < 1.1 * best


@properties
@given(chances, chances)
def test_a_single_latent_is_the_first_principal_component(alone, both):
    rows = examples(math.pi / 2)[:2]
    second = (rows.T * [alone, both]) @ rows
    values, vectors = np.linalg.eigh(second)
    angle = dictionaries.hedging_angle(alone, both)
    np.testing.assert_allclose(abs(pair(angle).T @ vectors[:, -1]), 1, rtol=1e-12)
    loss = dictionaries.hedging_loss(angle, alone, both)
    np.testing.assert_allclose(loss, values[0], rtol=1e-9)
    latent = pair(0.3)[:, 0]
    residual = rows - np.outer(rows @ latent, latent)
    expected = [alone, both] @ (residual**2).sum(axis=1)
    np.testing.assert_allclose(dictionaries.hedging_loss(0.3, alone, both), expected, rtol=1e-12)


@properties
@given(chances, chances)
def test_a_latent_with_biases_is_the_first_principal_component_of_centred_examples(alone, both):
    rows, weights = np.array([[1, 0], [1, 1], [0, 0]]), np.array([alone, both, 1 - alone - both])
    centred = rows - weights @ rows
    direction = np.linalg.eigh((centred.T * weights) @ centred)[1][:, -1]
    angle = dictionaries.centred_hedging_angle(alone, both)
    np.testing.assert_allclose(abs(pair(angle)[:, 0] @ direction), 1, rtol=1e-9)


def test_hedging_has_the_known_angle_and_loss():
    degrees = math.degrees(dictionaries.hedging_angle(0.3, 0.1))
    np.testing.assert_allclose(degrees, 16.845, atol=5e-4)
    loss = dictionaries.hedging_loss(math.radians(degrees), 0.3, 0.1)
    np.testing.assert_allclose(loss, 0.06972, atol=5e-6)
    np.testing.assert_allclose(dictionaries.hedging_loss(0, 0.3, 0.1), 0.1)
    assert dictionaries.hedging_angle(0, 0.1) == math.pi / 4
    assert dictionaries.hedging_angle(0.1, 0) == 0


def test_what_has_no_answer_is_refused():
    with pytest.raises(errors.InputError, match="silences latents"):
        dictionaries.true_loss(math.pi / 2, 0.1, 0.1, 0.1, 1.5)
    with pytest.raises(errors.InputError, match="silences latents"):
        dictionaries.true_loss(2.6, 0.1, 0.1, 0.1, 0.4)
    with pytest.raises(errors.InputError, match="all together"):
        dictionaries.best_pair(1, 0.5, 0.4, 0.2, 0.1)
    with pytest.raises(errors.InputError, match="all together"):
        dictionaries.hedging_angle(0.6, 0.5)
    with pytest.raises(errors.InputError):
        dictionaries.centred_hedging_angle(0.6, 0.5)
    with pytest.raises(errors.InputError, match="two directions"):
        dictionaries.absorption_boundary(0.0, 0.1)
    with pytest.raises(errors.InputError, match="not unique"):
        dictionaries.coding_loss(pair(0, 1, 2), examples(1), 0.1)


@pytest.mark.parametrize("seed", range(20))
def test_probabilities_may_add_up_to_one_with_rounding(seed):
    chances = np.random.default_rng(seed).dirichlet(np.ones(3)).astype(np.float32)
    chances = (chances / chances.sum()).astype(float)
    chances[0] += 2e-7
    exact = dictionaries.true_loss(np.pi / 2, *chances, 0.1)
    # Orthogonal features: one latent for each, shrunk by half of the penalty.
    assert exact == pytest.approx((chances @ [1, 2, 1]) * (0.1 - 0.1**2 / 4), rel=1e-12)
    with pytest.raises(ValueError, match=r"add up to 1\.1"):
        dictionaries.true_loss(np.pi / 2, 0.5, 0.5, 0.1, 0.1)
