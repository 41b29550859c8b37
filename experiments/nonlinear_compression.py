r"""Two numbers in one: nonlinear compression beats linear, even with ramps in place of jumps.

Claim      t = (floor(Z x) + y) / Z keeps both of two uniform numbers in one. A network is
           continuous, so each jump is a ramp. With ramps as wide as 0.1 of a segment three
           segments already beat linear compression, with far fewer ReLUs than the paper's 36.
Reproduces Elhage et al. (2022), appendix "Nonlinear Compression".
Selection  None: nothing is trained. All errors are closed forms, checked by exact quadrature.
Settings   Ours, for the paper states none: a ramp ends at the jump, on both sides of the code, and
           its width is in units of a segment, 1/Z. Solid: ramps at the Z - 1 jumps inside [0, 1].
           Dotted: every segment ends in one, the last, too, and the code is clipped to [0, 1].
Scale      Mean squared error, summed over the two numbers.
Command    toymodels run experiments/nonlinear_compression.py
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment, plotting

PAPER = tm.paper('Elhage et al. (2022), appendix "Nonlinear Compression"')
COUNTED = tm.identity(f"{PAPER.text}: about 12 for each segment, so 36")
VARIANCE = tm.prediction("One of two variances of 1/12 is lost")
FOUND = tm.finding("This figure")
GAUSS = tm.identity("Gauss quadrature, exact on every piece")
NARROW = tm.prediction("Limit of narrow ramps: error - 1/(12 Z^2) -> e / 2 for many segments")
LINEAR = 1 / 12
"""One of two independent uniform numbers, or one direction, is lost."""
INSIDE, EVERY = "jumps inside", "every segment"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    widths: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003, 0.001)
    """The widths of a ramp, in segments."""
    most_segments: int = 30
    shown: tuple[float, int] = (0.1, 3)
    """Width and segments of the paper's example."""
    examples: int = 1_000_000


SMOKE = Config(widths=(0.1, 0.01), most_segments=4, examples=10_000)


def stairs(values, width: float, ramps: int):
    r"""Return $\lfloor u \rfloor$ of $u \ge 0$, with ramps that end at the jumps 1 to `ramps`."""
    steps = np.floor(values)
    rising = np.clip((values - steps - 1) / width + 1, 0, 1) * (steps < ramps)
    return np.minimum(steps, ramps) + rising


def num_ramps(segments: int, which: str) -> int:
    """Return the number of ramps."""
    return segments - 1 if which == INSIDE else segments


def encode(x, y, width: float, segments: int, which: str = INSIDE):
    """Return the code t in [0, 1]."""
    whole = stairs(segments * x, width, num_ramps(segments, which)) + y
    return np.minimum(whole / segments, 1.0)


def decode(code, width: float, segments: int, which: str = INSIDE):
    """Return both numbers, the first one as the middle of its segment."""
    steps = stairs(segments * code, width, num_ramps(segments, which))
    return (steps + 0.5) / segments, segments * code - steps


def closed_form(width, segments, which: str):
    r"""Return the mean squared error, a polynomial in the width $e$ and in $1/Z$.

    Write $x = (k + a)/Z$, $r$ for how far $a$ has climbed its ramp, and $F$ for the steps that the
    decoder makes of $v = r + y$. Then the errors are $(a - 1/2 - F)/Z$ and $F - r$. In a segment
    with ramps around it they have the mean squares $A/Z^2$ and $B$,

    $$A = \tfrac1{12} + \tfrac13 (e + e^2 + e^3), \quad
      B = \tfrac12 (e - e^2) + \tfrac13 e^3.$$

    On a ramp, $v$ is uniform modulo 1 for every $r$, which makes all moments elementary. The last
    segments differ. With jumps inside, the error of the last one is $1/(12 Z^2)$ and the one before
    it has no ramp above it. With a ramp in every segment, the code is clipped in the last one.

    Args:
        width: $e$, in (0, 1]; of 0 the limit of jumps, $1/(12 Z^2)$.
        segments: $Z$, at least 2.
        which: `INSIDE` or `EVERY`.
    """
    e, z = np.asarray(width), np.asarray(segments)
    first = 1 / 12 + (e + e**2 + e**3) / 3
    second = (e - e**2) / 2 + e**3 / 3
    if which == INSIDE:
        first = ((z - 1) * first + 1 / 12 - e**3 / 4 - e**5 / 12) / z
        second = ((z - 1) * second - e**3 / 12 - e**4 / 12) / z
    else:
        first = first - e * (e**2 / 4 + e**4 / 12) / z
        second = second + e * (1 / 6 - e**2 / 12 - e**3 / 12) / z
    return first / z**2 + second


