r"""Feature hedging: a dictionary that is too narrow, or too sparse, mixes correlated features.

Claim      One tied latent for a parent and a child that occurs only with it lies between them, at
           $\tan 2t = 2 r / a$ (parent alone $a$, both $r$): a principal component. An autoencoder
           with biases does the same with the CENTRED examples, whatever the density, and agrees
           with that formula only where features are rare. With a latent for each of a set of
           correlated features hedging ends. In a Matryoshka autoencoder the first latent hedges if
           the loss of its own counts much, and is absorbed if it counts little: in between lies a
           balance. BatchTopK with $k$ below the true number of active features mixes the feature
           that is correlated with all others into their latents, by the sign of the correlation,
           and has a LOWER error than the true dictionary at that $k$.
Reproduces Chanin et al. (2025), "Feature Hedging", sections on one latent and on balancing
           Matryoshka autoencoders; Chanin, Garriga-Alonso (2025), "Sparse but Wrong", small toy.
Settings   Theirs: trees of one parent (0.25) and three children (0.15), penalty 0.03, all starts at
           the true dictionary; five features of density 0.4, correlation of the first with the
           others 0.4 or -0.4, k = 1.8 against 2. Ours: values are 1 in trees and uniform on
           (0.5, 1] elsewhere, features are the hidden dimensions, all other numbers. From the
           true dictionary too large a k does no harm, for the loss is 0 there: what the paper
           finds from random starts is not tested.
Selection  None: one latent starts between parent and child, all others at the true dictionary;
           maps are means over seeds, which only decide the data.
Command    toymodels run experiments/feature_hedging.py
"""

import dataclasses
from typing import Any, Final

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import autoencoders, experiment
from toymodels.analysis import dictionaries
from toymodels.theory import dictionaries as exact

HEDGING = "Chanin et al. (2025), Feature Hedging"
WRONG = "Chanin, Garriga-Alonso (2025), Sparse but Wrong"
FEATURES: Final = 5
DENSITY: Final = 0.4
TRUE_L0: Final = FEATURES * DENSITY
CHILDREN: Final = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    densities: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Of the parent."""
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Of the examples of the parent, those with the child."""
    penalty: float = 1e-3
    """Of the autoencoder of one latent."""
    widths: tuple[int, ...] = (1, 2, 3, 4, 5)
    factors: tuple[float, ...] = tuple(2.0**power for power in range(-5, 5))
    """Of the first term of the Matryoshka loss."""
    children: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    """Probability of each child given the parent."""
    tree_penalty: float = 0.03
    counts: tuple[float, ...] = (1.0, 1.2, 1.4, 1.6, 1.8, 1.9, 2.0, 2.1, 2.4)
    """Of BatchTopK: latents of an example, on average."""
    correlations: tuple[float, ...] = (-0.4, -0.3, -0.15, 0.0, 0.15, 0.3, 0.4)
    narrow_seeds: int = 8
    num_seeds: int = 2
    steps: int = 2000
    batch: int = 256
    learning_rate: float = 1e-2
    """The learning rate at the start of a cosine schedule."""
    examples: int = 8192


SMOKE = Config(
    densities=(0.2,), shares=(0.5,), widths=(2,), factors=(1.0,), children=(0.15,),
    counts=(1.8, 2.0), correlations=(0.4,), narrow_seeds=1, num_seeds=1, steps=5,
    batch=8, examples=64,
)  # fmt: skip


def run(config: Config) -> xr.Dataset:
    parts = [narrow(config), wide(config), balanced(config), sparse(config)]
    return xr.merge(parts, join="outer")  # of seeds, more in the first


def _optimizer(config: Config) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))


def _truth(model: Any, weights: Any) -> Any:
    """The parameters of an autoencoder that reads and writes the columns of `weights`."""
    params = model.init(jax.random.key(0), weights[:, 0])["params"]
    return {**params, "decoder": weights, "encoder": weights.T}


