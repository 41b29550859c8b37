"""Compilation for a card that is only described."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from toymodels.engine.cards.card import Card
from toymodels.engine.cards.machine_code import INSTALL
from toymodels.errors import InputError


class Compiled(NamedTuple):
    """A program that was compiled for a card.

    Attributes:
        hlo: the text of its kernels and loops.
        kernels: the text of each kernel, in PTX.
        warps: how many warps of 32 threads run each kernel, by its name.
    """

    hlo: str
    kernels: list[str]
    warps: dict[str, int]


def compile_for(card: Card, function: Callable[..., Any], arguments: Any) -> Compiled:
    """Compile a function for a card that this computer need not have.

    Args:
        card: the card.
        function: a function of arrays, traced for `engine.devices.tracing_for("cuda")` by the
            caller.
        arguments: its arguments, or their shapes.

    Raises:
        InputError: the compiler for these cards is not installed.
    """
    here = NamedSharding(_described(card), PartitionSpec())
    jitted = jax.jit(function, in_shardings=here, out_shardings=here)
    lowered = jitted.lower(*arguments)
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder})
        launches = next(Path(folder).glob("*.thunk_sequence_after_thunk_passes.txt"))
        kernels = [path.read_text() for path in sorted(Path(folder).glob("*.ptx"))]
        return Compiled(compiled.as_text() or "", kernels, warps(launches.read_text()))


def warps(launches: str) -> dict[str, int]:
    """Read from the list of all launches how many warps run each kernel."""
    sizes = re.findall(
        r" (\w+) grid: \[(\d+), (\d+), (\d+)\] threads: \[(\d+), (\d+), (\d+)\]", launches
    )
    found: dict[str, int] = {}
    for name, *numbers in sizes:
        blocks, threads = np.prod(np.reshape([*map(int, numbers)], (2, 3)), axis=1).tolist()
        found[name] = blocks * -(-threads // 32)
    return found


def _described(card: Card) -> Mesh:
    try:
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology_name=card.value,
            topology="1x1x1",
            target_config=card.description,
        )
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"the compiler for cards is not installed: {INSTALL}") from error
    return Mesh(np.array(topology.devices), ("card",))
