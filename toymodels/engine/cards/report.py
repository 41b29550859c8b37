"""The cost of a program on a card: kernels, memory, instructions, and the bounds that follow."""

from collections.abc import Iterator
from typing import NamedTuple

from toymodels.engine.cards import hlo, machine_code
from toymodels.engine.cards.card import LAUNCH_SECONDS, Card, speed
from toymodels.engine.cards.compiling import Compiled, Launch


class Cost(NamedTuple):
    """The cost of one turn of a loop of a program, such as one update of all lanes.

    Attributes:
        turns: the number of turns; None if it is known only when the program runs.
        kernels: the number of kernels that one turn starts.
        traffic: the bytes of memory that one turn reads and writes. Some of it may stay in the
            cache of the card.
        instructions: how many instructions of warps one turn issues at least.
        registers: the most registers that a thread of one of the kernels has.
        spills: the most bytes that a thread of one of the kernels stores for want of registers.
        libraries: the names of libraries whose kernels it calls, with repetition. What these
            kernels cost beyond their traffic is not known.
        waits: how many times one turn waits for the host, for branches and for loops whose length
            is known only when the program runs.
    """

    turns: int | None
    kernels: int
    traffic: int
    instructions: int
    registers: int
    spills: int
    libraries: list[str]
    waits: int


class Bounds(NamedTuple):
    """The most turns in a second, by each of three limits.

    Attributes:
        launch: by the starts of kernels.
        memory: by the traffic between the card and its memory.
        issue: by the instructions that the cores can start.
    """

    launch: float
    memory: float
    issue: float


def costs(compiled: Compiled) -> list[Cost]:
    """Return the cost of each innermost loop of a program, in the order of the text."""
    loops = list(_innermost(hlo.read(compiled.hlo)))
    names = {launch.kernel for turn in compiled.launches for launch in turn}
    codes = machine_code.of_kernels(compiled.kernels, names)
    return [_cost(loop, codes, turn) for loop, turn in zip(loops, compiled.launches, strict=True)]


def bounds(cost: Cost, card: Card) -> Bounds:
    """Return how many turns a card can make in a second at most."""
    limits = speed(card)
    return Bounds(
        launch=1 / (LAUNCH_SECONDS * max(cost.kernels, 1)),
        memory=limits.bandwidth / max(cost.traffic, 1),
        issue=limits.issues / max(cost.instructions, 1),
    )


def _cost(loop: hlo.Loop, codes: dict[str, machine_code.Code], turn: list[Launch]) -> Cost:
    """Return the cost of one turn of a loop, with the code of its kernels by their name."""
    own = [(codes[launch.kernel], launch.warps) for launch in turn if launch.kernel in codes]
    return Cost(
        turns=loop.turns,
        kernels=len(loop.kernels),
        traffic=sum(kernel.traffic for kernel in loop.kernels),
        instructions=sum(code.instructions * warps for code, warps in own),
        registers=max((code.registers for code, _ in own), default=0),
        spills=max((code.spills for code, _ in own), default=0),
        libraries=[kernel.library for kernel in loop.kernels if kernel.library],
        waits=loop.branches + (loop.turns is None),
    )


def _innermost(loop: hlo.Loop) -> Iterator[hlo.Loop]:
    """Yield the loops that have no other loop inside."""
    for inner in loop.loops:
        yield from _innermost(inner)
    if not loop.loops:
        yield loop
