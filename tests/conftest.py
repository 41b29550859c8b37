"""Settings that hold for all tests: shapes are spelled out, wide numbers only where asked for.

Compiled programs are kept beside pytest's own cache: the processes of one run share them.
"""

import os
from pathlib import Path

import jax
import pytest

_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))  # for processes that tests start
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Numbers of 64 bits, until the test ends."""
    with jax.enable_x64(True):
        yield
