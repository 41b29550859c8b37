"""Matrix decompositions of a batch, one matrix at a time.

On a CPU, jaxlib 0.10 hands the decompositions of a batch of matrices to the threads of XLA and
waits for them in one of these very threads. As many such calls at once as there are threads wait
for each other for ever, and on machines of many cores they write beyond the memory of OpenBLAS
(jax issue 39292). A call for a single matrix waits for nobody.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax import lax
from jax.extend import core
from jaxtyping import Array

from toymodels.engine import interpreter
from toymodels.engine.devices import backend

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
    """Return the function with loops over single matrices for decompositions of batches.

    The numbers stay equal, except for a last bit where XLA fuses other operations.

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
    """Return a traced program in which every decomposition takes one matrix at a time.

    Only a CPU needs this. For another backend the program is returned unchanged.
    """
    if backend() != "cpu" or not _decomposes_batches(closed.jaxpr):
        return closed
    return jax.make_jaxpr(
        lambda *inputs: interpreter.evaluate(closed, inputs, bind=_bind, inner=sequential)
    )(*map(interpreter.shape, closed.in_avals))


def _batch(equation: core.JaxprEqn) -> tuple[int, ...]:
    """Return the dimensions of the batch that an equation decomposes, () for one matrix."""
    dimensions = _DIMENSIONS.get(equation.primitive.name)
    operand: Any = equation.invars[0].aval if equation.invars else None
    return () if dimensions is None else operand.shape[:-dimensions]


def _decomposes_batches(jaxpr: core.Jaxpr) -> bool:
    return any(
        _batch(equation) or any(map(_decomposes_batches, core.jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def _bind(equation: core.JaxprEqn, bind: Callable[..., Any], operands: list[Any]) -> Any:
    batch = _batch(equation)
    return _mapped(bind, batch, operands) if batch else bind(*operands)


def _mapped(function: Callable[..., Any], batch: tuple[int, ...], operands: list[Array]) -> Any:
    """Call `function` with each matrix of a batch, one after another."""
    flat = [operand.reshape(-1, *operand.shape[len(batch) :]) for operand in operands]
    outputs = lax.map(lambda matrices: function(*matrices), flat)
    return jax.tree.map(lambda output: output.reshape(*batch, *output.shape[1:]), outputs)
