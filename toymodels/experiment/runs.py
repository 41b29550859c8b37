"""A run of an experiment: its results are saved first, and claims and figure come from the file.

A run is never lost through what follows it. Bad input is refused before the run, and if saving,
checking or drawing fails, the results are kept, and a message says where.
"""

import contextlib
import inspect
import json
import os
import platform
import shlex
import signal
import subprocess
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

from toymodels.engine.compiling import environment
from toymodels.errors import InputError
from toymodels.experiment import files, pages, saving, times
from toymodels.experiment.claims import Claim
from toymodels.experiment.loading import Experiment, flat
from toymodels.experiment.messages import say
from toymodels.sweeps.sweep import SweepError, SweepInterrupted

FORMATS = ("png", "svg", "pdf")
# The attributes of results that the record of a figure keeps.
_KEPT = (
    "seconds", "processor_seconds", "times", "python", "versions", "device", "processor",
    "compiler options", "XLA_FLAGS", "block_width", "diverged_cells",
)  # fmt: skip
# With a date, an unchanged figure would be another file each time it is drawn.
_DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def execute(
    experiment: Experiment,
    config: Any,
    *,
    name: str,
    data: Path,
    figures: Path,
    store: Path | None = None,
    scale: str = "default",
) -> bool:
    """Run an experiment, save its results in `data/<name>.nc`, check its claims and draw it.

    Args:
        experiment: the experiment, as `experiment.load` gives it.
        config: an instance of its `Config`.
        name: the name of all files, without an ending.
        data: the folder for the results, which is made if it is missing.
        figures: the folder for claims and figure, which is made if it is missing.
        store: a file that keeps finished cells, so that a run that was stopped can go on.
        scale: the name of the scale, which is kept with the results.

    Returns:
        True if every claim holds, or at smoke scale; see `draw`.

    Raises:
        ValueError: `run` takes no store, or a file cannot be written; nothing has run yet.
        SystemExit: something failed after cells had finished. They are kept, and a message has
            said where.
    """
    saved, partial = data / f"{name}.nc", data / f"{name}.partial.nc"
    for path in (saved, partial, *_written(figures, name, FORMATS)):
        files.check_writable(path)
        saving.check_ours(path)
    if store and "store" not in inspect.signature(experiment.run).parameters:
        raise InputError(
            f"run of {experiment.name} cannot resume: give it a keyword `store` and pass that to "
            "tm.sweep"
        )
    provenance = {
        "experiment": _name(experiment),
        "scale": scale,
        "config": json.dumps(flat(config), default=str),
        "commit": _commit(experiment.path.parent),
        "python": platform.python_version(),
    }
    results = _run(experiment, config, store, provenance, partial)
    kept = saving.save(results, saved)
    if kept != saved:
        if kept.suffix == ".nc":
            say(_how_to_go_on(experiment, kept, figures))
        else:
            say(f"the results are kept in {kept}: read them with pickle.load, and mend run")
        raise SystemExit(1)
    return draw(experiment, saved, folder=figures)


def draw(
    experiment: Experiment,
    file: Path,
    *,
    folder: Path,
    formats: Sequence[str] = ("png", "svg"),
) -> bool:
    """Check the claims of saved results and draw their figure, without running the experiment.

    The files are `folder/<name>.json` (claims, config, provenance of the run), the figure, and the
    pages of the folder, README.md, CLAIMS.md and FINDINGS.md. `<name>` is that of `file`.

    Args:
        experiment: the experiment, as `experiment.load` gives it; its `run` is not called.
        file: the results that `execute` has saved.
        folder: the folder for claims and figure, which is made if it is missing.
        formats: the formats of the figure, from `FORMATS`.

    Returns:
        True if every claim holds. Smoke scale shows only that an experiment runs, so there the
        answer is always True.

    Raises:
        ValueError: `file` holds no results of this experiment, or a file cannot be written.
        SystemExit: `claims` or `plot` failed; a message has said how to go on.
    """
    name = file.name.removesuffix(".nc")
    for path in _written(folder, name, formats):
        files.check_writable(path)
        saving.check_ours(path)
    results = saving.load(file)
    if (owner := results.attrs.get("experiment", _name(experiment))) != _name(experiment):
        raise InputError(
            f"{file} holds results of the experiment {owner!r}, not of {_name(experiment)!r}: give "
            "results of this experiment with --from, or draw the other one"
        )
    try:
        checked = _check(experiment, results)
        figures = _draw(experiment, results, folder / name, formats)
        record = _record(experiment, results, checked)
        files.write(folder / f"{name}.json", json.dumps(record, indent=1, default=str) + "\n")
        pages.write(folder, {_name(experiment): experiment.path})
    except InputError as error:
        raise InputError(f"{error}; {_how_to_go_on(experiment, file, folder)}") from error
    except (Exception, KeyboardInterrupt) as error:
        say(traceback.format_exc().rstrip(), _how_to_go_on(experiment, file, folder))
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from error
    smoke = record["scale"] == "smoke"
    title = f"{name}, {record['seconds']:.0f} s" if "seconds" in record else name
    if smoke:
        title += "; smoke scale shows that it runs, and its claims need not hold"
    if checked:
        with contextlib.suppress(OSError, SystemExit):
            pages.show(title, checked, Console(stderr=True))
    say(f"results: {file}", *(f"figure: {figure}" for figure in figures[:1]))
    return smoke or all(claim.holds for claim in checked)


