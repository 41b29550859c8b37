"""Patching the direction of a feature: the effect, its approximations, and where each one breaks.

Claim      Copying the coordinate along a feature's direction from a run with the feature to a run
           without it restores the output of that feature, however strong the superposition. Three
           things break as features get sparser. Attribution patching sees a ReLU that is shut: at
           the corrupt run it finds almost nothing, at the clean run too much, and EAP-IG, which
           averages gradients, finds the effect. Directions of other features restore the feature,
           too, by the squared cosine of their angle, so that single effects add up to more than
           the whole. And a direction carries the interference of all other features with it.
Reproduces No figure of a paper. Attribution patching is that of Nanda (2023), EAP-IG that of Hanna
           et al. (2024), "Have Faith in Faithfulness"; the closed forms are derived here.
Settings   n features of equal importance in m dimensions. Clean and corrupt run differ in one
           feature, which is absent in the corrupt run. EAP-IG averages 5 gradients (midpoint rule).
Selection  Best of 8 seeds by the loss on 65,536 fresh examples, which are common to all seeds.
Command    toymodels run experiments/activation_patching.py
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels import interventions as iv
from toymodels.theory.boxes import all_boxes, mean_output
from toymodels.theory.features import feature_variance

RESTORES = tm.identity("Output i depends on the coordinate along W_i alone")
COSINE = tm.identity("h moves along W_i, and output i reads what is left of it along direction j")
EXACT = tm.prediction("Derivatives of the exact E ReLU(z)^2, which the exact loss is made of")
CONVEX = tm.identity("An output is convex in h, so that its tangents lie below it")
SPARSE = tm.prediction("Without the feature, the preactivation of a sparse output is not positive")
ONE_ACTIVE = tm.prediction("With one active feature: the sums of (G^2 - b^2) / G and (G + b)^2 / G")
FRAME = tm.prediction("The squared cosines of a tight frame add up to n / m")
CARRIED = tm.prediction("2 sum_j G_ij^2 Var x_j over the other features j")
EDGES = tm.identity("Every path from the hidden layer to an output is one edge")
FOUND = tm.finding("first measured here")
SAMPLING = "Ours, because it is four standard errors of the examples."
FLOAT = "Ours, because 32-bit numbers are rounded."
OURS = "Ours, because the theory gives no number."
STEPS = 5
NAMES = {
    "EAP-IG": f"EAP-IG with {STEPS} gradients",
    "at corrupt": "attribution patching at the corrupt run",
    "at clean": "attribution patching at the clean run",
}
METHODS = ("effect", *NAMES)
LABELS = {
    "EAP-IG": f"EAP-IG, {STEPS} gradients",
    "at corrupt": "attribution, corrupt run",
    "at clean": "attribution, clean run",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (1.0, 0.6, 0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
    sizes: tuple[tuple[int, int], ...] = ((5, 2), (20, 5))
    """Features and hidden dimensions; exact effects are those of the first size."""
    num_seeds: int = 8
    examples: int = 16_384
    """The number of pairs of runs for each feature of the best model of a density."""
    training: tm.Recipe = tm.Recipe(steps=3000, batch=512, learning_rate=1e-2)


SMOKE = Config(
    densities=(1.0, 0.1),
    sizes=((2, 1),),
    num_seeds=2,
    examples=200,
    training=tm.Recipe(steps=20, batch=32, learning_rate=1e-2),
)


def measured(weights, bias, density, *, examples: int) -> dict[str, jax.Array]:
    """Return effects of patching the direction of each feature in ONE model, over pairs of runs."""
    model, params = tm.ReLUOutput(len(weights)), {"weights": weights, "bias": bias}
    key_pairs, key_others, key_values = jax.random.split(jax.random.key(15), 3)
    features = tm.SparseUniform(bias.size, density)
    pairs = features.sample(key_pairs, examples), features.sample(key_others, examples)
    values = 1 - jax.random.uniform(key_values, (examples,))

    def of_feature(feature, part):
        def metric(output):
            return output[feature]

        def of_pair(x, other, value):
            clean, corrupt = x.at[feature].set(value), x.at[feature].set(0)
            forwards = (model, params, corrupt, clean, part, metric)
            edges = (model, params, corrupt, clean, "hidden", "preactivation", metric)
            found = iv.patching(model, params, clean, corrupt, part, metric)
            patched = iv.patch(part, tm.activations(model, params, other))
            carried = iv.activations(model, params, x, patched)["preactivation"]
            swapped = tm.activations(model, params, x.at[feature].set(other[feature]))
            return {
                "effect": found.denoised - found.corrupt,
                "unrestored": jnp.abs(found.denoised - found.clean),
                "at corrupt": iv.attribution_patching(*forwards),
                "at clean": -iv.attribution_patching(model, params, clean, corrupt, part, metric),
                "EAP-IG": iv.integrated_patching(*forwards, num_steps=STEPS),
                "edges": iv.edge_attribution(*edges, num_steps=STEPS).sum(),
                "error": (carried - swapped["preactivation"])[feature] ** 2,
            }

        return jax.vmap(of_pair)(*pairs, values)

    parts = iv.directions("hidden", weights)
    found = jax.vmap(of_feature)(jnp.arange(bias.size), parts)
    mistake = found["effect"] - found["at corrupt"]
    return {
        "found": jnp.stack([found[name].mean(axis=1).sum() for name in METHODS]),
        "standard_error": found["effect"].sum(axis=0).std() / examples**0.5,
        "unrestored": found["unrestored"].max(),
        "tangents": -jnp.minimum(mistake, found["at clean"] - found["effect"]).min(),
        "carried": found["error"].mean(axis=1).sum(),
        "edges": jnp.abs(found["edges"] - found["EAP-IG"]).mean(),
    }


def geometry(weights, bias, density) -> dict[str, jax.Array]:
    """Return what the directions of each feature restore of each other one, and the closed forms.

    Before the ReLU the effect is linear in the runs, so that one pair of runs tells all.
    """
    model, params = tm.LinearOutput(len(weights)), {"weights": weights, "bias": bias}
    parts = {"features": iv.directions("hidden", weights)}

    def restored(feature):
        clean = jnp.zeros(bias.size).at[feature].set(1.0)
        arguments = (model, params, clean, 0 * clean, lambda output: output[feature])
        return iv.patching_map(*arguments, parts=parts)["features"].sufficiency

    shares = jax.vmap(restored)(jnp.arange(bias.size))
    gram, norms = weights.T @ weights, jnp.linalg.norm(weights, axis=0)
    cosines = gram / jnp.maximum(norms[:, None] * norms, 1e-9)
    kept = norms > 0.5
    both = kept[:, None] & kept
    interference = jnp.sum(gram**2) - jnp.sum(jnp.diag(gram) ** 2)
    return {
        "restored": jnp.where(both, shares, jnp.nan),
        "cosine_law": jnp.where(both, jnp.abs(shares - cosines**2), 0.0).max(),
        "sum": jnp.where(both, shares, 0.0).sum() / kept.sum(),
        "kept": kept.sum(),
        "carried_exactly": 2 * interference * feature_variance(density),
    }


def exact(weights, bias, density) -> dict[str, jax.Array]:
    r"""Return the exact mean of the effect and of its approximations, added up over features.

    With $c$ the preactivation of output $i$ without feature $i$, all of them are values and slopes
    of $\Phi(g) = E\,\mathrm{ReLU}(c + g x)$.
    """
    boxes, gram = all_boxes(bias.size, 2), weights.T @ weights
    shares = jnp.concatenate([jnp.asarray([0.0, 1.0]), (jnp.arange(STEPS) + 0.5) / STEPS])

    def of_output(feature):
        present = jnp.full(bias.size, density).at[feature].set(1.0)

        def mean(own):
            couplings = gram[feature].at[feature].set(own)
            return mean_output(couplings, bias[feature], present, boxes, signed=False)

        own = gram[feature, feature]
        values = jax.vmap(mean)(own * shares)
        slopes = own * jax.vmap(jax.jacfwd(mean))(own * shares)
        return jnp.stack([values[1] - values[0], slopes[2:].mean(), slopes[0], slopes[1]])

    return {"exact": jax.vmap(of_output)(jnp.arange(bias.size)).sum(axis=0)}


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    def cell(key, *, size, density):
        number, hidden = config.sizes[size]
        task = tm.Task(tm.SparseUniform(number, density))
        trained = config.training.train(key, tm.ReLUOutput(hidden), task)
        return {"loss": trained.loss, **trained.params}

    names = {f"{n} features in {m} dimensions": i for i, (n, m) in enumerate(config.sizes)}
    trained = tm.sweep(
        cell,
        axes={"density": config.densities},
        static={"size": names},
        num_seeds=config.num_seeds,
        dims={"weights": ("dimension", "feature"), "bias": ("feature",)},
        store=store,
    )
    best = tm.best_of(trained, "loss")
    models = (best["weights"], best["bias"], best["density"])
    small = best.isel(size=[0])
    sampled = functools.partial(measured, examples=config.examples)
    parts = [
        tm.apply(sampled, *models, dims={"found": ("estimate",)}),
        tm.apply(geometry, *models, dims={"restored": ("feature", "direction")}),
        tm.apply(
            exact,
            *(small[name] for name in ("weights", "bias", "density")),
            dims={"exact": ("estimate",)},
            float64=True,
        ).isel(size=0, drop=True),
    ]
    return best.merge(xr.merge(parts, compat="override")).assign_coords(estimate=list(METHODS))


WORST = {
    "unrestored": (
        "patching the direction of the feature that differs restores its output in every pair of "
        "runs, measured by the largest difference",
        RESTORES,
    ),
    "cosine_law": (
        "before the ReLU, patching the direction of another feature restores the squared cosine "
        "of the angle between the two, measured by the largest difference of all pairs of features",
        COSINE,
    ),
    "tangents": (
        "attribution patching finds at most the effect at the corrupt run and at least the effect "
        "at the clean run, measured by the largest violation of all pairs of runs",
        CONVEX,
    ),
    "edges": (
        "the EAP-IG scores of all edges into an output add up to the integrated gradients of the "
        "direction, measured by the mean difference of all pairs of runs",
        EDGES,
    ),
}


def claims(results: xr.Dataset) -> tm.Claims:
    for size in results["size"].values:
        here = results.sel(size=size)
        models = f"In trained models of {size}"
        for name, (rest, source) in WORST.items():
            worst = here[name].max()
            yield tm.at_most(f"{models}, {rest}.", 0, worst, source, slack=1e-4, threshold=FLOAT)
        says = f"{models}, the mean square of what a patched direction carries of other features "
        says += "is the closed form, measured by the largest relative difference over densities."
        ratio = here["carried"] / here["carried_exactly"] - 1
        worst = np.abs(ratio.where(here["carried_exactly"] > 1e-2)).max()
        yield tm.near(says, 0, worst, CARRIED, within=0.07, threshold=SAMPLING)
    yield from of_methods(results)


def of_methods(results: xr.Dataset):
    first, *_ = results["size"].values
    models = f"trained models of {first}"
    here, right = results.sel(size=first), results["exact"]
    found = here["found"]
    effect = right.sel(estimate="effect")
    says = f"The measured effects of all feature directions in {models} are the exact ones, "
    says += "measured by the largest number of standard errors over densities."
    errors = (found.sel(estimate="effect") - effect) / here["standard_error"]
    yield tm.near(says, 0, np.abs(errors).max(), EXACT, within=4, threshold=SAMPLING)
    for method, name in NAMES.items():
        says = f"The effect that {name} finds in {models} is its closed form, measured by the "
        says += "largest difference over densities as a share of the effect."
        worst = np.abs((found - right).sel(estimate=method) / effect).max()
        yield tm.near(says, 0, worst, EXACT, within=0.03, threshold=SAMPLING)
    share = right / effect
    sparsest = results["density"].values.min()
    sparse = share.sel(density=sparsest)
    says = f"At density {sparsest:g}, attribution patching at the corrupt run finds a small share "
    says += f"of the exact effect in {models}, measured by that share."
    yield tm.at_most(says, 0.1, sparse.sel(estimate="at corrupt"), SPARSE, threshold=OURS)
    says = f"At density {sparsest:g}, attribution patching at the clean run exceeds the exact "
    says += f"effect in {models} by the factor of the closed form for one active feature."
    own = (here["weights"] ** 2).sum("dimension").sel(density=sparsest)
    bias = here["bias"].sel(density=sparsest)
    limit = ((own**2 - bias**2) / own).sum() / ((own + bias) ** 2 / own).sum()
    clean = sparse.sel(estimate="at clean")
    yield tm.near(says, limit, clean, ONE_ACTIVE, within=0.1, threshold=OURS)
    says = f"EAP-IG with {STEPS} gradients is near the exact effect in {models}, measured by the "
    says += "largest error over densities as a share of the effect."
    worst = np.abs(share.sel(estimate="EAP-IG") - 1).max()
    yield tm.at_most(says, 0.05, worst, FOUND, threshold=OURS)
    says = f"At density {sparsest:g}, the shares that single directions restore of a feature add "
    says += f"up to n / m, features over dimensions, in {models}."
    total = here["sum"].sel(density=sparsest)
    n, m = (int(words.split()[0]) for words in first.split(" in "))
    yield tm.near(says, n / m, total, FRAME, within=0.1, threshold=OURS)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.2))
    sizes = results["size"].values
    for axes, size in zip(grid[0], sizes, strict=False):
        draw_methods(axes, results, size)
    grid[0, 0].legend(loc="upper left")
    density = float(results["density"].min())
    smallest = results.sel(density=density, size=sizes[0])
    shares = smallest["restored"].dropna("feature", how="all").dropna("direction", how="all")
    plotting.heat_map(
        grid[0, 2], shares, x="direction", y="feature", numbers=".2f", norm=plotting.Normalize(0, 1)
    )
    grid[0, 2].set(xlabel="direction that is patched", ylabel="feature that differs")
    grid[0, 2].set_title(f"Directions of other features\nrestore it, too (density {density:g})")
    for number, size in enumerate(sizes):
        here, style = results.sel(size=size), plotting.MARKERS[number]
        grid[1, 0].semilogx(results["density"], here["sum"], f"{style}-", ms=4, label=short(size))
        grid[1, 1].loglog(here["carried_exactly"], here["carried"], style, ms=4, label=short(size))
    grid[1, 0].axhline(1, color="0.5", lw=1)
    grid[1, 0].set(ylabel="sum of the shares restored")
    grid[1, 0].set_title("Single effects add up to\nmore than 1")
    ends = [float(results["carried_exactly"].min()), float(results["carried_exactly"].max())]
    grid[1, 1].loglog(ends, ends, "0.5", lw=1, label="closed form")
    grid[1, 1].set(xlabel=r"$2 \sum_{i \neq j} G_{ij}^2 Var(x_j)$")
    grid[1, 1].set_ylabel("mean square of the error")
    grid[1, 1].set_title("A direction carries the\ninterference of the others")
    grid[1, 2].set_visible(False)
    for axes in (*grid[0, :2], grid[1, 0]):
        plotting.density_axis(axes)
    for along in ("x", "y"):
        plotting.plain_ticks(grid[1, 1], along)
    for axes in grid[1, :2]:
        axes.legend()
    return figure


def short(size: str) -> str:
    """Return the name of a size as it is written in the figure, such as "5 in 2"."""
    return size.replace(" features", "").replace(" dimensions", "")


def draw_methods(axes, results: xr.Dataset, size: str) -> None:
    found = results["found"].sel(size=size)
    known = size == results["size"].values[0]
    for number, (method, name) in enumerate(LABELS.items()):
        share = found.sel(estimate=method) / found.sel(estimate="effect")
        style = {"color": f"C{number}", "marker": plotting.MARKERS[number], "ms": 4}
        axes.semilogx(results["density"], share, ls="" if known else "-", **style, label=name)
        if known:
            exactly = results["exact"].sel(estimate=method) / results["exact"].sel(
                estimate="effect"
            )
            axes.semilogx(results["density"], exactly, color=f"C{number}")
    axes.axhline(1, color="0.5", lw=1)
    lines = "lines: exact" if known else "measured"
    words = "A shut ReLU hides the effect" if known else "It does so in larger models"
    axes.set(ylim=(-0.1, 2.2), ylabel="found / true effect")
    axes.set_title(f"{words}\n({short(size)}, {lines})")


if __name__ == "__main__":
    experiment.main(__file__)
