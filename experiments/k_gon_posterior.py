r"""The posterior of one active feature moves from simple to complex polygons as data grow.

Claim      The sampled learning coefficients of the ten minima of six features in two dimensions are
           those that counting directions gives, but one. With more examples the posterior moves to
           polygons of more vertices, where the free energies of the polygons cross.
Reproduces Chen et al. (2023), "Dynamical versus Bayesian Phase Transitions in a Toy Model of
           Superposition": learning coefficients, phases of the posterior. For the list of minima
           and training see `k_gons.py`.
Selection  None: every chain is counted.
Command    toymodels run experiments/k_gon_posterior.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis.learning_coefficient import learning_coefficient
from toymodels.analysis.sampling import replica_exchange
from toymodels.theory import expected_loss_one_active, k_gons, posterior

PAPER = tm.paper("Chen et al. (2023)")
COUNTED = tm.prediction("toymodels.theory.k_gons.learning_coefficient")
FREE_ENERGIES = tm.prediction("Free energies n H / 2 + lambda log n, without terms of order 1")
HALVES = "Ours, because learning coefficients are multiples of one half."
FEATURES = 6
NOISE_VARIANCE = 1.0
"""The noise variance of the likelihood, which makes its exponent half the squared error."""
MINIMA = {f"{k}{'+' * s}": (k, s) for k, s in k_gons.minima(FEATURES)}
POTENTIALS = {name: k_gons.potential(FEATURES, *minimum) for name, minimum in MINIMA.items()}
COEFFICIENTS = {
    name: k_gons.learning_coefficient(FEATURES, *minimum) for name, minimum in MINIMA.items()
}
PREDICTED_TAKEOVER = posterior.crossover(
    (POTENTIALS["5"], POTENTIALS["6"]),
    (COEFFICIENTS["5"], COEFFICIENTS["6"]),
    noise_variance=NOISE_VARIANCE,
)
"""The number of examples at which the free energies of pentagon and hexagon cross."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
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
    quench_steps: int = 1000
    """The steps of the descent from each sample of the posterior to the minimum below it."""


SMOKE = Config(
    inverse_temperatures=(1e5, 1e6),
    chains=2,
    chain_steps=10,
    num_examples=(20.0, 10_000.0, 5),
    ladders=2,
    rounds=40,
    labelled=5,
    quench_steps=100,
)


def potential(params):
    return expected_loss_one_active(params["weights"], params["bias"], 1.0)


def unflat(vector):
    return {"weights": vector[:-FEATURES].reshape(2, FEATURES), "bias": vector[-FEATURES:]}


def sample_minima(config: Config) -> dict[str, tuple]:
    """Sample the learning coefficients at every temperature."""
    found = [k_gons.configuration(FEATURES, *each, dead_bias=-0.5) for each in MINIMA.values()]

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
    return {
        "coefficient": (dims, np.asarray(estimates.coefficient)),
        "standard_error": (dims, np.asarray(estimates.standard_error)),
    }


