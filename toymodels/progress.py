"""A progress bar: what is running, cells done of all, training steps a second, time left."""

import sys
import time
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
    """Show a bar on standard error; in a file or a pipe, a line for every tenth.

    Args:
        title: what is running.
        cells: how many there are.
        steps_per_cell: training steps in each, for the rate.
        visible: whether to show anything.

    Yields:
        A function that counts so many more cells as done.
    """
    console = Console(stderr=True)
    if visible and not console.is_terminal:
        yield _lines(title, cells)
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("cells"),
        _StepsPerSecond(steps_per_cell),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        disable=not visible,
    )
    task = progress.add_task(title, total=cells)
    with progress:
        yield lambda done: progress.advance(task, done)


def _lines(title: str, cells: int) -> Callable[[int], None]:
    started, done = time.perf_counter(), 0

    def report(more: int) -> None:
        nonlocal done
        tenths = 10 * done // cells
        done += more
        if 10 * done // cells > tenths:
            seconds = time.perf_counter() - started
            print(f"{title}: {done} of {cells} cells, {seconds:.0f} s", file=sys.stderr, flush=True)

    return report


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
