"""The behaviour that a circuit has to explain: a metric of a model on pairs of examples."""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PyTree

from toymodels import checks, sites
from toymodels.circuits import graphs
from toymodels.circuits.edges import Edge, Edges
from toymodels.circuits.graphs import Graph
from toymodels.errors import InputError

Metric: TypeAlias = Callable[[Any], Array]
"""A function of the output of a model for ONE example that returns an array."""


@struct.dataclass
class Behaviour:
    """A metric of a model on pairs of a clean and a corrupt example.

    All methods of discovery and all measures go through the functions below. JAX traces each of
    them once for one model, graph and metric, and for arrays of one shape.

    Attributes:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        cleans: a batch of examples along the leading axis.
        corrupts: a batch of corrupt examples, one for each clean one.
        metric: a function of the output for ONE example that returns an array, such as
            `jnp.asarray` for the output itself. A lambda that is made again is another metric.
    """

    model: nn.Module = struct.field(pytree_node=False)
    params: PyTree
    graph: Graph = struct.field(pytree_node=False)
    cleans: PyTree
    corrupts: PyTree
    metric: Metric = struct.field(pytree_node=False)

    def all_edges(self) -> Edges:
        """Return 1 for each edge, after the checks of `circuits.all_edges`."""
        self._check()
        example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), self.cleans)
        return graphs.all_edges(self.model, self.params, self.graph, example)

    def of_cleans(self) -> Float[Array, "pairs *metric"]:
        """Return the metric for each clean example, that of runs with all edges clean."""
        self._check()
        return _of_examples(self, self.cleans)

    def of_corrupts(self) -> Float[Array, "pairs *metric"]:
        """Return the metric for each corrupt example, that of runs with no edge clean."""
        self._check()
        return _of_examples(self, self.corrupts)

    def of_circuit(self, kept: Edges) -> Float[Array, "pairs *metric"]:
        """Return the metric in each pair when only the kept edges carry clean information."""
        self._check()
        graphs.check_circuit(self.graph, kept)
        return _of_circuit(self, kept)

    def slopes(self, share: Float[Array, ""] | float) -> Edges:
        r"""Return the derivative of the metric by each edge, in each pair (pairs x metric x edge).

        With $v$ and $v'$ the values of the sender on the clean and the corrupt example it is
        $(v - v') \cdot \partial m / \partial s$, where $s$ is what the receiver sees of the sender.

        Args:
            share: the place of the derivative on the way from the corrupt example, 0, to the clean
                one, 1.
        """
        self._check()
        return _slopes(self, share)

    def _check(self) -> None:
        checks.function(
            "metric", self.metric, remedy="give a function of the output, such as jnp.asarray"
        )
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves((self.cleans, self.corrupts))]
        sizes = {shape[:1] for shape in shapes}
        if len(sizes) != 1 or sizes <= {(), (0,)}:
            raise InputError(
                "the clean and the corrupt examples are no batches of one size: stack them along "
                "the first axis, one corrupt example for each clean one"
            )

    def of_output(self, output: Any) -> Array:
        """Return the metric of one output, in which truth values are 1 or 0."""
        return checks.as_number(self.metric(output))


@jax.jit
def _of_examples(behaviour: Behaviour, examples: PyTree) -> Array:
    def of_example(example: PyTree) -> Array:
        values = sites.activations(behaviour.model, behaviour.params, example)
        return behaviour.of_output(sites.value_at(values, behaviour.graph.output))

    return jax.vmap(of_example)(examples)


@jax.jit
def _of_circuit(behaviour: Behaviour, kept: Edges) -> Array:
    def of_pair(clean: PyTree, corrupt: PyTree) -> Array:
        model, params, graph = behaviour.model, behaviour.params, behaviour.graph
        return behaviour.of_output(graphs.run(model, params, graph, clean, corrupt, kept))

    return jax.vmap(of_pair)(behaviour.cleans, behaviour.corrupts)


@jax.jit
def _slopes(behaviour: Behaviour, share: Array) -> Edges:
    model, params, graph = behaviour.model, behaviour.params, behaviour.graph
    none = jax.tree.map(jnp.zeros_like, behaviour.all_edges())

    def of_pair(clean: PyTree, corrupt: PyTree) -> Edges:
        first, last = (graphs.nodes(model, params, graph, each) for each in (corrupt, clean))
        example = jax.tree.map(lambda c, k: k * 1.0 + share * (c * 1.0 - k), clean, corrupt)

        def of_added(added: Edges) -> Array:
            def message(edge: Edge, value: Array) -> Array:
                step = last[edge[0]] - first[edge[0]]
                return value[None] + graphs.to_receivers(added[edge], value) * step[None]

            value = jnp.asarray(
                behaviour.metric(graphs.forward(model, params, graph, example, message))
            )
            remedy = "give numbers that change with the output, or use edge_patching"
            checks.has_gradient("the metric", value, remedy=remedy)
            return value

        return jax.jacobian(of_added)(none)

    return jax.vmap(of_pair)(behaviour.cleans, behaviour.corrupts)
