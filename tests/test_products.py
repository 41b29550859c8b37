"""Matrix products: every lane of a block gets the bits that each other lane would get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toymodels.engine.compiling import compiler_options
from toymodels.engine.products import lanes_side_by_side
from toymodels.sweeps.program import compile_program

pytestmark = pytest.mark.as_users_compile

LEFT = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
OUTSIDE = np.random.default_rng(1).normal(size=(8, 320)).astype(np.float32)


def left(key, *, scale):
    """Multiply a matrix that all lanes share by the columns of this lane."""
    del key
    return {"product": LEFT @ (OUTSIDE * scale)}


def in_a_loop(key, *, scale):
    """Multiply in a loop, so that the product is not at the top of the program."""
    del key
    columns = OUTSIDE * scale
    return {"product": jax.lax.scan(lambda x, _: (jnp.tanh(LEFT @ x), None), columns, length=3)[0]}


def right(key, *, scale):
    """Multiply the rows of this lane by a matrix that all lanes share."""
    del key
    return {"product": (OUTSIDE * scale).T @ LEFT.T}


def own(key, *, scale):
    """Multiply two matrices of this lane."""
    del key
    return {"product": (LEFT * scale) @ (OUTSIDE * scale)}


def shared_kernel(key, *, scale):
    """Slide a kernel that all lanes share over the images of this lane."""
    del key
    images = (OUTSIDE * scale).reshape(1, 8, 16, 20)
    return {
        "product": jax.lax.conv(images, LEFT[:, :, None, None] * np.ones((3, 3)), (1, 1), "SAME")
    }


def shared_images(key, *, scale):
    """Slide a kernel of this lane over images that all lanes share."""
    del key
    images = OUTSIDE.reshape(1, 8, 16, 20)
    return {"product": jax.lax.conv(images, scale * LEFT[:, :, None, None], (1, 1), "SAME")}


CELLS = {"left": left, "in a loop": in_a_loop, "right": right, "own": own}
CONVOLUTIONS = {"shared kernel": shared_kernel, "shared images": shared_images}
NUMBERS = {"scale": np.float32([1.7])}


@pytest.mark.parametrize("width", [2, 7, 64])
@pytest.mark.parametrize("name", [*CELLS, *CONVOLUTIONS])
def test_equal_lanes_have_equal_bits(name, width):
    program = compile_program({**CELLS, **CONVOLUTIONS}[name], NUMBERS, width=width)
    scales = np.full(width, 1.7, np.float32)
    outputs = program.run_block(np.zeros(width, int), {"scale": scales}).outputs["product"]
    assert len(np.unique(outputs.reshape(width, -1).view(np.uint32), axis=0)) == 1


@pytest.mark.parametrize("rows", [1, 3, 16, 100])
@pytest.mark.parametrize("terms", [5, 8, 33, 400])
def test_columns_side_by_side_have_equal_bits(rows, terms):
    """The columns of one product of all lanes have equal bits at every place."""
    options = compiler_options(side_by_side=True)
    product = jax.jit(jnp.matmul, compiler_options=options)
    rng = np.random.default_rng(rows * terms)
    shared = rng.normal(size=(rows, terms)).astype(np.float32)
    column = rng.normal(size=(terms, 1)).astype(np.float32)
    for columns in (6, 100, 1000, 4160, 20_480):
        together = np.asarray(product(shared, np.repeat(column, columns, axis=1)))
        assert (together == together[:, :1]).all(), columns


def test_lanes_side_by_side_are_found():
    found = {}
    for name, cell in CELLS.items():
        block = jax.vmap(lambda scale, cell=cell: cell(None, scale=scale))
        found[name] = lanes_side_by_side(jax.make_jaxpr(block)(jnp.ones(64)).jaxpr, 64)
    assert found == {"left": True, "in a loop": True, "right": False, "own": False}
    rows = jax.vmap(lambda x: x @ LEFT)  # sums over the last dimension of the lanes
    assert not lanes_side_by_side(jax.make_jaxpr(rows)(jnp.ones((64, 5, 8))).jaxpr, 64)
