r"""Linear probes: what they read off superposed features, beside the best that any readout can do.

Claim      No probe beats the Bayes ceiling, which is exact here. Probes reach it for a feature
           alone in its dimension; in superposition they leave much unread, above all of features
           that the model hardly represents. Features are read BETTER off random weights than off
           trained weights of equal length, on average: an AUROC above chance says little about
           what training did. `memorised_labels` shows what probes fit of labels without a meaning.
Reproduces Controls of Hewitt & Liang (2019), "Designing and Interpreting Probes with Control
           Tasks", on the models of Elhage et al. (2022).
Selection  None: all seeds, all features. A feature is represented if its norm is above 1/2.
Settings   Ours: 12 binary features of geometric importance in 4 dimensions, so that the posterior
           is a sum over 2^12 states; Gaussian noise on the activations that are read. Probes are
           fitted to 2048 examples and scored on 2048 others.
Command    toymodels run experiments/probing.py
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import classification, geometry, probing, readouts
from toymodels.theory import memorisation

BEST_TEST = tm.identity("Neyman and Pearson (1933)")
MONOTONE = tm.prediction("the posterior is monotone in W_i . h if no other feature is along W_i")
HIDES = tm.finding("superposition hides features from linear readouts, not from all")
CEILING = tm.finding("toymodels.analysis.readouts.posterior_log_odds")
DIMENSIONALITY = tm.finding("feature dimensionality of Elhage et al. (2022)")
CRITICISM = tm.finding("criticism of probes: random projections keep what is linear")
TRAINING = tm.prediction("training is for the features that it represents")
DECODER = tm.prediction("training makes each direction its own best linear decoder")
TURNED = tm.prediction("the direction is Cov(h)^-1 W_i")
OUTPUT = tm.prediction("the output W_i . h + b_i of a tied model, through ReLU")
CHI = tm.prediction("a chi variable of as many degrees as dimensions")
SAMPLING = "Ours, because examples are sampled."
FOUR_ERRORS = "Ours, because the largest of many errors can be four standard errors."
MODELS = ("trained", "random")
PROBES = ("difference of means", "mass-mean", "logistic")
READOUTS = ("posterior", *PROBES, "output", "random direction")
CHUNK = 256
"""Examples whose posterior is computed at once: their states stay in the cache."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 12
    hidden: int = 4
    importance_ratio: float = 0.85
    densities: tuple[float, ...] = (0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05)
    noises: tuple[float, ...] = (0.1, 0.3)
    """Standard deviations of what is added to each coordinate of the activations read."""
    examples: int = 2048
    """Examples to fit probes, and as many to score them."""
    penalty: float = 0.01
    """Penalty of the logistic probe."""
    num_seeds: int = 6
    training: tm.Recipe = tm.Recipe(steps=4000, batch=512, learning_rate=3e-3)


SMOKE = Config(
    num_features=4,
    hidden=2,
    densities=(0.5, 0.3),
    noises=(0.3,),
    examples=256,
    num_seeds=2,
    training=tm.Recipe(steps=20, batch=16, learning_rate=3e-3),
)


def read(config, density, features, noise, weights, bias, others):
    """Return the AUROC of each readout of one model in noise, its error, and directions."""
    level, normal = noise
    seen, fresh = jnp.split(features @ weights.T + level * normal, 2)
    labels, true = jnp.split(features > 0, 2)
    states, log_weights = readouts.binary_states(jnp.full(config.num_features, density))

    def posterior(some):
        odds = partial(readouts.posterior_log_odds, some, states @ weights.T, log_weights)
        return jax.vmap(lambda state: odds(state, noise=level), 1, 1)(states)

    # Examples are independent, so a fixed permutation is as good as a random one.
    permuted = jnp.roll(labels, 1, axis=0)
    logistic = jax.vmap(partial(probing.logistic, penalty=config.penalty), (None, 1))
    each = logistic(seen, jnp.concatenate([labels, permuted], axis=1))
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
    placed = jax.vmap(jax.vmap(classification.placements, (1, 1)))(jnp.stack(scores), truths)
    auroc = jnp.mean(placed, 2, where=jnp.moveaxis(truths, 2, 1))
    below = placed[:-1] - placed[:1]
    variances = (
        jnp.var(below, 2, where=one.T[None]) / jnp.sum(one, 0)[None] for one in (true, ~true)
    )
    directions = jnp.stack([probe.direction for probe in probes])
    products = jnp.einsum("pfh,hf->pf", directions, weights)
    lengths = jnp.linalg.norm(directions, axis=2) * jnp.linalg.norm(weights, axis=0)[None, :]
    return {
        "auroc": auroc[:-1],
        "error": jnp.sqrt(sum(variances)),
        "permuted": auroc[-1],
        "along_weights": products / lengths,
    }


