"""The k largest latents are kept: of one example, of many latents, and of a whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_cases import ALL, HIDDEN, LATENTS, jit, numbers, random_params
from helpers import operations
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodels import autoencoders
from toymodels.engine import fuse

properties = settings(max_examples=10)


seeds = st.integers(0, 2**32 - 1)


@properties
@given(seeds, st.integers(1, LATENTS), st.booleans())
def test_top_k_keeps_the_k_largest(seed, k, tied):
    model = autoencoders.TopKAutoencoder(LATENTS, k)
    params = random_params(model, seed)
    params["encoder_bias"] += 20.0  # all are positive
    if tied:
        params = {**params, "encoder": jnp.zeros_like(params["encoder"])}
        params["encoder_bias"] = jnp.asarray(1.0 + np.arange(LATENTS) % 2, jnp.float32)
    activation = numbers(seed, HIDDEN)
    latents = np.asarray(model.apply({"params": params}, activation).latents)
    preactivation = np.asarray(
        params["encoder"] @ (activation - params["decoder_bias"]) + params["encoder_bias"]
    )
    assert (latents > 0).sum() == k
    largest = np.sort(preactivation)[::-1][:k]
    np.testing.assert_allclose(np.sort(latents)[::-1][:k], largest, rtol=1e-6)


WIDE = 100  # latents: where the largest are found digit by digit


def wide_loss(params, batch, k):
    model = autoencoders.TopKAutoencoder(WIDE, k)

    def loss(params, example):
        return model.apply({"params": params}, example, 0.1, method="loss")

    return fuse.value_and_grad(loss)(params, batch)


wide_loss = jit(wide_loss)


@pytest.mark.parametrize("k", [1.0, 7.0, 60.0, 100.0])
def test_many_latents_have_the_loss_and_gradient_of_a_sort_in_float64(k):
    params, batch = random_params(autoencoders.TopKAutoencoder(WIDE, 1), 0), numbers(0, 9, HIDDEN)
    value, gradient = wide_loss(params, batch, k)
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    lengths = np.linalg.norm(p["decoder"], axis=0)
    units = p["decoder"] / lengths
    expected, slope = 0.0, {name: np.zeros_like(leaf) for name, leaf in p.items()}
    for h in np.asarray(batch, np.float64):
        preactivation = p["encoder"] @ (h - p["decoder_bias"]) + p["encoder_bias"]
        kept = np.zeros(WIDE, bool)
        kept[np.argsort(-preactivation)[: int(k)]] = True
        latents = np.where(kept & (preactivation > 0), preactivation, 0)
        error = units @ latents + p["decoder_bias"] - h
        expected += (error**2).sum() + 0.1 * latents.sum()
        by_units = 2 * np.outer(error, latents)
        by_latents = np.where(latents > 0, 2 * units.T @ error + 0.1, 0)
        slope["decoder"] += (by_units - units * (units * by_units).sum(axis=0)) / lengths
        slope["decoder_bias"] += 2 * error - p["encoder"].T @ by_latents
        slope["encoder"] += np.outer(by_latents, h - p["decoder_bias"])
        slope["encoder_bias"] += by_latents
    np.testing.assert_allclose(value, expected / 9, rtol=1e-5)
    for name, leaf in slope.items():
        np.testing.assert_allclose(gradient[name], leaf / 9, rtol=1e-4, atol=1e-5)


@jit
def wide_latents(preactivation, k):
    """Return the latents that a wide autoencoder keeps of given preactivations."""
    model = autoencoders.TopKAutoencoder(WIDE, k)
    params = model.init(jax.random.key(0), jnp.zeros(WIDE))["params"]
    params = {**params, "encoder": jnp.eye(WIDE)}
    return model.apply({"params": params}, preactivation).latents


@pytest.mark.parametrize("k", [1, 13, 99, 100])
def test_of_many_equal_latents_the_first_are_kept(k):
    values = np.tile([2.0, -1.0, 3.0, 0.0, -0.0], WIDE // 5)
    order = np.argsort(-values, kind="stable")[:k]
    expected = np.zeros(WIDE)
    expected[order] = np.maximum(values[order], 0)
    np.testing.assert_array_equal(
        wide_latents(jnp.asarray(values, jnp.float32), float(k)), expected
    )


def test_many_latents_that_are_not_numbers_stay_visible():
    assert np.isnan(wide_latents(jnp.full(WIDE, jnp.nan), 3.0)).any()


@pytest.mark.parametrize("latents", [200, 1000])
def test_the_program_of_many_latents_is_no_longer_than_that_of_fewer(latents):
    def length(latents):
        model = autoencoders.TopKAutoencoder(latents, 3)
        start = jax.make_jaxpr(lambda: model.init(jax.random.key(0), jnp.zeros(3)))()
        return len(operations(start))

    assert length(latents) <= length(100) + 5


@jit
def top_k(params, activation):
    return ALL["TopK"].apply({"params": params}, activation)


def test_latents_below_zero_are_not_kept():
    params = random_params(ALL["TopK"], 0)
    params["encoder_bias"] -= 20.0
    np.testing.assert_array_equal(top_k(params, numbers(0, HIDDEN)).latents, 0)
    params["encoder_bias"] = params["encoder_bias"].at[3].add(40.0)
    assert (top_k(params, numbers(0, HIDDEN)).latents > 0).sum() == 1


def group_latents(params, group, k):
    model = autoencoders.BatchTopKAutoencoder(LATENTS, k)
    return model.apply({"params": params}, group, method="on_batch").latents


group_latents = jit(group_latents)


@properties
@given(seeds, st.integers(1, 10 * LATENTS), st.booleans())
def test_batch_top_k_keeps_so_many_of_a_group(seed, count, tied):
    params, group = random_params(ALL["BatchTopK"], seed), numbers(seed, 10, HIDDEN)
    params["encoder_bias"] += 20.0
    if tied:  # only five different examples
        group = jnp.tile(jnp.round(group[:5]), (2, 1))
    latents = np.asarray(group_latents(params, group, count / 10))
    assert (latents > 0).sum() == count
    everything = np.asarray(group_latents(params, group, float(LATENTS)))
    np.testing.assert_array_equal(
        np.sort(latents, axis=None)[::-1][:count], np.sort(everything, axis=None)[::-1][:count]
    )


def test_batch_top_k_of_a_group_of_one_is_top_k():
    params, group = random_params(ALL["TopK"], 1), numbers(1, 20, HIDDEN)
    alone = jax.vmap(top_k, (None, 0))(params, group).latents
    grouped = jax.vmap(lambda h: group_latents(params, h[None], 2.0)[0])(group)
    np.testing.assert_allclose(grouped, alone, atol=1e-6)
