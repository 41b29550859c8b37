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
        (launches,) = Path(folder).glob("*.thunk_sequence.txt")
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
