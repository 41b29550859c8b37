"""The toy models, Linen modules on ONE example, and access to their activations.

`weights` is hidden x features, as in the paper's equations: column $i$ is the direction
$W_i$ of feature $i$. The number of features comes from the input.

Each model passes its intermediate values through a named `Site`, an identity, where they can
be read (`activations`) and replaced (`intervene`).
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from toymodels import checks
from toymodels.errors import InputError

Activation: TypeAlias = Callable[[Array], Array]
Initializer: TypeAlias = Callable[..., Array]
Patch: TypeAlias = Callable[[Array], Array]

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


class Site(nn.Module):
    """A named point in a model where an activation can be read and replaced."""

    @nn.compact
    def __call__(self, value: Array) -> Array:
        """The value, as it is."""
        return value


class LinearOutput(nn.Module):
    r"""$h = W x$, $y = W^\top h + b$: finds the principal components, whatever the density.

    Sites: `hidden` $h$, `output` $y$. Parameters: `weights` $W$ (start: `initializer`),
    `bias` $b$ (start: 0).

    References:
        Elhage et al. (2022), section 2.
    """

    hidden: int
    initializer: Initializer = xavier

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " features"]:
        """The reconstruction of one feature vector."""
        weights, bias = _tied_parameters(self, self.hidden, features.size, self.initializer)
        hidden = Site(name="hidden")(weights @ features)
        return Site(name="output")(weights.T @ hidden + bias)


class ReLUOutput(nn.Module):
    r"""$h = W x$, $y = f(W^\top h + b)$ with $f$ = ReLU: the paper's main model.

    Sites: `hidden` $h$, `preactivation` $W^\top h + b$, `output` $y$. Parameters: `weights`
    $W$ (start: `initializer`), `bias` $b$ (start: 0).

    References:
        Elhage et al. (2022), section 2.
    """

    hidden: int
    activation: Activation = nn.relu
    initializer: Initializer = xavier

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " features"]:
        """The reconstruction of one feature vector."""
        weights, bias = _tied_parameters(self, self.hidden, features.size, self.initializer)
        hidden = Site(name="hidden")(weights @ features)
        preactivation = Site(name="preactivation")(weights.T @ hidden + bias)
        return Site(name="output")(self.activation(preactivation))


class ReLUHidden(nn.Module):
    r"""$h = f(W x)$, $y = f(W^\top h + b)$ with $f$ = ReLU: neurons, a privileged basis.

    No hidden bias: the model would use it to undo the nonlinearity. Sites: `hidden` $h$,
    `preactivation` $W^\top h + b$, `output` $y$. Parameters: `weights` $W$ (start:
    `initializer`), `bias` $b$ (start: 0).

    References:
        Elhage et al. (2022), section "Superposition in a Privileged Basis".
    """

    hidden: int
    activation: Activation = nn.relu
    initializer: Initializer = xavier

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " features"]:
        """The reconstruction of one feature vector."""
        weights, bias = _tied_parameters(self, self.hidden, features.size, self.initializer)
        hidden = Site(name="hidden")(self.activation(weights @ features))
        preactivation = Site(name="preactivation")(weights.T @ hidden + bias)
        return Site(name="output")(self.activation(preactivation))


class TwoLayer(nn.Module):
    r"""$h = f(W_1 x)$, $y = f(W_2 h + b)$ with $f$ = ReLU, untied: computes, say, $|x|$.

    No hidden bias. Sites: `hidden` $h$, `preactivation` $W_2 h + b$, `output` $y$.
    Parameters: `weights_in` $W_1$ (hidden x features), `weights_out` $W_2$ (features x
    hidden; both start at `initializer`), `bias` $b$ (start: 0).

    References:
        Elhage et al. (2022), section "Computation in Superposition".
    """

    hidden: int
    activation: Activation = nn.relu
    initializer: Initializer = xavier

    @nn.compact
    def __call__(self, features: Float[Array, " features"]) -> Float[Array, " features"]:
        """The outputs for one feature vector."""
        checks.count("hidden", self.hidden)
        shape = (self.hidden, features.size)
        weights_in = self.param("weights_in", self.initializer, shape)
        weights_out = self.param("weights_out", self.initializer, shape[::-1])
        bias = self.param("bias", nn.initializers.zeros, (features.size,))
        hidden = Site(name="hidden")(self.activation(weights_in @ features))
        preactivation = Site(name="preactivation")(weights_out @ hidden + bias)
        return Site(name="output")(self.activation(preactivation))


def activations(
    model: nn.Module, params: PyTree, features: Float[Array, " features"]
) -> dict[str, Array]:
    """The value at every site for one feature vector.

    Args:
        model: any Linen module of one example with `Site`s.
        params: its parameters, as in `Trained.params`.
        features: one example; `vmap` over a batch.

    Returns:
        Site name to value; a site inside a submodule is named `submodule/site`. Of a site that
        is called twice, the last value.
    """
    _, state = model.apply(
        {"params": params},
        features,
        capture_intermediates=lambda module, _: isinstance(module, Site),  # pyright: ignore
    )
    flat, _ = jax.tree_util.tree_flatten_with_path(state.get("intermediates", {}))
    # A path ends in Linen's '__call__' and the index of the call.
    return {"/".join(entry.key for entry in path[:-2]): value for path, value in flat}


def intervene(
    model: nn.Module,
    params: PyTree,
    features: Float[Array, " features"],
    patches: Mapping[str, Patch],
) -> Any:
    """The output for one feature vector with the values at some sites replaced.

    Patching a site with its own value changes no bit of the output. A patch may itself call
    a model, on another input, say: what it computes is not patched.

    Args:
        model: any Linen module of one example with `Site`s.
        params: its parameters.
        features: one example; `vmap` over a batch.
        patches: site name to a function from the site's value to the one put in its place.

    Raises:
        ValueError: a site that the model does not have.
    """
    sites = jax.eval_shape(lambda: activations(model, params, features))
    for name in patches:
        if name not in sites:
            raise InputError(f"no site {name!r} in this model: it has {', '.join(sorted(sites))}")

    patching = False

    def patched(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal patching
        value = call(*args, **kwargs)
        name = "/".join(context.module.path)
        if patching or not isinstance(context.module, Site) or name not in patches:
            return value
        patching = True
        try:
            replaced = patches[name](value)
        finally:
            patching = False
        if jnp.shape(replaced) != value.shape:
            raise InputError(
                f"the patch of site {name!r} gives shape {jnp.shape(replaced)}: it must keep "
                f"{value.shape}"
            )
        return replaced

    with nn.intercept_methods(patched):
        return model.apply({"params": params}, features)  # pyright: ignore


def _tied_parameters(
    module: nn.Module, hidden: int, num_features: int, initializer: Initializer
) -> tuple[Float[Array, "hidden features"], Float[Array, " features"]]:
    checks.count("hidden", hidden)
    weights = module.param("weights", initializer, (hidden, num_features))
    bias = module.param("bias", nn.initializers.zeros, (num_features,))
    return weights, bias
