"""Programs beyond a limit are handed over, wrong ones are refused, and random ones are right."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from haste import in_haste
from hypothesis import given, settings
from hypothesis import strategies as st
from losses import (
    BATCH,
    EXAMPLES,
    WEIGHTS,
    assert_equal_to_rounding,
    cast,
    is_the_loop,
    ordinary,
    score,
)

from toymodels.engine import elements, fuse, loop

pytestmark = pytest.mark.as_users_compile


@pytest.mark.parametrize("fused", [True, False])
def test_crossover_of_parameters(fused):
    """The loss is one more sum.

    So the two cases are the most parameters that are allowed, and one too many.
    """
    size = loop.MAX_SUMS - fused
    params = jnp.linspace(-1, 1, size, dtype=jnp.float32)
    batch = jax.random.normal(jax.random.key(0), (BATCH, size))
    path = fuse.explain(two_sines, params, batch)
    assert path.fused is fused
    assert fused or f"{size + 1} sums" in path.reason
    traced = jax.jit(fuse.value_and_grad(two_sines)).trace(params, batch)
    assert is_the_loop(traced.jaxpr) is fused
    expected = in_haste(ordinary(two_sines))(params, batch)
    assert_equal_to_rounding(traced.lower().compile()(params, batch), expected)


def two_sines(params, example):
    return jnp.sum(jnp.sin(params * example) + jnp.sin(params))


def test_a_loop_over_known_numbers_runs_while_tracing_and_the_loss_stays_fused():
    def loss(params, x):
        total, _ = jax.lax.scan(
            lambda so_far, each: (so_far + each, None), 0.0, np.float32([1, 2, 3])
        )
        return total * params * x

    assert fuse.explain(loss, jnp.float32(2), jnp.ones(4)).fused
    value, slope = jax.jit(fuse.value_and_grad(loss))(jnp.float32(2), jnp.arange(4.0))
    np.testing.assert_allclose([value, slope], [6 * 2 * 1.5, 6 * 1.5])


@pytest.mark.parametrize("batch", [10_007, 65_536])
def test_large_batches_do_not_drift(batch):
    """The tolerance is 1024 roundings of half a bit.

    A running sum of 65,536 numbers is off by 6e-4.
    """
    gradient = jax.jit(fuse.value_and_grad(lambda p, x: p * x))
    value, slope = gradient(jnp.float32(0.1), jnp.ones(batch))
    np.testing.assert_allclose([value, slope], [0.1, 1], rtol=1024 * 2.0**-24)


def test_blocks_of_a_batch_have_the_mean_of_all(monkeypatch):
    params, batch = cast((WEIGHTS, np.tile(EXAMPLES, (3, 1))), jnp.float32)

    def loss(w, x):
        return score(jnp.tanh(w @ x))

    monkeypatch.setattr(loop, "LARGEST", 4)
    monkeypatch.setattr(loop, "BLOCK", 4)
    for size in (4, 12, 15):
        actual = in_haste(fuse.value_and_grad(loss))(params, batch[:size])
        assert_equal_to_rounding(actual, in_haste(ordinary(loss))(params, batch[:size]))


@pytest.mark.parametrize("limit", ["MAX_OPERATIONS", "MAX_ELEMENTS"])
def test_programs_beyond_a_limit_are_not_fused(limit, monkeypatch):
    params, batch = cast((WEIGHTS, EXAMPLES), jnp.float32)

    def loss(w, x):
        return score(w @ x)

    expected = in_haste(ordinary(loss))(params, batch)
    for value, fused in ((1000, True), (5, False)):
        monkeypatch.setattr(elements, limit, value)
        path = fuse.explain(loss, params, batch)
        assert path.fused is fused
        assert fused or f"{value} {limit.removeprefix('MAX_').lower()}" in path.reason
        actual = in_haste(fuse.value_and_grad(loss))(params, batch)
        assert_equal_to_rounding(actual, expected)


# --- errors


@pytest.mark.parametrize(
    ("loss", "batch", "message"),
    [
        pytest.param(lambda w, x: w @ x, EXAMPLES, r"\(2,\).*one number", id="vector"),
        pytest.param(
            lambda w, x: score(w @ x[0]),
            (EXAMPLES, EXAMPLES[:2]),
            r"leading batch axis.*\(2, 3\)",
            id="different batches",
        ),
        pytest.param(
            lambda w, x: score(w @ x), EXAMPLES[:0], r"1 or more.*\(0, 3\)", id="empty batch"
        ),
        pytest.param(lambda w, _: score(w), (), "leading batch axis", id="nothing"),
        pytest.param(lambda w, x: score(w) * x, 2.0, r"leading batch axis.*\(\)", id="no axis"),
    ],
)
def test_errors_name_the_value(loss, batch, message):
    with pytest.raises(ValueError, match=message):
        fuse.value_and_grad(loss)(WEIGHTS, batch)
    with pytest.raises(ValueError, match=message):
        fuse.explain(loss, WEIGHTS, batch)


# --- little programs made at random

OPERATIONS = {
    "sin": jnp.sin,
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "square": jnp.square,
    "where": lambda m: jnp.where(m > 0.1, m, 2 * m),
    "flip": lambda m: jnp.flip(m, -1),
    "roll": lambda m: jnp.roll(m, 1),
    "transpose": jnp.transpose,
    "ravel": jnp.ravel,
    "every other": lambda m: m[..., ::2],
    "gather": lambda m: jnp.take(m, np.array([1, 0, 1]), axis=-1, mode="wrap"),
    "pad": lambda m: jnp.pad(m, 1),
    "add at": lambda m: m.at[..., 0].add(m[..., -1]),
    "twice": lambda m: jnp.concatenate([m, 3 * m], -1),
    "outer sum": lambda m: m[..., None] + m[..., :1, None] if m.ndim < 3 else m,
    "sum": lambda m: jnp.sum(m, -1) if m.ndim > 1 else m,
    "running sum": lambda m: jnp.cumsum(m, -1),
    "centred": lambda m: m - jnp.mean(m),
    "largest": lambda m: m - jnp.max(m),
    "softmax": lambda m: nn.softmax(m, -1),
    "gram": lambda m: jnp.tanh(m @ m.T) if m.ndim == 2 else m,
    "contract": lambda m: jnp.tanh(jnp.einsum("...i,...i->...i", m, jnp.flip(m))),
}


@settings(max_examples=12)
@given(st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=3, max_size=6))
def test_random_programs_are_fused_and_right(names):
    def loss(w, x):
        m = w * x[None]
        for name in names:
            m = OPERATIONS[name](m)
        return score(jnp.tanh(m))

    with jax.enable_x64(True):
        params, batch = jnp.asarray(WEIGHTS), jnp.asarray(EXAMPLES)
        assert fuse.explain(loss, params, batch).fused
        both = in_haste(lambda *a: (fuse.value_and_grad(loss)(*a), ordinary(loss)(*a)))
        actual, expected = both(params, batch)
        # A sum over up to a hundred elements, squared up to six times over.
        assert_equal_to_rounding(actual, expected, roundings=2**14)
