"""Causal scrubbing of right and wrong hypotheses: its verdict, and the truth.

Claim      The loss recovered by scrubbing is blind to superposition: with independent features
           "output i depends on feature i alone" recovers everything in every trained model, and
           with features that are present together it recovers more than everything. The distance
           between the output and the scrubbed output sees the interference.
Reproduces No figure of a paper. The method is that of Chan et al. (2022), "Causal Scrubbing"; the
           closed forms are derived here.
Selection  Best of 8 seeds by the loss on 65,536 fresh examples, which are common to all seeds.
           Scrubbing uses 65,536 examples and one draw for each node and example.
Command    toymodels run experiments/causal_scrubbing.py
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels import interventions as iv

BLIND = tm.prediction("The scrubbed output has the joint distribution with x_i of the output")
EXACT = tm.prediction("2 sum_i E Var(y_i | x_i)")
TOGETHER = tm.prediction("A digon of features that are present together: (5 - 4p) / (3 - 2p)")
TRUE = tm.identity("A true hypothesis replaces every value by itself")
FOUND = tm.finding("first measured here")
SAMPLING = "Ours, because it is four standard errors of 65,536 examples."
ROUNDED = "Ours, because numbers are rounded."
ANY = "Ours, because any improvement counts."
HYPOTHESES = ("alone", "half right", "wrong", "everything")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (1.0, 0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
    sizes: tuple[tuple[int, int], ...] = ((5, 2), (20, 5))
    num_seeds: int = 8
    examples: int = 65_536
    training: tm.Recipe = tm.Recipe(steps=4000, batch=1024, learning_rate=1e-2)


SMOKE = Config(
    densities=(1.0, 0.1),
    sizes=((2, 1),),
    num_seeds=2,
    examples=2000,
    training=tm.Recipe(steps=50, batch=64, learning_rate=1e-2),
)


def hypothesis(name: str, features: tm.SparseUniform, gram) -> list[iv.Node]:
    """Return the nodes that say what each output depends on."""
    number = features.num_features
    if name == "everything":
        return [iv.Node(iv.whole("hidden"), iv.keeping(features, range(number)))]
    nodes: list[iv.Node] = []
    for i in range(number):
        kept = {"alone": [i], "wrong": [(i + 1) % number]}.get(name)
        if kept is None:  # half right: the feature, and the one that interferes with it most
            others = jnp.where(jnp.arange(number) == i, -1.0, jnp.abs(gram[i]))
            kept = [i, jnp.argmax(others)]
        nodes.append(iv.Node(iv.unit("output", i), iv.keeping(features, kept)))
    return nodes


def scrubbed(key, model, params, features, examples: int) -> dict:
    """Return what scrubbing says of each hypothesis."""
    key_examples, *keys = jax.random.split(key, len(HYPOTHESES) + 1)
    batch = features.sample(key_examples, examples)
    gram = params["weights"].T @ params["weights"]
    loss = tm.Task(features).loss
    found = [
        iv.scrub(key, model, params, batch, hypothesis(name, features, gram), features, loss)
        for key, name in zip(keys, HYPOTHESES, strict=True)
    ]
    return {
        "recovered": jnp.stack([each.recovered for each in found]),
        "distance": jnp.stack([each.distance for each in found]),
        "interference": tm.theory.scrubbing_distance_linear(params["weights"], features.density),
    }


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    def cell(key, *, size, density):
        number, hidden = config.sizes[size]
        features = tm.SparseUniform(number, density)
        model = tm.ReLUOutput(hidden)
        key_model, key_scrub = jax.random.split(key)
        trained = config.training.train(key_model, model, tm.Task(features))
        linear = {**trained.params, "bias": 0 * trained.params["bias"]}
        outputs = scrubbed(key_scrub, model, trained.params, features, config.examples)
        before = scrubbed(key_scrub, tm.LinearOutput(hidden), linear, features, config.examples)
        return {"loss": trained.loss, **outputs, "distance_before": before["distance"]}

    axes = {"density": config.densities}
    static = {"size": {f"{n} in {m}": i for i, (n, m) in enumerate(config.sizes)}}
    dims = dict.fromkeys(("recovered", "distance", "distance_before"), ("hypothesis",))
    how = {"num_seeds": config.num_seeds, "store": store}
    trained = tm.sweep(cell, axes=axes, static=static, dims=dims, **how)
    trained = trained.assign_coords(hypothesis=list(HYPOTHESES))
    return trained.merge(digons(config))


def digons(config: Config) -> xr.Dataset:
    """Return what scrubbing says of one antipodal pair, independent and present together."""
    model = tm.ReLUOutput(hidden=1)
    params = {"weights": jnp.asarray([[1.0, -1.0]]), "bias": jnp.zeros(2)}

    def cell(key, *, density):
        independent = tm.SparseUniform(2, density)
        nodes = hypothesis("alone", independent, params["weights"].T @ params["weights"])
        outputs = {}
        for name, features in (
            ("independent", independent),
            ("together", tm.CorrelatedSets(num_sets=1, size=2, density=density)),
        ):
            batch = features.sample(key, config.examples)
            loss = tm.Task(features).loss
            found = iv.scrub(key, model, params, batch, nodes, features, loss)
            outputs[f"{name}_recovered"] = found.recovered
            outputs[f"{name}_distance"] = found.distance
        return outputs

    # Only densities at which the pair is wrong often enough to be measured.
    dense = [density for density in config.densities if 0.1 <= density < 1]
    found = tm.sweep(cell, axes={"density": dense}, num_seeds=config.num_seeds)
    return found.rename(density="pair_density")


def claims(results: xr.Dataset) -> tm.Claims:
    best = tm.best_of(results, "loss")
    alone = best.sel(hypothesis="alone")
    sparse = best.density <= 0.15
    for size in best["size"].values:
        models = f"models of {size.replace(' in ', ' features in ')} dimensions"
        here = alone.sel(size=size)
        says = f'In trained {models}, "output i depends on feature i alone" recovers the whole '
        says += "loss at every density, measured by the largest deviation from 1."
        measured = np.abs(here["recovered"] - 1).max()
        yield tm.near(says, 0, measured, BLIND, within=0.05, threshold=SAMPLING)

        says = "Before the ReLU, the mean squared distance between the output and the output "
        says += "scrubbed by 'output i depends on feature i alone' is twice the interference in "
        says += f"{models}, measured by the largest relative difference over densities."
        before = here["distance_before"] / here["interference"] - 1
        measured = np.abs(before.where(here["interference"] > 1e-3)).max()
        yield tm.near(says, 0, measured, EXACT, within=0.05, threshold=SAMPLING)

        says = "The wrong hypothesis that output i depends on the feature of a neighbour recovers "
        says += f"none of the loss in {models} at densities up to 0.15, measured by the largest "
        says += "share."
        wrong = best["recovered"].sel(size=size, hypothesis="wrong").where(sparse)
        yield tm.at_most(says, 0, wrong.max(), BLIND, slack=0.05, threshold=SAMPLING)

        says = "The hypothesis that outputs depend on the whole hidden layer changes no output of "
        says += f"{models}, measured by the largest distance."
        everything = best["distance"].sel(size=size, hypothesis="everything").max()
        yield tm.near(says, 0, everything, TRUE, within=1e-9, threshold=ROUNDED)

        says = f"In {models}, a hypothesis that also names the feature that interferes most brings "
        says += "the scrubbed output nearer to the output at every density up to 0.15, measured by "
        says += "the largest ratio of distances."
        distance = best["distance"].sel(size=size).where(sparse)
        ratio = distance.sel(hypothesis="half right") / distance.sel(hypothesis="alone")
        yield tm.at_most(says, 1, ratio.max(), FOUND, threshold=ANY)

    p = results.pair_density
    says = "In an antipodal pair of independent features the mean squared distance between the "
    says += "output and the output scrubbed by 'output i depends on feature i alone' is the closed "
    says += "form, measured by the largest relative difference of the mean of seeds over densities "
    says += "from 0.1."
    pair = np.asarray([[1.0, -1.0]])
    exact = [tm.theory.scrubbing_distance(pair, np.zeros(2), density) for density in p.values]
    measured = np.abs(results["independent_distance"].mean("seed") / np.asarray(exact) - 1).max()
    yield tm.near(says, 0, measured, EXACT, within=0.05, threshold=SAMPLING)

    says = "In an antipodal pair of independent features the hypothesis 'output i depends on "
    says += "feature i alone' recovers the whole loss, measured by the largest deviation from 1."
    measured = np.abs(results["independent_recovered"].mean("seed") - 1).max()
    yield tm.near(says, 0, measured, BLIND, within=0.02, threshold=SAMPLING)

    says = "In an antipodal pair of features that are present together the hypothesis 'output i "
    says += "depends on feature i alone' recovers more than the whole loss, measured by the "
    says += "largest difference from the closed form over densities."
    exact = (5 - 4 * p) / (3 - 2 * p)
    measured = np.abs(results["together_recovered"].mean("seed") - exact).max()
    yield tm.near(says, 0, measured, TOGETHER, within=0.03, threshold=SAMPLING)


def plot(results: xr.Dataset) -> plotting.Figure:
    best, seeds = tm.best_of(results, "loss"), results.sizes["seed"]
    sizes = best["size"].values
    figure, ((recovered, distance), (before, pair)) = plotting.figure(2, 2, size=(9.0, 6.4))
    names = {
        "alone": "feature i alone",
        "half right": "and its strongest interferer",
        "wrong": "a neighbour of feature i",
        "everything": "the whole hidden layer",
    }
    size = sizes[0]
    for number, (name, label) in enumerate(names.items()):
        here = best.sel(size=size, hypothesis=name)
        style = {"color": f"C{number}", "marker": plotting.MARKERS[number], "ms": 4}
        recovered.semilogx(best.density, here["recovered"], label=label, **style)
        distance.loglog(best.density, here["distance"].clip(1e-6), label=label, **style)
    recovered.set_ylabel("share of the loss recovered")
    recovered.set_title(f"Loss recovered is blind\n({size} dimensions, best of {seeds})")
    recovered.legend(title="output i depends on", loc="center left")
    distance.set_ylabel("distance to the scrubbed output")
    distance.set_title("The distance sees interference\n(at least 1e-6)")
    for number, size in enumerate(sizes):
        here = best.sel(size=size, hypothesis="alone")
        points, marker = (here["interference"], here["distance_before"]), plotting.MARKERS[number]
        before.loglog(*points, marker, label=size)
    ends = [1e-3, float(best["interference"].max())]
    before.loglog(ends, ends, "0.5", lw=1, label="closed form")
    before.set_xlabel("interference $2 \\sum_{i \\neq j} G_{ij}^2 Var(x_j)$")
    before.set_ylabel("distance before the ReLU")
    before.set_title("Before the ReLU it is the interference")
    before.legend()
    p = results.pair_density
    for color, name in (("C0", "independent"), ("C1", "together")):
        values = results[f"{name}_recovered"]
        plotting.every_seed(pair, values, x="pair_density", label=name, color=color)
    pair.plot(p, (5 - 4 * p) / (3 - 2 * p), "k--", label="closed form")
    pair.set_ylabel("share of the loss recovered")
    pair.set_title("Correlated features in an antipodal pair\nrecover more than everything")
    pair.legend()
    for axes in (recovered, distance, pair):
        plotting.density_axis(axes)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
