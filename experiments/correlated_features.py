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
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import expected_loss_correlated, frames

WORK = "Elhage et al. (2022)"
ORGANIZATION = tm.paper(f"{WORK}, Organization of Correlated and Anticorrelated Features")
BASES = tm.paper(f"{WORK}, Local Almost-Orthogonal Bases")
COLLAPSING = tm.paper(f"{WORK}, Collapsing of Correlated Features")
EXACT = tm.prediction("toymodels.theory.correlated")
CONVERGENCE = "Ours, because training does not converge entirely."
SEEN = "Ours, because it is read off the figure."
ROUNDING = "Ours, because numbers are rounded."
PAIRS = 3
PANELS = 5
SHOWN = (0.7, 0.4, 0.175, 0.1, 0.01)
"""Densities of the panels of the collapse, one from each of the paper's windows."""
WINDOWS = ((0.0, 0.05), (0.05, 0.15), (0.15, 0.2), (0.25, 0.5))
"""The paper's approximate densities of 0, 1, 2 and 3 collapsed pairs."""
CROSSINGS = ((0.05, 0.1), (0.12, 0.15), (0.35, 0.4))
"""Between these densities one more pair collapses in the optimum."""
COLORS = ("#d55e00", "#0072b2", "#009e73")
BRANCH_COLORS = ("#cc79a7", "#0072b2", "#009e73", "#d55e00")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    density: float = 0.05
    """The density of a set in the first three rows; one of `densities`."""
    densities: tuple[float, ...] = (
        *(0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.12, 0.15, 0.175),
        *(0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 0.85, 1.0),
    )
    """The density of the three pairs that collapse."""
    pair_densities: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.25, 0.3)
    """The densities at which the optimum of two pairs is computed; `density` is one of them."""
    independent_densities: tuple[float, ...] = (0.01, 0.05)
    basis_densities: tuple[float, ...] = (0.05, 0.01)
    num_seeds: int = 32
    num_bases: int = 5
    set_size: int = 10
    """Features of a set of the bases, and hidden dimensions."""
    start: float = 0.05
    """Standard deviation of the first weights."""
    training: tm.Recipe = tm.Recipe(steps=10_000, batch=1024, learning_rate=5e-3)


# The bases are those of pairs, so that one program less is compiled.
SMOKE = Config(
    densities=(0.05,),
    pair_densities=(0.05,),
    independent_densities=(0.05,),
    basis_densities=(0.05,),
    num_seeds=5,
    num_bases=5,
    set_size=2,
    training=tm.Recipe(steps=20, batch=64, learning_rate=5e-3),
)


def train(
    config: Config,
    name: str,
    features: Callable[[float], tm.Features],
    densities: tuple[float, ...],
    *,
    hidden: int = 2,
    num_seeds: int,
) -> xr.Dataset:
    """Train all seeds of one kind of features; its variables and dimensions begin with `name`."""
    model = tm.ReLUOutput(hidden, initializer=jax.nn.initializers.normal(config.start))

    def cell(key, *, density):
        task, evaluation = tm.Task(features(density)), jax.random.key(2022)
        trained = config.training.train(key, model, task, key_evaluation=evaluation)
        return {**trained.params, "loss": trained.loss}

    own = {"weights": ("hidden", "feature"), "bias": ("feature",)}
    results = tm.sweep(cell, axes={"density": densities}, num_seeds=num_seeds, dims=own)
    return results.rename({label: f"{name}_{label}" for label in (*results.dims, *results)})


@jax.jit
def _loss_and_slopes(parameters, density, importance):
    def loss(parameters):
        weights, bias = parameters[:-1], parameters[-1]
        return expected_loss_correlated(weights, bias, density, importance, num_sets=PAIRS)

    return jax.value_and_grad(loss)(parameters)


