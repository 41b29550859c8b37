r"""An atlas of failures: every method on the smallest model on which it is provably wrong.

Claim      Each of seventeen scores that interpretability relies on is wrong on a model of a few
           numbers. The score and the truth have closed forms on this model, and here both are
           measured with the code that users call. Each failure can be noticed by another number.
Reproduces No figure of a paper. docs/atlas.md has the closed forms and the sources.
Settings   The density is 0.3 and features are uniform on (0, 1] unless something else is said.
           Dictionaries are trained by Adam from the true directions, or from a start without ties.
Selection  None: all seeds, which decide the draws.
Command    toymodels run experiments/atlas_of_failures.py
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import autoencoders, circuits, experiment, plotting
from toymodels import interventions as iv
from toymodels.analysis import dictionaries, reconstruction
from toymodels.theory import failures, frames
from toymodels.theory.dictionaries import hedging_angle

DENSITY = 0.3
CHANGE, GRADIENTS = 1.5, 5
"""The change of the input of the saturated unit, and the number of gradients."""
DIMENSIONS = 6
STRENGTH, PENALTY = 0.2, 0.4
"""The strength of a feature in the second of two models, and the penalty of the crosscoder."""
SKIP, SPARSE = 0.2, 0.1
"""The penalties of the transcoder and of the autoencoder."""
ALONE, BOTH = 0.2, 0.1
"""The probabilities of a parent alone, and of a parent with its child."""
EDGES, NEEDED = 1000, 300
SIDES = 5
EXACT = tm.prediction("The closed form in docs/atlas.md")
TRUTH = tm.prediction("The truth in docs/atlas.md, which follows from the written model")
ERROR = "Ours, because of rounding, of the draws, or of a fit of finite length."
COIN = failures.random_subspace_accuracy(DIMENSIONS // 2, DIMENSIONS)
SCORES = {
    "blind": ("Causal scrubbing", "loss recovered, independent features"),
    "above": ("Causal scrubbing", "loss recovered, features present together"),
    "illusion": ("Patching a subspace", "effect of a direction of two unused units"),
    "corrupt": ("Attribution patching", "effect of a saturated unit, corrupt run"),
    "clean": ("Attribution patching", "effect of a saturated unit, clean run"),
    "integration": ("Integrated gradients", f"effect of that unit, {GRADIENTS} gradients"),
    "interchange": ("Interchange accuracy", "a random half of the space, all pairs"),
    "resample": ("Resample ablation", "rise of the loss over the least possible"),
    "crosscoder": ("L1 crosscoder", "decoder of a common feature in B over that in A"),
    "transcoder": ("Cross-layer transcoder", "effect of the middle of a chain"),
    "grid": ("MIB's CPR", "area under faithfulness on the grid"),
    "absorption": ("Sparse autoencoder", "recall of a parent's latent"),
    "hedging": ("Narrow dictionary", "share of a child in its parent's latent"),
    "unused": ("Linear probe", "R² of a feature that the output ignores"),
    "untrained": ("Linear probe", "mean R² in a model without training"),
    "cosine": ("MCC", "a random direction beside a pentagon"),
    "explained": ("Explained variance", "as many random directions as dimensions"),
}
"""A method and its score on a small model."""
CLOSED_FORMS = {
    "blind": (1.0, failures.own_share(DENSITY), 0.03),
    "above": (failures.recovered_together(DENSITY), failures.own_share_together(DENSITY), 0.03),
    "illusion": (math.sin(2 * math.pi / 4), 0.0, 1e-5),
    "corrupt": (CHANGE, 1.0, 1e-5),
    "clean": (0.0, 1.0, 1e-5),
    "integration": (failures.midpoint_effect(CHANGE, GRADIENTS), 1.0, 1e-5),
    "interchange": (COIN.all_pairs, COIN.changing_pairs, 0.02),
    "resample": (2.0, 1.0, 0.04),
    "crosscoder": (failures.crosscoder_ratio(STRENGTH, PENALTY), STRENGTH, 0.01),
    "transcoder": (0.0, 1.0, 0.01),
    "grid": (failures.grid_ratio(NEEDED / EDGES), 1 - (NEEDED + 1) / (2 * EDGES), 1e-5),
    "absorption": (ALONE / (ALONE + BOTH), 1.0, 0.01),
    "hedging": (math.sin(hedging_angle(ALONE, BOTH)), 0.0, 0.02),
    "unused": (1.0, 0.0, 1e-4),
    "untrained": (2 / SIDES, 0.0, 0.02),
    "cosine": (failures.polygon_cosine(SIDES), 0.0, 0.005),
    "explained": (1.0, 0.0, 1e-3),
}
"""The value that the score gives, the true value, and the tolerance of both when measured."""
EXPLAINED = "the share of the variance that the hypothesis explains"
PATCHED = "the effect of patching the unit"
REFITTED = "the ratio of decoders that are fitted again without the penalty"
TRUTHS = {
    "blind": (EXPLAINED, "the distance of the outputs"),
    "above": (EXPLAINED, "a share above 1"),
    "illusion": ("the effect of patching both unused units", "the read-write overlap"),
    "corrupt": (PATCHED, "the gradients at both runs"),
    "clean": (PATCHED, "the gradients at both runs"),
    "integration": (PATCHED, "the sum of attributions"),
    "interchange": ("the accuracy on the pairs whose label should change", "the changing pairs"),
    "resample": ("the rise with the best constant", "the loss of a constant"),
    "crosscoder": (REFITTED, "refitted decoders"),
    "transcoder": ("the effect of patching the middle of the model", "a patch of the middle"),
    "grid": ("the area of the steps", "more points on the grid"),
    "absorption": ("", "a probe beside the latent"),
    "hedging": ("", "one more latent"),
    "unused": ("the effect of the direction of the probe", "a patch of the direction"),
    "untrained": ("the mean R² above that of other random weights", "another untrained model"),
    "cosine": ("the MCC above that of other random directions", "random directions"),
    "explained": ("", "random directions"),
}
"""The measurement of a truth, unless the model defines it, and what shows the failure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_seeds: int = 8
    examples: int = 50_000
    subspaces: int = 200  # the random subspaces over which interchanges are averaged
    training: tm.Recipe = tm.Recipe(steps=3000, batch=256, learning_rate=1e-2)


