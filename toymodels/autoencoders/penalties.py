"""Autoencoders that are sparse because a penalty makes them: ReLU, jumps, gates, prefixes."""

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
    r"""$z = \mathrm{ReLU}(\pi)$ with the loss $\lVert h - \hat h\rVert^2 + \lambda \sum_i z_i$.

    References:
        Bricken et al. (2023), "Towards Monosemanticity"; Cunningham et al. (2023).
    """

    latents: int

    @nn.compact
    def __call__(self, activation: Float[Array, " hidden"]) -> Decomposition:
        """The latents and the reconstruction of one activation."""
        params = base.start(self, self.latents, activation.size)
        latents = nn.relu(Site(name="preactivation")(base.preactivation(params, activation)))
        return base.decode(params, latents)

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Of one activation. `penalty` is $\lambda$."""
        latents, reconstruction = self(activation)
        return base.squares(activation, reconstruction) + penalty * jnp.sum(latents)


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
        params = base.start(self, self.latents, activation.size)
        start = jnp.log(jnp.asarray(self.start, params["encoder"].dtype))
        log_threshold = self.param("log_threshold", lambda _: jnp.full(self.latents, start))
        preactivation = Site(name="preactivation")(base.preactivation(params, activation))
        threshold = jnp.exp(log_threshold)
        kept = jnp.where(preactivation > threshold, preactivation, 0.0)
        slope = -threshold * self._kernel(preactivation, threshold)
        return base.decode(params, _with_slope(kept, threshold, slope))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Of one activation. `penalty` is $\lambda$."""
        params: Parameters = self.variables["params"]
        preactivation = base.preactivation(params, activation)
        threshold = jnp.exp(params["log_threshold"])
        fires = jnp.where(preactivation > threshold, 1.0, 0.0)
        fires = _with_slope(fires, threshold, -self._kernel(preactivation, threshold))
        return base.squares(activation, self(activation).reconstruction) + penalty * jnp.sum(fires)

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
        params = base.start(self, self.latents, activation.size)
        zeros = nn.initializers.zeros
        log_magnitude = self.param("log_magnitude", zeros, (self.latents,))
        magnitude_bias = self.param("magnitude_bias", zeros, (self.latents,))
        gate = Site(name="preactivation")(base.preactivation(params, activation))
        shared = base.preactivation(params, activation) - params["encoder_bias"]
        magnitude = nn.relu(jnp.exp(log_magnitude) * shared + magnitude_bias)
        return base.decode(params, jnp.where(gate > 0, magnitude, 0.0))

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Of one activation. `penalty` is $\lambda$."""
        params: Parameters = self.variables["params"]
        gate = nn.relu(base.preactivation(params, activation))
        frozen = lax.stop_gradient(base.dictionary(params)) @ gate
        auxiliary = base.squares(activation, frozen + lax.stop_gradient(params["decoder_bias"]))
        error = base.squares(activation, self(activation).reconstruction)
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
        params = base.start(self, self.latents, activation.size)
        latents = nn.relu(Site(name="preactivation")(base.preactivation(params, activation)))
        return base.decode(params, latents)

    def loss(self, activation: Float[Array, " hidden"], penalty: Number) -> Float[Array, ""]:
        r"""Of one activation. `penalty` is $\lambda$."""
        latents, _ = self(activation)
        params: Parameters = self.variables["params"]
        directions, reconstruction = base.dictionary(params), params["decoder_bias"]
        weights = jnp.broadcast_to(jnp.asarray(self.weights), (len(self.prefixes),))
        terms: list[Array] = []
        for start, stop in zip((0, *self.prefixes), self.prefixes, strict=False):
            reconstruction = reconstruction + directions[:, start:stop] @ latents[start:stop]
            terms.append(
                base.squares(activation, reconstruction) + penalty * jnp.sum(latents[:stop])
            )
        return jnp.sum(weights * jnp.stack(terms))


def _with_slope(
    value: Float[Array, " latents"],
    variable: Float[Array, " latents"],
    slope: Float[Array, " latents"],
) -> Float[Array, " latents"]:
    """`value` as it is, with `slope` added to its derivative by `variable`."""
    return value + lax.stop_gradient(slope) * (variable - lax.stop_gradient(variable))
