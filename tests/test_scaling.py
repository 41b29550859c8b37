"""The model of the cost of large sweeps: its parts, and a cluster in virtual time."""

import heapq
from pathlib import Path

import numpy as np
import pytest
from helpers import sweep

import toymodels as tm
from experiments import scaling
from toymodels.sweeps import cells
from toymodels.sweeps.program import compile_program

CONFIG = scaling.Config()


def makespan(chance, blocks, workers, duration, losses, restart):
    """The time of all blocks, each given to the worker that is free first."""
    free = [0.0] * workers
    for _ in range(blocks):
        time = heapq.heappop(free)
        while (until := chance.exponential(1 / losses)) < duration:
            time += until + restart
        heapq.heappush(free, time + duration)
    return max(free)


@pytest.mark.parametrize(("losses", "restart"), [(1e-3, 50.0), (0.05, 3.0), (0.3, 0.0)])
def test_workers_that_are_lost_at_random_take_the_time_of_the_model(losses, restart):
    blocks, workers, duration = 4000, 8, 5.0
    simulated = makespan(np.random.default_rng(0), blocks, workers, duration, losses, restart)
    expected = blocks / workers * scaling.duration(duration, losses, restart)
    assert simulated == pytest.approx(expected, rel=0.06)  # the error of the mean is 2 %


def test_without_losses_a_block_takes_its_time():
    assert scaling.duration(5.0, 0.0, 100.0) == 5.0
    assert scaling.duration(5.0, 1e-9, 100.0) == pytest.approx(5.0)


def test_twice_the_workers_take_half_the_time_until_the_process_of_the_sweep_limits():
    few = scaling.Machine(32, scaling.CORE, 64, remote=True)
    one, two = (scaling.cost(CONFIG, few._replace(workers=n), 1e8) for n in (32, 64))
    assert two["workers"] == pytest.approx(one["workers"] / 2, rel=1e-3)
    assert two["process"] == one["process"]
    fastest = scaling.cost(CONFIG, few._replace(workers=1000), 1e8)
    assert fastest["process"] > fastest["workers"]


def test_the_bytes_of_a_cell(tmp_path):
    """Sixteen numbers of 4 bytes, their labels, and in a store the keys and checksums."""
    axes = {"a": np.linspace(1, 2, 8), "b": np.linspace(1, 2, 256)}

    def cell(key, *, a, b):
        return scaling.light(key, a=a + b)

    sweep(cell, axes=axes, folder=tmp_path / "folder", store=tmp_path / "store")
    part = tmp_path / "folder" / "part-000000.nc"
    assert CONFIG.folder_bytes * 2048 <= part.stat().st_size < CONFIG.folder_bytes * 2048 + 40_000
    assert (tmp_path / "store").stat().st_size / 2048 == pytest.approx(CONFIG.store_bytes, rel=0.2)


def test_the_bytes_of_a_block():
    """Mostly the program of the cell, which trains 5 features in 2 dimensions."""

    def cell(key, *, density):
        recipe = tm.Recipe(steps=CONFIG.steps, batch=1024, learning_rate=1e-2)
        task = tm.Task(tm.SparseUniform(5, density))
        trained = recipe.train(key, tm.ReLUOutput(hidden=2), task)
        return {"params": trained.params, "loss": trained.loss}

    program = compile_program(
        cells.trace(cell, {}, {"density": 1.0}), {"density": np.ones(1)}, width=64
    )
    assert len(program.serialized()) == pytest.approx(CONFIG.program_bytes, rel=0.1)


def test_the_page_has_the_table_of_the_model():
    page = Path(__file__).parent.parent / "docs" / "scaling.md"
    assert scaling.table(CONFIG) in page.read_text(), "print(experiments.scaling.table(Config()))"
