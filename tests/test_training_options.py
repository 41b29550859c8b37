"""Swept numbers, compiled runs, optimizers that want the loss, and models of other shapes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from small_runs import (
    CURVATURE,
    KEY,
    MINIMUM,
    MODEL,
    START,
    TASK,
    assert_close,
    assert_identical,
    bowl_run,
    last,
    normal_run,
    small_run,
)

import toymodels
from toymodels import ReLUOutput, SparseUniform, Task, train
from toymodels.engine import keys


@pytest.fixture(scope="module")
def trained():
    return small_run(KEY)


# What may be swept, and how it may be compiled.

SWEPT = {
    "learning rate": optax.adam,
    "weight decay": lambda value: optax.adamw(0.05, weight_decay=10 * value),
    "momentum": lambda value: optax.sgd(0.05, momentum=10 * value),
    "start of a schedule": lambda value: optax.adam(optax.cosine_decay_schedule(value, 20)),
}


@pytest.mark.parametrize("optimizer", SWEPT.values(), ids=SWEPT)
def test_numbers_of_the_optimizer_may_be_swept(optimizer):
    def run(value):
        return normal_run(optimizer=optimizer(value))

    values = jnp.array([0.01, 0.03, 0.09])
    swept = jax.jit(jax.vmap(run))(values)
    assert len(np.unique(swept.params[:, 0])) == 3
    # The same operations in the same order, but for fused multiplications and additions.
    assert_close(last(swept), run(0.09), rtol=1e-5, atol=1e-6)


def test_runs_of_a_sweep_are_the_runs_alone(trained):
    seeds = jnp.stack([jax.random.key(1), KEY])
    rates = jnp.array([0.02, 0.01])

    def run(key, rate):
        return small_run(key, optimizer=optax.adam(rate))

    swept = jax.jit(jax.vmap(run))(seeds, rates)
    assert_close(last(swept), trained, rtol=1e-5, atol=1e-6)


@pytest.mark.as_users_compile  # XLA reorders sums
def test_a_compiled_run_is_the_same_run(trained):
    # Compiled with reordered sums, over 32 examples: a few roundings, for 50 steps.
    assert_close(toymodels.jit(small_run)(KEY), trained, rtol=1e-5, atol=1e-5)


@pytest.mark.as_users_compile  # it compares last bits
def test_keys_that_can_be_fused_draw_the_same_run(trained):
    assert_identical(small_run(keys.fusable(KEY)), trained)


# Optimizers that want the loss.


def test_lbfgs_finds_the_minimum_of_a_bowl():
    # Gradient descent at its best rate, 2 / (0.5 + 3), shrinks the error by 5/7 a step: to 6e-3.
    fitted = bowl_run(optimizer=optax.lbfgs(), steps=15)
    np.testing.assert_allclose(fitted.params, MINIMUM, atol=1e-3)


def test_the_step_of_polyak_is_that_of_the_loss_and_its_gradient():
    fitted = bowl_run(optimizer=optax.polyak_sgd(max_learning_rate=10.0), steps=1)
    error = START - MINIMUM
    loss, gradient = (CURVATURE / 2 * error**2).sum(), CURVATURE * error
    expected = START - loss / (gradient**2).sum() * gradient
    np.testing.assert_allclose(fitted.params, expected, rtol=1e-5)


def test_a_learning_rate_falls_where_the_loss_stays():
    # No step at all is made at a rate of 0, so that every loss is the first one.
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1)
    chained = optax.chain(optax.sgd(0.0), plateau)
    fitted = bowl_run(optimizer=chained, steps=4)
    np.testing.assert_array_equal(fitted.params, START.astype(np.float32))


# Models of other numbers and other shapes.


class Half(nn.Module):
    """A linear model with parameters of 16 bits."""

    @nn.compact
    def __call__(self, features):
        ones = nn.initializers.ones
        weights = self.param("weights", ones, (2, features.size), jnp.bfloat16)
        return weights.T @ (weights @ features.astype(jnp.bfloat16))


def test_half_precision_parameters_stay_so_whatever_the_type_of_a_swept_number():
    def run(decay):
        return train(
            KEY, Half(), TASK, optimizer=optax.adam(0.1, b1=decay), steps=3, batch=8, evaluation=8
        ).params["weights"]

    traced = jax.jit(run)(jnp.float32(0.9))
    assert traced.dtype == jnp.bfloat16
    # A rounding of 8 bits for each of a few numbers of each step.
    np.testing.assert_allclose(
        np.asarray(traced, float), np.asarray(jax.jit(lambda: run(0.9))(), float), rtol=0.03
    )


@struct.dataclass
class Sequences:
    """A distribution of sequences of vectors that are all independent."""

    length: int = struct.field(pytree_node=False)
    num_features: int = struct.field(pytree_node=False)

    def sample(self, key, batch):
        vectors = SparseUniform(self.num_features, 0.5).sample(key, batch * self.length)
        return vectors.reshape(batch, self.length, -1)


class Attention(nn.Module):
    """A model in which each output is the mean of all positions, weighted by their similarity."""

    @nn.compact
    def __call__(self, sequence):
        query, key, value = (nn.Dense(4, name=name)(sequence) for name in ("q", "k", "v"))
        pattern = toymodels.Site(name="pattern")(jax.nn.softmax(query @ key.T))
        hidden = toymodels.Site(name="hidden")(value + pattern @ value)
        return nn.Dense(sequence.shape[-1], name="out")(hidden)


def test_an_attention_model_of_sequences_is_trained_read_and_decomposed():
    task = Task(Sequences(3, 2), importance=jnp.array([1.0, 0.5]))
    path = toymodels.explain(Attention(), task)
    assert path.fused or path.reason
    trained = jax.jit(
        lambda key: train(key, Attention(), task, optimizer=optax.adam(0.03), steps=200, batch=32)
    )(KEY)
    # Less than the constant mean leaves: for each of three positions the variance of a feature,
    # p/3 - p^2/4, times its importance.
    assert trained.loss < 0.2 * 3 * (1 / 6 - 1 / 16) * 1.5
    vectors = toymodels.Activations(Attention(), trained.params, task.features, "hidden")
    assert vectors.sample(KEY, 5).shape == (5, 4)


def test_explain_takes_a_model_and_a_task():
    assert toymodels.explain(MODEL, TASK).fused
    path = toymodels.explain(ReLUOutput(12), Task(SparseUniform(20, 0.3)))
    assert not path.fused
    assert "261 sums" in path.reason  # the loss, 12 x 20 weights and 20 biases


def test_a_rate_is_constant_and_then_falls_to_half_and_to_nothing():
    rate = toymodels.constant_then_cosine(0.3, 100, until=60)
    np.testing.assert_allclose([rate(step) for step in (0, 59, 60)], 0.3, rtol=1e-6)
    np.testing.assert_allclose(rate(80), 0.15, rtol=1e-6)
    np.testing.assert_allclose(rate(100), 0, atol=1e-8)
