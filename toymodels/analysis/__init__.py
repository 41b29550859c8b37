"""Measurements of ONE model, one subject a file; `vmap` or `toymodels.apply` maps them over many.

Most are pure JAX functions of weights or activations. `baselines` (but for principal components)
and `polytopes` compute on the host, with NumPy, SciPy and scikit-learn. `learning_coefficient`
samples parameters around a minimum of any loss.

The table of contents is `__init__.pyi`.
"""

import lazy_loader

from toymodels.engine.garbage import no_garbage_collection

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = no_garbage_collection()(__getattr__)
