r"""Transcoders and faithfulness: right outputs, and whether they are computed as in the model.

Claim      A transcoder of a layer whose neurons are known finds the neurons. A cross-layer
           transcoder of a chain A, B, C computes C from A alone: what B does is lost at every
           penalty on whole directions, also from a faithful start, and with one active latent.
           A sum of lengths costs the same for both graphs, and keeps the faithful one. In a
           trained model that computes absolute values, derivatives are worse than outputs at
           every penalty.
Reproduces No figure of a paper. The chain is that of Lange et al. (2026).
Settings   Written models have one of four values in an example, or with probability 3/4 none.
           Derivatives are taken by the features that are present, because an absolute value has
           none at 0. In a first run they were taken by all features, which measured the kinks.
Selection  None: lines are means over seeds, and bars go from the lowest to the highest.
Command    toymodels run experiments/transcoder_faithfulness.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import dictionaries
from toymodels.theory import failures

LANGE = tm.paper("Lange et al. (2026), cross-layer transcoders skip layers")
OLAH = tm.paper("Olah (2025), A Toy Model of Mechanistic (Un)Faithfulness")
PAULO = tm.paper("Paulo et al. (2025), Transcoders Beat Sparse Autoencoders")
EXACT = tm.prediction("theory.failures.skipped_effect")
ALONE = tm.prediction("A latent that reads B alone has the effect 1 - λ/2")
NEURON = tm.prediction("One latent for each neuron is the sparsest exact code")
FOUND = tm.finding("first measured here")
FIT = "Ours, because fits of finite length do not converge entirely."
ROUND = "Ours, a round number that was set before the run."
EVEN = (
    "Absolute values have no linear part, so that the path has little to carry. At low penalties "
    "the mean is mostly that of one seed, whose errors are ten times those of the others."
)
COUNT, EMPTY = 4, 4
"""The values of a written model, and the number of examples of which one has a value."""
PARTS = (COUNT,) * 4
"""The input and the output of the first layer, A and B, and of the second, B and C."""
CHAINS = {
    "per layer": [(COUNT, [0], [1]), (COUNT, [2], [3])],
    "cross-layer": [(COUNT, [0], [1, 3]), (COUNT, [2], [3])],
}
GRAPHS = {
    "per layer": "per layer",
    "cross-layer": "cross-layer",
    "sum of lengths": "cross-layer,\nsum of lengths",
    "one active": "cross-layer,\none active",
}
"""The transcoders of a written chain, and their names in the figure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    graphs: tuple[str, ...] = tuple(GRAPHS)
    skips: tuple[bool, ...] = (False, True)
    """Whether the transcoders of trained models have a linear path."""
    chain_penalties: tuple[float, ...] = (0.1, 0.2, 0.4)
    penalties: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    num_features: int = 6
    hidden: int = 12
    latents: int = 24
    num_seeds: int = 3
    training: tm.Recipe = tm.Recipe(steps=2000, batch=256, learning_rate=1e-2)


SMOKE = Config(
    graphs=("cross-layer",),
    skips=(False,),
    chain_penalties=(0.1, 0.4),
    penalties=(0.01, 0.1),
    num_features=2,
    hidden=3,
    latents=4,
    num_seeds=1,
    training=tm.Recipe(steps=4, batch=16, learning_rate=1e-2),
)


def fitted(key, model, activations, penalty, training, **options):
    how = {"penalty": penalty, **training.settings(), **options}
    return tm.fit_autoencoder(key, model, activations, **how).params


def chain(config: Config) -> xr.Dataset:
    """Fit transcoders of a chain from the faithful graph, and take B away from what they read."""
    one, none = jnp.eye(COUNT), jnp.zeros((COUNT, COUNT))
    values = jnp.pad(jnp.tile(one, (4, 1)), ((0, 0), (1, 0)))
    chances = np.array([1 / EMPTY, *[1 / COUNT] * COUNT])
    tree = tm.Hierarchy((-1, *[0] * COUNT), chances, exclusive=True, smallest=1.0)
    weights = {"weights": values, "bias": jnp.zeros(COUNT + 1)}
    data = tm.Activations(tm.LinearOutput(4 * COUNT), weights, tree, "hidden")
    # The first latents read A and write B, and a little to C; the others read B and write C.
    faithful = jnp.block([[one, none], [one, none], [none, one], [0.1 * one, one]])
    models = {
        "sum of lengths": tm.Crosscoder(2 * COUNT, PARTS),
        "one active": tm.TopKAutoencoder(2 * COUNT, 1),
    }

    def cell(key, *, graph, penalty):
        model = models.get(graph, tm.ReLUAutoencoder(2 * COUNT))
        wiring = autoencoders.wiring(PARTS, CHAINS.get(graph, CHAINS["cross-layer"]))
        start = autoencoders.with_dictionary(model, faithful)
        own = 0.0 if graph == "one active" else penalty
        params = fitted(key, model, data, own, config.training, start=start, wiring=wiring)
        rows = jnp.tile(one, (1, 4))
        found = [
            jax.vmap(lambda h: model.apply({"params": params}, h))(each)
            for each in (rows, rows.at[:, 2 * COUNT : 3 * COUNT].set(0.0))
        ]
        ends = [jnp.mean(jnp.diagonal(each.reconstruction[:, 3 * COUNT :])) for each in found]
        firing = jnp.mean(jnp.sum(found[0].latents > 1e-3, axis=1))
        return {"without": ends[1], "effect": ends[0] - ends[1], "firing": firing}

    static, axes = {"graph": config.graphs}, {"penalty": config.chain_penalties}
    return tm.sweep(cell, static=static, axes=axes).isel(seed=0, drop=True)


