r"""Where linear representations end: additivity, erasure and steering in trained models.

Claim      A linear encoder adds features exactly, however much they interfere. The more an encoder
           bends, and the denser features are, the less their sum is a sum of directions. Erasing a
           concept from a linear encoder leaves nothing at all and takes $1 - P_{ii}$ features from
           the others; a bent one still shows it to a quadratic probe. Steering has side effects of
           $\sqrt{1/D_i - 1}$ in a linear output; a ReLU output hides most of them. LEACE promises
           nothing about ranks: of a bent encoder a linear probe still ranks by the concept.
Model      $h = f(W x)$, $y = \mathrm{ReLU}(W^\top h + b)$ with $f(z) = z$ for $z > 0$, else
           $(1 - \beta) z$: `ReLUOutput` at $\beta = 0$, `ReLUHidden` at $\beta = 1$.
Erasure    LEACE, fitted on pairs of examples with and without feature $i$; probes are fitted on
           fresh pairs and tested on a third set. Independent features and a linear encoder have
           $\operatorname{Cov}(h, z) \propto W_i$, so the eraser has $A W_i = 0$ and removes all.
           Of each other $x_j$ a linear probe reads the share $P_{jj}$, the projector on the rows
           of $W$; afterwards $P_{jj} - P_{ij}^2 / P_{ii}$, and $\sum_j P_{ij}^2 = P_{ii}$.
Source     Park et al. (2024), Belrose et al. (2023); closed forms derived here.
Selection  None: every seed; features of norm above 1/2 where features are shown.
Command    toymodels run experiments/linear_representations.py
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import lax
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import erasure, geometry, linearity

LEACE = "Belrose et al. (2023), LEACE"
PROBES = ("before", "linear", "quadratic")
EQUAL = 1e-3
"""Scores that differ by less are equal, in standard deviations of all scores."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 10
    hidden: int = 4
    densities: tuple[float, ...] = (1.0, 0.6, 0.35, 0.2, 0.12, 0.07, 0.04)
    bends: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    num_seeds: int = 6
    steps: int = 4000
    batch: int = 512
    learning_rate: float = 5e-3
    """The learning rate at the start of a cosine schedule."""
    examples: int = 16_384
    pairs: int = 1024
    """Of examples with and without a feature: for the eraser, for the probes, and to test them."""
    steered: int = 128
    """Examples on which features are steered."""
    amounts: tuple[float, ...] = tuple(np.linspace(-1, 1.5, 21).tolist())
    """How far to steer; 1 is among them."""


SMOKE = Config(
    densities=(1.0, 0.2), bends=(0.0, 1.0), num_seeds=2, steps=10, batch=32, examples=256,
    pairs=32, steered=4, amounts=(-1.0, 0.0, 1.0),
)  # fmt: skip


def bent(bend: Any) -> Any:
    """The identity at 0, ReLU at 1."""
    return lambda preactivation: preactivation - bend * jnp.minimum(preactivation, 0)


class BentEncoder(nn.Module):
    """`ReLUOutput` with a bent hidden layer."""

    hidden: int
    bend: Any

    @nn.compact
    def __call__(self, features: Any) -> Any:
        start = nn.initializers.xavier_normal()
        weights = self.param("weights", start, (self.hidden, features.size))
        bias = self.param("bias", nn.initializers.zeros, (features.size,))
        hidden = tm.Site(name="hidden")(bent(self.bend)(weights @ features))
        preactivation = tm.Site(name="preactivation")(weights.T @ hidden + bias)
        return nn.relu(preactivation)


def pair(density: Any, bend: Any) -> Any:
    r"""Exact additivity of $h = f(x_1 - x_2)$.

    With $f(z) = (1 - \beta) z + \beta \mathrm{ReLU}(z)$ the error is $\beta \min(x_1, x_2)$. The
    moments are those of $\mathrm{ReLU}(x_1 - x_2)$.
    """
    mean = density * (1 - density) / 2 + density**2 / 6
    square = density * (1 - density) / 3 + density**2 / 12
    variance = (1 + (1 - bend) ** 2) * square - (bend * mean) ** 2
    return 1 - bend**2 * density**2 / 6 / variance


def signed_scaling(bend: Any) -> Any:
    r"""Exact scaling $R^2$ on $[-1, 1]$: the best line through $f$ has slope $1 - \beta/2$."""
    return 1 / (1 + (bend / (2 - bend)) ** 2 / 4)


