"""Interventions on models whose mechanism is known, held against closed forms."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal

import toymodels as tm
from toymodels import interventions as iv
from toymodels.theory import frames

MODEL = tm.ReLUOutput(hidden=2)
PENTAGON = {"weights": jnp.asarray(frames.regular_polygon(5)), "bias": jnp.full(5, -0.1)}
WEIGHTS = PENTAGON["weights"]
X = jnp.asarray([0.9, 0.0, 0.4, 0.0, 0.2])
OTHER = jnp.asarray([0.1, 0.7, 0.0, 0.0, 0.5])


def first(output):
    return output[0]


PARTS = {
    "whole": iv.whole("hidden"),
    "unit": iv.unit("hidden", 1),
    "direction": iv.direction("hidden", WEIGHTS[:, 2]),
    "subspace": iv.subspace("hidden", jnp.linalg.qr(normal(0, 2, 2))[0]),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_replaced_by_itself_changes_no_bit(name):
    own = tm.activations(MODEL, PENTAGON, X)
    patched = iv.run(MODEL, PENTAGON, X, iv.patch(PARTS[name], own))
    np.testing.assert_array_equal(patched, MODEL.apply({"params": PENTAGON}, X))


@pytest.mark.parametrize("name", ["whole", "subspace"])
def test_a_part_that_spans_the_site_carries_the_whole_output(name):
    """The output depends on the input through `hidden` alone."""
    source = tm.activations(MODEL, PENTAGON, OTHER)
    patched = iv.run(MODEL, PENTAGON, X, iv.patch(PARTS[name], source))
    np.testing.assert_allclose(patched, MODEL.apply({"params": PENTAGON}, OTHER), atol=1e-6)


def test_editing_a_direction_moves_each_output_by_its_overlap_with_it():
    r"""Adding $a \hat v$ to $h$ adds $a W_i \cdot \hat v$ to preactivation $i$."""
    vector = normal(1, 2)
    edit = iv.add(iv.direction("hidden", vector), 0.3)
    before = tm.activations(MODEL, PENTAGON, X)["preactivation"]
    after = iv.activations(MODEL, PENTAGON, X, edit)["preactivation"]
    unit = vector / jnp.linalg.norm(vector)
    np.testing.assert_allclose(after - before, 0.3 * WEIGHTS.T @ unit, atol=1e-6)


def test_ablating_a_direction_is_a_projection():
    edit = iv.zero(PARTS["direction"])
    read = iv.activations(MODEL, PENTAGON, X, edit)["hidden"]
    unit = WEIGHTS[:, 2] / jnp.linalg.norm(WEIGHTS[:, 2])
    hidden = WEIGHTS @ X
    np.testing.assert_allclose(read, hidden - unit * (unit @ hidden), atol=1e-6)


def test_edits_compose_in_the_order_in_which_they_are_given():
    part = iv.unit("hidden", 0)
    added = iv.activations(MODEL, PENTAGON, X, iv.set_to(part, 1.0), iv.add(part, 0.5))["hidden"]
    assert added[0] == 1.5
    overwritten = iv.activations(MODEL, PENTAGON, X, iv.add(part, 0.5), iv.set_to(part, 1.0))
    assert overwritten["hidden"][0] == 1.0


def test_a_mean_and_a_resample_come_from_the_reference_batch():
    examples = jnp.abs(normal(2, 50, 5))
    reference = jax.vmap(lambda x: tm.activations(MODEL, PENTAGON, x))(examples)
    part = iv.whole("hidden")
    read = iv.activations(MODEL, PENTAGON, X, iv.mean(part, reference))["hidden"]
    np.testing.assert_allclose(read, (examples @ WEIGHTS.T).mean(axis=0), atol=1e-5)

    def drawn(key):
        return iv.activations(MODEL, PENTAGON, X, iv.resample(key, part, reference))["hidden"]

    draws = jax.vmap(drawn)(jax.random.split(jax.random.key(0), 500))
    distances = jnp.abs(draws[:, None] - reference["hidden"][None]).max(axis=-1)
    assert jnp.all(distances.min(axis=1) == 0)  # each is a row of the reference
    assert len(np.unique(distances.argmin(axis=1))) > 45  # and nearly all rows are drawn


def test_damage_of_ablating_a_dedicated_feature_is_the_closed_form():
    r"""Zero ablation costs $p/3$, mean ablation the variance $p/3 - p^2/4$, resampling twice that.

    The model is the identity on three features, so each has a dimension of its own.
    """
    model, density, number = tm.ReLUOutput(hidden=3), 0.3, 200_000
    params = {"weights": jnp.eye(3), "bias": jnp.zeros(3)}
    examples = tm.SparseUniform(3, density).sample(jax.random.key(0), number)
    reference = jax.vmap(lambda x: tm.activations(model, params, x))(examples)
    part = iv.direction("hidden", jnp.asarray([0.0, 1.0, 0.0]))
    loss = tm.Task(tm.SparseUniform(3, density)).loss
    zero, mean = (
        iv.damage(model, params, examples, loss, edit)
        for edit in (iv.zero(part), iv.mean(part, reference))
    )
    # The standard error of a mean over 200,000 examples is below 0.0006.
    np.testing.assert_allclose(zero, density / 3, atol=0.002)
    variance = density / 3 - density**2 / 4
    np.testing.assert_allclose(mean, variance, atol=0.002)

    def resampled(key, example):
        return loss(example, iv.run(model, params, example, iv.resample(key, part, reference)))

    keys = jax.random.split(jax.random.key(1), number)
    np.testing.assert_allclose(
        jnp.mean(jax.vmap(resampled)(keys, examples)), 2 * variance, atol=0.003
    )


def test_damage_of_each_direction_of_a_pentagon_is_that_of_the_exact_loss():
    """Ablating a direction is the untied model whose encoder is projected."""
    density = 0.2
    examples = tm.SparseUniform(5, density).sample(jax.random.key(3), 100_000)
    loss = tm.Task(tm.SparseUniform(5, density)).loss
    parts = iv.directions("hidden", WEIGHTS)
    measured = iv.lesions(MODEL, PENTAGON, examples, parts, iv.zero, loss)
    whole = np.asarray(WEIGHTS, float)
    bias = np.asarray(PENTAGON["bias"], float)
    before = tm.theory.expected_loss(whole, bias, density)
    for i in range(5):
        unit = whole[:, i] / np.linalg.norm(whole[:, i])
        projected = whole - np.outer(unit, unit @ whole)
        exact = tm.theory.expected_loss(projected, bias, density, decoder=whole) - before
        np.testing.assert_allclose(measured[i], exact, atol=0.004)


def test_the_damage_of_several_outputs_adds_up_to_that_of_their_sum():
    examples = tm.SparseUniform(5, 0.2).sample(jax.random.key(3), 500)
    units = iv.places(MODEL, PENTAGON, X)["hidden"]

    @jax.jit
    def both(examples):
        outputs = (MODEL, PENTAGON, examples, units, iv.zero)
        each = iv.lesions(*outputs, lambda x, output: (x - output) ** 2)
        return each, iv.lesions(*outputs, tm.Task(tm.SparseUniform(5, 0.2)).loss)

    each, total = both(examples)
    assert each.shape == (2, 5)
    np.testing.assert_allclose(each.sum(axis=1), total, atol=1e-6)


def test_a_feature_that_is_not_represented_does_no_damage():
    """The column of such a feature is 0, so there is nothing to ablate."""
    params = {**PENTAGON, "weights": WEIGHTS.at[:, 3].set(0)}
    examples = tm.SparseUniform(5, 0.2).sample(jax.random.key(0), 100)
    loss = tm.Task(tm.SparseUniform(5, 0.2)).loss
    parts = iv.directions("hidden", params["weights"])
    damage = iv.lesions(MODEL, params, examples, parts, iv.zero, loss)
    assert damage[3] == 0
    assert bool(jnp.isfinite(damage).all())


def test_total_effect_is_direct_plus_indirect_in_both_orders():
    part = iv.direction("hidden", WEIGHTS[:, 0])
    effect = iv.mediation(MODEL, PENTAGON, X, OTHER, part, first)
    np.testing.assert_allclose(
        effect.total, effect.natural_direct + effect.total_indirect, atol=1e-6
    )
    np.testing.assert_allclose(
        effect.total, effect.total_direct + effect.natural_indirect, atol=1e-6
    )
    plain = [first(MODEL.apply({"params": PENTAGON}, x)) for x in (X, OTHER)]
    np.testing.assert_allclose(effect.total, plain[1] - plain[0], atol=1e-6)


def test_a_mediator_on_the_only_path_leaves_no_direct_effect():
    effect = iv.mediation(MODEL, PENTAGON, X, OTHER, iv.whole("hidden"), first)
    assert effect.natural_direct == 0
    assert effect.total_direct == 0
    assert effect.natural_indirect == effect.total


class TwoPaths(nn.Module):
    """The output is `a` times the mediator plus `b` times the input, where the mediator is 2 x."""

    @nn.compact
    def __call__(self, x):
        a = self.param("a", nn.initializers.ones, ())
        b = self.param("b", nn.initializers.ones, ())
        left = tm.Site(name="left")(2 * x)
        right = tm.Site(name="right")(x)
        return tm.Site(name="output")(a * left + b * right + left * right)


def test_mediation_beside_an_interaction_is_what_algebra_says():
    model, params = TwoPaths(), {"a": jnp.asarray(3.0), "b": jnp.asarray(0.5)}
    x, y = jnp.asarray(1.0), jnp.asarray(2.0)

    def output(left, right):
        return 3 * left + 0.5 * right + left * right

    effect = iv.mediation(model, params, x, y, iv.whole("left"), lambda out: out)
    assert effect.natural_indirect == output(4, 1) - output(2, 1)
    assert effect.natural_direct == output(2, 2) - output(2, 1)
    assert effect.total == output(4, 2) - output(2, 1)
    fixed = iv.controlled_direct(
        model, params, x, y, iv.whole("left"), lambda out: out, coordinates=10.0
    )
    assert fixed == output(10, 2) - output(10, 1)


def test_a_path_carries_only_what_flows_from_sender_to_receiver():
    model, params = TwoPaths(), {"a": jnp.asarray(3.0), "b": jnp.asarray(0.5)}
    x, y = jnp.asarray(1.0), jnp.asarray(2.0)
    left, right, output = (iv.whole(name) for name in ("left", "right", "output"))
    assert iv.path_patching(model, params, x, y, left, output) == 3 * 4 + 0.5 * 1 + 4 * 1
    # No path leads from one branch to the other.
    plain = model.apply({"params": params}, x)
    assert iv.path_patching(model, params, x, y, left, right) == plain


def test_patching_everything_restores_and_patching_nothing_leaves():
    everything = iv.patching(MODEL, PENTAGON, X, OTHER, iv.whole("hidden"), first)
    np.testing.assert_allclose(everything.sufficiency, 1, atol=1e-6)
    np.testing.assert_allclose(everything.necessity, 1, atol=1e-6)
    # The output 0 does not depend on hidden dimensions that are orthogonal to feature 0.
    across = jnp.asarray([-WEIGHTS[1, 0], WEIGHTS[0, 0]])
    nothing = iv.patching(MODEL, PENTAGON, X, OTHER, iv.direction("hidden", across), first)
    np.testing.assert_allclose(nothing.sufficiency, 0, atol=1e-5)
    np.testing.assert_allclose(nothing.necessity, 0, atol=1e-5)


def test_a_normalised_effect_without_a_difference_is_nan():
    assert jnp.isnan(iv.normalised(1.0, clean=2.0, corrupt=2.0))


def test_a_dose_response_curve_of_an_output_is_a_ramp():
    r"""Adding $a$ along $\hat W_0$ moves output 0 to $\mathrm{ReLU}(y + a \lVert W_0 \rVert)$."""
    amounts = jnp.linspace(-2, 2, 9)
    part = iv.direction("hidden", WEIGHTS[:, 0])
    curve = iv.stimulation(MODEL, PENTAGON, X[None], part, amounts, first)[:, 0]
    before = tm.activations(MODEL, PENTAGON, X)["preactivation"][0]
    length = jnp.linalg.norm(WEIGHTS[:, 0])
    np.testing.assert_allclose(curve, jnp.maximum(0, before + amounts * length), atol=1e-6)


def test_a_position_and_a_head_of_a_sequence_are_edited_alone():
    class Heads(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.param("unused", nn.initializers.zeros, ())
            return tm.Site(name="heads")(jnp.stack([x, 2 * x]))

    x, params = normal(6, 3, 4), {"unused": jnp.zeros(())}
    output = iv.run(Heads(), params, x, iv.zero(iv.head("heads", 1)))
    np.testing.assert_array_equal(output, jnp.stack([x, 0 * x]))
    vector = jnp.asarray([1.0, 0, 0, 0])
    row = iv.direction("heads", vector, position=0)
    output = iv.run(Heads(), params, x, iv.set_to(row, 7.0))
    np.testing.assert_array_equal(output[0, :, 0], 7.0)
    np.testing.assert_array_equal(output[1], 2 * x)


def test_every_feature_direction_in_one_compiled_call_over_a_sweep():
    def cell(key, *, density):
        task = tm.Task(tm.SparseUniform(5, density))
        recipe = tm.Recipe(steps=20, batch=32, learning_rate=1e-2)
        params = recipe.train(key, MODEL, task, evaluation=0).params
        examples = task.features.sample(jax.random.key(9), 64)
        parts = iv.directions("hidden", params["weights"])
        return {"damage": iv.lesions(MODEL, params, examples, parts, iv.zero, task.loss)}

    results = tm.sweep(
        cell, axes={"density": [0.5, 0.1]}, num_seeds=2, dims={"damage": ("feature",)}
    )
    assert results.damage.sizes == {"density": 2, "seed": 2, "feature": 5}
    assert bool(np.isfinite(results.damage).all())


def test_a_part_that_a_sweep_moves_is_checked_at_each_of_its_points():
    """The line at a swept angle is that at the angle alone, and a swept index is each unit."""

    def left(edit):
        return {"output": iv.run(MODEL, PENTAGON, X, edit)}

    def line(key, *, angle):
        return left(
            iv.zero(iv.subspace("hidden", jnp.stack([jnp.cos(angle), jnp.sin(angle)])[:, None]))
        )

    def unit(key, *, place):
        return left(iv.zero(iv.Part("hidden", (place.astype(int),))))

    lines = tm.sweep(line, axes={"angle": [0, np.pi / 2]}, progress=False).output[:, 0]
    units = tm.sweep(unit, axes={"place": [0, 1]}, progress=False).output[:, 0]
    for number in range(2):
        alone = iv.run(MODEL, PENTAGON, X, iv.zero(iv.unit("hidden", number)))
        np.testing.assert_allclose(lines[number], alone, atol=1e-6)
        np.testing.assert_allclose(units[number], alone, atol=1e-6)
    with pytest.raises(tm.InputError, match=r"no part \(2,\)"):
        tm.sweep(unit, axes={"place": [0, 1, 2]}, progress=False)


def test_an_answer_that_turns_from_wrong_to_right_is_an_effect_of_one():
    """The metric is a truth value: whether the first feature has the largest output."""
    right = iv.patching(
        MODEL, PENTAGON, jnp.eye(5)[0], jnp.eye(5)[2], iv.whole("hidden"), lambda y: y.argmax() == 0
    )
    assert (right.clean, right.corrupt, right.denoised, right.noised) == (1, 0, 1, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iv.run(MODEL, PENTAGON, X, iv.zero(iv.whole("nowhere"))), "no site 'nowhere'"),
        (
            lambda: iv.lesions(MODEL, PENTAGON, X[None], iv.unit("hidden", 0), iv.zero, jnp.dot),
            "parts is ONE part: give a batch",
        ),
        (lambda: iv.subspace("hidden", jnp.ones((2, 2))), "not orthonormal"),
        (lambda: iv.subspace("hidden", jnp.ones((2, 3))), "dimensions x size"),
        (lambda: iv.direction("hidden", jnp.zeros(2)), "length of the direction"),
        (lambda: iv.direction("hidden", jnp.ones((2, 1))), "give one vector"),
        # Tests check types, which users do not.
        (lambda: inspect.unwrap(iv.unit)("hidden", 1.5), "unit is 1.5"),
        (lambda: iv.run(MODEL, PENTAGON, X, iv.zero(iv.unit("hidden", 2))), "no part"),
        (
            lambda: iv.run(MODEL, PENTAGON, X, iv.zero(iv.direction("hidden", jnp.ones(3)))),
            "dimensions x size",
        ),
        (
            lambda: iv.run(MODEL, PENTAGON, X, iv.set_to(iv.whole("hidden"), jnp.ones(3))),
            "one number or shape",
        ),
        (
            lambda: iv.run(MODEL, PENTAGON, X, iv.patch(iv.whole("hidden"), {"output": X})),
            "no site 'hidden'",
        ),
        (
            lambda: iv.mean(iv.whole("hidden"), {"hidden": jnp.zeros((0, 2))}),
            "one example or more",
        ),
        (
            lambda: iv.path_patching(
                MODEL, PENTAGON, X, OTHER, iv.whole("hidden"), iv.unit("hidden", 0)
            ),
            "two sites",
        ),
        (
            lambda: iv.run(MODEL, PENTAGON, X, iv.zero(iv.Part("hidden", (0, 0)))),
            "index of the part has 2",
        ),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(call, message):
    with pytest.raises(tm.InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
