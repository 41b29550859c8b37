"""Autoencoders that keep the largest latents of each activation or of each batch."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from toymodels import checks
from toymodels.autoencoders import base
from toymodels.autoencoders.base import Decomposition, Number, Parameters
from toymodels.errors import InputError
from toymodels.sites import Site

_THRESHOLD_BATCHES = 32
"""The number of batches over which the threshold of a `BatchTopKAutoencoder` is averaged."""


_DIGITS_FROM = 64
"""The number of latents from which on a `TopKAutoencoder` finds the $k$ largest digit by digit.

With fewer latents, each latent is compared with each other. Seconds of 200 updates on batches of
256, by comparisons and by digits: 0.017 and 0.040 at 24 latents, 0.037 and 0.050 at 48, 0.054 and
0.054 at 64, 0.113 and 0.052 at 96, 7.8 and 0.17 at 256.
"""


class TopKAutoencoder(nn.Module):
    r"""An autoencoder whose latents are the $k$ largest of $\mathrm{ReLU}(\pi)$, the others 0.

    If fewer than $k$ of $\pi$ are positive, only those are kept; otherwise exactly $k$ are. Among
    equal values the first ones are kept, whereas a threshold at the $k$-th value of
    `jax.lax.top_k` would keep more than $k$. There is no sort: the time of an update is
    proportional to `latents`.

    Attributes:
        latents: the size of the dictionary.
        k: a whole number from 1 to `latents`. It may be swept.

    References:
        Gao et al. (2024), "Scaling and Evaluating Sparse Autoencoders", with the ReLU of their
        code.
    """

    latents: int
    k: Number

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """Return the latents and the reconstruction of one activation."""
        _check_k(self.k, self.latents, whole=True)
        params = base.start(self, self.latents, activation.size)
        # The bias is part of the product, because XLA stores a product but would add a bias anew
        # for every comparison.
        bias = params["encoder_bias"] - params["encoder"] @ params["decoder_bias"]
        augmented = jnp.concatenate([params["encoder"], bias[:, None]], axis=1)
        preactivation = augmented @ jnp.append(activation, 1.0)
        positive = nn.relu(Site(name="preactivation")(preactivation))
        if self.latents < _DIGITS_FROM:
            kept = _rank(positive) < self.k
        else:
            count = jnp.ceil(jnp.asarray(self.k, positive.dtype)).astype(jnp.int32)
            kept = _largest(lax.stop_gradient(positive), count)
        return base.decode(params, jnp.where(kept, positive, 0.0))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Return $\lVert h - \hat h\rVert^2 + \lambda \sum_i z_i$; the paper has $\lambda = 0$."""
        latents, reconstruction = self(activation)
        return base.squared_error(activation, reconstruction) + penalty * jnp.sum(latents)


class BatchTopKAutoencoder(nn.Module):
    r"""An autoencoder that keeps the $k B$ largest of all $\mathrm{ReLU}(\pi)$ of a batch of $B$.

    So an activation has $k$ latents on average over its batch. ONE activation alone keeps the
    latents above the parameter `threshold`, which is 0 at the start and has no gradient:
    `fit_autoencoder` sets it after training to the smallest latent that is kept in a batch,
    averaged over batches.

    Attributes:
        latents: the size of the dictionary.
        k: the mean number of latents, in $(0, \text{latents}]$, not necessarily whole. It may be
            swept.

    References:
        Bussmann et al. (2024), "BatchTopK Sparse Autoencoders".
    """

    latents: int
    k: Number

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """Return the latents of one activation above `threshold`, and the reconstruction."""
        _check_k(self.k, self.latents)
        params = base.start(self, self.latents, activation.size)
        threshold = self.param("threshold", nn.initializers.zeros, ())
        positive = nn.relu(Site(name="preactivation")(base.preactivation(params, activation)))
        return base.decode(params, jnp.where(positive > threshold, positive, 0.0))

    def on_batch(self, batch: Float[Array, "examples hidden"]) -> Decomposition:
        r"""Keep the $\mathrm{round}(k B)$ largest latents of a batch, but only positive ones."""
        _check_k(self.k, self.latents)
        params: Parameters = self.variables["params"]
        # Processors vectorise along the last axis, so the examples are along that.
        centred = (batch - params["decoder_bias"][None, :]).T
        positive = nn.relu(params["encoder"] @ centred + params["encoder_bias"][:, None])
        count = jnp.round(jnp.asarray(self.k, positive.dtype) * len(batch)).astype(jnp.int32)
        latents = jnp.where(_largest(lax.stop_gradient(positive), count), positive, 0.0)
        reconstruction = base.dictionary(params) @ latents + params["decoder_bias"][:, None]
        return Decomposition(latents.T, reconstruction.T)

    def batch_loss(
        self, batch: Float[Array, "examples hidden"], penalty: Number
    ) -> Float[Array, ""]:
        r"""Return the mean of $\lVert h - \hat h\rVert^2 + \lambda \sum_i z_i$ over a batch."""
        latents, reconstruction = self.on_batch(batch)
        error = base.squared_error(batch, reconstruction)
        return (error + penalty * jnp.sum(latents)) / len(batch)

    def settled(
        self,
        key: Key[Array, ""],
        params: Parameters,
        sample: Callable[[Key[Array, ""]], Array],
    ) -> Parameters:
        """Return the parameters with `threshold`, the smallest latent that a batch keeps.

        It is a mean over fresh batches, to which a batch that keeps no latent contributes 0.
        """

        def smallest(key: Key[Array, ""]) -> Float[Array, ""]:
            kept = self.apply({"params": params}, sample(key), method="on_batch")
            latents = kept.latents  # pyright: ignore
            lowest = jnp.min(latents, where=latents > 0, initial=jnp.inf)
            return jnp.where(jnp.isfinite(lowest), lowest, 0.0)

        lowest = lax.map(smallest, jax.random.split(key, _THRESHOLD_BATCHES))
        return {**params, "threshold": jnp.mean(lowest)}


