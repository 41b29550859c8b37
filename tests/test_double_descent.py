"""Double descent: the data, swept hidden dimensions, and how a rise is measured."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import toymodels as tm
from experiments import double_descent as experiment

# These sizes need 128 sums over the batch. So the training takes the ordinary path of the engine,
# which compiles in a third of the time.
FEATURES, HIDDEN, STEPS = 42, 2, 40
CONFIG = dataclasses.replace(
    experiment.SMOKE, sizes=(3,), map_sizes=(3,), decay_sizes=(3,), steps=STEPS
)


def test_examples_have_length_1_or_no_feature():
    drawn = np.asarray(experiment.examples(jax.random.key(0), 5, 0.5, 200))
    lengths = np.linalg.norm(drawn, axis=1)
    empty = (drawn == 0).all(axis=1)
    assert empty.any()  # (1 - 0.1)^5 = 0.59 of them
    np.testing.assert_allclose(lengths[~empty], 1, atol=1e-6)
    assert (lengths[empty] == 0).all()


def test_a_model_of_fewer_swept_dimensions_is_the_model_with_fewer_rows():
    swept = experiment.sweep(CONFIG, "", FEATURES, HIDDEN, (3,), 2, {"hidden": (1, 2)})
    one = swept.sel(hidden=1, seed=1, size=3)
    first, second = one["weights"].transpose("dimension", "feature").values
    assert np.abs(first).max() > 0.1
    assert (second == 0).all()
    assert (swept["point_share"] <= 1 + 1e-5).all()  # of the dimensions used
    assert (swept["feature_share"] <= 1 + 1e-5).all()

    # A loop of its own, over a model of one row.
    key_data, _ = jax.random.split(jax.random.key(2**31))
    data = experiment.examples(key_data, FEATURES, CONFIG.active, 3)
    large = tm.ReLUOutput(HIDDEN).init(jax.random.key(1), data[0])["params"]
    params = {**large, "weights": large["weights"][:1]}
    rate = optax.warmup_cosine_decay_schedule(0.0, CONFIG.learning_rate, STEPS // 20, STEPS)
    optimizer = optax.adamw(rate, weight_decay=CONFIG.weight_decay)
    state = optimizer.init(params)

    def loss(params):
        hidden = data @ params["weights"].T
        outputs = jnp.maximum(hidden @ params["weights"] + params["bias"][None, :], 0)
        return jnp.sum((outputs - data) ** 2) / len(data)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(STEPS):
        params, state = step(params, state)
    # Adam divides by the size of the gradient, which magnifies rounding where that is small.
    np.testing.assert_allclose(first, params["weights"][0], atol=1e-4)
    assert float(one["train_loss"]) == pytest.approx(float(loss(params)), abs=1e-5)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([3, 2, 1], 0), ([1, 2, 3], 0), ([1, 3, 2], 1), ([2, 1, 4, 0, 1], 3), ([1], 0)],
)
def test_rise_is_the_height_above_the_higher_of_both_sides(losses, expected):
    assert experiment.rise(np.array(losses, float)) == expected


def test_the_seed_of_lowest_train_loss_is_chosen_whatever_its_test_loss():
    def part(name):
        dims = [f"{name}size", f"{name}seed"]
        return xr.Dataset(
            {
                f"{name}train_loss": (dims, [[2.0, 1.0]]),
                f"{name}test_loss": (dims, [[3.0, 4.0]]),
            },
            {f"{name}size": [5], f"{name}seed": [0, 1]},
        )

    best = experiment.chosen(xr.merge([part(name) for name in experiment.PARTS]))
    for name in experiment.PARTS:
        assert best[f"{name}test_loss"].item() == 4
