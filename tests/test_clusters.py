"""Blocks run elsewhere: in other processes, on a cluster, by workers that die or do not fit."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Executor, ProcessPoolExecutor

import jax
import numpy as np
import pytest
import xarray as xr

import toymodels as tm
from toymodels import experiment
from toymodels.errors import InputError

pytestmark = pytest.mark.as_users_compile

distributed = pytest.importorskip("distributed")

SOURCE = '''
"""A cell that only the process of the sweep can see."""

import dataclasses

import jax
import optax

import toymodels as tm


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 200


def run(config, **options):
    def cell(key, *, density):
        features = tm.SparseUniform(5, density)
        trained = tm.train(
            key,
            tm.ReLUOutput(hidden=2),
            tm.Task(features),
            optimizer=optax.adam(1e-2),
            steps=config.steps,
            batch=16,
            evaluation=64,
        )
        return {"loss": trained.loss, "weights": trained.params["weights"]}

    axes = {"density": [0.1, 0.2, 0.3, 0.5, 1.0]}
    return tm.sweep(cell, axes=axes, num_seeds=40, width=8, progress=False, **options)
'''


def notebook():
    """Return the names that a notebook defines, which come from no file."""
    namespace = {"__name__": "notebook"}
    exec(SOURCE, namespace)
    return namespace


def run(**options):
    """Sweep 200 cells in 25 blocks."""
    names = notebook()
    return names["run"](names["Config"](), **options)


@pytest.fixture(scope="module")
def local():
    return run()


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def pool(**options):
    # Processes are spawned, because a fork of a process with threads can hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, **options)


class Watched(Executor):
    """An executor that calls `event` when its `number`-th block has finished."""

    def __init__(self, executor, number, event):
        self.executor, self.number, self.event = executor, number, event
        self.finished = 0
        self.lock = threading.Lock()

    def submit(self, function, *arguments):
        future = self.executor.submit(function, *arguments)
        future.add_done_callback(self.count)
        return future

    def count(self, future):
        with self.lock:
            self.finished += 1
            if self.finished == self.number:
                self.event()


def test_a_cluster_gives_the_same_bits(client, local):
    xr.testing.assert_equal(run(executor=client.get_executor()), local)


def test_an_experiment_from_a_file_runs_on_a_cluster(client, local, tmp_path):
    """The workers never see the file: they are sent the compiled function."""
    path = tmp_path / "unseen_experiment.py"
    path.write_text(SOURCE)
    loaded = experiment.load(path)
    path.unlink()
    xr.testing.assert_equal(loaded.run(loaded.config(), executor=client.get_executor()), local)


def test_a_cluster_survives_the_death_of_a_worker(client, local):
    victim = next(iter(client.run(os.getpid).values()))
    killed = []

    def kill():
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    executor = Watched(client.get_executor(), 3, kill)
    xr.testing.assert_equal(run(executor=executor), local)
    assert killed
    assert victim not in client.run(os.getpid).values()


def test_a_sweep_with_a_store_runs_on_a_cluster(client, local, tmp_path):
    store = tmp_path / "store"
    xr.testing.assert_equal(run(executor=client.get_executor(), store=store), local)
    xr.testing.assert_equal(run(store=store), local)


def test_a_pool_that_dies_keeps_what_was_finished(local):
    others = set(multiprocessing.active_children())  # the workers of the cluster
    with pool() as executor:

        def kill():
            for process in set(multiprocessing.active_children()) - others:
                process.kill()

        with pytest.raises(tm.SweepError, match="of 200 cells finished") as error:
            run(executor=Watched(executor, 3, kill))
    finished = error.value.results["loss"].notnull()
    assert 3 * 8 <= finished.sum() < 200
    xr.testing.assert_equal(error.value.results["loss"], local["loss"].where(finished))


def slow_mathematics():
    os.environ["XLA_FLAGS"] = "--xla_cpu_enable_fast_math=false"


def test_a_worker_with_other_flags_is_refused():
    with pool(initializer=slow_mathematics) as executor:
        message = "worker has XLA_FLAGS '--xla_cpu_enable_fast_math=false', this process has '"
        with pytest.raises(tm.SweepError, match=message) as error:
            run(executor=executor)
    assert error.value.results["loss"].isnull().all()


@pytest.mark.parametrize("elsewhere", [{"store": "store"}, {"executor": Executor()}])
def test_a_cell_that_prints_runs_here_only(elsewhere, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def cell(key, *, a):
        jax.debug.print("a is {}", a)
        return {"y": 2 * a}

    axes = {"a": [1.0, 2.0]}
    with pytest.raises(InputError, match=r"jax\.debug\.print.*without store="):
        tm.sweep(cell, axes=axes, progress=False, **elsewhere)
    results = tm.sweep(cell, axes=axes, width=2, progress=False)
    np.testing.assert_array_equal(results["y"][:, 0], [2, 4])
    jax.effects_barrier()
    assert sorted(capfd.readouterr().out.split("\n")) == ["", "a is 1.0", "a is 2.0"]
