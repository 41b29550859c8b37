"""Model-steps per second of training thousands of tiny models, against the alternatives.

A model-step is one optimizer step of one model on a fresh batch. Each contender runs in a process
of its own, in turn, several times round; compilation is reported apart.

Contenders ours    `toymodels.sweep`
           vmap    the obvious JAX: jit(vmap(scan)), jax.random.uniform, optax.adam
           torch   the paper's notebook in PyTorch, if installed; the better of 1 and 2 threads
Limit      A model-step needs 10 B n m operations for its five matrix products and about 14 B n for
           the rest; the limit is the rate of a 2048 x 2048 matrix product, measured in each round.
           Random words are not counted: cells of one seed share them.
Claim      The goals on two idle cores: at least 100 times as fast as PyTorch at (5, 2) and (2, 1),
           25 times at (20, 5), 8 times at (100, 20) and 7 times at (400, 30); 80 % of the limit at
           the two smallest sizes, 55 % at the two largest; memory that does not grow with cells.
Selection  None: lines are medians of three rounds, and every round is a dot.
Command    toymodels run experiments/benchmark_training.py
"""

import dataclasses
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment

CONTENDERS = ("ours", "vmap", "torch, 1 thread", "torch, 2 threads")
SIZES = ((5, 2, 1024), (2, 1, 2560), (20, 5, 256), (100, 20, 20), (400, 30, 8))
LARGER = ((2, 1), (5, 2), (10, 3), (20, 5), (50, 10), (100, 20), (200, 20), (400, 30))
GOALS = {"5,2": 100, "2,1": 100, "20,5": 25, "100,20": 8, "400,30": 7}
LIMIT_GOALS = {"5,2": 0.8, "2,1": 0.8, "100,20": 0.55, "400,30": 0.55}
IDLE = tm.finding("Design goal, on two otherwise idle cores")
CACHE = tm.finding("The cache saves the compilation, not the tracing")
KEEPS = tm.finding("A sweep keeps its results, 11 numbers a cell, and nothing else")
GOAL = "Ours, because it is a design goal."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    sizes: tuple[tuple[int, int, int], ...] = SIZES
    """Features, hidden dimensions and cells of each size."""
    steps: tuple[int, ...] = (3000, 4000, 1500, 1500, 600)
    slow_steps: tuple[int, ...] = (30, 30, 30, 60, 40)
    """The numbers of steps of the contenders that are not ours."""
    batch: int = 1024
    rounds: int = 3
    growth_cells: tuple[int, ...] = (10, 100, 1000, 10_000, 50_000)
    """The numbers of cells of (5, 2), of 200 steps, or 10 for the last, which is for memory."""
    growth_features: tuple[tuple[int, int], ...] = LARGER
    """Features and hidden dimensions of 128 cells up to 20 features, of 8 cells beyond."""
    growth_steps: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000)
    """The numbers of steps of 128 cells of (5, 2)."""


# Each number of features or steps would be a process that compiles a program of its own.
NO_GROWTH = {"growth_cells": (4, 8), "growth_features": (), "growth_steps": ()}
SMOKE = Config(sizes=((2, 1, 4),), steps=(20,), slow_steps=(5,), batch=16, rounds=1, **NO_GROWTH)


def run(config: Config) -> xr.Dataset:
    rounds = []
    for _ in range(config.rounds):
        rows = range(len(config.sizes))
        found = [[needed(config, row, name) for name in CONTENDERS] for row in rows]
        sizes = xr.combine_nested(found, ["size", "contender"])
        rounds.append(sizes.assign(in_own_process("peak")))
    results = xr.concat(rounds, "round").transpose("size", "contender", "round")
    of_sizes = np.array([operations(n, m, config.batch) for n, m, _ in config.sizes])
    of_features = np.array([operations(*each, config.batch) for each in config.growth_features])
    peaks = results["peak"].values
    results["limit"] = ("size", "round"), peaks / of_sizes[:, None]
    results["limit_by_features"] = "features", np.median(peaks) / of_features
    cells = [cells for *_, cells in config.sizes]
    return results.merge(growth(config)).assign_attrs(cells_of_size=cells, cores=os.cpu_count())


