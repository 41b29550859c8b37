"""Autoencoders that a penalty makes sparse: ReLU, JumpReLU, gated and Matryoshka."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.autoencoders import base
from toymodels.autoencoders.base import Decomposition, Number, Parameters
from toymodels.errors import InputError
from toymodels.sites import Site


class ReLUAutoencoder(nn.Module):
    r"""An autoencoder with latents $z = \mathrm{ReLU}(\pi)$ and an L1 penalty.

    The loss is $\lVert h - \hat h\rVert^2 + \lambda \sum_i z_i$.

    Attributes:
        latents: the size of the dictionary.

    References:
        Bricken et al. (2023), "Towards Monosemanticity"; Cunningham et al. (2023).
    """

    latents: int

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """Return the latents and the reconstruction of one activation."""
        return base.rectified(self, self.latents, activation)

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Return the loss of one activation; `penalty` is $\lambda$."""
        latents, reconstruction = self(activation)
        return base.squared_error(activation, reconstruction) + penalty * jnp.sum(latents)


class JumpReLUAutoencoder(nn.Module):
    r"""An autoencoder with latents $z_i = \pi_i H(\pi_i - \theta_i)$ and a penalty on their number.

    The loss is $\lVert h - \hat h\rVert^2 + \lambda \sum_i H(\pi_i - \theta_i)$, where $H$ is the
    step function and the thresholds $\theta > 0$ are learned. The derivatives by $\theta$ are zero
    almost everywhere and are replaced by

    $$\frac{\partial z_i}{\partial\theta_i} = -\frac{\theta_i}{\varepsilon}
      K\Bigl(\frac{\pi_i - \theta_i}{\varepsilon}\Bigr), \qquad
      \frac{\partial H}{\partial\theta_i} = -\frac{1}{\varepsilon}
      K\Bigl(\frac{\pi_i - \theta_i}{\varepsilon}\Bigr),$$

    where $K$ is 1 on $(-1/2, 1/2)$ and 0 elsewhere. Averaged over examples, this is a kernel
    estimate of the derivative of the expected loss. The parameter `log_threshold` is
    $\log\theta$.

    Attributes:
        latents: the size of the dictionary.
        bandwidth: the width $\varepsilon > 0$ of the kernel. Few examples fall in a narrow
            window; a wide window blurs the derivative.
        start: the first threshold $\theta > 0$ of all latents.

    References:
        Rajamanoharan et al. (2024), "Jumping Ahead".
    """

    latents: int
    bandwidth: Number
    start: Number

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """Return the latents and the reconstruction of one activation."""
        for name, value in (("bandwidth", self.bandwidth), ("start", self.start)):
            checks.interval(name, value, low=0, open_low=True, remedy="give a positive number")
        params = base.start(self, self.latents, activation.size)
        start = jnp.log(jnp.asarray(self.start, params["encoder"].dtype))
        log_threshold = self.param("log_threshold", lambda _: jnp.full(self.latents, start))
        preactivation = Site(name="preactivation")(base.preactivation(params, activation))
        threshold = jnp.exp(log_threshold)
        kept = jnp.where(preactivation > threshold, preactivation, 0.0)
        slope = -threshold * self._kernel(preactivation, threshold)
        return base.decode(params, _with_slope(kept, threshold, slope))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Return the loss of one activation; `penalty` is $\lambda$."""
        params: Parameters = self.variables["params"]
        preactivation = base.preactivation(params, activation)
        threshold = jnp.exp(params["log_threshold"])
        fires = jnp.where(preactivation > threshold, 1.0, 0.0)
        fires = _with_slope(fires, threshold, -self._kernel(preactivation, threshold))
        error = base.squared_error(activation, self(activation).reconstruction)
        return error + penalty * jnp.sum(fires)

    def _kernel(
        self, preactivation: Float[Array, " latents"], threshold: Float[Array, " latents"]
    ) -> Float[Array, " latents"]:
        inside = jnp.abs(preactivation - threshold) < self.bandwidth / 2
        return jnp.where(inside, 1 / jnp.asarray(self.bandwidth, preactivation.dtype), 0.0)


class GatedAutoencoder(nn.Module):
    r"""An autoencoder in which one path says which latents are active, and another how large.

    $$z = H(\pi) \odot \mathrm{ReLU}(e^{r} \odot W_e (h - b_d) + b_m), \qquad
      g = \mathrm{ReLU}(\pi),$$
    $$\ell = \lVert h - \hat h(z)\rVert^2 + \lambda \sum_i g_i
      + \lVert h - \hat h_{\text{frozen}}(g)\rVert^2.$$

    The penalty shrinks the gate and not the latents. The gate learns by the last term, in which
    the decoder and its bias are frozen. The further parameters are `log_magnitude` $r$ and
    `magnitude_bias` $b_m$, both 0 at the start.

    Attributes:
        latents: the size of the dictionary.

    References:
        Rajamanoharan et al. (2024), "Improving Dictionary Learning with Gated Sparse Autoencoders".
    """

    latents: int

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """Return the latents and the reconstruction of one activation."""
        params = base.start(self, self.latents, activation.size)
        zeros = nn.initializers.zeros
        log_magnitude = self.param("log_magnitude", zeros, (self.latents,))
        magnitude_bias = self.param("magnitude_bias", zeros, (self.latents,))
        gate = Site(name="preactivation")(base.preactivation(params, activation))
        shared = base.preactivation(params, activation) - params["encoder_bias"]
        magnitude = nn.relu(jnp.exp(log_magnitude) * shared + magnitude_bias)
        return base.decode(params, jnp.where(gate > 0, magnitude, 0.0))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Return the loss of one activation; `penalty` is $\lambda$."""
        params: Parameters = self.variables["params"]
        gate = nn.relu(base.preactivation(params, activation))
        frozen = lax.stop_gradient(base.dictionary(params)) @ gate
        auxiliary = base.squared_error(
            activation, frozen + lax.stop_gradient(params["decoder_bias"])
        )
        error = base.squared_error(activation, self(activation).reconstruction)
        return error + penalty * jnp.sum(gate) + auxiliary


