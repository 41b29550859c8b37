r"""Regular polygons with one active feature: minima, complexity, posterior and training.

Claim      The potential of six features in two dimensions has ten kinds of minima: polygons, each
           with some dead columns. Their sampled learning coefficients are those that counting
           directions gives; with more data the posterior moves from simple polygons to
           complex ones; gradient descent rests on plateaus at the same potentials.
Reproduces Chen et al. (2023), "Dynamical versus Bayesian Phase Transitions in a Toy Model of
           Superposition": list of critical points, phases of the posterior, plateaus of training.
Selection  None: every start, chain and run is counted.
Command    toymodels run experiments/k_gons.py
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import sampling
from toymodels.analysis.learning_coefficient import learning_coefficient
from toymodels.theory import expected_loss_one_active, k_gons

PAPER = tm.paper("Chen et al. (2023)")
LISTED = tm.paper("Chen et al. (2023), and toymodels.theory.k_gons")
COUNTED = tm.prediction("toymodels.theory.k_gons.learning_coefficient")
HALVES = "Ours, because learning coefficients are multiples of one half."
NO_NUMBER = "Ours, because the paper gives no number."
FEATURES = 6
NOISE_VARIANCE = 1.0
"""The noise variance of the likelihood, which makes its exponent half the squared error."""
MINIMA = [(6, 0), (5, 1), (5, 0), (4, 2), (4, 1), (4, 0), (3, 0), (2, 0), (1, 0), (0, 0)]
"""Vertices and dead columns of positive bias, by rising potential."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    starts: int = 1000
    """Random starts of the search for minima."""
    descent_steps: int = 3000
    quench_steps: int = 1000
    """The steps of the descent from each sample of the posterior to the minimum below it."""
    inverse_temperatures: tuple[float, ...] = (1e4, 1e5, 1e6, 1e7)
    localization: float = 100.0
    chains: int = 16
    chain_steps: int = 200
    """Trajectories that count, after as many of warm-up."""
    num_examples: tuple[float, float, int] = (20.0, 10_000.0, 24)
    """The smallest and the largest number of examples of the posterior, and how many sizes."""
    ladders: int = 8
    rounds: int = 4000
    """Trajectories of each replica of the posterior; the first quarter is dropped."""
    labelled: int = 60
    """Samples of each replica that are labelled."""
    num_seeds: int = 100
    steps: int = 100_000
    batch: int = 256
    learning_rate: float = 0.02


SMOKE = Config(
    starts=20,
    descent_steps=100,
    quench_steps=100,
    inverse_temperatures=(1e5, 1e6),
    chains=2,
    chain_steps=10,
    num_examples=(20.0, 10_000.0, 5),
    ladders=2,
    rounds=40,
    labelled=5,
    num_seeds=2,
    steps=400,
    batch=16,
)


def potential(params):
    return expected_loss_one_active(params["weights"], params["bias"], 1.0)


def name(vertices: int, positive: int) -> str:
    return f"{vertices}{'+' * positive}"


def random_start(key: Array) -> dict[str, Array]:
    """Draw weights of many scales, because minima of few vertices are reached from small ones."""
    key_scale, key_weights, key_bias = jax.random.split(key, 3)
    scale = jax.random.uniform(key_scale)
    return {
        "weights": scale * jax.random.normal(key_weights, (2, FEATURES)),
        "bias": 0.1 * jax.random.normal(key_bias, (FEATURES,)),
    }


def descend(params, steps: int):
    """Return the potential of the minimum below."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.2, momentum=0.9))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(potential)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
    return potential(params)


def label(potentials, listed=MINIMA) -> tuple[Int[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the index of the nearest of those listed, and the relative distance to it."""
    exact = np.array([k_gons.potential(FEATURES, *chosen) for chosen in listed])
    deviations = np.abs(np.asarray(potentials)[..., None] / exact - 1)
    return deviations.argmin(axis=-1), deviations.min(axis=-1)


def search(config: Config) -> dict[str, tuple]:
    """Descend from random starts."""
    keys = jax.random.split(jax.random.key(0), config.starts)
    steps = config.descent_steps
    found = jax.jit(jax.vmap(lambda key: descend(random_start(key), steps)))(keys)
    return {"found": (("start",), np.asarray(found))}


