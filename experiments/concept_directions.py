r"""King - man + woman: directions of concepts in trained models whose right answers are known.

Claim      A linear encoder makes every analogy a parallelogram and every concept a direction, even
           in too few dimensions for the model to read the answer: analogies tell of the encoder
           and not of what the model knows. ReLU neurons break both at no loss. Independent concepts
           are orthogonal in the causal inner product as soon as the words span all concepts,
           whatever the weights; the values of a concept are then a regular simplex.
Words      Three concepts of 2, 3 and 4 values, 24 words. In training each concept applies half of
           the time, in the words always. All concepts but the last are one attribute of an analogy.
Model      $h = f(W x)$, $y = \mathrm{ReLU}(W^\top h + b)$ with $f(z) = z$ for $z > 0$, else
           $(1 - \beta) z$: `ReLUOutput` at a bend of $\beta = 0$, `ReLUHidden` at $\beta = 1$.
Metric     The causal inner product of Park et al. is $u^\top M v$ with $M$ the (pseudo)inverse of
           the covariance of the words' hidden vectors; the Euclidean one is $u^\top v$.
Source     Park et al. (2024); there is no figure with these settings.
Selection  None: every seed.
Command    toymodels run experiments/concept_directions.py
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy import linalg

import toymodels as tm
from toymodels import experiment, plotting
from toymodels.analysis import classification, concepts, geometry, linearity

SUMS = tm.identity("sums of directions")
NOT_PARALLEL = tm.identity("sums of directions, none parallel")
NEARLY_PARALLEL = tm.finding("no two words are parallel, but some nearly are")
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
A_SQUARE = tm.finding("a square has the cosines 0, 0 and -1, and a simplex -1/3: sqrt(2) / 3 apart")
ROUNDING = "Ours, because numbers are rounded."
CONVERGENCE = "Ours, because training does not converge entirely."

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    hidden: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    bends: tuple[float, ...] = (0.0, 0.5, 1.0)
    density: float = 0.5
    num_seeds: int = 6
    training: tm.Recipe = tm.Recipe(steps=4000, batch=512, learning_rate=5e-3)


SMOKE = Config(
    hidden=(2, 8),
    bends=(0.0, 1.0),
    num_seeds=2,
    training=tm.Recipe(steps=10, batch=32, learning_rate=5e-3),
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


def run(config: Config) -> xr.Dataset:
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
            "auroc": classification.auroc(
                jnp.concatenate([of_sexes, of_random_pairs]),
                jnp.arange(of_sexes.size + of_random_pairs.size) < of_sexes.size,
            ),
            **{name: pair[0] for name, pair in both.items()},
            **{f"start_{name}": pair[1] for name, pair in both.items()},
        }

    axes = {"hidden": config.hidden, "bend": config.bends}
    return tm.sweep(cell, axes=axes, num_seeds=config.num_seeds)


def claims(results: xr.Dataset) -> tm.Claims:
    straight, curved = results.sel(bend=0.0), results.sel(bend=1.0, hidden=results["hidden"].max())
    three = straight.sel(hidden=3, method="nearest")
    enough = straight.where(straight["hidden"] > 3, drop=True)

    says = "Every analogy of linear encoders is a parallelogram, measured by the largest error "
    says += "with which it closes."
    error = straight["parallelogram"].max()
    yield tm.near(says, 0, error, SUMS, within=1e-5, threshold=ROUNDING)

    says = "All analogies of linear encoders of 4 and more dimensions find their word although "
    says += "none of the three given words is excluded, measured by the smallest share of all "
    says += "seeds."
    yield tm.near(says, 1, enough["included"].min(), NOT_PARALLEL, within=0)

    says = "Nearly all analogies of linear encoders of 3 dimensions find their word although none "
    says += "of the three given words is excluded, measured by the median share."
    almost = "Ours, because words are nearly parallel in 3 dimensions, and rounding decides."
    yield tm.at_least(says, 0.95, three["included"].median(), NEARLY_PARALLEL, threshold=almost)

    says = "The decoder of linear models of 3 dimensions can read few of the answers of analogies, "
    says += "measured by the median share."
    half = "Ours, because it is little more than half."
    yield tm.at_most(says, 0.6, three["decoded"].median(), SPANNED, threshold=half)

    says = "Different concepts interfere in linear encoders of 3 dimensions, which does not hurt "
    says += "their analogies, measured by the median of the largest |W_i.W_j|."
    parallel = "Ours, because it is half of what parallel concepts would have."
    interference = three["interference"].median()
    yield tm.at_least(says, 0.5, interference, INTERFERENCE, threshold=parallel)

    says = "The direction of a concept is found from other pairs of words in linear encoders of 4 "
    says += "and more dimensions, measured by the smallest AUROC of all seeds."
    yield tm.near(says, 1, enough["auroc"].min(), HELD_OUT, within=0)

    says = "Models of ReLU neurons with the most hidden dimensions decode the words that they "
    says += "encode, measured by the median share."
    missed = "Ours, because two words in a hundred may be missed."
    yield tm.near(says, 1, curved["read"].median(), ONE_NEURON, within=0.02, threshold=missed)

    says = "Some analogies of models of ReLU neurons with the most hidden dimensions miss their "
    says += "word, measured by the median share of analogies that find it."
    twenty = "Ours, because it leaves at least one analogy in twenty."
    yield tm.at_most(says, 0.95, curved["included"].median(), DEPENDS, threshold=twenty)

    says = "Analogies of models of ReLU neurons with the most hidden dimensions are no "
    says += "parallelograms, measured by the median error with which they close."
    no_number = "Ours, because the source gives no number."
    yield tm.at_least(says, 0.3, curved["parallelogram"].median(), DEPENDS, threshold=no_number)

    spans = results["hidden"] >= SPAN
    five = straight.sel(hidden=5, method="nearest")

    says = "The causal metric M of random linear encoders counts the dimensions in which words "
    says += "vary, measured by the largest |trace(M Cov) - min(m, 6)|."
    difference = abs(straight["start_span"] - np.minimum(straight["hidden"], SPAN)).max()
    yield tm.near(says, 0, difference, INVERSE, within=1e-3, threshold=ROUNDING)

    says = "Different concepts are orthogonal in the causal metric of random linear encoders whose "
    says += "words span all concepts, measured by the largest |cos|."
    largest = straight["start_causal"].where(spans).max()
    yield tm.near(says, 0, largest, PARK, within=1e-3, threshold=ROUNDING)

    says = "Different concepts are not orthogonal in the Euclidean metric of random linear "
    says += "encoders whose words span all concepts, measured by the median of the largest |cos|."
    cosine = straight["start_euclidean"].where(spans).median()
    yield tm.at_least(says, 0.5, cosine, EUCLIDEAN, threshold="Ours, because it is clearly not 0.")

    says = "The values of the last concept are a regular simplex in the causal metric of random "
    says += "linear encoders whose words span all concepts, measured by the largest deviation."
    largest = straight["start_causal_simplex"].where(spans).max()
    yield tm.near(says, 0, largest, CATEGORIES, within=1e-3, threshold=ROUNDING)

    says = "Different concepts are orthogonal in the Euclidean metric of trained linear encoders "
    says += "of 5 dimensions, measured by the median of the largest |cos|."
    cosine = five["euclidean"].median()
    yield tm.near(says, 0, cosine, NO_INTERFERENCE, within=0.02, threshold=CONVERGENCE)

    says = "Four exclusive values are a square of two antipodal pairs in the causal metric of "
    says += "trained linear encoders of 5 dimensions, measured by the median deviation from a "
    says += "simplex."
    deviation = five["causal_simplex"].median()
    yield tm.near(says, SQUARE, deviation, A_SQUARE, within=0.01, threshold=CONVERGENCE)


def plot(results: xr.Dataset) -> plotting.Figure:
    figure, grid = plotting.figure(2, 3, size=(9.0, 6.2))
    straight, curved = results.sel(bend=0.0), results.sel(bend=1.0)
    linear_and_relu = {"linear encoder": straight, "ReLU encoder": curved}
    for axes, lines, label, title in (
        (
            grid[0, 0],
            {name: each["parallelogram"] for name, each in linear_and_relu.items()},
            "closing error / side",
            "Analogies are parallelograms\nin linear encoders only",
        ),
        (
            grid[0, 1],
            {
                "linear: word found": straight["included"],
                "ReLU: word found": curved["included"],
                "linear: decoder reads it": straight["decoded"],
            },
            "share of king - man + woman",
            "Queen is found even where\nthe decoder cannot read it",
        ),
        (
            grid[0, 2],
            {name: each["auroc"] for name, each in linear_and_relu.items()},
            "AUROC against random pairs",
            "A concept of a linear encoder\nis a direction",
        ),
        (
            grid[1, 0],
            {
                "random: Euclidean": straight["start_euclidean"],
                "random: causal": straight["start_causal"],
                "trained: causal": straight["causal"],
            },
            "largest |cos| of two concepts",
            "Concepts are causally orthogonal\nonce words span them (grey line)",
        ),
        (
            grid[1, 1],
            {
                "random: Euclidean": straight["start_euclidean_simplex"],
                "random: causal": straight["start_causal_simplex"],
                "trained: causal": straight["causal_simplex"],
            },
            "deviation of cosines from -1/3",
            "Then four values are a simplex;\ntrained ones a square before",
        ),
        (
            grid[1, 2],
            {"linear encoder": straight["interference"]},
            "largest $|W_i \\cdot W_j|$ of two concepts",
            "Concepts that interfere\ndo not hurt analogies",
        ),
    ):
        for name, values in lines.items():
            plotting.every_seed(axes, values, x="hidden", label=name, legend=False)
        axes.set(xlabel="hidden dimensions $m$", ylabel=label, title=title)
        shown = [line for line in axes.get_lines() if line.get_gid()]
        axes.legend(handles=shown, fontsize=7)
    for axes in (grid[0, 0], grid[0, 1], grid[1, 0]):
        axes.set(ylim=(-0.03, 1.5), yticks=(0, 0.5, 1))  # leaves room for the legend
    for axes in grid[1, :2]:
        axes.axvline(SPAN, color="0.7", linewidth=1, zorder=0)
    grid[1, 1].axhline(SQUARE, color="black", linewidth=1)
    grid[1, 1].text(8, SQUARE + 0.02, "a square", ha="right")
    figure.supxlabel(f"dots: each of {results.sizes['seed']} seeds, lines: medians", fontsize=8)
    return figure


if __name__ == "__main__":
    experiment.main(__file__)
