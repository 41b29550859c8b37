"""Which polytopes are they? Graphs of feature geometry, with every structure named by code.

Claim      Features of equal importance form tetrahedra, triangles, digons, pentagons and square
           antiprisms as they get sparser, each where it gains most for its dimensions, or nearly.
           The clusters without a name in the paper's figure, D from 0.43 to 0.46, are digons that
           are one more than the dimensions they span: diplo-simplices. From 1/(1-S) = 5 on all
           features interfere, in one component without a name. (Features dedicated by code are
           alone among those represented; in dense data others, not represented, share with them.)
Reproduces Elhage et al. (2022), "The Geometry of Superposition": the scatter of D_i with graphs of
           features at six densities, joined by |W_i . W_j|. The paper has n=400 and m=30; here
           n=60 and m=12, which every polytope divides, so that there are five seeds. For one model
           at each of 50 densities, with the notebook's settings, see `dimensions_per_feature.py`.
Selection  None: graphs are of seed 0, all else shows every seed.
Command    toymodels run experiments/feature_geometry.py
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.analysis.polytopes import Shape, identify
from toymodels.theory import expected_loss_sampled, frames, polytopes

FIGURE = "Elhage et al. (2022), The Geometry of Superposition, read from the figure"
GRAPHS = (1.265, 1.677, 2.81, 4.29, 4.94, 9.10)
"""1 / (1 - S) of the paper's six graphs, read from its figure."""

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
DIPLO_DIMENSIONS = 8

# In the order in which they win, and between which 1/p each gains the same as the one before.
WINNERS = {
    Shape.TETRAHEDRON: (polytopes.TETRAHEDRON, None),
    Shape.TRIANGLE: (polytopes.TRIANGLE, (1.1, 1.5)),
    Shape.DIGON: (polytopes.DIGON, (1.4, 1.8)),
    Shape.PENTAGON: (polytopes.PENTAGON, (4.0, 5.0)),
    Shape.SQUARE_ANTIPRISM: (polytopes.SQUARE_ANTIPRISM, (4.5, 5.5)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 60
    hidden: int = 12
    inverses: tuple[float, ...] = (
        *(1.0, 1.12, 1.265, 1.35, 1.45, 1.56, 1.677, 1.93, 2.81),
        *(3.8, 4.0, 4.15, 4.29, 4.5, 4.7, 4.94, 6.4, 9.1),
    )
    """1 / (1 - S): those of the graphs, and closer where the polytopes change."""
    num_seeds: int = 5
    steps: int = 10_000
    batch: int = 512
    learning_rate: float = 1e-2
    norm: float = 0.5
    overlap: tuple[float, float] = (0.05, 0.15)
    tolerance: float = 0.1
    """These three: see `toymodels.analysis.polytopes.identify`."""
    crossings: tuple[str, ...] = tuple(WINNERS)[1:]
    """Polytopes for which to compute where they begin to win."""


SMOKE = Config(
    num_features=8,
    hidden=3,
    inverses=(1.265, 2.81),
    num_seeds=2,
    steps=20,
    batch=32,
    crossings=(),
)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))

    def cell(key: Any, *, density: Any) -> dict[str, Any]:
        trained = tm.train(
            key,
            tm.ReLUOutput(config.hidden),
            tm.Task(tm.SparseUniform(config.num_features, density)),
            optimizer=optimizer,
            steps=config.steps,
            batch=config.batch,
        )
        weights = trained.params["weights"]
        return {
            "weights": weights,
            "dimensions_per_feature": geometry.dimensions_per_feature(weights),
            "dimensionality": geometry.feature_dimensionality(weights),
        }

    results = tm.sweep(
        cell,
        axes={"density": [1 / inverse for inverse in config.inverses]},
        num_seeds=config.num_seeds,
        dims={"weights": ("hidden", "feature"), "dimensionality": ("feature",)},
        store=store,
    )

    def named(weights: Any) -> Any:
        found = identify(
            weights, norm=config.norm, overlap=config.overlap, tolerance=config.tolerance
        )
        shape = np.full(weights.shape[1], NOT_LEARNED, dtype="<U20")
        size = np.zeros(weights.shape[1], int)
        for component in found.components:
            shape[list(component.features)] = component.shape
            size[list(component.features)] = len(component.features)
        return shape, size

    results["shape"], results["size"] = xr.apply_ufunc(
        named,
        results["weights"],
        input_core_dims=[["hidden", "feature"]],
        output_core_dims=[["feature"], ["feature"]],
        vectorize=True,
    )
    begins = [_begins(shape, config) for shape in WINNERS]
    results["begins"] = ("polytope", begins)
    digon_to_pentagon = begins[list(WINNERS).index(Shape.PENTAGON)]
    results["diplo_simplex_lead"], results["diplo_simplex_error"] = _lead(digon_to_pentagon)
    return results.assign_coords(polytope=[str(shape) for shape in WINNERS])


