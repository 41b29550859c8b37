"""A saturated unit: what the approximations of patching say of an effect that they cannot see.

Claim      The unit 1 - ReLU(1 - x) rises until x = 1 and stays there. Patching an input of 3 has
           the effect 1. Attribution patching finds 3 at the corrupt run, where the unit rises, and
           0 at the clean run, where it is saturated. Integrated gradients find the effect with the
           error of their midpoint rule.
Reproduces No figure of a paper. Attribution patching is that of Nanda (2023), integrated gradients
           along the path are those of Hanna et al. (2024), "Have Faith in Faithfulness".
Selection  None: the unit is written down, and nothing is drawn at random.
Command    toymodels run experiments/saturated_unit.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels import interventions as iv

SATURATED = tm.prediction("The midpoint rule: c floor(N / c + 1/2) / N")
SLOPE = tm.identity("The slope is 1 below saturation and 0 above")
FLOAT = "Ours, because 32-bit numbers are rounded."
NAMES = {"at corrupt": "the corrupt run", "at clean": "the clean run"}
SATURATED_AT = 3.0
"""The input of the saturated unit in the clean run; the corrupt run has 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    gradients: tuple[int, ...] = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50)
    """The numbers of gradients for a saturated unit."""


SMOKE = Config(gradients=(1, 5))


def run(config: Config) -> xr.Dataset:
    model = tm.Tied(hidden=1, activation=lambda z: 1 - jax.nn.relu(1 - z))
    params = {"weights": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    forwards = (model, params, jnp.zeros(1), jnp.full(1, SATURATED_AT), iv.whole("hidden"), jnp.sum)
    backwards = (model, params, forwards[3], forwards[2], *forwards[4:])

    @jax.jit
    def found():
        averaged = [
            iv.integrated_patching(*forwards, num_steps=number) for number in config.gradients
        ]
        tangents = [iv.attribution_patching(*forwards), -iv.attribution_patching(*backwards)]
        return jnp.stack(averaged), jnp.stack(tangents)

    averaged, tangents = map(np.asarray, found())
    variables = {"saturated": ("number", averaged), "saturated_tangent": ("end", tangents)}
    return xr.Dataset(variables, {"number": list(config.gradients), "end": list(NAMES)})


def claims(results: xr.Dataset) -> tm.Claims:
    says = "Integrated gradients of a saturated unit are those of the midpoint rule, measured by "
    says += "the largest difference over numbers of gradients."
    number = results["number"]
    rule = SATURATED_AT * np.floor(number / SATURATED_AT + 0.5) / number
    worst = np.abs(results["saturated"] - rule).max()
    yield tm.at_most(says, 0, worst, SATURATED, slack=1e-5, threshold=FLOAT)
    for end, expected in (("at corrupt", SATURATED_AT), ("at clean", 0)):
        says = f"Attribution patching at {NAMES[end]} finds the effect {expected:g} of a saturated "
        says += f"unit whose input changes by {SATURATED_AT:g} and whose true effect is 1."
        tangent = results["saturated_tangent"].sel(end=end)
        yield tm.near(says, expected, tangent, SLOPE, within=1e-6)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(size=(4.6, 3.6))
    number = results["number"]
    axes.semilogx(number, results["saturated"], "o-", ms=4, label="integrated gradients")
    for place, tangent in enumerate(results["saturated_tangent"].values, 1):
        label = f"attribution patching, {tuple(NAMES.values())[place - 1]}"
        axes.axhline(tangent, color=f"C{place}", ls="--", lw=1.2, label=label)
    axes.axhline(1, color="0.5", lw=1)
    plotting.plain_ticks(axes)
    axes.set(xlabel="number of gradients", ylabel="effect found (true: 1)", ylim=(-0.2, 4.8))
    axes.set_title("A saturated unit deceives\nattribution patching")
    axes.legend(loc="upper left")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
