r"""Connections of latents, which make transcoders and crosscoders of autoencoders.

Write several activations of ONE example one after the other, as `SideBySide` does. An autoencoder
of the whole vector reads everything and writes everything. With fewer connections it becomes

| name                     | parts                    | a latent reads  | and writes            |
|--------------------------|--------------------------|-----------------|-----------------------|
| transcoder               | input, output of a layer | the input       | the output            |
| cross-layer transcoder   | both of every layer      | one input       | this and later outputs|
| crosscoder               | one for each model       | all             | all                   |
| with dedicated latents   | one for each model       | one or all      | what it reads         |

So each kind of sparsity (L1, TopK, BatchTopK, JumpReLU, gated) has its transcoder. The squared
error of a part that no latent writes is a constant: the mean of its square.

References:
    Dunefsky, Chlenski, Nanda (2024), "Transcoders Find Interpretable LLM Feature Circuits".
    Lindsey et al. (2024), "Sparse Crosscoders for Cross-Layer Features and Model Diffing".
    Ameisen et al. (2025), "Circuit Tracing: Revealing Computational Graphs in Language Models".
    Jiralerspong and Bricken (2025), "Cross-Architecture Model Diffing with Crosscoders".
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from toymodels import checks
from toymodels.errors import InputError


class Wiring(NamedTuple):
    """The connections that an autoencoder has; see `wiring`."""

    reads: Bool[np.ndarray, "latents hidden"]
    writes: Bool[np.ndarray, "latents hidden"]

    def cut(self, params: PyTree) -> dict[str, Array]:
        """Return the parameters with 0 for each connection that does not exist."""
        masks = self._masks()
        return {
            name: jnp.where(masks[name], each, 0.0) if name in masks else each
            for name, each in params.items()
        }

    def check(self, params: PyTree) -> None:
        """Refuse parameters of another form."""
        masks = self._masks()
        for name in ("decoder", "encoder"):
            wanted = masks[name].shape
            found = np.shape(params[name]) if name in params else "no shape"
            if found != wanted:
                raise InputError(
                    f"{name} has shape {found} and the wiring {wanted}: give an autoencoder with "
                    f"{len(self.reads)} latents, and activations of length {self.reads.shape[1]}"
                )

    def _masks(self) -> dict[str, Bool[np.ndarray, "..."]]:
        written, read = (np.asarray(each.any(axis=0)) for each in (self.writes, self.reads))
        return {
            "decoder": self.writes.T,
            "decoder_bias": written,
            "encoder": self.reads,
            "skip": written[:, None] & (read & ~written)[None, :],
        }


def wiring(
    sizes: Sequence[int], groups: Sequence[tuple[int, Sequence[int], Sequence[int]]]
) -> Wiring:
    """Return which coordinates each latent reads and writes.

    Args:
        sizes: the lengths of the parts of an activation, in order.
        groups: for each group of latents its number of latents, the parts that they read and the
            parts that they write, by number from 0. A transcoder of 8 latents from 3 to 2
            dimensions is `wiring((3, 2), [(8, [0], [1])])`.

    Raises:
        ValueError: a part that does not exist, or a group that reads or writes nothing.
    """
    for size in sizes:
        checks.count("size", size)
    for group in groups or [()]:
        if isinstance(group, int) or [np.ndim(each) for each in group] != [0, 1, 1]:
            raise InputError(
                f"a group of the wiring is {group!r}: give its number of latents, the parts that "
                "they read and the parts that they write, such as (8, [0], [1])"
            )
    part = np.repeat(np.arange(len(sizes)), sizes)
    rows: dict[str, list[Bool[np.ndarray, "latents hidden"]]] = {"reads": [], "writes": []}
    for latents, *parts in groups:
        checks.count("latents", latents)
        for way, chosen in zip(rows, parts, strict=True):
            if not len(chosen) or not set(chosen) <= set(range(len(sizes))):
                raise InputError(
                    f"a group {way} the parts {list(chosen)}: name one or more of 0 to "
                    f"{len(sizes) - 1}"
                )
            rows[way].append(np.tile(np.isin(part, chosen), (latents, 1)))
    return Wiring(*(np.concatenate(each) for each in rows.values()))
