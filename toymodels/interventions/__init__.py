"""Causal interventions: change a part of a model's activations and see what happens.

Everything is a pure function of ONE model and ONE example or pair of examples, under `jit`,
`vmap` and `sweep`, for any Linen module with `Site`s.

    parts      what is changed: a site, a unit, a direction, a subspace, a position, a head
    edits      how it is changed: zero, mean, resample, set_to, add, patch; edits compose
    effects    what happens: mediation, patching, paths, lesions, stimulation, with intervals
"""

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
    Interval,
    Mediation,
    Patching,
    bootstrap,
    controlled_direct,
    lesions,
    mediation,
    normalised,
    patching,
    path_patching,
    stimulation,
)
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

__all__ = [
    "Edit",
    "Interval",
    "Mediation",
    "Part",
    "Patching",
    "activations",
    "add",
    "bootstrap",
    "controlled_direct",
    "direction",
    "directions",
    "head",
    "lesions",
    "mean",
    "mediation",
    "normalised",
    "patch",
    "patching",
    "path_patching",
    "position",
    "resample",
    "run",
    "set_to",
    "stimulation",
    "subspace",
    "unit",
    "whole",
    "zero",
]
