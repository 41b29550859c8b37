"""Diagrams of circuits of gates: the names of nodes, and the edges found, missed and wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from toymodels import checks
from toymodels.circuits.boolean import AND, OR, XOR
from toymodels.circuits.edges import Edges, of_edges
from toymodels.circuits.graphs import INPUT, Graph
from toymodels.errors import InputError

_NAMES = {AND[1]: "AND", OR[1]: "OR", XOR[1]: "XOR"}


def gate_nodes(num_inputs: int, bends: Any) -> dict[str, list[str]]:
    """Return the names of the inputs and of the gates, by the sites of a `BooleanNetwork`.

    Args:
        num_inputs: the number of inputs, which are named $x_1$, $x_2$, ...
        bends: the number $t$ of each gate (layers x gates), which tells its kind: the second of
            the two numbers in `Program.kinds`.
    """
    checks.count("num_inputs", num_inputs)
    table = np.asarray(bends)
    if table.ndim != 2:
        raise InputError(f"bends has shape {table.shape}: give layers x gates")
    if unknown := sorted(set(table.ravel().tolist()) - _NAMES.keys()):
        raise InputError(
            f"bends holds {unknown[0]:g}, which is no gate: give the second of the two numbers in "
            "Program.kinds"
        )
    rows = [[_NAMES[bend] for bend in layer] for layer in table.tolist()]
    sites = [INPUT, *(f"layer_{layer}" for layer in range(len(rows) - 1)), "output"]
    inputs = [f"$x_{{{number + 1}}}$" for number in range(num_inputs)]
    return dict(zip(sites, [inputs, *rows], strict=True))


def compared_edges(
    graph: Graph,
    nodes: Mapping[str, Sequence[str]],
    chosen: Bool[np.ndarray, " edges"],
    true: Bool[np.ndarray, " edges"],
) -> dict[str, Edges]:
    """Return the edges that are found, missed and wrong, as `plotting.circuit_diagram` takes them.

    Args:
        graph: the graph that has the edges.
        nodes: the names of the nodes of each site.
        chosen: whether each edge was chosen, in the order of `vector`.
        true: whether each edge is one of the circuit.
    """
    for name, edges in (("chosen", chosen), ("true", true)):
        if np.asarray(edges).dtype != bool:
            raise InputError(
                f"{name} is {np.asarray(edges).dtype}: give a truth value for each edge"
            )
    if missing := sorted({site for pair in graph.edges for site in pair} - nodes.keys()):
        raise InputError(f"nodes has no site {missing[0]!r} of the graph: name its nodes, too")
    like = {pair: jnp.zeros([len(nodes[site]) for site in pair]) for pair in graph.edges}
    kinds = {"found": chosen & true, "missed": ~chosen & true, "wrong": chosen & ~true}
    return {kind: of_edges(jnp.asarray(edges), like) for kind, edges in kinds.items()}
