"""Maps of two dimensions of results: heat maps, images on logarithmic axes, phase diagrams."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Patch

from toymodels.errors import InputError
from toymodels.plotting.colors import PHASE_COLORS, VALUE_MAP, phase_colors
from toymodels.plotting.scales import density_axis, name_of, plain, plain_ticks
from toymodels.theory.phases import Phase

__all__ = [
    "PHASE_NAMES",
    "heat_map",
    "log_image",
    "phase_diagram",
]

# One name for each `toymodels.theory.phases.Phase`, in the order of its values.
PHASE_NAMES = ("not represented", "dedicated", "in superposition", "dedicated beside a pair")


def heat_map(
    axes: Axes,
    values: xr.DataArray,
    *,
    x: str,
    y: str,
    numbers: str = "",
    cmap: Colormap | str = VALUE_MAP,
    norm: Normalize | str | None = None,
) -> QuadMesh:
    """Draw a table of cells of equal size, with the coordinates as the names of rows and columns.

    The cell in column i and row j is centred at (i, j), the first at the lower left; a dimension
    of numbers is sorted, so that its values grow to the right and upwards. `log_image` places
    each cell at the values of its coordinates instead.

    Args:
        axes: axes to draw on; they get the names of the dimensions.
        values: the value of each cell; the labels say which dimension is which, in any order.
        x: the dimension to the right.
        y: the dimension upwards.
        numbers: the format of the value in each cell, such as ".2f"; "" writes none.
        cmap: the colours of the values.
        norm: the scale from values to these colours, such as `Normalize(0, 1)` or "log".

    Returns:
        The image, for `color_bar`. Cells of NaN are hatched.

    Raises:
        ValueError: `values` has other dimensions than `x` and `y`.
    """
    cells = _cells(values, x, y)
    edges = [np.arange(cells.sizes[name] + 1) - 0.5 for name in (x, y)]
    image = axes.pcolormesh(*edges, cells.values, cmap=cmap, norm=norm, rasterized=True)
    _hatch_missing(axes, cells)
    for name, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        names: Any = cells[name].values
        step = -(-len(names) // 12)
        axis.set_ticks(range(0, len(names), step), [plain(name) for name in names[::step]])
        axis.set_tick_params(length=0)
        axis.set_label_text(name_of(values[name]))
    if numbers:
        _write(axes, image, cells, numbers)
    return image


def log_image(
    axes: Axes,
    values: xr.DataArray,
    *,
    x: str,
    y: str,
    cmap: Colormap | str = VALUE_MAP,
    norm: Normalize | str | None = None,
) -> QuadMesh:
    """Draw an image on logarithmic axes; cells end at geometric means of neighbouring centres.

    Args:
        axes: axes to draw on; both scales become logarithmic, values grow to the right and
            upwards. They get the names of the dimensions and ticks in plain numbers.
        values: the value of each cell, or its colour in one more dimension, as `phase_colors` and
            `norm_and_superposition` give them. Labels say which dimension is which, in any order.
        x: the dimension to the right, with coordinates above 0, in any order.
        y: the dimension upwards, with coordinates above 0, in any order.
        cmap: the colours of the values.
        norm: the scale from values to these colours, such as `Normalize(0, 1)` or "log".

    Returns:
        The image, for `color_bar`. Cells of NaN are hatched. A single row or column spans a
        factor of 2.

    Raises:
        ValueError: `values` has other dimensions than these, or coordinates without a logarithm.
    """
    cells = _cells(values, x, y, may_be_colors=True)
    edges = [_log_edges(cells, name) for name in (x, y)]
    colors = cells.values
    if cells.ndim == 3:
        missing: Any = np.isnan(colors).any(axis=-1)
        opaque = colors[..., 3] if colors.shape[-1] == 4 else np.ones(missing.shape)
        colors = np.concatenate([colors[..., :3], opaque[..., None]], axis=-1)
        colors = np.where(missing[..., None], 0.0, colors)
    axes.set(xscale="log", yscale="log")
    image = axes.pcolormesh(*edges, colors, cmap=cmap, norm=norm, rasterized=True)
    _hatch_missing(axes, cells)
    for name, along in ((x, "x"), (y, "y")):
        if name == "density":
            density_axis(axes, along)
        else:
            axes.set(**{f"{along}label": name_of(values[name])})
            plain_ticks(axes, along)
    return image


def _cells(values: Any, x: str, y: str, *, may_be_colors: bool = False) -> xr.DataArray:
    """Return the values with `y` first, `x` second, and the dimension of colours last, if any."""
    if not isinstance(values, xr.DataArray):
        raise InputError(
            f"values is a {type(values).__name__}: give an xarray.DataArray, whose dimensions say "
            "which one is x and which is y"
        )
    others = [name for name in values.dims if name not in (x, y)]
    if x == y or {x, y} - set(values.dims) or len(others) > (1 if may_be_colors else 0):
        more = " and at most one of colours" if may_be_colors else ""
        raise InputError(
            f"values has dimensions {values.dims}: give {x!r}, {y!r}{more}; "
            "select one of the others with .sel, or take a mean"
        )
    if others and values.sizes[others[0]] not in (3, 4):
        raise InputError(
            f"{others[0]!r} has {values.sizes[others[0]]} entries: colours have 3 or 4; select "
            "one with .sel, or take a mean"
        )
    numeric = [name for name in (x, y) if name in values.coords and _is_numeric(values[name])]
    return values.sortby(numeric).transpose(y, x, *others)


def _is_numeric(values: xr.DataArray) -> bool:
    return values.dtype.kind in "iuf"


def _log_edges(values: xr.DataArray, name: str) -> Shaped[np.ndarray, " edges"]:
    if name not in values.coords or not _is_numeric(values[name]):
        raise InputError(f"dimension {name!r} has no coordinates of numbers: give it some")
    centres = values[name].values.astype(float)
    if not (centres > 0).all():
        raise InputError(f"{name!r} holds {centres.min():g}, which has no place on a log axis")
    logs = np.log(centres)
    if logs.size == 1:
        return np.exp(logs + np.log(2) / 2 * np.array([-1, 1]))
    between = (logs[1:] + logs[:-1]) / 2
    # The outer cells reach as far outwards as inwards.
    first, last = 2 * logs[0] - between[0], 2 * logs[-1] - between[-1]
    return np.exp(np.array([first, *between, last]))


def _hatch_missing(axes: Axes, cells: xr.DataArray) -> None:
    """Hatch the background of the axes if some cells, which are transparent, have no value."""
    values = cells.values
    missing = np.isnan(values) if cells.ndim == 2 else np.isnan(values).any(-1)
    if cells.ndim == 3 and values.shape[-1] == 4:
        missing |= values[..., 3] == 0
    if missing.any():
        axes.patch.set(hatch="////", edgecolor="0.8", facecolor="white", linewidth=0)


def _write(axes: Axes, image: QuadMesh, cells: xr.DataArray, numbers: str) -> None:
    """Write the numbers, white on dark cells and black on light ones."""
    colors = image.to_rgba(cells.values)  # pyright: ignore
    for (row, column), value in np.ndenumerate(cells.values):
        if np.isfinite(value):
            dark = colors[row, column, :3] @ (0.299, 0.587, 0.114) < 0.55
            axes.text(
                column, row, f"{value:{numbers}}", ha="center", va="center", fontsize=7,
                color="white" if dark else "black",
            )  # fmt: skip


def phase_diagram(
    axes: Axes,
    phases: xr.DataArray,
    *,
    x: str = "importance",
    y: str = "density",
    legend: bool = True,
) -> QuadMesh:
    """Draw a phase diagram in the paper's colours, with a legend of the phases that occur.

    Args:
        axes: axes to draw on; both scales become logarithmic.
        phases: values of `toymodels.theory.phases.Phase` of each cell, NaN where it diverged.
        x: the dimension to the right.
        y: the dimension upwards.
        legend: whether to name the phases below the diagram.

    Returns:
        The image. Cells of NaN are hatched.

    Raises:
        ValueError: a number is no phase, or `phases` has other dimensions than `x` and `y`.
    """
    image = log_image(axes, phase_colors(phases), x=x, y=y)
    if legend:
        found = [phase for phase in Phase if (phases == phase).any()]
        patches = [Patch(color=PHASE_COLORS[phase], label=PHASE_NAMES[phase]) for phase in found]
        axes.legend(
            handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, handlelength=1
        )
    return image
