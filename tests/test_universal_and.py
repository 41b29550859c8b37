"""Read-outs of universal AND against sums over every network of random subsets."""

import itertools
import math

import numpy as np
import pytest

from toymodels import errors
from toymodels.theory import universal_and as ua

NUM_INPUTS, WIDTH, SHARE = 4, 3, 0.3


def every_network(share):
    """Return all networks of random subsets, and the chance of each.

    The networks are an array of networks x neurons x inputs.
    """
    subsets = np.array(list(itertools.product((0, 1), repeat=NUM_INPUTS * WIDTH)))
    chances = np.prod(np.where(subsets == 1, share, 1 - share), axis=1)
    return subsets.reshape(-1, WIDTH, NUM_INPUTS), chances


def inputs_with(pair, active):
    """Return an input in which `pair` of the inputs 0 and 1, and `active` inputs in all, are 1."""
    others = active - pair
    return np.array([pair > 0, pair > 1, others > 0, others > 1], float)


def activations(neurons, members, inputs):
    weights = np.where(members == 1, 1.0, neurons.other)
    return np.maximum(weights @ inputs + neurons.bias, 0)


def mean_over_pairs(members, hidden):
    """Return the mean over neurons that have the inputs 0 and 1, and 0 if there is none."""
    both = members[..., 0] * members[..., 1]
    return (both * hidden).sum(axis=1) / np.maximum(both.sum(axis=1), 1)


@pytest.mark.parametrize("neurons", [ua.subsets(SHARE), ua.signs(), ua.Neurons(0.4, -0.5, 0.2)])
@pytest.mark.parametrize("active", [2, 3])
def test_moments_are_sums_over_all_networks(neurons, active):
    members, chances = every_network(neurons.share)
    mean_of_neuron = None
    for pair in range(max(0, active - 2), 3):
        hidden = activations(neurons, members, inputs_with(pair, active))
        read = mean_over_pairs(members, hidden)
        found = ua.mean_readout(neurons, active, WIDTH)
        np.testing.assert_allclose(found.mean[pair], chances @ read, rtol=1e-12)
        variance = chances @ read**2 - (chances @ read) ** 2
        np.testing.assert_allclose(found.variance[pair], variance, rtol=1e-10)

        mean_of_neuron = chances @ hidden[:, 0]
        np.testing.assert_allclose(ua.mean_activation(neurons, active), mean_of_neuron, rtol=1e-12)
        centred = members[..., :2] - neurons.share
        weights = centred.prod(axis=2) / (neurons.share * (1 - neurons.share)) ** 2
        read = (weights * (hidden - mean_of_neuron)).mean(axis=1)
        found = ua.contrast(neurons, active, WIDTH)
        np.testing.assert_allclose(found.mean[pair], chances @ read, atol=1e-12)
        variance = chances @ read**2 - (chances @ read) ** 2
        np.testing.assert_allclose(found.variance[pair], variance, rtol=1e-10)


def test_error_rates_are_sums_over_all_networks():
    members, chances = every_network(SHARE)
    threshold = (3 - 1.5) * SHARE + 0.5
    for pair in (1, 2):
        hidden = activations(ua.subsets(SHARE), members, inputs_with(pair, 3))
        says = mean_over_pairs(members, hidden) > threshold
        expected = chances @ (says != (pair == 2))
        np.testing.assert_allclose(ua.error_rates(SHARE, 3, WIDTH)[pair], expected, rtol=1e-10)


@pytest.mark.parametrize("active", [2, 3, 7])
def test_the_three_expectations_of_the_construction(active):
    p, s = SHARE, active
    expected = [s * p - 1 + (1 - p) ** s, (s - 1) * p, 1 + (s - 2) * p]
    found = ua.mean_readout(ua.subsets(p), s, 2000)  # neurons without a pair: chance 1e-82
    np.testing.assert_allclose(found.mean, expected, rtol=1e-12)
    np.testing.assert_allclose(found.variance[1], (s - 1) * p * (1 - p) / (p**2 * 2000), rtol=0.01)
    # The contrast is the second difference of h by both memberships: (1 - p)^(s - 2).
    found = ua.contrast(ua.subsets(p), s, 10).mean
    np.testing.assert_allclose(found, [0, 0, (1 - p) ** (s - 2)], atol=1e-12)


