"""Bars of features and stacks of neurons."""

from typing import Any

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes

from toymodels.errors import InputError
from toymodels.plotting.colors import SUPERPOSITION_MAP, SUPERPOSITION_NORM

__all__ = ["neuron_stacks", "norm_bars"]


def norm_bars(
    axes: Axes, norm: Shaped[Any, " features"], superposition: Shaped[Any, " features"]
) -> None:
    """One horizontal bar for each feature, the first on top, coloured by its superposition.

    Args:
        axes: to draw on; up to a norm of 1.3.
        norm: of each feature.
        superposition: of each; 1 and more are the same.
    """
    lengths, shared = np.asarray(norm), np.asarray(superposition)
    if lengths.ndim != 1 or lengths.shape != shared.shape:
        raise InputError(
            f"norm has shape {lengths.shape} and superposition {shared.shape}: give one number of "
            "each for every feature"
        )
    colors = SUPERPOSITION_MAP(SUPERPOSITION_NORM(shared))
    axes.barh(np.arange(len(lengths)), lengths, height=0.8, color=colors, rasterized=True)
    axes.set(xlim=(0, 1.3), ylim=(len(lengths) - 0.4, -0.6), xticks=(0, 1), yticks=())
    axes.spines["bottom"].set_visible(False)


def neuron_stacks(
    axes: Axes,
    weights: Shaped[Any, "neurons features"],
    colors: Shaped[Any, "features channels"],
    *,
    tint: Shaped[Any, "neurons channels"] | None = None,
) -> None:
    """The paper's stack plot: a column for each neuron, a rectangle for each of its weights.

    Positive weights are piled up from the axis in the order of the features, negative ones
    down; heights are absolute values, so that a neuron for one feature is one rectangle.

    Args:
        axes: to draw on; neurons from left to right.
        weights: neurons x features; NaN draws nothing.
        colors: of the features, features x 3 or 4.
        tint: background of each neuron, neurons x 3 or 4.
    """
    table = np.nan_to_num(np.asarray(weights, float))
    if table.ndim != 2 or table.shape[1] != len(colors):
        raise InputError(
            f"weights has shape {table.shape} for {len(colors)} colors: give neurons x features, "
            "and one colour for each feature"
        )
    places = np.arange(len(table))
    for part in (np.maximum(table, 0), np.minimum(table, 0)):
        starts = np.cumsum(part, axis=1) - part
        for height, start, color in zip(part.T, starts.T, colors, strict=True):
            seen = height != 0
            axes.bar(
                places[seen],
                height[seen],
                0.8,
                start[seen],
                color=color,
                edgecolor="white",
                linewidth=0.3,
            )
    if tint is not None:
        for place, color in zip(places, tint, strict=True):
            axes.axvspan(place - 0.5, place + 0.5, color=color, zorder=0, linewidth=0)
    axes.axhline(0, color="0.3", linewidth=0.6)
    axes.set(xticks=(), xlim=(-0.5, len(table) - 0.5))
    axes.spines["bottom"].set_visible(False)
