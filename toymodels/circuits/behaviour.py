"""The behaviour that a circuit has to explain: a metric of a model on pairs of examples."""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, PyTree

from toymodels.circuits import graphs
from toymodels.circuits.graphs import Edges, Graph
from toymodels.errors import InputError

Metric: TypeAlias = Callable[[Any], Array]
"""A function of the output of a model for ONE example that returns an array."""


@struct.dataclass
class Behaviour:
    """A metric of a model on pairs of a clean and a corrupt example.

    Attributes:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        cleans: a batch of examples along the leading axis.
        corrupts: a batch of corrupt examples, one for each clean one.
        metric: a function of the output for ONE example that returns an array.
    """

    model: nn.Module = struct.field(pytree_node=False)
    params: PyTree
    graph: Graph = struct.field(pytree_node=False)
    cleans: PyTree
    corrupts: PyTree
    metric: Metric = struct.field(pytree_node=False)

    def all_edges(self) -> Edges:
        """Return 1 for each edge, after the checks of `circuits.all_edges`."""
        self._check_batches()
        example = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), self.cleans)
        return graphs.all_edges(self.model, self.params, self.graph, example)

    def of_example(self, example: PyTree) -> Array:
        """Return the metric for ONE example, that of a run with all edges clean."""
        return self.metric(graphs.plain_output(self.model, self.params, self.graph, example))

    def of_circuit(self, clean: PyTree, corrupt: PyTree, kept: Edges) -> Array:
        """Return the metric for ONE pair when only the kept edges carry clean information."""
        output = graphs.run(self.model, self.params, self.graph, clean, corrupt, kept)
        return self.metric(output)

    def mean(self, of_pair: Callable[[PyTree, PyTree], PyTree]) -> PyTree:
        """Return the mean over pairs of what a function of ONE pair returns."""
        self._check_batches()
        of_pairs = jax.vmap(of_pair)(self.cleans, self.corrupts)
        return jax.tree.map(lambda values: jnp.mean(values, axis=0), of_pairs)

    def _check_batches(self) -> None:
        sizes = {leaf.shape[:1] for leaf in jax.tree.leaves((self.cleans, self.corrupts))}
        if len(sizes) != 1 or () in sizes:
            raise InputError(
                "the clean and the corrupt examples are no batches of one size: stack them along "
                "the first axis, one corrupt example for each clean one"
            )
