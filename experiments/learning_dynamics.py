r"""How features are learned: discrete jumps, and geometry that unfolds in stages.

Claim      Feature dimensionalities $D_i$ jump between levels during training, and the loss falls
           when they do, until antipodal pairs remain ($D_i = 1/2$). Two sets of three correlated
           features in three dimensions are first learned as one direction for each set, on a
           plateau of loss $p/3$; then they unfold into triangles, opposite faces of an octahedron:
           three orthogonal antipodal pairs, each of one feature of either set, of loss $p^2$.
Reproduces Elhage et al. (2022), "Superposition and Learning Dynamics", both figures.
Settings   The paper gives only n = 6, m = 3 of the second figure. All others are ours, chosen after
           trials: of six seeds all dimensions became digons in five for n = 16, in one for 20 and
           in none for 30 (m = 6), where the last one keeps a single feature; smaller overlaps
           between sets are still shrinking after 8000 steps (up to 0.11), so there are 16,000. The
           rate is constant for three quarters of a run and then annealed: without that they still
           fluctuated at the end, so that a claim on them held or failed by chance.
Selection  None: claims are over every seed; large panels show seed 0, which is not chosen.
Command    toymodels run experiments/learning_dynamics.py
"""

import dataclasses
import functools
from typing import Any, Final

import jax
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.theory import expected_loss_correlated, expected_loss_sampled, frames, polytopes

SOURCE = "Elhage et al. (2022), Superposition and Learning Dynamics"
SETS: Final = 2
SIZE: Final = 3
"""Features of a set; as many as hidden dimensions."""
SOFT: Final = (
    "Overlaps of features of different sets that are no partners are soft: they matter only when "
    "both sets are present, a share p^2 of the time. See the next claim."
)
SET_COLORS: Final = ("#3366cc", "#cc3333")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 16
    hidden: int = 6
    density: float = 1 / 3
    """Where digons win, see `polytope_gains`."""
    set_density: float = 0.05
    """Probability that a correlated set is present."""
    start: float = 0.02
    """Standard deviation of the first weights: near the saddle at 0."""
    num_seeds: int = 6
    steps: int = 10_000
    set_steps: int = 16_000
    snapshots: int = 120
    batch: int = 1024
    learning_rate: float = 1e-3
    examples: int = 2**13
    """For the loss of each snapshot of the first model."""


SMOKE = Config(
    num_features=6, hidden=2, num_seeds=2, steps=300, set_steps=300, snapshots=12, examples=64
)


def arrangements() -> dict[str, polytopes.Polytope]:
    """Symmetric arrangements of the two sets: critical points, by Palais's principle."""
    ones, zeros, triangle = np.ones(SIZE), np.zeros(SIZE), frames.regular_polygon(SIZE)
    apart = np.concatenate([ones, -ones])[None]
    return {
        "all together": polytopes.Polytope(np.ones((1, SETS * SIZE)), (0,)),
        "sets antipodal": polytopes.Polytope(apart, (0,)),
        "sets orthogonal": polytopes.Polytope(np.block([[ones, zeros], [zeros, ones]]), (0, 0)),
        "prism": polytopes.Polytope(np.vstack([apart, np.hstack([triangle] * 2)]), (0, 1, 1)),
        "octahedron": polytopes.Polytope(
            np.vstack([apart, np.hstack([triangle, -triangle])]), (0, 1, 1)
        ),
    }


def level(polytope: polytopes.Polytope, density: float) -> float:
    """The least exact loss of an arrangement over its lengths and one bias for all."""
    vertices, stretch = polytope
    width = len(set(stretch))

    def lost(lengths: Any) -> float:
        weights = lengths[np.array(stretch), None] * vertices
        bias = np.full(SETS * SIZE, lengths[-1])
        return float(expected_loss_correlated(weights, bias, density, num_sets=SETS))

    found = optimize.minimize(
        lost,
        np.append(np.full(width, 0.5), 0.0),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-13},
    )
    return float(found.fun)


