"""Samplers cut in two: the random words of a key, and all that is made of them.

The cells of a sweep that share a seed share their random words; only what is made of the
words differs with, say, the density. Splitting a sampler in the two lets a training loop
draw the words of a step once for all those cells.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend import core
from jaxtyping import Array, Int, Key, PyTree

from toymodels.engine import interpreter
from toymodels.engine.devices import backend

Draws: TypeAlias = list[Array]


def split(
    sample: Callable[[Key[Array, ""]], PyTree], key: Key[Array, ""]
) -> tuple[Callable[[Key[Array, ""]], Draws], Callable[[Draws], PyTree]]:
    """Return two functions `draw` and `finish` with `finish(draw(key))` equal to `sample(key)`.

    Args:
        sample: a pure function of a key; may close over traced numbers.
        key: any key of the kind that it will be called with.

    Returns:
        `draw`, every operation on what comes from the key alone, and `finish`, all others.
    """
    traced, shape = jax.make_jaxpr(lambda key: sample(key), return_shape=True)(key)
    # Traced once more, with calls to jitted functions spelled out: `jax.random.bernoulli`,
    # say, takes key and density into one call.
    closed = jax.make_jaxpr(lambda key, captured: _call(traced.jaxpr, captured, [key]))(
        key, traced.consts
    )
    jaxpr = closed.jaxpr
    key_variable, *captured_variables = jaxpr.invars
    constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    first, second, cut = _cut(jaxpr, {key_variable, *constants})

    def draw(key: Key[Array, ""]) -> Draws:
        return _evaluate(first, {**constants, key_variable: key}, cut)

    def finish(drawn: Draws) -> PyTree:
        captured = zip(captured_variables, traced.consts, strict=True)
        outputs = _evaluate(second, dict([*captured, *zip(cut, drawn, strict=True)]), jaxpr.outvars)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return draw, finish


def _cut(
    jaxpr: core.Jaxpr, known: set[core.Var]
) -> tuple[list[core.JaxprEqn], list[core.JaxprEqn], list[core.Var]]:
    """Cut a program in two: what follows from the known variables alone, and the rest.

    Returns:
        The equations of both parts, and the variables that the second takes from the first.
    """
    first: list[core.JaxprEqn] = []
    second: list[core.JaxprEqn] = []
    for equation in jaxpr.eqns:
        if {atom for atom in equation.invars if isinstance(atom, core.Var)} <= known:
            first.append(equation)
            known |= set(equation.outvars)
        else:
            second.append(equation)
    # Operations that only rearrange the words belong to the second part: a transpose in the first
    # would make the counters jump and the draw four times slower.
    while first and first[-1].primitive.name in ("broadcast_in_dim", "reshape", "transpose"):
        second.insert(0, first.pop())
        known -= set(second[0].outvars)
    used = [*(atom for equation in second for atom in equation.invars), *jaxpr.outvars]
    shared = [v for v in used if isinstance(v, core.Var) and v in known]
    return first, second, list(dict.fromkeys(shared))


class Shared(NamedTuple):
    """The random arrays of one run; under `vmap` on a CPU, runs with equal keys share one copy.

    Attributes:
        rows: the arrays drawn. Under `vmap`, row r belongs to the r-th different key; rows
            beyond the number of different keys are never filled.
        slot: the row of this run.
    """

    rows: Draws
    slot: Int[Array, ""]


def of_run(tree: PyTree, params: PyTree) -> PyTree:
    """Return the arrays or keys, with one copy for each run where `vmap` maps only the parameters.

    If all runs shared a single key, XLA would compute the draws again inside the loop over the
    examples of each run, which is 200 times slower. With a copy for each run, `fill` draws once
    for all equal keys and stores the arrays.

    What a loop carries from update to update belongs to each run after the first update. With a
    copy for each run from the start, `vmap` need not map the loop once more to find that out.
    """
    params = lax.stop_gradient(params)
    return jax.tree.map(lambda leaf: _beside(leaf, params), tree)


@custom_vmap
def _beside(leaf: Array, params: PyTree) -> Array:
    del params
    return leaf


@_beside.def_vmap  # pyright: ignore[reportArgumentType]
def _(size: int, batched: Any, leaf: Array, params: PyTree) -> Any:
    del params
    return (leaf if batched[0] else jnp.broadcast_to(leaf, (size, *leaf.shape))), True


def empty(draw: Callable[[Key[Array, ""]], Draws], key: Key[Array, ""]) -> Shared:
    """Return a `Shared` of zeros with the shapes of the arrays that `draw` returns."""
    shapes = jax.eval_shape(draw, key)
    rows = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    return Shared(of_run(rows, jax.random.key_data(key)), _slot(key))


def fill(draw: Callable[[Key[Array, ""]], Draws], key: Key[Array, ""], shared: Shared) -> Shared:
    """Draw new rows for `shared`: under `vmap`, once for all runs of one slot.

    Args:
        draw: see `split`.
        key: must be equal for runs of one slot: folded from the key that `empty` was given
            with a number that all runs share.
        shared: from `empty`, or from `fill`, whose rows are overwritten.
    """

    @custom_vmap
    def drawn(key: Key[Array, ""], rows: Draws, slot: Int[Array, ""]) -> Draws:
        del rows, slot
        return draw(key)

    @drawn.def_vmap  # pyright: ignore[reportArgumentType]
    def _(size: int, batched: Any, keys: Any, rows: Draws, slots: Any) -> Any:
        many_keys, many_rows, many_slots = batched
        if not many_keys:  # all runs share one key, and so one copy
            return draw(keys), [False for _ in rows]
        if not many_slots:  # each run has its own key and its own copy
            new = jax.vmap(draw)(keys)
        else:
            every = [
                row if many else jnp.broadcast_to(row, (size, *row.shape))
                for row, many in zip(rows, many_rows, strict=True)
            ]
            new = _once_for_each_slot(draw, keys, every, slots)
        return new, [True for _ in rows]

    return Shared(drawn(key, shared.rows, shared.slot), shared.slot)


def _once_for_each_slot(
    draw: Callable[[Key[Array, ""]], Draws],
    keys: Key[Array, " runs"],
    rows: Draws,
    slots: Int[Array, " runs"],
) -> Draws:
    """Draw row r with the key of the first run of slot r; other rows stay as they are."""
    first = jnp.searchsorted(slots, jnp.arange(len(keys)), method="compare_all")

    def overwrite(slot: Any, rows: Draws) -> Draws:
        new = draw(lax.dynamic_index_in_dim(keys, first[slot], keepdims=False))
        return [
            lax.dynamic_update_index_in_dim(row, own, slot, 0)
            for row, own in zip(rows, new, strict=True)
        ]

    return lax.fori_loop(0, slots[-1] + 1, overwrite, rows)


@custom_vmap
def pick(rows: PyTree, slot: Int[Array, ""]) -> PyTree:
    """Return the arrays of this run from the `rows` and the `slot` of a `Shared`."""
    del slot
    return rows


@pick.def_vmap  # pyright: ignore[reportArgumentType]
def _(size: int, batched: Any, rows: PyTree, slots: Any) -> Any:
    del size
    many_rows, many_slots = batched
    if not many_slots:
        return rows, many_rows
    return jax.tree.map(lambda row, many: row[slots] if many else row, rows, many_rows), many_rows


@custom_vmap
def _slot(key: Key[Array, ""]) -> Int[Array, ""]:
    """Return the slot of a run: under `vmap`, neighbours with equal keys have equal slots.

    On an accelerator every run has a row of its own. How many keys differ is known only when the
    program runs, a loop over so many waits for the host after every turn, and a loop over all rows
    draws as many words as every run on its own.
    """
    del key
    return jnp.zeros((), jnp.int32)


@_slot.def_vmap  # pyright: ignore[reportArgumentType]
def _(size: int, batched: Any, key: Key[Array, " runs"]) -> Any:
    del size, batched
    if backend() != "cpu":
        return jnp.zeros((), jnp.int32), False
    words = jax.random.key_data(key)
    changes = jnp.any(words[1:] != words[:-1], axis=-1)
    return jnp.pad(jnp.cumsum(changes.astype(jnp.int32)), (1, 0)), True


def _call(jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    values = zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True)
    return _evaluate(jaxpr.eqns, dict(values), jaxpr.outvars)


def _evaluate(
    equations: Sequence[core.JaxprEqn],
    inputs: Mapping[core.Var, Any],
    outputs: Sequence[core.Var | core.Literal],
) -> list[Any]:
    return interpreter.walk(equations, inputs, outputs, _inlined)


def _inlined(equation: core.JaxprEqn, operands: list[Any]) -> Sequence[Any]:
    """Evaluate an equation; a call of a jitted function is replaced by its equations."""
    if equation.primitive.name in ("jit", "pjit"):
        inner = equation.params["jaxpr"]
        return _call(inner.jaxpr, inner.consts, operands)
    return interpreter.bind(equation, operands)
