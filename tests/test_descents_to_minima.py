"""Every minimum is one by finite differences, and free descents come to rest at the optimum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

import toymodels as tm
from toymodels.theory.loss import (
    expected_loss,
    expected_loss_one_active,
    expected_loss_signed,
)
from toymodels.theory.minima import free_optimum, optimum, optimum_one_active
from toymodels.theory.starts import starts

FEW = {"num_starts": 16}


@functools.cache
def all_minima():
    density, importance = np.array([0.3, 0.2, 0.15]), np.array([1.0, 0.5, 2.0])
    unequal = {"density": density, "importance": importance}
    pair = {"density": 0.3, "importance": importance[:2]}
    return [
        (optimum(3, 2, **unequal), functools.partial(expected_loss, **unequal)),
        (
            optimum(2, 1, **pair, loss=expected_loss_signed),
            functools.partial(expected_loss_signed, **pair),
        ),
        (optimum_one_active(6, 2), functools.partial(expected_loss_one_active, importance=1.0)),
    ]


@functools.partial(jax.jit, static_argnames=("loss", "shape"))
def losses_of_rows(rows, loss, shape):
    size = shape[0] * shape[1]
    return jax.vmap(lambda row: loss(row[:size].reshape(shape), row[size:]))(rows)


def values_at(loss, minimum):
    """Return the losses as a function of rows of parameters, and the parameters of the minimum."""

    def values(rows):
        with jax.enable_x64(True):
            return np.asarray(losses_of_rows(rows, loss, minimum.weights.shape))

    return values, np.concatenate([minimum.weights.ravel(), minimum.bias])


def reach(minimum):
    """Return the longest step that wakes no silent output.

    The loss is flat where an output is 0 for all inputs. Such an output can end anywhere below
    0, by rounding just below, and behind lies lower ground.
    """
    overlaps = minimum.weights.T @ minimum.weights
    most = minimum.bias + np.maximum(overlaps, 0).sum(axis=1)
    silent = np.abs(most[most < 0]).min(initial=np.inf)
    return silent / (2 + np.abs(minimum.weights).sum())


@pytest.mark.parametrize("which", range(3))
def test_every_minimum_is_one(which):
    found, loss = all_minima()[which]
    rng = np.random.default_rng(which)
    for minimum in found.minima:
        values, point = values_at(loss, minimum)
        directions = rng.normal(size=(30, point.size))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        np.testing.assert_allclose(values(point + 0 * directions), minimum.loss, rtol=0, atol=1e-14)
        for length in (1e-3, 1e-5):
            step = min(length, reach(minimum))
            least = values(point + step * directions).min()
            # A slope of 1e-6, the most that a descent may end with, and rounding.
            assert least >= minimum.loss - 1e-6 * step - 1e-15


def test_curvatures_are_those_of_second_differences():
    minimum = optimum(5, 2, 0.2, **FEW).minima[0]  # a pentagon, away from all kinks
    values, point = values_at(
        functools.partial(expected_loss, density=0.2, importance=1.0), minimum
    )
    step = 1e-4
    steps = step * np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
    along = np.eye(point.size)
    corners = [
        values(point + (first * along[:, None] + second * along).reshape(-1, point.size))
        for first, second in steps
    ]
    hessian = (corners[0] - corners[1] - corners[2] + corners[3]).reshape(along.shape)
    hessian = hessian / (4 * step**2)
    expected = np.linalg.eigvalsh(hessian)
    # Rounding of 1e-16 over the square of the step, and the fourth derivative times it.
    np.testing.assert_allclose(minimum.curvatures, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("which", range(3))
def test_minima_are_distinct_rising_and_reached(which):
    found, _ = all_minima()[which]
    losses = np.array([minimum.loss for minimum in found.minima])
    assert (np.diff(losses) > 0).all()
    assert found.loss == losses[0]
    frequencies = np.array([minimum.frequency for minimum in found.minima])
    assert (frequencies >= 0).all()
    assert frequencies.sum() <= 1 + 1e-12
    assert frequencies.max() > 0


def test_a_sweep_of_free_optima_agrees_with_one_at_a_time():
    def cell(key, *, density, importance):
        lowest = free_optimum(key, 1, jnp.full(2, density), jnp.stack([1.0, importance]))
        return {"loss": lowest.loss, "slope": lowest.slope}

    axes = {"density": [0.1, 0.5], "importance": [0.2, 1.0]}
    with jax.enable_x64(True):
        results = tm.sweep(cell, axes=axes, num_seeds=1).isel(seed=0)
    assert float(results["slope"].max()) < 1e-6
    for place in results["loss"].stack(cell=("density", "importance")).transpose("cell"):
        importance = np.array([1.0, float(place.importance)])
        alone = optimum(2, 1, float(place.density), importance)
        np.testing.assert_allclose(float(place), alone.loss, rtol=1e-9)


def test_single_precision_is_refused():
    with pytest.raises(ValueError, match="enable_x64"):
        free_optimum(jax.random.key(0), 1, jnp.full(2, 0.5), jnp.ones(2))


@pytest.mark.parametrize("num_features", [2, 3])
def test_free_optima_of_rare_features_come_to_rest_at_the_optimum(num_features):
    # Without a unit of their own, positive biases left slopes above 1e-6 at this density.
    with jax.enable_x64(True):
        numbers = jnp.full(num_features, 1e-5), jnp.ones(num_features)
        keys = jax.random.split(jax.random.key(1), 7)
        found = jax.jit(jax.vmap(lambda key: free_optimum(key, 1, *numbers)))(keys)
        losses, slopes = np.asarray(found.loss), np.asarray(found.slope)
    assert np.median(slopes) < 1e-6  # one may stop just below zero, where the slope jumps
    lowest = optimum(num_features, 1, 1e-5).loss
    np.testing.assert_allclose(losses, lowest, rtol=1e-7)  # free descents may stop a bit earlier


def test_numbers_for_all_features_are_refused_where_one_each_is_needed():
    with jax.enable_x64(True), pytest.raises((ValueError, TypeCheckError), match="density"):
        free_optimum(jax.random.key(0), 1, jnp.asarray(0.5), jnp.ones(2))


def test_structured_starts_represent_what_matters_most():
    density, importance = jnp.full(3, 0.5), jnp.array([0.1, 1.0, 0.5])
    weights, bias = starts(jax.random.key(0), 1, density, importance, 1)
    learned = np.abs(weights[1:, 0]) > 0.5  # the first start is random
    rows = {tuple(row) for row in learned.tolist()}
    assert rows == {(False, False, False), (False, True, False), (False, True, True)}
    np.testing.assert_allclose(np.asarray(bias[1:]), np.where(learned, 0, 0.25))


def test_few_starts_find_the_optimum_of_four_in_one_with_any_key():
    """The optimum is a pair and two weak features, found from 512 starts.

    Most descents end above it.
    """
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    with jax.enable_x64(True):
        find = jax.vmap(lambda key: free_optimum(key, 1, jnp.full(4, 0.05), jnp.ones(4)))
        options = {"xla_backend_optimization_level": 0}
        found = jax.jit(find, compiler_options=options)(keys)
    np.testing.assert_allclose(found.loss, 0.0320987263, rtol=0, atol=1e-10)
    frequency = np.asarray(found.frequency)
    assert ((frequency >= 0) & (frequency <= 1)).all()
    np.testing.assert_allclose(8 * frequency, np.round(8 * frequency))  # of 8 random starts
