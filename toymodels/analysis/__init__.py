"""Measurements: pure functions of weights or activations of ONE model, one subject a file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["geometry", "phases"])
