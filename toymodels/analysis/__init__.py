"""Measurements: pure functions of weights or activations of ONE model, one subject a file.

The table of contents is `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
