"""`value_and_grad` of a batch mean as one fused loop, for functions of few numbers.

A model of ten parameters spends its time moving tiny arrays between kernels. So the loss
and gradient of ONE example are traced, every array in that program is taken apart into its
elements, each element becomes a vector over the batch (`elements.py`), and all outputs are
summed in a single variadic `lax.reduce`. XLA compiles that to one loop over the batch:
forward pass, backward pass and sums, with the accumulators in registers.

Correct before fast: a program with any operation that is not evaluated exactly, or too
large for registers, takes the ordinary path, `jax.value_and_grad` of the mean: the same
numbers to rounding. `explain` tells which path is taken and why.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend import core
from jaxtyping import Array, Float, Int, PyTree

from toymodels.engine import choices, columns, draws, elements

Loss: TypeAlias = Callable[[Any, Any], Float[Array, ""]]
Finish: TypeAlias = Callable[[Any], Any]
# From a function of parameters to one: the function itself, its gradient, or both.
Transform: TypeAlias = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]

MAX_SUMS = 112
"""The maximum number of sums over the batch that one loop carries.

Measured on AVX-512 cores with batches of 1024, fused against ordinary path, in thousand
model-steps per second of processor time: 203 / 103 at 33 sums, 109 / 65 at 49, 56 / 36 at 85,
37 / 37 at 121, 19 / 22 at 169, 15 / 17 at 211. At 121 the fused loop takes 3.5 times as long
to compile.
"""

LARGEST = 4096
"""The maximum number of examples in one running sum. Larger batches are cut into blocks."""
BLOCK = 1024
"""The number of examples in a block."""


class Explanation(NamedTuple):
    """The path of the engine that computes a loss, and why it was chosen.

    Attributes:
        fused: True for the fused loop, False for the ordinary path.
        reason: a sentence that names what decided.
    """

    fused: bool
    reason: str


def value_and_grad(loss: Loss) -> Callable[[Any, Any], tuple[Float[Array, ""], Any]]:
    r"""Return the value and the gradient of the mean of `loss`, fused where that is exact.

    $$\ell = \frac{1}{B} \sum_{b=1}^B \mathrm{loss}(\theta, x_b), \qquad
      \nabla_\theta\, \ell$$

    Equal to `jax.value_and_grad` of that mean up to rounding. May be differentiated again,
    mapped by `vmap` and called inside `scan`. On the ordinary path, `vmap` on a CPU runs one
    model after another, so that each stays in cache.

    Args:
        loss: a function of parameters and ONE example that returns a scalar. It may close
            over traced numbers.

    Returns:
        A function of parameters and a batch (every leaf with a leading batch axis), to the
        mean loss and its gradient by the parameters.
    """
    return _mean(jax.value_and_grad, loss, lambda batch: batch)


def grad(loss: Loss, finish: Finish = lambda batch: batch) -> Callable[[Any, Any], Any]:
    """Return the gradient of the mean of `loss` over a batch; see `value_and_grad`.

    Args:
        loss: a function of parameters and ONE example that returns a scalar.
        finish: makes the batch from the second argument of the result, which is a batch or
            the rows of a `draws.Shared`. Where models run one after another, each batch is made
            when its model runs, so that no two batches exist at once.
    """
    return _mean(jax.grad, loss, finish)


def value(
    loss: Loss, finish: Finish = lambda batch: batch
) -> Callable[[Any, Any], Float[Array, ""]]:
    """Return the mean of `loss` over a batch; see `grad`."""
    return _mean(lambda of_params: of_params, loss, finish)


class _Program(NamedTuple):
    """A loss and the maker of its batches, traced for arrays of known shapes.

    Attributes:
        finish: the traced maker of a batch from the random arrays of a run.
        loss: the traced loss of parameters and ONE example.
        batch: the shapes of a batch.
    """

    finish: core.ClosedJaxpr
    loss: core.ClosedJaxpr
    batch: PyTree

    def traced_numbers(self) -> list[Any]:
        """Return the numbers that loss and maker captured and that are not known yet."""
        return [const for const in self._consts() if not elements.is_known(const)]

    def with_numbers(self, traced: Sequence[Any]) -> "_Program":
        """Return the program with other values for `traced_numbers`."""
        rest = iter(traced)
        consts = [const if elements.is_known(const) else next(rest) for const in self._consts()]
        number = len(self.finish.consts)
        return _Program(
            core.ClosedJaxpr(self.finish.jaxpr, consts[:number]),
            core.ClosedJaxpr(self.loss.jaxpr, consts[number:]),
            self.batch,
        )

    def make_batch(self, row: PyTree) -> PyTree:
        """Return the batch that is made of the random arrays of one run."""
        leaves = core.jaxpr_as_fun(self.finish)(*jax.tree.leaves(row))
        return jax.tree.unflatten(jax.tree.structure(self.batch), leaves)

    def _consts(self) -> list[Any]:
        return [*self.finish.consts, *self.loss.consts]


def _mean(transform: Transform, loss: Loss, finish: Finish) -> Callable[[Any, Any], Any]:
    """Apply `transform`, which must be linear, to the mean of `loss` over a batch."""

    def batched(params: PyTree, batch: PyTree) -> Any:
        params, batch = jax.tree.map(jnp.asarray, (params, batch))
        pooled = isinstance(batch, draws.Shared)
        rows, slot = batch if pooled else (batch, jnp.zeros((), jnp.int32))
        finishing, shapes = jax.make_jaxpr(finish, return_shape=True)(rows)
        program = _Program(finishing, _trace(loss, params, shapes), shapes)

        def ordinary(traced: list[Any], params: PyTree, row: PyTree) -> Any:
            whole = program.with_numbers(traced)
            return _ordinary(transform, whole.loss, params, whole.make_batch(row))

        # A variadic reduce has no reverse mode, so derivatives of the mean are those of the
        # ordinary path. The traced numbers that `loss` captured are arguments, because neither
        # decorator allows a closure over them. The known ones are not: as arguments they would
        # no longer be known while tracing.
        @jax.custom_jvp
        def mean(traced: list[Any], params: PyTree, rows: PyTree, slot: Int[Array, ""]) -> Any:
            whole = program.with_numbers(traced)
            try:
                row = draws.pick(rows, slot) if pooled else rows
                return _fused(transform, whole.loss, params, whole.make_batch(row))
            except elements.NotFusableError:
                # On an accelerator a loop over models would launch its kernels one by one.
                if jax.default_backend() == "cpu":
                    return _one_by_one(ordinary)(traced, params, rows, slot)
                return ordinary(traced, params, draws.pick(rows, slot))

        @mean.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            traced, params, rows, slot = primals
            if not pooled:
                return jax.jvp(ordinary, primals[:3], tangents[:3])
            row = draws.pick(rows, slot)  # made of keys, which have no derivative
            return jax.jvp(lambda t, p: ordinary(t, p, row), (traced, params), tangents[:2])

        return mean(program.traced_numbers(), params, rows, slot)

    return batched


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with a rule for `vmap` that runs it in a loop, one model at a time."""

    @custom_vmap
    def one(traced: list[Any], params: PyTree, rows: PyTree, slot: Int[Array, ""]) -> Any:
        del slot
        return function(traced, params, rows)

    @one.def_vmap  # pyright: ignore[reportArgumentType]
    def _(size: int, batched: Any, traced: Any, params: Any, rows: Any, slot: Any) -> Any:
        def at(place: Int[Array, ""]) -> Any:
            own = place if not batched[3] else slot[place]
            captured, ours = _row((traced, params), tuple(batched[:2]), place)
            return one(captured, ours, _row(rows, batched[2], own), jnp.zeros((), jnp.int32))

        outputs = lax.map(at, jnp.arange(size))
        return outputs, jax.tree.map(lambda _: True, outputs)

    return one


