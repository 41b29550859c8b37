r"""Asymmetric superposition: a neuron shared by two features, and a neuron that inhibits the error.

Claim      $|x|$ has two sides for each feature. With fewer neurons than sides, some models share a
           neuron between one side of A and the other side of B, with weights such as $(2, -1/2)$
           in and $(1/2, 2)$ out: B barely disturbs A, A drives B four times too hard, and another
           neuron that A drives inhibits B. So positive interference becomes negative, and the
           ReLU of the output clips it.
Reproduces Elhage et al. (2022), "Computation in Superposition", the asymmetric motif.
Settings   The paper gives none. Six features, ten neurons, $S = 0.8$, $I_i = 0.7^i$ and batches of
           128 are those of a public replication; optimiser and number of seeds are ours.
Motif      A neuron computes a side of two features, of opposite sign, $W_1 W_2$ is within 0.3 of 1
           for both, but $|W_1|$ is three times as large for A; and another neuron takes at least
           half of what A then gives to B, so that at most a tenth of it is left by all neurons
           together. `toymodels.analysis.motifs` reads that off the weights.
Selection  None for claims: all seeds. The stacks show the lowest loss with two motifs.
Command    toymodels run experiments/asymmetric_superposition.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import motifs, neurons

PAPER = tm.paper("Elhage et al. (2022), Computation in Superposition")
IN_PAPER = tm.finding("found here, after Elhage et al. (2022), Computation in Superposition")
FOUND = tm.finding("this experiment")
NULL = tm.finding("a control whose weights are shuffled")
ARITHMETIC = tm.identity("arithmetic")
SAVES = tm.prediction("arithmetic: a motif saves a neuron")
ONE_ACTIVE = tm.prediction("the loss of one active feature")
DIMS = {
    "weights_in": ("neuron", "feature"),
    "weights_out": ("feature", "neuron"),
    "bias": ("feature",),
}
INPUT, OUTPUT = np.array([[2.0, -0.5]]), np.array([[0.5], [2.0]])
"""The paper's neuron for A and B."""
INHIBITOR = np.array([[1.0, 0.0]]), np.array([[0.0], [-4.0]])
"""The neuron that takes away what A gives to B."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 6
    hidden: int = 10
    density: float = 0.2
    importance: float = 0.7
    num_seeds: int = 256
    training: tm.Recipe = tm.Recipe(steps=5000, batch=128, learning_rate=1e-2)
    shuffles: int = 20
    """Shuffled copies of every model."""
    examples: int = 2**15
    """Number of examples for the loss without an inhibitor."""


SHORT = tm.Recipe(steps=30, batch=16, learning_rate=1e-2)
SMOKE = Config(num_seeds=2, training=SHORT, shuffles=1, examples=64)


def find(weights_in, weights_out) -> motifs.Motifs:
    """Return the motifs of models as arrays of models x neurons x A x B."""
    found = jax.jit(jax.vmap(motifs.asymmetric))(weights_in, weights_out)
    return motifs.Motifs(*map(np.asarray, found))


def without_inhibitors(config: Config, results: xr.Dataset):
    """Return the loss of each model with a motif, whole and with the weight of inhibition at 0."""
    found = find(*arrays(results))
    seeds, neuron, a, b = np.nonzero(found.inhibited)
    task = absolute(config)
    loss = tm.task_loss(tm.TwoLayer(config.hidden), task)
    examples = task.features.sample(jax.random.key(2022), config.examples)
    mean = jax.jit(lambda params: jax.vmap(loss, (None, 0))(params, examples).mean())

    losses = np.empty((len(seeds), 2))
    inhibitor = found.inhibitor[seeds, neuron, a, b]
    for row, (seed, which, feature) in enumerate(zip(seeds, inhibitor, b, strict=True)):
        params = {name: jnp.asarray(results[name].values[seed]) for name in DIMS}
        cut = params["weights_out"].at[feature, which].set(0.0)
        losses[row] = mean(params), mean({**params, "weights_out": cut})
    return {"cut_loss": (("motif", "cut"), losses), "cut": ["whole", "inhibition cut"]}


def absolute(config: Config) -> tm.Task:
    """Return the task of absolute values."""
    importance = tm.geometric_importance(config.num_features, config.importance)
    features = tm.SignedSparseUniform(config.num_features, config.density)
    return tm.Task(features, jnp.abs, importance)


def arrays(results: xr.Dataset):
    """Return weights in and out, models first."""
    return results["weights_in"].values, results["weights_out"].values


def run(config: Config) -> xr.Dataset:
    def cell(key):
        common = jax.random.key(2022)
        model = tm.TwoLayer(config.hidden)
        trained = config.training.train(key, model, absolute(config), key_evaluation=common)
        return {**trained.params, "loss": trained.loss}

    results = tm.sweep(cell, num_seeds=config.num_seeds, dims=DIMS)
    random = np.random.default_rng(0)
    nulls = {}
    for name, null in (("relabelled", motifs.relabelled), ("shuffled", motifs.shuffled)):
        copies = [find(*null(random, *arrays(results))) for _ in range(config.shuffles)]
        shares = np.array([copy.inhibited.any(axis=(1, 2, 3)) for copy in copies])
        nulls[name] = ("shuffle", "seed"), shares
    results = results.assign(nulls).assign(without_inhibitors(config, results))
    return results.assign_attrs(density=config.density, importance=config.importance)


def computed_sides(results: xr.Dataset):
    """Return how many of e_i and -e_i each model answers with 1 in output i, within 0.3."""
    weights_in, weights_out = arrays(results)
    bias = results["bias"].values
    own = [np.maximum(sign * weights_in, 0) * np.swapaxes(weights_out, 1, 2) for sign in (1, -1)]
    outputs = np.maximum(np.stack([each.sum(axis=1) for each in own]) + bias, 0)
    return (abs(outputs - 1) < motifs.WITHIN).sum(axis=(0, 2))


def toy_output(weights_in, weights_out, features):
    """Return the outputs of the two-layer model without bias."""
    hidden = np.maximum(weights_in @ np.array(features), 0)
    return np.maximum(weights_out @ hidden, 0)


def interval(share):
    """Return the 95 % interval (Wilson) of the share of models."""
    found = stats.binomtest(int(share.sum()), len(share)).proportion_ci(method="wilson")
    return found.low, found.high


def median(values):
    return float(np.median(values)) if len(values) else np.nan


def claims(results: xr.Dataset) -> tm.Claims:
    weights_in, weights_out = arrays(results)
    found = find(weights_in, weights_out)
    model, neuron, a, b = places = np.nonzero(found.inhibited)
    count = found.inhibited.sum(axis=(1, 2, 3))
    loss = results["loss"].values

    says = "A neuron with weights (2, -1/2) in and (1/2, 2) out gives (1, 4) for A = 1 and (1/4, "
    says += "1) for B = -1, measured by the largest difference."
    from_a, from_b = (toy_output(INPUT, OUTPUT, x) for x in ((1.0, 0.0), (0.0, -1.0)))
    difference = max(abs(from_a - [1, 4]).max(), abs(from_b - [1 / 4, 1]).max())
    yield tm.near(says, 0, difference, ARITHMETIC, within=0)
    says = "Output B is 0 for A = 1 if a second neuron of weights (1, 0) in and (0, -4) out joins "
    says += "the neuron of weights (2, -1/2) in and (1/2, 2) out."
    both = np.vstack([INPUT, INHIBITOR[0]]), np.hstack([OUTPUT, INHIBITOR[1]])
    yield tm.near(says, 0, toy_output(*both, (1.0, 0.0))[1], ARITHMETIC, within=0)
    says = "More models have the asymmetric motif than models with relabelled neurons do, measured "
    says += "by the lower end of the 95 % interval of their share over the share of the relabelled "
    says += "ones."
    ratio = interval(count > 0)[0] / max(float(results["relabelled"].mean()), 1e-9)
    chance = "Ours, because it is clearly more than chance."
    yield tm.at_least(says, 3, ratio, IN_PAPER, threshold=chance)
    says = "Models whose weights in and out are shuffled hardly have the asymmetric motif, "
    says += "measured by the share that has it."
    below = "Ours, because it is well below the share found."
    yield tm.at_most(says, 0.01, results["shuffled"].mean(), NULL, threshold=below)
    says = "Some models have two asymmetric motifs, as in the paper's figure, measured by the "
    says += "share of all models."
    one, shows = 1 / max(len(count), 1), "Ours, because the paper shows one such model."
    yield tm.at_least(says, one, (count >= 2).mean(), PAPER, threshold=shows)
    says = "Most neurons of models with an asymmetric motif serve one feature, measured by the "
    says += "median share of the neurons."
    mono = median(neurons_of_one(weights_in).mean(axis=1)[count > 0])
    yield tm.at_least(says, 0.5, mono, PAPER, threshold="Ours, because the paper says most.")
    counted = "; only neurons whose two weights differ threefold are counted."
    says = "The neuron that features A and B share gives 4 to output B if A is 1, measured by the "
    says += "median over asymmetric motifs."
    quarter = "Ours, because it is a quarter of the paper's example" + counted
    drive = median(found.drive[places])
    yield tm.near(says, 4, drive, PAPER, within=1, threshold=quarter)
    says = "The neuron that features A and B share gives 1/4 to output A if B has the size 1, "
    says += "measured by the median over asymmetric motifs."
    half = "Ours, because it is less than half of the paper's example" + counted
    back = median(weights_out[model, a, neuron] * abs(weights_in[model, neuron, b]))
    yield tm.near(says, 1 / 4, back, PAPER, within=0.1, threshold=half)
    says = "If feature A is 1, all neurons together give nothing to output B that its ReLU does "
    says += "not clip, measured by the median over asymmetric motifs as a share of what the neuron "
    says += "shared by A and B gives."
    fifth = "Ours, because only neurons inhibited to a tenth are counted, so that this is a fifth "
    fifth += "of what could be seen."
    left = median((found.total / found.drive)[places])
    yield tm.near(says, 0, left, PAPER, within=0.02, threshold=fifth)
    says = "Nearly every neuron that two features share asymmetrically is inhibited by another "
    says += "neuron, measured by the share of such neurons of all models."
    share = found.inhibited.sum() / max(found.asymmetric.sum(), 1)
    no_number = "Ours, because the paper gives no number."
    yield tm.at_least(says, 0.9, share, PAPER, threshold=no_number)
    says = "The ten neurons of models with two asymmetric motifs compute both sides of all six "
    says += "features, measured by the smallest number of sides."
    sides = min(computed_sides(results)[count >= 2], default=np.nan)
    yield tm.near(says, 12, sides, SAVES, within=0)
    whole, cut = results["cut_loss"].transpose("cut", "motif").values
    says = "The loss of every model with an asymmetric motif rises if the weight that inhibits "
    says += "output B is set to 0, measured by the smallest ratio of the losses."
    yield tm.at_least(says, 1, min(cut / whole, default=np.nan), FOUND)
    says = "The loss of models with an asymmetric motif rises by I_B p/2 c^2 / 3 if the weight "
    says += "that inhibits output B is set to 0, where c is the amount that A then gives to B, "
    says += "measured by the median ratio of the rise to this number."
    driven = (found.total - found.taken)[places]
    half_density = results.attrs["density"] / 2
    predicted = results.attrs["importance"] ** b * half_density * driven**2 / 3
    terms = "Ours, because terms of more than one active feature are left out."
    rise = median((cut - whole) / predicted)
    yield tm.near(says, 1, rise, ONE_ACTIVE, within=0.25, threshold=terms)
    says = "The loss of models with an asymmetric motif is lower than that of models without one, "
    says += "measured by the ratio of the medians."
    yield tm.at_most(says, 1, median(loss[count > 0]) / median(loss[count == 0]), FOUND)


def neurons_of_one(weights_in):
    """Return for models x neurons whether the neuron serves one feature."""
    serves = jax.vmap(lambda weights: neurons.features_served(weights, threshold=0.2))
    return np.asarray(serves(jnp.asarray(weights_in)).sum(axis=2) == 1)


def plot(results: xr.Dataset) -> plotting.Figure:
    found = find(*arrays(results))
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.4), width_ratios=(1.3, 1, 1))
    draw_model(grid[:, 0], results, found)
    into, out = np.vstack([INPUT, INHIBITOR[0]]), np.hstack([OUTPUT, INHIBITOR[1]])
    names = {"inputs": "AB", "outputs": ("|A|", "|B|"), "neurons": ("shared", "inhibitor")}
    plotting.circuit(grid[0, 1], into, out, numbers=".2g", **names)
    grid[0, 1].set_title("A and B share a neuron; another\nstops what A gives to B (paper)")
    draw_motifs(grid[1, 1], results, found)
    draw_shares(grid[0, 2], results, found)

    axes = grid[1, 2]
    whole, cut = results["cut_loss"].transpose("cut", "motif").values
    axes.loglog(whole, cut, ".", color="C1")
    for along in ("x", "y"):
        plotting.plain_ticks(axes, along)
    if len(whole):
        ends = np.array([whole.min(), whole.max()])
        axes.plot(ends, ends, color="0.6", linewidth=0.8)
        axes.text(ends[1], ends[1], "no change", ha="right", va="bottom", color="0.4")
        axes.set_title(f"Without the inhibition:\nloss x {np.median(cut / whole):.0f} (median)")
    axes.set(xlabel="loss of the model", ylabel="loss with one weight set to 0")
    return figure


def draw_motifs(axes, results: xr.Dataset, found: motifs.Motifs):
    """Draw what each shared neuron, and all neurons together, give to B."""
    weights_in, _ = arrays(results)
    model, neuron, a, b = places = np.nonzero(found.inhibited)
    ratio = abs(weights_in[model, neuron, a] / weights_in[model, neuron, b])
    axes.plot(ratio, found.drive[places], ".", color="C1", label="from the shared neuron")
    axes.plot(ratio, found.total[places], "x", ms=3, color="C0", label="from all neurons")
    axes.plot(4, 4, "*", color="black", markersize=10, label="the paper's weights")
    axes.axhline(0, color="0.6", linewidth=0.6)
    axes.legend(loc="upper left", fontsize=7)
    label = "given to output B for A = 1"
    axes.set(xlabel="$|W_1|$ of A over that of B", ylabel=label, ylim=(-2, 11))
    seeds = results.sizes["seed"]
    axes.set_title(f"The others take it away\n(all {len(model)} motifs, {seeds} seeds)")


def draw_shares(axes, results: xr.Dataset, found: motifs.Motifs):
    """Draw the share of models with a motif, beside both null hypotheses."""
    shares = {
        "trained": found.inhibited.any(axis=(1, 2, 3)),
        "neurons\nrelabelled": results["relabelled"].values,
        "weights\nshuffled": results["shuffled"].values,
    }
    heights = [float(share.mean()) for share in shares.values()]
    axes.bar(list(shares), heights, 0.6, color=("C0", "0.75", "0.75"))
    low, high = interval(shares["trained"])
    axes.errorbar(0, heights[0], [[heights[0] - low], [high - heights[0]]], color="k", capsize=4)
    for place, height in enumerate(heights):
        axes.text(place + 0.05, height + 0.01, f"{height:.1g}" if place else f"{height:.2f}")
    title = "Half of the models have it\n(95 % interval)"
    axes.set(ylabel="share of models with a motif", title=title)


def draw_model(column, results: xr.Dataset, found: motifs.Motifs):
    """Draw the weights of one model; those into and out of each neuron are scaled to one norm."""
    count = found.inhibited.sum(axis=(1, 2, 3))
    number = min(2, count.max())
    candidates = np.flatnonzero(count >= number)
    seed = candidates[results["loss"].values[candidates].argmin()]
    into, out = (each[seed] for each in arrays(results))
    scale = np.sqrt(np.linalg.norm(out, axis=0) / np.linalg.norm(into, axis=1))
    into, out = into * scale[:, None], out.T / scale[:, None]
    order = plotting.by_feature(into)
    colors = plotting.IMPORTANCE_MAP(np.linspace(1, 0, into.shape[1]))
    tint, names = np.ones((len(into), 3)), [""] * len(into)
    for neuron, a, b in np.argwhere(found.inhibited[seed]):
        inhibitor = found.inhibitor[seed, neuron, a, b]
        tint[neuron], tint[inhibitor] = (1.0, 0.93, 0.8), (0.9, 0.93, 1.0)
        names[neuron] += f"A {a}\nB {b}"
        names[inhibitor] += f"stop\n{b}"
    for axes, weights, name in zip(column, (into, out), ("in", "out"), strict=True):
        plotting.neuron_stacks(axes, weights[order], colors, tint=tint[order])
        axes.set(ylabel=f"weights {name}")
    column[0].set_title(f"All neurons of the lowest loss\nwith {number} motifs (seed {seed})")
    column[1].set_xticks(range(len(order)), labels=np.array(names)[order], fontsize=7)
    column[1].tick_params(axis="x", length=0)
    for feature, color in enumerate(colors):
        column[0].bar(0, 0, color=color, label=f"feature {feature}")
    column[0].set_ylim(top=1.4 * column[0].get_ylim()[1])
    column[0].legend(ncols=2, fontsize=7, loc="upper right")


if __name__ == "__main__":
    experiment.main(__file__)
