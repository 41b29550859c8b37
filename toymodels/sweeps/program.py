"""Compile a cell for blocks of fixed width, and run one block.

A *block* is one call of a compiled program. It has `width` *lanes*, and each lane is one cell
with a seed and numbers of its own, mapped by `vmap`. Because every block runs the same program
of the same shape, the outputs of a lane depend on its own seed and numbers alone, to the last
bit. They do not depend on the other lanes, on how many cells a sweep has, on the order of the
cells, on the thread, device or machine that runs the block, or on the number of its cores (see
`engine.devices`, `engine.decompositions`, `engine.products` and `engine.blas`). This holds for
one width, one version of the software and one kind of processor. So the width comes from the cell
and the kind of device, and never from the number of cells.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend import core
from jax.interpreters import mlir
from jaxtyping import Int, Shaped, UInt32
from numpy.typing import NDArray

from toymodels.engine import keys, programs
from toymodels.engine.blas import one_blas_thread
from toymodels.engine.compiling import (
    compiler_options,
    ensure_compilation_cache,
    environment,
    keeps_programs,
)
from toymodels.engine.decompositions import sequential
from toymodels.engine.devices import backend, devices, least_busy, tracing_for
from toymodels.engine.garbage import no_garbage_collection
from toymodels.engine.lanes import of_block
from toymodels.engine.products import lanes_side_by_side
from toymodels.errors import InputError
from toymodels.sweeps.executables import Executables, Options

Cell: TypeAlias = Callable[..., Mapping[str, Any]]
Numbers: TypeAlias = Mapping[str, Shaped[np.ndarray, " cells"]]
Arrays: TypeAlias = dict[str, NDArray[Any]]

LANE_BYTES = 3 * 2**19
"""The bytes that the largest arrays of all lanes of a block take together, on a CPU.

This is about the second-level cache of a core. Model-steps per second of processor time were
measured: a model of 5 features and 2 hidden dimensions makes 394k, 463k and 489k with 16, 32 and
64 lanes. A model of 100 features and 20 hidden dimensions makes 2.8k, 3.1k and 3.4k with 2, 4 and 8
lanes that share one seed, and 2.3k and 2.2k with 2 and 8 lanes of different seeds. This number
gives it 2 lanes. A larger one would change the width, by which stores know a cell, so that they
would have to compute all cells of such models again.
"""

ACCELERATOR_BYTES = 2**27
"""The bytes that the largest arrays of all lanes of a block take together, on an accelerator.

A step of training starts about ten kernels, and each start takes some 2 microseconds, whatever the
width. With 4,096 lanes of a model of 5 features and 2 hidden dimensions the kernels take longer
than their starts, and the memory of a card still holds the block a hundred times. This number
comes from the traffic of the compiled program; no card has measured it yet.
"""


class BlockAnswer(NamedTuple):
    """The outputs of a block, and the environment of the machine that ran it.

    The environment is empty if this process ran the block itself.
    """

    outputs: Arrays
    environment: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A cell compiled for blocks of fixed width; `compile_program` makes it.

    Attributes:
        width: how many lanes a block has.
        outputs: the shape and type of each output of one lane, by name.
        steps: how many iterations the longest loop of one lane has.
        wide_floats: whether floats have 64 bits.
        side_by_side: whether it multiplies a matrix by the columns of all lanes, which decides
            the options of the compiler; see `engine.products`.
        provenance: everything that the bits of the outputs depend on besides the seed, the
            numbers and the names of axes and outputs, as text by name. It is None for a program
            that calls back to Python, because the callback could do anything.
        exported: the program in a form that other machines can run; None if `provenance` is None.
        executables: the program compiled for the devices of this process.
    """

    width: int
    outputs: dict[str, jax.ShapeDtypeStruct]
    steps: int
    wide_floats: bool
    side_by_side: bool
    provenance: dict[str, str] | None
    exported: export.Exported | None
    executables: Executables

    def run_block(self, seeds: Int[np.ndarray, " lanes"], numbers: Numbers) -> BlockAnswer:
        """Run one block on the least busy device that has room for the program, and wait for it.

        Args:
            seeds: the seed of each lane.
            numbers: the numbers of each lane, by the name of their axis.
        """
        most = self.executables.num_devices
        wide_floats = jax.enable_x64(self.wide_floats)  # a setting of each thread
        with least_busy(most) as position, wide_floats:
            arguments = jax.device_put((_key_data(seeds), dict(numbers)), devices()[position])
            outputs = self.executables.on(position)(*arguments)
            return BlockAnswer(jax.device_get(outputs), {})

    def serialized(self) -> bytes:
        """Return the program as bytes that `run_serialized` can run on any machine.

        Raises:
            InputError: the program calls back to Python, which other machines cannot do.
        """
        if self.exported is None:
            raise InputError(
                "the cell calls back to Python (jax.debug.print?): take that out, or sweep "
                "without store= and executor="
            )
        return bytes(self.exported.serialize())


