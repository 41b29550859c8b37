r"""Hamiltonian Monte Carlo: sample parameters with probability proportional to $e^{-E(w)}$.

References:
    Neal (2011), "MCMC using Hamiltonian Dynamics".
    Swendsen and Wang (1986), "Replica Monte Carlo Simulation of Spin Glasses", for the exchange.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

__all__ = ["Chain", "Energy", "begin", "hamiltonian_step", "replica_exchange"]

Energy: TypeAlias = Callable[[Any], tuple[Array, Any]]
"""A function of the parameters that returns their energy and anything else to remember."""


class Chain(NamedTuple):
    """The state of a chain.

    Attributes:
        place: the parameters, one vector.
        gradient: the gradient of the energy there.
        energy: the energy there.
        extra: what else the energy function returned there.
    """

    place: Float[Array, "*chains parameters"]
    gradient: Float[Array, "*chains parameters"]
    energy: Float[Array, "*chains"]
    extra: Any


def begin(energy: Energy, place: Float[Array, " parameters"]) -> Chain:
    """Return a chain that stands at `place`."""
    (value, extra), gradient = jax.value_and_grad(energy, has_aux=True)(place)
    return Chain(place, gradient, value, extra)


def hamiltonian_step(
    key: Key[Array, ""],
    energy: Energy,
    chain: Chain,
    *,
    draw_step_size: Callable[[Key[Array, ""]], Float[Array, ""]],
    leapfrog: int,
) -> tuple[Chain, Float[Array, ""]]:
    r"""Move a chain along one trajectory, and accept or refuse its end (Metropolis).

    The momentum is standard normal. The error of the leapfrog integrator in
    $E(w) + \lVert v \rVert^2 / 2$ decides on acceptance, so the step size leaves no bias.

    Args:
        key: decides the momentum, the step size and the acceptance.
        energy: $E(w)$, and what to remember of it.
        chain: where to begin, as from `begin`.
        draw_step_size: a function of a key that returns the step size of this trajectory. A random
            one prevents trajectories that close on themselves.
        leapfrog: the number of steps, with one gradient each.

    Returns:
        The chain after the step, and the probability with which the end was accepted: 0 where its
        energy is NaN or infinite.
    """
    force = jax.value_and_grad(energy, has_aux=True)
    key_momentum, key_size, key_accept = jax.random.split(key, 3)
    momentum = jax.random.normal(key_momentum, chain.place.shape, chain.place.dtype)
    size = draw_step_size(key_size)

    def leap(state: Any, _: None) -> tuple[Any, None]:
        (place, gradient, _, _), momentum = state
        momentum = momentum - size * gradient / 2
        place = place + size * momentum
        (value, extra), gradient = force(place)
        return (Chain(place, gradient, value, extra), momentum - size * gradient / 2), None

    (end, last), _ = lax.scan(leap, (chain, momentum), length=leapfrog)
    error = end.energy - chain.energy + (jnp.sum(last**2) - jnp.sum(momentum**2)) / 2
    # The comparison is false for NaN, so that an end whose energy is not finite is refused.
    chance = jnp.where(error < jnp.inf, jnp.exp(-jnp.maximum(error, 0.0)), 0.0)
    accept = jax.random.uniform(key_accept, (), chance.dtype) < chance
    return jax.tree.map(lambda new, old: jnp.where(accept, new, old), end, chain), chance


def replica_exchange(
    key: Key[Array, ""],
    energy: Callable[[Array, Array], Array],
    starts: Float[Array, "replicas parameters"],
    inverse_temperatures: Float[Array, " replicas"],
    *,
    draw_step_size: Callable[[Key[Array, ""], Array], Float[Array, ""]],
    leapfrog: int,
    rounds: int,
) -> Float[Array, "rounds replicas parameters"]:
    r"""Sample at several temperatures at once; neighbours trade places, so that none gets stuck.

    The energy is $E_\beta(w) = \beta U(w) + V(w)$. A replica of small $\beta$ crosses the barriers
    of $U$, and the points that it finds move to larger $\beta$ by trades. In each round every
    replica makes one Hamiltonian step, and then neighbours $i, j$ (even pairs and odd pairs in
    turn) trade places with the probability $\min(1, e^{(\beta_i - \beta_j)(U(w_i) - U(w_j))})$,
    which leaves the distribution of all replicas together as it is.

    Args:
        key: decides all steps and trades.
        energy: $E_\beta(w)$ of one replica, as a function of $w$ and $\beta$.
        starts: where each replica begins.
        inverse_temperatures: $\beta$ of each replica, in rising order.
        draw_step_size: a function of a key and $\beta$ that returns the step size of a trajectory.
        leapfrog: the number of steps of a trajectory.
        rounds: the number of rounds.

    Returns:
        The place of each replica after each round.
    """
    count = len(inverse_temperatures)

    def move(key: Array, place: Array, beta: Array) -> Array:
        def at(place: Array) -> tuple[Array, None]:
            return energy(place, beta), None

        def size(key: Array) -> Array:
            return draw_step_size(key, beta)

        chain = begin(at, place)
        return hamiltonian_step(key, at, chain, draw_step_size=size, leapfrog=leapfrog)[0].place

    def trade(key: Array, places: Array, parity: Array) -> Array:
        one = jnp.ones((), places.dtype)
        energies = jax.vmap(energy, (0, None))
        potential = energies(places, one) - energies(places, 0 * one)  # U, because E = beta U + V
        index = jnp.arange(count)
        partner = jnp.where((index + parity) % 2 == 0, index + 1, index - 1)
        partner = jnp.where((partner < 0) | (partner >= count), index, partner)
        difference = inverse_temperatures - inverse_temperatures[partner]
        gain = difference * (potential - potential[partner])
        # Both partners of a pair use one random number, so that they decide alike.
        threshold = jnp.log(jax.random.uniform(key, index.shape))[jnp.minimum(index, partner)]
        return jnp.where((threshold < gain)[:, None], places[partner], places)

    def one_round(places: Array, number: Array) -> tuple[Array, Array]:
        key_move, key_trade = jax.random.split(jax.random.fold_in(key, number))
        keys = jax.random.split(key_move, count)
        places = jax.vmap(move)(keys, places, inverse_temperatures)
        places = trade(key_trade, places, number % 2)
        return places, places

    return lax.scan(one_round, starts, jnp.arange(rounds))[1]
