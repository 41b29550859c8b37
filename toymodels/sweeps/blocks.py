"""Many runs of one function as calls of one compiled program of fixed shape.

A *block* is W lanes, each one cell with a key and numbers of its own, mapped by `vmap`.
Because the program never changes shape, a lane's numbers depend on its own seed and values
alone, to the last bit: not on its neighbours, on how many lanes there are, on their order or
on the thread, device or machine that ran them, nor on the number of its cores (see `devices`,
`decompositions`, `blas`). That holds for one W, one version of the
software and one kind of processor, so W comes from the cell and the kind of device and never
from the number of lanes.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend import core
from jax.interpreters import mlir
from jaxtyping import Int, Shaped, UInt32
from numpy.typing import NDArray

from toymodels.engine import keys
from toymodels.engine.blas import one_blas_thread
from toymodels.engine.compiling import compiler_options, processor, use_cache
from toymodels.engine.decompositions import sequential
from toymodels.engine.devices import devices
from toymodels.errors import InputError

Cell: TypeAlias = Callable[..., Mapping[str, Any]]
Values: TypeAlias = Mapping[str, Shaped[np.ndarray, " lanes"]]
Arrays: TypeAlias = dict[str, NDArray[Any]]
# Called with the first and last + 1 of the lanes that have finished, and their outputs.
Deliver: TypeAlias = Callable[[int, int, Arrays], None]

LANE_BYTES = 3 * 2**19
"""The largest arrays of all lanes of a block together, on a CPU.

