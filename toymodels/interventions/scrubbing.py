r"""Causal scrubbing: replace all that a hypothesis calls irrelevant, and see what is lost.

A hypothesis is a tree of nodes. Each node is a part of the model with a claim: the value of the
part depends on the input only through an interpretation of it. So the value may be replaced by
the value on any other input with an equal interpretation. The nodes below a node, its parents in
the model, are replaced in the same way, with independent draws for each use; all else in the model
runs on an independent random input.

**Loss recovered is blind.** If the features are independent, the hypothesis "output $i$ depends on
$x_i$ alone" recovers exactly 100 % in EVERY model, superposed or not, because the scrubbed output
has the joint distribution with $x_i$ of the real one. With correlated features it may exceed
100 %. The *distance* between the output and the scrubbed output sees interference: under this
hypothesis it is $2 \sum_i E\,\mathrm{Var}(y_i \mid x_i)$.

References:
    Chan et al. (2022), "Causal Scrubbing: a Method for Rigorously Testing Interpretability
    Hypotheses".
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from toymodels import checks, sites
from toymodels.errors import InputError
from toymodels.features.base import Features
from toymodels.interventions import batches, edits
from toymodels.interventions.parts import Part

_AT_ONCE = 1024
"""The number of examples that are scrubbed at a time.

