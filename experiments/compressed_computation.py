r"""Compressed computation: more ReLUs than neurons, but only because of a noisy residual stream.

Claim      A network should compute the ReLU of each feature with half as many neurons as
           features. In the naive solution each neuron serves one feature, and the others get
           nothing. Training seems to find something better, but only because a random embedding
           adds a mixing matrix to the residual stream. Without the matrix training does not beat
           the naive solution, and a network that was trained with the matrix is worse than the
           naive one on the clean task.
Reproduces Braun et al. (2025), the residual network, and its explanation by the mixing matrix
           (arXiv 2606.14673). Half the size of the paper's 100 features, 50 neurons and 1000
           dimensions, with its ratios and its one active feature on average.
Selection  None: all seeds are shown; the curves are those of the first seed.
Scale      The squared error, summed over features, divided by the mean number of active features.
           It is 1/12 for the naive solution, which is right for half of the features.
Command    toymodels run experiments/compressed_computation.py
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting

PAPER = tm.paper("arXiv 2606.14673: compressed computation is not computation in superposition")
FIRST = tm.paper("Braun et al. (2025), Attribution-based Parameter Decomposition")
NAIVE = 1 / 12
"""The loss of the naive solution: half of the features have the squared error E ReLU(x)^2 = 1/6."""
HALF = tm.identity("Half of 1/6")
NOISE = tm.prediction("E |M x|^2 = E x^2 (n - 1) / D for unit rows")
FOUND = tm.finding("found here")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 50
    neurons: int = 25
    dimensions: int = 500
    """The dimensions of the residual stream."""
    active: float = 1.0
    """The active features of an example, on average."""
    scales: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    """Factors of the mixing matrix; the random embedding has 1."""
    num_seeds: int = 2
    weight_decay: float = 0.01
    training: tm.Recipe = tm.Recipe(steps=3000, batch=512, learning_rate=3e-3)


SMOKE = Config(
    num_features=6,
    neurons=3,
    dimensions=20,
    num_seeds=1,
    training=tm.Recipe(steps=5, batch=16, learning_rate=3e-3),
)


def residual(params, x) -> Any:
    """Return what the neurons add to one feature vector, U ReLU(V x)."""
    return params["out"] @ jax.nn.relu(params["in"] @ x)


def cell(key, scale, config: Config) -> dict[str, Any]:
    """Train one network beside a mixing matrix, and look at it with and without the matrix."""
    count, per = config.num_features, config.active
    key_rows, key_in, key_out, key_data = jax.random.split(key, 4)
    rows = jax.random.normal(key_rows, (count, config.dimensions))
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    mixing = rows @ rows.T - jnp.eye(count)
    features = tm.SomeActive(count, per / count)
    params = {
        "in": jax.random.normal(key_in, (config.neurons, count)) * count**-0.5,
        "out": jax.random.normal(key_out, (count, config.neurons)) * config.neurons**-0.5,
    }

    def loss(factor):
        """Return the loss of one example beside `factor` times the mixing matrix."""

        def of_example(params, x):
            error = jax.nn.relu(x) - factor * (mixing @ x) - residual(params, x)
            return features.probability / per * jnp.sum(error**2)

        return of_example

    recipe = config.training
    how = recipe.settings(weight_decay=config.weight_decay)
    params = tm.fit(key_data, params, loss(scale), features.sample, **how).params

    def evaluated(params, factor):
        common = jax.random.key(2022)
        return tm.evaluate(
            common, params, loss(factor), features.sample, batch=1024, examples=2**16
        )

    def responses(value):
        """Return what the neurons add to each output if its feature alone has this value."""
        return jnp.diagonal(jax.vmap(lambda one: residual(params, value * one))(jnp.eye(count)))

    _, vectors = jnp.linalg.eigh(mixing)
    top = vectors[:, -config.neurons :]
    inputs = jnp.linspace(-1, 1, 41)
    naive = {"in": jnp.eye(config.neurons, count), "out": jnp.eye(count, config.neurons)}
    return {
        "loss": evaluated(params, scale),
        "clean": evaluated(params, 0.0),
        "naive": evaluated(naive, 0.0),
        "naive_mixed": evaluated(naive, scale),
        "overlap": jnp.sum((params["in"] @ top) ** 2) / jnp.sum(params["in"] ** 2),
        "response": jax.vmap(responses)(inputs),
        "input": inputs,
    }


def run(config: Config) -> xr.Dataset:
    results = tm.sweep(
        lambda key, *, scale: cell(key, scale, config),
        axes={"scale": config.scales},
        num_seeds=config.num_seeds,
        dims={"response": ("input", "feature"), "input": ("input",)},
    )
    noise = (config.num_features - 1) / config.dimensions / 3
    return results.assign_attrs(noise=noise, neurons=config.neurons)


def claims(results: xr.Dataset) -> tm.Claims:
    loss, clean = results["loss"], results["clean"]

    def at(values, scale):
        return values.sel(scale=scale, method="nearest")

    says = "The naive solution, in which each neuron serves one feature, has the loss 1/12 per "
    says += "active feature without mixing, on average over seeds."
    ours = "Ours, because it is several standard errors of 65,536 examples."
    yield tm.near(says, NAIVE, results["naive"].mean(), HALF, within=1e-3, threshold=ours)
    says = "The mixing matrix M of a random embedding adds E |M x|^2 per active feature to the "
    says += "loss of the naive solution, on average over seeds."
    added = (at(results["naive_mixed"], 1) - at(results["naive"], 1)).mean()
    random = "Ours, because the matrices are random."
    yield tm.near(says, results.attrs["noise"], added, NOISE, within=0.004, threshold=random)
    says = "With the mixing matrix of a random embedding, training beats the 1/12 of the naive "
    says += "solution, measured by the largest loss per active feature over seeds."
    yield tm.at_most(says, NAIVE, at(loss, 1).max(), FIRST)
    says = "With the mixing matrix of a random embedding, training reaches a loss per active "
    says += "feature of 0.0675, on average over seeds."
    steps = "Ours, because an earlier run at the size of the paper gave it after 6000 steps."
    earlier = tm.finding("an earlier run of ours, with 100 features")
    yield tm.near(says, 0.0675, at(loss, 1).mean(), earlier, within=0.004, threshold=steps)
    says = "Without a mixing matrix, training does not beat the 1/12 of the naive solution, "
    says += "measured by the lowest loss per active feature over seeds."
    small = "Ours, because it is several standard errors of 65,536 examples."
    yield tm.at_least(says, NAIVE, at(loss, 0).min(), PAPER, slack=1e-3, threshold=small)
    says = "Without a mixing matrix, training reaches a loss per active feature of 0.0835, on "
    says += "average over seeds."
    yield tm.near(says, 0.0835, at(loss, 0).mean(), earlier, within=0.002, threshold=steps)
    says = "Networks that were trained with the mixing matrix are worse than the naive solution "
    says += "without it, measured by the lowest loss per active feature over seeds."
    yield tm.at_least(says, NAIVE, at(clean, 1).min(), PAPER)
    says = "Training with half of the mixing matrix reaches no lower loss than with the whole "
    says += "matrix, measured by the ratio of the mean losses."
    yield tm.at_least(says, 1, at(loss, 0.5).mean() / at(loss, 1).mean(), PAPER)
    says = "With twice the mixing matrix of a random embedding, training does not beat the 1/12 of "
    says += "the naive solution, measured by the lowest loss per active feature over seeds."
    yield tm.at_least(says, NAIVE, at(loss, 2).min(), PAPER)
    says = "Neurons read the half of the eigenvectors of the mixing matrix M that has the largest "
    says += "eigenvalues, measured by the mean share of their squared weights."
    chance = "Ours, because chance gives 1/2."
    low = "Neurons read the other half: they have to add ReLU(x) - M x, and -M is positive along "
    low += "the eigenvectors with the lowest eigenvalues of M."
    share = at(results["overlap"], 1).mean()
    yield tm.at_least(says, 0.6, share, PAPER, threshold=chance, note=low)
    says = "Without mixing, half of the features have a response above 1/2 to an input of 1, as if "
    says += "each neuron served one feature, measured by the share of features over all seeds."
    ends = at(results["response"], 0).isel(input=-1)
    tenth = "Ours, because training may leave some neurons with two features."
    yield tm.near(says, 1 / 2, (ends > 0.5).mean(), FOUND, within=0.1, threshold=tenth)
    says = "Without mixing, many features have a response to an input of 1 that is near neither 0 "
    says += "nor 1, although the loss is that of neurons that serve one feature each, measured by "
    says += "the share of features over all seeds with a response between 1/4 and 3/4."
    seen = "Ours, set after the first run, in which neurons did not serve one feature each."
    between = (ends > 0.25) & (ends < 0.75)
    yield tm.at_least(says, 0.5, between.mean(), FOUND, threshold=seen)
    says = "With the mixing matrix of a random embedding, more features get a response than there "
    says += "are neurons, measured by the share of features over all seeds whose response to an "
    says += "input of 1 is above 1/4."
    several = at(results["response"], 1).isel(input=-1) > 0.25
    most = "Ours, because it is more than one feature for each neuron."
    yield tm.at_least(says, 0.6, several.mean(), FIRST, threshold=most)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (curve, mixed, clean) = plotting.figure(1, 3, size=(9, 3.6), width_ratios=(1.4, 1, 1))
    for name, label in (("loss", "with the matrix it had"), ("clean", "without the matrix")):
        plotting.every_seed(curve, results[name], x="scale", label=label, legend=False)
    curve.axhline(NAIVE, color="black", ls="--", lw=1, label="naive, 1/12")
    curve.set(xlabel="mixing matrix in training, times", ylabel="loss / active feature")
    curve.set(title="The matrix makes the gain,\nand only the matrix", ylim=(0.05, 0.2))
    curve.legend(fontsize=7, loc="upper left")
    titles = {
        1: "trained with it:\nmany responses, all partial",
        0: "trained without it:\nstrong and weak ones",
    }
    for axes, (scale, title) in zip((mixed, clean), titles.items(), strict=True):
        part = results["response"].sel(scale=scale, method="nearest").isel(seed=0)
        x = part["input"].values
        axes.plot(x, part.transpose("input", "feature"), color="C0", lw=0.7, alpha=0.6)
        axes.plot([], [], color="C0", lw=0.7, label="each feature")
        axes.plot(x, np.maximum(x, 0), color="black", ls="--", lw=1.2, label="target ReLU")
        axes.set(xlabel="input $x_i$", ylim=(-0.35, 1.1), title=title)
        axes.legend(fontsize=7, loc="upper left")
    mixed.set_ylabel("what neurons add to output $i$")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
