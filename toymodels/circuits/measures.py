r"""Scores of circuits: how much of a model they hold, and whether an edge of them is superfluous.

With $\Delta(k)$ the metric of a run with the circuit $k$, less that with no edge, the faithfulness
of the circuit is

$$f(k) = \frac{E\, \Delta(k) \cdot \Delta(1)}{E\, \Delta(1) \cdot \Delta(1)},$$

the share of the effect of all edges that the circuit has; means go over pairs of examples. It is 1
for all edges and 0 for none, and may lie outside of $[0, 1]$ between them. If the metric is one
number and $\Delta(1)$ is equal in all pairs, it is the usual
$(m(k) - m(0)) / (m(1) - m(0))$.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from toymodels.circuits.behaviour import Behaviour
from toymodels.circuits.edges import Edges, of_edges, top_edges, vector
from toymodels.errors import InputError

MIB_GRID = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The shares of edges at which the Mechanistic Interpretability Benchmark measures circuits."""


def faithfulness(behaviour: Behaviour, kept: Edges) -> Float[Array, ""]:
    """Return the share of the effect of all edges that a circuit has; see the module.

    Args:
        behaviour: what the circuit has to explain.
        kept: a number in [0, 1] for each edge.

    Returns:
        1 for all edges and 0 for none; NaN if clean and corrupt examples have equal metrics.
    """
    none = behaviour.of_corrupts()
    whole, own = behaviour.of_cleans() - none, behaviour.of_circuit(kept) - none
    effect = jnp.sum(whole**2)
    share = jnp.sum(own * whole) / jnp.where(effect > 0, effect, 1.0)
    return jnp.where(effect > 0, share, jnp.nan)


def completeness(behaviour: Behaviour, kept: Edges) -> Float[Array, ""]:
    """Return 1 less the faithfulness of all edges that the circuit leaves out.

    It is 1 for a circuit without which nothing is left, and near 0 for a circuit with a backup.
    The arguments are those of `faithfulness`.
    """
    others = jax.tree.map(lambda edges: 1 - edges, kept)
    return 1 - faithfulness(behaviour, others)


def minimality(behaviour: Behaviour, kept: Edges) -> Float[Array, ""]:
    """Return how much faithfulness falls without the edge of the circuit that matters least.

    It is near 0 if some edge is superfluous. The arguments are those of `faithfulness`; `kept`
    holds 1 for the edges of the circuit and 0 for others, at least one 1.
    """
    kept = jax.tree.map(lambda edges: jnp.asarray(edges, jnp.result_type(float)), kept)
    flat = vector(kept)
    if not isinstance(flat, Tracer) and not jnp.any(flat > 0):
        raise InputError("the circuit is empty: keep one edge or more")

    def without(place: Int[Array, ""]) -> Array:
        """Return the faithfulness without one edge; a place after the last leaves all."""
        return faithfulness(behaviour, of_edges(flat.at[place].set(0.0, mode="drop"), kept))

    found = lax.map(without, jnp.arange(flat.size + 1))
    return jnp.min(jnp.where(flat > 0, found[-1] - found[:-1], jnp.inf))


def faithfulness_curve(behaviour: Behaviour, scores: Edges) -> Float[Array, " counts"]:
    """Return the faithfulness of the circuits of the 0, 1, 2, ... edges with the highest scores.

    Edges of equal scores follow in the order of `circuits.vector`. The arguments are those of
    `faithfulness`, with a score for each edge in place of a circuit.
    """

    def at(count: Int[Array, ""]) -> Array:
        return faithfulness(behaviour, top_edges(scores, count))

    return lax.map(at, jnp.arange(vector(scores).size + 1))


class Areas(NamedTuple):
    r"""The areas under a curve of faithfulness $f$ over the share of edges that are kept.

    Attributes:
        cpr: the circuit performance ratio $\int_0^1 f$, where $f$ is a step function: a share
            between $j / E$ and $(j + 1) / E$ keeps $j$ of $E$ edges.
        cmd: the circuit-model distance $\int_0^1 |1 - f|$.
        cpr_grid: the CPR of the benchmark: the trapezoid rule on the ten shares of `MIB_GRID`.
        cmd_grid: the CMD of the benchmark. The grid has no point between 0.5 and 1 and few above
            0.1, so it differs from the integral.
    """

    cpr: Float[Array, "*curves"]
    cmd: Float[Array, "*curves"]
    cpr_grid: Float[Array, "*curves"]
    cmd_grid: Float[Array, "*curves"]


def areas(curve: Float[Array, " counts"]) -> Areas:
    r"""Return the areas under a curve of faithfulness, as `faithfulness_curve` returns it.

    If $K$ of $E$ edges matter equally and are ranked first, $\text{CPR} = 1 - (K + 1) / 2E$ and
    $\text{CMD} = (K + 1) / 2E$.

    References:
        Mueller et al. (2025), "MIB: A Mechanistic Interpretability Benchmark".
    """
    curve = jnp.asarray(curve, jnp.result_type(float))  # whole numbers would cut the widths to 0
    edges = curve.size - 1
    if curve.ndim != 1 or edges < 1:
        raise InputError(
            f"the curve has shape {curve.shape}: give the faithfulness of 0, 1, 2, ... edges of "
            "ONE circuit, and use jax.vmap for several"
        )
    at = curve[np.floor(np.asarray(MIB_GRID) * edges + 1e-9).astype(int)]
    widths = np.diff(MIB_GRID)

    def trapezoid(heights: Array) -> Array:
        return jnp.sum(jnp.asarray(widths, curve.dtype) * (heights[1:] + heights[:-1]) / 2)

    return Areas(
        cpr=jnp.mean(curve[:-1]),
        cmd=jnp.mean(jnp.abs(1 - curve[:-1])),
        cpr_grid=trapezoid(at),
        cmd_grid=trapezoid(jnp.abs(1 - at)),
    )
