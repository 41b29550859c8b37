"""Dictionaries: how much variance they explain with how few latents."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from toymodels.errors import InputError
from toymodels.plotting.colors import CYCLE, MARKERS
from toymodels.plotting.scales import plain_ticks

__all__ = ["pareto"]


def pareto(
    axes: Axes,
    l0: xr.DataArray,
    explained: xr.DataArray,
    *,
    lines: str = "architecture",
    true_l0: float | None = None,
) -> None:
    """Draw explained variance over $L_0$: every dictionary, and the front of each architecture.

    The front is the most variance that any dictionary of an architecture explains with at most so
    many latents.

    Args:
        axes: axes to draw on; $L_0$ becomes logarithmic.
        l0: the mean number of latents that fire in an example.
        explained: the explained variance, of the same dimensions.
        lines: the dimension with one colour, one marker and one front for each coordinate.
        true_l0: the mean number of features that are active, as a dashed line; none if not given.

    Raises:
        ValueError: arrays of different dimensions, or without the dimension `lines`.
    """
    if set(l0.dims) != set(explained.dims) or lines not in l0.dims:
        raise InputError(
            f"l0 has dimensions {l0.dims} and explained {explained.dims}: give both the same ones, "
            f"with {lines!r} among them"
        )
    for number, name in enumerate(explained[lines].values):
        x, y = (
            values.sel({lines: name}).transpose(*[d for d in l0.dims if d != lines]).values.ravel()
            for values in (l0, explained)
        )
        style: Any = {"color": CYCLE[number % len(CYCLE)], "marker": MARKERS[number % len(MARKERS)]}
        axes.plot(x, y, linestyle="", markersize=3, alpha=0.4, markeredgewidth=0, **style)
        known = np.isfinite(x) & np.isfinite(y)
        order = np.argsort(x[known])
        front = np.maximum.accumulate(y[known][order])
        rises = np.flatnonzero(np.diff(front, prepend=-np.inf) > 0)
        best = x[known][order][rises], front[rises]
        axes.plot(*best, label=str(name), markersize=4, linewidth=1.2, **style)
    if true_l0 is not None:
        axes.axvline(true_l0, color="0.5", linestyle="--", linewidth=0.8, label="active features")
    _limits(axes, explained)
    axes.legend()


def _limits(axes: Axes, explained: Any) -> None:
    """Name the axes, and leave out the worst 2 % of the dictionaries if they lie far down."""
    low = float(explained.quantile(0.02)) if explained.notnull().any() else 0.0
    axes.set(xscale="log", xlabel="latents that fire in an example, $L_0$")
    plain_ticks(axes)
    axes.set(ylabel="explained variance", ylim=(max(low, -0.1) - 0.02, 1.02))
