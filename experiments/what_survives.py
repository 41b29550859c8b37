r"""Which methods survive superposition? Every family on one axis, on the same trained models.

Claim      Without superposition, probes and directions read nearly all that can be read. In
           superposition they fall behind the exact posterior, but still read most of it. Principal
           and independent components do not. Dictionaries need sparse features, so they are best
           where superposition is strongest. Patching and integrated gradients find which feature
           interferes with which output; the loss recovered by scrubbing says nothing about it.
Reproduces No figure of a paper.
Settings   12 binary features of falling importance in 5 dimensions; all ours. `tm.Ladder` and
           `tm.score_method` say how a score is made: 0 is as many random directions, and 1 the
           exact posterior. Edges are scored by the rank correlation with their exact damage: 0 is
           a random ranking, and 1 the true one. Dictionaries have 24 latents and one setting at all
           densities. All of them, and components, are read along their directions: latents that are
           silent in most examples separate features worse than random directions do.
Selection  None: bands go from the lowest to the highest seed, and lines are medians.
Command    toymodels run experiments/what_survives.py
"""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import toymodels as tm
from toymodels import autoencoders, circuits, experiment, plotting
from toymodels import interventions as iv
from toymodels.analysis import baselines, probing, readouts

BEST = tm.identity("Neyman and Pearson (1933): no score of activations exceeds the posterior")
ALONE = tm.prediction("Without superposition the direction of a feature is the best readout")
FRAME = tm.prediction("The components of a tight frame are arbitrary")
MONOTONE = tm.prediction("Where an output is on, its attribution rises with it")
BLIND = tm.prediction("The loss recovered by scrubbing is blind to interference")
FOUND = tm.finding("first measured here")
ROUND = "Ours, a round number that was set before the run."
FEW = "At density 0.05 a feature changes in ten of 100 pairs, which is too few to rank its edges."
NEAR = "Fits to 2,048 examples, falling importance and sampling make differences of this size."
SAMPLING = "Ours, because 1,024 activations of each model are scored."
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
    "Components": ("PCA", "ICA"),
    "Dictionaries": tuple(DICTIONARIES),
    "Inside the model": ("output", "attribution", "patching", "alignment search"),
}
EDGES = ("patching", "EAP", "EAP-IG", "ACDC", "weights", "loss recovered")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (0.7, 0.5, 0.25, 0.15, 0.1, 0.05)
    num_seeds: int = 3
    num_features: int = 12
    hidden: int = 5
    dictionaries: tuple[str, ...] = tuple(DICTIONARIES)
    pairs: int = 100
    fit: tm.Recipe = tm.Recipe(steps=1000, batch=64, learning_rate=3e-3)
    search_steps: int = 200


SMOKE = Config(
    densities=(0.5, 0.15), num_seeds=1, num_features=3, hidden=2, dictionaries=("ReLU",), pairs=8,
    fit=tm.Recipe(steps=5, batch=8, learning_rate=3e-3), search_steps=5,
)  # fmt: skip


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


def dictionary(model, penalty, recipe, key, seen):
    params = tm.fit_autoencoder(
        key, model, tm.FiniteData(seen.hidden), penalty=penalty, optimizer=recipe.optimizer(),
        steps=recipe.steps, batch=recipe.batch,
    ).params  # fmt: skip
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

        part = iv.align(
            key, seen.model, seen.params, sample, loss, site="hidden", size=1, steps=steps,
            batch=64, optimizer=optax.adam(0.1),
        )  # fmt: skip
        return jnp.asarray(part.basis)[:, 0]

    found = jax.vmap(search)(jax.random.split(key, number), jnp.arange(number))
    return seen.fresh @ found.T


def methods(config: Config):
    """Return every method that reads, by its name; only that of scikit-learn is not compiled."""
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
    }
    for name in config.dictionaries:
        compiled[name] = partial(dictionary, *DICTIONARIES[name], config.fit)
    return {name: jax.jit(method) for name, method in compiled.items()} | {"ICA": independent}


class Direct(nn.Module):
    """The model without its hidden layer: y = ReLU(G x + b)."""

    @nn.compact
    def __call__(self, x):
        gram = self.param("gram", nn.initializers.zeros, (x.size, x.size))
        bias = self.param("bias", nn.initializers.zeros, (x.size,))
        return tm.Site(name="output")(jax.nn.relu(gram @ x + bias))


