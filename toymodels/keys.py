"""Threefry as a JAX key implementation that XLA can fuse.

`jax.random` draws Threefry-2x32 words through a primitive whose CPU lowering is a loop
of its own, so a draw is never fused with what consumes it. Here the same twenty rounds
are plain array operations. The words are bit-identical to those of `jax.random` under its
default setting `jax_threefry_partitionable=True`; only the speed differs.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Key, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA  # of the Skein key schedule, which Threefry inherits


def threefry_2x32(
    key: UInt32[Array, "2"], high: UInt32[Array, "*shape"], low: UInt32[Array, "*shape"]
) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """Encrypt the 64-bit counters (high, low) with twenty rounds of Threefry-2x32.

    References:
        Salmon et al. (2011), "Parallel Random Numbers: As Easy as 1, 2, 3", section 3.3.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    high, low = high + schedule[0], low + schedule[1]
    for injection in range(1, 6):
        for distance in _ROTATIONS[(injection - 1) % 2]:
            high = high + low
            low = (low << jnp.uint32(distance)) | (low >> jnp.uint32(32 - distance))
            low = low ^ high
        high = high + schedule[injection % 3]
        low = low + schedule[(injection + 1) % 3] + jnp.uint32(injection)
    return high, low


def _counters(
    shape: tuple[int, ...],
) -> tuple[UInt32[Array, " size"], UInt32[Array, " size"]]:
    """The first words of a 64-bit counter, high and low halves, flat.

    Flat, because XLA vectorises the innermost dimension and features are few.
    """
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"one draw of {size} words is too long: draw fewer than 2**32 at once")
    low = lax.iota(jnp.uint32, size)
    return jnp.zeros_like(low), low


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    high, low = threefry_2x32(key, *_counters(shape))
    if bit_width == 64:
        wide = high.astype(jnp.uint64) << jnp.uint64(32) | low.astype(jnp.uint64)
        return wide.reshape(shape)
    unsigned = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bit_width]
    return (high ^ low).astype(unsigned).reshape(shape)


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(threefry_2x32(key, *_counters(shape)), axis=-1).reshape(*shape, 2)


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def _fold_in(key: Array, data: Array | int) -> Array:
    low = jnp.asarray(data, jnp.uint32)
    return jnp.stack(threefry_2x32(key, jnp.zeros_like(low), low))


fusable_threefry = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="fusable_threefry2x32",
    tag="ffry",
)


def fusable(key: Key[Array, "*keys"]) -> Key[Array, "*keys"]:
    """The same key, whose draws XLA can fuse; any other generator's key is returned as it is."""
    if key.dtype == jax.random.key(0, impl="threefry2x32").dtype:
        return jax.random.wrap_key_data(jax.random.key_data(key), impl=fusable_threefry)
    return key
