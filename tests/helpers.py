"""Helpers that several test files share.

Nothing here starts JAX when it is imported: a process that forks afterwards could hang for ever.
"""

import contextlib
import functools
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend import core

import toymodels as tm
from toymodels.sweeps.program import Program


def sweep(cell, **arguments):
    """Sweep without a progress bar."""
    return tm.sweep(cell, progress=False, **arguments)


@contextlib.contextmanager
def around_blocks(wrapper):
    """Call `wrapper(run, number, seeds, numbers)` in place of each block of this process.

    `number` counts the blocks as they begin, and `run(seeds, numbers)` runs the block itself.
    """
    run_block, begun = Program.run_block, itertools.count()
    Program.run_block = lambda program, *block: wrapper(
        functools.partial(run_block, program), next(begun), *block
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


def slowly(run, number, *block):
    """Run a block slowly, so that some have not begun when others are stored."""
    time.sleep(0.02)
    return run(*block)


def normal(seed, *shape):
    """Draw standard normal numbers in single precision."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def fitted_weight(key, rate, *, steps=200, start=2.0):
    """Fit a weight, or several, to 1 by gradient descent, which diverges if the rate is high."""
    return tm.fit(
        key,
        jnp.asarray(start),
        lambda weights, x: jnp.sum((weights * x - 1) ** 2),
        lambda key, batch: jnp.ones(batch),
        optimizer=optax.sgd(rate),
        steps=steps,
        batch=4,
    ).params


def operations(program, *names):
    """The operations of these names, or all, in a traced program and in its loops and branches."""
    found = [each for each in program.eqns if not names or each.primitive.name in names]
    for each in program.eqns:
        for inner in core.jaxprs_in_params(each.params):
            found += operations(inner, *names)
    return found


def assert_same_bits(actual, expected):
    """Fail unless two trees of arrays have the same shapes, types and bytes."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
