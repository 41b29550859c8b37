r"""One active feature: the loss as a generalised Thomson problem, and its minimisers.

Claim      The loss of a toy model is a sum over the sets of active features, so that of sparse
           features is that of none and of one. With features of length 1 and no bias the latter is
           a Thomson problem: points on a sphere repel where they overlap. Up to n = 2m they need
           not overlap at all; in three dimensions the minimisers of 6 to 10 features are the
           polyhedra of electric charges, of more they share directions. A bias and free lengths
           turn this into another problem of points on a sphere, to keep them apart (Tammes).
Reproduces Elhage et al. (2022), "Mathematical Understanding", which has equations and no figure.
Selection  The lowest of all starts; how many of them end there is a claim.
Settings   Ours, for the paper states none: BFGS from random points on the sphere. A polyhedron is
           named by how many edges meet at its vertices, those of one direction taken for one.
Not shown  That a linear model represents at most m features is a claim here, without a panel.
Command    toymodels run experiments/thomson.py
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import frames

WORK = "Elhage et al. (2022), Mathematical Understanding"
PAPER = tm.paper(WORK)
SEPARATED = "Tammes problem: Fejes Tóth (1943), Schütte and van der Waerden (1951), Danzer (1986)"
RANKIN = tm.prediction("At most 2m vectors have no positive overlap: Rankin (1955)")
CLOSED_FORM = tm.prediction("Closed form")
FOUND = tm.finding("This figure")
CONVERGENCE = "Ours, because descents stop, and numbers are rounded."

# Of 2 to 12 charges on a unit sphere, as tabulated.
_TABULATED = """
0.5 1.732050808 3.674234614 6.474691495 9.985281374 14.452977414 19.675287861 25.759986531
32.716949460 40.596450510 49.165253058
"""
CHARGE_ENERGIES = dict(enumerate(map(float, _TABULATED.split()), 2))
# Greatest angle at which so many points on a sphere can all be apart, in degrees.
SEPARATIONS = {7: 77.86954, 8: 74.85849, 9: 70.52878, 10: 66.14682, 11: 63.43495, 12: 63.43495}
# Vertices by the number of their edges.
SOLIDS = {
    "3^4": "tetrahedron",
    "3^2 4^3": "triangular bipyramid",
    "4^6": "octahedron",
    "4^5 5^2": "pentagonal bipyramid",
    "3^1 4^3 5^3": "capped octahedron",
    "4^8": "square antiprism",
    "4^3 5^6": "tricapped prism",
    "4^2 5^8": "bicapped antiprism",
    "4^2 5^8 6^1": "contracted icosahedron",
    "4^5 5^6": "icosahedron less one",
    "5^12": "icosahedron",
}
PLANE, RECTIFIED, ELECTRIC, BIASED = "plane", "rectified", "electric", "biased"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: tuple[int, ...] = (4, 5, 6, 7, 8, 9, 10, 11, 12)
    """Points on the sphere; at least 4."""
    num_starts: int = 80
    num_models: int = 5
    """Random ones, for the sum over sets of active features."""
    model_shape: tuple[int, int] = (2, 6)
    """Their hidden dimensions and features."""
    densities: tuple[float, float, int] = (1e-4, 1.0, 13)
    """Least, greatest, and how many, evenly in the logarithm."""


SMOKE = Config(num_features=(4, 5, 7), num_starts=3, num_models=2, model_shape=(2, 3))


Gram = Float[np.ndarray, "features features"]
Points = Float[np.ndarray, "hidden features"]
Vector = Float[np.ndarray, " features"]
Potential = Callable[[Gram], tuple[float, Gram]]


def rectified(gram: Gram) -> tuple[float, Gram]:
    r"""$\sum_{i \ne j} \int_0^1 \mathrm{ReLU}(G_{ij} x)^2 dx$, and its slope in every $G_{ij}$."""
    overlap = np.maximum(gram, 0) * (1 - np.eye(len(gram)))
    return float((overlap**2).sum() / 3), 2 * overlap / 3


def electric(gram: Gram) -> tuple[float, Gram]:
    r"""$\sum_{i < j} 1 / \lVert W_i - W_j \rVert$ of unit vectors, and its slope."""
    others = 1 - np.eye(len(gram))
    inverse = others / np.sqrt(2 - 2 * gram * others)
    return float(inverse.sum() / 2), inverse**3 / 2


def one_active(gram: Gram, bias: Vector) -> tuple[float, Gram, Vector]:
    r"""$n H$ of `toymodels.theory.expected_loss_one_active` from $G = W^\top W$, and its slopes.

    Where the preactivation $G_{ij} x + b_i$ is positive it is linear, so moments of $x$ over that
    part of $[0, 1]$ are all there is.
    """
    itself, bias = np.eye(len(gram)), np.broadcast_to(bias[:, None], gram.shape)
    kink = np.clip(-bias / np.where(gram == 0, 1.0, gram), 0, 1)
    low = np.where(gram > 0, kink, 0.0)
    high = np.select([gram > 0, gram < 0], [1.0, kink], np.where(bias > 0, 1.0, 0.0))
    length, first, second = ((high**k - low**k) / k for k in (1, 2, 3))
    product, output = gram * second + bias * first, gram * first + bias * length
    loss = (gram * product + bias * output - 2 * itself * product).sum() + len(gram) / 3
    slopes = 2 * product - 2 * itself * second
    return float(loss), slopes, 2 * (output - itself * first).sum(axis=1)


def on_sphere(potential: Potential, start: Points) -> tuple[float, Points]:
    """Return the minimum below a start over unit vectors, and these vectors."""

    def value(flat):
        free = flat.reshape(start.shape)
        lengths = np.linalg.norm(free, axis=0)
        unit = free / lengths
        energy, slopes = potential(unit.T @ unit)
        slopes = unit @ (slopes + slopes.T)
        return energy, ((slopes - unit * (slopes * unit).sum(axis=0)) / lengths).ravel()

    found = optimize.minimize(value, start.ravel(), jac=True, method="BFGS", options=PRECISE)
    free = found.x.reshape(start.shape)
    return float(found.fun), free / np.linalg.norm(free, axis=0)


PRECISE = {"gtol": 1e-9, "maxiter": 3000}


def with_bias(start: Points) -> tuple[float, Points]:
    """Return the minimum of one active feature below a start, and the weights there."""
    size = start.size

    def value(flat):
        weights = flat[:size].reshape(start.shape)
        loss, slopes, bias_slopes = one_active(weights.T @ weights, flat[size:])
        return loss, np.concatenate([(weights @ (slopes + slopes.T)).ravel(), bias_slopes])

    # A little longer than 1, with a bias against small overlaps: few features are lost.
    unit = start / np.linalg.norm(start, axis=0)
    begin = np.concatenate([1.2 * unit.ravel(), np.full(start.shape[1], -0.3)])
    found = optimize.minimize(value, begin, jac=True, method="BFGS", options=PRECISE)
    return float(found.fun), found.x[:size].reshape(start.shape)


PROBLEMS: dict[str, tuple[int, Callable[[Points], tuple[float, Points]]]] = {
    PLANE: (2, lambda start: on_sphere(rectified, start)),
    RECTIFIED: (3, lambda start: on_sphere(rectified, start)),
    ELECTRIC: (3, lambda start: on_sphere(electric, start)),
    BIASED: (3, with_bias),
}


def search(config: Config) -> dict[str, tuple]:
    """Solve every problem from every start: all energies, and the weights of the lowest."""
    shape = (len(PROBLEMS), len(config.num_features))
    energy = np.empty((*shape, config.num_starts))
    weights = np.full((*shape, 3, max(config.num_features)), np.nan)
    for place in np.ndindex(shape):
        hidden, descend = list(PROBLEMS.values())[place[0]]
        count = config.num_features[place[1]]
        rng = np.random.default_rng(count)
        ends = [descend(rng.normal(size=(hidden, count))) for _ in range(config.num_starts)]
        energy[place] = [end[0] for end in ends]
        weights[place][:, :count] = 0.0  # the plane has no third axis
        weights[place][:hidden, :count] = ends[int(energy[place].argmin())][1]
    dims = ("problem", "num_features")
    return {
        "energy": ((*dims, "start"), energy),
        "weights": ((*dims, "axis", "feature"), weights),
    }


def decompose(config: Config) -> dict[str, tuple]:
    """Return the exact loss of random models, as a sum over sets of active features, too."""
    hidden, count = config.model_shape
    active = np.array(list(itertools.product((0.0, 1.0), repeat=count)))
    number = active.sum(axis=1)
    p = np.geomspace(*config.densities)[:, None]
    chances = p**number * (1 - p) ** (count - number)
    rng, exact = np.random.default_rng(0), tm.theory.expected_loss
    losses, sums, leading, by_number = [], [], [], []
    for _ in range(config.num_models):
        weights = rng.normal(size=(hidden, count)) / hidden**0.5
        bias = rng.normal(scale=0.2, size=count)
        of_set = np.array([exact(weights, bias, which) for which in active])
        silent = np.sum(np.maximum(bias, 0) ** 2)
        single = count * tm.theory.expected_loss_one_active(weights, bias)
        losses.append([exact(weights, bias, density) for density in p[:, 0]])
        sums.append(chances @ of_set)
        leading.append(((1 - p) ** count * silent + p * (1 - p) ** (count - 1) * single)[:, 0])
        by_number.append([silent - of_set[number == 0].sum(), single - of_set[number == 1].sum()])
    dims = ("model", "density")
    return {
        "loss": (dims, np.array(losses)),
        "sum_over_sets": (dims, np.array(sums)),
        "leading": (dims, np.array(leading)),
        "few_active": (("model", "active"), np.array(by_number)),
        "density": ("density", p[:, 0]),
    }


def linear_features(config: Config) -> Float[np.ndarray, " models"]:
    """Return the squared Frobenius norm of the best weights of linear models."""
    hidden, count = config.model_shape
    slopes = jax.jit(jax.value_and_grad(tm.theory.expected_loss_linear, (0, 1)))
    rng = np.random.default_rng(1)

    def squared_norm() -> float:
        density, importance = rng.uniform(0.05, 1), rng.uniform(0.2, 1, count)

        def value(flat):
            with jax.enable_x64(True):
                weights, bias = flat[count:].reshape(hidden, count), flat[:count]
                loss, (down, across) = slopes(weights, bias, density, importance)
                return float(loss), np.concatenate([across, np.ravel(down)])

        start = 0.5 * rng.normal(size=(hidden + 1) * count)
        found = optimize.minimize(value, start, jac=True, method="BFGS", options=PRECISE)
        return float(np.sum(found.x[count:] ** 2))

    return np.array([squared_norm() for _ in range(config.num_models)])


def run(config: Config) -> xr.Dataset:
    results = xr.Dataset(search(config) | decompose(config))
    results = results.assign(linear_features=("model", linear_features(config)))
    results["energy"].attrs["units"] = "summed over outputs and over which feature is active"
    return results.assign_coords(
        problem=list(PROBLEMS), num_features=list(config.num_features)
    ).assign_attrs(linear_hidden=config.model_shape[0])


def points(results: xr.Dataset, problem: str, count: int) -> Points:
    """Return the directions of the best weights, one per column."""
    weights = results["weights"].sel(problem=problem, num_features=count)
    weights = weights.transpose("axis", "feature").values[:, :count]
    return weights / np.linalg.norm(weights, axis=0)


def sites(directions: Points) -> tuple[Points, Float[np.ndarray, " sites"]]:
    """Return the distinct directions, and how many features share each."""
    alike = directions.T @ directions > 1 - 1e-6
    first = np.flatnonzero(alike.argmax(axis=0) == np.arange(len(alike)))
    return directions[:, first], alike[first].sum(axis=1)


def solid(directions: Points) -> str:
    """Return the name of a polyhedron, or its vertices by the number of their edges."""
    ends = np.ravel(plotting.hull_edges(sites(directions)[0]))
    degrees, counts = np.unique(np.unique(ends, return_counts=True)[1], return_counts=True)
    code = " ".join(f"{degree}^{count}" for degree, count in zip(degrees, counts, strict=True))
    return SOLIDS.get(code, code)


def polygon_energy(count: int) -> float:
    """Return the rectified energy of a regular polygon."""
    vertices = frames.regular_polygon(count)
    return rectified(vertices.T @ vertices)[0]


def greatest_overlap(directions: Points) -> float:
    return float((directions.T @ directions - 2 * np.eye(directions.shape[1])).max())


def cross_polytope_residual(directions: Points) -> float:
    """Return the largest distance of an overlap from -1, once for each dimension, or 0."""
    hidden = directions.shape[1] // 2
    overlaps = np.sort((directions.T @ directions)[np.triu_indices(2 * hidden, 1)])
    return float(abs(overlaps + (np.arange(overlaps.size) < hidden)).max())


def antiprism_energy() -> float:
    """Return the energy of the best square antiprism."""
    # Squares of radius r overlap by 1 - r^2 with themselves.
    across = 1 + 0.5**0.5  # two neighbours in the other square overlap by this times r^2, less 1
    best = (1 + across) / (1 + across**2)
    return 16 / 3 * ((1 - best) ** 2 + (best * across - 1) ** 2)


def claims(results: xr.Dataset) -> Iterator[tm.Claim]:
    every = results.num_features.values.tolist()
    found = {
        problem: {count: points(results, problem, count) for count in every} for problem in PROBLEMS
    }
    lowest = results.energy.min("start")

    def zero(says: str, values, source: tm.Source, within: float, why: str = CONVERGENCE):
        largest = np.max(np.asarray(values)) if np.size(values) else np.nan
        return tm.near(says, 0, largest, source, within=within, threshold=why)

    says = "The loss of random models is the sum over all sets of active features."
    source = tm.identity(f"{WORK}: the sum over the number of active features")
    yield zero(says, abs(results.loss - results.sum_over_sets), source, 1e-14)

    says = (
        "The first two terms of the loss of random models are those of none and of one active "
        "feature."
    )
    source = tm.identity(f"{WORK}, and toymodels.theory.expected_loss_one_active")
    yield zero(says, abs(results.few_active), source, 1e-14)

    says = (
        "The loss of random models without its first two terms is of second order in the density, "
        "by the smallest exponent."
    )
    rest = abs(results.loss - results.leading).isel(density=slice(2)).values
    orders = np.diff(np.log(rest)) / np.diff(np.log(results.density.values[:2]))
    source, threshold = tm.identity(WORK), "Ours, because there are terms of higher order."
    yield tm.near(says, 2, orders.min(), source, within=0.01, threshold=threshold)

    says = "The squared norm of W of optimal linear models is m: they represent m features."
    source = tm.prediction(f"{WORK}: never more features than dimensions")
    yield zero(says, abs(results.linear_features - results.attrs["linear_hidden"]), source, 1e-6)

    limits = ((PLANE, 4), (RECTIFIED, 6), (BIASED, 6))
    says = "Up to 2m features in m dimensions have no energy in the minimum, by the largest one."
    energies = [
        lowest.sel(problem=problem, num_features=count)
        for problem, limit in limits
        for count in every
        if count <= limit
    ]
    yield zero(says, energies, RANKIN, 1e-12)  # of energies near 1

    says = "2m features in m dimensions are a cross-polytope in the minimum: cosines are -1 or 0."
    residuals = [cross_polytope_residual(found[problem][n]) for problem, n in limits if n in every]
    yield zero(says, residuals, RANKIN, 1e-6)

    twice = (10 + 40 * np.cos(2 * np.pi / 5) ** 2) / 3
    for solution, problem, count, energy in (
        ("a pentagon", PLANE, 5, polygon_energy(5)),
        ("a hexagon", PLANE, 6, 1.0),
        ("a pentagon, twice", PLANE, 10, twice),
        ("a pentagon and a digon", RECTIFIED, 7, polygon_energy(5)),
        ("a square antiprism", RECTIFIED, 8, antiprism_energy()),
        ("a tricapped prism", RECTIFIED, 9, 21 / 17),
    ):
        space = f"{PROBLEMS[problem][0]} dimensions"
        says = f"The lowest energy of {count} features in {space} is that of {solution}."
        at = lowest.sel(problem=problem, num_features=count) if count in every else np.nan
        threshold = "Ours, because descents stop."
        yield tm.near(says, energy, at, CLOSED_FORM, within=1e-9, threshold=threshold)

    for says, problem, more_than, number in (
        ("More than six features in a plane share five directions at most.", PLANE, 6, 5),
        ("11 and 12 features in three dimensions share nine directions.", RECTIFIED, 10, 9),
    ):
        shared = [len(sites(each)[1]) for n, each in found[problem].items() if n > more_than]
        yield tm.near(says, number, max(shared, default=np.nan), FOUND, within=0)

    says = (
        "The minimisers for 6 to 10 features in three dimensions are the polyhedra of electric "
        "charges, by the number of them."
    )
    source = tm.paper(f"{WORK}: a generalised Thomson problem")
    shared = [
        solid(found[RECTIFIED][n]) == solid(found[ELECTRIC][n]) for n in range(6, 11) if n in every
    ]
    yield tm.near(says, 5, sum(shared), source, within=0)

    says = "The lowest energies of electric charges are those of the tables."
    source = tm.prediction("Thomson problem: tabulated energies")
    gaps = [abs(lowest.sel(problem=ELECTRIC, num_features=n) - CHARGE_ENERGIES[n]) for n in every]
    yield zero(says, gaps, source, 5e-9)

    says = (
        "The minimisers with bias and free lengths for 7, 8, 9, 11 and 12 features are the "
        "polyhedra that keep points apart, by the number of them."
    )
    expected = {
        7: "capped octahedron",
        8: "square antiprism",
        9: "tricapped prism",
        11: "icosahedron less one",
        12: "icosahedron",
    }
    hits = sum(solid(found[BIASED][n]) == name for n, name in expected.items() if n in every)
    yield tm.near(says, len(expected), hits, tm.paper(SEPARATED), within=0)

    least = {n: np.cos(np.deg2rad(angle)) for n, angle in SEPARATIONS.items() if n in every}
    excess = [greatest_overlap(found[BIASED][n]) - overlap for n, overlap in least.items()]
    says = "The greatest cosine with bias and free lengths is near the smallest that is possible."
    why = "Ours, because both problems agree only in the limit of strong repulsion."
    yield zero(says, excess, tm.prediction(SEPARATED), 0.04, why)

    says = (
        "The greatest cosine with bias and free lengths is never below the smallest possible one."
    )
    smallest, source = min(excess, default=np.nan), tm.identity(SEPARATED)
    yield tm.at_least(says, 0, smallest, source, slack=1e-6, threshold="Ours: descents stop.")

    says = (
        f"At least three of {results.sizes['start']} starts find the lowest minimum of any problem."
    )
    reached = (results.energy < lowest + 1e-8).sum("start").min()
    yield tm.at_least(says, 3, reached, FOUND, threshold="Ours, because once could be chance.")


ROWS = {
    PLANE: "in a plane,\nlength 1, no bias",
    RECTIFIED: "in space,\nlength 1, no bias",
    ELECTRIC: "in space,\nelectric charges",
    BIASED: "in space, with bias\nand free length",
}


def name_of(results: xr.Dataset, problem: str, count: int) -> str:
    """Return the name of a solution as a title in two lines."""
    if problem == PLANE:
        return f"n = {count}"
    if problem != ELECTRIC and count < 6:
        return "one of many"
    name = solid(points(results, problem, count))
    return "no name" if "^" in name else name.replace(" ", "\n", 1)


def plot(results: xr.Dataset) -> Figure:
    every = results.num_features.values.tolist()
    counts = [count for count in every if count > 4]  # fewer need not overlap at all
    shown = counts[-5:]
    figure, parts = plotting.figure_of_parts(2, 1, size=(7.6, 7.6), height_ratios=(2.6, 1))
    grid = parts[0].subplots(len(ROWS), len(shown), squeeze=False)
    for row, (problem, label) in zip(grid, ROWS.items(), strict=True):
        for axes, count in zip(row, shown, strict=True):
            plotting.polytope(axes, points(results, problem, count), limit=1.5)
            for artist in (*axes.lines, *axes.collections):  # or else the file is large
                artist.set(antialiased=False, rasterized=True)

            axes.set_title(name_of(results, problem, count), fontsize=7, pad=2)
        row[0].set_ylabel(label, fontsize=8)
    energies, overlaps, losses = parts[1].subplots(1, 3)
    draw_energies(energies, results)
    draw_overlaps(overlaps, results, counts)
    draw_losses(losses, results)
    return figure


def draw_energies(axes: Axes, results: xr.Dataset) -> None:
    lowest = results.energy.min("start")
    for problem, label, style in ((PLANE, "plane", "o-"), (RECTIFIED, "space", "s-")):
        axes.plot(lowest.num_features, lowest.sel(problem=problem), style, ms=4, label=label)
    polygons = [polygon_energy(count) for count in lowest.num_features.values]
    axes.plot(lowest.num_features, polygons, "x:", color="0.5", label="regular polygon")
    axes.set(xlabel="features n", ylabel="energy, length 1, no bias")
    axes.set_title("no energy up to n = 2m")
    axes.legend()


def draw_overlaps(axes: Axes, results: xr.Dataset, counts: list[int]) -> None:
    for problem, label, style in (
        (RECTIFIED, "length 1, no bias", "o-"),
        (ELECTRIC, "electric charges", "^-"),
        (BIASED, "with bias, free length", "s-"),
    ):
        greatest = [greatest_overlap(points(results, problem, count)) for count in counts]
        axes.plot(counts, greatest, style, ms=4, label=label)
    far = np.cos(np.deg2rad(list(SEPARATIONS.values())))
    axes.plot(list(SEPARATIONS), far, "k_", ms=14, label="smallest possible (Tammes)")
    axes.set(xlabel="features n", ylabel="greatest cosine", ylim=(-0.05, 1.5))
    axes.set_title("a bias keeps features apart")
    axes.legend(fontsize=7)


def draw_losses(axes: Axes, results: xr.Dataset) -> None:
    rest = abs(results.loss - results.leading) / results.loss
    axes.loglog(results.density, rest.transpose("density", "model"), ".-", color="C0", ms=4)
    noise = abs(results.loss - results.sum_over_sets).max("model") / results.loss.min("model")
    axes.loglog(results.density, np.maximum(noise, 1e-17), ".-", color="C1", ms=4)
    axes.loglog([], [], color="C0", label="none and one active feature")
    axes.loglog([], [], color="C1", label="all sets of active features")
    axes.set(xlabel=plotting.DENSITY, ylabel="|loss - sum| / loss")
    axes.set_title(f"loss as a sum, {results.sizes['model']} models")
    axes.legend(fontsize=7)


if __name__ == "__main__":
    experiment.main(__file__)
