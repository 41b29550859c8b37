"""The score of a method: 1 for the best possible, 0 for random directions, blind to units."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy import stats

import toymodels as tm
from toymodels.analysis import readouts
from toymodels.scoring.method import separation

EXAMPLES, FEATURES, NOISE = 2000, 3, 0.5


@functools.cache
def orthogonal(seed=0):
    """Return a model with a dimension for each feature. The best readout of feature i is h_i."""
    rng = np.random.default_rng(seed)
    features = (rng.uniform(size=(2, EXAMPLES, FEATURES)) < 0.3).astype(np.float32)
    hidden = features + NOISE * rng.normal(size=features.shape).astype(np.float32)
    half = slice(EXAMPLES // 2, None)
    best = np.diagonal(separation(hidden[1][half], features[1][half] > 0))
    names = {"seen_features": (0, "feature"), "fresh_features": (1, "feature")}
    arrays = {name: (("example", last), features[i]) for name, (i, last) in names.items()}
    for i, name in enumerate(("seen_hidden", "fresh_hidden")):
        arrays[name] = (("example", "dimension"), hidden[i])
    arrays["weights"] = (("dimension", "feature"), np.eye(FEATURES, dtype=np.float32))
    arrays["bias"] = ("feature", np.zeros(FEATURES, np.float32))
    arrays["ceiling"] = ("feature", best)
    arrays["features_per_dimension"] = ((), 1.0)
    return xr.Dataset(arrays).expand_dims(density=[0.3], seed=[seed])


def own(key, seen):
    return seen.fresh


def test_the_best_readout_has_the_score_one_and_the_ceiling_is_normal_theory():
    found = tm.score_method(own, orthogonal())
    np.testing.assert_allclose(found.score, 1, atol=1e-9)
    exact = 2 * stats.norm.cdf(1 / (NOISE * 2**0.5)) - 1  # two normals at the distance 1
    np.testing.assert_allclose(found.ceiling, exact, atol=0.03)


def test_random_directions_have_the_score_zero_on_average():
    models = orthogonal()
    scores = [
        tm.score_method(
            lambda key, seen, i=i: seen.fresh @ jax.random.normal(jax.random.key(i), (3, 3)), models
        ).score.item()
        for i in range(30)
    ]
    assert abs(np.mean(scores)) < 4 * np.std(scores) / 30**0.5


def test_units_signs_order_and_increasing_maps_do_not_matter():
    def turned(key, seen):
        return -jnp.exp(3 * seen.fresh[:, ::-1]) + 7

    models = orthogonal()
    assert tm.score_method(turned, models).score.item() == pytest.approx(1, abs=1e-9)


def test_a_feature_without_a_column_counts_nothing():
    models = orthogonal()
    found = tm.score_method(lambda key, seen: seen.fresh[:, :1], models)
    ceiling = models.ceiling.values.ravel()
    np.testing.assert_allclose(found.value.item(), ceiling[0] / FEATURES, rtol=1e-9)


def test_what_does_not_depend_on_the_activation_has_no_value():
    found = tm.score_method(lambda key, seen: jnp.ones((EXAMPLES, 5)), orthogonal())
    assert found.value.item() == 0
    assert found.score.item() < 0


def test_the_separation_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    estimates, labels = 1.0 * rng.integers(0, 4, (40, 2)), rng.uniform(size=(40, 3)) < 0.4
    found = separation(estimates, labels)
    for i in range(3):
        for k in range(2):
            differences = estimates[labels[:, i], k][:, None] - estimates[~labels[:, i], k]
            np.testing.assert_allclose(found[i, k], np.sign(differences).mean(), atol=1e-12)


@functools.cache
def ladder():
    training = tm.Recipe(steps=200, batch=32, learning_rate=3e-2)
    few = tm.Ladder(
        num_features=3,
        hidden=2,
        densities=(0.5, 0.2),
        num_seeds=2,
        examples=1024,
        training=training,
    )
    return few, few.train()


def test_the_ceiling_of_a_ladder_is_the_posterior_by_bayes():
    few, models = ladder()
    cell = models.isel(density=1, seed=0)
    states = np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T
    weights = cell.weights.transpose("dimension", "feature").values
    distance = cell.fresh_hidden.values[:, None] - states @ weights.T
    p = cell.density.item()
    chance = np.prod(np.where(states > 0, p, 1 - p), axis=1)
    likelihood = chance * np.exp(-(distance**2).sum(-1) / (2 * few.noise**2))
    posterior = likelihood @ states / likelihood.sum(1, keepdims=True)
    half = slice(few.examples // 2, None)
    found = np.diagonal(separation(posterior[half], cell.fresh_features.values[half] > 0))
    np.testing.assert_allclose(cell.ceiling, found, atol=5e-3)


def test_a_method_sees_the_model_that_made_the_activations():
    _, models = ladder()

    def method(key, seen):
        made = jax.vmap(lambda x: tm.activations(seen.model, seen.params, x)["hidden"])
        noise = seen.hidden - made(seen.features)
        assert abs(float(noise.std()) - 0.2) < 0.02
        return seen.fresh @ seen.params["weights"]

    found = tm.score_method(method, models)
    assert set(found.score.dims) == {"density", "seed"}
    assert (found.value < found.ceiling + 0.02).all()  # Neyman and Pearson, in expectation
    jitted = tm.score_method(jax.jit(lambda key, seen: seen.fresh @ seen.params["weights"]), models)
    np.testing.assert_allclose(jitted.score, found.score, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda key, seen: seen.fresh[:5], r"returned shape \(5, 3\): give one row"),
        (lambda key, seen: seen.fresh[:, 0], "one column or more"),
        (lambda key, seen: seen.fresh * jnp.nan, "not finite"),
    ],
)
def test_a_wrong_answer_gets_one_line(method, message):
    with pytest.raises(tm.InputError, match=message) as caught:
        tm.score_method(method, orthogonal())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_features": 17}, "takes 16 or fewer"),
        ({"noise": 0.0}, "noise is 0"),
        ({"examples": 1000}, "multiple of 128"),
        ({"densities": (1.0,)}, "between 0 and 1"),
    ],
)
def test_a_ladder_refuses_what_has_no_ceiling(settings, message):
    training = tm.Recipe(steps=1, batch=1, learning_rate=1e-2)
    with pytest.raises(tm.InputError, match=message):
        tm.Ladder(training=training, **settings).train()


def test_one_model_of_a_ladder_has_the_score_that_it_has_among_others():
    models = xr.concat([orthogonal(0), orthogonal(1)], "seed")
    both = tm.score_method(own, models).score
    np.testing.assert_array_equal(tm.score_method(own, models.isel(seed=1)).score, both[:, 1])
    one = tm.score_method(own, models.isel(seed=1, density=0)).score
    np.testing.assert_array_equal(one, both[0, 1])


def test_a_model_whose_training_diverged_has_no_score_and_costs_no_other():
    models = xr.concat([orthogonal(0), orthogonal(1)], "seed")
    wrong = ("weights", "seen_hidden", "fresh_hidden", "ceiling")
    broken = models.assign({name: models[name].where(models.seed == 0) for name in wrong})
    score = tm.score_method(own, broken).score
    np.testing.assert_array_equal(score.sel(seed=0), tm.score_method(own, models).score.sel(seed=0))
    assert np.isnan(score.sel(seed=1)).all()


def test_models_that_are_no_ladder_are_refused():
    with pytest.raises(tm.InputError, match="Ladder"):
        tm.score_method(own, xr.Dataset())


def test_the_posterior_of_the_library_is_that_of_one_feature():
    """The log odds of one feature are linear in h: log p/(1-p) + (h - 1/2) / noise^2."""
    states, log_weights = readouts.binary_states(jnp.asarray([0.3]))
    hidden = jnp.linspace(-1, 2, 7)[:, None]
    odds = readouts.posterior_log_odds(
        hidden, states.astype(float), log_weights, states[:, 0], noise=NOISE
    )
    exact = np.log(0.3 / 0.7) + (hidden[:, 0] - 0.5) / NOISE**2
    np.testing.assert_allclose(odds, exact, rtol=1e-4, atol=1e-4)