About the second-level cache of a core. Measured in model-steps per second of processor time:
(5, 2) 394k, 463k and 489k for 16, 32 and 64 lanes, (100, 20) 2.7k and 2.2k for 2 and 4.
"""
_WAITING = 256  # blocks handed to an executor and not yet back, each with the program


class BlockError(RuntimeError):
    """A block could not be run, or gave what a pure function cannot give."""


class Answer(NamedTuple):
    """What a worker sends back: outputs of a block, and where it was run."""

    outputs: Arrays
    environment: dict[str, str]


class Program:
    """A cell compiled for blocks of fixed width.

    Attributes:
        width: lanes in a block.
        outputs: name to the shape and type of one lane's output.
        steps: iterations of the longest loop in one lane.
        identity: name to text of all that the bits of its numbers depend on, beside the names
            of axes and outputs, seed and values; None for a program that calls back to Python,
            which could do anything.
    """

    def __init__(self, cell: Cell, values: Values, *, width: int):
        """Trace and compile `cell`, which takes a key and one number of each of `values`."""
        use_cache()

        fusing = keys.fusing(cell)

        def cells(key_data: UInt32[Any, "lanes 2"], lanes: dict[str, Any]) -> dict[str, Any]:
            keys_ = jax.random.wrap_key_data(key_data, impl=keys.fusable_threefry)
            return jax.vmap(lambda key, lane: dict(fusing(key, **lane)))(keys_, lanes)

        lanes = {name: numbers[np.zeros(width, int)] for name, numbers in values.items()}
        arguments = (_key_data(np.zeros(width, int)), lanes)
        closed, shapes = jax.make_jaxpr(cells, return_shape=True)(*arguments)
        program = core.jaxpr_as_fun(sequential(closed))

        def run_lanes(key_data: UInt32[Any, "lanes 2"], lanes: dict[str, Any]) -> dict[str, Any]:
            outputs = program(*jax.tree.leaves((key_data, lanes)))
            return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

        jitted = jax.jit(run_lanes, compiler_options=compiler_options())
        self.width = width
        self.wide_floats = jnp.result_type(float) == jnp.float64
        self.steps = _longest_loop(closed.jaxpr)
        self.outputs = {
            name: jax.ShapeDtypeStruct(output.shape[1:], output.dtype)
            for name, output in shapes.items()
        }
        self.identity: dict[str, str] | None = None
        self._exported: export.Exported | None = None
        call: Callable[..., Any] = run_lanes
        with contextlib.suppress(NotImplementedError, ValueError):  # calls back to Python
            # What is compiled here is what other machines are sent, to the letter.
            self._exported = None if closed.effects else export.export(jitted)(*arguments)
        if self._exported is not None:
            call = self._exported.call
            with mlir.make_ir_context():  # as text, to leave out where it stands in files
                text = str(self._exported.mlir_module(serialized=False))
            self.identity = {
                "program": hashlib.sha256(text.encode()).hexdigest()[:16],
                "block width": str(width),
                **environment(),
            }
        self._call = call
        self._arguments = arguments
        self._compiled: dict[int, Any] = {}  # by the position of the device
        self._locks = [threading.Lock() for _ in devices()]
        self._on(0)  # here, where an error ends the sweep before it starts

    def __call__(self, number: int, seeds: Int[np.ndarray, " lanes"], lanes: Values) -> Answer:
        """Run the `number`-th block of a sweep on this machine and wait for it."""
        position = number % len(self._locks)
        with jax.enable_x64(self.wide_floats):  # a setting of each thread
            arguments = jax.device_put((_key_data(seeds), dict(lanes)), devices()[position])
            return Answer(jax.device_get(self._on(position)(*arguments)), {})

    @property
    def workers(self) -> int:
        """Blocks that run at once here: one a device, but one a core of a single CPU device."""
        if len(devices()) > 1 or jax.default_backend() != "cpu":
            return len(devices())
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def _on(self, position: int) -> Any:
        """The executable of one device, compiled by the first thread that needs it."""
        with self._locks[position]:
            if position not in self._compiled:
                arguments = jax.device_put(self._arguments, devices()[position])
                jitted = jax.jit(self._call, compiler_options=compiler_options())
                self._compiled[position] = jitted.lower(*arguments).compile()
            return self._compiled[position]

    def portable(self) -> bytes:
        """The program as bytes that `call` runs anywhere.

        Raises:
            ValueError: it calls back to Python, which other machines cannot.
        """
        if self._exported is None:
            raise InputError(
                "the cell calls back to Python (jax.debug.print?): take that out, or sweep "
                "without store= and executor="
            )
        return bytes(self._exported.serialize())


@one_blas_thread()
def call(
    program: bytes, wide_floats: bool, seeds: Int[np.ndarray, " lanes"], lanes: Values
) -> Answer:
    """Run one block of `Program.portable`, on whatever machine this is called."""
    with jax.enable_x64(wide_floats):
        arguments = jax.device_put((_key_data(seeds), dict(lanes)), devices()[0])
        outputs = _loaded(program, wide_floats)(*arguments)
        return Answer(jax.device_get(outputs), environment())


def environment() -> dict[str, str]:
    """What the bits of a number depend on, beside the program: software, device, flags."""
    packages = ("toymodels", "jax", "jaxlib", "flax", "optax", "numpy")
    # How many devices there are decides where a block runs, not what it gives.
    flags = [
        flag
        for flag in os.environ.get("XLA_FLAGS", "").split()
        if not flag.startswith("--xla_force_host_platform_device_count")
    ]
    return {
        "versions": " ".join(f"{name}={metadata.version(name)}" for name in packages),
        "device": f"{jax.default_backend()} {devices()[0].device_kind}",
        "processor": processor(),
        "compiler options": json.dumps(compiler_options()),
        "XLA_FLAGS": " ".join(flags),
    }


def default_width(largest: int) -> int:
    """Lanes in a block on the current kind of device.

    Args:
        largest: bytes of the largest array of one cell; see `largest_array`.
    """
    if jax.default_backend() != "cpu":
        return 128  # unmeasured: an accelerator wants much work in one kernel
    fitting = max(LANE_BYTES // max(largest, 1), 2)
    return min(2 ** (fitting.bit_length() - 1), 64)


def largest_array(jaxpr: core.Jaxpr) -> int:
    """Bytes of the largest array of a traced program; of its loops alone, if it has any.

    What a loop reads from step by step, such as the numbers of the steps, does not count.
    """
    loops = [
        sub
        for eqn in jaxpr.eqns
        for sub in core.jaxprs_in_params(eqn.params)
        if eqn.primitive.name in ("scan", "while")
    ]
    return max(map(_largest, loops or [jaxpr]))


def _largest(jaxpr: core.Jaxpr) -> int:
    outputs = [_bytes(variable.aval) for eqn in jaxpr.eqns for variable in eqn.outvars]
    inner = [_largest(sub) for eqn in jaxpr.eqns for sub in core.jaxprs_in_params(eqn.params)]
    return max([0, *outputs, *inner])


@one_blas_thread()
def run(
    program: Program,
    seeds: Int[np.ndarray, " lanes"],
    values: Values,
    deliver: Deliver,
    *,
    executor: concurrent.futures.Executor | None = None,
) -> None:
    """Run every lane, in blocks, on all cores or devices, or where `executor` runs them.

    Args:
        program: of a cell that takes `values`.
        seeds: of each lane; it makes the key `jax.random.key(seed, impl="threefry2x32")`, which
            is `jax.random.key(seed)` unless JAX was told of another generator. Lanes of one
            seed share their random words if they are neighbours.
        values: name to one number per lane.
        deliver: called in this thread for each block, as soon as it has finished.
        executor: where to run blocks instead, as bytes that need no Python of the caller's.

    Raises:
        BlockError: a block failed. Blocks that were running then, or at Ctrl-C, are finished
            and delivered first; a second Ctrl-C leaves them.
    """
    threads = concurrent.futures.ThreadPoolExecutor(program.workers)
    portable = program.portable() if executor is not None else b""
    starts = iter(range(0, len(seeds), program.width))
    here = environment()
    waiting: dict[concurrent.futures.Future[Answer], int] = {}
    # Ctrl-C inside `concurrent.futures.wait` can leave a future locked for ever.
    done: queue.SimpleQueue[concurrent.futures.Future[Answer]] = queue.SimpleQueue()

    began, finished = time.perf_counter(), 0

    def submit(start: int) -> None:
        # The last block is filled with copies of its last lane: a free check of the promise.
        lanes = np.minimum(np.arange(start, start + program.width), len(seeds) - 1)
        block = seeds[lanes], {name: numbers[lanes] for name, numbers in values.items()}
        if executor is None:
            future = threads.submit(program, start // program.width, *block)
        else:
            future = executor.submit(call, portable, program.wide_floats, *block)
        waiting[future] = start
        future.add_done_callback(done.put)

    def accept(future: concurrent.futures.Future[Answer]) -> None:
        nonlocal finished
        answer = future.result()
        start = waiting[future]
        stop = min(start + program.width, len(seeds))
        _check_place(here, answer.environment)
        place = f"seed {seeds[stop - 1]}, lane {stop - 1}"
        _check_copies(answer.outputs, stop - start, place, calls_back=program.identity is None)
        deliver(start, stop, {name: out[: stop - start] for name, out in answer.outputs.items()})
        del waiting[future]
        finished += 1

    def settle(future: concurrent.futures.Future[Answer]) -> None:
        if future in waiting and future.exception() is None:
            with contextlib.suppress(Exception):  # what went wrong first is what counts
                accept(future)
        waiting.pop(future, None)

    try:
        while True:
            while len(waiting) < _WAITING and (start := next(starts, None)) is not None:
                submit(start)
            if not waiting:
                return
            accept(done.get())
    except BaseException as error:
        for future in [future for future in waiting if future.cancel()]:
            del waiting[future]
        if isinstance(error, KeyboardInterrupt) and waiting:
            seconds = time.perf_counter() - began
            each = (
                f"about {seconds * program.workers / finished:.0f} s each"
                if finished and executor is None
                else f"{finished or 'none'} done in {seconds:.0f} s"
            )
            with contextlib.suppress(Exception):  # the terminal may be gone
                print(
                    f"finishing {len(waiting)} blocks that are running ({each}); Ctrl-C again "
                    "goes on without",
                    file=sys.stderr,
                )
        # Again, for Ctrl-C may come before the first time, or after a future was taken out.
        for future in waiting:
            future.add_done_callback(done.put)
        while waiting:
            settle(done.get())
        if isinstance(error, KeyboardInterrupt | InputError | BlockError | OSError):
            raise
        raise _explained(error, program.width) from error
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


@functools.lru_cache(maxsize=8)
def _loaded(program: bytes, wide_floats: bool) -> Callable[..., Any]:
    del wide_floats  # of the surrounding setting
    use_cache()
    exported = export.deserialize(bytearray(program))
    return jax.jit(exported.call, compiler_options=compiler_options())


def _check_place(here: Mapping[str, str], there: Mapping[str, str]) -> None:
    for name, value in there.items():
        if here[name] != value:
            raise BlockError(
                f"a worker has {name} {value!r}, this process has {here[name]!r}: its numbers "
                "would differ in the last bits; use workers like this machine, or start the "
                "sweep on a machine like the workers"
            )


def _check_copies(outputs: Arrays, last: int, place: str, *, calls_back: bool) -> None:
    """The lanes after the last one are copies of it."""
    for output, result in outputs.items():
        spare = result[last:]
        copies = np.broadcast_to(result[last - 1], spare.shape)
        if np.array_equal(spare, copies, equal_nan=np.issubdtype(spare.dtype, np.inexact)):
            continue
        if calls_back:
            reason = (
                "the cell calls back to Python, and what it is given there is not a pure function "
                "of its key and numbers"
            )
        else:
            reason = (
                "on an accelerator this can be a sum of no fixed order, such as of .at[].add; on a "
                "CPU it is a fault of the machine or of toymodels: please report it with the cell"
            )
        raise BlockError(
            f"output {output!r} differs between copies of one cell ({place}): {reason}"
        )


def _explained(error: BaseException, width: int) -> BlockError:
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        fewer = f"sweep(width={width // 2}) or less, or " if width > 2 else ""
        return BlockError(
            f"a block of {width} cells ran out of memory: give {fewer}a smaller batch ({error})"
        )
    return BlockError(f"a block of {width} cells failed: {str(error) or repr(error)}")


def _key_data(seeds: Int[np.ndarray, " lanes"]) -> UInt32[np.ndarray, "lanes 2"]:
    """The data of `jax.random.key(seed, impl="threefry2x32")` for each seed."""
    return np.stack([np.asarray(seeds) >> 32, np.asarray(seeds) & 0xFFFFFFFF], 1).astype(np.uint32)


def _bytes(kind: Any) -> int:
    size = getattr(kind, "size", 0)
    return size * getattr(getattr(kind, "dtype", None), "itemsize", 0)


def _longest_loop(jaxpr: core.Jaxpr) -> int:
    """Iterations of the longest loop of known length; loops inside it do not count."""
    longest = 1
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            longest = max(longest, equation.params["length"])
        else:
            inner = [_longest_loop(sub) for sub in core.jaxprs_in_params(equation.params)]
            longest = max(longest, *inner, 1)
    return longest