def narrow(config: Config) -> xr.Dataset:
    """One latent for a parent and its child: tied and of length 1, and an autoencoder."""
    model = autoencoders.ReLUAutoencoder(1)
    between = jnp.full((2, 1), 0.5**0.5)

    def tied(params: Any, hidden: Any) -> Any:
        unit = autoencoders.dictionary(params)[:, 0]
        return jnp.sum((hidden - unit * (unit @ hidden)) ** 2)

    def cell(key: Any, *, density: Any, share: Any) -> dict[str, Any]:
        world = tm.Hierarchy((-1, 0), jnp.stack([density, share]), exclusive=False, smallest=1.0)
        how: Any = {"optimizer": _optimizer(config), "steps": config.steps, "batch": config.batch}
        unit = tm.fit(key, {"decoder": between}, tied, world.sample, **how).params
        whole = autoencoders.fit_autoencoder(
            key, model, world, penalty=config.penalty, start=_truth(model, between), **how
        ).params
        angles = [jnp.arctan2(*params["decoder"][::-1, 0]) for params in (unit, whole)]
        return {"tied": jnp.rad2deg(angles[0]), "untied": jnp.rad2deg(angles[1])}

    results = tm.sweep(
        cell,
        axes={"density": config.densities, "share": config.shares},
        num_seeds=config.narrow_seeds,
    )
    alone, both = results.density * (1 - results.share), results.density * results.share
    angle = xr.apply_ufunc(exact.hedging_angle, alone, both, vectorize=True)
    return results.assign(tied_exact=np.rad2deg(angle), centred=centred(alone, both))


def centred(alone: xr.DataArray, both: xr.DataArray) -> xr.DataArray:
    r"""Angle of the first principal component of the centred examples, in degrees.

    With biases, codes of the three different examples, affinely independent, can be any numbers:
    the best are projections to the best line. Variances are $p(1-p)$ and $r(1-r)$, $p = a + r$, the
    covariance $r(1-p)$.
    """
    parent = alone + both
    difference = parent * (1 - parent) - both * (1 - both)
    return xr.apply_ufunc(np.rad2deg, np.arctan2(2 * both * (1 - parent), difference) / 2)


def _correlated(correlation: Any) -> tm.GaussianCopula:
    """The first feature is correlated with each of the others, which are independent."""
    own = jnp.sqrt(1 - (FEATURES - 1) * correlation**2)
    mixing = jnp.eye(FEATURES).at[0].set(correlation).at[0, 0].set(own)
    return tm.GaussianCopula(DENSITY, mixing, smallest=0.5)


def wide(config: Config) -> xr.Dataset:
    """Autoencoders of one latent up to one for each feature."""

    def cell(key: Any, *, width: Any, correlation: Any) -> dict[str, Any]:
        model = autoencoders.ReLUAutoencoder(width)
        weights = jnp.eye(FEATURES)
        params = autoencoders.fit_autoencoder(
            key, model, _correlated(correlation), penalty=config.tree_penalty,
            optimizer=_optimizer(config), steps=config.steps, batch=config.batch,
            start=_truth(model, weights[:, :width]),
        ).params  # fmt: skip
        features = jnp.arange(FEATURES)
        own = jnp.where(features < width, features, -1)
        degrees = dictionaries.hedging_degree(params["decoder"], weights, own)
        return {"hedging": jnp.sum(degrees) / width}

    return tm.sweep(
        cell,
        axes={"correlation": config.correlations},
        static={"width": config.widths},
        num_seeds=config.num_seeds,
    )


