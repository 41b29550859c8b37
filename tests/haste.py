"""Compiler options for programs that run once; they compile three times faster.

The import starts JAX, so a test that forks must not import this file.
"""

import jax

COMPILED_IN_HASTE = (
    {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
)
