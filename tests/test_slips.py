"""The commonest slips of a user are refused in one line that names the remedy."""

import subprocess
import sys

# What is refused.

SLIPS = """
import flax.linen as nn, jax, jax.numpy as jnp, optax, toymodels as tm
from flax import nnx

class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))

class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True)(nn.Dense(3)(x))

class Nothing(nn.Module):
    def __call__(self, x):
        return x

right = {"key": jax.random.key(0), "model": tm.ReLUOutput(2), "task": tm.Task(tm.Binary(3, 0.5)),
         "optimizer": optax.sgd(0.1), "steps": 1, "batch": 2, "evaluation": 2}
tm.train(**{**right, "key": jax.random.PRNGKey(0)})  # the old form is taken
for wrong in (
    {"key": 0}, {"key": jax.random.split(right["key"])}, {"optimizer": optax.adam},
    {"task": tm.Binary(3, 0.5)}, {"model": tm.ReLUOutput},
    {"model": nnx.Linear(3, 3, rngs=nnx.Rngs(0))}, {"model": Dropping()},
    {"model": Normalised()}, {"model": Nothing()}, {"key": None},
    {"task": tm.Task(tm.Binary(3, 0.5), jnp.ones(3))}, {"snapshots": 1},
    {"task": tm.Task(jnp.ones((4, 3)))}, {"model": tm.ReLUAutoencoder},
):
    try:
        tm.train(**{**right, **wrong})
    except ValueError as error:
        print(error)
params = {"weights": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
for read in (tm.activations, lambda *of: tm.intervene(*of, {})):
    try:
        read(right["model"], params, jnp.zeros((7, 3)))
    except ValueError as error:
        print(error)
for slip in (
    lambda: tm.intervene(right["model"], params, jnp.zeros(3), {"hidden": 0.0}),
    lambda: tm.analysis.geometry.feature_dimensionality(params),
    lambda: tm.fit_autoencoder(right["key"], tm.ReLUAutoencoder(2), params["weights"], penalty=0.1,
                               optimizer=right["optimizer"], steps=1, batch=2),
    lambda: tm.apply(params["weights"], tm.analysis.geometry.feature_dimensionality),
    lambda: tm.apply(tm.analysis.geometry.feature_dimensionality, params["weights"]),
    lambda: tm.explain(right["task"], right["model"]),
    lambda: tm.best_of(params, "loss"),
    lambda: tm.params(params),
):
    try:
        slip()
    except ValueError as error:
        print(error)
"""


REMEDIES = (
    "key is 0: give a key, such as jax.random.key(0)",
    "key has shape (2,) and type key<fry>: give ONE key",
    "optimizer is adam, not an optimizer: call it, as in optax.adam(1e-3)",
    "task is of type Binary: give tm.Task(Binary(...))",
    "model is the class ReLUOutput: give an instance, such as ReLUOutput(hidden=2)",
    "model is of type flax.nnx.nn.linear.Linear: give a Flax Linen module",
    "the model draws random numbers, as dropout does, but a model must be",
    "the model keeps state beside its parameters (batch_stats)",
    "the model Nothing has no parameters to train",
    "key is None: give a key, such as jax.random.key(0)",
    "target is of type ArrayImpl: give a function of one example, and importances by name",
    "snapshots is 1: give a list of whole numbers of updates",
    "the features of the task are of type ArrayImpl: give a distribution",
    "model is the class ReLUAutoencoder: give an instance, such as ReLUAutoencoder(latents=2)",
    *["the model cannot take an input of shape (7, 3): give ONE example, and use jax.vmap"] * 2,
    "the patch of site 'hidden' is of type float: give a function of the site's value",
    "weights is of type dict: give one array of numbers",
    "activations is of type ArrayImpl: give a distribution, such as tm.Activations(...)",
    "measure is of type ArrayImpl: give the function itself, and then the arrays",
    "an array of apply is of type ArrayImpl: give a labelled array of a sweep",
    "model is of type Task: give the model first, then the task",
    *["results is of type dict: give the xarray.Dataset of a sweep"] * 2,
)


def test_the_commonest_slips_are_refused_in_one_line_each():
    # In a process without the checks of types that tests have.
    finished = subprocess.run(
        [sys.executable, "-c", SLIPS], capture_output=True, text=True, check=True
    )
    messages = finished.stdout.splitlines()
    assert len(messages) == len(REMEDIES)
    for message, remedy in zip(messages, REMEDIES, strict=True):
        assert message.startswith(remedy)
