"""Training as one pure function: `fit` for any loss and sampler, `train` for a model and a task.

Nothing here compiles, and nothing knows of many models. Wrap a run in `toymodels.jit`, or hand
the function that calls it to `toymodels.sweep`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from toymodels import checks, models, sites
from toymodels.engine import draws, fuse, keys, sums
from toymodels.errors import InputError
from toymodels.features.base import Features
from toymodels.tasks import Task
from toymodels.training.descent import (
    Fitted,
    History,
    Sample,
    check_optimizer,
    checked_key,
    descend,
)

# The data of `jax.random.key(seed)` begin with 0 for every seed below 2**32.
_EVALUATION = np.array([2022, 2022], np.uint32)


class Trained(NamedTuple):
    """The result of a run of `train`.

    Attributes:
        params: the parameters after the last update.
        loss: the mean over fresh examples that are common to all runs, summed over outputs. It is
            an estimate with a sampling error, so it may lie below the lowest possible loss; rank
            by a closed form, such as `toymodels.theory.expected_loss`, if there is one. NaN if
            no examples were asked for.
        history: the loss curve of the minibatches.
        snapshots: the parameters after the updates that were asked for, along a leading axis;
            None if none were asked for.
    """

    params: PyTree
    loss: Float[Array, ""]
    history: History
    snapshots: PyTree


def fit(
    key: Key[Array, ""],
    params: PyTree,
    loss: fuse.Loss,
    sample: Sample,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
    points: int = 100,
    snapshots: Sequence[int] = (),
) -> Fitted:
    """Minimise the mean of `loss` over fresh batches from `sample`.

    Args:
        key: decides the data.
        params: the parameters at the start.
        loss: a function of the parameters and ONE example that returns a number.
        sample: a function of a key and a batch size that returns a batch of examples.
        optimizer: an Optax transformation. One that needs the loss (`lbfgs`, `polyak_sgd`,
            `reduce_on_plateau`) is given the loss of the batch of the update. One that needs
            other parameters or the gradients of single examples, such as `lookahead`, does not
            work. Its numbers may be swept, except where Optax itself needs a Python number, such
            as the length of a schedule or the peak of a schedule with a warm-up.
        steps: the number of updates, at least 1.
        batch: the number of examples of each update.
        points: the number of points of the loss curve that are kept at most, evenly spaced.
        snapshots: increasing numbers of updates, from 0 to `steps`, after which the parameters
            are kept; see `log_spaced`.

    Returns:
        The parameters, the loss curve and the snapshots.
    """
    return descend(
        key,
        params,
        lambda _: loss,
        sample,
        optimizer=optimizer,
        steps=steps,
        batch=batch,
        points=points,
        snapshots=snapshots,
    )


def train(
    key: Key[Array, ""],
    model: nn.Module,
    task: Task,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
    points: int = 100,
    snapshots: Sequence[int] = (),
    evaluation: int = 65_536,
    key_evaluation: Key[Array, ""] | None = None,
) -> Trained:
    """Train one model on one task, and evaluate it on fresh examples.

    The examples of the evaluation do not depend on `key`: all seeds of a sweep, and all cells
    of one distribution, are evaluated on equal examples. So the best of many seeds is the best
    model, not the one with the luckiest examples, and differences between losses are far more
    precise than the losses themselves.

    Args:
        key: decides the start of the model and the training data.
        model: a Linen module of ONE example.
        task: features, target and importance.
        optimizer: see `fit`.
        steps: the number of updates, at least 1.
        batch: the number of examples of each update.
        points: the number of points of the loss curve that are kept at most.
        snapshots: increasing numbers of updates after which the parameters are kept.
        evaluation: the number of fresh examples of the final loss, rounded up to whole batches;
            0 leaves the evaluation out.
        key_evaluation: decides those examples. The default is one key for all runs, which is the
            key of no seed. If each run has a key of its own, the losses are independent estimates.

    Returns:
        The parameters, the final loss (summed over outputs and averaged over examples), the loss
        curve and the snapshots.
    """
    checks.count("evaluation", evaluation, minimum=0)  # before the training, not after
    check_optimizer(optimizer)
    key_start, key_data = jax.random.split(checked_key(key))
    params = models.start(key_start, model, _example(task))
    loss = task_loss(model, task)
    fitted = fit(
        key_data,
        params,
        loss,
        task.features.sample,
        optimizer=optimizer,
        steps=steps,
        batch=batch,
        points=points,
        snapshots=snapshots,
    )
    final = jnp.full((), jnp.nan)
    if evaluation:
        final = evaluate(
            _common_key() if key_evaluation is None else key_evaluation,
            fitted.params,
            loss,
            task.features.sample,
            batch=batch,
            examples=evaluation,
        )
    return Trained(fitted.params, final, fitted.history, fitted.snapshots)


def _common_key() -> Key[Array, ""]:
    """Return the key of the evaluation of every run, which is the key of no seed."""
    return jax.random.wrap_key_data(jnp.asarray(_EVALUATION), impl="threefry2x32")


def task_loss(model: nn.Module, task: Task) -> fuse.Loss:
    """Return the loss of `model` on `task`, a function of the parameters and ONE example."""

    def loss(params: PyTree, features: PyTree) -> Float[Array, ""]:
        with sites.explained(model, params, features):
            outputs = model.apply({"params": params}, features)
        return task.loss(features, outputs)  # pyright: ignore[reportArgumentType]

    return loss


def explain(
    model: nn.Module | fuse.Loss, task: Task | PyTree, batch: PyTree | None = None
) -> fuse.Explanation:
    """Say which path of the engine trains `model` on `task`, and why.

    Args:
        model: a Linen module of ONE example, or a loss as `fit` takes it.
        task: features, target and importance; if `model` is a loss, its parameters.
        batch: if `model` is a loss, a batch of examples along the leading axis of every leaf.
            Arrays may be `jax.ShapeDtypeStruct`s.
    """
    if isinstance(model, Task):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError("model is of type Task: give the model first, then the task")
    if not isinstance(model, nn.Module):
        return fuse.explain(model, task, batch)
    example = _example(task)
    params = jax.eval_shape(lambda: models.start(jax.random.key(0), model, example))
    examples = jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape), leaf.dtype), example)
    return fuse.explain(task_loss(model, task), params, examples)


def _example(task: Task) -> PyTree:
    """Return an example of the task's features in which every number is zero."""
    if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]
        name = type(task).__name__
        remedy = f"give tm.Task({name}(...))" if isinstance(task, Features) else "give a tm.Task"
        raise InputError(f"task is of type {name}: {remedy}")
    if not callable(getattr(task.features, "sample", None)):
        raise InputError(
            f"the features of the task are of type {type(task.features).__name__}: give a "
            "distribution, such as tm.SparseUniform(5, 0.1), or tm.FiniteData(array) for data"
        )
    shapes = jax.eval_shape(lambda key: task.features.sample(key, 1), jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), shapes)


