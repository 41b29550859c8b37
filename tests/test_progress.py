"""Progress is a line for every tenth in a file, and a run survives the loss of its terminal."""

import io
import re
import sys

import pytest

from toymodels.sweeps import progress


def test_a_line_for_every_stage_and_tenth_and_the_last_is_the_end(capfd):
    with progress.bar(visible=True) as report:
        report.stage("title: compiling")
        report.start("title", 200, 7)
        for _ in range(200):
            report.advance(1)
    first, *lines = capfd.readouterr().err.splitlines()
    assert first == "title: compiling"
    counts = [int(re.match(r"title: (\d+) of 200 cells, \d+ s$", line)[1]) for line in lines]
    assert counts == list(range(20, 201, 20))


def test_nothing_where_nothing_is_wanted(capfd):
    with progress.bar(visible=False) as report:
        report.stage("title: compiling")
        report.start("title", 2, 1)
        report.advance(2)
    assert capfd.readouterr().err == ""


class Terminal(io.StringIO):
    """A terminal that can go away, as that of a closed window does."""

    error = None

    def isatty(self):
        return True

    def write(self, text):
        if self.error is not None:
            raise self.error
        return super().write(text)

    def flush(self):
        self.write("")


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), BrokenPipeError(), ValueError("closed file")]
)
def test_a_stream_that_goes_away_ends_nothing(monkeypatch, terminal, error):
    stream = Terminal()
    monkeypatch.setattr(Terminal, "isatty", lambda self: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress.bar(visible=True) as report:
        report.stage("title: compiling")
        report.start("title", 10, 1)
        report.advance(1)
        stream.error = error
        for _ in range(9):
            report.advance(1)


def test_no_stream_at_all_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress.bar(visible=True) as report:
        report.start("title", 1, 1)
        report.advance(1)


@pytest.mark.parametrize("title", ["[red]", "cell size=[/]", "{task.total}", "[bold"])
def test_a_title_is_shown_as_it_is_however_many_cells(monkeypatch, title):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with progress.bar(visible=True) as report:
        report.start(title, 2**31 + 1, 1000)
        report.advance(2**31)
    assert title in stream.getvalue()
    assert "2147483648/2147483649" in stream.getvalue().replace(" ", "")
