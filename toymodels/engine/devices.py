"""The devices that blocks run on, and the platform that programs are traced for."""

import functools
import os
import threading
from collections.abc import Sequence
from typing import Any

import jax
from jaxlib import xla_client

tracing_for = jax.make_user_context()
"""Trace programs for another platform than that of this process, as in `tracing_for("cuda")`.

The engine traces other programs for an accelerator than for a CPU: they have no loop whose length
is known only when it runs, because such a loop waits for the host after every turn, and they leave
the decomposition of a batch of matrices whole. JAX traces anew where this context changes.
"""

UPDATES_A_TURN = 2
"""The number of updates in one turn of the loop of training on an accelerator.

It starts a kernel for whatever changes in a turn, also for a single number, such as the number of
the turn. Two updates a turn share these kernels and the one that makes their keys: models of 5
features in 2 dimensions then need 6 kernels an update instead of 9 (counted in the programs that
`toymodels cost` compiles for an H100). Four updates a turn would need more registers than there
are.
"""

_lock = threading.Lock()  # without it two threads that ask at once would make two clients


def backend() -> str:
    """Return the platform that programs are traced for, such as "cpu", "gpu", "cuda" or "tpu"."""
    return tracing_for.value or jax.default_backend()


def devices() -> Sequence[Any]:
    """Return the accelerators of this process, or CPU devices with one thread a program.

    XLA divides a sum, a matrix product, a convolution or a Fourier transform among its threads,
    of which it has one for each core, and the last bits depend on the division. A device with
    one thread divides nothing, so that its numbers are the same on any number of cores.

    A fault that is known: with jaxlib 0.10.2 the loops of training run in that one thread, and not
    in the thread that calls them, so that blocks of one device wait for each other. Two blocks took
    1.12 seconds where one took 0.57, and 0.61 on two devices of two clients.
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
