r"""Universal AND: neurons that read random subsets of sparse inputs compute all pairwise ANDs.

Claim      There are two ways to read the AND of a pair. The mean over the neurons that read both
           inputs is also raised by other inputs; a contrast over all d neurons is not, and its
           squared error falls as 1/d instead of d^(-2/3). The number of neurons that the mean
           needs for all pairs grows with the logarithm of the number of inputs.
           ANDs of chosen pairs need many more neurons, because these must hold the choice.
Reproduces Hänni et al. (2024), the construction of universal AND; Adler and Shavit (2024), the
           lower bound for chosen ANDs, counted exactly for one layer, and the growth of their
           construction, whose constant is not known and is 1 here.
Selection  None: nothing is trained. All lines are exact. A neuron reads each input with the
           probability (its share of inputs) that gives the lowest error.
Scale      An error is a mean squared error, after the best scale and offset, in which pairs with 0,
           1 and 2 inputs that are 1 have equal weights.
Command    toymodels run experiments/universal_and.py
"""

import dataclasses

import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import universal_and as theory

HANNI = tm.paper("Hänni et al. (2024), Mathematical Models of Computation in Superposition")
DERIVED = tm.prediction("An input that is 0 does not reach the neuron that reads it")
BALANCE = tm.prediction("A bias of about p against a variance of about 1 / (p d)")
UNION = tm.prediction("Exact binomial tails, summed over all pairs")
STIRLING = tm.identity("Stirling's formula: log m! is about m log m, which k d (d + 1) must reach")
FOUND = tm.finding("found here")
FOUR = "Ours, because it is four standard errors of the samples."
ROUNDED = "Ours, because the logarithm has an offset of 1, and neurons are whole."
SLOPE = "Ours, because terms of higher order remain at these widths."
CASES = ("none is 1", "one is 1", "both are 1")
BITS = 32
"""The bits of a weight in the bound for chosen ANDs."""
COUNTED = (100, 300, 0.3)
"""The inputs, the neurons and the share of inputs of networks whose wrong read-outs are counted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 1000
    """The neurons of the sampled networks of the first panel."""
    share: float = 0.2
    """The probability that a neuron of these networks reads an input."""
    actives: tuple[int, ...] = (2, 3, 4, 6, 8, 10)
    """The numbers of inputs that are 1 in the first panel."""
    samples: int = 400
    """The number of networks that are drawn."""
    active: int = 3
    """The inputs that are 1, wherever no other number is given."""
    widths: tuple[int, ...] = (100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
    counts: tuple[int, ...] = (16, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
    """The numbers of inputs for which the neurons needed are computed."""
    searched: tuple[int, ...] = (30, 50, 80, 120, 170, 240, 330, 450, 600, 800, 1100, 1500)
    """The widths between which the smallest sufficient one is interpolated."""
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)
    """The shares of inputs of which these neurons have the best."""


SMOKE = Config(
    width=100,
    actives=(2, 3),
    samples=20,
    widths=(100, 10_000),
    counts=(16, 100),
    searched=(30, 300),
    shares=(0.3, 0.5),
)


def run(config: Config) -> xr.Dataset:
    parts = [sampled(config), errors_by_width(config), neurons_needed(config)]
    merged = xr.merge(parts, combine_attrs="override")
    return merged.assign(count_wrong(config)).assign_attrs(samples=config.samples)


def sampled(config: Config) -> xr.Dataset:
    """Draw networks, and read the pair of the first two inputs: mean and contrast."""
    random, p = np.random.default_rng(0), config.share
    neurons = theory.subsets(p)
    read = np.zeros((2, len(config.actives), 3, config.samples))
    for number, active in enumerate(config.actives):
        members = random.random((config.samples, config.width, active + 2)) < p
        centre = theory.mean_activation(neurons, active)
        both = members[..., 0] & members[..., 1]
        weight = (members[..., :2] - p).prod(axis=-1) / (p * (1 - p)) ** 2
        for pair in range(3):
            # The inputs that are 1: `pair` of the first two, and the next ones.
            ones = [*range(pair), *range(2, 2 + active - pair)]
            hidden = np.maximum(members[..., ones].sum(axis=-1) - 1.0, 0)
            read[0, number, pair] = (both * hidden).sum(axis=1) / np.maximum(both.sum(axis=1), 1)
            read[1, number, pair] = (weight * (hidden - centre)).mean(axis=1)
    moments = [
        [function(neurons, active, config.width) for active in config.actives]
        for function in (theory.mean_readout, theory.contrast)
    ]
    dims = ("readout", "active", "case")
    return xr.Dataset(
        {
            "sampled_mean": (dims, read.mean(axis=-1)),
            "sampled_deviation": (dims, read.std(axis=-1)),
            "mean": (dims, [[each.mean for each in row] for row in moments]),
            "deviation": (dims, [[each.variance**0.5 for each in row] for row in moments]),
        },
        {"readout": ["mean", "contrast"], "active": list(config.actives), "case": list(CASES)},
        {"samples": config.samples},
    )


def errors_by_width(config: Config) -> xr.Dataset:
    """Compute the errors of three read-outs in closed form, for the best share of inputs."""
    shares = np.geomspace(0.003, 0.5, 50)

    def best(function, width):
        return min(theory.error(function(theory.subsets(p), config.active, width)) for p in shares)

    errors = {
        "mean of subsets": lambda width: best(theory.mean_readout, width),
        "contrast of subsets": lambda width: best(theory.contrast, width),
        "contrast of signs": lambda width: theory.error(
            theory.contrast(theory.signs(), config.active, width)
        ),
    }
    found = [[error(width) for error in errors.values()] for width in config.widths]
    labels = {"width": list(config.widths), "kind": list(errors)}
    return xr.Dataset({"error": (("width", "kind"), found)}, labels)


def neurons_needed(config: Config) -> xr.Dataset:
    """Find the width at which the mean number of wrong read-outs, over all pairs, is one half."""
    rates = np.array(
        [[theory.error_rates(p, config.active, d) for p in config.shares] for d in config.searched]
    )
    counts, active = np.array(config.counts, float), config.active
    rest = counts - active
    both = np.full_like(counts, active * (active - 1) / 2)
    pairs = np.stack([rest * (rest - 1) / 2, active * rest, both])
    wrong = (rates @ pairs).min(axis=1)  # searched widths x counts
    # Both are straight in logarithms, and fewer are wrong in wider networks.
    outside = {"left": np.nan, "right": np.nan}
    needed = [
        np.exp(np.interp(np.log(2), -np.log(each), np.log(config.searched), **outside))
        for each in wrong.T
    ]
    return xr.Dataset({"needed": ("count", needed)}, {"count": list(config.counts)})


def count_wrong(config: Config) -> dict[str, float]:
    """Count the wrong read-outs of all pairs in sampled networks, beside the exact mean."""
    inputs, width, share = COUNTED
    random, active = np.random.default_rng(1), config.active
    target = np.zeros((inputs, inputs), bool)
    target[:active, :active] = True
    above = np.triu_indices(inputs, 1)
    wrong = []
    for _ in range(config.samples):
        members = (random.random((width, inputs)) < share).astype(np.float32)
        hidden = np.maximum(members[:, :active].sum(axis=1) - 1, 0)
        read = (members.T * hidden) @ members / np.maximum(members.T @ members, 1)
        answer = read > (active - 1.5) * share + 0.5
        wrong.append((answer != target)[above].sum())
    rest = inputs - active
    pairs = [rest * (rest - 1) / 2, active * rest, active * (active - 1) / 2]
    return {
        "wrong": float(theory.error_rates(share, active, width) @ pairs),
        "wrong_sampled": float(np.mean(wrong)),
        "wrong_error": float(np.std(wrong) / config.samples**0.5),
    }


def claims(results: xr.Dataset) -> tm.Claims:
    samples = results.attrs["samples"]
    deviations = (results["sampled_mean"] - results["mean"]) / results["deviation"] * samples**0.5
    for readout, source in (("mean", HANNI), ("contrast", DERIVED)):
        says = f"The {readout} read-out has the mean of its closed form over random subsets, for "
        says += "none, one and both inputs of a pair that are 1, measured by the largest "
        says += "difference in standard errors."
        off = abs(deviations.sel(readout=readout).fillna(0)).max()
        yield tm.near(says, 0, off, source, within=4, threshold=FOUR)
    some = results["deviation"] > 1e-6  # two active inputs that are the pair leave no noise
    ratio = (results["sampled_deviation"] / results["deviation"]).where(some)
    says = "Both read-outs have the standard deviations of their closed forms over random subsets, "
    says += "measured by the largest difference of a ratio from 1."
    within = 4 / (2 * samples) ** 0.5 * 1.2
    kurtosis = "Ours, because it is four standard errors, and sums are not quite normal."
    yield tm.near(says, 0, abs(ratio - 1).max(), DERIVED, within=within, threshold=kurtosis)
    says = "The contrast has the mean 0 in closed form if an input of the pair is 0, whatever the "
    says += "number of other inputs that are 1, measured by the largest absolute mean."
    false = results["mean"].sel(readout="contrast").isel(case=[0, 1])
    yield tm.near(says, 0, abs(false).max(), DERIVED, within=1e-12)

    error = results["error"]
    log = np.log(error.isel(width=[-2, -1]))
    slope = log.diff("width").squeeze() / np.diff(np.log(results["width"][-2:]))
    says = "The squared error of the mean read-out at its best share of inputs falls as the width "
    says += "to the power -2/3."
    slopes = slope.sel(kind="mean of subsets"), slope.sel(kind="contrast of signs")
    yield tm.near(says, -2 / 3, slopes[0], BALANCE, within=0.03, threshold=SLOPE)
    says = "The squared error of the contrast of random signs falls as the width to the power -1."
    yield tm.near(says, -1, slopes[1], DERIVED, within=0.03, threshold=SLOPE)
    says = "From 1000 neurons on, the contrast of random signs has a lower error than the mean of "
    says += "subsets with their best share of inputs, measured by the largest ratio of the errors."
    wide = error.where(results["width"] >= 1000, drop=True)
    ratio = wide.sel(kind="contrast of signs") / wide.sel(kind="mean of subsets")
    yield tm.at_most(says, 1, ratio.max(), FOUND)

    says = "Sampled networks of 300 neurons have as many wrong read-outs of the pairs of 100 "
    says += "inputs, on average, as exact binomial tails say."
    within = 4 * results["wrong_error"]
    yield tm.near(
        says, results["wrong"], results["wrong_sampled"], UNION, within=within, threshold=FOUR
    )
    needed = results["needed"]
    some = needed.sel(count=[100, 10_000], method="nearest").values
    says = "The number of neurons that the construction needs for all pairs grows no faster than "
    says += "the logarithm of the number of inputs, measured by the ratio of the numbers for "
    says += "10,000 and for 100 inputs."
    two = "Ours, because log 10,000 is twice log 100."
    note = "The union bound counts pairs, and the logarithm of their number grows by 2.08."
    yield tm.at_most(says, 2, some[1] / some[0], UNION, threshold=two, note=note)
    says = "The number of neurons that the construction needs for all pairs grows with a small "
    says += "power of the number of inputs, measured by the exponent between 30,000 and 100,000 "
    says += "inputs."
    growth = np.log(needed[-1] / needed[-2]) / np.log(needed["count"][-1] / needed["count"][-2])
    small = "Ours, because the logarithm has the exponent 1 / log 100,000 = 0.087 there."
    yield tm.at_most(says, 0.15, growth.item(), UNION, threshold=small)
    says = "The construction needs more neurons for all pairs of 16 inputs than there are pairs, "
    says += "measured by the ratio of the two numbers."
    yield tm.at_least(says, 1, needed[0] / (16 * 15 / 2), FOUND)
    says = "The construction needs fewer neurons for all pairs of 100 inputs than a tenth of the "
    says += "number of pairs, measured by the ratio of the two numbers."
    yield tm.at_most(says, 0.1, some[0] / (100 * 99 / 2), FOUND)
    says = "Universal AND needs far fewer neurons than the lower bound for ANDs of chosen pairs, "
    says += f"measured by the ratio of the two for all pairs of 100,000 inputs and {BITS} bits a "
    says += "weight."
    tenth = "Ours, because it is far below; the bound counts functions, and universal AND is one."
    bound = chosen(results["count"].values)
    yield tm.at_most(says, 0.1, needed[-1] / bound[-1], FOUND, threshold=tenth)
    says = "The lower bound for ANDs of all pairs in a chosen order grows as the square root of "
    says += "their number m times its logarithm, measured by the exponent of m log m over the "
    says += "inputs of the figure."
    pairs = results["count"].values * (results["count"].values - 1.0) / 2
    slope = np.polyfit(np.log(pairs * np.log(pairs)), np.log(bound), 1)[0]
    yield tm.near(says, 0.5, slope, STIRLING, within=0.02, threshold=ROUNDED)


def chosen(counts) -> list[int]:
    """Return the fewest neurons for the ANDs of all pairs in a chosen order, by counting."""
    return [theory.fewest_neurons(int(n), int(n * (n - 1) // 2), bits=BITS) for n in counts]


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (means, widths, needed) = plotting.figure(1, 3, size=(9, 3.6))
    draw_means(means, results)
    error = results["error"]
    for number, kind in enumerate(results["kind"].values):
        line = error.sel(kind=kind)
        widths.loglog(line["width"], line, color=f"C{number}", label=str(kind))
    widths.axhline(theory.LINEAR_ERROR, color="0.5", ls="--", lw=1, label="linear, 1/18")
    x = np.array([3e4, 1e6])
    for power, start in ((-2 / 3, 2.4e-3), (-1, 2.2e-4)):
        widths.loglog(x, start * (x / x[0]) ** power, ":", color="0.4", lw=1)
    widths.text(2e5, 1.1e-3, "$d^{-2/3}$", fontsize=8)
    widths.text(4e4, 6e-5, "$d^{-1}$", fontsize=8)
    widths.set(xlabel="neurons $d$", ylabel="squared error", ylim=(5e-6, 0.6))
    widths.set_title("A contrast over all neurons\nwins in the end (3 inputs are 1)")
    widths.legend(loc="lower left", fontsize=7)
    draw_needed(needed, results)
    return figure


def draw_means(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the read-outs over the number of active inputs, closed forms and samples."""
    active = results["active"]
    for row, style in (("contrast", ":"), ("mean", "-")):
        for number, case in enumerate(CASES):
            where = {"readout": row, "case": case}
            label = f"mean, {case}" if row == "mean" else "_line"
            axes.plot(active, results["mean"].sel(where), style, color=f"C{number}", label=label)
            sampled = results[["sampled_mean", "sampled_deviation"]].sel(where).values()
            marker = {"fmt": "o" if row == "mean" else "s", "ms": 3, "lw": 0.8}
            axes.errorbar(active, *sampled, color=f"C{number}", **marker)
    axes.plot([], [], ":", color="0.4", label="contrast, in these colours")
    axes.set(xlabel="inputs that are 1, $s$", ylabel="read-out", ylim=(-0.3, 4.1))
    axes.set_title("Two read-outs of an AND\n(lines exact; bars: one deviation)")
    axes.legend(loc="upper left", fontsize=7)


def draw_needed(axes: plotting.Axes, results: xr.Dataset) -> None:
    """Draw the neurons needed over the number of ANDs, and those of chosen ANDs."""
    inputs = results["count"].values.astype(float)
    pairs = inputs * (inputs - 1) / 2
    axes.loglog(pairs, results["needed"], "o-", ms=3, label="universal AND, exact")
    bound = chosen(results["count"].values)
    axes.loglog(pairs, bound, "--", color="C1", label=f"chosen ANDs, bound ({BITS} bits)")
    upper = np.sqrt(pairs) * np.log(pairs)
    axes.loglog(pairs, upper, ":", color="C1", label=r"chosen ANDs, $\sqrt{m}\,\log m$")
    axes.loglog(pairs, pairs, color="0.6", lw=1, label="one neuron each")
    axes.set(xlabel="number $m$ of ANDs", ylabel="neurons needed", ylim=(20, 1e11))
    axes.set_title("All pairs need few neurons;\nchosen pairs need many (orange)")
    axes.legend(loc="upper left", fontsize=7)


if __name__ == "__main__":
    experiment.main(__file__)
