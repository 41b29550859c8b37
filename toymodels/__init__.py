"""Toy models of superposition in JAX. The table of contents is `__init__.pyi`.

Names load on first use, so that `toymodels --help` does not wait for JAX.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
