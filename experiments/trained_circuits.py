"""Circuits trained in: does a network have the circuit of the program that it computes?

Claim      Networks that are trained on the outputs of a Boolean program compute it, but by edges of
           their own. Networks whose hidden variables are supervised compute these, but their
           outputs partly read the inputs in place of them. Networks trained by interchange
           interventions have the edges of the program, and methods of discovery find them.
Reproduces No figure. Geiger et al. (2022), "Inducing Causal Structure for Interpretable Neural
           Networks", define training by interchange interventions.
Settings   A random program of AND, OR and XOR gates in two layers. In the network each gate is a
           small network of its own, which may read all earlier variables, and writes one number.
           The losses are squared errors: of the outputs; of the gates of layer 1, too; or of the
           outputs after random gates of layer 1 have taken their values from another input, in
           the network and in the program. The true edges are those of the program that change an
           output. The corrupt example is independent of the clean one.
Selection  None: each seed has a program, a start and a draw of its own.
Command    toymodels run experiments/trained_circuits.py
"""

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax

import toymodels as tm
from toymodels import circuits, experiment, plotting
from toymodels.analysis import classification

IIT = tm.prediction("Interchange interventions leave one role to each hidden variable")
ENOUGH = tm.prediction("Two hidden units write any gate of two inputs, and each gate has eight")
FREE = tm.prediction("Outputs that may read all inputs leave hidden variables free")
RANDOM = tm.identity("The variance of Mann and Whitney")
FOUND = tm.finding("first measured here")
AROUND = (
    "Outputs can read inputs in place of the supervised gates, and no loss forbids it: see the "
    "claim of wrong edges."
)
FIRST = "Ours, after the first run, to test the explanation."
ROUND = "Ours, a round number that was set before the run."
ERRORS = "Ours, because it is four standard errors of the mean over seeds."

