r"""Computation in superposition: absolute values, from one neuron a sign to many features a neuron.

Claim      Three features and six neurons compute $|x|$ exactly: $\mathrm{ReLU}(x_i)$ and
           $\mathrm{ReLU}(-x_i)$ for each feature. Forty neurons can do this for twenty features.
           With more features and dense inputs every neuron serves one feature, so at most twenty
           features are computed; the sparser the inputs, the more features share a neuron, the
           least important first, until all neurons are shared.
Reproduces Elhage et al. (2022), "Computation in Superposition", both figures of absolute values.
Settings   Importances $0.8^i$ and forty neurons as in the paper; optimiser and steps are ours. The
           paper has 100 features; those after the first 40 carry $0.8^{40}$ = 0.01 % of the loss,
           so the default is 40 (33 s on two cores), and `--paper` keeps all (80 s). Two choices let
           sparse inputs converge. First, an output that is 0 for $x_i$ or $-x_i$ alone learns
           nothing from it: half of the outputs are so if $W_2$ starts with both signs, and where
           inputs are rarely together they stay so (the control). So no weight of $W_2$ starts below
           0. Second, most sparse examples are empty: a batch holds the others, and the loss of the
           empty one is added with its probability, which is the same expected loss.
Selection  Pictures show the lowest loss of all seeds, on common examples; claims say over which.
Command    toymodels run experiments/computation.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.cm import ScalarMappable

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry, neurons

ELHAGE = tm.paper("Elhage et al. (2022), Computation in Superposition")
OFTEN = tm.finding("found here; Elhage et al. (2022) show one model")
CONVERGED = tm.finding("this experiment: training has converged")
SYMMETRY = tm.prediction("symmetry of the start")
CONVERGENCE = "Ours, because training does not converge entirely."
BY_EYE = "Ours, because the paper gives no number, and its figure was read by eye."
RATIO = 0.8
"""Importance of a feature relative to the one before it."""
SERVED = 0.2
"""A neuron serves the features of weights above this share of its largest."""
SMALL = (3, 6)
"""Features and neurons of the exact solution."""
ALONE, SHARED = (0.92, 0.95, 1.0), (1.0, 0.84, 0.8)
"""Backgrounds of neurons that serve one feature, and several."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 40
    hidden: int = 40
    densities: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    num_seeds: int = 5
    steps: int = 12_000
    batch: int = 256
    learning_rate: float = 1e-2
    """The highest learning rate, after a warm-up of `warm` of the steps; then half a cosine."""
    warm: float = 0.3
    start: float = 0.05
    """Standard deviation of the first weights."""
    small_seeds: int = 16
    small_start: float = 0.4


SMALLER = {"num_features": 10, "hidden": 8, "densities": (1.0, 0.1, 0.01)}
SMOKE = Config(**SMALLER, num_seeds=2, steps=30, batch=16, small_seeds=2)
PAPER = Config(num_features=100)


def train(key, density, sizes, start, sign, config):
    """Train one model; if `sign` is 1, W_2 starts with both signs."""
    count, hidden = sizes
    model = tm.TwoLayer(hidden, initializer=jax.nn.initializers.normal(start))
    features = tm.SignedSparseUniform(count, density)
    whole = tm.task_loss(model, tm.Task(features, jnp.abs, tm.geometric_importance(count, RATIO)))
    active = tm.SomeActive(count, density)
    some = active.probability

    def loss(params, features):
        return some * whole(params, features) + (1 - some) * whole(params, jnp.zeros(count))

    key_start, key_data = jax.random.split(key)
    params = model.init(key_start, jnp.zeros(count))["params"]
    out = params["weights_out"]
    params = {**params, "weights_out": jnp.where(sign == 1, out, jnp.abs(out))}
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, int(config.warm * config.steps), config.steps
    )
    how = {"optimizer": optax.adam(schedule), "steps": config.steps, "batch": config.batch}
    params = tm.fit(key_data, params, loss, active.sample, **how).params
    common = jax.random.key(2022)
    final = tm.evaluate(common, params, loss, active.sample, batch=1024, examples=2**16)
    alone = jnp.stack([jnp.eye(count), -jnp.eye(count)])
    outputs = jax.vmap(jax.vmap(lambda x: model.apply({"params": params}, x)))(alone)
    silent = jnp.diagonal(outputs, axis1=1, axis2=2) <= 0
    return {**params, "loss": final, "silent": silent}


