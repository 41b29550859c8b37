"""Sparse autoencoders: one activation vector as a sparse sum of learned directions."""

from toymodels.autoencoders.base import Decomposition, OnBatch, dictionary, with_dictionary
from toymodels.autoencoders.fitting import fit_autoencoder
from toymodels.autoencoders.penalties import (
    GatedAutoencoder,
    JumpReLUAutoencoder,
    MatryoshkaAutoencoder,
    ReLUAutoencoder,
)
from toymodels.autoencoders.sae_lens import SAELens, from_sae_lens, to_sae_lens
from toymodels.autoencoders.top_k import BatchTopKAutoencoder, TopKAutoencoder

__all__ = [
    "BatchTopKAutoencoder",
    "Decomposition",
    "GatedAutoencoder",
    "JumpReLUAutoencoder",
    "MatryoshkaAutoencoder",
    "OnBatch",
    "ReLUAutoencoder",
    "SAELens",
    "TopKAutoencoder",
    "dictionary",
    "fit_autoencoder",
    "from_sae_lens",
    "to_sae_lens",
    "with_dictionary",
]
