r"""Sparse autoencoders: one activation vector as a sparse sum of learned directions.

Linen modules on ONE activation $h$, all of the form

$$\pi = W_e (h - b_d) + b_e, \qquad z = \text{sparse}(\pi) \ge 0, \qquad \hat h = D z + b_d,$$

with the *latents* $z$ and the *dictionary* $D$ (hidden x latents), whose columns are those of the
parameter `decoder` at length 1: latents are lengths along unit directions, so that no penalty
can be escaped by long columns, and no constraint is needed. Losses are SUMMED over hidden
dimensions and latents and averaged over examples.

Parameters: `encoder` $W_e$ (latents x hidden; start: the transpose of the decoder),
`encoder_bias` $b_e$ (start: 0), `decoder` (start: random directions of length 1), `decoder_bias`
$b_d$ (start: 0), and what an architecture adds. Sites, for `activations` and `intervene`:
`preactivation` $\pi$, `latents` $z$, `output` $\hat h$.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from toymodels import checks, keys
from toymodels.errors import InputError
from toymodels.features import Features
from toymodels.models import Site
from toymodels.training import Fitted, fit

THRESHOLD_GROUPS = 32
"""Groups over which the threshold of a `BatchTopKAutoencoder` is averaged."""

Number = Float[Array, ""] | float | int
Parameters = Mapping[str, Array]


class Decomposition(NamedTuple):
    r"""An activation as a sparse sum.

    Attributes:
        latents: $z \ge 0$.
        reconstruction: $\hat h$.
    """

    latents: Float[Array, "*examples latents"]
    reconstruction: Float[Array, "*examples hidden"]


class ReLUAutoencoder(nn.Module):
    r"""$z = \mathrm{ReLU}(\pi)$ with the loss $\lVert h - \hat h\rVert^2 + \lambda \sum_i z_i$.

    References:
        Bricken et al. (2023), "Towards Monosemanticity"; Cunningham et al. (2023).
    """

    latents: int

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """The latents and the reconstruction of one activation."""
        params = _start(self, self.latents, activation.size)
        latents = nn.relu(Site(name="preactivation")(_preactivation(params, activation)))
        return _decode(params, latents)

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Of one activation. `penalty` is $\lambda$."""
        latents, reconstruction = self(activation)
        return _squares(activation, reconstruction) + penalty * jnp.sum(latents)


