"""Attacks on models whose harm is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrangements import random_model

from toymodels.analysis import adversarial
from toymodels.theory import frames

harm_without_features = jax.jit(adversarial.harm_without_features)


def sparse_data(seed, num_features=7):
    x = np.random.default_rng(seed).uniform(-2, 1, size=(50, num_features))
    return jnp.asarray(np.maximum(x, 0))


@pytest.mark.parametrize(
    "frame",
    [np.eye(3), frames.simplex(1), frames.simplex(4), *map(frames.regular_polygon, (3, 4, 5, 8))],
)
def test_unit_tight_frames_have_the_closed_form(frame, x64):
    dimensions, count = frame.shape
    cosines = frame.T @ frame
    expected = count / dimensions * np.sum(np.maximum(cosines[0], 0) ** 2)
    for size in (0.1, 3.0):
        found = harm_without_features(jnp.asarray(frame), jnp.zeros(count), size)
        assert found == pytest.approx(expected, rel=1e-12)


def test_the_closed_form_is_the_harm_without_features(x64):
    for seed in range(5):
        weights, bias = map(jnp.asarray, random_model(seed, 7, 3)[:2])
        harm = jax.jit(adversarial.harm)(weights, bias, jnp.zeros((1, 7)), 0.3)
        closed = harm_without_features(weights, bias, 0.3)
        np.testing.assert_allclose(harm.single, closed, rtol=1e-12)


def test_harm_is_that_of_the_loss_written_out(x64):
    weights, bias = map(jnp.asarray, random_model(0, 7, 3)[:2])
    x, size = sparse_data(1), 0.3

    def loss(example, attacked):
        output = np.maximum(weights.T @ (weights @ attacked) + bias, 0)
        return np.sum((example - output) ** 2)

    gram = np.asarray(weights.T @ weights)
    attacks = [size * row / np.linalg.norm(row) for row in gram]
    rises = np.array([[loss(e, e + delta) - loss(e, e) for e in x] for delta in attacks])
    found = adversarial.harm(weights, bias, x, size)
    assert found.single == pytest.approx(rises.mean(axis=1).max() / size**2, rel=1e-10)
    assert found.each == pytest.approx(rises.max(axis=0).mean() / size**2, rel=1e-10)


def test_no_direction_moves_an_output_more_than_its_attack(x64):
    weights = jnp.asarray(random_model(2, 7, 3)[0])
    gram = weights.T @ weights
    moved = jnp.diagonal(adversarial.attacks(weights) @ gram)
    np.testing.assert_allclose(moved, np.linalg.norm(gram, axis=1), rtol=1e-12)
    others = np.random.default_rng(3).normal(size=(1000, 7))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert np.all(others @ np.asarray(gram) <= np.asarray(moved) + 1e-12)


def test_a_model_without_superposition_loses_the_square_of_the_attack(x64):
    # The last four features have no weights: their attacks do nothing, and nothing is NaN.
    weights, bias = jnp.eye(3, 7), jnp.where(jnp.arange(7) < 3, 0.0, 0.2)
    found = adversarial.harm(weights, bias, sparse_data(4), 0.3)
    np.testing.assert_allclose(found, 1.0, rtol=1e-12)
