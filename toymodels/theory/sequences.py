r"""The best predictions of the next token of a Markov chain that must be learned in context.

Each row of the transition matrix of a sequence is drawn from the symmetric Dirichlet distribution
with parameter $\alpha$, as in `toymodels.MarkovChains`. Losses are in nats for each token.

References:
    Edelman et al. (2024), "The Evolution of Statistical Induction Heads".
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from toymodels import checks

__all__ = ["chain_entropy", "in_context_bigram", "in_context_unigram", "next_token_loss"]


def in_context_bigram(
    tokens: Float[Array, "length tokens"], concentration: float = 1.0
) -> Float[Array, "length tokens"]:
    r"""Return the exact posterior of the next token at each position, which no model can beat.

    It is $P(t) = (n_{st} + \alpha) / (\sum_u n_{su} + k \alpha)$, where $s$ is the token at the
    position, and $n_{st}$ counts how often $t$ has followed $s$ so far.

    Args:
        tokens: ONE sequence of $k$ one-hot tokens.
        concentration: $\alpha$.
    """
    pairs = tokens[:-1, :, None] * tokens[1:, None, :]
    counts = jnp.concatenate([jnp.zeros_like(pairs[:1]), jnp.cumsum(pairs, axis=0)])
    return _smoothed(jnp.einsum("ls,lst->lt", tokens, counts), concentration)


def in_context_unigram(
    tokens: Float[Array, "length tokens"], concentration: float = 1.0
) -> Float[Array, "length tokens"]:
    r"""Return $(n_t + \alpha) / (\sum_u n_u + k \alpha)$ at each position, for counts $n$ so far.

    Args:
        tokens: ONE sequence of $k$ one-hot tokens.
        concentration: $\alpha$.
    """
    return _smoothed(jnp.cumsum(tokens, axis=0), concentration)


def next_token_loss(
    probabilities: Float[Array, "length tokens"], tokens: Float[Array, "length tokens"]
) -> Float[Array, " predicted"]:
    """Return the negative log probability of each token from those before it, length - 1 numbers.

    Args:
        probabilities: the prediction at each position, of the token after it.
        tokens: ONE sequence of one-hot tokens.
    """
    return -jnp.log(jnp.sum(probabilities[:-1] * tokens[1:], axis=1))


def chain_entropy(num_states: int) -> float:
    r"""Return the expected entropy of a row for $\alpha = 1$, $H_k - 1$ with $H_k = \sum_i 1/i$.

    A predictor that knows the transition matrix of a chain of $k$ states has this loss at the first
    transition. Its later losses are lower: a chain stays long in a state that it rarely leaves,
    and the row of such a state has little entropy. In the long run the loss for two states is
    0.4809 instead of 1/2.

    Args:
        num_states: $k$, at least 1.

    Returns:
        A number of at least 0, in nats.
    """
    checks.count("num_states", num_states)
    return sum(1 / i for i in range(2, num_states + 1))


def _smoothed(counts: Float[Array, "length tokens"], concentration: float) -> Array:
    checks.interval(
        "concentration", concentration, low=0, open_low=True, remedy="give a positive number"
    )
    counts = counts + jnp.asarray(concentration, counts.dtype)
    return counts / jnp.sum(counts, axis=1, keepdims=True)
