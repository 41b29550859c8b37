"""Figures: made without `pyplot`, shown by a notebook, and held to the rules of the house."""

import io
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.text import Text

from toymodels.errors import InputError
from toymodels.plotting.colors import CYCLE

__all__ = [
    "SMALLEST_TEXT",
    "WIDEST",
    "NotebookFigure",
    "check_figure",
    "figure",
    "figure_of_parts",
    "style",
]

WIDEST = 9.0
"""The greatest width of a figure in inches: README shows every figure at the same width."""
SMALLEST_TEXT = 7.0
"""The smallest size of text in points."""

_STYLE: Any = {
    "axes.edgecolor": "0.4",
    "axes.labelsize": 9,
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "toymodels",  # without it, an unchanged figure would be another file
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def style() -> AbstractContextManager[None]:
    """Return a context in which figures have the style of this package.

    After it, the settings of the user are as before.

    Colours "C0", "C1", ... are those of `CYCLE` inside.
    """
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
    """Return a figure, which a notebook shows, and its axes as `Figure.subplots` gives them.

    Args:
        rows: the number of rows of axes.
        columns: the number of columns of axes.
        size: the width and the height of the whole figure in inches.
        **subplots: arguments of `Figure.subplots`, such as `width_ratios`.

    Raises:
        ValueError: the figure would be wider than `WIDEST` inches.
    """
    made = NotebookFigure(figsize=checked_size(size), layout="constrained")
    return made, made.subplots(rows, columns, **subplots)


def figure_of_parts(
    rows: int, columns: int = 1, *, size: tuple[float, float], **ratios: Any
) -> tuple[NotebookFigure, Any]:
    """Return a figure, which a notebook shows, and its parts, each with axes and a title.

    Args:
        rows: the number of rows of parts.
        columns: the number of columns of parts.
        size: the width and the height of the whole figure in inches.
        **ratios: arguments of `Figure.subfigures`, such as `height_ratios`.

    Raises:
        ValueError: the figure would be wider than `WIDEST` inches.
    """
    made = NotebookFigure(figsize=checked_size(size), layout="constrained")
    return made, made.subfigures(rows, columns, **ratios)


def checked_size(size: tuple[float, float]) -> tuple[float, float]:
    """Return the size of a figure, after a check that it is at most `WIDEST` inches wide."""
    if size[0] > WIDEST:
        raise InputError(
            f"a figure of {size[0]:g} inches is too wide to be read: take at most {WIDEST:g}, with "
            "more rows"
        )
    return size


def check_figure(figure: Figure) -> None:
    """Check that a figure can be read where it is shown small.

    Raises:
        ValueError: the figure is wider than `WIDEST` inches, or shows text smaller than
            `SMALLEST_TEXT` points.
    """
    checked_size(tuple(figure.get_size_inches().tolist()))
    figure.draw_without_rendering()  # axes make the texts of their ticks only now
    for text in _shown_texts(figure):
        points = float(text.get_fontsize())
        if points < SMALLEST_TEXT:
            raise InputError(
                f"the figure writes {text.get_text()!r} in {points:g} points: take at "
                f"least {SMALLEST_TEXT:g}"
            )


def _shown_texts(artist: Any) -> list[Text]:
    if not artist.get_visible():
        return []
    if isinstance(artist, Text):
        return [artist] if artist.get_text().strip() else []
    return [text for child in artist.get_children() for text in _shown_texts(child)]
