r"""A model as a graph of nodes and edges on top of its sites, and runs with some of the edges.

The nodes are the entries of the values at some sites along their first axis: units, heads, or
the whole value. An edge goes from each node of one site to each node of another. A run has a clean
and a corrupt example, and a number $k \in [0, 1]$ for each edge. The receiver of an edge sees

$$k\, v + (1 - k)\, v',$$

where $v$ is the value of the sender in this run, and $v'$ its value on the corrupt example. Nodes
that no edge enters have their value on the clean example. So all edges together give the output on
the clean example, and no edge gives the output on the corrupt one.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.interpreters import partial_eval
from jaxtyping import Array, Int, PyTree, Shaped

from toymodels import checks, sites
from toymodels.errors import InputError

INPUT = "input"
"""The name of the input in a graph: its nodes are the entries of the example."""

Edge: TypeAlias = tuple[str, str]
"""The names of the sites where edges begin and end."""
Edges: TypeAlias = dict[Edge, Array]
"""One number for each edge of a graph: senders x receivers for each pair of sites."""


class Graph(NamedTuple):
    """The edges of a model, as pairs of sites; the graph has no cycle.

    Attributes:
        edges: pairs of a sender and a receiver, each the name of a site, or "input".
        whole: the sites that are one node each, such as a residual stream. At other sites each
            entry along the first axis is a node.
        output: the site of the output, where edges end.
    """

    edges: tuple[Edge, ...]
    whole: tuple[str, ...] = ()
    output: str = "output"


def all_edges(
    model: nn.Module, params: PyTree, graph: Graph, example: PyTree, *, value: float = 1.0
) -> Edges:
    """Return one number for each edge, after checks that the graph is one of the model.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        example: ONE example, whose shape decides the number of nodes.
        value: the number, 1 for the circuit of all edges.

    Raises:
        ValueError: the graph has no edge, a cycle or an unknown site; an edge skips the nodes that
            carry its information; or a node also depends on the input around its senders.
    """
    order = _receivers(graph)
    values = jax.eval_shape(lambda: _values(model, params, example))
    for name in dict.fromkeys([name for edge in graph.edges for name in edge] + [*graph.whole]):
        if name not in values:
            raise InputError(
                f"the graph has a site {name!r}, but the model has {', '.join(sorted(values))}"
            )
        if name not in graph.whole and not getattr(values[name], "shape", ()):
            raise InputError(f"site {name!r} has no axis of nodes: name it in whole=")
    for receiver in order:
        _check_senders(model, params, graph, example, receiver, values)
    sizes = {
        name: 1 if name in graph.whole else values[name].shape[0]
        for edge in graph.edges
        for name in edge
    }
    return {
        (sender, receiver): jnp.full((sizes[sender], sizes[receiver]), float(value))
        for sender, receiver in graph.edges
    }


def run(
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    clean: PyTree,
    corrupt: PyTree,
    kept: Mapping[Edge, Any],
) -> Any:
    """Return the output for ONE pair of examples when some edges carry clean information.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        clean: ONE example.
        corrupt: ONE example, whose values the other edges carry.
        kept: a number in [0, 1] for each edge, as `all_edges` returns them: 1 for the edges of the
            circuit, and 0 for others.
    """
    corrupted = nodes(model, params, graph, corrupt)
    checked = _check_kept(graph, kept, corrupted)

    def message(edge: Edge, value: Array) -> Array:
        share = to_receivers(checked[edge], value)
        return share * value[None] + (1 - share) * corrupted[edge[0]][None]

    return forward(model, params, graph, clean, message)


def nodes(model: nn.Module, params: PyTree, graph: Graph, example: PyTree) -> dict[str, Array]:
    """Return the values of the nodes for ONE example, nodes along the first axis of each site."""
    values = _values(model, params, example)
    return {
        name: values[name][None] if name in graph.whole else values[name]
        for edge in graph.edges
        for name in edge
    }


def plain_output(model: nn.Module, params: PyTree, graph: Graph, example: PyTree) -> Any:
    """Return the output for ONE example, which is that of a run with all edges clean."""
    return _values(model, params, example)[graph.output]


def forward(
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    example: PyTree,
    message: Callable[[Edge, Array], Array],
) -> Any:
    """Return the output for ONE example when `message` decides what each receiver sees.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        graph: the pairs of sites.
        example: the example of the nodes that no edge enters.
        message: a function of a pair of sites and the values of the senders (senders x ...) that
            returns what each receiver sees of them (receivers x senders x ...).
    """
    values = nodes(model, params, graph, example)
    for receiver in _receivers(graph):
        seen = {
            edge[0]: message(edge, values[edge[0]]) for edge in graph.edges if edge[1] == receiver
        }

        def value(seen: dict[str, Array], receiver: str = receiver) -> Array:
            read = _with_senders(model, params, graph, example, receiver, seen)
            return read[None] if receiver in graph.whole else read

        # Each receiver has a run of its own, of which it alone is read.
        of_runs = jax.vmap(value)(seen)
        places = jnp.arange(len(of_runs))
        values[receiver] = of_runs[places, places]
    output = values[graph.output]
    return output[0] if graph.output in graph.whole else output


def to_receivers(numbers: Array, value: Array) -> Array:
    """Return one number for each edge as receivers x senders x 1 x ..., to scale these values."""
    return jnp.expand_dims(numbers.T, tuple(range(2, value.ndim + 1)))


def _values(model: nn.Module, params: PyTree, example: PyTree) -> dict[str, Any]:
    return {INPUT: example, **sites.activations(model, params, example)}


def _with_senders(
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    example: PyTree,
    receiver: str,
    seen: Mapping[str, Array],
) -> Array:
    """Return the value at the receiver when its senders have these values."""
    given = {name: value[0] if name in graph.whole else value for name, value in seen.items()}
    example = given.pop(INPUT, example)
    read: dict[str, Array] = {}

    def keep(value: Array) -> Array:
        read[receiver] = value
        return value

    patches: dict[str, Callable[[Any], Any]] = {
        name: (lambda _, value=value: value) for name, value in given.items()
    }
    sites.intervene(model, params, example, {**patches, receiver: keep})
    return read[receiver]


def _receivers(graph: Graph) -> list[str]:
    """Return the sites that edges enter, each after the receivers from which edges come."""
    if not isinstance(graph, Graph):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"the graph is of type {type(graph).__name__}: give a circuits.Graph(...)")
    for edge in graph.edges:
        if isinstance(edge, str) or len(edge) != 2:
            raise InputError(
                f"an edge of the graph is {edge!r}: give pairs of sites, such as "
                "(('input', 'hidden'), ('hidden', 'output'))"
            )
    if not graph.edges:
        raise InputError("the graph has no edge: give pairs of sites, such as ('input', 'hidden')")
    waiting = dict.fromkeys(receiver for _, receiver in graph.edges)
    if graph.output not in waiting:
        raise InputError(
            f"no edge enters the output {graph.output!r}: add one, or name another site with "
            "output="
        )
    order: list[str] = []
    while waiting:
        ready = [
            name
            for name in waiting
            if not any(end == name and start in waiting for start, end in graph.edges)
        ]
        if not ready:
            raise InputError(
                f"the graph has a cycle through {', '.join(waiting)}: leave one of its edges out"
            )
        order += ready
        waiting = dict.fromkeys(name for name in waiting if name not in ready)
    return order


def _check_senders(
    model: nn.Module,
    params: PyTree,
    graph: Graph,
    example: PyTree,
    receiver: str,
    values: Mapping[str, Any],
) -> None:
    """Raise `InputError` unless the receiver is a function of its senders, and of each of them."""
    senders = [start for start, end in graph.edges if end == receiver]
    given = {
        name: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), values[name])
        for name in senders
    }
    given = {name: value[None] if name in graph.whole else value for name, value in given.items()}

    def value(example: PyTree, seen: dict[str, Array]) -> Array:
        return _with_senders(model, params, graph, example, receiver, seen)

    program = jax.make_jaxpr(value)(example, given)
    _, used = partial_eval.dce_jaxpr(program.jaxpr, [True] * len(program.out_avals))
    number = len(jax.tree.leaves(example))
    for name, used_here in zip(sorted(given), used[number:], strict=True):
        if not used_here:
            raise InputError(
                f"the edge from {name!r} to {receiver!r} skips: all that goes from one to the "
                "other goes through other senders, or nothing does; leave it out"
            )
    if any(used[:number]):
        raise InputError(
            f"{receiver!r} also depends on the input around {', '.join(senders)}: add an edge from "
            "the sites that carry it"
        )


def _check_kept(graph: Graph, kept: Mapping[Edge, Any], values: Mapping[str, Array]) -> Edges:
    if not isinstance(kept, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"the circuit is of type {type(kept).__name__}: give a number for each edge, as "
            "circuits.all_edges returns them, or circuits.of_edges of a vector"
        )
    if set(kept) != set(graph.edges):
        wrong = sorted(kept.keys() ^ set(graph.edges), key=str)[0]
        raise InputError(
            f"the circuit and the graph differ at the edges {wrong!r}: give one number for each "
            "edge, as circuits.all_edges returns them"
        )
    checked: Edges = {}
    for edge in graph.edges:
        checked[edge] = jnp.asarray(kept[edge], jnp.result_type(float))
        shape = (values[edge[0]].shape[0], values[edge[1]].shape[0])
        if checked[edge].shape != shape:
            raise InputError(
                f"the edges {edge!r} have shape {checked[edge].shape}, but there are {shape[0]} "
                f"senders and {shape[1]} receivers: give one number for each edge"
            )
        checks.interval(
            f"the share of clean information of an edge {edge!r}",
            checked[edge],
            low=0,
            high=1,
            remedy="give 1 for clean information, 0 for corrupt",
        )
    return checked


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
    """Return the numbers of all edges as one vector, such as scores or labels for `auroc`."""
    if not isinstance(edges, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"the edges are of type {type(edges).__name__}: give one array for each pair of sites"
        )
    return ravel_pytree(dict(edges))[0]


def top_edges(scores: Mapping[Edge, Array], count: Int[Array, ""] | int) -> Edges:
    """Return the circuit of the edges with the highest scores: 1 for these and 0 for others.

    Args:
        scores: a score for each edge. Edges of equal scores follow in the order of `vector`.
        count: the number of edges of the circuit.
    """
    flat = vector(scores)
    rank = jnp.argsort(jnp.argsort(-flat, stable=True))
    return of_edges((rank < count).astype(flat.dtype), scores)