def _begins(shape: Shape, config: Config) -> float:
    """1/p from which on a polytope gains more than the one before it."""
    polytope, between = WINNERS[shape]
    if between is None or shape not in config.crossings:
        return np.nan
    before = list(WINNERS.values())[list(WINNERS).index(shape) - 1][0]
    low, high = between
    return 1 / polytopes.crossing(before, polytope, between=(1 / high, 1 / low))


def _lead(inverse: float) -> tuple[float, float]:
    """How much more a diplo-simplex gains than a digon for each dimension, and its error.

    At least: squared length and bias are near the best ones, not the best.
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


def _nearest(results: xr.Dataset, inverse: float) -> int:
    """The number of the density nearest to one of the paper's graphs."""
    return int(np.argmin(abs(1 / results["density"].values - inverse)))


def claims(results: xr.Dataset) -> list[tm.Claim]:
    inverse = 1 / results["density"]
    shape, share, size = results["shape"], results["dimensionality"], results["size"]
    learned = shape != NOT_LEARNED

    def at(values: xr.DataArray, graph: float) -> xr.DataArray:
        return values.isel(density=_nearest(results, graph))

    def held(graph: float, *names: str) -> xr.DataArray:
        """Of the features represented the share in these shapes, for each seed."""
        count = at(shape, graph).isin(names).sum("feature")
        return count / at(learned, graph).sum("feature")

    def at_least(
        expected: float, statement: str, source: str, measured: Any, note: str = "", **labels: Any
    ) -> tm.Claim:
        return tm.Claim(
            statement, source, expected, measured, bound=tm.Bound.AT_LEAST, note=note, **labels
        )

    def window(name: str, low: float, high: float, note: str = "") -> tm.Claim:
        """Where the paper's figure has them."""
        count = (shape == name).sum(("seed", "feature"))
        inside = count.where((inverse > low - 0.01) & (inverse < high + 0.01))
        statement = f"{name}, by code: share of their features at 1/(1-S) from {low} to {high}"
        return at_least(
            0.8,
            statement,
            FIGURE,
            inside.sum() / count.sum(),
            note,
            kind=tm.Kind.PAPER,
            threshold="ours: most of them",
        )

    def beside(name: str) -> tm.Claim:
        """Where theory has them."""
        middle = float(inverse.where(shape == name).mean())
        begins = [1.0, *results["begins"].values[1:], np.inf]
        index = list(WINNERS).index(Shape(name))
        return tm.Claim(
            f"{name}, by code: mean 1/(1-S) of their features, as a multiple of the nearest at "
            "which they gain most for their dimensions",
            "exact loss, `polytope_gains.py`",
            expected=1.0,
            measured=middle / float(np.clip(middle, begins[index], begins[index + 1])),
            tolerance=0.15,
            kind=tm.Kind.PREDICTION,
            threshold="ours: the densities are 5 % apart, and scatter",
        )

    cluster = learned & (share > 0.43) & (share < 0.465) & (inverse > 3.7) & (inverse < 4.3)
    ring = at(size, GRAPHS[5]).max("feature") / at(learned, GRAPHS[5]).sum("feature")
    return [
        tm.Claim(
            "dimensions are used up: largest |sum_i D_i - m|",
            "sum_i D_i <= rank W, with equality for orthogonal unions of tight frames",
            expected=0.0,
            measured=float(abs(share.sum("feature") - results.sizes["hidden"]).max()),
            tolerance=0.05,
            kind=tm.Kind.PREDICTION,
            threshold="ours: weights of features that are not learned are not zero",
        ),
        tm.Claim(
            "D_i gathers at 3/4: median of the features represented at 1/(1-S) = 1.265",
            FIGURE,
            expected=0.75,
            measured=float(at(share.where(learned), GRAPHS[0]).median()),
            tolerance=0.03,
            kind=tm.Kind.PAPER,
            threshold="ours: reading the figure to 0.01, and scatter",
        ),
        at_least(
            0.8,
            "and they form tetrahedra: share of these features",
            FIGURE + ": seven tetrahedra and a stray",
            held(GRAPHS[0], Shape.TETRAHEDRON).mean(),
            "They have the norms and D_i of tetrahedra, but overlap by 0.1 to 0.3 with many. "
            "Training converges slowly here: after 30,000 steps there are still none at 1.265, but "
            "at 1.35 all features of three seeds are in tetrahedra, four in each.",
            kind=tm.Kind.PAPER,
            threshold="ours: the paper shows all but one",
        ),
        window(Shape.TETRAHEDRON, 1.15, 1.5),
        window(
            Shape.TRIANGLE,
            1.53,
            1.93,
            "The others are at 1.45, in the window of their gain, 1.25 to 1.55. With 120 features "
            "more than half are in triangles at 1.677, with 60 one in ten; the paper has 400.",
        ),
        window(Shape.DIGON, 1.68, 4.3),
        window(Shape.PENTAGON, 3.5, 4.5),
        tm.Claim(
            "square antiprism, by code: mean 1/(1-S) of their features",
            FIGURE,
            expected=4.3,
            measured=float(inverse.where(shape == Shape.SQUARE_ANTIPRISM).mean()),
            tolerance=0.2,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper's densities are 5 % apart",
        ),
        *(beside(name) for name in WINNERS),
        at_least(
            0.9,
            "At 1/(1-S) = 1.677 every feature is in a triangle or a digon: mean share over seeds.",
            FIGURE,
            held(GRAPHS[1], Shape.TRIANGLE, Shape.DIGON).mean(),
            kind=tm.Kind.PAPER,
            threshold="ours: nine in ten",
        ),
        at_least(
            0.5,
            "At 1/(1-S) = 1.677 there are triangles beside the digons: share of seeds that have "
            "one.",
            FIGURE,
            (at(shape, GRAPHS[1]) == Shape.TRIANGLE).any("feature").mean(),
            "With 60 features triangles are seen in fewer seeds than with the paper's 400.",
            kind=tm.Kind.PAPER,
            threshold="ours: half of the seeds",
        ),
        at_least(
            0.95,
            "At 1/(1-S) = 2.81 all features are in digons: mean share over seeds.",
            FIGURE,
            held(GRAPHS[2], Shape.DIGON).mean(),
            kind=tm.Kind.PAPER,
            threshold="ours: one feature in twenty",
        ),
        at_least(
            0.8,
            "pentagons, antiprisms, digons and a ring at 1/(1-S) = 4.29: share of the features in "
            "shapes with a name, the ring as a diplo-simplex",
            FIGURE,
            1 - held(GRAPHS[3], Shape.UNKNOWN).mean(),
            kind=tm.Kind.PAPER,
            threshold="ours: most of the paper's graph",
        ),
        at_least(
            0.9,
            "the clusters without a name are diplo-simplices: share of the features with D_i from "
            "0.43 to 0.465, for 1/(1-S) from 3.7 to 4.3",
            "readers of the paper take them for nine in four dimensions, D = 4/9: so have 18 in 8",
            (shape == Shape.DIPLO_SIMPLEX).where(cluster).mean(),
            kind=tm.Kind.FINDING,
            threshold="ours: nine in ten",
        ),
        at_least(
            0.0,
            f"where digons and pentagons gain the same, a diplo-simplex of {DIPLO_DIMENSIONS} "
            "dimensions gains more for each of them: its lead, less four standard errors",
            "randomized quasi-Monte Carlo against the exact loss",
            results["diplo_simplex_lead"] - 4 * results["diplo_simplex_error"],
            kind=tm.Kind.FINDING,
            threshold="ours: four standard errors are taken off",
        ),
        at_least(
            0.5,
            "a core without a name at 1/(1-S) = 4.94: share of the features",
            FIGURE,
            held(GRAPHS[4], Shape.UNKNOWN).mean(),
            kind=tm.Kind.PAPER,
            threshold="ours: half",
        ),
        at_least(
            1.0,
            "At 1/(1-S) = 4.94 there are groups of five beside the core: mean number of pentagons "
            "of a seed.",
            FIGURE,
            (at(shape, GRAPHS[4]) == Shape.PENTAGON).sum("feature").mean() / 5,
            "The paper's figure has several, of 400 features in 30 dimensions.",
            kind=tm.Kind.PAPER,
            threshold="ours: one where the paper shows several",
        ),
        at_least(
            0.95,
            "At 1/(1-S) = 9.1 there is one ring: share of the features in the largest component, "
            "mean over seeds.",
            FIGURE,
            ring.mean(),
            kind=tm.Kind.PAPER,
            threshold="ours: one feature in twenty",
        ),
    ]


