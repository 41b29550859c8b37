"""Circuits: which edges of a model compute its output.

graphs      a model as a graph on top of its sites, and runs with some of its edges
discovery   scores for edges: exact patching, EAP and EAP-IG, ACDC, a trained mask
measures    faithfulness, completeness and minimality of a circuit, areas under its curve
boolean     known circuits of gates, written into few dimensions
census      every subgraph of a small network
parameters  weights as a sum of subcomponents, of which each input needs few (SPD)
"""

from toymodels.circuits.boolean import (
    AND,
    OR,
    XOR,
    BooleanNetwork,
    Program,
    Truth,
    boolean_graph,
    random_directions,
    random_program,
    true_edges,
    written,
)
from toymodels.circuits.census import all_circuits, holds_faithful, minimal_circuits
from toymodels.circuits.discovery import (
    acdc,
    damage,
    edge_attribution,
    edge_patching,
    edge_pruning,
)
from toymodels.circuits.graphs import Edges, Graph, all_edges, of_edges, run, vector
from toymodels.circuits.measures import (
    MIB_GRID,
    Areas,
    areas,
    completeness,
    faithfulness,
    faithfulness_curve,
    minimality,
)
from toymodels.circuits.parameters import (
    Gates,
    Subcomponents,
    decompose_parameters,
    decomposition_loss,
    hard_sigmoid,
    importances,
)

__all__ = [
    "AND",
    "MIB_GRID",
    "OR",
    "XOR",
    "Areas",
    "BooleanNetwork",
    "Edges",
    "Gates",
    "Graph",
    "Program",
    "Subcomponents",
    "Truth",
    "acdc",
    "all_circuits",
    "all_edges",
    "areas",
    "boolean_graph",
    "completeness",
    "damage",
    "decompose_parameters",
    "decomposition_loss",
    "edge_attribution",
    "edge_patching",
    "edge_pruning",
    "faithfulness",
    "faithfulness_curve",
    "hard_sigmoid",
    "holds_faithful",
    "importances",
    "minimal_circuits",
    "minimality",
    "of_edges",
    "random_directions",
    "random_program",
    "run",
    "true_edges",
    "vector",
    "written",
]
