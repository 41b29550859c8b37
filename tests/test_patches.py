"""The values of sites are read and replaced, and nothing else changes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formulas import (
    FEATURES,
    HIDDEN,
    ROUNDING,
    X,
    apply,
    every_model,
    every_site,
    on_device,
    random_params,
    relu,
)

from toymodels import LinearOutput, ReLUHidden, ReLUOutput, Site, activations, intervene
from toymodels.errors import InputError


@every_site
@pytest.mark.parametrize("compiled", [False, True])
def test_patching_a_site_with_its_own_value_changes_no_bit(model_class, site, compiled):
    model = model_class(HIDDEN)
    params = on_device(random_params(model))
    batch = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (7, FEATURES)))

    def unpatched(x):
        return model.apply({"params": params}, x)

    def patched(x):
        return intervene(model, params, x, {site: lambda value: value})

    jit = jax.jit if compiled else lambda function: function
    for mapped in (jit, lambda function: jit(jax.vmap(function))):
        x = batch[0] if mapped is jit else batch
        np.testing.assert_array_equal(mapped(patched)(x), mapped(unpatched)(x))


@every_model
def test_no_patches_change_no_bit(model_class):
    model = model_class(HIDDEN)
    params = random_params(model)
    patched = intervene(model, on_device(params), jnp.asarray(X), {})
    np.testing.assert_array_equal(patched, apply(model, params, X))


@every_model
def test_without_hidden_activations_the_bias_is_left(model_class):
    model = model_class(HIDDEN)
    params = random_params(model)
    outputs = intervene(model, on_device(params), jnp.asarray(X), {"hidden": jnp.zeros_like})
    expected = params["bias"] if model_class is LinearOutput else relu(params["bias"])
    np.testing.assert_array_equal(outputs, expected.astype(np.float32))


def test_patches_act_in_the_order_of_the_computation():
    model = ReLUOutput(HIDDEN)
    params = random_params(model)
    hidden = np.array([0.5, -0.25])
    seen = {}

    def halve(preactivation):
        seen["preactivation"] = preactivation
        return preactivation / 2

    patches = {
        "output": lambda output: output + 1,
        "preactivation": halve,
        "hidden": lambda _: jnp.asarray(hidden, jnp.float32),
    }
    outputs = intervene(model, on_device(params), jnp.asarray(X), patches)
    preactivation = params["weights"].T @ hidden + params["bias"]
    np.testing.assert_allclose(seen["preactivation"], preactivation, **ROUNDING)
    np.testing.assert_allclose(outputs, relu(preactivation / 2) + 1, **ROUNDING)


def test_the_derivative_by_a_hidden_activation_is_its_output_weights():
    model = LinearOutput(HIDDEN)
    params = random_params(model)

    def outputs(change):
        patch = {"hidden": lambda hidden: hidden + change}
        return intervene(model, on_device(params), jnp.asarray(X), patch)

    jacobian = jax.jacrev(outputs)(jnp.zeros(HIDDEN))
    np.testing.assert_allclose(jacobian, params["weights"].T, rtol=1e-6)


def test_an_intervention_ends_with_its_call():
    model = ReLUOutput(HIDDEN)
    params = random_params(model)
    before = apply(model, params, X)

    @jax.jit
    def compiled_during(x):
        return apply(model, params, x)

    # Compiled before, while and after the intervention: the same function each time.
    compiled_before = jax.jit(lambda x: apply(model, params, x))
    compiled_before(X)
    during = []

    def patch(hidden):
        during.extend([apply(model, params, X), compiled_before(X), compiled_during(X)])
        during.append(activations(model, on_device(params), jnp.asarray(X))["output"])
        return jnp.zeros_like(hidden)

    outputs = intervene(model, on_device(params), jnp.asarray(X), {"hidden": patch})
    after = [apply(model, params, X), compiled_before(X), compiled_during(X)]
    assert np.any(outputs != before)
    for unpatched in (*during, *after):
        # Compiled, sums may be fused; a leak would be zero hidden activations.
        np.testing.assert_allclose(unpatched, before, rtol=1e-6, atol=1e-7)


def test_an_intervention_that_fails_ends_too():
    model = ReLUOutput(HIDDEN)
    params = random_params(model)
    before = apply(model, params, X)
    with pytest.raises(ZeroDivisionError):
        intervene(model, on_device(params), jnp.asarray(X), {"hidden": lambda hidden: 1 // 0})
    np.testing.assert_array_equal(apply(model, params, X), before)


def test_the_hidden_activations_of_another_input_give_its_output():
    model = ReLUHidden(HIDDEN)
    params = random_params(model)

    def of_the_other(_):
        return activations(model, on_device(params), jnp.asarray(-X))["hidden"]

    outputs = intervene(model, on_device(params), jnp.asarray(X), {"hidden": of_the_other})
    np.testing.assert_array_equal(outputs, apply(model, params, -X))


class Stack(nn.Module):
    """Two models, one after the other."""

    @nn.compact
    def __call__(self, features):
        features = ReLUOutput(HIDDEN, name="first")(features)
        return Site(name="end")(LinearOutput(HIDDEN, name="second")(features))


def test_sites_of_submodules_are_named_by_their_path():
    model = Stack()
    params = on_device(model.init(jax.random.key(0), jnp.zeros(FEATURES))["params"])
    x = jnp.asarray(X)
    values = activations(model, params, x)
    assert values.keys() == {
        "end",
        *(f"first/{site}" for site in ("hidden", "preactivation", "output")),
        *(f"second/{site}" for site in ("hidden", "output")),
    }
    np.testing.assert_array_equal(values["first/output"], apply(ReLUOutput(2), params["first"], X))
    np.testing.assert_array_equal(values["end"], values["second/output"])
    outputs = intervene(model, params, x, {"first/output": jnp.zeros_like})
    expected = LinearOutput(HIDDEN).apply({"params": params["second"]}, jnp.zeros(FEATURES))
    np.testing.assert_array_equal(outputs, expected)


class Pair(nn.Module):
    """A site that holds two arrays."""

    @nn.compact
    def __call__(self, features):
        left, right = Site(name="pair")((features, 2 * features))
        return jnp.sum(left * right)


def test_a_site_may_hold_several_arrays():
    x = jnp.asarray(X, jnp.float32)
    left, right = activations(Pair(), {}, x)["pair"]
    np.testing.assert_array_equal(left, x)
    np.testing.assert_array_equal(right, 2 * x)
    assert intervene(Pair(), {}, x, {"pair": lambda pair: (pair[0], jnp.zeros(FEATURES))}) == 0
    with pytest.raises(InputError, match=r"^the patch of site 'pair' gives shape \(5,\): it must"):
        intervene(Pair(), {}, x, {"pair": lambda pair: pair[0]})
    with pytest.raises(InputError, match=r"^no site 'pair/__call__' in this model: it has pair$"):
        intervene(Pair(), {}, x, {"pair/__call__": lambda pair: pair})


class Mapped(nn.Module):
    """A model of vectors, mapped by Flax over a sequence of them."""

    axes: tuple[tuple[str, int | None], ...]

    @nn.compact
    def __call__(self, sequence):
        mapped = nn.vmap(
            ReLUOutput, variable_axes=dict(self.axes), split_rngs={"params": False}, in_axes=0
        )
        return mapped(HIDDEN, name="mapped")(sequence)


def test_a_site_inside_a_transformed_module_is_read_or_the_remedy_is_given():
    sequence = jnp.asarray(np.random.default_rng(0).uniform(size=(3, FEATURES)), jnp.float32)
    silent, open_ = Mapped((("params", None),)), Mapped((("params", None), ("intermediates", 0)))
    params = silent.init(jax.random.key(0), sequence)["params"]
    hidden = activations(open_, params, sequence)["mapped/hidden"]
    expected = np.asarray(sequence) @ np.asarray(params["mapped"]["weights"]).T
    np.testing.assert_allclose(hidden, expected, **ROUNDING)
    with pytest.raises(InputError, match=r"^site 'mapped/hidden' is inside .*'intermediates': 0"):
        activations(silent, params, sequence)
    zeros = intervene(silent, params, sequence, {"mapped/output": jnp.zeros_like})
    np.testing.assert_array_equal(zeros, np.zeros((3, FEATURES)))
