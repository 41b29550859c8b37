"""How fast are thousands of tiny models trained? Model-steps per second against the alternatives.

A model-step is one optimizer step of one model on a fresh batch. Each contender runs in a
process of its own, the contenders in turn, several times round; compilation is reported apart.

Contenders ours    `toymodels.sweep`
           vmap    the obvious JAX: jit(vmap(scan)), jax.random.uniform, optax.adam
           torch   the protocol of the paper's notebook in PyTorch, with 1 and with 2 threads
                   (the better counts); left out where PyTorch is not installed
Claim      Ours is at least 60 times as fast as PyTorch at (5, 2) and (2, 1), 10 times at (20, 5)
           and 4 times at (100, 20) and (400, 30); memory does not grow with the number of cells.
Command    toymodels run experiments/benchmark_training.py
"""

import dataclasses
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from toymodels import experiment
from toymodels.claims import Bound, Claim

CONTENDERS = ("ours", "vmap", "torch, 1 thread", "torch, 2 threads")
GOALS = {"5,2": 60, "2,1": 60, "20,5": 10, "100,20": 4, "400,30": 4}
SOURCE = "design goal, on two otherwise idle cores"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What is measured. Steps are chosen so that each run takes seconds."""

    sizes: tuple[tuple[int, int, int], ...] = (
        (5, 2, 1024),
        (2, 1, 2500),
        (20, 5, 256),
        (100, 20, 20),
        (400, 30, 8),
    )
    """Features, hidden dimensions, cells."""
    steps: tuple[int, ...] = (2000, 2000, 600, 600, 250)
    slow_steps: tuple[int, ...] = (30, 30, 30, 60, 40)
    """Of the contenders that are not ours."""
    batch: int = 1024
    rounds: int = 2
    many_cells: int = 50_000
    """Of (5, 2), for the memory."""


SMOKE = Config(sizes=((2, 1, 4),), steps=(20,), slow_steps=(5,), batch=16, rounds=1, many_cells=16)


def run(config: Config) -> xr.Dataset:
    contenders = [
        name
        for name in CONTENDERS
        if not name.startswith("torch") or importlib.util.find_spec("torch") is not None
    ]
    shape = (len(config.sizes), len(CONTENDERS), config.rounds)
    measured = {
        name: np.full(shape, np.nan) for name in ("rate", "rate_cpu", "compile_seconds", "memory")
    }
    for turn in range(config.rounds):
        for row, (features, hidden, cells) in enumerate(config.sizes):
            for name in contenders:
                steps = config.steps if name == "ours" else config.slow_steps
                result = in_own_process(name, features, hidden, cells, steps[row], config.batch)
                for variable, value in result.items():
                    measured[variable][row, CONTENDERS.index(name), turn] = value
                print(
                    f"round {turn + 1} of {config.rounds}: ({features}, {hidden}) x {cells}, "
                    f"{name}: {result['rate']:,.0f} model-steps/s",
                    file=sys.stderr,
                )
    many = in_own_process("ours", 5, 2, config.many_cells, 10, config.batch)["memory"]
    dims = ("size", "contender", "round")
    return xr.Dataset(
        {name: (dims, values) for name, values in measured.items()} | {"memory_many": many},
        coords={"size": [f"{n},{m}" for n, m, _ in config.sizes], "contender": list(CONTENDERS)},
        attrs={"cells": [cells for _, _, cells in config.sizes], "many_cells": config.many_cells},
    )


def in_own_process(*arguments: Any) -> dict[str, float]:
    code = "import json, sys, benchmark_training as b; print(b.measure(*json.loads(sys.argv[1])))"
    finished = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        cwd=Path(__file__).parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(finished.stdout.splitlines()[-1])


def measure(contender: str, features: int, hidden: int, cells: int, steps: int, batch: int) -> str:
    """Model-steps per second of wall and of processor time, compilation apart, peak memory."""
    name, *threads = contender.split(", ")
    make = {"ours": ours, "vmap": plain_vmap, "torch": torch_notebook}[name]
    started = time.perf_counter()
    work = make(features, hidden, cells, steps, batch, *(int(t[0]) for t in threads))
    compiled = time.perf_counter() - started
    wall, processor = time.perf_counter(), time.process_time()
    work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    # Linux counts kilobytes, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return json.dumps(
        {
            "rate": cells * steps / wall,
            "rate_cpu": cells * steps / processor,
            "compile_seconds": compiled,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
        }
    )


def ours(n: int, m: int, cells: int, steps: int, batch: int) -> Callable[[], Any]:
    import jax
    import optax

    import toymodels as tm
    from toymodels import blocks

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
    width = blocks.default_width(blocks.largest_array(low.jaxpr))
    program = blocks.Program(cell, values, width=width)
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
    cells = dict(zip(results["size"].values, np.atleast_1d(results.attrs["cells"]), strict=True))
    torch = rate.sel(contender=[name for name in CONTENDERS if name.startswith("torch")])
    torch = torch.max("contender")
    made = [
        Claim(
            f"({size}) x {cells[size]}: model-steps per second, times those of PyTorch",
            SOURCE,
            expected=GOALS[size],
            measured=float(rate.sel(size=size, contender="ours") / torch.sel(size=size)),
            bound=Bound.AT_LEAST,
        )
        for size in results["size"].values
        if torch.notnull().all()  # PyTorch is an extra
    ]
    made += [
        Claim(
            f"({size}) x {cells[size]}: model-steps per second, times those of plain vmap",
            SOURCE,
            expected=10,
            measured=float(
                rate.sel(size=size, contender="ours") / rate.sel(size=size, contender="vmap")
            ),
            bound=Bound.AT_LEAST,
        )
        for size in ("5,2", "2,1")
        if size in cells
    ]
    many = float(results["memory_many"])
    if "5,2" in cells:
        few = results["memory"].sel(size="5,2", contender="ours").median("round")
        made.append(
            Claim(
                f"(5,2) x {results.attrs['many_cells']}: peak memory of the process beyond that "
                f"of x {cells['5,2']}, MB",
                "a sweep keeps its results, 11 numbers a cell, and nothing else",
                expected=20,
                measured=many - float(few),
                bound=Bound.AT_MOST,
            )
        )
    made.append(
        Claim(
            f"(5,2) x {results.attrs['many_cells']}: peak memory of the process, MB",
            SOURCE,
            expected=400,
            measured=many,
            bound=Bound.AT_MOST,
            note="Importing JAX, Flax and xarray and starting the backend take 250 MB "
            "of it, and compiling one program the rest.",
        )
    )
    return made


def plot(results: xr.Dataset) -> Any:
    from toymodels import plotting  # not at the top, where it would count as ours in memory

    figure, (wall, processor) = plotting.figure(1, 2, size=(9, 3.6), sharey=True)
    for axes, variable, label in (
        (wall, "rate", "model-steps per second"),
        (processor, "rate_cpu", "model-steps per second of processor time"),
    ):
        plotting.grouped_bars(axes, results[variable], groups="size", bars="contender")
        axes.set(yscale="log", xlabel="features, hidden dimensions", ylabel=label)
    wall.legend(loc="upper right")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
