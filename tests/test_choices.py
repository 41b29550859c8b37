"""Derivatives that choose among numbers do not depend on how each of these is rounded.

XLA may compute a number once for each of its uses, and round each copy in its own way. Here
every use of every computed number is given an error of its own, and the gradient must stay
what JAX gives without errors. An equality of two copies would be false.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from haste import in_haste
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend import core
from losses import ordinary

from toymodels.engine import compiling, fuse, loop

pytestmark = pytest.mark.as_users_compile

ERROR = 1e-9
WEIGHTS = np.random.default_rng(0).normal(size=(3, 3))
EXAMPLES = np.random.default_rng(1).uniform(size=(4, 3))
CALLS = {
    "jit": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}


class Disturbing:
    """An interpreter of programs that gives every use of every computed number its own error."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def copy(self, value):
        """Return a number with an error; whole numbers, such as zeros and counts, are exact."""
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        errors = 1 + ERROR * self.rng.uniform(-1, 1, value.shape)
        return jnp.where(value == jnp.round(value), value, value * errors)

    def run(self, program, *operands):
        """Return the outputs of a traced program."""
        jaxpr, consts = getattr(program, "jaxpr", program), getattr(program, "consts", ())
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *operands], strict=True))
        computed = set()

        def read(atom):
            if isinstance(atom, core.Literal):
                return atom.val
            return self.copy(values[atom]) if atom in computed else values[atom]

        for equation in jaxpr.eqns:
            # Both operands of x != x are one number.
            once = {id(atom): read(atom) for atom in equation.invars}
            outputs = self.run_equation(equation, [once[id(atom)] for atom in equation.invars])
            values.update(zip(equation.outvars, outputs, strict=True))
            computed |= set(equation.outvars)
        return [read(atom) for atom in jaxpr.outvars]

    def run_equation(self, equation, operands):
        """Return the outputs of one operation; programs inside it are disturbed, too."""
        primitive, params = equation.primitive, equation.params
        match primitive.name:
            case "scan":
                return self.run_scan(operands, **params)
            case "cond":
                branches = [functools.partial(self.run, inner) for inner in params["branches"]]
                return lax.switch(operands[0], branches, *operands[1:])
            case name if name in CALLS:
                return self.run(params[CALLS[name]], *operands)
        outputs = primitive.bind(*operands, **primitive.get_bind_params(params))
        return outputs if primitive.multiple_results else [outputs]

    def run_scan(self, operands, *, jaxpr, length, reverse, **params):
        """Return the outputs of a loop, which is unrolled."""
        num_consts, num_carry = (
            [len(list(part)) for part in params["ft_in"].unpack()][:2]  # from JAX 0.12 on
            if "ft_in" in params
            else (params["num_consts"], params["num_carry"])
        )
        consts, carry = operands[:num_consts], operands[num_consts:][:num_carry]
        rows, outputs = operands[num_consts + num_carry :], [None] * length
        for i in reversed(range(length)) if reverse else range(length):
            results = self.run(jaxpr, *consts, *carry, *(row[i] for row in rows))
            carry, outputs[i] = results[:num_carry], results[num_carry:]
        return [*carry, *map(jnp.stack, zip(*outputs, strict=True))]


def with_errors(function, *arguments, seed=0):
    """Call `function` with an error of its own in every use of every computed number."""

    def disturbed(*arguments):
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        outputs = Disturbing(seed).run(program, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return in_haste(disturbed)(*arguments)


def assert_close(actual, expected, tolerance):
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = tolerance * np.max(np.abs(other))
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=scale)


def larger_or_smaller(v):
    return lax.cond(v[0] > 0, lambda v: jnp.max(v * v), jnp.min, v)


def decaying_maximum(v):
    return lax.scan(lambda c, x: (jnp.maximum(0.9 * c, x * x), None), 0 * v[0], v)[0]


def largest_in_two_bins(v):
    return jnp.zeros(2).at[np.array([0, 1, 0])].max(v)


CHOICES = {
    "hypot": lambda v, x: jnp.hypot(v[0], x[0]),
    "maximum": lambda v, x: jnp.maximum(jnp.abs(v), x),
    "minimum": lambda v, x: jnp.minimum(v, v[::-1] + x),
    "max": lambda v, x: jnp.max(jnp.abs(v)),
    "min of a matrix": lambda v, x: jnp.min(v[:2, None] * x[None], axis=(0, 1)),
    "clip to data": lambda v, x: jnp.clip(v, x - 1, 0.5 * x),
    "running": lambda v, x: lax.cummax(v) - lax.cummin(v, reverse=True),
    "sort": lambda v, x: jnp.sort(v)[::2],
    "median": lambda v, x: jnp.median(v),
    "at indices": lambda v, x: largest_in_two_bins(v),
    "cond": lambda v, x: larger_or_smaller(v),
    "scan": lambda v, x: decaying_maximum(v),
    "checkpoint": lambda v, x: jax.checkpoint(jnp.max)(v),
    "logsumexp": lambda v, x: jax.nn.logsumexp(v),
    "softmax": lambda v, x: jax.nn.softmax(v),
    "abs": lambda v, x: jnp.abs(v),
    "huber": lambda v, x: jnp.where(jnp.abs(v) < 0.5, v**2, jnp.abs(v) - 0.25),
}