Each node needs a run of the model of its own for every example: 65,536 examples of 20 features and
a node for each output took 14 GB at once.
"""

Resample: TypeAlias = Callable[[Key[Array, ""], Any], Any]
"""A function of a key and ONE example that draws another one with an equal interpretation."""


class Node(NamedTuple):
    """A part of the model, and what the hypothesis says that it depends on.

    Attributes:
        part: the part of the model.
        resample: a function of a key and ONE example that draws an example with an equal
            interpretation; see `keeping` and `matching`.
        parents: the nodes below it, from which the model computes it. Without any, the part has
            its value on the example that was drawn.
    """

    part: Part
    resample: Resample
    parents: tuple["Node", ...] = ()


class Scrubbing(NamedTuple):
    r"""The effects of scrubbing on a model, as means over a batch.

    Attributes:
        loss: the loss $L$ of the model.
        scrubbed: the loss $L_s$ of the scrubbed outputs.
        random: the loss $L_r$ of outputs for independent random inputs.
        recovered: $(L_s - L_r) / (L - L_r)$, the loss recovered, which is blind to interference.
        distance: $E \sum_i (y_i - y_i^s)^2$ between output and scrubbed output, which sees
            interference.
    """

    loss: Float[Array, ""]
    scrubbed: Float[Array, ""]
    random: Float[Array, ""]
    recovered: Float[Array, ""]
    distance: Float[Array, ""]


def keeping(features: Features, indices: Sequence[int | Int[Array, ""]]) -> Resample:
    """Return the draw of an example of INDEPENDENT features that keeps some of them.

    Args:
        features: the distribution, whose features must be independent.
        indices: the indices of the features that the interpretation consists of.
    """
    number = features.num_features
    if not jnp.iterable(indices):
        raise InputError(f"indices is {indices}: give a list, [{indices}]")

    def check(index: Any) -> None:
        if not jnp.issubdtype(jnp.asarray(index).dtype, jnp.integer) or not 0 <= index < number:
            raise InputError(
                f"index {index} is no feature: give whole numbers from 0 to {number - 1}"
            )

    for index in indices:
        checks.when_known(check, index)
    kept = jnp.asarray([*indices], int).reshape(-1)

    def resample(key: Key[Array, ""], example: Array) -> Array:
        fresh = features.sample(key, 1)[0]
        return fresh.at[kept].set(example[kept])

    return resample


def matching(examples: Any, interpretation: Callable[[Any], Any]) -> Resample:
    """Return the draw of an example of a data set with an equal, discrete interpretation.

    Args:
        examples: the data set, along a leading axis. An example for which it holds no equal one
            is returned as it is.
        interpretation: a function of ONE example that returns whole numbers or truth values.
    """
    number = batches.length(examples=examples)
    values = jax.vmap(interpretation)(examples)
    if not isinstance(values, jax.Array):
        raise InputError(
            f"the interpretation returns a {type(values).__name__}: give one array, jnp.stack(...)"
        )
    checks.when_known(_check_discrete, values, elementwise=True)

    def resample(key: Key[Array, ""], example: Any) -> Any:
        own = interpretation(example)
        equal = (values == own).reshape(number, -1).all(axis=1)
        place = jax.random.categorical(key, jnp.where(equal, 0.0, -jnp.inf))
        found = jnp.any(equal)
        return jax.tree.map(
            lambda leaf, same: jnp.where(found, leaf[place], same), examples, example
        )

    return resample


def _check_discrete(values: Any) -> None:
    """Raise `InputError` for fractions, which no two examples share."""
    numbers = np.asarray(values, float).ravel()
    fractions = numbers[numbers != np.round(numbers)]
    if fractions.size:
        raise InputError(
            f"the interpretation of an example is {fractions[0]:g}, which others hardly share: "
            "return whole numbers or truth values, such as x[0] > 0.5"
        )


def scrubbed_output(
    key: Key[Array, ""],
    model: nn.Module,
    params: PyTree,
    example: PyTree,
    nodes: Sequence[Node],
    features: Features,
) -> Any:
    """Return the output for ONE example after scrubbing.

    Args:
        key: decides the draws.
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        example: ONE example.
        nodes: the parts from which the output is computed; they should cover it, because the rest
            is that of a random input.
        features: the distribution of the inputs.
    """
    if not nodes:
        raise InputError("the hypothesis has no node: give those from which the output is computed")
    if isinstance(nodes, Node) or not all(isinstance(node, Node) for node in nodes):  # pyright: ignore
        raise InputError("nodes is not a list of nodes: give [interventions.Node(part, resample)]")
    made, base = _scrubbed_edits(key, model, params, example, tuple(nodes), features)
    return edits.run(model, params, base, *made)


def scrub(
    key: Key[Array, ""],
    model: nn.Module,
    params: PyTree,
    examples: PyTree,
    nodes: Sequence[Node],
    features: Features,
    loss: Callable[[Any, Any], Array],
) -> Scrubbing:
    """Return what scrubbing does to the loss and to the outputs, as means over a batch.

    Args:
        key: decides the draws.
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        examples: a batch of examples along the leading axis.
        nodes: the hypothesis.
        features: the distribution of the inputs.
        loss: a function of ONE example and the output for it, such as `task.loss`.
    """
    number = batches.length(examples=examples)
    checks.function("loss", loss, remedy="give a function of ONE example and its output")

    def one(key: Key[Array, ""], example: PyTree) -> tuple[Array, ...]:
        key_scrub, key_random = jax.random.split(key)
        output = edits.run(model, params, example)
        scrubbed = scrubbed_output(key_scrub, model, params, example, nodes, features)
        other = edits.run(model, params, _draw(key_random, features))
        distance = jnp.sum((output - scrubbed) ** 2)
        return loss(example, output), loss(example, scrubbed), loss(example, other), distance

    keys = jax.random.split(key, number)
    found = lax.map(lambda each: one(*each), (keys, examples), batch_size=_AT_ONCE)
    plain, scrubbed, random, distance = map(jnp.mean, found)
    return Scrubbing(
        loss=plain,
        scrubbed=scrubbed,
        random=random,
        recovered=(scrubbed - random) / (plain - random),
        distance=distance,
    )


def _scrubbed_edits(
    key: Key[Array, ""],
    model: nn.Module,
    params: PyTree,
    example: PyTree,
    nodes: tuple[Node, ...],
    features: Features,
) -> tuple[list[edits.Edit], PyTree]:
    """Return the edits that put scrubbed values into the nodes, and a random input for the rest."""
    key_base, *keys = jax.random.split(key, len(nodes) + 1)
    made = [
        edits.set_to(node.part, _scrubbed_part(key, model, params, example, node, features))
        for key, node in zip(keys, nodes, strict=True)
    ]
    return made, _draw(key_base, features)


def _scrubbed_part(
    key: Key[Array, ""],
    model: nn.Module,
    params: PyTree,
    example: PyTree,
    node: Node,
    features: Features,
) -> Array:
    """Return the coordinates of a node on an example with an equal interpretation, scrubbed."""
    key_own, key_parents = jax.random.split(key)
    drawn = node.resample(key_own, example)
    if not node.parents:
        values = sites.activations(model, params, drawn)
        return node.part.read(sites.value_at(values, node.part.site))
    made, base = _scrubbed_edits(key_parents, model, params, drawn, node.parents, features)
    return node.part.read(
        sites.value_at(edits.activations(model, params, base, *made), node.part.site)
    )


def _draw(key: Key[Array, ""], features: Features) -> Any:
    if not isinstance(features, Features):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"features is of type {type(features).__name__}: give a distribution of inputs, such "
            "as task.features"
        )
    return jax.tree.map(lambda leaf: leaf[0], features.sample(key, 1))
