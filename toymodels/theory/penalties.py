r"""The penalty $\lambda \lVert h \rVert_1$ on linear hidden units, and which features survive it.

A model is trained on its loss plus the expected penalty. A feature of density $p$ and importance
$I$, alone on an axis with norm $w$ and its best bias, has the objective

$$I v (1 - w^2)^2 + \lambda w p / 2, \quad v = p/3 - p^2/4.$$

The penalty shortens the feature to the $w$ with $w (1 - w^2) = \lambda p / (8 I v)$. From the
penalty $\lambda_c = (8/3) \sqrt{2/3}\, I v / p$ on, at which $w = \sqrt{2/3}$, it costs less to
drop the feature than to represent it.

References:
    Elhage et al. (2022), "Toy Models of Superposition", section "Three Ways Out".
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from toymodels import checks
from toymodels.theory.features import feature_variance
from toymodels.theory.loss import expected_loss

__all__ = ["Penalised", "dedicated", "pair_threshold", "threshold", "without_superposition"]


class Penalised(NamedTuple):
    """The loss of a model that is trained with a penalty, and its objective.

    Attributes:
        loss: the expected squared error, summed over the features.
        objective: the loss plus the expected penalty.
    """

    loss: Any
    objective: Any


def threshold(density: float, importance: Any = 1.0) -> Any:
    r"""Return $\lambda_c$, the penalty from which on a feature with an axis to itself is dropped.

    Args:
        density: $p$, in (0, 1].
        importance: $I \ge 0$; one number, or one per feature.
    """
    checks.density(density)
    return 8 / 3 * (2 / 3) ** 0.5 * np.asarray(importance) * feature_variance(density) / density


def dedicated(density: float, importance: Any, penalty: Any) -> Penalised:
    r"""Return loss and objective of one feature that is alone on an axis, or else dropped.

    Args:
        density: $p$, in (0, 1].
        importance: $I > 0$; one number, or an array that fits `penalty`.
        penalty: $\lambda \ge 0$; one number, or an array.
    """
    checks.density(density)
    checks.interval("penalty", penalty, low=0.0, remedy="it is added to the loss")
    full = np.asarray(importance) * feature_variance(density)
    kept = np.asarray(penalty) < threshold(density, importance)
    pull = np.where(kept, penalty * density / (8 * full), 0.0)
    norm = 2 / 3**0.5 * np.cos(np.arccos(-1.5 * 3**0.5 * pull) / 3)  # largest root of w - w^3
    loss = np.where(kept, full * (1 - norm**2) ** 2, full)
    return Penalised(loss, loss + np.where(kept, penalty * norm * density / 2, 0.0))


def without_superposition(hidden: int, density: float, importance: Any, penalty: Any) -> Penalised:
    r"""Return loss and objective of the best model with each feature on an axis of its own.

    Args:
        hidden: $m$, the number of axes.
        density: $p$, in (0, 1].
        importance: $I_i > 0$, one per feature, the largest first.
        penalty: $\lambda \ge 0$; one number, or several.

    Returns:
        Arrays of the shape of `penalty`, summed over the features.
    """
    checks.count("hidden", hidden)
    importance, penalty = np.asarray(importance), np.asarray(penalty)
    each = importance[:hidden].reshape(-1, *[1] * penalty.ndim)
    rest = importance[hidden:].sum() * feature_variance(density)
    return Penalised(*(part.sum(axis=0) + rest for part in dedicated(density, each, penalty)))


def pair_threshold(density: float) -> float:
    r"""Return the penalty up to which an antipodal pair of importance 1 is better than no feature.

    Two features that are present together cancel, at least in part, so a pair has a lower penalty
    than two features with an axis each: the expected penalty of a pair of norm $w$ is
    $\lambda w (p - \tfrac23 p^2)$. The loss is exact.

    Args:
        density: $p$, in (0, 1].

    Returns:
        $\lambda$ to about 1e-6, between 0.8 and 1.2 times `threshold`.
    """
    checks.density(density)

    def gain(penalty: float) -> float:
        """Return how much lower the objective of the best pair is than that of no feature."""

        def objective(point: Any) -> float:
            norm, bias = point
            loss = expected_loss(norm * np.array([[1.0, -1.0]]), np.full(2, bias), density)
            return float(loss) + penalty * abs(norm) * (density - 2 / 3 * density**2)

        found = optimize.minimize(objective, (0.85, 0.0), method="Nelder-Mead", tol=1e-10)
        return 2 * feature_variance(density) - float(found.fun)

    alone = threshold(density)
    root: Any = optimize.brentq(gain, 0.8 * alone, 1.2 * alone, xtol=1e-6)
    return float(root)
