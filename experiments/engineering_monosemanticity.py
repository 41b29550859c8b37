r"""Engineering monosemanticity: a negative bias at the start gives neurons of one feature each.

Claim      If biases start negative, a neuron begins with few features, and some neurons end with
           one; if biases start at 0 hardly any do. More neurons help. At this size negative starts
           also lower the loss, and most neurons keep several features: both are unlike the paper.
Reproduces Jermyn, Schiefer and Hubinger (2022), the feature decoder, with sizes of an eighth. The
           number of features of a neuron at the start, and the loss of one neuron for each feature
           that reads its direction, are exact here.
Settings   v is sparse, x = E v with random unit columns E, hidden ReLU neurons with biases, and a
           linear read-out without bias; the target is v. A neuron is monosemantic if one feature
           has nine tenths of the sum of its activations on each feature alone. Neurons that no
           feature activates alone are not counted.
Selection  None: all seeds are shown; the curves of all neurons are those of the first seed.
Command    toymodels run experiments/engineering_monosemanticity.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import superposition
from toymodels.theory import widths

JERMYN = tm.paper("Jermyn, Schiefer and Hubinger (2022), Engineering Monosemanticity in Toy Models")
START = tm.prediction("Activations at the start are normal, so their number is binomial")
OWN = tm.prediction("The exact loss of outputs that read random directions")
FOUND = tm.finding("found here")
SHARE = 0.9
"""The share of the largest feature from which on a neuron counts as monosemantic."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 64
    dimensions: int = 16
    density: float = 1 / 32
    biases: tuple[float, ...] = (0.0, -0.5, -1.0, -2.0)
    neurons: tuple[int, ...] = (64, 128)
    num_seeds: int = 2
    training: tm.Recipe = tm.Recipe(steps=2500, batch=256, learning_rate=1e-2)


SMOKE = Config(
    num_features=6,
    dimensions=3,
    density=0.2,
    biases=(0.0, -1.0),
    neurons=(6, 12),
    num_seeds=1,
    training=tm.Recipe(steps=3, batch=8, learning_rate=1e-2),
)


def run(config: Config) -> xr.Dataset:
    features, recipe = config.num_features, config.training
    distribution = tm.SparseUniform(features, config.density)

    def cell(key, *, neurons, start_bias):
        key_embed, key_in, key_data, key_fresh = jax.random.split(key, 4)
        embed = jax.random.normal(key_embed, (config.dimensions, features))
        embed = embed / jnp.linalg.norm(embed, axis=0, keepdims=True)
        start = {
            "in": jax.random.normal(key_in, (neurons, config.dimensions)),
            "bias": jnp.full(neurons, 1.0) * start_bias,
            "out": jnp.zeros((features, neurons)),
        }

        def alone(params):  # neurons x features: activations on each feature alone
            return jax.nn.relu(params["in"] @ embed + params["bias"][:, None])

        def loss(params, v):
            hidden = jax.nn.relu(params["in"] @ (embed @ v) + params["bias"])
            return jnp.sum((v - params["out"] @ hidden) ** 2)

        params = tm.fit(key_data, start, loss, distribution.sample, **recipe.settings()).params
        shares = 1 - superposition.neuron_polysemanticity(alone(params))
        active = jnp.any(alone(params) > 0, axis=1)
        fresh = distribution.sample(key_fresh, 20_000)
        return {
            "loss": jnp.mean(jax.vmap(loss, (None, 0))(params, fresh)),
            "share": jnp.sort(jnp.where(active, shares, 0.0)),
            "at_start": jnp.mean(jnp.sum(alone(start) > 0, axis=1)),
        }

    results = tm.sweep(
        cell,
        static={"neurons": config.neurons},
        axes={"start_bias": config.biases},
        num_seeds=config.num_seeds,
        dims={"share": ("neuron",)},
    )
    best = widths.best_random_directions(
        config.density, num_features=features, hidden=config.dimensions
    )
    constant = features * config.density / 3
    return results.assign_attrs(num_features=features, own=best.loss / constant, nothing=constant)


def monosemantic(results: xr.Dataset) -> xr.DataArray:
    """Return the share of the active neurons that are monosemantic."""
    counted = (results["share"] > 0).sum("neuron").clip(min=1)
    return (results["share"] > SHARE).sum("neuron") / counted


