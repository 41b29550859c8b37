"""`jit` with the compiler options that the fused loops need, and a cache of compiled programs."""

import functools
import hashlib
import json
import os
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

from toymodels.engine.decompositions import one_at_a_time
from toymodels.engine.devices import backend, devices

P = ParamSpec("P")
R = TypeVar("R")

CACHE_BYTES = 2**30
"""The size of the cache of compiled programs; the least recently used program goes first."""

# Fast math lets LLVM reorder the sums over a batch, without which they stay scalar: ten
# times slower. NaN and infinity are still honoured by comparisons, `where` and `relu`;
# algebra is not (x - x is 0 even for NaN).
_OPTIONS: dict[str, dict[str, bool | int | str]] = {
    "cpu": {"xla_cpu_enable_fast_math": True, "xla_cpu_prefer_vector_width": 512},
}


# Kernels of YNNPACK are faster than the others of XLA: see `products` for what they may not do.
_WITHOUT_YNNPACK: dict[str, dict[str, bool | int | str]] = {
    "cpu": {"xla_cpu_experimental_ynn_fusion_type": ""},
}


def compiler_options(*, side_by_side: bool = False) -> dict[str, bool | int | str]:
    """Return the options of XLA for the platform traced for; only the CPU has any.

    Args:
        side_by_side: whether the program multiplies a matrix by the columns of all lanes; see
            `engine.products`.
    """
    options = _OPTIONS.get(backend(), {})
    return options | _WITHOUT_YNNPACK.get(backend(), {}) if side_by_side else options


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Return `jax.jit` of a function with the compiler options of the engine.

    A single run then has the speed of a run in a sweep. XLA reads options from the outermost
    `jit` alone, so `train` never calls `jit`: wrap the whole cell, or hand it to `sweep`.

    The decomposition of a batch of matrices becomes a loop over the matrices, because such
    decompositions can deadlock under `jax.jit`; see `decompositions`. Defining the function
    changes nothing; the first call opens the cache of compiled programs; see
    `ensure_compilation_cache`.

    Args:
        function: a pure function of arrays and keys. It is compiled once for each shape of its
            arguments, as by `jax.jit`.
    """
    one_by_one = one_at_a_time(function)

    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        ensure_compilation_cache()  # JAX runs this line when it traces, just before it compiles
        return one_by_one(*args, **kwargs)

    return jax.jit(traced, compiler_options=compiler_options())


def ensure_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX was told of another.

    A program that was compiled in an earlier process then starts in a fraction of the time. The
    folder is `toymodels` in the cache folder of the platform (`~/.cache` on Linux). It holds one
    folder for each kind of processor, because computers can share a home folder.
    `JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=0` keeps
    nothing. Every place that compiles calls this function first; later calls do nothing.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    kind = hashlib.sha256(processor().encode()).hexdigest()[:12]
    folder = platformdirs.user_cache_path("toymodels") / kind
    _remove_unfinished(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # JAX decides whether it caches at the first compilation of a process, which may be over.
    compilation_cache.reset_cache()


def keeps_programs() -> bool:
    """Return whether there is a cache of compiled programs."""
    config: Any = jax.config
    return bool(config.jax_enable_compilation_cache and config.jax_compilation_cache_dir)


def _remove_unfinished(folder: Path) -> None:
    """Remove programs that a process was writing when it was killed.

    JAX writes the time of the last access after the program. A program without that time makes
    every eviction fail, and JAX then stores no further program.
    """
    for program in folder.glob("*-cache"):
        if not program.with_name(program.name.removesuffix("cache") + "atime").exists():
            program.unlink(missing_ok=True)


def processor() -> str:
    """Return the kind and the vector instructions of the processor, which decide last bits."""
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
