"""Decompositions of weights: planted ones, exact losses, chance, and a short training."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import toymodels as tm
from toymodels import circuits
from toymodels.analysis import subcomponents as scores

PENTAGON = 1.2 * jnp.stack([f(2 * jnp.pi * jnp.arange(5) / 5) for f in (jnp.cos, jnp.sin)])


def gates(parts, *, constant):
    """Return gates that are `constant` for every input."""
    none = jnp.zeros((parts, 1))
    return circuits.Gates(none, none, none, jnp.full(parts, constant))


def subcomponents(left, right, *, importance):
    constant = gates(len(left), constant=importance)
    return circuits.Subcomponents(jnp.asarray(left), jnp.asarray(right), constant, constant)


def test_the_right_answer_is_perfect_in_any_order_and_scale():
    order, scale = jnp.array([3, 0, 4, 1, 2]), jnp.array([[2.0], [0.5], [-1], [3], [-2]])
    left, right = PENTAGON.T[order] * scale, jnp.eye(5)[order] / scale
    left, right = jnp.vstack([left, jnp.zeros((2, 2))]), jnp.vstack([right, jnp.ones((2, 5))])
    for score, perfect in (
        (scores.column_cosines, 1),
        (scores.length_ratios, 1),
        (scores.recovery_errors, 0),
    ):
        np.testing.assert_allclose(score(left, right, PENTAGON), perfect, atol=1e-6)


def test_a_feature_in_two_halves_has_half_its_length():
    left, right = jnp.vstack([PENTAGON.T] * 2), jnp.vstack([jnp.eye(5)] * 2) / 2
    np.testing.assert_allclose(scores.column_cosines(left, right, PENTAGON), 1, atol=1e-6)
    np.testing.assert_allclose(scores.length_ratios(left, right, PENTAGON), 1 / 2, atol=1e-6)
    np.testing.assert_allclose(scores.recovery_errors(left, right, PENTAGON), 1 / 2, atol=1e-6)


def test_cosines_and_lengths_do_not_see_that_features_are_merged():
    row = jnp.array([[1.0, -1, 2]])  # one subcomponent holds all three features
    left = jnp.ones((1, 1))
    np.testing.assert_allclose(scores.column_cosines(left, row, row), 1, atol=1e-6)
    np.testing.assert_allclose(scores.length_ratios(left, row, row), 1, atol=1e-6)
    merged = np.sqrt([5, 5, 2]) / [1, 1, 2]  # the other features, relative to the own one
    np.testing.assert_allclose(scores.recovery_errors(left, row, row), merged, rtol=1e-6)


def test_features_of_length_zero_have_zeros():
    weights = jnp.array([[1.0, 0]])
    left, right = jnp.ones((1, 1)), jnp.array([[1.0, 0]])
    np.testing.assert_allclose(scores.column_cosines(left, right, weights), [1, 0])
    np.testing.assert_allclose(scores.length_ratios(left, right, weights), [1, 0])
    np.testing.assert_allclose(scores.recovery_errors(left, right, weights), 0)


def test_an_antipodal_pair_in_one_subcomponent_is_a_pair_and_no_feature():
    weights = jnp.array([[1.0, -1, 0, 0], [0, 0, 2, -1]])  # two pairs, of which one is merged
    left = jnp.array([[3.0, 0], [0, 2], [0, -1]])
    right = jnp.array([[1 / 3, -1 / 3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    pairs = scores.pair_errors(left, right, weights)
    np.testing.assert_allclose(pairs, pairs.T)
    np.testing.assert_allclose(pairs[0, 1], 0, atol=1e-6)
    # The nearest to the other pair, of lengths 2 and 1, lacks the shorter feature.
    np.testing.assert_allclose(pairs[2, 3], 5**-0.5, rtol=1e-6)
    np.testing.assert_array_equal(np.diagonal(pairs), np.inf)
    np.testing.assert_allclose(
        scores.recovery_errors(left, right, weights), [1, 1, 0, 0], atol=1e-6
    )


def test_a_subcomponent_has_the_length_of_its_matrix():
    left, right = (jax.random.normal(jax.random.key(k), (7, k)) for k in (2, 5))
    matrices = np.einsum("ch,cf->chf", left, right)
    np.testing.assert_allclose(scores.lengths(left, right), np.linalg.norm(matrices, axis=(1, 2)))


def test_the_error_of_a_sum_is_the_share_of_the_length_that_is_missing():
    left, right = PENTAGON.T, jnp.eye(5).at[0].set(0)  # one of five columns of equal length
    np.testing.assert_allclose(scores.sum_error(left, right, PENTAGON), 5**-0.5, rtol=1e-6)
    np.testing.assert_allclose(scores.sum_error(left, jnp.eye(5), PENTAGON), 0, atol=1e-7)


def test_chance_in_the_plane_is_the_integral_and_that_of_random_subcomponents():
    np.testing.assert_allclose(scores.chance_cosine(1, 2), 0, atol=1e-12)
    np.testing.assert_allclose(scores.chance_cosine(2, 2), 4 / np.pi**2)
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.random.normal(k, (2000, 10, n)) for k, n in zip(keys, (2, 5), strict=True))
    found = jax.vmap(scores.column_cosines, (0, 0, None))(left, right, PENTAGON)
    np.testing.assert_allclose(jnp.mean(found), scores.chance_cosine(10, 2), atol=0.005)


@pytest.mark.parametrize("parts", [1, 2, 20, 1000])
def test_chance_in_space_is_the_largest_of_uniform_numbers(parts):
    """Archimedes: cosines of random directions in three dimensions are uniform."""
    expected = 1 - 2 / (parts + 1)
    np.testing.assert_allclose(scores.chance_cosine(parts, 3), expected, atol=1e-12)


@pytest.mark.parametrize("hidden", [2, 5, 10])
def test_chance_is_that_of_samples_in_any_dimension(hidden):
    normal = np.random.default_rng(0).normal(size=(4000, 20, hidden))
    cosines = normal[..., 0] / np.linalg.norm(normal, axis=2)
    error = cosines.max(axis=1).std() / 4000**0.5
    expected = cosines.max(axis=1).mean()
    np.testing.assert_allclose(scores.chance_cosine(20, hidden), expected, atol=4 * error)


def test_identity_errors_of_extremes():
    identity = jnp.eye(5, 8)[:, np.random.default_rng(1).permutation(8)]
    assert scores.identity_error(identity) == 0
    assert scores.identity_error(identity * 0.95) == 0
    assert scores.identity_error(identity * 0.5) == 5
    assert scores.identity_error(jnp.zeros((5, 8))) == 5
    assert scores.identity_error(jnp.ones((5, 8))) == 5 * 7


def test_with_all_importances_one_the_right_answer_pays_only_for_them():
    found = subcomponents(PENTAGON.T, jnp.eye(5), importance=1.0)
    uniform = jax.random.uniform(jax.random.key(0), (10,))
    x, bias = jnp.array([0.3, 0, 0.9, 0, 0]), jnp.full(5, -0.1)
    loss = circuits.masks_loss(found.layers(), tied(PENTAGON, bias), x, uniform)
    np.testing.assert_allclose(loss.reconstruction, 0, atol=1e-12)
    np.testing.assert_allclose(loss.importance, 10, rtol=1e-5)


def tied(weights, bias):
    return circuits.Layer(weights), circuits.Layer(weights.T, bias, jax.nn.relu)


def test_the_loss_of_one_feature_is_that_of_its_masks():
    """The output of W = 2 and x = 1/2 is 2, and masks of r and s make it 2 r s."""
    found = subcomponents([[2.0]], [[0.9]], importance=0.2)
    r, s = 0.2 + 0.8 * 0.25, 0.2 + 0.8 * 0.5
    layers, uniform = tied(jnp.array([[2.0]]), jnp.zeros(1)), jnp.array([0.25, 0.5])
    loss = circuits.masks_loss(found.layers(), layers, jnp.array([0.5]), uniform)
    both, first, second = 2 * 0.9**2 * r * s, 2 * 0.9 * r, 2 * 0.9 * s
    reconstruction = (both - 2) ** 2 + ((first - 2) ** 2 + (second - 2) ** 2) / 2
    np.testing.assert_allclose(
        circuits.unfaithfulness(found.layers()[:1], layers[:1]), 0.2**2, rtol=1e-5
    )
    np.testing.assert_allclose(loss.reconstruction, reconstruction, rtol=1e-5)
    np.testing.assert_allclose(loss.importance, 0.4, rtol=1e-6)


def test_the_hard_sigmoid_leaks_only_where_it_is_told_to():
    logits = jnp.array([-1.0, 0.3, 2.0])
    np.testing.assert_allclose(circuits.hard_sigmoid(logits), [0, 0.3, 1])
    np.testing.assert_allclose(circuits.hard_sigmoid(logits, leak_below=0.01), [-0.01, 0.3, 1])
    np.testing.assert_allclose(circuits.hard_sigmoid(logits, leak_above=0.01), [0, 0.3, 1.01])


def test_importances_are_those_of_each_feature_alone():
    half = gates(5, constant=0.5)
    found = circuits.Subcomponents(jnp.asarray(PENTAGON.T), jnp.eye(5), half, half)
    importance = circuits.importances(found, jnp.asarray(PENTAGON), value=0.75)
    np.testing.assert_allclose(importance, np.full((2, 5, 5), 0.5))


def decompose(**changed):
    given = {"parts": 3, "gate_units": 2, "minimality": 1e-3, "steps": 400, "batch": 16}
    recipe = tm.Recipe(steps=400, batch=16, learning_rate=2e-2)
    given = {"sample": tm.SparseUniform(2, 0.5).sample, "bias": jnp.zeros(2), **given, **changed}
    return circuits.decompose_parameters(
        jax.random.key(0), jnp.eye(2), optimizer=recipe.optimizer(), **given
    )


def test_training_makes_the_sum_of_subcomponents_the_weights():
    found = jax.jit(decompose)()
    np.testing.assert_allclose(found.left.T @ found.right, jnp.eye(2), atol=0.05)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"parts": 0}, "parts is 0"),
        ({"minimality": -1.0}, "minimality is -1, outside"),
    ],
)
def test_bad_input_is_named(changed, message):
    with pytest.raises(tm.InputError, match=message):
        decompose(**changed)


@pytest.fixture
def without_shape_checks():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("without_shape_checks")
def test_scores_name_sizes_that_do_not_fit():
    with pytest.raises(tm.InputError, match="left has 2 and right has 3 parts"):
        scores.column_cosines(jnp.ones((2, 2)), jnp.ones((3, 5)), PENTAGON)
