r"""The asymmetric motif: two features share a neuron, and another neuron inhibits the error.

The model is $y = \mathrm{ReLU}(W_2 \mathrm{ReLU}(W_1 x) + b)$, of features of either sign.

References:
    Elhage et al. (2022), "Toy Models of Superposition", section "Computation in Superposition".
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from toymodels import checks
from toymodels.analysis import inputs

__all__ = ["WITHIN", "Motifs", "asymmetric", "relabelled", "shuffled"]

WITHIN = 0.3
"""The largest distance from 1 of a product of weights in and out."""
RATIO = 3.0
"""The smallest |W_1| of A over that of B. The paper's motif has 4."""
INHIBITED = 0.5
"""The smallest share of what A gives to B that one other neuron takes."""
LEFT = 0.1
"""The largest share of it that all neurons together leave."""


class Motifs(NamedTuple):
    """The asymmetric motifs of ONE model: each array has neurons x A x B.

    Attributes:
        asymmetric: whether the neuron computes a side of both A and B, and A drives it far more.
        inhibited: whether it is asymmetric, and other neurons take what it gives to B.
        drive: output B for A of size 1, from this neuron alone.
        total: output B for A of size 1, from all neurons.
        inhibitor: the neuron that takes most of it; -1 for weights that are not finite.
        taken: the output B that the inhibitor adds; at most 0.
    """

    asymmetric: Bool[Array, "neurons features features"]
    inhibited: Bool[Array, "neurons features features"]
    drive: Float[Array, "neurons features features"]
    total: Float[Array, "neurons features features"]
    inhibitor: Int[Array, "neurons features features"]
    taken: Float[Array, "neurons features features"]


def asymmetric(
    weights_in: Float[Array, "neurons features"], weights_out: Float[Array, "features neurons"]
) -> Motifs:
    r"""Find every asymmetric motif of ONE model.

    A neuron computes a side of A and the opposite side of B if $W_1 W_2$ is within 0.3 of 1 for
    both; it is asymmetric if $|W_1|$ is three times as large for A. It is inhibited if another
    neuron takes at least half of what A then gives to B, and all neurons together leave at most a
    tenth of it. Neither the scale of a neuron nor the order of neurons and features matters.

    Args:
        weights_in: $W_1$.
        weights_out: $W_2$.

    Raises:
        ValueError: weights that are not finite. Where they are traced, no neuron is a motif.
    """
    weights_in = inputs.floats("weights_in", weights_in, rank=2)
    weights_out = inputs.floats("weights_out", weights_out, rank=2)
    checks.same_size("neurons", weights_in=len(weights_in), weights_out=weights_out.shape[1])
    checks.same_size("features", weights_in=weights_in.shape[1], weights_out=len(weights_out))
    inputs.refuse_missing("weights_in", weights_in)
    inputs.refuse_missing("weights_out", weights_out)
    out = weights_out.T
    side = (out > 0) & (jnp.abs(jnp.abs(weights_in * out) - 1) < WITHIN)
    a, b = weights_in[:, :, None], weights_in[:, None, :]
    shared = side[:, :, None] & side[:, None, :] & (a * b < 0)
    shared &= jnp.abs(a) >= RATIO * jnp.abs(b)
    drive = jnp.abs(a) * out[:, None, :]
    # By the sign of A: neurons that give x A x B.
    given = [jnp.maximum(sign * a, 0) * out[:, None, :] for sign in (1, -1)]

    def of_side(up: Array, down: Array) -> Array:
        return jnp.where(a > 0, up[None], down[None])

    total = of_side(*(jnp.sum(each, axis=0) for each in given))
    taken = of_side(*(jnp.min(each, axis=0) for each in given))
    inhibitor = of_side(*(jnp.argmin(each, axis=0) for each in given))
    inhibited = shared & (-taken >= INHIBITED * drive) & (total <= LEFT * drive)
    finite = jnp.isfinite(weights_in).all() & jnp.isfinite(weights_out).all()
    inhibitor = jnp.where(finite, inhibitor, -1)
    return Motifs(shared & finite, inhibited & finite, drive, total, inhibitor, taken)


def relabelled(
    random: np.random.Generator,
    weights_in: Float[np.ndarray, "*models neurons features"],
    weights_out: Float[np.ndarray, "*models features neurons"],
) -> tuple[np.ndarray, np.ndarray]:
    """Give each neuron its weights in and out to features in an order of its own.

    This is a null hypothesis: neurons keep their weights, and know nothing of each other.
    """
    features = np.arange(weights_in.shape[-1])
    order = random.permuted(np.broadcast_to(features, weights_in.shape), axis=-1)
    out = np.take_along_axis(np.swapaxes(weights_out, -1, -2), order, axis=-1)
    return np.take_along_axis(weights_in, order, axis=-1), np.swapaxes(out, -1, -2)


def shuffled(
    random: np.random.Generator,
    weights_in: Float[np.ndarray, "*models neurons features"],
    weights_out: Float[np.ndarray, "*models features neurons"],
) -> tuple[np.ndarray, np.ndarray]:
    """Exchange the places of all weights in of a model, and of all weights out.

    This is a null hypothesis: a model keeps its weights, and neurons know nothing of their own.
    """
    into, out = (
        random.permuted(each.reshape(*each.shape[:-2], -1), axis=-1).reshape(each.shape)
        for each in (weights_in, weights_out)
    )
    return into, out
