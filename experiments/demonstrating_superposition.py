r"""What a linear model cannot do: W^T W and b of linear and ReLU models as features get sparser.

Claim      The linear model keeps the m most important features, each in a dimension of its own,
           whatever the density: principal components. The ReLU model does the same where
           features are dense; as they get sparser it stores ever more of them in superposition,
           the least important first, until no feature has a dimension of its own.
Reproduces Elhage et al. (2022), "Demonstrating Superposition", n=20, m=5 and n=80, m=20. The paper
           states neither optimizer nor number of runs: the ReLU models have those of its
           notebook. The linear ones, whose optimum is known in closed form, anneal the rate.
Selection  Best of 5 seeds by the loss on 1,048,576 fresh examples, the same for all seeds; the
           range over all seeds beside each count. Represented: norm above 1/2. Dedicated:
           represented with superposition below 1/10.
Command    toymodels run experiments/demonstrating_superposition.py
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry

PAPER_SECTION = "Elhage et al. (2022), Demonstrating Superposition"
DENSITIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
# Read from the bars of the paper's two figures, in the order of DENSITIES. "Represented" are those
# longer than 1/2, of 80 features the full and nearly full; a range is how surely they are counted.
PAPER_REPRESENTED = {
    20: ((5, 5), (7, 7), (9, 9), (10, 10), (12, 12), (13, 13), (13, 13)),
    80: ((20, 20), (26, 26), (32, 32), (41, 41), (48, 49), (50, 55), (50, 55)),
}
PAPER_DEDICATED = {20: (5, 3, 1, 0, 0, 0, 0), 80: (20, 14, 8, 4, 1, 0, 0)}
ALLOWED = {20: 1, 80: 2}
NOTE_TAIL = (
    "At the two least densities the figure's bars were read as full, nearly full or in a "
    "tail, those here by a norm above 1/2: where many are in between, the readings differ."
)
NOTE_SPARSE_LINEAR = (
    "At density 0.001 a batch has about one example of a feature. The mean over all 20,000 steps "
    "would be uncertain by 1 % of p/2, and a bias follows only the last few thousand."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: tuple[int, int] = (20, 80)
    """Of the two figures; there are a quarter as many hidden dimensions."""
    importance_ratios: tuple[float, float] = (0.7, 0.9)
    densities: tuple[float, ...] = DENSITIES
    linear_densities: tuple[float, float] = (1.0, 0.001)
    num_seeds: int = 5
    steps: int = 10_000
    batch: int = 1024
    evaluation: int = 1_048_576
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    linear_steps: int = 20_000
    linear_learning_rate: float = 1e-2
    """The learning rate at the start of a cosine schedule."""
    instances: int = 20
    """Of the notebook, which decide its start: see `toymodels.notebook_initializer`."""


SMOKE = Config(num_seeds=2, steps=30, batch=32, evaluation=1024, linear_steps=30)


def run(config: Config) -> xr.Dataset:
    ratios = dict(zip(config.num_features, config.importance_ratios, strict=True))
    initializer = tm.notebook_initializer(config.instances)
    cosine = optax.cosine_decay_schedule(config.linear_learning_rate, config.linear_steps)

    def trained(
        key: Any, model: Any, num_features: int, density: Any, optimizer: Any, steps: int
    ) -> dict[str, Any]:
        importance = tm.geometric_importance(num_features, ratios[num_features])
        task = tm.Task(tm.SparseUniform(num_features, density), importance=importance)
        done = tm.train(
            key,
            model,
            task,
            optimizer=optimizer,
            steps=steps,
            batch=config.batch,
            evaluation=config.evaluation,
            key_evaluation=jax.random.key(2022),
        )
        weights = done.params["weights"]
        return {
            "loss": done.loss,
            "weights": weights,
            "bias": done.params["bias"],
            "norm": geometry.feature_norms(weights),
            "superposition": geometry.superposition(weights),
        }

    def relu(key: Any, *, num_features: int, density: Any) -> dict[str, Any]:
        model = tm.ReLUOutput(num_features // 4, initializer=initializer)
        optimizer = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
        return trained(key, model, num_features, density, optimizer, config.steps)

    def linear(key: Any, *, num_features: int, density: Any) -> dict[str, Any]:
        model = tm.LinearOutput(num_features // 4, initializer=initializer)
        return trained(key, model, num_features, density, optax.adam(cosine), config.linear_steps)

    common: Any = {
        "static": {"num_features": config.num_features},
        "num_seeds": config.num_seeds,
        "dims": {
            "weights": ("hidden", "feature"),
            "bias": ("feature",),
            "norm": ("feature",),
            "superposition": ("feature",),
        },
        "units": {"loss": "summed over outputs"},
    }
    results = tm.sweep(relu, axes={"density": config.densities}, **common)
    linear_results = tm.sweep(linear, axes={"density": config.linear_densities}, **common)
    linear_results = linear_results.rename(density="linear_density")
    importance = np.full((2, max(config.num_features)), np.nan)
    for row, (num_features, ratio) in zip(importance, ratios.items(), strict=True):
        row[:num_features] = ratio ** np.arange(num_features)
    return results.assign(
        {f"linear_{name}": values for name, values in linear_results.items()}
    ).assign_coords(importance=(("num_features", "feature"), importance))


def of_size(results: xr.Dataset, num_features: int) -> xr.Dataset:
    """The models of one size, without padding."""
    chosen = results.sel(num_features=num_features)
    return chosen.isel(feature=slice(num_features), hidden=slice(num_features // 4))


def linear_part(results: xr.Dataset) -> xr.Dataset:
    """The linear models, named like the others."""
    names = {str(name): str(name)[len("linear_") :] for name in results if "linear_" in str(name)}
    return results[list(names)].rename({**names, "linear_density": "density"})


def represented(models: xr.Dataset) -> xr.DataArray:
    """How many features have a norm above 1/2."""
    return (models["norm"] > 0.5).sum("feature")


def dedicated(models: xr.Dataset) -> xr.DataArray:
    """How many of those have their direction to themselves."""
    return ((models["norm"] > 0.5) & (models["superposition"] < 0.1)).sum("feature")


def dropped_loss(models: xr.Dataset, density: Any) -> Any:
    """The least loss of a linear model: the variance of all features but the m most important."""
    return float(models.importance[models.sizes["hidden"] :].sum()) * (density / 3 - density**2 / 4)


def claims(results: xr.Dataset) -> list[tm.Claim]:
    sizes = results.num_features.values
    return [claim for size in sizes for claim in linear_claims(results, int(size))] + [
        claim for size in sizes for claim in relu_claims(results, int(size))
    ]


def linear_claims(results: xr.Dataset, num_features: int) -> list[tm.Claim]:
    models = of_size(linear_part(results), num_features)
    weights = models["weights"].transpose("density", "seed", "hidden", "feature").values
    bias = models["bias"].transpose("density", "seed", "feature").values
    density = models.density.values[:, None, None]
    kept = np.arange(num_features) < models.sizes["hidden"]
    gram = np.swapaxes(weights, -1, -2) @ weights
    exact = np.asarray(
        [
            [
                float(tm.theory.expected_loss_linear(w, b, p, models.importance.values))
                / dropped_loss(models, p)
                for w, b in zip(weights_of_seeds, biases, strict=True)
            ]
            for weights_of_seeds, biases, p in zip(
                weights, bias, models.density.values, strict=True
            )
        ]
    )
    which = f"linear, n={num_features}, every seed at the greatest and the least density"
    return [
        tm.Claim(
            f"{which}: W^T W is the identity on the m most important features; largest deviation",
            PAPER_SECTION,
            expected=0.0,
            measured=float(np.abs(gram - np.diag(kept)).max()),
            tolerance=0.02,
            note=NOTE_SPARSE_LINEAR,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper says exactly so",
        ),
        tm.Claim(
            f"{which}: b is 0 for those and the mean p/2 for the others; largest deviation / (p/2)",
            PAPER_SECTION,
            expected=0.0,
            measured=float(np.abs(bias / (density / 2) - ~kept).max()),
            tolerance=0.02,
            note=NOTE_SPARSE_LINEAR,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper says exactly so",
        ),
        tm.Claim(
            f"{which}: exact loss over that of the principal components, less 1",
            "toymodels.theory.expected_loss_linear; a dropped feature costs p/3 - p^2/4",
            expected=0.0,
            measured=float(exact.max()) - 1,
            tolerance=0.002,
            note=NOTE_SPARSE_LINEAR,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
    ]


def relu_claims(results: xr.Dataset, num_features: int) -> list[tm.Claim]:
    models = of_size(results, num_features).sel(density=list(DENSITIES), method="nearest")
    best = tm.best_of(models, "loss")
    ranges = np.asarray(PAPER_REPRESENTED[num_features])
    low, high = (xr.DataArray(side, dims="density") for side in ranges.T)
    paper_dedicated = xr.DataArray(list(PAPER_DEDICATED[num_features]), dims="density")
    allowed = ALLOWED[num_features]

    def beyond(count: xr.DataArray) -> xr.DataArray:
        return (low - count).clip(min=0) + (count - high).clip(min=0)

    paper = [str(a) if a == b else f"{a}-{b}" for a, b in ranges]
    which = f"ReLU, n={num_features}"
    counting = f"ours: {allowed} in {models.sizes['hidden'] * 2} for counting bars by eye"
    dense, norms = models.isel(density=0), models["norm"].isel(density=0)
    kept = dense.isel(feature=slice(models.sizes["hidden"]))
    sparse = models.sel(density=slice(0.9, 0))
    return [
        tm.Claim(
            f"{which}: the mean number of represented features over all seeds, "
            f"{means(represented(models))} at densities {DENSITIES[0]:g} to {DENSITIES[-1]:g}, is "
            f"that of the figure, {', '.join(paper)}: largest difference.",
            f"bars of the figure, {PAPER_SECTION}",
            expected=0,
            measured=float(beyond(represented(models).mean("seed")).max()),
            tolerance=allowed,
            note=NOTE_TAIL,
            kind=tm.Kind.PAPER,
            threshold=counting,
        ),
        tm.Claim(
            f"{which}: the number of represented features is within {allowed} of that of the "
            "figure: share of all seeds and densities.",
            f"bars of the figure, {PAPER_SECTION}",
            expected=0.9,
            measured=float((beyond(represented(models)) <= allowed).mean()),
            bound=tm.Bound.AT_LEAST,
            note=NOTE_TAIL,
            kind=tm.Kind.PAPER,
            threshold=counting,
        ),
        tm.Claim(
            f"{which}: the mean number of dedicated features over all seeds, "
            f"{means(dedicated(models))} at the same densities, is that of the figure, "
            f"{listed(paper_dedicated)}: largest difference.",
            f"bars of the figure, {PAPER_SECTION}",
            expected=0,
            measured=float(np.abs(dedicated(models).mean("seed") - paper_dedicated).max()),
            tolerance=allowed,
            kind=tm.Kind.PAPER,
            threshold=counting,
        ),
        tm.Claim(
            f"{which}: the number of dedicated features is within {allowed} of that of the "
            "figure: share of all seeds and densities.",
            f"bars of the figure, {PAPER_SECTION}",
            expected=0.9,
            measured=float((np.abs(dedicated(models) - paper_dedicated) <= allowed).mean()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PAPER,
            threshold=counting,
        ),
        tm.Claim(
            f"{which}, density 1: the m most important and no others, as in the linear model; "
            "longest norm of another, of all seeds",
            PAPER_SECTION,
            expected=0.0,
            measured=float(norms[{"feature": slice(models.sizes["hidden"], None)}].max()),
            tolerance=0.1,
            kind=tm.Kind.PAPER,
            threshold="ours: what the eye takes for zero",
        ),
        tm.Claim(
            f"{which}, density 1: largest superposition of those m, of all seeds",
            PAPER_SECTION,
            expected=0.0,
            measured=float(kept["superposition"].max()),
            tolerance=0.02,
            kind=tm.Kind.PAPER,
            threshold="ours: what the eye takes for zero",
        ),
        tm.Claim(
            f"{which}, density 1: loss over the variance of the dropped, sum of I_i / 12 over i >= "
            "m, less 1",
            "a dropped feature costs its variance, p/3 - p^2/4",
            expected=0.0,
            measured=float(best["loss"][0]) / dropped_loss(models, 1.0) - 1,
            tolerance=0.01,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling and convergence",
        ),
        tm.Claim(
            f"{which}: at densities of 0.01 and less the biases of represented features are "
            "negative: largest mean over them of any density, all seeds.",
            f"{PAPER_SECTION}: bars of the bias, blue in the middle",
            expected=0.0,
            measured=float(
                models["bias"]
                .where((models["norm"] > 0.5) & (models.density < 0.015))
                .mean(("seed", "feature"))
                .max()
            ),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PAPER,
        ),
        tm.Claim(
            f"{which}: sparser, superposition pays; largest loss over the least of any linear "
            "model, of all seeds and densities up to 0.3",
            "toymodels.theory.expected_loss_linear",
            expected=1.0,
            measured=float((sparse["loss"] / dropped_loss(models, sparse.density)).max()),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PREDICTION,
        ),
    ]


def means(counts: xr.DataArray) -> str:
    return ", ".join(f"{float(count):.3g}" for count in counts.mean("seed"))


def listed(counts: xr.DataArray) -> str:
    return ", ".join(str(int(count)) for count in counts.values)


def plot(results: xr.Dataset) -> Figure:
    densities = results.density.values
    columns = len(densities) + 1
    figure, grid = plotting.figure(
        4, columns, size=(1.55 * columns, 8.6), height_ratios=(1, 1.15, 1, 1.15)
    )
    for number, size in enumerate(results.num_features.values):
        matrices, bars = grid[2 * number], grid[2 * number + 1]
        linear = of_size(linear_part(results), int(size))
        linear = linear.sel(density=[linear.density.values.min()])
        shown = [(linear, "Linear model")]
        models = of_size(results, int(size))
        shown += [(models.sel(density=[density]), "ReLU output") for density in densities]
        for (every, name), top, bottom in zip(shown, matrices, bars, strict=True):
            best = tm.best_of(every, "loss").isel(density=0)
            plotting.gram(top, best["weights"], best["bias"])
            top.set_title(f"{name}\n$1-S$ = {every.density.values[0]:g}")
            plotting.norm_bars(bottom, best["norm"].values, best["superposition"].values)
            bottom.set_xlabel(
                f"{counted(represented(every), represented(best))} represented\n"
                f"{counted(dedicated(every), dedicated(best))} dedicated",
                fontsize=7,
            )
        hidden = linear.sizes["hidden"]
        ratio = float(models.importance[1])
        matrices[0].set_ylabel(f"n = {size}, m = {hidden}\n$I_i = {ratio:g}^i$\n$W^T W$ and $b$")
        bars[0].set_ylabel("feature norm $||W_i||$")
    for rows, colors, label in (
        (grid[::2], ScalarMappable(plotting.WEIGHT_NORM, plotting.WEIGHT_MAP), "weight or bias"),
        (
            grid[1::2],
            ScalarMappable(plotting.SUPERPOSITION_NORM, plotting.SUPERPOSITION_MAP),
            r"superposition $\sum_{j \neq i} (\hat W_i \cdot W_j)^2$",
        ),
    ):
        for row in rows:
            bar = figure.colorbar(colors, ax=list(row), shrink=0.8, aspect=15, label=label)
            bar.outline.set_visible(False)  # pyright: ignore
            bar.set_ticks([colors.norm.vmin, colors.norm.vmax])  # pyright: ignore
    figure.suptitle(
        f"Best of {results.sizes['seed']} seeds by loss; in brackets the range over all seeds",
        fontsize=9,
        color="0.3",
    )
    return figure


def counted(every: xr.DataArray, best: xr.DataArray) -> str:
    low, high = int(every.min()), int(every.max())
    return f"{int(best)}" if low == high else f"{int(best)} [{low}-{high}]"


if __name__ == "__main__":
    experiment.main(__file__)
