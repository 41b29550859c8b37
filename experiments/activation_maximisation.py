"""Activation maximisation: the input that a neuron looks for, and what the data hold of it.

Claim      The input that excites a polysemantic neuron most holds all its features at once. Sparse
           data hold one of them at a time, so the maximum is an input that never occurs, and the
           examples that excite the neuron most show fewer of its features.
Reproduces No figure of a paper. Activation maximisation is that of Erhan et al. (2009),
           "Visualizing Higher-Layer Features of a Deep Network". The closed form is derived here.
Settings   Models with a ReLU on the hidden layer have 8 features of importance 0.9^i in 4 neurons.
           A penalty on the input keeps features of small weight at 0.
Selection  All seeds. The picture of neurons shows the seed of lowest loss.
Command    toymodels run experiments/activation_maximisation.py
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import visualization

BOX = tm.prediction("The features whose weight exceeds the penalty, all at 1")
EXPECTED = tm.prediction("A feature with a dimension of its own may have a neuron of its own")
FOUND = tm.finding("first measured here")
ROUNDING = "Ours, because of rounding."
ROUND = "Ours, because it is a round number."
MIXED = (
    "Neurons mix features also where every represented feature has a dimension of its own: turning "
    "the neurons costs little if all features are present and keep them active."
)
FEATURES, HIDDEN = 8, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (1.0, 0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.04, 0.02)
    num_seeds: int = 6
    penalty: float = 0.2
    shown: int = 1000
    """The number of examples among which the most exciting ones are found."""
    training: tm.Recipe = tm.Recipe(steps=3000, batch=512, learning_rate=1e-2)


SMOKE = Config(
    densities=(1.0, 0.1),
    num_seeds=2,
    shown=50,
    training=tm.Recipe(steps=30, batch=64, learning_rate=1e-2),
)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    def cell(key, *, density):
        _, key_train, _, key_examples = jax.random.split(key, 4)
        importance = tm.geometric_importance(FEATURES, 0.9)
        task = tm.Task(tm.SparseUniform(FEATURES, density), importance=importance)
        trained = config.training.train(key_train, tm.ReLUHidden(HIDDEN), task)
        found = units(key_examples, config, trained.params["weights"], task.features)
        return {**found, "loss": trained.loss}

    own = dict.fromkeys(("mixed", "present", "gain", "ascent_error"), ("unit",))
    dims = {**own, "weights": ("unit", "feature"), "curves": ("feature", "unit", "value")}
    axes, seeds = {"density": config.densities}, config.num_seeds
    return tm.sweep(cell, axes=axes, num_seeds=seeds, dims=dims, store=store)


def units(key, config: Config, weights, features) -> dict[str, jax.Array]:
    """Find what excites each hidden neuron most, on the box of the data and in the data."""
    model, bias = tm.ReLUHidden(HIDDEN), jnp.zeros(FEATURES)
    examples = features.sample(key, config.shown)

    def hidden(x):
        return tm.activations(model, {"weights": weights, "bias": bias}, x)["hidden"]

    def one(row, unit):
        top = visualization.maximally_activating_examples(lambda x: hidden(x)[unit], examples, 10)
        exact = visualization.linear_activation_maximum(row, penalty=config.penalty)
        found = visualization.activation_maximum(
            lambda x: hidden(x)[unit],
            examples[top.indices[0]],
            penalty=config.penalty,
            learning_rate=1.0,
        )
        clear = jnp.abs(row - config.penalty) > 0.02
        largest = jnp.max(row)
        return {
            "ascent_error": jnp.max(jnp.abs(found - exact) * clear) * (largest > config.penalty),
            "mixed": jnp.sum(exact),
            "present": jnp.mean(jnp.sum((examples[top.indices] > 0) * exact[None, :], axis=1)),
            "gain": row @ exact / largest,
        }

    found = jax.vmap(one)(weights, jnp.arange(HIDDEN))
    curves = visualization.response_curves(hidden, FEATURES, jnp.linspace(0, 1, 11))
    return {**found, "weights": weights, "curves": curves}


def claims(results: xr.Dataset) -> tm.Claims:
    says = "Gradient ascent finds the input that excites each neuron most, which has a closed "
    says += "form, measured by the largest error."
    yield tm.near(says, 0, results["ascent_error"].max(), BOX, within=1e-3, threshold=ROUNDING)
    alive = results[["mixed", "present", "gain"]].where(results["mixed"] > 0)
    mean = alive.mean(("seed", "unit"))
    dense, sparse = mean.sel(density=1), mean.sel(density=results.density.min())
    says = "At density 1, without superposition, the input that excites a neuron most holds one "
    says += "feature, measured by the mean over neurons."
    yield tm.near(says, 1, dense["mixed"], EXPECTED, within=0.1, threshold=ROUND, note=MIXED)
    says = "At the lowest density the input that excites a neuron most holds several features, "
    says += "measured by the mean over neurons."
    yield tm.at_least(says, 1.5, sparse["mixed"], FOUND, threshold=ROUND)
    says = "At the lowest density the ten of 1,000 examples that excite a neuron most hold fewer "
    says += "of its features than the input that excites it most, measured by the ratio of means."
    yield tm.at_most(says, 0.8, sparse["present"] / sparse["mixed"], FOUND, threshold=ROUND)
    says = "At the lowest density the input that excites a neuron most excites it more than any "
    says += "one feature does, measured by the mean ratio."
    yield tm.at_least(says, 1.3, sparse["gain"], FOUND, threshold=ROUND)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (neurons, maximum) = plotting.figure(1, 2, size=(7.4, 3.4))
    draw_neurons(neurons, tm.best_of(results, "loss").sel(density=results.density.min()))
    alive = results.where(results["mixed"] > 0)[["mixed", "present"]].mean("unit")
    for number, (name, label) in enumerate(
        {"mixed": "at the maximum", "present": "in the top ten of 1,000 examples"}.items()
    ):
        plotting.every_seed(maximum, alive[name], x="density", label=label, color=f"C{number}")
    plotting.density_axis(maximum)
    maximum.set(ylabel="features of the neuron present", ylim=(0, 6))
    maximum.set_title("The maximum of a neuron holds\nmore features than sparse data")
    return figure


def draw_neurons(axes, results: xr.Dataset) -> None:
    """Draw the response of every neuron to every feature as a grid of small curves."""
    curves = results["curves"].transpose("unit", "feature", "value").values
    across = np.linspace(0, 0.8, curves.shape[2])
    for (unit, feature), height in np.ndenumerate(np.max(curves, axis=2)):
        color = "C0" if height > 0.2 else "0.75"
        curve = unit + 0.8 * curves[unit, feature] / curves.max()
        axes.fill_between(feature + across, unit, curve, color=color, alpha=0.5, lw=0)
        axes.plot(feature + across, curve, color=color, lw=1.2)
    axes.set_xticks(np.arange(FEATURES) + 0.4, labels=range(FEATURES))
    axes.set_yticks(np.arange(HIDDEN) + 0.3, labels=range(HIDDEN))
    axes.set(xlabel="feature", ylabel="neuron")
    axes.set_title("Each neuron responds to several\nfeatures (lowest density, best seed)")
    axes.tick_params(length=0)


if __name__ == "__main__":
    experiment.main(__file__)
