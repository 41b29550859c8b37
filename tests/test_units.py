"""Measures do not depend on units, neither of single coordinates nor of a whole matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import toymodels as tm
from toymodels.analysis import (
    concepts,
    dictionaries,
    erasure,
    geometry,
    linearity,
    probing,
    reconstruction,
    superposition,
    units,
    virtual_weights,
)

properties = settings(max_examples=8)
seeds = st.integers(0, 2**32 - 1)

mass_mean = jax.jit(probing.mass_mean)
causal_metric = jax.jit(concepts.causal_metric)
eraser = jax.jit(erasure.least_squares_eraser)


def six_orders(random, size):
    """Return units from 1e-3 to 1e3, both of them among them."""
    exponents = random.uniform(-3, 3, size)
    exponents[:2] = -3, 3
    return 10**exponents


def one_wide(random, size):
    """Return units in which one dimension is 300 times as wide as the others.

    Language models have such a dimension.
    """
    widths = np.ones(size)
    widths[random.integers(size)] = 300
    return widths


def turned(random, size):
    """Return a matrix that widens one direction which is no coordinate."""
    turn = np.linalg.qr(random.normal(size=(size, size)))[0]
    return turn * one_wide(random, size) @ turn.T


CHANGES = {
    "units": lambda random, size: np.diag(six_orders(random, size)),
    "one wide dimension": lambda random, size: np.diag(one_wide(random, size)),
    "one wide direction": turned,
}
every_change = pytest.mark.parametrize("change", CHANGES)


def single(array):
    return jnp.asarray(array, None if np.asarray(array).dtype == bool else jnp.float32)


@every_change
@pytest.mark.parametrize("size", [3, 64])
def test_a_mass_mean_probe_reads_the_same(change, size):
    random = np.random.default_rng(size)
    labels = random.random(2000) < 0.5
    hidden = random.normal(size=(2000, size))
    hidden[:, 0] += 3 * labels
    moved = hidden @ CHANGES[change](random, size) + random.normal(size=size)
    oracle = LinearDiscriminantAnalysis(solver="svd").fit(hidden, labels)
    probe = mass_mean(single(moved), single(labels))
    direction, intercept = (np.asarray(part, np.float64) for part in probe)
    # Scored in float64: the probe is what is tested.
    scores = np.asarray(single(moved), np.float64) @ direction + intercept
    expected = oracle.decision_function(hidden)
    # Rounding of what is 300 times as wide is 1e-4 of a score or less.
    np.testing.assert_allclose(scores, expected, atol=5e-3 * np.abs(expected).max())


def test_a_coordinate_that_is_constant_is_not_read():
    random = np.random.default_rng(0)
    hidden, labels = random.normal(size=(50, 4)), np.arange(50) % 2 == 0
    hidden[:, 1], hidden[:, 2] = 0.1, 1e6  # neither has a float32 sum of exact multiples
    hidden[:, 3] *= 1e-3
    probe = mass_mean(single(hidden), single(labels))
    np.testing.assert_array_equal(np.asarray(probe.direction) == 0, [False, True, True, False])
    metric = np.asarray(causal_metric(single(hidden)))
    np.testing.assert_array_equal(metric[1:3], 0)
    assert np.linalg.matrix_rank(metric / np.sqrt(metric.max(1, initial=1)), tol=1e-3) == 2


@every_change
def test_nothing_of_a_concept_is_left(change):
    random = np.random.default_rng(7)
    size, examples = 64, 4000
    hidden = random.normal(size=(examples, size))
    concepts_ = hidden @ random.normal(size=(size, 3)) / 8 + random.normal(size=(examples, 3))
    concepts_ = concepts_ * [200, 2e-3, 1]
    moved = hidden @ CHANGES[change](random, size)
    moved, concepts_ = (part - part.mean(axis=0) for part in (moved, concepts_))
    moments = [np.zeros(size), moved.T @ moved / examples, moved.T @ concepts_ / examples]
    matrix = np.asarray(eraser(*map(single, moments)).matrix, np.float64)
    erased = moved @ matrix.T
    # What a map of float32 leaves in a narrow direction is rounding of the wide ones.
    rounding = 2e-5 if change == "units" else 1e-5 * 300
    spread = np.maximum(erased.std(axis=0), 1e-6 * moved.std(axis=0))
    left = erased.T @ concepts_ / examples / spread[:, None] / concepts_.std(axis=0)
    assert np.abs(left).max() < rounding


@every_change
def test_causal_angles_do_not_depend_on_the_basis(change):
    random = np.random.default_rng(3)
    words = random.normal(size=(300, 16))
    before = concepts.cosines(single(words[:5]), causal_metric(single(words)))
    moved = words @ CHANGES[change](random, 16)
    after = concepts.cosines(single(moved[:5]), causal_metric(single(moved)))
    np.testing.assert_allclose(after, before, atol=3e-3)


@properties
@given(seeds)
def test_whitened_rows_are_white(seed):
    random = np.random.default_rng(seed)
    rank = random.integers(1, 6)
    rows = random.normal(size=(40, rank)) @ random.normal(size=(rank, 5)) * six_orders(random, 5)
    rows = rows - rows.mean(axis=0)
    white = rows @ np.asarray(units.whitening(single(rows)), np.float64)
    variances = np.sort(np.linalg.eigvalsh(white.T @ white / 40))[::-1]
    np.testing.assert_allclose(variances, np.arange(5) < rank, atol=1e-2)


def test_powers_of_two():
    sizes = jnp.array([0.0, 0.75, 1.0, 3.0, 4.0, 2.0**100, 2.0**-100, jnp.inf, jnp.nan])
    expected = [1, 0.5, 1, 2, 4, 2.0**100, 2.0**-100, 1, 1]
    np.testing.assert_array_equal(units.power_of_two(sizes), expected)
    assert jax.grad(lambda size: units.power_of_two(size))(3.0) == 0


def pair_of(measure):
    """Return a measure of two matrices as a measure of one matrix."""
    return lambda weights: measure(weights[:, ::-1] + 0.25 * weights, weights)


# These measures have no unit, so a power of two changes no bit, unless it over- or underflows.
OF_NO_UNIT = {
    "dimensionality": geometry.feature_dimensionality,
    "eigenvector residual": geometry.eigenvector_residual,
    "saturation": superposition.capacity_saturation,
    "participation ratio": superposition.participation_ratio,
    "effective rank": superposition.effective_rank,
    "coherence": superposition.coherence,
    "neurons": superposition.squared_neuron_polysemanticity,
    "MCC": pair_of(dictionaries.mcc),
    "shrinkage": pair_of(reconstruction.shrinkage),
    "explained": pair_of(lambda a, b: reconstruction.explained_variance(b, a, centred=True)),
    "hedging": pair_of(lambda a, b: dictionaries.hedging_degree(a, b, jnp.arange(4))),
    "held out": concepts.held_out_cosines,
    "cosines": lambda weights: concepts.cosines(weights, jnp.eye(4)),
    "real": pair_of(lambda a, b: virtual_weights.real_and_interference(a, b).explained),
    "gain": pair_of(lambda a, b: virtual_weights.real_and_interference(a, b).gain),
    "parallelogram": lambda weights: linearity.parallelogram_error(weights[None, :].repeat(2, 0)),
    "additivity": lambda weights: linearity.additivity(lambda x: jnp.abs(x - weights[0]), weights),
}
OF_ITS_UNIT = {
    "norms": (geometry.feature_norms, 1),
    "steering": (linearity.steering_vectors, -1),
    "dimensions per feature": (lambda weights: geometry.dimensions_per_feature(weights), -2),
}


@pytest.mark.parametrize("name", OF_NO_UNIT)
def test_no_scale_is_too_large_or_too_small(name):
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
    measure = tm.jit(OF_NO_UNIT[name])  # with fast math, as in a sweep
    expected = measure(weights)
    assert np.all(np.isfinite(expected))
    for exponent in (-100, -60, 60, 100):
        actual = measure(weights * 2.0**exponent)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OF_ITS_UNIT)
def test_what_has_a_unit_follows_it(name):
    measure, power = OF_ITS_UNIT[name]
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
    for exponent in (-60, 60):
        actual = measure(weights * 2.0**exponent) * 2.0 ** (-power * exponent)
        np.testing.assert_array_equal(actual, measure(weights))


def test_half_precision_and_mixed_scales():
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)) * 300, jnp.float16)
    expected = geometry.feature_dimensionality(weights.astype(jnp.float32))
    np.testing.assert_allclose(geometry.feature_dimensionality(weights), expected, atol=3e-3)
    # Orthogonal features have a dimension each, whatever their lengths.
    lengths = jnp.array([1e-30, 1e-10, 1.0, 1e30])
    np.testing.assert_allclose(geometry.feature_dimensionality(jnp.diag(lengths)), 1, rtol=1e-6)
    np.testing.assert_array_equal(geometry.feature_norms(jnp.diag(lengths)), lengths)
    both = jnp.array([[1.0, 1e-20]])  # a small one on the line of a large one has nothing
    np.testing.assert_allclose(geometry.feature_dimensionality(both), [1, 0], atol=1e-6)


@properties
@given(seeds)
def test_the_unit_of_a_feature_is_no_part_of_absorption(seed):
    random = np.random.default_rng(seed)
    weights, dictionary = random.normal(size=(2, 3, 5))  # in superposition
    features = np.maximum(random.normal(size=(30, 5)), 0)
    latents = np.maximum(random.normal(size=(30, 5)), 0)
    unit = six_orders(random, 5)

    def rate(unit):
        arrays = (latents, dictionary, features / unit, weights * unit)
        return dictionaries.absorption_rate(*map(single, arrays), jnp.arange(5), min_share=0.5)

    np.testing.assert_allclose(rate(unit), rate(np.ones(5)), atol=0.1)  # at most a tie or two
