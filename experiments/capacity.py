"""What is a feature's share of a dimension worth? The quadratic model and its market of capacity.

Claim      A model that adds up squares of features trains to the capacities of water filling:
           features of equal marginal benefit share dimensions, features of greater benefit have
           a dimension of their own, and features of lesser benefit have none. Only the kurtosis
           of the features matters; two features share one dimension above a ratio of
           coefficients of 2 / (kurtosis - 1).
Reproduces Scherlis et al. (2022), "Polysemanticity and Capacity in Neural Networks": marginal
           benefits, capacity against importance, the phase diagram, blocks of the embedding.
Selection  Best of 4 seeds by the exact expected loss of the trained weights, which needs no
           samples; the last panel shows every seed.
Command    toymodels run experiments/capacity.py
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.models import xavier
from toymodels.theory import capacity as theory

SCHERLIS = "Scherlis et al. (2022), derived again in toymodels.theory.capacity"
PREDICTED, EXACT = tm.prediction(SCHERLIS), tm.identity(SCHERLIS)
SEEDS = "Ours, because it is four standard deviations of 0.005 between seeds."
SHOWN = 6.0
"""The kurtosis at which two features have a dimension each, four share two, and two have none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    grid: int = 20
    """The number of cells along each axis of the phase diagram, evenly spaced in the logarithm."""
    pair_kurtoses: tuple[float, float] = (1.9, 32.0)
    ratios: tuple[float, float] = (0.1, 0.95)
    profile_kurtoses: tuple[float, ...] = (2.0, 4.0, SHOWN, 12.0, 24.0)
    coefficients: tuple[float, ...] = tuple(0.8**i for i in range(8))
    hidden: int = 4
    random_profiles: int = 30
    """The number of models of random coefficients, minimised from `starts` random weights."""
    starts: int = 20
    num_seeds: int = 4
    training: tm.Recipe = tm.Recipe(steps=6000, batch=2048, learning_rate=1e-2)


SMOKE = Config(
    grid=4,
    profile_kurtoses=(2.0, SHOWN),
    random_profiles=3,
    num_seeds=2,
    training=tm.Recipe(steps=200, batch=128, learning_rate=1e-2),
)


class Quadratic(nn.Module):
    r"""The model $y = \lVert W x \rVert^2 + b$."""

    hidden: int

    @nn.compact
    def __call__(self, features):
        weights = self.param("weights", xavier, (self.hidden, features.size))
        bias = self.param("bias", nn.initializers.zeros, (1,))
        return jnp.sum((weights @ features) ** 2)[None] + bias


def trained(key, coefficients, kurtosis, config: Config, *, hidden: int, signs: bool = False):
    """Train one model on samples, and return its capacities and losses."""
    features = tm.StandardisedSparse(len(coefficients), kurtosis, signs)
    task = tm.Task(features, target=lambda x: (coefficients @ x**2)[None])
    model = Quadratic(hidden)
    weights = config.training.train(key, model, task, evaluation=0).params["weights"]
    best_bias = jnp.sum(coefficients) - jnp.sum(weights**2)
    loss = tm.task_loss(model, task)
    fresh = features.sample(jax.random.key(2022), 65_536)
    errors = jax.vmap(lambda x: loss({"weights": weights, "bias": best_bias[None]}, x))(fresh)
    return {
        "loss": theory.quadratic_loss(weights, coefficients, kurtosis),
        "sampled_loss": errors.mean(),
        "standard_error": errors.std() / errors.size**0.5,
        "capacity": geometry.feature_dimensionality(weights),
        "gram": geometry.gram(weights),
    }


