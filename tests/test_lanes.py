"""Every lane of a block gets the bits of each other lane, in code that LLVM divides into pieces."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_cells import random_cell, random_training

import toymodels as tm
from toymodels.engine import xla_flags
from toymodels.sweeps.program import compile_program

pytestmark = pytest.mark.as_users_compile

WIDTH = 64
RANDOM_CELLS = int(os.environ.get("RANDOM_CELLS", "2"))  # `make test-lanes` sets more


def picked(size):
    """Return a cell that computes with numbers picked from one array of this size."""

    def cell(key, *, scale):
        values = jax.random.normal(key, (size,)) * scale
        values, _ = jax.lax.scan(lambda each, _: (jnp.tanh(1.1 * each), None), values, length=3)
        a, b = values[1], values[size // 2]
        return {"ratio": 1 / (1 + a**2 + b**2), "bell": jnp.exp(-(a**2) - b**2) * a}

    return cell


def fitted(key, *, scale):
    """Fit a small autoencoder, whose loss divides by the lengths of columns of two numbers."""
    fit = {"optimizer": optax.adam(1e-2), "steps": 20, "batch": 64, "points": 1}
    points = tm.SparseUniform(2, 0.5)
    return dict(
        tm.fit_autoencoder(key, tm.ReLUAutoencoder(4), points, penalty=0.1 * scale, **fit).params
    )


def different_lanes(cell, scales):
    """Return the lanes whose outputs differ from those of another lane with equal numbers.

    Each scale comes to each lane once. Neighbours differ, because copies are not computed.
    """
    program = compile_program(cell, {"scale": np.float32([1.0])}, width=WIDTH)
    expected, found = {}, set()
    for turn in range(len(scales)):
        which = (np.arange(WIDTH) + turn) % len(scales)
        lanes = {"scale": np.float32(scales)[which]}
        outputs = program.run_block(np.zeros(WIDTH, int), lanes).outputs
        for name, values in outputs.items():
            bits = values.reshape(WIDTH, -1).view(np.uint32)
            first = expected.setdefault(name, bits[: len(scales)])  # of the first turn
            found |= set(np.flatnonzero((bits != first[which]).any(axis=1)).tolist())
    return found


@pytest.mark.parametrize("size", range(2, 10))
def test_numbers_picked_from_a_small_array_have_equal_bits_in_all_lanes(size):
    assert not different_lanes(picked(size), np.linspace(0.5, 1.5, 40))


def test_a_small_autoencoder_has_equal_bits_in_all_lanes():
    assert not different_lanes(fitted, [0.5, 1.0, 1.5])


@pytest.mark.parametrize("seed", range(107, 107 + RANDOM_CELLS))  # 107 and 108 need the flag
def test_a_random_cell_has_equal_bits_in_all_lanes(seed):
    cell, says = random_cell(seed)
    assert not different_lanes(cell, np.linspace(0.5, 1.5, 12)), says


@pytest.mark.parametrize("seed", range(RANDOM_CELLS))
def test_a_random_model_trained_in_turns_has_equal_bits_in_all_lanes(seed):
    cell, says = random_training(seed)
    assert not different_lanes(cell, np.linspace(0.5, 1.5, 3)), says


PROGRAM = """
import os
{first}
import toymodels
import jax
print(float(jax.numpy.ones(()).sum()), {flag!r} in os.environ.get("XLA_FLAGS", ""))
"""


@pytest.mark.parametrize(
    ("first", "added", "warning"),
    [
        ("", "True", ""),
        ("os.environ['XLA_FLAGS'] = '--xla_cpu_enable_fast_math=false'", "True", ""),
        ("import jax; jax.devices()", "False", "import toymodels before the first use of JAX"),
    ],
)
def test_the_flag_is_there_before_jax_starts(first, added, warning):
    flags = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    program = PROGRAM.format(first=first, flag=xla_flags.FLAG)
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=flags
    )
    assert finished.stdout.split() == ["1.0", added]
    assert warning in finished.stderr
