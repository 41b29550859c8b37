"""A progress bar: what is running, cells done of all, training steps a second, time left.

What it is written to may go away in the middle of a run: a closed terminal or pipe, a full
disk. Nothing that happens to it may end the run, so whatever cannot be written is dropped.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

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


class _Unfailing:
    """A stream that drops what it cannot write; it may be None, as where there is no console."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(Exception):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(Exception):
            self._stream.flush()

    def isatty(self) -> bool:
        try:
            return bool(self._stream.isatty())
        except Exception:
            return False

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"


class Report(NamedTuple):
    """How a run says how far it is.

    Attributes:
        stage: says what is being done before the first cells are, such as compiling.
        start: says what is run, how many cells there are and how many training steps in each.
        advance: counts so many more cells as done.
    """

    stage: Callable[[str], None]
    start: Callable[[str, int, int], None]
    advance: Callable[[int], None]


@contextmanager
def bar(*, visible: bool) -> Generator[Report]:
    """Show on standard error, if `visible`, how far a run is; in a file or a pipe, by lines.

    Yields:
        What to tell about stages and finished cells.
    """
    stream = _Unfailing(sys.stderr)
    if not visible:
        yield Report(_nothing, _nothing, _nothing)
        return
    console = Console(file=stream)  # pyright: ignore[reportArgumentType]
    if not console.is_terminal:
        yield _lines(stream)
        return
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("cells"),
        _StepsPerSecond(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        yield _rows(progress)


def _nothing(*_: Any) -> None:
    """What a report does that nobody wants to see."""


def _rows(progress: Progress) -> Report:
    """A row for each run; what comes before it stands in its row until it starts."""
    row, runs = progress.add_task("", total=None), False

    def stage(what: str) -> None:
        nonlocal row, runs
        if runs:
            row, runs = progress.add_task("", total=None), False
        progress.update(row, description=what)

    def start(title: str, cells: int, steps_per_cell: int) -> None:
        nonlocal runs
        runs = True
        progress.reset(row, total=cells, description=title, steps_per_cell=steps_per_cell)

    return Report(stage, start, lambda cells: progress.advance(row, cells))


def _lines(stream: _Unfailing) -> Report:
    """A line for every stage and every tenth of the cells."""
    title, total, done, started = "", 0, 0, 0.0

    def say(words: str) -> None:
        print(words, file=stream, flush=True)

    def start(what: str, cells: int, steps_per_cell: int) -> None:
        nonlocal title, total, done, started
        del steps_per_cell
        title, total, done, started = what, cells, 0, time.perf_counter()

    def advance(cells: int) -> None:
        nonlocal done
        tenths = 10 * done // total
        done += cells
        if 10 * done // total > tenths:
            say(f"{title}: {done} of {total} cells, {time.perf_counter() - started:.0f} s")

    return Report(say, start, advance)


class _StepsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Steps of each model counted apart; blank until the first block is done."""
        if not task.elapsed or not task.completed:
            return Text("")
        rate = task.completed * task.fields.get("steps_per_cell", 0) / task.elapsed
        return Text(f"{rate / 1000:,.1f}k model-steps/s", no_wrap=True)
