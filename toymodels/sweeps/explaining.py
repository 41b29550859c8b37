"""The programs of a sweep, compiled for a card that this computer need not have."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from toymodels.engine import programs
from toymodels.engine.cards import report
from toymodels.engine.cards.card import Card
from toymodels.engine.cards.compiling import compile_for
from toymodels.engine.devices import tracing_for
from toymodels.sweeps import cells
from toymodels.sweeps.program import default_width, lanes_for
from toymodels.sweeps.requests import Request


class Explained(NamedTuple):
    """The cost of one program of a sweep on a card.

    Attributes:
        title: the name of the cell and the labels of the static axes.
        width: the number of lanes of a block.
        costs: the cost of one turn of each innermost loop, for all lanes together.
    """

    title: str
    width: int
    costs: list[report.Cost]


def explain(request: Request, card: Card) -> Iterator[Explained]:
    """Compile each program of a sweep for a card, and read what it costs there.

    Args:
        request: the request of the sweep.
        card: the card.

    Raises:
        InputError: the compiler for cards is not installed.
    """
    first = {name: numbers[0] for name, (_, numbers) in request.grid.coords.items()}
    for combination in itertools.product(*request.static_axes.values()):
        labels = list(zip(request.static_axes, combination, strict=True))
        fixed = {name: value for name, (_, value) in labels}
        with tracing_for("cuda"):
            traced = cells.trace(request.cell, fixed, first)
            width = request.width or default_width(programs.largest_array(traced.program.jaxpr))
            function, arguments = lanes_for("cuda", traced, request.grid.numbers, width=width)
            compiled = compile_for(card, function, arguments)
        title = " ".join([cells.title(request.cell), *(f"{n}={label}" for n, (label, _) in labels)])
        yield Explained(title, width, report.costs(compiled))
