"""My idea.

Claim: what the figure should show, in one sentence.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on; `toymodels run` makes every field a flag."""

    densities: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    num_seeds: int = 4
    steps: int = 2000


SMOKE = Config(densities=(1.0, 0.1), num_seeds=2, steps=20)


def run(config: Config, store: Path | None = None) -> xr.Dataset:
    """Train. What is returned is saved; `store` keeps finished cells of a run that is stopped."""

    def cell(key: Any, *, density: Any) -> dict[str, Any]:
        task = tm.Task(tm.SparseUniform(5, density))
        adam = optax.adam(optax.cosine_decay_schedule(1e-2, config.steps))
        model = tm.ReLUOutput(hidden=2)
        trained = tm.train(key, model, task, optimizer=adam, steps=config.steps, batch=1024)
        return {"loss": trained.loss, "weights": trained.params["weights"]}

    return tm.sweep(
        cell,
        axes={"density": config.densities},
        num_seeds=config.num_seeds,
        dims={"weights": ("hidden", "feature")},
        store=store,
    )


def claims(results: xr.Dataset) -> list[tm.Claim]:
    """Hold the saved results against what they should be."""
    sparse = tm.best_of(results, "loss").sel(density=results.density.min())
    represented = np.linalg.norm(sparse.weights.transpose("hidden", "feature"), axis=0) > 0.5
    return [
        tm.Claim(
            "the sparsest features: all five are represented in two dimensions",
            "Elhage et al. (2022), introductory figure",
            expected=5,
            measured=represented.sum(),
            kind=tm.Kind.PAPER,
        )
    ]


def plot(results: xr.Dataset) -> Any:
    """Draw the saved results."""
    figure, axes = plotting.figure()
    axes.loglog(results.density, results.loss.transpose("density", "seed"), "o")
    axes.set(xlabel="density", ylabel="loss, summed over outputs")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
