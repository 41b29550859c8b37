r"""What measures of superposition say of the same models, where the right answers are known.

Claim      As features get sparser and more alike in importance, five features in two dimensions
           pass from two of them dedicated, by one antipodal pair and two, to a pentagon, with
           triangles for dense features that are alike. Each measure has a closed form for all, and
           they disagree. Saturation is 1 for every model, ranks are 2 but for one pair: they see no
           superposition. A triangle and a pair beside a dedicated feature have one mean
           dimensionality, but the least coherence possible and the greatest. Coherence calls pairs
           worse than pentagons, interference the other way round.
Reproduces Measures of Elhage et al. (2022), Scherlis et al. (2022), Bereska et al. (2025), Ivanov
           et al. (2026); the map is ours.
Settings   Importances $I_i = r^i$. Features of norm below 1/2 count as not represented: their
           columns are set to 0. Measures of features are means over those represented. Effective
           features are those of $\lVert W_i \rVert$: unit directions, all of one density.
Selection  In every cell the best seed by loss, on common examples.
Command    toymodels run experiments/superposition_metrics.py
"""

import dataclasses
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry, superposition
from toymodels.theory import bounds

NUM_FEATURES: Final = 5
HIDDEN: Final = 2
PLACES: Final = {
    "dedicated": (1.0, 0.3),
    "triangle": (0.69, 1.0),
    "one pair": (0.2, 0.38),
    "two pairs": (0.15, 0.6),
    "pentagon": (0.05, 1.0),
}
"""Density and ratio of importances where each is best, inside its region."""
NEAR, FAR = np.cos(2 * np.pi / 5), -np.cos(4 * np.pi / 5)
"""|cos| of neighbours in a pentagon, and of the others."""
LEAST: Final = bounds.least_coherence(NUM_FEATURES, HIDDEN)


class Measure(NamedTuple):
    """A measure, and what it is of unit vectors at each of `PLACES`.

    Attributes:
        title: of its map.
        expected: one number for each place.
        degree: the power of their length with which it grows.
    """

    title: str
    expected: tuple[float, ...]
    degree: int = 0


def entropy_number(*amounts: float) -> float:
    """The exponential of the entropy of shares."""
    return float(np.exp(stats.entropy(amounts)))


MEASURES: Final = {
    "dimensionality": Measure("feature dimensionality $D_i$", (1, 2 / 3, 2 / 3, 1 / 2, 2 / 5)),
    "features_per_dimension": Measure(
        "features per dimension $||W||^2/m$", (1, 3 / 2, 3 / 2, 2, 5 / 2), degree=2
    ),
    "absolute": Measure(
        "absolute interference", (0, 1, 2 / 3, 1, 2 * (float(NEAR) + float(FAR))), degree=2
    ),
    "squared": Measure("squared interference", (0, 1 / 2, 2 / 3, 1, 3 / 2), degree=4),
    "effective_features": Measure("effective features", (2, 3, 3, 4, 5)),
    "effective_rank": Measure("effective rank", (2, 2, entropy_number(2**0.5, 1), 2, 2)),
    "saturation": Measure("capacity saturation $\\Sigma_i D_i / m$", (1, 1, 1, 1, 1)),
    "excess_coherence": Measure(
        "excess coherence", (0, 0, 1, 1, (float(FAR) - LEAST) / (1 - LEAST))
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    grid: int = 17
    """Cells along each axis, evenly spaced in the logarithm."""
    densities: tuple[float, float] = (0.05, 1.0)
    ratios: tuple[float, float] = (0.3, 1.0)
    num_seeds: int = 10
    steps: int = 3000
    batch: int = 512
    learning_rate: float = 1e-2
    """The learning rate at the start of a cosine schedule."""


SMOKE = Config(grid=3, num_seeds=2, steps=10, batch=32)


def measured(weights: Any) -> dict[str, Any]:
    """All measures of one model, and how many features it represents."""
    represented = geometry.feature_norms(weights) > 1 / 2
    kept = jnp.where(represented[None, :], weights, 0.0)
    count = jnp.sum(represented)

    def mean(values: Any) -> Any:
        return jnp.sum(jnp.where(represented, values, 0.0)) / jnp.maximum(count, 1)

    return {
        "num_represented": count,
        "length": mean(geometry.feature_norms(kept)),
        "dimensionality": mean(geometry.feature_dimensionality(kept)),
        "features_per_dimension": jnp.sum(kept**2) / HIDDEN,
        "absolute": mean(superposition.absolute_interference(kept)),
        "squared": mean(superposition.squared_interference(kept)),
        "effective_features": superposition.effective_number(geometry.feature_norms(kept)),
        "effective_rank": superposition.effective_rank(kept),
        "saturation": superposition.capacity_saturation(kept),
        "excess_coherence": superposition.excess_coherence(kept),
    }


def run(config: Config) -> xr.Dataset:
    def cell(key: Any, *, density: Any, ratio: Any) -> dict[str, Any]:
        importance = tm.geometric_importance(NUM_FEATURES, ratio)
        trained = tm.train(
            key,
            tm.ReLUOutput(HIDDEN),
            tm.Task(tm.SparseUniform(NUM_FEATURES, density), importance=importance),
            optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps)),
            steps=config.steps,
            batch=config.batch,
            key_evaluation=jax.random.key(2022),
        )
        return {"loss": trained.loss, **measured(trained.params["weights"])}

    axes: Any = {
        "density": np.geomspace(*config.densities, config.grid),
        "ratio": np.geomspace(*config.ratios, config.grid),
    }
    return tm.best_of(tm.sweep(cell, axes=axes, num_seeds=config.num_seeds), "loss")


