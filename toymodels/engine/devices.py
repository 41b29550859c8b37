"""The devices that blocks run on."""

import functools
import os
import threading
from collections.abc import Sequence
from typing import Any

import jax
from jaxlib import xla_client

_lock = threading.Lock()  # without it two threads that ask at once would make two clients


def devices() -> Sequence[Any]:
    """Return the accelerators of this process, or CPU devices with one thread a program.

    XLA divides a sum, a matrix product, a convolution or a Fourier transform among its threads,
    of which it has one for each core, and the last bits depend on the division. A device with
    one thread divides nothing, so that its numbers are the same on any number of cores. It also
    runs a program in the thread that calls it, from the first step to the last: many threads
    run many programs side by side, and none waits for another.
    """
    with _lock:
        return _devices()


@functools.cache
def _devices() -> Sequence[Any]:
    if jax.default_backend() != "cpu":
        return jax.local_devices()
    # The number of threads is read from these variables, once, when the client is made.
    names = ("PJRT_NPROC", "NPROC")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        return xla_client.make_cpu_client(asynchronous=False).local_devices()
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)
