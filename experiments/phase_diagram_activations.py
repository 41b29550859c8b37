r"""The phase diagram of two features in one dimension for other outputs, and without a bias.

Claim      Superposition needs an output that clips negative interference. With the identity, tanh
           or the absolute value in place of the ReLU the red phase is gone; a leaky ReLU and a
           GELU, which clip most of it, keep most of the phase. A ReLU without a bias has a fourth
           phase, the "confused feature": both features point the same way, $W_1 = W_2 =
           1/\sqrt2$ at equal importance, where features are dense.
Reproduces Comments of Kshitij Sachan ("quite different for other activation functions"; which
           ones he tried is not said) and Tom McGrath (the model without bias) on Elhage et al.
           (2022). Neither gives settings; those of `phase_diagram.py` are used, on a coarser grid.
Selection  Best of 20 seeds by the loss integrated over both features (32 x 32 Gauss-Legendre
           points for two present, exact for none).
Command    toymodels run experiments/phase_diagram_activations.py
"""

import dataclasses
import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.analysis import phases as measured
from toymodels.errors import InputError
from toymodels.theory.phases import Phase

SACHAN = tm.finding("Comment of Kshitij Sachan on Elhage et al. (2022)")
MCGRATH = tm.paper("Comment of Tom McGrath on Elhage et al. (2022)")
# For integrals over [0, 1].
NODES, NODE_WEIGHTS = (
    part.astype(np.float32)
    for part in (np.polynomial.legendre.leggauss(32) + np.array([[1], [0]])) / 2
)


class NoBias(nn.Module):
    """The model of the paper without its bias."""

    @nn.compact
    def __call__(self, features):
        weights = self.param("weights", nn.initializers.xavier_normal(), (1, features.size))
        return nn.relu(weights.T @ (weights @ features))


