r"""Where correlated and anticorrelated features go, and how they collapse to principal components.

Claim      In two dimensions, correlated features are orthogonal and anticorrelated ones opposite;
           of three correlated pairs, mates stand side by side in a hexagon. Two sets of ten
           correlated features in ten dimensions each form a nearly orthogonal basis. As three pairs
           get denser, one after the other collapses to its principal component
           $(a + b) / \sqrt 2$, until the solution is that of PCA.
Reproduces Elhage et al. (2022), "Organization of Correlated and Anticorrelated Features", "Local
           Almost-Orthogonal Bases" and "Collapsing of Correlated Features".
Settings   From the paper: sets, n and m, and approximate densities of the collapse. Ours, for it
           states none: density 0.05 of a set in the first three rows (so 0.025 of an anticorrelated
           feature), 0.01 and 0.05 for the bases; equal importance; weights start at a normal of
           0.05; Adam from 5e-3 down a cosine, 10,000 steps of 1024 examples; 32 seeds, 5 for bases.
Selection  Panels are the seeds of lowest loss, of correlated pairs the exact one; the last panel of
           the third row is the lowest of those in which a pair collapsed. They are turned, mirrored
           and coloured alike: red is the pair with the widest angle. Bases: seed 0.
Exact      The optimum at a density is the lowest minimum of the exact loss below six starts:
           polygons in which 0, 1, 2 or 3 pairs have collapsed to a corner, and the best seed.
Command    toymodels run experiments/correlated_features.py
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import expected_loss_correlated, frames

SOURCE = "Elhage et al. (2022)"
ORGANIZATION = f"{SOURCE}, Organization of Correlated and Anticorrelated Features"
BASES = f"{SOURCE}, Local Almost-Orthogonal Bases"
COLLAPSING = f"{SOURCE}, Collapsing of Correlated Features"
EXACT = "toymodels.theory.correlated"
AT_MOST, AT_LEAST = tm.Bound.AT_MOST, tm.Bound.AT_LEAST
PAIRS = 3
PANELS = 5
SHOWN = (0.7, 0.4, 0.175, 0.1, 0.01)
"""Densities of the panels of the collapse, one from each of the paper's windows."""
WINDOWS = ((0.0, 0.05), (0.05, 0.15), (0.15, 0.2), (0.25, 0.5))
"""The paper's approximate densities of 0, 1, 2 and 3 collapsed pairs."""
CROSSINGS = ((0.05, 0.1), (0.12, 0.15), (0.35, 0.4))
"""Between these densities one more pair collapses in the optimum."""
COLORS = ("#dd3333", "#3366cc", "#229944")
BRANCH_COLORS = ("#7744aa", "#3366cc", "#229944", "#ee7722")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    density: float = 0.05
    """Of a set in the first three rows; one of `densities`."""
    densities: tuple[float, ...] = (
        0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.12, 0.15, 0.175, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7,
        0.85, 1.0,
    )  # fmt: skip
    """Of the three pairs that collapse."""
    pair_densities: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.25, 0.3)
    """At which the optimum of two pairs is computed; `density` is one of them."""
    independent_densities: tuple[float, ...] = (0.01, 0.05)
    basis_densities: tuple[float, ...] = (0.05, 0.01)
    num_seeds: int = 32
    num_bases: int = 5
    set_size: int = 10
    """Features of a set of the bases, and hidden dimensions."""
    start: float = 0.05
    """Standard deviation of the first weights."""
    steps: int = 10_000
    batch: int = 1024
    learning_rate: float = 5e-3
    """The learning rate at the start of a cosine schedule."""


# Its bases are its pairs, which compiles one program less.
SMOKE = Config(
    densities=(0.05,), pair_densities=(0.05,), independent_densities=(0.05,),
    basis_densities=(0.05,), num_seeds=5, num_bases=5, set_size=2, steps=20, batch=64,
)  # fmt: skip


