r"""Linear embeddings of features that share a cause: covariances, spectra and optimal weights.

A linear model with a bias, $W^\top W x + b$, is best where the rows of $W$ span the leading
principal components of the features. So the geometry of its feature directions is that of the
covariance: features on a circle become a regular polygon, in their order.

References:
    Prieto et al. (2026), "From Data Statistics to Feature Geometry".
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from toymodels import checks
from toymodels.errors import InputError

__all__ = ["Embedding", "binary_covariance", "circulant_eigenvalues", "linear_embedding"]


def binary_covariance(chances: Any) -> Float[np.ndarray, "features features"]:
    r"""Return the covariance of binary features that are independent given a hidden cause.

    With $p_{zi} = P(x_i = 1 \mid z)$ and all causes $z$ equally likely,

    $$\operatorname{Cov}(x_i, x_j) = \overline{p_i p_j} - \bar p_i \bar p_j
      + [i = j]\, \overline{p_i (1 - p_i)},$$

    where bars are means over causes.

    Args:
        chances: $p$, causes x features, in $[0, 1]$.
    """
    chances = np.asarray(chances, np.float64)
    if chances.ndim != 2:
        raise InputError(f"chances has shape {chances.shape}: give causes x features")
    checks.interval("chances", chances, low=0, high=1, remedy="they are probabilities")
    centred = chances - chances.mean(axis=0)
    return centred.T @ centred / len(chances) + np.diag((chances * (1 - chances)).mean(axis=0))


def circulant_eigenvalues(row: Any) -> Float[np.ndarray, " features"]:
    r"""Return the eigenvalues of the symmetric circulant matrix with this first row.

    They are $\lambda_k = \sum_j c_j \cos(2 \pi j k / n)$ for the harmonics $k = 0, \dots, n-1$.
    Harmonics $k$ and $n - k$ have one eigenvalue in common, and their eigenvectors are $\cos$ and
    $\sin$ of $2 \pi j k / n$.

    Args:
        row: $c$, with $c_j = c_{n-j}$.
    """
    row = np.asarray(row, np.float64)
    if row.ndim != 1 or not np.allclose(row[1:], row[:0:-1], atol=1e-9 * np.abs(row).max()):
        raise InputError(
            "row differs from itself backwards: give the first row of a symmetric matrix"
        )
    return np.fft.fft(row).real


class Embedding(NamedTuple):
    """The best weights of a linear model.

    Attributes:
        weights: orthonormal rows, up to a rotation; columns are the directions of the features.
        loss: the expected squared error, summed over the features.
    """

    weights: Float[np.ndarray, "hidden features"]
    loss: float


def linear_embedding(covariance: Any, hidden: int) -> Embedding:
    r"""Return the optimum of the tied linear model with a bias, by principal components.

    The loss is the sum of all eigenvalues but the `hidden` largest.

    Args:
        covariance: a symmetric matrix, features x features.
        hidden: the number $m$ of hidden dimensions.
    """
    covariance = np.asarray(covariance, np.float64)
    if covariance.ndim != 2 or not np.allclose(covariance, covariance.T):
        raise InputError(
            f"covariance of shape {covariance.shape} is not symmetric: give features x features"
        )
    checks.count("hidden", hidden)
    values, vectors = np.linalg.eigh(covariance)
    return Embedding(
        vectors[:, ::-1][:, :hidden].T, float(values[: max(0, len(values) - hidden)].sum())
    )
