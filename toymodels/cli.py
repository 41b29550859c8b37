"""The command `toymodels`: list, run and check experiments, or start a new one.

Nothing heavy is imported before it is needed, so that `--help` answers at once.
"""

import ast
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from toymodels.errors import InputError

_HELP = """\
usage: toymodels COMMAND

Toy models of superposition: sweeps, theory and figures as checked claims.

commands:
  list [FOLDER]         the experiments in FOLDER (default: experiments)
  run FILE [FLAGS]      run one experiment, check its claims and draw its figure;
                        FLAGS are the fields of its Config: `toymodels run FILE --help`
  claims [FOLDER [PAGE]]
                        every claim of the figures in FOLDER (default: figures); and put
                        how many hold and which fail into PAGE, as into README.md
  store FILE            what sweeps keep in FILE (their store=), every row checked
  new FILE              write the skeleton of a new experiment

`run` and `claims` exit with 3 if a claim fails, `store` with 1 if a row was damaged, all with
2 on bad input.
"""

_SKELETON = '''\
"""{title}.

Claim: what the figure should show, in one sentence.
"""

import dataclasses

import optax
import toymodels as tm
import xarray as xr
from toymodels import experiment, plotting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    num_seeds: int = 4
    steps: int = 2000


def run(config: Config) -> xr.Dataset:
    def cell(key, *, density):
        task = tm.Task(tm.SparseUniform(5, density))
        adam = optax.adam(optax.cosine_decay_schedule(1e-2, config.steps))
        model = tm.ReLUOutput(hidden=2)
        trained = tm.train(key, model, task, optimizer=adam, steps=config.steps, batch=1024)
        return {{"loss": trained.loss, "weights": trained.params["weights"]}}

    return tm.sweep(cell, axes={{"density": config.densities}}, num_seeds=config.num_seeds)


def plot(results: xr.Dataset):
    figure, axes = plotting.figure()
    axes.loglog(results.density, results.loss.transpose("density", "seed"), "o")
    axes.set(xlabel="density", ylabel="loss, summed over outputs")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
'''


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command; `arguments` default to those of the process."""
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        match command:
            case "-h" | "--help":
                print(_HELP, end="")
            case "list":
                _list(_folder(rest, "experiments"))
            case "run":
                _run(rest)
            case "claims":
                _claims(_folder(rest, "figures"), [Path(page) for page in rest[1:]])
            case "store":
                _store(rest)
            case "new":
                _new(rest)
            case _:
                raise InputError(f"no command {command!r}: list, run, claims, store or new")
    except InputError as error:
        Console(stderr=True).print(
            f"toymodels: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        raise SystemExit(2) from error


def _folder(arguments: Sequence[str], default: str) -> Path:
    folder = Path(arguments[0] if arguments else default)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder here: give one, or change to the project")
    return folder


def _list(folder: Path) -> None:
    from toymodels import claims

    table = Table("experiment", "what it shows", "claims that hold")
    figures = Path("figures")
    held = claims.read(figures) if figures.is_dir() else {}
    for path in sorted(folder.glob("*.py")):
        title, *_ = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines() or [""]
        checked = held.get(path.stem, [])
        score = f"{sum(claim.holds for claim in checked)} of {len(checked)}" if checked else "-"
        table.add_row(str(path), title, score)
    Console().print(table)


def _run(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        raise InputError("run needs the path of an experiment first: toymodels run FILE [FLAGS]")
    from toymodels import experiment

    path = Path(arguments[0])
    loaded = experiment.load(path)
    scales = [flag[2:] for flag in arguments if flag in ("--smoke", "--paper")]
    if len(scales) > 1 or any(scale not in loaded.scales for scale in scales):
        raise InputError(f"{path} runs at one scale of: {', '.join(loaded.scales)}")
    scale = scales[0] if scales else "default"
    start = loaded.scales[scale]
    rest = [argument for argument in arguments[1:] if argument not in ("--smoke", "--paper")]
    out = (
        "folder for the figure; the default is figures/ for the defaults of the file, else results/"
    )
    store = "file that keeps finished cells: a run that was stopped goes on from there"
    options = dataclasses.make_dataclass(
        "Options",
        [
            (
                "config",
                tyro.conf.OmitArgPrefixes[loaded.config],
                dataclasses.field(default_factory=lambda: start),
            ),
            (
                "out",
                Annotated[Path | None, tyro.conf.arg(help=out)],
                dataclasses.field(default=None),
            ),
            (
                "store",
                Annotated[Path | None, tyro.conf.arg(help=store)],
                dataclasses.field(default=None),
            ),
        ],
    )
    parsed: Any = tyro.cli(
        options,
        args=rest,
        prog=f"toymodels run {path}",
        description=f"{loaded.title}\n\nRuns at one scale of: {', '.join(loaded.scales)} "
        "(--smoke, --paper). The options are the fields of its Config.",
    )
    published = scale != "smoke" and parsed.config == start
    name = loaded.name if scale == "default" else f"{loaded.name}_{scale}"
    if scale != "smoke" and not published:
        name += "_custom"  # the results of the published run stay
    folder = parsed.out or Path("figures" if published else "results")
    holds = experiment.execute(loaded, parsed.config, name=name, folder=folder, store=parsed.store)
    if scale == "smoke":
        print("smoke scale: shows that the experiment runs, not that its claims hold")
    elif not holds:
        raise SystemExit(3)


def _claims(folder: Path, pages: Sequence[Path]) -> None:
    from toymodels import claims

    groups = claims.read(folder)
    if not groups:
        raise InputError(f"no claims in {folder}: run an experiment first")
    for name, group in groups.items():
        claims.show(name, group, Console())
    for page in pages:
        beside = Path(os.path.relpath(folder, page.parent))  # links are relative to the page
        claims.insert(claims.summary(groups, beside), page)
    flat = [claim for group in groups.values() for claim in group]
    print(claims.total(flat))
    if not all(claim.holds for claim in flat):
        raise SystemExit(3)


def _store(arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise InputError("store needs the path of one file: toymodels store results/phase.db")
    from toymodels.store import Store

    with Store(arguments[0], create=False) as store:
        verified = store.verify()
        holdings = store.programs()
    parts = [dict(held.program.aspects()) if held.program else {} for held in holdings]
    names = list(dict.fromkeys(name for part in parts for name in part))
    # What differs from program to program is a column, what does not a line.
    columns = [name for name in names if len({part.get(name) for part in parts}) > 1]
    table = Table("sweep", "cells", "damaged", "since", *columns)
    for held, part in zip(holdings, parts, strict=True):
        title = held.program.title if held.program else "unknown"
        counts = (str(held.cells), str(held.damaged), held.created)
        table.add_row(title, *counts, *(part.get(name, "") for name in columns))
    Console().print(table)
    for name in names:
        if name not in columns and parts[0][name]:
            print(f"{name}: {parts[0][name]}")
    print(f"{verified.cells} cells are whole, {verified.set_aside} were damaged just now")
    if verified.set_aside or verified.copies:
        print("run the same sweep again: it computes what is missing")
        raise SystemExit(1)


def _new(arguments: Sequence[str]) -> None:
    if len(arguments) != 1 or not arguments[0].endswith(".py"):
        raise InputError("new needs the path of a Python file: toymodels new my_idea.py")
    path = Path(arguments[0])
    if path.exists():
        raise InputError(f"{path} exists: choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a folder: make it first")
    title = path.stem.replace("_", " ").capitalize()
    path.write_text(_SKELETON.format(title=title))
    print(f"{path} is ready: toymodels run {path}")


if __name__ == "__main__":
    main()
