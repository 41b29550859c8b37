r"""Do gradients see the attacks that superposition allows? Small ones, yes; large ones, no.

Claim      Outputs of sparse models are silent nearly always, and a silent ReLU has no gradient. The
           paper says that attacks by gradients fail for that reason. They do not fail with attacks
           of a tenth of an input: where all outputs are silent the biases absorb so small an
           attack, and where one speaks, its gradient leads to harm as great as that of the attack
           along a column of $W^\top W$. Larger attacks wake silent outputs, which no gradient sees.
Reproduces Elhage et al. (2022), "Relationship to Adversarial Robustness", the remark on gradient
           masking that made the paper use analytic attacks; the paper shows no figure of it.
Attack     All attacks on an example have one length, a share of the mean norm of inputs; the share
           of the paper is a tenth. The analytic one is the worst of the directions
           $(W^\top W)_i / \lVert (W^\top W)_i \rVert$. One step goes along the gradient of the
           squared error at the example itself. The search takes 20 steps of a quarter of the length
           along the gradient and returns to the sphere after each; it starts at the example, or at
           a random point of the sphere, the best of 8.
Settings   Ours, because the paper states none: n = 40, m = 4, equal importance, Adam from 3e-3 down
           a cosine, 5000 steps of 256 examples. The density goes from 1 to 0.01.
Selection  None: every seed is shown, on 512 common examples.
Command    toymodels run experiments/masked_gradients.py
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import adversarial

PAPER = tm.paper("Elhage et al. (2022), Relationship to Adversarial Robustness")
SILENT = tm.paper(f"{PAPER.text}: ReLUs are in their zero regime 99 % of the time")
MASKED = tm.identity("A loss of silent ReLUs has the gradient 0")
SMOOTH = tm.prediction("the gradient is the direction of the largest first-order rise")
HERE = tm.finding(f"{PAPER.text}: says without a number that attacks by gradients fail")
NOT_MASKED = (
    "Gradients do not fail with attacks as small as those of the paper. Where all outputs are "
    "silent there is no gradient, but hardly any harm: negative biases absorb the attack."
)
MOSTLY = (
    "Most of what the gradient misses is at examples with an output that speaks: their silent "
    "outputs have no gradient either, and they are nearly all outputs."
)
NEARLY = (
    "Nearly so: outputs of features that are absent still speak 2 % of the time, because other "
    "features overlap with them. The share depends on the density, which the paper does not say."
)
STUCK = (
    "From the example itself, one search of 20 steps ends a little below the best attack; eight "
    "random starts reach it."
)
ATTACKS = {
    "analytic": "along a column of $W^T W$",
    "restarted": "search from 8 random starts",
    "search": "search from the example",
    "step": "one step along the gradient",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 40
    hidden: int = 4
    densities: tuple[float, ...] = (1.0, 0.56, 0.32, 0.18, 0.1, 0.056, 0.032, 0.018, 0.01)
    sizes: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    """The lengths of attacks in mean norms of inputs, that of the paper first."""
    climbs: int = 20
    """The number of steps of a search."""
    starts: int = 8
    num_seeds: int = 5
    training: tm.Recipe = tm.Recipe(steps=5000, batch=256, learning_rate=3e-3)
    examples: int = 512


SHORT = tm.Recipe(steps=20, batch=16, learning_rate=3e-3)
FEW = {"num_features": 8, "hidden": 2, "densities": (1.0, 0.1), "climbs": 2, "starts": 2}
SMOKE = Config(**FEW, num_seeds=2, training=SHORT, examples=32)


def unit(vector):
    """Return a vector of length 1 in a direction, or 0 if the vector is 0."""
    length = jnp.linalg.norm(vector)
    return vector / jnp.where(length > 0, length, 1.0)


def search(error, example, start, size, steps):
    """Climb the error of one example on the sphere of attacks, and return the last error."""

    def step(attack, _):
        uphill = unit(jax.grad(error)(example + attack))
        return size * unit(attack + size / 4 * uphill), None

    attack, _ = jax.lax.scan(step, start, length=steps)
    return error(example + attack)


def attacked(key, example, weights, bias, size, config: Config):
    """Return the rise of the squared error of one example by each attack, over its square size."""

    def error(shifted):
        return jnp.sum((example - jax.nn.relu(weights.T @ (weights @ shifted) + bias)) ** 2)

    slope, clean = jax.grad(error)(example), error(example)
    random = jax.vmap(unit)(jax.random.normal(key, (config.starts, example.size)))
    found = {
        "analytic": jnp.max(jax.vmap(error)(example + size * adversarial.attacks(weights))),
        "restarted": jnp.max(
            jax.vmap(lambda start: search(error, example, size * start, size, config.climbs))(
                random
            )
        ),
        "search": search(error, example, jnp.zeros_like(example), size, config.climbs),
        "step": error(example + size * unit(slope)),
    }
    rises = {name: (value - clean) / size**2 for name, value in found.items()}
    silent = weights.T @ (weights @ example) + bias <= 0
    flat = jnp.all(slope == 0)
    asleep = jnp.all(silent)
    beneath = jnp.where(asleep, rises["analytic"], 0.0)
    return rises | {"silent": jnp.mean(silent), "flat": flat, "asleep": asleep, "beneath": beneath}


def run(config: Config) -> xr.Dataset:
    def cell(key, *, density):
        task = tm.Task(tm.SparseUniform(config.num_features, density))
        params = config.training.train(key, tm.ReLUOutput(config.hidden), task).params
        key_examples, key_starts = jax.random.split(jax.random.key(2022))
        examples = task.features.sample(key_examples, config.examples)
        norm = jnp.mean(jnp.linalg.norm(examples, axis=1))
        keys = jax.random.split(key_starts, config.examples)

        def at(size):
            each = partial(attacked, **params, size=size * norm, config=config)
            return jax.tree.map(jnp.mean, jax.vmap(each)(keys, examples))

        found = jax.lax.map(at, jnp.asarray(config.sizes))
        return found | {name: found[name][0] for name in ("silent", "flat", "asleep")}

    dims = dict.fromkeys((*ATTACKS, "beneath"), ("size",))
    axes = {"density": config.densities}
    results = tm.sweep(cell, axes=axes, num_seeds=config.num_seeds, dims=dims)
    return results.assign_coords(size=list(config.sizes))


def claims(results: xr.Dataset) -> tm.Claims:
    sparsest, densest = results.density.min(), results.density.max()
    ratio = (results / results.analytic)[list(ATTACKS)].median("seed")
    small, large = ratio.isel(size=0), ratio.sel(size=1.0, method="nearest")
    ours = "Ours, because the paper gives no number."

    says = "Outputs of models trained at the lowest density are 0 in 99 % of the examples, "
    says += "measured by the median share of the seeds."
    silent = results.silent.sel(density=sparsest).median()
    share = "Ours, because a density of 0.01 leaves at most 1 % of the outputs to speak rightly."
    yield tm.near(says, 0.99, silent, SILENT, within=0.01, threshold=share, note=NEARLY)
    for name, attack in (("step", "One step"), ("search", "A search from the example")):
        says = f"{attack} along the gradient of the loss does less harm to models trained at the "
        says += "lowest density than the analytic attack of equal length, a tenth of an input, "
        says += "measured by the median ratio of the seeds."
        here = small[name].sel(density=sparsest)
        yield tm.at_most(says, 0.5, here, PAPER, threshold=ours, note=NOT_MASKED)
    says = "Examples at which all outputs are 0 bear little of the harm of an analytic attack of a "
    says += "tenth of an input on models trained at the lowest density, measured by the median "
    says += "share of the seeds."
    beneath = (results.beneath / results.analytic).isel(size=0).sel(density=sparsest).median()
    yield tm.at_most(says, 0.05, beneath, HERE, threshold=ours)
    says = "The gradient of the loss of trained models is exactly 0 at every example at which all "
    says += "outputs are 0, measured by the largest difference of the shares of the two kinds of "
    says += "examples."
    gap = np.abs(results.flat - results.asleep).max()
    rounds = "Ours, because an output that speaks with no error has no gradient either."
    yield tm.near(says, 0, gap, MASKED, within=1e-3, threshold=rounds)
    says = "A search from the example along the gradient of the loss does at least as much harm to "
    says += "models trained at density 1 as the analytic attack of equal length, a tenth of an "
    says += "input, measured by the median ratio of the seeds."
    close, dense = "Ours, because a search stops after 20 steps.", small.search.sel(density=densest)
    yield tm.at_least(says, 1, dense, SMOOTH, slack=0.02, threshold=close, note=STUCK)
    says = "A search along the gradient of the loss from eight random starts does at least as much "
    says += "harm to models trained at any density as the analytic attack of equal length, a tenth "
    says += "of an input, measured by the smallest median ratio of the seeds."
    yield tm.at_least(says, 1, small.restarted.min(), SMOOTH, slack=0.02, threshold=close)
    says = "One step along the gradient of the loss does less harm to models trained at the lowest "
    says += "density than the analytic attack of equal length, that of an input, measured by the "
    says += "median ratio of the seeds."
    yield tm.at_most(says, 0.75, large.step.sel(density=sparsest), HERE, threshold=ours)
    says = "Examples at which all outputs are 0 bear much of the harm of an analytic attack of the "
    says += "length of an input on models trained at the lowest density, measured by the median "
    says += "share of the seeds."
    share = (results.beneath / results.analytic).sel(size=1.0, method="nearest")
    borne = share.sel(density=sparsest).median()
    yield tm.at_least(says, 0.25, borne, HERE, threshold=ours, note=MOSTLY)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (small, large, hidden) = plotting.figure(1, 3, size=(9, 3.7))
    sizes = (float(results["size"][0]), float(results["size"].sel(size=1.0, method="nearest")))
    for axes, size in zip((small, large), sizes, strict=True):
        for color, (name, label) in zip(("k", "C2", "C0", "C1"), ATTACKS.items(), strict=True):
            shown = results[name].sel(size=size)
            style = {"label": label, "color": color, "legend": False}
            plotting.every_seed(axes, shown, x="density", **style)
        axes.set(ylim=(0, None))
    small.set(ylabel="rise of the loss / square of the attack")
    small.set_title("Gradients find attacks\nof a tenth of an input")
    small.legend(fontsize=7, loc="upper right")
    large.set_title("One step misses up to half of the harm\nof attacks as long as an input")
    every = {"x": "density", "legend": False}
    plotting.every_seed(hidden, results.silent, **every, label="silent outputs", color="0.4")
    label = "silent examples: no gradient"
    plotting.every_seed(hidden, results.asleep, **every, label=label, color="C4", marker="s")
    hidden.set(ylim=(0, 1.02))
    hidden.set_title("Share that is silent\n(dots: seeds, lines: medians)")
    hidden.legend(fontsize=7)
    for axes in (small, large, hidden):
        plotting.density_axis(axes)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
