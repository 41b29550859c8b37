"""A watch of the sweeps of an experiment, for commands that want to know them without a run."""

import contextlib
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import TypeAlias

from toymodels.sweeps.requests import Request

Watch: TypeAlias = Callable[[Request], None]

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def instead_of_running(watch: Watch) -> Generator[None]:
    """Hand the request of every sweep to `watch`; the sweep runs no cell and returns NaN."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def is_on() -> bool:
    """Return whether there is a watch."""
    return _watch.get() is not None


def watched(request: Request) -> bool:
    """Return whether there is a watch, after it has been handed the request."""
    watch = _watch.get()
    if watch is not None:
        watch(request)
    return watch is not None
