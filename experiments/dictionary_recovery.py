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
           of the highest median score, which only somebody who knows the features could choose: it
           is a bound, and architectures are not ranked by it.
Command    toymodels run experiments/dictionary_recovery.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from scipy import stats

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import activity, baselines, dictionaries, reconstruction, sparse_coding

OURS = tm.finding("found here, in toy models, whose features are known")
CHANCE = tm.finding("chance is what as many random directions have")
GUIDE = tm.finding("a guide would have a rank correlation of 1")
GENERIC = tm.prediction("generic directions, as many as dimensions, reconstruct anything")
ONEILL = tm.paper("O'Neill et al. (2024): one linear map is no optimal code")
MATCHED_ONCE = tm.identity("a latent is matched with one feature at most")
ONE_EACH = tm.identity("m directions in m dimensions")
SCATTER = "Ours, because the MCC of random directions scatters by that."
GOOD = "Ours, because that is usually called a good reconstruction."
ITERATIONS, FEW = 200, 1024
"""Iterations and examples of the optimal codes, which are expensive."""
BANDWIDTH = 0.1
"""The bandwidth of JumpReLU, and its thresholds at the start."""
# The model of a number of latents and of a penalty or k; only the last two take k.
ARCHITECTURES = {
    "ReLU": lambda latents, _: tm.ReLUAutoencoder(latents),
    "gated": lambda latents, _: tm.GatedAutoencoder(latents),
    "JumpReLU": lambda latents, _: tm.JumpReLUAutoencoder(latents, BANDWIDTH, BANDWIDTH),
    "Matryoshka": lambda latents, _: tm.MatryoshkaAutoencoder(
        latents, tuple(latents // part for part in (8, 4, 2, 1))
    ),
    "TopK": tm.TopKAutoencoder,
    "BatchTopK": tm.BatchTopKAutoencoder,
}


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


def sweep(config, architecture, latents):
    """Score one architecture over density, setting, number of latents and seed."""
    model, takes_k = tm.ReLUOutput(config.hidden), architecture in ("TopK", "BatchTopK")

    def cell(key, *, latents, density, setting):
        key_model, key_autoencoder, key_examples = jax.random.split(key, 3)
        distribution = tm.SparseUniform(config.num_features, density)
        params = tm.train(
            key_model,
            model,
            tm.Task(distribution),
            optimizer=optax.adam(config.model_rate),
            steps=config.model_steps,
            batch=config.batch,
            evaluation=0,
        ).params
        autoencoder = ARCHITECTURES[architecture](latents, setting)
        fitted = tm.fit_autoencoder(
            key_autoencoder,
            autoencoder,
            tm.Activations(model, params, distribution, "hidden"),
            penalty=0.0 if takes_k else setting,
            optimizer=optax.adam(config.learning_rate),
            steps=config.steps,
            batch=config.batch,
        ).params
        weights, dictionary = params["weights"], autoencoders.dictionary(fitted)
        examples = distribution.sample(key_examples, config.examples)
        hidden = examples @ weights.T
        found = jax.vmap(lambda h: autoencoder.apply({"params": fitted}, h))(hidden)
        mcc, matching = score(dictionary, weights)
        firing = activity.firing(found.latents, examples > 0, matching)
        explained = reconstruction.explained_variance(hidden, found.reconstruction, centred=True)
        f1 = over_represented(firing.f1, weights)
        return {"weights": weights, "mcc": mcc, "f1": f1, "explained": explained}

    settings = config.active if takes_k else config.penalties
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
        distribution = tm.SparseUniform(config.num_features, density)
        examples = distribution.sample(key_examples, config.examples)
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
                "represented": jnp.sum(jnp.linalg.norm(own, axis=0) > 0.5).item(),
            }
        )

    seeds = weights["seed"].to_numpy()
    rows = [
        xr.concat([one(density, seed) for seed in seeds], xr.Variable("seed", seeds))
        for density in config.densities
    ]
    return xr.concat(rows, xr.Variable("density", list(config.densities)))


