"""Lanes of a block that are computed in turns, without those that repeat a lane."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_same_bits, operations
from losses import assert_equal_to_rounding

import toymodels as tm
from toymodels.engine import fuse, lanes
from toymodels.sweeps.program import compile_program

pytestmark = pytest.mark.as_users_compile

EXAMPLES = 2048


def small(weights, x):
    """The loss of a model that the fused loop computes."""
    return jnp.sum((x - jax.nn.relu(weights.T @ (weights @ x))) ** 2)


def large(weights, x):
    """The loss of a model of the ordinary path, because the loop knows no eigenvalues."""
    return small(weights, x) + jnp.sum(jnp.linalg.eigvalsh(weights @ weights.T))


def cell_of(loss, steps=3):
    def cell(key, *, density):
        key_start, key_data = jax.random.split(key)
        fitted = tm.fit(
            key_data,
            jax.random.normal(key_start, (2, 5)),
            loss,
            tm.SparseUniform(5, density).sample,
            optimizer=optax.adam(1e-2),
            steps=steps,
            batch=EXAMPLES,
        )
        return {"weights": fitted.params, "curve": fitted.history.loss}

    return cell


def compiled(loss, width=12, **options):
    return compile_program(cell_of(loss, **options), {"density": np.ones(1)}, width=width)


DENSITIES = np.linspace(0.1, 0.9, 12, dtype=np.float32)


@pytest.mark.parametrize("loss", [small, large])
@pytest.mark.parametrize("seeds", [np.zeros(12, int), np.arange(12) // 4, np.arange(12)])
def test_a_lane_has_the_same_bits_however_many_lanes_differ(loss, seeds):
    """Twelve lanes are two turns of eight that overlap, or twelve turns of one."""
    ours = compiled(loss)
    full = ours.run_block(seeds, {"density": DENSITIES}).outputs
    for number in (1, 2, 7, 8, 9, 11):
        place = np.minimum(np.arange(12), number - 1)
        few = ours.run_block(seeds[place], {"density": DENSITIES[place]}).outputs
        assert_same_bits(few, {name: output[place] for name, output in full.items()})


@pytest.mark.parametrize("loss", [small, large])
def test_a_lane_has_the_same_bits_at_any_place(loss):
    ours, seeds = compiled(loss), np.arange(12)
    full = ours.run_block(seeds, {"density": DENSITIES}).outputs
    order = np.random.default_rng(0).permutation(12)
    other = ours.run_block(seeds[order], {"density": DENSITIES[order]}).outputs
    assert_same_bits(other, {name: output[order] for name, output in full.items()})


@pytest.mark.parametrize("loss", [small, large])
@pytest.mark.parametrize("of_block", [None, 12])
@pytest.mark.parametrize("shared", [(), (0,), (1,), (2,)])
def test_values_and_gradients_in_turns_are_those_of_jax(loss, of_block, shared):
    """All lanes share nothing, or the number, or the weights, or the examples."""
    keys = jax.random.split(jax.random.key(0), 3)
    arguments = [
        jnp.linspace(1.0, 2.0, 12),
        jax.random.normal(keys[0], (12, 2, 5)),
        jax.random.normal(keys[1], (12, EXAMPLES, 5)),
    ]
    axes = [None if place in shared else 0 for place in range(3)]
    arguments = [
        leaf[0] if axis is None else leaf for leaf, axis in zip(arguments, axes, strict=True)
    ]

    def of_mean(factor, weights, examples):
        scaled = lambda weights, x: factor * loss(weights, x)  # noqa: E731
        return fuse.value_and_grad(scaled)(weights, examples)

    def expected(factor, weights, examples):
        mean = lambda weights: jnp.mean(jax.vmap(lambda x: factor * loss(weights, x))(examples))  # noqa: E731
        return jax.value_and_grad(mean)(weights)

    with lanes.of_block(of_block):
        ours = jax.jit(jax.vmap(of_mean, axes))(*arguments)
    assert_equal_to_rounding(ours, jax.jit(jax.vmap(expected, axes))(*arguments), roundings=2048)


def test_models_that_a_cell_maps_itself_are_all_computed():
    """Equal models next to one another are lanes of no block, so that none is a copy."""

    def mean(weights):
        return fuse.value(small)(weights, jnp.ones((EXAMPLES, 5)))

    with lanes.of_block(64):
        traced = jax.make_jaxpr(jax.vmap(mean))(jnp.ones((12, 2, 5)))
    assert not operations(traced.jaxpr, "while", "scan")  # no turns


DTYPES = ("bool", "int8", "uint16", "int64", "bfloat16", "float16", "float64", "complex64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes_are_compared_bit_by_bit(x64, dtype):
    """A NaN equals itself, and 0 is not -0."""
    rng = np.random.default_rng(0)
    values = np.asarray([0, 1], dtype)
    if jnp.issubdtype(values.dtype, jnp.inexact):
        values = np.asarray([0.0, -0.0, np.nan, 1], dtype)
    for repeated in range(5):
        leaf = np.concatenate([rng.choice(values, (6, 3)), np.zeros((1, 3), dtype)])
        leaf[-2] = values[1]  # the zeros of the last lane differ, even from -0
        leaf = np.concatenate([leaf, np.repeat(leaf[-1:], repeated, 0)])
        assert lanes.number_of_different([jnp.zeros((len(leaf), 2)), jnp.asarray(leaf)]) == 7


def test_a_block_of_one_cell_takes_less_time_than_a_full_one():
    ours = compiled(small, width=64, steps=100)
    densities = np.linspace(0.1, 0.9, 64, dtype=np.float32)

    def seconds(numbers):
        began = time.process_time()
        ours.run_block(np.zeros(64, int), {"density": numbers})
        return time.process_time() - began

    rounds = [(seconds(np.full(64, 0.5, np.float32)), seconds(densities)) for _ in range(5)]
    one, full = np.min(rounds, axis=0)
    assert one < 0.6 * full  # 0.23 was measured
