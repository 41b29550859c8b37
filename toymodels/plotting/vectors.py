"""Feature directions: spokes in the plane, and poses in which point sets can be compared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba_array

from toymodels.errors import InputError
from toymodels.plotting.bars import color_bar
from toymodels.plotting.colors import BACKGROUND, CYCLE, IMPORTANCE_MAP, importance_norm
from toymodels.theory.pairs import mate_angles

__all__ = ["columns", "importance_bar", "pair_spokes", "spokes", "turned", "upright"]

_MANY = 100
"""The number of features beyond which spokes are thin and ends at one place are not marked."""


def columns(weights: Any, hidden: int | None = None) -> Float[np.ndarray, "hidden features"]:
    """Return a weight matrix as an array with one column for each feature.

    Args:
        weights: hidden x features; a labelled array has a dimension "feature", in any order.
        hidden: the number of hidden dimensions that it must have; any if not given.

    Raises:
        ValueError: another shape, such as a dimension of seeds.
    """
    if isinstance(weights, xr.DataArray):
        if weights.ndim != 2 or "feature" not in weights.dims:
            raise InputError(
                f"weights has dimensions {weights.dims}: give one hidden dimension and 'feature'; "
                "select one of the others with .sel"
            )
        weights = weights.transpose(..., "feature").values
    table = np.asarray(weights, float)
    if table.ndim != 2 or hidden not in (None, len(table)):
        wanted = "hidden" if hidden is None else hidden
        raise InputError(f"weights has shape {table.shape}: give {wanted} dimensions x features")
    return table


def spokes(
    axes: Axes,
    weights: Any,
    *,
    color: Any = CYCLE[0],
    limit: float | None = None,
    circles: Sequence[float] = (),
) -> None:
    """Draw the columns of a 2 x n weight matrix as spokes from the origin.

    Features whose ends cannot be told apart are marked with their number, such as "x2".

    Args:
        axes: axes to draw on; they become square, on the paper's cream background, without ticks.
        weights: 2 x features; a labelled array has a dimension "feature", in any order. Columns of
            NaN are left out.
        color: one colour, or one for each feature, such as `importance_colors` gives.
        limit: half the width of the picture; 1.2 times the longest column if not given.
        circles: the radii of grey circles behind the spokes.

    Raises:
        ValueError: another shape, or another number of colours.
    """
    table = columns(weights, hidden=2)
    paint = to_rgba_array(color)
    if len(paint) not in (1, table.shape[1]):
        raise InputError(
            f"color has {len(paint)} colours for {table.shape[1]} features: give one, or one each"
        )
    known = np.isfinite(table).all(axis=0)
    ends, paint = table[:, known].T, np.broadcast_to(paint, (table.shape[1], 4))[known]
    reach = limit or max(0.1, 1.2 * np.linalg.norm(ends, axis=1).max(initial=0.0))
    _cross(axes, reach, circles)
    many = len(ends) > _MANY
    lines = np.stack([np.zeros_like(ends), ends], axis=1)
    axes.add_collection(
        LineCollection(list(lines), colors=paint, linewidths=0.4 if many else 1.8, rasterized=many)
    )
    axes.scatter(*ends.T, s=4 if many else 22, c=paint, linewidths=0, zorder=2, rasterized=many)
    if many:
        return
    # Ends at a hundredth of the picture, a tenth of a dot, cannot be told apart.
    near = 0.01 * reach
    longer = ends[np.linalg.norm(ends, axis=1) > near]
    for group in groups_at_one_place(longer, near):
        place = longer[group].mean(axis=0)
        axes.annotate(
            f"x{len(group)}", place * (1 + 0.13 * reach / max(np.linalg.norm(place), 1e-9)),
            ha="center", va="center", fontsize=7, color="0.2",
        )  # fmt: skip


def pair_spokes(axes: Axes, weights: Any, *, circles: Sequence[float] = (1.0,)) -> None:
    """Draw pairs of features in the plane as spokes, in a pose in which models can be compared.

    The pair with the widest angle comes first and points up, and the next one is on the left. Mates
    have one colour.

    Args:
        axes: axes to draw on; they become square, without ticks.
        weights: 2 x features, mates side by side; a labelled array has a dimension "feature", in
            any order.
        circles: the radii of grey circles behind the spokes.
    """
    table = columns(weights, hidden=2)
    if table.shape[1] % 2:
        raise InputError(f"weights has {table.shape[1]} features: give pairs, side by side")
    order = np.argsort(-mate_angles(table), kind="stable")
    pairs = (table[0] + 1j * table[1]).reshape(-1, 2)[order]
    half = np.angle(pairs[0, 1] / pairs[0, 0]) / 2
    pairs = pairs * 1j / np.exp(1j * (np.angle(pairs[0, 0]) + half))
    if len(pairs) > 1 and pairs[1].real.sum() > 0:
        pairs = -pairs.conj()
    posed = np.stack([pairs.real, pairs.imag]).reshape(2, -1)
    colors = [CYCLE[number % len(CYCLE)] for number in range(len(pairs)) for _ in range(2)]
    spokes(axes, posed, color=colors, limit=1.25, circles=circles)


def _cross(axes: Axes, limit: float, circles: Sequence[float]) -> None:
    """Make square axes without ticks whose frame is a grey cross through the origin."""
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=(), yticks=())
    axes.set_facecolor(BACKGROUND)
    axes.spines[["right", "top"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_position("center")
        axes.spines[side].set_color("0.8")
        axes.spines[side].set_zorder(0)
    axes.xaxis.set_label_coords(0.5, -0.03)  # names stay outside, although the axes cross inside
    axes.yaxis.set_label_coords(-0.03, 0.5)
    around = np.linspace(0, 2 * np.pi, 200)
    for radius in circles:
        axes.plot(
            radius * np.cos(around), radius * np.sin(around), color="0.8", linewidth=0.8, zorder=0
        )


def groups_at_one_place(
    points: Shaped[np.ndarray, "points dimensions"], near: float
) -> list[Int[np.ndarray, " members"]]:
    """Return the indices of each group of two or more points within `near` of the first of them."""
    groups: list[Any] = []
    left = np.arange(len(points))
    while len(left):
        close = np.linalg.norm(points[left] - points[left[0]], axis=1) < near
        groups.append(left[close])
        left = left[~close]
    return [group for group in groups if len(group) > 1]


def importance_bar(axes: Any, importance: Shaped[Any, " features"]) -> Any:
    """Draw the colours of `importance_colors` as a bar beside one or several axes."""
    scale = ScalarMappable(importance_norm(importance), IMPORTANCE_MAP)
    return color_bar(scale, "importance $I_i$", axes=axes, shrink=0.6, aspect=25)


def turned(
    points: Any, feature: int = 0, *, angle: float = np.pi / 2
) -> Float[np.ndarray, "2 features"]:
    """Return points of the plane, turned so that one of them has a given angle.

    Args:
        points: 2 x features.
        feature: the feature that gets the angle.
        angle: its angle in radians; it points up if not given.
    """
    table = columns(points, hidden=2)
    turn = angle - np.arctan2(table[1, feature], table[0, feature])
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ table


def upright(points: Any) -> Float[np.ndarray, "3 features"]:
    """Return points of space, turned so that their axis of symmetry points up.

    That axis is the eigenvector of $W W^T$ whose eigenvalue differs most from the other two; where
    all three are equal, the first point is put up. The point nearest to the equator looks ahead, so
    that sets of points that differ by a rotation get the same pose, up to their symmetries.

    Args:
        points: 3 x features.
    """
    table = columns(points, hidden=3)
    sizes, axes = np.linalg.eigh(table @ table.T)
    last = 2 if sizes[2] - sizes[1] >= sizes[1] - sizes[0] else 0
    regular = np.ptp(sizes) < 1e-4 * max(sizes[2], 1e-30)
    up = table[:, 0] / np.linalg.norm(table[:, 0]) if regular else axes[:, last]
    side = np.linalg.svd(up[None])[2][1:]
    side[1] *= np.sign(np.linalg.det(np.vstack([side, up])))  # a rotation, never a mirror image
    x, y = side @ table[:, np.argmin(np.abs(up @ table))]
    around = np.arctan2(y, x)
    turn = np.array([[np.cos(around), np.sin(around)], [-np.sin(around), np.cos(around)]])
    return np.vstack([turn @ side, up]) @ table