def balanced(config: Config) -> xr.Dataset:
    """Matryoshka autoencoders of a tree: what the parent's latent reads of the children."""
    weights = jnp.eye(1 + CHILDREN)

    def cell(key: Any, *, factor: Any, child: Any) -> dict[str, Any]:
        prefixes = (1, 1 + CHILDREN)
        model = autoencoders.MatryoshkaAutoencoder(
            1 + CHILDREN, prefixes, jnp.stack([factor, jnp.ones(())])
        )
        density = jnp.full(1 + CHILDREN, child).at[0].set(0.25)
        world = tm.Hierarchy((-1, *[0] * CHILDREN), density, exclusive=False, smallest=1.0)
        params = autoencoders.fit_autoencoder(
            key, model, world, penalty=config.tree_penalty, optimizer=_optimizer(config),
            steps=config.steps, batch=config.batch, start=_truth(model, weights),
        ).params  # fmt: skip
        read = params["encoder"][0] / jnp.linalg.norm(params["encoder"][0])
        return {"reads_child": jnp.mean(read[1:])}

    return tm.sweep(
        cell,
        axes={"factor": config.factors, "child": config.children},
        num_seeds=config.num_seeds,
    )


def sparse(config: Config) -> xr.Dataset:
    """BatchTopK autoencoders that keep too few latents, the right number, and too many."""
    weights = jnp.eye(FEATURES)

    def cell(key: Any, *, count: Any, correlation: Any) -> dict[str, Any]:
        world = _correlated(correlation)
        model = autoencoders.BatchTopKAutoencoder(FEATURES, count)
        truth = _truth(model, weights)
        key_fit, key_test = jax.random.split(key)
        params = autoencoders.fit_autoencoder(
            key_fit, model, world, penalty=0.0, optimizer=_optimizer(config), steps=config.steps,
            batch=config.batch, start=truth,
        ).params  # fmt: skip
        fresh = world.sample(key_test, config.examples)

        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, truth)
        errors = jax.vmap(lambda p: model.apply({"params": p}, fresh, 0.0, method="loss"))(both)
        directions = autoencoders.dictionary(params)
        return {
            "mixed": jnp.mean(directions[0, 1:]),
            "strayed": jnp.max(jnp.abs(directions - weights)),
            "error": errors[0],
            "true_error": errors[1],
        }

    return tm.sweep(
        cell,
        axes={"count": config.counts, "correlation": config.correlations},
        num_seeds=config.num_seeds,
    )


def balance(results: xr.Dataset, child: float) -> float:
    """The factor at which the parent's latent reads nothing of the children; NaN if at none."""
    read = results["reads_child"].mean("seed").sel(child=child, method="nearest")
    below = int((read.values < 0).sum())
    if not 0 < below < read.size:
        return np.nan
    near = read.isel(factor=slice(below - 1, below + 1))
    return float(2 ** np.interp(0, near.values, np.log2(near["factor"].values)))


