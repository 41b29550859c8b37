"""The command `toymodels`, which lists, runs, draws, checks, copies and starts experiments.

Heavy modules are imported only when they are needed, so that `--help` answers at once.
"""

import argparse
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import toymodels
from toymodels.errors import InputError
from toymodels.experiment import command, files, library, listing, messages, pages


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with the arguments given, or with those of the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with messages.exits():
        _command(words)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise an error whose message is one line."""
        raise InputError(f"{message}; see {self.prog} --help")


def _command(words: Sequence[str]) -> None:
    parser, commands = _parser()
    first = words[0] if words else "--help"
    if not first.startswith("-") and first not in commands:
        there_are = f"there are {', '.join(commands)}"
        near = library.near(first, commands, there_are)
        raise InputError(f"no command {first!r}: {near}")
    # The words after the name of an experiment are flags of its own.
    known, own = (words[:2], words[2:]) if first == "run" else (words or ["--help"], None)
    values = vars(parser.parse_args(known))
    if own is not None:
        values["words"] = own
    values.pop("do")(**values)


def _parser() -> tuple[_Parser, Collection[str]]:
    """Return the parser of the command line, and the names of the commands."""
    parser = _Parser(
        prog="toymodels",
        description="Toy models of superposition: sweeps, theory, and figures that check their "
        "own claims.",
        epilog="The exit status is 2 for bad input. `run`, `draw` and `claims` exit with 3 if a "
        "claim fails, and `store` exits with 1 if a row was damaged.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=toymodels.__version__,
        help="Print the version and exit.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (_add_list, _add_run, _add_figures, _add_draw, _add_claims, _add_explore,
                _add_cost, _add_copy, _add_new, _add_store):  # fmt: skip
        add(commands)
    return parser, commands.choices


def _add_command(
    commands: Any, name: str, arguments: str, what: str, do: Callable[..., None]
) -> _Parser:
    """Add a command; `do` is called with the values of the arguments that the caller adds to it."""
    added = commands.add_parser(
        name, help=what, description=what, usage=f"toymodels {name} {arguments}"
    )
    added.set_defaults(do=do)
    return added


def _add_experiment(command: _Parser, name: str, **number: Any) -> None:
    command.add_argument(
        name,
        metavar="NAME",
        help="The path of an experiment, or its name, which is looked up in this folder, in "
        "experiments/, and among the experiments that come with toymodels.",
        **number,
    )


def _add_list(commands: Any) -> None:
    what = (
        "List the experiments in FOLDER with their claims. By default they are those in "
        "experiments/ and those that come with toymodels."
    )
    listed = _add_command(commands, "list", "[FOLDER]", what, listing.show)
    listed.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")


def _add_run(commands: Any) -> None:
    what = (
        "Run an experiment, check its claims and draw its figure. The FLAGS are the fields of its "
        "Config; `toymodels run NAME --help` lists them."
    )
    run = _add_command(commands, "run", "NAME [--smoke | --paper] [FLAGS]", what, _run)
    _add_experiment(run, "name")


def _add_figures(commands: Any) -> None:
    what = (
        "Run experiments, those that take least time first, each in a process of its own. Print "
        "one line for each; results/NAME.log keeps what it prints."
    )
    figures = _add_command(commands, "figures", "NAME... [--draw]", what, _figures)
    _add_experiment(figures, "names", nargs="+")
    figures.add_argument(
        "--draw", action="store_true", help="Draw saved results instead of running."
    )


def _add_claims(commands: Any) -> None:
    what = (
        "Print every claim of the figures in FOLDER, which is figures/ by default, and write its "
        "pages README.md, CLAIMS.md and FINDINGS.md. Put the number of claims into PAGE, such as "
        "README.md."
    )
    claims = _add_command(commands, "claims", "[FOLDER [PAGE]]", what, _claims)
    claims.add_argument("folder", nargs="?", default=Path("figures"), type=Path, metavar="FOLDER")
    claims.add_argument("page", nargs="?", type=Path, metavar="PAGE")


def _add_copy(commands: Any) -> None:
    what = "Copy an experiment to FOLDER, which is this folder by default, so that you can edit it."
    copy = _add_command(commands, "copy", "NAME [FOLDER]", what, _copy)
    _add_experiment(copy, "name")
    copy.add_argument("folder", nargs="?", default=Path(), type=Path, metavar="FOLDER")


def _add_new(commands: Any) -> None:
    new = _add_command(commands, "new", "FILE", "Write a short new experiment to FILE.", _new)
    new.add_argument("file", type=Path, metavar="FILE")


def _add_store(commands: Any) -> None:
    what = "Check every row that sweeps keep in FILE, their `store`, and show what it holds."
    store = _add_command(commands, "store", "FILE", what, _store)
    store.add_argument("file", type=Path, metavar="FILE")


def _add_draw(commands: Any) -> None:
    what = "Check the saved results of an experiment and draw its figure, without running it."
    arguments = "NAME [--smoke | --paper | --from FILE] [--out FOLDER] [--format FORMAT]"
    draw = _add_command(commands, "draw", arguments, what, _draw)
    _add_experiment(draw, "name")
    which = draw.add_mutually_exclusive_group()
    which.add_argument(
        "--from",
        dest="file",
        type=Path,
        metavar="FILE",
        help="The saved results. By default they are results/NAME.nc.",
    )
    for scale in ("smoke", "paper"):
        _add_scale(which, scale, f"Draw results/NAME_{scale}.nc.")
    draw.add_argument(
        "--out",
        dest="folder",
        type=Path,
        metavar="FOLDER",
        help="The folder for claims and figure. By default it is that of the run.",
    )
    draw.add_argument(
        "--format",
        dest="formats",
        action="append",
        choices=("png", "svg", "pdf"),
        help="The format of the figure. It may be given several times. By default the figure is "
        "drawn as png and svg.",
    )


def _add_scale(group: Any, scale: str, what: str) -> None:
    group.add_argument(
        f"--{scale}",
        dest="scale",
        action="store_const",
        const=scale,
        default="default",
        help=what,
    )


def _add_explore(commands: Any) -> None:
    what = "Write a page on which you walk through the cells of saved results in a browser."
    arguments = "FILE [--out PAGE] [--hidden NAME] [--feature NAME]"
    explore = _add_command(commands, "explore", arguments, what, _explore)
    explore.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="The saved results, such as results/NAME.nc.",
    )
    explore.add_argument(
        "--out",
        dest="page",
        type=Path,
        metavar="PAGE",
        help="The page. By default it lies beside FILE and ends in .html.",
    )
    for dim in ("hidden", "feature"):
        explore.add_argument(
            f"--{dim}",
            default=dim,
            metavar="NAME",
            help=f"The name of the {dim} dimension of the weights. By default it is {dim}.",
        )


def _add_cost(commands: Any) -> None:
    what = (
        "Compile each sweep of an experiment for a GPU that this computer need not have, and "
        "print its kernels, its memory traffic and the speed that it cannot pass. No cell is run. "
        "It needs pip install 'toymodels[gpu-inspect]'."
    )
    arguments = "NAME --device GPU [--smoke | --paper]"
    cost = _add_command(commands, "cost", arguments, what, _cost)
    _add_experiment(cost, "name")
    cost.add_argument(
        "--device",
        required=True,
        choices=("h100", "h200", "b200"),
        help="The GPU: an NVIDIA H100, H200 or B200.",
    )
    which = cost.add_mutually_exclusive_group()
    for scale in ("smoke", "paper"):
        _add_scale(which, scale, f"Take the sweeps of {scale.upper()}.")


def _run(name: str, words: Sequence[str]) -> None:
    command.run(library.find(name), words)


def _figures(names: Sequence[str], draw: bool) -> None:
    from toymodels.experiment import many

    if status := many.make([library.find(name) for name in names], draw=draw):
        raise SystemExit(status)


def _draw(
    name: str,
    scale: str,
    file: Path | None,
    folder: Path | None,
    formats: Sequence[str] | None,
) -> None:
    command.draw(library.find(name), scale=scale, file=file, folder=folder, formats=formats)


def _claims(folder: Path, page: Path | None) -> None:
    if not os.path.isdir(folder):
        raise InputError(f"{folder} is not a folder here: give one, or change to the project")
    records = listing.records(folder)
    if not records:
        raise InputError(f"no claims in {folder}: run an experiment first")
    if page:
        pages.insert(f"{pages.total(records)}\n", page)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken records have just been named
        pages.write(folder)
    for name, record in records.items():
        pages.show(name, record.claims, Console())
    print(pages.total(records))
    if not all(claim.holds for record in records.values() for claim in record.claims):
        raise SystemExit(3)


def _explore(file: Path, page: Path | None, hidden: str, feature: str) -> None:
    from toymodels.experiment import saving
    from toymodels.explorer import explore

    made = explore(saving.load(file), hidden=hidden, feature=feature, title=file.stem)
    saved = made.save(page or file.with_suffix(".html"))
    print(f"{saved} is ready: open it in a browser")


def _cost(name: str, device: str, scale: str) -> None:
    from toymodels.experiment import costs

    costs.show(library.find(name), device, scale=scale)


def _copy(name: str, folder: Path) -> None:
    path = library.find(name)
    target = folder / path.name
    _check_new(target)
    with files.whole(target) as temporary:
        shutil.copyfile(path, temporary)
    print(f"{target} is ready: toymodels run {shlex.quote(str(target))}")


def _new(file: Path) -> None:
    if file.suffix != ".py":
        raise InputError(f"{file} is not the path of a Python file: toymodels new my_idea.py")
    _check_new(file)
    title = " ".join(re.findall(r"\w+", file.stem.replace("_", " "))).capitalize() or "My idea"
    skeleton = files.read(Path(__file__).parent / "experiment" / "skeleton.py")
    files.write(file, skeleton.replace("My idea.", f"{title}.", 1))
    print(f"{file} is ready: toymodels run {shlex.quote(str(file))}")


def _check_new(file: Path) -> None:
    if not os.path.isdir(file.parent):
        raise InputError(f"{file.parent} is not a folder: make it first")
    if os.path.lexists(file):
        raise InputError(f"{file} exists: choose another name")
    files.check_writable(file)


def _store(file: Path) -> None:
    from toymodels.sweeps.store.store import Store

    with Store(file, create=False) as store:
        verified = store.verify()
        programs = store.programs()
    aspects = [program.identity.aspects() if program.identity else {} for program in programs]
    names = list(dict.fromkeys(name for each in aspects for name in each))
    # Aspects in which the programs differ are columns of the table; the others are lines below it.
    columns = [name for name in names if len({each.get(name) for each in aspects}) > 1]
    table = Table("sweep", "cells", "damaged", "since", *map(escape, columns))
    for program, each in zip(programs, aspects, strict=True):
        title = program.identity.title if program.identity else "unknown"
        row = (title, str(program.cells), str(program.damaged), program.created)
        table.add_row(*map(escape, (*row, *(each.get(name, "") for name in columns))))
    Console().print(table)
    for name in names:
        if name not in columns and aspects[0][name]:
            print(f"{name}: {aspects[0][name]}")
    print(f"{verified.cells} cells are whole, {verified.quarantined} were damaged just now")
    if verified.quarantined or verified.copies:
        print("run the same sweep again: it computes the missing cells")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