def _row(tree: PyTree, batched: PyTree, index: Int[Array, ""]) -> PyTree:
    """Take one row of each batched leaf; the other leaves are shared by all models."""

    def pick(leaf: Array, many: bool) -> Array:
        return lax.dynamic_index_in_dim(leaf, index, keepdims=False) if many else leaf

    return jax.tree.map(pick, tree, batched)


def explain(loss: Loss, params: PyTree, batch: PyTree) -> Explanation:
    """Explain whether `value_and_grad(loss)` runs as one fused loop for these shapes.

    Args:
        loss: of parameters and ONE example.
        params: arrays or `jax.ShapeDtypeStruct`s.
        batch: arrays or `jax.ShapeDtypeStruct`s, every leaf with a leading batch axis.
    """

    def attempt(params: PyTree, batch: PyTree) -> Any:
        return _fused(jax.value_and_grad, _trace(loss, params, batch), params, batch)

    try:
        jax.eval_shape(attempt, params, batch)
    except elements.NotFusableError as refusal:
        return Explanation(fused=False, reason=str(refusal))
    return Explanation(fused=True, reason="every operation is known to the fused loop")


def _trace(loss: Loss, params: PyTree, batch: PyTree) -> core.ClosedJaxpr:
    """Trace the loss of one example; `consts` hold the arrays that it captured."""
    shapes = {leaf.shape for leaf in jax.tree.leaves(batch)}
    if len({shape[:1] for shape in shapes}) != 1 or {shape[:1] for shape in shapes} <= {(), (0,)}:
        raise ValueError(
            f"every leaf of a batch needs the same leading batch axis, of 1 or more: got {shapes}"
        )
    closed, output = jax.make_jaxpr(loss, return_shape=True)(params, _example(batch))
    if jax.tree.structure(output) != jax.tree.structure(0) or output.shape:
        raise ValueError(
            f"loss returns {output} for one example; it must return one number: sum over the "
            "outputs"
        )
    return closed


