"""Adversarial masks against random masks in the parameter decomposition of a pentagon.

Claim      In a parameter decomposition, unimportant subcomponents may be taken away in any amount.
           Stochastic parameter decomposition tries random amounts, and its successor also the worst
           ones that gradients find. Adversarial masks make the worst error of the output twenty
           times smaller if the penalty on importances is small, and leave little of the output if
           it is large. At one penalty they make more importances wrong. At one worst error either
           kind of masks may have fewer wrong ones. At the middle penalty a feature needs fewer than
           two subcomponents of the identity on average.
Reproduces No figure. Goodfire (2026), "Interpreting Language Model Parameters", adds adversarial
           masks to random ones; its code also decomposes this model, with an identity.
Settings   The exact optimum of five features in two dimensions, a pentagon, with an identity matrix
           between the two matrices. Inputs have at least one active feature. The adversary starts
           at random masks and takes two steps of length 1, in every update; the authors mix
           adversarial and random masks half and half. The worst error is that of another attack,
           after the decomposition: eight random starts with eight steps of length 1/4. Errors are
           squared changes of the output in units of its mean square, and means over 64 inputs. Each
           feature alone should need one subcomponent of its own in the first matrix, with the
           importance 1 there and 0 elsewhere; importances are wrong if they are off by more than a
           tenth. A subcomponent lives if its length is above a tenth, and a feature needs it if its
           importance is above a half.
Selection  None: all seeds.
Command    toymodels run experiments/adversarial_masks.py
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree

import toymodels as tm
from toymodels import circuits, experiment, plotting
from toymodels.analysis import geometry, subcomponents
from toymodels.theory import polytopes

SPD = tm.paper("Bushnaq, Braun and Sharkey (2025), TMS 5-2 with identity")
VPD = tm.paper("Goodfire (2026), Interpreting Language Model Parameters")
MINIMAL = tm.prediction("Importances are fewest if subcomponents read orthogonally to features")
FOUND = tm.finding("first measured here")

FEWER = "Ours, because we make fewer updates."
TWO = "Ours, before the first run; the penalty was chosen after it."
COLLAPSE = "If the penalty is large, little of the output is left with adversarial masks."
SHARED = "The subcomponent that suits a feature best holds about half of it: several share it."
THREE = "One of six runs keeps three of them, and one keeps five, of which three are short."
TILTED = "They are nearer to orthogonal than random directions, but not in all runs."

NUM_FEATURES, HIDDEN = 5, 2
LIVING = 0.1
"""A subcomponent lives if its length is above this."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    density: float = 0.05
    minimality: tuple[float, ...] = (1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
    """The weights of the penalty on needed subcomponents."""
    ascents: tuple[int, int] = (0, 2)
    """The steps of the adversary; without a step the masks are random."""
    num_seeds: int = 6
    parts: tuple[int, int, int] = (10, 6, 10)
    """The numbers of subcomponents of the three matrices."""
    gate_units: int = 4
    """The hidden units of the small network that decides whether a subcomponent is needed."""
    updates: int = 2500
    """The updates of a decomposition; the learning rate falls from `rate` along a cosine."""
    examples: int = 64
    """The inputs of an update, and those at which a decomposition is attacked."""
    rate: float = 1e-2


SMOKE = Config(
    minimality=(3e-3,), num_seeds=1, parts=(2, 2, 2), gate_units=1, updates=3, examples=4
)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    pentagon = polytopes.arrangement(polytopes.PENTAGON, config.density)
    weights, bias = jnp.asarray(pentagon.weights, "float32"), jnp.full(NUM_FEATURES, pentagon.bias)
    layers = (
        circuits.Layer(weights),
        circuits.Layer(jnp.eye(HIDDEN)),
        circuits.Layer(weights.T, bias.astype("float32"), jax.nn.relu),
    )
    recipe = tm.Recipe(steps=config.updates, batch=config.examples, learning_rate=config.rate)

    def sample(key, batch):
        return jnp.abs(tm.SomeActive(NUM_FEATURES, config.density).sample(key, batch))

    def decomposed(key, minimality, ascents):
        return circuits.decompose_layers(
            key,
            layers,
            sample,
            parts=config.parts,
            gate_units=config.gate_units,
            minimality=minimality,
            adversary=circuits.Adversary(ascents=ascents, step=1.0),
            **recipe.settings(),
        )

    def cell(key, *, minimality, ascents):
        return {"found": ravel_pytree(decomposed(key, minimality, ascents))[0]}

    results = tm.sweep(
        cell,
        axes={"minimality": config.minimality},
        static={"ascents": config.ascents},
        num_seeds=config.num_seeds,
        dims={"found": ("number",)},
        store=store,
    )
    shapes = jax.eval_shape(lambda key: decomposed(key, 0.0, 0), jax.random.key(0))
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes))
    x = sample(jax.random.key(1), config.examples)

    def measured(vector):
        found = unravel(vector)
        return scores(found, layers) | errors(found, layers, x)

    dims = {
        **dict.fromkeys(("cosine", "ratio", "needed"), ("feature",)),
        **dict.fromkeys(("length", "tilt"), ("part",)),
        "reads": ("part", "hidden"),
    }
    results = tm.apply(measured, results.found, dims=dims)
    return results.assign(weights=(("hidden", "feature"), np.asarray(weights)))


