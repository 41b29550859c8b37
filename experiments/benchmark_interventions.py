"""How fast are interventions? The effect of every feature direction in every model of a sweep.

Each of 32 x 32 cells with 8 seeds is a model of 5 features in 2 dimensions. The direction of each
feature is removed in turn, and the damage is measured on 1024 examples: 6 runs of the model on each
example. Compilation is reported apart.

Contenders ours    `interventions.lesions` in one program over all cells
           torch   a loop over models and directions with forward hooks, as libraries for language
                   models do it, with 1 and with 2 threads (the better counts); left out where
                   PyTorch is not installed
Claim      All directions of all 8192 models take less than ten seconds on two cores.
Selection  None: numbers are medians of the rounds, and every round is a dot.
Command    toymodels run experiments/benchmark_interventions.py
"""

import dataclasses
import importlib.util
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels import interventions as iv
from toymodels.engine import programs
from toymodels.sweeps import blocks
from toymodels.sweeps.program import compile_program, default_width

IDLE = tm.finding("Design goal, on two otherwise idle cores")
ALIKE = tm.identity("Both remove the same direction of the same models on the same examples")
GOAL = "Ours, because it is a design goal."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    side: int = 32
    """The number of densities, and of importance ratios."""
    num_seeds: int = 8
    num_features: int = 5
    hidden: int = 2
    examples: int = 1024
    torch_models: int = 400
    """The number of models of the loop; the time of all is in proportion."""
    rounds: int = 3


SMOKE = Config(side=2, num_seeds=1, examples=32, torch_models=2, rounds=1)


def start(config: Config, key, density, ratio) -> tuple[dict, tm.Task, jax.Array]:
    """Return a model without training, its task and its examples."""
    importance = tm.geometric_importance(config.num_features, ratio)
    task = tm.Task(tm.SparseUniform(config.num_features, density), importance=importance)
    key_model, key_examples = jax.random.split(key)
    weights = jax.random.normal(key_model, (config.hidden, config.num_features))
    params = {"weights": weights, "bias": jnp.zeros(config.num_features)}
    return params, task, task.features.sample(key_examples, config.examples)


