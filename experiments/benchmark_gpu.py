"""Speed and correctness on the accelerator of this machine, in at most five minutes.

A model-step is one optimizer step of one model on a fresh batch of 1024 examples. One hundred
models of each seed share their random words. Every block is run once before it is timed.

Checks     The gradient of each path against a closed form in NumPy with 64 bits; the bits of cells
           alone, in a larger grid and after a resume; decompositions against LAPACK.
Paths      ours      what the engine chooses
           ordinary  the loss as products of matrices, whatever the size
           kernel    one kernel for the gradient of all models, where that is possible
           precise   ours, with products of matrices in full precision and not in TF32 (gradients)
Bounds     issue     5 n m + 14 n instructions for each example, one for each product with its sum,
                     at the highest clock of the card, without tensor cores
           memory    what the kernels of a step read and write, at the bandwidth of the card
           launch    2 microseconds for each kernel of a step
Selection  None: rates are medians of the rounds, and every round is a dot. Runs for which no time
           was left are missing. The last panel has as many seeds as its time allows.
Command    make benchmark-gpu
"""

import contextlib
import dataclasses
import math
import sys
import tempfile
import time
import timeit
import traceback
from collections.abc import Callable, Generator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.engine import fuse, loop
from toymodels.engine.cards import hlo
from toymodels.engine.cards.card import LAUNCH_SECONDS, Card, speed
from toymodels.engine.devices import UPDATES_A_TURN
from toymodels.engine.kernel import in_kernels
from toymodels.sweeps.program import compile_program

PATHS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "ours": contextlib.nullcontext,
    "ordinary": lambda: mock.patch.object(loop, "MAX_SUMS", -1),
    "kernel": lambda: in_kernels(True),
    "precise": lambda: jax.default_matmul_precision("highest"),
}
MANY = (1024, 8192, 65_536)
"""The numbers of models of a block of small models."""
FLOAT64 = tm.prediction("The closed form of the gradient in NumPy, with 64 bits")
PROMISE = tm.identity("The promise of a sweep: a cell has the bits of its seed and numbers alone")
LAPACK = tm.prediction("Singular values of NumPy, with 64 bits")
GOAL = tm.finding("Design goal, written before any run on a card")
ROUNDED = "Ours, because numbers of 32 bits are rounded about a thousand times."
TF32 = "Matrix products of a card may keep 10 bits (TF32) unless they are asked for more."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    sizes: tuple[tuple[int, int], ...] = ((5, 2), (2, 1), (20, 5), (100, 20), (400, 30))
    """Features and hidden dimensions of each size."""
    widths: tuple[tuple[int, ...], ...] = (MANY, MANY, (1024, 8192), (256, 2048), (64, 512))
    """The numbers of models of a block, for each size."""
    steps: int = 300
    batch: int = 1024
    rounds: int = 3
    cells_per_seed: int = 100
    seconds: float = 150.0
    """No block is compiled for its speed after this time."""
    models: int = 1_000_000
    """The number of models of the last panel, or fewer if they need more than their time."""
    models_steps: int = 1000
    models_seconds: float = 60.0
    checked_width: int = 64
    checked_steps: int = 50


SMOKE = Config(
    sizes=((2, 1),),
    widths=((2,),),
    steps=3,
    batch=128,
    cells_per_seed=2,
    models=20,
    models_steps=3,
    checked_width=2,
    checked_steps=2,
)


def run(config: Config) -> xr.Dataset:
    started = time.perf_counter()
    checks = xr.Dataset({"changed": ("sweep", [np.nan] * 2), "singular_value_error": np.nan})
    with surviving():
        checks = changed_bits(config)
    results = xr.merge([gradient_errors(config), checks, speeds(config)])
    results = results.merge(many(config, fastest(results, results["run_size"].values[0])))
    results["seconds"] = time.perf_counter() - started
    results = results.assign_coords(sweep=["alone", "after a resume"])
    return results.assign_attrs(card=jax.devices()[0].device_kind)


def train(key, density, size: tuple[int, int], steps: int, batch: int) -> dict[str, jax.Array]:
    """Return the final loss and the weights of one model."""
    n, m = size
    task = tm.Task(tm.SparseUniform(n, density), importance=tm.geometric_importance(n, 0.9))
    how = {"steps": steps, "batch": batch, "evaluation": batch, "optimizer": optax.adam(1e-2)}
    trained = tm.train(key, tm.ReLUOutput(m), task, **how)
    return {"loss": trained.loss, "weights": trained.params["weights"]}


