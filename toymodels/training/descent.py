"""The loop of all training: draw a batch, make an update, keep what was asked for."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from toymodels import checks
from toymodels.engine import draws, fuse, keys, marks
from toymodels.engine.devices import UPDATES_A_TURN, backend
from toymodels.errors import InputError

Sample: TypeAlias = Callable[[Key[Array, ""], int], Any]


class History(NamedTuple):
    """The loss curve of a run: the loss of the minibatch before some of its updates.

    Attributes:
        step: the number of updates before each point, from 0.
        loss: the loss of the next minibatch, summed over outputs and averaged over examples.
    """

    step: Int[Array, " points"]
    loss: Float[Array, " points"]


class Fitted(NamedTuple):
    """The result of a run of `fit`.

    Attributes:
        params: the parameters after the last update.
        history: the loss curve.
        snapshots: the parameters after the updates that were asked for, along a leading axis;
            None if none were asked for.
    """

    params: PyTree
    history: History
    snapshots: PyTree


class Change(NamedTuple):
    """A change of the parameters and of the state of the optimizer between two updates.

    Attributes:
        after: increasing numbers of updates after which the change is made.
        apply: a function of the number of updates before, the parameters and the state of the
            optimizer; it returns new parameters and a new state.
    """

    after: Sequence[int]
    apply: Callable[[Int[Array, ""], PyTree, PyTree], tuple[PyTree, PyTree]]


class _Place(NamedTuple):
    """The place of one update in the run; arrays hold one entry for each update.

    Attributes:
        step: the number of updates before this one.
        has_point: whether the loss before this update is a point of the curve.
        point: the index of that point.
        snapshot: the index of the snapshot that is due next. Every update writes the parameters
            there, so that the last write before the index moves on is the one that stays.
        has_change: whether the `Change` is made after this update; None if there is none.
    """

    step: Int[Array, "*steps"]
    has_point: Bool[Array, "*steps"]
    point: Int[Array, "*steps"]
    snapshot: Int[Array, "*steps"]
    has_change: Bool[Array, "*steps"] | None


def descend(
    key: Key[Array, ""],
    params: PyTree,
    loss_at: Callable[[Int[Array, ""]], fuse.Loss],
    sample: Sample,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    batch: int,
    points: int,
    snapshots: Sequence[int],
    change: Change | None = None,
) -> Fitted:
    """Minimise the mean of a loss that may change from update to update; see `toymodels.fit`.

    Args:
        key: decides the data.
        params: the parameters at the start.
        loss_at: a function from the number of updates before to the loss, which is a function of
            the parameters and ONE example.
        sample: a function of a key and a batch size that returns a batch of examples.
        optimizer: see `toymodels.fit`.
        steps: the number of updates.
        batch: the number of examples of each update.
        points: the number of points of the loss curve that are kept at most.
        snapshots: increasing numbers of updates after which the parameters are kept.
        change: a further change of the parameters between updates.
    """
    checks.count("steps", steps)
    checks.count("batch", batch)
    checks.count("points", points)
    check_optimizer(optimizer)
    snapshots = increasing_steps("snapshots", snapshots, steps)
    params = jax.tree.map(jnp.asarray, params)
    key = draws.of_run(checked_key(key), params)
    draw, finish = draws.split(keys.fusing(lambda key: sample(key, batch)), key)
    curve_steps = _curve_steps(steps, min(points, steps))

    def update(carry: Any, place: _Place) -> tuple[Any, None]:
        params, state, shared, curve, kept = carry
        shared = draws.fill(draw, jax.random.fold_in(key, place.step), shared)
        loss = loss_at(place.step)
        mean = fuse.traced(loss, params, shared, finish)
        value = jax.jit(mean.value, inline=True)  # so that it is evaluated only once
        if backend() == "cpu":
            # The gradient does not need the loss, so the loss is computed only for the curve.
            curve = lax.cond(
                place.has_point,
                lambda: _write(curve, value(params, shared), place.point),
                lambda: curve,
            )
            grads = mean.grad(params, shared)
        else:
            # A branch waits for the host. The last loss that is written for a point stays.
            loss_now, grads = mean.value_and_grad(params, shared)
            curve = _write(curve, loss_now, place.point)
        params, state = _updated(optimizer, grads, value, params, state, shared)
        if backend() != "cpu":
            state = _counted_together(state, place.step)
        if change is not None:
            params, state = lax.cond(
                place.has_change, change.apply, _unchanged, place.step, params, state
            )
        if snapshots:
            kept = jax.tree.map(lambda old, new: _write(old, new, place.snapshot), kept, params)
        return (params, state, shared, curve, kept), None

    shared = draws.empty(draw, key)
    curve = jnp.zeros(len(curve_steps), _dtype(loss_at, finish, params, shared))
    kept = _room_for_snapshots(params, len(snapshots)) if snapshots else None
    state = jax.tree.map(
        lambda leaf: draws.of_run(leaf, params) if jnp.ndim(leaf) else leaf,  # not the counters
        optimizer.init(params),
    )
    params, curve, kept = draws.of_run((params, curve, kept), params)
    places = _places(steps, curve_steps, snapshots, change)
    unroll = 1 if backend() == "cpu" else UPDATES_A_TURN
    carry, _ = lax.scan(update, (params, state, shared, curve, kept), places, unroll=unroll)
    params, _, _, curve, kept = carry
    return Fitted(
        params=marks.trained(params),
        history=History(step=curve_steps, loss=curve),
        snapshots=jax.tree.map(lambda leaf: leaf[:-1], kept),
    )


def _curve_steps(steps: int, points: int) -> Int[Array, " points"]:
    """Return the updates whose loss is kept, the last of each of `points` equal parts of a run."""
    return jnp.asarray([-(-part * steps // points) - 1 for part in range(1, points + 1)])


def _places(
    steps: int, curve_steps: Int[Array, " points"], snapshots: Sequence[int], change: Change | None
) -> _Place:
    """Return the places of all updates, along the leading axis of each array."""
    step = jnp.arange(steps)
    has_change = None
    if change is not None:
        has_change = jnp.isin(step + 1, jnp.asarray(change.after, jnp.int32))
    return _Place(
        step=step,
        has_point=jnp.zeros(steps, bool).at[curve_steps].set(True),
        point=jnp.searchsorted(curve_steps, step),
        snapshot=jnp.searchsorted(jnp.asarray(snapshots, jnp.int32), step + 1),
        has_change=has_change,
    )


def _room_for_snapshots(params: PyTree, number: int) -> PyTree:
    """Return arrays for `number` snapshots, and one more for updates after the last of them."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * (number + 1)), params)


