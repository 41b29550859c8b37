"""Matrix decompositions of a batch, one matrix at a time.

On a CPU, jaxlib 0.10 hands the decompositions of a batch of matrices to the threads of XLA and
waits for them in one of these very threads. As many such calls at once as there are threads wait
for each other for ever, and on machines of many cores they write beyond the memory of OpenBLAS
(jax issue 39292). A call for a single matrix waits for nobody.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
from jax import lax
from jax.extend import core
from jaxtyping import Array

P = ParamSpec("P")
R = TypeVar("R")

# Primitives that jaxlib hands to LAPACK on a CPU, with the dimensions of their first operand
# for one matrix. What stands before these dimensions is a batch.
_DIMENSIONS = {
    "cholesky": 2,
    "eig": 2,
    "eigh": 2,
    "geqp3": 2,
    "geqrf": 2,
    "hessenberg": 2,
    "householder_product": 2,
    "lu": 2,
    "ormqr": 2,
    "qr": 2,
    "schur": 2,
    "svd": 2,
    "triangular_solve": 2,
    "tridiagonal": 2,
    "tridiagonal_solve": 1,
}


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, whose decompositions of batches are loops over single matrices.

    The numbers are the same, but for a last bit where XLA fuses other operations.

    Args:
        function: of arrays and keys, as `jax.jit` takes it. Use the result inside `jax.jit`:
            it is traced anew at every call.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args, **kwargs)
        outputs = core.jaxpr_as_fun(sequential(closed))(*jax.tree.leaves((args, kwargs)))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return wrapped


def sequential(closed: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """A traced program that decomposes one matrix at a time, wherever in it that happens.

    Only a CPU needs this: for another backend the program is returned as it is.
    """
    if jax.default_backend() != "cpu" or not _decomposes_batches(closed.jaxpr):
        return closed
    return jax.make_jaxpr(functools.partial(_evaluate, closed.jaxpr, closed.consts))(
        *(jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in closed.in_avals)
    )


def _batch(equation: core.JaxprEqn) -> tuple[int, ...]:
    """The dimensions of the batch that is decomposed; none if it is one matrix."""
    dimensions = _DIMENSIONS.get(equation.primitive.name)
    return () if dimensions is None else equation.invars[0].aval.shape[:-dimensions]


def _decomposes_batches(jaxpr: core.Jaxpr) -> bool:
    return any(
        _batch(equation) or any(map(_decomposes_batches, core.jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def _evaluate(jaxpr: core.Jaxpr, consts: Sequence[Any], *arguments: Any) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: core.Var | core.Literal) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        params = {name: _rewritten(value) for name, value in equation.params.items()}
        bind = functools.partial(
            equation.primitive.bind, **equation.primitive.get_bind_params(params)
        )
        with equation.ctx.manager:
            if batch := _batch(equation):
                bind = functools.partial(_mapped, bind, batch)
            outputs = bind(*map(read, equation.invars))
        if not equation.primitive.multiple_results:
            outputs = [outputs]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _mapped(function: Callable[..., Any], batch: tuple[int, ...], *operands: Array) -> Any:
    """`function` of each matrix of a batch, in turn."""
    flat = [operand.reshape(-1, *operand.shape[len(batch) :]) for operand in operands]
    outputs = lax.map(lambda matrices: function(*matrices), flat)
    return jax.tree.map(lambda output: output.reshape(*batch, *output.shape[1:]), outputs)


def _rewritten(value: Any) -> Any:
    """A parameter of an equation, with the programs in it as `sequential` makes them."""
    if isinstance(value, core.ClosedJaxpr):
        return sequential(value)
    if isinstance(value, core.Jaxpr):  # of `jax.checkpoint`, which takes no constants
        return sequential(core.ClosedJaxpr(value, [])).jaxpr
    if isinstance(value, tuple) and any(map(_is_program, value)):
        programs = [_rewritten(element) for element in value]
        return type(value)(*programs) if hasattr(value, "_fields") else tuple(programs)
    return value


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
