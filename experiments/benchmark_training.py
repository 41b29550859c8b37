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
           8 times at (100, 20) and 7 times at (400, 30), and reaches 80 % of the limit at the two
           smallest, 55 % at the two largest; memory does not grow with the number of cells.
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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from toymodels import experiment
from toymodels.experiment.claims import Bound, Claim, Kind

CONTENDERS = ("ours", "vmap", "torch, 1 thread", "torch, 2 threads")
GOALS = {"5,2": 100, "2,1": 100, "20,5": 25, "100,20": 8, "400,30": 7}
LIMIT_GOALS = {"5,2": 0.8, "2,1": 0.8, "100,20": 0.55, "400,30": 0.55}
SOURCE = "design goal, on two otherwise idle cores"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured. Steps are chosen so that each run takes seconds."""

    sizes: tuple[tuple[int, int, int], ...] = (
        (5, 2, 1024),
        (2, 1, 2560),
        (20, 5, 256),
        (100, 20, 20),
        (400, 30, 8),
    )
    """Features, hidden dimensions, cells."""
    steps: tuple[int, ...] = (3000, 4000, 1500, 1500, 600)
    slow_steps: tuple[int, ...] = (30, 30, 30, 60, 40)
    """Of the contenders that are not ours."""
    batch: int = 1024
    rounds: int = 3
    growth_cells: tuple[int, ...] = (10, 100, 1000, 10_000, 50_000)
    """Of (5, 2) with 200 steps, but 10 for the last, which is for the memory."""
    growth_features: tuple[tuple[int, int], ...] = (
        (2, 1),
        (5, 2),
        (10, 3),
        (20, 5),
        (50, 10),
        (100, 20),
        (200, 20),
        (400, 30),
    )
    """With the hidden dimensions; 128 cells up to 20 features, 8 beyond."""
    growth_steps: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000)
    """Of 128 cells of (5, 2)."""


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
    contenders = [
        name
        for name in CONTENDERS
        if not name.startswith("torch") or importlib.util.find_spec("torch") is not None
    ]
    shape = (len(config.sizes), len(CONTENDERS), config.rounds)
    names = ("rate", "rate_cpu", "compile_cold", "compile_cached", "memory")
    measured = {name: np.full(shape, np.nan) for name in names}
    peak = np.zeros(config.rounds)
    for turn in range(config.rounds):
        peak[turn] = in_own_process("peak")["rate"]
        for row, (features, hidden, cells) in enumerate(config.sizes):
            for name in contenders:
                steps = (config.steps if name == "ours" else config.slow_steps)[row]
                result = compiled_twice(name, features, hidden, cells, steps, config.batch)
                for variable, value in result.items():
                    measured[variable][row, CONTENDERS.index(name), turn] = value
                print(
                    f"round {turn + 1} of {config.rounds}: ({features}, {hidden}) x {cells}, "
                    f"{name}: {result['rate']:,.0f} model-steps/s",
                    file=sys.stderr,
                )
    *_, most = config.growth_cells
    by_cells = [
        in_own_process("measure", "ours", 5, 2, cells, 10 if cells == most else 200, config.batch)
        for cells in config.growth_cells
    ]
    by_features = [
        in_own_process("measure", "ours", n, m, 128 if n <= 20 else 8, 500, config.batch)
        for n, m in config.growth_features
    ]
    by_steps = [
        in_own_process("measure", "ours", 5, 2, 128, steps, config.batch)
        for steps in config.growth_steps
    ]
    dims = ("size", "contender", "round")
    limits = [operations(n, m, config.batch) for n, m, _ in config.sizes]
    return xr.Dataset(
        {name: (dims, values) for name, values in measured.items()}
        | {
            "limit": (("size", "round"), peak / np.array(limits)[:, None]),
            "peak": ("round", peak),
            "rate_by_cells": ("cells", column(by_cells, "rate")),
            "memory_by_cells": ("cells", column(by_cells, "memory")),
            "rate_by_features": ("features", column(by_features, "rate")),
            "limit_by_features": (
                "features",
                [
                    np.median(peak) / operations(n, m, config.batch)
                    for n, m in config.growth_features
                ],
            ),
            "rate_by_steps": ("steps", column(by_steps, "rate")),
            "memory_by_steps": ("steps", column(by_steps, "memory")),
        },
        coords={
            "size": [f"{n},{m}" for n, m, _ in config.sizes],
            "contender": list(CONTENDERS),
            "cells": list(config.growth_cells),
            "features": [n for n, _ in config.growth_features],
            "steps": list(config.growth_steps),
        },
        attrs={"cells_of_size": [cells for _, _, cells in config.sizes]},
    )


def operations(n: int, m: int, batch: int) -> float:
    """Floating-point operations of one model-step; see `Limit` above."""
    return 10 * batch * n * m + 14 * batch * n


def column(results: Iterable[dict[str, float]], name: str) -> list[float]:
    return [result[name] for result in results]


def compiled_twice(contender: str, *numbers: Any) -> dict[str, float]:
    """`measure` in a process without compiled programs; for ours, the compilation again with."""
    arguments = (contender, *numbers)
    if contender != "ours":
        return in_own_process("measure", *arguments)
    with tempfile.TemporaryDirectory() as cache:
        result = in_own_process("measure", *arguments, cache=cache)
        again = in_own_process("measure", *arguments, True, cache=cache)
    return {
        **{name: result[name] for name in ("rate", "rate_cpu", "memory")},
        "compile_cold": result["compile_cold"],
        "compile_cached": again["compile_cold"],
    }


def in_own_process(function: str, *arguments: Any, cache: str | None = None) -> dict[str, float]:
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
    contender: str,
    features: int,
    hidden: int,
    cells: int,
    steps: int,
    batch: int,
    compile_only: bool = False,
) -> str:
    """Model-steps per second of wall and of processor time, compilation apart, peak memory."""
    name, *threads = contender.split(", ")
    make = {"ours": ours, "vmap": plain_vmap, "torch": torch_notebook}[name]
    started = time.perf_counter()
    work = make(features, hidden, cells, steps, batch, *(int(t[0]) for t in threads))
    result = {"compile_cold": time.perf_counter() - started}
    if not compile_only:
        wall, processor = time.perf_counter(), time.process_time()
        work()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        result |= {"rate": cells * steps / wall, "rate_cpu": cells * steps / processor}
    # Linux counts kilobytes, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return json.dumps(result)


def peak() -> str:
    """Floating-point operations per second of a large matrix product, the best of ten."""
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


def ours(n: int, m: int, cells: int, steps: int, batch: int) -> Callable[[], Any]:
    import jax
    import optax

    import toymodels as tm
    from toymodels.engine import programs
    from toymodels.sweeps import blocks
    from toymodels.sweeps.program import compile_program, default_width

    def cell(key: Any, *, density: Any) -> dict[str, Any]:
        task = tm.Task(tm.SparseUniform(n, density), importance=tm.geometric_importance(n, 0.9))
        trained = tm.train(
            key,
            tm.ReLUOutput(m),
            task,
            optimizer=optax.adam(1e-3),
            steps=steps,
            batch=batch,
            evaluation=batch,
        )
        return {"loss": trained.loss, "weights": trained.params["weights"]}

    values = {"density": np.geomspace(1, 0.05, cells)}
    low = jax.make_jaxpr(lambda key: cell(key, density=1.0))(jax.random.key(0))
    width = default_width(programs.largest_array(low.jaxpr))
    program = compile_program(cell, values, width=width)
    return lambda: blocks.run(program, np.zeros(cells, int), values, lambda *_: None)


def plain_vmap(n: int, m: int, cells: int, steps: int, batch: int) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp
    import optax

    importance, adam = 0.9 ** jnp.arange(n), optax.adam(1e-3)

    def train(key: Any, density: Any) -> Any:
        key, start = jax.random.split(key)
        params = {"w": jax.nn.initializers.xavier_normal()(start, (m, n)), "b": jnp.zeros(n)}

        def loss(params: Any, x: Any) -> Any:
            y = jax.nn.relu(x @ params["w"].T @ params["w"] + params["b"])
            return jnp.mean(jnp.sum(importance * (x - y) ** 2, axis=-1))

        def step(carry: Any, key: Any) -> Any:
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


def torch_notebook(
    n: int, m: int, cells: int, steps: int, batch: int, threads: int
) -> Callable[[], Any]:
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


def claims(results: xr.Dataset) -> list[Claim]:
    rate = results["rate"].median("round")
    ours = rate.sel(contender="ours", drop=True)
    numbers = np.atleast_1d(results.attrs["cells_of_size"])
    sizes = dict(zip(results["size"].values, numbers, strict=True))
    torch = rate.sel(contender=[name for name in CONTENDERS if name.startswith("torch")])
    torch = torch.max("contender")
    share = (results["rate"].sel(contender="ours") / results["limit"]).median("round")
    made = [
        Claim(
            f"({size}) x {cells}: model-steps per second, times those of PyTorch",
            SOURCE,
            expected=GOALS[size],
            measured=float(ours.sel(size=size) / torch.sel(size=size)),
            bound=Bound.AT_LEAST,
            kind=Kind.FINDING,
            threshold="ours: a design goal",
        )
        for size, cells in sizes.items()
        if torch.notnull().all()  # PyTorch is an extra
    ]
    made += [
        Claim(
            f"({size}) x {sizes[size]}: share of the limit of the processor",
            SOURCE,
            expected=goal,
            measured=float(share.sel(size=size)),
            bound=Bound.AT_LEAST,
            kind=Kind.FINDING,
            threshold="ours: a design goal",
        )
        for size, goal in LIMIT_GOALS.items()
        if size in sizes
    ]
    made += [
        Claim(
            f"({size}) x {sizes[size]}: model-steps per second, times those of plain vmap",
            SOURCE,
            expected=10,
            measured=float(ours.sel(size=size) / rate.sel(size=size, contender="vmap")),
            bound=Bound.AT_LEAST,
            kind=Kind.FINDING,
            threshold="ours: a design goal",
        )
        for size in ("5,2", "2,1")
        if size in sizes
    ]
    cold, cached = (
        results[name].sel(contender="ours").median("round").max("size")
        for name in ("compile_cold", "compile_cached")
    )
    made.append(
        Claim(
            "slowest program to trace and compile: with the cache, share of the time without",
            "the cache saves the compilation, not the tracing",
            expected=0.6,
            measured=float(cached / cold),
            bound=Bound.AT_MOST,
            note="What is left is tracing and lowering, in Python: more than a second of about "
            "two, and the part that varies most from run to run.",
            kind=Kind.FINDING,
            threshold="ours: a design goal",
        )
    )
    *_, fewer, most = results["cells"].values
    memory = results["memory_by_cells"]
    made += [
        Claim(
            f"(5,2) x {most}: peak memory of the process beyond that of x {fewer}, MB",
            "a sweep keeps its results, 11 numbers a cell, and nothing else",
            expected=20,
            measured=float(memory.sel(cells=most) - memory.sel(cells=fewer)),
            bound=Bound.AT_MOST,
            kind=Kind.FINDING,
            threshold="ours: a design goal",
        ),
        Claim(
            f"(5,2) x {most}: peak memory of the process, MB",
            SOURCE,
            expected=400,
            measured=float(memory.sel(cells=most)),
            bound=Bound.AT_MOST,
            note="Importing JAX, Flax and xarray takes 200 MB of it, compiling one program 160 to "
            "170, running 20: 382 to 404 in four runs.",
            kind=Kind.FINDING,
            threshold="ours: a design goal",
        ),
    ]
    return made


def plot(results: xr.Dataset) -> Any:
    from toymodels import plotting  # not at the top, where it would count as ours in memory

    figure, ((wall, processor, compiled), (cells, features, steps)) = plotting.figure(
        2, 3, size=(13, 7)
    )
    for axes, variable, label in (
        (wall, "rate", "model-steps per second"),
        (processor, "rate_cpu", "model-steps per second of processor time"),
    ):
        plotting.grouped_bars(axes, results[variable], groups="size", bars="contender")
        axes.set(yscale="log", xlabel="features, hidden dimensions", ylabel=label)
    places = np.arange(results.sizes["size"])
    limit = results["limit"].median("round")
    wall.hlines(limit, places - 0.45, places + 0.45, color="0.3", linestyle=":", label="limit")
    wall.legend(loc="upper right")
    times = results[["compile_cold", "compile_cached"]].sel(contender="ours").to_array("compiled")
    times = times.assign_coords(compiled=["without cache", "with cache"])
    plotting.grouped_bars(compiled, times, groups="size", bars="compiled")
    compiled.set(xlabel="features, hidden dimensions", ylabel="seconds to trace and compile, ours")
    compiled.legend()
    cells.loglog(results["cells"], results["rate_by_cells"], "o-")
    cells.set(xlabel="cells of (5, 2)", ylabel="model-steps per second, ours")
    features.loglog(results["features"], results["rate_by_features"], "o-", label="ours")
    features.loglog(
        results["features"], results["limit_by_features"], ":", color="0.3", label="limit"
    )
    features.set(xlabel="features", ylabel="model-steps per second, ours")
    features.legend()
    steps.loglog(results["steps"], results["rate_by_steps"], "o-")
    steps.set(xlabel="steps of 128 cells of (5, 2)", ylabel="model-steps per second, ours")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
