r"""One active feature: the loss as a generalised Thomson problem, and its minimisers.

Claim      With features of length 1 and no bias, the loss of one active feature is a Thomson
           problem: points on a sphere repel where they overlap. Up to n = 2m they need not overlap
           at all; in three dimensions the minimisers of 6 to 10 features are the polyhedra of
           electric charges, and more features than that share directions. A bias and free lengths
           turn this into another problem of points on a sphere, to keep them apart (Tammes).
Reproduces Elhage et al. (2022), "Mathematical Understanding", which has equations and no figure.
Selection  The lowest of all starts; how many of them end there is a claim.
Settings   Ours, because the paper states none: BFGS from random points on the sphere. A polyhedron
           is named by how many edges meet at its vertices, those of one direction taken for one.
Command    toymodels run experiments/thomson.py
"""

import dataclasses
from functools import partial

import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.theory import polyhedra, spheres

WORK = "Elhage et al. (2022), Mathematical Understanding"
SEPARATED = "Tammes problem: Fejes Tóth (1943), Schütte and van der Waerden (1951), Danzer (1986)"
RANKIN = tm.prediction("At most 2m vectors have no positive overlap: Rankin (1955)")
CLOSED_FORM = tm.prediction("Closed form")
FOUND = tm.finding("This figure")
GENERALISED = tm.paper(f"{WORK}: a generalised Thomson problem")
TABULATED = tm.prediction("Thomson problem: tabulated energies")
CONVERGENCE = "Ours, because descents stop, and numbers are rounded."
PLANE, RECTIFIED, ELECTRIC, BIASED = "plane", "rectified", "electric", "biased"
# Each problem: dimensions, the descent from a start, and its words in the figure.
PROBLEMS = {
    PLANE: (2, partial(spheres.on_sphere, spheres.rectified), "in a plane,\nlength 1, no bias"),
    RECTIFIED: (3, partial(spheres.on_sphere, spheres.rectified), "in space,\nlength 1, no bias"),
    ELECTRIC: (3, partial(spheres.on_sphere, spheres.electric), "in space,\nelectric charges"),
    BIASED: (3, spheres.with_bias, "in space, with bias\nand free length"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    num_features: tuple[int, ...] = (4, 5, 6, 7, 8, 9, 10, 11, 12)
    """Points on the sphere; at least 4."""
    num_starts: int = 80


SMOKE = Config(num_features=(4, 5, 7), num_starts=3)


def run(config: Config) -> xr.Dataset:
    """Solve every problem from every start: all energies, and the weights of the lowest."""
    shape = (len(PROBLEMS), len(config.num_features))
    energy = np.empty((*shape, config.num_starts))
    weights = np.full((*shape, 3, max(config.num_features)), np.nan)
    for place in np.ndindex(shape):
        hidden, descend, _ = list(PROBLEMS.values())[place[0]]
        count = config.num_features[place[1]]
        rng = np.random.default_rng(count)
        ends = [descend(rng.normal(size=(hidden, count))) for _ in range(config.num_starts)]
        energy[place] = [end[0] for end in ends]
        weights[place][:, :count] = 0.0  # the plane has no third axis
        weights[place][:hidden, :count] = ends[int(energy[place].argmin())][1]
    dims = ("problem", "num_features")
    units = {"units": "summed over outputs and over which feature is active"}
    found = {"energy": ((*dims, "start"), energy, units)}
    found["weights"] = ((*dims, "axis", "feature"), weights)
    coords = {"problem": list(PROBLEMS), "num_features": list(config.num_features)}
    return xr.Dataset(found, coords)


def points(results: xr.Dataset, problem: str, count: int):
    """Return the directions of the best weights, one per column."""
    weights = results["weights"].sel(problem=problem, num_features=count)
    weights = weights.transpose("axis", "feature").values[:, :count]
    return weights / np.linalg.norm(weights, axis=0)


def greatest_overlap(directions):
    return (directions.T @ directions - 2 * np.eye(directions.shape[1])).max()


def cross_polytope_residual(directions):
    """Return the largest distance of an overlap from -1, once for each dimension, or 0."""
    hidden = directions.shape[1] // 2
    overlaps = np.sort((directions.T @ directions)[np.triu_indices(2 * hidden, 1)])
    return abs(overlaps + (np.arange(overlaps.size) < hidden)).max()


def claims(results: xr.Dataset) -> tm.Claims:
    every = results.num_features.values.tolist()
    found = {
        problem: {count: points(results, problem, count) for count in every} for problem in PROBLEMS
    }
    lowest = results.energy.min("start")

    limits = ((PLANE, 4), (RECTIFIED, 6), (BIASED, 6))
    says = "Up to 2m features in m dimensions have no energy in the minimum, measured by the "
    says += "largest energy."
    few = [(problem, count) for problem, limit in limits for count in every if count <= limit]
    energies = [lowest.sel(problem=problem, num_features=count) for problem, count in few]
    highest = max(energies, default=np.nan)  # other energies are near 1
    yield tm.near(says, 0, highest, RANKIN, within=1e-12, threshold=CONVERGENCE)

    says = "2m features in m dimensions are a cross-polytope in the minimum: cosines are -1 or 0."
    residuals = [cross_polytope_residual(found[problem][n]) for problem, n in limits if n in every]
    largest = max(residuals, default=np.nan)
    yield tm.near(says, 0, largest, RANKIN, within=1e-6, threshold=CONVERGENCE)

    twice = (10 + 40 * np.cos(2 * np.pi / 5) ** 2) / 3
    for solution, problem, count, energy in (
        ("a pentagon", PLANE, 5, spheres.polygon_energy(5)),
        ("a hexagon", PLANE, 6, 1.0),
        ("a pentagon, twice", PLANE, 10, twice),
        ("a pentagon and a digon", RECTIFIED, 7, spheres.polygon_energy(5)),
        ("a square antiprism", RECTIFIED, 8, spheres.antiprism_energy()),
        ("a tricapped prism", RECTIFIED, 9, 21 / 17),
    ):
        space = f"{PROBLEMS[problem][0]} dimensions"
        says = f"The lowest energy of {count} features in {space} is that of {solution}."
        at = lowest.sel(problem=problem, num_features=count) if count in every else np.nan
        yield tm.near(says, energy, at, CLOSED_FORM, within=1e-9, threshold=CONVERGENCE)

    def directions(problem, more_than):
        counts = [count for count in every if count > more_than]
        shared = [polyhedra.distinct(found[problem][count]).shape[1] for count in counts]
        return max(shared, default=np.nan)

    says = "More than six features in a plane share five directions at most in the minimum."
    yield tm.near(says, 5, directions(PLANE, 6), FOUND, within=0)
    says = "11 and 12 features in three dimensions share nine directions in the minimum."
    yield tm.near(says, 9, directions(RECTIFIED, 10), FOUND, within=0)

    names = {
        problem: {count: polyhedra.name(each) for count, each in found[problem].items()}
        for problem in (RECTIFIED, ELECTRIC, BIASED)
    }
    says = "The minimisers for 6 to 10 features in three dimensions are the polyhedra of electric "
    says += "charges, measured by the number that are."
    shared = [names[RECTIFIED][n] == names[ELECTRIC][n] for n in range(6, 11) if n in every]
    yield tm.near(says, 5, sum(shared), GENERALISED, within=0)

    says = "The lowest energies of electric charges are those of the tables."
    charges = lowest.sel(problem=ELECTRIC)
    gap = max(abs(charges.sel(num_features=n) - spheres.CHARGE_ENERGIES[n]) for n in every)
    yield tm.near(says, 0, gap, TABULATED, within=5e-9, threshold=CONVERGENCE)

    says = "The minimisers with bias and free lengths for 7, 8, 9, 11 and 12 features are the "
    says += "polyhedra that keep points farthest apart, measured by the number that are."
    apart = {
        7: "capped octahedron",
        8: "square antiprism",
        9: "tricapped prism",
        11: "icosahedron less one",
        12: "icosahedron",
    }
    hits = sum(names[BIASED].get(count) == name for count, name in apart.items())
    yield tm.near(says, len(apart), hits, tm.paper(SEPARATED), within=0)

    angles = {n: angle for n, angle in spheres.SEPARATIONS.items() if n in every}
    smallest = {n: np.cos(np.deg2rad(angle)) for n, angle in angles.items()}
    excess = [greatest_overlap(found[BIASED][n]) - cosine for n, cosine in smallest.items()]
    says = "The greatest cosine with bias and free lengths is near the smallest that is possible."
    strong = "Ours, because both problems agree only in the limit of strong repulsion."
    source = tm.prediction(SEPARATED)
    yield tm.near(says, 0, max(excess, default=np.nan), source, within=0.04, threshold=strong)

    says = "The greatest cosine with bias and free lengths is never below the smallest possible "
    says += "one."
    source = tm.identity(SEPARATED)
    least = min(excess, default=np.nan)
    yield tm.at_least(says, 0, least, source, slack=1e-6, threshold=CONVERGENCE)

    says = f"At least three of {results.sizes['start']} starts find the lowest minimum of every "
    says += "problem."
    reached = (results.energy < lowest + 1e-8).sum("start").min()
    yield tm.at_least(says, 3, reached, FOUND, threshold="Ours, because once could be chance.")


def title(problem: str, count: int, directions) -> str:
    """Return the name of a solution in two lines."""
    if problem == PLANE:
        return f"n = {count}"
    if problem != ELECTRIC and count < 6:
        return "one of many"
    name = polyhedra.name(directions)
    return "no name" if "^" in name else name.replace(" ", "\n", 1)


def plot(results: xr.Dataset) -> plotting.Figure:
    every = results.num_features.values.tolist()
    counts = [count for count in every if count > 4]  # fewer need not overlap at all
    figure, parts = plotting.figure_of_parts(2, 1, size=(7.6, 7.6), height_ratios=(2.6, 1))
    grid = parts[0].subplots(len(PROBLEMS), len(counts[-5:]), squeeze=False)
    for row, (problem, (_, _, label)) in zip(grid, PROBLEMS.items(), strict=True):
        for axes, count in zip(row, counts[-5:], strict=True):
            directions = points(results, problem, count)
            plotting.polytope(axes, directions, limit=1.5)
            for artist in (*axes.lines, *axes.collections):  # or else the file is large
                artist.set(antialiased=False, rasterized=True)
            axes.set_title(title(problem, count, directions), fontsize=7, pad=2)
        row[0].set_ylabel(label, fontsize=8)

    energies, overlaps = parts[1].subplots(1, 2)
    lowest = results.energy.min("start")
    for problem, label, style in ((PLANE, "plane", "o-"), (RECTIFIED, "space", "s-")):
        energies.plot(every, lowest.sel(problem=problem), style, ms=4, label=label)
    polygons = [spheres.polygon_energy(count) for count in every]
    energies.plot(every, polygons, "x:", color="0.5", label="regular polygon")
    energies.set(ylabel="energy, length 1, no bias", title="No energy up to n = 2m")
    for problem, label, style in (
        (RECTIFIED, "length 1, no bias", "o-"),
        (ELECTRIC, "electric charges", "^-"),
        (BIASED, "with bias, free length", "s-"),
    ):
        greatest = [greatest_overlap(points(results, problem, count)) for count in counts]
        overlaps.plot(counts, greatest, style, ms=4, label=label)
    far = np.cos(np.deg2rad(list(spheres.SEPARATIONS.values())))
    overlaps.plot(list(spheres.SEPARATIONS), far, "k_", ms=14, label="smallest possible (Tammes)")
    overlaps.set(ylabel="greatest cosine", title="A bias keeps features apart", ylim=(-0.05, 1.5))
    for axes in (energies, overlaps):
        axes.set_xlabel("features n")
        axes.legend(fontsize=7)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
