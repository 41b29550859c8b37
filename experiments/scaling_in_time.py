r"""Scaling in time: does superposition make the loss fall as 1 / time, whatever the features?

Claim      A student that learns each feature on its own has a power law of training time whose
           exponent depends on the features. In a bottleneck, exponents of students with a ReLU
           depend less on the features, as a paper says. They are about a half early in training and
           about 0.8 late, less than the 1 of the paper, and the longer one trains, the smaller they
           look. These students are not faster. A linear student is faster in a bottleneck, but it
           cannot learn most of the teacher there, and its exponents depend on the features.
Reproduces Chen, Chen, Liu and Gore (2026), "Superposition unifies power-law training dynamics",
           of which the abstract was read. The students below are our reading of it.
Settings   A teacher multiplies feature i by i^(-b/2), and feature i has the variance i^(-a). The
           student is V^T B V x with random directions V of length 1, and learns B from 0 by
           gradient flow: its loss is exact. The student with a ReLU has sparse features of at least
           0, learns a bias too, and is trained by stochastic gradient descent. The excess is the
           loss above its end, which is the lowest measured loss of students with a ReLU. It falls
           from 1/2 to 1/10 of its start while an exponent is early, and from 1/10 to 1/50 while it
           is late. All students with a ReLU have one learning rate, which was not tuned.
Selection  None: all seeds.
Command    toymodels run experiments/scaling_in_time.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.theory import gradient_flow as theory

CHEN = tm.paper(
    "Chen, Chen, Liu and Gore (2026), Superposition unifies power-law training dynamics"
)
FORMULA = tm.prediction("Features that are not yet learned at time t have a variance below 1 / t")
FOUND = tm.finding("found here")
EARLY, LATE = (0.5, 0.1), (0.1, 0.02)
"""An exponent is measured while the excess falls from the first to the second of these shares."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 1024
    widths: tuple[int, ...] = (256, 64, 16)
    """The dimensions of the bottleneck of the linear student."""
    variances: tuple[float, ...] = (1.5, 2.0)
    """The exponents a of the variances of the features."""
    gains: tuple[float, ...] = (0.0, 0.5, 1.0)
    """The exponents b of the squared gains of the teacher."""
    times: int = 400
    relu_features: int = 64
    relu_widths: tuple[int, ...] = (16, 8)
    steps: int = 32_000
    """The updates of the student with a ReLU."""
    batch: int = 128
    rate: float = 0.3
    num_seeds: int = 2


SMOKE = Config(
    num_features=32,
    widths=(16, 8),
    variances=(2.0,),
    gains=(0.0, 1.0),
    times=50,
    relu_features=8,
    relu_widths=(4,),
    steps=30,
    batch=8,
    num_seeds=1,
)


def run(config: Config) -> xr.Dataset:
    return xr.merge([linear_students(config), relu_students(config)]).assign_attrs(
        num_features=config.num_features, relu_features=config.relu_features
    )


def linear_students(config: Config) -> xr.Dataset:
    """Return the exact losses of linear students; one as wide as the features has no bottleneck."""
    count = config.num_features
    times = np.append(0.0, np.geomspace(1e-4, 1e5, config.times - 1))
    rank = np.arange(1, count + 1.0)
    dims = ("width", "variance", "gain", "seed")
    widths = (count, *config.widths)
    shape = (len(widths), len(config.variances), len(config.gains), config.num_seeds)
    excess, floor = np.empty((*shape, times.size)), np.empty(shape)
    for place in np.ndindex(*shape):
        width, seed = widths[place[0]], place[3]
        variance = rank ** -config.variances[place[1]]
        gain = rank ** (-config.gains[place[2]] / 2)
        if width == count:
            curve = theory.feature_curve(times, variance, gain)
        else:
            random = np.random.default_rng(seed).normal(size=(width, count))
            embedding = random / np.linalg.norm(random, axis=0)
            curve = theory.bottleneck_curve(times, embedding, variance, gain)
        start = curve.excess[0] + curve.floor
        excess[place], floor[place] = curve.excess / start, curve.floor / start
    return xr.Dataset(
        {"excess": ((*dims, "time"), excess), "floor": (dims, floor)},
        {
            "time": times,
            "width": list(widths),
            "variance": list(config.variances),
            "gain": list(config.gains),
            "seed": range(config.num_seeds),
        },
    )