class TopKAutoencoder(nn.Module):
    r"""$z$ keeps the $k$ largest of $\mathrm{ReLU}(\pi)$: $\lVert z\rVert_0 = k$ exactly.

    That is if $k$ of $\pi$ are positive, else those that are; of equals the first are kept. The
    rank of a latent is found by comparing it with all others, in a time that grows with the
    square of `latents` but without a sort.

    Attributes:
        latents: size of the dictionary.
        k: a whole number from 1 to `latents`; may be traced.

    References:
        Gao et al. (2024), "Scaling and Evaluating Sparse Autoencoders", with the ReLU of their
        code.
    """

    latents: int
    k: Number

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """The latents and the reconstruction of one activation."""
        _check_k(self.k, self.latents, whole=True)
        params = _start(self, self.latents, activation.size)
        # Biases inside the product, for XLA stores a product, but would add a bias again for
        # every comparison. One latent after the other: all pairs would not fit in cache.
        bias = params["encoder_bias"] - params["encoder"] @ params["decoder_bias"]
        augmented = jnp.concatenate([params["encoder"], bias[:, None]], axis=1)
        preactivation = augmented @ jnp.append(activation, 1.0)
        positive = nn.relu(Site(name="preactivation")(preactivation))
        index = jnp.arange(self.latents)
        rank = jnp.zeros(self.latents, jnp.int32)
        for place in range(self.latents):
            other = lax.index_in_dim(positive, place, keepdims=False)
            ahead = jnp.where(index > place, other >= positive, other > positive)
            rank = rank + ahead.astype(jnp.int32)
        return _decode(params, jnp.where(rank < self.k, positive, 0.0))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""$\lVert h - \hat h\rVert^2 + \lambda \sum_i z_i$; in the paper `penalty` is 0."""
        latents, reconstruction = self(activation)
        return _squares(activation, reconstruction) + penalty * jnp.sum(latents)


class BatchTopKAutoencoder(nn.Module):
    r"""The $k B$ largest of all $\mathrm{ReLU}(\pi)$ of a GROUP of $B$ activations are kept.

    So an activation has $k$ latents on average over its group: `on_group`, and `loss`, which is
    of a group as well. Alone, an activation keeps what is above the parameter `threshold`, which
    has no gradient: `fit_autoencoder` sets it after training to the smallest latent that is kept
    in a group, averaged over groups. It starts at 0.

    Attributes:
        latents: size of the dictionary.
        k: in $(0, \text{latents}]$, not necessarily whole; may be traced.

    References:
        Bussmann et al. (2024), "BatchTopK Sparse Autoencoders".
    """

    latents: int
    k: Number

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """The latents above `threshold`, and the reconstruction, of one activation."""
        _check_k(self.k, self.latents)
        params = _start(self, self.latents, activation.size)
        threshold = self.param("threshold", nn.initializers.zeros, ())
        positive = nn.relu(Site(name="preactivation")(_preactivation(params, activation)))
        return _decode(params, jnp.where(positive > threshold, positive, 0.0))

    def on_group(self, group: Float[Array, "examples hidden"]) -> Decomposition:
        r"""Exactly $\mathrm{round}(k B)$ latents in all, or those that are positive if fewer."""
        _check_k(self.k, self.latents)
        params: Parameters = self.variables["params"]
        # Examples along the last axis, the long one, along which processors vectorise.
        centred = (group - params["decoder_bias"][None, :]).T
        positive = nn.relu(params["encoder"] @ centred + params["encoder_bias"][:, None])
        count = jnp.round(jnp.asarray(self.k, positive.dtype) * len(group)).astype(jnp.int32)
        latents = jnp.where(_largest(lax.stop_gradient(positive), count), positive, 0.0)
        reconstruction = dictionary(params) @ latents + params["decoder_bias"][:, None]
        return Decomposition(latents.T, reconstruction.T)

    def loss(self, group: Float[Array, "examples hidden"], penalty: Number) -> Float[Array, ""]:
        r"""As of `TopKAutoencoder`, mean over a group."""
        latents, reconstruction = self.on_group(group)
        return (_squares(group, reconstruction) + penalty * jnp.sum(latents)) / len(group)


class JumpReLUAutoencoder(nn.Module):
    r"""$z_i = \pi_i H(\pi_i - \theta_i)$, with a penalty on how many latents fire.

    The loss is $\lVert h - \hat h\rVert^2 + \lambda \sum_i H(\pi_i - \theta_i)$. $H$ is the step,
    $\theta > 0$ is learned. Its gradient, zero almost everywhere, is replaced by

    $$\frac{\partial z_i}{\partial\theta_i} = -\frac{\theta_i}{\varepsilon}
      K\Bigl(\frac{\pi_i - \theta_i}{\varepsilon}\Bigr), \qquad
      \frac{\partial H}{\partial\theta_i} = -\frac{1}{\varepsilon}
      K\Bigl(\frac{\pi_i - \theta_i}{\varepsilon}\Bigr),$$

    $K$ = 1 on $(-1/2, 1/2)$, else 0. Averaged over examples that is a kernel estimate of the
    derivative of the expected loss. More parameters: `log_threshold` $\log\theta$.

    Attributes:
        latents: size of the dictionary.
        bandwidth: $\varepsilon > 0$; few examples fall in a narrow window, a wide one blurs.
        start: the first $\theta > 0$, for all latents.

    References:
        Rajamanoharan et al. (2024), "Jumping Ahead".
    """

    latents: int
    bandwidth: Number
    start: Number

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """The latents and the reconstruction of one activation."""
        for name, value in (("bandwidth", self.bandwidth), ("start", self.start)):
            checks.interval(name, value, low=0, open_low=True, remedy="give a positive number")
        params = _start(self, self.latents, activation.size)
        start = jnp.log(jnp.asarray(self.start, params["encoder"].dtype))
        log_threshold = self.param("log_threshold", lambda _: jnp.full(self.latents, start))
        preactivation = Site(name="preactivation")(_preactivation(params, activation))
        threshold = jnp.exp(log_threshold)
        kept = jnp.where(preactivation > threshold, preactivation, 0.0)
        slope = -threshold * self._kernel(preactivation, threshold)
        return _decode(params, _with_slope(kept, threshold, slope))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Of one activation. `penalty` is $\lambda$."""
        params: Parameters = self.variables["params"]
        preactivation = _preactivation(params, activation)
        threshold = jnp.exp(params["log_threshold"])
        fires = jnp.where(preactivation > threshold, 1.0, 0.0)
        fires = _with_slope(fires, threshold, -self._kernel(preactivation, threshold))
        return _squares(activation, self(activation).reconstruction) + penalty * jnp.sum(fires)

    def _kernel(
        self, preactivation: Float[Array, " latents"], threshold: Float[Array, " latents"]
    ) -> Float[Array, " latents"]:
        inside = jnp.abs(preactivation - threshold) < self.bandwidth / 2
        return jnp.where(inside, 1 / jnp.asarray(self.bandwidth, preactivation.dtype), 0.0)


