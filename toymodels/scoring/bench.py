"""Models that are trained on several distributions of features, for scores of dictionaries."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Key

from toymodels import checks
from toymodels.analysis import geometry
from toymodels.errors import InputError
from toymodels.features import (
    Features,
    GaussianCopula,
    Hierarchy,
    SparseUniform,
    balanced_tree,
    zipf_density,
)
from toymodels.models import ReLUOutput
from toymodels.scoring.ladder import TRAINING
from toymodels.sweeps.sweep import sweep
from toymodels.tasks import Task
from toymodels.training.recipe import Recipe

_FEATURES: Final = 20
"""The number of features of the default distributions."""
_CAUSES: Final = 4
"""The number of common causes, and of trees, of the default distributions."""


def _common_causes(count: int, causes: int) -> Any:
    """Return a mixing matrix in which feature i shares half of its variance with a cause."""
    loadings = np.eye(causes)[np.arange(count) % causes]
    return np.hstack([loadings, np.eye(count)]) / 2**0.5


def _trees(causes: int) -> Hierarchy:
    """Return trees with rarer and rarer roots; a root has one of four children, or none."""
    parents = balanced_tree(causes, branching=4, depth=1)
    roots = np.asarray(zipf_density(causes, largest=0.4, exponent=0.5))
    density = np.where(np.asarray(parents) < 0, np.resize(roots, len(parents)), 0.2)
    return Hierarchy(parents, density, exclusive=True)


def _default() -> dict[str, Features]:
    return {
        "sparse": SparseUniform(_FEATURES, 0.1),
        "dense": SparseUniform(_FEATURES, 0.5),
        "Zipf": SparseUniform(_FEATURES, zipf_density(_FEATURES, largest=0.4, exponent=0.5)),
        "correlated": GaussianCopula(0.1, _common_causes(_FEATURES, _CAUSES)),
        "trees": _trees(_CAUSES),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    r"""Models of one size, trained on each of several distributions of features.

    The activations are $h = W x$, and every model chooses its own directions $W$. The default
    distributions are what synthetic benchmarks of dictionaries have in common: independent sparse
    and dense features, frequencies of a power law, common causes, and trees of exclusive children,
    whose roots have frequencies of a power law.

    Attributes:
        distributions: the distributions by name, all of equally many features.
        hidden: the number of hidden dimensions.
        num_seeds: the number of models of each distribution.
        examples: the number of examples that a method may see, and the number that it codes.
        training: how each `ReLUOutput` is trained.

    References:
        Chanin and Garriga-Alonso (2026), "SynthSAEBench", whose directions are random and given.
    """

    distributions: Mapping[str, Features] = dataclasses.field(default_factory=_default)
    hidden: int = 8
    num_seeds: int = 3
    examples: int = 8192
    training: Recipe = TRAINING

    def train(self) -> xr.Dataset:
        """Return the trained models and the examples on which a method is scored.

        Returns:
            A Dataset over `distribution` and `seed`. `weights` and `bias` are the parameters;
            `seen_features` and `seen_hidden` are examples and activations for the method;
            `fresh_hidden` is what it has to code, and `fresh_features` is the answer.

        Raises:
            ValueError: distributions of different numbers of features, or none.
        """
        if not isinstance(self.distributions, Mapping):  # pyright: ignore
            raise InputError(
                f"distributions is of type {type(self.distributions).__name__}: give a dictionary "
                "from any names to distributions"
            )
        counts = {name: each.num_features for name, each in self.distributions.items()}
        if len(set(counts.values())) != 1:
            raise InputError(
                f"distributions have these numbers of features: {counts}; give one or more "
                "distributions of equally many features"
            )
        checks.count("examples", self.examples)
        activations = ("example", "dimension")
        return sweep(
            partial(_trained, self),
            static={"distribution": dict(self.distributions)},
            num_seeds=self.num_seeds,
            dims={
                "weights": ("dimension", "feature"),
                "bias": ("feature",),
                **dict.fromkeys(("seen_features", "fresh_features"), ("example", "feature")),
                **dict.fromkeys(("seen_hidden", "fresh_hidden"), activations),
            },
        )


def _trained(bench: Bench, key: Key[Array, ""], *, distribution: Any) -> dict[str, Any]:
    """Train one model, and draw the examples that a method sees and codes."""
    key_train, *keys = jax.random.split(key, 3)
    params = bench.training.train(
        key_train, ReLUOutput(bench.hidden), Task(distribution), evaluation=0
    ).params
    drawn: dict[str, Any] = {}
    for name, key_features in zip(("seen", "fresh"), keys, strict=True):
        examples = distribution.sample(key_features, bench.examples)
        drawn |= {f"{name}_features": examples, f"{name}_hidden": examples @ params["weights"].T}
    return {
        **drawn,
        "weights": params["weights"],
        "bias": params["bias"],
        "features_per_dimension": 1 / geometry.dimensions_per_feature(params["weights"]),
    }
