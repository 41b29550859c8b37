"""The closed forms of the scrubbing distance against other ways to the same number."""

import jax
import numpy as np
import pytest

import toymodels as tm
from toymodels.theory import frames, scrubbing

DIGON = np.array([[1.0, -1.0]])


@pytest.mark.parametrize("p", [0.05, 0.3, 1.0])
def test_the_distance_of_an_antipodal_pair_is_the_integral_by_hand(p):
    by_hand = 4 * p * ((1 - p) / 3 + p / 12 - (1 - p) ** 2 / 3 - (1 - p) * p / 4 - p**2 / 20)
    exact = scrubbing.scrubbing_distance(DIGON, np.zeros(2), p)
    np.testing.assert_allclose(exact, by_hand, atol=1e-14)


def independent_route(weights, bias, density, number=200_000):
    """Compare two runs that share only the feature of an output, in plain NumPy."""
    rng = np.random.default_rng(0)
    features = len(bias)
    first, second = (
        rng.uniform(size=(number, features)) * (rng.uniform(size=(number, features)) < density)
        for _ in range(2)
    )
    total, error = 0.0, 0.0
    for i, row in enumerate(weights.T @ weights):
        shared = second.copy()
        shared[:, i] = first[:, i]
        one, other = (np.maximum(x @ row + bias[i], 0) for x in (first, shared))
        square = (one - other) ** 2
        total, error = total + square.mean(), error + square.std() / number**0.5
    return total, error


@pytest.mark.parametrize("density", [0.1, np.array([0.9, 0.2, 0.5, 0.05, 0.3])])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_distance_of_any_model_is_that_of_samples(seed, density):
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(2, 5)), rng.normal(size=5) / 4
    weights[:, 4] = 0 * weights[:, 4]  # a feature without a direction
    mean, error = independent_route(weights, bias, density)
    exact = tm.theory.scrubbing_distance(weights, bias, density)
    np.testing.assert_allclose(exact, mean, atol=4 * error)


def test_a_bias_that_keeps_every_output_on_gives_the_distance_before_the_relu():
    weights, p = np.asarray(frames.regular_polygon(5)), 0.3
    on = tm.theory.scrubbing_distance(weights, np.full(5, 10.0), p)
    linear = tm.theory.scrubbing_distance_linear(weights, p)
    np.testing.assert_allclose(on, linear, rtol=1e-10)
    gram = weights.T @ weights
    by_hand = 2 * (gram**2).sum() - 2 * (np.diag(gram) ** 2).sum()
    np.testing.assert_allclose(linear, by_hand * (p / 3 - p**2 / 4), rtol=1e-12)


@pytest.mark.parametrize("number", [1, 2])
def test_orthogonal_features_have_no_distance(number):
    bias = np.linspace(-0.2, 0.2, number)
    exact = tm.theory.scrubbing_distance(np.eye(number), bias, 0.4)
    np.testing.assert_allclose(exact, 0, atol=1e-15)
    assert tm.theory.scrubbing_distance_linear(np.eye(number), 0.4) == 0


def test_rotation_and_relabelling_change_nothing():
    rng = np.random.default_rng(3)
    weights, bias, density = rng.normal(size=(2, 5)), rng.normal(size=5), rng.uniform(size=5)
    turn, order = np.linalg.qr(rng.normal(size=(2, 2)))[0], rng.permutation(5)
    exact = tm.theory.scrubbing_distance(weights, bias, density)
    again = tm.theory.scrubbing_distance(turn @ weights[:, order], bias[order], density[order])
    np.testing.assert_allclose(again, exact, rtol=1e-10)


def test_traced_models_are_mapped():
    weights = np.stack([DIGON, 0.5 * DIGON]).astype(np.float32)
    distance = jax.jit(jax.vmap(lambda w: tm.theory.scrubbing_distance(w, np.zeros(2), 0.3)))
    one_by_one = [tm.theory.scrubbing_distance(w, np.zeros(2), 0.3) for w in weights]
    np.testing.assert_allclose(distance(weights), one_by_one, rtol=1e-4)


def test_too_many_features_are_refused_with_the_remedy():
    with pytest.raises(tm.InputError, match=r"9 features .*interventions\.scrub"):
        tm.theory.scrubbing_distance(np.eye(9), np.zeros(9), 0.3)
