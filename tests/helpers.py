"""Helpers that several test files share.

Nothing here starts JAX when it is imported: a process that forks afterwards could hang for ever.
"""

import contextlib
import functools
import time

from jax.extend import core

import toymodels as tm
from toymodels.sweeps.program import Program


def sweep(cell, **arguments):
    """Sweep without a progress bar."""
    return tm.sweep(cell, progress=False, **arguments)


@contextlib.contextmanager
def around_blocks(wrapper):
    """Call `wrapper(run, number, seeds, numbers)` in place of each block of this process.

    `run(number, seeds, numbers)` runs the block itself.
    """
    run_block = Program.run_block
    Program.run_block = lambda program, *block: wrapper(
        functools.partial(run_block, program), *block
    )
    try:
        yield
    finally:
        Program.run_block = run_block


@contextlib.contextmanager
def no_blocks():
    """Fail if a block runs."""

    def fail(run, *block):
        raise AssertionError("a block ran")

    with around_blocks(fail):
        yield


def slowly(run, *block):
    """Run a block slowly, so that some have not begun when others are stored."""
    time.sleep(0.02)
    return run(*block)


def operations(program, name):
    """The operations of that name in a traced program, those of its loops and branches as well."""
    found = [each for each in program.eqns if each.primitive.name == name]
    for each in program.eqns:
        for inner in core.jaxprs_in_params(each.params):
            found += operations(inner, name)
    return found
