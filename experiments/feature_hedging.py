r"""Feature hedging: a dictionary that is too narrow, or too sparse, mixes correlated features.

Claim      One tied latent for a parent and a child that occurs only with it lies between the two,
           at $\tan 2t = 2 r / a$ (the parent occurs alone with probability $a$, both with $r$): a
           principal component. An autoencoder with biases finds the principal component of the
           CENTRED examples at any density, and agrees with that formula only where features are
           rare. With a latent for each of a set of correlated features hedging ends. The first
           latent of a Matryoshka autoencoder hedges if the loss of its own counts much, and is
           absorbed if it counts little: in between lies a balance. BatchTopK with $k$ below the
           true number of active features mixes the feature that is correlated with all others into
           their latents, by the sign of the correlation, and has a LOWER error than the true
           dictionary at that $k$.
Reproduces Chanin et al. (2025), "Feature Hedging", sections on one latent and on balancing
           Matryoshka autoencoders; Chanin, Garriga-Alonso (2025), "Sparse but Wrong", small toy.
Settings   Theirs: trees of one parent (0.25) and three children (0.15), penalty 0.03, all starts at
           the true dictionary; five features of density 0.4, correlation of the first with the
           others 0.4 or -0.4, k = 1.8 against 2. Ours: values are 1 in trees and uniform on
           (0.5, 1] elsewhere, features are the hidden dimensions, all other numbers. A k that is
           too large does no harm to the true dictionary, because its loss is 0: what the paper
           finds from random starts is not tested.
Selection  None: one latent starts between parent and child, all others at the true dictionary.
           Maps are means over seeds, which only decide the data.
Command    toymodels run experiments/feature_hedging.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.colors import Normalize

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import dictionaries
from toymodels.theory import dictionaries as exact

HEDGING = tm.paper("Chanin et al. (2025), Feature Hedging")
WRONG = tm.paper("Chanin, Garriga-Alonso (2025), Sparse but Wrong")
DERIVED = tm.prediction("derived here")
FIRST_ORDER = tm.prediction("derived here: both are equal to first order")
SAMPLING = "Ours, because examples are sampled and training does not converge entirely."
NO_NUMBER = "Ours, because the paper gives no number."
FEATURES, DENSITY, CHILDREN = 5, 0.4, 3
TRUE_L0 = FEATURES * DENSITY


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
    counts: tuple[float, ...] = (1.0, 1.2, 1.4, 1.6, 1.8, 1.9, 2.0, 2.1, 2.4)
    """Mean numbers k of latents of an example of BatchTopK."""
    correlations: tuple[float, ...] = (-0.4, -0.3, -0.15, 0.0, 0.15, 0.3, 0.4)
    narrow_seeds: int = 8
    num_seeds: int = 2
    training: tm.Recipe = tm.Recipe(steps=2000, batch=256, learning_rate=1e-2)
    examples: int = 8192


SMOKE = Config(
    densities=(0.2,),
    shares=(0.5,),
    widths=(2,),
    factors=(1.0,),
    children=(0.15,),
    counts=(1.8, 2.0),
    correlations=(0.4,),
    narrow_seeds=1,
    num_seeds=1,
    training=tm.Recipe(steps=5, batch=8, learning_rate=1e-2),
    examples=64,
)


def run(config: Config) -> xr.Dataset:
    parts = [narrow(config), wide(config), balanced(config), sparse(config)]
    return xr.merge(parts, join="outer")  # of seeds, more in the first


def fitting(config):
    """Return how every dictionary is fitted."""
    recipe = config.training
    return {"optimizer": recipe.optimizer(), "steps": recipe.steps, "batch": recipe.batch}


def truth(model, weights):
    """Return the parameters of an autoencoder that reads and writes the columns of `weights`."""
    params = model.init(jax.random.key(0), weights[:, 0])["params"]
    return {**params, "decoder": weights, "encoder": weights.T}


def narrow(config):
    """Fit one latent to a parent and its child: tied and of length 1, and an autoencoder."""
    model = tm.ReLUAutoencoder(1)
    between = jnp.full((2, 1), 0.5**0.5)

    def tied(params, hidden):
        unit = autoencoders.dictionary(params)[:, 0]
        return jnp.sum((hidden - unit * (unit @ hidden)) ** 2)

    def cell(key, *, density, share):
        world = tm.Hierarchy((-1, 0), jnp.stack([density, share]), exclusive=False, smallest=1.0)
        unit = tm.fit(key, {"decoder": between}, tied, world.sample, **fitting(config)).params
        start = truth(model, between)
        whole = tm.fit_autoencoder(
            key, model, world, penalty=config.penalty, start=start, **fitting(config)
        ).params
        angles = [jnp.arctan2(*params["decoder"][::-1, 0]) for params in (unit, whole)]
        return {"tied": jnp.rad2deg(angles[0]), "untied": jnp.rad2deg(angles[1])}

    axes = {"density": config.densities, "share": config.shares}
    results = tm.sweep(cell, axes=axes, num_seeds=config.narrow_seeds)
    alone, both = results.density * (1 - results.share), results.density * results.share
    angle = xr.apply_ufunc(exact.hedging_angle, alone, both, vectorize=True)
    return results.assign(tied_exact=np.rad2deg(angle), centred=centred(alone, both))


def centred(alone: xr.DataArray, both: xr.DataArray) -> xr.DataArray:
    r"""Return the angle of the first principal component of the centred examples, in degrees.

    There are three different examples, and they are affinely independent: with biases, their codes
    can be any numbers, and the best codes are projections to the best line. Variances are $p(1-p)$
    and $r(1-r)$ with $p = a + r$; the covariance is $r(1-p)$.
    """
    parent = alone + both
    difference = parent * (1 - parent) - both * (1 - both)
    return xr.apply_ufunc(np.rad2deg, np.arctan2(2 * both * (1 - parent), difference) / 2)


def correlated(correlation):
    """Return five features: the first is correlated with the others, which are independent."""
    own = jnp.sqrt(1 - (FEATURES - 1) * correlation**2)
    mixing = jnp.eye(FEATURES).at[0].set(correlation).at[0, 0].set(own)
    return tm.GaussianCopula(DENSITY, mixing, smallest=0.5)


def wide(config):
    """Fit autoencoders of one latent up to one for each feature."""

    def cell(key, *, width, correlation):
        model, world = tm.ReLUAutoencoder(width), correlated(correlation)
        weights = jnp.eye(FEATURES)
        start = truth(model, weights[:, :width])
        params = tm.fit_autoencoder(
            key, model, world, penalty=config.tree_penalty, start=start, **fitting(config)
        ).params
        features = jnp.arange(FEATURES)
        own = jnp.where(features < width, features, -1)
        degrees = dictionaries.hedging_degree(params["decoder"], weights, own)
        return {"hedging": jnp.sum(degrees) / width}

    axes, static = {"correlation": config.correlations}, {"width": config.widths}
    return tm.sweep(cell, axes=axes, static=static, num_seeds=config.num_seeds)


def balanced(config):
    """Fit Matryoshka autoencoders to a tree: what does the parent's latent read of the children?"""

    def cell(key, *, factor, child):
        latents = 1 + CHILDREN
        model = tm.MatryoshkaAutoencoder(latents, (1, latents), jnp.stack([factor, jnp.ones(())]))
        density = jnp.full(latents, child).at[0].set(0.25)
        world = tm.Hierarchy((-1, *[0] * CHILDREN), density, exclusive=False, smallest=1.0)
        start = truth(model, jnp.eye(latents))
        params = tm.fit_autoencoder(
            key, model, world, penalty=config.tree_penalty, start=start, **fitting(config)
        ).params
        read = params["encoder"][0] / jnp.linalg.norm(params["encoder"][0])
        return {"reads_child": jnp.mean(read[1:])}

    axes = {"factor": config.factors, "child": config.children}
    return tm.sweep(cell, axes=axes, num_seeds=config.num_seeds)


