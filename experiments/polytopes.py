r"""Polytopes as tegum products, and as matrices of low rank: drawn from minima of the exact loss.

Claim      Where features are sparse enough the best weights are regular polytopes, or unions of
           such in orthogonal subspaces (tegum products): then D_i is that of each part, not the
           average. W^T W is a projection up to a factor, and what it projects out is simple: of a
           simplex the vector (1, ..., 1).
Reproduces Elhage et al. (2022), "The Geometry of Superposition": the tegum products, and the
           figure of polytopes and low-rank matrices, whose first two rows these are.
Selection  The lowest of all random starts, named by `toymodels.analysis.polytopes.identify`. In
           how many starts it is found is a claim.
Settings   Ours, for the paper draws ideal coordinates: equal importance, and for each polytope a
           density at which it is the lowest minimum found for its number of features; see `ROWS`.
           Beside (1, ..., 1) the vectors orthogonal to a pentagon or an antiprism are any basis.
Command    toymodels run experiments/polytopes.py
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import optimize

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import geometry
from toymodels.analysis.polytopes import Component, Shape, identify
from toymodels.engine import compiling

SOURCE = "Elhage et al. (2022), The Geometry of Superposition"


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
SHAPES = (Shape.TETRAHEDRON, Shape.TRIANGLE, Shape.DIGON, Shape.PENTAGON, Shape.SQUARE_ANTIPRISM)
COLORS: dict[Shape, str] = dict(zip(SHAPES, plotting.POLYTOPE_COLORS[1:], strict=False))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What the figure depends on, and nothing else."""

    polytopes: tuple[str, ...] = tuple(ROWS)
    num_starts: int = 6
    """Random ones, of each polytope."""


SMOKE = Config(polytopes=("triangle", "square"), num_starts=2)


def descend(start: Any, density: Any, present: Any, slopes: Any) -> tuple[float, Any]:
    """The minimum below a start: exact loss, and bias above weights.

    Features that are absent have neither density nor importance, so that one compiled program
    does for all. They stay at 0, and so do hidden dimensions that start there.
    """
    unit = float(np.sum(density / 3 - density**2 / 4))

    def value(flat: Any) -> tuple[float, Any]:
        table = flat.reshape(start.shape)
        with jax.enable_x64(True):
            loss, (across, down) = slopes(table[1:], table[0], density, present)
            return float(loss) / unit, np.vstack([down, across]).ravel() / unit

    found = optimize.minimize(value, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-8})
    return float(found.fun) * unit, found.x.reshape(start.shape)


def run(config: Config) -> xr.Dataset:
    compiling.ensure_compilation_cache()
    slopes = jax.jit(jax.value_and_grad(tm.theory.expected_loss, (0, 1)))
    rows = [ROWS[name] for name in config.polytopes]
    most, hidden = (max(getattr(row, size) for row in rows) for size in ("num_features", "hidden"))
    losses = np.empty((len(rows), config.num_starts))
    tables = np.full((len(rows), 1 + hidden, most), np.nan)
    for number, row in enumerate(rows):
        rng = np.random.default_rng(number)
        present = (np.arange(most) < row.num_features).astype(float)
        ends: list[tuple[float, Any]] = []
        for _ in range(config.num_starts):
            start = np.zeros((1 + hidden, most))
            shape = (row.hidden, row.num_features)
            start[1 : 1 + row.hidden, : row.num_features] = rng.normal(size=shape)
            ends.append(descend(start / row.hidden**0.5, row.density * present, present, slopes))
        losses[number] = [loss for loss, _ in ends]
        best = ends[int(losses[number].argmin())][1]
        tables[number][: 1 + row.hidden, : row.num_features] = in_order(
            best[: 1 + row.hidden, : row.num_features]
        )
    return xr.Dataset(
        {
            "loss": (("polytope", "start"), losses, {"units": "exact, summed over outputs"}),
            "bias": (("polytope", "feature"), tables[:, 0]),
            "weights": (("polytope", "hidden", "feature"), tables[:, 1:]),
        },
        coords={"polytope": list(config.polytopes)},
    )


