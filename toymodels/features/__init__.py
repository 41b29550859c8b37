"""Distributions of features, each a dataclass with `num_features` and `sample`.

base          the interface of all distributions
independent   features that are independent of each other
active        exactly one active feature, or at least one
sets          features in sets, which are present together or one at a time
copula        features with a chosen correlation between any two of them
hierarchy     features in trees, in which a child is present only if its parent is
circles       features that need two dimensions, such as angles
words         features that come from a place on a manifold
sequences     sequences of tokens
finite        a data set
activations   the activations inside a model
"""

from toymodels.features.activations import Activations, SideBySide
from toymodels.features.active import OneActive, SomeActive
from toymodels.features.base import Features
from toymodels.features.circles import Circles
from toymodels.features.copula import GaussianCopula
from toymodels.features.finite import FiniteData
from toymodels.features.hierarchy import Hierarchy, balanced_tree
from toymodels.features.independent import (
    Binary,
    SignedSparseUniform,
    SparseUniform,
    StandardisedSparse,
    zipf_density,
)
from toymodels.features.sequences import MarkovChains, RepeatedTokens, SkipTrigrams
from toymodels.features.sets import AnticorrelatedSets, Concepts, CorrelatedSets
from toymodels.features.words import BagsOfWords, ConvexMixtures

__all__ = [
    "Activations",
    "AnticorrelatedSets",
    "BagsOfWords",
    "Binary",
    "Circles",
    "Concepts",
    "ConvexMixtures",
    "CorrelatedSets",
    "Features",
    "FiniteData",
    "GaussianCopula",
    "Hierarchy",
    "MarkovChains",
    "OneActive",
    "RepeatedTokens",
    "SideBySide",
    "SignedSparseUniform",
    "SkipTrigrams",
    "SomeActive",
    "SparseUniform",
    "StandardisedSparse",
    "balanced_tree",
    "zipf_density",
]