def sparse(config):
    """Fit BatchTopK autoencoders that keep too few latents, the right number, and too many."""
    weights = jnp.eye(FEATURES)

    def cell(key, *, count, correlation):
        model, world = tm.BatchTopKAutoencoder(FEATURES, count), correlated(correlation)
        start = truth(model, weights)
        key_fit, key_test = jax.random.split(key)
        params = tm.fit_autoencoder(
            key_fit, model, world, penalty=0.0, start=start, **fitting(config)
        ).params
        fresh = world.sample(key_test, config.examples)
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, start)
        errors = jax.vmap(lambda p: model.apply({"params": p}, fresh, 0.0, method="batch_loss"))(
            both
        )
        directions = autoencoders.dictionary(params)
        return {
            "mixed": jnp.mean(directions[0, 1:]),
            "strayed": jnp.max(jnp.abs(directions - weights)),
            "error": errors[0],
            "true_error": errors[1],
        }

    axes = {"count": config.counts, "correlation": config.correlations}
    return tm.sweep(cell, axes=axes, num_seeds=config.num_seeds)


def balance(results: xr.Dataset, child: float) -> float:
    """Return the factor at which the parent's latent reads nothing of the children, or NaN."""
    read = results["reads_child"].mean("seed").sel(child=child, method="nearest")
    below = int((read.values < 0).sum())
    if not 0 < below < read.size:
        return np.nan
    near = read.isel(factor=slice(below - 1, below + 1))
    return float(2 ** np.interp(0, near.values, np.log2(near["factor"].values)))


