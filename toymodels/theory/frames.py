"""Unit tight frames: features of length 1 that share their dimensions evenly."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float


def simplex(dimensions: int) -> Float[np.ndarray, "dimensions vertices"]:
    """Return the $d + 1$ vertices of a regular simplex in $d$ dimensions, as unit columns."""
    centred = np.eye(dimensions + 1) - 1 / (dimensions + 1)
    # All nonzero singular values are one, so the rows of V^T are the vertices, rotated into the
    # hyperplane that they span.
    vertices = np.linalg.svd(centred)[2][:dimensions]
    return vertices / np.linalg.norm(vertices, axis=0)


def square_pyramid() -> Float[np.ndarray, "dimensions vertices"]:
    r"""Return the square pyramid whose vertices share three dimensions evenly, the apex first.

    Of all pyramids of five unit vectors it is the one with $W W^\top = 5/3$. The cosines are
    $-1/\sqrt 6$ with the apex, and $1/6$ and $-2/3$ with the next and the opposite vertex of the
    base.
    """
    base = np.sqrt(5 / 6) * regular_polygon(4)
    height = np.full((1, 4), np.sqrt(1 / 6))
    apex = np.array([[0.0], [0.0], [-1.0]])
    return np.hstack([apex, np.vstack([base, height])])


def regular_polygon(num_vertices: int) -> Float[np.ndarray, "dimensions vertices"]:
    """Return the vertices of a regular polygon in the plane, as columns of length 1."""
    angles = 2 * np.pi * np.arange(num_vertices) / num_vertices
    return np.stack([np.cos(angles), np.sin(angles)])


def direct_sums(num_features: int, hidden: int) -> Iterator[Float[np.ndarray, "hidden features"]]:
    """Yield every direct sum of dedicated features, simplices and polygons that fits.

    The first one is the sum of no blocks. Blocks come in a fixed order, so that no sum comes twice.
    Features and dimensions that are left over are zero.
    """
    blocks = [np.ones((1, 1))]
    blocks += [simplex(dimensions) for dimensions in range(1, hidden + 1)]
    if hidden > 1:
        blocks += [regular_polygon(count) for count in range(5, num_features + 1)]
    yield np.zeros((hidden, num_features))

    def extended(frame: Any, row: int, column: int, first: int) -> Iterator[Any]:
        """Yield each sum that adds blocks to a frame, at this corner, from block `first` on."""
        for number, block in enumerate(blocks[first:], first):
            rows, columns = row + block.shape[0], column + block.shape[1]
            if rows <= hidden and columns <= num_features:
                larger = frame.copy()
                larger[row:rows, column:columns] = block
                yield larger
                yield from extended(larger, rows, columns, number)

    yield from extended(np.zeros((hidden, num_features)), 0, 0, 0)
