"""Strips over densities: the dimensions of every feature, and the shapes that features form."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from toymodels.errors import InputError
from toymodels.plotting.colors import SHAPE_COLORS
from toymodels.plotting.scales import density_axis

__all__ = ["LEVELS", "dimension_strip", "shape_shares"]

LEVELS: Mapping[str, float] = {
    "dedicated": 1.0,
    "tetrahedron": 3 / 4,
    "triangle": 2 / 3,
    "digon": 1 / 2,
    "pentagon": 2 / 5,
    "square antiprism": 3 / 8,
    "not learned": 0.0,
}
"""The feature dimensionality in each polytope."""


def dimension_strip(
    axes: Axes,
    dimensionality: xr.DataArray,
    *,
    average: xr.DataArray | None = None,
    levels: Mapping[str, float] = LEVELS,
) -> None:
    r"""Draw the dimensionality of every feature over the inverse density, on the named levels.

    Args:
        axes: axes to draw on.
        dimensionality: $D_i$ over "density", "feature" and, if there are several, "seed".
        average: dimensions per feature $m / \lVert W \rVert_F^2$ over "density" and, if there are
            several, "seed": one grey line for each seed; no line if not given.
        levels: the values to mark by a band with a name, in the colour of the shape of that name.

    Raises:
        ValueError: other dimensions.
    """
    each, line = _by_seed(dimensionality, {"density", "feature"}), None
    if average is not None:
        line = _by_seed(average, {"density"})
    right = axes.get_yaxis_transform()
    height = np.inf  # a name stands below the one before it
    for name, level in sorted(levels.items(), key=lambda item: -item[1]):
        color = SHAPE_COLORS.get(name, "0.5")
        axes.axhspan(level - 0.008, level + 0.008, color=color, alpha=0.25, zorder=0, linewidth=0)
        height = min(level, height - 0.045)
        axes.text(1.01, height, name, color=color, va="center", fontsize=8, transform=right)
    inverse = 1 / each["density"].values
    # The features of a column are spread sideways, over 60 % of its width, in their order.
    width = np.abs(np.diff(np.log(inverse))).min(initial=0.1)
    spread = np.exp(np.linspace(-0.3, 0.3, each.sizes["feature"]) * width)
    across = np.broadcast_to(inverse[:, None, None] * spread, each.shape)
    seeds = each.sizes["seed"]
    axes.plot(
        across.ravel(), each.values.ravel(), ".", color="black", markersize=2, markeredgewidth=0,
        rasterized=True, label="$D_i$ of a feature" + (f", {seeds} seeds" if seeds > 1 else ""),
    )  # fmt: skip
    if line is not None:
        drawn = axes.plot(1 / line["density"], line.values, color="0.45", linewidth=1.2)
        drawn[0].set_label(r"average of a model, $m / \Vert W \Vert_F^2$")
    edge = np.exp(width)
    axes.set(xlim=(inverse.min() / edge, inverse.max() * edge), ylim=(-0.03, 1.08))
    axes.set(ylabel="dimensions of a feature", yticks=np.linspace(0, 1, 6))
    density_axis(axes, inverse=True)
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.92))


def _by_seed(values: xr.DataArray, wanted: set[str]) -> xr.DataArray:
    """Return the values with "density" first, from dense to sparse, and "seed" second."""
    if {str(name) for name in values.dims} | {"seed"} != wanted | {"seed"}:
        raise InputError(
            f"{values.name or 'the array'} has dimensions {values.dims}: give "
            f"{', '.join(map(repr, sorted(wanted)))} and, if there are several, 'seed'"
        )
    values = values if "seed" in values.dims else values.expand_dims("seed")
    return _from_dense(values).transpose("density", "seed", ...)


def _from_dense(values: xr.DataArray) -> xr.DataArray:
    """Return the values from dense to sparse, after a check that all densities have an inverse."""
    if "density" not in values.coords:
        raise InputError("dimension 'density' has no coordinates: give it the densities")
    if not (values["density"] > 0).all():
        least = values["density"].values.min()
        raise InputError(
            f"'density' holds {least:g}, which has no place on a log axis: leave it out"
        )
    return values.sortby("density", ascending=False)


def shape_shares(
    axes: Axes,
    shares: xr.DataArray,
    *,
    winners: Sequence[tuple[str, float, float]] = (),
    colors: Mapping[str, Any] = SHAPE_COLORS,
) -> None:
    """Draw the share that each shape has as areas over the inverse density, with their names.

    Args:
        axes: axes to draw on.
        shares: the share of each shape over "density" and "shape", whose coordinates are names.
        winners: polytopes that should win in theory, each as its name, and the inverse densities
            where it begins and ends; they are drawn as a strip above the areas.
        colors: the colour of each name.

    Raises:
        ValueError: other dimensions, or a name that has no colour.
    """
    if set(shares.dims) != {"density", "shape"}:
        raise InputError(
            f"shares has dimensions {shares.dims}: give 'density' and 'shape'; take a mean over "
            "the others"
        )
    table = _from_dense(shares).transpose("shape", "density")
    table = table.isel(shape=np.flatnonzero((table > 0).any("density")))
    inverse, names = 1 / table["density"].values, [str(name) for name in table["shape"].values]
    if unknown := [
        each for each in (*names, *(name for name, *_ in winners)) if each not in colors
    ]:
        raise InputError(f"the shape {unknown[0]!r} has no colour: give it one in colors=")
    axes.stackplot(inverse, table.values, colors=[colors[name] for name in names], labels=names)
    for name, start, end in winners:
        axes.barh(1.09, end - start, 0.08, start, color=colors[name])
    if winners:
        axes.text(inverse[-1], 1.15, "in theory: the largest gain", ha="right", fontsize=8)
    axes.set(xlim=(inverse[0], inverse[-1]), ylim=(0, 1.25 if winners else 1))
    axes.set(yticks=np.linspace(0, 1, 5), ylabel="share")
    density_axis(axes, inverse=True)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