LAYERS = 2
GRAPH = circuits.boolean_graph(LAYERS)
METHODS = ("exact patching", "EAP", "EAP-IG", "random")
RULES = {"outputs only": (0.0, 0.0), "gates supervised": (1.0, 0.0), "interchange": (0.0, 1.0)}
"""The weights of the loss of the gates and of that after interchanges, for each training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_inputs: int = 6
    gates: int = 3
    units: int = 8
    examples: int = 64
    integration_steps: int = 5
    num_seeds: int = 12
    training: tm.Recipe = tm.Recipe(steps=3000, batch=64, learning_rate=1e-2)


SMOKE = Config(
    num_inputs=2,
    gates=2,
    units=2,
    examples=8,
    integration_steps=1,
    num_seeds=2,
    training=tm.Recipe(steps=5, batch=4, learning_rate=1e-2),
)


class Gates(nn.Module):
    """A layer of gates, each a network of one hidden layer that reads all of the stream."""

    gates: int
    units: int

    @nn.compact
    def __call__(self, stream):
        start = nn.initializers.normal(1 / np.sqrt(stream.size))
        read = self.param("read", start, (self.gates, self.units, stream.size))
        bias = self.param("bias", nn.initializers.normal(0.5), (self.gates, self.units))
        write = self.param("write", nn.initializers.normal(0.5), (self.gates, self.units))
        constant = self.param("constant", nn.initializers.zeros, (self.gates,))
        return jnp.sum(write * nn.relu(read @ stream + bias), axis=1) + constant


class Trainable(nn.Module):
    """A network with the graph of a program: every gate may read every earlier variable."""

    gates: int
    units: int

    @nn.compact
    def __call__(self, bits):
        hidden = Gates(self.gates, self.units, name="first")(bits)
        hidden = tm.Site(name="layer_0")(hidden)
        stream = jnp.concatenate([bits, hidden])
        return tm.Site(name="output")(Gates(self.gates, self.units, name="second")(stream))


def interchanged(model, params, base, source, chosen):
    """Return the outputs when the chosen gates of layer 1 have their values on the source."""
    other = tm.activations(model, params, source)["layer_0"]
    patches = {"layer_0": lambda own: jnp.where(chosen, other, own)}
    return tm.intervene(model, params, base, patches)


def trained(key, program, rule, config):
    """Return the parameters of one network and its final error, relative to the variance."""
    network = Trainable(config.gates, config.units)
    exact = circuits.BooleanNetwork(LAYERS, config.gates, program.num_variables)
    truth = circuits.written(program, jnp.eye(program.num_variables))
    key_start, key_data, key_test = jax.random.split(key, 3)

    def sample(key, batch):
        key_bits, key_gates = jax.random.split(key)
        bits = tm.Binary(config.num_inputs, 0.5).sample(key_bits, 2 * batch)
        chosen = jax.random.bernoulli(key_gates, 0.5, (batch, config.gates))
        return bits[:batch], bits[batch:], chosen

    def loss(params, example):
        base, source, chosen = example
        own, right = tm.activations(network, params, base), tm.activations(exact, truth, base)
        swapped = interchanged(network, params, base, source, chosen)
        wanted = interchanged(exact, truth, base, source, chosen)
        return (
            jnp.mean((own["output"] - right["output"]) ** 2)
            + rule[0] * jnp.mean((own["layer_0"] - right["layer_0"]) ** 2)
            + rule[1] * jnp.mean((swapped - wanted) ** 2)
        )

    start = network.init(key_start, jnp.zeros(config.num_inputs))["params"]
    params = tm.fit(key_data, start, loss, sample, **config.training.settings()).params
    bits = sample(key_test, 4 * config.examples)[0]

    def outputs_of(model, params):
        return jax.vmap(lambda x: jnp.asarray(model.apply({"params": params}, x)))(bits)

    outputs, right = outputs_of(network, params), outputs_of(exact, truth)
    error = jnp.mean((outputs - right) ** 2) / jnp.mean(jnp.var(right, axis=0))
    return params, error


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    network = Trainable(config.gates, config.units)

    def cell(key):
        key_program, key_train, key_pairs, key_random = jax.random.split(key, 4)
        size = {"num_inputs": config.num_inputs, "layers": LAYERS, "gates": config.gates}
        program = circuits.random_program(key_program, **size)
        used = circuits.vector(circuits.true_edges(program).used)
        pairs = tm.Binary(config.num_inputs, 0.5).sample(key_pairs, 2 * config.examples)
        chance = jax.random.uniform(key_random, used.shape)

        def of_rule(rule):
            params, error = trained(key_train, program, rule, config)
            examples = jnp.split(pairs, 2)
            behaviour = circuits.Behaviour(network, params, GRAPH, *examples, jnp.asarray)
            found = [
                circuits.edge_patching(behaviour),
                circuits.edge_attribution(behaviour),
                circuits.edge_attribution(behaviour, num_steps=config.integration_steps),
            ]
            scores = jnp.stack([*(circuits.vector(each) for each in found), chance])
            areas = jax.vmap(lambda own: classification.auroc(own, used))(scores)
            return {"error": error, "auroc": areas, "scores": scores[0]}

        found = lax.map(of_rule, jnp.asarray(list(RULES.values())))
        return {**found, "used": used, "kinds": program.kinds[..., 1]}

    dims = {
        "error": ("training",),
        "auroc": ("training", "found_by"),
        "used": ("edge",),
        "scores": ("training", "edge"),
        "kinds": ("layer", "gate"),
    }
    found = tm.sweep(cell, num_seeds=config.num_seeds, dims=dims, store=store)
    return found.assign_coords(training=list(RULES), found_by=list(METHODS))


def best(results: xr.Dataset) -> xr.DataArray:
    """Return the edges with the highest scores, as many as the program has."""
    scores = results["scores"]
    rank = scores.copy(data=np.argsort(np.argsort(-scores.values, -1), -1))
    return rank < (results["used"] > 0).sum("edge")


def claims(results: xr.Dataset) -> tm.Claims:
    outputs, supervised, interchange = RULES
    right = results["error"] < 0.01
    for rule in RULES:
        says = f"Networks compute their programs (training: {rule}), measured by the share of "
        says += "networks whose error is below 1 % of the variance."
        yield tm.at_least(says, 0.75, right.sel(training=rule).mean(), ENOUGH, threshold=ROUND)
    mean = results["auroc"].where(right).mean("seed")
    for rule in (supervised, interchange):
        for method in METHODS[:3]:
            says = f"Scores by {method} find the edges of the program (training: {rule}), measured "
            says += "by the mean AUROC over networks that compute it."
            value = mean.sel(training=rule, found_by=method)
            note = AROUND if rule == supervised else ""
            yield tm.at_least(says, 0.95, value, IIT, threshold=ROUND, note=note)
    wrong = (best(results) & ~(results["used"] > 0)).sel(training=supervised)
    gates = results.sizes["gate"]
    inputs = (results.sizes["edge"] // gates - gates) // 2
    direct = wrong.isel(edge=slice(inputs * gates, 2 * inputs * gates))
    says = "Most wrong edges of networks with supervised gates go from inputs to outputs, measured "
    says += "by their share."
    chance = (results["used"] == 0).isel(edge=slice(inputs * gates, 2 * inputs * gates)).sum()
    chance = float(chance / (results["used"] == 0).sum())
    note = f"They are {chance:.2f} of the edges that the programs do not have."
    yield tm.at_least(says, 0.5, direct.sum() / wrong.sum(), FOUND, threshold=FIRST, note=note)
    says = "Networks trained on outputs alone have other edges than their programs, measured by "
    says += "the mean AUROC of exact patching over networks that compute them."
    value = mean.sel(training=outputs, found_by="exact patching")
    yield tm.at_most(says, 0.9, value, FREE, threshold=ROUND)
    used = results["used"].sum("edge")
    edges = results.sizes["edge"]
    variance = ((edges + 1) / (12 * used * (edges - used))).mean()
    within = 4 * float(np.sqrt(variance / used.size))
    says = "A random ranking does not find the edges of the program, measured by the mean AUROC."
    random = results["auroc"].sel(training=outputs, found_by="random").mean()
    yield tm.near(says, 0.5, random, RANDOM, within=within, threshold=ERRORS)


def diagram(panel, here: xr.Dataset, rule: str) -> None:
    """Draw what exact patching finds in one network, against the edges of its program."""
    gates = here.sizes["gate"]
    inputs = (here.sizes["edge"] // gates - gates) // 2
    nodes = circuits.gate_nodes(inputs, here["kinds"].values)
    chosen = best(here).sel(training=rule).values
    edges = circuits.compared_edges(GRAPH, nodes, chosen, here["used"].values > 0)
    columns = {"input": "inputs", "layer_0": "layer 1", "output": "outputs"}
    plotting.circuit_diagram(panel, nodes, edges, columns=columns)
    panel.set_title(f"Training: {rule}", fontsize=10)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, panels = plotting.figure(1, 4, size=(9.0, 3.4), width_ratios=(1, 1, 1, 1.2))
    figure.suptitle("Only interchange interventions give a network the edges of its program")
    for panel, rule in zip(panels, RULES, strict=False):
        diagram(panel, results.isel(seed=0), rule)
    title = "program of seed 0: its edges by exact patching"
    names = panels[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower left", ncols=3, title=title)
    for place, name in enumerate(METHODS):
        values = results["auroc"].sel(found_by=name)
        for at, rule in enumerate(RULES):
            own = values.sel(training=rule)
            x = np.full(own.size, at + 0.18 * (place - 1.5))
            panels[3].plot(x, own, plotting.MARKERS[place], ms=3, color=f"C{place}", alpha=0.5)
            panels[3].plot(
                x[0], own.mean(), "_", ms=12, mew=2, color=f"C{place}", label="" if at else name
            )
    panels[3].set(xticks=range(3), ylabel="AUROC of the program's edges", ylim=(0, 1.03))
    panels[3].set_xticklabels([rule.replace(" ", "\n") for rule in RULES], fontsize=8)
    panels[3].set_title(f"{results.sizes['seed']} programs; bars: means", fontsize=10)
    panels[3].legend(fontsize=7, loc="lower right")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
