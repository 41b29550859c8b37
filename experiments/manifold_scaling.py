r"""Growing dictionaries on manifolds: frequent circles may take the latents of rare features.

Claim      Directions from the centre of a circle write it, one at a time, with an error that falls
           with the square of their number. Trained dictionaries do better: their bias leaves the
           circle, so that each direction crosses it twice. If frequencies fall faster with rank
           than errors with latents, frequent circles take nearly all latents of a growing
           dictionary; else new features get most of them. Four latents of which two are active
           write a circle exactly.
Reproduces Michaud et al. (2025), the exponents; the circle is ours.
Settings   Points are uniform on one circle of radius 1. Divisions of latents are exact, among
           infinitely many features. The frequency of a feature is rank^-(1 + alpha), and its error
           falls with the number of its latents as latents^-beta; circles have beta 2.
Selection  The best of the seeds, because random starts leave latents dead.
Command    toymodels run experiments/manifold_scaling.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import dictionary_scaling as scaling

MICHAUD = tm.paper("Michaud et al. (2025), SAE Scaling in the Presence of Feature Manifolds")
CONVEX = tm.prediction("theory.dictionary_scaling.circle_error")
CONE = tm.prediction("Neighbouring directions less than half a turn apart span all points between")
FOUND = tm.finding("theory.dictionary_scaling.circle_error and allocation")
FOUND_BIAS = tm.finding("first measured here")
SECOND = "Ours, after a second run, to test the explanation."
FINITE = "Ours, because exponents are slopes at finite sizes."
SAMPLED = "Ours, because the error is that of 16,384 random points."
OUTSIDE = (
    "The closed form is that of directions from the centre. Trained biases leave the circle, as "
    "another claim says. Each direction then crosses it twice, and from far away the best error of "
    "n directions is 0.30 / n^2 instead of 3.3 / n^2 (by the formula of Panter and Dite)."
)
REST = (
    "At these sizes most of the error is of features that have no latent yet. Their error falls "
    "with the exponent alpha (1 + beta) / (1 + alpha), here 0.625, before the other one takes over."
)
FIT = "Ours, because fits of finite length do not converge entirely."
LAWS = {
    "alpha 1, beta 1/2": (1.0, 0.5),
    "alpha 1/2, beta 1": (0.5, 1.0),
    "alpha 1, beta 1/4": (1.0, 0.25),
    "alpha 1, circles": (1.0, 2.0),
    "alpha 4, circles": (4.0, 2.0),
}
"""The exponents alpha and beta of each law; circles have beta 2."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    latents: tuple[int, ...] = (4, 8, 16)
    num_seeds: int = 8
    gains: tuple[float, ...] = (1e-6, 3e-7, 1e-7, 3e-8, 1e-8)
    """The least gains for which a latent is spent; smaller ones need more latents."""
    training: tm.Recipe = tm.Recipe(steps=2000, batch=256, learning_rate=1e-2)


SMOKE = Config(
    latents=(4,),
    num_seeds=1,
    gains=(1e-3, 1e-4),
    training=tm.Recipe(steps=4, batch=16, learning_rate=1e-2),
)


def run(config: Config) -> xr.Dataset:
    points = tm.Circles(1, density=1.0)

    def cell(key, *, latents, active):
        key, key_rows = jax.random.split(key)
        model = tm.TopKAutoencoder(latents, active)
        how = config.training.settings()
        params = tm.fit_autoencoder(key, model, points, penalty=0.0, **how).params
        rows = points.sample(key_rows, 16_384)
        rebuilt = jax.vmap(lambda h: model.apply({"params": params}, h).reconstruction)(rows)
        error = jnp.mean(jnp.sum((rows - rebuilt) ** 2, axis=1))
        return {"error": error, "bias": jnp.linalg.norm(params["decoder_bias"])}

    axes, static = {"active": [1.0, 2.0]}, {"latents": config.latents}
    trained = tm.sweep(cell, axes=axes, static=static, num_seeds=config.num_seeds)
    return trained.assign(divisions(config))


def divisions(config: Config) -> dict[str, xr.DataArray]:
    """Return the latents, the found features and the loss of each law and each least gain."""
    rows = []
    for name, (alpha, beta) in LAWS.items():
        gains = scaling.power_gains(beta, 10**6)
        if name.endswith("circles"):
            # One latent reaches half of a circle, and writes half of that.
            errors = np.array([1.0, 0.75, *map(scaling.circle_error, range(2, 3000))])
            gains = errors[:-1] - errors[1:]
        rows.append([scaling.allocation(gains, alpha, each) for each in config.gains])
    coords = {"law": list(LAWS), "gain": list(config.gains)}
    values = np.array(rows, float)
    names = ("size", "found", "loss")
    return {each: xr.DataArray(values[..., i], coords) for i, each in enumerate(names)}


