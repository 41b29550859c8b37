r"""Methods of interpretability on the smallest models on which they are wrong.

Each function is the closed form of what a method reports, or of what is true instead.
`experiments/atlas_of_failures.py` measures both. Closed forms of other failures stand elsewhere:
absorption and hedging in `theory.dictionaries`, the distance that scrubbing misses in
`theory.scrubbing_distance`.

**The pair** is the model $y_1 = \mathrm{ReLU}(x_1 - x_2)$, $y_2 = \mathrm{ReLU}(x_2 - x_1)$: two
features of density $p$ in one dimension. They are independent, or always present together.
"""

import math
from typing import NamedTuple

from scipy import integrate, special

from toymodels import checks
from toymodels.errors import InputError

__all__ = [
    "SubspaceAccuracy",
    "crosscoder_ratio",
    "crosscoder_ratio_binary",
    "crosscoder_threshold",
    "grid_ratio",
    "midpoint_effect",
    "own_share",
    "own_share_together",
    "polygon_cosine",
    "random_subspace_accuracy",
    "recovered_together",
    "skipped_effect",
]


def recovered_together(density: float) -> float:
    r"""Return the loss that scrubbing recovers in the pair of features that occur together.

    The hypothesis is that output $i$ depends on $x_i$ alone. The losses are $p/3$ for the model,
    $p^2/3$ for scrubbed outputs and $5p/6 - p^2/3$ for outputs of random inputs, so that the
    recovered share is $(5 - 4p) / (3 - 2p)$. It is 1 for $p = 1$ alone.

    Args:
        density: $p$, in $(0, 1]$.

    Returns:
        A number in $[1, 5/3)$: more than everything.
    """
    _check_density(density)
    return (5 - 4 * density) / (3 - 2 * density)


def own_share(density: float) -> float:
    r"""Return the share of the variance of $y_1$ that $x_1$ explains, for independent features.

    It is $\mathrm{Var}\,E[y_1 \mid x_1] / \mathrm{Var}\,y_1$, with
    $E[y_1 \mid x_1] = (1 - p) x_1 + p x_1^2 / 2$.

    Args:
        density: $p$, in $(0, 1]$.

    Returns:
        A number in $(0, 1)$ that tends to 1 as $p \to 0$.
    """
    _check_density(density)
    p, q = density, 1 - density
    mean = p * (q / 2 + p / 6)
    square = p * (q / 3 + p / 12)
    explained = p * (q**2 / 3 + q * p / 4 + p**2 / 20)
    return (explained - mean**2) / (square - mean**2)


def own_share_together(density: float) -> float:
    r"""Return the share of the variance of $y_1$ that $x_1$ explains, for features together.

    With $E[y_1 \mid x_1] = x_1^2 / 2$ it is $(p/20 - p^2/36) / (p/12 - p^2/36)$.

    Args:
        density: $p$, in $(0, 1]$.

    Returns:
        A number in $[2/5, 3/5)$.
    """
    _check_density(density)
    mean = density / 6
    return (density / 20 - mean**2) / (density / 12 - mean**2)


def midpoint_effect(change: float, gradients: int) -> float:
    r"""Return the effect that integrated gradients find of a unit that saturates at 1.

    The unit is $1 - \mathrm{ReLU}(1 - x)$, and $x$ goes from 0 to $c \ge 1$: its true effect is 1.
    The midpoint rule of $N$ gradients counts the midpoints below 1, which gives
    $(c / N) \lfloor N / c + 1/2 \rfloor$.

    Args:
        change: $c \ge 1$. Where $N / c + 1/2$ is whole, a midpoint lies on the kink, and the
            effect depends on the derivative that is taken there.
        gradients: $N \ge 1$.

    Returns:
        A number of at least 0. It is 0 for $N < c / 2$, where no midpoint is below 1.
    """
    checks.interval("change", change, low=1, remedy="below 1 the unit does not saturate")
    checks.count("gradients", gradients)
    return change * math.floor(gradients / change + 0.5) / gradients


class SubspaceAccuracy(NamedTuple):
    """The mean accuracy of interchanges of a random subspace.

    Attributes:
        all_pairs: the accuracy on all pairs of a base and a source example.
        changing_pairs: the accuracy on the pairs whose label should change.
    """

    all_pairs: float
    changing_pairs: float


