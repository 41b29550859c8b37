"""Training of an autoencoder on any distribution of activations."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from toymodels import checks, models, sites
from toymodels.autoencoders.base import Number, OnBatch
from toymodels.autoencoders.revival import check_revivable, revival
from toymodels.autoencoders.wiring import Wiring
from toymodels.engine import keys
from toymodels.engine.fuse import Loss
from toymodels.errors import InputError
from toymodels.features.base import Features
from toymodels.training.descent import (
    Fitted,
    check_optimizer,
    checked_key,
    descend,
    increasing_steps,
)


def fit_autoencoder(
    key: Key[Array, ""],
    model: nn.Module,
    activations: Features,
    *,
    penalty: Number | Callable[[Int[Array, ""]], Number],
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
    start: PyTree | None = None,
    wiring: Wiring | None = None,
    revive: Sequence[int] = (),
    points: int = 100,
    snapshots: Sequence[int] = (),
) -> Fitted:
    r"""Train an autoencoder on fresh activations, as `fit` trains a model.

    Args:
        key: decides the start, the data, and the activations that revivals and the threshold of
            a `BatchTopKAutoencoder` are computed from.
        model: an autoencoder of this package, or any Linen module with a method
            `loss(activation, penalty)`, or with the methods of `autoencoders.OnBatch`.
        activations: any distribution of vectors, such as `Activations` of a trained model.
        penalty: the factor $\lambda \ge 0$ of the model's loss, which may be swept; or a function
            of the number of updates before, such as `optax.linear_schedule(0, 0.1, 1000)`.
        optimizer: see `fit`.
        steps: the number of updates.
        batch: the number of activations of each update.
        start: the parameters at the start; the default is random.
        wiring: which coordinates each latent may read and write, from `autoencoders.wiring`; the
            default is all. It makes transcoders and crosscoders of autoencoders.
        revive: increasing numbers of updates after which latents that never fire get a new
            start; see `toymodels.autoencoders.revival`. Stop before the last tenth of the
            updates, so that the new latents have time to settle.
        points: the number of points of the loss curve that are kept at most.
        snapshots: increasing numbers of updates after which the parameters are kept.

    Returns:
        The parameters, the curve of the loss with its penalty (averaged over examples), and the
        snapshots.
    """
    if not callable(penalty):
        checks.interval("penalty", penalty, low=0, remedy="give a factor of 0 or more")
    checks.count("steps", steps)
    checks.count("batch", batch)
    check_optimizer(optimizer)
    _check_activations(activations)
    revive = increasing_steps("revive", revive, steps)
    key_start, key_data, key_settled, key_revival = jax.random.split(checked_key(key), 4)
    if start is None:
        start = models.start(key_start, model, jnp.zeros(activations.num_features))
    if wiring is not None:
        if revive:
            raise InputError("revive and wiring are both given: leave one of them out")
        wiring.check(start)
        start = wiring.cut(start)
    change = None
    if revive:
        check_revivable(start)
        change = revival(key_revival, model, activations, batch, optimizer, revive)

    def whole_batch(key: Key[Array, ""], _: int) -> Float[Array, "1 examples hidden"]:
        return activations.sample(key, batch)[None]

    on_batch = isinstance(model, OnBatch)
    fitted = descend(
        key_data,
        start,
        _losses(model, penalty, wiring),
        # The loss of a model on batches takes a whole batch as its ONE example.
        whole_batch if on_batch else activations.sample,
        optimizer=optimizer,
        steps=steps,
        batch=1 if on_batch else batch,
        points=points,
        snapshots=snapshots,
        change=change,
    )
    if not on_batch:
        return fitted

    def settled(params: PyTree) -> PyTree:
        sample = lambda key: activations.sample(key, batch)  # noqa: E731
        return keys.fusing(lambda key: model.settled(key, params, sample))(key_settled)

    kept = jax.vmap(settled)(fitted.snapshots) if snapshots else fitted.snapshots
    return Fitted(settled(fitted.params), fitted.history, kept)


def _check_activations(activations: Any) -> None:
    """Raise `InputError` unless `activations` is a distribution of vectors."""
    if not isinstance(activations, Features):
        raise InputError(
            f"activations is of type {type(activations).__name__}: give a distribution, such as "
            "tm.Activations(...), or tm.FiniteData(array) for data"
        )


def _losses(
    model: nn.Module, penalty: Number | Callable[[Int[Array, ""]], Number], wiring: Wiring | None
) -> Callable[[Int[Array, ""]], Loss]:
    """Return a function from the number of updates before to the loss of the next update."""
    method = "batch_loss" if isinstance(model, OnBatch) else "loss"

    def loss_at(step: Int[Array, ""]) -> Loss:
        factor = penalty(step) if callable(penalty) else penalty

        def loss(params: PyTree, example: Array) -> Float[Array, ""]:
            # What is cut has no gradient, and so stays 0.
            params = params if wiring is None else wiring.cut(params)
            with sites.explained(model, params, example):
                value = model.apply({"params": params}, example, factor, method=method)
            return jnp.asarray(value)

        return loss

    return loss_at
