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
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import toymodels as tm
from toymodels import experiment, plotting

SOURCE = 'Elhage et al. (2022), appendix "Nonlinear Compression"'
LINEAR = 1 / 12
"""One of two independent uniform numbers, or one direction, is lost."""
INSIDE, EVERY = "jumps inside", "every segment"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    widths: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003, 0.001)
    """Of a ramp, in segments."""
    most_segments: int = 30
    shown: tuple[float, int] = (0.1, 3)
    """Width and segments of the paper's example."""
    examples: int = 1_000_000


SMOKE = Config(widths=(0.1, 0.01), most_segments=4, examples=10_000)


def stairs(values: Any, width: float, ramps: int) -> Any:
    r"""$\lfloor u \rfloor$ of $u \ge 0$ with ramps that end at the jumps 1 to `ramps`."""
    steps = np.floor(values)
    rising = np.clip((values - steps - 1) / width + 1, 0, 1) * (steps < ramps)
    return np.minimum(steps, ramps) + rising


def num_ramps(segments: int, which: str) -> int:
    return segments - 1 if which == INSIDE else segments


def encode(x: Any, y: Any, width: float, segments: int, which: str = INSIDE) -> Any:
    """The code t in [0, 1]."""
    whole = stairs(segments * x, width, num_ramps(segments, which)) + y
    return np.minimum(whole / segments, 1.0)


def decode(code: Any, width: float, segments: int, which: str = INSIDE) -> tuple[Any, Any]:
    """Both numbers; the first one as the middle of its segment."""
    steps = stairs(segments * code, width, num_ramps(segments, which))
    return (steps + 0.5) / segments, segments * code - steps


def closed_form(width: Any, segments: Any, which: str) -> Any:
    r"""The mean squared error, a polynomial in the width $e$ and in $1/Z$.

    Write $x = (k + a)/Z$, $r$ for how far $a$ has climbed its ramp, and $F$ for the steps that the
    decoder makes of $v = r + y$. Then the errors are $(a - 1/2 - F)/Z$ and $F - r$. In a segment
    with ramps around it they have the mean squares $A/Z^2$ and $B$,

    $$A = \tfrac1{12} + \tfrac13 (e + e^2 + e^3), \quad
      B = \tfrac12 (e - e^2) + \tfrac13 e^3.$$

    On a ramp, $v$ is uniform modulo 1, whatever $r$: that makes all moments elementary. The
    last segments differ. Inside, the last one is exact but for $1/(12 Z^2)$, and the one before it
    has no ramp above it. With a ramp in every segment, the code is clipped in the last one.

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
    """The same, by Gauss's rule on every piece where both errors are polynomials: exact."""
    nodes, chances = np.polynomial.legendre.leggauss(6)

    def rule(breaks: Any) -> tuple[Any, Any]:
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


