r"""Features are learned in jumps: their dimensionalities move between levels.

Claim      Feature dimensionalities $D_i$ jump between levels during training, and the loss falls
           when they do, until antipodal pairs remain ($D_i = 1/2$). In a quarter of the seeds one
           dimension ends with a single feature, and not with a pair.
Reproduces Elhage et al. (2022), "Superposition and Learning Dynamics", the first figure; see
           `learning_stages.py` for the second one.
Settings   The paper gives none. Ours were chosen after trials: of six seeds all dimensions became
           digons in five for n = 16, in one for 20 and in none for 30 (m = 6), where the last
           dimension keeps a single feature. The learning rate is constant for three quarters of a
           run and then annealed, because weights still fluctuated at the end without that.
Selection  None: claims are over every seed; the upper panel shows seed 0, which is not chosen.
Command    toymodels run experiments/learning_dynamics.py
"""

import dataclasses

import jax
import numpy as np
import optax
import xarray as xr
from jaxtyping import Float

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.theory import expected_loss_sampled, feature_variance, polytopes

WORK = "Elhage et al. (2022), Superposition and Learning Dynamics"
FIRST_FIGURE = tm.paper(WORK)
POLYTOPES = tm.prediction("toymodels.theory.polytopes")
CONVERGENCE = "Ours, because training does not converge entirely."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 16
    hidden: int = 6
    density: float = 1 / 3
    """The density, at which digons win; see `polytope_gains`."""
    start: float = 0.02
    """Standard deviation of the first weights: near the saddle at 0."""
    num_seeds: int = 16
    steps: int = 10_000
    snapshots: int = 120
    batch: int = 1024
    learning_rate: float = 1e-3
    examples: int = 2**13
    """The number of examples of the loss of each snapshot."""


SMOKE = Config(
    num_features=6, hidden=2, num_seeds=2, steps=100, snapshots=12, batch=64, examples=64
)
# The paper does not say the size of this model; this is the one of its other uniform models.
PAPER = Config(num_features=400, hidden=30, num_seeds=2)


def run(config: Config) -> xr.Dataset:
    steps = tm.log_spaced(config.steps, config.snapshots)
    late = config.steps * 3 // 4
    rate = tm.constant_then_cosine(config.learning_rate, config.steps, until=late)

    def cell(key):
        start = jax.nn.initializers.normal(config.start)
        model = tm.ReLUOutput(config.hidden, initializer=start)
        task = tm.Task(tm.SparseUniform(config.num_features, config.density))
        how = {"steps": config.steps, "batch": config.batch, "snapshots": steps}
        kept = tm.train(key, model, task, optimizer=optax.adam(rate), **how).snapshots
        each = jax.vmap(geometry.feature_dimensionality)(kept["weights"])
        return {**kept, "dimensionality": each}

    def measured(weights, bias):
        model, key = (weights, bias), jax.random.key(0)
        return expected_loss_sampled(key, *model, config.density, examples=config.examples)

    dims = {"weights": ("step", "hidden", "feature"), "bias": ("step", "feature")}
    dims["dimensionality"] = ("step", "feature")
    results = tm.sweep(cell, num_seeds=config.num_seeds, dims=dims)
    results = results.assign_coords(step=list(steps))
    inner = {"input_core_dims": [["hidden", "feature"], ["feature"]], "vectorize": True}
    models = results.weights, results.bias
    loss, error = xr.apply_ufunc(measured, *models, output_core_dims=[[], []], **inner)
    variance = feature_variance(config.density)
    digon = polytopes.arrangement(polytopes.DIGON, config.density).loss
    rest = config.num_features - 2 * config.hidden
    results = results[["dimensionality"]].assign(
        loss=loss,
        loss_error=error,
        digons_loss=config.hidden * digon + rest * variance,
        one_short_loss=(config.hidden - 1) * digon + (rest + 1) * variance,
        variance=variance,
    )
    return results.assign_attrs(hidden=config.hidden)


