"""`jit` with the compiler options that the fused loops need."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

# Fast math lets LLVM reorder the sums over a batch, without which they stay scalar: ten
# times slower. NaN and infinity are still honoured by comparisons, `where` and `relu`;
# algebra is not (x - x is 0 even for NaN).
_OPTIONS: dict[str, dict[str, bool | int | str]] = {
    "cpu": {"xla_cpu_enable_fast_math": True, "xla_cpu_prefer_vector_width": 512},
}


def compiler_options() -> dict[str, bool | int | str]:
    """XLA options of the current default backend; none outside the CPU."""
    return _OPTIONS.get(jax.default_backend(), {})


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """`jax.jit` with the engine's compiler options: a single run at the speed of a sweep.

    XLA heeds options on the outermost `jit` alone, so `train` never jits: wrap the whole
    cell, or hand it to `sweep`.

    Args:
        function: pure, of arrays and keys. Compiled once per shape, as by `jax.jit`.
    """
    return jax.jit(function, compiler_options=compiler_options())
