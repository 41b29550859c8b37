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
| square pyramid   | 5        | 3          |
| square antiprism | 8        | 3          |
| polygon          | 6 or more| 2          |
| simplex          | $d + 1$  | $d \ge 4$  |
| diplo-simplex    | $2d + 2$ | $d \ge 4$  |

No two shapes have equal numbers of features and dimensions. So these numbers choose the only
candidate, and the residual decides whether it fits.

A diplo-simplex is a simplex together with its negative: $d + 1$ digons that share $d$ dimensions
evenly, so that $D_i = d / (2d + 2)$. In two dimensions it is a hexagon; in three a cube, which
training turns into an antiprism.

A square pyramid has an apex that differs from the other four features. It is the lowest minimum
found for five features in three dimensions around $1/p = 1.5$.

Larger groups have no name if they have no symmetry. So it is with 11 features in four dimensions
and 14 in five around $1/p = 5.2$: in the lowest minimum of 16 random starts of a sampled loss
nearly every feature has a length and a $D_i$ of its own, from 0.31 to 0.39.

A direct sum falls apart into its terms, because the graph has no edge between orthogonal
directions: an octahedron is three digons, a square two, and a triangular bipyramid a triangle and a
digon. Feature dimensionalities do not tell these apart either.

The functions use NumPy on the host and cannot be traced, because the number of components varies.

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
from toymodels.theory.frames import regular_polygon, simplex, square_pyramid
from toymodels.theory.polytopes import DEDICATED, SQUARE_ANTIPRISM, Polytope

__all__ = ["Component", "Components", "Shape", "identify"]


class Shape(enum.StrEnum):
    """The shapes of components. The value is the name in a legend."""

    DEDICATED = "dedicated"
    DIGON = "digon"
    TRIANGLE = "triangle"
    TETRAHEDRON = "tetrahedron"
    PENTAGON = "pentagon"
    SQUARE_PYRAMID = "square pyramid"
    SQUARE_ANTIPRISM = "square antiprism"
    POLYGON = "polygon"
    SIMPLEX = "simplex"
    DIPLO_SIMPLEX = "diplo-simplex"
    UNKNOWN = "unknown"


class Component(NamedTuple):
    """Features that interfere, directly or through others.

    Attributes:
        features: the numbers of their columns, ascending.
        shape: the shape, or `UNKNOWN` if the residual is not within tolerance.
        dimension: the number of singular values above half the largest one. The singular values of
            the polytopes in the table are equal, or nearly so.
        residual: the residual of `identify` in [0, 1]; infinity if no polytope in the table has as
            many features in as many dimensions.
    """

    features: tuple[int, ...]
    shape: Shape
    dimension: int
    residual: float


