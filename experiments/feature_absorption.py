r"""Feature absorption: when a sparse autoencoder hides a parent in its children.

Claim      A parent and a child that occurs only with it are learned as "parent without child" and
           "both", at every angle: the child's latent absorbs the parent, whose own latent is silent
           where the child is. One latent less fires, so the $L_1$ penalty is less. A child that
           also occurs alone ends it: the more, the larger the penalty. Trained autoencoders are
           where the exact optimum of ideal codes says.
Reproduces Chanin et al. (2024), "A is for Absorption", its toy model, with the frequency of a
           solo child varied, which the paper does not.
Settings   Ours: one parent and child of length 1 (parent alone 0.2, both 0.1), two latents. For the
           comparison of architectures, trees of three parents (density 0.3) of three children (0.2
           given the parent, at most one at a time), all orthogonal, values uniform on (0.5, 1]; 12
           latents. The first three latents of the Matryoshka autoencoder do by themselves as well.
           Crosses are of the hidden space, 9 dimensions, of a toy model trained on the trees.
Selection  Pairs: of all seeds the autoencoder with the least exact loss, for some starts lose a
           latent. Trees: every seed.
Command    toymodels run experiments/feature_absorption.py
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from flax import struct
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import dictionaries
from toymodels.theory import dictionaries as exact

SOURCE = "Chanin et al. (2024), A is for Absorption"
NESTED = "Bussmann et al. (2025), Matryoshka Sparse Autoencoders"
OPTIMUM = "toymodels.theory.dictionaries"
PARENT_ALONE: Final = 0.2
BOTH: Final = 0.1
PARENTS: Final = tm.balanced_tree(3, branching=3, depth=1)
ROOTS: Final = PARENTS.count(-1)
DENSITIES: Final = tuple(0.3 if parent < 0 else 0.2 for parent in PARENTS)
TRUE_L0: Final = ROOTS * 0.3 * (1 + 3 * 0.2)
LATENTS: Final = len(PARENTS)
LEAST: Final = 0.5
"""Share of the parent that other latents have to supply."""

Architecture: TypeAlias = Callable[[Any, Any], tuple[nn.Module, Any]]
ARCHITECTURES: Final[dict[str, Architecture]] = {
    "ReLU": lambda penalty, _: (tm.ReLUAutoencoder(LATENTS), penalty),
    "Matryoshka": lambda penalty, _: (
        tm.MatryoshkaAutoencoder(LATENTS, (ROOTS, LATENTS)),
        penalty,
    ),
    "TopK": lambda _, k: (tm.TopKAutoencoder(LATENTS, k), 0.0),
    "BatchTopK": lambda _, k: (tm.BatchTopKAutoencoder(LATENTS, k), 0.0),
}
"""The model and the penalty, of a penalty and k: each architecture takes one of them."""
COLORS: Final = ("C0", "C3", "C2", "C4")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    solo: tuple[float, ...] = (0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5, 1)
    """Frequency of the child alone over that of both."""
    penalties: tuple[float, ...] = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
    angles: tuple[float, ...] = (40, 55, 70, 80, 90, 100, 110, 125, 140)
    """Between parent and child, in degrees."""
    penalty: float = 0.1
    """Where the angle is varied; elsewhere it is a right one."""
    num_seeds: int = 8
    steps: int = 4000
    batch: int = 64
    learning_rate: float = 1e-2
    """The learning rate at the start of a cosine schedule."""
    architectures: tuple[str, ...] = tuple(ARCHITECTURES)
    toys: tuple[str, ...] = ("ReLU", "Matryoshka")
    """Architectures trained on the hidden space of a toy model, too."""
    toy_hidden: int = 9
    levels: tuple[tuple[float, int], ...] = (
        (0.02, 1), (0.05, 2), (0.1, 3), (0.2, 4), (0.3, 5), (0.5, 6),
    )  # fmt: skip
    """Penalty, and the k of TopK and BatchTopK."""
    tree_seeds: int = 3
    tree_steps: int = 3000
    tree_batch: int = 128
    tree_rate: float = 3e-3
    examples: int = 4096


SMOKE = Config(
    solo=(0, 1), penalties=(0.1,), angles=(90,), num_seeds=2, steps=20, architectures=("ReLU",),
    toys=(), levels=((0.1, 2),), tree_seeds=2, tree_steps=5, examples=64,
)  # fmt: skip


@struct.dataclass
class Family:
    """The hidden vectors of a parent and a child, of length 1: a distribution."""

    angle: Any
    child_alone: Any

    @property
    def num_features(self) -> int:
        """Hidden dimensions."""
        return 2

    def weights(self) -> jax.Array:
        """The two directions, as columns."""
        return jnp.array([[1.0, jnp.cos(self.angle)], [0.0, jnp.sin(self.angle)]])

    def sample(self, key: jax.Array, batch: int) -> jax.Array:
        """Parent alone, both, child alone or nothing."""
        place = jax.random.uniform(key, (batch,))
        parent = place < PARENT_ALONE + BOTH
        child = (place >= PARENT_ALONE) & (place < PARENT_ALONE + BOTH + self.child_alone)
        return jnp.stack([parent, child], axis=1) @ self.weights().T


def pairs(config: Config) -> xr.Dataset:
    """An autoencoder of two latents at every point of both maps, every seed."""
    model = tm.ReLUAutoencoder(2)
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)

    def cell(key: Any, *, solo: Any, penalty: Any, angle: Any) -> dict[str, Any]:
        world = Family(jnp.deg2rad(angle), solo * BOTH)
        params = tm.fit_autoencoder(
            key, model, world, penalty=penalty, optimizer=optax.adam(schedule),
            steps=config.steps, batch=config.batch,
        ).params  # fmt: skip
        weights = world.weights()
        features = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
        chances = jnp.array([PARENT_ALONE, BOTH, solo * BOTH, 0.0])
        chances = chances.at[3].set(1 - jnp.sum(chances))

        def values(hidden: Any) -> tuple[Any, Any]:
            latents = model.apply({"params": params}, hidden).latents  # pyright: ignore
            return latents, model.apply({"params": params}, hidden, penalty, method="loss")

        latents, losses = jax.vmap(values)(features @ weights.T)
        directions = autoencoders.dictionary(params)
        matching = dictionaries.match(directions, weights)
        rate = dictionaries.absorption_rate(
            latents[1:2], directions, features[1:2], weights, matching, least=LEAST
        )
        towards = jnp.arctan2(directions[1], directions[0])[matching[1]]
        return {"loss": chances @ losses, "absorption": rate[0], "child": jnp.rad2deg(towards)}

    across = [(penalty, 90.0) for penalty in config.penalties]
    along = [(config.penalty, float(angle)) for angle in config.angles]
    points = [*dict.fromkeys([*across, *along])]  # their crossing once
    results = tm.sweep(
        cell,
        axes={"solo": config.solo, ("penalty", "angle"): points},
        num_seeds=config.num_seeds,
    )
    optimum = xr.apply_ufunc(
        best, results.solo, results.penalty, results.angle, output_core_dims=[[]] * 3,
        vectorize=True,
    )  # fmt: skip
    names = ("best_loss", "best_child", "best_absorption")
    results = results.assign(dict(zip(names, optimum, strict=True)))
    right = results.isel(penalty=[points.index(point) for point in across]).drop_vars("angle")
    turned = results.isel(penalty=[points.index(point) for point in along])
    turned = turned.swap_dims(penalty="angle").drop_vars("penalty")
    return xr.merge([right, turned.rename({name: f"turned_{name}" for name in turned})])


def best(solo: float, penalty: float, angle: float) -> tuple[float, float, float]:
    """Loss of the exact optimum, angle of the child's latent, and whether it absorbs."""
    between = math.radians(angle)
    pair = exact.best_pair(between, PARENT_ALONE, BOTH, solo * BOTH, penalty)
    atoms = np.stack([np.cos(pair.angles), np.sin(pair.angles)])
    both = np.array([[1 + math.cos(between), math.sin(between)]])
    silent = exact.ideal_codes(atoms, both, penalty)[0, 0] == 0
    return pair.loss, math.degrees(pair.angles[1]), float(silent)


