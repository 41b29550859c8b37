"""Planted concepts that are parallel, orthogonal or a simplex by construction."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodels import errors
from toymodels.analysis import classification, concepts

properties = settings(max_examples=15)
seeds = st.integers(0, 2**32 - 1)

held_out_cosines = jax.jit(concepts.held_out_cosines)
causal_metric = jax.jit(concepts.causal_metric)
cosines = jax.jit(concepts.cosines)
simplex_deviation = jax.jit(concepts.simplex_deviation)
hierarchy_cosines = jax.jit(concepts.hierarchy_cosines)

signs = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))  # all words of three concepts


@jax.jit
def auroc(positives, negatives):
    scores = jnp.concatenate([positives, negatives])
    return classification.auroc(scores, jnp.arange(scores.size) < positives.size)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def single(array):
    return jnp.asarray(array, jnp.float32)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        pytest.param([[1, 2], [2, 4], [0.5, 1]], 1, id="parallel"),
        pytest.param(np.eye(3), 0, id="orthogonal"),
        pytest.param(np.eye(4) - 1 / 4, -1, id="a simplex"),
        pytest.param([[1, 1], [1, -1], [1, 0]], [0.1**0.5, 0.1**0.5, 1], id="a fan"),
        pytest.param(np.zeros((3, 2)), 0, id="no differences"),
    ],
)
def test_directions_of_held_out_pairs_have_known_cosines(differences, expected):
    actual = held_out_cosines(single(differences))
    np.testing.assert_allclose(actual, np.broadcast_to(expected, actual.shape), atol=1e-6)


@properties
@given(seeds)
def test_formulas_one_at_a_time(seed):
    differences, metric = normal(seed, 5, 3), normal(seed + 1, 3, 3)
    metric = metric @ metric.T + np.eye(3)
    for i, actual in enumerate(held_out_cosines(single(differences))):
        mean = np.delete(differences, i, axis=0).mean(axis=0)
        expected = differences[i] @ mean / np.linalg.norm(differences[i]) / np.linalg.norm(mean)
        np.testing.assert_allclose(actual, expected, atol=1e-4)
    angles = cosines(single(differences), single(metric))
    for i, j in itertools.product(range(5), repeat=2):
        u, v = differences[i], differences[j]
        expected = u @ metric @ v / np.sqrt((u @ metric @ u) * (v @ metric @ v))
        np.testing.assert_allclose(angles[i, j], expected, atol=1e-4)
    actual = auroc(single(differences[0].round()), single(differences[1].round()))
    pairs = itertools.product(differences[0].round(), differences[1].round())
    wins = [(a > b) + (a == b) / 2 for a, b in pairs]
    np.testing.assert_allclose(actual, np.mean(wins), rtol=1e-6)


def test_auroc_of_two_shifted_normals():
    normal_cdf = 0.76024993890652  # Phi(1 / sqrt 2): two variances of 1, means 1 apart
    scores = normal(0, 2, 2000)
    actual = auroc(single(scores[0] + 1), single(scores[1]))
    # The variance is at most A (1 - A) / min(n, m), whatever the scores.
    assert abs(actual - normal_cdf) < 4 * np.sqrt(normal_cdf * (1 - normal_cdf) / 2000)
    np.testing.assert_allclose(
        auroc(single(np.exp(scores[0] + 1)), single(np.exp(scores[1]))), actual
    )
    assert auroc(jnp.array([2.0, 3.0]), jnp.array([0.0, 1.0])) == 1
    assert auroc(jnp.ones(3), jnp.ones(2)) == 1 / 2


def test_a_concept_has_a_direction_and_random_pairs_have_none():
    words = signs @ normal(0, 3, 40)
    kept = np.flatnonzero(signs[:, 0] < 0)
    partners = [np.flatnonzero((signs == signs[i] * [-1, 1, 1]).all(axis=1))[0] for i in kept]
    concept = held_out_cosines(single(words[partners] - words[kept]))
    np.testing.assert_allclose(concept, 1, atol=1e-6)
    random = held_out_cosines(single(normal(1, 20, 40)))
    assert auroc(concept, random) == 1


@properties
@given(seeds)
def test_planted_concepts_are_orthonormal_in_the_causal_metric(seed):
    directions = np.diag([1, 2, 0.5]) @ (np.eye(3, 5) + 0.3 * normal(seed, 3, 5) / 5)
    words = signs @ directions + normal(seed, 5)
    metric = causal_metric(single(words))
    np.testing.assert_allclose(directions @ metric @ directions.T, np.eye(3), atol=1e-4)
    np.testing.assert_allclose(cosines(single(directions), metric), np.eye(3), atol=1e-4)
    assert np.linalg.matrix_rank(metric, tol=1e-3) == 3


@properties
@given(seeds)
def test_measuring_and_changing_a_concept_are_one_direction(seed):
    directions = np.eye(3, 5) + 0.2 * normal(seed, 3, 5)
    words, context = signs @ directions, normal(seed + 1, 5)
    metric = np.asarray(causal_metric(single(words)))

    def log_odds(embedding):
        weights = np.exp(words @ embedding)
        return [np.log(weights[c > 0].sum() / weights[c < 0].sum()) for c in signs.T]

    before = log_odds(context)
    np.testing.assert_allclose(before, 2 * directions @ context, rtol=1e-6)  # what is measured
    for i, change in enumerate(directions @ metric):
        np.testing.assert_allclose(
            log_odds(context + change) - np.array(before), 2 * np.eye(3)[i], atol=1e-3
        )


@properties
@given(seeds)
def test_causal_angles_do_not_depend_on_the_basis(seed):
    words, turn = normal(seed, 20, 3), np.linalg.qr(normal(seed + 1, 3, 3))[0]
    basis = turn * np.array([1.0, 2.0, 4.0]) @ turn[::-1]
    before = cosines(single(words), causal_metric(single(words)))
    moved = words @ basis
    after = cosines(single(moved), causal_metric(single(moved)))
    np.testing.assert_allclose(after, before, atol=1e-4)


@properties
@given(seeds, st.sampled_from([2, 3, 6]))
def test_one_hot_categories_are_a_regular_simplex(seed, size):
    categories = np.eye(size, 7) * 2 + normal(seed, 7)
    assert simplex_deviation(single(categories), jnp.eye(7)) < 1e-5
    # Every set of independent categories is a regular simplex in its own metric.
    skewed = np.eye(size, 7) + 0.1 * normal(seed, size, 7)
    assert simplex_deviation(single(skewed), causal_metric(single(skewed))) < 1e-3


def test_categories_on_a_line_are_no_simplex():
    line = jnp.array([[-1.0], [0.0], [1.0]])  # cosines -1, 0 and 0, each 1/2 from -1/2
    np.testing.assert_allclose(simplex_deviation(line, jnp.eye(1)), 1 / 2, rtol=1e-6)
    assert simplex_deviation(line[:2], jnp.eye(1)) == 0


def test_a_planted_hierarchy_is_orthogonal_where_the_metric_sees_it():
    basis = normal(0, 4, 4)
    planted = basis[0] + np.concatenate([np.zeros((1, 4)), basis[1:]])
    parent, children = single(planted[0]), single(planted[1:])
    undone = single(np.linalg.inv(basis) @ np.linalg.inv(basis).T)
    np.testing.assert_allclose(hierarchy_cosines(parent, children, undone), 0, atol=1e-4)
    assert np.all(np.abs(hierarchy_cosines(parent, children, jnp.eye(4))) > 0.05)
    np.testing.assert_allclose(
        hierarchy_cosines(
            jnp.array([1.0, 0.0]), jnp.array([[2.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), jnp.eye(2)
        ),
        [0.5**0.5, 0, -1],
        atol=1e-6,
    )


def test_one_example_is_not_enough():
    with pytest.raises(errors.InputError, match="number of pairs"):
        concepts.held_out_cosines(jnp.ones((1, 2)))
    with pytest.raises(errors.InputError, match="number of categories"):
        concepts.simplex_deviation(jnp.ones((1, 2)), jnp.eye(2))


def test_a_metric_of_other_dimensions_is_refused():
    with pytest.raises(errors.InputError, match="directions has 3 and metric has 4 dimensions"):
        inspect.unwrap(concepts.cosines)(jnp.ones((2, 3)), jnp.eye(4))
