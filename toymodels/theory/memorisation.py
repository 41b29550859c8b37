r"""Labels that mean nothing, such as coin tosses: how well a linear probe fits them all the same.

References:
    Cover (1965), "Geometrical and Statistical Properties of Systems of Linear Inequalities with
    Applications in Pattern Recognition".
"""

import math

import numpy as np
from scipy import special, stats

from toymodels import checks


def separable_dichotomies(num_points: int, num_parameters: int) -> int:
    r"""Return $C(N, d)$, the number of ways in which hyperplanes divide points in two.

    $$C(N, d) = 2 \sum_{k=0}^{d-1} \binom{N-1}{k},$$

    and it does not depend on the points, as long as they are in general position.

    Args:
        num_points: $N$.
        num_parameters: $d$, the parameters of a probe: the dimensions, and one for an intercept.

    Returns:
        A whole number: all $2^N$ labellings if $N \le d$.
    """
    checks.count("num_points", num_points)
    checks.count("num_parameters", num_parameters)
    return 2 * sum(math.comb(num_points - 1, k) for k in range(min(num_parameters, num_points)))


def separability(num_points: int, num_parameters: int) -> float:
    r"""Return the probability that a linear probe fits labels from coin tosses without an error.

    $$P = 2^{-N} C(N, d) = P\bigl(\text{Binomial}(N - 1, 1/2) \le d - 1\bigr).$$

    A probe that fits labels with a meaning must be compared with this probability, because it fits
    labels without a meaning as often. The probability falls from 1 to 0 around the capacity
    $N = 2 d$, within about $\sqrt{N}$.

    Args:
        num_points: $N$, in general position: no $d$ of them dependent (without an intercept), or
            in one hyperplane (with).
        num_parameters: $d$, the parameters of a probe: the dimensions, and one for an intercept.

    Returns:
        A number in $(0, 1]$: 1 for $N \le d$, 1/2 at $N = 2 d$. Points that are not in general
        position can be separated in fewer ways. Labels of given class sizes, such as permuted
        ones, have another probability, which depends on the points.
    """
    checks.count("num_points", num_points)
    checks.count("num_parameters", num_parameters)
    if num_parameters >= num_points:
        return 1.0
    return float(special.bdtr(num_parameters - 1, num_points - 1, 0.5))


def least_squares_accuracy(num_points: int, num_parameters: int) -> float:
    r"""Return the accuracy of least squares on labels from coin tosses that it is fitted to.

    The points are normal variables. The label of an example contributes its leverage $h = d / N$ to
    the prediction for it; the rest of the prediction is normal, of variance $h (1 - h)$. So

    $$P = \Phi\bigl(\sqrt{h / (1 - h)}\bigr).$$

    Args:
        num_points: $N$, above $d$.
        num_parameters: $d$, the parameters of a probe: the dimensions, and one for an intercept.

    Returns:
        A number in $(1/2, 1)$, exact for $N \gg d$.
    """
    checks.count("num_parameters", num_parameters)
    checks.count("num_points", num_points, minimum=num_parameters + 1)
    leverage = num_parameters / num_points
    return float(stats.norm.cdf(np.sqrt(leverage / (1 - leverage))))


def permuted_auroc(num_examples: int, dimensions: int, density: float) -> float:
    r"""Return the mean AUROC of a probe on permuted labels that it is fitted to.

    The points are normal variables. In units of their spread the means of the two classes are
    $\chi_m / \sqrt{N p (1 - p)}$ apart, and normal scores whose means are $\delta$ apart have the
    AUROC $\Phi(\delta / \sqrt 2)$.

    Args:
        num_examples: $N$.
        dimensions: $m$.
        density: the share $p$ of positive labels, below 1.

    Returns:
        A number in $(1/2, 1)$, exact for $N p (1 - p) \gg m$.
    """
    checks.count("num_examples", num_examples)
    checks.count("dimensions", dimensions)
    checks.density(density)
    # A mean over 1000 quantiles is the integral over the chi distribution.
    chi = stats.chi.ppf((np.arange(1000) + 0.5) / 1000, dimensions)
    scale = (2 * num_examples * density * (1 - density)) ** -0.5
    return float(stats.norm.cdf(scale * chi).mean())
