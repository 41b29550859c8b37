r"""Incidental polysemanticity: neurons are shared although each feature could have its own.

Claim      An L1 penalty leaves each feature one weight. If two features happen to choose one
           neuron, they keep it if their signs are opposite, because the ReLU hides them from each
           other; equal signs repel. So nearly n^2 / 4m neurons are shared, even with as many
           neurons m as features n. This is some 17 % fewer than if all distinct choices were
           equally likely, and more than if choices were independent, without repulsion. A lone
           feature keeps the largest weight of its start; one of many features often does not.
Reproduces Lecomte et al. (2023), the number of polysemantic neurons and the sparsification; the
           exact number and the curve of the norm are derived here.
Selection  None: all seeds are shown. The matrix shows the first seed.
Settings   n one-hot inputs, gradient descent on the sum of their squared errors plus the penalty;
           sizes are smaller than the paper's 256 features. A weight counts if it is above 1/2.
Command    toymodels run experiments/incidental_polysemanticity.py
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import incidental as theory

LECOMTE = tm.paper("Lecomte et al. (2023), Incidental Polysemanticity")
PLACES = tm.prediction("Features at random distinct places, each a neuron and a sign")
THRESHOLD = tm.prediction("A lone feature is its start after soft thresholding")
STATIONARY = tm.prediction("(1 - w^2)^2 + penalty * w is lowest at 4 w (1 - w^2) = penalty")
FOUND = tm.finding("found here")
FOUR = "Ours, because it is four standard errors of the seeds."
BIG = 0.5
"""A weight is big if its absolute value is above this; a feature alone in a neuron has about 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 32
    neurons: tuple[int, ...] = (32, 64, 128, 256)
    penalty: float = 0.03
    num_seeds: int = 64
    steps: int = 3000
    learning_rate: float = 0.05
    """The time of gradient flow for each step."""


SMOKE = Config(num_features=4, neurons=(4, 8), num_seeds=2, steps=10)


def train(key, num_features: int, neurons: int, config: Config) -> dict[str, Any]:
    """Train one model, and return its weights and their norms on the way."""
    model = tm.Tied(hidden=neurons, use_bias=False)
    start = jax.random.normal(key, (neurons, num_features)) * neurons**-0.5
    every = jnp.eye(num_features)

    def loss(params, x):
        error = jnp.sum((x - model.apply({"params": params}, x)) ** 2)
        return num_features * error + config.penalty * jnp.sum(jnp.abs(params["weights"]))

    optimizer, kept = optax.sgd(config.learning_rate), tm.log_spaced(config.steps, 20)
    how = {"steps": config.steps, "batch": num_features, "snapshots": kept}
    params = {"weights": start}
    trained = tm.fit(key, params, loss, lambda *_: every, optimizer=optimizer, **how)
    weights, path = trained.params["weights"], trained.snapshots["weights"]
    chosen = [jnp.argmax(jnp.abs(each), axis=0) for each in (start, weights)]
    return {
        "weights": weights,
        "start": start,
        "norm": jnp.mean(jnp.abs(path).sum(axis=1) / jnp.linalg.norm(path, axis=1), axis=1),
        "first_wins": jnp.mean(chosen[0] == chosen[1]),
        "square": jnp.mean(jnp.sum(weights**2, axis=0)),
    }


def run(config: Config) -> xr.Dataset:
    dims = {"weights": ("neuron", "feature"), "norm": ("snapshot",)}

    def many(key, *, neurons):
        found = train(key, config.num_features, neurons, config)
        return {name: value for name, value in found.items() if name != "start"}

    def alone(key):
        return train(key, 1, max(config.neurons), config)

    sweep = {"num_seeds": config.num_seeds, "dims": dims}
    results = tm.sweep(many, static={"neurons": config.neurons}, **sweep)
    lone_dims = {**dims, "weights": ("place", "one"), "start": ("place", "one")}
    lone = tm.sweep(alone, num_seeds=config.num_seeds, dims=lone_dims)
    for name in ("norm", "first_wins", "square"):
        results[f"lone_{name}"] = lone[name]
    time = np.array(tm.log_spaced(config.steps, 20)) * config.learning_rate
    results["time"] = ("snapshot", time)
    starts = lone["start"].isel(one=0).transpose("seed", ...).values
    curves = [theory.sparsified(each, time, config.penalty).norm for each in starts]
    results["lone_exact"] = (("seed", "snapshot"), curves)
    names = ("num_features", "penalty", "learning_rate")
    return results.assign_attrs({name: getattr(config, name) for name in names})


