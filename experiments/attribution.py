"""Attribution: three answers to which feature an output comes from.

Claim      Gradient x input, integrated gradients and Shapley values agree without interference and
           part as interference grows: the first misses the bias, and only Shapley values see a
           feature that is silenced by another one.
Reproduces No figure of a paper. The methods are those of Sundararajan et al. (2017) and of Shapley
           (1953). The closed forms are derived here.
Settings   Trained models have 8 features of importance 0.9^i in 4 dimensions. Attributions are
           those of an output whose own feature is present, against the empty input.
Selection  All seeds.
Command    toymodels run experiments/attribution.py
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import attribution

COMPLETE = tm.identity("The axiom of completeness: attributions add up to the change of the output")
LINEAR = tm.identity("All three are w_i x_i for a linear function")
BIAS = tm.identity("The sum of gradient x input leaves out the part of the bias that the ReLU cuts")
CLOSED = tm.prediction("The closed form of integrated gradients through one ReLU")
SILENCED = tm.prediction("E |difference| = p^2 E min(x_1, x_2) = p^2 / 3 in an antipodal pair")
ORDERS = tm.prediction("The standard error of a mean over orders falls as their number to the -1/2")
FOUND = tm.finding("first measured here")
ROUNDING = "Ours, because of rounding."
ROUND = "Ours, because it is a round number."
METHODS = {"gradient": "Gradient x input", "shapley": "Shapley values"}
FEATURES, HIDDEN, MANY, ACTIVE = 8, 4, 20, 10
OPENS = 0.5**0.5
"""The place on the path from the empty input to the example where the random unit opens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (1.0, 0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.04, 0.02)
    num_seeds: int = 6
    examples: int = 512
    units: int = 32
    steps_of_path: tuple[int, ...] = (4, 16, 64, 256, 1024, 4096, 16_384, 65_536)
    orders: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    training: tm.Recipe = tm.Recipe(steps=3000, batch=512, learning_rate=1e-2)


SMOKE = Config(
    densities=(1.0, 0.1),
    num_seeds=2,
    examples=16,
    units=3,
    steps_of_path=(4, 16),
    orders=(4, 16),
    training=tm.Recipe(steps=30, batch=64, learning_rate=1e-2),
)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    """Return the results of all parts; only the trained models take long enough to be stored."""

    def cell(key, *, density):
        key_train, _, key_examples, _ = jax.random.split(key, 4)
        importance = tm.geometric_importance(FEATURES, 0.9)
        task = tm.Task(tm.SparseUniform(FEATURES, density), importance=importance)
        trained = config.training.train(key_train, tm.ReLUOutput(HIDDEN), task)
        return attributions(key_examples, config, trained.params, task.features)

    axes, seeds = {"density": config.densities}, config.num_seeds
    trained = tm.sweep(cell, axes=axes, num_seeds=seeds, store=store)
    parts = [trained, silenced(config), effort(config), pentagon()]
    return xr.merge(parts, combine_attrs="drop_conflicts")


def attributions(key, config: Config, params, features) -> dict[str, jax.Array]:
    """Hold three attributions of trained outputs against each other and against closed forms."""
    model, gram = tm.ReLUOutput(HIDDEN), params["weights"].T @ params["weights"]
    key_examples, key_outputs, key_own = jax.random.split(key, 3)
    examples = features.sample(key_examples, config.examples)
    outputs = jax.random.randint(key_outputs, (config.examples,), 0, FEATURES)
    own = jax.random.uniform(key_own, (config.examples,), minval=0.05)

    def one(example, output, own):
        def function(x):
            return model.apply({"params": params}, x)[output]

        x = example.at[output].set(own)
        change = function(x) - function(0 * x)
        bias = params["bias"][output]
        gradient = attribution.gradient_times_input(function, x)
        exact = attribution.relu_integrated_gradients(gram[output], bias, x)
        shapley = attribution.shapley_values(function, x)
        cut = jnp.where(function(x) > 0, jax.nn.relu(-bias), jax.nn.relu(bias))
        size = jnp.sum(jnp.abs(exact))
        return {
            "missed_error": jnp.abs(jnp.abs(jnp.sum(gradient) - change) - cut),
            "exact_gap": jnp.abs(jnp.sum(exact) - change),
            "shapley_gap": jnp.abs(jnp.sum(shapley) - change),
            "size": size,
            "gradient_distance": jnp.sum(jnp.abs(gradient - exact)),
            "shapley_distance": jnp.sum(jnp.abs(shapley - exact)),
            "interference": size - jnp.abs(exact[output]),
        }

    found = jax.vmap(one)(examples, outputs, own)
    size = jnp.sum(found.pop("size"))
    return {
        name: jnp.max(each) if name.endswith(("error", "gap")) else jnp.sum(each) / size
        for name, each in found.items()
    }


