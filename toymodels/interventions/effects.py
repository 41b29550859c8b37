r"""Effects of interventions on ONE pair of examples: mediation, patching and paths.

Notation: $y(x)$ is a number computed from the output of a model on example $x$, the *metric*.
$M$ is a part of a site, the mediator, and $M(x)$ is its value on $x$. $y(x, M(x'))$ is the metric
of a run on $x$ in which the part has the value that it has on $x'$.

**Arguments.** All functions take `model`, any Linen module of ONE example with `Site`s; `params`,
its parameters; two examples, each of them ONE; a part or two; and `metric`, a function of the
output of the model that returns a number. Use `jax.vmap` for a batch of pairs.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from toymodels import sites
from toymodels.errors import InputError
from toymodels.interventions import edits
from toymodels.interventions.batches import Metric, number_from
from toymodels.interventions.parts import Part, check_part, whole


class Mediation(NamedTuple):
    r"""An effect of the input, split into the part through a mediator and the part beside it.

    The two decompositions are exact: `total` = `natural_direct` + `total_indirect`, and
    `total` = `total_direct` + `natural_indirect`.

    Attributes:
        total: $y(x', M(x')) - y(x, M(x))$.
        natural_direct: $y(x', M(x)) - y(x, M(x))$: the input changes and the mediator does not.
        natural_indirect: $y(x, M(x')) - y(x, M(x))$: only the mediator changes.
        total_direct: $y(x', M(x')) - y(x, M(x'))$: the input changes last.
        total_indirect: $y(x', M(x')) - y(x', M(x))$: the mediator changes last.

    References:
        Pearl (2001), "Direct and Indirect Effects"; Vig et al. (2020), "Investigating Gender Bias
        in Language Models Using Causal Mediation Analysis".
    """

    total: Float[Array, "*pairs"]
    natural_direct: Float[Array, "*pairs"]
    natural_indirect: Float[Array, "*pairs"]
    total_direct: Float[Array, "*pairs"]
    total_indirect: Float[Array, "*pairs"]


def mediation(
    model: nn.Module, params: PyTree, base: PyTree, source: PyTree, part: Part, metric: Metric
) -> Mediation:
    r"""Return the effect of changing the input from `base` to `source`, split at a mediator.

    `base` is $x$, `source` is $x'$, and `part` is the mediator $M$. If no path leads around the
    mediator, the direct effects are 0.
    """
    metric = number_from(metric)
    on_base = sites.activations(model, params, base)
    on_source = sites.activations(model, params, source)

    def value(example: PyTree, mediator: PyTree) -> Array:
        return metric(edits.run(model, params, example, edits.patch(part, mediator)))

    neither, both = value(base, on_base), value(source, on_source)
    input_alone, mediator_alone = value(source, on_base), value(base, on_source)
    return Mediation(
        total=both - neither,
        natural_direct=input_alone - neither,
        natural_indirect=mediator_alone - neither,
        total_direct=both - mediator_alone,
        total_indirect=both - input_alone,
    )


def controlled_direct(
    model: nn.Module,
    params: PyTree,
    base: PyTree,
    source: PyTree,
    part: Part,
    metric: Metric,
    *,
    coordinates: Any,
) -> Float[Array, ""]:
    r"""Return $y(x', M = c) - y(x, M = c)$, the direct effect at a fixed value of the mediator.

    `base` is $x$, `source` is $x'$, and `part` is the mediator $M$, which has the coordinates $c$
    in both runs.
    """
    fixed, metric = edits.set_to(part, coordinates), number_from(metric)
    return metric(edits.run(model, params, source, fixed)) - metric(
        edits.run(model, params, base, fixed)
    )


class Patching(NamedTuple):
    r"""The effects on a metric of copying a part between a clean and a corrupt run.

    With $c$ and $k$ the metrics of the clean and of the corrupt run, a patched run with metric $y$
    has the normalised effect $(y - k) / (c - k)$: 1 is clean, 0 is corrupt. It is NaN where
    $c = k$.

    Attributes:
        clean: $c$.
        corrupt: $k$.
        denoised: the metric of the corrupt run with the part from the clean run.
        noised: the metric of the clean run with the part from the corrupt run.
        sufficiency: the normalised effect of denoising: 1 if the part alone restores the metric.
        necessity: 1 less the normalised effect of noising: 1 if the metric is lost without it.
    """

    clean: Float[Array, "*pairs"]
    corrupt: Float[Array, "*pairs"]
    denoised: Float[Array, "*pairs"]
    noised: Float[Array, "*pairs"]
    sufficiency: Float[Array, "*pairs"]
    necessity: Float[Array, "*pairs"]


def patching(
    model: nn.Module, params: PyTree, clean: PyTree, corrupt: PyTree, part: Part, metric: Metric
) -> Patching:
    """Return the effects of copying a part between two runs (activation patching).

    The corrupt example is, for instance, the clean one with one feature changed.

    References:
        Heimersheim, Nanda (2024), "How to Use and Interpret Activation Patching".
    """
    metric = number_from(metric)
    on_clean = sites.activations(model, params, clean)
    on_corrupt = sites.activations(model, params, corrupt)
    high = metric(edits.run(model, params, clean))
    low = metric(edits.run(model, params, corrupt))
    denoised = metric(edits.run(model, params, corrupt, edits.patch(part, on_clean)))
    noised = metric(edits.run(model, params, clean, edits.patch(part, on_corrupt)))
    return Patching(
        clean=high,
        corrupt=low,
        denoised=denoised,
        noised=noised,
        sufficiency=normalised(denoised, clean=high, corrupt=low),
        necessity=1 - normalised(noised, clean=high, corrupt=low),
    )


def normalised(value: Any, *, clean: Any, corrupt: Any) -> Float[Array, "*pairs"]:
    """Return (value - corrupt) / (clean - corrupt), or NaN where the two runs do not differ."""
    differ = jnp.asarray(clean) != jnp.asarray(corrupt)
    return jnp.where(differ, (value - corrupt) / jnp.where(differ, clean - corrupt, 1.0), jnp.nan)


def path_patching(
    model: nn.Module,
    params: PyTree,
    base: PyTree,
    source: PyTree,
    sender: Part,
    receiver: Part,
) -> Any:
    """Return the output on `base` when one path alone carries information from `source`.

    First a run on `base` has the sender of `source`, while every other site but the receiver's is
    frozen at its value on `base`. The receiver then has a new value, and the output is that of a
    run on `base` with this value alone.

    Raises:
        ValueError: sender and receiver are parts of one site.

    References:
        Wang et al. (2022), "Interpretability in the Wild"; Goldowsky-Dill et al. (2023),
        "Localizing Model Behavior with Path Patching".
    """
    for name, part in (("sender", sender), ("receiver", receiver)):
        check_part(name, part)
    if sender.site == receiver.site:
        raise InputError(
            f"sender and receiver are both at site {sender.site!r}: give parts of two sites"
        )
    on_base = sites.activations(model, params, base)
    on_source = sites.activations(model, params, source)
    frozen = [
        edits.patch(whole(site), on_base)
        for site in on_base
        if site not in (sender.site, receiver.site)
    ]
    carried = edits.activations(model, params, base, edits.patch(sender, on_source), *frozen)
    return edits.run(model, params, base, edits.patch(receiver, carried))
