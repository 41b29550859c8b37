"""Inputs of the exact loss: what is refused, what is converted, and what has no loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrangements import random_model
from jaxtyping import TypeCheckError

import toymodels as tm
from toymodels.theory import loss as exact
from toymodels.theory.loss import (
    expected_loss,
    expected_loss_linear,
    expected_loss_one_active,
    expected_loss_signed,
)
from toymodels.theory.precision import floating


def test_plain_numbers_are_computed_in_double_precision():
    model = random_model(0, 3, 2)
    single = [jnp.asarray(values, jnp.float32) for values in model]
    for loss in (expected_loss, expected_loss_signed, expected_loss_linear):
        assert loss(*single).dtype == np.float64
    assert expected_loss_one_active(*single[:2], 1.0).dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density": 1.5}, "density is 1.5"),
        ({"density": -0.1}, "density is -0.1"),
        ({"density": np.ones(2)}, r"density has shape \(2,\)"),
        ({"importance": -1.0}, "importance is -1"),
        ({"importance": np.ones((3, 1))}, r"importance has shape \(3, 1\)"),
        ({"weights": np.full((2, 3), np.nan)}, "a weight is nan"),
        ({"bias": np.array([0, 0, np.inf])}, "a bias is inf"),
    ],
)
@pytest.mark.parametrize("loss", [expected_loss, expected_loss_signed, expected_loss_linear])
def test_impossible_numbers_are_refused(loss, change, message):
    numbers = {"weights": np.ones((2, 3)), "bias": np.zeros(3), "density": 0.5, "importance": 1.0}
    with pytest.raises(ValueError, match=message):
        loss(**(numbers | change))


def test_a_bias_per_output_is_needed():
    with pytest.raises((ValueError, TypeCheckError), match="bias"):
        expected_loss(np.ones((2, 3)), np.zeros(4), 0.5, 1.0)


@pytest.mark.parametrize(
    ("loss", "most"),
    [(expected_loss, exact.MAX_FEATURES), (expected_loss_signed, exact.MAX_SIGNED_FEATURES)],
)
def test_too_many_features_are_refused(loss, most):
    with pytest.raises(
        ValueError, match=f"{most + 1} features are more than the {most}.*estimate it"
    ):
        loss(np.ones((2, most + 1)), np.zeros(most + 1), 0.5, 1.0)


def test_whole_numbers_are_made_floats():
    assert floating(jnp.array([1, -1])).dtype == jnp.float32
    assert floating(jnp.array([1.0], jnp.float16)).dtype == jnp.float16


@pytest.mark.parametrize("which", ["weights", "bias"])
def test_what_is_not_finite_has_no_loss_when_traced(which):
    model = {"weights": np.array([[1.0, 0.5], [0.2, -1.0]]), "bias": np.zeros(2)}
    model[which].flat[0] = np.nan
    for loss in (expected_loss, expected_loss_signed):
        assert np.isnan(tm.jit(lambda m, loss=loss: loss(m["weights"], m["bias"], 0.3))(model))
    one_active = tm.jit(lambda m: expected_loss_one_active(m["weights"], m["bias"]))
    assert np.isnan(one_active(model))


def test_plain_numbers_have_a_loss_while_something_else_is_traced():
    weights, bias = np.array([[1.0, -1.0]]), np.zeros(2)
    shifted = jax.jit(lambda x: x + expected_loss(weights, bias, 0.3))
    np.testing.assert_allclose(shifted(1.0), 1 + 0.3**2 / 3, rtol=1e-6)
    results = tm.sweep(
        lambda key, density: {"loss": expected_loss(weights, bias, density)},
        axes={"density": [0.1, 0.2]},
        num_seeds=1,
    )
    np.testing.assert_allclose(
        results["loss"].isel(seed=0), np.array([0.1, 0.2]) ** 2 / 3, rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(3,), (2, 0), (2, 2, 3)])
def test_weights_of_no_model_are_refused(shape):
    with pytest.raises((ValueError, TypeCheckError), match="weights"):
        expected_loss(np.zeros(shape), np.zeros(shape[-1]), 0.5, 1.0)
