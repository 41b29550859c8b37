r"""Feature absorption: when a sparse autoencoder hides a parent in its children.

Claim      Two latents for a parent and a child that occurs only with it become "parent without
           child" and "both", at every angle: the child's latent absorbs the parent, whose own
           latent is silent where the child is. One latent fewer fires, so the $L_1$ penalty is
           lower. A child that also occurs alone ends absorption: how often it must, grows with the
           penalty. Trained autoencoders are where the exact optimum of ideal codes says.
Reproduces Chanin et al. (2024), "A is for Absorption", its toy model, with the frequency of a
           solo child varied, which the paper does not.
Settings   Ours: one parent and child of length 1 (parent alone 0.2, both 0.1), two latents. For the
           comparison of architectures, trees of three parents (density 0.3) of three children (0.2
           given the parent, at most one at a time), all orthogonal, values uniform on (0.5, 1]; 12
           latents. The Matryoshka autoencoder has a second loss, of its first three latents alone.
           Crosses are of the hidden space, 9 dimensions, of a toy model trained on the trees.
Selection  Pairs: of all seeds the autoencoder with the lowest exact loss, because some starts lose
           a latent. Trees: every seed.
Command    toymodels run experiments/feature_absorption.py
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import struct
from matplotlib.colors import Normalize

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import activity, dictionaries
from toymodels.theory import dictionaries as exact

ABSORPTION = tm.paper("Chanin et al. (2024), A is for Absorption")
NESTED = tm.paper("Bussmann et al. (2025), Matryoshka Sparse Autoencoders")
OPTIMUM = tm.prediction("toymodels.theory.dictionaries")
ABSORPTION_IN_TOYS = tm.finding("found here, after Chanin et al. (2024)")
NESTED_IN_TOYS = tm.finding("found here, after Bussmann et al. (2025)")
ONE_IN_FIFTY = "Ours, because it allows one point in fifty."
CONVERGENCE = "Ours, because training does not converge entirely."
NO_NUMBER = "Ours, because the paper gives no number."
PARENT_ALONE, BOTH = 0.2, 0.1
PARENTS = tm.balanced_tree(3, branching=3, depth=1)
ROOTS, LATENTS = PARENTS.count(-1), len(PARENTS)
DENSITIES = tuple(0.3 if parent < 0 else 0.2 for parent in PARENTS)
TRUE_L0 = ROOTS * 0.3 * (1 + 3 * 0.2)
SUPPLIED = 0.5
"""Share of the parent that other latents have to supply where it counts as absorbed."""
# The model and the penalty, of a penalty and k: each architecture takes one of them.
ARCHITECTURES = {
    "ReLU": lambda penalty, _: (tm.ReLUAutoencoder(LATENTS), penalty),
    "Matryoshka": lambda penalty, _: (
        tm.MatryoshkaAutoencoder(LATENTS, (ROOTS, LATENTS)),
        penalty,
    ),
    "TopK": lambda _, k: (tm.TopKAutoencoder(LATENTS, k), 0.0),
    "BatchTopK": lambda _, k: (tm.BatchTopKAutoencoder(LATENTS, k), 0.0),
}


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
    architectures: tuple[str, ...] = tuple(ARCHITECTURES)
    toys: tuple[str, ...] = ("ReLU", "Matryoshka")
    """Architectures that are also trained on the hidden space of a toy model."""
    toy_hidden: int = 9
    levels: tuple[tuple[float, int], ...] = tuple(
        zip((0.02, 0.05, 0.1, 0.2, 0.3, 0.5), range(1, 7), strict=True)
    )
    """Pairs of a penalty and the k of TopK and BatchTopK."""
    tree_seeds: int = 3
    tree_steps: int = 3000
    tree_batch: int = 128
    tree_rate: float = 3e-3
    examples: int = 4096


SMOKE = Config(
    solo=(0, 1),
    penalties=(0.1,),
    angles=(90,),
    num_seeds=2,
    training=tm.Recipe(steps=20, batch=64, learning_rate=1e-2),
    architectures=("ReLU",),
    toys=(),
    levels=((0.1, 2),),
    tree_seeds=2,
    tree_steps=5,
    examples=64,
)


@struct.dataclass
class Family:
    """The distribution of the hidden vectors of a parent and a child of length 1."""

    angle: Any
    child_alone: Any

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


def pairs(config):
    """Fit an autoencoder of two latents at every point of both maps, every seed."""
    model, recipe = tm.ReLUAutoencoder(2), config.training
    how = {"optimizer": recipe.optimizer(), "steps": recipe.steps, "batch": recipe.batch}

    def cell(key, *, solo, penalty, angle):
        world = Family(jnp.deg2rad(angle), solo * BOTH)
        params = tm.fit_autoencoder(key, model, world, penalty=penalty, **how).params
        weights = world.weights()
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
        return {
            "loss": jnp.dot(chances, jnp.asarray(losses)),
            "absorption": rate[0],
            "child": jnp.rad2deg(towards),
        }

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


def trees(config, architectures, *, toy):
    """Fit autoencoders to the features of the trees, or to what a toy model makes of them."""
    world = tm.Hierarchy(PARENTS, jnp.array(DENSITIES), exclusive=True, smallest=0.5)
    children = jnp.array(PARENTS)[None, :] == jnp.arange(ROOTS)[:, None]
    recipe = tm.Recipe(
        steps=config.tree_steps, batch=config.tree_batch, learning_rate=config.tree_rate
    )
    how = {"optimizer": recipe.optimizer(), "steps": recipe.steps, "batch": recipe.batch}

    def cell(key, *, architecture, penalty, k):
        key_toy, key_fit, key_test = jax.random.split(key, 3)
        weights, activations = jnp.eye(LATENTS), world
        if toy:
            teacher = tm.ReLUOutput(config.toy_hidden)
            learned = recipe.train(key_toy, teacher, tm.Task(world), evaluation=0).params
            weights = learned["weights"]
            activations = tm.Activations(teacher, learned, world, "hidden")
        model, weight = architecture(penalty, k)
        params = tm.fit_autoencoder(key_fit, model, activations, penalty=weight, **how).params
        features = world.sample(key_test, config.examples)
        hidden = features @ weights.T
        latents = jax.vmap(lambda h: model.apply({"params": params}, h))(hidden).latents
        directions = autoencoders.dictionary(params)
        matching = dictionaries.match(directions, weights)
        # A parent counts only where a child of it is present: only there can it be absorbed.
        with_child = jnp.any((features[:, None, :] > 0) & children[None], axis=2)
        asked = features.at[:, :ROOTS].multiply(with_child)
        absorbed = dictionaries.absorption_rate(
            latents, directions, asked, weights, matching, min_share=SUPPLIED
        )
        return {
            "absorption": jnp.mean(absorbed[:ROOTS]),
            "l0": activity.l0(latents),
            "mcc": dictionaries.mcc(directions, weights),
        }

    found = tm.sweep(
        cell,
        axes={("penalty", "k"): config.levels},
        static={"architecture": {name: ARCHITECTURES[name] for name in architectures}},
        num_seeds=config.tree_seeds,
    )
    found = found.reindex(architecture=list(ARCHITECTURES))
    where = "toy" if toy else "tree"
    names = {str(name): f"{where}_{name}" for name in found.data_vars}
    return found.rename({"penalty": "level", "seed": "tree_seed", **names})


def run(config: Config) -> xr.Dataset:
    parts = [pairs(config), trees(config, config.architectures, toy=False)]
    if config.toys:
        parts.append(trees(config, config.toys, toy=True))
    return xr.merge(parts, combine_attrs="override")


def chosen(results: xr.Dataset, prefix: str) -> xr.Dataset:
    """Choose the seed of lowest loss; `place` is 0 for a latent at the bisector, 1 at the child."""
    own = results[[f"{prefix}{name}" for name in ("loss", "absorption", "child")]]
    found = tm.best_of(own, by=f"{prefix}loss")
    angle = results["angle"] if prefix else 90.0
    ideal = results[f"{prefix}best_child"]
    return xr.Dataset(
        {
            "ratio": found[f"{prefix}loss"] / results[f"{prefix}best_loss"],
            "absorption": found[f"{prefix}absorption"],
            "ideal_absorption": results[f"{prefix}best_absorption"],
            "off": abs(found[f"{prefix}child"] - ideal),
            "place": found[f"{prefix}child"] / angle * 2 - 1,
            "ideal_place": ideal / angle * 2 - 1,
        }
    )


def claims(results: xr.Dataset):
    right, turned = chosen(results, ""), chosen(results, "turned_")

    def over(name, **where):
        return np.concatenate([part[name].sel(where).values.ravel() for part in (right, turned)])

    says = "A child that is never alone absorbs its parent at every angle and penalty: mean rate."
    rate = over("absorption", solo=0).mean()
    yield tm.near(says, 1, rate, ABSORPTION, within=0.02, threshold=ONE_IN_FIFTY)

    says = "A child that is alone as often as with its parent absorbs it nowhere: mean rate."
    rate = over("absorption", solo=1).mean()
    yield tm.near(says, 0, rate, OPTIMUM, within=0.02, threshold=ONE_IN_FIFTY)

    says = (
        "Absorption lowers the loss of a child that is never alone by 2 - sqrt 2 times the penalty "
        "and the frequency of both, at the lowest penalty."
    )
    lowest = results.penalty.values.min()
    alone = tm.best_of(results[["loss"]], by="loss").sel(solo=0, penalty=lowest)["loss"]
    saved = exact.true_loss(math.pi / 2, PARENT_ALONE, BOTH, 0, lowest) - alone
    saved, expected = saved / lowest / BOTH, 2 - math.sqrt(2)
    yield tm.near(says, expected, saved, OPTIMUM, within=0.02, threshold=CONVERGENCE)

    says = (
        "The trained autoencoder absorbs if and only if the exact optimum does: share of the "
        "points of both maps."
    )
    agree = (over("absorption") == over("ideal_absorption")).mean()
    boundary = "Ours, because one point in twenty is next to the boundary."
    yield tm.at_least(says, 0.95, agree, OPTIMUM, threshold=boundary)

    says = (
        "The child's latent of the trained autoencoder points where that of the exact optimum "
        "does: median angle in degrees."
    )
    off = np.median(over("off"))
    yield tm.near(says, 0, off, OPTIMUM, within=1, threshold=CONVERGENCE)

    says = (
        "The loss of the trained autoencoder is at most that of the exact optimum of ideal codes "
        "without bias: largest ratio."
    )
    ratio = over("ratio").max()
    yield tm.at_most(says, 1, ratio, OPTIMUM, slack=0.002, threshold=CONVERGENCE)

    says = (
        "No trained autoencoder absorbs a child that is alone more often than where the true pair "
        "becomes the better one: largest frequency over that bound."
    )
    bounds = [exact.absorption_boundary(math.pi / 2, penalty) for penalty in results.penalty.values]
    beyond = (right["absorption"] > 0) * right.solo / xr.DataArray(bounds, dims="penalty")
    yield tm.at_most(says, 1, beyond.max(), OPTIMUM)

    absorbed = results["tree_absorption"]
    relu, nested = (absorbed.sel(architecture=name) for name in ("ReLU", "Matryoshka"))
    says = (
        "Matryoshka autoencoders of the trees absorb no more than ReLU autoencoders at every "
        "penalty of at most 0.2: smallest difference of the rates, means over seeds."
    )
    fewer = (relu - nested).mean("tree_seed").where(results.level <= 0.2)
    yield tm.at_least(says, 0, fewer.min(), NESTED)

    says = (
        "Matryoshka autoencoders of the trees have a higher MCC at the best penalty than ReLU "
        "autoencoders: difference."
    )
    mcc = results["tree_mcc"].mean("tree_seed").max("level")
    higher = mcc.sel(architecture="Matryoshka") - mcc.sel(architecture="ReLU")
    yield tm.at_least(says, 0.02, higher, NESTED, threshold=NO_NUMBER)

    for name, k, note in (("TopK", 2, ", above the 1.44 active features"), ("BatchTopK", 1, "")):
        says = f"{name} autoencoders of the trees absorb parents at k = {k}{note}: mean rate."
        level = int(abs(results.k - k).values.argmin())
        rate = absorbed.sel(architecture=name).isel(level=level).mean()
        yield tm.at_least(says, 0.1, rate, ABSORPTION, threshold=NO_NUMBER)

    toy = results.get("toy_absorption", absorbed * np.nan)
    relu, nested = (toy.sel(architecture=name).mean() for name in ("ReLU", "Matryoshka"))
    says = (
        "ReLU autoencoders of the hidden space of a toy model of the trees absorb parents: rate, "
        "mean over penalties."
    )
    clearly = "Ours, because it is clearly not 0."
    yield tm.at_least(says, 0.1, relu, ABSORPTION_IN_TOYS, threshold=clearly)

    says = (
        "Matryoshka autoencoders of the hidden space of a toy model of the trees absorb less than "
        "ReLU autoencoders: difference of the rates."
    )
    yield tm.at_least(says, 0, relu - nested, NESTED_IN_TOYS)


def plot(results: xr.Dataset):
    figure, (above, below) = plotting.figure_of_parts(2, size=(9.0, 6.2), height_ratios=(1.1, 1))
    true, absorbing, right, turned = above.subplots(1, 4, width_ratios=(1, 1, 2, 2.3))
    draw_codes(true, math.pi / 2, "a latent each")
    draw_codes(absorbing, math.pi / 4, "absorbed")
    draw_map(right, chosen(results, ""), "penalty", "$L_1$ penalty, right angle")
    right.set(ylabel="child alone / with its parent", title="rarely alone, at every penalty")
    image = draw_map(turned, chosen(results, "turned_"), "angle", "angle in degrees, penalty 0.1")
    turned.set(ylabel="", title="and at every angle")
    above.suptitle(
        "A child that is rarely alone absorbs its parent (dots: trained, the best of "
        f"{results.sizes['seed']} seeds; below the line: the exact optimum)",
        fontsize=9,
    )
    bar = above.colorbar(image, ax=turned, ticks=(0, 1), label="child's latent points to")
    bar.ax.set_yticklabels(["both", "child"])

    grid = below.subplots(1, 5, width_ratios=(1, 1, 1, 1, 1.2))
    for axes, name in zip(grid, ARCHITECTURES, strict=False):
        own = results.sel(architecture=name)
        axes.plot(own["tree_l0"], own["tree_absorption"], "o", color="C0", ms=3)
        if "toy_l0" in own:
            axes.plot(own["toy_l0"], own["toy_absorption"], "x", color="0.5", ms=4)
        axes.axvline(TRUE_L0, color="0.5", ls="--", lw=1)
        axes.set(xscale="log", xlim=(0.9, 6.7), ylim=(-0.03, 0.85), title=name, xlabel="L0")
        axes.set_xticks((1, 2, 4), ("1", "2", "4"))
        axes.minorticks_off()
    for axes in grid[1:4]:
        axes.set_yticklabels([])
    grid[0].set_ylabel("absorption rate of parents")
    seeds = results.sizes["tree_seed"]
    below.suptitle(
        f"Trees of three parents: Matryoshka absorbs least (a dot is one of {seeds} seeds at a "
        "penalty or k; crosses: in a toy model; dashed: true L0)",
        fontsize=9,
    )
    draw_mcc(grid[4], results)
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


def draw_map(axes, part: xr.Dataset, across, label):
    """Draw where the child's latent points, where it absorbs (dots), and the exact edge of that."""
    part = part.transpose("solo", across)
    image = plotting.heat_map(axes, part["place"], x=across, y="solo", norm=Normalize(0, 1))
    rows, dots = np.nonzero(part["absorption"].values)
    axes.plot(dots, rows, "k.")
    edge = part["ideal_absorption"].sum("solo") - 0.5
    columns = np.arange(part.sizes[across] + 1) - 0.5
    axes.stairs(edge, columns, baseline=None, color="C1", lw=2)
    axes.tick_params(axis="x", rotation=60)
    axes.set_xlabel(label)
    return image


def draw_mcc(axes, results: xr.Dataset):
    """Draw every seed at the level of the best mean MCC of each architecture."""
    for place, name in enumerate(ARCHITECTURES):
        own = results["tree_mcc"].sel(architecture=name)
        if own.isnull().all():
            continue
        best = own.isel(level=own.mean("tree_seed").argmax("level"))
        axes.plot([place] * best.size, best, "o", color="C0", ms=3)
        axes.plot(place, best.mean(), "_", color="black", ms=14)
    axes.set_xticks(range(len(ARCHITECTURES)), list(ARCHITECTURES), rotation=60)
    axes.set(title="best level", ylabel="MCC")


if __name__ == "__main__":
    experiment.main(__file__)
