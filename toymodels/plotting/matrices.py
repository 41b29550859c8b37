"""Matrices of weights, with signs as colours."""

from typing import Any

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes

from toymodels.errors import InputError
from toymodels.plotting.colors import WEIGHT_MAP, WEIGHT_NORM

__all__ = ["weights_and_bias"]


def weights_and_bias(
    axes: Axes, gram: Shaped[Any, "features features"], bias: Shaped[Any, " features"]
) -> None:
    """$W^T W$ from blue at -1 to red at 1, with the bias as one more column, a gap apart.

    Args:
        axes: to draw on; without ticks or frame.
        gram: features x features.
        bias: of each feature.
    """
    table, column = np.asarray(gram), np.asarray(bias)
    if column.ndim != 1 or table.shape != (column.size, column.size):
        raise InputError(
            f"gram has shape {table.shape} and bias {column.shape}: give features x features, such "
            "as weights.T @ weights, and one bias for each feature"
        )
    column = column[:, None]
    width = max(1, len(column) // 20)
    gap = np.full((len(column), width), np.nan)
    columns = np.hstack([table, gap, np.repeat(column, width, axis=1)])
    axes.imshow(columns, cmap=WEIGHT_MAP, norm=WEIGHT_NORM, interpolation="nearest", aspect="equal")
    axes.set(xticks=(), yticks=())
    for spine in axes.spines.values():
        spine.set_visible(False)
