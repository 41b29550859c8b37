"""The table of experiments that `toymodels list` prints."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toymodels.errors import InputError
from toymodels.experiment import library, messages, pages


def show(folder: Path | None) -> None:
    """Print a table of the experiments in a folder, or of all that there are.

    An experiment of the user's own hides one of the same name that comes with toymodels.
    """
    if folder and not os.path.isdir(folder):
        raise InputError(f"{folder} is not a folder here: give another, or none")
    folders = [folder] if folder else [Path("experiments"), library.shipped()]
    shown: set[str] = set()
    for place in folders:
        paths = [path for path in library.named(place) if path.stem not in shown]
        shown |= {path.stem for path in paths}
        if not paths:
            continue
        own = folder is not None or place != library.shipped()
        title = str(place) if own else "come with toymodels"
        project = (folder or Path("experiments")).resolve().parent
        _print_experiments(title, paths, project, without_figure="draft" if own else "-")
    if not shown:
        raise InputError(f"{folder or 'this place'} has no experiments: see `toymodels new`")


def _print_experiments(
    title: str, paths: Sequence[Path], project: Path, *, without_figure: str
) -> None:
    table = Table(title=escape(title), title_justify="left")
    table.add_column(
        "experiment", overflow="fold", min_width=min(28, max(len(p.stem) for p in paths))
    )
    table.add_column("what it shows")
    table.add_column("claims", overflow="fold")
    beside = project / "figures"
    made = records(beside if os.path.isdir(beside) else Path("figures"))
    for path in paths:
        try:
            title = library.docstring(path).partition("\n")[0]
        except InputError as error:
            title = str(error)
        score = without_figure
        if record := made.get(path.stem):
            score = f"{sum(claim.holds for claim in record.claims)} of {len(record.claims)}"
        table.add_row(escape(path.stem), escape(title), score)
    Console().print(table)


def records(folder: Path) -> dict[str, pages.Record]:
    """Return the records of the figures in a folder, and print a line for each broken one."""
    with warnings.catch_warnings(record=True) as broken:
        warnings.simplefilter("always")
        found = pages.read(folder)
    for warning in broken:
        messages.complain(str(warning.message))
    return found
