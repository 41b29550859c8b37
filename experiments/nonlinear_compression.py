r"""Two numbers in one: nonlinear compression beats linear, even with ramps in place of jumps.

Claim      t = (floor(Z x) + y) / Z keeps both of two uniform numbers in one. A network is
           continuous, so each jump is a ramp. With ramps as wide as 0.1 of a segment three
           segments already beat linear compression, with far fewer ReLUs than the paper's 36.
Reproduces Elhage et al. (2022), appendix "Nonlinear Compression".
Selection  None: nothing is trained. All errors are closed forms, checked by exact quadrature.
Settings   Ours, because the paper states none: a ramp ends at the jump, on both sides of the code,
           and its width is in units of a segment, 1/Z. Solid: ramps at the Z - 1 jumps inside [0,
           1]. Dotted: every segment ends in one, the last, too, and the code is clipped to [0, 1].
Scale      Mean squared error, summed over the two numbers.
Command    toymodels run experiments/nonlinear_compression.py
"""

import dataclasses

import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import compression

PAPER = tm.paper('Elhage et al. (2022), appendix "Nonlinear Compression"')
COUNTED = tm.identity(f"{PAPER.text}: about 12 for each segment, so 36")
VARIANCE = tm.prediction("One of two variances of 1/12 is lost")
FOUND = tm.finding("This figure")
GAUSS = tm.identity("Gauss quadrature, exact on every piece")
NARROW = tm.prediction("Limit of narrow ramps: error - 1/(12 Z^2) -> e / 2 for many segments")
ROUNDING = "Ours, because of rounding."
LINEAR = 1 / 12
"""One of two independent uniform numbers, or one direction, is lost."""
LAST_RAMP = {"jumps inside": False, "every segment": True}
"""The variants by whether the last segment ends in a ramp, too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    widths: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003, 0.001)
    """The widths of a ramp, in segments."""
    most_segments: int = 30
    shown: tuple[float, int] = (0.1, 3)
    """Width and segments of the paper's example."""
    examples: int = 1_000_000


SMOKE = Config(widths=(0.1, 0.01), most_segments=4, examples=10_000)


def run(config: Config) -> xr.Dataset:
    inputs = np.random.default_rng(0).random((2, config.examples))
    some = inputs[:, :2000]

    def largest_mismatch(*case) -> float:
        """Return how far the network is from the function at most."""
        expected = np.stack(compression.decode(compression.encode(*some, *case), *case))
        return float(np.abs(compression.network(*case)(some) - expected).max())

    cases = [(w, z) for w in config.widths for z in range(2, config.most_segments + 1)]
    shape = (len(config.widths), -1)

    def errors(function) -> np.ndarray:
        each = [[function(*c, last_ramp=last) for c in cases] for last in LAST_RAMP.values()]
        return np.reshape(each, (len(LAST_RAMP), *shape))

    network = compression.network(*config.shown)
    squares = ((network(inputs) - inputs) ** 2).sum(axis=0)
    dims, units = ("variant", "width", "segments"), {"units": "summed over both numbers"}
    return xr.Dataset(
        {
            "error": (dims, errors(compression.squared_error), units),
            "quadrature": (dims, errors(compression.squared_error_by_quadrature)),
            "mismatch": (dims[1:], np.reshape([largest_mismatch(*case) for case in cases], shape)),
            "sampled": squares.mean(),
            "standard_error": squares.std() / config.examples**0.5,
            "linear": np.linalg.eigvalsh(np.cov(inputs))[0],
            "neurons": network.num_relus,
        },
        coords={
            "variant": list(LAST_RAMP),
            "width": list(config.widths),
            "segments": range(2, config.most_segments + 1),
        },
        attrs={
            "shown_width": config.shown[0],
            "shown_segments": config.shown[1],
            "examples": config.examples,
        },
    )


