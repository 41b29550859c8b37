"""Arrangements of feature directions, and random models, that several tests measure.

Feature directions are columns. Everything is NumPy, in float64, and independent of toymodels.
"""

import itertools

import numpy as np
from scipy import linalg


def polygon(count, step=1):
    """The vertices of a regular polygon; with another step they are taken in another order."""
    angles = 2 * np.pi * step * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)])


def simplex(dimensions):
    """The vertices of a regular simplex: one more than there are dimensions."""
    count = dimensions + 1
    centred = np.eye(count) - 1 / count
    basis = np.linalg.svd(centred)[0][:, :-1]
    return basis.T @ centred / np.sqrt(1 - 1 / count)


def high_simplex(dimensions):
    """A simplex made of the centred standard basis, in one dimension more than it needs."""
    count = dimensions + 1
    return (np.eye(count) - 1 / count) / np.sqrt(1 - 1 / count)


def antiprism(height):
    """Two squares, turned by 45 degrees, at heights of opposite sign."""
    square = np.sqrt(1 - height**2) * polygon(8)
    return np.vstack([square, height * np.array([1, -1] * 4)])


def diplo_simplex(dimensions):
    """A simplex and its negative, interleaved, in one dimension more than they need."""
    half = high_simplex(dimensions)
    return np.stack([half, -half], axis=2).reshape(len(half), -1)


# Two pairs of opposite vertices of the base, and then the apex; all vectors have the length 1.
SQUARE_PYRAMID = np.array([[1, -1, 0, 0, 0], [0, 0, 1, -1, 0], [5**-0.5] * 4 + [-(1.2**0.5)]])
SQUARE_PYRAMID *= np.sqrt(5 / 6)
CUBE = np.array(list(itertools.product([-1, 1], repeat=3))).T / np.sqrt(3)


def orthoplex(dimensions):
    """An antipodal pair on each axis."""
    return np.hstack([np.eye(dimensions), -np.eye(dimensions)])


def icosahedron():
    """One end of each of the six diagonals; the cosines between them are 1 / sqrt(5)."""
    golden = (1 + np.sqrt(5)) / 2
    rows = [[0, 1, golden], [0, 1, -golden], [1, golden, 0], [1, -golden, 0]]
    return np.array([*rows, [golden, 0, 1], [-golden, 0, 1]]).T / np.sqrt(1 + golden**2)


def rotation(seed, dimensions):
    """A random orthogonal matrix; `seed` may be a generator."""
    normal = np.random.default_rng(seed).normal(size=(dimensions, dimensions))
    return np.linalg.qr(normal)[0]


def direct_sum(blocks, spare=0):
    """A matrix with these blocks on its diagonal, and so many columns of zeros after them."""
    return np.pad(linalg.block_diag(*blocks), ((0, 0), (0, spare)))


def variance(density):
    """The variance of a feature that is uniform on (0, 1] with probability `density`, else 0."""
    return density / 3 - density**2 / 4


def random_model(seed, num_features, hidden, density=None, scale=0.6):
    """Weights, bias, density and importance of every feature, all different."""
    rng = np.random.default_rng(seed)
    return (
        scale * rng.normal(size=(hidden, num_features)),
        0.2 * rng.normal(size=num_features) - 0.1,
        rng.uniform(0.1, 1, num_features) if density is None else np.full(num_features, density),
        rng.uniform(0.2, 2, num_features),
    )
