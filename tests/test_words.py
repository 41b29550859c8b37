"""Bags of words and mixtures: sampled moments, Fourier modes, and embeddings of manifolds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from toymodels.analysis import manifolds
from toymodels.errors import InputError
from toymodels.theory import embeddings

EXAMPLES = 200_000


def circle(count):
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def distances(places):
    return np.linalg.norm(places[:, None] - places[None], axis=-1)


def covariance(features):
    return embeddings.binary_covariance(features.chances)


def test_moments_of_words_are_those_of_samples():
    features = tm.BagsOfWords(np.array([[0.3, 1.0], [-0.5, 0.2], [0.0, -0.7]]), 3.0, -0.4)
    drawn = np.asarray(features.sample(jax.random.key(0), EXAMPLES), float)
    assert set(np.unique(drawn)) == {0, 1}
    # Five standard errors of a mean of numbers in [0, 1].
    np.testing.assert_allclose(drawn.mean(axis=0), features.chances.mean(axis=0), atol=6e-3)
    np.testing.assert_allclose(np.cov(drawn.T), covariance(features), atol=6e-3)


def test_moments_of_mixtures_are_those_of_samples():
    count, concentration = 4, 0.5
    drawn = np.asarray(tm.ConvexMixtures(count, concentration).sample(jax.random.key(1), EXAMPLES))
    np.testing.assert_allclose(drawn.sum(axis=1), 1, rtol=1e-5)
    assert drawn.min() >= 0
    expected = (np.eye(count) / count - 1 / count**2) / (count * concentration + 1)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=2e-3)


@pytest.mark.parametrize("count", [5, 12])
def test_words_on_a_circle_have_the_fourier_modes(count):
    found = covariance(tm.BagsOfWords(circle(count), 10.0))
    np.testing.assert_allclose(found, np.roll(found, 1, axis=(0, 1)), atol=1e-7)
    harmonics = embeddings.circulant_eigenvalues(found[0])
    np.testing.assert_allclose(np.sort(harmonics), np.linalg.eigvalsh(found), atol=1e-7)
    # The first harmonic is the strongest, so the best plane holds a regular polygon in order.
    best = embeddings.linear_embedding(found, 2)
    np.testing.assert_allclose(best.loss, harmonics.sum() - 2 * harmonics[1], rtol=1e-6)
    np.testing.assert_allclose(
        best.weights.T @ best.weights, circle(count) @ circle(count).T * 2 / count, atol=1e-5
    )


def test_the_embedding_is_a_minimum_of_the_linear_loss():
    random = np.random.default_rng(0)
    factor = random.normal(size=(5, 5))
    table = factor @ factor.T
    best = embeddings.linear_embedding(table, 2)

    def loss(weights):
        error = np.eye(5) - weights.T @ weights
        return np.trace(error @ table @ error)

    np.testing.assert_allclose(loss(best.weights), best.loss, rtol=1e-10)
    for _ in range(20):
        assert loss(best.weights + 0.1 * random.normal(size=(2, 5))) > best.loss
    assert embeddings.linear_embedding(table, 7).loss == 0


def test_geometry_of_a_circle_and_of_noise():
    places = circle(8)
    chord = distances(places)
    np.testing.assert_allclose(
        manifolds.cosine_by_distance(jnp.asarray(3 * places.T), chord), 1, atol=1e-5
    )
    np.testing.assert_allclose(manifolds.distortion(jnp.asarray(3 * places.T), chord), 0, atol=1e-5)
    arc = 2 * np.arcsin(np.minimum(chord / 2, 1))
    ratio = (chord / np.where(arc > 0, arc, 1))[np.triu_indices(8, 1)]
    expected = ratio.std() / ratio.mean()
    np.testing.assert_allclose(
        manifolds.distortion(jnp.asarray(places.T), arc), expected, rtol=1e-4
    )
    noise = jnp.asarray(np.random.default_rng(1).normal(size=(2, 40)))
    # 780 cosines in 20 groups: chance explains 19 of 779 parts.
    assert manifolds.cosine_by_distance(noise, distances(circle(40))) < 0.1


def test_measures_of_a_manifold_map_over_models():
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(3, 2, 6)))
    table = distances(circle(6))
    stacked = jax.vmap(lambda each: manifolds.distortion(each, table))(weights)
    np.testing.assert_allclose(
        stacked, [manifolds.distortion(each, table) for each in weights], rtol=1e-5
    )


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match=r"places has shape \(0, 2\): give words x dimensions"):
        tm.BagsOfWords(np.ones((0, 2)), 1.0).sample(jax.random.key(0), 2)
    with pytest.raises(InputError, match="concentration is 0"):
        tm.ConvexMixtures(3, 0.0).sample(jax.random.key(0), 2)
    with pytest.raises(InputError, match="chances is 2"):
        embeddings.binary_covariance([[2.0]])
    with pytest.raises(InputError, match="row differs from itself backwards"):
        embeddings.circulant_eigenvalues([1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="is not symmetric"):
        embeddings.linear_embedding([[1.0, 2.0], [0.0, 1.0]], 1)
    with pytest.raises(InputError, match="distances has shape"):
        manifolds.distortion(jnp.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(InputError, match="two features have the distance 0"):
        manifolds.distortion(jnp.ones((2, 3)), np.zeros((3, 3)))
