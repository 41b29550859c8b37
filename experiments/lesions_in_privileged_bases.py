"""Lesions in privileged bases: units mislead, unless the hidden layer has a ReLU.

Claim      Without a nonlinearity the basis of the hidden layer is arbitrary, and the lesion of a
           unit spreads over several features. The lesion of the direction of a feature falls on
           that feature alone. A ReLU on the hidden layer makes its basis privileged, and there the
           lesion of a unit falls on one feature, too.
Reproduces No figure of a paper. The models are those of Elhage et al. (2022), "Superposition in a
           Privileged Basis".
Settings   Ten features of importance 0.75^i and density 0.75 in five dimensions. A lesion sets a
           coordinate to 0. The rows are ordered by the feature that is damaged most.
Selection  Best of 32 seeds by the loss on 65,536 fresh examples, which are common to all seeds. The
           picture shows the basis that training ended in; the claim takes 16 random ones.
Command    toymodels run experiments/lesions_in_privileged_bases.py
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels import interventions as iv

PRIVILEGED = tm.paper("Elhage et al. (2022), Superposition in a Privileged Basis")
ARBITRARY = tm.prediction("A basis that no output depends on mixes the features in its units")
FOUND = tm.finding("first measured here")
OURS = "Ours, because the theory gives no number."
RATIO = 0.75
LESIONS = {
    "turned": "Lesions of units mislead",
    "directions": "Lesions of directions do not",
    "privileged": "Nor do those of units where\nthe hidden layer has a ReLU",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    size: tuple[int, int] = (10, 5)
    """Features and hidden dimensions."""
    density: float = 0.75
    num_seeds: int = 32
    bases: int = 16
    """The number of random bases of the model without a ReLU on the hidden layer."""
    examples: int = 32_768
    training: tm.Recipe = tm.Recipe(steps=3000, batch=512, learning_rate=1e-2)


SMOKE = Config(
    size=(4, 2),
    num_seeds=2,
    bases=2,
    examples=100,
    training=tm.Recipe(steps=20, batch=32, learning_rate=1e-2),
)


def spread(
    model: nn.Module, weights, bias, *, density: float, examples: int
) -> dict[str, jax.Array]:
    """Return the damage to each output of removing units, and directions of features."""
    params, number = {"weights": weights, "bias": bias}, bias.size
    importance = tm.geometric_importance(number, RATIO)
    batch = tm.SparseUniform(number, density).sample(jax.random.key(20), examples)

    def loss(x, output):
        return importance * (x - output) ** 2

    units = iv.places(model, params, batch[0])["hidden"]
    return {
        "units": iv.lesions(model, params, batch, units, iv.zero, loss),
        "directions": iv.lesions(
            model, params, batch, iv.directions("hidden", weights), iv.zero, loss
        ),
    }


def best_model(config: Config, model: nn.Module, task: tm.Task) -> tuple[jax.Array, jax.Array]:
    """Return weights and bias of the best seed."""

    def cell(key):
        trained = config.training.train(key, model, task)
        return {"loss": trained.loss, **trained.params}

    dims = {"weights": ("dimension", "feature"), "bias": ("feature",)}
    best = tm.best_of(tm.sweep(cell, num_seeds=config.num_seeds, dims=dims), "loss")
    return jnp.asarray(best["weights"].values), jnp.asarray(best["bias"].values)


def run(config: Config) -> xr.Dataset:
    number, hidden = config.size
    importance = tm.geometric_importance(number, RATIO)
    task = tm.Task(tm.SparseUniform(number, config.density), importance=importance)
    how = {"density": config.density, "examples": config.examples}
    without, with_relu = tm.ReLUOutput(hidden), tm.ReLUHidden(hidden)
    weights, bias = best_model(config, without, task)
    plain = jax.jit(functools.partial(spread, without, **how))
    relu = jax.jit(functools.partial(spread, with_relu, **how))
    turns = jax.random.normal(jax.random.key(21), (config.bases, hidden, hidden))
    bases = [plain(turn @ weights, bias)["units"] for turn in jnp.linalg.qr(turns)[0]]
    found, kept = plain(weights, bias), jnp.argsort(-jnp.linalg.norm(weights, axis=0))[:hidden]
    rows = {
        "turned": found["units"],
        "directions": found["directions"][kept],
        "privileged": relu(*best_model(config, with_relu, task))["units"],
    }
    ordered = [row[jnp.argsort(jnp.argmax(row, axis=1))] for row in rows.values()]
    return xr.Dataset(
        {
            "spread": (("lesion", "row", "damaged"), np.stack(ordered)),
            "spread_bases": (("basis", "row", "damaged"), np.stack(bases)),
        },
        {"lesion": list(rows), "row": np.arange(hidden), "damaged": np.arange(number)},
    )


def selectivity(damage: xr.DataArray) -> xr.DataArray:
    """Return the share of each lesion's damage that falls on the feature that is damaged most."""
    return damage.clip(min=0).max("damaged") / damage.clip(min=0).sum("damaged")


def claims(results: xr.Dataset) -> tm.Claims:
    shares = {name: selectivity(results["spread"].sel(lesion=name)) for name in LESIONS}
    shares["turned"] = selectivity(results["spread_bases"])
    number, hidden = results.sizes["damaged"], results.sizes["row"]
    models = f"trained models of {number} features in {hidden} dimensions"
    alone, spread_out = "falls nearly all on one feature", "is spread over several features"
    for name, bound, limit, source, relu, what, falls in (
        ("directions", tm.at_least, 0.9, FOUND, "without", "the direction of a feature", alone),
        ("privileged", tm.at_least, 0.9, PRIVILEGED, "with", "a unit", alone),
        ("turned", tm.at_most, 0.7, ARBITRARY, "without", "a unit of a random basis", spread_out),
    ):
        says = f"In {models} {relu} a ReLU on the hidden layer, the damage of removing {what} "
        says += f"{falls}, measured by the median share on the feature that is damaged most."
        yield bound(says, limit, shares[name].median(), source, threshold=OURS)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(1, 3, size=(9.0, 3.4))
    images = []
    for axes, (name, title) in zip(grid, LESIONS.items(), strict=True):
        damage = results["spread"].sel(lesion=name).clip(min=0)
        share = (damage / damage.sum("damaged")).rename("share")
        norm = plotting.Normalize(0, 1)
        images.append(plotting.heat_map(axes, share, x="damaged", y="row", norm=norm))
        axes.set(xlabel="feature that is damaged", ylabel="", title=title)
        axes.set_yticks([])
    grid[0].set(ylabel="lesion")
    plotting.color_bar(images[0], "share of the damage", axes=list(grid))
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
