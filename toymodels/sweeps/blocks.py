"""Run the cells of a sweep in blocks, and end well when a block fails or the user interrupts."""

import concurrent.futures
import contextlib
import queue
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from toymodels.engine.blas import one_blas_thread
from toymodels.engine.compiling import environment
from toymodels.errors import InputError
from toymodels.sweeps.program import (
    Arrays,
    BlockAnswer,
    Numbers,
    Program,
    run_serialized,
)

Deliver: TypeAlias = Callable[[slice, Arrays], None]
"""A function that takes the cells that have finished, as a slice of all, and their outputs."""

_MAX_WAITING = 256  # blocks that are handed over at once; an executor gets the program with each


class BlockError(RuntimeError):
    """A block could not be run, or it returned what a pure function cannot return."""


@one_blas_thread()
def run(
    program: Program,
    seeds: Int[np.ndarray, " cells"],
    numbers: Numbers,
    deliver: Deliver,
    *,
    executor: concurrent.futures.Executor | None = None,
) -> None:
    """Run every cell, in blocks, on all cores or devices or on the workers of `executor`.

    Args:
        program: the compiled cell.
        seeds: the seed of each cell. Its key is `jax.random.key(seed, impl="threefry2x32")`.
            Neighbouring cells of one seed share their random numbers, which saves time.
        numbers: the numbers of each cell, by the name of their axis.
        deliver: called in this thread for each block, as soon as the block has finished.
        executor: where to run the blocks instead. It is sent bytes, so that its workers do not
            need the Python code of the caller.

    Raises:
        BlockError: a block failed. After an error, and after the first Ctrl-C, the blocks that
            are running are finished and delivered before the error is raised. A second Ctrl-C
            does not wait for them.
    """
    blocks = _Blocks(program, seeds, numbers, deliver, executor)
    try:
        blocks.run_all()
    except BaseException as error:
        blocks.cancel_waiting()
        if isinstance(error, KeyboardInterrupt):
            blocks.say_what_is_running()
        blocks.finish_running()
        if isinstance(error, KeyboardInterrupt | InputError | BlockError | OSError):
            raise
        raise _explained(error, program.width) from error
    finally:
        blocks.close()


