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
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval
from jaxtyping import Array, PyTree

from toymodels import checks, sites
from toymodels.circuits.edges import Edge, Edges
from toymodels.errors import InputError

INPUT = "input"
"""The name of the input in a graph: its nodes are the entries of the example."""

Nodes: TypeAlias = dict[str, Array]
"""The values at each site of a graph, nodes along the first axis."""


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

    def senders(self, receiver: str) -> list[str]:
        """Return the sites from which edges enter a site."""
        return [start for start, end in self.edges if end == receiver]


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
            carry its information; or a node also depends on the input or a site around its senders.
    """

    def checked() -> Nodes:
        values = nodes(model, params, graph, example)
        _steps(model, params, graph, example, values)
        return values

    sizes = {name: len(value) for name, value in jax.eval_shape(checked).items()}
    return {
        (start, end): jnp.full((sizes[start], sizes[end]), value, dtype=jnp.result_type(float))
        for start, end in graph.edges
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

    Raises:
        ValueError: the graph is not one of the model, or the circuit none of the graph.
    """
    check_circuit(graph, kept)
    corrupted = nodes(model, params, graph, corrupt)
    shares = {edge: _share(edge, kept[edge], corrupted) for edge in graph.edges}

    def message(edge: Edge, value: Array) -> Array:
        share = to_receivers(shares[edge], value)
        return share * value[None] + (1 - share) * corrupted[edge[0]][None]

    return forward(model, params, graph, clean, message)


def nodes(model: nn.Module, params: PyTree, graph: Graph, example: PyTree) -> Nodes:
    """Return the values of the nodes for ONE example, nodes along the first axis of each site."""
    names = dict.fromkeys(_receivers(graph) + [start for start, _ in graph.edges])
    values = {INPUT: example, **sites.activations(model, params, example)}
    for name in dict.fromkeys([*names, *graph.whole]):
        if name not in values:
            raise InputError(
                f"the graph has a site {name!r}, but the model has {', '.join(sorted(values))}"
            )
        if name not in graph.whole and not getattr(values[name], "shape", ()):
            raise InputError(f"site {name!r} has no axis of nodes: name it in whole=")
    inexact = {name: values[name] * 1.0 for name in names}
    return {name: v[None] if name in graph.whole else v for name, v in inexact.items()}


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
    for receiver, step in _steps(model, params, graph, example, values).items():
        seen = {
            sender: message((sender, receiver), values[sender])
            for sender in graph.senders(receiver)
        }
        # Each receiver has a run of its own, of which it alone is read.
        of_runs = jax.vmap(step)(seen)
        places = jnp.arange(len(of_runs))
        values[receiver] = of_runs[places, places]
    output = values[graph.output]
    return output[0] if graph.output in graph.whole else output


def to_receivers(numbers: Array, value: Array) -> Array:
    """Return one number for each edge as receivers x senders x 1 x ..., to scale these values."""
    return jnp.expand_dims(numbers.T, tuple(range(2, value.ndim + 1)))


def check_circuit(graph: Graph, kept: Mapping[Edge, Any]) -> None:
    """Raise `InputError` unless there are numbers in [0, 1] for each pair of sites."""
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
    for edge in graph.edges:
        checks.interval(
            f"the share of clean information of an edge {edge!r}",
            kept[edge],
            low=0,
            high=1,
            remedy="give 1 for clean information, 0 for corrupt",
        )


def _share(edge: Edge, kept: Any, values: Nodes) -> Array:
    share = jnp.asarray(kept, jnp.result_type(float))
    shape = (len(values[edge[0]]), len(values[edge[1]]))
    if share.shape != shape:
        raise InputError(
            f"the edges {edge!r} have shape {share.shape}, but there are {shape[0]} senders and "
            f"{shape[1]} receivers: give one number for each edge"
        )
    return share


def _steps(
    model: nn.Module, params: PyTree, graph: Graph, example: PyTree, values: Nodes
) -> dict[str, Callable[[Nodes], Array]]:
    """Return the value at each receiver as a function of the values of its senders, in order.

    The model is traced once, cut at all sites of the graph. A function runs only those equations
    that lead from the senders to the receiver.
    """
    trace = jax.make_jaxpr(partial(_arriving, model, graph), return_shape=True)
    program, arrivals = trace(params, example, values)
    names = [INPUT] * len(jax.tree.leaves(example)) + sorted(values)

    def step_to(receiver: str) -> Callable[[Nodes], Array]:
        wanted = [name == receiver for name in sorted(arrivals)]
        jaxpr, used = partial_eval.dce_jaxpr(program.jaxpr, wanted)
        readable = zip(names, used[-len(names) :], strict=True)  # after the parameters
        _check_senders(graph, receiver, {name for name, here in readable if here})
        run_step = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, program.consts))

        def step(seen: Nodes) -> Array:
            cast = {name: value.astype(values[name].dtype) for name, value in seen.items()}
            leaves = jax.tree.leaves((params, example, {**values, **cast}))
            (value,) = run_step(*(leaf for leaf, here in zip(leaves, used, strict=True) if here))
            return value

        return step

    return {receiver: step_to(receiver) for receiver in _receivers(graph)}


def _arriving(
    model: nn.Module, graph: Graph, params: PyTree, example: PyTree, given: Nodes
) -> Nodes:
    """Return what arrives at each site of the graph when each hands on a value that is given.

    Then what arrives at a site depends on its senders alone, or the graph is not of the model.
    """
    found: Nodes = {}
    inside = {name: v[0] if name in graph.whole else v for name, v in given.items()}
    example = inside.pop(INPUT, example)

    def cut(name: str) -> sites.Patch:
        def patch(value: Array) -> Array:
            found[name] = value[None] if name in graph.whole else value
            return inside[name]

        return patch

    sites.intervene(model, params, example, {name: cut(name) for name in inside})
    return found


def _check_senders(graph: Graph, receiver: str, read: set[str]) -> None:
    """Raise `InputError` unless a receiver reads its senders, each of them, and nothing else."""
    senders = graph.senders(receiver)
    for name in senders:
        if name not in read:
            raise InputError(
                f"the edge from {name!r} to {receiver!r} skips: all that goes from one to the "
                "other goes through other senders, or nothing does; leave it out"
            )
    for name in sorted(read):
        if name not in senders:
            other = "the input" if name == INPUT else f"site {name!r}"
            raise InputError(
                f"{receiver!r} also depends on {other} around {', '.join(senders)}: add an edge "
                "from the sites that carry it"
            )


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
