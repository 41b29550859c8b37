"""One experiment: a file with a `Config`, a `run`, and perhaps `claims` and `plot`.

    Config   frozen dataclass; its defaults are what the figure shows
    run      Config -> xr.Dataset; with a keyword `store`, a path, it can be resumed
    claims   xr.Dataset -> list of Claim                (optional)
    plot     xr.Dataset -> matplotlib Figure            (optional)
    SMOKE    a Config of seconds, for tests             (optional)
    PAPER    a Config at the paper's own scale          (optional)

`execute` runs it, saves the results, and makes claims and figure from the saved file alone.
"""

import dataclasses
import importlib.util
import inspect
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

from toymodels import claims as claims_
from toymodels.blocks import environment
from toymodels.claims import Bound as Bound
from toymodels.claims import Claim as Claim
from toymodels.claims import Kind as Kind
from toymodels.errors import InputError
from toymodels.sweeps import SweepError, SweepInterrupted


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What an experiment file defines; see the module's docstring."""

    name: str
    title: str
    config: type[Any]
    run: Callable[..., xr.Dataset]
    claims: Callable[[xr.Dataset], list[Claim]] | None
    plot: Callable[[xr.Dataset], Any] | None
    scales: dict[str, Any]


def load(path: Path) -> Experiment:
    """Read an experiment from a file anywhere on disk.

    Raises:
        ValueError: no such file, or no `Config` or `run` in it.
    """
    if not path.is_file() or path.suffix != ".py":
        raise InputError(f"{path} is not a Python file: give the path of an experiment")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    contents = vars(module)
    for name, what in (("Config", "a frozen dataclass"), ("run", "a function of a Config")):
        if name not in contents:
            raise InputError(f"{path} has no {name}: define {name}, {what}; see `toymodels new`")
    if not dataclasses.is_dataclass(contents["Config"]):
        raise InputError(f"Config in {path} is not a dataclass: decorate it with dataclass")
    config: Any = contents["Config"]
    scales = {"default": config()}
    scales |= {name.lower(): contents[name] for name in ("SMOKE", "PAPER") if name in contents}
    return Experiment(
        name=path.stem,
        title=(module.__doc__ or "").partition("\n")[0],
        config=config,
        run=contents["run"],
        claims=contents.get("claims"),
        plot=contents.get("plot"),
        scales=scales,
    )


def execute(
    experiment: Experiment, config: Any, *, name: str, folder: Path, store: Path | None = None
) -> bool:
    """Run, save, check and draw.

    Writes `folder/<name>.json` (claims, config, provenance), `.png` and `.svg`, the list of
    all claims `folder/CLAIMS.md`, and the results themselves, `results/<name>.nc`.

    Args:
        experiment: as `load` gives it.
        config: an instance of its `Config`.
        name: of the files.
        folder: for the figure; made if missing.
        store: keeps finished cells, for `run` to go on after it was stopped.

    Returns:
        Whether every claim holds.

    Raises:
        SystemExit: `run` was interrupted, or a block of it failed; what was finished is in
            `results/<name>.partial.nc`.
    """
    console = Console(stderr=True)
    # Before the hours of work, not after.
    saved = Path("results") / f"{name}.nc"
    for place in (folder, saved.parent):
        place.mkdir(parents=True, exist_ok=True)
    if store and "store" not in inspect.signature(experiment.run).parameters:
        raise InputError(
            f"run of {experiment.name} cannot resume: give it a keyword `store` and hand that to "
            "sweep"
        )
    started = time.perf_counter()
    try:
        results = experiment.run(config, store=store) if store else experiment.run(config)
    except (SweepInterrupted, SweepError) as stop:
        partial = saved.with_suffix(".partial.nc")
        stop.results.to_netcdf(partial, engine="h5netcdf")
        console.print(str(stop), style="red", markup=False)
        console.print(f"saved: {partial}")
        raise SystemExit(130 if isinstance(stop, SweepInterrupted) else 1) from None
    results.attrs["config"] = json.dumps(dataclasses.asdict(config), default=str)
    results.to_netcdf(saved, engine="h5netcdf")
    seconds = time.perf_counter() - started
    results = xr.load_dataset(saved, engine="h5netcdf")
    checked = experiment.claims(results) if experiment.claims else []
    if experiment.plot:
        from toymodels import plotting

        with plotting.style():
            figure = experiment.plot(results)
            figure.savefig(folder / f"{name}.png", dpi=150)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    record = {
        "experiment": experiment.name,
        "claims": [claim.to_json() for claim in checked],
        "counts": {
            kind: {"hold": held, "of": number}
            for kind, (held, number) in claims_.count(checked).items()
        },
        "config": dataclasses.asdict(config),
        "commit": _commit(),
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        **environment(),
        **{
            name: np.asarray(results.attrs[name]).tolist()
            for name in ("block_width", "diverged_cells")
            if name in results.attrs
        },
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    (folder / "CLAIMS.md").write_text(claims_.markdown(claims_.read(folder)))
    claims_.show(f"{name}, {seconds:.0f} s", checked, console)
    console.print(f"results: {saved}   figure: {folder / name}.png")
    return all(claim.holds for claim in checked)


def main(file: str) -> None:
    """Run the experiment in `file` with the flags of the command line: the last line of one."""
    from toymodels import cli

    cli.main(["run", file, *sys.argv[1:]])


def _commit() -> str:
    """The commit of the working folder, and whether any Python file differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, check=True, text=True
        ).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", "*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
