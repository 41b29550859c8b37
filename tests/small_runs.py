"""Small runs of training for several test files: a bowl, random targets, and a toy model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toymodels import ReLUOutput, SparseUniform, Task, fit, train

KEY = jax.random.key(7)
# A quadratic bowl per coordinate, the same at every step.
CURVATURE = np.array([0.5, 1.0, 3.0])
MINIMUM = np.array([1.0, -2.0, 0.5])
START = np.array([2.0, 2.0, -1.0])


def bowl(params, example):
    return jnp.sum(jnp.asarray(CURVATURE) / 2 * (params - example) ** 2)


def always_the_minimum(key, batch):
    return jnp.tile(jnp.asarray(MINIMUM)[None], (batch, 1))


def squared_distance(params, example):
    return jnp.sum((params - example) ** 2) / 2


def normal(key, batch):
    return jax.random.normal(key, (batch, 3))


def bowl_run(**options):
    defaults = {"optimizer": optax.sgd(0.1), "steps": 20, "batch": 4}
    return fit(KEY, jnp.asarray(START), bowl, always_the_minimum, **(defaults | options))


def normal_run(key=KEY, **options):
    """Fit on batches that all differ, so that each step leaves its mark."""
    defaults = {"optimizer": optax.adam(0.1), "steps": 20, "batch": 4}
    return fit(key, jnp.asarray(START), squared_distance, normal, **(defaults | options))


MODEL = ReLUOutput(hidden=2)
TASK = Task(SparseUniform(3, 0.5), importance=jnp.array([1.0, 0.7, 0.4]))
OPTIMIZER = optax.adam(0.01)


def small_run(key, **options):
    defaults = {"optimizer": OPTIMIZER, "steps": 50, "batch": 32, "evaluation": 32_000}
    return train(key, MODEL, TASK, **(defaults | options))


def assert_close(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, **tolerance), actual, expected)


def last(tree):
    return jax.tree.map(lambda leaf: leaf[-1], tree)


def assert_identical(actual, expected):
    assert_close(actual, expected, rtol=0, atol=0)
