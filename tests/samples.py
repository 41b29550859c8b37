"""Large samples with fixed keys, and the errors that a right sampler makes.

A p-value must exceed 1e-4, and a mean must lie within five standard errors: a right sampler would
fail one of these about once in ten thousand keys.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import define_prng_impl

EXAMPLES = 40_000
UNLIKELY = 1e-4
STANDARD_ERRORS = 5

every_density = pytest.mark.parametrize("density", [1.0, 0.3, 1e-3])


def assert_mean(values, expected, deviation):
    """Fail unless the mean of each column is right.

    The error is measured by the standard deviation that the distribution has by definition.
    """
    error = np.abs(values.mean(axis=0, dtype=np.float64) - expected)
    assert np.all(error <= STANDARD_ERRORS * deviation / np.sqrt(len(values)) + 1e-7)


def constant_words(word):
    """A generator whose every random word is `word`."""
    return define_prng_impl(
        key_shape=(1,),
        seed=lambda seed: jnp.zeros(1, jnp.uint32),
        split=lambda key, shape: jnp.zeros((*shape, 1), jnp.uint32),
        random_bits=lambda key, width, shape: jnp.full(shape, word, jnp.uint32),
        fold_in=lambda key, data: key,
        name=f"constant_words_{word}",
        tag=f"const{word}",
    )
