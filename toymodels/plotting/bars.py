"""Keys to the colours of a figure: colour bars, and the square of norm and superposition."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from toymodels.plotting.colors import (
    SUPERPOSITION_MAP,
    SUPERPOSITION_NORM,
    WEIGHT_MAP,
    WEIGHT_NORM,
    norm_and_superposition,
)
from toymodels.plotting.scales import plain

__all__ = ["color_bar", "norm_and_superposition_legend", "superposition_bar", "weight_bar"]


def color_bar(
    image: ScalarMappable,
    label: str = "",
    *,
    axes: Any = None,
    ticks: Sequence[float] | None = None,
    **bar: Any,
) -> Any:
    """Draw the colour bar of an image beside its axes, without an outline, with plain numbers.

    Args:
        image: what `heat_map`, `log_image` or a scatter returns.
        label: what the colours mean.
        axes: one or several axes that share the bar; those of the image if not given.
        ticks: numbers to write.
        **bar: arguments of `Figure.colorbar`, such as `extend="both"` or `shrink=0.6`.

    Returns:
        The colour bar.
    """
    beside = image.axes if axes is None else axes  # pyright: ignore
    figure: Any = np.ravel(np.asarray(beside, object))[0].figure
    made = figure.colorbar(image, ax=beside, label=label, **bar)
    made.outline.set_visible(False)
    if ticks is not None:
        made.set_ticks(list(ticks), labels=[plain(tick) for tick in ticks])
    made.minorticks_off()
    return made


def superposition_bar(axes: Any, label: str = "superposition") -> Any:
    """Draw the colours of `norm_bars` beside one or several axes; values from 1 on have one colour.

    Args:
        axes: the axes that share the bar.
        label: what the colours mean.

    Returns:
        The colour bar.
    """
    scale = ScalarMappable(SUPERPOSITION_NORM, SUPERPOSITION_MAP)
    made = color_bar(scale, label, axes=axes, shrink=0.8, aspect=15)
    made.set_ticks([0, 1], labels=["0", "≥ 1"])
    return made


def weight_bar(axes: Any, label: str = "weight or bias") -> Any:
    """Draw the colours of `gram` and of weights from -1 to 1 beside one or several axes.

    Args:
        axes: the axes that share the bar.
        label: what the colours mean.

    Returns:
        The colour bar.
    """
    scale = ScalarMappable(WEIGHT_NORM, WEIGHT_MAP)
    return color_bar(scale, label, axes=axes, ticks=(-1, 1), shrink=0.8, aspect=15)


def norm_and_superposition_legend(axes: Axes) -> None:
    """Draw the square of all colours of `norm_and_superposition`, with the three phases named."""
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
