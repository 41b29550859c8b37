"""A task: a distribution of features, a target, and how much each output matters.

Everywhere in this package a loss is SUMMED over outputs and averaged over examples, as in
the paper's equations. The paper's notebook also averages over the $n$ outputs; divide by
$n$ to compare with it.
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
    """Return the features themselves, the target of a reconstruction."""
    return features


@struct.dataclass
class Task:
    r"""The task to predict `target(x)` for examples $x$ drawn from `features`.

    Attributes:
        features: the distribution of $x$. An example is a vector, an array of any other shape,
            such as a sequence (length x features), or a pytree, such as an input with its label.
        target: a function of ONE example that returns an array of the shape of the model's
            output; it cannot be swept. The identity asks for a reconstruction.
        importance: the weights $I_i \ge 0$ of the outputs: one number, or one for each output. For
            a sequence of outputs, one for each place on the last axis is enough.
    """

    features: Features
    target: Callable[[Any], Array] = struct.field(pytree_node=False, default=identity)
    importance: Float[Array | np.ndarray, "*cells"] | float = 1.0

    def loss(self, features: PyTree, outputs: Float[Array, "*outputs"]) -> Float[Array, ""]:
        r"""Return the squared error of ONE example, $\sum_i I_i (t_i - y_i)^2$.

        Here $t$ is the target and $y$ are the outputs. The sum is over all outputs, and over all
        positions of a sequence. To train with another loss, subclass `Task` and give it a `loss`
        with these arguments.
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


@struct.dataclass
class NextToken(Task):
    r"""The task to predict each token of a sequence from those before it.

    Attributes:
        features: a distribution of sequences of one-hot tokens (length x tokens), such as
            `MarkovChains`. The outputs are logits at each position.
        first: the index of the first token that is predicted, at least 1. The last token alone is
            -1.
    """

    first: int = struct.field(pytree_node=False, default=1)

    def loss(self, features: PyTree, outputs: Float[Array, "*outputs"]) -> Float[Array, ""]:
        r"""Return the mean cross-entropy of ONE example in nats for each predicted token.

        With $\ell_i$ the logits at position $i$ and $t_{i+1}$ the next token, it is the mean of
        $-\log \operatorname{softmax}(\ell_i)_{t_{i+1}}$.
        """
        if outputs.shape != jnp.shape(features) or outputs.ndim != 2:
            raise InputError(
                f"the sequence has shape {jnp.shape(features)} and the logits {outputs.shape}: "
                "give a sequence of one-hot tokens, and one logit for each token and position"
            )
        length = outputs.shape[0]
        first = range(length)[self.first] if -length < self.first < length else 0
        if not first:
            raise InputError(
                f"first is {self.first}: give the index of a token after the first, up to "
                f"{length - 1}"
            )
        logits, targets = outputs[first - 1 : -1], features[first:]
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=1))


def geometric_importance(
    num_features: int, ratio: Float[Array, ""] | float
) -> Float[Array, " features"]:
    r"""Return the importances $I_i = r^i$ for $i = 0, \dots, n-1$, the first of which is 1.

    Args:
        num_features: the number $n$ of features.
        ratio: the ratio $r \ge 0$ of neighbours. With two features, it is the relative importance
            of the second.
    """
    checks.count("num_features", num_features)
    checks.interval("importance ratio", ratio, low=0, remedy="give a ratio of 0 or more")
    return jnp.asarray(ratio, jnp.result_type(float)) ** jnp.arange(num_features)
