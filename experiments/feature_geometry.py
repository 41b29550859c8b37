"""Which polytopes are they? Graphs of feature geometry, with every structure named by code.

Claim      Features of equal importance form tetrahedra, triangles, digons, pentagons and square
           antiprisms as they get sparser, each where it gains most for its dimensions, or nearly.
           The clusters without a name in the paper's figure, D from 0.43 to 0.46, are digons that
           are one more than the dimensions they span: diplo-simplices. From 1/density = 5 on all
           features interfere, in one component without a name. (A feature that is dedicated by code
           is alone among those represented; in dense data others, not represented, share with it.)
Reproduces Elhage et al. (2022), "The Geometry of Superposition": the scatter of D_i with graphs of
           features at six densities, joined by |W_i . W_j|. The paper has n=400 and m=30; here
           n=60 and m=12, which every polytope divides, so that there are five seeds. For one model
           at each of 50 densities, with the notebook's settings, see `dimensions_per_feature.py`.
Selection  None: graphs are of seed 0, and everything else shows every seed.
Command    toymodels run experiments/feature_geometry.py
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.analysis.polytopes import Shape, identify
from toymodels.theory import expected_loss_sampled, frames, polytopes

FIGURE = "Elhage et al. (2022), The Geometry of Superposition, read from the figure"
PAPER = tm.paper(FIGURE)
GAINS = tm.prediction("Exact loss, `polytope_gains.py`")
GRAPHS = (1.265, 1.677, 2.81, 4.29, 4.94, 9.10)
"""1 / density of the paper's six graphs, read from its figure."""
DIPLO_DIMENSIONS = 8
NOT_LEARNED = "not learned"
# In the order of the colours.
FRACTIONS: dict[str, float] = {
    Shape.DEDICATED: 1.0,
    Shape.TETRAHEDRON: 3 / 4,
    Shape.TRIANGLE: 2 / 3,
    Shape.DIGON: 1 / 2,
    Shape.PENTAGON: 2 / 5,
    Shape.SQUARE_ANTIPRISM: 3 / 8,
    NOT_LEARNED: 0.0,
}
COLORS: dict[str, str] = {
    **dict(zip(FRACTIONS, plotting.POLYTOPE_COLORS, strict=True)),
    Shape.SIMPLEX: "#88bbee",
    Shape.DIPLO_SIMPLEX: "#11aaaa",
    Shape.POLYGON: "#aa7755",
    Shape.UNKNOWN: "#999999",
}
# In the order in which they win, with two values of 1 / density between which each begins to win.
WINNERS = {
    Shape.TETRAHEDRON: (polytopes.TETRAHEDRON, None),
    Shape.TRIANGLE: (polytopes.TRIANGLE, (1.1, 1.5)),
    Shape.DIGON: (polytopes.DIGON, (1.4, 1.8)),
    Shape.PENTAGON: (polytopes.PENTAGON, (4.0, 5.0)),
    Shape.SQUARE_ANTIPRISM: (polytopes.SQUARE_ANTIPRISM, (4.5, 5.5)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 60
    hidden: int = 12
    inverses: tuple[float, ...] = (
        *(1.0, 1.12, 1.265, 1.35, 1.45, 1.56, 1.677, 1.93, 2.81),
        *(3.8, 4.0, 4.15, 4.29, 4.5, 4.7, 4.94, 6.4, 9.1),
    )
    """1 / density: those of the graphs, and closer where the polytopes change."""
    num_seeds: int = 5
    training: tm.Recipe = tm.Recipe(steps=10_000, batch=512, learning_rate=1e-2)
    norm: float = 0.5
    overlap: tuple[float, float] = (0.05, 0.15)
    tolerance: float = 0.1
    """These three: see `toymodels.analysis.polytopes.identify`."""
    crossings: tuple[str, ...] = tuple(WINNERS)[1:]
    """The polytopes for which it is computed where they begin to win."""


SMOKE = Config(
    num_features=8,
    hidden=3,
    inverses=(1.265, 2.81),
    num_seeds=2,
    training=tm.Recipe(steps=20, batch=32, learning_rate=1e-2),
    crossings=(),
)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    def cell(key, *, density):
        task = tm.Task(tm.SparseUniform(config.num_features, density))
        weights = config.training.train(key, tm.ReLUOutput(config.hidden), task).params["weights"]
        return {
            "weights": weights,
            "dimensions_per_feature": geometry.dimensions_per_feature(weights),
            "dimensionality": geometry.feature_dimensionality(weights),
        }

    def named(weights):
        found = identify(
            weights, norm=config.norm, overlap=config.overlap, tolerance=config.tolerance
        )
        shape = np.full(weights.shape[1], NOT_LEARNED, dtype="<U20")
        size = np.zeros(weights.shape[1], int)
        for component in found.components:
            shape[list(component.features)] = component.shape
            size[list(component.features)] = len(component.features)
        return shape, size

    results = tm.sweep(
        cell,
        axes={"density": [1 / inverse for inverse in config.inverses]},
        num_seeds=config.num_seeds,
        dims={"weights": ("hidden", "feature"), "dimensionality": ("feature",)},
        store=store,
    )
    results["shape"], results["size"] = xr.apply_ufunc(
        named,
        results.weights,
        input_core_dims=[["hidden", "feature"]],
        output_core_dims=[["feature"], ["feature"]],
        vectorize=True,
    )
    begins = {shape: where_it_begins_to_win(shape, config) for shape in WINNERS}
    results["begins"] = ("polytope", list(begins.values()))
    lead = lead_of_the_diplo_simplex(begins[Shape.PENTAGON])
    results["diplo_simplex_lead"], results["diplo_simplex_error"] = lead
    return results.assign_coords(polytope=[str(shape) for shape in WINNERS])


def where_it_begins_to_win(shape: Shape, config: Config) -> float:
    """Return the 1 / density from which on a polytope gains more than the one before it."""
    polytope, between = WINNERS[shape]
    if between is None or shape not in config.crossings:
        return np.nan
    before, _ = WINNERS[list(WINNERS)[list(WINNERS).index(shape) - 1]]
    low, high = between
    return 1 / polytopes.crossing(before, polytope, between=(1 / high, 1 / low))


def lead_of_the_diplo_simplex(inverse: float) -> tuple[float, float]:
    """Return how much more a diplo-simplex gains per dimension than a digon, and the error.

    It gains at least as much, because squared length and bias are only near the best ones.
    """
    if np.isnan(inverse):
        return np.nan, np.nan
    density, half = 1 / inverse, frames.simplex(DIPLO_DIMENSIONS)
    weights = 1.08**0.5 * np.hstack([half, -half])
    dimensions, count = weights.shape
    loss, error = expected_loss_sampled(
        jax.random.key(0), weights, np.full(count, -0.09), density, 1.0, examples=2**17
    )
    unit = dimensions * (density / 3 - density**2 / 4)
    digon = polytopes.arrangement(polytopes.DIGON, density).gain
    return count / dimensions - loss / unit - digon, error / unit


def nearest(results: xr.Dataset, inverse: float) -> int:
    """Return the number of the density nearest to that of one of the paper's graphs."""
    return int(np.argmin(abs(1 / results.density.values - inverse)))


def claims(results: xr.Dataset) -> Iterator[tm.Claim]:
    inverse, shape, share = 1 / results.density, results["shape"], results.dimensionality
    learned = shape != NOT_LEARNED
    most, tenth = "Ours, because it means most of them.", "Ours, because one in ten may differ."
    twentieth = "Ours, because one in twenty may differ."

    def at(values: xr.DataArray, graph: float) -> xr.DataArray:
        return values.isel(density=nearest(results, graph))

    def held(graph: float, *names: str) -> xr.DataArray:
        """Return the share of the represented features that are in these shapes, for each seed."""
        return at(shape, graph).isin(names).sum("feature") / at(learned, graph).sum("feature")

    says = "The dimensionalities D_i of all features of a model add up to its hidden dimensions."
    source = tm.prediction("sum_i D_i <= rank W, an equality for orthogonal unions of tight frames")
    gap = abs(share.sum("feature") - results.sizes["hidden"]).max()
    threshold = "Ours, because the weights of features that are not learned are not zero."
    yield tm.near(says, 0, gap, source, within=0.05, threshold=threshold)

    says = (
        "The median D_i of the represented features at 1/density = 1.265 is that of a tetrahedron."
    )
    median = at(share.where(learned), GRAPHS[0]).median()
    threshold = "Ours, because the figure is read to 0.01, and its dots scatter."
    yield tm.near(says, 0.75, median, PAPER, within=0.03, threshold=threshold)

    says = "Most represented features at 1/density = 1.265 are in tetrahedra."
    source = tm.paper(f"{FIGURE}: seven tetrahedra and a stray")
    found = held(GRAPHS[0], Shape.TETRAHEDRON).mean()
    note = (
        "The features have the norms and D_i of tetrahedra, but overlap by 0.1 to 0.3 with many. "
        "Training converges slowly here: after 30,000 steps there are still none at 1.265, but at "
        "1.35 all features of three seeds are in tetrahedra, four in each."
    )
    threshold = "Ours, because the paper shows all but one."
    yield tm.at_least(says, 0.8, found, source, threshold=threshold, note=note)

    note = (
        "The other triangles are at 1.45, where they gain most (1.25 to 1.55). With 120 features "
        "more than half are in triangles at 1.677, with 60 one in ten; the paper has 400."
    )
    for name, low, high in (
        (Shape.TETRAHEDRON, 1.15, 1.5),
        (Shape.TRIANGLE, 1.53, 1.93),
        (Shape.DIGON, 1.68, 4.3),
        (Shape.PENTAGON, 3.5, 4.5),
    ):
        says = f"Most features in {name}s are found at 1/density from {low} to {high}."
        count = (shape == name).sum(("seed", "feature"))
        inside = count.where((inverse > low - 0.01) & (inverse < high + 0.01)).sum() / count.sum()
        note_here = note if name == Shape.TRIANGLE else ""
        yield tm.at_least(says, 0.8, inside, PAPER, threshold=most, note=note_here)

    says = "The mean 1/density of the features in square antiprisms is that of the paper's figure."
    mean = inverse.where(shape == Shape.SQUARE_ANTIPRISM).mean()
    threshold = "Ours, because the paper's densities are 5 % apart."
    yield tm.near(says, 4.3, mean, PAPER, within=0.2, threshold=threshold)

    threshold = "Ours, because the densities are 5 % apart, and the means scatter."
    begins = [1.0, *results.begins.values[1:], np.inf]
    for name, low, high in zip(WINNERS, begins[:-1], begins[1:], strict=True):
        says = (
            f"The mean 1/density of the features in {name}s is among those at which {name}s gain "
            "most per dimension: it is 1 as a multiple of the nearest one."
        )
        mean = inverse.where(shape == name).mean()
        found = mean / np.clip(mean, low, high)
        yield tm.near(says, 1, found, GAINS, within=0.15, threshold=threshold)

    says = "Nearly all represented features at 1/density = 1.677 are in triangles or digons."
    found = held(GRAPHS[1], Shape.TRIANGLE, Shape.DIGON).mean()
    yield tm.at_least(says, 0.9, found, PAPER, threshold=tenth)

    says = "At least half of the seeds have a triangle beside the digons at 1/density = 1.677."
    found = (at(shape, GRAPHS[1]) == Shape.TRIANGLE).any("feature").mean()
    note = "With 60 features triangles are seen in fewer seeds than with the paper's 400."
    threshold = "Ours, because it means half of the seeds."
    yield tm.at_least(says, 0.5, found, PAPER, threshold=threshold, note=note)

    says = "Nearly all represented features at 1/density = 2.81 are in digons."
    yield tm.at_least(says, 0.95, held(GRAPHS[2], Shape.DIGON).mean(), PAPER, threshold=twentieth)

    says = (
        "Most represented features at 1/density = 4.29 are in shapes with a name: pentagons, "
        "antiprisms, digons, or a ring that is a diplo-simplex."
    )
    found = 1 - held(GRAPHS[3], Shape.UNKNOWN).mean()
    yield tm.at_least(
        says, 0.8, found, PAPER, threshold="Ours, because it means most of the graph."
    )

    says = (
        "Nearly all features with D_i from 0.43 to 0.465 at 1/density from 3.7 to 4.3, clusters "
        "that have no name in the paper, are in diplo-simplices."
    )
    source = tm.finding(
        "Readers of the paper take them for nine features in four dimensions, where D is 4/9; so "
        "it is for 18 in 8"
    )
    cluster = learned & (share > 0.43) & (share < 0.465) & (inverse > 3.7) & (inverse < 4.3)
    found = (shape == Shape.DIPLO_SIMPLEX).where(cluster).mean()
    yield tm.at_least(says, 0.9, found, source, threshold=tenth)

    says = (
        f"A diplo-simplex of {DIPLO_DIMENSIONS} dimensions gains more per dimension than digons "
        "and pentagons where these two gain equally much, by more than four standard errors."
    )
    source = tm.finding("Randomized quasi-Monte Carlo against the exact loss")
    lead = results.diplo_simplex_lead - 4 * results.diplo_simplex_error
    yield tm.at_least(says, 0, lead, source, threshold="Ours: four standard errors are taken off.")

    says = "Most represented features at 1/density = 4.94 are in a core without a name."
    found = held(GRAPHS[4], Shape.UNKNOWN).mean()
    yield tm.at_least(says, 0.5, found, PAPER, threshold="Ours, because it means more than half.")

    says = "A model at 1/density = 4.94 has at least one pentagon on average over the seeds."
    found = (at(shape, GRAPHS[4]) == Shape.PENTAGON).sum("feature").mean() / 5
    note = "The paper's figure has several, of 400 features in 30 dimensions."
    threshold = "Ours, because the paper shows several."
    yield tm.at_least(says, 1, found, PAPER, threshold=threshold, note=note)

    says = "Nearly all represented features at 1/density = 9.1 are in one component."
    ring = at(results["size"], GRAPHS[5]).max("feature") / at(learned, GRAPHS[5]).sum("feature")
    yield tm.at_least(says, 0.95, ring.mean(), PAPER, threshold=twentieth)


def plot(results: xr.Dataset) -> Figure:
    figure, axes = plotting.figure(4, 3, size=(8, 8.4), height_ratios=(1, 1.9, 1, 0.9))
    grid = axes[0, 0].get_gridspec()
    for unused in (*axes[1], *axes[3]):
        unused.remove()
    scatter, strip = figure.add_subplot(grid[1, :]), figure.add_subplot(grid[3, :])
    draw_scatter(scatter, results)
    draw_shares(strip, results)
    for inset, graph, letter in zip((*axes[0], *axes[2]), GRAPHS, "abcdef", strict=True):
        place = nearest(results, graph)
        draw_graph(inset, results.isel(density=place, seed=0))
        across = float(1 / results.density[place])
        inset.set_title(f"{letter}: 1 / density = {across:.4g}")
        scatter.axvline(across, color="0.8", linewidth=0.8, zorder=0)
        scatter.text(across, 1.06, letter, ha="center")
    return figure


def draw_scatter(axes: Axes, results: xr.Dataset) -> None:
    """Draw the dimensions of every feature and of the average one, as in the paper."""
    inverse = (1 / results.density).values
    share = results.dimensionality.transpose("density", "seed", "feature").values
    for name, fraction in FRACTIONS.items():
        axes.axhspan(fraction - 0.008, fraction + 0.008, color=COLORS[name], alpha=0.25, zorder=0)
        lower = 0.02 * (name == Shape.SQUARE_ANTIPRISM)  # too close to the pentagon
        right = axes.get_yaxis_transform()
        axes.text(1.005, fraction - lower, name, color=COLORS[name], va="center", transform=right)
    # The features of a column are spread sideways.
    across = inverse[:, None, None] * np.exp(np.linspace(-0.015, 0.015, share.shape[2]))
    dots = np.broadcast_to(across, share.shape).ravel(), share.ravel()
    axes.plot(*dots, "k.", ms=2, mew=0, rasterized=True, label="$D_i$ of a feature")
    ratio = results.dimensions_per_feature.transpose("density", "seed")
    axes.plot(inverse, ratio, color="0.5", linewidth=0.8)
    seeds = results.sizes["seed"]
    axes.plot([], color="0.5", label=rf"$m / \Vert W \Vert_F^2$ of a model, {seeds} seeds")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.86))
    axes.set(ylabel="dimensions of a feature", ylim=(-0.05, 1.12), yticks=np.linspace(0, 1, 6))
    label_inverse(axes, inverse)


