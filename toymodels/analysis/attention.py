r"""Attention heads: the circuits of their matrices, and where their patterns look.

A head with the matrices $W_Q$, $W_K$, $W_V$ (head_width x width) and $W_O$ (width x head_width)
acts on the residual stream through two products alone: $W_Q^\top W_K$ chooses from which place it
moves information, and $W_O W_V$ what it moves there. Between tokens, they become the full circuits
$W_E^\top W_Q^\top W_K W_E$ and $W_U W_O W_V W_E$.

`toymodels.AttentionOnly` has the matrices of all heads of a layer in one array: give them head by
head, or map with `jax.vmap`.

References:
    Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits".
    Olsson et al. (2022), "In-context Learning and Induction Heads".
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.analysis import inputs
from toymodels.errors import InputError

__all__ = [
    "composition_score",
    "copying_score",
    "induction_score",
    "logit_lens",
    "ov_circuit",
    "previous_token_score",
    "qk_circuit",
]


def qk_circuit(
    w_q: Float[Array, "head width"], w_k: Float[Array, "head width"]
) -> Float[Array, "width width"]:
    r"""Return $W_Q^\top W_K$: the score of a query vector (row) and a key vector (column).

    The scores of `AttentionOnly` are divided by the root of the head width, and these are not.
    """
    w_q, w_k = inputs.floats("w_q", w_q, rank=2), inputs.floats("w_k", w_k, rank=2)
    checks.same_size("rows", w_q=w_q.shape[0], w_k=w_k.shape[0])
    return w_q.T @ w_k


def ov_circuit(
    w_o: Float[Array, "width head"], w_v: Float[Array, "head width"]
) -> Float[Array, "width width"]:
    """Return $W_O W_V$: what a head adds to the residual stream for the vector it attends to."""
    w_o, w_v = inputs.floats("w_o", w_o, rank=2), inputs.floats("w_v", w_v, rank=2)
    checks.same_size("head dimensions", w_o=w_o.shape[1], w_v=w_v.shape[0])
    return w_o @ w_v


def copying_score(circuit: Float[Array, "tokens tokens"]) -> Float[Array, ""]:
    r"""Return $\sum_i \lambda_i / \sum_i |\lambda_i|$ over the eigenvalues of a circuit.

    For the full circuit $W_U W_O W_V W_E$ of a head that copies tokens, most eigenvalues are
    positive: attention to a token raises the logit of that token.

    Args:
        circuit: the full OV circuit of ONE head.

    Returns:
        A number in $[-1, 1]$: 1 if all eigenvalues are positive, about 0 for a random matrix, and
        0 for the matrix 0. It does not depend on the basis or on the scale.

    References:
        Elhage et al. (2021), section "Detecting Copying Behavior".
    """
    circuit = inputs.floats("circuit", circuit, rank=2)
    checks.same_size("tokens", rows=circuit.shape[0], columns=circuit.shape[1])
    finite = jnp.isfinite(circuit).all()
    eigenvalues = jnp.linalg.eigvals(jnp.where(finite, circuit, 0.0))
    total = jnp.sum(jnp.abs(eigenvalues))
    share = jnp.trace(circuit) / jnp.where(total > 0, total, 1.0)  # the trace is their sum
    return jnp.where(finite, jnp.where(total > 0, jnp.clip(share, -1, 1), 0.0), jnp.nan)


def composition_score(
    reader: Float[Array, "read width"], writer: Float[Array, "width written"]
) -> Float[Array, ""]:
    r"""Return $\lVert R W \rVert / (\lVert R \rVert \lVert W \rVert)$ in Frobenius norms.

    It says how much a later head reads of what an earlier head writes, $W = W_O W_V$. The reader
    is $W_K^\top W_Q$ of the later head for composition of queries, $W_Q^\top W_K$ for keys, and
    $W_O W_V$ for values.

    Args:
        reader: the matrix $R$ of ONE later head.
        writer: the matrix $W$ of ONE earlier head.

    Returns:
        A number in $[0, 1]$. If the matrices are turned against each other at random, its square
        is $1 / \text{width}$ on average. It is 0 if a matrix is 0.

    References:
        Elhage et al. (2021), section "Composition".
    """
    reader = inputs.floats("reader", reader, rank=2)
    writer = inputs.floats("writer", writer, rank=2)
    checks.same_size("dimensions", reader=reader.shape[1], writer=writer.shape[0])
    sizes = jnp.linalg.norm(reader) * jnp.linalg.norm(writer)
    score = jnp.linalg.norm(reader @ writer) / jnp.where(sizes == 0, 1.0, sizes)
    return inputs.unless_missing(score, reader, writer)


def previous_token_score(pattern: Float[Array, "length length"]) -> Float[Array, ""]:
    r"""Return the mean attention to the position before, over all positions but the first.

    Args:
        pattern: the pattern of ONE head on ONE sequence, queries x keys; its rows sum to 1.

    Returns:
        A number in $[0, 1]$; uniform attention to the past gives the mean of $1 / (i + 1)$ over
        positions $i = 1, 2, \dots$. It is NaN for a sequence of one token.
    """
    pattern = _pattern(pattern)
    return inputs.unless_missing(jnp.mean(jnp.diagonal(pattern, offset=-1)), pattern)


def induction_score(
    pattern: Float[Array, "length length"], tokens: Float[Array, "length tokens"]
) -> Float[Array, ""]:
    r"""Return the mean attention to all tokens that have followed the present token before.

    At position $i$ it is the attention to all positions $j \le i$ with $t_{j-1} = t_i$. The mean is
    over the positions $i$ that have such a $j$, which are those whose token occurred before.

    Args:
        pattern: the pattern of ONE head on ONE sequence, queries x keys; its rows sum to 1.
        tokens: the sequence of one-hot tokens.

    Returns:
        A number in $[0, 1]$; it is NaN if no token occurs again.
    """
    pattern = _pattern(pattern)
    tokens = inputs.floats("tokens", tokens, rank=2)
    length = tokens.shape[0]
    checks.same_size("positions", pattern=pattern.shape[0], tokens=length)
    checks.when_known(_check_one_hot, tokens)
    equal = tokens @ tokens.T > 0
    follows = jnp.concatenate([jnp.zeros((length, 1), bool), equal[:, :-1]], axis=1)
    follows = follows & np.tril(np.ones((length, length), bool))
    repeated = jnp.any(follows, axis=1)
    attention = jnp.sum(jnp.where(follows, pattern, 0.0), axis=1)
    mean = jnp.sum(attention) / jnp.maximum(jnp.sum(repeated), 1)
    return inputs.unless_missing(jnp.where(jnp.any(repeated), mean, jnp.nan), pattern, tokens)


def _check_one_hot(tokens: Array) -> None:
    """Refuse tokens that are not one-hot; a position with a missing number passes."""
    numbers = np.asarray(tokens)
    present = numbers[np.isfinite(numbers).all(axis=1)]
    if not np.isin(present, (0, 1)).all() or (present.sum(axis=1) > 1).any():
        raise InputError(
            "the tokens are not one-hot: give one 1 at each position, as jax.nn.one_hot does"
        )


def _pattern(pattern: Any) -> Float[Array, "length length"]:
    """Return the pattern after checks that it has queries in rows and keys in columns."""
    pattern = inputs.floats("pattern", pattern, rank=2)
    checks.same_size("positions", queries=pattern.shape[0], keys=pattern.shape[1])

    def check(pattern: Array) -> None:
        sums = np.asarray(pattern, np.float64).sum(axis=1)
        if (abs(sums - 1) > 1e-3).any():  # a row with a missing number passes
            raise InputError(
                f"a row of the pattern sums to {sums[np.nanargmax(abs(sums - 1))]:.3g}, not to 1: "
                "give the attention after the softmax, queries x keys"
            )

    checks.when_known(check, pattern)
    return pattern


def logit_lens(
    residual: Float[Array, "length width"], w_u: Float[Array, "outputs width"]
) -> Float[Array, "length outputs"]:
    """Return the logits that the unembedding reads from the residual stream at any site.

    Args:
        residual: the value at a site such as "layer_0/residual", for ONE sequence. The last one
            gives the outputs of the model.
        w_u: the unembedding.

    References:
        nostalgebraist (2020), "Interpreting GPT: the Logit Lens".
    """
    residual, w_u = inputs.floats("residual", residual, rank=2), inputs.floats("w_u", w_u, rank=2)
    checks.same_size("dimensions", residual=residual.shape[1], w_u=w_u.shape[1])
    return residual @ w_u.T
