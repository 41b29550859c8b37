r"""Trained universal AND: networks find a dense circuit of signs, and beat random neurons.

Claim      Training a narrow layer to compute the ANDs of all pairs of sparse inputs finds dense
           neurons, which read nearly every input with one size and either sign. Trained neurons
           have a lower error than neurons with random signs or random subsets of inputs, all under
           the best linear read-out. Random signs have a lower error than random subsets only with
           more than about twice as many neurons as inputs.
Reproduces Newgas (2025), the dense circuit and its classes of neurons; sizes and loss are ours.
Selection  None: all seeds are shown. Random neurons: the mean over `networks` networks; subsets
           have the best of `shares`. The matrix shows the seed of the lowest error.
Scale      An error is a mean squared error in which pairs with 0, 1 and 2 inputs that are 1 have
           equal weights. It is 1/18 for the best linear function of the inputs.
Command    toymodels run experiments/universal_and_trained.py
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import universal_and as theory

NEWGAS = tm.paper("Newgas (2025), Dense Circuits in a Toy Model of the Universal-AND Problem")
PROJECTION = tm.identity("Projection of (0, 0, 1) on (1, 1, 1) and (0, 1, 2)")
FOUND = tm.finding("found here")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    inputs: int = 16
    active: int = 3
    neurons: tuple[int, ...] = (8, 12, 16, 24, 32, 48)
    num_seeds: int = 3
    steps: int = 3000
    learning_rate: float = 1e-2
    networks: int = 3
    """The number of random networks over which an error is averaged."""
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)
    """The shares of inputs of which random subsets have the best."""


SMOKE = Config(inputs=6, neurons=(4, 12), num_seeds=1, steps=5, networks=1, shares=(0.3, 0.5))


class Examples:
    """Every input vector in which `active` of the inputs are 1, and the ANDs of all pairs."""

    def __init__(self, inputs: int, active: int):
        chosen = itertools.combinations(range(inputs), active)
        self.x = np.array([np.isin(np.arange(inputs), each) for each in chosen], np.float32)
        self.first, self.second = np.triu_indices(inputs, 1)
        self.pair = (self.x[:, self.first] + self.x[:, self.second]).astype(int)
        self.weight = len(self.x) / 3 / np.bincount(self.pair[:, 0], minlength=3)

    def best_error(self, hidden) -> float:
        """Return the error of the best linear read-out of all neurons, with an offset."""
        columns = np.hstack([hidden, np.ones((len(hidden), 1))]).astype(float)
        ridge, total = 1e-9 * np.eye(columns.shape[1]), 0.0
        for pair in self.pair.T:
            weighted = columns * self.weight[pair][:, None]
            target = (pair == 2).astype(float)
            fit = np.linalg.solve(weighted.T @ columns + ridge, weighted.T @ target)
            total += np.mean(self.weight[pair] * (target - columns @ fit) ** 2)
        return total / self.pair.shape[1]


def train(key, neurons: int, examples: Examples, config: Config) -> dict:
    """Train one hidden layer and a linear read-out of all ANDs on every input vector."""
    inputs, pairs = examples.x.shape[1], examples.pair.shape[1]

    def loss(params, x):
        hidden = jax.nn.relu(params["weights_in"] @ x + params["bias"])
        outputs = params["weights_out"] @ hidden + params["offset"]
        pair = x[examples.first] + x[examples.second]
        one, two = pair == 1, pair == 2
        weight = jnp.where(two, examples.weight[2], examples.weight[1])
        weight = jnp.where(one | two, weight, examples.weight[0])
        return jnp.mean(weight * (outputs - jnp.where(two, 1.0, 0.0)) ** 2)

    key_in, key_out, key_data = jax.random.split(key, 3)
    params = {
        "weights_in": jax.random.normal(key_in, (neurons, inputs)) * inputs**-0.5,
        "bias": jnp.zeros(neurons),
        "weights_out": jax.random.normal(key_out, (pairs, neurons)) * neurons**-0.5,
        "offset": jnp.zeros(pairs),
    }
    recipe = tm.Recipe(
        steps=config.steps, batch=len(examples.x), learning_rate=config.learning_rate
    )
    every = jnp.asarray(examples.x)
    params = tm.fit(key_data, params, loss, lambda *_: every, **recipe.settings()).params
    final = jnp.mean(jax.vmap(loss, (None, 0))(params, every))
    return {"trained": final, **{name: params[name] for name in ("weights_in", "weights_out")}}


def run(config: Config) -> xr.Dataset:
    examples = Examples(config.inputs, config.active)

    def cell(key, *, neurons):
        return train(key, neurons, examples, config)

    dims = {"weights_in": ("neuron", "input"), "weights_out": ("pair", "neuron")}
    trained = tm.sweep(
        cell, static={"neurons": config.neurons}, num_seeds=config.num_seeds, dims=dims
    )
    random = np.random.default_rng(2)

    def read(neurons: int, share: float, other: float, bias: float) -> float:
        errors = []
        for _ in range(config.networks):
            members = random.random((neurons, config.inputs)) < share
            hidden = np.maximum(examples.x @ np.where(members, 1.0, other).T + bias, 0)
            errors.append(examples.best_error(hidden))
        return float(np.mean(errors))

    subsets = [min(read(d, *theory.subsets(p)) for p in config.shares) for d in config.neurons]
    trained["subsets"] = ("neurons", subsets)
    trained["signs"] = ("neurons", [read(d, *theory.signs()) for d in config.neurons])
    trained["linear"] = examples.best_error(examples.x)
    return trained.assign_attrs(num_inputs=config.inputs, active=config.active)


def dense(weights_in, weights_out) -> dict[str, Any]:
    """Measure how dense one network is, and how much of its read-out classes of neurons explain.

    For each pair of inputs a neuron is in class A, B or C: both of its weights from the pair are
    positive, or one is, or none. The classes explain the read-out as far as all pairs of a class
    have one weight from the neuron.

    Args:
        weights_in: neurons x inputs.
        weights_out: neurons x pairs.
    """
    sizes = jnp.abs(weights_in)
    inputs = weights_in.shape[1]
    first, second = np.triu_indices(inputs, 1)
    positive = jnp.where(weights_in > 0, 1.0, 0.0)
    number_positive = positive[:, first] + positive[:, second]  # 2, 1 or 0: class A, B or C
    classes = jnp.stack([number_positive == number for number in range(3)])
    means = jnp.sum(classes * weights_out, axis=2) / jnp.maximum(classes.sum(axis=2), 1)
    fitted = jnp.sum(classes * means[:, :, None], axis=0)
    unexplained = jnp.sum((weights_out - fitted) ** 2) / jnp.sum(
        (weights_out - weights_out.mean(axis=1, keepdims=True)) ** 2
    )
    return {
        "dense": jnp.mean(sizes > 0.2 * sizes.max(axis=1, keepdims=True)),
        "explained": 1 - unexplained,
    }


def claims(results: xr.Dataset) -> tm.Claims:
    says = "The best linear function of the inputs has the error 1/18."
    yield tm.near(says, theory.LINEAR_ERROR, results["linear"], PROJECTION, within=1e-6)
    says = "Trained networks with twice as many neurons as inputs have a lower error than the best "
    says += "linear function, measured by the largest ratio of the errors over seeds."
    twice = results["trained"].sel(neurons=2 * results.attrs["num_inputs"], method="nearest")
    yield tm.at_most(says, 1, twice.max() / theory.LINEAR_ERROR, FOUND)
    says = "Trained networks have a lower error than random signs under the best read-out at every "
    says += "width, measured by the largest ratio of the errors over widths and seeds."
    yield tm.at_most(says, 1, (results["trained"].max("seed") / results["signs"]).max(), FOUND)
    says = "Random signs have a lower error than random subsets of the best share at every width, "
    says += "both under the best read-out, measured by the largest ratio of the errors."
    note = "Subsets are better with fewer than about twice as many neurons as inputs."
    ratio = (results["signs"] / results["subsets"]).max()
    yield tm.at_most(says, 1, ratio, FOUND, note=note)
    says = "Trained networks with fewer neurons than inputs have a higher error than the best "
    says += "linear function, measured by the smallest ratio of the errors over widths and seeds."
    few = results["trained"].where(results["neurons"] < results.attrs["num_inputs"], drop=True)
    yield tm.at_least(says, 1, few.min() / theory.LINEAR_ERROR, FOUND)
    says = "All seeds end in circuits of nearly the same error, measured by the largest range over "
    says += "seeds at one width, relative to their mean."
    trained = results["trained"]
    spread = (trained.max("seed") - trained.min("seed")) / trained.mean("seed")
    small = "Ours, because it is small beside the gain of training."
    yield tm.at_most(says, 0.05, spread.max(), FOUND, threshold=small)
    widest = results[["weights_in", "weights_out"]].isel(neurons=-1)
    measured = tm.apply(dense, widest["weights_in"], widest["weights_out"])
    says = "The trained circuit is dense at the largest width, measured by the mean share of the "
    says += "inputs of a neuron whose weight is above a fifth of its largest one."
    half = "Ours, because a neuron for one pair would have two inputs, and the paper says all."
    yield tm.at_least(says, 0.5, measured["dense"].mean(), NEWGAS, threshold=half)
    says = "The signs of the weights from a pair to a neuron explain most of the weights with "
    says += "which the AND of the pair reads the neuron, measured by the share of their variance "
    says += "at the largest width."
    half = "Ours, because the paper names the classes and gives no share."
    yield tm.at_least(says, 0.5, measured["explained"].mean(), NEWGAS, threshold=half)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (axes, matrix) = plotting.figure(1, 2, size=(9, 3.7), width_ratios=(1, 1.7))
    plotting.every_seed(axes, results["trained"], x="neurons", label="trained", legend=False)
    axes.plot(results["neurons"], results["signs"], "s-", ms=3, color="C2", label="random signs")
    axes.plot(
        results["neurons"], results["subsets"], "^-", ms=3, color="C1", label="random subsets"
    )
    axes.axhline(theory.LINEAR_ERROR, color="0.5", ls="--", lw=1, label="linear, 1/18")
    axes.set(yscale="log", xlabel="neurons $d$", ylabel="squared error, best read-out")
    plotting.plain_ticks(axes, "y", (0.02, 0.03, 0.05, 0.07, 0.1))
    axes.set_title(
        f"Training beats random neurons\n({results.attrs['num_inputs']} inputs, 3 are 1)"
    )
    axes.legend(fontsize=7)
    seed = int(results["trained"].isel(neurons=-1).values.argmin())
    weights = results["weights_in"].isel(neurons=-1, seed=seed).values
    weights = weights / abs(weights).max(axis=1, keepdims=True)
    # Dense neurons, whose weights are all about equally large, come first.
    order = np.argsort(-abs(weights).mean(axis=1))
    image = plotting.signed_matrix(matrix, weights[order].T)
    plotting.color_bar(image, "weight / largest of the neuron", axes=matrix, shrink=0.6)
    matrix.set(xlabel=f"{len(order)} trained neurons, dense ones first", ylabel="inputs")
    matrix.set_title("Trained neurons read nearly every input,\nwith a sign and one size")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
