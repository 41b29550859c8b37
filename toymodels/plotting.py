"""From results to axes, in the visual language of the paper. The only importer of matplotlib.

Figures are made without `pyplot`: no global state, no window, no backend to choose.
"""

from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

Colors: TypeAlias = NDArray[Any]

IMPORTANCE_MAP = mpl.colormaps["viridis"]
WEIGHT_MAP, WEIGHT_NORM = mpl.colormaps["coolwarm"], Normalize(-1, 1)
SUPERPOSITION_MAP = LinearSegmentedColormap.from_list(
    "superposition", ["#16224d", "#31688e", "#21918c", "#5ec962", "#fde725"]
)
SUPERPOSITION_NORM = Normalize(0, 1)
BACKGROUND = "#FCFBF8"
# Dedicated, tetrahedron, triangle, digon, pentagon, antiprism, not learned, as in the paper.
POLYTOPE_COLORS = ("#cc33aa", "#3366cc", "#229944", "#ccaa00", "#ee7722", "#7744aa", "#cc2222")
NOT_REPRESENTED, DEDICATED, ANTIPODAL = "#dddddd", "#003399", "#dd4444"
DEDICATED_BESIDE_PAIR = "#2255bb"
# In the order of `toymodels.theory.phases.Phase`.
PHASE_COLORS = (NOT_REPRESENTED, DEDICATED, ANTIPODAL, DEDICATED_BESIDE_PAIR)

_STYLE: Any = {
    "axes.edgecolor": "0.4",
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "toymodels",  # the same figure is the same file
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def style() -> AbstractContextManager[None]:
    """House style for all that is drawn inside, leaving the user's own settings alone."""
    return mpl.rc_context(_STYLE)


def figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (5.0, 3.5), **subplots: Any
) -> tuple[Figure, Any]:
    """A figure with its axes as `Figure.subplots` gives them.

    Args:
        rows: of axes.
        columns: of axes.
        size: in inches, of the whole figure.
        **subplots: for `Figure.subplots`, such as `width_ratios`.
    """
    made = Figure(figsize=size, layout="constrained")
    return made, made.subplots(rows, columns, **subplots)


def log_image(axes: Axes, x: ArrayLike, y: ArrayLike, colors: Colors) -> None:
    """An image of cells evenly spaced in log x and log y.

    Args:
        axes: to draw on; both scales become logarithmic, y grows upwards.
        x: centres of the columns.
        y: centres of the rows.
        colors: RGB of each cell, rows x columns x 3.
    """
    axes.pcolormesh(np.asarray(x), np.asarray(y), colors, shading="nearest", rasterized=True)
    axes.set(xscale="log", yscale="log")


def norm_and_superposition(norm: ArrayLike, superposition: ArrayLike) -> Colors:
    """The paper's two-dimensional colour: grey to blue with the norm, to red with superposition.

    Args:
        norm: of a feature; 1 and more are the same.
        superposition: of that feature; 1 and more are the same.
    """
    length = np.clip(np.asarray(norm), 0, 1)[..., None]
    mixture = np.clip(np.asarray(superposition), 0, 1)[..., None]
    full = (1 - mixture) * np.asarray(to_rgb(DEDICATED)) + mixture * np.asarray(to_rgb(ANTIPODAL))
    return (1 - length) * np.asarray(to_rgb(NOT_REPRESENTED)) + length * full


def norm_and_superposition_legend(axes: Axes) -> None:
    """The square of all colours of `norm_and_superposition`, with the three phases named."""
    side = np.linspace(0, 1, 64)
    superposition, norm = np.meshgrid(side, side)
    colors = norm_and_superposition(norm, superposition)
    axes.imshow(colors, origin="lower", extent=(0, 1, 0, 1), interpolation="bilinear")
    axes.set(xlabel="superposition", ylabel="norm $||W_i||$", xticks=(0, 1), yticks=(0, 1))
    axes.set_xticklabels(["0", "≥ 1"])
    axes.set_yticklabels(["0", "≥ 1"])
    axes.text(0.5, 0.04, "not represented", ha="center", color="0.2")
    axes.text(0.04, 0.93, "dedicated", va="center", color="white")
    axes.text(0.96, 0.93, "antipodal", va="center", ha="right", color="white")


def phase_colors(phase: ArrayLike) -> Colors:
    """The paper's colours of the phases of `toymodels.theory.phases.Phase`."""
    return np.asarray([to_rgb(color) for color in PHASE_COLORS])[np.asarray(phase, int)]


