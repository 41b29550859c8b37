"""Sequences of tokens, each token as a one-hot vector: an example is length x tokens."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int, Key

from toymodels import checks
from toymodels.errors import InputError


@struct.dataclass
class MarkovChains:
    r"""Markov chains, each with transition probabilities of its own, to be learned in context.

    Each row of the matrix of a sequence is drawn from the symmetric Dirichlet distribution with
    parameter $\alpha$. The first token is uniform.

    Attributes:
        num_features: the number of states, at least 2.
        length: the number of tokens of a sequence.
        concentration: $\alpha > 0$; 1 makes all matrices equally likely.

    References:
        Edelman et al. (2024), "The Evolution of Statistical Induction Heads".
    """

    num_features: int = struct.field(pytree_node=False)
    length: int = struct.field(pytree_node=False)
    concentration: Float[Array | np.ndarray, "*cells"] | float = 1.0

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch length features"]:
        """Draw `batch` independent sequences with one use of `key`."""
        _check_sizes(self.num_features, self.length, batch)
        checks.interval(
            "concentration", self.concentration, low=0, open_low=True, remedy="give a positive one"
        )
        key_rows, key_tokens = jax.random.split(key)
        states = self.num_features
        shape = (batch, states, states)
        shares = _shares(key_rows, self.concentration, shape)
        rows = jnp.cumsum(shares, axis=2) / jnp.sum(shares, axis=2, keepdims=True)
        uniform = jax.random.uniform(key_tokens, (self.length, batch))

        def step(state: Int[Array, " batch"], u: Float[Array, " batch"]) -> tuple[Array, Array]:
            row = jnp.take_along_axis(rows, state[:, None, None], axis=1)[:, 0]
            new = jnp.minimum(jnp.sum(u[:, None] >= row, axis=1), states - 1)
            return new, new

        first = jnp.minimum((uniform[0] * states).astype(int), states - 1)
        _, later = lax.scan(step, first, uniform[1:])
        return _one_hot(jnp.concatenate([first[None], later]).T, states)


@struct.dataclass
class RepeatedTokens:
    """Uniform, independent tokens that are then repeated: what induction heads complete.

    Attributes:
        num_features: the number of tokens, at least 2.
        period: the number of tokens before they are repeated.
        repeats: how often a sequence holds these tokens, at least 2. The length of a sequence is
            period x repeats.
    """

    num_features: int = struct.field(pytree_node=False)
    period: int = struct.field(pytree_node=False)
    repeats: int = struct.field(pytree_node=False, default=2)

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch length features"]:
        """Draw `batch` independent sequences with one use of `key`."""
        _check_sizes(self.num_features, self.period, batch)
        checks.count("repeats", self.repeats, minimum=2)
        tokens = jax.random.randint(key, (batch, self.period), 0, self.num_features)
        return _one_hot(jnp.tile(tokens, (1, self.repeats)), self.num_features)


@struct.dataclass
class SkipTrigrams:
    """Sequences "... source ... query answer", whose answer is given by a table.

    One source stands at a uniform place before the query, and noise at all other places. Sources,
    queries and noise are uniform. The tokens are numbered in the order sources, queries, noise,
    answers; the answers are 0, 1, ... up to the largest of the table.

    Attributes:
        table: the answer to each source and query, sources x queries.
        num_noise: the number of tokens of noise, at least 1.
        length: the number of tokens of a sequence, at least 3.

    References:
        Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", "Skip-Trigrams".
    """

    table: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)
    num_noise: int = struct.field(pytree_node=False)
    length: int = struct.field(pytree_node=False)

    @property
    def num_features(self) -> int:
        """The number of tokens."""
        return sum(self._sizes())

    def _sizes(self) -> tuple[int, int, int, int]:
        """Return the numbers of sources, queries, tokens of noise and answers, after checks."""
        table: Any = np.asarray(self.table)
        if table.ndim != 2 or not table.size or table.dtype.kind not in "iu" or table.min() < 0:
            raise InputError(
                f"table is {self.table!r}: give sources x queries whole numbers of 0 or more"
            )
        checks.count("num_noise", self.num_noise)
        return table.shape[0], table.shape[1], self.num_noise, int(table.max()) + 1

    def sample(self, key: Key[Array, ""], batch: int) -> Float[Array, "batch length features"]:
        """Draw `batch` independent sequences with one use of `key`."""
        sources, queries, noise, _ = self._sizes()
        _check_sizes(2, self.length, batch)
        checks.count("length", self.length, minimum=3)
        key_source, key_query, key_noise, key_place = jax.random.split(key, 4)
        source = jax.random.randint(key_source, (batch, 1), 0, sources)
        query = jax.random.randint(key_query, (batch, 1), 0, queries)
        place = jax.random.randint(key_place, (batch, 1), 0, self.length - 2)
        tokens = jax.random.randint(key_noise, (batch, self.length - 2), 0, noise)
        tokens = sources + queries + tokens
        tokens = jnp.where(jnp.arange(self.length - 2)[None] == place, source, tokens)
        answer = sources + queries + noise + jnp.asarray(self.table)[source, query]
        tokens = jnp.concatenate([tokens, sources + query, answer], axis=1)
        return _one_hot(tokens, self.num_features)


def _shares(key: Key[Array, ""], concentration: Any, shape: tuple[int, ...]) -> Array:
    """Draw rows in proportion to a Dirichlet distribution; exponentials are the cheap way for 1."""
    if isinstance(concentration, int | float) and concentration == 1:
        return jax.random.exponential(key, shape)
    # The gammas of a small concentration are too small for a float, and only logarithms hold them.
    return jax.random.dirichlet(key, jnp.full(shape[-1], concentration, float), shape[:-1])


def _one_hot(tokens: Int[Array, "batch length"], number: int) -> Float[Array, "batch length token"]:
    return jax.nn.one_hot(tokens, number, dtype=jnp.result_type(float))


def _check_sizes(num_features: int, length: int, batch: int) -> None:
    checks.count("num_features", num_features, minimum=2)
    checks.count("length", length, minimum=2)
    checks.count("batch", batch)