class Components(NamedTuple):
    """All features of a model.

    Attributes:
        components: the components of the represented features, in the order of their first ones.
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
    r"""Identify the polytopes that the features form.

    Features $i$ and $j$ are joined if both are represented and $|\hat W_i \cdot \hat W_j|$ is above
    the lower `overlap`. While a component fits no shape, its weakest joint is cut, as long as that
    joint is below the higher `overlap`. So the largest of nested components that fits is found.

    The residual compares the Gram matrix $G$ of a component with that of the polytope, $A$,

    $$\min_{\pi, a \ge 0} \frac{\lVert G_{\pi\pi} - a A \rVert_F}{\lVert G \rVert_F},$$

    over all orders $\pi$ of the features and the squared size $a$. It is the sine of an angle. The
    symmetries of a square antiprism leave its height free, so its $A$ is a sum of two terms with a
    factor each. Beyond eight features a polygon is compared only in the order of the angles, and a
    diplo-simplex only in one order that pairs antipodes: these are the best orders near the ideal.

    Rotations of the hidden space change no result, and permutations change only the numbers of the
    features. A common factor of all weights changes only which features are represented.

    Args:
        weights: the feature directions, one per column.
        norm: a feature is represented if its norm is above this. Trained norms gather near 0 and 1.
        overlap: the bounds of interference: overlaps below the first are always noise, overlaps
            above the second never are. A simplex or diplo-simplex of $d$ dimensions is found only
            if the first is below $1/d$, the overlap in it. The overlaps that hold a polygon or an
            antiprism together are 0.5 and more. Gaussian noise of standard deviation $s$ on every
            weight gives orthogonal unit columns an overlap of $1.4 s$, and at most about $5 s$
            among a few hundred pairs.
        tolerance: the largest residual of a shape. The default 0.1 allows for noise of $s = 0.02$,
            and in a digon for lengths that differ by 15 %.

    The defaults suit trained toy models with equal importances, and may not suit others: report
    which ones you took, and check whether the result depends on them.

    In trained models of 60 features in 12 dimensions all overlaps are below 0.05 or above 0.7 at
    $1/p = 2.8$, so no result depends on `overlap`. At 4.3 results depend on it, because some groups
    of digons number more than the dimensions that they span: diplo-simplices of 4 to 11 dimensions,
    beside pentagons that overlap with them by up to 0.15.

    Returns:
        Components and features that are not represented; together they hold every feature once.

    Raises:
        ValueError: weights that are not finite, a threshold outside $[0, 1]$ (only `norm` may be
            larger), or an `overlap` whose second number is the smaller one.
    """
    _check_thresholds(norm, overlap, tolerance)
    inputs.refuse_missing("weights", inputs.floats("weights", weights, rank=2))
    columns = np.asarray(weights, np.float64)
    norms = np.linalg.norm(columns, axis=0)
    represented, others = np.flatnonzero(norms > norm), np.flatnonzero(norms <= norm)
    directions = columns / np.where(norms > norm, norms, 1.0)
    overlaps = np.abs(directions.T @ directions)
    noise, never_noise = overlap
    waiting = _parts(overlaps, represented, noise)
    components: list[Component] = []
    while waiting:
        features = waiting.pop()
        component = _component(columns, features, tolerance)
        joint = _weakest_joint(overlaps, features)
        if component.shape is Shape.UNKNOWN and joint <= never_noise:
            waiting += _parts(overlaps, features, joint)
        else:
            components.append(component)
    components.sort(key=lambda component: component.features[0])
    return Components(tuple(components), tuple(others.tolist()))


def _check_thresholds(norm: float, overlap: tuple[float, float], tolerance: float) -> None:
    checks.interval("norm", norm, low=0.0, remedy="norms are near 0 or near 1: give one between")
    for bound in overlap:
        checks.interval("overlap", bound, low=0.0, high=1.0, remedy="it is the cosine of an angle")
    if overlap[0] > overlap[1]:
        raise InputError(f"overlap is {overlap}: give the lower one first")
    checks.interval("tolerance", tolerance, low=0.0, high=1.0, remedy="it is the sine of an angle")


def _parts(
    overlaps: Float[np.ndarray, "features features"],
    members: Int[np.ndarray, " members"],
    threshold: float,
) -> list[Int[np.ndarray, " vertices"]]:
    """Return the groups of members that overlaps above the threshold join, directly or not."""
    if not members.size:
        return []
    edges = overlaps[np.ix_(members, members)] > threshold
    count, labels = csgraph.connected_components(edges, directed=False)
    return [members[labels == label] for label in range(count)]


def _weakest_joint(
    overlaps: Float[np.ndarray, "features features"], features: Int[np.ndarray, " vertices"]
) -> float:
    """Return the overlap without which a component falls apart; infinity for a single feature."""
    if features.size == 1:
        return np.inf
    strongest_joints = csgraph.minimum_spanning_tree(-overlaps[np.ix_(features, features)])
    return float(-strongest_joints.data.max())


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
    """Return the shape with these numbers of vertices and dimensions, or None."""
    if count == dimension == 1:
        return Shape.DEDICATED, DEDICATED
    if count == dimension + 1:
        named = {1: Shape.DIGON, 2: Shape.TRIANGLE, 3: Shape.TETRAHEDRON}
        return named.get(dimension, Shape.SIMPLEX), Polytope(simplex(dimension), (0,) * dimension)
    if count >= 5 and dimension == 2:
        shape = Shape.PENTAGON if count == 5 else Shape.POLYGON
        return shape, Polytope(regular_polygon(count), (0, 0))
    if (count, dimension) == (5, 3):
        return Shape.SQUARE_PYRAMID, Polytope(square_pyramid(), (0, 0, 0))
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
    # The product of two Gram matrices is never negative, so the best sizes are not, either.
    along = np.einsum("oij,tij->ot", permuted, terms) / lengths
    best = np.argmax(np.sum(along**2, axis=1))
    rest = permuted[best] - np.tensordot(along[best] / lengths, terms, axes=1)
    return float(np.linalg.norm(rest) / np.linalg.norm(gram))


def _orders(
    gram: Float[np.ndarray, "vertices vertices"], shape: Shape
) -> Int[np.ndarray, "orders vertices"]:
    """Return the orders in which to compare the features with the vertices of a polytope."""
    count = len(gram)
    if shape is Shape.DIPLO_SIMPLEX:
        return _simplex_then_negative(gram)[None, :]
    if shape is Shape.SQUARE_PYRAMID:  # no symmetry takes its apex to another vertex
        return np.array(list(itertools.permutations(range(count))))
    if count <= 8:
        return _all_orders(count)
    # All orders of more than eight are too many. In a simplex every order is equally good.
    plane = np.linalg.eigh(gram)[1][:, -2:]
    return np.argsort(np.arctan2(plane[:, 1], plane[:, 0]))[None, :]


def _simplex_then_negative(
    gram: Float[np.ndarray, "vertices vertices"],
) -> Int[np.ndarray, " vertices"]:
    """Return an order with a simplex first and then its negative.

    The simplex is the first feature and those that it points away from, except its antipode.
    """
    half = len(gram) // 2
    from_first = np.argsort(gram[0, 1:]) + 1
    simplex_, others = np.append(0, from_first[1:half]), np.append(from_first[half:], from_first[0])
    _, antipodes = optimize.linear_sum_assignment(gram[np.ix_(simplex_, others)])
    return np.concatenate([simplex_, others[antipodes]])


@functools.cache
def _all_orders(count: int) -> Int[np.ndarray, "orders vertices"]:
    """Return all orders with feature 0 first: a symmetry takes any vertex to the first one."""
    return np.array([(0, *rest) for rest in itertools.permutations(range(1, count))])
