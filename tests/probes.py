"""Probes, data and settings for the tests of what can be read."""

from functools import partial

import jax
import jax.numpy as jnp
from hypothesis import settings
from hypothesis import strategies as st

from toymodels.analysis import classification, probing, readouts

properties = settings(max_examples=10)
seeds = st.integers(0, 2**32 - 1)

FITS = {
    "difference of means": probing.difference_of_means,
    "mass-mean": probing.mass_mean,
    "ridge": partial(probing.ridge, penalty=3.0),
    "logistic": partial(probing.logistic, penalty=0.5),
}
auroc, placements = jax.jit(classification.auroc), jax.jit(classification.placements)
accuracy, binary_states = jax.jit(classification.accuracy), jax.jit(readouts.binary_states)


def single(*arrays):
    return tuple(jnp.asarray(a, bool if a.dtype == bool else jnp.float32) for a in arrays)