def relu_students(config: Config) -> xr.Dataset:
    """Train students with a ReLU on sparse features."""
    count = config.relu_features
    steps = tm.log_spaced(config.steps, 60)

    def cell(key, *, width, variance, gain):
        key_embedding, key_data = jax.random.split(key)
        rank = jnp.arange(1, count + 1.0)
        frequency = rank**-variance
        features = tm.SparseUniform(count, frequency / jnp.sum(frequency))
        gains = rank ** (-gain / 2)
        directions = jax.random.normal(key_embedding, (width, count))
        embedding = jnp.eye(count) if width == count else geometry.unit_columns(directions)

        def loss(params, x):
            hidden = params["matrix"] @ (embedding @ x)
            output = jax.nn.relu(embedding.T @ hidden + params["bias"])
            return jnp.sum((output - gains * x) ** 2)

        start = {"matrix": jnp.zeros((width, width)), "bias": jnp.full(count, 1e-3)}
        fitted = tm.fit(
            key_data,
            start,
            loss,
            features.sample,
            optimizer=optax.sgd(config.rate),
            steps=config.steps,
            batch=config.batch,
            snapshots=steps,
        )
        examples = features.sample(jax.random.key(0), 4096)

        def test(params):
            return jnp.mean(jax.vmap(lambda x: loss(params, x))(examples))

        return {"relu_loss": jax.lax.map(test, fitted.snapshots)}

    results = tm.sweep(
        cell,
        static={"width": (count, *config.relu_widths)},
        axes={"variance": config.variances, "gain": config.gains},
        num_seeds=config.num_seeds,
        dims={"relu_loss": ("step",)},
    ).rename(width="relu_width")
    results["relu_loss"] = results["relu_loss"] / results["relu_loss"].isel(step=0)
    return results.assign_coords(step=list(steps))


def first_time(excess: xr.DataArray, share: float, time: str) -> xr.DataArray:
    """Return when the excess falls below a share of its start, between points of a power law."""

    def one(values, times):
        relative, later = values / values[0], slice(1, None)
        with np.errstate(divide="ignore"):
            fall = -np.log(np.maximum(relative[later], 1e-300))
        return np.exp(np.interp(-np.log(share), np.maximum.accumulate(fall), np.log(times[later])))

    return xr.apply_ufunc(
        one, excess, excess[time], input_core_dims=[[time], [time]], vectorize=True
    )


def exponent(excess: xr.DataArray, time: str, shares: tuple[float, float]) -> xr.DataArray:
    """Return the exponent of the excess against time while it falls between two shares."""
    high, low = (first_time(excess, share, time) for share in shares)
    return np.log(shares[0] / shares[1]) / np.log(low / high)


def relu_excess(results: xr.Dataset, *, share: float = 1.0) -> xr.DataArray:
    """Return the loss of students with a ReLU above its lowest one in a share of the training."""
    kept = results["step"] <= share * results["step"].max()
    loss = results["relu_loss"].isel(step=kept.values)
    return loss - loss.min("step")


def formula(results: xr.Dataset):
    """Return the exponent of infinitely many features without a bottleneck."""
    return theory.exponent_of_features(results["variance"], results["gain"])


def spread(values: xr.DataArray) -> float:
    """Return the difference of the largest and the smallest of the means over seeds."""
    means = values.mean("seed")
    return float(means.max() - means.min())