def quadratic(hidden: Any) -> Any:
    """Hidden vectors, one a row, and all products of two coordinates."""
    rows, columns = np.triu_indices(hidden.shape[1])
    return jnp.concatenate([hidden, hidden[:, rows] * hidden[:, columns]], axis=1)


def moments(hidden: Any, concept: Any) -> tuple[Any, Any, Any]:
    """Mean, covariance and cross-covariance with a concept of one coordinate."""
    centred = hidden - jnp.mean(hidden, axis=0)[None, :]
    count = len(hidden)
    return jnp.mean(hidden, axis=0), centred.T @ centred / count, centred.T @ concept / count


def probed(trained_on: Any, tested_on: Any, concept: Any) -> Any:
    """AUROC of the least squares probe, on hidden vectors with, then without the concept."""
    _, covariance, cross = moments(trained_on, concept)
    probe = jnp.linalg.pinv(covariance, rtol=1e-5, hermitian=True) @ cross
    scores = (tested_on @ probe)[:, 0]
    return ranked(*jnp.split(scores / jnp.maximum(jnp.std(scores), 1e-12), 2))


def ranked(positives: Any, negatives: Any) -> Any:
    """AUROC of scores of standard deviation 1, in which nearly equal scores are equal.

    Rounding of what is equal must not count as a signal. Two scores are compared with each other,
    not put on a grid: on a grid the one score that most examples share can lie on an edge between
    two values, where rounding alone decides.
    """
    margins = positives[:, None] - negatives[None, :]
    return jnp.mean(jnp.where(jnp.abs(margins) < EQUAL, 0.5, margins > 0))


def erased(encode: Any, examples: Any, sizes: Any) -> Any:
    """AUROC of the presence of each feature: features x probes, see `PROBES`.

    Args:
        encode: the encoder.
        examples: three sets, on which eraser and probes are fitted and tested.
        sizes: of the feature where it is present.
    """
    count = sizes.shape[1]
    concept = jnp.concatenate([jnp.ones((count, 1)), jnp.zeros((count, 1))])

    def of(feature: Any) -> Any:
        present = jax.vmap(jax.vmap(encode))(examples.at[:, :, feature].set(sizes))
        absent = jax.vmap(jax.vmap(encode))(examples.at[:, :, feature].set(0.0))
        sets = jnp.concatenate([present, absent], axis=1)
        eraser = erasure.least_squares_eraser(*moments(sets[0], concept))
        left = sets[1:] @ eraser.matrix.T + eraser.offset[None, None, :]
        return jnp.stack(
            [
                probed(sets[1], sets[2], concept),
                probed(left[0], left[1], concept),
                probed(quadratic(left[0]), quadratic(left[1]), concept),
            ]
        )

    return lax.map(of, jnp.arange(examples.shape[2]))


def lost(hidden: Any, features: Any) -> Any:
    r"""Readable shares $R^2$ of all others that go with each feature, in sum."""
    mean, covariance, _ = moments(hidden, features)
    centred = features - jnp.mean(features, axis=0)[None, :]
    cross = hidden.T @ centred / len(hidden)
    variances = jnp.var(features, axis=0)

    def readable(matrix: Any) -> Any:
        seen = matrix @ cross
        inverse = jnp.linalg.pinv(matrix @ covariance @ matrix.T, rtol=1e-5, hermitian=True)
        return jnp.sum(seen * (inverse @ seen), axis=0) / variances

    before = readable(jnp.eye(mean.size))

    def of(feature: Any) -> Any:
        eraser = erasure.least_squares_eraser(mean, covariance, cross[:, feature][:, None])
        fall = before - readable(eraser.matrix)
        return jnp.sum(fall) - fall[feature]

    return lax.map(of, jnp.arange(variances.size))


def steered(model: Any, params: Any, examples: Any, amounts: Any) -> Any:
    """What each feature's steering does to all outputs: amounts x examples x features x outputs."""
    directions = linearity.steering_vectors(params["weights"]).T

    def one(amount: Any, example: Any, direction: Any) -> Any:
        moved = {"hidden": lambda hidden: hidden + amount * direction}
        return tm.intervene(model, params, example, moved)

    steer = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
    plain = jax.vmap(lambda example: model.apply({"params": params}, example))(examples)
    return steer(amounts, examples, directions) - plain[None, :, None, :]


