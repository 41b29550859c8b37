"""The residual of a polytope by other routes: by hand, over all orders, and by least squares."""

import itertools

import numpy as np
import pytest
from arrangements import antiprism, diplo_simplex, polygon
from hypothesis import given, settings
from hypothesis import strategies as st
from known_polytopes import KNOWN, identify
from scipy import optimize

from toymodels.analysis.polytopes import Shape

properties = settings(max_examples=60)
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("shift", [0.01, 0.1, 0.3, 0.6])
def test_residual_of_a_digon_of_unequal_lengths(shift):
    longer, shorter = 1 + shift, 1 - shift
    (found,) = identify(np.array([[longer, -shorter]]), norm=0.1).components
    # cos between the Gram matrices, by hand
    cosine = (longer + shorter) ** 2 / (2 * (longer**2 + shorter**2))
    np.testing.assert_allclose(found.residual, np.sqrt(1 - cosine**2), rtol=1e-12)


@properties
@given(seeds, st.sampled_from(["triangle", "tetrahedron", "pentagon", "square pyramid", "hexagon"]))
def test_residual_is_the_least_over_all_orders_and_sizes(seed, name):
    ideal = KNOWN[name][0]
    weights = ideal + 0.1 * np.random.default_rng(seed).normal(size=ideal.shape)
    gram, ideal_gram = weights.T @ weights, ideal.T @ ideal
    least = min(
        optimize.nnls(ideal_gram.reshape(-1, 1), gram[np.ix_(order, order)].ravel())[1]
        for order in itertools.permutations(range(len(gram)))
    )
    found = identify(weights, norm=0.0, overlap=(0.01, 0.01))
    if len(found.components) == 1 and found.components[0].dimension == KNOWN[name][2]:
        expected = least / np.linalg.norm(gram)
        np.testing.assert_allclose(found.components[0].residual, expected, rtol=1e-9)


@properties
@given(seeds)
def test_residual_of_an_antiprism_near_its_order(seed):
    generator = np.random.default_rng(seed)
    clean = antiprism(np.sqrt(generator.uniform(0.25, 0.4)))
    weights = clean + 0.03 * generator.normal(size=clean.shape)
    gram = weights.T @ weights
    # The rows of height and those of the squares, each with its own factor.
    terms = np.stack([(clean[:2].T @ clean[:2]).ravel(), np.outer(clean[2], clean[2]).ravel()])
    expected = optimize.nnls(terms.T, gram.ravel())[1] / np.linalg.norm(gram)
    order = generator.permutation(8)
    (found,) = identify(weights[:, order]).components
    np.testing.assert_allclose(found.residual, expected, rtol=1e-9)


@properties
@given(seeds, st.integers(4, 9))
def test_residual_of_a_diplo_simplex_near_its_order(seed, dimensions):
    generator = np.random.default_rng(seed)
    clean = diplo_simplex(dimensions)
    weights = clean + 0.02 * generator.normal(size=clean.shape)
    gram, ideal = weights.T @ weights, clean.T @ clean
    expected = optimize.nnls(ideal.reshape(-1, 1), gram.ravel())[1] / np.linalg.norm(gram)
    order = generator.permutation(gram.shape[0])
    (found,) = identify(weights[:, order], tolerance=1.0).components
    assert found.shape is Shape.DIPLO_SIMPLEX
    np.testing.assert_allclose(found.residual, expected, rtol=1e-9)


@properties
@given(seeds, st.integers(9, 16))
def test_residual_of_a_large_polygon_near_its_order(seed, count):
    generator = np.random.default_rng(seed)
    # A quarter of the gap: neighbours keep their order.
    angles = 2 * np.pi * (np.arange(count) + generator.uniform(-0.25, 0.25, count)) / count
    weights = np.stack([np.cos(angles), np.sin(angles)])
    gram, ideal = weights.T @ weights, polygon(count).T @ polygon(count)
    expected = optimize.nnls(ideal.reshape(-1, 1), gram.ravel())[1] / np.linalg.norm(gram)
    order = generator.permutation(count)
    (found,) = identify(weights[:, order]).components
    np.testing.assert_allclose(found.residual, expected, rtol=1e-9)
