r"""What no arrangement of features can do: bounds for every matrix of weights, trained or not.

$n$ features are the columns $W_i$ of the weights, directions in $m$ hidden dimensions; $\cos$ is
that of the angle between two of them that are not zero. Equality is attained by arrangements
that training finds: antipodal pairs, regular polygons, simplices.

References:
    Welch (1974), "Lower bounds on the maximum cross correlation of signals".
    Conway, Hardin and Sloane (1996), "Packing lines, planes, etc.: packings in Grassmannian
    spaces", for the simplex and orthoplex bounds of Rankin.
    Benedetto and Fickus (2003), "Finite normalized tight frames".
"""

import math

import numpy as np
from jaxtyping import Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.theory.features import feature_variance

_ROUNDING = 1e-9  # so that a bound that is attained is not rounded down to one less


def min_coherence(num_features: int, hidden: int) -> float:
    r"""What $\max_{i \ne j} |\cos|$ cannot fall below: the bounds of Welch and Rankin.

    $$\max_{i \ne j} \cos^2 \ge \frac{n - m}{m (n - 1)} \text{ for } n > m, \qquad
      \max_{i \ne j} \cos^2 \ge \frac1m \text{ for } n > \frac{m (m+1)}2.$$

    The first compares the mean of $\cos^2$ with `min_frame_potential`. For the second, the
    matrices $\hat W_i \hat W_i^\top - 1/m$ lie in a space of $m(m+1)/2 - 1$ dimensions, too few
    for $n$ of them to be at obtuse angles.

    Args:
        num_features: $n$, none of them zero.
        hidden: $m$.

    Returns:
        In $[0, 1]$: 0 for $n \le m$, 1 in one dimension. Attained by simplices ($n = m + 1$),
        and by the diagonals of the icosahedron (6 in 3).
    """
    checks.count("num_features", num_features)
    checks.count("hidden", hidden)
    if num_features <= hidden:
        return 0.0
    if num_features > hidden * (hidden + 1) // 2:
        return 1 / math.sqrt(hidden)
    return math.sqrt((num_features - hidden) / (hidden * (num_features - 1)))


def min_frame_potential(norms: Float[np.ndarray, " features"], hidden: int) -> float:
    r"""What the sum of all squared dot products cannot fall below, given the norms.

    $$\sum_{ij} G_{ij}^2 = \operatorname{tr} (W W^\top)^2 \ge
      \frac{(\operatorname{tr} W W^\top)^2}m = \frac{\big(\sum_i \lVert W_i \rVert^2\big)^2}m,$$

    with equality if and only if $W W^\top$ is a multiple of 1: a tight frame. A feature with
    $\lVert W_i \rVert^2$ above $1/m$ of the sum is too long for one; at best it has a dimension to
    itself, and the others are a tight frame in the rest.

    With $n$ features of unit length, $n^2/m$: some output is $\sqrt{n/m}$ times as sensitive to
    an adversary as to its own feature, for $\lVert G_i \rVert = \lVert W_i \rVert^2 / \sqrt{D_i}$,
    $D_i$ the feature dimensionality.

    Args:
        norms: $\lVert W_i \rVert$.
        hidden: $m$.

    Returns:
        At least 0. There are always weights that attain it.

    References:
        Casazza et al. (2006), "A physical interpretation of tight frames".
    """
    checks.count("hidden", hidden)
    checks.interval("a norm", norms, low=0, remedy="give the lengths of the columns")
    squares = np.sort(np.square(norms, dtype=np.float64))[::-1]
    alone = 0
    while alone < squares.size and (hidden - alone) * squares[alone] > squares[alone:].sum():
        alone += 1
    together = squares[alone:].sum()
    return float(np.sum(squares[:alone] ** 2) + together**2 / max(hidden - alone, 1))


def max_features(hidden: int, coherence: float) -> float:
    r"""How many features can be represented with all $|\cos| \le c$.

    $$\frac{m (1 - c^2)}{1 - m c^2} \text{ and } \frac{m(m+1)}2 \text{ for } c < \frac1{\sqrt m},$$

    the inverse of `min_coherence`. The other features have zero columns.

    Args:
        hidden: $m$.
        coherence: $c$, in $[0, 1]$.

    Returns:
        A whole number, $m$ if all are orthogonal; infinity for $c \ge 1/\sqrt m$.
    """
    checks.count("hidden", hidden)
    checks.interval("coherence", coherence, low=0, high=1, remedy="it is the greatest |cos|")
    room = 1 - hidden * coherence**2
    if room <= _ROUNDING:
        return math.inf
    welch = hidden * (1 - coherence**2) / room * (1 + _ROUNDING)
    return float(min(math.floor(welch), hidden * (hidden + 1) // 2))


def max_features_apart(hidden: int, cosine: float) -> int:
    r"""How many features can be represented with all $\cos \le c \le 0$: right angles or more.

    With biases of at most 0, the ReLU hides such interference wherever one feature is active.
    $2m$ at $c = 0$, antipodal pairs on orthogonal axes; at $c < 0$, $m + 1$ and, since
    $\lVert \sum_i \hat W_i \rVert^2 \ge 0$, $1 - 1/c$: simplices.

    Args:
        hidden: $m$.
        cosine: $c$, in $[-1, 0]$.

    Returns:
        At least 2.
    """
    checks.count("hidden", hidden)
    checks.interval(
        "cosine", cosine, low=-1, high=0, remedy="for either sign of it see max_features"
    )
    if cosine == 0:
        return 2 * hidden
    return math.floor(min(hidden + 1, (1 - 1 / cosine) * (1 + _ROUNDING)))


def min_loss(
    num_represented: float,
    density: Float[np.ndarray, " features"],
    importance: Float[np.ndarray, " features"],
) -> float:
    r"""What the expected loss cannot fall below if only so many columns are not zero.

    The output of a zero column is a constant, and costs at least the variance of its feature:

    $$L \ge \sum_{i \text{ ignored}} I_i \Big(\frac{p_i}3 - \frac{p_i^2}4\Big)
      \ge \text{the sum of the } n - k \text{ least}.$$

    With $k = m$ the price of orthogonal features, attained by $b_i = p_i/2$ and a dimension for
    each other; with $k$ of `max_features` that of a cap on coherence.

    Args:
        num_represented: $k$; infinity is as good as $n$.
        density: $p$ of independent features, uniform on $(0, 1]$ where they are not zero.
        importance: $I \ge 0$.

    Returns:
        At least 0. It holds for the ReLU and the linear model, whatever the biases.
    """
    checks.density(density, positive=False)
    checks.interval("importance", importance, low=0, remedy="it weighs a squared error")
    if not num_represented >= 0:
        raise InputError(f"num_represented is {num_represented}: give a number of features")
    costs = np.sort(importance * feature_variance(density))
    ignored = max(0.0, costs.size - num_represented)  # infinity is as good as all
    return float(costs[: math.ceil(ignored)].sum())


def feature_dimensionality(num_features: int, dimensions: int) -> float:
    r"""$D = d/k$ of each of $k$ equally long features that are a tight frame in $d$ dimensions.

    Antipodal pair and orthoplex 1/2, regular polygon $2/k$ for $k \ge 3$, simplex $d/(d+1)$. No
    arrangement has a greater mean, for $\sum_i D_i \le \operatorname{rank} W$.

    Args:
        num_features: $k$, at least $d$.
        dimensions: $d$ that they span; the others are free for further frames.

    Returns:
        In $(0, 1]$.
    """
    checks.count("dimensions", dimensions)
    checks.count("num_features", num_features, minimum=dimensions)
    return dimensions / num_features
