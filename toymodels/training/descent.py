"""The loop of all training: draw a batch, take a step, keep what was asked for."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from toymodels import checks
from toymodels.engine import draws, fuse, keys, marks
from toymodels.errors import InputError

Sample: TypeAlias = Callable[[Key[Array, ""], int], Any]


class History(NamedTuple):
    """The minibatch loss along a run, before the step named.

    Attributes:
        step: which steps, from 0.
        loss: of the minibatch of that step; summed over outputs, mean over examples.
    """

    step: Int[Array, " points"]
    loss: Float[Array, " points"]


class Fitted(NamedTuple):
    """What a run of `fit` leaves.

    Attributes:
        params: after the last step.
        history: the loss curve, thinned.
        snapshots: parameters after the steps asked for, on a leading axis; None if none.
    """

    params: PyTree
    history: History
    snapshots: PyTree


class Change(NamedTuple):
    """What is done to parameters and optimizer between steps.

    Attributes:
        after: increasing numbers of updates after which to do it.
        apply: of the number of updates before, parameters and the optimizer's state, to new ones.
    """

    after: Sequence[int]
    apply: Callable[[Int[Array, ""], PyTree, PyTree], tuple[PyTree, PyTree]]


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
    """Minimise the mean of a loss that may change from step to step; see `toymodels.fit`.

    Args:
        key: decides the data.
        params: where to start.
        loss_at: of the number of updates before, to the loss of parameters and ONE example.
        sample: of a key and a batch size.
        optimizer: see `toymodels.fit`.
        steps: number of updates.
        batch: examples per update.
        points: most points that the loss curve keeps.
        snapshots: increasing numbers of updates after which to keep the parameters.
        change: what else is done to the parameters.
    """
    checks.count("steps", steps)
    checks.count("batch", batch)
    checks.count("points", points)
    check_optimizer(optimizer)
    snapshots = increasing_steps("snapshots", snapshots, steps)
    points = min(points, steps)
    params = jax.tree.map(jnp.asarray, params)
    key = draws.of_run(checked_key(key), params)
    draw, finish = draws.split(keys.fusing(lambda key: sample(key, batch)), key)

    def step(carry: Any, place: Any) -> tuple[Any, None]:
        params, state, shared, curve, kept = carry
        index, last, point, slot, changes = place
        shared = draws.fill(draw, jax.random.fold_in(key, index), shared)
        loss = loss_at(index)
        gradient, mean = fuse.grad(loss, finish), fuse.value(loss, finish)
        # The loss only where the curve has a point: the gradient does not need its value.
        curve = lax.cond(
            last,
            lambda: lax.dynamic_update_index_in_dim(curve, mean(params, shared), point, 0),
            lambda: curve,
        )
        grads = gradient(params, shared)
        # Only for those who may ask for it; XLA drops a value that is not used.
        extra = (
            {
                "value": mean(params, shared),
                "grad": grads,
                "value_fn": lambda params: mean(params, shared),
            }
            if isinstance(optimizer, optax.GradientTransformationExtraArgs)
            else {}
        )
        updates, new = optimizer.update(grads, state, params, **extra)
        # A traced number of 32 bits would widen the state of half-precision parameters.
        state = jax.tree.map(_of_type, new, state)
        params = optax.apply_updates(params, updates)
        if change is not None:
            params, state = lax.cond(changes, change.apply, _unchanged, index, params, state)
        # Later writes to a slot win: a snapshot holds the last step up to the one asked for.
        if snapshots:
            kept = jax.tree.map(
                lambda old, new: lax.dynamic_update_index_in_dim(old, new, slot, 0), kept, params
            )
        return (params, state, shared, curve, kept), None

    shared = draws.empty(draw, key)
    curve = jnp.zeros(points, _dtype(loss_at, finish, params, shared))
    # One slot more, for what comes after the last snapshot.
    kept = (
        jax.tree.map(lambda leaf: jnp.stack([leaf] * (len(snapshots) + 1)), params)
        if snapshots
        else None
    )
    carry = (params, optimizer.init(params), shared, curve, kept)
    stretches = range(1, points + 1)
    last_of_stretch = jnp.asarray([-(-stretch * steps // points) - 1 for stretch in stretches])
    indices = jnp.arange(steps)
    places = (
        indices,
        jnp.zeros(steps, bool).at[last_of_stretch].set(True),
        jnp.searchsorted(last_of_stretch, indices),
        jnp.searchsorted(jnp.asarray(snapshots, jnp.int32), indices + 1),
        None if change is None else jnp.isin(indices + 1, jnp.asarray(change.after, jnp.int32)),
    )
    (params, _, _, curve, kept), _ = lax.scan(step, carry, places)
    return Fitted(
        params=marks.trained(params),
        history=History(step=last_of_stretch, loss=curve),
        snapshots=jax.tree.map(lambda leaf: leaf[:-1], kept),
    )


def checked_key(key: Any) -> Key[Array, ""]:
    """One key, whose draws XLA can fuse; of the old raw form, too."""
    if not isinstance(key, jax.Array):
        seed = key if isinstance(key, int) else 0
        raise InputError(f"key is {key!r}: give a key, such as jax.random.key({seed!r})")
    if key.dtype == jnp.uint32:  # of jax.random.PRNGKey
        key = jax.random.wrap_key_data(key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape:
        raise InputError(
            f"key has shape {key.shape} and type {key.dtype}: give ONE key, such as "
            "jax.random.key(0), and use jax.vmap or a sweep for several"
        )
    return keys.fusable(key)


def check_optimizer(optimizer: Any) -> None:
    """Raise `InputError` for what has no `init` and `update`, as a factory not yet called."""
    if not isinstance(optimizer, _Optimizer):
        name = getattr(optimizer, "__name__", None)
        remedy = f"call it, as in optax.{name}(1e-3)" if name else "give one, as optax.adam(1e-3)"
        raise InputError(f"optimizer is {name or repr(optimizer)}, not an optimizer: {remedy}")


def _unchanged(index: Array, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
    del index
    return params, state


def _dtype(loss_at: Any, finish: fuse.Finish, params: PyTree, shared: draws.Shared) -> Any:
    """The number type of the mean loss."""

    def first(params: PyTree, shared: draws.Shared) -> Float[Array, ""]:
        return fuse.value(loss_at(jnp.zeros((), jnp.int32)), finish)(params, shared)

    return jax.eval_shape(first, params, shared).dtype


@runtime_checkable
class _Optimizer(Protocol):
    init: Any
    update: Any


def _of_type(new: Any, old: Array) -> Array:
    new = jnp.asarray(new)
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def increasing_steps(name: str, given: Sequence[int], steps: int) -> tuple[int, ...]:
    """`given` as a tuple, after a check that they are increasing numbers of updates."""
    if not jnp.iterable(given):
        raise InputError(f"{name} is {given!r}: give a list of whole numbers of updates")
    kept = [int(step) for step in given]
    whole = kept == list(given)
    if not whole or kept != sorted(set(kept)) or any(not 0 <= step <= steps for step in kept):
        raise InputError(
            f"{name} is {list(given)}: give increasing whole numbers of updates from 0 to {steps}"
        )
    return tuple(kept)