def claims(results: xr.Dataset) -> tm.Claims:
    features, width = results.attrs["num_features"], int(results["width"][-1])
    linear = exponent(results["excess"], "time", EARLY)
    early, late = (exponent(relu_excess(results), "step", each) for each in (EARLY, LATE))
    inside = slice(1, None)
    times = first_time(results["excess"], EARLY[1], "time").mean("seed")
    updates = first_time(relu_excess(results), EARLY[1], "step").mean("seed")

    says = "Without a bottleneck the exponent with which the excess loss of a linear student falls "
    says += "in training time depends on the variances and gains of the features, measured by the "
    says += "difference of the largest and the smallest one."
    ours = "Ours, half of what the formula says."
    yield tm.at_least(says, 0.3, spread(linear.isel(width=0)), CHEN, threshold=ours)
    says = "Without a bottleneck the exponent with which the excess loss of a linear student falls "
    says += "in training time is (a + b - 1) / a for variances i^(-a) and gains i^(-b/2) of "
    says += "feature i, measured by the largest difference."
    ours = "Ours, because sums over ranks are integrals only of many features."
    off = abs(linear.isel(width=0) - formula(results)).max()
    yield tm.near(says, 0, off, FORMULA, within=0.1, threshold=ours)
    says = "In a bottleneck the excess loss of students with a ReLU falls as 1 / time late in "
    says += "training, measured by the mean exponent over all features and widths."
    about = "Ours, because the abstract says about 1."
    note = "It is at the edge, and was within 0.2 after half of these updates; it moves by 0.02 "
    note += (
        "with other seeds. The last loss is still above its limit, so that the excess falls too "
    )
    note += "fast at the end, and less so the longer one trains."
    mean = late.isel(relu_width=inside).mean()
    yield tm.near(says, 1, mean, CHEN, within=0.2, threshold=about, note=note)
    says = "In a bottleneck the exponent with which the excess loss of students with a ReLU falls "
    says += "late in training looks larger after a quarter of the updates than after all, measured "
    says += "by the difference of the means over features and widths."
    ours = "Ours, after a first run, because it is more than rounding."
    short = exponent(relu_excess(results, share=0.25), "step", LATE).isel(relu_width=inside).mean()
    yield tm.at_least(says, 0.03, short - mean, FOUND, threshold=ours)
    says = "In the narrowest bottleneck the exponents with which the excess loss of students with "
    says += "a ReLU falls in training depend less on the features, measured by the larger one, "
    says += "early or late, of the ratios of their spread over features with and without a "
    says += "bottleneck."
    spreads = [
        spread(each.isel(relu_width=-1)) / spread(each.isel(relu_width=0)) for each in (early, late)
    ]
    ours = "Ours, because the abstract says that they do not depend on them."
    yield tm.at_most(says, 0.5, max(spreads), CHEN, threshold=ours)
    says = "A bottleneck makes students with a ReLU faster, measured by the largest ratio of the "
    says += "updates without a bottleneck to those with one, until a tenth of the excess loss is "
    says += "left."
    note = "They need about as many updates or more, although they can learn less. The abstract "
    note += "does not say what the student of the paper is, and it may have other rates."
    ratio = (updates.isel(relu_width=0) / updates.isel(relu_width=inside)).max()
    ours = "Ours, because it is a fifth of the largest factor of the abstract."
    yield tm.at_least(says, 2, ratio, CHEN, threshold=ours, note=note)
    says = f"In a bottleneck of {width} dimensions the excess loss of linear students falls as 1 / "
    says += "time, measured by the largest difference of its exponent from 1 over features."
    note = "Exponents below 1 rise as the bottleneck narrows, but they still depend on the "
    note += "features, so the ReLU matters."
    off = abs(linear.isel(width=-1).mean("seed") - 1).max()
    yield tm.near(says, 0, off, CHEN, within=0.2, threshold=about, note=note)

    says = "In a bottleneck the excess loss of students with a ReLU follows no single power law of "
    says += "training time, because its exponent is smaller early than late, measured by the "
    says += "difference of the means over features."
    rise = (late - early).isel(relu_width=inside).mean()
    yield tm.at_least(says, 0.2, rise, FOUND, threshold="Ours, after a first run.")
    says = f"A linear student in a bottleneck of {width} dimensions is more than n / m = "
    says += f"{features / width:g} times as fast as one without, measured by the smallest ratio of "
    says += "the times until a tenth of the excess loss is left."
    ratio = (times.isel(width=0) / times.isel(width=-1)).min()
    ours = "Ours, because eigenvalues of V V^T are about n / m, and multiply all rates."
    yield tm.at_least(says, features / width, ratio, FOUND, threshold=ours)
    says = "The loss that a linear student of n features keeps in a bottleneck of m dimensions is "
    says += "1 - m / n of its first loss, measured by the largest difference over features and "
    says += "widths."
    off = abs(results["floor"] - (1 - results["width"] / features)).max()
    yield tm.near(says, 0, off, FOUND, within=0.02, threshold="Ours, because V is random.")
    says = "In a bottleneck a student with a ReLU learns most of what a linear one of its width "
    says += "cannot, measured by the largest ratio of their last losses."
    narrow = results["relu_loss"].isel(relu_width=inside, step=-1)
    ratio = narrow / (1 - narrow["relu_width"] / results.attrs["relu_features"])
    yield tm.at_most(
        says, 0.5, ratio.max(), FOUND, threshold="Ours, because most is more than half."
    )


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(1, 3, size=(9, 3.6))
    draw_linear(axes[0], results)
    draw_relu(axes[1], results)
    draw_exponents(axes[2], results)
    return figure


