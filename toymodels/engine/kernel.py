"""The fused loop of all models of a sweep as one kernel of a graphics card.

On a card, XLA cuts the loss and the gradient of a batch into several kernels, and what one hands to
the next goes through memory. Here they are one kernel. A group of 128 threads takes one model. Each
thread takes every 128th example, and evaluates the program of ONE example element by element with
`elements`, as the fused loop of a CPU does. The sums stay in registers until the threads add them
up. Models that share a row of random words read it from the cache of the card.

One kernel makes one step. Random words come from `draws`, and the update is no part of the kernel,
so any sampler whose examples are independent and any optimizer will do. To keep the weights in
registers for many steps would save the starts of some four kernels a step, which a thousand models
at once hide.

The kernel is written in Pallas for Mosaic GPU, which needs a card of NVIDIA's Hopper generation or
newer. The other compiler of Pallas for cards, Triton, is deprecated from JAX 0.11 on, and
`jax.export`, by which a sweep sends its program to other machines, promises nothing about its
programs. No card has run the kernel yet, so it is used only inside `with in_kernels(True)`. A
program for a CPU interprets it there, which is slow and serves the tests.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend import core
from jaxtyping import Array, Int, PyTree, Shaped

from toymodels.engine import choices, elements, examples, loop
from toymodels.engine.devices import backend
from toymodels.engine.elements import NotFusableError

in_kernels = jax.make_user_context()
"""Trace losses as kernels where that is possible, as in `with in_kernels(True)`."""

THREADS = 128
"""The threads of a group: four warps of 32, which Mosaic GPU calls a warpgroup."""

# What `elements` knows and the compiler of Mosaic GPU does not, at JAX 0.10.
_UNKNOWN = frozenset(
    """
    acos acosh asin asinh atan atanh cbrt ceil copy cosh digamma erf_inv erfc expm1 floor
    is_finite lgamma log1p log2 nextafter one_minus_square polynomial pow sinh sqrt
    stop_gradient tan
    """.split()
)


class _Model(NamedTuple):
    """The program of ONE example of one model.

    Attributes:
        program: a function of the numbers that the loss captured, of the parameters, and of the
            random numbers of an example.
        consts: the captured numbers; those that are not known yet are read from memory.
        batch: the number of examples.
    """

    program: core.ClosedJaxpr
    consts: Sequence[Any]
    batch: int


def mean(
    transform: loop.Transform,
    finish: core.ClosedJaxpr,
    loss: core.ClosedJaxpr,
    params: PyTree,
    rows: PyTree,
    slot: Int[Array, ""],
) -> Any:
    """Evaluate the mean of a loss over a batch in a kernel; under `vmap`, in one for all models.

    Args:
        transform: see `engine.loop`.
        finish: the traced maker of a batch from the random arrays of a run.
        loss: the traced loss of parameters and ONE example.
        params: the parameters.
        rows: the random arrays. Under `vmap` they may be those of several runs.
        slot: which of the rows belong to this run; see `draws.Shared`.

    Raises:
        NotFusableError: the kernel cannot be made.
    """
    if backend() not in ("cpu", "cuda", "gpu"):
        raise NotFusableError(f"kernels are for cards of NVIDIA, and not for {backend()}")
    batch = finish.out_avals[0].shape[0]
    if batch % THREADS:
        raise NotFusableError(f"{batch} examples are no multiple of {THREADS} threads")
    if (
        sums := loop.number_of_sums(params)
    ) > loop.MAX_SUMS:  # near which a thread has the 255 registers that it can have
        raise NotFusableError(f"{sums} sums over the batch are more than {loop.MAX_SUMS}")
    leaves = jax.tree.leaves(rows)
    leaves = [jnp.moveaxis(leaf, examples.axis(leaf.shape, batch), -1) for leaf in leaves]
    example = [jax.ShapeDtypeStruct(leaf.shape[:-1], leaf.dtype) for leaf in leaves]
    make = examples.of_one(finish, batch)
    compared = core.jaxpr_as_fun(choices.compared(loss, declared=True))

    def whole(params: Sequence[Array], example: Sequence[Array]) -> Array:
        (value,) = compared(*params, *make(example))
        return value

    traced = jax.make_jaxpr(whole)(jax.tree.leaves(params), example)
    program, shapes = loop.of_one_example(transform, traced, params, example)
    _check(program.jaxpr)
    captured = [const for const in traced.consts if not elements.is_known(const)]
    numbers = [*captured, *jax.tree.leaves(params)]
    for leaf in (*numbers, *leaves):
        if leaf.dtype.itemsize != 4:
            raise NotFusableError(f"a kernel reads no {leaf.dtype} numbers")
    evaluate = _for_all_models(_Model(program, traced.consts, batch))
    outputs = evaluate(numbers, leaves, slot)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _check(jaxpr: core.Jaxpr) -> None:
    """Raise `NotFusableError` if the compiler of kernels does not know an operation."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in _UNKNOWN:
            raise NotFusableError(f"primitive '{name}' is not known to the compiler of kernels")
        for inner in core.jaxprs_in_params(equation.params):
            _check(inner)


