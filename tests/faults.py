"""A cell and comparisons for the tests of sweeps that are stopped, killed or damaged."""

import hashlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import toymodels as tm
from toymodels.sweeps.store.store import Store

AXES = {"a": np.linspace(0.0, 1.0, 6), "b": np.geomspace(0.1, 10.0, 4)}
GRID = {"axes": AXES, "num_seeds": 2, "width": 8}
CELLS = 48


def cell(key, *, a, b):
    """A chaotic cell, whose outputs would show one wrong bit of the key or of a number."""
    start = jax.random.uniform(key, (4,))
    x = jax.lax.fori_loop(0, 50, lambda _, x: (3.7 + 0.2 * a) * x * (1 - x), start)
    return {"x": b * x, "y": b * x.sum(), "count": jnp.int32(jnp.round(100 * a))}


def sweep(cell=cell, **arguments):
    return tm.sweep(cell, **{"progress": False, **GRID, **arguments})


def bits(results):
    """Dimensions, type and bytes of all variables and coordinates."""
    return {
        str(name): (variable.dims, str(variable.dtype), variable.values.tobytes())
        for name, variable in results.variables.items()
    }


def digest(results):
    return hashlib.sha256(repr(sorted(bits(results).items())).encode()).hexdigest()


def right(results, expected):
    """Count the cells that finished, all of which are as in an undisturbed sweep."""
    finished = results["y"].notnull()
    assert bits(results) == bits(expected if finished.all() else expected.where(finished))
    return int(finished.sum())


def held(path):
    """Count the cells that a store holds, all of which are intact."""
    with Store(path, create=False) as store:
        cells, quarantined, copies = store.verify()
    assert quarantined == 0
    assert copies == ()
    return cells


def child(function, *arguments, **environment):
    """A process that calls a function of a test file."""
    module = function.__module__
    program = f"import {module}\n{module}.{function.__name__}(*{arguments!r})"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process):
    """Return the lines that a child printed, after it ended well."""
    with process:
        lines = list(process.stdout)  # `communicate` would miss what has been read ahead
        assert process.wait() == 0, process.stderr.read()
    return lines


def wait_for(stream, *words):
    """The lines of a stream up to the one that has all words."""
    lines = []
    for line in stream:
        lines.append(line)
        if all(word in line for word in words):
            return lines
    raise AssertionError(f"ended without {words}: {lines}")


def say(*values):
    """Print at once and whole, from any thread of a child."""
    os.write(1, f"{json.dumps(values)}\n".encode())
