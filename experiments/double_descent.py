r"""Memorise or generalise: double descent of a toy model trained on a finite data set.

Claim      A model of two hidden dimensions is trained on T examples. While T is small it embeds
           the DATA POINTS as a regular polygon, each with $D_{h_t} = m/T$ hidden dimensions; once T
           is large it embeds a few FEATURES as a polygon, each with $D_i = 2/k$. In between it does
           neither well, and the test loss rises above that of predicting nothing: double descent,
           in the number of examples and of hidden dimensions. Strong weight decay removes it.
Reproduces Henighan et al. (2023), "Superposition, Memorization, and Double Descent", at a tenth of
           its scale: dimensionality and test loss against T, the polygons, the map over (T, m);
           and, after a comment on it by Jermyn, weight decay.
Settings   From the paper: m = 2, ten active features per example on average, examples of length 1,
           full batch, AdamW with decay 1e-2, warm-up over a twentieth of the run, then a cosine to
           0. Ours: 1000 features, not 10,000 (200 in the last two panels); 3000 steps at 5e-3, not
           50,000 at 1e-3. The height of the peak depends on that: in trials (n = 300, 3000 steps)
           it was 1.02 at 1e-3, 1.8 at 5e-3 and 14 at 2e-2. Memorising K points gains K/T,
           representing k features gains k/n, so T at the peak should grow with n; in trials it was
           30, 60, 100, 300 for n = 100, 200, 300, 1000. Each data set is the first T examples of
           one list. The loss is summed over outputs: predicting nothing has 1.
Selection  Lines, vectors and claims are the seed of the lowest TRAIN loss; dots are all seeds.
Command    toymodels run experiments/double_descent.py
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry

HENIGHAN = tm.paper("Henighan et al. (2023)")
JERMYN = tm.paper("Jermyn, comment on Henighan et al. (2023)")
RANK = tm.identity("theorem: at most the rank, see `feature_dimensionality`")
OPTIMUM = tm.prediction("the optimum of sparse features in two dimensions, see `k_gons`")
HERE = tm.finding("found here, in trials at other n")
REPLICATIONS = tm.paper("replications at n = 1000: 100 to 500")
NO_NUMBER = "Ours, because the paper gives no number."
ROUNDED = "Ours, because numbers are rounded."
HUNDREDTH = "Ours, because it is a hundredth of predicting nothing."
IN_RANGE = "The replications have their peaks between 100 and 500 examples."
SLOPE_LINE = "Ours, because the paper shows a line of slope -1 in a logarithmic plot."
HEIGHT = "Ours, because the paper shows a peak, whose height depends on rate and steps."
IN_MAP = "Ours, because the paper shows a map; 0.03 is more than its seeds differ."
STEP = "Ours, because half a step of the grid of T moves the slope by that."
STEPS = "Ours, because it is half a step of both grids of T."
CURVE = "Ours, because the comment shows a curve."
PARTS = ("", "map_", "decay_")
DATA_COLOR, FEATURE_COLOR = "C0", "C1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 1000
    active: float = 10.0
    """Mean number of active features of an example: the density is this over their number."""
    hidden: int = 2
    sizes: tuple[int, ...] = (3, 5, 6, 8, 10, 15, 30, 50, 100, 200, 300, 500, 1000, 2000)
    num_seeds: int = 4
    map_features: int = 200
    map_hidden: tuple[int, ...] = (2, 3, 4, 6, 8, 12)
    map_sizes: tuple[int, ...] = (5, 10, 20, 40, 60, 90, 150, 300, 600, 1200)
    map_seeds: int = 2
    decays: tuple[float, ...] = (0.01, 0.1, 1.0)
    decay_sizes: tuple[int, ...] = (20, 40, 60, 90, 150, 300)
    steps: int = 3000
    learning_rate: float = 5e-3
    """The learning rate after the warm-up."""
    weight_decay: float = 1e-2
    test_examples: int = 2000


SMOKE = Config(
    num_features=60,
    active=5.0,
    sizes=(4, 5),
    num_seeds=2,
    map_features=60,
    map_hidden=(2, 3),
    map_sizes=(3, 4),
    map_seeds=1,
    decays=(0.01,),
    decay_sizes=(4,),
    steps=50,
    test_examples=50,
)
# The scale of the paper was not run here. A step takes 1.5 ns T n at m = 2, so 0.5 s at the largest
# T: 7 hours of a core for each seed, and days for the map.
PAPER = Config(
    num_features=10_000,
    num_seeds=5,
    steps=50_000,
    learning_rate=1e-3,
    map_features=10_000,
    sizes=(3, 5, 6, 8, 10, 15, 30, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000),
    map_sizes=(3, 10, 30, 100, 300, 1000, 3000, 10_000),
    map_hidden=(2, 3, 4, 6, 8, 10, 20),
)


def examples(key, num_features, active, number):
    """Return sparse examples of length 1; those without an active feature are 0."""
    drawn = tm.SparseUniform(num_features, active / num_features).sample(key, number)
    lengths = jnp.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn / jnp.where(lengths > 0, lengths, 1.0)


def sweep(config, name, num_features, hidden, sizes, num_seeds, axes):
    """Train on every data set; the names of variables and dimensions begin with `name`."""
    largest = max(*config.sizes, *config.map_sizes, *config.decay_sizes)
    # Seeds are keys from 0 on: data have others.
    key_data, key_test = jax.random.split(jax.random.key(2**31))
    everything = examples(key_data, num_features, config.active, largest)
    test = examples(key_test, num_features, config.active, config.test_examples)
    model = tm.ReLUOutput(hidden)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.steps // 20, config.steps
    )

    def loss(params, example):
        return jnp.sum((example - model.apply({"params": params}, example)) ** 2)

    def cell(key, *, size, hidden=hidden, decay=config.weight_decay):
        data = everything[:size]
        start = model.init(key, data[0])["params"]
        # A row of 0 has no gradient, so it stays 0: the number of dimensions may be swept.
        used = jnp.arange(len(start["weights"])) < hidden
        start["weights"] = jnp.where(used[:, None], start["weights"], 0.0)
        optimizer = optax.adamw(rate, weight_decay=decay)
        full_batch = {"steps": config.steps, "batch": size, "points": 1}
        params = tm.fit(
            key, start, loss, lambda _key, _batch: data, optimizer=optimizer, **full_batch
        ).params
        points = params["weights"] @ data.T
        each = jax.vmap(loss, (None, 0))
        point_dimensionality = geometry.feature_dimensionality(points)
        feature_dimensionality = geometry.feature_dimensionality(params["weights"])
        return {
            "train_loss": jnp.mean(each(params, data)),
            "test_loss": jnp.mean(each(params, test)),
            "points": points,
            "weights": params["weights"],
            "point_dimensionality": point_dimensionality,
            "feature_dimensionality": feature_dimensionality,
            "point_share": jnp.sum(point_dimensionality) / hidden,
            "feature_share": jnp.sum(feature_dimensionality) / hidden,
        }

    results = tm.sweep(
        cell,
        axes=axes,
        static={"size": sizes},
        num_seeds=num_seeds,
        # A block for each of two cores; its cells run one after another.
        width=max(math.prod(map(len, axes.values())) * num_seeds // 2, 2),
        dims={
            "points": ("dimension", "example"),
            "weights": ("dimension", "feature"),
            "point_dimensionality": ("example",),
            "feature_dimensionality": ("feature",),
        },
    )
    # Features are exchangeable: each has the same mean.
    results["mean_loss"] = float(1 - num_features * np.mean(test) ** 2)
    labels = (*results.dims, *results.variables)
    return results.rename({label: f"{name}{label}" for label in labels})


def run(config: Config) -> xr.Dataset:
    n, m, small, seeds = config.num_features, config.hidden, config.map_features, config.map_seeds
    widths, decays = {"hidden": config.map_hidden}, {"decay": config.decays}
    lines = sweep(config, "", n, m, config.sizes, config.num_seeds, {})
    grid = sweep(config, "map_", small, max(config.map_hidden), config.map_sizes, seeds, widths)
    decayed = sweep(config, "decay_", small, m, config.decay_sizes, seeds, decays)
    small_parts = xr.merge([grid, decayed], combine_attrs="override")
    kept = [each for each in small_parts if str(each).endswith(("_loss", "_share"))]
    results = xr.merge([lines, small_parts[kept]], combine_attrs="override")
    return results.assign_attrs(hidden=m, num_features=n, map_features=small)


def chosen(results: xr.Dataset) -> xr.Dataset:
    """Choose the seed of the lowest train loss for each data set and each cell of the map."""
    parts: list[xr.Dataset] = []
    for name in PARTS:
        own = [each for each in results if f"{name}seed" in results[each].dims]
        best = tm.best_of(results[own], f"{name}train_loss", over=f"{name}seed")
        parts.append(best.drop_vars(f"{name}seed"))
    return xr.merge(parts, combine_attrs="override")


def rise(losses):
    """Return how far a curve rises above the higher of its lowest values before and after."""
    before, after = (np.minimum.accumulate(losses[::way])[::way] for way in (1, -1))
    return float(np.max(losses - np.maximum(before, after)))


def claims(results: xr.Dataset) -> tm.Claims:
    best = chosen(results)
    hidden, sizes = results.attrs["hidden"], best["size"]
    few, last = best.sel(size=sizes[sizes <= 6]), best.isel(size=-1)

    for kind, vectors in (("point", "data points"), ("feature", "features")):
        says = f"Dimensionalities of the {vectors} of every model sum to at most m, in units of m."
        largest = max(results[f"{name}{kind}_share"].max() for name in PARTS)
        yield tm.at_most(says, 1, largest, RANK, slack=1e-4, threshold=ROUNDED)

    says = "The largest train loss of the models of at most 6 examples is 0."
    largest = few["train_loss"].max()
    yield tm.near(says, 0, largest, HENIGHAN, within=0.01, threshold=HUNDREDTH)

    says = "Data points of models of T ≤ 6 examples form regular T-gons, measured by |D T / 2 - 1|."
    largest = abs(few["point_dimensionality"] * few["size"] / hidden - 1).max()
    yield tm.near(says, 0, largest, HENIGHAN, within=0.1, threshold=NO_NUMBER)

    says = "The median data point of models of 5 ≤ T ≤ 200 examples has D = m/T, measured by the "
    says += "largest |D T / m - 1|."
    median = best["point_dimensionality"].median("example") * sizes / hidden
    largest = abs(median[(sizes >= 5) & (sizes <= 200)] - 1).max()
    yield tm.near(says, 0, largest, HENIGHAN, within=0.25, threshold=SLOPE_LINE)

    says = "At our learning rate of 5e-3 the highest test loss is above 1, that of predicting "
    says += "nothing. (At the paper's 1e-3 trials had 1.02; the rate was chosen for the peak.)"
    yield tm.at_least(says, 1.1, best["test_loss"].max(), HENIGHAN, threshold=HEIGHT)

    says = "The highest test loss is at a number of examples T in the range of replications."
    peak = best["test_loss"].idxmax("size")
    yield tm.near(says, 300, peak, REPLICATIONS, within=200, threshold=IN_RANGE)

    says = "The test loss of the model of the most examples is below that of predicting the mean."
    ratio = last["test_loss"] / float(results["mean_loss"])
    yield tm.at_most(says, 1, ratio, HENIGHAN)

    says = "The model of the most examples represents five features (D > 1/10), a pentagon."
    corners = last["feature_dimensionality"] > 0.1
    yield tm.near(says, 5, corners.sum(), OPTIMUM, within=0)

    says = "The features of D > 1/10 of the model of the most examples are 72 degrees apart, "
    says += "measured by the angle between neighbours that is farthest from it."
    x, y = last["weights"].transpose("dimension", "feature").values[:2, corners.values]
    angles = np.sort(np.degrees(np.arctan2(y, x)))
    gaps = np.diff(angles, append=angles[:1] + 360)
    gap = gaps[abs(gaps - 72).argmax()] if gaps.size else np.nan
    yield tm.near(says, 72, gap, HENIGHAN, within=5, threshold=NO_NUMBER)

    says = "The features of D > 1/10 of the model of the most examples hold most of the hidden "
    says += "space, measured by the sum of their D over m."
    held = last["feature_dimensionality"].where(corners).sum() / hidden
    yield tm.at_least(says, 0.5, held, HENIGHAN, threshold="Ours, because most is more than half.")

    loss = best["map_test_loss"].transpose("map_size", "map_hidden")
    says = "At every number m of hidden dimensions the test loss has a peak over the number T of "
    says += "examples, measured by the smallest rise to the peak."
    smallest = min(map(rise, loss.values.T))
    yield tm.at_least(says, 0.03, smallest, HENIGHAN, threshold=IN_MAP)

    says = "At some number T of examples the test loss has a peak over the number m of hidden "
    says += "dimensions, measured by the largest rise to the peak."
    largest = max(map(rise, loss.values))
    yield tm.at_least(says, 0.03, largest, HENIGHAN, threshold=IN_MAP)

    says = "The number T of examples at the highest test loss grows in proportion to m, measured "
    says += "by the slope of log T over log m."
    peaks, slower = loss.idxmax("map_size"), "The number of examples grows more slowly."
    slope = np.polyfit(np.log(peaks["map_hidden"]), np.log(peaks), 1)[0]
    yield tm.near(says, 1, slope, HERE, within=0.15, threshold=STEP, note=slower)

    says = "The number T of examples at the highest test loss of models of m = 2 grows in "
    says += "proportion to n, measured by T / n of the larger n over T / n of the smaller n."
    same = peaks.sel(map_hidden=hidden) / results.attrs["map_features"]
    growth = peak / results.attrs["num_features"] / same
    yield tm.near(says, 1, growth, HERE, within=0.3, threshold=STEPS, note=slower)

    decayed = best["decay_test_loss"].max("decay_size").sortby("decay_decay")
    says = "Models of the greatest weight decay have a highest test loss hardly above 1, so no "
    says += "peak."
    yield tm.at_most(says, 1.05, decayed[-1], JERMYN, threshold=CURVE)

    says = "Models of the smallest weight decay have a highest test loss well above 1, so a peak."
    yield tm.at_least(says, 1.1, decayed[0], JERMYN, threshold=CURVE)


def plot(results: xr.Dataset) -> plotting.Figure:
    best = chosen(results)
    sizes, hidden = best["size"].values, best.attrs["hidden"]
    shown = sizes[np.unique(np.linspace(0, len(sizes) - 1, 5).round().astype(int))]
    figure, (above, below) = plotting.figure_of_parts(2, size=(8.6, 5.8), height_ratios=(1.15, 1))
    for row, (vectors, name, color) in zip(
        above.subplots(2, len(shown), squeeze=False),
        (("points", "data points $h_t$", DATA_COLOR), ("weights", "features $W_i$", FEATURE_COLOR)),
        strict=True,
    ):
        row[0].set_ylabel(name, color=color)
        for axes, size in zip(row, shown, strict=True):
            table = best[vectors].sel(size=size).transpose("dimension", ...).values
            plotting.spokes(axes, table, color=color)
            axes.set_title(f"T = {size}" if vectors == "points" else "")
    above.suptitle(
        "Few examples T: the data points form a polygon. Many: the features do.\n"
        f"n = {best.attrs['num_features']} features, m = {hidden}; vectors and lines: the seed of "
        f"lowest train loss, dots: all {results.sizes['seed']} seeds",
        fontsize=10,
    )
    dimensions, losses, grid, decay = below.subplots(1, 4, width_ratios=(1, 1, 1.25, 0.9))
    draw_dimensions(dimensions, best, hidden)
    for name, color in (("test_loss", FEATURE_COLOR), ("train_loss", DATA_COLOR)):
        draw_losses(losses, results[name], best[name], color=color, label=name.replace("_", " "))
    losses.set(ylabel="loss", title="Test loss peaks between")
    loss, norm = best["map_test_loss"], plotting.CenteredNorm(1, 0.3)
    image = plotting.heat_map(grid, loss, x="map_size", y="map_hidden", cmap="RdBu_r", norm=norm)
    peaks, named = loss.idxmax("map_size"), f"test loss, n = {best.attrs['map_features']}"
    grid.plot(np.searchsorted(loss["map_size"], peaks), range(peaks.size), "x", color="black")
    grid.tick_params(axis="x", rotation=60)
    grid.set(xlabel="examples T", ylabel="hidden dimensions m", title="The peak (x) moves with m")
    plotting.color_bar(image, named, extend="both")
    for number, value in enumerate(best["decay_decay"].values):
        every, line = (each["decay_test_loss"].sel(decay_decay=value) for each in (results, best))
        draw_losses(decay, every, line, color=f"C{number}", label=f"decay {value:g}")
    decay.set(ylabel=named, title="Weight decay\nremoves the peak")
    plotting.plain_ticks(decay, places=(20, 50, 100, 200))
    return figure


def draw_dimensions(axes, best: xr.Dataset, hidden):
    sizes = best["size"].values
    for kind, color, shift in (("point", DATA_COLOR, 0.94), ("feature", FEATURE_COLOR, 1.06)):
        each = best[f"{kind}_dimensionality"].transpose("size", ...).where(lambda d: d > 2e-3)
        axes.loglog(shift * sizes, each, ".", color=color, markersize=1.6, rasterized=True)
        axes.plot([], [], ".", color=color, label=f"{'data ' * (kind == 'point')}{kind}s")
    axes.plot(sizes, np.minimum(hidden / sizes, 1), color="black", linewidth=0.8, label="m / T")
    axes.set(ylim=(2e-3, 1.3), xlabel="examples T", ylabel="dimensionality D")
    axes.set_title("A point has D = m / T")
    axes.legend(loc="upper right", handletextpad=0.3, fontsize=7)


def draw_losses(axes, every: xr.DataArray, best: xr.DataArray, **line):
    """Draw every seed, and a line through the seed of the lowest train loss."""
    size, seed = best.dims[0], next(dim for dim in every.dims if str(dim).endswith("seed"))
    plotting.every_seed(axes, every.rename({seed: "seed"}), x=size, chosen=best, **line)
    axes.axhline(1, color="0.4", linewidth=0.8, linestyle=":")  # the loss of predicting 0
    axes.set(xscale="log", xlabel="examples T")
    named = [line for line in axes.get_lines() if line.get_gid()]  # dots: see the title
    axes.legend(handles=named, fontsize=7, handlelength=1)


if __name__ == "__main__":
    experiment.main(__file__)