def feature_directions(axes: Axes, weights: ArrayLike, importance: ArrayLike) -> None:
    """Columns of a 2 x n weight matrix as spokes from the origin, coloured by importance.

    Args:
        axes: to draw on; square, on the paper's cream background, without ticks.
        weights: feature directions, one per column.
        importance: of each feature; the greatest is yellow.
    """
    norm = _importance_norm(importance)
    for column, value in zip(np.asarray(weights).T, np.asarray(importance), strict=True):
        color = IMPORTANCE_MAP(norm(value))
        axes.plot([0, column[0]], [0, column[1]], color=color, linewidth=2)
        axes.plot(*column, "o", color=color, markersize=5)
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=(), yticks=())
    axes.set_facecolor(BACKGROUND)
    for side in ("left", "bottom"):
        axes.spines[side].set_position("center")
        axes.spines[side].set_color("0.8")
        axes.spines[side].set_zorder(0)


def importance_bar(figure: Figure, grid: Any, importance: ArrayLike) -> None:
    """The colours of `feature_directions` as a bar beside `grid`."""
    colors = ScalarMappable(_importance_norm(importance), IMPORTANCE_MAP)
    bar = figure.colorbar(colors, ax=grid, shrink=0.6, aspect=25, label="importance $I_i$")
    bar.outline.set_visible(False)  # pyright: ignore


def _importance_norm(importance: ArrayLike) -> Normalize:
    values = np.asarray(importance)
    return Normalize(float(values.min()), float(values.max()))


def weights_and_bias(axes: Axes, gram: ArrayLike, bias: ArrayLike) -> None:
    """$W^T W$ from blue at -1 to red at 1, with the bias as one more column, a gap apart.

    Args:
        axes: to draw on; without ticks or frame.
        gram: features x features.
        bias: of each feature.
    """
    column = np.asarray(bias)[:, None]
    width = max(1, len(column) // 20)
    gap = np.full((len(column), width), np.nan)
    columns = np.hstack([np.asarray(gram), gap, np.repeat(column, width, axis=1)])
    axes.imshow(columns, cmap=WEIGHT_MAP, norm=WEIGHT_NORM, interpolation="nearest", aspect="equal")
    axes.set(xticks=(), yticks=())
    for spine in axes.spines.values():
        spine.set_visible(False)


def norm_bars(axes: Axes, norm: ArrayLike, superposition: ArrayLike) -> None:
    """One horizontal bar for each feature, the first on top, coloured by its superposition.

    Args:
        axes: to draw on; up to a norm of 1.3.
        norm: of each feature.
        superposition: of each; 1 and more are the same.
    """
    lengths = np.asarray(norm)
    colors = SUPERPOSITION_MAP(SUPERPOSITION_NORM(np.asarray(superposition)))
    axes.barh(np.arange(len(lengths)), lengths, height=0.8, color=colors, rasterized=True)
    axes.set(xlim=(0, 1.3), ylim=(len(lengths) - 0.4, -0.6), xticks=(0, 1), yticks=())
    axes.spines["bottom"].set_visible(False)


def neuron_stacks(
    axes: Axes, weights: ArrayLike, colors: Colors, *, tint: Colors | None = None
) -> None:
    """The paper's stack plot: a column for each neuron, a rectangle for each of its weights.

    Positive weights are piled up from the axis in the order of the features, negative ones
    down; heights are absolute values, so that a neuron for one feature is one rectangle.

    Args:
        axes: to draw on; neurons from left to right.
        weights: neurons x features.
        colors: of the features, features x 3 or 4.
        tint: background of each neuron, neurons x 3 or 4.
    """
    table = np.asarray(weights)
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


def grouped_bars(axes: Axes, values: xr.DataArray, *, groups: str, bars: str) -> None:
    """Groups of bars at the median over all other dimensions, with every value as a dot.

    Args:
        axes: to draw on.
        values: NaN where there is nothing to show.
        groups: the dimension along x.
        bars: the dimension within a group, named in the legend.
    """
    count = values.sizes[bars]
    across = np.arange(values.sizes[groups])
    for number, name in enumerate(values[bars].values):
        chosen = values.sel({bars: name}).transpose(groups, ...).values
        flat = chosen.reshape(len(across), -1)
        if np.isnan(flat).all():
            continue
        place = across + (number - (count - 1) / 2) * 0.8 / count
        axes.bar(place, np.nanmedian(flat, axis=1), 0.8 / count, label=name, color=f"C{number}")
        axes.plot(place, flat, ".", color="black", markersize=3)
    axes.set_xticks(across, labels=[str(label) for label in values[groups].values])
