"""Let SAELens itself make autoencoders and read ours: python tests/read_sae_lens.py.

It needs `pip install sae-lens` beside toymodels, which brings PyTorch. It writes
tests/made_by_sae_lens.json, which `tests/test_sae_lens.py` reads, and fails if SAELens computes
other numbers than we do from a file that we wrote.
"""

import json
import tempfile
from pathlib import Path

import jax
import numpy as np
import sae_lens
import torch
from safetensors.numpy import load_file, save_file

import toymodels as tm
from toymodels import autoencoders

STORED = Path(__file__).with_name("made_by_sae_lens.json")
HIDDEN, LATENTS, EXAMPLES = 4, 6, 8
THEIRS = {
    "standard": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {}),
    "not centred": (
        sae_lens.StandardSAE,
        sae_lens.StandardSAEConfig,
        {"apply_b_dec_to_input": False},
    ),
    "topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, {"k": 2}),
    "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig, {}),
    "gated": (sae_lens.GatedSAE, sae_lens.GatedSAEConfig, {}),
}
OURS = (
    tm.ReLUAutoencoder(LATENTS),
    tm.TopKAutoencoder(LATENTS, 2),
    tm.JumpReLUAutoencoder(LATENTS, bandwidth=0.1, start=0.1),
    tm.GatedAutoencoder(LATENTS),
)


@torch.no_grad()
def made(sae, examples):
    """Return the file that SAELens writes for an autoencoder with random weights, as lists."""
    for name, values in sae.named_parameters():
        values.add_(0.3 * torch.randn_like(values))
        if name == "threshold":
            values.abs_()
    if isinstance(sae, sae_lens.TopKSAE):  # it selects by latents, which directions scale here
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    with tempfile.TemporaryDirectory() as folder:
        sae.save_model(folder)
        settings = json.loads((Path(folder) / "cfg.json").read_text())
        weights = load_file(Path(folder) / "sae_weights.safetensors")
    latents, outputs = sae.encode(examples), sae(examples)
    arrays = {"examples": examples, "latents": latents, "outputs": outputs}
    return {
        "settings": settings,
        "weights": {name: values.tolist() for name, values in weights.items()},
        **{name: values.numpy().tolist() for name, values in arrays.items()},
    }


@torch.no_grad()
def check(model, key):
    """Raise AssertionError if SAELens reads another autoencoder than we wrote."""
    start, shift, data = jax.random.split(key, 3)
    examples = jax.random.normal(data, (50, HIDDEN))
    params = model.init(start, examples[0])["params"]
    flat, tree = jax.tree.flatten(params)
    keys = jax.random.split(shift, len(flat))
    flat = [
        value + 0.3 * jax.random.normal(k, value.shape) for value, k in zip(flat, keys, strict=True)
    ]
    params = jax.tree.unflatten(tree, flat)
    ours = jax.vmap(lambda x: model.apply({"params": params}, x))(examples)
    settings, weights = autoencoders.to_sae_lens(model, params)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cfg.json").write_text(json.dumps(settings))
        save_file(weights, Path(folder) / "sae_weights.safetensors")
        sae = sae_lens.SAE.load_from_disk(folder, device="cpu")
    rows = torch.tensor(np.asarray(examples))
    np.testing.assert_allclose(sae.encode(rows).numpy(), ours.latents, atol=1e-5)
    np.testing.assert_allclose(sae(rows).numpy(), ours.reconstruction, atol=1e-5)


if __name__ == "__main__":
    for number, model in enumerate(OURS):
        check(model, jax.random.key(number))
        print(f"SAELens {sae_lens.__version__} reads {type(model).__name__}")
    torch.manual_seed(0)
    examples = torch.randn(EXAMPLES, HIDDEN)
    size = {"d_in": HIDDEN, "d_sae": LATENTS, "device": "cpu"}
    stored = {
        name: made(sae(config(**size, **more)), examples)
        for name, (sae, config, more) in THEIRS.items()
    }
    STORED.write_text(json.dumps(stored) + "\n")