def squared_error(importance):
    """Return the loss of the tied model with ReLU, of parameters and ONE example."""

    def loss(params, x):
        output = jax.nn.relu(params["weights"].T @ (params["weights"] @ x) + params["bias"])
        return jnp.sum(importance * (x - output) ** 2)

    return loss


def gradient_errors(config: Config) -> xr.Dataset:
    """Return the largest error of each path's gradient, relative to its largest element."""
    rng, errors = np.random.default_rng(0), np.full((len(config.sizes), len(PATHS)), np.nan)
    for row, (n, m) in enumerate(config.sizes):
        importance = 0.9 ** np.arange(n)
        x = np.maximum(0, 1 - rng.random((config.batch, n)) / 0.3).astype(np.float32)
        weights = (rng.normal(size=(m, n)) / n**0.5).astype(np.float32)
        bias = (0.1 * rng.normal(size=n)).astype(np.float32)
        exact = exact_gradient(weights.astype(float), bias.astype(float), x, importance)
        for column, path in enumerate(PATHS.values()):
            params = {"weights": np.stack([weights] * 2), "bias": np.stack([bias] * 2)}
            with surviving(), path():  # two models at once, as the paths of a sweep are
                gradient = tm.jit(jax.vmap(fuse.grad(squared_error(jnp.float32(importance)))))
                found = gradient(params, np.stack([x] * 2))
                both = [(found[name][1] - exact[name], exact[name]) for name in exact]
                errors[row, column] = max(abs(off).max() / abs(of).max() for off, of in both)
    coords = {"size": [f"{n},{m}" for n, m in config.sizes], "path": list(PATHS)}
    return xr.Dataset({"gradient_error": (("size", "path"), errors)}, coords)


@contextlib.contextmanager
def surviving() -> Generator[None]:
    """Print an error and go on, so that a path that fails does not cost the time of the card."""
    try:
        yield
    except Exception:
        traceback.print_exc()


def exact_gradient(weights, bias, x, importance) -> dict[str, np.ndarray]:
    """Return the gradient of the mean loss, in NumPy."""
    hidden = x @ weights.T
    preactivation = hidden @ weights + bias
    error = 2 * importance * (np.maximum(preactivation, 0) - x) * (preactivation > 0) / len(x)
    return {"weights": hidden.T @ error + (error @ weights.T).T @ x, "bias": error.sum(0)}


def changed_bits(config: Config) -> xr.Dataset:
    """Return how many cells change a bit between sweeps, and the error of decompositions."""

    def cell(key, *, density):
        outputs = train(key, density, (5, 2), config.checked_steps, config.batch)
        return {**outputs, "values": jnp.linalg.svd(outputs["weights"], compute_uv=False)}

    def sweep(densities, seeds, store=None) -> xr.Dataset:
        how = {"width": config.checked_width, "store": store, "progress": False}
        return tm.sweep(cell, axes={"density": densities}, seeds=seeds, **how)

    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/cells.db"
        parts = sweep([0.3], [1], store), sweep([0.1, 0.3, 1.0], range(3), store)
    cells = sweep([0.1, 0.2, 0.3, 0.7, 1.0], range(5))
    weights = cells["weights"].transpose(..., "weights_0", "weights_1").values.astype(float)
    exact = np.linalg.svd(weights, compute_uv=False)
    error = abs(cells["values"].transpose(..., "values_0").values - exact).max() / exact.max()
    changed = [changed_cells(part, cells) for part in parts]
    return xr.Dataset({"changed": ("sweep", changed), "singular_value_error": error})


def changed_cells(cells: xr.Dataset, other: xr.Dataset) -> int:
    """Return how many of the cells that both sweeps have differ in any bit."""
    first, second = xr.align(cells, other)
    cell = {"density", "seed"}
    same = [each.all([*set(each.dims) - cell]) for each in (first == second).values()]
    return int((~np.logical_and.reduce(same)).sum())