def claims(results: xr.Dataset) -> list[tm.Claim]:
    mean = results.mean("seed")
    rare = mean.sel(density=slice(0, 0.05))
    strong = mean.sel(correlation=abs(mean["correlation"]) >= 0.3)
    low = strong.sel(count=strong["count"] < TRUE_L0 - 0.05)
    right = mean.sel(count=TRUE_L0, method="nearest")
    less = mean.sel(count=1.8, method="nearest")
    positive, negative = (less.sel(correlation=sign * 0.4, method="nearest") for sign in (1, -1))
    widest = int(results["width"].max())
    at_most, at_least = tm.Bound.AT_MOST, tm.Bound.AT_LEAST

    def largest(values: xr.DataArray) -> float:
        return float(abs(values).max()) if values.size else np.nan

    def claim(statement: str, source: str, expected: float, measured: Any, **how: Any) -> tm.Claim:
        return tm.Claim(statement, source, expected=expected, measured=measured, **how)

    return [
        claim(
            "one tied latent: tan 2t = 2 r / a, largest difference over the map, degrees",
            HEDGING, 0, largest(mean["tied"] - mean["tied_exact"]), tolerance=1,
            kind=tm.Kind.PAPER,
            threshold="ours: sampling and convergence",
        ),
        claim(
            "one untied latent with biases: principal component of the centred examples, largest "
            "difference over the map, degrees",
            "derived here", 0, largest(mean["untied"] - mean["centred"]), tolerance=1,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling and convergence",
        ),
        claim(
            "parent density at most 0.05: it agrees with the tied one, largest difference, degrees",
            "derived here: both are equal to first order", 0,
            largest(rare["untied"] - rare["tied_exact"]), tolerance=1.5,
            kind=tm.Kind.PREDICTION,
            threshold="ours: terms of second order in the density",
        ),
        claim(
            "parent always present: the bias takes it, and the latent is the child, least angle",
            "derived here", 90, mean["untied"].isel(density=-1).min(), tolerance=1,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling and convergence",
        ),
        claim(
            "correlation 0.3 or more, one latent for five features: least hedging degree",
            HEDGING, 0.1, strong["hedging"].isel(width=0).min(), bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            f"{widest} latents, a latent for each feature: hedging ends, largest degree",
            HEDGING, 0.05, mean["hedging"].sel(width=widest).max(), bound=at_most,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            "Matryoshka, children of 0.15: the factor that balances hedging and absorption",
            HEDGING, 0.25, balance(results, 0.15), tolerance=0.05,
            kind=tm.Kind.PAPER,
            threshold="ours: two steps of the grid of factors",
        ),
        claim(
            "least factor: absorption, the parent's latent reads children negatively, largest part",
            HEDGING, -0.1, mean["reads_child"].isel(factor=0).max(), bound=at_most,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            "largest factor: hedging, it reads them positively, least part",
            HEDGING, 0.03, mean["reads_child"].isel(factor=-1).min(), bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            "BatchTopK k = 1.8, correlation 0.4: mean part of the first feature in the others",
            WRONG, 0.2, positive["mixed"], bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            "BatchTopK k = 1.8, correlation -0.4: the same", WRONG, -0.2, negative["mixed"],
            bound=at_most,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            "k = 2, the true L0: no part of any feature in another, largest of all correlations",
            WRONG, 0.05, right["strayed"].max(), bound=at_most,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            "k below 2, correlation 0.3 or more: error over that of the true dictionary at the "
            "same k, largest",
            WRONG, 1, (low["error"] / low["true_error"]).max(), bound=at_most,
            kind=tm.Kind.PAPER,
        ),
    ]  # fmt: skip