def random_subspace_accuracy(size: int, dimensions: int) -> SubspaceAccuracy:
    r"""Return how often the interchange of a random subspace has the predicted label, on average.

    The label is the sign of $u \cdot h$, and base and source are independent and normal. A random
    subspace of $k$ of $m$ dimensions holds the share
    $q \sim \mathrm{Beta}(k/2, (m - k)/2)$ of $u$, and is right in $1/2 + \arcsin(q)/\pi$ of all
    pairs and in $1/2 + (\arcsin q - \arcsin(1 - q))/\pi$ of the changing ones. The means over $q$
    are integrated numerically.

    Args:
        size: $k$, from 1 to $m - 1$.
        dimensions: $m$.

    Returns:
        Numbers in $(0, 1)$. On changing pairs half of the space is right in exactly 1/2.
    """
    checks.count("size", size)
    if size >= dimensions:
        raise InputError(f"size is {size}: a subspace of {dimensions} dimensions has fewer")
    scale = 2 / special.beta(size / 2, (dimensions - size) / 2)

    def integrand(angle: float, changing: bool) -> float:  # q = sin^2 t, so that no pole is left
        sine, cosine = math.sin(angle), math.cos(angle)
        right = math.asin(sine**2) - (math.asin(cosine**2) if changing else 0.0)
        return scale * sine ** (size - 1) * cosine ** (dimensions - size - 1) * right / math.pi

    means = (integrate.quad(integrand, 0, math.pi / 2, (each,))[0] for each in (False, True))
    return SubspaceAccuracy(*(0.5 + mean for mean in means))


def crosscoder_threshold(penalty: float) -> float:
    r"""Return the strength up to which an $L_1$ crosscoder gives a feature no decoder at all.

    It is $c^* = 3u / (2 + u)$ with $u = \lambda / 2$; see `crosscoder_ratio`.

    Args:
        penalty: $\lambda$, in $[0, 2]$; a larger one silences the latent.
    """
    checks.interval(
        "penalty", penalty, low=0, high=2, remedy="a larger penalty silences the latent"
    )
    return 3 * penalty / (4 + penalty)


def crosscoder_ratio(strength: float, penalty: float) -> float:
    r"""Return the ratio of the decoders of a feature that two models share, in an $L_1$ crosscoder.

    The feature $x \sim U[0, 1]$ has the strength 1 in model A and $c$ in model B. One latent with
    an ideal code $f(x) \ge 0$ and the decoders $d_A, d_B \ge 0$ minimises

    $$E\,(x - d_A f)^2 + (c x - d_B f)^2 + \lambda f\, (d_A + d_B).$$

    With $r = d_B / d_A$, $A = (1 + c r) / \sqrt{1 + r^2}$, $B = u (1 + r) / \sqrt{1 + r^2}$ and
    $u = \lambda / 2$ the loss is $(1 + c^2)/3 - (A - B)^3 / 3A$. It is smallest at $r = 0$ if
    $c \le 3u / (2 + u)$, and else at the positive root of

    $$(3(c - u) - c(1 - u)) + 2 r (c(c - u) - (1 - u)) + r^2 ((c - u) - 3 c (1 - u)) = 0.$$

    The truth is $c$. Up to the threshold the feature looks as if model A alone had it.

    Args:
        strength: $c$, in $(0, 1]$.
        penalty: $\lambda$, in $[0, 1]$.

    Returns:
        A number in $[0, c]$: $c$ without a penalty, and 1 for $c = 1$.

    References:
        Minder et al. (2025), "Robustly Identifying Concepts Introduced During Chat Fine-Tuning
        Using Crosscoders", who found complete shrinkage in language models.
    """
    checks.interval(
        "strength", strength, low=0, high=1, open_low=True, remedy="call the stronger model A"
    )
    checks.interval("penalty", penalty, low=0, high=1, remedy="it is in units of the feature")
    c, u = strength, penalty / 2
    if c <= crosscoder_threshold(penalty):
        return 0.0
    constant = 3 * (c - u) - c * (1 - u)
    half_linear = c * (c - u) - (1 - u)
    square = (c - u) - 3 * c * (1 - u)
    return (-half_linear - math.sqrt(half_linear**2 - square * constant)) / square


