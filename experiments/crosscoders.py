r"""Crosscoders: which features two models share, and which a penalty gives to one model alone.

Claim      A crosscoder that pays for the decoder of each model (L1) shrinks the shorter decoder of
           a shared feature more than the longer one, and up to a threshold it leaves none: the
           feature looks as if one model alone had it. The ratio of decoders has a closed form,
           for uniform and for binary features. A feature may also fall apart into one latent for
           each model, which costs an L1 crosscoder nothing, so that such halves stay mostly apart.
           With a penalty on the length of the whole direction, or with BatchTopK, nothing is lost
           in written models, and halves grow together.
Reproduces No figure of a paper. Minder et al. (2025) found both artefacts in language models.
Settings   Written models: each feature has a dimension of its own in both models, the length 1 in
           model A, and its strength in model B. One example in four has one feature, and the others
           are empty. Trained models: 16 features of density 0.05, of which A trains on the first
           twelve and B on the last twelve, in 8 dimensions each. Four of the eight that both have
           are then scaled by 0.2 in B.
Selection  None: lines are means over all seeds, and bars go from the lowest to the highest.
Command    toymodels run experiments/crosscoders.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import struct

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import dictionaries
from toymodels.theory import failures

MINDER = tm.paper("Minder et al. (2025), Robustly Identifying Concepts Introduced in Fine-Tuning")
EXACT = tm.prediction("theory.failures.crosscoder_ratio")
BINARY = tm.finding("theory.failures.crosscoder_ratio_binary")
JOINT = tm.prediction("The length of the whole direction does not depend on its angle")
UNPAID = tm.prediction("Without a penalty nothing shrinks a decoder")
FOUND = tm.finding("first measured here")
FIT = "Ours, because fits of finite length do not converge entirely."
ROUND = "Ours, because a round number was set before the run."
KINDS = {"L1": "L1 of each part", "joint": "L1 of the whole", "BatchTopK": "BatchTopK"}
WORDS = {"joint": "a penalty on whole directions", "BatchTopK": "BatchTopK"}
WEAK, OWN = 0.2, 0.1
"""The strength of weak features in B, and the share of lengths below which a latent is A's own."""
NOISE = 0.01
"""Standard deviation of what is added to the starts, whose latents would else be exactly equal."""
PER = 4
"""One example in this many has a feature in a written model; the others are empty."""
GROUPS = {
    "A alone": slice(0, 4),
    "weak in B": slice(4, 8),
    "both": slice(8, 12),
    "B alone": slice(12, 16),
}
TRAINED = ("L1", "BatchTopK")
"""The kinds that are fitted to trained models."""


@struct.dataclass
class OneBinary:
    """Features of which exactly one is 1, each as likely, and the others are 0."""

    num_features: int = struct.field(pytree_node=False)

    def sample(self, key, batch):
        return jnp.sign(tm.OneActive(self.num_features).sample(key, batch))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    strengths: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 0.8, 1.0)
    penalties: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    kinds: tuple[str, ...] = tuple(KINDS)
    """The kinds that are fitted to written models."""
    num_seeds: int = 3
    training: tm.Recipe = tm.Recipe(steps=2000, batch=256, learning_rate=1e-2)


SMOKE = Config(
    strengths=(0.1, 1.0),
    penalties=(0.1, 0.4),
    kinds=("L1",),
    num_seeds=1,
    training=tm.Recipe(steps=4, batch=16, learning_rate=1e-2),
)


def crosscoder(kind, latents, sizes, active):
    """Return the model of a kind; only BatchTopK takes a number of active latents."""
    if kind == "L1":
        return tm.Crosscoder(latents, sizes)
    if kind == "joint":
        return tm.ReLUAutoencoder(latents)
    return tm.BatchTopKAutoencoder(latents, active)


def fitted(key, model, activations, penalty, training, start=None):
    penalty = 0.0 if isinstance(model, tm.BatchTopKAutoencoder) else penalty
    how = {"penalty": penalty, "start": start, **training.settings()}
    return tm.fit_autoencoder(key, model, activations, **how).params