def run(config: Config) -> xr.Dataset:
    start = jax.nn.initializers.normal(config.start)

    def trained(key: Any, hidden: int, features: tm.Features, steps: int) -> Any:
        # Constant, to show the dynamics; then annealed, or its noise would hide where they end.
        late = steps * 3 // 4
        rate = optax.join_schedules(
            [
                optax.constant_schedule(config.learning_rate),
                optax.cosine_decay_schedule(config.learning_rate, steps - late),
            ],
            [late],
        )
        return tm.train(
            key,
            tm.ReLUOutput(hidden, initializer=start),
            tm.Task(features),
            optimizer=optax.adam(rate),
            steps=steps,
            batch=config.batch,
            snapshots=tm.log_spaced(steps, config.snapshots),
        ).snapshots

    def jumping(key: Any) -> dict[str, Any]:
        features = tm.SparseUniform(config.num_features, config.density)
        kept = trained(key, config.hidden, features, config.steps)
        each = jax.vmap(geometry.feature_dimensionality)(kept["weights"])
        return {**kept, "dimensionality": each}

    def unfolding(key: Any) -> dict[str, Any]:
        features = tm.CorrelatedSets(SETS, SIZE, config.set_density)
        kept = trained(key, SIZE, features, config.set_steps)
        return {f"set_{name}": values for name, values in kept.items()}

    jumps = tm.sweep(
        jumping,
        num_seeds=config.num_seeds,
        dims={
            "weights": ("step", "hidden", "feature"),
            "bias": ("step", "feature"),
            "dimensionality": ("step", "feature"),
        },
    )
    unfolds = tm.sweep(
        unfolding,
        num_seeds=config.num_seeds,
        dims={
            "set_weights": ("set_step", "dimension", "member"),
            "set_bias": ("set_step", "member"),
        },
    )
    losses = xr.apply_ufunc(
        lambda weights, bias: expected_loss_sampled(
            jax.random.key(0), weights, bias, config.density, examples=config.examples
        ),
        jumps["weights"],
        jumps["bias"],
        input_core_dims=[["hidden", "feature"], ["feature"]],
        output_core_dims=[[], []],
        vectorize=True,
    )
    with jax.enable_x64(True):
        exact = functools.partial(expected_loss_correlated, num_sets=SETS)
        over_all = jax.jit(jax.vmap(jax.vmap(exact, (0, 0, None)), (0, 0, None)))
        kept = (np.asarray(unfolds[f"set_{name}"].values, float) for name in ("weights", "bias"))
        set_losses = np.asarray(over_all(*kept, config.set_density))
        levels = [level(each, config.set_density) for each in arrangements().values()]
    variance = config.density / 3 - config.density**2 / 4
    digon = polytopes.arrangement(polytopes.DIGON, config.density).loss
    rest = config.num_features - 2 * config.hidden
    return xr.merge([jumps.drop_vars(("weights", "bias")), unfolds]).assign(
        loss=losses[0],
        loss_error=losses[1],
        set_loss=(("seed", "set_step"), set_losses),
        level=("arrangement", levels),
        digons_loss=config.hidden * digon + rest * variance,
        one_short_loss=(config.hidden - 1) * digon + (rest + 1) * variance,
        variance=variance,
    ).assign_coords(
        step=list(tm.log_spaced(config.steps, config.snapshots)),
        set_step=list(tm.log_spaced(config.set_steps, config.snapshots)),
        arrangement=list(arrangements()),
    ).assign_attrs(hidden=config.hidden, set_density=config.set_density)  # fmt: skip


