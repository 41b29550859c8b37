"""Colours: of lines, weights, importances, phases and polytopes."""

from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from jaxtyping import Shaped
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb

from toymodels.errors import InputError

__all__ = [
    "ANTIPODAL",
    "BACKGROUND",
    "CYCLE",
    "DEDICATED",
    "DEDICATED_BESIDE_PAIR",
    "IMPORTANCE_MAP",
    "MARKERS",
    "NOT_REPRESENTED",
    "PHASE_COLORS",
    "POLYTOPE_COLORS",
    "SHAPE_COLORS",
    "SUPERPOSITION_MAP",
    "SUPERPOSITION_NORM",
    "VALUE_MAP",
    "WEIGHT_MAP",
    "WEIGHT_NORM",
    "importance_colors",
    "importance_norm",
    "norm_and_superposition",
    "phase_colors",
]

# Okabe and Ito (2008), "Color Universal Design", in an order that keeps neighbours apart for
# readers without red or green cones. Their yellow is left out, because it is too light for lines.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of lines, one after another."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Markers beside the colours of `CYCLE`, so that colour is not all that tells lines apart."""

# Yellow means the most important feature and nothing else, so no other scale ends in yellow.
IMPORTANCE_MAP = mpl.colormaps["viridis"]
"""Colours of importances."""
VALUE_MAP = LinearSegmentedColormap.from_list(
    "value", ["#f3f6fa", "#a9c4e0", "#4f86bd", "#1d4f8c", "#0b2447"]
)
"""Colours of any other quantity that starts at 0 or at its smallest value."""
WEIGHT_MAP, WEIGHT_NORM = mpl.colormaps["coolwarm"], Normalize(-1, 1)
"""Colours of whatever has a sign: blue is negative, red is positive."""
SUPERPOSITION_MAP = LinearSegmentedColormap.from_list(
    "superposition", mpl.colormaps["plasma"](np.linspace(0, 0.72, 64))
)
"""Colours of the superposition of a feature: blue is alone, orange shares a whole dimension."""
SUPERPOSITION_NORM = Normalize(0, 1)
BACKGROUND = "#FCFBF8"
# The paper's colours of `_SHAPES`, one after another, and of features that are not learned.
POLYTOPE_COLORS = ("#cc33aa", "#3366cc", "#229944", "#ccaa00", "#ee7722", "#7744aa", "#cc2222")
_SHAPES = ("dedicated", "tetrahedron", "triangle", "digon", "pentagon", "square antiprism")
SHAPE_COLORS = dict(zip(_SHAPES, POLYTOPE_COLORS, strict=False)) | {
    "not learned": POLYTOPE_COLORS[-1], "simplex": "#88bbee", "diplo-simplex": "#11aaaa",
    "polygon": "#aa7755", "square pyramid": "#113311", "unknown": "#999999",
}  # fmt: skip
"""The colour of each `toymodels.analysis.polytopes.Shape`, as in the paper where it has one."""
NOT_REPRESENTED, DEDICATED, ANTIPODAL = "#dddddd", "#003399", "#dd4444"
DEDICATED_BESIDE_PAIR = "#66a3e0"
# One colour for each `toymodels.theory.phases.Phase`, in the order of its values.
PHASE_COLORS = (NOT_REPRESENTED, DEDICATED, ANTIPODAL, DEDICATED_BESIDE_PAIR)


def importance_norm(importance: Shaped[Any, " features"]) -> Normalize:
    """Return the scale from the smallest importance at 0 to the greatest at 1."""
    values = np.asarray(importance, float)
    known = values[np.isfinite(values)]
    return Normalize(known.min(initial=np.inf), known.max(initial=0)) if known.size else Normalize()


def importance_colors(importance: Shaped[Any, " features"]) -> Shaped[np.ndarray, "features 4"]:
    """Return one colour for each feature, from dark purple to yellow at the greatest importance."""
    values = np.asarray(importance, float)
    return IMPORTANCE_MAP(np.asarray(importance_norm(values)(values)))


def norm_and_superposition(norm: Any, superposition: Any) -> Any:
    """Return the paper's colour of a feature: blue with its norm, red with its superposition.

    A feature of norm 0 is grey.

    Args:
        norm: the norm of a feature; all norms from 1 on have one colour.
        superposition: the superposition of that feature; all values from 1 on have one colour.

    Returns:
        Red, green, blue and opacity in one more dimension, "channel" of labelled arrays. What is
        NaN is transparent.
    """
    return xr.apply_ufunc(
        _norm_and_superposition, norm, superposition, output_core_dims=[["channel"]]
    )


def _norm_and_superposition(norm: Any, superposition: Any) -> Shaped[np.ndarray, "*cells 4"]:
    norm, superposition = np.broadcast_arrays(norm, superposition)
    known = ~(np.isnan(norm) | np.isnan(superposition))
    length = np.clip(np.where(known, norm, 0), 0, 1)[..., None]
    mixture = np.clip(np.where(known, superposition, 0), 0, 1)[..., None]
    full = (1 - mixture) * np.asarray(to_rgb(DEDICATED)) + mixture * np.asarray(to_rgb(ANTIPODAL))
    colors = (1 - length) * np.asarray(to_rgb(NOT_REPRESENTED)) + length * full
    return _with_opacity(colors, known)


def _with_opacity(colors: Any, known: Any) -> Shaped[np.ndarray, "*cells 4"]:
    return np.where(known[..., None], np.insert(colors, 3, 1.0, axis=-1), 0.0)


def phase_colors(phase: Any) -> Any:
    """Return the paper's colours of the phases of `toymodels.theory.phases.Phase`.

    Args:
        phase: values of `Phase`, NaN where a cell diverged.

    Returns:
        Red, green, blue and opacity in one more dimension, "channel" of labelled arrays. What is
        NaN is transparent.

    Raises:
        ValueError: a number is no phase, such as a mean over seeds.
    """
    return xr.apply_ufunc(_phase_colors, phase, output_core_dims=[["channel"]])


def _phase_colors(phase: Any) -> Shaped[np.ndarray, "*cells 4"]:
    phase = np.asarray(phase, float)
    known = ~np.isnan(phase)
    number = np.where(known, phase, 0)
    wrong = number[~np.isin(number, range(len(PHASE_COLORS)))]
    if wrong.size:
        raise InputError(
            f"phase holds {wrong[0]:g}: give values of Phase, 0 to {len(PHASE_COLORS) - 1}, of one "
            "seed each"
        )
    colors = np.asarray([to_rgb(color) for color in PHASE_COLORS])
    return _with_opacity(colors[number.astype(int)], known)
