"""Feature directions as spokes."""

from typing import Any

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from toymodels.errors import InputError
from toymodels.plotting.colors import BACKGROUND, IMPORTANCE_MAP, importance_norm

__all__ = ["feature_directions", "importance_bar"]


def feature_directions(
    axes: Axes, weights: Shaped[Any, "2 features"], importance: Shaped[Any, " features"]
) -> None:
    """Columns of a 2 x n weight matrix as spokes from the origin, coloured by importance.

    Args:
        axes: to draw on; square, on the paper's cream background, without ticks or a frame.
        weights: feature directions, one per column.
        importance: of each feature; the greatest is yellow.
    """
    columns, values = np.asarray(weights).T, np.asarray(importance)
    if columns.ndim != 2 or columns.shape != (values.size, 2):
        raise InputError(
            f"weights has shape {columns.T.shape} and importance {values.shape}: give 2 hidden "
            "dimensions x features, and one importance for each feature"
        )
    norm = importance_norm(values)
    for column, value in zip(columns, values, strict=True):
        color = IMPORTANCE_MAP(norm(value))
        axes.plot([0, column[0]], [0, column[1]], color=color, linewidth=2)
        axes.plot(*column, "o", color=color, markersize=5)
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=(), yticks=())
    axes.set_facecolor(BACKGROUND)
    axes.spines[["right", "top"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_position("center")
        axes.spines[side].set_color("0.8")
        axes.spines[side].set_zorder(0)


def importance_bar(figure: Figure, grid: Any, importance: Shaped[Any, " features"]) -> None:
    """The colours of `feature_directions` as a bar beside `grid`."""
    colors = ScalarMappable(importance_norm(importance), IMPORTANCE_MAP)
    bar = figure.colorbar(colors, ax=grid, shrink=0.6, aspect=25, label="importance $I_i$")
    bar.outline.set_visible(False)  # pyright: ignore
