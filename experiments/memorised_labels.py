r"""Labels without a meaning: how many of them a linear probe memorises.

Claim      A linear probe of hidden vectors fits labels from coin tosses without an error as often
           as Cover's theorem says, and it is right about as many of more labels as least squares of
           normal variables. So what a probe reads of few examples says nothing about the model.
Reproduces Cover (1965), on the hidden vectors of the models of Elhage et al. (2022).
Selection  None: all densities, all seeds.
Settings   Those of `probing`: 12 binary features of geometric importance in 4 dimensions, read in
           noise.
Command    toymodels run experiments/memorised_labels.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import classification, probing
from toymodels.theory import memorisation

COVER = tm.prediction("Cover (1965)")
LEAST_SQUARES = tm.prediction("least squares of normal variables")
FOUR_ERRORS = "Ours, because the largest of many errors can be four standard errors."
SAMPLING = "Ours, because labels are sampled and correlated."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 12
    hidden: int = 4
    importance_ratio: float = 0.85
    densities: tuple[float, ...] = (0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05)
    noise: float = 0.1
    """Standard deviation of what is added to each coordinate of the hidden vectors."""
    sizes: tuple[int, ...] = (6, 8, 10, 12, 16, 20, 24, 48, 120, 240)
    """Numbers of examples with labels from coin tosses; each divides the last."""
    tosses: int = 32
    """Sets of labels for each of these sizes, in each cell."""
    examples: int = 4096
    """Examples that are drawn, as in `probing`; the first of them have labels."""
    num_seeds: int = 6
    training: tm.Recipe = tm.Recipe(steps=4000, batch=512, learning_rate=3e-3)


SMOKE = Config(
    num_features=4,
    hidden=2,
    densities=(0.5, 0.3),
    noise=0.3,
    sizes=(6, 48),
    tosses=4,
    examples=512,
    num_seeds=2,
    training=tm.Recipe(steps=20, batch=16, learning_rate=3e-3),
)


def run(config: Config) -> xr.Dataset:
    model = tm.ReLUOutput(hidden=config.hidden)
    importance = tm.geometric_importance(config.num_features, config.importance_ratio)
    largest = config.sizes[-1]

    def cell(key, *, density):
        # These keys give the models and the hidden vectors of `probing`.
        key_train, _, key_features, key_noise, key_coins = jax.random.split(key, 5)
        distribution = tm.Binary(config.num_features, density)
        task = tm.Task(distribution, importance=importance)
        weights = config.training.train(key_train, model, task).params["weights"]
        features = distribution.sample(key_features, config.examples)
        noise = config.noise * jax.random.normal(key_noise, (config.examples, config.hidden))
        hidden = (features @ weights.T + noise)[:largest]

        def accuracy(coins, size):
            # Copies of the first examples, each equally often, change neither what can be separated
            # nor the accuracy, and make all sizes one program.
            copies = jnp.arange(largest) % size
            labels = coins[copies]
            # The penalty is so small that the probe separates whatever can be separated.
            probe = probing.logistic(hidden[copies], labels, penalty=1e-7)
            reached = classification.accuracy(probing.scores(probe, hidden[copies]), labels)
            return jnp.where(jnp.all(labels == labels[0]), 1.0, reached)  # the intercept fits them

        coins = jax.random.bernoulli(key_coins, shape=(config.tosses, len(config.sizes), largest))
        memorised = jax.vmap(jax.vmap(accuracy), (0, None))(coins, jnp.asarray(config.sizes))
        return {"memorised": memorised}

    axes, dims = {"density": config.densities}, {"memorised": ("toss", "size")}
    results = tm.sweep(cell, axes=axes, num_seeds=config.num_seeds, dims=dims)
    return results.assign_coords(size=list(config.sizes)).assign_attrs(hidden=config.hidden)


def separated(results: xr.Dataset) -> xr.DataArray:
    """Return the share of labels from coin tosses that a probe fits without an error."""
    return (results["memorised"] == 1).mean(("density", "seed", "toss"))


def claims(results: xr.Dataset) -> tm.Claims:
    says = "Labels from coin tosses are separated by a probe as often as Cover's theorem says, "
    says += "measured by the largest deviation in standard errors."
    parameters = results.attrs["hidden"] + 1
    share = [memorisation.separability(int(size), parameters) for size in results["size"]]
    share = xr.DataArray(share, dims="size")
    count = results["memorised"].size / results.sizes["size"]
    error = ((share * (1 - share)).clip(1 / count) / count) ** 0.5
    largest = np.abs((separated(results) - share) / error).max()
    yield tm.near(says, 0.0, largest, COVER, within=4.0, threshold=FOUR_ERRORS)

    size = int(results["size"][-1])
    says = f"A probe fitted to {size} labels from coin tosses is right about as many of them as "
    says += "least squares of normal variables, measured by the accuracy."
    expected = memorisation.least_squares_accuracy(size, parameters)
    accuracy = results["memorised"].isel(size=-1).mean()
    yield tm.near(says, expected, accuracy, LEAST_SQUARES, within=0.01, threshold=SAMPLING)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(size=(5.6, 3.8))
    parameters = results.attrs["hidden"] + 1
    fine = np.arange(parameters + 1, 2 * int(results["size"][-1]))
    for name, theory, measured, label in (
        ("Cover's theorem", memorisation.separability, separated(results), "without an error"),
        (
            "normal variables",
            memorisation.least_squares_accuracy,
            results["memorised"].mean(("density", "seed", "toss")),
            "accuracy",
        ),
    ):
        curve = [theory(int(size), parameters) for size in fine]
        (line,) = axes.plot(fine / parameters, curve, label=name)
        axes.plot(results["size"] / parameters, measured, "o", color=line.get_color(), label=label)
    axes.set(
        xscale="log",
        xlabel="examples per parameter of the probe, $N / d$",
        ylabel="share of coin tosses",
        title="Coin tosses are memorised as Cover's theorem says",
    )
    plotting.plain_ticks(axes, places=(1, 2, 5, 10, 20, 50))
    axes.legend()
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
