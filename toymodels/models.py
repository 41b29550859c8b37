"""The toy models, Linen modules on ONE example, and access to their activations.

`weights` is hidden x features, as in the paper's equations: column $i$ is the direction
$W_i$ of feature $i$. The number of features comes from the input.

Each model passes its intermediate values through a named `Site`, an identity, where they can
be read (`activations`) and replaced (`intervene`).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors
from jaxtyping import Array, Float, Key, PyTree

from toymodels import checks
from toymodels.errors import InputError

Activation: TypeAlias = Callable[[Array], Array]
Initializer: TypeAlias = Callable[..., Array]
Patch: TypeAlias = Callable[[Any], Any]

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
    def __call__(self, value: PyTree) -> PyTree:
        """The value, as it is: an array, or a pytree of arrays."""
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
        """The reconstruction of one feature vector."""
        weights, bias = _tied_parameters(self, self.hidden, features.size, self.initializer)
        hidden = Site(name="hidden")(weights @ features)
        preactivation = Site(name="preactivation")(weights.T @ hidden + bias)
        return Site(name="output")(self.activation(preactivation))


class ReLUHidden(nn.Module):
    r"""$h = f(W x)$, $y = f(W^\top h + b)$ with $f$ = ReLU: neurons, a privileged basis.

    No hidden bias: the model would use it to undo the nonlinearity. Another $f$ is
    `activation`. Sites: `hidden` $h$, `preactivation` $W^\top h + b$, `output` $y$.
    Parameters: `weights` $W$ (start: `initializer`), `bias` $b$ (start: 0).

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


@contextlib.contextmanager
def explained(model: nn.Module, params: PyTree, example: PyTree) -> Generator[None]:
    """Errors of Flax in `model.apply({"params": params}, example)` as one line with the remedy."""
    try:
        yield
    except errors.FlaxError as error:
        reason = _reason(error, model, params, example)
        if reason is None:
            raise
        raise InputError(reason) from error


def _reason(
    error: errors.FlaxError, model: nn.Module, params: PyTree, example: PyTree
) -> str | None:
    """Why the model cannot be applied, as a user can mend it; None if that is not known."""
    if isinstance(error, errors.InvalidRngError):
        return (
            "the model draws random numbers, as dropout does: switch that off "
            "(deterministic=True), for a model is a function of parameters and ONE example; or "
            "hand `fit` examples that hold a key each"
        )
    try:
        expected = jax.eval_shape(model.init, jax.random.key(0), example)
    except (TypeError, ValueError):
        return (
            f"the model cannot take an input of shape {_shape(example)}: give ONE example, and "
            "use jax.vmap for a batch"
        )
    if state := sorted(expected.keys() - {"params"}):
        return (
            f"the model keeps state beside its parameters ({', '.join(state)}), as batch "
            "normalisation does: take that out, for a model is a function of parameters and ONE "
            "example"
        )
    own, needed = (_shapes(tree) for tree in (params, expected.get("params", {})))
    if own.keys() != needed.keys():
        return (
            f"params has {', '.join(own) or 'no parameters'}, but the model needs "
            f"{', '.join(needed)}: give parameters of this model, as `train` leaves them"
        )
    for name, shape in needed.items():
        if own[name] != shape and own[name] == shape[::-1]:
            return (
                f"parameter {name!r} has shape {own[name]}, but the model needs {shape}: "
                "transpose it"
            )
        if own[name] != shape:
            return (
                f"parameter {name!r} has shape {own[name]}, but for an input of shape "
                f"{_shape(example)} the model needs {shape}: give ONE example, and use jax.vmap "
                "for a batch"
            )
    return None


def _shapes(params: PyTree) -> dict[str, tuple[int, ...]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(leaf)
        for path, leaf in flat
    }


def _shape(example: PyTree) -> Any:
    """The shape of an array, or a pytree of shapes."""
    return jax.tree.map(jnp.shape, example)


def activations(model: nn.Module, params: PyTree, features: PyTree) -> dict[str, Any]:
    """The value at every site for one example.

    Args:
        model: any Linen module of one example with `Site`s.
        params: its parameters, as in `Trained.params`.
        features: ONE example; `vmap` over a batch.

    Returns:
        Site name to value; a site inside a submodule is named `submodule/site`. Of a site that
        is called twice, the last value.

    Raises:
        ValueError: a site inside `nn.vmap` or `nn.scan` that does not hand its value out.
    """
    values, called = _sites(model, params, features)
    if missing := sorted(called - values.keys()):
        raise InputError(
            f"site {missing[0]!r} is inside a transformed module that keeps its values to itself: "
            "give nn.vmap or nn.scan variable_axes={..., 'intermediates': 0}"
        )
    return values


def _sites(model: nn.Module, params: PyTree, example: PyTree) -> tuple[dict[str, Any], set[str]]:
    """Values of the sites, and the names of all sites that were called."""
    called: set[str] = set()

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, Site):
            called.add("/".join(context.module.path))
        return call(*args, **kwargs)

    with nn.intercept_methods(note), explained(model, params, example):
        _, state = model.apply(
            {"params": params},
            example,
            capture_intermediates=lambda module, _: isinstance(module, Site),  # pyright: ignore
        )
    return dict(_values(state.get("intermediates") or {}, ())), called


def _values(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Name and last value of each site in what Flax captured: a tuple of calls."""
    for name, branch in tree.items():
        if name == "__call__":
            yield "/".join(path), branch[-1]
        else:
            yield from _values(branch, (*path, name))


def intervene(
    model: nn.Module, params: PyTree, features: PyTree, patches: Mapping[str, Patch]
) -> Any:
    """The output for one example with the values at some sites replaced.

    Patching a site with its own value changes no bit of the output. A patch may itself call
    a model, on another input, say: what it computes is not patched.

    Args:
        model: any Linen module of one example with `Site`s.
        params: its parameters.
        features: ONE example; `vmap` over a batch.
        patches: site name to a function from the site's value to the one put in its place, of
            the same shape, or a pytree of the same shapes.

    Raises:
        ValueError: a site that the model does not have.
    """
    for name, patch in patches.items():
        if not callable(patch):  # pyright: ignore[reportUnnecessaryComparison]
            raise InputError(
                f"the patch of site {name!r} is of type {type(patch).__name__}: give a function of "
                "the site's value, such as lambda value: 0 * value"
            )
    sites: set[str] = set()
    jax.eval_shape(lambda: sites.update(_sites(model, params, features)[1]))
    for name in patches:
        if name not in sites:
            raise InputError(
                f"no site {name!r} in this model: it has {', '.join(sorted(sites)) or 'none'}"
            )

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
        if _shape(replaced) != _shape(value):
            raise InputError(
                f"the patch of site {name!r} gives shape {_shape(replaced)}: it must keep "
                f"{_shape(value)}"
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
