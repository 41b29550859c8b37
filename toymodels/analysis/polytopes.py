r"""Polytopes of trained features: components of the interference graph of ONE weight matrix.

The graph joins two features whose directions overlap. Its components span subspaces that are
nearly orthogonal, and in trained models each is often a regular polytope:

| shape            | features | dimensions |
|------------------|----------|------------|
| dedicated        | 1        | 1          |
| digon            | 2        | 1          |
| triangle         | 3        | 2          |
| tetrahedron      | 4        | 3          |
| pentagon         | 5        | 2          |
| square antiprism | 8        | 3          |
| polygon          | 6 or more| 2          |
| simplex          | $d + 1$  | $d \ge 4$  |

The numbers of features and of dimensions allow for one shape at most, so nothing is left to choose
but whether it fits.

A direct sum comes apart, for the graph sees no edge between orthogonal directions: an octahedron
is three digons, a square two, a triangular bipyramid a triangle and a digon. The feature
dimensionalities do not tell these apart either.

NumPy on the host: the number of components varies, so this cannot be traced.

References:
    Elhage et al. (2022), "Toy Models of Superposition", section "The Geometry of
    Superposition": the graphs of feature geometry.
"""

import enum
import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csgraph

from toymodels import checks
from toymodels.theory.frames import regular_polygon, simplex
from toymodels.theory.polytopes import DEDICATED, SQUARE_ANTIPRISM, Polytope


class Shape(enum.StrEnum):
    """What a component is. The value is the name for a legend."""

    DEDICATED = "dedicated"
    DIGON = "digon"
    TRIANGLE = "triangle"
    TETRAHEDRON = "tetrahedron"
    PENTAGON = "pentagon"
    SQUARE_ANTIPRISM = "square antiprism"
    POLYGON = "polygon"
    SIMPLEX = "simplex"
    UNKNOWN = "unknown"


class Component(NamedTuple):
    """Features that interfere, directly or through others.

    Attributes:
        features: their columns, ascending.
        shape: `UNKNOWN` unless the residual is within tolerance.
        dimension: how many singular values exceed half the largest. Those of the polytopes named
            are equal, or nearly so.
        residual: see `identify`. In [0, 1]; infinite if no polytope named has as many features
            in as many dimensions.
    """

    features: tuple[int, ...]
    shape: Shape
    dimension: int
    residual: float


class Components(NamedTuple):
    """All features of a model.

    Attributes:
        components: of the features represented, in the order of their first features.
        not_represented: the other features, ascending.
    """

    components: tuple[Component, ...]
    not_represented: tuple[int, ...]


def identify(
    weights: Float[Any, "hidden features"],
    *,
    norm: float = 0.5,
    overlap: float = 0.15,
    tolerance: float = 0.1,
) -> Components:
    r"""Which polytopes the features form.

    Features $i$ and $j$ are joined if both are represented and

    $$|\hat W_i \cdot \hat W_j| > \text{overlap}.$$

    The residual compares the Gram matrix $G$ of a component with that of the polytope, $A$,

    $$\min_{\pi, a \ge 0} \frac{\lVert G_{\pi\pi} - a A \rVert_F}{\lVert G \rVert_F},$$

    over all orders $\pi$ of the features and the squared size $a$: the sine of an angle. The height
    of a square antiprism is free, as its symmetries leave it, so $A$ is a sum of two terms there,
    each with a factor of its own. Beyond eight features a polygon is compared in the order of the
    angles alone, the best one near a regular polygon.

    Rotation of hidden space changes nothing, permutation only the numbers of the features. A common
    factor changes only who is represented.

    Args:
        weights: feature directions, one per column.
        norm: a feature is represented above it. Trained norms gather near 0 and near 1.
        overlap: below it interference is taken for noise. It must stay below $1/d$, the overlap
            in a simplex of $d$ dimensions, so 0.15 finds those of up to 6; a polygon or an
            antiprism holds together by overlaps of 0.5 and more. Between orthogonal unit columns,
            Gaussian noise of standard deviation $s$ on every weight overlaps by $1.4 s$, at most
            some $5 s$ among a few hundred pairs.
        tolerance: largest residual of a shape. 0.1 allows for noise of $s = 0.02$, and in a digon
            for lengths that differ by 15 %.

    In trained models of 60 features in 12 dimensions, six seeds each, nothing depends on `overlap`
    at $1/p = 2.8$: all overlaps are below 0.05 or above 0.7. At 4.3 it decides: four of six models
    have digons that overlap by up to 0.2, with $D_i$ from 0.42 to 0.44, because they are more than
    the dimensions they span. Among them are seven in six, along the vertices of a simplex. At 0.15
    these are one unknown component, at 0.2 mostly digons, too many for the dimensions there are.

    Returns:
        Every feature once.

    Raises:
        ValueError: weights that are not finite, or a threshold outside $[0, 1]$; `norm` may be
            larger.
    """
    checks.interval("weights", weights, remedy="training diverged: lower the learning rate")
    checks.interval("norm", norm, low=0.0, remedy="norms are near 0 or near 1: give one between")
    checks.interval("overlap", overlap, low=0.0, high=1.0, remedy="it is the cosine of an angle")
    checks.interval("tolerance", tolerance, low=0.0, high=1.0, remedy="it is the sine of an angle")
    columns = np.asarray(weights, np.float64)
    norms = np.linalg.norm(columns, axis=0)
    represented, others = np.flatnonzero(norms > norm), np.flatnonzero(norms <= norm)
    directions = columns[:, represented] / norms[represented]
    edges = np.abs(directions.T @ directions) > overlap
    labels = csgraph.connected_components(edges, directed=False)[1] if represented.size else []
    # The first feature of every component, in ascending order, finds its label.
    components = [
        _component(columns, represented[labels == label], tolerance)
        for label in dict.fromkeys(labels)
    ]
    return Components(tuple(components), tuple(others.tolist()))