def side_effects(effects: Any) -> Any:
    """Root mean square of all other outputs' changes over that of the steered one's."""
    squares = jnp.mean(effects**2, axis=0)
    aimed = jnp.diagonal(squares)
    others = jnp.sum(squares, axis=1) - aimed
    return jnp.sqrt(others / jnp.where(aimed > 0, aimed, 1.0))


def run(config: Config) -> xr.Dataset:
    amounts = jnp.asarray(config.amounts)
    whole = config.amounts.index(1.0)
    scales = (jnp.arange(200) + 0.5) / 100 - 1

    def cell(key: Any, *, density: Any, bend: Any) -> dict[str, Any]:
        key_train, key_examples, key_sizes = jax.random.split(key, 3)
        model = BentEncoder(config.hidden, bend)
        features = tm.SparseUniform(config.num_features, density)
        trained = tm.train(
            key_train,
            model,
            tm.Task(features),
            optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps)),
            steps=config.steps,
            batch=config.batch,
        )
        params = trained.params
        weights = params["weights"]

        def encode(example: Any) -> Any:
            return bent(bend)(weights @ example)

        examples = features.sample(key_examples, config.examples)
        sizes = tm.SparseUniform(3, 1.0).sample(key_sizes, config.pairs).T
        some = examples[: 3 * config.pairs].reshape(3, config.pairs, config.num_features)
        moved = examples[: config.steered]
        effects = steered(model, params, moved, amounts)
        linear = steered(tm.LinearOutput(config.hidden), params, moved, amounts[whole][None])[0]
        before = jax.vmap(lambda x: weights.T @ encode(x) + params["bias"])(moved)
        closed = jax.vmap(
            lambda z: linearity.steering_effects(weights, z, 1.0, activation=nn.relu)
        )(before)
        return {
            "loss": trained.loss,
            "norm": geometry.feature_norms(weights),
            "dimensionality": geometry.feature_dimensionality(weights),
            "leverage": jnp.diagonal(jnp.linalg.pinv(weights) @ weights),
            "additivity": linearity.additivity(encode, examples[: config.pairs]),
            "pair": linearity.additivity(lambda x: bent(bend)(x[:1] - x[1:]), examples[:, :2]),
            "scaling": linearity.scaling(encode, jnp.eye(config.num_features)[0], scales),
            "auroc": erased(encode, some, sizes),
            "lost": lost(jax.vmap(encode)(examples), examples),
            "response": jnp.mean(jnp.diagonal(effects, axis1=2, axis2=3), axis=1),
            "side_effects": side_effects(effects[whole]),
            "linear_side_effects": side_effects(linear),
            "steering_error": jnp.max(jnp.abs(effects[whole] - closed), axis=(0, 2)),
        }

    each = ("feature",)
    results = tm.sweep(
        cell,
        axes={"density": config.densities, "bend": config.bends},
        num_seeds=config.num_seeds,
        dims={
            **dict.fromkeys(
                ("norm", "dimensionality", "leverage", "lost", "side_effects",
                 "linear_side_effects", "steering_error"), each,
            ),
            "auroc": ("feature", "probe"),
            "response": ("amount", "feature"),
        },
    )  # fmt: skip
    return results.assign_coords(probe=list(PROBES), amount=list(config.amounts))


def represented(results: xr.Dataset, name: str) -> xr.DataArray:
    """Of features of norm above 1/2, others NaN."""
    return results[name].where(results["norm"] > 1 / 2)