def run(config: Config) -> xr.Dataset:
    dims = {
        "weights_in": ("neuron", "feature"),
        "weights_out": ("feature", "neuron"),
        "bias": ("feature",),
        "silent": ("side", "feature"),
    }

    def many(key, *, density, sign):
        sizes = config.num_features, config.hidden
        return train(key, density, sizes, config.start, sign, config)

    def few(key):
        return train(key, 1.0, SMALL, config.small_start, 0, config)

    # The last is a control, compiled and run with the others.
    cases = [*((density, 0) for density in config.densities), (min(config.densities), 1)]
    results = tm.sweep(
        many, axes={("density", "sign"): cases}, num_seeds=config.num_seeds, dims=dims
    ).drop_vars("sign")
    control = results[["loss", "silent"]].isel(density=-1, drop=True)
    results = results.isel(density=slice(0, -1))
    results["nothing"] = (RATIO ** np.arange(config.num_features)).sum() * results["density"] / 3
    small = tm.sweep(few, num_seeds=config.small_seeds, dims=dims)
    parts = [
        results,
        control.rename({name: f"signed_{name}" for name in control}),
        small.rename({name: f"small_{name}" for name in (*small, *small.dims)}),
    ]
    return xr.merge(parts, combine_attrs="override")


def structure(results: xr.Dataset) -> xr.Dataset:
    """Measure how many features a neuron serves, its first feature, its second weight / first."""

    def of_neurons(weights):
        sizes = jnp.abs(weights)
        ordered = jnp.sort(sizes, axis=1)
        return {
            "count": neurons.features_served(sizes, threshold=SERVED).sum(axis=1),
            "primary": jnp.argmax(sizes, axis=1),
            "second": ordered[:, -2] / ordered[:, -1],
        }

    return tm.apply(of_neurons, results["weights_in"], model_dims=("neuron", "feature"))


def best_small(results: xr.Dataset):
    """Return weights in and out, neurons x features, and bias of the best small model."""
    best = results.isel(small_seed=results["small_loss"].values.argmin())
    return best["small_weights_in"].values, best["small_weights_out"].values.T, best["small_bias"]


def small_claims(results: xr.Dataset):
    into, out, bias = best_small(results)
    loss, models = results["small_loss"], "models of 3 features and 6 neurons"
    says = f"The lowest loss of {models} is 0."
    single = "Ours, because single precision is used."
    yield tm.near(says, 0, loss.min(), ELHAGE, within=1e-9, threshold=single)
    says = f"Half of the {models} have a loss below 1e-6, measured by the share of the seeds."
    often = "Ours, because the paper does not say how often it is found."
    yield tm.at_least(says, 0.5, (loss < 1e-6).mean(), OFTEN, threshold=often)
    best = f"the best of the {models}"
    says = f"Every neuron of {best} has one input, measured by the largest second weight over the "
    says += "first."
    ordered = np.sort(abs(into), axis=1)
    second = (ordered[:, -2] / ordered[:, -1]).max()
    yield tm.near(says, 0, second, ELHAGE, within=0.01, threshold=CONVERGENCE)
    says = f"The sum of W_2 ReLU(+-W_1) over neurons of {best} is 1 for both signs of each "
    says += "feature, measured by the largest difference."
    sides = np.stack([(np.maximum(sign * into, 0) * out).sum(axis=0) for sign in (1, -1)])
    yield tm.near(says, 0, abs(sides - 1).max(), ELHAGE, within=1e-3, threshold=CONVERGENCE)
    says = f"The bias of {best} is 0, measured by the largest size of an entry."
    yield tm.near(says, 0, abs(bias).max(), ELHAGE, within=1e-3, threshold=CONVERGENCE)


