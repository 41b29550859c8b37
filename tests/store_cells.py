"""Cells for tests of a store, which child processes write and any process can check.

It needs no JAX, so that a child starts quickly.
"""

import contextlib
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np

from toymodels.sweeps.store.rows import Identity
from toymodels.sweeps.store.store import Store

RECORD = np.dtype([("loss", "f4"), ("weights", "f4", (2, 5))])
PROGRAM = Identity.of({"width": "8"}, title="sweep", axes=("density", "rate"), record=RECORD)


def block(seed, count=16):
    """Seeds, numbers and records of finished cells."""
    random = np.random.default_rng(seed)
    records = random.integers(0, 256, (count, RECORD.itemsize), np.uint8).view(PROGRAM.record)
    return np.full(count, seed), random.random((count, 2)), records[:, 0]


PARTS = {"program": "9f86d0", "width": "8", "versions": "jax=0.10.1", "platform": "cpu"}
AXES = ("density", "rate")
PATH = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
IMPORTS = """
import os, random, sys, time, warnings
from store_cells import PROGRAM, block
from toymodels.sweeps.store.refusals import StoreError
from toymodels.sweeps.store.store import Store
"""


def program(parts=PARTS, *, title="phase_diagram", axes=AXES, record=RECORD):
    return Identity.of(parts, title=title, axes=axes, record=record)


def cells(count, seed=0):
    return block(seed, count)


def filled(path, count=200):
    """A store file of one program with `count` cells, which are returned."""
    written = cells(count)
    with Store(path) as store:
        for start in range(0, count, 50):
            store.write(PROGRAM, *(column[start : start + 50] for column in written))
    return written


def assert_right(found, records, expected):
    """Fail unless the records that were found are as they were written."""
    assert records[found].tobytes() == expected[found].tobytes()


def child(script, *arguments, **options):
    """A process that runs a script."""
    command = [sys.executable, "-c", IMPORTS + textwrap.dedent(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": PATH}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


def flip(path, position, bit=0):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


@contextlib.contextmanager
def warnings_allowed():
    """Allow warnings of damage, which is noticed only sometimes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