def run(config: Config) -> xr.Dataset:
    relu = sweep(config, "ReLU", config.latents)
    weights = relu["weights"].isel(setting=0, latents=0)  # all cells of a seed train the same
    all_scores = [relu, *(sweep(config, name, config.latents[-1:]) for name in config.rivals)]
    # A setting is a penalty or k, so that only its place is common to all.
    rank = {"setting": np.arange(len(config.penalties))}
    widest = [scores.isel(latents=-1, drop=True).assign_coords(rank) for scores in all_scores]
    each = xr.concat(widest, xr.Variable("architecture", ["ReLU", *config.rivals]))
    each = each.drop_vars("weights")
    parts = [
        relu.drop_vars("weights").rename(setting="penalty"),
        each.rename({name: f"each_{name}" for name in each.data_vars}),
        without_training(config, weights),
        weights.drop_vars(["setting", "latents"]).rename("weights"),
    ]
    return xr.merge(parts, combine_attrs="drop_conflicts")


def claims(results: xr.Dataset) -> tm.Claims:
    median = results.median("seed")
    most = median.isel(latents=-1)
    sparse, dense = most.sel(density=most["density"] < 1), most.isel(density=-1)
    top_k = most.sel(architecture="TopK").isel(setting=-1)
    relu, wide = sparse["mcc"], int(results["latents"][-1])

    low = f"ReLU autoencoders of {wide} latents at the lowest penalty"
    large = "TopK autoencoders with as many active latents as dimensions"
    lowest = most.isel(penalty=0)
    for which, explained, mcc, source in (
        (low, lowest["explained"], lowest["mcc"], OURS),
        (large, top_k["each_explained"], top_k["each_mcc"], GENERIC),
    ):
        says = f"{which} explain nearly all variance at every density."
        yield tm.at_least(says, 0.99, explained.min(), source, threshold=GOOD)

        says = f"{which} have directions no nearer to the features than random ones, measured by "
        says += "the largest difference of the mean cosine (MCC) over densities."
        excess = (mcc - most["chance"]).max()
        yield tm.at_most(says, 0, excess, CHANCE, slack=0.05, threshold=SCATTER)

    says = f"ReLU autoencoders of {wide} latents find all features at densities below 1 and their "
    says += "best penalty, measured by MCC."
    smallest = relu.max("penalty").min()
    convergence = "Ours, because training does not converge entirely."
    yield tm.near(says, 1, smallest, OURS, within=0.03, threshold=convergence)

    says = f"ReLU autoencoders of {wide} latents explain less variance at the penalty of the "
    says += "highest MCC than at the lowest, measured by the smallest gap at densities below 1."
    found = sparse["explained"].isel(penalty=relu.argmax("penalty"))
    yield tm.at_least(says, 0, (sparse["explained"].isel(penalty=0) - found).min(), OURS)

    top = sparse.sel(architecture="TopK")
    note = "A k too small for the features misses some: at density 0.4 six are active, and both "
    note += "numbers rise until k = 4. Beyond it MCC falls to chance, while explained variance "
    note += "rises to 1."
    for which, mcc, explained, why in (
        ("the penalties of ReLU autoencoders", relu, sparse["explained"], ""),
        ("the k of TopK autoencoders", top["each_mcc"], top["each_explained"], note),
    ):
        says = f"Explained variance is no guide to a high mean cosine (MCC) over {which} at "
        says += "densities below 1, measured by the largest rank correlation."
        pairs = zip(*(each.transpose("density", ...) for each in (mcc, explained)), strict=True)
        largest = max(stats.spearmanr(*pair).statistic for pair in pairs)
        yield tm.at_most(says, 0, largest, GUIDE, note=why)

    says = "Every architecture has a high MCC at densities below 1 and its best setting."
    smallest = sparse["each_mcc"].max("setting").min()
    recovered = "Ours, because that is called recovered."
    yield tm.at_least(says, 0.9, smallest, OURS, threshold=recovered)

    says = "The latents of every architecture tell less of which features are active than optimal "
    says += "codes for true directions do, measured by the smallest gap of F1 at densities below 1."
    lost = (sparse["oracle_f1"].max("penalty") - sparse["each_f1"].max("setting")).min()
    none = "Ours, because the paper gives no number for toy models."
    yield tm.at_least(says, 0.05, lost, ONEILL, threshold=none)

    says = "No architecture finds the features at density 1, measured by the largest mean cosine "
    says += "(MCC) above that of random directions over architectures and settings."
    excess = (dense["each_mcc"] - dense["chance"]).max()
    yield tm.at_most(says, 0, excess, CHANCE, slack=0.05, threshold=SCATTER)

    says = "The mean cosine (MCC) of half as many latents as features is at most the share of the "
    says += "features that so many latents can hold, measured by the largest ratio over all models."
    narrow, represented = results.isel(latents=0), results["represented"]
    held = (narrow["mcc"] / (narrow["latents"] / represented)).max()
    rounding = "Ours, because numbers are rounded."
    yield tm.at_most(says, 1, held, MATCHED_ONCE, slack=1e-5, threshold=rounding)

    says = "Principal and independent components hold at most one feature for each dimension, "
    says += "measured by features per dimension."
    best = np.maximum(results["principal"], results["independent"])
    held = (best * represented / results.sizes["hidden_dimension"]).max()
    yield tm.at_most(says, 1, held, ONE_EACH, slack=1e-5, threshold=rounding)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.4))
    wide = results.isel(latents=-1)
    most, seeds = wide.median("seed"), results.sizes["seed"]
    for axes, name, title in (
        (grid[0, 0], "explained", f"A low penalty explains\nmost variance (median of {seeds})"),
        (grid[0, 1], "mcc", "but its directions are not\nthe features (median MCC)"),
    ):
        style = {"numbers": ".2f", "norm": plotting.Normalize(0.5, 1)}
        plotting.heat_map(axes, most[name], x="penalty", y="density", **style)
        axes.set(xlabel=r"$L_1$ penalty $\lambda$", title=title)

    axes = grid[0, 2]
    for name, part, marker, color in (
        ("density below 1", wide.sel(density=wide["density"] < 1), "o", "C0"),
        ("density 1", wide.sel(density=wide["density"] == 1), "x", "black"),
    ):
        points = np.ravel(part["each_explained"]), np.ravel(part["each_mcc"])
        axes.plot(*points, marker, ms=3, alpha=0.5, color=color, label=name)
    axes.axhline(most["chance"].mean(), color="C1", lw=1, label="random directions")
    axes.set(xlim=(0, 1.02), ylim=(0.3, 1.02), xlabel="explained variance", ylabel="MCC")
    axes.set(title="Explained variance does\nnot tell (all autoencoders)")
    axes.legend(loc="lower left")

    for axes, name, title in (
        (grid[1, 0], "MCC", "Every architecture finds\nsparse features, none dense ones"),
        (grid[1, 1], "F1", "Optimal codes tell better\nwhich features are active"),
    ):
        values = wide[f"each_{name.lower()}"]
        best = values.isel(setting=values.median("seed").argmax("setting"))
        plotting.every_seed(axes, best, x="density", lines="architecture", legend=False)
        plotting.density_axis(axes)
        axes.set(ylabel=f"{name} at the best setting", ylim=(0, 1.03), title=title)
    for axes, name, values, style in (
        (grid[1, 0], "random directions", most["chance"], "--"),
        (grid[1, 0], "ICA", most["independent"], ":"),
        (grid[1, 0], "PCA", most["principal"], "-."),
        (grid[1, 1], "optimal codes", most["oracle_f1"].max("penalty"), "-"),
    ):
        axes.plot(results["density"], values, style, color="0.2", label=name)

    grid[1, 2].set_axis_off()
    pairs = [axes.get_legend_handles_labels() for axes in grid[1, :2]]
    labels = {name: handle for pair in pairs for handle, name in zip(*pair, strict=True)}
    title = f"{int(wide['latents'])} latents"
    grid[1, 2].legend(labels.values(), labels, loc="center left", title=title)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
