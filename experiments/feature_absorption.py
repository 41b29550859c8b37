r"""Feature absorption: when a sparse autoencoder hides a parent in its children.

Claim      Two latents for a parent and a child that occurs only with it become "parent without
           child" and "both", at every angle: the child's latent absorbs the parent, whose own
           latent is silent where the child is. One latent fewer fires, so the $L_1$ penalty is
           lower. A child that also occurs alone ends absorption: how often it must, grows with the
           penalty. Trained autoencoders are where the exact optimum of ideal codes says.
Reproduces Chanin et al. (2024), "A is for Absorption", its toy model, with the frequency of a
           solo child varied, which the paper does not.
Settings   Ours: one parent and child of length 1 (parent alone 0.2, both 0.1), two latents. For the
           comparison of architectures see `absorption_in_trees`.
Selection  Of all seeds the autoencoder with the lowest exact loss, because some starts lose a
           latent.
Command    toymodels run experiments/feature_absorption.py
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import struct

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import dictionaries
from toymodels.theory import dictionaries as exact

ABSORPTION = tm.paper("Chanin et al. (2024), A is for Absorption")
OPTIMUM = tm.prediction("toymodels.theory.dictionaries")
ONE_IN_FIFTY = "Ours, because it allows one point in fifty."
CONVERGENCE = "Ours, because training does not converge entirely."
PARENT_ALONE, BOTH = 0.2, 0.1
SUPPLIED = 0.5
"""Share of the parent that other latents have to supply where it counts as absorbed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    solo: tuple[float, ...] = (0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5, 1)
    """Frequencies of the child alone over that of both."""
    penalties: tuple[float, ...] = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
    angles: tuple[float, ...] = (40, 55, 70, 80, 90, 100, 110, 125, 140)
    """Angles between parent and child, in degrees."""
    penalty: float = 0.1
    """The penalty where the angle is varied; where it is not, the angle is a right one."""
    num_seeds: int = 8
    training: tm.Recipe = tm.Recipe(steps=4000, batch=64, learning_rate=1e-2)


SMOKE = Config(
    solo=(0, 1),
    penalties=(0.1,),
    angles=(90,),
    num_seeds=2,
    training=tm.Recipe(steps=20, batch=64, learning_rate=1e-2),
)


@struct.dataclass
class Family:
    """The distribution of the hidden vectors of a parent and a child of length 1."""

    angle: float
    child_alone: float

    @property
    def num_features(self):
        return 2

    def weights(self):
        """Return the two directions, as columns."""
        return jnp.array([[1.0, jnp.cos(self.angle)], [0.0, jnp.sin(self.angle)]])

    def sample(self, key, batch):
        """Draw the parent alone, both, the child alone or nothing."""
        place = jax.random.uniform(key, (batch,))
        parent = place < PARENT_ALONE + BOTH
        child = (place >= PARENT_ALONE) & (place < PARENT_ALONE + BOTH + self.child_alone)
        return jnp.stack([parent, child], axis=1) @ self.weights().T


