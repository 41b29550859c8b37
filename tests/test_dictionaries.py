"""Scores of dictionaries: oracles of scikit-learn and SciPy, invariances, extremes."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from sklearn import metrics

from toymodels import errors
from toymodels.analysis import activity, dictionaries, probing, reconstruction, sparse_coding
from toymodels.theory import dictionaries as exact

properties = settings(max_examples=10)
seeds = st.integers(0, 2**32 - 1)
shapes = st.sampled_from([(4, 3, 6), (4, 6, 3), (4, 6, 6)])  # hidden, latents, features


@jax.jit
def compared(dictionary, weights):
    matching = dictionaries.match(dictionary, weights)
    return {
        "match": matching,
        "mcc": dictionaries.mcc(dictionary, weights),
        "recall": dictionaries.mean_max_cosine(weights, dictionary),
        "precision": dictionaries.mean_max_cosine(dictionary, weights),
        "uniqueness": dictionaries.uniqueness(dictionary, weights),
        "hedging": dictionaries.hedging_degree(dictionary, weights, matching),
    }


firing = jax.jit(activity.firing)
absorption_rate = jax.jit(dictionaries.absorption_rate, static_argnames="min_share")


def directions(seed, shape):
    hidden, latents, features = shape
    return normal(seed, hidden, latents), normal(seed + 1, hidden, features)


def cosines(first, second):
    return np.array(
        [
            [abs(u @ v) / np.linalg.norm(u) / np.linalg.norm(v) for v in np.asarray(second).T]
            for u in np.asarray(first, np.float64).T
        ]
    )


@properties
@given(seeds, shapes)
def test_the_matching_is_that_of_scipy(seed, shape):
    dictionary, weights = directions(seed, shape)
    similarity = cosines(weights, dictionary)
    rows, columns = optimize.linear_sum_assignment(similarity, maximize=True)
    expected = np.full(shape[2], -1)
    expected[rows] = columns
    actual = compared(dictionary, weights)
    np.testing.assert_array_equal(actual["match"], expected)
    best = similarity[rows, columns].mean()
    np.testing.assert_allclose(actual["mcc"], best, rtol=1e-5)
    np.testing.assert_allclose(actual["recall"], similarity.max(axis=1).mean(), rtol=1e-5)
    np.testing.assert_allclose(actual["precision"], similarity.max(axis=0).mean(), rtol=1e-5)
    # Choosing freely is at least as good as one to one, for the side that is matched in full.
    assert actual["recall" if shape[2] <= shape[1] else "precision"] >= best - 1e-5
    nearest = len(set(similarity.argmax(axis=0)))
    np.testing.assert_allclose(actual["uniqueness"], nearest / shape[1], rtol=1e-6)


@properties
@given(seeds, shapes)
def test_order_sign_and_length_of_latents_do_not_matter(seed, shape):
    dictionary, weights = directions(seed, shape)
    latents = normal(seed + 2, 20, shape[1]) * (normal(seed + 3, 20, shape[1]) > 0)
    features = jnp.maximum(normal(seed + 4, 20, shape[2]), 0)
    rng = np.random.default_rng(seed)
    order = rng.permutation(shape[1])
    scale = jnp.asarray(rng.choice([-1, 1], shape[1]) * rng.uniform(0.5, 2, shape[1]), jnp.float32)

    def scores(dictionary, latents):
        first = compared(dictionary, weights)
        matching = first.pop("match")
        absorbed = absorption_rate(latents, dictionary, features, weights, matching, min_share=0.5)
        return [*first.values(), *firing(latents, features > 0, matching), absorbed]

    before = scores(dictionary, latents)
    after = scores((dictionary * scale[None, :])[:, order], (latents / scale[None, :])[:, order])
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@properties
@given(seeds)
def test_the_true_dictionary_has_the_best_scores(seed):
    weights = normal(seed, 4, 6)
    features = jnp.abs(normal(seed + 1, 60, 6)) * (normal(seed + 2, 60, 6) > 0)
    order = np.random.default_rng(seed).permutation(6)
    dictionary, latents = -weights[:, order], -features[:, order]
    directly = compared(dictionary, weights)
    np.testing.assert_array_equal(directly["match"], np.argsort(order))
    fired = firing(latents, features > 0, directly["match"])
    for score in (*(directly[each] for each in ("mcc", "recall", "precision")), *fired):
        np.testing.assert_allclose(score, 1, atol=1e-6)
    assert directly["uniqueness"] == 1
    hidden = features @ weights.T
    for centred in (False, True):
        explained = reconstruction.explained_variance(
            hidden, latents @ dictionary.T, centred=centred
        )
        np.testing.assert_allclose(explained, 1, atol=1e-6)
    absorbed = absorption_rate(
        latents, dictionary, features, weights, directly["match"], min_share=0.1
    )
    np.testing.assert_array_equal(absorbed, 0)
    np.testing.assert_allclose(activity.l0(latents), activity.l0(features))


@properties
@given(seeds)
def test_firing_is_that_of_scikit_learn(seed):
    # One latent never fires, one feature is never active, one has no latent.
    latents = normal(seed, 30, 4) * (normal(seed + 1, 30, 4) > 0) * jnp.array([[1, 0, 1, 1]])
    active = (normal(seed + 2, 30, 5) > 0) & jnp.array([[True, True, False, True, True]])
    matching = jnp.array([3, 1, 0, -1, 2])
    fires = np.asarray(latents != 0)[:, matching]
    fires[:, 3] = False
    expected = metrics.precision_recall_fscore_support(active, fires, zero_division=0)[:3]
    for actual, wanted in zip(firing(latents, active, matching), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-6)


@properties
@given(seeds)
def test_explained_variance_is_that_of_scikit_learn(seed):
    hidden = normal(seed, 30, 3) + 2
    guess = hidden + 0.3 * normal(seed + 1, 30, 3)
    expected = metrics.r2_score(hidden, guess, multioutput="variance_weighted")
    actual = reconstruction.explained_variance(hidden, guess, centred=True)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    about_zero = reconstruction.explained_variance(hidden, guess, centred=False)
    assert about_zero >= actual
    # The mean of the examples and their mirror images is 0.
    mirrored = [np.concatenate([each, -each]) for each in (hidden, guess)]
    expected = metrics.r2_score(*mirrored, multioutput="variance_weighted")
    np.testing.assert_allclose(about_zero, expected, rtol=1e-4)


def test_explained_variance_of_what_does_not_vary():
    constant = jnp.ones((4, 2))
    assert reconstruction.explained_variance(constant, constant, centred=True) == 1
    assert reconstruction.explained_variance(constant, 0 * constant, centred=True) == -np.inf
    assert reconstruction.explained_variance(constant, 0 * constant, centred=False) == 0


def test_l0_dead_latents_and_shrinkage_are_counted():
    latents = jnp.array([[1.0, 0.0, 0.0, 0.0], [-2.0, 0.5, 0.0, -1.0]])
    assert activity.l0(latents) == 2
    assert activity.dead_fraction(latents) == 1 / 4
    hidden = jnp.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    halves = jnp.array([[2.5, 0.0], [1.0, 0.0], [7.0, 7.0]])
    assert reconstruction.shrinkage(hidden, halves) == 0.5  # the last example has no length
    assert reconstruction.shrinkage(0 * hidden, halves) == 0


def family(angle):
    """Return features of a parent, a child and both together, in more dimensions than they need."""
    parent, child = np.array([1.0, 0, 0]), np.array([np.cos(angle), np.sin(angle), 0])
    return jnp.asarray(np.stack([parent, child], axis=1), jnp.float32)


@pytest.mark.parametrize("angle", [0.7, np.pi / 2, 2.2])
def test_absorption_is_seen_where_the_child_holds_the_parent(angle):
    weights = family(angle)
    # Three parents alone, one of them with a latent that misses it; two with a child; nothing.
    features = jnp.array([[1.0, 0], [1, 0], [1, 0], [1, 1], [0.5, 0.5], [0, 0]])
    length = float(jnp.linalg.norm(weights.sum(axis=1)))
    dictionary = jnp.stack([weights[:, 0], weights.sum(axis=1) / length], axis=1)
    latents = jnp.array([[1.0, 0], [1, 0], [0, 0], [0, length], [0, length / 2], [0, 0]])
    matching = jnp.array([0, 1])

    def rate(latents, min_share):
        return absorption_rate(
            latents, dictionary, features, weights, matching, min_share=min_share
        )

    np.testing.assert_allclose(rate(latents, 0.999), [2 / 5, 0], rtol=1e-6)
    half = latents.at[3].multiply(0.5)  # a shrunken code supplies half of the parent
    np.testing.assert_allclose(rate(half, 0.4), [2 / 5, 0], rtol=1e-6)
    np.testing.assert_allclose(rate(half, 0.6), [1 / 5, 0], rtol=1e-6)
    partial = latents.at[3, 0].set(0.01)  # its own latent fires
    np.testing.assert_allclose(rate(partial, 0.5), [1 / 5, 0], rtol=1e-6)
    # The true child of an oblique pair is no evidence of the parent, however it overlaps.
    true = absorption_rate(
        features * jnp.array([[0.0, 1.0]]), weights, features, weights, matching, min_share=0.05
    )
    np.testing.assert_array_equal(true, 0)
    with pytest.raises(errors.InputError, match="share of x_i"):
        rate(latents, 0.0)


def test_hedging_is_the_sine_of_an_angle_between_orthogonal_features():
    weights = family(np.pi / 2) * jnp.array([[2.0, 3.0]])
    mixed = exact.hedging_angle(0.3, 0.1)
    latent = jnp.array([[np.cos(mixed)], [np.sin(mixed)], [5.0]], jnp.float32)
    degrees = dictionaries.hedging_degree(latent, weights, jnp.array([0, -1]))
    np.testing.assert_allclose(degrees, [np.sin(mixed), 0], rtol=1e-5)
    oblique = family(0.7)
    mixture = oblique @ jnp.array([[1.0, 3.0], [1.0, -4.0]])

    def degree(dictionary):
        return dictionaries.hedging_degree(dictionary, oblique, jnp.arange(2))

    np.testing.assert_allclose(degree(mixture), [1 / 2**0.5, 3 / 5], rtol=1e-4)
    np.testing.assert_allclose(degree(oblique), 0, atol=1e-5)


def test_zero_columns_have_no_direction():
    weights = normal(0, 4, 6)
    actual = compared(weights.at[:, 2].set(0), weights)
    for score in ("mcc", "precision", "uniqueness"):
        np.testing.assert_allclose(actual[score], 5 / 6, rtol=1e-6)
    np.testing.assert_array_equal(actual["match"], np.arange(6))
    assert actual["hedging"][2] == 0
    nothing = compared(jnp.zeros((4, 6)), weights)
    for score in ("mcc", "recall", "precision", "uniqueness"):
        assert nothing[score] == 0


def test_a_small_dictionary_of_features_is_perfect_as_far_as_it_goes():
    weights = normal(0, 4, 6)
    actual = compared(weights[:, [2, 0, 5]], weights)
    for score in ("mcc", "precision", "uniqueness"):
        np.testing.assert_allclose(actual[score], 1, rtol=1e-6)
    assert actual["recall"] < 0.99
    np.testing.assert_array_equal(actual["match"], [1, -1, 0, -1, -1, 2])
    twice = compared(weights[:, [2, 0, 5, 2, 0, 5]], weights)
    assert twice["uniqueness"] == 0.5


def test_what_is_not_finite_ends_and_is_not_a_score():
    weights = normal(0, 4, 6)
    assert np.isnan(compared(jnp.full((4, 6), jnp.nan), weights)["mcc"])
    assert np.isnan(compared(weights.at[0, 0].set(jnp.inf), weights)["mcc"])


def test_a_stack_of_models_is_scored_as_each_alone():
    stack, weights = normal(0, 5, 4, 6), normal(1, 4, 6)
    together = jax.jit(jax.vmap(dictionaries.mcc, (0, None)))(stack, weights)
    alone = [compared(dictionary, weights)["mcc"] for dictionary in stack]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


# These take two matrices whose columns are directions.
COMPARISONS = (
    dictionaries.match,
    dictionaries.mcc,
    dictionaries.mean_max_cosine,
    dictionaries.uniqueness,
)


@pytest.fixture
def unchecked():
    """Switch off the checks of shapes that only tests make, so that calls are those of users."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "score",
    [
        *COMPARISONS,
        lambda d, w: dictionaries.hedging_degree(d, w, jnp.arange(2)),
        lambda d, w: dictionaries.absorption_rate(d.T, d, w.T, w, jnp.arange(2), min_share=0.5),
        lambda d, w: reconstruction.explained_variance(d.T, w.T, centred=True),
        lambda d, w: reconstruction.shrinkage(d.T, w.T),
        lambda d, w: sparse_coding.lasso_codes(d, w[:, 0], 0.1, iterations=1),
        lambda d, w: sparse_coding.pursuit_codes(d, w[:, 0], active=1),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_arrays_of_different_width_are_refused(score):
    with pytest.raises(
        errors.InputError, match=r"has [34] and .* has [34] dimensions: give arrays"
    ):
        score(jnp.ones((3, 2)), jnp.ones((4, 2)))


@pytest.mark.usefixtures("unchecked")
def test_arrays_of_different_length_are_refused():
    with pytest.raises(errors.InputError, match="latents has 5 and active has 6 examples"):
        activity.firing(jnp.ones((5, 2)), jnp.ones((6, 2), bool), jnp.arange(2))
    with pytest.raises(errors.InputError, match="hidden has 5 and labels has 4 examples"):
        probing.mass_mean(jnp.ones((5, 2)), jnp.array([True, False, True, True]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("rows", [1, 3])
def test_a_reconstruction_of_other_examples_is_refused(rows):
    """One row would be taken for the reconstruction of every example."""
    hidden, other = jnp.ones((5, 2)), jnp.ones((rows, 2))
    message = f"activations has 5 and reconstruction has {rows} examples"
    with pytest.raises(errors.InputError, match=message):
        reconstruction.explained_variance(hidden, other, centred=True)
    with pytest.raises(errors.InputError, match=message):
        reconstruction.shrinkage(hidden, other)


@pytest.mark.parametrize(
    "measure",
    [
        activity.l0,
        activity.dead_fraction,
        lambda none: activity.firing(none, jnp.ones((0, 2), bool), jnp.arange(2)),
        lambda none: reconstruction.explained_variance(none, none, centred=False),
        lambda none: reconstruction.shrinkage(none, none),
    ],
)
def test_measures_of_no_examples_are_refused(measure):
    """Every latent of no examples would be dead, and every reconstruction of none perfect."""
    with pytest.raises(errors.InputError, match=r"has shape \(0, 3\): give one example"):
        measure(jnp.zeros((0, 3)))


@pytest.mark.parametrize("score", COMPARISONS)
def test_a_dictionary_without_latents_is_refused(score):
    with pytest.raises(errors.InputError, match=r"has shape \(3, 0\): give one direction or more"):
        score(jnp.ones((3, 0)), jnp.ones((3, 2)))
    with pytest.raises(errors.InputError, match=r"has shape \(3, 0\): give one direction or more"):
        score(jnp.ones((3, 2)), jnp.ones((3, 0)))


@pytest.mark.parametrize("unknown", [2, -2])
def test_a_matching_of_another_dictionary_is_refused(unknown):
    """A latent that does not exist must not count as the last one, nor as one that fires."""
    matching, two, latents = jnp.array([0, unknown]), jnp.eye(2), jnp.ones((4, 2))
    for score in (
        lambda: dictionaries.matched_cosines(two, two, matching),
        lambda: dictionaries.hedging_degree(two, two, matching),
        lambda: dictionaries.absorption_rate(latents, two, latents, two, matching, min_share=0.5),
        lambda: activity.firing(latents, latents > 0, matching),
    ):
        with pytest.raises(errors.InputError, match=f"matching holds {unknown}, but there are 2"):
            score()


@pytest.mark.usefixtures("unchecked")
def test_latents_and_features_of_another_dictionary_are_refused():
    matrix, rows, matching = jnp.eye(3), jnp.ones((4, 3)), jnp.arange(3)
    with pytest.raises(errors.InputError, match="latents has 5 and dictionary has 3 latents"):
        dictionaries.absorption_rate(
            jnp.ones((4, 5)), matrix, rows, matrix, matching, min_share=0.5
        )
    with pytest.raises(errors.InputError, match="features has 5 and weights has 3 features"):
        dictionaries.absorption_rate(
            rows, matrix, jnp.ones((4, 5)), matrix, matching, min_share=0.5
        )
