r"""The scores of dictionaries on trained models whose features are known.

A *dictionary* writes an activation as $h \approx D z + b$ with sparse latents $z$. It is scored by
its decoder $D$ and by the latents of fresh activations alone, so that any encoder will do.

A feature is *represented* if its weights are longer than 1/2. All scores are means over the
represented features, or sums over them; features that the model ignores cannot be found. Features
and latents are matched one to one, as `analysis.dictionaries` says.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Key

from toymodels import checks
from toymodels.analysis import activity, dictionaries, inputs, reconstruction
from toymodels.errors import InputError
from toymodels.models import ReLUOutput
from toymodels.scoring.method import Seen, check_models, is_finite, seen_of

CHANCES: Final = 16
"""The number of draws of random directions whose mean MCC is that of chance."""


class Dictionary(NamedTuple):
    r"""A dictionary, and the latents that its encoder gives.

    Attributes:
        decoder: $D$, whose columns are the directions of the latents.
        latents: the latents $z$ of each fresh activation, 0 where a latent is silent.
        bias: the bias $b$ of the reconstruction, 0 if there is none.
    """

    decoder: Float[Array | np.ndarray, "hidden latents"]
    latents: Float[Array | np.ndarray, "examples latents"]
    bias: Float[Array | np.ndarray, " hidden"] | float = 0.0


class DictionaryScores(NamedTuple):
    r"""The scores of ONE dictionary on one model.

    Means over features are NaN if no represented feature is present in any example.

    Attributes:
        mcc: the mean $|\cos|$ of a feature and its matched latent, where a feature without a latent
            counts 0; in $[0, 1]$.
        mcc_by_chance: the mean `mcc` of as many random directions.
        f1: how well the firing of a matched latent tells whether its feature is present; the mean
            of the harmonic means of precision and recall.
        uniqueness: the number of features that are nearest to some latent over that of latents.
        l0: the mean number of latents that fire in an example.
        true_l0: the mean number of represented features that are present in an example.
        dead: the share of latents that fire in no example.
        explained: the explained variance, centred.
        absorption: the share of the examples with a feature in which its latent is silent and other
            latents supply at least half of it.
        hedging: how much of other features is in the latent of a feature; in $[0, 1]$.
        true_hedging: the hedging of the true directions: above 0 in superposition, because
            directions that are not independent contain one another.
    """

    mcc: Float[Array, ""]
    mcc_by_chance: Float[Array, ""]
    f1: Float[Array, ""]
    uniqueness: Float[Array, ""]
    l0: Float[Array, ""]
    true_l0: Float[Array, ""]
    dead: Float[Array, ""]
    explained: Float[Array, ""]
    absorption: Float[Array, ""]
    hedging: Float[Array, ""]
    true_hedging: Float[Array, ""]


DictionaryMethod: TypeAlias = Callable[[Key[Array, ""], Seen], Dictionary]
"""A function of a key and of what is seen of a model that returns a dictionary."""


def score_dictionary(method: DictionaryMethod, models: xr.Dataset) -> xr.Dataset:
    """Score a dictionary on trained models whose features are known, as one table.

    The method is called once for each model, with arrays that have values. So it may use any
    library; `jax.jit(method)` compiles one that is written in JAX.

    Args:
        method: a function of a key and a `Seen` that finds a dictionary in the activations
            `seen.hidden`, and returns it as a `Dictionary` with the latents of `seen.fresh`.
        models: the trained models, from `Bench.train` or `Ladder.train`.

    Returns:
        A Dataset over the axes of the models, such as `distribution` and `seed`, with the scores of
        `DictionaryScores` and `features_per_dimension` of the models.
        `results.mean("seed").to_dataframe()` is the table. The scores of a model whose training
        diverged are NaN.

    Raises:
        ValueError: the method returns other shapes, or numbers that are not finite.
    """
    check_models(models, source="tm.Bench().train()")
    axes = [axis for axis in models["weights"].dims if axis not in ("dimension", "feature")]
    model = ReLUOutput(models.sizes["dimension"])
    shape = tuple(models.sizes[axis] for axis in axes)
    found = {name: np.full(shape, np.nan) for name in DictionaryScores._fields}
    for place in np.ndindex(*shape):
        cell = models.isel(dict(zip(axes, place, strict=True)))
        if not is_finite(cell):
            continue
        key_method, key_chance = jax.random.split(jax.random.key(int(cell["seed"])))
        seen = seen_of(model, cell)
        coded = _checked(method(key_method, seen), seen.fresh)
        features = jnp.asarray(cell["fresh_features"].transpose("example", "feature").values)
        scores = dictionary_scores(key_chance, coded, features, seen.params["weights"])
        for name, score in scores._asdict().items():
            found[name][place] = score
    scored = models[["features_per_dimension"]]
    return scored.assign({name: (axes, values) for name, values in found.items()})


@jax.jit
def dictionary_scores(
    key: Key[Array, ""],
    dictionary: Dictionary,
    features: Float[Array, "examples features"],
    weights: Float[Array, "hidden features"],
) -> DictionaryScores:
    """Return the scores of one dictionary on activations without noise.

    Args:
        key: decides the random directions of `mcc_by_chance`.
        dictionary: the decoder, and the latents of each example.
        features: the features of each example, at least 0; 0 where a feature is not present.
        weights: the directions of the features, of which activations are the sums.
    """
    decoder = inputs.floats("decoder", dictionary.decoder, rank=2)
    latents = inputs.floats("latents", dictionary.latents, rank=2)
    checks.same_size("examples", latents=latents.shape[0], features=features.shape[0])
    represented = jnp.linalg.norm(weights, axis=0) > 0.5
    own = weights * represented[None, :]
    present = (features != 0) & represented[None, :]
    mean = partial(jnp.mean, where=represented & present.any(axis=0))

    def cosine(decoder: Any) -> Any:
        matching = dictionaries.match(decoder, own)
        return mean(dictionaries.matched_cosines(decoder, own, matching))

    matching = dictionaries.match(decoder, own)
    absorbed = dictionaries.absorption_rate(
        latents, decoder, features * present, own, matching, min_share=0.5
    )
    itself = jnp.arange(own.shape[1])
    hidden = features @ weights.T
    bias = jnp.broadcast_to(jnp.asarray(dictionary.bias), len(weights))
    rebuilt = latents @ decoder.T + bias[None, :]
    return DictionaryScores(
        mcc=cosine(decoder),
        mcc_by_chance=jnp.mean(jax.vmap(cosine)(jax.random.normal(key, (CHANCES, *decoder.shape)))),
        f1=mean(activity.firing(latents, present, matching).f1),
        uniqueness=dictionaries.uniqueness(decoder, own),
        l0=activity.l0(latents),
        true_l0=jnp.mean(jnp.sum(present, axis=1)),
        dead=activity.dead_fraction(latents),
        explained=reconstruction.explained_variance(hidden, rebuilt, centred=True),
        absorption=mean(absorbed),
        hedging=mean(dictionaries.hedging_degree(decoder, own, matching)),
        true_hedging=mean(dictionaries.hedging_degree(own, own, itself)),
    )


def _checked(found: Any, fresh: Any) -> Dictionary:
    """Return the dictionary of a method, after checks of its shapes and numbers."""
    if not isinstance(found, Dictionary):
        raise InputError(f"the method returned {type(found).__name__}: return a tm.Dictionary")
    examples, hidden = fresh.shape
    decoder, latents = np.shape(found.decoder), np.shape(found.latents)
    fits = len(decoder) == 2 and decoder[0] == hidden and latents == (examples, decoder[1])
    if not fits or not decoder[1]:
        raise InputError(
            f"the decoder has shape {decoder} and the latents {latents}: give {hidden} x latents "
            f"and {examples} x latents, one row for each activation in seen.fresh"
        )
    if np.shape(found.bias) not in ((), (hidden,)):
        raise InputError(f"the bias has shape {np.shape(found.bias)}: give {hidden} numbers, or 0")
    arrays = [np.asarray(each, np.float32) for each in found]
    if not all(np.isfinite(each).all() for each in arrays):
        raise InputError("the dictionary has numbers that are not finite: give finite ones")
    return Dictionary(arrays[0], arrays[1], np.broadcast_to(arrays[2], (hidden,)))