def claims(results: xr.Dataset) -> tm.Claims:
    features, biases = int(results.attrs["num_features"]), results["start_bias"].values
    mono = monosemantic(results).mean("seed")
    loss = results["loss"].mean("seed") / results.attrs["nothing"]
    zero, minus = ({"start_bias": value, "method": "nearest"} for value in (0.0, -1.0))
    says = "At the start each neuron is active on n Q(-b) features alone, on average, where b is "
    says += "the bias and Q the upper tail of a standard normal variable, measured by the largest "
    says += "difference."
    expected = xr.DataArray(features * stats.norm.sf(-biases), {"start_bias": biases})
    off = abs(results["at_start"].mean("seed") - expected).max()
    ours = "Ours, because it is four standard errors of the means over neurons."
    yield tm.near(says, 0, off, START, within=0.12 * features**0.5, threshold=ours)
    says = "Biases that start at -1 give more monosemantic neurons than biases that start at 0, "
    says += "measured by the difference of the shares with the most neurons."
    ours = "Ours, because the paper says mostly monosemantic, at larger sizes."
    gain = (mono.sel(**minus) - mono.sel(**zero))[-1]
    note = "The largest feature of most neurons has more than half of the sum, but not nine tenths."
    yield tm.at_least(says, 0.3, gain, JERMYN, threshold=ours, note=note)
    says = "Biases that start at -1 and at 0 give one loss, with the most neurons, measured by the "
    says += "ratio of the two."
    ours = "Ours, because the paper compares curves by eye."
    ratio = (loss.sel(**minus) / loss.sel(**zero))[-1]
    note = "Biases that start at -1 are better: the loss is 15 % lower."
    yield tm.near(says, 1, ratio, JERMYN, within=0.05, threshold=ours, note=note)
    says = "Twice as many neurons give a larger share of monosemantic ones with biases that start "
    says += "at -1, measured by the difference of the shares."
    more = (mono[-1] - mono[0]).sel(**minus)
    yield tm.at_least(says, 0, more, JERMYN)
    says = "Monosemantic neurons are rare if biases start at 0, measured by the largest share over "
    says += "numbers of neurons."
    ours = "Ours, because one in ten is rare."
    yield tm.at_most(says, 0.1, mono.sel(**zero).max(), JERMYN, threshold=ours)
    says = "Biases that start at -2 give more monosemantic neurons than at -1, measured by the "
    says += "ratio of their mean numbers with the most neurons."
    number = (results["share"] > SHARE).sum("neuron").mean("seed")
    gain = (number.sel(start_bias=-2, method="nearest") / number.sel(**minus))[-1]
    ours = "Ours, after the run, because a tenth is more than the difference of two seeds."
    note = "Their share is larger, but only because silent neurons are not counted."
    yield tm.at_least(says, 1.1, gain, FOUND, threshold=ours, note=note)
    says = "Networks with twice as many neurons as features are below the loss of one neuron for "
    says += "each feature that reads its own direction, at the best length and bias, measured by "
    says += "the largest ratio."
    yield tm.at_most(says, 1, loss[-1].max() / results.attrs["own"], OWN)
    says = "The start with the lowest loss gives more monosemantic neurons than biases that start "
    says += "at 0, with the most neurons, measured by the difference of the shares."
    best = mono[-1].isel(start_bias=int(loss[-1].argmin("start_bias"))) - mono[-1].sel(**zero)
    yield tm.at_least(says, 0.1, best, FOUND, threshold="Ours, because a tenth is not chance.")


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(1, 3, size=(9, 3.5))
    draw_shares(axes[0], results)
    mono, loss = monosemantic(results), results["loss"] / results.attrs["nothing"]
    for k, number in enumerate(results["neurons"].values):
        for axis, values in ((axes[1], mono), (axes[2], loss)):
            here = values.sel(neurons=number)
            axis.plot(here["start_bias"], here.transpose("start_bias", "seed"), ".", color=f"C{k}")
            label = f"{number} neurons"
            axis.plot(here["start_bias"], here.mean("seed"), "o-", color=f"C{k}", label=label)
            axis.set_xlabel("bias at the start")
    axes[1].set(ylabel="monosemantic neurons / active ones", ylim=(-0.01, None))
    axes[1].set_title("A negative start gives\nsome monosemantic neurons")
    seeds = f"dots: each of {results.sizes['seed']} seeds"
    axes[1].legend(fontsize=7, title=seeds, title_fontsize=7)
    own = results.attrs["own"]
    axes[2].axhline(own, color="black", ls=":", lw=1, label="a neuron for each feature (exact)")
    axes[2].set(ylabel="loss / loss of 0", ylim=(0, None))
    axes[2].set_title("A negative start\nlowers the loss, too")
    axes[2].legend(fontsize=7)
    return figure


def draw_shares(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the share of the largest feature of every neuron, sorted, with the most neurons."""
    shares = results["share"].isel(neurons=-1, seed=0)
    for k, bias in enumerate(results["start_bias"].values):
        values = shares.sel(start_bias=bias).values
        values = values[values > 0]
        place = np.linspace(0, 1, len(values))
        axes.plot(place, values, color=f"C{k + 2}", label=f"bias {bias:g} at the start")
    axes.axhline(SHARE, color="0.7", lw=0.8)
    axes.set(xlabel="active neurons of the first seed, sorted", ylim=(0, 1.03))
    axes.set_ylabel(f"share of the main feature, {int(results['neurons'][-1])} neurons")
    axes.set_title("A negative start makes the main\nfeature of a neuron larger")
    axes.legend(fontsize=7)


if __name__ == "__main__":
    experiment.main(__file__)
