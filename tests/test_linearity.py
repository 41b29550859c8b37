"""Sums of features against sums of hidden vectors, for linear, random and intermediate models."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodels import errors, models, sites
from toymodels.analysis import linearity

properties = settings(max_examples=10)
seeds = st.integers(0, 2**32 - 1)


error = jax.jit(linearity.parallelogram_error)
accuracy = jax.jit(linearity.analogy_accuracy, static_argnames="exclude_inputs")
additivity = jax.jit(linearity.additivity, static_argnums=0)
scaling = jax.jit(linearity.scaling, static_argnums=0)


@jax.jit
def both(weights, shift, features, scales):
    def encode(x):
        return weights @ x + shift

    return linearity.additivity(encode, features), linearity.scaling(encode, features[0], scales)


@properties
@given(seeds)
def test_affine_encoders_are_additive_and_scale(seed):
    shares = both(normal(seed, 3, 4), normal(seed, 3), normal(seed, 50, 4), jnp.linspace(-1, 2, 7))
    np.testing.assert_allclose(shares, 1, atol=1e-6)


@pytest.mark.parametrize("density", [0.25, 0.5, 1.0])
def test_an_antipodal_pair_in_one_neuron(density):
    # All pairs of midpoints: an integral with an error of about 1 / 64^2, of which R^2 takes 10.
    uniform = (np.arange(64) + 0.5) / 64
    feature = np.concatenate([uniform, np.zeros(round(64 * (1 / density - 1)))])
    pairs = np.stack(np.meshgrid(feature, feature), axis=-1).reshape(-1, 2)

    def encode(x):
        return nn.relu(jnp.array([[1.0, -1.0]]) @ x)

    p = density  # E h^2 and E h of h = ReLU(x_1 - x_2), and E min(x_1, x_2)^2, one or both active
    variance = p * (1 - p) / 3 + p**2 / 12 - (p * (1 - p) / 2 + p**2 / 6) ** 2
    actual = additivity(encode, jnp.asarray(pairs, jnp.float32))
    np.testing.assert_allclose(actual, 1 - p**2 / 6 / variance, atol=3e-3)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.9])
def test_a_threshold_bends_the_response(threshold):
    def encode(x):
        return nn.relu(x - threshold)

    scales = jnp.asarray((np.arange(1000) + 0.5) / 1000, jnp.float32)
    above = 1 - threshold  # moments of s and ReLU(s - threshold) for s uniform in [0, 1]
    expected = above * (3 - 2 * above) ** 2 / (4 - 3 * above)
    np.testing.assert_allclose(scaling(encode, jnp.ones(1), scales), expected, atol=1e-4)


def test_neurons_without_bias_scale_but_do_not_add():
    weights = normal(0, 3, 5)

    def encode(x):
        return nn.relu(weights @ x)

    for direction in jnp.eye(5):
        np.testing.assert_allclose(scaling(encode, direction, jnp.linspace(0, 1, 5)), 1, atol=1e-6)
    alone = jnp.eye(5) * normal(1, 5)[:, None]
    np.testing.assert_allclose(additivity(encode, alone), 1, atol=1e-6)
    assert additivity(encode, jnp.abs(normal(2, 50, 5))) < 0.9


def test_what_does_not_change_is_linear_and_equal_scales_say_nothing():
    def constant(x):
        return jnp.ones(2)

    scales = jnp.array([0.0, 1.0])
    assert scaling(constant, jnp.ones(3), scales) == 1
    assert additivity(constant, normal(0, 4, 3)) == 1
    with pytest.raises(errors.InputError, match="different scales"):
        linearity.scaling(constant, jnp.ones(3), jnp.ones(2))
    # A sweep differentiates and maps it.
    slope = jax.grad(lambda w: linearity.scaling(lambda x: w * jnp.ones(2), scales, scales))
    np.testing.assert_array_equal(jax.vmap(slope)(jnp.array([0.1, 1.0])), 0)


def quadruples(representations):
    num_a, num_b = representations.shape[:2]
    for a, b in itertools.permutations(range(num_a), 2):
        for c, d in itertools.permutations(range(num_b), 2):
            yield tuple(representations[i, j] for i, j in [(a, c), (b, c), (b, d), (a, d)])


def exact(seed, *shape):
    """Return numbers whose sums and differences are exact in float32."""
    return np.random.default_rng(seed).integers(-64, 65, size=shape).astype(np.float32)


@properties
@given(seeds)
def test_an_additive_world_is_a_parallelogram(seed):
    world = exact(seed, 3, 1, 16) + exact(seed + 1, 1, 4, 16)
    assert error(jnp.asarray(world)) < 1e-6
    for exclude in (False, True):
        assert accuracy(jnp.asarray(world), exclude_inputs=exclude) == 1


@properties
@given(seeds)
def test_formulas_one_quadruple_at_a_time(seed):
    world = exact(seed, 3, 4, 2) + exact(seed + 1, 3, 1, 2)
    closing, sides, hits = [], [], {True: [], False: []}
    for king, man, woman, queen in quadruples(world):
        closing.append(np.sum((king - man + woman - queen) ** 2))
        sides.append(np.sum((king - man) ** 2))
        query = king - man + woman
        others = [word for word in world.reshape(-1, 2) if not np.array_equal(word, queen)]
        for exclude in hits:
            inputs = (king, man, woman) if exclude else ()
            left = [word for word in others if not any(np.array_equal(word, i) for i in inputs)]
            cosines = [query @ w / max(np.linalg.norm(w), 1e-9) for w in [queen, *left]]
            hits[exclude].append(cosines[0] > max(cosines[1:]))
    closing_error = error(jnp.asarray(world))
    np.testing.assert_allclose(closing_error, np.sqrt(np.mean(closing) / np.mean(sides)), rtol=1e-5)
    for exclude, hit in hits.items():
        share = accuracy(jnp.asarray(world), exclude_inputs=exclude)
        # A query in two dimensions can be equally near to two words, within rounding.
        np.testing.assert_allclose(share, np.mean(hit), atol=2.1 / len(hit))


def test_random_worlds_answer_by_chance():
    worlds = normal(0, 400, 3, 3, 200)
    np.testing.assert_allclose(jax.vmap(error)(worlds), 2**0.5, rtol=0.1)

    def answer(exclude):
        return np.asarray(jax.vmap(lambda world: accuracy(world, exclude_inputs=exclude))(worlds))

    np.testing.assert_array_equal(answer(False), 0)
    # All candidates but the inputs are exchangeable, so the mean is 1 / (9 - 3) exactly.
    deviation = answer(True).std(ddof=1) / np.sqrt(len(worlds))
    assert abs(answer(True).mean() - 1 / 6) < 4 * deviation


def test_extremes_of_the_parallelogram():
    signs = jnp.array([1.0, -1.0])
    product = jnp.einsum("a,b,h->abh", signs, signs, jnp.ones(3))
    np.testing.assert_allclose(error(product), 2, rtol=1e-6)
    same = jnp.broadcast_to(exact(0, 1, 4, 2), (3, 4, 2))
    assert error(same) == 0
    assert accuracy(jnp.zeros((3, 3, 2)), exclude_inputs=True) == 0
    two_by_two = normal(1, 2, 2, 20)  # one candidate is left: no evidence of anything
    assert accuracy(two_by_two, exclude_inputs=True) == 1
    assert accuracy(two_by_two, exclude_inputs=False) == 0
    for measure in (
        error,
        lambda world: accuracy(world, exclude_inputs=True),
    ):
        with pytest.raises(errors.InputError, match="values of an attribute"):
            measure(jnp.zeros((3, 1, 2)))


@pytest.mark.parametrize(
    ("model", "activation"),
    [(models.LinearOutput(hidden=3), lambda z: z), (models.ReLUOutput(hidden=3), nn.relu)],
)
def test_steering_is_an_intervention_on_the_hidden_vector(model, activation):
    weights, bias, features = normal(0, 3, 5), normal(1, 5), normal(2, 5)
    params = {"weights": weights, "bias": bias}
    preactivation = weights.T @ (weights @ features) + bias
    effects = linearity.steering_effects(weights, preactivation, 0.7, activation=activation)
    vectors = linearity.steering_vectors(weights)

    def output(change):
        return sites.intervene(model, params, features, {"hidden": lambda h: h + change})

    for i in (0, 3):
        steered = output(0.7 * vectors[:, i]) - output(0 * vectors[:, i])
        np.testing.assert_allclose(effects[i], steered, atol=1e-5)


def test_steering_moves_its_own_output_and_its_neighbours_by_the_cosine():
    angles = 2 * np.pi * np.arange(5) / 5
    lengths = np.array([1.0, 2.0, 0.5, 1.0, 0.0])
    weights = jnp.asarray(lengths * np.stack([np.cos(angles), np.sin(angles)]), jnp.float32)
    effects = linearity.steering_effects(weights, jnp.ones(5), 3.0, activation=lambda z: z)
    for i, j in itertools.product(range(5), repeat=2):
        expected = 3 * np.cos(angles[i] - angles[j]) * lengths[j] / lengths[i] if lengths[i] else 0
        np.testing.assert_allclose(effects[i, j], expected, atol=1e-5)


def test_steering_one_of_an_antipodal_pair_silences_the_other():
    effects = linearity.steering_effects(
        jnp.array([[1.0, -1.0]]), jnp.array([-0.5, 0.5]), 2.0, activation=nn.relu
    )
    np.testing.assert_allclose(effects, [[1.5, -0.5], [0.0, 2.0]])


def test_an_analogy_of_what_is_not_finite_is_neither_right_nor_wrong():
    words = jnp.ones((2, 3, 4)).at[0, 0, 0].set(jnp.nan)
    assert np.isnan(linearity.analogy_accuracy(words, exclude_inputs=True))
