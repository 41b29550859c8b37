r"""Polytopes as tegum products, and as matrices of low rank: drawn from minima of the exact loss.

Claim      Where features are sparse enough the best weights are regular polytopes, or unions of
           such in orthogonal subspaces (tegum products): then D_i is that of each part, not the
           average. W^T W is a projection up to a factor, and what it projects out is simple: of a
           simplex the vector (1, ..., 1).
Reproduces Elhage et al. (2022), "The Geometry of Superposition": the tegum products, and the
           figure of polytopes and low-rank matrices, whose first two rows these are.
Selection  The lowest of all random starts, named by `toymodels.analysis.polytopes.identify`. In
           how many starts it is found is a claim.
Settings   Ours, because the paper draws ideal coordinates: equal importance, and for each polytope
           a density at which it is the lowest minimum found for its number of features; see `ROWS`.
           Beside (1, ..., 1) the vectors orthogonal to a pentagon or an antiprism are any basis.
Command    toymodels run experiments/polytopes.py
"""

import dataclasses

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.analysis.polytopes import Component, Shape, identify
from toymodels.engine import compiling

WORK = "Elhage et al. (2022), The Geometry of Superposition"
PAPER = tm.paper(WORK)
CONVERGENCE = "Ours, because descents stop, and numbers are rounded."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A polytope of the figure."""

    hidden: int
    density: float
    parts: tuple[tuple[Shape, int, int], ...]
    """Shape, features and dimensions of each factor."""

    @property
    def num_features(self) -> int:
        return sum(count for _, count, _ in self.parts)


DIGON = (Shape.DIGON, 2, 1)
TRIANGLE = (Shape.TRIANGLE, 3, 2)
ROWS = {
    "triangle": Row(hidden=2, density=0.56, parts=(TRIANGLE,)),
    "square": Row(hidden=2, density=0.4, parts=(DIGON,) * 2),
    "tetrahedron": Row(hidden=3, density=0.56, parts=((Shape.TETRAHEDRON, 4, 3),)),
    "triangular bipyramid": Row(hidden=3, density=0.56, parts=(TRIANGLE, DIGON)),
    "octahedron": Row(hidden=3, density=0.4, parts=(DIGON,) * 3),
    "pentagonal bipyramid": Row(hidden=3, density=0.15, parts=((Shape.PENTAGON, 5, 2), DIGON)),
    "square antiprism": Row(hidden=3, density=0.15, parts=((Shape.SQUARE_ANTIPRISM, 8, 3),)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    polytopes: tuple[str, ...] = tuple(ROWS)
    num_starts: int = 6
    """Random starts for each polytope."""


SMOKE = Config(polytopes=("triangle", "square"), num_starts=2)


def run(config: Config) -> xr.Dataset:
    compiling.ensure_compilation_cache()
    slopes = jax.jit(jax.value_and_grad(tm.theory.expected_loss, (0, 1)))
    rows = [ROWS[name] for name in config.polytopes]
    width, hidden = max(row.num_features for row in rows), max(row.hidden for row in rows)
    losses = np.empty((len(rows), config.num_starts))
    tables = np.full((len(rows), 1 + hidden, width), np.nan)
    for number, row in enumerate(rows):
        rng = np.random.default_rng(number)
        present = (np.arange(width) < row.num_features).astype(float)
        ends = []
        for _ in range(config.num_starts):
            start = np.zeros((1 + hidden, width))
            shape = (row.hidden, row.num_features)
            start[1 : 1 + row.hidden, : row.num_features] = rng.normal(size=shape)
            ends.append(descend(start / row.hidden**0.5, row.density * present, present, slopes))
        losses[number] = [loss for loss, _ in ends]
        best = ends[int(losses[number].argmin())][1][: 1 + row.hidden, : row.num_features]
        tables[number][: 1 + row.hidden, : row.num_features] = in_order(best)
    return xr.Dataset(
        {
            "loss": (("polytope", "start"), losses, {"units": "exact, summed over outputs"}),
            "bias": (("polytope", "feature"), tables[:, 0]),
            "weights": (("polytope", "hidden", "feature"), tables[:, 1:]),
        },
        coords={"polytope": list(config.polytopes)},
    )


def descend(start, density, present, slopes):
    """Return the minimum of the exact loss below a start, whose rows are the bias and the weights.

    Features that are absent have neither density nor importance, so that one compiled program
    does for all. They stay at 0, and so do hidden dimensions that start there.
    """
    unit = float(np.sum(tm.theory.feature_variance(density)))

    def value(flat):
        table = flat.reshape(start.shape)
        with jax.enable_x64(True):
            loss, (across, down) = slopes(table[1:], table[0], density, present)
            return float(loss) / unit, np.vstack([down, across]).ravel() / unit

    found = optimize.minimize(value, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-8})
    return float(found.fun) * unit, found.x.reshape(start.shape)


def components(weights: Float[np.ndarray, "hidden features"]) -> tuple[Component, ...]:
    return identify(weights, norm=0.5, overlap=(0.1, 0.2), tolerance=0.05).components


def in_order(table: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows features"]:
    """Put features of a part side by side, around its axis; in the plane all by their angle."""
    weights = table[1:]
    parts = [np.array(part.features) for part in components(weights)]
    if len(weights) == 2:
        parts = [np.arange(weights.shape[1])]
    order: list[int] = []
    for features in sorted(parts, key=len, reverse=True):
        vertices = weights[:, features]
        sizes, axes = np.linalg.eigh(vertices @ vertices.T)
        # The two axes that are most alike span the plane of rotation.
        first = 0 if len(sizes) == 3 and sizes[1] - sizes[0] < sizes[2] - sizes[1] else -2
        x, y = (axes[:, first:][:, :2].T @ vertices).round(6)
        order += features[np.argsort(np.arctan2(y, x))].tolist()
    return table[:, order]


def weights_of(results: xr.Dataset, name: str) -> Float[np.ndarray, "hidden features"]:
    row, chosen = ROWS[name], results.sel(polytope=name)
    weights = chosen["weights"].transpose("hidden", "feature").values
    return weights[: row.hidden, : row.num_features]


def null_vectors(
    weights: Float[np.ndarray, "hidden features"],
) -> Float[np.ndarray, "features vectors"]:
    """Return what W sends to zero, part by part: first (1, ..., 1), if it is among them."""
    found = []
    for part in components(weights):
        features = np.array(part.features)
        null = np.linalg.svd(weights[:, features])[2][part.dimension :].T
        even = null @ (null.T @ np.ones(len(features)))
        basis = np.linalg.qr(np.column_stack([even, null]))[0][:, : null.shape[1]]
        for vector in basis.T:
            whole = np.zeros(weights.shape[1])
            largest = vector[np.argmax(np.abs(vector).round(6))]
            whole[features] = vector / largest
            found.append(whole)
    return np.array(found).T


def as_named(results: xr.Dataset, name: str) -> bool:
    """Return whether identify sees the parts that the row states, and nothing else."""
    parts = components(weights_of(results, name))
    found = [(part.shape, len(part.features), part.dimension) for part in parts]
    return sorted(found) == sorted(ROWS[name].parts)


def dimensionality_error(results: xr.Dataset, name: str) -> float:
    """Return the largest distance of a D_i from the fraction of its part."""
    actual = np.asarray(geometry.feature_dimensionality(weights_of(results, name)))
    fractions = [[size / count] * count for _, count, size in ROWS[name].parts]
    return float(np.abs(np.sort(actual) - np.sort(np.concatenate(fractions))).max())


def gram_error(weights: Float[np.ndarray, "hidden features"], *allowed: float) -> float:
    """Return the largest distance of a cosine between two features from one of those allowed."""
    directions = weights / np.linalg.norm(weights, axis=0)
    overlaps = (directions.T @ directions)[np.triu_indices(weights.shape[1], 1)]
    return float(np.abs(overlaps[:, None] - np.array(allowed)).min(axis=1).max())


def projection_error(weights: Float[np.ndarray, "hidden features"]) -> float:
    """Return the largest distance of W^T W from 1 - 11^T / n, up to a factor."""
    count = weights.shape[1]
    ideal, gram = np.eye(count) - 1 / count, weights.T @ weights
    return float(np.abs(gram / np.trace(gram) - ideal / np.trace(ideal)).max())


def claims(results: xr.Dataset) -> tm.Claims:
    models = {name: weights_of(results, name) for name in results.polytope.values.tolist()}
    simplices = [models[name] for name in ("triangle", "tetrahedron") if name in models]
    digons = [models[name] for name in ("square", "octahedron") if name in models]
    pentagon = np.cos(2 * np.pi / 5 * np.array([1, 2]))
    bipyramids = {"triangular bipyramid": [-0.5], "pentagonal bipyramid": pentagon}
    inside = {name: allowed for name, allowed in bipyramids.items() if name in models}
    regular = [name for name in models if name != "square antiprism"]
    others = [name for name in models if name not in regular]

    says = "The lowest minima found are the polytopes and tegum products of the figure, measured "
    says += "by the number that are."
    found = sum(as_named(results, name) for name in models)
    yield tm.near(says, len(models), found, PAPER, within=0)

    says = f"At least two of {results.sizes['start']} starts find the lowest minimum of every "
    says += "polytope."
    found = (results.loss < results.loss.min("start") + 1e-9).sum("start").min()
    threshold = "Ours, because once could be chance."
    yield tm.at_least(says, 2, found, tm.finding("This figure"), threshold=threshold)

    for says, errors in {
        "W^T W of triangle and tetrahedron is 1 - 11^T/n up to a factor, measured by the largest "
        "difference.": [projection_error(weights) for weights in simplices],
        "All cosines of two features are -1/(n - 1) in triangle and tetrahedron, measured by the "
        "largest difference.": [gram_error(weights, -1 / len(weights)) for weights in simplices],
        "W is orthogonal to (1, ..., 1) in triangle and tetrahedron, measured by the largest "
        "|W (1, ..., 1)|.": [np.linalg.norm(weights.sum(axis=1)) for weights in simplices],
        "All cosines of two features are -1 or 0 in square and octahedron, which are digons at "
        "right angles, measured by the largest difference.": [
            gram_error(weights, -1.0, 0.0) for weights in digons
        ],
        "All cosines of two features in the bipyramids are those of a polygon and a digon at "
        "right angles, measured by the largest difference.": [
            gram_error(models[name], -1.0, 0.0, *inside[name]) for name in inside
        ],
    }.items():
        largest = max(errors, default=np.nan)
        yield tm.near(says, 0, largest, PAPER, within=1e-6, threshold=CONVERGENCE)

    source = tm.paper(f"{WORK}: tegum products keep the fractions of their parts")
    for name, parts in (
        ("triangular bipyramid", {"triangle": (3, 2 / 3), "digon": (2, 0.5)}),
        ("pentagonal bipyramid", {"pentagon": (5, 2 / 5), "digon": (2, 0.5)}),
    ):
        for part, (number, fraction) in parts.items() if name in models else ():
            says = f"As many features of a {name} have D_i = {fraction:.4g} as a {part} has "
            says += "features."
            actual = np.sort(np.asarray(geometry.feature_dimensionality(models[name])))
            found = np.sum(np.abs(actual - fraction) < 1e-6)
            yield tm.near(says, number, found, source, within=0)

    vectors = {name: null_vectors(weights) for name, weights in models.items()}
    for says, errors, within, source in (
        (
            "Every D_i is the number of dimensions over that of features of its part in all "
            "polytopes but the antiprism, measured by the largest difference.",
            [dimensionality_error(results, name) for name in regular],
            1e-6,
            tm.paper(f"{WORK}: uniform polytopes are tight frames"),
        ),
        (
            "Every D_i is about 3/8 in the square antiprism, whose height is free, measured by "
            "the largest difference.",
            [dimensionality_error(results, name) for name in others],
            0.005,
            PAPER,
        ),
        (
            "The vectors of the figure are orthogonal to W in all polytopes, measured by the "
            "largest |W v| for entries up to 1.",
            [np.abs(models[name] @ vectors[name]).max() for name in models],
            1e-6,
            tm.identity("Linear algebra, because the parts are orthogonal"),
        ),
        (
            "The vectors of the figure are as many as features exceed dimensions in all polytopes.",
            [abs(w.shape[1] - len(w) - vectors[name].shape[1]) for name, w in models.items()],
            0.0,
            tm.identity("Rank of W"),
        ),
    ):
        largest = max(errors, default=np.nan)
        yield tm.near(says, 0, largest, source, within=within, threshold=CONVERGENCE)


def plot(results: xr.Dataset) -> plotting.Figure:
    names = results.polytope.values.tolist()
    figure, grid = plotting.figure(len(names), 4, size=(9, 1.45 * len(names) + 0.4), squeeze=False)
    headings = (
        "columns of W",
        "$W^T W$ as a graph",
        "$W^T W$ (blue: -1, red: 1)",
        "orthogonal vectors",
    )
    for name, row in zip(names, grid, strict=True):
        weights = weights_of(results, name)
        colors = plotting.shape_colors_of(weights)
        plotting.polytope(row[0], weights, color=colors)
        plotting.overlap_graph(row[1], weights, color=colors, strongest=weights.shape[1])
        plotting.signed_matrix(row[2], weights.T @ weights)
        plotting.signed_matrix(row[3], null_vectors(weights))
        levels = np.asarray(geometry.feature_dimensionality(weights)).round(3)
        values, counts = np.unique(levels, return_counts=True)
        split = "\n".join(f"{c} x {v:.3g}" for v, c in zip(values, counts, strict=True))
        said = f"{name.replace(' ', chr(10))}\np = {ROWS[name].density:g}\n$D_i$: {split}"
        row[0].text(-0.1, 0.5, said, transform=row[0].transAxes, ha="right", va="center")
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