def claims(results: xr.Dataset) -> tm.Claims:
    yield from small_claims(results)
    found, density = structure(results), results["density"]
    count, first, several = found["count"], found["primary"], found["count"] > 1
    shared, second = several.mean("neuron"), found["second"].where(several)

    def at(values, *densities):
        return values.sel(density=list(densities), method="nearest")

    says = "Neurons of models that compute absolute values at densities 1 and 0.3 serve one "
    says += "feature each, measured by the share of all neurons of all seeds."
    one, more = 1 - shared.where(density >= 0.3).mean(), several.where(density >= 0.3).sum()
    # Up to four of forty neurons of a seed were shared on one processor, none on another.
    minima = "Ours, because the paper says all, of one model; another processor ends in minima "
    minima += "where a neuron in a hundred is shared."
    note = f"{int(more)} neurons of all seeds serve more features: they are in local minima, or "
    note += "hardly reach an output."
    yield tm.near(says, 1, one, ELHAGE, within=0.05, threshold=minima, note=note)
    says = "Models at densities 1 and 0.3 compute the absolute values of at most half as many "
    says += "features as they have neurons, measured by the mean share over all seeds."
    dense = first.where(density >= 0.3, drop=True).stack(model=("density", "seed"))
    computed = np.mean([len(np.unique(each)) for each in dense.transpose("model", ...).values])
    share = computed / results.sizes["neuron"]
    another = "Ours, because it allows one more feature in every other seed."
    yield tm.at_most(says, 1 / 2, share, ELHAGE, slack=0.0125, threshold=another)

    says = "A few neurons of models that compute absolute values serve several features at density "
    says += "0.1, measured by the median share of the neurons."
    yield tm.at_most(says, 0.25, at(shared, 0.1).median(), ELHAGE, threshold=BY_EYE)
    says = "Neurons that compute absolute values of several features at density 0.1 serve all but "
    says += "one slightly, measured by the median of their second weight over the first."
    yield tm.at_most(says, 0.5, at(second, 0.1).median(), ELHAGE, threshold=BY_EYE)
    says = "A small number of neurons of models that compute absolute values serve several "
    says += "features at density 0.03, measured by the median share."
    yield tm.at_most(says, 0.4, at(shared, 0.03).median(), ELHAGE, threshold=BY_EYE)
    says = "Some neuron of a model that computes absolute values at density 0.03 serves three "
    says += "features or more, measured by the share of the seeds."
    share = (at(count, 0.03).max("neuron") >= 3).mean()
    highly = "Ours, because the paper says highly polysemantic; one seed in five may miss it."
    yield tm.at_least(says, 0.8, share, ELHAGE, threshold=highly)
    says = "At densities 0.03 and 0.01 neurons that serve several features serve less important "
    says += "ones than the other neurons, measured by the smaller median difference between the "
    says += "mean places of their first features in the order of importance."
    later = first.where(several).mean("neuron") - first.where(~several).mean("neuron")
    place = "Ours, because it is one place in the order of importance."
    least = at(later, 0.03, 0.01).median("seed").min()
    yield tm.at_least(says, 1, least, ELHAGE, threshold=place)
    says = "Many neurons that compute absolute values of several features at density 0.01 have one "
    says += "large weight, measured by the share of those whose second weight is at most half of "
    says += "the first."
    share = (at(second, 0.01) <= 0.5).sum() / at(several, 0.01).sum()
    yield tm.at_least(says, 1 / 3, share, ELHAGE, threshold=BY_EYE)
    says = "A neuron of a model that computes absolute values serves more features if they are "
    says += "sparser, at densities up to 0.3, measured by the smallest ratio of the mean numbers "
    says += "at neighbouring densities."
    mean = count.where(density <= 0.3, drop=True).mean(("neuron", "seed")).values
    yield tm.at_least(says, 1, (mean[1:] / mean[:-1]).min(), ELHAGE)
    says = "Nearly all neurons of models that compute absolute values serve several features at "
    says += "density 0.001, measured by the mean share."
    yield tm.at_least(says, 0.9, at(shared, 0.001).mean(), ELHAGE, threshold=BY_EYE)
    says = "A neuron of a model that computes absolute values serves many features at density "
    says += "0.001, measured by the mean number."
    yield tm.at_least(says, 4, at(count, 0.001).mean(), ELHAGE, threshold=BY_EYE)

    relative = results["loss"] / results["nothing"]
    says = "The loss of every model that computes absolute values is small, measured by the "
    says += "largest ratio over densities and seeds to the loss of predicting 0."
    beside = "Ours, because it is small beside predicting nothing."
    yield tm.at_most(says, 0.02, relative.max(), CONVERGED, threshold=beside)
    says = "Hardly any output of the models at density 0.001 stays 0 if its feature is present "
    says += "with one of the two signs, measured by the share of features and signs, weighted by "
    says += "importance."
    importance = RATIO ** xr.DataArray(range(results.sizes["feature"]), dims="feature")
    silent = at(results["silent"], 0.001).weighted(importance).mean()
    hundred = "Ours, because it allows a feature and sign in a hundred."
    yield tm.at_most(says, 0.01, silent, CONVERGED, threshold=hundred)
    says = "In control models, whose W_2 starts with both signs, half of the outputs stay 0 if "
    says += "their feature is present with one of the two signs, measured by the share of features "
    says += "and signs, weighted by importance."
    silent = results["signed_silent"].weighted(importance).mean()
    errors = "Ours, because it is three standard errors."
    yield tm.near(says, 1 / 2, silent, SYMMETRY, within=0.16, threshold=errors)
    says = "The loss of control models, whose W_2 starts with both signs, is far above that of the "
    says += "other models at density 0.001, measured by the lowest loss of the control over the "
    says += "highest of the others."
    lowest = results["signed_loss"].min() / results["nothing"].min()
    order = "Ours, because it is an order of magnitude."
    ratio = lowest / at(relative, 0.001).max()
    yield tm.at_least(says, 10, ratio, CONVERGED, threshold=order)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (above, below) = plotting.figure_of_parts(2, size=(9.0, 8.4), height_ratios=(1, 2.6))
    stacks, graph, share, loss = above.subplots(1, 4, width_ratios=(1, 1, 1.3, 1.3))
    into, out, _ = best_small(results)
    into, out = map(np.asarray, neurons.rescaled(jnp.asarray(into), jnp.asarray(out.T)))
    order, (features, _) = plotting.by_feature(into), SMALL
    colors = plotting.IMPORTANCE_MAP(np.linspace(1, 0, features))
    plotting.neuron_stacks(stacks, into[order], colors)
    stacks.set(xlabel="neurons", ylabel="$W_1$, rescaled", title="3 features, 6 neurons:")
    names = {"inputs": ["$x_1$", "$x_2$", "$x_3$"], "outputs": ["$|x_1|$", "$|x_2|$", "$|x_3|$"]}
    plotting.circuit(graph, into[order], out[:, order], **names)
    graph.set_title("a neuron for each sign")

    found = structure(results)
    plotting.every_seed(share, (found["count"] == 1).mean("neuron"), x="density")
    share.set(ylim=(-0.03, 1.03), ylabel="neurons for one feature", title="Sparse: neurons shared")
    relative = results["loss"] / results["nothing"]
    plotting.every_seed(loss, relative, x="density", label="$W_2 \\geq 0$ at the start")
    control = results["signed_loss"] / results["nothing"].min()
    places = np.full(control.size, results["density"].min())
    loss.plot(places, control, "x", color="C1", markersize=5, label="control: both signs")
    loss.set(yscale="log", ylim=(5e-4, 40), ylabel="loss / loss of predicting 0")
    loss.set_title("All converge")
    for axes in (share, loss):
        plotting.density_axis(axes, places=(0.001, 0.01, 0.1, 1))
        axes.legend(fontsize=7)

    shown = np.unique(np.linspace(0, results.sizes["density"] - 1, 4).round().astype(int))
    panels = below.subplots(len(shown), 1, squeeze=False).ravel()
    for axes, number in zip(panels, shown, strict=True):
        draw_stacks(axes, results.isel(density=number), found["count"].isel(density=number))
    panels[-1].set_xlabel(
        "neurons, each scaled to a largest weight of 1, sorted by the importance of its first "
        "feature;\nbackground: blue for one feature, red for several; the seed of the lowest loss"
    )
    colors = ScalarMappable(plotting.SUPERPOSITION_NORM, plotting.SUPERPOSITION_MAP)
    plotting.color_bar(colors, "superposition of a feature", axes=panels, shrink=0.5)
    return figure


