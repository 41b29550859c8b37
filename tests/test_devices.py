"""The numbers of a block do not depend on how many threads this machine would use."""

import os
import runpy
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl

import toymodels as tm
from toymodels.engine import devices
from toymodels.engine.blas import one_blas_thread
from toymodels.theory import landscape

pytestmark = pytest.mark.as_users_compile

# Each divides its work among threads of XLA, in parts that other code sums in another order.
PROGRAM = """
import hashlib
import jax, jax.numpy as jnp, numpy as np, toymodels as tm

RANDOM = np.random.default_rng(0)
PLACES = RANDOM.integers(0, 100, 20_000)
MATRIX = RANDOM.normal(size=(1000, 60)).astype(np.float32)

def cell(key, *, a):
    x = a * jax.random.normal(key, (100_003,))
    matrix = a * MATRIX
    return {
        "fourier": jnp.abs(jnp.fft.fft(x[:1000])),
        "sum": jax.nn.logsumexp(x),
        "sums": (x[:74_000].reshape(2000, 37) + 1).sum(0),
        "of gathered": (x[:100] + 1)[PLACES].sum(),
        "product": matrix.T @ (matrix + x[:60]),
        "convolution": jnp.convolve(x[:5000], x[:501]),
    }

a = np.linspace(0.5, 1.5, 48)
there = tm.sweep(cell, axes={"a": a}, width=16, progress=False)
back = tm.sweep(cell, axes={"a": a[::-1]}, width=16, progress=False).isel(a=slice(None, None, -1))
for name in there:
    print(hashlib.md5(there[name].values.tobytes()).hexdigest(), end=" ")
    print(there[name].equals(back[name]))
"""


def test_bits_depend_neither_on_the_threads_of_xla_nor_on_the_place_in_a_block():
    """Two, three and seven threads would divide each of these sums in different ways."""
    printed = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "NPROC": threads, "JAX_ENABLE_COMPILATION_CACHE": "0"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("2", "3", "7")
    ]
    assert printed[0].split()[1::2] == ["True"] * 6
    assert printed[1] == printed[0]
    assert printed[2] == printed[0]


@pytest.mark.parametrize("before", [{}, {"NPROC": "3"}, {"PJRT_NPROC": "2", "NPROC": "4"}])
def test_environment_is_as_before(before, monkeypatch):
    for name in ("NPROC", "PJRT_NPROC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    fresh = runpy.run_path(devices.__file__)["devices"]  # which has not made its device yet
    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(fresh) for _ in range(4)]
    (made,) = {tuple(future.result()) for future in found}
    assert len(made) == len(devices.devices())
    assert {device.platform for device in made} == {"cpu"}
    assert {name: os.environ[name] for name in ("NPROC", "PJRT_NPROC") if name in os.environ} == (
        before
    )


def test_descents_run_on_the_cores_that_the_process_may_use(monkeypatch):
    """A process that may use one core of many descends in one thread, group after group."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    threads = set()

    def program(points, *_):
        threads.add(threading.get_ident())
        time.sleep(0.05)  # so long that a second thread would begin the next group
        return points, points[:, 0], points

    monkeypatch.setattr(landscape, "_program", lambda *_: program)
    loss = landscape.Landscape(lambda *_: 0.0, 1, np.ones(1), np.ones(1))
    loss.at(np.zeros((3 * landscape.GROUP, 2)))
    assert len(threads) == 1


def blas_threads():
    pools = threadpoolctl.threadpool_info()
    return {pool["filepath"]: pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}


def test_blas_has_one_thread_until_the_last_user_leaves():
    before = blas_threads()
    assert before
    entered, leave = threading.Event(), threading.Event()

    @one_blas_thread()
    def other():
        entered.set()
        leave.wait()

    thread = threading.Thread(target=other)
    with one_blas_thread():
        thread.start()
        entered.wait()
        assert set(blas_threads().values()) == {1}
    assert set(blas_threads().values()) == {1}
    leave.set()
    thread.join()
    assert blas_threads() == before


def test_a_sweep_restores_the_threads_of_blas():
    before = blas_threads()
    results = tm.sweep(lambda key, a: {"y": a}, axes={"a": [1.0, 2.0]}, progress=False)
    np.testing.assert_array_equal(results["y"].squeeze("seed"), [1.0, 2.0])
    assert blas_threads() == before
