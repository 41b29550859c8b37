"""The toy models of the paper: Linen modules that take ONE vector of features.

`weights` is hidden x features, as in the paper's equations: column $i$ is the direction
$W_i$ of feature $i$. A model takes the number of features from its input.
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.models.base import Activation, Initializer, xavier
from toymodels.sites import Site


def _identity(values: Array) -> Array:
    return values


class Tied(nn.Module):
    r"""The tied model $h = g(W x)$, $y = f(W^\top h + b)$ with any two nonlinearities.

    `LinearOutput`, `ReLUOutput` and `ReLUHidden` are its common cases. Sites: `hidden` $h$,
    `preactivation` $W^\top h + b$, `output` $y$. Parameters: `weights` $W$ (start: `initializer`),
    and `bias` $b$ (start: 0) if the model has one.

    Attributes:
        hidden: the size of $h$.
        hidden_activation: the nonlinearity $g$, by default the identity.
        activation: the nonlinearity $f$, by default ReLU.
        use_bias: whether the model has the bias $b$.
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
    r"""The untied model $h = f(W_1 x)$, $y = f(W_2 h + b)$ with $f$ = ReLU.

    It can compute functions of its features, such as $|x|$. There is no hidden bias. Sites:
    `hidden` $h$, `preactivation` $W_2 h + b$, `output` $y$. Parameters: `weights_in` $W_1$ (hidden
    x features), `weights_out` $W_2$ (outputs x hidden), `bias` $b$ (start: 0).

    Attributes:
        hidden: the size of $h$.
        activation: the nonlinearity $f$.
        initializer: the start of `weights_in`, and of `weights_out` if `initializer_out` is None.
        outputs: the size of $y$; by default as many as features.
        initializer_out: the start of `weights_out`.

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
        """Return the outputs for one feature vector."""
        _check_vector(features)
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


def _preactivation(
    module: Any,
    features: Float[Array, " features"],
    hidden_activation: Activation = _identity,
    *,
    use_bias: bool = True,
) -> Float[Array, " features"]:
    r"""Return $W^\top h + b$ of a tied model, whose $h = g(W x)$ is the site `hidden`."""
    _check_vector(features)
    checks.count("hidden", module.hidden)
    weights = module.param("weights", module.initializer, (module.hidden, features.size))
    hidden = Site(name="hidden")(hidden_activation(weights @ features))
    if not use_bias:
        return weights.T @ hidden
    return weights.T @ hidden + module.param("bias", nn.initializers.zeros, (features.size,))


def _check_vector(features: Float[Array, " features"]) -> None:
    """Refuse a batch, a sequence, and a number."""
    if features.ndim != 1:
        raise InputError(
            f"the model cannot take an input of shape {features.shape}: give ONE vector of "
            "features, and use jax.vmap for a batch, or a model of sequences, such as "
            "tm.AttentionOnly, for a sequence"
        )


def _output(
    preactivation: Float[Array, " features"], activation: Activation
) -> Float[Array, " features"]:
    """Return the output of a model, and pass both values through their sites."""
    return Site(name="output")(activation(Site(name="preactivation")(preactivation)))
