"""Which polytope wins? The gain per hidden dimension in theory, and what training finds.

Claim      Where there are many more features than dimensions, the polytope of the largest gain per
           dimension should win: tetrahedra, then triangles, digons, pentagons and square antiprisms
           as features get sparser. Training finds them in this order. It gains as much as the best
           polytope where that is the digon, a little less where another polytope wins, and more
           than any of them where features are sparser still.
Reproduces The polytopes of Elhage et al. (2022), "The Geometry of Superposition", and why they
           come when they do.
Selection  None: every seed is shown. Shares of dimensions are means over the seeds.
Command    toymodels run experiments/polytope_gains.py
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.theory import expected_loss_sampled, frames, polytopes

FIGURE = "Elhage et al. (2022), The Geometry of Superposition, read from the figure"
SAMPLED = tm.prediction("Minimised by other code on quasi-random samples of the loss")
READING = "Ours, because the densities of the figure are 5 % apart."
SPACING = "Ours, because the densities trained at are 5 % apart."
TABLE = "Ours, because the other code interpolated a table."
ERRORS = "Ours, because the standard errors of the gains are this large."
TWENTY = "Ours, because one dimension in twenty may differ."
PERCENT = "Ours, because it is one percent of a gain."
NEEDED = "Ours, because the other claims need it."

POLYTOPES = {
    "dedicated": polytopes.DEDICATED,
    "tetrahedron": polytopes.TETRAHEDRON,
    "triangle": polytopes.TRIANGLE,
    "digon": polytopes.DIGON,
    "pentagon": polytopes.PENTAGON,
    "square antiprism": polytopes.SQUARE_ANTIPRISM,
}
COLORS = dict(zip(POLYTOPES, plotting.POLYTOPE_COLORS, strict=False))
DASHES = dict(zip(POLYTOPES, (":", "-", "--", "-", "--", "-."), strict=True))
FOUR_SIMPLEX = polytopes.Polytope(frames.simplex(4), (0,) * 4)

# Two polytopes, and two values of 1 / density between which they gain equally much.
CROSSINGS = {
    ("tetrahedron", "triangle"): (1.1, 1.5),
    ("triangle", "digon"): (1.4, 1.8),
    ("digon", "pentagon"): (4.0, 5.0),
    ("digon", "square antiprism"): (4.0, 5.0),
    ("pentagon", "square antiprism"): (4.5, 5.5),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: int = 60
    hidden: int = 12
    """Divisible by the dimensions of every polytope."""
    num_densities: int = 40
    least_inverse: float = 1.04
    greatest_inverse: float = 8.0
    """The smallest and the largest 1 / density, on a logarithmic scale."""
    num_seeds: int = 2
    training: tm.Recipe = tm.Recipe(steps=8000, batch=512, learning_rate=1e-2)
    examples: int = 2**15
    """The number of examples of the loss of each trained model."""


# In one dimension there are only dedicated features and digons, whose programs compile fast.
SMOKE = Config(
    num_features=8,
    hidden=1,
    num_densities=3,
    training=tm.Recipe(steps=50, batch=32, learning_rate=1e-2),
    examples=256,
)


def run(config: Config, *, store: Path | None = None) -> xr.Dataset:
    # Theory has one more density between any two of the models.
    ends = config.least_inverse, config.greatest_inverse
    inverses = np.geomspace(*ends, 2 * config.num_densities - 1)

    def cell(key, *, density):
        task = tm.Task(tm.SparseUniform(config.num_features, density))
        params = config.training.train(key, tm.ReLUOutput(config.hidden), task).params
        return {**params, "dimensionality": geometry.feature_dimensionality(params["weights"])}

    def measured(weights, bias, density):
        model, key = (weights, bias), jax.random.key(0)
        return expected_loss_sampled(key, *model, density, 1.0, examples=config.examples)

    dims = {"weights": ("hidden", "feature"), "bias": ("feature",), "dimensionality": ("feature",)}
    how = {"num_seeds": config.num_seeds, "dims": dims, "store": store}
    trained = tm.sweep(cell, axes={"density": 1 / inverses[::2]}, **how)
    models = trained.weights, trained.bias, trained.density
    inner = {"input_core_dims": [["hidden", "feature"], ["feature"], []], "vectorize": True}
    losses, errors = xr.apply_ufunc(measured, *models, output_core_dims=[[], []], **inner)
    variance = trained.density / 3 - trained.density**2 / 4
    gains = [
        [gain(polytope, inverse, config.hidden) for inverse in inverses]
        for polytope in POLYTOPES.values()
    ]
    results = trained[["dimensionality"]].assign(
        trained_gain=(config.num_features * variance - losses) / (config.hidden * variance),
        trained_gain_error=errors / (config.hidden * variance),
        gain=(("polytope", "inverse"), gains),
        crossing=("pair", [crossing(*pair, config.hidden) for pair in CROSSINGS]),
        four_simplex_gain=gain(FOUR_SIMPLEX, inverses[0], config.hidden),
    )
    pairs = [" to ".join(pair) for pair in CROSSINGS]
    results = results.assign_coords(inverse=inverses, polytope=list(POLYTOPES), pair=pairs)
    return results.assign_attrs(hidden=config.hidden)


def gain(polytope: polytopes.Polytope, inverse: float, hidden: int) -> float:
    """Return the gain per dimension at 1 / density = `inverse`; NaN without dimensions enough."""
    if len(polytope.vertices) > hidden:
        return np.nan
    return polytopes.arrangement(polytope, 1 / inverse).gain


def crossing(first: str, second: str, hidden: int) -> float:
    """Return the 1 / density at which two polytopes gain equally much; NaN if one does not fit."""
    pair = POLYTOPES[first], POLYTOPES[second]
    if max(len(polytope.vertices) for polytope in pair) > hidden:
        return np.nan
    low, high = CROSSINGS[first, second]
    return 1 / polytopes.crossing(*pair, between=(1 / high, 1 / low))


def shares(results: xr.Dataset) -> xr.DataArray:
    """Return the share of the hidden dimensions held by features with the D_i of a polytope."""
    each = results.dimensionality
    fractions = [np.divide(*polytope.vertices.shape) for polytope in POLYTOPES.values()]
    fraction = xr.DataArray(fractions, coords={"polytope": list(POLYTOPES)})
    close = abs(each - fraction) < 0.0125  # half of the way from 2/5 to 3/8
    return each.where(close, 0).sum("feature") / results.attrs["hidden"]


def claims(results: xr.Dataset) -> tm.Claims:
    inverse = 1 / results.density
    best = results.gain.max("polytope").values[::2]
    lead = results.trained_gain - xr.DataArray(best, dims="density")
    held = shares(results).mean("seed")
    middle = ((held * inverse).sum("density") / held.sum("density")).values
    crosses = results.crossing

    def between(values: xr.DataArray, low: float, high: float) -> xr.DataArray:
        return values.where((inverse >= low) & (inverse <= high), drop=True)

    says = "Tetrahedra and triangles gain equally much per dimension where the paper's figure "
    says += "changes from tetrahedra to triangles."
    source = tm.paper(f"{FIGURE}: D = 3/4 at 1.15 to 1.5, D = 2/3 at 1.53 to 1.93")
    note = "In theory triangles gain more from 1.25 on, by less than 0.2 % of the gain up to 1.5. "
    note += "Training learns slowest there, and rests at tetrahedra."
    found = crosses.sel(pair="tetrahedron to triangle")
    yield tm.near(says, 1.515, found, source, within=0.05, threshold=READING, note=note)

    for first, second, expected in (
        ("triangle", "digon", 1.55),
        ("digon", "pentagon", 4.45),
        ("digon", "square antiprism", 4.57),
        ("pentagon", "square antiprism", 4.91),
    ):
        says = f"The {first} and the {second} gain equally much per dimension at the 1/density "
        says += "that other code found."
        found = crosses.sel(pair=f"{first} to {second}")
        yield tm.near(says, expected, found, SAMPLED, within=0.02, threshold=TABLE)

    says = "Pentagons begin to gain more per dimension than digons where the paper's digons end."
    found, source = crosses.sel(pair="digon to pentagon"), tm.paper(f"{FIGURE}: D = 1/2 up to 4.3")
    yield tm.near(says, 4.3, found, source, within=0.2, threshold=READING)

    says = "Digons gain more per dimension than triangles from before the paper's first digons on."
    found, source = crosses.sel(pair="triangle to digon"), tm.paper(f"{FIGURE}: D = 1/2 from 1.68")
    yield tm.at_most(says, 1.68, found, source)

    says = "At 1/density = 1.04 five vertices in four dimensions gain more than a tetrahedron."
    found = results.four_simplex_gain - results.gain.sel(polytope="tetrahedron").isel(inverse=0)
    yield tm.at_least(says, 0, found, tm.finding("Exact loss"))

    says = "Digons hold nearly all dimensions of trained models at every 1/density from 2.3 to 3.5."
    share = between(held.sel(polytope="digon"), 2.3, 3.5).min()
    source = tm.prediction("Digons gain most per dimension")
    yield tm.at_least(says, 0.95, share, source, threshold=TWENTY)

    says = "Trained models gain as much as the best polytope at 1/density from 2.3 to 3.5."
    source, furthest = tm.prediction("Losses of a direct sum add up"), abs(between(lead, 2.3, 3.5))
    yield tm.near(says, 0, furthest.max(), source, within=0.002, threshold=ERRORS)

    says = "Trained tetrahedra, triangles, digons, pentagons and antiprisms come in this order: "
    says += "each mean 1/density, weighted by the share of dimensions, is above the one before."
    ratio, source = (middle[2:] / middle[1:-1]).min(), tm.prediction("The order in which they win")
    yield tm.at_least(says, 1, ratio, source, slack=0.05, threshold=SPACING)

    says = "No trained model gains more than the best polytope at 1/density up to 5.2."
    source = tm.paper(f"{FIGURE}: D gathers at fractions up to 5.2")
    largest = between(lead, 1.0, 5.2).max()
    yield tm.at_most(says, 0, largest, source, slack=0.002, threshold=ERRORS)

    says = "The better trained seed gains nearly as much as the best polytope at 1/density up to "
    says += "5.2."
    source = tm.finding("This figure; the gap is largest for D near 0.45, from digon to pentagon")
    gap = -between(lead, 1.0, 5.2).max("seed").min()
    yield tm.at_most(says, 0, gap, source, slack=0.02, threshold=PERCENT)

    says = "Every trained model gains more than the best polytope at the largest 1/density."
    source = tm.finding("This figure; D falls below 3/8 without a fraction to rest at")
    yield tm.at_least(says, 0, lead.isel(density=-1).min(), source)

    says = "The largest standard error of the gain of a trained model is small."
    source, error = tm.prediction("Randomized quasi-Monte Carlo"), results.trained_gain_error.max()
    yield tm.near(says, 0, error, source, within=0.002, threshold=NEEDED)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, ((dense, sparse), (whole, held)) = plotting.figure(2, 2, size=(9, 6.6))
    across = results.inverse.values
    trained = results.trained_gain.transpose("seed", "density")
    places = np.broadcast_to(1 / results.density, trained.shape)
    best, last = results.gain.max("polytope"), max(across[-1], 4)
    for axes, xlim, ylim, title in (
        (dense, (1, 1.75), (0.997, 1.1), "dense: tetrahedra, then triangles, win"),
        (sparse, (3.4, last), (1.55, 2.17), "sparse: pentagons, then antiprisms, win"),
        (whole, (1, across[-1]), (0.97, 2.3), "all: training follows the best polytope"),
    ):
        for name in POLYTOPES:
            line = results.gain.sel(polytope=name)
            axes.plot(across, line, DASHES[name], color=COLORS[name], label=name)
        axes.plot(across, best, color="0.5", lw=6, alpha=0.3, zorder=0, label="the best")
        label = f"trained, {results.sizes['seed']} seeds"
        axes.plot(np.ravel(places), np.ravel(trained), "k.", markersize=4, label=label)
        for place in results.crossing.values:
            axes.axvline(place, color="0.7", linewidth=0.6, linestyle=":", zorder=0)
        axes.set(xlabel=plotting.INVERSE_DENSITY, xlim=xlim, ylim=ylim, title=title)
        axes.set_ylabel("gain $G$: variance explained\nper hidden dimension")
    whole.legend(loc="upper left", ncols=2)

    edges = [across[0], *np.sqrt(across[1:] * across[:-1]), across[-1]]
    winners = results.polytope.values[results.gain.argmax("polytope")]
    winners = list(zip(winners, edges[:-1], edges[1:], strict=True))
    mean = shares(results).mean("seed").rename(polytope="shape")
    plotting.shape_shares(held, mean, winners=winners, colors=COLORS)
    held.get_legend().remove()  # the panel beside it names the colours
    held.set(ylabel="share of hidden dimensions", title="what training finds (mean of the seeds)")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
