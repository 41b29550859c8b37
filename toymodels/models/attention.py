"""A small transformer of attention heads, written like its equations; it takes ONE sequence."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError
from toymodels.models.base import Initializer, xavier
from toymodels.sites import Site

_xavier_heads = nn.initializers.xavier_normal(batch_axis=(0,))
"""Xavier's rule for the matrix of each head: the first axis counts heads."""


class AttentionOnly(nn.Module):
    r"""A causal transformer without layer normalisation: embedding, attention layers, unembedding.

    With the sequence $t$ (length x features), $x_0 = W_E t_i$ at each position $i$, and in each
    layer for each head $h$

    $$A^h_{ij} = \operatorname{softmax}_{j \le i} \frac{x_i^\top W_Q^{h\top} W_K^h x_j}
      {\sqrt{d}}, \qquad z^h_i = \sum_j A^h_{ij} W_V^h x_j, \qquad
      x_i \leftarrow x_i + \sum_h W_O^h z^h_i,$$

    where $d$ is `head_width`; at the end, the outputs are $W_U x_i$. A head moves information by
    its matrix $W_O W_V$, from the places that its matrix $W_Q^\top W_K$ chooses. With `neurons`,
    a layer then adds $W_2 \operatorname{ReLU}(W_1 x_i + b_1) + b_2$.

    Positions are learned vectors $p_i$, added to $x_0$. With `relative`, they are vectors $r^h_d$
    of distances instead, and the scores get the term $x_i^\top W_Q^{h\top} r^h_{i-j} / \sqrt{d}$.

    Sites: `embedding` $x_0$; in each layer, such as `layer_0/pattern`: `query`, `key`, `value`
    and `z` (heads x length x head_width), `scores` before the softmax and `pattern` $A$ (heads x
    length x length), `heads` $W_O z$ (heads x length x width), `neurons` (length x neurons),
    `residual` $x$ after the layer (length x width); and `output` (length x outputs).

    Parameters: `W_E` (width x features), `W_pos` (length x width), `W_U` (outputs x width), and in
    each layer `W_Q`, `W_K`, `W_V` (heads x head_width x width), `W_O` (heads x width x
    head_width), `R` (heads x length x head_width), `W_1`, `b_1`, `W_2`, `b_2`.

    Attributes:
        layers: the number of layers; with 0, a model of bigrams.
        heads: the number of heads of each layer.
        width: the width of the residual stream $x$.
        head_width: the width $d$ of a query, a key and a value.
        relative: whether positions are distances instead of places.
        causal: whether a position sees only itself and earlier positions. If not, the sums over
            $j \le i$ go over all positions.
        neurons: the number of neurons of each layer; 0 leaves them out.
        outputs: the number of outputs at each position; by default as many as features.
        initializer: the start of `W_E`, `W_U` and the weights of neurons. The matrices of each
            head start by Xavier's rule, and positions with a standard deviation of 0.02.

    References:
        Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits"; Shaw et al.
        (2018), "Self-Attention with Relative Position Representations".
    """

    layers: int
    heads: int
    width: int
    head_width: int
    relative: bool = False
    causal: bool = True
    neurons: int = 0
    outputs: int | None = None
    initializer: Initializer = xavier

    @nn.compact
    def __call__(self, tokens: Float[Array, "length features"]) -> Float[Array, "length outputs"]:
        """Return the outputs at each position of one sequence, such as logits of the next token."""
        checks.count("layers", self.layers, minimum=0)
        checks.count("neurons", self.neurons, minimum=0)
        for name in ("heads", "width", "head_width"):
            checks.count(name, getattr(self, name))
        if self.outputs is not None:
            checks.count("outputs", self.outputs)
        if tokens.ndim != 2:
            raise InputError(
                f"the tokens have shape {tokens.shape}: give ONE sequence of length x features, "
                "such as jax.nn.one_hot(ids, features)"
            )
        if self.relative and not self.causal:
            raise InputError("relative positions are distances to earlier ones: take causal=True")
        length, features = tokens.shape
        residual = tokens @ self.param("W_E", self.initializer, (self.width, features)).T
        if not self.relative:
            residual = residual + _positions(self, "W_pos", (length, self.width), axis=0)
        residual = Site(name="embedding")(residual)
        for layer in range(self.layers):
            residual = _Layer(
                self.heads,
                self.head_width,
                self.relative,
                self.causal,
                self.neurons,
                self.initializer,
                name=f"layer_{layer}",
            )(residual)
        outputs = features if self.outputs is None else self.outputs
        unembedding = self.param("W_U", self.initializer, (outputs, self.width))
        return Site(name="output")(residual @ unembedding.T)


