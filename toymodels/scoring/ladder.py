"""A ladder of trained models, from no superposition to much, with the best possible readout."""

import dataclasses
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from toymodels import checks
from toymodels.analysis import classification, geometry, readouts
from toymodels.errors import InputError
from toymodels.features import Binary
from toymodels.models import ReLUOutput
from toymodels.sweeps.sweep import sweep
from toymodels.tasks import Task, geometric_importance
from toymodels.training.recipe import Recipe

CHUNK: Final = 128
"""The number of examples whose posterior is computed at once."""


TRAINING: Final = Recipe(steps=3000, batch=256, learning_rate=1e-2)
"""The training of a model of a ladder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ladder:
    r"""Models that are trained on binary features of falling density, so that superposition grows.

    Dense features do not fit, and a model keeps one for each dimension. The sparser the features,
    the more of them share a dimension. What is read is $h = W x + \varepsilon$ with Gaussian noise
    $\varepsilon$, so that the posterior of each feature is a finite sum over the $2^n$ states.

    Attributes:
        num_features: the number $n$ of features, at most 16.
        hidden: the number $m$ of hidden dimensions.
        densities: the density $p$ of each rung, in $(0, 1)$.
        num_seeds: the number of models of each rung.
        importance_ratio: the importance of each feature over that of the one before, in $(0, 1]$;
            below 1 it decides which features a dense model keeps.
        noise: the standard deviation of each coordinate of $\varepsilon$, above 0.
        examples: the number of examples that a method may see, and the number that it reads; at
            most a few thousand.
        training: how each `ReLUOutput` is trained.
    """

    num_features: int = 12
    hidden: int = 5
    densities: tuple[float, ...] = (0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
    num_seeds: int = 3
    importance_ratio: float = 0.8
    noise: float = 0.2
    examples: int = 2048
    training: Recipe = TRAINING

    def train(self) -> xr.Dataset:
        r"""Return the trained models, what a method may see of them, and the best readout.

        Returns:
            A Dataset over `density` and `seed`. `weights` and `bias` are the parameters;
            `seen_features` and `seen_hidden` are examples and noisy activations for the method;
            `fresh_hidden` is what it has to read, and `fresh_features` is the answer. `ceiling`
            is the separation $2 A - 1$ of the exact posterior for each feature, where $A$ is its
            AUROC on the second half of the fresh examples. `features_per_dimension` is
            $\lVert W \rVert_F^2 / m$: 1 without superposition.

        Raises:
            ValueError: more than 16 features, a density outside (0, 1), no noise, or so few
                examples that a feature is present in none or in all of them.
        """
        if self.num_features > 16:
            raise InputError(
                f"num_features is {self.num_features}: the exact posterior takes 16 or fewer"
            )
        if not np.ndim(self.densities) or not all(0 < density < 1 for density in self.densities):
            raise InputError(
                f"densities are {self.densities}: give a list of numbers between 0 and 1"
            )
        checks.interval("noise", self.noise, low=0, open_low=True, remedy="the ceiling needs some")
        checks.count("examples", self.examples, minimum=CHUNK)
        if self.examples % CHUNK:
            raise InputError(f"examples is {self.examples}: give a multiple of {CHUNK}")
        activations = ("example", "dimension")
        dims = {
            "weights": ("dimension", "feature"),
            "bias": ("feature",),
            "ceiling": ("feature",),
            **dict.fromkeys(("seen_features", "fresh_features"), ("example", "feature")),
            **dict.fromkeys(("seen_hidden", "fresh_hidden"), activations),
        }
        axes = {"density": self.densities}
        models = sweep(partial(_rung, self), axes=axes, num_seeds=self.num_seeds, dims=dims)
        half = self.examples // 2
        for part in (slice(half), slice(half, None)):
            present = models["fresh_features"].isel(example=part).mean("example")
            if bool(((present == 0) | (present == 1)).any()):
                raise InputError(
                    f"a feature is present in none or in all of {half} examples: give more "
                    "examples, or densities farther from 0 and 1"
                )
        return models


def _rung(ladder: Ladder, key: Key[Array, ""], *, density: Any) -> dict[str, Any]:
    """Train one model, draw what a method sees and reads of it, and find the best readout."""
    key_train, key_seen, key_fresh, *keys_noise = jax.random.split(key, 5)
    features = Binary(ladder.num_features, density)
    importance = geometric_importance(ladder.num_features, ladder.importance_ratio)
    task = Task(features, importance=importance)
    trained = ladder.training.train(key_train, ReLUOutput(ladder.hidden), task)
    weights = trained.params["weights"]
    drawn: dict[str, Any] = {}
    names = zip(("seen", "fresh"), (key_seen, key_fresh), keys_noise, strict=True)
    for name, key_features, key_noise in names:
        examples = features.sample(key_features, ladder.examples)
        noise = ladder.noise * jax.random.normal(key_noise, (ladder.examples, ladder.hidden))
        drawn[f"{name}_features"] = examples
        drawn[f"{name}_hidden"] = examples @ weights.T + noise
    states, log_weights = readouts.binary_states(
        jnp.broadcast_to(jnp.asarray(density, weights.dtype), ladder.num_features)
    )
    odds = partial(_log_odds, weights, states, log_weights, ladder.noise)
    chunks = drawn["fresh_hidden"].reshape(-1, CHUNK, ladder.hidden)
    best = lax.map(odds, chunks).reshape(ladder.examples, ladder.num_features)
    half = slice(ladder.examples // 2, None)  # methods are scored on these examples
    areas = jax.vmap(classification.auroc, 1)(best[half], drawn["fresh_features"][half] > 0)
    return {
        **drawn,
        "weights": weights,
        "bias": trained.params["bias"],
        "loss": trained.loss,
        "ceiling": 2 * areas - 1,
        "features_per_dimension": 1 / geometry.dimensions_per_feature(weights),
    }


def _log_odds(
    weights: Float[Array, "hidden features"],
    states: Bool[Array, "states features"],
    log_weights: Float[Array, " states"],
    noise: float,
    hidden: Float[Array, "examples hidden"],
) -> Float[Array, "examples features"]:
    """Return the posterior log odds of every feature for a chunk of activations."""
    odds = partial(readouts.posterior_log_odds, hidden, states @ weights.T, log_weights)
    return jax.vmap(lambda labels: odds(labels, noise=noise), 1, 1)(states)
