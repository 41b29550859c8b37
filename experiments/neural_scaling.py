r"""Neural scaling from superposition: how the loss falls with width, and what decides how fast.

Claim      Without superposition the loss would fall with width as the frequencies of the features
           do. With superposition of all features it falls about as 1 / width or faster, whatever
           the frequencies. The exponent is no constant: it grows as the width nears the number of
           features, because trained directions avoid positive overlaps, which random ones do not.
Reproduces Liu, Liu and Gore (2025), loss against width in weak and strong superposition. The loss
           of random directions is derived here.
Settings   Frequencies fall as rank^-(1 + a), with one active feature in the mean. Weight decay d
           shrinks directions if it is positive, and pulls their lengths to 1 if it is negative.
           Sizes are a tenth of the paper's, and values are in [0, 1], which scales the loss alone.
Selection  None: all seeds are shown. Losses are divided by that of the best constant.
Command    toymodels run experiments/neural_scaling.py
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import bounds
from toymodels.theory import widths as theory

LIU = tm.paper("Liu, Liu and Gore (2025), Superposition Yields Robust Neural Scaling")
WELCH = tm.identity("Welch bound: Cauchy and Schwarz on the eigenvalues of the Gram matrix")
EXACT = tm.prediction("The exact loss of random directions with the best length and bias")
FOUND = tm.finding("found here")
SEEN = "Ours, after a trial with one seed."
STORED = 0.5
"""A feature is stored if its direction is longer than this."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 128
    widths: tuple[int, ...] = (4, 8, 16, 32)
    exponents: tuple[float, ...] = (0.0, 0.5, 1.0)
    weight_decays: tuple[float, ...] = (-1.0, 0.0, 1.0)
    num_seeds: int = 2
    training: tm.Recipe = tm.Recipe(steps=2000, batch=512, learning_rate=1e-2)


SMOKE = Config(
    num_features=24,
    widths=(2, 3),
    exponents=(0.0, 1.0),
    weight_decays=(-1.0, 1.0),
    num_seeds=1,
    training=tm.Recipe(steps=5, batch=8, learning_rate=1e-2),
)


def densities(num_features: int, exponent, np=np) -> Any:
    """Return the densities of all features, whose sum is 1."""
    falling = np.arange(1.0, num_features + 1) ** -(1 + exponent)
    return falling / np.sum(falling)


def decay(rate: optax.Schedule, strength) -> optax.GradientTransformation:
    """Shrink all directions, or, if the strength is negative, pull their lengths to 1."""

    def update(updates, step, params):
        weights = params["weights"]
        unit = weights / jnp.maximum(jnp.linalg.norm(weights, axis=0, keepdims=True), 1e-6)
        shorter = jnp.where(strength < 0, weights - unit, weights)
        shrunk = updates["weights"] - rate(step) * jnp.abs(strength) * shorter
        return {**updates, "weights": shrunk}, step + 1

    return optax.GradientTransformation(lambda _: jnp.zeros((), jnp.int32), update)  # pyright: ignore[reportArgumentType]


def run(config: Config) -> xr.Dataset:
    recipe, features = config.training, config.num_features
    rate = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps, alpha=0.05)

    def cell(key, *, width, exponent, weight_decay):
        start = nn.initializers.normal(width**-0.5)
        task = tm.Task(tm.SparseUniform(features, densities(features, exponent, jnp)))
        trained = tm.train(
            key,
            tm.ReLUOutput(hidden=width, initializer=start),
            task,
            optimizer=optax.chain(optax.adam(rate), decay(rate, weight_decay)),
            steps=recipe.steps,
            batch=recipe.batch,
        )
        weights = trained.params["weights"]
        length = jnp.linalg.norm(weights, axis=0)
        unit = weights / jnp.maximum(length, 1e-6)
        overlap = (unit.T @ unit) * (1 - jnp.eye(features))
        squares = jnp.sum(overlap**2)
        return {
            "loss": trained.loss,
            "stored": jnp.sum(length > STORED) + 0.0,
            "overlap": squares / (features * (features - 1)),
            "positive": jnp.sum(jax.nn.relu(overlap) ** 2) / squares,
        }

    results = tm.sweep(
        cell,
        static={"width": config.widths},
        axes={"exponent": config.exponents, "weight_decay": config.weight_decays},
        num_seeds=config.num_seeds,
    )
    each = [densities(features, exponent) for exponent in config.exponents]
    constant = [theory.loss_without_superposition(density, 0) for density in each]
    results["loss"] = results["loss"] / xr.DataArray(constant, dims="exponent")
    tails = [
        [theory.loss_without_superposition(d, m) / d0 for m in range(features + 1)]
        for d, d0 in zip(each, constant, strict=True)
    ]
    results["tail"] = (("exponent", "kept"), tails)
    found = [
        theory.best_random_directions(1 / features, num_features=features, hidden=m)
        for m in config.widths
    ]
    flat = theory.loss_without_superposition(densities(features, 0.0), 0)
    results["random"] = ("width", [each.loss / flat for each in found])
    return results