def quadrature(width: float, segments: int, which: str) -> float:
    """Return the mean squared error by Gauss's rule, which is exact on every polynomial piece."""
    nodes, chances = np.polynomial.legendre.leggauss(6)

    def rule(breaks):
        low, high = breaks[..., :-1, None], breaks[..., 1:, None]
        points = low + (high - low) * (nodes + 1) / 2
        weights = np.broadcast_to((high - low) * chances / 2, points.shape)
        flat = (*breaks.shape[:-1], -1)
        return points.reshape(flat), weights.reshape(flat)

    # Where the code meets a kink, and where the kinks in y cross each other or the border.
    ends = np.array([0.0, 1 - width, 1 - width * width, 1 - width * (1 - width), 1.0])
    x, chance_x = rule(np.unique((np.arange(segments)[:, None] + ends) / segments))
    climbed = stairs(segments * x, width, num_ramps(segments, which)) % 1
    kinks = np.array([0.0, 1 - width, 1.0, 2 - width]) - climbed[:, None]
    bounds = np.tile([0.0, 1.0], (x.size, 1))
    y, chance_y = rule(np.sort(np.hstack([bounds, np.clip(kinks, 0, 1)]), axis=1))
    x_out, y_out = decode(encode(x[:, None], y, width, segments, which), width, segments, which)
    squares = (x_out - x[:, None]) ** 2 + (y_out - y) ** 2
    return float(chance_x @ (squares * chance_y).sum(axis=1))


def network(width: float, segments: int):
    """Return weights and biases of two layers of ReLUs with the code between them, jumps inside.

    One ReLU starts and one ends each ramp, and one passes on what is not negative anyway.
    """
    jumps = np.arange(1, segments)
    kinks = np.concatenate([jumps - width, jumps])
    climb = np.repeat([1.0, -1.0], segments - 1) / width
    enter = np.stack([np.repeat([segments, 0.0], [kinks.size, 1]), np.append(0 * kinks, 1.0)], 1)
    leave = np.array([np.append(climb, 0.0) / segments, np.append(-climb, 1.0)])
    thresholds = -np.append(kinks, 0.0)
    inside = np.full((kinks.size + 1, 1), float(segments))
    shift = np.array([0.5 / segments, 0.0])
    return enter, thresholds, np.append(climb, 1.0)[None] / segments, inside, leave, shift


def through(layers, inputs):
    """Return the outputs of the network, one column for each column of inputs."""
    enter, thresholds, to_code, inside, leave, shift = layers
    code = to_code @ np.maximum(enter @ inputs + thresholds[:, None], 0)
    return leave @ np.maximum(inside @ code + thresholds[:, None], 0) + shift[:, None]


def run(config: Config) -> xr.Dataset:
    variants, counts = (INSIDE, EVERY), np.arange(2, config.most_segments + 1)
    shape = (len(variants), len(config.widths), len(counts))
    exact, integral, mismatch = np.empty(shape), np.empty(shape), np.empty(shape[1:])
    inputs = np.random.default_rng(0).random((2, config.examples))
    some = inputs[:, :2000]
    for v, w, s in np.ndindex(shape):
        case = config.widths[w], int(counts[s])
        exact[v, w, s] = closed_form(*case, variants[v])
        integral[v, w, s] = quadrature(*case, variants[v])
        expected = np.stack(decode(encode(some[0], some[1], *case), *case))
        mismatch[w, s] = np.abs(through(network(*case), some) - expected).max()
    layers = network(*config.shown)
    squares = ((through(layers, inputs) - inputs) ** 2).sum(axis=0)
    dims = ("variant", "width", "segments")
    return xr.Dataset(
        {
            "error": (dims, exact, {"units": "summed over both numbers"}),
            "quadrature": (dims, integral),
            "mismatch": (dims[1:], mismatch),
            "sampled": squares.mean(),
            "standard_error": squares.std() / config.examples**0.5,
            "linear": np.linalg.eigvalsh(np.cov(inputs))[0],
            "neurons": layers[1].size * 2,
        },
        coords={"variant": list(variants), "width": list(config.widths), "segments": counts},
        attrs={
            "shown_width": config.shown[0],
            "shown_segments": config.shown[1],
            "examples": config.examples,
        },
    )


