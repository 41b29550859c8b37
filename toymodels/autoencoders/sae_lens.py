r"""Exchange autoencoders with SAELens: its names, its layout, and the settings it keeps in a file.

SAELens keeps an autoencoder in a folder: settings in `cfg.json`, weights in
`sae_weights.safetensors`. Examples are its rows, so its matrices are the transposes of ours.

| SAELens | here | shape there |
|---|---|---|
| `W_enc` | `encoder`, transposed | hidden x latents |
| `W_dec` | `dictionary(params)`, transposed | latents x hidden |
| `b_enc`, `b_dec` | `encoder_bias`, `decoder_bias` | latents, hidden |
| `threshold` | `exp(log_threshold)`, or `threshold` for each latent | latents |
| `b_gate`, `r_mag`, `b_mag` | `encoder_bias`, `log_magnitude`, `magnitude_bias` | latents |

The functions take and return plain arrays, which any library of safetensors reads and writes.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from toymodels.autoencoders.base import NAMES, Parameters, dictionary
from toymodels.autoencoders.penalties import (
    GatedAutoencoder,
    JumpReLUAutoencoder,
    MatryoshkaAutoencoder,
    ReLUAutoencoder,
)
from toymodels.autoencoders.top_k import BatchTopKAutoencoder, TopKAutoencoder
from toymodels.errors import InputError

VERSION: Final = "6.54.12"
"""The version of SAELens whose files are written, and were compared with its source."""

_TRAINING: Final = 0.05
"""The bandwidth and the start of a JumpReLU that is read from a file, which keeps neither."""


class SAELens(NamedTuple):
    """The parts of an autoencoder that SAELens keeps.

    Attributes:
        settings: the contents of `cfg.json`.
        weights: the arrays of `sae_weights.safetensors` by name.
    """

    settings: dict[str, Any]
    weights: dict[str, np.ndarray]


def to_sae_lens(model: nn.Module, params: Parameters) -> SAELens:
    """Return an autoencoder in the form of SAELens, with the same latents and outputs.

    Args:
        model: an autoencoder of this package. A `MatryoshkaAutoencoder` becomes a standard one, and
            a `BatchTopKAutoencoder` a JumpReLU with one threshold, as SAELens itself writes them.
        params: the parameters of ONE model.

    Raises:
        InputError: the model is of another type, or the parameters are those of many models.
    """
    if missing := [name for name in NAMES if name not in params]:
        raise InputError(f"params has no {missing[0]!r}: give a model, and then its parameters")
    if np.ndim(params["decoder"]) != 2:
        raise InputError(
            f"decoder has the shape {np.shape(params['decoder'])}: give the parameters of ONE model"
        )
    own = {name: np.asarray(value, np.float32) for name, value in params.items()}
    directions = np.asarray(dictionary({"decoder": jnp.asarray(own["decoder"])}))
    hidden, latents = directions.shape
    weights = {"W_enc": own["encoder"].T, "W_dec": directions.T, "b_dec": own["decoder_bias"]}
    more: dict[str, Any] = {}
    match model:
        case ReLUAutoencoder() | MatryoshkaAutoencoder():
            architecture = "standard"
        case TopKAutoencoder():
            architecture = "topk"
            more = {"k": int(model.k), "rescale_acts_by_decoder_norm": False}
        case JumpReLUAutoencoder():
            architecture = "jumprelu"
            weights["threshold"] = np.exp(own["log_threshold"])
        case BatchTopKAutoencoder():
            architecture = "jumprelu"
            weights["threshold"] = np.full(latents, own["threshold"])
        case GatedAutoencoder():
            architecture = "gated"
            weights |= {"r_mag": own["log_magnitude"], "b_mag": own["magnitude_bias"]}
        case _:
            raise InputError(
                f"{type(model).__name__} has no form in SAELens: give an autoencoder of toymodels"
            )
    weights["b_gate" if architecture == "gated" else "b_enc"] = own["encoder_bias"]
    settings = {
        "architecture": architecture,
        **{"d_in": hidden, "d_sae": latents, "dtype": "float32", "device": "cpu"},
        **{"apply_b_dec_to_input": True, "normalize_activations": "none"},
        **{"reshape_activations": "none", "metadata": {"sae_lens_version": VERSION}},
        **more,
    }
    return SAELens(settings, {name: np.ascontiguousarray(w) for name, w in weights.items()})


def from_sae_lens(
    settings: Mapping[str, Any], weights: Mapping[str, np.ndarray]
) -> tuple[nn.Module, Parameters]:
    r"""Return an autoencoder of SAELens as a model and its parameters.

    Directions here have length 1. With the length $\ell_i$ of row $i$ of `W_dec`, the latents
    become $\ell_i z_i$, so $\ell_i$ multiplies the encoder, its bias and the thresholds. The
    outputs are the same.

    Args:
        settings: the contents of `cfg.json`.
        weights: the arrays of `sae_weights.safetensors` by name.

    Returns:
        The model and its parameters. What only training needs, such as the bandwidth of a JumpReLU,
        is not in the file: make your own model before you train on.

    Raises:
        InputError: the architecture or a setting has no counterpart here.
    """
    _check(settings, weights)
    arrays = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    lengths = np.linalg.norm(arrays["W_dec"], axis=1)
    encoder = arrays["W_enc"].T * lengths[:, None]
    gated = settings["architecture"] == "gated"
    bias = arrays["b_gate" if gated else "b_enc"] * lengths
    shift = np.zeros_like(bias)
    if not settings.get("apply_b_dec_to_input", True):
        shift = encoder @ arrays["b_dec"]  # an activation is not centred there
    params = {
        "decoder": arrays["W_dec"].T,
        "decoder_bias": arrays["b_dec"],
        "encoder": encoder,
        "encoder_bias": bias + shift,
    }
    latents = len(bias)
    match settings["architecture"]:
        case "standard":
            model = ReLUAutoencoder(latents)
        case "topk":
            if not settings.get("rescale_acts_by_decoder_norm") and np.ptp(lengths) > 1e-5:
                raise InputError(
                    "the rows of W_dec have different lengths, which changes the k largest latents "
                    "here: call fold_W_dec_norm() in SAELens, or give rows of length 1"
                )
            model = TopKAutoencoder(latents, int(settings["k"]))
        case "jumprelu":
            model = JumpReLUAutoencoder(latents, bandwidth=_TRAINING, start=_TRAINING)
            params["log_threshold"] = np.log(np.maximum(arrays["threshold"] * lengths, 1e-30))
        case _:
            model = GatedAutoencoder(latents)
            params["log_magnitude"] = arrays["r_mag"]
            magnitude = arrays["b_mag"] * lengths
            params["magnitude_bias"] = magnitude + np.exp(arrays["r_mag"]) * shift
    return model, jax.tree.map(jnp.asarray, params)


_WEIGHTS: Final = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "r_mag", "b_mag"),
}
"""The weights of each architecture beside `W_enc`, `W_dec` and `b_dec`."""


def _check(settings: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Refuse what this package has no counterpart for."""
    architecture = settings.get("architecture")
    if architecture not in _WEIGHTS:
        raise InputError(
            f"architecture is {architecture!r}: it must be one of {', '.join(_WEIGHTS)}"
        )
    # Before version 6 the activation and a factor of the output were settings of their own.
    activation = settings.get("activation_fn", settings.get("activation_fn_str", "relu"))
    scaled = np.any(np.asarray(weights.get("scaling_factor", 1.0)) != 1)
    if scaled or (activation != "relu" and architecture != "topk"):
        found = "a scaling_factor" if scaled else f"activation_fn {activation!r}"
        raise InputError(f"the file has {found}: load it with SAELens 6, and save it again")
    needed = ("W_enc", "W_dec", "b_dec", *_WEIGHTS[architecture])
    if missing := [name for name in needed if name not in weights]:
        raise InputError(
            f"the weights have no {missing[0]!r}: give all arrays of sae_weights.safetensors"
        )
    if architecture == "topk" and "k" not in settings:
        raise InputError("the settings have no 'k': give the contents of cfg.json of SAELens 6")
    shapes = np.shape(weights["W_enc"]), np.shape(weights["W_dec"])
    if shapes[0] != shapes[1][::-1] or shapes[1][1:] != np.shape(weights["b_dec"]):
        raise InputError(
            f"W_enc has shape {shapes[0]} and W_dec {shapes[1]}: give hidden x latents and "
            "latents x hidden, as SAELens saves them"
        )
    for name in ("normalize_activations", "reshape_activations"):
        if (found := settings.get(name, "none")) != "none":
            raise InputError(f"{name} is {found!r}: fold it into the weights, so that it is 'none'")