def claims(results: xr.Dataset):
    mean = results.mean("seed")

    def largest(values):
        return float(abs(values).max()) if values.size else np.nan

    says = (
        "The angle of one tied latent is that of tan 2t = 2 r / a at every density of the parent "
        "and every share of the child: largest difference in degrees."
    )
    difference = largest(mean["tied"] - mean["tied_exact"])
    yield tm.near(says, 0, difference, HEDGING, within=1, threshold=SAMPLING)

    says = (
        "The angle of one untied latent with biases is that of the first principal component of "
        "the centred examples at every density and share: largest difference in degrees."
    )
    difference = largest(mean["untied"] - mean["centred"])
    yield tm.near(says, 0, difference, DERIVED, within=1, threshold=SAMPLING)

    says = (
        "The angle of one untied latent is that of one tied latent at densities of the parent up "
        "to 0.05: largest difference in degrees."
    )
    rare = mean.sel(density=slice(0, 0.05))
    difference = largest(rare["untied"] - rare["tied_exact"])
    second = "Ours, because terms of second order in the density are left out."
    yield tm.near(says, 0, difference, FIRST_ORDER, within=1.5, threshold=second)

    says = (
        "One untied latent is the child itself where the parent is always present, because the "
        "bias takes the parent: smallest angle in degrees."
    )
    angle = mean["untied"].isel(density=-1).min()
    yield tm.near(says, 90, angle, DERIVED, within=1, threshold=SAMPLING)

    says = (
        "One latent for five features hedges where the correlation is 0.3 or more in size: "
        "smallest hedging degree."
    )
    strong = mean.sel(correlation=abs(mean["correlation"]) >= 0.3)
    degree = strong["hedging"].isel(width=0).min()
    yield tm.at_least(says, 0.1, degree, HEDGING, threshold=NO_NUMBER)

    widest = int(results["width"].max())
    says = f"{widest} latents for five features do not hedge: largest hedging degree."
    degree = mean["hedging"].sel(width=widest).max()
    yield tm.at_most(says, 0.05, degree, HEDGING, threshold=NO_NUMBER)

    says = (
        "The first latent of the Matryoshka autoencoder neither hedges nor is absorbed at the "
        "paper's factor where each child has probability 0.15: the balancing factor."
    )
    grid = "Ours, because it is two steps of the grid of factors."
    yield tm.near(says, 0.25, balance(results, 0.15), HEDGING, within=0.05, threshold=grid)

    says = (
        "The first latent of the Matryoshka autoencoder reads children negatively at the smallest "
        "factor, which is absorption: largest part of a child."
    )
    part = mean["reads_child"].isel(factor=0).max()
    yield tm.at_most(says, -0.1, part, HEDGING, threshold=NO_NUMBER)

    says = (
        "The first latent of the Matryoshka autoencoder reads children positively at the largest "
        "factor, which is hedging: smallest part of a child."
    )
    part = mean["reads_child"].isel(factor=-1).min()
    yield tm.at_least(says, 0.03, part, HEDGING, threshold=NO_NUMBER)

    less = mean["mixed"].sel(count=1.8, method="nearest")
    for sign, correlation, bound in ((1, 0.4, tm.at_least), (-1, -0.4, tm.at_most)):
        says = (
            f"The latents of features 2 to 5 of BatchTopK contain a part of feature 1 of the sign "
            f"of its correlation at k = 1.8 and a correlation of {correlation}: mean cosine."
        )
        part = less.sel(correlation=correlation, method="nearest")
        yield bound(says, sign * 0.2, part, WRONG, threshold=NO_NUMBER)

    says = (
        "No latent of BatchTopK contains a part of another feature at k = 2, the true L0: largest "
        "part of all correlations."
    )
    strayed = mean["strayed"].sel(count=TRUE_L0, method="nearest").max()
    yield tm.at_most(says, 0.05, strayed, WRONG, threshold=NO_NUMBER)

    says = (
        "The error of BatchTopK is lower than that of the true dictionary at the same k for k "
        "below 2 and correlations of 0.3 or more in size: largest ratio."
    )
    low = strong.sel(count=strong["count"] < TRUE_L0 - 0.05)
    yield tm.at_most(says, 1, (low["error"] / low["true_error"]).max(), WRONG)


