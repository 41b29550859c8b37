"""Compiled programs in fewer dimensions than variables: when is the circuit lost?

Claim      Two programs that Tracr compiled into transformers are right with as many dimensions as
           variables, and mostly wrong with a seventh less. Exact patching still finds most of the
           program in a network that no longer computes it; ACDC is soon no better than chance.
Reproduces No figure. Lindner et al. (2023), "Tracr", compress a program by training, and Mueller et
           al. (2025), "MIB", compare methods without an axis of compression.
Settings   Variables are the named directions of a program; compressed, they are projections of a
           random orthonormal basis. True edges are wired, and change an output of the program with
           all dimensions. Each method is scored by the share of the true edges among as many best
           ones. The corrupt sequence is a random other one. Heads read queries, keys and values
           apart. EAP-IG takes midpoints, and ACDC is a mean over thresholds, each in an order of
           its own. An answer is right if it is the nearest possible one.
Selection  None: each seed has a basis and pairs of sequences of its own.
Command    toymodels run experiments/compressed_programs.py
"""

import dataclasses
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import lax
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import circuits, experiment, plotting

EXACT = tm.identity("Orthonormal directions change nothing")
WIRED = tm.identity("Without a weight there is no effect")
RANDOM = tm.identity("The mean of the hypergeometric law")
SATURATED = tm.prediction("The softmax of a compiled head is saturated, so that its slope is 0")
FOUND = tm.finding("first measured here")
TOKENS = "We did not test why. On the way all tokens are mixtures, which no program was made for."
SLOPE = "Both programs have slopes at clean inputs: EAP misses one edge of one program."
ROUND = "Ours, a round number that was set before the run."
ERRORS = "Ours, because it is four standard errors of the mean over seeds."

METHODS = ("exact patching", "EAP", "EAP-IG", "ACDC", "edge pruning", "random")
TITLES = {
    "frac_prevs": "share of x so far", "hist": "count this token", "reverse": "reverse",
    "sort": "sort",
}  # fmt: skip
EFFECT = 1e-5  # rounding is below, and each true edge above


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    programs: tuple[str, ...] = ("frac_prevs", "hist")
    shares: tuple[float, ...] = (1.0, 0.85, 0.7, 0.5, 0.3)
    """The number of dimensions for each variable."""
    pairs: int = 40
    integration_steps: int = 5
    damages: tuple[float, ...] = (1e-3, 1e-2)
    penalty: float = 0.1
    pruning_steps: int = 25
    num_seeds: int = 4


SMOKE = Config(
    programs=("hist",), shares=(1.0, 0.5), pairs=12, integration_steps=1, damages=(1e-2,),
    pruning_steps=2, num_seeds=2,
)  # fmt: skip


def discovered(key, behaviour, config):
    """Return the score of each edge by each method (methods x edges)."""
    key_orders, key_random = jax.random.split(key)
    number = circuits.vector(behaviour.all_edges()).size
    orders = jax.vmap(lambda key: jax.random.permutation(key, number))(
        jax.random.split(key_orders, len(config.damages))
    )
    kept = lax.map(
        lambda search: circuits.acdc(behaviour, threshold=search[0], order=search[1]),
        (jnp.asarray(config.damages), orders),
    )
    scores = [
        circuits.edge_patching(behaviour),
        circuits.edge_attribution(behaviour),
        circuits.edge_attribution(behaviour, num_steps=config.integration_steps),
        jax.tree.map(lambda kept: jnp.mean(kept, axis=0), kept),
        circuits.edge_pruning(
            behaviour, penalty=config.penalty, optimizer=optax.adam(0.2), steps=config.pruning_steps
        ),
    ]
    found = [circuits.vector(each) for each in scores]
    return jnp.stack([*found, jax.random.uniform(key_random, (number,))])


def all_sequences(program):
    """Return every sequence of four tokens as inputs of the model."""
    tokens = [token for token in program.vocabulary if not token.startswith("compiler")]
    return jnp.stack([program.encoded(each) for each in itertools.product(tokens, repeat=4)])


def answers(output):
    """Return the outputs at the tokens, which the first position is not."""
    return output[1:]


def share_right(outputs, exact):
    """Return the share of positions after the first whose answer is the nearest possible one."""
    outputs, exact = outputs[:, 1:], exact[:, 1:]
    if outputs.shape[2] > 1:
        return jnp.mean(jnp.argmax(outputs, axis=2) == jnp.argmax(exact, axis=2))
    possible = jnp.unique(jnp.round(exact, 4), size=7)  # 0, 1/4, 1/3, 1/2, 2/3, 3/4, 1

    def nearest(values):
        return jnp.argmin(jnp.abs(values - possible[None, None]), axis=2)

    return jnp.mean(nearest(outputs) == nearest(exact))


