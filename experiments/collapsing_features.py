r"""Three pairs of correlated features: a hexagon that collapses to principal components.

Claim      In two dimensions, the two features of each of three sparse pairs, its mates, stand side
           by side in a hexagon, which six independent features hardly ever form. As pairs get
           denser, one after the other collapses to its principal component $(a + b) / \sqrt 2$,
           until the solution is that of PCA.
Reproduces Elhage et al. (2022), "Organization of Correlated and Anticorrelated Features" and
           "Collapsing of Correlated Features". For two pairs see `correlated_features.py`.
Settings   From the paper: three pairs, n and m, and approximate densities of the collapse. Ours,
           because it states none: density 0.05 in the first row; equal importance; weights start at
           a normal of 0.05; Adam from 5e-3 down a cosine, 10,000 steps of 1024 examples; 32 seeds.
Selection  Panels are the seeds of lowest exact loss; the last panel of the first row is the lowest
           of those in which a pair collapsed. They are turned, mirrored and coloured alike: blue is
           the pair with the widest angle.
Exact      The optimum at a density is the lowest minimum of the exact loss below six starts:
           polygons in which 0, 1, 2 or 3 pairs have collapsed to a corner, and the best seed.
Command    toymodels run experiments/collapsing_features.py
"""

import dataclasses

import jax
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import expected_loss_correlated, pairs

