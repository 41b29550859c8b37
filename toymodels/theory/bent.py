r"""One bent neuron between linear and ReLU: how far it is from additive and from linear.

The nonlinearity is $f(z) = z$ for $z > 0$ and $(1 - \beta) z$ for $z \le 0$: the identity at
$\beta = 0$, ReLU at $\beta = 1$. The quantities are those of `toymodels.analysis.linearity`.
"""

from typing import Any

from toymodels import checks


def additivity(density: Any, bend: Any) -> Any:
    r"""Return the additivity of an antipodal pair in one neuron, $h = f(x_1 - x_2)$.

    An additive neuron would be $f(x_1) + f(-x_2)$. With
    $f(z) = (1 - \beta) z + \beta \,\mathrm{ReLU}(z)$, the difference from it is
    $-\beta \min(x_1, x_2)$, so

    $$R^2 = 1 - \frac{\beta^2 p^2}{6 \operatorname{Var} h}.$$

    Args:
        density: $p$ of both features, each zero or uniform on $(0, 1]$: a number or an array.
        bend: $\beta$ in $[0, 1]$.

    Returns:
        A number of at most 1: 1 for $\beta = 0$, and -2 for ReLU at $p = 1$.
    """
    checks.density(density)
    _check(bend)
    relu_mean = density * (1 - density) / 2 + density**2 / 6  # E ReLU(x_1 - x_2)
    relu_square = density * (1 - density) / 3 + density**2 / 12  # E ReLU(x_1 - x_2)^2
    variance = (1 + (1 - bend) ** 2) * relu_square - (bend * relu_mean) ** 2
    return 1 - bend**2 * density**2 / 6 / variance


def scaling(bend: Any) -> Any:
    r"""Return the scaling $R^2$ of $f$ on $[-1, 1]$: how much of it a straight line explains.

    The best line with an intercept has the slope $1 - \beta/2$, and

    $$R^2 = \left(1 + \frac{\beta^2}{4 (2 - \beta)^2}\right)^{-1}.$$

    Args:
        bend: $\beta$ in $[0, 1]$.

    Returns:
        A number in $[0.8, 1]$: 0.8 for ReLU.
    """
    _check(bend)
    return 1 / (1 + (bend / (2 - bend)) ** 2 / 4)


def _check(bend: Any) -> None:
    checks.interval("bend", bend, low=0, high=1, remedy="0 is linear, 1 is ReLU")
