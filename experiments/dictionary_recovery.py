r"""When does a sparse autoencoder find the features of a model in superposition?

Claim      Reconstruction does not say whether the features are found. With a small penalty, or a
           large k, a dictionary explains more than 99 % of the activations while its directions
           are no nearer to the features than random ones; the dictionary that holds every feature
           explains LESS. Where features are sparse, and superposition is strongest, every
           architecture finds them if its penalty or k is right; where they are dense, none does at
           any penalty. Random directions score 0.7 or more: read MCC against chance.
Reproduces The question of Sharkey, Braun, Millidge (2022), "Taking features out of superposition
           with sparse autoencoders", asked of trained toy models, whose features are known. That
           explained variance and recovery come apart is known of fixed random dictionaries
           (SynthSAEBench, 2026).
Settings   24 independent features of equal importance in 8 dimensions, `ReLUOutput`; autoencoders
           on its hidden layer, 3000 updates of 256 fresh activations, Adam at 3e-3. All ours.
           Scores count features of norm above 1/2; one without a latent counts as cosine 0. Every
           cell trains its own toy model and then the autoencoder: one program.
Selection  Maps: median of all seeds. Scatter: every autoencoder. Architectures: the penalty or k
           of the highest median score, chosen by that score itself: what it could do if tuned by
           somebody who knows the features. Nobody does, so it is a bound, and architectures are
           not ranked by it.
Command    toymodels run experiments/dictionary_recovery.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.colors import Normalize
from scipy import stats

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import (
    activity,
    baselines,
    dictionaries,
    geometry,
    reconstruction,
    sparse_coding,
)

OURS = tm.finding("ours: a toy model knows its features")
CHANCE = tm.finding("chance: as many random directions")
GUIDE = tm.finding("a guide would have 1")
GENERIC = tm.prediction("generic directions, as many as dimensions, reconstruct anything")
ONEILL = tm.paper("O'Neill et al. (2024): one linear map is no optimal code")
MATCHED_ONCE = tm.identity("a latent is matched with one feature at most")
ONE_EACH = tm.identity("m directions in m dimensions")
SCATTER = "Ours, because the MCC of random directions scatters by that."
GOOD = "Ours, because that is usually called a good reconstruction."
ITERATIONS, FEW = 200, 1024
"""Iterations and examples of the optimal codes, which are expensive."""
HIGH = 0.99
"""Explained variance that would be called high."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 24
    hidden: int = 8
    densities: tuple[float, ...] = (0.02, 0.1, 0.2, 0.4, 1.0)
    penalties: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    active: tuple[float, ...] = (1, 2, 3, 4, 6, 8)
    """Numbers k of TopK and BatchTopK, as many as penalties."""
    latents: tuple[int, ...] = (12, 24, 48)
    rivals: tuple[str, ...] = ("gated", "JumpReLU", "Matryoshka", "TopK", "BatchTopK")
    """Architectures that are compared with ReLU, at the largest number of latents."""
    num_seeds: int = 3
    model_steps: int = 2000
    steps: int = 3000
    batch: int = 256
    model_rate: float = 1e-2
    learning_rate: float = 3e-3
    bandwidth: float = 0.1
    """Bandwidth of JumpReLU and its thresholds at the start."""
    examples: int = 4096
    """Number of examples for the scores."""


SMOKE = Config(
    num_features=4,
    hidden=2,
    densities=(0.1, 1.0),
    penalties=(0.01, 0.1),
    active=(1, 2),
    latents=(8,),
    rivals=("TopK",),
    num_seeds=1,
    model_steps=20,
    steps=10,
    batch=32,
    examples=64,
)


