"""Bounds hold for random matrices, and the arrangements known to attain them do."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrangements import icosahedron, orthoplex, polygon, simplex
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodels.analysis import geometry
from toymodels.theory import bounds
from toymodels.theory.loss import expected_loss, expected_loss_linear

properties = settings(max_examples=100)

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(1, 5), st.integers(2, 20))


def unit(vectors):
    """Return columns of unit length, made from rows."""
    vectors = np.asarray(vectors, float)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T


def equiangular_28():
    """28 lines in 7 dimensions: the permutations of (3, 3, -1, ..., -1)."""
    vectors = np.full((28, 8), -1.0)
    for vector, pair in zip(vectors, itertools.combinations(range(8), 2), strict=True):
        vector[list(pair)] = 3
    basis = np.linalg.svd(np.ones((1, 8)))[2][1:]
    return unit(vectors @ basis.T)


def roots_of_d4():
    """12 lines in 4 dimensions, at right angles or 60 degrees."""
    vectors = []
    for i, j in itertools.combinations(range(4), 2):
        for sign in (1, -1):
            vector = np.zeros(4)
            vector[i], vector[j] = 1, sign
            vectors.append(vector)
    return unit(vectors)


def random_weights(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


def cosines(weights):
    directions = weights / np.linalg.norm(weights, axis=0)
    return (directions.T @ directions)[~np.eye(weights.shape[1], dtype=bool)]


def coherence(weights):
    return np.abs(cosines(weights)).max()


def frame_potential(weights):
    return np.sum((weights.T @ weights) ** 2)


def best_subset(weights, is_allowed):
    """Choose columns greedily, each allowed beside all columns chosen before."""
    chosen = []
    for column in range(weights.shape[1]):
        if not chosen or is_allowed(cosines(weights[:, [*chosen, column]])):
            chosen.append(column)
    return chosen


@properties
@given(seeds, shapes)
def test_no_weights_are_less_coherent(seed, shape):
    weights = random_weights(seed, shape)
    assert coherence(weights) >= bounds.min_coherence(*shape[::-1]) - 1e-12


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(np.eye(3), id="orthogonal"),
        pytest.param(simplex(2), id="triangle"),
        pytest.param(simplex(6), id="simplex"),
        pytest.param(icosahedron(), id="icosahedron"),
        pytest.param(equiangular_28(), id="28 in 7"),
        pytest.param(np.array([[1.0, -1.0]]), id="antipodal pair"),
        pytest.param(polygon(8)[:, :4], id="4 lines in the plane"),
        pytest.param(roots_of_d4(), id="12 in 4"),
    ],
)
def test_the_least_coherent_arrangements(weights):
    hidden, num_features = weights.shape
    expected = bounds.min_coherence(num_features, hidden)
    np.testing.assert_allclose(coherence(weights), expected, atol=1e-14)
    # Conversely, no more directions than these have this coherence.
    if 0 < expected < 1 / hidden**0.5 - 1e-9:
        assert bounds.max_features(hidden, expected) == num_features


def test_published_values_of_the_welch_bound():
    for num_features, hidden, expected in (
        (6, 3, 0.44721),
        (40, 10, 0.27735),
        (1000, 100, 0.09492),
        (16384, 768, 0.03523),
    ):
        actual = bounds.min_coherence(num_features, hidden)
        np.testing.assert_allclose(actual, expected, atol=5e-6)


@properties
@given(seeds, shapes, st.floats(0, 1))
def test_a_cap_on_coherence_is_a_cap_on_features(seed, shape, cap):
    hidden, num_features = shape
    weights = random_weights(seed, (hidden, 4 * num_features))
    chosen = best_subset(weights, lambda others: np.abs(others).max() <= cap)
    assert len(chosen) <= bounds.max_features(hidden, cap)


@given(st.integers(1, 50), st.floats(0, 1))
@properties
def test_max_features_inverts_min_coherence(hidden, cap):
    most = bounds.max_features(hidden, cap)
    assert most >= hidden
    if most == math.inf:
        assert cap >= 1 / hidden**0.5 - 1e-6
    else:
        assert bounds.min_coherence(int(most), hidden) <= cap + 1e-6
        assert bounds.min_coherence(int(most) + 1, hidden) > cap


@properties
@given(seeds, shapes, st.sampled_from([0.0, -0.05, -0.2, -0.5]))
def test_few_features_are_at_right_angles_or_more(seed, shape, cosine):
    hidden, num_features = shape
    weights = random_weights(seed, (hidden, 10 * num_features))
    chosen = best_subset(weights, lambda others: others.max() <= cosine)
    assert len(chosen) <= bounds.max_features_apart(hidden, cosine)


@pytest.mark.parametrize("hidden", [1, 2, 3, 7])
def test_orthoplex_and_simplex_are_apart(hidden):
    assert cosines(orthoplex(hidden)).max() <= 0
    assert bounds.max_features_apart(hidden, 0.0) == 2 * hidden
    np.testing.assert_allclose(cosines(simplex(hidden)), -1 / hidden, rtol=1e-12)
    assert bounds.max_features_apart(hidden, -1 / hidden) == hidden + 1
    assert bounds.max_features_apart(hidden, -1e-6) == hidden + 1
    assert bounds.max_features_apart(hidden, -1.0) == 2


@properties
@given(seeds, shapes)
def test_no_weights_have_less_frame_potential(seed, shape):
    weights = random_weights(seed, shape)
    norms = np.linalg.norm(weights, axis=0)
    least = bounds.min_frame_potential(norms, shape[0])
    assert frame_potential(weights) >= least * (1 - 1e-12)
    assert least >= max(np.sum(norms**2) ** 2 / shape[0], np.sum(norms**4)) * (1 - 1e-12)


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(polygon(5), id="pentagon"),
        pytest.param(simplex(4), id="simplex"),
        pytest.param(icosahedron(), id="icosahedron"),
        pytest.param(np.linalg.qr(random_weights(0, (9, 3)))[0].T, id="tight, of unequal lengths"),
        pytest.param(np.diag([3.0, 2.0, 1.0, 0.0]), id="orthogonal"),
        pytest.param(np.array([[3.0, 0, 0], [0, 1, -1]]), id="one long, beside a pair"),
        pytest.param(np.zeros((2, 3)), id="zero"),
    ],
)
def test_tight_frames_and_long_features_have_the_least_frame_potential(weights):
    least = bounds.min_frame_potential(np.linalg.norm(weights, axis=0), weights.shape[0])
    np.testing.assert_allclose(frame_potential(weights), least, rtol=1e-12)


@properties
@given(seeds, st.sampled_from([(1, 2), (2, 5), (5, 4), (4, 20)]))  # each is compiled
def test_sensitivity_is_set_by_the_dimensionality(seed, shape):
    weights = random_weights(seed, shape)
    directions = weights / np.linalg.norm(weights, axis=0)
    for w in (weights, directions):
        measure = jax.jit(geometry.feature_dimensionality)
        dimensionality = np.asarray(measure(jnp.asarray(w, jnp.float32)))
        amplification = np.linalg.norm(w.T @ w, axis=1)
        np.testing.assert_allclose(
            amplification, np.sum(w**2, axis=0) / dimensionality**0.5, rtol=1e-4
        )
    assert amplification.max() >= (shape[1] / shape[0]) ** 0.5 * (1 - 1e-12)


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(np.array([[1.0, -1.0]]), id="antipodal pair"),
        *[pytest.param(polygon(k), id=f"{k}-gon") for k in range(3, 9)],
        *[pytest.param(simplex(d), id=f"simplex in {d}") for d in range(1, 6)],
        pytest.param(orthoplex(3), id="octahedron"),
        pytest.param(icosahedron(), id="icosahedron"),
        pytest.param(equiangular_28(), id="28 in 7"),
    ],
)
def test_dimensionality_of_tight_frames(weights):
    hidden, num_features = weights.shape
    actual = geometry.feature_dimensionality(jnp.asarray(weights, jnp.float32))
    expected = bounds.feature_dimensionality(num_features, hidden)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@properties
@given(seeds, st.integers(1, 4), st.integers(0, 4), st.sampled_from([0.1, 0.7, 1.0]))
def test_no_model_loses_less(seed, hidden, represented, density):
    rng = np.random.default_rng(seed)
    columns = rng.permutation(np.arange(4) < represented)
    weights = rng.normal(size=(hidden, 4)) * columns
    bias, densities = rng.normal(size=4), density * rng.uniform(0.2, 1, size=4)
    importance = rng.uniform(size=4)
    least = bounds.min_loss(represented, densities, importance)
    for loss in (expected_loss, expected_loss_linear):
        assert loss(weights, bias, densities, importance) >= least - 1e-12


@pytest.mark.parametrize("represented", [0, 1, 3, 4])
def test_orthogonal_features_cost_the_variance_of_the_others(represented):
    densities, importance = np.array([0.1, 0.3, 0.5, 0.7]), np.array([1.0, 2.0, 0.5, 0.1])
    costs = importance * (densities / 3 - densities**2 / 4)
    kept = np.isin(np.arange(4), np.argsort(costs)[4 - represented :])
    loss = expected_loss(
        np.diag(1.0 * kept), np.where(kept, 0, densities / 2), densities, importance
    )
    np.testing.assert_allclose(
        loss, bounds.min_loss(represented, densities, importance), atol=1e-15
    )
    np.testing.assert_allclose(loss, costs[~kept].sum(), atol=1e-15)


@properties
@given(seeds, st.floats(0, 0.7))
def test_a_cap_on_coherence_has_a_price(seed, cap):
    """The price of representing k of n features is (n - k) v.

    Random weights are cut down to a set of columns whose coherence is at most the cap.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(2, 4))
    chosen = best_subset(weights, lambda others: np.abs(others).max() <= cap)
    weights[:, ~np.isin(np.arange(4), chosen)] = 0
    price = (4 - min(4, bounds.max_features(2, cap))) * (0.3 / 3 - 0.3**2 / 4)
    for bias in (np.zeros(4), np.full(4, 0.15), rng.normal(size=4)):
        assert expected_loss(weights, bias, 0.3, 1.0) >= price
    np.testing.assert_allclose(
        bounds.min_loss(bounds.max_features(2, cap), np.full(4, 0.3), np.ones(4)), price
    )


def test_what_is_no_arrangement_is_refused():
    with pytest.raises(ValueError, match=r"coherence is 1\.5"):
        bounds.max_features(2, 1.5)
    with pytest.raises(ValueError, match=r"cosine is 0\.5.*max_features"):
        bounds.max_features_apart(2, 0.5)
    with pytest.raises(ValueError, match="num_features is 2: give a whole number, 3 or more"):
        bounds.feature_dimensionality(2, 3)
    with pytest.raises(ValueError, match="num_represented is -1"):
        bounds.min_loss(-1, np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="hidden is 0"):
        bounds.min_coherence(3, 0)
    with pytest.raises(ValueError, match="a norm is -1"):
        bounds.min_frame_potential(np.array([-1.0]), 2)


def test_room_for_all_costs_nothing():
    assert bounds.min_loss(np.inf, np.full(4, 0.3), np.ones(4)) == 0
