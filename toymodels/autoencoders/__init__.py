"""Sparse autoencoders: one activation vector as a sparse sum of learned directions.

base        the form that all autoencoders share
penalties   autoencoders that a penalty makes sparse: ReLU, JumpReLU, gated and Matryoshka
top_k       autoencoders that keep the largest latents: TopK and BatchTopK
several     autoencoders of several activations: crosscoders and skip transcoders
wiring      which latents read and write what, which makes transcoders of autoencoders
fitting     training on any distribution of activations
revival     a new start for latents that never fire
sae_lens    exchange with SAELens
"""

from toymodels.autoencoders.base import Decomposition, OnBatch, dictionary, with_dictionary
from toymodels.autoencoders.fitting import fit_autoencoder
from toymodels.autoencoders.penalties import (
    GatedAutoencoder,
    JumpReLUAutoencoder,
    MatryoshkaAutoencoder,
    ReLUAutoencoder,
)
from toymodels.autoencoders.sae_lens import SAELens, from_sae_lens, to_sae_lens
from toymodels.autoencoders.several import Crosscoder, SkipTranscoder, part_lengths
from toymodels.autoencoders.top_k import BatchTopKAutoencoder, TopKAutoencoder
from toymodels.autoencoders.wiring import Wiring, wiring

__all__ = [
    "BatchTopKAutoencoder",
    "Crosscoder",
    "Decomposition",
    "GatedAutoencoder",
    "JumpReLUAutoencoder",
    "MatryoshkaAutoencoder",
    "OnBatch",
    "ReLUAutoencoder",
    "SAELens",
    "SkipTranscoder",
    "TopKAutoencoder",
    "Wiring",
    "dictionary",
    "fit_autoencoder",
    "from_sae_lens",
    "part_lengths",
    "to_sae_lens",
    "wiring",
    "with_dictionary",
]
