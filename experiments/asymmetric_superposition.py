r"""Asymmetric superposition: a neuron shared by two features, and a neuron that inhibits the error.

Claim      With fewer neurons than the sides of $|x|$ need, some models share a neuron between one
           side of A and the other of B, with weights such as in $(2, -1/2)$, out $(1/2, 2)$: B
           barely disturbs A, A drives B four times too hard, and another neuron that hears A
           inhibits B. So positive interference becomes negative, and the output's ReLU clips it.
Reproduces Elhage et al. (2022), "Computation in Superposition", the asymmetric motif.
Settings   The paper gives none: six features, ten neurons, $S = 0.8$, $I_i = 0.7^i$, batches of 128
           are those of a public replication; optimiser and number of seeds are ours.
Motif      Read off the weights by `find`: a neuron that computes a side of two features, of
           opposite sign, $W_1 W_2$ within 0.3 of 1 for both, but $|W_1|$ three times as large for
           A; and another neuron that takes at least half of what A then gives to B, so that of all
           neurons together at most a tenth is left.
Selection  None for claims: all seeds. The picture shows the lowest loss with two motifs.
Command    toymodels run experiments/asymmetric_superposition.py
"""

import dataclasses
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import neurons

PAPER_SECTION: Final = "Elhage et al. (2022), Computation in Superposition"
NEAR: Final = 0.3
"""How far a product of weights in and out may be from 1."""
RATIO: Final = 3.0
"""Least |W_1| of A over that of B. The paper's motif has 4."""
INHIBITED: Final = 0.5
"""Least share of what A gives to B that one other neuron takes."""
LEFT: Final = 0.1
"""Largest share of it that all neurons together leave."""
INPUT: Final = np.array([[2.0, -0.5]])
OUTPUT: Final = np.array([[0.5], [2.0]])
"""The paper's neuron for A and B."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 6
    hidden: int = 10
    density: float = 0.2
    importance: float = 0.7
    num_seeds: int = 256
    steps: int = 5000
    batch: int = 128
    learning_rate: float = 1e-2
    """The learning rate at the start of a cosine schedule."""
    shuffles: int = 20
    """Shuffled copies of every model."""
    examples: int = 2**15
    """For the loss without an inhibitor."""


SMOKE = Config(num_seeds=2, steps=30, batch=16, shuffles=1, examples=64)


class Motifs(NamedTuple):
    """Of models x neurons x A x B.

    Attributes:
        asymmetric: the neuron computes a side of both A and B, far more strongly driven by A.
        inhibited: it does, and what it gives to B when driven by A is taken away.
        drive: output B for A of size 1, from this neuron alone.
        total: the same from all neurons.
        inhibitor: the neuron that takes most of it.
        taken: what that one adds to B; at most 0.
    """

    asymmetric: Any
    inhibited: Any
    drive: Any
    total: Any
    inhibitor: Any
    taken: Any


def find(weights_in: Any, weights_out: Any) -> Motifs:
    """Every motif of models x neurons x features and models x features x neurons."""
    out = np.swapaxes(weights_out, 1, 2)
    side = (out > 0) & (abs(abs(weights_in * out) - 1) < NEAR)
    a, b = weights_in[:, :, :, None], weights_in[:, :, None, :]
    asymmetric = (side[:, :, :, None] & side[:, :, None, :]) & (a * b < 0)
    asymmetric &= abs(a) >= RATIO * abs(b)
    drive = abs(a) * out[:, :, None, :]
    # By the sign of A: models x neurons that give x A x B.
    given = [np.maximum(s * a, 0) * out[:, :, None, :] for s in (1, -1)]

    def of_side(up: Any, down: Any) -> Any:
        return np.where(a > 0, up[:, None], down[:, None])

    total = of_side(*(each.sum(axis=1) for each in given))
    taken = of_side(*(each.min(axis=1) for each in given))
    inhibitor = of_side(*(each.argmin(axis=1) for each in given))
    inhibited = asymmetric & (-taken >= INHIBITED * drive) & (total <= LEFT * drive)
    return Motifs(asymmetric, inhibited, drive, total, inhibitor, taken)


def relabelled(random: np.random.Generator, weights_in: Any, weights_out: Any) -> Any:
    """Each neuron keeps its weights in and out, for features in an order of its own."""
    order = random.permuted(
        np.broadcast_to(np.arange(weights_in.shape[2]), weights_in.shape), axis=2
    )
    out = np.take_along_axis(np.swapaxes(weights_out, 1, 2), order, axis=2)
    return np.take_along_axis(weights_in, order, axis=2), np.swapaxes(out, 1, 2)


def shuffled(random: np.random.Generator, weights_in: Any, weights_out: Any) -> Any:
    """All weights in of a model exchange places, and all weights out."""
    return tuple(
        random.permuted(each.reshape(len(each), -1), axis=1).reshape(each.shape)
        for each in (weights_in, weights_out)
    )


def without_inhibitors(config: Config, results: xr.Dataset) -> dict[str, Any]:
    """Loss of each model with a motif on common examples, whole and with one inhibition cut."""
    weights_in, weights_out = arrays(results)
    found = find(weights_in, weights_out)
    model, neuron, a, b = np.nonzero(found.inhibited)
    task = absolute(config)
    loss = tm.task_loss(tm.TwoLayer(config.hidden), task)
    examples = task.features.sample(jax.random.key(2022), config.examples)

    @jax.jit
    def mean(params: Any) -> Any:
        return jax.vmap(loss, (None, 0))(params, examples).mean()

    losses = np.empty((len(model), 2))
    inhibitor = found.inhibitor[model, neuron, a, b]
    for row, (seed, which, feature) in enumerate(zip(model, inhibitor, b, strict=True)):
        params = {
            "weights_in": jnp.asarray(weights_in[seed]),
            "weights_out": jnp.asarray(weights_out[seed]),
            "bias": jnp.asarray(results["bias"].values[seed]),
        }
        cut = params["weights_out"].at[feature, which].set(0.0)
        losses[row] = mean(params), mean({**params, "weights_out": cut})
    return {"cut_loss": (("motif", "cut"), losses), "cut": ["whole", "inhibition cut"]}


def absolute(config: Config) -> tm.Task:
    features = tm.SignedSparseUniform(config.num_features, config.density)
    return tm.Task(
        features, jnp.abs, tm.geometric_importance(config.num_features, config.importance)
    )


def arrays(results: xr.Dataset) -> tuple[Any, Any]:
    """Weights in and out, models first."""
    return (
        results["weights_in"].transpose("seed", "neuron", "feature").values,
        results["weights_out"].transpose("seed", "feature", "neuron").values,
    )


def run(config: Config) -> xr.Dataset:
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)

    def cell(key: Any) -> dict[str, Any]:
        trained = tm.train(
            key,
            tm.TwoLayer(config.hidden),
            absolute(config),
            optimizer=optax.adam(schedule),
            steps=config.steps,
            batch=config.batch,
            key_evaluation=jax.random.key(2022),
        )
        return {**trained.params, "loss": trained.loss}

    results = tm.sweep(
        cell,
        num_seeds=config.num_seeds,
        dims={
            "weights_in": ("neuron", "feature"),
            "weights_out": ("feature", "neuron"),
            "bias": ("feature",),
        },
    )
    random = np.random.default_rng(0)
    nulls = {}
    for name, null in (("relabelled", relabelled), ("shuffled", shuffled)):
        copies = [find(*null(random, *arrays(results))) for _ in range(config.shuffles)]
        nulls[name] = (
            ("shuffle", "seed"),
            np.array([copy.inhibited.any(axis=(1, 2, 3)) for copy in copies]),
        )
    return (
        results.assign(nulls)
        .assign(without_inhibitors(config, results))
        .assign_attrs(density=config.density, importance=config.importance)
    )


def computed_sides(results: xr.Dataset) -> Any:
    """How many of e_i and -e_i each model answers with 1 in output i, to 0.3."""
    weights_in, weights_out = arrays(results)
    bias = results["bias"].transpose("seed", "feature").values
    own = [np.maximum(sign * weights_in, 0) * np.swapaxes(weights_out, 1, 2) for sign in (1, -1)]
    outputs = np.maximum(np.stack([each.sum(axis=1) for each in own]) + bias, 0)
    return (abs(outputs - 1) < NEAR).sum(axis=(0, 2))


def toy_output(weights_in: Any, weights_out: Any, features: tuple[float, float]) -> Any:
    """Of the two-layer model without bias."""
    params = {"weights_in": weights_in, "weights_out": weights_out, "bias": np.zeros(2)}
    params = jax.tree.map(jnp.asarray, params)
    output = tm.TwoLayer(len(weights_in)).apply({"params": params}, jnp.asarray(features))
    return np.asarray(output)


def interval(share: Any) -> tuple[float, float]:
    """95 % interval (Wilson) of the share of models."""
    found = stats.binomtest(int(share.sum()), len(share)).proportion_ci(method="wilson")
    return found.low, found.high


def claims(results: xr.Dataset) -> list[tm.Claim]:
    weights_in, weights_out = arrays(results)
    found = find(weights_in, weights_out)
    places = np.nonzero(found.inhibited)
    model, neuron, a, b = places
    count = found.inhibited.sum(axis=(1, 2, 3))
    low, _ = interval(count > 0)
    inhibitor = np.array([[1.0, 0.0]]), np.array([[0.0], [-4.0]])
    with_it = np.vstack([INPUT, inhibitor[0]]), np.hstack([OUTPUT, inhibitor[1]])
    from_a, from_b = (toy_output(INPUT, OUTPUT, x) for x in ((1.0, 0.0), (0.0, -1.0)))
    back = weights_out[model, a, neuron] * abs(weights_in[model, neuron, b])
    whole, cut = results["cut_loss"].transpose("cut", "motif").values
    share, density = results.attrs["importance"] ** b, results.attrs["density"]
    driven = (found.total - found.taken)[places]
    predicted = share * density / 2 * driven**2 / 3
    mono = neurons_of_one(weights_in).mean(axis=1)
    loss = results["loss"].values
    sides = computed_sides(results)
    at_least, at_most = tm.Bound.AT_LEAST, tm.Bound.AT_MOST
    ours = "this experiment"

    def median(values: Any) -> float:
        return float(np.median(values)) if len(values) else np.nan

    def claim(statement: str, source: str, expected: float, measured: Any, **how: Any) -> tm.Claim:
        return tm.Claim(statement, source, expected=expected, measured=measured, **how)

    return [
        claim(
            "weights in (2, -1/2), out (1/2, 2): A = 1 gives (1, 4) and B = -1 gives (1/4, 1), "
            "largest |difference|",
            "arithmetic", 0, max(abs(from_a - [1, 4]).max(), abs(from_b - [1 / 4, 1]).max()),
            kind=tm.Kind.IDENTITY,
        ),
        claim(
            "a neuron with weights in (1, 0), out (0, -4) takes B's 4 away: output B for A = 1",
            "arithmetic", 0, toy_output(*with_it, (1.0, 0.0))[1],
            kind=tm.Kind.IDENTITY,
        ),
        claim(
            f"share of models with the motif, {(count > 0).mean():.2f}: lower end of its 95 % "
            "interval, over that of relabelled neurons",
            PAPER_SECTION, 3, low / max(float(results["relabelled"].mean()), 1e-9), bound=at_least,
            kind=tm.Kind.FINDING,
            threshold="ours: clearly more than chance",
        ),
        claim(
            "share of models with the motif after shuffling all weights in and all weights out",
            "null", 0.01, results["shuffled"].mean(), bound=at_most,
            kind=tm.Kind.FINDING,
            threshold="ours: well below the share found",
        ),
        claim(
            "models with two motifs, as in the paper's figure, share of all",
            PAPER_SECTION, 1 / max(len(count), 1), (count >= 2).mean(), bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="the paper shows one such model",
        ),
        claim(
            "where there is a motif most neurons serve one feature: median share of neurons",
            PAPER_SECTION, 0.5, median(mono[count > 0]), bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper says most",
        ),
        claim(
            "A = 1 gives to B through the neuron: median, the paper's motif 4",
            PAPER_SECTION, 4, median(found.drive[places]), tolerance=1,
            kind=tm.Kind.PAPER,
            threshold="ours: a quarter of the paper's example; only neurons whose two weights "
            "differ threefold are counted",
        ),
        claim(
            "B = 1 gives to A through the neuron: median, the paper's motif 1/4",
            PAPER_SECTION, 1 / 4, median(back), tolerance=0.1,
            kind=tm.Kind.PAPER,
            threshold="ours: less than half of the paper's example; only neurons whose two "
            "weights differ threefold are counted",
        ),
        claim(
            "A to B through all neurons, over that through the shared one: median; above 0 only "
            "what ReLU does not clip",
            PAPER_SECTION, 0, median((found.total / found.drive)[places]), tolerance=0.02,
            kind=tm.Kind.PAPER,
            threshold="ours: only neurons inhibited to a tenth are counted, so that this is a "
            "fifth of what could be seen",
        ),
        claim(
            "share of asymmetric neurons that are inhibited",
            PAPER_SECTION, 0.9, found.inhibited.sum() / max(found.asymmetric.sum(), 1),
            bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            "with two motifs ten neurons compute all 12 sides: least number, of those models",
            "arithmetic: a motif saves a neuron", 12, min(sides[count >= 2], default=np.nan),
            kind=tm.Kind.PREDICTION,
        ),
        claim(
            "cutting the inhibition of B raises the loss of every model: least ratio",
            ours, 1, min(cut / whole, default=np.nan), bound=at_least,
            kind=tm.Kind.FINDING,
        ),
        claim(
            "the rise over I_B p/2 c^2 / 3, with c what A then gives to B: median",
            "one active feature", 1, median((cut - whole) / predicted), tolerance=0.25,
            kind=tm.Kind.PREDICTION,
            threshold="ours: terms of more than one active feature, at this density",
        ),
        claim(
            "models with a motif have lower loss: median, relative to those without",
            ours, 1, median(loss[count > 0]) / median(loss[count == 0]), bound=at_most,
            kind=tm.Kind.FINDING,
        ),
    ]  # fmt: skip


def neurons_of_one(weights_in: Any) -> Any:
    """Models x neurons: whether it serves one feature."""
    serves = jax.vmap(lambda weights: neurons.features_served(weights, threshold=0.2))
    return np.asarray(serves(jnp.asarray(weights_in)).sum(axis=2) == 1)


def plot(results: xr.Dataset) -> Figure:
    weights_in, _ = arrays(results)
    found = find(*arrays(results))
    places = np.nonzero(found.inhibited)
    model, neuron, a, b = places
    count = found.inhibited.sum(axis=(1, 2, 3))
    figure, grid = plotting.figure(2, 3, size=(12.5, 6.8), width_ratios=(1.25, 1, 1))
    _model(grid[:, 0], results, found, count)
    _motif(grid[0, 1])

    axes = grid[1, 1]
    ratio = abs(weights_in[model, neuron, a] / weights_in[model, neuron, b])
    axes.plot(ratio, found.drive[places], ".", color="C1", label="through the shared neuron")
    axes.plot(ratio, found.total[places], ".", color="C0", label="through all neurons")
    axes.plot(4, 4, "*", color="black", markersize=10, label="the paper's weights")
    axes.axhline(0, color="0.6", linewidth=0.6)
    axes.legend(loc="upper left")
    axes.set(
        xlabel="$|W_1|$ of A over that of B",
        ylabel="what A = 1 gives to output B",
        title=f"all {len(model)} motifs of {len(count)} models",
    )

    axes = grid[0, 2]
    shares = {
        "trained": count > 0,
        "features of each\nneuron relabelled": results["relabelled"].values,
        "all weights\nshuffled": results["shuffled"].values,
    }
    heights = [float(share.mean()) for share in shares.values()]
    axes.bar(range(3), heights, 0.6, color=("C0", "0.75", "0.75"))
    low, high = interval(count > 0)
    axes.errorbar(0, heights[0], [[heights[0] - low], [high - heights[0]]], color="k", capsize=4)
    for place, height in enumerate(heights):
        axes.text(place + 0.05, height + 0.01, f"{height:.1g}" if place else f"{height:.2f}")
    axes.set_xticks(range(3), labels=list(shares))
    axes.set(ylabel="share of models with a motif", title="how often, with a 95 % interval")

    axes = grid[1, 2]
    whole, cut = results["cut_loss"].transpose("cut", "motif").values
    axes.loglog(whole, cut, ".", color="C1")
    if len(whole):
        ends = np.array([whole.min(), whole.max()])
        axes.plot(ends, ends, color="0.6", linewidth=0.8)
        axes.text(ends[1], ends[1], "no change", ha="right", va="bottom", color="0.4")
        axes.set(title=f"inhibition of B cut: loss x {np.median(cut / whole):.0f} (median)")
    axes.set(xlabel="loss of the model", ylabel="loss with one weight set to 0")
    return figure


def _model(column: Any, results: xr.Dataset, found: Motifs, count: Any) -> None:
    """Stacks of weights of one model, those into and out of each neuron scaled to one norm."""
    most = min(2, count.max())
    candidates = np.flatnonzero(count >= most)
    seed = candidates[results["loss"].values[candidates].argmin()]
    into, out = (each[seed] for each in arrays(results))
    scale = np.sqrt(np.linalg.norm(out, axis=0) / np.linalg.norm(into, axis=1))
    into, out = into * scale[:, None], out.T / scale[:, None]
    primary = abs(into).argmax(axis=1)
    order = np.lexsort((-into[np.arange(len(into)), primary], primary))
    colors = plotting.IMPORTANCE_MAP(np.linspace(1, 0, into.shape[1]))
    tint, names = np.ones((len(into), 3)), [""] * len(into)
    for neuron, a, b in np.argwhere(found.inhibited[seed]):
        inhibitor = found.inhibitor[seed, neuron, a, b]
        tint[neuron], tint[inhibitor] = (1.0, 0.93, 0.8), (0.9, 0.93, 1.0)
        names[neuron] += f" A={a} B={b}"
        names[inhibitor] += f" inhibits {b}"
    for axes, weights, name in zip(column, (into, out), ("in", "out"), strict=True):
        plotting.neuron_stacks(axes, weights[order], colors, tint=tint[order])
        axes.set(ylabel=f"weights {name}")
    column[0].set_title(f"the lowest loss with {most} motifs: all neurons (seed {seed})")
    column[1].set_xticks(range(len(order)), labels=np.array(names)[order], rotation=90)
    for number, color in enumerate(colors):
        column[0].bar(0, 0, color=color, label=f"feature {number}")
    column[0].legend(ncols=3, fontsize=7)


def _motif(axes: Any) -> None:
    """The paper's weights as a graph."""
    places = {
        "A": (0, 1), "B": (0, 0), "shared": (1, 0.75), "inhibitor": (1, 0.1),
        "|A|": (2, 1), "|B|": (2, 0),
    }  # fmt: skip
    edges = (
        ("A", "shared", "$2$", 3), ("B", "shared", "$-1/2$", 1), ("shared", "|A|", "$1/2$", 1),
        ("shared", "|B|", "$2$", 3), ("A", "inhibitor", "$+$", 2), ("inhibitor", "|B|", "$-$", 3),
    )  # fmt: skip
    for start, end, weight, width in edges:
        (x0, y0), (x1, y1) = places[start], places[end]
        color = plotting.WEIGHT_MAP(0.0 if weight.startswith("$-") else 1.0)
        arrow = {"arrowstyle": "->", "color": color, "linewidth": width}
        axes.annotate("", (x1, y1), (x0, y0), arrowprops={**arrow, "shrinkA": 16, "shrinkB": 16})
        at = x0 + 0.4 * (x1 - x0), y0 + 0.4 * (y1 - y0) + 0.06
        axes.text(*at, weight, color=color, ha="center")
    box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.5"}
    for name, (x, y) in places.items():
        axes.text(x, y, name, ha="center", va="center", bbox=box)
    axes.set(xlim=(-0.3, 2.3), ylim=(-0.25, 1.25), title="the motif, with the paper's weights")
    axes.set_axis_off()


if __name__ == "__main__":
    experiment.main(__file__)
