"""Sparse autoencoders: oracles, exact sparsities, and gradients against what they estimate."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_cases import ALL, HIDDEN, LATENTS, each, jit, numbers, random_params
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodels import autoencoders, errors, sites
from toymodels.engine import fuse

properties = settings(max_examples=10)


seeds = st.integers(0, 2**32 - 1)


def of_one(model):
    return jit(lambda params, h: model.apply({"params": params}, h))


def loss_of(model):
    """The loss of a batch: of the whole batch, or the mean of the losses of its examples."""

    def loss(params, batch, penalty):
        if isinstance(model, autoencoders.OnBatch):
            return model.apply({"params": params}, batch, penalty, method="batch_loss")
        return jnp.mean(
            jax.vmap(lambda h: model.apply({"params": params}, h, penalty, method="loss"))(batch)
        )

    return loss


applied = {name: of_one(model) for name, model in ALL.items()}


losses = {name: jit(loss_of(model)) for name, model in ALL.items()}


slopes = {name: jit(jax.grad(loss_of(model))) for name, model in ALL.items()}


@properties
@given(seeds)
def test_the_relu_loss_is_its_formula_in_float64(seed):
    params, batch = random_params(ALL["ReLU"], seed), numbers(seed, 3, HIDDEN)
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    units = p["decoder"] / np.linalg.norm(p["decoder"], axis=0)
    latents = (np.asarray(batch, np.float64) - p["decoder_bias"]) @ p["encoder"].T
    latents = np.maximum(latents + p["encoder_bias"], 0)
    errors_ = np.asarray(batch) - (latents @ units.T + p["decoder_bias"])
    expected = (errors_**2).sum(axis=1).mean() + 0.3 * latents.sum(axis=1).mean()
    np.testing.assert_allclose(losses["ReLU"](params, batch, 0.3), expected, rtol=1e-5)


@each
def test_an_orthonormal_dictionary_is_read_and_written_without_error(model):
    units = np.linalg.qr(np.random.default_rng(0).normal(size=(HIDDEN, HIDDEN)))[0]
    spare = np.eye(HIDDEN, LATENTS - HIDDEN)  # latents that never fire
    params = model.init(jax.random.key(0), jnp.zeros(HIDDEN))["params"]
    oracle = {
        "decoder": jnp.asarray(np.hstack([3 * units, spare]), jnp.float32),
        "encoder": jnp.asarray(np.hstack([units, 0 * spare]).T, jnp.float32),
    }
    # Two of the four, as k is 2, and above every threshold.
    codes = np.array([[0.5, 0, 2.0, 0], [0, 0.25, 0, 1.5], [1.0, 0.75, 0, 0]])
    batch = jnp.asarray(codes @ units.T, jnp.float32)
    name = next(name for name, one in ALL.items() if one is model)
    latents, reconstruction = jax.vmap(applied[name], (None, 0))({**params, **oracle}, batch)
    np.testing.assert_allclose(latents[:, :HIDDEN], codes, atol=1e-6)
    np.testing.assert_allclose(reconstruction, batch, atol=1e-6)
    size = 2.0 if name == "JumpReLU" else codes.sum(axis=1).mean()
    if name == "Matryoshka":  # the first term misses latents 2 and 3
        missed = (codes[:, 2:] ** 2).sum(axis=1).mean()
        expected = missed + 0.1 * (size + codes[:, :2].sum(axis=1).mean())
    else:
        expected = 0.1 * size
    actual = losses[name]({**params, **oracle}, batch, 0.1)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@each
def test_lengths_of_decoder_columns_do_not_matter(model):
    name = next(name for name, one in ALL.items() if one is model)
    params, batch = random_params(model, 3), numbers(3, 5, HIDDEN)
    longer = {**params, "decoder": params["decoder"] * jnp.linspace(0.1, 9, LATENTS)[None, :]}
    expected = losses[name](params, batch, 0.2)
    np.testing.assert_allclose(losses[name](longer, batch, 0.2), expected, rtol=1e-5)


def test_a_column_of_zeros_has_no_direction_and_finite_gradients():
    params = random_params(ALL["ReLU"], 0)
    params["decoder"] = params["decoder"].at[:, 0].set(0.0)
    np.testing.assert_array_equal(autoencoders.dictionary(params)[:, 0], 0)
    gradients = slopes["ReLU"](params, numbers(0, 5, HIDDEN), 0.1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_matryoshka_of_one_prefix_is_a_relu_autoencoder():
    model = autoencoders.MatryoshkaAutoencoder(LATENTS, (LATENTS,))
    params, batch = random_params(model, 2), numbers(2, 5, HIDDEN)
    expected = losses["ReLU"](params, batch, 0.2)
    np.testing.assert_allclose(jit(loss_of(model))(params, batch, 0.2), expected, rtol=1e-6)


def test_matryoshka_terms_are_losses_of_narrower_autoencoders():
    prefixes, weights = (1, 3, LATENTS), (0.5, 2.0, 1.0)
    model = autoencoders.MatryoshkaAutoencoder(LATENTS, prefixes, weights)
    params, batch = random_params(model, 4), numbers(4, 5, HIDDEN)
    expected = 0.0
    for prefix, weight in zip(prefixes, weights, strict=True):
        cut = {
            "encoder": params["encoder"][:prefix],
            "encoder_bias": params["encoder_bias"][:prefix],
            "decoder": params["decoder"][:, :prefix],
            "decoder_bias": params["decoder_bias"],
        }
        narrow = jit(loss_of(autoencoders.ReLUAutoencoder(prefix)))
        expected += weight * narrow(cut, batch, 0.2)
    np.testing.assert_allclose(jit(loss_of(model))(params, batch, 0.2), expected, rtol=1e-5)


def gated_terms(params, batch):
    """Return errors of the latents, sizes of the gates, and errors of the decoded gates."""

    def one(h):
        centred = h - params["decoder_bias"]
        gate = nn.relu(params["encoder"] @ centred + params["encoder_bias"])
        error = h - ALL["Gated"].apply({"params": params}, h).reconstruction
        units = params["decoder"] / jnp.linalg.norm(params["decoder"], axis=0, keepdims=True)
        return jnp.sum(error**2), jnp.sum(gate), jnp.sum((centred - units @ gate) ** 2)

    return jnp.stack(jax.vmap(one)(batch)).mean(axis=1)


def test_gated_auxiliary_term_leaves_the_decoder_alone():
    params, batch = random_params(ALL["Gated"], 0), numbers(0, 8, HIDDEN)
    (error, size, auxiliary), terms = jit(
        lambda *args: (gated_terms(*args), jax.jacrev(gated_terms)(*args))
    )(params, batch)
    loss = losses["Gated"](params, batch, 0.2)
    np.testing.assert_allclose(loss, error + 0.2 * size + auxiliary, rtol=1e-5)
    gradient = slopes["Gated"](params, batch, 0.2)
    for name, frozen in {"decoder": True, "encoder": False, "encoder_bias": False}.items():
        of_error, of_size, of_auxiliary = terms[name]
        assert np.abs(of_auxiliary).max() > 0.1
        expected = of_error + 0.2 * of_size + (0 if frozen else of_auxiliary)
        np.testing.assert_allclose(gradient[name], expected, rtol=1e-4, atol=1e-4)


def test_gated_magnitudes_leave_the_gate_alone():
    params, h = random_params(ALL["Gated"], 5), numbers(5, HIDDEN)
    params["magnitude_bias"] += 10.0  # every open gate lets something through
    shared = params["encoder"] @ (h - params["decoder_bias"])
    gate = shared + params["encoder_bias"] > 0
    expected = gate * (jnp.exp(params["log_magnitude"]) * shared + params["magnitude_bias"])
    np.testing.assert_allclose(applied["Gated"](params, h).latents, expected, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_jump_relu_gradient_is_that_of_the_expected_loss(threshold):
    # One latent that reads h, uniform on (0, 1), with decoder 1: what is below the threshold is
    # lost, what is above costs the penalty. Expected loss t^3 / 3 + penalty (1 - t).
    model = autoencoders.JumpReLUAutoencoder(1, bandwidth=0.02, start=threshold)
    params = model.init(jax.random.key(0), jnp.zeros(1))["params"]
    params = {**params, "encoder": jnp.ones((1, 1)), "decoder": jnp.ones((1, 1))}
    examples = (np.arange(20_000) + 0.5) / 20_000
    loss = loss_of(model)
    batch = jnp.asarray(examples[:, None], jnp.float32)
    gradient = jit(jax.grad(loss))(params, batch, 0.3)["log_threshold"][0]
    # The derivative is by log(threshold). The window, of width 0.02, moves the mean of h below it
    # by 0.005.
    expected = threshold * (threshold**2 - 0.3)
    np.testing.assert_allclose(gradient, expected, atol=threshold * 0.006)


def test_jump_relu_gradient_is_a_smoothed_difference():
    # The difference is that of the loss between the ends of the window, for each latent by itself.
    # Both are equal in the mean, up to the width of the window, 0.1, because the loss is quadratic
    # in a latent.
    model, penalty = ALL["JumpReLU"], 0.5
    params, batch = random_params(model, 0), numbers(0, 40_000, HIDDEN)
    thresholds = jnp.linspace(0.3, 0.8, LATENTS)
    params["log_threshold"] = jnp.log(thresholds)
    gradient = slopes["JumpReLU"](params, batch, penalty)["log_threshold"] / thresholds

    def at(latent, shift):
        moved = jnp.log(thresholds.at[latent].add(shift))
        return losses["JumpReLU"]({**params, "log_threshold": moved}, batch, penalty)

    half = model.bandwidth / 2
    rises = [(at(i, half) - at(i, -half)) / model.bandwidth for i in range(LATENTS)]
    assert np.ptp(rises) > 0.2
    np.testing.assert_allclose(gradient, rises, atol=0.02)


def test_jump_relu_passes_values_above_the_threshold_whole():
    params, h = random_params(ALL["JumpReLU"], 1), numbers(1, HIDDEN)
    preactivation = params["encoder"] @ (h - params["decoder_bias"]) + params["encoder_bias"]
    expected = jnp.where(preactivation > jnp.exp(params["log_threshold"]), preactivation, 0)
    np.testing.assert_allclose(applied["JumpReLU"](params, h).latents, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["TopK", "BatchTopK", "JumpReLU"])
def test_both_paths_of_the_engine_agree(name):
    model = ALL[name]
    params = random_params(model, 6)

    grouped = isinstance(model, autoencoders.OnBatch)
    method = "batch_loss" if grouped else "loss"

    def loss(params, example):
        return model.apply({"params": params}, example, 0.2, method=method)

    batch = numbers(6, 2, 8, HIDDEN) if grouped else numbers(6, 16, HIDDEN)
    path = fuse.explain(loss, params, batch)
    assert path.fused != grouped, path.reason
    value, gradient = jit(fuse.value_and_grad(loss))(params, batch)
    mapped = jit(
        jax.value_and_grad(lambda p: jnp.mean(jax.vmap(loss, in_axes=(None, 0))(p, batch)))
    )
    expected, expected_gradient = mapped(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name, leaf in expected_gradient.items():
        np.testing.assert_allclose(gradient[name], leaf, rtol=1e-4, atol=1e-5)


@each
def test_sites_can_be_read(model):
    params, h = random_params(model, 7), numbers(7, HIDDEN)
    read = sites.activations(model, params, h)
    whole = model.apply({"params": params}, h)
    np.testing.assert_array_equal(read["latents"], whole.latents)
    np.testing.assert_array_equal(read["output"], whole.reconstruction)
    assert read["preactivation"].shape == (LATENTS,)


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (autoencoders.TopKAutoencoder(LATENTS, 0), "k is 0"),
        (autoencoders.TopKAutoencoder(LATENTS, 1.5), "whole"),
        (autoencoders.BatchTopKAutoencoder(LATENTS, LATENTS + 1), "k is 7"),
        (autoencoders.JumpReLUAutoencoder(LATENTS, bandwidth=0.0, start=0.1), "bandwidth"),
        (autoencoders.JumpReLUAutoencoder(LATENTS, bandwidth=0.1, start=-1.0), "start"),
        (autoencoders.MatryoshkaAutoencoder(LATENTS, (2, 3)), "prefixes"),
        (autoencoders.MatryoshkaAutoencoder(LATENTS, (3, 2, LATENTS)), "prefixes"),
        (autoencoders.MatryoshkaAutoencoder(LATENTS, ()), "prefixes"),
        (autoencoders.ReLUAutoencoder(0), "latents"),
    ],
)
def test_impossible_architectures_are_refused(model, word):
    with pytest.raises(errors.InputError, match=word):
        model.init(jax.random.key(0), jnp.zeros(HIDDEN))


@pytest.mark.parametrize("shape", [(4, 2), (3, 4)])  # two directions too few, or transposed
def test_a_dictionary_of_another_size_is_refused(shape):
    with pytest.raises(errors.InputError, match="but the model has 3 latents"):
        autoencoders.with_dictionary(autoencoders.ReLUAutoencoder(3), jnp.ones(shape))


def test_a_dictionary_that_is_given_reads_and_writes_its_directions():
    """Orthogonal directions reproduce every sum of them with positive amounts."""
    directions = jnp.linalg.qr(jnp.asarray(np.random.default_rng(0).normal(size=(4, 3))))[0]
    model = autoencoders.ReLUAutoencoder(3)
    params = autoencoders.with_dictionary(model, directions)
    amounts = jnp.array([0.3, 0.0, 2.0])
    found = model.apply({"params": params}, directions @ amounts)
    np.testing.assert_allclose(found.latents, amounts, atol=1e-6)
    np.testing.assert_allclose(found.reconstruction, directions @ amounts, atol=1e-6)