def slope(loss: xr.DataArray) -> float:
    """Return the exponent of loss against width, the mean over all other dimensions."""
    logarithm = np.log(loss).mean([each for each in loss.dims if each != "width"])
    return float(-np.polyfit(np.log(loss["width"].values), logarithm.values, 1)[0])


def tail(results: xr.Dataset) -> xr.DataArray:
    """Return the loss of models that have one dimension for each of their features."""
    return results["tail"].sel(kept=results["width"].astype(int)).drop_vars("kept", errors="ignore")


def claims(results: xr.Dataset) -> tm.Claims:
    features = results.sizes["kept"] - 1
    decays, widths = results["weight_decay"].values, results["width"].values
    strong, weak = results.sel(weight_decay=decays[0]), results.sel(weight_decay=decays[-1])
    flat, steep = strong.isel(exponent=0), strong.isel(exponent=-1)
    narrow = widths <= features / 8

    says = "With weight decay -1 all features are stored, measured by the smallest share over all "
    says += "models."
    ours = "Ours, because the paper shows a curve at 1."
    yield tm.at_least(says, 0.99, strong["stored"].min() / features, LIU, threshold=ours)
    says = "With weight decay 1 and the steepest frequencies, models store about as many features "
    says += "as they have dimensions, measured by the largest ratio."
    ours = "Ours, because the paper compares by eye."
    ratio = (weak["stored"] / weak["width"]).isel(exponent=-1).max()
    note = "Nothing keeps these models from superposition where there is room for it."
    yield tm.near(says, 1, ratio, LIU, within=0.5, threshold=ours, note=note)
    says = "With weight decay -1 and equal frequencies the loss falls as width^-1 up to an eighth "
    says += "of the number of features, measured by the exponent."
    ours = "Ours, because the exponents of a trial in another size were 0.9 to 1.4."
    yield tm.near(says, 1, slope(flat["loss"][narrow]), LIU, within=0.4, threshold=ours)
    says = "With weight decay -1 steeper frequencies give larger exponents, measured by the "
    says += "difference of the exponents of the steepest and of equal frequencies."
    ours = "Ours, because the paper gives no number for these sizes."
    yield tm.at_least(says, 0.3, slope(steep["loss"]) - slope(flat["loss"]), LIU, threshold=ours)
    says = "With weight decay 1 the exponents are those of the features that do not fit, measured "
    says += "by the largest difference over frequencies."
    note = "Also these models store more features than dimensions, so that they are not without "
    note += "superposition, and their loss falls faster."
    off = [
        abs(slope(weak["loss"].isel(exponent=k)) - slope(tail(results).isel(exponent=k)))
        for k in range(results.sizes["exponent"])
    ]
    ours = "Ours, because the paper compares by eye."
    yield tm.near(says, 0, max(off), LIU, within=0.3, threshold=ours, note=note)
    says = "With weight decay 1 no model is better than if its stored features were perfect, "
    says += "measured by the smallest ratio of the losses."
    perfect = results["tail"].sel(kept=weak["stored"].astype(int)).clip(min=1e-9)
    yield tm.at_least(says, 1, (weak["loss"] / perfect).min(), FOUND)

    frames = [bounds.min_frame_potential(np.ones(features), int(m)) for m in widths]
    least = (np.array(frames) - features) / (features * (features - 1))
    least = xr.DataArray(least, {"width": widths}, ("width",))
    says = "No mean squared overlap is below the Welch bound (n - m) / (m (n - 1)), measured by "
    says += "the smallest ratio."
    yield tm.at_least(says, 1, (results["overlap"] / least).min(), WELCH, slack=1e-5)
    says = "With weight decay -1 and equal frequencies mean squared overlaps are those of tight "
    says += "frames, measured by the largest relative difference."
    ours = "Ours, because independent directions are above by m / n, which is up to 1/4."
    note = "Where width is a quarter of the number of features they are nearer to those of "
    note += "independent directions."
    off = (flat["overlap"] / least - 1).max()
    yield tm.near(says, 0, off, FOUND, within=0.05, threshold=ours, note=note)
    says = "With weight decay -1 and equal frequencies mean squared overlaps are 1 / m, measured "
    says += "by the largest relative difference over widths."
    ours = "Ours, because the paper compares by eye."
    note = "The narrowest models are above 1 / m, up to 1.26 / m. The widest ones are below, "
    note += "because the overlaps of tight frames are 0.76 / m there."
    off = abs(flat["overlap"] * flat["width"] - 1).max()
    yield tm.near(says, 0, off, LIU, within=0.1, threshold=ours, note=note)
    says = "Positive overlaps are less than a third of squared overlaps in the widest models of "
    says += "weight decay -1 and equal frequencies, and a half for random directions, measured by "
    says += "the mean share."
    ours = "Ours, because it is far from a half."
    yield tm.at_most(says, 1 / 3, flat["positive"][-1].mean(), FOUND, threshold=ours)
    says = "Training with weight decay -1 lowers the loss of the widest models of equal "
    says += "frequencies to a fifth of that of random directions with the best length and bias, "
    says += "measured by the ratio."
    ratio = flat["loss"].mean("seed") / results["random"]
    yield tm.at_most(says, 0.2, ratio[-1], FOUND, threshold=SEEN)
    says = "Random directions with the best length and bias have the exponent 1 between the two "
    says += "largest widths."
    ours = "Ours, because it is the sparse limit of many features with corrections."
    yield tm.near(says, 1, slope(results["random"][-2:]), EXACT, within=0.2, threshold=ours)
    says = "The exponent of trained models grows with width at equal frequencies, measured by the "
    says += "difference between the largest two and the smallest two widths."
    grows = slope(flat["loss"][-2:]) - slope(flat["loss"][:2])
    yield tm.at_least(says, 1, grows, FOUND, threshold=SEEN)
    says = "Growth of lengths is not what lowers the loss, measured by the largest relative "
    says += "difference of the mean losses with weight decays -1 and 0, from the second width on, "
    says += "at equal frequencies."
    plain = results.sel(weight_decay=0, method="nearest").isel(exponent=0)["loss"].mean("seed")
    off = abs(flat["loss"].mean("seed") / plain - 1)[1:].max()
    yield tm.near(says, 0, off, FOUND, within=0.1, threshold=SEEN)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(1, 3, size=(9, 3.7))
    draw_losses(axes[0], results)
    draw_exponents(axes[1], results)
    draw_random(axes[2], results)
    return figure