def scores(found, layers):
    """Return how well a decomposition is the known one, and what each feature needs."""
    first, identity, _ = found
    importances = jax.vmap(lambda x: circuits.layers_importances(found, layers, x))
    directions = geometry.unit_columns(identity.right.T).T
    one_active = importances(0.75 * jnp.eye(NUM_FEATURES))
    return {
        "cosine": subcomponents.column_cosines(first.left, first.right, layers[0].weights),
        "ratio": subcomponents.length_ratios(first.left, first.right, layers[0].weights),
        "identity_error": subcomponents.identity_error(one_active[0]),
        "needed": jnp.sum(one_active[1] > 0.5, axis=1),
        "reads": identity.right,
        "length": subcomponents.lengths(identity.left, identity.right),
        "tilt": jnp.min(jnp.abs(directions @ geometry.unit_columns(layers[0].weights)), axis=1),
    }


def errors(found, layers, x):
    """Return the mean over inputs of the mean error and of the worst error over masks."""
    starts = jax.random.uniform(jax.random.key(2), (8, sum(len(own.left) for own in found)))
    attack = circuits.Adversary(ascents=8, step=0.25)

    def at_one(x):
        low = jnp.concatenate(circuits.layers_importances(found, layers, x))
        clean = x
        for layer in layers:
            clean = layer(clean)

        def error(uniform):
            masks = low + (1 - low) * uniform
            return jnp.mean((circuits.masked_output(found, layers, x, masks) - clean) ** 2)

        random = jax.vmap(error)(starts)
        attacked = jax.vmap(lambda start: error(attack.worse(error, start)))(starts)
        worst = jnp.maximum(jnp.max(random), jnp.max(attacked))
        return jnp.mean(random), worst, jnp.mean(clean**2)

    random, worst, size = jax.vmap(at_one)(x)
    return {"random_error": random.mean() / size.mean(), "worst_error": worst.mean() / size.mean()}


