from . import capacity, loss, minima, persian_rug, phases
from .loss import (
    expected_loss,
    expected_loss_linear,
    expected_loss_one_active,
    expected_loss_signed,
)
from .minima import free_optimum, optimum, optimum_one_active

__all__ = [
    "capacity",
    "expected_loss",
    "expected_loss_linear",
    "expected_loss_one_active",
    "expected_loss_signed",
    "free_optimum",
    "loss",
    "minima",
    "optimum",
    "optimum_one_active",
    "persian_rug",
    "phases",
]
