r"""Memorise or generalise: double descent of a toy model trained on a finite data set.

Claim      Trained on T examples, a model of two hidden dimensions embeds the DATA POINTS as a
           regular polygon while T is small, each with $D_{h_t} = m/T$ hidden dimensions; once T is
           large it embeds a few FEATURES as a polygon, $D_i = 2/k$. In between it does neither
           well and the test loss rises above that of predicting nothing: double descent, in the
           number of examples and of hidden dimensions. Strong weight decay removes it.
Reproduces Henighan et al. (2023), "Superposition, Memorization, and Double Descent", at a tenth of
           its scale: dimensionality and test loss against T, the polygons, the map over (T, m);
           and, after a comment on it by Jermyn, weight decay.
Settings   From the paper: m = 2, ten active features per example on average, examples of length 1,
           full batch, AdamW with decay 1e-2, warm-up over a twentieth of the run, then a cosine to
           0; Adam's b1 = 0.9, b2 = 0.999 are Optax's defaults. Ours: 1000 features, not 10,000 (200
           at the right); 3000 steps at 5e-3, not 50,000 at 1e-3. The height of the peak depends on
           that: in trials (n = 300, 3000 steps) it was 1.8 at 5e-3 and 14 at 2e-2, both at T = 100;
           at 1e-3 there was hardly one, 1.02. Memorising K points gains K/T,
           representing k features k/n, so T at the peak should grow with n; in trials it was 30,
           60, 100, 300 for n = 100, 200, 300, 1000. Data sets are nested: the first T of one list.
           An example without features (4e-5 of them) stays 0. The loss is summed over outputs:
           predicting nothing has 1.
Selection  Lines, vectors and claims are the seed of the lowest TRAIN loss; dots are all seeds.
Command    toymodels run experiments/double_descent.py
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment
from toymodels.analysis import geometry

HENIGHAN = "Henighan et al. (2023)"
JERMYN = "Jermyn, comment on Henighan et al. (2023)"
THEOREM = "theorem: at most the rank, see `feature_dimensionality`"
HERE = "found here, in trials at other n"
PARTS = ("", "map_", "decay_")
DECAY_COLORS = ("#dd8888", "#aa3333", "#551111")
DATA_COLOR, FEATURE_COLOR = "#3366cc", "#cc3333"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 1000
    active: float = 10.0
    """Mean number of active features of an example: the density is this over their number."""
    hidden: int = 2
    sizes: tuple[int, ...] = (3, 5, 6, 8, 10, 15, 30, 50, 100, 200, 300, 500, 1000, 2000)
    """T, of the data sets."""
    num_seeds: int = 4
    map_features: int = 200
    map_hidden: tuple[int, ...] = (2, 3, 4, 6, 8, 12)
    map_sizes: tuple[int, ...] = (5, 10, 20, 40, 60, 90, 150, 300, 600, 1200)
    map_seeds: int = 2
    decays: tuple[float, ...] = (0.01, 0.1, 1.0)
    decay_sizes: tuple[int, ...] = (20, 40, 60, 90, 150, 300)
    """T, with the other numbers of the map and m = 2."""
    steps: int = 3000
    learning_rate: float = 5e-3
    """After the warm-up."""
    weight_decay: float = 1e-2
    test_examples: int = 2000


SMOKE = Config(
    num_features=60, active=5.0, sizes=(4, 5), num_seeds=2, map_features=60, map_hidden=(2, 3),
    map_sizes=(3, 4), map_seeds=1, decays=(0.01,), decay_sizes=(4,), steps=50, test_examples=50,
)  # fmt: skip
# Not run here. A step takes 1.5 ns T n at m = 2, so 0.5 s: 7 hours of a core for each seed, and for
# the map days.
PAPER = Config(
    num_features=10_000, num_seeds=5, steps=50_000, learning_rate=1e-3, map_features=10_000,
    sizes=(3, 5, 6, 8, 10, 15, 30, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000),
    map_sizes=(3, 10, 30, 100, 300, 1000, 3000, 10_000), map_hidden=(2, 3, 4, 6, 8, 10, 20),
)  # fmt: skip


def examples(key: Any, num_features: int, active: float, number: int) -> Any:
    """Sparse examples of length 1; those without an active feature are 0."""
    drawn = tm.SparseUniform(num_features, active / num_features).sample(key, number)
    lengths = jnp.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn / jnp.where(lengths > 0, lengths, 1.0)


def sweep(
    config: Config, name: str, num_features: int, hidden: int, sizes: tuple[int, ...],
    num_seeds: int, axes: Any,
) -> xr.Dataset:  # fmt: skip
    """Every data set at all `axes` of `cell`; names of variables and dimensions with `name`."""
    largest = max(*config.sizes, *config.map_sizes, *config.decay_sizes)
    # Seeds are keys from 0 on: data have others.
    key_data, key_test = jax.random.split(jax.random.key(2**31))
    everything = examples(key_data, num_features, config.active, largest)
    test = examples(key_test, num_features, config.active, config.test_examples)
    model = tm.ReLUOutput(hidden)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.steps // 20, config.steps
    )

    def loss(params: Any, example: Any) -> Any:
        return jnp.sum((example - model.apply({"params": params}, example)) ** 2)

    def cell(
        key: Any, *, size: int, hidden: Any = hidden, decay: Any = config.weight_decay
    ) -> dict[str, Any]:
        data = everything[:size]
        start: Any = model.init(key, data[0])["params"]
        # A row of 0 has no gradient, so it stays 0: the number of dimensions may be swept.
        used = jnp.arange(len(start["weights"])) < hidden
        start["weights"] = jnp.where(used[:, None], start["weights"], 0.0)
        params = tm.fit(
            key,
            start,
            loss,
            lambda _key, _batch: data,
            optimizer=optax.adamw(rate, weight_decay=decay),
            steps=config.steps,
            batch=size,
            points=1,
        ).params
        points = params["weights"] @ data.T
        each = jax.vmap(loss, (None, 0))
        dimensions = geometry.feature_dimensionality
        measured = {"point": dimensions(points), "feature": dimensions(params["weights"])}
        return {
            "train_loss": jnp.mean(each(params, data)),
            "test_loss": jnp.mean(each(params, test)),
            "points": points,
            "weights": params["weights"],
            **{f"{kind}_dimensionality": values for kind, values in measured.items()},
            **{f"{kind}_share": jnp.sum(values) / hidden for kind, values in measured.items()},
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
    kept = [each for each in (*grid, *decayed) if str(each).endswith(("_loss", "_share"))]
    return xr.merge([lines, xr.merge([grid, decayed], combine_attrs="override")[kept]],
                    combine_attrs="override",
    ).assign_attrs(hidden=m, num_features=n, map_features=small)  # fmt: skip


def chosen(results: xr.Dataset) -> xr.Dataset:
    """The seed of the lowest train loss, of each data set and each cell of the map."""
    parts: list[xr.Dataset] = []
    for name in PARTS:
        own = [each for each in results if f"{name}seed" in results[each].dims]
        best = tm.best_of(results[own], f"{name}train_loss", over=f"{name}seed")
        parts.append(best.drop_vars(f"{name}seed"))
    return xr.merge(parts, combine_attrs="override")


def rise(losses: Any) -> float:
    """How far a curve rises above its lowest values before and after, at most."""
    before, after = (np.minimum.accumulate(losses[::way])[::way] for way in (1, -1))
    return float(np.max(losses - np.maximum(before, after)))


def claims(results: xr.Dataset) -> list[tm.Claim]:
    best: Any = chosen(results)
    hidden, sizes = results.attrs["hidden"], best["size"]
    few, last = best.sel(size=sizes[sizes <= 6]), best.isel(size=-1)
    polygons = few["point_dimensionality"] * few["size"] / hidden
    median = best["point_dimensionality"].median("example") * sizes / hidden
    memorised = median[(sizes >= 5) & (sizes <= 200)]
    peak = best["test_loss"].idxmax("size")
    corners = last["feature_dimensionality"] > 0.1
    x, y = last["weights"].transpose("dimension", "feature").values[:2, corners.values]
    angles = np.sort(np.degrees(np.arctan2(y, x)))
    gaps = np.diff(angles, append=angles[:1] + 360)
    farthest = gaps[abs(gaps - 72).argmax()] if gaps.size else np.nan
    held = last["feature_dimensionality"].where(corners).sum() / hidden
    loss = best["map_test_loss"].transpose("map_size", "map_hidden")
    peaks = loss.idxmax("map_size")
    slope = np.polyfit(np.log(peaks["map_hidden"]), np.log(peaks), 1)[0]
    same = peaks.sel(map_hidden=hidden) / results.attrs["map_features"]
    growth = peak / results.attrs["num_features"] / same
    decayed = best["decay_test_loss"].max("decay_size").sortby("decay_decay")
    at_least, at_most = tm.Bound.AT_LEAST, tm.Bound.AT_MOST
    sums = [
        tm.Claim(
            f"D of {kind}s add up to at most m: largest sum / m, every model", THEOREM, 1,
            max(float(results[f"{name}{kind}_share"].max()) for name in PARTS), 1e-4, at_most,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        )
        for kind in ("point", "feature")
    ]  # fmt: skip
    return [
        *sums,
        tm.Claim("T ≤ 6: largest train loss", HENIGHAN, 0, few["train_loss"].max(), 0.01,
            kind=tm.Kind.PAPER,
            threshold="ours: a hundredth of predicting nothing",
        ),
        tm.Claim(
            "T ≤ 6: data points form a regular T-gon, D = 2/T: largest |D T / 2 - 1|",
            HENIGHAN, 0, abs(polygons - 1).max(), 0.1,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        tm.Claim(
            "5 ≤ T ≤ 200: the median data point has m/T dimensions, largest |D T / m - 1|",
            HENIGHAN, 0, abs(memorised - 1).max(), 0.25,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper shows a line of slope -1 in a logarithmic plot",
        ),
        tm.Claim(
            "At our learning rate of 5e-3 the test loss has a peak above that of predicting "
            "nothing: highest test loss over it. (At the paper's 1e-3, in 3000 steps, trials had "
            "1.02; the rate was chosen for the peak.)",
            HENIGHAN, 1.1, best["test_loss"].max(), 0, at_least, kind=tm.Kind.PAPER,
            threshold="ours: the paper shows a peak, whose height depends on rate and steps",
        ),
        tm.Claim(
            "The highest test loss is at a number of examples T in the range of replications.",
            "replications at n = 1000: 100 to 500", 300, peak, 200, kind=tm.Kind.PAPER,
            threshold="the range of the replications",
        ),
        tm.Claim(
            "largest T: test loss relative to predicting the mean",
            HENIGHAN, 1, last["test_loss"] / float(results["mean_loss"]), 0, at_most,
            kind=tm.Kind.PAPER,
        ),
        tm.Claim(
            "largest T: number of features of D > 1/10, a pentagon",
            "the optimum of sparse features in two dimensions, see `k_gons`", 5, corners.sum(),
            kind=tm.Kind.PREDICTION,
        ),
        tm.Claim("its angles in degrees, the farthest from 72", HENIGHAN, 72, farthest, 5,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        tm.Claim(
            "it holds most of the hidden space: its sum of D / m", HENIGHAN, 0.5, held, 0, at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: most is more than half",
        ),
        tm.Claim(
            "right: along T the test loss of every m rises above its lowest values before and "
            "after; least rise", HENIGHAN, 0.03, min(map(rise, loss.values.T)), 0, at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper shows a map; 0.03 is more than its seeds differ",
        ),
        tm.Claim(
            "right: along m that of some T does; largest rise",
            HENIGHAN, 0.03, max(map(rise, loss.values)), 0, at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper shows a map; 0.03 is more than its seeds differ",
        ),
        tm.Claim(
            "T at the peak grows in proportion to m: slope in logarithms", HERE, 1, slope, 0.15,
            kind=tm.Kind.FINDING, note="It grows more slowly.",
            threshold="ours: half a step of the grid of T moves the slope by that",
        ),
        tm.Claim(
            "T at the peak grows in proportion to n: T / n at the peak of m = 2, of the left panel "
            "over that of the right panel.", HERE, 1, growth, 0.3, kind=tm.Kind.FINDING,
            note="It grows more slowly.", threshold="ours: half a step of both grids of T",
        ),
        tm.Claim(
            "weight decay removes the peak: highest test loss at the greatest decay",
            JERMYN, 1.05, decayed[-1], 0, at_most,
            kind=tm.Kind.PAPER,
            threshold="ours: the comment shows a curve",
        ),
        tm.Claim("that at the least decay", JERMYN, 1.1, decayed[0], 0, at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the comment shows a curve",
        ),
    ]  # fmt: skip


def plot(results: xr.Dataset) -> Figure:
    best = chosen(results)
    sizes = best["size"].values
    shown = sizes[np.unique(np.linspace(0, len(sizes) - 1, 6).round().astype(int))]
    figure = Figure(figsize=(8.6, 5.4), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    above, below = halves
    clouds = above.subplots(2, len(shown), squeeze=False)
    for (top, bottom), size in zip(clouds.T, shown, strict=True):
        draw_vectors(top, best["points"].sel(size=size), DATA_COLOR)
        draw_vectors(bottom, best["weights"].sel(size=size), FEATURE_COLOR)
        top.set_title(f"T = {size}")
    clouds[0, 0].set_ylabel("data points $h_t$", color=DATA_COLOR)
    clouds[1, 0].set_ylabel("features $W_i$", color=FEATURE_COLOR)
    n, m = results.attrs["num_features"], results.attrs["hidden"]
    above.suptitle(f"Hidden vectors of the seed of lowest train loss, n = {n}, m = {m}", fontsize=9)
    dimensions, losses, grid, decay = below.subplots(1, 4, width_ratios=(1, 1, 1.25, 0.9))
    draw_dimensions(dimensions, best, m)
    for name, color in (("test_loss", FEATURE_COLOR), ("train_loss", DATA_COLOR)):
        draw_losses(losses, results[name], best[name], color=color, label=name.replace("_", " "))
    draw_map(below, grid, best)
    for number, value in enumerate(best["decay_decay"].values):
        every, line = (each["decay_test_loss"].sel(decay_decay=value) for each in (results, best))
        draw_losses(decay, every, line, color=DECAY_COLORS[number % 3], label=f"{value:g}")
    last = best["test_loss"][-1]
    losses.set_ylabel("loss (dotted: of nothing)")
    losses.set_title(f"Last test {last:.3f}, mean {results['mean_loss']:.3f}", fontsize=9)
    decay.set_xticks(best["decay_size"].values, best["decay_size"].values, rotation=60)
    decay.minorticks_off()
    decay.set_ylabel("test loss")
    decay.set_title(f"Weight decay, n = {best.attrs['map_features']}", fontsize=9)
    return figure


def draw_vectors(axes: Any, vectors: xr.DataArray, color: str) -> None:
    """Columns as points, on lines from the origin."""
    ends = vectors.transpose("dimension", ...).values[:2]
    ends = ends[:, np.isfinite(ends[0])]
    lengths = np.hypot(*ends)
    seen = ends[:, lengths > 0.2 * lengths.max()]  # the lines of others are under their points
    axes.plot(*np.stack([0 * seen, seen], axis=1), color=color, linewidth=0.4, rasterized=True)
    axes.plot(*ends, ".", color=color, markersize=3, rasterized=True)
    limit = 1.15 * max(abs(ends).max(), 0.1)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=(), yticks=(), aspect="equal")
    axes.text(0.03, 0.02, f"±{limit:.1f}", transform=axes.transAxes, fontsize=7, color="0.4")
    axes.spines[["top", "right"]].set_visible(True)


def draw_dimensions(axes: Any, best: xr.Dataset, hidden: int) -> None:
    sizes = best["size"].values
    for name, color, shift, label in (
        ("point_dimensionality", DATA_COLOR, 0.94, "data points"),
        ("feature_dimensionality", FEATURE_COLOR, 1.06, "features"),
    ):
        each = best[name].transpose("size", ...).values
        across = np.broadcast_to(shift * sizes[:, None], each.shape)
        axes.plot(across[each > 2e-3], each[each > 2e-3], ".", color=color, markersize=1.6,
                  rasterized=True, label=label)  # fmt: skip
    axes.plot(sizes, np.minimum(hidden / sizes, 1), color="black", linewidth=0.8, label="m / T")
    axes.set(xscale="log", yscale="log", ylim=(2e-3, 1.3))
    axes.set(xlabel="examples T", ylabel="dimensionality $D$")
    axes.set_title("Dimensions of each", fontsize=9)
    axes.legend(loc="upper right", markerscale=5, handletextpad=0.3)


def draw_losses(axes: Any, every: xr.DataArray, best: xr.DataArray, **line: Any) -> None:
    (size,) = best.dims
    axes.plot(every[size], every.transpose(size, ...), ".", markersize=3, color=line["color"])
    axes.plot(best[size], best, **line)
    axes.axhline(1, color="0.4", linewidth=0.8, linestyle=":")  # predicting nothing
    axes.set(xscale="log", xlabel="examples T")
    axes.legend()


def draw_map(figure: Any, axes: Any, best: xr.Dataset) -> None:
    loss = best["map_test_loss"].transpose("map_hidden", "map_size")
    columns, rows = np.arange(loss.sizes["map_size"]), np.arange(loss.sizes["map_hidden"])
    image = axes.pcolormesh(columns, rows, loss.values, shading="nearest", cmap="RdBu_r",
                            norm=CenteredNorm(1, 0.3), rasterized=True)  # fmt: skip
    axes.plot(loss.argmax("map_size"), rows, "x", color="black")
    axes.set_xticks(columns, loss["map_size"].values, rotation=60)
    axes.set_yticks(rows, loss["map_hidden"].values.astype(int))
    axes.set(xlabel="examples T", ylabel="hidden dimensions m")
    axes.set_title(f"Test loss, n = {best.attrs['map_features']}; x: peak over T", fontsize=9)
    figure.colorbar(image, ax=axes, extend="both")


if __name__ == "__main__":
    experiment.main(__file__)
