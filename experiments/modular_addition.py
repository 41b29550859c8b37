r"""Addition modulo a prime: trained networks are the network of largest margin.

Claim      A network that adds modulo p, trained on all pairs with a penalty on its norm, becomes
           the network of largest margin: its loss and margin are those of the theorem, each neuron
           is a wave of one frequency, the phase that it writes is the sum of the phases that it
           reads, and all frequencies share the norm equally. Above a critical penalty nothing is
           learned.
Reproduces Morwani et al. (2024), "Feature Emergence via Margin Maximization", Theorem 7 and the
           figures of modular addition, with smaller primes.
Settings   One hidden layer with quadratic activation and no biases, f(a, b) = sum_i (u_i[a] +
           v_i[b])^2 w_i, with twice the 4 (p - 1) neurons that the theorem needs. All p^2 pairs in
           every step of Adam down a cosine. The loss is the mean cross-entropy plus a penalty on
           the third power of the L_{2,3} norm.
Selection  None: claims are over all seeds. Neurons are weighted by their share of the norm. The
           neuron that is drawn is the largest of seed 0.
Command    toymodels run experiments/modular_addition.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import modular_addition as measures
from toymodels.theory import modular_addition as theory

MARGIN = tm.paper("Morwani et al. (2024), Theorem 7: margin sqrt(2/27) / (sqrt(p) (p - 1))")
WAVES = tm.paper("Morwani et al. (2024), Theorem 7: one frequency, phases that add")
BOUND = tm.identity("Mean leads are at most the margin of Theorem 7; cross-entropy is convex")
LEAST = tm.prediction("The smallest loss over multiples of the network of largest margin")
ONE_WAVE = tm.identity("The largest logits of a wave of one frequency differ by 1 - cos(2 pi / p)")
CONVEX = tm.identity("Cross-entropy is convex, and averages over pairs do not raise it")
DESCENT = "Ours, because training does not converge entirely."
NEURON = ("first", "second", "out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    moduli: tuple[int, ...] = (7, 11, 13)
    penalties: tuple[float, ...] = (1.2, 0.7, 0.3, 0.1, 0.03)
    """Penalties in units of the critical penalty."""
    start: float = 0.3
    """The standard deviation of the weights before training."""
    num_seeds: int = 4
    training: tm.Recipe = tm.Recipe(steps=6000, batch=1, learning_rate=1e-2)


SMOKE = Config(
    moduli=(5,),
    penalties=(1.2, 0.3),
    num_seeds=2,
    training=tm.Recipe(steps=200, batch=1, learning_rate=3e-2),
)


def run(config: Config) -> xr.Dataset:
    def cell(key, *, modulus, penalty):
        number = np.arange(modulus)
        right = (number[:, None] + number) % modulus
        weight = penalty * theory.critical_penalty(modulus)

        def loss(params, _):
            entropy = cross_entropy(measures.logits(**params), right)
            return entropy + weight * measures.norm(**params) ** 3

        shape = (len(NEURON), 8 * (modulus - 1), modulus)
        start = config.start * jax.random.normal(key, shape)
        fitted = tm.fit(
            key,
            dict(zip(NEURON, start, strict=True)),
            loss,
            lambda _key, batch: jnp.zeros(batch),  # every step sees all pairs
            optimizer=config.training.optimizer(),
            steps=config.training.steps,
            batch=1,
        )
        return fitted.params

    results = tm.sweep(
        cell,
        static={"modulus": config.moduli},
        axes={"penalty": config.penalties},
        num_seeds=config.num_seeds,
        dims=dict.fromkeys(NEURON, ("neuron", "number")),
    )
    vectors = [results[name] for name in NEURON]
    found = tm.apply(measure, *vectors, dims={"by_frequency": ("frequency",)}, float64=True)
    results = results.merge(found)
    critical = [theory.critical_penalty(modulus) for modulus in config.moduli]
    weight = results["penalty"] * xr.DataArray(critical, dims="modulus")
    return results.assign(loss=results["entropy"] + weight * results["power"])


def cross_entropy(logits: Array, right: Array) -> Array:
    """Return the mean cross-entropy over all pairs."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), right[:, :, None], axis=2))


