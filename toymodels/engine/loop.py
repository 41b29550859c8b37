"""The fused loop: the mean over a batch, of a loss and its derivatives, as one loop of XLA.

A model of ten parameters spends its time moving tiny arrays between kernels. So the loss and
the gradient of ONE example are traced, every array in that program is taken apart into its
elements, each element becomes a vector over the batch (`elements.py`), and all outputs are
summed in a single `lax.reduce` of many operands. XLA compiles that to one loop over the batch
with the forward pass, the backward pass and the sums, which stay in registers.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array, PyTree

from toymodels.engine import choices, elements
from toymodels.engine.devices import backend

# Takes a function of parameters and returns the function itself, its gradient, or both.
Transform: TypeAlias = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]

MAX_SUMS = 112
"""The maximum number of sums over the batch that one loop carries.

Measured on AVX-512 cores with batches of 1024, fused against ordinary path, in thousand
model-steps per second of processor time: 203 / 103 at 33 sums, 109 / 65 at 49, 56 / 36 at 85,
37 / 37 at 121, 19 / 22 at 169, 15 / 17 at 211. At 121 the fused loop takes 3.5 times as long
to compile.
"""

PIECES = 4
"""The number of pieces of a batch that an accelerator adds up in registers.

There the forward and the backward pass is one kernel and the sum over the examples another, which
reads what the first has written. Each thread of the first kernel evaluates one example of each
piece and writes the sums of these, a quarter as many numbers. A model of 5 features and 2 hidden
dimensions then moves 72 kB in an update instead of 136 kB, and with 8 pieces 57 kB, but compiling
takes longer by half (counted in the programs that `toymodels cost` compiles for an H100).
"""

LARGEST = 4096
"""The maximum number of examples in one running sum. Larger batches are cut into blocks."""
BLOCK = 1024
"""The number of examples in a block."""

TERMS_OF_A_TURN = 2**17
"""The number of terms that the lanes of one turn of a block add up at least; see `lanes`.

A turn then takes about 15 microseconds, and its start a small part of that. Of 5 features and 2
hidden dimensions with batches of 1024, a block of 64 lanes has eight turns of 8: it takes as long
as one turn of 64, and a single cell takes a quarter of it. With batches of 128, turns of 8 lanes
would make a full block slower by a quarter.
"""


def example(batch: PyTree) -> PyTree:
    """Return the shapes of ONE example of a batch, or of the shapes of a batch."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), batch)


def mean(transform: Transform, loss: core.ClosedJaxpr, params: PyTree, batch: PyTree) -> Any:
    """Evaluate the mean as one loop over the examples.

    Raises:
        NotFusableError: the loop cannot be made, or it would be slower than the ordinary path.
    """
    if (sums := number_of_sums(params)) > MAX_SUMS:
        raise elements.NotFusableError(
            f"{sums} sums over the batch (the loss and a gradient for each parameter), more "
            f"than {MAX_SUMS}: the fused loop would gain little and compile slowly"
        )
    elements.refuse_control_flow(loss)
    loss = choices.compared(loss, declared=True)
    program, shapes = of_one_example(transform, loss, params, example(batch))

    def evaluated(examples: Sequence[Array]) -> Sequence[Any]:
        return elements.Interpreter(batch=examples[0].shape[0]).run(
            program,
            [
                *map(elements.known, loss.consts),
                *map(elements.apart, jax.tree.leaves(params)),
                *(elements.apart(leaf, batched=True) for leaf in examples),
            ],
        )

    def of_many(examples: Sequence[Array]) -> Sequence[Any]:
        size = examples[0].shape[0]
        pieces = [evaluated(piece) for piece in _pieces(examples)]
        flat = [_flat(outputs) for outputs in pieces]
        means = iter(_means(flat[0] if len(flat) == 1 else _added(flat), batch=size))
        return [
            jnp.stack([next(means) for _ in range(output.size)]).reshape(output.shape)
            for output in pieces[0]
        ]

    return jax.tree.unflatten(
        jax.tree.structure(shapes), _in_blocks(of_many, jax.tree.leaves(batch))
    )