def exact_damage(gram, bias, density):
    """Return the exact damage of each edge, senders x receivers, by all states of the features."""
    states, log_weights = readouts.binary_states(jnp.full(bias.size, density))
    weights, states = jnp.exp(log_weights), states * 1.0
    total = states @ gram.T + bias[None]

    def of_sender(sender):
        other = total + (1 - 2 * states[:, sender])[:, None] * gram[:, sender][None]
        change = (jax.nn.relu(total) - jax.nn.relu(other)) ** 2
        return 2 * density * (1 - density) * (weights @ change)

    return jax.lax.map(of_sender, jnp.arange(bias.size))


def edge_scores(number_of_pairs, key, weights, bias, density):
    """Return the score of each edge by each method, and its exact damage."""
    gram = weights.T @ weights
    params, number = {"gram": gram, "bias": bias}, bias.size
    keys = jax.random.split(key, 3)
    features = tm.Binary(number, density)
    cleans, corrupts = (features.sample(each, number_of_pairs) for each in keys[:2])
    graph = circuits.Graph((("input", "output"),))
    behaviour = circuits.Behaviour(Direct(), params, graph, cleans, corrupts, lambda y: y)
    damages = [exact_damage(gram, bias, density)]
    damages.append(circuits.edge_patching(behaviour)["input", "output"])
    for steps in (0, 5):
        damages.append(circuits.edge_attribution(behaviour, num_steps=steps)["input", "output"])
    order = jax.random.permutation(keys[2], number**2)
    kept = jax.vmap(lambda threshold: circuits.acdc(behaviour, threshold=threshold, order=order))(
        jnp.geomspace(1e-4, 0.1, 6)
    )["input", "output"]
    damages += [jnp.sum(kept, axis=0), (gram**2).T]
    total = cleans @ gram.T + bias[None]
    swapped = total[:, None] + (corrupts - cleans)[:, :, None] * gram.T[None]
    errors = (cleans[:, None] - jax.nn.relu(swapped)) ** 2
    plain = (cleans - jax.nn.relu(total)) ** 2
    damages.append(jnp.mean(errors - plain[:, None], axis=0))
    return jnp.stack(damages)


def rank_correlations(scores):
    """Return the rank correlation of each method with the truth, over edges between features."""
    apart = ~np.eye(scores.shape[-1], dtype=bool)
    ranks = np.stack([stats.rankdata(each[apart]) for each in np.asarray(scores)])
    with np.errstate(invalid="ignore", divide="ignore"):  # where all scores are equal
        return np.nan_to_num(np.corrcoef(ranks)[0, 1:])


def run(config: Config) -> xr.Dataset:
    ladder = tm.Ladder(
        num_features=config.num_features, hidden=config.hidden, densities=config.densities,
        num_seeds=config.num_seeds,
    )  # fmt: skip
    models = ladder.train().transpose("density", "seed", "dimension", ...)
    scored = {name: tm.score_method(method, models) for name, method in methods(config).items()}
    scores = xr.concat([one["score"] for one in scored.values()], xr.Variable("reader", [*scored]))
    of_edges = jax.jit(partial(edge_scores, config.pairs))
    table = [
        [
            rank_correlations(of_edges(jax.random.key(seed), weights, bias, density))
            for seed, (weights, bias) in enumerate(zip(*of_level, strict=True))
        ]
        for density, *of_level in zip(
            config.densities, models["weights"].values, models["bias"].values, strict=True
        )
    ]
    shared = scored["best linear"][["ceiling", "chance", "features_per_dimension"]]
    variables = {"score": scores, "edges": (("density", "seed", "edge_method"), np.array(table))}
    return shared.assign(variables).assign_coords(edge_method=list(EDGES))


