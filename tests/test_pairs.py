"""Pairs of correlated features against closed forms, eigenvalues, and other densities."""

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory import expected_loss_correlated, pairs


def test_two_sparse_pairs_err_only_where_both_are_present():
    """Opposite features of length 1 lose 2/3 if both pairs are present, to lowest order."""
    best = pairs.optimum(2, 0.01)
    assert best.loss / 0.01**2 == pytest.approx(2 / 3, rel=5e-3)
    np.testing.assert_allclose(pairs.mate_angles(best.weights), 90, atol=1)
    np.testing.assert_allclose(np.linalg.norm(best.weights, axis=0), 1, atol=0.01)


@pytest.mark.parametrize("density", [0.3, 0.6])
def test_two_collapsed_pairs_are_their_principal_components(density):
    best = pairs.optimum(2, density)
    assert pairs.collapsed(best.weights).all()
    assert best.loss == pytest.approx(pairs.pca_loss(2, density), rel=1e-6)


@pytest.mark.parametrize("num_pairs", [2, 3, 5])
def test_pca_leaves_the_smallest_eigenvalues_of_the_covariance(num_pairs):
    density = np.array([0.0, 0.1, 0.7, 1.0])
    expected = []
    for p in density:
        # E x^2 = p/3, E x_a x_b = p/4 of mates, and E x = p/2.
        pair = np.array([[p / 3, p / 4], [p / 4, p / 3]]) - p**2 / 4
        eigenvalues = np.linalg.eigvalsh(np.kron(np.eye(num_pairs), pair))
        expected.append(eigenvalues[:-2].sum())
    np.testing.assert_allclose(pairs.pca_loss(num_pairs, density), expected, atol=1e-14)


@pytest.mark.parametrize(("num_collapsed", "density"), [(0, 0.1), (2, 0.3)])
def test_a_branch_is_a_minimum_of_the_exact_loss(num_collapsed, density):
    best, random = pairs.branch(2, num_collapsed, density), np.random.default_rng(0)

    def loss(scale):
        moved = best.weights + scale * random.normal(size=(2, 4))
        bias = best.bias + scale * random.normal(size=4)
        return expected_loss_correlated(moved, bias, density, num_sets=2)

    assert loss(0.0) == pytest.approx(best.loss, rel=1e-9)
    assert min(loss(0.01) for _ in range(20)) > best.loss


def test_the_first_of_three_pairs_collapses_where_two_branches_are_equal():
    """The paper's window of no collapsed pair ends near 0.05, rounded to 0.05."""
    found = pairs.crossing(3, 0, between=(0.05, 0.1))
    assert abs(found - 0.05) < 0.025
    apart, one = (pairs.branch(3, number, found) for number in (0, 1))
    assert apart.loss == pytest.approx(one.loss, rel=1e-3)
    np.testing.assert_array_equal(pairs.collapsed(one.weights), [False, False, True])
    np.testing.assert_allclose(pairs.mate_angles(apart.weights), 60, atol=6)  # about a hexagon


def test_mates_have_the_angle_between_their_columns():
    weights = np.array([[1, 0, 2, -1, 0, 1], [0, 3, 0, 0, 0, 1.0]])
    np.testing.assert_allclose(pairs.mate_angles(weights), [90, 180, 90])
    np.testing.assert_array_equal(pairs.collapsed(np.array([[1, 1.0], [0, 0.5]])), [True])
    np.testing.assert_array_equal(pairs.collapsed(np.array([[1, 1.0], [0, 0.6]])), [False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairs.branch(2, 3, 0.1), "3 of 2 pairs cannot collapse"),
        (lambda: pairs.branch(0, 0, 0.1), "num_pairs is 0"),
        (lambda: pairs.branch(2, 0, 0.0), "density is 0"),
        (lambda: pairs.pca_loss(1, 0.1), "num_pairs is 1"),
    ],
)
def test_impossible_numbers_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
