"""Cells for tests of a store, which child processes write and any process can check.

It needs no JAX, so that a child starts quickly.
"""

import numpy as np

from toymodels.sweeps.store.rows import Identity

RECORD = np.dtype([("loss", "f4"), ("weights", "f4", (2, 5))])
PROGRAM = Identity.of({"width": "8"}, title="sweep", axes=("density", "rate"), record=RECORD)


def block(seed, count=16):
    """Seeds, numbers and records of finished cells."""
    random = np.random.default_rng(seed)
    records = random.integers(0, 256, (count, RECORD.itemsize), np.uint8).view(PROGRAM.record)
    return np.full(count, seed), random.random((count, 2)), records[:, 0]
