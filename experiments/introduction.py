"""Five features in two dimensions: what a model stores as its world gets sparser.

Claim      Dense features: the two most important, orthogonal, and nothing else. Sparser: four,
           as two antipodal pairs. Sparser still: all five, as a regular pentagon.
Reproduces Elhage et al. (2022), the introductory figure, with the settings of its notebook. Norms
           and biases are compared with the minimum of the exact loss below each model shown.
Selection  Best of 8 seeds by the loss on 65,536 fresh examples, the same for all seeds.
Command    toymodels run experiments/introduction.py
"""

import dataclasses

import jax
import numpy as np
import optax
import xarray as xr
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry

PAPER = tm.paper("Elhage et al. (2022), introductory figure")
VARIANCE = tm.prediction("A dropped feature costs its variance, p/3 - p^2/4")
MEAN = tm.prediction("A dropped feature is best guessed by its mean, p/2")
EXACT = tm.prediction("toymodels.theory.expected_loss, minimised by BFGS")
CONSTANT_RATE = "Ours, because the constant learning rate of the notebook makes it fluctuate."
SHOWN = (1.0, 0.19, 0.097)
"""The densities of the paper's three panels, of which the notebook has the nearest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 5
    hidden: int = 2
    importance_ratio: float = 0.9
    num_densities: int = 10
    least_density: float = 0.05
    num_seeds: int = 8
    steps: int = 10_000
    batch: int = 1024
    learning_rate: float = 1e-3
    """The learning rate is constant, as in the notebook."""
    weight_decay: float = 0.01
    instances: int = 10
    """The number of models of the notebook decides its start: see `tm.notebook_initializer`."""


SMOKE = Config(num_densities=2, num_seeds=2, steps=50, batch=64)


def run(config: Config) -> xr.Dataset:
    model = tm.ReLUOutput(config.hidden, initializer=tm.notebook_initializer(config.instances))
    importance = tm.geometric_importance(config.num_features, config.importance_ratio)

    def cell(key, *, density):
        trained = tm.train(
            key,
            model,
            tm.Task(tm.SparseUniform(config.num_features, density), importance=importance),
            optimizer=optax.adamw(config.learning_rate, weight_decay=config.weight_decay),
            steps=config.steps,
            batch=config.batch,
            key_evaluation=jax.random.key(2022),
        )
        dimensionality = geometry.feature_dimensionality(trained.params["weights"])
        return {"loss": trained.loss, **trained.params, "dimensionality": dimensionality}

    feature = ("feature",)
    results = tm.sweep(
        cell,
        axes={"density": np.geomspace(1.0, config.least_density, config.num_densities)},
        num_seeds=config.num_seeds,
        dims={"weights": ("hidden", "feature"), "bias": feature, "dimensionality": feature},
        units={"loss": "summed over outputs"},
    )
    results = results.assign_coords(importance=("feature", np.asarray(importance)))
    below = xr.concat([minimum(results, density) for density in SHOWN[1:]], "density")
    # At smoke scale both are one density. An outer join would sort the densities.
    return results.merge(below.drop_duplicates("density"), join="left")


def minimum(results: xr.Dataset, density: float) -> xr.Dataset:
    """Return norms and biases of the minimum of the exact loss below the best model."""
    model = tm.best_of(results, "loss").sel(density=density, method="nearest")
    weights = model["weights"].transpose("hidden", "feature").values.astype(float)
    world = np.full(weights.shape[1], float(model.density)), model["importance"].astype(float)

    def loss(parameters):
        first, bias = np.split(parameters, [weights.size])
        return float(exact(first.reshape(weights.shape), bias, world[0], world[1].values))

    with jax.enable_x64(True):
        exact = jax.jit(tm.theory.expected_loss)
        start = np.append(weights, model["bias"].values).astype(float)
        first, bias = np.split(optimize.minimize(loss, start, method="BFGS").x, [weights.size])
    norm = np.linalg.norm(first.reshape(weights.shape), axis=0)
    found = xr.Dataset({"exact_norm": ("feature", norm), "exact_bias": ("feature", bias)})
    return found.assign_coords(density=model.density.drop_vars("seed"))


def norms(models: xr.Dataset):
    """Return the norm of every feature."""
    return np.sqrt((models["weights"] ** 2).sum("hidden"))


def cosines(weights: xr.DataArray) -> np.ndarray:
    """Return the cosines between all represented features, which are those longer than 1/2."""
    columns = weights.transpose("hidden", "feature").values
    lengths = np.linalg.norm(columns, axis=0)
    directions = (columns / np.maximum(lengths, 1e-9))[:, lengths > 0.5]
    return directions.T @ directions


def claims(results: xr.Dataset) -> tm.Claims:
    best = tm.best_of(results, "loss")
    dense, pairs, pentagon = (best.sel(density=density, method="nearest") for density in SHOWN)

    says = "The number of features with a norm above 1/2 is two at density 1."
    yield tm.near(says, 2, (norms(dense) > 0.5).sum(), PAPER, within=0)
    says = "The three least important features have norms of nearly 0 at density 1."
    zero, eye = norms(dense)[2:].max(), "Ours, because the eye takes it for zero in the figure."
    yield tm.near(says, 0, zero, PAPER, within=0.05, threshold=eye)
    says = "The two represented features are orthogonal at density 1, so their cosine is 0."
    cosine, degree = abs(cosines(dense["weights"])[0, -1]), "Ours, because it is one degree."
    yield tm.near(says, 0, cosine, PAPER, within=0.02, threshold=degree)

    says = "The loss at density 1 is that of three dropped features, (0.9^2 + 0.9^3 + 0.9^4) / 12."
    dropped = float(results.importance[2:].sum()) / 12
    errors = "Ours, because it is three standard errors of 65,536 examples, 0.0006 each."
    yield tm.near(says, dropped, dense["loss"], VARIANCE, within=0.002, threshold=errors)
    says = "The biases of the three dropped features are their means, 1/2, at density 1."
    off = abs(dense["bias"].values[2:] - 1 / 2).max()
    yield tm.near(says, 0, off, MEAN, within=0.02, threshold=CONSTANT_RATE)

    says = "The four features of the model at density 0.19 form two antipodal pairs: each feature "
    says += "has cosines of -1, 0 and 0 with the other three."
    # A model that represents another number of features has no such pairs.
    found = np.sort(cosines(pairs["weights"]), axis=1)
    off = abs(found - [-1.0, 0.0, 0.0, 1.0]).max() if found.shape == (4, 4) else np.nan
    degrees = "Ours, because it is three degrees."
    yield tm.near(says, 0, off, PAPER, within=0.05, threshold=degrees)
    says = "The one feature that the model drops at density 0.19 is the fifth in importance."
    lost = np.flatnonzero(norms(pairs) <= 0.5) + 1
    place = lost[0] if lost.size == 1 else np.nan
    yield tm.near(says, results.sizes["feature"], place, PAPER, within=0)
    says = "The bias of the dropped feature is its mean at density 0.19, so their ratio is 1."
    ratio = pairs["bias"].values[-1] / (pairs.density / 2)
    yield tm.near(says, 1, ratio, MEAN, within=0.05, threshold=CONSTANT_RATE)

    says = "All five features have the dimensionality 2/5 of a pentagon at density 0.097."
    off = abs(pentagon["dimensionality"] - 0.4).max()
    angles = "Ours, because importances differ by up to a third, and so do the best angles."
    yield tm.near(says, 0, off, PAPER, within=0.02, threshold=angles)
    says = "All five features of the pentagon at density 0.097 have norms above 1."
    both = tm.prediction(f"{PAPER.text}, and {EXACT.text}")
    yield tm.at_least(says, 1, norms(pentagon).min(), both)
    says = "All five biases at density 0.097 are negative, so neighbours of an active feature stay "
    says += "silent."
    silence = "A negative bias removes small positive interference"
    demonstrating = tm.prediction(f"{silence}, Elhage et al. (2022), Demonstrating Superposition")
    yield tm.at_most(says, 0, pentagon["bias"].max(), demonstrating)

    seen = best.sel(density=[float(pairs.density), float(pentagon.density)])
    densities = f"{float(pairs.density):.3f} and {float(pentagon.density):.3f}"
    for name, measured in (("norm", norms(seen)), ("bias", seen["bias"])):
        says = f"The {name} of every feature at densities {densities} is that of the minimum of "
        says += "the exact loss below the trained model."
        off = abs(measured - seen[f"exact_{name}"]).max()
        yield tm.near(says, 0, off, EXACT, within=0.02, threshold=CONSTANT_RATE)


def plot(results: xr.Dataset) -> plotting.Figure:
    best = tm.best_of(results, "loss")
    places = np.unique(np.linspace(0, best.sizes["density"] - 1, 6).round()).astype(int)
    shown = best.isel(density=places)
    figure, grid = plotting.figure(2, -(-shown.sizes["density"] // 2), size=(8, 5.8), squeeze=False)
    names = {2: ", orthogonal", 4: ", two pairs", 5: ", a pentagon"}
    for axes, density in zip(grid.flat, shown.density.values, strict=False):
        model = shown.sel(density=density)
        color = plotting.importance_colors(results.importance)
        plotting.spokes(axes, model["weights"], color=color, limit=1.5)
        count = int((norms(model) > 0.5).sum())
        axes.set_title(f"density {density:.3g}\n{count} features{names.get(count, '')}")
    plotting.importance_bar(grid, results.importance)
    figure.suptitle(
        f"Sparser features share two dimensions (best of {results.sizes['seed']} seeds)"
    )
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
