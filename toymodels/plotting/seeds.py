"""Every seed of a sweep as a dot, with what the reader must know to judge them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from toymodels.errors import InputError
from toymodels.plotting.colors import CYCLE, MARKERS
from toymodels.plotting.scales import name_of, plain

__all__ = [
    "bands",
    "every_seed",
    "grouped_bars",
    "horizontal_bars",
    "mean_and_range",
    "range_band",
]


def every_seed(
    axes: Axes,
    values: xr.DataArray,
    *,
    x: str,
    lines: str | None = None,
    chosen: xr.DataArray | None = None,
    choice: str = "seed of lowest loss",
    label: str = "",
    color: str | None = None,
    marker: str | None = None,
    seed: str = "seed",
    legend: bool = True,
) -> None:
    """Draw a dot for every seed and a line through the median, or through a chosen value.

    The legend says how many seeds there are and what the line is.

    Args:
        axes: axes to draw on.
        values: the values of every seed, over `x`, `seed`, and `lines` if that is given.
        x: the dimension to the right, with coordinates of numbers.
        lines: a dimension with one colour, one marker and one line for each of its coordinates.
        chosen: the values of the line over `x`, and `lines` if that is given; the median over the
            seeds if not given.
        choice: what `chosen` is, for the legend.
        label: the name of the values in the legend; with `lines` the coordinates name them.
        color: the colour of dots and line; the next of `CYCLE` that the axes have not shown if not
            given.
        marker: marker of the dots; the one that belongs to the colour if not given.
        seed: the dimension of the seeds.
        legend: whether to draw the legend.

    Raises:
        ValueError: `values` has other dimensions, or `x` has no coordinates of numbers.
    """
    _check(values, x, seed, lines)
    parts = [(values, chosen, label)]
    if lines is not None:
        parts = [
            (values.sel({lines: at}), None if chosen is None else chosen.sel({lines: at}),
             f"{name_of(values[lines])} {plain(at.item())}" if at.dtype.kind in "iuf" else str(at))
            for at in values[lines].values
        ]  # fmt: skip
    known = len([line for line in axes.get_lines() if line.get_gid() == "median of seeds"])
    for number, (every, line, name) in enumerate(parts, known):
        own = color or CYCLE[number % len(CYCLE)]
        shape = marker or MARKERS[CYCLE.index(own) if own in CYCLE else number % len(MARKERS)]
        dots = every.transpose(x, seed)
        axes.plot(
            dots[x], dots.values, shape, color=own, markersize=3, alpha=0.5, markeredgewidth=0,
            rasterized=True,
        )  # fmt: skip
        middle = every.median(seed) if line is None else line
        axes.plot(
            middle[x], middle.transpose(x).values, color=own, linewidth=1.2, label=name or "_line",
            gid="median of seeds", marker=shape, markersize=4,
        )  # fmt: skip
    seeds = values.sizes[seed]
    _note(axes, f"each of {seeds} seeds" if seeds > 1 else "one seed", "o")
    if seeds > 1 or chosen is not None:
        _note(axes, "median of seeds" if chosen is None else choice, "-")
    axes.set(xlabel=axes.get_xlabel() or name_of(values[x]))
    if legend:
        axes.legend()


def bands(axes: Axes, values: xr.DataArray, *, x: str, lines: str, seed: str = "seed") -> None:
    """Draw a line through the mean of the seeds, and a band between their quartiles.

    Args:
        axes: axes to draw on.
        values: the values of every seed, over `x`, `lines` and `seed`.
        x: the dimension to the right, with coordinates of numbers.
        lines: a dimension with one colour, one marker, one line and one entry of the legend for
            each of its coordinates.
        seed: the dimension of the seeds.

    Raises:
        ValueError: `values` has other dimensions, or `x` has no coordinates of numbers.
    """
    _check(values, x, seed, lines)
    for number, name in enumerate(values[lines].values):
        own = values.sel({lines: name}).transpose(x, seed)
        low, high = np.nanpercentile(own.values, (25, 75), axis=1)
        color = CYCLE[number % len(CYCLE)]
        axes.fill_between(
            own[x], low, high, color=color, alpha=0.15, linewidth=0, antialiased=False
        )
        axes.plot(
            own[x], own.mean(seed), color=color, marker=MARKERS[number % len(MARKERS)],
            markersize=3.5, linewidth=1.2, label=str(name),
        )  # fmt: skip
    axes.set(xlabel=axes.get_xlabel() or name_of(values[x]))


def range_band(
    axes: Axes,
    values: xr.DataArray,
    *,
    x: str,
    color: str,
    label: str = "",
    marker: str = "",
    seed: str = "seed",
) -> None:
    """Draw a line through the median of the seeds, and a band from the lowest to the highest.

    Args:
        axes: axes to draw on.
        values: the values of every seed, over `x` and `seed`.
        x: the dimension to the right, with coordinates of numbers.
        color: the colour of the line and of the band.
        label: the name of the line in the legend.
        marker: the marker at each median; none if not given.
        seed: the dimension of the seeds.

    Raises:
        ValueError: `values` has other dimensions, or `x` has no coordinates of numbers.
    """
    _check(values, x, seed, None)
    low, high = values.min(seed), values.max(seed)
    axes.fill_between(values[x], low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(values[x], values.median(seed), color=color, marker=marker, ms=4, label=label)


def mean_and_range(
    values: xr.DataArray, over: str | Sequence[str] = "seed"
) -> tuple[xr.DataArray, tuple[xr.DataArray, xr.DataArray]]:
    """Return the mean over dimensions, and how far the lowest and the highest value are from it.

    They are the heights and the lengths of the bars that `Axes.errorbar` takes.
    """
    mean = values.mean(over)
    return mean, (mean - values.min(over), values.max(over) - mean)


def _check(values: xr.DataArray, x: str, seed: str, lines: str | None) -> None:
    """Check that the values have these dimensions alone, and that `x` holds numbers."""
    if not isinstance(values, xr.DataArray):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"values is a {type(values).__name__}: give an xarray.DataArray, whose dimensions say "
            f"which one is {x} and which is {seed}"
        )
    wanted = {x, seed} | ({lines} if lines is not None else set())
    if set(values.dims) != wanted:
        raise InputError(
            f"values has dimensions {values.dims}: give {', '.join(map(repr, sorted(wanted)))}; "
            "select one of the others with .sel, or take a mean"
        )
    if x not in values.coords or values[x].dtype.kind not in "iuf":
        raise InputError(f"dimension {x!r} has no coordinates of numbers: give it some")


def _note(axes: Axes, text: str, style: str) -> None:
    """Write what dots and lines are into the legend, once, after all names so far."""
    for line in axes.get_lines():
        if line.get_label() == text:
            line.remove()
    axes.plot([], [], style, color="0.4", markersize=3, linewidth=1.2, label=text)


def grouped_bars(axes: Axes, values: xr.DataArray, *, groups: str, bars: str) -> None:
    """Draw groups of bars at the median over all other dimensions, with every value as a dot.

    Args:
        axes: axes to draw on.
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
        known: Any = ~np.isnan(flat).all(axis=1)
        if not known.any():
            continue
        place = across + (number - (count - 1) / 2) * 0.8 / count
        median = np.nanmedian(flat[known], axis=1)
        color = CYCLE[number % len(CYCLE)]
        axes.bar(place[known], median, 0.8 / count, label=name, color=color)
        axes.plot(place, flat, ".", color="black", markersize=3)
    axes.set_xticks(across, labels=[str(label) for label in values[groups].values])