def claims(results: xr.Dataset):
    middle = results.median("seed")
    score, edges = middle["score"], middle["edges"]
    dense = score.isel(density=int(np.argmax(results["density"].values)))
    sparse = score.isel(density=int(np.argmin(results["density"].values)))
    shared = score.where(results["density"] <= 0.15, drop=True)
    shared_edges = edges.where(results["density"] <= 0.15, drop=True)
    found = [name for name in DICTIONARIES if name in results["reader"]]

    says = "No method has a score above that of the exact posterior, which is 1, in any model."
    yield tm.at_most(says, 1, results["score"].max(), BEST, slack=0.1, threshold=SAMPLING)
    for name in ("best linear", "logistic probe", "direction $W_i$"):
        says = f"Without superposition (density 0.7) the method '{name}' has a median score near 1."
        yield tm.at_least(says, 0.9, dense.sel(reader=name), ALONE, threshold=ROUND, note=NEAR)
    linear = shared.sel(reader="best linear")
    says = "At densities up to 0.15 the best linear readout has median scores below 1."
    yield tm.at_most(says, 0.95, linear.max(), FOUND, threshold=ROUND)
    says = "At densities up to 0.15 the best linear readout has median scores above 1/2."
    yield tm.at_least(says, 0.5, linear.min(), FOUND, threshold=ROUND)
    says = "Attribution and the output of the model have nearly equal median scores."
    gap = np.abs(score.sel(reader="attribution") - score.sel(reader="output")).max()
    yield tm.at_most(says, 0.05, gap, MONOTONE, threshold=ROUND)
    says = "At densities up to 0.15 outputs have lower median scores than the directions $W_i$."
    gap = (shared.sel(reader="direction $W_i$") - shared.sel(reader="output")).min()
    yield tm.at_least(says, 0, gap, FOUND, note=NEAR)
    says = (
        "At densities up to 0.15 principal components have median scores near 0, like random ones."
    )
    highest = shared.sel(reader="PCA").max()
    yield tm.at_most(says, 0.1, highest, FRAME, threshold=ROUND, note=NEAR)
    says = "Without superposition (density 0.7) independent components have a high median score."
    yield tm.at_least(says, 0.7, dense.sel(reader="ICA"), FOUND, threshold=ROUND)
    says = "At densities up to 0.15 independent components have median scores below 1/2."
    yield tm.at_most(says, 0.5, shared.sel(reader="ICA").max(), FOUND, threshold=ROUND)
    says = "Every dictionary has a low median score with dense features (density 0.7)."
    yield tm.at_most(says, 0.4, dense.sel(reader=found).max(), FOUND, threshold=ROUND)
    says = "The best dictionary has a median score above 1/2 with sparse features (density 0.05)."
    yield tm.at_least(says, 0.5, sparse.sel(reader=found).max(), FOUND, threshold=ROUND)
    says = "No dictionary has a higher median score than the best linear readout at any density."
    gap = (score.sel(reader=found) - score.sel(reader="best linear")).max()
    yield tm.at_most(says, 0, gap, FOUND, slack=0.05, threshold=SAMPLING)
    says = "Without superposition (density 0.7) alignment search has a high median score."
    yield tm.at_least(says, 0.8, dense.sel(reader="alignment search"), FOUND, threshold=ROUND)
    says = (
        "At densities up to 0.15 patching of pairs ranks edges nearly as their exact damage does."
    )
    worst = shared_edges.sel(edge_method="patching").min()
    yield tm.at_least(says, 0.9, worst, FOUND, threshold=ROUND, note=FEW)
    says = "At densities up to 0.15 EAP-IG ranks edges no less like their exact damage than EAP."
    gap = shared_edges.sel(edge_method="EAP-IG") - shared_edges.sel(edge_method="EAP")
    yield tm.at_least(says, 0, gap.min(), FOUND, note=NEAR)
    says = "The loss recovered by scrubbing hardly ranks edges as their exact damage does."
    largest = np.abs(edges.sel(edge_method="loss recovered")).max()
    yield tm.at_most(says, 0.5, largest, BLIND, threshold=ROUND)


def draw(axes, values: xr.DataArray, along: str, names, title: str) -> None:
    """Draw the median of each method, and a band from the lowest to the highest seed."""
    density = values["density"]
    for number, name in enumerate(names):
        own, color = values.sel({along: name}), f"C{number}"
        axes.fill_between(density, own.min("seed"), own.max("seed"), color=color, alpha=0.15, lw=0)
        marker = plotting.MARKERS[number]
        axes.plot(density, own.median("seed"), marker=marker, ms=4, color=color, label=name)
    axes.hlines((0, 1), density.min(), density.max(), color="0.5", lw=0.8, zorder=0)
    plotting.density_axis(axes, places=(0.05, 0.1, 0.2, 0.5))
    axes.set(ylim=(-0.25, 1.62), yticks=(0, 0.5, 1), title=title)
    axes.invert_xaxis()  # superposition grows to the right
    axes.legend(fontsize=7, ncols=2, loc="upper center")


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.2))
    for axes, (title, names) in zip(grid.flat, FAMILIES.items(), strict=False):
        shown = [name for name in names if name in results["reader"]]
        draw(axes, results["score"], "reader", shown, title)
    draw(grid[1, 1], results["edges"], "edge_method", EDGES, "Edges: what interferes with what")
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
    grid[1, 1].set_ylabel("rank correlation")
    seeds = f"median and range of {results.sizes['seed']} seeds"
    figure.suptitle(f"Superposition grows to the right ({seeds})")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
