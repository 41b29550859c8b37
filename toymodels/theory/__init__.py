"""What training should find, in closed form: pure functions of numbers, no model, no samples.

A quantity has the name of its measurement in `toymodels.analysis`. The table of contents is
`__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