def shared(weights) -> dict[str, Any]:
    """Count the neurons with several big weights, and the features with one, of one model."""
    above, below = (weights > BIG).sum(axis=1), (weights < -BIG).sum(axis=1)
    return {
        "shared": jnp.sum(above + below > 1) + 0.0,
        "opposite": jnp.sum((above == 1) & (below == 1)) + 0.0,
        "one_big": jnp.mean((jnp.abs(weights) > BIG).sum(axis=0) == 1),
    }


def claims(results: xr.Dataset) -> tm.Claims:
    features, penalty = int(results.attrs["num_features"]), results.attrs["penalty"]
    found = tm.apply(shared, results["weights"])
    neurons, counts = results["neurons"].values.astype(int), found["shared"]
    mean, error = counts.mean("seed"), counts.std("seed") / counts.sizes["seed"] ** 0.5
    exact = np.array([theory.collisions(features, int(m)) for m in neurons])
    free = np.array([theory.collisions_without_repulsion(features, int(m)) for m in neurons])

    says = "As many neurons are shared as if features had random distinct places, at every width, "
    says += "measured by the largest difference of the means in standard errors."
    off = abs(mean - exact) / error.clip(min=1e-9)
    note = "Fewer are shared at every width. It was three standard errors with the first 24 seeds."
    yield tm.near(says, 0, off.max(), PLACES, within=4, threshold=FOUR, note=note)
    says = "The number of shared neurons is n^2 / 4m for n features and m neurons at every width, "
    says += "measured by the largest relative difference of the means over seeds."
    ours = "Ours, because the paper shows the curve; it was two standard errors of 24 seeds."
    off = abs(mean / (features**2 / 4 / neurons) - 1).max()
    yield tm.near(says, 0, off, LECOMTE, within=0.3, threshold=ours)
    says = "Fewer neurons are shared than if features had random distinct places, measured by the "
    says += "ratio of the two numbers, each summed over widths."
    tenth = "Ours, because it is five standard errors below 1."
    yield tm.at_most(says, 0.9, mean.sum() / exact.sum(), FOUND, threshold=tenth)
    says = "The number of shared neurons falls as the number of neurons to the power -1."
    slope = np.polyfit(np.log(neurons), np.log(mean.clip(min=1e-9)), 1)[0]
    ours = "Ours, because the widest models have one shared neuron each."
    yield tm.near(says, -1, slope, LECOMTE, within=0.15, threshold=ours)
    says = "With as many features as neurons, more neurons are shared than if features did not "
    says += "repel each other, measured by the ratio of the mean over seeds to the number without "
    says += "repulsion."
    ours = "Ours, because distinct places give 1.59."
    yield tm.at_least(says, 1.3, mean[0] / free[0], FOUND, threshold=ours)
    says = "Shared neurons have exactly two features, of opposite signs, measured by the share of "
    says += "all shared neurons of all models."
    share = found["opposite"].sum() / counts.sum()
    yield tm.at_least(says, 0.95, share, LECOMTE, threshold="Ours, because the paper says all.")
    says = "Features end with exactly one weight above 1/2 in size, measured by the mean share of "
    says += "features over all models."
    nearly = "Ours, because training has not converged entirely."
    yield tm.at_least(says, 0.95, found["one_big"].mean(), LECOMTE, threshold=nearly)

    says = "A lone feature ends with its largest weight at the neuron where it was largest at the "
    says += "start, measured by the share of seeds."
    yield tm.near(says, 1, results["lone_first_wins"].mean(), THRESHOLD, within=0)
    says = "Most of many features end with their largest weight at another neuron than where it "
    says += "was largest at the start, with as many neurons as features, measured by the share of "
    says += "features that end at the same neuron."
    half = "Ours, because most features are more than half of them."
    yield tm.at_most(says, 0.5, results["first_wins"][0].mean(), FOUND, threshold=half)
    says = "The sum of absolute weights of a lone feature, divided by its length, is that of soft "
    says += "thresholding at all times, measured by the largest relative difference over seeds and "
    says += "times."
    off = abs(results["lone_norm"] / results["lone_exact"] - 1).max()
    longer = "Ours, because the penalty shortens the weights by up to 5 %, and time with them."
    note = "It holds until the weights that have died, which jump around 0, add up to as much."
    yield tm.near(says, 0, off, THRESHOLD, within=0.05, threshold=longer, note=note)
    says = "The sum of absolute weights of a lone feature, divided by its length, ends above 1 by "
    says += "m * penalty * step / 2, because each of the m dead weights jumps around 0."
    jumps = tm.prediction("1 + m * penalty * step / 2")
    excess = neurons[-1] * penalty * results.attrs["learning_rate"] / 2
    end = results["lone_norm"].isel(snapshot=-1).mean()
    size = "Ours, because the two sizes of a jumping weight are only half of a step on average."
    yield tm.near(says, 1 + excess, end, jumps, within=0.03, threshold=size)
    says = "The estimate of the paper for the sum of absolute weights, divided by the length, is "
    says += "too large at the start, measured by the ratio of the sum of a lone feature to the "
    says += "estimate."
    ratio = results["lone_norm"].mean("seed")[0] / neurons[-1] ** 0.5
    normal = tm.prediction("The mean size of a normal variable, sqrt(2 / pi)")
    errors = "Ours, because it is four standard errors."
    yield tm.near(says, (2 / np.pi) ** 0.5, ratio, normal, within=0.04, threshold=errors)
    says = "A lone feature ends with the squared length 1 - penalty / 4, on average over seeds."
    second = "Ours, because terms of second order are left out."
    square = results["lone_square"].mean()
    yield tm.near(says, 1 - penalty / 4, square, STATIONARY, within=penalty**2, threshold=second)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (matrix, counts, norms) = plotting.figure(1, 3, size=(9, 3.7))
    draw_matrix(matrix, results)
    features = int(results.attrs["num_features"])
    found = tm.apply(shared, results["weights"])["shared"]
    plotting.every_seed(counts, found, x="neurons", label="trained", legend=False)
    lines = found.mean("seed")
    counts.plot(lines["neurons"], lines, "kD", ms=4, label="mean of seeds")
    widths = np.unique(np.geomspace(*results["neurons"].values[[0, -1]], 30).astype(int))
    exact = [theory.collisions(features, int(m)) for m in widths]
    without = [theory.collisions_without_repulsion(features, int(m)) for m in widths]
    counts.plot(widths, exact, "C2-", lw=1.4, label="distinct places (exact)")
    counts.plot(widths, features**2 / 4 / widths, "k:", lw=1.4, label="$n^2/4m$")
    counts.plot(widths, without, "C1--", lw=1.4, label="no repulsion")
    counts.set(xscale="log", xlabel="neurons $m$", ylabel="shared neurons", ylim=(-0.5, None))
    plotting.plain_ticks(counts, "x", results["neurons"].values.tolist())
    counts.set_title(f"Fewer are shared than at random\ndistinct places ({features} features)")
    counts.legend(fontsize=7)
    draw_norms(norms, results)
    return figure


