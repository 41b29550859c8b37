"""Facts about neurons: counts of known codes, symmetries of networks of ReLU neurons."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import linalg

from toymodels.analysis import neurons
from toymodels.errors import InputError

properties = settings(max_examples=50)
quarters = st.integers(-8, 8).map(lambda number: number / 4)  # exact in float32
matrices = hnp.arrays(
    np.float32, st.sampled_from([(1, 1), (2, 3), (3, 2), (4, 4)]), elements=quarters
)
thresholds = st.integers(0, 8).map(lambda number: number / 8)
randoms = st.randoms(use_true_random=False)
compiled_served = jax.jit(neurons.features_served)
compiled_code = jax.jit(neurons.code)
compiled_words = jax.jit(neurons.code_words)
compiled_flagged = jax.jit(neurons.flagged)

PAIR_CODE = [[0.86, 0.84, -0.66], [0.85, -0.81, 0.8]]
"""Three features in two neurons: both, the one, the other."""


def served(weights, threshold):
    return np.asarray(compiled_served(jnp.asarray(weights, jnp.float32), threshold=threshold))


def code(*blocks, small=0.0):
    """Return the code of a model that has these blocks of neurons and features side by side."""
    inside = linalg.block_diag(*map(np.ones_like, blocks)) > 0
    weights = np.where(inside, linalg.block_diag(*blocks), small)
    return tuple(map(int, compiled_code(weights.astype(np.float32))))


def pairs(num_neurons):
    """Return weights with a feature for every pair of neurons, and vetoes everywhere else."""
    first, second = np.triu_indices(num_neurons, 1)
    weights = np.full((num_neurons, len(first)), -2.5, np.float32)
    for feature, both in enumerate(zip(first, second, strict=True)):
        weights[both, feature] = 0.75
    return weights


def test_a_neuron_of_one_feature_and_one_of_a_code():
    weights = np.zeros((3, 4))
    weights[0, :2] = 1.0, 0.1
    weights[1:, 1:] = PAIR_CODE
    np.testing.assert_array_equal(served(weights, 0.2).sum(axis=1), [1, 3, 3])


@properties
@given(matrices)
def test_a_neuron_serves_its_largest_weight_and_a_dead_one_none(weights):
    count = served(weights, 0.99).sum(axis=1)
    np.testing.assert_array_equal(count > 0, np.any(weights != 0, axis=1))
    np.testing.assert_array_equal(served(weights, 0.0), weights != 0)
    assert not served(weights, 1.0).any()


@properties
@given(matrices, thresholds, st.integers(-3, 3), randoms)
def test_signs_scales_and_order_of_neurons_do_not_matter(weights, threshold, power, random):
    order = random.sample(range(len(weights)), len(weights))
    changed = -(2.0**power) * weights[order]
    np.testing.assert_array_equal(served(changed, threshold), served(weights, threshold)[order])


@properties
@given(matrices, thresholds, thresholds)
def test_a_higher_threshold_serves_fewer(weights, one, other):
    low, high = sorted((one, other))
    assert np.all(served(weights, low) >= served(weights, high))


def test_a_threshold_that_is_no_share_is_refused():
    with pytest.raises(InputError, match="threshold is 2"):
        neurons.features_served(jnp.ones((2, 3)), threshold=2.0)


@properties
@given(matrices, st.data())
def test_rescaled_neurons_compute_the_same(weights_in, data):
    count, num_features = weights_in.shape
    weights_out = data.draw(hnp.arrays(np.float32, (3, count), elements=quarters))
    features = data.draw(hnp.arrays(np.float32, num_features, elements=quarters))
    pair = neurons.rescaled(jnp.asarray(weights_in), jnp.asarray(weights_out))
    scaled_in, scaled_out = map(np.asarray, pair)

    def outputs(first, second):
        return second @ np.maximum(first @ features, 0)

    # Sums of at most 16 products of numbers up to 2 each: at most 64, in float32.
    expected = outputs(weights_in, weights_out)
    np.testing.assert_allclose(outputs(scaled_in, scaled_out), expected, rtol=1e-5, atol=1e-4)
    alive = np.any(weights_in != 0, axis=1)
    np.testing.assert_array_equal(np.max(np.abs(scaled_in), axis=1), alive)
    np.testing.assert_array_equal(np.sign(scaled_in), np.sign(weights_in))


@pytest.mark.parametrize("small", [0.0, 0.05, -0.05])
@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        pytest.param([np.eye(5), np.zeros((0, 5))], (5, 0, 0), id="all monosemantic"),
        pytest.param([np.eye(3), PAIR_CODE], (3, 3, 2), id="three in two"),
        pytest.param([np.eye(1), pairs(4)], (1, 6, 4), id="pairs of four"),
        pytest.param([pairs(5)], (0, 10, 5), id="pairs of five"),
        pytest.param([np.eye(2), [[1.0, 1.0]]], (2, 2, 1), id="two in one"),
        pytest.param([np.eye(2), [[1.0, 0.5, 0.5]]], (2, 1, 1), id="too weak to represent"),
        pytest.param([np.eye(2), [[0.6, 0.3], [0.3, 0.6]]], (2, 0, 2), id="no feature"),
        pytest.param([[[1.0, -8.0]], [[0.0, 1.0]]], (1, 1, 1), id="a veto is a second use"),
    ],
)
def test_known_codes_are_named(blocks, expected, small):
    assert code(*blocks, small=small) == expected


def test_a_code_word_is_of_weights_above_half_of_the_largest():
    weights = jnp.array([[1.0, 0.6], [0.55, 0.6], [0.45, -3.0]])
    np.testing.assert_array_equal(compiled_words(weights).T, [[1, 1, 0], [1, 1, 0]])


@properties
@given(matrices, randoms)
def test_a_code_does_not_depend_on_the_order_of_neurons_and_features(weights, random):
    rows, columns = (random.sample(range(size), size) for size in weights.shape)
    shuffled = weights[rows][:, columns]
    assert code(shuffled) == code(weights)
    words = np.asarray(compiled_words(weights))
    shuffled_words = np.asarray(compiled_words(shuffled))
    np.testing.assert_array_equal(shuffled_words, words[rows][:, columns])


@properties
@given(matrices)
def test_every_neuron_is_counted_once_and_vetoes_are_in_no_word(weights):
    alone, shared, others = code(weights)
    assert alone + others == len(weights)
    assert 0 <= shared <= weights.shape[1]
    words = np.asarray(compiled_words(weights))
    assert np.all(weights[words] > 0)
    # A feature without code word is one that the model cannot reconstruct by half.
    slopes = (np.maximum(weights, 0) ** 2).sum(axis=0)
    np.testing.assert_array_equal(words.any(axis=0), slopes > 0.5)


def test_all_map_over_models_and_dead_neurons_have_finite_gradients():
    many = jnp.zeros((3, 2, 4)).at[:, 0, 1].set(2.0)
    table = jax.vmap(lambda weights: neurons.features_served(weights, threshold=0.5))(many)
    assert table.sum() == 3
    np.testing.assert_array_equal(jax.vmap(neurons.code)(many), [[1] * 3, [0] * 3, [1] * 3])

    def total(weights):
        scaled_in, scaled_out = neurons.rescaled(weights, jnp.ones((4, 2)))
        return scaled_in.sum() + scaled_out.sum()

    assert np.all(np.isfinite(jax.vmap(jax.grad(total))(many)))


def test_features_along_neurons_are_aligned_and_random_ones_as_the_formula_says():
    """Only the represented features count: the last one is at half a right angle, and short."""
    weights = jnp.array([[1.0, 0.0, 0.1], [0.0, -2.0, 0.1]])
    assert neurons.alignment(weights) == 1
    np.testing.assert_allclose(neurons.alignment(10 * weights), (1 + 1 + 1 / 2) / 3, rtol=1e-6)
    directions = jax.random.normal(jax.random.key(0), (4, 100_000)) * 10
    # The squared cosine has a standard deviation of 0.16.
    found = neurons.alignment(directions)
    np.testing.assert_allclose(found, neurons.random_alignment(4), atol=4 * 0.16 / 100_000**0.5)
    # The alignment of random directions in the plane is the mean of max(cos^2, sin^2).
    np.testing.assert_allclose(neurons.random_alignment(2), 1 / 2 + 1 / np.pi, rtol=1e-7)


def test_one_neuron_flags_a_feature_of_one_other_neuron_and_vetoes_those_of_several():
    """Neuron 0 fires with features 0 and 1, which have one neuron each, and vetoes feature 2."""
    weights = jnp.array([[0.8, 0.8, -1.0], [0.9, 0.0, 0.8], [0.0, 0.9, 0.8]])
    assert neurons.flagged(weights) == 1
    np.testing.assert_allclose(neurons.flagged(weights.at[0, 2].set(0.1)), 2 / 3, rtol=1e-6)
    # Neurons of one feature each share none, and stand aside.
    assert neurons.flagged(jnp.eye(3)) == 0
    beside = jnp.zeros((4, 4)).at[0, 0].set(1.0).at[1:, 1:].set(weights)
    assert neurons.flagged(beside) == 1


@properties
@given(matrices, randoms)
def test_flags_do_not_depend_on_the_order_of_neurons_and_features(weights, random):
    rows, columns = (random.sample(range(size), size) for size in weights.shape)
    shuffled = jnp.asarray(weights[rows][:, columns])
    np.testing.assert_array_equal(compiled_flagged(shuffled), compiled_flagged(weights))
