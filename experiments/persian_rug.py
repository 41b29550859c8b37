"""The Persian rug: is the permutation-symmetric solution what training finds?

Claim      A model whose noise is Gaussian has a closed-form loss, and random rows of a Hadamard
           matrix reach it. Training passes it: it finds couplings that are skewed, so that
           noise is mostly negative and cut off, and at r = 1/2 antipodal pairs.
Reproduces Cowsik, Dolev, Infanger (2024), "The Persian Rug": loss against the ratio of
           dimensions, the rug, the noise. Smaller: n = 128 and one density, and a schedule.
Selection  None: every seed is shown.
Command    toymodels run experiments/persian_rug.py
"""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import persian_rug as theory

SOURCE = "Cowsik, Dolev, Infanger (2024)"
FOUND = "found here"
RATIO = 1 / 4
"""Shown in detail."""


class Untied(nn.Module):
    r"""$y = \mathrm{ReLU}(W_\text{out} W_\text{in} x + b)$, started as in PyTorch, but $b = 0$."""

    hidden: int

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " features"]:
        # Uniform on +-1 / sqrt(inputs); a matrix here is outputs x inputs.
        start = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        shape = (self.hidden, features.size)
        weights_in = self.param("weights_in", start, shape)
        weights_out = self.param("weights_out", start, shape[::-1])
        bias = self.param("bias", nn.initializers.zeros, (features.size,))
        return nn.relu(weights_out @ (weights_in @ features) + bias)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    num_features: int = 128
    density: float = 0.05
    ratios: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
    """Hidden dimensions per feature; multiples of 1/16, one of them 1/4."""
    other_sizes: tuple[int, ...] = (32, 512)
    """Of features, at ratio 1/4 and one seed."""
    num_seeds: int = 2
    steps: int = 5000
    batch: int = 256
    learning_rate: float = 3e-2
    """At the start of a cosine schedule, times the root of n: ten times the paper's."""
    hadamard_features: int = 4096
    hadamard_samples: int = 1024


SMOKE = Config(
    num_features=16,
    ratios=(1 / 4, 1 / 2),
    other_sizes=(32,),
    num_seeds=1,
    steps=50,
    batch=32,
    hadamard_features=64,
    hadamard_samples=64,
)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    def cell(
        key: Any, *, density: Any, ratio: float = RATIO, size: int = config.num_features
    ) -> dict[str, Any]:
        rate = config.learning_rate / size**0.5
        trained = tm.train(
            key,
            Untied(round(ratio * size)),
            tm.Task(tm.SparseUniform(size, density)),
            optimizer=optax.adam(optax.cosine_decay_schedule(rate, config.steps)),
            steps=config.steps,
            batch=config.batch,
        )
        return {
            "loss": trained.loss / size,
            "curve": trained.history.loss / size,
            "step": trained.history.step,
            "couplings": trained.params["weights_out"] @ trained.params["weights_in"],
        }

    def other_cell(key: Any, *, density: Any, size: int) -> dict[str, Any]:
        measured = cell(key, density=density, size=size)
        return {f"{name}_of_size": measured[name] for name in ("loss", "curve")}

    units = {"loss": "mean over outputs"}
    axes: dict[str | tuple[str, ...], Any] = {"density": [config.density]}
    trained = tm.sweep(
        cell,
        axes=axes,
        static={"ratio": config.ratios},
        num_seeds=config.num_seeds,
        dims={"curve": ("point",), "step": ("point",), "couplings": ("output", "feature")},
        units=units,
        store=store,
    )
    others = tm.sweep(
        other_cell,
        axes=axes,
        static={"size": config.other_sizes},
        dims={"curve_of_size": ("point",)},
        store=store,
    )
    results = xr.merge([trained, others.isel(seed=0, drop=True)], combine_attrs="drop_conflicts")
    results = results.isel(density=0)
    results["step"] = results["step"].isel(ratio=0, seed=0)
    rug = [hadamard(config, ratio) for ratio in config.ratios]
    results["hadamard"] = ("ratio", [loss for loss, _ in rug])
    results["hadamard_error"] = ("ratio", [error for _, error in rug])
    small = weights(config.num_features, RATIO, config.density)
    results["rug"] = (("output", "feature"), small.weights_out @ small.weights_in)
    large = weights(config.hadamard_features, RATIO, config.density)
    models = {
        f"Hadamard, n={config.hadamard_features}": large.weights_out[:64] @ large.weights_in,
        f"Hadamard, n={config.num_features}": results["rug"].values,
        f"trained, n={config.num_features}": results["couplings"]
        .sel(ratio=RATIO)
        .isel(seed=0)
        .transpose("output", "feature")
        .values,
    }
    edges = np.linspace(-6, 6, 61)
    noise = [standard_noise(couplings, config.density) for couplings in models.values()]
    counts = [np.histogram(part, edges, density=True)[0] for part in noise]
    results["noise"] = (("model", "bin"), counts)
    results["skew"] = ("model", [stats.skew(part) for part in noise])
    return results.assign_coords(model=list(models), bin=(edges[1:] + edges[:-1]) / 2)


