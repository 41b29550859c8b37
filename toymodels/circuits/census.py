"""A census: every subgraph of a small network, and which of them are minimal circuits."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from toymodels import checks
from toymodels.errors import InputError


def all_circuits(num_edges: int) -> Float[np.ndarray, "circuits edges"]:
    """Return every circuit of `num_edges` edges: row $i$ holds the binary digits of $i$.

    The first edge is the highest digit, so that the rows of truth values reshape to one axis of
    length 2 for each edge.

    Args:
        num_edges: the number of edges, at most 20.
    """
    checks.count("num_edges", num_edges)
    if num_edges > 20:
        raise InputError(f"num_edges is {num_edges}: a census of more than 20 is too large")
    places = np.arange(num_edges)[::-1]
    return ((np.arange(2**num_edges)[:, None] >> places) & 1).astype(np.float32)


def outputs_of_all_circuits(
    weights_in: Float[Array, "units inputs"],
    hidden_bias: Float[Array, " units"],
    weights_out: Float[Array, " units"],
    bias: Float[Array, ""],
    examples: Float[Array, "examples inputs"],
) -> Float[Array, "circuits examples"]:
    r"""Return the output of every circuit of a network with one hidden layer, for some inputs.

    The network is $\sum_k u_k \mathrm{ReLU}(w_k \cdot x + c_k) + b$. A circuit keeps some of the
    weights $w$ and $u$ and sets the others to 0; biases stay. Its edges come unit by unit: those
    from the inputs, and then the one to the output. Units only add up, so that the states of
    each unit give all circuits, in the order of `all_circuits`.

    Args:
        weights_in: $w$. With $d$ inputs and $h$ units there are $(d + 1) h$ edges, at most 20.
        hidden_bias: $c$.
        weights_out: $u$.
        bias: $b$.
        examples: the inputs $x$.
    """
    weights_in, hidden_bias, weights_out, examples = (
        jnp.asarray(each, jnp.result_type(float))
        for each in (weights_in, hidden_bias, weights_out, examples)
    )
    for name, array, rank in (("weights_in", weights_in, 2), ("examples", examples, 2)):
        if array.ndim != rank:
            raise InputError(f"{name} has shape {array.shape}: give a matrix")
    units, inputs = weights_in.shape
    checks.same_size("inputs", weights_in=inputs, examples=examples.shape[1])
    checks.same_size(
        "units", weights_in=units, hidden_bias=hidden_bias.size, weights_out=weights_out.size
    )
    if (inputs + 1) * units > 20:
        raise InputError(
            f"the network has {(inputs + 1) * units} edges: a census of more than 20 is too large"
        )
    kept = jnp.asarray(all_circuits(inputs + 1))
    total = jnp.full((1, len(examples)), bias)
    for read, write, shift in zip(weights_in, weights_out, hidden_bias, strict=True):
        active = jax.nn.relu((kept[:, :-1] * read[None]) @ examples.T + shift)
        added = kept[:, -1:] * write * active
        total = (total[:, None] + added[None]).reshape(-1, len(examples))
    return total


def holds_faithful(faithful: Bool[Array, " circuits"]) -> Bool[Array, " circuits"]:
    """Return which circuits are faithful, or have a subset of edges that is faithful.

    Args:
        faithful: whether each circuit does what the network does, in the order of `all_circuits`.
    """
    cube = _cube(jnp.asarray(faithful))
    for axis in range(cube.ndim):
        without, with_edge = jnp.split(cube, 2, axis=axis)
        cube = jnp.concatenate([without, with_edge | without], axis=axis)
    return cube.reshape(-1)


def minimal_circuits(faithful: Bool[Array, " circuits"]) -> Bool[Array, " circuits"]:
    """Return which circuits are faithful, and have no proper subset of edges that is faithful.

    Args:
        faithful: whether each circuit does what the network does, in the order of `all_circuits`.
    """
    faithful = jnp.asarray(faithful)
    below = _cube(holds_faithful(faithful))
    proper = jnp.zeros_like(below)
    for axis in range(below.ndim):  # a proper subset lacks one of the edges
        without, _ = jnp.split(below, 2, axis=axis)
        proper = proper | jnp.concatenate([jnp.zeros_like(without), without], axis=axis)
    return faithful & ~proper.reshape(-1)


def _cube(faithful: Bool[Array, " circuits"]) -> Bool[Array, "..."]:
    """Return one axis for each edge, of length 2: without and with the edge."""
    if faithful.dtype != bool:
        raise InputError(f"faithful holds {faithful.dtype} numbers: give truth values")
    edges = faithful.size.bit_length() - 1
    if faithful.shape != (2**edges,):
        raise InputError(
            f"faithful has shape {faithful.shape}: give one truth value for each of 2^E circuits, "
            "and use jax.vmap for several networks"
        )
    return faithful.reshape((2,) * edges)