def plot(results: xr.Dataset) -> Figure:
    figure, axes = plotting.figure(4, 3, size=(6.8, 7.7), height_ratios=(1, 1.9, 1, 0.85))
    grid = axes[0, 0].get_gridspec()
    for unused in (*axes[1], *axes[3]):
        unused.remove()
    scatter = figure.add_subplot(grid[1, :])
    strip = figure.add_subplot(grid[3, :])
    _scatter(scatter, results)
    inverse = (1 / results["density"]).values
    for inset, graph in zip((*axes[0], *axes[2]), GRAPHS, strict=True):
        nearest = _nearest(results, graph)
        _graph(inset, results.isel(density=nearest, seed=0))
        above = inset in axes[0]
        inset.set_title(f"1 / (1 - S) = {inverse[nearest]:.4g}", y=1 if above else -0.13)
        scatter.annotate(
            "",
            (inverse[nearest], 1.05 if above else -0.05),
            xytext=(0.5, 0 if above else 1),
            textcoords=inset.transAxes,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.8},
        ).set_in_layout(False)
        scatter.axvline(inverse[nearest], color="0.8", linewidth=0.8, zorder=0)
    _strip(strip, results)
    return figure


def _scatter(axes: Any, results: xr.Dataset) -> None:
    """As in the paper: the dimensions of every feature, and of the average one."""
    inverse = (1 / results["density"]).values
    share = results["dimensionality"].transpose("density", "seed", "feature").values
    for name, fraction in FRACTIONS.items():
        axes.axhspan(fraction - 0.008, fraction + 0.008, color=COLORS[name], alpha=0.25, zorder=0)
        lower = 0.02 * (name == Shape.SQUARE_ANTIPRISM)  # too close to the pentagon
        place = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
        axes.text(1.005, fraction - lower, name, color=COLORS[name], **place)
    # Spread by feature inside a column.
    across = inverse[:, None, None] * np.exp(np.linspace(-0.015, 0.015, share.shape[2]))
    flat = np.broadcast_to(across, share.shape).ravel(), share.ravel()
    style = {"markersize": 2, "markeredgewidth": 0, "rasterized": True, "antialiased": False}
    axes.plot(*flat, ".", color="black", label="$D_i$ of a feature", **style)
    ratio = results["dimensions_per_feature"].transpose("density", "seed")
    axes.plot(inverse, ratio, color="0.5", linewidth=0.8)
    axes.plot([], color="0.5", label=r"$m / \Vert W \Vert_F^2$ of a model")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.95))
    axes.set(ylabel="dimensions of a feature", ylim=(-0.05, 1.05))
    _along(axes, inverse)


