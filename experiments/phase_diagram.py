"""When is a second feature worth a direction? The phase diagram of two features in one dimension.

Claim      Over density and relative importance, the trained optimum passes between three
           phases, not represented, dedicated dimension and antipodal superposition, close to
           where closed-form losses cross and exactly where the free optimum changes: the lowest
           minimum of the exact expected loss over all weights and biases. The norm jumps there:
           a first-order transition.
Reproduces Elhage et al. (2022), "Superposition as a Phase Change", the n=2, m=1 figure; three
           features are in `phase_diagram_three_features.py`.
Selection  The best of 20 seeds (claims 1 and 2: of 10) by the exact expected loss of their
           weights. The paper averages the best nine of ten; one seed is shown, too. The free
           optimum is the lowest of 8 random and 3 structured starts.
Command    toymodels run experiments/phase_diagram.py
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.analysis import phases as measured
from toymodels.theory import phases as theory

PAPER_SECTION = "Elhage et al. (2022), Superposition as a Phase Change"
PAPER_BOUNDARY = {
    **{0.1: 0.175, 0.15: 0.245, 0.2: 0.302, 0.3: 0.381, 0.5: 0.486, 0.7: 0.566, 1.0: 0.673},
    **{1.5: 0.546, 2.0: 0.481, 3.0: 0.390, 5.0: 0.278, 7.0: 0.215, 10.0: 0.163},
}
"""Where superposition ends in the paper's trained figure: importance to density, read by pixel."""
NOTE_ASYMMETRIC = (
    "Exchanging the two features maps r to 1/r, so the optimum ends at one density for both. The "
    "figure's boundary does not: it is within 5 % of the optimum at r < 1, and lower by up to 10 % "
    "at r of 7 and 10."
)
NOTE_AVERAGE = (
    "Only about half of all starts have the signs of an antipodal pair, and with the others the "
    "mean hardly reaches one half. How the paper's models started is not known."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    grid: int = 64
    """Cells along each axis, evenly spaced in the logarithm."""
    densities: tuple[float, float] = (0.01, 1.0)
    importances: tuple[float, float] = (0.1, 10.0)
    num_seeds: int = 20
    """Many: only about half of all starts have the signs of an antipodal pair, and the cells of
    a seed share its start."""
    steps: int = 2000
    batch: int = 1024
    learning_rate: float = 1e-2
    """The learning rate at the start of a cosine schedule."""
    num_starts: int = 8
    """Random ones, from which the exact loss is minimised in every cell."""


SMOKE = Config(grid=6, num_seeds=2, steps=200, batch=128, num_starts=1)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    axes: Any = {
        "density": np.geomspace(*config.densities, config.grid),
        "importance": np.geomspace(*config.importances, config.grid),
    }
    dims = {"weights": ("hidden", "feature"), "bias": ("feature",)}

    def cell(key: Any, *, density: Any, importance: Any) -> dict[str, Any]:
        task = tm.Task(
            tm.SparseUniform(2, density), importance=tm.geometric_importance(2, importance)
        )
        trained = tm.train(
            key,
            tm.ReLUOutput(hidden=1),
            task,
            optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps)),
            steps=config.steps,
            batch=config.batch,
        )
        return read(trained.params["weights"], trained.params["bias"])

    def free_cell(key: Any, *, density: Any, importance: Any) -> dict[str, Any]:
        numbers = jnp.full(2, density), jnp.stack([1.0, importance])
        lowest = tm.theory.free_optimum(key, 1, *numbers, num_random=config.num_starts)
        return {"loss": lowest.loss, **read(lowest.weights, lowest.bias)}

    trained = tm.sweep(cell, axes=axes, num_seeds=config.num_seeds, dims=dims, store=store)
    with jax.enable_x64(True):
        free = tm.sweep(free_cell, axes=axes, num_seeds=1, dims=dims, store=store)
        each = jax.vmap(tm.theory.expected_loss, (0, 0, None, None))
        over_grid = jax.jit(jax.vmap(jax.vmap(each, (0, 0, None, 0)), (0, 0, 0, None)))
        losses = over_grid(
            *(np.asarray(trained[name].transpose("density", "importance", "seed", ...), float)
              for name in ("weights", "bias")),
            axes["density"],
            np.stack([np.ones(config.grid), axes["importance"]], axis=1),
        )  # fmt: skip
    trained["loss"] = ("density", "importance", "seed"), np.asarray(losses)
    trained["loss"].attrs["units"] = "exact, summed over outputs"
    free = free.isel(seed=0, drop=True)
    return trained.assign({f"free_{name}": values for name, values in free.items()})


