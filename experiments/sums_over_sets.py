r"""The loss of a toy model as a sum over sets of active features.

Claim      The loss is the sum over all sets of active features of the loss of that set, times its
           chance. So the loss of sparse features is that of none and of one active feature, up to
           terms of second order in the density. A linear model represents at most m features.
Reproduces Elhage et al. (2022), "Mathematical Understanding", which has equations and no figure.
Selection  None: all random models.
Not shown  The number of features of linear models is a claim here, without a panel.
Command    toymodels run experiments/sums_over_sets.py
"""

import dataclasses
import itertools

import jax
import numpy as np
import xarray as xr
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import spheres

WORK = "Elhage et al. (2022), Mathematical Understanding"
SUM = tm.identity(f"{WORK}: the sum over the number of active features")
FEW = tm.identity(f"{WORK}, and toymodels.theory.expected_loss_one_active")
SECOND = tm.identity(WORK)
LINEAR = tm.prediction(f"{WORK}: never more features than dimensions")
ROUNDING = "Ours, because numbers are rounded."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_models: int = 5
    hidden: int = 2
    num_features: int = 6
    densities: tuple[float, float, int] = (1e-4, 1.0, 13)
    """The smallest density, the largest one, and how many, evenly in the logarithm."""


SMOKE = Config(num_models=2, num_features=3)


def sums(config: Config) -> xr.Dataset:
    """Return the exact loss of random models, as a sum over sets of active features, too."""
    count = config.num_features
    active = np.array(list(itertools.product((0.0, 1.0), repeat=count)))
    number = active.sum(axis=1)
    p = np.geomspace(*config.densities)[:, None]
    chances = p**number * (1 - p) ** (count - number)
    rng, exact = np.random.default_rng(0), tm.theory.expected_loss
    losses, summed, leading, by_number = [], [], [], []
    for _ in range(config.num_models):
        weights = rng.normal(size=(config.hidden, count)) / config.hidden**0.5
        bias = rng.normal(scale=0.2, size=count)
        of_set = np.array([exact(weights, bias, which) for which in active])
        silent = np.sum(np.maximum(bias, 0) ** 2)
        single = count * tm.theory.expected_loss_one_active(weights, bias)
        losses.append([exact(weights, bias, density) for density in p[:, 0]])
        summed.append(chances @ of_set)
        leading.append(((1 - p) ** count * silent + p * (1 - p) ** (count - 1) * single)[:, 0])
        by_number.append([silent - of_set[number == 0].sum(), single - of_set[number == 1].sum()])
    dims = ("model", "density")
    return xr.Dataset(
        {
            "loss": (dims, np.array(losses)),
            "sum_over_sets": (dims, np.array(summed)),
            "leading": (dims, np.array(leading)),
            "few_active": (("model", "active"), np.array(by_number)),
        },
        coords={"density": p[:, 0]},
    )


def linear_features(config: Config):
    """Return the squared Frobenius norm of the best weights of linear models."""
    hidden, count = config.hidden, config.num_features
    slopes = jax.jit(jax.value_and_grad(tm.theory.expected_loss_linear, (0, 1)))
    rng = np.random.default_rng(1)

    def squared_norm():
        density, importance = rng.uniform(0.05, 1), rng.uniform(0.2, 1, count)

        def value(flat):
            with jax.enable_x64(True):
                weights, bias = flat[count:].reshape(hidden, count), flat[:count]
                loss, (down, across) = slopes(weights, bias, density, importance)
                return float(loss), np.concatenate([across, np.ravel(down)])

        start = 0.5 * rng.normal(size=(hidden + 1) * count)
        options = spheres.PRECISE
        found = optimize.minimize(value, start, jac=True, method="BFGS", options=options)
        return np.sum(found.x[count:] ** 2)

    return np.array([squared_norm() for _ in range(config.num_models)])


def run(config: Config) -> xr.Dataset:
    results = sums(config).assign(linear_features=("model", linear_features(config)))
    return results.assign_attrs(linear_hidden=config.hidden)


def claims(results: xr.Dataset) -> tm.Claims:
    says = "The loss of random models is the sum of the loss of each set of active features times "
    says += "its probability, measured by the largest difference."
    off = abs(results.loss - results.sum_over_sets).max()
    yield tm.near(says, 0, off, SUM, within=1e-14, threshold=ROUNDING)

    says = "The first two terms of the loss of random models are those of no and of one active "
    says += "feature, measured by the largest difference."
    off = abs(results.few_active).max()
    yield tm.near(says, 0, off, FEW, within=1e-14, threshold=ROUNDING)

    says = "The loss of random models without its first two terms is of second order in the "
    says += "density, measured by the smallest exponent."
    rest = abs(results.loss - results.leading).isel(density=slice(2)).values
    orders = np.diff(np.log(rest)) / np.diff(np.log(results.density.values[:2]))
    higher = "Ours, because there are terms of higher order."
    yield tm.near(says, 2, orders.min(), SECOND, within=0.01, threshold=higher)

    says = "The squared norm of W of optimal linear models is m: they represent m features."
    off = abs(results.linear_features - results.attrs["linear_hidden"]).max()
    stop = "Ours, because descents stop before the minimum."
    yield tm.near(says, 0, off, LINEAR, within=1e-6, threshold=stop)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(size=(5.4, 3.6))
    rest = abs(results.loss - results.leading) / results.loss
    noise = abs(results.loss - results.sum_over_sets).max("model") / results.loss.min("model")
    for values, color, label in (
        (rest.transpose("density", "model"), "C0", "none and one active feature"),
        (np.maximum(noise, 1e-17), "C1", "all sets of active features"),
    ):
        lines = axes.loglog(results.density, values, ".-", color=color, ms=4)
        lines[0].set_label(label)
    axes.set(
        ylabel="|loss - sum| / loss",
        title=f"The loss is a sum over sets of active features\n({results.sizes['model']} models)",
    )
    plotting.density_axis(axes)
    axes.legend(title="sum over")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
