r"""What linear probes read off superposed features, beside the best that any readout can do.

Claim      No probe beats the Bayes ceiling, which is exact here. Probes reach it for a feature
           alone in its dimension; in superposition they leave much unread, most of all of features
           that the model hardly represents. Random weights of the same length are read BETTER on
           average over features than trained ones: an AUROC above chance says little about what
           training did. Labels without meaning are memorised as Cover's theorem says.
Reproduces Controls of Hewitt & Liang (2019), "Designing and Interpreting Probes with Control
           Tasks", and Cover (1965), on the models of Elhage et al. (2022).
Selection  None: all seeds, all features. A feature is represented if its norm is above 1/2.
Settings   Ours: 12 binary features of geometric importance in 4 dimensions, so that the posterior
           is a sum over 2^12 states; Gaussian noise on the activations that are read. Probes are
           fitted to 2048 examples and scored on 2048 others.
Command    toymodels run experiments/probing.py
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import lax
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry, probing
from toymodels.theory import memorisation

MODELS = ("trained", "random")
READOUTS = (
    "posterior", "difference of means", "mass-mean", "logistic", "output", "random direction",
)  # fmt: skip
PROBES = ["difference of means", "mass-mean", "logistic"]
CHUNK = 256
"""Examples whose posterior is computed at once: their states stay in the cache."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 12
    hidden: int = 4
    importance_ratio: float = 0.85
    densities: tuple[float, ...] = (0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05)
    noises: tuple[float, ...] = (0.1, 0.3)
    """Standard deviations of what is added to each coordinate of the activations read."""
    examples: int = 2048
    """For fitting, and as many for scoring."""
    penalty: float = 0.01
    """Of the logistic probe."""
    sizes: tuple[int, ...] = (6, 8, 10, 12, 16, 20, 24, 48, 120, 240)
    """Numbers of examples with labels from coin tosses; each divides the last."""
    tosses: int = 32
    """Of labels, for each of these sizes, in each cell."""
    num_seeds: int = 6
    steps: int = 4000
    batch: int = 512
    learning_rate: float = 3e-3


SMOKE = Config(
    num_features=4, hidden=2, densities=(0.5, 0.3), noises=(0.3,), examples=256, sizes=(6, 48),
    tosses=4, num_seeds=2, steps=20, batch=16,
)  # fmt: skip


def read(
    config: Config, density: Any, features: Any, noise: Any, weights: Any, bias: Any, others: Any
) -> tuple[Any, dict[str, Any]]:
    """Activations of one model in noise of some level, and all that is read off them."""
    level, normal = noise
    seen, fresh = jnp.split(features @ weights.T + level * normal, 2)
    labels, true = jnp.split(features > 0, 2)
    states, log_weights = probing.binary_states(jnp.full(config.num_features, density))

    def logistic(hidden: Any, labels: Any) -> probing.Probe:
        return probing.logistic(hidden, labels, penalty=config.penalty)

    def posterior(some: Any) -> Any:
        odds = partial(probing.posterior_log_odds, some, states @ weights.T, log_weights)
        return jax.vmap(lambda state: odds(state, noise=level), 1, 1)(states)

    # Examples are independent, so a fixed permutation is as good as a random one.
    permuted = jnp.roll(labels, 1, axis=0)
    each = jax.vmap(logistic, (None, 1))(seen, jnp.concatenate([labels, permuted], axis=1))
    fitted, control = (jax.tree.map(lambda part, n=n: jnp.split(part, 2)[n], each) for n in (0, 1))
    probes = [
        jax.vmap(probing.difference_of_means, (None, 1))(seen, labels),
        jax.vmap(probing.mass_mean, (None, 1))(seen, labels),
        fitted,
    ]
    random = probing.Probe(others.T, jnp.zeros(config.num_features))
    chunks = fresh.reshape(-1, min(CHUNK, config.examples), config.hidden)
    each_score = jax.vmap(probing.scores, (0, None), 1)
    scores = [
        lax.map(posterior, chunks).reshape(config.examples, -1),
        *(each_score(probe, fresh) for probe in probes),
        jax.nn.relu(fresh @ weights + bias[None, :]),
        each_score(random, fresh),
        each_score(control, seen),
    ]
    truths = jnp.stack([true] * (len(scores) - 1) + [permuted])
    placed = jax.vmap(jax.vmap(probing.placements, (1, 1)))(jnp.stack(scores), truths)
    auroc = jnp.mean(placed, 2, where=jnp.moveaxis(truths, 2, 1))
    below = placed[:-1] - placed[:1]
    variances = (
        jnp.var(below, 2, where=chosen.T[None]) / jnp.sum(chosen, 0)[None]
        for chosen in (true, ~true)
    )
    directions = jnp.stack([probe.direction for probe in probes])
    products = jnp.einsum("pfh,hf->pf", directions, weights)
    lengths = jnp.linalg.norm(directions, axis=2) * jnp.linalg.norm(weights, axis=0)[None, :]
    return seen, {
        "auroc": auroc[:-1],
        "error": jnp.sqrt(sum(variances)),
        "permuted": auroc[-1],
        "along_weights": products / lengths,
    }