def horizontal_bars(
    axes: Axes, values: xr.DataArray, *, bars: str, numbers: str = ".0f", unit: str = ""
) -> None:
    """Draw a horizontal bar at each median, with every value as a dot and the median in words.

    The first bar is at the top. It has a colour, and the others are grey.

    Args:
        axes: axes to draw on.
        values: the values over `bars` and one other dimension, such as the rounds of a measurement.
        bars: the dimension that has one bar for each of its coordinates, which name the bars.
        numbers: the format of the medians that are written, such as ".2g".
        unit: what is written after each median.

    Raises:
        ValueError: `values` has other dimensions.
    """
    if values.ndim != 2 or bars not in values.dims:
        raise InputError(f"values has dimensions {values.dims}: give {bars!r} and one other")
    values = values.transpose(bars, ...)
    places = np.arange(values.sizes[bars])
    medians = np.median(values, axis=1)
    axes.barh(places, medians, color=["C0", *["0.6"] * (len(places) - 1)])
    for place, each, median in zip(places, values.values, medians, strict=True):
        axes.plot(each, [place] * each.size, "k.", markersize=4)
        text = f"{median:{numbers}} {unit}".rstrip()
        beside: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
        axes.annotate(text, (each.max(), place), (5, 0), **beside)
    axes.set_yticks(places, labels=[str(label) for label in values[bars].values])
    axes.invert_yaxis()
    axes.margins(x=0.15)
