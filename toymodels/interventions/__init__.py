"""Causal interventions: change a part of a model's activations and see what happens.

Everything is a pure function of ONE model and ONE example or pair of examples, under `jit`,
`vmap` and `sweep`, for any Linen module with `Site`s.

    parts            what is changed: a site, a unit, a direction, a subspace, a position, a head
    edits            how it is changed: zero, mean, resample, set_to, add, patch; edits compose
    recording        the value at every site for a batch, as a labelled Dataset (`tm.record`)
    effects          what happens on a pair of examples: mediation, patching, paths
    maps             the effect of patching every place of a run
    studies          what happens over a batch: lesions and stimulation
    controls         intervals for the mean of an effect, and the controls beside it
    approximations   the effects of patching, by gradients
    alignment        interchange interventions, and the search for the subspace of a variable
    scrubbing        what is lost when all that a hypothesis calls irrelevant is replaced
"""

from toymodels.interventions.alignment import (
    Interchange,
    align,
    interchange,
    interchange_accuracy,
    read_write_overlap,
)
from toymodels.interventions.approximations import (
    attribution_patching,
    edge_attribution,
    integrated_patching,
)
from toymodels.interventions.controls import Controlled, Interval, bootstrap, controlled
from toymodels.interventions.edits import (
    Edit,
    activations,
    add,
    mean,
    patch,
    resample,
    run,
    set_to,
    zero,
)
from toymodels.interventions.effects import (
    Mediation,
    Patching,
    controlled_direct,
    mediation,
    normalised,
    patching,
    path_patching,
)
from toymodels.interventions.maps import label, patching_map, places
from toymodels.interventions.parts import (
    Part,
    direction,
    directions,
    head,
    position,
    subspace,
    unit,
    whole,
)
from toymodels.interventions.scrubbing import (
    Node,
    Scrubbing,
    keeping,
    matching,
    scrub,
    scrubbed_output,
)
from toymodels.interventions.studies import damage, lesions, stimulation

__all__ = [
    "Controlled",
    "Edit",
    "Interchange",
    "Interval",
    "Mediation",
    "Node",
    "Part",
    "Patching",
    "Scrubbing",
    "activations",
    "add",
    "align",
    "attribution_patching",
    "bootstrap",
    "controlled",
    "controlled_direct",
    "damage",
    "direction",
    "directions",
    "edge_attribution",
    "head",
    "integrated_patching",
    "interchange",
    "interchange_accuracy",
    "keeping",
    "label",
    "lesions",
    "matching",
    "mean",
    "mediation",
    "normalised",
    "patch",
    "patching",
    "patching_map",
    "path_patching",
    "places",
    "position",
    "read_write_overlap",
    "resample",
    "run",
    "scrub",
    "scrubbed_output",
    "set_to",
    "stimulation",
    "subspace",
    "unit",
    "whole",
    "zero",
]
