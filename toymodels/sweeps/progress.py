"""Show how far a sweep is: its stage, the cells that are done, steps per second, the time left.

The stream that this is written to may fail in the middle of a sweep: a terminal or pipe is
closed, or a disk is full. Such an error must not end the sweep, so text that cannot be written is
dropped.
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
    """A stream that drops text that it cannot write. It may be None, if there is no console."""

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
    """Three functions by which a sweep reports how far it is.

    Attributes:
        stage: takes the name of a stage before the first cells, such as compiling.
        start: takes a title, the number of cells, and the number of training steps of each cell.
        advance: takes the number of cells that have finished since the last call.
    """

    stage: Callable[[str], None]
    start: Callable[[str, int, int], None]
    advance: Callable[[int], None]


@contextmanager
def bar(*, visible: bool) -> Generator[Report]:
    """Show on standard error how far a sweep is, or nothing unless `visible`.

    A terminal shows a progress bar. A file or a pipe receives lines.

    Yields:
        The functions by which the sweep reports.
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
    """Show nothing."""


def _rows(progress: Progress) -> Report:
    """Report in a row of the progress bar for each program; its stages come first in its row."""
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
    """Report in a line for every stage and for every tenth of the cells."""
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
        """Return the training steps of all models per second; blank until a block is done."""
        if not task.elapsed or not task.completed:
            return Text("")
        rate = task.completed * task.fields.get("steps_per_cell", 0) / task.elapsed
        return Text(f"{rate / 1000:,.1f}k model-steps/s", no_wrap=True)
