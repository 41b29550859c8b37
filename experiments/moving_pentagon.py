"""Five features in two dimensions while a model learns them: a moving picture.

Claim      Dense features: the two most important grow apart to a right angle. Sparser: four
           grow into two antipodal pairs. Sparser still: all five grow into a pentagon.
Reproduces Elhage et al. (2022), the introductory figure, here with the way to its end.
Selection  Of 8 seeds the one of the lowest loss on 65,536 fresh examples, the same for all seeds.
Command    toymodels run experiments/moving_pentagon.py
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry

PAPER = tm.paper("Elhage et al. (2022), introductory figure")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 5
    hidden: int = 2
    importance_ratio: float = 0.9
    densities: tuple[float, ...] = (1.0, 0.19, 0.097)
    num_seeds: int = 8
    training: tm.Recipe = tm.Recipe(steps=8000, batch=1024, learning_rate=3e-3)
    pictures: int = 60


SMOKE = Config(
    densities=(1.0, 0.1),
    num_seeds=2,
    pictures=4,
    training=tm.Recipe(steps=30, batch=64, learning_rate=1e-2),
)


def run(config: Config) -> xr.Dataset:
    model = tm.ReLUOutput(config.hidden)
    importance = tm.geometric_importance(config.num_features, config.importance_ratio)
    steps = tm.log_spaced(config.training.steps, config.pictures)

    def cell(key, *, density) -> dict[str, Any]:
        task = tm.Task(tm.SparseUniform(config.num_features, density), importance=importance)
        trained = config.training.train(
            key, model, task, snapshots=steps, key_evaluation=jax.random.key(2022)
        )
        weights = trained.snapshots["weights"]
        dimensionality = geometry.feature_dimensionality(weights[-1])
        return {"loss": trained.loss, "weights": weights, "dimensionality": dimensionality}

    return tm.sweep(
        cell,
        axes={"density": config.densities},
        num_seeds=config.num_seeds,
        dims={"weights": ("step", "hidden", "feature"), "dimensionality": ("feature",)},
        units={"loss": "summed over outputs"},
    ).assign_coords(step=list(steps), importance=("feature", np.asarray(importance)))


def claims(results: xr.Dataset) -> tm.Claims:
    best = tm.best_of(results, "loss")
    eye = "Ours, because the eye takes it for exact in the figure."
    shapes = {
        1.0: ("two orthogonal features", 2, 1.0),
        0.19: ("two antipodal pairs", 4, 1 / 2),
        0.097: ("a pentagon", 5, 2 / 5),
    }
    for density, (name, count, share) in shapes.items():
        model = best.sel(density=density, method="nearest")
        says = f"The best model at density {density:g} ends with {name}, so {count} features have "
        says += "norms above 1/2."
        norm = np.sqrt((model["weights"].isel(step=-1) ** 2).sum("hidden"))
        yield tm.near(says, count, int((norm > 0.5).sum()), PAPER, within=0)
        says = f"The features of {name} have the dimensionality {share:g} in the last picture."
        off = abs(model["dimensionality"][:count] - share).max()
        yield tm.near(says, 0, float(off), PAPER, within=0.02, threshold=eye)


def plot(results: xr.Dataset) -> plotting.Figure:
    best = tm.best_of(results, "loss")
    colors = plotting.importance_colors(results.importance)

    def draw(panels, step) -> None:
        for axes, density in zip(panels, best.density.values, strict=True):
            weights = best["weights"].sel(density=density, step=step)
            plotting.spokes(axes, weights, color=colors, limit=1.4)
            axes.set_title(f"density {density:g}")
        panels[0].set_xlabel(f"step {step}")

    return plotting.animate(draw, best.step.values, 1, best.sizes["density"], size=(7, 2.9))


if __name__ == "__main__":
    experiment.main(__file__)
