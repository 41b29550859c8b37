"""The final loss of a run against statistics of its data, a proven optimum and closed forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import (
    KEY,
    START,
    TASK,
    normal,
    small_run,
    squared_distance,
)

import toymodels
from toymodels import LinearOutput, ReLUOutput, SparseUniform, Task, train

STANDARD_ERRORS = 4


class Constant(nn.Module):
    """A model whose outputs are constant, whatever the features, and 0 at the start."""

    @nn.compact
    def __call__(self, features):
        return self.param("outputs", nn.initializers.zeros, features.shape)


@pytest.fixture(scope="module")
def trained():
    return small_run(KEY)


def test_final_loss_is_on_fresh_examples():
    def loss(key):
        # One step to the only example: on that one, the loss would be 0.
        return train(
            key,
            Constant(),
            Task(SparseUniform(3, 1.0)),
            optimizer=optax.sgd(0.5),
            steps=1,
            batch=1,
            evaluation=1,
        ).loss

    losses = np.asarray(jax.jit(jax.vmap(loss))(jax.random.split(KEY, 1000)), np.float64)
    # Two independent examples differ by twice the variance 1/12 for each of three features.
    assert abs(losses.mean() - 0.5) < STANDARD_ERRORS * losses.std() / np.sqrt(1000)


def test_final_loss_is_the_expected_loss(trained):
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(200_000, 3)) * (generator.uniform(size=(200_000, 3)) < 0.5)
    weights, bias = (np.asarray(trained.params[name], np.float64) for name in ("weights", "bias"))
    outputs = np.maximum(x @ weights.T @ weights + bias, 0)
    losses = ((x - outputs) ** 2) @ [1.0, 0.7, 0.4]
    error = losses.std() * np.sqrt(1 / 200_000 + 1 / 32_000)
    assert abs(trained.loss - losses.mean()) < STANDARD_ERRORS * error


@pytest.mark.as_users_compile  # it compares last bits
def test_runs_are_evaluated_on_the_same_examples_unless_each_has_a_key_of_evaluation():
    def losses(key):
        # The rate is 0, so the examples alone decide the loss.
        frozen = {"optimizer": optax.sgd(0.0), "steps": 1, "batch": 32, "evaluation": 64}
        common = train(key, Constant(), TASK, **frozen)
        own = train(key, Constant(), TASK, key_evaluation=key, **frozen)
        return common.loss, own.loss

    common, own = jax.jit(jax.vmap(losses))(jax.random.split(jax.random.key(1)))
    assert common[0] == common[1]
    assert own[0] != own[1]


@pytest.mark.as_users_compile  # it computes more than it compiles
def test_the_best_of_many_seeds_is_not_below_the_proven_optimum():
    def cell(key):
        task = Task(SparseUniform(2, 0.5))
        adam = optax.adam(optax.cosine_decay_schedule(0.03, 500))
        trained = train(key, ReLUOutput(hidden=1), task, optimizer=adam, steps=500, batch=1024)
        exact = toymodels.theory.expected_loss(**trained.params, density=0.5)
        return {"sampled": trained.loss, "exact": exact}

    results = toymodels.sweep(cell, num_seeds=64, progress=False)
    # The minimum over all weights and biases, from `toymodels.theory.optimum` in float64.
    optimum = 0.0762824
    assert 0 <= float(results.exact.min()) - optimum < 1e-5
    # On common examples a seed that is no worse is chosen, and its estimate has the error of one
    # estimate, 1.05 %, not the greatest of 64.
    best = toymodels.best_of(results, "sampled")
    assert float(best.exact) - float(results.exact.min()) < 1e-5
    assert abs(float(best.sampled) / optimum - 1) < 2 * 0.0105


def test_an_evaluation_has_derivatives_with_and_without_a_map():
    def mean(params):
        return toymodels.evaluate(KEY, params, squared_distance, normal, batch=4, examples=4)

    examples = np.asarray(normal(jax.random.fold_in(KEY, 0), 4), np.float64)
    expected = START - examples.mean(axis=0)
    gradient = jax.grad(mean)(jnp.asarray(START))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    several = jax.jit(jax.vmap(jax.grad(mean)))(jnp.tile(jnp.asarray(START)[None], (2, 1)))
    np.testing.assert_allclose(several, [expected] * 2, rtol=1e-5)


def test_examples_of_an_evaluation_are_rounded_up_to_whole_batches():
    def mean(examples):
        return toymodels.evaluate(
            KEY, jnp.zeros(3), squared_distance, normal, batch=4, examples=examples
        )

    batches = [normal(jax.random.fold_in(KEY, index), 4) for index in range(3)]
    expected = np.mean(np.sum(np.square(np.concatenate(batches)), axis=1)) / 2
    np.testing.assert_allclose(mean(9), expected, rtol=1e-6)
    assert mean(12) == mean(9)


@pytest.mark.as_users_compile  # fast mathematics could assume it away
def test_a_diverged_run_has_a_loss_that_says_so():
    @toymodels.jit
    def loss(key):
        model, optimizer = LinearOutput(hidden=2), optax.sgd(1e3)
        return train(key, model, TASK, optimizer=optimizer, steps=20, batch=32, evaluation=32).loss

    assert not np.isfinite(loss(KEY))


@pytest.mark.as_users_compile  # it compares last bits
def test_a_run_without_an_evaluation_has_no_loss_and_equal_parameters():
    recipe = toymodels.Recipe(steps=5, batch=8, learning_rate=1e-2)
    without = recipe.train(KEY, LinearOutput(hidden=1), TASK, evaluation=0)
    assert jnp.isnan(without.loss)
    evaluated = recipe.train(KEY, LinearOutput(hidden=1), TASK, evaluation=8)
    jax.tree.map(np.testing.assert_array_equal, without.params, evaluated.params)
