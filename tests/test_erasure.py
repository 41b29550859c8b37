"""Erasure of a concept: nothing of it is left, and no eraser costs less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toymodels.analysis.erasure import Eraser, least_squares_eraser

properties = settings(max_examples=15)
seeds = st.integers(0, 2**32 - 1)


def samples(seed, *, rank=6):
    """Correlated vectors in six dimensions, of some rank, and three classes that shift them."""
    random = np.random.default_rng(seed)
    classes = np.eye(3)[random.integers(0, 3, size=300)]
    hidden = random.normal(size=(300, rank)) + 2 * classes @ random.normal(size=(3, rank))
    mixing = np.linalg.qr(random.normal(size=(6, 6)))[0][:rank] * np.array([3, 2, 1, 1, 0.5, 0.3])
    return hidden @ mixing + random.normal(size=6), classes


def moments(hidden, concepts):
    centred = hidden - hidden.mean(axis=0)
    return hidden.mean(axis=0), centred.T @ centred / 300, centred.T @ concepts / 300


def fit(hidden, concepts, dtype):
    eraser = least_squares_eraser(*(jnp.asarray(m, dtype) for m in moments(hidden, concepts)))
    return Eraser(*(np.asarray(part, np.float64) for part in eraser))


def apply(eraser, hidden):
    return hidden @ eraser.matrix.T + eraser.offset


def change(eraser, hidden):
    return np.mean(np.sum((apply(eraser, hidden) - hidden) ** 2, axis=1))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("rank", [4, 6])
def test_nothing_is_left_and_the_mean_stays(x64, rank, dtype, tolerance):
    for seed in range(5):
        hidden, concepts = samples(seed, rank=rank)
        erased = apply(fit(hidden, concepts, dtype), hidden)
        mean, _, left = moments(erased, concepts)
        scale = np.max(np.abs(moments(hidden, concepts)[2]))
        np.testing.assert_allclose(left / scale, 0, atol=tolerance)
        np.testing.assert_allclose(mean, hidden.mean(axis=0), atol=10 * tolerance)
        # The best linear probe is then a constant.
        probe = np.linalg.lstsq(erased - mean, concepts - concepts.mean(axis=0), rcond=1e-4)[0]
        np.testing.assert_allclose(probe, 0, atol=100 * tolerance)


@properties
@given(seeds)
def test_the_eraser_is_the_constrained_minimum(x64_seed):
    with jax.enable_x64(True):
        hidden, concepts = samples(x64_seed)
        eraser = fit(hidden, concepts, np.float64)
    mean, covariance, cross = moments(hidden, concepts)
    # Stationary under A cross = 0: the gradient 2 (A - 1) covariance is normal to the constraint.
    free = np.eye(6) - cross @ np.linalg.pinv(cross, rcond=1e-10)
    np.testing.assert_allclose((eraser.matrix - np.eye(6)) @ covariance @ free, 0, atol=1e-10)
    random = np.random.default_rng(x64_seed)
    for scale in (0, 0.01, 1):
        matrix = (eraser.matrix + scale * random.normal(size=(6, 6))) @ free
        other = Eraser(matrix, mean - matrix @ mean)
        np.testing.assert_allclose(moments(apply(other, hidden), concepts)[2], 0, atol=1e-10)
        assert change(other, hidden) >= change(eraser, hidden) - 1e-10
    orthogonal = Eraser(free, mean - free @ mean)
    assert change(orthogonal, hidden) > change(eraser, hidden) + 1e-6
    shifted = Eraser(eraser.matrix, eraser.offset + 0.1)
    np.testing.assert_allclose(change(shifted, hidden), change(eraser, hidden) + 0.06, rtol=1e-9)


@properties
@given(seeds)
def test_the_eraser_projects_the_concept_away(seed):
    with jax.enable_x64(True):
        matrix = fit(*samples(seed), np.float64).matrix
        np.testing.assert_allclose(matrix @ matrix, matrix, atol=1e-10)
        np.testing.assert_allclose(np.trace(matrix), 6 - 2)  # three one-hot classes: rank 2


@properties
@given(seeds)
@example(117)  # here whitening magnifies the rounding of a vanishing direction
def test_the_eraser_follows_a_change_of_basis(seed):
    hidden, concepts = samples(seed)
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.normal(size=(6, 6)))[0]
    recoded = concepts @ random.normal(size=(3, 3))  # the same concept in other numbers
    with jax.enable_x64(True):
        erased = apply(fit(hidden, concepts, np.float64), hidden)
        rotated = apply(fit(hidden @ basis, recoded, np.float64), hidden @ basis)
    np.testing.assert_allclose(rotated, erased @ basis, atol=1e-8)


def test_white_vectors_lose_the_direction_of_the_concept():
    direction = jnp.array([0.6, 0.8, 0.0])
    eraser = least_squares_eraser(jnp.ones(3), 4 * jnp.eye(3), direction[:, None])
    np.testing.assert_allclose(
        eraser.matrix, jnp.eye(3) - jnp.outer(direction, direction), atol=1e-6
    )
    np.testing.assert_allclose(eraser.offset, 1.4 * direction, atol=1e-6)


def test_a_concept_that_is_not_there_costs_nothing():
    eraser = least_squares_eraser(
        jnp.ones(3), jnp.diag(jnp.array([2.0, 1.0, 0.0])), jnp.zeros((3, 2))
    )
    np.testing.assert_array_equal(eraser.matrix, np.eye(3))
    np.testing.assert_array_equal(eraser.offset, np.zeros(3))


def test_erasers_are_mapped_by_vmap():
    hidden, concepts = samples(0)
    many = [jnp.asarray(np.stack([m, 2 * m]), jnp.float32) for m in moments(hidden, concepts)]
    erasers = jax.jit(jax.vmap(least_squares_eraser))(*many)
    with jax.enable_x64(True):
        alone = fit(hidden, concepts, np.float64)
    np.testing.assert_allclose(erasers.matrix[0], alone.matrix, atol=1e-4)
    np.testing.assert_allclose(erasers.matrix[1], alone.matrix, atol=1e-4)
