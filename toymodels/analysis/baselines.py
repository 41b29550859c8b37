r"""Dictionaries without an autoencoder: principal and independent components, nonnegative factors.

Each function turns activations, one example a row, into a dictionary, hidden x components, which
`dictionaries` scores like any other. In $m$ dimensions, orthogonal or independent components find
at most $m$ of $n > m$ features, so `mcc` counted over all features is at most $m/n$. The codes of
the components are $D^+ (h - \bar h)$, or those of `sparse_coding`.

`independent_components` and `nonnegative_factors` need scikit-learn and run on the host, outside
of a sweep.

References:
    Hyvärinen and Oja (2000), "Independent component analysis: algorithms and applications".
    Lee and Seung (1999), "Learning the parts of objects by non-negative matrix factorization".
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.analysis import inputs
from toymodels.errors import InputError

__all__ = [
    "PrincipalComponents",
    "independent_components",
    "nonnegative_factors",
    "principal_components",
]


class PrincipalComponents(NamedTuple):
    r"""Orthogonal directions, and the variance along each.

    Attributes:
        dictionary: directions of unit length, one per column, of either sign.
        variance: the variances (divided by the number of examples), decreasing. Directions of equal
            variance are arbitrary within the space that they span.
    """

    dictionary: Float[Array, "hidden components"]
    variance: Float[Array, " components"]


def principal_components(
    activations: Float[Array, "examples hidden"], components: int
) -> PrincipalComponents:
    r"""Return the directions of largest variance (PCA).

    For independent features of equal variance the covariance is a multiple of $W W^\top$. If they
    form a tight frame, every direction has equal variance and the components are arbitrary.

    Raises:
        ValueError: fewer examples than dimensions, or more components than dimensions.
    """
    activations = inputs.floats("activations", activations, rank=2)
    _check(activations, components, maximum=activations.shape[1])
    centred = activations - jnp.mean(activations, axis=0)[None, :]
    _, lengths, directions = jnp.linalg.svd(centred, full_matrices=False)
    variance = lengths**2 / activations.shape[0]
    return PrincipalComponents(directions[:components].T, variance[:components])


def independent_components(
    key: Key[Array, ""], activations: Float[Array, "examples hidden"], components: int
) -> Float[Array, "hidden components"]:
    r"""Return directions whose coefficients are uncorrelated and far from Gaussian (FastICA).

    With enough examples it finds the directions of $n \le m$ independent features at any angles, if
    at most one of them is Gaussian.

    Args:
        key: decides the start.
        activations: activations that vary along at least `components` directions.
        components: the number of directions, at most the number of dimensions.

    Returns:
        Columns of either sign; their lengths are standard deviations.

    Raises:
        ValueError: fewer examples than dimensions, more components than dimensions or than
            directions in which the activations vary, or numbers that are not finite.
    """
    from sklearn.decomposition import FastICA

    activations = inputs.floats("activations", activations, rank=2)
    _check(activations, components, maximum=activations.shape[1])
    inputs.refuse_missing("activations", activations)
    # In units of their spreads, no coordinate is small.
    rows = np.asarray(activations, np.float64)
    rows = rows - rows.mean(axis=0)
    spread = rows.std(axis=0)
    rounding = np.finfo(activations.dtype).eps * np.abs(np.asarray(activations)).max(axis=0)
    varies = np.linalg.matrix_rank((rows / np.where(spread > 0, spread, 1))[:, spread > rounding])
    if varies < components:
        raise InputError(
            f"the activations vary along {varies} directions, not along {components} components: "
            f"give {'fewer components' if varies else 'activations that differ'}"
        )
    start = np.asarray(jax.random.normal(key, (components, components)), np.float64)
    fitted: Any = FastICA(components, whiten="unit-variance", w_init=start, max_iter=1000)
    fitted.fit(np.asarray(activations, np.float64))
    return jnp.asarray(fitted.mixing_, activations.dtype)


def nonnegative_factors(
    key: Key[Array, ""], activations: Float[Array, "examples hidden"], components: int
) -> Float[Array, "hidden components"]:
    r"""Return nonnegative directions whose nonnegative combinations fit all activations (NMF).

    They are a local minimum of $\lVert H - Z D^\top \rVert^2$ over $Z, D \ge 0$, for activations
    such as those of `ReLUHidden`. Activations of either sign are refused, because shifted ones
    would have other directions.

    Args:
        key: decides the start.
        activations: activations of at least 0.
        components: the number of directions. If it exceeds the number of dimensions, the factors
            are not unique.

    Returns:
        Numbers of at least 0. The column of a component that is not used is 0.

    Raises:
        ValueError: negative activations, only zeros, numbers that are not finite, or fewer examples
            than dimensions.
    """
    from sklearn.decomposition import NMF

    activations = inputs.floats("activations", activations, rank=2)
    inputs.refuse_missing("activations", activations)
    _check(activations, components, maximum=None)
    checks.interval(
        "an activation", activations, low=0, remedy="for either sign see independent_components"
    )
    rows = np.asarray(activations, np.float64)
    if not rows.any():
        raise InputError("all activations are 0, which have no factors: give some that are not")
    scale = np.sqrt(rows.mean() / components)

    def start(key: Key[Array, ""], *shape: int) -> Float[np.ndarray, "..."]:
        return scale * np.abs(np.asarray(jax.random.normal(key, shape), np.float64))

    key_codes, key_factors = jax.random.split(key)
    codes = start(key_codes, rows.shape[0], components)
    factors = start(key_factors, components, rows.shape[1])
    fitted: Any = NMF(components, init="custom", max_iter=2000)  # pyright: ignore[reportArgumentType]
    fitted.fit_transform(rows, W=codes, H=factors)
    return jnp.asarray(fitted.components_.T, activations.dtype)


def _check(
    activations: Float[Array, "examples hidden"], components: int, *, maximum: int | None
) -> None:
    checks.count("components", components)
    examples, hidden = activations.shape
    if examples < hidden:
        raise InputError(
            f"{examples} examples of {hidden} dimensions: give more examples than dimensions"
        )
    if maximum is not None and components > maximum:
        raise InputError(
            f"components is {components}: there are at most {maximum} in as many dimensions"
        )
