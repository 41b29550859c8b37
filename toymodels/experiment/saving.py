"""Results of a run on disk. If they cannot be saved there, they go into another form or place."""

import contextlib
import json
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import xarray as xr

from toymodels.errors import InputError
from toymodels.experiment import files, pages
from toymodels.experiment.messages import say


def check_ours(path: Path) -> None:
    """Refuse to write over a file of another program that has the name of one of ours.

    Raises:
        ValueError: there is such a file.
    """
    ours = True
    # A file that is missing or broken is no loss, and a locked one is replaced, not changed.
    with contextlib.suppress(OSError, ValueError):
        match path.suffix:
            case ".nc":
                with path.open("rb") as file:
                    ours = file.read(8) in (b"", b"\x89HDF\r\n\x1a\n")
                with xr.open_dataset(path, engine="h5netcdf") as results:
                    ours = "config" in results.attrs
            case ".json":
                ours = pages.is_record(json.loads(files.read(path)))
            case ".md":
                ours = pages.is_ours(path)
            case _:
                pass
    if not ours:
        raise InputError(
            f"{path} is not a file of toymodels: move it, or choose another folder with --out"
        )


def save(results: Any, path: Path) -> Path:
    """Save results as netCDF, or in another form or place if that fails; return their path."""
    with signals(signal.SIG_IGN):  # a second Ctrl-C must not cost them
        try:
            contents = _netcdf(results)
        except Exception as error:
            say(f"{path} cannot be written: {type(error).__name__}: {error}")
            contents, path = _pickled(results), path.with_suffix(".pickle")
        try:
            files.write(path, contents)
            return path
        except OSError as error:
            say(f"{path} cannot be written: {error}")
            failure = error
        for folder in (tempfile.gettempdir, Path.home):
            with contextlib.suppress(OSError, RuntimeError):
                place = Path(tempfile.mkdtemp(prefix="toymodels-", dir=folder())) / path.name
                files.write(place, contents)
                return place
        raise failure


def load(file: Path) -> xr.Dataset:
    """Read saved results.

    Raises:
        ValueError: the file is missing, or holds no results.
    """
    if os.path.isdir(file):
        raise InputError(f"{file} is a folder: give a file of results in it, such as NAME.nc")
    try:
        return xr.load_dataset(file, engine="h5netcdf")
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist: run the experiment first") from error
    except Exception as error:
        what = " ".join(str(error).split())  # HDF5 writes several lines
        raise InputError(
            f"{file} cannot be read as results: {what}; give a file that `toymodels run` saved"
        ) from error


@contextlib.contextmanager
def signals(handler: Any) -> Generator[None]:
    """Handle the signals that stop a process, unless the user or `nohup` has set them already.

    With the handler of Ctrl-C, a closed terminal and `kill` stop a sweep as Ctrl-C does, so that
    finished cells are saved.
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


def _pickled(results: Any) -> bytes:
    try:
        return pickle.dumps(results)
    except Exception as error:
        raise InputError(
            f"the results are lost, because pickle cannot keep them either ({error}): let run "
            "return an xarray.Dataset"
        ) from error


def _netcdf(results: Any) -> bytes:
    if not isinstance(results, xr.Dataset):
        raise TypeError(f"run returns {type(results).__name__}: return an xarray.Dataset")
    # In memory, because HDF5 ends the process with a segmentation fault when the disk is full.
    return bytes(results.to_netcdf(engine="h5netcdf"))
