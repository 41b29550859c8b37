r"""The limits of linear representations: additivity, erasure and steering in trained models.

Claim      A linear encoder adds features exactly, however much they interfere. The more an encoder
           bends, and the denser features are, the less the hidden vector of several features is a
           sum of directions. Erasing a concept from a linear encoder leaves nothing of it and takes
           $1 - P_{ii}$ features from the others; a quadratic probe still finds it in a bent
           encoder. Steering has side effects of $\sqrt{1/D_i - 1}$ in a linear output; a ReLU
           output hides most of them. LEACE promises nothing about ranks: a linear probe of a bent
           encoder still ranks by the concept.
Model      $h = f(W x)$, $y = \mathrm{ReLU}(W^\top h + b)$ with $f(z) = z$ for $z > 0$, else
           $(1 - \beta) z$: `ReLUOutput` at $\beta = 0$, `ReLUHidden` at $\beta = 1$.
Erasure    LEACE, fitted on pairs of examples with and without feature $i$; probes are fitted on
           fresh pairs and tested on a third set. Independent features and a linear encoder have
           $\operatorname{Cov}(h, z) \propto W_i$, so the eraser has $A W_i = 0$ and removes all.
           A linear probe reads the share $P_{jj}$ of each other $x_j$, with $P$ the projector on
           the rows of $W$; afterwards $P_{jj} - P_{ij}^2 / P_{ii}$, and
           $\sum_j P_{ij}^2 = P_{ii}$.
Source     Park et al. (2024), Belrose et al. (2023); closed forms derived here.
Selection  None: every seed; features of norm above 1/2 where features are shown.
Command    toymodels run experiments/linear_representations.py
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import linen as nn

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import erasure, geometry, linearity
from toymodels.theory import bent

LINEAR_MAPS = tm.identity("superposition of linear maps")
PAIR = tm.prediction("1 - bend^2 p^2 / 6 Var h")
WORSE_THAN_MEAN = tm.prediction("the closed form is -2, because the mean is a better guess")
LINE = tm.identity("1 / (1 + (bend / (2 - bend))^2 / 4)")
MEETING = tm.prediction("features meet with probability p^2")
PROPORTIONAL = tm.prediction("the error is proportional to the bend")
LEACE = tm.prediction("Belrose et al. (2023), LEACE: A Cov(h, z) = 0, and here A W_i = 0")
NOT_LINEAR = tm.finding("what is not linear stays")
RANKS = tm.finding("Belrose et al. (2023), LEACE, is about convex losses, which see means")
PROJECTOR = tm.prediction("sum_j P_ij^2 = P_ii of a projector; covariances are sampled")
LEVERAGE = tm.prediction("D_i <= P_ii, the leverage score")
CLOSED_FORM = tm.identity("toymodels.analysis.linearity.steering_effects")
DIMENSIONALITY = tm.identity("D_i = G_ii^2 / sum_j G_ij^2")
CUT_OFF = tm.finding("what is negative is cut off")
BELOW_ZERO = tm.finding("the outputs of absent features are below 0")
ROUNDING = "Ours, because numbers are rounded."
SAMPLING = "Ours, because 1024 pairs and twelve seeds are sampled."
COVARIANCES = "Ours, because covariances are of 16,384 examples."
ABOVE_HALF = "Ours, because it is clearly more than one half."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 10
    hidden: int = 4
    densities: tuple[float, ...] = (1.0, 0.6, 0.35, 0.2, 0.12, 0.07, 0.04)
    bends: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    num_seeds: int = 12
    training: tm.Recipe = tm.Recipe(steps=4000, batch=512, learning_rate=5e-3)
    examples: int = 16_384
    pairs: int = 1024
    """Pairs of examples with and without a feature, each: to fit eraser and probes, to test."""
    steered: int = 128
    """Examples on which features are steered."""
    amounts: tuple[float, ...] = tuple(np.linspace(-1, 1.5, 21).tolist())
    """How far to steer; 1 is among them."""


SMOKE = Config(
    densities=(1.0, 0.2),
    bends=(0.0, 1.0),
    num_seeds=2,
    training=tm.Recipe(steps=10, batch=32, learning_rate=5e-3),
    examples=256,
    pairs=32,
    steered=4,
    amounts=(-1.0, 0.0, 1.0),
)


def nonlinearity(bend):
    """Return a nonlinearity: the identity at 0, ReLU at 1."""
    return lambda preactivation: preactivation - bend * jnp.minimum(preactivation, 0)


def run(config: Config) -> xr.Dataset:
    amounts = jnp.asarray(config.amounts)
    whole = config.amounts.index(1.0)
    scales = (jnp.arange(200) + 0.5) / 100 - 1

    def cell(key, *, density, bend):
        key_train, key_examples, key_sizes = jax.random.split(key, 3)
        activation = nonlinearity(bend)
        model = tm.Tied(config.hidden, hidden_activation=activation)
        features = tm.SparseUniform(config.num_features, density)
        trained = config.training.train(key_train, model, tm.Task(features))
        params, weights = trained.params, trained.params["weights"]

        def encode(example):
            return activation(weights @ example)

        examples = features.sample(key_examples, config.examples)
        sizes = tm.SparseUniform(3, 1.0).sample(key_sizes, config.pairs).T
        some = examples[: 3 * config.pairs].reshape(3, config.pairs, config.num_features)
        moved = examples[: config.steered]
        effects = linearity.steer(model, params, moved, amounts)
        linear_model = tm.LinearOutput(config.hidden)
        linear = linearity.steer(linear_model, params, moved, amounts[whole][None])[0]
        before = jax.vmap(lambda x: weights.T @ encode(x) + params["bias"])(moved)
        closed_form = partial(linearity.steering_effects, weights, amount=1.0, activation=nn.relu)
        closed = jax.vmap(lambda z: closed_form(preactivation=z))(before)
        return {
            "loss": trained.loss,
            "norm": geometry.feature_norms(weights),
            "dimensionality": geometry.feature_dimensionality(weights),
            "leverage": jnp.diagonal(jnp.linalg.pinv(weights) @ weights),
            "additivity": linearity.additivity(encode, examples[: config.pairs]),
            "pair": linearity.additivity(lambda x: activation(x[:1] - x[1:]), examples[:, :2]),
            "scaling": linearity.scaling(encode, jnp.eye(config.num_features)[0], scales),
            "auroc": erasure.presence_auroc(encode, some, sizes),
            "lost": erasure.features_lost(jax.vmap(encode)(examples), examples),
            "response": jnp.mean(jnp.diagonal(effects, axis1=2, axis2=3), axis=1),
            "side_effects": linearity.side_effects(effects[whole]),
            "linear_side_effects": linearity.side_effects(linear),
            "steering_error": jnp.max(jnp.abs(effects[whole] - closed), axis=(0, 2)),
        }

    dims = {
        **dict.fromkeys(("norm", "dimensionality", "leverage", "lost"), ("feature",)),
        **dict.fromkeys(("side_effects", "linear_side_effects", "steering_error"), ("feature",)),
        "auroc": ("feature", "probe"),
        "response": ("amount", "feature"),
    }
    axes = {"density": config.densities, "bend": config.bends}
    results = tm.sweep(cell, axes=axes, num_seeds=config.num_seeds, dims=dims)
    return results.assign_coords(probe=list(erasure.PROBES), amount=list(config.amounts))


def represented(results: xr.Dataset, name) -> xr.DataArray:
    """Return the values of features of norm above 1/2; others are NaN."""
    return results[name].where(results["norm"] > 1 / 2)


def claims(results: xr.Dataset) -> tm.Claims:
    straight, curved = results.sel(bend=0.0), results.sel(bend=1.0)
    sparse, dense = results["density"].min(), results["density"].max()

    says = "Linear encoders are additive at every density, measured by the largest |R^2 - 1|."
    off = abs(straight["additivity"] - 1).max()
    yield tm.near(says, 0, off, LINEAR_MAPS, within=1e-5, threshold=ROUNDING)

    says = "The additivity of one neuron of an antipodal pair is that of the closed form at "
    says += "densities below 1, measured by the largest difference of R^2."
    off = abs(results["pair"].mean("seed") - bent.additivity(results["density"], results["bend"]))
    off = off.where(off.density < 1).max()
    yield tm.near(says, 0, off, PAIR, within=0.02, threshold=SAMPLING)

    says = "The additivity of one ReLU neuron of an antipodal pair is worst where both features "
    says += "are always present, measured by R^2 at density 1."
    worst = curved["pair"].sel(density=dense).mean()
    yield tm.near(says, -2, worst, WORSE_THAN_MEAN, within=0.1, threshold=SAMPLING)

    says = "The scaling of one feature of either sign is that of the closed form, which is 0.8 for "
    says += "ReLU, measured by the largest difference of R^2."
    off = abs(results["scaling"] - bent.scaling(results["bend"])).max()
    grid = "Ours, because numbers are rounded and 200 scales are used."
    yield tm.near(says, 0, off, LINE, within=1e-3, threshold=grid)

    additive = results["additivity"].median("seed").where(results["bend"] > 0, drop=True)
    says = "Trained, bent encoders are more additive at the lowest density than at the highest, "
    says += "measured by the smallest difference of the medians over bends."
    difference = (additive.sel(density=sparse) - additive.sel(density=dense)).min()
    yield tm.at_least(says, 0, difference, MEETING)

    says = "Trained ReLU encoders are less additive than the least bent encoders at every density, "
    says += "measured by the largest difference of the medians."
    difference = (additive.isel(bend=-1) - additive.isel(bend=0)).max()
    yield tm.at_most(says, 0, difference, PROPORTIONAL)

    says = "Linear and quadratic probes find nothing of an erased concept in linear encoders, "
    says += "measured by the AUROC farthest from 1/2, over all features."
    off = abs(straight["auroc"].sel(probe=["linear", "quadratic"]) - 1 / 2).max()
    yield tm.near(says, 0, off, LEACE, within=1e-3, threshold=ROUNDING)

    says = "A quadratic probe still finds an erased concept in ReLU encoders at the lowest "
    says += "density, measured by the mean AUROC."
    after = represented(results, "auroc").mean(("seed", "feature"))
    found = after.sel(probe="quadratic", bend=1, density=sparse)
    yield tm.at_least(says, 0.6, found, NOT_LINEAR, threshold=ABOVE_HALF)

    says = "A linear probe still ranks by an erased concept in ReLU encoders at the lowest "
    says += "density, measured by the mean of max(AUROC, 1 - AUROC)."
    ranks = represented(curved, "auroc").sel(probe="linear", density=sparse)
    found = np.maximum(ranks, 1 - ranks).mean()
    yield tm.at_least(says, 0.6, found, RANKS, threshold=ABOVE_HALF)

    says = "Erasing a feature from linear encoders takes 1 - P_ii readable features from the "
    says += "others, measured by the largest difference, over all features."
    off = abs(straight["lost"] - 1 + straight["leverage"]).max()
    yield tm.near(says, 0, off, PROJECTOR, within=0.06, threshold=COVARIANCES)

    says = "Erasing a feature from linear encoders takes at most 1 - D_i readable features from "
    says += "the others, measured by the largest excess, over all features."
    excess = (straight["lost"] - 1 + straight["dimensionality"]).max()
    yield tm.at_most(says, 0, excess, LEVERAGE, slack=0.06, threshold=COVARIANCES)

    says = "Interventions on the hidden layer of trained models do what the closed form says, "
    says += "measured by the largest difference."
    error = represented(results, "steering_error").max()
    yield tm.near(says, 0, error, CLOSED_FORM, within=1e-5, threshold=ROUNDING)

    says = "Side effects of steering in a linear output are sqrt(1/D_i - 1) for weights of linear "
    says += "encoders, measured by the largest difference."
    share = represented(straight, "dimensionality")
    linear = represented(straight, "linear_side_effects")
    off = abs(linear - np.sqrt(1 / share - 1)).max()
    yield tm.near(says, 0, off, DIMENSIONALITY, within=1e-3, threshold=ROUNDING)

    says = "Side effects of steering are smaller in a ReLU output than in a linear output for "
    says += "nearly all features of D_i < 0.9, measured by their share."
    quotient = (represented(straight, "side_effects") / linear).where(share < 0.9)
    smaller = (quotient < 1).where(quotient.notnull()).mean()
    nearly = "Ours, because nearly all are nineteen in twenty; of the first six seeds all were."
    yield tm.at_least(says, 0.95, smaller, CUT_OFF, threshold=nearly)

    says = "At the lowest density the side effects of steering in a ReLU output are less than a "
    says += "third of those in a linear output, measured by the median quotient."
    middle = quotient.sel(density=sparse).median()
    below = "Ours, because it is well below one."
    yield tm.at_most(says, 1 / 3, middle, BELOW_ZERO, threshold=below)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.2))
    (added, two, probe), (erasing, steering, response) = grid
    straight, density = results.sel(bend=0.0), results.density
    left = represented(results, "auroc").sel(probe="quadratic").mean(("seed", "feature"))
    for axes, values, scale, title in (
        (added, results["additivity"].median("seed"), (0, 1), "dense features\ndo not add"),
        (probe, left, (0.5, 0.85), "sparse features\nkeep what was erased"),
    ):
        norm = plotting.Normalize(*scale)
        plotting.heat_map(axes, values, x="density", y="bend", numbers=".2f", norm=norm)
        axes.set(ylabel="bend (0: linear, 1: ReLU)", title=f"Bent encoders of {title}")
    added.set_xlabel(f"{plotting.DENSITY}\n(median additivity $R^2$)")
    probe.set_xlabel(f"{plotting.DENSITY}\n(mean AUROC of a quadratic probe)")

    fine = np.geomspace(float(density.min()), 1, 200)
    for number, bend in enumerate(results.bend.values):
        color, marker = plotting.CYCLE[number], plotting.MARKERS[number]
        two.plot(fine, bent.additivity(fine, bend), color=color)
        found = results["pair"].sel(bend=bend).transpose("density", "seed")
        two.plot(density, found, marker, color=color, ms=3)
        two.plot([], [], f"{marker}-", color=color, label=f"bend {bend:g}", ms=3)
    plotting.density_axis(two)
    seeds = f"theory, {results.sizes['seed']} trained seeds"
    two.set(ylabel="additivity $R^2$", title=f"Two opposite features in a neuron:\n{seeds}")

    share = np.ravel(represented(straight, "dimensionality"))
    line = np.linspace(0.2, 1, 100)
    style = {"ms": 3, "rasterized": True}
    erasing.plot(line, 1 - line, color="black", linewidth=1, label="$1 - D_i$")
    lost = np.ravel(represented(straight, "lost"))
    erasing.plot(share, lost, ".", label="trained, bend 0", **style)
    erasing.set(
        ylabel="readable features lost",
        title="Erasing takes from the others\n(a dot is a feature)",
    )
    steering.plot(line, np.sqrt(1 / line - 1), color="black", lw=1, label="$\\sqrt{1/D_i - 1}$")
    for name, marker, label in (
        ("linear_side_effects", ".", "linear output"),
        ("side_effects", "x", "ReLU output"),
    ):
        effects = np.ravel(represented(straight, name))
        steering.plot(share, effects, marker, label=label, **style)
    steering.set(
        ylabel="change of others / of the steered",
        title="A ReLU output hides\nside effects of steering by 1",
    )

    amount = results.amount.values
    response.plot(amount, amount, color="black", linewidth=1, label="linear output")
    mean = represented(straight, "response").mean(("seed", "feature"))
    shown = density.values[:: max(1, len(density) // 3)]
    for p, style in zip(shown, ("-", "--", "-.", ":"), strict=False):
        response.plot(amount, mean.sel(density=p), style, color="C1", label=f"ReLU, p = {p:g}")
    response.set(
        xlabel="steering amount $\\alpha$",
        ylabel="mean change of the steered output",
        title="Absent features do not\nrespond to small steering",
    )
    for axes in (erasing, steering):
        axes.set_xlabel("feature dimensionality $D_i$")
    for axes in (two, *grid[1]):
        axes.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