class GatedAutoencoder(nn.Module):
    r"""One path decides which latents are active, another how large they are.

    $$z = H(\pi) \odot \mathrm{ReLU}(e^{r} \odot W_e (h - b_d) + b_m), \qquad
      g = \mathrm{ReLU}(\pi),$$
    $$\ell = \lVert h - \hat h(z)\rVert^2 + \lambda \sum_i g_i
      + \lVert h - \hat h_{\text{frozen}}(g)\rVert^2 :$$

    the penalty shrinks the gate, not the latents. In the last term, by which the gate learns, the
    decoder and its bias are frozen. More parameters: `log_magnitude` $r$, `magnitude_bias` $b_m$
    (start: 0).

    References:
        Rajamanoharan et al. (2024), "Improving Dictionary Learning with Gated Sparse Autoencoders".
    """

    latents: int

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """The latents and the reconstruction of one activation."""
        params = _start(self, self.latents, activation.size)
        zeros = nn.initializers.zeros
        log_magnitude = self.param("log_magnitude", zeros, (self.latents,))
        magnitude_bias = self.param("magnitude_bias", zeros, (self.latents,))
        gate = Site(name="preactivation")(_preactivation(params, activation))
        shared = _preactivation(params, activation) - params["encoder_bias"]
        magnitude = nn.relu(jnp.exp(log_magnitude) * shared + magnitude_bias)
        return _decode(params, jnp.where(gate > 0, magnitude, 0.0))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Of one activation. `penalty` is $\lambda$."""
        params: Parameters = self.variables["params"]
        gate = nn.relu(_preactivation(params, activation))
        frozen = lax.stop_gradient(dictionary(params)) @ gate
        auxiliary = _squares(activation, frozen + lax.stop_gradient(params["decoder_bias"]))
        error = _squares(activation, self(activation).reconstruction)
        return error + penalty * jnp.sum(gate) + auxiliary


class MatryoshkaAutoencoder(nn.Module):
    r"""A ReLU autoencoder whose first latents must do by themselves as well.

    $$\ell = \sum_m w_m \Bigl(\bigl\lVert h - b_d - \sum_{i < m} D_i z_i\bigr\rVert^2
      + \lambda \sum_{i < m} z_i\Bigr)$$

    over prefixes $m$. With one prefix, all latents, it is the loss of a `ReLUAutoencoder`.

    Attributes:
        latents: size of the dictionary.
        prefixes: increasing numbers of latents, the last one `latents`.
        weights: $w_m$, one number or one per prefix; may be traced.

    References:
        Bussmann et al. (2025), "Learning Multi-Level Features with Matryoshka Sparse
        Autoencoders", all weights 1; the weights and the penalty on every prefix are those of
        Chanin et al. (2025), "Feature Hedging".
    """

    latents: int
    prefixes: tuple[int, ...]
    weights: Float[Array, "*prefixes"] | Sequence[Number] | float = 1.0

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """All latents and the reconstruction of one activation."""
        if sorted({0, *self.prefixes}) != [0, *self.prefixes] or self.prefixes[-1:] != (
            self.latents,
        ):
            raise InputError(
                f"prefixes is {self.prefixes}: give increasing numbers of latents from 1 on, the "
                f"last one all {self.latents}"
            )
        params = _start(self, self.latents, activation.size)
        latents = nn.relu(Site(name="preactivation")(_preactivation(params, activation)))
        return _decode(params, latents)

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Of one activation. `penalty` is $\lambda$."""
        latents, _ = self(activation)
        params: Parameters = self.variables["params"]
        directions, reconstruction = dictionary(params), params["decoder_bias"]
        weights = jnp.broadcast_to(jnp.asarray(self.weights), (len(self.prefixes),))
        terms: list[Array] = []
        for start, stop in zip((0, *self.prefixes), self.prefixes, strict=False):
            reconstruction = reconstruction + directions[:, start:stop] @ latents[start:stop]
            terms.append(_squares(activation, reconstruction) + penalty * jnp.sum(latents[:stop]))
        return jnp.sum(weights * jnp.stack(terms))


