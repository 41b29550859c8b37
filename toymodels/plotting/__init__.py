"""Drawings of results in the visual language of the paper. The only importer of matplotlib.

Functions draw on matplotlib axes and take labelled results, whose dimensions say what is what; they
write the names, units and ticks of the axes themselves. Figures are made without `pyplot`: there is
no global state, no window and no backend to choose, and a notebook shows them nevertheless. What is
NaN, such as a cell that diverged, is drawn as missing.
"""

from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, LogNorm, Normalize
from matplotlib.figure import Figure

from toymodels.plotting.bars import (
    color_bar,
    norm_and_superposition_legend,
    superposition_bar,
    weight_bar,
)
from toymodels.plotting.circuits import circuit_diagram
from toymodels.plotting.colors import (
    ANTIPODAL,
    BACKGROUND,
    CYCLE,
    DEDICATED,
    DEDICATED_BESIDE_PAIR,
    IMPORTANCE_MAP,
    MARKERS,
    NOT_REPRESENTED,
    PHASE_COLORS,
    POLYTOPE_COLORS,
    SHAPE_COLORS,
    SUPERPOSITION_MAP,
    SUPERPOSITION_NORM,
    VALUE_MAP,
    WEIGHT_MAP,
    WEIGHT_NORM,
    importance_colors,
    importance_norm,
    norm_and_superposition,
    phase_colors,
)
from toymodels.plotting.dictionaries import pareto
from toymodels.plotting.figures import (
    SMALLEST_TEXT,
    WIDEST,
    NotebookFigure,
    check_figure,
    figure,
    figure_of_parts,
    style,
)
from toymodels.plotting.maps import PHASE_NAMES, heat_map, log_image, phase_diagram
from toymodels.plotting.matrices import by_component, gram, signed_matrix
from toymodels.plotting.moving import MovingFigure, animate
from toymodels.plotting.neurons import (
    by_code,
    by_feature,
    circuit,
    input_output,
    neuron_stacks,
    norm_bars,
    stacks_key,
)
from toymodels.plotting.scales import (
    DENSITY,
    INVERSE_DENSITY,
    density_axis,
    direct_labels,
    name_of,
    plain_ticks,
)
from toymodels.plotting.seeds import (
    bands,
    every_seed,
    grouped_bars,
    horizontal_bars,
    mean_and_range,
    range_band,
)
from toymodels.plotting.solids import overlap_graph, polytope, shape_colors_of
from toymodels.plotting.strips import LEVELS, dimension_strip, shape_shares
from toymodels.plotting.vectors import (
    columns,
    importance_bar,
    pair_spokes,
    spokes,
    turned,
    upright,
)

__all__ = [
    "ANTIPODAL",
    "BACKGROUND",
    "CYCLE",
    "DEDICATED",
    "DEDICATED_BESIDE_PAIR",
    "DENSITY",
    "IMPORTANCE_MAP",
    "INVERSE_DENSITY",
    "LEVELS",
    "MARKERS",
    "NOT_REPRESENTED",
    "PHASE_COLORS",
    "PHASE_NAMES",
    "POLYTOPE_COLORS",
    "SHAPE_COLORS",
    "SMALLEST_TEXT",
    "SUPERPOSITION_MAP",
    "SUPERPOSITION_NORM",
    "VALUE_MAP",
    "WEIGHT_MAP",
    "WEIGHT_NORM",
    "WIDEST",
    "Axes",
    "CenteredNorm",
    "Figure",
    "LogNorm",
    "MovingFigure",
    "Normalize",
    "NotebookFigure",
    "animate",
    "bands",
    "by_code",
    "by_component",
    "by_feature",
    "check_figure",
    "circuit",
    "circuit_diagram",
    "color_bar",
    "columns",
    "density_axis",
    "dimension_strip",
    "direct_labels",
    "every_seed",
    "figure",
    "figure_of_parts",
    "gram",
    "grouped_bars",
    "heat_map",
    "horizontal_bars",
    "importance_bar",
    "importance_colors",
    "importance_norm",
    "input_output",
    "log_image",
    "mean_and_range",
    "name_of",
    "neuron_stacks",
    "norm_and_superposition",
    "norm_and_superposition_legend",
    "norm_bars",
    "overlap_graph",
    "pair_spokes",
    "pareto",
    "phase_colors",
    "phase_diagram",
    "plain_ticks",
    "polytope",
    "range_band",
    "shape_colors_of",
    "shape_shares",
    "signed_matrix",
    "spokes",
    "stacks_key",
    "style",
    "superposition_bar",
    "turned",
    "upright",
    "weight_bar",
]