def sample_minima(config: Config) -> dict[str, tuple]:
    """Sample the learning coefficients at every temperature."""
    found = [k_gons.configuration(FEATURES, *minimum, dead_bias=-0.5) for minimum in MINIMA]

    def one(key, params, inverse_temperature):
        return learning_coefficient(
            key,
            potential,
            params,
            inverse_temperature=inverse_temperature,
            localization=config.localization,
            chains=config.chains,
            warmup=config.chain_steps,
            steps=config.chain_steps,
            leapfrog=16,
        )

    with jax.enable_x64(True):
        params = {
            "weights": jnp.stack([minimum.weights for minimum in found]),
            "bias": jnp.stack([minimum.bias for minimum in found]),
        }
        over_all = jax.vmap(jax.vmap(one, (None, 0, None)), (None, None, 0))
        temperatures = jnp.asarray(config.inverse_temperatures)
        estimates = jax.jit(over_all)(jax.random.key(0), params, temperatures)
    dims = ("inverse_temperature", "minimum")
    results = {field: (dims, np.asarray(value)) for field, value in estimates._asdict().items()}
    results["weights"] = (("minimum", "hidden", "feature"), np.asarray(params["weights"]))
    results["bias"] = (("minimum", "feature"), np.asarray(params["bias"]))
    return results


