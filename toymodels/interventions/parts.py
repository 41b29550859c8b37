r"""Parts of a site: the whole value, a unit, a direction, a subspace, a position, a head.

A part is read as coordinates and written as coordinates. With an orthonormal basis $B$ (dimensions
x size) the coordinates of a value $h$ are $c = B^\top h$, and writing $c'$ gives

$$h' = h + B (c' - c),$$

which changes nothing orthogonal to $B$ and nothing at all if $c' = c$.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from toymodels import checks
from toymodels.errors import InputError

_TOLERANCE = 1e-4
"""The largest deviation of $B^\top B$ from the identity: rounding of 32-bit numbers."""


@struct.dataclass
class Part:
    """A part of the value at one site of a model.

    Attributes:
        site: the name of the site.
        index: the index of the part along the first axes of the value, such as a position of a
            sequence; empty for all of it.
        basis: an orthonormal basis along the last axis (dimensions x size), or None for all of
            it. A column of zeros adds no dimension.

    Index and basis may be traced, so that `jax.vmap` goes over many places or directions.
    """

    site: str = struct.field(pytree_node=False)
    index: tuple[Any, ...] = ()
    basis: Float[Array | np.ndarray, "*cells dimensions size"] | None = None

    def read(self, value: Array) -> Array:
        """Return the coordinates of the part in a value of the site."""
        piece = self._piece(value)
        return piece if self.basis is None else piece @ self._checked_basis(piece)

    def write(self, value: Array, coordinates: Array) -> Array:
        """Return the value of the site with other coordinates in the part."""
        piece = self._piece(value)
        coordinates = jnp.asarray(coordinates, value.dtype)
        if self.basis is None:
            new = coordinates
        else:
            basis = self._checked_basis(piece)
            new = piece + (coordinates - piece @ basis) @ basis.T
        if new.shape != piece.shape:
            raise InputError(
                f"the new value of site {self.site!r} has shape {new.shape}: it must keep "
                f"{piece.shape}"
            )
        return value.at[self.index].set(new) if self.index else new

    def _piece(self, value: Array) -> Array:
        if len(self.index) > value.ndim:
            raise InputError(
                f"site {self.site!r} has shape {value.shape}, but the index of the part has "
                f"{len(self.index)} numbers: give at most {value.ndim}"
            )

        def check(*index: Any) -> None:
            whole_numbers = tuple(map(int, index))
            sizes = value.shape[: len(index)]
            if any(not -n <= i < n for i, n in zip(whole_numbers, sizes, strict=True)):
                raise InputError(
                    f"site {self.site!r} has shape {value.shape}, which has no part "
                    f"{whole_numbers}: give an index inside it"
                )

        checks.when_known(check, *self.index)
        return value[self.index] if self.index else value

    def _checked_basis(self, piece: Array) -> Array:
        basis = jnp.asarray(self.basis, piece.dtype)
        if basis.ndim != 2 or not piece.ndim or basis.shape[0] != piece.shape[-1]:
            raise InputError(
                f"the basis of site {self.site!r} has shape {basis.shape}, but the site has "
                f"{piece.shape[-1] if piece.ndim else 'no'} dimensions: give dimensions x size"
            )
        return basis


def check_part(name: str, value: Any) -> None:
    """Raise `InputError` unless `value` is a part; `name` is what the user calls it."""
    if not isinstance(value, Part):
        raise InputError(
            f"the {name} is of type {type(value).__name__}: give a part, such as "
            "interventions.whole(site)"
        )


def check_parts(name: str, value: Any) -> None:
    """Raise `InputError` unless `value` is a batch of parts along a leading axis."""
    is_part = isinstance(value, Part)
    if not is_part or not all(np.ndim(leaf) for leaf in jax.tree.leaves(value) or [0]):
        found = "ONE part" if is_part else f"of type {type(value).__name__}"
        raise InputError(
            f"{name} is {found}: give a batch of parts, such as "
            "interventions.directions(site, weights)"
        )


def whole(site: str) -> Part:
    """Return the whole value of a site."""
    return Part(site)


def unit(site: str, index: int) -> Part:
    """Return one number of a site that holds a vector: one hidden dimension, or one neuron."""
    return Part(site, (_whole_number("unit", index),))


def position(site: str, index: int) -> Part:
    """Return one position of a site that holds a sequence (positions x dimensions)."""
    return Part(site, (_whole_number("position", index),))


def head(site: str, index: int) -> Part:
    """Return one head of a site that holds heads along its first axis."""
    return Part(site, (_whole_number("head", index),))


def direction(site: str, vector: Any, *, position: int | None = None) -> Part:
    r"""Return one direction of a site, the coordinate $\hat v \cdot h$ along a vector $v$.

    Args:
        site: the name of the site.
        vector: the vector $v$, of any length but 0, such as a column $W_i$ of the weights. A
            traced vector of length 0 gives a part that reads 0 and writes nothing.
        position: the position of a sequence; by default all positions.
    """
    if isinstance(vector, str):
        raise InputError(f"the direction is {vector!r}: give the name of the site, then a vector")
    vector = jnp.asarray(vector, jnp.result_type(float))
    if vector.ndim != 1:
        raise InputError(f"the direction has shape {vector.shape}: give one vector")
    length = jnp.linalg.norm(vector)
    checks.interval(
        "the length of the direction", length, low=0, open_low=True, remedy="give another vector"
    )
    index = () if position is None else (_whole_number("position", position),)
    return Part(site, index, (vector / jnp.where(length > 0, length, 1.0))[:, None])


def subspace(site: str, basis: Any, *, position: int | None = None) -> Part:
    r"""Return a subspace of a site, with the coordinates $B^\top h$.

    Args:
        site: the name of the site.
        basis: an orthonormal basis $B$, dimensions x size. `jnp.linalg.qr(vectors)[0]` makes one
            of the columns of `vectors`.
        position: the position of a sequence; by default all positions.

    Raises:
        ValueError: the basis is not orthonormal.
    """
    basis = jnp.asarray(basis, jnp.result_type(float))
    if basis.ndim != 2 or basis.shape[1] > basis.shape[0]:
        raise InputError(
            f"the basis has shape {basis.shape}: give dimensions x size, with as many dimensions "
            "as vectors or more"
        )
    checks.when_known(_check_orthonormal, basis)
    index = () if position is None else (_whole_number("position", position),)
    return Part(site, index, basis)


def directions(site: str, vectors: Float[Any, "dimensions number"]) -> Part:
    """Return the directions of the columns of a matrix as one batch of parts.

    `jax.vmap(lambda part: ...)(directions("hidden", weights))` goes over the features of a model.
    The part of a column of zeros, a feature that is not represented, reads 0 and writes nothing.
    """
    vectors = jnp.asarray(vectors)
    if vectors.ndim != 2:
        raise InputError(
            f"the directions have shape {vectors.shape}: give a matrix with one in each column"
        )
    return jax.vmap(lambda vector: direction(site, vector), in_axes=1)(vectors)


def _check_orthonormal(basis: Any) -> None:
    gram = np.asarray(basis, np.float64).T @ np.asarray(basis, np.float64)
    error = np.abs(gram - np.eye(len(gram))).max(initial=0.0)
    if not error <= _TOLERANCE:
        raise InputError(
            f"the basis is not orthonormal: B.T @ B differs from the identity by {error:.2g}; give "
            "jnp.linalg.qr(basis)[0]"
        )


def _whole_number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} is {value!r}: give a whole number")
    return int(value)
