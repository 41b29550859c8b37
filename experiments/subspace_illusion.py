"""The illusion of subspace patching: a direction that the model never uses has the full effect.

Claim      In a model whose output ignores one unit and never excites another, the direction between
           these two carries the whole effect of the input when it is patched. Patching therefore
           does not show that a model uses a direction, and a search for the effect often ends in
           such a one. The overlap of what a direction reads with what it writes is 0 for it.
Reproduces The example of three dimensions of Makelov et al. (2023), "Is This the Subspace You Are
           Looking For?".
Settings   The hidden value is (x, 0, x), the output 2 h_2 + h_3. The dormant direction at angle t
           is (cos t, sin t, 0). The searches are distributed alignment search for one dimension.
Selection  All searches, each from a start of its own.
Command    toymodels run experiments/subspace_illusion.py
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels import interventions as iv

ILLUSION = tm.paper("Makelov et al. (2023), the example of three dimensions")
OVERLAP = tm.identity("Shares of a dormant direction that are read and written do not meet")
FOUND = tm.finding("first measured here")
LENGTH = "Ours, because a search of finite length is not exact."
ROUND = "Ours, because it is a round number."
ROUNDING = "Ours, because of rounding."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_searches: int = 48
    angles: int = 61
    pairs: int = 4096
    search_steps: int = 600
    search_batch: int = 128
    search_learning_rate: float = 0.1


SMOKE = Config(num_searches=4, angles=5, pairs=200, search_steps=30, search_batch=32)


class Dormant(nn.Module):
    """The hidden value is (x, 0, x) and the output 2 h_2 + h_3, so that only h_3 is used."""

    @nn.compact
    def __call__(self, x):
        self.param("unused", nn.initializers.zeros, ())
        hidden = tm.Site(name="hidden")(jnp.stack([x, 0 * x, x]))
        return 2 * hidden[1] + hidden[2]


def run(config: Config) -> xr.Dataset:
    model, params = Dormant(), {"unused": jnp.zeros(())}

    def sample(key, batch):
        return tuple(jax.random.normal(key, (2, batch)))

    def measured(vector):
        part = iv.direction("hidden", vector)
        effect = iv.interchange(model, params, jnp.zeros(()), jnp.ones(()), part)
        pairs = sample(jax.random.key(0), config.pairs)
        overlap = iv.read_write_overlap(model, params, *pairs, part, lambda output: output)
        return {"effect": effect, "overlap": overlap}

    def squared(output, _, source):
        return (output - source) ** 2

    optimizer = optax.adam(config.search_learning_rate)
    how = {"steps": config.search_steps, "batch": config.search_batch, "optimizer": optimizer}

    def cell(key):
        part = iv.align(key, model, params, sample, squared, site="hidden", size=1, **how)
        vector = jnp.asarray(part.basis)[:, 0]
        return {"vector": vector, **measured(vector)}

    searched = tm.sweep(cell, num_seeds=config.num_searches, dims={"vector": ("unit",)})
    angles = jnp.linspace(0, jnp.pi, config.angles)
    plane = jnp.stack([jnp.cos(angles), jnp.sin(angles), jnp.zeros_like(angles)], axis=1)
    dormant = jax.vmap(measured)(plane)
    return searched.rename(seed="start").assign(
        angle=("angle", np.asarray(angles)),
        **{f"dormant_{name}": ("angle", np.asarray(each)) for name, each in dormant.items()},
    )


def claims(results: xr.Dataset) -> tm.Claims:
    says = "Patching a dormant direction at angle t has the effect sin 2t, measured by the largest "
    says += "difference."
    difference = np.abs(results["dormant_effect"] - np.sin(2 * results["angle"])).max()
    yield tm.near(says, 0, difference, ILLUSION, within=1e-5, threshold=ROUNDING)
    says = "A dormant direction has a read-write overlap of 0 at every angle, measured by the "
    says += "largest overlap."
    largest = results["dormant_overlap"].max()
    yield tm.near(says, 0, largest, OVERLAP, within=1e-5, threshold=ROUNDING)
    says = "A search for a direction in the example of the illusion always finds the full effect, "
    says += "measured by the lowest effect."
    yield tm.near(says, 1, results["effect"].min(), ILLUSION, within=0.02, threshold=LENGTH)
    says = "Many searches for a direction in the example of the illusion end with a read-write "
    says += "overlap below 1/2, measured by their share."
    yield tm.at_least(says, 0.2, (results["overlap"] < 0.5).mean(), FOUND, threshold=ROUND)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (angle, search) = plotting.figure(1, 2, size=(7.4, 3.2))
    degrees = np.degrees(results["angle"])
    angle.plot(degrees, np.sin(2 * results["angle"]), "k", lw=0.8, label="sin 2t")
    angle.plot(degrees, results["dormant_effect"], "o", ms=3, label="effect of the patch")
    angle.plot(degrees, results["dormant_overlap"], color="C1", lw=2, label="read-write overlap")
    angle.set(xlabel="angle t in the plane of two unused units", xticks=(0, 45, 90, 135, 180))
    angle.set(title="An illusion: directions that the\nmodel never uses have an effect")
    angle.legend(loc="upper right", fontsize=7)
    search.plot(results["overlap"], results["effect"], "o", ms=4, alpha=0.6)
    search.set(xlabel="read-write overlap", ylabel="effect of the patch", xlim=(-0.03, 1.03))
    number = results.sizes["start"]
    search.set(ylim=(0, 1.3), title=f"All {number} searches find the effect,\nfew the unit in use")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