def read(weights: Any, bias: Any) -> dict[str, Any]:
    """What the figure shows of one model."""
    return {
        "weights": weights,
        "bias": bias,
        "norm": jnp.abs(weights[0, -1]),
        "superposition": geometry.superposition(weights)[-1],
        "phase": measured.phase(weights),
    }


def closed_form(results: xr.Dataset) -> xr.DataArray:
    """The phase of the lowest closed-form loss in every cell."""
    over_grid = jax.vmap(jax.vmap(theory.phase, (None, 0)), (0, None))
    return xr.DataArray(
        np.asarray(over_grid(results.density.values, results.importance.values)),
        dims=("density", "importance"),
        coords={"density": results.density, "importance": results.importance},
    )


def boundary(phase: xr.DataArray) -> xr.DataArray:
    """Where superposition ends: half way to the next density, for every importance."""
    return last_density(phase == theory.Phase.SUPERPOSITION)


def last_density(inside: xr.DataArray) -> xr.DataArray:
    """Half way from the greatest density that is inside to the next, for every importance."""
    log_density = np.log(inside.density)
    step = float(log_density[1] - log_density[0])
    return np.exp(log_density.where(inside).max("density") + step / 2)


def mean_of_nine(results: xr.Dataset) -> xr.Dataset:
    """Norm and superposition as the paper averages them.

    Ten models in every cell, less the one of the highest loss. The ten are a random choice from
    all seeds, so that cells do not share their starts; the paper's do not, either.
    """
    chance = np.random.default_rng(0)
    loss = results["loss"].transpose("density", "importance", "seed")
    number = min(10, loss.sizes["seed"])
    chosen = chance.permuted(np.broadcast_to(results.seed.values, loss.shape), axis=2)[..., :number]
    chosen = xr.DataArray(chosen, dims=("density", "importance", "one_of_ten"))
    ten = results[["norm", "superposition", "loss"]].sel(seed=chosen)
    return ten.where(ten["loss"] < ten["loss"].max("one_of_ten")).mean("one_of_ten")


def from_paper(found: xr.DataArray, low: float, high: float) -> float:
    """Largest relative deviation of a boundary from the paper's figure between importances."""
    paper = {r: density for r, density in PAPER_BOUNDARY.items() if low <= r <= high}
    ours = np.interp(np.log([*paper]), np.log(found.importance), np.log(found))
    return float(abs(np.exp(ours) / [*paper.values()] - 1).max())


