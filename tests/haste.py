"""Compiler options for programs that run once, and for programs that run for long.

A program that is compiled in haste compiles three times faster, and runs four times slower.
"""

COMPILED_IN_HASTE = {"xla_backend_optimization_level": 0}
COMPILED_WITH_CARE = {"xla_backend_optimization_level": 3}
