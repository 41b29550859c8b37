"""Data and comparisons for the tests of losses: JAX itself gives the expected numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import operations

BATCH = 5
EXAMPLES = np.random.default_rng(0).uniform(-1, 1, (BATCH, 3))
WEIGHTS = np.random.default_rng(1).uniform(-1, 1, (2, 3))
LABELS = np.array([0, 2, 1, 2, 0], np.int32)


def ordinary(loss):
    """The value and the gradient of the mean of a loss over a batch, as JAX gives them."""

    def mean(params, batch):
        return jnp.mean(jax.vmap(loss, in_axes=(None, 0))(params, batch))

    return jax.value_and_grad(mean)


def cast(tree, dtype):
    """Convert the wide floats that NumPy makes to `dtype`, and leave other numbers alone."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype if leaf.dtype == np.float64 else leaf.dtype), tree
    )


def assert_equal_to_rounding(actual, expected, roundings=256):
    """Fail unless two results agree to rounding.

    Both add equal numbers of order one, but in different orders.
    """
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        tolerance = roundings * float(jnp.finfo(one.dtype).eps)
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        scale = np.max(np.abs(other), initial=1, where=np.isfinite(other))
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale)


def is_the_loop(jaxpr):
    """Return whether the mean in a traced program is the fused loop, whatever `explain` says.

    The ordinary path takes the mean of one vector of losses.
    """
    (mean,) = operations(jaxpr, "custom_vmap_call")
    sums = operations(mean.params["call"].jaxpr, "reduce_sum")
    return not any(each.invars[0].aval.shape == (BATCH,) for each in sums)


def score(values):
    """A number in which each element counts differently, so that none can be exchanged."""
    flat = jnp.ravel(values)
    angles = np.arange(1, flat.size + 1)
    linear, square = np.cos(angles).astype(flat.dtype), np.sin(angles).astype(flat.dtype)
    return jnp.sum(linear * flat + square * flat**2)
