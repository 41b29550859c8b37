"""The time that a run takes, also where several calls shared the work through one store.

A store keeps finished cells, but not the time that they took. So `FILE.times.json` beside the store
`FILE` keeps the sum over all calls of `toymodels run` that used it. The time is not known after a
call that was killed, which leaves a mark there, or if two calls used the store at once.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

from toymodels.experiment import files


class Spent(NamedTuple):
    """The time that some calls have taken together.

    Attributes:
        calls: the number of calls.
        seconds: the seconds on the clock; None if they are not known.
        processor_seconds: the processor time; None if it is not known.
    """

    calls: int
    seconds: float | None
    processor_seconds: float | None

    def attributes(self) -> dict[str, Any]:
        """Return the times as attributes of results, with a sentence if they are special."""
        if self.seconds is None or self.processor_seconds is None:
            return {"times": "They are not known, because other calls left the store without any"}
        known = {
            "seconds": round(self.seconds, 1),
            "processor_seconds": round(self.processor_seconds, 1),
        }
        several = {"times": f"They are sums over the {self.calls} calls that used the store"}
        return known | (several if self.calls > 1 else {})


class Call:
    """One call of an experiment, whose time runs from here on."""

    def __init__(self, before: Spent, alone: Callable[[], bool] = lambda: True):
        """Begin with the time of earlier calls, and with a check that no other call runs now."""
        self._before = before
        self._alone = alone
        self._start = _now()

    def spent(self) -> Spent:
        """Return the time of this call and of those before it, until now."""
        calls, seconds, processor = self._before
        clock, worked = (now - then for now, then in zip(_now(), self._start, strict=True))
        if seconds is None or processor is None or not self._alone():
            return Spent(calls + 1, None, None)
        return Spent(calls + 1, seconds + clock, processor + worked)


@contextlib.contextmanager
def measured(store: Path | None) -> Generator[Call]:
    """Measure a call, and keep the sum with earlier ones beside its store, if it has one.

    Raises:
        ValueError: the file beside the store cannot be written; nothing has run yet.
    """
    if store is None:
        yield Call(Spent(0, 0.0, 0.0))
        return
    store = store.expanduser()
    kept = beside(store)
    files.check_writable(kept)
    before = _before(store, kept)
    begun = _text(before, ended=False)
    files.write(kept, begun)
    call = Call(before, lambda: kept.exists() and files.read(kept) == begun)
    try:
        yield call
    finally:
        with contextlib.suppress(OSError):  # the next call finds that this one never ended
            files.write(kept, _text(call.spent(), ended=True))


def beside(store: Path) -> Path:
    """Return the file with the times of the calls that used a store."""
    return store.with_name(f"{store.name}.times.json")


def _before(store: Path, kept: Path) -> Spent:
    """Return the time of earlier calls, which is 0 before there is a store."""
    if not store.exists():
        return Spent(0, 0.0, 0.0)
    try:
        found = json.loads(files.read(kept))
        spent = Spent(int(found["calls"]), found["seconds"], found["processor_seconds"])
        return spent if found["ended"] else Spent(spent.calls + 1, None, None)
    except (ValueError, TypeError, KeyError):
        return Spent(1, None, None)


def _text(spent: Spent, *, ended: bool) -> str:
    return json.dumps({**spent._asdict(), "ended": ended}) + "\n"


def _now() -> tuple[float, float]:
    """Return the clock, and the processor time of this process and its children that have ended."""
    return time.perf_counter(), sum(os.times()[:4])
