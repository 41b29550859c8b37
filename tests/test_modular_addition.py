"""Addition modulo a prime: the largest margin is reached by one network, and passed by none."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from toymodels.analysis import modular_addition as analysis
from toymodels.theory import modular_addition as theory

KEY = jax.random.key(0)


@pytest.mark.parametrize("modulus", [3, 7, 13])
def test_the_network_of_all_frequencies_reaches_the_largest_margin(modulus):
    """The margin is computed in plain NumPy from the definitions."""
    first, second, out = theory.max_margin_network(modulus)
    assert len(first) == 4 * (modulus - 1)
    lengths = np.sqrt((first**2 + second**2 + out**2).sum(axis=1))
    np.testing.assert_allclose((lengths**3).sum(), 1, rtol=1e-12)
    for a in range(modulus):
        for b in range(modulus):
            logits = (first[:, a] + second[:, b]) ** 2 @ out
            lead = np.delete(logits[(a + b) % modulus] - logits, (a + b) % modulus)
            np.testing.assert_allclose(lead, theory.max_margin(modulus), rtol=1e-12)


@pytest.mark.parametrize("modulus", [5, 7])
def test_no_network_has_a_larger_margin(modulus):
    """A margin is at most the mean lead, which adds up over neurons, so that one neuron is enough.

    The best neuron of norm 1 is found by alternating maximisation from many starts.
    """
    generator = np.random.default_rng(0)
    place = (np.arange(modulus)[:, None] + np.arange(modulus)) % modulus
    best = []
    for _ in range(30):
        u, v, w = generator.normal(size=(3, modulus))
        for _ in range(200):
            w = w - w.mean()  # the mean lead does not see the mean of w
            u = w[place] @ v
            u = u / np.linalg.norm(u)
            v = u @ w[place]
            v = v / np.linalg.norm(v)
            w = np.bincount(place.ravel(), np.outer(u, v).ravel())
            w = (w - w.mean()) / np.linalg.norm(w - w.mean())
        # The square gives 2 u v; the lead over the mean of the others is p / (p - 1) times that
        # over the mean of all; three vectors of one length have the norm 1 together.
        mean = 2 * np.mean(np.outer(u, v) * w[place])
        best.append(mean * modulus / (modulus - 1) / 3**1.5)
    np.testing.assert_allclose(np.max(best), theory.max_margin(modulus), rtol=1e-9)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 1.0, 2.0])
def test_the_least_loss_is_that_of_the_best_multiple_of_the_network(share):
    modulus = 7
    penalty = share * theory.critical_penalty(modulus)
    lead = np.linspace(0, 20, 200_001)  # of the network times any factor
    losses = np.log1p(6 * np.exp(-lead)) + penalty * lead / theory.max_margin(modulus)
    np.testing.assert_allclose(theory.least_loss(modulus, penalty), losses.min(), rtol=1e-8)
    assert (losses.argmin() == 0) == (share >= 1)


def test_one_frequency_alone_has_a_small_margin():
    modulus, chosen = 23, slice(0, 8)
    first, second, out = (vectors[chosen] for vectors in theory.max_margin_network(modulus))
    with jax.enable_x64(True):
        margin = analysis.normalised_margin(first, second, out)
        ratio = margin / theory.max_margin(modulus)
    expected = (1 - np.cos(2 * np.pi / modulus)) * (modulus - 1) / modulus
    np.testing.assert_allclose(ratio, expected, rtol=1e-9)
    assert float(ratio) < 0.04


def test_the_margin_has_no_scale_and_is_negative_for_a_wrong_network():
    vectors = theory.max_margin_network(7)
    with jax.enable_x64(True):
        right = analysis.normalised_margin(*(3 * each for each in vectors))
        wrong = analysis.normalised_margin(vectors.first, vectors.second, -vectors.out)
        np.testing.assert_allclose(right, theory.max_margin(7), rtol=1e-12)
        np.testing.assert_allclose(wrong, -theory.max_margin(7), rtol=1e-12)
        nothing = analysis.normalised_margin(*(0 * each for each in vectors))
    assert np.isnan(nothing)


def test_the_spectrum_of_a_wave_is_its_size_and_phase():
    angle = 2 * np.pi * 3 * np.arange(11) / 11
    waves = jnp.asarray(np.stack([2 * np.cos(angle + 0.7) + 5, np.zeros(11)]), jnp.float32)
    found = analysis.spectrum(waves)
    assert found.shape == (2, 5)
    expected = np.zeros((2, 5), complex)
    expected[0, 2] = 2 * np.exp(0.7j)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    noise = jax.random.normal(KEY, (4, 11))
    power = jnp.sum(jnp.abs(analysis.spectrum(noise)) ** 2, axis=1) / 2
    np.testing.assert_allclose(power, jnp.var(noise, axis=1), rtol=1e-5)  # Parseval


def cross_entropy(logits):
    number = np.arange(len(logits))
    right = (number[:, None] + number) % len(logits)
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), right[:, :, None], axis=2)
    return -jnp.mean(picked)


def test_restricted_logits_are_a_projection_that_never_raises_the_loss():
    noisy = jax.random.normal(KEY, (5, 5, 5))
    kept = analysis.restricted(noisy)
    np.testing.assert_allclose(analysis.restricted(kept), kept, atol=1e-6)
    np.testing.assert_allclose(kept[1, 2, 4], kept[3, 3, 2], atol=1e-6)  # an error of 1 in both
    assert cross_entropy(kept) < cross_entropy(noisy)  # Jensen
    with jax.enable_x64(True):
        best = analysis.logits(*theory.max_margin_network(5))
        np.testing.assert_allclose(analysis.restricted(best), best, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: theory.max_margin(9), "modulus is 9: give an odd prime, such as 7"),
        (lambda: theory.max_margin_network(2), "modulus is 2"),
        (lambda: theory.least_loss(7, 0.0), "penalty is 0"),
        (
            lambda: inspect.unwrap(analysis.logits)(
                jnp.ones((2, 5)), jnp.ones((3, 5)), jnp.ones((2, 5))
            ),
            "neurons",
        ),
        (lambda: inspect.unwrap(analysis.spectrum)(jnp.ones(5)), "vectors has shape"),
    ],
)
def test_bad_input_gets_one_line(make, message):
    with pytest.raises(tm.InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