def cells(config: Config) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the seed and the numbers of each cell; cells of one seed are neighbours."""
    grid = np.meshgrid(np.geomspace(1, 0.03, config.side), np.linspace(0.5, 1, config.side))
    numbers = {
        name: np.tile(each.ravel(), config.num_seeds)
        for name, each in zip(("density", "ratio"), grid, strict=True)
    }
    return np.repeat(np.arange(config.num_seeds), config.side**2), numbers


def ours(config: Config) -> Callable[[], np.ndarray]:
    """Return the measurement of all cells, compiled."""

    def cell(key, *, density, ratio):
        params, task, batch = start(config, key, density, ratio)
        parts = iv.directions("hidden", params["weights"])
        model = tm.ReLUOutput(config.hidden)
        return {"damage": iv.lesions(model, params, batch, parts, iv.zero, task.loss)}

    seeds, numbers = cells(config)
    traced = jax.make_jaxpr(lambda key: cell(key, density=1.0, ratio=1.0))(jax.random.key(0))
    width = default_width(programs.largest_array(traced.jaxpr))
    program = compile_program(cell, numbers, width=width)

    def work() -> np.ndarray:
        found = np.zeros((len(seeds), config.num_features))

        def deliver(place, outputs):
            found[place] = outputs["damage"]

        blocks.run(program, seeds, numbers, deliver)
        return found

    return work


def hooks(models: list, threads: int) -> Callable[[], np.ndarray]:
    """Return the loop in PyTorch over models and directions, with a hook for each lesion."""
    import torch  # pyright: ignore[reportMissingImports]  an extra

    torch.set_num_threads(threads)

    class ToyModel(torch.nn.Module):  # pyright: ignore[reportUntypedBaseClass]
        def __init__(self, weights, bias):
            super().__init__()
            self.weights, self.bias = torch.nn.Parameter(weights), torch.nn.Parameter(bias)
            self.hidden = torch.nn.Identity()

        def forward(self, x):
            return torch.relu(self.hidden(x @ self.weights.T) @ self.weights + self.bias)

    def removed(direction):
        return lambda _module, _args, value: value - (value @ direction)[:, None] * direction

    given = [tuple(torch.tensor(np.asarray(each)) for each in model) for model in models]

    def loss(model, x, importance):
        return (importance * (x - model(x)) ** 2).sum(1).mean()

    @torch.no_grad()  # pyright: ignore[reportUntypedFunctionDecorator]
    def work() -> np.ndarray:
        damages = []
        for weights, bias, importance, x in given:
            model = ToyModel(weights, bias)
            before = loss(model, x, importance)
            for column in weights.T:
                handle = model.hidden.register_forward_hook(removed(column / column.norm()))
                try:
                    damages.append(loss(model, x, importance) - before)
                finally:
                    handle.remove()
        return torch.stack(damages).numpy().reshape(len(given), -1)

    return work


def run(config: Config) -> xr.Dataset:
    started = time.perf_counter()
    contenders = {"ours": ours(config)}
    compiling = time.perf_counter() - started
    if importlib.util.find_spec("torch") is not None:
        models = some_models(config)
        for threads in (1, 2):
            name = f"torch, {threads} thread{'s' * (threads > 1)}"
            contenders[name] = hooks(models, threads)
    seconds = np.zeros((len(contenders), config.rounds))
    found = {}
    for turn in range(config.rounds):
        for row, (name, work) in enumerate(contenders.items()):
            started = time.perf_counter()
            found[name] = work()
            seconds[row, turn] = time.perf_counter() - started
    count = [len(found[name]) for name in contenders]
    total = len(found["ours"])
    others = [np.abs(found[name] - found["ours"][: len(found[name])]).max() for name in contenders]
    return xr.Dataset(
        {
            "seconds": (("contender", "round"), seconds / np.array(count)[:, None] * total),
            "difference": ("contender", others),
            "compiling": compiling,
        },
        {"contender": list(contenders)},
        {"models": total, "cores": os.cpu_count()},
    )


def some_models(config: Config) -> list[tuple]:
    """Return weights, bias, importance and examples of the first cells."""
    seeds, numbers = cells(config)
    first = slice(config.torch_models)
    of_seed = jax.vmap(lambda seed: jax.random.key(seed, impl="threefry2x32"))

    def of_cell(key, density, ratio):
        params, task, batch = start(config, key, density, ratio)
        return params["weights"], params["bias"], task.importance, batch

    arrays = [jnp.asarray(numbers[name][first], jnp.float32) for name in ("density", "ratio")]
    found = jax.device_get(jax.jit(jax.vmap(of_cell))(of_seed(seeds[first]), *arrays))
    return list(zip(*found, strict=True))


def claims(results: xr.Dataset) -> tm.Claims:
    seconds, count = results["seconds"].median("round"), results.attrs["models"]
    ours = seconds.sel(contender="ours")
    says = f"The time to measure the damage of all feature directions of {count} models, in "
    says += "seconds, is at most the design goal."
    yield tm.at_most(says, 10, ours, IDLE, threshold=GOAL)
    others = [name for name in results["contender"].values if name != "ours"]
    if others:  # PyTorch is an extra
        says = f"A loop of hooks in PyTorch over {count} models takes several times as long as one "
        says += "compiled program, measured by the ratio of the times."
        ratio = seconds.sel(contender=others).min() / ours
        yield tm.at_least(says, 5, ratio, IDLE, threshold=GOAL)
        says = "The loop of hooks in PyTorch finds the damages that the compiled program finds, "
        says += "measured by the largest difference."
        worst = results["difference"].max()
        yield tm.near(
            says, 0, worst, ALIKE, within=1e-4, threshold="Ours, because numbers are rounded."
        )


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(size=(6.0, 2.6))
    names = {"ours": "toymodels, all models in one program"}
    labels = [
        names.get(name, f"PyTorch with hooks, {name.split(', ')[-1]}")
        for name in results["contender"].values
    ]
    seconds = results["seconds"].assign_coords(contender=labels)
    plotting.horizontal_bars(axes, seconds, bars="contender", numbers=".2g", unit="s")
    title = f"Removing each of 5 directions of {results.attrs['models']} models\n"
    title += f"(median of {results.sizes['round']} rounds, {results.attrs['cores']} cores)"
    axes.set(xlabel="seconds", title=title)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