def activations_of(weights, features):
    """Return the activations W x of features, some of which may have no weights."""
    model = tm.LinearOutput(len(weights))
    params = {"weights": weights, "bias": jnp.zeros(weights.shape[1])}
    return tm.Activations(model, params, features, "hidden")


def with_empty(weights):
    """Append features without weights, whose examples are empty."""
    return jnp.pad(weights, ((0, 0), (0, (PER - 1) * weights.shape[1])))


def shares(params, sizes):
    """Return the share of the lengths of each latent that lies in the second model."""
    lengths = autoencoders.part_lengths(params, sizes)
    return lengths[1] / jnp.sum(lengths, axis=0)


def shrinking(config: Config, kinds, features) -> xr.DataArray:
    """Return the ratio of decoders of each feature of written models, from the true directions."""
    count = len(config.strengths)
    truth = jnp.concatenate([jnp.eye(count), jnp.diag(jnp.asarray(config.strengths))])

    def cell(key, *, kind, penalty):
        model = crosscoder(kind, count, (count, count), 1 / PER)
        start = autoencoders.with_dictionary(model, truth / jnp.linalg.norm(truth, axis=0)[None])
        data = activations_of(with_empty(truth), features)
        params = fitted(key, model, data, penalty, config.training, start)
        first, second = jnp.split(jnp.abs(autoencoders.dictionary(params)), 2)
        return {"ratio": jnp.diagonal(second) / jnp.diagonal(first)}

    axes, dims = {"penalty": config.penalties}, {"ratio": ("strength",)}
    found = tm.sweep(cell, static={"kind": kinds}, axes=axes, dims=dims)
    return found["ratio"].isel(seed=0).assign_coords(strength=list(config.strengths))


def halves(config: Config) -> xr.DataArray:
    """Return the share of latents that is common to both models, from about one for each model."""
    count = len(config.strengths)
    equal = jnp.tile(jnp.eye(count), (2, 1))

    def cell(key, *, kind, penalty):
        key_start, key_fit = jax.random.split(key)
        model = crosscoder(kind, 2 * count, (count, count), 1 / PER)
        noise = NOISE * jax.random.normal(key_start, (2 * count, 2 * count))
        start = autoencoders.with_dictionary(model, jnp.eye(2 * count) + noise)
        data = activations_of(with_empty(equal), tm.OneActive(PER * count))
        params = fitted(key_fit, model, data, penalty, config.training, start)
        latents = jax.vmap(lambda h: model.apply({"params": params}, h).latents)(equal.T)
        share = shares(params, (count, count))
        fires = latents > 1e-3
        both = fires * 2 * jnp.minimum(share, 1 - share)[None]
        return {"both": jnp.sum(both) / jnp.maximum(jnp.sum(fires), 1)}

    static, axes = {"kind": config.kinds}, {"penalty": config.penalties}
    return tm.sweep(cell, static=static, axes=axes, num_seeds=config.num_seeds)["both"]


def trained(config: Config) -> xr.Dataset:
    """Fit crosscoders of two trained models, and return how they divide the features."""
    features = tm.SparseUniform(16, 0.05)
    recipe = config.training

    def cell(key, *, of_models, penalty):
        keys = jax.random.split(key, 3)
        weights = []
        for each, ours in zip(keys[:2], (slice(0, 12), slice(4, 16)), strict=True):
            importance = jnp.zeros(16).at[ours].set(1.0)
            task = tm.Task(features, importance=importance)
            params = recipe.train(each, tm.ReLUOutput(8), task, evaluation=0).params
            weights.append(params["weights"])
        weights[1] = weights[1].at[:, GROUPS["weak in B"]].multiply(WEAK)
        truth = jnp.concatenate(weights)
        model = crosscoder(of_models, 16, (8, 8), 0.8)
        params = fitted(keys[2], model, activations_of(truth, features), penalty, recipe)
        directions = autoencoders.dictionary(params)
        matching = dictionaries.match(directions, truth)
        cosines = dictionaries.matched_cosines(directions, truth, matching)
        return {"cosine": cosines, "share": shares(params, (8, 8))[matching]}

    return tm.sweep(
        cell,
        static={"of_models": TRAINED},
        axes={"penalty": config.penalties},
        num_seeds=config.num_seeds,
        dims={"cosine": ("feature",), "share": ("feature",)},
    )


