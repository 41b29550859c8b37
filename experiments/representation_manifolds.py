r"""Representation manifolds: words of nearby topics get nearby directions, in their order.

Claim      Each word has a place on a manifold, and words at nearby places occur together. For
           places on a circle the covariance of the words is circulant. The best linear model with
           two dimensions represents its first Fourier mode, so the words form a regular polygon in
           order. On a torus and on a dodecahedron, too, the directions are the places themselves,
           and the cosine of two directions is a function of the distance. On an interval it is
           not, because the words at its ends have neighbours on one side only. The ReLU model
           keeps the order, and neighbours interfere positively.
Reproduces Prieto et al. (2026), bags of words on a circle; the other manifolds are ours.
Selection  All seeds are measured. The pictures show the seed of the lowest loss on 65,536 common
           examples.
Command    toymodels run experiments/representation_manifolds.py
"""

import dataclasses
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import manifolds
from toymodels.theory import embeddings

PRIETO = tm.paper("Prieto et al. (2026), From Data Statistics to Feature Geometry")
SYMMETRY = tm.prediction("Symmetries move any word to any other; the first harmonics are kept")
COMPONENTS = tm.prediction("The linear model holds the principal components")
FOURIER = tm.identity("A circulant matrix has the Fourier modes as eigenvectors")
FOUND = tm.finding("found here")
TRAINING = "Ours, because training on samples leaves some noise."
HOMOGENEOUS = ["circle", "torus", "dodecahedron"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    around: int = 12
    """The words on the circle, and on the interval."""
    side: int = 5
    """The torus has this many words along each of two circles."""
    sharpness: float = 10.0
    """The larger it is, the nearer are the places of words that occur together."""
    trained: tuple[str, ...] = ("circle", "interval", "torus", "dodecahedron")
    """The manifolds on which ReLU models are trained; linear ones are trained on the circle."""
    num_seeds: int = 4
    mixed: int = 4
    """The number of vertices of the convex mixtures; their models have one dimension less."""
    training: tm.Recipe = tm.Recipe(steps=2000, batch=512, learning_rate=1e-2)


SMOKE = Config(
    around=5,
    side=3,
    trained=("circle",),
    num_seeds=1,
    mixed=3,
    training=tm.Recipe(steps=5, batch=16, learning_rate=1e-2),
)


def circle(count: int, turn: float = 2 * np.pi) -> np.ndarray:
    """Return points at equal angles over a part of the circle, points x 2."""
    angles = turn * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def places_on(config: Config) -> dict[str, tuple[np.ndarray, int]]:
    """Return the places of the words on each manifold, and the hidden dimensions."""
    one = circle(config.side) / 2**0.5
    torus = np.array([[*first, *second] for first, second in itertools.product(one, one)])
    golden = (1 + 5**0.5) / 2
    corners = [*itertools.product((-1, 1), repeat=3)]
    for a, b in itertools.product((-1, 1), repeat=2):
        flat = (0.0, a / golden, b * golden)
        corners += [np.roll(flat, shift) for shift in range(3)]
    return {
        "circle": (circle(config.around), 2),
        "interval": (circle(config.around, np.pi), 2),
        "torus": (torus, 4),
        "dodecahedron": (np.array(corners, float) / 3**0.5, 3),
    }


def chords(places) -> Any:
    """Return the distances between all places."""
    return np.linalg.norm(places[:, None] - places[None], axis=-1)


def run(config: Config) -> xr.Dataset:
    known = places_on(config)

    def relu(key, *, manifold):
        places, hidden = known[manifold]
        task = tm.Task(tm.BagsOfWords(places, config.sharpness))
        trained = config.training.train(key, tm.ReLUOutput(hidden), task)
        weights = trained.params["weights"]
        return {"loss": trained.loss, "weights": weights, **measured(weights, places)}

    def linear(key):
        places, hidden = known["circle"]
        task = tm.Task(tm.BagsOfWords(places, config.sharpness))
        trained = config.training.train(key, tm.LinearOutput(hidden), task)
        weights = trained.params["weights"]
        return {"linear_loss": trained.loss, "linear": weights}

    def mixture(key):
        task = tm.Task(tm.ConvexMixtures(config.mixed, 0.3))
        model = tm.LinearOutput(config.mixed - 1)
        trained = config.training.train(key, model, task, evaluation=0)
        return {"mixture": trained.params["weights"]}

    seeds = config.num_seeds
    parts = [
        tm.sweep(
            relu,
            static={"manifold": {name: name for name in config.trained}},
            num_seeds=seeds,
            dims={"weights": ("hidden", "word")},
        ),
        tm.sweep(linear, num_seeds=seeds, dims={"linear": ("across", "place")}),
        tm.sweep(mixture, num_seeds=seeds, dims={"mixture": ("side", "vertex")}),
        exact(known, config),
    ]
    merged = xr.merge(parts, combine_attrs="override", join="outer")
    return merged.assign_attrs(around=config.around, side=config.side, sharpness=config.sharpness)


def measured(weights, places: np.ndarray) -> dict[str, Any]:
    """Measure directions against the distances between the places."""
    return {
        "by_distance": manifolds.cosine_by_distance(weights, chords(places)),
        "distortion": manifolds.distortion(weights, chords(places)),
    }


def best_linear(places: np.ndarray, hidden: int, sharpness: float) -> embeddings.Embedding:
    """Return the exact optimum of the linear model for words at these places."""
    words = tm.BagsOfWords(places, sharpness)
    return embeddings.linear_embedding(embeddings.binary_covariance(words.chances), hidden)


def exact(known: dict[str, tuple[np.ndarray, int]], config: Config) -> xr.Dataset:
    """Compute losses and measures of the best linear models, and the covariance on the circle."""
    best = {name: best_linear(*each, config.sharpness) for name, each in known.items()}
    found = [
        measured(jnp.asarray(each.weights, jnp.float32), known[name][0])
        for name, each in best.items()
    ]
    values = {
        "exact_loss": [each.loss for each in best.values()],
        **{f"exact_{name}": [float(each[name]) for each in found] for name in found[0]},
    }
    chances = tm.BagsOfWords(known["circle"][0], config.sharpness).chances
    return xr.Dataset(
        {
            **{name: ("manifold", each) for name, each in values.items()},
            "covariance": (("row", "column"), embeddings.binary_covariance(chances)),
        },
        {"manifold": list(known)},
    )


def claims(results: xr.Dataset) -> tm.Claims:
    covariance = results["covariance"].values
    says = "The covariance of words on the circle is circulant, measured by its largest change "
    says += "when all words are shifted by one place."
    turned = np.roll(covariance, 1, axis=(0, 1))
    yield tm.near(says, 0, abs(turned - covariance).max(), FOURIER, within=1e-6)
    says = "The eigenvalues of the covariance of words on the circle are the discrete Fourier "
    says += "transform of its first row, measured by the largest difference."
    harmonics = np.sort(embeddings.circulant_eigenvalues(covariance[0]))
    off = abs(harmonics - np.linalg.eigvalsh(covariance)).max()
    yield tm.near(says, 0, off, FOURIER, within=1e-6)
    even = results.sel(manifold=HOMOGENEOUS)
    says = "The directions of the best linear model are the places, up to scale and rotation, on "
    says += "the circle, the torus and the dodecahedron, measured by the largest distortion of "
    says += "distances."
    yield tm.near(says, 0, even["exact_distortion"].max(), SYMMETRY, within=1e-4)
    says = "Cosines between directions of the best linear model are a function of the distance on "
    says += "the circle, the torus and the dodecahedron, measured by the smallest share of their "
    says += "variance that the distance explains."
    yield tm.near(says, 1, even["exact_by_distance"].min(), SYMMETRY, within=1e-4)
    says = "Cosines between directions of the best linear model are no function of the distance on "
    says += "the interval, measured by the share of their variance that the distance explains."
    twentieth = "Ours, because 5 % cannot be rounding."
    interval = results["exact_by_distance"].sel(manifold="interval")
    yield tm.at_most(says, 0.95, interval, FOUND, threshold=twentieth)

    says = "Trained linear models reach the loss of principal components on the circle, measured "
    says += "by the largest relative difference over seeds."
    off = abs(results["linear_loss"] / results["exact_loss"].sel(manifold="circle") - 1).max()
    yield tm.near(says, 0, off, COMPONENTS, within=0.01, threshold=TRAINING)
    says = "Words on the circle form a regular polygon in order in trained linear models, measured "
    says += "by the largest difference of a cosine from that of the places, over seeds."
    places = circle(int(results.attrs["around"]))
    off = abs(cosines(results["linear"].transpose("seed", ...).values) - places @ places.T).max()
    yield tm.near(says, 0, off, PRIETO, within=0.05, threshold=TRAINING)
    yield from relu_claims(results)
    says = "Linear models of convex mixtures of n vertices in n - 1 dimensions form a regular "
    says += "simplex, measured by the largest difference of a cosine from -1 / (n - 1), over seeds."
    cosine = cosines(results["mixture"].transpose("seed", ...).values)
    count = cosine.shape[1]
    off = abs(cosine + 1 / (count - 1))[:, ~np.eye(count, dtype=bool)].max()
    simplex = tm.prediction("Dirichlet's covariance is a multiple of I - 11^T / n")
    yield tm.near(says, 0, off, simplex, within=0.05, threshold=TRAINING)


def relu_claims(results: xr.Dataset) -> tm.Claims:
    says = "ReLU models have a lower loss than the best linear model on every manifold, measured "
    says += "by the largest ratio of the losses for the best seeds."
    ratio = (results["loss"].min("seed") / results["exact_loss"]).max()
    yield tm.at_most(says, 1, ratio, FOUND)
    weights = weights_of(results, "circle")
    gram = weights.transpose(0, 2, 1) @ weights
    words = gram.shape[1]
    says = "Neighbours on the circle interfere positively in ReLU models, measured by the share of "
    says += "pairs of neighbours over all seeds."
    beside = np.array([np.diagonal(np.roll(each, 1, axis=0)) for each in gram])
    yield tm.at_least(
        says, 0.95, (beside > 0).mean(), PRIETO, threshold="Ours, because the paper says all."
    )
    says = "ReLU models keep the order of the circle, measured by the share of words over all "
    says += "seeds whose nearest direction is that of a neighbour."
    without_itself = cosines(weights) - 9 * np.eye(words)
    steps = abs(without_itself.argmax(axis=1) - np.arange(words))
    near = np.isin(steps, [1, words - 1]).mean()
    yield tm.at_least(says, 0.9, near, PRIETO, threshold="Ours, because the paper shows one model.")
    says = "Cosines of ReLU models on the circle are mostly a function of the distance, measured "
    says += "by the mean share of their variance that the distance explains."
    most = "Ours, because nine tenths are most of the variance."
    share = results["by_distance"].sel(manifold="circle").mean()
    yield tm.at_least(says, 0.9, share, FOUND, threshold=most)


def cosines(weights: np.ndarray) -> np.ndarray:
    """Return the cosines between directions, for models x hidden x words."""
    directions = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    return directions.transpose(0, 2, 1) @ directions


def weights_of(results: xr.Dataset, manifold: str) -> np.ndarray:
    """Return the weights of all seeds without padding, seeds x hidden x words."""
    padded = results["weights"].sel(manifold=manifold).transpose("seed", "hidden", "word")
    return padded.dropna("hidden", how="all").dropna("word", how="all").values


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, (above, below) = plotting.figure(2, 4, size=(9, 5.2))
    known = places_on(Config(around=results.attrs["around"], side=results.attrs["side"]))
    modes = embeddings.circulant_eigenvalues(results["covariance"].values[0])
    number = np.arange(len(modes) // 2 + 1)
    above[0].bar(number, modes[number], color=["C1" if each == 1 else "0.6" for each in number])
    above[0].set(xlabel="harmonic", ylabel="eigenvalue", title="circle: the spectrum")
    sharpness = float(results.attrs["sharpness"])
    for axes, name in ((above[1], "circle"), (above[3], "interval")):
        draw_directions(axes, best_linear(*known[name], sharpness).weights, f"{name}: best linear")
    draw_directions(above[2], best_weights(results, "circle"), "circle: ReLU model")
    for axes, (name, (places, hidden)) in zip(below, known.items(), strict=True):
        first, second = np.triu_indices(len(places), 1)
        distance = chords(places)[first, second]
        models = {"best linear": best_linear(places, hidden, sharpness).weights}
        if name in results["loss"].dropna("manifold")["manifold"]:
            models["ReLU"] = best_weights(results, name)
        for number, (label, weights) in enumerate(models.items()):
            cosine = cosines(weights[None])[0][first, second]
            axes.plot(distance, cosine, "o^"[number], color=f"C{number}", ms=3, label=label)
        line = np.linspace(0, 2, 50)
        if name in HOMOGENEOUS:
            axes.plot(line, 1 - line**2 / 2, color="0.5", lw=0.8, label="places", zorder=0)
        axes.set(xlabel="distance of the places", ylim=(-1.15, 1.15))
        axes.set_title(f"{name}, {len(places)} words\nin {hidden} dimensions")
    below[0].set_ylabel("cosine of the directions")
    below[0].legend(fontsize=7, loc="lower left")
    return figure


def best_weights(results: xr.Dataset, manifold: str) -> np.ndarray:
    """Return the weights of the seed of the lowest loss, hidden x words."""
    seed = int(results["loss"].sel(manifold=manifold).values.argmin())
    return weights_of(results, manifold)[seed]


def draw_directions(axes: plotting.Axes, weights: np.ndarray, title: str) -> None:
    """Draw the directions of the words of one model, joined in the order of the words."""
    closed = [*range(weights.shape[1])] + [0] * title.startswith("circle")
    axes.plot(*weights[:, closed], color="0.7", lw=1, zorder=0)
    colors = np.arange(weights.shape[1])
    axes.scatter(*weights, c=colors, cmap="twilight_shifted", s=28, edgecolors="black", lw=0.4)
    reach = 1.15 * abs(weights).max()
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=(), yticks=())
    axes.set_title(title)


if __name__ == "__main__":
    experiment.main(__file__)
