r"""Discovery of circuits: a score for each edge of a model, by exact and by approximate methods.

All methods ask how the outputs on clean examples change when edges carry the values of corrupt
examples. With $m(k)$ the metric of a run with the circuit $k$, an array computed from the output,
the damage of a circuit is

$$D(k) = E \lVert m(k) - m(1) \rVert^2,$$

the mean over pairs of examples, where $m(1)$ is the metric with all edges. The square keeps effects
of opposite sign from cancelling in the mean.

    edge_patching      the damage of each edge alone, by a run for each
    edge_attribution   its approximation by gradients: EAP, and EAP-IG
    acdc               a greedy search that removes edges one after the other; `acdc_over_orders`
                       averages it over orders
    edge_pruning       a mask of all edges that is trained by gradient descent

`toymodels.analysis.classification.auroc` holds the scores against the true edges, if they are
known.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from toymodels import checks
from toymodels.circuits import graphs, stability
from toymodels.circuits.graphs import Edge, Edges, Graph
from toymodels.errors import InputError

Metric: TypeAlias = Callable[[Any], Array]
"""A function of the output of a model for ONE example that returns an array."""


def damage(
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    cleans: PyTree,
    corrupts: PyTree,
    metric: Metric,
    kept: Edges,
) -> Float[Array, ""]:
    r"""Return $D(k)$, the mean squared change of the metric when only the kept edges are clean.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        cleans: a batch of examples along the leading axis.
        corrupts: a batch of corrupt examples, one for each clean one.
        metric: a function of the output that returns an array.
        kept: a number in [0, 1] for each edge.
    """

    def change(clean: PyTree, corrupt: PyTree) -> Array:
        whole = metric(graphs.plain_output(model, params, graph, clean))
        own = metric(graphs.run(model, params, graph, clean, corrupt, kept))
        return jnp.sum((own - whole) ** 2)

    return jnp.mean(jax.vmap(change)(cleans, corrupts))


def edge_patching(
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    cleans: PyTree,
    corrupts: PyTree,
    metric: Metric,
) -> Edges:
    """Return the damage of each edge alone: all other edges are clean (exact edge patching).

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        cleans: a batch of examples along the leading axis.
        corrupts: a batch of corrupt examples, one for each clean one.
        metric: a function of the output that returns an array.
    """
    whole = _all(model, params, graph, cleans)
    flat = graphs.vector(whole)

    def alone(place: Int[Array, ""]) -> Array:
        kept = graphs.of_edges(flat.at[place].set(0.0), whole)
        return damage(model, params, graph, cleans, corrupts, metric, kept)

    return graphs.of_edges(lax.map(alone, jnp.arange(flat.size)), whole)


def edge_attribution(
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    cleans: PyTree,
    corrupts: PyTree,
    metric: Metric,
    *,
    num_steps: int = 0,
) -> Edges:
    r"""Return the damage of each edge to first order, from gradients alone (EAP and EAP-IG).

    With $v$ and $v'$ the values of the sender on the clean and the corrupt example, the score of
    an edge is $E \lVert (v - v') \cdot \partial m / \partial s \rVert^2$, where $s$ is what the
    receiver sees of the sender. It is the exact damage if the model is linear.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        cleans: a batch of examples along the leading axis.
        corrupts: a batch of corrupt examples, one for each clean one.
        metric: a function of the output that returns an array.
        num_steps: the number of examples on the way from the corrupt to the clean one over which
            the derivative is averaged (EAP-IG, at the shares $(k + 1/2) / N$ of the way: the
            midpoint rule). With 0 it is taken at the clean example alone (EAP).

    References:
        Syed et al. (2023), "Attribution Patching Outperforms Automated Circuit Discovery";
        Hanna et al. (2024), "Have Faith in Faithfulness".
    """
    checks.count("num_steps", num_steps, minimum=0)
    shares = (jnp.arange(num_steps) + 0.5) / num_steps if num_steps else jnp.ones(1)
    whole = _all(model, params, graph, cleans)
    none = jax.tree.map(jnp.zeros_like, whole)

    def squared(clean: PyTree, corrupt: PyTree) -> Edges:
        first, last = (graphs.nodes(model, params, graph, each) for each in (corrupt, clean))

        def at(added: Edges, share: Array) -> Array:
            example = jax.tree.map(lambda c, k: k + share * (c - k), clean, corrupt)

            def message(edge: Edge, value: Array) -> Array:
                step = last[edge[0]] - first[edge[0]]
                return value[None] + graphs.to_receivers(added[edge], value) * step[None]

            return metric(graphs.forward(model, params, graph, example, message))

        slopes = jax.vmap(lambda share: jax.jacobian(at)(none, share))(shares)
        return jax.tree.map(
            lambda slope, edges: jnp.sum(
                jnp.mean(slope, axis=0).reshape(-1, *edges.shape) ** 2, axis=0
            ),
            slopes,
            none,
        )

    return jax.tree.map(
        lambda scores: jnp.mean(scores, axis=0), jax.vmap(squared)(cleans, corrupts)
    )


def acdc(
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    cleans: PyTree,
    corrupts: PyTree,
    metric: Metric,
    *,
    threshold: Float[Array, ""] | float,
    order: Int[Array, " edges"],
) -> Edges:
    """Return the circuit that a greedy search leaves (ACDC): 1 for kept edges and 0 for others.

    The search visits the edges in an order, and removes an edge if the damage of the circuit then
    rises by less than the threshold. The result depends on the order.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        cleans: a batch of examples along the leading axis.
        corrupts: a batch of corrupt examples, one for each clean one.
        metric: a function of the output that returns an array.
        threshold: how much more damage an edge may prevent and still be removed. `jax.vmap` goes
            over several; an edge's score is then how often it is kept.
        order: the edges in the order in which they are visited, as their places in
            `circuits.vector`, such as a permutation. The authors go from the output to the input.

    References:
        Conmy et al. (2023), "Towards Automated Circuit Discovery for Mechanistic
        Interpretability".
    """
    whole = _all(model, params, graph, cleans)
    flat = graphs.vector(whole)
    checks.same_size("edges", order=order.size, graph=flat.size)

    def step(state: tuple[Array, Array], place: Int[Array, ""]) -> tuple[tuple[Array, Array], None]:
        kept, now = state
        fewer = kept.at[place].set(0.0)
        then = damage(model, params, graph, cleans, corrupts, metric, graphs.of_edges(fewer, whole))
        removed = then - now < threshold
        return (jnp.where(removed, fewer, kept), jnp.where(removed, then, now)), None

    (kept, _), _ = lax.scan(step, (flat, jnp.zeros((), flat.dtype)), order)
    return graphs.of_edges(kept, whole)


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
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    cleans: PyTree,
    corrupts: PyTree,
    metric: Metric,
    *,
    threshold: Float[Array, ""] | float,
    num_orders: int,
) -> OverOrders:
    """Return how often `acdc` keeps each edge over random orders, and how stable its circuit is.

    Args:
        key: decides the orders.
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        cleans: a batch of examples along the leading axis.
        corrupts: a batch of corrupt examples, one for each clean one.
        metric: a function of the output that returns an array.
        threshold: how much more damage an edge may prevent and still be removed.
        num_orders: the number of orders, at least 2.
    """
    checks.count("num_orders", num_orders, minimum=2)
    whole = _all(model, params, graph, cleans)
    number = graphs.vector(whole).size

    def at(key: Key[Array, ""]) -> Array:
        order = jax.random.permutation(key, number)
        kept = acdc(
            model, params, graph, cleans, corrupts, metric, threshold=threshold, order=order
        )
        return graphs.vector(kept)

    kept = lax.map(at, jax.random.split(key, num_orders))
    return OverOrders(graphs.of_edges(jnp.mean(kept, axis=0), whole), stability.jaccard(kept))


def edge_pruning(
    key: Key[Array, ""],
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    sample: Callable[[Key[Array, ""], int], tuple[PyTree, PyTree]],
    metric: Metric,
    *,
    penalty: Float[Array, ""] | float,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
) -> Edges:
    r"""Return a trained number in $(0, 1)$ for each edge, which is small for edges that can go.

    The logits $\theta$ of the edges minimise $D(\sigma(\theta)) + \lambda\, \overline{\sigma
    (\theta)}$, and start at 2.

    Args:
        key: decides the pairs.
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model, which stay as they are.
        graph: the pairs of sites.
        sample: a function of a key and a batch size that returns clean and corrupt examples.
        metric: a function of the output that returns an array.
        penalty: $\lambda$, on the mean over edges.
        optimizer: an Optax transformation.
        steps: the number of updates.
        batch: the number of pairs of each update.

    References:
        Bhaskar et al. (2024), "Finding Transformer Circuits with Edge Pruning", without its noise.
    """
    checks.count("steps", steps)
    checks.count("batch", batch)
    cleans = jax.eval_shape(lambda key: sample(key, batch)[0], key)
    start = jax.tree.map(lambda one: 2 * one, _all(model, params, graph, cleans))

    def loss(logits: Edges, pairs: tuple[PyTree, PyTree]) -> Array:
        kept = jax.tree.map(jax.nn.sigmoid, logits)
        lost = damage(model, params, graph, *pairs, metric, kept)
        return lost + penalty * jnp.mean(graphs.vector(kept))

    def step(state: tuple[Edges, Any], key: Key[Array, ""]) -> tuple[tuple[Edges, Any], None]:
        logits, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(logits, sample(key, batch)), memory)
        return (jax.tree.map(jnp.add, logits, updates), memory), None

    (logits, _), _ = lax.scan(step, (start, optimizer.init(start)), jax.random.split(key, steps))
    return jax.tree.map(jax.nn.sigmoid, logits)


def _all(model: nn.Module, params: PyTree, graph: Graph, cleans: PyTree) -> Edges:
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(cleans)}
    if len(sizes) != 1 or () in sizes:
        raise InputError("the clean examples are no batch: stack them along the first axis")
    example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), cleans)
    return graphs.all_edges(model, params, graph, example)
