"""Training an autoencoder on any distribution of activations."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from toymodels import checks, models, sites
from toymodels.autoencoders import top_k
from toymodels.autoencoders.base import Number
from toymodels.autoencoders.revival import check_revivable, revival
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
    revive: Sequence[int] = (),
    points: int = 100,
    snapshots: Sequence[int] = (),
) -> Fitted:
    r"""Train an autoencoder on fresh activations, as `fit` does.

    Args:
        key: split in four: start, data, examples for a `BatchTopKAutoencoder`'s threshold,
            examples for revivals.
        model: one of this package, or any Linen module with `loss(activation, penalty)`.
        activations: any distribution of vectors, such as `Activations` of a trained model.
        penalty: $\lambda \ge 0$ of the model's loss; may be traced, as all numbers. Or a function
            of the number of updates before, such as `optax.linear_schedule(0, 0.1, 1000)`.
        optimizer: see `fit`.
        steps: number of updates.
        batch: activations per update: for a `BatchTopKAutoencoder`, of a group.
        start: parameters to start from; the default is random, see above.
        revive: increasing numbers of updates after which latents that never fire get a new
            start; see `toymodels.autoencoders.revival`. Before the last tenth of the steps, so
            that they have time to settle.
        points: most points that the loss curve keeps.
        snapshots: increasing numbers of updates after which to keep the parameters.

    Returns:
        Parameters, loss curve (of the loss with its penalty, mean over examples), snapshots.
    """
    if not callable(penalty):
        checks.interval("penalty", penalty, low=0, remedy="give a factor of 0 or more")
    checks.count("steps", steps)
    checks.count("batch", batch)
    check_optimizer(optimizer)
    if not isinstance(activations, Features):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"activations is of type {type(activations).__name__}: give a distribution, such as "
            "tm.Activations(...), or tm.FiniteData(array) for data"
        )
    revive = increasing_steps("revive", revive, steps)
    key_start, key_data, key_threshold, key_revival = jax.random.split(checked_key(key), 4)
    if start is None:
        start = models.start(key_start, model, jnp.zeros(activations.num_features))
    change = None
    if revive:
        check_revivable(start)
        change = revival(key_revival, model, activations, batch, optimizer, revive)

    def loss_at(step: Int[Array, ""]) -> Loss:
        own = penalty(step) if callable(penalty) else penalty

        def loss(params: PyTree, example: Array) -> Float[Array, ""]:
            with sites.explained(model, params, example):
                value = model.apply({"params": params}, example, own, method="loss")
            return jnp.asarray(value)

        return loss

    grouped = isinstance(model, top_k.BatchTopKAutoencoder)
    fitted = descend(
        key_data,
        start,
        loss_at,
        # An example of BatchTopK's loss is a whole batch.
        (lambda key, _: activations.sample(key, batch)[None]) if grouped else activations.sample,
        optimizer=optimizer,
        steps=steps,
        batch=1 if grouped else batch,
        points=points,
        snapshots=snapshots,
        change=change,
    )
    if not isinstance(model, top_k.BatchTopKAutoencoder):
        return fitted

    def finished(params: PyTree) -> PyTree:
        mean = keys.fusing(lambda key: top_k.threshold(key, model, params, activations, batch))
        return {**params, "threshold": mean(key_threshold)}

    kept = jax.vmap(finished)(fitted.snapshots) if snapshots else fitted.snapshots
    return Fitted(finished(fitted.params), fitted.history, kept)
