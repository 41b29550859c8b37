"""The parts of a tiny experiment, and the command that runs it in this process."""

from pathlib import Path

from toymodels import cli

HEAD = """
import dataclasses, pathlib, numpy as np, xarray as xr, toymodels as tm
from toymodels import plotting
@dataclasses.dataclass(frozen=True)
class Config:
    two: float = 2.0
    words: tuple[str, ...] = ()
"""
RUN = """
def run(config):
    with open("runs.txt", "a") as runs: runs.write("x")
    return xr.Dataset({"two": config.two})
"""
CLAIMS = """
def claims(results):
    at_least, kind = tm.Bound.AT_LEAST, tm.Kind.FINDING
    return [tm.Claim("two ≥ 2", "é", 2.0, float(results.two), bound=at_least, kind=kind)]
"""
PLOT = """
def plot(results):
    figure, axes = plotting.figure()
    axes.plot([0, float(results.two)])
    return figure
"""


def write(*parts, name="tiny.py"):
    Path(name).write_text("\n".join([HEAD, *parts]), encoding="utf-8")


def toymodels(*arguments):
    """Run the command in this process, and return its exit status."""
    try:
        cli.main([*map(str, arguments)])
    except SystemExit as stop:
        return stop.code
    return 0


def number_of_runs():
    return len(Path("runs.txt").read_text()) if Path("runs.txt").exists() else 0