def draw_stacks(axes, results: xr.Dataset, count: xr.DataArray):
    """Draw the model of the lowest loss, rescaled, its neurons in order and tinted."""
    seed = results["loss"].values.argmin()
    weights = (
        jnp.asarray(results[f"weights_{way}"].isel(seed=seed).values) for way in ("in", "out")
    )
    into, _ = neurons.rescaled(*weights)
    colors = plotting.SUPERPOSITION_MAP(plotting.SUPERPOSITION_NORM(geometry.superposition(into)))
    order, one = plotting.by_feature(into), count.transpose("seed", "neuron").values == 1
    seen = np.where(abs(into) > 0.03, into, 0)[order]  # others are thinner than a line
    tint = np.where(one[seed, order][:, None], ALONE, SHARED)
    plotting.neuron_stacks(axes, seen, colors, tint=tint)
    axes.set_rasterization_zorder(10)
    alone = one.sum(axis=1)
    title = f"density {float(results['density']):g}: {alone[seed]} of {len(order)} neurons serve "
    title += "one "
    axes.set_title(
        f"{title}feature ({alone.min()} to {alone.max()} over {len(alone)} seeds)", fontsize=9
    )
    low, high = (part.sum(axis=1) for part in (np.minimum(seen, 0), np.maximum(seen, 0)))
    axes.set(ylabel="$W_1$, rescaled", ylim=(low.min() - 0.15, high.max() + 0.15))
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=6)


if __name__ == "__main__":
    experiment.main(__file__)
