"""Probes against scikit-learn, their invariances, and the limits of every probe."""

import inspect
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probes import FITS, accuracy, auroc, placements, properties, seeds, single
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, roc_auc_score

from toymodels import errors
from toymodels.analysis import classification, erasure, probing, readouts
from toymodels.theory import memorisation

# Traced, as in a sweep, the penalty too.
ridge = jax.jit(lambda hidden, labels, penalty: probing.ridge(hidden, labels, penalty=penalty))
logistic = jax.jit(
    lambda hidden, labels, penalty: probing.logistic(hidden, labels, penalty=penalty)
)
COMPILED = {
    "difference of means": jax.jit(probing.difference_of_means),
    "mass-mean": jax.jit(probing.mass_mean),
    "ridge": lambda hidden, labels: ridge(hidden, labels, 3.0),
    "logistic": lambda hidden, labels: logistic(hidden, labels, 0.5),
}
mass_mean, difference_of_means = COMPILED["mass-mean"], COMPILED["difference of means"]


def world(seed, examples=120):
    """Return correlated activations off the origin, and labels that shift them."""
    random = np.random.default_rng(seed)
    labels = random.random(examples) < 0.3
    labels[:2] = True, False
    mixing = random.normal(size=(3, 3)) + 2 * np.eye(3)
    hidden = (random.normal(size=(examples, 3)) + labels[:, None] * [1, -1, 0.5]) @ mixing
    return hidden + random.normal(size=3), labels


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@properties
@given(seeds, st.sampled_from([1e-2, 1.0, 100.0]))
def test_ridge_and_logistic_are_those_of_scikit_learn(seed, penalty):
    hidden, labels = world(seed)
    oracle = Ridge(alpha=penalty).fit(hidden, np.where(labels, 1.0, -1.0))
    probe = ridge(*single(hidden, labels), penalty)
    np.testing.assert_allclose(probe.direction, oracle.coef_, atol=2e-4)
    np.testing.assert_allclose(probe.intercept, oracle.intercept_, atol=1e-3)

    settled = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    settled.fit(hidden, labels)
    probe = logistic(*single(hidden, labels), penalty)
    np.testing.assert_allclose(probe.direction, settled.coef_[0], atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(probe.intercept, settled.intercept_[0], atol=1e-3, rtol=1e-3)


@properties
@given(seeds, st.sampled_from([1e-3, 1e-1]))
def test_separable_data_stay_finite(seed, penalty):
    hidden, labels = world(seed)
    hidden = hidden + 30 * labels[:, None] * np.ones(3)
    oracle = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    oracle.fit(hidden, labels)
    probe = logistic(*single(hidden, labels), penalty)
    np.testing.assert_allclose(probe.direction, oracle.coef_[0], rtol=1e-2, atol=1e-4)
    read = probing.scores(probe, *single(hidden))
    assert classification.accuracy(read, *single(labels)) == 1


def test_two_points_are_separated_half_way():
    labels = np.arange(120) % 2 == 0
    hidden = np.where(labels, 3.0, -1.0)[:, None] * np.array([1, 0, 0])
    for fit in COMPILED.values():
        probe = fit(*single(hidden, labels))
        assert np.all(np.isfinite(probe.direction))
        np.testing.assert_array_equal(probe.direction[1:], 0)
        np.testing.assert_allclose(-probe.intercept / probe.direction[0], 1, rtol=1e-5)


@properties
@given(seeds)
def test_mass_mean_is_linear_discriminant_analysis(seed):
    hidden, labels = world(seed)
    oracle = LinearDiscriminantAnalysis(solver="lsqr").fit(hidden, labels)
    probe = mass_mean(*single(hidden, labels))
    actual = probing.scores(probe, single(hidden)[0])
    np.testing.assert_allclose(actual, oracle.decision_function(hidden), atol=1e-3, rtol=1e-3)
    means = difference_of_means(*single(hidden, labels))
    shift = hidden[labels].mean(axis=0) - hidden[~labels].mean(axis=0)
    np.testing.assert_allclose(means.direction, shift, atol=1e-5)
    middle = (hidden[labels].mean(axis=0) + hidden[~labels].mean(axis=0)) / 2
    np.testing.assert_allclose(means.direction @ middle + means.intercept, 0, atol=1e-4)


@properties
@given(seeds)
def test_ridge_lies_between_the_other_two(seed):
    hidden, labels = single(*world(seed))
    weak, strong = ridge(hidden, labels, 1e-4), ridge(hidden, labels, 1e7)
    assert cosine(weak.direction, mass_mean(hidden, labels).direction) > 1 - 1e-5
    assert cosine(strong.direction, difference_of_means(hidden, labels).direction) > 1 - 1e-5


@properties
@given(seeds, st.sampled_from(sorted(FITS)))
def test_what_a_probe_reads_does_not_depend_on_the_basis(seed, name):
    hidden, labels = world(seed)
    random = np.random.default_rng(seed + 1)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    skew = turn @ np.diag([0.5, 1.0, 3.0]) @ turn[::-1]
    moves = [hidden + random.normal(size=3), hidden @ turn]
    if name == "mass-mean":
        moves.append(hidden @ skew + random.normal(size=3))
    before = probing.scores(COMPILED[name](*single(hidden, labels)), *single(hidden))
    for moved in moves:
        after = probing.scores(COMPILED[name](*single(moved, labels)), *single(moved))
        np.testing.assert_allclose(after, before, atol=2e-3)
    opposite = probing.scores(COMPILED[name](*single(hidden, ~labels)), *single(hidden))
    np.testing.assert_allclose(opposite, -before, atol=2e-3)


@properties
@given(seeds)
def test_scores_are_measured_as_by_scikit_learn(seed):
    random = np.random.default_rng(seed)
    labels = random.random(50) < 0.4
    labels[:2] = True, False
    values = (random.normal(size=50) + labels).round(1)  # with ties
    (scores, truth) = single(values, labels)
    np.testing.assert_allclose(auroc(scores, truth), roc_auc_score(labels, values), rtol=1e-6)
    share = accuracy_score(labels, values > 0)
    np.testing.assert_allclose(accuracy(scores, truth), share, rtol=1e-6)
    placed = placements(scores, truth)
    for i, value in enumerate(values):
        others = values[labels != labels[i]]
        side = (value - others) * (1 if labels[i] else -1)
        np.testing.assert_allclose(placed[i], np.mean(np.sign(side) + 1) / 2, rtol=1e-6)
    for one in (labels, ~labels):
        np.testing.assert_allclose(np.mean(placed[one]), auroc(scores, truth), rtol=1e-5)


def test_ties_infinities_and_single_classes_are_scored():
    labels = jnp.array([False, False, True, True])
    tied = jnp.array([0.0, 1.0, 1.0, 2.0])
    assert auroc(tied, labels) == 7 / 8
    assert auroc(jnp.array([-jnp.inf, 0.0, 1.0, jnp.inf]), labels) == 1
    assert auroc(jnp.array([-jnp.inf, jnp.inf, -jnp.inf, jnp.inf]), labels) == 1 / 2
    for measure in (auroc, classification.accuracy):
        assert np.isnan(measure(jnp.array([0.0, jnp.nan, 1.0, 2.0]), labels))
    assert np.isnan(auroc(jnp.arange(3.0), jnp.ones(3, bool)))
    assert np.isnan(auroc(jnp.arange(3.0), jnp.zeros(3, bool)))
    assert classification.accuracy(jnp.zeros(4), labels) == 1 / 2  # 0 is not positive


def test_the_error_of_a_difference_of_two_areas():
    random = np.random.default_rng(0)
    worlds, examples = 400, 200
    labels = random.random((worlds, examples)) < 0.3
    signal = random.normal(size=(worlds, examples)) + labels
    noisy = signal + 0.7 * random.normal(size=signal.shape)
    each = jax.jit(jax.vmap(classification.placements))
    first, second = (np.asarray(each(*single(s, labels)), float) for s in (signal, noisy))
    difference = first - second
    areas = np.mean(difference, axis=1, where=labels)
    variance = sum(
        np.var(difference, axis=1, where=chosen) / chosen.sum(axis=1)
        for chosen in (labels, ~labels)
    )
    # A standard deviation of 400 has an error of 1 / sqrt(800), DeLong's a bias of order 1 / n.
    ratio = np.sqrt(np.mean(variance)) / areas.std(ddof=1)
    assert abs(ratio - 1) < 4 / np.sqrt(2 * worlds)


@pytest.mark.parametrize("name", sorted(FITS))
def test_after_erasure_nothing_is_left_to_read(name):
    hidden, labels = world(0)
    centred, concept = hidden - hidden.mean(axis=0), labels[:, None] - labels.mean()
    moments = hidden.mean(axis=0), centred.T @ centred / 120, centred.T @ concept / 120
    eraser = erasure.least_squares_eraser(*single(*moments))
    erased = hidden @ np.asarray(eraser.matrix, float).T + np.asarray(eraser.offset, float)
    before, after = (COMPILED[name](*single(h, labels)) for h in (hidden, erased))
    # Float32 of activations away from the origin.
    assert np.linalg.norm(after.direction) < 1e-3 * np.linalg.norm(before.direction)
    if name == "difference of means":
        return  # its threshold is not the best
    scores = probing.scores(after, *single(erased))
    assert classification.accuracy(scores, *single(labels)) == np.float32(1 - labels.mean())


def counted(density_quarters, num_features=4):
    """Return all states of binary features, as often as densities of 1/4, 1/2 or 3/4 have them."""
    states = np.array(list(itertools.product([0, 1], repeat=num_features)))
    ones = np.asarray(density_quarters)
    times = np.prod(np.where(states, ones, 4 - ones), axis=1)
    return np.repeat(states, times, axis=0).astype(float)


@properties
@given(seeds)
def test_probes_point_along_the_feature_as_the_covariance_tells(seed):
    random = np.random.default_rng(seed)
    quarters = np.array([1, 1, 2, 3])
    features = counted(quarters)
    weights = random.normal(size=(3, 4)) + np.eye(3, 4)
    hidden, labels = features @ weights.T, features > 0
    density = quarters / 4
    ideal = readouts.decoding_directions(
        *single(weights, density * (1 - density)), noise=jnp.float32(1e-3)
    )
    for i in range(4):
        data = single(hidden, labels[:, i])
        assert cosine(difference_of_means(*data).direction, weights[:, i]) > 1 - 1e-5
        assert cosine(mass_mean(*data).direction, np.asarray(ideal)[:, i]) > 1 - 1e-3


def test_a_free_intercept_reads_each_class_as_often_as_it_is():
    """The derivative by the intercept vanishes at the optimum, even if a step of Newton is long."""
    random = np.random.default_rng(0)
    hidden, labels = random.standard_t(1.5, (3000, 6, 2)), random.random((3000, 6)) < 0.3
    both = labels.any(axis=1) & ~labels.all(axis=1)

    def shares(hidden, labels):
        probe = probing.logistic(hidden, labels, penalty=1e-4)
        return jnp.mean(jax.nn.sigmoid(probing.scores(probe, hidden)))

    found = jax.jit(jax.vmap(shares))(*single(hidden[both], labels[both]))
    # Scores of separable data are so large that their rounding shows.
    np.testing.assert_allclose(found, labels[both].mean(axis=1), atol=1e-3)


def test_labels_without_meaning_are_read_by_chance():
    fit = FITS["logistic"]

    def control(key):
        key_hidden, key_labels, key_order = jax.random.split(key, 3)
        hidden = jax.random.normal(key_hidden, (100, 3))
        labels = jax.random.bernoulli(key_labels, 0.4, (100,))
        probe = fit(hidden[:50], labels[:50])
        unseen = classification.auroc(probing.scores(probe, hidden[50:]), labels[50:])
        return unseen, probing.selectivity(key_order, fit, classification.accuracy, hidden, labels)

    found = jax.jit(jax.vmap(control))(jax.random.split(jax.random.key(0), 200))
    for values, chance in zip(found, (1 / 2, 0), strict=True):
        error = np.std(values, ddof=1) / np.sqrt(200)
        assert abs(np.mean(values) - chance) < 4 * error


def test_selectivity_is_what_meaning_adds():
    hidden, labels = single(*world(0))
    apart = hidden + 100 * labels[:, None]
    key = jax.random.key(0)
    fit = FITS["mass-mean"]

    @jax.jit
    def both(hidden, labels):
        permuted = jax.random.permutation(key, labels)
        control = classification.auroc(probing.scores(fit(hidden, permuted), hidden), permuted)
        return probing.selectivity(key, fit, classification.auroc, hidden, labels), control

    found, control = both(apart, labels)
    np.testing.assert_allclose(found, 1 - control, atol=1e-6)
    # Cover: four points in three dimensions can be labelled in any way.
    few = jnp.concatenate([jnp.eye(3), jnp.zeros((1, 3))])
    some = jnp.array([True, True, False, False])
    weak = partial(probing.logistic, penalty=1e-3)
    memorised = jax.jit(partial(probing.selectivity, key, weak, classification.accuracy))
    assert memorised(few, some) == 0


def test_a_weak_penalty_separates_all_that_can_be():
    hidden = single(np.random.default_rng(0).normal(size=(8, 3)))[0]
    labels = np.array(list(itertools.product([False, True], repeat=8)))[1:-1]

    def fitted(labels):
        probe = probing.logistic(hidden, labels, penalty=1e-7)
        return classification.accuracy(probing.scores(probe, hidden), labels) == 1

    count = int(jnp.sum(jax.jit(jax.vmap(fitted))(jnp.asarray(labels))))
    assert count + 2 == memorisation.separable_dichotomies(8, 4)


def test_hardly_a_penalty_on_few_points_stays_finite():
    random = np.random.default_rng(0)
    hidden, labels = 0.3 * random.normal(size=(3000, 8, 4)), random.random((3000, 8)) < 0.5
    both = labels.any(axis=1) & ~labels.all(axis=1)
    each = jax.jit(jax.vmap(partial(probing.logistic, penalty=1e-7)))
    # Some of the equations are singular in float32.
    assert np.all(np.isfinite(each(*single(hidden[both], labels[both])).direction))


@pytest.mark.parametrize("name", sorted(FITS))
def test_one_class_has_no_probe(name):
    hidden = single(np.random.default_rng(0).normal(size=(6, 2)))[0]
    for value in (True, False):
        with pytest.raises(errors.InputError, match=f"all labels are {value}"):
            FITS[name](hidden, jnp.full(6, value))
    labels = jnp.array([[True] * 6, [True, False] * 3, [False] * 6])
    each = jax.jit(jax.vmap(FITS[name], (None, 0)))(hidden, labels)
    for part in each:
        finite = np.isfinite(part).reshape(3, -1).all(axis=1)
        np.testing.assert_array_equal(finite, [False, True, False])


def test_selectivity_takes_a_list_of_truth_values():
    hidden, labels = single(*world(0))
    arguments = jax.random.key(0), probing.difference_of_means, classification.accuracy, hidden
    of_list = inspect.unwrap(probing.selectivity)(*arguments, labels.tolist())
    assert of_list == probing.selectivity(*arguments, labels)


def test_what_does_not_fit_is_refused():
    hidden, labels = single(*world(0))
    with pytest.raises(errors.InputError, match="4 examples have no invertible covariance"):
        probing.mass_mean(hidden[:4], labels[:4])
    for fit in (probing.ridge, probing.logistic):
        with pytest.raises(errors.InputError, match="penalty is 0"):
            fit(hidden, labels, penalty=0.0)
    with pytest.raises(errors.InputError, match="reads 3 dimensions and the activations have 2"):
        probing.scores(probing.Probe(jnp.ones(3), jnp.zeros(())), jnp.ones((4, 2)))
    with pytest.raises(errors.InputError, match="noise is 0"):
        readouts.decoding_directions(jnp.ones((2, 3)), jnp.ones(3), noise=0.0)


def test_auroc_has_the_precision_of_the_scores(x64):
    random = np.random.default_rng(0)
    labels, values = random.random(1000) < 0.3, random.normal(size=1000)
    actual = classification.auroc(jnp.asarray(values), jnp.asarray(labels))
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, roc_auc_score(labels, values), rtol=1e-14)
    # Counts of some thousand examples are beyond half precision.
    half, truth = jnp.arange(4000) % 7, jnp.arange(4000) % 2 == 0
    expected = roc_auc_score(np.asarray(truth), np.asarray(half))
    actual = inspect.unwrap(classification.auroc)(half.astype(jnp.float16), truth)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
