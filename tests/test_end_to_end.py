"""Training end to end keeps what the output reads, and the closed form of shrinkage is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import toymodels as tm
from toymodels import errors
from toymodels.theory.shrinkage import shrunk_feature

COUNT, LATENTS = 3, 6
PENALTY = 0.4


@settings(max_examples=20)
@given(st.floats(0.05, 2), st.floats(0.05, 0.95), st.floats(0.01, 3))
def test_no_other_latent_and_bias_have_a_lower_loss(importance, density, penalty):
    values = (np.arange(2000) + 0.5) / 2000

    def loss(numbers):
        gain, shift, bias = numbers
        codes = np.maximum(gain * values - shift, 0)
        present = importance * np.mean((values - codes - bias) ** 2) + penalty * codes.mean()
        code = max(-shift, 0)
        absent = importance * (code + bias) ** 2 + penalty * code
        return density * present + (1 - density) * absent

    found = shrunk_feature(importance, density, penalty)
    own = loss((1, found.smallest, found.bias))
    for start in ((1, found.smallest, found.bias), (0.7, 0.2, 0.1), (1.5, 0.5, 0.0)):
        assert own <= optimize.minimize(loss, start, method="Nelder-Mead").fun + 1e-6
    codes = np.maximum(values - found.smallest, 0)
    np.testing.assert_allclose(found.firing, density * np.mean(codes > 0), atol=1e-3)
    present = np.mean((values - codes - found.bias) ** 2)
    square = density * present + (1 - density) * found.bias**2
    np.testing.assert_allclose(found.squared_error, square, atol=1e-5)


def test_a_feature_is_given_up_at_a_penalty_of_its_importance_times_two_minus_its_density():
    assert shrunk_feature(0.5, 0.2, 0.5 * 1.8).firing == 0
    assert shrunk_feature(0.5, 0.2, 0.5 * 1.79).firing > 0
    assert shrunk_feature(0.5, 0.2, 0.9).squared_error == pytest.approx(0.2 / 3 - 0.1**2)


def test_without_a_penalty_nothing_is_lost():
    found = shrunk_feature(0.5, 0.2, 0.0)
    assert found == (0, 0, 0.2, 0)


@pytest.mark.parametrize("bad", [(0, 0.2, 0.1), (1, 0, 0.1), (1, 1.1, 0.1), (1, 0.2, -0.1)])
def test_bad_numbers_of_a_feature_are_refused(bad):
    with pytest.raises(errors.InputError, match=r"importance|density|penalty"):
        shrunk_feature(*bad)


def fitted(end_to_end):
    """Fit to a model of three hidden directions whose output reads two; one occurs at a time."""
    model, autoencoder = tm.TwoLayer(COUNT), tm.ReLUAutoencoder(LATENTS)
    eye = jnp.eye(COUNT)
    written = {"weights_in": eye, "weights_out": eye.at[2].set(0.0), "bias": jnp.zeros(COUNT)}
    chances = np.array([0.9, *[1 / COUNT] * COUNT])
    features = tm.Hierarchy((-1, *[0] * COUNT), chances, exclusive=True, smallest=0.0)

    def loss(params, example):
        values = tm.activations(model, written, example[1:])
        latents, rebuilt = autoencoder.apply({"params": params}, values["hidden"])
        output = tm.intervene(model, written, example[1:], {"hidden": lambda _: rebuilt})
        error = output - values["output"] if end_to_end else rebuilt - values["hidden"]
        return jnp.sum(error**2) + PENALTY * jnp.sum(latents)

    recipe = tm.Recipe(steps=2000, batch=128, learning_rate=1e-2)
    start = autoencoder.init(jax.random.key(0), jnp.zeros(COUNT))["params"]
    fit = jax.jit(lambda key: tm.fit(key, start, loss, features.sample, **recipe.settings()).params)
    params = fit(jax.random.key(1))
    rows = jnp.linspace(0.0, 1.0, 21)[:, None, None] * eye[None]
    apply = jax.vmap(jax.vmap(lambda row: autoencoder.apply({"params": params}, row)))
    return apply(rows).latents  # values x features x latents


def test_training_end_to_end_spends_no_latent_on_what_the_output_does_not_read():
    usual, ours = fitted(end_to_end=False), fitted(end_to_end=True)
    assert np.all(usual[-1].sum(axis=1) > 0.5)  # 1 less the shrinkage
    assert np.all(ours[-1, :2].sum(axis=1) > 0.5)
    np.testing.assert_array_equal(ours[:, 2], 0)
