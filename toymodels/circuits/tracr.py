r"""Programs that the compiler Tracr wrote into transformers, as models of ours: truth is known.

Each direction of the residual stream has a name, such as "tokens:a", and each weight is there for
one line of a program. `tracr_program` reads a program that is stored here, and `from_tracr`
rebuilds one that you compiled. `compressed` writes a program into fewer dimensions: Tracr itself
has one dimension for each direction.

References:
    Lindner et al. (2023), "Tracr: Compiled Transformers as a Laboratory for Interpretability".
"""

import functools
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from toymodels.circuits.edges import Edge
from toymodels.circuits.graphs import Graph
from toymodels.errors import InputError
from toymodels.models import AttentionOnly

START = "compiler_bos"
"""The token at the first position of every sequence."""


class TracrProgram(NamedTuple):
    """A compiled program.

    Attributes:
        model: a model without causal mask; its parameters are `params`.
        params: the parameters.
        vocabulary: the token of each feature of the model. Tokens are text.
        outputs: the value of each output; empty if the only output is the value itself.
        residual: the name of each dimension of the residual stream.
    """

    model: AttentionOnly
    params: PyTree
    vocabulary: tuple[str, ...]
    outputs: tuple[str, ...]
    residual: tuple[str, ...]

    def encoded(self, tokens: Sequence[str]) -> Float[Array, "length features"]:
        """Return the input of the model for ONE sequence, with the token `START` before it.

        Args:
            tokens: tokens of the vocabulary, as many as the program was compiled for.
        """
        unknown = [token for token in tokens if token not in self.vocabulary]
        if unknown:
            known = ", ".join(map(repr, self.vocabulary))
            raise InputError(f"token {unknown[0]!r} is none of {known}: give text")
        places = [self.vocabulary.index(token) for token in (START, *tokens)]
        return jax.nn.one_hot(jnp.asarray(places), len(self.vocabulary))

    def decoded(self, output: Float[Array | np.ndarray, "length outputs"]) -> list[str | float]:
        """Return the answer at each token: the value of the largest output, or a number."""
        answers = np.asarray(output)[1:]
        if answers.ndim != 2 or np.isnan(answers).any():
            found = f"has shape {np.shape(output)}" if answers.ndim != 2 else "holds NaN"
            raise InputError(f"the output {found}: give the numbers of ONE sequence")
        if self.outputs:
            return [self.outputs[place] for place in answers.argmax(axis=1)]
        return answers[:, 0].tolist()


def tracr_program(name: str) -> TracrProgram:
    """Return a stored program, for sequences of four tokens.

    Args:
        name: "frac_prevs" (which share of the tokens so far is x; tokens a, b, x), "hist" (how
            often the token occurs), "reverse" (the tokens in reverse order; both a, b, c), or
            "sort" (the tokens in ascending order; tokens 1, 2, 3).
    """
    stored = _stored()
    if name not in stored:
        raise InputError(f"there is no program {name!r}: take one of {', '.join(stored)}")
    return _from_record(stored[name])


def from_tracr(compiled: Any, *, output: str) -> TracrProgram:
    """Return what `tracr.compiler.compiling.compile_rasp_to_model` made as a model of ours.

    Args:
        compiled: the compiled program, with a token before each sequence.
        output: the name of the output in `compiled.residual_labels`: "reverse_6" for the
            directions "reverse_6:a", "reverse_6:b", ..., or the whole name of one direction.
    """
    return _from_record(record(compiled, output=output))


def record(compiled: Any, *, output: str) -> dict[str, Any]:
    """Return the numbers and names of a compiled program as a dictionary that JSON can hold."""
    config, labels = compiled.model_config, list(compiled.residual_labels)
    read = [i for i, name in enumerate(labels) if name == output or name.startswith(f"{output}:")]
    if not read:
        raise InputError(f"output is {output!r}: take one of {', '.join(labels)}")
    params = jax.tree.map(np.asarray, compiled.params)
    heads, size = config.num_heads, config.key_size

    def by_head(matrix: np.ndarray) -> np.ndarray:
        return matrix.reshape(-1, heads, size).transpose(1, 2, 0)

    weights = {
        "W_E": params["token_embed"]["embeddings"].T,
        "W_pos": params["pos_embed"]["embeddings"],
        "W_U": np.eye(len(labels))[read],
    }
    for layer in range(config.num_layers):
        attention, neurons = (f"transformer/layer_{layer}/{part}" for part in ("attn", "mlp"))
        for own, theirs in (("W_Q", "query"), ("W_K", "key"), ("W_V", "value")):
            weights[f"layer_{layer}/{own}"] = by_head(params[f"{attention}/{theirs}"]["w"])
        written = params[f"{attention}/linear"]["w"].reshape(heads, size, -1)
        weights[f"layer_{layer}/W_O"] = written.transpose(0, 2, 1)
        for number in (1, 2):
            linear = params[f"{neurons}/linear_{number}"]
            weights[f"layer_{layer}/W_{number}"] = linear["w"].T
            weights[f"layer_{layer}/b_{number}"] = linear["b"]
    places = {place: str(token) for token, place in compiled.input_encoder.encoding_map.items()}
    values = [labels[place].partition(":")[2] for place in read]
    return {
        "vocabulary": [places[place] for place in sorted(places)],
        "outputs": values if len(values) > 1 else [],
        "residual": labels,
        "weights": {
            name: {
                "shape": list(matrix.shape),
                "entries": [
                    [*map(int, place), float(matrix[tuple(place)])]
                    for place in np.argwhere(matrix != 0)
                ],
            }
            for name, matrix in weights.items()
        },
    }