def components(weights: Any) -> tuple[Component, ...]:
    return identify(weights, norm=0.5, overlap=(0.1, 0.2), tolerance=0.05).components


def in_order(table: Any) -> Any:
    """Features of a part side by side, around its axis; in the plane all by their angle."""
    weights = table[1:]
    parts: list[Any] = [np.array(part.features) for part in components(weights)]
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


def model(results: xr.Dataset, name: str) -> tuple[Any, Any]:
    """Weights and bias."""
    row, chosen = ROWS[name], results.sel(polytope=name)
    weights = chosen["weights"].transpose("hidden", "feature").values
    return weights[: row.hidden, : row.num_features], chosen["bias"].values[: row.num_features]


def null_vectors(weights: Any) -> Any:
    """What W sends to zero, one part after another: first (1, ..., 1), if it is among them."""
    found: list[Any] = []
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


def unit_gram(weights: Any) -> Any:
    directions = weights / np.linalg.norm(weights, axis=0)
    return directions.T @ directions


def as_named(results: xr.Dataset, name: str) -> bool:
    """Whether identify sees the parts that the row states, and nothing else."""
    weights, _ = model(results, name)
    found = [(part.shape, len(part.features), part.dimension) for part in components(weights)]
    return sorted(found) == sorted(ROWS[name].parts)


def dimensionality_error(results: xr.Dataset, name: str) -> float:
    """Largest distance of a D_i from the fraction of its part."""
    actual = np.asarray(geometry.feature_dimensionality(model(results, name)[0]))
    fractions = [[size / count] * count for _, count, size in ROWS[name].parts]
    return float(np.abs(np.sort(actual) - np.sort(np.concatenate(fractions))).max())