def _strip(axes: Any, results: xr.Dataset) -> None:
    """Share of the features in each shape, and which polytope should win."""
    inverse = (1 / results["density"]).values
    learned = (results["shape"] != NOT_LEARNED).sum("feature")
    for name in (*list(FRACTIONS)[:-1], Shape.SIMPLEX, Shape.DIPLO_SIMPLEX, Shape.UNKNOWN):
        held = ((results["shape"] == name).sum("feature") / learned).transpose("density", "seed")
        axes.fill_between(
            inverse, held.min("seed"), held.max("seed"), color=COLORS[name], alpha=0.2
        )
        axes.plot(inverse, held.mean("seed"), "o-", color=COLORS[name], markersize=3, label=name)
    begins = np.append(results["begins"].values, inverse[-1])
    begins[0] = inverse[0]
    for name, start, end in zip(WINNERS, begins[:-1], begins[1:], strict=True):
        axes.barh(1.1, end - start, 0.08, start, color=COLORS[name])
    axes.annotate(
        "polytope that gains most for each dimension, in theory",
        (0.995, 1.19),
        xycoords=("axes fraction", "data"),
        ha="right",
        fontsize=8,
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(
        xlabel="1 / density = 1 / (1 - S)",
        ylabel="share of features\nrepresented",
        ylim=(-0.03, 1.28),
        yticks=np.linspace(0, 1, 5),
    )
    _along(axes, inverse)


def _along(axes: Any, inverse: Any) -> None:
    axes.set(xscale="log", xlim=(inverse[0] * 0.97, inverse[-1] * 1.03))
    ticks = [tick for tick in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9) if tick <= inverse[-1]]
    axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _graph(axes: Any, model: xr.Dataset) -> None:
    """Features represented as nodes, coloured by what they form, joined by overlaps."""
    shown = (model["shape"] != NOT_LEARNED).values
    weights = model["weights"].transpose("hidden", "feature").values[:, shown]
    strength = np.abs(weights.T @ weights)
    places = _spring_layout(strength)
    # Of every feature the three strongest overlaps, else the last graphs are black.
    least = np.sort(strength * (1 - np.eye(len(strength))), axis=1)[:, -3:].min(1, initial=np.inf)
    drawn = (strength > 0.05) & (strength >= np.minimum(least, least[:, None]))
    for first, second in zip(*np.nonzero(np.triu(drawn, 1)), strict=True):
        width = 2 * strength[first, second]
        axes.plot(*places[[first, second]].T, color="0.6", linewidth=width, zorder=0)
    axes.set_rasterization_zorder(0.5)
    colors = [COLORS[name] for name in model["shape"].values[shown]]
    axes.scatter(*places.T, 22, colors, edgecolors="white", linewidths=0.5, zorder=2)
    axes.set(xticks=(), yticks=(), aspect="equal", adjustable="datalim")
    axes.margins(0.08)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _spring_layout(strength: Any, steps: int = 500) -> Any:
    """Places of nodes that all push each other apart, pulled together by edges and to the centre.

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
