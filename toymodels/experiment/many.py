"""Many experiments, one after another, each in a process of its own, with one line for each."""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from toymodels.experiment import files, pages
from toymodels.experiment.messages import complain, say

LOGS = Path("results")
"""The folder that keeps what an experiment prints, in NAME.log."""


def make(paths: Sequence[Path], *, draw: bool = False, figures: Path = Path("figures")) -> int:
    """Run experiments, or draw them from saved results, and print one line for each.

    Experiments that took least time when their figure was last made come first, so that the first
    pictures are there soon. An experiment that fails does not stop the others.

    Args:
        paths: the files of the experiments.
        draw: whether to draw saved results instead of running.
        figures: the folder whose records say how long each experiment took.

    Returns:
        The exit status: 0 if every claim holds, 3 if one fails, 1 if an experiment failed.
    """
    files.check_writable(LOGS / "log")
    seconds = _seconds(figures)
    ordered = sorted(paths, key=lambda path: seconds.get(path.stem, 0.0))
    known = sum(seconds.get(path.stem, 0.0) for path in ordered)
    estimate = f", about {_duration(known)} in all" if known and not draw else ""
    say(f"{len(ordered)} experiments{estimate}")
    failed, held, started, done = False, True, time.monotonic(), 0.0
    for number, path in enumerate(ordered, 1):
        name = path.stem
        say(f"{number:>3} of {len(ordered)}  {name} ...")
        status = _in_own_process("draw" if draw else "run", path)
        if status in (0, 3):
            say(f"            {_summary(name, figures)}")
        else:
            complain(f"{name} failed; {LOGS / f'{name}.log'} says why")
        failed |= status not in (0, 3)
        held &= status == 0
        done += seconds.get(name, 0.0)
        elapsed = time.monotonic() - started
        if not draw and done < known:
            say(f"            about {_duration(time_left(elapsed, done, known))} left")
    return 1 if failed else 0 if held else 3


def time_left(elapsed: float, done: float, known: float) -> float:
    """Return how many seconds the other experiments need, from the time that some have taken.

    A computer may be slower than that of the records. The first experiments say little of it, as
    they are quick and spend their time on starting. So a tenth of the whole time counts as seen
    before, at the recorded speed.

    Args:
        elapsed: the seconds since the start.
        done: the recorded seconds of the experiments that are done.
        known: the recorded seconds of all experiments.
    """
    seen = known / 10
    return (known - done) * (elapsed + seen) / (done + seen)


def _in_own_process(command: str, path: Path) -> int:
    """Return the exit status of one experiment; what it prints goes into its log."""
    with (LOGS / f"{path.stem}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "toymodels.cli", command, os.fspath(path)],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # it has the signal, too, and saves what has finished
            raise


def _seconds(figures: Path) -> dict[str, float]:
    """Return how long each experiment takes, from the run that made its figure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a broken record only costs an estimate
        records = pages.read(figures)
    return {name: record.estimate for name, record in records.items() if record.estimate}


def _summary(name: str, figures: Path) -> str:
    record = pages.read(figures)[name]
    held = sum(claim.holds for claim in record.claims)
    took = f", {_duration(record.seconds)}" if record.seconds else ""
    return f"{held} of {len(record.claims)} claims hold{took}: {figures / name}.png"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
