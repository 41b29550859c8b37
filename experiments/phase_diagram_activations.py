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
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.analysis import phases as measured
from toymodels.errors import InputError
from toymodels.theory.phases import Phase

SACHAN = "comment of Kshitij Sachan on Elhage et al. (2022)"
MCGRATH = "comment of Tom McGrath on Elhage et al. (2022)"
# For integrals over [0, 1].
NODES, NODE_WEIGHTS = (
    part.astype(np.float32)
    for part in (np.polynomial.legendre.leggauss(32) + np.array([[1], [0]])) / 2
)


class NoBias(nn.Module):
    """The model of the paper without its bias."""

    @nn.compact
    def __call__(self, features: Any) -> Any:
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
    """What the figure depends on, and nothing else."""

    models: tuple[str, ...] = tuple(MODELS)
    grid: int = 25
    """Cells along each axis, evenly spaced in the logarithm; odd, so that r = 1 is among them."""
    densities: tuple[float, float] = (0.01, 1.0)
    importances: tuple[float, float] = (0.1, 10.0)
    num_seeds: int = 20
    steps: int = 1500
    batch: int = 512
    learning_rate: float = 1e-2
    """The learning rate at the start of a cosine schedule."""


SMOKE = Config(models=("ReLU", "ReLU, no bias"), grid=5, num_seeds=2, steps=100, batch=64)


def run(config: Config) -> xr.Dataset:
    chosen = set(config.models)
    if not {"ReLU", "ReLU, no bias"} <= chosen <= set(MODELS):
        raise InputError(
            f"models are {config.models}: choose among {', '.join(MODELS)}; the first and the last "
            "are needed"
        )

    def cell(key: Any, *, model: str, density: Any, importance: Any) -> dict[str, Any]:
        task = tm.Task(
            tm.SparseUniform(2, density), importance=tm.geometric_importance(2, importance)
        )
        cosine = optax.cosine_decay_schedule(config.learning_rate, config.steps)
        params = tm.train(
            key,
            MODELS[model],
            task,
            optimizer=optax.adam(cosine),
            steps=config.steps,
            batch=config.batch,
            evaluation=config.batch,
        ).params
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


def integrated(loss: Any, params: Any, density: Any) -> Any:
    """The expected loss of two features, by quadrature over who is present."""
    of_all = jax.vmap(lambda features: loss(params, features))
    alone = np.stack([NODES, 0 * NODES], axis=1)
    both = np.stack(np.meshgrid(NODES, NODES), axis=-1).reshape(-1, 2)
    none_present = loss(params, jnp.zeros(2))
    one_present = NODE_WEIGHTS @ (of_all(alone) + of_all(alone[:, ::-1]))
    two_present = np.outer(NODE_WEIGHTS, NODE_WEIGHTS).ravel() @ of_all(both)
    absent = 1 - density
    return absent**2 * none_present + density * absent * one_present + density**2 * two_present