def layer_of(model, params, features):
    """Return the input and the output of a model side by side."""
    return tm.SideBySide((features, tm.Activations(model, params, features, "preactivation")))


def known(config: Config) -> xr.DataArray:
    """Fit transcoders of a written layer of absolute values, and match latents with neurons."""
    eye = jnp.eye(config.num_features)
    params = {
        "weights_in": jnp.concatenate([eye, -eye]),
        "weights_out": jnp.concatenate([eye, eye], axis=1),
        "bias": jnp.zeros(config.num_features),
    }
    size = config.num_features
    model, features = tm.TwoLayer(2 * size), tm.SignedSparseUniform(size, 0.1)
    wiring = autoencoders.wiring((size, size), [(config.latents, [0], [1])])
    neurons = jnp.concatenate([params["weights_in"].T, params["weights_out"]])

    def cell(key):
        data = layer_of(model, params, features)
        autoencoder = tm.ReLUAutoencoder(config.latents)
        found = fitted(key, autoencoder, data, 0.1, config.training, wiring=wiring)
        reads = found["encoder"].T / jnp.linalg.norm(found["encoder"], axis=1)[None]
        latents = reads + autoencoders.dictionary(found)  # in different coordinates
        return {"mcc": dictionaries.mcc(latents, neurons)}

    return tm.sweep(cell, num_seeds=config.num_seeds)["mcc"].rename(seed="neuron_seed")


def trained(config: Config) -> xr.Dataset:
    """Fit transcoders of trained models, and compare outputs and derivatives."""
    size = config.num_features
    model, features = tm.TwoLayer(config.hidden), tm.SignedSparseUniform(size, 0.1)
    wiring = autoencoders.wiring((size, size), [(config.latents, [0], [1])])

    def cell(key, *, skip, layer_penalty):
        autoencoder = (tm.SkipTranscoder if skip else tm.ReLUAutoencoder)(config.latents)
        key_model, key_fit, key_rows = jax.random.split(key, 3)
        task = tm.Task(features, target=jnp.abs)
        params = config.training.train(key_model, model, task, evaluation=0).params
        data = layer_of(model, params, features)
        found = fitted(key_fit, autoencoder, data, layer_penalty, config.training, wiring=wiring)

        def decomposed(x):
            row = jnp.concatenate([x, jnp.zeros(size)])
            return autoencoder.apply({"params": found}, row)

        def output(x):
            return tm.activations(model, params, x)["preactivation"]

        def replaced(x):
            return decomposed(x).reconstruction[size:]

        rows = features.sample(key_rows, 1024)
        outputs, copies = jax.vmap(output)(rows), jax.vmap(replaced)(rows)
        # An absolute value has no derivative at 0, where most features are.
        present = (rows != 0)[:, None, :]
        slopes, theirs = (
            jax.vmap(jax.jacobian(each))(rows) * present for each in (output, replaced)
        )
        return {
            "output_error": jnp.sum((outputs - copies) ** 2)
            / jnp.sum((outputs - jnp.mean(outputs, axis=0)[None]) ** 2),
            "slope_error": jnp.sum((slopes - theirs) ** 2) / jnp.sum(slopes**2),
            "l0": jnp.mean(jnp.sum(jax.vmap(decomposed)(rows).latents != 0, axis=1)),
        }

    static, axes = {"skip": config.skips}, {"layer_penalty": config.penalties}
    return tm.sweep(cell, static=static, axes=axes, num_seeds=config.num_seeds)


def run(config: Config) -> xr.Dataset:
    parts = [chain(config), trained(config), known(config)]
    return xr.merge(parts, combine_attrs="drop_conflicts")


