"""How fast are thousands of tiny models trained? Model-steps per second against the alternatives.

A model-step is one optimizer step of one model on a fresh batch. Each contender runs in a
process of its own, the contenders in turn, several times round; compilation is reported apart.

Contenders ours    `toymodels.sweep`
           vmap    the obvious JAX: jit(vmap(scan)), jax.random.uniform, optax.adam
           torch   the protocol of the paper's notebook in PyTorch, with 1 and with 2 threads
                   (the better counts); left out where PyTorch is not installed
Limit      A model-step needs 10 B n m operations for its five matrix products and about 14 B n for
           the rest; the limit is the rate of a 2048 x 2048 matrix product, measured in each round.
           Random words are not counted: cells of one seed share them.
Claim      Ours is at least 100 times as fast as PyTorch at (5, 2) and (2, 1), 25 times at (20, 5),
           8 times at (100, 20) and 7 times at (400, 30). It reaches 80 % of the limit at the two
           smallest sizes, 55 % at the two largest. Memory does not grow with the number of cells.
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
from collections.abc import Callable, Iterator
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
    """The sizes that are measured. The numbers of steps are such that each run takes seconds."""

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


SMOKE = Config(
    sizes=((2, 1, 4),),
    steps=(20,),
    slow_steps=(5,),
    batch=16,
    rounds=1,
    growth_cells=(4, 8),
    # Each would be a process that compiles a program of its own.
    growth_features=(),
    growth_steps=(),
)


def run(config: Config) -> xr.Dataset:
    rounds, peaks = [], []
    for turn in range(config.rounds):
        print(f"round {turn + 1} of {config.rounds}", file=sys.stderr)
        peaks.append(in_own_process("peak")["rate"])
        rounds.append(
            xr.concat([compared(config, row) for row in range(len(config.sizes))], "size")
        )
    peaks = np.array(peaks)
    limits = np.array([operations(n, m, config.batch) for n, m, _ in config.sizes])
    of_features = [operations(n, m, config.batch) for n, m in config.growth_features]
    return (
        xr.concat(rounds, "round")
        .transpose("size", "contender", "round")
        .assign(
            limit=(("size", "round"), peaks / limits[:, None]),
            peak=("round", peaks),
            limit_by_features=("features", np.median(peaks) / np.array(of_features)),
        )
        .merge(growth(config))
        .assign_attrs(cells_of_size=[cells for *_, cells in config.sizes], cores=os.cpu_count())
    )


def compared(config: Config, row: int) -> xr.Dataset:
    """Return what all contenders need for one size, NaN where PyTorch is not installed."""
    features, hidden, cells = config.sizes[row]
    found = {}
    for name in CONTENDERS:
        if name.startswith("torch") and importlib.util.find_spec("torch") is None:
            continue
        steps = (config.steps if name == "ours" else config.slow_steps)[row]
        found[name] = compiled_twice(name, features, hidden, cells, steps, config.batch)
        rate = f"{found[name]['rate']:,.0f} model-steps/s"
        print(f"({features}, {hidden}) x {cells}, {name}: {rate}", file=sys.stderr)
    names = ("rate", "compile_cold", "compile_cached", "memory")
    values = {
        name: ("contender", [found.get(each, {}).get(name, np.nan) for each in CONTENDERS])
        for name in names
    }
    coords = {"contender": list(CONTENDERS), "size": f"{features},{hidden}"}
    return xr.Dataset(values, coords)


def growth(config: Config) -> xr.Dataset:
    """Return rate and memory of ours over the number of cells, of features and of steps."""
    *_, most = config.growth_cells
    runs = {
        "cells": {
            cells: (5, 2, cells, 10 if cells == most else 200) for cells in config.growth_cells
        },
        "features": {n: (n, m, 128 if n <= 20 else 8, 500) for n, m in config.growth_features},
        "steps": {steps: (5, 2, 128, steps) for steps in config.growth_steps},
    }
    found = xr.Dataset()
    for name, cases in runs.items():
        results = [
            in_own_process("measure", "ours", *case, config.batch) for case in cases.values()
        ]
        for kind in ("rate", "memory"):
            found[f"{kind}_by_{name}"] = (name, [result[kind] for result in results])
        found[name] = list(cases)
    return found


def operations(n: int, m: int, batch: int) -> float:
    """Return the floating-point operations of one model-step; see `Limit` above."""
    return 10 * batch * n * m + 14 * batch * n


def compiled_twice(contender: str, *numbers: int) -> dict[str, float]:
    """Return `measure` without compiled programs; for ours, the compilation again with them."""
    arguments = (contender, *numbers)
    if contender != "ours":
        return in_own_process("measure", *arguments)
    with tempfile.TemporaryDirectory() as cache:
        result = in_own_process("measure", *arguments, cache=cache)
        again = in_own_process("measure", *arguments, True, cache=cache)
    return {**result, "compile_cached": again["compile_cold"]}


def in_own_process(function: str, *arguments, cache: str | None = None) -> dict[str, float]:
    """Return what a function of this file prints in a process of its own."""
    code = (
        f"import json, sys, benchmark_training as b; print(b.{function}(*json.loads(sys.argv[1])))"
    )
    folder = (
        {"JAX_COMPILATION_CACHE_DIR": cache} if cache else {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        cwd=Path(__file__).parent,
        env={**os.environ, **folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(finished.stdout.splitlines()[-1])


def measure(
    contender: str, n: int, m: int, cells: int, steps: int, batch: int, compile_only: bool = False
) -> str:
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
    # Linux counts kilobytes, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return json.dumps(result)


def peak() -> str:
    """Return the operations per second of a large matrix product, the best of ten."""
    import jax
    import jax.numpy as jnp

    matrix = jnp.ones((2048, 2048))
    product = jax.jit(lambda x: x @ x)
    seconds: list[float] = []
    for _ in range(11):
        started = time.perf_counter()
        product(matrix).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return json.dumps({"rate": 2 * 2048**3 / min(seconds)})


def ours(n: int, m: int, cells: int, steps: int, batch: int) -> Callable:
    """Return a sweep of this package, compiled and ready to run."""
    import jax
    import optax

    import toymodels as tm
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
            loss = (importance * (x - y) ** 2).mean(dim=(0, 2)).sum()
            loss.backward()
            optimizer.step()

    work(2)  # warm up
    return work


def of_torch(results: xr.Dataset) -> xr.DataArray:
    """Return the median rate of PyTorch, with the better number of threads."""
    rate = results["rate"].median("round")
    return rate.sel(contender=list(CONTENDERS[2:])).max("contender")


def claims(results: xr.Dataset) -> Iterator[tm.Claim]:
    rate = results["rate"].median("round")
    ours, torch = rate.sel(contender="ours", drop=True), of_torch(results)
    counts = np.atleast_1d(results.attrs["cells_of_size"])
    sizes = dict(zip(results["size"].values, counts, strict=True))
    share = (results["rate"].sel(contender="ours") / results["limit"]).median("round")
    for other, goals, ratio in (
        ("those of PyTorch", GOALS if torch.notnull().all() else {}, ours / torch),  # an extra
        ("the limit of the processor", LIMIT_GOALS, share),
        ("those of plain vmap", {"5,2": 10, "2,1": 10}, ours / rate.sel(contender="vmap")),
    ):
        for size in [size for size in goals if size in sizes]:
            says = f"The model-steps per second of {sizes[size]} models of ({size}) are this many "
            says += f"times {other}."
            yield tm.at_least(says, goals[size], ratio.sel(size=size), IDLE, threshold=GOAL)
    says = "The slowest program to trace and compile needs this share of its time with the cache."
    cold, cached = (
        results[name].sel(contender="ours").median("round").max("size")
        for name in ("compile_cold", "compile_cached")
    )
    note = "What is left is tracing and lowering, in Python: more than a second of about two, and "
    note += "the part that varies most from run to run."
    yield tm.at_most(says, 0.6, cached / cold, CACHE, threshold=GOAL, note=note)
    *_, fewer, most = results["cells"].values
    memory = results["memory_by_cells"]
    says = f"The peak memory of a process with {most} models of (5,2) is this much beyond that "
    says += f"with {fewer}, in MB."
    more = memory.sel(cells=most) - memory.sel(cells=fewer)
    yield tm.at_most(says, 20, more, KEEPS, threshold=GOAL)
    says = f"The peak memory of a process with {most} models of (5,2) is this much, in MB."
    note = "Importing JAX, Flax and xarray takes 200 MB of it, compiling one program 160 to 170, "
    note += "running 20: 382 to 404 in four runs."
    yield tm.at_most(says, 400, memory.sel(cells=most), IDLE, threshold=GOAL, note=note)


def plot(results: xr.Dataset):
    from toymodels import plotting  # not at the top, where it would count as ours in memory

    rows = {"height_ratios": (2, 1)}
    figure, ((speed, *spare), (compiled, *growing)) = plotting.figure(2, 4, size=(9, 7), **rows)
    for axes in spare:
        axes.remove()
    speed.set_subplotspec(speed.get_gridspec()[0, :])
    draw_speed(speed, results)

    places = np.arange(results.sizes["size"])
    for name, style, label in (("cold", "o", "without cache"), ("cached", "s", "with cache")):
        seconds = results[f"compile_{name}"].sel(contender="ours").median("round")
        compiled.plot(places, seconds, style, label=label, markersize=5)
    sizes = [size.replace(",", ",\n") for size in results["size"].values]
    compiled.set_xticks(places, labels=sizes)
    compiled.set(xlabel="features, hidden", ylabel="seconds", ylim=(0, None))
    compiled.set_title("to trace and compile", fontsize=9)
    compiled.legend(loc="lower left")
    labels = {"cells": "models of (5, 2)", "steps": "steps of 128 models", "features": "features"}
    for axes, (name, label) in zip(growing, labels.items(), strict=True):
        rate = results[f"rate_by_{name}"]
        axes.set_visible(rate.size > 1)
        if rate.size > 1:
            if name == "cells":  # the last has few steps, for the memory is measured there
                rate = rate[:-1]
            axes.loglog(rate[name], rate, "o-", markersize=4)
            axes.set_xlabel(f"number of {label}")
            axes.set_title("steps per second", fontsize=9)
    if results.sizes["features"]:
        growing[-1].plot(results["features"], results["limit_by_features"], ":", color="0.3")
    return figure


def draw_speed(axes, results: xr.Dataset) -> None:
    """Draw model-steps per second over the size of the model, and the ratio to PyTorch."""
    order = sorted(results["size"].values, key=lambda size: int(size.split(",")[0]))
    results, places = results.sel(size=order), np.arange(len(order))
    rate = results["rate"].transpose("size", "contender", "round")
    faster = rate.sel(contender=list(CONTENDERS[2:]))
    better = faster.median("round").fillna(0).argmax("contender")
    rates = {
        "toymodels": rate.sel(contender="ours"),
        "JAX: jit(vmap(scan))": rate.sel(contender="vmap"),
        "PyTorch, the better of 1 and 2 threads": faster.isel(contender=better),
    }
    for number, ((name, dots), style) in enumerate(
        zip(rates.items(), ("o-", "s--", "^-."), strict=True)
    ):
        how = {"color": f"C{number}"}
        axes.plot(places, dots, style[0], markersize=3, alpha=0.5, **how)
        axes.plot(places, dots.median("round"), style, markersize=5, label=name, **how)
    limit = results["limit"].median("round")
    axes.plot(places, limit, ":", color="0.3", label="limit: rate of a large matrix product")
    fast, slow = (each.median("round").values for each in list(rates.values())[::2])
    for place, high, low in zip(places, fast, slow, strict=True):
        if np.isfinite(low):
            arrow = {"arrowstyle": "->"}
            axes.annotate("", (place, high / 1.3), (place, low * 1.3), arrowprops=arrow)
            ratio = f"{high / low:.2g}" if high < 10 * low else f"{high / low:.0f}"
            how = {"fontsize": 11, "weight": "bold", "va": "center"}
            axes.text(place + 0.05, (high * low) ** 0.5, f"x {ratio}", **how)
    names = [f"{n} features,\n{m} hidden" for n, m in (size.split(",") for size in order)]
    axes.set_xticks(places, labels=names)
    axes.set(xlim=(-0.3, len(order) - 0.5), yscale="log")
    axes.set_ylabel("optimizer steps of one model,\nper second of wall time")
    machine = f"{results.attrs['cores']} cores, {results.attrs['processor'].split()[0]}"
    rounds = f"median of {results.sizes['round']} rounds, a dot is a round; {machine}"
    axes.set_title(f"Toy models train faster than in PyTorch, by the factor written\n({rounds})")
    axes.legend(loc="upper right")


if __name__ == "__main__":
    experiment.main(__file__)
