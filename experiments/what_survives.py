r"""Which methods survive superposition? Every family on one axis, on the same trained models.

Claim      Without superposition probes and directions read the features that a model keeps as well
           as the exact posterior; what they miss is in features that it hardly keeps. In
           superposition they still read most of it. Components do not, and subcomponents of the
           weights partly. Dictionaries are best where features are sparse and superposition is
           strongest.
Reproduces No figure of a paper.
Settings   12 binary features of falling importance in 5 dimensions; all ours. `tm.Ladder` and
           `tm.score_method` say how a score is made: 0 is as many random directions, and 1 the
           exact posterior. Dictionaries have 24 latents and one setting at all
           densities. All of them, components and subcomponents of the weights are read along their
           directions: latents that are silent in most examples separate features worse than random
           directions do. NMF factors the positive and the negative parts of the activations.
Selection  None: bands go from the lowest to the highest seed, and lines are medians.
Command    toymodels run experiments/what_survives.py
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import autoencoders, circuits, experiment, plotting
from toymodels import interventions as iv
from toymodels.analysis import baselines, classification, probing, readouts

BEST = tm.identity("Neyman and Pearson (1933): no score of activations exceeds the posterior")
ALONE = tm.prediction("Without superposition the direction of a feature is the best readout")
FRAME = tm.prediction("The components of a tight frame are arbitrary")
MONOTONE = tm.prediction("Where an output is on, its attribution rises with it")
FOUND = tm.finding("first measured here")
SCORE = "median score (0 is chance, 1 is the exact posterior)"
ROUND = "Ours, a round number that was set before the run."
WEAK = (
    "At density 0.7 the model also has a sixth feature, of a tenth of the length, which the "
    "posterior reads by explaining the others away: see the claims of features longer and shorter "
    "than 1/2. Too few examples, our first explanation, was wrong: twice as many gave lower scores."
)
SPREAD = "Features are found from some starts only, as in the experiment parameter_decomposition."
UNEQUAL = "Falling importance makes lengths unequal: see the claim of equal importance."
SAMPLING = "Ours, because 2,048 activations of each model are scored."
LATENTS = 24
DICTIONARIES = {  # the model and its penalty
    "ReLU": (tm.ReLUAutoencoder(LATENTS), 0.1),
    "gated": (tm.GatedAutoencoder(LATENTS), 0.1),
    "JumpReLU": (tm.JumpReLUAutoencoder(LATENTS, 0.1, 0.1), 0.03),
    "Matryoshka": (tm.MatryoshkaAutoencoder(LATENTS, (3, 6, 12, 24)), 0.1),
    "TopK": (tm.TopKAutoencoder(LATENTS, 2), 0.0),
    "BatchTopK": (tm.BatchTopKAutoencoder(LATENTS, 2), 0.0),
}
FAMILIES = {
    "Probes and directions": ("logistic probe", "best linear", "direction $W_i$"),
    "Components": ("PCA", "ICA", "NMF", "decomposition of $W$"),
    "Dictionaries": tuple(DICTIONARIES),
    "Inside the model": ("output", "attribution", "patching", "alignment search"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (0.7, 0.5, 0.25, 0.15, 0.1, 0.05)
    num_seeds: int = 3
    num_features: int = 12
    hidden: int = 5
    examples: int = 4096
    dictionaries: tuple[str, ...] = tuple(DICTIONARIES)
    fit: tm.Recipe = tm.Recipe(steps=1000, batch=64, learning_rate=3e-3)
    decomposition_steps: int = 2000
    search_steps: int = 200


SMOKE = Config(
    densities=(0.5, 0.15),
    num_seeds=1,
    num_features=3,
    hidden=2,
    examples=512,
    dictionaries=("ReLU",),
    fit=tm.Recipe(steps=5, batch=8, learning_rate=3e-3),
    decomposition_steps=5,
    search_steps=5,
)


def logistic(_, seen):
    fit = partial(probing.logistic, seen.hidden, penalty=0.01)
    probes = jax.vmap(fit, 1)(seen.features > 0)
    return jax.vmap(probing.scores, (0, None), 1)(probes, seen.fresh)


def best_linear(_, seen):
    density = jnp.mean(seen.features)
    variances = jnp.full(seen.features.shape[1], density * (1 - density))
    return seen.fresh @ readouts.decoding_directions(seen.params["weights"], variances, noise=0.2)


def independent(key, seen):
    mixing = baselines.independent_components(key, seen.hidden, seen.hidden.shape[1])
    return (seen.fresh - jnp.mean(seen.hidden, axis=0)[None]) @ jnp.linalg.pinv(mixing).T


def nonnegative(key, seen):
    halves = jnp.concatenate([jax.nn.relu(seen.hidden), jax.nn.relu(-seen.hidden)], axis=1)
    factors = baselines.nonnegative_factors(key, halves, seen.features.shape[1])
    above, below = jnp.split(factors, 2)
    return seen.fresh @ (above - below)


def decomposition(steps, key, seen):
    """Read along the subcomponents of the weights (SPD)."""
    sample = tm.FiniteData(seen.features).sample
    shape = {"parts": LATENTS, "gate_units": 2, "minimality": 5e-3}
    how = {"steps": steps, "batch": 64, "optimizer": optax.adam(1e-2)}
    weights, bias = seen.params["weights"], seen.params["bias"]
    found = circuits.decompose_parameters(key, weights, bias, sample, **shape, **how)
    return seen.fresh @ found.left.T


def dictionary(model, penalty, recipe, key, seen):
    data, how = tm.FiniteData(seen.hidden), {"penalty": penalty, **recipe.settings()}
    params = tm.fit_autoencoder(key, model, data, **how).params
    return seen.fresh @ autoencoders.dictionary(params)


def output_of(seen, hidden, *edits):
    at = iv.set_to(iv.whole("hidden"), hidden)
    return iv.run(seen.model, seen.params, seen.features[0], at, *edits)


def attribution(_, seen):
    """Return the gradient of each output times the activation."""
    return jax.vmap(lambda h: jax.jacobian(partial(output_of, seen))(h) @ h)(seen.fresh)


def patching(_, seen):
    """Return how much each output changes without the direction of its feature."""
    parts = iv.directions("hidden", seen.params["weights"])

    def effects(hidden):
        without = jax.vmap(lambda part: output_of(seen, hidden, iv.zero(part)))(parts)
        return output_of(seen, hidden) - jnp.diagonal(without)

    return jax.vmap(effects)(seen.fresh)


def alignment(steps, key, seen):
    """Search for the direction whose interchange swaps each feature."""
    number = seen.features.shape[1]
    represented = jnp.sum(seen.params["weights"] ** 2, axis=0) > 0.5

    def search(key, feature):
        swapped = jnp.arange(number) == feature

        def sample(key, batch):
            rows = jax.random.randint(key, (2, batch), 0, len(seen.features))
            return seen.features[rows[0]], seen.features[rows[1]]

        def loss(output, base, source):
            wanted = jnp.where(swapped, source, base)
            return jnp.sum((represented | swapped) * (output - wanted) ** 2)

        how = {"steps": steps, "batch": 64, "optimizer": optax.adam(0.1)}
        start = (key, seen.model, seen.params)
        part = iv.align(*start, sample, loss, site="hidden", size=1, **how)
        return jnp.asarray(part.basis)[:, 0]

    found = jax.vmap(search)(jax.random.split(key, number), jnp.arange(number))
    return seen.fresh @ found.T


def methods(config: Config):
    """Return every method that reads, by its name; only those of scikit-learn are not compiled."""
    compiled = {
        "logistic probe": logistic,
        "best linear": best_linear,
        "direction $W_i$": lambda _, seen: seen.fresh @ seen.params["weights"],
        "PCA": lambda _, seen: (
            seen.fresh @ baselines.principal_components(seen.hidden, config.hidden).dictionary
        ),
        "output": lambda _, seen: jax.vmap(partial(output_of, seen))(seen.fresh),
        "attribution": attribution,
        "patching": patching,
        "alignment search": partial(alignment, config.search_steps),
        "decomposition of $W$": partial(decomposition, config.decomposition_steps),
    }
    for name in config.dictionaries:
        compiled[name] = partial(dictionary, *DICTIONARIES[name], config.fit)
    on_the_host = {"ICA": independent, "NMF": nonnegative}
    return {name: jax.jit(method) for name, method in compiled.items()} | on_the_host


def missed(models: xr.Dataset) -> xr.DataArray:
    """Return by how much the direction of each feature separates it less than the posterior."""
    scored = models.isel(example=slice(models.sizes["example"] // 2, None))
    read = xr.dot(scored["fresh_hidden"], models["weights"], dim="dimension")
    present, along = scored["fresh_features"] > 0, [["example"], ["example"]]
    auroc = jax.jit(classification.auroc)
    area = xr.apply_ufunc(auroc, read, present, input_core_dims=along, vectorize=True)
    return models["ceiling"] - (2 * area - 1)


def run(config: Config) -> xr.Dataset:
    size = {"num_features": config.num_features, "hidden": config.hidden}
    runs = {"num_seeds": config.num_seeds, "examples": config.examples}
    ladder = tm.Ladder(densities=config.densities, **size, **runs)
    readers = methods(config)
    models, equal = (
        dataclasses.replace(ladder, importance_ratio=ratio).train()
        for ratio in (ladder.importance_ratio, 1.0)
    )
    models = models.transpose("density", "seed", "dimension", ...)
    scored = {name: tm.score_method(method, models) for name, method in readers.items()}
    scores = xr.concat([one["score"] for one in scored.values()], xr.Variable("reader", [*scored]))
    shared = scored["best linear"][["ceiling", "chance", "features_per_dimension"]]
    return shared.assign(
        score=scores,
        equal_score=tm.score_method(readers["PCA"], equal)["score"],
        missed=missed(models),
        length=np.sqrt((models["weights"] ** 2).sum("dimension")),
    )


def claims(results: xr.Dataset) -> tm.Claims:
    middle = results.median("seed")
    score = middle["score"]
    dense = score.isel(density=int(np.argmax(results["density"].values)))
    sparse = score.isel(density=int(np.argmin(results["density"].values)))
    shared = score.where(results["density"] <= 0.15, drop=True)
    found = [name for name in DICTIONARIES if name in results["reader"]]

    says = "No method separates the features of any trained model better than the exact posterior, "
    says += "whose score is 1, measured by the highest score."
    yield tm.at_most(says, 1, results["score"].max(), BEST, slack=0.1, threshold=SAMPLING)
    for name in ("best linear", "logistic probe", "direction $W_i$"):
        says = f"Without superposition (density 0.7) the method '{name}' reads the features of "
        says += f"trained models with a {SCORE} near 1."
        yield tm.at_least(says, 0.9, dense.sel(reader=name), ALONE, threshold=ROUND, note=WEAK)
    yield from lengths(results)
    linear = shared.sel(reader="best linear")
    says = f"At densities up to 0.15 the best linear readout of trained models has a {SCORE} below "
    says += "1."
    yield tm.at_most(says, 0.95, linear.max(), FOUND, threshold=ROUND)
    says = f"At densities up to 0.15 the best linear readout of trained models has a {SCORE} above "
    says += "1/2."
    yield tm.at_least(says, 0.5, linear.min(), FOUND, threshold=ROUND)
    says = "Attribution and the outputs read the features of trained models about equally well, "
    says += f"measured by the largest difference of the {SCORE} over densities."
    gap = np.abs(score.sel(reader="attribution") - score.sel(reader="output")).max()
    yield tm.at_most(says, 0.05, gap, MONOTONE, threshold=ROUND)
    says = "At densities up to 0.15 outputs of trained models read features less well than the "
    says += f"directions $W_i$ do, measured by the smallest difference of the {SCORE}."
    gap = (shared.sel(reader="direction $W_i$") - shared.sel(reader="output")).min()
    yield tm.at_least(says, 0, gap, FOUND)
    says = f"At densities up to 0.15 principal components of trained models have a {SCORE} near 0."
    highest = shared.sel(reader="PCA").max()
    yield tm.at_most(says, 0.1, highest, FRAME, threshold=ROUND, note=UNEQUAL)
    says = "At densities up to 0.15 principal components of models whose features are equally "
    says += f"important have a {SCORE} near 0."
    highest = middle["equal_score"].where(results["density"] <= 0.15).max()
    yield tm.at_most(says, 0.1, highest, FRAME, threshold=ROUND)
    says = "Without superposition (density 0.7) independent components of trained models have a "
    says += f"high {SCORE}."
    yield tm.at_least(says, 0.7, dense.sel(reader="ICA"), FOUND, threshold=ROUND)
    says = f"At densities up to 0.15 independent components of trained models have a {SCORE} below "
    says += "1/2."
    yield tm.at_most(says, 0.5, shared.sel(reader="ICA").max(), FOUND, threshold=ROUND)
    says = "At densities up to 0.15 nonnegative factors of the activations of trained models have "
    says += f"a {SCORE} below 1/2."
    yield tm.at_most(says, 0.5, shared.sel(reader="NMF").max(), FOUND, threshold=ROUND)
    says = f"At density 0.05 subcomponents of the weights of trained models have a {SCORE} above "
    says += "1/2."
    value = sparse.sel(reader="decomposition of $W$")
    yield tm.at_least(says, 0.5, value, FOUND, threshold=ROUND, note=SPREAD)
    says = f"At density 0.7 subcomponents of the weights of trained models have a low {SCORE}."
    value = dense.sel(reader="decomposition of $W$")
    yield tm.at_most(says, 0.4, value, FOUND, threshold=ROUND)
    says = "With dense features (density 0.7) every dictionary of trained models has a low "
    says += f"{SCORE}."
    yield tm.at_most(says, 0.4, dense.sel(reader=found).max(), FOUND, threshold=ROUND)
    says = "With sparse features (density 0.05) the best dictionary of trained models has a "
    says += f"{SCORE} above 1/2."
    yield tm.at_least(says, 0.5, sparse.sel(reader=found).max(), FOUND, threshold=ROUND)
    says = "At no density does a dictionary of trained models read features better than the best "
    says += f"linear readout, measured by the largest difference of the {SCORE}."
    gap = (score.sel(reader=found) - score.sel(reader="best linear")).max()
    yield tm.at_most(says, 0, gap, FOUND, slack=0.05, threshold=SAMPLING)
    says = "Without superposition (density 0.7) alignment search in trained models has a high "
    says += f"{SCORE}."
    value = dense.sel(reader="alignment search")
    yield tm.at_least(says, 0.8, value, FOUND, threshold=ROUND, note=WEAK)


def lengths(results: xr.Dataset):
    dense = results.isel(density=int(np.argmax(results["density"].values)))
    long, missing = dense["length"] > 0.5, dense["missed"]
    says = "Without superposition (density 0.7) the direction of a feature longer than 1/2 in a "
    says += "trained model separates it as well as the posterior does, measured by the largest "
    says += "difference of the two separations."
    yield tm.at_most(says, 0.01, missing.where(long).max(), ALONE, threshold=ROUND)
    says = "Nearly all that directions of trained models miss of the posterior without "
    says += "superposition (density 0.7) is in features shorter than 1/2, measured by the share."
    share = missing.where(~long).sum() / missing.sum()
    yield tm.at_least(says, 0.9, share, FOUND, threshold=ROUND)


def draw(axes, values: xr.DataArray, along: str, names, title: str) -> None:
    """Draw the median of each method, and a band from the lowest to the highest seed."""
    density = values["density"]
    for number, name in enumerate(names):
        look = {"color": f"C{number}", "marker": plotting.MARKERS[number], "label": name}
        plotting.range_band(axes, values.sel({along: name}), x="density", **look)
    axes.hlines((0, 1), density.min(), density.max(), color="0.5", lw=0.8, zorder=0)
    plotting.density_axis(axes, places=(0.05, 0.1, 0.2, 0.5))
    axes.set(ylim=(-0.25, 1.62), yticks=(0, 0.5, 1), title=title)
    axes.invert_xaxis()  # superposition grows to the right
    axes.legend(fontsize=7, ncols=2, loc="upper center")


def lengths_and_misses(axes, results: xr.Dataset) -> None:
    """Draw what the direction of each feature misses against the length of the feature."""
    ends = results.sortby("density").isel(density=[-1, 0])
    for number, (density, own) in enumerate(ends.groupby("density", squeeze=False)):
        length, own_missed = own["length"].values.ravel(), own["missed"].values.ravel()
        marker, label = plotting.MARKERS[number], f"density {density:g}"
        axes.plot(length, own_missed, marker, ms=4, color=f"C{number}", label=label)
    axes.axhline(0, color="0.5", lw=0.8)
    axes.set(title="Directions miss short features", xlabel="length of the feature")
    axes.set_ylabel("missed separation")
    axes.legend(fontsize=7)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.2))
    for axes, (title, names) in zip(grid.flat, FAMILIES.items(), strict=False):
        shown = [name for name in names if name in results["reader"]]
        draw(axes, results["score"], "reader", shown, title)
    lengths_and_misses(grid[1, 1], results)
    axes = grid[1, 2]
    parts = results[["chance", "ceiling"]].rename(chance="0: random", ceiling="1: posterior")
    for number, (name, values) in enumerate(parts.items()):
        plotting.every_seed(axes, values, x="density", label=name, color=f"C{number}", legend=False)
    per_dimension = results["features_per_dimension"].median("seed") / 4
    axes.plot(results["density"], per_dimension, "k--", label="$||W||_F^2 / 4m$")
    plotting.density_axis(axes, places=(0.05, 0.1, 0.2, 0.5))
    axes.set(ylim=(0, 1.35), title="What 0 and 1 mean", ylabel="separation $2 A - 1$")
    axes.invert_xaxis()
    axes.legend(fontsize=7, loc="upper left")
    for axes in grid[:, 0]:
        axes.set_ylabel("score: 0 chance, 1 best possible")
    seeds = f"median and range of {results.sizes['seed']} seeds"
    figure.suptitle(f"Superposition grows to the right ({seeds})")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