def needed(config: Config, row: int, contender: str) -> xr.Dataset:
    """Return what a contender needs for one size, NaN for PyTorch if it is not installed.

    Ours is also compiled again, with the compiled programs of the first time.
    """
    features, hidden, cells = config.sizes[row]
    steps = (config.steps if contender == "ours" else config.slow_steps)[row]
    call = ("measure", contender, features, hidden, cells, steps, config.batch)
    found = dict.fromkeys(("rate", "compile_cold", "compile_cached", "memory"), np.nan)
    if not contender.startswith("torch") or importlib.util.find_spec("torch"):
        with tempfile.TemporaryDirectory() as cache:
            found |= in_own_process(*call, cache=cache)
            if contender == "ours":
                again = in_own_process(*call, True, cache=cache)
                found["compile_cached"] = again["compile_cold"]
    rate = f"{found['rate']:,.0f} steps/s"
    print(f"({features}, {hidden}) x {cells}, {contender}: {rate}", file=sys.stderr)
    return xr.Dataset(found, {"contender": contender, "size": f"{features},{hidden}"})


def growth(config: Config) -> xr.Dataset:
    """Return rate and memory of ours over the number of cells, of features and of steps."""
    *_, most = config.growth_cells
    runs = {
        "cells": {c: (5, 2, c, 10 if c == most else 200) for c in config.growth_cells},
        "features": {n: (n, m, 128 if n <= 20 else 8, 500) for n, m in config.growth_features},
        "steps": {steps: (5, 2, 128, steps) for steps in config.growth_steps},
    }
    found = xr.Dataset()
    for name, cases in runs.items():
        results = [in_own_process("measure", "ours", *c, config.batch) for c in cases.values()]
        for kind in ("rate", "memory"):
            found[f"{kind}_by_{name}"] = (name, [result[kind] for result in results])
        found[name] = list(cases)
    return found


def operations(n: int, m: int, batch: int) -> float:  # of one model-step
    return 10 * batch * n * m + 14 * batch * n


def in_own_process(function: str, *arguments, cache: str | None = None) -> dict[str, float]:
    """Return what a function of this file returns in a process, with a new cache by default."""
    printed = f"json.dumps(b.{function}(*json.loads(sys.argv[1])))"
    program = f"import json, sys, benchmark_training as b; print({printed})"
    command = [sys.executable, "-c", program, json.dumps(arguments)]
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    with tempfile.TemporaryDirectory() as new:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache or new
        output = subprocess.check_output(command, cwd=Path(__file__).parent, env=environment)
    return json.loads(output.splitlines()[-1])


def measure(
    contender: str, n: int, m: int, cells: int, steps: int, batch: int, compile_only: bool = False
) -> dict[str, float]:
    """Return model-steps per second of wall time, seconds of compilation, and peak memory."""
    name, *threads = contender.split(", ")
    make = {"ours": ours, "vmap": plain_vmap, "torch": torch_notebook}[name]
    started = time.perf_counter()
    work = make(n, m, cells, steps, batch, *(int(t[0]) for t in threads))
    result = {"compile_cold": time.perf_counter() - started}
    if not compile_only:
        started = time.perf_counter()
        work()
        result["rate"] = cells * steps / (time.perf_counter() - started)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes
    result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return result


def peak() -> dict[str, float]:
    """Return the operations per second of a large matrix product, the best of ten."""
    import jax

    matrix, product = jax.numpy.ones((2048, 2048)), jax.jit(lambda x: x @ x)
    seconds = timeit.repeat(lambda: product(matrix).block_until_ready(), number=1, repeat=11)
    return {"peak": 2 * 2048**3 / min(seconds)}


def ours(n: int, m: int, cells: int, steps: int, batch: int) -> Callable:
    """Return a sweep of this package, compiled and ready to run."""
    import jax
    import optax

    from toymodels.engine import programs
    from toymodels.sweeps import blocks
    from toymodels.sweeps.program import compile_program, default_width

    def cell(key, *, density):
        task = tm.Task(tm.SparseUniform(n, density), importance=tm.geometric_importance(n, 0.9))
        how = {"steps": steps, "batch": batch, "evaluation": batch}
        trained = tm.train(key, tm.ReLUOutput(m), task, optimizer=optax.adam(1e-3), **how)
        return {"loss": trained.loss, "weights": trained.params["weights"]}

    values = {"density": np.geomspace(1, 0.05, cells)}
    low = jax.make_jaxpr(lambda key: cell(key, density=1.0))(jax.random.key(0))
    width = default_width(programs.largest_array(low.jaxpr))
    program = compile_program(cell, values, width=width)
    return lambda: blocks.run(program, np.zeros(cells, int), values, lambda *_: None)