def run(config: Config) -> xr.Dataset:
    coefficients = jnp.asarray(config.coefficients)

    def pair(key, *, kurtosis, ratio):
        both = tm.geometric_importance(2, ratio)
        outputs = trained(key, both, kurtosis, config, hidden=1)
        return {name: outputs[name] for name in ("loss", "capacity")}

    def profile(key, *, signs, kurtosis):
        return trained(key, coefficients, kurtosis, config, hidden=config.hidden, signs=signs)

    pairs = tm.sweep(
        pair,
        axes={
            "kurtosis": np.geomspace(*config.pair_kurtoses, config.grid),
            "ratio": np.geomspace(*config.ratios, config.grid),
        },
        num_seeds=config.num_seeds,
        dims={"capacity": ("pair_feature",)},
    ).rename(kurtosis="pair_kurtosis", loss="pair_loss", capacity="pair_capacity")
    profiles = tm.sweep(
        profile,
        static={"signs": {"uniform": False, "sign": True}},
        axes={"kurtosis": config.profile_kurtoses},
        num_seeds=config.num_seeds,
        dims={"capacity": ("feature",), "gram": ("feature", "other")},
    ).rename(signs="active")
    profiles = profiles.assign_coords(coefficient=("feature", list(config.coefficients)))
    profiles.attrs["hidden"] = config.hidden
    return profiles.merge(pairs).merge(brute_force(config))


def brute_force(config: Config) -> xr.Dataset:
    """Return the lowest of many minima of the exact loss, five features in two dimensions."""
    random = np.random.default_rng(0)
    coefficients = random.uniform(0.1, 1.0, (config.random_profiles, 5))
    kurtoses = random.uniform(1.5, 15.0, config.random_profiles)
    starts = random.normal(0, 0.5, (config.random_profiles, config.starts, 2, 5))

    def lowest(v, kurtosis, starts):
        def descend(start):
            return tm.theory.minimise(lambda w: theory.quadratic_loss(w, v, kurtosis), start).loss

        return jnp.min(jax.vmap(descend)(starts))

    with jax.enable_x64(True):
        losses = jax.jit(jax.vmap(lowest))(coefficients, kurtoses, starts)
    return xr.Dataset(
        {
            "random_coefficient": (("random", "random_feature"), coefficients),
            "random_kurtosis": ("random", kurtoses),
            "random_least_loss": ("random", np.asarray(losses)),
        }
    )


def theory_of_pairs(results: xr.Dataset) -> xr.Dataset:
    """Return the optimal loss and capacities of two features, on the coordinates of the results."""
    grid = [
        [(np.array([1.0, ratio]), 1, float(kurtosis)) for ratio in results.ratio.values]
        for kurtosis in results.pair_kurtosis.values
    ]
    axes = ("pair_kurtosis", "ratio")
    capacities = [[theory.optimal_capacities(*cell) for cell in row] for row in grid]
    losses = [[theory.optimal_loss(*cell) for cell in row] for row in grid]
    return xr.Dataset({"capacity": ((*axes, "pair_feature"), capacities), "loss": (axes, losses)})


def theory_of_profiles(results: xr.Dataset) -> xr.Dataset:
    """Return the optimum of the profile at each kurtosis; `gram` is that of one of many optima."""
    models = [
        (results.coefficient.values, int(results.attrs["hidden"]), float(kurtosis))
        for kurtosis in results.kurtosis.values
    ]
    weights = [theory.optimal_weights(*model) for model in models]
    capacities = [theory.optimal_capacities(*model) for model in models]
    return xr.Dataset(
        {
            "loss": ("kurtosis", [theory.optimal_loss(*model) for model in models]),
            "capacity": (("kurtosis", "feature"), capacities),
            "gram": (("kurtosis", "feature", "other"), [w.T @ w for w in weights]),
        },
        coords={"kurtosis": results.kurtosis},
    )


def claims(results: xr.Dataset):
    yield from claims_of_theory(results)
    yield from claims_of_training(results)
    yield from claims_of_blocks(results)


def claims_of_theory(results: xr.Dataset):
    models = [
        (v, 2, float(kurtosis))
        for v, kurtosis in zip(
            results.random_coefficient.values, results.random_kurtosis.values, strict=True
        )
    ]
    optimal = np.array([theory.optimal_loss(*model) for model in models])
    built = [
        float(theory.quadratic_loss(theory.optimal_weights(*model), model[0], model[2]))
        for model in models
    ]
    z = np.abs(results["sampled_loss"] - results["loss"]) / results["standard_error"]

    says = (
        "The lowest minimum of random models of five features in two dimensions has the loss of "
        "water filling, by the largest relative difference."
    )
    measured = np.max(np.abs(results["random_least_loss"].values / optimal - 1))
    yield tm.near(says, 0, measured, PREDICTED, within=1e-6, threshold="Ours: convergence.")

    says = (
        "Weights that plane rotations construct have the loss of water filling, by the largest "
        "relative difference."
    )
    measured = np.max(np.abs(built / optimal - 1))
    source = tm.identity("theorem of Schur and Horn")
    yield tm.near(says, 0, measured, source, within=1e-12, threshold="Ours: rounding.")

    says = (
        "The loss on samples is the loss that the kurtosis gives, by the largest deviation of all "
        "runs on eight features in standard errors."
    )
    threshold = "Ours: four standard errors, because it is the largest of all runs."
    yield tm.near(says, 0, z.max(), EXACT, within=4.0, threshold=threshold)


