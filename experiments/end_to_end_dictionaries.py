r"""End-to-end dictionaries: latents for what the output reads, in the order of its importance.

Claim      An autoencoder that is trained to keep the output of a model needs fewer active latents
           than one that is trained to keep the activation, for one and the same increase of the
           loss of the model. It finds features in the order of their importance to the output,
           mostly as a closed form says, and does not rebuild the activation.
Reproduces Braun et al. (2024), "Identifying Functionally Important Features with End-to-End Sparse
           Dictionary Learning": less than half the active latents. Theirs are language models.
Settings   The loss of a model weights the error of each of 8 features half as much as that of the
           feature before. Models were trained with equal weights in 4 hidden dimensions, or are
           written, with a dimension for each feature. Density is 0.1, and there are 20 latents.
           An increase of the loss is a share of the loss of a model that always answers the mean.
           Below an increase of 0.005, both kinds spread a feature over spare latents, and nothing
           is saved.
Selection  None: lines are means over seeds, and bars go from the lowest to the highest.
Command    toymodels run experiments/end_to_end_dictionaries.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import shrinkage

BRAUN = tm.paper("Braun et al. (2024), End-to-End Sparse Dictionary Learning")
EXACT = tm.prediction("theory.shrinkage.shrunk_feature")
FOUND = tm.finding("first measured here")
TENTH = "a tenth of the loss of predicting the mean"
LOSSES = "0.01 to 0.3 of the loss of predicting the mean"
ROUND = "Ours, a round number."
FIT = "Ours, because fits of finite length do not converge entirely."
SMALL = "Below an increase of 0.005 they have no fewer, because features spread over spare latents."
UNEQUAL = (
    "The closed form gives 0.54, and single seeds are on both sides of one half. The saving "
    "depends on how unequal the importances are."
)
ZERO = (
    "Many seeds replace a feature that is given up by 0 and not by its mean, which is 0.08 worse, "
    "because the ReLU of the output has no slope there. A few give up a feature too early."
)
DENSITY, COUNT = 0.1, 8
IMPORTANCE = 0.5 ** np.arange(COUNT)
HIDDEN = {"written": COUNT, "trained": COUNT // 2}
"""The number of hidden dimensions of each kind of model."""
KINDS = {"usual": "keeps the activation", "end to end": "keeps the output"}
"""The kinds of training, and their names in the figure."""
INCREASES = (0.01, 0.03, 0.1, 0.3)
"""The increases of the loss at which latents are counted."""
SHOWN = 0.1
"""The penalty of the middle panel."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    penalties: tuple[float, ...] = (0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.2)
    latents: int = 20
    num_seeds: int = 8
    examples: int = 8192
    training: tm.Recipe = tm.Recipe(steps=4000, batch=256, learning_rate=3e-3)


SMOKE = Config(
    penalties=(0.1, 0.3),
    latents=2,
    num_seeds=1,
    examples=64,
    training=tm.Recipe(steps=4, batch=16, learning_rate=1e-2),
)


def run(config: Config) -> xr.Dataset:
    autoencoder = tm.ReLUAutoencoder(config.latents)
    features, importance = tm.SparseUniform(COUNT, DENSITY), jnp.asarray(IMPORTANCE)

    def cell(key, *, kind, model, penalty):
        key_model, key_start, key_fit, key_rows = jax.random.split(key, 4)
        target = tm.ReLUOutput(HIDDEN[model])
        params = {"weights": jnp.eye(COUNT), "bias": jnp.zeros(COUNT)}
        if model == "trained":
            task = tm.Task(features)
            params = config.training.train(key_model, target, task, evaluation=0).params

        def replaced(found, example):
            values = tm.activations(target, params, example)
            latents, rebuilt = autoencoder.apply({"params": found}, values["hidden"])
            output = tm.intervene(target, params, example, {"hidden": lambda _: rebuilt})
            return values, latents, rebuilt, output

        def loss(found, example):
            values, latents, rebuilt, output = replaced(found, example)
            error = jnp.sum((rebuilt - values["hidden"]) ** 2)
            if kind == "end to end":
                error = importance @ (output - values["output"]) ** 2
            return error + penalty * jnp.sum(latents)

        start = autoencoder.init(key_start, jnp.zeros(HIDDEN[model]))["params"]
        settings = config.training.settings()
        found = tm.fit(key_fit, start, loss, features.sample, **settings).params
        rows = features.sample(key_rows, config.examples)
        values, latents, rebuilt, output = jax.vmap(lambda row: replaced(found, row))(rows)
        hidden, before = values["hidden"], values["output"]
        more = jnp.mean((output - rows) ** 2 - (before - rows) ** 2, axis=0)
        lost = jnp.mean((output - before) ** 2, axis=0) / jnp.var(before, axis=0)
        spread = jnp.sum(jnp.var(hidden, axis=0))
        return {
            "increase": importance @ more / (importance @ jnp.var(rows, axis=0)),
            "l0": jnp.mean(jnp.sum(latents > 1e-3, axis=1)),
            "unexplained": jnp.mean(jnp.sum((rebuilt - hidden) ** 2, axis=1)) / spread,
            "kept": 1 - lost,
        }

    return tm.sweep(
        cell,
        static={"kind": list(KINDS), "model": list(HIDDEN)},
        axes={"penalty": config.penalties},
        num_seeds=config.num_seeds,
        dims={"kept": ("feature",)},
    )


