r"""Feature hedging: a dictionary that is too narrow mixes correlated features.

Claim      One tied latent for a parent and a child that occurs only with it lies between the two,
           at $\tan 2t = 2 r / a$ (the parent occurs alone with probability $a$, both with $r$): a
           principal component. An autoencoder with biases finds the principal component of the
           CENTRED examples at any density, and agrees with that formula only where features are
           rare. With a latent for each of a set of correlated features hedging ends. The first
           latent of a Matryoshka autoencoder hedges if the loss of its own counts much, and is
           absorbed if it counts little: in between lies a balance. `sparse_but_wrong` is about
           dictionaries that are too sparse.
Reproduces Chanin et al. (2025), "Feature Hedging", sections on one latent and on balancing
           Matryoshka autoencoders.
Settings   Theirs: trees of one parent (0.25) and three children (0.15), penalty 0.03, all starts at
           the true dictionary. Ours: values are 1 in trees and uniform on (0.5, 1] elsewhere, five
           correlated features have the density 0.4, features are the hidden dimensions, all other
           numbers.
Selection  None: one latent starts between parent and child, all others at the true dictionary.
           Maps are means over seeds, which only decide the data.
Command    toymodels run experiments/feature_hedging.py
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import dictionaries
from toymodels.theory import dictionaries as exact

HEDGING = tm.paper("Chanin et al. (2025), Feature Hedging")
DERIVED = tm.prediction("derived here")
FIRST_ORDER = tm.prediction("derived here: both are equal to first order")
SAMPLING = "Ours, because examples are sampled and training does not converge entirely."
NO_NUMBER = "Ours, because the paper gives no number."
FEATURES, DENSITY, CHILDREN = 5, 0.4, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Densities of the parent."""
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Probabilities of the child given the parent."""
    penalty: float = 1e-3
    """Penalty of the autoencoder of one latent."""
    widths: tuple[int, ...] = (1, 2, 3, 4, 5)
    factors: tuple[float, ...] = tuple(2.0**power for power in range(-5, 5))
    """Factors of the first term of the Matryoshka loss."""
    children: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    """Probabilities of each of the three children given the parent."""
    tree_penalty: float = 0.03
    correlations: tuple[float, ...] = (-0.4, -0.3, -0.15, 0.0, 0.15, 0.3, 0.4)
    narrow_seeds: int = 8
    num_seeds: int = 2
    training: tm.Recipe = tm.Recipe(steps=2000, batch=256, learning_rate=1e-2)


SMOKE = Config(
    densities=(0.2,),
    shares=(0.5,),
    widths=(2,),
    factors=(1.0,),
    children=(0.15,),
    correlations=(0.4,),
    narrow_seeds=1,
    num_seeds=1,
    training=tm.Recipe(steps=5, batch=8, learning_rate=1e-2),
)


def run(config: Config) -> xr.Dataset:
    parts = [narrow(config), wide(config), balanced(config)]
    return xr.merge(parts, join="outer")  # of seeds, more in the first


def fit(config, key, model, distribution, weights, penalty):
    """Fit an autoencoder from where it reads and writes the columns of `weights`."""
    start = autoencoders.with_dictionary(model, weights)
    how = {"penalty": penalty, "start": start, **config.training.settings()}
    return tm.fit_autoencoder(key, model, distribution, **how).params


def narrow(config):
    """Fit one latent to a parent and its child: tied and of length 1, and an autoencoder."""
    model = tm.ReLUAutoencoder(1)
    between = jnp.full((2, 1), 0.5**0.5)

    def tied(params, hidden):
        unit = autoencoders.dictionary(params)[:, 0]
        return jnp.sum((hidden - unit * (unit @ hidden)) ** 2)

    def cell(key, *, density, share):
        distribution = tm.Hierarchy(
            (-1, 0), jnp.stack([density, share]), exclusive=False, smallest=1.0
        )
        how = config.training.settings()
        unit = tm.fit(key, {"decoder": between}, tied, distribution.sample, **how).params
        whole = fit(config, key, model, distribution, between, config.penalty)
        angles = [jnp.arctan2(*params["decoder"][::-1, 0]) for params in (unit, whole)]
        return {"tied": jnp.rad2deg(angles[0]), "untied": jnp.rad2deg(angles[1])}

    axes = {"density": config.densities, "share": config.shares}
    results = tm.sweep(cell, axes=axes, num_seeds=config.narrow_seeds)
    alone, both = results.density * (1 - results.share), results.density * results.share
    tied_exact, centred = (
        np.rad2deg(xr.apply_ufunc(angle, alone, both, vectorize=True))
        for angle in (exact.hedging_angle, exact.centred_hedging_angle)
    )
    return results.assign(tied_exact=tied_exact, centred=centred)


def wide(config):
    """Fit autoencoders of one latent up to one for each feature."""

    def cell(key, *, width, correlation):
        # The first feature is correlated with the others, which are independent.
        weights, model = jnp.eye(FEATURES), tm.ReLUAutoencoder(width)
        own = jnp.sqrt(1 - (FEATURES - 1) * correlation**2)
        mixing = weights.at[0].set(correlation).at[0, 0].set(own)
        distribution = tm.GaussianCopula(DENSITY, mixing, smallest=0.5)
        params = fit(config, key, model, distribution, weights[:, :width], config.tree_penalty)
        features = jnp.arange(FEATURES)
        own = jnp.where(features < width, features, -1)
        degrees = dictionaries.hedging_degree(params["decoder"], weights, own)
        return {"hedging": jnp.sum(degrees) / width}

    axes, static = {"correlation": config.correlations}, {"width": config.widths}
    return tm.sweep(cell, axes=axes, static=static, num_seeds=config.num_seeds)


def balanced(config):
    """Fit Matryoshka autoencoders to a tree; the parent's latent may read the children."""

    def cell(key, *, factor, child):
        latents = 1 + CHILDREN
        model = tm.MatryoshkaAutoencoder(latents, (1, latents), jnp.stack([factor, jnp.ones(())]))
        density = jnp.full(latents, child).at[0].set(0.25)
        distribution = tm.Hierarchy((-1, *[0] * CHILDREN), density, exclusive=False, smallest=1.0)
        params = fit(config, key, model, distribution, jnp.eye(latents), config.tree_penalty)
        read = params["encoder"][0] / jnp.linalg.norm(params["encoder"][0])
        return {"reads_child": jnp.mean(read[1:])}

    axes = {"factor": config.factors, "child": config.children}
    return tm.sweep(cell, axes=axes, num_seeds=config.num_seeds)


