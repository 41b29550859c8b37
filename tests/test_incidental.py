"""Collisions counted over all arrangements, and soft thresholding against the flow itself."""

import itertools

import numpy as np
import pytest

from toymodels import errors
from toymodels.theory import incidental


def shared(places, neurons):
    """Count the neurons of which both signs are taken; place k is a sign of neuron k // 2."""
    taken = np.bincount(sorted(set(places)), minlength=2 * neurons).reshape(neurons, 2)
    return int(taken.all(axis=1).sum())


@pytest.mark.parametrize(("features", "neurons"), [(1, 2), (2, 2), (3, 3), (4, 2)])
def test_collisions_are_means_over_all_arrangements(features, neurons):
    places = range(2 * neurons)
    distinct = [shared(each, neurons) for each in itertools.permutations(places, features)]
    np.testing.assert_allclose(
        incidental.collisions(features, neurons), np.mean(distinct), rtol=1e-12
    )
    free = [shared(each, neurons) for each in itertools.product(places, repeat=features)]
    expected = incidental.collisions_without_repulsion(features, neurons)
    np.testing.assert_allclose(expected, np.mean(free), rtol=1e-12, atol=1e-15)


def test_collisions_have_their_limits():
    for count in (incidental.collisions, incidental.collisions_without_repulsion):
        np.testing.assert_allclose(count(200, 10**6), 200 * 199 / 4e6, rtol=1e-3)
    assert incidental.collisions(8, 4) == 4  # every place is taken
    np.testing.assert_allclose(incidental.collisions(10**4, 10**4), 10**4 / 4, rtol=1e-3)


def test_the_curve_is_that_of_the_flow():
    """The flow w' = a w - lambda sign(w) of fixed length is followed by Euler steps."""
    penalty, step = 0.01, 2e-3
    start = np.random.default_rng(0).normal(size=30)
    weights = start / np.linalg.norm(start)
    for number in range(1, 60_001):
        growth = penalty * np.abs(weights).sum()
        moved = weights + step * (growth * weights - penalty * np.sign(weights))
        weights = np.where(moved * weights > 0, moved, 0)  # a weight that reaches 0 stays there
        if number % 20_000 == 0:
            found = incidental.sparsified(start, number * step, penalty)
            np.testing.assert_allclose(np.abs(weights).sum(), found.norm, rtol=2e-3)
            assert np.count_nonzero(weights) == found.survivors


def test_the_start_is_half_normal_and_the_largest_weight_wins():
    start = np.random.default_rng(1).normal(size=2000)
    found = incidental.sparsified(start, [0.0, 1e4], 0.1)
    np.testing.assert_allclose(found.norm[0], (2 * 2000 / np.pi) ** 0.5, rtol=0.04)
    np.testing.assert_array_equal(found.survivors, [2000, 1])
    np.testing.assert_allclose(found.norm[1], 1, rtol=1e-6)


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(errors.InputError, match="features is 5, outside"):
        incidental.collisions(5, 2)
    with pytest.raises(errors.InputError, match="no weight dies without it"):
        incidental.sparsified([1.0], 10, 0.0)
    with pytest.raises(errors.InputError, match="not all of them 0"):
        incidental.sparsified(np.zeros(3), 1.0, 0.1)