def _write(array: Array, value: Array, index: Int[Array, ""]) -> Array:
    return lax.dynamic_update_index_in_dim(array, value, index, 0)


def _updated(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    mean: Callable[[PyTree, draws.Shared], Array],
    params: PyTree,
    state: PyTree,
    shared: draws.Shared,
) -> tuple[PyTree, PyTree]:
    """Make one update of the parameters and of the state of the optimizer."""
    extra: dict[str, Any] = {}
    if isinstance(optimizer, optax.GradientTransformationExtraArgs):
        # An optimizer that ignores the loss costs nothing: XLA drops a value that is not used.
        extra = {
            "value": mean(params, shared),
            "grad": grads,
            "value_fn": lambda params: mean(params, shared),
        }
    updates, new = optimizer.update(grads, state, params, **extra)
    # A traced number of 32 bits would widen the state of half-precision parameters.
    state = jax.tree.map(_of_type, new, state)
    return optax.apply_updates(params, updates), state


def _counted_together(state: PyTree, step: Int[Array, ""]) -> PyTree:
    """Return the same state, whose counters an accelerator changes in one kernel.

    XLA makes one kernel of the changes of several numbers if they read a number in common. Here
    that is a zero, and XLA does not know that it is one.
    """
    zero = jnp.minimum(step, 0)
    return jax.tree.map(
        lambda leaf: leaf + zero if (leaf.shape, leaf.dtype) == ((), jnp.int32) else leaf, state
    )


def checked_key(key: Any) -> Key[Array, ""]:
    """Return the key in the form whose draws XLA can fuse, after a check that it is ONE key."""
    if not isinstance(key, jax.Array):
        seed = key if isinstance(key, int) else 0
        raise InputError(f"key is {key!r}: give a key, such as jax.random.key({seed!r})")
    if key.dtype == jnp.uint32:  # the old form, which jax.random.PRNGKey returns
        key = jax.random.wrap_key_data(key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape:
        raise InputError(
            f"key has shape {key.shape} and type {key.dtype}: give ONE key, such as "
            "jax.random.key(0), and use jax.vmap or a sweep for several"
        )
    return keys.fusable(key)


def check_optimizer(optimizer: Any) -> None:
    """Raise `InputError` unless `optimizer` has `init` and `update`; a factory has neither."""
    if not isinstance(optimizer, _Optimizer):
        name = getattr(optimizer, "__name__", None)
        remedy = f"call it, as in optax.{name}(1e-3)" if name else "give one, as optax.adam(1e-3)"
        raise InputError(f"optimizer is {name or repr(optimizer)}, not an optimizer: {remedy}")


def _unchanged(index: Array, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    del index
    return params, state


def _dtype(loss_at: Any, finish: fuse.Finish, params: PyTree, shared: draws.Shared) -> Any:
    """Return the number type of the mean loss."""

    def zero() -> Float[Array, ""]:  # the operations of `loss_at` become no part of the program
        mean = fuse.traced(loss_at(jnp.zeros((), jnp.int32)), params, shared, finish)
        return jnp.zeros((), mean.dtype)

    return jax.eval_shape(zero).dtype


@runtime_checkable
class _Optimizer(Protocol):
    init: Any
    update: Any


def _of_type(new: Any, old: Array) -> Array:
    """Return a new number in the number type of the old one."""
    new = jnp.asarray(new)
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def increasing_steps(name: str, given: Sequence[int], steps: int) -> tuple[int, ...]:
    """Return `given` as a tuple, after a check that it holds increasing numbers of updates."""
    if not jnp.iterable(given):
        raise InputError(f"{name} is {given!r}: give a list of whole numbers of updates")
    kept = [int(step) for step in given]
    whole = kept == list(given)
    if not whole or kept != sorted(set(kept)) or any(not 0 <= step <= steps for step in kept):
        raise InputError(
            f"{name} is {list(given)}: give increasing whole numbers of updates from 0 to {steps}"
        )
    return tuple(kept)