def _for_all_models(model: _Model) -> Callable[..., list[Array]]:
    """Return a function of one model's numbers that `vmap` turns into one kernel of all models.

    Its arguments are the captured numbers and the parameters, the random arrays, and the slot.
    """

    @custom_vmap
    def one(numbers: Any, rows: Any, slot: Int[Array, ""]) -> list[Array]:
        alone = jax.tree.map(lambda leaf: leaf[None], (numbers, rows, slot))
        return [output[0] for output in _launch(model, *alone)]

    @one.def_vmap  # pyright: ignore[reportArgumentType]
    def _(size: int, batched: Any, numbers: Any, rows: Any, slots: Any) -> Any:
        many_numbers, many_rows, many_slots = batched
        numbers = [
            leaf if many else leaf[None] for leaf, many in zip(numbers, many_numbers, strict=True)
        ]
        if not any(many_rows):  # all models share one batch
            rows, slots = [row[None] for row in rows], jnp.zeros(size, jnp.int32)
        else:
            rows = [
                row if many else jnp.broadcast_to(row, (size, *row.shape))
                for row, many in zip(rows, many_rows, strict=True)
            ]
            slots = slots if many_slots else jnp.arange(size, dtype=jnp.int32)
        outputs = _launch(model, numbers, rows, slots)
        return outputs, [True for _ in outputs]

    return one


def _launch(
    model: _Model,
    numbers: Sequence[Shaped[Array, "_ ..."]],
    rows: Sequence[Shaped[Array, "runs ..."]],
    slots: Int[Array, " models"],
) -> list[Array]:
    """Run the kernel and return each output with a leading axis of models.

    Args:
        model: the program of ONE example.
        numbers: with a leading axis of models, or of one entry where all models share a number.
        rows: with a leading axis of runs and a last axis of examples.
        slots: which of the runs each model belongs to.
    """
    from jax.experimental import pallas  # here, because it imports several compilers
    from jax.experimental.pallas import mosaic_gpu

    outputs: Sequence[Any] = model.program.out_avals
    types = [
        jax.ShapeDtypeStruct((len(slots), math.prod(aval.shape)), aval.dtype) for aval in outputs
    ]
    shapes = [leaf.shape[1:] for leaf in numbers], [row.shape[1:-1] for row in rows]
    flat_numbers = [leaf.reshape(len(leaf), -1) for leaf in numbers]
    flat_rows = [row.reshape(len(row), -1, model.batch) for row in rows]
    body, grid = functools.partial(_body, model, *shapes), (len(slots),)
    if backend() == "cpu":
        run = pallas.pallas_call(
            lambda *refs: body(pallas.program_id(0), *refs),
            out_shape=types,
            grid=grid,
            interpret=True,
        )
    else:
        run = mosaic_gpu.kernel(
            lambda *refs: body(lax.axis_index("model"), *refs),
            out_type=types,
            grid=grid,
            grid_names=("model",),
        )
    found = run(slots, *flat_numbers, *flat_rows)
    return [x.reshape(len(slots), *aval.shape) for x, aval in zip(found, outputs, strict=True)]


def _body(
    model: _Model,
    number_shapes: Sequence[tuple[int, ...]],
    row_shapes: Sequence[tuple[int, ...]],
    place: Int[Array, ""],
    slot_ref: Any,
    *refs: Any,
) -> None:
    """Evaluate the model at one place; this is the code of a group of threads.

    It reads from the references to the numbers and the rows, and writes to those that follow.
    """
    from jax.experimental import pallas

    rows_from, outputs_from = np.cumsum([len(number_shapes), len(row_shapes)])
    of_numbers, of_outputs = refs[:rows_from], refs[outputs_from:]
    of_rows = refs[rows_from:outputs_from]
    numbers = iter(
        _apart([ref[place if ref.shape[0] > 1 else 0, i] for i in range(ref.shape[1])], shape)
        for ref, shape in zip(of_numbers, number_shapes, strict=True)
    )
    consts = [elements.known(c) if elements.is_known(c) else next(numbers) for c in model.consts]
    arguments, slot = [*consts, *numbers], slot_ref[place]

    def part(turn: Any) -> list[elements.Scalar]:
        """Return all outputs as vectors over the examples of one turn, one for each thread."""
        here = pallas.ds(turn * THREADS, THREADS)
        rows = [
            _apart([ref[slot, i, here] for i in range(ref.shape[1])], shape)
            for ref, shape in zip(of_rows, row_shapes, strict=True)
        ]
        found = elements.Interpreter(batch=THREADS).run(model.program, [*arguments, *rows])
        return [element for output in found for element in elements.objects(output).flat]

    # The first turn stands before the loop, because Mosaic GPU keeps a vector of zeros in another
    # form than a vector that differs from thread to thread.
    results = part(0)
    varying = [index for index, element in enumerate(results) if np.shape(element)]

    def add(turn: Any, totals: list[Array]) -> list[Array]:
        new = part(turn)
        return [total + new[index] for total, index in zip(totals, varying, strict=True)]

    turns = model.batch // THREADS
    totals = lax.fori_loop(1, turns, add, [results[index] for index in varying])
    for index, total in zip(varying, totals, strict=True):
        results[index] = jnp.sum(total) / model.batch
    rest = iter(results)
    for ref in of_outputs:
        for i in range(ref.shape[1]):
            ref[place, i] = jnp.asarray(next(rest), ref.dtype)


def _apart(values: Sequence[Any], shape: Sequence[int]) -> elements.Value:
    """Return an array of objects that holds these elements."""
    output = np.empty(len(values), object)
    for index, value in enumerate(values):
        output[index] = value
    return output.reshape(shape)