def at(results: Any, place: str) -> Any:
    """The cell nearest to one of `PLACES`, in the logarithm."""
    density, ratio = PLACES[place]
    far = abs(np.log(results["density"] / density)) + abs(np.log(results["ratio"] / ratio))
    return results.isel(far.argmin(("density", "ratio")))


def claims(results: xr.Dataset) -> list[tm.Claim]:
    count = results["num_represented"]
    coherence, squared = results["excess_coherence"], results["squared"]
    pairs, pentagons = count == 4, count == NUM_FEATURES
    most, least = tm.Bound.AT_MOST, tm.Bound.AT_LEAST

    def claim(statement: str, source: str, expected: float, measured: Any, **how: Any) -> tm.Claim:
        return tm.Claim(statement, source, expected=expected, measured=measured, **how)

    def closed(number: int, place: str) -> tm.Claim:
        """All measures are functions of the configuration, so this is one statement."""
        cell = at(results, place)
        off = [
            abs(cell[name] - measure.expected[number] * cell["length"] ** measure.degree)
            / max(measure.expected[number], 1)
            for name, measure in MEASURES.items()
        ]
        return claim(
            f"{place}: all {len(MEASURES)} measures have the values of their closed forms at the "
            f"length found, {float(cell['length']):.3f}: largest difference, relative to those "
            "above 1.",
            "closed forms of this module", 0, max(map(float, off)), tolerance=0.02,
            kind=tm.Kind.PREDICTION, threshold="ours: convergence of training",
        )  # fmt: skip

    def follows(name: str) -> float:
        order: Any = stats.spearmanr(count.values.ravel(), results[name].values.ravel())
        return abs(order.statistic)

    growing = (
        "dimensionality", "features_per_dimension", "absolute", "squared", "effective_features",
    )  # fmt: skip
    return [
        *(closed(number, place) for number, place in enumerate(PLACES)),
        claim(
            "saturation sees no superposition: largest |1 - saturation| of all models",
            "every optimum is an orthogonal union of tight frames", 0,
            abs(results["saturation"] - 1).max(), tolerance=0.01,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        claim(
            "neither do ranks: least effective rank of all models in superposition",
            "both dimensions are used; one pair has 1.97", 1.95,
            results["effective_rank"].where(count > HIDDEN).min(), bound=least,
            kind=tm.Kind.PREDICTION,
            threshold="ours: one pair has 1.97",
        ),
        claim(
            "coherence finds two pairs worse than pentagons, difference of medians",
            "1 and 0.35: pairs are on one line", 0,
            coherence.where(pairs).median() - coherence.where(pentagons).median(), bound=least,
            kind=tm.Kind.PREDICTION,
        ),
        claim(
            "triangles and a pair beside a dedicated feature have one mean dimensionality, but "
            "their excess coherence differs by",
            "2/3 both; 0 and 1", 1,
            at(coherence, "one pair") - at(coherence, "triangle"),
            tolerance=0.03,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        claim(
            "squared interference the other way round, difference of medians",
            "1 and 1.5 length^4", 0,
            squared.where(pairs).median() - squared.where(pentagons).median(), bound=most,
            kind=tm.Kind.PREDICTION,
        ),
        claim(
            "Dimensionality, features per dimension, both interferences and effective features "
            "follow the number of represented features: least |rank correlation| over the map.",
            "their closed forms are monotone", 0.9, min(map(follows, growing)), bound=least,
            kind=tm.Kind.PREDICTION,
            threshold="ours: lengths differ within a configuration, and ties are many",
        ),
    ]  # fmt: skip


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(3, 3, size=(10, 7.8))
    x, y = results["density"].values, results["ratio"].values
    maps = {"num_represented": Measure("features represented", (2, 3, 3, 4, 5)), **MEASURES}
    for axes, (name, measure) in zip(grid.ravel(), maps.items(), strict=True):
        table = results[name].transpose("ratio", "density").values
        low, high = float(min(table.min(), *measure.expected)), float(table.max())
        if high - low < 0.1:  # no rounding in bright colours
            low, high = low - 0.5, high + 0.5
        scale = Normalize(low, high)
        image = plotting.log_image(
            axes, results[name], x="density", y="ratio", cmap="viridis", norm=scale
        )
        axes.contour(
            x, y, results["num_represented"].transpose("ratio", "density").values,
            levels=(2.5, 3.5, 4.5), colors="white", linewidths=0.6,
        )  # fmt: skip
        for index, (place, expected) in enumerate(zip(PLACES, measure.expected, strict=True)):
            cell = at(results, place)
            exact = expected * float(cell["length"]) ** measure.degree
            density, ratio = float(cell["density"]), float(cell["ratio"])
            label = f"{float(cell[name]):.2f}\n({exact:.2f})" if name in MEASURES else place
            edge = {"dedicated": "right", "pentagon": "left"}.get(place, "center")
            axes.text(
                density, ratio, label, fontsize=6.5, ha=edge,
                va=("bottom", "top", "center", "center", "top")[index],
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
            )  # fmt: skip
        axes.set(title=measure.title)
        axes.set_xticks((0.05, 0.1, 0.2, 0.5, 1), labels=("0.05", "0.1", "0.2", "0.5", "1"))
        axes.set_yticks((0.3, 0.5, 0.7, 1), labels=("0.3", "0.5", "0.7", "1"))
        axes.minorticks_off()
        axes.label_outer()
        figure.colorbar(image, ax=axes, pad=0.02)
    for axes in grid[-1]:
        axes.set_xlabel("density p")
    for axes in grid[:, 0]:
        axes.set_ylabel("ratio r of importances $I_i = r^i$")
    figure.suptitle(
        "Measured (closed form). Lines: number of features changes",
        fontsize=10,
    )
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
