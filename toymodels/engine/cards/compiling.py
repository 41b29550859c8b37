"""Compilation for a card that is only described."""

import contextlib
import re
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from toymodels.engine.cards.card import Card
from toymodels.engine.cards.machine_code import INSTALL
from toymodels.errors import InputError


class Launch(NamedTuple):
    """The start of a kernel.

    Attributes:
        kernel: the name of the kernel in the machine code.
        warps: how many warps of 32 threads run it.
    """

    kernel: str
    warps: int


class Compiled(NamedTuple):
    """A program that was compiled for a card.

    Attributes:
        hlo: the text of its kernels and loops.
        kernels: the text of each kernel, in PTX.
        launches: the starts of kernels in one turn of each loop that has no other loop inside.
    """

    hlo: str
    kernels: list[str]
    launches: list[list[Launch]]


def compile_for(card: Card, function: Callable[..., Any], arguments: Any) -> Compiled:
    """Compile a function for a card that this computer need not have.

    JAX must have been started with `JAX_PLATFORMS=cpu`. It looks for the card otherwise, and does
    not load the compiler where there is none.

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
    with tempfile.TemporaryDirectory() as folder, _compiled_anew():
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder})
        (sequence,) = Path(folder).glob("*.thunk_sequence.txt")
        kernels = [path.read_text() for path in sorted(Path(folder).glob("*.ptx"))]
        return Compiled(compiled.as_text() or "", kernels, launches(sequence.read_text()))


def launches(sequence: str) -> list[list[Launch]]:
    """Read the starts of kernels in one turn of each innermost loop; without a loop, of all.

    Instructions that are equal share one kernel, which has the name of one of them. So the text of
    the program does not say which kernel an instruction starts, and this list does.

    Args:
        sequence: XLA's list of all starts, in which what is inside a loop is indented, below a
            line that says whether it is the condition or the body of the loop.
    """
    found: list[list[Launch]] = []
    opened: list[tuple[int, str, list[Launch]]] = [(0, "body", [])]  # indentation, part, starts
    part = ""
    for line in sequence.splitlines():
        if label := re.fullmatch(r" *(\w+): *", line):
            part = label[1]
        elif re.match(r" *\d+: ", line):
            indentation = len(line) - len(line.lstrip())
            while opened[-1][0] >= indentation + (not part):
                opened.pop()
            if part:
                opened.append((indentation, part, []))
                if all(outer == "body" for _, outer, _ in opened):
                    found = [each for each in found if each is not opened[-2][2]]
                    found.append(opened[-1][2])
            opened[-1][2].extend(_launch(line))
            part = ""
    return found or [opened[0][2]]


def _launch(line: str) -> list[Launch]:
    """Return the start of a kernel from its line; empty if the line is about something else."""
    size = re.search(r" (\w+) grid: \[(\d+), (\d+), (\d+)\] threads: \[(\d+), (\d+), (\d+)\]", line)
    if size is None:
        return []
    name, *numbers = size.groups()
    blocks, threads = np.prod(np.reshape([*map(int, numbers)], (2, 3)), axis=1).tolist()
    return [Launch(name, blocks * -(-threads // 32))]


@contextlib.contextmanager
def _compiled_anew() -> Generator[None]:
    """Switch the cache of compiled programs off, because a program from it is not written out."""
    config: Any = jax.config
    enabled = config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX decides once whether it uses the cache
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def _described(card: Card) -> Mesh:
    """Return the card as XLA knows it from its description: a mesh of one device."""
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
