"""The Persian rug: training finds better models than the permutation-symmetric solution.

Claim      A model whose noise is Gaussian has a closed-form loss, and random rows of a Hadamard
           matrix reach it. Training goes below it: it finds couplings that are skewed, so that
           noise is mostly negative and cut off, and at r = 1/2 it finds antipodal pairs.
Reproduces Cowsik, Dolev, Infanger (2024), "The Persian Rug": loss against the ratio of
           dimensions, the rug, the noise. Smaller: n = 128 and one density, and a schedule.
Selection  None: every seed is shown.
Command    toymodels run experiments/persian_rug.py
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from scipy import stats

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import feature_variance
from toymodels.theory import persian_rug as theory

WORK = "Cowsik, Dolev, Infanger (2024)"
PAPER = tm.paper(WORK)
FOUND = tm.finding("Found here")
SAMPLED = "Ours, because losses are sampled."
LACKING = "Ours, because one in 128 may lack."
RATIO = 1 / 4
"""The hidden dimensions per feature of the models that are shown in detail."""


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
    num_features: int = 128
    density: float = 0.05
    ratios: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
    """Hidden dimensions per feature; multiples of 1/16, one of them 1/4."""
    other_sizes: tuple[int, ...] = (32, 512)
    """Other numbers of features, at ratio 1/4 and one seed."""
    num_seeds: int = 2
    training: tm.Recipe = tm.Recipe(steps=5000, batch=256, learning_rate=3e-2)
    """The learning rate times the root of n: ten times the paper's."""
    hadamard_features: int = 4096
    hadamard_samples: int = 1024


SMOKE = Config(
    num_features=16,
    ratios=(1 / 4, 1 / 2),
    other_sizes=(32,),
    num_seeds=1,
    training=tm.Recipe(steps=50, batch=32, learning_rate=3e-2),
    hadamard_features=64,
    hadamard_samples=64,
)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    def cell(key, *, density, ratio=RATIO, size=config.num_features):
        rate = config.training.learning_rate / size**0.5
        recipe = dataclasses.replace(config.training, learning_rate=rate)
        task = tm.Task(tm.SparseUniform(size, density))
        trained = recipe.train(key, Untied(round(ratio * size)), task)
        couplings = trained.params["weights_out"] @ trained.params["weights_in"]
        return {"loss": trained.loss / size, "couplings": couplings}

    def other_cell(key, *, density, size):
        return {"loss_of_size": cell(key, density=density, size=size)["loss"]}

    trained = tm.sweep(
        cell,
        axes={"density": [config.density]},
        static={"ratio": config.ratios},
        num_seeds=config.num_seeds,
        dims={"couplings": ("output", "feature")},
        units={"loss": "mean over outputs"},
        store=store,
    )
    others = tm.sweep(
        other_cell,
        axes={"density": [config.density]},
        static={"size": config.other_sizes},
        store=store,
    )
    results = xr.merge([trained, others.isel(seed=0, drop=True)], combine_attrs="drop_conflicts")
    results = results.isel(density=0)
    rug = [hadamard_loss(config, ratio) for ratio in config.ratios]
    results["hadamard"] = ("ratio", [loss for loss, _ in rug])
    results["hadamard_error"] = ("ratio", [error for _, error in rug])
    small = hadamard(config.num_features, RATIO, config.density)
    large = hadamard(config.hadamard_features, RATIO, config.density)
    results["rug"] = (("output", "feature"), small.weights_out @ small.weights_in)
    couplings = results.couplings.sel(ratio=RATIO).isel(seed=0).transpose("output", "feature")
    models = {
        f"Hadamard, n={config.hadamard_features}": large.weights_out[:64] @ large.weights_in,
        f"Hadamard, n={config.num_features}": results.rug.values,
        f"trained, n={config.num_features}": couplings.values,
    }
    edges = np.linspace(-6, 6, 61)
    noise = [standard_noise(couplings, config.density) for couplings in models.values()]
    counts = [np.histogram(part, edges, density=True)[0] for part in noise]
    results["noise"] = (("model", "bin"), counts)
    results["skew"] = ("model", [stats.skew(part) for part in noise])
    return results.assign_coords(model=list(models), bin=(edges[1:] + edges[:-1]) / 2)


