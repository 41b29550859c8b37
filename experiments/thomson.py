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
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import optimize
from scipy.spatial import ConvexHull

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import frames

SOURCE = "Elhage et al. (2022), Mathematical Understanding"
CHARGES = "Thomson problem: tabulated energies"
SEPARATED = "Tammes problem: Fejes Tóth (1943), Schütte and van der Waerden (1951), Danzer (1986)"
ZERO = "at most 2m vectors have no positive overlap: Rankin (1955)"

# Of 2 to 12 charges on a unit sphere, as tabulated.
CHARGE_ENERGIES = dict(enumerate(
    (0.5, 1.732050808, 3.674234614, 6.474691495, 9.985281374, 14.452977414, 19.675287861,
     25.759986531, 32.716949460, 40.596450510, 49.165253058), 2,
))  # fmt: skip
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
    """What the figure depends on, and nothing else."""

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


def rectified(gram: Any) -> tuple[float, Any]:
    r"""$\sum_{i \ne j} \int_0^1 \mathrm{ReLU}(G_{ij} x)^2 dx$, and its slope in every $G_{ij}$."""
    overlap = np.maximum(gram, 0) * (1 - np.eye(len(gram)))
    return float((overlap**2).sum() / 3), 2 * overlap / 3


def electric(gram: Any) -> tuple[float, Any]:
    r"""$\sum_{i < j} 1 / \lVert W_i - W_j \rVert$ of unit vectors, and its slope."""
    others = 1 - np.eye(len(gram))
    inverse = others / np.sqrt(2 - 2 * gram * others)
    return float(inverse.sum() / 2), inverse**3 / 2


def one_active(gram: Any, bias: Any) -> tuple[float, Any, Any]:
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


def on_sphere(potential: Callable[[Any], tuple[float, Any]], start: Any) -> tuple[float, Any]:
    """The minimum below a start, over unit vectors, and they."""

    def value(flat: Any) -> tuple[float, Any]:
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


def with_bias(start: Any) -> tuple[float, Any]:
    """The same of one active feature, over weights and biases; gives the weights."""
    size = start.size

    def value(flat: Any) -> tuple[float, Any]:
        weights = flat[:size].reshape(start.shape)
        loss, slopes, bias_slopes = one_active(weights.T @ weights, flat[size:])
        return loss, np.concatenate([(weights @ (slopes + slopes.T)).ravel(), bias_slopes])

    # A little longer than 1, with a bias against small overlaps: few features are lost.
    unit = start / np.linalg.norm(start, axis=0)
    begin = np.concatenate([1.2 * unit.ravel(), np.full(start.shape[1], -0.3)])
    found = optimize.minimize(value, begin, jac=True, method="BFGS", options=PRECISE)
    return float(found.fun), found.x[:size].reshape(start.shape)


PROBLEMS: dict[str, tuple[int, Callable[[Any], tuple[float, Any]]]] = {
    PLANE: (2, lambda start: on_sphere(rectified, start)),
    RECTIFIED: (3, lambda start: on_sphere(rectified, start)),
    ELECTRIC: (3, lambda start: on_sphere(electric, start)),
    BIASED: (3, with_bias),
}


def search(config: Config) -> dict[str, Any]:
    """Every problem from every start: all energies, and the weights of the lowest."""
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


def decompose(config: Config) -> dict[str, Any]:
    """The exact loss of random models, its sum over sets of active features, its sparse part."""
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
        "density": p[:, 0],
    }


def linear_features(config: Config) -> Any:
    """The squared Frobenius norm of optimal weights of linear models, importances at random."""
    hidden, count = config.model_shape
    slopes = jax.jit(jax.value_and_grad(tm.theory.expected_loss_linear, (0, 1)))
    rng = np.random.default_rng(1)

    def squared_norm() -> float:
        density, importance = rng.uniform(0.05, 1), rng.uniform(0.2, 1, count)

        def value(flat: Any) -> tuple[float, Any]:
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


def points(results: xr.Dataset, problem: str, count: int) -> Any:
    """Directions of the best weights, one per column."""
    weights = results["weights"].sel(problem=problem, num_features=count)
    weights = weights.transpose("axis", "feature").values[:, :count]
    return weights / np.linalg.norm(weights, axis=0)


def sites(directions: Any) -> tuple[Any, Any]:
    """Distinct directions, and how many features share each."""
    alike = directions.T @ directions > 1 - 1e-6
    first = np.flatnonzero(alike.argmax(axis=0) == np.arange(len(alike)))
    return directions[:, first], alike[first].sum(axis=1)