def silenced(config: Config) -> xr.Dataset:
    """Return how far Shapley values are from integrated gradients in an antipodal pair."""
    gram = jnp.asarray([1.0, -1.0])

    def cell(key, *, density):
        def distance(x):
            shapley = attribution.shapley_values(lambda x: jax.nn.relu(gram @ x), x)
            integrated = attribution.relu_integrated_gradients(gram, 0.0, x)
            return jnp.sum(jnp.abs(shapley - integrated))

        examples = tm.SparseUniform(2, density).sample(key, 64 * config.examples)
        return {"pair_distance": jnp.mean(jax.vmap(distance)(examples))}

    return tm.sweep(cell, axes={"density": config.densities}, num_seeds=config.num_seeds)


def effort(config: Config) -> xr.Dataset:
    """Return the errors of estimates for random units of 20 features, over their effort."""

    def cell(key):
        key_weights, key_x, *keys = jax.random.split(key, 2 + len(config.orders))
        weights = jax.random.normal(key_weights, (MANY,))
        present = jnp.arange(MANY) < ACTIVE
        x = jnp.where(present, jax.random.uniform(key_x, (MANY,), minval=0.1), 0.0)
        weights = weights * jnp.sign(weights @ x)
        bias = -OPENS * weights @ x

        def function(x):
            return jax.nn.relu(weights @ x + bias)

        shapley = attribution.shapley_values(
            lambda inside: function(jnp.zeros(MANY).at[:ACTIVE].set(inside)), x[:ACTIVE]
        )
        path = [
            attribution.integrated_gradients(function, x, num_steps=steps)
            for steps in config.steps_of_path
        ]
        sampled = [
            attribution.sampled_shapley_values(each, function, x, num_orders=orders)
            for each, orders in zip(keys, config.orders, strict=True)
        ]
        errors = jnp.stack([each.mean[:ACTIVE] - shapley for each in sampled])
        deviations = jnp.stack([each.standard_error[:ACTIVE] for each in sampled])
        return {
            "path_gap": jnp.stack([jnp.abs(jnp.sum(each) - function(x)) for each in path]),
            "path_length": weights @ x,
            "sampled_error": jnp.sqrt(jnp.mean(errors**2, axis=1)),
            "sampled_score": jnp.sqrt(jnp.mean((errors / jnp.maximum(deviations, 1e-9)) ** 2)),
        }

    found = tm.sweep(
        cell,
        seeds=range(config.units),
        dims={
            "path_gap": ("steps",),
            "sampled_error": ("orders",),
        },
    )
    return found.rename(seed="random_unit").assign_coords(
        steps=list(config.steps_of_path), orders=list(config.orders)
    )


def pentagon() -> xr.Dataset:
    """Return three attributions of one output of a pentagon with a bias, and their closed forms."""
    angles = 2 * jnp.pi * jnp.arange(5) / 5
    gram, bias, x = jnp.cos(angles), -0.1, jnp.asarray([0.9, 0.0, 0.6, 0.0, 0.0])

    def function(x):
        return jax.nn.relu(gram @ x + bias)

    answers = {
        "gradient x input": attribution.gradient_times_input(function, x),
        "integrated gradients": attribution.relu_integrated_gradients(gram, bias, x),
        "Shapley values": attribution.shapley_values(function, x),
    }
    alone, both = function(x.at[2].set(0.0)), function(x)
    halves = np.asarray([alone + both, both - alone]) / 2
    values = np.stack([np.asarray(each)[[0, 2]] for each in answers.values()])
    return xr.Dataset(
        {
            "answer": (("way", "present_feature"), values),
            "halves": ("present_feature", halves),
            "change": float(both),
        },
        {"way": list(answers), "present_feature": [0, 2]},
    )