def hadamard(num_features: int, ratio: float, density: float) -> theory.RugWeights:
    """Return random rows of a Hadamard matrix at the best gain and bias."""
    best = theory.best_rug(density, ratio)
    return theory.hadamard_weights(
        np.random.default_rng(0),
        num_features,
        round(ratio * num_features),
        density=density,
        gain=float(best.gain),
        bias=float(best.bias),
    )


def samples(
    rng: np.random.Generator, num_features: int, count: int, density: float
) -> Float[np.ndarray, "features examples"]:
    """Draw sparse uniform features, one example in a column."""
    shape = (num_features, count)
    return np.where(rng.random(shape) < density, rng.random(shape), 0).astype(np.float32)


def hadamard_loss(config: Config, ratio: float) -> tuple[float, float]:
    """Return the simulated mean loss of an output, and its standard error."""
    made = hadamard(config.hadamard_features, ratio, config.density)
    encoder, decoder, bias = (part.astype(np.float32) for part in made)
    rng = np.random.default_rng(1)
    x = samples(rng, config.hadamard_features, config.hadamard_samples, config.density)
    losses = ((x - np.maximum(decoder @ (encoder @ x) + bias[:, None], 0)) ** 2).mean(axis=0)
    return float(losses.mean()), float(losses.std() / np.sqrt(losses.size))


def standard_noise(
    couplings: Float[np.ndarray, "outputs features"], density: float
) -> Float[np.ndarray, " values"]:
    """Return what other features add to an output, at mean 0 and variance 1 for each output."""
    others = couplings.copy()
    np.fill_diagonal(others, 0)
    x = samples(np.random.default_rng(2), couplings.shape[1], 4096, density)
    mean = others.sum(axis=1) * density / 2
    deviation = np.sqrt((others**2).sum(axis=1) * feature_variance(density))
    kept = deviation > 1e-3 * deviation.max()  # features that are not represented have no noise
    return ((others[kept] @ x - mean[kept, None]) / deviation[kept, None]).ravel()


def lyapunov(couplings: xr.DataArray) -> xr.DataArray:
    """Return sum |W_ij|^3 / (sum W_ij^2)^(3/2) over the couplings of an output to others."""
    others = couplings * (1 - np.eye(couplings.sizes["output"]))
    return abs(others**3).sum("feature") / (others**2).sum("feature") ** 1.5


def symmetric_loss(results: xr.Dataset) -> xr.DataArray:
    """Return the closed-form loss at the ratios of the results."""
    losses = [theory.best_rug(float(results.density), ratio).loss for ratio in results.ratio.values]
    return results.ratio.copy(data=losses)


def map_of(loss: Callable[..., Array], points: int) -> xr.DataArray:
    """Return a loss of density and ratio at many densities and ratios."""
    density = xr.DataArray(np.geomspace(1e-3, 1, points), dims="density")
    ratio = xr.DataArray(np.geomspace(1e-3, 0.99, points), dims="ratio")
    density, ratio = (array.assign_coords({array.dims[0]: array}) for array in (density, ratio))
    return tm.apply(loss, density, ratio, model_dims=(), float64=True)


