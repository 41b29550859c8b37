"""`value_and_grad` of a batch mean, on the faster of two paths that give the same numbers.

A loss of few numbers takes the fused loop (`loop.py`). A loss with an operation that the loop
does not evaluate exactly, or with too many sums for registers, takes the ordinary path,
`jax.value_and_grad` of the mean over the examples as columns (`columns.py`). Both give the same
numbers up to rounding. `explain` says which path a loss takes and why.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float, Int, PyTree

from toymodels.engine import choices, columns, draws, elements, kernel, lanes, loop, products
from toymodels.engine.devices import backend
from toymodels.errors import InputError

Loss: TypeAlias = Callable[[Any, Any], Float[Array, ""]]
Finish: TypeAlias = Callable[[Any], Any]


class Explanation(NamedTuple):
    """The path of the engine that computes a loss, and why it was chosen.

    Attributes:
        fused: True for the fused loop, False for the ordinary path.
        reason: a sentence that names what decided.
    """

    fused: bool
    reason: str


def value_and_grad(
    loss: Loss, finish: Finish = lambda batch: batch
) -> Callable[[Any, Any], tuple[Float[Array, ""], Any]]:
    r"""Return the value and the gradient of the mean of `loss`, fused where that is exact.

    $$\ell = \frac{1}{B} \sum_{b=1}^B \mathrm{loss}(\theta, x_b), \qquad
      \nabla_\theta\, \ell$$

    Both are those of `jax.value_and_grad` of that mean, up to rounding. The function may be
    differentiated again, mapped by `vmap` and called inside `scan`. On the ordinary path, `vmap` on
    a CPU runs one model after another, so that each stays in cache.

    Args:
        loss: a function of parameters and ONE example that returns a scalar. It may close
            over traced numbers.
        finish: see `grad`.

    Returns:
        A function of parameters and a batch (every leaf with a leading batch axis), to the
        mean loss and its gradient by the parameters.
    """
    return lambda params, batch: traced(loss, params, batch, finish).value_and_grad(params, batch)


def grad(loss: Loss, finish: Finish = lambda batch: batch) -> Callable[[Any, Any], Any]:
    """Return the gradient of the mean of `loss` over a batch; see `value_and_grad`.

    Args:
        loss: a function of parameters and ONE example that returns a scalar.
        finish: makes the batch from the second argument of the result, which is a batch or
            the rows of a `draws.Shared`. Where models run one after another, each batch is made
            when its model runs, so that no two batches exist at once.
    """
    return lambda params, batch: traced(loss, params, batch, finish).grad(params, batch)


def value(
    loss: Loss, finish: Finish = lambda batch: batch
) -> Callable[[Any, Any], Float[Array, ""]]:
    """Return the mean of `loss` over a batch; see `grad`."""
    return lambda params, batch: traced(loss, params, batch, finish).value(params, batch)


class Mean(NamedTuple):
    """The mean of a loss over a batch, traced for arrays of known shapes; `traced` makes it.

    Whoever needs both the value and the gradient traces once and asks for each where it is needed.

    Attributes:
        finish: the traced maker of a batch from the random arrays of a run.
        loss: the traced loss of parameters and ONE example.
        batch: the shapes of a batch.
    """

    finish: core.ClosedJaxpr
    loss: core.ClosedJaxpr
    batch: PyTree

    @property
    def dtype(self) -> Any:
        """The number type of the mean."""
        (loss,) = self.loss.out_avals
        return jax.eval_shape(jnp.mean, jax.ShapeDtypeStruct((1,), loss.dtype)).dtype

    def value(self, params: PyTree, batch: PyTree) -> Float[Array, ""]:
        """Return the mean; the arguments have the shapes that it was traced for."""
        return _mean(lambda of_params: of_params, self, params, batch)

    def grad(self, params: PyTree, batch: PyTree) -> PyTree:
        """Return the gradient of the mean by the parameters; see `value`."""
        return _mean(jax.grad, self, params, batch)

    def value_and_grad(self, params: PyTree, batch: PyTree) -> tuple[Float[Array, ""], PyTree]:
        """Return the mean and its gradient by the parameters; see `value`."""
        return _mean(jax.value_and_grad, self, params, batch)

    def traced_numbers(self) -> list[Any]:
        """Return the numbers that loss and maker captured and that are not known yet."""
        return [const for const in self._consts() if not elements.is_known(const)]

    def with_numbers(self, traced: Sequence[Any]) -> "Mean":
        """Return the mean with other values for `traced_numbers`."""
        rest = iter(traced)
        consts = [const if elements.is_known(const) else next(rest) for const in self._consts()]
        number = len(self.finish.consts)
        return Mean(
            core.ClosedJaxpr(self.finish.jaxpr, consts[:number]),
            core.ClosedJaxpr(self.loss.jaxpr, consts[number:]),
            self.batch,
        )

    def make_batch(self, row: PyTree) -> PyTree:
        """Return the batch that is made of the random arrays of one run."""
        leaves = core.jaxpr_as_fun(self.finish)(*jax.tree.leaves(row))
        return jax.tree.unflatten(jax.tree.structure(self.batch), leaves)

    def lanes_together(self, params: PyTree) -> int | None:
        """Return how many lanes of a block are computed together in turns; None if all are.

        All are if the maker of a batch multiplies matrices, because last bits of a product of all
        lanes can depend on the place of a lane; see `products`, which knows lanes by their number.
        """
        if backend() != "cpu" or products.any_in(self.finish.jaxpr):
            return None
        return loop.lanes_together(params, self.batch)

    def _consts(self) -> list[Any]:
        return [*self.finish.consts, *self.loss.consts]


def traced(loss: Loss, params: PyTree, batch: PyTree, finish: Finish = lambda batch: batch) -> Mean:
    """Trace the mean of `loss` over a batch.

    Args:
        loss: a function of parameters and ONE example that returns a scalar.
        params: parameters of the shapes that the mean is for.
        batch: a batch, or a `draws.Shared`, of these shapes.
        finish: see `grad`.
    """
    params, batch = jax.tree.map(jnp.asarray, (params, batch))
    rows = batch.rows if isinstance(batch, draws.Shared) else batch
    finishing, shapes = jax.make_jaxpr(finish, return_shape=True)(rows)
    return Mean(finishing, _trace(loss, params, shapes), shapes)


def _mean(transform: loop.Transform, program: Mean, params: PyTree, batch: PyTree) -> Any:
    """Apply `transform`, which must be linear, to the mean of a loss over a batch."""
    params, batch = jax.tree.map(jnp.asarray, (params, batch))
    pooled = isinstance(batch, draws.Shared)
    rows, slot = batch if pooled else (batch, jnp.zeros((), jnp.int32))

    def ordinary(traced: list[Any], params: PyTree, row: PyTree) -> Any:
        whole = program.with_numbers(traced)
        return _ordinary(transform, whole.loss, params, whole.make_batch(row))

    def fused(traced: list[Any], params: PyTree, row: PyTree) -> Any:
        whole = program.with_numbers(traced)
        return loop.mean(transform, whole.loss, params, whole.make_batch(row))

    # A variadic reduce has no reverse mode, so derivatives of the mean are those of the
    # ordinary path. The traced numbers that `loss` captured are arguments, because neither
    # decorator allows a closure over them. The known ones are not: as arguments they would
    # no longer be known while tracing.
    @jax.custom_jvp
    def mean(traced: list[Any], params: PyTree, rows: PyTree, slot: Int[Array, ""]) -> Any:
        whole = program.with_numbers(traced)
        if kernel.in_kernels.value:
            with contextlib.suppress(elements.NotFusableError):
                return kernel.mean(transform, whole.finish, whole.loss, params, rows, slot)
        with contextlib.suppress(elements.NotFusableError):
            evaluate = lanes.side_by_side(fused, program.lanes_together(params))
            return evaluate(traced, params, rows, slot)
        if backend() == "cpu":
            return lanes.one_by_one(ordinary)(traced, params, rows, slot)
        # On an accelerator a loop over models would launch its kernels one by one.
        return ordinary(traced, params, draws.pick(rows, slot))

    @mean.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        traced, params, rows, slot = primals
        if not pooled:
            return jax.jvp(ordinary, primals[:3], tangents[:3])
        row = draws.pick(rows, slot)  # made of keys, which have no derivative
        return jax.jvp(lambda t, p: ordinary(t, p, row), (traced, params), tangents[:2])

    return mean(program.traced_numbers(), params, rows, slot)


def explain(loss: Loss, params: PyTree, batch: PyTree) -> Explanation:
    """Explain whether `value_and_grad(loss)` runs as one fused loop for these shapes.

    Args:
        loss: of parameters and ONE example.
        params: arrays or `jax.ShapeDtypeStruct`s.
        batch: arrays or `jax.ShapeDtypeStruct`s, every leaf with a leading batch axis.
    """

    def attempt(params: PyTree, batch: PyTree) -> Any:
        return loop.mean(jax.value_and_grad, _trace(loss, params, batch), params, batch)

    try:
        jax.eval_shape(attempt, params, batch)
    except elements.NotFusableError as refusal:
        return Explanation(fused=False, reason=str(refusal))
    return Explanation(fused=True, reason="every operation is known to the fused loop")


def _trace(loss: Loss, params: PyTree, batch: PyTree) -> core.ClosedJaxpr:
    """Trace the loss of one example; `consts` hold the arrays that it captured."""
    shapes = {leaf.shape for leaf in jax.tree.leaves(batch)}
    if len({shape[:1] for shape in shapes}) != 1 or {shape[:1] for shape in shapes} <= {(), (0,)}:
        raise InputError(
            "every array of a batch needs the same leading batch axis, of 1 or more: got "
            f"{', '.join(map(str, sorted(shapes))) or 'no array'}"
        )
    closed, output = jax.make_jaxpr(loss, return_shape=True)(params, loop.example(batch))
    if jax.tree.structure(output) != jax.tree.structure(0) or output.shape:
        returned = jax.tree.map(lambda leaf: getattr(leaf, "shape", leaf), output)
        raise InputError(
            f"loss returns shape {returned} for one example: return one number, such as the sum "
            "over the outputs"
        )
    return closed


def _ordinary(
    transform: loop.Transform, loss: core.ClosedJaxpr, params: PyTree, batch: PyTree
) -> Any:
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
