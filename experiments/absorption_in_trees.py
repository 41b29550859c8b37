r"""Feature absorption in trees: which sparse autoencoders hide parents in their children.

Claim      Matryoshka autoencoders, whose second loss is that of the first latents alone, absorb
           fewer parents than ReLU autoencoders and recover more of the features. TopK and BatchTopK
           absorb, too. Matryoshka absorbs least in the hidden space of a toy model, too.
Reproduces Chanin et al. (2024), "A is for Absorption", and Bussmann et al. (2025), "Matryoshka
           Sparse Autoencoders", on features that are known; `feature_absorption` is about one
           parent and one child.
Settings   Ours: trees of three parents (density 0.3) of three children (0.2 given the parent, at
           most one at a time), all orthogonal, values uniform on (0.5, 1]; 12 latents. The
           Matryoshka autoencoder has a second loss, of its first three latents alone. Crosses are
           of the hidden space, 9 dimensions, of a toy model trained on the trees.
Selection  None: every seed.
Command    toymodels run experiments/absorption_in_trees.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import autoencoders, experiment, plotting
from toymodels.analysis import activity, dictionaries

ABSORPTION = tm.paper("Chanin et al. (2024), A is for Absorption")
NESTED = tm.paper("Bussmann et al. (2025), Matryoshka Sparse Autoencoders")
ABSORPTION_IN_TOYS = tm.finding("found here, after Chanin et al. (2024)")
NESTED_IN_TOYS = tm.finding("found here, after Bussmann et al. (2025)")
NO_NUMBER = "Ours, because the paper gives no number."
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
    architectures: tuple[str, ...] = tuple(ARCHITECTURES)
    toys: tuple[str, ...] = ("ReLU", "Matryoshka")
    """Architectures that are also trained on the hidden space of a toy model."""
    toy_hidden: int = 9
    levels: tuple[tuple[float, int], ...] = tuple(
        zip((0.02, 0.05, 0.1, 0.2, 0.3, 0.5), range(1, 7), strict=True)
    )
    """Pairs of a penalty and the k of TopK and BatchTopK."""
    num_seeds: int = 3
    training: tm.Recipe = tm.Recipe(steps=3000, batch=128, learning_rate=3e-3)
    examples: int = 4096


SMOKE = Config(
    architectures=("ReLU",),
    toys=(),
    levels=((0.1, 2),),
    num_seeds=2,
    training=tm.Recipe(steps=5, batch=128, learning_rate=3e-3),
    examples=64,
)


def trees(config, architectures, *, toy):
    """Fit autoencoders to the features of the trees, or to what a toy model makes of them."""
    distribution = tm.Hierarchy(PARENTS, jnp.array(DENSITIES), exclusive=True, smallest=0.5)
    children = jnp.array(PARENTS)[None, :] == jnp.arange(ROOTS)[:, None]
    recipe, how = config.training, config.training.settings()

    def cell(key, *, architecture, penalty, k):
        key_toy, key_fit, key_test = jax.random.split(key, 3)
        weights, activations = jnp.eye(LATENTS), distribution
        if toy:
            teacher = tm.ReLUOutput(config.toy_hidden)
            learned = recipe.train(key_toy, teacher, tm.Task(distribution), evaluation=0).params
            weights = learned["weights"]
            activations = tm.Activations(teacher, learned, distribution, "hidden")
        model, weight = architecture(penalty, k)
        params = tm.fit_autoencoder(key_fit, model, activations, penalty=weight, **how).params
        features = distribution.sample(key_test, config.examples)
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
        num_seeds=config.num_seeds,
    )
    found = found.reindex(architecture=list(ARCHITECTURES))
    where = "toy" if toy else "tree"
    names = {str(name): f"{where}_{name}" for name in found.data_vars}
    return found.rename({"penalty": "level", **names})


def run(config: Config) -> xr.Dataset:
    parts = [trees(config, config.architectures, toy=False)]
    if config.toys:
        parts.append(trees(config, config.toys, toy=True))
    return xr.merge(parts, combine_attrs="override")


def claims(results: xr.Dataset) -> tm.Claims:
    absorbed = results["tree_absorption"]
    relu, nested = (absorbed.sel(architecture=name) for name in ("ReLU", "Matryoshka"))
    says = "Matryoshka autoencoders of features in trees absorb parents no more often than ReLU "
    says += "autoencoders at every penalty of at most 0.2, measured by the smallest difference of "
    says += "their mean rates."
    fewer = (relu - nested).mean("seed").where(results.level <= 0.2)
    yield tm.at_least(says, 0, fewer.min(), NESTED)

    says = "Matryoshka autoencoders of features in trees have a higher mean matched cosine (MCC) "
    says += "at the best penalty than ReLU autoencoders, measured by the difference."
    mcc = results["tree_mcc"].mean("seed").max("level")
    higher = mcc.sel(architecture="Matryoshka") - mcc.sel(architecture="ReLU")
    yield tm.at_least(says, 0.02, higher, NESTED, threshold=NO_NUMBER)

    for name, k, note in (("TopK", 2, ", above the 1.44 active features"), ("BatchTopK", 1, "")):
        says = f"{name} autoencoders of features in trees absorb parents at k = {k}{note}, "
        says += "measured by the mean rate."
        level = int(abs(results.k - k).values.argmin())
        rate = absorbed.sel(architecture=name).isel(level=level).mean()
        yield tm.at_least(says, 0.1, rate, ABSORPTION, threshold=NO_NUMBER)

    toy = results.get("toy_absorption", absorbed * np.nan)
    relu, nested = (toy.sel(architecture=name).mean() for name in ("ReLU", "Matryoshka"))
    says = "ReLU autoencoders of the hidden space of a toy model of features in trees absorb "
    says += "parents, measured by the rate, the mean over penalties."
    clearly = "Ours, because it is clearly not 0."
    yield tm.at_least(says, 0.1, relu, ABSORPTION_IN_TOYS, threshold=clearly)

    says = "Matryoshka autoencoders of the hidden space of a toy model of features in trees absorb "
    says += "parents less often than ReLU autoencoders, measured by the difference of the rates."
    yield tm.at_least(says, 0, relu - nested, NESTED_IN_TOYS)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(1, 5, size=(9.0, 3.4), width_ratios=(1, 1, 1, 1, 1.2))
    for axes, name in zip(grid, ARCHITECTURES, strict=False):
        own = results.sel(architecture=name)
        axes.plot(own["tree_l0"], own["tree_absorption"], "o", color="C0", ms=3)
        if "toy_l0" in own:
            axes.plot(own["toy_l0"], own["toy_absorption"], "x", color="0.5", ms=4)
        axes.axvline(TRUE_L0, color="0.5", ls="--", lw=1)
        axes.set(xscale="log", xlim=(0.9, 6.7), ylim=(-0.03, 0.85), title=name, xlabel="L0")
        plotting.plain_ticks(axes, places=(1, 2, 4))
    for axes in grid[1:4]:
        axes.set_yticklabels([])
    grid[0].set_ylabel("absorption rate of parents")
    for place, name in enumerate(ARCHITECTURES):
        own = results["tree_mcc"].sel(architecture=name).dropna("seed", how="all")
        if own.size:
            best = own.isel(level=own.mean("seed").argmax("level"))
            grid[4].plot([place] * best.size, best, "o", color="C0", ms=3)
            grid[4].plot(place, best.mean(), "_", color="black", ms=14)
    grid[4].set_xticks(range(len(ARCHITECTURES)), list(ARCHITECTURES), rotation=60)
    grid[4].set(title="best level", ylabel="MCC")
    figure.suptitle(
        f"Matryoshka absorbs least (a dot is one of {results.sizes['seed']} seeds at a penalty or "
        "k; crosses: in a toy model; dashed: true L0)",
        fontsize=9,
    )
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