def plot(results: xr.Dataset) -> Figure:
    figure = Figure(figsize=(10.2, 6), layout="constrained")
    (one, lines, width), (matryoshka, mixed, errors) = figure.subplots(2, 3)
    mean = results.mean("seed")

    untied = mean["untied"].transpose("share", "density")
    _map(one, untied, "angle from the parent, degrees", vmin=0, vmax=90, cmap="viridis")
    shape = [np.arange(size) for size in untied.shape[::-1]]
    if min(untied.shape) > 1:
        exact_lines = one.contour(
            *shape, mean["centred"].transpose(*untied.dims), levels=(10, 20, 30, 60, 80),
            colors="white", linewidths=1,
        )  # fmt: skip
        one.clabel(exact_lines, fontsize=7)
    one.set(xlabel="density of the parent", ylabel="P(child | parent)")
    one.set_title(
        "one untied latent, small L1 penalty\nwhite: centred principal component", fontsize=8
    )

    _lines(lines, results)
    hedging = mean["hedging"].transpose("correlation", "width")
    _map(width, hedging, "hedging degree", vmin=0, cmap="magma")
    width.set(xlabel="latents, of 5 features", ylabel="correlation with feature 1")
    width.set_title("ReLU + L1, density 0.4: hedging against width", fontsize=8)

    reads = mean["reads_child"].transpose("child", "factor")
    _map(matryoshka, reads, "part of a child in encoder 1", vmin=-0.35, vmax=0.35, cmap="RdBu_r")
    if min(reads.shape) > 1:
        shape = [np.arange(size) for size in reads.shape[::-1]]
        matryoshka.contour(*shape, reads, levels=(0,), colors="black")
        place = [
            np.interp(value, mean[name].values, np.arange(mean.sizes[name]))
            for name, value in (("factor", 0.25), ("child", 0.15))
        ]
        matryoshka.plot(*place, "*", color="gold", markeredgecolor="black", markersize=14)
    matryoshka.set(xlabel="factor of the first term", ylabel="P(child | parent)")
    matryoshka.set_title(
        "Matryoshka, latent 1: absorbed (blue), hedging (red)\nline: balance; star: the paper's",
        fontsize=8,
    )

    mixing = mean["mixed"].transpose("correlation", "count")
    _map(mixed, mixing, "mean cosine", vmin=-0.45, vmax=0.45, cmap="RdBu_r")
    mixed.set(xlabel="k of BatchTopK (true L0: 2)", ylabel="correlation with feature 1")
    mixed.set_title("part of feature 1 in the latents of the others", fontsize=8)

    low = results.sel(count=results["count"] < TRUE_L0 - 0.05)
    ratio = low["error"] / low["true_error"]
    colors = matplotlib.colormaps["coolwarm"](np.linspace(0, 1, ratio.sizes["correlation"]))
    for color, correlation in zip(colors, ratio["correlation"].values, strict=True):
        every = (
            ratio.sel(correlation=correlation).transpose("count", "seed").dropna("seed", how="all")
        )
        errors.plot(ratio["count"], every, ".-", color=color, linewidth=1)
        errors.plot([], [], ".-", color=color, label=f"{correlation:g}")
    errors.axhline(1, color="0.5", linewidth=0.8)
    errors.legend(title="correlation", fontsize=6, title_fontsize=7)
    errors.set(xlabel="k of BatchTopK (true L0: 2)", ylabel="error / error of the true dictionary")
    errors.set_title("wrong dictionaries reconstruct better (every seed)", fontsize=8)
    return figure


def _lines(axes: Any, results: xr.Dataset) -> None:
    """Both kinds of one latent against the share of the child, all seeds."""
    shares = results["share"].values
    for number, density in enumerate((0.05, 0.5, 0.8, 0.9)):
        here = results.sel(density=density, method="nearest")
        label = f"{float(here['density']):g}"
        axes.plot(shares, here["centred"], color=f"C{number}", linewidth=1)
        every = here["untied"].transpose("share", "seed")
        axes.plot(shares, every, ".", color=f"C{number}", markersize=4)
        axes.plot([], [], ".-", color=f"C{number}", label=label)
    tied = results["tied"].sel(density=0.5, method="nearest").transpose("share", "seed")
    axes.plot(shares, tied, "x", color="black", markersize=4)
    axes.plot(shares, results["tied_exact"].isel(density=0), color="black", linewidth=1)
    axes.plot([], [], "x-", color="black", label="any, tied")
    axes.legend(title="density", fontsize=6, title_fontsize=6, loc="lower right")
    axes.set(xlabel="P(child | parent)", ylabel="angle from the parent, degrees", ylim=(0, 90))
    axes.set_title("lines: closed forms; points: trained, every seed", fontsize=8)


def _map(axes: Any, values: xr.DataArray, label: str, **colors: Any) -> None:
    """A heat map with one cell for each pair of labels."""
    image = axes.imshow(values, origin="lower", aspect="auto", **colors)
    for dim, axis in zip(values.dims[::-1], (axes.xaxis, axes.yaxis), strict=True):
        numbers = values[dim].values
        labels = [f"1/{1 / v:g}" if dim == "factor" and v < 1 else f"{v:g}" for v in numbers]
        axis.set_ticks(range(values.sizes[dim]), labels)
        axis.set_tick_params(labelsize=6)
    axes.figure.colorbar(image, ax=axes, label=label)


if __name__ == "__main__":
    experiment.main(__file__)
