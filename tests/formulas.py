"""The formulas of the models in float64, and random parameters for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toymodels import LinearOutput, ReLUHidden, ReLUOutput, TwoLayer

HIDDEN, FEATURES = 2, 5
X = np.random.default_rng(0).uniform(-1, 1, FEATURES)
TIED = (LinearOutput, ReLUOutput, ReLUHidden)
MODELS = (*TIED, TwoLayer)
# Sums of at most ten products of order one, in float32.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def relu(x):
    return np.maximum(x, 0)


def linear_output(x, f, *, weights, bias):
    hidden = weights @ x
    return {"hidden": hidden, "output": weights.T @ hidden + bias}


def relu_output(x, f, *, weights, bias):
    hidden = weights @ x
    preactivation = weights.T @ hidden + bias
    return {"hidden": hidden, "preactivation": preactivation, "output": f(preactivation)}


def relu_hidden(x, f, *, weights, bias):
    hidden = f(weights @ x)
    preactivation = weights.T @ hidden + bias
    return {"hidden": hidden, "preactivation": preactivation, "output": f(preactivation)}


def two_layer(x, f, *, weights_in, weights_out, bias):
    hidden = f(weights_in @ x)
    preactivation = weights_out @ hidden + bias
    return {"hidden": hidden, "preactivation": preactivation, "output": f(preactivation)}


FORMULAS = dict(zip(MODELS, (linear_output, relu_output, relu_hidden, two_layer), strict=True))
every_model = pytest.mark.parametrize("model_class", MODELS)
every_tied_model = pytest.mark.parametrize("model_class", TIED)
every_site = pytest.mark.parametrize(
    ("model_class", "site"),
    [
        (model_class, site)
        for model_class in MODELS
        for site in ("hidden", "preactivation", "output")
        if (model_class, site) != (LinearOutput, "preactivation")
    ],
)


def random_params(model, seed=1):
    """Random parameters of order one, with a bias, in float64."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(FEATURES))["params"]
    return {name: generator.uniform(-1, 1, leaf.shape) for name, leaf in shapes.items()}


def on_device(params):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


def apply(model, params, x):
    return model.apply({"params": on_device(params)}, jnp.asarray(x, jnp.float32))
