"""Hamiltonian Monte Carlo against distributions with known moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toymodels.analysis import sampling


def chains(energy, *, count, steps, start, step_size=0.5):
    """Return the places of `count` chains after each of `steps` steps."""

    def step(chain, key):
        chain, chance = sampling.hamiltonian_step(
            key,
            energy,
            chain,
            draw_step_size=lambda key: step_size * jax.random.uniform(key, (), minval=0.5),
            leapfrog=8,
        )
        return chain, (chain.place, chance)

    def one(key):
        return jax.lax.scan(step, sampling.begin(energy, start), jax.random.split(key, steps))[1]

    places, chances = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), count))
    return np.asarray(places, float), np.asarray(chances)


def test_a_normal_distribution_has_its_mean_and_covariance():
    precision, mean = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([1.0, -2.0])

    def energy(place):
        away = place - mean
        return away @ precision @ away / 2, None

    places, chances = chains(energy, count=400, steps=60, start=jnp.zeros(2))
    places = places[:, 20:]  # after the start is forgotten
    means = places.mean(axis=1)  # of chains, which are independent
    np.testing.assert_array_less(abs(means.mean(0) - mean), 5 * means.std(0) / 400**0.5)
    away = places - mean
    products = np.einsum("csi,csj->cij", away, away) / away.shape[1]
    error = products.std(axis=0) / 400**0.5
    np.testing.assert_array_less(abs(products.mean(0) - np.linalg.inv(precision)), 5 * error)
    assert chances.mean() > 0.8


def test_long_steps_are_refused_more_often_but_leave_no_bias():
    """The energy is $w^4 / 4$; the integrator is rough, and the step still samples it."""
    settings = {"count": 2000, "steps": 60, "start": jnp.zeros(1), "step_size": 1.1}
    places, chances = chains(lambda place: (jnp.sum(place**4) / 4, None), **settings)
    assert chances.mean() < 0.8
    # E w^4 = 1 by partial integration.
    fourth = (places[:, 20:, 0] ** 4).mean(axis=1)
    np.testing.assert_allclose(fourth.mean(), 1, rtol=0, atol=5 * fourth.std() / 2000**0.5)


@pytest.mark.parametrize("outside", [jnp.nan, jnp.inf])
def test_places_whose_energy_is_not_finite_are_never_entered(outside):
    def energy(place):
        return jnp.where(place[0] > 0, jnp.sum(place**2) / 2, outside), place[0]

    places, _ = chains(energy, count=50, steps=30, start=jnp.ones(1))
    assert places.min() > 0


def test_a_step_remembers_what_the_energy_function_returns():
    chain = sampling.begin(lambda place: (place @ place / 2, {"double": 2 * place}), jnp.ones(3))
    np.testing.assert_array_equal(chain.extra["double"], 2.0)
    np.testing.assert_array_equal(chain.gradient, 1.0)
    assert chain.energy == 1.5


def test_replicas_have_the_variance_of_their_temperature_and_cross_barriers():
    """$U = 20 (w^2 - 1)^2$ has two wells; replicas of its temperature alone stay in the first."""
    betas = jnp.array([0.0, 0.02, 0.1, 0.3, 1.0])

    def energy(place, beta):
        return beta * 20 * jnp.sum((place**2 - 1) ** 2) + jnp.sum(place**2) / 2

    def ladder(key, betas):
        return sampling.replica_exchange(
            key,
            energy,
            jnp.ones((len(betas), 1)),
            betas,
            draw_step_size=lambda key, beta: (
                0.3 / (1 + 80 * beta) ** 0.5 * jax.random.uniform(key, (), minval=0.5, maxval=1.5)
            ),
            leapfrog=6,
            rounds=400,
        )[100:, :, 0]

    both = jax.jit(jax.vmap(ladder, (0, None)))
    places = np.asarray(both(jax.random.split(jax.random.key(0), 100), betas))
    shares = (places[..., -1] > 0).mean(axis=1)  # of each ladder
    assert abs(shares.mean() - 1 / 2) < 5 * shares.std() / 10
    grid = np.linspace(-4, 4, 4001)
    for number, beta in enumerate(np.asarray(betas)):
        density = np.exp(-beta * 20 * (grid**2 - 1) ** 2 - grid**2 / 2)
        exact = (grid**2 * density).sum() / density.sum()
        squares = (places[..., number] ** 2).mean(axis=1)
        assert abs(squares.mean() - exact) < 5 * squares.std() / 10, beta
    alone = np.asarray(both(jax.random.split(jax.random.key(1), 20), betas[-1:]))
    assert alone.min() > 0
