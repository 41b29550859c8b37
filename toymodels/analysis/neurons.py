r"""Neurons, the coordinates of a privileged basis: pure functions of ONE weight matrix.

`weights` is neurons x features, the rows of $W$ that a ReLU acts on. Rotations of the hidden space
change these measures, but not those of `geometry`. `vmap` over a sweep.

A mask cannot hold NaN, so functions that return one refuse weights that are not finite. If these
are traced, comparisons with NaN make the mask false there. The counts of `code` are NaN instead.

References:
    Elhage et al. (2022), "Toy Models of Superposition", sections "Superposition in a Privileged
    Basis" and "Computation in Superposition".
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy import integrate, stats

from toymodels import checks
from toymodels.analysis import inputs

__all__ = [
    "Code",
    "alignment",
    "code",
    "code_words",
    "features_served",
    "flagged",
    "monosemantic",
    "random_alignment",
    "rescaled",
]


def alignment(weights: Float[Array, "neurons features"]) -> Float[Array, ""]:
    r"""Return how closely features are aligned with neurons.

    It is the mean of $\max_k W_{ki}^2 / \lVert W_i \rVert^2$, the largest squared cosine of a
    feature with a neuron, over the features with $\lVert W_i \rVert^2 > 1/2$.

    Args:
        weights: one row per neuron.

    Returns:
        A number in $[1/m, 1]$ for $m$ neurons: 1 if each feature has weights to one neuron alone.
        It is NaN if no feature is represented, or if a weight is not finite.
    """
    weights = inputs.floats("weights", weights, rank=2)
    squares = weights**2
    lengths = squares.sum(axis=0)
    represented = lengths > 1 / 2
    cosines = squares.max(axis=0) / jnp.where(represented, lengths, 1.0)
    return inputs.unless_missing(jnp.mean(cosines, where=represented), weights)


def random_alignment(neurons: int) -> float:
    r"""Return the mean of `alignment` over random directions.

    The length and the direction of a normal vector $g$ are independent, so the mean is
    $E [\max_k g_k^2] / m$ with $E \max_k g_k^2 = \int_0^\infty 1 - P(g_1^2 \le t)^m\, dt$.

    Args:
        neurons: $m$, the number of neurons.
    """
    checks.count("neurons", neurons)
    largest, _ = integrate.quad(lambda t: 1 - stats.chi2(1).cdf(t) ** neurons, 0, np.inf)
    return largest / neurons


def features_served(
    weights: Float[Array, "neurons features"], *, threshold: Float[Array, ""] | float = 0.2
) -> Bool[Array, "neurons features"]:
    r"""Return which features each neuron serves: $|W_{ki}| > t \max_j |W_{kj}|$.

    A neuron that serves one feature is monosemantic, one that serves several is polysemantic;
    `features_served(...).sum(axis=1)` counts the features of each neuron.

    Args:
        weights: one row per neuron.
        threshold: $t$ in $[0, 1]$, relative to the largest weight of the neuron. At 1/5 the
            codes of the paper have names: see `code`.

    Returns:
        A mask. It is false everywhere for a neuron without weights, and for $t = 1$.

    Raises:
        ValueError: weights that are not finite; a threshold outside $[0, 1]$.
    """
    weights = inputs.floats("weights", weights, rank=2)
    inputs.refuse_missing("weights", weights)
    checks.interval(
        "threshold", threshold, low=0.0, high=1.0, remedy="it is a share of the largest weight"
    )
    return _served(weights, threshold)


def _served(
    weights: Float[Array, "neurons features"], threshold: Float[Array, ""] | float
) -> Bool[Array, "neurons features"]:
    """Return `features_served` without checks."""
    sizes = jnp.abs(weights)
    return sizes > threshold * jnp.max(sizes, axis=1, keepdims=True, initial=0.0)


def rescaled(
    weights_in: Float[Array, "neurons features"], weights_out: Float[Array, "outputs neurons"]
) -> tuple[Float[Array, "neurons features"], Float[Array, "outputs neurons"]]:
    r"""Rescale ReLU neurons so that the largest incoming $|W_{ki}|$ of each is 1.

    Because $\mathrm{ReLU}(\alpha z) = \alpha\, \mathrm{ReLU}(z)$ for $\alpha > 0$, no output
    changes if row $k$ of $W_1$ is multiplied by $\alpha_k$ and column $k$ of $W_2$ by
    $1/\alpha_k$. So weights of different neurons can be compared only after a choice of scale,
    here that of the paper.

    Returns:
        The weights in and out. A neuron without incoming weights stays as it is, and NaN stays NaN.

    References:
        Elhage et al. (2022), footnote 15.
    """
    weights_in = inputs.floats("weights_in", weights_in, rank=2)
    weights_out = inputs.floats("weights_out", weights_out, rank=2)
    checks.same_size("neurons", weights_in=weights_in.shape[0], weights_out=weights_out.shape[1])
    largest = jnp.max(jnp.abs(weights_in), axis=1, initial=0.0)
    scale = jnp.where(largest == 0, 1.0, largest)  # NaN stays NaN
    return weights_in / scale[:, None], weights_out * scale[None, :]


class Code(NamedTuple):
    """The name of a code: whole numbers, as floats so that they can be NaN.

    Attributes:
        monosemantic: the number of monosemantic neurons.
        features: the number of represented features for which polysemantic neurons fire.
        neurons: the number of polysemantic neurons.
    """

    monosemantic: Float[Array, ""]
    features: Float[Array, ""]
    neurons: Float[Array, ""]


def code_words(weights: Float[Array, "neurons features"]) -> Bool[Array, "neurons features"]:
    r"""Return which neurons fire for each feature alone, in a `ReLUHidden` model.

    With $h = \mathrm{ReLU}(W x)$ feature $i$ alone drives neuron $k$ by $W_{ki}$. It counts if it
    is more than half of the largest weight in column $i$. Negative weights are vetoes: they
    silence a neuron that other features drive.

    Returns:
        A mask whose columns are the code words. A column is false for a feature that is not
        represented: the slope of its output in $x_i$ alone, $\sum_k \mathrm{ReLU}(W_{ki})^2$, is at
        most 1/2, where 1 is a perfect reconstruction.

    Raises:
        ValueError: weights that are not finite.
    """
    weights = inputs.floats("weights", weights, rank=2)
    inputs.refuse_missing("weights", weights)
    return _words(weights)


def _words(weights: Float[Array, "neurons features"]) -> Bool[Array, "neurons features"]:
    """Return `code_words` without checks."""
    drive = jnp.maximum(weights, 0.0)
    represented = jnp.sum(drive**2, axis=0, keepdims=True) > 1 / 2
    return represented & (drive > jnp.max(drive, axis=0, keepdims=True, initial=0.0) / 2)


def monosemantic(weights: Float[Array, "neurons features"]) -> Bool[Array, " neurons"]:
    """Return which neurons of a `ReLUHidden` model serve one feature, and no other above 1/5.

    A veto of -8 counts as one of -1, because -1 is enough to silence a neuron of unit weights.

    Raises:
        ValueError: weights that are not finite.
    """
    weights = inputs.floats("weights", weights, rank=2)
    inputs.refuse_missing("weights", weights)
    return _alone(weights)


def _alone(weights: Float[Array, "neurons features"]) -> Bool[Array, " neurons"]:
    """Return `monosemantic` without checks."""
    return jnp.sum(_served(jnp.maximum(weights, -1.0), 1 / 5), axis=1) == 1


def code(weights: Float[Array, "neurons features"]) -> Code:
    """Return the name of a code: how many features share how many neurons of a `ReLUHidden` model.

    The paper's "three features in two neurons", beside three monosemantic neurons, is
    `Code(3, 3, 2)`. All three numbers are NaN if a weight is not finite.

    References:
        Elhage et al. (2022), section "Superposition in a Privileged Basis".
    """
    weights = inputs.floats("weights", weights, rank=2)
    alone = _alone(weights)
    shared = jnp.any(_words(weights) & ~alone[:, None], axis=0)
    counts = (jnp.sum(alone), jnp.sum(shared), jnp.sum(~alone))
    return Code(*(inputs.unless_missing(count, weights) for count in counts))


def flagged(weights: Float[Array, "neurons features"]) -> Float[Array, ""]:
    r"""Return the largest share of the shared features that one polysemantic neuron flags.

    Shared features are those for which polysemantic neurons fire. Such a neuron flags a shared
    feature in one of two ways. If the feature fires one other polysemantic neuron, the flag neuron
    fires as well. If the feature fires several others, the flag neuron has a veto, $W_{ki} < 0$. In
    the paper's code of six features in four neurons, one neuron flags all six.

    Returns:
        A number in $[0, 1]$: 0 if no feature is shared, NaN if a weight is not finite.

    References:
        Elhage et al. (2022), section "Superposition in a Privileged Basis".
    """
    weights = inputs.floats("weights", weights, rank=2)
    polysemantic = ~_alone(weights)[:, None]
    words = _words(weights) & polysemantic
    size = jnp.sum(words, axis=0, keepdims=True)
    fits = jnp.where(words, size == 2, (weights < 0) & (size >= 2)) & polysemantic
    share = jnp.max(jnp.sum(fits, axis=1), initial=0) / jnp.maximum(jnp.sum(size > 0), 1)
    return inputs.unless_missing(share, weights)