SMOKE = Config(
    num_seeds=1,
    examples=400,
    subspaces=4,
    training=tm.Recipe(steps=10, batch=16, learning_rate=1e-2),
)


class Written(nn.Module):
    """A model that is written down: two functions with the hidden layer between them."""

    encode: Callable
    decode: Callable

    @nn.compact
    def __call__(self, x):
        return self.decode(tm.Site(name="hidden")(self.encode(x)))


DORMANT = Written(lambda x: jnp.stack([x, 0 * x, x]), lambda hidden: 2 * hidden[1] + hidden[2])
SATURATED = Written(lambda x: x, lambda hidden: 1 - jax.nn.relu(1 - hidden))
IDENTITY = Written(lambda x: x, lambda hidden: hidden)
HALF_USED = Written(lambda x: x, lambda hidden: hidden[0])


def scrubbing(key, config: Config):
    """Return the loss recovered in the pair, and the share of the variance that is explained."""
    model, params = tm.ReLUOutput(1), {"weights": jnp.asarray([[1.0, -1.0]]), "bias": jnp.zeros(2)}
    for name, features in (
        ("blind", tm.SparseUniform(2, DENSITY)),
        ("above", tm.CorrelatedSets(num_sets=1, size=2, density=DENSITY)),
    ):
        key, key_scrub, *keys = jax.random.split(key, 4)
        nodes = [iv.Node(iv.unit("output", i), iv.keeping(features, [i])) for i in range(2)]
        batch, other = (features.sample(each, config.examples) for each in keys)
        loss = tm.Task(features).loss
        found = iv.scrub(key_scrub, model, params, batch, nodes, features, loss)
        second = other[:, 1]
        if name == "above":  # present with the first feature, and of another value
            value = jax.random.uniform(key_scrub, second.shape)
            second = jnp.where(batch[:, 0] > 0, value, 0.0)
        # Two outputs with one x_1 and independent x_2 correlate by the share that x_1 explains.
        ys = jax.nn.relu(batch[:, 0] - batch[:, 1]), jax.nn.relu(batch[:, 0] - second)
        yield name, found.recovered, jnp.corrcoef(*ys)[0, 1]


