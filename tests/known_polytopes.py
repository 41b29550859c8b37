"""Polytopes whose shape and dimension are known, and how the tests identify them."""

import numpy as np
from arrangements import SQUARE_PYRAMID, antiprism, diplo_simplex, high_simplex, polygon

from toymodels.analysis import polytopes
from toymodels.analysis.polytopes import Shape


def identify(weights, *, norm=0.5, overlap=(0.05, 0.15), tolerance=0.1):
    """Identify polytopes with the thresholds of the experiments."""
    return polytopes.identify(weights, norm=norm, overlap=overlap, tolerance=tolerance)


KNOWN = {
    "dedicated": (np.ones((1, 1)), Shape.DEDICATED, 1),
    "digon": (np.array([[1.0, -1.0]]), Shape.DIGON, 1),
    "triangle": (polygon(3), Shape.TRIANGLE, 2),
    "tetrahedron": (high_simplex(3), Shape.TETRAHEDRON, 3),
    "4-simplex": (high_simplex(4), Shape.SIMPLEX, 4),
    "5-simplex": (high_simplex(5), Shape.SIMPLEX, 5),
    "4-diplo-simplex": (diplo_simplex(4), Shape.DIPLO_SIMPLEX, 4),
    "6-diplo-simplex": (diplo_simplex(6), Shape.DIPLO_SIMPLEX, 6),
    "pentagon": (polygon(5), Shape.PENTAGON, 2),
    "pentagram": (polygon(5, step=2), Shape.PENTAGON, 2),
    "square pyramid": (SQUARE_PYRAMID, Shape.SQUARE_PYRAMID, 3),
    "hexagon": (polygon(6), Shape.POLYGON, 2),
    "octagon": (polygon(8), Shape.POLYGON, 2),
    "11-gon": (polygon(11), Shape.POLYGON, 2),
    "square antiprism": (antiprism(np.sqrt(1 / 3)), Shape.SQUARE_ANTIPRISM, 3),
    "flat square antiprism": (antiprism(0.45), Shape.SQUARE_ANTIPRISM, 3),
}
