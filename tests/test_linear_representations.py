"""Closed forms of linear representations: additivity, scaling, erasure and steering."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toymodels as tm
from toymodels.analysis import erasure, geometry, linearity
from toymodels.theory import bent

properties = settings(max_examples=15)
seeds = st.integers(0, 2**32 - 1)


def midpoints(count):
    return (np.arange(count) + 0.5) / count


@pytest.mark.parametrize("density", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("bend", [0.0, 0.3, 1.0])
def test_additivity_of_a_pair_by_quadrature(density, bend):
    feature = np.concatenate([midpoints(64), np.zeros(round(64 * (1 / density - 1)))])
    first, second = np.meshgrid(feature, feature)
    hidden = np.maximum(first - second, (1 - bend) * (first - second))
    alone = first - (1 - bend) * second
    expected = 1 - np.mean((hidden - alone) ** 2) / np.var(hidden)
    # Midpoints of 1/64 are wrong by their square, of which R^2 takes about 10.
    np.testing.assert_allclose(bent.additivity(density, bend), expected, atol=3e-3)


@pytest.mark.parametrize("bend", [0.0, 0.5, 1.0])
def test_scaling_of_either_sign_is_a_correlation(bend):
    scale = 2 * midpoints(10_000) - 1
    hidden = np.maximum(scale, (1 - bend) * scale)
    expected = np.corrcoef(scale, hidden)[0, 1] ** 2
    np.testing.assert_allclose(bent.scaling(bend), expected, atol=1e-6)


@properties
@given(seeds)
def test_erasing_a_feature_costs_one_dimension_of_all(seed):
    """The leverages of all features lose 1 in sum, and the erased feature is left nothing."""
    weights = np.random.default_rng(seed).normal(size=(3, 7))
    covariance, erased = weights @ weights.T, weights[:, 2:3]
    eraser = erasure.least_squares_eraser(
        jnp.zeros(3), jnp.asarray(covariance, jnp.float32), jnp.asarray(erased, jnp.float32)
    )
    left = np.asarray(eraser.matrix, np.float64) @ weights
    # Float32 with a condition number of a few hundred at most.
    np.testing.assert_allclose(left[:, 2], 0, atol=1e-3)

    def readable(directions):
        inverse = np.linalg.pinv(directions @ directions.T, rcond=1e-5)
        return np.sum(directions * (inverse @ directions), axis=0)

    before, after = readable(weights), readable(left)
    np.testing.assert_allclose(np.sum(before - after), 1, atol=1e-3)
    share = np.asarray(geometry.feature_dimensionality(jnp.asarray(weights, jnp.float32)))[2]
    others = np.sum(before - after) - before[2]
    np.testing.assert_allclose(others, 1 - before[2], atol=1e-3)
    assert others <= 1 - share + 1e-3


@properties
@given(seeds)
def test_side_effects_of_steering_are_told_by_the_dimensionality(seed):
    weights = jnp.asarray(np.random.default_rng(seed).normal(size=(3, 7)), jnp.float32)
    effects = linearity.steering_effects(weights, jnp.zeros(7), 1.0, activation=lambda z: z)
    ratio = linearity.side_effects(effects[None])
    share = geometry.feature_dimensionality(weights)
    np.testing.assert_allclose(ratio, np.sqrt(1 / share - 1), rtol=1e-4)


def test_a_probe_of_what_is_equal_is_at_chance_and_of_what_is_not_is_perfect():
    present = jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)), jnp.float32)
    same = jnp.concatenate([present, present])
    np.testing.assert_allclose(erasure.least_squares_auroc(same, same), 0.5, atol=1e-6)
    # Nearly all are alike but for rounding, by which they could be ranked.
    rare = jnp.where(jnp.arange(40)[:, None] < 4, present, 0.0)
    rounded = jnp.concatenate([rare + 1e-6, rare])
    trained = jnp.concatenate([present + 1, present])
    np.testing.assert_allclose(erasure.least_squares_auroc(trained, rounded), 0.5, atol=1e-6)
    moved = jnp.concatenate([present + 10, present])
    assert erasure.least_squares_auroc(moved, moved) == 1


def test_features_lost_are_those_of_the_projector_on_the_rows():
    """All sign vectors are uncorrelated, each of variance 1."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=7)), np.float32)
    weights = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    share = np.diagonal(np.linalg.pinv(weights) @ weights)
    lost = erasure.features_lost(jnp.asarray(signs @ weights.T), jnp.asarray(signs))
    np.testing.assert_allclose(lost, 1 - share, atol=1e-3)


def test_steering_does_what_the_closed_form_says():
    rng = np.random.default_rng(1)
    params = {
        "weights": jnp.asarray(rng.normal(size=(2, 5)), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=5), jnp.float32),
    }
    examples = jnp.asarray(rng.uniform(size=(3, 5)), jnp.float32)
    effects = linearity.steer(tm.ReLUOutput(2), params, examples, jnp.array([-0.5, 1.0]))
    before = examples @ (params["weights"].T @ params["weights"]) + params["bias"][None, :]
    for amount, found in zip((-0.5, 1.0), effects, strict=True):
        for preactivation, changes in zip(before, found, strict=True):
            expected = linearity.steering_effects(
                params["weights"], preactivation, amount, activation=lambda z: jnp.maximum(z, 0)
            )
            np.testing.assert_allclose(changes, expected, atol=1e-5)


def auroc_of_scores(positives, negatives):
    """The AUROC of a probe along a line, on which every example has its score as its place."""
    line = jnp.repeat(jnp.asarray([[1.0], [0.0]]), len(positives), axis=0)
    tested = jnp.asarray(np.concatenate([positives, negatives])[:, None], jnp.float32)
    return erasure.least_squares_auroc(line, tested)


@pytest.mark.parametrize("place", [0.0, 0.0005, -0.0005, 1.2345])
def test_rounding_of_one_shared_score_ranks_nothing(place):
    """Two in three examples share one score: wherever it lies, rounding must not tell them apart.

    The scores of both groups are the same numbers up to 1e-6 of a standard deviation, so the AUROC
    is 1/2. On a grid of 1/1000 the shared score at 0.0005 lies on an edge, and it is far from 1/2.
    """
    rng = np.random.default_rng(0)
    scores = np.where(rng.random(300) < 2 / 3, place, rng.normal(size=300))
    noise = 1e-6 * np.abs(rng.normal(size=(2, 300)))
    auroc = auroc_of_scores(scores + noise[0], scores - noise[1])
    np.testing.assert_allclose(auroc, 1 / 2, atol=1e-3)


def test_scores_that_differ_are_ranked_as_mann_and_whitney_say():
    rng = np.random.default_rng(1)
    positives, negatives = rng.normal(0.5, 1, 200), rng.normal(0, 1, 200)
    exact = (positives[:, None] > negatives[None, :]).mean()
    np.testing.assert_allclose(auroc_of_scores(positives, negatives), exact, atol=1e-3)
