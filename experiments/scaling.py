"""The cost of sweeps of up to ten billion cells: a model, beside a simulated cluster.

Model      B = N / w blocks of w cells run on W workers. A worker needs d = L + w S / r seconds for
           a block: the latency L, and S steps of w models at r model-steps per second. It is lost
           at the rate f, loses its block, and is back after R seconds, so that a block takes
           E = (1/f + R)(exp(f d) - 1) seconds on average. The process of the sweep needs c seconds
           for a block and k seconds for a cell. All takes max(ceil(B / W) E, B c + N k) seconds.
Parts      Processor time and bytes were measured and stand in `Config`. A run measures the times
           again, and a test the bytes. The rate of a card is a bound by its memory traffic, and no
           card has measured it.
Check      A Dask cluster in this process, whose workers wait instead of training, wait for the
           latency as well, and are lost at random. Its wall time is compared with the model.
Claim      Model and simulated cluster agree within 20 %.
Selection  None: every simulated cluster is shown; each ran once.
Command    toymodels run experiments/scaling.py
"""

import contextlib
import dataclasses
import importlib.util
import logging
import math
import random
import time
from collections.abc import Generator
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.sweeps import blocks, datasets
from toymodels.sweeps.program import Program, compile_program

OURS = tm.prediction("The model of this file")
AGAIN = tm.prediction("Each part of the model was measured in the same way before")
GOAL = "Ours, because it is a design goal."
SHARED = "Ours, because processor time differs so much between runs on a shared machine."


class Machine(NamedTuple):
    """Workers that run blocks.

    Attributes:
        workers: how many there are.
        rate: model-steps per second of one worker.
        width: how many cells a block has.
        remote: whether an executor sends the blocks to the workers.
    """

    workers: int
    rate: float
    width: int
    remote: bool