def measure(first: Array, second: Array, out: Array) -> dict[str, Array]:
    """Return the losses and the margin of one network, and measures of its neurons.

    In means and sums over neurons, a neuron has the weight of its part of the third power of the
    norm.
    """
    modulus = first.shape[1]
    number = jnp.arange(modulus)
    right = (number[:, None] + number[None]) % modulus
    logits = measures.logits(first, second, out)
    power = jnp.sum(first**2 + second**2 + out**2, axis=1) ** 1.5
    part = power / jnp.sum(power)
    waves = jnp.stack([measures.spectrum(vectors) for vectors in (first, second, out)])
    strength = jnp.abs(waves) ** 2
    # The share of variance that each wave has in all three vectors of a neuron; `best` is the wave
    # of the largest share.
    common = jnp.min(strength / jnp.sum(strength, axis=2, keepdims=True), axis=0)
    best = jnp.argmax(common, axis=1)
    largest = jnp.take_along_axis(waves, best[None, :, None], axis=2)[:, :, 0]
    gap = jnp.abs(jnp.angle(largest[0] * largest[1] * jnp.conj(largest[2])))
    frequencies = jnp.arange(waves.shape[2])
    return {
        "entropy": cross_entropy(logits, right),
        "restricted": cross_entropy(measures.restricted(logits), right),
        "power": jnp.sum(power),
        "margin": measures.normalised_margin(first, second, out),
        "one_frequency": jnp.sum(part * (jnp.max(common, axis=1) > 0.95)),
        "phase_gap": jnp.sum(part * gap),
        "by_frequency": (best[None] == frequencies[:, None]) @ part,
    }


def claims(results: xr.Dataset) -> tm.Claims:
    learned = results.where(results["penalty"] < 1, drop=True)
    exact = least_losses(results)
    moduli = results["modulus"].values
    best = xr.DataArray([theory.max_margin(p) for p in moduli], dims="modulus")
    ratio = learned["margin"] / best

    says = "No trained network has a lower loss than the theorem allows, measured by the smallest "
    says += "ratio to that loss."
    rounding = "Ours, because 32-bit numbers are rounded."
    smallest = (results["loss"] / exact).min()
    yield tm.at_least(says, 1, smallest, BOUND, slack=1e-5, threshold=rounding)

    says = "No trained network has a larger margin than the theorem allows, measured by the "
    says += "largest ratio to that margin."
    yield tm.at_most(says, 1, ratio.max(), BOUND, slack=1e-5, threshold=rounding)

    says = "Below the critical penalty, every trained network has the smallest loss that the "
    says += "theorem allows, measured by the largest ratio to that loss."
    gap = (learned["loss"] / least_losses(learned)).max()
    yield tm.at_most(says, 1, gap, LEAST, slack=0.01, threshold=DESCENT)

    for place, modulus in enumerate(moduli):
        says = f"Trained networks that add modulo {modulus} have the largest possible margin below "
        says += "the critical penalty, measured by the smallest ratio to that margin."
        least = ratio.isel(modulus=place).min()
        yield tm.at_least(says, 1, least, MARGIN, slack=0.02, threshold=DESCENT)

    if (results["penalty"] > 1).any():
        says = "Above the critical penalty, the weights of every trained network vanish, measured "
        says += "by the largest ratio of the third power of the norm to that at the weakest "
        says += "penalty."
        nothing = results["power"].where(results["penalty"] > 1).max("penalty")
        size = (nothing / results["power"].max("penalty")).max()
        yield tm.at_most(says, 0.01, size, LEAST, threshold="Ours, because one percent is little.")

    says = "Below the critical penalty, each neuron is of one frequency, measured by the smallest "
    says += "share, in a network, of neurons whose three vectors have more than 95 % of their "
    says += "variance in one common wave."
    yield tm.at_least(says, 0.98, learned["one_frequency"].min(), WAVES, threshold=DESCENT)

    says = "The phase that a neuron writes is the sum of the phases that it reads below the "
    says += "critical penalty, measured by the largest mean difference in a network, in radians."
    yield tm.near(says, 0, learned["phase_gap"].max(), WAVES, within=0.05, threshold=DESCENT)

    says = "All frequencies share the third power of the norm equally below the critical penalty, "
    says += "measured by the smallest share of a frequency times the number of frequencies."
    count = (results["modulus"] - 1) / 2
    shares = learned["by_frequency"] * count
    yield tm.near(says, 1, shares.min(), WAVES, within=0.1, threshold=DESCENT)

    says = "The part of the logits of any trained network that depends on the error alone never "
    says += "has a larger cross-entropy than all logits, measured by the smallest difference of "
    says += "the two."
    difference = (results["entropy"] - results["restricted"]).min()
    yield tm.at_least(says, 0, difference, CONVEX, slack=1e-9, threshold=rounding)

    says = "The part of the logits that depends on the error alone has all of the cross-entropy of "
    says += "networks below the critical penalty, measured by the largest relative difference."
    share = (1 - learned["restricted"] / learned["entropy"]).max()
    yield tm.near(says, 0, share, WAVES, within=0.01, threshold=DESCENT)

    says = "The eight neurons of one frequency of the network of largest margin have alone a "
    says += "margin of (1 - cos(2 pi / p)) (p - 1) / p times the largest one, measured by the "
    says += "largest relative difference over the primes p."
    off = max(abs(margin_of_one_frequency(p) / one_wave(p) - 1) for p in map(int, moduli))
    yield tm.near(says, 0, off, ONE_WAVE, within=1e-4, threshold=rounding)


def margin_of_one_frequency(modulus: int) -> float:
    """Return the normalised margin of the eight neurons of frequency 1, over the largest margin."""
    neurons = (vectors[:8] for vectors in theory.max_margin_network(modulus))
    return float(measures.normalised_margin(*neurons)) / theory.max_margin(modulus)


