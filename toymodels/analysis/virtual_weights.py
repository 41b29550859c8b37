r"""Virtual weights: the effects of features of one layer on features of another.

$V = W_b^\top A W_a$ has the directions $W_a$ and $W_b$ of the features and the map $A$ between
hidden spaces; in a tied model it is $G = W^\top W$. In superposition a part of $V$ is interference,
which no circuit uses. These are pure functions of ONE model; `vmap` over a sweep.

References:
    Olah, Turner and Conerly (2025), "A Toy Model of Interference Weights".
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from toymodels import checks
from toymodels.analysis import inputs, units

__all__ = ["VirtualWeights", "loss_contributions", "real_and_interference"]


class VirtualWeights(NamedTuple):
    r"""Virtual weights $V = c T + N$, with $T$ the true map and $\sum_{kj} T_{kj} N_{kj} = 0$.

    Attributes:
        gain: $c$, less than 1 where the model shrinks its outputs.
        real: $c T$.
        interference: $N$.
        explained: $\lVert c T \rVert_F^2 / \lVert V \rVert_F^2$ in $[0, 1]$, the squared cosine of
            $V$ and $T$; 0 if either is zero.
    """

    gain: Float[Array, ""]
    real: Float[Array, "outputs features"]
    interference: Float[Array, "outputs features"]
    explained: Float[Array, ""]


def real_and_interference(
    virtual: Float[Array, "outputs features"], true_map: Float[Array, "outputs features"]
) -> VirtualWeights:
    r"""Split virtual weights into a multiple of the true map and a rest that is orthogonal to it.

    $$c = \frac{\sum_{kj} T_{kj} V_{kj}}{\lVert T \rVert_F^2}, \qquad N = V - c\, T.$$

    The source's first definition of interference is $V - T$, where $T$ is the result of training
    without a bottleneck. It includes shrinkage:
    $\lVert V - T \rVert_F^2 = (c - 1)^2 \lVert T \rVert_F^2 + \lVert N \rVert_F^2$.

    Args:
        virtual: $V$.
        true_map: $T$, the map that the model should compute; the identity for reconstruction.
    """
    virtual = inputs.floats("virtual", virtual, rank=2)
    true_map = inputs.floats("true_map", true_map, rank=2)
    checks.same_size("outputs", virtual=virtual.shape[0], true_map=true_map.shape[0])
    checks.same_size("features", virtual=virtual.shape[1], true_map=true_map.shape[1])
    # Squares in units of the largest entries neither overflow nor underflow.
    direction, of_map = units.scaled(true_map)
    scaled, of_virtual = units.scaled(virtual)
    size = jnp.sum(direction**2)
    along = jnp.sum(direction * scaled) / units.positive(size)
    gain = along * of_virtual / of_map
    real = along * direction * of_virtual
    total = jnp.sum(scaled**2)
    explained = jnp.sum((along * direction) ** 2) / units.positive(total)
    return VirtualWeights(gain, real, virtual - real, explained)


def loss_contributions(
    virtual: Float[Array, "outputs features"],
    loss: Callable[[Float[Array, "outputs features"]], Float[Array, ""]],
) -> Float[Array, "outputs features"]:
    r"""Return the loss without each virtual weight minus the loss with it.

    By the second definition of the source, real weights are those that improve the loss, and
    interference weights are the others. For a linear output and independent features of mean 0 and
    variance $v$, the contribution is $v V_{kj} (2 T_{kj} - V_{kj})$, which is positive for
    $0 < V_{kj} / T_{kj} < 2$.

    Args:
        virtual: $V$.
        loss: the loss as a function of all virtual weights, with fixed biases. It is evaluated once
            per weight.

    Returns:
        Numbers of either sign: 0 for a weight of 0. All are NaN if the loss is NaN.
    """
    virtual = inputs.floats("virtual", virtual, rank=2)
    outputs, num_features = virtual.shape

    def without(output: Int[Array, ""], feature: Int[Array, ""]) -> Float[Array, ""]:
        return loss(virtual.at[output, feature].set(0.0))

    def row(output: Int[Array, ""]) -> Float[Array, " features"]:
        return jax.vmap(without, (None, 0))(output, jnp.arange(num_features))

    # Row by row, because all at once would need memory for the square of the number of weights.
    return jax.lax.map(row, jnp.arange(outputs)) - loss(virtual)
