r"""The local learning coefficient: how the volume of low loss around a minimum scales.

Near a minimum $w^*$ of a loss $L$ the volume where $L - L(w^*) < \epsilon$ goes as
$\epsilon^\lambda$. The exponent $\lambda$ is half the number of parameters if and only if the
Hessian is regular. Flat and quartic directions make it smaller.

References:
    Lau, Furman, Wang, Murfet and Wei (2023), "The Local Learning Coefficient: A
    Singularity-Aware Complexity Measure".
    Watanabe (2013), "A Widely Applicable Bayesian Information Criterion".
    Neal (2011), "MCMC using Hamiltonian Dynamics", for the sampler.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from toymodels import checks
from toymodels.analysis import inputs, sampling
from toymodels.engine import sums
from toymodels.errors import InputError

__all__ = ["Estimate", "learning_coefficient"]

_TARGET_ACCEPTANCE = 0.8  # Neal (2011) and our trials find the best sampling near it


class Estimate(NamedTuple):
    r"""A local learning coefficient, and whether to believe it.

    Attributes:
        coefficient: $\hat\lambda$.
        standard_error: the standard error of `coefficient`, from the spread of the independent
            chains.
        acceptance: the mean probability that a kept trajectory was accepted. It is about 0.8 if the
            tuning of the step size succeeded.
        lowest: the lowest $L(w) - L(w^*)$ that any chain met. If $n\beta$ times this number is
            below about -1/2, the chains found lower losses nearby: $w^*$ is no local minimum, and
            $\hat\lambda$ means nothing.
    """

    coefficient: Float[Array, ""]
    standard_error: Float[Array, ""]
    acceptance: Float[Array, ""]
    lowest: Float[Array, ""]


def learning_coefficient(
    key: Key[Array, ""],
    loss: Callable[[Any], Array],
    params: PyTree,
    *,
    inverse_temperature: Float[Array, ""] | float,
    localization: Float[Array, ""] | float,
    chains: int,
    warmup: int,
    steps: int,
    leapfrog: int,
) -> Estimate:
    r"""Estimate the local learning coefficient of a loss at a minimum.

    $$\hat\lambda = n\beta \left( E[L(w)] - L(w^*) \right), \quad
      w \sim \exp\left(-n\beta L(w) - \tfrac\gamma2 \lVert w - w^* \rVert^2\right),$$

    by Hamiltonian Monte Carlo. Every trajectory is accepted or refused by its error in energy, so,
    unlike with stochastic gradient Langevin dynamics, the step size leaves no bias. The step size
    is tuned during the warm-up, for all chains together. The loss must not change from call to
    call: take the loss of a whole data set, or the exact expected loss.

    **Bias.** At finite $n\beta$ the estimate is the slope of the localised free energy in
    $\log n\beta$, and $\lambda$ is the limit of this slope. A direction of curvature $h$ counts
    $\tfrac12\, n\beta h / (n\beta h + \gamma)$ instead of 1/2. So a $\gamma$ that is too
    large makes the estimate too low, and with one that is too small, chains reach other minima.
    Where singular directions cross, as in $w_1^2 w_2^2$, the estimate is too low by about
    $1/\log(n\beta/\gamma)$. Repeat it at ten times the inverse temperature.

    **A trained model is not quite a minimum**: $\hat\lambda$ falls by $n\beta (L(w^*) - \min L)$,
    which at $n\beta = 10^6$ is 30 for an excess of 3e-5. Descend first, with
    `toymodels.theory.minimise`.

    Good numbers to begin with are an inverse temperature of 1e5, a localization of 1, and 4 chains
    with 300 trajectories of warm-up and 500 that count, of 16 steps each. For a few features this
    takes about ten seconds, most of them to compile.

    Args:
        key: decides the chains.
        loss: a function of the parameters that returns one number, smooth almost everywhere.
        params: $w^*$, any pytree of floats. Losses are compared in their precision: with float32
            keep $n\beta L(w^*)$ below 1e5, or work inside `with jax.enable_x64(True)`.
        inverse_temperature: $n\beta > 0$. For a loss that is the mean negative log likelihood of a
            data set of $n$ examples, take $n / \log n$, with the size of the whole data set.
        localization: $\gamma > 0$.
        chains: the number of chains, at least 2; all begin at $w^*$.
        warmup: the number of trajectories with which each chain tunes the step size and forgets its
            start; give hundreds.
        steps: the number of trajectories of each chain that count.
        leapfrog: the number of steps of a trajectory, with one gradient each. The step size suits
            the steepest direction; longer trajectories explore the shallow ones.

    Returns:
        The estimate, in the dtype of `params`. It is NaN if `params` are traced and the loss is not
        finite there. The function is not compiled: wrap the call in `toymodels.jit`.

    Raises:
        ValueError: numbers out of range, parameters that are not floats, a loss that is not one
            number, or a loss or a gradient that is not finite at `params`.
    """
    remedy = "it scales the loss, or the distance, in the exponent"
    for name, value in (
        ("inverse temperature", inverse_temperature),
        ("localization", localization),
    ):
        checks.interval(name, value, low=0, open_low=True, remedy=remedy)
    checks.count("chains", chains, minimum=2)
    for name, value in (("warmup", warmup), ("steps", steps), ("leapfrog", leapfrog)):
        checks.count(name, value)
    center, unravel = ravel_pytree(params)
    if not jnp.issubdtype(center.dtype, jnp.floating) or not center.size:
        raise InputError(f"params are {center.size} numbers of {center.dtype}: give floats")

    def loss_at(point: Float[Array, " parameters"]) -> Float[Array, ""]:
        value = loss(unravel(point))
        if value.shape:
            raise InputError(f"the loss has shape {value.shape}: give one number, such as its mean")
        return value

    loss_at_center, slope = jax.value_and_grad(loss_at)(center)
    _check_finite(loss_at_center, slope)

    def energy(point: Float[Array, " parameters"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        excess = loss_at(point) - loss_at_center
        squared_distance = jnp.sum((point - center) ** 2)
        return inverse_temperature * excess + localization * squared_distance / 2, excess

    zero = jnp.zeros((), center.dtype)
    first = sampling.Chain(center, inverse_temperature * slope, zero, zero)
    begin = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (chains, *leaf.shape)), first)
    # The localization allows steps of this size and no longer ones. If the loss is steeper, the
    # chains refuse all steps until the tuning has made them short enough.
    size = jnp.asarray(localization, center.dtype) ** -0.5
    visited = _sample(key, energy, begin, size, warmup=warmup, steps=steps, leapfrog=leapfrog)
    coefficients = inverse_temperature * visited.total.sum(0) / steps
    estimate = Estimate(
        coefficient=coefficients.mean(),
        standard_error=coefficients.std(ddof=1) / chains**0.5,
        acceptance=visited.accepted / steps,
        lowest=visited.lowest,
    )
    # Chains that begin where the loss is NaN refuse every step, which looks like a flat loss.
    return Estimate(*(inputs.unless_missing(part, loss_at_center, slope) for part in estimate))


class _Visited(NamedTuple):
    """The record of all chains.

    Attributes:
        total: the sum of the excess loss over the trajectories that count, in parts; see
            `toymodels.engine.sums`.
        accepted: the sum of the probabilities of acceptance, averaged over the chains.
        lowest: the lowest excess loss of any chain.
    """

    total: Float[Array, "sums chains"]
    accepted: Float[Array, ""]
    lowest: Float[Array, ""]


def _sample(
    key: Key[Array, ""],
    energy: sampling.Energy,
    begin: sampling.Chain,
    size: Float[Array, ""],
    *,
    warmup: int,
    steps: int,
    leapfrog: int,
) -> _Visited:
    """Run all chains side by side, tuning one step size for all of them during the warm-up."""
    zero = jnp.zeros((), size.dtype)

    def step(carry: Any, number: Array) -> tuple[Any, None]:
        chain, size, (total, accepted, lowest) = carry

        def draw_step_size(key: Key[Array, ""]) -> Float[Array, ""]:
            return size * jax.random.uniform(key, (), size.dtype, 0.5, 1.5)

        def move(key: Key[Array, ""], chain: sampling.Chain) -> tuple[sampling.Chain, Array]:
            return sampling.hamiltonian_step(
                key, energy, chain, draw_step_size=draw_step_size, leapfrog=leapfrog
            )

        keys = jax.random.split(jax.random.fold_in(key, number), len(chain.energy))
        chain, chances = jax.vmap(move)(keys, chain)
        tuning = number < warmup
        # Robbins and Monro: the gains shrink, but their sum has no limit, so any size is reached.
        gain = jnp.where(tuning, (number + 1.0).astype(size.dtype) ** -0.5, 0.0)
        size = size * jnp.exp(gain * (chances.mean() - _TARGET_ACCEPTANCE))
        kept = jnp.where(tuning, zero, 1.0)
        visited = _Visited(
            sums.add(total, kept * chain.extra, number),
            accepted + kept * chances.mean(),
            jnp.minimum(lowest, chain.extra.min()),
        )
        return (chain, size, visited), None

    nothing = _Visited(sums.empty(begin.extra, warmup + steps), zero, zero)
    (_, _, visited), _ = lax.scan(step, (begin, size, nothing), jnp.arange(warmup + steps))
    return visited


def _check_finite(loss: Array, slope: Array) -> None:
    """Refuse a loss or a gradient that is not finite, unless they are traced."""
    if isinstance(loss, Tracer):
        return
    for name, value in (("loss", loss), ("gradient of the loss", slope)):
        if not jnp.isfinite(value).all():
            raise InputError(
                f"the {name} at params is not finite: give the parameters of a minimum"
            )