MODELS: dict[str, nn.Module] = {
    "ReLU": tm.ReLUOutput(1),
    "GELU": tm.ReLUOutput(1, activation=nn.gelu),
    "leaky ReLU": tm.ReLUOutput(1, activation=functools.partial(nn.leaky_relu, negative_slope=0.3)),
    "identity": tm.LinearOutput(1),
    "tanh": tm.ReLUOutput(1, activation=nn.tanh),
    "absolute value": tm.ReLUOutput(1, activation=jnp.abs),
    "ReLU, no bias": NoBias(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    models: tuple[str, ...] = tuple(MODELS)
    grid: int = 25
    """The number of cells along each axis, even in the logarithm; an odd one has r = 1."""
    densities: tuple[float, float] = (0.01, 1.0)
    importances: tuple[float, float] = (0.1, 10.0)
    num_seeds: int = 20
    training: tm.Recipe = tm.Recipe(steps=1500, batch=512, learning_rate=1e-2)


SMOKE = Config(
    models=("ReLU", "ReLU, no bias"),
    grid=5,
    num_seeds=2,
    training=tm.Recipe(steps=100, batch=64, learning_rate=1e-2),
)


def run(config: Config) -> xr.Dataset:
    if not {"ReLU", "ReLU, no bias"} <= set(config.models) <= set(MODELS):
        raise InputError(
            f"models are {config.models}: choose among {', '.join(MODELS)}; the first and the last "
            "are needed"
        )

    def cell(key, *, model, density, importance):
        importances = tm.geometric_importance(2, importance)
        task = tm.Task(tm.SparseUniform(2, density), importance=importances)
        params = config.training.train(key, MODELS[model], task, evaluation=0).params
        weights = params["weights"]
        return {
            "weights": weights[0],
            "loss": integrated(tm.task_loss(MODELS[model], task), params, density),
            "norm": jnp.abs(weights[0, 1]),
            "superposition": geometry.superposition(weights)[1],
            "phase": measured.phase(weights),
        }

    return tm.sweep(
        cell,
        axes={
            "density": np.geomspace(*config.densities, config.grid),
            "importance": np.geomspace(*config.importances, config.grid),
        },
        static={"model": config.models},
        num_seeds=config.num_seeds,
        dims={"weights": ("feature",)},
        units={"loss": "summed over outputs"},
    )


def integrated(loss, params, density):
    """Return the expected loss of two features, by quadrature over those that are present."""
    of_all = jax.vmap(lambda features: loss(params, features))
    alone = np.stack([NODES, 0 * NODES], axis=1)
    both = np.stack(np.meshgrid(NODES, NODES), axis=-1).reshape(-1, 2)
    none_present = loss(params, jnp.zeros(2))
    one_present = NODE_WEIGHTS @ (of_all(alone) + of_all(alone[:, ::-1]))
    two_present = np.outer(NODE_WEIGHTS, NODE_WEIGHTS).ravel() @ of_all(both)
    absent = 1 - density
    return absent**2 * none_present + density * absent * one_present + density**2 * two_present


def confused(density: float, importance: float) -> tuple[np.ndarray, float]:
    """Return weights and loss of the best model without bias whose features point the same way.

    Nothing is clipped there, so $y_i = w_i (w_1 x_1 + w_2 x_2)$ and the loss is a polynomial in
    the moments $E x_i^2 = p / 3$, $E x_1 x_2 = p^2 / 4$.
    """
    square, mixed = density / 3, density**2 / 4

    def loss(weights: np.ndarray) -> float:
        first, second = np.abs(weights)
        seen = square * (first**2 + second**2) + 2 * mixed * first * second
        with_first, with_second = square * first + mixed * second, square * second + mixed * first
        return (square - 2 * first * with_first + first**2 * seen) + importance * (
            square - 2 * second * with_second + second**2 * seen
        )

    starts = ([0.7, 0.7], [1.0, 0.1], [0.1, 1.0])
    best = min((optimize.minimize(loss, start, tol=1e-10) for start in starts), key=lambda f: f.fun)
    return np.abs(best.x), float(best.fun)


def antipodal(density: float) -> tuple[float, float]:
    """Return squared length and exact loss of the best antipodal pair without bias, at r = 1."""

    def loss(length: float) -> float:
        weights = length * np.array([[1.0, -1.0]])
        return float(tm.theory.expected_loss(weights, np.zeros(2), density))

    best = optimize.minimize_scalar(loss, bounds=(0.5, 1.5), method="bounded")
    return float(best.x) ** 2, float(best.fun)


def equal_importance(results: xr.Dataset) -> xr.Dataset:
    """Return the best models without bias for two features of equal importance."""
    best = tm.best_of(results.sel(model="ReLU, no bias"), "loss")
    return best.sel(importance=1.0, method="nearest")


def superposed(results: xr.Dataset) -> xr.DataArray:
    """Return the share of the diagram that is antipodal superposition in the best seeds."""
    best = tm.best_of(results, "loss")
    antipodal_pair = best["weights"].prod("feature") < 0
    return ((best["phase"] == Phase.SUPERPOSITION) & antipodal_pair).mean(("density", "importance"))


def claims(results: xr.Dataset) -> Iterator[tm.Claim]:
    shares = superposed(results)
    ours = "Ours, because the comment gives no number; one in ten of the phase is left of a ReLU "
    ours += "that clips little, one in twenty is cells at its edge."
    for model, check, share in (
        ("GELU", tm.at_least, 0.1),
        ("leaky ReLU", tm.at_least, 0.1),
        ("identity", tm.at_most, 0.05),
        ("tanh", tm.at_most, 0.05),
        ("absolute value", tm.at_most, 0.05),
    ):
        if model in results.model:
            says = (
                f"Best models with the output {model} are in antipodal superposition in this share "
            )
            says += "of the cells, over the share with a ReLU."
            ratio = shares.sel(model=model) / shares.sel(model="ReLU")
            yield check(says, share, ratio, SACHAN, threshold=ours)

    equal = equal_importance(results)
    product = equal["weights"].prod("feature")
    dense = equal.sel(density=slice(0.65, None))
    models = "ReLU models without bias"
    says = f"Both weights of {models} at r = 1 are 1/sqrt(2) and of one sign at densities above "
    says += "0.65, so that each product of two weights is 1/2."
    off = np.maximum(
        np.abs(dense["weights"] ** 2 - 0.5).max(),
        np.abs(dense["weights"].prod("feature") - 0.5).max(),
    )
    no_number = "Ours, because the paper gives no number."
    yield tm.near(says, 0, off, MCGRATH, within=0.02, threshold=no_number)
    says = f"The loss of {models} at r = 1 and densities above 0.65 is p/3 - p^2/4, relatively."
    variance_like = dense.density / 3 - dense.density**2 / 4
    linear = tm.prediction("Nothing is clipped, so the loss is that of a linear model")
    off = np.abs(dense["loss"] / variance_like - 1).max()
    training = "Ours, because training converges this nearly."
    yield tm.near(says, 0, off, linear, within=1e-3, threshold=training)

    crossing = optimize.root_scalar(
        lambda p: antipodal(p)[1] - confused(p, 1.0)[1], bracket=(0.4, 0.8), xtol=1e-6
    ).root
    says = f"The antipodal pair of {models} at r = 1 gives way at the density where its loss "
    says += "crosses that of two features that point the same way."
    last = float(np.log(equal.density.where(product < 0)).max())
    step = float(np.log(equal.density[1] / equal.density[0]))
    exact = tm.prediction("toymodels.theory.expected_loss; 4/7 for a pair of unit length")
    cell, half = crossing * (np.exp(step / 2) - 1), "Ours, because it is half a cell of the grid."
    yield tm.near(says, crossing, np.exp(last + step / 2), exact, within=cell, threshold=half)
    says = f"The product of the two weights of {models} at r = 1 jumps between neighbouring "
    says += "densities from that of the best antipodal pair to 1/2."
    jump = np.abs(product.diff("density")).max()
    both = tm.paper(f"{MCGRATH.text}; toymodels.theory.expected_loss")
    grows = "Ours, because the pair grows as much within a cell."
    expected = 0.5 + antipodal(crossing)[0]
    yield tm.near(says, expected, jump, both, within=0.05, threshold=grows)

    row = tm.best_of(results.sel(model="ReLU, no bias"), "loss").sel(density=0.87, method="nearest")
    theory = [confused(float(row.density), float(r))[0] for r in row.importance]
    angle = np.degrees(np.arctan2(*np.abs(row["weights"].transpose("feature", ...).values)[::-1]))
    predicted = np.degrees([np.arctan2(second, first) for first, second in theory])
    says = f"The direction of {models} at density {float(row.density):.2f} turns continuously from "
    says += "one feature to the other over r, as in the linear optimum, measured in degrees."
    turns = "the lowest loss of all models whose features point the same way"
    picture = "Ours, because the comment has a picture; the linear optimum has no tolerance."
    source, off = tm.paper(f"{MCGRATH.text}; {turns}"), np.abs(angle - predicted).max()
    yield tm.near(says, 0, off, source, within=2.0, threshold=picture)


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 4, size=(9, 5.4))
    best, shares = tm.best_of(results, "loss"), superposed(results)
    names = ["ReLU", "leaky ReLU", "GELU", "ReLU, no bias", "identity", "tanh", "absolute value"]
    for axes, name in zip(grid.flat, names, strict=False):
        if name not in results.model:
            axes.set_visible(False)
            continue
        model = best.sel(model=name)
        colors = plotting.norm_and_superposition(model.norm, model.superposition)
        plotting.log_image(axes, colors, x="importance", y="density")
        plotting.plain_ticks(axes, "x", (0.1, 1, 10))
        axes.set(
            xlabel="rel. importance $r$", ylabel=plotting.DENSITY if axes in grid[:, 0] else ""
        )
        axes.set_title(f"{name}\nantipodal in {float(shares.sel(model=name)):.0%}", fontsize=9)
    for place, name, color in (
        ((0.12, 0.5), "not repr.", "0.2"),
        ((8.5, 0.5), "dedicated", "white"),
        ((1, 0.05), "antipodal", "white"),
    ):
        side = {"0.2": "left", "white": "center"}[color] if place[0] < 2 else "right"
        grid[0, 0].text(*place, name, color=color, ha=side, fontsize=8)
    grid[0, 3].text(1, 0.75, "one direction", color="white", ha="center", fontsize=8)
    draw_losses(grid[1, 3], equal_importance(results))
    figure.suptitle(
        f"Without clipping of negative outputs (below), no superposition (best of "
        f"{results.sizes['seed']} seeds)"
    )
    return figure


def draw_losses(axes: Axes, equal: xr.Dataset) -> None:
    """Draw the exact losses of the two solutions without bias at r = 1, and the trained ones."""
    density = np.linspace(0.05, 1, 60)
    pairs = [antipodal(each)[1] for each in density]
    axes.plot(density, pairs, color=plotting.ANTIPODAL, label="antipodal")
    linear = density / 3 - density**2 / 4
    axes.plot(density, linear, "--", color="C0", label="one direction")
    axes.plot(equal.density, equal["loss"], "k.", markersize=4, label="trained")
    axes.set(xlabel=plotting.DENSITY, ylabel="loss", ylim=(0, 0.2))
    axes.set_title("no bias, $r = 1$:\nthe lower loss wins", fontsize=9)
    axes.legend(loc="upper left", borderpad=0)


if __name__ == "__main__":
    experiment.main(__file__)
