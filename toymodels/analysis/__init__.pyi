from . import (
    concepts,
    erasure,
    geometry,
    irreducibility,
    learning_coefficient,
    linearity,
    neurons,
    phases,
    polytopes,
    superposition,
)

__all__ = [
    "concepts",
    "erasure",
    "geometry",
    "irreducibility",
    "learning_coefficient",
    "linearity",
    "neurons",
    "phases",
    "polytopes",
    "superposition",
]