WORK = "Elhage et al. (2022)"
ORGANIZATION = tm.paper(f"{WORK}, Organization of Correlated and Anticorrelated Features")
COLLAPSING = tm.paper(f"{WORK}, Collapsing of Correlated Features")
OF_WINDOWS = tm.paper(f"{COLLAPSING.text}: its ranges of density, rounded to 0.05")
EXACT = "toymodels.theory.expected_loss_correlated"
SEEN = "Ours, because it is read off the figure."
ROUNDED = "Ours, because it is half of what the paper's densities are rounded to."
PAIRS = 3
PANELS = 5
SHOWN = (0.7, 0.4, 0.175, 0.1, 0.01)
"""Densities of the panels of the collapse, one from each of the paper's windows."""
WINDOWS = ((0.0, 0.05), (0.05, 0.15), (0.15, 0.2), (0.25, 0.5))
"""The paper's approximate densities of 0, 1, 2 and 3 collapsed pairs."""
CROSSINGS = ((0.05, 0.1), (0.12, 0.15), (0.35, 0.4))
"""Between these densities one more pair collapses in the optimum."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    density: float = 0.05
    """The density of a pair in the first row; one of `densities`."""
    densities: tuple[float, ...] = (
        *(0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.12, 0.15, 0.175),
        *(0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 0.85, 1.0),
    )
    independent_densities: tuple[float, ...] = (0.01, 0.05)
    num_seeds: int = 32
    start: float = 0.05
    """Standard deviation of the first weights."""
    training: tm.Recipe = tm.Recipe(steps=10_000, batch=1024, learning_rate=5e-3)


SMOKE = Config(
    densities=(0.05,),
    independent_densities=(0.05,),
    num_seeds=5,
    training=tm.Recipe(steps=20, batch=64, learning_rate=5e-3),
)


def run(config: Config) -> xr.Dataset:
    model = tm.ReLUOutput(2, initializer=jax.nn.initializers.normal(config.start))

    def train(features, densities) -> xr.Dataset:
        def cell(key, *, density):
            task, evaluation = tm.Task(features(density)), jax.random.key(2022)
            trained = config.training.train(key, model, task, key_evaluation=evaluation)
            return {**trained.params, "loss": trained.loss}

        own = {"weights": ("hidden", "feature"), "bias": ("feature",)}
        axes = {"density": densities}
        return tm.sweep(cell, axes=axes, num_seeds=config.num_seeds, dims=own)

    results = train(lambda p: tm.CorrelatedSets(PAIRS, 2, p), config.densities)
    independent = train(lambda p: tm.SparseUniform(2 * PAIRS, p), config.independent_densities)
    results["exact_loss"] = tm.apply(
        lambda *cell: expected_loss_correlated(*cell, num_sets=PAIRS),
        *(results.weights, results.bias, results.density),
        float64=True,
    )
    independent = independent[["weights", "loss"]].rename(density="independent_density")
    results = results.merge(independent.rename(weights="independent", loss="independent_loss"))
    return results.merge(optima(results)).assign_attrs(density=config.density)


def optima(results: xr.Dataset) -> xr.Dataset:
    """Return the minima of the exact loss at all densities, and where they cross."""
    densities, best = results.density.values, tm.best_of(results, "exact_loss")
    weights = best.weights.transpose("density", "hidden", "feature").values
    branches = [[pairs.branch(PAIRS, number, p) for p in densities] for number in range(PAIRS + 1)]
    below_best = map(pairs.descend, weights, best.bias.transpose("density", ...).values, densities)
    found = [
        min(solutions, key=lambda each: np.nan_to_num(each.loss, nan=np.inf))
        for solutions in zip(*branches, below_best, strict=True)
    ]
    crossings = [
        pairs.crossing(PAIRS, fewer, between=between)
        if densities.min() <= min(between) < max(between) <= densities.max()
        else np.nan
        for fewer, between in enumerate(CROSSINGS)
    ]
    return xr.Dataset(
        {
            "branch_loss": (("branch", "density"), [[at.loss for at in row] for row in branches]),
            "optimum": (("density", "hidden", "feature"), [each.weights for each in found]),
            "optimum_loss": ("density", [each.loss for each in found]),
            "crossing": ("fewer", crossings),
        },
        coords={"density": results.density},
    )


def models(weights: xr.DataArray) -> np.ndarray:
    """Return weights with hidden dimensions and features last, in double precision."""
    return weights.transpose(..., "hidden", "feature").values.astype(float)


def farthest(values: np.ndarray, center: float) -> float:
    """Return the value farthest from `center`; NaN if there is none."""
    return float(values.flat[abs(values - center).argmax()]) if values.size else float("nan")


def claims(results: xr.Dataset) -> tm.Claims:
    yield from side_by_side(results)
    yield from independent(results)
    yield from collapse(results)


def organized(results: xr.Dataset) -> xr.Dataset:
    """Return the models of the first row, the one of lowest exact loss first."""
    row = results.sel(density=results.attrs["density"]).sortby("exact_loss")
    return row.assign(collapsed=("seed", pairs.collapsed(models(row.weights)).sum(axis=1)))


def side_by_side(results: xr.Dataset) -> tm.Claims:
    name, row = "three correlated pairs", organized(results)
    hexagons = models(results.optimum.sel(density=results.density < 0.06))

    says = f"The optimum of {name} at density below 0.06 is about a hexagon with the two features "
    says += "of each pair side by side, measured by the angle between two such features that is "
    says += "farthest from 60 degrees."
    angle = farthest(pairs.mate_angles(hexagons), 60)
    threshold = "Ours, because the paper says a hexagon and gives no angle."
    yield tm.near(says, 60, angle, ORGANIZATION, within=6, threshold=threshold)

    says = f"The norm of every feature in the optimum of {name} at density below 0.06 is about 1, "
    says += "measured by the one farthest from it."
    norm = farthest(np.linalg.norm(hexagons, axis=1), 1)
    yield tm.near(says, 1, norm, ORGANIZATION, within=0.06, threshold=SEEN)

    says = f"The two features of each of {name} have the angle of the optimum in seeds without a "
    says += "collapsed pair, measured by the angle that is farthest from it."
    expected = pairs.mate_angles(models(row.optimum)).mean()
    found = pairs.mate_angles(models(row.weights)[row.collapsed.values == 0])
    angle, source = farthest(found, expected), tm.prediction(EXACT)
    threshold = "Ours, because a constant rate would move it by some tenths; it is annealed."
    yield tm.near(says, expected, angle, source, within=0.5, threshold=threshold)

    says = f"A collapsed pair among {name} is an optimization failure, measured by the lowest loss "
    says += "with such a pair over that of the optimum."
    ratio = row.exact_loss.where(row.collapsed > 0, np.inf).min() / row.optimum_loss
    threshold = "Ours, because it is more than the convergence of training."
    yield tm.at_least(says, 1.01, ratio, ORGANIZATION, threshold=threshold)


def independent(results: xr.Dataset) -> tm.Claims:
    every = (np.sqrt((results.independent**2).sum("hidden")) > 0.5).all("feature")
    all_six = results.independent_loss.where(every, np.inf).min("seed")
    ratios = all_six / results.independent_loss.where(~every, np.inf).min("seed")
    for ratio, share in zip(ratios, every.mean("seed"), strict=True):
        density = float(ratio.independent_density)
        says = f"Hardly any seed of six independent features at density {density:g} represents all "
        says += "six, measured by the share of the seeds."
        note = "Features this sparse are better off in a hexagon, though few seeds find it: it has "
        note += f"{float(ratio):.2f} times the loss of the best seed without the sixth feature."
        yield tm.near(says, 0, share, ORGANIZATION, within=0.05, note=note)


def best_count(results: xr.Dataset) -> np.ndarray:
    """Return how many pairs have collapsed in the seed of lowest exact loss at each density."""
    best = tm.best_of(results[["weights", "exact_loss"]], "exact_loss")
    return pairs.collapsed(models(best.weights)).sum(axis=1)


def collapse(results: xr.Dataset) -> tm.Claims:
    density, seeds = results.density.values, f"the best of {results.sizes['seed']} seeds"
    for fewer, said in enumerate((0.05, 0.15, 0.225)):
        place = max(int((best_count(results) > fewer).argmax()), 1)
        around = density[place - 1 : place + 1]
        pair = f"pair {fewer + 1} of {PAIRS} collapses"

        says = f"The density at which {pair} in the optimum is the one that the paper gives."
        note = f"Training does not find the optimum: from {around.mean():.3g} on, {seeds} has one "
        note += "more collapsed pair, a local minimum. The paper's densities are those of trained "
        note += "models."
        found = results.crossing[fewer]
        yield tm.near(says, said, found, OF_WINDOWS, within=0.025, threshold=ROUNDED, note=note)

        says = f"The density at which {pair} in {seeds} is the one that the paper gives."
        note = f"The densities trained at are {np.ptp(around):.2g} apart there."
        found = around.mean()
        yield tm.near(says, said, found, OF_WINDOWS, within=0.025, threshold=ROUNDED, note=note)

    says = "The two features of a collapsed pair share one unit vector, so that each has the norm "
    says += "0.707, in the optimum of three pairs at density below 0.39, measured by the norm "
    says += "farthest from it."
    optimum = models(results.optimum)
    alone = pairs.collapsed(optimum) & (density < 0.39)[:, None]
    norm = farthest(np.linalg.norm(optimum, axis=1).reshape(-1, PAIRS, 2)[alone], 0.5**0.5)
    threshold = "Ours, because the paper says so of the limit, and gives no number."
    yield tm.near(says, 0.5**0.5, norm, COLLAPSING, within=0.025, threshold=threshold)

    says = "The loss of the optimum of three pairs at density above 0.8 is that of principal "
    says += "components, measured by the ratio farthest from 1."
    ratios = results.optimum_loss / pairs.pca_loss(PAIRS, results.density)
    ratio = farthest(ratios.values[density > 0.8], 1)
    threshold = "Ours, because the paper says like PCA, and gives no number."
    yield tm.near(says, 1, ratio, COLLAPSING, within=0.005, threshold=threshold)

    says = "No seed of three pairs has an exact loss below that of the optimum, measured by the "
    says += "smallest ratio of the two."
    ratio, source = (results.exact_loss / results.optimum_loss).min(), tm.identity(EXACT)
    threshold = "Ours, because numbers are rounded."
    yield tm.at_least(says, 1, ratio, source, slack=1e-7, threshold=threshold)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, parts = plotting.figure_of_parts(2, 1, size=(8.2, 6.8), height_ratios=(1.35, 1))
    above, below = parts[0].subplots(2, PANELS)
    row, failed = organized(results), organized(results).collapsed > 0
    shown = [*models(row.weights[~failed])[: PANELS - 1], *models(row.weights[failed])]
    for axes, weights in zip(above, shown, strict=False):
        plotting.pair_spokes(axes, weights)
    seeds = results.sizes["seed"]
    above[PANELS // 2].set_title(
        f"At $p = {results.attrs['density']:g}$ mates stand side by side in a hexagon: the best of "
        f"{seeds} seeds (last: the best with a collapsed pair)"
    )
    best = tm.best_of(results[["weights", "exact_loss"]], "exact_loss").weights
    for axes, density in zip(below, SHOWN, strict=True):
        model = best.sel(density=density, method="nearest")
        plotting.pair_spokes(axes, models(model), circles=(0.5**0.5, 1.0))
        axes.set_xlabel(f"$p = {float(model.density):g}$")
    below[PANELS // 2].set_title(
        f"Dense pairs collapse: the best of {seeds} seeds at five densities (circles at "
        r"$1/\sqrt{2}$ and 1)"
    )
    counts, losses = parts[1].subplots(1, 2)
    draw_counts(counts, results.sel(density=results.density < 1))
    draw_losses(losses, results)
    return figure


def draw_counts(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw how many pairs collapsed: in every seed, the best one, the optimum and the paper.

    At density 1 all planes of sums of mates are equally good, so it is left out.
    """
    density, every = results.density, pairs.collapsed(models(results.weights)).sum(axis=-1)
    for number, (low, high) in enumerate(WINDOWS):
        band = {"color": "#ffcc66", "label": None if number else "paper, approximate"}
        axes.barh(number, high - max(low, 0.008), 0.28, max(low, 0.008), **band)
        share = 60 * (every == number).mean(axis=1)
        label = None if number else "share of seeds"
        axes.scatter(density, np.full(density.size, number), share, color="0.6", label=label)
    axes.plot(density, best_count(results), "C1.", label="best seed")
    edges = np.array([0.008, *results.crossing.dropna("fewer").values, 1])
    axes.stairs(range(len(edges) - 1), edges, baseline=None, color="k", lw=0.9, label="optimum")
    axes.set(ylabel="collapsed pairs", yticks=range(PAIRS + 1))
    axes.set_title("The third pair of the best seed collapses too early")
    plotting.density_axis(axes)
    axes.legend(loc="center left", bbox_to_anchor=(0, 0.67))


def draw_losses(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw every seed, the branches of exact minima, and PCA over the optimum."""
    density, every = results.density, results.exact_loss / results.optimum_loss
    axes.plot(density, every.transpose("density", "seed"), ".", color="0.7", ms=3, rasterized=True)
    for number, loss in enumerate(results.branch_loss.transpose("branch", "density")):
        axes.plot(density, loss / results.optimum_loss, label=f"{number} collapsed")
    linear = pairs.pca_loss(PAIRS, density) / results.optimum_loss
    axes.plot(density, linear, "k--", linewidth=0.8, label="PCA")
    axes.set(ylabel="exact loss / that of the optimum", ylim=(0.99, 1.2))
    axes.set_title("Each number of collapsed pairs has its densities")
    plotting.density_axis(axes)
    axes.legend(loc="upper left")


if __name__ == "__main__":
    experiment.main(__file__)