def fit_autoencoder(
    key: Key[Array, ""],
    model: nn.Module,
    activations: Features,
    *,
    penalty: Number,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
    start: PyTree | None = None,
    points: int = 100,
    snapshots: Sequence[int] = (),
) -> Fitted:
    r"""Train an autoencoder on fresh activations, by `fit`.

    Args:
        key: split in three: start, data, examples for a `BatchTopKAutoencoder`'s threshold.
        model: one of this module, or any Linen module with `loss(activation, penalty)`.
        activations: any distribution of vectors, such as `Activations` of a trained model.
        penalty: $\lambda \ge 0$ of the model's loss; may be traced, as all numbers.
        optimizer: see `fit`.
        steps: number of updates.
        batch: activations per update: for a `BatchTopKAutoencoder`, of a group.
        start: parameters to start from; the default is random, see above.
        points: most points that the loss curve keeps.
        snapshots: increasing numbers of updates after which to keep the parameters.

    Returns:
        Parameters, loss curve (of the loss with its penalty, mean over examples), snapshots.
    """
    checks.interval("penalty", penalty, low=0, remedy="give a factor of 0 or more")
    checks.count("batch", batch)
    key_start, key_data, key_threshold = jax.random.split(keys.fusable(key), 3)
    if start is None:
        start = model.init(key_start, jnp.zeros(activations.num_features))["params"]

    def loss(params: PyTree, example: Array) -> Float[Array, ""]:
        return jnp.asarray(model.apply({"params": params}, example, penalty, method="loss"))

    grouped = isinstance(model, BatchTopKAutoencoder)
    fitted = fit(
        key_data,
        start,
        loss,
        # An example of BatchTopK's loss is a whole batch.
        (lambda key, _: activations.sample(key, batch)[None]) if grouped else activations.sample,
        optimizer=optimizer,
        steps=steps,
        batch=1 if grouped else batch,
        points=points,
        snapshots=snapshots,
    )
    if not isinstance(model, BatchTopKAutoencoder):
        return fitted

    def finished(params: PyTree) -> PyTree:
        threshold = _threshold(key_threshold, model, params, activations, batch)
        return {**params, "threshold": threshold}

    kept = jax.vmap(finished)(fitted.snapshots) if snapshots else fitted.snapshots
    return Fitted(finished(fitted.params), fitted.history, kept)


def dictionary(params: Parameters) -> Float[Array, "hidden latents"]:
    """The directions of an autoencoder: the columns of its `decoder` at length 1, or zero."""
    decoder = params["decoder"]
    squares = jnp.sum(decoder**2, axis=0, keepdims=True)
    return decoder * lax.rsqrt(jnp.where(squares > 0, squares, 1.0))


def _start(module: nn.Module, latents: int, hidden: int) -> Parameters:
    """The parameters that all architectures have."""
    checks.count("latents", latents)

    def directions(key: Key[Array, ""]) -> Float[Array, "hidden latents"]:
        return dictionary({"decoder": jax.random.normal(key, (hidden, latents))})

    decoder = module.param("decoder", directions)
    zeros = nn.initializers.zeros
    return {
        "decoder": decoder,
        "decoder_bias": module.param("decoder_bias", zeros, (hidden,)),
        "encoder": module.param("encoder", lambda _: decoder.T),
        "encoder_bias": module.param("encoder_bias", zeros, (latents,)),
    }


