r"""Scores that tell two classes apart: the share classified correctly, and the AUROC.

A score is one number for each example, such as that of a probe. Labels are truth values; numbers,
such as 1 and -1 or the values of a feature, are refused. These are pure functions of the scores of
ONE model; `vmap` over a sweep.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from toymodels import checks
from toymodels.analysis import inputs

__all__ = ["accuracy", "auroc", "placements"]


def accuracy(
    scores: Float[Array, " examples"], labels: Bool[Array, " examples"]
) -> Float[Array, ""]:
    """Return the share of examples that are classified correctly, by the sign of their score.

    Returns:
        A number in $[0, 1]$. A constant score reaches the share of the more frequent class, which
        is nearly 1 for sparse features. It is NaN if a score is NaN.
    """
    scores, labels = _scored(scores, labels)
    share = jnp.mean((scores > 0) == labels, dtype=scores.dtype)
    return jnp.where(jnp.isnan(scores).any(), jnp.nan, share)


def placements(
    scores: Float[Array, " examples"], labels: Bool[Array, " examples"]
) -> Float[Array, " examples"]:
    r"""Return for each example the share of the other class that it is ranked correctly against.

    For a positive it is the share of negatives below it, and for a negative the share of positives
    above it; ties count half. The mean over either class is the AUROC. If two probes score one set
    of examples, and their placements differ by $\delta$,

    $$\operatorname{Var}(\Delta \text{AUROC}) \approx \frac{\operatorname{Var}_+ \delta}{n_+}
      + \frac{\operatorname{Var}_- \delta}{n_-}.$$

    Returns:
        Numbers in $[0, 1]$; NaN if a score is NaN, or if all labels are of one class.

    References:
        DeLong, DeLong and Clarke-Pearson (1988), "Comparing the Areas under Two or More Correlated
        Receiver Operating Characteristic Curves".
    """
    scores, labels = _scored(scores, labels)
    order = jnp.argsort(scores)
    ascending = scores[order]
    zero = jnp.zeros(1, jnp.int32)
    positives = jnp.concatenate([zero, jnp.cumsum(labels[order], dtype=jnp.int32)])
    below = jnp.searchsorted(ascending, scores, side="left")
    not_above = jnp.searchsorted(ascending, scores, side="right")
    # Half precision is too coarse for counts.
    dtype = jnp.promote_types(scores.dtype, jnp.float32)
    positives_below = (positives[below] + positives[not_above]).astype(dtype) / 2
    negatives_below = (below + not_above).astype(dtype) / 2 - positives_below
    # Subtracting counts, not shares, gives exactly 0 if there is no positive above.
    positives_above = positives[-1] - positives_below
    placed = jnp.where(
        labels,
        negatives_below / (labels.size - positives[-1]),
        positives_above / positives[-1],
    )
    # Labels of one class give 0/0, which is NaN.
    return jnp.where(jnp.isnan(scores).any(), jnp.nan, placed)


def auroc(scores: Float[Array, " examples"], labels: Bool[Array, " examples"]) -> Float[Array, ""]:
    r"""Return how well scores tell two classes apart: $P(s_+ > s_-) + P(s_+ = s_-) / 2$.

    It is the area under the curve of true positives against false positives, over all thresholds.

    Returns:
        A number in $[0, 1]$: 1/2 for scores that do not depend on the label, and 1 if every
        positive scores higher than every negative. Increasing maps of the scores do not change
        it. It is NaN if a score is NaN, or if all labels are of one class.
    """
    scores, labels = _scored(scores, labels)
    placed = placements(scores, labels)
    return jnp.sum(jnp.where(labels, placed, 0.0)) / jnp.sum(labels)


def _scored(scores: Any, labels: Any) -> tuple[Float[Array, " examples"], Bool[Array, " examples"]]:
    scores = inputs.floats("scores", scores, rank=1)
    labels = inputs.labels("labels", labels, rank=1)
    checks.same_size("examples", scores=scores.size, labels=labels.size)
    return scores, labels
