"""My idea.

Claim: what the figure should show, in one sentence.
Selection: which of the seeds the figure shows, and why.
"""

import dataclasses
from pathlib import Path

import xarray as xr

import toymodels as tm
from toymodels import experiment

INTRODUCTION = tm.paper("Elhage et al. (2022), introductory figure")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that the figure depends on; `toymodels run` makes each field a flag."""

    densities: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    num_seeds: int = 4
    training: tm.Recipe = tm.Recipe(steps=2000, batch=1024, learning_rate=1e-2)


SMOKE = Config(
    densities=(1.0, 0.1),
    num_seeds=2,
    training=tm.Recipe(steps=20, batch=16, learning_rate=1e-2),
)


def run(config: Config, store: Path | None = None) -> xr.Dataset:
    """Train the models, and return the results, which are saved before anything else is done.

    `store` names a file that keeps finished cells, so that a run that was stopped can go on.
    """

    def cell(key, *, density):
        task = tm.Task(tm.SparseUniform(5, density))
        trained = config.training.train(key, tm.ReLUOutput(hidden=2), task)
        return {"loss": trained.loss, "weights": trained.params["weights"]}

    return tm.sweep(
        cell,
        axes={"density": config.densities},
        num_seeds=config.num_seeds,
        dims={"weights": ("hidden", "feature")},
        store=store,
    )


def claims(results: xr.Dataset) -> tm.Claims:
    """Hold the saved results against what the paper says."""
    sparsest = tm.best_of(results, "loss").sel(density=results.density.min())
    return [
        tm.near(
            "The best model represents all five features at the lowest density.",
            5,
            tm.apply(tm.analysis.geometry.num_represented, sparsest.weights),
            INTRODUCTION,
            within=0,
        ),
    ]


def plot(results: xr.Dataset) -> tm.plotting.Figure:
    """Draw the saved results."""
    figure, axes = tm.plotting.figure()
    axes.loglog(results.density, results.loss.transpose("density", "seed"), "o")
    axes.set(xlabel="density", ylabel="loss, summed over outputs", title="a dot is a seed")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