CORE, CARD = 550_000.0, 46e6
MACHINES = {
    "2 cores": Machine(2, CORE, 64, remote=False),
    "64 cores, Dask": Machine(64, CORE, 64, remote=True),
    "64 cores, SLURM": Machine(64, CORE, 2**16, remote=True),
    "one H100": Machine(1, CARD, 8192, remote=False),
    "64 H100, Dask": Machine(64, CARD, 8192, remote=True),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 2000
    """The steps of one cell, which is a model of 5 features in 2 dimensions with its loss."""
    block: float = 3e-4
    """Processor seconds of a block in the process of the sweep, on its own workers."""
    block_sent: float = 3.2e-3
    """Processor seconds of a block in the process of the sweep and of the scheduler of Dask."""
    cell: float = 1.2e-7
    """Processor seconds of a cell in the process of the sweep, in blocks of any width."""
    program_bytes: int = 41_000
    """Bytes that are sent with each block: mostly its program."""
    answer_bytes: float = 73
    """Bytes of a cell that come back."""
    folder_bytes: float = 64
    """Bytes of a cell in a folder of results: its 16 numbers."""
    store_bytes: float = 150
    """Bytes of a cell in a store."""
    latency: float = 0.01
    """Seconds of a block on its way. Assumed: a network within one building, and a scheduler."""
    losses: float = 1e-6
    """Losses of a worker per second, about one in twelve days. Assumed."""
    restart: float = 300
    """Seconds until a lost worker is back. Assumed."""
    clusters: tuple[tuple[int, float, float], ...] = (
        (2, 0.0, 0.0),
        (8, 0.0, 0.0),
        (8, 0.2, 0.0),
        (8, 0.2, 0.3),
        (16, 0.1, 0.3),
    )
    """Workers, latency and losses per second of the simulated clusters."""
    waits: float = 0.6
    """Seconds that a simulated block takes beside the latency."""
    back: float = 0.5
    """Seconds until a simulated worker is back."""
    blocks_each: int = 30
    """Simulated blocks for each worker."""


SMOKE = Config(clusters=((2, 0.01, 1.0),), waits=0.02, back=0.01, blocks_each=4)


def duration(seconds: float, losses: float, restart: float) -> float:
    """Return the mean time of a block of this length on a worker that may be lost."""
    return math.expm1(losses * seconds) * (1 / losses + restart) if losses else seconds


def cost(config: Config, machine: Machine, cells: float) -> dict[str, float]:
    """Return seconds of workers and of the process of the sweep, bytes on disk and on the way."""
    number = math.ceil(cells / machine.width)
    alone = machine.width * config.steps / machine.rate + config.latency * machine.remote
    block = config.block_sent if machine.remote else config.block
    on_the_way = number * config.program_bytes + cells * config.answer_bytes
    return {
        "workers": math.ceil(number / machine.workers)
        * duration(alone, config.losses, config.restart),
        "process": number * block + cells * config.cell,
        "folder": cells * config.folder_bytes,
        "store": cells * config.store_bytes,
        "network": on_the_way * machine.remote,
    }


def table(config: Config) -> str:
    """Return the costs as the rows of a table in Markdown."""
    rows = ["| machine | cells | time | limit | folder | store | sent |", "|---" * 7 + "|"]
    for name, machine in MACHINES.items():
        for cells in (1e6, 1e8, 1e10):
            found = cost(config, machine, cells)
            seconds = max(found["workers"], found["process"])
            limit = "workers" if found["workers"] >= found["process"] else "process"
            sent = bytes_in_words(found["network"]) if machine.remote else "nothing"
            kept = bytes_in_words(found["folder"]), bytes_in_words(found["store"])
            words = time_in_words(seconds), limit, *kept, sent
            rows.append(f"| {' | '.join([name, f'1e{math.log10(cells):.0f}', *words])} |")
    return "\n".join(rows)


def time_in_words(seconds: float) -> str:
    for unit, length in (("years", 3.156e7), ("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def bytes_in_words(number: float) -> str:
    unit, size = next((u, s) for u, s in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)) if number >= s)
    return f"{number / size:.3g} {unit}"


def light(key, *, a) -> dict[str, Any]:
    """Return what a cell of the model returns, without training."""
    del key
    return {"weights": a * jnp.ones((2, 5)), "bias": a * jnp.ones(5), "loss": a}


class Cluster(Executor):
    """A cluster whose workers wait for each block, and are lost at random."""

    def __init__(self, client, wait: float, losses: float, back: float):
        self.inner, self.times = client.get_executor(pure=False, retries=10_000), []
        self.wait, self.losses, self.back = wait, losses, back

    def submit(self, fn, /, *args, **_) -> Future:
        wait, losses, back = self.wait, self.losses, self.back

        def waiting(*args) -> Any:  # inside, because the workers cannot import this file
            lost_after = random.expovariate(losses) if losses else math.inf
            if lost_after < wait:
                time.sleep(lost_after + back)
                raise ConnectionError("the worker is lost")  # the scheduler runs it again
            time.sleep(wait)
            return fn(*args)

        self.times.append(time.perf_counter())
        future = self.inner.submit(waiting, *args)
        future.add_done_callback(lambda _: self.times.append(time.perf_counter()))
        return future


def work(program: Program, number: int, executor: Executor | None = None) -> float:
    """Return the processor seconds of a block, of this number of blocks."""
    size = number * program.width
    room = datasets.empty_outputs(program.outputs, size)
    deliver = lambda part, arrays: room.fill(np.arange(part.start, part.stop), arrays)  # noqa: E731
    numbers = {"a": np.linspace(1, 2, size)}
    started = time.process_time()
    blocks.run(program, np.zeros(size, int), numbers, deliver, executor=executor)
    return (time.process_time() - started) / number


def measured_here() -> dict[str, float]:
    """Return the parts of the model that need no cluster, whose threads would count as work."""
    number = {"a": np.ones(1)}
    narrow, wide = (compile_program(light, number, width=width) for width in (64, 4096))
    work(narrow, 20)
    # Other programs can only add to the time, so the least of five is nearest to the truth.
    of_narrow = min(work(narrow, 300) for _ in range(5))
    of_wide = min(work(wide, 30) for _ in range(5))
    a_cell = (of_wide - of_narrow) / (4096 - 64)
    return {"cell": a_cell, "block": of_narrow - 64 * a_cell}


def measured_sent(client, a_cell: float) -> float:
    """Return the processor seconds of a block that Dask sends; NaN where Dask is not installed."""
    if client is None:
        return math.nan
    executor = client.get_executor(pure=False)
    narrow = compile_program(light, {"a": np.ones(1)}, width=64)
    work(narrow, 20, executor)
    return work(narrow, 200, executor) - 64 * a_cell


def simulated(config: Config, client, workers: int, latency: float, losses: float) -> float:
    """Return the seconds of a sweep on a cluster that waits instead of computing."""
    program = compile_program(light, {"a": np.ones(1)}, width=2)
    cluster = Cluster(client, config.waits + latency, losses, config.back)
    work(program, config.blocks_each * workers, cluster)
    return max(cluster.times) - min(cluster.times)


def run(config: Config) -> xr.Dataset:
    found, seconds = measured_here(), []
    for workers, latency, losses in config.clusters:
        with cluster_of(workers) as client:
            if "block_sent" not in found:
                found["block_sent"] = measured_sent(client, found["cell"])
            seconds.append(
                simulated(config, client, workers, latency, losses) if client else math.nan
            )
    expected = [
        config.blocks_each * duration(config.waits + latency, losses, config.back)
        for _, latency, losses in config.clusters
    ]
    names = [
        f"{workers} workers, {latency:g} s of latency and {losses:g} losses a second"
        for workers, latency, losses in config.clusters
    ]
    cells = np.geomspace(1e5, 1e10, 26)
    costs = [
        [max(cost(config, machine, n)[kind] for kind in ("workers", "process")) for n in cells]
        for machine in MACHINES.values()
    ]
    return xr.Dataset(
        {
            "simulated": ("cluster", seconds),
            "expected": ("cluster", expected),
            "seconds": (("machine", "cells"), costs),
            **{f"measured_{name}": value for name, value in found.items()},
        },
        {"cluster": names, "cells": cells, "machine": list(MACHINES)},
        {name: getattr(config, name) for name in found},
    )


@contextlib.contextmanager
def cluster_of(workers: int) -> Generator[Any]:
    """Start a cluster in this process; its client is None where Dask is not installed."""
    if importlib.util.find_spec("distributed") is None:
        yield None
        return
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with (
        LocalCluster(n_workers=workers, silence_logs=logging.CRITICAL, **options) as cluster,
        Client(cluster) as client,
    ):
        yield client


def claims(results: xr.Dataset) -> tm.Claims:
    ratio = results["simulated"] / results["expected"]
    if ratio.notnull().all():  # Dask is an extra
        for name, each in zip(results["cluster"].values, ratio.values, strict=True):
            says = f"A simulated cluster of {name} is as fast as the model says, measured by the "
            says += "ratio of the times."
            yield tm.near(says, 1, each, OURS, within=0.2, threshold=GOAL)
    words = {
        "block": "The processor time of a block in the process of a sweep",
        "block_sent": "The processor time of a block that Dask sends",
    }
    idle = {"block": "0.45 to 0.7 ms", "block_sent": "up to 6.5 ms"}
    for name, what in words.items():
        again = float(results[f"measured_{name}"]) / results.attrs[name]
        if math.isfinite(again):
            note = "The number of the model was measured on a busy machine. On an idle one the "
            note += f"same code needs {idle[name]}, perhaps because threads that sleep must be "
            note += "woken for each block."
            says = f"{what} is that of the model when it is measured again, measured by the ratio."
            yield tm.near(says, 1, again, AGAIN, within=0.5, threshold=SHARED, note=note)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (left, right) = plotting.figure(1, 2, size=(9, 4), width_ratios=(3, 2))
    for machine, style in zip(
        results["machine"].values, ("o-", "s-", "s:", "^-", "^--"), strict=True
    ):
        left.loglog(
            results["cells"],
            results["seconds"].sel(machine=machine),
            style,
            markersize=3,
            label=machine,
        )
    for words, seconds in (("minute", 60), ("hour", 3600), ("day", 86_400), ("year", 3.156e7)):
        left.axhline(seconds, color="0.85", zorder=0)
        left.text(1.1e5, seconds * 1.15, words, fontsize=7, color="0.4")
    left.set(xlabel="cells of 2,000 steps", ylabel="seconds")
    left.set_title("By the model, 64 cards train $10^{10}$ cells in hours")
    left.legend(loc="lower right")
    names = [name.replace(", ", ",\n").replace(" and", ",\n") for name in results["cluster"].values]
    expected, simulated = results["expected"], results["simulated"]
    right.barh(names, 0.4 * expected, left=0.8 * expected, color="0.88", label="within 20 %")
    right.plot(expected, names, "k|", markersize=20, label="model")
    right.plot(simulated, names, "o", label="cluster")
    right.set(xlabel="seconds", title="Simulated clusters agree with the model", xlim=(0, None))
    right.invert_yaxis()
    right.legend(loc="upper right")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