def jumps(results: xr.Dataset, seed: int) -> list[slice]:
    r"""Return when features jump, as slices of snapshots, first and last one included.

    A jump is a stretch of neighbouring snapshots between which some feature moves by more than
    0.03, and over which some feature moves by more than 0.1. It begins no earlier than the
    features fill the hidden space, $\sum_i D_i > 0.95\, m$: before, norms are near 0.
    """
    each = results.dimensionality.sel(seed=seed).transpose("step", "feature").values
    filled = each.sum(axis=1) > 0.95 * results.attrs["hidden"]
    first = int(filled.argmax()) if filled.any() else len(each)
    moving = (abs(np.diff(each, axis=0)).max(axis=1) > 0.03) & (np.arange(1, len(each)) > first)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], moving, [False]])))
    stretches = [slice(int(low), int(high) + 1) for low, high in edges.reshape(-1, 2)]
    return [part for part in stretches if abs(each[part][-1] - each[part][0]).max() > 0.1]


def moves(results: xr.Dataset, seed: int) -> Float[np.ndarray, "moves 2"]:
    """Return D_i before and after, of all features that move by more than 0.1 in a jump."""
    each = results.dimensionality.sel(seed=seed).transpose("step", "feature").values
    ends = [each[[part.start, part.stop - 1]].T for part in jumps(results, seed)]
    both = np.concatenate([np.empty((0, 2)), *ends])
    return both[abs(both[:, 1] - both[:, 0]) > 0.1]


def falls(results: xr.Dataset, seed: int) -> Float[np.ndarray, "jumps 2"]:
    """Return the fall of the loss in each jump of a seed, and its standard error."""
    loss, error = (results[name].sel(seed=seed).values for name in ("loss", "loss_error"))
    ends = [(part.start, part.stop - 1) for part in jumps(results, seed)]
    found = [(loss[first] - loss[last], np.hypot(*error[[first, last]])) for first, last in ends]
    return np.array(found).reshape(-1, 2)


def speeds(results: xr.Dataset) -> tuple[float, float]:
    """Return the fall of the loss per snapshot from the first jump on: in jumps, and outside."""
    fell, lasted = np.zeros(2), np.zeros(2)
    for seed in results.seed.values:
        loss, found = results.loss.sel(seed=seed).values, jumps(results, seed)
        if found:
            inside, first = sum(falls(results, seed)[:, 0]), found[0].start
            length = sum(part.stop - 1 - part.start for part in found)
            fell += inside, loss[first] - loss[-1] - inside
            lasted += length, len(loss) - 1 - first - length
    inside, outside = fell / np.maximum(lasted, 1)
    return float(inside), float(outside)


