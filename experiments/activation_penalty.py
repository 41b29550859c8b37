r"""Does a penalty on activations remove superposition? Loss and features against its strength.

Claim      "It's actually quite easy to get rid of superposition in the toy models [...] albeit at
           the cost of a higher loss. Simply [...] add $\lambda \lVert h \rVert_1$ to the loss. This
           actually has a nice interpretation in terms of killing features below a certain
           importance threshold, especially if they're not basis aligned."
Reproduces Elhage et al. (2022), "Three Ways Out"; the paper shows no figure. n = 20, m = 5 and
           importances 0.7^i as in "Demonstrating Superposition", and equal ones, among which no
           threshold tells; linear hidden units, and ReLU ones.
Theory     A feature alone on an axis, with the best bias, has the objective
           $I v (1 - w^2)^2 + \lambda w p / 2$ with $v = p/3 - p^2/4$. The penalty shortens it,
           $w (1 - w^2) = \lambda p / (8 I v)$, until at $\lambda_c = (8/3) \sqrt{2/3}\, I v / p$,
           $w = \sqrt{2/3}$, it is not worth having; it stays a local minimum up to $\sqrt 2$ times
           that. A pair on one axis costs less than two such features do, for where both are
           present they cancel: the penalty asks for few features on the axes, not for one on each.
Found      Linear units: features go by importance, and superposition with the last that are more
           than dimensions; among equals it stays as long as anything does. ReLU units have no pairs
           and give up superposition earlier, five features left, also among equals. That is the
           best of the seeds: many others of linear units keep a pair beside an empty dimension.
Selection  Lines: the lowest objective of 6 seeds on 65,536 fresh examples, the same for all; dots:
           every seed. Represented: norm above 1/2. The features measured are what each leaves in
           the hidden layer when alone, ReLU(W_i) for ReLU units, which dropped ones only inhibit.
Settings   Ours: density 0.1; Adam from 3e-3 down a cosine, 2000 steps without the penalty and then
           2000 with it: if it is there from the start, hidden dimensions die while weights are
           small, and pairs stay in those that are left.
Command    toymodels run experiments/activation_penalty.py
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import lax
from matplotlib.figure import Figure
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry

SOURCE = "Elhage et al. (2022), Three Ways Out"


class World(NamedTuple):
    """Hidden units and importances."""

    units: str
    ratio: float

    def __str__(self) -> str:
        return f"{self.units} units, " + (
            "equal importance" if self.ratio == 1 else f"importance {self.ratio:g}^i"
        )


COLORS = ("C0", "C2", "C3", "C1")
NOTE_PAIRS = (
    "Exact: a pair on one axis is worth its penalty for slightly longer than a feature alone, so "
    "among features of equal importance no penalty favours dimensions of their own. Superposition "
    "goes when everything does, and in training later, for pairs stay a local minimum. ReLU units "
    "cannot store pairs: there, a feature for each dimension is left."
)
NOTE_STEPS = (
    "Seeds that are stuck with 18 or 19 features at no penalty leave for better packings of 16 at "
    "small ones; the best of all seeds only rises."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 20
    hidden: int = 5
    importance_ratios: tuple[float, ...] = (0.7, 1.0)
    density: float = 0.1
    penalties: tuple[float, ...] = (
        0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0,
    )  # fmt: skip
    num_seeds: int = 6
    steps: int = 2000
    """Without the penalty, and again with it."""
    batch: int = 1024
    evaluation: int = 65_536
    learning_rate: float = 3e-3
    """At the start of each cosine schedule."""


SMOKE = Config(penalties=(0.0, 0.3, 1.0), num_seeds=2, steps=20, batch=32, evaluation=256)


def run(config: Config) -> xr.Dataset:
    models = {"linear": tm.ReLUOutput(config.hidden), "ReLU": tm.ReLUHidden(config.hidden)}
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    features = tm.SparseUniform(config.num_features, config.density)
    alone = np.eye(config.num_features, dtype=np.float32)

    def cell(key: Any, *, units: Any, importance_ratio: Any, penalty: Any) -> dict[str, Any]:
        importance = tm.geometric_importance(config.num_features, importance_ratio)
        task_loss = tm.task_loss(units, tm.Task(features, importance=importance))

        def hidden(params: Any, x: Any) -> Any:
            return tm.activations(units, params, x)["hidden"]

        def penalised(penalty: Any) -> Any:
            return lambda params, x: (
                task_loss(params, x) + penalty * jnp.sum(jnp.abs(hidden(params, x)))
            )

        def stage(params: Any, numbers: Any) -> Any:
            key, penalty = numbers
            fitted = tm.fit(
                key,
                params,
                penalised(penalty),
                features.sample,
                optimizer=optax.adam(schedule),
                steps=config.steps,
                batch=config.batch,
            )
            return fitted.params, None

        key_start, key_data = jax.random.split(key)
        params = units.init(key_start, jnp.zeros(config.num_features))["params"]
        stages = jax.random.split(key_data), penalty * jnp.arange(2.0)
        params, _ = lax.scan(stage, params, stages)
        loss, objective = (
            tm.evaluate(
                jax.random.key(2022),
                params,
                penalised(charged),
                features.sample,
                batch=config.batch,
                examples=config.evaluation,
            )
            for charged in (0.0, penalty)
        )
        codes = jax.vmap(lambda x: hidden(params, x))(jnp.asarray(alone)).T
        return {"loss": loss, "objective": objective, **measured(codes)}

    results = tm.sweep(
        cell,
        axes={"importance_ratio": config.importance_ratios, "penalty": config.penalties},
        static={"units": models},
        num_seeds=config.num_seeds,
        dims={"norm": ("feature",)},
        units={"loss": "summed over outputs, without the penalty"},
    )
    return results.assign_attrs(density=config.density, hidden=config.hidden)


def measured(codes: Any) -> dict[str, Any]:
    """Superposition of what each feature leaves in the hidden layer, one per column."""
    norm = geometry.feature_norms(codes)
    represented = norm > 0.5
    count = jnp.maximum(jnp.sum(represented), 1)

    def mean(values: Any) -> Any:
        return jnp.sum(jnp.where(represented, values, 0.0)) / count

    return {
        "norm": norm,
        "represented": jnp.sum(represented),
        "superposition": mean(geometry.superposition(codes)),
        "features_per_dimension": 1 / geometry.dimensions_per_feature(codes),
        "alignment": mean(jnp.max(jnp.abs(codes), axis=0) / jnp.maximum(norm, 1e-20)),
    }


def variance(density: float) -> float:
    """Of a feature: its loss if it is dropped and the bias is its mean."""
    return density / 3 - density**2 / 4


def threshold(importance: Any, density: float) -> Any:
    r"""$\lambda_c$: the penalty from which on a feature is not worth an axis of its own."""
    return 8 / 3 * (2 / 3) ** 0.5 * importance * variance(density) / density


def dedicated(importance: Any, penalty: Any, density: float) -> tuple[Any, Any]:
    """Loss and objective of one feature: alone on an axis while that is worth it, else dropped."""
    full = importance * variance(density)
    kept = penalty < threshold(importance, density)
    pull = np.where(kept, penalty * density / (8 * full), 0.0)
    norm = 2 / 3**0.5 * np.cos(np.arccos(-1.5 * 3**0.5 * pull) / 3)  # largest root of w - w^3
    loss = np.where(kept, full * (1 - norm**2) ** 2, full)
    return loss, loss + np.where(kept, penalty * norm * density / 2, 0.0)


def without_superposition(results: xr.Dataset, world: World, penalty: Any) -> tuple[Any, Any]:
    """Loss and objective of the best model of linear units that has no superposition, exactly."""
    importance = importances(results, world)
    hidden, density = results.attrs["hidden"], results.attrs["density"]
    rest = importance[hidden:].sum() * variance(density)
    parts = dedicated(importance[:hidden, None], np.asarray(penalty), density)
    return tuple(part.sum(axis=0) + rest for part in parts)


def importances(results: xr.Dataset, world: World) -> Any:
    return world.ratio ** np.arange(results.sizes["feature"])


def worlds(results: xr.Dataset) -> list[World]:
    pairs = itertools.product(results.units.values, results.importance_ratio.values)
    return [World(str(units), float(ratio)) for units, ratio in pairs]


def of(results: xr.Dataset, world: World) -> xr.Dataset:
    return results.sel(units=world.units, importance_ratio=world.ratio)


def pair_threshold(density: float) -> float:
    """The penalty up to which an antipodal pair of importance 1 is worth having, exactly."""

    def gain(penalty: float) -> float:
        def objective(point: Any) -> float:
            (norm, bias), on_axis = point, np.array([[1.0, -1.0]])
            loss = tm.theory.expected_loss(norm * on_axis, np.full(2, bias), density)
            # E|x_1 - x_2|: p if never both, and 1/3 instead of 1 where both are.
            return float(loss) + penalty * abs(norm) * (density - 2 / 3 * density**2)

        found = optimize.minimize(objective, (0.85, 0.0), method="Nelder-Mead", tol=1e-10)
        return 2 * variance(density) - float(found.fun)

    alone = threshold(1.0, density)
    return float(optimize.brentq(gain, 0.8 * alone, 1.2 * alone, xtol=1e-6))  # pyright: ignore


def best_of(results: xr.Dataset, world: World) -> xr.Dataset:
    return tm.best_of(of(results, world), "objective")


def first_without(results: xr.Dataset, world: World) -> xr.Dataset:
    """The best model at the least penalty from which on none of the best has superposition."""
    best = best_of(results, world)
    with_some = np.flatnonzero(best["superposition"].values >= 0.01)
    first = with_some[-1] + 1 if with_some.size else 0
    return best.isel(penalty=min(first, best.sizes["penalty"] - 1))


def claims(results: xr.Dataset) -> list[tm.Claim]:
    density = results.attrs["density"]
    found: list[tm.Claim] = []
    for world in worlds(results):
        first, best = first_without(results, world), best_of(results, world)
        penalty, without_penalty = float(first.penalty), best.sel(penalty=0.0)
        floor = float(without_superposition(results, world, [0.0])[0][0])
        median = of(results, world)["loss"].median("seed")
        found += [
            tm.Claim(
                f"{world}: features that are left at the least penalty without superposition, "
                f"{penalty:g}",
                f"{SOURCE}: easy to get rid of",
                expected=results.attrs["hidden"],
                measured=int(first["represented"]) if first["superposition"] < 0.01 else 0,
                tolerance=1,
                note=NOTE_PAIRS if world.ratio == 1 else "",
                kind=tm.Kind.PAPER,
                threshold="ours: without superposition as many as dimensions can be kept, one "
                "more or less by the grid of penalties",
            ),
            tm.Claim(
                f"{world}: loss there, over that of the best model without superposition",
                "every feature that has no dimension of its own costs its variance",
                expected=1.0,
                measured=float(first["loss"]) / floor,
                tolerance=0.01,  # of 65,536 examples
                bound=tm.Bound.AT_LEAST,
                kind=tm.Kind.IDENTITY,
                threshold="ours: sampling, 65,536 examples",
            ),
            tm.Claim(
                f"{world}: loss there, over that without a penalty",
                f"{SOURCE}: at the cost of a higher loss",
                expected=1.0,
                measured=float(first["loss"] / without_penalty["loss"]),
                bound=tm.Bound.AT_LEAST,
                kind=tm.Kind.IDENTITY,
            ),
            tm.Claim(
                f"{world}: median loss rises with the penalty, least step over the loss at first",
                SOURCE,
                expected=0.0,
                measured=float(median.diff("penalty").min() / median[0]),
                tolerance=1e-3,
                bound=tm.Bound.AT_LEAST,
                note=NOTE_STEPS,
                kind=tm.Kind.PREDICTION,
                threshold="ours: rounding and convergence",
            ),
        ]
    decaying = World("linear", float(results.importance_ratio[0]))
    linear = best_of(results, decaying)
    after = linear.sel(penalty=linear.penalty >= float(first_without(results, decaying).penalty))
    exact = without_superposition(results, decaying, after.penalty)[1]
    kept = linear["norm"] > 0.5
    least_important = xr.where(kept, results.feature, -1).max("feature") + 1
    edges = threshold(importances(results, decaying), density)
    above = (linear.penalty < xr.DataArray(edges, dims="feature")).sum("feature")
    expected = np.minimum(above, 2 * results.attrs["hidden"])
    aligned = linear["alignment"].where((linear.penalty >= 0.03) & (linear["represented"] > 0))
    alone = float(threshold(1.0, density))
    return [
        *found,
        tm.Claim(
            f"{decaying}: objective beyond, largest relative distance from the closed form",
            "best model with every feature on an axis of its own",
            expected=0.0,
            measured=float(np.abs(after["objective"] / exact - 1).max()),
            tolerance=0.01,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling, 65,536 examples",
        ),
        tm.Claim(
            f"{decaying}: the features kept are the most important, share of penalties",
            f"{SOURCE}: killing features below a certain importance threshold",
            expected=0.95,
            measured=float((kept.sum("feature") == least_important).mean()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PAPER,
            threshold="ours: one penalty in twenty, where two features are at their thresholds",
        ),
        tm.Claim(
            f"{decaying}: how many, mean distance over penalties from those worth an axis of their "
            "own, two to a dimension at most",
            "closed form",
            expected=0,
            measured=float(np.abs(expected - linear["represented"]).mean()),
            tolerance=0.25,  # the least important ones would be in pairs, which cost some more
            kind=tm.Kind.PREDICTION,
            threshold="ours: where the least important ones would be in pairs, which cost some "
            "more, one is missing",
        ),
        tm.Claim(
            f"{decaying}: share of a feature on its main axis, least of penalties from 0.03",
            f"{SOURCE}: especially if they're not basis aligned",
            expected=0.99,
            measured=float(aligned.min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        tm.Claim(
            "a pair is worth its penalty for longer than a feature alone, ratio of thresholds",
            "toymodels.theory.expected_loss of the pair; closed form of one",
            expected=1.0,
            measured=pair_threshold(density) / alone,
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.FINDING,
        ),
    ]


def draw_norms(axes: Any, results: xr.Dataset, world: World) -> None:
    """Norm of every feature in the best model, and where one alone on an axis would be dropped.

    Features of equal importance have no order of their own: longest first.
    """
    norms = best_of(results, world)["norm"].transpose("penalty", "feature").values
    importance = importances(results, world)
    if world.ratio == 1:
        norms = np.sort(norms, axis=1)
    for norm, value in zip(norms.T, importance, strict=True):
        color = plotting.IMPORTANCE_MAP(value if world.ratio < 1 else 0.4)
        axes.plot(results.penalty, norm, color=color, linewidth=1)
    if world.units == "linear":
        edges = threshold(np.unique(importance), results.attrs["density"])
        shortest = np.full(edges.shape, (2 / 3) ** 0.5)
        axes.plot(edges, shortest, "x", color="C3", ms=5, label="one alone: dropped from here on")
    axes.plot([], [], color=plotting.IMPORTANCE_MAP(1.0 if world.ratio < 1 else 0.4),
              label="most important" if world.ratio < 1 else "all, longest first")  # fmt: skip
    axes.legend(loc="upper right")
    axes.set(title=str(world), ylabel="norm of every feature, best model", ylim=(0, 1.6))


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 3, size=(11.5, 6.7))
    empty = {  # by importance ratio, the loss of a model that knows the means alone
        world.ratio: importances(results, world).sum() * variance(results.attrs["density"])
        for world in worlds(results)
    }
    for world, color in zip(worlds(results), COLORS, strict=True):
        names = ("superposition", "represented", "loss")
        for axes, name in zip(grid[0], names, strict=True):
            scale = 1 / empty[world.ratio] if name == "loss" else 1.0
            every = scale * of(results, world)[name].transpose("penalty", "seed")
            best = scale * best_of(results, world)[name]
            axes.plot(results.penalty, every, ".", color=color, ms=4, alpha=0.5, rasterized=True)
            axes.plot(results.penalty, best, color=color, linewidth=1.2, label=str(world))
    grid[0, 0].set(ylabel="mean over represented features", title="superposition", ylim=(-0.1, 5))
    grid[0, 0].legend(loc="upper right")
    grid[0, 1].set(ylabel="norm above 1/2", title="features represented", yticks=range(0, 21, 5))
    grid[0, 1].axhline(results.attrs["hidden"], color="0.6", linestyle="--", linewidth=1)
    grid[0, 1].text(0, results.attrs["hidden"] - 1, "dimensions", color="0.4")
    fine = np.concatenate([np.linspace(0, 0.01, 5), np.geomspace(0.01, 1, 200)])
    label = "linear, no superposition, exact"
    for ratio, loss in empty.items():
        exact, _ = without_superposition(results, World("linear", ratio), fine)
        grid[0, 2].plot(fine, exact / loss, "k:", linewidth=1, label=label)
        label = "_"
    grid[0, 2].set(ylabel="of the loss without features", title="loss without the penalty")
    grid[0, 2].set(ylim=(0, None))
    grid[0, 2].legend(*(part[-1:] for part in grid[0, 2].get_legend_handles_labels()))
    for axes, world in zip(grid[1], worlds(results), strict=False):
        draw_norms(axes, results, world)
    ticks = (0, 0.01, 0.03, 0.1, 0.3, 1)
    for axes in grid.flat:
        axes.set_xscale("symlog", linthresh=0.01, linscale=0.5)
        axes.set(xlabel=r"penalty $\lambda$ on $||h||_1$", xlim=(-0.0005, 1.1))
        axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
