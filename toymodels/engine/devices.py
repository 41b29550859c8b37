"""The devices that blocks run on, and the platform that programs are traced for."""

import collections
import contextlib
import functools
import os
import threading
from collections.abc import Generator, Sequence
from typing import Any

import jax
from jaxlib import xla_client

tracing_for = jax.make_user_context()
"""A context in which programs are traced for another platform, as in `with tracing_for("cuda")`.

The engine traces one program for a CPU and another one for an accelerator. That for an accelerator
has no loop whose length is known only when it runs, because such a loop waits for the host after
every turn, and it decomposes a batch of matrices at once. JAX traces a function again when this
context has changed.
"""

UPDATES_A_TURN = 2
"""The number of updates in one turn of the loop of training on an accelerator.

In each turn an accelerator starts a kernel for every value that the turn changes, even for a single
number such as the count of turns, and one that makes the keys of all updates of the turn. With two
updates in a turn, each of them pays for half of these kernels: models of 5 features in 2 dimensions
then need 6 kernels an update instead of 9 (counted in the programs that `toymodels cost` compiles
for an H100). Four updates a turn would need more registers than there are.
"""

_lock = threading.Lock()  # for `_running`, and because two threads must not make devices at once
_running: collections.Counter[int] = collections.Counter()  # programs, by position of the device


def backend() -> str:
    """Return the platform that programs are traced for, such as "cpu", "gpu", "cuda" or "tpu"."""
    return tracing_for.value or jax.default_backend()


def num_cores() -> int:
    """Return how many cores this process may use, which on Linux can be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def devices() -> Sequence[Any]:
    """Return the accelerators of this process, or one CPU device with one thread for each core.

    XLA divides a sum, a matrix product, a convolution or a Fourier transform among the threads of
    a device, and the last bits depend on the division. A device with one thread divides nothing,
    so that its numbers are the same on any number of cores. That thread also runs the loops of
    training, whichever thread calls the program. So two programs on one CPU device wait for each
    other, and programs that are to run side by side need devices of their own.
    """
    with _lock:
        return _devices()


@contextlib.contextmanager
def least_busy(most: int | None = None) -> Generator[int]:
    """Lend a device to a program: the one that runs the fewest programs, and the first of these.

    Args:
        most: how many of the devices, from the first on, may be lent; None for all.

    Yields:
        The position of the device in `devices()`.
    """
    positions = range(len(devices()))[:most]
    with _lock:
        position = min(positions, key=_running.__getitem__)
        _running[position] += 1
    try:
        yield position
    finally:
        with _lock:
            _running[position] -= 1


@functools.cache
def _devices() -> Sequence[Any]:
    if jax.default_backend() != "cpu":
        return jax.local_devices()
    # XLA reads the number of threads from these variables when it makes a client.
    names = ("PJRT_NPROC", "NPROC")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        clients = [xla_client.make_cpu_client(asynchronous=False) for _ in range(num_cores())]
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)
    return [client.local_devices()[0] for client in clients]
