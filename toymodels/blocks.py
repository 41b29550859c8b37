"""Many runs of one function as calls of one compiled program of fixed shape.

A *block* is one seed and W lanes, mapped by `vmap`: what depends on the seed alone, such as
the random words, is computed once a block. Because the program never changes shape, a
lane's numbers depend on its own seed and values alone, to the last bit: not on its
neighbours, on how many lanes there are, on their order or on the thread that ran them. That
holds for one W, one version of the software and one kind of processor, so W comes from the
kind of device and never from the number of lanes.
"""

import concurrent.futures
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Bool, Shaped, UInt32
from numpy.typing import NDArray

from toymodels import keys
from toymodels.compiling import compiler_options

Cell: TypeAlias = Callable[..., Mapping[str, Any]]
Values: TypeAlias = Mapping[str, Shaped[np.ndarray, " lanes"]]
Arrays: TypeAlias = dict[str, NDArray[Any]]


class Finished(NamedTuple):
    """What `run` leaves.

    Attributes:
        outputs: name to an array of seeds x lanes x the output's own shape.
        done: which lanes ran: all of them, unless Ctrl-C came first.
    """

    outputs: Arrays
    done: Bool[np.ndarray, "seeds lanes"]


class Program:
    """A cell compiled for blocks of fixed width, once for each local device.

    Attributes:
        width: lanes in a block.
        outputs: name to the shape and type of one lane's output.
        steps: iterations of the longest loop in one lane.
    """

    def __init__(self, cell: Cell, values: Values, *, width: int):
        """Trace and compile `cell`, which takes a key and one number of each of `values`."""

        def block(key_data: UInt32[Any, "2"], lanes: dict[str, Any]) -> dict[str, Any]:
            key = jax.random.wrap_key_data(key_data, impl=keys.fusable_threefry)
            return jax.vmap(lambda lane: dict(cell(key, **lane)), axis_size=width)(lanes)

        jitted = jax.jit(block, compiler_options=compiler_options())
        sample = {name: numbers[np.zeros(width, int)] for name, numbers in values.items()}
        traces = [
            jitted.trace(*jax.device_put((_key_data(0), sample), device))
            for device in jax.local_devices()
        ]
        self._compiled = [trace.lower().compile() for trace in traces]
        self.width = width
        self.steps = _longest_loop(traces[0].jaxpr.jaxpr)
        self.outputs = {
            name: jax.ShapeDtypeStruct(output.shape[1:], output.dtype)
            for name, output in traces[0].out_info.items()
        }

    @property
    def workers(self) -> int:
        """Blocks that run at once: one a device, but one a core of a single CPU device."""
        devices = jax.local_devices()
        if len(devices) == 1 and devices[0].platform == "cpu":
            return os.cpu_count() or 1
        return len(devices)

    def __call__(self, number: int, seed: int, lanes: Values) -> Arrays:
        """Run the `number`-th block of a sweep and wait for it."""
        position = number % len(self._compiled)
        arguments = jax.device_put((_key_data(seed), dict(lanes)), jax.local_devices()[position])
        return jax.device_get(self._compiled[position](*arguments))


def default_width() -> int:
    """Lanes in a block on the current kind of device.

    On a CPU 8: wider blocks were measured a fifth faster at (5, 2), and pad small grids
    more. An accelerator wants more work in one kernel.
    """
    return 8 if jax.default_backend() == "cpu" else 128


def run(
    program: Program, seeds: Sequence[int], values: Values, report: Callable[[int], None]
) -> Finished:
    """Run every lane of `values` with every seed, blocks in turn on all cores or devices.

    Args:
        program: of a cell that takes `values`.
        seeds: each makes the key `jax.random.key(seed)`.
        values: name to one number per lane.
        report: called with the number of lanes of each finished block.

    Returns:
        Everything; after Ctrl-C, what was finished by then.

    Raises:
        RuntimeError: two lanes of equal seed and values gave different numbers.
    """
    count = max((len(numbers) for numbers in values.values()), default=1)
    outputs, done = nothing(program.outputs, len(seeds), count)

    def work(number: int, row: int, start: int) -> int:
        # The last block is filled with copies of its last lane: a free check of the promise.
        lanes = np.minimum(np.arange(start, start + program.width), count - 1)
        stop = min(start + program.width, count)
        results = program(number, seeds[row], {name: v[lanes] for name, v in values.items()})
        for name, result in results.items():
            outputs[name][row, start:stop] = result[: stop - start]
            spare = result[stop - start :]
            if not np.array_equal(
                spare,
                np.broadcast_to(result[stop - start - 1], spare.shape),
                equal_nan=np.issubdtype(spare.dtype, np.inexact),
            ):
                raise RuntimeError(
                    f"output {name!r} differs between copies of one cell (seed {seeds[row]}, lane "
                    f"{stop - 1}): the cell is not a pure function of its key and numbers"
                )
        done[row, start:stop] = True
        return stop - start

    blocks = [(row, start) for row in range(len(seeds)) for start in range(0, count, program.width)]
    executor = concurrent.futures.ThreadPoolExecutor(program.workers)
    try:
        futures = [executor.submit(work, number, *block) for number, block in enumerate(blocks)]
        for future in concurrent.futures.as_completed(futures):
            report(future.result())
    except KeyboardInterrupt:
        pass  # `done` tells
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    return Finished(outputs, done)


def nothing(outputs: Mapping[str, jax.ShapeDtypeStruct], num_seeds: int, lanes: int) -> Finished:
    """What `run` leaves if it is interrupted at once."""
    empty = {
        name: np.zeros((num_seeds, lanes, *output.shape), output.dtype)
        for name, output in outputs.items()
    }
    return Finished(empty, np.zeros((num_seeds, lanes), bool))


def _key_data(seed: int) -> UInt32[np.ndarray, "2"]:
    return np.asarray(jax.random.key_data(jax.random.key(seed, impl="threefry2x32")))


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
