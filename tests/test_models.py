"""The models are their formulas in float64, their sites are the terms of those formulas."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formulas import (
    FEATURES,
    FORMULAS,
    HIDDEN,
    ROUNDING,
    X,
    apply,
    every_model,
    on_device,
    random_params,
    relu,
)
from scipy import stats

from toymodels import (
    LinearOutput,
    ReLUHidden,
    ReLUOutput,
    Tied,
    TwoLayer,
    activations,
    intervene,
    notebook_initializer,
)
from toymodels.errors import InputError

UNLIKELY = 1e-4


@every_model
def test_every_site_holds_its_term_of_the_formula(model_class):
    model = model_class(HIDDEN)
    params = random_params(model)
    expected = FORMULAS[model_class](X, relu, **params)
    actual = activations(model, on_device(params), jnp.asarray(X))
    assert actual.keys() == expected.keys()
    for site, value in actual.items():
        np.testing.assert_allclose(value, expected[site], **ROUNDING)
    np.testing.assert_array_equal(apply(model, params, X), actual["output"])


@pytest.mark.parametrize("model_class", [ReLUOutput, ReLUHidden, TwoLayer])
@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        pytest.param(jnp.tanh, np.tanh, id="tanh"),
        pytest.param(jnp.square, np.square, id="square"),
        pytest.param(nn.softplus, lambda x: np.log1p(np.exp(x)), id="softplus"),
    ],
)
def test_any_activation_takes_its_place_in_the_formula(model_class, activation, formula):
    model = model_class(HIDDEN, activation=activation)
    params = random_params(model)
    expected = FORMULAS[model_class](X, formula, **params)["output"]
    np.testing.assert_allclose(apply(model, params, X), expected, **ROUNDING)


@pytest.mark.parametrize(
    ("model", "special_case"),
    [
        (LinearOutput(HIDDEN), Tied(HIDDEN, activation=lambda y: y)),
        (ReLUOutput(HIDDEN), Tied(HIDDEN)),
        (ReLUHidden(HIDDEN), Tied(HIDDEN, hidden_activation=nn.relu)),
    ],
)
def test_the_named_models_are_cases_of_the_tied_one(model, special_case):
    params = model.init(jax.random.key(0), jnp.asarray(X))["params"]
    same = special_case.init(jax.random.key(0), jnp.asarray(X))["params"]
    jax.tree.map(np.testing.assert_array_equal, params, same)
    np.testing.assert_array_equal(apply(model, params, X), apply(special_case, params, X))


def test_a_tied_model_without_bias_has_weights_alone():
    model = Tied(HIDDEN, hidden_activation=jnp.tanh, use_bias=False)
    params = random_params(model)
    assert params.keys() == {"weights"}
    weights = params["weights"]
    expected = relu(weights.T @ np.tanh(weights @ X))
    np.testing.assert_allclose(apply(model, params, X), expected, **ROUNDING)


@every_model
def test_a_batch_is_a_map_over_examples(model_class):
    model = model_class(HIDDEN)
    params = random_params(model)
    batch = np.random.default_rng(2).uniform(-1, 1, (7, FEATURES))
    outputs = jax.vmap(lambda x: apply(model, params, x))(batch)
    expected = [FORMULAS[model_class](x, relu, **params)["output"] for x in batch]
    np.testing.assert_allclose(outputs, expected, **ROUNDING)


def test_two_neurons_per_feature_compute_the_absolute_value_exactly():
    identity = np.eye(FEATURES)
    params = {
        "weights_in": np.concatenate([identity, -identity]),
        "weights_out": np.concatenate([identity, identity], axis=1),
        "bias": np.zeros(FEATURES),
    }
    outputs = apply(TwoLayer(2 * FEATURES), params, X)
    np.testing.assert_array_equal(outputs, np.abs(X).astype(np.float32))


@pytest.mark.parametrize("x", [[0.75, 0], [0, 0.75], [0, 0]])
def test_an_antipodal_pair_reconstructs_one_feature_at_a_time_exactly(x):
    params = {"weights": np.array([[1.0, -1.0]]), "bias": np.zeros(2)}
    np.testing.assert_array_equal(apply(ReLUOutput(1), params, x), x)


@pytest.mark.parametrize("model_class", [LinearOutput, ReLUOutput])
def test_a_linear_hidden_layer_has_no_privileged_basis(model_class):
    model = model_class(HIDDEN)
    params = random_params(model)
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
    rotated = apply(model, params | {"weights": rotation @ params["weights"]}, X)
    np.testing.assert_allclose(rotated, apply(model, params, X), **ROUNDING)


@every_model
def test_weights_are_hidden_by_features_and_the_bias_starts_at_zero(model_class):
    params = model_class(HIDDEN).init(jax.random.key(0), jnp.zeros(FEATURES))["params"]
    np.testing.assert_array_equal(params.pop("bias"), np.zeros(FEATURES))
    shapes = {name: leaf.shape for name, leaf in params.items()}
    if model_class is TwoLayer:
        assert shapes == {"weights_in": (HIDDEN, FEATURES), "weights_out": (FEATURES, HIDDEN)}
    else:
        assert shapes == {"weights": (HIDDEN, FEATURES)}


@every_model
def test_any_start_of_the_weights(model_class):
    model = model_class(HIDDEN, initializer=nn.initializers.constant(0.25))
    params = model.init(jax.random.key(0), jnp.zeros(FEATURES))["params"]
    assert {float(leaf) for leaf in jax.tree.leaves(jax.tree.map(jnp.max, params))} == {0, 0.25}


@every_model
def test_parameters_have_the_default_precision(model_class, x64):
    params = model_class(HIDDEN).init(jax.random.key(0), jnp.zeros(FEATURES))["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float64")}


def test_weights_start_at_a_truncated_normal_of_variance_two_over_the_sum_of_sides():
    hidden, features = 20, 200
    params = ReLUOutput(hidden).init(jax.random.key(0), jnp.zeros(features))["params"]
    # Cut at twice its own scale, a normal keeps 0.7737 of its variance.
    cut = stats.truncnorm(-2, 2)
    scale = np.sqrt(2 / (hidden + features)) / cut.std()
    weights = np.asarray(params["weights"]).ravel()
    assert stats.kstest(weights / scale, cut.cdf).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("num_instances", "features", "hidden", "deviation"),
    [(10, 5, 2, 0.258), (20, 100, 20, 0.0289), (20, 200, 20, 0.0213)],
)
def test_the_start_of_the_notebook_has_its_deviation(num_instances, features, hidden, deviation):
    np.testing.assert_allclose(
        np.sqrt(2 / (hidden * (features + num_instances))), deviation, rtol=2e-3
    )
    initializer = notebook_initializer(num_instances)
    # Several starts are drawn, because the smallest has only ten weights.
    starts = jax.jit(jax.vmap(lambda key: initializer(key, (hidden, features))))(
        jax.random.split(jax.random.key(0), 200)
    )
    weights = np.asarray(starts, np.float64).ravel()
    assert stats.kstest(weights[:2000], stats.norm(scale=deviation).cdf).pvalue > UNLIKELY
    # The sum of squares is chi-squared: its deviation is that of N such terms, sqrt(2N).
    variance = np.mean(weights**2) * hidden * (features + num_instances) / 2
    assert abs(variance - 1) < 5 * np.sqrt(2 / weights.size)


def test_six_pairs_of_four_bits_are_computed_exactly():
    # x and y is ReLU(x + y - 1) of bits: hidden neurons that copy the bits are enough.
    pairs = np.array(list(itertools.combinations(range(4), 2)))
    model = TwoLayer(4, outputs=6)
    weights_out = np.zeros((6, 4))
    weights_out[np.arange(6)[:, None], pairs] = 1
    params = {"weights_in": np.eye(4), "weights_out": weights_out, "bias": np.full(6, -1.0)}
    for bits in itertools.product((0.0, 1.0), repeat=4):
        expected = np.prod(np.array(bits)[pairs], axis=1)
        np.testing.assert_array_equal(apply(model, params, bits), expected)
    with pytest.raises(InputError, match=r"^outputs is 0: give a whole number, 1 or more"):
        TwoLayer(4, outputs=0).init(jax.random.key(0), jnp.zeros(4))


def test_each_matrix_of_two_layers_has_its_own_start():
    model = TwoLayer(
        HIDDEN,
        initializer=nn.initializers.constant(2.0),
        initializer_out=nn.initializers.constant(3.0),
    )
    params = model.init(jax.random.key(0), jnp.zeros(FEATURES))["params"]
    assert np.all(params["weights_in"] == 2)
    assert np.all(params["weights_out"] == 3)


@pytest.mark.parametrize("read", [activations, lambda *of: intervene(*of, {})])
@pytest.mark.parametrize(
    ("change", "x", "message"),
    [
        ({}, np.zeros(4), r"^parameter 'bias' has shape \(5,\), but for an input of shape \(4,\) "),
        ({"weights": np.zeros((5, 2))}, X, r"^parameter 'weights' has shape .*: transpose it"),
        ({"extra": np.zeros(2)}, np.zeros(4), r"^params has bias, extra, weights, but the model "),
    ],
)
def test_parameters_and_inputs_that_do_not_fit_are_refused_in_one_line(read, change, x, message):
    model = ReLUOutput(HIDDEN)
    params = on_device({**random_params(model), **change})
    with pytest.raises(InputError, match=message):
        read(model, params, jnp.asarray(x, jnp.float32))


def test_an_unknown_site_is_refused_with_those_there_are():
    model = ReLUOutput(HIDDEN)
    params = on_device(random_params(model))
    message = "^no site 'hiden' in this model: it has hidden, output, preactivation$"
    with pytest.raises(InputError, match=message):
        intervene(model, params, jnp.asarray(X), {"hiden": jnp.zeros_like})


@pytest.mark.parametrize(
    ("patch", "shape"), [(lambda hidden: hidden[:1], r"\(1,\)"), (lambda _: 0.0, r"\(\)")]
)
def test_a_patch_of_another_shape_is_refused(patch, shape):
    model = ReLUOutput(HIDDEN)
    params = on_device(random_params(model))
    message = rf"^the patch of site 'hidden' gives shape {shape}: it must keep \(2,\)"
    with pytest.raises(InputError, match=message):
        intervene(model, params, jnp.asarray(X), {"hidden": patch})


@every_model
def test_a_model_without_hidden_dimensions_is_refused(model_class):
    with pytest.raises(InputError, match=r"^hidden is 0: give a whole number, 1 or more"):
        model_class(0).init(jax.random.key(0), jnp.zeros(FEATURES))


def test_a_start_for_no_models_is_refused():
    with pytest.raises(InputError, match=r"^num_instances is 0: give a whole number, 1 or more$"):
        notebook_initializer(0)