def confused(density: float, importance: float) -> tuple[np.ndarray, float]:
    """Weights of the best model without bias whose features point the same way, and its loss.

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
    """Squared length of the best antipodal pair without bias, at r = 1, and its exact loss."""

    def loss(length: float) -> float:
        weights = length * np.array([[1.0, -1.0]])
        return float(tm.theory.expected_loss(weights, np.zeros(2), density))

    best = optimize.minimize_scalar(loss, bounds=(0.5, 1.5), method="bounded")
    return float(best.x) ** 2, float(best.fun)


def equal_importance(results: xr.Dataset) -> xr.Dataset:
    """The best models without bias for two features that matter as much."""
    best = tm.best_of(results.sel(model="ReLU, no bias"), "loss")
    return best.sel(importance=1.0, method="nearest")


def superposed(results: xr.Dataset) -> xr.DataArray:
    """Share of the diagram that is antipodal superposition in the best seeds."""
    weights = tm.best_of(results, "loss")["weights"]
    shared = tm.best_of(results, "loss")["phase"] == Phase.SUPERPOSITION
    return (shared & (weights.prod("feature") < 0)).mean(("density", "importance"))


def claims(results: xr.Dataset) -> list[tm.Claim]:
    shares = superposed(results)
    expected = {
        "GELU": (tm.Bound.AT_LEAST, 0.1),
        "leaky ReLU": (tm.Bound.AT_LEAST, 0.1),
        "identity": (tm.Bound.AT_MOST, 0.05),
        "tanh": (tm.Bound.AT_MOST, 0.05),
        "absolute value": (tm.Bound.AT_MOST, 0.05),
    }
    other = [
        tm.Claim(
            f"{model}: share of the diagram that is antipodal superposition, over that with a ReLU",
            SACHAN,
            expected=share,
            measured=float(shares.sel(model=model) / shares.sel(model="ReLU")),
            bound=bound,
            kind=tm.Kind.FINDING,
            threshold="ours: the comment gives no number; one in ten of the phase is left of a "
            "ReLU that clips little, one in twenty is cells at its edge",
        )
        for model, (bound, share) in expected.items()
        if model in results.model
    ]
    equal = equal_importance(results)
    product = equal["weights"].prod("feature")
    dense = equal.sel(density=slice(0.65, None))
    variance_like = dense.density / 3 - dense.density**2 / 4
    last = float(np.log(equal.density.where(product < 0)).max())
    step = float(np.log(equal.density[1] / equal.density[0]))
    crossing = optimize.root_scalar(
        lambda p: antipodal(p)[1] - confused(p, 1.0)[1], bracket=(0.4, 0.8), xtol=1e-6
    ).root
    row = tm.best_of(results.sel(model="ReLU, no bias"), "loss").sel(density=0.87, method="nearest")
    theory = [confused(float(row.density), float(r))[0] for r in row.importance]
    angle = np.degrees(np.arctan2(*np.abs(row["weights"].transpose("feature", ...).values)[::-1]))
    predicted = np.degrees([np.arctan2(second, first) for first, second in theory])
    return [
        *other,
        tm.Claim(
            "no bias, r = 1, density above 0.65: both weights are 1/sqrt 2, of one sign; largest "
            "deviation of a product of two weights from 1/2",
            MCGRATH,
            expected=0.0,
            measured=float(
                np.maximum(
                    np.abs(dense["weights"] ** 2 - 0.5).max(),
                    np.abs(dense["weights"].prod("feature") - 0.5).max(),
                )
            ),
            tolerance=0.02,
            kind=tm.Kind.PAPER,
            threshold="ours: the paper gives no number",
        ),
        tm.Claim(
            "no bias, r = 1, density above 0.65: loss over p/3 - p^2/4, largest deviation from 1",
            "closed form: nothing is clipped, so the loss is that of a linear model",
            expected=0.0,
            measured=float(np.abs(dense["loss"] / variance_like - 1).max()),
            tolerance=1e-3,
            kind=tm.Kind.PREDICTION,
            threshold="ours: convergence of training",
        ),
        tm.Claim(
            "no bias, r = 1: density where the antipodal pair gives way",
            "toymodels.theory.expected_loss; 4/7 for a pair of unit length",
            expected=crossing,
            measured=float(np.exp(last + step / 2)),
            tolerance=crossing * (np.exp(step / 2) - 1),  # half a cell
            kind=tm.Kind.PREDICTION,
            threshold="ours: half a cell of the grid",
        ),
        tm.Claim(
            "no bias, r = 1: the product of the two weights jumps there from that of the best "
            "pair to 1/2, largest step between neighbouring densities",
            f"{MCGRATH}; toymodels.theory.expected_loss",
            expected=0.5 + antipodal(crossing)[0],
            measured=float(np.abs(product.diff("density")).max()),
            tolerance=0.05,  # as much as the pair grows within a cell
            kind=tm.Kind.PAPER,
            threshold="ours: as much as the pair grows within a cell",
        ),
        tm.Claim(
            f"no bias, density {float(row.density):.2f}: from one feature to the other the "
            "direction turns continuously, as the linear optimum; largest deviation, degrees",
            MCGRATH + "; the lowest loss of all models whose features point the same way",
            expected=0.0,
            measured=float(np.abs(angle - predicted).max()),
            tolerance=2.0,
            kind=tm.Kind.PAPER,
            threshold="ours: the comment has a picture; the linear optimum has no tolerance",
        ),
    ]


def plot(results: xr.Dataset) -> Figure:
    figure, grid = plotting.figure(2, 5, size=(14.5, 6.0))
    best, shares = tm.best_of(results, "loss"), superposed(results)
    places = list(grid.ravel())
    for axes, model in zip(places, results.model.values, strict=False):
        one = best.sel(model=model)
        colors = plotting.norm_and_superposition(one["norm"], one["superposition"])
        plotting.log_image(axes, colors, x="importance", y="density")
        axes.set(
            title=f"{model}\nantipodal in {float(shares.sel(model=model)):.0%}",
            xlabel="relative importance r",
            ylabel="density 1 - S",
        )
    plotting.norm_and_superposition_legend(places[-3])

    axes, equal = places[-2], equal_importance(results)
    density = np.linspace(0.05, 1, 60)
    pairs = [antipodal(each)[1] for each in density]
    axes.plot(density, pairs, color=plotting.ANTIPODAL, label="antipodal")
    axes.plot(density, density / 3, color="0.6", label="one dropped")
    axes.plot(density, density / 3 - density**2 / 4, color="C4", label="confused")
    axes.plot(equal.density, equal["loss"], "k.", ms=4, label="trained")
    axes.set(
        xlabel="density 1 - S",
        ylabel="loss, summed",
        ylim=(0, 0.2),
        title="no bias, r = 1:\nthe least of three",
    )
    axes.legend()

    axes = places[-1]
    for name, color in (("confused", "C4"), ("antipodal", plotting.ANTIPODAL)):
        sign = 1 if name == "confused" else -1
        product = equal["weights"].prod("feature")
        axes.semilogx(
            equal.density.where(sign * product > 0), product, "o", color=color, label=name
        )
    axes.set(
        xlabel="density 1 - S",
        ylabel="$W_1 W_2$",
        title="no bias, r = 1: a jump",
    )
    axes.legend(loc="center left")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