def claims(results: xr.Dataset) -> tm.Claims:
    for name, method in (("exact", "Integrated gradients"), ("shapley", "Shapley values")):
        says = f"{method} of trained outputs add up to the output's change, measured by the "
        says += "largest gap."
        gap = results[f"{name}_gap"].max()
        yield tm.near(says, 0, gap, COMPLETE, within=1e-4, threshold=ROUNDING)
    says = "Gradient x input of a trained output misses the part of the bias that the ReLU cuts, "
    says += "measured by the largest error."
    yield tm.near(says, 0, results["missed_error"].max(), BIAS, within=1e-4, threshold=ROUNDING)
    says = "Integrated gradients with N steps miss at most |z - z'| / 2N, where z and z' are the "
    says += "preactivations at the ends of the path, measured by the largest ratio."
    bound = results["path_length"] / 2 / results["steps"]
    clear = results["steps"] <= 1024  # with more steps rounding is no smaller than the bound
    ratio = (results["path_gap"] / bound).where(clear).max()
    yield tm.at_most(says, 1, ratio, CLOSED, slack=0.01, threshold=ROUNDING)
    says = "Integrated gradients of random units with the largest number of steps add up to the "
    says += "output's change, measured by the largest gap."
    longest = results["path_gap"].isel(steps=-1).max()
    yield tm.near(
        says, 0, longest, COMPLETE, within=1e-4, threshold="Ours, because a user needs no more."
    )
    says = "Shapley values of two features are half the sum and half the difference of outputs, as "
    says += "the closed form says, measured by the largest error."
    error = np.abs(results["answer"].sel(way="Shapley values") - results["halves"]).max()
    yield tm.near(says, 0, error, COMPLETE, within=1e-6, threshold=ROUNDING)
    says = "In an antipodal pair at density p Shapley values and integrated gradients differ by "
    says += "p^2 / 3, measured by the largest relative error at densities from 0.1."
    measured = results["pair_distance"].mean("seed").where(results.density >= 0.1)
    error = np.abs(3 * measured / results.density**2 - 1).max()
    yield tm.near(
        says, 0, error, SILENCED, within=0.1, threshold="Ours, because it is four standard errors."
    )

    middle, mixing = results.median("seed"), results["interference"].values.ravel()
    for name, method in METHODS.items():
        here, every = middle[f"{name}_distance"], results[f"{name}_distance"].values.ravel()
        says = f"{method} and integrated gradients agree at density 1, measured by their median "
        says += "relative distance."
        yield tm.at_most(says, 0.05, here.sel(density=1), LINEAR, threshold=ROUND)
        says = f"{method} and integrated gradients differ more in superposition than at density 1, "
        says += "measured by the largest ratio of median distances."
        yield tm.at_least(says, 5, here.max() / here.sel(density=1), FOUND, threshold=ROUND)
        says = f"{method} and integrated gradients differ more where features interfere more, "
        says += "measured by the rank correlation."
        rank = stats.spearmanr(mixing, every).statistic
        yield tm.at_least(says, 0.5, rank, FOUND, threshold=ROUND)

    says = "The error of sampled Shapley values falls with the number of sampled orders to the "
    says += "power -1/2, measured by the exponent."
    error = np.log(results["sampled_error"].mean("random_unit"))
    slope = np.polyfit(np.log(results["orders"]), error, 1)[0]
    yield tm.near(says, -0.5, slope, ORDERS, within=0.05, threshold=ROUND)
    says = "The errors of sampled Shapley values are as large as their estimated standard errors, "
    says += "measured by the median ratio."
    score = results["sampled_score"].median("random_unit")
    yield tm.near(says, 1, score, ORDERS, within=0.15, threshold=ROUND)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 2, size=(7.4, 6.2))
    bars, distance, pair, effort = grid.flat
    answers = results["answer"]
    sums = answers.sum("present_feature").expand_dims(present_feature=["sum"])
    named = answers.assign_coords(present_feature=["feature 0", "feature 2"])
    plotting.grouped_bars(
        bars, xr.concat([named, sums], "present_feature"), groups="present_feature", bars="way"
    )
    bars.axhline(float(results["change"]), color="k", lw=0.8, ls="--")
    bars.set(ylabel="attribution", ylim=(-1.1, 1))
    bars.set(title="One output of a pentagon, three\nanswers (dashed: its change)")
    bars.legend(loc="lower left")
    for number, (name, method) in enumerate(METHODS.items()):
        plotting.every_seed(
            distance, results[f"{name}_distance"], x="density", label=method, color=f"C{number}"
        )
    plotting.every_seed(
        distance, results["interference"], x="density", label="share of interference", color="0.5"
    )
    plotting.density_axis(distance)
    distance.set_ylabel("relative to integrated gradients")
    distance.set_title("They part where\nfeatures interfere")
    plotting.every_seed(pair, results["pair_distance"], x="density", label="measured")
    pair.plot(results.density, results.density**2 / 3, "k--", label="$p^2/3$")
    pair.set(yscale="log", ylabel="Shapley to integrated gradients")
    pair.set_title("Only Shapley values see a\nsilenced feature of a pair")
    plotting.density_axis(pair)
    pair.legend()
    gap = results["path_gap"].max("random_unit").clip(1e-8)
    effort.loglog(results["steps"], gap, "o-", ms=4, label="gap of integrated gradients")
    error = results["sampled_error"].mean("random_unit")
    effort.loglog(results["orders"], error, "s-", ms=4, label="error of Shapley values")
    effort.set(xlabel="steps or orders", title="The price of an estimate\n(units of 20 features)")
    effort.legend()
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
