"""A run of an experiment: its results are saved first, claims and figure come from the file.

What a run cost is never lost for what comes after it: whatever can be refused is refused before,
and where saving, checking or drawing fails, the results are kept and the message says where.
"""

import contextlib
import dataclasses
import inspect
import json
import os
import pickle
import platform
import shlex
import signal
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

from toymodels import claims as claims_
from toymodels import files
from toymodels.blocks import environment
from toymodels.claims import Claim
from toymodels.errors import InputError
from toymodels.experiment import Experiment
from toymodels.sweeps import SweepError, SweepInterrupted

FORMATS = ("png", "svg", "pdf")
# Of the attributes of results, what the record of a figure keeps.
_KEPT = """
seconds|python|versions|device|processor|compiler options|XLA_FLAGS|block_width|diverged_cells
""".strip().split("|")
_DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same figure, the same file


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
    """Run, save, check and draw.

    Writes the results to `data/<name>.nc` and then what `draw` writes.

    Args:
        experiment: as `experiment.load` gives it.
        config: an instance of its `Config`.
        name: of all files.
        data: folder for the results; made if missing.
        figures: folder for claims and figure; made if missing.
        store: keeps finished cells, for `run` to go on after it was stopped.
        scale: which of the experiment's own; kept with the results.

    Returns:
        As `draw` does.

    Raises:
        ValueError: `run` cannot take a store, or a file cannot be written: before the run.
        SystemExit: something failed after cells had finished; what was finished is kept, and
            a message has said where.
    """
    saved, partial = data / f"{name}.nc", data / f"{name}.partial.nc"
    for path in (saved, partial, *_written(figures, name, FORMATS)):
        files.check_writable(path)
        _check_ours(path)
    if store and "store" not in inspect.signature(experiment.run).parameters:
        raise InputError(
            f"run of {experiment.name} cannot resume: give it a keyword `store` and hand that to "
            "sweep"
        )
    attributes = {
        # A name that is not UTF-8 here, as in the locale C, can still be UTF-8 bytes.
        "experiment": os.fsencode(experiment.name).decode("utf-8", "replace"),
        "scale": scale,
        "config": json.dumps(dataclasses.asdict(config), default=str),
        "commit": _commit(experiment.path.parent),
        "python": platform.python_version(),
    }
    started = time.perf_counter()
    try:
        with _signals(signal.default_int_handler):
            results = experiment.run(config, store=store) if store else experiment.run(config)
    except (SweepInterrupted, SweepError) as stop:
        stop.results.attrs.update(attributes)
        _say(str(stop))
        kept = _save(stop.results, partial)
        _say(f"saved: {kept}")
        if not store:
            _say("with --store FILE a run that is started again goes on where it stopped")
        raise SystemExit(130 if isinstance(stop, SweepInterrupted) else 1) from None
    if results is None:
        raise InputError(f"run of {experiment.path} returns None: return the results")
    if isinstance(results, xr.Dataset):
        results.attrs = {**environment(), **results.attrs, **attributes}
        results.attrs["seconds"] = round(time.perf_counter() - started, 1)
    kept = _save(results, saved)
    if kept != saved:
        if kept.suffix == ".nc":
            _say(_how_to_go_on(experiment, kept, figures))
        else:
            _say(f"what run returned is kept in {kept}: read it with pickle.load, mend run")
        raise SystemExit(1)
    return draw(experiment, saved, folder=figures)


def draw(
    experiment: Experiment,
    file: Path,
    *,
    folder: Path,
    formats: Sequence[str] = ("png", "svg"),
) -> bool:
    """Check the claims of saved results and draw their figure, without a run.

    Writes `folder/<name>.json` (claims, config, provenance of the run), the figure, and
    `folder/CLAIMS.md`, all claims of the folder. `<name>` is that of `file`.

    Args:
        experiment: as `experiment.load` gives it; its `run` is not called.
        file: results that `execute` has saved.
        folder: for claims and figure; made if missing.
        formats: of the figure, from `FORMATS`.

    Returns:
        Whether every claim holds. At smoke scale, which shows that an experiment runs and not
        what it shows, none needs to.

    Raises:
        ValueError: `file` holds no results, or a file cannot be written.
        SystemExit: `claims` or `plot` failed; a message says how to go on.
    """
    name = file.name.removesuffix(".nc")
    for path in _written(folder, name, formats):
        files.check_writable(path)
        _check_ours(path)
    results = _load(file)
    try:
        checked = _check(experiment, results)
        figures = _draw(experiment, results, folder / name, formats)
        record = _record(experiment, results, checked)
        files.write(folder / f"{name}.json", json.dumps(record, indent=1, default=str) + "\n")
        _list_claims(folder)
    except InputError as error:
        raise InputError(f"{error}; {_how_to_go_on(experiment, file, folder)}") from error
    except (Exception, KeyboardInterrupt) as error:
        _say(traceback.format_exc().rstrip(), _how_to_go_on(experiment, file, folder))
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from error
    smoke = record["scale"] == "smoke"
    title = f"{name}, {float(record.get('seconds', 'nan')):.0f} s"
    if smoke:
        title += "; smoke scale shows that it runs, not that its claims hold"
    if checked:
        with contextlib.suppress(OSError, SystemExit):
            claims_.show(title, checked, Console(stderr=True))
    _say(f"results: {file}", *(f"figure: {figure}" for figure in figures[:1]))
    return smoke or all(claim.holds for claim in checked)