def balance(results: xr.Dataset, child: float) -> float:
    """Return the factor at which the parent's latent reads nothing of the children, or NaN."""
    read = results["reads_child"].mean("seed").sel(child=child, method="nearest")
    below = int((read.values < 0).sum())
    if not 0 < below < read.size:
        return np.nan
    near = read.isel(factor=slice(below - 1, below + 1))
    return float(2 ** np.interp(0, near.values, np.log2(near["factor"].values)))


def claims(results: xr.Dataset) -> tm.Claims:
    mean = results.mean("seed")

    def largest(values):
        return float(abs(values).max()) if values.size else np.nan

    says = "The angle t of one tied latent satisfies tan 2t = 2 r / a, where a is the probability "
    says += "of the parent alone and r that of parent and child, at every density of the parent "
    says += "and every share of the child, measured by the largest difference in degrees."
    difference = largest(mean["tied"] - mean["tied_exact"])
    yield tm.near(says, 0, difference, HEDGING, within=1, threshold=SAMPLING)

    says = "The angle of one untied latent with biases is that of the first principal component of "
    says += "the centred examples at every density and share, measured by the largest difference "
    says += "in degrees."
    difference = largest(mean["untied"] - mean["centred"])
    yield tm.near(says, 0, difference, DERIVED, within=1, threshold=SAMPLING)

    says = "The angle of one untied latent is that of one tied latent at densities of the parent "
    says += "up to 0.05, measured by the largest difference in degrees."
    rare = mean.sel(density=slice(0, 0.05))
    difference = largest(rare["untied"] - rare["tied_exact"])
    second = "Ours, because terms of second order in the density are left out."
    yield tm.near(says, 0, difference, FIRST_ORDER, within=1.5, threshold=second)

    says = "One untied latent is the child itself where the parent is always present, because the "
    says += "bias takes the parent, measured by the smallest angle to the parent in degrees."
    angle = mean["untied"].isel(density=-1).min()
    yield tm.near(says, 90, angle, DERIVED, within=1, threshold=SAMPLING)

    says = "One latent for five features hedges where the correlation is 0.3 or more in size, "
    says += "measured by the smallest hedging degree."
    strong = mean.sel(correlation=abs(mean["correlation"]) >= 0.3)
    degree = strong["hedging"].isel(width=0).min()
    yield tm.at_least(says, 0.1, degree, HEDGING, threshold=NO_NUMBER)

    widest = int(results["width"].max())
    says = f"{widest} latents for five features do not hedge, measured by the largest hedging "
    says += "degree."
    degree = mean["hedging"].sel(width=widest).max()
    yield tm.at_most(says, 0.05, degree, HEDGING, threshold=NO_NUMBER)

    says = "The first latent of the Matryoshka autoencoder neither hedges nor is absorbed at the "
    says += "paper's factor where each child has probability 0.15, measured by the factor at which "
    says += "it is balanced."
    grid = "Ours, because it is two steps of the grid of factors."
    yield tm.near(says, 0.25, balance(results, 0.15), HEDGING, within=0.05, threshold=grid)

    says = "The first latent of the Matryoshka autoencoder reads children negatively at the "
    says += "smallest factor, which is absorption, measured by the largest part of a child."
    part = mean["reads_child"].isel(factor=0).max()
    yield tm.at_most(says, -0.1, part, HEDGING, threshold=NO_NUMBER)

    says = "The first latent of the Matryoshka autoencoder reads children positively at the "
    says += "largest factor, which is hedging, measured by the smallest part of a child."
    part = mean["reads_child"].isel(factor=-1).min()
    yield tm.at_least(says, 0.03, part, HEDGING, threshold=NO_NUMBER)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 2, size=(8.2, 6.4))
    (one, lines), (width, matryoshka) = grid
    mean = results.mean("seed")
    for axes, values, (x, y), label, scale, cmap in (
        (one, mean["untied"], ("density", "share"), "angle, degrees", (0, 90), plotting.VALUE_MAP),
        (
            width,
            mean["hedging"],
            ("width", "correlation"),
            "hedging degree",
            (0, 0.7),
            plotting.VALUE_MAP,
        ),
        (
            matryoshka,
            mean["reads_child"],
            ("factor", "child"),
            "part of a child in latent 1",
            (-0.35, 0.35),
            plotting.WEIGHT_MAP,
        ),
    ):
        norm = plotting.Normalize(*scale)
        image = plotting.heat_map(axes, values, x=x, y=y, cmap=cmap, norm=norm)
        plotting.color_bar(image, label)
    for axes, values, levels, color in (
        (one, mean["centred"].transpose("share", "density"), (15, 30, 45, 60, 75), "C1"),
        (matryoshka, mean["reads_child"].transpose("child", "factor"), (0,), "black"),
    ):
        axes.tick_params(axis="x", rotation=60)
        if min(values.shape) > 1:  # a smoke run has too few cells for lines
            axes.contour(values.values, levels=levels, colors=color, linewidths=1)
    one.set(
        xlabel="density of the parent",
        ylabel="P(child | parent)",
        title="One latent lies between parent and child\n(lines: theory, each 15°)",
    )
    width.set(
        xlabel="latents for 5 features",
        ylabel="correlation with feature 1",
        title="Hedging ends with\none latent for each feature",
    )
    factors, children = (np.arange(mean.sizes[name]) for name in ("factor", "child"))
    star = np.interp(0.25, mean["factor"], factors), np.interp(0.15, mean["child"], children)
    matryoshka.plot(*star, "*", color="gold", markeredgecolor="black", markersize=14)
    matryoshka.set(
        xlabel="factor of the first term",
        ylabel="P(child | parent)",
        title="Matryoshka: absorbed (blue) or\nhedging (red); star: paper's balance",
    )

    shares, style = results["share"].values, {"markersize": 4}
    for density, color, marker in ((0.9, "black", "o"), (0.8, "0.5", "s"), (0.5, "C0", "^")):
        here = results.sel(density=density, method="nearest")
        lines.plot(shares, here["centred"], color=color, linewidth=1)
        lines.plot(shares, here["untied"].transpose("share", "seed"), marker, color=color, **style)
        lines.plot([], [], f"{marker}-", color=color, label=f"density {density:g}", **style)
    tied = results["tied"].sel(density=0.5, method="nearest").transpose("share", "seed")
    lines.plot(shares, tied, "x", color="C3", **style)
    lines.plot(shares, results["tied_exact"].isel(density=0), color="C3", linewidth=1)
    lines.plot([], [], "x-", color="C3", label="tied", **style)
    lines.set(
        xlabel="P(child | parent)",
        ylabel="angle from the parent, degrees",
        ylim=(0, 125),
        title=f"Theory (lines) and all {results.sizes['seed']} trained\nseeds (markers) agree",
    )
    lines.legend(ncols=2)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