def weights(num_features: int, ratio: float, density: float) -> theory.RugWeights:
    """Random rows of a Hadamard matrix at the best gain and bias."""
    best = theory.best_rug(density, ratio)
    return theory.hadamard_weights(
        np.random.default_rng(0),
        num_features,
        round(ratio * num_features),
        density=density,
        gain=float(best.gain),
        bias=float(best.bias),
    )


def samples(rng: np.random.Generator, num_features: int, count: int, density: float) -> Any:
    """Sparse uniform features, one example in a column."""
    shape = (num_features, count)
    return np.where(rng.random(shape) < density, rng.random(shape), 0).astype(np.float32)


def hadamard(config: Config, ratio: float) -> tuple[float, float]:
    """Simulated mean loss of an output, and its standard error."""
    made = weights(config.hadamard_features, ratio, config.density)
    encoder, decoder, bias = (part.astype(np.float32) for part in made)
    rng = np.random.default_rng(1)
    x = samples(rng, config.hadamard_features, config.hadamard_samples, config.density)
    losses = ((x - np.maximum(decoder @ (encoder @ x) + bias[:, None], 0)) ** 2).mean(axis=0)
    return float(losses.mean()), float(losses.std() / np.sqrt(losses.size))


def standard_noise(couplings: np.ndarray, density: float) -> np.ndarray:
    """What other features add to an output: mean 0 and variance 1 for each output."""
    others = couplings.copy()
    np.fill_diagonal(others, 0)
    rng = np.random.default_rng(2)
    x = samples(rng, couplings.shape[1], 4096, density)
    variance = density / 3 - density**2 / 4
    mean, deviation = others.sum(axis=1) * density / 2, np.sqrt((others**2).sum(axis=1) * variance)
    kept = deviation > 1e-3 * deviation.max()  # features that are not represented have no noise
    return ((others[kept] @ x - mean[kept, None]) / deviation[kept, None]).ravel()


def lyapunov(couplings: xr.DataArray) -> xr.DataArray:
    """Sum |W_ij|^3 / (sum W_ij^2)^(3/2) over the couplings of an output to other features."""
    others = couplings * (1 - np.eye(couplings.sizes["output"]))
    return abs(others**3).sum("feature") / (others**2).sum("feature") ** 1.5


def diagonal(results: xr.Dataset) -> xr.DataArray:
    couplings = results["couplings"]
    return (couplings * np.eye(couplings.sizes["output"])).sum("feature")


def symmetric(results: xr.Dataset) -> xr.DataArray:
    """The closed-form loss at the ratios of the results."""
    losses = [theory.best_rug(float(results.density), ratio).loss for ratio in results.ratio.values]
    return xr.DataArray(np.array(losses), dims="ratio", coords={"ratio": results.ratio})