def test_no_contrast_tells_a_false_and_from_another():
    random = np.random.default_rng(0)
    for _ in range(20):
        neurons = ua.Neurons(random.uniform(0.1, 0.9), *random.normal(size=2))
        found = ua.contrast(neurons, int(random.integers(2, 9)), 5).mean
        np.testing.assert_allclose(found[:2], 0, atol=1e-12)


def test_the_error_is_that_of_least_squares():
    moments = ua.Moments(np.array([0.1, 0.4, 0.9]), np.array([0.01, 0.02, 0.05]))
    # Two outcomes, one deviation below and above the mean, have the given moments.
    outcomes = moments.mean[:, None] + np.array([-1, 1]) * moments.variance[:, None] ** 0.5
    table = np.stack([outcomes.ravel(), np.ones(6)], axis=1)
    target = np.repeat([0.0, 0.0, 1.0], 2)
    residual = target - table @ np.linalg.lstsq(table, target, rcond=None)[0]
    np.testing.assert_allclose(ua.error(moments), np.mean(residual**2), rtol=1e-12)
    # x_k + x_l counts the inputs of the pair that are 1, without any noise.
    linear = ua.Moments(np.arange(3.0), np.zeros(3))
    np.testing.assert_allclose(ua.error(linear), ua.LINEAR_ERROR, rtol=1e-12)
    exact = ua.Moments(np.array([0.3, 0.3, 0.7]), np.zeros(3))
    np.testing.assert_allclose(ua.error(exact), 0, atol=1e-15)


def test_errors_fall_as_powers_of_the_width():
    """The bias p against the deviation (p d)^(-1/2) gives d^(-2/3); the contrast has no bias."""
    shares = np.geomspace(0.003, 0.5, 60)
    found = {}
    for width in (10_000, 300_000):
        means = [ua.error(ua.mean_readout(ua.subsets(p), 3, width)) for p in shares]
        found[width] = min(means), ua.error(ua.contrast(ua.subsets(1 / 3), 3, width))
    slopes = np.log(np.divide(*found.values())) / np.log(1 / 30)
    np.testing.assert_allclose(slopes, [-2 / 3, -1], atol=0.05)


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(errors.InputError, match="share is 1: give a probability between"):
        ua.mean_readout(ua.subsets(1.0), 3, 10)
    with pytest.raises(errors.InputError, match="active is 1"):
        ua.contrast(ua.signs(), 1, 10)
    with pytest.raises(errors.InputError, match="width"):
        ua.error_rates(0.5, 3, 0)


@pytest.mark.parametrize(("inputs", "ands"), [(3, 1), (3, 3), (4, 2), (5, 10), (40, 700)])
def test_bits_of_choice_tell_all_lists_of_pairs_apart(inputs, ands):
    pairs = list(itertools.combinations(range(inputs), 2))
    lists = math.perm(len(pairs), ands)
    np.testing.assert_allclose(ua.bits_of_choice(inputs, ands), math.log2(lists), rtol=1e-12)


def test_all_pairs_need_the_bits_of_stirling():
    pairs = 10**4 * (10**4 - 1) // 2
    stirling = pairs * np.log2(pairs / np.e) + np.log2(2 * np.pi * pairs) / 2
    np.testing.assert_allclose(ua.bits_of_choice(10**4, pairs), stirling, rtol=1e-12)


@pytest.mark.parametrize("bits", [1, 8, 32])
@pytest.mark.parametrize(("inputs", "ands"), [(2, 1), (6, 15), (100, 30), (100, 4950)])
def test_the_fewest_neurons_hold_the_choice_and_one_less_does_not(inputs, ands, bits):
    neurons, needed = ua.fewest_neurons(inputs, ands, bits=bits), ua.bits_of_choice(inputs, ands)
    assert bits * neurons * (neurons + 1) >= needed
    assert neurons == 1 or bits * (neurons - 1) * neurons < needed


def test_neurons_for_chosen_ands_grow_as_the_root_of_m_log_m():
    counts = np.array([10**3, 10**5])
    pairs = counts * (counts - 1) // 2
    found = [ua.fewest_neurons(int(n), int(m), bits=32) for n, m in zip(counts, pairs, strict=True)]
    expected = np.sqrt(pairs * np.log2(pairs / np.e) / 32)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_more_ands_than_pairs_are_refused():
    with pytest.raises(errors.InputError, match="4 inputs have 6 different pairs"):
        ua.bits_of_choice(4, 7)
