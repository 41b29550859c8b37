"""Threefry as a JAX key implementation that XLA can fuse.

`jax.random` draws Threefry-2x32 words through a primitive whose CPU lowering is a loop
of its own, so a draw is never fused with what consumes it. Here the same twenty rounds
are plain array operations. The words are bit-identical to those of `jax.random` under its
default setting `jax_threefry_partitionable=True`; only the speed differs.

Only draws are fused. Keys are split and folded by the primitive of JAX, because XLA would
otherwise fuse a whole chain of splits, folds and a draw into one kernel. LLVM counts the paths
through such a kernel, which are 2**20 for each link of the chain, and compiles for minutes (seen
with JAX 0.12).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.extend.random import define_prng_impl, threefry2x32_p
from jaxtyping import Array, Key, UInt32

from toymodels.engine import interpreter

P = ParamSpec("P")
R = TypeVar("R")

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA  # a constant of the Skein key schedule, which Threefry inherits


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
    """Return the high and low halves of a 64-bit counter as flat arrays.

    They are flat because XLA vectorises the innermost dimension, and features are few.
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
    return _derived(key, *_counters(shape)).reshape(*shape, 2)


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def _fold_in(key: Array, data: Array | int) -> Array:
    low = jnp.asarray(data, jnp.uint32)
    zero = low ^ low  # `vmap` maps it if it maps `low`, as the primitive needs it
    return _derived(key, zero, low)


def _derived(
    key: UInt32[Array, "2"], high: UInt32[Array, "*shape"], low: UInt32[Array, "*shape"]
) -> UInt32[Array, "*shape 2"]:
    """Return the keys with the words of `threefry_2x32`, which no draw is fused with."""
    return jnp.stack(threefry2x32_p.bind(key[0], key[1], high, low), axis=-1)


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
    """Return the key with draws that XLA can fuse.

    A key of a generator other than Threefry is returned unchanged.
    """
    if _is_threefry(key):
        return jax.random.wrap_key_data(jax.random.key_data(key), impl=fusable_threefry)
    return key


def stock(key: Key[Array, "*keys"]) -> Key[Array, "*keys"]:
    """Return the key for JAX's own Threefry that draws the words of a fusable key.

    A key of any other generator is returned as it is.
    """
    if _is_ours(key):
        return jax.random.wrap_key_data(jax.random.key_data(key), impl="threefry2x32")
    return key


def fusing(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with draws that XLA can fuse, without the function noticing.

    Some functions of JAX look at the kind of a key (`jax.random.poisson` takes no other than
    Threefry's own). So `function` is traced with keys of `jax.random`, and what was traced is
    evaluated with ours, whose words are the same.

    Args:
        function: pure, of keys and arrays, some of which may be keys that `fusable` made.

    Returns:
        A function whose outputs are those of `function`, with keys among them made `fusable`.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        flat, structure = jax.tree.flatten((args, kwargs))
        traced, shapes = jax.make_jaxpr(
            lambda flat: _call(function, structure, flat), return_shape=True
        )([jax.eval_shape(stock, value) if _is_ours(value) else value for value in flat])
        outputs = core.jaxpr_as_fun(_fusing(traced))(*map(_ours, flat))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return wrapped


def _call(function: Callable[..., R], structure: Any, flat: list[Any]) -> R:
    args, kwargs = jax.tree.unflatten(structure, flat)
    return function(*args, **kwargs)


def _fusing(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """Return a program in which all keys of Threefry, also its inputs, are fusable keys."""
    if not _has_keys(closed.jaxpr):
        return closed
    avals = [interpreter.shape(aval) for aval in closed.in_avals]
    return jax.make_jaxpr(
        lambda *arguments: interpreter.evaluate(closed, arguments, bind=_bind, inner=_fusing)
    )(*(jax.eval_shape(fusable, aval) if _is_threefry(aval) else aval for aval in avals))


def _bind(_: core.JaxprEqn, bind: Callable[..., Any], operands: list[Any]) -> Any:
    outputs = bind(*map(_ours, operands))
    return jax.tree.map(_ours, outputs)


def _has_keys(jaxpr: core.Jaxpr) -> bool:
    """Say whether a program takes or makes keys of Threefry."""
    made = (variable for equation in jaxpr.eqns for variable in equation.outvars)
    inner = (sub for equation in jaxpr.eqns for sub in core.jaxprs_in_params(equation.params))
    return any(_is_threefry(v.aval) for v in [*jaxpr.invars, *jaxpr.constvars, *made]) or any(
        map(_has_keys, inner)
    )


def _ours(value: Any) -> Any:
    return fusable(value) if _is_threefry(value) else value


def _is_ours(value: Any) -> bool:
    return getattr(value, "dtype", None) == jax.random.key_dtype(fusable_threefry)


def _is_threefry(value: Any) -> bool:
    return getattr(value, "dtype", None) == jax.random.key_dtype("threefry2x32")
