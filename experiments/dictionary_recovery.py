r"""When does a sparse autoencoder find the features of a model in superposition?

Claim      Reconstruction does not tell. With a small penalty, or a large k, a dictionary explains
           more than 99 % of the activations while its directions are no nearer to the features
           than random ones; the dictionary that holds every feature explains LESS. Where the world
           is sparse, and superposition strongest, every architecture finds the features if its
           penalty or k is right; where the world is dense none does, whatever the penalty. A
           dictionary of random directions scores .7 or more: read MCC against chance.
Reproduces The question of Sharkey, Braun, Millidge (2022), "Taking features out of superposition
           with sparse autoencoders", asked of trained toy models, whose features are known. That
           explained variance and recovery come apart is known of fixed random dictionaries
           (SynthSAEBench, 2026).
Settings   24 independent features of equal importance in 8 dimensions, `ReLUOutput`; autoencoders
           on its hidden layer, 3000 updates of 256 fresh activations, Adam at 3e-3. All ours.
           Scores count features of norm above 1/2; one without a latent counts as cosine 0. Every
           cell trains its own toy model and then the autoencoder: one program.
Selection  Panels a-c: median of all seeds; d: every one. e, f: for each architecture the setting
           of penalty or k with the highest median score, chosen by that score itself: what it
           could do if tuned by somebody who knows the features. Nobody does, so it is a bound,
           and architectures are not ranked by it.
Command    toymodels run experiments/dictionary_recovery.py
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import baselines, dictionaries, geometry, sparse_coding

OURS: Final = "ours: a toy model knows its features"
ITERATIONS, FEW = 200, 1024
"""Of the optimal codes, which are dear: iterations, and examples."""
HIGH: Final = 0.99
"""Explained variance that would be called high."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 24
    hidden: int = 8
    densities: tuple[float, ...] = (0.02, 0.1, 0.2, 0.4, 1.0)
    penalties: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    active: tuple[float, ...] = (1, 2, 3, 4, 6, 8)
    """k of TopK and BatchTopK, as many as penalties."""
    latents: tuple[int, ...] = (12, 24, 48)
    rivals: tuple[str, ...] = ("gated", "JumpReLU", "Matryoshka", "TopK", "BatchTopK")
    """Compared with ReLU, at the largest size."""
    num_seeds: int = 3
    model_steps: int = 2000
    steps: int = 3000
    batch: int = 256
    model_rate: float = 1e-2
    learning_rate: float = 3e-3
    bandwidth: float = 0.1
    """Of JumpReLU, whose thresholds start at as much."""
    examples: int = 4096
    """For the scores."""


SMOKE = Config(
    num_features=4, hidden=2, densities=(0.1, 1.0), penalties=(0.01, 0.1), active=(1, 2),
    latents=(8,), rivals=("TopK",), num_seeds=1, model_steps=20, steps=10,
    batch=32, examples=64,
)  # fmt: skip

Build = Callable[[int, Any], nn.Module]
"""Latents and setting to an autoencoder."""