@functools.cache
def _stored() -> dict[str, Any]:
    return json.loads((resources.files("toymodels.circuits") / "programs.json").read_text())


def _from_record(stored: dict[str, Any]) -> TracrProgram:
    params: dict[str, Any] = {}
    for name, sparse in stored["weights"].items():
        matrix = np.zeros(sparse["shape"], np.float32)
        for *place, value in sparse["entries"]:
            matrix[tuple(place)] = value
        layer, _, short = name.rpartition("/")
        (params.setdefault(layer, {}) if layer else params)[short] = jnp.asarray(matrix)
    heads, head_width, width = params["layer_0"]["W_Q"].shape
    model = AttentionOnly(
        layers=sum(name.startswith("layer_") for name in params),
        heads=heads,
        width=width,
        head_width=head_width,
        causal=False,
        neurons=params["layer_0"]["W_1"].shape[0],
        outputs=params["W_U"].shape[0],
    )
    names = (tuple(stored[name]) for name in ("vocabulary", "outputs", "residual"))
    return TracrProgram(model, params, *names)


def compressed(program: TracrProgram, directions: Float[Array, "residual width"]) -> TracrProgram:
    r"""Return the program in another residual stream, in which dimension $v$ is direction $d_v$.

    What is written is multiplied by $D$ and what is read by $D^\top$, where $D$ has the columns
    $d_v$. The model computes the same if these are orthonormal; fewer dimensions interfere.

    Args:
        program: the program.
        directions: the direction of each dimension, such as `random_directions`.
    """
    number = len(program.residual)
    if directions.shape[0] != number:
        raise InputError(
            f"there are {directions.shape[0]} directions for {number} dimensions of the residual "
            "stream: give one for each"
        )
    axis = {"W_E": 0, "W_O": 1, "W_2": 0, "b_2": 0} | dict.fromkeys(("W_pos", "W_U", "W_1"), 1)
    axis |= dict.fromkeys(("W_Q", "W_K", "W_V"), 2)

    def written(path: Any, leaf: Array) -> Array:
        place = axis.get(path[-1].key)
        if place is None:
            return leaf
        return jnp.moveaxis(jnp.tensordot(leaf, directions, (place, 0)), -1, place)

    params = jax.tree_util.tree_map_with_path(written, program.params)
    return program._replace(model=program.model.clone(width=directions.shape[1]), params=params)


def tracr_graph(layers: int) -> Graph:
    """Return the graph of a program: embedding, heads and neurons, and what may read them.

    Each head has a node for its queries, its keys and its values. The embedding, the neurons of a
    layer and the output are one node each.

    Args:
        layers: the number of layers of the model.
    """
    edges: list[Edge] = []
    written = ["embedding"]
    for layer in range(layers):
        name = f"layer_{layer}"
        for read in ("query", "key", "value"):
            edges += [(sender, f"{name}/{read}") for sender in written]
            edges.append((f"{name}/{read}", f"{name}/heads"))
        written.append(f"{name}/heads")
        edges += [(sender, f"{name}/neurons") for sender in written]
        written.append(f"{name}/neurons")
    edges += [(sender, "output") for sender in written]
    whole = ("embedding", *(f"layer_{layer}/neurons" for layer in range(layers)), "output")
    return Graph(tuple(edges), whole)


def wired_edges(program: TracrProgram) -> dict[Edge, Bool[np.ndarray, "senders receivers"]]:
    """Return which edges of `tracr_graph` have weights: the receiver reads what the sender writes.

    Args:
        program: a program that is not compressed. Its directions are exact, so that no other edge
            has an effect. An edge that carries a value that never changes has none either.
    """
    if program.model.width != len(program.residual):
        raise InputError(
            f"the program is compressed to {program.model.width} dimensions, in which every edge "
            "has weights: give the program before `compressed`"
        )
    params = jax.tree.map(np.asarray, program.params)
    writes: dict[str, np.ndarray] = {}
    reads: dict[str, np.ndarray] = {}
    embedded = np.hstack([params["W_E"], params["W_pos"].T])
    writes["embedding"] = _nonzero(embedded, 1)[None]
    reads["output"] = _nonzero(params["W_U"], 0)[None]
    whole: dict[str, np.ndarray] = {}
    for layer in range(program.model.layers):
        name, own = f"layer_{layer}", params[f"layer_{layer}"]
        for read, matrix in (("query", "W_Q"), ("key", "W_K"), ("value", "W_V")):
            reads[f"{name}/{read}"] = _nonzero(own[matrix], 1)
        writes[f"{name}/heads"] = _nonzero(own["W_O"], 2)
        reads[f"{name}/neurons"] = _nonzero(own["W_1"], 0)[None]
        writes[f"{name}/neurons"] = _nonzero(own["W_2"], 1)[None]
        whole[name] = np.diag(
            np.all([_nonzero(own[m].reshape(len(own[m]), -1), 1) for m in ("W_V", "W_O")], axis=0)
        )
    return {
        (sender, receiver): whole[receiver.partition("/")[0]]
        if receiver.endswith("/heads")
        else writes[sender].astype(int) @ reads[receiver].T.astype(int) > 0
        for sender, receiver in tracr_graph(program.model.layers).edges
    }


def _nonzero(matrix: np.ndarray, axis: int) -> Bool[np.ndarray, "..."]:
    return np.any(matrix != 0, axis=axis)
