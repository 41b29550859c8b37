"""Scores of dictionaries: 1 for the true one, its chance for a random one, and known failures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import toymodels as tm
from toymodels.scoring import dictionary_scores

EXAMPLES, FEATURES, DENSITY = 4000, 4, 0.3


def written(features, weights):
    """A data set of one model, as `Bench.train` returns it, with given directions."""
    weights = np.asarray(weights, np.float32)
    rows = {"seen": features[: EXAMPLES // 2], "fresh": features[EXAMPLES // 2 :]}
    arrays = {f"{name}_features": (("example", "feature"), each) for name, each in rows.items()}
    for name, each in rows.items():
        arrays[f"{name}_hidden"] = (("example", "dimension"), each @ weights.T)
    arrays["weights"] = (("dimension", "feature"), weights)
    arrays["bias"] = ("feature", np.zeros(weights.shape[1], np.float32))
    arrays["features_per_dimension"] = ((), np.sum(weights**2) / len(weights))
    return xr.Dataset(arrays).expand_dims(distribution=["written"], seed=[0])


@pytest.fixture(scope="module")
def orthogonal():
    features = tm.SparseUniform(FEATURES, DENSITY).sample(jax.random.key(0), EXAMPLES)
    return written(np.asarray(features), np.eye(FEATURES))


def score(method, models):
    return tm.score_dictionary(method, models).isel(distribution=0, seed=0)


def test_the_true_dictionary_has_perfect_scores_in_any_order_and_length(orthogonal):
    order, lengths = np.array([2, 0, 3, 1]), np.array([0.5, 2.0, 4.0, 1.0])

    def turned(key, seen):
        return tm.Dictionary(
            np.eye(FEATURES)[:, order] * lengths, seen.fresh[:, order] / lengths[None]
        )

    found = score(turned, orthogonal)
    exact = {"mcc": 1, "f1": 1, "uniqueness": 1, "explained": 1, "dead": 0, "absorption": 0}
    for name, value in {**exact, "hedging": 0, "true_hedging": 0}.items():
        assert found[name].item() == pytest.approx(value, abs=1e-6), name
    present = np.mean(orthogonal["fresh_features"] > 0) * FEATURES
    assert found["l0"].item() == pytest.approx(present.item(), rel=1e-5)
    assert found["true_l0"].item() == pytest.approx(found["l0"].item(), rel=1e-6)


def test_a_missed_feature_counts_nothing_and_loses_its_variance(orthogonal):
    def three(key, seen):
        return tm.Dictionary(np.eye(FEATURES)[:, :3], seen.fresh[:, :3], np.zeros(FEATURES))

    found = score(three, orthogonal)
    assert found["mcc"].item() == pytest.approx(3 / 4, abs=1e-6)
    assert found["f1"].item() == pytest.approx(3 / 4, abs=1e-6)
    fresh = orthogonal["fresh_features"].values[0, 0]
    left = np.sum(fresh[:, 3] ** 2) / np.sum((fresh - fresh.mean(0)) ** 2)
    assert found["explained"].item() == pytest.approx(1 - left, abs=1e-5)


def test_silent_latents_explain_the_mean_with_a_bias(orthogonal):
    def silent(key, seen):
        return tm.Dictionary(np.eye(FEATURES), np.zeros_like(seen.fresh), seen.fresh.mean(0))

    found = score(silent, orthogonal)
    assert found["explained"].item() == pytest.approx(0, abs=1e-5)
    assert (found["dead"].item(), found["l0"].item(), found["f1"].item()) == (1, 0, 0)


def test_chance_is_the_mean_cosine_of_a_random_direction():
    """One direction in the plane has the mean |cos| 2 / pi with any other one."""
    ones = np.ones((EXAMPLES // 2, 1), np.float32)
    dictionary = tm.Dictionary(jnp.ones((2, 1)), jnp.asarray(ones))
    keys = jax.random.split(jax.random.key(0), 200)
    weights = jnp.array([[1.0], [0.0]])
    scored = jax.vmap(dictionary_scores, (0, None, None, None))
    chance = scored(keys, dictionary, jnp.asarray(ones), weights).mcc_by_chance
    error = (0.5 - 4 / np.pi**2) ** 0.5 / (200 * 16) ** 0.5
    assert abs(chance.mean() - 2 / np.pi) < 4 * error


def test_scores_of_no_represented_feature_are_missing():
    ones = jnp.ones((8, 1))
    found = dictionary_scores(
        jax.random.key(0), tm.Dictionary(jnp.ones((2, 1)), ones), ones, jnp.zeros((2, 1))
    )
    means = ("mcc", "mcc_by_chance", "f1", "absorption", "hedging", "true_hedging")
    assert all(np.isnan(getattr(found, name)) for name in means)
    assert (found.l0, found.true_l0) == (1, 0)


def test_an_absorbed_parent_is_absorbed_whenever_its_child_is_present():
    tree = tm.Hierarchy((-1, 0), np.array([0.5, 0.4]), exclusive=False, smallest=1.0)
    models = written(np.asarray(tree.sample(jax.random.key(1), EXAMPLES)), np.eye(2))

    def absorbing(key, seen):  # the parent's latent is silent where the child is present
        parent, child = seen.fresh.T
        return tm.Dictionary(
            np.array([[1.0, 1.0], [0.0, 1.0]]), np.stack([parent - child, child]).T
        )

    found = score(absorbing, models)
    parent, child = models["fresh_features"].values[0, 0].T
    absorbed = child.sum() / parent.sum()
    assert found["absorption"].item() == pytest.approx(absorbed / 2, abs=1e-6)  # of two features
    recall = 1 - absorbed
    assert found["f1"].item() == pytest.approx((2 * recall / (1 + recall) + 1) / 2, abs=1e-6)
    assert found["hedging"].item() == pytest.approx(0.5**0.5 / 2, abs=1e-6)  # of (1, 1) and (1, 0)
    assert found["mcc"].item() == pytest.approx((1 + 0.5**0.5) / 2, abs=1e-6)
    assert found["explained"].item() == pytest.approx(1, abs=1e-6)


def test_features_that_the_model_ignores_do_not_count(orthogonal):
    models = orthogonal.copy(deep=True)
    models["weights"][..., 3] = 0
    models["fresh_hidden"][..., 3] = 0
    found = score(lambda key, seen: tm.Dictionary(np.eye(FEATURES), seen.fresh), models)
    assert found["mcc"].item() == pytest.approx(1, abs=1e-6)
    assert found["f1"].item() == pytest.approx(1, abs=1e-6)
    assert found["true_l0"].item() == pytest.approx(found["l0"].item(), rel=1e-6)


def test_a_bench_trains_each_distribution_and_the_table_has_a_row_for_each():
    distributions = {"rare": tm.SparseUniform(3, 0.1), "binary": tm.Binary(3, 0.3)}
    bench = tm.Bench(
        distributions=distributions, hidden=2, num_seeds=1, examples=16,
        training=tm.Recipe(steps=2, batch=8, learning_rate=1e-2),
    )  # fmt: skip
    models = bench.train()
    cell = models.sel(distribution="binary", seed=0)
    assert set(np.unique(cell["seen_features"])) <= {0, 1}
    exact = cell["seen_features"].values @ cell["weights"].values.T
    np.testing.assert_allclose(cell["seen_hidden"], exact, atol=1e-6)
    table = tm.score_dictionary(
        lambda key, seen: tm.Dictionary(np.eye(2), seen.fresh), models
    ).mean("seed").to_dataframe()  # fmt: skip
    assert list(table.index) == ["rare", "binary"]
    np.testing.assert_allclose(table["explained"], 1, atol=1e-6)


def test_the_default_distributions_have_the_densities_that_they_say():
    for name, features in tm.Bench().distributions.items():
        assert features.num_features == 20, name
        present = np.mean(np.asarray(features.sample(jax.random.key(0), 2000)) > 0, axis=0)
        if name == "trees":  # a child is present in a fifth of the examples of its root
            assert np.all(abs(present[4:] - np.repeat(present[:4], 4) / 5) < 0.03)
        if name in ("sparse", "correlated"):
            assert np.all(abs(present - 0.1) < 0.03)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda key, seen: seen.fresh, "return a tm.Dictionary"),
        (lambda key, seen: tm.Dictionary(np.eye(4), seen.fresh.T), r"the latents \(4, 2000\)"),
        (lambda key, seen: tm.Dictionary(np.eye(3), seen.fresh[:, :3]), r"shape \(3, 3\)"),
        (lambda key, seen: tm.Dictionary(np.eye(4) / 0, seen.fresh), "not finite"),
        (lambda key, seen: tm.Dictionary(np.eye(4), seen.fresh, np.ones(3)), r"bias has shape"),
        (lambda key, seen: tm.Dictionary(np.eye(4)[:, :0], seen.fresh[:, :0]), r"shape \(4, 0\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_wrong_dictionary_is_refused_in_one_line(orthogonal, method, message):
    with pytest.raises(tm.InputError, match=message):
        tm.score_dictionary(method, orthogonal)


def test_a_wrong_bench_is_refused_in_one_line(orthogonal):
    with pytest.raises(tm.InputError, match="equally many features"):
        tm.Bench(distributions={"a": tm.Binary(2, 0.1), "b": tm.Binary(3, 0.1)}).train()
    with pytest.raises(tm.InputError, match="no 'weights'"):
        tm.score_dictionary(lambda key, seen: None, orthogonal.drop_vars("weights"))
