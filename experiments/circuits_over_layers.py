r"""Circuits over layers: what superposition costs a Boolean circuit, layer by layer.

Claim      A circuit in fewer dimensions than it has variables reads noise, and its errors add up
           and grow by a third with each layer. A threshold on what is read removes them, until so
           many variables are true that noise flips bits; flipped bits multiply. The errors, while
           they are small, and the width that a circuit needs follow within a third from one
           number: the variance of the noise.
Reproduces Hänni et al. (2024), that layers must correct errors, and Bushnaq and Mendel (2024) with
           its correction by Linsefors and Bushnaq (2025), that errors grow over layers. The growth,
           the law of corrected errors and the width are derived here.
Settings   Random circuits of AND, OR and XOR. Each gate reads two gates of the layer before. The
           weights are written, not trained; directions are projections of a random basis.
Selection  None: points are means over circuits, inputs and gates; bars span the circuits.
Command    toymodels run experiments/circuits_over_layers.py
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import circuits, experiment, plotting
from toymodels.theory import noisy_gates as theory

HANNI = tm.paper("Hänni et al. (2024), Mathematical Models of Computation in Superposition")
LINSEFORS = tm.paper("Linsefors and Bushnaq (2025), Circuits in Superposition 2")
FRAME = tm.prediction("A projection of a basis is nearly a tight frame, which has least overlaps")
NOISE = tm.prediction("The recursion of errors with Gaussian noise of the measured true variables")
ROOM = tm.identity("Orthonormal directions do not overlap")
FOUND = tm.finding("found here")
MEANS = "Ours, because the theory is for small errors, and means scatter by about a tenth."
SHARE = 0.01
"""The share of wrong bits above which a circuit counts as broken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    gates: int = 128
    """The number of inputs, and of gates of each layer."""
    layers: int = 7
    active: int = 2
    """The number of inputs that are true."""
    widths: tuple[int, ...] = (128, 192, 256, 384, 512, 768, 1024)
    num_circuits: int = 4
    examples: int = 200


SMOKE = Config(gates=12, layers=2, widths=(8, 36), num_circuits=1, examples=8)


def layered(key, gates: int, layers: int) -> circuits.Program:
    """Return a random circuit whose gates read two gates of the layer before."""
    key_kinds, key_operands = jax.random.split(key)
    kinds = jnp.asarray([circuits.AND, circuits.OR, circuits.XOR])
    kinds = kinds[jax.random.randint(key_kinds, (layers, gates), 0, 3)]

    def two(key):
        return jax.random.permutation(key, gates)[:2]

    operands = jax.vmap(two)(jax.random.split(key_operands, layers * gates))
    start = gates * jnp.arange(layers)[:, None, None]
    return circuits.Program(gates, operands.reshape(layers, gates, 2) + start, kinds)


@functools.partial(jax.jit, static_argnames="correcting")
def values(program, directions, bits, *, correcting):
    """Return what the network computes for all gates (examples x layers x gates)."""
    layers, gates = program.kinds.shape[:2]
    network = circuits.BooleanNetwork(layers, gates, directions.shape[1], correcting)
    params = circuits.written(program, directions)
    sites = jax.vmap(lambda x: tm.activations(network, params, x))(bits)
    return jnp.stack([sites[f"layer_{k}"] for k in range(layers - 1)] + [sites["output"]], axis=1)


def of_circuit(config: Config, key, bits) -> xr.Dataset:
    """Return the errors of one circuit at every width, without and with a threshold."""
    variables = config.gates * (config.layers + 1)
    key_program, key_directions = jax.random.split(key)
    program = layered(key_program, config.gates, config.layers)
    basis = np.asarray(circuits.random_directions(key_directions, variables, width=variables))
    # Variables that are orthonormal do not disturb each other.
    truth = np.round(np.asarray(values(program, jnp.eye(variables), bits, correcting=False)))
    seen = np.concatenate([np.full((config.examples, 1), config.active), truth.sum(2)], axis=1)
    error, wrong, overlap = [], [], []
    for width in config.widths:
        directions = basis[:, :width]
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        squares = np.sum((directions @ directions.T) ** 2) - variables
        overlap.append(squares / (variables * (variables - 1)))
        both = [
            np.asarray(values(program, jnp.asarray(directions), bits, correcting=threshold))
            for threshold in (False, True)
        ]
        error.append([np.mean((found - truth) ** 2, axis=(0, 2)) for found in both])
        wrong.append([np.mean((found > 0.5) != (truth > 0.5), axis=(0, 2)) for found in both])
    dims = ("width", "threshold", "layer")
    true = ("example", "layer"), np.cumsum(seen, axis=1)[:, :-1]
    data = {"error": (dims, error), "wrong": (dims, wrong), "overlap": ("width", overlap)}
    return xr.Dataset({**data, "true": true}).astype(float)  # means are then taken in 64 bits