class _Blocks:
    """The blocks of one sweep: which are still to start, which are running, which are done."""

    def __init__(
        self,
        program: Program,
        seeds: Int[np.ndarray, " cells"],
        numbers: Numbers,
        deliver: Deliver,
        executor: concurrent.futures.Executor | None,
    ):
        self._program, self._seeds, self._numbers = program, seeds, numbers
        self._deliver, self._executor = deliver, executor
        self._threads = concurrent.futures.ThreadPoolExecutor(program.executables.num_devices)
        self._serialized = program.serialized() if executor is not None else b""
        self._environment = environment()
        self._to_start = _parts(len(seeds), program.width)
        # Each block that was handed over, with the cells that it computes.
        self._running: dict[concurrent.futures.Future[BlockAnswer], range] = {}
        # Ctrl-C inside `concurrent.futures.wait` can leave a future locked for ever.
        self._done: queue.SimpleQueue[concurrent.futures.Future[BlockAnswer]] = queue.SimpleQueue()
        self._began, self._delivered = time.perf_counter(), 0

    def run_all(self) -> None:
        """Start all blocks, a limited number at a time, and deliver each when it is done."""
        while True:
            alone = self._seconds_alone()
            most = self._program.executables.num_compiled if alone else _MAX_WAITING
            while len(self._running) < most:
                if (part := next(self._to_start, None)) is None:
                    break
                self._start(part)
            if not self._running:
                return
            try:
                done = self._done.get(timeout=alone or None)
            except queue.Empty:
                continue  # the other devices may join now
            self._accept(done)

    def cancel_waiting(self) -> None:
        """Cancel all blocks that no worker has begun."""
        for future in [future for future in self._running if future.cancel()]:
            del self._running[future]

    def say_what_is_running(self) -> None:
        """Tell the user which blocks Ctrl-C waits for, and about how long they take."""
        if not self._running:
            return
        seconds = time.perf_counter() - self._began
        if self._delivered and self._executor is None:
            at_once = self._program.executables.num_compiled
            pace = f"about {seconds * at_once / self._delivered:.0f} s each"
        else:
            pace = f"{self._delivered or 'none'} done in {seconds:.0f} s"
        with contextlib.suppress(Exception):  # the terminal may be gone
            print(
                f"finishing {len(self._running)} blocks that are running ({pace}); press Ctrl-C "
                "again to go on without them",
                file=sys.stderr,
            )

    def finish_running(self) -> None:
        """Wait for the blocks that are running, and deliver those that succeed."""
        # Each future is asked again to report its end: Ctrl-C may have come before it was
        # asked the first time, or after its report was taken out of the queue.
        for future in self._running:
            future.add_done_callback(self._done.put)
        while self._running:
            future = self._done.get()
            if future in self._running and future.exception() is None:
                with contextlib.suppress(Exception):  # the first error is the one to raise
                    self._accept(future)
            self._running.pop(future, None)

    def close(self) -> None:
        """Let the threads end, without waiting for them, and free what they needed."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._program.executables.keep_first()

    def _seconds_alone(self) -> float:
        """Return for how many more seconds only devices that have the program are to be used."""
        executables = self._program.executables
        if self._executor is not None or executables.num_compiled == executables.num_devices:
            return 0.0
        # The others may join when the sweep has lasted as long as they need to load the program.
        return max(self._began + executables.loading_seconds - time.perf_counter(), 0.0)

    def _start(self, part: range) -> None:
        # A block is filled with copies of its last cell, which `_check_copies` compares.
        cells = np.minimum(np.arange(part.start, part.start + self._program.width), part[-1])
        seeds = self._seeds[cells]
        numbers = {name: column[cells] for name, column in self._numbers.items()}
        if self._executor is None:
            future = self._threads.submit(self._program.run_block, seeds, numbers)
        else:
            kind = self._program.wide_floats, self._program.side_by_side
            future = self._executor.submit(run_serialized, self._serialized, *kind, seeds, numbers)
        self._running[future] = part
        future.add_done_callback(self._done.put)

    def _accept(self, future: concurrent.futures.Future[BlockAnswer]) -> None:
        """Check the answer of a block and deliver it."""
        answer = future.result()
        part = self._running[future]
        _check_environment(self._environment, answer.environment)
        _check_copies(
            answer.outputs,
            len(part),
            f"seed {self._seeds[part[-1]]}, cell {part[-1]}",
            calls_back=self._program.provenance is None,
        )
        whole = {name: output[: len(part)] for name, output in answer.outputs.items()}
        self._deliver(slice(part.start, part.stop), whole)
        del self._running[future]
        self._delivered += 1


def _parts(cells: int, width: int) -> Iterator[range]:
    """Divide cells into parts of one block each."""
    return (range(start, min(start + width, cells)) for start in range(0, cells, width))


def _check_environment(here: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Raise `BlockError` if a worker would compute other last bits than this process."""
    for name, value in there.items():
        if here[name] != value:
            raise BlockError(
                f"a worker has {name} {value!r}, this process has {here[name]!r}: its numbers "
                "would differ in the last bits; use workers like this machine, or start the "
                "sweep on a machine like the workers"
            )


def _check_copies(outputs: Arrays, count: int, place: str, *, calls_back: bool) -> None:
    """Raise `BlockError` unless the lanes after the first `count` equal the last of these."""
    for output, result in outputs.items():
        spare = result[count:]
        copies = np.broadcast_to(result[count - 1], spare.shape)
        if np.array_equal(spare, copies, equal_nan=np.issubdtype(spare.dtype, np.inexact)):
            continue
        if calls_back:
            reason = (
                "the cell calls back to Python, and the Python function that it calls is not a "
                "pure function of its arguments"
            )
        else:
            reason = (
                "on an accelerator the reason can be a sum of no fixed order, such as .at[].add; "
                "on a CPU it is a fault of the machine or of toymodels: please report it with the "
                "cell"
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