def speeds(config: Config) -> xr.Dataset:
    """Return the rate of each size, path and width, as long as there is time."""
    started = time.perf_counter()
    rows: list[xr.Dataset] = []
    for (n, m), widths in zip(config.sizes, config.widths, strict=True):
        fusable = 1 + n * m + n <= loop.MAX_SUMS
        for path in ("ours", "kernel", "ordinary") if fusable else ("ours",):
            for width in widths if path != "ordinary" else widths[1:2]:
                if time.perf_counter() - started < config.seconds:
                    with surviving():
                        rows.append(timed(config, n, m, width, path))
                        print((n, m), width, path, rows[-1]["rate"].values, file=sys.stderr)
    return xr.concat(rows, "run")


def timed(config: Config, n: int, m: int, width: int, path: str) -> xr.Dataset:
    """Return model-steps per second of a block in each round, and its bounds."""

    def cell(key, *, density):
        return train(key, density, (n, m), config.steps, config.batch)

    seeds, place = np.divmod(np.arange(width), config.cells_per_seed)
    numbers = {"density": np.geomspace(1, 0.05, config.cells_per_seed)[place]}
    started = time.perf_counter()
    with PATHS[path]():
        program = compile_program(cell, numbers, width=width)
    compiling = time.perf_counter() - started
    program.run_block(seeds, numbers)
    repeat = {"number": 1, "repeat": config.rounds}
    times = np.array(timeit.repeat(lambda: program.run_block(seeds, numbers), **repeat))
    limits = dict.fromkeys(("kernels", "lowest_bound", "issue", "memory", "launch"), np.nan)
    with surviving():
        limits = bounds(config, n, m, width, program.executables.on(0).as_text())
    about = {"size": f"{n},{m}", "width": width, "path": path, "compiling": compiling, **limits}
    data = {f"run_{name}": value for name, value in about.items()}
    return xr.Dataset({"rate": ("round", width * config.steps / times), **data})


def bounds(config: Config, n: int, m: int, width: int, text: str) -> dict[str, float]:
    """Return the kernels of a step, and what limits model-steps per second; NaN if unknown."""
    kind = jax.devices()[0].device_kind
    card = next((speed(card) for card in Card if card.name in kind), None)
    program = hlo.read(text)
    step = max(program.loops or [program], key=lambda loop: len(loop.kernels))
    updates = 1 if card is None else UPDATES_A_TURN
    kernels = len(step.kernels) / updates
    traffic = sum(kernel.traffic for kernel in step.kernels) / updates
    limits = dict.fromkeys(("issue", "memory", "launch"), np.nan)
    if card is not None:
        limits["issue"] = 32 * card.issues / (config.batch * (5 * n * m + 14 * n))
        limits["memory"] = card.bandwidth * width / traffic
        limits["launch"] = width / (kernels * LAUNCH_SECONDS)
    return {"kernels": kernels, "lowest_bound": min(limits.values()), **limits}


def fastest(results: xr.Dataset, size: str) -> xr.Dataset:
    """Return the fastest run of one size, whatever its path and its width."""
    runs = results.isel(run=np.flatnonzero(results["run_size"] == size))
    return runs.isel(run=int(runs["rate"].median("round").argmax("run")))


def many(config: Config, best: xr.Dataset) -> xr.Dataset:
    """Return the share of models that represent 0, 1, ... features at each density."""
    rate, width, path = (best[name] for name in ("rate", "run_width", "run_path"))
    densities = np.geomspace(1, 0.05, 10)
    models = min(config.models, float(rate.median()) * config.models_seconds / config.models_steps)

    def cell(key, *, density):
        weights = train(key, density, (5, 2), config.models_steps, config.batch)["weights"]
        return {"represented": geometry.num_represented(weights)}

    started = time.perf_counter()
    how = {"num_seeds": math.ceil(models / len(densities)), "width": int(width), "progress": False}
    with PATHS[str(path.values)]():
        found = tm.sweep(cell, axes={"density": densities}, **how)["represented"]
    seconds = time.perf_counter() - started
    shares = xr.concat([(found == count).mean("seed") for count in range(6)], "represented")
    data = {"share": shares, "models": found.size, "models_seconds": seconds}
    return xr.Dataset(data, {"represented": np.arange(6)})


