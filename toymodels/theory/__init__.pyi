from . import (
    bounds,
    boxes,
    capacity,
    estimates,
    frames,
    k_gons,
    loss,
    minima,
    persian_rug,
    phases,
    polytopes,
)
from .estimates import expected_loss_gaussian, expected_loss_sampled
from .loss import (
    expected_loss,
    expected_loss_linear,
    expected_loss_one_active,
    expected_loss_signed,
)
from .minima import free_optimum, optimum, optimum_one_active

__all__ = [
    "bounds",
    "boxes",
    "capacity",
    "estimates",
    "expected_loss",
    "expected_loss_gaussian",
    "expected_loss_linear",
    "expected_loss_one_active",
    "expected_loss_sampled",
    "expected_loss_signed",
    "frames",
    "free_optimum",
    "k_gons",
    "loss",
    "minima",
    "optimum",
    "optimum_one_active",
    "persian_rug",
    "phases",
    "polytopes",
]
