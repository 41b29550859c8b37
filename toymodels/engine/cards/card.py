"""The cards that programs can be compiled for, and the assumed numbers behind the bounds."""

import enum
import re
from pathlib import Path
from typing import NamedTuple

LAUNCH_SECONDS = 2e-6
"""The assumed time from the start of one kernel to the start of the next, if both are short.

A kernel of a few hundred bytes takes about this long on cards of these generations, whether it is
started by itself or from a recorded list of kernels. No card has confirmed it for these programs.
"""

ISSUES_PER_CLOCK = 4
"""The instructions that one core starts in each clock, each for a warp of 32 threads.

A core has four schedulers, and each starts at most one instruction (NVIDIA, "CUDA C++ Programming
Guide", section on compute capability 9.0, which holds for 10.0, too).
"""


class Card(enum.Enum):
    """A card that programs can be compiled for; the value is the name of its description."""

    H100 = "h100"
    H200 = "h200"
    B200 = "b200"

    @property
    def description(self) -> str:
        """The text by which XLA knows the card."""
        return (Path(__file__).parent / f"{self.value}.txtpb").read_text()


class Speed(NamedTuple):
    """The numbers of a card that bound the speed of a program.

    Attributes:
        cores: the number of streaming multiprocessors.
        clock: the highest clock of a core, in Hz.
        bandwidth: the bytes that move between the card and its memory in a second.
    """

    cores: int
    clock: float
    bandwidth: float

    @property
    def issues(self) -> float:
        """The instructions of warps that all cores start in a second."""
        return self.cores * self.clock * ISSUES_PER_CLOCK


def speed(card: Card) -> Speed:
    """Read the speed of a card from its description."""
    numbers = dict(re.findall(r"^ *(\w+): ([\d.]+)$", card.description, re.MULTILINE))
    return Speed(
        cores=int(numbers["core_count"]),
        clock=1e9 * float(numbers["clock_rate_ghz"]),
        bandwidth=float(numbers["memory_bandwidth"]),
    )
