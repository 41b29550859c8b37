"""Interchange interventions and the search for subspaces, on planted variables."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toymodels as tm
from toymodels import interventions as iv

DIMENSIONS, NUMBER = 6, 40_000
PLANTED = jnp.linalg.qr(
    jnp.asarray(np.random.default_rng(0).normal(size=(DIMENSIONS, DIMENSIONS)), jnp.float32)
)[0]


class Sign(nn.Module):
    """The output is the sign of the coordinate of the input along a planted direction."""

    @nn.compact
    def __call__(self, x):
        self.param("unused", nn.initializers.zeros, ())
        return jnp.tanh(5 * PLANTED[:, 0] @ tm.Site(name="hidden")(x))


PARAMS = {"unused": jnp.zeros(())}


def pairs(seed, number=NUMBER):
    return jax.random.normal(jax.random.key(seed), (2, number, DIMENSIONS))


def positive(output):
    return output > 0


def as_the_source(base, source):
    return positive(PLANTED[:, 0] @ source)


def accuracy(part, seed=1):
    bases, sources = pairs(seed)
    return iv.interchange_accuracy(
        Sign(),
        PARAMS,
        bases,
        sources,
        part,
        lambda base, source: as_the_source(base, source),
        positive,
    )


def test_the_planted_direction_has_interchange_accuracy_one():
    measured = accuracy(iv.direction("hidden", PLANTED[:, 0]))
    assert measured.all_pairs > 0.999  # but for rounding at 0
    assert measured.changing_pairs > 0.999
    np.testing.assert_allclose(measured.num_changing / NUMBER, 0.5, atol=0.02)


def test_an_orthogonal_direction_changes_nothing():
    measured = accuracy(iv.direction("hidden", PLANTED[:, 1]))
    assert measured.changing_pairs == 0
    np.testing.assert_allclose(measured.all_pairs, 0.5, atol=0.02)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_direction_at_an_angle_has_the_accuracy_of_the_closed_form(share):
    r"""The accuracy is $1/2 + (\arcsin q - \arcsin(1 - q)) / \pi$ for the squared cosine $q$."""
    vector = np.sqrt(share) * PLANTED[:, 0] + np.sqrt(1 - share) * PLANTED[:, 1]
    measured = accuracy(iv.direction("hidden", vector))
    changing = 0.5 + (np.arcsin(share) - np.arcsin(1 - share)) / np.pi
    np.testing.assert_allclose(measured.changing_pairs, changing, atol=0.015)
    np.testing.assert_allclose(measured.all_pairs, 0.5 + np.arcsin(share) / np.pi, atol=0.015)


def test_a_model_that_diverged_has_no_accuracy():
    """NaN is not positive, so a label would call half of the pairs right."""
    bases, sources = pairs(2, 8)
    diverged = iv.interchange_accuracy(
        Sign(), PARAMS, bases, sources * np.nan, iv.whole("hidden"), as_the_source, positive
    )
    healthy = accuracy(iv.direction("hidden", PLANTED[:, 0]))
    assert healthy.all_pairs == 1
    assert np.isnan(diverged.all_pairs)
    assert np.isnan(diverged.changing_pairs)


def test_without_a_changing_pair_the_share_is_nan():
    bases, sources = pairs(2, 3)
    measured = iv.interchange_accuracy(
        Sign(), PARAMS, bases, sources, iv.whole("hidden"), lambda base, source: True, positive
    )
    assert jnp.isnan(measured.changing_pairs)
    assert measured.num_changing == 0


def sample(key, batch):
    both = jax.random.normal(key, (2, batch, DIMENSIONS))
    return both[0], both[1]


def squared(output, base, source):
    return (output - jnp.tanh(5 * PLANTED[:, 0] @ source)) ** 2


def search(**changes):
    settings = {"site": "hidden", "size": 1, "optimizer": optax.adam(0.03), "steps": 300}
    return iv.align(
        jax.random.key(3), Sign(), PARAMS, sample, squared, **{**settings, **changes}, batch=64
    )


def test_the_search_finds_the_planted_direction():
    part = search()
    np.testing.assert_allclose(abs(part.basis[:, 0] @ PLANTED[:, 0]), 1, atol=2e-3)
    assert accuracy(part).changing_pairs > 0.97
    np.testing.assert_allclose(part.basis.T @ part.basis, jnp.eye(1), atol=1e-6)


def test_a_price_makes_the_search_learn_the_number_of_dimensions():
    part = search(size=3, penalty=0.5, optimizer=optax.adam(0.1), steps=600)
    np.testing.assert_allclose(jnp.sum(part.basis**2), 1, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(part.basis.T @ PLANTED[:, 0]), 1, atol=0.02)
    # At a price above what the variable is worth no dimension is left.
    assert not search(size=3, penalty=10.0).basis.any()


@pytest.mark.parametrize("density", [0.3, 0.1])
def test_the_whole_value_of_an_antipodal_pair_is_right_unless_its_features_meet(density):
    """Copying the value to set the first feature sets the second one, too."""
    p, features = density, tm.SparseUniform(2, density)
    params = {"weights": jnp.asarray([[1.0, -1.0]]), "bias": jnp.zeros(2)}
    measured = iv.interchange_accuracy(
        tm.ReLUOutput(hidden=1),
        params,
        *(features.sample(jax.random.key(seed), NUMBER) for seed in (5, 6)),
        iv.whole("hidden"),
        lambda base, source: jnp.stack([source[0], base[1]]) > 0,
        positive,
    )
    exact = p * (1 - p / 2) * (1 - p) + (1 - p) * (p**2 + (1 - p) ** 2)
    np.testing.assert_allclose(measured.all_pairs, exact, atol=0.01)  # four standard errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalty": -1.0}, "penalty is -1"),
        ({"site": "nowhere"}, "no site 'nowhere'"),
        ({"size": 7}, "at least 7"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_the_search_refuses_sites_and_sizes_that_do_not_exist(changes, message):
    with pytest.raises(tm.InputError, match=message):
        search(**changes)


class Illusion(nn.Module):
    """The hidden value is (x, 0, x) and the output 2 h_2 + h_3, so that only h_3 is used."""

    @nn.compact
    def __call__(self, x):
        self.param("unused", nn.initializers.zeros, ())
        hidden = tm.Site(name="hidden")(jnp.stack([x, 0 * x, x]))
        return 2 * hidden[1] + hidden[2]


@pytest.mark.parametrize(
    ("vector", "effect", "overlap"),
    [((1, 0, 0), 0, 0), ((0, 1, 0), 0, 0), ((0, 0, 1), 1, 1), ((1, 1, 0), 1, 0)],
)
def test_a_dormant_direction_has_an_effect_which_the_overlap_calls_an_illusion(
    vector, effect, overlap
):
    bases, sources = jax.random.normal(jax.random.key(4), (2, 8))
    part = iv.direction("hidden", jnp.asarray(vector, jnp.float32))
    arguments = (Illusion(), PARAMS, bases[0], sources[0], part)
    measured = (iv.interchange(*arguments) - bases[0]) / (sources[0] - bases[0])
    np.testing.assert_allclose(measured, effect, atol=1e-5)
    found = iv.read_write_overlap(Illusion(), PARAMS, bases, sources, part, lambda output: output)
    np.testing.assert_allclose(found, overlap, atol=1e-6)


def test_the_overlap_of_a_model_that_diverged_is_nan():
    bases, sources = jax.random.normal(jax.random.key(4), (2, 8))
    part = iv.direction("hidden", jnp.asarray([0.0, 0, 1]))
    found = iv.read_write_overlap(
        Illusion(), PARAMS, bases * np.nan, sources, part, lambda output: output
    )
    assert np.isnan(found)


def test_the_overlap_of_a_subspace_is_refused():
    bases, sources = pairs(2, 3)
    with pytest.raises(tm.InputError, match="not a direction"):
        iv.read_write_overlap(Sign(), PARAMS, bases, sources, iv.whole("hidden"), positive)