def architectures(config: Config):
    """Return how each is built of its latents and setting, and whether the setting is k."""

    def matryoshka(latents, _):
        return tm.MatryoshkaAutoencoder(latents, tuple(latents // part for part in (8, 4, 2, 1)))

    def jump(latents, _):
        return tm.JumpReLUAutoencoder(latents, config.bandwidth, config.bandwidth)

    return {
        "ReLU": (lambda latents, _: tm.ReLUAutoencoder(latents), False),
        "gated": (lambda latents, _: tm.GatedAutoencoder(latents), False),
        "JumpReLU": (jump, False),
        "Matryoshka": (matryoshka, False),
        "TopK": (tm.TopKAutoencoder, True),
        "BatchTopK": (tm.BatchTopKAutoencoder, True),
    }


def over_represented(values, weights):
    """Return the mean over the features of norm above 1/2; 0 if there is none."""
    represented = jnp.linalg.norm(weights, axis=0) > 0.5
    return jnp.sum(values * represented) / jnp.maximum(jnp.sum(represented), 1)


def score(dictionary, weights):
    """Return the MCC, in which a feature without a latent counts as 0, and the matching."""
    represented = weights * (jnp.linalg.norm(weights, axis=0) > 0.5)
    matching = dictionaries.match(dictionary, represented)
    cosines = dictionaries.matched_cosines(dictionary, represented, matching)
    return over_represented(cosines, weights), matching


def sweep(config, build, latents, *, setting_is_k):
    """Score one architecture over density, setting, number of latents and seed."""
    model = tm.ReLUOutput(config.hidden)

    def cell(key, *, latents, density, setting):
        key_model, key_autoencoder, key_examples = jax.random.split(key, 3)
        world = tm.SparseUniform(config.num_features, density)
        params = tm.train(
            key_model,
            model,
            tm.Task(world),
            optimizer=optax.adam(config.model_rate),
            steps=config.model_steps,
            batch=config.batch,
            evaluation=0,
        ).params
        autoencoder = build(latents, setting)
        fitted = tm.fit_autoencoder(
            key_autoencoder,
            autoencoder,
            tm.Activations(model, params, world, "hidden"),
            penalty=0.0 if setting_is_k else setting,
            optimizer=optax.adam(config.learning_rate),
            steps=config.steps,
            batch=config.batch,
        ).params
        weights, dictionary = params["weights"], autoencoders.dictionary(fitted)
        examples = world.sample(key_examples, config.examples)
        hidden = examples @ weights.T
        found = jax.vmap(lambda h: autoencoder.apply({"params": fitted}, h))(hidden)
        mcc, matching = score(dictionary, weights)
        firing = activity.firing(found.latents, examples > 0, matching)
        explained = reconstruction.explained_variance(hidden, found.reconstruction, centred=True)
        return {
            "weights": weights,
            "mcc": mcc,
            "precision": dictionaries.mean_max_cosine(dictionary, weights),
            "f1": over_represented(firing.f1, weights),
            "explained": explained,
            "l0": activity.l0(found.latents),
            "dead": activity.dead_fraction(found.latents),
        }

    settings = config.active if setting_is_k else config.penalties
    return tm.sweep(
        cell,
        axes={"density": config.densities, "setting": settings},
        static={"latents": latents},
        num_seeds=config.num_seeds,
        dims={"weights": ("hidden_dimension", "feature")},
    )


def without_training(config: Config, weights: xr.DataArray) -> xr.Dataset:
    """Score what needs no gradient: components of the activations, and codes of true features."""

    @jax.jit
    def oracle(hidden, active, weights, penalty):
        """Return the F1 of optimal codes for the true directions: no encoder can be better."""
        norms = jnp.linalg.norm(weights, axis=0)
        directions = weights / jnp.where(norms > 0.5, norms, jnp.inf)[None, :]
        codes = jax.vmap(
            lambda h: sparse_coding.lasso_codes(directions, h, penalty, iterations=ITERATIONS)
        )(hidden)
        f1 = activity.firing(codes, active, jnp.arange(weights.shape[1])).f1
        return over_represented(f1, weights)

    scored = jax.jit(lambda dictionary, weights: score(dictionary, weights)[0])

    def one(density, seed):
        own = jnp.asarray(weights.sel(density=density, seed=seed).to_numpy())
        key_examples, key_start, key_chance = jax.random.split(jax.random.key(seed), 3)
        examples = tm.SparseUniform(config.num_features, density).sample(
            key_examples, config.examples
        )
        hidden, few = examples @ own.T, slice(0, FEW)
        principal = baselines.principal_components(hidden, config.hidden).dictionary
        independent = baselines.independent_components(key_start, hidden, config.hidden)
        shapes = [(config.hidden, latents) for latents in config.latents]
        chance = [scored(jax.random.normal(key_chance, shape), own) for shape in shapes]
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

    def compared(name):
        build, setting_is_k = built[name]
        scores = sweep(config, build, most, setting_is_k=setting_is_k).isel(latents=0, drop=True)
        return scores.drop_vars("weights").assign_coords(setting=rank)

    first = relu.isel(latents=-1, drop=True).drop_vars("weights").assign_coords(setting=rank)
    names = xr.Variable("architecture", ["ReLU", *config.rivals])
    each = xr.concat([first, *map(compared, config.rivals)], names)
    relu = relu.drop_vars("weights").rename(setting="penalty")
    parts = [
        relu,
        each.rename({name: f"each_{name}" for name in each.data_vars}),
        without_training(config, weights),
        weights.drop_vars(["setting", "latents"]).rename("weights"),
    ]
    return xr.merge(parts, combine_attrs="drop_conflicts")


def guidance(mcc: xr.DataArray, explained: xr.DataArray) -> float:
    """Return the rank correlation of the two over settings, the largest of all densities."""
    pairs = zip(mcc.transpose("density", ...), explained.transpose("density", ...), strict=True)
    return max(float(stats.spearmanr(one, other)[0]) for one, other in pairs)


def claims(results: xr.Dataset):
    median = results.median("seed")
    most = median.isel(latents=-1)
    sparse, dense = most.sel(density=most["density"] < 1), most.isel(density=-1)
    top_k = most.sel(architecture="TopK").isel(setting=-1)
    relu, wide = sparse["mcc"], int(results["latents"][-1])

    for which, explained, mcc, source in (
        (
            f"ReLU autoencoders of {wide} latents at the lowest penalty",
            most["explained"].isel(penalty=0),
            most["mcc"].isel(penalty=0),
            OURS,
        ),
        (
            "TopK autoencoders with as many active latents as dimensions",
            top_k["each_explained"],
            top_k["each_mcc"],
            GENERIC,
        ),
    ):
        says = f"{which} explain nearly all variance: smallest share over densities."
        yield tm.at_least(says, HIGH, explained.min(), source, threshold=GOOD)

        says = (
            f"{which} have directions no nearer to the features than random ones: largest "
            "difference of the MCC over densities."
        )
        excess = (mcc - most["chance"]).max()
        yield tm.at_most(says, 0, excess, CHANCE, slack=0.05, threshold=SCATTER)

    says = (
        f"ReLU autoencoders of {wide} latents find all features at densities below 1 and their "
        "best penalty: smallest MCC."
    )
    smallest = relu.max("penalty").min()
    convergence = "Ours, because training does not converge entirely."
    yield tm.near(says, 1, smallest, OURS, within=0.03, threshold=convergence)

    says = (
        f"ReLU autoencoders of {wide} latents explain less variance at the penalty of the highest "
        "MCC than at the lowest penalty, at densities below 1: smallest difference."
    )
    found = sparse["explained"].isel(penalty=relu.argmax("penalty"))
    yield tm.at_least(says, 0, (sparse["explained"].isel(penalty=0) - found).min(), OURS)

    says = (
        "Explained variance does not guide to a high MCC over the penalties of ReLU autoencoders "
        "at densities below 1: largest rank correlation."
    )
    yield tm.at_most(says, 0, guidance(relu, sparse["explained"]), GUIDE)

    says = (
        "Explained variance does not guide to a high MCC over the k of TopK autoencoders at "
        "densities below 1: largest rank correlation."
    )
    top = sparse.sel(architecture="TopK")
    note = (
        "A k too small for the features misses some: at density 0.4 six are active, and both "
        "numbers rise until k = 4. Beyond it MCC falls to chance, while explained variance rises "
        "to 1."
    )
    largest = guidance(top["each_mcc"], top["each_explained"])
    yield tm.at_most(says, 0, largest, GUIDE, note=note)

    says = (
        "Every architecture finds the features at densities below 1 and its best setting: "
        "smallest MCC."
    )
    smallest = sparse["each_mcc"].max("setting").min()
    recovered = "Ours, because that is called recovered."
    yield tm.at_least(says, 0.9, smallest, OURS, threshold=recovered)

    says = (
        "The latents of every architecture tell less of which features are active than optimal "
        "codes for the true directions do, at densities below 1: smallest loss of F1."
    )
    lost = (sparse["oracle_f1"].max("penalty") - sparse["each_f1"].max("setting")).min()
    none = "Ours, because the paper gives no number for toy models."
    yield tm.at_least(says, 0.05, lost, ONEILL, threshold=none)

    says = (
        "No architecture finds the features at density 1: largest MCC above that of random "
        "directions over architectures and settings."
    )
    excess = (dense["each_mcc"] - dense["chance"]).max()
    yield tm.at_most(says, 0, excess, CHANCE, slack=0.05, threshold=SCATTER)

    says = (
        "The MCC of half as many latents as features is at most what so many could hold: largest "
        "ratio over all models."
    )
    narrow, represented = results.isel(latents=0), results["represented"]
    held = (narrow["mcc"] / (narrow["latents"] / represented)).max()
    rounding = "Ours, because numbers are rounded."
    yield tm.at_most(says, 1, held, MATCHED_ONCE, slack=1e-5, threshold=rounding)

    says = (
        "Principal and independent components hold at most one feature for each dimension: "
        "largest share of that over all models."
    )
    best = np.maximum(results["principal"], results["independent"])
    held = (best * represented / results.sizes["hidden_dimension"]).max()
    yield tm.at_most(says, 1, held, ONE_EACH, slack=1e-5, threshold=rounding)


def plot(results: xr.Dataset):
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.4))
    wide = results.isel(latents=-1)
    most, size, seeds = wide.median("seed"), int(wide["latents"]), results.sizes["seed"]
    scores = {"x": "penalty", "y": "density", "numbers": ".2f", "norm": Normalize(0.5, 1)}
    plotting.heat_map(grid[0, 0], most["explained"], **scores)
    plotting.heat_map(grid[0, 1], most["mcc"], **scores)
    grid[0, 0].set(title=f"A low penalty explains\nmost variance (median of {seeds})")
    grid[0, 1].set(title="but its directions are not\nthe features (median MCC)")
    for axes in grid[0, :2]:
        axes.set_xlabel(r"$L_1$ penalty $\lambda$")

    axes = grid[0, 2]
    for name, part, marker, color in (
        ("density below 1", wide.sel(density=wide["density"] < 1), "o", "C0"),
        ("density 1", wide.sel(density=wide["density"] == 1), "x", "black"),
    ):
        points = part["each_explained"].values.ravel(), part["each_mcc"].values.ravel()
        axes.plot(*points, marker, ms=3, alpha=0.5, color=color, label=name)
    axes.axhline(most["chance"].mean(), color="C1", lw=1, label="random directions")
    axes.set(xlim=(0, 1.02), ylim=(0.4, 1.02), xlabel="explained variance", ylabel="MCC")
    axes.set_title("Explained variance does\nnot tell (all autoencoders)")
    axes.legend(loc="lower left")

    axes = grid[1, 0]
    draw_best(axes, wide["each_mcc"])
    for name, values, style in (
        ("random directions", most["chance"], "--"),
        ("ICA", most["independent"], ":"),
        ("PCA", most["principal"], "-."),
    ):
        axes.plot(results["density"], values, style, color="0.4", label=name)
    axes.set(ylabel="MCC at the best setting", ylim=(0.2, 1.03))
    axes.set_title("Every architecture finds\nsparse features, none dense ones")

    axes = grid[1, 1]
    draw_best(axes, wide["each_f1"])
    axes.plot(
        results["density"], most["oracle_f1"].max("penalty"), "k-", lw=2, label="optimal codes"
    )
    axes.set(ylabel="$F_1$ at the best setting", ylim=(0, 1.03))
    axes.set_title("Optimal codes tell better\nwhich features are active")

    grid[1, 2].set_axis_off()
    labels = {}
    for axes in grid[1, :2]:
        handles, names = axes.get_legend_handles_labels()
        labels |= dict(zip(names, handles, strict=True))
    grid[1, 2].legend(labels.values(), labels, loc="center left", title=f"{size} latents")
    return figure


def draw_best(axes, values: xr.DataArray):
    """Draw every seed of each architecture at the setting of the highest median."""
    best = values.isel(setting=values.median("seed").argmax("setting"))
    plotting.every_seed(axes, best, x="density", lines="architecture", legend=False)
    plotting.density_axis(axes)


if __name__ == "__main__":
    experiment.main(__file__)
