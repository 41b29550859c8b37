r"""Boolean circuits written into fewer dimensions than they have variables: truth is known.

The variables, inputs and gates, are directions $d_v$ of a residual stream of $m$ dimensions. A
gate reads its two operands, $a = d_a \cdot x$ and $b = d_b \cdot x$, and adds
$(s (a + b) + t \operatorname{ReLU}(a + b - 1))\, d_g$ to the stream. AND is $(s, t) = (0, 1)$, OR
is $(1, -1)$ and XOR is $(1, -2)$. With at least as many dimensions as variables the directions are
orthonormal, in a random basis, and the circuit is exact. With fewer they are projections of such a
basis, which interfere: $d_a \cdot x$ is the operand and noise from all other true variables.
A threshold corrects noise below 1/4, so that sparse inputs are computed right.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from toymodels import checks
from toymodels.circuits.edges import Edges
from toymodels.circuits.graphs import INPUT, Graph
from toymodels.errors import InputError
from toymodels.sites import Site

AND, OR, XOR = (0.0, 1.0), (1.0, -1.0), (1.0, -2.0)
"""The numbers $(s, t)$ of each kind of gate."""


@struct.dataclass
class Program:
    """A circuit of gates in layers. Variables are numbered: inputs, then gates layer by layer.

    Attributes:
        num_inputs: the number of inputs.
        operands: the two variables that each gate reads (layers x gates x 2), all of earlier
            layers.
        kinds: the numbers $(s, t)$ of each gate (layers x gates x 2), such as `AND`.
    """

    num_inputs: int = struct.field(pytree_node=False)
    operands: Int[Array | np.ndarray, "*cells layers gates two"]
    kinds: Float[Array | np.ndarray, "*cells layers gates two"]

    @property
    def num_variables(self) -> int:
        """The number of inputs and gates."""
        layers, gates = self.operands.shape[-3:-1]
        return self.num_inputs + layers * gates


@functools.partial(jax.jit, static_argnames=("num_inputs", "layers", "gates"))
def random_program(key: Key[Array, ""], *, num_inputs: int, layers: int, gates: int) -> Program:
    """Return a random circuit: kinds are uniform, and operands two different earlier variables.

    Args:
        key: decides the circuit.
        num_inputs: the number of inputs, at least 2.
        layers: the number of layers.
        gates: the number of gates of each layer. Those of the last layer are the outputs.
    """
    checks.count("num_inputs", num_inputs, minimum=2)
    checks.count("layers", layers)
    checks.count("gates", gates)
    key_kinds, *keys = jax.random.split(key, layers + 1)
    operands = [
        jax.vmap(lambda key, n=num_inputs + layer * gates: jax.random.permutation(key, n)[:2])(
            jax.random.split(each, gates)
        )
        for layer, each in enumerate(keys)
    ]
    kinds = jax.random.randint(key_kinds, (layers, gates), 0, 3)
    return Program(num_inputs, jnp.stack(operands), jnp.asarray([AND, OR, XOR])[kinds])


class BooleanNetwork(nn.Module):
    """A program as a network with a residual stream; `written` gives its parameters.

    Sites: the gates of each layer, `layer_0`, `layer_1`, ..., and of the last layer, `output`.
    Parameters: `inputs` (inputs x width), the directions of the inputs; in each layer, as
    `layer_0_read` (gates x 2 x width), `layer_0_kind` (gates x 2) and `layer_0_write` (gates x
    width).

    Attributes:
        layers: the number of layers.
        gates: the number of gates of each layer.
        width: the dimensions of the residual stream.
        correcting: whether each operand passes a threshold, which maps what is below 1/4 to 0 and
            what is above 3/4 to 1. Its slope is 0 at right values, so gradients vanish there.
    """

    layers: int
    gates: int
    width: int
    correcting: bool = False

    @nn.compact
    def __call__(self, bits: Float[Array, " inputs"]) -> Float[Array, " gates"]:
        """Return the gates of the last layer for one vector of bits, 0 or 1."""
        zeros = nn.initializers.zeros
        stream = bits @ self.param("inputs", zeros, (bits.size, self.width))
        values = bits
        for layer in range(self.layers):
            name = f"layer_{layer}"
            read = self.param(f"{name}_read", zeros, (self.gates, 2, self.width))
            kind = self.param(f"{name}_kind", zeros, (self.gates, 2))
            write = self.param(f"{name}_write", zeros, (self.gates, self.width))
            operands = read @ stream
            if self.correcting:
                operands = nn.relu(2 * operands - 0.5) - nn.relu(2 * operands - 1.5)
            total = jnp.sum(operands, axis=1)
            values = kind[:, 0] * total + kind[:, 1] * nn.relu(total - 1)
            values = Site(name="output" if layer == self.layers - 1 else name)(values)
            stream = stream + values @ write
        return values


def random_directions(
    key: Key[Array, ""], number: int, *, width: int
) -> Float[Array, "variables width"]:
    r"""Return unit vectors: orthonormal in a random basis if there are dimensions enough.

    With $m$ dimensions for $V > m$ vectors they are the projections of an orthonormal basis onto a
    random subspace, scaled to length 1. Before they are scaled the mean square of their overlaps is
    the smallest possible, $m (V - m) / (V^2 (V - 1))$, and so it falls to 0 as $m$ goes to $V$.

    Args:
        key: decides the vectors.
        number: the number of vectors.
        width: the number of dimensions.
    """
    checks.count("number", number)
    checks.count("width", width)
    size = max(number, width)
    rotation = jnp.linalg.qr(jax.random.normal(key, (size, size)))[0]
    directions = rotation[:number, :width]
    return directions / jnp.linalg.norm(directions, axis=1, keepdims=True)


def padded_directions(
    key: Key[Array, ""], number: int, width: Float[Array, ""] | float
) -> Float[Array, "variables variables"]:
    """Return `random_directions` with zeros behind, so that the number of dimensions may be traced.

    Args:
        key: decides the vectors.
        number: the number of vectors, and of coordinates.
        width: the number of dimensions, between 1 and `number`; coordinates after it are 0.
    """
    checks.interval("width", width, low=1, high=number, remedy="give the dimensions that are used")
    rotated = random_directions(key, number, width=number)
    kept = jnp.where(jnp.arange(number)[None] < width, rotated, 0.0)
    return kept / jnp.linalg.norm(kept, axis=1, keepdims=True)


def written(program: Program, directions: Float[Array, "variables width"]) -> PyTree:
    """Return the parameters of the `BooleanNetwork` that computes a program.

    Args:
        program: ONE program.
        directions: the direction $d_v$ of each variable, such as `random_directions`.
    """
    number = program.num_variables
    if directions.shape[0] != number:
        raise InputError(
            f"there are {directions.shape[0]} directions for {number} variables: give one for each"
        )
    gates = program.operands.shape[1]
    ends = [program.num_inputs + gates * layer for layer in range(len(program.operands))]
    inputs, *layers = jnp.split(directions, ends)
    params = {"inputs": inputs}
    for layer, write in enumerate(layers):
        params[f"layer_{layer}_read"] = directions[jnp.asarray(program.operands)[layer]]
        params[f"layer_{layer}_kind"] = jnp.asarray(program.kinds)[layer]
        params[f"layer_{layer}_write"] = write
    return params


def boolean_graph(layers: int) -> Graph:
    """Return the graph of a `BooleanNetwork`: every gate may read every earlier variable."""
    checks.count("layers", layers)
    names = [INPUT, *(f"layer_{layer}" for layer in range(layers - 1)), "output"]
    return Graph(
        tuple((start, end) for i, end in enumerate(names) for start in names[:i]), output="output"
    )


class Truth(NamedTuple):
    """The edges of a program.

    Attributes:
        wired: the edges from the operands of each gate.
        used: those of them that change an output for some inputs, when the value that they carry
            is flipped. A gate that no output depends on, or that repeats another, has unused ones.
    """

    wired: dict[tuple[str, str], Bool[Array, "senders receivers"]]
    used: dict[tuple[str, str], Bool[Array, "senders receivers"]]


@jax.jit
def true_edges(program: Program) -> Truth:
    """Return the edges of a program, by its truth table over all inputs.

    Args:
        program: ONE program of at most 16 inputs.
    """
    if program.num_inputs > 16:
        raise InputError(f"the program has {program.num_inputs} inputs: the table takes at most 16")
    layers, gates, _ = program.operands.shape
    inputs = np.arange(program.num_inputs)
    table = jnp.asarray((np.arange(2**program.num_inputs)[:, None] >> inputs) & 1, float)
    plain = _outputs(program, table, jnp.zeros(program.operands.shape))
    flips = jnp.eye(layers * gates * 2).reshape(-1, layers, gates, 2)
    flipped = jax.vmap(lambda flip: _outputs(program, table, flip))(flips)
    matters = jnp.any(flipped != plain[None], axis=(1, 2)).reshape(layers, gates, 2)
    every = jnp.ones_like(matters)
    return Truth(_as_edges(program, every), _as_edges(program, matters))


def _outputs(
    program: Program, table: Float[Array, "rows inputs"], flip: Float[Array, "layers gates two"]
) -> Float[Array, "rows gates"]:
    """Return the outputs for each row of inputs when some operands are seen flipped."""
    values = table
    for operands, kinds, flipped in zip(program.operands, program.kinds, flip, strict=True):
        seen = values[:, jnp.asarray(operands)]
        seen = seen + flipped[None] * (1 - 2 * seen)
        total = jnp.sum(seen, axis=2)
        kinds = jnp.asarray(kinds)
        gates = kinds[None, :, 0] * total + kinds[None, :, 1] * jax.nn.relu(total - 1)
        values = jnp.concatenate([values, gates], axis=1)
    return values[:, -program.operands.shape[1] :]


def _as_edges(program: Program, chosen: Bool[Array, "layers gates two"]) -> Edges:
    layers, gates, _ = chosen.shape
    starts = [0, *(program.num_inputs + gates * layer for layer in range(layers))]
    names = [INPUT, *(f"layer_{layer}" for layer in range(layers - 1)), "output"]
    edges: Edges = {}
    for layer, receiver in enumerate(names[1:]):
        operands = jnp.asarray(program.operands)[layer]
        hot = jax.nn.one_hot(operands, starts[layer + 1], dtype=bool)
        matrix = jnp.any(hot & chosen[layer][:, :, None], axis=1).T
        for place, sender in enumerate(names[: layer + 1]):
            low, high = starts[place], starts[place + 1]
            edges[sender, receiver] = matrix[low:high]
    return edges
