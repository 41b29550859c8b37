"""The fused loop and the ordinary path under `vmap`, `scan` and further derivatives.

The oracle is JAX itself: `jax.value_and_grad` of the mean of the mapped loss.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from haste import in_haste
from jax import lax
from losses import (
    BATCH,
    EXAMPLES,
    LABELS,
    WEIGHTS,
    assert_equal_to_rounding,
    is_the_loop,
    ordinary,
    score,
)

from toymodels.engine import fuse

pytestmark = pytest.mark.as_users_compile


def through_the_loop(w, x, scale=1.0):
    return jnp.sum((x - jnp.tanh(scale * w.T @ jnp.tanh(w @ x))) ** 2)


def past_the_loop(w, x, scale=1.0):
    return through_the_loop(w, lax.map(jnp.sin, x), scale)


both_paths = pytest.mark.parametrize(
    "loss", [pytest.param(through_the_loop, id="fused"), pytest.param(past_the_loop, id="ordinary")]
)


STACKED_WEIGHTS = np.random.default_rng(3).uniform(-1, 1, (4, 2, 3))


STACKED_BATCHES = np.random.default_rng(4).uniform(-1, 1, (4, BATCH, 3))


SCALES = np.array([0.5, 1.0, 1.5, 2.0])


def with_scale(route, loss):
    """Return a value and gradient with a number that the loss captures."""
    return lambda w, batch, scale: route(lambda w, x: loss(w, x, scale))(w, batch)


def stack(results):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


@both_paths
@pytest.mark.parametrize(
    "mapped", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0)], ids=str
)
def test_vmap_is_a_loop_over_models(loss, mapped, x64):
    assert fuse.explain(loss, WEIGHTS, EXAMPLES).fused is (loss is through_the_loop)
    stacked = (STACKED_WEIGHTS, STACKED_BATCHES, SCALES)
    arguments = [
        jnp.asarray(one if axis == 0 else one[0]) for one, axis in zip(stacked, mapped, strict=True)
    ]
    actual = jax.jit(jax.vmap(with_scale(fuse.value_and_grad, loss), mapped))(*arguments)
    one_by_one = in_haste(with_scale(ordinary, loss))
    expected = stack(
        one_by_one(
            *(a if axis is None else a[i] for a, axis in zip(arguments, mapped, strict=True))
        )
        for i in range(4)
    )
    assert_equal_to_rounding(actual, expected)


@both_paths
def test_the_value_alone_is_right(loss, x64):
    """The value alone equals the value with a gradient, and so does its derivative."""
    w, batch, scales = jnp.asarray(WEIGHTS), jnp.asarray(EXAMPLES), jnp.asarray(SCALES)
    mapped = jax.jit(jax.vmap(with_scale(fuse.value, loss), (None, None, 0)))
    differentiated = jax.jit(jax.vmap(jax.grad(with_scale(fuse.value, loss)), (None, None, 0)))
    alone = jax.jit(with_scale(fuse.value, loss)).trace(w, batch, scales[0])
    assert is_the_loop(alone.jaxpr) is (loss is through_the_loop)
    assert_equal_to_rounding(
        (mapped(w, batch, scales), differentiated(w, batch, scales)),
        stack(in_haste(with_scale(ordinary, loss))(w, batch, scale) for scale in SCALES),
    )


@both_paths
def test_a_nested_vmap_is_a_loop_over_models(loss, x64):
    over_scales = jax.vmap(with_scale(fuse.value_and_grad, loss), (None, None, 0))
    over_weights = jax.jit(jax.vmap(over_scales, (0, None, None)))
    one_by_one = in_haste(with_scale(ordinary, loss))
    batch = jnp.asarray(EXAMPLES)
    assert_equal_to_rounding(
        over_weights(jnp.asarray(STACKED_WEIGHTS), batch, jnp.asarray(SCALES)),
        stack(stack(one_by_one(w, batch, s) for s in SCALES) for w in STACKED_WEIGHTS),
    )


@both_paths
def test_scan_is_a_python_loop(loss, x64):
    """Gradient descent takes one batch a step and is mapped over learning rates."""

    def descend(rate):
        def step(w, batch):
            value, gradient = fuse.value_and_grad(loss)(w, batch)
            return w - rate * gradient, value

        return lax.scan(step, jnp.asarray(WEIGHTS), jnp.asarray(STACKED_BATCHES))

    rates = jnp.array([0.1, 0.2])
    actual = jax.jit(jax.vmap(descend))(rates)
    one_step = in_haste(ordinary(loss))
    for lane, rate in enumerate(rates):
        w, values = jnp.asarray(WEIGHTS), []
        for batch in STACKED_BATCHES:
            value, gradient = one_step(w, batch)
            w, values = w - rate * gradient, [*values, value]
        assert_equal_to_rounding(
            jax.tree.map(lambda leaf, lane=lane: leaf[lane], actual), (w, jnp.stack(values))
        )


def derivatives(route, loss):
    """Return a function that differentiates a value and gradient once more, in five ways."""

    def squared_norm(w, batch, scale):
        return jnp.sum(with_scale(route, loss)(w, batch, scale)[1] ** 2)

    def value(w, batch, scale):
        return with_scale(route, loss)(w, batch, scale)[0]

    def of(w, batch, scale):
        arguments = (w, batch, scale)
        return {
            "value": jax.grad(value, (0, 1, 2))(*arguments),
            "norm": jax.grad(squared_norm, (0, 1, 2))(*arguments),
            "forward": jax.jvp(with_scale(route, loss), arguments, (w + 1, batch - 1, scale)),
            "hessian": jax.hessian(value)(*arguments),
            "twice by captured": jax.grad(jax.grad(value, 2), 2)(*arguments),
        }

    return of


@both_paths
def test_second_derivatives_are_right(loss, x64):
    arguments = (jnp.asarray(WEIGHTS), jnp.asarray(EXAMPLES), jnp.asarray(1.5))
    actual, expected = jax.jit(
        lambda *a: (derivatives(fuse.value_and_grad, loss)(*a), derivatives(ordinary, loss)(*a))
    )(*arguments)
    assert_equal_to_rounding(actual, expected)
    # The gradient that is differentiated and the one that is returned are the same.
    assert_equal_to_rounding(
        actual["value"][0], jax.jit(with_scale(fuse.value_and_grad, loss))(*arguments)[1]
    )


@both_paths
def test_differentiated_under_vmap_and_over_it(loss, x64):
    batch, scale = jnp.asarray(EXAMPLES), jnp.asarray(1.5)

    def squared_norm(route):
        return lambda w: jnp.sum(with_scale(route, loss)(w, batch, scale)[1] ** 2)

    one_by_one = in_haste(jax.grad(squared_norm(ordinary)))
    expected = jnp.stack([one_by_one(w) for w in STACKED_WEIGHTS])
    weights = jnp.asarray(STACKED_WEIGHTS)
    under, over = jax.jit(
        lambda w: (
            jax.vmap(jax.grad(squared_norm(fuse.value_and_grad)))(w),
            jax.grad(lambda w: jnp.sum(jax.vmap(squared_norm(fuse.value_and_grad))(w)))(w),
        )
    )(weights)
    assert_equal_to_rounding(under, expected)
    assert_equal_to_rounding(over, expected)


def test_differentiated_again_with_integers_in_the_batch(x64):
    """JAX writes the missing derivatives of integers as numbers of a special type."""
    batch = (jnp.asarray(EXAMPLES), jnp.asarray(LABELS))

    def squared_norm(route):
        def loss(w, example):
            features, label = example
            return score(jnp.tanh(w @ features) * label)

        return lambda w: jnp.sum(route(loss)(w, batch)[1] ** 2)

    w = jnp.asarray(WEIGHTS)
    assert_equal_to_rounding(
        jax.jit(jax.grad(squared_norm(fuse.value_and_grad)))(w),
        in_haste(jax.grad(squared_norm(ordinary)))(w),
    )
