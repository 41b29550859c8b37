"""Alignment search: what an interchange says of a subspace, and what it does not say.

Claim      A search for the subspace of a variable (DAS) finds the one that was planted, and also
           its size if a dimension has a price. A random subspace is right by chance as often as a
           closed form says. In superposition no direction is right in every pair.
Reproduces The search is that of Geiger et al. (2023), "Finding Alignments Between Interpretable
           Causal Variables and Distributed Neural Representations". The closed forms are derived
           here.
Settings   Planted models read 6 signs from 6 orthogonal directions of a normal vector. Trained
           models have 10 features of importance 0.8^i in 5 dimensions. Their pairs are binary
           examples of the density of training, but feature 0 is present in half of them.
Selection  All seeds. Accuracy is the share of right pairs among those whose label should change.
Command    toymodels run experiments/alignment_search.py
"""

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels import interventions as iv

PLANTED = tm.prediction("The subspace was planted, and the output reads nothing else")
BETA = tm.identity("The squared share of a random subspace is Beta(k/2, (m - k)/2)")
ARCSINE = tm.prediction("1/2 + (asin q - asin(1 - q)) / pi for normal vectors")
FOUND = tm.finding("first measured here")
LENGTH = "Ours, because a search of finite length is not exact."
ROUND = "Ours, because it is a round number."
NEARLY = (
    "By the arcsine law a subspace with 0.99 of the planted direction still errs in 5 % of the "
    "changing pairs, and a search of this length comes as near as that."
)
MEETING = (
    "The feature's own direction has the same accuracy: at this density another feature is present "
    "in about one of three pairs."
)
ROUNDING = "Ours, because of rounding."
SAMPLING = "Ours, because it is five standard errors."
ACCURACY = "accuracy in changing pairs"
DIMENSIONS = 6
TRAINED = {
    "searched": "searched for",
    "own": "feature's own direction",
    "random": "random direction",
    "fresh": "found, in an untrained model",
}
CONTROLS = {
    "random": "A random direction",
    "fresh": "The direction found in a trained model, when it is used in an untrained one,",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    wanted: tuple[int, ...] = (1, 2, 3)
    given: tuple[int, ...] = (1, 2, 3, 4)
    subspaces: int = 1000
    densities: tuple[float, ...] = (1.0, 0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.04, 0.02)
    pairs: int = 4096
    num_seeds: int = 6
    search_steps: int = 600
    search_batch: int = 128
    search_learning_rate: float = 0.1
    price: float = 0.1
    training: tm.Recipe = tm.Recipe(steps=3000, batch=512, learning_rate=1e-2)


SMOKE = Config(
    wanted=(1,),
    given=(1,),
    subspaces=40,
    densities=(1.0, 0.1),
    pairs=200,
    num_seeds=2,
    search_steps=30,
    search_batch=32,
    training=tm.Recipe(steps=30, batch=64, learning_rate=1e-2),
)


class Readout(nn.Module):
    """The outputs are the coordinates of a vector along the columns of a matrix."""

    @nn.compact
    def __call__(self, example):
        readout = self.param("readout", nn.initializers.orthogonal(), (DIMENSIONS, DIMENSIONS))
        return readout.T @ tm.Site(name="hidden")(example["vector"])


def positive(output):
    return output > 0


def align(key, config: Config, model, params, sample, loss, **settings) -> iv.Part:
    """Search for a subspace of the site `hidden` with the settings of the config."""
    optimizer = optax.adam(config.search_learning_rate)
    how = {"steps": config.search_steps, "batch": config.search_batch, "optimizer": optimizer}
    return iv.align(key, model, params, sample, loss, site="hidden", **how, **settings)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    """Return the results of all parts; only the trained models take long enough to be stored."""
    parts = [planted(config), chance(config)]
    return xr.merge([*parts, trained(config, store)], combine_attrs="drop_conflicts")


def planted(config: Config) -> xr.Dataset:
    """Search for the first `wanted` of six planted signs, with sizes given and learned."""
    model, place = Readout(), jnp.arange(DIMENSIONS)

    def cell(key, *, size, wanted, permuted):
        key_model, key_search, key_pairs = jax.random.split(key, 3)
        params = model.init(key_model, {"vector": jnp.zeros(DIMENSIONS)})["params"]

        def sample(key, batch):
            vectors = jax.random.normal(key, (2, batch, DIMENSIONS))
            base, source = ({"vector": v, "signs": v @ params["readout"] > 0} for v in vectors)
            others = jnp.roll(source["signs"], 1, axis=0)  # of another source
            return base, {**source, "signs": jnp.where(permuted > 0, others, source["signs"])}

        def predicted(base, source):
            return jnp.where(place < wanted, source["signs"], base["signs"])

        def loss(output, base, source):
            right = predicted(base, source).astype(float)
            return jnp.mean(optax.sigmoid_binary_cross_entropy(5 * output, right))

        pairs = sample(key_pairs, config.pairs)

        def accuracy(part):
            changed = iv.interchange_accuracy(model, params, *pairs, part, predicted, positive)
            return changed.changing_pairs

        settings = {"size": size} if size else {"size": DIMENSIONS, "penalty": config.price}
        found = align(key_search, config, model, params, sample, loss, **settings)
        true = iv.Part("hidden", (), params["readout"] * (place < wanted)[None, :])
        first = iv.direction("hidden", params["readout"][:, 0])
        return {
            "found": accuracy(found),
            "true": accuracy(true),
            "dimensions": jnp.sum(jnp.asarray(found.basis) ** 2),
            "true_overlap": iv.read_write_overlap(model, params, *pairs, first, lambda y: y[0]),
        }

    return tm.sweep(
        cell,
        axes={"wanted": config.wanted, "permuted": (0, 1)},
        static={"size": {**{str(size): size for size in config.given}, "learned": 0}},
        num_seeds=config.num_seeds,
    )


def chance(config: Config) -> xr.Dataset:
    """Return how often a random subspace is right, and its share of the planted direction."""
    model, params = Readout(), {"readout": jnp.eye(DIMENSIONS)}

    def cell(key, *, random_size):
        key_part, key_pairs = jax.random.split(key)
        basis = jnp.linalg.qr(jax.random.normal(key_part, (DIMENSIONS, DIMENSIONS)))[0]
        basis = basis * (jnp.arange(DIMENSIONS) < random_size)[None, :]
        vectors = jax.random.normal(key_pairs, (2, config.pairs, DIMENSIONS))
        measured = iv.interchange_accuracy(
            model,
            params,
            *({"vector": v} for v in vectors),
            iv.Part("hidden", (), basis),
            lambda _, source: source["vector"][0] > 0,
            lambda output: output[0] > 0,
        )
        share = jnp.sum(basis[0] ** 2)
        return {"share": share, "changing": measured.changing_pairs, "all": measured.all_pairs}

    axes = {"random_size": (1, 2, 4)}
    return tm.sweep(cell, axes=axes, num_seeds=config.subspaces).rename(seed="subspace")


def trained(config: Config, store: Path | None) -> xr.Dataset:
    """Search for the direction of feature 0 in trained models, with three controls."""
    number, model = 10, tm.ReLUOutput(hidden=5)
    first = jnp.arange(number) == 0

    def cell(key, *, density):
        keys = jax.random.split(key, 5)
        task = tm.Task(
            tm.SparseUniform(number, density), importance=tm.geometric_importance(number, 0.8)
        )
        params = config.training.train(keys[0], model, task).params
        fresh = model.init(keys[1], jnp.zeros(number))["params"]
        represented = jnp.sum(params["weights"] ** 2, axis=0) > 0.5
        often = jnp.where(first, 0.5, density)

        def sample(key, batch):
            both = tm.Binary(number, often).sample(key, 2 * batch)
            return both[:batch], both[batch:]

        def changed(base, source):
            return jnp.where(first, source, base)

        def loss(output, base, source):
            return jnp.sum(represented * (output - changed(base, source)) ** 2)

        def accuracy(part, params=params):
            def wanted(base, source):
                return (changed(base, source) > 0.5) & represented

            def read(output):
                return (output > 0.5) & represented

            pairs = sample(keys[2], config.pairs)
            return iv.interchange_accuracy(model, params, *pairs, part, wanted, read).changing_pairs

        weights = params["weights"]
        random = jax.random.normal(keys[4], (5,))
        found = align(keys[3], config, model, params, sample, loss, size=1)
        return {
            "searched": accuracy(found),
            "own": accuracy(iv.direction("hidden", weights[:, 0])),
            "random": accuracy(iv.direction("hidden", random)),
            "fresh": accuracy(found, fresh),
        }

    axes, seeds = {"density": config.densities}, config.num_seeds
    return tm.sweep(cell, axes=axes, num_seeds=seeds, store=store)


def arcsine(share):
    """Return the accuracy in changing pairs of a subspace with this share of the direction."""
    return 0.5 + (np.arcsin(share) - np.arcsin(1 - share)) / np.pi


def claims(results: xr.Dataset) -> tm.Claims:
    plain, wanted = results.sel(permuted=0), results.wanted.astype(str)
    given, learned = plain.where(results["size"] == wanted), plain.sel(size="learned")
    other = plain["found"].where(results["size"] != wanted).drop_sel(size="learned")
    single = results.sel(wanted=1, size="1")

    says = "In models whose variable was planted in a known subspace this subspace has accuracy 1, "
    says += "measured by the lowest of all models."
    yield tm.near(says, 1, plain["true"].min(), PLANTED, within=2e-3, threshold=ROUNDING)
    says = "A search for a subspace of the true size finds the variable that was planted in a "
    says += "model, measured by the lowest median accuracy of interchanges."
    lowest = given["found"].median("seed").min()
    yield tm.at_least(says, 0.97, lowest, PLANTED, threshold=LENGTH, note=NEARLY)
    says = "A search that learns the size of the subspace finds the true size in every planted "
    says += "model, measured by the largest error."
    error = np.abs(learned["dimensions"] - results.wanted).max()
    yield tm.near(says, 0, error, PLANTED, within=0.01, threshold=ROUNDING)
    says = "A search that learns the size of the subspace finds the variable that was planted in a "
    says += "model, measured by the lowest median accuracy of interchanges."
    lowest = learned["found"].median("seed").min()
    yield tm.at_least(says, 0.97, lowest, PLANTED, threshold=LENGTH, note=NEARLY)
    says = "A search for a subspace of another size than the true one fails in planted models, "
    says += "measured by the highest median accuracy."
    yield tm.at_most(says, 0.85, other.median("seed").max(), FOUND, threshold=ROUND)
    says = "A search with permuted labels stays at chance in planted models, measured by the "
    says += "median accuracy."
    permuted = single["found"].sel(permuted=1).median("seed")
    yield tm.at_most(
        says, 0.5, permuted, FOUND, slack=0.02, threshold="Ours, because one sign is guessed."
    )

    for size in results["random_size"].values:
        says = f"The squared length of a planted direction inside random subspaces of {size} of "
        says += f"{DIMENSIONS} dimensions is distributed as Beta, measured by the largest "
        says += "difference of the distribution functions."
        law = stats.beta(size / 2, (DIMENSIONS - size) / 2)
        distance = stats.kstest(results["share"].sel(random_size=size), law.cdf).statistic
        one_percent = 1.63 / results.sizes["subspace"] ** 0.5
        yield tm.at_most(
            says, one_percent, distance, BETA, threshold="Ours, because it is the 1 % level."
        )
    q = results["share"]
    for name, exact in (("changing", arcsine(q)), ("all", 0.5 + np.arcsin(q) / np.pi)):
        says = f"An interchange in a random subspace of a planted model is right in {name} pairs "
        says += "as often as the arcsine of the share of the planted direction in it says, "
        says += "measured by the largest difference over subspaces."
        measured = np.abs(results[name] - exact).max()
        yield tm.near(says, 0, measured, ARCSINE, within=0.06, threshold=SAMPLING)

    says = "The read-write overlap raises no false alarm for a planted direction, measured by the "
    says += "lowest overlap of all models."
    yield tm.at_least(says, 0.5, single["true_overlap"].min(), FOUND, threshold=ROUND)

    middle = results[[*TRAINED]].median("seed")
    dense, sparse = middle.sel(density=1), middle.sel(density=results.density.min())
    worst = middle["searched"].min()
    says = "At density 1, without superposition, a search finds the direction of a feature of a "
    says += "trained model, measured by the median accuracy of interchanges."
    yield tm.at_least(says, 0.97, dense["searched"], PLANTED, threshold=ROUND)
    says = "In trained models in superposition no direction that a search finds for a feature is "
    says += "right in all pairs, measured by the lowest median accuracy of interchanges over "
    says += "densities."
    yield tm.at_most(says, 0.9, worst, FOUND, threshold=ROUND)
    says = "At the lowest density, where features seldom meet, a search finds the direction of a "
    says += "feature of a trained model, measured by the median accuracy of interchanges."
    yield tm.at_least(says, 0.97, sparse["searched"], FOUND, threshold=ROUND, note=MEETING)
    for name, control in CONTROLS.items():
        says = f"{control} is right less often than the direction that a search in trained models "
        says += "finds at its worst density, measured by the highest median accuracy of "
        says += "interchanges."
        yield tm.at_most(says, worst, middle[name].max(), FOUND, threshold=ROUND)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 2, size=(7.4, 6.2))
    law, beta, size, density = grid.flat
    q = np.linspace(0, 1, 200)
    law.plot(results["share"], results["changing"], ".", color="C0", ms=2, rasterized=True)
    law.plot(q, arcsine(q), "k", lw=1.2, label="closed form")
    law.set(xlabel="squared share $q$ of the planted direction", ylabel=ACCURACY)
    law.set(title="A random subspace is right\nas often as its share says")
    law.legend(loc="upper left")
    for k in results["random_size"].values:
        shares = np.sort(results["share"].sel(random_size=k))
        beta.plot(shares, np.linspace(0, 1, len(shares)), lw=2.5, alpha=0.6, label=f"{k} of 6")
        beta.plot(q, stats.beta(k / 2, (DIMENSIONS - k) / 2).cdf(q), "k--", lw=0.8)
    beta.set(xlabel="squared share $q$", ylabel="share of subspaces below")
    beta.set(title="The chance of a high share\nis a Beta law (dashed)")
    beta.legend(loc="lower right", title="dimensions")
    for number, k in enumerate(results["wanted"].values):
        here = results.sel(wanted=k, permuted=0).median("seed")
        curve, learned = here["found"].drop_sel(size="learned"), here.sel(size="learned")
        style = {"color": f"C{number}", "marker": plotting.MARKERS[number]}
        size.plot(curve["size"].astype(int), curve, ms=4, label=f"{k} planted", **style)
        size.plot(learned["dimensions"], learned["found"], "*", color=f"C{number}", ms=14)
    size.plot([], [], "*", color="0.4", ms=11, label="size learned")
    size.set(xlabel="dimensions searched for", ylabel=ACCURACY, ylim=(0, 1.12), xlim=(0.7, 6.6))
    size.set(xticks=range(1, 5), title="The search finds the variable,\nand its size at a price")
    size.legend(loc="center right", fontsize=7)
    for number, (name, label) in enumerate(TRAINED.items()):
        values, style = results[name], {"color": f"C{number}", "legend": False}
        plotting.every_seed(density, values, x="density", label=label, **style)
    plotting.density_axis(density)
    density.set(ylabel=ACCURACY, ylim=(-1.1, 1.05), yticks=np.linspace(0, 1, 6))
    density.set(title="Trained models: superposition\nhurts where features meet")
    density.legend(loc="lower left", fontsize=7)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
