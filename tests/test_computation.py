"""Sparse examples without the empty ones, and a detector of planted motifs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from experiments import asymmetric_superposition, computation

NUM_FEATURES = 5
EXAMPLES = 2**16


@pytest.fixture(params=[1.0, 0.3, 0.01], ids="p={}".format)
def density(request):
    return request.param


def draw(density):
    def sample(key, density):
        return computation.SomeActive(NUM_FEATURES, density).sample(key, EXAMPLES)

    return np.asarray(tm.jit(sample)(jax.random.key(0), jnp.asarray(density)), float)


def test_some_feature_is_active_and_the_others_are_independent(density):
    r"""Given that some are active, P(i) = p / q and P(i and j) = p^2 / q."""
    active = draw(density) != 0
    assert active.any(axis=1).all()
    some = 1 - (1 - density) ** NUM_FEATURES
    both = active.T.astype(float) @ active / EXAMPLES
    expected = np.where(np.eye(NUM_FEATURES), density / some, density**2 / some)
    error = np.sqrt(expected * (1 - expected) / EXAMPLES)
    np.testing.assert_array_less(abs(both - expected), 5 * error + 1e-6)


def test_active_features_are_uniform_with_either_sign(density):
    values = draw(density)
    values = values[values != 0]
    moments = np.array([np.mean(values**power) for power in (1, 2, 3, 4)])
    error = np.array([1 / 3, 1 / 5 - 1 / 9, 1 / 7, 1 / 9 - 1 / 25]) ** 0.5 / len(values) ** 0.5
    np.testing.assert_array_less(abs(moments - [0, 1 / 3, 0, 1 / 5]), 5 * error)


def test_the_loss_with_the_empty_example_is_that_of_all_examples(density):
    rng = np.random.default_rng(0)
    weights_in, weights_out = rng.normal(size=(2, 3, NUM_FEATURES))
    bias = rng.normal(size=NUM_FEATURES)

    def losses(features):
        hidden = np.maximum(features @ weights_in.T, 0)
        outputs = np.maximum(hidden @ weights_out + bias, 0)
        return ((abs(features) - outputs) ** 2).sum(axis=1)

    whole = np.zeros((EXAMPLES, NUM_FEATURES))
    present = rng.random(whole.shape) < density
    whole[present] = rng.uniform(-1, 1, present.sum())
    some = float(computation.SomeActive(NUM_FEATURES, density).probability)
    each = some * losses(draw(density)) + (1 - some) * losses(np.zeros((1, NUM_FEATURES)))
    difference = each.mean() - losses(whole).mean()
    error = np.hypot(each.std(), losses(whole).std()) / EXAMPLES**0.5
    assert abs(difference) < 4 * error


# Features 0 and 1 share neuron 0, neuron 1 inhibits; neurons 2 and 3 serve feature 2.
INTO = np.array([[2, -1 / 2, 0], [1, 0, 0], [0, 0, 1], [0, 0, -1]])
OUT = np.array([[1 / 2, 0, 0, 0], [2, -4, 0, 0], [0, 0, 1, 1]])


def places(into, out):
    return np.argwhere(asymmetric_superposition.find(into[None], out[None]).inhibited[0])


def test_a_planted_motif_is_found():
    found = asymmetric_superposition.find(INTO[None], OUT[None])
    np.testing.assert_array_equal(np.argwhere(found.inhibited), [[0, 0, 0, 1]])
    values = (found.drive, found.total, found.inhibitor, found.taken)
    np.testing.assert_array_equal([each[0, 0, 0, 1] for each in values], [4, 0, 1, -4])


@pytest.mark.parametrize(
    ("taken", "hears"),
    [
        pytest.param(0, 1, id="no inhibition"),
        pytest.param(-4, -1, id="of the other sign of A"),
        pytest.param(-3, 1, id="a quarter is left"),
    ],
)
def test_without_an_inhibitor_it_is_only_asymmetric(taken, hears):
    into, out = INTO.copy(), OUT.copy()
    into[1, 0], out[1, 1] = hears, taken
    found = asymmetric_superposition.find(into[None], out[None])
    np.testing.assert_array_equal(np.argwhere(found.asymmetric), [[0, 0, 0, 1]])
    assert not found.inhibited.any()


@pytest.mark.parametrize(("feature", "weight"), [(1, 1 / 2), (1, -1), (0, -2)])
def test_a_neuron_of_one_sign_or_ratio_or_product_is_not_asymmetric(feature, weight):
    into = INTO.copy()
    into[0, feature] = weight
    out = OUT.copy()
    out[1, 0] = 1 / abs(into[0, 1])
    assert not asymmetric_superposition.find(into[None], out[None]).asymmetric.any()


@pytest.mark.parametrize("seed", range(5))
def test_motifs_move_with_neurons_and_features_and_know_no_sign_or_scale(seed):
    rng = np.random.default_rng(seed)
    neurons, features = rng.permutation(4), rng.permutation(3)
    scale = rng.uniform(0.1, 10, size=(4, 1))
    into = rng.choice([-1, 1]) * scale * INTO[neurons][:, features]
    out = OUT[features][:, neurons] / scale.T
    (neuron, a, b), *others = places(into, out)
    assert not others
    assert (neurons[neuron], features[a], features[b]) == (0, 0, 1)


def test_relabelling_keeps_asymmetric_neurons_and_the_products_of_each():
    rng = np.random.default_rng(0)
    into, out = np.repeat(INTO[None], 50, axis=0), np.repeat(OUT[None], 50, axis=0)
    other = asymmetric_superposition.relabelled(rng, into, out)
    found = asymmetric_superposition.find(*other)
    assert (found.asymmetric.sum(axis=(1, 2, 3)) == 1).all()
    # Chance: of six orders of the inhibitor's features one suits.
    assert 0 < found.inhibited.sum() < 25
