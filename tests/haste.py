"""Compiler options for programs that run once; they compile three times faster."""

COMPILED_IN_HASTE = {"xla_backend_optimization_level": 0}
