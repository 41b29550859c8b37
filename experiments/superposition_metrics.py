r"""Measures of superposition beside each other, on models whose right answers are known.

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
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry, superposition
from toymodels.theory import bounds

CLOSED = tm.prediction("Closed forms of this module")
FRAMES = tm.prediction("Every optimum is an orthogonal union of tight frames")
RANKS = tm.prediction("Both dimensions are used; one pair has 1.97")
LINE = tm.prediction("Closed forms: 1 for two pairs, which lie on lines, and 0.35 for a pentagon")
TWO_THIRDS = tm.prediction(
    "Closed forms: the mean dimensionality is 2/3 for both, and the excess coherence 0 and 1"
)
LENGTHS = tm.prediction("Closed forms: length^4 for two pairs and 1.5 length^4 for a pentagon")
MONOTONE = tm.prediction("Their closed forms are monotone")
CONVERGENCE = "Ours, because training converges this nearly."
NUM_FEATURES = 5
HIDDEN = 2
PLACES = {
    "dedicated": (1.0, 0.3),
    "triangle": (0.69, 1.0),
    "one pair": (0.2, 0.38),
    "two pairs": (0.15, 0.6),
    "pentagon": (0.05, 1.0),
}
"""Density and ratio of importances inside the region where each is best."""
NEAR, FAR = math.cos(2 * math.pi / 5), -math.cos(4 * math.pi / 5)
"""|cos| of neighbours in a pentagon, and of the others."""
LEAST = bounds.min_coherence(NUM_FEATURES, HIDDEN)


class Measure(NamedTuple):
    """A measure, and its values for unit vectors at each of `PLACES`.

    Attributes:
        title: the title of its map.
        expected: one number for each place.
        degree: the power of the length of the vectors with which it grows.
    """

    title: str
    expected: tuple[float, ...]
    degree: int = 0


def entropy_number(*amounts: float) -> float:
    """Return the exponential of the entropy of shares."""
    return float(np.exp(stats.entropy(amounts)))


MEASURES = {
    "dimensionality": Measure("feature dimensionality $D_i$", (1, 2 / 3, 2 / 3, 1 / 2, 2 / 5)),
    "features_per_dimension": Measure(
        "features per dimension $||W||^2/m$", (1, 3 / 2, 3 / 2, 2, 5 / 2), 2
    ),
    "absolute": Measure("absolute interference", (0, 1, 2 / 3, 1, 2 * (NEAR + FAR)), 2),
    "squared": Measure("squared interference", (0, 1 / 2, 2 / 3, 1, 3 / 2), 4),
    "effective_features": Measure("effective features", (2, 3, 3, 4, 5)),
    "effective_rank": Measure("effective rank", (2, 2, entropy_number(2**0.5, 1), 2, 2)),
    "saturation": Measure("capacity saturation $\\Sigma_i D_i / m$", (1, 1, 1, 1, 1)),
    "excess_coherence": Measure("excess coherence", (0, 0, 1, 1, (FAR - LEAST) / (1 - LEAST))),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    grid: int = 17
    """The number of cells along each axis, evenly spaced in the logarithm."""
    densities: tuple[float, float] = (0.05, 1.0)
    ratios: tuple[float, float] = (0.3, 1.0)
    num_seeds: int = 10
    training: tm.Recipe = tm.Recipe(steps=3000, batch=512, learning_rate=1e-2)


SMOKE = Config(grid=3, num_seeds=2, training=tm.Recipe(steps=10, batch=32, learning_rate=1e-2))


def measured(weights):
    """Return all measures of one model, and how many features it represents."""
    represented = geometry.feature_norms(weights) > 1 / 2
    kept = jnp.where(represented[None, :], weights, 0.0)
    count = jnp.sum(represented)

    def mean(values):
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
    def cell(key, *, density, ratio):
        importance = tm.geometric_importance(NUM_FEATURES, ratio)
        task = tm.Task(tm.SparseUniform(NUM_FEATURES, density), importance=importance)
        common = jax.random.key(2022)
        trained = config.training.train(key, tm.ReLUOutput(HIDDEN), task, key_evaluation=common)
        return {"loss": trained.loss, **measured(trained.params["weights"])}

    axes = {
        "density": np.geomspace(*config.densities, config.grid),
        "ratio": np.geomspace(*config.ratios, config.grid),
    }
    return tm.best_of(tm.sweep(cell, axes=axes, num_seeds=config.num_seeds), "loss")


def at(results, place: str):
    """Return the cell nearest to one of `PLACES`, in the logarithm."""
    density, ratio = PLACES[place]
    far = abs(np.log(results["density"] / density)) + abs(np.log(results["ratio"] / ratio))
    return results.isel(far.argmin(("density", "ratio")))


def claims(results: xr.Dataset) -> tm.Claims:
    count = results["num_represented"]
    coherence, squared = results["excess_coherence"], results["squared"]
    pairs, pentagons = count == 4, count == NUM_FEATURES

    for number, place in enumerate(PLACES):
        cell = at(results, place)
        says = f"In the region of the map of {place}, all {len(MEASURES)} measures of a model have "
        says += "the values of their closed forms at the length found, "
        says += f"{float(cell['length']):.3f}, measured by the largest difference, relative for "
        says += "values above 1."
        off = [
            abs(cell[name] - measure.expected[number] * cell["length"] ** measure.degree)
            / max(measure.expected[number], 1)
            for name, measure in MEASURES.items()
        ]
        yield tm.near(says, 0, max(map(float, off)), CLOSED, within=0.02, threshold=CONVERGENCE)

    says = "Saturation is 1 for all models, so it sees no superposition."
    off = abs(results["saturation"] - 1).max()
    yield tm.near(says, 0, off, FRAMES, within=0.01, threshold=CONVERGENCE)
    says = "The effective rank is nearly 2 for all models in superposition, so it sees none."
    rank = results["effective_rank"].where(count > HIDDEN).min()
    pair = "Ours, because one pair has 1.97."
    yield tm.at_least(says, 1.95, rank, RANKS, threshold=pair)
    says = "Excess coherence is larger for two pairs than for pentagons, measured by the "
    says += "difference of the medians."
    gap = coherence.where(pairs).median() - coherence.where(pentagons).median()
    yield tm.at_least(says, 0, gap, LINE)
    says = "Excess coherence differs by 1 between a triangle and a pair beside a dedicated "
    says += "feature, which have the same mean dimensionality."
    gap = at(coherence, "one pair") - at(coherence, "triangle")
    yield tm.near(says, 1, gap, TWO_THIRDS, within=0.03, threshold=CONVERGENCE)
    says = "Squared interference is smaller for two pairs than for pentagons, measured by the "
    says += "difference of the medians."
    gap = squared.where(pairs).median() - squared.where(pentagons).median()
    yield tm.at_most(says, 0, gap, LENGTHS)

    def follows(name: str) -> float:
        order = stats.spearmanr(count.values.ravel(), results[name].values.ravel())
        return abs(order.statistic)

    says = "Dimensionality, features per dimension, both interferences and effective features "
    says += "follow the number of represented features over the map: the smallest of their rank "
    says += "correlations is nearly 1 or -1."
    growing = "dimensionality features_per_dimension absolute squared effective_features".split()
    ties = "Ours, because lengths differ within a configuration, and ties are many."
    yield tm.at_least(says, 0.9, min(map(follows, growing)), MONOTONE, threshold=ties)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(3, 2, size=(9, 9))
    names = ("dimensionality", "features_per_dimension", "effective_features", "squared")
    maps = {"num_represented": Measure("represented features", (2, 3, 3, 4, 5))}
    maps |= {name: MEASURES[name] for name in (*names, "excess_coherence")}
    for axes, (name, measure) in zip(grid.flat, maps.items(), strict=True):
        draw_map(axes, results, name, measure)
    figure.suptitle(
        "Measures disagree: coherence ranks pairs worst, interference ranks pentagons worst\n"
        "(best seed of each cell, closed forms in brackets; rank is 2, saturation 1 everywhere)"
    )
    return figure


def draw_map(axes: plotting.Axes, results: xr.Dataset, name: str, measure: Measure) -> None:
    """Draw one measure over density and ratio, with its values at each of `PLACES`."""
    image = plotting.log_image(axes, results[name], x="density", y="ratio")
    sides = {"dedicated": ("right", "bottom"), "triangle": ("center", "top")}
    sides |= {"pentagon": ("left", "top")}
    box = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
    for place, expected in zip(PLACES, measure.expected, strict=True):
        cell = at(results, place)
        exact = expected * float(cell["length"]) ** measure.degree
        label = f"{float(cell[name]):.2f}\n({exact:.2f})" if name in MEASURES else place
        across, up = sides.get(place, ("center", "center"))
        where = {"ha": across, "va": up, "fontsize": 8, "bbox": box}
        axes.text(float(cell["density"]), float(cell["ratio"]), label, **where)
    plotting.plain_ticks(axes, "y", (0.3, 0.5, 0.7, 1))
    axes.set(title=measure.title, ylabel="ratio $r$ of importances $r^i$")
    axes.label_outer()
    plotting.color_bar(image, pad=0.02)


if __name__ == "__main__":
    experiment.main(__file__)
