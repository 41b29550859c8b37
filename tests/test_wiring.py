"""Transcoders and crosscoders: what a latent may not read or write has no influence."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toymodels as tm
from toymodels import autoencoders
from toymodels.theory import failures

KEY = jax.random.key(0)
RUN = {"penalty": 0.0, "optimizer": optax.adam(1e-2), "batch": 64}


def linear(weights):
    """Activations W x of a linear model that is written down."""
    weights = jnp.asarray(weights, jnp.float32)
    model, features = tm.LinearOutput(len(weights)), tm.SparseUniform(weights.shape[1], 0.3)
    params = {"weights": weights, "bias": jnp.zeros(weights.shape[1])}
    return tm.Activations(model, params, features, "hidden")


def test_parts_side_by_side_are_of_the_same_examples():
    first, second = linear(np.eye(3)), linear([[1.0, 2.0, 3.0]])
    rows = tm.SideBySide((first, second)).sample(KEY, 50)
    assert rows.shape == (50, 4)
    np.testing.assert_allclose(rows[:, 3], rows[:, :3] @ np.array([1.0, 2.0, 3.0]), rtol=1e-5)


def test_a_wiring_names_the_coordinates_of_its_parts():
    found = autoencoders.wiring((2, 1), [(1, [0], [1]), (2, [1], [0, 1])])
    np.testing.assert_array_equal(found.reads, [[1, 1, 0], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(found.writes, [[0, 0, 1], [1, 1, 1], [1, 1, 1]])


@pytest.mark.parametrize(
    ("model", "rate"), [(tm.ReLUAutoencoder(4), 1e-2), (tm.BatchTopKAutoencoder(4, 1.0), 1e-2)]
)
def test_a_transcoder_reads_no_target_and_writes_no_input(model, rate):
    pairs = tm.SideBySide((linear(np.eye(3)), linear(np.ones((2, 3)))))
    wiring = autoencoders.wiring((3, 2), [(4, [0], [1])])
    run = {**RUN, "optimizer": optax.adamw(rate), "steps": 30}
    params = tm.fit_autoencoder(KEY, model, pairs, wiring=wiring, **run).params
    assert not np.any(params["encoder"][:, 3:])
    assert not np.any(params["decoder"][:3])
    assert not np.any(params["decoder_bias"][:3])
    assert np.all(params["encoder"][:, :3] != 0)
    apply = lambda h: model.apply({"params": params}, h)  # noqa: E731
    row = pairs.sample(KEY, 1)[0]
    np.testing.assert_array_equal(apply(row).latents, apply(row.at[3:].set(7.0)).latents)


def test_a_skip_transcoder_of_a_linear_map_is_the_map_without_latents():
    matrix = np.array([[1.0, -2.0, 0.5]])
    pairs = tm.SideBySide((linear(np.eye(3)), linear(matrix)))
    wiring = autoencoders.wiring((3, 1), [(2, [0], [1])])
    run = {**RUN, "penalty": 0.3, "optimizer": tm.Recipe(steps=600, batch=64, learning_rate=3e-2)
           .optimizer(), "steps": 600}  # fmt: skip
    params = tm.fit_autoencoder(KEY, tm.SkipTranscoder(2), pairs, wiring=wiring, **run).params
    np.testing.assert_allclose(params["skip"][3:, :3], matrix, atol=0.02)
    assert not np.any(params["skip"][:3])
    assert not np.any(params["skip"][:, 3:])
    rows = pairs.sample(KEY, 200)
    found = jax.vmap(lambda h: tm.SkipTranscoder(2).apply({"params": params}, h).latents)(rows)
    assert np.mean(found) < 1e-3


def test_a_crosscoder_pays_for_the_decoder_of_each_model():
    model = tm.Crosscoder(2, (1, 2))
    decoder = jnp.array([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]])
    params = autoencoders.with_dictionary(model, decoder)
    lengths = autoencoders.part_lengths(params, (1, 2))
    np.testing.assert_allclose(lengths, [[0.6, 0.0], [0.8, 1.0]], rtol=1e-6)
    h = jnp.array([0.3, 0.4, 0.0])
    price = lambda factor: model.apply({"params": params}, h, factor, method="loss")  # noqa: E731
    latent = 3 * 0.3 + 4 * 0.4  # the encoder is the transpose, at its own length
    assert price(1.0) - price(0.0) == pytest.approx(latent * 1.4, rel=1e-5)
    slopes = jax.grad(lambda p: model.apply({"params": p}, h, 0.1, method="loss"))(params)
    assert all(np.isfinite(each).all() for each in slopes.values())


@pytest.mark.parametrize("penalty", [0.1, 0.4])
def test_two_halves_of_a_feature_cost_an_l1_crosscoder_what_one_latent_costs(penalty):
    """Codes are the best ones. A penalty on whole directions makes two halves dearer."""

    def loss(kind, decoder, prices):
        model = kind(decoder.shape[1])
        params = autoencoders.with_dictionary(model, decoder)
        params = {**params, "encoder_bias": -penalty / 2 * jnp.asarray(prices)}
        xs = jnp.linspace(0, 1, 1001)
        rows = jnp.stack([xs, xs], axis=1)
        found = jax.vmap(lambda h: model.apply({"params": params}, h, penalty, method="loss"))(rows)
        return np.trapezoid(found, xs)

    one, two = jnp.ones((2, 1)) / 2**0.5, jnp.eye(2)
    l1 = lambda latents: tm.Crosscoder(latents, (1, 1))  # noqa: E731
    assert loss(l1, one, [2**0.5]) == pytest.approx(loss(l1, two, [1.0, 1.0]), abs=1e-6)
    joint, u = tm.ReLUAutoencoder, penalty / 2
    gain = (2**0.5 - u) ** 3 / (3 * 2**0.5) - 2 * (1 - u) ** 3 / 3
    saved = loss(joint, two, [1.0, 1.0]) - loss(joint, one, [1.0])
    assert saved == pytest.approx(gain, abs=1e-5)


@pytest.mark.parametrize("penalty", [0.1, 0.4])
@pytest.mark.parametrize("strength", [0.1, 0.3, 0.8])
def test_the_crosscoder_of_a_binary_feature_is_the_minimum_over_angles(strength, penalty):
    """The smallest loss over a grid of directions, each with its best code."""
    angles = np.linspace(0, np.pi / 2, 200_001)
    direction = np.stack([np.cos(angles), np.sin(angles)])
    along, price = np.array([1.0, strength]) @ direction, penalty * direction.sum(axis=0)
    best = angles[np.argmax(np.maximum(along - price / 2, 0))]
    exact = failures.crosscoder_ratio_binary(strength, penalty)
    assert np.tan(best) == pytest.approx(exact, abs=2e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: autoencoders.wiring((2, 1), [(1, [0], [2])]), r"writes the parts \[2\]"),
        (lambda: autoencoders.wiring((2, 1), [(1, [], [1])]), r"reads the parts \[\]"),
        (lambda: autoencoders.wiring((2, 0), [(1, [0], [1])]), "size is 0"),
        (lambda: tm.Crosscoder(2, (1, 1)).init(KEY, jnp.zeros(3)), "add up to 2"),
        (lambda: inspect.unwrap(autoencoders.wiring)((2, 1), [(2, 0, 1)]), "a group of the wiring"),
        (lambda: inspect.unwrap(autoencoders.wiring)((2, 1), (2, [0], [1])), "group of the wiring"),
        (lambda: autoencoders.wiring((2, 1), []), "a group of the wiring"),
        (
            lambda: tm.fit_autoencoder(
                KEY, tm.ReLUAutoencoder(3), linear(np.eye(3)), steps=1, **RUN,
                wiring=autoencoders.wiring((2, 1), [(2, [0], [1])]),
            ),
            "decoder has shape",
        ),
        (
            lambda: tm.fit_autoencoder(
                KEY, tm.ReLUAutoencoder(2), linear(np.eye(3)), steps=9, revive=(3,), **RUN,
                wiring=autoencoders.wiring((2, 1), [(2, [0], [1])]),
            ),
            "leave one of them out",
        ),
    ],
)  # fmt: skip
def test_a_wrong_wiring_is_refused_in_one_line(call, message):
    with pytest.raises(tm.InputError, match=message):
        call()