def network(width: float, segments: int) -> tuple[Any, ...]:
    """Weights and biases of two layers of ReLUs with the code between them, jumps inside.

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


def through(layers: tuple[Any, ...], inputs: Any) -> Any:
    """Outputs of the network, one column for each column of inputs."""
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


def claims(results: xr.Dataset) -> list[tm.Claim]:
    width, segments = results.attrs["shown_width"], int(results.attrs["shown_segments"])
    shown = results["error"].sel(width=width, segments=segments)
    two = results["error"].sel(width=width, segments=2)
    example = f"width {width:g} and Z = {segments}"
    narrow = results["error"].sel(variant=INSIDE).isel(width=-1)
    ideal = LINEAR / results.segments**2
    return [
        tm.Claim(
            "best linear compression of two uniform numbers into one, from samples",
            "one of two variances of 1/12 is lost",
            expected=LINEAR,
            measured=float(results["linear"]),
            tolerance=2.5 / results.attrs["examples"] ** 0.5,
            kind=tm.Kind.PREDICTION,
            threshold="ours: several standard errors",
        ),
        *(
            tm.Claim(
                f"{example} beat linear compression, ramps at {which}: error over that of linear",
                SOURCE,
                expected=1.0,
                measured=float(shown.sel(variant=which)) / LINEAR,
                bound=tm.Bound.AT_MOST,
                kind=tm.Kind.PAPER,
            )
            for which in (INSIDE, EVERY)
        ),
        tm.Claim(
            f"Z = 2 does so at width {width:g} with ramps at the jumps alone: error over linear",
            "this figure",
            expected=1.0,
            measured=float(two.sel(variant=INSIDE)) / LINEAR,
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.FINDING,
        ),
        tm.Claim(
            "and not with a ramp in every segment: error over linear",
            "this figure",
            expected=1.0,
            measured=float(two.sel(variant=EVERY)) / LINEAR,
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.FINDING,
        ),
        tm.Claim(
            "closed forms are the integrals: largest difference over all widths and Z",
            "Gauss quadrature, exact on every piece",
            expected=0.0,
            measured=float(abs(results["error"] - results["quadrature"]).max()),
            tolerance=1e-14,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        tm.Claim(
            f"error of the network, from samples, at {example}",
            "closed form",
            expected=float(shown.sel(variant=INSIDE)),
            measured=float(results["sampled"]),
            tolerance=4 * float(results["standard_error"]),
            kind=tm.Kind.IDENTITY,
            threshold="ours: four standard errors",
        ),
        tm.Claim(
            "ReLU networks are these functions: largest difference over all widths and Z, times "
            "(width / Z)²",
            "two ReLUs for each ramp",
            expected=0.0,
            measured=float(
                (results["mismatch"] * (results["width"] / results["segments"]) ** 2).max()
            ),
            # Z terms as large as Z / width are summed, and slopes of 1 / width follow.
            tolerance=1e-15,
            kind=tm.Kind.IDENTITY,
            threshold="ours: rounding",
        ),
        tm.Claim(
            f"ReLUs, 4 Z - 2 of them, at Z = {segments}",
            f"{SOURCE}: about 12 for each segment, so 36",
            expected=12 * segments,
            measured=float(results["neurons"]),
            bound=tm.Bound.AT_MOST,
            kind=tm.Kind.IDENTITY,
        ),
        tm.Claim(
            "what the narrowest ramps cost beside jumps, over half their width: largest",
            "limit of narrow ramps: error - 1/(12 Z^2) -> e / 2 for many segments",
            expected=1.0,
            measured=float((narrow - ideal).max() / (narrow.width / 2)),
            tolerance=0.1,
            kind=tm.Kind.PREDICTION,
            threshold="ours: terms of finite width",
        ),
    ]


def draw_errors(axes: Any, results: xr.Dataset) -> None:
    z = results.segments.values
    for number, width in enumerate(results.width.values):
        color = plotting.IMPORTANCE_MAP(number / len(results.width))
        for which, style in ((INSIDE, "o-"), (EVERY, ":")):
            error = results["error"].sel(width=width, variant=which)
            label = f"ramps of width {width:g}" if which == INSIDE else None
            axes.loglog(z, error, style, color=color, markersize=2.5, linewidth=1.2, label=label)
    axes.loglog(z, LINEAR / z**2, color="0.6", linewidth=0.8, label="jumps, 1/(12 Z²)")
    axes.axhline(LINEAR, color="C3", linestyle="--", label="linear, 1/12")
    axes.plot([], [], "k:", label="a ramp in every segment")
    ticks = [tick for tick in (2, 3, 5, 10, 20, 30) if tick <= z[-1]]
    axes.set_xticks(ticks, labels=ticks)
    axes.minorticks_off()
    axes.set(
        xlabel="segments Z", ylabel="mean squared error, summed", title="error of the compression"
    )
    axes.legend(loc="lower left", fontsize=7)


def plot(results: xr.Dataset) -> Figure:
    figure, (left, middle, right) = plotting.figure(
        1, 3, size=(12.0, 4.0), width_ratios=(1.35, 1, 1)
    )
    draw_errors(left, results)
    width, segments = results.attrs["shown_width"], int(results.attrs["shown_segments"])
    best = results["error"].sel(width=width, segments=segments, variant=INSIDE)
    left.plot(segments, best, "o", color="C3", markersize=9, fillstyle="none")

    grid = np.linspace(0, 1, 301)
    image = encode(grid[None], grid[:, None], width, segments)
    shown = middle.imshow(image, origin="lower", extent=(0, 1, 0, 1), cmap="viridis")
    figure.colorbar(shown, ax=middle, shrink=0.8, label="code t")
    middle.set(xlabel="x", ylabel="y", title=f"the code, Z = {segments}, width {width:g}")

    code = np.linspace(0, 1, 1001)
    for values, name, color in zip(
        decode(code, width, segments), ("x", "y"), ("C0", "C1"), strict=True
    ):
        right.plot(code, values, color=color, label=f"{name} as decoded")
    right.set(
        xlabel="code t",
        ylabel="decoded",
        title=f"the decoder, {int(results['neurons']) // 2} ReLUs",
    )
    right.legend()
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
