"""The toy models: Linen modules that take ONE example.

`weights` is hidden x features, as in the paper's equations: column $i$ is the direction
$W_i$ of feature $i$. A model takes the number of features from its input.

Each model passes its intermediate values through a named `Site`, where `activations` reads them
and `intervene` replaces them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Key, PyTree

from toymodels import checks
from toymodels.errors import InputError
from toymodels.sites import Site

Activation: TypeAlias = Callable[[Array], Array]
Initializer: TypeAlias = Callable[..., Array]

xavier = nn.initializers.xavier_normal()
r"""Truncated normal of variance $2 / (m + n)$: the default start of all weights."""


def notebook_initializer(num_instances: int) -> Initializer:
    r"""Start of the paper's notebook: normal of variance $2 / (m (n + \text{instances}))$.

    The notebook applies PyTorch's Xavier rule to one array of all instances, which PyTorch
    reads as a convolution: the start is smaller the more models are trained at once. Small
    starts leave unused features at zero, so some figures depend on it.

    Args:
        num_instances: models in the array: 10 in the introduction, 20 in the other figures.
    """
    checks.count("num_instances", num_instances)

    def initializer(key: Array, shape: tuple[int, int], dtype: Any = float) -> Array:
        hidden, num_features = shape
        deviation = (2 / (hidden * (num_features + num_instances))) ** 0.5
        return deviation * jax.random.normal(key, shape, dtype)

    return initializer


def _identity(values: Array) -> Array:
    return values


class Tied(nn.Module):
    r"""The tied model $h = g(W x)$, $y = f(W^\top h + b)$ with any two nonlinearities.

    `LinearOutput`, `ReLUOutput` and `ReLUHidden` are its common cases. Sites: `hidden` $h$,
    `preactivation` $W^\top h + b$, `output` $y$. Parameters: `weights` $W$ (start: `initializer`),
    and `bias` $b$ (start: 0) if the model has one.

    Attributes:
        hidden: the size of $h$.
        hidden_activation: $g$, the identity by default.
        activation: $f$, ReLU by default.
        use_bias: whether there is a $b$.
        initializer: the start of `weights`.
    """

    hidden: int
    hidden_activation: Activation = _identity
    activation: Activation = nn.relu
    use_bias: bool = True
    initializer: Initializer = xavier

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " features"]:
        """Return the reconstruction of one feature vector."""
        hidden_activation, use_bias = self.hidden_activation, self.use_bias
        preactivation = _preactivation(self, features, hidden_activation, use_bias=use_bias)
        return _output(preactivation, self.activation)


class LinearOutput(nn.Module):
    r"""The linear model $h = W x$, $y = W^\top h + b$, which finds the principal components.

    Sites: `hidden` $h$, `output` $y$. Parameters: `weights` $W$ (start: `initializer`),
    `bias` $b$ (start: 0).

    References:
        Elhage et al. (2022), section 2.
    """

    hidden: int
    initializer: Initializer = xavier

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " features"]:
        """Return the reconstruction of one feature vector."""
        return Site(name="output")(_preactivation(self, features))


class ReLUOutput(nn.Module):
    r"""The paper's main model $h = W x$, $y = f(W^\top h + b)$ with $f$ = ReLU.

    Another $f$ is `activation`. Sites: `hidden` $h$, `preactivation` $W^\top h + b$, `output`
    $y$. Parameters: `weights` $W$ (start: `initializer`), `bias` $b$ (start: 0).

    References:
        Elhage et al. (2022), section 2.
    """

    hidden: int
    activation: Activation = nn.relu
    initializer: Initializer = xavier

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " features"]:
        """Return the reconstruction of one feature vector."""
        return _output(_preactivation(self, features), self.activation)


class ReLUHidden(nn.Module):
    r"""The model $h = f(W x)$, $y = f(W^\top h + b)$ with $f$ = ReLU: it has a privileged basis.

    There is no hidden bias, because the model would use it to undo the nonlinearity. Another $f$
    is `activation`. Sites: `hidden` $h$, `preactivation` $W^\top h + b$, `output` $y$.
    Parameters: `weights` $W$ (start: `initializer`), `bias` $b$ (start: 0).

    References:
        Elhage et al. (2022), section "Superposition in a Privileged Basis".
    """

    hidden: int
    activation: Activation = nn.relu
    initializer: Initializer = xavier

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " features"]:
        """Return the reconstruction of one feature vector."""
        return _output(_preactivation(self, features, self.activation), self.activation)


class TwoLayer(nn.Module):
    r"""$h = f(W_1 x)$, $y = f(W_2 h + b)$ with $f$ = ReLU, untied: computes, say, $|x|$.

    No hidden bias. Sites: `hidden` $h$, `preactivation` $W_2 h + b$, `output` $y$.
    Parameters: `weights_in` $W_1$ (hidden x features), `weights_out` $W_2$ (outputs x
    hidden), `bias` $b$ (start: 0).

    Attributes:
        hidden: size of $h$.
        activation: $f$.
        initializer: start of `weights_in`, and of `weights_out` where it is given none.
        outputs: size of $y$; by default as many as features.
        initializer_out: start of `weights_out`.

    References:
        Elhage et al. (2022), section "Computation in Superposition".
    """

    hidden: int
    activation: Activation = nn.relu
    initializer: Initializer = xavier
    outputs: int | None = None
    initializer_out: Initializer | None = None

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " outputs"]:
        """The outputs for one feature vector."""
        outputs = features.size if self.outputs is None else self.outputs
        checks.count("hidden", self.hidden)
        checks.count("outputs", outputs)
        start_out = self.initializer_out or self.initializer
        weights_in = self.param("weights_in", self.initializer, (self.hidden, features.size))
        weights_out = self.param("weights_out", start_out, (outputs, self.hidden))
        bias = self.param("bias", nn.initializers.zeros, (outputs,))
        hidden = Site(name="hidden")(self.activation(weights_in @ features))
        preactivation = Site(name="preactivation")(weights_out @ hidden + bias)
        return Site(name="output")(self.activation(preactivation))


def start(key: Key[Array, ""], model: nn.Module, example: PyTree) -> PyTree:
    """The first parameters of `model`, after a check that it is one that can be trained.

    Raises:
        ValueError: what is not an instance of a Linen module, or has no parameters.
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


def _preactivation(
    module: Any,
    features: Float[Array, " features"],
    hidden_activation: Activation = _identity,
    *,
    use_bias: bool = True,
) -> Float[Array, " features"]:
    r"""Return $W^\top h + b$ of a tied model, whose $h = g(W x)$ is the site `hidden`."""
    checks.count("hidden", module.hidden)
    weights = module.param("weights", module.initializer, (module.hidden, features.size))
    hidden = Site(name="hidden")(hidden_activation(weights @ features))
    if not use_bias:
        return weights.T @ hidden
    return weights.T @ hidden + module.param("bias", nn.initializers.zeros, (features.size,))


def _output(
    preactivation: Float[Array, " features"], activation: Activation
) -> Float[Array, " features"]:
    return Site(name="output")(activation(Site(name="preactivation")(preactivation)))
