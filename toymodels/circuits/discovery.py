r"""Discovery of circuits: a score for each edge of a model, by exact and by approximate methods.

All methods explain a `Behaviour`: they ask how its metric on clean examples changes when edges
carry the values of corrupt examples. With $m(k)$ the metric of a run with the circuit $k$, the
damage of a circuit is

$$D(k) = E \lVert m(k) - m(1) \rVert^2,$$

the mean over pairs of examples, where $m(1)$ is the metric with all edges. The square keeps effects
of opposite sign from cancelling in the mean.

    edge_patching      the damage of each edge alone, by a run for each
    edge_attribution   its approximation by gradients: EAP, and EAP-IG
    acdc               a greedy search that removes edges one after the other; `acdc_over_orders`
                       averages it over orders
    edge_pruning       a mask of all edges that is trained by gradient descent

`toymodels.analysis.classification.auroc` compares the scores with the true edges, if they are
known.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from toymodels import checks
from toymodels.circuits import stability
from toymodels.circuits.behaviour import Behaviour
from toymodels.circuits.edges import Edges, of_edges, vector
from toymodels.errors import InputError
from toymodels.training.descent import check_optimizer


def damage(behaviour: Behaviour, kept: Edges) -> Float[Array, ""]:
    r"""Return $D(k)$, the mean squared change of the metric when only the kept edges are clean.

    Args:
        behaviour: what is to be explained.
        kept: a number in [0, 1] for each edge.
    """
    change = behaviour.of_circuit(kept) - behaviour.of_cleans()
    return jnp.mean(jnp.sum(change.reshape(len(change), -1) ** 2, axis=1))


def edge_patching(behaviour: Behaviour) -> Edges:
    """Return the damage of each edge alone: all other edges are clean (exact edge patching)."""
    whole = behaviour.all_edges()
    flat = vector(whole)

    def alone(place: Int[Array, ""]) -> Array:
        return damage(behaviour, of_edges(flat.at[place].set(0.0), whole))

    return of_edges(lax.map(alone, jnp.arange(flat.size)), whole)


def edge_attribution(behaviour: Behaviour, *, num_steps: int = 0) -> Edges:
    r"""Return the damage of each edge to first order, from gradients alone (EAP and EAP-IG).

    With $v$ and $v'$ the values of the sender on the clean and the corrupt example, the score of
    an edge is $E \lVert (v - v') \cdot \partial m / \partial s \rVert^2$, where $s$ is what the
    receiver sees of the sender. It is the exact damage if the model is linear.

    Args:
        behaviour: what is to be explained.
        num_steps: the number of examples on the way from the corrupt to the clean one over which
            the derivative is averaged (EAP-IG, at the shares $(k + 1/2) / N$ of the way: the
            midpoint rule). With 0 it is taken at the clean example alone (EAP).

    References:
        Syed et al. (2023), "Attribution Patching Outperforms Automated Circuit Discovery";
        Hanna et al. (2024), "Have Faith in Faithfulness".
    """
    checks.count("num_steps", num_steps, minimum=0)
    shares = (jnp.arange(float(num_steps)) + 0.5) / num_steps if num_steps else jnp.ones(1)
    slopes = jax.vmap(behaviour.slopes)(shares)

    def squared(slope: Array) -> Array:
        mean = jnp.mean(slope, axis=0)
        return jnp.mean(jnp.sum(mean.reshape(len(mean), -1, *mean.shape[-2:]) ** 2, axis=1), axis=0)

    return jax.tree.map(squared, slopes)


def acdc(
    behaviour: Behaviour,
    *,
    threshold: Float[Array, ""] | float,
    order: Int[Array, " edges"],
) -> Edges:
    """Return the circuit that a greedy search leaves (ACDC): 1 for kept edges and 0 for others.

    The search visits the edges in an order, and removes an edge if the damage of the circuit then
    rises by less than the threshold. The result depends on the order. It is NaN if a damage is.

    Args:
        behaviour: what is to be explained.
        threshold: how much more damage an edge may prevent and still be removed. `jax.vmap` goes
            over several; an edge's score is then how often it is kept.
        order: the edges in the order in which they are visited, as their places in
            `circuits.vector`, such as a permutation; `circuits.edge_names` says which edge is
            where. The authors go from the output to the input.

    References:
        Conmy et al. (2023), "Towards Automated Circuit Discovery for Mechanistic
        Interpretability".
    """
    whole = behaviour.all_edges()
    flat = vector(whole)
    checks.when_known(lambda order: _check_order(order, flat.size), order)

    def step(
        state: tuple[Array, Array], place: Int[Array, ""]
    ) -> tuple[tuple[Array, Array], Array]:
        kept, now = state
        fewer = kept.at[place].set(0.0)
        then = damage(behaviour, of_edges(fewer, whole))
        removed = then - now < threshold
        unknown = jnp.isnan(then - threshold)
        return (jnp.where(removed, fewer, kept), jnp.where(removed, then, now)), unknown

    start = (flat, jnp.zeros((), flat.dtype))
    (kept, _), unknown = lax.scan(step, start, jnp.asarray(order, int))
    return of_edges(jnp.where(jnp.any(unknown), jnp.nan, kept), whole)


def _check_order(order: Any, number: int) -> None:
    places = np.asarray(order)
    if not np.array_equal(np.sort(places, axis=None), np.arange(number)):
        raise InputError(
            f"order, of shape {places.shape}, does not hold each of the {number} edges once: give "
            f"the places 0 to {number - 1} in any order"
        )


class OverOrders(NamedTuple):
    """The circuits that ACDC leaves in several orders.

    Attributes:
        share: the share of orders in which each edge is kept.
        jaccard: the Jaccard index of the circuits of two orders, as a mean over pairs of orders.
    """

    share: Edges
    jaccard: Float[Array, ""]


def acdc_over_orders(
    key: Key[Array, ""],
    behaviour: Behaviour,
    *,
    threshold: Float[Array, ""] | float,
    num_orders: int,
) -> OverOrders:
    """Return how often `acdc` keeps each edge over random orders, and how stable its circuit is.

    Args:
        key: decides the orders.
        behaviour: what is to be explained.
        threshold: how much more damage an edge may prevent and still be removed.
        num_orders: the number of orders, at least 2.
    """
    checks.count("num_orders", num_orders, minimum=2)
    whole = behaviour.all_edges()
    number = vector(whole).size

    def at(key: Key[Array, ""]) -> Array:
        order = jax.random.permutation(key, number)
        return vector(acdc(behaviour, threshold=threshold, order=order))

    kept = lax.map(at, jax.random.split(key, num_orders))
    return OverOrders(of_edges(jnp.mean(kept, axis=0), whole), stability.jaccard(kept))


def edge_pruning(
    behaviour: Behaviour,
    *,
    penalty: Float[Array, ""] | float,
    optimizer: optax.GradientTransformation,
    steps: int,
) -> Edges:
    r"""Return a trained number in $(0, 1)$ for each edge, which is small for edges that can go.

    The logits $\theta$ of the edges minimise $D(\sigma(\theta)) + \lambda\, \overline{\sigma
    (\theta)}$ over all pairs, and start at 2.

    Args:
        behaviour: what is to be explained.
        penalty: $\lambda$, on the mean over edges.
        optimizer: an Optax transformation.
        steps: the number of updates. Each takes all pairs.

    References:
        Bhaskar et al. (2024), "Finding Transformer Circuits with Edge Pruning", without its noise.
    """
    checks.count("steps", steps)
    checks.interval("penalty", penalty, low=0, remedy="it is the price of an edge")
    check_optimizer(optimizer)
    start = jax.tree.map(lambda one: 2 * one, behaviour.all_edges())

    def loss(logits: Edges) -> Array:
        kept = jax.tree.map(jax.nn.sigmoid, logits)
        return damage(behaviour, kept) + penalty * jnp.mean(vector(kept))

    def step(state: tuple[Edges, Any], _: None) -> tuple[tuple[Edges, Any], None]:
        logits, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(logits), memory)
        return (jax.tree.map(jnp.add, logits, updates), memory), None

    (logits, _), _ = lax.scan(step, (start, optimizer.init(start)), length=steps)
    return jax.tree.map(jax.nn.sigmoid, logits)
