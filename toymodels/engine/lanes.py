"""The lanes of a block, computed a few at a time; lanes that only repeat another are copied.

On a CPU a block computes its models in *turns*. A model of the ordinary path has a turn of its own,
so that it stays in cache. A model of the fused loop shares a turn with a few others, so that the
time to start a turn does not count.

A sweep fills its last block with copies of its last cell. What a copy computes is equal to what
the cell computes, so no turn is made for copies alone, and a block of one cell takes a fraction
of the time of a full one. The bits of a lane do not change by that, because each turn runs the
same instructions on the same number of lanes, in a full block and in one that is not.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend import core
from jaxtyping import Array, Int, PyTree, UInt32

Function: TypeAlias = Callable[..., PyTree]

of_block = jax.make_user_context()
"""A context in which the program of a block of so many lanes is traced, as in `with of_block(64)`.

Only lanes of a block are copies of one another. Models that a cell maps itself are all computed,
unless they are as many as the lanes: lanes are known by their number alone.
"""


class _Models(NamedTuple):
    """All that the losses of many models are computed from.

    Attributes:
        numbers: the numbers that the loss captured.
        params: the parameters.
        rows: the random arrays, with a leading axis; see `draws.Shared`.
        slots: the row of each model, if models share rows. If not, row i belongs to model i, and
            this is a single 0.
        mapped: which leaves have a leading axis, for each of the four above.
    """

    numbers: PyTree
    params: PyTree
    rows: PyTree
    slots: Int[Array, "*models"]
    mapped: tuple[Any, Any, Any, bool]

    @property
    def axes(self) -> tuple[Any, Any, Any]:
        """The axis of models in numbers, parameters and the random arrays of each model."""
        return jax.tree.map(lambda many: 0 if many else None, self.mapped[:3])

    def all(self) -> tuple[PyTree, PyTree, PyTree]:
        """Return numbers, parameters and random arrays of all models."""
        return self.numbers, self.params, self._rows_of(self.slots)

    def one(self, place: Int[Array, ""]) -> tuple[PyTree, PyTree, PyTree]:
        """Return numbers, parameters and random arrays of one model."""
        row = _one(self.slots, place) if self.mapped[3] else place
        numbers, params = _of_mapped(_one, (self.numbers, self.params), self.mapped[:2], place)
        return numbers, params, _of_mapped(_one, self.rows, self.mapped[2], row)

    def some(self, first: Int[Array, ""], count: int) -> tuple[PyTree, PyTree, PyTree]:
        """Return numbers, parameters and random arrays of `count` models from `first` on."""
        cut = functools.partial(lax.dynamic_slice_in_dim, slice_size=count)
        numbers, params = _of_mapped(cut, (self.numbers, self.params), self.mapped[:2], first)
        if self.mapped[3]:
            return numbers, params, self._rows_of(cut(self.slots, first))
        return numbers, params, _of_mapped(cut, self.rows, self.mapped[2], first)

    def own(self) -> list[Array]:
        """Return the leaves in which models can differ, each with a leading axis of models."""
        decisive = self.numbers, self.params, self.slots if self.mapped[3] else self.rows
        mapped = *self.mapped[:2], self.mapped[3] or self.mapped[2]
        leaves = zip(*map(jax.tree.leaves, (decisive, mapped)), strict=True)
        return [leaf for leaf, many in leaves if many]

    def _rows_of(self, slots: Int[Array, "*models"]) -> PyTree:
        if not self.mapped[3]:
            return self.rows
        return _of_mapped(_picked, self.rows, self.mapped[2], slots)


class _Traced(NamedTuple):
    """The function of one model, traced.

    Attributes:
        program: takes the leaves of numbers, parameters and the random arrays of ONE model.
        outputs: the shapes of its outputs.
    """

    program: core.ClosedJaxpr
    outputs: PyTree

    def evaluate(self, *arguments: PyTree) -> PyTree:
        """Return the outputs for the numbers, parameters and random arrays of ONE model."""
        outputs = core.jaxpr_as_fun(self.program)(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(self.outputs), outputs)


# Takes the traced function of one model, a function that `vmap` maps by this rule, the number of
# models, and the models. It returns the outputs of all models.
Rule: TypeAlias = Callable[[_Traced, Function, int, _Models], PyTree]


def one_by_one(function: Function) -> Function:
    """Return a function that `vmap` computes for one model after another.

    Args:
        function: takes the numbers that a loss captured, the parameters and the random arrays
            of ONE model.

    Returns:
        A function of the numbers, the parameters, and the rows and the slot of the model; see
        `draws.Shared`. If each model has random arrays of its own, its slot is 0.
    """

    def rule(traced: _Traced, one: Function, size: int, models: _Models) -> PyTree:
        def turn(place: Int[Array, ""]) -> PyTree:
            outputs = one(*models.one(place), jnp.zeros((), jnp.int32))
            return jax.tree.map(lambda output: output[None], outputs)

        return _in_turns(turn, traced.outputs, 1, size, models)

    return functools.partial(_evaluate, function, rule)


def side_by_side(function: Function, together: int | None) -> Function:
    """Return a function that `vmap` computes for all models at once, but for a block in turns.

    Args:
        function: see `one_by_one`.
        together: the number of lanes of a turn; None if all lanes share one turn.

    Returns:
        See `one_by_one`.
    """

    def rule(traced: _Traced, _: Function, size: int, models: _Models) -> PyTree:
        count = together if together and of_block.value == size else size
        every = jax.vmap(traced.evaluate, in_axes=models.axes, axis_size=min(count, size))
        if count >= size:
            return every(*models.all())
        return _in_turns(
            lambda first: every(*models.some(first, count)), traced.outputs, count, size, models
        )

    return functools.partial(_evaluate, function, rule)


def _evaluate(
    function: Function,
    rule: Rule,
    numbers: PyTree,
    params: PyTree,
    rows: PyTree,
    slot: Int[Array, ""],
) -> PyTree:
    """Evaluate a function, which is traced once. `vmap` maps it by the rule."""
    traced = _Traced(*jax.make_jaxpr(function, return_shape=True)(numbers, params, rows))

    @custom_vmap
    def one(numbers: PyTree, params: PyTree, rows: PyTree, slot: Int[Array, ""]) -> PyTree:
        del slot
        return traced.evaluate(numbers, params, rows)

    @one.def_vmap  # pyright: ignore[reportArgumentType]
    def _(size: int, mapped: Any, numbers: Any, params: Any, rows: Any, slots: Any) -> Any:
        outputs = rule(traced, one, size, _Models(numbers, params, rows, slots, tuple(mapped)))
        return outputs, jax.tree.map(lambda _: True, outputs)

    return one(numbers, params, rows, slot)


def _in_turns(
    turn: Callable[[Int[Array, ""]], PyTree],
    shapes: PyTree,
    together: int,
    size: int,
    models: _Models,
) -> PyTree:
    """Return the outputs of all models; those of a block that repeat a lane are copied.

    Args:
        turn: takes the place of its first model, and returns the outputs of `together` models.
        shapes: the shapes of the outputs of one model.
        together: the number of models of a turn.
        size: the number of models.
        models: what the outputs are computed from.
    """
    outputs = jax.tree.map(lambda one: jnp.zeros((size, *one.shape), one.dtype), shapes)

    def after_turn(index: Int[Array, ""], outputs: PyTree) -> PyTree:
        first = jnp.minimum(index * together, size - together)
        return jax.tree.map(
            lambda old, new: lax.dynamic_update_slice_in_dim(old, new, first, 0),
            outputs,
            turn(first),
        )

    if of_block.value != size:
        return lax.fori_loop(0, -(-size // together), after_turn, outputs)
    number = number_of_different(models.own())
    outputs = lax.fori_loop(0, -(-number // together), after_turn, outputs)
    place = jnp.minimum(lax.iota(jnp.int32, size), number - 1)
    # Without this barrier XLA rounds what follows in another way than where nothing is copied.
    return lax.optimization_barrier(jax.tree.map(lambda output: _picked(output, place), outputs))


def number_of_different(lanes: Sequence[Array]) -> Int[Array, ""]:
    """Return the number of lanes without those at the end that all repeat the lane before them.

    Args:
        lanes: arrays with a leading axis of lanes. They are compared bit by bit: a NaN equals
            itself, and 0 differs from -0.
    """
    words = jnp.concatenate([_words(leaf) for leaf in lanes], axis=1)
    before, after = lax.slice_in_dim(words, 0, -1), lax.slice_in_dim(words, 1, None)
    changed = jnp.any(lax.ne(before, after), axis=1)
    place = lax.broadcasted_iota(jnp.int32, changed.shape, 0)
    return jnp.max(lax.select(changed, place, lax.full_like(place, -1))) + 2


def _words(leaf: Array) -> UInt32[Array, "lanes words"]:
    """Return the bits of the numbers of each lane."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.iscomplexobj(leaf):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize > 4:
        leaf = lax.bitcast_convert_type(leaf, f"uint{min(8 * leaf.dtype.itemsize, 32)}")
    return leaf.astype(jnp.uint32).reshape(len(leaf), -1)


def _one(leaf: Array, place: Int[Array, ""]) -> Array:
    return lax.dynamic_index_in_dim(leaf, place, keepdims=False)


def _picked(leaf: Array, places: Int[Array, " some"]) -> Array:
    return jax.vmap(_one, in_axes=(None, 0))(leaf, places)


def _of_mapped(
    pick: Callable[[Array, Any], Array], tree: PyTree, mapped: PyTree, place: Any
) -> PyTree:
    """Apply `pick` to each mapped leaf; the others are shared by all models."""
    return jax.tree.map(lambda leaf, many: pick(leaf, place) if many else leaf, tree, mapped)