def patching(key, config: Config):
    """Return effects by patching and by its approximations, and interchanges of subspaces."""
    effect = partial(iv.interchange, DORMANT, {}, jnp.zeros(()), jnp.ones(()))
    plane = iv.subspace("hidden", np.eye(3)[:, :2])
    yield "illusion", effect(iv.direction("hidden", [1.0, 1.0, 0.0])), effect(plane)

    ends, whole = (jnp.zeros(()), jnp.asarray(CHANGE)), iv.whole("hidden")
    base, source = (({}, *pair, whole, lambda y: y) for pair in (ends, ends[::-1]))
    patched = iv.interchange(SATURATED, {}, *ends, whole)
    yield "corrupt", iv.attribution_patching(SATURATED, *base), patched
    yield "clean", -iv.attribution_patching(SATURATED, *source), patched
    averaged = iv.integrated_patching(SATURATED, *base, num_steps=GRADIENTS)
    yield "integration", averaged, patched

    key_basis, key_pairs, key_ablation = jax.random.split(key, 3)
    pairs = jax.random.normal(key_pairs, (2, config.examples // 25, DIMENSIONS))

    def accuracy(key):
        basis = jnp.linalg.qr(jax.random.normal(key, (DIMENSIONS, DIMENSIONS // 2)))[0]
        part = iv.Part("hidden", (), basis)
        label = lambda _, source: source[0] > 0  # noqa: E731
        return iv.interchange_accuracy(IDENTITY, {}, *pairs, part, label, lambda y: y[0] > 0)

    found = jax.vmap(accuracy)(jax.random.split(key_basis, config.subspaces))
    yield "interchange", jnp.mean(found.all_pairs), jnp.mean(found.changing_pairs)

    both = tm.SparseUniform(1, DENSITY).sample(key_ablation, 2 * config.examples)[:, 0]
    base, source = jnp.split(both, 2)
    resampled = jax.vmap(lambda x, other: iv.interchange(IDENTITY, {}, x, other, whole))
    rise, least = jnp.mean((resampled(base, source) - base) ** 2), jnp.var(base)
    ablated = iv.set_to(whole, jnp.mean(base))
    mean = iv.damage(IDENTITY, {}, base, lambda x, y: (x - y) ** 2, ablated)
    yield "resample", rise / least, mean / least


def trained(key, config: Config):
    """Return the scores of four dictionaries of one or two latents, which are fitted at once."""
    model, directions = tm.ReLUAutoencoder(2), jnp.eye(2)
    start = {
        "crosscoder": {"read": jnp.ones(()), "bias": jnp.zeros(()), "write": jnp.ones(2)},
        "transcoder": {"read": jnp.full(2, 0.7), "first": jnp.full(2, 0.7), "second": jnp.ones(())},
        "absorbing": autoencoders.with_dictionary(model, directions),
        "hedging": jnp.asarray([0.8, 0.6]),
    }

    def transcoder(params, a, b):
        first, second = jax.nn.relu(params["read"] * jnp.stack([a, b]))
        writes = params["first"] * first
        price = first * jnp.linalg.norm(params["first"]) + second * jnp.abs(params["second"])
        return writes[0], writes[1] + params["second"] * second, price

    def loss(params, example):
        x, pair = example
        own, target = params["crosscoder"], jnp.stack([x, STRENGTH * x])
        code = jax.nn.relu(own["read"] * x + own["bias"])
        shared = jnp.sum((target - own["write"] * code) ** 2)
        shared += PENALTY * code * jnp.sum(jnp.abs(own["write"]))
        b, c, price = transcoder(params["transcoder"], 1.0, 1.0)
        chain = (1 - b) ** 2 + (1 - c) ** 2 + SKIP * price
        absorbing = model.apply({"params": params["absorbing"]}, pair, SPARSE, method="loss")
        unit = params["hedging"] / jnp.linalg.norm(params["hedging"])
        return shared + chain + absorbing + jnp.sum((pair - unit * (unit @ pair)) ** 2)

    def sample(key, batch):
        x, place = jax.random.uniform(key, (2, batch))
        return x, jnp.stack([place < ALONE + BOTH, place < BOTH], axis=1) * 1.0

    params = tm.fit(key, start, loss, sample, **config.training.settings()).params
    own, xs = params["crosscoder"], jnp.linspace(0, 1, 100)
    codes = jax.nn.relu(own["read"] * xs + own["bias"])
    refitted = [codes @ target for target in (xs, STRENGTH * xs)]  # least squares
    yield "crosscoder", own["write"][1] / own["write"][0], refitted[1] / refitted[0]
    ends = [transcoder(params["transcoder"], 1.0, b)[1] for b in (1.0, 0.0)]
    chain = Written(lambda a: a, lambda b: b)
    one, zero = jnp.ones(()), iv.set_to(iv.whole("hidden"), 0.0)
    yield "transcoder", ends[0] - ends[1], iv.run(chain, {}, one) - iv.run(chain, {}, one, zero)
    pairs = jnp.asarray([[1.0, 0.0], [1.0, 1.0]])
    latents = jax.vmap(lambda h: model.apply({"params": params["absorbing"]}, h).latents)(pairs)
    fires = (latents[:, 0] > 1e-3) @ jnp.asarray([ALONE, BOTH]) / (ALONE + BOTH)
    yield "absorption", fires, 1.0
    yield "hedging", jnp.abs(params["hedging"][1]) / jnp.linalg.norm(params["hedging"]), 0.0


def reading(key, config: Config):
    """Return scores of probes and dictionaries that do not know the model."""
    keys = jax.random.split(key, 4)
    features = tm.SparseUniform(SIDES, DENSITY).sample(keys[0], config.examples)

    def r_squared(hidden, targets):
        hidden, targets = hidden - hidden.mean(0)[None], targets - targets.mean(0)[None]
        readout = jnp.linalg.solve(hidden.T @ hidden, hidden.T @ targets)
        errors = jnp.sum((targets - hidden @ readout) ** 2, axis=0)
        return 1 - errors / jnp.sum(targets**2, axis=0), readout

    explained, readout = r_squared(features[:, :2], features[:, 1:2])
    part = iv.direction("hidden", readout[:, 0])
    changed = iv.interchange(HALF_USED, {}, jnp.zeros(2), jnp.ones(2), part)
    yield "unused", explained[0], changed

    weights = jax.random.normal(keys[1], (2, 2, SIDES))
    means = [jnp.mean(r_squared(features @ each.T, features)[0]) for each in weights]
    yield "untrained", means[0], means[0] - means[1]

    pentagon = jnp.asarray(frames.regular_polygon(SIDES), jnp.float32)
    directions = jax.random.normal(keys[2], (2, config.examples // 25, 2, 1))
    scored = jax.vmap(lambda one: dictionaries.mean_max_cosine(one, pentagon))
    cosine, other = (jnp.mean(scored(each)) for each in directions)
    yield "cosine", cosine, cosine - other

    basis, hidden = jax.random.normal(keys[3], (2, 2)), features @ pentagon.T
    rebuilt = jnp.linalg.solve(basis, hidden.T).T @ basis.T
    yield "explained", reconstruction.explained_variance(hidden, rebuilt, centred=True), 0.0


def run(config: Config) -> xr.Dataset:
    def cell(key):
        keys = jax.random.split(key, 4)
        parts = (scrubbing, patching, trained, reading)
        found: dict[str, Sequence[Any]] = {}
        for part, own in zip(parts, keys, strict=True):
            found.update({name: pair for name, *pair in part(own, config)})
        areas = circuits.areas(jnp.minimum(jnp.arange(EDGES + 1) / NEEDED, 1.0))
        found["grid"] = [areas.cpr_grid, areas.cpr]
        says, true = (jnp.stack([found[name][i] for name in SCORES]) for i in (0, 1))
        return {"says": says, "true": true}

    dims = {"says": ("row",), "true": ("row",)}
    results = tm.sweep(cell, num_seeds=config.num_seeds, dims=dims)
    return results.assign_coords(row=list(SCORES))


def claims(results: xr.Dataset) -> tm.Claims:
    means = results[["says", "true"]].mean("seed")
    for name, (method, score) in SCORES.items():
        here = means.sel(row=name)
        reported, true, within = CLOSED_FORMS[name]
        says = f"{method} reports the score that its closed form predicts ({score})."
        yield tm.near(says, reported, here["says"], EXACT, within=within, threshold=ERROR)
        truth, _ = TRUTHS[name]
        if truth:
            says = f"The truth that {method} misses ({score}) is {truth}."
            yield tm.near(says, true, here["true"], TRUTH, within=within, threshold=ERROR)
    wrong = np.abs(results["says"] - results["true"]).min()
    says = "Every method of the atlas is wrong in every draw, measured by the smallest absolute "
    says += "difference of score and truth."
    yield tm.at_least(says, 0.03, wrong, EXACT, threshold="Ours, because MIB's grid errs least.")


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(size=(9.0, 7.4))
    means = results.mean("seed")
    places = -np.arange(len(SCORES), dtype=float)
    axes.hlines(places, means["true"], means["says"], color="0.82", lw=6, zorder=1)
    says, true, _ = np.transpose([CLOSED_FORMS[name] for name in SCORES])
    axes.plot(means["says"], places, "C1o", ms=8, label="the method says")
    axes.plot(says, places, "k|", ms=13, mew=1)
    axes.plot(means["true"], places, "C0D", ms=8, label="is true")
    axes.plot(true, places, "k|", ms=13, mew=1, label="closed form")
    labels = [f"{method}\n{score}" for method, score in SCORES.values()]
    axes.set_yticks(places, labels, linespacing=1.1)
    notice = axes.secondary_yaxis("right")
    notice.set_yticks(places, [TRUTHS[name][1] for name in SCORES])
    for axis in (axes, notice):
        axis.tick_params("y", length=0)
        axis.spines[["left", "right"]].set_visible(False)
    axes.set(xlim=(-0.06, 2.06), ylim=(places[-1] - 0.6, 0.6), xticks=np.linspace(0, 2, 5))
    axes.grid(axis="x", color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_title("Every method is wrong on some model of a few numbers", pad=26)
    above = axes.get_yaxis_transform()
    for place, text, side in ((-0.02, "method and score", "right"), (1.02, "look at", "left")):
        axes.text(place, 0.75, text, ha=side, fontweight="bold", fontsize=8, transform=above)
    spread = float(results[["says", "true"]].std("seed").to_array().max())
    seeds = f"mean of {results.sizes['seed']} seeds, standard deviation at most {spread:.2g}"
    axes.set_xlabel(f"score ({seeds})")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
