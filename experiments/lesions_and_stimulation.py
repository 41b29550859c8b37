"""Lesions and stimulation: the effects of removing, and of adding, a unit or a direction.

Claim      Without a nonlinearity the basis of the hidden layer is arbitrary: turning it changes no
           output, but the damage of removing a unit becomes another one. The damage of removing the
           direction of a feature is the same in every basis. With superposition it exceeds
           importance x norm^2 x p/3, the damage of a dedicated feature, by what neighbours lose.
           All damages and all dose-response curves are those of the exact expected loss.
Reproduces No figure of a paper; the closed forms are derived here.
Settings   Feature i has importance 0.8^i. A lesion sets a coordinate to 0, unless it says mean or
           resample.
Selection  Best of 8 seeds by the loss on 65,536 fresh examples, which are common to all seeds.
Command    toymodels run experiments/lesions_and_stimulation.py
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels import interventions as iv
from toymodels.theory.boxes import all_boxes, mean_output

EXACT = tm.prediction("The exact expected loss of the model with a projected encoder")
TURNED = tm.identity("W and Q W have the same W^T W for every orthogonal Q")
DEDICATED = tm.prediction("A dedicated feature: second moment p/3, variance, twice the variance")
RESPONSE = tm.prediction("E ReLU(z_j + a W_j . W_i / |W_i|) from the exact loss")
ARBITRARY = tm.prediction("A basis that no output depends on mixes the features in its units")
FOUND = tm.finding("first measured here")
SAMPLING = "Ours, because it is four standard errors of the examples at the smallest density."
FLOAT = "Ours, because 64-bit numbers are rounded."
OURS = "Ours, because the theory gives no number."
RATIO = 0.8
TURNED_AT, STIMULATED_AT = 0.7, 0.2  # the densities whose models are drawn
KINDS = ("zero", "mean", "resample")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    densities: tuple[float, ...] = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
    sizes: tuple[tuple[int, int], ...] = ((5, 2), (20, 5), (5, 5))
    """Features and hidden dimensions: with exact answers, larger, and one dimension for each."""
    num_seeds: int = 8
    examples: int = 131_072
    angles: int = 24
    """The number of bases into which the smallest models are turned."""
    doses: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    training: tm.Recipe = tm.Recipe(steps=3000, batch=512, learning_rate=1e-2)


SMOKE = Config(
    densities=(1.0, 0.1),
    sizes=((3, 2), (4, 2), (2, 2)),
    num_seeds=2,
    examples=400,
    angles=3,
    doses=(0.0, 1.0),
    training=tm.Recipe(steps=20, batch=32, learning_rate=1e-2),
)


def turn(weights: jax.Array, angle) -> jax.Array:
    """Return the weights with the first two hidden dimensions turned by an angle."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    first = jnp.stack([jnp.stack([cosine, sine]), jnp.stack([-sine, cosine])])
    return weights.at[:2].set(first @ weights[:2])