class _Layer(nn.Module):
    """One layer of `AttentionOnly`."""

    heads: int
    head_width: int
    relative: bool
    causal: bool
    neurons: int
    initializer: Initializer

    @nn.compact
    def __call__(self, residual: Float[Array, "length width"]) -> Float[Array, "length width"]:
        length, width = residual.shape
        read = (self.heads, self.head_width, width)
        w_q, w_k, w_v = (self.param(name, _xavier_heads, read) for name in ("W_Q", "W_K", "W_V"))
        w_o = self.param("W_O", _xavier_heads, (self.heads, width, self.head_width))
        query = Site(name="query")(jnp.einsum("hdw,iw->hid", w_q, residual))
        key = Site(name="key")(jnp.einsum("hdw,iw->hid", w_k, residual))
        value = Site(name="value")(jnp.einsum("hdw,iw->hid", w_v, residual))
        scores = jnp.einsum("hid,hjd->hij", query, key)
        if self.relative:
            shape = (self.heads, length, self.head_width)
            scores = scores + _by_distance(query, _positions(self, "R", shape, axis=1))
        scores = Site(name="scores")(scores / self.head_width**0.5)
        if self.causal:
            past = np.tril(np.ones((length, length), bool))[None]
            scores = jnp.where(past, scores, -jnp.inf)
        pattern = Site(name="pattern")(jax.nn.softmax(scores))
        z = Site(name="z")(jnp.einsum("hij,hjd->hid", pattern, value))
        moved = Site(name="heads")(jnp.einsum("hwd,hid->hiw", w_o, z))
        residual = residual + jnp.sum(moved, axis=0)
        if self.neurons:
            residual = residual + self._neurons(residual)
        return Site(name="residual")(residual)

    def _neurons(self, residual: Float[Array, "length width"]) -> Float[Array, "length width"]:
        zeros, width = nn.initializers.zeros, residual.shape[-1]
        w_1 = self.param("W_1", self.initializer, (self.neurons, width))
        b_1 = self.param("b_1", zeros, (self.neurons,))
        w_2 = self.param("W_2", self.initializer, (width, self.neurons))
        b_2 = self.param("b_2", zeros, (width,))
        neurons = Site(name="neurons")(nn.relu(residual @ w_1.T + b_1[None]))
        return neurons @ w_2.T + b_2[None]


def _by_distance(
    query: Float[Array, "heads length head_width"], keys: Float[Array, "heads length head_width"]
) -> Float[Array, "heads length length"]:
    r"""Return $q_i \cdot r_{i-j}$ for all pairs of positions; those with $j > i$ are not used."""
    scores_by_distance = jnp.einsum("hid,hnd->hin", query, keys)
    position = np.arange(query.shape[1])
    distance = np.maximum(position[:, None] - position[None, :], 0)
    return jnp.take_along_axis(scores_by_distance, distance[None], axis=2)


def _positions(module: nn.Module, name: str, shape: tuple[int, ...], *, axis: int) -> Array:
    """Return the parameter of positions, after a check that the sequence has its length."""
    if module.has_variable("params", name):
        made = jnp.shape(module.get_variable("params", name))
        if len(made) == len(shape) and made[axis] != shape[axis]:
            raise InputError(
                f"the sequence has {shape[axis]} positions, but the parameters of the model are "
                f"for {made[axis]}: give sequences of one length"
            )
    return module.param(name, nn.initializers.normal(0.02), shape)
