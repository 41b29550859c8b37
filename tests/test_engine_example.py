"""The worked example in the docstring of the engine computes what the docstring says."""

import jax
import jax.numpy as jnp
import numpy as np

from toymodels.engine import draws, fuse

WEIGHTS = jnp.array([1.0, 0.5])


def loss(w, x):
    return jnp.sum((x - w * jnp.dot(w, x)) ** 2)


def sample(key, density):
    key_active, key_value = jax.random.split(key)
    active = jax.random.uniform(key_active, (4, 2)) < density
    return jnp.where(active, jax.random.uniform(key_value, (4, 2)), 0.0)


def test_the_loss_of_the_example_is_fused():
    assert fuse.explain(loss, WEIGHTS, jnp.zeros((4, 2))).fused


def test_the_key_alone_decides_both_arrays_of_uniform_numbers():
    key = jax.random.key(3)

    def drawn_and_finished(density):
        draw, finish = draws.split(lambda key: sample(key, density), key)
        return draw(key), finish(draw(key))

    drawn, batch = jax.jit(drawn_and_finished)(0.5)
    assert [array.shape for array in drawn] == [(4, 2), (4, 2)]
    np.testing.assert_array_equal(batch, sample(key, 0.5))
    for other, array in zip(jax.jit(drawn_and_finished)(0.9)[0], drawn, strict=True):
        np.testing.assert_array_equal(other, array)


def test_the_fused_step_is_the_gradient_of_the_mean():
    batch = sample(jax.random.key(3), 0.5)
    expected = jax.value_and_grad(lambda w: jnp.mean(jax.vmap(loss, (None, 0))(w, batch)))(WEIGHTS)
    for value, other in zip(fuse.value_and_grad(loss)(WEIGHTS, batch), expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5)
