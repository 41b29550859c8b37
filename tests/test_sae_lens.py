"""Autoencoders in the form of SAELens, held against its equations in NumPy and against its files.

`tests/read_sae_lens.py` made the files with SAELens itself, and let it read ours.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from autoencoder_cases import HIDDEN, LATENTS, each, numbers, random_params

import toymodels as tm
from toymodels import autoencoders
from toymodels.errors import InputError

MADE = json.loads(Path(__file__).with_name("made_by_sae_lens.json").read_text())
KEPT = ("examples", "latents", "outputs")
EXAMPLES = np.asarray(numbers(3, 50, HIDDEN))


def relu(x):
    return np.maximum(x, 0)


def sae_lens(settings, weights):
    """Return the latents and outputs of SAELens for `EXAMPLES`, whose rows are examples."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    centred = EXAMPLES - w["b_dec"] * settings["apply_b_dec_to_input"]
    scores = centred @ w["W_enc"]
    if settings["architecture"] == "gated":
        magnitudes = relu(centred @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"])
        latents = (scores + w["b_gate"] > 0) * magnitudes
    else:
        scores = scores + w["b_enc"]
        latents = relu(scores)
        if settings["architecture"] == "jumprelu":
            latents = latents * (scores > w["threshold"])
        if settings["architecture"] == "topk":
            if settings["rescale_acts_by_decoder_norm"]:
                raise NotImplementedError
            kept = np.argsort(-scores, axis=1)[:, : settings["k"]]
            mask = np.zeros_like(scores)
            np.put_along_axis(mask, kept, 1, axis=1)
            latents = latents * mask
    return latents, latents @ w["W_dec"] + w["b_dec"]


def ours(model, params):
    return jax.vmap(lambda x: model.apply({"params": params}, x))(EXAMPLES)


@each
def test_what_is_written_computes_the_same_in_sae_lens(model):
    params = random_params(model, 0)
    settings, weights = autoencoders.to_sae_lens(model, params)
    latents, outputs = sae_lens(settings, weights)
    found = ours(model, params)
    np.testing.assert_allclose(found.latents, latents, atol=1e-5)
    np.testing.assert_allclose(found.reconstruction, outputs, atol=1e-5)
    assert (settings["d_in"], settings["d_sae"]) == (HIDDEN, LATENTS)
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize("name", MADE)
def test_a_file_of_sae_lens_computes_here_what_sae_lens_computed(name):
    examples, latents, outputs = (np.float32(MADE[name][key]) for key in KEPT)
    weights = {key: np.float32(value) for key, value in MADE[name]["weights"].items()}
    model, params = autoencoders.from_sae_lens(MADE[name]["settings"], weights)
    found = jax.vmap(lambda x: model.apply({"params": params}, x))(examples)
    lengths = np.linalg.norm(weights["W_dec"], axis=1)  # directions have length 1 here
    np.testing.assert_allclose(found.latents, latents * lengths, atol=1e-5)
    np.testing.assert_allclose(found.reconstruction, outputs, atol=1e-5)


@each
def test_an_autoencoder_survives_the_way_to_sae_lens_and_back(model):
    params = random_params(model, 1)
    again, back = autoencoders.from_sae_lens(*autoencoders.to_sae_lens(model, params))
    expected = ours(model, params)
    found = ours(again, back)
    np.testing.assert_allclose(found.latents, expected.latents, atol=1e-5)
    np.testing.assert_allclose(found.reconstruction, expected.reconstruction, atol=1e-5)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_long_directions_and_activations_that_are_not_centred(architecture, centred):
    """SAELens keeps the lengths of directions; here they become lengths of latents."""
    random = np.random.default_rng(5)
    shapes = {"W_enc": (HIDDEN, LATENTS), "W_dec": (LATENTS, HIDDEN), "b_dec": HIDDEN}
    shapes |= dict.fromkeys(["b_enc", "b_gate", "r_mag", "b_mag", "threshold"], LATENTS)
    weights = {name: random.normal(size=shape) for name, shape in shapes.items()}
    weights["threshold"] = np.abs(weights["threshold"])
    settings = {"architecture": architecture, "apply_b_dec_to_input": centred}
    latents, outputs = sae_lens(settings, weights)
    found = ours(*autoencoders.from_sae_lens(settings, weights))
    lengths = np.linalg.norm(weights["W_dec"], axis=1)
    np.testing.assert_allclose(found.latents, latents * lengths, atol=1e-4)
    np.testing.assert_allclose(found.reconstruction, outputs, atol=1e-4)


def test_files_of_safetensors_hold_the_same(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="the extra `exchange` has it")
    model = autoencoders.ReLUAutoencoder(LATENTS)
    _, weights = autoencoders.to_sae_lens(model, random_params(model, 2))
    safetensors.save_file(weights, tmp_path / "sae_weights.safetensors")
    read = safetensors.load_file(tmp_path / "sae_weights.safetensors")
    assert read.keys() == weights.keys()
    for name, value in read.items():
        np.testing.assert_array_equal(value, weights[name])


def test_what_has_no_counterpart_is_refused():
    model = autoencoders.TopKAutoencoder(LATENTS, 2)
    params = random_params(model, 0)
    settings, weights = autoencoders.to_sae_lens(model, params)
    with pytest.raises(InputError, match="normalize_activations is 'layer_norm'"):
        autoencoders.from_sae_lens({**settings, "normalize_activations": "layer_norm"}, weights)
    with pytest.raises(InputError, match="architecture is 'temporal': it must be one of standard"):
        autoencoders.from_sae_lens({**settings, "architecture": "temporal"}, weights)
    old = {**settings, "architecture": "standard", "activation_fn_str": "tanh-relu"}
    with pytest.raises(InputError, match="activation_fn 'tanh-relu': load it with SAELens 6"):
        autoencoders.from_sae_lens(old, weights)
    scaled = {**weights, "scaling_factor": np.full(LATENTS, 2.0)}
    with pytest.raises(InputError, match="has a scaling_factor"):
        autoencoders.from_sae_lens(settings, scaled)
    with pytest.raises(InputError, match="the weights have no 'threshold'"):
        autoencoders.from_sae_lens({**settings, "architecture": "jumprelu"}, weights)
    turned = {**weights, "W_enc": weights["W_enc"].T}
    with pytest.raises(InputError, match=r"W_enc has shape .* give hidden x latents"):
        autoencoders.from_sae_lens(settings, turned)
    with pytest.raises(InputError, match="params has no 'decoder'"):
        autoencoders.to_sae_lens(model, {})
    uneven = {**weights, "W_dec": weights["W_dec"] * np.arange(1, LATENTS + 1)[:, None]}
    with pytest.raises(InputError, match="call fold_W_dec_norm"):
        autoencoders.from_sae_lens(settings, uneven)
    stacked = jax.tree.map(lambda leaf: leaf[None], params)
    with pytest.raises(InputError, match="the parameters of ONE model"):
        autoencoders.to_sae_lens(model, stacked)
    with pytest.raises(InputError, match="ReLUOutput has no form in SAELens"):
        autoencoders.to_sae_lens(tm.ReLUOutput(2), params)