def exponent(results: xr.Dataset, name: str, law: str) -> float:
    """Return the slope of the logarithm against that of the number of latents, at the large end."""
    own = results.sel(law=law).isel(gain=[-3, -1] if results.sizes["gain"] > 2 else [0, -1])
    rise, width = (np.diff(np.log(own[each].values))[0] for each in (name, "size"))
    return float(rise / width)


def claims(results: xr.Dataset) -> tm.Claims:
    best = results["error"].min("seed")
    sizes = results["latents"].values
    law = xr.DataArray([scaling.circle_error(int(each)) for each in sizes], {"latents": sizes})
    ratio = best.sel(active=1) / law
    says = "TopK autoencoders with one active latent tile a circle as well as equal distances do, "
    says += "measured by the largest ratio of the best seed's error to the closed form."
    yield tm.near(says, 1, ratio.max(), CONVEX, within=0.1, threshold=FIT, note=OUTSIDE)
    says = "No TopK autoencoder with one active latent has a smaller error on a circle than the "
    says += "closed form, measured by the smallest ratio over seeds and sizes."
    least = (results["error"].sel(active=1) / law).min()
    yield tm.at_least(says, 1, least, CONVEX, slack=0.03, threshold=SAMPLED, note=OUTSIDE)
    says = "Biases of the best TopK autoencoders with one active latent lie outside the circle, "
    says += "measured by the smallest length of a bias in radii."
    bias = tm.best_of(results[["error", "bias"]].sel(active=1), "error")["bias"].min()
    yield tm.at_least(says, 1, bias, FOUND_BIAS, threshold=SECOND)
    says = "TopK autoencoders with two active latents write a circle exactly, measured by the "
    says += "error of the best seed of the smallest size."
    yield tm.near(says, 0, best.sel(active=2).isel(latents=0), CONE, within=0.01, threshold=FIT)
    for name, (alpha, beta) in LAWS.items():
        source = FOUND if name.endswith("circles") else MICHAUD
        found = min(1.0, (1 + beta) / (1 + alpha))
        case = f"{name}: frequencies are rank^-(1 + alpha), errors are latents^-beta"
        says = (
            "The number of features that have a latent grows with the exponent min(1, (1 + beta) "
        )
        says += f"/ (1 + alpha)) of the number of latents ({case})."
        own = exponent(results, "found", name)
        yield tm.near(says, found, own, source, within=0.05, threshold=FINITE)
        says = "The error of the best division of latents falls with the exponent min(alpha, beta) "
        says += f"of their number ({case})."
        own = -exponent(results, "loss", name)
        how = {"within": 0.05, "threshold": FINITE, "note": REST if beta < 0.5 else ""}
        yield tm.near(says, min(alpha, beta), own, source, **how)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (left, middle, right) = plotting.figure(1, 3, size=(9, 3.3))
    fine = np.arange(2, 33)
    exact = [scaling.circle_error(int(each)) for each in fine]
    left.loglog(fine, exact, color="0.4", lw=1, label="from the centre (exact)")
    for seed in results["error"].sel(active=1).transpose("seed", "latents").values:
        left.loglog(results["latents"], seed, "o", color="C0", ms=3, alpha=0.5)
    best = results["error"].sel(active=1).min("seed")
    label = f"best of {results.sizes['seed']} seeds (dots: all)"
    left.loglog(results["latents"], best, "o", color="C1", ms=5, label=label)
    left.set(xlabel="latents on one circle", ylabel="mean squared error")
    left.set_title("One latent at a time does better\nthan directions from the centre")
    plotting.plain_ticks(left, "x", (2, 4, 8, 16, 32))
    for number, name in enumerate(LAWS):
        own = results.sel(law=name)
        middle.loglog(own["size"], own["found"], "o-", ms=3, color=f"C{number}", label=name)
        right.loglog(own["size"], own["loss"], "o-", ms=3, color=f"C{number}")
    middle.set(xlabel="latents", ylabel="features with a latent")
    middle.set_title("New features get few latents\nif alpha is above beta")
    right.set(xlabel="latents", ylabel="error of all features")
    right.set_title("The error that is left\nfalls fastest for circles")
    left.legend(loc="lower left")
    middle.legend(fontsize=7, loc="upper left")
    says = "frequency: rank$^{-(1+\\alpha)}$\nerror: latents$^{-\\beta}$"
    right.text(0.97, 0.03, says, transform=right.transAxes, ha="right", fontsize=8)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
