"""Autoencoders are fitted as the options say, and dead latents start again."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from autoencoder_cases import ALL, HIDDEN, jit, random_params

import toymodels
from toymodels import autoencoders, errors, features
from toymodels.autoencoders import revival
from toymodels.sweeps import sweep as sweeps

FEATURES = features.SparseUniform(3, 0.2)


def settings_of(**changes):
    return {"penalty": 0.0, "optimizer": optax.adam(1e-2), "steps": 60, "batch": 32, **changes}


def test_a_cell_alone_is_the_cell_in_a_sweep():
    def cell(key, *, k, rate):
        model = autoencoders.TopKAutoencoder(3, k)
        run = settings_of(optimizer=optax.adam(rate), steps=20)
        fitted = autoencoders.fit_autoencoder(key, model, FEATURES, **run)
        return {"decoder": fitted.params["decoder"], "loss": fitted.history.loss}

    axes = {"k": (1.0, 2.0), "rate": (1e-3, 1e-2)}
    everything = sweeps.sweep(cell, axes=axes, num_seeds=2, width=2, progress=False)
    one = {"k": (2.0,), "rate": (1e-3,)}
    alone = sweeps.sweep(cell, axes=one, num_seeds=1, width=2, progress=False)
    there = everything.sel(alone.coords)
    np.testing.assert_array_equal(there["decoder"], alone["decoder"])
    np.testing.assert_array_equal(there["loss"], alone["loss"])
    assert not np.array_equal(everything["decoder"][0], everything["decoder"][1])


def test_a_start_is_where_training_starts():
    model = ALL["ReLU"]
    start = random_params(model, 0)
    run = settings_of(steps=1, snapshots=(0, 1), start=start)
    world = features.SparseUniform(HIDDEN, 0.3)
    fitted = jit(lambda key: autoencoders.fit_autoencoder(key, model, world, **run))(
        jax.random.key(0)
    )
    jax.tree.map(
        lambda leaf, own: np.testing.assert_array_equal(leaf[0], own), fitted.snapshots, start
    )
    # Adam's first step is the rate, up to its epsilon, for each number that has a gradient.
    step = np.abs(fitted.params["encoder_bias"] - start["encoder_bias"])
    assert step.max() == pytest.approx(1e-2, rel=1e-2)


def test_a_penalty_may_be_a_function_of_the_step():
    def fitted(penalty):
        run = settings_of(penalty=penalty, steps=20, snapshots=(10, 20), points=20)
        return autoencoders.fit_autoencoder(jax.random.key(0), ALL["ReLU"], FEATURES, **run)

    def all_of():
        late = fitted(lambda step: jnp.where(step < 10, 0.0, 0.5))
        return fitted(0.0), fitted(0.5), fitted(lambda step: 0.5 + 0 * step), late

    never, always, constant, late = jit(all_of)()
    # The same operations in other programs: a few roundings of 20 steps.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, constant.params, always.params)
    jax.tree.map(lambda own, other: close(own[0], other[0]), late.snapshots, never.snapshots)
    assert np.abs(late.params["decoder"] - never.params["decoder"]).max() > 1e-3
    np.testing.assert_allclose(late.history.loss[:10], never.history.loss[:10], rtol=1e-4)
    assert late.history.loss[10] > never.history.loss[10]


def test_a_dead_latent_starts_again_on_an_example_and_all_others_stay():
    # Two orthogonal features; latents read the first and nothing. Errors are of the second alone.
    model, optimizer = autoencoders.ReLUAutoencoder(3), optax.adam(0.1)
    params = {
        "decoder": jnp.array([[1.0, 0.6, 1.0], [0.0, 0.8, 0.0]]),
        "decoder_bias": jnp.zeros(2),
        "encoder": jnp.array([[3.0, 0.0], [0.6, 0.8], [1.0, 0.0]]),
        "encoder_bias": jnp.array([0.0, -9.0, 0.0]),
    }
    params = {**params, "encoder": params["encoder"] / jnp.array([[6.0], [1.0], [2.0]])}
    data = features.FiniteData(np.array([[1.0, 0.0], [0.0, 2.0]]))
    state = jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), optimizer.init(params))
    change = revival.revival(jax.random.key(0), model, data, 64, optimizer, (5,))
    new, new_state = jit(change.apply)(4, params, state)
    for name in params:
        dead = np.zeros(params[name].shape, bool)
        if name != "decoder_bias":
            dead[(slice(None), 1) if name == "decoder" else 1] = True
        np.testing.assert_array_equal(new[name][~dead], params[name][~dead])
        for moment in (new_state[0].mu, new_state[0].nu):
            np.testing.assert_array_equal(moment[name], np.where(dead, 0, 1))
    assert new_state[0].count == state[0].count
    np.testing.assert_allclose(new["decoder"][:, 1], [0, 1], atol=1e-6)
    # A fifth of the mean length of the others, which is 1/2.
    np.testing.assert_allclose(new["encoder"][1], [0, 0.1], atol=1e-6)
    assert new["encoder_bias"][1] == 0


def test_revival_brings_dead_latents_back_and_recovers_more_features():
    directions = np.random.default_rng(0).normal(size=(8, 16))
    directions /= np.linalg.norm(directions, axis=0)
    sparse = features.SparseUniform(16, 0.08).sample(jax.random.key(9), 4096)
    data = features.FiniteData(np.asarray(sparse) @ directions.T)
    model = autoencoders.TopKAutoencoder(24, 2)
    start = model.init(jax.random.key(1), jnp.zeros(8))["params"]
    start = {**start, "encoder_bias": jnp.where(jnp.arange(24) < 6, 0.0, -5.0)}

    @toymodels.jit
    def run(key):
        adam = settings_of(optimizer=optax.adam(5e-3), steps=700, batch=128, start=start)
        params = autoencoders.fit_autoencoder(
            key, model, data, revive=(100, 200, 300), **adam
        ).params
        latents = jax.vmap(lambda h: model.apply({"params": params}, h).latents)(data.examples)
        return autoencoders.dictionary(params), jnp.sum(jnp.any(latents > 0, axis=0))

    dictionary, alive = run(jax.random.key(0))
    recovered = (np.asarray(dictionary).T @ directions).max(axis=0) > 0.9
    # A dead latent has no gradient: without revival six would be alive, for six features at most.
    assert alive >= 9
    assert recovered.sum() >= 8


def test_what_cannot_be_revived_is_refused():
    class Bare(nn.Module):
        @nn.compact
        def __call__(self, activation):
            return self.param("scale", nn.initializers.ones, ()) * activation

        def loss(self, activation, penalty):
            return jnp.sum(self(activation)) * penalty

    with pytest.raises(errors.InputError, match=r"^revive= needs the parameters decoder, .* no "):
        autoencoders.fit_autoencoder(
            jax.random.key(0), Bare(), FEATURES, revive=(5,), **settings_of()
        )
    with pytest.raises(errors.InputError, match=r"^revive is \[90\]: give increasing whole "):
        autoencoders.fit_autoencoder(
            jax.random.key(0), ALL["ReLU"], FEATURES, revive=(90,), **settings_of()
        )


def test_the_threshold_keeps_k_latents_on_average():
    k = 1.3
    model = autoencoders.BatchTopKAutoencoder(5, k)
    world = features.SparseUniform(5, 0.5)

    def run(key, start):
        fitted = autoencoders.fit_autoencoder(
            key, model, world, **settings_of(batch=128, steps=20, snapshots=(0, 20), start=start)
        )
        fresh = world.sample(jax.random.key(1), 20_000)
        latents = jax.vmap(lambda h: model.apply({"params": fitted.params}, h))(fresh).latents
        return fitted, jnp.mean(jnp.sum(latents > 0, axis=1))

    alive = model.init(jax.random.key(0), jnp.zeros(5))["params"]
    dead = {**alive, "encoder_bias": jnp.full(5, -9.0)}
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), alive, dead)
    fitted, l0 = jit(jax.vmap(run, (None, 0)))(jax.random.key(0), starts)
    # The least latent that is kept in a group of 128 is a little above the quantile: by less than
    # one latent, 1 / 128. Noise of 20,000 examples and of 32 groups: 0.01 and 0.015.
    assert l0[0] == pytest.approx(k, abs=0.06)
    assert fitted.snapshots["threshold"].shape == (2, 2)
    assert fitted.snapshots["threshold"][0, 1] == fitted.params["threshold"][0] > 0
    # Groups that keep nothing.
    assert fitted.params["threshold"][1] == l0[1] == 0


def test_a_negative_penalty_is_refused():
    with pytest.raises(errors.InputError, match="penalty"):
        autoencoders.fit_autoencoder(
            jax.random.key(0), ALL["ReLU"], FEATURES, **settings_of(penalty=-1.0)
        )


def test_a_model_of_a_users_own_may_need_the_whole_batch():
    """An autoencoder that subtracts the mean of its batch is fitted as `BatchTopK` is."""

    class Centred(nn.Module):
        @nn.compact
        def __call__(self, activation):
            return activation - self.param("mean", nn.initializers.zeros, activation.shape)

        def on_batch(self, batch):
            raise NotImplementedError

        def batch_loss(self, batch, penalty):
            error = batch - self.variables["params"]["mean"][None]
            return jnp.sum(error**2) / len(batch) + penalty

        def settled(self, key, params, sample):
            return {**params, "scale": jnp.std(sample(key))}

    fitted = autoencoders.fit_autoencoder(
        jax.random.key(0), Centred(), FEATURES, **settings_of(steps=300)
    )
    np.testing.assert_allclose(fitted.params["mean"], np.full(3, 0.1), atol=0.05)
    assert fitted.params["scale"] > 0
