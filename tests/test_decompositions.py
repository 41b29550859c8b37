"""Decompositions run one matrix at a time; else programs that run together wait for ever."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsp
import numpy as np
import pytest
from haste import in_haste

import toymodels as tm
from toymodels.engine.decompositions import one_at_a_time

pytestmark = pytest.mark.as_users_compile

SQUARE = np.random.default_rng(0).normal(size=(6, 4, 4)).astype(np.float32)
DEFINITE = SQUARE @ SQUARE.transpose(0, 2, 1) + np.eye(4, dtype=np.float32)

FUNCTIONS = {
    "cholesky": jnp.linalg.cholesky,
    "determinant": jnp.linalg.det,
    "eigenvalues": jnp.linalg.eigvals,
    "exponential": jsp.expm,
    "hessenberg": jsp.hessenberg,
    "hermitian": jnp.linalg.eigh,
    "inverse": jnp.linalg.inv,
    "least squares": lambda matrix: jnp.linalg.lstsq(matrix, matrix[:, 0])[0],
    "lu": jsp.lu,
    "pivoted qr": lambda matrix: jsp.qr(matrix, pivoting=True),
    "pseudoinverse": jnp.linalg.pinv,
    "qr": jnp.linalg.qr,
    "schur": jsp.schur,
    "solve": lambda matrix: jnp.linalg.solve(matrix, matrix[0]),
    "square root": jsp.sqrtm,
    "svd": jnp.linalg.svd,
    "triangular": lambda matrix: jsp.solve_triangular(matrix, matrix[0]),
    "tridiagonal": lambda matrix: jax.lax.linalg.tridiagonal_solve(*matrix[:3], matrix),
    "two dimensions of a batch": lambda matrix: jnp.linalg.svd(matrix.reshape(2, 2, 2, 2)),
    "derivative": jax.grad(lambda matrix: jnp.linalg.svd(matrix)[1].sum()),
    "in a loop": lambda m: jax.lax.scan(lambda c, _: (jnp.linalg.inv(c), None), m, length=2)[0],
    "in a loop of any length": lambda matrix: jax.lax.while_loop(
        lambda m: jnp.linalg.det(m) < 10, lambda m: m + jnp.linalg.cholesky(m), matrix
    ),
    "in a branch": lambda m: jax.lax.cond(m[0, 0] > 0, jnp.linalg.inv, jnp.negative, m),
    "in a checkpoint": jax.grad(jax.checkpoint(lambda m: jnp.linalg.eigvalsh(m).sum())),
    "in a jit": jax.jit(jnp.linalg.svd),
}


def batches_for_lapack(function, *arguments):
    """Return the calls of LAPACK in a program, and those with more than two dimensions."""
    text = jax.jit(function).lower(*arguments).as_text()
    calls = re.findall(r"@lapack_\w+\(.*operand_layouts = \[(.*?)\], ", text)
    return calls, [call for call in calls if re.search(r"\[\d+, \d+, \d+", call)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_batch_reaches_lapack(name):
    function = jax.vmap(FUNCTIONS[name])
    assert batches_for_lapack(function, DEFINITE)[1]  # what would be called without the pass
    calls, batches = batches_for_lapack(one_at_a_time(function), DEFINITE)
    assert calls
    assert not batches


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_are_those_without_the_pass(name):
    function = jax.vmap(FUNCTIONS[name])
    for ours, theirs in zip(
        jax.tree.leaves(tm.jit(function)(DEFINITE)),
        jax.tree.leaves(in_haste(function)(DEFINITE)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_derivative_is_the_one_that_its_author_gave():
    """A pass that removed these rules would give the derivative of the program, 1."""

    @jax.custom_jvp
    def total(matrices):
        return jax.vmap(lambda m: jnp.linalg.eigvalsh(m).sum())(matrices).sum()

    total.defjvp(lambda primals, tangents: (total(*primals), 7 * jnp.trace(tangents[0][0])))
    np.testing.assert_array_equal(jax.grad(one_at_a_time(total))(DEFINITE)[0], 7 * np.eye(4))


SIDE_BY_SIDE = """
import concurrent.futures
import jax, jax.numpy as jnp, numpy as np, toymodels as tm

def cell(key, *, a):
    matrices = a * jax.random.normal(key, (3, 32, 32))
    found = [jnp.linalg.svd(m)[1] + jnp.linalg.eigvalsh(m @ m.T) for m in matrices]
    return {"y": jnp.stack(found)}

def run(executor=None):
    axes = {"a": np.linspace(0.5, 1.5, 160)}
    tm.sweep(cell, axes=axes, width=8, executor=executor, progress=False)

with concurrent.futures.ThreadPoolExecutor(8) as threads:
    run(threads)
    for done in [threads.submit(run) for _ in range(3)]:
        done.result()
print("done")
"""


def test_programs_side_by_side_do_not_wait_for_each_other_for_ever():
    """An executor of threads and three sweeps run eighty blocks of six decompositions."""
    finished = subprocess.run(
        [sys.executable, "-c", SIDE_BY_SIDE],
        env={**os.environ, "NPROC": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.stdout.split() == ["done"], finished.stderr
