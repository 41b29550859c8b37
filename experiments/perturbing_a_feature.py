r"""A pentagon or two digons: one feature gets sparser than the other four.

Claim      Five features in two dimensions form a pentagon, which bends as the density of one of
           them changes. Where that feature gets much sparser than the others, the best solution
           jumps to two digons without it: two minima exchange places, so the transition is of
           first order. The paper says that it takes a feature "about 2.5 times" sparser; the exact
           losses cross at 3.7 times, and so do those of trained models.
Reproduces Elhage et al. (2022), "Non-Uniform Superposition", perturbing a single feature.
Selection  Losses show every seed. Weights are the seed with the lowest exact loss among those of
           their geometry. The free optimum is the lowest of 4 random and all structured starts.
Settings   From the paper: n = 5, m = 2, equal importance, density 0.05. Ours, for it states none:
           Adam from 5e-3 down a cosine, 10,000 steps of 1024 examples, 16 seeds.
Command    toymodels run experiments/perturbing_a_feature.py
"""

import dataclasses
import enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure
from scipy.optimize import elementwise

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.theory import frames, minima

SOURCE = "Elhage et al. (2022), Non-Uniform Superposition"
FEATURES, HIDDEN = 5, 2
VARIED = 0
LANES = 16
"""Descents that go side by side: one compiled program for all."""


class Geometry(enum.IntEnum):
    """What a trained model is, or the branch of exact minima."""

    PENTAGON = 0
    DIGONS = 1
    """Two digons; the varied feature is not represented."""
    DIGONS_WITH_VARIED = 2
    """Two digons; another feature is not represented."""
    OTHER = 3


BRANCHES = (Geometry.PENTAGON, Geometry.DIGONS)
NAMES = ("pentagon", "two digons without the varied one", "two digons without another", "fewer")
TICKS = (0.1, 0.2, 0.5, 1, 2, 4)
# The paper's pentagon is orange, its digons yellow and its triangle green.
COLORS = ("#ee7722", "#ccaa00", "#7744aa", "#229944")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    density: float = 0.05
    """Of the other four features."""
    relative_densities: tuple[float, float, int] = (0.1, 4.0, 25)
    """Of the varied feature: least, greatest, and how many, evenly in the logarithm."""
    num_seeds: int = 16
    steps: int = 10_000
    batch: int = 1024
    learning_rate: float = 5e-3
    """The learning rate at the start of a cosine schedule."""
    num_random: int = 4
    """Random starts of the free optimum at every relative density."""
    other_densities: tuple[float, ...] = (0.03, 0.04, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.12)
    """Of the other four features, where the crossing is computed, too."""


SMOKE = Config(
    relative_densities=(0.1, 1.0, 3), num_seeds=2, steps=50, batch=64, num_random=1,
    other_densities=(0.08,),
)  # fmt: skip


def densities(density: Any, relative: Any) -> Any:
    """Per feature; only the varied one differs."""
    return density * jnp.where(jnp.arange(FEATURES) == VARIED, relative, 1.0)


def label(weights: Any) -> Any:
    """A feature is represented if its norm is above 1/2, half-way between kept and dropped."""
    represented = geometry.feature_norms(weights) > 0.5
    digons = jnp.where(represented[VARIED], int(Geometry.DIGONS_WITH_VARIED), int(Geometry.DIGONS))
    fewer = jnp.where(represented.sum() == 4, digons, int(Geometry.OTHER))
    return jnp.where(represented.sum() == 5, int(Geometry.PENTAGON), fewer)


