"""`jit` with the compiler options that the fused loops need, and a cache of compiled programs."""

import hashlib
import json
import os
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

from toymodels.engine.decompositions import one_at_a_time
from toymodels.engine.devices import devices

P = ParamSpec("P")
R = TypeVar("R")

CACHE_BYTES = 2**30
"""Most that the cache of compiled programs holds; the least recently used go first."""

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
    cell, or hand it to `sweep`. Decompositions of a batch become loops over its matrices, for
    those of `jax.jit` can wait for each other for ever; see `decompositions`. Compiled programs
    are kept on disk; see `use_cache`.

    Args:
        function: pure, of arrays and keys. Compiled once per shape, as by `jax.jit`.
    """
    use_cache()
    return jax.jit(one_at_a_time(function), compiler_options=compiler_options())


def use_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX was told of another.

    A program that was compiled before then starts in a fraction of the time. The folder is
    `toymodels` in the cache folder of the platform (`~/.cache` on Linux), one in it for each
    kind of processor, for home folders are shared. `JAX_COMPILATION_CACHE_DIR` names another
    folder, `JAX_ENABLE_COMPILATION_CACHE=0` keeps nothing.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    kind = hashlib.sha256(processor().encode()).hexdigest()[:12]
    folder = platformdirs.user_cache_path("toymodels") / kind
    # JAX cannot evict, and then keeps nothing more, what it was killed in the midst of writing.
    for program in folder.glob("*-cache"):
        if not program.with_name(program.name.removesuffix("cache") + "atime").exists():
            program.unlink(missing_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # JAX decides at the first compilation of a process, which may be over, whether it caches.
    compilation_cache.reset_cache()


def processor() -> str:
    """What the bits of a number depend on in the processor: its kind and vector instructions."""
    build: Any = np.show_config(mode="dicts")
    return f"{platform.machine()} {json.dumps(build['SIMD Extensions']['found'])}"


def environment() -> dict[str, str]:
    """Return what the bits of a number depend on besides the program, as text by name.

    These are the versions of the software, the device, the processor, and the options and flags
    of the compiler. The number of devices is left out: it decides where a program runs, and not
    what the program returns.
    """
    packages = ("toymodels", "jax", "jaxlib", "flax", "optax", "numpy")
    flags = [
        flag
        for flag in os.environ.get("XLA_FLAGS", "").split()
        if not flag.startswith("--xla_force_host_platform_device_count")
    ]
    return {
        "versions": " ".join(f"{name}={metadata.version(name)}" for name in packages),
        "device": f"{jax.default_backend()} {devices()[0].device_kind}",
        "processor": processor(),
        "compiler options": json.dumps(compiler_options()),
        "XLA_FLAGS": " ".join(flags),
    }