def claims_of_training(results: xr.Dataset):
    pairs, profiles = theory_of_pairs(results), theory_of_profiles(results)
    best_pair = tm.best_of(results[["pair_loss", "pair_capacity"]], "pair_loss")["pair_capacity"]
    best = tm.best_of(results[["loss", "capacity"]], "loss")
    second = best_pair.isel(pair_feature=1)
    boundary = theory.sharing_ratio(results.pair_kurtosis.values) / 1.05
    below = best_pair.ratio < xr.DataArray(boundary, dims="pair_kurtosis")

    says = (
        "With two features in one dimension, the trained capacity of the second feature is that "
        "of theory, by the largest difference over all cells."
    )
    measured = np.abs(second - pairs["capacity"].isel(pair_feature=1)).max()
    threshold = "Ours: with another start and a quarter of the samples it was 0.003."
    yield tm.near(says, 0, measured, PREDICTED, within=0.01, threshold=threshold)

    says = (
        "Two features do not share a dimension where the ratio of their coefficients is below "
        "2 / (kurtosis - 1) by a factor of 1.05 or more: largest capacity of the second feature."
    )
    measured = second.where(below).max()
    yield tm.at_most(says, 0, measured, PREDICTED, slack=0.001, threshold="Ours: convergence.")

    says = (
        "With eight features in four dimensions, the trained capacities are those of water "
        "filling, by the largest difference over kurtoses, features and both distributions."
    )
    measured = np.abs(best["capacity"] - profiles["capacity"]).max()
    yield tm.near(says, 0, measured, PREDICTED, within=0.02, threshold=SEEDS)

    says = (
        "Sparse uniform features and sparse signs of one kurtosis train to equal capacities, by "
        "the largest difference."
    )
    measured = np.abs(best["capacity"].diff("active")).max()
    yield tm.near(says, 0, measured, PREDICTED, within=0.02, threshold=SEEDS)

    says = "The trained capacities of eight features add up to the four hidden dimensions."
    measured = np.abs(best["capacity"].sum("feature") - results.attrs["hidden"]).max()
    source = tm.prediction("sum of capacities <= rank, with equality for tight frames")
    threshold = "Ours, because it is of second order in the deviation of the weights."
    yield tm.near(says, 0, measured, source, within=0.001, threshold=threshold)


