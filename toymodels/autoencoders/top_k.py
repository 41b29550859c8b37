"""Autoencoders that keep the largest latents, of an example or of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from toymodels import checks
from toymodels.autoencoders import base
from toymodels.autoencoders.base import Decomposition, Number, Parameters
from toymodels.errors import InputError
from toymodels.features.base import Features
from toymodels.sites import Site

THRESHOLD_GROUPS = 32
"""Groups over which the threshold of a `BatchTopKAutoencoder` is averaged."""


DIGITS_FROM = 64
"""Latents from which on a `TopKAutoencoder` finds the $k$ largest digit by digit.

Below, each latent is compared with each other, written out. Measured in training on batches of
256, seconds of 200 steps written out and by digits: 0.017 and 0.040 at 24 latents, 0.037 and 0.050
at 48, 0.054 and 0.054 at 64, 0.113 and 0.052 at 96, 7.8 and 0.17 at 256.
"""


class TopKAutoencoder(nn.Module):
    r"""$z$ keeps the $k$ largest of $\mathrm{ReLU}(\pi)$: $\lVert z\rVert_0 = k$ exactly.

    That is if $k$ of $\pi$ are positive, else those that are; of equals the first are kept, where
    `jax.lax.top_k` with a threshold would keep more than $k$. The time of a step is proportional
    to `latents`, and without a sort.

    Attributes:
        latents: size of the dictionary.
        k: a whole number from 1 to `latents`; may be traced.

    References:
        Gao et al. (2024), "Scaling and Evaluating Sparse Autoencoders", with the ReLU of their
        code.
    """

    latents: int
    k: Number

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """The latents and the reconstruction of one activation."""
        _check_k(self.k, self.latents, whole=True)
        params = base.start(self, self.latents, activation.size)
        # Biases inside the product, for XLA stores a product, but would add a bias again for
        # every comparison.
        bias = params["encoder_bias"] - params["encoder"] @ params["decoder_bias"]
        augmented = jnp.concatenate([params["encoder"], bias[:, None]], axis=1)
        preactivation = augmented @ jnp.append(activation, 1.0)
        positive = nn.relu(Site(name="preactivation")(preactivation))
        if self.latents < DIGITS_FROM:
            kept = _rank(positive) < self.k
        else:
            count = jnp.ceil(jnp.asarray(self.k, positive.dtype)).astype(jnp.int32)
            kept = _largest(lax.stop_gradient(positive), count)
        return base.decode(params, jnp.where(kept, positive, 0.0))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""$\lVert h - \hat h\rVert^2 + \lambda \sum_i z_i$; in the paper `penalty` is 0."""
        latents, reconstruction = self(activation)
        return base.squares(activation, reconstruction) + penalty * jnp.sum(latents)


class BatchTopKAutoencoder(nn.Module):
    r"""The $k B$ largest of all $\mathrm{ReLU}(\pi)$ of a GROUP of $B$ activations are kept.

    So an activation has $k$ latents on average over its group: `on_group`, and `loss`, which is
    of a group as well. Alone, an activation keeps what is above the parameter `threshold`, which
    has no gradient: `fit_autoencoder` sets it after training to the smallest latent that is kept
    in a group, averaged over groups. It starts at 0.

    Attributes:
        latents: size of the dictionary.
        k: in $(0, \text{latents}]$, not necessarily whole; may be traced.

    References:
        Bussmann et al. (2024), "BatchTopK Sparse Autoencoders".
    """

    latents: int
    k: Number

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """The latents above `threshold`, and the reconstruction, of one activation."""
        _check_k(self.k, self.latents)
        params = base.start(self, self.latents, activation.size)
        threshold = self.param("threshold", nn.initializers.zeros, ())
        positive = nn.relu(Site(name="preactivation")(base.preactivation(params, activation)))
        return base.decode(params, jnp.where(positive > threshold, positive, 0.0))

    def on_group(self, group: Float[Array, "examples hidden"]) -> Decomposition:
        r"""Exactly $\mathrm{round}(k B)$ latents in all, or those that are positive if fewer."""
        _check_k(self.k, self.latents)
        params: Parameters = self.variables["params"]
        # Examples along the last axis, the long one, along which processors vectorise.
        centred = (group - params["decoder_bias"][None, :]).T
        positive = nn.relu(params["encoder"] @ centred + params["encoder_bias"][:, None])
        count = jnp.round(jnp.asarray(self.k, positive.dtype) * len(group)).astype(jnp.int32)
        latents = jnp.where(_largest(lax.stop_gradient(positive), count), positive, 0.0)
        reconstruction = base.dictionary(params) @ latents + params["decoder_bias"][:, None]
        return Decomposition(latents.T, reconstruction.T)

    def loss(self, group: Float[Array, "examples hidden"], penalty: Number) -> Float[Array, ""]:
        r"""As of `TopKAutoencoder`, mean over a group."""
        latents, reconstruction = self.on_group(group)
        return (base.squares(group, reconstruction) + penalty * jnp.sum(latents)) / len(group)


