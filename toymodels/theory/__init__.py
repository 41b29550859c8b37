"""Theory of toy models: closed forms, exact expected losses, and optima found by descent.

The functions take arrays and numbers, and no model. Most are exact; `expected_loss_sampled` and
`expected_loss_gaussian` estimate, and `optimum` searches from many starts. A quantity has the name
of its measurement in `toymodels.analysis`. The table of contents is `__init__.pyi`.
"""

import lazy_loader

from toymodels.engine.garbage import no_garbage_collection

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = no_garbage_collection()(__getattr__)