def claims(results: xr.Dataset) -> tm.Claims:
    penalties = results["minimality"].values
    least, some, most = penalties[0], penalties[len(penalties) // 2], penalties[-1]
    means = results[["worst_error", "random_error", "identity_error"]].mean("seed")
    random, adversarial = means.isel(ascents=0), means.isel(ascents=-1)
    ratio = adversarial["worst_error"] / random["worst_error"]
    says = "Decompositions of a pentagon with adversarial masks have a smaller worst error over "
    says += "masks than those with random masks, measured by the ratio of the means over seeds, at "
    says += "the penalty where it is largest."
    half = "Ours, because half is a large gain."
    yield tm.at_most(says, 0.5, ratio.max(), VPD, threshold=half, note=COLLAPSE)
    says = "Decompositions of a pentagon with adversarial masks have a smaller worst error over "
    says += "masks than those with random masks, measured by the ratio of the means over seeds, at "
    says += f"the penalty {least:g}."
    tenth = "Ours, after a first run, because it is far below one half."
    yield tm.at_most(says, 0.1, ratio.sel(minimality=least), FOUND, threshold=tenth)
    says = "Decompositions of a pentagon with adversarial masks and the penalty "
    says += f"{most:g} leave little of its output, measured by the mean error over random masks."
    lost = adversarial["random_error"].sel(minimality=most)
    yield tm.at_least(
        says, 0.5, lost, FOUND, threshold="Ours, after a first run, because half is lost."
    )
    says = "The mean error over random masks hides how bad a decomposition of a pentagon with "
    says += "random masks can be, measured by the smallest ratio over penalties of the worst error "
    says += "to the mean error."
    hidden = random["worst_error"] / random["random_error"]
    yield tm.at_least(says, 3, hidden.min(), FOUND, threshold="Ours, because 3 is far from 1.")
    says = "Decompositions of a pentagon with adversarial masks have more wrong importances in its "
    says += "first matrix than those with random masks, measured by the smallest ratio of the "
    says += "means over the penalties."
    cost = (adversarial["identity_error"] / random["identity_error"]).min()
    yield tm.at_least(
        says, 1.2, cost, FOUND, threshold="Ours, after a first run, because a fifth is easily seen."
    )
    traded = wrong_at_one_error(random, adversarial)
    ours = "Ours, after a first run, because a tenth is more than rounding."
    says = "Decompositions of a pentagon with adversarial masks may have fewer wrong importances "
    says += "than those with random masks and an equal worst error, measured by the smallest ratio "
    says += "of the means over worst errors."
    yield tm.at_most(says, 0.9, traded.min(), FOUND, threshold=ours)
    says = "Decompositions of a pentagon with adversarial masks may have more wrong importances "
    says += "than those with random masks and an equal worst error, measured by the largest ratio "
    says += "of the means over worst errors."
    yield tm.at_least(says, 1.1, traded.max(), FOUND, threshold=ours)

    own = results.sel(minimality=some)
    where = f"at the penalty {some:g}, in the mean over seeds"
    plain = own.isel(ascents=0)
    says = "The mean over features of the maximal cosine with a subcomponent of the first matrix "
    says += f"(MMCS) is 1 with random masks {where}."
    yield tm.near(says, 1, plain["cosine"].mean(), SPD, within=0.005, threshold=FEWER, note=SHARED)
    says = "The mean ratio of the length of the most similar subcomponent, in the column of a "
    says += f"feature, to that of the feature (ML2R) is 0.992 with random masks {where}."
    yield tm.near(
        says, 0.992, plain["ratio"].mean(), SPD, within=0.03, threshold=FEWER, note=SHARED
    )
    says = f"Two subcomponents of the identity live with random masks {where}."
    nearest = "Ours, because the nearest whole number is then 2."
    count = (plain["length"] > LIVING).sum("part").mean()
    yield tm.near(says, 2, count, SPD, within=0.5, threshold=nearest, note=THREE)
    says = "A feature needs 8/5 subcomponents of the identity on average, because two of five "
    says += f"features are orthogonal to one of its two subcomponents, {where}, measured with the "
    says += "masks that are further from it."
    needed = own["needed"].mean(("seed", "feature")) - 1.6
    furthest = 1.6 + needed.isel(ascents=int(np.abs(needed).argmax("ascents")))
    yield tm.near(says, 1.6, furthest, MINIMAL, within=0.2, threshold=TWO)
    says = "Living subcomponents of the identity read orthogonally to some feature, measured by "
    says += f"the mean of their smallest absolute cosine with a feature {where}."
    chance = (1 - np.cos(np.pi / 10)) / (np.pi / 10)
    third = f"Ours, because it is a third of {chance:.3f}, which random directions have on average."
    value = own["tilt"].where(own["length"] > LIVING).mean()
    yield tm.at_most(says, chance / 3, value, MINIMAL, threshold=third, note=TILTED)


def wrong_at_one_error(random: xr.Dataset, adversarial: xr.Dataset) -> np.ndarray:
    """Return the ratios of wrong importances at worst errors that masks of both kinds reach."""
    lines = []
    for means in (random, adversarial):
        own = means.sortby("worst_error")
        lines.append((np.log(own["worst_error"].values), own["identity_error"].values))
    (first, _), (second, _) = lines
    low, high = max(first[0], second[0]), min(first[-1], second[-1])
    errors = np.linspace(low, high, 50) if low < high else np.array([np.nan])
    below, above = (np.interp(errors, *line) for line in lines)
    return above / below


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (worst, traded, plane) = plotting.figure(1, 3, size=(9.0, 3.8))
    some = results["minimality"].values[results.sizes["minimality"] // 2]
    named = results.assign_coords(ascents=["random masks", "adversarial masks"])
    means = named.mean("seed")
    how = {"x": "minimality", "lines": "ascents", "choice": "mean"}
    plotting.every_seed(worst, named["worst_error"], chosen=means["worst_error"], **how)
    plotting.spokes(plane, results["weights"].transpose("hidden", "feature"), color="0.75")
    for place, name in enumerate(named["ascents"].values):
        own, mean, color = named.sel(ascents=name), means.sel(ascents=name), f"C{place}"
        look = {"marker": plotting.MARKERS[place], "color": color}
        dots = [own[each].values.ravel() for each in ("worst_error", "identity_error")]
        traded.plot(*dots, ls="", ms=3, alpha=0.5, mew=0, **look)
        traded.plot(mean["worst_error"], mean["identity_error"], ms=4, lw=1.2, **look)
        one = own.sel(minimality=some).isel(seed=0)
        reads = one["reads"].where(one["length"] > LIVING).transpose("part", "hidden").values
        ends = reads / np.linalg.norm(reads, axis=1, keepdims=True)
        for x, y in ends[np.isfinite(ends).all(axis=1)]:
            plane.plot([-x, x], [-y, y], color=color, ls=("-", "--")[place], lw=2)
    worst.set(xscale="log", yscale="log", xlabel="penalty on importances")
    worst.set_ylabel("worst error / mean square of output")
    worst.set_title("Adversarial masks lower the worst\nerror, if the penalty is small")
    traded.set(xscale="log", xlabel="worst error / mean square of output", ylim=(0, None))
    traded.set_ylabel("wrong importances (first matrix)")
    traded.set_title("Fewer wrong importances\ncost a larger worst error")
    plane.set_title(f"What the identity's subcomponents\nread (lines; penalty {some:g}, seed 0)")
    plane.set_xlabel("grey: features; colours as on the left")
    worst.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