def run(config: Config) -> xr.Dataset:
    count = PER * len(config.strengths)
    binary = shrinking(config, ("L1",), OneBinary(count))
    return trained(config).assign(
        ratio=shrinking(config, config.kinds, tm.OneActive(count)),
        binary=binary.isel(kind=0, drop=True),
        both=halves(config),
    )


def best_ratios(results: xr.Dataset, law) -> xr.DataArray:
    """Return the ratios of a closed form for all penalties and strengths."""
    penalties, strengths = results["penalty"].values, results["strength"].values
    rows = [[law(float(c), float(each)) for c in strengths] for each in penalties]
    return xr.DataArray(rows, {"penalty": penalties, "strength": strengths})


def claims(results: xr.Dataset) -> tm.Claims:
    ratio, strength = results["ratio"], results["strength"]
    law = best_ratios(results, failures.crosscoder_ratio)
    off = abs(ratio.sel(kind="L1") - law).max()
    says = "The ratio of the decoders of a uniform feature in an L1 crosscoder is that of the "
    says += "closed form, measured by the largest difference over strengths and penalties."
    yield tm.near(says, 0, off, EXACT, within=0.02, threshold=FIT)
    says = "L1 crosscoders give no decoder to features in the model where they are weak, up to the "
    says += "strength 3u / (2 + u), where u is half the penalty, measured by the largest ratio of "
    says += "decoders."
    lost = ratio.sel(kind="L1").where(law == 0).max()
    yield tm.near(says, 0, lost, EXACT, within=0.01, threshold=FIT)
    says = "Each decoder of a binary feature in an L1 crosscoder is shrunk by half the penalty, "
    says += "measured by the largest difference of a ratio of decoders from (c - u) / (1 - u), "
    says += "where c is the strength and u half the penalty."
    off = abs(results["binary"] - best_ratios(results, failures.crosscoder_ratio_binary)).max()
    yield tm.near(says, 0, off, BINARY, within=0.02, threshold=FIT)
    for kind, source in kinds_of(results, {"joint": JOINT, "BatchTopK": UNPAID}):
        says = f"Crosscoders with {WORDS[kind]} give decoders the true ratio, measured by the "
        says += "largest difference over strengths and penalties."
        off = abs(ratio.sel(kind=kind) - strength).max()
        yield tm.near(says, 0, off, source, within=0.02, threshold=FIT)

    both = results["both"]
    says = "Latents that start near one half for each model stay apart in L1 crosscoders, measured "
    says += "by the largest share of a latent that is common to both models, over penalties and "
    says += "seeds."
    note = "A whole latent costs what two halves cost, so that noise moves latents along a flat "
    note += "valley. They stay mostly in one model."
    most = both.sel(kind="L1").max()
    yield tm.at_most(says, 0.05, most, FOUND, threshold=ROUND, note=note)
    note = "From halves that are exactly equal, rounding would decide which latents a batch keeps, "
    note += "and seeds would differ. So the starts have a noise of 1 %."
    notes = {"joint": "", "BatchTopK": note}
    for kind, source in kinds_of(results, {"joint": FOUND, "BatchTopK": MINDER}):
        says = f"Latents that start near one half for each model grow together with {WORDS[kind]}, "
        says += "measured by the smallest share of a latent that is common to both, over penalties "
        says += "and seeds."
        least = both.sel(kind=kind).min()
        yield tm.at_least(says, 0.9, least, source, threshold=ROUND, note=notes[kind])
    yield from claims_of_trained(results)


