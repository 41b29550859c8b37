"""Cover's count against linear programs and its own identities, and probes of random labels."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from toymodels import errors
from toymodels.theory import memorisation

properties = settings(max_examples=30)


def can_be_separated(points, signs):
    """Return whether some w has a margin of at least 1 on every point, by a linear programme."""
    bounds = [(None, None)] * points.shape[1]
    found = optimize.linprog(
        np.zeros(points.shape[1]), -signs[:, None] * points, -np.ones(len(signs)), bounds=bounds
    )
    return found.status == 0


@pytest.mark.parametrize(("num_points", "dimensions"), [(6, 2), (7, 3)])
@pytest.mark.parametrize("intercept", [False, True])
def test_separable_labellings_are_counted(num_points, dimensions, intercept):
    points = np.random.default_rng(0).normal(size=(num_points, dimensions))
    if intercept:
        points = np.append(points, np.ones((num_points, 1)), axis=1)
    labellings = itertools.product([-1.0, 1.0], repeat=num_points - 1)
    # The opposite labels are separated by the opposite hyperplane.
    count = 2 * sum(can_be_separated(points, np.array([1.0, *rest])) for rest in labellings)
    expected = memorisation.separable_dichotomies(num_points, dimensions + intercept)
    assert count == expected
    share = memorisation.separability(num_points, dimensions + intercept)
    np.testing.assert_allclose(share, count / 2**num_points, rtol=1e-12)


def test_coin_tosses_on_random_points():
    random = np.random.default_rng(1)
    count, num_points, dimensions = 200, 9, 4
    fitted = [
        can_be_separated(
            random.normal(size=(num_points, dimensions)), random.choice([-1.0, 1.0], 9)
        )
        for _ in range(count)
    ]
    expected = memorisation.separability(num_points, dimensions)
    error = np.sqrt(expected * (1 - expected) / count)
    assert abs(np.mean(fitted) - expected) < 4 * error


@properties
@given(st.integers(1, 400), st.integers(1, 400))
def test_counts_obey_the_identities_of_cover(num_points, num_parameters):
    counted = memorisation.separable_dichotomies
    if num_parameters > 1:
        # Cover's recursion: a new point divides in two those with a hyperplane through it.
        assert counted(num_points + 1, num_parameters) == (
            counted(num_points, num_parameters) + counted(num_points, num_parameters - 1)
        )
    assert counted(num_points, 1) == 2
    assert counted(num_points, num_points) == 2**num_points
    exact = Fraction(counted(num_points, num_parameters), 2**num_points)
    actual = memorisation.separability(num_points, num_parameters)
    np.testing.assert_allclose(actual, float(exact), rtol=1e-10)


def test_the_capacity_is_two_points_per_parameter():
    for parameters in (1, 5, 50, 500_000):
        share = memorisation.separability(2 * parameters, parameters)
        np.testing.assert_allclose(share, 1 / 2, rtol=1e-8)
    assert round(memorisation.separability(30, 10), 4) == 0.0307
    # The normal limit of the binomial, with its correction for whole numbers.
    num_points, deviations = 1_000_000, np.array([-2.0, -0.5, 1.0])
    parameters = (num_points / 2 + deviations * num_points**0.5 / 2).astype(int)
    actual = [memorisation.separability(num_points, int(d)) for d in parameters]
    np.testing.assert_allclose(actual, stats.norm.cdf(deviations), atol=1e-3)


def test_least_squares_on_coin_tosses():
    random = np.random.default_rng(2)
    right = []
    for _ in range(500):
        points = np.column_stack([random.normal(size=(400, 4)), np.ones(400)])
        signs = random.choice([-1.0, 1.0], 400)
        right.append(np.mean(points @ np.linalg.lstsq(points, signs)[0] * signs > 0))
    expected = memorisation.least_squares_accuracy(400, 5)
    # Four standard errors are 0.0045; unequal leverages take some of it.
    np.testing.assert_allclose(np.mean(right), expected, atol=6e-3)


def test_a_probe_on_permuted_labels():
    """The difference of means is the best direction for white normal points."""
    random = np.random.default_rng(3)
    found = []
    for _ in range(300):
        points, labels = random.normal(size=(500, 4)), np.arange(500) < 100
        scores = points @ (points[labels].mean(axis=0) - points[~labels].mean(axis=0))
        found.append(stats.mannwhitneyu(scores[labels], scores[~labels]).statistic / (100 * 400))
    expected = memorisation.permuted_auroc(500, 4, 0.2)
    np.testing.assert_allclose(np.mean(found), expected, atol=3e-3)


def test_counts_are_whole():
    for function in (memorisation.separability, memorisation.separable_dichotomies):
        with pytest.raises(errors.InputError, match="num_points"):
            function(0, 2)
        with pytest.raises(errors.InputError, match="num_parameters"):
            function(3, 0)
