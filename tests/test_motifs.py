"""The detector of asymmetric superposition finds planted motifs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toymodels.analysis import motifs

# Features 0 and 1 share neuron 0, neuron 1 inhibits; neurons 2 and 3 serve feature 2.
INTO = np.array([[2, -1 / 2, 0], [1, 0, 0], [0, 0, 1], [0, 0, -1]])
OUT = np.array([[1 / 2, 0, 0, 0], [2, -4, 0, 0], [0, 0, 1, 1]])


def find(into, out):
    return motifs.asymmetric(jnp.asarray(into, jnp.float32), jnp.asarray(out, jnp.float32))


def places(into, out):
    return np.argwhere(find(into, out).inhibited)


def test_a_planted_motif_is_found():
    found = find(INTO, OUT)
    np.testing.assert_array_equal(np.argwhere(found.inhibited), [[0, 0, 1]])
    values = (found.drive, found.total, found.inhibitor, found.taken)
    np.testing.assert_array_equal([each[0, 0, 1] for each in values], [4, 0, 1, -4])


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
    found = find(into, out)
    np.testing.assert_array_equal(np.argwhere(found.asymmetric), [[0, 0, 1]])
    assert not found.inhibited.any()


@pytest.mark.parametrize(("feature", "weight"), [(1, 1 / 2), (1, -1), (0, -2)])
def test_a_neuron_of_one_sign_or_ratio_or_product_is_not_asymmetric(feature, weight):
    into = INTO.copy()
    into[0, feature] = weight
    out = OUT.copy()
    out[1, 0] = 1 / abs(into[0, 1])
    assert not find(into, out).asymmetric.any()


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
    other = motifs.relabelled(rng, into, out)
    found = jax.vmap(motifs.asymmetric)(*(jnp.asarray(each, jnp.float32) for each in other))
    assert (found.asymmetric.sum(axis=(1, 2, 3)) == 1).all()
    # Chance: of six orders of the inhibitor's features one suits.
    assert 0 < found.inhibited.sum() < 25
