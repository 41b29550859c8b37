r"""Superposition as lossy compression: the effective number of features, and what changes it.

Claim      The effective number of features is the exponential of an entropy. It counts 20 sparse
           features in 5 neurons well. Where 4 features have room for all, an autoencoder counts 7
           to 15. Of dense features even the true dictionary counts too many: each belongs to the
           principal components that the model stores. Dropout spreads each feature over neurons
           and lowers the number a little. Strong adversarial training lowers it also where there
           is room for all features, where the paper finds a rise.
Reproduces Bereska et al. (2025), the measure, its agreement with the truth in toy models, and the
           effects of dropout and of adversarial training.
Settings   Tied ReLU models of 5 neurons and of 4 or 20 features with equal frequencies. Dropout
           sets hidden neurons to 0 and scales the others. An attack moves each input by a fixed
           length along the gradient of its own loss. The true dictionary has a latent |W_i| x_i
           for each feature; the autoencoder is ReLU with an L1 penalty, which was not tuned.
Selection  None: all seeds are shown.
Command    toymodels run experiments/lossy_compression.py
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import superposition

BERESKA = tm.paper("Bereska et al. (2025), Superposition as Lossy Compression")
MOST = tm.identity("An entropy is at most the logarithm of the number of its parts")
SPREAD = tm.prediction("(1 - a)^2 + r a^2 / m is lowest at a = 1 / (1 + r / m), r = q / (1 - q)")
FOUND = tm.finding("found here")
EYE = "Ours, because the paper gives curves of other models."
SEEN = "Ours, after a first run."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    features: tuple[int, ...] = (4, 20)
    hidden: int = 5
    densities: tuple[float, ...] = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
    dropouts: tuple[float, ...] = (0.1, 0.2, 0.4)
    attacks: tuple[float, ...] = (0.1, 0.2, 0.4)
    num_seeds: int = 3
    training: tm.Recipe = tm.Recipe(steps=2500, batch=256, learning_rate=1e-2)
    penalty: float = 0.03
    latents: int = 40


SMOKE = Config(
    features=(3,),
    hidden=2,
    densities=(0.5, 0.1),
    dropouts=(0.2,),
    attacks=(0.1,),
    num_seeds=1,
    training=tm.Recipe(steps=3, batch=8, learning_rate=1e-2),
    latents=4,
)


def output(params, x, scale) -> Any:
    """Return the output for one example whose hidden neurons are multiplied by `scale`."""
    hidden = scale * (params["weights"] @ x)
    return jax.nn.relu(params["weights"].T @ hidden + params["bias"])


def train(key, num_features: int, density, dropout, attack, config: Config):
    """Train one model under dropout or attacks."""
    key_start, key_data = jax.random.split(key)
    distribution = tm.SparseUniform(num_features, density)

    def error(params, x, target, scale):
        return jnp.sum((target - output(params, x, scale)) ** 2)

    def loss(params, example):
        x, scale = example
        gradient = jax.grad(error, argnums=1)(params, x, x, scale)
        length = jnp.sqrt(jnp.sum(gradient**2) + 1e-12)
        attacked = jax.lax.stop_gradient(x + attack * gradient / length)
        return error(params, attacked, x, scale)

    def sample(key, batch):
        key_x, key_scale = jax.random.split(key)
        kept = jax.random.uniform(key_scale, (batch, config.hidden)) >= dropout
        return distribution.sample(key_x, batch), jnp.where(kept, 1 / (1 - dropout), 0.0)

    start = {
        "weights": jax.random.normal(key_start, (config.hidden, num_features)) * 0.4,
        "bias": jnp.zeros(num_features),
    }
    return tm.fit(key_data, start, loss, sample, **config.training.settings()).params


def run(config: Config) -> xr.Dataset:
    rare = config.densities[-1]
    cases = [(density, 0.0, 0.0) for density in config.densities]
    cases += [(rare, dropout, 0.0) for dropout in config.dropouts]
    cases += [(rare, 0.0, attack) for attack in config.attacks]

    def cell(key, *, num_features, density, dropout, attack):
        key_model, key_dictionary, key_examples = jax.random.split(key, 3)
        params = train(key_model, num_features, density, dropout, attack, config)
        distribution = tm.SparseUniform(num_features, density)
        model = tm.ReLUOutput(hidden=config.hidden)
        dictionary = tm.ReLUAutoencoder(latents=config.latents)
        hidden = tm.Activations(model, params, distribution, "hidden")
        how = {"penalty": config.penalty, **config.training.settings()}
        found = tm.fit_autoencoder(key_dictionary, dictionary, hidden, **how).params
        weights = params["weights"]
        x = distribution.sample(key_examples, 4096)
        latents = jax.vmap(lambda h: dictionary.apply({"params": found}, h).latents)(x @ weights.T)
        return {
            "dictionary": superposition.effective_features(latents),
            "true": superposition.effective_features(x * jnp.linalg.norm(weights, axis=0)[None]),
            "frobenius": jnp.sum(weights**2),
        }

    static, axes = {"num_features": config.features}, {("density", "dropout", "attack"): cases}
    results = tm.sweep(cell, static=static, axes=axes, num_seeds=config.num_seeds)
    results = results.rename(density="case")
    results = results.assign_coords(case=np.arange(len(cases)))
    for k, name in enumerate(("density", "dropout", "attack")):
        results[name] = ("case", [case[k] for case in cases])

    def alone(key, *, dropout):
        weights = train(key, 1, rare, dropout, 0.0, config)["weights"]
        return {"alone": jnp.sum(weights**2), "evenly": jnp.max(weights**2) / jnp.sum(weights**2)}

    lone = tm.sweep(alone, axes={"dropout": config.dropouts}, num_seeds=config.num_seeds)
    for name in ("alone", "evenly"):
        results[name] = (("lone_dropout", "seed"), lone[name].transpose("dropout", "seed").values)
    results["lone_dropout"] = list(config.dropouts)
    return results.assign_attrs(hidden=config.hidden)


def cases(results: xr.Dataset, name: str) -> xr.Dataset:
    """Return the models of one series: of "density", or at the smallest one of the others."""
    if name == "density":
        kept = (results["dropout"] == 0) & (results["attack"] == 0)
        return results.isel(case=np.flatnonzero(kept))
    other = results["attack" if name == "dropout" else "dropout"]
    kept = (results["density"] == results["density"].min()) & (other == 0)
    chosen = results.isel(case=np.flatnonzero(kept))
    return chosen.isel(case=np.argsort(chosen[name].values))


def change(results: xr.Dataset, name: str, count: str, which: int) -> xr.DataArray:
    """Return the mean count in each model of a series over that in the first."""
    values = cases(results, name)[count].isel(num_features=which).mean("seed")
    return values / values[0]


def claims(results: xr.Dataset) -> tm.Claims:
    few, many = results["num_features"].values[[0, -1]]
    hidden = results.attrs["hidden"]
    says = "Counted with the true dictionary no model has more effective features than features, "
    says += "measured by the largest ratio."
    yield tm.at_most(says, 1, (results["true"] / results["num_features"]).max(), MOST, slack=1e-5)
    sparse = cases(results, "density").isel(num_features=-1)
    says = f"Effective features of the autoencoder follow |W|_F^2 in models of {many} features, "
    says += "measured by the correlation over densities and seeds."
    pair = [sparse[name].values.ravel() for name in ("dictionary", "frobenius")]
    note = "At densities from 1/2 the autoencoder splits what is no feature into many latents."
    yield tm.at_least(says, 0.8, np.corrcoef(pair)[0, 1], BERESKA, threshold=EYE, note=note)
    says = f"Effective features of the true dictionary follow |W|_F^2 in models of {many} "
    says += "features, measured by the correlation over densities and seeds."
    pair = [sparse[name].values.ravel() for name in ("true", "frobenius")]
    note = "At density 1 the model stores principal components, to which all features belong alike."
    yield tm.at_least(says, 0.8, np.corrcoef(pair)[0, 1], FOUND, threshold=EYE, note=note)
    says = f"Of {few} features in {hidden} neurons the autoencoder counts too many at every "
    says += "density, measured by the smallest ratio of the mean count to the number of features."
    counted = cases(results, "density")["dictionary"].isel(num_features=0).mean("seed")
    yield tm.at_least(says, 1.5, (counted / few).min(), FOUND, threshold=SEEN)
    says = "Sparse features are stored in superposition, measured by the effective features of "
    says += f"{many}, for each hidden neuron, with the true dictionary at the smallest density."
    ours = "Ours, because it is twice as many features as neurons."
    yield tm.at_least(says, 2, sparse["true"][-1].mean() / hidden, BERESKA, threshold=ours)
    says = f"The autoencoder counts as many features as the true dictionary in models of {many} "
    says += "features at the smallest density, measured by the ratio of the means."
    ours = "Ours, because the penalty of the autoencoder is not tuned."
    ratio = sparse["dictionary"][-1].mean() / sparse["true"][-1].mean()
    yield tm.near(says, 1, ratio, FOUND, within=0.2, threshold=ours)
    says = "Of dense features the autoencoder counts more than there are dimensions, although the "
    says += f"model of {many} features has no superposition, measured by the effective features "
    says += "for each neuron."
    ours = "Ours, because 1 is a feature for each neuron."
    yield tm.at_least(says, 1.2, sparse["dictionary"][0].mean() / hidden, FOUND, threshold=ours)

    says = "Dropout leaves a feature alone the squared length 1 / (1 + r / m), where r is the odds "
    says += "of dropping a neuron, measured by the largest difference."
    rate = results["lone_dropout"].values
    length = 1 / (1 + rate / (1 - rate) / hidden)
    off = abs(results["alone"].mean("seed") - length).max()
    ours = "Ours, because inputs of 0 and minibatches move it a little."
    yield tm.near(says, 0, off, SPREAD, within=0.02, threshold=ours)
    says = "Under the strongest dropout a feature alone is spread evenly over all neurons, "
    says += "measured by the largest share of its squared length in one neuron."
    even = results["evenly"].isel(lone_dropout=-1).max()
    ours = "Ours, because even is 1 / m."
    yield tm.near(says, 1 / hidden, even, SPREAD, within=0.02, threshold=ours)
    crowd, room = f"{many} in {hidden} neurons", f"{few} in {hidden} neurons"
    counts = {"dictionary": ("autoencoder", BERESKA), "true": ("true dictionary", FOUND)}
    for count, (counter, source) in counts.items():
        says = f"Dropout of 0.4 lowers the effective features of {crowd}, counted with the "
        says += f"{counter}, measured by the ratio."
        ours = "Ours, because the paper says up to a half, in other models."
        ratio = change(results, "dropout", count, -1)[-1]
        note = "One seed lost no feature."
        yield tm.at_most(says, 0.9, ratio, source, threshold=ours, note=note)
    says = f"Adversarial training lowers the effective features of {crowd}, counted with the "
    says += "autoencoder, measured by the ratio at the largest attack."
    ratio = change(results, "attack", "dictionary", -1)[-1]
    yield tm.at_most(says, 0.95, ratio, BERESKA, threshold=EYE)
    says = f"Adversarial training raises the effective features of {room}, counted with the "
    says += "autoencoder, measured by the ratio at the largest attack."
    ratio = change(results, "attack", "dictionary", 0)[-1]
    note = "It falls, because the attack is so long that the model gives features up."
    yield tm.at_least(says, 1.05, ratio, BERESKA, threshold=EYE, note=note)
    says = f"Adversarial training leaves all effective features of {room}, counted with the true "
    says += "dictionary, so that any rise is one of the autoencoder, measured by the largest "
    says += "change."
    off = abs(change(results, "attack", "true", 0) - 1).max()
    ours = "Ours, because the number is at its largest without attacks."
    note = "The longest attack makes some models give a feature up; shorter ones change nothing."
    yield tm.near(says, 0, off, FOUND, within=0.02, threshold=ours, note=note)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(1, 3, size=(9, 3.7), sharey=True)
    titles = {
        "density": "Of 4 features the autoencoder\ncounts 7 to 15 on average",
        "dropout": "Dropout changes\nthe counts a little",
        "attack": "Long attacks make a model\ngive features up",
    }
    for each, (name, title) in zip(axes, titles.items(), strict=True):
        draw(each, cases(results, name), name)
        each.set_title(title)
    axes[0].set(xscale="log", xlabel="density", ylabel="effective features")
    plotting.plain_ticks(axes[0], "x", (1, 0.5, 0.2, 0.1, 0.05))
    axes[0].invert_xaxis()
    axes[1].set(xlabel="dropout of hidden neurons")
    axes[2].set(xlabel="length of the attack")
    title = f"lines: means; dots: each of {results.sizes['seed']} seeds"
    axes[1].legend(fontsize=7, loc="upper center", title=title, title_fontsize=7)
    axes[0].text(0.8, 5.3, f"{results.attrs['hidden']} neurons", fontsize=7, color="0.4")
    return figure


def draw(axes: plotting.Axes, series: xr.Dataset, name: str) -> None:
    """Draw both counts against the number that changes, for both sizes, with all seeds."""
    for k, number in enumerate(series["num_features"].values):
        here = series.sel(num_features=number)
        for count, style, label in (
            ("true", "o-", "true dictionary"),
            ("dictionary", "s--", "autoencoder"),
        ):
            color = f"C{k}"
            seeds, label = here[count].transpose("case", "seed"), f"{number} features, {label}"
            axes.plot(here[name], seeds, style[0], ms=2.5, color=color, alpha=0.5)
            mean = seeds.mean("seed")
            axes.plot(here[name], mean, style, ms=4, lw=1.3, color=color, label=label)
    axes.axhline(series.attrs["hidden"], color="0.6", lw=0.8)
    axes.set(ylim=(0, 1.5 * float(series["true"].max())))


if __name__ == "__main__":
    experiment.main(__file__)