def claims(results: xr.Dataset) -> Iterator[tm.Claim]:
    width, segments = results.attrs["shown_width"], int(results.attrs["shown_segments"])
    error = results["error"]
    shown, two = (error.sel(width=width, segments=count) for count in (segments, 2))
    example, rounding = f"ramps of width {width:g} and Z = {segments}", "Ours, because of rounding."

    says = "The best linear compression of two uniform numbers into one has the error 1/12, from "
    says += "samples."
    within = 2.5 / results.attrs["examples"] ** 0.5
    several = "Ours, because it is several standard errors."
    yield tm.near(says, LINEAR, results["linear"], VARIANCE, within=within, threshold=several)
    for where in (INSIDE, EVERY):
        says = f"The error of {example} beats linear compression with ramps at {where}: the ratio "
        says += "of the two errors is below 1."
        yield tm.at_most(says, 1, shown.sel(variant=where) / LINEAR, PAPER)
    says = (
        f"The error of ramps of width {width:g} and Z = 2 beats linear compression with ramps at "
    )
    says += "the jumps alone: the ratio of the two errors is below 1."
    yield tm.at_most(says, 1, two.sel(variant=INSIDE) / LINEAR, FOUND)
    says = f"The error of ramps of width {width:g} and Z = 2 does not beat linear compression with "
    says += "a ramp in every segment: the ratio of the two errors is above 1."
    yield tm.at_least(says, 1, two.sel(variant=EVERY) / LINEAR, FOUND)

    says = "The closed forms of the error are its integrals at all widths and Z."
    off = abs(error - results["quadrature"]).max()
    yield tm.near(says, 0, off, GAUSS, within=1e-14, threshold=rounding)
    says = f"The error of the ReLU network of {example} is the closed form, from samples."
    four = "Ours, because it is four standard errors."
    yield tm.near(
        *(says, shown.sel(variant=INSIDE), results["sampled"], tm.identity("Closed form")),
        within=4 * float(results["standard_error"]),
        threshold=four,
    )
    says = "The ReLU networks are the functions of the closed form at all widths and Z: the "
    says += "largest difference, times (width / Z)^2, is 0."
    # Z terms as large as Z / width are summed, and slopes of 1 / width follow.
    off = (results["mismatch"] * (results["width"] / results["segments"]) ** 2).max()
    ramps = tm.identity("Two ReLUs for each ramp")
    yield tm.near(says, 0, off, ramps, within=1e-15, threshold=rounding)
    says = f"The network of Z = {segments} has 4 Z - 2 ReLUs, fewer than in the paper."
    yield tm.at_most(says, 12 * segments, results["neurons"], COUNTED)
    says = "The narrowest ramps cost half their width in error beside jumps, for the number of "
    says += "segments where they cost most: the ratio is nearly 1."
    narrow = error.sel(variant=INSIDE).isel(width=-1)
    cost = (narrow - LINEAR / results.segments**2).max() / (narrow.width / 2)
    finite = "Ours, because of terms of finite width."
    yield tm.near(says, 1, cost, NARROW, within=0.1, threshold=finite)


def plot(results: xr.Dataset) -> Figure:
    ratios = {"width_ratios": (1.5, 1)}
    figure, ((errors, code), (spare, decoder)) = plotting.figure(2, 2, size=(9, 5.6), **ratios)
    spare.remove()
    errors.set_subplotspec(errors.get_gridspec()[:, 0])
    draw_errors(errors, results)
    width, segments = results.attrs["shown_width"], int(results.attrs["shown_segments"])
    best = results["error"].sel(width=width, segments=segments, variant=INSIDE)
    ring = {"markersize": 10, "fillstyle": "none", "linestyle": "none", "color": "black"}
    errors.plot(segments, best, "o", label="the example on the right", **ring)
    errors.legend(loc="lower left")

    places = np.linspace(0, 1, 301)
    image = encode(places[None], places[:, None], width, segments)
    how = {"origin": "lower", "extent": (0, 1, 0, 1), "cmap": plotting.VALUE_MAP, "aspect": "auto"}
    plotting.color_bar(code.imshow(image, **how), "code $t$")
    code.set(xlabel="first number $x$", ylabel="second number $y$")
    code.set_title(f"both numbers in one code\n({segments} segments, ramps of width {width:g})")
    line = np.linspace(0, 1, 1001)
    for values, name, style in zip(decode(line, width, segments), "xy", ("-", "--"), strict=True):
        decoder.plot(line, values, style, label=f"${name}$")
    decoder.set(xlabel="code $t$", ylabel="decoded numbers")
    decoder.set_title(f"decoded by {int(results['neurons']) // 2} ReLUs")
    decoder.legend()
    return figure


def draw_errors(axes: Axes, results: xr.Dataset) -> None:
    """Draw the error over the number of segments, for each width of a ramp."""
    z = results.segments.values
    for number, width in enumerate(results.width.values):
        color = plotting.VALUE_MAP(1 - 0.8 * number / len(results.width))
        for which, style in ((INSIDE, "o-"), (EVERY, ":")):
            error = results["error"].sel(width=width, variant=which)
            label = f"ramps of width {width:g}" if which == INSIDE else None
            axes.loglog(z, error, style, color=color, markersize=2.5, linewidth=1.2, label=label)
    axes.loglog(z, LINEAR / z**2, color="0.6", linewidth=0.8, label="jumps, $1/(12 Z^2)$")
    axes.axhline(LINEAR, color="black", linestyle="--", label="linear, 1/12")
    axes.plot([], [], "k:", label="a ramp in every segment")
    plotting.plain_ticks(axes, "x", (2, 3, 5, 10, 20, 30))
    axes.set(xlabel="number of segments $Z$", ylabel="mean squared error of both numbers")
    axes.set_title("nonlinear compression beats linear\n(closed forms, nothing is trained)")


if __name__ == "__main__":
    experiment.main(__file__)