def run(config: Config) -> xr.Dataset:
    model, how = tm.ReLUAutoencoder(2), config.training.settings()

    def cell(key, *, solo, penalty, angle):
        distribution = Family(jnp.deg2rad(angle), solo * BOTH)
        params = tm.fit_autoencoder(key, model, distribution, penalty=penalty, **how).params
        weights = distribution.weights()
        features = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
        chances = jnp.array([PARENT_ALONE, BOTH, solo * BOTH, 0.0])
        chances = chances.at[3].set(1 - jnp.sum(chances))

        def values(hidden):
            latents = model.apply({"params": params}, hidden).latents
            return latents, model.apply({"params": params}, hidden, penalty, method="loss")

        latents, losses = jax.vmap(values)(features @ weights.T)
        directions = autoencoders.dictionary(params)
        matching = dictionaries.match(directions, weights)
        rate = dictionaries.absorption_rate(
            latents[1:2], directions, features[1:2], weights, matching, min_share=SUPPLIED
        )
        towards = jnp.arctan2(directions[1], directions[0])[matching[1]]
        loss = jnp.dot(chances, jnp.asarray(losses))
        return {"loss": loss, "absorption": rate[0], "child": jnp.rad2deg(towards)}

    across = [(penalty, 90.0) for penalty in config.penalties]
    along = [(config.penalty, float(angle)) for angle in config.angles]
    points = [*dict.fromkeys([*across, *along])]  # their crossing once
    axes = {"solo": config.solo, ("penalty", "angle"): points}
    results = tm.sweep(cell, axes=axes, num_seeds=config.num_seeds)
    numbers = (results.solo, results.penalty, results.angle)
    optimum = xr.apply_ufunc(best, *numbers, output_core_dims=[[]] * 3, vectorize=True)
    names = ("best_loss", "best_child", "best_absorption")
    results = results.assign(dict(zip(names, optimum, strict=True)))
    right = results.isel(penalty=[points.index(point) for point in across]).drop_vars("angle")
    turned = results.isel(penalty=[points.index(point) for point in along])
    turned = turned.swap_dims(penalty="angle").drop_vars("penalty")
    return xr.merge([right, turned.rename({name: f"turned_{name}" for name in turned})])


def best(solo: float, penalty: float, angle: float) -> tuple[float, float, float]:
    """Return the exact optimum's loss, the angle of its child's latent, whether it absorbs."""
    between = math.radians(angle)
    pair = exact.best_pair(between, PARENT_ALONE, BOTH, solo * BOTH, penalty)
    atoms = np.stack([np.cos(pair.angles), np.sin(pair.angles)])
    both = np.array([[1 + math.cos(between), math.sin(between)]])
    silent = exact.ideal_codes(atoms, both, penalty)[0, 0] == 0
    return pair.loss, math.degrees(pair.angles[1]), float(silent)


def chosen(results: xr.Dataset, prefix: str) -> xr.Dataset:
    """Choose the seed of lowest loss; `place` is 0 for a latent at the bisector, 1 at the child."""
    own = results[[f"{prefix}{name}" for name in ("loss", "absorption", "child")]]
    found = tm.best_of(own, by=f"{prefix}loss")
    angle = results["angle"] if prefix else 90.0
    parts = {
        "ratio": found[f"{prefix}loss"] / results[f"{prefix}best_loss"],
        "absorption": found[f"{prefix}absorption"],
        "ideal_absorption": results[f"{prefix}best_absorption"],
        "off": abs(found[f"{prefix}child"] - results[f"{prefix}best_child"]),
        "place": found[f"{prefix}child"] / angle * 2 - 1,
    }
    return xr.Dataset(parts)


