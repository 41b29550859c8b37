"""A traced program evaluated element by element, each element a vector over a batch.

The jaxpr of ONE example is walked with every array taken apart. Elementwise primitives come
from a list; primitives that only move or add elements are read off their action on unit
vectors; sums and small products are spelled out. Anything else raises `NotFusableError`
with the primitive's name: a guess could be silently wrong.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend import core

from toymodels.engine import interpreter

# A value of the traced program is a NumPy array. One of numbers is known while tracing. One
# of objects holds, for each element, a NumPy scalar, a JAX scalar (the same for all examples)
# or a JAX vector over the batch.
Value: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Scalar: TypeAlias = Any
Operation: TypeAlias = Callable[..., Scalar]

MAX_ELEMENTS = 4096
"""The maximum number of elements of an array that is taken apart."""
MAX_OPERATIONS = 4096
"""The maximum number of operations on elements in one program."""

ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp
    convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1
    floor ge gt integer_pow is_finite le lgamma log log1p log2 logistic lt max min mul ne
    neg nextafter not one_minus_square or polynomial pow rem round rsqrt select_n
    shift_left shift_right_arithmetic shift_right_logical sign sin
    sinh sqrt square stop_gradient sub tan tanh xor
    """.split()
)
# Primitives that call another program, and the parameter that holds it.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
# Primitives that only move and add elements, with the number of leading operands that hold the
# elements. The operands after these are indices. None means that all operands hold elements.
_LINEAR = {
    "cumsum": None,
    "dynamic_slice": 1,
    "dynamic_update_slice": 2,
    "gather": 1,
    "pad": None,
    "split": None,
    "stack": None,
    "tile": None,
    "unstack": None,
}
_FOLDS: dict[str, Operation] = {
    "reduce_and": lax.bitwise_and,
    "reduce_max": lax.max,
    "reduce_min": lax.min,
    "reduce_or": lax.bitwise_or,
    "reduce_prod": lax.mul,
    "reduce_sum": lax.add,
}
_NUMBERS = frozenset(
    map(np.dtype, ("bool", "int32", "int64", "uint32", "uint64", "float32", "float64"))
)


class NotFusableError(Exception):
    """The traced program holds something that is not evaluated element by element."""