def loss_and_slopes(parameters, density) -> tuple[float, np.ndarray]:
    """Return the exact loss of up to three pairs; one of density 0 is absent, of no importance.

    `parameters` are the weights, and one more row for the bias.
    """
    importance = np.repeat(np.asarray(density) > 0, 2) * 1.0
    with jax.enable_x64(True):
        loss, slopes = _loss_and_slopes(parameters, density, importance)
        return float(loss), np.asarray(slopes)


class Solution(NamedTuple):
    """A model and its exact loss."""

    weights: Float[np.ndarray, "hidden features"]
    loss: float


def descend(weights, bias, density) -> Solution:
    """Return the minimum of the exact loss below a start, by BFGS."""
    start = np.vstack([weights, bias]).astype(float)
    unit = np.max(density)

    def value(parameters):
        loss, slopes = loss_and_slopes(parameters.reshape(start.shape), density)
        return loss / unit, slopes.ravel() / unit

    found = optimize.minimize(value, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-8})
    return Solution(found.x.reshape(start.shape)[:-1], float(unit * found.fun))


def arrangement(num_collapsed: int, num_corners: int) -> Float[np.ndarray, "2 features"]:
    """Return the corners of a polygon, a little disturbed; pairs share the last of them."""
    corners = frames.regular_polygon(num_corners)
    apart = 2 * (PAIRS - num_collapsed)
    shared = np.repeat(corners[:, apart : apart + num_collapsed], 2, axis=1) / np.sqrt(2)
    nudge = 1e-3 * np.random.default_rng(0).standard_normal((2, 2 * PAIRS))
    return np.hstack([corners[:, :apart], shared]) + nudge


def branch(num_collapsed: int, density: float) -> Solution:
    """Return the minimum in which so many pairs have collapsed; of loss NaN if there is none.

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
    """Return the density at which the branches with so many collapsed pairs and one more are equal.

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
    """Return the optimum of two pairs, orthogonal mates or collapsed ones."""
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
    results = xr.merge(
        [
            train(config, "pair", lambda p: tm.CorrelatedSets(2, 2, p), one, num_seeds=seeds),
            train(config, "rival", lambda p: tm.AnticorrelatedSets(2, 2, p), one, num_seeds=seeds),
            train(config, "set", lambda p: tm.CorrelatedSets(PAIRS, 2, p), many, num_seeds=seeds),
            train(
                config,
                "independent",
                lambda p: tm.SparseUniform(2 * PAIRS, p),
                config.independent_densities,
                num_seeds=seeds,
            ),
            train(
                config,
                "basis",
                lambda p: tm.CorrelatedSets(2, config.set_size, p),
                config.basis_densities,
                hidden=config.set_size,
                num_seeds=config.num_bases,
            ),
        ]
    )
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


def parameters(results: xr.Dataset, name: str) -> np.ndarray:
    """Return density x seed x (hidden and bias) x feature."""
    dims = [f"{name}_{dim}" for dim in ("density", "seed", "hidden", "feature")]
    weights = results[f"{name}_weights"].transpose(*dims).values
    bias = results[f"{name}_bias"].transpose(*dims[:2], dims[3]).values
    return np.concatenate([weights, bias[:, :, None]], axis=2).astype(float)


def matrices(results: xr.Dataset, name: str) -> np.ndarray:
    return parameters(results, name)[:, :, :-1]


def best(results: xr.Dataset) -> Float[np.ndarray, "density rows feature"]:
    """Return the seed of the lowest exact loss at every density of the three pairs."""
    chosen = results["set_exact"].transpose("set_density", "set_seed").values.argmin(axis=1)
    return parameters(results, "set")[np.arange(len(chosen)), chosen]