def memorise(config: Config, key: Any, hidden: Any) -> Any:
    """Accuracy on labels from coin tosses, of the probe fitted to them: tosses x sizes."""
    largest = config.sizes[-1]

    def accuracy(coins: Any, size: Any) -> Any:
        # Copies of the first examples, all as often, change neither what can be separated nor the
        # accuracy, and make all sizes one program.
        copies = jnp.arange(largest) % size
        labels = coins[copies]
        # So little penalty that what can be separated is.
        probe = probing.logistic(hidden[copies], labels, penalty=1e-7)
        reached = probing.accuracy(probing.scores(probe, hidden[copies]), labels)
        return jnp.where(jnp.all(labels == labels[0]), 1.0, reached)  # a constant fits one class

    coins = jax.random.bernoulli(key, shape=(config.tosses, len(config.sizes), largest))
    return jax.vmap(jax.vmap(accuracy), (0, None))(coins, jnp.asarray(config.sizes))


def run(config: Config) -> xr.Dataset:
    model = tm.ReLUOutput(hidden=config.hidden)
    importance = tm.geometric_importance(config.num_features, config.importance_ratio)

    def cell(key: Any, *, density: Any) -> dict[str, Any]:
        key_train, key_random, key_features, key_noise, key_coin = jax.random.split(key, 5)
        world = tm.Binary(config.num_features, density)
        trained = tm.train(
            key_train,
            model,
            tm.Task(world, importance=importance),
            optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps)),
            steps=config.steps,
            batch=config.batch,
        )
        weights, bias = trained.params["weights"], trained.params["bias"]
        random = model.init(key_random, jnp.zeros(config.num_features))["params"]["weights"]
        random = random * jnp.linalg.norm(weights) / jnp.linalg.norm(random)
        both = jnp.stack([weights, random])
        features = world.sample(key_features, 2 * config.examples)
        normal = jax.random.normal(key_noise, (2 * config.examples, config.hidden))
        biases = jnp.stack([bias, jnp.zeros_like(bias)])

        def at_level(level: Any) -> tuple[Any, dict[str, Any]]:
            one = partial(read, config, density, features, (level, normal))
            return jax.vmap(one)(both, biases, both[::-1])

        hidden, readings = lax.map(at_level, jnp.asarray(config.noises))
        return {
            **readings,
            "loss": trained.loss,
            "norm": jax.vmap(geometry.feature_norms)(both),
            "dimensionality": jax.vmap(geometry.feature_dimensionality)(both),
            "memorised": memorise(config, key_coin, hidden[0, 0]),
        }

    readings = ("noise", "model", "readout", "feature")
    results = tm.sweep(
        cell,
        axes={"density": config.densities},
        num_seeds=config.num_seeds,
        dims={
            "auroc": readings,
            "error": readings,
            "along_weights": ("noise", "model", "probe", "feature"),
            "permuted": ("noise", "model", "feature"),
            "norm": ("model", "feature"),
            "dimensionality": ("model", "feature"),
            "memorised": ("toss", "size"),
        },
    )
    return results.assign_coords(
        noise=list(config.noises),
        model=list(MODELS),
        readout=list(READOUTS),
        probe=PROBES,
        size=list(config.sizes),
        importance=("feature", np.asarray(importance)),
    ).assign_attrs(hidden=config.hidden, examples=config.examples)


def excess(results: xr.Dataset) -> xr.DataArray:
    """By how many standard errors each readout beats the posterior on the same examples."""
    above = results["auroc"] - results["auroc"].sel(readout="posterior")
    # Where two readouts agree on every example, the difference has no error: NaN, if it is 0.
    return (above / results["error"]).drop_sel(readout="posterior")


def rank_correlation(results: xr.Dataset) -> xr.DataArray:
    """Of D_i and the AUROC of the logistic probe in trained models, at each density."""
    trained = results.sel(model="trained")
    found: list[Any] = []
    for density in results.density:
        one = trained.sel(density=density).transpose("seed", ...)
        pair = (one["dimensionality"], one["auroc"].sel(readout="logistic"))
        first, second = (np.ravel(values) for values in pair)
        found.append(stats.spearmanr(first, second))
    return xr.zeros_like(results.density) + np.array([float(one.statistic) for one in found])


