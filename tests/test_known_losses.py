"""The exact losses of arrangements that are known: pairs, polygons, and what overtakes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from toymodels.theory import phases
from toymodels.theory.loss import expected_loss, expected_loss_one_active


def polygon(vertices, length, bias, extra_biases=()):
    angles = 2 * np.pi * np.arange(vertices) / vertices
    weights = length * np.stack([np.cos(angles), np.sin(angles)])
    unused = np.zeros((2, len(extra_biases)))
    return np.hstack([weights, unused]), np.array([bias] * vertices + list(extra_biases))


VALUE_AND_GRADIENT = jax.jit(jax.value_and_grad(expected_loss, (0, 1)))


@pytest.mark.parametrize(("density", "importance"), [(0.05, 0.2), (0.4, 1.0), (1.0, 3.0)])
def test_the_simple_solutions_of_the_phase_diagram(density, importance):
    solutions = [
        ([1.0, 0.0], [0.0, density / 2]),
        ([0.0, 1.0], [density / 2, 0.0]),
        ([1.0, -1.0], [0.0, 0.0]),
    ]
    actual = [
        expected_loss(np.array([weights]), np.array(bias), density, np.array([1, importance]))
        for weights, bias in solutions
    ]
    np.testing.assert_allclose(actual, phases.losses(density, importance), rtol=1e-6)  # float32


@pytest.mark.parametrize(
    ("sparsity", "least", "place"),
    [
        (0.0, 0.08333333, (0.7071, 0.5)),
        (0.3, 0.10810636, (0.7591, 0.3286)),
        (0.5, 0.07628245, (0.969, 0.0977)),
        (0.7, 0.02931036, (1.0104, 0.0178)),
        (0.9, 0.00331948, (1.0058, 0.0012)),
        (0.99, 0.00003332, (1.0006, 0.0)),
    ],
)
def test_the_best_antipodal_pairs_have_the_known_losses(sparsity, least, place):
    def loss(params):
        weights, bias = params[0] * np.array([[1.0, -1.0]]), np.full(2, params[1])
        return float(expected_loss(weights, bias, 1 - sparsity, 1.0))

    best = optimize.minimize(loss, place, method="Nelder-Mead", options={"xatol": 1e-7})
    np.testing.assert_allclose(best.fun, least, rtol=0, atol=6e-9)  # eight digits
    np.testing.assert_allclose(best.x, place, rtol=0, atol=6e-5)


@pytest.mark.parametrize(
    ("density", "least", "length", "bias"),
    [
        (0.3, 0.14760745, 0.96244, -0.04267),
        (0.2, 0.07958805, 1.03337, -0.13203),
        (0.1, 0.02630513, 1.10045, -0.20993),
        (0.05, 0.00890359, 1.13462, -0.24633),
        (0.01, 0.00100148, 1.16311, -0.27508),
    ],
)
def test_the_best_pentagons_have_the_known_losses(density, least, length, bias):
    actual = expected_loss(*polygon(5, length, bias), density, 1.0)
    np.testing.assert_allclose(actual, least, rtol=0, atol=6e-9)  # flat: five digits suffice


def best_polygon(vertices, density, extra):
    def loss(params):
        return float(expected_loss(*polygon(vertices, *params, extra), density, 1.0))

    return optimize.minimize(loss, (1.0, 0.0), method="Nelder-Mead", options={"xatol": 1e-6}).fun


def test_a_square_and_a_dropped_feature_overtake_the_pentagon():
    np.testing.assert_allclose(best_polygon(4, 0.3, [0.15]), 0.13612071, rtol=0, atol=6e-9)
    crossing = 0.224875
    pentagon = best_polygon(5, crossing, [])
    square = best_polygon(4, crossing, [crossing / 2])
    np.testing.assert_allclose(square, pentagon, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("density", "importance"), [(0.5, 0.53574), (0.2, 0.11382), (0.05, 0.02274)]
)
def test_importance_from_which_a_pair_beats_one(density, importance, x64):
    def loss(params):
        numbers = (params[None, :2], params[2:], density, np.array([1.0, importance]))
        value, slopes = VALUE_AND_GRADIENT(*map(jnp.asarray, numbers))
        return float(value), np.concatenate([slope.ravel() for slope in slopes])

    start = [1.0, -0.9, 0.02, 0.02]
    pair = optimize.minimize(loss, start, jac=True)
    assert pair.x[1] < -0.5
    alone = importance * (density / 3 - density**2 / 4)
    np.testing.assert_allclose(pair.fun, alone, rtol=3e-4)  # digits of the importance


@pytest.mark.parametrize(
    ("vertices", "length", "bias", "energy"),
    [
        (4, 1.0, 0.0, 0.0),
        (5, 1.170460, -0.282297, 0.07912814),
        (6, 1.320526, -0.618135, 0.28915426),
        (7, 1.448394, -0.966906, 0.58289836),
        (8, 1.550450, -1.291193, 0.92436748),
        (10, (1 + 5**0.5) / 2, -(1 + 5**0.5) / 2, 5 / 3),
    ],
)
def test_polygons_have_the_known_energies(vertices, length, bias, energy):
    actual = vertices * expected_loss_one_active(*polygon(vertices, length, bias), 1.0)
    np.testing.assert_allclose(actual, energy, rtol=0, atol=6e-9)


@pytest.mark.parametrize(
    ("vertices", "length", "bias", "extra", "potential"),
    [
        (6, 1.320526, -0.618135, [], 0.0481924),
        (5, 1.170460, -0.282297, [1 / 12], 0.0617991),
        (5, 1.170460, -0.282297, [-1.0], 0.0687436),
        (4, 1.0, 0.0, [1 / 12] * 2, 0.0972222),
        (4, 1.0, 0.0, [1 / 12, -1.0], 0.1041667),
        (4, 1.0, 0.0, [-1.0] * 2, 0.1111111),
        (4, 1.0, 0.0, [0.0] * 2, 0.1111111),
    ],
)
def test_the_minima_of_six_features_have_the_published_potential(
    vertices, length, bias, extra, potential
):
    actual = expected_loss_one_active(*polygon(vertices, length, bias, extra), 1.0)
    np.testing.assert_allclose(actual, potential, rtol=0, atol=6e-8)


def test_the_hexagon_has_the_known_curvatures(x64):
    weights, bias = polygon(6, 1.320526, -0.618135)

    @jax.jit
    def potential(params):
        return expected_loss_one_active(params[:12].reshape(2, 6), params[12:], 1.0)

    hexagon = jnp.concatenate([weights.ravel(), bias])
    np.testing.assert_allclose(jax.grad(potential)(hexagon), 0, atol=1e-6)
    actual = np.linalg.eigvalsh(jax.jit(jax.hessian(potential))(hexagon))
    twice = np.repeat([0.0389, 0.1053, 0.1149, 0.3935, 1.0806, 1.2207], 2)
    expected = np.sort([0, 0.0206, 0.1353, 0.7038, 0.8427, 1.2514, *twice])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=6e-5)
