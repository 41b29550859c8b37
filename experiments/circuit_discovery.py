"""Discovery of known circuits, from one dimension for each variable to strong superposition.

Claim      Without superposition all methods find the edges of a known circuit. With fewer
           dimensions than variables they find fewer, but they are not wrong about the network:
           interference has become part of what it computes. The network fails before the methods,
           and the edges that they find are more faithful to it than the true ones.
Reproduces No figure of a paper. Lindner et al. (2023), "Tracr", write programs into networks, and
           Mueller et al. (2025), "MIB", define CPR and CMD; the axis of compression is ours.
Settings   Circuits of AND, OR and XOR gates, whose variables are directions: projections of a
           random orthonormal basis. Operands pass a threshold in half of the networks; plain ones
           have none. The corrupt example is independent of the clean one. EAP-IG takes midpoints;
           ACDC is a mean over orders and thresholds. Circuits are as large as the truth, the edges
           that change an output for some inputs. Errors are mean squares over the variance. Two
           runs of EAP-IG differ in data or basis, and two of ACDC in the order.
Selection  None: each seed has a circuit, a basis and a draw of its own.
Command    toymodels run experiments/circuit_discovery.py
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import lax

import toymodels as tm
from toymodels import circuits, experiment, plotting
from toymodels.analysis import classification

EXACT = tm.identity("With as many dimensions as variables the circuit is exact")
RANDOM = tm.identity("The variance of Mann and Whitney, and the hypergeometric law")
FLAT = tm.prediction("The threshold has slope 0 at right values")
FOUND = tm.finding("first measured here")
SEEN = "Ours, after a trial with 4 seeds."
ERRORS = "Ours, because it is four standard errors of the mean over seeds."

FOUND_BY = ("exact patching", "EAP", "EAP-IG", "ACDC", "edge pruning")
METHODS = (*FOUND_BY, "random")
RANKINGS = (*METHODS, "true edges")
GRAPH = circuits.boolean_graph(layers=2)
SITES = {"input": "inputs", "layer_0": "layer 1", "output": "outputs"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    widths: tuple[int, ...] = (20, 17, 14, 12, 10, 8, 6)
    thresholds: tuple[bool, ...] = (False, True)
    num_inputs: int = 12
    gates: int = 4
    density: float = 0.25
    examples: int = 64
    integration_steps: int = 5
    damages: tuple[float, ...] = (0.01, 0.1)
    orders: int = 3
    penalty: float = 1.0
    pruning_steps: int = 60
    num_seeds: int = 16


SMOKE = Config(
    widths=(6, 4),
    thresholds=(False,),
    num_inputs=2,
    gates=2,
    examples=8,
    integration_steps=1,
    damages=(0.1,),
    orders=2,
    pruning_steps=2,
    num_seeds=2,
)


def discovered(key, behaviour, config):
    """Return the scores of each method (methods x edges), and the Jaccard index of two orders."""
    key_orders, _, key_random = jax.random.split(key, 3)

    def acdc_at(damage):
        how = {"threshold": damage, "num_orders": config.orders}
        return circuits.acdc_over_orders(key_orders, behaviour, **how)

    acdc = lax.map(acdc_at, jnp.asarray(config.damages))
    mask = circuits.edge_pruning(
        behaviour, penalty=config.penalty, optimizer=optax.adam(0.1), steps=config.pruning_steps
    )
    scores = [
        circuits.edge_patching(behaviour),
        circuits.edge_attribution(behaviour),
        circuits.edge_attribution(behaviour, num_steps=config.integration_steps),
        jax.tree.map(lambda share: jnp.mean(share, axis=0), acdc.share),
        mask,
    ]
    found = jnp.stack([circuits.vector(each) for each in scores])
    chance = jax.random.uniform(key_random, (1, found.shape[1]))
    return jnp.concatenate([found, chance]), jnp.mean(acdc.jaccard)


def measured(behaviour, scores, used):
    """Return what the rankings of all methods and of the truth are worth."""
    like = behaviour.all_edges()
    size = jnp.sum(used)

    def of_ranking(scores):
        edges = circuits.of_edges(scores, like)
        curve = circuits.faithfulness_curve(behaviour, edges)
        kept = circuits.top_edges(edges, size)
        return {
            "auroc": classification.auroc(scores, used),
            "faithfulness": curve[size],
            "completeness": circuits.completeness(behaviour, kept),
            "minimality": circuits.minimality(behaviour, kept),
            **circuits.areas(curve)._asdict(),
        }

    return lax.map(of_ranking, jnp.concatenate([scores, used[None].astype(scores.dtype)]))


def jaccard(scores, used):
    """Return how alike the circuits of two views are (views x methods x edges), by method."""
    rank = jnp.argsort(jnp.argsort(-scores, axis=2), axis=2)
    return jax.vmap(circuits.jaccard, in_axes=1)((rank < jnp.sum(used)).astype(scores.dtype))


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    number = config.num_inputs + 2 * config.gates

    def cell(key, *, width, threshold):
        network = circuits.BooleanNetwork(2, config.gates, number, threshold)
        key_program, *keys = jax.random.split(key, 8)
        program = circuits.random_program(
            key_program, num_inputs=config.num_inputs, layers=2, gates=config.gates
        )
        used = circuits.vector(circuits.true_edges(program).used)

        def view(keys):
            key_basis, key_data, key_search = keys
            params = circuits.written(program, circuits.padded_directions(key_basis, number, width))
            features = tm.Binary(config.num_inputs, config.density)
            cleans, corrupts = jnp.split(features.sample(key_data, 2 * config.examples), 2)
            behaviour = circuits.Behaviour(network, params, GRAPH, cleans, corrupts, jnp.asarray)
            return behaviour, *discovered(key_search, behaviour, config)

        # The first view, other data in its basis, and its data in another basis.
        chosen = jnp.asarray([[0, 2, 4], [0, 3, 5], [1, 2, 6]])
        behaviours, scores, orders = lax.map(view, jnp.stack(keys)[chosen])
        behaviour = jax.tree.map(lambda leaf: leaf[0], behaviours)

        def outputs(own):
            run = jax.vmap(lambda x: jnp.asarray(network.apply({"params": own}, x)))
            return run(behaviour.cleans)

        def agreement(own):
            return circuits.rank_correlation(jnp.stack([own, scores[0, 0]]))

        expected = outputs(circuits.written(program, jnp.eye(number)))
        error = jnp.mean((outputs(behaviour.params) - expected) ** 2)
        return {
            **measured(behaviour, scores[0], used),
            "error": error / jnp.mean(jnp.var(expected, axis=0)),
            "over_orders": orders[0],
            "over_data": jaccard(scores[:2], used),
            "over_bases": jaccard(scores[::2], used),
            "agreement": jax.vmap(agreement)(scores[0]),
            "used": used,
            "kinds": program.kinds[..., 1],
            "scores": scores[0],
        }

    of_rankings = ("auroc", "faithfulness", "completeness", "minimality", *circuits.Areas._fields)
    dims = {
        **dict.fromkeys(of_rankings, ("ranking",)),
        **dict.fromkeys(("over_data", "over_bases", "agreement"), ("found_by",)),
        "scores": ("found_by", "edge"),
        "used": ("edge",),
        "kinds": ("layer", "gate"),
    }
    axes, static = {"width": np.asarray(config.widths, float)}, {"threshold": config.thresholds}
    runs = {"num_seeds": config.num_seeds, "store": store}
    results = tm.sweep(cell, axes=axes, static=static, dims=dims, **runs)
    results["width"] = results["width"] / number
    return results.assign_coords(found_by=list(METHODS), ranking=list(RANKINGS))


def of(part: xr.Dataset, measure: str, ranking="exact patching") -> xr.DataArray:
    return part[measure].sel(ranking=ranking)


def claims(results: xr.Dataset) -> tm.Claims:
    mean = results.mean("seed")
    plain = mean.sel(threshold=False)
    full, narrowest = plain.isel(width=0), plain.isel(width=-1)
    half = plain.isel(width=np.abs(plain["width"] - 0.5).argmin("width"))

    says = "Without superposition networks into which a circuit of gates is written compute it, "
    says += "measured by the mean error."
    yield tm.near(says, 0, mean["error"].isel(width=0).max(), EXACT, within=1e-4)
    for method in FOUND_BY:
        says = f"Without superposition {method} finds the true edges of a circuit of gates that is "
        says += "written into a network, measured by the mean AUROC."
        yield tm.at_least(says, 0.95, of(full, "auroc", method), FOUND, threshold=SEEN)
    for measure in ("faithfulness", "completeness"):
        says = "Without superposition the true edges of a circuit of gates that is written into a "
        says += f"network have a mean {measure} of 1."
        yield tm.near(says, 1, of(full, measure, "true edges"), EXACT, within=1e-3)
    says = "Without superposition no true edge of a circuit of gates that is written into a "
    says += "network is superfluous, measured by the mean minimality."
    yield tm.at_least(says, 0.005, of(full, "minimality", "true edges"), FOUND, threshold=SEEN)

    says = "Networks into which a circuit of gates is written without thresholds fail in half as "
    says += "many dimensions as variables, measured by the mean error."
    yield tm.at_least(says, 1, half["error"], FOUND, threshold=SEEN)
    says = "In the fewest dimensions every method misses true edges of networks without "
    says += "thresholds, measured by the largest mean AUROC."
    largest = of(narrowest, "auroc", list(FOUND_BY)).max()
    yield tm.at_most(says, 0.95, largest, FOUND, threshold=SEEN)
    for method in ("EAP", "EAP-IG"):
        says = f"In superposition {method} ranks the edges of networks without thresholds as exact "
        says += "patching does, measured by the smallest mean rank correlation over widths."
        value = plain["agreement"].sel(found_by=method).isel(width=slice(1, None)).min()
        yield tm.at_least(says, 0.95, value, FOUND, threshold=SEEN)
    says = "In the fewest dimensions the best edges by exact patching are more faithful than as "
    says += "many true edges, measured by the mean difference in networks without thresholds."
    gap = of(narrowest, "faithfulness") - of(narrowest, "faithfulness", "true edges")
    yield tm.at_least(says, 0.05, gap, FOUND, threshold=SEEN)
    says = "A ranking with all true edges first has a lower CPR than exact patching at every "
    says += "width, measured by the largest mean difference in networks without thresholds."
    gap = of(plain, "cpr", "true edges") - of(plain, "cpr")
    yield tm.at_most(says, 0, gap.max(), FOUND, threshold=SEEN)
    for name, sign in (("cpr", 1), ("cmd", -1)):
        says = f"The ranking of exact patching of written circuits has a worse {name.upper()} on "
        says += "the grid of MIB than by the integral, measured by the smallest mean difference "
        says += "over widths."
        gap = sign * (of(plain, name) - of(plain, f"{name}_grid"))
        yield tm.at_least(says, 0, gap.min(), FOUND, threshold=SEEN)
    yield from chance(results, full)
    yield from stability(full, half)
    if True not in results["threshold"]:
        return
    corrected = mean.sel(threshold=True)
    full, mild = corrected.isel(width=0), corrected.isel(width=1)
    says = "Without superposition EAP sees no edge behind a threshold in written circuits, "
    says += "measured by the mean AUROC."
    yield tm.near(says, 0.5, of(full, "auroc", "EAP"), FLAT, within=1e-6)
    says = "Without superposition EAP-IG finds edges behind a threshold in written circuits, "
    says += "measured by the mean AUROC."
    yield tm.at_least(says, 0.95, of(full, "auroc", "EAP-IG"), FOUND, threshold=SEEN)
    says = "With 17 dimensions for 20 variables thresholds take away much of the error of the "
    says += "network, measured by the ratio of the mean errors."
    ratio = mild["error"] / plain["error"].isel(width=1)
    yield tm.at_most(says, 0.6, ratio, FOUND, threshold=SEEN)
    says = "With 17 dimensions for 20 variables exact patching finds edges behind thresholds in "
    says += "written circuits, measured by the mean AUROC."
    yield tm.at_least(says, 0.98, of(mild, "auroc"), FOUND, threshold=SEEN)


def chance(results, full):
    used = results["used"].isel(width=0, threshold=0)
    positives, edges = used.sum("edge"), used.sizes["edge"]
    variance = ((edges + 1) / (12 * positives * (edges - positives))).mean()
    within = 4 * float(np.sqrt(variance / used.sizes["seed"]))
    says = "A random ranking of the edges of a written circuit has a mean AUROC of 1/2 for the "
    says += "true edges."
    auroc = of(full, "auroc", "random")
    yield tm.near(says, 0.5, auroc, RANDOM, within=within, threshold=ERRORS)
    says = "Two random circuits in the edges of one network have the mean Jaccard index of the "
    says += "hypergeometric law."
    value = full["over_data"].sel(found_by="random")
    yield tm.near(says, by_chance(used), value, RANDOM, within=0.05, threshold=ERRORS)


def by_chance(used):
    """Return the mean Jaccard index of two random circuits with as many edges as the true one."""
    sizes = used.sum("edge").values.astype(int).tolist()
    return float(np.mean([circuits.jaccard_by_chance(k, k, used.sizes["edge"]) for k in sizes]))


def stability(full, half):
    for name, what in (("over_data", "draws of data"), ("over_bases", "bases")):
        says = f"Without superposition exact patching finds nearly one circuit from two {what}, "
        says += "measured by the mean Jaccard index."
        yield tm.at_least(says, 0.95, full[name].sel(found_by=FOUND_BY[0]), FOUND, threshold=SEEN)
    says = "In half as many dimensions as variables a method finds less similar circuits in two "
    says += "bases than from two draws of data, measured by the largest ratio of the mean Jaccard "
    says += "indices over methods."
    ratio = (half["over_bases"] / half["over_data"]).sel(found_by=list(FOUND_BY)).max()
    yield tm.at_most(says, 0.75, ratio, FOUND, threshold=SEEN)
    says = "Without superposition ACDC finds nearly one circuit in two orders of the edges, "
    says += "measured by the mean Jaccard index."
    yield tm.at_least(says, 0.9, full["over_orders"], FOUND, threshold=SEEN)
    says = "In half as many dimensions as variables ACDC finds different circuits in two orders of "
    says += "the edges, measured by the mean Jaccard index."
    yield tm.at_most(says, 0.9, half["over_orders"], FOUND, threshold=SEEN)


def diagrams(panels, results):
    """Draw the circuit of the first seed, and what EAP-IG finds in fewer and fewer dimensions."""
    here = results.sel(threshold=False).isel(seed=0)
    gates = here.sizes["gate"]
    inputs = (here.sizes["edge"] // gates - gates) // 2
    nodes = circuits.gate_nodes(inputs, here["kinds"][0].values)
    used = here["used"][0].values > 0
    for panel, at in zip(panels, (0, len(here["width"]) // 3, -1), strict=True):
        cell = here.isel(width=at)
        scores = cell["scores"].sel(found_by="EAP-IG").values
        best = np.argsort(np.argsort(-scores, stable=True)) < used.sum()
        edges = circuits.compared_edges(GRAPH, nodes, best, used)
        plotting.circuit_diagram(panel, nodes, edges, columns=SITES)
        panel.set_title(f"EAP-IG, {float(cell['width']):.1f} dimensions a variable", fontsize=9)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, 0.05), ncols=3, columnspacing=1)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (top, below) = plotting.figure_of_parts(2, size=(8.2, 6.6), height_ratios=(1, 1.8))
    diagrams(top.subplots(1, 3), results)
    grid = below.subplots(2, 3)
    plain, last = results.sel(threshold=False), results.isel(threshold=-1)
    error = results["error"].clip(1e-3)
    error["threshold"] = ["plain", "with thresholds"][: error.sizes["threshold"]]
    two = plain[["over_data", "over_bases"]].sel(found_by="EAP-IG", drop=True)
    runs = {"orders": plain["over_orders"], "data": two["over_data"], "bases": two["over_bases"]}
    grid_less = (plain["cpr_grid"] - plain["cpr"]).sel(ranking=list(FOUND_BY[:3]))
    parts = (
        (of(plain, "auroc", list(METHODS)), "ranking", "True edges found: plain networks", "AUROC"),
        (of(last, "auroc", list(METHODS)), "ranking", "Networks with thresholds", "AUROC"),
        (error, "threshold", "The networks fail first", "squared error / variance"),
        (plain["faithfulness"], "ranking", "Circuits as large as the truth", "faithfulness"),
        (
            xr.concat([*runs.values()], xr.Variable("runs", [*runs])),
            "runs",
            "Circuits of two runs",
            "Jaccard index",
        ),
        (grid_less, "ranking", "MIB's grid", "CPR less the integral"),
    )
    for axes, (values, lines, title, label) in zip(grid.flat, parts, strict=True):
        plotting.bands(axes, values, x="width", lines=lines)
        axes.set(title=title, ylabel=label, xlabel="dimensions / variables")
        axes.invert_xaxis()
    grid[0, 2].set(yscale="log")
    grid[0, 2].axhline(1, color="0.5", lw=0.8)
    grid[1, 1].axhline(by_chance(plain["used"][0]), color="0.5", ls=":", label="chance")
    grid[1, 2].axhline(0, color="0.5", lw=0.8)
    for axes in (grid[0, 2], grid[1, 1]):
        axes.legend()
    title = f"means over {results.sizes['seed']} seeds, with quartiles"
    where = {"loc": "outside lower center", "ncols": 7, "columnspacing": 1}
    below.legend(*grid[1, 0].get_legend_handles_labels(), title=title, **where)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
