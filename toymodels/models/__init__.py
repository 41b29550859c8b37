"""The toy models: Linen modules that take ONE example.

Each model passes its intermediate values through a named `Site`, where `activations` reads them
and `intervene` replaces them.

    vectors     models of one vector of features
    attention   a small transformer, of one sequence
    base        how a model starts
"""

from toymodels.models.attention import AttentionOnly
from toymodels.models.base import Activation, Initializer, notebook_initializer, start, xavier
from toymodels.models.vectors import LinearOutput, ReLUHidden, ReLUOutput, Tied, TwoLayer

__all__ = [
    "Activation",
    "AttentionOnly",
    "Initializer",
    "LinearOutput",
    "ReLUHidden",
    "ReLUOutput",
    "Tied",
    "TwoLayer",
    "notebook_initializer",
    "start",
    "xavier",
]