def of_program(name: str, config: Config, store: Path | None) -> xr.Dataset:
    """Return the accuracy of one program, and the share of its edges that each method recovers."""
    program = circuits.tracr_program(name)
    variables, inputs = len(program.residual), all_sequences(program)
    graph = circuits.tracr_graph(program.model.layers)

    def outputs(params):
        run = jax.vmap(lambda x: jnp.asarray(program.model.apply({"params": params}, x)))
        return run(inputs)

    def cell(key, *, share):
        key_basis, key_pairs, key_search = jax.random.split(key, 3)
        width = jnp.round(share * variables)
        directions = circuits.padded_directions(key_basis, variables, width)
        params = circuits.compressed(program, directions).params
        cleans, corrupts = jax.random.permutation(key_pairs, inputs)[: 2 * config.pairs].reshape(
            2, config.pairs, *inputs.shape[1:]
        )
        behaviour = circuits.Behaviour(program.model, params, graph, cleans, corrupts, answers)
        return {
            "right": share_right(outputs(params), outputs(program.params)),
            "scores": discovered(key_search, behaviour, config),
        }

    found = tm.sweep(
        cell, axes={"share": config.shares}, num_seeds=config.num_seeds,
        dims={"scores": ("found_by", "edge")}, store=store,
    ).assign_coords(found_by=list(METHODS))  # fmt: skip
    scores = found["scores"]
    matters = scores.sel(found_by="exact patching", share=1.0) > EFFECT
    wired = xr.DataArray(np.asarray(circuits.vector(circuits.wired_edges(program))), dims="edge")
    used = matters & wired
    rank = scores.copy(data=np.argsort(np.argsort(-scores.values, -1), -1))
    return xr.Dataset(
        {
            "right": found["right"],
            "recovered": ((rank < used.sum("edge")) & used).sum("edge") / used.sum("edge"),
            "unwired": (matters & ~wired).sum("edge"),
            "used": used.sum("edge"),
            "edges": scores.sizes["edge"],
        }
    )


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    parts = [of_program(name, config, store) for name in config.programs]
    return xr.concat(parts, xr.Variable("program", list(config.programs)))


def claims(results: xr.Dataset):
    mean = results.mean("seed")
    full, least = mean.sel(share=1.0), mean.isel(share=-1)
    says = "With as many dimensions as variables every program is right on all sequences, measured "
    says += "by the lowest share of right answers."
    yield tm.near(says, 1, full["right"].min(), EXACT, within=0)
    says = "Each edge that changes an output has a weight, measured by the number of edges without."
    yield tm.near(says, 0, results["unwired"].max(), WIRED, within=0)
    says = "With half as many dimensions as variables no program is right, measured by the largest "
    says += "mean share of right answers."
    half = mean.sel(share=0.5)
    yield tm.at_most(says, 0.8, half["right"].max(), FOUND, threshold=ROUND)
    for method in ("EAP-IG", "ACDC", "edge pruning"):
        says = f"With as many dimensions as variables {method} finds the program, measured by the "
        says += "lowest mean share of true edges."
        value = full["recovered"].sel(found_by=method).min()
        note = TOKENS if method == "EAP-IG" else ""
        yield tm.at_least(says, 0.8, value, FOUND, threshold=ROUND, note=note)
    says = "EAP misses edges of programs with all dimensions that EAP-IG finds, measured by the "
    says += "difference of mean shares."
    value = full["recovered"].sel(found_by="EAP") - full["recovered"].sel(found_by="EAP-IG")
    yield tm.at_most(says, -0.1, value.mean(), SATURATED, threshold=ROUND, note=SLOPE)
    says = "With half as many dimensions exact patching still finds half of each program, measured "
    says += "by the lowest mean share of true edges."
    value = half["recovered"].sel(found_by="exact patching").min()
    yield tm.at_least(says, 0.5, value, FOUND, threshold=ROUND)
    says = "At the strongest compression exact patching finds more of each program than a random "
    says += "ranking, measured by the least difference of mean shares."
    best, random = (least["recovered"].sel(found_by=name) for name in ("exact patching", "random"))
    yield tm.at_least(says, 0.1, (best - random).min(), FOUND, threshold=ROUND)
    says = "A random ranking finds the share of true edges among all edges, measured by the mean "
    says += "difference."
    random = results["recovered"].sel(found_by="random") - results["used"] / results["edges"]
    within = 4 * float(random.std() / np.sqrt(random.size))
    yield tm.near(says, 0, random.mean(), RANDOM, within=within, threshold=ERRORS)


def plot(results: xr.Dataset) -> Figure:
    programs = results["program"].values
    figure, panels = plotting.figure(1, len(programs), size=(9.0, 3.7), sharey=True)
    for axes, name in zip(np.atleast_1d(panels), programs, strict=True):
        here = results.sel(program=name)
        right = here["right"].mean("seed")
        axes.fill_between(here["share"], right, color="0.85", label="right answers")
        plotting.bands(axes, here["recovered"], x="share", lines="found_by")
        used, edges = int(here["used"][0]), int(here["edges"])
        axes.set(
            title=f"{TITLES[name]}\n({used} of {edges} edges)", xlabel="dimensions / variables"
        )
        axes.set(ylim=(0, 1.03), xlim=(1, here["share"].min()))
    figure.suptitle("Patching finds most edges of programs that no longer work", fontsize=11)
    first = np.atleast_1d(panels)[0]
    first.set_ylabel("share of the true edges found")
    figure.legend(
        *first.get_legend_handles_labels(), loc="outside lower center", ncols=7, columnspacing=1,
        title=f"means over {results.sizes['seed']} seeds, with quartiles",
    )  # fmt: skip
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