def sample_posterior(config: Config) -> dict[str, tuple]:
    r"""Replica exchange: one chain for each number of examples, which trade places.

    The posterior is $\exp(-n H / 2 \sigma^2)$ times a standard normal prior: of the expected loss
    in place of that of one data set.
    """
    sizes = jnp.asarray(examples(config))
    stiffness = sizes / (2 * NOISE_VARIANCE)

    def energy(params: Array, stiffness: Array) -> Array:
        tree = {"weights": params[:-FEATURES].reshape(2, FEATURES), "bias": params[-FEATURES:]}
        return stiffness * potential(tree) + jnp.sum(params**2) / 2

    def move(key: Array, params: Array, stiffness: Array) -> Array:
        def step_size(key):
            return jax.random.uniform(key, (), minval=0.2, maxval=0.8) / (1 + stiffness) ** 0.5

        def of(place):
            return energy(place, stiffness), None

        chain = sampling.begin(of, params)
        step, _ = sampling.hamiltonian_step(key, of, chain, draw_step_size=step_size, leapfrog=6)
        return step.place

    def trade(key: Array, params: Array, parity: Array) -> Array:
        """Let neighbours of one parity change places, if the posterior of both together does."""
        own = jax.vmap(energy, (0, None))(params, jnp.ones(()))
        own = own - jnp.sum(params**2, axis=1) / 2
        index = jnp.arange(len(stiffness))
        partner = jnp.where((index + parity) % 2 == 0, index + 1, index - 1)
        partner = jnp.where((partner < 0) | (partner >= len(stiffness)), index, partner)
        gain = (stiffness - stiffness[partner]) * (own - own[partner])
        lower = jnp.minimum(index, partner)
        luck = jnp.log(jax.random.uniform(key, index.shape))[lower]
        return jnp.where((luck < gain)[:, None], params[partner], params)

    def ladder(key: Array) -> Array:
        key_start, key_rounds = jax.random.split(key)
        params = jax.random.normal(key_start, (len(stiffness), 3 * FEATURES))

        def round_(params: Array, number: Array) -> tuple[Array, Array]:
            key_move, key_trade = jax.random.split(jax.random.fold_in(key_rounds, number))
            keys = jax.random.split(key_move, len(stiffness))
            params = jax.vmap(move)(keys, params, stiffness)
            params = trade(key_trade, params, number % 2)
            return params, params

        _, visited = jax.lax.scan(round_, params, jnp.arange(config.rounds))
        return visited[
            np.linspace(config.rounds // 4, config.rounds - 1, config.labelled).astype(int)
        ]

    def quench(params):
        weights = params[:-FEATURES].reshape(2, FEATURES)
        return descend({"weights": weights, "bias": params[-FEATURES:]}, config.quench_steps)

    visited = jax.jit(jax.vmap(ladder))(jax.random.split(jax.random.key(0), config.ladders))
    below = jax.jit(jax.vmap(quench))(visited.reshape(-1, 3 * FEATURES))
    dims = ("ladder", "sample", "num_examples")
    return {"quenched": (dims, np.asarray(below).reshape(visited.shape[:3]))}


def examples(config: Config) -> Float[np.ndarray, " sizes"]:
    return np.geomspace(*config.num_examples)


def train(config: Config) -> xr.Dataset:
    """Return the exact potential along stochastic gradient descent."""
    snapshots = tm.log_spaced(config.steps, 300)
    task = tm.Task(tm.OneActive(FEATURES))

    def cell(key):
        key_start, key_data = jax.random.split(key)
        fitted = tm.fit(
            key_data,
            random_start(key_start),
            tm.task_loss(tm.ReLUOutput(hidden=2), task),
            task.features.sample,
            optimizer=optax.sgd(config.learning_rate),
            steps=config.steps,
            batch=config.batch,
            snapshots=snapshots,
        )
        return {"potential": jax.vmap(potential)(fitted.snapshots)}

    results = tm.sweep(cell, num_seeds=config.num_seeds, dims={"potential": ("step",)})
    return results.assign_coords(step=list(snapshots))


def run(config: Config) -> xr.Dataset:
    results = train(config)
    results = results.assign(
        search(config) | sample_minima(config) | sample_posterior(config)
    ).assign_coords(
        minimum=[name(*minimum) for minimum in MINIMA],
        inverse_temperature=list(config.inverse_temperatures),
        num_examples=examples(config),
    )
    for variable in ("potential", "found", "quenched"):
        results[variable].attrs["units"] = "summed over outputs"
    return results


CRITICAL = [(k, s) for k in range(FEATURES + 1) for s in range(FEATURES - k + 1) if k != 1 or not s]
"""Vertices and dead columns of positive bias: minima and saddles."""


def plateaus(step, potential) -> list[float]:
    """Return the mean potential wherever it stays within 1 % while the steps double.

    After step 20, for one step and two are a doubling, too.
    """
    found: list[float] = []
    first, last = int(np.searchsorted(step, 20)), len(step) - 1
    while first < last:
        stretch = first
        while stretch < last:
            longer = potential[first : stretch + 2]
            if longer.max() > 1.01 * longer.min():
                break
            stretch += 1
        if step[stretch] >= 2 * step[first]:
            found.append(float(potential[first : stretch + 1].mean()))
            first = stretch
        first += 1
    return found


def all_plateaus(results: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the potentials of all plateaus, and which are 3 % above the end of their run."""
    runs = results["potential"].transpose("seed", "step").values
    found = [(height, run_[-1]) for run_ in runs for height in plateaus(results.step.values, run_)]
    heights, ends = np.array(found).reshape(-1, 2).T
    return heights, heights > 1.03 * ends


def chance(tolerance: float, listed) -> float:
    """Return the share of potentials, even in the logarithm, that are so near to a listed one."""
    even = np.geomspace(k_gons.potential(FEATURES, *MINIMA[0]), 1 / 3, 10_000)
    return float(np.mean(label(even, listed)[1] < tolerance))


def counted() -> Float[np.ndarray, " minima"]:
    """Return the learning coefficients by counting directions."""
    return np.array([k_gons.learning_coefficient(FEATURES, *minimum) for minimum in MINIMA])


def occupancy(results: xr.Dataset) -> xr.DataArray:
    """Return the share of posterior samples by the number of vertices of the minimum below them."""
    kinds, _ = label(results["quenched"].values)
    vertices = np.array([vertices for vertices, _ in MINIMA])[kinds]
    samples = results["quenched"].copy(data=vertices)
    return xr.concat(
        [(samples == number).mean("sample") for number in range(FEATURES + 1)], dim="vertices"
    )


def takeover(results: xr.Dataset) -> float:
    """Return the number of examples at which the posterior holds as many hexagons as pentagons."""
    share = occupancy(results).mean("ladder")
    lead = (share[6] - share[5]).values
    behind = np.flatnonzero(lead < 0)
    if not behind.size or behind[-1] + 1 == lead.size:
        return float("nan")
    pair = slice(behind[-1], behind[-1] + 2)
    log_sizes = np.log(results.num_examples.values[pair])
    return float(np.exp(np.interp(0.0, lead[pair], log_sizes)))


def predicted_takeover() -> float:
    pentagon, hexagon = (5, 0), (6, 0)
    return k_gons.crossover(
        (k_gons.potential(FEATURES, *pentagon), k_gons.potential(FEATURES, *hexagon)),
        (
            k_gons.learning_coefficient(FEATURES, *pentagon),
            k_gons.learning_coefficient(FEATURES, *hexagon),
        ),
        noise_variance=NOISE_VARIANCE,
    )


def claims(results: xr.Dataset) -> Iterator[tm.Claim]:
    kinds, deviations = label(results.found.values)

    says = "Descents from random starts end in ten kinds of minima."
    yield tm.near(says, 10, len(set(kinds[deviations < 1e-4].tolist())), LISTED, within=0)

    says = (
        "Descents from random starts end at the potentials of the list, by the largest deviation."
    )
    threshold = "Ours, because of single precision and descents of finite length."
    yield tm.near(says, 0, deviations.max(), LISTED, within=1e-4, threshold=threshold)

    says = (
        "The sampled learning coefficients of all minima but the antipodal pair are those that "
        "counting directions gives, by the largest difference."
    )
    coldest = results.coefficient.isel(inverse_temperature=-1)
    error = np.abs(coldest - counted()).drop_sel(minimum="2").max()
    yield tm.near(says, 0, error, COUNTED, within=0.5, threshold=HALVES)

    says = "The sampled learning coefficient of the antipodal pair is that of counting directions."
    note = (
        "What is flat in its four dead columns is a wedge, as wide as the pair bends. The sampler "
        "starts at its edge, where the pair is straight, and steps that fit the edge hardly enter. "
        "Started inside it finds 2: tests/test_learning_coefficient.py."
    )
    pair = coldest.sel(minimum="2")
    yield tm.near(says, 2, pair, COUNTED, within=0.5, threshold=HALVES, note=note)

    says = (
        "The number of examples at which the posterior holds as many hexagons as pentagons, as "
        "log10, is where their free energies cross."
    )
    source = tm.prediction("Free energies n H / 2 + lambda log n, without their terms of order 1")
    threshold = "Ours, because terms of order 1 in the free energies are left out."
    expected, found = np.log10(predicted_takeover()), np.log10(takeover(results))
    yield tm.near(says, expected, found, source, within=0.5, threshold=threshold)

    says = (
        "The mean number of vertices of the posterior grows with the number of examples, by the "
        "smallest change between neighbouring numbers."
    )
    mean_vertices = (occupancy(results) * np.arange(FEATURES + 1)[:, None, None]).sum("vertices")
    change = mean_vertices.mean("ladder").diff("num_examples").min()
    threshold = "Ours, because 480 correlated samples have a standard deviation near 1."
    yield tm.at_least(says, 0, change, PAPER, slack=0.2, threshold=threshold)

    heights, left = all_plateaus(results)
    rests, distances = label(heights)
    says = (
        "Most plateaus of training are within 3 % of one of the ten potentials, where "
        f"{chance(0.03, MINIMA):.2f} of them would be by chance."
    )
    share = np.mean(distances < 0.03) if heights.size else np.nan
    yield tm.at_least(says, 0.8, share, PAPER, threshold=NO_NUMBER)

    says = (
        "Most plateaus that training leaves for one at least 3 % lower are within 1 % of a "
        f"critical point, minimum or saddle, where {chance(0.01, CRITICAL):.2f} would be by chance."
    )
    _, distances_left = label(heights[left], CRITICAL)
    share = np.mean(distances_left < 0.01) if left.any() else np.nan
    yield tm.at_least(says, 0.8, share, PAPER, threshold=NO_NUMBER)

    says = "Training rests at eight kinds of minima or more."
    number = len(set(rests[distances < 0.03].tolist()))
    threshold = "Ours, because a run may miss the rarest of ten."
    yield tm.at_least(says, 8, number, PAPER, threshold=threshold)


def plot(results: xr.Dataset) -> Figure:
    figure, (top, bottom) = plotting.figure_of_parts(2, 1, size=(9, 8.8), height_ratios=(0.72, 1))
    found, _ = label(results.found.values)
    for number, axes in enumerate(top.subplots(2, 5).flat):
        draw_minimum(axes, results, number, found)
    top.suptitle(
        f"ten minima, and how many of {found.size} random starts end there (dead columns: + of "
        "bias 1/12, - silent)",
        fontsize=10,
    )
    (coefficients, energies), (posterior, runs) = bottom.subplots(2, 2)
    draw_coefficients(coefficients, results)
    draw_energies(energies, results)
    draw_posterior(posterior, results)
    draw_runs(runs, results)
    return figure


def draw_minimum(axes: Axes, results: xr.Dataset, number: int, found: np.ndarray) -> None:
    minimum, (vertices, positive) = results.isel(minimum=number), MINIMA[number]
    weights = minimum.weights.transpose("hidden", "feature").values[:, :vertices]
    plotting.spokes(axes, weights, limit=1.9)
    dead = " ".join("+" * positive + "-" * (FEATURES - vertices - positive))
    axes.text(0, -1.7, dead, ha="center", va="center", color="C1", fontsize=11)
    exact = k_gons.potential(FEATURES, vertices, positive)
    starts = np.sum(found == number)
    axes.set_title(f"{minimum.minimum.item()}: H = {exact:.4f}\n{starts} starts", fontsize=9)


def draw_coefficients(axes: Axes, results: xr.Dataset) -> None:
    across = np.arange(len(MINIMA))
    for number, temperature in enumerate(results.inverse_temperature.values):
        chosen = results.sel(inverse_temperature=temperature)
        axes.errorbar(
            across + 0.14 * (number - 1.5),
            chosen.coefficient,
            2 * chosen.standard_error,
            fmt=plotting.MARKERS[number],
            markersize=3,
            color=f"C{number}",
            label=rf"$n\beta = 10^{{{np.log10(temperature):.0f}}}$",
        )
    axes.hlines(counted(), across - 0.4, across + 0.4, color="0.3", linewidth=1, label="counted")
    axes.set_xticks(across, labels=results.minimum.values)
    axes.set(xlabel="minimum", ylabel=r"learning coefficient $\lambda$ (± 2 s.e.)")
    axes.set_title("sampled complexities are those counted")
    axes.legend()


def draw_energies(axes: Axes, results: xr.Dataset) -> None:
    sizes = results.num_examples.values
    fine = np.geomspace(sizes[0], sizes[-1], 400)
    energies = {
        str(kind): k_gons.free_energy(
            k_gons.potential(FEATURES, *minimum),
            k_gons.learning_coefficient(FEATURES, *minimum),
            fine,
            noise_variance=NOISE_VARIANCE,
        )
        for kind, minimum in zip(results.minimum.values, MINIMA, strict=True)
    }
    lowest = np.min(list(energies.values()), axis=0)
    for number, chosen in enumerate(("6", "5+", "5", "4", "3", "2", "1", "0")):
        dashes = "-" if number < 6 else "--"
        axes.semilogx(fine, energies[chosen] - lowest, dashes, label=chosen, color=f"C{number % 6}")
    axes.axvline(predicted_takeover(), color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="examples n", ylabel=r"$nH/2 + \lambda\,\log n$, above the lowest")
    axes.set(ylim=(-0.5, 15), title="more examples favour more vertices")
    axes.legend(ncols=2, title="minimum")


def draw_posterior(axes: Axes, results: xr.Dataset) -> None:
    share = occupancy(results)
    for number, vertices in enumerate((6, 5, 4, 3, 2)):
        part = share.sel(vertices=vertices).transpose("num_examples", "ladder")
        axes.semilogx(part.num_examples, part, ".", color=f"C{number}", ms=2, rasterized=True)
        label_ = f"{vertices} vertices"
        axes.semilogx(part.num_examples, part.mean("ladder"), color=f"C{number}", label=label_)
    axes.axvline(predicted_takeover(), color="0.6", linewidth=0.8, linestyle=":")
    axes.axvline(takeover(results), color="0.3", linewidth=0.8, linestyle="--")
    axes.set(xlabel="examples n (hexagon leads: dotted predicted, dashed found)")
    axes.set(ylabel="share of the posterior")
    axes.set_title(f"and so does the posterior ({share.sizes['ladder']} ladders as dots)")
    axes.legend()


def draw_runs(axes: Axes, results: xr.Dataset) -> None:
    runs = results.potential.transpose("step", "seed")
    kinds, _ = label(runs.isel(step=-1).values)
    for vertices, color in ((6, "C0"), (5, "C1"), (4, "C2")):
        these = [MINIMA[kind][0] == vertices for kind in kinds]
        lines = axes.semilogx(
            runs.step + 1, runs[:, these], color=color, lw=0.4, antialiased=False, rasterized=True
        )
        if lines:
            axes.plot([], [], color=color, label=f"ends with {vertices} vertices")
    others = [MINIMA[kind][0] < 4 for kind in kinds]
    axes.semilogx(runs.step + 1, runs[:, others], color="0.4", lw=0.4, antialiased=False)
    for minimum in MINIMA:
        axes.axhline(k_gons.potential(FEATURES, *minimum), color="k", linewidth=0.4)
    axes.set(xlabel="step + 1", ylabel="potential H (sum of outputs)", yscale="log")
    axes.set(ylim=(0.045, 0.6), title=f"{runs.sizes['seed']} runs rest near minima (black lines)")
    plotting.plain_ticks(axes, "y", (0.05, 0.1, 0.2, 0.3, 0.5))
    axes.legend(loc="upper right")


if __name__ == "__main__":
    experiment.main(__file__)
