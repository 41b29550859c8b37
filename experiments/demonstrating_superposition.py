r"""Superposition needs a ReLU: W^T W and b of linear and ReLU models as features get sparser.

Claim      The linear model keeps the m most important features, each in a dimension of its own,
           whatever the density: principal components. The ReLU model does the same where
           features are dense; as they get sparser it stores ever more of them in superposition,
           the least important first, until no feature has a dimension of its own.
Reproduces Elhage et al. (2022), "Demonstrating Superposition", n=20, m=5 and n=80, m=20. The paper
           states neither optimizer nor number of runs: the ReLU models have those of its
           notebook. The linear ones, whose optimum is known in closed form, anneal the rate.
Selection  Best of 5 seeds by the loss on 1,048,576 fresh examples, the same for all seeds; the
           range over all seeds beside each count. Represented: norm above 1/2. Dedicated:
           represented with superposition below 1/10.
Command    toymodels run experiments/demonstrating_superposition.py
"""

import dataclasses

import jax
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.theory import feature_variance

PAPER = tm.paper("Elhage et al. (2022), Demonstrating Superposition")
BARS = tm.paper(f"Bars of the figure, {PAPER.text}")
BIAS_BARS = tm.paper(f"{PAPER.text}: bars of the bias, blue in the middle")
LINEAR = tm.prediction("toymodels.theory.expected_loss_linear")
DROPPED = tm.prediction("A dropped feature costs its variance, p/3 - p^2/4")
EYE = "Ours, because the eye takes it for zero."
DENSITIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
# Read from the bars of the paper's two figures, in the order of DENSITIES. "Represented" are those
# longer than 1/2, of 80 features the full and nearly full; a range is how surely they are counted.
PAPER_REPRESENTED = {
    20: ((5, 5), (7, 7), (9, 9), (10, 10), (12, 12), (13, 13), (13, 13)),
    80: ((20, 20), (26, 26), (32, 32), (41, 41), (48, 49), (50, 55), (50, 55)),
}
PAPER_DEDICATED = {20: (5, 3, 1, 0, 0, 0, 0), 80: (20, 14, 8, 4, 1, 0, 0)}
ALLOWED = {20: 1, 80: 2}
TAIL = (
    "At the two least densities the figure's bars were read as full, nearly full or in a "
    "tail, those here by a norm above 1/2: where many are in between, the readings differ."
)
SPARSE_LINEAR = (
    "At density 0.001 a batch has about one example of a feature. The mean over all 20,000 steps "
    "would be uncertain by 1 % of p/2, and a bias follows only the last few thousand."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: tuple[int, int] = (20, 80)
    """The sizes of the two figures; there are a quarter as many hidden dimensions."""
    importance_ratios: tuple[float, float] = (0.7, 0.9)
    densities: tuple[float, ...] = DENSITIES
    linear_densities: tuple[float, float] = (1.0, 0.001)
    num_seeds: int = 5
    steps: int = 10_000
    batch: int = 1024
    evaluation: int = 1_048_576
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    linear_steps: int = 20_000
    linear_learning_rate: float = 1e-2
    """The learning rate of the linear models starts here and falls along a cosine."""
    instances: int = 20
    """The number of models of the notebook decides its start: see `tm.notebook_initializer`."""


SMOKE = Config(num_seeds=2, steps=30, batch=32, evaluation=1024, linear_steps=30)


def run(config: Config) -> xr.Dataset:
    ratios = dict(zip(config.num_features, config.importance_ratios, strict=True))
    initializer = tm.notebook_initializer(config.instances)
    cosine = optax.cosine_decay_schedule(config.linear_learning_rate, config.linear_steps)

    def trained(key, model, num_features, density, optimizer, steps):
        importance = tm.geometric_importance(num_features, ratios[num_features])
        done = tm.train(
            key,
            model,
            tm.Task(tm.SparseUniform(num_features, density), importance=importance),
            optimizer=optimizer,
            steps=steps,
            batch=config.batch,
            evaluation=config.evaluation,
            key_evaluation=jax.random.key(2022),
        )
        weights = done.params["weights"]
        return {
            "loss": done.loss,
            **done.params,
            "norm": geometry.feature_norms(weights),
            "superposition": geometry.superposition(weights),
        }

    def relu(key, *, num_features, density):
        model = tm.ReLUOutput(num_features // 4, initializer=initializer)
        optimizer = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
        return trained(key, model, num_features, density, optimizer, config.steps)

    def linear(key, *, num_features, density):
        model = tm.LinearOutput(num_features // 4, initializer=initializer)
        return trained(key, model, num_features, density, optax.adam(cosine), config.linear_steps)

    def swept(cell, densities):
        each = ("feature",)
        return tm.sweep(
            cell,
            axes={"density": densities},
            static={"num_features": config.num_features},
            num_seeds=config.num_seeds,
            dims={
                "weights": ("hidden", "feature"),
                **dict.fromkeys(("bias", "norm", "superposition"), each),
            },
            units={"loss": "summed over outputs"},
        )

    results = swept(relu, config.densities)
    without = swept(linear, config.linear_densities).rename(density="linear_density")
    importance = np.full((2, max(config.num_features)), np.nan)
    for row, (num_features, ratio) in zip(importance, ratios.items(), strict=True):
        row[:num_features] = ratio ** np.arange(num_features)
    return results.assign(
        {f"linear_{name}": values for name, values in without.items()}
    ).assign_coords(importance=(("num_features", "feature"), importance))


def of_size(results: xr.Dataset, num_features: int) -> xr.Dataset:
    """Return the models of one size, without padding."""
    chosen = results.sel(num_features=num_features)
    return chosen.isel(feature=slice(num_features), hidden=slice(num_features // 4))


def linear_part(results: xr.Dataset) -> xr.Dataset:
    """Return the linear models, with the names of the others."""
    names = {str(name): str(name)[len("linear_") :] for name in results if "linear_" in str(name)}
    return results[list(names)].rename({**names, "linear_density": "density"})


def represented(models: xr.Dataset) -> xr.DataArray:
    """Return how many features have a norm above 1/2."""
    return (models["norm"] > 0.5).sum("feature")


def dedicated(models: xr.Dataset) -> xr.DataArray:
    """Return how many represented features have their direction to themselves."""
    return ((models["norm"] > 0.5) & (models["superposition"] < 0.1)).sum("feature")


def dropped_loss(models: xr.Dataset, density):
    """Return the least loss of a linear model: the variance of all features but the first m."""
    dropped = models.importance[models.sizes["hidden"] :]
    return float(dropped.sum()) * feature_variance(density)


def claims(results: xr.Dataset) -> tm.Claims:
    for size in results.num_features.values:
        yield from linear_claims(of_size(linear_part(results), int(size)))
    for size in results.num_features.values:
        models = of_size(results, int(size)).sel(density=list(DENSITIES), method="nearest")
        yield from counts(models)
        yield from relu_claims(models)


def linear_claims(models: xr.Dataset) -> tm.Claims:
    """Claim that every linear model of one size is the principal components."""
    count, ends = models.sizes["feature"], "at the largest and the smallest density"
    which = f"every linear model of {count} features"
    exactly = "Ours, because the paper says that it is exactly so."
    kept = np.arange(count) < models.sizes["hidden"]
    weights = models["weights"].transpose("density", "seed", "hidden", "feature").values
    says = f"The product W^T W of {which} is the identity on the m most important features {ends}."
    off = np.abs(np.swapaxes(weights, -1, -2) @ weights - np.diag(kept)).max()
    yield tm.near(says, 0, off, PAPER, within=0.02, threshold=exactly, note=SPARSE_LINEAR)
    says = f"The bias of {which}, over p/2, is 0 for the m most important features and 1 for the "
    says += f"others {ends}."
    off = np.abs(models["bias"] / (models.density / 2) - xr.DataArray(~kept, dims="feature")).max()
    yield tm.near(says, 0, off, PAPER, within=0.02, threshold=exactly, note=SPARSE_LINEAR)
    says = f"The exact loss of {which} is that of the principal components {ends}, measured by the "
    says += "largest relative difference."
    exact = tm.apply(
        tm.theory.expected_loss_linear,
        *(models["weights"], models["bias"], models.density, models.importance),
        model_dims=("hidden", "feature"),
        float64=True,
    )
    off = (exact / dropped_loss(models, models.density)).max() - 1
    source = tm.prediction(f"{LINEAR.text}; a dropped feature costs p/3 - p^2/4")
    training = "Ours, because training converges this nearly."
    yield tm.near(says, 0, off, source, within=0.002, threshold=training, note=SPARSE_LINEAR)


def counts(models: xr.Dataset) -> tm.Claims:
    """Claim that ReLU models represent and dedicate as many features as the paper's do."""
    size, hidden = models.sizes["feature"], models.sizes["hidden"]
    allowed, which = ALLOWED[size], f"ReLU models of {size} features"
    ranges = np.asarray(PAPER_REPRESENTED[size])
    alone = [(count, count) for count in PAPER_DEDICATED[size]]
    counting = f"Ours, because {allowed} in {hidden * 2} bars may be miscounted by eye."
    at = f"at densities {DENSITIES[0]:g} to {DENSITIES[-1]:g}"
    for name, count, paper, note in (
        ("represented", represented(models), ranges, TAIL),
        ("dedicated", dedicated(models), alone, ""),
    ):
        low, high = (xr.DataArray(list(side), dims="density") for side in zip(*paper, strict=True))
        bars = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in paper)
        average = count.mean("seed")
        found = ", ".join(f"{float(each):.3g}" for each in average)
        says = f"The number of {name} features of {which}, in the mean over all seeds {found} "
        says += f"{at}, is that of the paper's figure, {bars}."
        off = abs(average - average.clip(low, high)).max()
        yield tm.near(says, 0, off, BARS, within=allowed, threshold=counting, note=note)
        says = f"The number of {name} features of {which} is within {allowed} of that of the "
        says += f"paper's figure in nearly all seeds and densities, {at}, measured by their share."
        share = (abs(count - count.clip(low, high)) <= allowed).mean()
        yield tm.at_least(says, 0.9, share, BARS, threshold=counting, note=note)


def relu_claims(models: xr.Dataset) -> tm.Claims:
    """Claim what the ReLU models of one size do where features are dense and sparse."""
    hidden, which = models.sizes["hidden"], f"ReLU models of {models.sizes['feature']} features"
    first, others = {"feature": slice(hidden)}, {"feature": slice(hidden, None)}
    dense, sparse = models.isel(density=0), models.sel(density=slice(0.9, 0))

    says = f"All features of {which} but the m most important have norms of nearly 0 at density 1, "
    says += "for all seeds."
    yield tm.near(says, 0, dense["norm"][others].max(), PAPER, within=0.1, threshold=EYE)
    says = f"The m most important features of {which} have no superposition at density 1, for all "
    says += "seeds."
    shared = dense["superposition"][first].max()
    yield tm.near(says, 0, shared, PAPER, within=0.02, threshold=EYE)
    says = f"The loss of the best of {which} at density 1 is the variance of the dropped features, "
    says += "the sum of I_i / 12 over i >= m, measured by the relative difference."
    off = float(tm.best_of(models, "loss")["loss"][0]) / dropped_loss(models, 1.0) - 1
    sampling = "Ours, because of sampling and of the convergence of training."
    yield tm.near(says, 0, off, DROPPED, within=0.01, threshold=sampling)
    says = f"The mean bias of the represented features of {which} is negative at every density of "
    says += "0.01 and less, over all seeds."
    kept = models["bias"].where((models["norm"] > 0.5) & (models.density < 0.015))
    yield tm.at_most(says, 0, kept.mean(("seed", "feature")).max(), BIAS_BARS)
    says = f"Superposition pays: the loss of {which} is below the least of any linear model at all "
    says += "densities up to 0.3, for all seeds, so that the largest ratio is below 1."
    ratio = (sparse["loss"] / dropped_loss(models, sparse.density)).max()
    yield tm.at_most(says, 1, ratio, LINEAR)


def plot(results: xr.Dataset) -> plotting.Figure:
    densities = results.density.values[::2]
    figure, grid = plotting.figure(4, len(densities) + 1, size=(9, 8.6))
    for number, size in enumerate(results.num_features.values):
        matrices, bars = grid[2 * number], grid[2 * number + 1]
        linear, relu = of_size(linear_part(results), int(size)), of_size(results, int(size))
        shown = [(linear.sel(density=[linear.density.values.min()]), "linear")]
        shown += [(relu.sel(density=[density]), "ReLU") for density in densities]
        for (models, name), matrix, bar in zip(shown, matrices, bars, strict=True):
            draw_model(matrix, bar, models)
            matrix.set_title(f"{name}, density {models.density.values[0]:g}", fontsize=9)
        hidden, ratio = linear.sizes["hidden"], float(relu.importance[1])
        matrices[0].set_ylabel(
            f"$n$ = {size}, $m$ = {hidden}, $I_i = {ratio:g}^i$\n$W^T W$ and $b$"
        )
        bars[0].set_ylabel("norm $||W_i||$ of each feature")
        plotting.weight_bar(list(matrices))
        plotting.superposition_bar(list(bars))
    seeds = results.sizes["seed"]
    figure.suptitle(f"Sparser features share dimensions (best of {seeds} seeds [range of all])")
    return figure


def draw_model(matrix: plotting.Axes, bar: plotting.Axes, models: xr.Dataset) -> None:
    """Draw the best model of one density, and write the range over all seeds below it."""
    best = tm.best_of(models, "loss").isel(density=0)
    plotting.gram(matrix, best["weights"], best["bias"])
    plotting.norm_bars(bar, best["norm"], best["superposition"])
    lines = []
    for name, count in (("represented", represented), ("dedicated", dedicated)):
        low, high = int(count(models).min()), int(count(models).max())
        spread = "" if low == high else f" [{low}-{high}]"
        lines.append(f"{int(count(best))}{spread} {name}")
    bar.set_xlabel("\n".join(lines), fontsize=8)


if __name__ == "__main__":
    experiment.main(__file__)