@no_garbage_collection()
def compile_program(cell: Cell, numbers: Numbers, *, width: int) -> Program:
    """Trace `cell`, map it over the lanes of a block, and compile it for the first device.

    Args:
        cell: a function of a key and of one number for each axis, to a dict of arrays.
        numbers: numbers of at least one cell, by the name of their axis. The values do not
            matter; their types do.
        width: how many lanes a block has.
    """
    ensure_compilation_cache()
    arguments = _arguments(numbers, width)
    traced, shapes = _trace_block(cell, arguments)
    run_lanes = _evaluating(traced, shapes)
    side_by_side = lanes_side_by_side(traced.jaxpr, width)
    options = compiler_options(side_by_side=side_by_side)
    exported = None if traced.effects else _export(run_lanes, arguments)
    # This process runs exactly what other machines are sent.
    executables = Executables(
        run_lanes if exported is None else exported.call,
        arguments,
        options,
        cached=exported is not None and keeps_programs(),  # JAX keeps none that calls back
    )
    return Program(
        width=width,
        outputs={
            name: jax.ShapeDtypeStruct(output.shape[1:], output.dtype)
            for name, output in shapes.items()
        },
        steps=programs.longest_loop(traced.jaxpr),
        wide_floats=jnp.result_type(float) == jnp.float64,
        side_by_side=side_by_side,
        provenance=None if exported is None else _provenance(exported, width, options),
        exported=exported,
        executables=executables,
    )


def export_for(platform: str, cell: Cell, numbers: Numbers, *, width: int) -> export.Exported:
    """Return the program of a block for a platform that this process need not have.

    Args:
        platform: "cpu", "cuda", "rocm" or "tpu".
        cell: as for `compile_program`; it must not call back to Python.
        numbers: as for `compile_program`.
        width: how many lanes a block has.
    """
    with tracing_for(platform):
        run_lanes, arguments = lanes_for(platform, cell, numbers, width=width)
        return export.export(jax.jit(run_lanes), platforms=[platform])(*arguments)


def lanes_for(
    platform: str, cell: Cell, numbers: Numbers, *, width: int
) -> tuple[Callable[..., dict[str, Any]], Any]:
    """Return the function of a block, traced for a platform, and arguments of its shapes.

    Args:
        platform: as for `export_for`.
        cell: as for `compile_program`.
        numbers: as for `compile_program`.
        width: how many lanes a block has.
    """
    arguments = _arguments(numbers, width)
    with tracing_for(platform):
        return _evaluating(*_trace_block(cell, arguments)), arguments


def _arguments(numbers: Numbers, width: int) -> tuple[Any, dict[str, Any]]:
    """Return seeds and numbers of the shapes that a block takes."""
    lanes = {name: column[np.zeros(width, int)] for name, column in numbers.items()}
    return _key_data(np.zeros(width, int)), lanes


