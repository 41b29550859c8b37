"""Training against closed forms in float64, hand-written loops, and statistics of the data."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import (
    CURVATURE,
    KEY,
    MINIMUM,
    MODEL,
    OPTIMIZER,
    START,
    TASK,
    assert_close,
    bowl_run,
    normal,
    normal_run,
    small_run,
    squared_distance,
)

import toymodels
from toymodels import LinearOutput, ReLUOutput, SparseUniform, Task, fit, log_spaced, train
from toymodels.errors import InputError

STANDARD_ERRORS = 4


class Constant(nn.Module):
    """A model whose outputs are constant, whatever the features, and 0 at the start."""

    @nn.compact
    def __call__(self, features):
        return self.param("outputs", nn.initializers.zeros, features.shape)


@pytest.fixture(scope="module")
def fitted():
    return normal_run()


@pytest.fixture(scope="module")
def trained():
    return small_run(KEY)


# Closed forms.


def descent(steps, rate=0.1):
    return MINIMUM + (1 - rate * CURVATURE) ** steps * (START - MINIMUM)


def test_gradient_descent_in_a_bowl_is_a_geometric_sequence():
    fitted = bowl_run(points=20, snapshots=range(21))
    path = np.array([descent(step) for step in range(21)])
    # Some roundings of order one per step.
    np.testing.assert_allclose(fitted.snapshots, path, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(fitted.params, fitted.snapshots[-1])
    losses = (CURVATURE / 2 * (path - MINIMUM) ** 2).sum(axis=1)
    np.testing.assert_array_equal(fitted.history.step, np.arange(20))
    np.testing.assert_allclose(fitted.history.loss, losses[:20], rtol=1e-4)


def test_wide_numbers_follow_the_closed_form_closer(x64):
    fitted = bowl_run(snapshots=(0, 20))
    assert {leaf.dtype for leaf in (fitted.params, fitted.history.loss)} == {jnp.dtype("float64")}
    np.testing.assert_allclose(fitted.params, descent(20), rtol=1e-14)


def test_train_keeps_wide_numbers(x64):
    trained = jax.eval_shape(small_run, KEY)
    floats = (trained.params, trained.loss, trained.history.loss)
    assert {leaf.dtype for leaf in jax.tree.leaves(floats)} == {jnp.dtype("float64")}


def test_the_linear_model_keeps_the_principal_components():
    importance = 0.5 ** np.arange(5)

    @toymodels.jit
    def run(key):
        return train(
            key,
            LinearOutput(hidden=2),
            Task(SparseUniform(5, 1.0), importance=jnp.asarray(importance)),
            optimizer=optax.adam(optax.cosine_decay_schedule(0.02, 1000)),
            steps=1000,
            batch=256,
        )

    trained = run(KEY)
    weights = np.asarray(trained.params["weights"])
    # The principal components are the most important features, because all have equal variance and
    # no correlation. The other outputs are the mean. The tolerance allows for noisy gradients.
    np.testing.assert_allclose(weights.T @ weights, np.diag([1, 1, 0, 0, 0]), atol=0.02)
    np.testing.assert_allclose(trained.params["bias"], [0, 0, 0.5, 0.5, 0.5], atol=0.02)
    dropped = importance[2:]
    # The variance of a squared deviation of a uniform number is 1/80 - 1/144 = 1/180.
    error = np.sqrt((dropped**2).sum() / 180 / 65_536)
    optimum = dropped.sum() / 12
    assert abs(trained.loss - optimum) < STANDARD_ERRORS * error + 0.003 * optimum


# Loops written by hand.


def by_hand(key, params, loss, sample, *, optimizer, steps):
    """Train in the ordinary way in JAX, with the loss before each step."""
    params = jax.tree.map(jnp.asarray, params)

    def mean(params, examples):
        return jax.vmap(loss, in_axes=(None, 0))(params, examples).mean()

    @jax.jit
    def step(carry, index):
        params, state = carry
        examples = sample(jax.random.fold_in(key, index))
        value, grads = jax.value_and_grad(mean)(params, examples)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return params, losses


def assert_is_the_loop_written_by_hand(trained, model, features, importance):
    def loss(params, x):
        return jnp.sum(importance * (x - model.apply({"params": params}, x)) ** 2)

    key_start, key_data = jax.random.split(KEY)
    params, losses = by_hand(
        key_data,
        model.init(key_start, jnp.zeros(features.num_features))["params"],
        loss,
        lambda key: features.sample(key, 32),
        optimizer=OPTIMIZER,
        steps=50,
    )
    # Sums in another order, and Adam divides by the size of small gradients.
    assert_close(trained.params, params, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trained.history.loss, losses, rtol=1e-5)


def test_train_is_the_loop_written_by_hand(trained):
    assert_is_the_loop_written_by_hand(trained, MODEL, TASK.features, TASK.importance)


def test_train_of_many_numbers_is_the_loop_written_by_hand():
    model, features = ReLUOutput(12), SparseUniform(20, 0.3)
    assert not toymodels.explain(
        toymodels.task_loss(model, Task(features)),
        model.init(KEY, jnp.zeros(20))["params"],
        features.sample(KEY, 32),
    ).fused
    trained = train(
        KEY, model, Task(features), optimizer=OPTIMIZER, steps=50, batch=32, evaluation=32
    )
    assert_is_the_loop_written_by_hand(trained, model, features, 1.0)


def test_fit_on_labelled_examples_is_the_loop_written_by_hand():
    def sample(key, batch):
        inputs = jax.random.normal(key, (batch, 2))
        return {"inputs": inputs, "label": inputs.sum(axis=1) > 0}

    def loss(params, example):
        logit = params["slope"] @ example["inputs"] + params["offset"]
        return jnp.logaddexp(0.0, jnp.where(example["label"], -logit, logit))

    start = {"slope": np.array([0.5, -0.5]), "offset": 1.0}
    optimizer = optax.adamw(0.03)
    params, losses = by_hand(
        KEY, start, loss, lambda key: sample(key, 8), optimizer=optimizer, steps=30
    )
    fitted = fit(KEY, start, loss, sample, optimizer=optimizer, steps=30, batch=8)
    assert_close(fitted.params, params, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted.history.loss, losses, rtol=1e-5)


# Data.


def test_every_step_has_fresh_examples():
    # A step of size one to the mean of the batch forgets all before it.
    steps, batch = 400, 4
    fitted = normal_run(
        optimizer=optax.sgd(1.0), steps=steps, batch=batch, snapshots=range(1, steps + 1)
    )
    means = np.asarray(fitted.snapshots, np.float64)
    chi_squared = batch * (means**2).sum()
    degrees = means.size
    assert abs(chi_squared - degrees) < STANDARD_ERRORS * np.sqrt(2 * degrees)
    assert len(np.unique(means)) == degrees
    neighbours = np.mean(means[1:] * means[:-1]) * batch
    assert abs(neighbours) < STANDARD_ERRORS / np.sqrt(degrees)


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


# The loss curve and the snapshots.


@pytest.mark.as_users_compile  # it compares last bits
@pytest.mark.parametrize("points", [1, 7, 100])
def test_the_loss_curve_is_thinned_evenly(points, fitted):
    history = normal_run(points=points).history
    steps = np.asarray(history.step)
    assert len(steps) == min(points, 20)
    assert steps[-1] == 19
    gaps = np.diff(steps, prepend=-1)
    assert gaps.min() > 0
    assert gaps.max() - gaps.min() <= 1
    np.testing.assert_array_equal(history.loss, fitted.history.loss[steps])


def test_a_long_loss_curve_is_kept_whole():
    # The product of step and number of points exceeds 32 bits.
    steps = 50_000
    fitted = bowl_run(optimizer=optax.sgd(1e-5), batch=1, steps=steps, points=steps)
    np.testing.assert_array_equal(fitted.history.step, np.arange(steps))
    path = MINIMUM + (1 - 1e-5 * CURVATURE) ** np.arange(steps)[:, None] * (START - MINIMUM)
    losses = (CURVATURE / 2 * (path - MINIMUM) ** 2).sum(axis=1)
    # Up to a rounding of the parameters per step.
    np.testing.assert_allclose(fitted.history.loss, losses, rtol=0.01)


@pytest.mark.as_users_compile  # it compares last bits
def test_snapshots_are_what_shorter_runs_end_with(fitted):
    watched = normal_run(snapshots=(0, 1, 13, 20))
    start, one, several, end = watched.snapshots
    np.testing.assert_array_equal(start, START)
    # The same operations, which another program may round otherwise.
    np.testing.assert_allclose(one, normal_run(steps=1).params, rtol=1e-6)
    np.testing.assert_allclose(several, normal_run(steps=13).params, rtol=1e-6)
    np.testing.assert_array_equal(end, watched.params)
    assert fitted.snapshots is None
    np.testing.assert_allclose(watched.params, fitted.params, rtol=1e-6)
    np.testing.assert_allclose(watched.history.loss, fitted.history.loss, rtol=1e-6)


@given(st.integers(1, 10**6), st.integers(2, 60))
def test_log_spaced_steps_are_a_constant_factor_apart(steps, number):
    spaced = log_spaced(steps, number)
    assert len(spaced) <= number
    assert spaced[0] == 0
    assert spaced[-1] == steps
    assert all(early < late for early, late in itertools.pairwise(spaced))
    if number > 2:
        assert spaced[1] == 1
        factor = steps ** (1 / (number - 2))
        for early, late in itertools.pairwise(spaced[1:]):
            # Each is rounded to a whole number, and those that coincide are one.
            assert late - 0.5 <= factor * (early + 0.5) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"^steps is 0: give a whole number, 1 or more$"),
        ({"steps": True}, r"^steps is True: give a whole number, 1 or more$"),
        ({"batch": 0}, r"^batch is 0: .*$"),
        ({"points": 0}, r"^points is 0: .*$"),
        ({"evaluation": -1}, r"^evaluation is -1: .*$"),
        ({"snapshots": (60,)}, r"^snapshots is \[60\]: .* whole numbers of updates from 0 to 50$"),
        ({"snapshots": (-1, 3)}, r"^snapshots is \[-1, 3\]: .*$"),
        ({"snapshots": (5, 3)}, r"^snapshots is \[5, 3\]: .*$"),
        ({"snapshots": (3, 3)}, r"^snapshots is \[3, 3\]: .*$"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        small_run(KEY, **options)


@pytest.mark.parametrize(("steps", "number"), [(0, 5), (10, 1)])
def test_log_spaced_steps_that_make_no_sense_are_refused(steps, number):
    with pytest.raises(InputError, match=r"^(steps|number) is \d: give a whole number"):
        log_spaced(steps, number)


@pytest.mark.as_users_compile  # it compares last bits
def test_a_recipe_is_adam_down_a_cosine():
    recipe = toymodels.Recipe(steps=20, batch=8, learning_rate=1e-2)
    by_hand = {"steps": 20, "batch": 8, "evaluation": 32}
    rate = optax.cosine_decay_schedule(1e-2, 20)
    ours = recipe.train(KEY, LinearOutput(hidden=1), TASK, evaluation=32)
    hand = train(KEY, LinearOutput(hidden=1), TASK, optimizer=optax.adam(rate), **by_hand)
    jax.tree.map(np.testing.assert_array_equal, ours, hand)
    decayed = recipe.train(KEY, LinearOutput(hidden=1), TASK, weight_decay=0.1, evaluation=32)
    adamw = optax.adamw(rate, weight_decay=0.1)
    hand = train(KEY, LinearOutput(hidden=1), TASK, optimizer=adamw, **by_hand)
    jax.tree.map(np.testing.assert_array_equal, decayed, hand)


@pytest.mark.as_users_compile  # it compares last bits
def test_the_settings_of_a_recipe_are_those_of_its_training():
    recipe = toymodels.Recipe(steps=5, batch=8, learning_rate=1e-2)
    by_settings = train(KEY, MODEL, TASK, evaluation=8, **recipe.settings())
    trained = recipe.train(KEY, MODEL, TASK, evaluation=8)
    jax.tree.map(np.testing.assert_array_equal, by_settings, trained)


@pytest.mark.as_users_compile  # it compares last bits
def test_a_run_without_an_evaluation_has_no_loss_and_equal_parameters():
    recipe = toymodels.Recipe(steps=5, batch=8, learning_rate=1e-2)
    without = recipe.train(KEY, LinearOutput(hidden=1), TASK, evaluation=0)
    assert jnp.isnan(without.loss)
    evaluated = recipe.train(KEY, LinearOutput(hidden=1), TASK, evaluation=8)
    jax.tree.map(np.testing.assert_array_equal, without.params, evaluated.params)