def claims(results: xr.Dataset) -> list[tm.Claim]:
    names = results.polytope.values.tolist()
    models = {name: model(results, name)[0] for name in names}
    regular = [name for name in names if name != "square antiprism"]

    def zero(
        statement: str, source: str, values: Any, tolerance: float, kind: tm.Kind = tm.Kind.PAPER
    ) -> tm.Claim:
        largest = max(values, default=np.nan)
        convergence = "ours: convergence of descents and rounding"
        return tm.Claim(
            statement, source, 0.0, largest, tolerance, kind=kind, threshold=convergence
        )

    def gram_error(name: str, *allowed: float) -> float:
        """Largest distance of a cosine between two features from one of those allowed."""
        overlaps = unit_gram(models[name])[np.triu_indices(models[name].shape[1], 1)]
        return float(np.abs(overlaps[:, None] - np.array(allowed)).min(axis=1).max())

    def projection_error(name: str) -> float:
        """Of W^T W from 1 - 11^T / n, up to a factor."""
        count = models[name].shape[1]
        ideal = np.eye(count) - 1 / count
        gram = models[name].T @ models[name]
        return float(np.abs(gram / np.trace(gram) - ideal / np.trace(ideal)).max())

    def split(name: str, shape: str, count: int, expected: float) -> list[tm.Claim]:
        """D_i of the larger part of a bipyramid, and of the digon."""
        if name not in names:
            return []
        actual = np.sort(np.asarray(geometry.feature_dimensionality(models[name])))
        values = {shape: (count, expected), "digon": (2, 0.5)}
        return [
            tm.Claim(
                f"{name}: how many features have D_i = {fraction:.4g}, as in a {part}",
                f"{SOURCE}: tegum products keep the fractions of their parts",
                expected=number,
                measured=int(np.sum(np.abs(actual - fraction) < 1e-6)),
                kind=tm.Kind.PAPER,
            )
            for part, (number, fraction) in values.items()
        ]

    lowest = results["loss"].min("start")
    simplices = [name for name in ("triangle", "tetrahedron") if name in names]
    digons = [name for name in ("square", "octahedron") if name in names]
    return [
        tm.Claim(
            "the lowest minima found are the polytopes and tegum products: how many",
            SOURCE,
            expected=len(names),
            measured=sum(as_named(results, name) for name in names),
            kind=tm.Kind.PAPER,
        ),
        tm.Claim(
            f"and are found again: fewest of {results.sizes['start']} starts",
            "this figure",
            expected=2,
            measured=int((results["loss"] < lowest + 1e-9).sum("start").min()),
            bound=tm.Bound.AT_LEAST,
            kind=tm.Kind.FINDING,
            threshold="ours: once could be chance",
        ),
        zero(
            "triangle, tetrahedron: W^T W is 1 - 11^T/n up to a factor: largest difference",
            SOURCE,
            map(projection_error, simplices),
            1e-6,
        ),
        zero(
            "so that all features overlap by -1/(n - 1): largest difference of a cosine",
            SOURCE,
            [gram_error(name, -1 / (models[name].shape[1] - 1)) for name in simplices],
            1e-6,
        ),
        zero(
            "and W is orthogonal to (1, ..., 1): largest |W (1, ..., 1)|",
            SOURCE,
            [np.linalg.norm(models[name].sum(axis=1)) for name in simplices],
            1e-6,
        ),
        zero(
            "square, octahedron: digons at right angles: largest distance of a cosine from -1 or 0",
            SOURCE,
            [gram_error(name, -1.0, 0.0) for name in digons],
            1e-6,
        ),
        zero(
            "bipyramids: a polygon and a digon at right angles: largest distance of a cosine from "
            "those of the parts",
            SOURCE,
            [
                gram_error(name, -1.0, 0.0, *cosines)
                for name, cosines in (
                    ("triangular bipyramid", [-0.5]),
                    ("pentagonal bipyramid", np.cos(2 * np.pi / 5 * np.array([1, 2]))),
                )
                if name in names
            ],
            1e-6,
        ),
        *split("triangular bipyramid", "triangle", 3, 2 / 3),
        *split("pentagonal bipyramid", "pentagon", 5, 2 / 5),
        zero(
            "D_i = d/k in each part, of all but the antiprism: largest difference",
            f"{SOURCE}: uniform polytopes are tight frames",
            [dimensionality_error(results, name) for name in regular],
            1e-6,
        ),
        zero(
            "D_i = 3/8 in the square antiprism: largest difference",
            SOURCE,
            [dimensionality_error(results, name) for name in names if name not in regular],
            0.005,  # its height is free, and D_i is d/k only at one
        ),
        zero(
            "the vectors drawn are orthogonal to W: largest |W v|, of entries up to 1",
            "linear algebra, for orthogonal parts",
            [np.abs(weights @ null_vectors(weights)).max() for weights in models.values()],
            1e-6,
            tm.Kind.IDENTITY,
        ),
        zero(
            "and are as many as features exceed dimensions: largest difference",
            "rank of W",
            [
                abs(np.subtract(*weights.shape[::-1]) - null_vectors(weights).shape[1])
                for weights in models.values()
            ],
            0.0,
            tm.Kind.IDENTITY,
        ),
    ]


def view(weights: Any) -> Any:
    """Across, along and depth: as they are in the plane, else with the axis of symmetry up."""
    if len(weights) == 2:
        return np.vstack([weights, 0 * weights[:1]])
    first = weights[:, list(components(weights)[0].features)]
    sizes, axes = np.linalg.eigh(first @ first.T)
    up = axes[:, 0 if sizes[1] - sizes[0] > sizes[2] - sizes[1] else 2]
    side = np.cross(up, [0.36, 0.48, 0.8])
    side /= np.linalg.norm(side)
    front = np.cross(side, up)
    tilted = np.stack([side, 0.94 * up + 0.34 * front, 0.94 * front - 0.34 * up])
    return tilted @ weights