def shrunk(penalties: np.ndarray, importance: np.ndarray) -> list[list[shrinkage.Shrunk]]:
    """Return the closed form of each feature, for each penalty."""
    return [[shrinkage.shrunk_feature(i, DENSITY, each) for i in importance] for each in penalties]


def law(penalties: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return the share of each feature that is kept by the closed form, for each penalty."""
    variance = DENSITY / 3 - DENSITY**2 / 4
    found = shrunk(penalties, importance)
    return 1 - np.array([[each.squared_error for each in row] for row in found]) / variance


def law_of_ratio() -> np.ndarray:
    """Return the ratio of active latents by the closed form, at each of `INCREASES`."""
    counts, penalties = [], np.geomspace(1e-4, 1.9, 400)
    for importance in (IMPORTANCE, np.ones(COUNT)):
        firing = [sum(each.firing for each in row) for row in shrunk(penalties, importance)]
        increase = (1 - law(penalties, importance)) @ IMPORTANCE / IMPORTANCE.sum()
        counts.append(np.interp(np.log(INCREASES), np.log(increase), firing))
    return counts[0] / counts[1]


def at_increases(results: xr.Dataset, name: str) -> xr.DataArray:
    """Return the mean over seeds of a measurement where the loss has increased by `INCREASES`."""

    def between(increase, values):
        order = np.argsort(increase)
        return np.interp(np.log(INCREASES), np.log(increase[order]), values[order])

    dims = {"input_core_dims": [["penalty"]] * 2, "output_core_dims": [["increases"]]}
    increase = results["increase"].clip(1e-9)
    every = xr.apply_ufunc(between, increase, results[name], vectorize=True, **dims)
    return every.mean("seed").assign_coords(increases=list(INCREASES))


def claims(results: xr.Dataset) -> tm.Claims:
    trained = results.sel(model="trained")
    counts = at_increases(trained, "l0")
    ratio = counts.sel(kind="end to end") / counts.sel(kind="usual")
    says = "End-to-end autoencoders of trained models have fewer active latents than usual ones "
    says += f"that raise the loss of the model as much, by {LOSSES}, measured by the largest ratio."
    yield tm.at_most(says, 1, ratio.max(), BRAUN, note=SMALL)
    says = "End-to-end autoencoders of trained models have less than half the active latents of "
    says += f"usual ones, where both raise the loss of the model by {TENTH}, measured by the ratio."
    yield tm.at_most(says, 0.5, ratio.sel(increases=0.1), BRAUN, note=UNEQUAL)
    says = "The ratio of active latents of end-to-end and usual autoencoders of trained models is "
    says += "that of the closed form without superposition, measured by the largest difference "
    says += f"where both raise the loss of the model by {LOSSES}."
    off = abs(ratio - law_of_ratio()).max()
    seen = "Ours, a round number that was set after the run."
    yield tm.near(says, 0, off, EXACT, within=0.1, threshold=seen)

    hidden = at_increases(trained, "unexplained").sel(increases=0.1)
    says = f"End-to-end autoencoders that raise the loss of a trained model by {TENTH} do not "
    says += "rebuild its activation, measured by the share of the variance of the activation that "
    says += "is left unexplained."
    yield tm.at_least(says, 0.5, hidden.sel(kind="end to end"), BRAUN, threshold=ROUND)
    yield from claims_of_features(results.mean("seed")["kept"])


def claims_of_features(kept: xr.DataArray) -> tm.Claims:
    penalties = kept["penalty"].values
    kept = kept.transpose("kind", "model", "penalty", "feature")
    ours, usual = kept.sel(kind="end to end"), kept.sel(kind="usual")
    both = {"End-to-end": (ours, IMPORTANCE), "Usual": (usual, np.ones(COUNT))}
    for kind, (shares, importance) in both.items():
        off = abs(shares.sel(model="written").values - law(penalties, importance)).max()
        says = f"{kind} autoencoders of written models keep of each feature what the closed form "
        says += "says, measured by the largest difference of shares of its variance over features "
        says += "and penalties."
        yield tm.near(says, 0, off, EXACT, within=0.1, threshold=FIT, note=ZERO)
    off = abs(ours.sel(model="trained").values - law(penalties, IMPORTANCE)).max()
    says = "End-to-end autoencoders of trained models keep of each feature what the closed form "
    says += "without superposition says, measured by the largest difference of shares of its "
    says += "variance over features and penalties."
    yield tm.near(says, 0, off, FOUND, within=0.1, threshold=FIT, note=ZERO)
    clipped = ours.sel(model="trained").clip(0).values
    says = "End-to-end autoencoders of trained models keep no feature better than a more important "
    says += "one, measured by the largest difference of shares over penalties and neighbours."
    rise = (clipped[:, 1:] - clipped[:, :-1]).max()
    yield tm.at_most(says, 0, rise, EXACT, slack=0.02, threshold=FIT)
    low = usual.sel(model="trained")
    says = "Usual autoencoders of trained models keep all features alike, whatever their "
    says += "importance, measured by the largest difference of shares at one penalty."
    apart = (low.max("feature") - low.min("feature")).max()
    yield tm.at_most(says, 0.05, apart, FOUND, threshold=ROUND)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (count, order, hidden) = plotting.figure(1, 3, size=(9, 3.5))
    trained = results.sel(model="trained")
    shown = float(results["penalty"].sel(penalty=SHOWN, method="nearest"))
    styles = {"usual": ("o", "C0", np.ones(COUNT)), "end to end": ("s", "C1", IMPORTANCE)}
    for kind, (marker, color, importance) in styles.items():
        one = trained.sel(kind=kind)
        look = {"fmt": f"{marker}-", "color": color, "ms": 4, "label": KINDS[kind]}
        for axes, name in ((count, "l0"), (hidden, "unexplained")):
            mean, span = plotting.mean_and_range(one[name])
            axes.errorbar(one["increase"].mean("seed"), mean, span, **look)
        mean, span = plotting.mean_and_range(one["kept"].sel(penalty=shown))
        order.errorbar(IMPORTANCE, mean, span, **{**look, "fmt": marker})
        order.plot(IMPORTANCE, law(np.array([shown]), importance)[0], "--", color=color, lw=1)
    closed = order.plot([], [], "--", color="0.3", lw=1, label="closed form")
    true = DENSITY * COUNT
    count.axhline(true, color="0.5", lw=1, ls=":", label=f"active features: {true:g}")
    for axes in (count, hidden):
        axes.set(xscale="log", yscale="log", xlabel="increase of the loss of the model")
        axes.set_xlim(3e-4, 1.2)
    count.set(ylabel="active latents", ylim=(0.04, 8))
    count.set_title("To keep the output takes\nfewer active latents")
    order.set(xscale="log", xlabel=f"importance of the feature (λ = {shown:g})")
    order.set(ylim=(-0.15, 1.15), ylabel="share of the feature that is kept")
    order.set_title("What matters to the output\nis kept, the rest is given up")
    hidden.set(ylabel="unexplained share of the activation")
    hidden.set_title("The activation itself\nis not rebuilt")
    seeds = results.sizes["seed"]
    count.legend(loc="lower left", title=f"mean, range of {seeds} seeds;\nautoencoder that")
    order.legend(handles=closed, loc="lower right")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
