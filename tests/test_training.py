"""Training against closed forms in float64, and against loops written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
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
    normal_run,
    small_run,
)

import toymodels
from toymodels import LinearOutput, ReLUOutput, SparseUniform, Task, fit, train
from toymodels.errors import InputError

STANDARD_ERRORS = 4


@pytest.fixture(scope="module")
def trained():
    return small_run(KEY)


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


@pytest.mark.parametrize("steps", [0, -3])
def test_a_recipe_of_no_steps_is_refused(steps):
    with pytest.raises(InputError, match=rf"^steps is {steps}: give a whole number, 1 or more$"):
        toymodels.Recipe(steps=steps, batch=8, learning_rate=1e-2).settings()


@pytest.mark.as_users_compile  # it compares last bits
def test_the_settings_of_a_recipe_are_those_of_its_training():
    recipe = toymodels.Recipe(steps=5, batch=8, learning_rate=1e-2)
    by_settings = train(KEY, MODEL, TASK, evaluation=8, **recipe.settings())
    trained = recipe.train(KEY, MODEL, TASK, evaluation=8)
    jax.tree.map(np.testing.assert_array_equal, by_settings, trained)
