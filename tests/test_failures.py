"""The closed forms of wrong answers of methods, against other ways to each number."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import toymodels as tm
from toymodels import circuits
from toymodels.theory import failures

NUMBER = 400_000


def pair(density, seed, *, together):
    """Draw examples of the two features of the pair, with NumPy."""
    rng = np.random.default_rng(seed)
    values, present = rng.uniform(size=(2, NUMBER)), rng.uniform(size=(2, NUMBER)) < density
    return values * (present[:1] if together else present)


def outputs(x):
    return np.maximum(np.stack([x[0] - x[1], x[1] - x[0]]), 0)


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_scrubbing_a_pair_that_occurs_together_recovers_more_than_everything(p):
    x, other, random = (pair(p, seed, together=True) for seed in range(3))
    scrubbed = [outputs(np.stack([x[0], other[1]]))[0], outputs(np.stack([random[0], x[1]]))[1]]
    losses = [((x - y) ** 2).sum(0).mean() for y in (outputs(x), scrubbed, outputs(random))]
    exact = [p / 3, p**2 / 3, 5 * p / 6 - p**2 / 3]
    np.testing.assert_allclose(losses, exact, atol=4e-3)
    recovered = (exact[1] - exact[2]) / (exact[0] - exact[2])
    np.testing.assert_allclose(failures.recovered_together(p), recovered, rtol=1e-12)
    assert failures.recovered_together(1.0) == 1


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_the_own_shares_are_the_correlations_of_two_outputs_that_share_the_feature(p):
    x, other = (pair(p, seed, together=False) for seed in (0, 1))
    found = np.corrcoef(outputs(x)[0], outputs(np.stack([x[0], other[1]]))[0])[0, 1]
    np.testing.assert_allclose(failures.own_share(p), found, atol=0.01)
    x = pair(p, 0, together=True)
    fresh = np.random.default_rng(1).uniform(size=NUMBER) * (x[0] > 0)
    found = np.corrcoef(outputs(x)[0], outputs(np.stack([x[0], fresh]))[0])[0, 1]
    np.testing.assert_allclose(failures.own_share_together(p), found, atol=0.01)


def test_the_own_share_is_what_the_distance_of_scrubbing_leaves():
    """The distance is 4 E Var(y_1 | x_1), because the pair is symmetric."""
    p = 0.3
    distance = tm.theory.scrubbing_distance(np.array([[1.0, -1.0]]), np.zeros(2), p)
    mean, square = p * ((1 - p) / 2 + p / 6), p * ((1 - p) / 3 + p / 12)
    share = 1 - float(distance) / 4 / (square - mean**2)
    np.testing.assert_allclose(failures.own_share(p), share, rtol=1e-12)


@pytest.mark.parametrize(("size", "dimensions"), [(1, 2), (1, 6), (3, 6), (5, 6)])
def test_a_random_subspace_is_right_as_often_as_in_samples(size, dimensions):
    rng = np.random.default_rng(0)
    # The squared share of a fixed direction: that of a random direction in fixed dimensions.
    squares = rng.normal(size=(NUMBER // 4, dimensions)) ** 2
    q = squares[:, :size].sum(1) / squares.sum(1)
    base, source = rng.normal(size=(2, len(q)))
    aside = rng.normal(size=(2, len(q)))  # parts of base and source inside, across the direction
    inside = q * (source - base) + np.sqrt(q * (1 - q)) * (aside[1] - aside[0])
    right, changing = (base + inside > 0) == (source > 0), (base > 0) != (source > 0)
    found = failures.random_subspace_accuracy(size, dimensions)
    np.testing.assert_allclose(found.all_pairs, right.mean(), atol=0.007)
    np.testing.assert_allclose(found.changing_pairs, right[changing].mean(), atol=0.01)


def test_half_of_the_space_is_a_coin_on_changing_pairs():
    assert abs(failures.random_subspace_accuracy(3, 6).changing_pairs - 0.5) < 1e-9


@pytest.mark.parametrize(
    ("gradients", "change", "effect"), [(5, 2.4, 0.96), (5, 1.5, 0.9), (7, 3.0, 6 / 7), (1, 4, 0)]
)
def test_the_midpoint_rule_is_a_sum_over_slopes(gradients, change, effect):
    points = change * (np.arange(gradients) + 0.5) / gradients
    np.testing.assert_allclose((points < 1).mean() * change, effect, rtol=1e-12)
    np.testing.assert_allclose(failures.midpoint_effect(change, gradients), effect, rtol=1e-12)


def crosscoder_loss(decoders, strength, penalty):
    """Return the mean loss over a grid of features, each with its ideal code."""
    x = (np.arange(4000) + 0.5) / 4000
    target, decoders = np.array([1.0, strength]), np.abs(decoders)
    code = x * (target @ decoders) - penalty / 2 * decoders.sum()
    code = np.maximum(code / (decoders @ decoders), 0)
    errors = x[:, None] * target - code[:, None] * decoders
    return np.mean((errors**2).sum(1) + penalty * code * decoders.sum())


@pytest.mark.parametrize("penalty", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5, 1.0])
def test_the_crosscoder_is_the_minimum_over_angles(strength, penalty):
    best = optimize.minimize_scalar(
        lambda angle: crosscoder_loss(
            np.array([math.cos(angle), math.sin(angle)]), strength, penalty
        ),
        bounds=(0, 1),
        method="bounded",
        options={"xatol": 1e-9},
    )
    exact = failures.crosscoder_ratio(strength, penalty)
    np.testing.assert_allclose(exact, math.tan(best.x), atol=1e-4)
    assert 0 <= exact <= strength


def test_the_crosscoder_shrinks_to_nothing_at_the_threshold():
    threshold = failures.crosscoder_threshold(0.2)
    np.testing.assert_allclose(threshold, 0.3 / 2.1, rtol=1e-12)  # u = 0.1
    assert failures.crosscoder_ratio(threshold - 1e-9, 0.2) == 0
    assert 0 < failures.crosscoder_ratio(threshold + 1e-6, 0.2) < 1e-5
    np.testing.assert_allclose(failures.crosscoder_ratio(0.4, 0.0), 0.4, rtol=1e-12)


@pytest.mark.parametrize("penalty", [0.1, 1.0, 1.8])
def test_the_transcoder_that_skips_is_the_convex_minimum(penalty):
    def loss(codes):
        first, skip, second = codes
        errors = (1 - first) ** 2 + (1 - skip - second) ** 2
        return errors + penalty * (math.hypot(first, skip) + second)

    start, bounds = np.full(3, 0.5), [(1e-9, 1)] * 3
    best = optimize.minimize(loss, start, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-15})
    skipped = failures.skipped_effect(penalty)
    np.testing.assert_allclose(best.x, [skipped, skipped, 0], atol=1e-4)


@pytest.mark.parametrize("features", [2, 3, 4, 5, 6])
def test_a_random_direction_is_near_some_feature(features):
    angles = np.pi * (np.arange(100_000) + 0.5) / 100_000
    own = 2 * np.pi * np.arange(features) / features
    nearest = np.abs(np.cos(angles[:, None] - own)).max(1).mean()
    np.testing.assert_allclose(failures.polygon_cosine(features), nearest, rtol=1e-8)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5])
def test_the_grid_of_the_benchmark_is_the_trapezoid_rule(share):
    edges = 10_000
    curve = jnp.minimum(jnp.arange(edges + 1) / (share * edges), 1.0)
    np.testing.assert_allclose(
        failures.grid_ratio(share), circuits.areas(curve).cpr_grid, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: failures.recovered_together(0.0), "density is 0"),
        (lambda: failures.own_share(1.5), "density is 1.5"),
        (lambda: failures.random_subspace_accuracy(6, 6), "size is 6"),
        (lambda: failures.midpoint_effect(0.5, 3), "change is 0.5"),
        (lambda: failures.crosscoder_ratio(0.0, 0.1), "strength is 0"),
        (lambda: failures.crosscoder_threshold(3.0), "penalty is 3"),
        (lambda: failures.skipped_effect(4.0), "penalty is 4"),
        (lambda: failures.polygon_cosine(1), "features is 1"),
        (lambda: failures.grid_ratio(0.6), "share is 0.6"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    with pytest.raises(tm.InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
