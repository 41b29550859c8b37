"""Compiler options for programs that run once, and for programs that run for long.

A program that is compiled in haste compiles three times faster, and runs four times slower.
"""

import functools

import jax

COMPILED_IN_HASTE = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # newer versions may not know an option, and then refuse it
    COMPILED_IN_HASTE["xla_cpu_use_fusion_emitters"] = False
    # LLVM would compile even a small program in several parts, which takes a quarter longer.
    COMPILED_IN_HASTE["xla_cpu_parallel_codegen_split_count"] = 1
COMPILED_WITH_CARE = {"xla_backend_optimization_level": 3}

in_haste = functools.partial(jax.jit, compiler_options=COMPILED_IN_HASTE)