def plain_vmap(n: int, m: int, cells: int, steps: int, batch: int) -> Callable:
    """Return a scan over steps, mapped over cells in the obvious way, compiled."""
    import jax
    import jax.numpy as jnp
    import optax

    importance, adam = 0.9 ** jnp.arange(n), optax.adam(1e-3)

    def train(key, density):
        key, start = jax.random.split(key)
        params = {"w": jax.nn.initializers.xavier_normal()(start, (m, n)), "b": jnp.zeros(n)}

        def loss(params, x):
            y = jax.nn.relu(x @ params["w"].T @ params["w"] + params["b"])
            return jnp.mean(jnp.sum(importance * (x - y) ** 2, axis=-1))

        def step(carry, key):
            params, state = carry
            mask, value = jax.random.split(key)
            active = jax.random.uniform(mask, (batch, n)) < density
            x = jnp.where(active, jax.random.uniform(value, (batch, n)), 0)
            value, grads = jax.value_and_grad(loss)(params, x)
            updates, state = adam.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, adam.init(params)), jax.random.split(key, steps))

    arguments = jax.random.split(jax.random.key(0), cells), jnp.geomspace(1, 0.05, cells)
    compiled = jax.jit(jax.vmap(train)).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments))


def torch_notebook(n: int, m: int, cells: int, steps: int, batch: int, threads: int) -> Callable:
    """Return the loop of the paper's notebook over steps of all cells at once."""
    import torch  # pyright: ignore[reportMissingImports]  an extra

    torch.set_num_threads(threads)
    importance = 0.9 ** torch.arange(n)
    density = torch.logspace(0, np.log10(0.05), cells)[:, None]
    weights = torch.nn.Parameter(torch.nn.init.xavier_normal_(torch.empty(cells, n, m)))
    bias = torch.nn.Parameter(torch.zeros(cells, n))
    optimizer = torch.optim.AdamW([weights, bias], lr=1e-3)

    def work(steps: int = steps) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            value = torch.rand(batch, cells, n)
            x = torch.where(torch.rand(batch, cells, n) <= density, value, torch.zeros(()))
            hidden = torch.einsum("bif,ifh->bih", x, weights)
            y = torch.relu(torch.einsum("bih,ifh->bif", hidden, weights) + bias)
            (importance * (x - y) ** 2).mean(dim=(0, 2)).sum().backward()
            optimizer.step()

    work(2)  # warm up
    return work


def claims(results: xr.Dataset) -> tm.Claims:
    rate = results["rate"].median("round")
    ours, vmap = (rate.sel(contender=name, drop=True) for name in ("ours", "vmap"))
    torch = rate.sel(contender=list(CONTENDERS[2:])).max("contender")
    counts = np.atleast_1d(results.attrs["cells_of_size"])
    sizes = dict(zip(results["size"].values, counts, strict=True))
    share = (results["rate"].sel(contender="ours") / results["limit"]).median("round")
    for other, goals, ratio in (
        ("those of PyTorch", GOALS if torch.notnull().all() else {}, ours / torch),  # an extra
        ("the limit of the processor", LIMIT_GOALS, share),
        ("those of plain vmap", {"5,2": 10, "2,1": 10}, ours / vmap),
    ):
        for size in [size for size in goals if size in sizes]:
            says = f"A sweep of {sizes[size]} models of size ({size}), features and dimensions, "
            says += f"reaches its goal in model-steps per second, measured by the ratio to {other}."
            yield tm.at_least(says, goals[size], ratio.sel(size=size), IDLE, threshold=GOAL)
    says = "The slowest program to compile needs less time with the cache, measured by the ratio."
    seconds = results.sel(contender="ours").median("round").max("size")
    note = "What is left is tracing and lowering in Python, which varies most from run to run."
    share = seconds["compile_cached"] / seconds["compile_cold"]
    yield tm.at_most(says, 0.6, share, CACHE, threshold=GOAL, note=note)
    few, many = results["cells"].values[-2:]
    fewer, most = results["memory_by_cells"][-2:]
    process = f"The peak memory of a process with {many} models of 5 features in 2 dimensions"
    says = f"{process} is hardly above that with {few} models, measured by the difference in MB."
    note = "The peak is reached in compiling, which takes 20 MB more or less from run to run."
    yield tm.at_most(says, 20, most - fewer, KEEPS, threshold=GOAL, note=note)
    says = f"{process} is at most the design goal in MB."
    note = "Importing takes 230 MB of it, compiling about 200, and a second core 35."
    yield tm.at_most(says, 400, most, IDLE, threshold=GOAL, note=note)