def maps(points: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Densities, ratios, the closed-form loss, and the lower of its two rivals."""
    densities, ratios = np.geomspace(1e-3, 1, points), np.geomspace(1e-3, 0.99, points)
    with jax.enable_x64(True):
        over = jax.vmap(jax.vmap(theory.best_rug, (0, None)), (None, 0))
        rug = np.asarray(over(densities, ratios).loss)
    density, ratio = np.meshgrid(densities, ratios)
    rivals = np.vectorize(theory.loss_of_pairs)(density, ratio)
    return densities, ratios, rug, rivals


def claims(results: xr.Dataset) -> list[tm.Claim]:
    expected = symmetric(results)
    relative = results["loss"] / expected
    densities, ratios, rug, _ = maps(20)
    linear = (1 - ratios)[:, None] * (densities / 3 - densities**2 / 4)[None, :]
    own = diagonal(results)
    represented = own > own.max("output") / 2
    spread = own.where(represented).std("output") / own.where(represented).mean("output")
    half = results.sel(ratio=1 / 2)
    size = f"n={results.sizes['feature']}, p={float(results.density):g}"
    return [
        tm.Claim(
            "Hadamard models have the closed-form loss: largest relative deviation over ratios",
            SOURCE,
            expected=0.0,
            measured=float(abs(results["hadamard"] / expected - 1).max()),
            tolerance=0.02,
            kind=tm.Kind.PAPER,
            threshold="ours: sampling, and a finite number of features",
        ),
        tm.Claim(
            "the closed-form loss is never above that of principal components: largest quotient "
            "over densities and ratios from 0.001 to 1",
            "targets are not negative, so a ReLU cannot hurt",
            expected=1.0,
            measured=float((rug / linear).max()),
            tolerance=1e-6,
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        tm.Claim(
            f"trained models have the closed-form loss, {size}: quotient furthest from 1",
            SOURCE + ', abstract: "its loss precisely matches that of the trained models"',
            expected=1.0,
            measured=float(relative.values.ravel()[abs(relative - 1).values.argmax()]),
            tolerance=0.1,
            note="They are better, most of all at r = 1/2. With the paper's learning rate, 3e-3 / "
            "sqrt(n), and its 44,000 steps (of 256 examples) it is 0.63 at n=128, r=0.3.",
            kind=tm.Kind.PAPER,
            threshold="ours: the paper says precisely",
        ),
        tm.Claim(
            f"trained models are not worse than the closed form, {size}: largest quotient",
            "any solution that training finds must do at least as well",
            expected=1.0,
            measured=float(relative.max()),
            tolerance=0.02,
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: sampling",
        ),
        tm.Claim(
            f"and so are larger ones: quotient at r = 1/4, n={int(results['size'][-1])}",
            "direct sums of small models have their loss at every multiple of n",
            expected=0.9,
            measured=float(results["loss_of_size"][-1] / expected.sel(ratio=RATIO)),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: a tenth, less than what direct sums give",
        ),
        tm.Claim(
            "r = 1/2: trained models do as well as antipodal pairs, largest quotient",
            "toymodels.theory.persian_rug.loss_of_pairs",
            expected=1.0,
            measured=float(half["loss"].max() / theory.loss_of_pairs(float(half.density), 1 / 2)),
            tolerance=0.05,
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        tm.Claim(
            "and are such pairs: Lyapunov ratio of their couplings, 1 for one partner, 0.14 for "
            "127 Gaussian ones; median over features",
            FOUND,
            expected=1.0,
            measured=float(lyapunov(half["couplings"]).median()),
            tolerance=0.05,
            kind=tm.Kind.FINDING,
            threshold="ours: 0.05 of the range from 0.14 to 1 is convergence",
        ),
        tm.Claim(
            "features are alike, r from 1/4: largest coefficient of variation of the diagonal of "
            "W_out W_in, of those represented",
            SOURCE + ": variance of the diagonal",
            expected=0.0,
            measured=float(spread.sel(ratio=slice(RATIO, None)).max()),
            tolerance=0.05,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        tm.Claim(
            "and so at any r, with no feature left out: least share of features represented",
            SOURCE + ": no feature is privileged",
            expected=0.99,
            measured=float(represented.mean("output").min()),
            bound=tm.Bound.AT_LEAST,
            note="At r = 1/16, n=128 models drop two features of three, at 1/8 one of five, to "
            "serve the others better.",
            kind=tm.Kind.PAPER,
            threshold="ours: one feature in 128",
        ),
        tm.Claim(
            "noise of a trained model leans to the negative side, where the ReLU cuts it: skewness "
            "at r = 1/4 less that of the Hadamard model of the same size",
            FOUND,
            expected=-0.5,
            measured=float(results["skew"][2] - results["skew"][1]),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.FINDING,
            threshold="ours: clearly below 0",
        ),
    ]


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 3, size=(9.5, 6.2))
    _losses(grid[0, 0], results)
    _curves(grid[0, 1], results)
    _window(figure, grid[0, 2], results)
    couplings = results["couplings"].sel(ratio=RATIO).isel(seed=0)
    shown = slice(64)
    for axes, matrix, title in (
        (grid[1, 0], results["rug"], "Hadamard rows: the rug"),
        (grid[1, 1], couplings, "trained, seed 0"),
    ):
        values = matrix.transpose("output", "feature").values
        # A feature that is not represented has no diagonal to divide by.
        scale = np.maximum(np.diag(values), 0.1 * np.diag(values).max())
        unit = (values / scale[:, None])[shown, shown]
        image = axes.imshow(unit, cmap="RdBu_r", vmin=-0.5, vmax=0.5, interpolation="nearest")
        title += f"\nr = 1/4, {len(unit)} of {len(values)}"
        axes.set(title=title, xlabel="feature", ylabel="output")
        figure.colorbar(image, ax=axes, shrink=0.8, label=r"$W_{ij} / W_{ii}$")
    _noise(grid[1, 2], results)
    return figure


def _losses(axes: Any, results: xr.Dataset) -> None:
    density = float(results.density)
    ratios = np.linspace(0.02, 0.85, 200)
    rug = [theory.best_rug(density, ratio).loss for ratio in ratios]
    axes.semilogy(ratios, rug, color="black", label="symmetric, closed form")
    axes.semilogy(
        results.ratio, results["hadamard"], "s", mfc="none", color="C0", label="Hadamard, simulated"
    )
    trained = results["loss"].transpose("ratio", "seed")
    lines = axes.semilogy(results.ratio, trained, ".", color="C3", ms=5, zorder=3)
    lines[0].set_label(f"trained, n={results.sizes['feature']}, every seed")
    linear = [theory.loss_of_linear(density, ratio) for ratio in ratios]
    axes.semilogy(ratios, linear, ":", color="0.5", label="linear")
    pairs = [theory.loss_of_pairs(density, ratio) for ratio in ratios]
    axes.semilogy(ratios, pairs, "--", color="C1", label="antipodal pairs")
    axes.set(
        xlabel="dimensions per feature r", ylabel="loss, mean over features", ylim=(5e-6, 3e-2)
    )
    axes.set_title(f"density {density:g}")
    axes.legend(loc="lower left", fontsize=7)


def _curves(axes: Any, results: xr.Dataset) -> None:
    loss = float(theory.best_rug(float(results.density), RATIO).loss)
    own = results["curve"].sel(ratio=RATIO).isel(seed=0) / loss
    curves = {int(size): results["curve_of_size"].sel(size=size) / loss for size in results["size"]}
    curves[results.sizes["feature"]] = own
    for number, (size, curve) in enumerate(sorted(curves.items())):
        axes.plot(results["step"], curve, color=f"C{number}", linewidth=1, label=f"n = {size}")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xlabel="step", ylabel="minibatch loss / closed form", ylim=(0.5, 2))
    axes.set_title("training passes the symmetric loss\nr = 1/4, seed 0")
    axes.legend()


def _window(figure: Figure, axes: Any, results: xr.Dataset) -> None:
    densities, ratios, rug, rivals = maps()
    image = axes.pcolormesh(
        densities, ratios, np.log2(rivals / rug), cmap="RdBu", vmin=-2, vmax=2, rasterized=True
    )
    # Not 0: dense features leave all solutions alike, but for rounding.
    axes.contour(
        densities, ratios, np.log2(rivals / rug), [-1e-3], colors="black", linestyles="solid"
    )
    half = [theory.ratio_of_half_loss(density) for density in densities]
    axes.plot(densities, half, ":", color="black", label="half of variance lost")
    axes.plot(
        np.full(results.sizes["ratio"], results.density),
        results.ratio,
        "o",
        color="C3",
        mec="white",
        ms=5,
    )
    axes.set(xscale="log", yscale="log", xlabel="density p", ylabel="dimensions per feature r")
    axes.set_title("blue: symmetry beats pairs\n(red dots: trained)")
    axes.legend(loc="lower center", fontsize=7, frameon=True, framealpha=0.8)
    figure.colorbar(image, ax=axes, label=r"log$_2$ (loss of pairs / symmetric)", extend="both")


def _noise(axes: Any, results: xr.Dataset) -> None:
    for number, model in enumerate(results["model"].values):
        chosen = results.sel(model=model)
        label = f"{model}: skew {float(chosen['skew']):.2f}"
        axes.step(results.bin, chosen["noise"], where="mid", color=f"C{number}", label=label, lw=1)
    axes.plot(results.bin, stats.norm.pdf(results.bin), color="black", lw=0.8, label="Gaussian")
    axes.set(yscale="log", ylim=(1e-6, 1e3), xlabel="noise / its standard deviation")
    axes.set(ylabel="probability density", title="noise of other features, r = 1/4")
    axes.legend(loc="upper left", fontsize=7)


if __name__ == "__main__":
    experiment.main(__file__)