def _evaluating(
    traced: core.ClosedJaxpr, shapes: dict[str, jax.ShapeDtypeStruct]
) -> Callable[..., dict[str, Any]]:
    """Return the function of the seeds and numbers of all lanes that a traced program computes."""
    evaluate = core.jaxpr_as_fun(sequential(traced))

    def run_lanes(key_data: UInt32[Any, "lanes 2"], lanes: dict[str, Any]) -> dict[str, Any]:
        outputs = evaluate(*jax.tree.leaves((key_data, lanes)))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return run_lanes


def _trace_block(
    cell: Cell, arguments: tuple[Any, dict[str, Any]]
) -> tuple[core.ClosedJaxpr, dict[str, jax.ShapeDtypeStruct]]:
    """Return the traced program of all lanes, and the shapes of its outputs."""
    fusing = keys.fusing(cell)

    def block(key_data: UInt32[Any, "lanes 2"], lanes: dict[str, Any]) -> dict[str, Any]:
        keys_ = jax.random.wrap_key_data(key_data, impl=keys.fusable_threefry)
        return jax.vmap(lambda key, lane: dict(fusing(key, **lane)))(keys_, lanes)

    with of_block(len(arguments[0])):
        return jax.make_jaxpr(block, return_shape=True)(*arguments)


def _export(run_lanes: Callable[..., Any], arguments: Any) -> export.Exported | None:
    """Return the program in JAX's portable form; None if it calls back to Python."""
    jitted = jax.jit(run_lanes, compiler_options=compiler_options())
    with contextlib.suppress(NotImplementedError, ValueError):  # it calls back to Python
        return export.export(jitted)(*arguments)
    return None


def _provenance(exported: export.Exported, width: int, options: Options) -> dict[str, str]:
    with mlir.make_ir_context():  # as text, which leaves out the places in files
        text = str(exported.mlir_module(serialized=False))
    return {
        "program": hashlib.sha256(text.encode()).hexdigest()[:16],
        "block width": str(width),
        **environment(),
        "compiler options": json.dumps(options),
    }


@one_blas_thread()
def run_serialized(
    program: bytes,
    wide_floats: bool,
    side_by_side: bool,
    seeds: Int[np.ndarray, " lanes"],
    numbers: Numbers,
) -> BlockAnswer:
    """Run one block of a program that was serialized, on whatever machine calls this."""
    with least_busy() as position, jax.enable_x64(wide_floats):
        arguments = jax.device_put((_key_data(seeds), dict(numbers)), devices()[position])
        evaluate, there = _deserialized(program, wide_floats, side_by_side)
        return BlockAnswer(jax.device_get(evaluate(*arguments)), there)


@functools.lru_cache(maxsize=8)
def _deserialized(
    program: bytes, wide_floats: bool, side_by_side: bool
) -> tuple[Callable[..., Any], dict[str, str]]:
    """Return the function, and the environment, which takes longer to read than a small block."""
    del wide_floats  # the caller has set it; a function of its own is compiled for each setting
    ensure_compilation_cache()
    exported = export.deserialize(bytearray(program))
    options = compiler_options(side_by_side=side_by_side)
    return jax.jit(exported.call, compiler_options=options), environment()


def default_width(largest: int) -> int:
    """Return how many lanes a block has by default on the kind of device that is traced for.

    Args:
        largest: bytes of the largest array of one cell; see `engine.programs.largest_array`.
    """
    room, most = (LANE_BYTES, 64) if backend() == "cpu" else (ACCELERATOR_BYTES, 8192)
    fitting = max(room // max(largest, 1), 2)
    return min(2 ** (fitting.bit_length() - 1), most)


def _key_data(seeds: Int[np.ndarray, " lanes"]) -> UInt32[np.ndarray, "lanes 2"]:
    """Return the data of `jax.random.key(seed, impl="threefry2x32")` for each seed."""
    return np.stack([np.asarray(seeds) >> 32, np.asarray(seeds) & 0xFFFFFFFF], 1).astype(np.uint32)
