r"""Interchange interventions: does a part of a model hold a variable of a high-level causal model?

A high-level causal model is a small pure function that says which output a model should give on a
base example when one of its variables has the value of a source example. The part holds the
variable if the model, with the part copied from the source example, gives that output.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from toymodels import checks, sites
from toymodels.errors import InputError
from toymodels.interventions import batches, edits
from toymodels.interventions.parts import Part
from toymodels.training.train import fit


class Interchange(NamedTuple):
    """The share of interchanges that have the effect which a high-level model predicts.

    Attributes:
        all_pairs: the share of all pairs of examples with the predicted label. A pair whose label
            should not change is often right by accident.
        changing_pairs: the share among the pairs whose label should change; NaN without any.
            Both shares are NaN if an output is NaN, because a label hides it.
        num_changing: the number of pairs whose label should change.
    """

    all_pairs: Float[Array, ""]
    changing_pairs: Float[Array, ""]
    num_changing: Int[Array, ""]


def interchange(model: nn.Module, params: PyTree, base: PyTree, source: PyTree, part: Part) -> Any:
    """Return the output on a base example with a part copied from a source example."""
    return edits.run(
        model, params, base, edits.patch(part, sites.activations(model, params, source))
    )


def interchange_accuracy(
    model: nn.Module,
    params: PyTree,
    bases: PyTree,
    sources: PyTree,
    part: Part,
    predicted: Callable[[Any, Any], Array],
    label: Callable[[Any], Array],
) -> Interchange:
    """Return how often an interchange has the label that a high-level model predicts (IIA).

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        bases: a batch of base examples along the leading axis.
        sources: a batch of source examples, one for each base.
        part: the part that is interchanged.
        predicted: the high-level model: a function of ONE base and ONE source example that
            returns the label when the variable has the value of the source.
        label: a function of the output of the model that returns its label.

    References:
        Geiger et al. (2021), "Causal Abstractions of Neural Networks".
    """

    def pair(base: PyTree, source: PyTree) -> tuple[Array, Array, Array]:
        wanted = jnp.asarray(predicted(base, source))
        output = interchange(model, params, base, source, part)
        found = jnp.asarray(label(output))
        if found.shape != wanted.shape:
            raise InputError(
                f"label returns shape {found.shape} and predicted {wanted.shape}: give functions "
                "that return labels of one shape"
            )
        right = jnp.all(found == wanted)
        broken = jnp.stack([jnp.any(jnp.isnan(leaf)) for leaf in jax.tree.leaves(output)])
        return right, jnp.any(predicted(base, base) != wanted), jnp.any(broken)

    batches.length(bases=bases, sources=sources)
    right, changing, broken = jax.vmap(pair)(bases, sources)
    number, broken = jnp.sum(changing), jnp.any(broken)
    share = jnp.sum(right & changing) / jnp.maximum(number, 1)
    return Interchange(
        all_pairs=jnp.where(broken, jnp.nan, jnp.mean(right)),
        changing_pairs=jnp.where(broken | (number == 0), jnp.nan, share),
        num_changing=number,
    )


def align(
    key: Key[Array, ""],
    model: nn.Module,
    params: PyTree,
    sample: Callable[[Key[Array, ""], int], tuple[PyTree, PyTree]],
    loss: Callable[[Any, Any, Any], Array],
    *,
    site: str,
    size: int,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
    penalty: Float[Array, ""] | float | None = None,
) -> Part:
    r"""Find the subspace of a site whose interchange has the wanted effect (DAS).

    The subspace is the span of the orthonormal columns of $Q$ in $A = Q R$, and $A$ (dimensions x
    size, at the start normal) is trained. A subspace that is found need not be used by the model:
    see `read_write_overlap`.

    With a penalty $\lambda$ the search also learns the number of dimensions. Column $k$ has a gate
    $g_k \in (0, 1)$, the interchange is $h + Q\,\mathrm{diag}(g)\,Q^\top (h_s - h)$ with the value
    $h_s$ of the source, and $\lambda \sum_k g_k$ is added to the loss. In the end a gate above 1/2
    is open, and the column of any other gate is set to 0.

    Args:
        key: decides the start and the pairs.
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model, which stay as they are.
        sample: a function of a key and a batch size that returns base and source examples.
        loss: a function of the output after the interchange, ONE base and ONE source example
            that is small if the output is the one that the high-level model predicts.
        site: the name of the site, which holds a vector.
        size: the number of dimensions of the subspace; with a penalty, the largest number.
        optimizer: an Optax transformation.
        steps: the number of updates.
        batch: the number of pairs of each update.
        penalty: the price $\lambda \ge 0$ of a dimension, in units of the loss. A tenth of what
            the loss falls by is enough for gates to close within some hundred updates. By default
            the subspace has `size` dimensions.

    Returns:
        The subspace. Its number of dimensions is `jnp.sum(part.basis**2)`.

    References:
        Geiger et al. (2023), "Finding Alignments Between Interpretable Causal Variables and
        Distributed Neural Representations".
        Wu et al. (2023), "Interpretability at Scale: Identifying Causal Mechanisms in Alpaca", for
        a search that learns the number of dimensions.
    """
    checks.count("size", size)
    if penalty is not None:
        checks.interval("penalty", penalty, low=0, remedy="it is the price of a dimension")
    key_start, key_data = jax.random.split(key)
    shapes = jax.eval_shape(lambda: sample(key, 1))
    if not isinstance(shapes, tuple | list) or len(shapes) != 2:
        raise InputError(
            f"sample returns a {type(shapes).__name__}: give a function of a key and a batch size "
            "that returns base and source examples, two batches"
        )
    base = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), shapes[0])
    values = jax.eval_shape(lambda: sites.activations(model, params, base))
    if len(sites.value_at(values, site).shape) != 1 or size > values[site].shape[0]:
        raise InputError(
            f"site {site!r} has shape {values[site].shape}: choose one that holds a vector of at "
            f"least {size} numbers"
        )

    def part(matrix: Array, gates: Array) -> Part:
        return Part(site, (), jnp.linalg.qr(matrix)[0] * gates[None, :])

    def mean_loss(found: tuple[Array, Array], pair: tuple[PyTree, PyTree]) -> Array:
        matrix, logits = found
        base, source = pair
        # The roots of the gates on both sides of the projection make it Q diag(g) Q^T.
        gates = jnp.ones(size) if penalty is None else jnp.exp(jax.nn.log_sigmoid(logits) / 2)
        changed = interchange(model, params, base, source, part(matrix, gates))
        price = 0.0 if penalty is None else penalty * jnp.sum(gates**2)
        return loss(changed, base, source) + price

    start = (jax.random.normal(key_start, (values[site].shape[0], size)), jnp.full(size, 2.0))
    fitted = fit(key_data, start, mean_loss, sample, optimizer=optimizer, steps=steps, batch=batch)
    matrix, logits = fitted.params
    return part(matrix, jnp.ones(size) if penalty is None else jnp.where(logits > 0, 1.0, 0.0))


def read_write_overlap(
    model: nn.Module,
    params: PyTree,
    bases: PyTree,
    sources: PyTree,
    part: Part,
    metric: Callable[[Any], Array],
) -> Float[Array, ""]:
    r"""Return whether a direction acts through the units from which it is read, in $[0, 1]$.

    Copying the direction $v$ reads $\sum_u v_u \Delta h_u$ from the units $u$ of the site and
    writes to the metric $m$ through $\sum_u v_u \partial m / \partial h_u$. With the shares
    $r_u \propto \overline{|v_u \Delta h_u|}$ and $w_u \propto \overline{|v_u \partial m / \partial
    h_u|}$, means over the pairs, the overlap is $\sum_u \min(r_u, w_u)$.

    It is 1 for a unit. It is 0 for the illusion of Makelov et al.: a direction that is read from
    units which the output ignores, and acts through units which are silent on the data. Such a
    direction has an effect when it is patched, although the model never uses it. The overlap
    depends on the basis of the units, so it is a warning and not a proof.

    Args:
        model: any Linen module of ONE example with `Site`s.
        params: the parameters of the model.
        bases: a batch of base examples along the leading axis.
        sources: a batch of source examples, one for each base.
        part: a direction of a site that holds a vector.
        metric: a function of the output that returns a number.

    References:
        Makelov, Lange, Nanda (2023), "Is This the Subspace You Are Looking For?".
    """
    if part.basis is None or part.index or part.basis.shape[-1] != 1:
        raise InputError("the part is not a direction: give interventions.direction(site, vector)")
    vector, metric = jnp.asarray(part.basis)[:, 0], batches.with_gradient(metric)
    batches.length(bases=bases, sources=sources)

    def pair(base: PyTree, source: PyTree) -> tuple[Array, Array]:
        value, other = (
            sites.value_at(sites.activations(model, params, example), part.site)
            for example in (base, source)
        )
        change = other - value

        def at(hidden: Array) -> Array:
            return metric(edits.run(model, params, base, edits.Edit(part.site, lambda _: hidden)))

        return jnp.abs(vector * change), jnp.abs(vector * jax.grad(at)(value))

    read, written = (jnp.mean(each, axis=0) for each in jax.vmap(pair)(bases, sources))
    return jnp.sum(jnp.minimum(_shares(read), _shares(written)))


def _shares(values: Float[Array, " units"]) -> Float[Array, " units"]:
    total = jnp.sum(values)
    return values / jnp.where(total == 0, 1.0, total)
