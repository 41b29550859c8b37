r"""Hamiltonian Monte Carlo: sample parameters with probability proportional to $e^{-E(w)}$.

References:
    Neal (2011), "MCMC using Hamiltonian Dynamics".
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

__all__ = ["Chain", "Energy", "begin", "hamiltonian_step"]

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