def jumps(results: xr.Dataset, seed: int) -> list[slice]:
    r"""When features jump, as slices of snapshots, first and last one included.

    A jump is a stretch of neighbouring snapshots between which some feature moves by more than
    0.03, and over which some feature moves by more than 0.1. It begins no earlier than the
    features fill the hidden space, $\sum_i D_i > 0.95\, m$: before, norms are near 0.
    """
    each = results["dimensionality"].sel(seed=seed).transpose("step", "feature").values
    filled = each.sum(axis=1) > 0.95 * results.attrs["hidden"]
    first = int(filled.argmax()) if filled.any() else len(each)
    moving = (abs(np.diff(each, axis=0)).max(axis=1) > 0.03) & (np.arange(1, len(each)) > first)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], moving, [False]])))
    stretches = [slice(int(low), int(high) + 1) for low, high in edges.reshape(-1, 2)]
    return [part for part in stretches if abs(each[part][-1] - each[part][0]).max() > 0.1]


def moves(results: xr.Dataset, seed: int) -> Any:
    r"""$D_i$ before and after of all features that move by more than 0.1 in a jump: moves x 2."""
    each = results["dimensionality"].sel(seed=seed).transpose("step", "feature").values
    ends = [each[[part.start, part.stop - 1]].T for part in jumps(results, seed)]
    both = np.concatenate([np.empty((0, 2)), *ends])
    return both[abs(both[:, 1] - both[:, 0]) > 0.1]


def plateaus(results: xr.Dataset) -> xr.DataArray:
    """Snapshot of each seed where the loss of the sets is slowest between 0.6 p and 0.15 p."""
    relative = results["set_loss"] / results.attrs["set_density"]
    inside = (relative < 0.6) & (relative > 0.15)
    fall = -np.log(relative).diff("set_step")  # labelled by its end
    return fall.where(inside.isel(set_step=slice(1, None)), np.inf).argmin("set_step") + 1


def speeds(results: xr.Dataset) -> tuple[float, float]:
    """Fall of the loss per snapshot from the first jump on: in jumps, and outside of them."""
    fell, lasted = np.zeros(2), np.zeros(2)
    for seed in results["seed"].values:
        loss = results["loss"].sel(seed=seed).values
        found = jumps(results, seed)
        if found:
            inside = sum(loss[part][0] - loss[part][-1] for part in found)
            length = sum(part.stop - 1 - part.start for part in found)
            first = found[0].start
            fell += inside, loss[first] - loss[-1] - inside
            lasted += length, len(loss) - 1 - first - length
    inside, outside = fell / np.maximum(lasted, 1)
    return float(inside), float(outside)


