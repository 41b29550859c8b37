"""A progress bar: what is running, cells done of all, training steps a second, time left."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


@contextmanager
def bar(
    title: str, *, cells: int, steps_per_cell: int, visible: bool
) -> Generator[Callable[[int], None]]:
    """Show a bar on standard error; in a file or a pipe, only its last state.

    Args:
        title: what is running.
        cells: how many there are.
        steps_per_cell: training steps in each, for the rate.
        visible: whether to show anything.

    Yields:
        A function that counts so many more cells as done.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("cells"),
        _StepsPerSecond(steps_per_cell),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not visible,
    )
    task = progress.add_task(title, total=cells)
    with progress:
        yield lambda done: progress.advance(task, done)


class _StepsPerSecond(ProgressColumn):
    def __init__(self, steps_per_cell: int):
        super().__init__()
        self._steps_per_cell = steps_per_cell

    def render(self, task: Task) -> Text:
        """Steps of each model counted apart; blank until the first block is done."""
        if not task.elapsed or not task.completed:
            return Text("")
        rate = task.completed * self._steps_per_cell / task.elapsed
        return Text(f"{rate / 1000:,.1f}k model-steps/s", no_wrap=True)
