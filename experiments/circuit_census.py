"""A census of circuits: every subgraph of thousands of trained networks of two inputs.

Claim      A trained network has not one circuit but many. Already with four hidden units, several
           subgraphs compute the task alone, none of them part of another; wider networks have more
           of them, and a few have two that share no edge.
Reproduces No figure of a paper. Meloux et al. (2025), "Everything, Everywhere, All at Once: Is
           Mechanistic Interpretability Identifiable?" searched single networks.
Settings   Networks of 2 inputs, h hidden ReLU units with biases and one output, trained by AdamW
           on all rows of the task. A subgraph keeps some of the 3h weights and sets the others to
           0; biases stay. It is faithful if its output is nearer to the target than the tolerance
           at every row: 1/2 for XOR, AND and a > b (0 or 1), and 1/4 for |a|. A circuit is minimal
           if it is faithful and no proper subset of its edges is.
Selection  None: all seeds whose network solves the task.
Command    toymodels run experiments/circuit_census.py
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import circuits, experiment, plotting

BOUND = tm.identity("One unit of one input is monotone in it, and XOR needs two units of two")
DISJOINT = tm.identity("Two circuits of XOR without a common edge need four units")
TRIAL = tm.prediction("A trial with another start and 100 networks")
FOUND = tm.finding("first measured here")
SPREAD = (
    "Training often spreads a task over more units than it needs, each of which alone is too weak."
)
SEEN = "Ours, after a trial with 24 seeds."
COUNT = "Ours, because it is four standard errors of a share among the solved networks."

SHOWN = 6  # minimal circuits of each network that are kept for the figure
ROWS = 25  # of the largest task
GRID = np.linspace(-1, 1, 5)
BITS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
PAIRS = np.array([[a, b] for a in range(4) for b in range(4) if a != b]) / 3
SQUARE = np.array([[a, b] for a in GRID for b in GRID])
TASKS = {  # rows, targets and tolerance
    "XOR": (BITS, BITS[:, 0] != BITS[:, 1], 0.5),
    "AND": (BITS, BITS.all(axis=1), 0.5),
    "a > b": (PAIRS, PAIRS[:, 0] > PAIRS[:, 1], 0.5),
    "|a|": (SQUARE, np.abs(SQUARE[:, 0]), 0.25),
}
SMALLEST = {"XOR": 6, "AND": 3, "a > b": 3, "|a|": 4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    widths: tuple[int, ...] = (2, 3, 4, 5)
    weight_decays: tuple[float, ...] = (0.0, 0.03, 0.3)
    num_seeds: int = 300
    training: tm.Recipe = tm.Recipe(steps=3000, batch=ROWS, learning_rate=2e-2)


SMOKE = Config(
    widths=(3,),
    weight_decays=(0.0,),
    num_seeds=4,
    training=tm.Recipe(steps=300, batch=ROWS, learning_rate=5e-2),
)


def table() -> dict[str, jax.Array]:
    """Return the rows of all tasks, repeated to one length, so that a task is a number."""
    chosen = [np.arange(ROWS) % len(rows) for rows, _, _ in TASKS.values()]
    # Rows that are repeated weigh less, so that the loss is the mean over the rows of the task.
    weights = [1 / np.bincount(places)[places] for places in chosen]
    return {
        "inputs": jnp.stack([t[0][at] for t, at in zip(TASKS.values(), chosen, strict=True)]),
        "targets": jnp.stack(
            [np.asarray(t[1])[at] for t, at in zip(TASKS.values(), chosen, strict=True)]
        ),
        "weights": jnp.stack([ROWS * each / each.sum() for each in weights]),
        "tolerance": jnp.asarray([tolerance for _, _, tolerance in TASKS.values()]),
    }


def output(params, x):
    return params["out"] @ jax.nn.relu(params["in"] @ x + params["hidden"]) + params["bias"]


def census(params, inputs, targets, tolerance) -> dict[str, jax.Array]:
    """Return which of all circuits are faithful and minimal, in numbers."""
    weights = params["in"], params["hidden"], params["out"], params["bias"]
    errors = jnp.abs(circuits.outputs_of_all_circuits(*weights, inputs) - targets[None])
    faithful = jnp.max(errors, axis=1) < tolerance
    minimal = circuits.minimal_circuits(faithful)
    holds = circuits.holds_faithful(faithful)
    masks = jnp.asarray(circuits.all_circuits(3 * len(params["out"])))
    sizes = jnp.sum(masks, axis=1)
    edges = minimal.astype(float) @ masks  # how many minimal circuits hold each edge
    number = jnp.sum(minimal)
    (shown,) = jnp.nonzero(minimal, size=SHOWN, fill_value=-1)
    smallest = jnp.min(jnp.where(minimal, sizes, jnp.inf), initial=3.0 * len(params["out"]))
    return {
        "solved": faithful[-1],
        "faithful": jnp.sum(faithful),
        "holding": jnp.sum(holds),
        "minimal": number,
        "smallest": smallest,
        "common": jnp.sum((edges == number) & (number > 0)) / jnp.maximum(jnp.sum(edges > 0), 1),
        # The edges that a circuit leaves out are its complement, in the reverse order.
        "disjoint": jnp.any(minimal & holds[::-1]),
        "of_second_input": jnp.sum(edges.reshape(-1, 3)[:, 1] > 0),
        "shown": shown,
    }


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    tasks = table()

    def cell(key, *, width, task, weight_decay):
        own = {name: values[task.astype(int)] for name, values in tasks.items()}
        key_in, key_out, key_data = jax.random.split(key, 3)
        start = {
            "in": jax.random.normal(key_in, (width, 2)),
            "hidden": jnp.zeros(width),
            "out": jax.random.normal(key_out, (width,)),
            "bias": jnp.zeros(()),
        }

        def loss(params, row):
            x, target, weight = row
            return weight * (output(params, x) - target) ** 2

        def sample(_key, _batch):
            return own["inputs"], own["targets"], own["weights"]

        how = {**config.training.settings(weight_decay=weight_decay), "batch": ROWS}
        params = tm.fit(key_data, start, loss, sample, **how).params
        counted = census(params, own["inputs"], own["targets"], own["tolerance"])
        return {**counted, "params": params}

    results = tm.sweep(
        cell,
        static={"width": config.widths},
        axes={"task": np.arange(len(TASKS), dtype=float), "weight_decay": config.weight_decays},
        num_seeds=config.num_seeds,
        dims={
            "shown": ("circuit",),
            "params.in": ("unit", "input"),
            "params.hidden": ("unit",),
            "params.out": ("unit",),
        },
        store=store,
    )
    results["task"] = list(TASKS)
    return results


def among_solved(values: xr.DataArray, results: xr.Dataset) -> xr.DataArray:
    """Return the values of the networks that solve their task, and NaN for the others."""
    return values.astype(float).where(results["solved"] > 0)


def claims(results: xr.Dataset) -> tm.Claims:
    minimal = among_solved(results["minimal"], results)
    smallest = among_solved(results["smallest"], results)
    unique = among_solved(results["minimal"] == 1, results)
    disjoint = among_solved(results["disjoint"], results)
    plain = results["weight_decay"].values[0]
    widest = int(results["width"].values[-1])
    for task, edges in SMALLEST.items():
        says = f"No circuit of fewer than {edges} edges computes {task} in any trained network."
        yield tm.near(says, edges, smallest.sel(task=task).min(), BOUND, within=0)

    for task in ("XOR", "AND"):
        says = f"Without weight decay, all networks of up to 4 units that solve {task} have a "
        says += f"circuit of {SMALLEST[task]} edges, measured by their share."
        here = smallest.sel(task=task, weight_decay=plain, width=slice(None, 4))
        share = (here == SMALLEST[task]).sum() / here.notnull().sum()
        yield tm.near(says, 1, share, TRIAL, within=0.02, threshold=COUNT, note=SPREAD)

    for width, expected in ((2, 1.0), (3, 0.97), (4, 0.89)):
        if width not in results["width"]:
            continue
        says = f"Without weight decay, the share of XOR networks with {width} hidden units that "
        says += f"have one minimal circuit is {expected:g}."
        share = unique.sel(width=width, task="XOR", weight_decay=plain).mean()
        yield tm.near(says, expected, share, TRIAL, within=0.15, threshold=COUNT)

    for task, most in (("a > b", 0.6), ("AND", 0.8)):
        says = f"Many networks of {widest} units that compute {task} have several minimal "
        says += "circuits, measured by the share of networks that have one."
        share = unique.sel(width=widest, task=task).mean()
        yield tm.at_most(says, most, share, FOUND, threshold=SEEN)

    says = "In every task the widest networks have more minimal circuits than the narrowest, "
    says += "measured by the smallest ratio of means."
    means = minimal.mean(("weight_decay", "seed"))
    growth = (means.isel(width=-1) / means.isel(width=0)).min()
    yield tm.at_least(says, 1.0, growth, FOUND, threshold="Ours, because any growth counts.")

    says = "Two minimal circuits of XOR in a network of 3 units always share an edge, measured by "
    says += "the share of exceptions."
    yield tm.near(says, 0, disjoint.sel(width=3, task="XOR").mean(), DISJOINT, within=0)

    says = "Some networks of 4 units or more hold two circuits of AND that share no edge, measured "
    says += "by their share."
    share = disjoint.sel(task="AND").where(results["width"] >= 4).mean()
    note = "There are such networks, but fewer: the first 100 seeds had a share of 0.041."
    yield tm.at_least(says, 0.03, share, FOUND, threshold=SEEN, note=note)

    says = "Minimal circuits of one network mostly overlap, measured by the share of the networks "
    says += "with several minimal circuits that hold two without a common edge, over all tasks and "
    says += "widths."
    share = disjoint.where(minimal > 1).mean()
    yield tm.at_most(says, 0.25, share, FOUND, threshold="Ours, because one in four is few.")

    says = "No minimal circuit of |a| has an edge from the input that |a| does not depend on."
    used = among_solved(results["of_second_input"], results).sel(task="|a|").max()
    yield tm.near(says, 0, used, FOUND, within=0)

    says = f"In the median network of {widest} units that computes a > b, some edges of the "
    says += "network break circuits that they are added to, measured by the share of the larger "
    says += "circuits that fail."
    kept = among_solved(results["faithful"] / results["holding"], results)
    share = 1 - kept.sel(width=widest, task="a > b").median()
    yield tm.at_least(
        says, 0.05, share, FOUND, threshold="Ours, because one circuit in twenty is not chance."
    )

    shares = unique.sel(width=widest).mean("seed")
    rise = shares.isel(weight_decay=-1) - shares.isel(weight_decay=0)
    says = f"Strong weight decay raises the share of networks of {widest} units that have one "
    says += "minimal circuit of AND, measured by the difference of the shares."
    yield tm.at_least(says, 0.1, rise.sel(task="AND"), FOUND, threshold=SEEN)
    says = f"Strong weight decay lowers the share of networks of {widest} units that have one "
    says += "minimal circuit of a > b, measured by the difference of the shares."
    yield tm.at_most(says, -0.1, rise.sel(task="a > b"), FOUND, threshold=SEEN)


def chosen_network(results: xr.Dataset) -> xr.Dataset:
    """Return the solved network of four units for a > b with the most minimal circuits."""
    width = min(4, int(results["width"].max()))
    here = results.sel(task="a > b", width=width).stack(network=("weight_decay", "seed"))
    here = here.isel(unit=slice(width))
    return here.isel(network=np.argmax(here["minimal"].where(here["solved"] > 0, 0).values))


def draw(axes, network: xr.Dataset, circuit: int) -> None:
    """Draw the edges of one circuit of a network."""
    mask = circuits.all_circuits(3 * network.sizes["unit"])[circuit].reshape(-1, 3)
    into = network["params.in"].transpose("unit", "input").values * mask[:, :2]
    out = network["params.out"].values * mask[:, 2]
    plotting.circuit(axes, into, out[None], inputs=("a", "b"), outputs=("a > b",))


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (above, below) = plotting.figure_of_parts(2, size=(9.0, 6.2), height_ratios=(1, 1.25))
    network = chosen_network(results)
    shown = [int(number) for number in network["shown"].values if number >= 0][:4]
    diagrams = above.subplots(1, 5)
    for axes in diagrams:
        axes.set_axis_off()
    draw(diagrams[0], network, 2 ** (3 * network.sizes["unit"]) - 1)
    diagrams[0].set_title("one trained network")
    for number, (axes, circuit) in enumerate(zip(diagrams[1:], shown, strict=False), 1):
        draw(axes, network, circuit)
        axes.set_title(f"circuit {number}: computes\n a > b alone")
    found = int(network["minimal"])
    above.suptitle(
        f"Circuits are not unique: {len(shown)} of the {found} minimal circuits of one network"
    )
    panels = below.subplots(1, 3)
    pooled = results.stack(network=("weight_decay", "seed"))
    unique = among_solved(pooled["minimal"] == 1, pooled).mean("network")
    needed = xr.DataArray(list(SMALLEST.values()), {"task": list(SMALLEST)}, ("task",))
    larger = among_solved(pooled["smallest"] > needed, pooled).mean("network")
    for axes, values in ((panels[0], unique), (panels[1], larger)):
        for number, task in enumerate(TASKS):
            marker = plotting.MARKERS[number]
            axes.plot(results["width"], values.sel(task=task), marker=marker, ms=4, label=task)
        axes.set(xlabel="hidden units", ylim=(-0.03, 1.03), xticks=results["width"].values)
    panels[0].set(ylabel="share of networks", title="One minimal circuit:\nthe wider, the rarer")
    panels[0].legend(title=f"solved, of {pooled.sizes['network']}")
    panels[1].set(title="Smallest circuit larger\nthan the task needs")
    shares = among_solved(results["minimal"] == 1, results).mean("seed").isel(width=-1)
    shares = shares.assign_coords(weight_decay=[f"{d:g}" for d in shares["weight_decay"].values])
    plotting.grouped_bars(panels[2], shares, groups="task", bars="weight_decay")
    panels[2].set(ylim=(0, 1.35), title="One minimal circuit, by task\nand weight decay")
    panels[2].legend(title=f"weight decay, {int(results['width'][-1])} units", ncols=3)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
