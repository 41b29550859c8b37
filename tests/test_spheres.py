"""Energies of points on spheres against slopes, the package's own loss, and known polyhedra."""

import itertools

import numpy as np
import pytest
from scipy import optimize

import toymodels as tm
from toymodels.theory import frames, polyhedra, spheres


def random_directions(seed, hidden, count):
    directions = np.random.default_rng(seed).normal(size=(hidden, count))
    return directions / np.linalg.norm(directions, axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_one_active_is_the_loss_of_the_package_with_its_slopes(seed):
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(2, 5)), rng.normal(scale=0.4, size=5)
    weights[:, 0] = 0  # couplings of 0, too
    gram = weights.T @ weights
    loss, slopes, bias_slopes = spheres.one_active(gram, bias)
    expected = 5 * tm.theory.expected_loss_one_active(weights, bias)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    moved = optimize.approx_fprime(bias, lambda bias: spheres.one_active(gram, bias)[0], 1e-7)
    np.testing.assert_allclose(bias_slopes, moved, atol=1e-5)
    change = rng.normal(size=(5, 5))
    change[0] = change[:, 0] = 0  # where a coupling is 0 the slope may jump
    up, down = (spheres.one_active(gram + step * change, bias)[0] for step in (1e-6, -1e-6))
    np.testing.assert_allclose((slopes * change).sum(), (up - down) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("potential", [spheres.rectified, spheres.electric])
def test_slopes_of_the_potentials_are_derivatives(potential):
    directions = random_directions(0, 3, 6)
    change = np.random.default_rng(1).normal(size=(6, 6)) * (1 - np.eye(6))
    gram = directions.T @ directions
    up, down = (potential(gram + step * change)[0] for step in (1e-6, -1e-6))
    slopes = potential(gram)[1]
    np.testing.assert_allclose((slopes * change).sum(), (up - down) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_without_bias_at_length_one_the_loss_is_the_rectified_energy(seed):
    """Each feature returns itself, so all of the loss is overlap."""
    directions = random_directions(seed, 3, 7)
    expected = 7 * tm.theory.expected_loss_one_active(directions, np.zeros(7))
    energy = spheres.rectified(directions.T @ directions)[0]
    np.testing.assert_allclose(energy, expected, rtol=1e-13)


def test_descent_finds_four_charges_in_a_tetrahedron():
    energy, directions = spheres.on_sphere(spheres.electric, random_directions(0, 3, 4))
    np.testing.assert_allclose(energy, 6 / np.sqrt(8 / 3), rtol=1e-12)
    overlaps = (directions.T @ directions)[np.triu_indices(4, 1)]
    np.testing.assert_allclose(overlaps, -1 / 3, atol=1e-6)


def test_descents_find_the_pentagon():
    """The pentagon of length 1 is found by its energy.

    The best pentagon is found by the potential of the polygon.
    """
    start = frames.regular_polygon(5) + 0.1 * random_directions(0, 2, 5)
    energy, _ = spheres.on_sphere(spheres.rectified, start)
    np.testing.assert_allclose(energy, 10 / 3 * np.cos(2 * np.pi / 5) ** 2, rtol=1e-12)
    loss, weights = spheres.with_bias(start)
    best = tm.theory.k_gons.polygon(5)
    np.testing.assert_allclose(loss, best.loss, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=0), best.length, rtol=1e-6)


GOLDEN = (1 + 5**0.5) / 2
SIGNS = np.array(list(itertools.product((-1, 1), repeat=2)))
ICOSAHEDRON = np.concatenate(
    [np.roll(np.insert(SIGNS * [1, GOLDEN], 0, 0, axis=1), turn, axis=1) for turn in range(3)]
).T
CROSS = np.hstack([np.eye(3), -np.eye(3)])
CUBE = np.array(list(itertools.product((-1, 1), repeat=3))).T


@pytest.mark.parametrize(
    ("vertices", "name"),
    [
        (frames.simplex(3), "tetrahedron"),
        (CROSS, "octahedron"),
        (CUBE, "3^8"),  # its faces are squares, not triangles
        (tm.theory.polytopes.SQUARE_ANTIPRISM.vertices, "square antiprism"),
        (ICOSAHEDRON, "icosahedron"),
        (ICOSAHEDRON[:, 1:], "icosahedron less one"),
        (np.hstack([CROSS, CROSS[:, :2]]), "octahedron"),  # two vertices twice
        (np.hstack([CROSS, np.ones((3, 1)) / 3**0.5]), "capped octahedron"),
    ],
)
def test_polyhedra_have_their_names_in_any_position(vertices, name):
    unit = vertices / np.linalg.norm(vertices, axis=0)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert polyhedra.name(turn @ unit[:, rng.permutation(unit.shape[1])]) == name


@pytest.mark.parametrize(
    ("points", "count"),
    [
        pytest.param(frames.simplex(3), 6, id="tetrahedron"),
        pytest.param(CROSS, 12, id="octahedron"),
        pytest.param(CUBE, 12, id="cube, without diagonals of its faces"),
        pytest.param(tm.theory.polytopes.SQUARE_ANTIPRISM.vertices, 16, id="square antiprism"),
        pytest.param(np.vstack([frames.regular_polygon(5), np.zeros(5)]), 0, id="flat"),
    ],
)
def test_edges_of_a_hull_are_those_of_the_polyhedron(points, count):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert len(polyhedra.edges(turn @ points)) == count


def test_the_best_square_antiprism_has_the_lowest_energy_of_all_heights():
    angles = np.pi / 4 * np.arange(8)

    def energy(height):
        radius, up = (1 - height**2) ** 0.5, height * np.tile([1.0, -1.0], 4)
        vertices = np.stack([radius * np.cos(angles), radius * np.sin(angles), up])
        return spheres.rectified(vertices.T @ vertices)[0]

    lowest = optimize.minimize_scalar(energy, bounds=(0.3, 0.8), method="bounded").fun
    np.testing.assert_allclose(spheres.antiprism_energy(), lowest, rtol=1e-9)
    # Neighbours in a pentagon overlap by cos 72, and five of ten pairs do.
    expected = 10 / 3 * np.cos(2 * np.pi / 5) ** 2
    np.testing.assert_allclose(spheres.polygon_energy(5), expected, rtol=1e-12)


def test_separations_are_those_of_the_icosahedron_and_the_square_antiprism():
    """Twelve points are farthest apart on an icosahedron, eight on an antiprism of equal edges."""
    for count, vertices in ((12, ICOSAHEDRON), (8, tm.theory.polytopes.SQUARE_ANTIPRISM.vertices)):
        unit = vertices / np.linalg.norm(vertices, axis=0)
        nearest = (unit.T @ unit)[np.triu_indices(count, 1)].max()
        angle = np.rad2deg(np.arccos(nearest))
        assert spheres.SEPARATIONS[count] == pytest.approx(angle, abs=1e-5)