def trees(config: Config, architectures: tuple[str, ...], *, toy: bool) -> xr.Dataset:
    """Autoencoders on the features of the trees, or on what a toy model makes of them."""
    world = tm.Hierarchy(PARENTS, jnp.array(DENSITIES), exclusive=True, smallest=0.5)
    adam = optax.adam(optax.cosine_decay_schedule(config.tree_rate, config.tree_steps))
    children = jnp.array(PARENTS)[None, :] == jnp.arange(ROOTS)[:, None]
    how: dict[str, Any] = {
        "optimizer": adam, "steps": config.tree_steps, "batch": config.tree_batch,
    }  # fmt: skip

    def cell(key: Any, *, architecture: Any, penalty: Any, k: Any) -> dict[str, Any]:
        key_toy, key_fit, key_test = jax.random.split(key, 3)
        weights, activations = jnp.eye(LATENTS), world
        if toy:
            teacher = tm.ReLUOutput(config.toy_hidden)
            learned = tm.train(key_toy, teacher, tm.Task(world), evaluation=1, **how).params
            weights = learned["weights"]
            activations = tm.Activations(teacher, learned, world, "hidden")
        model, weight = architecture(penalty, k)
        params = tm.fit_autoencoder(key_fit, model, activations, penalty=weight, **how).params
        features = world.sample(key_test, config.examples)
        hidden = features @ weights.T
        latents = jax.vmap(lambda h: model.apply({"params": params}, h))(hidden).latents
        directions = autoencoders.dictionary(params)
        matching = dictionaries.match(directions, weights)
        # Of the parents only where a child of theirs is present, where absorption can be.
        with_child = jnp.any((features[:, None, :] > 0) & children[None], axis=2)
        asked = features.at[:, :ROOTS].multiply(with_child)
        absorbed = dictionaries.absorption_rate(
            latents, directions, asked, weights, matching, least=LEAST
        )
        return {
            "absorption": jnp.mean(absorbed[:ROOTS]),
            "l0": dictionaries.l0(latents),
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
    """Of every cell the seed of least loss; the child's latent as 0 (bisector) to 1 (child)."""
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


def claims(results: xr.Dataset) -> list[tm.Claim]:
    right, turned = chosen(results, ""), chosen(results, "turned_")
    both = [right, turned]
    at_most, at_least = tm.Bound.AT_MOST, tm.Bound.AT_LEAST

    def over(name: str, **where: float) -> Any:
        return np.concatenate([part[name].sel(where).values.ravel() for part in both])

    least = results.penalty.values.min()
    alone = tm.best_of(results[["loss"]], by="loss").sel(solo=0, penalty=least)["loss"]
    saved = exact.true_loss(math.pi / 2, PARENT_ALONE, BOTH, 0, least) - alone
    boundary = np.array(
        [exact.absorption_boundary(math.pi / 2, penalty) for penalty in results.penalty.values]
    )
    beyond = (right["absorption"] > 0) * right.solo / xr.DataArray(boundary, dims="penalty")
    agree = over("absorption") == over("ideal_absorption")
    absorbed = results["tree_absorption"]
    relu, nested = (absorbed.sel(architecture=name) for name in ("ReLU", "Matryoshka"))
    fewer = (relu - nested).mean("tree_seed").where(results.level <= 0.2)
    mcc = results["tree_mcc"].mean("tree_seed").max("level")
    toy = results.get("toy_absorption", absorbed * np.nan)
    toy_relu, toy_nested = (
        float(toy.sel(architecture=name).mean()) for name in ("ReLU", "Matryoshka")
    )

    def rate(name: str, k: int) -> float:
        nearest = int(abs(results.k - k).values.argmin())
        return absorbed.sel(architecture=name).isel(level=nearest).mean().item()

    return [
        tm.Claim("A child that is never alone absorbs its parent at every angle and penalty: mean "
                 "rate.", SOURCE, 1, over("absorption", solo=0).mean(), 0.02,
                 kind=tm.Kind.PAPER, threshold="ours: one point in fifty"),
        tm.Claim("A child that is alone as often as with its parent absorbs it nowhere: mean "
                 "rate.", OPTIMUM, 0, over("absorption", solo=1).mean(), 0.02,
                 kind=tm.Kind.PREDICTION, threshold="ours: one point in fifty"),
        tm.Claim("what absorption saves, over the least penalty and the frequency of both: "
                 "2 - sqrt 2", OPTIMUM, 2 - math.sqrt(2), saved / least / BOTH, 0.02,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        tm.Claim("share of points where the autoencoder absorbs if and only if the exact optimum "
                 "does", OPTIMUM, 0.95, agree.mean(), bound=at_least,
            kind=tm.Kind.PREDICTION,
            threshold="ours: points next to the boundary, one in twenty",
        ),
        tm.Claim("angle between the child's latent and that of the exact optimum, median, degrees",
                 OPTIMUM, 0, float(np.median(over("off"))), 1,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        tm.Claim("loss over that of the exact optimum of ideal codes without bias: greatest",
                 OPTIMUM, 1, over("ratio").max(), 0.002, at_most,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        tm.Claim("none absorbs above the ratio at which the true pair is better: greatest part of "
                 "it", OPTIMUM, 1, beyond.max().item(), bound=at_most,
            kind=tm.Kind.PREDICTION,
        ),
        tm.Claim("trees: rate of ReLU less that of Matryoshka autoencoders, mean over seeds: "
                 "least over penalties of at most 0.2", NESTED, 0, fewer.min().item(),
                 bound=at_least,
            kind=tm.Kind.PAPER,
        ),
        tm.Claim("trees: best MCC over penalties, Matryoshka less ReLU", NESTED, 0.02,
                 mcc.sel(architecture="Matryoshka").item() - mcc.sel(architecture="ReLU").item(),
                 bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        tm.Claim("trees: TopK absorbs as well, with k = 2, above the 1.44 active features: rate",
                 SOURCE, 0.1, rate("TopK", 2), bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        tm.Claim("trees: BatchTopK as well, with k = 1: rate", SOURCE, 0.1, rate("BatchTopK", 1),
                 bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        tm.Claim("in the hidden space of a toy model of the trees the ReLU autoencoder absorbs as "
                 "well: rate, mean over penalties", SOURCE, 0.1, toy_relu, bound=at_least,
            kind=tm.Kind.FINDING,
            threshold="ours: clearly not 0",
        ),
        tm.Claim("there as well the Matryoshka autoencoder absorbs less: difference", NESTED, 0,
                 toy_relu - toy_nested, bound=at_least,
            kind=tm.Kind.FINDING,
        ),
    ]  # fmt: skip


def draw_map(axes: Any, part: xr.Dataset, place: str, across: str) -> Any:
    """Colours: the child's latent. Dots: it absorbs; rings: the exact optimum does."""
    values = part[place].transpose("solo", across).values
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=1)
    for name, marker in (("absorption", "w."), ("ideal_absorption", "wo")):
        if name == "absorption" and place == "ideal_place":
            continue
        rows, columns = np.nonzero(part[name].transpose("solo", across).values)
        axes.plot(columns, rows, marker, fillstyle="none" if marker == "wo" else "full")
    for axis, name in ((axes.xaxis, across), (axes.yaxis, "solo")):
        labels = [f"{value:g}" for value in part[name].values]
        axis.set_ticks(range(len(labels)), labels)
    return image


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 3, size=(10.8, 6.2))
    right, turned = chosen(results, ""), chosen(results, "turned_")
    maps = (
        (grid[0, 0], right, "ideal_place", "penalty", "exact optimum, right angle; rings: absorbs"),
        (grid[0, 1], right, "place", "penalty", "trained, right angle; dots: absorbs"),
        (grid[1, 0], turned, "place", "angle", "trained, penalty 0.1; dots: absorbs"),
    )
    images = [draw_map(axes, part, place, across) for axes, part, place, across, _ in maps]
    for axes, _, _, across, title in maps:
        axes.set(title=title, ylabel="child alone / with its parent")
        axes.set_xlabel("$L_1$ penalty $\\lambda$" if across == "penalty" else "angle, degrees")
    bar = figure.colorbar(images[-1], ax=grid[1, 0], ticks=(0, 1))
    bar.ax.set_yticklabels(["bisector", "child"])
    bar.set_label("child's latent", labelpad=-25)

    axes = grid[0, 2]
    middle = results.sizes["penalty"] // 2
    for color, index in zip(("C0", "C1", "C3"), (0, middle, -1), strict=True):
        line = right.isel(penalty=index).where(right.solo > 0)
        penalty = float(right.penalty[index])
        axes.plot(right.solo, line["ideal_place"], color=color, label=f"$\\lambda$ = {penalty:g}")
        axes.plot(right.solo, line["place"], "o", color=color, fillstyle="none")
        axes.axvline(
            exact.absorption_boundary(math.pi / 2, penalty), ymax=0.82, color=color, ls=":", lw=1
        )
    axes.set(
        xscale="log", xlabel="child alone / with its parent", yticks=(0, 1),
        title="lines: exact optimum; rings: trained\ndotted: as good as the true pair",
    )  # fmt: skip
    axes.set_yticklabels(["bisector", "child"])
    axes.set_ylim(-0.06, 1.2)
    axes.legend(loc="upper center", ncols=3, columnspacing=1, handlelength=1)

    for axes, name, label in (
        (grid[1, 1], "tree_absorption", "absorption rate of parents"),
        (grid[1, 2], "tree_mcc", "MCC"),
    ):
        for color, architecture in zip(COLORS, ARCHITECTURES, strict=True):
            own = results.sel(architecture=architecture)
            axes.plot(own["tree_l0"], own[name], ".", color=color, alpha=0.6)
            mean = own.mean("tree_seed")
            axes.plot(mean["tree_l0"], mean[name], color=color, lw=1, label=architecture)
            other = name.replace("tree", "toy")
            if other in results:
                axes.plot(own["toy_l0"], own[other], "x", color=color, alpha=0.6, ms=4)
        axes.axvline(TRUE_L0, color="0.5", ls="--", lw=1)
        axes.set(xscale="log", xlabel="latents that fire in an example", ylabel=label)
        axes.set(title="trees, every seed; dashed: truth\ncrosses: hidden space of a toy model")
        ticks = (1, 1.5, 2, 3, 4, 6)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    grid[1, 1].legend()
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