def claims(results: xr.Dataset) -> tm.Claims:
    expected = symmetric_loss(results)
    relative = results.loss / expected
    own = (results.couplings * np.eye(results.sizes["output"])).sum("feature")
    represented = own > own.max("output") / 2
    half = results.sel(ratio=1 / 2)
    models = f"n={results.sizes['feature']} and density {float(results.density):g}"

    says = "The simulated loss of models made of random rows of a Hadamard matrix is the closed "
    says += "form of Gaussian noise at every ratio of hidden dimensions to features."
    gap = abs(results.hadamard / expected - 1).max()
    threshold = "Ours, because losses are sampled, and the number of features is finite."
    yield tm.near(says, 0, gap, PAPER, within=0.02, threshold=threshold)

    says = "The closed-form loss is at most that of principal components at all densities and "
    says += "ratios from 0.001 to 1."
    source = tm.identity("Targets are not negative, so a ReLU cannot hurt")
    quotient = map_of(lambda *point: theory.best_rug(*point).loss, 20)
    quotient = quotient / map_of(theory.loss_of_linear, 20)
    threshold = "Ours, because numbers are rounded."
    yield tm.at_most(says, 1, quotient.max(), source, slack=1e-6, threshold=threshold)

    says = f"The loss of trained models with {models} is the closed form of Gaussian noise at "
    says += "every ratio of hidden dimensions to features, measured by the quotient farthest from "
    says += "1."
    source = tm.paper(f'{WORK}, abstract: "its loss precisely matches that of the trained models"')
    furthest = relative.values.ravel()[abs(relative - 1).values.argmax()]
    threshold = "Ours, because the paper says precisely, and gives no number."
    note = "They are better, most of all at r = 1/2. With the paper's learning rate, 3e-3 / "
    note += "sqrt(n), and its 44,000 steps (of 256 examples) the quotient is 0.63 at n=128, r=0.3."
    yield tm.near(says, 1, furthest, source, within=0.1, threshold=threshold, note=note)

    says = f"The loss of trained models with {models} is at most the closed form of Gaussian noise "
    says += "at every ratio of hidden dimensions to features, measured by the largest quotient."
    source = tm.prediction("Any solution that training finds must do at least as well")
    yield tm.at_most(says, 1, relative.max(), source, slack=0.02, threshold=SAMPLED)

    size = int(results["size"][-1])
    says = f"The loss of a trained model with n={size} and m = n/4 is below the closed form of "
    says += "Gaussian noise, measured by the quotient."
    source = tm.prediction("Direct sums of small models have their loss at every multiple of n")
    quotient = results.loss_of_size[-1] / expected.sel(ratio=RATIO)
    threshold = "Ours, because a tenth is less than what direct sums give."
    yield tm.at_most(says, 0.9, quotient, source, threshold=threshold)

    says = "The loss of trained models with m = n/2 is at most that of antipodal pairs."
    source = tm.prediction("toymodels.theory.persian_rug.loss_of_pairs")
    quotient = half.loss.max() / theory.loss_of_pairs(float(half.density), 1 / 2)
    threshold = "Ours, because training does not converge entirely."
    yield tm.at_most(says, 1, quotient, source, slack=0.05, threshold=threshold)

    says = "A feature of trained models with m = n/2 has one partner: the median Lyapunov ratio of "
    says += "its couplings is 1, not 0.14 as for 127 Gaussian ones."
    threshold = "Ours, because it is a small part of the range from 0.14 to 1."
    ratio = lyapunov(half.couplings).median()
    yield tm.near(says, 1, ratio, FOUND, within=0.05, threshold=threshold)

    says = "The represented features of a trained model have nearly equal diagonal entries of "
    says += "W_out W_in at every ratio of dimensions from 1/4, measured by their coefficient of "
    says += "variation."
    source = tm.paper(f"{WORK}: variance of the diagonal")
    spread = own.where(represented).std("output") / own.where(represented).mean("output")
    largest = spread.sel(ratio=slice(RATIO, None)).max()
    threshold = "Ours, because the paper gives no number."
    yield tm.near(says, 0, largest, source, within=0.05, threshold=threshold)

    says = "Nearly all features are represented in every trained model at any ratio of hidden "
    says += "dimensions to features, measured by their smallest share."
    source = tm.paper(f"{WORK}: no feature is privileged")
    share = represented.mean("output").min()
    note = "At r = 1/16, n=128 models drop two features of three, at 1/8 one of five, to serve the "
    note += "others better."
    yield tm.at_least(says, 0.99, share, source, threshold=LACKING, note=note)

    says = "The noise of a trained model with m = n/4 is skewed to the negative side, where the "
    says += "ReLU cuts it, more than that of a Hadamard model."
    lean = results["skew"][2] - results["skew"][1]
    yield tm.at_most(says, -0.5, lean, FOUND, threshold="Ours, because it is clearly below 0.")


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (top, bottom) = plotting.figure_of_parts(2, size=(9, 6.8))
    losses, noise = top.subplots(1, 2)
    draw_losses(losses, results)
    draw_noise(noise, results)
    rug, trained, gains = bottom.subplots(1, 3)
    draw_map(gains, results)
    couplings = results.couplings.sel(ratio=RATIO).isel(seed=0)
    for axes, matrix, title in (
        (rug, results.rug, "The rug: Hadamard rows"),
        (trained, couplings, "Trained: fewer, stronger,\nmostly negative couplings"),
    ):
        values = matrix.transpose("output", "feature").values
        # A feature that is not represented has no diagonal to divide by.
        scale = np.maximum(np.diag(values), 0.1 * np.diag(values).max())
        image = plotting.signed_matrix(axes, (values / scale[:, None])[:64, :64], limit=0.5)
        axes.set(title=title, ylabel="output", xlabel="feature (first 64)")
    style = {"location": "bottom", "shrink": 0.6, "extend": "both"}
    plotting.color_bar(image, r"$W_{ij} / W_{ii}$ at r = 1/4", axes=[rug, trained], **style)
    return figure