def architectures(config: Config) -> dict[str, tuple[Build, bool]]:
    """How to build each, and whether its setting is k; else it is the penalty."""

    def matryoshka(latents: int, _: Any) -> nn.Module:
        prefixes = tuple(latents // part for part in (8, 4, 2, 1))
        return autoencoders.MatryoshkaAutoencoder(latents, prefixes)

    def jump(latents: int, _: Any) -> nn.Module:
        return autoencoders.JumpReLUAutoencoder(latents, config.bandwidth, config.bandwidth)

    return {
        "ReLU": (lambda latents, _: autoencoders.ReLUAutoencoder(latents), False),
        "gated": (lambda latents, _: autoencoders.GatedAutoencoder(latents), False),
        "JumpReLU": (jump, False),
        "Matryoshka": (matryoshka, False),
        "TopK": (autoencoders.TopKAutoencoder, True),
        "BatchTopK": (autoencoders.BatchTopKAutoencoder, True),
    }


def score(dictionary: Any, weights: Any) -> tuple[Any, Any]:
    """MCC over the features represented, those without a latent counted as 0; the matching."""
    represented = jnp.linalg.norm(weights, axis=0) > 0.5
    matching = dictionaries.match(dictionary, weights * represented)
    cosines = dictionaries.matched_cosines(dictionary, weights * represented, matching)
    return jnp.sum(cosines) / jnp.maximum(jnp.sum(represented), 1), matching


def sweep(config: Config, build: Build, latents: tuple[int, ...], *, setting_is_k: bool) -> Any:
    """All scores of one architecture over density, setting, size and seed."""
    optimizer = optax.adam(config.learning_rate)
    model = tm.ReLUOutput(config.hidden)

    def cell(key: Any, *, latents: int, density: Any, setting: Any) -> dict[str, Any]:
        key_model, key_autoencoder, key_examples = jax.random.split(key, 3)
        features = tm.SparseUniform(config.num_features, density)
        trained = tm.train(
            key_model,
            model,
            tm.Task(features),
            optimizer=optax.adam(config.model_rate),
            steps=config.model_steps,
            batch=config.batch,
            evaluation=config.examples,
        )
        weights = trained.params["weights"]
        autoencoder = build(latents, setting)
        fitted = autoencoders.fit_autoencoder(
            key_autoencoder,
            autoencoder,
            tm.Activations(model, trained.params, features, "hidden"),
            penalty=0.0 if setting_is_k else setting,
            optimizer=optimizer,
            steps=config.steps,
            batch=config.batch,
        )
        examples = features.sample(key_examples, config.examples)
        hidden = examples @ weights.T
        found: Any = jax.vmap(lambda h: autoencoder.apply({"params": fitted.params}, h))(hidden)
        dictionary = autoencoders.dictionary(fitted.params)
        mcc, matching = score(dictionary, weights)
        represented = jnp.linalg.norm(weights, axis=0) > 0.5
        firing = dictionaries.firing(found.latents, examples > 0, matching)
        return {
            "weights": weights,
            "mcc": mcc,
            "precision": dictionaries.mean_max_cosine(dictionary, weights),
            "f1": jnp.sum(firing.f1 * represented) / jnp.maximum(jnp.sum(represented), 1),
            "explained": dictionaries.explained_variance(
                hidden, found.reconstruction, centred=True
            ),
            "l0": dictionaries.l0(found.latents),
            "dead": dictionaries.dead_fraction(found.latents),
        }

    return tm.sweep(
        cell,
        axes={
            "density": config.densities,
            "setting": config.active if setting_is_k else config.penalties,
        },
        static={"latents": latents},
        num_seeds=config.num_seeds,
        dims={"weights": ("hidden_dimension", "feature")},
    )


def without_training(config: Config, weights: xr.DataArray) -> xr.Dataset:
    """What needs no gradient: components of the activations, and codes for the true features."""

    @jax.jit
    def oracle(hidden: Any, active: Any, weights: Any, penalty: Any) -> Any:
        """F1 of the optimal codes for the true directions: what no encoder can be better than."""
        norms = jnp.linalg.norm(weights, axis=0)
        directions = weights / jnp.where(norms > 0.5, norms, jnp.inf)[None, :]
        codes = jax.vmap(
            lambda h: sparse_coding.lasso_codes(directions, h, penalty, iterations=ITERATIONS)
        )(hidden)
        f1 = dictionaries.firing(codes, active, jnp.arange(weights.shape[1])).f1
        return jnp.sum(f1 * (norms > 0.5)) / jnp.maximum(jnp.sum(norms > 0.5), 1)

    @jax.jit
    def scored(dictionary: Any, weights: Any) -> Any:
        return score(dictionary, weights)[0]

    def one(density: float, seed: int) -> xr.Dataset:
        own = jnp.asarray(weights.sel(density=density, seed=seed).to_numpy())
        key_examples, key_start, key_chance = jax.random.split(jax.random.key(seed), 3)
        features = tm.SparseUniform(config.num_features, density)
        examples = features.sample(key_examples, config.examples)
        hidden = examples @ own.T
        principal = baselines.principal_components(hidden, config.hidden).dictionary
        independent = baselines.independent_components(key_start, hidden, config.hidden)
        shapes = [(config.hidden, latents) for latents in config.latents]
        chance = [scored(jax.random.normal(key_chance, shape), own) for shape in shapes]
        few = slice(0, FEW)
        optimal = [oracle(hidden[few], examples[few] > 0, own, each) for each in config.penalties]
        return xr.Dataset(
            {
                "principal": scored(principal, own).item(),
                "independent": scored(independent, own).item(),
                "chance": ("latents", np.array(chance)),
                "oracle_f1": ("penalty", np.array(optimal)),
                "represented": geometry.num_represented(own, threshold=0.5).item(),
            }
        )

    seeds = weights["seed"].to_numpy()
    rows = [
        xr.concat([one(density, seed) for seed in seeds], xr.Variable("seed", seeds))
        for density in config.densities
    ]
    return xr.concat(rows, xr.Variable("density", list(config.densities)))


def run(config: Config) -> xr.Dataset:
    built = architectures(config)
    relu = sweep(config, built["ReLU"][0], config.latents, setting_is_k=False)
    weights = relu["weights"].isel(setting=0, latents=0)  # all cells of a seed train the same
    most = config.latents[-1:]
    rank = np.arange(len(config.penalties))

    def compared(name: str) -> xr.Dataset:
        build, setting_is_k = built[name]
        scores = sweep(config, build, most, setting_is_k=setting_is_k).isel(latents=0, drop=True)
        return scores.drop_vars("weights").assign_coords(setting=rank)

    first = relu.isel(latents=-1, drop=True).drop_vars("weights").assign_coords(setting=rank)
    names = xr.Variable("architecture", ["ReLU", *config.rivals])
    each = xr.concat([first, *map(compared, config.rivals)], names)
    relu = relu.drop_vars("weights").rename(setting="penalty")
    return xr.merge(
        [
            relu,
            each.rename({name: f"each_{name}" for name in each.data_vars}),
            without_training(config, weights),
            weights.drop_vars(["setting", "latents"]).rename("weights"),
        ],
        combine_attrs="drop_conflicts",
    )


def guidance(mcc: xr.DataArray, explained: xr.DataArray) -> float:
    """Rank correlation of the two over settings, the largest of all densities."""
    pairs = zip(mcc.transpose("density", ...), explained.transpose("density", ...), strict=True)
    return max(float(stats.spearmanr(one, other)[0]) for one, other in pairs)  # pyright: ignore


def claims(results: xr.Dataset) -> list[tm.Claim]:
    median = results.median("seed")
    most = median.isel(latents=-1)
    sparse, dense = most.sel(density=most["density"] < 1), most.isel(density=-1)
    excess = most["each_mcc"] - most["chance"]
    relu, top = sparse["mcc"], sparse.sel(architecture="TopK")
    found = sparse["explained"].isel(penalty=relu.argmax("penalty"))
    hidden, represented = results.sizes["hidden_dimension"], results["represented"]
    wide = int(results["latents"][-1])
    limit = results.isel(latents=0)["latents"] / represented
    return [
        tm.Claim(
            f"ReLU, {wide} latents, least penalty: explained variance, least of all densities",
            OURS,
            HIGH,
            float(most["explained"].isel(penalty=0).min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.FINDING,
            threshold="ours: what is usually called a good reconstruction",
        ),
        tm.Claim(
            "and there MCC above that of random directions, most of all densities",
            "chance: as many random directions",
            0,
            float((most["mcc"] - most["chance"]).isel(penalty=0).max()),
            tolerance=0.05,
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.FINDING,
            threshold="ours: scatter of the MCC of random directions",
        ),
        tm.Claim(
            "TopK, as many active as there are dimensions: explained variance, least of all",
            "generic directions, as many as dimensions, reconstruct anything",
            HIGH,
            float(most["each_explained"].sel(architecture="TopK").isel(setting=-1).min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: what is usually called a good reconstruction",
        ),
        tm.Claim(
            "and there MCC above that of random directions, most of all densities",
            "chance: as many random directions",
            0,
            float(excess.sel(architecture="TopK").isel(setting=-1).max()),
            tolerance=0.05,
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.FINDING,
            threshold="ours: scatter of the MCC of random directions",
        ),
        tm.Claim(
            f"density below 1: MCC of ReLU with {wide} latents at its best penalty, least",
            OURS,
            1,
            float(relu.max("penalty").min()),
            tolerance=0.03,
            kind=tm.Kind.FINDING,
            threshold="ours: convergence of training",
        ),
        tm.Claim(
            "which explains less than at the least penalty, least difference",
            OURS,
            0,
            float((sparse["explained"].isel(penalty=0) - found).min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.FINDING,
        ),
        tm.Claim(
            "density below 1: rank correlation of MCC and explained variance over penalties, "
            "largest of all",
            "a guide would have 1",
            0,
            guidance(relu, sparse["explained"]),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.FINDING,
        ),
        tm.Claim(
            "and over k of TopK, largest of all",
            "a guide would have 1",
            0,
            guidance(top["each_mcc"], top["each_explained"]),
            bound=tm.Bound.AT_MOST,
            note="A k too small for the features misses some: at density 0.4 six are active, "
            "and both numbers rise until k = 4. Beyond it MCC falls to chance, while explained "
            "variance rises to 1.",
            kind=tm.Kind.FINDING,
        ),
        tm.Claim(
            "every architecture finds the features at density below 1: MCC at its best setting, "
            "least of all",
            OURS,
            0.9,
            float(sparse["each_mcc"].max("setting").min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.FINDING,
            threshold="ours: what is usually called recovered",
        ),
        tm.Claim(
            "whose latents tell less of which features are active than optimal codes for the true "
            "directions: F1 lost at density below 1, least of all architectures",
            "O'Neill et al. (2024): one linear map is no optimal code",
            0.05,
            float((sparse["oracle_f1"].max("penalty") - sparse["each_f1"].max("setting")).min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number for toy models",
        ),
        tm.Claim(
            "none does at density 1: MCC above that of random directions, most of all",
            "chance: as many random directions",
            0,
            float((dense["each_mcc"] - dense["chance"]).max()),
            tolerance=0.05,
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.FINDING,
            threshold="ours: scatter of the MCC of random directions",
        ),
        tm.Claim(
            "half as many latents as features: MCC over what so many could hold, most",
            "a latent is matched with one feature at most",
            1,
            float((results["mcc"].isel(latents=0) / limit).max()),
            tolerance=1e-5,
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        tm.Claim(
            "components, principal or independent, hold at most one feature a dimension: share of "
            "that, most",
            "m directions in m dimensions",
            1,
            float(
                (
                    np.maximum(results["principal"], results["independent"]) * represented / hidden
                ).max()
            ),
            tolerance=1e-5,
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
    ]


def image(axes: Axes, values: xr.DataArray, label: str) -> None:
    """Density x penalty, with the numbers."""
    shown = values.transpose("density", "penalty")
    axes.imshow(
        shown,
        cmap=plotting.SUPERPOSITION_MAP,
        norm=plotting.SUPERPOSITION_NORM,
        aspect="auto",
        origin="lower",
    )
    axes.set_xticks(range(shown.shape[1]), [f"{each:g}" for each in shown["penalty"].values])
    axes.set_yticks(range(shown.shape[0]), [f"{each:g}" for each in shown["density"].values])
    axes.set(xlabel=r"$L_1$ penalty $\lambda$", ylabel="density 1 - S", title=label)
    for (row, column), value in np.ndenumerate(shown.values):
        color = "black" if value > 0.6 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 3, size=(12.6, 7.2))
    median, most = results.median("seed"), results.isel(latents=-1).median("seed")
    size = int(results["latents"][-1])
    image(grid[0, 0], most["explained"], f"a  explained variance, {size} latents")
    image(grid[0, 1], most["mcc"], f"b  MCC with the features, {size} latents")
    exact = median.isel(latents=results.sizes["latents"] // 2)
    image(grid[0, 2], exact["mcc"], f"c  MCC, {int(exact['latents'])} latents")

    axes = grid[1, 0]
    colors = [f"C{i}" for i in range(results.sizes["density"])]
    for color, density in zip(colors, results["density"].values, strict=True):
        one = results.isel(latents=-1).sel(density=density)
        explained, mcc = one["each_explained"].values.ravel(), one["each_mcc"].values.ravel()
        axes.plot(explained, mcc, ".", ms=4, color=color, label=f"1 - S = {density:g}")
    axes.axhline(float(most["chance"].mean()), color="0.5", lw=0.8)
    axes.annotate("random directions", (0.02, float(most["chance"].mean()) - 0.035), color="0.4")
    axes.set(
        xlim=(0, 1.01), ylim=(0.4, 1.02), xlabel="explained variance", ylabel="MCC",
        title="d  every autoencoder: architecture, setting, seed",
    )  # fmt: skip
    axes.legend(loc="lower left")

    axes = grid[1, 1]
    for name in results["architecture"].values:
        one = most["each_f1"].sel(architecture=name).max("setting")
        axes.plot(results["density"], one, "o-", ms=3)
    axes.plot(results["density"], most["oracle_f1"].max("penalty"), "k-", lw=2)
    axes.annotate("optimal codes for the true directions", (0.025, 0.98))
    axes.set(
        xscale="log", xlabel="density 1 - S", ylabel="$F_1$ at the best setting", ylim=(0, 1.05),
        title="e  which features are active? colours as in f",
    )  # fmt: skip

    axes = grid[1, 2]
    for name in results["architecture"].values:
        one = most["each_mcc"].sel(architecture=name).max("setting")
        axes.plot(results["density"], one, "o-", ms=3, label=str(name))
    axes.plot(results["density"], most["chance"], "--", color="0.5", label="random directions")
    axes.plot(results["density"], median["independent"], "k:", label="ICA")
    axes.plot(results["density"], median["principal"], color="0.5", ls=":", label="PCA")
    axes.set(
        xscale="log", xlabel="density 1 - S", ylabel="MCC at the best setting", ylim=(0.2, 1.02),
        title=f"f  architectures, {size} latents",
    )  # fmt: skip
    axes.legend(loc=(0.02, 0.36), ncols=2)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