def draw_losses(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw loss against width in both regimes, with the exact loss without superposition."""
    decays = results["weight_decay"].values
    for k, exponent in enumerate(results["exponent"].values):
        here, color = results["loss"].sel(exponent=exponent), f"C{k}"
        for at, style, label in ((0, "o-", f"a = {exponent:g}"), (-1, "s--", None)):
            mean = here.sel(weight_decay=decays[at]).mean("seed")
            axes.loglog(mean["width"], mean, style, color=color, ms=4, lw=1.3, label=label)
        axes.loglog(results["width"], tail(results).isel(exponent=k), ":", color=color, lw=1)
    axes.set_xlabel("width $m$")
    plotting.plain_ticks(axes, "x", results["width"].values.tolist())
    axes.plot([], [], "k-", lw=1.3, label="weight decay -1: all stored")
    axes.plot([], [], "k--", lw=1.3, label="weight decay 1: fewer stored")
    axes.plot([], [], "k:", lw=1, label="$m$ perfect features (exact)")
    axes.set_title("Models that store more features\nhave a lower loss")
    axes.set_ylabel(f"loss / best constant, mean of {results.sizes['seed']} seeds")
    title = "rank$^{-(1+a)}$"
    axes.legend(fontsize=7, title=title, title_fontsize=7, loc="lower left")


def draw_exponents(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the exponents of all seeds against that of the frequencies."""
    exponents = results["exponent"].values
    for k, decay in enumerate(results["weight_decay"].values):
        values = [
            [slope(results["loss"].sel(exponent=a, weight_decay=decay, seed=s)) for a in exponents]
            for s in results["seed"].values
        ]
        for number, of_seed in enumerate(values):
            label = f"weight decay {decay:g}" if number == 0 else None
            axes.plot(exponents, of_seed, plotting.MARKERS[k], color=f"C{k + 3}", ms=5, label=label)
    lines = [slope(tail(results).isel(exponent=k)) for k in range(len(exponents))]
    axes.plot(exponents, lines, "k:", lw=1, label="$m$ perfect features (exact)")
    axes.axhline(1, color="0.6", lw=1)
    axes.set(xlabel="exponent $a$ of frequencies", ylabel="exponent of the loss", ylim=(0, None))
    axes.set_title("The loss falls faster with width than\n$m$ perfect features say (all seeds)")
    axes.legend(fontsize=7)


def draw_random(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw trained models of equal frequencies beside random directions."""
    flat = results["loss"].isel(exponent=0, weight_decay=0)
    plotting.every_seed(axes, flat, x="width", label="trained, $a = 0$", legend=False)
    axes.plot(results["width"], results["random"], "k-", lw=1.3, label="random directions (exact)")
    reference = float(results["random"][-1]) * float(results["width"][-1]) / results["width"]
    axes.plot(results["width"], reference, color="0.6", lw=1, label="$1/m$")
    axes.set(xscale="log", yscale="log", xlabel="width $m$", ylabel="loss / best constant")
    plotting.plain_ticks(axes, "x", results["width"].values.tolist())
    axes.set_title("Training beats random directions,\nmost of all in wide models")
    axes.legend(fontsize=7)


if __name__ == "__main__":
    experiment.main(__file__)
