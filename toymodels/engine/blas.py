"""A limit of one thread for each call of BLAS and LAPACK while blocks run."""

import contextlib
import functools
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import scipy.linalg  # noqa: F401  # pyright: ignore[reportUnusedImport]
import threadpoolctl

_lock = threading.Lock()
_users: list[contextlib.ExitStack] = []  # the first of them takes the limit away in the end


@contextlib.contextmanager
def one_blas_thread() -> Generator[None, None, None]:
    """Let BLAS and LAPACK use one thread in this process until the last user leaves.

    OpenBLAS otherwise uses every core for each call: calls from many threads at once wait for
    each other (a singular value decomposition of 64 x 64 took 20 times longer on two busy
    cores), and the last bits of large matrices depend on the number of cores.
    """
    with _lock:
        limit = contextlib.ExitStack()
        if not _users:
            _switch().submit(_limit, limit).result()
        _users.append(limit)
    try:
        yield
    finally:
        with _lock:
            _switch().submit(_users.pop().close).result()


def _limit(stack: contextlib.ExitStack) -> None:
    stack.enter_context(_controller().limit(limits=1, user_api="blas"))


@functools.cache
def _switch() -> ThreadPoolExecutor:
    """Return the one thread that sets and removes limits, as a limit belongs to its thread."""
    return ThreadPoolExecutor(1)


@functools.cache
def _controller() -> threadpoolctl.ThreadpoolController:
    """Return the controller of the libraries in this process; jaxlib calls the one of SciPy."""
    return threadpoolctl.ThreadpoolController()
