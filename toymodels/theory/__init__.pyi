from . import (
    bent,
    bounds,
    capacity,
    compression,
    dictionaries,
    failures,
    frames,
    k_gons,
    memorisation,
    no_bias,
    pairs,
    penalties,
    persian_rug,
    phases,
    polyhedra,
    polytopes,
    posterior,
    sequences,
    spheres,
    universal_and,
)
from .certificates import certify
from .correlated import expected_loss_anticorrelated, expected_loss_correlated
from .descent import minimise
from .estimates import expected_loss_gaussian, expected_loss_sampled
from .features import feature_variance
from .loss import (
    expected_loss,
    expected_loss_linear,
    expected_loss_one_active,
    expected_loss_signed,
)
from .minima import free_optimum, optimum, optimum_one_active
from .quadrature import expected_value
from .scrubbing import scrubbing_distance, scrubbing_distance_linear

__all__ = [
    "bent",
    "bounds",
    "capacity",
    "certify",
    "compression",
    "dictionaries",
    "expected_loss",
    "expected_loss_anticorrelated",
    "expected_loss_correlated",
    "expected_loss_gaussian",
    "expected_loss_linear",
    "expected_loss_one_active",
    "expected_loss_sampled",
    "expected_loss_signed",
    "expected_value",
    "failures",
    "feature_variance",
    "frames",
    "free_optimum",
    "k_gons",
    "memorisation",
    "minimise",
    "no_bias",
    "optimum",
    "optimum_one_active",
    "pairs",
    "penalties",
    "persian_rug",
    "phases",
    "polyhedra",
    "polytopes",
    "posterior",
    "scrubbing_distance",
    "scrubbing_distance_linear",
    "sequences",
    "spheres",
    "universal_and",
]
