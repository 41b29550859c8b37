"""Distributions over feature vectors."""

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
