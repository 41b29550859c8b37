"""The start of a model: the initializers of weights, and the first parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
from jaxtyping import Array, Key, PyTree

from toymodels import checks
from toymodels.errors import InputError

Activation: TypeAlias = Callable[[Array], Array]
Initializer: TypeAlias = Callable[..., Array]

xavier = nn.initializers.xavier_normal()
r"""The default initializer of weights: a truncated normal of variance $2 / (m + n)$."""


def notebook_initializer(num_instances: int) -> Initializer:
    r"""Return the initializer of the paper's notebook, which depends on the number of models.

    It is a normal distribution of variance $2 / (m (n + \text{instances}))$. The notebook applies
    PyTorch's Xavier rule to one array of all its models, which PyTorch takes for the weights of a
    convolution. So the weights start smaller if more models are trained at once. Small weights
    leave unused features at zero, so some figures depend on it.

    Args:
        num_instances: the number of models in the array: 10 in the introduction, 20 in the other
            figures.
    """
    checks.count("num_instances", num_instances)

    def initializer(key: Array, shape: tuple[int, int], dtype: Any = float) -> Array:
        hidden, num_features = shape
        deviation = (2 / (hidden * (num_features + num_instances))) ** 0.5
        return deviation * jax.random.normal(key, shape, dtype)

    return initializer


def start(key: Key[Array, ""], model: nn.Module, example: PyTree) -> PyTree:
    """Return the first parameters of `model`, after a check that it can be trained.

    Raises:
        ValueError: `model` is no instance of a Linen module, or has no parameters.
    """
    if isinstance(model, type) and issubclass(model, nn.Module):
        given = [f for f in dataclasses.fields(model) if f.default is dataclasses.MISSING]
        size = f"{given[0].name}=2" if given else ""
        raise InputError(
            f"model is the class {model.__name__}: give an instance, such as "
            f"{model.__name__}({size})"
        )
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        kind = type(model)
        raise InputError(
            f"model is of type {kind.__module__}.{kind.__qualname__}: give a Flax Linen module "
            "of ONE example; train any other model, of NNX or Equinox, say, by `fit`, which takes "
            "its arrays and a loss"
        )
    params = model.init(key, example).get("params")
    if not jax.tree.leaves(params):
        raise InputError(f"the model {type(model).__name__} has no parameters to train")
    return params
