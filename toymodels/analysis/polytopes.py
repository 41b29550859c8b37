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
| diplo-simplex    | $2d + 2$ | $d \ge 4$  |

The numbers of features and of dimensions allow for one shape at most, so nothing is left to choose
but whether it fits.

A diplo-simplex is a simplex together with its negative: $d + 1$ digons that share $d$ dimensions
evenly, so that $D_i = d / (2d + 2)$. In two dimensions it is a hexagon; in three a cube, which
training turns into an antiprism.

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
from scipy import optimize
from scipy.sparse import csgraph

from toymodels import checks
from toymodels.analysis import inputs
from toymodels.errors import InputError
from toymodels.theory.frames import regular_polygon, simplex
from toymodels.theory.polytopes import DEDICATED, SQUARE_ANTIPRISM, Polytope

__all__ = ["Component", "Components", "Shape", "identify"]


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
    DIPLO_SIMPLEX = "diplo-simplex"
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
    overlap: tuple[float, float] = (0.1, 0.2),
    tolerance: float = 0.1,
) -> Components:
    r"""Which polytopes the features form.

    Features $i$ and $j$ are joined if both are represented and $|\hat W_i \cdot \hat W_j|$ is above
    the lower `overlap`. While a component has no name, its weakest joint is cut, up to the higher
    `overlap`. So of nested components the largest that has a name is found.

    The residual compares the Gram matrix $G$ of a component with that of the polytope, $A$,

    $$\min_{\pi, a \ge 0} \frac{\lVert G_{\pi\pi} - a A \rVert_F}{\lVert G \rVert_F},$$

    over all orders $\pi$ of the features and the squared size $a$: the sine of an angle. The height
    of a square antiprism is free, as its symmetries leave it, so $A$ is a sum of two terms there,
    each with a factor of its own. Beyond eight features a polygon is compared in the order of the
    angles alone, a diplo-simplex in one that pairs antipodes: the best near the ideal.

    Rotation of hidden space changes nothing, permutation only the numbers of the features. A common
    factor changes only who is represented.

    Args:
        weights: feature directions, one per column.
        norm: a feature is represented above it. Trained norms gather near 0 and near 1.
        overlap: below the first, interference is noise; above the second, never. A simplex of $d$
            dimensions, or a diplo-simplex, is found if the first is below $1/d$, the overlap in
            it. A polygon or an antiprism holds together by overlaps of 0.5 and more. Between
            orthogonal unit columns, Gaussian noise of standard deviation $s$ on every weight
            overlaps by $1.4 s$, at most some $5 s$ among a few hundred pairs.
        tolerance: largest residual of a shape. 0.1 allows for noise of $s = 0.02$, and in a digon
            for lengths that differ by 15 %.

    The defaults are those of trained toy models with importances alike. They are no constants of
    nature: say which you took, and see whether the answer depends on them.

    In trained models of 60 features in 12 dimensions all overlaps are below 0.05 or above 0.7 at
    $1/p = 2.8$, and nothing depends on `overlap`. At 4.3 it decides, for some digons are more than
    the dimensions they span: diplo-simplices of 4 to 11 dimensions, beside pentagons that lean on
    them by up to 0.15.

    Returns:
        Every feature once.

    Raises:
        ValueError: weights that are not finite, or a threshold outside $[0, 1]$; `norm` may be
            larger. Overlaps that descend.
    """
    weakest, strongest = overlap
    inputs.refuse_missing("weights", inputs.floats("weights", weights, rank=2))
    checks.interval("norm", norm, low=0.0, remedy="norms are near 0 or near 1: give one between")
    for bound in overlap:
        checks.interval("overlap", bound, low=0.0, high=1.0, remedy="it is the cosine of an angle")
    if weakest > strongest:
        raise InputError(f"overlap is {overlap}: give the lower one first")
    checks.interval("tolerance", tolerance, low=0.0, high=1.0, remedy="it is the sine of an angle")
    columns = np.asarray(weights, np.float64)
    norms = np.linalg.norm(columns, axis=0)
    represented, others = np.flatnonzero(norms > norm), np.flatnonzero(norms <= norm)
    directions = columns / np.where(norms > norm, norms, 1.0)
    overlaps = np.abs(directions.T @ directions)

    def named(features: Int[np.ndarray, " vertices"]) -> list[Component]:
        whole = _component(columns, features, tolerance)
        if whole.shape is not Shape.UNKNOWN:
            return [whole]
        joint = _weakest_joint(overlaps[np.ix_(features, features)])
        if joint > strongest:
            return [whole]
        return [found for part in _parts(overlaps, features, joint) for found in named(part)]

    components = [found for part in _parts(overlaps, represented, weakest) for found in named(part)]
    components.sort(key=lambda component: component.features[0])
    return Components(tuple(components), tuple(others.tolist()))


