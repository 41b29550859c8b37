"""Codes of a given dictionary against scikit-learn, optimality conditions and exact recovery."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso, orthogonal_mp

from toymodels import errors
from toymodels.analysis import sparse_coding
from toymodels.theory import dictionaries

properties = settings(max_examples=8)
seeds = st.integers(0, 2**32 - 1)


def directions(seed, *shape):
    columns = normal(seed, *shape)
    return columns / jnp.linalg.norm(columns, axis=0)[None, :]


@functools.partial(jax.jit, static_argnames="iterations")
@functools.partial(jax.vmap, in_axes=(None, 0, None, None))
def lasso(dictionary, row, penalty, iterations):
    return sparse_coding.lasso_codes(dictionary, row, penalty, iterations=iterations)


@functools.partial(jax.jit, static_argnames="active")
@functools.partial(jax.vmap, in_axes=(None, 0, None))
def pursuit(dictionary, row, active):
    return sparse_coding.pursuit_codes(dictionary, row, active=active)


def objective(dictionary, rows, codes, penalty):
    residual = np.asarray(rows - codes @ dictionary.T, np.float64)
    return (residual**2).sum(axis=1) + penalty * np.asarray(codes, np.float64).sum(axis=1)


@properties
@given(seeds, st.floats(0.05, 1))
def test_the_lasso_of_an_overcomplete_dictionary_is_that_of_scikit_learn(seed, penalty):
    dictionary, rows = directions(seed, 4, 8), normal(seed + 1, 10, 4)
    codes = lasso(dictionary, rows, penalty, 3000)
    assert (codes >= 0).all()
    # Scikit-learn minimises half the mean over dimensions.
    reference = Lasso(penalty / 8, positive=True, fit_intercept=False, tol=1e-9, max_iter=100_000)
    columns = np.asarray(dictionary, np.float64)
    expected = np.stack([reference.fit(columns, row).coef_ for row in np.asarray(rows, float)])
    losses = [objective(dictionary, rows, each, penalty) for each in (codes, expected)]
    np.testing.assert_allclose(*losses, rtol=1e-5, atol=1e-6)
    # The conditions of an optimum: no slope along codes above 0, and upwards along the others.
    slope = 2 * (codes @ dictionary.T - rows) @ dictionary + penalty
    np.testing.assert_allclose(jnp.where(codes > 0, slope, jnp.minimum(slope, 0)), 0, atol=2e-4)


@properties
@given(seeds, st.floats(0, 1))
def test_the_lasso_of_independent_columns_is_exact(seed, penalty):
    dictionary, rows = directions(seed, 8, 4), normal(seed + 1, 10, 8)
    codes = lasso(dictionary, rows, penalty, 500)
    expected = dictionaries.coding_loss(np.asarray(dictionary), np.asarray(rows), penalty)
    np.testing.assert_allclose(objective(dictionary, rows, codes, penalty), expected, rtol=1e-5)


def test_orthonormal_columns_shrink_by_half_the_penalty():
    rows = normal(0, 10, 4)
    codes = lasso(jnp.eye(4), rows, 0.5, 2)
    np.testing.assert_allclose(codes, jnp.maximum(rows - 0.25, 0), atol=1e-6)


def test_momentum_finds_codes_of_almost_parallel_columns():
    # The condition number is 199: without momentum exp(-300 / 199) of the error would be left.
    dictionary = jnp.array([[1.0, 0.99], [0.0, (1 - 0.99**2) ** 0.5]])
    codes = lasso(dictionary, (dictionary @ jnp.array([1.0, 2.0]))[None, :], 0.0, 300)
    np.testing.assert_allclose(codes, [[1, 2]], rtol=1e-3)


@properties
@given(seeds)
def test_pursuit_is_that_of_scikit_learn(seed):
    dictionary, rows = directions(seed, 6, 12), normal(seed + 1, 10, 6)
    codes = pursuit(dictionary, rows, 3)
    expected = orthogonal_mp(*map(np.asarray, (dictionary, rows.T)), n_nonzero_coefs=3).T
    np.testing.assert_allclose(codes, expected, atol=1e-4)
    assert (jnp.sum(codes != 0, axis=1) == 3).all()


@properties
@given(seeds)
def test_incoherent_columns_are_found_whatever_their_values(seed):
    # The diagonals of the cross-polytope and of the cube in 16 dimensions: coherence 1/4 < 1/3.
    square = np.array([[1, 1], [1, -1]])
    hadamard = functools.reduce(np.kron, [square] * 4) / 4
    lengths = np.random.default_rng(seed).uniform(0.5, 2, 32)
    dictionary = jnp.asarray(np.hstack([np.eye(16), hadamard]) * lengths, jnp.float32)
    rng = np.random.default_rng(seed + 1)
    chosen = np.argsort(rng.random((10, 32)), axis=1) < 2
    true = jnp.asarray(chosen * rng.uniform(0.1, 3, (10, 32)) * rng.choice([-1, 1], (10, 32)))
    codes = pursuit(dictionary, true.astype(jnp.float32) @ dictionary.T, 2)
    np.testing.assert_allclose(codes, true, atol=1e-5)


def test_what_leaves_no_residual_takes_no_more_columns():
    dictionary = directions(0, 6, 12)
    rows = jnp.stack([2 * dictionary[:, 3], jnp.zeros(6)])
    codes = pursuit(dictionary, rows, 3)
    np.testing.assert_array_equal(jnp.sum(codes != 0, axis=1), [1, 0])
    np.testing.assert_allclose(codes[0, 3], 2, rtol=1e-6)


def test_columns_of_length_zero_have_the_code_zero():
    dictionary = directions(0, 6, 12).at[:, 5].set(0)
    rows = normal(1, 10, 6)
    for codes in (lasso(dictionary, rows, 0.1, 500), pursuit(dictionary, rows, 3)):
        np.testing.assert_array_equal(codes[:, 5], 0)
        assert jnp.isfinite(codes).all()
    nothing = 0 * dictionary
    np.testing.assert_array_equal(lasso(nothing, rows, 0.0, 500), 0)
    np.testing.assert_array_equal(pursuit(nothing, rows, 3), 0)


def test_what_cannot_be_coded_is_refused():
    with pytest.raises(errors.InputError, match="active is 4 for 12 latents in 3 dimensions"):
        sparse_coding.pursuit_codes(jnp.ones((3, 12)), jnp.ones(3), active=4)
    with pytest.raises(errors.InputError, match="penalty is -1"):
        sparse_coding.lasso_codes(jnp.ones((3, 2)), jnp.ones(3), -1.0, iterations=3)
