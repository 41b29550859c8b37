"""Models with rows of a Hadamard matrix have the noise and the loss of the Gaussian theory."""

import functools

import jax
import numpy as np
import pytest
from arrangements import variance

from toymodels import features
from toymodels.theory import expected_loss, expected_loss_linear, persian_rug


def noise(density, ratio):
    return np.sqrt(variance(density) * (1 / ratio - 1))


@functools.cache
def hadamard(num_features, hidden, density, gain=0.8, bias=-0.1):
    rng = np.random.default_rng(0)
    return persian_rug.hadamard_weights(
        rng, num_features, hidden, density=density, gain=gain, bias=bias
    )


@pytest.mark.parametrize(("num_features", "hidden"), [(2, 1), (8, 3), (64, 63), (64, 20)])
def test_hadamard_rows_give_the_noise_of_the_theory(num_features, hidden):
    density, gain, bias = 0.3, 0.8, -0.1
    made = hadamard(num_features, hidden, density)
    np.testing.assert_array_equal(
        made.weights_in @ made.weights_in.T, num_features * np.eye(hidden)
    )
    np.testing.assert_array_equal(made.weights_in.sum(axis=1), 0)
    product = made.weights_out @ made.weights_in
    ratio = hidden / num_features
    projection = product * ratio / gain
    np.testing.assert_allclose(projection @ projection, projection, atol=1e-12)
    np.testing.assert_allclose(np.diag(product), gain)
    others = product - np.diag(np.diag(product))
    np.testing.assert_allclose(
        (others**2).sum(axis=1) * variance(density), (gain * noise(density, ratio)) ** 2
    )
    np.testing.assert_allclose(others.sum(axis=1) * density / 2 + made.bias, bias, atol=1e-13)


def test_hadamard_rows_are_chosen_at_random_without_repetition():
    rng = np.random.default_rng(1)
    first, second = (
        persian_rug.hadamard_weights(rng, 32, 10, density=0.1, gain=1.0, bias=0.0).weights_in
        for _ in range(2)
    )
    assert np.unique(first, axis=0).shape == (10, 32)
    assert not np.array_equal(np.unique(first, axis=0), np.unique(second, axis=0))


@pytest.mark.parametrize(("num_features", "hidden"), [(8, 3), (64, 20)])
def test_the_linear_baseline_is_exact_for_hadamard_weights(num_features, hidden):
    """A frame with equal noise spans a choice of principal components of equal features."""
    density, ratio = 0.3, hidden / num_features
    made = hadamard(num_features, hidden, density, ratio, (1 - ratio) * density / 2)
    tied = np.sqrt(ratio / hidden) * made.weights_in
    np.testing.assert_allclose(
        expected_loss_linear(tied, made.bias, density, 1.0) / num_features,
        persian_rug.loss_of_linear(density, ratio),
        rtol=1e-12,
    )


def test_the_linear_baseline_is_principal_component_analysis():
    """The loss is the mean of the smallest eigenvalues, whose expectations are equal."""
    density, num_features, hidden = 0.2, 10, 3
    x = features.SparseUniform(num_features, density).sample(jax.random.key(0), 400_000)
    eigenvalues = np.linalg.eigvalsh(np.cov(np.asarray(x, np.float64).T))
    np.testing.assert_allclose(
        eigenvalues[: num_features - hidden].sum() / num_features,
        persian_rug.loss_of_linear(density, hidden / num_features),
        rtol=0.01,  # sorting spreads eigenvalues by 2 sqrt(n / samples), 1 %; its mean is half
    )


@pytest.mark.parametrize(
    ("num_features", "samples", "density", "ratio", "tolerance"),
    [
        (8192, 400, 0.05, 0.1, 0.02),
        (1024, 2000, 0.05, 0.1, 0.07),
        (1024, 2000, 0.2, 0.3, 0.02),
        (1024, 2000, 0.02, 0.1, 0.07 + 0.03),  # n p = 20: 6 % by itself
    ],
)
def test_simulated_hadamard_models_have_the_loss_of_the_theory(
    num_features, samples, density, ratio, tolerance
):
    hidden = round(ratio * num_features)
    best = persian_rug.best_rug(density, hidden / num_features)
    made = persian_rug.hadamard_weights(
        np.random.default_rng(0),
        num_features,
        hidden,
        density=density,
        gain=float(best.gain),
        bias=float(best.bias),
    )
    weights_in, weights_out, bias = (part.astype(np.float32) for part in made)
    rng = np.random.default_rng(1)
    shape = (num_features, samples)
    x = np.where(rng.random(shape) < density, rng.random(shape), 0).astype(np.float32)
    y = np.maximum(weights_out @ (weights_in @ x) + bias[:, None], 0)
    np.testing.assert_allclose(np.mean((x - y) ** 2), best.loss, rtol=tolerance)


def test_eight_dense_features_are_already_nearly_gaussian():
    """Seven other features that are all active are nearly a normal noise."""
    best = persian_rug.best_rug(1.0, 0.5)
    made = hadamard(8, 4, 1.0, float(best.gain), float(best.bias))
    tied = np.sqrt(best.gain / 4) * made.weights_in
    exact = expected_loss(tied, made.bias, 1.0, 1.0) / 8
    np.testing.assert_allclose(exact, best.loss, rtol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((12, 3, 0.1), "num_features is 12.*power of two"),
        ((8, 8, 0.1), "hidden is 8.*at most 7"),
        ((8, 3, 0.0), "density is 0"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        hadamard(*arguments)
