r"""Loss against training time of a linear student, with and without a bottleneck.

A teacher multiplies each of $n$ uncorrelated features by its gain, $y_i = g_i x_i$ with
$\mathbb E\, x x^\top = \operatorname{diag}(\lambda)$. A student learns a matrix $B$ by gradient
flow, $\dot B = -\partial L / \partial B$ from $B = 0$, on the loss $L = \mathbb E \lVert y -
\hat y \rVert^2$. Without a bottleneck $\hat y = B x$, and each feature is learned on its own. With
one, $\hat y = V^\top B V x$, where $V$ embeds the features in $m < n$ dimensions and stays fixed,
so that features in superposition are learned together. Both losses are sums of exponentials.

References:
    Chen, Chen, Liu and Gore (2026), "Superposition unifies power-law training dynamics", arXiv
    2602.01045, for the question. The loss with a bottleneck is derived here.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from toymodels import checks

__all__ = ["Curve", "bottleneck_curve", "exponent_of_features", "feature_curve"]


class Curve(NamedTuple):
    """The loss of a student over time.

    Attributes:
        excess: the loss above its floor at each time.
        floor: the loss that remains after infinite time.
    """

    excess: Float[np.ndarray, " times"]
    floor: float


def feature_curve(
    times: Float[np.ndarray, " times"],
    variance: Float[np.ndarray, " features"],
    gain: Float[np.ndarray, " features"],
) -> Curve:
    r"""Return the loss of a student without a bottleneck, whose floor is 0.

    $$L(t) = \sum_i \lambda_i g_i^2 e^{-4 \lambda_i t}.$$

    Args:
        times: the times $t \ge 0$; a step of gradient descent at rate $\eta$ takes the time $\eta$.
        variance: $\lambda$, the mean square of each feature.
        gain: $g$, what the teacher multiplies each feature with.
    """
    times, variance, gain = (np.asarray(each, np.float64) for each in (times, variance, gain))
    checks.same_size("features", variance=variance.size, gain=gain.size)
    _check_signs(times, variance)
    return Curve(np.exp(-4 * np.outer(times, variance)) @ (variance * gain**2), 0.0)


def _check_signs(times: np.ndarray, variance: np.ndarray) -> None:
    checks.interval("a time", times, low=0, remedy="training begins at 0")
    checks.interval("a variance", variance, low=0, remedy="it is the mean square of a feature")


def exponent_of_features(variance_exponent: Any, gain_exponent: Any) -> Any:
    r"""Return the exponent of the loss of infinitely many features without a bottleneck.

    For $\lambda_i = i^{-a}$ and $g_i^2 = i^{-b}$ the loss falls as $t^{-(a + b - 1) / a}$, because
    the features that are not yet learned at time $t$ are those with $\lambda_i < 1 / t$.

    Args:
        variance_exponent: $a > 0$; a number or an array of any kind.
        gain_exponent: $b > 1 - a$; a number or an array of any kind.
    """
    return (variance_exponent + gain_exponent - 1) / variance_exponent


def bottleneck_curve(
    times: Float[np.ndarray, " times"],
    embedding: Float[np.ndarray, "hidden features"],
    variance: Float[np.ndarray, " features"],
    gain: Float[np.ndarray, " features"],
) -> Curve:
    r"""Return the loss of a student with a bottleneck.

    With the eigenvectors $q_j$ of $V V^\top$ for the eigenvalues $p_j$, and $r_k$ of
    $V \operatorname{diag}(\lambda) V^\top$ for $c_k$,

    $$L(t) - L(\infty) = \sum_{jk} \frac{s_{jk}^2}{p_j c_k} e^{-4 p_j c_k t}, \qquad
    s_{jk} = q_j^\top V \operatorname{diag}(g \lambda) V^\top r_k.$$

    Args:
        times: the times $t \ge 0$.
        embedding: $V$, of full rank.
        variance: $\lambda > 0$.
        gain: $g$.
    """
    times, embedding = np.asarray(times, np.float64), np.asarray(embedding, np.float64)
    variance, gain = np.asarray(variance, np.float64), np.asarray(gain, np.float64)
    checks.same_size("features", embedding=embedding.shape[1], variance=variance.size)
    checks.same_size("features", variance=variance.size, gain=gain.size)
    _check_signs(times, variance)
    outputs, left = np.linalg.eigh(embedding @ embedding.T)
    inputs, right = np.linalg.eigh((embedding * variance) @ embedding.T)
    rates = np.outer(outputs, inputs)
    learned = (left.T @ (embedding * (gain * variance)) @ embedding.T @ right) ** 2 / rates
    excess = [np.sum(learned * np.exp(-4 * rates * time)) for time in times]
    return Curve(np.array(excess), float(np.sum(variance * gain**2) - np.sum(learned)))
