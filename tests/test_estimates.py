"""Estimates of the loss against the exact one, direct sums of exact blocks, and theorems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrangements import random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy import linalg

from toymodels.theory.estimates import expected_loss_gaussian, expected_loss_sampled
from toymodels.theory.loss import expected_loss, expected_loss_linear

properties = settings(max_examples=200)


def direct_sum(models, seed):
    """Return blocks that do not interfere, with their features shuffled; their losses add up."""
    order = np.random.default_rng(seed).permutation(sum(len(bias) for _, bias, _, _ in models))
    weights = linalg.block_diag(*(weights for weights, *_ in models))[:, order]
    bias, density, importance = (
        np.concatenate([model[part] for model in models])[order] for part in (1, 2, 3)
    )
    return (weights, bias, density, importance), sum(expected_loss(*model) for model in models)


def harmonic_frame(num_features, frequencies):
    """Return a frame whose projection has an equal diagonal and whose columns add up to zero."""
    angles = 2 * np.pi * np.outer(np.arange(1, frequencies + 1), np.arange(num_features))
    angles /= num_features
    return np.vstack([np.cos(angles), np.sin(angles)]) * np.sqrt(2 / num_features)


def listener(num_features, density):
    """Return a model of which only output 0 counts.

    The output hears all other features equally, half of them inverted.
    """
    signs = (-1.0) ** np.arange(num_features)
    weights = np.zeros((3, num_features))
    weights[0] = signs / np.sqrt(num_features)
    weights[:2, 0] = 1.0, 0.5
    importance = np.eye(num_features)[0]
    return weights, np.full(num_features, -0.1), density, importance


@pytest.mark.parametrize(
    ("models", "keys"),
    [
        pytest.param([random_model(0, 8, 3)], 200, id="8 features"),
        pytest.param([random_model(1, 8, 3, 0.03)], 50, id="8, sparse"),
        pytest.param([random_model(seed, 5, 2) for seed in range(24)], 30, id="120 features"),
        pytest.param([random_model(seed, 5, 2, 0.02) for seed in range(24)], 30, id="120, sparse"),
    ],
)
def test_the_standard_error_is_what_it_says(models, keys):
    model, expected = direct_sum(models, seed=0)
    estimates = [
        expected_loss_sampled(jax.random.key(seed), *model, examples=16 * 64)
        for seed in range(keys)
    ]
    ratios = np.array([(loss - expected) / error for loss, error in estimates])
    assert np.abs(ratios).max() < 5  # Student's t, 15 degrees of freedom: one in 6000
    # Student's t has the mean square 15/13 and the kurtosis 3.5. Four standard errors are allowed.
    spread = 4 * 15 / 13 * (2.5 / keys) ** 0.5
    np.testing.assert_allclose(np.mean(ratios**2), 15 / 13, rtol=0, atol=spread)
    np.testing.assert_allclose(ratios.mean(), 0, atol=4 * (15 / 13 / keys) ** 0.5)


@pytest.mark.parametrize(
    ("model", "at_least"),
    [
        pytest.param(random_model(0, 20, 5, 1.0), 300, id="dense"),
        pytest.param(random_model(0, 100, 20, 0.05, scale=0.2), 5, id="sparse"),
    ],
)
def test_as_many_plain_samples_have_more_variance(model, at_least):
    weights, bias, density, importance = model
    examples = 2**15
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(examples, bias.size)) * (rng.random((examples, bias.size)) < density)
    plain = (x - np.maximum(x @ weights.T @ weights + bias, 0)) ** 2 @ importance
    loss, error = expected_loss_sampled(jax.random.key(0), *model, examples=examples)
    assert plain.var() / examples > at_least * error**2
    np.testing.assert_allclose(loss, plain.mean(), atol=4 * plain.std() / examples**0.5)


def test_more_examples_have_a_smaller_error_faster_than_plain_samples():
    model = random_model(0, 8, 3)
    coarse, fine = (
        expected_loss_sampled(jax.random.key(0), *model, examples=examples)
        for examples in (2**10, 2**14)
    )
    assert fine.standard_error < coarse.standard_error / 8  # not 4


def test_blocks_of_points_are_one_point_set():
    """Many features are drawn in several blocks, and copies of one model cost its loss each."""
    model = random_model(0, 3, 2)
    copies, expected = direct_sum([model] * 200, seed=0)
    loss, error = expected_loss_sampled(jax.random.key(0), *copies, examples=16 * 2048)
    assert error < 1e-3 * expected
    np.testing.assert_allclose(loss, expected, atol=4 * error)


def test_an_estimate_is_a_function_of_its_key_and_the_couplings():
    weights, bias, density, importance = random_model(0, 20, 5)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    same, turned, other = (
        expected_loss_sampled(jax.random.key(key), w, bias, density, importance, examples=1000).loss
        for key, w in ((0, weights), (0, rotation @ weights), (1, weights))
    )
    np.testing.assert_allclose(turned, same, rtol=1e-12)
    assert other != same


def test_what_needs_no_sampling_has_no_error():
    """Output i depends on its own feature alone, so it is integrated exactly."""
    model = np.diag([1.2, 0.7, 0.0, 0.0]), np.array([-0.3, 0.1, 0.2, -0.2]), 0.3, 1.0
    loss, error = expected_loss_sampled(jax.random.key(0), *model, examples=32)
    np.testing.assert_allclose(loss, expected_loss(*model), rtol=1e-14)
    assert error < 1e-15
    silent = random_model(0, 4, 2)[0], np.array([-0.3, 0.1, 0.2, -0.2]), 0.0, 1.0
    loss, error = expected_loss_sampled(jax.random.key(0), *silent, examples=32)
    np.testing.assert_allclose(loss, 0.1**2 + 0.2**2, rtol=1e-14)


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="examples is 0"):
        expected_loss_sampled(jax.random.key(0), np.eye(2), np.zeros(2), 0.1, 1.0, examples=0)
    many = 21_202
    with pytest.raises(ValueError, match=r"number of features is 21202.*expected_loss_gaussian"):
        expected_loss_sampled(
            jax.random.key(0), np.zeros((1, many)), np.zeros(many), 0.1, 1.0, examples=2
        )
    for estimate in (expected_loss_gaussian, sampled):
        with pytest.raises(ValueError, match="density is 2"):
            estimate(np.eye(2), np.zeros(2), 2.0, 1.0)


def sampled(*model):
    return expected_loss_sampled(jax.random.key(0), *model, examples=2)


@properties
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.sampled_from([0.01, 0.1, 0.5, 0.9, 1.0, None]),
    st.sampled_from([0.1, 0.5, 1.0, 2.0]),
)
def test_the_bound_on_the_gaussian_error_holds(seed, hidden, density, scale):
    model = random_model(seed, 5, hidden, density, scale)
    loss, _, bound = expected_loss_gaussian(*model)
    assert abs(loss - expected_loss(*model)) <= bound * (1 + 1e-9) + 1e-14


@pytest.mark.parametrize("density", [0.01, 0.1, 0.3])
def test_a_sparse_antipodal_pair_is_far_from_gaussian_and_says_so(density):
    exact = density**2 / 3  # one coupling: both are active, and each misses by the smaller
    loss, correction, bound = expected_loss_gaussian(
        np.array([[1.0, -1.0]]), np.zeros(2), density, 1.0
    )
    assert loss > 2 * exact
    assert min(abs(correction), bound) >= loss - exact


@pytest.mark.parametrize("interference", [1.0, 0.01])
def test_loss_and_correction_are_means_over_gaussian_interference(interference):
    """The expected loss is a sum over a grid.

    The correction uses Hermite polynomials, which are the derivatives of the density.
    """
    weights, bias, density, importance = random_model(3, 4, 2)
    weights = np.vstack([weights * interference**0.5, np.eye(4)])
    couplings = weights.T @ weights
    z, dz = np.linspace(-10, 10, 4001, retstep=True)
    gauss = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * dz
    x = (np.arange(1000) + 0.5) / 1000
    expected = np.zeros(2)
    for i in range(4):
        others, p = np.delete(couplings[i], i), np.delete(density, i)
        second, third, fourth = (
            p * np.mean((x[:, None] - p / 2) ** k, axis=0) + (1 - p) * (-p / 2) ** k
            for k in (2, 3, 4)
        )
        mean, spread = bias[i] + others @ p / 2, np.sqrt(others**2 @ second)
        skewness = others**3 @ third / spread**3
        kurtosis = others**4 @ (fourth - 3 * second**2) / spread**4
        series = [0, 0, 0, skewness / 6, kurtosis / 24, 0, skewness**2 / 72]
        heard = mean + spread * z
        errors = (x - np.maximum(heard[:, None] + couplings[i, i] * x, 0)) ** 2
        losses = (1 - density[i]) * np.maximum(heard, 0) ** 2 + density[i] * errors.mean(axis=1)
        edgeworth = np.polynomial.hermite_e.hermeval(z, series)
        expected += importance[i] * np.array([gauss @ losses, (gauss * edgeworth) @ losses])
    loss, correction, _ = expected_loss_gaussian(weights, bias, density, importance)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-6)  # of the midpoints
    np.testing.assert_allclose(correction, expected[1], rtol=2e-5)


@pytest.mark.parametrize("coupling", [0.0, 1e-9, 1e-5])
def test_the_gaussian_estimate_is_exact_without_interference(coupling):
    weights = np.diag([1.2, 0.7, 0.3, 0.0])
    weights += coupling * np.random.default_rng(0).normal(size=(4, 4))
    model = weights, np.array([-0.3, 0.1, 0.0, 0.2]), 0.3, np.array([1.0, 2.0, 3.0, 4.0])
    loss, correction, bound = expected_loss_gaussian(*model)
    np.testing.assert_allclose(loss, expected_loss(*model), rtol=1e-13, atol=bound)
    assert abs(correction) <= bound <= 10 * coupling


def test_the_gaussian_estimate_is_linear_if_no_preactivation_is_negative():
    weights, _, density, importance = random_model(0, 50, 40, scale=0.1)
    model = weights, np.full(50, 9.0), density, importance
    loss, correction, _ = expected_loss_gaussian(*model)
    np.testing.assert_allclose(loss, expected_loss_linear(*model), rtol=1e-12)
    np.testing.assert_allclose(correction, 0, atol=1e-12)


@pytest.mark.parametrize("density", [0.5, 0.8, 1.0])
def test_the_correction_is_right_where_several_are_heard(density):
    model = listener(8, density)
    loss, correction, _ = expected_loss_gaussian(*model)
    exact = expected_loss(*model)
    assert abs(loss + correction - exact) < abs(loss - exact) / 10


def test_the_error_falls_with_the_number_of_features_heard():
    """The error falls at least as fast as $n^{-1/2}$, by the theorem of Berry and Esseen."""
    few, many = (
        abs(expected_loss_gaussian(*model).loss - expected_loss(*model))
        for model in (listener(4, 0.5), listener(8, 0.5))
    )
    assert many < few * (4 / 8) ** 0.5


@pytest.mark.parametrize("frequencies", [10, 40])
def test_the_correction_is_right_for_large_models(frequencies):
    weights = harmonic_frame(200, frequencies) / np.sqrt(frequencies / 100)
    model = weights, np.full(200, -0.3), 0.3, 1.0
    exact, error = expected_loss_sampled(jax.random.key(0), *model, examples=2**13)
    loss, correction, bound = expected_loss_gaussian(*model)
    assert abs(loss + correction - exact) < abs(loss - exact) / 10 + 4 * error
    assert abs(loss - exact) <= bound + 4 * error


@pytest.mark.parametrize(
    ("density", "gain", "offset", "expected"),
    [(0.05, 1.292, -0.406, 0.004561), (0.2, 0.667, -0.132, 0.033233)],
)
def test_the_gaussian_estimate_has_the_published_optima_of_the_persian_rug(
    density, gain, offset, expected
):
    """A tight frame with m/n = 0.3 has the published gain, offset and loss per feature."""
    weights = harmonic_frame(20, 3) * np.sqrt(gain / 0.3)
    bias = np.full(20, offset + gain * density / 2)  # columns add up to zero
    loss = expected_loss_gaussian(weights, bias, density, 1.0).loss
    np.testing.assert_allclose(loss / 20, expected, atol=1e-6)  # of the digits given


def test_the_gaussian_estimate_has_right_gradients(x64):
    def loss(*model):
        return expected_loss_gaussian(*model).loss

    weights, bias, density, importance = random_model(0, 6, 3)
    # No interference: the spread, a square root, is 0.
    for columns in (weights, np.eye(3, 6)):
        model = tuple(map(jnp.asarray, (columns, bias, density, importance)))
        check_grads(loss, model, order=1, modes=("rev",), eps=1e-6, atol=1e-7, rtol=1e-7)


def test_single_precision_and_vmap_agree_with_one_model():
    weights, bias, density, importance = random_model(0, 6, 3)
    stacked = jnp.stack([jnp.asarray(weights), jnp.asarray(2 * weights)])
    several = jax.vmap(lambda w: expected_loss_gaussian(w, bias, density, importance))(stacked)
    for index, scale in enumerate((1, 2)):
        one = expected_loss_gaussian(scale * weights, bias, density, importance)
        for actual, expected in zip(several, one, strict=True):
            np.testing.assert_allclose(actual[index], expected, rtol=1e-5, atol=1e-6)
