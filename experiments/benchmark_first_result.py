"""The time from the start of Python to the numbers of a new cell, and what it goes into.

Cell       The one of the README: a model of 5 features in 2 dimensions, 2,000 steps, one block.
Parts      Importing, tracing, lowering, compiling, running, and labelling, each in seconds of
           processor time, because the machine was busy with other work. That work makes the times
           longer, by up to a half where two processors share a core. Every round is a new
           process: a cold one finds no compiled program, a cached one finds it in the cache.
           They find no Dask, which toymodels does not need: xarray would import it for 0.3 seconds.
           `theory.optimum` traces and compiles while it runs, which counts as running.
Claim      The goals: 2.5 seconds cold and 1.2 cached, 3 for the exact loss with its gradient and 5
           for `theory.optimum` of 5 features in 2 dimensions, all in new processes.
Selection  None: bars are medians of all rounds, and dots are the rounds.
Command    toymodels run experiments/benchmark_first_result.py
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile

import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting

PARTS = ("import", "trace", "lower", "compile", "run", "label")
GOALS = {"cold": 2.5, "cached": 1.2, "exact loss": 3.0, "optimum": 5.0}
OURS = tm.finding("Design goal, in processor time")
GOAL = "Ours, because it is a design goal."


BUSY = "Measured on two cores beside other work, which makes times longer."
NOTES = {
    "cold": f"XLA takes more than a second to compile. {BUSY}",
    "cached": f"To import JAX and to train takes a second, xarray and tracing another. {BUSY}",
    "exact loss": BUSY,
    "optimum": BUSY,
}
CHILD = """
import collections, json, sys, time
sys.modules["dask"] = None  # as if it were not installed
spent, began = collections.Counter(), time.process_time()

def timed(part, function):
    def wrapper(*args, **options):
        started = time.process_time()
        try:
            return function(*args, **options)
        finally:
            spent[part] += time.process_time() - started
    return wrapper

def cell(steps, cells):
    import toymodels as tm
    tm.sweep, tm.Recipe, tm.ReLUOutput, tm.Task
    from toymodels.sweeps import blocks, cells as tracing, datasets, program

    def readme(key, *, density):
        recipe = tm.Recipe(steps=steps, batch=1024, learning_rate=1e-2)
        trained = recipe.train(key, tm.ReLUOutput(hidden=2), tm.Task(tm.SparseUniform(5, density)))
        return {"loss": trained.loss, "weights": trained.params["weights"]}

    spent["import"] = time.process_time()
    for owner, name, part in (
        (tracing, "_trace_once", "trace"), (tracing, "_check_pure", "trace"),
        (program, "_trace_block", "trace"), (program, "_export", "lower"),
        (program.Executables, "on", "compile"), (blocks, "run", "run"),
        (datasets, "assemble", "label"),
    ):
        setattr(owner, name, timed(part, getattr(owner, name)))
    tm.sweep(readme, axes={"density": [0.1]}, num_seeds=cells, progress=False)
    spent["label"] += time.process_time() - sum(spent.values())

def exact_loss(features):
    import jax, numpy, toymodels as tm
    tm.theory.expected_loss
    spent["import"] = time.process_time()
    with jax.enable_x64(True):
        model = numpy.ones((2, features)), numpy.zeros(features)
        loss = jax.jit(jax.value_and_grad(lambda w, b: tm.theory.expected_loss(w, b, 0.1), (0, 1)))
        traced = timed("trace", loss.trace)(*model)
        compiled = timed("compile", timed("lower", traced.lower)().compile)()
        timed("run", lambda: jax.block_until_ready(compiled(*model)))()

def optimum(features):
    import toymodels as tm
    tm.theory.optimum
    spent["import"] = time.process_time()
    timed("run", tm.theory.optimum)(features, 2, density=0.1)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 2000
    cells: int = 32
    """The number of seeds; a block holds 64 cells."""
    features: int = 6
    """The number of features of the exact loss; `optimum` has one less."""
    rounds: int = 3
    kinds: tuple[str, ...] = ("cold", "cached", "exact loss", "optimum")


SMOKE = Config(features=1, rounds=1, kinds=("exact loss",))


def run(config: Config) -> xr.Dataset:
    calls = {
        "cold": ("cell", config.steps, config.cells),
        "cached": ("cell", config.steps, config.cells),
        "exact loss": ("exact_loss", config.features),
        "optimum": ("optimum", max(config.features - 1, 1)),
    }
    rounds = []
    for _ in range(config.rounds):
        with tempfile.TemporaryDirectory() as cache:
            # The second process finds what the first one compiled.
            found = [in_new_process(*calls[kind], cache=cache) for kind in config.kinds]
        rounds.append([[each.get(part, 0.0) for part in PARTS] for each in found])
    return xr.Dataset(
        {"seconds": (("round", "kind", "part"), rounds)},
        {"kind": list(config.kinds), "part": list(PARTS)},
        {"cores": os.cpu_count()},
    )


def in_new_process(function: str, *arguments: int, cache: str) -> dict[str, float]:
    """Return the processor seconds of each part of a function of `CHILD`, in a new process."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    code = f"{CHILD}\n{function}(*{arguments!r})\nprint(json.dumps(spent))"
    how = {"env": environment, "check": True, "text": True, "stdout": subprocess.PIPE}
    return json.loads(subprocess.run([sys.executable, "-c", code], **how).stdout)


def claims(results: xr.Dataset) -> tm.Claims:
    seconds = results["seconds"].sum("part").median("round")
    words = {
        "cold": "A new cell of the README gives its first numbers without compiled programs",
        "cached": "A new cell of the README gives its first numbers from the cache",
        "exact loss": "The exact loss of 6 features gives its first gradient",
        "optimum": "The search for the minima of 5 features in 2 dimensions ends",
    }
    for kind in results["kind"].values:
        says = f"{words[kind]}, in seconds of processor time of a new process."
        yield tm.at_most(
            says, GOALS[kind], seconds.sel(kind=kind), OURS, threshold=GOAL, note=NOTES[kind]
        )


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(size=(7, 3))
    names = {
        "cold": "cell of the README, cold",
        "cached": "cell of the README, cached",
        "exact loss": "exact loss and gradient, cold",
        "optimum": "theory.optimum, cold",
    }
    median = results["seconds"].median("round")
    kinds = results["kind"].values
    places, left = list(range(len(kinds))), xr.zeros_like(median.isel(part=0, drop=True))
    for number, part in enumerate(results["part"].values):
        width = median.sel(part=part, drop=True)
        axes.barh(places, width, left=left, label=part, color=f"C{number}", edgecolor="white")
        left = left + width
    for place, kind in enumerate(kinds):
        rounds = results["seconds"].sel(kind=kind).sum("part")
        axes.plot(rounds, [place] * rounds.size, "k.", markersize=4)
        axes.plot(
            [GOALS[kind]] * 2,
            [place - 0.45, place + 0.45],
            "k:",
            label="goal" if not place else None,
        )
    axes.set_yticks(places, [names[kind] for kind in kinds])
    axes.invert_yaxis()
    title = f"From the start of Python to the first numbers ({results.sizes['round']} rounds)"
    axes.set(xlabel="seconds of processor time", title=title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
