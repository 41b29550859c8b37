"""Programs for accelerators, which a computer without one can write, but not run."""

import functools
import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from haste import in_haste
from helpers import assert_same_bits
from jax.interpreters import mlir

import toymodels as tm
from toymodels.engine.devices import backend, tracing_for
from toymodels.sweeps.program import _key_data, compile_program, export_for, lanes_for

pytestmark = pytest.mark.as_users_compile

NUMBERS = {"density": np.float32([0.1])}


def trained(key, density):
    """Train a toy model of 3 features for a few steps."""
    task = tm.Task(tm.SparseUniform(3, density))
    model, adam = tm.ReLUOutput(hidden=2), optax.adam(1e-2)
    return {"loss": tm.train(key, model, task, steps=7, batch=16, optimizer=adam).loss}


class Sorted(nn.Module):
    """The features in order times one weight; the fused loop knows no sort."""

    @nn.compact
    def __call__(self, features):
        return self.param("weights", nn.initializers.ones, ()) * jnp.sort(features)


def unfused(key, density):
    """Train a model that the fused loop does not know."""
    task, adam = tm.Task(tm.SparseUniform(3, density)), optax.adam(1e-2)
    return {"loss": tm.train(key, Sorted(), task, steps=7, batch=16, optimizer=adam).loss}


def decomposed(key, density):
    """Decompose a matrix of each cell."""
    del key
    return {"values": jnp.linalg.svd(jnp.ones((3, 2)) * density)[1]}


def with_curve(key, density):
    """Train a toy model and keep points of its loss curve."""
    task = tm.Task(tm.SparseUniform(3, density))
    model, adam = tm.ReLUOutput(hidden=2), optax.adam(1e-2)
    ran = tm.train(key, model, task, steps=7, batch=16, optimizer=adam, points=3, evaluation=32)
    return {**ran.params, "loss": ran.loss, "curve": ran.history.loss}


def text_of(exported):
    """The program as text without the places in files that it came from."""
    with mlir.make_ir_context():
        return str(exported.mlir_module(serialized=False))


@functools.cache
def program(platform, cell):
    """Return the program of a cell, which several tests read."""
    return text_of(export_for(platform, cell, NUMBERS, width=4))


def limits_of_loops(text):
    """The right-hand side of the condition of every loop, such as `%c_1` or `%iterArg_33`."""
    assert text.count("stablehlo.while") == text.count("cond {")
    return re.findall(r"cond \{\n.*compare +LT, %iterArg\w*, (%\w+)[, ]", text)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_every_loop_of_a_card_has_a_known_length(platform):
    """A loop of unknown length asks the host after every turn whether to go on."""
    text = program(platform, trained)
    limits = limits_of_loops(text)
    assert len(limits) == text.count("stablehlo.while") >= 2  # training and the last evaluation
    assert not any(limit.startswith("%iterArg") for limit in limits)
    # On a CPU the words of a seed are drawn once, in a loop over as many seeds as there are.
    assert any(limit.startswith("%iterArg") for limit in limits_of_loops(program("cpu", trained)))


def test_an_unfused_loss_is_no_loop_over_models_on_a_card():
    fused, other = program("cuda", trained), program("cuda", unfused)
    assert fused.count("stablehlo.while") == other.count("stablehlo.while")
    assert program("cpu", unfused).count("stablehlo.while") > other.count("stablehlo.while")


def test_a_loss_curve_is_no_branch_on_a_card():
    """A branch waits for the host in every step."""
    assert "stablehlo.case" not in program("cuda", with_curve)
    assert "stablehlo.case" in program("cpu", with_curve)


def test_a_card_adds_up_four_examples_before_it_writes():
    """The batch has 16 examples: the terms of one sum are an array of 4 lanes by 4, not by 16."""
    cuda, cpu = program("cuda", trained), program("cpu", trained)
    assert "stablehlo.optimization_barrier" in cuda
    assert "stablehlo.optimization_barrier" not in cpu
    (reduced,) = re.findall(r"stablehlo.reduce\(%\w+ init.*?tensor<4x(\d+)xf32>", cuda)[:1]
    assert int(reduced) == 4


def test_every_lane_of_a_card_draws_its_own_words():
    """A gather of rows would say that lanes look up which words are theirs."""
    assert "stablehlo.gather" not in program("cuda", trained)
    assert "stablehlo.gather" in program("cpu", trained)


def test_the_program_of_a_card_computes_the_numbers_of_a_cpu():
    """The program of a card runs on a CPU here, and adds up in another order."""
    seeds = np.array([0, 0, 1, 1])
    lanes = {"density": np.float32([0.1, 0.5, 0.1, 1.0])}
    outputs = []
    for platform in ("cuda", "cpu"):
        with tracing_for(platform):
            function, _ = lanes_for(platform, with_curve, NUMBERS, width=4)
            outputs.append(in_haste(function)(_key_data(seeds), lanes))
    for name, of_card in outputs[0].items():
        np.testing.assert_allclose(of_card, outputs[1][name], rtol=2e-4, atol=2e-5, err_msg=name)


def test_a_card_decomposes_a_batch_at_once():
    cuda, cpu = program("cuda", decomposed), program("cpu", decomposed)
    assert "cusolver" in cuda
    assert "lapack" not in cuda
    assert cuda.count("stablehlo.while") == 0 < cpu.count("stablehlo.while")


def test_a_program_for_a_card_leaves_those_of_this_process_as_they_are():
    before = tm.sweep(trained, axes={"density": [0.1, 0.5]}, num_seeds=2)
    compiled = text_of(compile_program(trained, NUMBERS, width=4).exported)
    for platform in ("cuda", "cpu", "cuda"):
        written = text_of(export_for(platform, trained, NUMBERS, width=4))
        assert (written == compiled) == (platform == "cpu")
    again = tm.sweep(trained, axes={"density": [0.1, 0.5]}, num_seeds=2)
    assert_same_bits(again.loss.values, before.loss.values)


def test_the_platform_is_that_of_the_process_again_afterwards():
    with tracing_for("cuda"):
        assert backend() == "cuda"
    assert backend() == "cpu"