def train(
    config: Config,
    name: str,
    features: Callable[[Any], tm.Features],
    densities: tuple[float, ...],
    *,
    hidden: int = 2,
    num_seeds: int,
) -> xr.Dataset:
    """All seeds of one kind of features; the names of its variables and dimensions with `name`."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    model = tm.ReLUOutput(hidden, initializer=jax.nn.initializers.normal(config.start))

    def cell(key: Any, *, density: Any) -> dict[str, Any]:
        trained = tm.train(
            key,
            model,
            tm.Task(features(density)),
            optimizer=optax.adam(schedule),
            steps=config.steps,
            batch=config.batch,
            key_evaluation=jax.random.key(2022),
        )
        return {**trained.params, "loss": trained.loss}

    own = {"weights": ("hidden", "feature"), "bias": ("feature",)}
    results = tm.sweep(cell, axes={"density": densities}, num_seeds=num_seeds, dims=own)
    return results.rename({label: f"{name}_{label}" for label in (*results.dims, *results)})


@jax.jit
def _loss_and_slopes(parameters: Any, density: Any, importance: Any) -> Any:
    def loss(parameters: Any) -> Any:
        weights, bias = parameters[:-1], parameters[-1]
        return expected_loss_correlated(weights, bias, density, importance, num_sets=PAIRS)

    return jax.value_and_grad(loss)(parameters)


def loss_and_slopes(parameters: Any, density: Any) -> tuple[float, Any]:
    """Exact, of up to three pairs; one of density 0 is not there, and of no importance.

    `parameters` are the weights, and one more row for the bias.
    """
    importance = np.repeat(np.asarray(density) > 0, 2) * 1.0
    with jax.enable_x64(True):
        loss, slopes = _loss_and_slopes(parameters, density, importance)
        return float(loss), np.asarray(slopes)


class Solution(NamedTuple):
    """A model and its exact loss."""

    weights: Any
    loss: float


def descend(weights: Any, bias: Any, density: Any) -> Solution:
    """The minimum of the exact loss below a start, by BFGS."""
    start = np.vstack([weights, bias]).astype(float)
    unit = np.max(density)

    def value(parameters: Any) -> tuple[float, Any]:
        loss, slopes = loss_and_slopes(parameters.reshape(start.shape), density)
        return loss / unit, slopes.ravel() / unit

    found: Any = optimize.minimize(
        value, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-8}
    )
    return Solution(found.x.reshape(start.shape)[:-1], float(unit * found.fun))


def arrangement(num_collapsed: int, num_corners: int) -> Any:
    """Corners of a polygon, the last of them shared by a pair each; a little disturbed."""
    corners = frames.regular_polygon(num_corners)
    apart = 2 * (PAIRS - num_collapsed)
    shared = np.repeat(corners[:, apart : apart + num_collapsed], 2, axis=1) / np.sqrt(2)
    nudge = 1e-3 * np.random.default_rng(0).standard_normal((2, 2 * PAIRS))
    return np.hstack([corners[:, :apart], shared]) + nudge


def branch(num_collapsed: int, density: float) -> Solution:
    """The minimum in which so many pairs have collapsed; of loss NaN if there is none.

    Three collapsed pairs are a triangle or at three corners of a square.
    """
    directions = 2 * PAIRS - num_collapsed
    bias, all_pairs = np.full(2 * PAIRS, -0.1), np.full(PAIRS, density)
    found = [
        descend(arrangement(num_collapsed, corners), bias, all_pairs)
        for corners in sorted({directions, max(directions, 4)})
    ]
    kept = [each for each in found if collapsed(each.weights).sum() == num_collapsed]
    return lowest(kept) if kept else found[0]._replace(loss=np.nan)


def crossing(fewer: int, between: tuple[float, float], densities: tuple[float, ...]) -> float:
    """The density at which the branches with so many collapsed pairs and one more are equal.

    NaN if there is none between two densities, or these are not among those of the figure.
    """

    def gap(density: float) -> float:
        return branch(fewer, density).loss - branch(fewer + 1, density).loss

    low, high = between
    if not min(densities) <= low < high <= max(densities):
        return np.nan
    crosses = gap(low) < 0 < gap(high)
    return float(optimize.brentq(gap, low, high, xtol=1e-3)) if crosses else np.nan  # pyright: ignore


def two_pairs(density: float) -> Solution:
    """The optimum of two pairs, orthogonal mates or collapsed ones."""
    apart = np.array([[1, 0, -1, 0, 0, 0], [0, 1, 0, -1, 0, 0]])
    merged = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]) / np.sqrt(2)
    nudge = 0.01 * arrangement(0, 2 * PAIRS)
    there = np.array([density, density, 0])
    found = [descend(start + nudge, np.zeros(2 * PAIRS), there) for start in (apart, merged)]
    return lowest(found)


def lowest(found: Sequence[Solution]) -> Solution:
    return min(found, key=lambda each: np.nan_to_num(each.loss, nan=np.inf))


def run(config: Config) -> xr.Dataset:
    one, many, seeds = (config.density,), config.densities, config.num_seeds
    results = xr.merge([
        train(config, "pair", lambda p: tm.CorrelatedSets(2, 2, p), one, num_seeds=seeds),
        train(config, "rival", lambda p: tm.AnticorrelatedSets(2, 2, p), one, num_seeds=seeds),
        train(config, "set", lambda p: tm.CorrelatedSets(PAIRS, 2, p), many, num_seeds=seeds),
        train(
            config, "independent", lambda p: tm.SparseUniform(2 * PAIRS, p),
            config.independent_densities, num_seeds=seeds,
        ),
        train(
            config, "basis", lambda p: tm.CorrelatedSets(2, config.set_size, p),
            config.basis_densities, hidden=config.set_size, num_seeds=config.num_bases,
        ),
    ])  # fmt: skip
    for name, sets in (("pair", 2), ("set", PAIRS)):
        models = parameters(results, name)
        models = np.pad(models, [(0, 0)] * 3 + [(0, 2 * PAIRS - models.shape[-1])])
        there = np.outer(results[f"{name}_density"], np.arange(PAIRS) < sets)
        losses = [
            [loss_and_slopes(model, density)[0] for model in every]
            for every, density in zip(models, there, strict=True)
        ]
        results[f"{name}_exact"] = (f"{name}_density", f"{name}_seed"), losses
    branches = [[branch(number, density) for density in many] for number in range(PAIRS + 1)]
    polished = [
        descend(model[:-1], model[-1], np.full(PAIRS, density))
        for model, density in zip(best(results), many, strict=True)
    ]
    optima = [lowest(found) for found in zip(*branches, polished, strict=True)]
    twos = [two_pairs(density) for density in config.pair_densities]
    return results.assign(
        branch_loss=(("branch", "set_density"), [[each.loss for each in row] for row in branches]),
        optimum_weights=(
            ("set_density", "set_hidden", "set_feature"),
            [each.weights for each in optima],
        ),
        optimum_loss=("set_density", [each.loss for each in optima]),
        two_loss=("two_density", [each.loss for each in twos]),
        crossing=("fewer", [crossing(*each, many) for each in enumerate(CROSSINGS)]),
        two_density=list(config.pair_densities),
    ).assign_attrs(density=config.density)


def parameters(results: xr.Dataset, name: str) -> Any:
    """Density x seed x (hidden and bias) x feature."""
    dims = [f"{name}_{dim}" for dim in ("density", "seed", "hidden", "feature")]
    weights = results[f"{name}_weights"].transpose(*dims).values
    bias = results[f"{name}_bias"].transpose(*dims[:2], dims[3]).values
    return np.concatenate([weights, bias[:, :, None]], axis=2).astype(float)


def matrices(results: xr.Dataset, name: str) -> Any:
    """Density x seed x hidden x feature."""
    return parameters(results, name)[:, :, :-1]


def best(results: xr.Dataset) -> Any:
    """The seed of least exact loss at every density of the three pairs."""
    chosen = results["set_exact"].transpose("set_density", "set_seed").values.argmin(axis=1)
    return parameters(results, "set")[np.arange(len(chosen)), chosen]


def mate_angles(weights: Any) -> Any:
    """Between the two features of each pair, in degrees; `weights` are ... x hidden x features."""
    first, second = weights[..., ::2], weights[..., 1::2]
    lengths = np.linalg.norm(first, axis=-2) * np.linalg.norm(second, axis=-2)
    cosine = (first * second).sum(axis=-2) / np.maximum(lengths, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def collapsed(weights: Any) -> Any:
    """Which pairs have mates less than 30 degrees apart, half-way to those of a hexagon."""
    return mate_angles(weights) < 30


def grams(weights: Any) -> Any:
    return np.swapaxes(weights, -1, -2) @ weights


def claims(results: xr.Dataset) -> list[tm.Claim]:
    parts = (correlated, anticorrelated, side_by_side, independent, bases, collapse)
    return [*itertools.chain.from_iterable(part(results) for part in parts)]


def farthest(values: Any, center: float) -> float:
    """The value farthest from `center`; NaN if there is none."""
    return float(values.flat[abs(values - center).argmax()]) if values.size else float("nan")


def correlated(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Of the first row, every seed."""
    name, weights, two = "two correlated pairs", matrices(results, "pair")[0], results["two_loss"]
    norms = np.linalg.norm(weights, axis=1)
    cosines = grams(weights / norms[:, None])
    tilt = 180 - np.degrees(np.arccos(cosines[:, :2, 2:].min(axis=2)))
    ended = results["pair_exact"].values / float(two.sel(two_density=results.attrs["density"]))
    sparse, dense = two.two_density.values[[0, -1]]
    yield from (
        tm.Claim(
            f"{name}: mates are orthogonal, largest |dot product| of all seeds",
            ORGANIZATION, 0, abs(grams(weights)[:, [0, 2], [1, 3]]).max(), 0.015,
            kind=tm.Kind.PAPER,
            threshold="ours: read off the figure, where they look orthogonal",
        ),
        tm.Claim(
            f"{name}: each feature is opposite to one of the other pair, largest tilt of all "
            "seeds, in degrees",
            f"{ORGANIZATION}: read off its figure", 5, tilt.max(), bound=AT_MOST,
            kind=tm.Kind.PAPER,
        ),
        tm.Claim(
            f"{name}: norms of all seeds, the farthest from 1",
            ORGANIZATION, 1, farthest(norms, 1), 0.02,
            kind=tm.Kind.PAPER,
            threshold="ours: read off the figure, where they are on the unit circle",
        ),
        tm.Claim(
            f"{name}: every seed ends at the optimum, largest exact loss over that of the optimum",
            EXACT, 1, ended.max(), 0.001,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        tm.Claim(
            f"{name}: the optimum at p = {sparse:g} errs only where both are present, loss / p^2",
            "closed form: opposite features without bias", 2 / 3, float(two[0]) / sparse**2, 0.005,
            kind=tm.Kind.PREDICTION,
            threshold="ours: terms of higher order in p",
        ),
        tm.Claim(
            f"{name}: at p = {dense:g} both have collapsed in the optimum, loss / p",
            "closed form: principal components", 1 / 6, float(two[-1]) / dense, 1e-6,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
    )  # fmt: skip


def anticorrelated(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Of the second row."""
    name, gram = "two anticorrelated pairs", grams(matrices(results, "rival")[0])
    loss = results["rival_loss"].values.ravel()
    shown = np.argsort(loss)[:PANELS]
    apart = np.kron(np.eye(2), [[1, -1], [-1, 1]])
    yield from (
        tm.Claim(
            f"{name}: mates are opposite and pairs orthogonal, largest |difference| of an entry "
            "of W^T W in the panels",
            ORGANIZATION, 0, abs(gram[shown] - apart).max(), 0.005,
            kind=tm.Kind.PAPER,
            threshold="ours: convergence of training",
        ),
        tm.Claim(
            f"{name}: this has no loss at all, largest of the panels",
            "closed form: tests/test_correlated.py", 0, loss[shown].max(), 1e-9,
            kind=tm.Kind.PREDICTION,
            threshold="ours: rounding of single precision",
        ),
        tm.Claim(
            f"{name}: share of all seeds that end so",
            ORGANIZATION, 1, (abs(gram - apart) < 0.05).all(axis=(1, 2)).mean(), bound=AT_LEAST,
            note="The paper shows five and does not say how they were selected. Our other seeds "
            "end in a local minimum, that of correlated pairs: mates are orthogonal, and errors "
            "come only where both pairs are present.",
            kind=tm.Kind.PAPER,
            threshold="ours: the paper shows five runs and does not say how many it made",
        ),
    )  # fmt: skip


def organized(results: xr.Dataset) -> tuple[Any, Any, Any]:
    """Of the third row: weights of every seed, best first; losses; how many pairs collapsed."""
    row = results.sel(set_density=[results.attrs["density"]])
    order = np.argsort(row["set_exact"].values[0])
    weights = matrices(row, "set")[0][order]
    return weights, row["set_exact"].values[0][order], collapsed(weights).sum(axis=1)


def side_by_side(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Of the third row."""
    name, (weights, loss, count) = "three correlated pairs", organized(results)
    optimum = results.sel(set_density=results.attrs["density"])
    sparse = results.sel(set_density=results["set_density"] < 0.06)["optimum_weights"]
    hexagons = sparse.transpose("set_density", "set_hidden", "set_feature").values
    angle = mate_angles(optimum["optimum_weights"].values).mean()
    yield from (
        tm.Claim(
            f"{name}: the optimum is about a hexagon with mates side by side, p < 0.06: their "
            "angle, the farthest from 60 degrees",
            ORGANIZATION, 60, farthest(mate_angles(hexagons), 60), 6,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper says a hexagon and gives no angle",
        ),
        tm.Claim(
            f"{name}: norms in it, the farthest from 1",
            ORGANIZATION, 1, farthest(np.linalg.norm(hexagons, axis=1), 1), 0.06,
            kind=tm.Kind.PAPER,
            threshold="ours: read off the figure",
        ),
        tm.Claim(
            f"{name}: angle of mates of all seeds without a collapsed pair, the farthest from the "
            "optimum",
            EXACT, angle, farthest(mate_angles(weights[count == 0]), angle), 0.5,
            kind=tm.Kind.PREDICTION,
            threshold="ours: a constant rate would move it by some tenths; it is annealed",
        ),
        tm.Claim(
            f"{name}: a collapsed pair is an optimization failure, least loss over the optimum",
            ORGANIZATION, 1.01,
            loss[count > 0].min(initial=np.inf) / float(optimum["optimum_loss"]), bound=AT_LEAST,
            kind=tm.Kind.PAPER,
            threshold="ours: by more than the convergence of training",
        ),
    )  # fmt: skip


def independent(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Of as many features as in the third row."""
    represented = np.linalg.norm(matrices(results, "independent"), axis=2) > 0.5
    losses = results["independent_loss"].transpose("independent_density", "independent_seed")
    for loss, every in zip(losses, represented.all(axis=2), strict=True):
        ratio = loss.values[every].min(initial=np.inf) / loss.values[~every].min(initial=np.inf)
        yield tm.Claim(
            f"six independent features at p = {float(loss.independent_density):g} form no hexagon, "
            "share of seeds that represent all",
            ORGANIZATION, 0, every.mean(), tolerance=0.05,
            note="Features this sparse are better off in a hexagon, though few seeds find it: it "
            f"has {ratio:.2f} times the loss of the best seed without the sixth feature.",
            kind=tm.Kind.PAPER,
        )  # fmt: skip


def bases(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Of the two sets of many features, every seed."""
    gram = grams(matrices(results, "basis"))
    size = gram.shape[-1] // 2
    own = np.kron(np.eye(2), np.ones((size, size))) == 1
    itself = np.eye(2 * size) == 1
    for each, density in zip(gram, results["basis_density"].values, strict=True):
        name, across = f"two sets of {size} at p = {density:g}", each[:, ~own]
        negative = (np.minimum(across, 0) ** 2).sum(axis=1) / (across**2).sum(axis=1)
        yield from (
            tm.Claim(
                f"{name}: orthogonal within a set, largest |dot product| of all seeds",
                BASES, 0, abs(each[:, own & ~itself]).max(), 0.07, kind=tm.Kind.PAPER,
                threshold="ours: the paper shows a heat map, in which this is not seen",
            ),
            tm.Claim(
                f"{name}: mean squared norm, the seed farthest from 1",
                BASES, 1, farthest(each[:, itself].mean(axis=1), 1), 0.02, kind=tm.Kind.PAPER,
                threshold="ours: the paper shows a heat map, in which this is not seen",
            ),
            tm.Claim(
                f"{name}: interference between the sets is mostly negative, share of its square "
                "in the least seed",
                BASES, 0.5, negative.min(), bound=AT_LEAST, kind=tm.Kind.PAPER,
            ),
        )  # fmt: skip


def collapse(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Of three pairs, against density."""
    density, seeds = results["set_density"].values, f"the best of {results.sizes['set_seed']} seeds"
    count = collapsed(best(results)[:, :-1]).sum(axis=1)
    source = f"{COLLAPSING}: its windows, rounded to 0.05"
    rounded = "half of what the paper's windows are rounded to"
    for fewer, said in enumerate((0.05, 0.15, 0.225)):
        place = max(int((count > fewer).argmax()), 1)
        trained, spacing = (
            density[place - 1 : place + 1].mean(),
            np.ptp(density[place - 1 : place + 1]),
        )
        yield from (
            tm.Claim(
                f"density at which pair {fewer + 1} of {PAIRS} collapses in the optimum",
                source, said, float(results["crossing"][fewer]), 0.025, kind=tm.Kind.PAPER,
                threshold=rounded,
                note=f"Training does not find the optimum: from {trained:.3g} on, {seeds} has one "
                "more collapsed pair, a local minimum. The paper's windows are of trained models.",
            ),
            tm.Claim(
                f"density at which pair {fewer + 1} of {PAIRS} collapses in {seeds}",
                source, said, trained, 0.025, kind=tm.Kind.PAPER, threshold=rounded,
                note=f"The densities trained at are {spacing:.2g} apart there.",
            ),
        )  # fmt: skip
    optimum = (
        results["optimum_weights"].transpose("set_density", "set_hidden", "set_feature").values
    )
    alone = collapsed(optimum) & (density < 0.39)[:, None]
    norms = np.linalg.norm(optimum, axis=1).reshape(-1, PAIRS, 2)[alone]
    ratio = results["optimum_loss"].values / pca_loss(density)
    lowest_seed = (results["set_exact"] / results["optimum_loss"]).min()
    yield from (
        tm.Claim(
            "mates of a collapsed pair share one unit vector, (a + b) / sqrt 2: norms in the "
            "optimum, p < 0.39, the farthest from 0.707",
            COLLAPSING, 0.5**0.5, farthest(norms, 0.5**0.5), 0.025, kind=tm.Kind.PAPER,
            threshold="ours: the paper says so of the limit, and gives no number",
        ),
        tm.Claim(
            "the densest pairs are like PCA: loss of the optimum over that of PCA, p > 0.8, the "
            "farthest from 1",
            COLLAPSING, 1, farthest(ratio[density > 0.8], 1), 0.005, kind=tm.Kind.PAPER,
            threshold="ours: the paper says like PCA, and gives no number",
        ),
        tm.Claim(
            "no seed of three pairs is below the optimum, least exact loss over it",
            EXACT, 1, float(lowest_seed), 1e-7, AT_LEAST, kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
    )  # fmt: skip


def pca_loss(density: Any) -> Any:
    """Of a linear model of three pairs with two hidden dimensions.

    Covariances of a pair have the eigenvalues 7p/12 - p^2/2, along the sum, and p/12, along the
    difference. What is left out is one of the first and all three of the second.
    """
    return 5 * density / 6 - density**2 / 2


def plot(results: xr.Dataset) -> Figure:
    figure = Figure(figsize=(8.2, 10.8), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(2.9, 1))
    draw_panels(parts[0].subplots(4, PANELS), results)
    lower = parts[1].subplots(1, 4, width_ratios=(1, 1, 1.5, 1.5))
    for axes, density in zip(lower, results["basis_density"].values, strict=False):
        model = parameters(results.sel(basis_density=[density]), "basis")[0, 0]
        plotting.gram(axes, model[:-1], model[-1])
        axes.set_title(f"two sets of {len(model) - 1},\n$p = {density:g}$")
        axes.set_xlabel("$W^T W$ and bias")
    draw_counts(lower[2], results)
    draw_losses(lower[3], results)
    return figure


def draw_panels(panels: Any, results: xr.Dataset) -> None:
    """The four rows of small models."""
    three, _, count = organized(results)
    rows = [
        matrices(results, "pair")[0][np.argsort(results["pair_exact"].values.ravel())],
        matrices(results, "rival")[0][np.argsort(results["rival_loss"].values.ravel())],
        [*three[count == 0][: PANELS - 1], *three[count > 0]],
    ]
    p = f"$p = {results.attrs['density']:g}$"
    titles = (
        f"two pairs of correlated features, {p}: mates are orthogonal",
        f"two pairs of anticorrelated features, {p}: mates are opposite",
        f"three pairs of correlated features, {p}: mates side by side; last, a collapsed pair",
    )
    for axes, row, title in zip(panels, rows, titles, strict=False):
        for place, weights in zip(axes, row, strict=False):
            draw_plane(place, weights)
        axes[PANELS // 2].set_title(title)
    density, models = results["set_density"].values, best(results)
    for axes, wanted in zip(panels[-1], SHOWN, strict=True):
        nearest = abs(density - wanted).argmin()
        draw_plane(axes, models[nearest, :-1], (0.5**0.5, 1.0))
        axes.set_xlabel(f"$p = {density[nearest]:g}$")
    panels[-1][PANELS // 2].set_title(
        f"three pairs collapse: the best of {results.sizes['set_seed']} seeds at five densities; "
        r"circles at $1/\sqrt{2}$ and 1"
    )


def aligned(weights: Any) -> Any:
    """The pair with the widest angle first, its bisector up, and the next pair on the left."""
    order = np.argsort(-mate_angles(weights), kind="stable")
    pairs = (weights[0] + 1j * weights[1]).reshape(-1, 2)[order]
    half = np.angle(pairs[0, 1] / pairs[0, 0]) / 2
    pairs = pairs * 1j / np.exp(1j * (np.angle(pairs[0, 0]) + half))
    pairs = -pairs.conj() if pairs[1].real.sum() > 0 else pairs
    return np.stack([pairs.real, pairs.imag]).reshape(2, -1)


def draw_plane(axes: Any, weights: Any, radii: tuple[float, ...] = (1.0,)) -> None:
    """Features as spokes, coloured by their pair."""
    around = np.linspace(0, 2 * np.pi, 200)
    for radius in radii:
        axes.plot(radius * np.cos(around), radius * np.sin(around), color="0.8", lw=0.8, zorder=0)
    for number, (x, y) in enumerate(aligned(weights).T):
        axes.plot([0, x], [0, y], color=COLORS[number // 2], linewidth=1.6)
        axes.plot(x, y, "o", color=COLORS[number // 2], markersize=5)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", xticks=(), yticks=())
    axes.set_facecolor(plotting.BACKGROUND)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_counts(axes: Any, results: xr.Dataset) -> None:
    """How many pairs have collapsed: in every seed, the best one, the optimum and the paper."""
    shown = results["set_density"].values < 1  # there all planes of sums of mates are equally good
    density = results["set_density"].values[shown]
    every = collapsed(matrices(results, "set")[shown]).sum(axis=-1)
    for number, (low, high) in enumerate(WINDOWS):
        axes.fill_between([max(low, 0.008), high], number - 0.14, number + 0.14, color="#ffcc66",
                          linewidth=0, label=None if number else "paper, approximate")  # fmt: skip
        axes.scatter(density, np.full(shown.sum(), number), 60 * (every == number).mean(axis=1),
                     color="0.6", label=None if number else "share of seeds")  # fmt: skip
    axes.plot(density, collapsed(best(results)[shown, :-1]).sum(axis=1), "C3.", label="best seed")
    edges = np.array([0.008, *results["crossing"].dropna("fewer").values, 1])
    axes.stairs(range(len(edges) - 1), edges, baseline=None, color="k", lw=0.9, label="optimum")
    axes.set(xscale="log", xlabel="density $p$ of a pair", ylabel="collapsed pairs",
             yticks=range(PAIRS + 1))  # fmt: skip
    axes.legend(loc="center left", bbox_to_anchor=(-0.02, 0.67))


def draw_losses(axes: Any, results: xr.Dataset) -> None:
    """Every seed, the branches of exact minima, and PCA over the optimum."""
    density, optimum = results["set_density"].values, results["optimum_loss"]
    every = (results["set_exact"] / optimum).transpose("set_density", "set_seed")
    axes.plot(density, every, ".", color="0.7", markersize=3, rasterized=True)
    for number, color in enumerate(BRANCH_COLORS):
        loss = results["branch_loss"].isel(branch=number) / optimum
        axes.plot(density, loss, color=color, label=f"{number} collapsed")
    axes.plot(density, pca_loss(density) / optimum, "k--", linewidth=0.8, label="PCA")
    axes.set(xscale="log", xlabel="density $p$ of a pair", ylabel="exact loss / least exact loss",
             ylim=(0.99, 1.2))  # fmt: skip
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, 1))


if __name__ == "__main__":
    experiment.main(__file__)
