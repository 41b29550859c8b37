"""New starts, during training, for latents that never fire."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from toymodels import models
from toymodels.autoencoders import base, top_k
from toymodels.autoencoders.base import Decomposition
from toymodels.engine import keys
from toymodels.errors import InputError
from toymodels.features.base import Features
from toymodels.training.descent import Change

BATCHES = 32
"""Batches in which a latent that fires for no example is called dead."""

SHRINK = 0.2
"""Length of a revived row of the encoder, over the mean length of those that are alive."""


def revival(
    key: Key[Array, ""],
    model: nn.Module,
    activations: Features,
    batch: int,
    optimizer: optax.GradientTransformation,
    after: Sequence[int],
) -> Change:
    r"""Give dead latents a new start, on examples that are reconstructed badly.

    Dead is what fires for no example of 32 fresh batches. Each dead latent draws one example of a
    fresh batch with a probability proportional to its squared error, squared. Its direction
    becomes that of $h - b_d$, its row of the encoder the same at a fifth of the mean length of
    the other rows, its bias 0; all else is as at the start, and the optimizer forgets what it
    knew of these numbers.

    References:
        Bricken et al. (2023), "Towards Monosemanticity", appendix on neuron resampling.
    """
    draw = keys.fusing(lambda key: activations.sample(key, batch))
    grouped = isinstance(model, top_k.BatchTopKAutoencoder)

    def decomposed(params: PyTree, group: Float[Array, "examples hidden"]) -> Decomposition:
        variables: Any = {"params": params}
        if grouped:
            return model.apply(variables, group, method="on_group")  # pyright: ignore
        return jax.vmap(lambda one: model.apply(variables, one))(group)  # pyright: ignore

    def is_dead(key: Key[Array, ""], params: PyTree) -> Bool[Array, " latents"]:
        def fires(key: Key[Array, ""]) -> Bool[Array, " latents"]:
            return jnp.any(decomposed(params, draw(key)).latents > 0, axis=0)

        return ~jnp.any(lax.map(fires, jax.random.split(key, BATCHES)), axis=0)

    def started(
        key: Key[Array, ""], params: PyTree, dead: Bool[Array, " latents"]
    ) -> dict[str, Array]:
        key_start, key_batch, key_choice = jax.random.split(key, 3)
        group = draw(key_batch)
        errors = jnp.sum((group - decomposed(params, group).reconstruction) ** 2, axis=1)
        # The logarithm of a probability; of examples without an error none is drawn.
        likely = 2 * jnp.log(jnp.maximum(errors, jnp.finfo(errors.dtype).tiny))
        chosen = group[jax.random.categorical(key_choice, likely, shape=dead.shape)]
        towards = base.dictionary({"decoder": (chosen - params["decoder_bias"][None]).T})
        lengths = jnp.linalg.norm(params["encoder"], axis=1)
        mean = jnp.sum(jnp.where(dead, 0.0, lengths)) / jnp.maximum(jnp.sum(~dead), 1)
        mean = jnp.where(jnp.all(dead), 1.0, mean)
        fresh = models.start(key_start, model, group[0])
        return {
            **fresh,
            "decoder": towards,
            "encoder": SHRINK * mean * towards.T,
            "encoder_bias": jnp.zeros_like(params["encoder_bias"]),
        }

    def apply(index: Int[Array, ""], params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        key_dead, key_start = jax.random.split(jax.random.fold_in(key, index))
        dead = is_dead(key_dead, params)
        masks = {name: _of_latents(name, leaf, dead) for name, leaf in params.items()}
        revived = jax.tree.map(jnp.where, masks, started(key_start, params, dead), dict(params))
        forgotten = optax.tree_utils.tree_map_params(
            optimizer,
            lambda _, mask: mask,
            state,
            masks,
            transform_non_params=lambda _: jnp.zeros((), bool),
        )
        return revived, jax.tree.map(jnp.where, forgotten, optimizer.init(revived), state)

    return Change(after, apply)


def check_revivable(params: PyTree) -> None:
    """Raise `InputError` unless the parameters have the names of those of this package."""
    if missing := [name for name in base.NAMES if name not in params]:
        raise InputError(
            f"revive= needs the parameters {', '.join(base.NAMES)}, but this model has no "
            f"{', '.join(missing)}"
        )


def _of_latents(name: str, leaf: Array, dead: Bool[Array, " latents"]) -> Bool[Array, "*shape"]:
    """Which numbers of a parameter belong to dead latents."""
    if name == "decoder":
        return jnp.broadcast_to(dead[None, :], leaf.shape)
    if name == "encoder":
        return jnp.broadcast_to(dead[:, None], leaf.shape)
    if name != "decoder_bias" and leaf.shape == dead.shape:
        return dead
    return jnp.zeros(leaf.shape, bool)