def train(config: Config) -> xr.Dataset:
    """Every seed at every relative density, with its exact loss."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)

    def cell(key: Any, *, relative_density: Any) -> dict[str, Any]:
        density = densities(config.density, relative_density)
        trained = tm.train(
            key,
            tm.ReLUOutput(hidden=HIDDEN),
            tm.Task(tm.SparseUniform(FEATURES, density)),
            optimizer=optax.adam(schedule),
            steps=config.steps,
            batch=config.batch,
        )
        weights = trained.params["weights"]
        return {"weights": weights, "bias": trained.params["bias"], "geometry": label(weights)}

    least, greatest, count = config.relative_densities
    results = tm.sweep(
        cell,
        axes={"relative_density": np.geomspace(least, greatest, count)},
        num_seeds=config.num_seeds,
        dims={"weights": ("hidden", "feature"), "bias": ("feature",)},
    )
    with jax.enable_x64(True):
        each = jax.vmap(tm.theory.expected_loss, (0, 0, None))
        loss = jax.jit(jax.vmap(each))(
            *(np.asarray(results[name].transpose("relative_density", "seed", ...), float)
              for name in ("weights", "bias")),
            jax.vmap(densities, (None, 0))(config.density, results.relative_density.values),
        )  # fmt: skip
    results["loss"] = ("relative_density", "seed"), np.asarray(loss)
    return results


@jax.jit
def _side_by_side(weights: Any, bias: Any, density: Any) -> minima.Descended:
    def one(weights: Any, bias: Any, density: Any) -> minima.Descended:
        return minima.descend(weights, bias, density, jnp.ones(FEATURES))

    return jax.vmap(one)(weights, bias, density)


def descend(weights: Any, bias: Any, density: Any) -> minima.Descended:
    """The minima below many starts, some at a time, in float64."""
    parts: list[minima.Descended] = []
    with jax.enable_x64(True):
        for first in range(0, len(bias), LANES):
            filled = np.minimum(np.arange(first, first + LANES), len(bias) - 1)
            begin = (np.asarray(part, float)[filled] for part in (weights, bias, density))
            parts.append(jax.tree.map(np.asarray, _side_by_side(*begin)))
    return jax.tree.map(lambda *values: np.concatenate(values)[: len(bias)], *parts)


def start(branch: Geometry, density: Any) -> tuple[Any, Any]:
    """Near the solution: unit length, and the mean of a feature that is dropped as its bias."""
    if branch is Geometry.PENTAGON:
        return frames.regular_polygon(FEATURES), np.full(FEATURES, -0.2)
    weights = np.insert(frames.regular_polygon(4), VARIED, 0.0, axis=1)
    return weights, np.where(np.arange(FEATURES) == VARIED, density / 2, 0.0)


def branch(which: Geometry, density: Any, relative: Any) -> minima.Descended:
    """One solution over many densities."""
    with jax.enable_x64(True):
        each = np.asarray(jax.vmap(densities)(np.asarray(density), np.asarray(relative)))
    begin = [start(which, one) for one in each]
    # So little that a saddle is left and a minimum is not.
    nudge = 1e-3 * np.random.default_rng(0).standard_normal((HIDDEN, FEATURES))
    weights = np.stack([weights + nudge for weights, _ in begin])
    return descend(weights, np.stack([bias for _, bias in begin]), each)


def crossing(density: Any) -> Any:
    """Relative densities at which pentagon and digons have the same loss; NaN where none is."""

    def gap(relative: Any, density: Any) -> Any:
        pentagon, digons = (
            branch(which, density, relative) for which in (Geometry.PENTAGON, Geometry.DIGONS)
        )
        bends = np.asarray(jax.vmap(label)(jnp.asarray(pentagon.weights))) == Geometry.PENTAGON
        return np.where(bends, (pentagon.loss - digons.loss) / density**2, np.nan)

    found: Any = elementwise.find_root(
        gap, (0.17, 1.0), args=(density,), tolerances={"xatol": 1e-10, "xrtol": 1e-10}
    )
    return np.where(found.success, found.x, np.nan)


def exact(config: Config, relative: Any) -> dict[str, Any]:
    """The branches, their crossings, and the lowest minimum of all."""
    full = np.full(len(relative), config.density)
    found = [branch(which, full, relative) for which in BRANCHES]
    with jax.enable_x64(True):
        each = np.asarray(jax.vmap(densities)(full, np.asarray(relative)))
        begin = jax.vmap(
            lambda density: minima.starts(
                jax.random.key(0), HIDDEN, density, jnp.ones(FEATURES), config.num_random
            )
        )(jnp.asarray(each))
        count = begin[1].shape[1]
        weights, bias = (np.asarray(part).reshape(-1, *part.shape[2:]) for part in begin)
        ends = descend(weights, bias, np.repeat(each, count, axis=0))
        labels = [np.asarray(jax.vmap(label)(jnp.asarray(end.weights))) for end in found]
    others = np.array([config.density, *config.other_densities])
    dims = ("branch", "relative_density")
    return {
        "branch_loss": (dims, np.stack([end.loss for end in found])),
        "branch_weights": ((*dims, "hidden", "feature"), np.stack([end.weights for end in found])),
        "branch_bias": ((*dims, "feature"), np.stack([end.bias for end in found])),
        "branch_geometry": (dims, np.stack(labels)),
        "branch_slope": (dims, np.stack([end.slope for end in found])),
        "free_loss": (("relative_density",), ends.loss.reshape(-1, count).min(axis=1)),
        "crossing": (("density",), crossing(others)),
        "density": others,
    }


def run(config: Config) -> xr.Dataset:
    results = train(config)
    results = results.assign(exact(config, results.relative_density.values))
    for variable in ("loss", "branch_loss", "free_loss"):
        results[variable].attrs["units"] = "exact, summed over outputs"
    return results.assign_attrs(density=config.density)


def exact_branch(results: xr.Dataset, which: Geometry, variable: str = "loss") -> xr.DataArray:
    """One of the branches, NaN where its minimum is gone and the descent ended in another."""
    chosen = results.sel(branch=int(which))
    return chosen[f"branch_{variable}"].where(chosen["branch_geometry"] == which)


def trained_crossing(results: xr.Dataset) -> float:
    """Where the median losses of trained pentagons and digons are equal."""
    medians = [
        results["loss"].where(results["geometry"] == which).median("seed").values
        for which in (Geometry.PENTAGON, Geometry.DIGONS)
    ]
    gap, relative = medians[0] - medians[1], results.relative_density.values
    both = np.flatnonzero(np.isfinite(gap))
    gap, relative = gap[both], relative[both]
    changes = np.flatnonzero((gap[:-1] > 0) & (gap[1:] <= 0))
    if len(changes) != 1:
        return float("nan")
    pair = slice(changes[0], changes[0] + 2)
    return float(np.interp(0.0, -gap[pair], relative[pair]))


def exact_crossing(results: xr.Dataset) -> float:
    return float(results["crossing"].sel(density=results.attrs["density"]))


def density_for(results: xr.Dataset, relative: float) -> float:
    """Density of the other features at which the exact crossing is `relative`."""
    known = results["crossing"].dropna("density").sortby("density")
    return float(np.interp(relative, known, known["density"])) if known.size else float("nan")


def ratio_at(results: xr.Dataset, relative: float) -> float:
    """Loss of the digons over that of the pentagon."""
    losses = (exact_branch(results, which) for which in (Geometry.DIGONS, Geometry.PENTAGON))
    digons, pentagon = (np.interp(relative, results.relative_density, loss) for loss in losses)
    return float(digons / pentagon)


def missed_by_half(results: xr.Dataset) -> float:
    """Greatest relative density below 1 at which fewer than half of all seeds find the pentagon."""
    share = (results["geometry"] == Geometry.PENTAGON).mean("seed")
    missed = share.relative_density[((share < 0.5) & (share.relative_density < 1)).values]
    return float(missed.max()) if missed.size else float("nan")


def claims(results: xr.Dataset) -> list[tm.Claim]:
    relative = results.relative_density
    crossing = exact_crossing(results)
    pentagon, digons = (exact_branch(results, g) for g in (Geometry.PENTAGON, Geometry.DIGONS))
    lowest = np.fmin(pentagon, digons)
    best = tm.best_of(results, "loss")
    expected = xr.where(relative < crossing, int(Geometry.DIGONS), int(Geometry.PENTAGON))
    trained = results["geometry"] == Geometry.PENTAGON
    excess = (results["loss"].where(trained) / pentagon - 1).median("seed")
    norm = (exact_branch(results, Geometry.PENTAGON, "weights") ** 2).sum("hidden") ** 0.5
    equal = relative.sel(relative_density=1.0, method="nearest")
    regular = results.sel(branch=int(Geometry.PENTAGON), relative_density=equal)
    squared_norm = float((regular["branch_weights"] ** 2).sum("hidden").mean())
    bias = float(regular["branch_bias"].mean())
    nearest = relative.sel(relative_density=crossing, method="nearest")
    return [
        tm.Claim(
            "relative density at which pentagon and digons exchange places, exact losses",
            f"{SOURCE}: about 2.5 times sparser",
            expected=0.4,
            measured=crossing,
            tolerance=0.05,
            note="Exact losses and trained models agree. At 0.4 the digons have "
            f"{ratio_at(results, 0.4):.2f} times the loss of the pentagon. Two things could move "
            "an estimate to 0.4. The crossing depends on the other features: it is at 0.4 where "
            f"their density is {density_for(results, 0.4):.2g}, not "
            f"{results.attrs['density']:g}. And seeds that miss the pentagon hide it from a search "
            "of few fits: here it is found by fewer than half of them up to a relative density "
            f"of {missed_by_half(results):.2g}.",
            kind=tm.Kind.PAPER,
            threshold="ours: half of the next digit of about 2.5 times, 2.25 to 2.85",
        ),
        tm.Claim(
            "the same from trained models, median losses of each geometry, against exact losses",
            "toymodels.theory.minima.descend",
            expected=crossing,
            measured=trained_crossing(results),
            tolerance=0.01,  # the densities trained at are 17 % apart
            kind=tm.Kind.PREDICTION,
            threshold="ours: the densities trained at are 17 % apart",
        ),
        tm.Claim(
            "the best trained geometry is that of the lower exact branch, share of densities",
            "toymodels.theory.minima.descend",
            expected=0.9,
            measured=float((best["geometry"] == expected).mean()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: the two branches are within 2 % next to their crossing",
        ),
        tm.Claim(
            "the lower of the two branches is the free optimum, largest relative difference",
            "toymodels.theory.minima: the lowest of all minima found",
            expected=0.0,
            measured=float(np.abs(results["free_loss"] / lowest - 1).max()),
            tolerance=1e-9,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding and convergence of descents",
        ),
        tm.Claim(
            "no trained model is below it, least relative difference over all seeds",
            "toymodels.theory.minima: the lowest of all minima found",
            expected=0.0,
            measured=float((results["loss"] / lowest).min()) - 1,
            tolerance=1e-9,
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        tm.Claim(
            "first order: norm of the varied feature in the pentagon where the branches cross, "
            "from which it falls to 0",
            SOURCE,
            expected=1.0,
            measured=float(norm.sel(relative_density=nearest).isel(feature=VARIED)),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PAPER,
            threshold="ours: a norm of 1 that falls to 0 is a jump",
        ),
        tm.Claim(
            "median exact loss of trained pentagons above the branch, the largest of all densities",
            "toymodels.theory.minima.descend",
            expected=2e-3,
            measured=float(excess.max()),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        tm.Claim(
            "equal densities: squared norm over 1 - b, so that an input of 1 is returned as 1",
            f"{SOURCE}, whose 1 / (1 - b) is with the other sign of b, and for the norm",
            expected=1.0,
            measured=squared_norm / (1 - bias),
            tolerance=0.04,
            kind=tm.Kind.PAPER,
            threshold="ours: the relation is exact for an input of 1 alone",
        ),
    ]


def aligned(weights: Any, feature: int, angle: float) -> Any:
    """Turned so that `feature` has this angle, and mirrored so that the next is not below it."""
    turn = angle - np.arctan2(weights[1, feature], weights[0, feature])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return rotation @ weights


def draw_solutions(axes: Any, results: xr.Dataset, which: Geometry) -> Any:
    """The best seed of one geometry at every relative density, turned alike."""
    feature, angle = (VARIED, np.pi / 2) if which is Geometry.PENTAGON else (1, 0.0)
    around = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(around), np.sin(around), color="0.75", linewidth=0.8, zorder=0)
    loss = results["loss"].where(results["geometry"] == which)
    points: list[Any] = []
    for relative in results.relative_density.values[loss.notnull().any("seed").values]:
        best = int(loss.sel(relative_density=relative).argmin("seed"))
        weights = results["weights"].sel(relative_density=relative).isel(seed=best)
        turned = aligned(weights.transpose("hidden", "feature").values, feature, angle)
        points.append(np.insert(turned, 2, relative, axis=0))
    x, y, relative = np.concatenate([*points, np.empty((3, 0))], axis=1)
    least, greatest = results.relative_density.values[[0, -1]]
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=(-1, 0, 1),
             yticks=(-1, 0, 1))  # fmt: skip
    axes.set_facecolor(plotting.BACKGROUND)
    return axes.scatter(
        x,
        y,
        c=relative,
        s=6 + 24 / (1 + 3 * relative),
        cmap="viridis",
        norm="log",
        vmin=least,
        vmax=greatest,
    )


def draw_losses(axes: Any, results: xr.Dataset) -> None:
    """Every seed over the exact branches, and where the branches cross."""
    relative = results.relative_density
    for which in Geometry:
        color = COLORS[which]
        if which in BRANCHES:
            axes.plot(relative, 1000 * exact_branch(results, which), color=color, linewidth=1)
        chosen = 1000 * results["loss"].where(results["geometry"] == which)
        chosen = chosen.transpose("relative_density", "seed")
        axes.plot(relative, chosen, ".", color=color, ms=4, alpha=0.6, rasterized=True)
        axes.plot([], [], ".-", color=color, label=NAMES[which])
    axes.axvline(0.4, color="0.6", linestyle="--", linewidth=1, label="0.4, the paper's prose")
    crossing = exact_crossing(results)
    axes.axvline(crossing, color="k", linewidth=0.8, label=f"{crossing:.4f}, exact losses cross")
    axes.set(
        xlabel="relative density of one feature", ylabel="1000 x exact loss, summed over outputs"
    )


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 3, size=(12.5, 7.6))
    draw_solutions(grid[0, 0], results, Geometry.DIGONS)
    points = draw_solutions(grid[0, 1], results, Geometry.PENTAGON)
    figure.colorbar(points, ax=grid[0, 1], shrink=0.8, label="relative density of one feature")
    grid[0, 0].set_title(
        "trained digons: the sparse feature at 0\n(all relative densities, one over another)"
    )
    grid[0, 1].set_title("trained pentagons: the varied feature on top")

    axes = grid[0, 2]
    for which in Geometry:
        share = (results["geometry"] == which).sum("seed")
        axes.semilogx(
            results.relative_density, share, ".-", color=COLORS[which], label=NAMES[which]
        )
    axes.set(
        xlabel="relative density of one feature",
        ylabel=f"seeds, of {results.sizes['seed']}",
        title="where training ends, colours as below",
        xticks=TICKS,
        xticklabels=TICKS,
    )
    titles = ("dots: every seed; lines: exact minima", "the same around the crossing")
    for axes, title in zip(grid[1, :2], titles, strict=True):
        draw_losses(axes, results)
        axes.set(title=title)
    losses = (2, 5, 10, 20, 50)
    grid[1, 0].set(xscale="log", yscale="log", xticks=TICKS, xticklabels=TICKS)
    grid[1, 0].set(yticks=losses, yticklabels=losses, ylim=(1, 60))
    grid[1, 0].legend(loc="lower right", fontsize=7)
    for axes in (grid[0, 2], grid[1, 0]):
        axes.minorticks_off()
    near = 1000 * results["branch_loss"].where(results.relative_density < 0.6)
    grid[1, 1].set(xlim=(0.1, 0.6), ylim=(float(near.min()), float(near.max())))

    axes = grid[1, 2]
    known = results["crossing"].sortby("density")
    axes.plot(known.density, known, "k.-", label="exact losses cross")
    axes.plot(results.attrs["density"], exact_crossing(results), "o", color="C3", label="here")
    axes.axhline(0.4, color="0.6", linestyle="--", label="0.4, the paper's prose")
    axes.set(
        xlabel="density of the other four features",
        ylabel="relative density of the crossing",
        title="pentagon above the line, digons below",
    )
    axes.legend()
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
