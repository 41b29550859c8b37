"""Training an autoencoder on any distribution of activations."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from toymodels import checks, models
from toymodels.autoencoders import top_k
from toymodels.autoencoders.base import Number
from toymodels.features.base import Features
from toymodels.training import Fitted, check_optimizer, checked_key, fit


def fit_autoencoder(
    key: Key[Array, ""],
    model: nn.Module,
    activations: Features,
    *,
    penalty: Number,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
    start: PyTree | None = None,
    points: int = 100,
    snapshots: Sequence[int] = (),
) -> Fitted:
    r"""Train an autoencoder on fresh activations, by `fit`.

    Args:
        key: split in three: start, data, examples for a `BatchTopKAutoencoder`'s threshold.
        model: one of this package, or any Linen module with `loss(activation, penalty)`.
        activations: any distribution of vectors, such as `Activations` of a trained model.
        penalty: $\lambda \ge 0$ of the model's loss; may be traced, as all numbers.
        optimizer: see `fit`.
        steps: number of updates.
        batch: activations per update: for a `BatchTopKAutoencoder`, of a group.
        start: parameters to start from; the default is random, see above.
        points: most points that the loss curve keeps.
        snapshots: increasing numbers of updates after which to keep the parameters.

    Returns:
        Parameters, loss curve (of the loss with its penalty, mean over examples), snapshots.
    """
    checks.interval("penalty", penalty, low=0, remedy="give a factor of 0 or more")
    checks.count("batch", batch)
    check_optimizer(optimizer)
    key_start, key_data, key_threshold = jax.random.split(checked_key(key), 3)
    if start is None:
        start = models.start(key_start, model, jnp.zeros(activations.num_features))

    def loss(params: PyTree, example: Array) -> Float[Array, ""]:
        with models.explained(model, params, example):
            value = model.apply({"params": params}, example, penalty, method="loss")
        return jnp.asarray(value)

    grouped = isinstance(model, top_k.BatchTopKAutoencoder)
    fitted = fit(
        key_data,
        start,
        loss,
        # An example of BatchTopK's loss is a whole batch.
        (lambda key, _: activations.sample(key, batch)[None]) if grouped else activations.sample,
        optimizer=optimizer,
        steps=steps,
        batch=1 if grouped else batch,
        points=points,
        snapshots=snapshots,
    )
    if not isinstance(model, top_k.BatchTopKAutoencoder):
        return fitted

    def finished(params: PyTree) -> PyTree:
        threshold = top_k.threshold(key_threshold, model, params, activations, batch)
        return {**params, "threshold": threshold}

    kept = jax.vmap(finished)(fitted.snapshots) if snapshots else fitted.snapshots
    return Fitted(finished(fitted.params), fitted.history, kept)