def edges(vertices: Any) -> list[tuple[int, int]]:
    """Of the convex hull, without those inside of flat faces."""
    hull = ConvexHull(vertices.T)
    found: set[tuple[int, int]] = set()
    for face, others, normal in zip(
        hull.simplices, hull.neighbors, hull.equations[:, :3], strict=True
    ):
        for opposite, other in enumerate(others):  # the neighbour across from each corner
            if normal @ hull.equations[other, :3] < 1 - 1e-6:
                low, high = sorted(np.delete(face, opposite).tolist())
                found.add((low, high))
    return sorted(found)


def solid(directions: Any) -> str:
    """Name of a polyhedron, or its vertices by the number of their edges."""
    ends = np.ravel(edges(sites(directions)[0]))
    degrees, counts = np.unique(np.unique(ends, return_counts=True)[1], return_counts=True)
    code = " ".join(f"{degree}^{count}" for degree, count in zip(degrees, counts, strict=True))
    return SOLIDS.get(code, code)


def polygon_energy(count: int) -> float:
    """Of a regular polygon."""
    vertices = frames.regular_polygon(count)
    return rectified(vertices.T @ vertices)[0]


def greatest_overlap(directions: Any) -> float:
    return float((directions.T @ directions - 2 * np.eye(directions.shape[1])).max())


def cross_polytope_residual(directions: Any) -> float:
    """Largest distance of an overlap from -1, once for each dimension, or 0."""
    hidden = directions.shape[1] // 2
    overlaps = np.sort((directions.T @ directions)[np.triu_indices(2 * hidden, 1)])
    return float(abs(overlaps + (np.arange(overlaps.size) < hidden)).max())


def antiprism_energy() -> float:
    r"""Of the best square antiprism: squares of radius $r$ overlap by $1 - r^2$ with themselves."""
    across = 1 + 0.5**0.5  # two neighbours in the other square overlap by this times r^2, less 1
    best = (1 + across) / (1 + across**2)
    return 16 / 3 * ((1 - best) ** 2 + (best * across - 1) ** 2)