def draw_shares(axes: Axes, results: xr.Dataset) -> None:
    """Draw which share of the features is in each shape, under a strip of those that should win."""
    inverse, shape = (1 / results.density).values, results["shape"]
    learned = (shape != NOT_LEARNED).sum("feature")
    names = [name for name in COLORS if name != NOT_LEARNED and (shape == name).any()]
    held = [((shape == name).sum("feature") / learned).mean("seed") for name in names]
    axes.stackplot(inverse, held, colors=[COLORS[name] for name in names], labels=names)
    begins = [inverse[0], *results.begins.values[1:], inverse[-1]]
    for name, start, end in zip(WINNERS, begins[:-1], begins[1:], strict=True):
        axes.barh(1.1, end - start, 0.08, start, color=COLORS[name])
    axes.text(inverse[-1], 1.17, "polytope that gains most per dimension, in theory", ha="right")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlabel="1 / density", ylim=(0, 1.28), yticks=np.linspace(0, 1, 5))
    axes.set_ylabel("share of represented\nfeatures, mean of seeds")
    label_inverse(axes, inverse)


def label_inverse(axes: Axes, inverse: np.ndarray) -> None:
    axes.set(xscale="log", xlim=(inverse[0] * 0.97, inverse[-1] * 1.03))
    ticks = [tick for tick in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9) if tick <= inverse[-1]]
    axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def draw_graph(axes: Axes, model: xr.Dataset) -> None:
    """Draw represented features as nodes, coloured by their shapes and joined by overlaps."""
    shown = (model["shape"] != NOT_LEARNED).values
    weights = model.weights.transpose("hidden", "feature").values[:, shown]
    strength = np.abs(weights.T @ weights)
    places = spring_layout(strength)
    # Only the three strongest overlaps of every feature, or else the last graphs are black.
    third = np.sort(strength * (1 - np.eye(len(strength))), axis=1)[:, -3:].min(1, initial=np.inf)
    drawn = (strength > 0.05) & (strength >= np.minimum(third, third[:, None]))
    for ends in np.argwhere(np.triu(drawn, 1)):
        axes.plot(*places[ends].T, color="0.6", linewidth=2 * strength[tuple(ends)], zorder=0)
    axes.set_rasterization_zorder(0.5)
    colors = [COLORS[name] for name in model["shape"].values[shown]]
    axes.scatter(*places.T, 22, colors, edgecolors="white", linewidths=0.5, zorder=2)
    axes.set(aspect="equal", adjustable="datalim")
    axes.margins(0.08)
    axes.axis("off")


def spring_layout(strength: np.ndarray, steps: int = 500) -> np.ndarray:
    """Place nodes that push each other apart and are pulled together by edges and to the centre.

    Fruchterman and Reingold (1991), "Graph drawing by force-directed placement".
    """
    count = len(strength)
    places = np.random.default_rng(0).normal(size=(count, 2))
    pull = strength * (1 - np.eye(count))
    for heat in np.geomspace(0.3, 0.003, steps):
        apart = places[:, None] - places[None]
        squared = np.sum(apart**2, axis=2) + 1e-3
        force = np.sum(apart * (1 / squared - 4 * pull * np.sqrt(squared))[..., None], axis=1)
        force -= 0.5 * np.sqrt(count) * places
        length = np.linalg.norm(force, axis=1, keepdims=True)
        places += force * np.minimum(heat / (length + 1e-9), 0.1)
    return places


if __name__ == "__main__":
    experiment.main(__file__)
