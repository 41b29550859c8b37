"""The best division of latents among manifolds, against a greedy search and known exponents."""

import heapq

import numpy as np
import pytest
from scipy import optimize, special

import toymodels as tm
from toymodels.theory import dictionary_scaling as scaling


def test_the_error_of_a_circle_is_the_minimum_over_all_directions():
    """The largest |cos| of a dense grid of points with any three directions, minimised."""
    points = 2 * np.pi * np.arange(6000) / 6000

    def error(angles):
        cosines = np.cos(points[:, None] - np.append(0.0, angles)[None])
        return np.mean(1 - np.maximum(cosines.max(axis=1), 0) ** 2)

    best = optimize.minimize(error, [1.7, 4.5], method="Nelder-Mead").fun
    assert scaling.circle_error(3) == pytest.approx(best, rel=1e-4)
    assert scaling.circle_error(1000) == pytest.approx(np.pi**2 / 3e6, rel=1e-4)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.5), (0.5, 1.0)])
def test_the_division_is_that_of_a_greedy_search(alpha, beta):
    gains, count = scaling.power_gains(beta, 5000), 3000
    found = scaling.allocation(gains, alpha, 3e-3)
    waiting = [(-(i ** -(1 + alpha)) * gains[0], i, 0) for i in range(1, count)]
    heapq.heapify(waiting)
    errors = np.arange(1, count) ** -(1.0 + alpha)
    for _ in range(found.latents):
        _, i, n = heapq.heappop(waiting)
        errors[i - 1] = i ** -(1 + alpha) * (n + 2.0) ** -beta
        heapq.heappush(waiting, (-(i ** -(1 + alpha)) * gains[n + 1], i, n + 1))
    assert found.found == np.sum(errors < np.arange(1, count) ** -(1.0 + alpha))
    tail = special.zeta(1 + alpha, count)  # features beyond the search
    rest = 5001.0**-beta * special.zeta(1 + alpha)  # what no gain in the list takes
    assert found.loss == pytest.approx(errors.sum() + tail - rest, rel=1e-9)


def test_wrong_numbers_are_refused_in_one_line():
    with pytest.raises(tm.InputError, match=r"gains end at 0\.5"):
        scaling.allocation(np.array([1.0, 0.5]), 1.0, 0.1)
    with pytest.raises(tm.InputError, match="latents is 1"):
        scaling.circle_error(1)
    with pytest.raises(tm.InputError, match="alpha is 0"):
        scaling.allocation(np.array([0.5]), 0.0, 1.0)
    with pytest.raises(tm.InputError, match="beta is -1"):
        scaling.power_gains(-1.0, 3)