def claims(results: xr.Dataset) -> list[tm.Claim]:
    found = {seed: jumps(results, seed) for seed in results["seed"].values}
    falls = [
        float((loss[part][0] - loss[part][-1]) / np.hypot(*error[part][[0, -1]]))
        for seed, parts in found.items()
        for loss, error in [
            (results[name].sel(seed=seed).values for name in ("loss", "loss_error"))
        ]
        for part in parts
    ]
    inside, outside = speeds(results)
    moved = np.concatenate([moves(results, seed) for seed in found])
    to_pair = moved[(abs(moved[:, 1] - 1 / 2) < 0.05) & (moved[:, 0] < 1 / 2)]
    drops = [
        [float(loss[part.start] - loss[part.stop - 1]) for part in parts]
        for seed, parts in found.items()
        for loss in [results["loss"].sel(seed=seed).values]
    ]
    second = [parts[1] / parts[0] for parts in drops if len(parts) > 1]
    last = results.isel(step=-1, set_step=-1)
    paired = abs(last["dimensionality"] - 1 / 2) < 0.03
    settled = paired | (last["dimensionality"] < 0.03)
    ended = last["loss"] / last["digons_loss"]
    nearest = np.minimum(abs(ended - 1), abs(last["loss"] / last["one_short_loss"] - 1))

    density = results.attrs["set_density"]
    levels = results["level"] / density
    resting = results.isel(set_step=plateaus(results))
    plateau = resting["set_loss"] / density
    weights = resting["set_weights"].transpose("seed", "dimension", "member").values
    units = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    cosines = np.swapaxes(units, 1, 2) @ units
    own = np.kron(np.eye(SETS), np.ones((SIZE, SIZE))) == 1
    final = last["set_weights"].transpose("seed", "dimension", "member").values
    gram = np.swapaxes(final, 1, 2) @ final
    norms = np.linalg.norm(final, axis=1)
    lengths = norms[:, :, None] * norms[:, None, :]
    partner = gram[:, :SIZE, SIZE:].argmin(axis=2)
    pairs = np.zeros_like(gram)
    for number, partners in enumerate(partner):
        pairs[number, np.arange(SIZE), SIZE + partners] = 1
    octahedron = np.eye(SETS * SIZE) - pairs - np.swapaxes(pairs, 1, 2)
    to_octahedron = last["set_loss"] / results["level"].sel(arrangement="octahedron")
    at_most, at_least = tm.Bound.AT_MOST, tm.Bound.AT_LEAST
    exact = "exact loss"

    def claim(statement: str, source: str, expected: float, measured: Any, **how: Any) -> tm.Claim:
        return tm.Claim(statement, source, expected=expected, measured=measured, **how)

    return [
        claim(
            "D_i jump after the features fill the hidden space: share of seeds with a jump.",
            SOURCE, 0.8, np.mean([len(parts) > 0 for parts in found.values()]), bound=at_least,
            kind=tm.Kind.PAPER,
        ),
        claim(
            "the loss falls in every jump: least fall, in standard errors",
            SOURCE, 4, min(falls, default=np.nan), bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: four standard errors",
        ),
        claim(
            "from the first jump on, the loss falls faster in jumps than between and after them: "
            "ratio of falls per snapshot",
            SOURCE, 4, inside / max(outside, 1e-12), bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper shows a curve",
        ),
        claim(
            "share of the hidden dimensions that end as antipodal pairs, D_i = 1/2 ± 0.03",
            SOURCE, 0.9, paired.sum("feature").mean() / 2 / results.attrs["hidden"], bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: one dimension in twenty",
        ),
        claim(
            "Features that jump to 1/2 come from about 1/3: median of D_i before the jump.",
            f"{SOURCE}: readers see jumps from 1/3 to 1/2", 1 / 3,
            np.median(to_pair[:, 0]) if len(to_pair) else np.nan, tolerance=0.05,
            kind=tm.Kind.PAPER, threshold="ours: half way to the levels of 2/5 and 2/7",
        ),
        claim(
            "At the end every feature is at one of two levels, D_i = 0 or 1/2, within 0.03: share "
            "of all features of all seeds.",
            SOURCE, 0.9, settled.mean(), bound=at_least, kind=tm.Kind.PAPER,
            threshold="ours: nine in ten",
        ),
        claim(
            "The loss falls little in the first jump and more in the second: ratio of the second "
            "fall to the first, median of the seeds that have both.",
            SOURCE, 2, np.median(second) if second else np.nan, bound=at_least, kind=tm.Kind.PAPER,
            threshold="ours: the paper says very small and larger",
            note=f"{len(second)} of {len(found)} seeds have two jumps. In these small models many "
            "features move in each of them; the paper's are larger, of unknown size.",
        ),
        claim(
            "the median seed ends at the loss of m digons, relative difference",
            "toymodels.theory.polytopes", 0, ended.median() - 1, tolerance=0.002,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        claim(
            "every seed ends at the loss of m digons, or of one digon less and a single feature: "
            "largest relative difference",
            "toymodels.theory.polytopes", 0, nearest.max(), tolerance=0.01,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        claim(
            "sets: the least loss of one direction for each set, orthogonal, is p/3: loss / p",
            exact, 1 / 3, levels.sel(arrangement="sets orthogonal"), tolerance=1e-6,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        claim(
            "sets: median plateau, loss / p", exact, 1 / 3, plateau.median(), tolerance=0.01,
            kind=tm.Kind.PREDICTION,
            threshold="ours: two percent of it",
        ),
        claim(
            "sets: every plateau is at most that of antipodal sets, loss / p",
            exact, levels.sel(arrangement="sets antipodal"), plateau.max(),
            tolerance=0.005, bound=at_most,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling",
        ),
        claim(
            "sets: every plateau is at least that of orthogonal sets, loss / p",
            exact, levels.sel(arrangement="sets orthogonal"), plateau.min(),
            tolerance=0.005, bound=at_least,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling",
        ),
        claim(
            "sets: there, features of a set are parallel: least cosine",
            SOURCE, 0.95, cosines[:, own].min(), bound=at_least,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            "sets: every seed ends as an octahedron, pairs of features of different sets: largest "
            "|difference| of an entry of W^T W",
            SOURCE, 0, abs(gram - octahedron).max(), tolerance=0.06,
            note=SOFT,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper shows a picture",
        ),
        claim(
            "sets: then each feature has one opposite it in the other set: largest cosine of two "
            "partners",
            SOURCE, -0.98, (gram / lengths).min(axis=2).max(), bound=at_most,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        claim(
            "sets: the octahedron has loss p^2, their ratio", exact, 1,
            levels.sel(arrangement="octahedron") / density, tolerance=0.01,
            kind=tm.Kind.IDENTITY,
            threshold="ours: terms of higher order in p",
        ),
        claim(
            "sets: every seed ends at the loss of the octahedron: largest excess, relative",
            exact, 0, to_octahedron.max() - 1, tolerance=0.01,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
    ]  # fmt: skip


def plot(results: xr.Dataset) -> Figure:
    figure = Figure(figsize=(11.5, 5.8), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    left, right = halves
    left.suptitle("independent features: $D_i$ jump between levels (seed 0)", fontsize=11)
    right.suptitle("two correlated sets of three features: stages (seed 0)", fontsize=11)
    above, below = left.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
    _jumping(above, below, results)
    pictures, curve = right.subfigures(2, 1, height_ratios=(1, 1.3))
    _unfolding(pictures, curve.subplots(), results)
    return figure


def _jumping(above: Any, below: Any, results: xr.Dataset) -> None:
    steps = results["step"].values
    each = results["dimensionality"].sel(seed=0).transpose("step", "feature").values
    order = np.argsort(each[-1], kind="stable")
    for number, feature in enumerate(order):
        color = plotting.IMPORTANCE_MAP(number / len(order))
        above.plot(steps, each[:, feature], color=color, linewidth=1.2)
    for fraction, name in ((1 / 2, "digon 1/2"), (2 / 3, "triangle 2/3"), (2 / 5, "pentagon 2/5")):
        above.axhline(fraction, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        above.annotate(
            name, (steps[-1], fraction), ha="right", va="bottom", color="0.4", fontsize=8
        )
    for seed in results["seed"].values[::-1]:
        loss = results["loss"].sel(seed=seed) / results["variance"]
        below.plot(steps, loss, color="0.75" if seed else "black", linewidth=1 if seed else 1.6)
    for part in jumps(results, 0):
        for axes in (above, below):
            axes.axvspan(steps[part][0], steps[part][-1], color="#ffcc66", alpha=0.35, linewidth=0)
    for name, label in (("digons_loss", "all digons"), ("one_short_loss", "one digon less")):
        height = float(results[name] / results["variance"])
        below.axhline(height, color="C3", linewidth=0.8, linestyle=":")
        low = name == "digons_loss"
        below.annotate(
            label, (110, height), ha="left", va="top" if low else "bottom", color="C3", fontsize=8
        )
    floor = float(results["digons_loss"] / results["variance"])
    above.set(
        xscale="log", xlim=(100, steps[-1]), ylim=(0, 1), ylabel="feature dimensionality $D_i$"
    )
    above.set_title("shaded: jumps, by the rule in the claims", fontsize=9, color="0.4")
    below.set(
        xlabel="step",
        ylabel="loss / variance of a feature",
        ylim=(floor - 0.5, floor + 4),
    )
    below.set_title("black: the same seed; grey: all other seeds", fontsize=9, color="0.4")


def _unfolding(pictures: Any, curve: Any, results: xr.Dataset) -> None:
    density = results.attrs["set_density"]
    steps = results["set_step"].values
    relative = results["set_loss"].sel(seed=0).values / density
    weights = results["set_weights"].sel(seed=0).transpose("set_step", "dimension", "member").values
    weights = _upright(weights)
    stages = {
        "sets push apart": int((relative < 1).argmax()),
        "plateau": int(plateaus(results).sel(seed=0)),
        "unfolding": int((relative < 0.15).argmax()) or len(steps) - 1,
        "octahedron": len(steps) - 1,
    }
    for number, (name, place) in enumerate(stages.items()):
        axes = pictures.add_subplot(1, len(stages), number + 1, projection="3d")
        _directions(axes, weights[: place + 1])
        axes.set_title(f"{number + 1}  {name}\nstep {steps[place]}", fontsize=9)
        curve.plot(steps[place], relative[place], "o", color="black", markersize=5, zorder=5)
        curve.annotate(
            f"{number + 1}", (steps[place], relative[place]), (6, 6),
            textcoords="offset points", weight="bold",
        )  # fmt: skip
    for seed in results["seed"].values[::-1]:
        loss = results["set_loss"].sel(seed=seed) / density
        curve.plot(steps, loss, color="0.75" if seed else "black", linewidth=1 if seed else 1.6)
    for name, height in zip(results["arrangement"].values, results["level"] / density, strict=True):
        curve.axhline(float(height), color="C3", linewidth=0.8, linestyle=":")
        above = name in ("prism", "sets antipodal")
        curve.annotate(
            f"{name} {float(height):.3f}", (10, float(height)), ha="left",
            va="bottom" if above or name == "all together" else "top", color="C3", fontsize=8,
        )  # fmt: skip
    curve.set(
        xscale="log", yscale="log", xlim=(9, steps[-1] * 1.2), xlabel="step",
        ylabel="exact loss / density $p$, summed over outputs",
    )  # fmt: skip
    curve.set_title("grey: all other seeds; dotted: least losses of symmetric arrangements",
                    fontsize=9, color="0.4")  # fmt: skip


def _upright(weights: Any) -> Any:
    """Turn all snapshots alike, so that in the end the two sets are above each other."""
    end = weights[-1]
    axis = end[:, :SIZE].mean(axis=1) - end[:, SIZE:].mean(axis=1)
    basis = np.linalg.qr(np.column_stack([axis, np.eye(SIZE)]))[0]
    basis[:, 0] *= np.sign(basis[:, 0] @ axis)
    return basis[:, [1, 2, 0]].T @ weights


def _directions(axes: Any, path: Any) -> None:
    """Features of the last snapshot of `path` as spokes, and the way of each."""
    axes.set_axis_off()
    for member in range(SETS * SIZE):
        color = SET_COLORS[member // SIZE]
        x, y, z = path[:, :, member].T
        axes.plot(x, y, z, color=color, linewidth=0.7, alpha=0.5)
        axes.plot([0, x[-1]], [0, y[-1]], [0, z[-1]], color=color, linewidth=1.6)
        axes.plot(x[-1:], y[-1:], z[-1:], "o", color=color, markersize=4)
    for own in range(SETS):
        around = [own * SIZE + member % SIZE for member in range(SIZE + 1)]
        axes.plot(*path[-1][:, around], color=SET_COLORS[own], linewidth=0.6, linestyle="--")
    axes.set(xlim=(-0.75, 0.75), ylim=(-0.75, 0.75), zlim=(-0.75, 0.75))
    axes.set_box_aspect((1, 1, 1), zoom=1.25)
    axes.view_init(elev=18, azim=35)


if __name__ == "__main__":
    experiment.main(__file__)
