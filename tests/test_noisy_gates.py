"""Errors of gates against simulated noise, and the width against the overlaps of directions."""

import jax
import numpy as np
import pytest
from scipy import integrate, stats

from toymodels import circuits, errors
from toymodels.theory import noisy_gates as theory

KINDS = np.array([circuits.AND, circuits.OR, circuits.XOR])


def threshold(operand):
    return np.clip(2 * operand - 0.5, 0, 1)


def simulated(share, noise, *, correcting=False):
    """Return the mean squared error of each layer, with independent noise on every operand."""
    random, gates, examples = np.random.default_rng(0), 300, 400
    truth = (random.random((examples, gates)) < share).astype(float)
    values, found = truth, []
    for variance in noise:
        operands = np.stack([random.permutation(gates) for _ in range(2)])
        kinds = KINDS[np.arange(gates) % 3].T

        def gate(seen, kinds=kinds):
            total = seen.sum(axis=1)
            return kinds[0] * total + kinds[1] * np.maximum(total - 1, 0)

        seen = values[:, operands] + variance**0.5 * random.normal(size=(examples, 2, gates))
        seen = threshold(seen) if correcting else seen
        values, truth = gate(seen), gate(truth[:, operands])
        found.append(np.mean((values - truth) ** 2))
    return np.array(found)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_errors_of_the_first_layer_do_not_depend_on_the_share_of_true_variables(share):
    np.testing.assert_allclose(simulated(share, [1e-3]), theory.errors([1e-3]), rtol=0.03)


def test_errors_grow_by_a_third_in_each_layer():
    noise = [1e-3, 2e-3, 0.0, 0.0]
    predicted = theory.errors(noise)
    np.testing.assert_allclose(simulated(0.02, noise), predicted, rtol=0.1)
    np.testing.assert_allclose(predicted[2:] / predicted[1:-1], 4 / 3)


def test_a_threshold_forgets_small_errors_and_not_flipped_bits():
    noise = [0.02, 0.02, 0.02, 0.0]
    found, predicted = simulated(0.05, noise, correcting=True), theory.errors_corrected(noise)
    np.testing.assert_allclose(found, predicted, rtol=0.1)
    np.testing.assert_allclose(predicted[0], 4 / 3 * theory.corrected(0.02), rtol=0.01)
    assert np.all(predicted < theory.errors(noise) / 10)
    small, flipped = theory.errors_corrected([0.01, 0.0]), theory.errors_corrected([0.1, 0.0])
    assert small[1] < small[0] / 2
    assert flipped[1] > flipped[0]


@pytest.mark.parametrize("variance", [1e-3, 0.02, 0.3, 100.0])
def test_what_a_threshold_leaves_is_an_integral(variance):
    def square(value):
        return threshold(value) ** 2 * stats.norm.pdf(value, scale=variance**0.5)

    middle = integrate.quad(square, 0.25, 0.75)[0]
    expected = middle + stats.norm.sf(0.75, scale=variance**0.5)
    np.testing.assert_allclose(theory.corrected(variance), expected, rtol=1e-6, atol=1e-15)


def test_overlaps_of_projected_bases_are_least():
    directions = np.asarray(circuits.random_directions(jax.random.key(0), 200, width=50))
    squares = (directions @ directions.T) ** 2
    mean = (squares.sum() - 200) / (200 * 199)
    least = theory.mean_squared_overlap(200, 50)
    assert least - 1e-6 < mean < 1.02 * least
    assert theory.mean_squared_overlap(50, 50) == 0


def test_the_width_gives_the_chance():
    width = theory.width_for(1e-3, 5.0, 10_000)
    variance = 5 * (10_000 - width) / (width * 9_999)
    np.testing.assert_allclose(stats.norm.sf(0.25, scale=variance**0.5), 1e-3, rtol=1e-9)
    limit = theory.width_for(1e-3, 5.0, 10**12)
    np.testing.assert_allclose(limit, 16 * stats.norm.isf(1e-3) ** 2 * 5, rtol=1e-6)


def test_numbers_that_make_no_sense():
    with pytest.raises(errors.InputError, match="give variances"):
        theory.errors([-1.0])
    with pytest.raises(errors.InputError, match=r"chance is 0\.7"):
        theory.width_for(0.7, 1.0, 10)
    with pytest.raises(errors.InputError, match="without any there is no noise"):
        theory.width_for(0.1, 0.0, 10)
