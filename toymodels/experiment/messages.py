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
    """Turn the errors of a command, which is the block, into a message and an exit status.

    Bad input becomes one line and the status 2, and Ctrl-C the status 130. If the reader of the
    standard output has closed it, as `head` does, the status is 1. Characters that the terminal
    cannot show are printed as escapes.

    Raises:
        SystemExit: the block raised one of these errors.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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