def claims(results: xr.Dataset) -> tm.Claims:
    width, segments = results.attrs["shown_width"], int(results.attrs["shown_segments"])
    error, example = results["error"], f"ramps of width {width:g} and Z = {segments} segments"
    shown, two = (error.sel(width=width, segments=count) for count in (segments, 2))
    inside, every = LAST_RAMP

    says = "The best linear compression of two uniform numbers into one has the error 1/12."
    within = 2.5 / results.attrs["examples"] ** 0.5
    several = "Ours, because it is several standard errors of the samples."
    yield tm.near(says, LINEAR, results["linear"], VARIANCE, within=within, threshold=several)
    for where, how in zip(LAST_RAMP, ("at the jumps alone", "in every segment"), strict=True):
        says = f"Compression with {example}, {how}, has a smaller error than the best linear one, "
        says += "measured by the ratio of the two errors."
        yield tm.at_most(says, 1, shown.sel(variant=where) / LINEAR, PAPER)
    says = f"Compression with ramps of width {width:g} and Z = 2 segments, at the jumps alone, has "
    says += "a smaller error than the best linear one, measured by the ratio of the two errors."
    yield tm.at_most(says, 1, two.sel(variant=inside) / LINEAR, FOUND)
    says = f"Compression with ramps of width {width:g} and Z = 2 segments, in every segment, has "
    says += "no smaller error than the best linear one, measured by the ratio of the two errors."
    yield tm.at_least(says, 1, two.sel(variant=every) / LINEAR, FOUND)

    says = "The closed forms of the error are its integrals at all widths and numbers Z of "
    says += "segments, measured by the largest difference."
    off = abs(error - results["quadrature"]).max()
    yield tm.near(says, 0, off, GAUSS, within=1e-14, threshold=ROUNDING)
    says = f"The error of the ReLU network of {example} is the closed form, measured on samples."
    four, within = "Ours, because it is four standard errors.", 4 * results["standard_error"]
    closed, sampled = shown.sel(variant=inside), results["sampled"]
    form = tm.identity("Closed form")
    yield tm.near(says, closed, sampled, form, within=within, threshold=four)
    says = "The ReLU networks are the functions of the closed form at all widths and numbers Z of "
    says += "segments, measured by the largest difference times (width / Z)^2."
    # Z terms as large as Z / width are summed, and slopes of 1 / width follow.
    off = (results["mismatch"] * (results["width"] / results["segments"]) ** 2).max()
    ramps = tm.identity("Two ReLUs for each ramp")
    yield tm.near(says, 0, off, ramps, within=1e-15, threshold=ROUNDING)
    says = f"The network of Z = {segments} segments has 4 Z - 2 ReLUs, fewer than in the paper."
    yield tm.at_most(says, 12 * segments, results["neurons"], COUNTED)
    says = "The narrowest ramps cost half their width in error beside jumps, for the number of "
    says += "segments where they cost most: the ratio is nearly 1."
    narrow = error.sel(variant=inside).isel(width=-1)
    cost = (narrow - LINEAR / results.segments**2).max() / (narrow.width / 2)
    finite = "Ours, because of terms of finite width."
    yield tm.near(says, 1, cost, NARROW, within=0.1, threshold=finite)


def plot(results: xr.Dataset) -> plotting.Figure:
    ratios = {"width_ratios": (1.5, 1)}
    figure, ((errors, code), (spare, decoder)) = plotting.figure(2, 2, size=(9, 5.6), **ratios)
    spare.remove()
    errors.set_subplotspec(errors.get_gridspec()[:, 0])
    draw_errors(errors, results)

    width, segments = results.attrs["shown_width"], int(results.attrs["shown_segments"])
    places = np.linspace(0, 1, 301)
    image = compression.encode(places, places[:, None], width, segments)
    how = {"origin": "lower", "extent": (0, 1, 0, 1), "cmap": plotting.VALUE_MAP, "aspect": "auto"}
    plotting.color_bar(code.imshow(image, **how), "code $t$")
    title = f"both numbers in one code\n({segments} segments, ramps of width {width:g})"
    code.set(xlabel="first number $x$", ylabel="second number $y$", title=title)
    line = np.linspace(0, 1, 1001)
    decoded = compression.decode(line, width, segments)
    for values, name, style in zip(decoded, "xy", ("-", "--"), strict=True):
        decoder.plot(line, values, style, label=f"${name}$")
    title = f"decoded by {int(results['neurons']) // 2} ReLUs"
    decoder.set(xlabel="code $t$", ylabel="decoded numbers", title=title)
    decoder.legend()
    return figure


def draw_errors(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the error over the number of segments, for each width of a ramp."""
    z, error = results.segments.values, results["error"]
    for number, width in enumerate(results.width.values):
        color = plotting.VALUE_MAP(1 - 0.8 * number / len(results.width))
        inside, every = error.sel(width=width).transpose("variant", "segments").values
        label = f"ramps of width {width:g}"
        axes.loglog(z, inside, "o-", color=color, markersize=2.5, linewidth=1.2, label=label)
        axes.loglog(z, every, ":", color=color, linewidth=1.2)
    axes.loglog(z, LINEAR / z**2, color="0.6", linewidth=0.8, label="jumps, $1/(12 Z^2)$")
    axes.axhline(LINEAR, color="black", linestyle="--", label="linear, 1/12")
    axes.plot([], [], "k:", label="a ramp in every segment")
    example = error.isel(variant=0).sel(
        width=results.attrs["shown_width"], segments=results.attrs["shown_segments"]
    )
    ring = {"markersize": 10, "fillstyle": "none", "label": "the example on the right"}
    axes.plot(example.segments, example, "ko", **ring)
    plotting.plain_ticks(axes, "x", (2, 3, 5, 10, 20, 30))
    axes.set(xlabel="number of segments $Z$", ylabel="mean squared error of both numbers")
    axes.set_title("nonlinear compression beats linear\n(closed forms, nothing is trained)")
    axes.legend(loc="lower left")


if __name__ == "__main__":
    experiment.main(__file__)
