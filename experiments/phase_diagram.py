"""The phase diagram of two features in one dimension: when is a second feature worth a direction?

Claim      Over density and relative importance, the second feature of trained models passes
           between three phases: not represented, dedicated dimension and antipodal superposition.
           The phase changes close to where closed-form losses cross, and exactly where that of the
           free optimum changes, which is the lowest minimum of the exact expected loss over all
           weights and biases. The norm jumps there, so the transition is of first order.
Reproduces Elhage et al. (2022), "Superposition as a Phase Change", the n=2, m=1 figure; three
           features are in `phase_diagram_three_features.py`.
Selection  The best of 20 seeds (claims 1 and 2: of 10) by the exact expected loss of their
           weights; all cells of a seed share its start. The paper averages the best nine of ten.
           The free optimum is the lowest of 8 random and 3 structured starts.
Command    toymodels run experiments/phase_diagram.py
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.analysis import phases as measured
from toymodels.theory import phases as theory

PAPER = tm.paper("Elhage et al. (2022), Superposition as a Phase Change")
PIXELS = tm.paper(f"{PAPER.text}, its figure of trained models, read by pixel")
FREE = tm.prediction("toymodels.theory.free_optimum")
KNOWN = tm.prediction("toymodels.theory.phases.FREE_OPTIMUM_BOUNDARY")
TRIAL = tm.finding("A trial with these settings and another start gave 0.82")
OPTIMUM_EDGE = theory.FREE_OPTIMUM_BOUNDARY
PAPER_EDGE = {
    **{0.1: 0.175, 0.15: 0.245, 0.2: 0.302, 0.3: 0.381, 0.5: 0.486, 0.7: 0.566, 1.0: 0.673},
    **{1.5: 0.546, 2.0: 0.481, 3.0: 0.390, 5.0: 0.278, 7.0: 0.215, 10.0: 0.163},
}
"""The density at which superposition ends in the paper's trained figure, read by pixel."""
ASYMMETRIC = (
    "Exchanging the two features maps r to 1/r, so the optimum ends at one density for both. The "
    "figure's boundary does not: it is within 5 % of the optimum at r < 1, and lower by up to 10 % "
    "at r of 7 and 10."
)
AVERAGE = (
    "Only about half of all starts have the signs of an antipodal pair, and with the others the "
    "mean hardly reaches one half. How the paper's models started is not known."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    grid: int = 64
    """The number of cells along each axis, evenly spaced in the logarithm."""
    densities: tuple[float, float] = (0.01, 1.0)
    importances: tuple[float, float] = (0.1, 10.0)
    num_seeds: int = 20
    """Many are needed: only about half of all starts have the signs of an antipodal pair."""
    training: tm.Recipe = tm.Recipe(steps=2000, batch=1024, learning_rate=1e-2)
    num_starts: int = 8
    """The number of random starts of the free optimum in every cell."""


SHORT = tm.Recipe(steps=200, batch=128, learning_rate=1e-2)
SMOKE = Config(grid=4, num_seeds=2, training=SHORT, num_starts=1)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    axes = {
        "density": np.geomspace(*config.densities, config.grid),
        "importance": np.geomspace(*config.importances, config.grid),
    }
    dims = {"weights": ("hidden", "feature"), "bias": ("feature",)}

    def trained(key, *, density, importance):
        importances = tm.geometric_importance(2, importance)
        task = tm.Task(tm.SparseUniform(2, density), importance=importances)
        return read(**config.training.train(key, tm.ReLUOutput(hidden=1), task).params)

    def free(key, *, density, importance):
        world = jnp.full(2, density), jnp.stack([1.0, importance])
        lowest = tm.theory.free_optimum(key, 1, *world, num_random=config.num_starts)
        return {"loss": lowest.loss, **read(lowest.weights, lowest.bias)}

    results = tm.sweep(trained, axes=axes, num_seeds=config.num_seeds, dims=dims, store=store)
    results["loss"] = tm.apply(
        lambda w, b, p, r: tm.theory.expected_loss(w, b, p, jnp.stack([1.0, r])),
        *(results.weights, results.bias, results.density, results.importance),
        float64=True,
    ).assign_attrs(units="exact, summed over outputs")
    with jax.enable_x64(True):
        optimum = tm.sweep(free, axes=axes, num_seeds=1, dims=dims, store=store)
    optimum = optimum.isel(seed=0, drop=True)
    return results.assign({f"free_{name}": values for name, values in optimum.items()})


def read(weights, bias):
    """Return what the figure shows of one model."""
    return {
        "weights": weights,
        "bias": bias,
        "norm": jnp.abs(weights[0, -1]),
        "superposition": geometry.superposition(weights)[-1],
        "phase": measured.phase(weights),
    }


def last_density(inside: xr.DataArray) -> xr.DataArray:
    """Return the density half way from the largest that is inside to the next."""
    log_density = np.log(inside.density)
    step = float(log_density[1] - log_density[0])
    return np.exp(log_density.where(inside).max("density") + step / 2)


def from_paper(found: xr.DataArray, low: float, high: float) -> float:
    """Return the largest relative deviation of a boundary from the paper's figure."""
    paper = {r: density for r, density in PAPER_EDGE.items() if low <= r <= high}
    ours = np.interp(np.log([*paper]), np.log(found.importance), np.log(found))
    return float(abs(np.exp(ours) / [*paper.values()] - 1).max())


def claims(results: xr.Dataset) -> tm.Claims:
    best, which = tm.best_of(results, "loss"), f"best of {results.sizes['seed']} seeds"
    closed = tm.apply(theory.phase, results.density, results.importance, model_dims=())
    agrees = tm.best_of(results.isel(seed=slice(10)), "loss").phase == closed
    ratio = results.density / tm.apply(theory.boundary, results.importance, model_dims=())
    far = abs(np.log(ratio)) > np.log(1.15)

    says = "The best of ten seeds is in the phase of the lowest closed-form loss, measured by the "
    says += "share of cells."
    edge = "Ours, because cells beside the boundary, where the closed form is not the optimum, are "
    edge += "2 to 3 % of all."
    yield tm.at_least(says, 0.97, agrees.mean(), PAPER, threshold=edge)
    says = "The best of ten seeds is in the phase of the lowest closed-form loss, measured by the "
    says += "share of the cells that are more than a factor 1.15 in density from the boundary."
    cell = "Ours, because it is a cell in 200."
    yield tm.at_least(says, 0.995, agrees.where(far).mean(), PAPER, threshold=cell)
    says = "One seed is often in a local minimum, so that it is in the phase of the lowest "
    says += "closed-form loss in 82 % of all cells, in the mean over seeds."
    spread = "Ours, because the trial was not recorded, and starts move it by more than that."
    starts = "It depends on the start: 0.63 to 0.75 for five kinds of start, seeds 0-9. Cells of a "
    starts += "seed share their start, so few starts decide it for the whole diagram."
    share = (results.phase == closed).mean()
    yield tm.near(says, 0.82, share, TRIAL, within=0.04, threshold=spread, note=starts)

    trained = last_density(best.phase == theory.Phase.SUPERPOSITION)
    says = f"Superposition of the {which} ends at the density where it ends in the free optimum, "
    says += f"at relative importances from {min(OPTIMUM_EDGE):g} to {max(OPTIMUM_EDGE):g}, "
    says += "measured by the largest relative difference."
    off = [trained.sel(importance=r, method="nearest") / p - 1 for r, p in OPTIMUM_EDGE.items()]
    cells = "Ours, because a cell is 7.6 % of density, and the nearest importance is up to half a "
    cells += "cell away."
    yield tm.near(says, 0, np.max(np.abs(off)), KNOWN, within=0.075, threshold=cells)

    # The figure is red where both are large; a feature of almost no length has superposition, too.
    nine = tm.mean_without_worst(results[["norm", "superposition", "loss"]], "loss", of=10)
    averaged = last_density((nine.norm >= 1 / 2) & (nine.superposition >= 1 / 2))
    mean = "mean of nine of ten models, the paper's selection,"
    reading = "Ours, because half a cell of 7.6 % in density is added to as much for reading."
    for who, found, note in ((which, trained, ASYMMETRIC), (mean, averaged, AVERAGE)):
        for side, low, high in (("up to 1", 0.1, 1.0), ("above 1", 1.1, 10.0)):
            says = f"Superposition of the {who} ends at the density where it ends in the paper's "
            says += f"figure of trained models, at relative importances {side}, measured by the "
            says += "largest relative difference."
            off = from_paper(found, low, high)
            yield tm.near(says, 0, off, PIXELS, within=0.075, threshold=reading, note=note)

    says = f"The {which} is in the phase of the free optimum in nearly all cells, measured by "
    says += "their share."
    same = (best.phase == best.free_phase).mean()
    yield tm.at_least(says, 0.99, same, FREE, threshold="Ours, because it is a cell in 100.")
    gap = best.loss / best.free_loss - 1
    says = f"The exact loss of the {which} is hardly above that of the free optimum, measured by "
    says += "the relative difference "
    small = "Ours, because annealed training should be as near as its last steps are small."
    median = f"{says}in the median over cells."
    yield tm.at_most(median, 5e-4, gap.median(), FREE, threshold=small)
    other = "Ours, because one cell in 100 may be in another minimum."
    most = f"{says}at the 99th percentile of cells."
    yield tm.at_most(most, 0.01, gap.quantile(0.99), FREE, threshold=other)
    says = "No exact loss of a trained model is below that of the free optimum: the smallest "
    says += "relative difference of all seeds and cells is not negative."
    least, bound = (results.loss / results.free_loss).min() - 1, tm.identity(FREE.text)
    yield tm.at_least(says, 0, least, bound, slack=1e-9, threshold="Ours, because of rounding.")

    says = f"The transition of the {which} is of first order: its norm jumps between neighbouring "
    says += "densities at relative importance 1/2 by more than a half."
    step = abs(best.norm.sel(importance=0.5, method="nearest").diff("density")).max()
    jump = "Ours, because more than half of the norm is a jump; the closed forms say 1."
    yield tm.at_least(says, 0.5, step, PAPER, threshold=jump)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, ((first, second, third), (fourth, fifth, last)) = plotting.figure(2, 3, size=(9, 6.4))
    best, one, number = tm.best_of(results, "loss"), results.isel(seed=0), results.sizes["seed"]
    for axes, norm, superposition, title in (
        (first, best.norm, best.superposition, f"trained: best of {number} seeds"),
        (second, results.free_norm, results.free_superposition, "theory: lowest exact loss"),
        (fourth, one.norm, one.superposition, "one start for all cells\nis not enough"),
    ):
        colors = plotting.norm_and_superposition(norm, superposition)
        plotting.log_image(axes, colors, x="importance", y="density")
        axes.set(title=title, xlabel="relative importance $r$")
    first.text(0.11, 0.55, "not\nrepresented", color="0.2", fontsize=8)
    first.text(9, 0.55, "dedicated\ndimension", color="white", ha="right", fontsize=8)
    first.text(1, 0.05, "antipodal superposition", color="white", ha="center")

    r = xr.DataArray(np.geomspace(0.1, 10, 200), dims="r")
    third.loglog(r, tm.apply(theory.boundary, r, model_dims=()), color="0.6", label="closed forms")
    trained = last_density(best.phase == theory.Phase.SUPERPOSITION)
    third.loglog(best.importance, trained, "o", color="C3", markersize=3, label="trained")
    third.loglog(*zip(*OPTIMUM_EDGE.items(), strict=True), "k+", markersize=6, label="lowest loss")
    plotting.plain_ticks(third, "x")
    plotting.plain_ticks(third, "y")
    third.set(xlabel="relative importance $r$", ylabel=plotting.DENSITY)
    third.set(title="where superposition ends")
    third.legend()

    half = {"importance": 0.5, "method": "nearest"}
    how = {"chosen": best.norm.sel(**half), "choice": f"best of {number}", "legend": False}
    plotting.every_seed(fifth, results.norm.sel(**half), x="density", **how)
    exact = results.free_norm.sel(**half)
    fifth.plot(results.density, exact, "--", color="black", linewidth=1, label="theory")
    plotting.density_axis(fifth)
    fifth.set(ylabel="norm of the second feature", title="the norm jumps\n($r = 1/2$)")
    fifth.legend(loc="center left")
    plotting.norm_and_superposition_legend(last)
    last.set_title("what the colours mean")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
