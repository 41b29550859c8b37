"""The first sweep of docs/start.md, and the picture that its last lines draw.

Claim      A few lines train a phase diagram of two features in one dimension, and the best of ten
           seeds is in the phase of the closed forms in nearly every cell.
Reproduces Elhage et al. (2022), "Superposition as a Phase Change", on a coarse grid.
Selection  Best of 10 seeds by the exact loss of their weights.
Command    toymodels run experiments/first_sweep.py
"""

import dataclasses
from pathlib import Path

import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting

PAPER = tm.paper("Elhage et al. (2022), Superposition as a Phase Change")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    grid: int = 12
    num_seeds: int = 10
    training: tm.Recipe = tm.Recipe(steps=2000, batch=1024, learning_rate=1e-2)


SMOKE = Config(grid=3, num_seeds=2, training=tm.Recipe(steps=50, batch=64, learning_rate=1e-2))


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    def cell(key, *, density, importance):
        importances = tm.geometric_importance(2, importance)
        task = tm.Task(tm.SparseUniform(2, density), importance=importances)
        params = config.training.train(key, tm.ReLUOutput(hidden=1), task, evaluation=0).params
        exact = tm.theory.expected_loss(**params, density=density, importance=importances)
        return {"loss": exact, "weights": params["weights"]}

    return tm.sweep(
        cell,
        axes={
            "density": np.geomspace(0.03, 1, config.grid),
            "importance": np.geomspace(0.1, 10, config.grid),
        },
        num_seeds=config.num_seeds,
        dims={"weights": ("hidden", "feature")},
        store=store,
    )


def phases(results: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the phase of the best seed and that of the closed forms, for every cell."""
    best = tm.best_of(results, "loss")
    trained = tm.apply(tm.analysis.phases.phase, best.weights)
    return trained, tm.apply(tm.theory.phases.phase, best.density, best.importance, model_dims=())


def claims(results: xr.Dataset) -> tm.Claims:
    trained, exact = phases(results)
    seeds = results.sizes["seed"]
    return [
        tm.at_least(
            f"The best of {seeds} seeds has the phase of the lowest closed-form loss in nearly "
            "all cells, measured by their share.",
            0.9,
            (trained == exact).mean(),
            PAPER,
            threshold="Ours, because one cell in ten lies beside a boundary.",
        )
    ]


def plot(results: xr.Dataset) -> plotting.Figure:
    trained, _ = phases(results)
    figure, axes = plotting.figure(size=(4.5, 3.8))
    plotting.phase_diagram(axes, trained)
    axes.set_title(f"Two features in one dimension\n(best of {results.sizes['seed']} seeds)")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