def claims_of_blocks(results: xr.Dataset):
    profiles = theory_of_profiles(results)
    # The blocks at one kurtosis: what theory leaves no choice about, and what it does.
    shown = profiles.sel(kurtosis=SHOWN, method="nearest")
    gram = results["gram"].sel(kurtosis=SHOWN, method="nearest")
    best = tm.best_of(results[["loss", "gram"]], "loss")["gram"]
    best = best.sel(kurtosis=SHOWN, method="nearest")
    shared = ((shown["capacity"] > 1e-9) & (shown["capacity"] < 1 - 1e-9)).values
    free = xr.DataArray(
        np.outer(shared, shared) & ~np.eye(len(shared), dtype=bool), dims=("feature", "other")
    )
    size = xr.where(free, np.abs(gram), np.nan)
    excess = results["loss"] / profiles["loss"] - 1

    says = (
        f"At kurtosis {SHOWN:g}, the diagonal of the trained Gram matrix and its zeros between "
        "blocks are those of theory, by the largest difference."
    )
    measured = np.abs(xr.where(free, 0.0, best - shown["gram"])).max()
    yield tm.near(says, 0, measured, PREDICTED, within=0.02, threshold=SEEDS)

    says = (
        "Inside the block of features that share dimensions, seeds of equal loss have different "
        "Gram matrices: largest difference of the size of an entry."
    )
    measured = (size.max("seed") - size.min("seed")).max()
    source = tm.finding("many projections have one diagonal")
    threshold = "Ours: five times what sampling moves."
    yield tm.at_least(says, 0.1, measured, source, threshold=threshold)

    says = (
        "No seed is stuck at a kurtosis above 3, where returns diminish: largest relative excess "
        "over the optimal loss of eight features."
    )
    source = tm.finding("an observation of this experiment")
    threshold = "Ours: an excess that a figure would not show."
    above = excess.where(excess.kurtosis > 3).max()
    yield tm.at_most(says, 0.01, above, source, threshold=threshold)

    says = (
        "Seeds are stuck at a kurtosis below 3, where several choices of four features are local "
        "minima: largest relative excess over the optimal loss of eight features."
    )
    source = tm.finding("toymodels.theory.capacity.sharing_ratio")
    threshold = "Ours: an excess that a figure would show."
    yield tm.at_least(
        says, 0.1, excess.where(excess.kurtosis < 3).max(), source, threshold=threshold
    )


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.0))
    share = np.linspace(0, 1, 101)
    for kurtosis in (2.0, 3.0, 6.0, 12.0):
        benefit = theory.marginal_benefit(share, kurtosis)
        grid[0, 0].semilogy(share, benefit, label=f"kurtosis {kurtosis:g}")
    grid[0, 0].set(
        xlabel="capacity of a feature",
        ylabel="marginal benefit",
        title="Returns diminish only\nabove a kurtosis of 3 (theory)",
    )
    grid[0, 0].legend()
    plot_market(grid[0, 1], results)
    plot_capacities(grid[0, 2], results)
    plot_phases(grid[1, 0], results)
    plot_blocks(grid[1, 1], results)
    plot_excess(grid[1, 2], results)
    return figure


def plot_market(axes: Axes, results: xr.Dataset) -> None:
    """Draw the marginal benefits of eight features, and the capacities where training stops."""
    best = tm.best_of(results[["loss", "capacity"]], "loss").sel(active="uniform")
    best = best.sel(kurtosis=SHOWN, method="nearest")
    kurtosis, coefficients = float(best.kurtosis), results.coefficient.values
    share = np.linspace(0, 1, 101)
    for v, capacity in zip(coefficients, best["capacity"].values, strict=True):
        color = plotting.IMPORTANCE_MAP(v)
        axes.plot(share, v**2 * theory.marginal_benefit(share, kurtosis), color=color)
        own = min(float(capacity), 1.0)  # a 32-bit number may exceed 1 by rounding
        axes.plot(own, v**2 * theory.marginal_benefit(own, kurtosis), "o", color=color, ms=5)
    optimal = theory.optimal_capacities(coefficients, int(results.attrs["hidden"]), kurtosis)
    offers = coefficients**2 * theory.marginal_benefit(optimal, kurtosis)
    axes.axhline(offers[optimal < 1 - 1e-9].max(), color="0.5", ls="--", lw=1)
    axes.set(
        xlabel="capacity of a feature (dots: trained)",
        ylabel="marginal benefit",
        yscale="log",
        title=f"Eight features, kurtosis {kurtosis:g}:\nsharers meet at one price (dashed)",
    )


def plot_capacities(axes: Axes, results: xr.Dataset) -> None:
    """Draw capacity against coefficient: lines of water filling, and trained models on them."""
    best = tm.best_of(results[["loss", "capacity"]], "loss")
    coefficients, hidden = results.coefficient.values, int(results.attrs["hidden"])
    fine = np.linspace(0, 1, 400)
    for number, kurtosis in enumerate(results.kurtosis.values):
        if kurtosis > theory.GAUSSIAN_KURTOSIS:
            # All features that share have one quotient M_ii / C_i, the level of the water.
            optimal = theory.optimal_capacities(coefficients, hidden, float(kurtosis))
            sizes = (kurtosis - 1) * coefficients / (2 + (kurtosis - 3) * optimal)
            level = np.median(sizes[(optimal > 1e-9) & (optimal < 1 - 1e-9)])
            line = np.clip(((kurtosis - 1) * fine / level - 2) / (kurtosis - 3), 0, 1)
        else:
            line = np.where(fine > coefficients[hidden - 1 : hidden + 1].mean(), 1.0, 0.0)
        axes.plot(fine, line, color=f"C{number}", lw=1, label=f"kurtosis {kurtosis:g}")
        at = best["capacity"].sel(kurtosis=kurtosis)
        axes.plot(coefficients, at.sel(active="uniform"), "o", color=f"C{number}", ms=4)
        axes.plot(coefficients, at.sel(active="sign"), "x", color=f"C{number}", ms=6)
    axes.set(
        xlabel="coefficient $v_i$ of the feature\n(dots: uniform, crosses: signs)",
        ylabel="capacity",
        title=f"Best of {results.sizes['seed']} seeds,\non lines of water filling (theory)",
    )
    axes.legend(handlelength=1.2)