def claims(results: xr.Dataset) -> list[tm.Claim]:
    best_of_ten = tm.best_of(results.isel(seed=slice(10)), "loss")
    expected = closed_form(results)
    agrees = best_of_ten["phase"] == expected
    edge = jax.vmap(theory.boundary)(results.importance.values)
    ratio = best_of_ten.density / xr.DataArray(np.asarray(edge), dims="importance")
    far = np.abs(np.log(ratio)) > np.log(1.15)
    best = tm.best_of(results, "loss")
    trained = boundary(best["phase"])
    optimum = theory.FREE_OPTIMUM_BOUNDARY
    deviations = [
        float(trained.sel(importance=importance, method="nearest")) / density - 1
        for importance, density in optimum.items()
    ]
    nine = mean_of_nine(results)
    # The figure is red where both are large; a feature of almost no length has superposition, too.
    averaged = last_density((nine["norm"] >= 1 / 2) & (nine["superposition"] >= 1 / 2))
    norm = best["norm"].sel(importance=0.5, method="nearest")
    gap = best["loss"] / best["free_loss"] - 1
    as_free = float((best["phase"] == best["free_phase"]).mean())
    num_seeds = results.sizes["seed"]
    return [
        tm.Claim(
            "the best of ten seeds agrees with the closed-form diagram, share of all cells",
            PAPER_SECTION,
            expected=0.97,
            measured=float(agrees.mean()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PAPER,
            threshold="ours: cells beside the boundary, where the closed form is not the "
            "optimum, are 2 to 3 % of all",
        ),
        tm.Claim(
            "the same, for cells more than a factor 1.15 in density from the boundary",
            PAPER_SECTION,
            expected=0.995,
            measured=float(agrees.where(far).mean()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PAPER,
            threshold="ours: a cell in 200",
        ),
        tm.Claim(
            "one seed is not enough, for it is often in a local minimum: its agreement with the "
            "closed-form diagram, mean over seeds",
            "a trial with these settings and another start, which gave 0.82",
            expected=0.82,
            measured=float((results["phase"] == expected).mean()),
            tolerance=0.04,
            note="It depends on the start: 0.63 to 0.75 for five kinds of start, seeds 0-9. Cells "
            "of a seed share their start, so few starts decide it for the whole diagram.",
            kind=tm.Kind.FINDING,
            threshold="ours: the trial was not recorded, and starts move it by more than that",
        ),
        tm.Claim(
            f"the boundary of the best of {num_seeds} is that of the exact free "
            "optimum: largest relative deviation in density over importances "
            f"{min(optimum):g} to {max(optimum):g}",
            "toymodels.theory.phases.FREE_OPTIMUM_BOUNDARY",
            expected=0.0,
            measured=float(np.max(np.abs(deviations))),
            # A cell is 7.6 % of density; the nearest importance, half a cell away, moves the
            # boundary by up to 3.7 %; half a cell of density is 3.7 %.
            tolerance=0.075,
            kind=tm.Kind.PREDICTION,
            threshold="ours: a cell is 7.6 % of density, and the nearest importance is up to "
            "half a cell away",
        ),
        *(
            tm.Claim(
                f"In the paper's own trained figure superposition ends where it does in {selection}"
                f", at relative importances {side}: largest relative deviation in density.",
                f"{PAPER_SECTION}, its figure of trained models, read by pixel",
                expected=0.0,
                measured=from_paper(found, low, high),
                tolerance=0.075,
                kind=tm.Kind.PAPER,
                threshold="ours: half a cell of 7.6 % in density and as much for reading",
                note=note,
            )
            for selection, found, note in (
                (f"the best of {num_seeds} seeds", trained, NOTE_ASYMMETRIC),
                ("the mean of nine of ten models, the paper's selection", averaged, NOTE_AVERAGE),
            )
            for side, low, high in (("up to 1", 0.1, 1.0), ("above 1", 1.1, 10.0))
        ),
        tm.Claim(
            f"the phase of the best of {num_seeds} is that of the exact free optimum, share of "
            "all cells",
            "toymodels.theory.free_optimum",
            expected=0.99,
            measured=as_free,
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: a cell in 100",
        ),
        tm.Claim(
            f"exact loss of the best of {num_seeds} above the free optimum, median over cells",
            "toymodels.theory.free_optimum",
            expected=5e-4,
            measured=float(gap.median()),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: annealed training should be as near as its last steps are small",
        ),
        tm.Claim(
            f"exact loss of the best of {num_seeds} above the free optimum, 99th percentile",
            "toymodels.theory.free_optimum",
            expected=0.01,
            measured=float(gap.quantile(0.99)),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: one cell in 100 may be in another minimum",
        ),
        tm.Claim(
            "no trained model is below the free optimum; least relative difference of all seeds",
            "toymodels.theory.free_optimum",
            expected=0.0,
            measured=float((results["loss"] / results["free_loss"]).min()) - 1,
            tolerance=1e-9,
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        tm.Claim(
            "first order: the largest step of the norm between neighbouring densities, at "
            "relative importance 1/2",
            PAPER_SECTION,
            expected=0.5,
            measured=float(np.abs(norm.diff("density")).max()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PAPER,
            threshold="ours: a jump is more than half of the norm, the closed forms say 1",
        ),
    ]


def plot(results: xr.Dataset) -> Figure:
    best = tm.best_of(results, "loss")
    figure, grid = plotting.figure(2, 4, size=(12.8, 6.2))
    free = results["free_phase"]
    expected = closed_form(results)
    shares = [float((part == free).mean()) for part in (best["phase"], expected, results["phase"])]
    one = results.sel(seed=0)
    shown = (
        (
            grid[0, 0],
            plotting.norm_and_superposition(best["norm"], best["superposition"]),
            f"trained, best of {results.sizes['seed']}\n{shares[0]:.1%} as the free optimum",
        ),
        (
            grid[0, 1],
            plotting.norm_and_superposition(results["free_norm"], results["free_superposition"]),
            "free optimum:\nlowest exact loss of all W, b",
        ),
        (
            grid[0, 2],
            plotting.phase_colors(expected),
            f"closed forms of three solutions\n{shares[1]:.1%} as the free optimum",
        ),
        (
            grid[1, 0],
            plotting.norm_and_superposition(one["norm"], one["superposition"]),
            f"trained, one seed\n{shares[2]:.1%} (mean of seeds)",
        ),
    )
    for axes, colors, title in shown:
        plotting.log_image(axes, colors, x="importance", y="density")
        axes.set(title=title, xlabel="relative importance r", ylabel="density 1 - S")
    plotting.norm_and_superposition_legend(grid[0, 3])

    axes = grid[1, 1]
    gap = 100 * (best["loss"] / best["free_loss"] - 1)
    shown = gap.clip(1e-4)
    scale = LogNorm(1e-4, 10)
    image = plotting.log_image(axes, shown, x="importance", y="density", cmap="magma_r", norm=scale)
    figure.colorbar(image, ax=axes, label="relative excess, %", extend="both")
    axes.set(
        xlabel="relative importance r",
        ylabel="density 1 - S",
        title=f"best above the free optimum\nmedian {float(gap.median()):.2g} %, "
        f"99th percentile {float(gap.quantile(0.99)):.2g} %",
    )

    axes = grid[1, 2]
    importances = np.geomspace(0.1, 10, 200)
    axes.loglog(
        importances,
        jax.vmap(theory.boundary)(jnp.asarray(importances)),
        color="0.6",
        label="closed forms",
    )
    axes.loglog(results.importance, boundary(best["phase"]), ".", color="C3", ms=3, label="trained")
    optimum = theory.FREE_OPTIMUM_BOUNDARY
    axes.loglog(list(optimum), list(optimum.values()), "k+", ms=5, label="free optimum")
    axes.set(xlabel="relative importance r", ylabel="density where superposition ends")
    axes.legend()

    axes = grid[1, 3]
    column = results.sel(importance=0.5, method="nearest")
    axes.semilogx(
        results.density,
        column["norm"].transpose("density", "seed"),
        ".",
        color="0.75",
        ms=3,
        rasterized=True,
    )
    axes.semilogx(results.density, column["free_norm"], color="k", label="free optimum")
    chosen = best["norm"].sel(importance=0.5, method="nearest")
    axes.semilogx(results.density, chosen, ".", color="C3", ms=4, label="best seed")
    axes.set(xlabel="density 1 - S", ylabel="norm of the second feature", title="r = 1/2: a jump")
    axes.plot([], [], ".", color="0.75", label="every seed")
    axes.legend()
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