class Interpreter:
    """Evaluates the jaxpr of one example on values taken apart."""

    def __init__(self, batch: int):
        self._batch = batch
        self._operations = 0

    def run(self, program: core.ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
        """Return the outputs of `program` for all examples of the batch at once."""
        return self._jaxpr(program.jaxpr, [known(const) for const in program.consts], arguments)

    def _jaxpr(
        self, jaxpr: core.Jaxpr, consts: Sequence[Value], arguments: Sequence[Value]
    ) -> list[Value]:
        variables = [*jaxpr.constvars, *jaxpr.invars]
        values = dict(zip(variables, [*consts, *arguments], strict=True))
        return interpreter.walk(jaxpr.eqns, values, jaxpr.outvars, self._step, literal=np.asarray)

    def _step(self, equation: core.JaxprEqn, inputs: list[Value]) -> Sequence[Value]:
        outputs = self._equation(equation, inputs)
        for variable, output in zip(equation.outvars, outputs, strict=True):
            assert output.shape == _type(variable).shape, equation
        return outputs

    def _equation(self, equation: core.JaxprEqn, inputs: list[Value]) -> Sequence[Value]:
        name, params = equation.primitive.name, equation.params
        _check(equation)
        if name in _CALLS:
            inner = params[_CALLS[name]]
            return (
                self.run(inner, inputs)
                if isinstance(inner, core.ClosedJaxpr)
                else self._jaxpr(inner, [], inputs)
            )
        if name == "broadcast_in_dim":
            return [_broadcast(inputs[0], params["shape"], params["broadcast_dimensions"])]
        if all(value.dtype != object for value in inputs):
            return _bind_known(equation, inputs)
        if name in ELEMENTWISE:
            return [self._elementwise(equation, inputs)]
        if name in _LINEAR:
            return self._linear(equation, inputs, _LINEAR[name] or len(inputs))
        if name in _FOLDS:
            return [self._fold(_FOLDS[name], inputs[0], params["axes"])]
        match name:
            case "bitcast_convert_type" if _type(equation.outvars[0]).shape == inputs[0].shape:
                return [self._elementwise(equation, inputs)]
            case "dot_general":
                return [self._dot_general(equation, inputs[0], inputs[1])]
            case "scatter-add" if _type(equation.invars[0]).size:
                return self._linear(equation, inputs, [0, 2])
            case "concatenate":
                return [np.concatenate([objects(value) for value in inputs], params["dimension"])]
            case "reshape" if params["dimensions"] is None:
                return [inputs[0].reshape(params["new_sizes"])]
            case "rev":
                return [np.flip(inputs[0], params["dimensions"])]
            case "slice":
                strides = params["strides"] or [1] * inputs[0].ndim
                bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
                return [inputs[0][tuple(slice(*bound) for bound in bounds)]]
            case "squeeze":
                return [inputs[0].reshape(_type(equation.outvars[0]).shape)]
            case "transpose":
                return [inputs[0].transpose(params["permutation"])]
            case _:
                raise _unknown(name)

    def _bind(self, operation: Operation, *operands: Scalar) -> Scalar:
        """Apply an operation to elements, broadcast over the batch if any of them is a vector."""
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            raise NotFusableError(f"more than {MAX_OPERATIONS} operations per example")
        if len({np.shape(operand) for operand in operands}) > 1:
            operands = tuple(
                operand if np.shape(operand) else lax.broadcast(operand, (self._batch,))
                for operand in operands
            )
        return operation(*operands)

    def _chain(self, operation: Operation, elements: Iterable[Scalar]) -> Scalar:
        return functools.reduce(functools.partial(self._bind, operation), elements)

    def _elementwise(self, equation: core.JaxprEqn, inputs: list[Value]) -> Value:
        shape = _type(equation.outvars[0]).shape
        operands = [np.broadcast_to(objects(value), shape) for value in inputs]
        operation = functools.partial(equation.primitive.bind, **equation.params)
        if equation.primitive.name == "add_any":  # a sum, by a name that compilers need not know
            operation = lax.add
        output = np.empty(shape, object)
        for index in np.ndindex(*shape):
            output[index] = self._bind(operation, *(operand[index] for operand in operands))
        return output

    def _linear(
        self, equation: core.JaxprEqn, inputs: list[Value], carriers: int | list[int]
    ) -> list[Value]:
        """Apply a primitive that moves or adds elements, as its action on unit vectors says."""
        name = equation.primitive.name
        moved = list(range(carriers)) if isinstance(carriers, int) else carriers
        if any(value.dtype == object for i, value in enumerate(inputs) if i not in moved):
            raise NotFusableError(f"primitive '{name}' has indices that are not known when tracing")
        elements = np.concatenate([objects(inputs[i]).ravel() for i in moved])
        ends = np.cumsum([inputs[i].size for i in moved])[:-1]
        # The row of zeros after the unit vectors finds a constant, such as what fills a gather.
        rows = np.eye(len(elements) + 1, len(elements), dtype=np.float32)
        units = np.split(rows, ends, axis=1)

        def act(*rows: jax.Array) -> Any:
            operands: list[Any] = list(inputs)
            for i, row in zip(moved, rows, strict=True):
                operands[i] = row.reshape(inputs[i].shape).astype(_type(equation.invars[i]).dtype)
            return equation.primitive.bind(*operands, **equation.params)

        with jax.ensure_compile_time_eval():
            images = jax.vmap(act)(*map(jax.device_put, units))
        outputs: list[Value] = []
        images = images if equation.primitive.multiple_results else [images]
        for variable, image in zip(equation.outvars, images, strict=True):
            *columns, constant = np.asarray(image).reshape(len(elements) + 1, -1)
            matrix = np.stack(columns, axis=1)
            if not np.isin(matrix, (0, 1)).all() or constant.any():  # an index out of bounds, say
                raise NotFusableError(f"primitive '{name}' does more than move and add elements")
            output = np.empty(len(matrix), object)
            for position, row in enumerate(matrix):
                chosen = elements[row == 1]
                zero = np.zeros((), _type(variable).dtype)[()]
                output[position] = self._chain(lax.add, chosen) if len(chosen) else zero
            outputs.append(output.reshape(_type(variable).shape))
        return outputs

    def _fold(self, operation: Operation, value: Value, axes: Sequence[SupportsIndex]) -> Value:
        kept = [axis for axis in range(value.ndim) if axis not in axes]
        rows = _rows(value, kept, axes)
        output = np.empty(rows.shape[:-1], object)
        for index in np.ndindex(*output.shape):
            output[index] = self._chain(operation, rows[index])
        return output

    def _dot_general(self, equation: core.JaxprEqn, left: Value, right: Value) -> Value:
        (left_summed, right_summed), (left_batch, right_batch) = equation.params[
            "dimension_numbers"
        ]
        atoms = (*equation.invars, *equation.outvars)
        if len({_type(atom).dtype for atom in atoms}) > 1:
            raise NotFusableError("primitive 'dot_general' changes the number type")
        if _type(atoms[0]).dtype == bool:  # neither sums nor products
            raise NotFusableError("primitive 'dot_general' works on bool numbers")
        lefts = _rows(objects(left), left_batch, left_summed)
        rights = _rows(objects(right), right_batch, right_summed)
        shared = len(left_batch)
        free = lefts.ndim - 1  # axes of the output that come from the left
        output = np.empty((*lefts.shape[:-1], *rights.shape[shared:-1]), object)
        for index in np.ndindex(*output.shape):
            row, column = lefts[index[:free]], rights[(*index[:shared], *index[free:])]
            products = [self._bind(lax.mul, a, b) for a, b in zip(row, column, strict=True)]
            output[index] = self._chain(lax.add, products)
        return output


def _type(atom: core.Var | core.Literal) -> Any:
    """Return the shape and the number type of an atom of a jaxpr."""
    return atom.aval


def is_known(value: Any) -> bool:
    """Return whether the numbers of `value` are available while tracing."""
    return not isinstance(value, Tracer)


def known(value: Any) -> Value:
    """Return the numbers of a captured array if they are available, else its elements."""
    if not is_known(value):
        return apart(value)
    if value.dtype not in _NUMBERS:
        raise NotFusableError(f"the loss captures an array of {value.dtype} numbers")
    return np.asarray(value)


def apart(value: jax.Array, *, batched: bool = False) -> Value:
    """Return an object array of the elements: scalars, or vectors over a leading batch axis."""
    if value.dtype not in _NUMBERS:
        raise NotFusableError(f"an argument holds {value.dtype} numbers")
    shape = value.shape[1:] if batched else value.shape
    size = math.prod(shape)
    if size > MAX_ELEMENTS:
        raise NotFusableError(f"an array of shape {shape} has more than {MAX_ELEMENTS} elements")
    flat = jnp.reshape(value, (value.shape[0], size) if batched else (size,))
    output = np.empty(size, object)
    for position in range(size):
        output[position] = lax.index_in_dim(flat, position, axis=-1, keepdims=False)
    return output.reshape(shape)


def objects(value: Value) -> Value:
    """Return a value as an object array; elements of a known value are NumPy scalars."""
    if value.dtype == object:
        return value
    output = np.empty(value.shape, object)
    for index in np.ndindex(*value.shape):
        output[index] = value[index]
    return output


def refuse_control_flow(program: core.ClosedJaxpr) -> None:
    """Refuse a loss that is bound to be refused, before it is differentiated, which takes long.

    Loops and branches stay what they are when JAX differentiates them. Those inside a call may be
    left out then, and those of known numbers are run while tracing; both are passed over here.

    Raises:
        NotFusableError: an equation of the program is a loop or a branch.
    """
    jaxpr = program.jaxpr
    captured = zip(jaxpr.constvars, program.consts, strict=True)
    varying = {*jaxpr.invars, *(variable for variable, const in captured if not is_known(const))}
    for equation in jaxpr.eqns:
        if any(isinstance(atom, core.Var) and atom in varying for atom in equation.invars):
            varying |= set(equation.outvars)
            if equation.primitive.name in ("cond", "scan", "while"):
                raise _unknown(equation.primitive.name)


def _unknown(name: str) -> NotFusableError:
    return NotFusableError(f"primitive '{name}' is not known to the fused loop")


def _check(equation: core.JaxprEqn) -> None:
    name = equation.primitive.name
    if equation.effects:
        raise NotFusableError(f"primitive '{name}' has side effects")
    for atom in (*equation.invars, *equation.outvars):
        if not 0 < math.prod(_type(atom).shape) <= MAX_ELEMENTS:
            raise NotFusableError(
                f"primitive '{name}' works on an array of shape {_type(atom).shape}: "
                f"not between 1 and {MAX_ELEMENTS} elements"
            )
        if _type(atom).dtype not in _NUMBERS:
            raise NotFusableError(f"primitive '{name}' works on {_type(atom).dtype} numbers")


def _bind_known(equation: core.JaxprEqn, inputs: list[Value]) -> list[Value]:
    with jax.ensure_compile_time_eval():
        outputs = equation.primitive.bind(*map(jax.device_put, inputs), **equation.params)
    outputs = outputs if equation.primitive.multiple_results else [outputs]
    return [np.asarray(output) for output in outputs]


def _broadcast(value: Value, shape: Sequence[int], dimensions: Sequence[SupportsIndex]) -> Value:
    expanded = [1] * len(shape)
    for size, dimension in zip(value.shape, dimensions, strict=True):
        expanded[dimension] = size
    return np.broadcast_to(value.reshape(expanded), shape)


def _rows(value: Value, batch: Sequence[SupportsIndex], summed: Sequence[SupportsIndex]) -> Value:
    """Order the axes of a factor: first batch, then free, then summed, which become one axis."""
    free = [axis for axis in range(value.ndim) if axis not in {*batch, *summed}]
    ordered = value.transpose([*batch, *free, *summed])
    return ordered.reshape(*ordered.shape[: len(batch) + len(free)], -1)