def _preactivation(
    params: Parameters, activation: Float[Array, " hidden"]
) -> Float[Array, " latents"]:
    return params["encoder"] @ (activation - params["decoder_bias"]) + params["encoder_bias"]


def _decode(params: Parameters, latents: Float[Array, " latents"]) -> Decomposition:
    latents = Site(name="latents")(latents)
    reconstruction = Site(name="output")(dictionary(params) @ latents + params["decoder_bias"])
    return Decomposition(latents, reconstruction)


def _squares(
    activation: Float[Array, "*shape"], reconstruction: Float[Array, "*shape"]
) -> Float[Array, ""]:
    return jnp.sum((activation - reconstruction) ** 2)


def _with_slope(
    value: Float[Array, " latents"],
    variable: Float[Array, " latents"],
    slope: Float[Array, " latents"],
) -> Float[Array, " latents"]:
    """`value` as it is, with `slope` added to its derivative by `variable`."""
    return value + lax.stop_gradient(slope) * (variable - lax.stop_gradient(variable))


def _largest(
    values: Float[Array, "latents examples"], count: Int[Array, ""]
) -> Bool[Array, "latents examples"]:
    """Where the `count` largest of values that are at least 0 stand; of equals the first.

    Found digit by digit, in passes that count: some fifty times faster than a sort.
    """
    # Numbers that are at least 0 are ordered as their bits are, read as an integer.
    integer = jnp.uint64 if values.dtype == jnp.float64 else jnp.uint32
    bits = lax.bitcast_convert_type(values, integer).ravel()
    least = _largest_with(
        lambda bound: bits >= bound, lambda found: found >= count, jnp.iinfo(integer).bits, integer
    )
    above, equal = bits > least, bits == least
    missing = count - jnp.sum(above)
    order = jnp.arange(values.size, dtype=integer)
    stop = _largest_with(
        lambda bound: equal & (order < bound),
        lambda found: found <= missing,
        values.size.bit_length(),
        integer,
    )
    return (above | (equal & (order < stop))).reshape(values.shape)


def _largest_with(
    inside: Callable[[Array], Array], holds: Callable[[Array], Array], digits: int, integer: Any
) -> Array:
    """The largest integer of so many bits whose number of elements inside it holds.

    Args:
        inside: of a bound, which elements to count.
        holds: of their number. If it holds for a bound, it does for all that are smaller.
        digits: of the result.
        integer: number type of the bounds.
    """
    zeros = (np.zeros((), np.int32)[()],) * 3

    # Two bits at a time, of three counts: of one, XLA hands the sum to a library, and computes
    # what is counted apart.
    def digit(place: Array, found: Array) -> Array:
        shift = (2 * (-(-digits // 2) - 1 - place)).astype(integer)
        bounds = [found + (jnp.asarray(digit, integer) << shift) for digit in (1, 2, 3)]
        counted = tuple(inside(bound).astype(jnp.int32) for bound in bounds)
        counts = lax.reduce(counted, zeros, _add, (0,))
        steps = sum(holds(count).astype(integer) for count in counts)
        return found + (steps << shift)

    return lax.fori_loop(0, -(-digits // 2), digit, jnp.zeros((), integer))


def _add(left: Sequence[Array], right: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _threshold(
    key: Key[Array, ""],
    model: BatchTopKAutoencoder,
    params: PyTree,
    activations: Features,
    batch: int,
) -> Float[Array, ""]:
    """The smallest latent kept in a group, mean over fresh groups; 0 for one that keeps none."""

    def smallest(key: Key[Array, ""]) -> Float[Array, ""]:
        group = activations.sample(key, batch)
        kept = model.apply({"params": params}, group, method="on_group")
        latents = kept.latents  # pyright: ignore
        least = jnp.min(latents, where=latents > 0, initial=jnp.inf)
        return jnp.where(jnp.isfinite(least), least, 0.0)

    return jnp.mean(lax.map(smallest, jax.random.split(key, THRESHOLD_GROUPS)))


def _check_k(k: Number, latents: int, *, whole: bool = False) -> None:
    checks.interval("k", k, low=0, high=latents, open_low=True, remedy="it counts latents")
    if whole and not isinstance(k, Tracer) and k != round(float(k)):
        raise InputError(f"k is {float(k):g}: give a whole number, or use BatchTopKAutoencoder")
