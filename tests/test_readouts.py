"""The best that can be read from activations in superposition, by all states and by samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from probes import FITS, auroc, binary_states, properties, seeds, single

from toymodels import errors
from toymodels.analysis import classification, probing, readouts


@jax.jit
def log_odds(hidden, centres, log_weights, labels, noise):
    return readouts.posterior_log_odds(hidden, centres, log_weights, labels, noise=noise)


@properties
@given(seeds)
def test_decoding_directions_are_the_least_squares_of_many_samples(seed):
    random = np.random.default_rng(seed)
    weights, variances = random.normal(size=(3, 5)), random.random(5) + 0.1
    weights[:, 2] = 0
    # Columns scaled so that their second moments are the covariances.
    mixing = np.hstack([weights * np.sqrt(variances), 0.3 * np.eye(3)])
    target = np.hstack([np.diag(np.sqrt(variances)), np.zeros((5, 3))])
    expected = np.linalg.lstsq(mixing.T, target.T, rcond=None)[0]
    actual = readouts.decoding_directions(*single(weights, variances), noise=0.3)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    np.testing.assert_array_equal(actual[:, 2], 0)


@properties
@given(seeds)
def test_the_posterior_is_a_mixture(seed):
    random = np.random.default_rng(seed)
    hidden, centres = random.normal(size=(7, 2)), random.normal(size=(6, 2))
    weights, labels = random.dirichlet(np.ones(6)), np.array([True, False] * 3)
    squares = np.sum((hidden[:, None] - centres[None]) ** 2, axis=2)
    likelihood = weights * np.exp(-squares / 2 / 0.5**2)
    expected = np.log(likelihood[:, labels].sum(axis=1) / likelihood[:, ~labels].sum(axis=1))
    actual = log_odds(*single(hidden, centres, np.log(weights), labels), 0.5)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_one_feature_has_the_posterior_of_two_normals():
    weight, density, noise = np.array([0.6, -0.8]), 0.2, 0.4
    states, log_weights = binary_states(jnp.array([density]))
    hidden = np.random.default_rng(0).normal(size=(9, 2))
    centres = np.outer(states, weight)
    actual = log_odds(*single(hidden, centres), log_weights, states[:, 0], noise)
    prior = np.log(density / (1 - density))
    np.testing.assert_allclose(actual, (hidden @ weight - 0.5) / noise**2 + prior, atol=1e-4)


def test_all_states_of_binary_features_have_their_probabilities():
    density = np.array([0.1, 0.5, 0.9])
    states, log_weights = binary_states(*single(density))
    weights = np.exp(np.asarray(log_weights, float))
    assert len(np.unique(states, axis=0)) == 8
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(weights @ np.asarray(states), density, rtol=1e-6)
    pair = weights @ np.asarray(states[:, 0] & states[:, 2])
    np.testing.assert_allclose(pair, 0.1 * 0.9, rtol=1e-5)
    with pytest.raises(errors.InputError, match="16 or fewer"):
        readouts.binary_states(jnp.full(17, 0.5))


def superposed(key, weights, density, noise, examples):
    key_features, key_noise = jax.random.split(key)
    features = jax.random.bernoulli(key_features, density, (examples, weights.shape[1]))
    noises = noise * jax.random.normal(key_noise, (examples, weights.shape[0]))
    return features, features @ weights.T + noises


@pytest.mark.parametrize("seed", range(5))
def test_no_probe_beats_the_posterior(seed):
    excess, error = beaten(jax.random.key(seed))
    assert np.all(excess < 4 * error)


@jax.jit
def beaten(key):
    """Return the AUROC of each probe less that of the posterior, and its standard error."""
    keys = jax.random.split(key, 3)
    weights = jax.random.normal(keys[0], (2, 5))
    (seen, hidden), (fresh, other) = (superposed(key, weights, 0.3, 0.3, 1000) for key in keys[1:])
    states, log_weights = readouts.binary_states(jnp.full(5, 0.3))

    def one(seen, fresh, state, weight):
        known = states @ weights.T, log_weights, state
        best = readouts.posterior_log_odds(other, *known, noise=0.3)
        scores = [probing.scores(fit(hidden, seen), other) for fit in FITS.values()]
        scores = jnp.stack([best, *scores, jax.nn.relu(other @ weight - 0.1)])
        placed = jax.vmap(classification.placements, (0, None))(scores, fresh)
        above = placed[1:] - placed[:1]
        variance = sum(
            jnp.var(above, 1, where=chosen[None]) / jnp.sum(chosen) for chosen in (fresh, ~fresh)
        )
        return jnp.mean(above, 1, where=fresh[None]), jnp.sqrt(variance)

    return jax.vmap(one, (1, 1, 1, 1))(seen, fresh, states, weights)


def test_alone_in_its_dimension_a_feature_is_read_as_well_as_can_be():
    weights = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, -0.8]])
    features, hidden = superposed(jax.random.key(0), weights, 0.3, 0.4, 500)
    states, log_weights = binary_states(jnp.full(3, 0.3))
    best = log_odds(hidden, states @ weights.T, log_weights, states[:, 0], 0.4)
    np.testing.assert_allclose(
        auroc(best, features[:, 0]), auroc(hidden @ weights[:, 0], features[:, 0]), atol=1e-5
    )


def test_samples_in_place_of_all_states_enclose_the_ceiling():
    noise, density = 0.3, 0.3
    weights = jax.random.normal(jax.random.key(0), (3, 6))
    states, log_weights = readouts.binary_states(jnp.full(6, density))

    def areas(key):
        key_states, key_fresh = jax.random.split(key)
        drawn, noisy = superposed(key_states, weights, density, noise, 150)
        fresh, hidden = superposed(key_fresh, weights, density, noise, 150)
        drawn_as_states = drawn @ weights.T, jnp.zeros(150), drawn[:, 0]
        every_state = states @ weights.T, log_weights, states[:, 0]
        return jnp.stack([
            classification.auroc(readouts.posterior_log_odds(h, *known, noise=noise), labels[:, 0])
            for h, known, labels in [
                (hidden, drawn_as_states, fresh),
                (hidden, every_state, fresh),
                (noisy, drawn_as_states, drawn),
            ]
        ])  # fmt: skip

    found = np.asarray(jax.jit(jax.vmap(areas))(jax.random.split(jax.random.key(1), 300)), float)
    for gap in np.diff(found, axis=1).T:
        assert gap.mean() > 4 * gap.std(ddof=1) / np.sqrt(len(gap))  # both are seen, not only > 0