def plot_phases(axes: Axes, results: xr.Dataset) -> None:
    """Draw the capacity of the second of two features, with the boundary and levels of theory."""
    best = tm.best_of(results[["pair_loss", "pair_capacity"]], "pair_loss")["pair_capacity"]
    second = best.isel(pair_feature=1)
    ratios, kurtoses = results.ratio.values, results.pair_kurtosis.values
    scale = Normalize(0, 0.5)
    image = plotting.log_image(axes, second, x="ratio", y="pair_kurtosis", cmap="Blues", norm=scale)
    fine = np.geomspace(3.001, kurtoses[-1], 200)
    axes.plot(theory.sharing_ratio(fine), fine, color="C3", label="boundary 2 / (k - 1)")
    for level in (0.1, 0.2, 0.3, 0.4):  # capacity = level, solved for the ratio
        slope = level * (fine - 3)
        axes.plot((2 + slope) / (fine - 1 - slope), fine, color="0.3", lw=0.7)
    axes.plot([], [], color="0.3", lw=0.7, label="0.1, ..., 0.4 in theory")
    plotting.color_bar(image, "capacity of the second")
    axes.set(
        xlim=(ratios[0], ratios[-1]),
        ylim=(kurtoses[0], kurtoses[-1]),
        xlabel="ratio of coefficients $v_2 / v_1$",
        ylabel="kurtosis k",
        title=f"Two features share one dimension\n(best of {results.sizes['seed']} seeds)",
    )
    plotting.plain_ticks(axes, "x", (0.1, 0.2, 0.4, 0.8))
    plotting.plain_ticks(axes, "y", (2, 3, 5, 10, 20))
    axes.legend(loc="lower left")


def plot_blocks(axes: Axes, results: xr.Dataset) -> None:
    """Draw the Gram matrices of two seeds, which differ only inside the shared block."""
    grams = results["gram"].sel(active="uniform").sel(kurtosis=SHOWN, method="nearest")
    first, second = grams.transpose("seed", "feature", "other").values[:2]
    gap = np.full((len(first), 1), np.nan)
    image = plotting.signed_matrix(axes, np.hstack([first, gap, second]), limit=0.6)
    plotting.color_bar(image, "entry of $W^T W$", orientation="horizontal")
    middle = (len(first) - 1) / 2
    axes.set_xticks([middle, len(first) + 1 + middle], labels=["seed 0", "seed 1"])
    axes.set(title="Two have a dimension each, four\nshare two, two are ignored")


def plot_excess(axes: Axes, results: xr.Dataset) -> None:
    """Draw how far the loss of every seed is from the optimum."""
    pairs = results["pair_loss"] / theory_of_pairs(results)["loss"] - 1
    profiles = results["loss"] / theory_of_profiles(results)["loss"] - 1
    for excess, axis, color, label in (
        (pairs, "pair_kurtosis", "0.7", "two features"),
        (profiles, "kurtosis", "C3", "eight features"),
    ):
        height = np.maximum(excess.transpose(axis, ...).values, 1e-6)
        flat = height.reshape(len(height), -1)
        axes.loglog(results[axis], flat, ".", color=color, ms=2, rasterized=True)
        axes.plot([], [], ".", color=color, label=label)
    axes.axvline(theory.GAUSSIAN_KURTOSIS, color="0.5", lw=0.7, ls="--")
    axes.set(
        xlabel="kurtosis",
        ylabel="loss / optimum - 1, at least 1e-6",
        title="Every seed: stuck only\nbelow a kurtosis of 3",
    )
    plotting.plain_ticks(axes, "x", (2, 3, 5, 10, 20))
    axes.legend()


if __name__ == "__main__":
    experiment.main(__file__)
