"""Polytopes against other minimisers, theorems on symmetry, and limits known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from arrangements import variance
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodels.analysis import geometry
from toymodels.analysis.polytopes import Shape, identify
from toymodels.theory import expected_loss, k_gons, optimum, polytopes
from toymodels.theory.frames import square_pyramid
from toymodels.theory.polytopes import (
    DEDICATED,
    DIGON,
    PENTAGON,
    SQUARE_ANTIPRISM,
    TETRAHEDRON,
    TRIANGLE,
    Polytope,
    arrangement,
    crossing,
)

ALL = (DEDICATED, DIGON, TRIANGLE, TETRAHEDRON, PENTAGON, SQUARE_ANTIPRISM)
all_of_them = pytest.mark.parametrize(
    "polytope", ALL, ids=("dedicated", "digon", "triangle", "tetrahedron", "pentagon", "antiprism")
)
densities = st.floats(0.02, 1)
feature_dimensionality = jax.jit(geometry.feature_dimensionality)


@functools.cache
def value_and_slopes():
    def loss(parameters, shape, density):
        size = shape[0] * shape[1]
        return expected_loss(parameters[:size].reshape(shape), parameters[size:], density, 1.0)

    compiled = jax.jit(jax.value_and_grad(loss), static_argnums=1)

    def call(parameters, shape, density):
        with jax.enable_x64(True):
            value, slopes = compiled(parameters, shape, density)
            return float(value), np.asarray(slopes)

    return call


def free(found):
    """Return weights and biases in one vector, in which every bias is a parameter of its own."""
    return np.concatenate([found.weights.ravel(), np.full(found.weights.shape[1], found.bias)])


def relaxed(weights, bias, density):
    """Return the end of a descent in all weights and biases, and its loss."""
    parameters = np.concatenate([weights.ravel(), np.full(weights.shape[1], bias)])
    found = scipy.optimize.minimize(
        value_and_slopes(),
        parameters,
        args=(weights.shape, density),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9},
    )
    return found.x[: weights.size].reshape(weights.shape), float(found.fun)


@pytest.mark.parametrize(
    ("polytope", "inverse", "gain"),
    [
        (DIGON, 1.20, 1.0020),
        (DIGON, 1.53, 1.0489),
        (DIGON, 3.0, 1.568),
        (DIGON, 8.0, 1.8628),
        (TRIANGLE, 1.27, 1.0204),
        (TRIANGLE, 1.93, 1.1159),
        (TRIANGLE, 3.0, 1.261),
        (TETRAHEDRON, 1.27, 1.0195),
        (TETRAHEDRON, 1.60, 1.0510),
        (TETRAHEDRON, 3.5, 1.197),
        (PENTAGON, 3.5, 1.582),
        (PENTAGON, 4.5, 1.7401),
        (PENTAGON, 8.0, 2.0020),
        (SQUARE_ANTIPRISM, 3.5, 1.555),
        (SQUARE_ANTIPRISM, 4.94, 1.7921),
        (SQUARE_ANTIPRISM, 8.0, 2.0468),
    ],
)
def test_gains_are_those_of_sampled_losses(polytope, inverse, gain):
    """Other code minimised sampled losses from several starts; its gains are good to 7e-4."""
    assert arrangement(polytope, 1 / inverse).gain == pytest.approx(gain, abs=7e-4)


@pytest.mark.parametrize(
    ("density", "loss", "length", "bias"),
    [  # minimised by SciPy's BFGS on a quadrature of the loss, from 40 starts each
        (0.3, 0.14760745, 0.96244, -0.04267),
        (0.2, 0.07958805, 1.03337, -0.13203),
        (0.05, 0.00890359, 1.13462, -0.24633),
        (0.01, 0.00100148, 1.16311, -0.27508),
    ],
)
def test_the_pentagon_is_that_of_a_quadrature(density, loss, length, bias):
    found = arrangement(PENTAGON, density)
    assert found.loss == pytest.approx(loss, abs=1e-8)
    np.testing.assert_allclose(np.linalg.norm(found.weights, axis=0), length, atol=1e-5)
    assert found.bias == pytest.approx(bias, abs=1e-5)


@pytest.mark.parametrize(
    ("polytope", "inverses"), [(DIGON, (1.5, 2.0, 4.0)), (TRIANGLE, (1.05, 1.3, 1.6))]
)
def test_the_best_polytope_of_its_size_is_the_free_optimum(polytope, inverses):
    dimensions, count = polytope.vertices.shape
    for inverse in inverses:
        best = optimum(count, dimensions, 1 / inverse)
        assert arrangement(polytope, 1 / inverse).loss == pytest.approx(best.loss, rel=1e-9)


@pytest.mark.parametrize(
    "polytope", [DIGON, PENTAGON, SQUARE_ANTIPRISM], ids=("digon", "pentagon", "antiprism")
)
@settings(max_examples=6)
@given(densities)
def test_the_best_is_a_critical_point_among_all(polytope, density):
    """The symmetries leave the gradient only directions of the family (Palais)."""
    found = arrangement(polytope, density)
    value, slopes = value_and_slopes()(free(found), found.weights.shape, density)
    assert found.loss == pytest.approx(value, abs=1e-15)
    np.testing.assert_allclose(slopes, 0, atol=1e-7)  # where rounding of the loss ends descents


@pytest.mark.as_users_compile  # it computes more than it compiles
@all_of_them
@settings(max_examples=10)
@given(densities)
def test_no_polytope_gains_less_than_a_dedicated_dimension(polytope, density):
    """A polytope can do what principal components do, and then clip."""
    found = arrangement(polytope, density)
    count = found.weights.shape[1]
    assert found.gain >= 1 - 1e-12
    assert found.gain <= count / found.weights.shape[0]
    assert found.loss >= -1e-15
    expected = (count * variance(density) - found.loss) / variance(density)
    assert found.gain * found.weights.shape[0] == pytest.approx(expected, rel=1e-9)


def test_a_dedicated_dimension_is_perfect():
    for density in (1e-3, 0.4, 1.0):
        found = arrangement(DEDICATED, density)
        assert found.gain == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(found.weights, 1, rtol=1e-6)


def test_a_digon_of_dense_features_is_a_principal_component():
    found = arrangement(DIGON, 1.0)
    np.testing.assert_allclose(found.weights**2, 0.5, rtol=1e-6)
    assert found.bias == pytest.approx(0.5, rel=1e-6)
    assert found.loss == pytest.approx(1 / 12, rel=1e-9)


def test_sparse_polygons_are_those_of_one_active_feature():
    density = 1e-5
    for polytope, count in ((TRIANGLE, 3), (PENTAGON, 5)):
        found, limit = arrangement(polytope, density), k_gons.polygon(count)
        np.testing.assert_allclose(np.linalg.norm(found.weights, axis=0), limit.length, rtol=1e-4)
        assert found.bias == pytest.approx(limit.bias, abs=1e-4)
        assert found.loss / density == pytest.approx(limit.loss, abs=1e-4)


@pytest.mark.parametrize("inverse", [1.1, 2.0, 6.0])
def test_regular_polytopes_share_their_dimensions(inverse):
    for polytope, share in ((DIGON, 1 / 2), (TRIANGLE, 2 / 3), (TETRAHEDRON, 3 / 4)):
        weights = arrangement(polytope, 1 / inverse).weights
        np.testing.assert_allclose(
            feature_dimensionality(jnp.asarray(weights, jnp.float32)), share, rtol=1e-5
        )


@pytest.mark.as_users_compile  # it computes more than it compiles
def test_a_square_antiprism_is_only_nearly_tight():
    for inverse, share in ((4.1, 0.375), (8.0, 0.373)):
        weights = arrangement(SQUARE_ANTIPRISM, 1 / inverse).weights
        shares = np.asarray(feature_dimensionality(jnp.asarray(weights, jnp.float32)))
        np.testing.assert_allclose(shares, share, atol=5e-4)
        assert shares.sum() < 3


@pytest.mark.as_users_compile  # eight vertices take a second each in a program made in haste
@pytest.mark.parametrize(
    ("first", "second", "inverses", "at", "slack"),
    [
        (TETRAHEDRON, TRIANGLE, (1.1, 1.5), 1.25, 0.005),
        (TRIANGLE, DIGON, (1.4, 1.8), 1.55, 0.01),
        (DIGON, PENTAGON, (4, 5), 4.45, 0.01),
        (DIGON, SQUARE_ANTIPRISM, (4, 5), 4.57, 0.02),
        (PENTAGON, SQUARE_ANTIPRISM, (4.5, 5.5), 4.91, 0.02),
    ],
)
def test_gains_cross_at_the_known_densities(first, second, inverses, at, slack):
    """The crossings follow from the sampled losses of the test above; the first one is ours."""
    density = crossing(first, second, between=(1 / inverses[1], 1 / inverses[0]))
    assert 1 / density == pytest.approx(at, abs=slack)
    gains = [arrangement(polytope, density).gain for polytope in (first, second)]
    assert gains[0] == pytest.approx(gains[1], abs=1e-8)
    for nearby, sign in ((1.01 * density, 1), (0.99 * density, -1)):
        lead = arrangement(first, nearby).gain - arrangement(second, nearby).gain
        assert sign * lead > 0


def test_losses_of_a_direct_sum_add_up():
    """A pentagon, a digon and an ignored feature share three dimensions, in any basis."""
    density = 0.22
    blocks = [arrangement(polytope, density) for polytope in (PENTAGON, DIGON)]
    weights = scipy.linalg.block_diag(*(block.weights for block in blocks), np.zeros((0, 1)))
    bias = np.array([blocks[0].bias] * 5 + [blocks[1].bias] * 2 + [density / 2])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    expected = sum(block.loss for block in blocks) + variance(density)
    np.testing.assert_allclose(expected_loss(turn @ weights, bias, density, 1.0), expected)
    gains = 2 * blocks[0].gain + blocks[1].gain
    np.testing.assert_allclose(expected, (8 - gains) * variance(density))


def test_seven_features_in_three_dimensions_fall_apart():
    """The features become a pentagon and a digon.

    The pentagonal bipyramid is no polytope of its own.
    """
    density = 1 / 4.7
    starts = np.random.default_rng(0).normal(size=(5, 3, 7))
    starts /= np.linalg.norm(starts, axis=1, keepdims=True)
    ends = [relaxed(start, -0.1, density) for start in starts]  # another minimum: three digons
    weights, loss = min(ends, key=lambda end: end[1])
    parts = arrangement(PENTAGON, density).loss + arrangement(DIGON, density).loss
    assert loss == pytest.approx(parts, rel=1e-8)
    shares = np.sort(feature_dimensionality(jnp.asarray(weights, jnp.float32)))
    np.testing.assert_allclose(shares, [0.4] * 5 + [0.5] * 2, atol=1e-3)


def test_a_square_pyramid_gains_more_than_direct_sums():
    density = 2 / 3
    pyramid, loss = relaxed(square_pyramid(), 0.3, density)
    parts = [arrangement(polytope, density).loss for polytope in (TRIANGLE, DIGON, TETRAHEDRON)]
    assert loss < min(parts[0] + parts[1], parts[2] + variance(density))
    # Relaxation keeps the symmetries: the apex has a cosine of its own, and the base two.
    directions = pyramid / np.linalg.norm(pyramid, axis=0)
    cosines = np.sort((directions.T @ directions)[np.triu_indices(5, 1)])
    np.testing.assert_allclose(cosines, np.repeat(cosines[[0, 2, 6]], [2, 4, 4]), atol=1e-6)
    (found,) = identify(np.roll(pyramid, 2, axis=1)).components
    assert found.shape is Shape.SQUARE_PYRAMID


@pytest.mark.as_users_compile  # it computes more than it compiles
def test_a_cube_turns_into_a_square_antiprism():
    density = 1 / 6
    corners = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1) / 3**0.5
    disturbed = corners + 0.02 * np.random.default_rng(0).normal(size=corners.shape)
    _, loss = relaxed(disturbed, -0.1, density)
    assert loss == pytest.approx(arrangement(SQUARE_ANTIPRISM, density).loss, rel=1e-8)


@pytest.mark.as_users_compile  # it computes more than it compiles
@pytest.mark.parametrize(
    ("polytope", "inverse", "minimum"),
    [
        (DIGON, 1.39, False),
        (DIGON, 1.42, True),
        (TRIANGLE, 1.02, True),
        (TRIANGLE, 3.0, True),
        (TETRAHEDRON, 1.02, True),
        (TETRAHEDRON, 3.0, True),
        (PENTAGON, 1.6, True),
        (PENTAGON, 2.0, False),
        (PENTAGON, 3.29, False),
        (PENTAGON, 3.33, True),
        (SQUARE_ANTIPRISM, 3.0, False),
        (SQUARE_ANTIPRISM, 3.6, True),
    ],
)
def test_polytopes_are_minima_among_all_at_the_known_densities(polytope, inverse, minimum):
    found, density = arrangement(polytope, 1 / inverse), 1 / inverse
    point, shape = free(found), found.weights.shape
    step = 1e-5 * np.eye(point.size)

    def slopes(parameters):
        return value_and_slopes()(parameters, shape, density)[1]

    hessian = [(slopes(point + along) - slopes(point - along)) / 2e-5 for along in step]
    curvatures = np.linalg.eigvalsh((np.array(hessian) + np.transpose(hessian)) / 2)
    # Rounding of the slopes over the step; rotations have curvature zero.
    assert (curvatures[0] > -2e-8) == minimum


@pytest.mark.as_users_compile  # it computes more than it compiles
def test_the_one_that_wins_beats_all_others_at_its_densities():
    """The order of the winners is that of the paper's figure, from dense to sparse."""
    order = [TETRAHEDRON, TRIANGLE, DIGON, PENTAGON, SQUARE_ANTIPRISM]
    for inverse, winner in zip((1.1, 1.4, 3.0, 4.7, 6.0), order, strict=True):
        gains = [arrangement(polytope, 1 / inverse).gain for polytope in ALL]
        assert ALL[int(np.argmax(gains))] is winner


def test_five_features_in_three_dimensions_gain_more_than_any_polytope_near_a_crossing():
    density = 1 / 1.53
    weights = np.random.default_rng(0).normal(size=(3, 5))
    _, loss = relaxed(weights / np.linalg.norm(weights, axis=0), 0.2, density)
    mixed = (5 * variance(density) - loss) / (3 * variance(density))
    assert mixed > max(arrangement(polytope, density).gain for polytope in ALL) + 5e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arrangement(DIGON, 0.0), "density is 0"),
        (lambda: arrangement(DIGON, 1.5), "density is 1.5"),
        (lambda: arrangement(Polytope(PENTAGON.vertices, (0,)), 0.5), "stretch is"),
        (lambda: arrangement(Polytope(PENTAGON.vertices, (0, 2)), 0.5), "stretch is"),
        (lambda: crossing(DIGON, TRIANGLE, between=(0.2, 0.3)), "the same polytope wins"),
        (lambda: arrangement(polytopes.Polytope(np.eye(13), (0,) * 13), 0.5), "13 features"),
    ],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
