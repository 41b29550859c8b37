"""Matrices of weights, with their signs as colours: blue is negative, red is positive."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage

from toymodels.analysis.polytopes import identify
from toymodels.errors import InputError
from toymodels.plotting.colors import WEIGHT_MAP
from toymodels.plotting.scales import name_of
from toymodels.plotting.vectors import columns

__all__ = ["by_component", "gram", "signed_matrix"]


def signed_matrix(
    axes: Axes, table: Any, *, limit: float = 1.0, numbers: str = "", smallest: float = 0.0
) -> AxesImage:
    """Draw a matrix from blue at `-limit` over grey at 0 to red at `limit`, its first row on top.

    Args:
        axes: axes to draw on; without ticks or a frame. A labelled array names its dimensions.
        table: rows x columns; NaN is left blank, and so makes a gap.
        limit: the value of the deepest colour; larger ones have that colour, too.
        numbers: the format of the value in each cell, such as ".2f"; "" writes none.
        smallest: absolute values below it are not written.

    Returns:
        The image, for `color_bar`.

    Raises:
        ValueError: `table` has another number of dimensions, such as one of seeds.
    """
    values = np.asarray(table, float)
    if values.ndim != 2:
        raise InputError(f"table has shape {values.shape}: give rows x columns")
    image = axes.imshow(
        values, cmap=WEIGHT_MAP, norm=Normalize(-limit, limit), interpolation="nearest"
    )
    if isinstance(table, xr.DataArray):
        rows, across = (name_of(table[name]) if name in table.coords else str(name)
                        for name in table.dims)  # fmt: skip
        axes.set(xlabel=across, ylabel=rows)
    axes.set(xticks=(), yticks=())
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if numbers and np.isfinite(value) and abs(value) >= smallest:
            axes.text(
                column, row, f"{value:{numbers}}".replace("0.", "."), ha="center", va="center",
                fontsize=7, color="white" if abs(value) > 0.7 * limit else "black",
            )  # fmt: skip
    return image


def gram(
    axes: Axes, weights: Any, bias: Any = None, *, order: Any = None, limit: float = 1.0
) -> AxesImage:
    """Draw $W^T W$, with the bias as one more column, a gap apart.

    Args:
        axes: axes to draw on; without ticks or a frame.
        weights: hidden x features; a labelled array has a dimension "feature", in any order.
        bias: the bias of each feature; no column if not given.
        order: the features from top to bottom, such as `by_component(weights)`; as they are in
            `weights` if not given.
        limit: the value of the deepest colour.

    Returns:
        The image, for `color_bar`.

    Raises:
        ValueError: another number of biases than of features.
    """
    table = columns(weights)
    count = table.shape[1]
    shown = np.arange(count) if order is None else np.asarray(order)
    overlaps = table[:, shown].T @ table[:, shown]
    if bias is None:
        return signed_matrix(axes, overlaps, limit=limit)
    biases = np.asarray(bias, float)
    if biases.shape != (count,):
        raise InputError(
            f"bias has shape {biases.shape} for {count} features: give one bias for each"
        )
    width = max(1, count // 20)  # the gap and the column of biases have this width, in cells
    gap = np.full((len(shown), width), np.nan)
    column = np.repeat(biases[shown, None], width, axis=1)
    return signed_matrix(axes, np.hstack([overlaps, gap, column]), limit=limit)


def by_component(weights: Any) -> Int[np.ndarray, " features"]:
    """Return the order of features in which those of one polytope stand together.

    The components are those of `toymodels.analysis.polytopes.identify`, the largest first;
    features that are not represented come last.
    """
    found = identify(columns(weights))
    parts = sorted(found.components, key=lambda part: (-len(part.features), part.features))
    order = [feature for part in parts for feature in part.features]
    return np.array([*order, *found.not_represented], int)