def run(config: Config) -> xr.Dataset:
    model = tm.ReLUOutput(hidden=config.hidden)
    importance = tm.geometric_importance(config.num_features, config.importance_ratio)

    def cell(key, *, density):
        key_train, key_random, key_features, key_noise, _ = jax.random.split(key, 5)
        distribution = tm.Binary(config.num_features, density)
        task = tm.Task(distribution, importance=importance)
        trained = config.training.train(key_train, model, task)
        weights, bias = trained.params["weights"], trained.params["bias"]
        random = model.init(key_random, jnp.zeros(config.num_features))["params"]["weights"]
        random = random * jnp.linalg.norm(weights) / jnp.linalg.norm(random)
        both = jnp.stack([weights, random])
        features = distribution.sample(key_features, 2 * config.examples)
        normal = jax.random.normal(key_noise, (2 * config.examples, config.hidden))
        biases = jnp.stack([bias, jnp.zeros_like(bias)])

        def at_level(level):
            one = partial(read, config, density, features, (level, normal))
            return jax.vmap(one)(both, biases, both[::-1])

        return {
            **lax.map(at_level, jnp.asarray(config.noises)),
            "loss": trained.loss,
            "norm": jax.vmap(geometry.feature_norms)(both),
            "dimensionality": jax.vmap(geometry.feature_dimensionality)(both),
        }

    readings = ("noise", "model", "readout", "feature")
    dims = {
        **dict.fromkeys(("auroc", "error"), readings),
        "along_weights": ("noise", "model", "probe", "feature"),
        "permuted": ("noise", "model", "feature"),
        **dict.fromkeys(("norm", "dimensionality"), ("model", "feature")),
    }
    axes = {"density": config.densities}
    results = tm.sweep(cell, axes=axes, num_seeds=config.num_seeds, dims=dims)
    return results.assign_coords(
        noise=list(config.noises),
        model=list(MODELS),
        readout=list(READOUTS),
        probe=list(PROBES),
        importance=("feature", np.asarray(importance)),
    ).assign_attrs(hidden=config.hidden, examples=config.examples)


def rank_correlation(results: xr.Dataset) -> xr.DataArray:
    """Return the rank correlation of D_i and the logistic probe's AUROC, at each density."""
    trained = results.sel(model="trained").transpose("density", ...)
    pair = trained["dimensionality"], trained["auroc"].sel(readout="logistic")
    cells = (values.stack(each=("seed", "feature")).transpose("density", "each") for values in pair)
    found = [stats.spearmanr(*each).statistic for each in zip(*cells, strict=True)]
    return xr.zeros_like(results.density) + found


def permuted_theory(results: xr.Dataset) -> xr.DataArray:
    """Return the AUROC on permuted labels that normal variables would have, at each density."""
    of = partial(memorisation.permuted_auroc, results.attrs["examples"], results.attrs["hidden"])
    return xr.zeros_like(results.density) + [of(float(p)) for p in results.density]