def draw_columns(axes: Any, weights: Any, colors: Any) -> None:
    """Vertices of a part joined to their neighbours in colour, those of two parts in grey."""
    x, y, depth = view(weights)
    overlaps = unit_gram(weights)
    for first, second in zip(*np.triu_indices(len(x), 1), strict=True):
        ends = [first, second]
        parts = [
            part.features for part in components(weights) if {first, second} & {*part.features}
        ]
        if len(parts) == 2:
            axes.plot(x[ends], y[ends], color="0.8", linewidth=0.7, zorder=1)
            continue
        inside = overlaps[np.ix_(parts[0], parts[0])]
        if overlaps[first, second] > np.mean(inside[~np.eye(len(inside), dtype=bool)]) - 1e-3:
            axes.plot(x[ends], y[ends], color=colors[first], linewidth=1.3, zorder=2)
    axes.plot([0 * x, x], [0 * y, y], color="0.6", linewidth=0.5, linestyle=":", zorder=1)
    axes.scatter(x, y, s=22 - 6 * depth, c=colors, zorder=3)
    axes.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal")


def draw_graph(axes: Any, weights: Any, colors: Any) -> None:
    """A node for each feature, an edge for each overlap: blue is negative, red positive."""
    count = weights.shape[1]
    angles = np.pi / 2 - 2 * np.pi * np.arange(count) / count
    x, y = np.cos(angles), np.sin(angles)
    gram = weights.T @ weights
    for first, second in zip(*np.triu_indices(count, 1), strict=True):
        if abs(gram[first, second]) > 1e-3:
            axes.plot(
                x[[first, second]],
                y[[first, second]],
                color=plotting.WEIGHT_MAP(plotting.WEIGHT_NORM(np.sign(gram[first, second]))),
                linewidth=2.5 * abs(gram[first, second]),
            )
    axes.scatter(x, y, s=30, c=colors, zorder=3)
    axes.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal")


def draw_table(axes: Any, table: Any, *, digits: int) -> None:
    image = axes.imshow(table, cmap=plotting.WEIGHT_MAP, norm=plotting.WEIGHT_NORM)
    image.set_interpolation("nearest")
    for (row, column), value in np.ndenumerate(table):
        text = f"{value:.{digits}f}".replace("0.", ".")
        color = "white" if abs(value) > 0.7 else "black"
        if abs(value) > 0.5 * 10.0**-digits:
            axes.text(column, row, text, ha="center", va="center", fontsize=5.5, color=color)


def plot(results: xr.Dataset) -> Figure:
    names = results.polytope.values.tolist()
    figure, grid = plotting.figure(len(names), 4, size=(7.4, 1.5 * len(names) + 0.4), squeeze=False)
    headings = ("columns of W", "$W^T W$ as graph", "$W^T W$ as matrix", "orthogonal vectors")
    for name, row in zip(names, grid, strict=True):
        weights, _ = model(results, name)
        colors = np.empty(weights.shape[1], object)
        for part in components(weights):
            colors[list(part.features)] = COLORS.get(part.shape, "0.5")
        draw_columns(row[0], weights, colors)
        draw_graph(row[1], weights, colors)
        draw_table(row[2], weights.T @ weights, digits=2)
        draw_table(row[3], null_vectors(weights), digits=1)
        for axes in row:
            axes.set(xticks=(), yticks=())
            for spine in axes.spines.values():
                spine.set_visible(False)
        levels = np.asarray(geometry.feature_dimensionality(weights))
        values, counts = np.unique(levels.round(3), return_counts=True)
        split = ", ".join(f"{c} x {v:.3f}" for v, c in zip(values, counts, strict=True))
        row[0].set_ylabel(f"{name}\np = {ROWS[name].density:g}\n$D_i$: {split}", fontsize=7)
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
