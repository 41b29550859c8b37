"""Circuits of several layers as diagrams: a column of nodes for each site, and edges between."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from toymodels.errors import InputError
from toymodels.plotting.colors import CYCLE

__all__ = ["circuit_diagram"]

_LINES = ("-", "--", ":")


def circuit_diagram(
    axes: Axes,
    nodes: Mapping[str, Sequence[str]],
    edges: Mapping[str, Mapping[tuple[str, str], Any]],
    *,
    columns: Mapping[str, str] | None = None,
) -> None:
    """Draw the edges of a circuit between columns of nodes, from left to right.

    Edges come in kinds, such as "found" and "missed". Each kind has a colour and a dash of its own
    and one entry in the legend, which the caller draws.

    Args:
        axes: axes to draw on; without ticks or a frame.
        nodes: the names of the nodes of each site, the sites from left to right.
        edges: for each kind, the edges between pairs of sites: an edge is drawn where the entry
            (senders x receivers) is not 0, as `toymodels.circuits` has them.
        columns: what is written below the column of a site; nothing if not given.

    Raises:
        ValueError: an edge or the text of a column is at a site that is unknown, or an edge has
            another number of nodes.
    """
    if unknown := sorted((columns or {}).keys() - nodes.keys()):
        raise InputError(
            f"columns names the site {unknown[0]!r}: give text for the sites {', '.join(nodes)}"
        )
    heights = {
        site: _heights(len(names), lower=column % 2 == 1)
        for column, (site, names) in enumerate(nodes.items())
    }
    place = {site: number for number, site in enumerate(nodes)}
    for number, (kind, pairs) in enumerate(edges.items()):
        style: dict[str, Any] = {
            "edgecolor": CYCLE[number % len(CYCLE)],
            "linestyle": _LINES[number % len(_LINES)],
            "linewidth": 1.3,
        }
        for (start, end), kept in pairs.items():
            table = np.asarray(kept)
            if not {start, end} <= nodes.keys() or table.shape != (
                len(nodes[start]),
                len(nodes[end]),
            ):
                raise InputError(
                    f"edges from {start!r} to {end!r} have shape {table.shape}: give senders x "
                    f"receivers of the sites {', '.join(nodes)}"
                )
            for sender, receiver in np.argwhere(table != 0):
                ends = (
                    (place[start], heights[start][sender]),
                    (place[end], heights[end][receiver]),
                )
                axes.add_patch(_curve(ends, style))
        axes.plot([], [], style["linestyle"], color=style["edgecolor"], lw=1.3, label=kind)
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "0.6", "linewidth": 0.6}
    for site, names in nodes.items():
        for name, height in zip(names, heights[site], strict=True):
            axes.text(
                place[site], height, name, ha="center", va="center", fontsize=7, bbox=box, zorder=3
            )
        if columns:
            axes.text(place[site], -0.1, columns.get(site, ""), ha="center", va="top", fontsize=8)
    axes.set(xlim=(-0.25, len(nodes) - 0.75), ylim=(-0.2, 1.05))
    axes.set_axis_off()


def _heights(number: int, *, lower: bool) -> np.ndarray:
    """Return the heights of the nodes of a column, from 1 at the top to 0.

    Every other column stands a little lower, so that an edge that skips a column does not run
    through its nodes.
    """
    return 1 - (np.arange(number) + (0.75 if lower else 0.5)) / number


def _curve(ends: Any, style: dict[str, Any]) -> PathPatch:
    """Return a curve that leaves one column and enters another one horizontally."""
    (left, below), (right, above) = ends
    middle = (left + right) / 2
    corners = [(left, below), (middle, below), (middle, above), (right, above)]
    path = Path(corners, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    return PathPatch(path, facecolor="none", zorder=1, **style)