def _run(
    experiment: Experiment,
    config: Any,
    store: Path | None,
    provenance: dict[str, str],
    partial: Path,
) -> Any:
    """Return the results with their provenance; if the run stops, save those there are."""
    try:
        with saving.signals(signal.default_int_handler), times.measured(store) as call:
            results = experiment.run(config, store=store) if store else experiment.run(config)
            spent = call.spent()
    except (SweepInterrupted, SweepError) as stop:
        stop.results.attrs.update(provenance)
        say(str(stop))
        say(f"saved: {saving.save(stop.results, partial)}")
        if not store:
            say("with --store FILE, a run that is started again goes on where it stopped")
        raise SystemExit(130 if isinstance(stop, SweepInterrupted) else 1) from None
    if results is None:
        raise InputError(f"run of {experiment.path} returns None: return the results")
    if isinstance(results, xr.Dataset):
        results.attrs = {**environment(), **results.attrs, **provenance, **spent.attributes()}
    return results


def _written(folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Return the files that `draw` writes."""
    written = [folder / f"{name}.{suffix}" for suffix in ("json", *formats)]
    written += [folder / "CLAIMS.md", folder / "FINDINGS.md"]
    gallery = folder / "README.md"
    if pages.is_ours(gallery):  # a README.md that a person wrote is left alone
        written.append(gallery)
    return written


def _check(experiment: Experiment, results: xr.Dataset) -> list[Claim]:
    """Return the claims of an experiment about its results, after a check of their type."""
    if experiment.claims is None:
        return []
    checked = experiment.claims(results)
    if not isinstance(checked, Iterable):
        raise InputError(
            f"claims of {experiment.path} returns {type(checked).__name__}: return a list of Claim"
        )
    found = list(checked)
    for claim in found:
        if not isinstance(claim, Claim):
            raise InputError(
                f"claims of {experiment.path} returns {claim!r} among others: return a list of "
                "toymodels.Claim"
            )
    return found


def _draw(
    experiment: Experiment, results: xr.Dataset, path: Path, formats: Sequence[str]
) -> list[Path]:
    """Draw the figure in all formats or in none."""
    if experiment.plot is None:
        return []
    from toymodels import plotting

    with plotting.style(), contextlib.ExitStack() as stack:
        figure = experiment.plot(results)
        if not isinstance(figure, plotting.Figure):
            raise InputError(
                f"plot of {experiment.path} returns {type(figure).__name__}: return the figure"
            )
        if isinstance(figure, plotting.MovingFigure):
            formats = ("gif", *formats)
        paths = [path.with_name(f"{path.name}.{suffix}") for suffix in formats]
        for drawn, suffix in zip(paths, formats, strict=True):
            temporary = stack.enter_context(files.whole(drawn))
            dots = 100 if suffix == "gif" else 150
            figure.savefig(temporary, format=suffix, dpi=dots, metadata=_DATES.get(suffix))
            figure.set_layout_engine("none")  # all formats have the layout of the first
    return paths


def _record(
    experiment: Experiment, results: xr.Dataset, checked: Sequence[Claim]
) -> dict[str, Any]:
    """Return claims, config and provenance; the provenance is that of the run."""
    attributes = results.attrs
    return {
        "experiment": _name(experiment),
        "claims": [claim.to_json() for claim in checked],
        "counts": {
            kind: {"hold": held, "of": number}
            for kind, (held, number) in pages.count(checked).items()
        },
        "config": json.loads(attributes.get("config", "null")),
        "scale": attributes.get("scale", "unknown"),
        "commit": attributes.get("commit", "unknown"),
        "drawn at commit": _commit(experiment.path.parent),
        **{name: np.asarray(attributes[name]).tolist() for name in _KEPT if name in attributes},
    }


def _how_to_go_on(experiment: Experiment, file: Path, folder: Path) -> str:
    """Return a line that names the command which draws the saved results."""
    words = ["toymodels", "draw", experiment.path, "--from", file, "--out", folder]
    return f"the results are kept in {file}; to go on: {shlex.join(map(str, words))}"


def _name(experiment: Experiment) -> str:
    """Return the name of an experiment as text in UTF-8, whatever the locale."""
    # A name that is not UTF-8 here, as in the locale C, can still be UTF-8 bytes.
    return os.fsencode(experiment.name).decode("utf-8", "replace")


def _commit(folder: Path) -> str:
    """Return the commit of a folder, with "-dirty" if a Python file of its project differs."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=True, text=True
        ).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", ":(top)*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