def claims_of_trained(results: xr.Dataset) -> tm.Claims:
    says = "Crosscoders of trained models find the features, measured by the smallest mean cosine "
    says += "(MCC) over kinds, at the penalty where each is best."
    mcc = results["cosine"].mean(["feature", "seed"]).max("penalty").min()
    yield tm.at_least(says, 0.9, mcc, FOUND, threshold=ROUND)
    lost = called_own(results).mean("seed")
    high, low = lost.isel(penalty=-1), lost.isel(penalty=0)
    says = "L1 crosscoders of trained models call features that are weak in B A's own at the "
    says += "largest penalty, measured by the share of these features."
    note = "At this penalty some features are lost altogether: MCC falls from 0.94 to 0.86."
    yield tm.at_least(says, 0.9, high.sel(of_models="L1"), FOUND, threshold=ROUND, note=note)
    says = "L1 crosscoders of trained models call few features that are weak in B A's own at the "
    says += "lowest penalty, measured by the share of these features."
    yield tm.at_most(says, 0.1, low.sel(of_models="L1"), FOUND, threshold=ROUND)
    says = "BatchTopK crosscoders of trained models call few features that are weak in B A's own, "
    says += "measured by the share of these features."
    yield tm.at_most(says, 0.1, high.sel(of_models="BatchTopK"), MINDER, threshold=ROUND)
    says = "Crosscoders of all kinds call the features that one trained model has its own, "
    says += "measured by the smallest share over kinds, at the penalty where each is best."
    share = results["share"]
    first, second = (share.isel(feature=GROUPS[name]) for name in ("A alone", "B alone"))
    right = ((first < OWN).mean("feature") + (second > 1 - OWN).mean("feature")).mean("seed") / 2
    note = "BatchTopK finds fewer of them than L1 does at its best penalty."
    least = right.max("penalty").min()
    yield tm.at_least(says, 0.9, least, FOUND, threshold=ROUND, note=note)


def kinds_of(results: xr.Dataset, sources: dict[str, tm.Source]):
    """Return those of the kinds that were fitted to written models, with their sources."""
    return [pair for pair in sources.items() if pair[0] in results["kind"].values.tolist()]


def called_own(results: xr.Dataset) -> xr.DataArray:
    """Return the share of the weak features whose latents are called A's own."""
    return (results["share"].isel(feature=GROUPS["weak in B"]) < OWN).mean("feature")


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (left, middle, right) = plotting.figure(1, 3, size=(9, 3.3))
    fine, last = np.linspace(0.01, 1, 200), KINDS[str(results["kind"].values[-1])]
    for number, penalty in enumerate(results["penalty"].values):
        curve = [failures.crosscoder_ratio(float(c), float(penalty)) for c in fine]
        left.plot(fine, curve, color=f"C{number}", lw=1, label=f"λ = {penalty:g}")
        points = results["ratio"].sel(kind="L1", penalty=penalty)
        left.plot(results["strength"], points, "o", color=f"C{number}", ms=3.5)
    points = results["ratio"].isel(kind=-1, penalty=0)
    left.plot(results["strength"], points, "x", color="black", ms=5, label=last)
    left.set(xlabel="strength in B over that in A", ylabel="decoder in B over that in A")
    left.set_title("L1 takes the weak decoder away\n(lines: closed form)")
    left.legend(loc="upper left")

    both = results["both"]
    places = np.arange(both.sizes["kind"])
    mean, span = plotting.mean_and_range(both, ["penalty", "seed"])
    middle.bar(places, mean, color="C0", width=0.6)
    middle.errorbar(places, mean, span, fmt="none", color="black", lw=1)
    middle.set_xticks(places, [KINDS[kind].replace(" of", "\nof") for kind in both["kind"].values])
    middle.set(xlabel="mean and range over penalties and seeds", ylim=(0, 1.1))
    middle.set(ylabel="share of a latent in both models")
    middle.set_title("Two halves of one feature join\nunless L1 pays for each part")

    for number, kind in enumerate(TRAINED):
        mean, span = plotting.mean_and_range(called_own(results).sel(of_models=kind), "seed")
        look = {"fmt": ("o-", "x:")[number], "color": f"C{number}", "label": KINDS[kind]}
        right.errorbar(results["penalty"], mean, span, **look)
    right.set_xscale("log")
    plotting.plain_ticks(right, "x", results["penalty"].values.tolist())
    right.set(xlabel=r"penalty $\lambda$", ylabel="share called A's own", ylim=(-0.05, 1.1))
    right.set_title("Trained models: strong L1 calls\nweak shared features A's own")
    seeds = f"{results.sizes['seed']} seeds, mean and range"
    right.legend(loc="upper left", title=seeds, title_fontsize=8)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
