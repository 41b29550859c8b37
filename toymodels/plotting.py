"""From results to axes, in the visual language of the paper. The only importer of matplotlib.

Figures are made without `pyplot`: no global state, no window, no backend to choose. A notebook
shows them nevertheless. What is NaN, as in a cell that diverged, is left out of every picture.
"""

import io
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure

from toymodels.errors import InputError

__all__ = [
    "ANTIPODAL",
    "BACKGROUND",
    "DEDICATED",
    "DEDICATED_BESIDE_PAIR",
    "IMPORTANCE_MAP",
    "NOT_REPRESENTED",
    "PHASE_COLORS",
    "POLYTOPE_COLORS",
    "SUPERPOSITION_MAP",
    "SUPERPOSITION_NORM",
    "WEIGHT_MAP",
    "WEIGHT_NORM",
    "NotebookFigure",
    "feature_directions",
    "figure",
    "grouped_bars",
    "importance_bar",
    "log_image",
    "neuron_stacks",
    "norm_and_superposition",
    "norm_and_superposition_legend",
    "norm_bars",
    "phase_colors",
    "style",
    "weights_and_bias",
]

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


class NotebookFigure(Figure):
    """A figure that a notebook shows as a picture, without `pyplot` or `%matplotlib inline`."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (5.0, 3.5), **subplots: Any
) -> tuple[NotebookFigure, Any]:
    """A figure, which a notebook shows, with its axes as `Figure.subplots` gives them.

    Args:
        rows: of axes.
        columns: of axes.
        size: in inches, of the whole figure.
        **subplots: for `Figure.subplots`, such as `width_ratios`.
    """
    made = NotebookFigure(figsize=size, layout="constrained")
    return made, made.subplots(rows, columns, **subplots)


def log_image(
    axes: Axes,
    values: xr.DataArray,
    *,
    x: str,
    y: str,
    cmap: Colormap | str | None = None,
    norm: Normalize | str | None = None,
) -> QuadMesh:
    """An image on logarithmic axes: the edges of cells are geometric means of neighbouring centres.

    Args:
        axes: to draw on; both scales become logarithmic, values grow to the right and upwards.
        values: of each cell, or colours of each cell in one more dimension, as `phase_colors` and
            `norm_and_superposition` give them. Labels say which dimension is which, in any order.
        x: the dimension to the right, with coordinates above 0, in any order.
        y: the dimension upwards, likewise.
        cmap: the colours of values.
        norm: from values to these colours, such as "log".

    Returns:
        What `figure.colorbar` takes. Cells of NaN are left blank. A single row or column is as
        wide as from 1 to 2.

    Raises:
        ValueError: other dimensions than these; coordinates without a logarithm.
    """
    if not isinstance(values, xr.DataArray):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"values is a {type(values).__name__}: give an xarray.DataArray, whose dimensions say "
            "which one is x and which is y"
        )
    channels = [name for name in values.dims if name not in (x, y)]
    if x == y or {x, y} - set(values.dims) or len(channels) > 1:
        raise InputError(
            f"values has dimensions {values.dims}: give {x!r}, {y!r} and at most one of colours; "
            "select one of the others with .sel, or take a mean"
        )
    if channels and values.sizes[channels[0]] not in (3, 4):
        raise InputError(
            f"{channels[0]!r} has {values.sizes[channels[0]]} entries: colours have 3 or 4; select "
            "one with .sel, or take a mean"
        )
    edges = [_log_edges(values, name) for name in (x, y)]
    cells = values.sortby([x, y]).transpose(y, x, *channels).values
    if channels:
        missing: Any = np.isnan(cells).any(axis=-1)
        opaque = cells[..., 3] if cells.shape[-1] == 4 else np.ones(missing.shape)
        cells = np.concatenate([cells[..., :3], opaque[..., None]], axis=-1)
        cells = np.where(missing[..., None], 0.0, cells)
    axes.set(xscale="log", yscale="log")
    return axes.pcolormesh(*edges, cells, cmap=cmap, norm=norm, rasterized=True)


def _log_edges(values: xr.DataArray, name: str) -> Shaped[np.ndarray, " edges"]:
    if name not in values.coords or values[name].dtype.kind not in "iuf":
        raise InputError(f"dimension {name!r} has no coordinates of numbers: give it some")
    centres = np.sort(values[name].values.astype(float))
    if not (centres > 0).all():
        raise InputError(f"{name!r} holds {centres.min():g}, which has no place on a log axis")
    logs = np.log(centres)
    half = np.diff(logs) / 2 if logs.size > 1 else np.log(2) / 2 * np.ones(1)
    return np.exp(
        np.concatenate(
            [logs[:1] - half[:1], logs[:-1] + half[: logs.size - 1], logs[-1:] + half[-1:]]
        )
    )


def norm_and_superposition(norm: Any, superposition: Any) -> Any:
    """The paper's two-dimensional colour: grey to blue with the norm, to red with superposition.

    Args:
        norm: of a feature; 1 and more are the same.
        superposition: of that feature; 1 and more are the same.

    Returns:
        Red, green, blue and opacity in one more dimension, "channel" of labelled arrays. What is
        NaN is transparent.
    """
    return xr.apply_ufunc(
        _norm_and_superposition, norm, superposition, output_core_dims=[["channel"]]
    )


def _norm_and_superposition(norm: Any, superposition: Any) -> Shaped[np.ndarray, "*cells 4"]:
    norm, superposition = np.broadcast_arrays(norm, superposition)
    known = ~(np.isnan(norm) | np.isnan(superposition))
    length = np.clip(np.where(known, norm, 0), 0, 1)[..., None]
    mixture = np.clip(np.where(known, superposition, 0), 0, 1)[..., None]
    full = (1 - mixture) * np.asarray(to_rgb(DEDICATED)) + mixture * np.asarray(to_rgb(ANTIPODAL))
    colors = (1 - length) * np.asarray(to_rgb(NOT_REPRESENTED)) + length * full
    return _with_opacity(colors, known)


def _with_opacity(colors: Any, known: Any) -> Shaped[np.ndarray, "*cells 4"]:
    return np.where(known[..., None], np.insert(colors, 3, 1.0, axis=-1), 0.0)


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


def phase_colors(phase: Any) -> Any:
    """The paper's colours of the phases of `toymodels.theory.phases.Phase`.

    Args:
        phase: values of it, NaN where a cell diverged.

    Returns:
        Red, green, blue and opacity in one more dimension, "channel" of labelled arrays. What is
        NaN is transparent.

    Raises:
        ValueError: numbers that are no phase, such as means over seeds.
    """
    return xr.apply_ufunc(_phase_colors, phase, output_core_dims=[["channel"]])


def _phase_colors(phase: Any) -> Shaped[np.ndarray, "*cells 4"]:
    phase = np.asarray(phase, float)
    known = ~np.isnan(phase)
    number = np.where(known, phase, 0)
    wrong = number[~np.isin(number, range(len(PHASE_COLORS)))]
    if wrong.size:
        raise InputError(
            f"phase holds {wrong[0]:g}: give values of Phase, 0 to {len(PHASE_COLORS) - 1}, of one "
            "seed each"
        )
    colors = np.asarray([to_rgb(color) for color in PHASE_COLORS])
    return _with_opacity(colors[number.astype(int)], known)


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
    norm = _importance_norm(values)
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
    colors = ScalarMappable(_importance_norm(importance), IMPORTANCE_MAP)
    bar = figure.colorbar(colors, ax=grid, shrink=0.6, aspect=25, label="importance $I_i$")
    bar.outline.set_visible(False)  # pyright: ignore


def _importance_norm(importance: Shaped[Any, " features"]) -> Normalize:
    values = np.asarray(importance, float)
    known = values[np.isfinite(values)]
    return Normalize(known.min(initial=np.inf), known.max(initial=0)) if known.size else Normalize()


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


def grouped_bars(axes: Axes, values: xr.DataArray, *, groups: str, bars: str) -> None:
    """Groups of bars at the median over all other dimensions, with every value as a dot.

    Args:
        axes: to draw on.
        values: NaN where there is nothing to show.
        groups: the dimension along x.
        bars: the dimension within a group, named in the legend.
    """
    values = values.astype(float)
    count = values.sizes[bars]
    across = np.arange(values.sizes[groups])
    for number, name in enumerate(values[bars].values):
        chosen = values.sel({bars: name}).transpose(groups, ...).values
        flat = chosen.reshape(len(across), -1)
        known = ~np.isnan(flat).all(axis=1)
        if not known.any():
            continue
        place = across + (number - (count - 1) / 2) * 0.8 / count
        median = np.nanmedian(flat[known], axis=1)
        axes.bar(place[known], median, 0.8 / count, label=name, color=f"C{number}")
        axes.plot(place, flat, ".", color="black", markersize=3)
    axes.set_xticks(across, labels=[str(label) for label in values[groups].values])
