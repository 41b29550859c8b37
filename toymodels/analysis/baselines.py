r"""Dictionaries without an autoencoder: principal and independent components, nonnegative factors.

Each takes activations, one example a row, to a dictionary, hidden x components, to be scored like
any other (`dictionaries`). None knows more than $m$ independent directions in $m$ dimensions: of
$n > m$ features, orthogonal or independent components can find $m$, so that `mcc` counted over all
features is at most $m/n$. Codes of the components: $D^+ (h - \bar h)$, or `sparse_coding`.

`independent_components` and `nonnegative_factors` need scikit-learn, and run on the host: outside
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
        variance: decreasing, dividing by the number of examples. Directions of equal variance are
            arbitrary within the space that they span.
    """

    dictionary: Float[Array, "hidden components"]
    variance: Float[Array, " components"]


def principal_components(
    activations: Float[Array, "examples hidden"], components: int
) -> PrincipalComponents:
    r"""The directions of greatest variance (PCA).

    For independent features of equal variance the covariance is a multiple of $W W^\top$: if they
    are orthogonal and equally long, as any tight frame, every direction has the same variance and
    the components are arbitrary.

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
    r"""The directions whose coefficients are least Gaussian and uncorrelated (FastICA).

    Finds the directions of $n \le m$ independent features, at most one of them Gaussian, whatever
    their angles, as the examples grow in number.

    Args:
        key: decides the start.
        activations: that vary along at least as many directions as there are components.
        components: at most as many as dimensions.

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
    # Spreads of coordinates are units, in which nothing is small.
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
    r"""Nonnegative directions of which all activations are nonnegative combinations (NMF).

    $\min_{Z, D \ge 0} \lVert H - Z D^\top \rVert^2$, a local minimum of it. For activations of
    `ReLUHidden`, say. Activations of either sign are refused: shifted ones would have other
    directions.

    Args:
        key: decides the start.
        activations: not negative.
        components: may be more than dimensions, though then the factors are not unique.

    Returns:
        At least 0. A column is 0 for a component that is not used.

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