def claims(results: xr.Dataset) -> tm.Claims:
    right, turned = chosen(results, ""), chosen(results, "turned_")

    def over(name, **where):
        return np.concatenate([part[name].sel(where).values.ravel() for part in (right, turned)])

    says = "The latent of a child feature that never occurs without its parent absorbs the parent "
    says += "at every angle and penalty, measured by the mean rate of absorption."
    rate = over("absorption", solo=0).mean()
    yield tm.near(says, 1, rate, ABSORPTION, within=0.02, threshold=ONE_IN_FIFTY)

    says = "The latent of a child feature that occurs alone as often as with its parent absorbs "
    says += "the parent at no angle and penalty, measured by the mean rate of absorption."
    rate = over("absorption", solo=1).mean()
    yield tm.near(says, 0, rate, OPTIMUM, within=0.02, threshold=ONE_IN_FIFTY)

    says = "At the lowest penalty absorption lowers the loss of an autoencoder by 2 - sqrt 2 times "
    says += "the penalty times the frequency of parent and child together, if the child feature "
    says += "never occurs without its parent."
    lowest = results.penalty.values.min()
    alone = tm.best_of(results[["loss"]], by="loss").sel(solo=0, penalty=lowest)["loss"]
    saved = exact.true_loss(math.pi / 2, PARENT_ALONE, BOTH, 0, lowest) - alone
    share, expected = saved / lowest / BOTH, 2 - math.sqrt(2)
    yield tm.near(says, expected, share, OPTIMUM, within=0.02, threshold=CONVERGENCE)

    says = "The trained autoencoder absorbs if and only if the exact optimum does, measured by the "
    says += "share of the points of both maps."
    agree = (over("absorption") == over("ideal_absorption")).mean()
    boundary = "Ours, because one point in twenty is next to the boundary."
    yield tm.at_least(says, 0.95, agree, OPTIMUM, threshold=boundary)

    says = "The child's latent of the trained autoencoder points where that of the exact optimum "
    says += "does, measured by the median angle in degrees."
    off = np.median(over("off"))
    yield tm.near(says, 0, off, OPTIMUM, within=1, threshold=CONVERGENCE)

    says = "The loss of the trained autoencoder is at most that of the exact optimum of ideal "
    says += "codes without bias, measured by the largest ratio."
    ratio = over("ratio").max()
    yield tm.at_most(says, 1, ratio, OPTIMUM, slack=0.002, threshold=CONVERGENCE)

    says = "No trained autoencoder absorbs the parent of a child feature that occurs alone so "
    says += "often that the true pair of latents has the lower loss, measured by the largest "
    says += "frequency with absorption over the bound."
    bounds = [exact.absorption_boundary(math.pi / 2, penalty) for penalty in results.penalty.values]
    beyond = (right["absorption"] > 0) * right.solo / xr.DataArray(bounds, dims="penalty")
    yield tm.at_most(says, 1, beyond.max(), OPTIMUM)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(1, 4, size=(9.0, 3.9), width_ratios=(1, 1, 2, 2.3))
    draw_codes(grid[0], math.pi / 2, "a latent each")
    draw_codes(grid[1], math.pi / 4, "absorbed")
    for axes, prefix, across, label, title in (
        (grid[2], "", "penalty", "$L_1$ penalty, right angle", "rarely alone, at every penalty"),
        (grid[3], "turned_", "angle", "angle in degrees, penalty 0.1", "and at every angle"),
    ):
        part, scale = chosen(results, prefix).transpose("solo", across), plotting.Normalize(0, 1)
        image = plotting.heat_map(axes, part["place"], x=across, y="solo", norm=scale)
        rows, dots = np.nonzero(part["absorption"].values)
        axes.plot(dots, rows, "k.")
        edge = part["ideal_absorption"].sum("solo") - 0.5
        columns = np.arange(part.sizes[across] + 1) - 0.5
        axes.stairs(edge, columns, baseline=None, color="C1", lw=2)
        axes.tick_params(axis="x", rotation=60)
        axes.set(xlabel=label, ylabel="", title=title)
    grid[2].set_ylabel("child alone / with its parent")
    bar = plotting.color_bar(image, "child's latent points to", ticks=(0, 1))
    bar.ax.set_yticklabels(["both", "child"])
    title = "A child that is rarely alone absorbs its parent (dots: trained, the best of "
    title += f"{results.sizes['seed']} seeds; below the line: the exact optimum)"
    figure.suptitle(title, fontsize=9)
    return figure


def draw_codes(axes, angle, title):
    """Draw which latents fire for both inputs, where the child's latent is at an angle."""
    latents = np.array([[1, np.cos(angle)], [0, np.sin(angle)]])
    codes = exact.ideal_codes(latents, np.array([[1.0, 0.0], [1.0, 1.0]]), 0.02).T
    axes.imshow(codes, cmap="Blues", vmin=0, vmax=2)
    for (row, column), code in np.ndenumerate(codes):
        text = f"{code:.1f}" if code else "silent"
        color = "white" if code > 1 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks((0, 1), ("parent", "parent\n+ child"))
    axes.set_yticks((0, 1), ("latent 1", "latent 2") if title != "absorbed" else ("", ""))
    axes.set(title=title)


if __name__ == "__main__":
    experiment.main(__file__)