def _parts(
    overlaps: Float[np.ndarray, "features features"],
    members: Int[np.ndarray, " members"],
    threshold: float,
) -> list[Int[np.ndarray, " vertices"]]:
    """Which members are joined by overlaps above the threshold, directly or through others."""
    if not members.size:
        return []
    edges = overlaps[np.ix_(members, members)] > threshold
    count, labels = csgraph.connected_components(edges, directed=False)
    return [members[labels == label] for label in range(count)]


def _weakest_joint(overlaps: Float[np.ndarray, "vertices vertices"]) -> float:
    """The overlap without which a component falls apart."""
    tree = csgraph.minimum_spanning_tree(-overlaps)  # of the strongest joints
    return float(-tree.data.max())


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
        residual = _residual(gram, ideal[1], _orders(gram, ideal[0]))
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
    if count == 2 * (dimension + 1) and dimension >= 4:
        half = simplex(dimension)
        return Shape.DIPLO_SIMPLEX, Polytope(np.hstack([half, -half]), (0,) * dimension)
    return None


def _residual(
    gram: Float[np.ndarray, "vertices vertices"],
    polytope: Polytope,
    orders: Int[np.ndarray, "orders vertices"],
) -> float:
    vertices, stretch = polytope
    rows = [vertices[np.array(stretch) == group] for group in sorted(set(stretch))]
    terms = np.stack([part.T @ part for part in rows])  # orthogonal to each other
    permuted = gram[orders[:, :, None], orders[:, None, :]]
    lengths = np.sqrt(np.sum(terms**2, axis=(1, 2)))
    # Products of Gram matrices are never negative, so no size is.
    along = np.einsum("oij,tij->ot", permuted, terms) / lengths
    best = np.argmax(np.sum(along**2, axis=1))
    rest = permuted[best] - np.tensordot(along[best] / lengths, terms, axes=1)
    return float(np.linalg.norm(rest) / np.linalg.norm(gram))


def _orders(
    gram: Float[np.ndarray, "vertices vertices"], shape: Shape
) -> Int[np.ndarray, "orders vertices"]:
    """In which orders to compare the features with the vertices of a polytope."""
    count = len(gram)
    if shape is Shape.DIPLO_SIMPLEX:
        return _simplex_then_negative(gram)[None, :]
    if count <= 8:
        return _all_orders(count)
    # More are too many. In a simplex any order is as good.
    plane = np.linalg.eigh(gram)[1][:, -2:]
    return np.argsort(np.arctan2(plane[:, 1], plane[:, 0]))[None, :]


def _simplex_then_negative(
    gram: Float[np.ndarray, "vertices vertices"],
) -> Int[np.ndarray, " vertices"]:
    """The first feature with those it points away from, but for the antipode; their antipodes."""
    half = len(gram) // 2
    from_first = np.argsort(gram[0, 1:]) + 1
    simplex_, others = np.append(0, from_first[1:half]), np.append(from_first[half:], from_first[0])
    _, antipodes = optimize.linear_sum_assignment(gram[np.ix_(simplex_, others)])
    return np.concatenate([simplex_, others[antipodes]])


@functools.cache
def _all_orders(count: int) -> Int[np.ndarray, "orders vertices"]:
    """All but those that a symmetry makes the same: it takes any vertex to the first."""
    return np.array([(0, *rest) for rest in itertools.permutations(range(1, count))])