def claims(results: xr.Dataset) -> tm.Claims:
    seeds = results.seed.values
    found = [falls(results, seed) for seed in seeds]
    last = results.isel(step=-1)
    paired = abs(last.dimensionality - 1 / 2) < 0.03

    says = "The dimensionalities D_i of features jump during training after the features have "
    says += "filled the hidden space, measured by the share of the seeds with such a jump."
    share = np.mean([len(parts) > 0 for parts in found])
    yield tm.at_least(says, 0.8, share, FIRST_FIGURE)

    says = "The loss falls by more than four standard errors whenever dimensionalities D_i of "
    says += "features jump during training, measured by the smallest number of errors."
    fell, errors = np.concatenate(found).T
    smallest = min(fell / errors, default=np.nan)
    threshold = "Ours, because four standard errors are no chance."
    yield tm.at_least(says, 4, smallest, FIRST_FIGURE, threshold=threshold)

    says = "The loss falls faster per snapshot while dimensionalities D_i of features jump during "
    says += "training than between and after jumps, measured by the ratio."
    inside, outside = speeds(results)
    threshold = "Ours, because the paper shows a curve, and gives no number."
    yield tm.at_least(says, 4, inside / max(outside, 1e-12), FIRST_FIGURE, threshold=threshold)

    says = "Nearly all hidden dimensions of trained models end with an antipodal pair, D_i = 1/2 "
    says += "within 0.03, measured by their share."
    share = paired.sum("feature").mean() / 2 / results.attrs["hidden"]
    threshold = "Ours, because one dimension in ten may differ."
    yield tm.at_least(says, 0.9, share, FIRST_FIGURE, threshold=threshold)

    says = "Features whose dimensionality D_i jumps to 1/2 during training had about 1/3 before, "
    says += "measured by the median."
    source = tm.paper(f"{WORK}: readers see jumps from 1/3 to 1/2")
    moved = np.concatenate([moves(results, seed) for seed in seeds])
    to_pair = moved[(abs(moved[:, 1] - 1 / 2) < 0.05) & (moved[:, 0] < 1 / 2)]
    before = np.median(to_pair[:, 0]) if len(to_pair) else np.nan
    threshold = "Ours, because it is half of the way to the levels of 2/5 and 2/7."
    note = "Features of a large model rise to 1/2 in one stretch, from a start near 0.1."
    note = "" if len(last.feature) < 50 else note
    yield tm.near(says, 1 / 3, before, source, within=0.05, threshold=threshold, note=note)

    says = "Every feature of most seeds ends at D_i = 0 or at D_i = 1/2, within 0.03, measured by "
    says += "the share of the seeds."
    settled = (paired | (last.dimensionality < 0.03)).all("feature")
    threshold = "Ours, because most are more than half, and the paper shows one model."
    yield tm.at_least(says, 0.5, settled.mean(), FIRST_FIGURE, threshold=threshold)

    says = "The loss falls more in the second jump of dimensionalities D_i in a training run than "
    says += "in the first, measured by the median ratio of the seeds that have both."
    second = [parts[1, 0] / parts[0, 0] for parts in found if len(parts) > 1]
    threshold = "Ours, because the paper says very small and larger."
    note = f"{len(second)} of {len(found)} seeds have two jumps. In these small models many "
    note += "features move in each of them; the paper's are larger, of unknown size."
    ratio = np.median(second) if second else np.nan
    yield tm.at_least(says, 2, ratio, FIRST_FIGURE, threshold=threshold, note=note)

    says = "The loss of the median seed ends at that of m digons, measured by the relative "
    says += "difference."
    ended = last.loss / last.digons_loss
    gap = ended.median() - 1
    yield tm.near(says, 0, gap, POLYTOPES, within=0.002, threshold=CONVERGENCE)

    says = "The loss of every seed ends at that of m digons, or at that of one digon less and a "
    says += "single feature, measured by the largest relative difference."
    gap = np.minimum(abs(ended - 1), abs(last.loss / last.one_short_loss - 1)).max()
    yield tm.near(says, 0, gap, POLYTOPES, within=0.01, threshold=CONVERGENCE)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (above, below) = plotting.figure(
        2, 1, size=(7, 6.2), sharex=True, height_ratios=(1.5, 1)
    )
    steps, last = results.step.values, results.isel(seed=0, step=-1)
    for feature in last.feature.values:
        line = results.dimensionality.sel(seed=0, feature=feature)
        color, many = "C0" if line[-1] > 0.25 else "C1", len(last.feature) > 50
        above.plot(steps, line, color=color, linewidth=0.4 if many else 1.2, rasterized=many)
    above.plot([], color="C0", label="features that end in a digon")
    above.plot([], color="C1", label="features that are dropped")
    above.legend(loc="upper left")
    for fraction, name in ((1 / 2, "digon 1/2"), (2 / 3, "triangle 2/3"), (2 / 5, "pentagon 2/5")):
        above.axhline(fraction, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        above.text(steps[-1], fraction, name, ha="right", va="bottom", color="0.4", fontsize=8)
    for seed in results.seed.values[::-1]:
        style = {"color": "0.75", "linewidth": 1} if seed else {"color": "k", "linewidth": 1.6}
        below.plot(steps, results.loss.sel(seed=seed) / results.variance, **style)
    for part in jumps(results, 0):
        for axes in (above, below):
            axes.axvspan(steps[part][0], steps[part][-1], color="#ffcc66", alpha=0.35, linewidth=0)
    for name, label, side in (
        ("digons_loss", "all digons", "top"),
        ("one_short_loss", "one digon less", "bottom"),
    ):
        height = float(results[name] / results.variance)
        below.axhline(height, color="C3", linewidth=0.8, linestyle=":")
        below.text(110, height, label, va=side, color="C3", fontsize=8)
    floor = float(results.digons_loss / results.variance)
    first = next((part.start for part in jumps(results, 0)), -1)
    top = max(floor + 4, float(results.loss.sel(seed=0)[first] / results.variance))
    above.set(xscale="log", xlim=(min(100, steps[-1] / 3), steps[-1]), ylim=(0, 1))
    above.set_ylabel("feature dimensionality $D_i$")
    above.set_title("The dimensionalities of seed 0 jump between levels (shaded)")
    below.set(xlabel="step", ylabel="loss / variance of a feature")
    below.set(ylim=(floor - (top - floor) / 8, top))
    below.set_title(f"The loss falls in the jumps (black: seed 0 of {len(results.seed)})")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
