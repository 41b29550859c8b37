r"""Bounds that hold for every matrix of weights, trained or not.

The $n$ features are the columns $W_i$ of the weights, directions in $m$ hidden dimensions; $\cos$
is the cosine of the angle between two columns that are not zero. Arrangements that training finds
attain these bounds: antipodal pairs, regular polygons, simplices.

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

_ROUNDING = 1e-9  # keeps an attained whole number from being rounded down to one less


def min_coherence(num_features: int, hidden: int) -> float:
    r"""Return the lower bound of Welch and Rankin on the coherence $\max_{i \ne j} |\cos|$.

    $$\max_{i \ne j} \cos^2 \ge \frac{n - m}{m (n - 1)} \text{ for } n > m, \qquad
      \max_{i \ne j} \cos^2 \ge \frac1m \text{ for } n > \frac{m (m+1)}2.$$

    The first bound follows from `min_frame_potential`, which bounds the mean of $\cos^2$. The
    second holds because the matrices $\hat W_i \hat W_i^\top - I/m$ lie in a space of
    $m(m+1)/2 - 1$ dimensions. In so few dimensions, some two of $n$ vectors are at a right or an
    acute angle.

    Args:
        num_features: $n$, the number of columns that are not zero.
        hidden: $m$.

    Returns:
        A number in $[0, 1]$: 0 for $n \le m$, and 1 in one dimension. Simplices ($n = m + 1$) and
        the 6 diagonals of the icosahedron attain it.
    """
    checks.count("num_features", num_features)
    checks.count("hidden", hidden)
    if num_features <= hidden:
        return 0.0
    if num_features > hidden * (hidden + 1) // 2:
        return 1 / math.sqrt(hidden)
    return math.sqrt((num_features - hidden) / (hidden * (num_features - 1)))


def min_frame_potential(norms: Float[np.ndarray, " features"], hidden: int) -> float:
    r"""Return the lower bound on the sum of all squared dot products, given the norms.

    $$\sum_{ij} G_{ij}^2 = \operatorname{tr} (W W^\top)^2 \ge
      \frac{(\operatorname{tr} W W^\top)^2}m = \frac{\big(\sum_i \lVert W_i \rVert^2\big)^2}m,$$

    with equality if and only if $W W^\top$ is a multiple of the identity, that is, for a tight
    frame. A feature with $\lVert W_i \rVert^2$ above $1/m$ of the sum is too long for a tight
    frame. In the best arrangement it has a dimension to itself, and the others form a tight frame
    in the remaining dimensions.

    For $n$ features of unit length the bound is $n^2/m$. Some output is then at least $\sqrt{n/m}$
    times as sensitive to an adversary as to its own feature, because
    $\lVert G_i \rVert = \lVert W_i \rVert^2 / \sqrt{D_i}$ with the feature dimensionality $D_i$.

    Args:
        norms: $\lVert W_i \rVert$.
        hidden: $m$.

    Returns:
        A number of at least 0, which some weights with these norms attain.

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
    r"""Return an upper bound on the number of features with all $|\cos| \le c$.

    $$\frac{m (1 - c^2)}{1 - m c^2} \text{ and } \frac{m(m+1)}2 \text{ for } c < \frac1{\sqrt m},$$

    the inverse of `min_coherence`. All further features must have zero columns.

    Args:
        hidden: $m$.
        coherence: $c$, in $[0, 1]$.

    Returns:
        A whole number: $m$ for $c = 0$, where all features are orthogonal, and infinity for
        $c \ge 1/\sqrt m$.
    """
    checks.count("hidden", hidden)
    checks.interval("coherence", coherence, low=0, high=1, remedy="it is the greatest |cos|")
    room = 1 - hidden * coherence**2
    if room <= _ROUNDING:
        return math.inf
    welch = hidden * (1 - coherence**2) / room * (1 + _ROUNDING)
    return float(min(math.floor(welch), hidden * (hidden + 1) // 2))


def max_features_apart(hidden: int, cosine: float) -> int:
    r"""Return the largest number of features with all $\cos \le c \le 0$: right angles or more.

    With biases of at most 0, the ReLU hides such interference wherever one feature is active. At
    $c = 0$ the number is $2m$, attained by antipodal pairs on orthogonal axes. At $c < 0$ it is at
    most $m + 1$ and, because $\lVert \sum_i \hat W_i \rVert^2 \ge 0$, at most $1 - 1/c$: simplices
    attain these.

    Args:
        hidden: $m$.
        cosine: $c$, in $[-1, 0]$.

    Returns:
        A whole number of at least 2.
    """
    checks.count("hidden", hidden)
    checks.interval(
        "cosine", cosine, low=-1, high=0, remedy="for a bound on |cos| take max_features"
    )
    if cosine == 0:
        return 2 * hidden
    return math.floor(min(hidden + 1, (1 - 1 / cosine) * (1 + _ROUNDING)))


def min_loss(
    num_represented: float,
    density: Float[np.ndarray, " features"],
    importance: Float[np.ndarray, " features"],
) -> float:
    r"""Return a lower bound on the expected loss if only $k$ columns are not zero.

    The output of a zero column is a constant, and costs at least the variance of its feature:

    $$L \ge \sum_{i \text{ ignored}} I_i \Big(\frac{p_i}3 - \frac{p_i^2}4\Big)
      \ge \text{the sum of the } n - k \text{ smallest terms}.$$

    With $k = m$ it is the price of orthogonal features. Biases $b_i = p_i/2$ of the ignored
    features, and a dimension for each other one, attain it. With $k$ from `max_features` it is the
    price of a cap on coherence.

    Args:
        num_represented: $k$; infinity means all $n$.
        density: $p$ of independent features, uniform on $(0, 1]$ where they are not zero.
        importance: $I \ge 0$.

    Returns:
        A number of at least 0. The bound holds for the ReLU and the linear model with any biases.
    """
    checks.density(density, positive=False)
    checks.interval("importance", importance, low=0, remedy="it weighs a squared error")
    if not num_represented >= 0:
        raise InputError(f"num_represented is {num_represented}: give a number of features")
    costs = np.sort(importance * feature_variance(density))
    ignored = max(0.0, costs.size - num_represented)  # infinity represents all
    return float(costs[: math.ceil(ignored)].sum())


def feature_dimensionality(num_features: int, dimensions: int) -> float:
    r"""Return $D = d/k$, the dimensionality of each of $k$ equal features in a tight frame.

    The frame spans $d$ dimensions. $D$ is 1/2 in an antipodal pair and an orthoplex, $2/k$ in a
    regular polygon with $k \ge 3$, and $d/(d+1)$ in a simplex. No arrangement has a larger
    mean, because $\sum_i D_i \le \operatorname{rank} W$.

    Args:
        num_features: $k$, at least $d$.
        dimensions: $d$, the dimensions that the features span; other frames can use the rest.

    Returns:
        A number in $(0, 1]$.
    """
    checks.count("dimensions", dimensions)
    checks.count("num_features", num_features, minimum=dimensions)
    return dimensions / num_features