def run(config: Config) -> xr.Dataset:
    random = np.random.default_rng(0).random((config.examples, config.gates))
    bits = jnp.asarray(np.argsort(random, axis=1) < config.active, float)
    keys = map(jax.random.key, range(config.num_circuits))
    results = xr.concat([of_circuit(config, key, bits) for key in keys], "circuit")
    layers = np.arange(1, config.layers + 1)
    results = results.assign_coords(width=list(config.widths), layer=layers, threshold=[0, 1])
    return results.assign_attrs(variables=config.gates * (config.layers + 1))


class Predicted(NamedTuple):
    """The predicted errors of each layer without and with a threshold, and the noise's variance."""

    plain: np.ndarray
    corrected: np.ndarray
    noise: np.ndarray


def predicted(results: xr.Dataset, width: int) -> Predicted:
    """Return what the theory says about each layer at one width.

    Every input vector has noise of its own, because it makes its own number of variables true. The
    law with a threshold is a mean over every 20th of them, from few true variables to many.
    """
    overlap = theory.mean_squared_overlap(results.attrs["variables"], width)
    noise = overlap * results["true"].stack(input=("circuit", "example")).transpose("input", ...)
    noise = noise.values[np.argsort(noise.values[:, -1])]
    corrected = np.mean(
        [theory.errors_corrected(each) for each in noise[min(10, len(noise) // 2) :: 20]], axis=0
    )
    mean = noise.mean(axis=0)
    return Predicted(theory.errors(mean), corrected, mean)


def claims(results: xr.Dataset) -> tm.Claims:
    variables = results.attrs["variables"]
    mean = results[["error", "wrong", "overlap"]].mean("circuit")
    plain, corrected = (mean.sel(threshold=k) for k in (0, 1))
    widths = [int(m) for m in results["width"].values if m < variables]
    theories = {m: predicted(results, m) for m in widths}

    says = "With as many dimensions as variables, a circuit makes no error, measured by the root "
    says += "mean square."
    full = results["error"].sel(width=variables).max() ** 0.5
    yield tm.near(says, 0, full, ROOM, within=1e-4)
    says = "The mean squared overlap of the projections of a random basis of V directions into m "
    says += "dimensions is (V - m) / (m (V - 1)), measured by the largest relative difference over "
    says += "widths."
    off = [
        float(mean["overlap"].sel(width=m)) / theory.mean_squared_overlap(variables, m) - 1
        for m in widths
    ]
    yield tm.near(says, 0, np.abs(off).max(), FRAME, within=0.02)

    says = "Without a threshold the mean squared error of a layer of a written circuit is 4/3 of "
    says += "the error and the noise of the layer before, in all layers with an error below 1/10, "
    says += "measured by the largest relative difference."
    off = []
    for m in widths:
        law = theories[m].plain
        off += list(np.abs(plain["error"].sel(width=m).values / law - 1)[law < 0.1])
    note = "Errors near 1/10 are not small: the errors of true gates are negative on average, so "
    note += "that the errors of two operands add up."
    yield tm.near(says, 0, max(off, default=np.nan), NOISE, within=0.25, threshold=MEANS, note=note)
    says = "Without a threshold the errors of written circuits grow over layers, measured by the "
    says += "smallest ratio over widths of the mean squared errors of the last and the first layer."
    growth = (plain["error"][:, -1] / plain["error"][:, 0]).sel(width=widths).min()
    several = "Ours, because the paper gives no number; a third with each layer would be 5.6."
    yield tm.at_least(says, 5, growth, LINSEFORS, threshold=several)

    says = "With a threshold the errors of written circuits follow the recursion in which flipped "
    says += "bits multiply, in all layers with an error from 1e-4 to 1e-2, measured by the largest "
    says += "relative difference."
    off = []
    for m in widths:
        law = theories[m].corrected
        rare = (law > 1e-4) & (law < 1e-2)
        off += list(np.abs(corrected["error"].sel(width=m).values / law - 1)[rare])
    wider = "Ours, because the tail of the noise is not quite normal."
    yield tm.near(says, 0, max(off, default=np.nan), NOISE, within=0.5, threshold=wider)
    says = "A threshold lowers the mean squared error of the last layer of written circuits if the "
    says += "noise is below 1/6, measured by the smallest factor over widths."
    low = [m for m in widths if theories[m].noise.max() < 1 / 36]
    factors = [
        float(plain["error"].sel(width=m)[-1] / corrected["error"].sel(width=m)[-1]) for m in low
    ]
    ours = "Ours, because the paper proves it in the limit of wide layers."
    yield tm.at_least(says, 10, min(factors, default=np.nan), HANNI, threshold=ours)
    says = "A threshold does not help written circuits if the noise of the last layer is above "
    says += "1/3, measured by the smallest ratio of the shares of wrong bits with and without it."
    loud = [m for m in widths if theories[m].noise.max() > 1 / 9]
    ratios = [
        float(corrected["wrong"].sel(width=m)[-1] / plain["wrong"].sel(width=m)[-1]) for m in loud
    ]
    ours = "Ours, because equal shares have 1."
    yield tm.at_least(says, 0.8, min(ratios, default=np.nan), FOUND, threshold=ours)

    says = "The width at which a circuit with a threshold has one wrong bit in a hundred in its "
    says += "last layer is that at which noise is above 1/4 on one operand in a hundred, measured "
    says += "by the ratio of the two."
    needed = theory.width_for(SHARE, float(results["true"][..., -1].mean()), variables)
    ours = "Ours, because errors from 1/4 to 1/2 need not flip a bit and a gate has two operands."
    yield tm.near(says, 1, broken(corrected) / needed, NOISE, within=0.3, threshold=ours)
    says = "A threshold halves the width that a circuit needs at one wrong bit in a hundred, "
    says += "measured by the ratio of the widths with and without it."
    ours = "Ours, because it is the number of the sentence, with a tolerance."
    ratio, note = broken(corrected) / broken(plain), "It saves a third of the width."
    yield tm.at_most(says, 0.5, ratio, FOUND, slack=0.15, threshold=ours, note=note)
    says = "A circuit with a threshold has more variables than dimensions, measured by the largest "
    says += "number of variables for each dimension without more than one wrong bit in a hundred."
    ours = "Ours, because the paper states orders of growth; more than 1 is superposition."
    note = "It is above 1, but the last layer sees noise of some thirty true variables."
    number = variables / broken(corrected)
    yield tm.at_least(says, 2, number, HANNI, threshold=ours, note=note)


def broken(mean: xr.Dataset) -> float:
    """Return the width at which one bit in a hundred of the last layer is wrong, interpolated."""
    share = np.maximum.accumulate(mean["wrong"][:, -1].values[::-1])  # of the widest first
    widths = np.log(mean["width"].values[::-1].astype(float))
    return float(np.exp(np.interp(SHARE, share, widths)))


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, axes = plotting.figure(1, 3, size=(9, 3.7))
    chosen = [m for m in (512, 256) if m in results["width"]] or [int(results["width"][0])]
    titles = ("Wide: a threshold\nremoves most errors", "Narrow: a threshold only\ndelays errors")
    for k, at in enumerate((chosen[0], chosen[-1])):
        draw_layers(axes[k], results, at)
        axes[k].set_title(f"{titles[k]} ({at} dimensions)")
    limits = [axes[k].get_ylim() for k in (0, 1)]
    for k in (0, 1):
        axes[k].set_ylim(max(1e-7, min(low for low, _ in limits)), max(high for _, high in limits))
    draw_widths(axes[2], results)
    return figure


def draw_layers(axes: plotting.Axes, results: xr.Dataset, width: int) -> None:
    """Draw the errors of each layer at one width, with the predicted ones as lines."""
    exact = predicted(results, width)
    for k, (label, color) in enumerate((("no threshold", "C1"), ("threshold", "C0"))):
        values = results["error"].sel(width=width, threshold=k)
        mean, span = plotting.mean_and_range(values, "circuit")
        how = {"fmt": "os"[k], "ms": 4, "color": color, "lw": 1, "label": label}
        axes.errorbar(results["layer"], mean, span, **how)
        axes.plot(results["layer"], exact[k], "-", color=color, lw=1)
    axes.set(yscale="log", xlabel="layer", ylabel="mean squared error of a gate")
    title = f"range of {results.sizes['circuit']} circuits; lines: theory"
    axes.legend(fontsize=7, title=title, title_fontsize=7, loc="lower right")


def draw_widths(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the share of wrong bits of the last layer against width."""
    variables = results.attrs["variables"]
    for k, (label, color) in enumerate((("no threshold", "C1"), ("threshold", "C0"))):
        wrong = results["wrong"].sel(threshold=k).isel(layer=-1)
        mean = wrong.mean("circuit").clip(min=1e-5)
        axes.plot(results["width"], mean, "os"[k] + "-", ms=4, color=color, lw=1.2, label=label)
    true = float(results["true"][..., -1].mean())
    shares = np.geomspace(1e-5, 0.3, 100)
    widths = [theory.width_for(share, true, variables) for share in shares]
    axes.plot(widths, shares, "k:", lw=1.2, label="threshold, in theory")
    axes.axhline(SHARE, color="0.7", lw=0.8)
    axes.set(yscale="log", xscale="log", xlabel=f"dimensions ({variables} variables)")
    axes.set(ylabel="wrong bits of the last layer (1e-5: none)")
    plotting.plain_ticks(axes, "x", (128, 256, 512, 1024))
    axes.set_title("A threshold saves a third of the\nwidth at one wrong bit in a hundred")
    axes.legend(fontsize=7)


if __name__ == "__main__":
    experiment.main(__file__)