def _written(folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """What `draw` writes."""
    suffixes = ("json", *formats)
    return [*(folder / f"{name}.{suffix}" for suffix in suffixes), folder / "CLAIMS.md"]


def _check_ours(path: Path) -> None:
    """A file of somebody else that has the name of one of ours is not written over."""
    ours = True
    # What is missing or broken is nobody's loss, and what is locked will be replaced, not changed.
    with contextlib.suppress(OSError, ValueError):
        match path.suffix:
            case ".nc":
                with path.open("rb") as file:
                    ours = file.read(8) in (b"", b"\x89HDF\r\n\x1a\n")
                with xr.open_dataset(path, engine="h5netcdf") as results:
                    ours = "config" in results.attrs
            case ".json":
                ours = claims_.is_record(json.loads(files.read(path)))
            case ".md":
                ours = files.read(path).startswith(claims_.HEADING)
            case _:
                pass
    if not ours:
        raise InputError(
            f"{path} is not of toymodels: move it, or choose another folder with --out"
        )


def _save(results: Any, path: Path) -> Path:
    """Save results as netCDF, in another form or place where that fails, and say where they are."""
    with _signals(signal.SIG_IGN):  # a second Ctrl-C must not cost them
        try:
            contents = _netcdf(results)
        except Exception as error:
            _say(f"{path} cannot be written: {type(error).__name__}: {error}")
            contents, path = pickle.dumps(results), path.with_suffix(".pickle")
        try:
            files.write(path, contents)
            return path
        except OSError as error:
            _say(f"{path} cannot be written: {error}")
            failure = error
        for folder in (tempfile.gettempdir, Path.home):
            with contextlib.suppress(OSError, RuntimeError):
                place = Path(tempfile.mkdtemp(prefix="toymodels-", dir=folder())) / path.name
                files.write(place, contents)
                return place
        raise failure


def _netcdf(results: Any) -> bytes:
    if not isinstance(results, xr.Dataset):
        raise TypeError(f"run returns {type(results).__name__}: return an xarray.Dataset")
    # In memory, for HDF5 that meets a full disk ends the process with a segmentation fault.
    return bytes(results.to_netcdf(engine="h5netcdf"))


def _load(file: Path) -> xr.Dataset:
    try:
        return xr.load_dataset(file, engine="h5netcdf")
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist: run the experiment first") from error
    except Exception as error:
        raise InputError(
            f"{file} cannot be read as results: {type(error).__name__}: {error}"
        ) from error


def _check(experiment: Experiment, results: xr.Dataset) -> list[Claim]:
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

    paths = [path.with_name(f"{path.name}.{suffix}") for suffix in formats]
    with plotting.style(), contextlib.ExitStack() as stack:
        figure = experiment.plot(results)
        if not isinstance(figure, plotting.Figure):
            raise InputError(
                f"plot of {experiment.path} returns {type(figure).__name__}: return the figure"
            )
        for drawn, suffix in zip(paths, formats, strict=True):
            temporary = stack.enter_context(files.whole(drawn))
            figure.savefig(temporary, format=suffix, dpi=150, metadata=_DATES.get(suffix))
    return paths


def _record(
    experiment: Experiment, results: xr.Dataset, checked: Sequence[Claim]
) -> dict[str, Any]:
    """Claims, config and provenance: of the run, as its results have it, not of the drawing."""
    attributes = results.attrs
    return {
        "experiment": attributes.get("experiment", experiment.name),
        "claims": [claim.to_json() for claim in checked],
        "counts": {
            kind: {"hold": held, "of": number}
            for kind, (held, number) in claims_.count(checked).items()
        },
        "config": json.loads(attributes.get("config", "null")),
        "scale": attributes.get("scale", "unknown"),
        "commit": attributes.get("commit", "unknown"),
        "drawn at commit": _commit(experiment.path.parent),
        **{name: np.asarray(attributes[name]).tolist() for name in _KEPT if name in attributes},
    }


def _list_claims(folder: Path) -> None:
    """Write CLAIMS.md, and again if another run has finished meanwhile."""
    page = ""
    while page != (page := claims_.markdown(claims_.read(folder))):
        files.write(folder / "CLAIMS.md", page)


def _how_to_go_on(experiment: Experiment, file: Path, folder: Path) -> str:
    words = ["toymodels", "draw", experiment.path, "--from", file, "--out", folder]
    return f"the results are kept in {file}; to go on: {shlex.join(map(str, words))}"


def _say(*lines: str) -> None:
    """Print on standard error; a terminal that has gone away must not cost results."""
    with contextlib.suppress(OSError, SystemExit):  # rich makes an exit of a closed pipe
        for line in lines:
            Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _signals(handler: Any) -> Generator[None]:
    """Handle what stops a process, where the user or `nohup` has not chosen otherwise.

    With the handler of Ctrl-C, a closed terminal and `kill` stop a sweep as Ctrl-C does, so
    that what was finished is saved.
    """
    names = ("SIGINT", "SIGHUP", "SIGTERM")  # Windows has no SIGHUP
    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) in defaults}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _commit(folder: Path) -> str:
    """The commit of a folder, and whether any Python file of its project differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=True, text=True
        ).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", ":(top)*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
