"""Neurons and their weights: bars, stacks, circuits, and the way from an input to its output."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from toymodels.analysis import neurons as measures
from toymodels.errors import InputError
from toymodels.plotting.colors import SUPERPOSITION_MAP, SUPERPOSITION_NORM, WEIGHT_MAP
from toymodels.plotting.vectors import columns

__all__ = [
    "by_code",
    "by_feature",
    "circuit",
    "input_output",
    "neuron_stacks",
    "norm_bars",
    "stacks_key",
]


def norm_bars(
    axes: Axes, norm: Shaped[Any, " features"], superposition: Shaped[Any, " features"]
) -> None:
    """Draw one horizontal bar for each feature, the first on top, coloured by its superposition.

    Args:
        axes: axes to draw on; they end at a norm of 1.3.
        norm: the norm of each feature.
        superposition: the superposition of each feature; all values from 1 on have one colour.

    Raises:
        ValueError: arrays of different shapes, or with a dimension of seeds.
    """
    lengths, shared = np.asarray(norm), np.asarray(superposition)
    if lengths.ndim != 1 or lengths.shape != shared.shape:
        raise InputError(
            f"norm has shape {lengths.shape} and superposition {shared.shape}: give one number of "
            "each for every feature"
        )
    colors = SUPERPOSITION_MAP(SUPERPOSITION_NORM(shared))
    axes.barh(np.arange(len(lengths)), lengths, height=0.8, color=colors, rasterized=True)
    axes.set(xlim=(0, 1.3), ylim=(len(lengths) - 0.4, -0.6), xticks=(0, 1), yticks=())
    axes.spines["bottom"].set_visible(False)


def neuron_stacks(
    axes: Axes,
    weights: Any,
    colors: Sequence[Any] | np.ndarray,
    *,
    tint: Sequence[Any] | np.ndarray | None = None,
    numbers_above: float | None = None,
) -> None:
    """Draw the paper's stack plot: a column for each neuron, a rectangle for each of its weights.

    Positive weights are piled up from the axis in the order of the features, negative ones
    down; heights are absolute values, so that a neuron for one feature is one rectangle.

    Args:
        axes: axes to draw on; neurons stand from left to right.
        weights: neurons x features; a labelled array has a dimension "feature", in any order. NaN
            draws nothing.
        colors: the colour of each feature.
        tint: the colour of the background of each neuron; none if not given.
        numbers_above: absolute weight from which a rectangle shows the number of its feature; no
            numbers if not given.

    Raises:
        ValueError: another number of colours than of features, or of tints than of neurons.
    """
    table = np.nan_to_num(columns(weights))
    if table.shape[1] != len(colors):
        raise InputError(
            f"weights has shape {table.shape} for {len(colors)} colors: give neurons x features, "
            "and one colour for each feature"
        )
    if tint is not None and len(tint) != len(table):
        raise InputError(
            f"tint has {len(tint)} colours for {len(table)} neurons: give one for each"
        )
    places = np.arange(len(table))
    for part in (np.maximum(table, 0), np.minimum(table, 0)):
        starts = np.cumsum(part, axis=1) - part
        for feature, (height, start) in enumerate(zip(part.T, starts.T, strict=True)):
            seen = height != 0
            axes.bar(
                places[seen], height[seen], 0.8, start[seen], color=colors[feature],
                edgecolor="white", linewidth=0.3,
            )  # fmt: skip
            named = seen & (abs(height) > (np.inf if numbers_above is None else numbers_above))
            for neuron in np.flatnonzero(named):
                _write_inside(axes, neuron, start[neuron] + height[neuron] / 2, feature)
    for place, color in zip(places, [] if tint is None else tint, strict=tint is not None):
        axes.axvspan(place - 0.5, place + 0.5, color=color, zorder=0, linewidth=0)
    axes.axhline(0, color="0.3", linewidth=0.6)
    axes.set(xticks=(), xlim=(-0.5, len(table) - 0.5))
    axes.spines["bottom"].set_visible(False)


def _write_inside(axes: Axes, across: Any, along: Any, feature: int) -> None:
    """Write the number of a feature into its rectangle, white on dark ones."""
    dark = np.dot(axes.patches[-1].get_facecolor()[:3], (0.299, 0.587, 0.114)) < 0.5
    axes.text(
        across, along, str(feature), ha="center", va="center", fontsize=7,
        color="white" if dark else "black",
    )  # fmt: skip


def stacks_key(axes: Axes, names: Mapping[str, Any], *, what: str = "w") -> None:
    """Draw the key of stack plots: one neuron with three weights, and what its parts mean.

    Args:
        axes: axes to draw on, beside the stack plots.
        names: what each colour of features or of backgrounds means.
        what: the symbol of the weights whose absolute values are heights.
    """
    neuron_stacks(axes, [[1.0, 0.6, -0.5]], ["0.45", "0.75", "0.6"], numbers_above=0.1)
    parts = (
        "column: a neuron",
        f"rectangle: a weight, as high as $|{what}|$",
        "number: its feature",
        "below the line: negative",
    )
    lines = [*((None, text) for text in parts), *((color, name) for name, color in names.items())]
    for number, (color, text) in enumerate(lines):
        height = 1 - (number + 0.5) / len(lines)
        if color is not None:
            square = {"boxstyle": "square,pad=0.2", "facecolor": color, "edgecolor": "0.7"}
            axes.text(1.08, height, "  ", bbox=square, transform=axes.transAxes, fontsize=7)
        start = 1.05 if color is None else 1.22
        axes.text(start, height, text, va="baseline", fontsize=8, transform=axes.transAxes)
    axes.set(xlim=(-1.5, 0.7), yticks=())
    axes.spines["left"].set_visible(False)


def by_feature(weights: Any) -> Int[np.ndarray, " neurons"]:
    """Return the order of neurons by the feature of their largest weight.

    Neurons with one such feature are sorted by that weight, from the most positive to the most
    negative.

    Args:
        weights: neurons x features; a labelled array has a dimension "feature", in any order.
    """
    table = columns(weights)
    primary = abs(table).argmax(axis=1)
    return np.lexsort((-table[np.arange(len(table)), primary], primary))


def by_code(weights: Any) -> Int[np.ndarray, " neurons"]:
    """Return the order of neurons by their code words: monosemantic neurons come first.

    The code word of a neuron says for which features it fires. Neurons that fire for the first
    feature come before those that do not; ties are broken by the second feature, and so on.

    Args:
        weights: neurons x features of a `ReLUHidden` model, the most important feature first; a
            labelled array has a dimension "feature", in any order.
    """
    table = columns(weights)
    words = np.asarray(measures.code_words(jnp.asarray(table)))
    alone = np.asarray(measures.monosemantic(jnp.asarray(table)))
    return np.lexsort(np.vstack([~words.T[::-1], ~alone]))


def circuit(
    axes: Axes,
    weights_in: Any,
    weights_out: Any,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    neurons: Sequence[str] = (),
    numbers: str = "",
) -> None:
    """Draw a layer of neurons as a graph: inputs on the left, neurons, outputs on the right.

    Edges are as wide as their weights are large, blue for negative and red for positive ones.

    Args:
        axes: axes to draw on; without ticks or a frame.
        weights_in: $W_1$, neurons x inputs.
        weights_out: $W_2$, outputs x neurons.
        inputs: the name of each input.
        outputs: the name of each output.
        neurons: the name of each neuron; dots if not given.
        numbers: the format of the weight at each edge, such as ".2g"; "" writes none.

    Raises:
        ValueError: numbers of names that do not fit the weights.
    """
    into, out = np.asarray(weights_in, float), np.asarray(weights_out, float)
    count = len(into)
    if into.shape != (count, len(inputs)) or out.shape != (len(outputs), count):
        raise InputError(
            f"weights have shapes {into.shape} and {out.shape} for {len(inputs)} inputs and "
            f"{len(outputs)} outputs: give neurons x inputs and outputs x neurons"
        )
    if len(neurons) not in (0, count):
        raise InputError(f"neurons has {len(neurons)} names for {count} neurons: give one each")
    layers = (inputs, neurons or [""] * count, outputs)
    places = [np.linspace(1, 0, len(layer)) if len(layer) > 1 else [0.5] for layer in layers]
    largest = max(np.abs(into).max(initial=0), np.abs(out).max(initial=0), 1e-30)
    for layer, table in enumerate((into.T, out.T)):
        for (start, end), weight in np.ndenumerate(table):
            if abs(weight) > 0.02 * largest:
                ends = [(layer, places[layer][start]), (layer + 1, places[layer + 1][end])]
                _edge(axes, ends, weight / largest, f"{weight:{numbers}}" if numbers else "")
    box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.6", "linewidth": 0.8}
    for across, (names, heights) in enumerate(zip(layers, places, strict=True)):
        for name, height in zip(names, heights, strict=True):
            if name:
                axes.text(across, height, name, ha="center", va="center", fontsize=8, bbox=box)
            else:
                axes.plot(across, height, "o", color="0.3", markersize=5)
    axes.set(xlim=(-0.3, 2.3), ylim=(-0.2, 1.2))
    axes.set_axis_off()


def _edge(axes: Axes, ends: Any, share: float, text: str) -> None:
    color = WEIGHT_MAP(Normalize(-1, 1)(np.sign(share)))
    axes.add_collection(LineCollection([ends], colors=[color], linewidths=3 * abs(share), zorder=0))
    if text:
        x, y = 0.65 * np.asarray(ends[0]) + 0.35 * np.asarray(ends[1])
        axes.annotate(text, (x, y), (0, 5), textcoords="offset points", color=color, ha="center")


def input_output(
    axes: Axes,
    weights: Any,
    bias: Any,
    feature: int,
    *,
    density: float,
    examples: int = 4000,
) -> None:
    r"""Draw what a ReLU output model returns for one feature, and what the others do to it.

    The line is $\mathrm{ReLU}(W_i \cdot W_i\, x_i + b_i)$, with no other feature active. The two
    shadings go from the 10th to the 90th percentile, and from the 25th to the 75th, when the others
    are present: each is 0, or with probability `density` uniform in $[0, 1]$. The dashed line is
    $x_i$ itself, which the model should return.

    Args:
        axes: axes to draw on.
        weights: hidden x features; a labelled array has a dimension "feature", in any order.
        bias: the bias of each feature.
        feature: the feature $i$.
        density: the density of the other features.
        examples: how many draws of the others the shading is made of, always the same ones.
    """
    table, offset = columns(weights), np.asarray(bias, float)
    if offset.shape != (table.shape[1],) or not 0 <= feature < table.shape[1]:
        raise InputError(
            f"feature is {feature}, with weights of shape {table.shape} and bias of shape "
            f"{offset.shape}: give one bias for each feature, and one of the features"
        )
    draw = np.random.default_rng(0)
    others = draw.random((table.shape[1], examples)) * (
        draw.random((table.shape[1], examples)) < density
    )
    others[feature] = 0
    x = np.linspace(0, 1, 101)
    overlaps = table[:, feature] @ table
    alone = overlaps[feature] * x + offset[feature]
    disturbed = np.maximum(alone[:, None] + overlaps @ others, 0)
    for low, high in ((10, 90), (25, 75)):
        edges = np.percentile(disturbed, (low, high), axis=1)
        label = f"others present, {low} to {high} %"
        axes.fill_between(x, *edges, color="C1", alpha=0.25, linewidth=0, label=label)
    axes.plot(x, np.maximum(alone, 0), color="C0", label="alone")
    axes.plot(x, x, "--", color="0.5", linewidth=0.8, label="$x_i$ itself")
    axes.set(xlabel=f"input $x_{{{feature}}}$", ylabel=f"output $x'_{{{feature}}}$", xlim=(0, 1))
    axes.legend()
