"""The command `toymodels cost`: the cost of the sweeps of an experiment on a card."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import jax
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toymodels.engine.cards import report
from toymodels.engine.cards.card import LAUNCH_SECONDS, Card, speed
from toymodels.engine.devices import UPDATES_A_TURN
from toymodels.errors import InputError
from toymodels.experiment import loading
from toymodels.experiment.messages import say
from toymodels.sweeps.costs import ProgramCosts, costs_on
from toymodels.sweeps.requests import Request
from toymodels.sweeps.watching import instead_of_running


def show(path: Path, device: str, *, scale: str = "default") -> None:
    """Print what each sweep of an experiment would cost on a card; no cell is run.

    A sweep returns NaN to the experiment. An experiment that cannot go on with NaN ends there, and
    a message says after how many sweeps.

    Args:
        path: the file of the experiment.
        device: the name of the card: h100, h200 or b200.
        scale: the name of one of the configs of the experiment.

    Raises:
        InputError: the experiment has no such scale or no sweep, or the compiler for cards is not
            installed.
    """
    card = Card(device)
    jax.config.update("jax_platforms", "cpu")  # JAX would look for the card otherwise
    experiment = loading.load(path)
    if scale not in experiment.scales:
        raise InputError(f"{path} runs at one scale of: {', '.join(experiment.scales)}")
    seen: list[Request] = []
    limits = speed(card)
    print(
        f"{card.value}: {limits.cores} cores at {limits.clock / 1e9:g} GHz, memory of "
        f"{limits.bandwidth / 1e12:.2f} TB/s, {1e6 * LAUNCH_SECONDS:g} us for each kernel; no time "
        "is measured"
    )

    def watch(request: Request) -> None:
        seen.append(request)
        for program in costs_on(request, card):
            Console().print(table(program, card))

    with instead_of_running(watch), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all results are NaN, of which sweeps would warn
        try:
            experiment.run(experiment.scales[scale])
        except InputError:
            raise
        except Exception as error:  # a user wrote what follows the sweeps
            say(f"{path} goes no further without results ({type(error).__name__}: {error})")
    if not seen:
        raise InputError(f"{path} makes no sweep: nothing can be compiled")


def table(program: ProgramCosts, card: Card) -> Table:
    """Return a table with one column for each loop of a program."""
    made = Table(
        title=f"{escape(program.title)}: blocks of {program.width:,} models",
        caption=f"a turn of a training loop is {UPDATES_A_TURN} updates",
    )
    made.add_column("a turn of one model", no_wrap=True)
    for cost in program.costs:
        turns = "unknown" if cost.turns is None else f"{cost.turns:,}"
        made.add_column(f"{turns} turns", justify="right")
    lanes, costs = program.width, program.costs

    def add(name: str, values: Iterable[float]) -> None:
        made.add_row(name, *(f"{value:,.0f}" for value in values))

    add("bytes of memory traffic", (cost.traffic / lanes for cost in costs))
    add("instructions of warps", (cost.instructions / lanes for cost in costs))
    made.add_section()
    add("kernels for all models", (cost.kernels for cost in costs))
    add("kernels of libraries", (len(cost.libraries) for cost in costs))
    add("waits for the host", (cost.waits for cost in costs))
    add("registers of a thread", (cost.registers for cost in costs))
    add("bytes spilled by a thread", (cost.spills for cost in costs))
    made.add_section()
    most = [report.bounds(cost, card) for cost in costs]
    for name, limits in zip(report.Bounds._fields, zip(*most, strict=True), strict=True):
        millions = (f"{lanes * limit / 1e6:.3g}" for limit in limits)
        made.add_row(f"million turns/s by {name}", *millions)
    return made
