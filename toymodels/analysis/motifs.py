r"""The asymmetric motif: two features share a neuron, and another neuron cancels the error.

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
"""How far the product of the weights into and out of a neuron may be from 1."""
RATIO = 3.0
"""The smallest |W_1| of A over that of B. The paper's motif has 4."""
INHIBITED = 0.5
"""The smallest share of the false output B under A that one other neuron must cancel."""
LEFT = 0.1
"""The largest share of the false output B under A that all neurons together may leave."""


class Motifs(NamedTuple):
    """The asymmetric motifs of ONE model; each array is neurons x features A x features B.

    A drives the neuron, and B shares it: so A falsely drives output B as well.

    Attributes:
        asymmetric: whether the neuron serves both A and B, and A drives it far more.
        inhibited: whether it is asymmetric, and other neurons cancel the false output B.
        drive: the false output B for A of size 1, from this neuron alone.
        total: the false output B for A of size 1, from all neurons together.
        inhibitor: the neuron that cancels most of it; -1 for weights that are not finite.
        taken: the contribution of the inhibitor to output B, at most 0.
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

    A neuron serves A at one sign and B at the opposite sign if the product of $|W_1|$ and $W_2$ is
    within 0.3 of 1 for both. It is asymmetric if $|W_1|$ is at least three times as large for A. It
    is inhibited if one other neuron cancels at least half of the false output B under A, and all
    neurons together leave at most a tenth of it. Neither the scale of a neuron nor the order of
    neurons and features matters.

    Args:
        weights_in: $W_1$.
        weights_out: $W_2$.

    Raises:
        ValueError: weights that are not finite. If they are traced, no motif is found instead.
    """
    weights_in = inputs.floats("weights_in", weights_in, rank=2)
    weights_out = inputs.floats("weights_out", weights_out, rank=2)
    checks.same_size("neurons", weights_in=len(weights_in), weights_out=weights_out.shape[1])
    checks.same_size("features", weights_in=weights_in.shape[1], weights_out=len(weights_out))
    inputs.refuse_missing("weights_in", weights_in)
    inputs.refuse_missing("weights_out", weights_out)
    out = weights_out.T
    served = (out > 0) & (jnp.abs(jnp.abs(weights_in * out) - 1) < WITHIN)
    a, b = weights_in[:, :, None], weights_in[:, None, :]
    shared = served[:, :, None] & served[:, None, :] & (a * b < 0)
    shared &= jnp.abs(a) >= RATIO * jnp.abs(b)
    drive = jnp.abs(a) * out[:, None, :]
    # What each neuron adds to output B for A = 1, and for A = -1.
    added = [jnp.maximum(sign * a, 0) * out[:, None, :] for sign in (1, -1)]

    def at_sign_of_a(positive: Array, negative: Array) -> Array:
        """Return the numbers for the sign of A that drives the neuron."""
        return jnp.where(a > 0, positive[None], negative[None])

    total = at_sign_of_a(*(jnp.sum(each, axis=0) for each in added))
    taken = at_sign_of_a(*(jnp.min(each, axis=0) for each in added))
    inhibitor = at_sign_of_a(*(jnp.argmin(each, axis=0) for each in added))
    inhibited = shared & (-taken >= INHIBITED * drive) & (total <= LEFT * drive)
    finite = jnp.isfinite(weights_in).all() & jnp.isfinite(weights_out).all()
    inhibitor = jnp.where(finite, inhibitor, -1)
    return Motifs(shared & finite, inhibited & finite, drive, total, inhibitor, taken)


def relabelled(
    random: np.random.Generator,
    weights_in: Float[np.ndarray, "*models neurons features"],
    weights_out: Float[np.ndarray, "*models features neurons"],
) -> tuple[np.ndarray, np.ndarray]:
    """Permute the features of each neuron at random, in its weights in and out alike.

    This is a null hypothesis: each neuron keeps its weights, and neurons are independent.
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
    """Permute all weights into the neurons of a model at random, and all weights out of them.

    This is a null hypothesis: a model keeps its weights, and the weights of a neuron are
    independent.
    """
    into, out = (
        random.permuted(each.reshape(*each.shape[:-2], -1), axis=-1).reshape(each.shape)
        for each in (weights_in, weights_out)
    )
    return into, out
