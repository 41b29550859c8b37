"""Compiled programs in fewer dimensions than variables: when is the circuit lost?

Claim      Programs that Tracr compiled into transformers are right with as many dimensions as
           variables, and wrong with a seventh fewer. Exact patching still finds most of a program
           in a network that no longer computes it; ACDC soon finds little more than chance.
           Gradients miss edges even with all dimensions: the softmax of a compiled head is so
           sharp that the head moves only at the two ends of the way from one sequence to another.
Reproduces No figure. Lindner et al. (2023), "Tracr", compress a program by training, and Mueller et
           al. (2025), "MIB", compare methods without an axis of compression.
Settings   Variables are the named directions of a program; compressed, they are projections of a
           random orthonormal basis. True edges are wired, and change an output of the program with
           all dimensions. Each method is scored by the share of the true edges among as many best
           ones; edges of equal scores count as in a random order. The corrupt sequence is a random
           other one. Heads read queries, keys and values apart. EAP-IG takes midpoints, and ACDC is
           a mean over thresholds, each in an order of its own. An answer is right if it is the
           nearest possible one.
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

import toymodels as tm
from toymodels import circuits, experiment, plotting

EXACT = tm.identity("Orthonormal directions change nothing")
WIRED = tm.identity("Without a weight there is no effect")
RANDOM = tm.identity("The mean of the hypergeometric law")
SATURATED = tm.prediction("The softmax of a compiled head is saturated, so that its slope is 0")
FOUND = tm.finding("first measured here")
SHARP = (
    "The midpoints miss the ends of the way, where heads move: see the claims of `hist`. What they "
    "do not see has scores of 1e-9 and less, which rounding puts in an order."
)
ROUND = "Ours, a round number that was set before the run."
TRIAL = "Ours, after a trial with 40 pairs of sequences."
ERRORS = "Ours, because it is four standard errors of the mean over seeds."

METHODS = ("exact patching", "EAP", "EAP-IG", "ACDC", "edge pruning", "random")
TITLES = {
    "frac_prevs": "share of x so far",
    "hist": "count this token",
    "reverse": "last token first",
    "sort": "least token first",
}
EFFECT = 1e-5  # rounding is below, and each true edge above


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    programs: tuple[str, ...] = ("frac_prevs", "hist", "sort", "reverse")
    shares: tuple[float, ...] = (1.0, 0.85, 0.7, 0.5, 0.3)
    """The number of dimensions for each variable."""
    pairs: int = 40
    integration_steps: int = 5
    midpoints: int = 400
    """The number of places on the way from one sequence to another where `hist` is looked at."""
    damages: tuple[float, ...] = (1e-3, 1e-2)
    penalty: float = 0.1
    pruning_steps: int = 25
    num_seeds: int = 4


SMOKE = Config(
    programs=("hist",),
    shares=(1.0, 0.5),
    pairs=12,
    integration_steps=1,
    midpoints=40,
    damages=(1e-2,),
    pruning_steps=2,
    num_seeds=2,
)


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


def recovered(scores, used):
    """Return the share of the true edges among as many best ones; ties are in a random order."""
    size, others = used.sum("edge"), scores.rename(edge="other")
    above, tied = (others > scores).sum("other"), (others == scores).sum("other")
    chosen = ((size - above) / tied).clip(0, 1)
    return (chosen * used).sum("edge") / size


def behaviour_of(key, program, params, pairs):
    """Return the answers of a program with these parameters to random pairs of sequences."""
    inputs = jax.random.permutation(key, all_sequences(program))
    cleans, corrupts = inputs[:pairs], inputs[pairs : 2 * pairs]
    graph = circuits.tracr_graph(program.model.layers)
    return circuits.Behaviour(program.model, params, graph, cleans, corrupts, answers)


def along_the_way(config: Config, store: Path | None) -> xr.Dataset:
    """Return the slopes of `hist` at many places between two sequences, and EAP-IG with these."""
    program = circuits.tracr_program("hist")
    places = (np.arange(config.midpoints) + 0.5) / config.midpoints

    def cell(key):
        behaviour = behaviour_of(key, program, program.params, config.pairs)
        slopes = lax.map(behaviour.slopes, jnp.asarray(places, float))
        into_heads = slopes["layer_0/query", "layer_0/heads"]
        fine = circuits.edge_attribution(behaviour, num_steps=config.midpoints)
        return {
            "slope": jnp.sqrt(jnp.mean(jnp.sum(into_heads**2, axis=(2, 3, 4, 5)), axis=1)),
            "fine": circuits.vector(fine),
            "few": circuits.vector(
                circuits.edge_attribution(behaviour, num_steps=config.integration_steps)
            ),
            "patched": circuits.vector(circuits.edge_patching(behaviour)),
        }

    dims = {"slope": ("place",), **dict.fromkeys(("fine", "few", "patched"), ("edge",))}
    found = tm.sweep(cell, num_seeds=config.num_seeds, dims=dims, store=store)
    found = found.assign_coords(place=places)
    used = found["patched"] > EFFECT
    return xr.Dataset(
        {
            "slope": found["slope"],
            "fine_recovered": recovered(found["fine"], used),
            "few_seen": ((found["few"] > EFFECT) & used).sum("edge") / used.sum("edge"),
            "overrated": (found["fine"] / found["patched"]).where(used).max("edge"),
        }
    )


def of_program(name: str, config: Config, store: Path | None) -> xr.Dataset:
    """Return the accuracy of one program, and the share of its edges that each method recovers."""
    program = circuits.tracr_program(name)
    variables, inputs = len(program.residual), all_sequences(program)

    def outputs(params):
        run = jax.vmap(lambda x: jnp.asarray(program.model.apply({"params": params}, x)))
        return run(inputs)

    def cell(key, *, share):
        key_basis, key_pairs, key_search = jax.random.split(key, 3)
        width = jnp.round(share * variables)
        directions = circuits.padded_directions(key_basis, variables, width)
        params = circuits.compressed(program, directions).params
        behaviour = behaviour_of(key_pairs, program, params, config.pairs)
        return {
            "right": share_right(outputs(params), outputs(program.params)),
            "scores": discovered(key_search, behaviour, config),
        }

    found = tm.sweep(
        cell,
        axes={"share": config.shares},
        num_seeds=config.num_seeds,
        dims={"scores": ("found_by", "edge")},
        store=store,
    ).assign_coords(found_by=list(METHODS))
    scores = found["scores"]
    matters = scores.sel(found_by="exact patching", share=1.0) > EFFECT
    wired = xr.DataArray(np.asarray(circuits.vector(circuits.wired_edges(program))), dims="edge")
    used = matters & wired
    return xr.Dataset(
        {
            "right": found["right"],
            "recovered": recovered(scores, used),
            "unwired": (matters & ~wired).sum("edge"),
            "used": used.sum("edge"),
            "edges": scores.sizes["edge"],
        }
    )


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    parts = [of_program(name, config, store) for name in config.programs]
    together = xr.concat(parts, xr.Variable("program", list(config.programs)))
    return together.merge(along_the_way(config, store))


def claims(results: xr.Dataset) -> tm.Claims:
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
        note = SHARP if method == "EAP-IG" else ""
        yield tm.at_least(says, 0.8, value, FOUND, threshold=ROUND, note=note)
    says = "EAP misses edges of programs with all dimensions that EAP-IG finds, measured by the "
    says += "difference of mean shares."
    value = full["recovered"].sel(found_by="EAP") - full["recovered"].sel(found_by="EAP-IG")
    yield tm.at_most(says, -0.1, value.mean(), SATURATED, threshold=ROUND, note=SHARP)
    yield from sharp(results, mean)
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


def sharp(results, mean):
    slope, many = mean["slope"], results.sizes["place"]
    inside = slope.where((slope["place"] > 0.1) & (slope["place"] < 0.9)).max() / slope.max()
    says = "The head of `hist` hardly moves between the outer tenths of the way from one sequence "
    says += "to another, measured by the ratio of the largest slopes there and at all places."
    yield tm.at_most(says, 0.01, inside, SATURATED, threshold=ROUND)
    says = "EAP-IG sees few of the true edges of `hist` with few midpoints, measured by the mean "
    says += "share with scores above rounding."
    yield tm.at_most(says, 0.2, mean["few_seen"], FOUND, threshold=TRIAL)
    says = f"With {many} midpoints EAP-IG finds `hist`, measured by the mean share of true edges."
    yield tm.at_least(says, 0.99, mean["fine_recovered"], FOUND, threshold=TRIAL)
    says = f"With {many} midpoints EAP-IG overrates an edge of `hist`, measured by the mean of the "
    says += "largest ratio to exact patching."
    yield tm.at_least(says, 2, mean["overrated"], FOUND, threshold=TRIAL)


def plot(results: xr.Dataset) -> plotting.Figure:
    programs = results["program"].values
    figure, grid = plotting.figure(2, 3, size=(9.0, 5.8))
    for axes, name in zip(grid.flat, programs, strict=False):
        here = results.sel(program=name)
        right = here["right"].mean("seed")
        axes.fill_between(here["share"], right, color="0.85", label="right answers")
        plotting.bands(axes, here["recovered"], x="share", lines="found_by")
        used, edges = int(here["used"].max()), int(here["edges"])
        axes.set(title=f"{name}: {TITLES[name]}\n({used} of {edges} edges)")
        axes.set(xlabel="dimensions / variables", xlim=(1, here["share"].min()), ylim=(0, 1.03))
    for axes in grid[:, 0]:
        axes.set_ylabel("share of the true circuit found")
    axes = grid[1, 1]
    axes.plot(results["place"], results["slope"].mean("seed"), "k", lw=1, label="head of hist")
    few = (np.arange(5) + 0.5) / 5
    axes.plot(few, np.zeros(5), "C2^", ms=6, label="5 midpoints of EAP-IG", clip_on=False)
    axes.set(title="Why EAP-IG misses edges of hist", ylabel="slope of the answers", ylim=(0, None))
    axes.set_xlabel("way from one sequence to another")
    axes.legend(loc="upper center")
    grid[1, 2].axis("off")
    grid[1, 2].legend(
        *grid[0, 0].get_legend_handles_labels(),
        loc="center",
        title=f"means over {results.sizes['seed']} seeds,\nwith quartiles",
    )
    figure.suptitle("Patching finds most edges of programs that no longer work", fontsize=11)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