def claims(results: xr.Dataset) -> list[tm.Claim]:
    every = results.num_features.values.tolist()
    found = {
        problem: {count: points(results, problem, count) for count in every} for problem in PROBLEMS
    }
    names = {
        problem: {count: solid(each) for count, each in found[problem].items()}
        for problem in (RECTIFIED, ELECTRIC, BIASED)
    }
    lowest = results["energy"].min("start")
    energy = {problem: dict(zip(every, lowest.sel(problem=problem).values, strict=True))
              for problem in PROBLEMS}  # fmt: skip
    reached = (results["energy"] < lowest + 1e-8).sum("start")
    least = {n: np.cos(np.deg2rad(angle)) for n, angle in SEPARATIONS.items() if n in every}
    excess = [greatest_overlap(found[BIASED][n]) - overlap for n, overlap in least.items()]
    rest = abs(results["loss"] - results["leading"]).isel(density=slice(2)).values
    orders = np.diff(np.log(rest)) / np.diff(np.log(results.density.values[:2]))

    def zero(
        statement: str,
        source: str,
        measured: Any,
        tolerance: float,
        kind: tm.Kind = tm.Kind.PREDICTION,
        threshold: str = "ours: convergence of descents and rounding",
    ) -> tm.Claim:
        largest = np.max(np.asarray(measured)) if np.size(measured) else np.nan
        return tm.Claim(
            statement, source, 0.0, float(largest), tolerance, kind=kind, threshold=threshold
        )

    def closed(statement: str, problem: str, count: int, expected: Any) -> tm.Claim:
        of = f"energy of {count} features in {PROBLEMS[problem][0]} dimensions: "
        measured = energy[problem].get(count, np.nan)
        return tm.Claim(
            of + statement, "closed form", expected, measured, 1e-9,
            kind=tm.Kind.PREDICTION, threshold="ours: convergence of descents",
        )  # fmt: skip

    def distinct(statement: str, expected: int, problem: str, more_than: int) -> tm.Claim:
        counts = [len(sites(each)[1]) for n, each in found[problem].items() if n > more_than]
        return tm.Claim(
            statement, "this figure", expected, max(counts, default=np.nan), kind=tm.Kind.FINDING
        )

    def same(statement: str, source: str, problem: str, expected: dict[int, str]) -> tm.Claim:
        hits = sum(names[problem].get(n) == name for n, name in expected.items())
        return tm.Claim(
            f"{statement}: how many of {len(expected)}", source, len(expected), hits,
            kind=tm.Kind.PAPER,
        )  # fmt: skip

    return [
        zero(
            "the loss is the sum over all sets of active features: largest difference",
            f"{SOURCE}: the sum over the number of active features",
            abs(results["loss"] - results["sum_over_sets"]),
            1e-14,
            tm.Kind.IDENTITY,
        ),
        zero(
            "its first two terms are those of none and of one active feature: largest difference",
            f"{SOURCE}, and toymodels.theory.expected_loss_one_active",
            abs(results["few_active"]),
            1e-14,
            tm.Kind.IDENTITY,
        ),
        tm.Claim(
            "and the rest is of second order in the density: least exponent",
            SOURCE,
            expected=2.0,
            measured=orders.min(),
            tolerance=0.01,
            kind=tm.Kind.IDENTITY,
            threshold="ours: terms of higher order",
        ),
        zero(
            "a linear model represents m features: largest distance of the squared norm of W",
            f"{SOURCE}: never more features than dimensions",
            abs(results["linear_features"] - results.attrs["linear_hidden"]),
            1e-6,
        ),
        zero(
            "up to 2m features have no energy: largest",
            ZERO,
            [value for problem, most in ((PLANE, 4), (RECTIFIED, 6), (BIASED, 6))
             for count, value in energy[problem].items() if count <= most],
            1e-12,  # of energies near 1
        ),
        zero(
            "and 2m features are a cross-polytope: largest distance of an overlap from -1 or 0",
            ZERO,
            [cross_polytope_residual(found[problem][count]) for problem, count in
             ((PLANE, 4), (RECTIFIED, 6), (BIASED, 6)) if count in every],
            1e-6,
        ),
        closed("a pentagon", PLANE, 5, polygon_energy(5)),
        closed("a hexagon", PLANE, 6, 1.0),
        closed("a pentagon, twice", PLANE, 10, (10 + 40 * np.cos(2 * np.pi / 5) ** 2) / 3),
        closed("a pentagon and a digon", RECTIFIED, 7, polygon_energy(5)),
        closed("a square antiprism", RECTIFIED, 8, antiprism_energy()),
        closed("a tricapped prism", RECTIFIED, 9, 21 / 17),
        distinct("over 6 features in a plane share directions: most distinct ones", 5, PLANE, 6),
        distinct("11 and 12 in three dimensions do, too: most distinct ones", 9, RECTIFIED, 10),
        same(
            "from 6 to 10 features the minimisers are the polyhedra of charges",
            f"{SOURCE}: a generalised Thomson problem",
            RECTIFIED,
            {count: names[ELECTRIC].get(count, "") for count in range(6, 11)},
        ),
        zero(
            "energy of charges: largest distance from the tables",
            CHARGES,
            [abs(value - CHARGE_ENERGIES[count]) for count, value in energy[ELECTRIC].items()],
            5e-9,
        ),
        same(
            "with bias and free lengths they are the polyhedra that keep points apart",
            SEPARATED,
            BIASED,
            {7: "capped octahedron", 8: "square antiprism", 9: "tricapped prism",
             11: "icosahedron less one", 12: "icosahedron"},
        ),
        zero(
            "with overlaps near the least possible one: largest excess", SEPARATED, excess, 0.04,
            threshold="ours: the problems are the same only in the limit of strong repulsion",
        ),
        tm.Claim(
            "and never below it: least excess",
            SEPARATED,
            expected=0.0,
            measured=min(excess, default=np.nan),
            tolerance=1e-6,
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.IDENTITY,
            threshold="ours: convergence of descents",
        ),
        tm.Claim(
            f"the lowest minima are found again: fewest of {results.sizes['start']} starts",
            "this figure",
            expected=3,
            measured=int(reached.min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.FINDING,
            threshold="ours: once could be chance",
        ),
    ]  # fmt: skip


def upright(directions: Any) -> Any:
    """Turned for drawing: the axis that differs from the others points up, then tilted."""
    sizes, axes = np.linalg.eigh(directions @ directions.T)
    last = 2 if sizes[2] - sizes[1] >= sizes[1] - sizes[0] else 0
    up = axes[:, last] if np.ptp(sizes) > 1e-4 else directions[:, 0]
    side = np.linalg.svd(up[None])[2][1:]
    around = np.arctan2(*(side @ directions[:, np.argmin(np.abs(up @ directions))])[::-1]) + 0.4
    tilt = 0.35
    turned = np.array([[np.cos(around), np.sin(around)], [-np.sin(around), np.cos(around)]]) @ side
    x, y, z = np.vstack([turned, up]) @ directions
    return np.stack([x, np.cos(tilt) * z + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * z])


def draw(axes: Any, directions: Any) -> None:
    """Spokes in the plane, else the edges of the hull; those behind are paler."""
    flat = not directions[2].any()
    distinct, shared = sites(directions)
    x, y, depth = distinct if flat else upright(distinct)
    pairs = np.array([] if flat else edges(distinct), int).reshape(-1, 2)
    behind = depth[pairs].mean(axis=1) > 0
    for chosen, color in ((pairs[behind], "0.8"), (pairs[~behind], "0.3")):
        # One line with gaps: a figure of many lines is a large file.
        lines = np.insert(np.stack([x, y])[:, chosen], 2, np.nan, axis=2)
        axes.plot(*lines.reshape(2, -1), color=color, linewidth=0.7, antialiased=False)
    if flat:
        axes.plot([0 * x, x], [0 * y, y], color="C0", linewidth=1)
    axes.scatter(x, y, s=8, c=["C3" if number > 1 else "C0" for number in shared], zorder=3)
    for number, across, along in zip(shared, x, y, strict=True):
        if number > 1:
            axes.text(
                1.3 * across, 1.3 * along, number, color="C3", ha="center", va="center", fontsize=7
            )
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=(), yticks=())
    axes.set_facecolor(plotting.BACKGROUND)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


