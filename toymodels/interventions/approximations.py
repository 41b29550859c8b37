r"""Approximations of the effects of patching by gradients, which need no run for each part.

With $m(c)$ the metric of a run on the base example in which a part has the coordinates $c$, and
$c_0$, $c_1$ the coordinates on the base and on the source example, the effect of patching is

$$m(c_1) - m(c_0) = \int_0^1 (c_1 - c_0) \cdot \nabla m\bigl(c_0 + t (c_1 - c_0)\bigr)\,dt.$$

Attribution patching takes the gradient at $t = 0$ alone. Integrated gradients take a mean over
several $t$. Both are exact where the metric is linear between $c_0$ and $c_1$, which holds inside
one region of a ReLU network.

The arguments are those of `toymodels.interventions.effects`: the model runs on `base`, ONE example,
and the part is copied from the run on `source`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from toymodels import checks, sites
from toymodels.errors import InputError
from toymodels.interventions import edits
from toymodels.interventions.batches import Metric, with_gradient
from toymodels.interventions.parts import Part, check_part, whole


def attribution_patching(
    model: nn.Module, params: PyTree, base: PyTree, source: PyTree, part: Part, metric: Metric
) -> Float[Array, ""]:
    r"""Return $(c_1 - c_0) \cdot \nabla m(c_0)$, the first-order effect of patching a part.

    References:
        Nanda (2023), "Attribution Patching: Activation Patching at Industrial Scale".
    """
    start, step = _coordinates(model, params, base, source, part)
    return jnp.sum(step * jax.grad(_metric_at(model, params, base, part, metric))(start))


def integrated_patching(
    model: nn.Module,
    params: PyTree,
    base: PyTree,
    source: PyTree,
    part: Part,
    metric: Metric,
    *,
    num_steps: int,
) -> Float[Array, ""]:
    r"""Return the effect of patching a part by integrated gradients with the midpoint rule.

    The gradient is averaged over $t = (k + 1/2) / N$ for $k = 0, \dots, N - 1$, with $N$ =
    `num_steps`. Where a ReLU switches once between base and source, the error is at most that of
    one step of length $1/N$.

    References:
        Sundararajan et al. (2017), "Axiomatic Attribution for Deep Networks".
    """
    start, step = _coordinates(model, params, base, source, part)
    gradient = jax.grad(_metric_at(model, params, base, part, metric))
    gradients = jax.vmap(lambda t: gradient(start + t * step))(_midpoints(num_steps))
    return jnp.sum(step * jnp.mean(gradients, axis=0))


def edge_attribution(
    model: nn.Module,
    params: PyTree,
    base: PyTree,
    source: PyTree,
    sender: str,
    receiver: str,
    metric: Metric,
    *,
    num_steps: int = 0,
) -> Float[Array, "senders receivers"]:
    r"""Return a score for each edge from a unit of one site to a unit of another (EAP).

    The score of the edge from unit $s$ to unit $r$ is
    $(a_s' - a_s) \, \frac{\partial b_r}{\partial a_s} \, \frac{\partial m}{\partial b_r}$, with
    $a$ and $b$ the values at the two sites, all other sites frozen, and $a'$ the value on the
    source example. It approximates the effect of `path_patching` along that edge, and is exact
    if the model is linear.

    `sender` and `receiver` are the names of the sites where edges begin and end, which hold
    vectors. With `num_steps` the gradient of the metric is averaged over so many points of the
    sender's path from base to source (EAP-IG, midpoint rule); 0 takes it at the base alone (EAP).

    References:
        Syed et al. (2023), "Attribution Patching Outperforms Automated Circuit Discovery";
        Hanna et al. (2024), "Have Faith in Faithfulness".
    """
    if sender == receiver:
        raise InputError(f"sender and receiver are both {sender!r}: give the names of two sites")
    on_base = sites.activations(model, params, base)
    on_source = sites.activations(model, params, source)
    for site in (sender, receiver):
        if len(shape := jnp.shape(sites.value_at(on_base, site))) != 1:
            raise InputError(
                f"site {site!r} has shape {shape}: edges go between sites that hold vectors"
            )
    frozen = [
        edits.patch(whole(site), on_base) for site in on_base if site not in (sender, receiver)
    ]

    def received(value: Array) -> Array:
        edit = edits.set_to(whole(sender), value)
        return edits.activations(model, params, base, edit, *frozen)[receiver]

    def from_sender(value: Array) -> Array:
        """Return the value at the receiver if nothing but the sender is changed."""
        edit = edits.set_to(whole(sender), value)
        return edits.activations(model, params, base, edit)[receiver]

    slope = jax.grad(_metric_at(model, params, base, whole(receiver), metric))
    step = on_source[sender] - on_base[sender]
    if num_steps:
        path = jax.vmap(lambda t: slope(from_sender(on_base[sender] + t * step)))
        gradient = jnp.mean(path(_midpoints(num_steps)), axis=0)
    else:
        gradient = slope(on_base[receiver])
    jacobian = jax.jacobian(received)(on_base[sender])
    return step[:, None] * jacobian.T * gradient[None, :]


def _coordinates(
    model: nn.Module, params: PyTree, base: PyTree, source: PyTree, part: Part
) -> tuple[Array, Array]:
    """Return the coordinates on the base example, and their difference on the source example."""
    check_part("part", part)
    start, end = (
        part.read(sites.value_at(sites.activations(model, params, example), part.site))
        for example in (base, source)
    )
    return start, end - start


def _metric_at(model: nn.Module, params: PyTree, base: PyTree, part: Part, metric: Metric):
    """Return the metric of a run on the base example as a function of a part's coordinates."""
    metric = with_gradient(metric)

    def value(coordinates: Array) -> Array:
        return metric(edits.run(model, params, base, edits.set_to(part, coordinates)))

    return value


def _midpoints(num_steps: int) -> Float[Array, " steps"]:
    checks.count("num_steps", num_steps)
    return (jnp.arange(num_steps) + 0.5) / num_steps
