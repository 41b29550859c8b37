r"""Regular polygons with one active feature: the ten minima, and plateaus of training.

Claim      The potential of six features in two dimensions has ten kinds of minima: polygons, each
           with some dead columns. Gradient descent rests on plateaus at the potentials of minima
           and saddles.
Reproduces Chen et al. (2023), "Dynamical versus Bayesian Phase Transitions in a Toy Model of
           Superposition": list of critical points, plateaus of training. For the posterior see
           `k_gon_posterior.py`.
Selection  None: every start and run is counted.
Command    toymodels run experiments/k_gons.py
"""

import dataclasses

import jax
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import expected_loss_one_active, k_gons

PAPER = tm.paper("Chen et al. (2023)")
LISTED = tm.paper("Chen et al. (2023), and toymodels.theory.k_gons")
NO_NUMBER = "Ours, because the paper gives no number."
FEATURES = 6
MINIMA = k_gons.minima(FEATURES)
CRITICAL = k_gons.critical_points(FEATURES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    starts: int = 1000
    """Random starts of the search for minima."""
    descent_steps: int = 3000
    num_seeds: int = 100
    steps: int = 100_000
    batch: int = 256
    learning_rate: float = 0.02


SMOKE = Config(starts=20, descent_steps=100, num_seeds=2, steps=400, batch=16)


def random_start(key):
    """Draw weights of many scales, because minima of few vertices are reached from small ones."""
    key_scale, key_weights, key_bias = jax.random.split(key, 3)
    scale = jax.random.uniform(key_scale)
    return {
        "weights": scale * jax.random.normal(key_weights, (2, FEATURES)),
        "bias": 0.1 * jax.random.normal(key_bias, (FEATURES,)),
    }


def run(config: Config) -> xr.Dataset:
    snapshots = tm.log_spaced(config.steps, 300)
    task = tm.Task(tm.OneActive(FEATURES))

    def descend(key):
        return k_gons.potential_below(**random_start(key), steps=config.descent_steps)

    def cell(key):
        key_start, key_data = jax.random.split(key)
        fitted = tm.fit(
            key_data,
            random_start(key_start),
            tm.task_loss(tm.ReLUOutput(hidden=2), task),
            task.features.sample,
            optimizer=optax.sgd(config.learning_rate),
            steps=config.steps,
            batch=config.batch,
            snapshots=snapshots,
        )
        visited = fitted.snapshots
        exact = jax.vmap(expected_loss_one_active, (0, 0, None))
        return {"potential": exact(visited["weights"], visited["bias"], 1.0)}

    results = tm.sweep(cell, num_seeds=config.num_seeds, dims={"potential": ("step",)})
    keys = jax.random.split(jax.random.key(0), config.starts)
    found = ("start", np.asarray(jax.jit(jax.vmap(descend))(keys)))
    return results.assign(found=found).assign_coords(step=list(snapshots))


def plateaus(step: np.ndarray, potential: np.ndarray) -> list[float]:
    """Return the mean potential wherever it stays within 1 % while the steps double.

    Plateaus begin after step 20, because one step and two are a doubling, too.
    """
    found: list[float] = []
    first, last = int(np.searchsorted(step, 20)), len(step) - 1
    while first < last:
        stretch = first
        while stretch < last:
            longer = potential[first : stretch + 2]
            if longer.max() > 1.01 * longer.min():
                break
            stretch += 1
        if step[stretch] >= 2 * step[first]:
            found.append(float(potential[first : stretch + 1].mean()))
            first = stretch
        first += 1
    return found


def chance(tolerance: float, listed: list[tuple[int, int]]) -> float:
    """Return the share of potentials, even in the logarithm, that are so near to a listed one."""
    even = np.geomspace(k_gons.potential(FEATURES, *MINIMA[0]), 1 / 3, 10_000)
    return float(np.mean(k_gons.nearest(FEATURES, even, listed).deviation < tolerance))


def claims(results: xr.Dataset) -> tm.Claims:
    kinds, deviations = k_gons.nearest(FEATURES, results.found, MINIMA)

    says = "Descents from random starts end in ten kinds of minima."
    yield tm.near(says, 10, len(set(kinds[deviations < 1e-4].tolist())), LISTED, within=0)

    says = "Descents from random starts end at the expected losses (potentials) of the ten known "
    says += "minima, measured by the largest relative deviation."
    threshold = "Ours, because of single precision and descents of finite length."
    yield tm.near(says, 0, deviations.max(), LISTED, within=1e-4, threshold=threshold)

    runs = results.potential.transpose("seed", "step").values
    found = [(height, run_[-1]) for run_ in runs for height in plateaus(results.step.values, run_)]
    heights, ends = np.array(found).reshape(-1, 2).T
    rests, distances = k_gons.nearest(FEATURES, heights, MINIMA)
    says = "Most plateaus of training are within 3 % of the expected loss (potential) of one of "
    says += f"the ten known minima, where {chance(0.03, MINIMA):.2f} of them would be by chance."
    share = np.mean(distances < 0.03) if heights.size else np.nan
    yield tm.at_least(says, 0.8, share, PAPER, threshold=NO_NUMBER)

    says = "Most plateaus that training leaves for one at least 3 % lower are within 1 % of a "
    says += f"critical point, minimum or saddle, where {chance(0.01, CRITICAL):.2f} would be by "
    says += "chance."
    left = k_gons.nearest(FEATURES, heights[heights > 1.03 * ends], CRITICAL).deviation
    share = np.mean(left < 0.01) if left.size else np.nan
    yield tm.at_least(says, 0.8, share, PAPER, threshold=NO_NUMBER)

    says = "Training rests at eight kinds of minima or more."
    number = len(set(rests[distances < 0.03].tolist()))
    threshold = "Ours, because a run may miss the rarest of ten."
    yield tm.at_least(says, 8, number, PAPER, threshold=threshold)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (top, bottom) = plotting.figure_of_parts(2, 1, size=(9, 7.4), height_ratios=(1, 0.9))
    found = k_gons.nearest(FEATURES, results.found, MINIMA).place
    for number, axes in enumerate(top.subplots(2, 5).flat):
        draw_minimum(axes, *MINIMA[number], starts=np.sum(found == number))
    top.suptitle(
        f"Ten minima, and how many of {found.size} random starts end there (dead columns: + of "
        "bias 1/12, - silent)",
        fontsize=10,
    )
    draw_runs(bottom.subplots(), results)
    return figure


def draw_minimum(axes: plotting.Axes, vertices: int, positive: int, *, starts: int) -> None:
    model = k_gons.configuration(FEATURES, vertices, positive, dead_bias=-0.5)
    plotting.spokes(axes, model.weights[:, :vertices], limit=1.9)
    dead = " ".join("+" * positive + "-" * (FEATURES - vertices - positive))
    axes.text(0, -1.7, dead, ha="center", va="center", color="C1", fontsize=11)
    exact = k_gons.potential(FEATURES, vertices, positive)
    name = f"{vertices}{'+' * positive}"
    axes.set_title(f"{name}: H = {exact:.4f}\n{starts} starts", fontsize=9)


def draw_runs(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the potential of every run, coloured by the polygon of the minimum nearest its end."""
    runs = results.potential.transpose("step", "seed")
    ends = k_gons.nearest(FEATURES, runs[-1], MINIMA).place
    vertices = np.array([vertices for vertices, _ in MINIMA])[ends]
    for number, color, label in (
        (6, "C0", "ends as a hexagon"),
        (5, "C1", "ends as a pentagon"),
        (4, "C2", "ends as a square"),
        (3, "0.4", "ends with fewer vertices"),
    ):
        these = runs[:, vertices == number if number > 3 else vertices <= 3]
        if these.size:
            axes.plot(runs.step + 1, these, color=color, lw=0.4, aa=False, rasterized=True)
            axes.plot([], [], color=color, label=label)
    for minimum in MINIMA:
        axes.axhline(k_gons.potential(FEATURES, *minimum), color="k", linewidth=0.4)
    axes.set(
        xlabel="step + 1",
        ylabel="potential H (sum of outputs)",
        xscale="log",
        yscale="log",
        ylim=(0.045, 0.6),
        title=f"{runs.sizes['seed']} runs of gradient descent rest near minima (black lines)",
    )
    plotting.plain_ticks(axes, "y", (0.05, 0.1, 0.2, 0.3, 0.5))
    axes.legend(loc="upper right", frameon=True, framealpha=1, edgecolor="none")


if __name__ == "__main__":
    experiment.main(__file__)
