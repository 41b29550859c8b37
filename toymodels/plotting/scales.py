"""Axes: their names, ticks in plain numbers, and labels at the ends of lines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, NullLocator

from toymodels.errors import InputError

__all__ = ["DENSITY", "INVERSE_DENSITY", "density_axis", "direct_labels", "name_of", "plain_ticks"]

DENSITY = "density $p = 1 - S$"
INVERSE_DENSITY = "1 / density $= 1 / (1 - S)$"


def name_of(values: xr.DataArray) -> str:
    """Return what an axis says: `long_name` and `units` of the values, or else their own name."""
    known = {"density": DENSITY, "seed": "seed", "hidden": "hidden dimensions $m$"}
    name = str(values.attrs.get("long_name") or known.get(str(values.name)) or values.name or "")
    units = values.attrs.get("units")
    return name.replace("_", " ") + (f", {units}" if units else "")


def density_axis(
    axes: Axes, along: str = "x", *, inverse: bool = False, places: Sequence[float] | None = None
) -> None:
    """Make an axis of densities: logarithmic, with the name and the ticks that all figures have.

    Args:
        axes: axes to change.
        along: "x" or "y".
        inverse: whether the axis shows $1 / p$, as the paper's section on geometry does.
        places: numbers to write at ticks; chosen from the limits if not given.
    """
    if along not in ("x", "y"):
        raise InputError(f"along is {along!r}: give 'x' or 'y'")
    label = INVERSE_DENSITY if inverse else DENSITY
    axes.set(**{f"{along}scale": "log", f"{along}label": label})
    plain_ticks(axes, along, places)


def plain_ticks(axes: Axes, along: str = "x", places: Sequence[float] | None = None) -> None:
    """Write the ticks of a log axis as plain numbers, such as 0.05 and not a power of ten.

    Args:
        axes: axes to change; their scale is set before.
        along: "x" or "y".
        places: numbers to write; those outside of the limits are not drawn. Without them 1, 2 and
            5 of every decade are written, more in a short axis and fewer in a long one.
    """
    if along not in ("x", "y"):
        raise InputError(f"along is {along!r}: give 'x' or 'y'")
    axis: Any = {"x": axes.xaxis, "y": axes.yaxis}[along]
    axis.set_major_locator(_PlainLocator() if places is None else FixedLocator(list(places)))
    axis.set_major_formatter(FuncFormatter(lambda number, _: plain(number)))
    axis.set_minor_locator(NullLocator())


class _PlainLocator(Locator):
    """Ticks at 1, 2 and 5 of each decade, more within a short axis and fewer within a long one."""

    def __call__(self) -> Any:
        return self.tick_values(*self.axis.get_view_interval())  # pyright: ignore

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        if low <= 0:
            return np.zeros(0)
        decades = np.log10(high / low)
        short, middle, long = (1, 1.5, 2, 3, 4, 6, 8), (1, 2, 5), (1, 3)
        steps = short if decades < 0.95 else middle if decades < 2.2 else long
        if decades > 4.2:
            steps = (1,)
        tens = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        ticks = np.outer(tens, steps).ravel()
        return ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]


def plain(value: Any) -> str:
    """Return a number as a reader writes it: whole, or with three digits; other things as text."""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        return str(value)
    number = float(value)
    if not np.isfinite(number):
        return str(number)
    if number == round(number) and abs(number) < 1e6:
        return str(round(number))
    if 1e-4 <= abs(number) < 1e6:
        return np.format_float_positional(float(f"{number:.3g}"), trim="-")
    mantissa, _, exponent = f"{number:.3g}".partition("e")
    tens = f"10^{{{int(exponent)}}}"
    return f"${tens}$" if mantissa == "1" else rf"${mantissa} \times {tens}$"


def direct_labels(axes: Axes, *, fontsize: float = 8.0) -> None:
    """Write the name of every line at its right end, in its colour, instead of in the legend.

    Names that would lie on one another are moved apart. Call it last, when all lines are drawn and
    the limits are set. What has a label and is no line of several points stays in the legend.

    Args:
        axes: axes with lines that have labels.
        fontsize: the size of the names in points.
    """
    ends: list[Any] = []
    _ = axes.viewLim  # settles the limits, on which all places depend
    for line in axes.get_lines():
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if known.size < 2 or str(line.get_label()).startswith("_"):
            continue
        last = known[np.argmax(axes.transData.transform(np.stack([x, y], 1)[known])[:, 0])]
        ends.append((x[last], y[last], line))
    places = axes.transData.transform(np.array([end[:2] for end in ends]).reshape(-1, 2))
    figure: Any = axes.figure
    heights = _apart(places[:, 1], 1.15 * fontsize * figure.dpi / 72)
    for (x, y, line), place, height in zip(ends, places, heights, strict=True):
        axes.annotate(
            str(line.get_label()), (x, y), (5, (height - place[1]) * 72 / figure.dpi),
            textcoords="offset points", va="center", color=line.get_color(), fontsize=fontsize,
        )  # fmt: skip
        line.set_label("_named at its end")
    if axes.get_legend() is not None:
        axes.get_legend().remove()  # pyright: ignore
        if axes.get_legend_handles_labels()[0]:
            axes.legend()


def _apart(heights: Any, gap: float) -> Any:
    """Return heights at least `gap` apart, in their order, near where they were."""
    order = np.argsort(heights, kind="stable")
    moved = np.asarray(heights, float)[order]
    for _ in range(50):
        lack = np.maximum(gap - np.diff(moved), 0)
        if not (lack > 0.01).any():
            break
        moved[:-1] -= lack / 2
        moved[1:] += lack / 2
    result = np.empty_like(moved)
    result[order] = moved
    return result
