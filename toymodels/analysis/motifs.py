"""The asymmetric motif: two features share a neuron, and another neuron inhibits the error.

References:
    Elhage et al. (2022), "Toy Models of Superposition", section "Computation in Superposition".
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["Motifs", "asymmetric", "relabelled", "shuffled"]

WITHIN = 0.3
"""How far a product of weights in and out may be from 1."""
RATIO = 3.0
"""Smallest |W_1| of A over that of B. The paper's motif has 4."""
INHIBITED = 0.5
"""Smallest share of what A gives to B that one other neuron takes."""
LEFT = 0.1
"""Largest share of it that all neurons together leave."""


class Motifs(NamedTuple):
    """The asymmetric motifs of models: arrays of models x neurons x A x B.

    Attributes:
        asymmetric: whether the neuron computes a side of both A and B, and A drives it far more.
        inhibited: whether it is asymmetric, and other neurons take what it gives to B.
        drive: output B for A of size 1, from this neuron alone.
        total: output B for A of size 1, from all neurons.
        inhibitor: the neuron that takes most of it.
        taken: what the inhibitor adds to B; at most 0.
    """

    asymmetric: Bool[np.ndarray, "models neurons features features"]
    inhibited: Bool[np.ndarray, "models neurons features features"]
    drive: Float[np.ndarray, "models neurons features features"]
    total: Float[np.ndarray, "models neurons features features"]
    inhibitor: Int[np.ndarray, "models neurons features features"]
    taken: Float[np.ndarray, "models neurons features features"]


def asymmetric(
    weights_in: Float[np.ndarray, "models neurons features"],
    weights_out: Float[np.ndarray, "models features neurons"],
) -> Motifs:
    r"""Find every asymmetric motif of models $y = \mathrm{ReLU}(W_2 \mathrm{ReLU}(W_1 x) + b)$.

    A neuron computes a side of A and the opposite side of B if $W_1 W_2$ is within 0.3 of 1 for
    both; it is asymmetric if $|W_1|$ is three times as large for A. It is inhibited if another
    neuron takes at least half of what A then gives to B, and all neurons together leave at most a
    tenth of it. Neither the scale of a neuron nor the order of neurons and features matters.
    """
    out = np.swapaxes(weights_out, 1, 2)
    side = (out > 0) & (abs(abs(weights_in * out) - 1) < WITHIN)
    a, b = weights_in[:, :, :, None], weights_in[:, :, None, :]
    shared = (side[:, :, :, None] & side[:, :, None, :]) & (a * b < 0)
    shared &= abs(a) >= RATIO * abs(b)
    drive = abs(a) * out[:, :, None, :]
    # By the sign of A: models x neurons that give x A x B.
    given = [np.maximum(s * a, 0) * out[:, :, None, :] for s in (1, -1)]

    def of_side(up: np.ndarray, down: np.ndarray) -> np.ndarray:
        return np.where(a > 0, up[:, None], down[:, None])

    total = of_side(*(each.sum(axis=1) for each in given))
    taken = of_side(*(each.min(axis=1) for each in given))
    inhibitor = of_side(*(each.argmin(axis=1) for each in given))
    inhibited = shared & (-taken >= INHIBITED * drive) & (total <= LEFT * drive)
    return Motifs(shared, inhibited, drive, total, inhibitor, taken)


def relabelled(
    random: np.random.Generator,
    weights_in: Float[np.ndarray, "models neurons features"],
    weights_out: Float[np.ndarray, "models features neurons"],
) -> tuple[np.ndarray, np.ndarray]:
    """Give each neuron its weights in and out for features in an order of its own."""
    order = random.permuted(
        np.broadcast_to(np.arange(weights_in.shape[2]), weights_in.shape), axis=2
    )
    out = np.take_along_axis(np.swapaxes(weights_out, 1, 2), order, axis=2)
    return np.take_along_axis(weights_in, order, axis=2), np.swapaxes(out, 1, 2)


def shuffled(
    random: np.random.Generator,
    weights_in: Float[np.ndarray, "models neurons features"],
    weights_out: Float[np.ndarray, "models features neurons"],
) -> tuple[np.ndarray, np.ndarray]:
    """Exchange the places of all weights in of a model, and of all weights out."""
    into, out = (
        random.permuted(each.reshape(len(each), -1), axis=1).reshape(each.shape)
        for each in (weights_in, weights_out)
    )
    return into, out
