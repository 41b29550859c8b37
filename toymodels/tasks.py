"""What a model is asked to do: features, a target of them, and how much each output matters.

Everywhere in this package a loss is SUMMED over outputs and averaged over examples, as in
the paper's equations. The paper's notebook also averages over the $n$ outputs: divide by
$n$ to compare.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PyTree

from toymodels import checks
from toymodels.errors import InputError
from toymodels.features.base import Features


def identity(features: PyTree) -> PyTree:
    """The target of an autoencoder: the features themselves."""
    return features


@struct.dataclass
class Task:
    r"""Predict `target(x)` for $x$ drawn from `features`.

    Attributes:
        features: the distribution of $x$: vectors, or examples of any shape, as sequences
            (length x features), or pytrees, as inputs with labels.
        target: of ONE example, an array of the shape of the model's output; static. The identity
            asks for a reconstruction.
        importance: $I_i \ge 0$, one number, or one per output; for a sequence of outputs one
            for each place on the last axis is enough.
    """

    features: Features
    target: Callable[[Any], Array] = struct.field(pytree_node=False, default=identity)
    importance: Float[Array | np.ndarray, "*cells"] | float = 1.0

    def loss(self, features: PyTree, outputs: Float[Array, "*outputs"]) -> Float[Array, ""]:
        r"""Squared error of one example, $\sum_i I_i (t_i - y_i)^2$ with $t$ the target.

        Summed over outputs, of all positions of a sequence. For another loss subclass `Task` with
        a `loss` of the same arguments: `train` uses no other.
        """
        checks.interval("importance", self.importance, low=0, remedy="give weights of 0 or more")
        if not callable(self.target):  # pyright: ignore[reportUnnecessaryComparison]
            raise InputError(
                f"target is of type {type(self.target).__name__}: give a function of one example, "
                "and importances by name, Task(features, importance=...)"
            )
        target = self.target(features)
        if jax.tree.structure(target) != jax.tree.structure(0):
            raise InputError(
                f"the target is {jax.tree.map(jnp.shape, target)}: give the task a target=, a "
                "function of one example to one array"
            )
        if target.shape != outputs.shape:
            raise InputError(
                f"the target has shape {target.shape} but the model gives {outputs.shape}: "
                "change the target or the model's number of outputs"
            )
        importance = jnp.asarray(self.importance)
        missing = outputs.ndim - importance.ndim
        if missing < 0 or importance.shape not in ((), outputs.shape[missing:]):
            raise InputError(
                f"importance has shape {importance.shape}: give one number or one for each of "
                f"the {outputs.shape[-1] if outputs.ndim else 1} outputs"
            )
        if importance.ndim:
            importance = jnp.broadcast_to(importance, outputs.shape)
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