def plot(results: xr.Dataset):
    figure, grid = plotting.figure(2, 3, size=(9.0, 5.8))
    (one, lines, width), (matryoshka, mixed, errors) = grid
    mean = results.mean("seed")

    untied = mean["untied"].transpose("share", "density")
    draw_map(one, untied, "angle from the parent, degrees", 0, 90)
    draw_contour(one, mean["centred"].transpose(*untied.dims), (15, 30, 45, 60, 75), "C1")
    one.set(xlabel="density of the parent", ylabel="P(child | parent)")
    one.set_title("One latent lies between parent\nand child (lines: theory, each 15°)")

    draw_angles(lines, results)

    hedging = mean["hedging"].transpose("correlation", "width")
    draw_map(width, hedging, "hedging degree", 0, 0.7)
    width.set(xlabel="latents for 5 features", ylabel="correlation with feature 1")
    width.set_title("Hedging ends with\none latent for each feature")

    reads = mean["reads_child"].transpose("child", "factor")
    draw_map(matryoshka, reads, "part of a child in latent 1", -0.35, 0.35, "RdBu_r")
    draw_contour(matryoshka, reads, (0,), "black")
    factors, children = (np.arange(mean.sizes[name]) for name in ("factor", "child"))
    star = np.interp(0.25, mean["factor"], factors), np.interp(0.15, mean["child"], children)
    matryoshka.plot(*star, "*", color="gold", markeredgecolor="black", markersize=14)
    matryoshka.set(xlabel="factor of the first term", ylabel="P(child | parent)")
    matryoshka.set_title("Matryoshka: absorbed (blue) or\nhedging (red); star: paper's balance")

    mixing = mean["mixed"].transpose("correlation", "count")
    draw_map(mixed, mixing, "mean cosine", -0.45, 0.45, "RdBu_r")
    mixed.set(xlabel="k of BatchTopK (true L0: 2)", ylabel="correlation with feature 1")
    mixed.set_title("Too small a k mixes feature 1\ninto the latents of the others")

    low = results.sel(count=results["count"] < TRUE_L0 - 0.05)
    ratio = low["error"] / low["true_error"]
    for correlation, marker, color in ((-0.4, "v", "C0"), (0.0, "o", "0.5"), (0.4, "^", "C3")):
        every = ratio.sel(correlation=correlation, method="nearest")
        every = every.transpose("count", "seed").dropna("seed", how="all")
        errors.plot(ratio["count"], every, marker, color=color, markersize=4)
        errors.plot(ratio["count"], every.mean("seed"), color=color)
        errors.plot([], [], f"{marker}-", color=color, label=f"{correlation:g}")
    errors.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
    errors.legend(title="correlation", fontsize=7, title_fontsize=7)
    errors.set(xlabel="k of BatchTopK (true L0: 2)", ylabel="error / error of the truth")
    errors.set_title("Wrong dictionaries have\nlower errors (all seeds, mean)")
    return figure


def draw_angles(axes, results: xr.Dataset):
    """Draw both kinds of one latent against the share of the child, all seeds."""
    shares = results["share"].values
    for density, color in {0.5: "C0", 0.8: "0.4", 0.9: "black"}.items():
        here = results.sel(density=density, method="nearest")
        axes.plot(shares, here["centred"], color=color, linewidth=1)
        axes.plot(shares, here["untied"].transpose("share", "seed"), "o", color=color, markersize=3)
        place = 0.5, here["centred"].sel(share=0.5, method="nearest") + 3
        axes.text(*place, f"density {here['density'].item():g}", color=color, ha="center")
    tied = results["tied"].sel(density=0.5, method="nearest").transpose("share", "seed")
    axes.plot(shares, tied, "x", color="C3", markersize=4)
    axes.plot(shares, results["tied_exact"].isel(density=0), color="C3", linewidth=1)
    axes.text(0.95, 0.05, "tied", color="C3", transform=axes.transAxes, ha="right")
    axes.set(xlabel="P(child | parent)", ylabel="angle from the parent, degrees", ylim=(0, 90))
    seeds = results.sizes["seed"]
    axes.set_title(f"Theory (lines) and all {seeds} trained\nseeds (markers) agree")


def draw_map(axes, values: xr.DataArray, label, low, high, cmap=plotting.VALUE_MAP):
    """Draw a heat map with one cell for each pair of labels."""
    y, x = values.dims
    image = plotting.heat_map(axes, values, x=x, y=y, cmap=cmap, norm=Normalize(low, high))
    plotting.color_bar(image, label)
    if values.shape[1] > 5:
        axes.tick_params(axis="x", rotation=60)


def draw_contour(axes, values: xr.DataArray, levels, color):
    """Draw lines of equal values over a heat map; a smoke run has too few cells for any."""
    if min(values.shape) > 1:
        axes.contour(values.values, levels=levels, colors=color, linewidths=1)


if __name__ == "__main__":
    experiment.main(__file__)
