"""Cells made at random, to look for programs of XLA that treat lanes differently.

`make test-lanes CELLS=300` tries many of them. It is worth the minutes with each new version of
JAX, because what a compiler does with a loop is not promised.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import toymodels as tm

PIECES = (
    lambda p, a, b, c: 1 / (1 + a**2 + b**2),
    lambda p, a, b, c: jnp.exp(-(a**2) - b**2) * c,
    lambda p, a, b, c: a * b + c * a + b,
    lambda p, a, b, c: jax.lax.rsqrt(1 + a**2 + b**2 + c**2),
    lambda p, a, b, c: jnp.tanh(a * b + c),
    lambda p, a, b, c: jnp.log1p(a**2 + b**2),
    lambda p, a, b, c: jnp.sin(a) * jnp.cos(b) + c * b,
    lambda p, a, b, c: (a + b * c) / (3 + a * c),
    lambda p, a, b, c: jax.nn.gelu(a * b + c),
    lambda p, a, b, c: jnp.arctan2(a, 1 + b**2) + jnp.hypot(b, c),
    lambda p, a, b, c: jnp.where(a > b, a * c, b - c),
    lambda p, a, b, c: jnp.sum(p**2),
    lambda p, a, b, c: jnp.sum(p / (1e-3 + jnp.sum(p**2, axis=0, keepdims=True))),
    lambda p, a, b, c: jax.nn.softmax(p.ravel())[0] * a,
    lambda p, a, b, c: jnp.linalg.norm(p) * a + b,
    lambda p, a, b, c: jnp.sum(jnp.sort(p, axis=-1) * jnp.cumsum(p, axis=-1)),
    lambda p, a, b, c: jnp.sum(jax.lax.top_k(p, 1)[0]) * b,
    lambda p, a, b, c: jnp.sum((p @ p.T) ** 3),
    lambda p, a, b, c: jnp.max(p) * a + jnp.std(p),
    lambda p, a, b, c: jnp.sum(jnp.fft.rfft(p).real * a),
)


def _loss(params, target):
    lengths = 1e-3 + jnp.sum(params**2, axis=0, keepdims=True)
    return jnp.sum((params / lengths - target) ** 2) + jnp.sum(jnp.exp(-params) * params)


def random_cell(seed):
    """Return a cell that computes 8 of the pieces and trains for a few steps, and its text."""
    draw = np.random.default_rng(seed)
    shape = (int(draw.integers(1, 6)), int(draw.integers(1, 9)))
    pieces = draw.integers(len(PIECES), size=8)
    places = draw.integers(shape[0] * shape[1], size=(8, 3)).tolist()  # known to the compiler
    batch, steps = int(draw.integers(1, 300)), int(draw.integers(0, 6))
    optimizer = [optax.adam(1e-2), optax.sgd(1e-2, momentum=0.9)][int(draw.integers(2))]

    def cell(key, *, scale):
        start, examples, noise = jax.random.split(key, 3)
        params = jax.random.normal(start, shape) * scale
        data = jax.random.normal(examples, (batch, shape[1]))

        def step(carry, each):
            params, state = carry
            target = jax.random.uniform(each, shape)
            gradient = jax.grad(_loss)(params, target)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), jnp.sum(gradient**2)

        keys = jax.random.split(noise, steps)
        (params, _), curve = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        flat = params.ravel()
        outputs = {
            f"{number}: piece {piece}": PIECES[piece](params, *(flat[each] for each in picked))
            for number, (piece, picked) in enumerate(zip(pieces, places, strict=True))
        }
        outputs["examples"] = jnp.mean(jax.nn.relu(data @ params.T - 0.1) ** 2)
        return outputs | {
            "params": params,
            "curve": curve,
            "gradient": jax.grad(_loss)(params, 0.5),
        }

    return cell, f"seed {seed}: shape {shape}, batch {batch}, steps {steps}, pieces {pieces}"


ACTIVATIONS = (
    jax.nn.relu,
    jax.nn.gelu,
    jax.nn.silu,
    jnp.tanh,
    jnp.abs,
    lambda a: jnp.exp(-(a**2)),
    lambda a: jnp.maximum(a, 0.1 * a),
    lambda a: a / (1 + a**2),
)
ERRORS = (jnp.square, jnp.abs, lambda e: e**4, lambda e: jnp.log1p(e**2))
OPTIMIZERS = (optax.adam(1e-2), optax.sgd(1e-2, momentum=0.9), optax.adamw(1e-2))


def random_training(seed):
    """Return a cell that trains a small model with large batches, and its text.

    The engine computes the lanes of a block in turns of a few. Seven of eight models are small
    enough for the fused loop, and the others are computed one by one.
    """
    draw = np.random.default_rng(seed)
    hidden, features = (
        int(draw.integers(1, 4)),
        int(draw.integers(1, 9 if draw.integers(8) else 60)),
    )
    batch = int(draw.choice([777, 1024, 2048, 5000]))
    inner, outer = (int(draw.integers(len(ACTIVATIONS))) for _ in range(2))
    error, optimizer = int(draw.integers(len(ERRORS))), int(draw.integers(len(OPTIMIZERS)))

    def loss(params, x):
        weights, bias = params
        outputs = ACTIVATIONS[outer](weights.T @ ACTIVATIONS[inner](weights @ x) + bias)
        return jnp.sum(ERRORS[error](x - outputs))

    def cell(key, *, scale):
        key_start, key_data = jax.random.split(key)
        start = jax.random.normal(key_start, (hidden, features)), jnp.zeros(features)
        fitted = tm.fit(
            key_data,
            start,
            loss,
            tm.SparseUniform(features, 0.3 * scale).sample,
            optimizer=OPTIMIZERS[optimizer],
            steps=6,
            batch=batch,
        )
        return {"weights": fitted.params[0], "bias": fitted.params[1], "curve": fitted.history.loss}

    return cell, (
        f"seed {seed}: {features} features, {hidden} dimensions, batch {batch}, activations "
        f"{inner} and {outer}, error {error}, optimizer {optimizer}"
    )
