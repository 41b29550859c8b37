"""The features that the theory assumes: independent, each zero or uniform on (0, 1]."""

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array, Float

__all__ = ["Numbers", "feature_variance"]

Numbers: TypeAlias = Float[Array | np.ndarray, "..."] | float
"""One number, or an array of them: one per feature, say, or one per set of features."""


def feature_variance(density: Numbers) -> Any:
    r"""Return the variance $p/3 - p^2/4$ of a feature of density $p$.

    A feature is zero with probability $1 - p$, else uniform on $(0, 1]$, as in `SparseUniform`. The
    variance is also the expected squared error of a model that always outputs the mean, $p/2$.
    """
    return density / 3 - density**2 / 4
