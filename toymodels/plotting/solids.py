"""Polytopes of features in space, and graphs of features that overlap."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba, to_rgba_array

from toymodels.analysis.polytopes import identify
from toymodels.errors import InputError
from toymodels.plotting.colors import BACKGROUND, CYCLE, SHAPE_COLORS
from toymodels.plotting.vectors import columns, groups_at_one_place, spokes, upright
from toymodels.theory.polyhedra import edges_and_normals

__all__ = ["overlap_graph", "polytope", "shape_colors_of"]

_around, _tilt = 0.4, 0.35  # radians
_TURN = np.array(
    [[1, 0, 0], [0, np.cos(_tilt), -np.sin(_tilt)], [0, np.sin(_tilt), np.cos(_tilt)]]
) @ [[np.cos(_around), np.sin(_around), 0], [-np.sin(_around), np.cos(_around), 0], [0, 0, 1]]
"""The rotation of a solid before it is drawn: around its axis, and then towards the reader."""


def polytope(axes: Axes, points: Any, *, color: Any = CYCLE[0], limit: float | None = None) -> None:
    """Draw points of space as the corners of their convex hull, with its axis of symmetry up.

    Edges at the back are paler. Points at one place are marked with their number, such as "x2".
    Points of a plane, in two dimensions or in three, are drawn as spokes.

    Args:
        axes: ordinary axes, not 3-D ones; they become square, without ticks.
        points: 2 or 3 x features; a labelled array has a dimension "feature", in any order.
        color: one colour, or one for each feature, such as `shape_colors_of` gives. An edge whose
            ends have one colour of several gets it; others are grey.
        limit: half the width of the picture; 1.35 times the longest column if not given.

    Raises:
        ValueError: points in another number of dimensions, or not finite.
    """
    table = columns(points)
    if len(table) not in (2, 3) or not np.isfinite(table).all():
        raise InputError(
            f"points has shape {table.shape}: give 2 or 3 dimensions x features, all finite"
        )
    reach = limit or max(0.1, 1.35 * np.linalg.norm(table, axis=0).max(initial=0.0))
    if len(table) == 3:
        basis, sizes, _ = np.linalg.svd(table)
        table = table if np.min(sizes, initial=1.0) > 1e-9 else basis[:, :2].T @ table
    if len(table) == 2:
        spokes(axes, table, color=color, limit=reach)
        return
    solid = _TURN @ upright(table)
    places = np.stack([solid[0], solid[2]], axis=1)
    paint = np.broadcast_to(to_rgba_array(color), (table.shape[1], 4))
    _draw_edges(axes, solid, places, paint)
    centre = np.zeros_like(places)
    axes.add_collection(
        LineCollection(list(np.stack([centre, places], 1)), colors="0.8", linewidths=0.5, zorder=0)
    )
    axes.scatter(*places.T, s=np.where(solid[1] > 0.1 * reach, 12, 20), c=paint, zorder=2)
    for group in groups_at_one_place(solid.T, 0.02 * reach):
        place: Any = 1.2 * places[group[0]]
        text = f"x{len(group)}"
        axes.annotate(text, place, ha="center", va="center", fontsize=7, color="0.2")
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=(), yticks=())
    axes.set_facecolor(BACKGROUND)
    axes.spines[:].set_visible(False)


def _draw_edges(axes: Axes, solid: Any, places: Any, paint: Any) -> None:
    """Draw the edges of the hull; the reader looks along the second coordinate."""
    pairs, normals = edges_and_normals(solid)
    hidden = np.asarray((normals[:, :, 1] > -1e-9).all(axis=1))  # both faces look away
    own = np.asarray((paint[pairs[:, 0]] == paint[pairs[:, 1]]).all(axis=1))
    own &= len(np.unique(paint, axis=0)) > 1
    colors = np.where(hidden[:, None], to_rgba("0.8"), to_rgba("0.35"))
    colors[own] = paint[pairs[own, 0]]
    colors[own & hidden, 3] = 0.4
    axes.add_collection(LineCollection(list(places[pairs]), colors=colors, linewidths=1, zorder=1))


def shape_colors_of(weights: Any) -> Float[np.ndarray, "features 4"]:
    """Return the colour of each feature by the shape that `analysis.polytopes.identify` finds."""
    table = columns(weights)
    found = identify(table)
    names = np.full(table.shape[1], "not learned", object)
    for part in found.components:
        names[list(part.features)] = str(part.shape)
    return to_rgba_array([SHAPE_COLORS[name] for name in names])


def overlap_graph(axes: Axes, weights: Any, *, color: Any = CYCLE[0], strongest: int = 3) -> None:
    r"""Draw features as nodes that overlaps $|W_i \cdot W_j|$ pull together.

    Args:
        axes: axes to draw on; without ticks or a frame.
        weights: hidden x features; a labelled array has a dimension "feature", in any order.
        color: one colour, or one for each feature, such as `shape_colors_of` gives.
        strongest: how many overlaps of each feature are drawn as lines, as wide as they are strong;
            none below 0.05.

    References:
        Fruchterman and Reingold (1991), "Graph drawing by force-directed placement".
    """
    table = columns(weights)
    strength = np.abs(table.T @ table) * (1 - np.eye(table.shape[1]))
    places = _spring_layout(strength)
    kept = np.sort(strength, axis=1)[:, -strongest:].min(axis=1, initial=np.inf)
    drawn = (strength > 0.05) & (strength >= np.minimum(kept, kept[:, None]))
    pairs = np.argwhere(np.triu(drawn, 1))
    widths = 2 * strength[tuple(pairs.T)]
    axes.add_collection(
        LineCollection(
            list(places[pairs]), colors="0.6", linewidths=widths, zorder=0, rasterized=True
        )
    )
    axes.scatter(*places.T, s=22, c=color, edgecolors="white", linewidths=0.5, zorder=2)
    axes.set(aspect="equal", adjustable="datalim", xticks=(), yticks=())
    axes.margins(0.08)
    axes.spines[:].set_visible(False)


def _spring_layout(strength: Any, steps: int = 500) -> Any:
    """Return places of nodes that repel each other and are pulled by their edges and to the centre.

    The nodes move along these forces, by steps that become smaller.
    """
    count = len(strength)
    places = np.random.default_rng(0).normal(size=(count, 2))
    for largest_move in np.geomspace(0.3, 0.003, steps):
        apart = places[:, None] - places[None]
        squared = np.sum(apart**2, axis=2) + 1e-3
        force = np.sum(apart * (1 / squared - 4 * strength * np.sqrt(squared))[..., None], axis=1)
        force -= 0.5 * np.sqrt(count) * places
        length = np.linalg.norm(force, axis=1, keepdims=True)
        places += force * np.minimum(largest_move / (length + 1e-9), 0.1)
    return places