def draw_matrix(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the weights of one model, shared neurons first."""
    weights = results["weights"].isel(neurons=0, seed=0).values
    weights = weights[: int(results["neurons"][0])]
    big = abs(weights) > BIG
    order = np.lexsort((big.argmax(axis=1), -big.sum(axis=1)))
    weights = weights[order]
    columns = np.argsort([*np.argmax(abs(weights), axis=0)], kind="stable")
    plotting.signed_matrix(axes, weights[:, columns])
    several = int((big.sum(axis=1) > 1).sum())
    axes.axhline(several - 0.5, color="black", lw=1)
    axes.set(xlabel="features (red +1, blue -1)", ylabel="neurons, shared ones above the line")
    axes.set_title(f"{several} of {len(weights)} neurons are shared\nby two opposite signs")


def draw_norms(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw how the sum of absolute weights falls, with the exact curve and the estimate."""
    time, widest = results["time"].values, int(results["neurons"][-1])
    exact = results["lone_exact"].mean("seed").values
    axes.loglog(time[1:], exact[1:], color="C2", label="soft thresholding (exact)")
    fine = np.geomspace(time[1], time[-1], 200)
    estimate = 1 / (widest**-0.5 + results.attrs["penalty"] * fine)
    axes.loglog(fine, np.maximum(estimate, 1), "k:", label="estimate of the paper")
    for name, style, label in (
        ("lone_norm", "C0o", "a lone feature"),
        ("norm", "C1^", f"{results.attrs['num_features']} features"),
    ):
        values = results[name] if name == "lone_norm" else results[name].isel(neurons=-1)
        mean = values.mean("seed").values
        axes.loglog(time[1:], mean[1:], style, ms=3.5, label=f"{label}, mean of seeds")
    axes.set(
        xlabel="time of gradient flow", ylabel=r"$\Vert w \Vert_1 / \Vert w \Vert_2$ of a feature"
    )
    plotting.plain_ticks(axes, "y", (1, 2, 5, 10))
    axes.set_title(f"The penalty leaves one weight\n({widest} neurons)")
    axes.legend(fontsize=7)


if __name__ == "__main__":
    experiment.main(__file__)