def evaluate(
    key: Key[Array, ""],
    params: PyTree,
    loss: fuse.Loss,
    sample: Sample,
    *,
    batch: int,
    examples: int,
) -> Float[Array, ""]:
    """Return the mean of `loss` over fresh examples, batch by batch.

    Args:
        key: decides the examples.
        params: the parameters.
        loss: a function of the parameters and ONE example that returns a number.
        sample: a function of a key and a batch size that returns a batch of examples.
        batch: the number of examples that are in memory at once.
        examples: the number of examples in all, rounded up to whole batches.
    """
    checks.count("batch", batch)
    checks.count("examples", examples)
    batches = -(-examples // batch)
    key = draws.of_run(checked_key(key), params)
    draw, finish = draws.split(keys.fusing(lambda key: sample(key, batch)), key)
    mean = jax.jit(fuse.value(loss, finish), inline=True)  # so that it is traced only once

    def step(carry: Any, index: Int[Array, ""]) -> tuple[Any, None]:
        total, shared = carry
        shared = draws.fill(draw, jax.random.fold_in(key, index), shared)
        return (sums.add(total, mean(params, shared), index), shared), None

    shared = draws.empty(draw, key)
    total = sums.empty(jax.eval_shape(mean, params, shared), batches)
    carry = draws.of_run(total, params), shared
    (total, _), _ = lax.scan(step, carry, jnp.arange(batches))
    return total.sum() / batches


def log_spaced(steps: int, number: int) -> tuple[int, ...]:
    """Return at most `number` steps from 0 to `steps`, evenly spaced in the logarithm.

    Args:
        steps: the last step.
        number: the number of steps at most, 0 among them; at least 2.
    """
    checks.count("steps", steps)
    checks.count("number", number, minimum=2)
    return (0, *(int(s) for s in np.unique(np.geomspace(steps, 1, number - 1).round())))
