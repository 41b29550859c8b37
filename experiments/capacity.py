"""The quadratic model and its market of capacity: how features share hidden dimensions.

Claim      A model that adds up squares of features trains to the capacities of water filling:
           features of equal marginal benefit share dimensions, features of greater benefit have
           a dimension of their own, and features of lesser benefit have none. Only the kurtosis
           of the features matters; two features share one dimension above a ratio of
           coefficients of 2 / (kurtosis - 1).
Reproduces Scherlis et al. (2022), "Polysemanticity and Capacity in Neural Networks": capacity
           against importance, the phase diagram, blocks of the embedding.
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

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.models import xavier
from toymodels.theory import capacity as theory

SCHERLIS = "Scherlis et al. (2022), derived again in toymodels.theory.capacity"
PREDICTED, EXACT = tm.prediction(SCHERLIS), tm.identity(SCHERLIS)
SEEDS = "Ours, because it is four standard deviations of 0.005 between seeds."
CONVERGENCE = "Ours, because training and descents stop a little before their limit."
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
    examples: int = 65_536
    """The number of fresh examples on which the loss is measured."""


SMOKE = Config(
    grid=4,
    profile_kurtoses=(2.0, SHOWN),
    random_profiles=3,
    num_seeds=2,
    training=tm.Recipe(steps=40, batch=64, learning_rate=1e-2),
    examples=1024,
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
    fresh = features.sample(jax.random.key(2022), config.examples)
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

    kurtoses = np.geomspace(*config.pair_kurtoses, config.grid)
    pairs = tm.sweep(
        pair,
        axes={"kurtosis": kurtoses, "ratio": np.geomspace(*config.ratios, config.grid)},
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
    """Return the optimal loss and the capacity of the second of two features in one dimension."""

    def optimum(ratio, kurtosis):
        model = np.array([1.0, ratio]), 1, float(kurtosis)
        return theory.optimal_loss(*model), theory.optimal_capacities(*model)[1]

    of = (results.ratio, results.pair_kurtosis)
    loss, second = xr.apply_ufunc(optimum, *of, output_core_dims=[[], []], vectorize=True)
    return xr.Dataset({"loss": loss, "second": second})


def theory_of_profiles(results: xr.Dataset) -> xr.Dataset:
    """Return the optimum of the profile at each kurtosis; `gram` is that of one of many optima."""

    def optimum(kurtosis):
        model = results.coefficient.values, int(results.attrs["hidden"]), float(kurtosis)
        weights = theory.optimal_weights(*model)
        capacities = theory.optimal_capacities(*model)
        return theory.optimal_loss(*model), capacities, weights.T @ weights

    own = [[], ["feature"], ["feature", "other"]]
    found = xr.apply_ufunc(optimum, results.kurtosis, output_core_dims=own, vectorize=True)
    return xr.Dataset(dict(zip(("loss", "capacity", "gram"), found, strict=True)))


def claims(results: xr.Dataset) -> tm.Claims:
    random = zip(results.random_coefficient.values, results.random_kurtosis.values, strict=True)
    models = [(coefficients, 2, float(kurtosis)) for coefficients, kurtosis in random]
    optimal = np.array([theory.optimal_loss(*model) for model in models])
    built = [float(theory.quadratic_loss(theory.optimal_weights(*m), m[0], m[2])) for m in models]

    says = "The lowest minimum of random models of five features in two dimensions has the loss of "
    says += "water filling, measured by the largest relative difference."
    measured = np.max(np.abs(results.random_least_loss.values / optimal - 1))
    yield tm.near(says, 0, measured, PREDICTED, within=1e-6, threshold=CONVERGENCE)

    says = "Weights that plane rotations construct have the loss of water filling, measured by the "
    says += "largest relative difference."
    measured, source = np.max(np.abs(built / optimal - 1)), tm.identity("theorem of Schur and Horn")
    threshold = "Ours, because numbers are rounded."
    yield tm.near(says, 0, measured, source, within=1e-12, threshold=threshold)

    says = "The loss on samples is the loss that the kurtosis gives, measured by the largest "
    says += "deviation of all runs on eight features in standard errors."
    threshold = "Ours, because the largest deviation of so many runs reaches four standard errors."
    z = np.abs(results.sampled_loss - results.loss) / results.standard_error
    yield tm.near(says, 0, z.max(), EXACT, within=4.0, threshold=threshold)
    yield from claims_of_training(results)
    yield from claims_of_blocks(results)


def claims_of_training(results: xr.Dataset) -> tm.Claims:
    best = tm.best_of(results[["loss", "capacity"]], "loss").capacity
    pairs = tm.best_of(results[["pair_loss", "pair_capacity"]], "pair_loss").pair_capacity
    second = pairs.isel(pair_feature=1)

    says = "With two features in one dimension, the trained capacity of the second feature is that "
    says += "of theory, measured by the largest difference over all cells."
    measured = np.abs(second - theory_of_pairs(results).second).max()
    threshold = "Ours, because with another start and a quarter of the samples it was 0.003."
    yield tm.near(says, 0, measured, PREDICTED, within=0.01, threshold=threshold)

    says = "Two features do not share a dimension where the ratio of their coefficients is below 2 "
    says += "/ (kurtosis - 1) by a factor of 1.05 or more, measured by the largest capacity of the "
    says += "second feature."
    measured = second.where(second.ratio < theory.sharing_ratio(second.pair_kurtosis) / 1.05).max()
    yield tm.at_most(says, 0, measured, PREDICTED, slack=0.001, threshold=CONVERGENCE)

    says = "With eight features in four dimensions, the trained capacities are those of water "
    says += "filling, measured by the largest difference over kurtoses, features and both "
    says += "distributions."
    measured = np.abs(best - theory_of_profiles(results).capacity).max()
    yield tm.near(says, 0, measured, PREDICTED, within=0.02, threshold=SEEDS)

    says = "Sparse uniform features and sparse signs of one kurtosis train to equal capacities."
    measured = np.abs(best.diff("active")).max()
    yield tm.near(says, 0, measured, PREDICTED, within=0.02, threshold=SEEDS)

    says = "The trained capacities of eight features add up to the four hidden dimensions."
    measured = np.abs(best.sum("feature") - results.attrs["hidden"]).max()
    source = tm.prediction("sum of capacities <= rank, with equality for tight frames")
    threshold = "Ours, because it is of second order in the deviation of the weights."
    yield tm.near(says, 0, measured, source, within=0.001, threshold=threshold)


def claims_of_blocks(results: xr.Dataset) -> tm.Claims:
    profiles = theory_of_profiles(results)
    shown = profiles.sel(kurtosis=SHOWN, method="nearest")
    gram = results.gram.sel(kurtosis=SHOWN, method="nearest")
    best = tm.best_of(results[["loss", "gram"]], "loss").gram
    # Theory leaves no choice about the blocks, and all choice inside the block of sharers.
    shares = (shown.capacity > 1e-9) & (shown.capacity < 1 - 1e-9)
    free = np.outer(shares, shares) & ~np.eye(shares.size, dtype=bool)
    free = xr.DataArray(free, dims=("feature", "other"))

    says = f"At kurtosis {SHOWN:g}, the diagonal of the trained Gram matrix and its zeros between "
    says += "blocks are those of theory, measured by the largest difference."
    apart = best.sel(kurtosis=SHOWN, method="nearest") - shown.gram
    measured = np.abs(xr.where(free, 0.0, apart)).max()
    yield tm.near(says, 0, measured, PREDICTED, within=0.02, threshold=SEEDS)

    says = "Inside the block of features that share dimensions, seeds of equal loss have different "
    says += "Gram matrices, measured by the largest difference of the size of an entry."
    size = np.abs(gram).where(free)
    measured = (size.max("seed") - size.min("seed")).max()
    source = tm.finding("many projections have one diagonal")
    threshold = "Ours, because it is five times what sampling moves."
    yield tm.at_least(says, 0.1, measured, source, threshold=threshold)

    says = "No seed is stuck in a local minimum at a kurtosis above 3, measured by the largest "
    says += "relative excess over the optimal loss of eight features."
    excess = results.loss / profiles.loss - 1
    source = tm.finding("an observation of this experiment")
    threshold = "Ours, because a figure would not show such an excess."
    above = excess.where(excess.kurtosis > 3).max()
    yield tm.at_most(says, 0.01, above, source, threshold=threshold)

    says = "Some seeds are stuck at a kurtosis below 3, where several choices of four features are "
    says += "local minima, measured by the largest relative excess over the optimal loss of eight "
    says += "features."
    source = tm.finding("toymodels.theory.capacity.sharing_ratio")
    threshold = "Ours, because a figure would show such an excess."
    below = excess.where(excess.kurtosis < 3).max()
    yield tm.at_least(says, 0.1, below, source, threshold=threshold)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 2, size=(8.4, 6.8))
    plot_capacities(grid[0, 0], results)
    plot_phases(grid[0, 1], results)
    plot_excess(grid[1, 1], results)
    grams = results.gram.sel(active="uniform").sel(kurtosis=SHOWN, method="nearest")
    first, second = grams.transpose("seed", "feature", "other").values[:2]
    gap = np.full((len(first), 1), np.nan)
    image = plotting.signed_matrix(grid[1, 0], np.hstack([first, gap, second]), limit=0.6)
    plotting.color_bar(image, "entry of $W^T W$", shrink=0.7)
    middle = (len(first) - 1) / 2
    grid[1, 0].set_xticks([middle, len(first) + 1 + middle], labels=["seed 0", "seed 1"])
    grid[1, 0].set_title("Two have a dimension each, four share\ntwo, each seed in its way")
    return figure


def plot_capacities(axes: plotting.Axes, results: xr.Dataset) -> None:
    best, optimal = tm.best_of(results[["loss", "capacity"]], "loss"), theory_of_profiles(results)
    for number, kurtosis in enumerate(results.kurtosis.values):
        at, color = best.capacity.sel(kurtosis=kurtosis), {"color": f"C{number}"}
        axes.plot(results.coefficient, at.sel(active="uniform"), "o", ms=4, **color)
        axes.plot(results.coefficient, at.sel(active="sign"), "x", ms=6, **color)
        line, name = optimal.capacity.sel(kurtosis=kurtosis), f"kurtosis {kurtosis:g}"
        axes.plot(results.coefficient, line, lw=1, label=name, **color)
    axes.set(
        xlabel="coefficient $v_i$ of the feature (dots: uniform, crosses: signs)",
        ylabel="capacity",
        title=f"Eight features in four dimensions:\nbest of {results.sizes['seed']} seeds, on "
        "lines of water filling (theory)",
    )
    axes.legend(handlelength=1.2)


def plot_phases(axes: plotting.Axes, results: xr.Dataset) -> None:
    ratios, kurtoses = results.ratio.values, results.pair_kurtosis.values
    best = tm.best_of(results[["pair_loss", "pair_capacity"]], "pair_loss").pair_capacity
    second, norm = best.isel(pair_feature=1), plotting.Normalize(0, 0.5)
    image = plotting.log_image(axes, second, x="ratio", y="pair_kurtosis", cmap="Blues", norm=norm)
    plotting.color_bar(image, "capacity of the second")
    levels = theory_of_pairs(results).second.transpose("pair_kurtosis", "ratio")
    axes.contour(ratios, kurtoses, levels, (0.1, 0.2, 0.3, 0.4), colors="0.3", linewidths=0.7)
    above = kurtoses[kurtoses > 3]
    axes.plot(theory.sharing_ratio(above), above, color="C1", label="boundary 2 / (k - 1)")
    axes.plot([], [], color="0.3", lw=0.7, label="0.1, ..., 0.4 in theory")
    axes.set(
        xlim=ratios[[0, -1]],
        xlabel="ratio of coefficients $v_2 / v_1$",
        ylabel="kurtosis k",
        title=f"Two features share one dimension\n(best of {results.sizes['seed']} seeds)",
    )
    axes.legend(loc="lower left")


def plot_excess(axes: plotting.Axes, results: xr.Dataset) -> None:
    for loss, best, axis, color, label in (
        (results.pair_loss, theory_of_pairs(results), "pair_kurtosis", "0.7", "two features"),
        (results.loss, theory_of_profiles(results), "kurtosis", "C3", "eight features"),
    ):
        height = np.maximum((loss / best.loss - 1).transpose(axis, ...), 1e-6)
        flat = height.values.reshape(height.sizes[axis], -1)
        axes.loglog(results[axis], flat, ".", color=color, ms=2, rasterized=True)
        axes.plot([], [], ".", color=color, label=label)
    axes.axvline(theory.GAUSSIAN_KURTOSIS, color="0.5", lw=0.7, ls="--")
    axes.set(
        xlabel="kurtosis",
        ylabel="loss / optimum - 1, at least 1e-6",
        title="Every seed: stuck only\nbelow a kurtosis of 3",
    )
    plotting.plain_ticks(axes, "x")
    axes.legend()


if __name__ == "__main__":
    experiment.main(__file__)
