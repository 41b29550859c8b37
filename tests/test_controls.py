"""Intervals and controls of effects, held against laws of chance."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal
from scipy import stats

import toymodels as tm
from toymodels import interventions as iv


def test_the_bootstrap_covers_the_mean_as_often_as_it_says():
    """The mean of 40 normal numbers is inside a 90 % interval about 90 % of the time."""
    samples = normal(4, 400, 40, 1)

    def covers(key, values):
        interval = iv.bootstrap(key, values, num_resamples=400, level=0.9)
        return (interval.low <= 0) & (interval.high >= 0)

    keys = jax.random.split(jax.random.key(5), 400)
    share = jnp.mean(tm.jit(jax.vmap(covers))(keys, samples).astype(jnp.float32))
    assert 0.82 <= share <= 0.94  # a percentile interval of 40 is somewhat short


MODEL = tm.LinearOutput(hidden=4)
TURN = jnp.linalg.qr(normal(0, 4, 4))[0]
PARAMS = {"weights": TURN, "bias": jnp.zeros(4)}  # the identity, in a turned basis
PART = iv.direction("hidden", TURN[:, 0])  # holds feature 0
PAIRS = normal(1, 1500, 4), normal(2, 1500, 4)
LABELS = PAIRS[1][:, 0] > 0  # the sign of feature 0 of the source


def initial(key):
    return MODEL.init(key, jnp.zeros(4))["params"]


def has_label(params, part, pair, label):
    """Return 1 if output 0 has the sign of the label when the part is copied from the source."""
    output = iv.interchange(MODEL, params, *pair, part)[0]
    return ((output > 0) == label).astype(jnp.float32)


def controlled(key, params=PARAMS, **changed):
    arguments = {"part": PART, "examples": PAIRS, "labels": LABELS} | changed
    how = {"initial": initial, "num_resamples": 200}
    return iv.controlled(key, has_label, params, **arguments, **how)


ONE = jax.jit(controlled)


def test_controls_are_what_chance_gives_where_the_part_is_right():
    r"""The part is copied whole, so its effect is 1; a permuted label is right half of the time.

    A random direction that holds a share $q$ of the feature gives the label with probability
    $1/2 + \arcsin(q) / \pi$, and $q$ has the distribution Beta(1/2, 3/2) in four dimensions.
    """
    found = ONE(jax.random.key(0), PARAMS)
    np.testing.assert_allclose(found.effect, 1, atol=1e-5)
    share = stats.beta(0.5, 1.5)
    law = 0.5 + share.expect(np.arcsin) / np.pi
    standard_error = 0.5 / np.sqrt(len(LABELS))
    assert abs(found.random_direction.estimate - law) < 4 * standard_error
    assert abs(found.permuted_labels.estimate - 0.5) < 4 * standard_error
    assert found.new_model.high < found.effect.low
    for control in found[1:]:
        assert control.low < control.estimate < control.high


def test_controls_of_a_batch_of_models_are_those_of_each_alone():
    keys = jax.random.split(jax.random.key(1), 2)
    turned = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), PARAMS)
    together = jax.jit(jax.vmap(controlled))(keys, turned)
    for place in range(2):
        alone = ONE(keys[place], jax.tree.map(operator.itemgetter(place), turned))
        for found, expected in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(found[place], expected, atol=1e-6)


def test_a_random_part_has_as_many_dimensions_as_the_part():
    """A search with a price of dimensions sets the columns to 0 that it does not need."""
    part = iv.Part("hidden", (), jnp.diag(jnp.array([1.0, 0, 1, 0]))[:, :3])

    def effect(params, part, example, label):
        return jnp.sum(part.basis**2)

    found = iv.controlled(
        jax.random.key(0),
        effect,
        {},
        part,
        jnp.ones(5),
        jnp.ones(5),
        lambda key: {},
        num_resamples=1,
    )
    np.testing.assert_allclose(found.effect.estimate, 2)
    np.testing.assert_allclose(found.random_direction.estimate, 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iv.bootstrap(jax.random.key(0), jnp.zeros((0,))), "one value or more"),
        (lambda: iv.bootstrap(jax.random.key(0), jnp.zeros(3), level=1.5), "level is 1.5"),
        (
            lambda: controlled(jax.random.key(0), part=iv.unit("hidden", 0)),
            "give direction",
        ),
        (lambda: controlled(jax.random.key(0), labels=LABELS[1:]), "examples has 1500"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(call, message):
    with pytest.raises(tm.InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