def separated(results: xr.Dataset) -> xr.DataArray:
    """Share of labels from coin tosses that a probe fits without an error."""
    return (results["memorised"] == 1).mean(("density", "seed", "toss"))


def cover(results: xr.Dataset) -> xr.DataArray:
    """The same by Cover's theorem."""
    parameters = results.attrs["hidden"] + 1
    share = [memorisation.separability(int(size), parameters) for size in results["size"]]
    return xr.zeros_like(separated(results)) + np.array(share)


def least_squares_accuracy(results: xr.Dataset, size: Any) -> Any:
    """On coin tosses: own margins h = d / N of their prediction, the rest normal, h (1 - h)."""
    leverage = (results.attrs["hidden"] + 1) / size
    return stats.norm.cdf(np.sqrt(leverage / (1 - leverage)))


def permuted_auroc(results: xr.Dataset) -> xr.DataArray:
    """On permuted labels: means of normal classes are a chi variable of `hidden` degrees apart."""
    # Quantiles in place of an integral.
    chi = stats.chi.ppf((np.arange(1000) + 0.5) / 1000, results.attrs["hidden"])
    density = results.density
    scale = (2 * results.attrs["examples"] * density * (1 - density)) ** -0.5
    values = stats.norm.cdf(np.outer(scale, chi)).mean(axis=1)
    return xr.DataArray(values, {"density": density}, ("density",))