def sampled(weights, bias, density, *, examples: int, angles: int) -> dict[str, jax.Array]:
    """Return measured damages of removing directions and units of ONE model."""
    model, number = tm.ReLUOutput(len(weights)), bias.size
    params = {"weights": weights, "bias": bias}
    task = tm.Task(
        tm.SparseUniform(number, density), importance=tm.geometric_importance(number, RATIO)
    )
    # The cost of an example grows as the square of the number of features.
    batch = task.features.sample(jax.random.key(16), examples * 25 // number**2)
    unit = iv.unit("hidden", 0)

    def of_unit(angle):
        turned = {"weights": turn(weights, angle), "bias": bias}
        return iv.damage(model, turned, batch, task.loss, iv.zero(unit))

    directions = iv.directions("hidden", weights)
    norms = jnp.linalg.norm(weights, axis=0)
    return {
        "direction": iv.lesions(model, params, batch, directions, iv.zero, task.loss),
        "unit": jax.vmap(of_unit)(jnp.linspace(0, np.pi, angles, endpoint=False)),
        "guess": task.importance * norms**2 * density / 3,
    }


def exact(weights, bias, density, *, angles: int) -> dict:
    """Return the exact damages of removing directions and units of ONE model."""
    importance = tm.geometric_importance(bias.size, RATIO)

    def loss(weights, removed):
        projected = weights - jnp.outer(removed, removed @ weights)
        return tm.theory.expected_loss(projected, bias, density, importance, decoder=weights)

    def of_unit(angle):
        return loss(turn(weights, angle), jnp.zeros(len(weights)).at[0].set(1.0))

    def of_directions(angle):
        turned = turn(weights, angle)
        norms = jnp.maximum(jnp.linalg.norm(turned, axis=0), 1e-12)
        return jax.vmap(loss, (None, 1))(turned, turned / norms)

    places = jnp.linspace(0, np.pi, angles, endpoint=False)
    whole = jax.vmap(lambda angle: loss(turn(weights, angle), jnp.zeros(len(weights))))(places)
    directions = jax.lax.map(of_directions, places)
    return {
        "direction_exact": directions[0] - whole[0],
        "unit_exact": jax.vmap(of_unit)(places) - whole[0],
        "turned_loss": jnp.ptp(whole),
        "turned_direction": jnp.ptp(directions, axis=0).max(),
    }


def kinds(weights, bias, density, *, examples: int) -> dict[str, jax.Array]:
    """Return the damage per importance of three ablations of each direction of ONE model."""
    model, params = tm.ReLUOutput(len(weights)), {"weights": weights, "bias": bias}
    importance = tm.geometric_importance(bias.size, RATIO)
    task = tm.Task(tm.SparseUniform(bias.size, density), importance=importance)
    batch = task.features.sample(jax.random.key(17), examples)
    reference = {"hidden": batch @ weights.T}
    keys = jax.random.split(jax.random.key(18), examples)

    def of_part(part):
        def resampled(key, x):
            lesioned = iv.run(model, params, x, iv.resample(key, part, reference))
            return task.loss(x, lesioned) - task.loss(x, iv.run(model, params, x))

        edits = (iv.zero(part), iv.mean(part, reference))
        constant = [iv.damage(model, params, batch, task.loss, edit) for edit in edits]
        return jnp.stack([*constant, jax.vmap(resampled)(keys, batch).mean()])

    damages = jax.vmap(of_part)(iv.directions("hidden", weights)) / importance[:, None]
    return {"kinds": damages}


def stimulated(weights, bias, density, *, doses, examples: int) -> dict[str, jax.Array]:
    """Return dose-response curves of every output, measured and exact, along a direction."""
    model, params = tm.ReLUOutput(len(weights)), {"weights": weights, "bias": bias}
    batch = tm.SparseUniform(bias.size, density).sample(jax.random.key(19), examples)
    amounts, boxes = jnp.asarray(doses), all_boxes(bias.size, 2)
    present, gram = jnp.full(bias.size, density), weights.T @ weights
    longest = jnp.argmax(jnp.linalg.norm(weights, axis=0))
    direction = weights[:, longest] / jnp.linalg.norm(weights[:, longest])

    def of_output(output):
        part = iv.Part("hidden", (), direction[:, None])
        how = (model, params, batch, part, amounts, lambda outputs: outputs[output])
        shifted = bias[output] + amounts * (weights[:, output] @ direction)

        def mean(bias):
            return mean_output(gram[output], bias, present, boxes, signed=False)

        return iv.stimulation(*how).mean(axis=1), jax.vmap(mean)(shifted)

    measured, exactly = jax.vmap(of_output)(jnp.arange(bias.size))
    return {"response": measured, "response_exact": exactly, "stimulated": longest}


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    def cell(key, *, size, density):
        number, hidden = config.sizes[size]
        importance = tm.geometric_importance(number, RATIO)
        task = tm.Task(tm.SparseUniform(number, density), importance=importance)
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
    turns, size = {"angles": config.angles}, {"examples": config.examples}

    def of(measure, chosen: xr.Dataset, dims: dict, *, float64: bool = False, **how) -> xr.Dataset:
        models = (chosen[name] for name in ("weights", "bias", "density"))
        return tm.apply(functools.partial(measure, **how), *models, dims=dims, float64=float64)

    features = {"direction": ("feature",), "guess": ("feature",), "unit": ("angle",)}
    small, dedicated = best.isel(size=[0]), best.isel(size=[2])
    exact_dims = {"direction_exact": ("feature",), "unit_exact": ("angle",)}
    curves = {"response": ("output", "dose"), "response_exact": ("output", "dose")}
    found = [
        of(sampled, best, features, **turns, **size),
        of(exact, small, exact_dims, **turns, float64=True).isel(size=0, drop=True),
        of(kinds, dedicated, {"kinds": ("place", "kind")}, **size).isel(size=0, drop=True),
        of(stimulated, small, curves, doses=config.doses, **size).isel(size=0, drop=True),
    ]
    angles = np.linspace(0, np.pi, config.angles, endpoint=False)
    labels = {"angle": angles, "dose": list(config.doses), "kind": list(KINDS)}
    parts = [best, *found]
    for number, each in enumerate(parts):
        if "feature" in each.dims:
            parts[number] = each.assign_coords(feature=np.arange(each.sizes["feature"]))
    return xr.merge(parts, compat="override", join="outer").assign_coords(labels)


def rank_correlation(first: xr.DataArray, second: xr.DataArray) -> xr.DataArray:
    """Return Spearman's correlation over features."""

    def correlation(one, other):
        return float(stats.spearmanr(one, other, nan_policy="omit").statistic)

    core = [["feature"], ["feature"]]
    return xr.apply_ufunc(correlation, first, second, input_core_dims=core, vectorize=True)


def relative(measured: xr.DataArray, expected: xr.DataArray, over: str) -> xr.DataArray:
    """Return the largest difference as a share of the largest expected number."""
    difference = np.abs(measured - expected).max(over)
    return (difference / np.abs(expected).max(over)).max()


def claims(results: xr.Dataset) -> tm.Claims:
    first, larger, dedicated = results["size"].values
    models = f"trained models of {first}"
    small, p = results.sel(size=first), results["density"]
    for name, over, what in (
        ("direction", "feature", "the direction of each feature"),
        ("unit", "angle", "a unit, in each of the turned bases,"),
    ):
        says = f"The measured damage of removing {what} is the exact one in {models}, measured by "
        says += "the largest difference over densities as a share of the largest damage."
        worst = relative(small[name], small[f"{name}_exact"], over)
        yield tm.near(says, 0, worst, EXACT, within=0.07, threshold=SAMPLING)
    says = f"Turning the basis of the hidden layer does not change the exact loss of {models}."
    yield tm.at_most(says, 0, small["turned_loss"].max(), TURNED, slack=1e-10, threshold=FLOAT)
    says = "Turning the basis does not change the exact damage of removing a direction of "
    says += f"{models}."
    worst = small["turned_direction"].max()
    yield tm.at_most(says, 0, worst, TURNED, slack=1e-10, threshold=FLOAT)
    says = f"Turning the basis changes the exact damage of removing a unit of {models} at every "
    says += "density, measured by the smallest ratio of the largest damage to the smallest."
    factor = small["unit_exact"].max("angle") / small["unit_exact"].min("angle")
    yield tm.at_least(says, 1.1, factor.min(), ARBITRARY, threshold=OURS)
    ranks = rank_correlation(results["direction"], results["guess"])
    says = "The damage of removing a direction is in the order of importance x norm^2 in trained "
    says += f"models of {dedicated}, measured by the smallest rank correlation over densities."
    measured = ranks.sel(size=dedicated).min()
    yield tm.at_least(says, 0.9, measured, DEDICATED, threshold=OURS)
    order = "At one density or more the damages of five features in two dimensions are in the "
    order += "order of importance x norm^2. Those of twenty features in five dimensions are so at "
    order += "none."
    for size in (first, larger):
        says = f"In trained models of {size} superposition breaks the rule that the damage of "
        says += "removing a direction is in the order of importance x norm^2, measured by the "
        says += "largest rank correlation over densities."
        largest = ranks.sel(size=size).max()
        yield tm.at_most(says, 0.9, largest, FOUND, threshold=OURS, note=order)
    sparsest = float(p.min())
    says = "The damage of removing all directions, one at a time, is more than importance x norm^2 "
    says += f"x p/3 in {models} at density {sparsest:g}, measured by the ratio."
    factor = small["direction_exact"].sum("feature") / small["guess"].sum("feature")
    yield tm.at_least(says, 1.1, factor.sel(density=sparsest), FOUND, threshold=OURS)
    variance = p / 3 - p**2 / 4
    for kind, expected in (("zero", p / 3), ("mean", variance), ("resample", 2 * variance)):
        says = f"The damage of {kind} ablation of a dedicated feature is the closed form in "
        says += f"trained models of {dedicated}, measured by the largest relative difference."
        worst = np.abs(results["kinds"].sel(kind=kind) / expected - 1).max()
        yield tm.near(says, 0, worst, DEDICATED, within=0.07, threshold=SAMPLING)
    says = f"The mean response of every output to a dose is the exact one in {models}, measured by "
    says += "the largest difference as a share of the largest response."
    worst = relative(small["response"], small["response_exact"], "dose")
    yield tm.near(says, 0, worst, RESPONSE, within=0.07, threshold=SAMPLING)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(1, 3, size=(9.0, 3.2))
    small = results.isel(size=0)
    draw_turned(axes[0], small.sel(density=TURNED_AT, method="nearest"))
    draw_damages(axes[1], small)
    draw_doses(axes[2], small.sel(density=STIMULATED_AT, method="nearest"))
    return figure


def draw_turned(axes, model: xr.Dataset) -> None:
    turns = np.rad2deg(model["angle"])
    axes.plot(turns, model["unit_exact"], label="exact")
    axes.plot(turns, model["unit"], "o", ms=4, color="C0", label="measured")
    columns = model["weights"].transpose("dimension", "feature").values[:2]
    kept = np.flatnonzero(np.linalg.norm(columns, axis=0) > 0.5)
    places = np.rad2deg(np.arctan2(columns[1], columns[0])) % 180
    axes.plot(places[kept], model["direction_exact"][kept], "D", color="C1", label="feature")
    axes.set(xlabel="turn of the basis, degrees", ylabel="damage of removing unit 0")
    axes.set_title("A turn moves the unit along the\ncurve, and no feature")
    axes.margins(y=0.3)
    axes.legend(loc="upper right")


def draw_damages(axes, small: xr.Dataset) -> None:
    labels = {"unit": "units", "direction": "directions", "guess": "$I_i |W_i|^2 p / 3$"}
    for number, (name, text) in enumerate(labels.items()):
        exactly = small["unit_exact" if name == "unit" else "direction_exact"]
        given = small[name].transpose(*exactly.dims)
        style = {"color": f"C{number}", "ms": 4, "mfc": "none" if name == "guess" else None}
        points = (exactly.values.ravel(), given.values.ravel())
        axes.loglog(*points, plotting.MARKERS[number], label=text, **style)
    ends = [float(small["direction_exact"].min()), float(small["unit_exact"].max())]
    axes.loglog(ends, ends, "0.5", lw=1)
    axes.set(xlabel="exact damage", ylabel="measured damage", ylim=(ends[0] / 4, ends[1] * 2))
    axes.set_title("The exact loss knows\nevery damage")
    for along in ("x", "y"):
        plotting.plain_ticks(axes, along)
    axes.legend(loc="upper left")


def draw_doses(axes, model: xr.Dataset) -> None:
    own = int(model["stimulated"])
    for output in range(model.sizes["output"]):
        color = "C1" if output == own else "0.6"
        name = "its own output" if output == own else "other outputs"
        here = model.isel(output=output)
        axes.plot(here["dose"], here["response_exact"], color=color)
        label = name if output in (own, int(own == 0)) else None
        axes.plot(here["dose"], here["response"], "o", ms=4, color=color, label=label)
    axes.set(xlabel="dose along the direction of a feature", ylabel="mean output")
    axes.set_title("A dose drives the feature,\na negative one its antipode")
    axes.legend(loc="upper center")


if __name__ == "__main__":
    experiment.main(__file__)
