r"""King - man + woman: directions of concepts in trained models whose right answers are known.

Claim      A linear encoder makes every analogy a parallelogram and every concept a direction, even
           in too few dimensions for the model to read the answer: analogies tell of the encoder
           and not of what the model knows. ReLU neurons break both at no loss. Independent concepts
           are orthogonal in the causal inner product as soon as the words span all concepts,
           whatever the weights; the values of a concept are then a regular simplex. A circle stays
           a circle in superposition if features are sparse, and looks like noise if they are not.
Words      Three concepts of 2, 3 and 4 values, 24 words. In training each concept applies half of
           the time, in the words always. All concepts but the last are one attribute of an analogy.
Model      $h = f(W x)$, $y = \mathrm{ReLU}(W^\top h + b)$ with $f(z) = z$ for $z > 0$, else
           $(1 - \beta) z$: `ReLUOutput` at a bend of $\beta = 0$, `ReLUHidden` at $\beta = 1$.
Metric     The causal inner product of Park et al. is $u^\top M v$ with $M$ the (pseudo)inverse of
           the covariance of the words' hidden vectors; the Euclidean one is $u^\top v$.
Circles    Six in eight dimensions, $y = f(W^\top W x + b)$ with $f(z) = 0$ up to $|z| = 1/2$ and a
           slope of 1 beyond. The plane of each circle is read, $W_c^+ h$, where it is present.
Source     Park et al. (2024), Engels et al. (2025); there is no figure with these settings.
Selection  None: every seed; circles whose plane has no singular value below 1/2.
Command    toymodels run experiments/concept_directions.py
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from scipy import linalg

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import concepts, geometry, irreducibility, linearity, probing

SUMS = tm.identity("sums of directions")
NOT_PARALLEL = tm.identity("sums of directions, none parallel")
SPANNED = tm.finding("fewer dimensions than the words span")
INTERFERENCE = tm.finding("sums of directions")
HELD_OUT = tm.identity(
    "Park, Choe, Veitch (2024), The Linear Representation Hypothesis: held-out pairs"
)
ONE_NEURON = tm.prediction("one neuron for each value would do")
DEPENDS = tm.finding("h(king) - h(man) depends on the rest of the word")
INVERSE = tm.identity("M = Cov^+")
PARK = tm.identity("Park, Choe, Veitch (2024), The Linear Representation Hypothesis")
EUCLIDEAN = tm.finding("found here, after Park, Choe, Veitch (2024)")
CATEGORIES = tm.identity(
    "Park et al. (2024), The Geometry of Categorical and Hierarchical Concepts"
)
NO_INTERFERENCE = tm.prediction("no interference at the optimum")
A_SQUARE = tm.finding("cosines 0, 0, -1 for -1/3: sqrt(2) / 3")
_CIRCLES = "Engels et al. (2025), Not All Language Model Features Are One-Dimensionally Linear"
MIXTURE = tm.paper(f"{_CIRCLES}: a circle has 0.2187")
SEPARABILITY = tm.paper(f"{_CIRCLES}: a circle has 1.50 bits")
NOISE = tm.finding("found here, after Engels et al. (2025): other circles add up")
ROUNDING, CONVERGENCE = (
    "Ours, because numbers are rounded.",
    "Ours, because training does not converge entirely.",
)

SIZES = (2, 3, 4)
FEATURES = sum(SIZES)
VALUES = np.array(list(itertools.product(*map(range, SIZES))))
"""The value of each concept in each word; the last concept changes fastest."""
WORDS = np.array([np.concatenate(word) for word in itertools.product(*map(np.eye, SIZES))])
OWNER = np.repeat(range(len(SIZES)), SIZES)
"""The concept of each feature."""
LAST = SIZES[-1]
MEANS = (WORDS / WORDS.sum(axis=0)).T
"""Matrix from words to the mean of all words that share a value."""
CONTRASTS = linalg.block_diag(*(np.eye(k)[1:] - np.eye(k)[0] for k in SIZES))
"""Matrix from values to their differences from the first value of the concept."""
SPAN = sum(SIZES) - len(SIZES)
SQUARE = 2**0.5 / 3
"""Deviation of a square from a simplex: its cosines are 0, 0 and -1 where a simplex has -1/3."""
NUM_BINS = 10
CIRCLE = {"separability": 1.50, "mixture": 0.2187}
"""Exact indices of a circle with ten bins and epsilon = 0.1: see `irreducibility`."""
GAUSSIAN = {"separability": 0.0, "mixture": 0.0797}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    hidden: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    bends: tuple[float, ...] = (0.0, 0.5, 1.0)
    density: float = 0.5
    num_circles: int = 6
    circle_hidden: int = 8
    circle_densities: tuple[float, ...] = (1.0, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
    threshold: float = 0.5
    num_seeds: int = 6
    training: tm.Recipe = tm.Recipe(steps=4000, batch=512, learning_rate=5e-3)
    examples: int = 8192
    """Examples of each circle."""


SMOKE = Config(
    hidden=(2, 8),
    bends=(0.0, 1.0),
    circle_densities=(1.0, 0.1),
    num_seeds=2,
    training=tm.Recipe(steps=10, batch=32, learning_rate=5e-3),
    examples=256,
)


def bent(preactivation, bend):
    """Return the identity for a bend of 0, ReLU for 1."""
    return preactivation - bend * jnp.minimum(preactivation, 0)


def encoder(hidden, bend) -> tm.Tied:
    """Return the tied model of which only the first `hidden` neurons are used.

    So the number of neurons can be swept without another program.
    """

    def used(preactivation):
        return jnp.where(jnp.arange(FEATURES) < hidden, bent(preactivation, bend), 0.0)

    return tm.Tied(FEATURES, hidden_activation=used)


def analogies():
    """Return king, man, woman and queen of every analogy, as numbers of words."""
    rest = len(WORDS) // LAST
    a, other_a, b, other_b = np.indices((rest, rest, LAST, LAST)).reshape(4, -1)
    proper = (a != other_a) & (b != other_b)
    corners = ((a, b), (other_a, b), (other_a, other_b), (a, other_b))
    king, man, woman, queen = ((i * LAST + j)[proper] for i, j in corners)
    return king, man, woman, queen


def angles(found):
    """Measure the largest cosine of different concepts, and how far the last is from a simplex."""
    means = MEANS @ found
    directions = CONTRASTS @ means
    owner = np.repeat(range(len(SIZES)), np.array(SIZES) - 1)
    apart = owner[:, None] != owner[None, :]
    causal = concepts.causal_metric(found)
    centred = found - jnp.mean(found, axis=0)[None, :]
    measured = {"span": jnp.sum(causal * (centred.T @ centred)) / len(found)}
    for name, metric in (("causal", causal), ("euclidean", jnp.eye(found.shape[1]))):
        cosines = jnp.where(apart, concepts.cosines(directions, metric), 0.0)
        measured[name] = jnp.max(jnp.abs(cosines))
        measured[f"{name}_simplex"] = concepts.simplex_deviation(means[-LAST:], metric)
    return measured


def words_of(config: Config) -> xr.Dataset:
    """Measure analogies, directions and angles of all words, over sizes and bends of encoders."""
    words = jnp.asarray(WORDS, float)
    king, man, woman, queen = analogies()
    order = np.random.default_rng(0).permuted(np.tile(range(len(WORDS)), (10, 1)), axis=1)
    one, other = order.reshape(-1, 2).T

    def cell(key, *, hidden, bend):
        task = tm.Task(tm.Concepts(SIZES, config.density))
        trained = config.training.train(key, encoder(hidden, bend), task, snapshots=(0,))
        used = (jnp.arange(FEATURES) < hidden)[:, None]
        weights, bias = jnp.where(used, trained.params["weights"], 0.0), trained.params["bias"]
        start = jnp.where(used, trained.snapshots["weights"][0], 0.0)

        def read(vector):
            blocks = jnp.split(weights.T @ vector + bias, np.cumsum(SIZES)[:-1])
            return jnp.stack([jnp.argmax(block) for block in blocks])

        found, first = (bent(words @ matrix.T, bend) for matrix in (weights, start))
        both = jax.vmap(angles)(jnp.stack([found, first]))
        world = found.reshape(-1, LAST, found.shape[1])
        answers = jax.vmap(read)(found[king] - found[man] + found[woman])
        sexes = found.reshape(2, -1, found.shape[1])
        gram = jnp.where(OWNER[:, None] != OWNER[None, :], geometry.gram(weights), 0.0)
        of_sexes = concepts.held_out_cosines(sexes[1] - sexes[0])
        of_random_pairs = concepts.held_out_cosines(found[one] - found[other])
        return {
            "loss": trained.loss,
            "interference": jnp.max(jnp.abs(gram)),
            "parallelogram": linearity.parallelogram_error(world),
            "included": linearity.analogy_accuracy(world, exclude_inputs=False),
            "excluded": linearity.analogy_accuracy(world, exclude_inputs=True),
            "decoded": jnp.mean(jnp.all(answers == VALUES[queen], axis=1)),
            "read": jnp.mean(jnp.all(jax.vmap(read)(found) == VALUES, axis=1)),
            "auroc": probing.auroc(
                jnp.concatenate([of_sexes, of_random_pairs]),
                jnp.arange(of_sexes.size + of_random_pairs.size) < of_sexes.size,
            ),
            **{name: pair[0] for name, pair in both.items()},
            **{f"start_{name}": pair[1] for name, pair in both.items()},
        }

    axes = {"hidden": config.hidden, "bend": config.bends}
    return tm.sweep(cell, axes=axes, num_seeds=config.num_seeds)


def circles_of(config: Config) -> xr.Dataset:
    """Measure both indices of every circle, over densities."""

    def activation(z):
        return z - jnp.clip(z, -config.threshold, config.threshold)

    model = tm.ReLUOutput(config.circle_hidden, activation=activation)
    turns = jnp.arange(8) * jnp.pi / 16
    views = jnp.stack([jnp.cos(2 * turns), jnp.sin(2 * turns)], axis=1)
    offsets = jnp.concatenate([jnp.linspace(-1.2, 1.2, 25), jnp.array([-0.8866, 0.8866])])

    def cell(key, *, circle_density):
        features = tm.Circles(config.num_circles, circle_density)
        trained = config.training.train(key, model, tm.Task(features))
        key_others, key_circle = jax.random.split(jax.random.fold_in(key, 1))
        others = features.sample(key_others, config.examples)
        circle = tm.Circles(1, 1.0).sample(key_circle, config.examples)

        def of(index):
            plane = lax.dynamic_slice_in_dim(trained.params["weights"], 2 * index, 2, axis=1)
            examples = lax.dynamic_update_slice_in_dim(others, circle, 2 * index, axis=1)
            # One decomposition: two that do not wait for each other can block a CPU's pool.
            left, lengths, right = jnp.linalg.svd(plane, full_matrices=False)
            seen = examples @ trained.params["weights"].T @ (left / lengths[None, :]) @ right
            return {
                "strength": lengths[-1],
                "separability": irreducibility.separability_index(seen, turns, num_bins=NUM_BINS),
                "mixture": irreducibility.mixture_index(seen, views, offsets, epsilon=0.1),
            }

        return {"circle_loss": trained.loss, **lax.map(of, jnp.arange(config.num_circles))}

    return tm.sweep(
        cell,
        axes={"circle_density": config.circle_densities},
        num_seeds=config.num_seeds,
        dims=dict.fromkeys(("strength", "separability", "mixture"), ("circle",)),
    )


def run(config: Config) -> xr.Dataset:
    return xr.merge([words_of(config), circles_of(config)], combine_attrs="drop_conflicts")


def planes(results: xr.Dataset, name) -> xr.DataArray:
    """Return the index of circles that have a plane; others are NaN."""
    return results[name].where(results["strength"] > 1 / 2)


def claims(results: xr.Dataset):
    yield from analogy_claims(results)
    yield from causal_claims(results)
    yield from circle_claims(results)


def analogy_claims(results: xr.Dataset):
    straight, curved = results.sel(bend=0.0), results.sel(bend=1.0, hidden=results["hidden"].max())
    three = straight.sel(hidden=3, method="nearest")
    enough = straight.where(straight["hidden"] > 3, drop=True)

    says = "Every analogy of linear encoders is a parallelogram: largest closing error."
    error = straight["parallelogram"].max()
    yield tm.near(says, 0, error, SUMS, within=1e-5, threshold=ROUNDING)

    says = (
        "All analogies of linear encoders of 4 and more dimensions find their word, with no input "
        "excluded: smallest share of all seeds."
    )
    yield tm.near(says, 1, enough["included"].min(), NOT_PARALLEL, within=0)

    says = (
        "All analogies of linear encoders of 3 dimensions find their word, with no input excluded: "
        "median share."
    )
    yield tm.near(says, 1, three["included"].median(), NOT_PARALLEL, within=0)

    says = (
        "The decoder of linear models of 3 dimensions can read few of the analogies' answers: "
        "median share."
    )
    half = "Ours, because it is little more than half."
    yield tm.at_most(says, 0.6, three["decoded"].median(), SPANNED, threshold=half)

    says = (
        "Different concepts interfere in linear encoders of 3 dimensions, which does not hurt "
        "their analogies: median of the largest |W_i.W_j|."
    )
    parallel = "Ours, because it is half of what parallel concepts would have."
    interference = three["interference"].median()
    yield tm.at_least(says, 0.5, interference, INTERFERENCE, threshold=parallel)

    says = (
        "The direction of a concept is found from other pairs of words in linear encoders of 4 and "
        "more dimensions: smallest AUROC of all seeds."
    )
    yield tm.near(says, 1, enough["auroc"].min(), HELD_OUT, within=0)

    says = "Models of ReLU neurons in all dimensions read their words: median share."
    missed = "Ours, because two words in a hundred may be missed."
    yield tm.near(says, 1, curved["read"].median(), ONE_NEURON, within=0.02, threshold=missed)

    says = (
        "Some analogies of models of ReLU neurons in all dimensions miss their word: median share "
        "that find it."
    )
    twenty = "Ours, because it leaves at least one analogy in twenty."
    yield tm.at_most(says, 0.95, curved["included"].median(), DEPENDS, threshold=twenty)

    says = (
        "Analogies of models of ReLU neurons in all dimensions are no parallelograms: median "
        "closing error."
    )
    no_number = "Ours, because the source gives no number."
    yield tm.at_least(says, 0.3, curved["parallelogram"].median(), DEPENDS, threshold=no_number)


def causal_claims(results: xr.Dataset):
    straight, spans = results.sel(bend=0.0), results["hidden"] >= SPAN
    five = straight.sel(hidden=5, method="nearest")

    says = (
        "The causal metric of random linear encoders measures as many dimensions as vary: largest "
        "|trace(M Cov) - min(m, 6)|."
    )
    difference = abs(straight["start_span"] - np.minimum(straight["hidden"], SPAN)).max()
    yield tm.near(says, 0, difference, INVERSE, within=1e-3, threshold=ROUNDING)

    says = (
        "Different concepts are orthogonal in the causal metric of random linear encoders whose "
        "words span all concepts: largest |cos|."
    )
    largest = straight["start_causal"].where(spans).max()
    yield tm.near(says, 0, largest, PARK, within=1e-3, threshold=ROUNDING)

    says = (
        "Different concepts are not orthogonal in the Euclidean metric of random linear encoders "
        "that have words spanning all concepts: median of the largest |cos|."
    )
    cosine = straight["start_euclidean"].where(spans).median()
    yield tm.at_least(says, 0.5, cosine, EUCLIDEAN, threshold="Ours, because it is clearly not 0.")

    says = (
        "The values of the last concept are a regular simplex in the causal metric of random "
        "linear encoders that have words spanning all concepts: largest deviation."
    )
    largest = straight["start_causal_simplex"].where(spans).max()
    yield tm.near(says, 0, largest, CATEGORIES, within=1e-3, threshold=ROUNDING)

    says = (
        "Different concepts are orthogonal in the Euclidean metric of trained linear encoders of 5 "
        "dimensions: median of the largest |cos|."
    )
    cosine = five["euclidean"].median()
    yield tm.near(says, 0, cosine, NO_INTERFERENCE, within=0.02, threshold=CONVERGENCE)

    says = (
        "Four exclusive values are a square of two antipodal pairs in the causal metric of trained "
        "linear encoders of 5 dimensions: median deviation from a simplex."
    )
    deviation = five["causal_simplex"].median()
    yield tm.near(says, SQUARE, deviation, A_SQUARE, within=0.01, threshold=CONVERGENCE)


def circle_claims(results: xr.Dataset):
    found = {name: planes(results, name).mean(("seed", "circle")) for name in CIRCLE}
    sparse = results["circle_density"].min()
    mixture, separability = (each.sel(circle_density=sparse) for each in reversed(found.values()))

    says = (
        "The mixture index of circles in superposition is that of a circle at the lowest density: "
        "mean."
    )
    twenty = "Ours, because it is a twentieth of the paper's number."
    yield tm.near(says, CIRCLE["mixture"], mixture, MIXTURE, within=0.01, threshold=twenty)

    says = (
        "The separability index of circles in superposition is that of a circle at the lowest "
        "density: mean, with ten bins."
    )
    note = (
        "One example in ten has another circle on top, which breaks the exact relation of the "
        "coordinates: planted noise in a tenth of the examples of a circle leaves 0.7 to 1.4 bits. "
        "The mixture index is robust against that."
    )
    bits, fifteen = CIRCLE["separability"], "Ours, because it is a fifteenth of the paper's number."
    how = {"within": 0.1, "threshold": fifteen, "note": note}
    yield tm.near(says, bits, separability, SEPARABILITY, **how)

    says = (
        "The mixture index of circles of middle density is nearer to that of a Gaussian than to "
        "that of a circle: smallest mean over densities below 1/2."
    )
    middle = found["mixture"].where(found["mixture"]["circle_density"] < 0.5).min()
    half_way = (CIRCLE["mixture"] + GAUSSIAN["mixture"]) / 2
    between = "Ours, because it is half way between a circle and a Gaussian."
    yield tm.at_most(says, half_way, middle, NOISE, threshold=between)


def plot(results: xr.Dataset):
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.2))
    straight, curved = results.sel(bend=0.0), results.sel(bend=1.0)
    (closing, answers, direction), (orthogonal, simplex, circles) = grid
    for axes, name, label in (
        (closing, "parallelogram", "closing error / side"),
        (direction, "auroc", "AUROC against random pairs"),
    ):
        plotting.every_seed(axes, straight[name], x="hidden", label="linear encoder")
        plotting.every_seed(axes, curved[name], x="hidden", label="ReLU encoder")
        axes.set_ylabel(label)
    closing.set(ylim=(-0.05, 1.3), title="Analogies are parallelograms\nin linear encoders only")
    direction.set_title("A concept of a linear encoder\nis a direction")

    plotting.every_seed(answers, straight["included"], x="hidden", label="linear: word found")
    plotting.every_seed(answers, curved["included"], x="hidden", label="ReLU: word found")
    plotting.every_seed(answers, straight["decoded"], x="hidden", label="linear: decoder reads it")
    answers.set(ylim=(-0.03, 1.5), ylabel="share of king - man + woman")
    answers.set_yticks((0, 0.5, 1))
    answers.set_title("Queen is found even where\nthe decoder cannot read it")

    for axes, suffix in ((orthogonal, ""), (simplex, "_simplex")):
        for label, name in (
            ("random: Euclidean", f"start_euclidean{suffix}"),
            ("random: causal", f"start_causal{suffix}"),
            ("trained: causal", f"causal{suffix}"),
        ):
            plotting.every_seed(axes, straight[name], x="hidden", label=label)
        axes.axvline(SPAN, color="0.7", linewidth=1, zorder=0)
    orthogonal.set(ylabel="largest |cos| of two concepts")
    orthogonal.set_title("Concepts are causally orthogonal\nonce words span them (grey line)")
    simplex.axhline(SQUARE, color="black", linewidth=1)
    simplex.text(8, SQUARE + 0.02, "a square", ha="right")
    simplex.set(ylabel="deviation of cosines from -1/3")
    simplex.set_title("Then four values are a simplex;\ntrained ones a square before")

    for name, color in (("mixture", "C0"), ("separability", "C1")):
        relative = (planes(results, name) / CIRCLE[name]).mean("circle")
        plotting.every_seed(circles, relative, x="circle_density", label=f"{name} index")
        circles.axhline(GAUSSIAN[name] / CIRCLE[name], color=color, linewidth=1, linestyle="--")
    circles.axhline(1, color="black", linewidth=1)
    plotting.density_axis(circles)
    circles.set(ylim=(-0.05, 1.4), ylabel="index / that of a circle")
    circles.set_yticks((0, 0.5, 1))
    circles.set_title("A circle looks like one if sparse\n(dashed: Gaussian noise)")
    for axes in grid.flat:
        lines = [line for line in axes.get_lines() if line.get_gid()]
        axes.legend(
            handles=lines, fontsize=7, loc="lower left" if axes is orthogonal else "upper right"
        )
    figure.supxlabel(f"dots: each of {results.sizes['seed']} seeds, lines: medians", fontsize=8)
    for axes in (*grid[0], orthogonal, simplex):
        axes.set_xlabel("hidden dimensions $m$")
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