def draw_losses(axes: plotting.Axes, results: xr.Dataset) -> None:
    density, ratios = float(results.density), np.linspace(0.02, 0.85, 200)
    rug = [theory.best_rug(density, ratio).loss for ratio in ratios]
    linear, pairs = (f(density, ratios) for f in (theory.loss_of_linear, theory.loss_of_pairs))
    axes.semilogy(ratios, linear, ":", color="0.5", label="linear")
    axes.semilogy(ratios, rug, color="black", label="symmetric, closed form")
    axes.semilogy(results.ratio, results.hadamard, "s", mfc="none", color="C0", label="Hadamard")
    axes.semilogy(ratios, pairs, "--", color="C1", label="antipodal pairs")
    trained = results.loss.transpose("ratio", "seed")
    dots = axes.semilogy(results.ratio, trained, ".", color="C3", ms=5, zorder=3)
    dots[0].set_label(f"trained, n = {results.sizes['feature']}, {trained.sizes['seed']} seeds")
    others = np.full(results.sizes["size"], RATIO)
    sizes = " and ".join(str(size) for size in results["size"].values)
    axes.semilogy(others, results.loss_of_size, "x", color="C2", label=f"trained, n = {sizes}")
    axes.set(xlabel="dimensions per feature r", ylabel="loss, mean over features")
    axes.set(ylim=(5e-6, 3e-2), title=f"Training beats the closed form\n(density {density:g})")
    axes.legend(loc="lower left", fontsize=7)


def draw_map(axes: plotting.Axes, results: xr.Dataset) -> None:
    rug = map_of(lambda *point: theory.best_rug(*point).loss, 80)
    gain = np.log2(map_of(theory.loss_of_pairs, 80) / rug)
    norm = plotting.Normalize(-2, 2)
    image = plotting.log_image(axes, gain, x="density", y="ratio", cmap="PuOr", norm=norm)
    # Not 0: dense features leave all solutions alike, but for rounding.
    across = gain.density, gain.ratio, gain.transpose("ratio", "density")
    axes.contour(*across, [-1e-3], colors="black", linestyles="solid")
    half = [theory.ratio_of_half_loss(density) for density in gain.density.values]
    axes.plot(gain.density, half, "k:", label="half of the variance lost")
    place = np.full(results.sizes["ratio"], results.density)
    axes.plot(place, results.ratio, "o", color="black", mec="white", ms=5, label="trained")
    axes.set(ylabel="dimensions per feature r", title="Purple: symmetry\nbeats pairs")
    axes.legend(loc="lower center", fontsize=7, frameon=True, framealpha=0.8)
    label = r"log$_2$ (loss of pairs / symmetric)"
    plotting.color_bar(image, label, location="bottom", extend="both")


def draw_noise(axes: plotting.Axes, results: xr.Dataset) -> None:
    for name in results.model.values:
        model = results.sel(model=name)
        axes.step(model.bin, model.noise.where(model.noise > 0), where="mid", label=name, lw=1)
    axes.plot(results.bin, stats.norm.pdf(results.bin), "k", lw=0.8, label="Gaussian")
    _, small, trained = results["skew"].values
    axes.set(
        xlabel="noise / its standard deviation",
        ylabel="probability density",
        yscale="log",
        ylim=(1e-7, 2),
        title=f"Trained noise leans left: its skewness\nis {trained:.2f}, of Hadamard rows "
        f"{small:.2f} (r = 1/4)",
    )
    axes.legend(loc="lower center", fontsize=7, handlelength=1)


if __name__ == "__main__":
    experiment.main(__file__)
