"""Five features in two dimensions: what a model stores as its world gets sparser.

Claim      Dense features: the two most important, orthogonal, and nothing else. Sparser: four,
           as two antipodal pairs. Sparser still: all five, as a regular pentagon.
Reproduces Elhage et al. (2022), the introductory figure, with the settings of its notebook. Norms
           and biases are compared with the minimum of the exact loss below each model shown.
Selection  Best of 8 seeds by the loss on 65,536 fresh examples, the same for all seeds.
Command    toymodels run experiments/introduction.py
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry

PAPER_SECTION = "Elhage et al. (2022), introductory figure"
SHOWN = (1.0, 0.19, 0.097)
"""Densities of the paper's three panels, of which the notebook has the nearest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 5
    hidden: int = 2
    importance_ratio: float = 0.9
    num_densities: int = 10
    least_density: float = 0.05
    num_seeds: int = 8
    steps: int = 10_000
    batch: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    instances: int = 10
    """Of the notebook, which decide its start: see `toymodels.notebook_initializer`."""


SMOKE = Config(num_densities=2, num_seeds=2, steps=50, batch=64)


def run(config: Config) -> xr.Dataset:
    model = tm.ReLUOutput(config.hidden, initializer=tm.notebook_initializer(config.instances))
    importance = tm.geometric_importance(config.num_features, config.importance_ratio)

    def cell(key: Any, *, density: Any) -> dict[str, Any]:
        task = tm.Task(tm.SparseUniform(config.num_features, density), importance=importance)
        trained = tm.train(
            key,
            model,
            task,
            optimizer=optax.adamw(config.learning_rate, weight_decay=config.weight_decay),
            steps=config.steps,
            batch=config.batch,
            key_evaluation=jax.random.key(2022),
        )
        weights = trained.params["weights"]
        return {
            "loss": trained.loss,
            "weights": weights,
            "bias": trained.params["bias"],
            "dimensionality": geometry.feature_dimensionality(weights),
        }

    results = tm.sweep(
        cell,
        axes={"density": np.geomspace(1.0, config.least_density, config.num_densities)},
        num_seeds=config.num_seeds,
        dims={
            "weights": ("hidden", "feature"),
            "bias": ("feature",),
            "dimensionality": ("feature",),
        },
        units={"loss": "summed over outputs"},
    )
    results = results.assign_coords(importance=("feature", np.asarray(importance)))
    return results.merge(minima(results), join="left")  # an outer join would sort the densities


def minima(results: xr.Dataset) -> xr.Dataset:
    """Norms and biases of the minimum of the exact loss below the best models that are shown."""
    found = {}
    with jax.enable_x64(True):
        exact = jax.jit(tm.theory.expected_loss)
        for place in SHOWN[1:]:
            model = tm.best_of(results, "loss").sel(density=place, method="nearest")
            weights = model["weights"].transpose("hidden", "feature").values
            size, importance = weights.size, model["importance"].values.astype(float)
            density = np.full(importance.shape, float(model.density))

            def lost(values: Any, shape: Any = weights.shape, world: Any = (density, importance)):
                size = np.prod(shape)
                return float(exact(values[:size].reshape(shape), values[size:], *world))

            start = np.append(weights, model["bias"].values).astype(float)
            lowest = optimize.minimize(lost, start, method="BFGS").x
            norms = np.linalg.norm(lowest[:size].reshape(weights.shape), axis=0)
            found[float(model.density)] = norms, lowest[size:]
    norms, biases = (np.stack(each) for each in zip(*found.values(), strict=True))
    return xr.Dataset(
        {
            "exact_norm": (("density", "feature"), norms),
            "exact_bias": (("density", "feature"), biases),
        },
        {"density": list(found)},
    )


def cosines(weights: xr.DataArray) -> np.ndarray:
    """Cosines between the directions of all represented features, those longer than 1/2."""
    columns = weights.transpose("hidden", "feature").values
    norms = np.linalg.norm(columns, axis=0)
    directions = (columns / np.maximum(norms, 1e-9))[:, norms > 0.5]
    return directions.T @ directions


