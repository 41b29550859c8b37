"""Moving pictures: how a model changes while it is trained."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from toymodels.errors import InputError
from toymodels.plotting.figures import NotebookFigure, checked_size

__all__ = ["MovingFigure", "animate"]


class MovingFigure(NotebookFigure):
    """A figure with one picture for each step, which a notebook plays; `animate` makes it.

    `savefig` writes a moving picture as "gif", a page with controls and nothing outside of it as
    "html", and the last picture in any other format.
    """

    def set_pictures(self, show: Callable[[int], None], count: int, per_second: float) -> None:
        """Set what the figure plays: `show(number)` draws one of its `count` pictures."""
        self._show, self._count, self._per_second = show, count, per_second

    def savefig(
        self,
        fname: Any,
        *,
        format: str | None = None,  # noqa: A002, the name that matplotlib gives it
        dpi: float = 100,
        **options: Any,
    ) -> None:
        """Save the figure, moving as "gif" and "html", and else its last picture.

        Args:
            fname: the path of the file.
            format: its format; that of the name if not given.
            dpi: dots per inch.
            **options: arguments of `Figure.savefig` for formats that do not move.
        """
        name = format or Path(str(fname)).suffix[1:]
        if name == "gif":
            self._save_gif(fname, dpi)
        elif name == "html":
            Path(fname).write_text(self._repr_html_(), encoding="utf-8")
        else:
            super().savefig(fname, format=format, dpi=dpi, **options)

    def _save_gif(self, fname: Any, dpi: float) -> None:
        before, canvas = self.get_dpi(), FigureCanvasAgg(self)
        self.set_dpi(dpi)
        pictures: list[Image.Image] = []
        for number in range(self._count):
            self._show(number)
            canvas.draw()
            pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))
        self.set_dpi(before)
        # The colours of the last picture serve for all: this keeps the file small and steady.
        colors = pictures[-1].quantize(64, dither=Image.Dither.NONE)
        frames = [
            picture.quantize(palette=colors, dither=Image.Dither.NONE) for picture in pictures
        ]
        times = [round(1000 / self._per_second)] * (self._count - 1) + [2500]
        frames[0].save(
            fname, format="GIF", save_all=True, append_images=frames[1:], duration=times, loop=0
        )

    def _repr_html_(self) -> str:
        moving = FuncAnimation(self, self._show, frames=self._count)  # pyright: ignore
        page = moving.to_jshtml(fps=max(1, round(self._per_second)), default_mode="loop")
        self._show(self._count - 1)
        return page


def animate(
    draw: Callable[[Any, Any], Any],
    steps: Sequence[Any],
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float] = (5.0, 3.5),
    per_second: float = 12.0,
    **subplots: Any,
) -> MovingFigure:
    """Return a figure with one picture for each step, such as each snapshot of a training run.

    A notebook plays it. `figure.savefig("training.gif")` and `figure.savefig("training.html")`
    write it, and other formats show the last step.

    Args:
        draw: draws one step on empty axes; it is called with the axes as `figure` gives them, and
            with the step. It sets the limits of the axes, or else they change with the steps.
        steps: what is drawn, one picture after another.
        rows: the number of rows of axes.
        columns: the number of columns of axes.
        size: the width and the height of the whole figure in inches.
        per_second: the number of pictures in a second.
        **subplots: arguments of `Figure.subplots`, such as `width_ratios`.

    Raises:
        ValueError: there are no steps.
    """
    if not len(steps):
        raise InputError("steps is empty: give at least one step to draw")
    made = MovingFigure(figsize=checked_size(size), layout="constrained")
    axes: Any = made.subplots(rows, columns, **subplots)

    def show(number: int) -> None:
        for part in made.axes:
            part.clear()
        draw(axes, steps[number])

    made.set_pictures(show, len(steps), per_second)
    show(len(steps) - 1)
    made.draw_without_rendering()  # places the axes once: they stay there in all pictures
    made.set_layout_engine("none")
    return made