def claims(results: xr.Dataset) -> tm.Claims:
    sharp = results.isel(noise=0)
    trained = sharp.sel(model="trained")
    represented = trained["norm"] > 0.5
    gap = results["auroc"].sel(readout="posterior") - results["auroc"].sel(readout="logistic")

    says = "No readout of any model, noise and feature has a higher AUROC than the posterior, "
    says += "measured by the largest excess in standard errors."
    above = results["auroc"] - results["auroc"].sel(readout="posterior")
    # Where two readouts agree on every example, the difference has no error: NaN, if it is 0.
    errors = (above / results["error"]).drop_sel(readout="posterior")
    yield tm.at_most(says, 4.0, errors.max(), BEST_TEST, threshold=FOUR_ERRORS)

    says = "The logistic probe reaches the AUROC of the posterior for represented features that "
    says += f"are alone in their dimension (D_i > 0.98) in noise {float(results.noise[-1]):g}, "
    says += "measured by the largest AUROC that it lacks."
    alone = represented & (trained["dimensionality"] > 0.98)
    lacks = gap.sel(model="trained").isel(noise=-1).where(alone).max()
    yield tm.near(says, 0.0, lacks, MONOTONE, within=0.002, threshold=SAMPLING)

    says = "The logistic probe is far below the AUROC of the posterior for some feature of a "
    says += "trained model, measured by the largest AUROC that it lacks."
    largest = gap.sel(model="trained").max()
    yield tm.at_least(says, 0.2, largest, HIDES, threshold="Ours, because such a gap matters.")

    says = "Noise first takes what no linear probe reads, measured by the mean AUROC that the "
    says += "logistic probe lacks in random weights, in the most noise over that in the least."
    lacks = gap.sel(model="random").mean(("density", "seed", "feature"))
    ratio = lacks.isel(noise=-1) / lacks.isel(noise=0)
    yield tm.at_most(says, 0.5, ratio, CEILING, threshold="Ours, because it is half.")

    says = "The AUROC of the logistic probe of trained models rises with D_i at a fixed density, "
    says += "measured by the smallest rank correlation."
    correlation = rank_correlation(sharp)
    flattest = results.density[int(np.argmin(correlation.values))]
    spread = trained["dimensionality"].where(represented).sel(density=flattest)
    note = f"At density {float(flattest):g} most features are represented nearly alike, D_i "
    note += f"{float(spread.mean()):.2g} with a standard deviation of {float(spread.std()):.1g}: "
    note += f"ranks depend on little. Median over densities: {float(correlation.median()):.2g}."
    smallest, clearly = correlation.min(), "Ours, because such ranks are clearly correlated."
    yield tm.at_least(says, 0.5, smallest, DIMENSIONALITY, threshold=clearly, note=note)

    mean = sharp["auroc"].mean(("seed", "feature")).sel(readout="logistic")
    kept = trained["auroc"].where(represented).mean(("seed", "feature"))
    says = "The logistic probe reads features better off random weights than off trained weights "
    says += "of equal length, measured by the smallest difference over densities of the mean AUROC."
    difference = (mean.sel(model="random") - mean.sel(model="trained")).min()
    yield tm.at_least(says, 0.0, difference, CRITICISM)

    says = "The logistic probe reads represented features of trained models better than the "
    says += "features of random weights at the lowest density, measured by the difference of the "
    says += "mean AUROC."
    better = kept.sel(readout="logistic") - mean.sel(model="random")
    yield tm.at_least(says, 0.0, better.sel(density=results.density.min()), TRAINING)

    along = sharp["along_weights"].sel(probe="mass-mean")
    says = "The mass-mean direction of represented features of trained models is that of W_i, "
    says += "measured by the mean cosine."
    cosine = along.sel(model="trained").where(represented).mean()
    eight = "Ours, because it is the cosine of eight degrees."
    yield tm.at_least(says, 0.99, cosine, DECODER, threshold=eight)

    says = "The mass-mean direction of features of random weights is not that of W_i, measured by "
    says += "the mean cosine."
    cosine = along.sel(model="random").mean()
    eighteen = "Ours, because it is the cosine of eighteen degrees."
    yield tm.at_most(says, 0.95, cosine, TURNED, threshold=eighteen)

    says = "The output of trained models reads represented features as well as the logistic probe, "
    says += "measured by the smallest difference over densities of the mean AUROC."
    difference = (kept.sel(readout="output") - kept.sel(readout="logistic")).min()
    seen = "Ours, because a reader could not see it in a figure."
    yield tm.at_least(says, -0.01, difference, OUTPUT, threshold=seen)

    says = "The AUROC of probes on permuted labels that they are fitted to is that of normal "
    says += "variables, measured by the largest deviation of a mean over densities."
    permuted = results["permuted"].mean(("seed", "noise", "model", "feature"))
    largest = np.abs(permuted - permuted_theory(results)).max()
    yield tm.near(says, 0.0, largest, CHI, within=0.01, threshold=SAMPLING)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.4), width_ratios=(1.3, 1, 1))
    sharp = results.isel(noise=0)
    axes = grid[0, 0]
    for model in ("random", "trained"):
        for readout, name in (("posterior", "ceiling"), ("logistic", "probe")):
            mean = sharp["auroc"].sel(model=model, readout=readout).mean("feature")
            plotting.every_seed(axes, mean, x="density", label=f"{name}, {model}", legend=False)
    axes.set(ylabel="mean AUROC of features", title="Features are read better\noff random weights")

    trained = sharp["auroc"].sel(model="trained", readout="logistic")
    axes = grid[0, 1]
    shown = trained.mean("seed").assign_coords(feature=results.importance.values)
    scale = plotting.Normalize(0.5, 1)
    image = plotting.log_image(axes, shown, x="density", y="feature", norm=scale)
    plotting.color_bar(image, "AUROC of the probe")
    axes.set(ylabel="importance $I_i$", title="Trained models: important\nfeatures can be read")

    axes = grid[0, 2]
    density = results.density.broadcast_like(trained).transpose(*trained.dims)
    dimensionality = sharp["dimensionality"].sel(model="trained").transpose(*trained.dims)
    style = {"cmap": plotting.VALUE_MAP, "norm": plotting.LogNorm(results.density.min() / 3, 1)}
    points = axes.scatter(dimensionality, trained, c=density, s=6, rasterized=True, **style)
    plotting.color_bar(points, plotting.DENSITY, ticks=(0.05, 0.1, 0.2, 0.5))
    axes.set(
        xlabel="feature dimensionality $D_i$",
        ylabel="AUROC of the probe",
        title="A dimension of its own\nmakes a feature readable",
    )

    for axes, model, title in (
        (grid[1, 0], "trained", "Trained: no probe beats the ceiling,\nsome are far below"),
        (grid[1, 1], "random", "Random weights:\nnearly all is there, less is read"),
    ):
        one = sharp["auroc"].sel(model=model)
        pair = (np.ravel(one.sel(readout=name)) for name in ("posterior", "logistic"))
        axes.plot(*pair, ".", ms=3, alpha=0.5, rasterized=True)
        axes.plot((0.4, 1), (0.4, 1), "k", linewidth=0.6)
        axes.set(xlabel="AUROC, Bayes ceiling", ylabel="AUROC of the probe", title=title)
        axes.set(xlim=(0.42, 1.02), ylim=(0.42, 1.02))

    axes = grid[1, 2]
    permuted = sharp["permuted"].sel(model="trained").mean("feature")
    plotting.every_seed(axes, permuted, x="density", label="probe", legend=False)
    axes.plot(results.density, permuted_theory(results), "k:", label="normal variables")
    axes.set(ylabel="AUROC on permuted labels", title="Labels without a meaning\nare read, too")
    axes.set_ylim(0.5, 0.6)
    for axes in (grid[0, 0], grid[1, 2]):
        plotting.density_axis(axes, places=(0.05, 0.1, 0.2, 0.5))
    plotting.direct_labels(grid[0, 0], fontsize=7)
    grid[1, 2].legend()
    figure.supxlabel(
        f"{results.sizes['feature']} binary features in {results.attrs['hidden']} dimensions, read "
        f"in noise {float(sharp.noise):g}, {results.sizes['seed']} seeds: map of means, a dot of "
        "the scatters is one feature",
        fontsize=8,
    )
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