def claims(results: xr.Dataset) -> tm.Claims:
    says = "Transcoders of a written layer of absolute values find its neurons, measured by the "
    says += "smallest mean cosine (MCC) of reading and writing directions over seeds."
    yield tm.at_least(says, 0.98, results["mcc"].min(), NEURON, threshold=FIT)
    penalty = results["penalty"]
    graph = {str(name): results.sel(graph=name) for name in results["graph"].values}
    law = xr.DataArray([failures.skipped_effect(float(each)) for each in penalty], penalty.coords)
    off = abs(graph["cross-layer"]["without"] - law).max()
    says = "Cross-layer transcoders of a chain from the faithful start give its end C without its "
    says += "middle B by the closed form, measured by the largest difference over penalties."
    yield tm.near(says, 0, off, EXACT, within=0.03, threshold=FIT)
    says = "Cross-layer transcoders of a chain need one latent where the model has two steps, "
    says += "measured by the largest mean number of latents that fire."
    yield tm.near(says, 1, graph["cross-layer"]["firing"].max(), LANGE, within=0.01)
    if "per layer" in graph:
        own = graph["per layer"]
        says = "Transcoders of each layer of a chain keep the effect of its middle up to "
        says += "shrinkage, measured by the largest difference from 1 - λ/2 over penalties."
        off = abs(own["effect"] - (1 - penalty / 2)).max()
        yield tm.near(says, 0, off, ALONE, within=0.03, threshold=FIT)
        says = "Transcoders of each layer of a chain need two latents, measured by the smallest "
        says += "mean number of latents that fire."
        yield tm.near(says, 2, own["firing"].min(), LANGE, within=0.01)
    if "sum of lengths" in graph:
        says = "Cross-layer transcoders that pay for each layer keep most of the effect of the "
        says += "middle of a chain from the faithful start, measured by the least over penalties."
        least = graph["sum of lengths"]["effect"].min()
        yield tm.at_least(says, 0.7, least, FOUND, threshold=ROUND)
    if "one active" in graph:
        says = "Cross-layer transcoders with one active latent lose the middle of a chain from the "
        says += "faithful start, measured by its effect."
        lost = graph["one active"]["effect"].max()
        yield tm.near(says, 0, lost, LANGE, within=0.01, threshold=FIT)
    yield from claims_of_trained(results)


def claims_of_trained(results: xr.Dataset) -> tm.Claims:
    plain = results.isel(skip=0)
    ratio = (plain["slope_error"] / plain["output_error"]).mean("seed")
    says = "Derivatives of transcoders of trained models are worse than their outputs, measured by "
    says += "the smallest ratio of relative squared errors over penalties."
    yield tm.at_least(says, 1.5, ratio.min(), FOUND, threshold=ROUND)
    slope = plain["slope_error"].mean("seed")
    says = "Derivatives of transcoders of trained models get worse with sparsity, measured by the "
    says += "ratio of relative squared errors at the largest and at the smallest penalty."
    yield tm.at_least(says, 2, slope[-1] / slope[0], OLAH, threshold=ROUND)
    if results.sizes["skip"] > 1:
        says = "A linear path leaves transcoders of trained models a smaller error of outputs, "
        says += "measured by the largest ratio of mean errors over penalties."
        errors = results["output_error"].mean("seed")
        ratio = (errors.sel(skip=True) / errors.sel(skip=False)).max()
        yield tm.at_most(says, 1, ratio, PAULO, note=EVEN)
        says = "A linear path leaves transcoders of trained models no larger error of derivatives, "
        says += "measured by the largest ratio of mean errors over penalties."
        errors = results["slope_error"].mean("seed")
        ratio = (errors.sel(skip=True) / errors.sel(skip=False)).max()
        yield tm.at_most(says, 1, ratio, FOUND, note=EVEN)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (left, right) = plotting.figure(1, 2, size=(8, 3.4))
    names = [str(each) for each in results["graph"].values]
    effect, places = results["effect"], np.arange(len(names))
    mean, span = plotting.mean_and_range(effect, "penalty")
    left.bar(places, mean, color="C0", width=0.6)
    left.errorbar(places, mean, span, fmt="none", color="black", lw=1)
    for place, value in zip(places, mean.values, strict=True):
        if value < 0.005:
            left.text(place, 0.02, "0", ha="center", fontsize=8)
    left.axhline(1, color="0.5", lw=1)
    left.set_xticks(places, [GRAPHS[each] for each in names])
    left.set(xlabel="mean and range over penalties", ylim=(-0.05, 1.15))
    left.set(ylabel="effect of the middle B on C (true: 1)")
    left.set_title("A cross-layer transcoder computes\nthe end of a chain without its middle")
    styles = {"output_error": "o-", "slope_error": "s--"}
    for number, skip in enumerate(results["skip"].values):
        for name, style in styles.items():
            mean, span = plotting.mean_and_range(results[name].sel(skip=skip), "seed")
            label = "outputs" if name == "output_error" else "derivatives"
            label += ", linear path" if skip else ""
            look = {"fmt": style, "ms": 4, "lw": 1.2, "color": f"C{number}", "label": label}
            right.errorbar(results["layer_penalty"], mean, span, **look)
    right.set(
        xscale="log", yscale="log", xlabel=r"penalty $\lambda$", ylabel="relative squared error"
    )
    right.set_title("Derivatives are worse than outputs\n(transcoders of trained models)")
    seeds = f"{results.sizes['seed']} seeds, mean and range"
    right.legend(loc="lower right", title=seeds, title_fontsize=8)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