def _component(
    columns: Float[np.ndarray, "hidden features"],
    features: Int[np.ndarray, " vertices"],
    tolerance: float,
) -> Component:
    vertices = columns[:, features]
    gram = vertices.T @ vertices
    sizes = np.linalg.eigvalsh(gram)
    dimension = int(np.sum(sizes > sizes[-1] / 4))
    shape, residual = Shape.UNKNOWN, np.inf
    ideal = _ideal(features.size, dimension)
    if ideal is not None:
        residual = _residual(gram, ideal[1])
        shape = ideal[0] if residual <= tolerance else Shape.UNKNOWN
    return Component(tuple(features.tolist()), shape, dimension, residual)


def _ideal(count: int, dimension: int) -> tuple[Shape, Polytope] | None:
    """The polytope of so many vertices and dimensions. In each, all vertices are alike."""
    if count == dimension == 1:
        return Shape.DEDICATED, DEDICATED
    if count == dimension + 1:
        named = {1: Shape.DIGON, 2: Shape.TRIANGLE, 3: Shape.TETRAHEDRON}
        return named.get(dimension, Shape.SIMPLEX), Polytope(simplex(dimension), (0,) * dimension)
    if count >= 5 and dimension == 2:
        shape = Shape.PENTAGON if count == 5 else Shape.POLYGON
        return shape, Polytope(regular_polygon(count), (0, 0))
    if (count, dimension) == (8, 3):
        return Shape.SQUARE_ANTIPRISM, SQUARE_ANTIPRISM
    return None


def _residual(gram: Float[np.ndarray, "vertices vertices"], polytope: Polytope) -> float:
    vertices, stretch = polytope
    rows = [vertices[np.array(stretch) == group] for group in sorted(set(stretch))]
    terms = np.stack([part.T @ part for part in rows])  # orthogonal to each other
    orders = _orders(gram)
    permuted = gram[orders[:, :, None], orders[:, None, :]]
    lengths = np.sqrt(np.sum(terms**2, axis=(1, 2)))
    # Products of Gram matrices are never negative, so no size is.
    along = np.einsum("oij,tij->ot", permuted, terms) / lengths
    best = np.argmax(np.sum(along**2, axis=1))
    rest = permuted[best] - np.tensordot(along[best] / lengths, terms, axes=1)
    return float(np.linalg.norm(rest) / np.linalg.norm(gram))


def _orders(gram: Float[np.ndarray, "vertices vertices"]) -> Int[np.ndarray, "orders vertices"]:
    """In which orders to compare the features with the vertices of a polytope."""
    count = len(gram)
    if count <= 8:
        return _all_orders(count)
    # More are too many. In a simplex any order is as good.
    plane = np.linalg.eigh(gram)[1][:, -2:]
    return np.argsort(np.arctan2(plane[:, 1], plane[:, 0]))[None, :]


@functools.cache
def _all_orders(count: int) -> Int[np.ndarray, "orders vertices"]:
    """All but those that a symmetry makes the same: it takes any vertex to the first."""
    return np.array([(0, *rest) for rest in itertools.permutations(range(1, count))])