def plot(results: xr.Dataset):
    from toymodels import plotting  # not at the top, where it would count as ours in memory

    results = results.sel(size=sorted(results["size"].values, key=lambda s: int(s.split(",")[0])))
    figure, (above, below) = plotting.figure_of_parts(2, size=(9, 7), height_ratios=(2, 1))
    draw_speed(above.subplots(), results)
    compiled, *growing = below.subplots(1, 4)
    draw_compilation(compiled, results)
    draw_growth(growing, results)
    return figure


def draw_speed(axes, results: xr.Dataset) -> None:
    """Draw model-steps per second over the size of the model, and the ratio to PyTorch."""
    rate = results["rate"].transpose("size", "contender", "round")
    ours, threads = rate.sel(contender="ours"), rate.sel(contender=list(CONTENDERS[2:]))
    torch = threads.isel(contender=threads.median("round").fillna(0).argmax("contender"))
    names = [size.replace(",", " features,\n") + " hidden" for size in results["size"].values]
    for name, rates, style, color in (
        ("toymodels", ours, "o-", "C0"),
        ("JAX: jit(vmap(scan))", rate.sel(contender="vmap"), "s--", "C1"),
        ("PyTorch, the better of 1 and 2 threads", torch, "^-.", "C2"),
    ):
        axes.plot(names, rates, style[0], markersize=3, alpha=0.5, color=color)
        axes.plot(names, rates.median("round"), style, markersize=5, label=name, color=color)
    limit = results["limit"].median("round")
    axes.plot(names, limit, ":", color="0.3", label="limit: rate of a large matrix product")
    medians = zip(ours.median("round").values, torch.median("round").values, strict=True)
    for place, (high, low) in enumerate(medians):
        if np.isfinite(low):
            ends = (place, high / 1.3), (place, low * 1.3)
            axes.annotate("", *ends, arrowprops={"arrowstyle": "->"})
            ratio = f"x {high / low:.2g}" if high < 10 * low else f"x {high / low:.0f}"
            bold = {"fontsize": 11, "weight": "bold", "va": "center"}
            axes.text(place + 0.05, (high * low) ** 0.5, ratio, **bold)
    label = "optimizer steps of one model,\nper second of wall time"
    axes.set(xlim=(-0.3, len(names) - 0.5), yscale="log", ylabel=label)
    rounds = f"dots: {results.sizes['round']} rounds, lines: median; {results.attrs['cores']} cores"
    axes.set_title(f"Toy models train faster than in PyTorch, by the factor written\n({rounds})")
    axes.legend(loc="upper right")


def draw_compilation(axes, results: xr.Dataset) -> None:
    """Draw the seconds of tracing and compiling over the size of the model."""
    sizes = [size.replace(",", ",\n") for size in results["size"].values]
    for name, style, label in (("cold", "o-", "first run"), ("cached", "s--", "with the cache")):
        seconds = results[f"compile_{name}"].sel(contender="ours").median("round")
        axes.plot(sizes, seconds, style, label=label, markersize=4)
    axes.set(title="Before the first step", ylabel="seconds to compile")
    axes.set(ylim=(0, None), xlabel="features, hidden")
    axes.legend(loc="lower right")


def draw_growth(row, results: xr.Dataset) -> None:
    """Draw model-steps per second over the number of models, of steps and of features."""
    first, *others = row
    labels = {"cells": "models of (5, 2)", "steps": "steps of 128 models", "features": "features"}
    for axes, (name, label) in zip(row, labels.items(), strict=True):
        # The largest number of cells has few steps, because its memory is measured.
        rate = results[f"rate_by_{name}"][: -1 if name == "cells" else None]
        axes.loglog(rate[name], rate, "o-", markersize=4)
        axes.set(xlabel=f"number of {label}", title=f"Speed with more {label.split()[0]}")
        axes.minorticks_off()
    others[-1].plot(results["features"], results["limit_by_features"], ":", color="0.3")
    first.set_ylabel("steps per second")
    for axes in others:
        axes.sharey(first)
        axes.tick_params(labelleft=False)


if __name__ == "__main__":
    experiment.main(__file__)
