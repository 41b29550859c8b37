"""The cost of the programs of a sweep on a card that this computer need not have."""

from collections.abc import Iterator
from typing import NamedTuple

from toymodels.engine.cards import report
from toymodels.engine.cards.card import Card
from toymodels.engine.cards.compiling import compile_for
from toymodels.engine.devices import tracing_for
from toymodels.sweeps import variants
from toymodels.sweeps.program import lanes_for
from toymodels.sweeps.requests import Request


class ProgramCosts(NamedTuple):
    """The cost of one program of a sweep on a card.

    Attributes:
        title: the name of the cell and the labels of the static axes.
        width: the number of lanes of a block.
        costs: the cost of one turn of each innermost loop, for all lanes together.
    """

    title: str
    width: int
    costs: list[report.Cost]


def costs_on(request: Request, card: Card) -> Iterator[ProgramCosts]:
    """Compile each program of a sweep for a card, and read what it costs there.

    Args:
        request: the request of the sweep.
        card: the card.

    Raises:
        InputError: the compiler for cards is not installed.
    """
    with tracing_for("cuda"):
        made = list(variants.variants_of(request))
    for variant in made:
        with tracing_for("cuda"):
            function, arguments = lanes_for(
                "cuda", variant.traced, request.grid.numbers, width=variant.width
            )
            compiled = compile_for(card, function, arguments)
        yield ProgramCosts(variant.title, variant.width, report.costs(compiled))
