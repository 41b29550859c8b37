"""Polyhedra with known names, and the edges of the convex hull of any points in space."""

from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull, QhullError

# The key says how many vertices have how many edges: "3^2 4^3" is two vertices with three edges
# each and three vertices with four.
NAMES: Final = {
    "3^4": "tetrahedron",
    "3^2 4^3": "triangular bipyramid",
    "4^6": "octahedron",
    "4^5 5^2": "pentagonal bipyramid",
    "3^1 4^3 5^3": "capped octahedron",
    "4^8": "square antiprism",
    "4^3 5^6": "tricapped prism",
    "4^2 5^8": "bicapped antiprism",
    "4^2 5^8 6^1": "contracted icosahedron",
    "4^5 5^6": "icosahedron less one",
    "5^12": "icosahedron",
}


def edges(points: Float[Any, "3 points"]) -> Int[np.ndarray, "edges ends=2"]:
    """Return the edges of the convex hull as pairs of columns, without those inside of flat faces.

    There are no edges if all points lie in a plane.
    """
    return edges_and_normals(points)[0]


def edges_and_normals(
    points: Float[Any, "3 points"],
) -> tuple[Int[np.ndarray, "edges ends=2"], Float[np.ndarray, "edges faces=2 3"]]:
    """Return the `edges`, and the outward normals of the two faces that each one joins."""
    points = np.asarray(points, float)
    try:
        hull = ConvexHull(points.T)
    except QhullError:
        return np.zeros((0, 2), int), np.zeros((0, 2, 3))
    found: dict[tuple[int, int], Any] = {}
    normals = hull.equations[:, :3]
    for face, others, normal in zip(hull.simplices, hull.neighbors, normals, strict=True):
        for opposite, other in enumerate(others):  # the neighbour opposite to each corner
            if normal @ normals[other] < 1 - 1e-6:
                low, high = sorted(np.delete(face, opposite).tolist())
                found[low, high] = np.stack([normal, normals[other]])
    pairs = sorted(found)
    return np.array(pairs).reshape(-1, 2), np.array([found[pair] for pair in pairs])


def distinct(
    directions: Float[np.ndarray, "hidden features"],
) -> Float[np.ndarray, "hidden sites"]:
    """Return unit vectors without repetitions, in the order in which they first occur.

    Two vectors count as one if their cosine is above 1 - 1e-6.
    """
    alike = directions.T @ directions > 1 - 1e-6
    return directions[:, alike.argmax(axis=0) == np.arange(len(alike))]


def name(directions: Float[np.ndarray, "3 features"]) -> str:
    """Return the name of the polyhedron whose vertices are the ends of these unit vectors.

    The name depends only on how many edges meet at each vertex. Several vectors may share a vertex.

    Returns:
        A name of `NAMES`, or else the number of vertices with each number of edges: a cube, which
        has no name there, is "3^8".
    """
    ends = np.ravel(edges(distinct(directions)))
    degrees, counts = np.unique(np.unique(ends, return_counts=True)[1], return_counts=True)
    code = " ".join(f"{degree}^{count}" for degree, count in zip(degrees, counts, strict=True))
    return NAMES.get(code, code)