def loss_of(choice):
    def loss(w, x):
        values = choice(jnp.tanh(w @ x) * x + 0.1, x)
        return jnp.sum(
            jnp.arange(1, values.size + 1) * values.ravel() * jnp.sqrt(1 + values**2).ravel()
        )

    return loss


paths = pytest.mark.parametrize("most_sums", [loop.MAX_SUMS, 0], ids=["fused", "ordinary"])


@paths
@pytest.mark.parametrize("choice", [pytest.param(f, id=name) for name, f in CHOICES.items()])
def test_no_gradient_hangs_on_a_rounding(choice, most_sums, x64, monkeypatch):
    monkeypatch.setattr(loop, "MAX_SUMS", most_sums)
    loss = loss_of(choice)
    actual = with_errors(fuse.value_and_grad(loss), WEIGHTS, EXAMPLES)
    assert_close(actual, ordinary(loss)(WEIGHTS, EXAMPLES), 1e-6)


@pytest.mark.parametrize("name", ["max", "scan"])
def test_no_second_derivative_hangs_on_a_rounding(name, x64):
    loss = loss_of(CHOICES[name])

    def squared_norm(route):
        return lambda w: jnp.sum(route(loss)(w, EXAMPLES[:2])[1] ** 2)

    actual = with_errors(jax.grad(squared_norm(fuse.value_and_grad)), WEIGHTS)
    assert_close(actual, jax.grad(squared_norm(ordinary))(WEIGHTS), 1e-5)


STEPS = {
    "largest so far": lax.cummax,
    "smaller": lambda v: jnp.minimum(v, 0.7 * v[::-1]),
    "larger": lambda v: jnp.maximum(v * v, 0.3 + v),
    "length": lambda v: jnp.hypot(v, v[::-1] - 1),
    "from the largest": lambda v: v - jnp.max(v),
    "sorted": lambda v: jnp.sort(v * v),
    "in bounds": lambda v: jnp.clip(v, -0.9, v[0] + 0.1),
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "scaled": lambda v: 1.3 * v - 0.2,
}


@settings(max_examples=4)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=4))
def test_random_compositions_have_safe_gradients(names):
    def loss(w, x):
        v = w @ x
        for name in names:
            v = STEPS[name](v)
        return jnp.sum(jnp.sin(v + x))

    with jax.enable_x64(True):
        actual = with_errors(fuse.value_and_grad(loss), WEIGHTS, EXAMPLES)
        assert_close(actual, ordinary(loss)(WEIGHTS, EXAMPLES), 1e-6)


def test_equal_numbers_share_the_gradient_alike():
    def largest(p, x):
        return jnp.max(p * x)

    value, gradient = compiling.jit(fuse.value_and_grad(largest))(jnp.ones(3), jnp.ones((2, 3)))
    assert value == 1
    np.testing.assert_allclose(gradient, np.ones(3) / 3, rtol=1e-6)  # a third is rounded
    value, gradient = compiling.jit(fuse.value_and_grad(lambda p, x: jnp.maximum(p * x, 0.0)))(
        jnp.ones(()), jnp.array([0.0, 1.0, -1.0, 0.0])
    )
    assert (value, gradient) == (0.25, 0.25)


def test_infinite_numbers_may_be_the_largest():
    for numbers in ([np.inf, np.inf, 1], [-np.inf, -np.inf, -np.inf], [np.nan, np.inf, 1]):
        value = compiling.jit(fuse.value(lambda p, x: jnp.max(jnp.sin(p) + x)))(
            jnp.ones(()), jnp.array([numbers])
        )
        np.testing.assert_equal(float(value), float(np.max(numbers)))


def test_the_length_of_a_circular_feature():
    """The value and the gradient have closed forms. XLA once lost a part of this gradient."""
    w = jax.random.normal(jax.random.key(0), (2, 2))
    batch = jax.random.uniform(jax.random.key(1), (8, 2))

    def loss(w, x):
        return (jnp.hypot(*(w @ x)) - x[0]) ** 2

    x = np.asarray(batch, float)
    y = x @ np.asarray(w, float).T
    length = np.hypot(*y.T)
    expected = np.einsum("b,bi,bj->ij", 2 * (length - x[:, 0]) / length, y, x) / 8
    for jit in (jax.jit, compiling.jit):
        _, gradient = jit(fuse.value_and_grad(loss))(w, batch)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_the_larger_of_a_sum_and_an_example():
    """The sum c = |p x| is above x_0 in both examples. XLA once lost all of this gradient."""
    p, batch = np.array([-1.3, 0.4], np.float32), np.array([[0.9, 0.1], [0.8, 0.25]], np.float32)

    def loss(p, x):
        c = jnp.maximum(jnp.abs(p @ x), x[0])
        return c * jnp.sqrt(1 + c)

    c = np.abs(batch @ p)
    slope = np.sqrt(1 + c) + c / (2 * np.sqrt(1 + c))
    expected = np.mean(np.sign(batch @ p)[:, None] * slope[:, None] * batch, 0)
    _, gradient = compiling.jit(fuse.value_and_grad(loss))(p, batch)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
