r"""A penalty on activations removes superposition: loss and features against its strength.

Claim      "It's actually quite easy to get rid of superposition in the toy models [...] albeit at
           the cost of a higher loss. Simply [...] add $\lambda \lVert h \rVert_1$ to the loss. This
           actually has a nice interpretation in terms of killing features below a certain
           importance threshold, especially if they're not basis aligned."
Reproduces Elhage et al. (2022), "Three Ways Out"; the paper shows no figure. n = 20, m = 5 and
           importances 0.7^i as in "Demonstrating Superposition", and equal ones, among which no
           threshold tells; linear hidden units, and ReLU ones.
Theory     `toymodels.theory.penalties`: a feature alone on an axis is worth its penalty up to
           $\lambda_c = (8/3) \sqrt{2/3}\, I v / p$ with $v = p/3 - p^2/4$; it stays a local minimum
           up to $\sqrt 2$ times that. A pair on one axis costs less than two such features do,
           because they cancel where both are present: the penalty asks for few features on the
           axes, not for one on each.
Found      Linear units lose the least important features first, and superposition ends when as
           many are left as dimensions; among equally important features it lasts as long as any
           feature does. ReLU units have no pairs, and give up superposition earlier, with five
           features left, also among equals. This is so for the best seeds: many others of linear
           units keep a pair beside an empty dimension.
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

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.theory import feature_variance, penalties

PAPER = tm.paper("Elhage et al. (2022), Three Ways Out")
EASY = tm.paper(f"{PAPER.text}: easy to get rid of")
HIGHER = tm.identity(f"{PAPER.text}: at the cost of a higher loss")
KILLING = tm.paper(f"{PAPER.text}: killing features below a certain importance threshold")
BASIS = tm.paper(f"{PAPER.text}: especially if they're not basis aligned")
NO_DIMENSION = tm.identity("Every feature that has no dimension of its own costs its variance")
OWN_AXIS = tm.prediction("The best model with every feature on an axis of its own")
RISES = tm.prediction(PAPER.text)
CLOSED_FORM = tm.prediction("Closed form")
PAIR = tm.finding("toymodels.theory.expected_loss of the pair; closed form of one")
SAMPLING = "Ours, because of sampling, 65,536 examples."
PAIRS_STAY = (
    "The exact optimum explains it: a pair on one axis is worth its penalty up to a slightly "
    "larger one than a feature alone, so among features of equal importance no penalty favours "
    "dimensions of their own. Superposition goes when everything does, and in training even "
    "later, because pairs stay a local minimum. ReLU units cannot store pairs, so that a feature "
    "for each dimension is left."
)
BETTER_PACKINGS = (
    "Seeds that are stuck with 18 or 19 features without a penalty find better packings of 16 "
    "features at small penalties; the loss of the best of all seeds only rises."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 20
    hidden: int = 5
    importance_ratios: tuple[float, ...] = (0.7, 1.0)
    density: float = 0.1
    penalties: tuple[float, ...] = (0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1)
    num_seeds: int = 6
    training: tm.Recipe = tm.Recipe(steps=2000, batch=1024, learning_rate=3e-3)
    """The models are trained so without the penalty, and then again with it."""
    evaluation: int = 65_536


SHORT = tm.Recipe(steps=20, batch=32, learning_rate=3e-3)
SMOKE = Config(penalties=(0.0, 0.3, 1.0), num_seeds=2, training=SHORT, evaluation=256)


def run(config: Config) -> xr.Dataset:
    features = tm.SparseUniform(config.num_features, config.density)
    training, alone = config.training, np.eye(config.num_features, dtype=np.float32)

    def cell(key, *, units, importance_ratio, penalty):
        importance = tm.geometric_importance(config.num_features, importance_ratio)
        task_loss = tm.task_loss(units, tm.Task(features, importance=importance))

        def hidden(params, x):
            return tm.activations(units, params, x)["hidden"]

        def penalised(penalty):
            return lambda params, x: (
                task_loss(params, x) + penalty * jnp.sum(jnp.abs(hidden(params, x)))
            )

        def stage(params, numbers):
            key, penalty = numbers
            problem = params, penalised(penalty), features.sample
            return tm.fit(key, *problem, **training.settings()).params, None

        key_start, key_data = jax.random.split(key)
        params = units.init(key_start, jnp.zeros(config.num_features))["params"]
        params, _ = lax.scan(stage, params, (jax.random.split(key_data), penalty * jnp.arange(2.0)))
        how = {"batch": training.batch, "examples": config.evaluation}
        common = jax.random.key(2022)
        loss, objective = (
            tm.evaluate(common, params, penalised(charged), features.sample, **how)
            for charged in (0.0, penalty)
        )
        codes = jax.vmap(lambda x: hidden(params, x))(jnp.asarray(alone)).T
        return {"loss": loss, "objective": objective, **measured(codes)}

    units = {"linear": tm.ReLUOutput(config.hidden), "ReLU": tm.ReLUHidden(config.hidden)}
    results = tm.sweep(
        cell,
        axes={"importance_ratio": config.importance_ratios, "penalty": config.penalties},
        static={"units": units},
        num_seeds=config.num_seeds,
        dims={"norm": ("feature",)},
        units={"loss": "summed over outputs, without the penalty"},
    )
    return results.assign_attrs(density=config.density, hidden=config.hidden)


def measured(codes):
    """Return the superposition of what each feature leaves in the hidden layer, one per column."""
    norm = geometry.feature_norms(codes)
    represented = norm > 0.5
    count = jnp.maximum(jnp.sum(represented), 1)

    def mean(values):
        return jnp.sum(jnp.where(represented, values, 0.0)) / count

    return {
        "norm": norm,
        "represented": jnp.sum(represented),
        "superposition": mean(geometry.superposition(codes)),
        "features_per_dimension": 1 / geometry.dimensions_per_feature(codes),
        "alignment": mean(jnp.max(jnp.abs(codes), axis=0) / jnp.maximum(norm, 1e-20)),
    }


def without_superposition(results: xr.Dataset, ratio: float, penalty) -> penalties.Penalised:
    """Return loss and objective of the best linear units without superposition, exactly."""
    importance = ratio ** np.arange(results.sizes["feature"])
    hidden, density = int(results.attrs["hidden"]), float(results.attrs["density"])
    return penalties.without_superposition(hidden, density, importance, penalty)


def worth_an_axis(results: xr.Dataset, ratio: float) -> xr.DataArray:
    """Return how many features are worth an axis of their own, two to a dimension at most."""
    importance = ratio ** np.arange(results.sizes["feature"])
    edges = penalties.threshold(float(results.attrs["density"]), importance)
    above = (results.penalty < xr.DataArray(edges, dims="feature")).sum("feature")
    return np.minimum(above, 2 * results.attrs["hidden"])


def first_without(best: xr.Dataset) -> xr.Dataset:
    """Return the best model at the penalty from which on no best model has superposition."""
    with_some = np.flatnonzero(best["superposition"].values >= 0.01)
    first = with_some[-1] + 1 if with_some.size else 0
    return best.isel(penalty=min(first, best.sizes["penalty"] - 1))


def named(units: str, ratio: float) -> str:
    importance = "equal importances" if ratio == 1 else f"importances {ratio:g}^i"
    return f"models of {units} units with {importance}"


def claims(results: xr.Dataset) -> tm.Claims:
    for units, ratio in itertools.product(results.units.values, results.importance_ratio.values):
        models = results.sel(units=units, importance_ratio=ratio)
        yield from removal_claims(models, named(units, ratio), float(ratio))
    ratio = float(results.importance_ratio[0])
    linear = tm.best_of(results.sel(units="linear", importance_ratio=ratio), "objective")
    yield from threshold_claims(linear, f"best {named('linear', ratio)}", ratio)
    says = "The penalty up to which an antipodal pair of linear units lowers the objective is "
    says += "greater than that of a feature alone on an axis, measured by the ratio of the two "
    says += "penalties."
    density = float(results.attrs["density"])
    ratio = penalties.pair_threshold(density) / penalties.threshold(density)
    yield tm.at_least(says, 1, ratio, PAIR)


def removal_claims(models: xr.Dataset, which: str, ratio: float) -> tm.Claims:
    """Claims that a penalty removes the superposition of one kind of models, at a cost."""
    best = tm.best_of(models, "objective")
    first = first_without(best)
    at = f"At the smallest penalty without superposition, {float(first.penalty):g}"
    says = f"{at}, the best of the {which} represents as many features as there are dimensions."
    count = first["represented"] if first["superposition"] < 0.01 else 0
    grid = "Ours, because as many as dimensions can be kept, one more or less by the grid of "
    grid += "penalties."
    note, hidden = PAIRS_STAY if ratio == 1 else "", models.attrs["hidden"]
    yield tm.near(says, hidden, count, EASY, within=1, threshold=grid, note=note)
    says = f"{at}, the loss of the best of the {which} is at least the exact loss of the best "
    says += "linear model without superposition, measured by their ratio."
    over = first["loss"] / without_superposition(models, ratio, 0.0).loss
    yield tm.at_least(says, 1, over, NO_DIMENSION, slack=0.01, threshold=SAMPLING)
    says = f"{at}, the loss of the best of the {which} is at least that without a penalty, "
    says += "measured by their ratio."
    yield tm.at_least(says, 1, first["loss"] / best.sel(penalty=0.0)["loss"], HIGHER)
    says = f"The median loss of {which} rises with the penalty, measured by the smallest step "
    says += "between neighbouring penalties as a share of the loss without a penalty."
    median = models["loss"].median("seed")
    step = median.diff("penalty").min() / median[0]
    ours = "Ours, because of rounding and of the convergence of training."
    yield tm.at_least(says, 0, step, RISES, slack=1e-3, threshold=ours, note=BETTER_PACKINGS)


def threshold_claims(linear: xr.Dataset, which: str, ratio: float) -> tm.Claims:
    """Claims that the penalty drops the features below a threshold of importance."""
    says = f"The objective of the {which} is that of features that each have an axis of their own, "
    says += "measured by the largest relative difference over the penalties without superposition."
    after = linear.sel(penalty=linear.penalty >= float(first_without(linear).penalty))
    exact = without_superposition(linear, ratio, after.penalty).objective
    off = np.abs(after["objective"] / exact - 1).max()
    yield tm.near(says, 0, off, OWN_AXIS, within=0.01, threshold=SAMPLING)
    says = f"The features kept by the {which} are the most important ones, measured by the share "
    says += "of the penalties at which they are."
    kept = linear["norm"] > 0.5
    last = xr.where(kept, linear.feature, -1).max("feature") + 1
    share = (kept.sum("feature") == last).mean()
    one = "Ours, because one penalty in twenty has two features at their thresholds."
    yield tm.at_least(says, 0.95, share, KILLING, threshold=one)
    says = f"The {which} represent the features that are worth an axis of their own, two to a "
    says += "dimension at most: the mean difference of their number over penalties is nearly 0."
    off = np.abs(worth_an_axis(linear, ratio) - linear["represented"]).mean()
    ours = "Ours, because one is missing where the least important ones would be in pairs, which "
    ours += "cost some more."
    yield tm.near(says, 0, off, CLOSED_FORM, within=0.25, threshold=ours)
    says = f"The features of the {which} lie on axes at all penalties from 0.03 on: the share of a "
    says += "feature on its main axis is nearly 1."
    shown = (linear.penalty >= 0.03) & (linear["represented"] > 0)
    aligned = linear["alignment"].where(shown).min()
    no_number = "Ours, because the paper gives no number."
    yield tm.at_least(says, 0.99, aligned, BASIS, threshold=no_number)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 3, size=(9, 6), sharex=True, squeeze=False)
    for row, ratio in zip(grid, results.importance_ratio.values, strict=False):
        draw_row(row, results.sel(importance_ratio=ratio), float(ratio))
    for axes in grid.flat:
        axes.set_xscale("symlog", linthresh=0.01, linscale=0.5)
        axes.set(xlim=(-0.0005, 1.1), xlabel="")
        plotting.plain_ticks(axes, "x", (0, 0.01, 0.03, 0.1, 0.3, 1))
    for axes in grid[-1]:
        axes.set_xlabel(r"penalty $\lambda$ on $||h||_1$")
    titles = ("superposition goes", "features are dropped", "the loss rises")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    grid[0, 0].legend(loc="upper right")
    for axes, place in zip(grid[0, 1:], ("upper right", "upper left"), strict=True):
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[-1:], labels[-1:], loc=place)
    return figure


def draw_row(row, models: xr.Dataset, ratio: float) -> None:
    """Draw superposition, number and loss of the models of one kind of importances."""
    density, hidden = models.attrs["density"], models.attrs["hidden"]
    empty = (ratio ** np.arange(models.sizes["feature"])).sum() * feature_variance(density)
    models = models.assign(loss=models["loss"] / empty)
    models = models.assign_coords(units=[f"{name} hidden units" for name in models.units.values])
    best, choice = tm.best_of(models, "objective"), f"best of {models.sizes['seed']} seeds"
    for axes, name in zip(row, ("superposition", "represented", "loss"), strict=True):
        how = {"x": "penalty", "lines": "units", "chosen": best[name], "choice": choice}
        plotting.every_seed(axes, models[name], **how, legend=False)
    first, second, third = row
    importance = "equal importances" if ratio == 1 else f"importances ${ratio:g}^i$"
    first.set(ylabel=f"{importance}\nmean superposition", ylim=(-0.1, None))
    if ratio < 1:
        worth = worth_an_axis(models, ratio)
        second.plot(models.penalty, worth, "k_", markersize=7, label="worth an axis in theory")
    second.axhline(hidden, color="0.6", linestyle="--", linewidth=1, zorder=0)
    second.text(0.0002, hidden + 0.2, f"{hidden} dimensions", color="0.3", fontsize=8)
    second.set(ylabel="features represented", yticks=range(0, 21, 5))
    fine = np.concatenate([np.linspace(0, 0.01, 5), np.geomspace(0.01, 1, 200)])
    exact = without_superposition(models, ratio, fine).loss / empty
    third.plot(fine, exact, "k:", linewidth=1, label="linear, no superposition: exact")
    third.set(ylabel="loss, over that of no features", ylim=(0, 1.2))


if __name__ == "__main__":
    experiment.main(__file__)