def draw_linear(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the excess of linear students for the smallest and the largest gain exponent."""
    here = results["excess"].isel(variance=0, seed=0)
    for color, gain in zip(("C0", "C1"), results["gain"].values[[0, -1]], strict=True):
        for at, style in ((0, "-"), (-1, "--")):
            values = here.sel(gain=gain).isel(width=at)
            name = "no bottleneck" if at == 0 else f"{int(values.width)} dimensions"
            label = f"{name}, $b$ = {gain:g}"
            axes.loglog(values.time[1:], values[1:] / values[0], style, color=color, label=label)
    axes.set(xlabel="time", ylabel="excess / first excess", ylim=(1e-3, 9))
    axes.set_xlim(1e-3, 1e5)
    axes.set_title("Linear student (exact): faster,\nbut most is never learned")
    axes.legend(fontsize=7, loc="upper right", handlelength=1.6)


def draw_relu(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the losses of all seeds of students with a ReLU."""
    here = results["relu_loss"].isel(variance=0)
    for color, gain in zip(("C0", "C1"), results["gain"].values[[0, -1]], strict=True):
        for at, style in ((0, "-"), (-1, "--")):
            values = here.sel(gain=gain).isel(relu_width=at)
            name = "no bottleneck" if at == 0 else f"{int(values.relu_width)} dimensions"
            for seed in values.seed.values:
                label = f"{name}, $b$ = {gain:g}" if seed == 0 else None
                own = values.sel(seed=seed)
                axes.loglog(own.step[1:], own[1:], style, color=color, lw=1.2, label=label)
    axes.set(xlabel="updates", ylabel="loss / first loss", ylim=(1e-3, 1.3))
    seeds = results.sizes["seed"]
    axes.set_title(f"Student with a ReLU ({seeds} seeds):\nnot faster in a bottleneck")
    axes.legend(fontsize=7, loc="lower left")


def draw_exponents(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw exponents of students with a ReLU against those of the formula."""
    known = formula(results)
    for shares, inside in ((EARLY, "none"), (LATE, None)):
        values = exponent(relu_excess(results), "step", shares).mean("seed")
        for at, look, name in ((0, "oC2", "no bottleneck"), (-1, "sC3", "bottleneck")):
            own = values.isel(relu_width=at)
            across = known.transpose(*own.dims).values.ravel()
            label = None if inside else f"{name} (open: early)"
            axes.plot(across, own.values.ravel(), look, ms=6, mfc=inside, label=label)
    ends = [float(known.min()), float(known.max())]
    axes.plot(ends, ends, color="0.6", lw=1, label="formula (linear student)")
    axes.axhline(1, color="0.6", ls=":", lw=1, label="abstract (bottleneck)")
    axes.set(xlabel="formula without bottleneck", ylabel="exponent of the excess", ylim=(0, 1.3))
    axes.set_title("ReLU: exponents in a bottleneck\nare more alike, early and late")
    axes.legend(fontsize=7, loc="lower right")


if __name__ == "__main__":
    experiment.main(__file__)