def threshold(
    key: Key[Array, ""],
    model: BatchTopKAutoencoder,
    params: PyTree,
    activations: Features,
    batch: int,
) -> Float[Array, ""]:
    """The smallest latent kept in a group, mean over fresh groups; 0 for one that keeps none."""

    def smallest(key: Key[Array, ""]) -> Float[Array, ""]:
        group = activations.sample(key, batch)
        kept = model.apply({"params": params}, group, method="on_group")
        latents = kept.latents  # pyright: ignore
        least = jnp.min(latents, where=latents > 0, initial=jnp.inf)
        return jnp.where(jnp.isfinite(least), least, 0.0)

    return jnp.mean(lax.map(smallest, jax.random.split(key, THRESHOLD_GROUPS)))


def _rank(values: Float[Array, " latents"]) -> Int[Array, " latents"]:
    """How many values stand before each, from the largest on; of equals, the first is first."""
    index = jnp.arange(values.size)
    rank = jnp.zeros(values.size, jnp.int32)
    # One after the other: all pairs at once would not fit in cache.
    for place in range(values.size):
        other = lax.index_in_dim(values, place, keepdims=False)
        ahead = jnp.where(index > place, other >= values, other > values)
        rank = rank + ahead.astype(jnp.int32)
    return rank


def _largest(values: Float[Array, "*shape"], count: Int[Array, ""]) -> Bool[Array, "*shape"]:
    """Where the `count` largest of values that are at least 0 stand; of equals the first.

    Found digit by digit, in passes that count: some fifty times faster than a sort. What is not a
    number counts as larger than all others, so that it stays visible.
    """
    # Numbers that are at least 0 are ordered as their bits are, read as an integer. The sign is
    # taken off for the sake of -0.
    integer = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[values.dtype.itemsize]
    bits = lax.bitcast_convert_type(values, integer).ravel() & (jnp.iinfo(integer).max >> 1)
    least = _largest_with(
        lambda bound: bits >= bound, lambda found: found >= count, jnp.iinfo(integer).bits, integer
    )
    above, equal = bits > least, bits == least
    missing = count - jnp.sum(above)
    order = jnp.arange(values.size, dtype=jnp.uint32)
    stop = _largest_with(
        lambda bound: equal & (order < bound),
        lambda found: found <= missing,
        values.size.bit_length(),
        jnp.uint32,
    )
    return (above | (equal & (order < stop))).reshape(values.shape)


def _largest_with(
    inside: Callable[[Array], Array], holds: Callable[[Array], Array], digits: int, integer: Any
) -> Array:
    """The largest integer of so many bits whose number of elements inside it holds.

    Args:
        inside: of a bound, which elements to count.
        holds: of their number. If it holds for a bound, it does for all that are smaller.
        digits: of the result.
        integer: number type of the bounds.
    """
    zeros = (np.zeros((), np.int32)[()],) * 3

    # Two bits at a time, of three counts: of one, XLA hands the sum to a library, and computes
    # what is counted apart.
    def digit(place: Array, found: Array) -> Array:
        shift = (2 * (-(-digits // 2) - 1 - place)).astype(integer)
        bounds = [found + (jnp.asarray(digit, integer) << shift) for digit in (1, 2, 3)]
        counted = tuple(inside(bound).astype(jnp.int32) for bound in bounds)
        counts = lax.reduce(counted, zeros, _add, (0,))
        steps = sum(holds(count).astype(integer) for count in counts)
        return found + (steps << shift)

    return lax.fori_loop(0, -(-digits // 2), digit, jnp.zeros((), integer))


def _add(left: Sequence[Array], right: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _check_k(k: Number, latents: int, *, whole: bool = False) -> None:
    checks.interval("k", k, low=0, high=latents, open_low=True, remedy="it counts latents")
    if whole:
        checks.when_known(_check_whole, k)


def _check_whole(k: Any) -> None:
    numbers = np.asarray(k, np.float64)
    fractions = numbers[numbers != np.round(numbers)]
    if fractions.size:
        raise InputError(f"k is {fractions[0]:g}: give a whole number, or use BatchTopKAutoencoder")
