r"""Adversarial examples of ReLU models: attacks through interference, and the harm that they do.

References:
    Elhage et al. (2022), "Toy Models of Superposition", section "Relationship to Adversarial
    Robustness".
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.analysis import geometry, inputs, units

__all__ = ["Harm", "attacks", "harm", "harm_without_features"]


class Harm(NamedTuple):
    r"""The rise of the loss under attack, divided by the square $\lambda^2$ of the attack's length.

    The loss is the squared error, summed over outputs and averaged over examples. The harm is 1 for
    a model that copies some features exactly and ignores all others.

    Attributes:
        single: the harm of one attack on all examples, the most harmful one.
        each: the harm if each example has the attack that is most harmful to it.
    """

    single: Float[Array, ""]
    each: Float[Array, ""]


def attacks(weights: Float[Array, "hidden features"]) -> Float[Array, "features features"]:
    r"""Return in row $i$ the direction of length 1 that moves output $i$ most.

    It is $\delta_i = (W^\top W)_i / \lVert (W^\top W)_i \rVert$. The row is 0 where feature $i$ has
    no weights.
    """
    gram = geometry.gram(inputs.floats("weights", weights, rank=2))
    return gram / units.positive(geometry.feature_norms(gram))[:, None]


def harm(
    weights: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    examples: Float[Array, "examples features"],
    size: Float[Array, ""] | float,
) -> Harm:
    r"""Measure what attacks do to the model $y = \mathrm{ReLU}(W^\top W x + b)$ on some examples.

    An attack adds $\lambda \delta_i$ of `attacks` to the input. The target stays the input before
    the attack.

    Args:
        weights: $W$.
        bias: $b$.
        examples: the inputs $x$ before an attack.
        size: the length $\lambda$ of the attacks, above 0.
    """
    weights, bias = _checked(weights, bias, size)
    examples = inputs.floats("examples", examples, rank=2)
    checks.same_size("features", bias=bias.size, examples=examples.shape[1])
    gram = geometry.gram(weights)
    preactivation = examples @ gram + bias[None, :]

    def errors(shift: Float[Array, " features"]) -> Float[Array, " examples"]:
        return jnp.sum((examples - jax.nn.relu(preactivation + shift[None, :])) ** 2, axis=1)

    clean = errors(jnp.zeros_like(bias))
    rises = lax.map(lambda shift: errors(shift) - clean, size * attacks(weights) @ gram)
    rises /= size**2
    return Harm(single=jnp.max(jnp.mean(rises, axis=1)), each=jnp.mean(jnp.max(rises, axis=0)))


def harm_without_features(
    weights: Float[Array, "hidden features"],
    bias: Float[Array, " features"],
    size: Float[Array, ""] | float,
) -> Float[Array, ""]:
    r"""Return the harm of the worst attack on an input of 0.

    $$\max_i \frac{1}{\lambda^2} \sum_j \mathrm{ReLU}(b_j + \lambda (W^\top W \delta_i)_j)^2
      - \mathrm{ReLU}(b_j)^2$$

    Without biases the harm does not depend on the length of the attack. For $k$ features of length
    1 that share $d$ dimensions evenly it is $\max_i (k/d) \sum_j \max(0, \cos_{ij})^2$.

    Args:
        weights: $W$.
        bias: $b$.
        size: the length $\lambda$ of the attacks, above 0.
    """
    weights, bias = _checked(weights, bias, size)
    outputs = jax.nn.relu(bias[None, :] + size * attacks(weights) @ geometry.gram(weights))
    rises = jnp.sum(outputs**2, axis=1) - jnp.sum(jax.nn.relu(bias) ** 2)
    return jnp.max(rises) / size**2


def _checked(
    weights: Any, bias: Any, size: Any
) -> tuple[Float[Array, "hidden features"], Float[Array, " features"]]:
    """Return the weights and the bias of one model in floating point, and check the length."""
    weights = inputs.floats("weights", weights, rank=2)
    bias = inputs.floats("bias", bias, rank=1)
    checks.same_size("features", weights=weights.shape[1], bias=bias.size)
    checks.interval("size", size, low=0, open_low=True, remedy="give the length of an attack")
    return weights, bias