def claims(results: xr.Dataset) -> tm.Claims:
    for path in results["path"].values:
        says = f"The gradient of the path '{path}' is that of the closed form at every size, by "
        says += "the largest error relative to the largest element."
        error = results["gradient_error"].sel(path=path).max(skipna=False)
        yield tm.near(says, 0, error, FLOAT64, within=1e-5, threshold=ROUNDED, note=TF32)
    for name, count in zip(results["sweep"].values, results["changed"].values, strict=True):
        says = f"A cell has the bits {name} that it has in a larger grid, so the number of cells "
        says += "that differ is 0."
        yield tm.near(says, 0, count, PROMISE, within=0)
    says = "Singular values of trained weights are those of NumPy, measured by the largest error "
    says += "relative to the largest value."
    yield tm.near(says, 0, results["singular_value_error"], LAPACK, within=1e-5, threshold=ROUNDED)
    if results["run_issue"].isnull().all():
        return  # no card, or one whose data sheet is not above
    says = "Models of 5 features in 2 dimensions make at least 20 million steps per second."
    yield tm.at_least(says, 20e6, fastest(results, "5,2")["rate"].median(), GOAL)
    kernels = results["rate"].median("round")[(results["run_path"] == "kernel").values]
    says = "The fastest kernels make at least 50 million model-steps per second."
    yield tm.at_least(says, 50e6, kernels.max() if kernels.size else np.nan, GOAL)
    says = "The million models of the last panel take at most a minute of training and compiling."
    yield tm.at_most(says, 60, results["models_seconds"], GOAL)
    says = "All checks and measurements take at most 300 seconds."
    yield tm.at_most(says, 300, results["seconds"], GOAL)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (above, below) = plotting.figure(2, 2, size=(9, 6.5))
    first, *_ = results["run_size"].values
    draw_widths(above[0], results.isel(run=np.flatnonzero(results["run_size"] == first)))
    draw_sizes(above[1], results)
    shown = results["gradient_error"].transpose("size", "path")
    for path, values in zip(results["path"].values, shown.values.T, strict=True):
        below[0].semilogy(results["size"], np.maximum(values, 1e-9), "o-", label=path)
    below[0].axhline(1e-5, color="0.6", linestyle=":")
    below[0].set(xlabel="features, hidden", title="error of the gradient (dotted: tolerance)")
    below[0].legend()
    for count, share in zip(results["represented"].values, results["share"], strict=True):
        below[1].semilogx(share["density"], share, "o-", markersize=4, label=f"{count}")
    title = f"{int(results['models']):,} models, in {float(results['models_seconds']):.0f} s"
    below[1].set(xlabel="density", ylabel="share of models", title=title)
    below[1].legend(title="features\nrepresented")
    figure.suptitle(f"Model-steps per second on one {results.attrs['card']}, and what limits them")
    return figure


def draw_widths(axes, runs: xr.Dataset) -> None:
    """Draw the rate of one size over the width of a block, and the lowest bound of each path."""
    for number, path in enumerate(dict.fromkeys(runs["run_path"].values)):
        own = runs.isel(run=np.flatnonzero(runs["run_path"] == path))
        rate, style = own["rate"].transpose("run", "round"), {"color": f"C{number}"}
        axes.plot(own["run_width"], rate, ".", **style)
        axes.plot(own["run_width"], rate.median("round"), "o-", label=path, **style)
        axes.plot(own["run_width"], own["run_lowest_bound"], ":_", **style)
    size = str(runs["run_size"].values[0]).replace(",", " features, ")
    axes.set(xscale="log", yscale="log", xlabel="models in a block")
    axes.set(ylabel="model-steps per second", title=f"{size} hidden (dotted: lowest bound)")
    axes.legend()


def draw_sizes(axes, results: xr.Dataset) -> None:
    """Draw the best rate of each size beside the lowest of its bounds."""
    for place, size in enumerate(results["size"].values):
        best = fastest(results, size)
        measured, bound = ("_", "_") if place else ("measured", "lowest bound")
        axes.plot([place] * best["rate"].size, best["rate"], "C0.")
        axes.plot(place, best["rate"].median(), "C0o", label=measured)
        axes.plot(place, best["run_lowest_bound"], "_", color="0.4", ms=20, label=bound)
    axes.set_xticks(range(results.sizes["size"]), labels=results["size"].values)
    axes.set(yscale="log", xlabel="features, hidden", title="the fastest width of each size")
    axes.legend()


if __name__ == "__main__":
    experiment.main(__file__)