def mate_angles(
    weights: Float[np.ndarray, "... hidden features"],
) -> Float[np.ndarray, "... pairs"]:
    """Return the angle between the two features of each pair, in degrees."""
    first, second = weights[..., ::2], weights[..., 1::2]
    lengths = np.linalg.norm(first, axis=-2) * np.linalg.norm(second, axis=-2)
    cosine = (first * second).sum(axis=-2) / np.maximum(lengths, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def collapsed(weights: Float[np.ndarray, "... hidden features"]) -> np.ndarray:
    """Return which pairs have mates less than 30 degrees apart, half-way to those of a hexagon."""
    return mate_angles(weights) < 30


def grams(weights: np.ndarray) -> np.ndarray:
    return np.swapaxes(weights, -1, -2) @ weights


def claims(results: xr.Dataset) -> list[tm.Claim]:
    parts = (correlated, anticorrelated, side_by_side, independent, bases, collapse)
    return [*itertools.chain.from_iterable(part(results) for part in parts)]


def farthest(values: np.ndarray, center: float) -> float:
    """Return the value farthest from `center`; NaN if there is none."""
    return float(values.flat[abs(values - center).argmax()]) if values.size else float("nan")


def correlated(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Claim what the first row shows, for every seed."""
    name, weights, two = "two correlated pairs", matrices(results, "pair")[0], results.two_loss
    norms = np.linalg.norm(weights, axis=1)
    sparse, dense = two.two_density.values[[0, -1]]

    says = f"The mates of {name} are orthogonal in every seed, by the largest |dot product|."
    largest = abs(grams(weights)[:, [0, 2], [1, 3]]).max()
    yield tm.near(says, 0, largest, ORGANIZATION, within=0.015, threshold=SEEN)

    says = f"Each feature of {name} is opposite to one of the other pair, by its tilt in degrees."
    tilt = 180 - np.degrees(np.arccos(grams(weights / norms[:, None])[:, :2, 2:].min(axis=2)))
    source = tm.paper(f"{ORGANIZATION.text}: read off its figure")
    yield tm.at_most(says, 5, tilt.max(), source)

    says = f"The norm of every feature of {name} is about 1 in every seed."
    yield tm.near(says, 1, farthest(norms, 1), ORGANIZATION, within=0.02, threshold=SEEN)

    says = f"Every seed of {name} ends at the exact loss of the optimum, by the largest ratio."
    optimum = float(two.sel(two_density=results.attrs["density"]))
    ended = results.pair_exact.values / optimum
    yield tm.near(says, 1, ended.max(), EXACT, within=0.001, threshold=CONVERGENCE)

    says = (
        f"The optimum of {name} at density {sparse:g} errs only where both are present, by its "
        "loss over the squared density."
    )
    source = tm.prediction("Closed form: opposite features without bias")
    threshold = "Ours, because there are terms of higher order in p."
    ratio = float(two[0]) / sparse**2
    yield tm.near(says, 2 / 3, ratio, source, within=0.005, threshold=threshold)

    says = (
        f"Both of {name} have collapsed in the optimum at density {dense:g}, by loss over density."
    )
    source = tm.identity("Closed form: principal components")
    yield tm.near(says, 1 / 6, float(two[-1]) / dense, source, within=1e-6, threshold=ROUNDING)


def anticorrelated(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Claim what the second row shows."""
    name, gram = "two anticorrelated pairs", grams(matrices(results, "rival")[0])
    loss = results.rival_loss.values.ravel()
    shown = np.argsort(loss)[:PANELS]
    apart = np.kron(np.eye(2), [[1, -1], [-1, 1]])

    says = f"The mates of {name} are opposite and the pairs orthogonal in the panels, by W^T W."
    gap = abs(gram[shown] - apart).max()
    yield tm.near(says, 0, gap, ORGANIZATION, within=0.005, threshold=CONVERGENCE)

    says = f"The loss of the models of {name} in the panels is zero."
    source = tm.prediction("Closed form: tests/test_correlated.py")
    threshold = "Ours, because of rounding in single precision."
    yield tm.near(says, 0, loss[shown].max(), source, within=1e-9, threshold=threshold)

    says = f"All seeds of {name} end with opposite mates and orthogonal pairs."
    threshold = "Ours, because the paper shows five runs and does not say how many it made."
    share = (abs(gram - apart) < 0.05).all(axis=(1, 2)).mean()
    note = (
        "The paper shows five and does not say how they were selected. Our other seeds end in a "
        "local minimum, that of correlated pairs: mates are orthogonal, and errors come only where "
        "both pairs are present."
    )
    yield tm.at_least(says, 1, share, ORGANIZATION, threshold=threshold, note=note)


def organized(results: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the third row: weights of every seed, best first; losses; how many pairs collapsed."""
    row = results.sel(set_density=[results.attrs["density"]])
    order = np.argsort(row.set_exact.values[0])
    weights = matrices(row, "set")[0][order]
    return weights, row.set_exact.values[0][order], collapsed(weights).sum(axis=1)


def side_by_side(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Claim what the third row shows."""
    name, (weights, loss, count) = "three correlated pairs", organized(results)
    optimum = results.sel(set_density=results.attrs["density"])
    sparse = results.sel(set_density=results.set_density < 0.06).optimum_weights
    hexagons = sparse.transpose("set_density", "set_hidden", "set_feature").values

    says = (
        f"The optimum of {name} at density below 0.06 is about a hexagon with mates side by side, "
        "by the angle of mates that is farthest from 60 degrees."
    )
    angle = farthest(mate_angles(hexagons), 60)
    threshold = "Ours, because the paper says a hexagon and gives no angle."
    yield tm.near(says, 60, angle, ORGANIZATION, within=6, threshold=threshold)

    says = f"The norm of every feature in the optimum of {name} at density below 0.06 is about 1."
    norm = farthest(np.linalg.norm(hexagons, axis=1), 1)
    yield tm.near(says, 1, norm, ORGANIZATION, within=0.06, threshold=SEEN)

    says = f"Mates of {name} have the angle of the optimum in seeds without a collapsed pair."
    expected = mate_angles(optimum.optimum_weights.values).mean()
    angle = farthest(mate_angles(weights[count == 0]), expected)
    threshold = "Ours, because a constant rate would move it by some tenths; it is annealed."
    yield tm.near(says, expected, angle, EXACT, within=0.5, threshold=threshold)

    says = (
        f"A collapsed pair among {name} is an optimization failure, by its loss over the optimum."
    )
    ratio = loss[count > 0].min(initial=np.inf) / float(optimum.optimum_loss)
    threshold = "Ours, because it is more than the convergence of training."
    yield tm.at_least(says, 1.01, ratio, ORGANIZATION, threshold=threshold)


def independent(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Claim that as many independent features as in the third row form no hexagon."""
    represented = np.linalg.norm(matrices(results, "independent"), axis=2) > 0.5
    losses = results.independent_loss.transpose("independent_density", "independent_seed")
    for loss, every in zip(losses, represented.all(axis=2), strict=True):
        ratio = loss.values[every].min(initial=np.inf) / loss.values[~every].min(initial=np.inf)
        density = float(loss.independent_density)
        says = f"Hardly any seed of six independent features at density {density:g} represents all."
        note = (
            "Features this sparse are better off in a hexagon, though few seeds find it: it has "
            f"{ratio:.2f} times the loss of the best seed without the sixth feature."
        )
        yield tm.near(says, 0, every.mean(), ORGANIZATION, within=0.05, note=note)


def bases(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Claim what the two sets of many features show, for every seed."""
    gram = grams(matrices(results, "basis"))
    size = gram.shape[-1] // 2
    own = np.kron(np.eye(2), np.ones((size, size))) == 1
    itself = np.eye(2 * size) == 1
    threshold = "Ours, because the paper shows a heat map, in which this is not seen."
    for each, density in zip(gram, results.basis_density.values, strict=True):
        name, across = f"two sets of {size} at density {density:g}", each[:, ~own]

        says = f"The features within a set are orthogonal in every seed of {name}."
        largest = abs(each[:, own & ~itself]).max()
        yield tm.near(says, 0, largest, BASES, within=0.07, threshold=threshold)

        says = f"The mean squared norm of the features is about 1 in every seed of {name}."
        norm = farthest(each[:, itself].mean(axis=1), 1)
        yield tm.near(says, 1, norm, BASES, within=0.02, threshold=threshold)

        says = f"Interference between the sets is mostly negative in every seed of {name}."
        negative = (np.minimum(across, 0) ** 2).sum(axis=1) / (across**2).sum(axis=1)
        yield tm.at_least(says, 0.5, negative.min(), BASES)


def collapse(results: xr.Dataset) -> Iterator[tm.Claim]:
    """Claim how three pairs collapse with density."""
    density, seeds = results.set_density.values, f"the best of {results.sizes['set_seed']} seeds"
    count = collapsed(best(results)[:, :-1]).sum(axis=1)
    source = tm.paper(f"{COLLAPSING.text}: its windows, rounded to 0.05")
    rounded = "Ours, because it is half of what the paper's windows are rounded to."
    for fewer, said in enumerate((0.05, 0.15, 0.225)):
        place = max(int((count > fewer).argmax()), 1)
        around = density[place - 1 : place + 1]
        pair = f"pair {fewer + 1} of {PAIRS} collapses"

        says = f"The density at which {pair} in the optimum is that of the paper's windows."
        note = (
            f"Training does not find the optimum: from {around.mean():.3g} on, {seeds} has one "
            "more collapsed pair, a local minimum. The paper's windows are of trained models."
        )
        found = float(results.crossing[fewer])
        yield tm.near(says, said, found, source, within=0.025, threshold=rounded, note=note)

        says = f"The density at which {pair} in {seeds} is that of the paper's windows."
        note = f"The densities trained at are {np.ptp(around):.2g} apart there."
        found = around.mean()
        yield tm.near(says, said, found, source, within=0.025, threshold=rounded, note=note)

    optimum = results.optimum_weights.transpose("set_density", "set_hidden", "set_feature").values
    says = (
        "The mates of a collapsed pair share one unit vector, (a + b) / sqrt 2, in the optimum at "
        "density below 0.39, by the norm farthest from 0.707."
    )
    alone = collapsed(optimum) & (density < 0.39)[:, None]
    norm = farthest(np.linalg.norm(optimum, axis=1).reshape(-1, PAIRS, 2)[alone], 0.5**0.5)
    threshold = "Ours, because the paper says so of the limit, and gives no number."
    yield tm.near(says, 0.5**0.5, norm, COLLAPSING, within=0.025, threshold=threshold)

    says = "The loss of the optimum of three pairs at density above 0.8 is that of PCA."
    ratio = farthest((results.optimum_loss.values / pca_loss(density))[density > 0.8], 1)
    threshold = "Ours, because the paper says like PCA, and gives no number."
    yield tm.near(says, 1, ratio, COLLAPSING, within=0.005, threshold=threshold)

    says = "No seed of three pairs has an exact loss below that of the optimum, by their ratio."
    ratio, source = (results.set_exact / results.optimum_loss).min(), tm.identity(EXACT.text)
    yield tm.at_least(says, 1, ratio, source, slack=1e-7, threshold=ROUNDING)


def pca_loss(density: np.ndarray) -> np.ndarray:
    """Return the loss of a linear model of three pairs with two hidden dimensions.

    Covariances of a pair have the eigenvalues 7p/12 - p^2/2, along the sum, and p/12, along the
    difference. What is left out is one of the first and all three of the second.
    """
    return 5 * density / 6 - density**2 / 2


def plot(results: xr.Dataset) -> Figure:
    figure, parts = plotting.figure_of_parts(2, 1, size=(8.2, 10.8), height_ratios=(2.9, 1))
    draw_panels(parts[0].subplots(4, PANELS), results)
    lower = parts[1].subplots(1, 4, width_ratios=(1, 1, 1.5, 1.5))
    for axes, density in zip(lower, results["basis_density"].values, strict=False):
        model = parameters(results.sel(basis_density=[density]), "basis")[0, 0]
        plotting.gram(axes, model[:-1], model[-1])
        axes.set_title(f"two sets of {len(model) - 1},\nseed 0, $p = {density:g}$")
        axes.set_xlabel("$W^T W$ and bias")
    draw_counts(lower[2], results)
    draw_losses(lower[3], results)
    return figure


def draw_panels(panels: np.ndarray, results: xr.Dataset) -> None:
    """Draw the four rows of small models."""
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


def aligned(weights: np.ndarray) -> np.ndarray:
    """Turn the pair with the widest angle up, and put it first and the next pair on the left."""
    order = np.argsort(-mate_angles(weights), kind="stable")
    pairs = (weights[0] + 1j * weights[1]).reshape(-1, 2)[order]
    half = np.angle(pairs[0, 1] / pairs[0, 0]) / 2
    pairs = pairs * 1j / np.exp(1j * (np.angle(pairs[0, 0]) + half))
    pairs = -pairs.conj() if pairs[1].real.sum() > 0 else pairs
    return np.stack([pairs.real, pairs.imag]).reshape(2, -1)


def draw_plane(axes: Axes, weights: np.ndarray, radii: tuple[float, ...] = (1.0,)) -> None:
    """Draw features as spokes, coloured by their pair."""
    colors = [COLORS[feature // 2] for feature in range(weights.shape[1])]
    plotting.spokes(axes, aligned(weights), color=colors, limit=1.25, circles=radii)


def draw_counts(axes: Axes, results: xr.Dataset) -> None:
    """Draw how many pairs collapsed: in every seed, the best one, the optimum and the paper."""
    shown = results["set_density"].values < 1  # there all planes of sums of mates are equally good
    density = results["set_density"].values[shown]
    every = collapsed(matrices(results, "set")[shown]).sum(axis=-1)
    for number, (low, high) in enumerate(WINDOWS):
        axes.fill_between(
            [max(low, 0.008), high],
            number - 0.14,
            number + 0.14,
            color="#ffcc66",
            linewidth=0,
            label=None if number else "paper, approximate",
        )
        axes.scatter(
            density,
            np.full(shown.sum(), number),
            60 * (every == number).mean(axis=1),
            color="0.6",
            label=None if number else "share of seeds",
        )
    axes.plot(density, collapsed(best(results)[shown, :-1]).sum(axis=1), "C3.", label="best seed")
    edges = np.array([0.008, *results["crossing"].dropna("fewer").values, 1])
    axes.stairs(range(len(edges) - 1), edges, baseline=None, color="k", lw=0.9, label="optimum")
    axes.set(
        xscale="log",
        xlabel="density $p$ of a pair",
        ylabel="collapsed pairs",
        yticks=range(PAIRS + 1),
    )
    axes.legend(loc="center left", bbox_to_anchor=(-0.02, 0.67))


def draw_losses(axes: Axes, results: xr.Dataset) -> None:
    """Draw every seed, the branches of exact minima, and PCA over the optimum."""
    density, optimum = results["set_density"].values, results["optimum_loss"]
    every = (results["set_exact"] / optimum).transpose("set_density", "set_seed")
    axes.plot(density, every, ".", color="0.7", markersize=3, rasterized=True)
    for number, color in enumerate(BRANCH_COLORS):
        loss = results["branch_loss"].isel(branch=number) / optimum
        axes.plot(density, loss, color=color, label=f"{number} collapsed")
    axes.plot(density, pca_loss(density) / optimum, "k--", linewidth=0.8, label="PCA")
    axes.set(
        xscale="log",
        xlabel="density $p$ of a pair",
        ylabel="exact loss / that of the optimum",
        ylim=(0.99, 1.2),
    )
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, 1))


if __name__ == "__main__":
    experiment.main(__file__)