def sample_posterior(config: Config) -> dict[str, tuple]:
    r"""Sample by replica exchange, with one replica for each number of examples.

    The posterior is $\exp(-n H / 2 \sigma^2)$ times a standard normal prior: of the expected loss
    in place of that of one data set.
    """
    stiffness = jnp.asarray(np.geomspace(*config.num_examples)) / (2 * NOISE_VARIANCE)
    kept = np.linspace(config.rounds // 4, config.rounds - 1, config.labelled).astype(int)

    def energy(place, stiffness):
        return stiffness * potential(unflat(place)) + jnp.sum(place**2) / 2

    def step_size(key, stiffness):
        return jax.random.uniform(key, (), minval=0.2, maxval=0.8) / (1 + stiffness) ** 0.5

    def ladder(key):
        key_start, key_rounds = jax.random.split(key)
        starts = jax.random.normal(key_start, (len(stiffness), 3 * FEATURES))
        return replica_exchange(
            key_rounds,
            energy,
            starts,
            stiffness,
            draw_step_size=step_size,
            leapfrog=6,
            rounds=config.rounds,
        )[kept]

    def quench(place):
        return k_gons.potential_below(**unflat(place), steps=config.quench_steps)

    visited = jax.jit(jax.vmap(ladder))(jax.random.split(jax.random.key(0), config.ladders))
    below = jax.jit(jax.vmap(quench))(visited.reshape(-1, 3 * FEATURES))
    dims = ("ladder", "sample", "num_examples")
    return {"quenched": (dims, np.asarray(below).reshape(visited.shape[:3]))}


def run(config: Config) -> xr.Dataset:
    return xr.Dataset(
        sample_minima(config) | sample_posterior(config),
        coords={
            "minimum": list(MINIMA),
            "inverse_temperature": list(config.inverse_temperatures),
            "num_examples": np.geomspace(*config.num_examples),
        },
    )


def occupancy(results: xr.Dataset) -> xr.DataArray:
    """Return the share of posterior samples by the number of vertices of the minimum below them."""
    kinds = k_gons.nearest(FEATURES, results.quenched, list(MINIMA.values())).place
    vertices = np.array([vertices for vertices, _ in MINIMA.values()])[kinds]
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


def claims(results: xr.Dataset) -> tm.Claims:
    says = "The sampled learning coefficients of all minima but the antipodal pair are those that "
    says += "counting flat directions gives, measured by the largest difference."
    coldest = results.coefficient.isel(inverse_temperature=-1)
    error = np.abs(coldest - [*COEFFICIENTS.values()]).drop_sel(minimum="2").max()
    yield tm.near(says, 0, error, COUNTED, within=0.5, threshold=HALVES)

    says = "The sampled learning coefficient of the antipodal pair is the one that counting flat "
    says += "directions gives."
    note = "What is flat in its four dead columns is a wedge, as wide as the pair bends. The "
    note += "sampler starts at its edge, where the pair is straight, and steps that fit the edge "
    note += "hardly enter. Started inside it finds 2: tests/test_learning_coefficient.py."
    pair = coldest.sel(minimum="2")
    yield tm.near(says, 2, pair, COUNTED, within=0.5, threshold=HALVES, note=note)

    says = "The number of examples at which the posterior holds as many hexagons as pentagons is "
    says += "where their free energies cross, measured as log10."
    threshold = "Ours, because terms of order 1 in the free energies are left out."
    expected, found = np.log10(PREDICTED_TAKEOVER), np.log10(takeover(results))
    yield tm.near(says, expected, found, FREE_ENERGIES, within=0.5, threshold=threshold)

    says = "The mean number of vertices of the posterior grows with the number of examples, "
    says += "measured by the smallest change between neighbouring numbers."
    mean_vertices = (occupancy(results) * np.arange(FEATURES + 1)[:, None, None]).sum("vertices")
    change = mean_vertices.mean("ladder").diff("num_examples").min()
    threshold = "Ours, because 480 correlated samples have a standard deviation near 1."
    yield tm.at_least(says, 0, change, PAPER, slack=0.2, threshold=threshold)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (coefficients, energies, shares) = plotting.figure(3, 1, size=(7.0, 8.6))
    draw_coefficients(coefficients, results)
    draw_energies(energies, results.num_examples.values)
    draw_posterior(shares, results)
    return figure


def draw_coefficients(axes: plotting.Axes, results: xr.Dataset) -> None:
    across = np.arange(len(MINIMA))
    for number, temperature in enumerate(results.inverse_temperature.values):
        chosen = results.sel(inverse_temperature=temperature)
        axes.errorbar(
            across + 0.14 * (number - 1.5),
            chosen.coefficient,
            2 * chosen.standard_error,
            fmt=plotting.MARKERS[number],
            markersize=3,
            label=rf"$n\beta = 10^{{{np.log10(temperature):.0f}}}$",
        )
    counted = [*COEFFICIENTS.values()]
    axes.hlines(counted, across - 0.4, across + 0.4, color="0.3", linewidth=1, label="counted")
    axes.set_xticks(across, labels=results.minimum.values)
    axes.set(
        xlabel="minimum: vertices of the polygon, + a dead column of positive bias",
        ylabel=r"learning coefficient $\lambda$ (± 2 s.e.)",
        title="Sampled learning coefficients are those counted, but that of the antipodal pair",
    )
    axes.legend()


def draw_energies(axes: plotting.Axes, sizes: Float[np.ndarray, " sizes"]) -> None:
    fine = np.geomspace(sizes[0], sizes[-1], 400)
    energies = {
        name: posterior.free_energy(
            POTENTIALS[name], COEFFICIENTS[name], fine, noise_variance=NOISE_VARIANCE
        )
        for name in MINIMA
    }
    lowest = np.min(list(energies.values()), axis=0)
    for number, name in enumerate(("6", "5+", "5", "4", "3", "2", "1", "0")):
        dashes = "-" if number < 6 else "--"
        axes.semilogx(fine, energies[name] - lowest, dashes, label=name, color=f"C{number % 6}")
    axes.axvline(PREDICTED_TAKEOVER, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="examples n",
        ylabel=r"$nH/2 + \lambda\,\log n$, above the lowest",
        ylim=(-0.5, 15),
        title="More examples favour more vertices",
    )
    axes.legend(ncols=2, title="minimum")


def draw_posterior(axes: plotting.Axes, results: xr.Dataset) -> None:
    share = occupancy(results)
    for number, vertices in enumerate((6, 5, 4, 3, 2)):
        part = share.sel(vertices=vertices).transpose("num_examples", "ladder")
        color = {"color": f"C{number}"}
        axes.semilogx(part.num_examples, part, ".", ms=2, rasterized=True, **color)
        axes.plot(part.num_examples, part.mean("ladder"), label=f"{vertices} vertices", **color)
    axes.axvline(PREDICTED_TAKEOVER, color="0.6", linewidth=0.8, linestyle=":")
    axes.axvline(takeover(results), color="0.3", linewidth=0.8, linestyle="--")
    axes.set(
        xlabel="examples n (hexagon leads: dotted predicted, dashed found)",
        ylabel="share of the posterior",
        title=f"So does the posterior ({share.sizes['ladder']} ladders as dots, lines: mean)",
    )
    axes.legend()


if __name__ == "__main__":
    experiment.main(__file__)
