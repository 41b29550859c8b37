"""What training should find, in closed form: pure functions of numbers, no model, no samples.

A quantity has the name of its measurement in `toymodels.analysis`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["capacity", "loss", "minima", "persian_rug", "phases"],
    submod_attrs={
        "loss": [
            "expected_loss",
            "expected_loss_linear",
            "expected_loss_one_active",
            "expected_loss_signed",
        ],
        "minima": ["free_optimum", "optimum", "optimum_one_active"],
    },
)