def claims(results: xr.Dataset) -> list[tm.Claim]:
    best = tm.best_of(results, "loss")
    dense, pairs, pentagon = (best.sel(density=density, method="nearest") for density in SHOWN)
    dense_norms = norms(dense)
    pair_cosines = np.sort(cosines(pairs["weights"]), axis=1)
    # Of four features, each should see -1, 0, 0 and itself; of any other number, none do.
    ideal = np.array([-1.0, 0.0, 0.0, 1.0])
    same = pair_cosines.shape == (4, 4)
    kept = norms(pairs) > 0.5
    bias = pairs["bias"].values
    densities = f"{float(pairs.density):.3f} and {float(pentagon.density):.3f}"
    seen = best.sel(density=[float(pairs.density), float(pentagon.density)])
    off_norm = abs(norms(seen) - seen["exact_norm"].transpose("density", "feature").values)
    off_bias = abs(seen["bias"] - seen["exact_bias"])
    return [
        tm.Claim(
            "At density 1 two features are represented: number of norms above 1/2.",
            PAPER_SECTION,
            expected=2,
            measured=int((dense_norms > 0.5).sum()),
            kind=tm.Kind.PAPER,
        ),
        tm.Claim(
            "At density 1 the two most important features are represented and no others: longest "
            "norm of the other three.",
            PAPER_SECTION,
            expected=0.0,
            measured=float(dense_norms[2:].max()),
            tolerance=0.05,
            kind=tm.Kind.PAPER,
            threshold="ours: what the eye takes for zero in the figure",
        ),
        tm.Claim(
            "At density 1 the two represented features are orthogonal: their cosine.",
            PAPER_SECTION,
            expected=0.0,
            measured=float(np.abs(cosines(dense["weights"])[0, -1])),
            tolerance=0.02,
            kind=tm.Kind.PAPER,
            threshold="ours: one degree",
        ),
        tm.Claim(
            "At density 1 the loss is that of the three dropped features, (0.9^2 + 0.9^3 + 0.9^4) "
            "/ 12.",
            "a dropped feature costs its variance, p/3 - p^2/4",
            expected=float(results.importance[2:].sum()) / 12,
            measured=float(dense["loss"]),
            tolerance=0.002,
            kind=tm.Kind.PREDICTION,
            threshold="ours: three standard errors of 65,536 examples, 0.0006 each",
        ),
        tm.Claim(
            "At density 1 the bias of a dropped feature is its mean, 1/2: largest difference.",
            "a dropped feature is best guessed by its mean, p/2",
            expected=0.0,
            measured=float(np.abs(dense["bias"].values[2:] - 1 / 2).max()),
            tolerance=0.02,
            kind=tm.Kind.PREDICTION,
            threshold="ours: it fluctuates with the constant learning rate of the notebook",
        ),
        tm.Claim(
            "At density 0.19 four features form two antipodal pairs: largest deviation of a cosine "
            "from -1, 0, 0.",
            PAPER_SECTION,
            expected=0.0,
            measured=float(np.abs(pair_cosines - ideal).max()) if same else float("nan"),
            tolerance=0.05,
            kind=tm.Kind.PAPER,
            threshold="ours: three degrees",
        ),
        tm.Claim(
            "At density 0.19 the feature that is dropped is the least important of the five: its "
            "place in the order of importance.",
            f"{PAPER_SECTION}: the four most important features are represented",
            expected=results.sizes["feature"],
            measured=int(np.flatnonzero(~kept)[0]) + 1 if (~kept).sum() == 1 else float("nan"),
            kind=tm.Kind.PAPER,
        ),
        tm.Claim(
            "At density 0.19 the bias of the dropped feature is its mean: their ratio.",
            "a dropped feature is best guessed by its mean, p/2",
            expected=1.0,
            measured=float(bias[-1] / (pairs.density / 2)),
            tolerance=0.05,
            kind=tm.Kind.PREDICTION,
            threshold="ours: it fluctuates with the constant learning rate of the notebook",
        ),
        tm.Claim(
            "At density 0.097 all five features form a pentagon: largest |D_i - 2/5|.",
            PAPER_SECTION,
            expected=0.0,
            measured=float(np.abs(pentagon["dimensionality"] - 0.4).max()),
            tolerance=0.02,
            kind=tm.Kind.PAPER,
            threshold="ours: importances differ by up to a third, and so do the best angles",
        ),
        tm.Claim(
            "At density 0.097 the pentagon is outside the unit circle: least norm.",
            f"{PAPER_SECTION}, and toymodels.theory.expected_loss, minimised by BFGS",
            expected=1.0,
            measured=float(norms(pentagon).min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PREDICTION,
        ),
        tm.Claim(
            "At density 0.097 negative biases silence the interference of neighbours: largest "
            "bias of the five.",
            "a negative bias removes small positive interference, Elhage et al. (2022), "
            "Demonstrating Superposition",
            expected=0.0,
            measured=float(pentagon["bias"].max()),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PREDICTION,
        ),
        tm.Claim(
            f"At densities {densities} norms are those of the minimum of the exact loss below the "
            "trained model: largest difference.",
            "toymodels.theory.expected_loss, minimised by BFGS",
            expected=0.0,
            measured=float(off_norm.max()),
            tolerance=0.02,
            kind=tm.Kind.PREDICTION,
            threshold="ours: they fluctuate with the constant learning rate of the notebook",
        ),
        tm.Claim(
            f"At densities {densities} biases are those of the minimum of the exact loss below the "
            "trained model: largest difference.",
            "toymodels.theory.expected_loss, minimised by BFGS",
            expected=0.0,
            measured=float(off_bias.max()),
            tolerance=0.02,
            kind=tm.Kind.PREDICTION,
            threshold="ours: they fluctuate with the constant learning rate of the notebook",
        ),
    ]


def norms(models: xr.Dataset) -> Any:
    """Return the norm of every feature."""
    return np.linalg.norm(models["weights"].transpose("hidden", ..., "feature").values, axis=0)


def plot(results: xr.Dataset) -> Figure:
    best = tm.best_of(results, "loss")
    columns = -(-results.sizes["density"] // 2)
    figure, grid = plotting.figure(2, columns, size=(1.9 * columns, 4.5), squeeze=False)
    for axes in grid.flat[results.sizes["density"] :]:
        axes.set_visible(False)
    for axes, density in zip(grid.flat, results.density.values, strict=False):
        chosen = best.sel(density=density)
        plotting.feature_directions(
            axes, chosen["weights"].transpose("hidden", "feature"), results.importance
        )
        axes.set_title(f"1 - S = {density:.3g}")
    plotting.importance_bar(figure, grid, results.importance)
    figure.suptitle(f"Best of {results.sizes['seed']} seeds by loss", fontsize=9, color="0.3")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