ROWS = {
    PLANE: "2-D, length 1, no bias",
    RECTIFIED: "3-D, length 1, no bias",
    ELECTRIC: "3-D, charges (tables)",
    BIASED: "3-D, bias, free length",
}


def title(results: xr.Dataset, problem: str, count: int) -> str:
    energy = float(results["energy"].sel(problem=problem, num_features=count).min())
    number = f"{max(energy, 0):.4f}"
    if problem == PLANE:
        return f"n = {count}\n{number}"
    if problem == ELECTRIC:
        number = f"{energy:.3f} ({CHARGE_ENERGIES[count]:.3f})"
    elif count < 6:
        return f"{number}\none of many"
    name = solid(points(results, problem, count))
    return f"{number}\n" + (f"${name}$" if "^" in name else name.replace(" ", "\n", 1))


def plot(results: xr.Dataset) -> Figure:
    every = results.num_features.values.tolist()
    counts = [count for count in every if count > 4]  # fewer need not overlap at all
    figure = Figure(figsize=(7.8, 7.2), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    grid = parts[0].subplots(len(ROWS), len(counts))
    for row, (problem, label) in zip(grid, ROWS.items(), strict=True):
        for axes, count in zip(row, counts, strict=True):
            draw(axes, points(results, problem, count))
            axes.set_title(title(results, problem, count), fontsize=6, pad=2)
        row[0].set_ylabel(label, fontsize=6.5)

    left, middle, right = parts[1].subplots(1, 3)
    lowest = results["energy"].min("start")
    for number, (problem, label) in enumerate(((PLANE, "2-D"), (RECTIFIED, "3-D"))):
        left.plot(every, lowest.sel(problem=problem), "o-", ms=4, color=f"C{number}", label=label)
    left.plot(every, [polygon_energy(n) for n in every], "x:", color="0.5", label="regular n-gon")
    left.set(xlabel="features n", ylabel="energy", title="zero up to n = 2m")
    left.legend(fontsize=7)

    for problem, label, color in (
        (RECTIFIED, "length 1, no bias", "C1"),
        (ELECTRIC, "electric charges", "0.5"),
        (BIASED, "with bias, free length", "C2"),
    ):
        overlaps = [greatest_overlap(points(results, problem, count)) for count in counts]
        middle.plot(counts, overlaps, "o-", color=color, ms=4, label=label)
    far = np.cos(np.deg2rad(list(SEPARATIONS.values())))
    middle.plot(list(SEPARATIONS), far, "k_", ms=14, label="least possible (Tammes)")
    middle.set(
        xlabel="features n",
        ylabel="greatest overlap",
        title="cosine of the closest pair",
        ylim=(-0.05, 1.35),
    )
    middle.legend(fontsize=7)

    rest = abs(results["loss"] - results["leading"]) / results["loss"]
    right.loglog(results.density, rest.transpose("density", "model"), ".-", color="C0", ms=4)
    noise = abs(results["loss"] - results["sum_over_sets"]).max("model")
    noise = noise / results["loss"].min("model")
    right.loglog(results.density, np.maximum(noise, 1e-17), ".-", color="C3", ms=4)
    right.loglog([], [], color="C0", label="of none and one active feature")
    right.loglog([], [], color="C3", label="of all sets of active features")
    right.set(
        xlabel="density p = 1 - S",
        ylabel="|loss - sum| / loss",
        title=f"loss as a sum, {results.sizes['model']} models",
    )
    right.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