class MatryoshkaAutoencoder(nn.Module):
    r"""A ReLU autoencoder whose first latents must also reconstruct by themselves.

    $$\ell = \sum_m w_m \Bigl(\bigl\lVert h - b_d - \sum_{i < m} D_i z_i\bigr\rVert^2
      + \lambda \sum_{i < m} z_i\Bigr)$$

    is the loss, summed over prefixes $m$. With one prefix that holds all latents, it is the loss
    of a `ReLUAutoencoder`.

    Attributes:
        latents: the size of the dictionary.
        prefixes: increasing numbers of latents; the last one is `latents`.
        weights: the weights $w_m$, one number or one for each prefix. They may be swept.

    References:
        Bussmann et al. (2025), "Learning Multi-Level Features with Matryoshka Sparse
        Autoencoders", has all weights 1. The weights and the penalty on every prefix are those of
        Chanin et al. (2025), "Feature Hedging".
    """

    latents: int
    prefixes: tuple[int, ...]
    weights: Float[Array, "*prefixes"] | Sequence[Number] | float = 1.0

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """Return all latents and the reconstruction of one activation."""
        if sorted({0, *self.prefixes}) != [0, *self.prefixes] or self.prefixes[-1:] != (
            self.latents,
        ):
            raise InputError(
                f"prefixes is {self.prefixes}: give increasing numbers of latents from 1 on, the "
                f"last one all {self.latents}"
            )
        return base.rectified(self, self.latents, activation)

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Return the loss of one activation; `penalty` is $\lambda$."""
        latents, _ = self(activation)
        params: Parameters = self.variables["params"]
        directions, reconstruction = base.dictionary(params), params["decoder_bias"]
        weights = jnp.broadcast_to(jnp.asarray(self.weights), (len(self.prefixes),))
        terms: list[Array] = []
        for start, stop in zip((0, *self.prefixes), self.prefixes, strict=False):
            reconstruction = reconstruction + directions[:, start:stop] @ latents[start:stop]
            terms.append(
                base.squared_error(activation, reconstruction) + penalty * jnp.sum(latents[:stop])
            )
        return jnp.sum(weights * jnp.stack(terms))


def _with_slope(
    value: Float[Array, " latents"],
    variable: Float[Array, " latents"],
    slope: Float[Array, " latents"],
) -> Float[Array, " latents"]:
    """Return `value` unchanged, with `slope` added to its derivative by `variable`."""
    return value + lax.stop_gradient(slope) * (variable - lax.stop_gradient(variable))
