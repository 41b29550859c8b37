r"""The score of a method that reads features from activations.

A method is a function of a key and of what it may see of ONE trained model. It returns estimates:
a row for each fresh activation, and a column for each thing that it has found. What a column means
is left to the method, for example the score of a probe, a latent of a dictionary, or the effect of
an intervention.

**The axis.** The separation of a column and a feature is $2 A - 1$, where $A$ is the AUROC of the
column for the presence of the feature. On one half of the fresh activations, columns and features
are matched one to one with the largest sum of $|2 A - 1|$, and each pair gets a sign. On the other
half the value $v$ is the mean of the separation over all features, where a feature without a column
counts 0. The chance $c$ is the value of as many random directions $d \cdot h$, and the ceiling $b$
that of the exact posterior, which no function of $h$ exceeds in expectation (Neyman and Pearson).
The score is $(v - c) / (b - c)$. It does not depend on units, signs, the order of columns, or any
increasing map of a column.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import numpy as np
import xarray as xr
from flax import struct
from jaxtyping import Array, Bool, Float, Key, PyTree
from scipy import optimize, stats

from toymodels.errors import InputError
from toymodels.models import ReLUOutput

CHANCES = 16
"""The number of draws of random directions whose mean value is the chance."""


@struct.dataclass
class Seen:
    """The things that a method may see of one trained model, and what it has to read.

    Attributes:
        model: the model, a Linen module of ONE example with the sites `hidden` and `output`.
        params: its parameters.
        features: examples, which only a supervised method looks at.
        hidden: the activations of these examples, with noise if the models of a `Ladder` are read.
        fresh: the activations of other examples, which are to be read.
    """

    model: nn.Module = struct.field(pytree_node=False)
    params: PyTree
    features: Float[Array | np.ndarray, "*cells examples features"]
    hidden: Float[Array | np.ndarray, "*cells examples hidden"]
    fresh: Float[Array | np.ndarray, "*cells examples hidden"]


Method: TypeAlias = Callable[[Key[Array, ""], Seen], Any]
"""A function of a key and of what is seen that returns estimates, one row for each of `fresh`."""


def score_method(method: Method, models: xr.Dataset) -> xr.Dataset:
    """Score a method on the models of a ladder, from chance (0) to the best possible (1).

    The method is called once for each model, with arrays that have values. So it may use any
    library; `jax.jit(method)` compiles one that is written in JAX.

    Args:
        method: a function of a key and a `Seen` that returns estimates (examples x columns) for
            the activations `seen.fresh`, with any number of columns.
        models: the trained models, from `Ladder.train`.

    Returns:
        A Dataset over the axes of the models, `density` and `seed`, with `score`, the `value`,
        `chance` and `ceiling` from which it follows, and `features_per_dimension` of the model. A
        score below 0 is worse than random directions. A score may exceed 1 by the error of
        sampling. It is NaN for a model whose training diverged.

    Raises:
        ValueError: the method returns another shape, or numbers that are not finite.
    """
    check_models(models, "ceiling", source="tm.Ladder().train()")
    model = ReLUOutput(models.sizes["dimension"])
    scored = models[["features_per_dimension"]].copy()
    ceiling = models["ceiling"].mean("feature", skipna=False)
    found = np.full((2, *ceiling.shape), np.nan)
    for place in np.ndindex(*ceiling.shape):
        cell = models.isel(dict(zip(ceiling.dims, place, strict=True)))
        if is_finite(cell):
            key = jax.random.key(int(cell["seed"]))
            found[:, *place] = _value_and_chance(method, key, model, cell)
    value, chance = (ceiling.copy(data=each) for each in found)
    score = (value - chance) / (ceiling - chance)
    return scored.assign(score=score, value=value, chance=chance, ceiling=ceiling)


def check_models(models: Any, *needed: str, source: str) -> None:
    """Raise `InputError` unless `models` has what is scored, and the variables in `needed`."""
    if not isinstance(models, xr.Dataset):
        raise InputError(f"models is of type {type(models).__name__}: give the result of {source}")
    drawn = ("seen_features", "seen_hidden", "fresh_features", "fresh_hidden")
    for name in ("weights", "bias", "features_per_dimension", "seed", *drawn, *needed):
        if name not in models.variables:
            raise InputError(f"models has no {name!r}: give the result of {source}")


def is_finite(cell: xr.Dataset) -> bool:
    """Return whether one model has finite weights; the training of any other has diverged."""
    return bool(np.isfinite(cell["weights"]).all())


def _value_and_chance(
    method: Method, key: Key[Array, ""], model: nn.Module, cell: xr.Dataset
) -> tuple[float, float]:
    """Return the value of a method on one model, and that of as many random directions."""
    seen = seen_of(model, cell)
    labels = cell["fresh_features"].transpose("example", "feature").values > 0
    estimates = _checked(method(key, seen), len(labels))
    rng = np.random.default_rng(int(cell["seed"]))
    hidden = np.asarray(seen.fresh)
    shape = (CHANCES, hidden.shape[1], estimates.shape[1])
    chances = [_value(hidden @ directions, labels) for directions in rng.normal(size=shape)]
    return _value(estimates, labels), float(np.mean(chances))


def seen_of(model: nn.Module, cell: xr.Dataset) -> Seen:
    """Return what a method may see of one model."""
    names = {"features": "seen_features", "hidden": "seen_hidden", "fresh": "fresh_hidden"}
    params = {
        "weights": jax.numpy.asarray(cell["weights"].transpose("dimension", "feature").values),
        "bias": jax.numpy.asarray(cell["bias"].values),
    }
    arrays = {
        name: jax.numpy.asarray(cell[variable].transpose("example", ...).values)
        for name, variable in names.items()
    }
    return Seen(model=model, params=params, **arrays)


def _checked(estimates: Any, examples: int) -> Float[np.ndarray, "examples columns"]:
    """Return what a method returned as an array, after a check of its shape and its numbers."""
    array = np.asarray(estimates, np.float64)
    if array.ndim != 2 or len(array) != examples or not array.shape[1]:
        raise InputError(
            f"the method returned shape {array.shape}: give one row for each of the {examples} "
            "activations in seen.fresh, and one column or more"
        )
    if not np.isfinite(array).all():
        raise InputError("the method returned numbers that are not finite: give 0 for no estimate")
    return array


def separation(
    estimates: Float[np.ndarray, "examples columns"], labels: Bool[np.ndarray, "examples features"]
) -> Float[np.ndarray, "features columns"]:
    r"""Return $2 A - 1$ of each feature and each column, with the AUROC $A$; ties count half."""
    ranks = stats.rankdata(estimates, axis=0)
    positives = labels.sum(axis=0)[:, None]
    negatives = len(labels) - positives
    above = labels.T.astype(np.float64) @ ranks - positives * (positives + 1) / 2
    return 2 * above / (positives * negatives) - 1


def _value(
    estimates: Float[np.ndarray, "examples columns"], labels: Bool[np.ndarray, "examples features"]
) -> float:
    """Return the mean separation on the second half, with partners and signs of the first."""
    half = len(labels) // 2
    first, second = (
        separation(estimates[part], labels[part]) for part in (slice(half), slice(half, None))
    )
    rows, columns = optimize.linear_sum_assignment(np.abs(first), maximize=True)
    signs = np.sign(first[rows, columns])
    return float(signs @ second[rows, columns] / len(first))