def claims(results: xr.Dataset) -> list[tm.Claim]:
    straight, curved = results.sel(bend=0.0), results.sel(bend=1.0)
    off_pair = abs(results["pair"].mean("seed") - pair(results["density"], results["bend"]))
    off_scaling = abs(results["scaling"] - signed_scaling(results["bend"]))
    additive = results["additivity"].median("seed").where(results["bend"] > 0, drop=True)
    sparse, dense = results["density"].min(), results["density"].max()
    after = represented(results, "auroc").mean(("seed", "feature"))
    ranks = represented(curved, "auroc").sel(probe="linear", density=sparse)
    share = represented(straight, "dimensionality")
    closed = np.sqrt(1 / share - 1)
    linear = represented(straight, "linear_side_effects")
    hidden_by = (represented(straight, "side_effects") / linear).where(share < 0.9)
    lost = straight["lost"]
    most, least = tm.Bound.AT_MOST, tm.Bound.AT_LEAST

    def claim(statement: str, source: str, expected: float, measured: Any, **how: Any) -> tm.Claim:
        return tm.Claim(statement, source, expected=expected, measured=measured, **how)

    return [
        claim(
            "linear encoders are additive at every density: largest |R^2 - 1|",
            "superposition of linear maps", 0, abs(straight["additivity"] - 1).max(),
            tolerance=1e-5,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        claim(
            "one neuron of an antipodal pair: largest |R^2 - closed form| of densities below 1",
            "1 - bend^2 p^2 / 6 Var h", 0, off_pair.where(off_pair.density < 1).max(),
            tolerance=0.02,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling, 1024 pairs and six seeds",
        ),
        claim(
            "the same with ReLU and all features present, where R^2 is worst",
            "the mean is a better guess: -2", -2,
            curved["pair"].sel(density=dense).mean(), tolerance=0.1,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling, 1024 pairs and six seeds",
        ),
        claim(
            "scaling of one feature of either sign: largest |R^2 - closed form|; 0.8 for ReLU",
            "1 / (1 + (bend / (2 - bend))^2 / 4)", 0, off_scaling.max(), tolerance=1e-3,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding and a grid of 200 scales",
        ),
        claim(
            "trained, bent encoders: additivity at the least density less that at the greatest, "
            "least of all bends, medians",
            "features meet with probability p^2", 0,
            (additive.sel(density=sparse) - additive.sel(density=dense)).min(), bound=least,
            kind=tm.Kind.PREDICTION,
        ),
        claim(
            "and ReLU neurons are less additive than the least bent encoder at every density: "
            "largest difference of medians",
            "the error is proportional to the bend", 0,
            (additive.isel(bend=-1) - additive.isel(bend=0)).max(), bound=most,
            kind=tm.Kind.PREDICTION,
        ),
        claim(
            "In linear encoders nothing is left of an erased concept: AUROC furthest from 1/2 of "
            "linear and quadratic probes, over all features.",
            f"{LEACE}: A Cov(h, z) = 0, and here A W_i = 0", 0,
            abs(straight["auroc"].sel(probe=["linear", "quadratic"]) - 1 / 2).max(),
            tolerance=1e-3,
            kind=tm.Kind.PREDICTION,
            threshold="ours: rounding, see `EQUAL`",
        ),
        claim(
            "ReLU neurons: a quadratic probe still finds it, AUROC at the least density, mean",
            "what is not linear stays", 0.6, after.sel(probe="quadratic", bend=1, density=sparse),
            bound=least,
            kind=tm.Kind.FINDING,
            threshold="ours: clearly more than one half",
        ),
        claim(
            "and a linear one still ranks by it: mean of max(AUROC, 1 - AUROC)",
            f"{LEACE} is about convex losses, which see means; ranks see more", 0.6,
            np.maximum(ranks, 1 - ranks).mean(), bound=least,
            kind=tm.Kind.FINDING,
            threshold="ours: clearly more than one half",
        ),
        claim(
            "linear encoders: what erasing takes from all others, largest |difference| from "
            "1 - P_ii, every feature",
            "sum_j P_ij^2 = P_ii of a projector; covariances are sampled", 0,
            abs(lost - 1 + straight["leverage"]).max(), tolerance=0.06,
            kind=tm.Kind.PREDICTION,
            threshold="ours: covariances of 16,384 examples",
        ),
        claim(
            "it is at most 1 - D_i: largest excess",
            "D_i <= P_ii, the leverage score", 0, (lost - 1 + straight["dimensionality"]).max(),
            tolerance=0.06, bound=most,
            kind=tm.Kind.PREDICTION,
            threshold="ours: covariances of 16,384 examples",
        ),
        claim(
            "interventions on the hidden layer do what the closed form says: largest difference",
            "steering_effects", 0, represented(results, "steering_error").max(), tolerance=1e-5,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        claim(
            "linear output: side effects of steering, largest |difference| from sqrt(1/D_i - 1)",
            "D_i = G_ii^2 / sum_j G_ij^2", 0, abs(linear - closed).max(), tolerance=1e-3,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        claim(
            "ReLU outputs have less: largest quotient over features with D_i < 0.9",
            "what is negative is cut off", 1, hidden_by.max(), bound=most,
            kind=tm.Kind.FINDING,
        ),
        claim(
            "and at the least density less than a third: median quotient",
            "the outputs of absent features are below 0", 1 / 3,
            hidden_by.sel(density=sparse).median(), bound=most,
            kind=tm.Kind.FINDING,
            threshold="ours: well below one",
        ),
    ]  # fmt: skip


def heat_map(figure: Figure, axes: Any, values: xr.DataArray, title: str, **limits: Any) -> None:
    """Density along x, bend along y, numbers in the cells."""
    table = values.transpose("bend", "density").values
    image = axes.imshow(table, origin="lower", aspect="auto", cmap="viridis", **limits)
    low, high = image.get_clim()
    for (row, column), number in np.ndenumerate(table):
        dark = number < (low + high) / 2
        axes.text(
            column, row, f"{number:.2f}", ha="center", va="center", fontsize=7,
            color="white" if dark else "black",
        )  # fmt: skip
    axes.set_xticks(range(table.shape[1]), labels=[f"{p:g}" for p in values.density.values])
    axes.set_yticks(range(table.shape[0]), labels=[f"{bend:g}" for bend in values.bend.values])
    axes.set(
        xlabel="density p",
        ylabel="bend (0 linear, 1 ReLU)",
        title=title,
    )
    figure.colorbar(image, ax=axes, pad=0.02, extend="min" if low == 0 else "neither")


def scatter(axes: Any, x: xr.DataArray, y: xr.DataArray, **style: Any) -> None:
    """One dot for every feature of every model."""
    axes.plot(x.values.ravel(), y.values.ravel(), ".", rasterized=True, **style)


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 3, size=(11.2, 6))
    straight = results.sel(bend=0.0)
    heat_map(
        figure, grid[0, 0], results["additivity"].median("seed"),
        "Do trained encoders add? $R^2$",
        vmin=0, vmax=1,
    )  # fmt: skip
    left = represented(results, "auroc").sel(probe="quadratic").mean(("seed", "feature"))
    heat_map(
        figure, grid[0, 2], left,
        "A quadratic probe after LEACE: AUROC",
        vmin=0.5, vmax=0.85,
    )  # fmt: skip

    axes = grid[0, 1]
    fine = np.geomspace(float(results.density.min()), 1, 200)
    for number, bend in enumerate(results.bend.values):
        axes.plot(fine, pair(fine, bend), color=f"C{number}", label=f"bend {bend:g}")
        found = results["pair"].sel(bend=bend).transpose("density", "seed")
        axes.plot(results.density, found, ".", color=f"C{number}", ms=4)
    axes.set(
        xscale="log", xlabel="density p", ylabel="additivity $R^2$", ylim=(-2.2, 1.1),
        title="An antipodal pair in one neuron, exact",
    )  # fmt: skip
    axes.legend(loc="lower left")

    axes = grid[1, 0]
    share = represented(straight, "dimensionality")
    line = np.linspace(0.2, 1, 100)
    axes.plot(line, 1 - line, color="black", linewidth=1, label="$1 - D_i$")
    scatter(axes, share, represented(straight, "lost"), color="C0", ms=3, label="trained, bend 0")
    axes.set(
        xlabel="feature dimensionality $D_i$", ylabel="readable features lost",
        title="What erasing takes from the others",
    )  # fmt: skip
    axes.legend()

    axes = grid[1, 1]
    axes.plot(line, np.sqrt(1 / line - 1), color="black", linewidth=1, label="$\\sqrt{1/D_i - 1}$")
    for name, color, label in (
        ("linear_side_effects", "C0", "the same weights, linear output"),
        ("side_effects", "C3", "ReLU output"),
    ):
        scatter(axes, share, represented(straight, name), color=color, ms=3, label=label)
    axes.set(
        xlabel="feature dimensionality $D_i$", ylabel="change of others / of the steered",
        title="Side effects of steering by 1", ylim=(-0.05, None),
    )  # fmt: skip
    axes.legend()

    axes = grid[1, 2]
    amount = results.amount.values
    axes.plot(amount, amount, color="black", linewidth=1, label="linear output")
    response = represented(straight, "response").mean(("seed", "feature"))
    for number, density in enumerate(results.density.values[:: max(1, len(results.density) // 3)]):
        axes.plot(
            amount,
            response.sel(density=density),
            color=f"C{number}",
            label=f"ReLU, p = {density:g}",
        )
    axes.set(
        xlabel="steering amount $\\alpha$", ylabel="mean change of the steered output",
        title="Response to steering",
    )  # fmt: skip
    axes.legend()
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
