r"""Neurons, the coordinates of a privileged basis: pure functions of ONE weight matrix.

`weights` is neurons x features, the rows of $W$ that a ReLU acts on. Rotations of the hidden space
change all of this, unlike what `geometry` measures. `vmap` over a sweep.

References:
    Elhage et al. (2022), "Toy Models of Superposition", sections "Superposition in a Privileged
    Basis" and "Computation in Superposition".
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from toymodels import checks


def features_served(
    weights: Float[Array, "neurons features"], *, threshold: Float[Array, ""] | float
) -> Bool[Array, "neurons features"]:
    r"""Which features each neuron serves: $|W_{ki}| > t \max_j |W_{kj}|$.

    A neuron that serves one feature is monosemantic, one that serves several is polysemantic;
    `features_served(...).sum(axis=1)` counts them.

    Args:
        weights: one row per neuron.
        threshold: $t$ in $[0, 1]$, relative to the largest weight of the neuron.

    Returns:
        All false for a neuron without weights, and for every neuron if $t = 1$.
    """
    checks.interval(
        "threshold", threshold, low=0.0, high=1.0, remedy="it is a share of the largest weight"
    )
    sizes = jnp.abs(weights)
    return sizes > threshold * jnp.max(sizes, axis=1, keepdims=True)


def rescaled(
    weights_in: Float[Array, "neurons features"], weights_out: Float[Array, "outputs neurons"]
) -> tuple[Float[Array, "neurons features"], Float[Array, "outputs neurons"]]:
    r"""The same model of ReLU neurons, the largest incoming $|W_{ki}|$ of each of size 1.

    $\mathrm{ReLU}(\alpha z) = \alpha\, \mathrm{ReLU}(z)$ for $\alpha > 0$: row $k$ of $W_1$ by
    $\alpha_k$ and column $k$ of $W_2$ by $1/\alpha_k$ leave every output as it is. So weights of
    different neurons can be compared only after a choice of scale, here that of the paper.

    Returns:
        Weights in and out. A neuron without incoming weights stays as it is.

    References:
        Elhage et al. (2022), footnote 15.
    """
    largest = jnp.max(jnp.abs(weights_in), axis=1)
    scale = jnp.where(largest > 0, largest, 1.0)
    return weights_in / scale[:, None], weights_out * scale[None, :]


class Code(NamedTuple):
    """How the features of a model share its neurons.

    Attributes:
        monosemantic: neurons that serve one feature.
        features: represented features that other neurons fire for.
        neurons: those other neurons.
    """

    monosemantic: Int[Array, ""]
    features: Int[Array, ""]
    neurons: Int[Array, ""]


def code_words(weights: Float[Array, "neurons features"]) -> Bool[Array, "neurons features"]:
    r"""Which neurons fire for each feature alone, in a `ReLUHidden` model.

    With $h = \mathrm{ReLU}(W x)$ feature $i$ alone drives neuron $k$ by $W_{ki}$, which counts if
    it is more than half of the largest one in column $i$. Negative weights are vetoes: they
    silence a neuron when other features are on, too.

    Returns:
        Columns are code words. All false for a feature that is not represented: its output
        answers $x_i$ alone with a slope $\sum_k \mathrm{ReLU}(W_{ki})^2$ of at most 1/2, where 1
        is a perfect reconstruction.
    """
    drive = jnp.maximum(weights, 0.0)
    represented = jnp.sum(drive**2, axis=0, keepdims=True) > 1 / 2
    return represented & (drive > jnp.max(drive, axis=0, keepdims=True) / 2)


def monosemantic(weights: Float[Array, "neurons features"]) -> Bool[Array, " neurons"]:
    """Which neurons of a `ReLUHidden` model serve one feature, and no other by more than 1/5.

    A veto of -8 counts as one of -1, which silences a neuron of unit weights as well.
    """
    served = features_served(jnp.maximum(weights, -1.0), threshold=1 / 5)
    return jnp.sum(served, axis=1) == 1


def code(weights: Float[Array, "neurons features"]) -> Code:
    """The name of a code: how many monosemantic neurons, and how many features in the others.

    The paper's "three features in two neurons" beside three monosemantic ones is `Code(3, 3, 2)`.

    References:
        Elhage et al. (2022), section "Superposition in a Privileged Basis".
    """
    alone = monosemantic(weights)
    shared = jnp.any(code_words(weights) & ~alone[:, None], axis=0)
    return Code(jnp.sum(alone), jnp.sum(shared), jnp.sum(~alone))