def _rank(values: Float[Array, " latents"]) -> Int[Array, " latents"]:
    """Return how many values are larger than each value, or equal to it and earlier."""
    index = jnp.arange(values.size)
    rank = jnp.zeros(values.size, jnp.int32)
    # The values are taken one after the other, because all pairs at once do not fit in cache.
    for place in range(values.size):
        other = lax.index_in_dim(values, place, keepdims=False)
        ahead = jnp.where(index > place, other >= values, other > values)
        rank = rank + ahead.astype(jnp.int32)
    return rank


def _largest(values: Float[Array, "*shape"], count: Int[Array, ""]) -> Bool[Array, "*shape"]:
    """Return where the `count` largest of nonnegative values are; the first of equal values win.

    The value at rank `count` is found digit by digit, by counting: some fifty times faster than
    a sort. NaN counts as larger than every number, so that it stays visible.
    """
    # Nonnegative floats have the order of their bits, read as integers. The sign is taken off
    # because of -0.
    integer = {2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[values.dtype.itemsize]
    bits = lax.bitcast_convert_type(values, integer).ravel() & (jnp.iinfo(integer).max >> 1)
    # The value at rank `count` is the largest bound that at least `count` values reach.
    last = _largest_bound(
        lambda bound: bits >= bound, lambda found: found >= count, jnp.iinfo(integer).bits, integer
    )
    above, equal = bits > last, bits == last
    # Of the values equal to it, the first `missing` ones are kept: those before place `stop`.
    missing = count - jnp.sum(above)
    order = jnp.arange(values.size, dtype=jnp.uint32)
    stop = _largest_bound(
        lambda bound: equal & (order < bound),
        lambda found: found <= missing,
        values.size.bit_length(),
        jnp.uint32,
    )
    return (above | (equal & (order < stop))).reshape(values.shape)


def _largest_bound(
    counted_by: Callable[[Array], Array],
    allows: Callable[[Array], Array],
    digits: int,
    integer: Any,
) -> Array:
    """Return the largest bound for which `allows(number of elements counted by the bound)`.

    The bound is built from its highest binary digits down, as in long division.

    Args:
        counted_by: a function of a bound that says which elements are counted.
        allows: a function of their number. If it allows a bound, it allows all smaller bounds.
        digits: the number of binary digits of the largest possible bound.
        integer: the number type of the bounds.
    """
    zeros = (np.zeros((), np.int32)[()],) * 3

    # Each pass tries two binary digits, with three counts in one reduction. XLA would hand a
    # single count to a library and compute what is counted in a pass of its own.
    def digit(place: Array, found: Array) -> Array:
        shift = (2 * (-(-digits // 2) - 1 - place)).astype(integer)
        bounds = [found + (jnp.asarray(digit, integer) << shift) for digit in (1, 2, 3)]
        counted = tuple(counted_by(bound).astype(jnp.int32) for bound in bounds)
        counts = lax.reduce(counted, zeros, _add, (0,))
        allowed = sum(allows(count).astype(integer) for count in counts)
        return found + (allowed << shift)

    return lax.fori_loop(0, -(-digits // 2), digit, jnp.zeros((), integer))


def _add(left: Sequence[Array], right: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _check_k(k: Number, latents: int, *, whole: bool = False) -> None:
    checks.interval("k", k, low=0, high=latents, open_low=True, remedy="it counts latents")
    if whole:
        checks.when_known(_check_whole, k, elementwise=True)


def _check_whole(k: Any) -> None:
    numbers = np.asarray(k, np.float64)
    fractions = numbers[numbers != np.round(numbers)]
    if fractions.size:
        raise InputError(f"k is {fractions[0]:g}: give a whole number, or use BatchTopKAutoencoder")