def _example(batch: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), batch)


def _ordinary(transform: Transform, loss: core.ClosedJaxpr, params: PyTree, batch: PyTree) -> Any:
    """Evaluate the mean for all examples side by side, with products of matrices."""

    def mean(params: PyTree) -> Float[Array, ""]:
        examples = jax.tree.leaves(batch)
        written_out = choices.compared(loss)
        shared = [columns.Columns(leaf, many=False) for leaf in jax.tree.leaves(params)]
        apart = [columns.Columns(jnp.moveaxis(leaf, 0, -1), many=True) for leaf in examples]
        ((losses, _),) = columns.evaluate(
            written_out.jaxpr,
            written_out.consts,
            [*shared, *apart],
            batch=examples[0].shape[0],
        )
        return jnp.mean(losses)

    return transform(mean)(params)


def _fused(transform: Transform, loss: core.ClosedJaxpr, params: PyTree, batch: PyTree) -> Any:
    """Evaluate the mean as one loop over the examples.

    Raises:
        NotFusableError: the loop cannot be made, or it would be slower than the ordinary path.
    """
    sums = 1 + sum(leaf.size for leaf in jax.tree.leaves(params))
    if sums > MAX_SUMS:
        raise elements.NotFusableError(
            f"{sums} sums over the batch (the loss and a gradient for each parameter), more "
            f"than {MAX_SUMS}: the fused loop would gain little and compile slowly"
        )
    loss = choices.compared(loss, declared=True)
    program, shapes = _of_one_example(transform, loss, params, batch)

    def of_many(examples: Sequence[Array]) -> Sequence[Any]:
        size = examples[0].shape[0]
        outputs = elements.Interpreter(batch=size).run(
            program,
            [
                *map(elements.known, loss.consts),
                *map(elements.apart, jax.tree.leaves(params)),
                *(elements.apart(leaf, batched=True) for leaf in examples),
            ],
        )
        flat = [element for output in outputs for element in elements.objects(output).flat]
        means = iter(_means(flat, batch=size))
        return [
            jnp.stack([next(means) for _ in range(output.size)]).reshape(output.shape)
            for output in outputs
        ]

    return jax.tree.unflatten(
        jax.tree.structure(shapes), _in_blocks(of_many, jax.tree.leaves(batch))
    )


def _of_one_example(
    transform: Transform, loss: core.ClosedJaxpr, params: PyTree, batch: PyTree
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

    closed, shapes = jax.make_jaxpr(of_one, return_shape=True)(loss.consts, params, _example(batch))
    if closed.effects:
        raise elements.NotFusableError(f"the loss has side effects: {closed.effects}")
    return closed, shapes


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
