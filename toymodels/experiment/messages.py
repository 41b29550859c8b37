"""Lines that commands print on standard error, and the exit statuses with which they end."""

import contextlib
import io
import os
import sys
from collections.abc import Generator

from rich.console import Console

from toymodels.errors import InputError


def say(*lines: str, style: str | None = None) -> None:
    """Print lines on standard error; a terminal that has gone away must not cost results."""
    with contextlib.suppress(OSError, SystemExit):  # rich exits where a pipe is closed
        for line in lines:
            Console(stderr=True).print(
                line, style=style, markup=False, highlight=False, soft_wrap=True
            )


def complain(line: str) -> None:
    """Print one line on standard error that says what is wrong."""
    say(f"toymodels: {line}", style="red")


@contextlib.contextmanager
def exits() -> Generator[None]:
    """Print in any terminal, and end the command as a shell expects where its block fails.

    Bad input is one line and the status 2, Ctrl-C is the status 130, and a reader that has closed
    our standard output, as `head` does, is the status 1.

    Raises:
        SystemExit: the block raised one of these errors.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows only ASCII
    try:
        yield
        if sys.stdout:  # there is none after `>&-`
            sys.stdout.flush()
    except InputError as error:
        complain(str(error))
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        complain("interrupted")
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
