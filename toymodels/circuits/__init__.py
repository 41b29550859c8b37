"""Circuits: which edges of a model compute its output.

edges       numbers for edges, such as scores and circuits
graphs      a model as a graph on top of its sites, and runs with some of its edges
behaviour   what a circuit has to explain: a metric of a model on pairs of examples
discovery   scores for edges: exact patching, EAP and EAP-IG, ACDC, a trained mask
stability   agreement between runs, and agreement by chance
measures    faithfulness, completeness and minimality of a circuit, areas under its curve
boolean     known circuits of gates, written into few dimensions
diagrams    the nodes of a diagram of gates, and the edges found, missed and wrong
tracr       programs that a compiler wrote into transformers
census      every subgraph of a small network
gates       how important a subcomponent is for one input
masks       subcomponents of layers, and what it costs to take parts of them away
decomposition  matrices of layers as sums of subcomponents, of which each input needs few
parameters  the decomposition of a tied model, whose two matrices share subcomponents
"""

from toymodels.circuits.behaviour import Behaviour
from toymodels.circuits.boolean import (
    AND,
    OR,
    XOR,
    BooleanNetwork,
    Program,
    Truth,
    boolean_graph,
    padded_directions,
    random_directions,
    random_program,
    true_edges,
    written,
)
from toymodels.circuits.census import (
    all_circuits,
    holds_faithful,
    minimal_circuits,
    outputs_of_all_circuits,
)
from toymodels.circuits.decomposition import decompose_layers, unfaithfulness
from toymodels.circuits.diagrams import compared_edges, gate_nodes
from toymodels.circuits.discovery import (
    OverOrders,
    acdc,
    acdc_over_orders,
    damage,
    edge_attribution,
    edge_patching,
    edge_pruning,
)
from toymodels.circuits.edges import Edges, edge_names, of_edges, top_edges, vector
from toymodels.circuits.gates import Gates, hard_sigmoid
from toymodels.circuits.graphs import Graph, all_edges, run
from toymodels.circuits.masks import (
    Adversary,
    DecomposedLayer,
    Layer,
    MasksLoss,
    layers_importances,
    masked_output,
    masks_loss,
)
from toymodels.circuits.measures import (
    MIB_GRID,
    Areas,
    areas,
    completeness,
    faithfulness,
    faithfulness_curve,
    minimality,
)
from toymodels.circuits.parameters import Subcomponents, decompose_parameters, importances
from toymodels.circuits.stability import jaccard, jaccard_by_chance, rank_correlation
from toymodels.circuits.tracr import (
    TracrProgram,
    compressed,
    from_tracr,
    tracr_graph,
    tracr_program,
    wired_edges,
)

__all__ = [
    "AND",
    "MIB_GRID",
    "OR",
    "XOR",
    "Adversary",
    "Areas",
    "Behaviour",
    "BooleanNetwork",
    "DecomposedLayer",
    "Edges",
    "Gates",
    "Graph",
    "Layer",
    "MasksLoss",
    "OverOrders",
    "Program",
    "Subcomponents",
    "TracrProgram",
    "Truth",
    "acdc",
    "acdc_over_orders",
    "all_circuits",
    "all_edges",
    "areas",
    "boolean_graph",
    "compared_edges",
    "completeness",
    "compressed",
    "damage",
    "decompose_layers",
    "decompose_parameters",
    "edge_attribution",
    "edge_names",
    "edge_patching",
    "edge_pruning",
    "faithfulness",
    "faithfulness_curve",
    "from_tracr",
    "gate_nodes",
    "hard_sigmoid",
    "holds_faithful",
    "importances",
    "jaccard",
    "jaccard_by_chance",
    "layers_importances",
    "masked_output",
    "masks_loss",
    "minimal_circuits",
    "minimality",
    "of_edges",
    "outputs_of_all_circuits",
    "padded_directions",
    "random_directions",
    "random_program",
    "rank_correlation",
    "run",
    "top_edges",
    "tracr_graph",
    "tracr_program",
    "true_edges",
    "unfaithfulness",
    "vector",
    "wired_edges",
    "written",
]
