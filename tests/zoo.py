"""A zoo of losses: each uses another part of JAX, and is fused or refused for a known reason."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from losses import (
    BATCH,
    EXAMPLES,
    LABELS,
    WEIGHTS,
    score,
)

TABLE = np.linspace(0, 1, 5000)
SIGNS = np.random.default_rng(2).choice([-1.0, 1.0], 3)


def probe(name, loss, *, refused=None, params=WEIGHTS, batch=EXAMPLES):
    """Return a case of a loss.

    The loss must be fused, or refused with a reason that holds the text `refused`.
    """
    return pytest.param(loss, params, batch, refused, id=name)


def structural(name, function, *, refused=None):
    """Return a case that calls `function` with a matrix of parameters and example."""
    return probe(name, lambda w, x: score(function(w * x[None])), refused=refused)


def of_numbers(name, loss):
    """Return a case of a loss of one number as the parameter, and of one number as the example."""
    return probe(name, loss, params=WEIGHTS[0, 0], batch=EXAMPLES[:, 0])


@jax.custom_jvp
def sine_with_slope_seven(x):
    return jnp.sin(x)


sine_with_slope_seven.defjvps(lambda tangent, _, x: 7 * tangent)


@jax.custom_vjp
def sine_with_slope_x(x):
    return jnp.sin(x)


sine_with_slope_x.defvjp(lambda x: (jnp.sin(x), x), lambda x, cotangent: (x * cotangent,))


def functions_of_one_number(w, x):
    """Return each elementwise function of JAX that is smooth somewhere, with such a place."""
    m = w * x  # inside (-1, 1)
    positive = 1.5 + m
    everywhere = (
        *(jnp.sin, jnp.cos, jnp.tan, jnp.arcsin, jnp.arccos, jnp.arctan, jnp.sinh, jnp.cosh),
        *(jnp.tanh, jnp.arcsinh, jnp.arctanh, jnp.exp, jnp.exp2, jnp.expm1, lax.erf, lax.erfc),
        *(lax.erf_inv, lax.logistic, jnp.square, jnp.negative, jnp.abs, jnp.sinc, nn.gelu),
    )
    where_positive = jnp.log, jnp.log1p, jnp.sqrt, lax.rsqrt, jnp.cbrt, jnp.reciprocal, lax.lgamma
    return sum((score(f(m)) for f in everywhere), sum(score(f(positive)) for f in where_positive))


def functions_of_two_numbers(w, x):
    m = w * x
    n = m + 2
    return sum(
        score(f(m, n))
        for f in (jnp.arctan2, jnp.maximum, jnp.minimum, jnp.divide, jnp.remainder, jnp.hypot)
    ) + sum(score(f(n, m)) for f in (jnp.power, jnp.logaddexp, jnp.fmod))


def steps(w, x):
    m = 3 * w * x[None]
    return sum(
        score(f(m) * m) for f in (jnp.sign, jnp.floor, jnp.ceil, jnp.round, jnp.trunc)
    ) + score(jnp.isfinite(m) * m)


def bits(w, x):
    integers = (100 * x).astype(jnp.int32)
    mixed = (integers & 12) ^ (integers | 3) ^ ~integers
    return score(w * mixed.astype(x.dtype)[None])


def a_reduction_of_its_own(m):
    return m[:, 0] * lax.reduce(lax.stop_gradient(m), np.zeros((), m.dtype), jnp.hypot, (1,))


def average_in(dtype):
    return lambda w, x: jnp.mean(w.astype(dtype) * x.astype(dtype)[None]).astype(w.dtype)


def doubled_until_large(w, x):
    large = lax.while_loop(lambda y: jnp.sum(y**2) < 10, lambda y: 2 * y, x)
    return score(w * large[None])


def printing(w, x):
    jax.debug.print("{}", x)
    return score(w * x[None])


def called_back(w, x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return score(w * jax.pure_callback(np.sin, shape, x, vmap_method="expand_dims")[None])


ZOO = [
    # elements move
    structural("reshape", lambda m: m.reshape(3, 2)),
    structural("ravel in Fortran's order", lambda m: m.ravel(order="F"), refused="'reshape'"),
    structural("transpose", lambda m: m.T),
    structural("transpose of three axes", lambda m: m.reshape(1, 2, 3).transpose(2, 0, 1)),
    structural("flip one axis", lambda m: jnp.flip(m, 1)),
    structural("roll one axis", lambda m: jnp.roll(m, 2, axis=1)),
    structural("slice with strides", lambda m: m[:, ::2]),
    structural("slice with negative strides", lambda m: m[::-1, ::-2]),
    structural("dynamic slice at a constant", lambda m: lax.dynamic_slice(m, (0, 1), (2, 2))),
    structural(
        "dynamic update at a constant",
        lambda m: lax.dynamic_update_slice(m, jnp.sin(m[:, :2]), (0, 1)),
    ),
    structural("gather", lambda m: m[:, np.array([2, 0, 2])]),
    structural("gather made inside", lambda m: m[:, jnp.arange(3)[::-1]]),
    structural("gather along", lambda m: jnp.take_along_axis(m, np.array([[2], [0]]), axis=1)),
    structural("gather, clipped", lambda m: jnp.take(m, np.array([5, 1]), axis=1, mode="clip")),
    structural(
        "gather out of bounds, 0",
        lambda m: m.at[:, np.array([0, 7])].get(mode="fill", fill_value=0),
    ),
    structural(
        "gather out of bounds, 1",
        lambda m: m.at[:, np.array([0, 7])].get(mode="fill", fill_value=1),
        refused="'gather'",
    ),
    structural(
        "gather out of bounds, NaN",
        lambda m: m.at[:, np.array([0, 7])].get(mode="fill"),
        refused="'gather'",
    ),
    structural("gather at the maximum", lambda m: m[:, jnp.argmax(m[0])], refused="'argmax'"),
    probe(
        "gather at a label", lambda w, i: score(w[:, i]), refused="'dynamic_slice'", batch=LABELS
    ),
    probe(
        "gather at labels",
        lambda w, i: score(w[:, i]),
        refused="'gather'",
        batch=np.stack([LABELS, LABELS[::-1]], 1),
    ),
    structural("add at indices", lambda m: m.at[:, np.array([0, 0, 2])].add(jnp.sin(m))),
    structural("add at one index", lambda m: m.at[:, 1].add(2.0)),
    structural("add out of bounds", lambda m: m.at[:, np.array([0, 7])].add(m[:, :2], mode="drop")),
    structural("set at indices", lambda m: m.at[:, np.array([1, 2])].set(jnp.sin(m[:, :2]))),
    structural("set at one index", lambda m: m.at[:, 1].set(2.0), refused="'scatter'"),
    structural("multiply at an index", lambda m: m.at[:, 1].mul(2.0), refused="'scatter-mul'"),
    probe(
        "add at a label",
        lambda w, i: score(w.at[:, i].add(w[:, 0])),
        refused="'scatter-add' has indices",
        batch=LABELS,
    ),
    structural("pad", lambda m: jnp.pad(m, ((0, 1), (2, 0)), constant_values=3.0)),
    structural("pad by less than nothing", lambda m: lax.pad(m, m[0, 0], [(0, 0, 0), (-1, 1, 1)])),
    structural("concatenate", lambda m: jnp.concatenate([m, jnp.ones((2, 1), m.dtype), m], 1)),
    structural("stack", lambda m: jnp.stack([m[0], jnp.sin(m[1]), m[0]], axis=1)),
    structural("tile", lambda m: jnp.tile(m, (2, 2))),
    structural("repeat", lambda m: jnp.repeat(m, np.array([1, 0, 2]), axis=1)),
    structural("split", lambda m: jnp.split(m, [1], axis=1)[1]),
    structural("unstack", lambda m: jnp.unstack(m, axis=1)[2]),
    structural("squeeze and expand", lambda m: jnp.squeeze(m[:, None])[None, :, None]),
    structural("broadcast", lambda m: jnp.broadcast_to(m[:, :1, None], (2, 3, 2))),
    structural("diagonal", jnp.diagonal),
    structural("make diagonal", lambda m: jnp.diag(m[0])),
    structural("lower triangle", lambda m: m[:, np.tril_indices(3)[0]] * jnp.tri(2, 6)),
    structural("eye and iota", lambda m: m * jnp.eye(2, 3) + lax.broadcasted_iota(int, (2, 3), 1)),
    structural("sort", jnp.sort, refused="'sort'"),
    structural("top_k", lambda m: lax.top_k(m, 2)[0], refused="'top_k'"),
    # elements are added up
    structural("sum", lambda m: jnp.sum(m, 0)),
    structural("sum over no axis", lambda m: jnp.sum(m, axis=())),
    structural("mean and variance", lambda m: m.mean(1) + m.var(1)),
    structural("product", lambda m: jnp.prod(m, 1), refused="'reshape'"),
    structural("maximum", lambda m: jnp.max(m, 1)),
    structural("minimum of all", jnp.min),
    structural("maximum of equals", lambda m: jnp.max(jnp.stack([m, m]), 0)),
    structural(
        "any and all", lambda m: m[:, 0] * jnp.any(m > 0.1, 1) + m[:, 1] * jnp.all(m < 0, 1)
    ),
    structural("argmax as a number", lambda m: m[:, 0] * jnp.argmax(m, 1), refused="'argmax'"),
    structural("cumulative sum", lambda m: jnp.cumsum(m, 1)),
    structural("cumulative sum, reversed", lambda m: lax.cumsum(m, 1, reverse=True)),
    structural("cumulative product", lambda m: jnp.cumprod(m, 1)),
    structural("associative scan", lambda m: lax.associative_scan(jnp.multiply, m, axis=1)),
    structural("reduction of one's own", a_reduction_of_its_own, refused="'reduce'"),
    structural("softmax", jax.nn.softmax),
    structural("log_softmax", lambda m: jax.nn.log_softmax(m, 0)),
    structural("logsumexp", lambda m: jax.nn.logsumexp(3 * m, 1)),
    structural("norm", lambda m: jnp.linalg.norm(m, axis=1)),
    structural(
        "normalize", lambda m: (m - m.mean(0, keepdims=True)) / (1 + m.std(0, keepdims=True))
    ),
    # products
    structural("matrix-matrix", lambda m: m @ m.T),
    structural("three matrices", lambda m: m @ m.T @ m),
    structural("outer", lambda m: jnp.outer(m[0], m[1])),
    structural("scalar product", lambda m: m[0] @ m[1]),
    structural("einsum over a batch", lambda m: jnp.einsum("ij,ik->ijk", m, jnp.sin(m))),
    structural("einsum, batch last", lambda m: jnp.einsum("ij,kj->kij", m, jnp.sin(m))),
    structural("trace", lambda m: jnp.trace(m[:, :2])),
    structural("einsum trace", lambda m: jnp.einsum("ii->", m[:, :2])),
    # JAX 0.12 decomposes even a matrix of two rows, so the determinant is written out.
    structural("determinant", lambda m: (m[0, 0] + 2) * (m[1, 1] + 2) - m[0, 1] * m[1, 0]),
    structural("inverse", lambda m: jnp.linalg.inv(m[:, :2] + 2 * jnp.eye(2)), refused="'lu'"),
    structural(
        "solve", lambda m: jnp.linalg.solve(m[:, :2] + 2 * jnp.eye(2), m[:, 2]), refused="'lu'"
    ),
    structural("convolution", lambda m: jnp.convolve(m[0], m[1]), refused="'conv_general_dilated'"),
    # numbers
    of_numbers("functions of one number", functions_of_one_number),
    of_numbers("functions of two numbers", functions_of_two_numbers),
    probe("steps", steps),
    probe("bits", bits),
    structural("digamma", lambda m: lax.digamma(m + 2), refused="'polygamma'"),
    structural("copysign", lambda m: jnp.copysign(2 + m, m)),
    structural(
        "halves of a number",
        lambda m: m * jnp.sum(lax.bitcast_convert_type(m, jnp.uint16)[..., 0] / 2**16),
        refused="uint16",
    ),
    structural("where", lambda m: jnp.where(m > 0, m, jnp.sin(m))),
    structural("where with an unsafe branch", lambda m: jnp.where(m > 0, jnp.sqrt(abs(m)), 0)),
    structural(
        "select of three", lambda m: lax.select_n((m > 0) + jnp.int32(m > 0.2), m, -m, m * m)
    ),
    structural("clip", lambda m: jnp.clip(m, -0.1, 0.2)),
    structural("clip to data", lambda m: jnp.clip(m, m[0, 0], m[0, 0] + 0.1)),
    structural("power, whole", lambda m: m**3 + (m + 2) ** -2),
    structural("power, broken", lambda m: (m + 2) ** 2.5),
    probe(
        "power, whole and traced",
        lambda w, xi: score((w * xi[0][None]) ** xi[1]),
        batch=(EXAMPLES, LABELS),
    ),
    structural("stop_gradient", lambda m: m * lax.stop_gradient(jnp.sin(m))),
    structural(
        "precision reduced", lambda m: lax.reduce_precision(m, 8, 10), refused="'reduce_precision'"
    ),
    probe("float16", average_in(jnp.float16), refused="float16"),
    probe("bfloat16", average_in(jnp.bfloat16), refused="bfloat16"),
    probe(
        "parameters of float16",
        average_in(jnp.float32),
        refused="float16",
        params=WEIGHTS.astype(np.float16),
    ),
    structural("complex", lambda m: jnp.abs(jnp.exp(1j * m) + 1), refused="complex"),
    structural("Fourier", lambda m: jnp.abs(jnp.fft.fft(m)), refused="complex"),
    probe(
        "small integers",
        lambda w, i: score(w * i.astype(w.dtype)),
        refused="int8",
        batch=LABELS.astype(np.int8),
    ),
    # programs within the program
    structural("derivative wrong on purpose, forward", sine_with_slope_seven),
    structural("derivative wrong on purpose, backward", sine_with_slope_x),
    structural("checkpoint", jax.checkpoint(lambda m: jnp.sin(m @ m.T))),
    structural("nested jit", jax.jit(lambda m: jnp.sin(m @ jax.jit(jnp.tanh)(m).T))),
    structural("vmap inside", jax.vmap(lambda row: jnp.outer(row, row))),
    structural("gradient inside", jax.grad(lambda m: jnp.sum(jnp.sin(m @ m.T)))),
    structural("cond", lambda m: lax.cond(m[0, 0] > 0, jnp.sin, jnp.cos, m), refused="'cond'"),
    structural(
        "scan", lambda m: lax.scan(lambda c, r: (c + r, c * r), m[0], m)[1], refused="'scan'"
    ),
    structural(
        "fori_loop", lambda m: lax.fori_loop(0, 3, lambda _, c: jnp.sin(c), m), refused="'scan'"
    ),
    probe("while", doubled_until_large, refused="'while'"),
    probe("printing", printing, refused="side effects"),
    probe("called back", called_back, refused="'pure_callback'"),
    probe(
        "noise from a key of one's own",
        lambda w, x: score(w * x[None] + jax.random.normal(jax.random.key(0), (2, 3), x.dtype)),
        refused="key<",
    ),
    # arguments
    probe("integers", lambda w, i: score(w * i.astype(w.dtype)), batch=LABELS),
    probe("integers promoted", lambda w, i: score(w * i), batch=LABELS),
    probe(
        "one-hot labels", lambda w, i: score(w @ jax.nn.one_hot(i, 3, dtype=w.dtype)), batch=LABELS
    ),
    probe(
        "masks",
        lambda w, xm: score(jnp.where(xm[1] & ~xm[1][::-1], w[0] * xm[0], w[1])),
        batch=(EXAMPLES, EXAMPLES > 0),
    ),
    probe(
        "product of masks",
        lambda w, m: score(jnp.where(m @ m, w, -w)),
        refused="bool",
        batch=EXAMPLES > 0,
    ),
    probe(
        "trees",
        lambda p, b: score(p["w"] @ b["x"][0] + p["deep"][0]) * p["deep"][1] + score(b["x"][1]),
        params={"deep": (WEIGHTS[:, 0], WEIGHTS[0, 0]), "w": WEIGHTS},
        batch={"x": [EXAMPLES, EXAMPLES[:, :2]]},
    ),
    of_numbers("numbers", lambda p, x: jnp.sin(p * x)),
    probe("batch of one", lambda w, x: score(w @ x), batch=EXAMPLES[:1]),
    probe("captured", lambda w, x: score(w @ (x * SIGNS.astype(x.dtype)))),
    probe("captured, large", lambda w, x: score(w @ x) * TABLE.mean()),
    probe(
        "captured, large, and used inside",
        lambda w, x: score(w @ x) * jnp.mean(jnp.asarray(TABLE, x.dtype) ** 2),
        refused="(5000,)",
    ),
    probe("no parameters", lambda _, x: score(x), params=()),
    probe("one parameter does nothing", lambda p, x: score(p[0] @ x), params=(WEIGHTS, WEIGHTS)),
    probe("no parameter does anything", lambda _, x: score(x)),
    probe("examples do nothing", lambda w, _: score(w)),
    probe("neither does anything", lambda w, _: jnp.ones((), w.dtype)),
    probe("literal", lambda w, x: score(2.5 * w @ x - 1)),
    probe(
        "parameter of no elements",
        lambda p, x: score(p[0] @ x) + jnp.sum(p[1]),
        refused="(0,)",
        params=(WEIGHTS, np.zeros(0)),
    ),
    probe(
        "unused parameter of no elements",
        lambda p, x: score(p[0] @ x),
        refused="(0,)",
        params=(WEIGHTS, np.zeros(0)),
    ),
    probe(
        "examples of no elements",
        lambda w, x: score(w) + jnp.sum(x),
        refused="(0,)",
        batch=np.zeros((BATCH, 0)),
    ),
]