def crosscoder_ratio_binary(strength: float, penalty: float) -> float:
    r"""Return the ratio of `crosscoder_ratio` for a feature that is either 0 or 1.

    The best code has the loss $1 + c^2 - (A - B)^2$, where
    $A - B = ((1 - u) + (c - u)\, r) / \sqrt{1 + r^2}$ is the product of the vectors
    $(1 - u, c - u)$ and $(1, r) / \sqrt{1 + r^2}$. It is largest where they are parallel, so that
    the ratio is $\max(0, (c - u) / (1 - u))$: each decoder is shrunk by $u = \lambda / 2$.

    For any feature $x \ge 0$ the threshold is $c^* = u\, E (x - u)_+ / E\, x (x - u)_+$, which is
    $u$ for this one.

    Args:
        strength: $c$, in $(0, 1]$.
        penalty: $\lambda$, in $[0, 1]$.

    Returns:
        A number in $[0, c]$.
    """
    checks.interval("strength", strength, low=0, high=1, open_low=True, remedy="A is the stronger")
    checks.interval("penalty", penalty, low=0, high=1, remedy="it is in units of the feature")
    u = penalty / 2
    return max(0.0, (strength - u) / (1 - u))


def skipped_effect(penalty: float) -> float:
    r"""Return the last value of a chain $A \to B \to C$ that a cross-layer transcoder leaves alone.

    $A$, $B$ and $C$ are 1 on the same examples. A latent of the first layer writes $f_1$ to $B$
    and $f_2$ to $C$, and a latent of the second layer, which reads $B$, writes $g$ to $C$. The
    convex loss

    $$(1 - f_1)^2 + (1 - f_2 - g)^2 + \lambda \left(\sqrt{f_1^2 + f_2^2} + g\right)$$

    is smallest at $g = 0$ and $f_1 = f_2 = 1 - \lambda / \sqrt 8$, because one latent is cheaper
    than two. So the transcoder computes $C$ from $A$ alone: without $B$ its $C$ stays at $f_2$,
    where the model's falls to 0.

    Args:
        penalty: $\lambda$, in $[0, \sqrt 8]$.

    Returns:
        The value $f_2$ of $C$ without $B$, in $[0, 1]$. The truth is 0.
    """
    highest = math.sqrt(8)
    checks.interval("penalty", penalty, low=0, high=highest, remedy="a larger one leaves no latent")
    return 1 - penalty / highest


def polygon_cosine(features: int) -> float:
    r"""Return the mean largest $|\cos|$ of a random direction with $n$ features in two dimensions.

    The features are a regular $n$-gon. They lie on $l$ lines through 0, with $l = n$ for odd $n$
    and $l = n/2$ for even $n$. The angle to the nearest line is uniform on $[0, \pi / 2l]$, so the
    mean is $(2 l / \pi) \sin(\pi / 2l)$.

    Args:
        features: $n \ge 2$.

    Returns:
        A number in $(0, 1)$: 0.64 for an antipodal pair and 0.98 for a pentagon.
    """
    checks.count("features", features, minimum=2)
    lines = features if features % 2 else features // 2
    return 2 * lines / math.pi * math.sin(math.pi / (2 * lines))


def grid_ratio(share: float) -> float:
    r"""Return the circuit performance ratio that MIB's grid finds for a perfect ranking.

    The share $s$ of very many edges matters equally, and is ranked first, so that the
    faithfulness of the first $k$ is $\min(k / s, 1)$ and the integral is $1 - s/2$. The trapezoid
    rule on the grid ..., 0.2, 0.5, 1 gives $0.65 + (0.05 - 5 \cdot 10^{-7}) / s$.

    Args:
        share: $s$, in $[0.2, 0.5]$, between which the grid has no point.

    Returns:
        A number below $1 - s/2$, except at both ends.

    References:
        Mueller et al. (2025), "MIB: A Mechanistic Interpretability Benchmark".
    """
    checks.interval("share", share, low=0.2, high=0.5, remedy="the grid has no point between")
    return 0.65 + (0.05 - 5e-7) / share


def _check_density(density: float) -> None:
    checks.interval("density", density, low=0, high=1, open_low=True, remedy="it is a probability")
