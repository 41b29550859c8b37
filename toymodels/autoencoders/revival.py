"""Revival of dead latents: a latent that never fires gets a new start during training."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from toymodels import models
from toymodels.autoencoders import base
from toymodels.autoencoders.base import Decomposition, OnBatch
from toymodels.engine import keys
from toymodels.errors import InputError
from toymodels.features.base import Features
from toymodels.training.descent import Change

_BATCHES = 32
"""The number of batches in which a dead latent fires for no example."""

_SHRINK = 0.2
"""The length of a revived row of the encoder over the mean length of the rows that are alive."""


def revival(
    key: Key[Array, ""],
    model: nn.Module,
    activations: Features,
    batch: int,
    optimizer: optax.GradientTransformation,
    after: Sequence[int],
) -> Change:
    r"""Return the change that gives dead latents a new start.

    A latent is dead if it fires for no example of 32 fresh batches. Each dead latent draws one
    example $h$ of a fresh batch, with a probability proportional to the square of the squared
    error of its reconstruction. The direction of the latent becomes that of $h - b_d$. Its row of
    the encoder points there, too, at a fifth of the mean length of the rows that are alive, and
    its bias becomes 0. All other parameters of the latent are as at the start of training, and
    the optimizer starts anew with them.

    References:
        Bricken et al. (2023), "Towards Monosemanticity", appendix on neuron resampling.
    """
    draw = keys.fusing(lambda key: activations.sample(key, batch))

    def decomposed(params: PyTree, examples: Float[Array, "examples hidden"]) -> Decomposition:
        variables: Any = {"params": params}
        if isinstance(model, OnBatch):
            return model.apply(variables, examples, method="on_batch")  # pyright: ignore
        return jax.vmap(lambda one: model.apply(variables, one))(examples)  # pyright: ignore

    def is_dead(key: Key[Array, ""], params: PyTree) -> Bool[Array, " latents"]:
        def fires(key: Key[Array, ""]) -> Bool[Array, " latents"]:
            return jnp.any(decomposed(params, draw(key)).latents > 0, axis=0)

        return ~jnp.any(lax.map(fires, jax.random.split(key, _BATCHES)), axis=0)

    def started(
        key: Key[Array, ""], params: PyTree, dead: Bool[Array, " latents"]
    ) -> dict[str, Array]:
        key_start, key_batch, key_choice = jax.random.split(key, 3)
        examples = draw(key_batch)
        errors = jnp.sum((examples - decomposed(params, examples).reconstruction) ** 2, axis=1)
        # Logarithms of probabilities; an example without an error is never drawn.
        likely = 2 * jnp.log(jnp.maximum(errors, jnp.finfo(errors.dtype).tiny))
        chosen = examples[jax.random.categorical(key_choice, likely, shape=dead.shape)]
        towards = base.dictionary({"decoder": (chosen - params["decoder_bias"][None]).T})
        lengths = jnp.linalg.norm(params["encoder"], axis=1)
        mean = jnp.sum(jnp.where(dead, 0.0, lengths)) / jnp.maximum(jnp.sum(~dead), 1)
        mean = jnp.where(jnp.all(dead), 1.0, mean)
        fresh = models.start(key_start, model, examples[0])
        return {
            **fresh,
            "decoder": towards,
            "encoder": _SHRINK * mean * towards.T,
            "encoder_bias": jnp.zeros_like(params["encoder_bias"]),
        }

    def apply(index: Int[Array, ""], params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        key_dead, key_start = jax.random.split(jax.random.fold_in(key, index))
        dead = is_dead(key_dead, params)
        masks = {name: _of_latents(name, leaf, dead) for name, leaf in params.items()}
        revived = jax.tree.map(jnp.where, masks, started(key_start, params, dead), dict(params))
        starts_anew = optax.tree_utils.tree_map_params(
            optimizer,
            lambda _, mask: mask,
            state,
            masks,
            transform_non_params=lambda _: jnp.zeros((), bool),
        )
        return revived, jax.tree.map(jnp.where, starts_anew, optimizer.init(revived), state)

    return Change(after, apply)


def check_revivable(params: PyTree) -> None:
    """Raise `InputError` unless the parameters have the names that revival needs."""
    if missing := [name for name in base.NAMES if name not in params]:
        raise InputError(
            f"revive= needs the parameters {', '.join(base.NAMES)}, but this model has no "
            f"{', '.join(missing)}"
        )


def _of_latents(name: str, leaf: Array, dead: Bool[Array, " latents"]) -> Bool[Array, "*shape"]:
    """Return which numbers of a parameter belong to dead latents."""
    if name == "decoder":
        return jnp.broadcast_to(dead[None, :], leaf.shape)
    if name == "encoder":
        return jnp.broadcast_to(dead[:, None], leaf.shape)
    if name != "decoder_bias" and leaf.shape == dead.shape:
        return dead
    return jnp.zeros(leaf.shape, bool)