def lanes_together(params: PyTree, batch: PyTree) -> int:
    """Return how many lanes have at least `TERMS_OF_A_TURN` terms together, a power of two."""
    terms = number_of_sums(params) * jax.tree.leaves(batch)[0].shape[0]
    return 2 ** max(math.ceil(math.log2(TERMS_OF_A_TURN / terms)), 0)


def of_one_example(
    transform: Transform, loss: core.ClosedJaxpr, params: PyTree, example: PyTree
) -> tuple[core.ClosedJaxpr, Any]:
    """Trace the transformed loss of ONE example; its first arguments are what the loss captured.

    Returns:
        The traced program and the shapes of its outputs.
    """

    def of_one(captured: Sequence[Any], params: PyTree, example: PyTree) -> Any:
        def value(params: PyTree) -> Array:
            own = core.ClosedJaxpr(loss.jaxpr, captured)
            (value,) = core.jaxpr_as_fun(own)(*jax.tree.leaves((params, example)))
            return jnp.asarray(value)

        return transform(value)(params)

    closed, shapes = jax.make_jaxpr(of_one, return_shape=True)(loss.consts, params, example)
    if closed.effects:
        raise elements.NotFusableError(f"the loss has side effects: {closed.effects}")
    return closed, shapes


def number_of_sums(params: PyTree) -> int:
    """Return the number of sums of the loss and of a gradient for each parameter."""
    return 1 + sum(leaf.size for leaf in jax.tree.leaves(params))


def _in_blocks(
    of_many: Callable[[Sequence[Array]], Sequence[Array]], examples: Sequence[Array]
) -> Sequence[Array]:
    """Average the means over blocks of a batch, because one running sum of all would drift."""
    batch = examples[0].shape[0]
    if batch <= LARGEST:
        return of_many(examples)
    whole = batch // BLOCK * BLOCK
    blocks = [leaf[:whole].reshape(-1, BLOCK, *leaf.shape[1:]) for leaf in examples]
    _, means = lax.scan(lambda carry, block: (carry, of_many(block)), None, blocks)
    means = [mean.mean(0) for mean in means]
    if whole == batch:
        return means
    rest = of_many([leaf[whole:] for leaf in examples])
    share = (batch - whole) / batch
    return [a + share * (b - a) for a, b in zip(means, rest, strict=True)]


def _pieces(examples: Sequence[Array]) -> list[Sequence[Array]]:
    """Return the pieces of a batch that are evaluated side by side and added; see `PIECES`."""
    size, rest = divmod(examples[0].shape[0], PIECES)
    if backend() == "cpu" or rest:
        return [examples]
    starts = range(0, size * PIECES, size)
    return [[leaf[start : start + size] for leaf in examples] for start in starts]


def _flat(outputs: Sequence[Any]) -> list[elements.Scalar]:
    return [element for output in outputs for element in elements.objects(output).flat]


def _added(pieces: Sequence[Sequence[elements.Scalar]]) -> list[elements.Scalar]:
    """Add up what varies over the examples; XLA is told to write these sums, and no terms."""
    added = [
        functools.reduce(operator.add, each) if np.shape(each[0]) else each[0]
        for each in zip(*pieces, strict=True)
    ]
    return [lax.optimization_barrier(each) if np.shape(each) else each for each in added]


def _means(scalars: Sequence[elements.Scalar], batch: int) -> list[Array]:
    """Return the mean of each element over the batch, all computed in one reduction."""
    varying = [scalar for scalar in scalars if np.shape(scalar)]
    if len(varying) == 1:
        # XLA hands a reduction of one operand to a library, and then computes every operation on
        # the batch in a loop of its own. A reduction of two operands, both used, stays one loop.
        (total, negative) = _sums([*varying, -varying[0]])
        sums = iter([(total - negative) / 2])
    else:
        sums = iter(_sums(varying))
    return [
        next(sums) / jnp.asarray(batch, scalar.dtype) if np.shape(scalar) else jnp.asarray(scalar)
        for scalar in scalars
    ]


def _sums(vectors: Sequence[Array]) -> Sequence[Array]:
    zeros = tuple(np.zeros((), vector.dtype)[()] for vector in vectors)
    return lax.reduce(tuple(vectors), zeros, _add, (0,)) if vectors else ()


def _add(left: Sequence[Array], right: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))