def claims(results: xr.Dataset) -> list[tm.Claim]:
    sharp, blurred = results.isel(noise=0), results.isel(noise=-1)
    gap = results["auroc"].sel(readout="posterior") - results["auroc"].sel(readout="logistic")
    lacks = gap.sel(model="random").mean(("density", "seed", "feature"))
    trained = sharp.sel(model="trained")
    represented = trained["norm"] > 0.5
    alone = represented & (trained["dimensionality"] > 0.98)
    share, count = cover(results), results["memorised"].size / results.sizes["size"]
    deviation = (separated(results) - share) / (
        (share * (1 - share)).clip(1 / count) / count
    ) ** 0.5
    permuted = results["permuted"].mean(("seed", "noise", "model", "feature"))
    mean = sharp["auroc"].mean(("seed", "feature")).sel(readout="logistic")
    kept = trained["auroc"].where(represented).mean(("seed", "feature"))
    correlation = rank_correlation(sharp)
    flattest = results.density[int(np.argmin(correlation.values))]
    spread = trained["dimensionality"].where(represented).sel(density=flattest)
    along = sharp["along_weights"].sel(probe="mass-mean")
    return [
        tm.Claim(
            "no readout beats the posterior: largest excess of AUROC in standard errors, over all "
            "readouts, models, noises and features",
            "Neyman and Pearson (1933)",
            expected=4.0,
            measured=float(excess(results).max()),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.IDENTITY,
            threshold="ours: four standard errors, for the largest of many",
        ),
        tm.Claim(
            "a represented feature alone in its dimension (D_i > 0.98): largest AUROC that the "
            f"logistic probe lacks to the ceiling, noise {float(blurred.noise):g}",
            "the posterior is monotone in W_i . h if no other feature is along W_i",
            expected=0.0,
            measured=float(gap.sel(model="trained").isel(noise=-1).where(alone).max()),
            tolerance=0.002,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling",
        ),
        tm.Claim(
            "largest AUROC that the logistic probe lacks to the ceiling, trained models",
            "superposition hides features from linear readouts, not from all",
            expected=0.2,
            measured=float(gap.sel(model="trained").max()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.FINDING,
            threshold="ours: a gap that matters",
        ),
        tm.Claim(
            "noise takes first what no linear probe reads: mean AUROC that the logistic probe "
            "lacks in random weights, the most noise over the least",
            "toymodels.analysis.probing.posterior_log_odds",
            expected=0.5,
            measured=float(lacks.isel(noise=-1) / lacks.isel(noise=0)),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.FINDING,
            threshold="ours: half",
        ),
        tm.Claim(
            "AUROC rises with D_i at a fixed density: least rank correlation, trained models",
            "feature dimensionality of Elhage et al. (2022)",
            expected=0.5,
            measured=float(correlation.min()),
            bound=tm.Bound.AT_LEAST,
            note=f"At density {float(flattest):g} most features are represented nearly alike, D_i "
            f"{float(spread.mean()):.2g} with a standard deviation of {float(spread.std()):.1g}: "
            f"ranks hang on little. Median over densities: {float(correlation.median()):.2g}.",
            kind=tm.Kind.FINDING,
            threshold="ours: clearly correlated",
        ),
        tm.Claim(
            "mean AUROC over all features of random weights minus that of trained ones of the same "
            "length, logistic probe, the least over densities",
            "criticism of probes: random projections keep what is linear",
            expected=0.0,
            measured=float((mean.sel(model="random") - mean.sel(model="trained")).min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.FINDING,
        ),
        tm.Claim(
            "the features that a trained model represents are read better than those of random "
            "weights, by the same measure at the least density",
            "what training is for",
            expected=0.0,
            measured=float(
                (kept.sel(readout="logistic") - mean.sel(model="random")).sel(
                    density=results.density.min()
                )
            ),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PREDICTION,
        ),
        tm.Claim(
            "mass-mean is along W_i itself for features that a trained model represents, mean "
            "cosine",
            "training makes each direction its own best linear decoder",
            expected=0.99,
            measured=float(along.sel(model="trained").where(represented).mean()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: eight degrees",
        ),
        tm.Claim(
            "and in random weights it is turned away from it, mean cosine",
            "the direction is Cov(h)^-1 W_i",
            expected=0.95,
            measured=float(along.sel(model="random").mean()),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: eighteen degrees",
        ),
        tm.Claim(
            "AUROC of the model's own output minus that of the logistic probe, mean over "
            "represented features, least over densities",
            "the output W_i . h + b_i of a tied model, through ReLU",
            expected=-0.01,
            measured=float((kept.sel(readout="output") - kept.sel(readout="logistic")).min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: what a rank could not see in a figure",
        ),
        tm.Claim(
            "labels from coin tosses are separated as often as in Cover's theorem, largest "
            "deviation in standard errors",
            "Cover (1965)",
            expected=0.0,
            measured=float(np.abs(deviation).max()),
            tolerance=4.0,
            kind=tm.Kind.PREDICTION,
            threshold="ours: four standard errors, for the largest of many",
        ),
        tm.Claim(
            f"accuracy on {int(results['size'][-1])} such labels, of the probe fitted to them",
            "least squares of normal variables",
            expected=float(least_squares_accuracy(results, results["size"][-1])),
            measured=float(results["memorised"].isel(size=-1).mean()),
            tolerance=0.01,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling and correlated labels",
        ),
        tm.Claim(
            "AUROC on permuted labels, of the probe fitted to them: largest deviation of a mean "
            "from that of normal variables",
            "a chi variable of as many degrees as dimensions",
            expected=0.0,
            measured=float(np.abs(permuted - permuted_auroc(results)).max()),
            tolerance=0.01,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling",
        ),
    ]


def draw_means(axes: Any, results: xr.Dataset) -> None:
    """Means over features, with the standard deviation over seeds."""
    lines = [
        ("trained", "posterior", "k", "-", "Bayes ceiling"),
        ("random", "posterior", "k", ":", "ceiling, random weights"),
        ("trained", "logistic", "C0", "-", "logistic probe"),
        ("random", "logistic", "C0", ":", "probe, random weights"),
        ("trained", "output", "C1", "--", "the model's own output"),
        ("trained", "random direction", "0.6", "-", "random direction, better sign"),
    ]
    auroc = results["auroc"]
    folded = np.abs(auroc - 0.5) + 0.5
    means = auroc.where(auroc["readout"] != "random direction", folded).mean("feature")
    permuted = results["permuted"].sel(model="trained").mean("feature")
    for model, readout, color, line, label in lines:
        chosen = means.sel(model=model, readout=readout)
        axes.errorbar(
            results.density, chosen.mean("seed"), chosen.std("seed"), color=color, linestyle=line,
            label=label, elinewidth=0.8,
        )  # fmt: skip
    axes.errorbar(
        results.density, permuted.mean("seed"), permuted.std("seed"), fmt=".", color="C3",
        label="probe on permuted labels",
    )  # fmt: skip
    # Not `plot`, whose lines come first in a legend.
    theory = permuted_auroc(results)
    axes.errorbar(
        results.density, theory, color="C3", linewidth=0.8, label="the same, normal variables"
    )
    axes.set(xscale="log", ylim=(0.48, 1.2), ylabel="AUROC, mean over all features")
    axes.set_yticks(np.arange(0.5, 1.01, 0.1))
    axes.set_title("all features: random weights are read better")
    axes.legend(ncols=2, fontsize=6.5, loc="upper center", columnspacing=1.0)


def draw_map(
    figure: Any, axes: Any, results: xr.Dataset, values: xr.DataArray, limits: Any
) -> None:
    """Of trained models, mean over seeds: density to the right, importance upwards."""
    shown = values.mean("seed").assign_coords(feature=results.importance.values)
    image = plotting.log_image(axes, shown, x="density", y="feature", norm=Normalize(*limits))
    ticks = (0.2, 0.5, 1)
    axes.set(ylabel="importance $I_i$", yticks=ticks, yticklabels=ticks)
    figure.colorbar(image, ax=axes, label="AUROC")


def draw_memory(axes: Any, results: xr.Dataset) -> None:
    """Share of labels fitted without an error, and the accuracy of the fit."""
    fine = np.arange(results.attrs["hidden"] + 2, 2 * int(results["size"][-1]))
    parameters = results.attrs["hidden"] + 1
    share = [memorisation.separability(int(size), parameters) for size in fine]
    axes.plot(fine / parameters, share, "k", label="Cover's theorem")
    ratio = results["size"] / parameters
    axes.plot(ratio, separated(results), "o", color="C0", label="share fitted without an error")
    axes.plot(
        fine / parameters, least_squares_accuracy(results, fine), color="C3", linewidth=0.8,
        label="least squares, normal variables",
    )  # fmt: skip
    accuracy = results["memorised"].mean(("density", "seed", "toss"))
    axes.plot(ratio, accuracy, ".", color="C3", label="accuracy")
    axes.axvline(2, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xscale="log", xlabel="examples per parameter, $N / d$", xticks=(1, 2, 5, 10, 20, 50))
    axes.set_xticklabels([1, 2, 5, 10, 20, 50])
    axes.minorticks_off()
    axes.set(ylabel="of labels from coin tosses", title="what labels without meaning allow")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.33), fontsize=7)


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 3, size=(11.8, 6.8), width_ratios=(1.2, 1, 1))
    sharp = results.isel(noise=0)
    trained, random = (sharp.sel(model=model) for model in MODELS)
    ceiling, probe = (trained["auroc"].sel(readout=name) for name in ("posterior", "logistic"))
    draw_means(grid[0, 0], sharp)
    draw_map(figure, grid[0, 1], results, probe, (0.5, 1.0))
    grid[0, 1].set_title("logistic probe, trained models")
    draw_map(figure, grid[0, 2], results, ceiling - probe, (0.0, None))
    grid[0, 2].set_title("what it lacks to the Bayes ceiling")
    ticks = [density for density in (0.05, 0.1, 0.2, 0.5) if density >= results.density.min()]
    for axes in grid[0]:
        axes.set(xlabel="density $p$", xticks=ticks, xticklabels=ticks)
        axes.minorticks_off()

    axes = grid[1, 0]
    density = results.density.broadcast_like(probe).transpose(*probe.dims)
    dimensionality = trained["dimensionality"].transpose(*probe.dims)
    points = axes.scatter(dimensionality, probe, c=density, s=6, norm="log", rasterized=True)
    bar = figure.colorbar(points, ax=axes, label="density $p$", ticks=ticks, format="%g")
    bar.ax.minorticks_off()
    axes.set(xlabel="feature dimensionality $D_i$", ylabel="AUROC of the logistic probe")
    axes.set_title("every feature of every trained model")

    axes = grid[1, 1]
    names = ("posterior", "logistic")
    pairs = [random["auroc"].sel(readout=name).transpose(*probe.dims) for name in names]
    axes.plot(*(np.ravel(part) for part in pairs), ".", color="0.8", ms=3, rasterized=True)
    norm = trained["norm"].transpose(*probe.dims)
    points = axes.scatter(ceiling, probe, c=norm, s=6, rasterized=True, cmap="plasma")
    figure.colorbar(points, ax=axes, label="norm $||W_i||$")
    axes.plot((0.4, 1), (0.4, 1), "k", linewidth=0.6)
    axes.set(xlabel="AUROC, Bayes ceiling", ylabel="AUROC of the logistic probe")
    axes.set_title("colours: trained; grey: random weights")
    draw_memory(grid[1, 2], results)
    figure.suptitle(
        f"{results.sizes['feature']} binary features in {results.attrs['hidden']} dimensions, read "
        f"in noise {float(sharp.noise):g}; {results.sizes['seed']} seeds: mean and standard "
        "deviation, means (maps), or all",
        fontsize=9, color="0.3",
    )  # fmt: skip
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