def one_wave(modulus: int) -> float:
    """Return the closed form of `margin_of_one_frequency`, which falls as 1 / p^2."""
    return (1 - np.cos(2 * np.pi / modulus)) * (modulus - 1) / modulus


def least_losses(results: xr.Dataset) -> xr.DataArray:
    """Return the smallest possible loss at each modulus and penalty."""
    known = [
        [
            theory.least_loss(p, share * theory.critical_penalty(p))
            for share in results["penalty"].values
        ]
        for p in map(int, results["modulus"].values)
    ]
    return xr.DataArray(known, dims=("modulus", "penalty"))


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, ((loss, margin), (neuron, phases)) = plotting.figure(2, 2, size=(8.4, 6.2))
    fine = np.geomspace(results["penalty"].min(), results["penalty"].max(), 200)
    for place, modulus in enumerate(map(int, results["modulus"].values)):
        color, marker = f"C{place}", plotting.MARKERS[place]
        known = [
            theory.least_loss(modulus, share * theory.critical_penalty(modulus)) for share in fine
        ]
        loss.plot(fine, known, color=color, lw=1)
        every = results.isel(modulus=place).transpose("penalty", "seed", ...)
        style = {"color": color, "ls": "", "marker": marker, "ms": 4}
        loss.plot(every["penalty"], every["loss"], **style)
        loss.plot([], [], label=f"p = {modulus}", **style)
        learned = every.where(every["penalty"] < 1, drop=True)
        margin.plot(learned["penalty"], learned["margin"] / theory.max_margin(modulus), **style)
    loss.plot([], [], color="0.4", lw=1, label="least loss, exact")
    loss.axvline(1, color="0.6", ls=":")
    loss.set(
        xscale="log", ylabel="loss", title="Trained networks reach the least loss of any network"
    )
    loss.legend(title=f"dots: all {results.sizes['seed']} seeds")
    margin.axhline(1, color="0.6", ls=":")
    margin.set(xscale="log", ylim=(0, 1.1), ylabel="margin / largest possible margin")
    margin.set_title("They have the largest margin")
    for axes in (loss, margin):
        axes.set_xlabel("penalty / critical penalty")
        plotting.plain_ticks(axes)
    draw_neurons(neuron, phases, results.isel(modulus=-1, penalty=-1))
    return figure


def draw_neurons(neuron, phases, results: xr.Dataset) -> None:
    """Draw the largest neuron of seed 0, and the phases of all neurons of all seeds."""
    modulus = int(results["modulus"])
    vectors = [results[name].transpose("seed", "neuron", "number").values for name in NEURON]
    power = sum(each**2 for each in vectors).sum(axis=2) ** 1.5
    largest = power[0].argmax()
    names = ("reads of a", "reads of b", "writes to a + b")
    fine, number = np.linspace(0, modulus - 1, 300), np.arange(modulus)
    for place, (each, name) in enumerate(zip(vectors, names, strict=True)):
        color, marker, values = f"C{place}", plotting.MARKERS[place], each[0, largest]
        neuron.plot(number, values, color=color, ls="", marker=marker, ms=5, label=name)
        wave = np.fft.rfft(values)[1:] * 2 / modulus
        best = np.abs(wave).argmax()
        turns = 2 * np.pi * (best + 1) * fine / modulus
        neuron.plot(fine, np.abs(wave[best]) * np.cos(turns + np.angle(wave[best])), color, lw=0.8)
    top = 1.9 * max(np.abs(each[0, largest]).max() for each in vectors)
    neuron.set(xlabel="number", ylabel="weight", ylim=(-top / 1.6, top))
    neuron.set_title("The vectors of a neuron are waves of one frequency")
    neuron.legend(loc="upper right")
    kept = power > 1e-3 * power.sum(axis=1, keepdims=True)
    waves = np.stack([np.fft.rfft(each, axis=2)[..., 1:] for each in vectors])
    best = np.abs(waves).min(axis=0).argmax(axis=2)
    angle = np.angle(np.take_along_axis(waves, best[None, ..., None], axis=3)[..., 0])
    turn = 2 * np.pi
    reads, writes = ((angle[0] + angle[1]) % turn)[kept], (angle[2] % turn)[kept]
    phases.plot([0, turn], [0, turn], color="0.6", lw=1, label="phases add up")
    phases.plot(reads, writes, "o", ms=3, alpha=0.5, label=f"all neurons, p = {modulus}")
    phases.set(xlabel="sum of the phases that it reads", ylabel="phase that it writes")
    phases.set(xlim=(0, turn), ylim=(0, turn), title="The phases of a neuron add up")
    ticks = [0, np.pi, turn]
    phases.set_xticks(ticks, ["0", "π", "2π"])
    phases.set_yticks(ticks, ["0", "π", "2π"])
    phases.legend()


if __name__ == "__main__":
    experiment.main(__file__)
