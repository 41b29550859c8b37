"""What a model is asked to do: features, a target of them, and how much each output matters.

Everywhere in this package a loss is SUMMED over outputs and averaged over examples, as in
the paper's equations. The paper's notebook also averages over the $n$ outputs: divide by
$n$ to compare.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.features.base import Features


def identity(features: Float[Array, " features"]) -> Float[Array, " features"]:
    """The target of an autoencoder: the features themselves."""
    return features


@struct.dataclass
class Task:
    r"""Predict `target(x)` for $x$ drawn from `features`.

    Attributes:
        features: the distribution of $x$.
        target: of ONE feature vector; static. The identity asks for a reconstruction.
        importance: $I_i \ge 0$, one number or one per output.
    """

    features: Features
    target: Callable[[Array], Array] = struct.field(pytree_node=False, default=identity)
    importance: Float[Array | np.ndarray, "*cells"] | float = 1.0

    def loss(
        self, features: Float[Array, " features"], outputs: Float[Array, " outputs"]
    ) -> Float[Array, ""]:
        r"""Squared error of one example, $\sum_i I_i (t_i - y_i)^2$ with $t$ the target.

        Summed over outputs.
        """
        checks.interval("importance", self.importance, low=0, remedy="give weights of 0 or more")
        target = self.target(features)
        if target.shape != outputs.shape:
            raise InputError(
                f"the target has shape {target.shape} but the model gives {outputs.shape}: "
                "change the target or the model's number of outputs"
            )
        importance = jnp.asarray(self.importance)
        if importance.shape not in ((), outputs.shape):
            raise InputError(
                f"importance has shape {importance.shape}: give one number or one for each of "
                f"the {outputs.size} outputs"
            )
        return jnp.sum(importance * (target - outputs) ** 2)


def geometric_importance(
    num_features: int, ratio: Float[Array, ""] | float
) -> Float[Array, " features"]:
    r"""Importances $I_i = r^i$ for $i = 0, \dots, n-1$: the first is 1.

    Args:
        num_features: $n$.
        ratio: $r \ge 0$. For two features, the relative importance of the second.
    """
    checks.count("num_features", num_features)
    checks.interval("importance ratio", ratio, low=0, remedy="give a ratio of 0 or more")
    return jnp.asarray(ratio, jnp.result_type(float)) ** jnp.arange(num_features)
