"""Numbers for the edges of a graph: scores, circuits and labels, as arrays and as one vector."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int, Shaped

from toymodels import checks
from toymodels.errors import InputError

Edge: TypeAlias = tuple[str, str]
"""The names of the sites where edges begin and end."""
Edges: TypeAlias = dict[Edge, Array]
"""One number for each edge of a graph: senders x receivers for each pair of sites."""


def of_edges(numbers: Shaped[Array, " edges"], like: Mapping[Edge, Array]) -> Edges:
    """Return a vector of one number for each edge in the form of `like`, pair by pair of sites.

    The order is that of `vector`: pairs sorted by name, senders before receivers.
    """
    flat, together = ravel_pytree(dict(like))
    if jnp.shape(numbers) != flat.shape:
        raise InputError(
            f"the numbers have shape {jnp.shape(numbers)}, but there are {flat.size} edges: give "
            "one number for each"
        )
    return together(numbers)


def vector(edges: Mapping[Edge, Array]) -> Shaped[Array, " edges"]:
    """Return the numbers of all edges as one vector, such as scores or labels for `auroc`.

    `edge_names` returns the name of the edge at each place.
    """
    _check_edges(edges)
    return ravel_pytree(dict(edges))[0]


def edge_names(edges: Mapping[Edge, Array]) -> list[str]:
    """Return the name of each edge, such as "input[0] -> hidden[2]", in the order of `vector`.

    The numbers in brackets are the places of the sender and of the receiver at their sites, from 0.
    """
    _check_edges(edges)
    return [
        f"{start}[{sender}] -> {end}[{receiver}]"
        for start, end in sorted(edges)
        for sender, receiver in np.ndindex(*edges[start, end].shape)
    ]


def _check_edges(edges: Any) -> None:
    if not isinstance(edges, Mapping):
        raise InputError(
            f"the edges are of type {type(edges).__name__}: give one array for each pair of sites"
        )


def top_edges(scores: Mapping[Edge, Array], count: Int[Array, ""] | int) -> Edges:
    """Return the circuit of the edges with the highest scores: 1 for these and 0 for others.

    Args:
        scores: a score for each edge. Edges of equal scores follow in the order of `vector`.
        count: the number of edges of the circuit.

    Returns:
        The circuit, which is NaN if a score is NaN, because then no edge is known to be the best.
    """
    checks.when_known(_check_count, count, elementwise=True)
    scores = {edge: jnp.asarray(each, jnp.result_type(float)) for edge, each in scores.items()}
    flat = vector(scores)
    rank = jnp.argsort(jnp.argsort(-flat, stable=True))
    chosen = (rank < count).astype(flat.dtype)
    return of_edges(jnp.where(jnp.any(jnp.isnan(flat)), jnp.nan, chosen), scores)


def _check_count(count: Any) -> None:
    numbers = np.asarray(count)
    if np.any((numbers != np.round(numbers)) | (numbers < 0)):
        raise InputError(
            f"count is {count}: give a number of edges, 0 or more, and not a share of them"
        )
