"""Stability of a discovery: how much the answers of several runs agree, and how much by chance.

The runs differ in the draw of the data, the seed of the model, the order of a search, or a setting.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import stats

from toymodels import checks
from toymodels.errors import InputError


def jaccard(kept: Float[Array, "runs edges"]) -> Float[Array, ""]:
    r"""Return the mean over pairs of runs of $|A \cap B| / |A \cup B|$ of their circuits.

    Args:
        kept: 1 for the edges of the circuit of each run and 0 for others; two runs or more.

    Returns:
        A number in $[0, 1]$: 1 for equal circuits, two empty ones too, and 0 for circuits without a
        common edge. `jaccard_by_chance` is the value to compare with.
    """
    kept = _checked_runs("kept", kept)
    checks.when_known(_check_kept, kept, elementwise=True)

    def pair(one: Array, other: Array) -> Array:
        common, either = jnp.sum(one * other), jnp.sum(jnp.maximum(one, other))
        return jnp.where(either == 0, 1.0, common / jnp.where(either == 0, 1.0, either))

    return _mean_over_pairs(pair, kept)


def jaccard_by_chance(first: int, second: int, edges: int) -> float:
    r"""Return the expected Jaccard index of two random circuits, which is exact.

    With $K$ and $L$ of $E$ edges, the number $X$ of common edges is hypergeometric, and the index
    is $X / (K + L - X)$.

    Args:
        first: the number $K$ of edges of one circuit.
        second: the number $L$ of edges of the other circuit.
        edges: the number $E$ of all edges.
    """
    checks.count("edges", edges)
    for name, size in (("first", first), ("second", second)):
        checks.count(name, size, minimum=0)
        if size > edges:
            raise InputError(f"{name} is {size} of {edges} edges: give at most {edges}")
    if first == second == 0:
        return 1.0
    common = np.arange(min(first, second) + 1)
    probability = stats.hypergeom.pmf(common, edges, first, second)
    return float(np.sum(probability * common / (first + second - common)))


def rank_correlation(scores: Float[Array, "runs edges"]) -> Float[Array, ""]:
    r"""Return the mean over pairs of runs of Spearman's correlation between their scores.

    Equal scores share the mean of their ranks.

    Args:
        scores: the scores of all edges in each run, as `circuits.vector` gives them; two runs or
            more.

    Returns:
        A number in $[-1, 1]$: 1 for rankings that are equal. Independent rankings of $E$ edges have
        mean 0 and variance $1 / (E - 1)$. It is NaN if all scores of a run are equal, or if one
        is NaN.
    """
    scores = _checked_runs("scores", scores)

    def pair(one: Array, other: Array) -> Array:
        one, other = one - jnp.mean(one), other - jnp.mean(other)
        size = jnp.sqrt(jnp.sum(one**2) * jnp.sum(other**2))
        return jnp.where(size > 0, jnp.sum(one * other) / jnp.where(size > 0, size, 1.0), jnp.nan)

    return _mean_over_pairs(pair, jax.vmap(_ranks)(scores))


def _ranks(scores: Float[Array, " edges"]) -> Float[Array, " edges"]:
    ascending = jnp.sort(scores)
    below = jnp.searchsorted(ascending, scores, side="left")
    ranks = (below + jnp.searchsorted(ascending, scores, side="right")) / 2
    return jnp.where(jnp.any(jnp.isnan(scores)), jnp.nan, ranks)


def _mean_over_pairs(measure: Callable[[Array, Array], Array], runs: Array) -> Array:
    pairs = np.asarray(list(itertools.combinations(range(len(runs)), 2)))
    return jnp.mean(jax.vmap(measure)(runs[pairs[:, 0]], runs[pairs[:, 1]]))


def _check_kept(kept: Any) -> None:
    """Raise `InputError` for numbers outside [0, 1], such as scores; NaN gives NaN."""
    numbers = np.asarray(kept)
    wrong = numbers[(numbers < 0) | (numbers > 1)]
    if wrong.size:
        raise InputError(f"kept holds {wrong[0]:g}: give 1 for kept edges and 0 for others")


def _checked_runs(name: str, runs: Any) -> Float[Array, "runs edges"]:
    array = jnp.asarray(runs, jnp.result_type(float))
    if array.ndim != 2 or len(array) < 2:
        raise InputError(
            f"{name} has shape {array.shape}: give runs x edges, with two runs or more to compare"
        )
    return array
